//! The store with a keyring that does what the test tells it. Real processes, disks and keyrings: `tests/store.rs`.

use std::fs;
use std::sync::atomic::Ordering;

use super::key::tests::FakeKeyring;
use super::*;
use crate::secret::Secret;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drawbridge-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> =
            names.filter(|name| Path::new(name).extension().is_none_or(|end| end != "lock")).collect();
        names.sort();
        names
    }

    fn sealed(&self) -> PathBuf {
        self.0.join("credentials")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Directory, choice: CredentialStore, keyring: &Arc<FakeKeyring>) -> Store {
    Store::with_vaults(Some(&directory.0), choice, vec![keyring.clone()])
}

fn account(token: &str) -> Account {
    Account {
        key: AccountKey { issuer: "https://as.test".into(), resource: "https://r.test".into(), profile: String::new() },
        client_id: "c".into(),
        tokens: Tokens {
            access: Secret::new(token),
            refresh: None,
            id_token: None,
            obtained_at: 1,
            expires_at: None,
            granted_scope: None,
            requested_scope: None,
            extra: Extra::default(),
        },
        signed_in_at: 1,
        sign_in: None,
        extra: Extra::default(),
    }
}

fn sign_in(store: &Store, token: &str) {
    let mut locked = store.lock().unwrap();
    locked.put_account(account(token), 1);
    locked.commit().unwrap();
}

fn token(store: &Store) -> Option<String> {
    store.read().unwrap().accounts().first().map(|account| account.tokens.access.expose().to_owned())
}

#[test]
fn a_sign_in_is_there_for_the_next_process_and_the_keyring_is_asked_once_each() {
    let directory = Directory::new("auto");
    let keyring = Arc::new(FakeKeyring::default());
    let store = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&store), None);
    assert!(!directory.0.exists(), "reading makes nothing");
    sign_in(&store, "secret-token");
    sign_in(&store, "secret-token");
    assert_eq!(token(&store).as_deref(), Some("secret-token"));
    assert_eq!(keyring.asked.load(Ordering::SeqCst), 1);
    let next = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(next.status().place, StorePlace::Sealed(KeyPlace::Keyring));
    assert_eq!(keyring.asked.load(Ordering::SeqCst), 1, "status asks nothing");
    assert_eq!(token(&next).as_deref(), Some("secret-token"));
    sign_in(&next, "other");
    assert_eq!(keyring.asked.load(Ordering::SeqCst), 2);
    assert_eq!(directory.names(), ["credentials"]);
    let bytes = fs::read(directory.sealed()).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"as.tes" || part == b"secret"));
    assert_eq!(next.notices(), Vec::<String>::new());
}

#[test]
fn what_is_not_committed_is_not_written() {
    let directory = Directory::new("drop");
    let keyring = Arc::new(FakeKeyring::default());
    let store = open(&directory, CredentialStore::File, &keyring);
    sign_in(&store, "kept");
    let mut locked = store.lock().unwrap();
    locked.put_account(account("dropped"), 2);
    locked.reserve().unwrap();
    assert_eq!(directory.names().len(), 3, "the sealed file, the key, the room");
    drop(locked);
    assert_eq!(directory.names().len(), 2, "the room is given back");
    assert_eq!(token(&store).as_deref(), Some("kept"));
    let mut locked = store.lock().unwrap();
    locked.put_account(account("new"), 3);
    locked.reserve().unwrap();
    locked.commit().unwrap();
    assert_eq!(token(&store).as_deref(), Some("new"));
    let mut locked = store.lock().unwrap();
    locked.put_account(account(&"x".repeat(100_000)), 3);
    assert!(matches!(locked.commit(), Err(StoreError::OverLimit(OverLimit::Text))));
    assert_eq!(token(&store).as_deref(), Some("new"));
}

#[test]
fn without_a_keyring_the_key_is_in_a_file_and_that_is_said_once() {
    let directory = Directory::new("no-keyring");
    let keyring = Arc::new(FakeKeyring::default());
    keyring.absent.store(true, Ordering::SeqCst);
    let store = open(&directory, CredentialStore::Auto, &keyring);
    sign_in(&store, "a");
    sign_in(&store, "b");
    assert_eq!(store.notices().len(), 1);
    assert!(store.notices()[0].contains("no bus"), "{:?}", store.notices());
    assert_eq!(store.status().place, StorePlace::Sealed(KeyPlace::File));
    let asked = keyring.asked.load(Ordering::SeqCst);
    let next = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&next).as_deref(), Some("b"));
    sign_in(&next, "c");
    assert_eq!(next.notices(), Vec::<String>::new(), "the next process does not say it again");
    assert_eq!(keyring.asked.load(Ordering::SeqCst), asked, "nor does it ask the keyring");
}

#[test]
fn a_keyring_that_is_away_ends_no_login() {
    let directory = Directory::new("away");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::Auto, &keyring), "kept");
    let before = fs::read(directory.sealed()).unwrap();
    keyring.absent.store(true, Ordering::SeqCst);
    let store = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&store), None);
    sign_in(&store, "for now");
    assert_eq!(token(&store).as_deref(), Some("for now"), "in memory");
    assert_eq!(store.status().place, StorePlace::Memory);
    assert_eq!(store.notices().len(), 1);
    assert_eq!(fs::read(directory.sealed()).unwrap(), before, "the file is left alone");
    assert_eq!(directory.names(), ["credentials"]);
    // The user comes back.
    keyring.absent.store(false, Ordering::SeqCst);
    store.try_again();
    assert_eq!(token(&store).as_deref(), Some("for now"), "a sign-in that only this process knows is not given up");
    let store = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&store).as_deref(), Some("kept"));
}

#[test]
fn after_a_refusal_the_user_can_try_again() {
    let directory = Directory::new("again");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::Auto, &keyring), "kept");
    keyring.absent.store(true, Ordering::SeqCst);
    let store = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&store), None);
    keyring.absent.store(false, Ordering::SeqCst);
    assert_eq!(token(&store), None);
    store.try_again();
    assert_eq!(token(&store).as_deref(), Some("kept"));
}

#[test]
fn a_lost_key_is_signed_out_and_the_file_is_kept() {
    let directory = Directory::new("lost");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::Auto, &keyring), "lost");
    let before = fs::read(directory.sealed()).unwrap();
    keyring.keys.lock().unwrap().clear();
    let store = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&store), None);
    assert_eq!(directory.names(), ["credentials"], "reading moves nothing");
    sign_in(&store, "new");
    assert_eq!(directory.names(), ["credentials", "credentials.lost-key"]);
    assert_eq!(fs::read(directory.0.join("credentials.lost-key")).unwrap(), before);
    assert_eq!(store.notices().len(), 1, "{:?}", store.notices());
    assert_eq!(token(&open(&directory, CredentialStore::Auto, &keyring)).as_deref(), Some("new"));
    // The same with a key file.
    let directory = Directory::new("lost-file");
    sign_in(&open(&directory, CredentialStore::File, &keyring), "lost");
    let key = directory.names().into_iter().find(|name| name.contains("key-")).unwrap();
    fs::write(directory.0.join(key), "nonsense").unwrap();
    let store = open(&directory, CredentialStore::File, &keyring);
    assert_eq!(token(&store), None);
    sign_in(&store, "new");
    assert_eq!(token(&open(&directory, CredentialStore::File, &keyring)).as_deref(), Some("new"));
}

#[test]
fn a_lost_key_and_a_keyring_that_takes_none_leave_the_file_alone() {
    let directory = Directory::new("lost-and-away");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::Keyring, &keyring), "kept");
    let keys = std::mem::take(&mut *keyring.keys.lock().unwrap());
    let store = open(&directory, CredentialStore::Keyring, &keyring);
    assert_eq!(token(&store), None);
    keyring.absent.store(true, Ordering::SeqCst);
    sign_in(&store, "for now");
    assert_eq!(store.status().place, StorePlace::Memory);
    assert_eq!(directory.names(), ["credentials"]);
    *keyring.keys.lock().unwrap() = keys;
    keyring.absent.store(false, Ordering::SeqCst);
    assert_eq!(token(&open(&directory, CredentialStore::Keyring, &keyring)).as_deref(), Some("kept"));
}

#[test]
fn the_key_moves_where_the_user_wants_it() {
    let directory = Directory::new("move");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::File, &keyring), "kept");
    assert_eq!(directory.names().len(), 2);
    let store = open(&directory, CredentialStore::Keyring, &keyring);
    assert_eq!(token(&store).as_deref(), Some("kept"));
    drop(store.lock().unwrap());
    assert_eq!(store.status().place, StorePlace::Sealed(KeyPlace::Keyring));
    assert_eq!(directory.names(), ["credentials"], "the key file is gone");
    let auto = open(&directory, CredentialStore::Auto, &keyring);
    assert_eq!(token(&auto).as_deref(), Some("kept"));
    let store = open(&directory, CredentialStore::File, &keyring);
    drop(store.lock().unwrap());
    assert_eq!(store.status().place, StorePlace::Sealed(KeyPlace::File));
    assert_eq!(token(&open(&directory, CredentialStore::File, &keyring)).as_deref(), Some("kept"));
    for _ in 0..2000 {
        if keyring.keys.lock().unwrap().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the key stays in the keyring");
}

#[test]
fn damaged_files_are_kept_aside_and_said_once() {
    let directory = Directory::new("damaged");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::File, &keyring), "gone");
    let whole = fs::read(directory.sealed()).unwrap();
    for (round, length) in [0, 1, whole.len() / 2, whole.len() - 1].into_iter().enumerate() {
        fs::write(directory.sealed(), &whole[..length]).unwrap();
        let store = open(&directory, CredentialStore::File, &keyring);
        assert_eq!(token(&store), None, "cut at {length}");
        assert_eq!(store.notices().len(), 1);
        let aside = directory.names().iter().filter(|name| name.contains("damaged")).count();
        assert_eq!(aside, round + 1);
        let next = open(&directory, CredentialStore::File, &keyring);
        assert_eq!((token(&next), next.notices().len()), (None, 0));
        sign_in(&next, "again");
    }
    assert_eq!(fs::read(directory.0.join("credentials.damaged-3")).unwrap(), &whole[..whole.len() / 2]);
}

#[test]
fn a_newer_file_is_never_overwritten() {
    let directory = Directory::new("newer");
    let keyring = Arc::new(FakeKeyring::default());
    sign_in(&open(&directory, CredentialStore::File, &keyring), "x");
    let newer = b"mcp-drawbridge credentials 2 tpm who knows\n\x00\x01\x02";
    fs::write(directory.sealed(), newer).unwrap();
    for choice in [CredentialStore::Auto, CredentialStore::File, CredentialStore::Keyring] {
        let store = open(&directory, choice, &keyring);
        assert_eq!(store.status().place, StorePlace::Newer);
        assert_eq!(token(&store), None);
        sign_in(&store, "for now");
        assert_eq!(token(&store).as_deref(), Some("for now"));
        assert_eq!(store.notices().len(), 1);
        let writer = open(&directory, choice, &keyring);
        sign_in(&writer, "without reading first");
        assert_eq!(fs::read(directory.sealed()).unwrap(), newer);
    }
}

#[test]
fn memory_touches_nothing() {
    let directory = Directory::new("memory");
    let keyring = Arc::new(FakeKeyring::default());
    let store = open(&directory, CredentialStore::Memory, &keyring);
    sign_in(&store, "a");
    assert_eq!(token(&store.clone()).as_deref(), Some("a"));
    assert!(!directory.0.exists());
    assert_eq!((keyring.asked.load(Ordering::SeqCst), store.notices().len()), (0, 0));
    let homeless = Store::with_vaults(None, CredentialStore::Auto, vec![]);
    sign_in(&homeless, "a");
    assert_eq!((token(&homeless).as_deref(), homeless.notices().len()), (Some("a"), 1));
}

#[tokio::test]
async fn tasks_of_one_process_wait_for_each_other() {
    let directory = Directory::new("tasks");
    let keyring = Arc::new(FakeKeyring::default());
    let server = ServerKey { server: "https://r.test/mcp".into(), profile: String::new() };
    let work = ServerKey { profile: "work".into(), ..server.clone() };
    let most = Duration::from_millis(30);
    for choice in [CredentialStore::File, CredentialStore::Memory] {
        let store = open(&directory, choice, &keyring);
        let held = store.critical(&server, Critical::Refresh, most).await.unwrap();
        assert!(matches!(store.critical(&server, Critical::Refresh, most).await, Err(StoreError::Busy)));
        let _sign_in = store.critical(&server, Critical::SignIn, most).await.unwrap();
        if choice == CredentialStore::File {
            let _other = store.critical(&work, Critical::Refresh, most).await.unwrap();
        }
        drop(held);
        let _again = store.critical(&server, Critical::Refresh, most).await.unwrap();
        let added = futures_util::future::join_all((0..8).map(|turn| {
            store.update(move |contents| {
                let mut account = account("t");
                account.key.profile = turn.to_string();
                contents.put_account(account, 1);
            })
        }));
        assert!(added.await.into_iter().all(|done| done.is_ok()));
        assert_eq!(store.snapshot().await.unwrap().accounts().len(), 8);
    }
}

#[test]
fn a_process_of_ours_gets_the_key_without_the_keyring() {
    let directory = Directory::new("given-key");
    let keyring = Arc::new(FakeKeyring::default());
    let parent = open(&directory, CredentialStore::Auto, &keyring);
    assert!(parent.known_key().is_none(), "nothing is stored");
    sign_in(&parent, "a");
    keyring.absent.store(true, Ordering::SeqCst);
    let asked = keyring.asked.load(Ordering::SeqCst);
    let child = open(&directory, CredentialStore::Auto, &keyring);
    child.learn_key(&parent.known_key().unwrap());
    assert_eq!(token(&child).as_deref(), Some("a"));
    sign_in(&child, "b");
    assert_eq!(token(&parent).as_deref(), Some("b"));
    assert_eq!(keyring.asked.load(Ordering::SeqCst), asked);
    assert!(!format!("{child:?}").contains(parent.known_key().unwrap().expose().lines().last().unwrap()));
    // Nonsense is as none.
    let other = open(&directory, CredentialStore::Auto, &keyring);
    for text in ["", "x", "mcp-drawbridge-credentials 1 keyring 00\nAA"] {
        other.learn_key(&Secret::new(text));
    }
    assert_eq!(token(&other), None);
    assert_eq!(other.status().place, StorePlace::Memory);
}

#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_not_forgotten() {
    let directory = Directory::new("moment");
    let keyring = Arc::new(FakeKeyring::default());
    let store = open(&directory, CredentialStore::Auto, &keyring);
    sign_in(&store, "a");
    assert_eq!(token(&store).as_deref(), Some("a"));
    let aside = directory.0.join("aside");
    fs::rename(directory.sealed(), &aside).unwrap();
    fs::create_dir(directory.sealed()).unwrap();
    assert!(matches!(store.read(), Err(StoreError::NotRead(_))));
    fs::remove_dir(directory.sealed()).unwrap();
    fs::rename(aside, directory.sealed()).unwrap();
    assert_eq!(token(&store).as_deref(), Some("a"));
    assert!(store.notices().is_empty(), "{:?}", store.notices());
}
