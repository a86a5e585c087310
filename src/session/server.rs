//! What the server says.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pending::{Key, Origin, Pending, State};
use super::recovery::{Trouble, says_session_gone};
use super::{ExchangeId, Level, Purpose, Session};
use crate::message::{self, Id, Message, Notification, Outcome, Parsed, Request, Response};
use crate::sse::{Event, IdChange};

use std::time::Duration;

/// Requests of the server that the client has not answered yet. More are refused.
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
    renamed: u64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct ServerRequest {
    /// The server's own id, where the client was given another because two servers sessions used the same.
    pub(super) original: Option<Id>,
    pub(super) generation: u32,
}

impl ServerRequests {
    /// The client's answer came.
    pub(super) fn take(&mut self, id: &Id) -> Option<ServerRequest> {
        self.open.remove(id)
    }

    /// All of them, when their session is gone.
    pub(super) fn drain(&mut self) -> Vec<Id> {
        self.open.drain().map(|(id, _)| id).collect()
    }

    /// The id that the client knows for the server's id.
    fn client_id(&self, server_id: &Id) -> Option<Id> {
        let renamed = self.open.iter().find(|(_, known)| known.original.as_ref() == Some(server_id));
        renamed.map(|(id, _)| id.clone()).or_else(|| self.open.contains_key(server_id).then(|| server_id.clone()))
    }
}

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

impl Session {
    pub(super) fn on_events(&mut self, exchange: ExchangeId, events: Vec<Event>) {
        for event in events {
            self.on_event(exchange, event);
        }
    }

    fn on_event(&mut self, exchange: ExchangeId, event: Event) {
        let retry = event.retry.map(|ms| Duration::from_millis(ms).clamp(RETRY_FLOOR, RETRY_CEILING));
        match self.exchanges.get(&exchange) {
            None => return,
            Some(Purpose::Request(key) | Purpose::Resume(key)) => {
                if let Some(pending) = self.pending.get_mut(key) {
                    pending.stream_spoke = true;
                    pending.retry = retry.or(pending.retry);
                    match event.id {
                        Some(IdChange::Set(id)) => pending.last_event_id = Some(id),
                        Some(IdChange::Clear) => pending.last_event_id = None,
                        None => {}
                    }
                }
            }
            Some(Purpose::Listen) => self.link.listen.heard(event.id, retry),
            Some(Purpose::SseStream) => {
                if event.name.as_deref() == Some("endpoint") {
                    return self.on_endpoint(exchange, &event.data);
                }
            }
            Some(_) => {}
        }
        // Other event types are not MCP's; an event without data only carries an id or a reconnection time.
        if event.name.as_deref().is_none_or(|name| name == "message") && !event.data.trim_ascii().is_empty() {
            self.server_text(exchange, event.data);
        }
    }

    /// One text from the server: a message or a batch. Anything else is dropped: it is no message, so nobody waits for it, except
    /// the request on whose stream it came, which ends with its stream.
    pub(super) fn server_text(&mut self, exchange: ExchangeId, text: Bytes) {
        self.last_activity = self.now;
        let bytes = text.clone();
        match message::parse(&bytes) {
            Ok(Parsed::One(message)) => self.server_message(exchange, message, text),
            Ok(Parsed::Batch(members)) => {
                for raw in members {
                    match message::parse_one(raw.get()) {
                        Ok(message) => self.server_message(exchange, message, text.slice_ref(raw.get().as_bytes())),
                        Err(_) => {
                            self.log(Level::Warn, "dropped something from the server that is not a JSON-RPC message")
                        }
                    }
                }
            }
            Err(_) => self.log(Level::Warn, "dropped something from the server that is not a JSON-RPC message"),
        }
    }

    fn server_message(&mut self, exchange: ExchangeId, message: Message<'_>, text: Bytes) {
        match message {
            Message::Response(response) => self.server_response(exchange, &response, text),
            Message::Request(request) => self.server_request(exchange, &request, text),
            Message::Notification(notification) => self.server_notification(&notification, text),
        }
    }

    fn server_response(&mut self, exchange: ExchangeId, response: &Response<'_>, text: Bytes) {
        let own_key = match self.exchanges.get(&exchange) {
            Some(Purpose::Request(key) | Purpose::Resume(key)) => Some(*key),
            _ => None,
        };
        let (key, text) = match &response.id {
            // An error without an id, on the stream of one request, is about that request.
            None => {
                (own_key, own_key.and_then(|key| message::with_id(&text, &self.pending.get(&key)?.id)).unwrap_or(text))
            }
            Some(id) => (self.by_id.get(id).copied(), text),
        };
        match key.filter(|key| self.pending.get(key).is_some_and(Pending::was_sent)) {
            Some(key) => self.answered(key, response.outcome, text),
            None => self.log(Level::Warn, "dropped a response from the server that no request waits for"),
        }
    }

    /// The answer to a request is here.
    pub(super) fn answered(&mut self, key: Key, outcome: Outcome<'_>, text: Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let legacy = pending.modern.is_none();
        let handshake = legacy && &*pending.method == "initialize";
        if let Outcome::Error(error) = outcome
            && legacy
            && !handshake
            && pending.in_session
            && says_session_gone(error)
        {
            return self.session_gone(key, "the server no longer knows the session");
        }
        if handshake {
            return self.initialize_answered(key, outcome, text);
        }
        if let State::Streaming(exchange) | State::Resuming(exchange) = pending.state {
            self.let_end(exchange);
        }
        let Some(mut pending) = self.remove(key) else { return };
        match pending.origin {
            Origin::Client => {
                let mut text = text;
                if let Outcome::Result(result) = outcome {
                    if &*pending.method == "tools/list" {
                        text = self.tools.learn(&self.settings.tools, result, text);
                    }
                    if legacy {
                        self.link.note(&pending.method, &pending.text);
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

    fn server_request(&mut self, exchange: ExchangeId, request: &Request<'_>, text: Bytes) {
        let modern = match self.exchanges.get(&exchange) {
            Some(Purpose::Request(key) | Purpose::Resume(key)) => {
                self.pending.get(key).is_some_and(|pending| pending.modern.is_some())
            }
            _ => false,
        };
        if modern {
            // 2026-07-28 "stdio": the server must not write requests. The client could not answer it either.
            return self.log(Level::Warn, "dropped a request from the server: its protocol version has none");
        }
        if self.server_requests.open.len() >= MAX_SERVER_REQUESTS {
            return self.log(Level::Warn, "dropped a request from the server: too many wait for the client");
        }
        let generation = self.link.generation;
        let mut known = ServerRequest { original: None, generation };
        let mut id = request.id.clone();
        let mut text = text;
        if self.server_requests.open.contains_key(&id) {
            // Two sessions of one server may use the same id.
            self.server_requests.renamed += 1;
            id = Id::String(format!("mcp-drawbridge-{}-s{}", self.settings.nonce, self.server_requests.renamed).into());
            text = message::with_id(&text, &id).unwrap_or(text);
            known.original = Some(request.id.clone());
        }
        self.server_requests.open.insert(id, known);
        self.write(text);
    }

    fn server_notification(&mut self, notification: &Notification<'_>, text: Bytes) {
        let mut text = text;
        match &*notification.method {
            "notifications/tools/list_changed" => self.tools.forget(),
            "notifications/cancelled" => {
                let id = notification
                    .params
                    .and_then(|params| serde_json::from_str::<Cancelled>(params.get()).ok())
                    .and_then(|params| Id::from_json(params.request_id.get()));
                if let Some(client_id) = id.and_then(|id| self.server_requests.client_id(&id)) {
                    let known = self.server_requests.open.remove(&client_id);
                    if known.is_some_and(|known| known.original.is_some()) {
                        text = cancelled(&client_id);
                    }
                }
            }
            _ => {}
        }
        self.write(text);
    }

    /// The session is gone: what it asked can no longer be answered.
    pub(super) fn drop_server_requests(&mut self) {
        for id in self.server_requests.drain() {
            self.write(cancelled(&id));
        }
    }

    /// A body that should hold the response to `key` was read; did it?
    pub(super) fn must_be_answered(&mut self, key: Key, exchange: ExchangeId, why: &'static str) {
        let still_waits = self.pending.get(&key).is_some_and(|pending| pending.state == State::Sent(exchange));
        if still_waits {
            self.fail(key, &Trouble::new("no-response", why));
        }
    }
}

fn cancelled(id: &Id) -> Bytes {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\"reason\":\"the session with the server ended\"}}}}"
    )
    .into()
}
