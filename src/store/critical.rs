//! Long critical sections of one server over all processes (A5, A6), and whose tab was opened.

use std::path::PathBuf;
use std::time::Duration;

use ring::digest;

use super::lock::{self, LockError};
use super::{FileLock, MAX_NOTE, ServerKey, Store, StoreError, contents, files};
use crate::secret::Secret;

/// What only one process may do at a time for one server (A5, A6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Critical {
    /// To sign in. Held for as long as a person takes.
    SignIn,
    /// To renew the token.
    Refresh,
    /// To ask the token endpoint.
    Redeem,
}

/// A critical section, held until this is dropped.
#[derive(Debug)]
pub struct CriticalLock {
    _held: Exclusive,
}

#[derive(Debug)]
enum Exclusive {
    Processes { _lock: FileLock },
    Tasks { _guard: tokio::sync::OwnedMutexGuard<()> },
}

impl Store {
    /// A lock for a long critical section of one server, over all processes; it ends with the process that holds it.
    ///
    /// Read the store again when you have it: the one before you may have done the work. Waiting holds up nothing and
    /// ends after `most`: [`StoreError::Busy`]. Cancel safe.
    pub async fn critical(
        &self,
        server: &ServerKey,
        section: Critical,
        most: Duration,
    ) -> Result<CriticalLock, StoreError> {
        if let Some(disk) = self.disk() {
            let locks = disk.directory.join("locks");
            let prepared = files::private_directory(&disk.directory).and_then(|_| files::private_directory(&locks));
            let path = locks.join(lock_name(server, section));
            let taken = match prepared {
                Ok(_) => lock::wait_async(&path, most).await,
                Err(error) => Err(error.into()),
            };
            match taken {
                Ok(lock) => return Ok(CriticalLock { _held: Exclusive::Processes { _lock: lock } }),
                Err(LockError::Held) => return Err(StoreError::Busy),
                // To go on without the lock would redeem a token twice.
                Err(LockError::Io(error)) if files::passes(&error) => return Err(StoreError::NotRead(error)),
                Err(LockError::Io(error)) => self.say(format!(
                    "Other processes cannot be kept from signing in at the same time: {}: {error}",
                    disk.directory.display()
                )),
            }
        }
        let lock = match section {
            Critical::SignIn => &self.inner.sign_in,
            Critical::Refresh => &self.inner.refresh,
            Critical::Redeem => &self.inner.redeem,
        };
        match tokio::time::timeout(most, lock.clone().lock_owned()).await {
            Ok(guard) => Ok(CriticalLock { _held: Exclusive::Tasks { _guard: guard } }),
            Err(_) => Err(StoreError::Busy),
        }
    }

    /// Notes, at the very moment before a browser is started, that the tab of a sign-in is opened: who takes the sign-in over opens no second
    /// one. A killed process leaves it behind; it need not outlive a power cut. What cannot be noted is not noted.
    pub fn note_tab(&self, server: &ServerKey, url: &Secret) {
        let Some(path) = self.tab_note(server) else { return };
        if let Err(error) = files::write_note(&path, contents::fingerprint(url.expose()).as_bytes()) {
            tracing::debug!("the tab is not noted: {error}");
        }
    }

    /// Whether the tab of a sign-in was opened, as far as anybody noted it. Where nothing can be noted, it is taken for opened.
    pub fn is_tab_noted(&self, server: &ServerKey, url: &Secret) -> bool {
        let Some(path) = self.tab_note(server) else { return true };
        let noted = files::read(&path, MAX_NOTE);
        matches!(noted, Ok(Some((text, _))) if text == contents::fingerprint(url.expose()).as_bytes())
    }

    fn tab_note(&self, server: &ServerKey) -> Option<PathBuf> {
        Some(self.disk()?.directory.join("locks").join(format!("{}.tab", hidden_name(server))))
    }
}

/// Does not tell the server to who lists the directory.
fn hidden_name(server: &ServerKey) -> String {
    let text = format!("{}\n{}", server.server, server.profile);
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let half = hash.as_ref().first_chunk().copied().map_or(0, u128::from_be_bytes);
    format!("{half:032x}")
}

fn lock_name(server: &ServerKey, section: Critical) -> String {
    let section = match section {
        Critical::SignIn => "sign-in",
        Critical::Refresh => "refresh",
        Critical::Redeem => "redeem",
    };
    format!("{}.{section}.lock", hidden_name(server))
}
