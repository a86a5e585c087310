//! `--bearer-command`: the token of a program of the user's, on the wire (A9).

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::Mcp;
use crate::support::wire::Reply;

/// A server that takes one token at a time, and what it takes now.
fn guarded() -> (Mcp, Arc<Mutex<String>>) {
    let good = Arc::new(Mutex::new("token-1".to_owned()));
    let mut server = Mcp::plain();
    server.strict = false;
    let wanted = Arc::clone(&good);
    server.on("*", move |call| {
        let field = format!("Bearer {}", wanted.lock().unwrap());
        (call.request.header("authorization") != Some(&field)).then(|| Reply::status(401))
    });
    (server, good)
}

/// The program prints what is in the file `token` of the bridge's home, and notes each run.
fn start(server: &Mcp) -> Bridge {
    let command = "sh -c 'echo run >> \"$HOME/runs\"; cat \"$HOME/token\"'";
    let setup = Setup::new(&server.url()).arg("--bearer-command").arg(command);
    let (_, home) = Setup::new(&server.url()).into_command();
    put(home.path(), "token-1");
    setup.home(&home).env("HOME", home.path().to_str().unwrap()).env("PATH", "/usr/bin:/bin").start()
}

fn put(home: &Path, token: &str) {
    std::fs::write(home.join("token"), format!("{token}\n")).unwrap();
}

fn runs(bridge: &Bridge) -> usize {
    std::fs::read_to_string(bridge.home().path().join("runs")).map_or(0, |text| text.lines().count())
}

#[test]
fn one_run_serves_the_session_and_one_more_a_new_token() {
    let (server, good) = guarded();
    let mut bridge = start(&server);
    bridge.handshake();
    bridge.assert_works();
    assert_eq!(runs(&bridge), 1);
    // The token is replaced; many requests meet the refusal at once.
    put(bridge.home().path(), "token-2");
    "token-2".clone_into(&mut good.lock().unwrap());
    let ids: Vec<_> = (0..8).map(|_| bridge.call("echo", &json!({}))).collect();
    for id in &ids {
        bridge.result(id);
    }
    assert_eq!(runs(&bridge), 2, "{}", bridge.report());
    let stderr = bridge.stderr();
    assert!(!stderr.contains("token-1") && !stderr.contains("token-2"), "{stderr}");
    bridge.finish();
}

#[test]
fn a_token_that_is_refused_again_is_the_servers_answer() {
    let (server, good) = guarded();
    let mut bridge = start(&server);
    bridge.handshake();
    "another".clone_into(&mut good.lock().unwrap());
    let ids: Vec<_> = (0..8).map(|_| bridge.call("echo", &json!({}))).collect();
    for id in &ids {
        let error = bridge.error(id);
        assert!(error["message"].as_str().unwrap().contains("--bearer-command"), "{error}");
        assert!(!error.to_string().contains("token-1"), "{error}");
    }
    assert!(runs(&bridge) <= 2, "{} runs", runs(&bridge));
    bridge.finish();
}

#[test]
fn a_program_that_fails_is_told_and_the_next_request_tries_again() {
    let (server, _good) = guarded();
    let mut bridge = start(&server);
    std::fs::remove_file(bridge.home().path().join("token")).unwrap();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("--bearer-command") && message.contains("exit status: 1"), "{error}");
    put(bridge.home().path(), "token-1");
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}
