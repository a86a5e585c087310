//! A modern client, the translator, and what a legacy session may say: any legal dialogue, and illegal ones of the client.
//!
//! Held here: every request gets exactly one response unless it was cancelled; what the client sees is legal in 2026-07-28; what the
//! session sees is what a legacy client writes; at the end nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::script::{Milliseconds, Script};
use crate::eras::modern_client::ModernClient;
use crate::eras::{Effects, Settings, Translator};
use crate::message::Id;

/// Steps of one life. All that can happen happens in fewer.
const MAX_STEPS: usize = 60;
const METHODS: [&str; 8] = [
    "tools/call",
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "server/discover",
    "subscriptions/listen",
    "com.example/x",
];
const LEVELS: [&str; 4] = ["debug", "info", "error", "emergency"];
const URIS: [&str; 3] = ["x:1", "x:1/2", "x:3"];

/// A request that the client waits for.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    params: Value,
    meta: Value,
}

/// What the client may retry.
#[derive(Debug, Clone)]
struct Round {
    asked: Asked,
    state: String,
    keys: Vec<String>,
}

#[derive(Debug)]
struct Listening {
    filter: Value,
    acknowledged: Option<Value>,
}

pub(super) struct World {
    machine: ModernClient,
    now: Duration,
    next_id: u64,
    open: BTreeMap<String, Asked>,
    rounds: Vec<Round>,
    listens: BTreeMap<String, Listening>,
    /// Levels of requests that were answered, and when.
    logged: Vec<(Duration, Value)>,
    states: BTreeSet<String>,
    /// The server's side: its open requests with their methods, every id it ever saw, and its open questions.
    at_server: BTreeMap<String, String>,
    seen: BTreeSet<String>,
    questions: BTreeSet<String>,
    initialized: bool,
    greeted: bool,
    gone: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            machine: ModernClient::new(&Settings::default()),
            now: Duration::ZERO,
            next_id: 0,
            open: BTreeMap::new(),
            rounds: Vec::new(),
            listens: BTreeMap::new(),
            logged: Vec::new(),
            states: BTreeSet::new(),
            at_server: BTreeMap::new(),
            seen: BTreeSet::new(),
            questions: BTreeSet::new(),
            initialized: false,
            greeted: false,
            gone: false,
        }
    }

    pub(super) fn run(mut self, script: &mut Script<'_>) {
        for _ in 0..MAX_STEPS {
            if script.is_over() {
                break;
            }
            self.step(script);
        }
        self.end();
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..=3 => self.request(script),
            4 => self.retry(script),
            5 => self.cancel(script),
            6 => self.noise(script),
            7..=9 => self.answer(script),
            10..=12 => self.question(script),
            13 => self.notify(script),
            14 => self.withdraw(script),
            _ => self.wait(script),
        }
    }

    // ---- the client ----

    fn request(&mut self, script: &mut Script<'_>) {
        let method = script.pick(&METHODS);
        let params = match method {
            "tools/call" => json!({"name": "t", "arguments": {"n": script.below(3)}}),
            "prompts/get" => json!({"name": "p"}),
            "resources/read" => json!({"uri": "x:1"}),
            "subscriptions/listen" => {
                let uris: Vec<&str> = URIS.iter().copied().filter(|_| script.one_in(2)).collect();
                json!({"notifications": {"toolsListChanged": script.one_in(2), "resourceSubscriptions": uris}})
            }
            _ => json!({}),
        };
        let meta = meta(script);
        self.say(method, params, meta);
    }

    fn say(&mut self, method: &'static str, params: Value, meta: Value) {
        // Sometimes a string, as SDKs do for subscriptions.
        self.next_id += 1;
        let id = if self.next_id.is_multiple_of(3) { json!(format!("s{}", self.next_id)) } else { json!(self.next_id) };
        let mut line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        line["params"]["_meta"] = meta.clone();
        if method == "subscriptions/listen" {
            let filter = params["notifications"].clone();
            self.listens.insert(id.to_string(), Listening { filter, acknowledged: None });
        }
        self.open.insert(id.to_string(), Asked { method, params, meta });
        self.client_line(&line.to_string());
    }

    fn retry(&mut self, script: &mut Script<'_>) {
        if self.rounds.is_empty() {
            return;
        }
        let at = script.below(self.rounds.len());
        let round = if script.one_in(4) { self.rounds[at].clone() } else { self.rounds.swap_remove(at) };
        let mut params = round.asked.params.clone();
        params["requestState"] = json!(round.state);
        let mut answers = Map::new();
        for key in round.keys {
            if !script.one_in(4) {
                answers.insert(key, json!({"action": script.pick(&["accept", "decline"]), "content": {}, "roots": []}));
            }
        }
        params["inputResponses"] = Value::Object(answers);
        match script.below(12) {
            0 => params["requestState"] = json!("forged"),
            1 => params["inputResponses"] = json!([1]),
            2 => params["name"] = json!("another"),
            3 => drop(params.as_object_mut().expect("an object").remove("requestState")),
            _ => {}
        }
        let meta = if script.one_in(3) { meta(script) } else { round.asked.meta };
        self.say(round.asked.method, params, meta);
    }

    fn cancel(&mut self, script: &mut Script<'_>) {
        let ids: Vec<String> = self.open.keys().cloned().collect();
        let id =
            if ids.is_empty() || script.one_in(5) { "999999".to_owned() } else { ids[script.below(ids.len())].clone() };
        self.open.remove(&id);
        self.listens.remove(&id);
        self.client_line(&format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id}}}}}"
        ));
    }

    /// Lines that no good client writes. Each gives one error without an id, or nothing.
    fn noise(&mut self, script: &mut Script<'_>) {
        let line = script.pick(&[
            "{",
            "[]",
            "7",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}"#,
            r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-0-m1","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"tools/list"}"#,
        ]);
        self.client_line(line);
    }

    fn client_line(&mut self, line: &str) {
        let mut effects = Effects::default();
        self.machine.client_line(self.now, &Bytes::copy_from_slice(line.as_bytes()), &mut effects);
        self.check(effects);
    }

    // ---- the server ----

    fn server_line(&mut self, message: &Value, about: Option<&String>) {
        let mut message = message.clone();
        message["jsonrpc"] = json!("2.0");
        let line = Bytes::from(message.to_string());
        let mut effects = Effects::default();
        match about.and_then(|about| Id::from_json(about)) {
            Some(about) => self.machine.server_line_about(self.now, &about, line, &mut effects),
            None => self.machine.server_line(self.now, line, &mut effects),
        }
        self.check(effects);
    }

    fn some_request(&self, script: &mut Script<'_>) -> Option<String> {
        let ids: Vec<&String> = self.at_server.keys().collect();
        (!ids.is_empty()).then(|| ids[script.below(ids.len())].clone())
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let Some(id) = self.some_request(script) else { return };
        let method = self.at_server.remove(&id).expect("it is open");
        let number: Value = serde_json::from_str(&id).expect("an id");
        let capabilities = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}});
        let outcome = match (&*method, script.below(8)) {
            (_, 0) => json!({"error": {"code": script.pick(&[-32002, -32001, -32603, -32022, 5]), "message": "no"}}),
            ("initialize", _) => json!({"result": {"protocolVersion": "2025-11-25", "capabilities": capabilities}}),
            (_, 1) => json!({"error": {"code": -32042, "message": "go", "data": {"elicitations": [
                {"mode": "url", "message": "m", "url": "https://x/", "elicitationId": script.pick(&["e1", "e2"])}]}}}),
            (_, 2) => json!({"result": {"resultType": "odd", "_meta": {"a": 1}, "ttlMs": -1}}),
            _ => json!({"result": {"content": []}}),
        };
        let mut message = outcome;
        self.initialized |= method == "initialize" && message.get("result").is_some();
        message["id"] = number;
        self.server_line(&message, None);
    }

    fn question(&mut self, script: &mut Script<'_>) {
        let about = if script.one_in(4) { None } else { self.some_request(script) };
        let about = about.filter(|about| self.at_server[about] != "initialize");
        if !self.greeted {
            return;
        }
        self.next_id += 1;
        let id = format!("q{}", self.next_id);
        let mut message = match script.below(6) {
            0 => json!({"method": "roots/list"}),
            1 => json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1, "tools": []}}),
            2 => json!({"method": "elicitation/create", "params": {"mode": "url", "url": "u", "elicitationId": "e1"}}),
            3 => json!({"method": "ping"}),
            4 => json!({"method": "tasks/get", "params": {}}),
            _ => json!({"method": "elicitation/create", "params": {"message": "?"}}),
        };
        message["id"] = json!(id);
        self.questions.insert(json!(id).to_string());
        self.server_line(&message, about.as_ref());
    }

    fn withdraw(&mut self, script: &mut Script<'_>) {
        let ids: Vec<String> = self.questions.iter().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[script.below(ids.len())].clone();
        self.questions.remove(&id);
        let number: Value = serde_json::from_str(&id).expect("an id");
        self.server_line(&json!({"method": "notifications/cancelled", "params": {"requestId": number}}), None);
    }

    fn notify(&mut self, script: &mut Script<'_>) {
        let about = if script.one_in(3) { None } else { self.some_request(script) };
        let token = self.next_id.saturating_sub(script.below(8) as u64);
        let message = match script.below(6) {
            0 => json!({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}),
            1 => json!({"method": "notifications/message", "params": {"level": script.pick(&LEVELS), "data": 1}}),
            2 => json!({"method": "notifications/tools/list_changed"}),
            3 => json!({"method": "notifications/resources/updated", "params": {"uri": script.pick(&URIS)}}),
            4 => json!({"method": "notifications/elicitation/complete", "params": {"elicitationId": "e1"}}),
            _ => json!({"method": "notifications/com.example", "params": {}}),
        };
        self.server_line(&message, about.as_ref());
    }

    fn wait(&mut self, script: &mut Script<'_>) {
        let next = self.machine.next_deadline();
        self.now = match script.below(3) {
            0 => next.unwrap_or(self.now).max(self.now),
            1 => self.now + 10.ms(),
            _ => self.now + 20_000.ms(),
        };
        self.tick();
    }

    fn tick(&mut self) {
        let mut effects = Effects::default();
        self.machine.tick(self.now, &mut effects);
        self.check(effects);
        let next = self.machine.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "a deadline that has passed is not due again");
    }

    // ---- the promises ----

    fn check(&mut self, effects: Effects) {
        assert!(effects.wrong_era.is_none() && effects.settled.is_empty());
        // What the session is told first may be answered by what the client hears, never the other way round.
        for line in effects.to_session.into_iter().chain(effects.answers) {
            let value: Value = serde_json::from_slice(&line).expect("a line for the session is JSON");
            self.check_session(&value);
        }
        for line in effects.to_client {
            assert!(!line.contains(&b'\n'), "a line is one line");
            let value: Value = serde_json::from_slice(&line).expect("a line for the client is JSON");
            self.check_client(&value);
        }
    }

    fn check_session(&mut self, value: &Value) {
        let text = value.to_string();
        for word in ["io.modelcontextprotocol/", "inputResponses", "requestState", "server/discover", "subscriptions/"]
        {
            assert!(!text.contains(word), "a legacy server is not told {word}: {text}");
        }
        let method = value["method"].as_str().unwrap_or_default();
        let id = value.get("id").map(Value::to_string);
        match (method, id) {
            ("", Some(id)) => assert!(self.questions.remove(&id), "an answer to a question that is not open: {text}"),
            ("notifications/cancelled", None) => {
                let id = value["params"]["requestId"].to_string();
                assert!(self.at_server.remove(&id).is_some(), "only what is at the server is cancelled: {text}");
            }
            ("notifications/initialized", None) => {
                assert!(self.initialized || self.gone, "initialized before its time");
                self.greeted = true;
            }
            (_, Some(id)) => {
                assert!(method == "initialize" || self.greeted, "{method} before the session is open");
                assert!(self.seen.insert(id.clone()), "an id is used once: {text}");
                if let Some(token) = value["params"]["_meta"].get("progressToken") {
                    assert!(token.is_u64(), "a token is ours: {text}");
                }
                self.at_server.insert(id, method.to_owned());
            }
            (_, None) => panic!("nobody said this: {text}"),
        }
    }

    fn check_client(&mut self, value: &Value) {
        if let Some(method) = value["method"].as_str() {
            assert!(value.get("id").is_none(), "a modern server writes no requests: {value}");
            return self.check_notification(method, value);
        }
        let id = value["id"].to_string();
        if id == "null" {
            assert!(value["error"]["code"] == -32700 || value["error"]["code"] == -32600, "{value}");
            return;
        }
        let asked = self.open.remove(&id).unwrap_or_else(|| panic!("nobody waits for this: {value}"));
        self.listens.remove(&id);
        self.logged.push((self.now, asked.meta["io.modelcontextprotocol/logLevel"].clone()));
        if let Some(code) = value["error"]["code"].as_i64() {
            assert!(value["error"]["message"].is_string(), "{value}");
            let other_version = asked.meta["io.modelcontextprotocol/protocolVersion"] != "2026-07-28";
            let meant = code == -32021 || (code == -32022 && other_version);
            assert!(!matches!(code, -32099..=-32020) || meant, "a reserved code: {value}");
            assert!(code != -32002 && code != -32042, "a code of the other era: {value}");
            return;
        }
        let result = &value["result"];
        match result["resultType"].as_str() {
            Some("complete") => {
                let cached = matches!(asked.method, "tools/list" | "resources/read" | "server/discover");
                assert!(!cached || (result["ttlMs"].is_u64() && result["cacheScope"].is_string()), "{value}");
            }
            Some("input_required") => self.check_round(asked, result),
            _ => panic!("a result of no type: {value}"),
        }
    }

    fn check_round(&mut self, asked: Asked, result: &Value) {
        assert!(matches!(asked.method, "tools/call" | "prompts/get" | "resources/read"), "{result}");
        assert!(result.get("ttlMs").is_none());
        let able = &asked.meta["io.modelcontextprotocol/clientCapabilities"];
        let requests = result["inputRequests"].as_object().expect("questions");
        assert!(!requests.is_empty());
        for request in requests.values() {
            let declared = match request["method"].as_str().expect("a method") {
                "roots/list" => able.get("roots").is_some(),
                "sampling/createMessage" => able["sampling"].get("tools").is_some(),
                "elicitation/create" if request["params"]["mode"] == "url" => able["elicitation"].get("url").is_some(),
                "elicitation/create" => able.get("elicitation").is_some(),
                other => panic!("no question: {other}"),
            };
            assert!(declared, "the client did not declare {request} in {able}");
        }
        let state = result["requestState"].as_str().expect("a state").to_owned();
        assert!(self.states.insert(state.clone()), "a state is new");
        let mut asked = asked;
        if let Some(params) = asked.params.as_object_mut() {
            params.remove("requestState");
            params.remove("inputResponses");
        }
        self.rounds.push(Round { asked, state, keys: requests.keys().cloned().collect() });
    }

    fn check_notification(&mut self, method: &str, value: &Value) {
        let params = &value["params"];
        match method {
            "notifications/progress" => {
                let token = &params["progressToken"];
                assert!(self.open.values().any(|asked| asked.meta.get("progressToken") == Some(token)), "{value}");
            }
            "notifications/message" => {
                let rank = |level: &Value| LEVELS.iter().position(|word| level == word);
                let said = rank(&params["level"]);
                let wanted = |asked: &Asked| rank(&asked.meta["io.modelcontextprotocol/logLevel"]);
                let open = self.open.values().any(|asked| wanted(asked).is_some_and(|least| Some(least) <= said));
                let late = self.logged.iter().filter(|(when, _)| *when + 500.ms() > self.now);
                let late = late.filter_map(|(_, level)| rank(level)).any(|least| Some(least) <= said);
                assert!(open || late, "{value}");
            }
            "notifications/com.example" => {}
            _ => {
                let id = params["_meta"]["io.modelcontextprotocol/subscriptionId"].to_string();
                let listen = self.listens.get_mut(&id).unwrap_or_else(|| panic!("no such subscription: {value}"));
                if method == "notifications/subscriptions/acknowledged" {
                    assert!(listen.acknowledged.is_none(), "acknowledged once");
                    let filter = params["notifications"].clone();
                    for uri in filter["resourceSubscriptions"].as_array().into_iter().flatten() {
                        let wanted = listen.filter["resourceSubscriptions"].as_array().expect("a list");
                        assert!(wanted.contains(uri), "{value}");
                    }
                    listen.acknowledged = Some(filter);
                    return;
                }
                let filter = listen.acknowledged.as_ref().expect("the acknowledgement comes first");
                let honoured = match method {
                    "notifications/tools/list_changed" => filter["toolsListChanged"] == true,
                    _ => filter["resourceSubscriptions"].as_array().is_some_and(|uris| {
                        uris.iter().any(|uri| {
                            params["uri"].as_str().is_some_and(|it| it.starts_with(uri.as_str().expect("a text")))
                        })
                    }),
                };
                assert!(honoured, "{value} to {filter}");
            }
        }
    }

    /// stdin ends; the session answers what it has; then all is over.
    fn end(mut self) {
        self.gone = true;
        let mut effects = Effects::default();
        self.machine.client_gone(self.now, &mut effects);
        self.check(effects);
        while let Some((id, _)) = self.at_server.pop_first() {
            let number: Value = serde_json::from_str(&id).expect("an id");
            self.server_line(&json!({"id": number, "error": {"code": -32001, "message": "over"}}), None);
        }
        let mut effects = Effects::default();
        self.machine.finish(self.now, &mut effects);
        assert!(effects.to_session.is_empty(), "the session is over");
        self.check(effects);
        assert!(self.open.is_empty(), "without a response: {:?}", self.open);
        assert!(!self.machine.owes() && self.machine.next_deadline().is_none());
        assert!(self.machine.holds_nothing(), "{:?}", self.machine);
    }
}

fn meta(script: &mut Script<'_>) -> Value {
    let capabilities = [
        json!({}),
        json!({"elicitation": {}}),
        json!({"elicitation": {"url": {}, "form": {}}, "roots": {}}),
        json!({"sampling": {"tools": {}}, "roots": {}, "elicitation": {"form": {}}}),
        json!({"roots": {}}),
    ];
    let capabilities = &capabilities[script.below(5)];
    let mut meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    if script.one_in(3) {
        meta["progressToken"] = json!(script.below(3));
    }
    if script.one_in(3) {
        meta["io.modelcontextprotocol/logLevel"] = json!(script.pick(&LEVELS));
    }
    match script.below(24) {
        1 => meta["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01"),
        2 => drop(meta.as_object_mut().expect("an object").remove("io.modelcontextprotocol/clientCapabilities")),
        3 => meta["io.modelcontextprotocol/logLevel"] = json!("loud"),
        _ => {}
    }
    meta
}
