//! The end: nothing in flight is lost, the server is told, no process stays behind (S5).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup, Stdio3};
use crate::support::mcp::Mcp;
use crate::support::wire::Reply;
use crate::support::{LIMIT, TempDir, ms, s, within};

const PROMPT: std::time::Duration = s(10);

fn script() -> String {
    [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "sh", "version": "1"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "sleep", "arguments": {"ms": 2500}}}),
    ]
    .map(|message| format!("{message}\n"))
    .concat()
}

fn ids_with_results(stdout: &str) -> Vec<i64> {
    let mut ids: Vec<i64> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a message"))
        .filter(|message| message.get("result").is_some())
        .filter_map(|message| message["id"].as_i64())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_piped_script_gets_all_its_answers() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).start();
    bridge.send_bytes(script().as_bytes());
    for id in 1..=3 {
        bridge.note(&json!({"method": "x", "id": id}));
    }
    let end = bridge.finish();
    assert!(end.took >= ms(2000), "the slow call was waited for: {:?}", end.took);
    assert_eq!(server.sessions(), Vec::<String>::new(), "the session was ended\n{}", server.summary());
    assert_eq!(server.count("DELETE"), 1);
}

/// `bridge < script > answers`: no pipe anywhere.
#[test]
fn a_script_from_a_file_to_a_file_gets_all_its_answers() {
    let server = Mcp::plain();
    let (mut command, home) = Setup::new(&server.url()).into_command();
    let (script_path, answers_path) = (home.path().join("script"), home.path().join("answers"));
    std::fs::write(&script_path, script()).unwrap();
    command.stdin(File::open(&script_path).unwrap()).stdout(File::create(&answers_path).unwrap());
    let status = command.stderr(Stdio::null()).status().expect("the bridge");
    assert!(status.success());
    assert_eq!(ids_with_results(&std::fs::read_to_string(&answers_path).unwrap()), [1, 2, 3]);
    assert_eq!(server.count("DELETE"), 1);
}

/// The last line of a script often has no line feed.
#[test]
fn a_last_line_without_its_line_feed_is_a_line() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    let last = json!({"jsonrpc": "2.0", "id": "last", "method": "ping"});
    bridge.note(&last);
    bridge.send_bytes(last.to_string().as_bytes());
    let end = bridge.finish();
    assert!(end.lines.iter().any(|line| line.value["id"] == "last" && line.value["result"].is_object()));
}

#[test]
fn at_the_end_of_stdin_with_nothing_in_flight_it_leaves_at_once() {
    for stdio in [Stdio3::Pipes, Stdio3::Sockets] {
        let server = Mcp::plain();
        let mut bridge = Setup::new(&server.url()).stdio(stdio).start();
        bridge.handshake();
        bridge.assert_works();
        server.await_listener();
        let end = bridge.finish();
        assert!(end.took < PROMPT, "{stdio:?}: {:?}", end.took);
        assert_eq!(server.count("DELETE"), 1, "{stdio:?}");
        server.nth_logged(1, "the notification stream is closed", |logged| {
            logged.request.method == "GET" && logged.given_up.is_some()
        });
    }
}

#[test]
fn without_a_word_from_the_client_it_leaves_and_sends_nothing() {
    let server = Mcp::plain();
    let bridge = Setup::new(&server.url()).start();
    bridge.finish();
    assert!(server.log().is_empty(), "{}", server.summary());
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_drain_that_is_over_answers_what_is_left() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--drain 1").start();
    bridge.handshake();
    let slow = bridge.call("sleep", &json!({"ms": 600_000}));
    server.await_count("tools/call", 1);
    let end = bridge.finish();
    assert!(end.took >= ms(900) && end.took < PROMPT, "{:?}", end.took);
    let answer = end.lines.iter().find(|line| line.value["id"] == slow).expect("an answer");
    assert_eq!(answer.value["error"]["data"]["kind"], "shutdown");
    assert_eq!(server.count("DELETE"), 1);
}

#[test]
fn signals_end_it_at_once_with_all_answered_and_the_server_told() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let server = Mcp::plain();
        let mut bridge = Setup::new(&server.url()).start();
        bridge.handshake();
        let calls: Vec<Value> = (0..10).map(|_| bridge.call("sleep", &json!({"ms": 600_000}))).collect();
        server.await_count("tools/call", 10);
        let begun = Instant::now();
        bridge.signal(signal);
        let end = bridge.after_end(begun);
        // Two seconds are the goal; a loaded machine gets more.
        assert!(end.took < PROMPT, "{signal:?}: {:?}", end.took);
        for id in calls {
            let answer = end.lines.iter().find(|line| line.value["id"] == id).expect("an answer");
            assert_eq!(answer.value["error"]["data"]["kind"], "shutdown", "{signal:?}");
        }
        assert_eq!(server.sessions(), Vec::<String>::new(), "{signal:?}");
    }
}

#[test]
fn a_server_that_hangs_does_not_hold_up_the_end() {
    let server = Mcp::plain();
    server.on("DELETE", |_| Some(Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge.assert_works();
    let end = bridge.finish();
    assert!(end.took < PROMPT, "{:?}", end.took);
    assert_eq!(server.count("DELETE"), 1);
}

#[test]
fn a_signal_while_initialize_hangs_ends_it() {
    let server = Mcp::plain();
    server.on("initialize", |_| Some(Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).start();
    bridge.initialize();
    server.await_count("initialize", 1);
    let begun = Instant::now();
    bridge.signal(Signal::TERM);
    let end = bridge.after_end(begun);
    assert!(end.took < PROMPT, "{:?}", end.took);
}

#[test]
fn a_closed_stdout_ends_it() {
    for stdio in [Stdio3::Pipes, Stdio3::Sockets] {
        let server = Mcp::plain();
        let mut bridge = Setup::new(&server.url()).stdio(stdio).unread().start();
        let mut stdout = bridge.take_stdout();
        bridge.initialize();
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the answer begins");
        drop(stdout);
        // A socket's other side shows only when something is written.
        bridge.initialized();
        bridge.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}\n");
        let status = bridge.exit_within(LIMIT).unwrap_or_else(|| panic!("{stdio:?}: alive\n{}", bridge.report()));
        assert!(status.success(), "{stdio:?}: {status}");
    }
}

/// stdin stays open in another process; only the parent is gone.
#[test]
fn a_dead_parent_leaves_no_orphan() {
    let server = Mcp::plain();
    let (command, home) = Setup::new(&server.url()).into_command();
    // The shell stays the parent and waits.
    let line = "exec 3<&0; \"$0\" \"$1\" <&3 3<&- & wait";
    let mut shell = Command::new("sh")
        .args(["-c", line])
        .arg(command.get_program())
        .arg(server.url())
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut stdin = shell.stdin.take().unwrap();
    let mut stdout = shell.stdout.take().unwrap();
    stdin.write_all(script().as_bytes()).unwrap();
    let mut byte = [0];
    stdout.read_exact(&mut byte).expect("the answer begins");
    shell.kill().unwrap();
    shell.wait().unwrap();
    // The end of stdout is the end of its last writer.
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).map(|_| rest)
    });
    assert!(within(LIMIT, || reader.is_finished().then_some(())).is_some(), "the bridge lives on");
    let rest = reader.join().unwrap().unwrap();
    assert_eq!(ids_with_results(&format!("{}{rest}", char::from(byte[0]))), [1, 2, 3], "what was asked is answered");
    drop(stdin);
}

/// Some hosts start servers through a launcher that leaves at once: as long as the client speaks, its bridge stays.
#[test]
fn a_dead_parent_with_a_living_client_is_no_end() {
    let server = Mcp::plain();
    let (command, home) = Setup::new(&server.url()).into_command();
    let mut shell = Command::new("sh")
        .args(["-c", "exec 3<&0; \"$0\" \"$1\" <&3 3<&- & exit 0"])
        .arg(command.get_program())
        .arg(server.url())
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut stdin = shell.stdin.take().unwrap();
    let stdout = shell.stdout.take().unwrap();
    shell.wait().unwrap();
    stdin.write_all(script().as_bytes()).unwrap();
    for id in 100..105 {
        std::thread::sleep(ms(900));
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n");
        stdin.write_all(line.as_bytes()).expect("the bridge still reads");
    }
    drop(stdin);
    let mut all = String::new();
    std::io::BufReader::new(stdout).read_to_string(&mut all).unwrap();
    assert_eq!(ids_with_results(&all), [1, 2, 3, 100, 101, 102, 103, 104]);
}

#[test]
fn a_stdin_that_is_closed_from_the_start_is_an_end() {
    let server = Mcp::plain();
    let (mut command, _home) = Setup::new(&server.url()).into_command();
    let output = command.stdin(Stdio::null()).output().expect("the bridge");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty());
}

/// Some launchers start programs with nothing at all.
#[test]
fn standard_streams_that_are_closed_are_an_end() {
    let server = Mcp::plain();
    for line in ["exec \"$0\" \"$1\" <&-", "exec \"$0\" \"$1\" <&- >&- 2>&-"] {
        let (command, home) = Setup::new(&server.url()).into_command();
        let mut shell = Command::new("sh")
            .args(["-c", line])
            .arg(command.get_program())
            .arg(server.url())
            .env("HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let status = within(LIMIT, || shell.try_wait().unwrap());
        let _ = shell.kill();
        assert!(status.is_some_and(|status| status.success()), "{line}: {status:?}");
    }
}

/// A full disk behind stdout: nothing can be said any more, so it is the end.
#[test]
#[cfg(target_os = "linux")]
fn a_stdout_that_takes_nothing_is_an_end() {
    let server = Mcp::plain();
    let (mut command, _home) = Setup::new(&server.url()).into_command();
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut child = command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::null()).spawn().expect("the bridge");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script().as_bytes()).unwrap();
    let status = within(LIMIT, || child.try_wait().unwrap());
    let _ = child.kill();
    assert!(status.is_some(), "it goes on although nobody can hear it");
}

#[test]
fn a_home_that_cannot_be_written_costs_only_the_memory() {
    let server = Mcp::plain();
    let home = Arc::new(TempDir::new());
    std::fs::write(home.path().join("state"), "a file where a directory should be").unwrap();
    let mut bridge: Bridge = Setup::new(&server.url()).home(&home).start();
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}
