//! A login whose key is in a real keyring. Run by `scripts/keyring-session`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use dbus::arg::Variant;
use dbus::blocking::LocalConnection;
use dbus::channel::{Channel, MatchingReceiver as _, Sender as _};
use dbus::message::{MatchRule, Message};
use dbus::strings::Path;

use crate::support::TempDir;
use crate::support::authorization_server::Protected;
use crate::support::bridge::Setup;
use crate::support::browser::{Browser, with_browser};

#[test]
#[ignore = "needs a keyring: scripts/keyring-session"]
fn keyring_holds_the_key_of_a_login() {
    let bus = std::env::var("DBUS_SESSION_BUS_ADDRESS").expect("a session bus");
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let start = || {
        let setup = with_browser(Setup::new(&server.url())).home(&home).env("DBUS_SESSION_BUS_ADDRESS", &bus);
        let mut bridge = setup.start();
        bridge.handshake();
        bridge.assert_works();
        bridge
    };
    let end = start().finish();
    assert!(!end.stderr.contains("keyring"), "nothing to complain of: {}", end.stderr);
    let state = home.path().join("state");
    let names: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name == "credentials"), "{names:?}");
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("key-")), "the key is in a file: {names:?}");
    // A process of its own asks for the new token, and finds the key too.
    server.authority.expire_access_tokens();
    start().finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.refreshed(), counts.codes), (1, 1, 1), "{}", server.summary());
    locked_in_between(&bus);
}

/// As after some idle time, or by the user. Last, because nobody is there to unlock it.
fn locked_in_between(bus: &str) {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let mut bridge = with_browser(Setup::new(&server.url())).home(&home).env("DBUS_SESSION_BUS_ADDRESS", bus).start();
    bridge.handshake();
    let connection = dbus::blocking::Connection::new_session().unwrap();
    let secrets = connection.with_proxy("org.freedesktop.secrets", "/org/freedesktop/secrets", Duration::from_secs(5));
    let call = |method: &str| {
        let all = vec![Path::new("/org/freedesktop/secrets/aliases/default").unwrap()];
        let done: (Vec<Path>, Path) = secrets.method_call("org.freedesktop.Secret.Service", method, (all,)).unwrap();
        done.0.len()
    };
    assert_eq!(call("Lock"), 1);
    server.authority.expire_access_tokens();
    bridge.assert_works();
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.refreshed(), counts.codes), (1, 1, 1), "{}", server.summary());
}

/// A bus with a Secret Service that lets nobody keep anything: it asks a person first, and then tells nonsense.
struct OddKeyring {
    bus: Child,
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OddKeyring {
    fn start() -> Self {
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon");
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let (stop, (ready, is_ready)) = (Arc::new(AtomicBool::new(false)), channel());
        let (stopped, to) = (Arc::clone(&stop), address.clone());
        let thread = std::thread::spawn(move || {
            let mut channel = Channel::open_private(&to).unwrap();
            channel.register().unwrap();
            let connection = LocalConnection::from(channel);
            connection.start_receive(
                MatchRule::new_method_call(),
                Box::new(|call, connection| {
                    answer(&call, connection);
                    true
                }),
            );
            connection.request_name("org.freedesktop.secrets", false, true, true).unwrap();
            ready.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                connection.process(Duration::from_millis(20)).unwrap();
            }
        });
        is_ready.recv_timeout(crate::support::LIMIT).unwrap();
        Self { bus, address, stop, thread: Some(thread) }
    }
}

impl Drop for OddKeyring {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        assert!(ended || std::thread::panicking(), "the keyring failed");
    }
}

fn answer(call: &Message, connection: &LocalConnection) {
    let path = |text: &str| Path::new(text).unwrap();
    let reply = call.method_return();
    let nothing: Vec<Path> = Vec::new();
    let reply = match &*call.member().unwrap() {
        "OpenSession" => reply.append2(Variant(""), path("/session")),
        "ReadAlias" => reply.append1(path("/org/freedesktop/secrets/collection/odd")),
        // `Locked`.
        "Get" => reply.append1(Variant(false)),
        "SearchItems" => reply.append2(&nothing, &nothing),
        "CreateItem" => reply.append2(path("/"), path("/prompt")),
        "Prompt" => reply,
        _ => dbus::MethodErr::no_method(&call.member().unwrap()).to_message(call),
    };
    let prompted = call.member().is_some_and(|member| &*member == "Prompt");
    connection.send(reply).unwrap();
    if prompted {
        let done = Message::new_signal("/prompt", "org.freedesktop.Secret.Prompt", "Completed").unwrap();
        connection.send(done.append2(false, Variant(7_u32))).unwrap();
    }
}

/// `dbus-secret-service` prints what it does not understand to stdout, which is the client's. The bridge of the tests fails at any line
/// that is no message.
#[test]
#[ignore = "needs dbus-daemon: scripts/keyring-session"]
fn keyring_holds_nothing_and_prints() {
    let keyring = OddKeyring::start();
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let setup = with_browser(Setup::new(&server.url())).home(&home);
    let mut bridge = setup.env("DBUS_SESSION_BUS_ADDRESS", &keyring.address).start();
    bridge.handshake();
    bridge.assert_works();
    let end = bridge.finish();
    assert!(end.stderr.contains("Cast to path failed"), "it printed nothing: {}", end.stderr);
    assert!(end.stderr.contains("No keyring could be used"), "{}", end.stderr);
    assert_eq!((browser.tabs().len(), server.authority.counts().codes), (1, 1), "{}", server.summary());
}

/// The same for the commands: a program reads what they print.
#[test]
#[ignore = "needs dbus-daemon: scripts/keyring-session"]
fn keyring_holds_nothing_and_a_command_prints() {
    let keyring = OddKeyring::start();
    let home = TempDir::new();
    let directory = home.path().join("mcp-remote-v1");
    std::fs::create_dir_all(&directory).unwrap();
    let client = r#"{"client_id":"c","redirect_uris":[],"issuer":"https://as.test"}"#;
    std::fs::write(directory.join("92d222637c6a62a33a3518de94f28749_client_info.json"), client).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-drawbridge"));
        command.args(words).env("DBUS_SESSION_BUS_ADDRESS", &keyring.address).env_remove("DISPLAY");
        command.env("MCP_DRAWBRIDGE_STATE_DIR", home.path().join("state"));
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (out, err) = run(&["import", home.path().to_str().unwrap(), "http://127.0.0.1:18141/mcp"]);
    assert!(out.starts_with("Taken: the registration with https://as.test\n"), "{out}");
    assert!(!out.contains("Cast to path failed") && err.contains("Cast to path failed"), "{out}\n---\n{err}");
    let (out, _) = run(&["status", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["version"], 1, "{out}");
}
