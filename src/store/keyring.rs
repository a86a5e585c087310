//! The keyrings of the systems. Each keeps one 32-byte key, as text.
//!
//! Linux and the BSDs: the Secret Service, through `dbus-secret-service` itself rather than its keyring-core wrapper:
//! the wrapper says "no entry" also when the service has no collection at all, which must not be taken for "signed
//! out", and it lets a prompt stand for a year. The session on the bus is a plain one: whoever can read the bus can ask
//! the service for the secret itself, and the crate's encrypted session takes its numbers from no secure source.

use std::sync::Arc;

use super::key::Vault;

/// Who we are in a keyring.
#[cfg(feature = "keyring")]
const SERVICE: &str = "mcp-drawbridge";

/// The keyrings of this system, best first. Nothing is asked yet.
pub(super) fn of_this_system() -> Vec<Arc<dyn Vault>> {
    #[cfg(all(feature = "keyring", unix, not(target_os = "macos")))]
    let vaults: Vec<Arc<dyn Vault>> = vec![
        Arc::new(secret_service::SecretService),
        #[cfg(target_os = "linux")]
        Arc::new(native::KEYUTILS),
    ];
    #[cfg(all(feature = "keyring", any(target_os = "macos", windows)))]
    let vaults: Vec<Arc<dyn Vault>> = vec![Arc::new(native::SYSTEM)];
    #[cfg(not(feature = "keyring"))]
    let vaults: Vec<Arc<dyn Vault>> = Vec::new();
    vaults
}

/// The user's name for a key in a keyring.
#[cfg(feature = "keyring")]
fn user(id: super::sealed::KeyId) -> String {
    format!("credential store key {id}")
}

#[cfg(all(feature = "keyring", unix, not(target_os = "macos")))]
mod secret_service {
    use std::collections::HashMap;

    use dbus_secret_service::{Collection, EncryptionType, Error, Item, SecretService as Service};
    use zeroize::Zeroizing;

    use super::super::key::{Vault, VaultError, from_text, to_text};
    use super::super::sealed::{Key, KeyId, KeyPlace};
    use super::{SERVICE, user};
    use crate::secret::SafeText;

    /// Seconds that a person may take to unlock the keyring.
    const PROMPT: u64 = 180;
    /// How often a connection is tried: the crate gives a call two seconds, and the bus may have to start the service.
    const CONNECTIONS: u32 = 3;

    /// What libdbus says where no bus is named.
    const NO_BUS: &str = "org.freedesktop.DBus.Error.NotSupported";

    /// The freedesktop.org Secret Service: GNOME Keyring, KDE Wallet, `KeePassXC`.
    pub(super) struct SecretService;

    impl Vault for SecretService {
        fn place(&self) -> KeyPlace {
            KeyPlace::Keyring
        }

        fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
            let service = connect()?;
            let Some(item) = find(&service, id)? else { return Ok(None) };
            read(&item)
        }

        fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
            let service = connect()?;
            let collection = unlocked_collection(&service)?;
            let user = user(id);
            let label = format!("{SERVICE}: key of the credential store");
            let text = to_text(key);
            let item = collection
                .create_item(&label, attributes(&user), text.as_bytes(), true, "text/plain")
                .map_err(refused)?;
            match read(&item)? {
                Some(kept) if kept.expose() == key.expose() => Ok(()),
                _ => Err(VaultError("the keyring did not keep the key".into())),
            }
        }

        fn delete(&self, id: KeyId) -> Result<(), VaultError> {
            let service = connect()?;
            let user = user(id);
            let found = service.search_items(attributes(&user)).map_err(refused)?;
            found.unlocked.iter().chain(&found.locked).try_for_each(|item| item.delete().map_err(refused))
        }
    }

    fn refused(error: Error) -> VaultError {
        VaultError(match error {
            Error::NoResult => "the Secret Service has no default collection".into(),
            Error::Dbus(error) if error.name() == Some(NO_BUS) => {
                "there is no session bus, DBUS_SESSION_BUS_ADDRESS is not set".into()
            }
            Error::Prompt | Error::Locked => "the keyring is locked and was not unlocked".into(),
            error => SafeText(&error.to_string()).to_string(),
        })
    }

    fn connect() -> Result<Service, VaultError> {
        let mut tries = 1;
        loop {
            match Service::connect_with_max_prompt_timeout(EncryptionType::Plain, PROMPT) {
                Err(Error::Dbus(error)) if is_late(error.name()) && tries < CONNECTIONS => tries += 1,
                result => return result.map_err(refused),
            }
        }
    }

    fn is_late(name: Option<&str>) -> bool {
        matches!(name, Some("org.freedesktop.DBus.Error.NoReply" | "org.freedesktop.DBus.Error.Timeout"))
    }

    fn attributes(user: &str) -> HashMap<&str, &str> {
        // As keyring-core names them, so that the system's own tools show something familiar.
        HashMap::from([("service", SERVICE), ("username", user)])
    }

    fn unlocked_collection(service: &Service) -> Result<Collection<'_>, VaultError> {
        let collection = service.get_default_collection().map_err(refused)?;
        collection.ensure_unlocked().map_err(refused)?;
        Ok(collection)
    }

    /// `None` only after the collection was seen, unlocked, without the item.
    fn find(service: &Service, id: KeyId) -> Result<Option<Item<'_>>, VaultError> {
        let user = user(id);
        let search = || service.search_items(attributes(&user)).map_err(refused);
        let found = search()?;
        if let Some(item) = found.unlocked.into_iter().next() {
            return Ok(Some(item));
        }
        if let Some(item) = found.locked.into_iter().next() {
            item.unlock().map_err(refused)?;
            return Ok(Some(item));
        }
        // Some services do not show what a locked collection holds.
        unlocked_collection(service)?;
        Ok(search()?.unlocked.into_iter().next())
    }

    fn read(item: &Item<'_>) -> Result<Option<Key>, VaultError> {
        let text = Zeroizing::new(item.get_secret().map_err(refused)?);
        Ok(from_text(&text))
    }
}

#[cfg(all(feature = "keyring", any(target_os = "linux", target_os = "macos", windows)))]
mod native {
    #[cfg(windows)]
    use std::collections::HashMap;

    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::{Entry, Error};
    use zeroize::Zeroizing;

    use super::super::key::{Vault, VaultError, from_text, to_text};
    use super::super::sealed::{Key, KeyId, KeyPlace};
    use super::{SERVICE, user};

    /// A keyring behind a keyring-core store.
    pub(super) struct Native {
        place: KeyPlace,
        entry: fn(&str) -> keyring_core::Result<Entry>,
    }

    /// The kernel's keyring. Its keys end with the machine's uptime.
    #[cfg(target_os = "linux")]
    pub(super) const KEYUTILS: Native = Native {
        place: KeyPlace::Keyutils,
        entry: |user| linux_keyutils_keyring_store::Store::new()?.build(SERVICE, user, None),
    };

    /// The login keychain. macOS asks the user when another binary than the one that made an item wants it.
    #[cfg(target_os = "macos")]
    pub(super) const SYSTEM: Native = Native {
        place: KeyPlace::Keyring,
        entry: |user| apple_native_keyring_store::keychain::Store::new()?.build(SERVICE, user, None),
    };

    /// The Credential Manager. `Local`: the key does not roam to other machines, where the sealed file is not.
    #[cfg(windows)]
    pub(super) const SYSTEM: Native = Native {
        place: KeyPlace::Keyring,
        entry: |user| {
            let modifiers = HashMap::from([("persistence", "Local")]);
            windows_native_keyring_store::Store::new()?.build(SERVICE, user, Some(&modifiers))
        },
    };

    /// In words: the crate's own error may carry the bytes that it read.
    fn refused(error: &Error) -> VaultError {
        VaultError(match error {
            Error::PlatformFailure(why) => format!("the keyring failed: {why}"),
            Error::NoStorageAccess(why) => format!("the keyring cannot be opened: {why}"),
            Error::NoEntry => "the keyring did not keep the key".into(),
            _ => "the keyring failed".into(),
        })
    }

    impl Vault for Native {
        fn place(&self) -> KeyPlace {
            self.place
        }

        fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
            match (self.entry)(&user(id)).and_then(|entry| entry.get_secret()) {
                Ok(text) => Ok(from_text(&Zeroizing::new(text))),
                Err(Error::NoEntry) => Ok(None),
                Err(error) => Err(refused(&error)),
            }
        }

        fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
            let entry = (self.entry)(&user(id)).map_err(|error| refused(&error))?;
            entry.set_secret(to_text(key).as_bytes()).map_err(|error| refused(&error))?;
            let kept = entry.get_secret().map(Zeroizing::new).map_err(|error| refused(&error))?;
            match from_text(&kept) {
                Some(kept) if kept.expose() == key.expose() => Ok(()),
                _ => Err(VaultError("the keyring did not keep the key".into())),
            }
        }

        fn delete(&self, id: KeyId) -> Result<(), VaultError> {
            let entry = (self.entry)(&user(id)).map_err(|error| refused(&error))?;
            entry.delete_credential().map_err(|error| refused(&error))
        }
    }
}
