//! The key of the sealed file: where it is, how long we wait for it, and that we ask at most once.
//!
//! A keyring may be slow, locked, absent, or wait for a person at a prompt. So it is asked on a thread of its own, and
//! who needs the key waits for that thread only so long; a later call goes on waiting for the same thread, without a
//! second prompt. An answer, good or bad, holds for the process (`Keys::forget_refusals` on a user's wish).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::choice::CredentialStore;
use super::files;
use super::sealed::{Key, KeyId, KeyPlace};

/// How long a reader waits for a keyring that does not answer; then the user is told to unlock it.
pub(super) const FIND_PATIENCE: Duration = Duration::from_secs(10);
/// How long the first writer waits for a keyring to take the new key. It may ask the user for a password.
pub(super) const MAKE_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a key file at most.
const MAX_KEY_FILE: u64 = 256;

impl CredentialStore {
    /// Whether a key at this place is what the user wants.
    pub(super) const fn accepts(self, place: KeyPlace) -> bool {
        match self {
            Self::Auto => true,
            Self::Keyring => !matches!(place, KeyPlace::File),
            Self::File => matches!(place, KeyPlace::File),
            Self::Memory => false,
        }
    }

    /// Where a new key goes, best first. `Auto` leaves the kernel out: after a reboot every login would be gone.
    pub(super) const fn places(self) -> &'static [KeyPlace] {
        match self {
            Self::Auto => &[KeyPlace::Keyring, KeyPlace::File],
            Self::Keyring => &[KeyPlace::Keyring, KeyPlace::Keyutils],
            Self::File => &[KeyPlace::File],
            Self::Memory => &[],
        }
    }
}

/// A place that keeps keys. Calls may block for as long as a person thinks.
pub trait Vault: Send + Sync {
    /// Which place it is.
    fn place(&self) -> KeyPlace;
    /// The key; `None` only if the place works and has no such key.
    fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError>;
    /// Keeps a key, and has read it back.
    fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError>;
    /// Forgets a key.
    fn delete(&self, id: KeyId) -> Result<(), VaultError>;
}

/// A place cannot be used now; says why. It says nothing about whether a key is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VaultError(pub String);

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyError {
    /// The keyring has not answered yet: it may be asking the user.
    Waiting,
    /// The place cannot be used.
    Unavailable(String),
}

/// A key as text: KDE's wallet takes no other bytes.
pub(super) fn to_text(key: &Key) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(key.expose()))
}

/// Reads it back.
pub(super) fn from_text(text: &[u8]) -> Option<Key> {
    Key::from_bytes(&Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim_ascii()).ok()?))
}

/// A file of mode 0600 beside the sealed one.
struct KeyFiles {
    sealed: PathBuf,
}

impl KeyFiles {
    fn path(&self, id: KeyId) -> PathBuf {
        let mut name = self.sealed.file_name().unwrap_or_default().to_owned();
        name.push(format!(".key-{id}"));
        self.sealed.with_file_name(name)
    }
}

fn in_file(path: &Path, error: &std::io::Error) -> VaultError {
    VaultError(format!("{}: {error}", path.display()))
}

impl Vault for KeyFiles {
    fn place(&self) -> KeyPlace {
        KeyPlace::File
    }

    fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
        let path = self.path(id);
        let found = files::read(&path, MAX_KEY_FILE).map_err(|error| in_file(&path, &error))?;
        Ok(found.map(|(bytes, _)| Zeroizing::new(bytes)).and_then(|bytes| from_text(&bytes)))
    }

    fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
        let path = self.path(id);
        let text = Zeroizing::new(format!("{}\n", *to_text(key)));
        files::Replacement::begin(&path)
            .and_then(|file| file.finish(text.as_bytes()))
            .map_err(|error| in_file(&path, &error))
    }

    fn delete(&self, id: KeyId) -> Result<(), VaultError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(|error| in_file(&path, &error))
    }
}

/// A question to a vault that runs on its own thread.
struct Job {
    place: KeyPlace,
    id: KeyId,
    state: Mutex<JobState>,
    bell: Condvar,
}

#[derive(Default)]
struct JobState {
    answer: Option<Result<Option<Key>, VaultError>>,
    /// Nobody waits any more for the key to be put away.
    abandoned: bool,
}

/// The keys that this process knows and may ask for.
pub(super) struct Keys {
    vaults: Vec<Arc<dyn Vault>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Vec<(KeyPlace, KeyId, Key)>,
    /// The place had no such key: it will not appear by asking again.
    missing: Vec<(KeyPlace, KeyId)>,
    refused: Vec<(KeyPlace, String)>,
    running: Option<Arc<Job>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").field("known", &self.state().known.len()).finish_non_exhaustive()
    }
}

impl Keys {
    /// For the sealed file at `sealed`; `vaults` are the system's keyrings.
    pub(super) fn new(sealed: &Path, mut vaults: Vec<Arc<dyn Vault>>) -> Self {
        vaults.push(Arc::new(KeyFiles { sealed: sealed.to_owned() }));
        Self { vaults, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vault(&self, place: KeyPlace) -> Result<Arc<dyn Vault>, KeyError> {
        let vault = self.vaults.iter().find(|vault| vault.place() == place).cloned();
        vault.ok_or_else(|| KeyError::Unavailable("this build has no keyring".into()))
    }

    /// A key that this process has already, without asking anybody.
    pub(super) fn known(&self, place: KeyPlace, id: KeyId) -> Option<Key> {
        let state = self.state();
        state.known.iter().find(|(its_place, its, _)| (*its_place, *its) == (place, id)).map(|(_, _, key)| key.clone())
    }

    /// A key that another process has.
    pub(super) fn learn(&self, place: KeyPlace, id: KeyId, key: Key) {
        self.state().known.push((place, id, key));
    }

    /// The key of a file; `None` if the place works and does not have it.
    pub(super) fn find(&self, place: KeyPlace, id: KeyId, patience: Duration) -> Result<Option<Key>, KeyError> {
        let vault = self.vault(place)?;
        let job = {
            let mut state = self.state();
            if let Some((_, _, key)) = state.known.iter().find(|(its_place, its, _)| (*its_place, *its) == (place, id))
            {
                return Ok(Some(key.clone()));
            }
            if state.missing.contains(&(place, id)) {
                return Ok(None);
            }
            if let Some((_, why)) = state.refused.iter().find(|(refused, _)| *refused == place) {
                return Err(KeyError::Unavailable(why.clone()));
            }
            match &state.running {
                Some(job) if (job.place, job.id) == (place, id) => job.clone(),
                Some(_) => return Err(KeyError::Waiting),
                None => {
                    let job = start(vault, id, None)?;
                    state.running = Some(job.clone());
                    job
                }
            }
        };
        self.wait(&job, patience)
    }

    /// Makes a new key and has it kept.
    pub(super) fn make(&self, place: KeyPlace, patience: Duration) -> Result<(KeyId, Key), KeyError> {
        let vault = self.vault(place)?;
        let random = |_| KeyError::Unavailable("the system gives no random numbers".into());
        let (id, key) = (KeyId::random().map_err(random)?, Key::random().map_err(random)?);
        let job = {
            let mut state = self.state();
            if let Some((_, why)) = state.refused.iter().find(|(refused, _)| *refused == place) {
                return Err(KeyError::Unavailable(why.clone()));
            }
            if state.running.is_some() {
                return Err(KeyError::Waiting);
            }
            let job = start(vault, id, Some(key.clone()))?;
            state.running = Some(job.clone());
            job
        };
        match self.wait(&job, patience) {
            Ok(_) => Ok((id, key)),
            Err(KeyError::Waiting) => {
                let mut state = job.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.abandoned = state.answer.is_none();
                let abandoned = state.abandoned;
                drop(state);
                if !abandoned {
                    // It came just now.
                    return self.wait(&job, Duration::ZERO).map(|_| (id, key));
                }
                self.state().running = None;
                Err(KeyError::Waiting)
            }
            Err(error) => Err(error),
        }
    }

    fn wait(&self, job: &Job, patience: Duration) -> Result<Option<Key>, KeyError> {
        let state = job.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = job.bell.wait_timeout_while(state, patience, |state| state.answer.is_none());
        let (done, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let answer = done.answer.clone().ok_or(KeyError::Waiting)?;
        drop(done);
        let mut state = self.state();
        if state.running.as_ref().is_some_and(|running| (running.place, running.id) == (job.place, job.id)) {
            state.running = None;
        }
        match answer {
            Ok(Some(key)) => {
                if !state.known.iter().any(|(_, id, _)| *id == job.id) {
                    state.known.push((job.place, job.id, key.clone()));
                }
                Ok(Some(key))
            }
            Ok(None) => {
                // A file may come back by itself, and to look costs nothing.
                if job.place != KeyPlace::File {
                    state.missing.push((job.place, job.id));
                }
                Ok(None)
            }
            Err(VaultError(why)) => {
                if job.place != KeyPlace::File {
                    state.refused.push((job.place, why.clone()));
                }
                Err(KeyError::Unavailable(why))
            }
        }
    }

    /// Forgets a key that no file needs any more. Best effort, and not waited for.
    pub(super) fn discard(&self, place: KeyPlace, id: KeyId) {
        self.state().known.retain(|(_, known, _)| *known != id);
        let Ok(vault) = self.vault(place) else { return };
        if place == KeyPlace::File {
            let _ = vault.delete(id);
        } else {
            let _ = std::thread::Builder::new().name("keyring".into()).spawn(move || vault.delete(id));
        }
    }

    /// The next call asks again: the user wants it.
    pub(super) fn forget_refusals(&self) {
        let mut state = self.state();
        state.refused.clear();
        state.missing.clear();
    }
}

/// Asks, or (with a key) keeps it: on this thread what is a file, on its own thread what may take a person's time.
fn start(vault: Arc<dyn Vault>, id: KeyId, new: Option<Key>) -> Result<Arc<Job>, KeyError> {
    let job = Arc::new(Job { place: vault.place(), id, state: Mutex::default(), bell: Condvar::new() });
    let worker = job.clone();
    let run = move || {
        let putting = new.is_some();
        let answer = match new {
            Some(key) => vault.put(id, &key).map(|()| Some(key)),
            None => vault.get(id),
        };
        let abandoned = {
            let mut state = worker.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.answer = Some(answer);
            state.abandoned
        };
        worker.bell.notify_all();
        if putting && abandoned {
            let _ = vault.delete(id);
        }
    };
    if job.place == KeyPlace::File {
        run();
        return Ok(job);
    }
    match std::thread::Builder::new().name("keyring".into()).spawn(run) {
        Ok(_) => Ok(job),
        Err(error) => Err(KeyError::Unavailable(format!("no thread could be started: {error}"))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A keyring for tests: counts what it is asked, and does what it is told.
    #[derive(Default)]
    pub(in crate::store) struct FakeKeyring {
        pub keys: Mutex<Vec<(KeyId, Key)>>,
        pub asked: AtomicUsize,
        pub absent: AtomicBool,
        /// Holds up every answer while it is true.
        pub prompting: AtomicBool,
    }

    impl FakeKeyring {
        fn answer<T>(&self, answer: impl FnOnce(&mut Vec<(KeyId, Key)>) -> T) -> Result<T, VaultError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            while self.prompting.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.absent.load(Ordering::SeqCst) {
                return Err(VaultError("no bus".into()));
            }
            Ok(answer(&mut self.keys.lock().unwrap()))
        }
    }

    impl Vault for FakeKeyring {
        fn place(&self) -> KeyPlace {
            KeyPlace::Keyring
        }
        fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
            self.answer(|keys| keys.iter().find(|(its, _)| *its == id).map(|(_, key)| key.clone()))
        }
        fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
            self.answer(|keys| keys.push((id, key.clone())))
        }
        fn delete(&self, id: KeyId) -> Result<(), VaultError> {
            self.answer(|keys| keys.retain(|(its, _)| *its != id))
        }
    }

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    fn keys() -> (Arc<FakeKeyring>, Keys) {
        let fake = Arc::new(FakeKeyring::default());
        (fake.clone(), Keys::new(Path::new("/nowhere/credentials"), vec![fake]))
    }

    fn until(condition: impl Fn() -> bool) {
        for _ in 0..5000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it did not happen");
    }

    #[test]
    fn the_keyring_is_asked_once() {
        let (fake, keys) = keys();
        let (id, key) = keys.make(KeyPlace::Keyring, LONG).unwrap();
        for _ in 0..3 {
            assert_eq!(keys.find(KeyPlace::Keyring, id, LONG).unwrap().unwrap().expose(), key.expose());
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1, "to keep it");
        let other = Keys::new(Path::new("/nowhere/credentials"), vec![fake.clone()]);
        for _ in 0..3 {
            assert_eq!(other.find(KeyPlace::Keyring, id, LONG).unwrap().unwrap().expose(), key.expose());
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 2, "one more process, one more question");
        let unknown = KeyId::random().unwrap();
        for _ in 0..3 {
            assert!(other.find(KeyPlace::Keyring, unknown, LONG).unwrap().is_none());
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 3, "that it is missing is remembered too");
    }

    #[test]
    fn a_refusal_holds_until_the_user_wants_more() {
        let (fake, keys) = keys();
        fake.absent.store(true, Ordering::SeqCst);
        let id = KeyId::random().unwrap();
        for _ in 0..3 {
            assert_eq!(keys.find(KeyPlace::Keyring, id, LONG).err(), Some(KeyError::Unavailable("no bus".into())));
            assert_eq!(keys.make(KeyPlace::Keyring, LONG).err(), Some(KeyError::Unavailable("no bus".into())));
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
        fake.absent.store(false, Ordering::SeqCst);
        keys.forget_refusals();
        assert!(keys.make(KeyPlace::Keyring, LONG).is_ok());
    }

    #[test]
    fn a_prompt_is_waited_for_in_parts_and_asked_for_once() {
        let (fake, keys) = keys();
        let (id, _) = keys.make(KeyPlace::Keyring, LONG).unwrap();
        let other = Keys::new(Path::new("/nowhere/credentials"), vec![fake.clone()]);
        fake.prompting.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(other.find(KeyPlace::Keyring, id, SHORT).err(), Some(KeyError::Waiting));
        }
        fake.prompting.store(false, Ordering::SeqCst);
        assert!(other.find(KeyPlace::Keyring, id, LONG).unwrap().is_some());
        assert_eq!(fake.asked.load(Ordering::SeqCst), 2, "one to keep, one to find");
    }

    #[test]
    fn a_key_that_comes_too_late_is_taken_back() {
        let (fake, keys) = keys();
        fake.prompting.store(true, Ordering::SeqCst);
        assert_eq!(keys.make(KeyPlace::Keyring, SHORT).err(), Some(KeyError::Waiting));
        fake.prompting.store(false, Ordering::SeqCst);
        until(|| fake.asked.load(Ordering::SeqCst) == 2);
        until(|| fake.keys.lock().unwrap().is_empty());
        assert!(keys.make(KeyPlace::Keyring, LONG).is_ok(), "and the next try is free");
    }

    #[test]
    fn choices_have_names_and_places() {
        use CredentialStore::{Auto, File, Keyring, Memory};
        for (name, choice) in [("auto", Auto), ("keyring", Keyring), ("file", File), ("memory", Memory)] {
            assert_eq!(name.parse(), Ok(choice));
            assert!(choice.places().iter().all(|place| choice.accepts(*place)));
        }
        assert_eq!("Keyring".parse::<CredentialStore>(), Err(crate::store::UnknownStore));
        assert!(!Keyring.accepts(KeyPlace::File) && !File.accepts(KeyPlace::Keyring));
        assert!(!Auto.places().contains(&KeyPlace::Keyutils));
    }

    #[test]
    fn a_key_is_text_and_back() {
        let key = Key::from_bytes(&[0xff; 32]).unwrap();
        let text = to_text(&key);
        assert_eq!(text.len(), 43);
        assert_eq!(from_text(format!(" {}\n", *text).as_bytes()).unwrap().expose(), key.expose());
        for bad in ["", "AAAA", "!", &text[1..], &format!("{}A", *text)] {
            assert!(from_text(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
