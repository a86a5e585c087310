//! A translated message is copied once, and not at all where nothing in it changes: what its payload costs in memory, by the kernel's word.
//!
//! Each case runs in a process of its own: it makes one large message, forgets how much memory it has used so far, translates it, and looks
//! at the most that was in use meanwhile. A copy of a copy stands beside both, so it would show. The kernel of Linux keeps that number.
#![cfg(target_os = "linux")]
// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use mcp_drawbridge::eras::legacy_client::LegacyClient;
use mcp_drawbridge::eras::modern_client::ModernClient;
use mcp_drawbridge::eras::{Effects, Settings, Translator};

/// So large that the allocator gives each buffer back to the kernel at once.
const PAYLOAD: usize = 48 << 20;
/// What a call may have in questions is less; the allocator then keeps what was freed, so nothing large may be freed before.
const QUESTION: usize = 7 << 20;
const CASE: &str = "ERAS_COPIES_CASE";
const OPEN: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{}}"#;

/// Its name, what runs, bytes of the payload, and how often it may be copied.
type Case = (&'static str, fn(&mut Ready) -> Effects, usize, usize);

const CASES: [Case; 8] = [
    ("legacy client, request", legacy_request, PAYLOAD, 1),
    ("legacy client, result", legacy_result, PAYLOAD, 0),
    ("legacy client, question", legacy_question, PAYLOAD, 1),
    ("legacy client, answer and state", legacy_answer, PAYLOAD, 1),
    ("modern client, request", modern_request, PAYLOAD, 1),
    ("modern client, result", modern_result, PAYLOAD, 1),
    ("modern client, question", modern_question, QUESTION, 1),
    ("modern client, retry", modern_retry, PAYLOAD, 1),
];

/// A translator, and the line that it is given next.
struct Ready {
    machine: Box<dyn Translator>,
    next: Option<Bytes>,
}

fn legacy() -> Ready {
    let machine = Box::new(LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None));
    let mut ready = Ready { machine, next: None };
    ready.client(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"capabilities":{"sampling":{}}}}"#.into());
    let found = r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}}"#;
    ready.server(found.into());
    ready
}

fn modern() -> Ready {
    let machine = Box::new(ModernClient::new(&Settings { nonce: "n".into(), ..Settings::default() }));
    let mut ready = Ready { machine, next: None };
    ready.client(request("0", "tools/list", OPEN).into());
    ready.server(r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-m1","result":{"capabilities":{}}}"#.into());
    ready
}

fn request(id: &str, method: &str, meta: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"name":"t","_meta":{{{meta}}}}}}}"#)
}

/// A text with a large one in the place of `%`.
fn with_payload(text: &str, payload: usize) -> Bytes {
    let (before, after) = text.split_once('%').expect("a place");
    let mut line = Vec::with_capacity(text.len() + payload);
    line.extend_from_slice(before.as_bytes());
    line.resize(before.len() + payload, b'x');
    line.extend_from_slice(after.as_bytes());
    line.into()
}

impl Ready {
    fn client(&mut self, line: Bytes) -> Effects {
        let mut effects = Effects::default();
        self.machine.client_line(Duration::ZERO, &line, &mut effects);
        effects
    }

    fn server(&mut self, line: Bytes) -> Effects {
        let mut effects = Effects::default();
        self.machine.server_line(Duration::ZERO, line, &mut effects);
        effects
    }

    fn next(&mut self) -> Bytes {
        self.next.clone().expect("a line")
    }
}

fn legacy_request(ready: &mut Ready) -> Effects {
    let line = ready.next();
    ready.client(line)
}

fn legacy_result(ready: &mut Ready) -> Effects {
    let line = ready.next();
    ready.server(line)
}

fn legacy_question(ready: &mut Ready) -> Effects {
    legacy_result(ready)
}

fn legacy_answer(ready: &mut Ready) -> Effects {
    legacy_request(ready)
}

fn modern_request(ready: &mut Ready) -> Effects {
    legacy_request(ready)
}

fn modern_result(ready: &mut Ready) -> Effects {
    legacy_result(ready)
}

fn modern_question(ready: &mut Ready) -> Effects {
    let line = ready.next();
    let mut effects = ready.server(line);
    ready.machine.tick(Duration::from_millis(50), &mut effects);
    effects
}

fn modern_retry(ready: &mut Ready) -> Effects {
    legacy_request(ready)
}

fn prepare(case: &str, payload: usize) -> Ready {
    let mut ready = if case.starts_with("legacy") { legacy() } else { modern() };
    let large = |text: &str| Some(with_payload(text, payload));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":"%"}}}"#;
    let small = call.replace('%', "");
    let modern_call = request("1", "tools/call", OPEN);
    let question = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"k":{"method":"sampling/createMessage","params":{"messages":"%"}}},"requestState":"s"}}"#;
    ready.next = match case {
        "legacy client, request" => large(call),
        "legacy client, result" => {
            ready.client(small.into());
            large(
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"%"}]}}"#,
            )
        }
        "legacy client, question" => {
            ready.client(small.into());
            large(question)
        }
        "legacy client, answer and state" => {
            ready.client(small.into());
            let asked = ready.server(question.replace('%', "").into()).to_client.pop().expect("a question");
            let asked: serde_json::Value = serde_json::from_slice(&asked).expect("JSON");
            large(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"role":"assistant","content":"%"}}}}"#, asked["id"]))
        }
        "modern client, request" => large(&modern_call.replace(r#""name":"t""#, r#""name":"t","a":"%""#)),
        "modern client, result" => {
            ready.client(modern_call.into());
            large(r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-m3","result":{"content":[{"type":"text","text":"%"}]}}"#)
        }
        "modern client, question" => {
            ready.client(modern_call.into());
            large(r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"messages":"%"}}"#)
        }
        _ => {
            ready.client(modern_call.clone().into());
            ready.server(
                r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{"messages":[]}}"#.into(),
            );
            let mut effects = Effects::default();
            ready.machine.tick(Duration::from_millis(50), &mut effects);
            let asked: serde_json::Value = serde_json::from_slice(&effects.to_client[0]).expect("JSON");
            let result = &asked["result"];
            let key = result["inputRequests"].as_object().expect("questions").keys().next().expect("one");
            let answers = format!(
                r#""name":"t","requestState":{},"inputResponses":{{"{key}":{{"role":"assistant","content":"%"}}}}"#,
                result["requestState"]
            );
            large(&modern_call.replace(r#""id":1"#, r#""id":2"#).replace(r#""name":"t""#, &answers))
        }
    };
    ready
}

/// The most memory that was in use since the last [`forget`], and what is in use now.
fn memory() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel's word");
    let read = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a number");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    };
    (read("VmHWM:"), read("VmRSS:"))
}

fn forget() {
    fs::write("/proc/self/clear_refs", "5").expect("one's own high-water mark can be set back");
}

/// In a process of its own.
fn run(case: &str) {
    let (_, translate, payload, copies) = CASES.into_iter().find(|(name, ..)| *name == case).expect("a case");
    let mut ready = prepare(case, payload);
    forget();
    let (_, before) = memory();
    let effects = translate(&mut ready);
    let (most, _) = memory();
    let lines = || effects.to_client.iter().chain(&effects.to_session);
    assert!(lines().any(|line| line.len() > payload), "{case}: the payload was passed on");
    let cost = most.saturating_sub(before);
    let allowed = copies * payload + payload / 2;
    assert!(cost < allowed, "{case}: {cost} bytes for a payload of {payload}, where {copies} copies are allowed");
    assert!(copies == 0 || cost > payload / 2, "{case}: {cost} bytes; the measure does not work");
}

#[test]
fn a_large_payload_is_copied_at_most_once() {
    if let Ok(case) = std::env::var(CASE) {
        return run(&case);
    }
    for (case, ..) in CASES {
        let own = std::env::current_exe().expect("this program");
        let output = Command::new(own).env(CASE, case).output().expect("a process");
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
