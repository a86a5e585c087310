//! A legacy client towards a modern server (product section E, third row).
//!
//! Towards the client it is a server of the client's revision, towards the session a client of 2026-07-28: `initialize` is answered
//! from `server/discover`; every request gets its `_meta`; the change notifications come by one `subscriptions/listen` stream;
//! an `InputRequiredResult` becomes requests to the client, whose answers go with the request when it is sent again.
//!
//! A line with modern `_meta` is not the translator's business, nor is anything before the first `initialize`.
//!
//! The rooms: `hello.rs` opens and finds out when the server is legacy after all, `sign_in.rs` while nobody is signed in; `calls.rs`
//! holds the requests; `questions.rs` asks the client; `listen.rs` keeps the stream; `client.rs` knows the client, `results.rs` what its
//! revision cannot read.

mod calls;
mod client;
mod hello;
mod listen;
mod questions;
mod results;
mod sign_in;

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
use crate::session::{Adopted, Level, MAX_PENDING, MAX_PENDING_BYTES, SignIn};

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
    /// A person is asked to sign in, or was at some time.
    signing_in: bool,
    person_asked: bool,
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
            person_asked: false,
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

    fn signing_in(&mut self, now: Duration, news: &SignIn, effects: &mut Effects) {
        self.now = now;
        self.on_signing_in(news, effects);
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
            && self.listen.waiting() < listen::MAX_SUBSCRIBERS
    }
}

#[cfg(test)]
mod tests;
