//! What the server says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::gone::{rpc_code, says_session_gone};
use super::pending::{Key, Origin, Pending};
use super::trouble::{MAX_QUOTE, Trouble, printable};
use super::{ExchangeId, Level, Purpose, Session};
use crate::message::{self, Id, Invalid, Message, Notification, Outcome, Parsed, Request, Response};
use crate::sse::{Event, IdChange};

/// Requests of the server that the client has not answered yet. The oldest are forgotten: some clients never answer some.
const MAX_SERVER_REQUESTS: usize = 4096;
/// How long a stream may stay open after it gave its answer, so that its connection can be used again.
const LINGER: Duration = Duration::from_secs(2);
/// Bounds on the server's reconnection time (`retry:`): it is honoured between them.
const RETRY_FLOOR: Duration = Duration::from_millis(100);
const RETRY_CEILING: Duration = Duration::from_secs(60);

/// Requests of the server that wait for the client.
#[derive(Debug, Default)]
pub(super) struct ServerRequests {
    open: HashMap<Id, ServerRequest>,
    /// The ids of `open` in the order of their arrival.
    order: BTreeMap<u64, Id>,
    /// The client's name for each id of the server that was renamed.
    aliases: HashMap<Id, Id>,
    arrived: u64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct ServerRequest {
    /// The server's own id, where the client was given another because the same one was still open.
    pub(super) original: Option<Id>,
    pub(super) generation: u32,
    arrival: u64,
}

impl ServerRequests {
    /// A request came. Gives the id that the client shall see, if it must be another.
    /// `taken`: a question of ours bears this id.
    fn add(&mut self, id: &Id, generation: u32, nonce: &str, taken: bool) -> Option<Id> {
        if self.open.len() >= MAX_SERVER_REQUESTS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.take(&oldest);
        }
        self.arrived += 1;
        let renamed = (taken || self.open.contains_key(id))
            .then(|| Id::String(format!("mcp-drawbridge-{nonce}-s{}", self.arrived).into()));
        if let Some(alias) = &renamed {
            self.aliases.insert(id.clone(), alias.clone());
        }
        let client_id = renamed.as_ref().unwrap_or(id).clone();
        let original = renamed.is_some().then(|| id.clone());
        self.order.insert(self.arrived, client_id.clone());
        self.open.insert(client_id, ServerRequest { original, generation, arrival: self.arrived });
        renamed
    }

    /// The client's answer came, or is not wanted any more.
    pub(super) fn take(&mut self, client_id: &Id) -> Option<ServerRequest> {
        let known = self.open.remove(client_id)?;
        self.order.remove(&known.arrival);
        if let Some(original) = &known.original
            && self.aliases.get(original) == Some(client_id)
        {
            self.aliases.remove(original);
        }
        Some(known)
    }

    /// The client knows a question by this id.
    pub(super) fn is_open(&self, client_id: &Id) -> bool {
        self.open.contains_key(client_id)
    }

    /// All of them, when their session is gone.
    fn drain(&mut self) -> Vec<Id> {
        self.open.clear();
        self.aliases.clear();
        std::mem::take(&mut self.order).into_values().collect()
    }

    /// The id that the client knows for the server's id; of several, the last.
    fn client_id(&self, server_id: &Id) -> Option<Id> {
        let alias = self.aliases.get(server_id);
        alias.or_else(|| self.open.contains_key(server_id).then_some(server_id)).cloned()
    }
}

/// Where a message of the server came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// The answer to a request.
    Answer(Key),
    /// A stream that belongs to no request.
    Stream,
    /// A stream that gave its answer already: what else it answers, nobody asked.
    Spent,
}

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

/// What can be read of an error that is none.
#[derive(Deserialize)]
struct ErrorWords {
    message: Option<String>,
}

impl Session {
    pub(super) fn on_events(&mut self, exchange: ExchangeId, events: Vec<Event>) {
        for event in events {
            self.on_event(exchange, event);
        }
    }

    fn on_event(&mut self, exchange: ExchangeId, event: Event) {
        let retry = event.retry.map(|ms| Duration::from_millis(ms).clamp(RETRY_FLOOR, RETRY_CEILING));
        let is_message =
            event.name.as_deref().is_none_or(|name| name == "message") && !event.data.trim_ascii().is_empty();
        let mut from = Source::Stream;
        match self.exchanges.get(&exchange) {
            None => return,
            Some(Purpose::Request(key) | Purpose::Resume(key)) => {
                from = Source::Answer(*key);
                if let Some(pending) = self.pending.get_mut(key) {
                    pending.stream_spoke = true;
                    if is_message {
                        pending.idle_streams = 0;
                    }
                    pending.retry = retry.or(pending.retry);
                    match event.id {
                        Some(IdChange::Set(id)) => pending.last_event_id = Some(id),
                        Some(IdChange::Clear) => pending.last_event_id = None,
                        None => {}
                    }
                }
            }
            Some(Purpose::Listen) => self.link.listen.heard(event.id, retry, is_message),
            Some(Purpose::SseStream) => {
                if event.name.as_deref() == Some("endpoint") {
                    return self.on_endpoint(exchange, &event.data);
                }
            }
            Some(Purpose::Tail) => from = Source::Spent,
            Some(_) => {}
        }
        // Other event types are not MCP's; an event without data only carries an id or a reconnection time.
        if is_message {
            self.server_text(from, event.data);
        }
    }

    /// One text from the server: a message or a batch. False if it is neither;
    /// then nobody waits for it, except a request whose answer it seems to be.
    pub(super) fn server_text(&mut self, from: Source, text: Bytes) -> bool {
        self.last_activity = self.now;
        let bytes = text.clone();
        match message::parse(&bytes) {
            Ok(Parsed::One(message)) => self.server_message(from, message, text),
            Ok(Parsed::Batch(members)) => {
                for raw in members {
                    let text = text.slice_ref(raw.get().as_bytes());
                    match message::parse_one(raw.get()) {
                        Ok(message) => self.server_message(from, message, text),
                        Err(invalid) => self.server_nonsense(from, &invalid, &text),
                    }
                }
            }
            Err(invalid) => {
                self.server_nonsense(from, &invalid, &text);
                return false;
            }
        }
        true
    }

    /// No message. If it was meant as the answer to a request, no other will come.
    fn server_nonsense(&mut self, from: Source, invalid: &Invalid, text: &Bytes) {
        let has = |word: &[u8]| memchr::memmem::find(text, word).is_some();
        let (id, response) = match invalid {
            Invalid::NotMessage { id, response, .. } => (id.clone(), *response),
            // The damage may be confined to one string.
            Invalid::NotJson => match message::parse_one(String::from_utf8_lossy(text).trim()) {
                Ok(Message::Response(response)) => (response.id, true),
                Ok(_) => (None, false),
                Err(_) => (None, (has(b"\"result\"") || has(b"\"error\"")) && !has(b"\"method\"")),
            },
        };
        self.log(Level::Warn, "dropped something from the server that is not a JSON-RPC message");
        if !response {
            return;
        }
        let key = self.asker(from, id.as_ref());
        if let Some(key) = key {
            self.fail(key, &Trouble::new("bad-json", "the server's answer is not a valid JSON-RPC message"));
        }
    }

    fn server_message(&mut self, from: Source, message: Message<'_>, text: Bytes) {
        match message {
            Message::Response(response) => self.server_response(from, &response, text),
            Message::Request(request) => self.server_request(from, &request, text),
            Message::Notification(notification) => {
                let acknowledged = notification.method == "notifications/subscriptions/acknowledged";
                self.server_notification(from, &notification, text);
                if let (true, Source::Answer(key)) = (acknowledged, from) {
                    self.subscriber_is_ready(key);
                }
            }
        }
    }

    fn server_response(&mut self, from: Source, response: &Response<'_>, text: Bytes) {
        let key = self.asker(from, response.id.as_ref());
        // An error without an id, in the answer to one request, is about that request.
        let text = match key.filter(|_| response.id.is_none()).and_then(|key| self.pending.get(&key)) {
            Some(pending) => message::with_id(&text, &pending.id).unwrap_or(text),
            None => text,
        };
        match key {
            Some(key) if response.outcome.is_well_formed() => self.answered(key, response.outcome, text),
            Some(key) => self.answered_badly(key, response.outcome),
            None => self.log(Level::Warn, "dropped a response from the server that no request waits for"),
        }
    }

    /// The answer is one that strict clients drop: they get one that they can read.
    fn answered_badly(&mut self, key: Key, outcome: Outcome<'_>) {
        let server = &self.settings.server;
        let Outcome::Error(error) = outcome else {
            let trouble = Trouble::new("bad-json", format!("the result that {server} gave is not an object"));
            return self.fail(key, &trouble.hint("the fault is on the server's side"));
        };
        let Some(pending) = self.pending.get(&key) else { return };
        let words = serde_json::from_str::<ErrorWords>(error.get()).ok().and_then(|error| error.message);
        let words = words.map(|words| format!("; it says: \"{}\"", printable(&words, MAX_QUOTE))).unwrap_or_default();
        let trouble = Trouble::new("bad-json", format!("{server} answered with a malformed error{words}"));
        let text = trouble.hint("the fault is on the server's side").response(&pending.id);
        // It may still say that the session is gone.
        self.answered(key, outcome, text);
    }

    /// The request that a response is for: only one that was sent can have one.
    fn asker(&self, from: Source, id: Option<&Id>) -> Option<Key> {
        let key = match (from, id) {
            (Source::Spent, _) | (Source::Stream, None) => None,
            (Source::Answer(key), None) => Some(key),
            (Source::Answer(_) | Source::Stream, Some(id)) => self.by_id.get(id).copied(),
        };
        key.filter(|key| self.pending.get(key).is_some_and(Pending::was_sent))
    }

    /// The answer to a request is here.
    pub(super) fn answered(&mut self, key: Key, outcome: Outcome<'_>, text: Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let legacy = pending.modern.is_none();
        if self.watch.on && self.answer_is_of_other_era(key, outcome) {
            return;
        }
        let Some(pending) = self.pending.get(&key) else { return };
        if pending.is_handshake() {
            return self.initialize_answered(key, outcome, text);
        }
        if let Outcome::Error(error) = outcome
            && legacy
            && pending.in_session
            && !self.link.is_sse()
            && says_session_gone(error)
            && self.is_about_the_session(key)
            && self.session_gone(key)
        {
            return;
        }
        if let Outcome::Error(error) = outcome
            && !legacy
            && self.list_and_repeat(key, rpc_code(error), |_| Trouble {
                body: Some(text.clone()),
                ..Trouble::new("server-error", "the server refused the call")
            })
        {
            return;
        }
        if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
            self.let_end(exchange);
        }
        let Some(mut pending) = self.remove(key) else { return };
        match pending.origin {
            Origin::Client => {
                let mut text = text;
                if let Outcome::Result(result) = outcome {
                    if legacy {
                        self.link.note(self.now, &pending.method, &pending.text);
                    }
                    if &*pending.method == "tools/list" {
                        text = self.list_for_client(&pending.id, !legacy, result, text);
                    }
                }
                self.respond(pending.batch.take(), text);
            }
            Origin::ListTools => self.tools_page(&pending, outcome),
            Origin::Reopen | Origin::Replay | Origin::Ping => {}
        }
    }

    /// A stream that gave its answer may end by itself for a moment; a connection that is closed cannot be used again.
    pub(super) fn let_end(&mut self, exchange: ExchangeId) {
        if let Some(purpose) = self.exchanges.get_mut(&exchange) {
            *purpose = Purpose::Tail;
            self.timers.tail(self.now + LINGER, exchange);
        }
    }

    fn server_request(&mut self, from: Source, request: &Request<'_>, text: Bytes) {
        let owner = match from {
            Source::Answer(key) => self.pending.get(&key),
            Source::Stream | Source::Spent => None,
        };
        if owner.is_some_and(|pending| pending.modern.is_some()) {
            // 2026-07-28 "stdio": the server must not write requests. The client could not answer it either.
            return self.log(Level::Warn, "dropped a request from the server: its protocol version has none");
        }
        let generation = owner.map_or(self.link.generation, |pending| pending.generation);
        let taken = self.sign_in.elicitations.is_open(&request.id);
        let text = match self.server_requests.add(&request.id, generation, &self.settings.nonce, taken) {
            Some(renamed) => message::with_id(&text, &renamed).unwrap_or(text),
            None => text,
        };
        self.write_about(from, text);
    }

    fn server_notification(&mut self, from: Source, notification: &Notification<'_>, text: Bytes) {
        let mut text = text;
        match &*notification.method {
            "notifications/tools/list_changed" => self.tools.forget(),
            "notifications/cancelled" => {
                let id = notification
                    .params
                    .and_then(|params| serde_json::from_str::<Cancelled>(params.get()).ok())
                    .and_then(|params| Id::from_json(params.request_id.get()));
                let ours = id.as_ref().is_some_and(|id| self.sign_in.elicitations.is_open(id));
                if let Some(client_id) = id.and_then(|id| self.server_requests.client_id(&id)) {
                    let known = self.server_requests.take(&client_id);
                    if known.is_some_and(|known| known.original.is_some()) {
                        text = cancelled(&client_id, "the server needs no answer any more");
                    }
                } else if ours {
                    return; // a question of the bridge is not the server's to call off
                }
            }
            _ => {}
        }
        self.write_about(from, text);
    }

    /// The session is gone: what it asked can no longer be answered.
    pub(super) fn drop_server_requests(&mut self) {
        for id in self.server_requests.drain() {
            self.write(cancelled(&id, "the session with the server ended"));
        }
    }
}

/// `notifications/cancelled`, to either side.
pub(super) fn cancelled(id: &Id, reason: &str) -> Bytes {
    let reason = message::quote(reason);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\"reason\":{reason}}}}}"
    )
    .into()
}
