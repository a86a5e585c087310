//! Dialogues between a modern client and a legacy server, line by line: `fixtures/eras/modern-client-*.json`.
//! `fixtures/eras/README.md` says how such a file is read.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mcp_drawbridge::eras::modern_client::ModernClient;
use mcp_drawbridge::eras::{Effects, Learnt, SealKey, Settings, Translator};
use mcp_drawbridge::message::Id;
use serde_json::{Map, Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/eras");

/// What a modern client must say in every request; `meta` in a step adds to it.
fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "client", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

#[test]
fn the_dialogues_go_as_written() {
    let mut names: Vec<_> = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("modern-client-"))
        .collect();
    names.sort();
    let mut failed = Vec::new();
    assert!(names.len() >= 8, "the dialogues are missing");
    for name in names {
        let text = fs::read_to_string(Path::new(FOLDER).join(&name)).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for dialogue in file.as_array().unwrap() {
            let title = format!("{name}: {}", dialogue["title"].as_str().expect("a title"));
            let played = std::panic::catch_unwind(|| {
                Run::new(title.clone()).play(dialogue["steps"].as_array().expect("steps"));
            });
            if played.is_err() {
                failed.push(title);
            }
        }
    }
    assert!(failed.is_empty(), "{} dialogues went otherwise: {failed:#?}", failed.len());
}

/// A runner that accepts anything proves nothing.
#[test]
fn a_wrong_expectation_is_noticed() {
    for steps in [
        json!([{"client": {"id": 1, "method": "ping"}, "plain": true}]),
        json!([{"to_client": {"id": 1}}]),
        json!([{"client": {"id": 1, "method": "tools/list"}}, {"to_server": {"id": "m1", "method": "tools/list"}}]),
    ] {
        let failed = std::panic::catch_unwind(|| Run::new("planted".into()).play(steps.as_array().unwrap()));
        assert!(failed.is_err(), "{steps}");
    }
}

struct Run {
    title: String,
    machine: ModernClient,
    now: Duration,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    learnt: usize,
    wrong_era: Option<Vec<Bytes>>,
    /// Values of `$names`, by first sight.
    names: BTreeMap<String, Value>,
}

impl Run {
    fn new(title: String) -> Self {
        let settings = Settings { nonce: "t".into(), key: SealKey([7; 32]), ..Settings::default() };
        Self {
            title,
            machine: ModernClient::new(&settings),
            now: Duration::ZERO,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            learnt: 0,
            wrong_era: None,
            names: BTreeMap::new(),
        }
    }

    fn play(&mut self, steps: &[Value]) {
        for (index, step) in steps.iter().enumerate() {
            let place = format!("{}, step {}", self.title, index + 1);
            self.step(step.as_object().expect("a step is an object"), &place);
        }
        self.assert_silent(&format!("{}, at the end", self.title));
    }

    fn step(&mut self, step: &Map<String, Value>, place: &str) {
        if let Some(capabilities) = step.get("open") {
            return self.open(capabilities, step.get("meta"), place);
        }
        if let Some(expected) = step.get("to_server") {
            let line = self.to_server.pop_front().unwrap_or_else(|| panic!("{place}: nothing for the server"));
            return self.compare(expected, &line, place);
        }
        if let Some(expected) = step.get("to_client") {
            let line = self.to_client.pop_front().unwrap_or_else(|| panic!("{place}: nothing for the client"));
            return self.compare(expected, &line, place);
        }
        if step.contains_key("learnt") {
            self.learnt = self.learnt.checked_sub(1).unwrap_or_else(|| panic!("{place}: nothing was learnt"));
            return;
        }
        if let Some(lines) = step.get("wrong_era") {
            let came = self.wrong_era.take().unwrap_or_else(|| panic!("{place}: no wrong era"));
            let came: Vec<Value> = came.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
            let ids: Vec<&Value> = came.iter().map(|line| &line["id"]).collect();
            assert_eq!(lines, &json!(ids), "{place}");
            return;
        }
        self.assert_silent(place);
        let mut effects = Effects::default();
        if let Some(message) = step.get("client") {
            let line = self.client_line(message, step);
            self.machine.client_line(self.now, &line, &mut effects);
        } else if let Some(text) = step.get("client_text") {
            let line = Bytes::from(text.as_str().expect("text").to_owned());
            self.machine.client_line(self.now, &line, &mut effects);
        } else if let Some(message) = step.get("server") {
            let line = self.line(message);
            match step.get("about") {
                Some(about) => {
                    let about = Id::String(long_id(about.as_str().unwrap()).into());
                    self.machine.server_line_about(self.now, &about, line, &mut effects);
                }
                None => self.machine.server_line(self.now, line, &mut effects),
            }
        } else if let Some(message) = step.get("refused") {
            let line = self.line(message);
            self.machine.refused(self.now, line, &mut effects);
        } else if let Some(milliseconds) = step.get("wait") {
            self.now += Duration::from_millis(milliseconds.as_u64().expect("milliseconds"));
            if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.machine.tick(self.now, &mut effects);
            }
        } else if step.contains_key("client_gone") {
            self.machine.client_gone(self.now, &mut effects);
        } else if step.contains_key("finish") {
            self.machine.finish(self.now, &mut effects);
        } else if let Some(owes) = step.get("owes") {
            assert_eq!(self.machine.owes(), owes.as_bool().unwrap(), "{place}");
        } else {
            panic!("{place}: no such step");
        }
        self.to_server.extend(effects.to_session);
        self.to_server.extend(effects.answers);
        self.to_client.extend(effects.to_client);
        self.learnt += usize::from(effects.learnt == Some(Learnt::Confirmed(None)));
        self.wrong_era = effects.wrong_era;
    }

    /// A session with a server of these capabilities, which took the id `m1`.
    fn open(&mut self, capabilities: &Value, meta: Option<&Value>, place: &str) {
        let able = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}});
        let able = json!({"clientCapabilities": able});
        let discover = json!({"client": {"id": "open", "method": "server/discover"}, "meta": meta.unwrap_or(&able)});
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities});
        let steps = [
            discover,
            json!({"to_server": {"id": "m1", "method": "initialize", "params": "*"}}),
            json!({"server": {"id": "m1", "result": result}}),
            json!({"learnt": true}),
            json!({"to_server": {"method": "notifications/initialized"}}),
            json!({"to_client": {"id": "open", "result": "*"}}),
        ];
        for step in steps {
            self.step(step.as_object().unwrap(), place);
        }
    }

    fn assert_silent(&self, place: &str) {
        assert!(self.to_server.is_empty(), "{place}: also for the server: {:?}", self.to_server);
        assert!(self.to_client.is_empty(), "{place}: also for the client: {:?}", self.to_client);
        assert!(self.wrong_era.is_none(), "{place}: also a wrong era");
    }

    /// The client's message with the `_meta` that the era wants.
    fn client_line(&mut self, message: &Value, step: &Map<String, Value>) -> Bytes {
        let mut message = message.clone();
        if message.get("id").is_some() && !step.contains_key("plain") {
            let mut all = meta();
            if let Some(more) = step.get("meta") {
                for (key, value) in more.as_object().unwrap() {
                    let known = ["protocolVersion", "clientInfo", "clientCapabilities", "logLevel"];
                    let key = match known.iter().find(|short| *short == key) {
                        Some(short) => format!("io.modelcontextprotocol/{short}"),
                        None => key.clone(),
                    };
                    all[key] = value.clone();
                }
            }
            if message.get("params").is_none() {
                message["params"] = json!({});
            }
            message["params"]["_meta"] = all;
        }
        self.line(&message)
    }

    fn line(&mut self, message: &Value) -> Bytes {
        let mut message = self.known(message);
        message["jsonrpc"] = json!("2.0");
        Bytes::from(message.to_string())
    }

    /// With the values of names, and the bridge's ids in full.
    fn known(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if text.starts_with('$') => {
                self.names.get(text).cloned().unwrap_or_else(|| panic!("{}: {text} has no value yet", self.title))
            }
            Value::String(text) if is_short_id(text) => json!(long_id(text)),
            Value::Array(items) => items.iter().map(|item| self.known(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| {
                    let known = key.starts_with('$').then(|| self.known(&json!(key)));
                    let key = known.and_then(|key| key.as_str().map(str::to_owned)).unwrap_or_else(|| key.clone());
                    (key, self.known(value))
                })
                .collect(),
            other => other.clone(),
        }
    }

    fn compare(&mut self, expected: &Value, line: &Bytes, place: &str) {
        let came: Value = serde_json::from_slice(line).unwrap_or_else(|error| panic!("{place}: {error}: {line:?}"));
        let mut expected = expected.clone();
        expected["jsonrpc"] = json!("2.0");
        assert!(self.matches(&expected, &came), "{place}:\n expected {expected}\n     came {came}");
    }

    /// `$name` stands for any text, the same everywhere; `"*"` for anything.
    fn matches(&mut self, expected: &Value, came: &Value) -> bool {
        match (expected, came) {
            (Value::String(name), _) if name == "*" => true,
            (Value::String(name), Value::String(_)) if name.starts_with('$') => {
                self.names.entry(name.clone()).or_insert_with(|| came.clone()) == came
            }
            (Value::String(short), Value::String(came)) if is_short_id(short) => *came == long_id(short),
            (Value::Array(expected), Value::Array(came)) => {
                expected.len() == came.len()
                    && expected.iter().zip(came).all(|(expected, came)| self.matches(expected, came))
            }
            (Value::Object(expected), Value::Object(came)) => self.members_match(expected, came),
            _ => expected == came,
        }
    }

    fn members_match(&mut self, expected: &Map<String, Value>, came: &Map<String, Value>) -> bool {
        if expected.len() != came.len() {
            return false;
        }
        // Names that are not known yet stand for the keys that are left, in their order.
        let fixed: Vec<String> = expected
            .keys()
            .filter_map(|key| match self.names.get(key) {
                Some(value) => value.as_str().map(str::to_owned),
                None => (!key.starts_with('$')).then(|| key.clone()),
            })
            .collect();
        let mut free = came.keys().filter(|key| !fixed.contains(key));
        let mut pairs = Vec::new();
        for (key, value) in expected {
            let actual = match self.names.get(key) {
                Some(known) => known.as_str().unwrap().to_owned(),
                None if key.starts_with('$') => {
                    let Some(actual) = free.next() else { return false };
                    self.names.insert(key.clone(), json!(actual));
                    actual.clone()
                }
                None => key.clone(),
            };
            pairs.push((value, actual));
        }
        pairs.into_iter().all(|(value, actual)| came.get(&actual).is_some_and(|came| self.matches(value, came)))
    }
}

/// `m1` is the first id that the bridge makes.
fn is_short_id(text: &str) -> bool {
    text.strip_prefix('m').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn long_id(short: &str) -> String {
    format!("mcp-drawbridge-t-{short}")
}
