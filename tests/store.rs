//! The credential store with real processes, disks and keyrings.
//!
//! A test that needs another process starts this file again with the name of a `child_*` test. Those are ignored, and
//! do nothing unless the test that started them says where.
#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mcp_drawbridge::secret::Secret;
use mcp_drawbridge::store::{
    Account, AccountKey, CredentialStore, Critical, Extra, KeyPlace, ServerKey, Store, StoreError, StorePlace, Tokens,
};

/// Where a child works.
const PLACE: &str = "DRAWBRIDGE_STORE_TEST";
const ROUNDS: u32 = 30;
const PROCESSES: u32 = 8;
const TURNS: u32 = 15;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drawbridge-store-it-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn store(&self) -> Store {
        Store::new(Some(&self.state()), CredentialStore::File)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn account(number: u64) -> Account {
    Account {
        key: AccountKey { issuer: "https://as.test".into(), resource: "https://r.test".into(), profile: String::new() },
        client_id: "c".into(),
        tokens: Tokens {
            access: Secret::new("x".repeat(3000)),
            refresh: Some(Secret::new(format!("refresh-{number}"))),
            id_token: None,
            obtained_at: number,
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

/// The number that is stored; each write adds one.
fn number(store: &Store) -> u64 {
    store.read().expect("read").accounts().first().map_or(0, |account| account.tokens.obtained_at)
}

fn add(store: &Store) -> Result<u64, StoreError> {
    let mut locked = store.lock()?;
    let next = locked.accounts().first().map_or(0, |account| account.tokens.obtained_at) + 1;
    locked.put_account(account(next), next);
    locked.commit()?;
    Ok(next)
}

fn server() -> ServerKey {
    ServerKey { server: "https://r.test/mcp".into(), profile: String::new() }
}

fn child(test: &str, directory: &Directory) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, directory.state()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Lines like `done 17` of a child, as far as it came.
fn last_done(child: &mut Child) -> u64 {
    let mut text = String::new();
    let mut output = child.stdout.take().expect("piped");
    let _ = output.read_to_string(&mut text);
    let mut numbers = text.lines().filter_map(|line| line.split("done ").nth(1)?.parse().ok());
    numbers.next_back().unwrap_or(0)
}

#[test]
#[ignore = "a process that other tests start"]
fn child_adds_without_end() {
    let Some(place) = place() else { return };
    let store = Store::new(Some(&place), CredentialStore::File);
    loop {
        println!("done {}", add(&store).expect("added"));
    }
}

#[test]
#[ignore = "a process that other tests start"]
fn child_adds_some() {
    let Some(place) = place() else { return };
    for _ in 0..TURNS {
        // A new store each time: as many processes, for the store.
        add(&Store::new(Some(&place), CredentialStore::File)).expect("added");
    }
}

#[test]
#[ignore = "a process that other tests start"]
fn child_holds_the_refresh_lock() {
    let Some(place) = place() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let store = Store::new(Some(&place), CredentialStore::File);
        let _held = store.critical(&server(), Critical::Refresh, Duration::from_secs(5)).await.expect("held");
        println!("done 1");
        std::future::pending::<()>().await;
    });
}

#[test]
#[ignore = "a process that other tests start"]
fn child_signs_in_with_what_there_is() {
    let Some(place) = place() else { return };
    let store = Store::new(Some(&place), CredentialStore::Auto);
    add(&store).expect("added");
    for notice in store.notices() {
        println!("notice {notice}");
    }
    println!("place {:?}", store.status().place);
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_written() {
    let directory = Directory::new("kill");
    let store = directory.store();
    add(&store).expect("added");
    let mut acknowledged = 1;
    for round in 0..ROUNDS {
        let mut child = child("child_adds_without_end", &directory).spawn().expect("started");
        // Spread over the start, the first write and later ones.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 2311 % 60_000 + 500));
        child.kill().expect("killed");
        let done = last_done(&mut child);
        child.wait().expect("ended");
        let reader = directory.store();
        let found = number(&reader);
        assert!(found >= done.max(acknowledged), "{found} is stored, {done} was acknowledged");
        acknowledged = found;
        assert_eq!(reader.notices(), Vec::<String>::new(), "round {round}");
    }
    assert!(acknowledged > 1, "no child came to write anything");
    // The next writer is not held up, and cleans up.
    add(&directory.store()).expect("added");
    let left: Vec<_> = fs::read_dir(directory.state())
        .expect("there")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn processes_that_write_at_once_lose_no_write_and_readers_see_whole_files() {
    let directory = Directory::new("many");
    let mut children: Vec<Child> =
        (0..PROCESSES).map(|_| child("child_adds_some", &directory).spawn().expect("started")).collect();
    let reader = directory.store();
    let mut seen = 0;
    while children.iter_mut().any(|child| child.try_wait().expect("known").is_none()) {
        let now = number(&reader);
        assert!(now >= seen, "{now} after {seen}");
        seen = now;
        std::thread::sleep(Duration::from_millis(1));
    }
    for child in &mut children {
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(number(&directory.store()), u64::from(PROCESSES * TURNS));
    assert_eq!(reader.notices(), Vec::<String>::new());
    let keys = fs::read_dir(directory.state()).expect("there").flatten();
    let keys = keys.filter(|entry| entry.file_name().to_string_lossy().starts_with("credentials.key-")).count();
    assert_eq!(keys, 1, "one key was made");
}

#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "077", "777"] {
        let directory = Directory::new(&format!("umask-{umask}"));
        let program = child("child_adds_some", &directory);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "umask $0; exec \"$@\"", umask]).arg(program.get_program()).args(program.get_args());
        let output = shell.env(PLACE, directory.state()).output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        check_private(&directory.state(), 0o700);
        for entry in fs::read_dir(directory.state()).expect("there").flatten() {
            check_private(&entry.path(), 0o600);
        }
        assert_eq!(number(&directory.store()), u64::from(TURNS));
    }
}

fn check_private(path: &Path, mode: u32) {
    let found = fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(found, mode, "{}", path.display());
}

#[test]
fn what_was_open_to_others_is_closed_and_said() {
    let directory = Directory::new("open");
    add(&directory.store()).expect("added");
    let sealed = directory.state().join("credentials");
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o644)).expect("set");
    fs::set_permissions(directory.state(), fs::Permissions::from_mode(0o777)).expect("set");
    let store = directory.store();
    add(&store).expect("added");
    assert_eq!(store.notices().len(), 2, "{:?}", store.notices());
    check_private(&directory.state(), 0o700);
    check_private(&sealed, 0o600);
}

#[test]
fn without_a_place_to_write_there_is_memory() {
    let directory = Directory::new("no-place");
    fs::write(directory.0.join("file"), "no directory").expect("written");
    let store = Store::new(Some(&directory.0.join("file").join("state")), CredentialStore::Auto);
    assert_eq!(number(&store), 0);
    add(&store).expect("added");
    assert_eq!((number(&store), store.status().place), (1, StorePlace::Memory));
    assert_eq!(store.notices().len(), 1, "{:?}", store.notices());
    assert!(store.notices()[0].contains("in memory"));
}

/// A file system of its own; `None` where that is not allowed.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        println!("skipped: this user may not mount a tmpfs");
        None
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_keeps_the_old_file() {
    let directory = Directory::new("full");
    let state = directory.state();
    let Some(_disk) = Disk::mount(&state, "size=512k") else { return };
    add(&directory.store()).expect("added");
    let sealed = state.join("credentials");
    let before = fs::read(&sealed).expect("there");
    // Fill it to the last block.
    let mut filler = fs::File::create(state.join("filler")).expect("made");
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    let store = directory.store();
    let mut locked = store.lock().expect("locked");
    assert!(matches!(locked.reserve(), Err(StoreError::NotSaved(_))), "told before a token is spent");
    drop(locked);
    assert!(matches!(add(&store), Err(StoreError::NotSaved(_))));
    assert_eq!(number(&store), 2, "this process knows what it has");
    assert_eq!(store.status().place, StorePlace::Memory);
    assert_eq!(fs::read(&sealed).expect("there"), before);
    assert_eq!(number(&directory.store()), 1);
    let names = fs::read_dir(&state).expect("there").flatten();
    assert!(names.into_iter().all(|name| !name.file_name().to_string_lossy().ends_with(".tmp")));
    drop(filler);
    fs::remove_file(state.join("filler")).expect("removed");
    assert_eq!(add(&directory.store()).expect("added"), 2, "with room again it goes on");
}

#[test]
fn a_read_only_home_can_be_read() {
    let directory = Directory::new("read-only");
    let state = directory.state();
    let Some(_disk) = Disk::mount(&state, "size=512k") else { return };
    add(&directory.store()).expect("added");
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&state).status();
    assert!(remounted.is_ok_and(|status| status.success()));
    let store = directory.store();
    assert_eq!((number(&store), store.notices().len()), (1, 0), "reading needs no warning");
    assert_eq!(add(&store).expect("in memory"), 2, "what is there is the beginning");
    assert_eq!((number(&store), number(&directory.store())), (2, 1));
    assert_eq!(store.notices().len(), 1, "{:?}", store.notices());
}

#[test]
fn a_lock_ends_with_the_process_that_holds_it() {
    let directory = Directory::new("lock");
    let mut holder = child("child_holds_the_refresh_lock", &directory).spawn().expect("started");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("done 1"))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let store = directory.store();
        let server = server();
        let wait = |most| Duration::from_millis(most);
        let held = store.critical(&server, Critical::Refresh, wait(100)).await;
        assert!(matches!(held, Err(StoreError::Busy)));
        store.critical(&server, Critical::SignIn, wait(100)).await.expect("another section is free");
        holder.kill().expect("killed");
        store.critical(&server, Critical::Refresh, wait(5000)).await.expect("free with its holder's end");
    });
    holder.wait().expect("ended");
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn without_any_bus_the_key_is_in_a_file() {
    let directory = Directory::new("no-bus");
    let nowhere = directory.0.join("nowhere");
    let mut program = child("child_signs_in_with_what_there_is", &directory);
    program.env_remove("DBUS_SESSION_BUS_ADDRESS").env("XDG_RUNTIME_DIR", &nowhere).env_remove("DISPLAY");
    // The library's last resort is the bus of the user's id, which a desktop that runs the tests may have.
    if fs::exists(format!("/run/user/{}/bus", rustix::process::geteuid().as_raw())).unwrap_or(false) {
        program.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", nowhere.display()));
    }
    let begun = std::time::Instant::now();
    let first = output_of(&mut program);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(first.contains("place Sealed(File)"), "{first}");
    assert_eq!(first.matches("notice ").count(), 1, "{first}");
    let second = output_of(&mut program);
    assert_eq!(second.matches("notice ").count(), 0, "said once: {second}");
    assert_eq!(number(&Store::new(Some(&directory.state()), CredentialStore::Auto)), 2);
}

/// Run by `scripts/keyring-session` with an unlocked keyring.
#[cfg(feature = "keyring")]
#[test]
#[ignore = "needs scripts/keyring-session"]
fn keyring_holds_the_key() {
    let directory = Directory::new("keyring");
    let store = Store::new(Some(&directory.state()), CredentialStore::Keyring);
    let begun = std::time::Instant::now();
    add(&store).expect("added");
    println!("first sign-in, key made: {:?}", begun.elapsed());
    assert_eq!(store.notices(), Vec::<String>::new());
    assert_eq!(store.status().place, StorePlace::Sealed(KeyPlace::Keyring));
    let next = Store::new(Some(&directory.state()), CredentialStore::Auto);
    let begun = std::time::Instant::now();
    assert_eq!(number(&next), 1);
    println!("first read of a process: {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(number(&next), 1);
    println!("second read: {:?}", begun.elapsed());
    let output = output_of(&mut child("child_signs_in_with_what_there_is", &directory));
    assert!(output.contains("place Sealed(Keyring)") && !output.contains("notice"), "{output}");
    assert_eq!(number(&next), 2);
    // Within a runtime of the kind that the bridge has.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let third = Store::new(Some(&directory.state()), CredentialStore::Auto);
    let contents = runtime.block_on(third.snapshot()).expect("read");
    assert_eq!(contents.accounts().len(), 1);
    // To a file, which takes the key out of the keyring; a copy of the old file is then without its key.
    let old = fs::read(directory.state().join("credentials")).expect("there");
    let file = directory.store();
    add(&file).expect("added");
    assert_eq!(file.status().place, StorePlace::Sealed(KeyPlace::File));
    assert_eq!(number(&directory.store()), 3);
    let gone = || {
        fs::write(directory.state().join("credentials"), &old).expect("written");
        let store = Store::new(Some(&directory.state()), CredentialStore::Auto);
        number(&store) == 0 && store.notices().iter().any(|notice| notice.contains("is gone"))
    };
    let gone = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        gone()
    });
    assert!(gone, "the key is still there");
}

/// Run by `scripts/keyring-session --no-keyring`: a bus, and a service without a collection.
#[cfg(feature = "keyring")]
#[test]
#[ignore = "needs scripts/keyring-session"]
fn keyring_without_a_collection_is_no_keyring() {
    let directory = Directory::new("no-collection");
    let begun = std::time::Instant::now();
    let output = output_of(&mut child("child_signs_in_with_what_there_is", &directory));
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(output.contains("place Sealed(File)"), "{output}");
    assert!(output.contains("notice No keyring could be used"), "{output}");
    // A sealed file of a keyring that is not here: not readable now, and not lost either.
    let line = format!("mcp-drawbridge credentials 1 keyring {}\n{}", "0a".repeat(16), "sealed ".repeat(9));
    fs::write(directory.state().join("credentials"), &line).expect("written");
    let store = Store::new(Some(&directory.state()), CredentialStore::Auto);
    assert_eq!(number(&store), 0);
    add(&store).expect("in memory");
    assert_eq!(store.status().place, StorePlace::Memory, "{:?}", store.notices());
    assert_eq!(fs::read_to_string(directory.state().join("credentials")).expect("there"), line);
}
