//! A legacy client towards a modern server (product section E, third row).
//!
//! Towards the client it is a server of the client's revision, towards the session a client of 2026-07-28: `initialize` is answered
//! from `server/discover`; every request gets its `_meta`; the change notifications come by one `subscriptions/listen` stream;
//! an `InputRequiredResult` becomes requests to the client, whose answers go with the request when it is sent again.
//!
//! A line with modern `_meta` is not the translator's business, nor is anything before the first `initialize`.
//!
//! The rooms: `hello.rs` opens and finds out when the server is legacy after all; `calls.rs` holds the requests; `questions.rs` asks
//! the client; `listen.rs` keeps the stream; `client.rs` knows the client, `results.rs` what its revision cannot read.

mod calls;
mod client;
mod hello;
mod listen;
mod questions;
mod results;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use self::calls::Calls;
use self::client::Client;
use self::hello::{Discovery, Phase};
use self::listen::Listen;
use super::Settings;
use super::translator::{Effects, Translator};
use crate::era;
use crate::message::{self, Id, Invalid, Message, Notification, Outcome, Parsed, Request, Response};
use crate::session::batch::{BatchId, Batches};
use crate::session::{Adopted, Level, MAX_PENDING, MAX_PENDING_BYTES};

/// Lines, and bytes of them, that wait for the answer to `server/discover`. Beyond it, stdin is not read (R8).
const MAX_HELD: usize = 4096;
const MAX_HELD_BYTES: usize = 64 << 20;

/// See the module's text.
#[derive(Debug)]
pub struct LegacyClient {
    settings: Settings,
    /// Counts ids of our own.
    last_id: u64,
    now: Duration,
    phase: Phase,
    client: Option<Client>,
    discovery: Option<Discovery>,
    /// What came before the client could be answered.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// The ids of the requests in `held`, in `doubted`, and of an `initialize` that waits.
    kept_ids: HashSet<Id>,
    calls: Calls,
    /// Lines of the client that the server refused as a legacy one would, until that is known.
    doubted: Vec<Bytes>,
    listen: Listen,
    batches: Batches,
    /// What an earlier run answered to `initialize`: the version that was asked for, and the result.
    remembered: Option<(String, String)>,
    signing_in: bool,
    /// stdin ended.
    leaving: bool,
}

impl LegacyClient {
    /// One that has heard nothing yet. `remembered` is the version that a client asked for in an earlier run, and the result of
    /// `initialize` that it got.
    pub fn new(settings: &Settings, remembered: Option<(String, String)>) -> Self {
        Self {
            settings: settings.clone(),
            last_id: 0,
            now: Duration::ZERO,
            phase: Phase::Fresh,
            client: None,
            discovery: None,
            held: VecDeque::new(),
            held_bytes: 0,
            kept_ids: HashSet::new(),
            calls: Calls::default(),
            doubted: Vec::new(),
            listen: Listen::default(),
            batches: Batches::default(),
            remembered,
            signing_in: false,
            leaving: false,
        }
    }

    /// Takes over a client that has a legacy session with this server, which is a modern one by now.
    pub fn adopt(&mut self, now: Duration, adopted: &Adopted, effects: &mut Effects) {
        self.now = now;
        self.take_over(adopted, effects);
    }

    /// An id for a request of our own.
    fn own_id(&mut self) -> Id {
        self.last_id += 1;
        Id::String(format!("mcp-drawbridge-{}-e{}", self.settings.nonce, self.last_id).into())
    }

    fn log(effects: &mut Effects, level: Level, text: impl Into<String>) {
        effects.log.push((level, text.into()));
    }

    // ---- the client's lines ----

    fn on_client_line(&mut self, line: &Bytes, effects: &mut Effects) {
        match message::parse(line) {
            Ok(Parsed::One(message)) => self.on_message(message, line.clone(), None, effects),
            Ok(Parsed::Batch(members)) => self.on_batch(line, &members, effects),
            Err(Invalid::NotMessage { id: Some(id), response: true, .. }) if self.calls.is_question(&id) => {
                self.answer_unusable(&id, "the client's answer is not a valid JSON-RPC message", effects);
                effects.to_client.push(message::error_response(
                    None,
                    message::INVALID_REQUEST,
                    "the answer is not a valid JSON-RPC message",
                    None,
                ));
            }
            Err(Invalid::NotMessage { id: Some(id), response: false, why }) if self.holds(&id) => {
                // The id belongs to a request that still waits.
                let text = format!("not a JSON-RPC 2.0 message: {why}");
                effects.to_client.push(message::error_response(None, message::INVALID_REQUEST, &text, None));
            }
            // The session says what is wrong with it.
            Err(_) => effects.to_session.push(line.clone()),
        }
    }

    /// Splits a batch (2025-03-26). Other clients get one line a response.
    fn on_batch(&mut self, line: &Bytes, members: &[&serde_json::value::RawValue], effects: &mut Effects) {
        if self.phase != Phase::Open {
            return match self.phase {
                Phase::Opening => self.hold(line.clone(), effects),
                _ => effects.to_session.push(line.clone()),
            };
        }
        if members.is_empty() {
            return effects.to_session.push(line.clone());
        }
        let parsed: Vec<_> =
            members.iter().map(|raw| (line.slice_ref(raw.get().as_bytes()), message::parse_one(raw.get()))).collect();
        let wants_answer = |message: &Result<Message<'_>, Invalid>| match message {
            Ok(Message::Request(request)) => era::modern_headers(&request.method, request.params).is_none(),
            Ok(_) => false,
            Err(_) => true,
        };
        let answers = parsed.iter().filter(|(_, member)| wants_answer(member)).count();
        let as_array = answers > 0 && self.client.as_ref().is_some_and(|client| client.version == era::BATCHING);
        let batch = as_array.then(|| self.batches.open(answers));
        for (text, member) in parsed {
            match member {
                Ok(Message::Request(request)) if request.method == "initialize" => {
                    let why = "initialize must not be part of a batch";
                    let refusal = message::error_response(Some(&request.id), message::INVALID_REQUEST, why, None);
                    self.respond(batch, refusal, effects);
                }
                Ok(message) => self.on_message(message, text, batch, effects),
                Err(_) => {
                    let why = "a member of the batch is not a JSON-RPC 2.0 message";
                    let refusal = message::error_response(None, message::INVALID_REQUEST, why, None);
                    self.respond(batch, refusal, effects);
                }
            }
        }
    }

    fn on_message(&mut self, message: Message<'_>, text: Bytes, batch: Option<BatchId>, effects: &mut Effects) {
        match message {
            Message::Request(request) => self.on_request(&request, text, batch, effects),
            Message::Notification(notification) => self.on_notification(&notification, text, effects),
            Message::Response(response) => self.on_answer(&response, &text, effects),
        }
    }

    fn on_request(&mut self, request: &Request<'_>, text: Bytes, batch: Option<BatchId>, effects: &mut Effects) {
        let modern = era::modern_headers(&request.method, request.params).is_some();
        if self.holds(&request.id) {
            let why = "another request with this id is still waiting for its response";
            let refusal = message::error_response(Some(&request.id), message::INVALID_REQUEST, why, None);
            return self.respond(batch, refusal, effects);
        }
        match (&*request.method, self.phase) {
            _ if modern => effects.to_session.push(text),
            ("initialize", _) => self.on_initialize(request, &text, effects),
            (_, Phase::Fresh) => effects.to_session.push(text),
            ("ping", _) => self.respond(batch, message::result_response(&request.id, "{}"), effects),
            (_, Phase::Opening) => self.hold(text, effects),
            (_, Phase::Open) => self.on_call(request, text, batch, effects),
        }
    }

    fn on_notification(&mut self, notification: &Notification<'_>, text: Bytes, effects: &mut Effects) {
        let modern = era::modern_headers(&notification.method, notification.params).is_some();
        match (&*notification.method, self.phase) {
            ("notifications/cancelled", Phase::Open) => self.on_cancelled(notification, text, effects),
            (_, Phase::Fresh) => effects.to_session.push(text),
            _ if modern => effects.to_session.push(text),
            (_, Phase::Opening) => self.hold(text, effects),
            ("notifications/initialized", _) => self.on_initialized(effects),
            // What the modern era has no counterpart for.
            ("notifications/roots/list_changed" | "notifications/progress", _) => {}
            _ => {
                if let Some(text) = self.translated(&text) {
                    effects.to_session.push(text);
                }
            }
        }
    }

    /// Keeps a line until the client can be answered.
    fn hold(&mut self, line: Bytes, effects: &mut Effects) {
        if self.held.len() >= MAX_HELD * 2 {
            // Read together with what filled the room: its requests get an answer, and that is all.
            let why = "too many messages came before initialize was answered";
            for id in message::request_ids(&line) {
                effects.to_client.push(message::error_response(Some(&id), message::BRIDGE_ERROR, why, None));
            }
            return;
        }
        self.held_bytes += line.len();
        self.kept_ids.extend(message::request_ids(&line));
        self.held.push_back(line);
    }

    fn release(&mut self, effects: &mut Effects) {
        for line in self.take_held() {
            self.on_client_line(&line, effects);
        }
    }

    fn take_held(&mut self) -> VecDeque<Bytes> {
        self.held_bytes = 0;
        let held = std::mem::take(&mut self.held);
        self.forget_ids(&held);
        held
    }

    fn doubt(&mut self, line: Bytes) {
        self.kept_ids.extend(message::request_ids(&line));
        self.doubted.push(line);
    }

    fn take_doubted(&mut self) -> Vec<Bytes> {
        let doubted = std::mem::take(&mut self.doubted);
        self.forget_ids(&doubted);
        doubted
    }

    fn forget_ids<'a>(&mut self, lines: impl IntoIterator<Item = &'a Bytes>) {
        for id in lines.into_iter().flat_map(|line| message::request_ids(line)) {
            self.kept_ids.remove(&id);
        }
    }

    /// Writes a response, or keeps it for its batch.
    fn respond(&mut self, batch: Option<BatchId>, response: Bytes, effects: &mut Effects) {
        let line = match batch {
            None => Some(response),
            Some(batch) => self.batches.add(batch, Some(response)),
        };
        effects.to_client.extend(line);
    }

    /// A member of a batch that has no response in its array.
    fn leave_batch(&mut self, batch: Option<BatchId>, effects: &mut Effects) {
        effects.to_client.extend(batch.and_then(|batch| self.batches.add(batch, None)));
    }

    // ---- the session's lines ----

    fn on_server_line(&mut self, line: Bytes, effects: &mut Effects) {
        let text = line.clone();
        let Ok(Parsed::One(message)) = message::parse(&text) else { return effects.to_client.push(line) };
        match message {
            Message::Response(Response { id: Some(id), outcome }) => self.on_response(&id, outcome, line, effects),
            Message::Notification(notification) if self.is_for_listen(&notification, effects) => {}
            _ => effects.to_client.push(line),
        }
    }

    fn on_response(&mut self, id: &Id, outcome: Outcome<'_>, line: Bytes, effects: &mut Effects) {
        if self.discovery.as_ref().is_some_and(|discovery| discovery.id.as_ref() == Some(id)) {
            self.on_discovered(outcome, &line, effects);
        } else if self.listen.is_ours(id) {
            self.on_stream_over(id, outcome, effects);
        } else if let Some(key) = self.calls.of_session(id) {
            self.on_outcome(key, outcome, line, effects);
        } else if !Self::is_own(id) {
            effects.to_client.push(line);
        }
    }

    /// An id of ours, perhaps of an earlier translator, which no client knows.
    fn is_own(id: &Id) -> bool {
        matches!(id, Id::String(text) if text.starts_with("mcp-drawbridge-"))
    }
}

impl Translator for LegacyClient {
    fn client_line(&mut self, now: Duration, line: &Bytes, effects: &mut Effects) {
        self.now = now;
        self.on_client_line(line, effects);
    }

    fn server_line(&mut self, now: Duration, line: Bytes, effects: &mut Effects) {
        self.now = now;
        self.on_server_line(line, effects);
    }

    fn refused(&mut self, now: Duration, line: Bytes, effects: &mut Effects) {
        self.now = now;
        self.on_refused(line, effects);
    }

    fn answer_lost(&mut self, now: Duration, id: &Id, effects: &mut Effects) -> bool {
        self.now = now;
        let ours = self.calls.is_question(id);
        if ours {
            self.answer_unusable(id, "the client's answer is larger than the bridge takes", effects);
        }
        ours
    }

    fn holds(&self, id: &Id) -> bool {
        self.calls.is_open(id) || self.is_subscriber(id) || self.kept_ids.contains(id)
    }

    fn signing_in(&mut self, now: Duration, pending: bool, effects: &mut Effects) {
        self.now = now;
        self.on_signing_in(pending, effects);
    }

    fn client_gone(&mut self, now: Duration, effects: &mut Effects) {
        self.now = now;
        self.leaving = true;
        self.fail_questions("the client left before it answered the server's question", effects);
        self.answer_subscribers(effects);
    }

    fn finish(&mut self, now: Duration, effects: &mut Effects) {
        self.now = now;
        self.leaving = true;
        self.answer_subscribers(effects);
        self.end_hello(effects);
        self.end_calls(effects);
    }

    fn tick(&mut self, now: Duration, effects: &mut Effects) {
        self.now = now;
        self.discovery_due(effects);
        self.pauses_due(effects);
        self.listen_due(effects);
    }

    fn next_deadline(&self) -> Option<Duration> {
        [self.discovery_deadline(), self.calls.next_deadline(), self.listen.next_deadline()].into_iter().flatten().min()
    }

    fn owes(&self) -> bool {
        self.is_opening() || !self.held.is_empty() || !self.doubted.is_empty() || self.calls.owes()
    }

    fn accepts_lines(&self) -> bool {
        self.held.len() < MAX_HELD
            && self.held_bytes < MAX_HELD_BYTES
            && self.calls.len() < MAX_PENDING
            && self.calls.bytes() < MAX_PENDING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const NOW: Duration = Duration::ZERO;

    /// Through with its handshake; `offers` are the server's capabilities.
    fn open(offers: &str) -> LegacyClient {
        let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
        say(
            &mut client,
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{}}}}"#,
        );
        let found = format!(
            r#"{{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","result":{{"supportedVersions":["2026-07-28"],"capabilities":{offers}}}}}"#
        );
        hear(&mut client, found);
        client
    }

    fn say(client: &mut LegacyClient, line: &str) -> Effects {
        let mut effects = Effects::default();
        client.client_line(NOW, &Bytes::copy_from_slice(line.as_bytes()), &mut effects);
        effects
    }

    fn hear(client: &mut LegacyClient, line: impl Into<Bytes>) -> Effects {
        let mut effects = Effects::default();
        client.server_line(NOW, line.into(), &mut effects);
        effects
    }

    fn text(line: &Bytes) -> &str {
        std::str::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn a_result_is_not_copied() {
        let mut client = open("{}");
        say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","content":[{{"type":"text","text":"{}"}}]}}}}"#,
            "x".repeat(1 << 20)
        );
        let line = Bytes::from(line);
        let heard = hear(&mut client, line.clone());
        assert_eq!(heard.to_client.len(), 1);
        assert_eq!(heard.to_client[0].as_ptr(), line.as_ptr(), "the same bytes");
    }

    #[test]
    fn what_the_discovery_says_more_is_in_the_answer_to_initialize() {
        let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
        say(
            &mut client,
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
        );
        let found = r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}},"instructions":"\u0041","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"},"x":1e400},"a/b":{"c":1.0}}}"#;
        let heard = hear(&mut client, found);
        assert_eq!(
            text(&heard.to_client[0]),
            r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"},"resultType":"complete","capabilities":{"tools":{},"extensions":{"a/b":{}}},"instructions":"\u0041","_meta":{"x":1e400},"a/b":{"c":1.0}}}"#
        );
    }

    #[test]
    fn a_client_is_answered_although_the_server_wants_a_sign_in_first() {
        let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
        say(&mut client, r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
        let mut effects = Effects::default();
        client.signing_in(NOW, true, &mut effects);
        assert!(effects.to_client.is_empty(), "the truth may come in time");
        let heard = hear(
            &mut client,
            r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","error":{"code":-32001,"message":"sign in","data":{"source":"mcp-drawbridge","kind":"sign-in"}}}"#,
        );
        let answer = text(&heard.to_client[0]);
        assert!(answer.contains(r#""id":0,"result":{"protocolVersion":"2025-06-18""#), "{answer}");
        let mut effects = Effects::default();
        client.tick(Duration::from_secs(1), &mut effects);
        assert!(text(&effects.to_session[0]).contains("server/discover"), "and the truth is asked for again");
    }

    #[test]
    fn the_state_goes_back_to_the_byte() {
        let mut client = open("{}");
        say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
        let state = r#""\u0041\/ \ud83d\ude00 é""#;
        let asked = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","requestState":{state},"inputRequests":{{"\u0061":{{"method":"roots/list"}}}}}}}}"#
        );
        let question = hear(&mut client, asked).to_client.pop().expect("a question");
        assert!(text(&question).contains(r#""method":"roots/list""#));
        let again =
            say(&mut client, r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e2","result":{"roots":[{"n":1e400}]}}"#);
        let again = text(&again.to_session[0]);
        assert!(again.contains(&format!("\"requestState\":{state}")), "{again}");
        assert!(again.contains(r#""inputResponses":{"a":{"roots":[{"n":1e400}]}}"#), "{again}");
    }

    #[test]
    fn lines_that_wait_are_bounded() {
        let mut client = LegacyClient::new(&Settings::default(), None);
        say(&mut client, r#"{"jsonrpc":"2.0","id":"i","method":"initialize"}"#);
        for id in 0..MAX_HELD {
            assert!(client.accepts_lines());
            say(&mut client, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#));
        }
        assert!(!client.accepts_lines());
        for id in MAX_HELD..2 * MAX_HELD {
            say(&mut client, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#));
        }
        let over = say(&mut client, r#"{"jsonrpc":"2.0","id":"over","method":"tools/list"}"#);
        assert!(text(&over.to_client[0]).contains("\"over\""));
        let mut effects = Effects::default();
        client.finish(NOW, &mut effects);
        assert_eq!(effects.to_client.len(), 2 * MAX_HELD + 1, "each gets an answer");
        assert!(client.accepts_lines());

        let mut client = LegacyClient::new(&Settings::default(), None);
        say(&mut client, r#"{"jsonrpc":"2.0","id":"i","method":"initialize"}"#);
        say(
            &mut client,
            &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":"{}"}}}}"#, "x".repeat(MAX_HELD_BYTES)),
        );
        assert!(!client.accepts_lines());
    }

    #[test]
    fn questions_of_one_round_are_bounded() {
        for (count, fine) in [(64, true), (65, false)] {
            let mut client = open("{}");
            say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
            let mut questions = String::new();
            for n in 0..count {
                let _ = write!(questions, "{}\"q{n}\":{{\"method\":\"roots/list\"}}", if n == 0 { "" } else { "," });
            }
            let asked = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{{questions}}}}}}}"#
            );
            let heard = hear(&mut client, asked).to_client;
            assert_eq!(heard.len(), if fine { count } else { 1 });
            assert_eq!(text(&heard[0]).contains("\"error\""), !fine);
        }
    }

    #[test]
    fn subscriptions_are_bounded_in_number_and_size() {
        let mut client = open(r#"{"resources":{"subscribe":true}}"#);
        let subscribe = |client: &mut LegacyClient, id: usize, uri: &str| {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#);
            say(client, &line).to_client.iter().any(|line| text(line).contains("-32602"))
        };
        assert!(subscribe(&mut client, 1, &"x".repeat(16 * 1024 + 1)));
        for n in 0..1000 {
            assert!(!subscribe(&mut client, 10 + n, &format!("a:{n}")));
        }
        assert!(subscribe(&mut client, 2, "a:one-more"));
    }
}
