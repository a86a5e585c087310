//! The credential store: tokens, registrations and sign-ins under way, in one sealed file (H6).
//!
//! In the state directory, private to the user whatever the umask:
//!
//! - `credentials`: the sealed file, replaced whole or not at all.
//! - `credentials.lock`: held by whoever writes; never deleted.
//! - `credentials-key.lock`: held by whoever makes a key.
//! - `locks/*.lock`: one for each server and [`Critical`] section.
//! - `locks/*.tab`: which sign-in's tab was opened last, by a hash.
//! - `credentials.key-*`: the key, if it is in no keyring.
//! - `credentials.damaged*`, `credentials.lost-key*`: files that could not be opened, kept for the user.
//!
//! Readers take no lock. Who wants to write gets the store together with its lock, read anew:
//!
//! ```compile_fail
//! # fn f(store: mcp_drawbridge::store::Store) {
//! let contents = store.read().unwrap();
//! contents.commit().unwrap(); // no lock, no writing
//! # }
//! ```
//!
//! Whatever happens to the disk or the keyring, the program goes on: at worst sign-ins are kept in memory, and a
//! [`Store::notices`] line says why. `docs/store.md` has the reasons.
//!
//! Functions that are not `async` may block for the time that their documentation names: call them on a thread where
//! that does no harm, or use [`Store::snapshot`] and [`Store::update`].

mod choice;
mod contents;
mod critical;
mod files;
pub mod import;
mod key;
mod keyring;
mod lock;
mod locked;
mod md5;
mod sealed;
mod secret_text;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::secret::Secret;

pub use choice::{CredentialStore, UnknownStore};
pub use contents::{
    Account, AccountKey, Contents, Discovery, Extra, OverLimit, PENDING_LIFETIME, PendingSignIn, Registration, Server,
    ServerKey, Tokens,
};
pub use critical::{Critical, CriticalLock};
pub use key::{Vault, VaultError};
pub use lock::FileLock;
pub use locked::LockedStore;
pub use sealed::{Key, KeyId, KeyPlace};

use files::{Mode, Replacement};
use key::{FIND_PATIENCE, KeyError, Keys, MAKE_PATIENCE};
use lock::LockError;
use locked::{Guard, seal};
use sealed::{Header, Unreadable};

/// Bytes of the sealed file at most.
const MAX_FILE: usize = 16 << 20;
/// How long a writer waits for another process's write, which takes some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Room on the disk beyond the present size that [`LockedStore::reserve`] takes.
const ROOM: usize = 128 * 1024;
/// Bytes of the note that a tab was opened.
const MAX_NOTE: u64 = 64;
/// Lines for the user that are kept.
const MAX_NOTICES: usize = 32;

/// Why the store did not do what it was asked for. Nothing that was stored is lost by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The keyring has not given the key yet. Try again: the same question is waited for.
    #[error("the keyring has not answered yet; if it asks for its password, unlock it")]
    KeyringWaiting,
    /// Another process holds the lock for longer than a write takes.
    #[error("another mcp-drawbridge process holds the credential store; if it hangs, end it")]
    Busy,
    /// It does not fit.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// It could not be written. The old file stays; this process keeps the new state in memory.
    #[error("the credential store could not be written: {0}")]
    NotSaved(#[source] io::Error),
    /// It was read before, and cannot be read now. What is in it stays as it is.
    #[error("the credential store could not be read: {0}")]
    NotRead(#[source] io::Error),
    /// The task that did the work was ended.
    #[error("the work on the credential store was interrupted")]
    Interrupted,
}

/// Where sign-ins are kept now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorePlace {
    /// In the sealed file; the key is there.
    Sealed(KeyPlace),
    /// Nothing is kept yet.
    Empty,
    /// In a file that this version cannot read: a newer one wrote it.
    Newer,
    /// In memory: gone when the process ends.
    Memory,
}

/// For `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What the user chose.
    pub choice: CredentialStore,
    /// Where sign-ins are kept now.
    pub place: StorePlace,
    /// The sealed file, if there may be one.
    pub file: Option<PathBuf>,
    /// What the user should know, as far as this process met it.
    pub notices: Vec<String>,
}

/// The credential store. Cheap to clone; clones are one store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    choice: CredentialStore,
    disk: Option<Disk>,
    /// What is kept if the disk cannot be used. `None` while it can.
    memory: Mutex<Option<Contents>>,
    notices: Mutex<Vec<String>>,
    /// The sealed file was opened once.
    was_read: AtomicBool,
    /// Instead of file locks where there can be none.
    sign_in: Arc<tokio::sync::Mutex<()>>,
    refresh: Arc<tokio::sync::Mutex<()>>,
    redeem: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Disk {
    directory: PathBuf,
    sealed: PathBuf,
    keys: Keys,
}

/// What the sealed file turned out to be.
enum Found {
    Nothing,
    Opened(Header, Key, Box<Contents>),
    Newer,
    Damaged,
    /// The place of the key works, and the key is not there.
    KeyLost,
    /// The place of the key does not work.
    KeyUnavailable(String),
    KeyringWaiting,
}

impl Store {
    /// The store in the state directory. Does nothing yet: neither the disk nor the keyring is touched before use.
    ///
    /// Without a directory, and with [`CredentialStore::Memory`], sign-ins are kept in memory.
    pub fn new(directory: Option<&Path>, choice: CredentialStore) -> Self {
        Self::with_vaults(directory, choice, keyring::of_this_system())
    }

    fn with_vaults(directory: Option<&Path>, choice: CredentialStore, vaults: Vec<Arc<dyn Vault>>) -> Self {
        let disk = directory.filter(|_| choice != CredentialStore::Memory).map(|directory| {
            let sealed = directory.join("credentials");
            Disk { directory: directory.to_owned(), keys: Keys::new(&sealed, vaults), sealed }
        });
        let memory = Mutex::new(disk.is_none().then(Contents::default));
        let inner = Inner {
            choice,
            disk,
            memory,
            notices: Mutex::default(),
            was_read: AtomicBool::new(false),
            sign_in: Arc::default(),
            refresh: Arc::default(),
            redeem: Arc::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        if directory.is_none() && choice != CredentialStore::Memory {
            store.say("No home directory is known, so sign-ins are kept in memory and end with this process.".into());
        }
        store
    }

    /// What is stored now: the state before or after any write that is under way.
    ///
    /// Blocks for a few milliseconds; on the first use in a process for up to 10 s, if the keyring keeps us waiting.
    pub fn read(&self) -> Result<Contents, StoreError> {
        let Some(disk) = self.disk() else { return Ok(self.memory().clone().unwrap_or_default()) };
        match self.find(disk) {
            Ok(Found::Opened(_, _, contents)) => {
                self.inner.was_read.store(true, Ordering::Relaxed);
                Ok(*contents)
            }
            Ok(Found::Nothing) => Ok(Contents::default()),
            Ok(Found::Damaged) => Ok(self.lock()?.contents.clone()),
            Ok(Found::KeyLost) => {
                self.say_key_lost(disk);
                Ok(Contents::default())
            }
            Ok(Found::Newer) => Ok(self.leave_disk(&newer(disk), Contents::default())),
            Ok(Found::KeyUnavailable(why)) => Ok(self.leave_disk(&key_unavailable(&why), Contents::default())),
            Ok(Found::KeyringWaiting) => Err(StoreError::KeyringWaiting),
            // Too many open files, say: what was there a moment ago is not gone for good.
            Err(error) if self.inner.was_read.load(Ordering::Relaxed) => Err(StoreError::NotRead(error)),
            Err(error) => Ok(self.leave_disk(&no_disk(disk, &error), Contents::default())),
        }
    }

    /// The store with its lock, read anew: whoever holds it is the only one to write.
    ///
    /// Blocks while others write, up to 10 s. The first one in the life of a store also makes the key; a keyring that
    /// asks for its password may take a minute then, which holds up no other process's reading.
    pub fn lock(&self) -> Result<LockedStore<'_>, StoreError> {
        if let Some(disk) = self.disk() {
            match self.lock_disk(disk) {
                Ok(Some(locked)) => return Ok(locked),
                Ok(None) => {}
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Io(error)) => {
                    let contents = match self.find(disk) {
                        Ok(Found::Opened(_, _, contents)) => *contents,
                        _ => Contents::default(),
                    };
                    self.leave_disk(&no_disk(disk, &error), contents);
                }
            }
        }
        let memory = self.memory();
        let contents = memory.clone().unwrap_or_default();
        Ok(LockedStore { store: self, guard: Guard::Memory(memory), contents, room: None })
    }

    /// `None`: the disk was left.
    fn lock_disk<'a>(&'a self, disk: &'a Disk) -> Result<Option<LockedStore<'a>>, Failed> {
        if files::private_directory(&disk.directory)? == Mode::Mended {
            self.say(format!("{} was open to other users; it is closed now.", disk.directory.display()));
        }
        // Twice: what was there may be gone between the two looks.
        for _ in 0..2 {
            if !self.have_key(disk)? {
                return Ok(None);
            }
            let lock = wait_lock(&disk.path("credentials.lock"), LOCK_WAIT)?;
            if let Found::Opened(header, key, contents) = self.find(disk)?
                && self.inner.choice.accepts(header.place)
            {
                files::remove_leftovers(&disk.sealed);
                let guard = Guard::Disk { disk, _lock: lock, header, key };
                return Ok(Some(LockedStore { store: self, guard, contents: *contents, room: None }));
            }
        }
        Err(Failed::Store(StoreError::Busy))
    }

    /// Sees to it that there is a sealed file that can be opened and whose key is where the user wants it. What asks
    /// the user happens here, without the lock that writers need. `false`: the disk was left.
    fn have_key(&self, disk: &Disk) -> Result<bool, Failed> {
        if let Some(done) = self.is_ready(disk, self.find(disk)?)? {
            return Ok(done);
        }
        // One process asks the user; the others wait for what it makes.
        let _making = wait_lock(&disk.path("credentials-key.lock"), MAKE_PATIENCE + LOCK_WAIT)?;
        if let Some(done) = self.is_ready(disk, self.find(disk)?)? {
            return Ok(done);
        }
        let mut problem = String::from("no place for the key");
        let mut made = None;
        for place in self.inner.choice.places() {
            match disk.keys.make(*place, MAKE_PATIENCE) {
                Ok((id, key)) => {
                    made = Some((Header { place: *place, id }, key));
                    break;
                }
                Err(KeyError::Waiting) => problem = "the keyring was not unlocked in time".into(),
                // The first place is the one that the user wants to hear about.
                Err(KeyError::Unavailable(why)) if *place == KeyPlace::Keyring => problem = why,
                Err(KeyError::Unavailable(why)) => problem = format!("{problem}; {why}"),
            }
        }
        let _lock = wait_lock(&disk.path("credentials.lock"), LOCK_WAIT)?;
        let (contents, old, aside) = match self.find(disk)? {
            Found::Opened(header, _, contents) if !self.inner.choice.accepts(header.place) => {
                (*contents, Some(header), None)
            }
            Found::Nothing => (Contents::default(), None, None),
            Found::Damaged => (Contents::default(), None, Some("damaged")),
            Found::KeyLost => (Contents::default(), None, Some("lost-key")),
            // Somebody else put a file there meanwhile.
            found => {
                if let Some((header, _)) = made {
                    disk.keys.discard(header.place, header.id);
                }
                return Ok(self.is_ready(disk, found)? == Some(true));
            }
        };
        let Some((header, key)) = made else {
            self.leave_disk(&key_unavailable(&problem), contents);
            return Ok(false);
        };
        if let Some(why) = aside {
            self.set_aside(disk, why)?;
        }
        let bytes = seal(header, &key, &contents)?;
        if let Err(error) = Replacement::begin(&disk.sealed).and_then(|file| file.finish(&bytes)) {
            disk.keys.discard(header.place, header.id);
            return Err(error.into());
        }
        if let Some(old) = old {
            disk.keys.discard(old.place, old.id);
        }
        match header.place {
            KeyPlace::File if self.inner.choice == CredentialStore::Auto => self.say(format!(
                "No keyring could be used ({problem}), so the key to your sign-ins is in a file next to them in {}, readable \
                 by you alone. Where a keyring is, `--credential-store keyring` moves it there.",
                disk.directory.display()
            )),
            KeyPlace::Keyutils => self.say(format!(
                "No keyring of the desktop could be used ({problem}), so the kernel keeps the key to your sign-ins, \
                 until the next reboot. `--credential-store file` would keep them for longer."
            )),
            KeyPlace::File | KeyPlace::Keyring => {}
        }
        Ok(true)
    }

    /// `Some(true)`: a sealed file is there as it should be; `Some(false)`: the disk was left; `None`: a new key is needed.
    fn is_ready(&self, disk: &Disk, found: Found) -> Result<Option<bool>, Failed> {
        match found {
            Found::Opened(header, _, _) => Ok(self.inner.choice.accepts(header.place).then_some(true)),
            Found::Nothing | Found::Damaged => Ok(None),
            Found::KeyLost => {
                self.say_key_lost(disk);
                Ok(None)
            }
            Found::Newer => {
                self.leave_disk(&newer(disk), Contents::default());
                Ok(Some(false))
            }
            Found::KeyUnavailable(why) => {
                self.leave_disk(&key_unavailable(&why), Contents::default());
                Ok(Some(false))
            }
            Found::KeyringWaiting => Err(Failed::Store(StoreError::KeyringWaiting)),
        }
    }

    /// Reads the sealed file. Needs no lock: it is only ever replaced whole.
    fn find(&self, disk: &Disk) -> io::Result<Found> {
        let (bytes, mode) = match files::read(&disk.sealed, MAX_FILE as u64) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Found::Damaged),
            Err(error) => return Err(error),
        };
        if mode == Mode::Mended {
            self.say(format!("{} was open to other users; it is closed now.", disk.sealed.display()));
        }
        let (header, body) = match Header::parse(&bytes) {
            Ok(parsed) => parsed,
            Err(Unreadable::Newer) => return Ok(Found::Newer),
            Err(Unreadable::Damaged) => return Ok(Found::Damaged),
        };
        let key = match disk.keys.find(header.place, header.id, FIND_PATIENCE) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(Found::KeyLost),
            Err(KeyError::Waiting) => return Ok(Found::KeyringWaiting),
            Err(KeyError::Unavailable(why)) => return Ok(Found::KeyUnavailable(why)),
        };
        let contents = sealed::open(header, &key, body).ok().and_then(|plain| serde_json::from_slice(&plain).ok());
        Ok(contents.map_or(Found::Damaged, |contents| Found::Opened(header, key, contents)))
    }

    /// [`Store::read`], off this thread.
    pub async fn snapshot(&self) -> Result<Contents, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read()).await.map_err(|_| StoreError::Interrupted)?
    }

    /// Reads anew under the lock, changes, and writes, off this thread. The change must be quick: others wait.
    pub async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Contents) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let work = move || {
            let mut locked = store.lock()?;
            let result = change(&mut locked);
            locked.commit()?;
            Ok(result)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Interrupted)?
    }

    /// The user acts (`sign_in`, `login`): a keyring that refused is asked again, and a disk that failed is tried again,
    /// unless this process holds a sign-in that only it knows.
    pub fn try_again(&self) {
        let Some(disk) = &self.inner.disk else { return };
        disk.keys.forget_refusals();
        self.memory().take_if(|contents| contents.accounts().is_empty());
    }

    /// The key of the sealed file, if this process has it, for [`Store::learn_key`] in another process of this program: that one asks no keyring,
    /// which may be locked by now, or ask the user for each process.
    pub fn known_key(&self) -> Option<Secret> {
        let disk = self.disk()?;
        let (bytes, _) = files::read(&disk.sealed, MAX_FILE as u64).ok()??;
        let (header, _) = Header::parse(&bytes).ok()?;
        let key = disk.keys.known(header.place, header.id)?;
        Some(Secret::new(header.with_key(&key::to_text(&key)).as_str()))
    }

    /// Takes what [`Store::known_key`] gave. What is no such text is ignored: then the keyring is asked.
    pub fn learn_key(&self, text: &Secret) {
        if let Some(disk) = self.disk()
            && let Ok((header, key)) = Header::parse(text.expose().as_bytes())
            && let Some(key) = key::from_text(key)
        {
            disk.keys.learn(header.place, header.id, key);
        }
    }

    /// Where sign-ins are kept. Asks no keyring.
    pub fn status(&self) -> Status {
        let place = match self.disk() {
            None => StorePlace::Memory,
            Some(disk) => match files::read(&disk.sealed, MAX_FILE as u64) {
                Ok(Some((bytes, _))) => match Header::parse(&bytes) {
                    Ok((header, _)) => StorePlace::Sealed(header.place),
                    Err(Unreadable::Newer) => StorePlace::Newer,
                    Err(Unreadable::Damaged) => StorePlace::Empty,
                },
                Ok(None) | Err(_) => StorePlace::Empty,
            },
        };
        let file = self.inner.disk.as_ref().map(|disk| disk.sealed.clone());
        Status { choice: self.inner.choice, place, file, notices: self.notices() }
    }

    /// What the user should know, each line once. They went to the log as warnings when they came up.
    pub fn notices(&self) -> Vec<String> {
        self.inner.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn say(&self, line: String) {
        let mut notices = self.inner.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES && !notices.contains(&line) {
            tracing::warn!("{line}");
            notices.push(line);
        }
    }

    fn say_key_lost(&self, disk: &Disk) {
        self.say(format!(
            "The key to your stored sign-ins is gone, so you are signed out everywhere. The next sign-in starts a new \
             store; the old file is kept beside it: {}.",
            disk.sealed.display()
        ));
    }

    fn set_aside(&self, disk: &Disk, why: &str) -> io::Result<()> {
        let aside = files::set_aside(&disk.sealed, why)?;
        if why == "damaged" {
            self.say(format!(
                "The credential store was damaged, so you are signed out everywhere. The damaged file is kept: {}.",
                aside.display()
            ));
        }
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Option<Contents>> {
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, if it is in use.
    fn disk(&self) -> Option<&Disk> {
        self.inner.disk.as_ref().filter(|_| self.memory().is_none())
    }

    /// From now on in memory.
    fn leave_disk(&self, why: &str, contents: Contents) -> Contents {
        self.say(format!("{why} Sign-ins are kept in memory and end with this process."));
        self.memory().get_or_insert(contents).clone()
    }
}

fn newer(disk: &Disk) -> String {
    format!(
        "{} was written by a newer version of mcp-drawbridge and is left alone; update this one.",
        disk.sealed.display()
    )
}

fn key_unavailable(why: &str) -> String {
    format!("The key to your stored sign-ins cannot be had: {why}. What is stored stays as it is.")
}

fn no_disk(disk: &Disk, error: &io::Error) -> String {
    format!("The state directory {} cannot be used: {error}.", disk.directory.display())
}

impl Disk {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// What ends an attempt: an answer for the caller, or a disk that is of no use.
enum Failed {
    Store(StoreError),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn wait_lock(path: &Path, most: Duration) -> Result<FileLock, Failed> {
    lock::wait(path, most).map_err(|error| match error {
        LockError::Held => Failed::Store(StoreError::Busy),
        LockError::Io(error) => Failed::Io(error),
    })
}

#[cfg(test)]
mod tests;
