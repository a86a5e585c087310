//! A login whose key is in a real keyring. Run by `scripts/keyring-session`.

use std::sync::Arc;

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
}
