//! Hostile servers and hostile clients against the real process: the rows 46 to 56 of the threat model, a file of
//! `fixtures/hostile` each. What a file may say: `tests/support/script.rs`.
//!
//! Whatever a case expects for itself, this holds in each: the bridge lives, an honest request works afterwards, every
//! request has exactly one response, every line on stdout is one JSON-RPC message, memory stays bounded, stderr holds
//! neither a secret nor a control character, nothing is sent to another origin, and the process ends when its client leaves.
//!
//! `HOSTILE=word cargo test --test hostile` runs the cases whose name holds the word, and shows what they said.

#![cfg(unix)]
// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use support::bridge::{Bridge, Setup, Transcript, VERSION, messages};
use support::mcp::{Kind, Mcp};
use support::script::{Answer, Case, Expect, Piece, repeated, reply};
use support::wire::{Reply, Server};
use support::{LIMIT, MIB, all_at_once, within};

/// A header's value that must show nowhere but at the server.
const SECRET: &str = "Bearer s3cr3t-Zx81-hunter2";
/// Cases at a time: most of them wait.
const AT_A_TIME: usize = 6;

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile");
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).expect("the fixtures").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Case::parse(&name, &std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

#[test]
fn every_row_has_cases_and_names_say_which() {
    let cases = cases();
    for row in 46..=56 {
        assert!(cases.iter().any(|case| case.row == row), "row {row} has no case");
    }
    for case in &cases {
        assert!(case.name.starts_with(&format!("{}-", case.row)), "{} is a case of row {}", case.name, case.row);
    }
}

#[test]
fn no_case_gets_through() {
    let wanted = std::env::var("HOSTILE").unwrap_or_default();
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    assert!(!cases.is_empty(), "no case is called {wanted:?}");
    all_at_once(
        &cases,
        AT_A_TIME,
        |case| case.name.clone(),
        |case| match &case.open {
            None => run(case, !wanted.is_empty()),
            Some(why) => {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case, !wanted.is_empty())));
                assert!(outcome.is_err(), "mended: strike the line `open {why}`");
            }
        },
    );
}

fn run(case: &Case, aloud: bool) {
    let other = Arc::new(Server::start(|_| Reply::json(200, "{}")));
    let server = start(case, &other);
    let mut setup = Setup::new(&server.url()).arg("--debug").arg("--header").arg(format!("X-Secret: {SECRET}"));
    for arg in &case.args {
        setup = setup.arg(arg);
    }
    let mut bridge = setup.start();
    let version = if server.url().ends_with("/sse") { "2024-11-05" } else { version(case) };

    let first = bridge.initialize_as(version);
    let greeted = bridge.answer(&first)["result"].is_object();
    bridge.initialized();
    match &case.client {
        Some(pieces) => write(&mut bridge, pieces),
        None if greeted => bridge.send(&json!({
            "jsonrpc": "2.0", "id": "target", "method": "tools/call", "params": {"name": "target", "arguments": {}}
        })),
        None => {}
    }
    for expect in &case.expects {
        await_expected(&bridge, &server, expect);
    }
    let peak = if bridge.stdin_is_open() {
        // An honest client and a server that has come to its senses.
        if !greeted {
            let again = bridge.initialize_as(version);
            bridge.result(&again);
            bridge.initialized();
        }
        bridge.assert_works();
        bridge.peak_rss()
    } else {
        None
    };
    let end = if bridge.stdin_is_open() { bridge.finish() } else { bridge.after_end(Instant::now()) };
    if aloud {
        eprintln!("{}", end.stderr);
        for line in &end.lines {
            eprintln!("stdout: {}", line.text.chars().take(300).collect::<String>());
        }
        eprintln!("{}peak: {} MiB, end after {:?}", server.summary(), peak.unwrap_or(0) / MIB, end.took);
    }
    for expect in &case.expects {
        check_expected(&end, &server, expect);
    }
    assert!(peak.is_none_or(|peak| peak < case.rss), "{} MiB resident", peak.unwrap_or(0) / MIB);
    assert!(!end.stderr.contains(SECRET), "the secret shows: {}", end.stderr);
    assert!(!server.sessions().iter().any(|id| end.stderr.contains(id)), "a session id shows: {}", end.stderr);
    assert!(end.stderr.len() < 256 << 10, "{} bytes on stderr", end.stderr.len());
    assert_eq!(other.connections(), 0, "another origin was asked: {}", other.summary());
}

fn version(case: &Case) -> &'static str {
    if case.server == "old" { "2025-03-26" } else { VERSION }
}

fn start(case: &Case, other: &Arc<Server>) -> Mcp {
    let mut server = Mcp::start(match case.server.as_str() {
        "" => Kind::default(),
        "streaming" => Kind { streams: true, ..Kind::default() },
        "no-sessions" => Kind { sessions: false, ..Kind::default() },
        "http-sse" => Kind { http_sse: true, version: "2024-11-05", ..Kind::default() },
        "old" => Kind { version: "2025-03-26", ..Kind::default() },
        other => panic!("no such server: {other}"),
    });
    // A server that lies about its session has no right to complain.
    server.strict = false;
    for block in &case.replies {
        let (pieces, nth, other) = (block.pieces.clone(), block.nth, other.origin());
        server.on(&block.key, move |call| {
            let honest = call.key == "tools/call" && call.tool() == "echo";
            let concerned = !honest && nth.is_none_or(|nth| nth == call.n);
            concerned.then(|| reply(&pieces, &call.id, &other))
        });
    }
    server
}

/// What a hostile client writes. The driver knows the requests in it that can be read.
fn write(bridge: &mut Bridge, pieces: &[Piece]) {
    let mut whole = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => whole.extend_from_slice(bytes),
            Piece::Repeat(bytes, count) => {
                for block in repeated(bytes, *count) {
                    whole.extend_from_slice(&block);
                }
            }
            _ => {}
        }
    }
    for line in whole.split(|byte| *byte == b'\n').filter(|line| line.len() <= MIB) {
        bridge.note_line(line);
    }
    drop(whole);
    for piece in pieces {
        match piece {
            // What is no longer read is no longer needed: the expectations tell.
            Piece::Bytes(bytes) => {
                bridge.send_bytes(bytes);
            }
            Piece::Repeat(bytes, count) => {
                for block in repeated(bytes, *count) {
                    bridge.send_bytes(&block);
                }
            }
            Piece::Trickle(bytes, pause) => {
                for byte in bytes {
                    bridge.send_bytes(&[*byte]);
                    std::thread::sleep(*pause);
                }
            }
            Piece::Wait(time) => std::thread::sleep(*time),
            Piece::Eof => bridge.close_stdin(),
            Piece::Asks(id) => {
                bridge.note(&json!({"method": "", "id": serde_json::from_str::<Value>(id).expect("an id")}));
            }
            other => panic!("a client cannot do this: {other:?}"),
        }
    }
}

fn matches(message: &Value, id: &str, answer: &Answer) -> bool {
    let id: Value = serde_json::from_str(id).unwrap_or_else(|_| panic!("an id as JSON: {id}"));
    let error = &message["error"];
    message["id"] == id
        && match answer {
            Answer::Any => message.get("result").is_some() || error.is_object(),
            Answer::Result => message.get("result").is_some(),
            Answer::Error => error.is_object(),
            Answer::Code(code) => error["code"] == *code,
            Answer::Kind(kind) => error["data"]["kind"] == **kind,
        }
}

fn count(lines: &[support::bridge::Line], id: &str, answer: &Answer) -> usize {
    lines.iter().flat_map(|line| messages(&line.value)).filter(|message| matches(message, id, answer)).count()
}

/// Messages of a key, without the honest calls of this test itself.
fn requests(server: &Mcp, key: &str) -> usize {
    if key != "tools/call" {
        return server.count(key);
    }
    server.posts(key).iter().filter(|logged| logged.request.json()["params"]["name"] != "echo").count()
}

/// Waits for what will come.
fn await_expected(bridge: &Bridge, server: &Mcp, expect: &Expect) {
    match expect {
        Expect::Answer { id, answer, count: wanted } => {
            let wanted = wanted.unwrap_or(1);
            // Any answer ends the wait; a wrong one is found out at once.
            let came = within(LIMIT, || {
                let lines = bridge.lines();
                (count(&lines, id, &Answer::Any) >= wanted || bridge.stdout_is_broken()).then_some(())
            });
            assert!(
                came.is_some() && !bridge.stdout_is_broken(),
                "{expect:?} did not come\n{}\n{}",
                bridge.report(),
                server.summary()
            );
            let found = count(&bridge.lines(), id, answer);
            assert!(found >= wanted, "{expect:?}: {found} like this\n{}\n{}", bridge.report(), server.summary());
        }
        Expect::Notification(method) => drop(bridge.notification(method)),
        Expect::Requests { key, least, .. } => {
            let came = within(LIMIT, || (requests(server, key) >= *least).then_some(()));
            assert!(came.is_some(), "{expect:?} did not come\n{}", server.summary());
        }
        Expect::Header { .. } | Expect::NoHeader(_) | Expect::Stdout { .. } => {}
    }
}

/// Checks what can be said only at the end.
fn check_expected(end: &Transcript, server: &Mcp, expect: &Expect) {
    match expect {
        Expect::Answer { id, answer, count: Some(wanted) } => {
            assert_eq!(count(&end.lines, id, answer), *wanted, "{expect:?}");
        }
        Expect::Requests { key, most, .. } => {
            let count = requests(server, key);
            assert!(count <= *most, "{count} times {key}\n{}", server.summary());
        }
        Expect::Header { name, value } => {
            let sent = server.requests();
            let found = sent.iter().any(|request| request.header(name) == Some(value));
            let all: Vec<_> = sent.iter().filter_map(|request| request.header(name)).collect();
            assert!(found, "{name} was never {value}, but {all:?}");
        }
        Expect::NoHeader(name) => {
            let sent = server.requests();
            assert!(sent.iter().all(|request| request.header(name).is_none()), "{name} was sent");
        }
        Expect::Stdout { has, text } => {
            let found = end.lines.iter().any(|line| line.text.contains(text));
            assert_eq!(found, *has, "{expect:?}");
        }
        Expect::Answer { .. } | Expect::Notification(_) => {}
    }
}
