//! `--credential-store`. Pure.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where the user wants sign-ins to be kept (`--credential-store`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CredentialStore {
    /// Sealed, the key in the keyring; if there is none, in a file.
    #[default]
    Auto,
    /// Sealed, the key in a keyring and never in a file.
    Keyring,
    /// Sealed, the key in a file of mode 0600. No keyring is asked.
    File,
    /// Not kept: every start signs in anew.
    Memory,
}

impl FromStr for CredentialStore {
    type Err = UnknownStore;

    fn from_str(text: &str) -> Result<Self, UnknownStore> {
        match text {
            "auto" => Ok(Self::Auto),
            "keyring" => Ok(Self::Keyring),
            "file" => Ok(Self::File),
            "memory" => Ok(Self::Memory),
            _ => Err(UnknownStore),
        }
    }
}

/// A word that names no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential store is one of auto, keyring, file, memory")]
pub struct UnknownStore;
