//! A legacy client, the eras between, and a server that is modern, legacy, now this and now that, or out of its mind.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::assert_one_line;
use super::script::{Milliseconds as _, Script, VERSIONS};
use super::world::{Count, parse_id};
use crate::era::Era;
use crate::eras::{Eras, Protocol, Settings};
use crate::message::{self, Id, Message, Parsed};
use crate::session::{
    self, Action, Content, ExchangeId, Failure, FailureKind, Head, Input, Memory, Outgoing, Remembered, Session, Verb,
};
use crate::sse;

/// Actions that one input may cause. Scripts have few messages in flight.
const MAX_ACTIONS: usize = 2000;
/// Steps of a second in which an honest server, or the end, settles everything.
const SETTLED: usize = 300;
/// Set `TRACE=1` when building to see a script as a dialogue.
const TRACE: bool = option_env!("TRACE").is_some();

#[derive(Debug)]
struct Running {
    verb: Verb,
    id: Option<Value>,
    method: String,
    modern: bool,
    open: bool,
}

#[derive(Debug)]
pub(super) struct World {
    eras: Eras,
    now: Duration,
    /// What the server is at this time.
    server: Era,
    ids: BTreeMap<String, Count>,
    cancelled: Vec<String>,
    last_id: u64,
    running: BTreeMap<ExchangeId, Running>,
    /// Questions that the client has not answered.
    asked: Vec<String>,
    leaving: bool,
    exited: bool,
    honest_end: bool,
}

impl World {
    pub(super) fn new(script: &mut Script<'_>) -> Self {
        let (protocol, refuses) = script.pick(&[
            (Protocol::Modern, None),
            (Protocol::Auto, None),
            (Protocol::Auto, Some(Era::Legacy)),
            (Protocol::Auto, Some(Era::Modern)),
        ]);
        let version = script.pick(&VERSIONS);
        let result = json!({"protocolVersion": version, "capabilities": {}}).to_string();
        let memory = refuses.map(|_| Memory {
            transport: Remembered::StreamableHttp,
            requested: version.into(),
            result,
            refuses,
        });
        let of_session = session::Settings { nonce: "n0nce".into(), ..session::Settings::default() };
        let settings = Settings { protocol, nonce: "n0nce".into(), max_rounds: 3, ..Settings::default() };
        let mut world = Self {
            eras: Eras::new(settings, Session::new(of_session, memory)),
            now: Duration::ZERO,
            server: script.pick(&[Era::Modern, Era::Modern, Era::Legacy]),
            ids: BTreeMap::new(),
            cancelled: Vec::new(),
            last_id: 0,
            running: BTreeMap::new(),
            asked: Vec::new(),
            leaving: false,
            exited: false,
            honest_end: script.one_in(2),
        };
        if !script.one_in(4) {
            world.initialize(script);
            world.serve_all();
            world.line(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        }
        world
    }

    /// One choice of the script. False at its end.
    pub(super) fn step(&mut self, script: &mut Script<'_>) -> bool {
        if script.is_over() || self.exited {
            return false;
        }
        match script.below(16) {
            0..=4 => self.client(script),
            5..=10 => self.serve(script),
            11 => self.serve_all(),
            12 | 13 => {
                self.now = match script.below(4) {
                    0 | 1 => self.eras.next_deadline().unwrap_or(self.now).max(self.now),
                    2 => self.now + 300.ms(),
                    _ => self.now + 30_000.ms(),
                };
                self.input(Input::Tick);
            }
            14 => self.too_long(script),
            _ => match script.below(8) {
                0 => self.leave(Input::ClientGone),
                1 => self.leave(Input::Terminate),
                2 | 3 => self.server = if self.server == Era::Modern { Era::Legacy } else { Era::Modern },
                _ => self.input(Input::Woke),
            },
        }
        true
    }

    /// Everything must come to an end.
    pub(super) fn end(mut self) {
        if self.honest_end && !self.leaving {
            for _ in 0..SETTLED {
                self.serve_all();
                for id in std::mem::take(&mut self.asked) {
                    self.line(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"action\":\"cancel\"}}}}"));
                }
                self.now += 1000.ms();
                self.input(Input::Tick);
            }
            self.assert_answered("an honest server answers everything");
        }
        if !self.leaving {
            self.leave(Input::ClientGone);
        }
        for _ in 0..SETTLED {
            if self.exited {
                break;
            }
            self.now += 1000.ms();
            self.input(Input::Tick);
        }
        assert!(self.exited, "the bridge leaves");
        self.assert_answered("at the end everything is answered");
    }

    fn assert_answered(&self, when: &str) {
        for (id, count) in &self.ids {
            let late = self.cancelled.contains(id);
            assert!(count.got == count.wanted || (late && count.got <= count.wanted), "{when}: {id} {count:?}");
        }
    }

    // ---- the client ----

    fn client(&mut self, script: &mut Script<'_>) {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let uri = script.pick(&["a:1", "b:2", "c:3"]);
        match script.below(20) {
            0 => self.initialize(script),
            1 => self.line(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string()),
            2..=5 => self.request(script, "tools/call", r#""name":"t","arguments":{"r":"x"}"#),
            6 => self.request(script, "tools/list", ""),
            7 => self.request(script, "resources/subscribe", &format!("\"uri\":\"{uri}\"")),
            8 => self.request(script, "resources/unsubscribe", &format!("\"uri\":\"{uri}\"")),
            9 => self.request(script, "logging/setLevel", r#""level":"error""#),
            10 => self.request(script, "ping", ""),
            11 => self.request(script, "tools/call", &format!("\"name\":\"t\",{meta}")),
            12 => self.request(script, "server/discover", meta),
            13 | 14 => self.answer(script),
            15 => {
                if let Some(id) = self.some_id(script) {
                    self.cancelled.push(id.clone());
                    self.line(format!(
                        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id}}}}}"
                    ));
                }
            }
            16 => self.line(script.pick(&["{", "{\"jsonrpc\":\"2.0\"}", "[]", "5", "[{}]"]).to_owned()),
            17 => {
                let members: Vec<String> =
                    (0..=script.below(3)).map(|_| self.text_of_request(script, "prompts/list", "")).collect();
                self.line(format!("[{}]", members.join(",")));
            }
            18 => self.line(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}).to_string()),
            _ => self.request(script, "tasks/list", ""),
        }
    }

    fn initialize(&mut self, script: &mut Script<'_>) {
        let version = script.pick(&VERSIONS);
        let capabilities = script.pick(&["{}", r#"{"elicitation":{},"sampling":{},"roots":{}}"#]);
        self.request(
            script,
            "initialize",
            &format!(
                "\"protocolVersion\":\"{version}\",\"capabilities\":{capabilities},\"clientInfo\":{{\"name\":\"c\"}}"
            ),
        );
    }

    fn request(&mut self, script: &mut Script<'_>, method: &str, params: &str) {
        let text = self.text_of_request(script, method, params);
        self.line(text);
    }

    fn text_of_request(&mut self, script: &mut Script<'_>, method: &str, params: &str) -> String {
        let used = if script.one_in(10) { self.some_id(script) } else { None };
        let id = used.unwrap_or_else(|| {
            self.last_id += 1;
            if self.last_id.is_multiple_of(2) { self.last_id.to_string() } else { format!("\"s{}\"", self.last_id) }
        });
        if !self.exited {
            self.ids.entry(id.clone()).or_default().wanted += 1;
        }
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}}}}}")
    }

    fn some_id(&self, script: &mut Script<'_>) -> Option<String> {
        let ids: Vec<&String> = self.ids.keys().collect();
        ids.get(script.below(ids.len())).map(|id| (*id).clone())
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if self.asked.is_empty() {
            return;
        }
        let at = script.below(self.asked.len());
        let id = self.asked.swap_remove(at);
        let outcome = script.pick(&[
            r#""result":{"action":"accept","content":{}}"#,
            r#""error":{"code":-1,"message":"no"}"#,
            r#""result":{},"error":{}"#,
        ]);
        if script.one_in(8) {
            let input = Input::TooLong { id: Some(parse_id(&id)), is_request: false, length: 1 << 30, limit: 1 << 20 };
            return self.input(input);
        }
        self.line(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{outcome}}}"));
    }

    fn too_long(&mut self, script: &mut Script<'_>) {
        if self.leaving {
            return;
        }
        self.last_id += 1;
        let id = self.last_id.to_string();
        let id = self.some_id(script).filter(|_| script.one_in(2)).unwrap_or(id);
        // One that is in use stays with its request, unless that is answered and only waits for the rest of its batch.
        let waits = self.ids.get(&id).is_some_and(|count| count.got < count.wanted);
        if waits || self.eras.session().is_known(&parse_id(&id)) {
            return;
        }
        self.ids.entry(id.clone()).or_default().wanted += 1;
        self.input(Input::TooLong { id: Some(parse_id(&id)), is_request: true, length: 1 << 30, limit: 1 << 20 });
    }

    fn line(&mut self, text: String) {
        if self.leaving {
            // Nobody says anything any more.
            if let Ok(Parsed::One(Message::Request(request))) = message::parse(text.as_bytes())
                && let Some(count) = self.ids.get_mut(&request.id.to_json())
            {
                count.wanted -= 1;
            } else if let Ok(Parsed::Batch(_)) = message::parse(text.as_bytes()) {
                for id in message::request_ids(text.as_bytes()) {
                    self.ids.get_mut(&id.to_json()).expect("it was counted").wanted -= 1;
                }
            }
            return;
        }
        self.input(Input::Line(text.into()));
    }

    fn leave(&mut self, how: Input) {
        self.leaving = true;
        self.input(how);
    }

    // ---- the server ----

    /// An exchange, and something that comes back for it.
    fn serve(&mut self, script: &mut Script<'_>) {
        let running: Vec<ExchangeId> = self.running.keys().copied().collect();
        let Some(&exchange) = running.get(script.below(running.len())) else { return };
        let Some(one) = self.running.get(&exchange) else { return };
        let id = one.id.clone().unwrap_or(Value::Null);
        let error = |code: i64| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no", "data": {"supported": ["2026-07-28"]}}});
        let method = script.pick(&["elicitation/create", "sampling/createMessage", "roots/list", "x/y"]);
        let question = json!({"method": method, "params": {"message": "m"}});
        let required = match script.below(4) {
            0 => json!({"resultType": "input_required", "requestState": "s"}),
            1 => json!({"resultType": "input_required"}),
            2 => {
                json!({"resultType": "input_required", "inputRequests": {"a": question, "b": {"method": "roots/list"}}})
            }
            _ => json!({"resultType": "input_required", "inputRequests": {"a": question}, "requestState": "s"}),
        };
        let body = match script.below(12) {
            0..=2 => json!({"jsonrpc": "2.0", "id": id, "result": required}),
            3 => error(script.pick(&[-32022, -32020, -32021])),
            4 => error(script.pick(&[-32601, -32602, -32603, -32000])),
            5 => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
            6 => json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "odd"}}),
            7 => json!("no message"),
            8 => json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:1"}}),
            9 => {
                json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": id}, "notifications": {"resourceSubscriptions": ["a:1"]}}})
            }
            10 => json!({"jsonrpc": "2.0", "id": "mcp-drawbridge-n0nce-e1", "result": {}}),
            _ => return self.serve_honestly(exchange),
        };
        match script.below(10) {
            0..=3 => self.reply(exchange, script.pick(&[200, 200, 400, 404]), &body),
            4..=6 => self.event(exchange, &body),
            7 => {
                self.running.remove(&exchange);
                self.input(Input::Ended { exchange, failure: None });
            }
            8 => {
                self.running.remove(&exchange);
                let kind = script.pick(&[FailureKind::Connect, FailureKind::Cut, FailureKind::Timeout]);
                let failure = Failure { kind, unsent: kind == FailureKind::Connect, message: "x".into(), hint: None };
                self.input(Input::Failed { exchange, failure });
            }
            _ => self.reply(exchange, script.pick(&[400, 404, 405, 500, 503, 429, 202]), &json!("Bad")),
        }
    }

    fn serve_all(&mut self) {
        for _ in 0..20 {
            let waiting: Vec<ExchangeId> = self
                .running
                .iter()
                .filter(|(_, one)| !(one.open && one.method == "subscriptions/listen"))
                .map(|(id, _)| *id)
                .collect();
            if waiting.is_empty() {
                return;
            }
            for exchange in waiting {
                self.serve_honestly(exchange);
            }
        }
    }

    /// What a server of this era answers.
    fn serve_honestly(&mut self, exchange: ExchangeId) {
        let Some(one) = self.running.get(&exchange) else { return };
        if one.verb != Verb::Post {
            return self.reply(exchange, 405, &json!("no"));
        }
        let Some(id) = one.id.clone() else { return self.reply(exchange, 202, &Value::Null) };
        let refusal = |code: i64| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "session required", "data": {"supported": ["2026-07-28"]}}});
        let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        match (self.server, one.modern, one.method.as_str()) {
            (Era::Modern, false, _) => self.reply(exchange, 400, &refusal(-32022)),
            // The SDK of both eras, told to serve the older one, names the versions that are left.
            (Era::Legacy, true, "server/discover") => {
                let versions = json!({"supported": ["2025-06-18", "2025-11-25"]});
                let error = json!({"code": -32022, "message": "no", "data": versions});
                self.reply(exchange, 400, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
            (Era::Legacy, true, _) => self.reply(exchange, 400, &refusal(-32000)),
            (Era::Modern, true, "subscriptions/listen") => {
                let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": id}, "notifications": {"resourceSubscriptions": ["a:1", "b:2", "c:3"]}}});
                self.event(exchange, &ack);
            }
            (_, _, "server/discover") => {
                let capabilities =
                    json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}});
                let found = result(
                    json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities}),
                );
                self.reply(exchange, 200, &found);
            }
            (_, _, "initialize") => {
                self.reply(
                    exchange,
                    200,
                    &result(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}})),
                );
            }
            (Era::Modern, ..) => self.reply(exchange, 200, &result(json!({"resultType": "complete", "tools": []}))),
            (Era::Legacy, ..) => self.reply(exchange, 200, &result(json!({"tools": []}))),
        }
    }

    fn reply(&mut self, exchange: ExchangeId, status: u16, body: &Value) {
        let open = self.running.get(&exchange).is_some_and(|one| one.open);
        if open {
            self.event(exchange, body);
            if self.running.remove(&exchange).is_some() {
                self.input(Input::Ended { exchange, failure: None });
            }
            return;
        }
        self.running.remove(&exchange);
        let content = if body.is_object() { Content::Json } else { Content::Other("text/plain".into()) };
        let head = Head { status, content, session_id: Some(Ok("s".into())), retry_after: None };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.input(Input::Answer { exchange, head, body });
    }

    fn event(&mut self, exchange: ExchangeId, data: &Value) {
        let Some(one) = self.running.get_mut(&exchange) else { return };
        if one.verb != Verb::Post {
            return;
        }
        if !std::mem::replace(&mut one.open, true) {
            let head = Head { status: 200, content: Content::EventStream, session_id: None, retry_after: None };
            self.input(Input::Opened { exchange, head });
        }
        if self.running.contains_key(&exchange) {
            let event = sse::Event { name: None, data: data.to_string().into(), id: None, retry: None };
            self.input(Input::Events { exchange, events: vec![event] });
        }
    }

    // ---- what must be true ----

    fn input(&mut self, input: Input) {
        if self.exited {
            return;
        }
        if TRACE {
            eprintln!("{:?} {input:?}", self.now);
        }
        let mut actions = Vec::new();
        self.eras.handle(self.now, input, &mut actions);
        assert!(actions.len() <= MAX_ACTIONS, "{} actions for one input", actions.len());
        for action in actions {
            if TRACE {
                eprintln!("    {action:?}");
            }
            assert!(!self.exited, "nothing is done after the end: {action:?}");
            match action {
                Action::Write(line) | Action::WriteAbout(_, line) => self.written(&line),
                Action::Start(exchange, outgoing) => self.started(exchange, &outgoing),
                Action::Abort(exchange) => {
                    assert!(self.running.remove(&exchange).is_some(), "only what runs is aborted");
                }
                Action::Exit => self.exited = true,
                Action::SignIn(_) | Action::Remember(_) | Action::Log(..) => {}
            }
        }
        if let Some(deadline) = self.eras.next_deadline() {
            assert!(deadline > self.now, "no deadline is left behind");
        }
    }

    fn written(&mut self, line: &Bytes) {
        assert_one_line(line);
        match message::parse(line).expect("the client is sent messages") {
            Parsed::One(message) => self.heard(&message),
            Parsed::Batch(members) => {
                for member in members {
                    self.heard(&message::parse_one(member.get()).expect("a message in an array"));
                }
            }
        }
    }

    fn heard(&mut self, message: &Message<'_>) {
        match message {
            Message::Response(response) => {
                let Some(id) = &response.id else { return };
                let count = self.ids.get_mut(&id.to_json());
                let count = count.unwrap_or_else(|| panic!("a response to {id}, which nobody asked"));
                count.got += 1;
                assert!(count.got <= count.wanted, "one response too many for {id}");
            }
            Message::Request(request) => {
                let id = request.id.to_json();
                assert!(!self.asked.contains(&id), "two questions with one id");
                self.asked.push(id);
            }
            Message::Notification(notification) if notification.method == "notifications/cancelled" => {
                let params: Value =
                    notification.params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
                let id = params.get("requestId").map(ToString::to_string).unwrap_or_default();
                self.asked.retain(|open| *open != id);
            }
            Message::Notification(_) => {}
        }
    }

    fn started(&mut self, exchange: ExchangeId, outgoing: &Outgoing) {
        let mut running = Running {
            verb: outgoing.verb,
            id: None,
            method: String::new(),
            modern: outgoing.modern.is_some(),
            open: false,
        };
        if outgoing.verb == Verb::Post {
            assert_one_line(&message::one_line(outgoing.body.clone()));
            let Ok(Parsed::One(message)) = message::parse(&outgoing.body) else { panic!("one message a POST") };
            if let Message::Request(request) = &message {
                running.id = Some(id_value(&request.id));
                running.method = request.method.to_string();
            }
        }
        self.running.insert(exchange, running);
    }
}

fn id_value(id: &Id) -> Value {
    serde_json::from_str(&id.to_json()).expect("an id is JSON")
}
