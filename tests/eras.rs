//! Golden dialogues between a client and a server of different eras (`fixtures/eras`): what each says, and what the other hears.
//!
//! A fixture is a list of steps, played in order against `Eras`, which never sees a socket or a clock:
//! * `client` the client writes this line (`raw`: this text); `gone` stdin ends; `after` so many milliseconds pass;
//! * `post`, `get`, `delete` the next HTTP request is this; `as` names it; `headers` holds those of the modern era, `text` a part of its body
//!   to the byte;
//! * `answer`, `open`, `event`, `end`, `fail` what comes back for the request `to`; `held` it waits for a sign-in;
//! * `wanted` a person is asked to sign in; `signed_in`, `given_up` what comes of it;
//! * `hears` the next line to the client is this; `aborted` a request was dropped; `remembers` what the next run shall know;
//!   `exit` the bridge leaves.
//!
//! At the end, nothing may be left that no step expected.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mcp_drawbridge::era::Era;
use mcp_drawbridge::eras::{Eras, Protocol, Settings};
use mcp_drawbridge::message::Id;
use mcp_drawbridge::session::{
    self, Action, Content, ExchangeId, Failure, FailureKind, Head, Input, Memory, Outgoing, Remembered, Session,
    SignIn, Verb,
};
use mcp_drawbridge::sse::Event;
use serde_json::{Value, json};

struct World {
    eras: Eras,
    now: Duration,
    started: VecDeque<(ExchangeId, Outgoing)>,
    heard: VecDeque<Bytes>,
    aborted: Vec<ExchangeId>,
    remembered: Vec<Memory>,
    exited: bool,
    names: BTreeMap<String, ExchangeId>,
    actions: Vec<Action>,
}

impl World {
    fn new(fixture: &Value) -> Self {
        let set = &fixture["settings"];
        let protocol = match set["protocol"].as_str() {
            Some("legacy") => Protocol::Legacy,
            Some("modern") => Protocol::Modern,
            _ => Protocol::Auto,
        };
        let memory = fixture.get("memory").map(|memory| Memory {
            transport: Remembered::StreamableHttp,
            requested: memory["requested"].as_str().expect("a version").into(),
            result: memory["result"].to_string(),
            refuses: match memory["refuses"].as_str() {
                Some("legacy") => Some(Era::Legacy),
                Some("modern") => Some(Era::Modern),
                _ => None,
            },
        });
        let server = String::from("example.com");
        let mut session =
            session::Settings { server: server.clone(), nonce: "n".into(), ..session::Settings::default() };
        if let Some(hold) = set["hold"].as_u64() {
            session.hold = Duration::from_millis(hold);
        }
        let rounds = set["rounds"].as_u64().map_or(10, |rounds| u32::try_from(rounds).expect("few"));
        let settings = Settings { protocol, server, nonce: "n".into(), max_rounds: rounds, ..Settings::default() };
        Self {
            eras: Eras::new(settings, Session::new(session, memory)),
            now: Duration::ZERO,
            started: VecDeque::new(),
            heard: VecDeque::new(),
            aborted: Vec::new(),
            remembered: Vec::new(),
            exited: false,
            names: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        self.eras.handle(self.now, input, &mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Write(line) | Action::WriteAbout(_, line) => self.heard.push_back(line),
                Action::Start(exchange, outgoing) => self.started.push_back((exchange, outgoing)),
                Action::Abort(exchange) => self.aborted.push(exchange),
                Action::Remember(memory) => self.remembered.push(memory),
                Action::SignIn(_) | Action::Log(..) => {}
                Action::Exit => self.exited = true,
            }
        }
    }

    /// Time passes, with a tick at every deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.eras.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Tick);
        }
        self.now = end;
        self.input(Input::Tick);
    }

    fn exchange(&self, step: &Value) -> ExchangeId {
        let name = step["to"].as_str().expect("the name of a request");
        *self.names.get(name).unwrap_or_else(|| panic!("no request is called {name}"))
    }

    fn step(&mut self, kind: &str, step: &Value) {
        match kind {
            "client" => self.input(Input::Line(step.to_string().into())),
            "raw" => self.input(Input::Line(step.as_str().expect("text").to_owned().into())),
            "too_long" => {
                let id = step.get("id").and_then(|id| Id::from_json(&id.to_string()));
                let is_request = step["request"].as_bool().expect("whether it is a request");
                self.input(Input::TooLong { id, is_request, length: 1 << 30, limit: 1 << 20 });
            }
            "gone" => self.input(Input::ClientGone),
            "after" => self.pass(Duration::from_millis(step.as_u64().expect("milliseconds"))),
            "post" | "get" | "delete" => self.expect_request(kind, step),
            "answer" => {
                let exchange = self.exchange(step);
                let body = step.get("body").map_or_else(Bytes::new, |body| match body {
                    Value::String(text) => text.clone().into(),
                    body => body.to_string().into(),
                });
                let status = step["status"].as_u64().map_or(200, |status| u16::try_from(status).expect("a status"));
                let session = step["session"].as_str().map(|id| Ok(id.to_owned()));
                let content =
                    if step["body"].is_string() { Content::Other("text/plain".into()) } else { Content::Json };
                let head = Head { status, content, session_id: session, retry_after: None };
                self.input(Input::Answer { exchange, head, body });
            }
            "open" => {
                let head = Head { status: 200, content: Content::EventStream, session_id: None, retry_after: None };
                self.input(Input::Opened { exchange: self.exchange(step), head });
            }
            "event" => {
                let event = Event { name: None, data: step["data"].to_string().into(), id: None, retry: None };
                self.input(Input::Events { exchange: self.exchange(step), events: vec![event] });
            }
            "end" => self.input(Input::Ended { exchange: self.exchange(step), failure: None }),
            "fail" => {
                let kind = match step["kind"].as_str() {
                    Some("sign-in") => FailureKind::SignIn,
                    _ => FailureKind::Connect,
                };
                let failure = Failure { kind, unsent: true, message: "no connection".into(), hint: None };
                self.input(Input::Failed { exchange: self.exchange(step), failure });
            }
            "held" => self.input(Input::Held { exchange: self.exchange(step) }),
            "wanted" => {
                self.input(Input::SignIn(SignIn::Wanted { url: "https://as.example/".into(), advice: "".into() }));
            }
            "given_up" => {
                self.input(Input::SignIn(SignIn::Ended { message: "the person said no".into(), hint: None }));
            }
            "signed_in" => self.input(Input::SignIn(SignIn::Done)),
            "hears" => {
                let line = self.heard.pop_front().unwrap_or_else(|| panic!("the client heard nothing"));
                let line: Value = serde_json::from_slice(&line).expect("JSON");
                assert_like(step, &line);
            }
            "aborted" => {
                let exchange = self.names[step.as_str().expect("a name")];
                let place = self.aborted.iter().position(|one| *one == exchange);
                self.aborted.remove(place.unwrap_or_else(|| panic!("{step} is not aborted: {:?}", self.started)));
            }
            "remembers" => {
                let memory = self.remembered.pop().unwrap_or_else(|| panic!("nothing is remembered"));
                self.remembered.clear();
                let result: Value = serde_json::from_str(&memory.result).expect("JSON");
                let refuses = serde_json::to_value(memory.refuses).expect("JSON");
                assert_like(step, &json!({"requested": memory.requested, "result": result, "refuses": refuses}));
            }
            "exit" => assert!(self.exited, "the bridge stays"),
            other => panic!("no step is called {other}"),
        }
    }

    fn expect_request(&mut self, kind: &str, step: &Value) {
        let (exchange, outgoing) =
            self.started.pop_front().unwrap_or_else(|| panic!("nothing is sent; the client heard {:?}", self.heard));
        let verb = match outgoing.verb {
            Verb::Post => "post",
            Verb::Get => "get",
            Verb::Delete => "delete",
        };
        let body: Value = serde_json::from_slice(&outgoing.body).unwrap_or_default();
        assert_eq!(verb, kind, "{outgoing:?}");
        if let Some(expected) = step.get("body") {
            assert_like(expected, &body);
        }
        if let Some(text) = step["text"].as_str() {
            let body = String::from_utf8_lossy(&outgoing.body);
            assert!(body.contains(text), "{text} is not in {body}");
        }
        if let Some(without) = step["without"].as_str() {
            assert!(!String::from_utf8_lossy(&outgoing.body).contains(without), "{without} is in {body}");
        }
        let modern = outgoing.modern.as_ref().map(|modern| {
            let params: BTreeMap<_, _> = modern.params.iter().map(|(name, value)| (name.to_string(), value)).collect();
            json!({"version": modern.version, "method": modern.method, "name": modern.name, "params": params})
        });
        match (step.get("headers"), modern) {
            (Some(Value::Null), None) | (None, _) => {}
            (Some(expected), Some(modern)) => assert_like(expected, &modern),
            (expected, modern) => panic!("headers: expected {expected:?}, got {modern:?}"),
        }
        if let Some(name) = step["as"].as_str() {
            self.names.insert(name.to_owned(), exchange);
        }
    }
}

/// Every member that is expected is there and equal, to any depth; `"…"` stands for anything. Arrays are equal in length.
fn assert_like(expected: &Value, got: &Value) {
    fn differ(expected: &Value, got: &Value, path: &str) -> Option<String> {
        match (expected, got) {
            (Value::String(any), got) if any == "…" => got.is_null().then(|| format!("{path} is missing")),
            (Value::Object(expected), Value::Object(got)) => expected.iter().find_map(|(name, expected)| {
                let path = format!("{path}/{name}");
                match got.get(name) {
                    Some(got) => differ(expected, got, &path),
                    None if *expected == "absent" => None,
                    None => Some(format!("{path} is missing")),
                }
            }),
            (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => expected
                .iter()
                .zip(got)
                .enumerate()
                .find_map(|(place, (expected, got))| differ(expected, got, &format!("{path}/{place}"))),
            (expected, got) => (expected != got).then(|| format!("{path}: expected {expected}, got {got}")),
        }
    }
    if let Some(difference) = differ(expected, got, "") {
        panic!("{difference}\n  expected {expected}\n  got      {got}");
    }
}

fn play(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a fixture");
    let fixture: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut world = World::new(&fixture);
    let steps = fixture["steps"].as_array().expect("steps");
    assert!(!steps.is_empty(), "a dialogue says something");
    for (number, step) in steps.iter().enumerate() {
        let step = step.as_object().expect("a step");
        for (kind, step) in step {
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step(kind, step)));
            assert!(played.is_ok(), "{}: step {} ({kind}) failed, see above", path.display(), number + 1);
        }
    }
    let rest = |what: &str, there: bool| assert!(!there, "{}: {what} that no step expected", path.display());
    let heard: Vec<String> = world.heard.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    rest(&format!("the client heard something: {heard:?}"), !heard.is_empty());
    rest(&format!("something was sent: {:?}", world.started), !world.started.is_empty());
}

#[test]
fn golden_dialogues() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/eras");
    let mut paths: Vec<_> =
        std::fs::read_dir(&directory).expect("fixtures").map(|entry| entry.expect("an entry").path()).collect();
    let ours = ["detection-", "headers-", "legacy-client-"];
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".json") && ours.iter().any(|prefix| name.starts_with(prefix))
    });
    paths.sort();
    assert!(paths.len() >= 35, "the fixtures are there");
    let bad = paths.iter().filter(|path| std::panic::catch_unwind(|| play(path)).is_err()).count();
    assert!(bad == 0, "{bad} of {} dialogues went another way, see above", paths.len());
}
