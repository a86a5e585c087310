//! What the client says.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::BatchId;
use super::life::Closing;
use super::link::Item;
use super::pending::{Key, Origin, Pending, State};
use super::timers::Timer;
use super::tools::{Verdict, tool_of};
use super::trouble;
use super::{Level, Outgoing, Purpose, Session, Target, Verb};
use crate::era::{self, ModernHeaders};
use crate::message::{self, Id, Invalid, Message, Notification, Parsed, Request, Response};

/// Requests for which room is kept when none waits.
const ROOM_KEPT: usize = 256;

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

impl Session {
    pub(super) fn on_line(&mut self, line: &Bytes) {
        let text = line.clone();
        match message::parse(line) {
            Ok(Parsed::One(message)) => self.client_message(message, text, None),
            Ok(Parsed::Batch(members)) => self.client_batch(&text, &members),
            Err(invalid) => {
                let response = self.refusal(&invalid);
                self.write(response);
            }
        }
    }

    pub(super) fn on_too_long(&mut self, id: Option<&Id>, is_request: bool, length: u64, limit: usize) {
        if let Some(id) = id.filter(|_| !is_request)
            && self.answer_for_client(id, "the client's answer is larger than the bridge takes")
        {
            return self.log(Level::Warn, format!("an answer of the client has {length} bytes; the limit is {limit}"));
        }
        let id = id.filter(|id| is_request && !self.is_pending(id));
        let text = format!("the message has {length} bytes; the limit is {limit} bytes (--max-message raises it)");
        self.write(message::error_response(
            id,
            message::INVALID_REQUEST,
            &text,
            Some(&trouble::data("too-large", None, None)),
        ));
    }

    /// The client answered a request of the server with something that cannot be passed on. The server must not wait for it.
    fn answer_for_client(&mut self, id: &Id, why: &str) -> bool {
        if self.sign_in.elicitations.take_answer(id) {
            return true;
        }
        let Some(known) = self.server_requests.take(id) else { return false };
        let id = known.original.as_ref().unwrap_or(id);
        let text = message::error_response(Some(id), message::BRIDGE_ERROR, why, None);
        self.hand_over(text, None, Some(known.generation));
        true
    }

    /// The answer to something that is no message. An id that is in use stays with its request.
    fn refusal(&mut self, invalid: &Invalid) -> Bytes {
        match invalid {
            Invalid::NotJson => message::error_response(None, message::PARSE_ERROR, "the line is not valid JSON", None),
            Invalid::NotMessage { id, response, why } => {
                if let (true, Some(id)) = (*response, id) {
                    self.answer_for_client(id, "the client's answer is not a valid JSON-RPC message");
                }
                let id = id.as_ref().filter(|id| !*response && !self.is_pending(id));
                let text = format!("not a JSON-RPC 2.0 message: {why}");
                message::error_response(id, message::INVALID_REQUEST, &text, None)
            }
        }
    }

    /// Splits a batch. Only a client of 2025-03-26 knows arrays as answers; any other gets one line a response.
    fn client_batch(&mut self, line: &Bytes, members: &[&RawValue]) {
        if members.is_empty() {
            let why = "a batch must not be empty";
            let refusal = self.refusal(&Invalid::NotMessage { id: None, response: false, why });
            self.write(refusal);
            return;
        }
        let parsed: Vec<_> =
            members.iter().map(|raw| (line.slice_ref(raw.get().as_bytes()), message::parse_one(raw.get()))).collect();
        let wants_answer = |member: &Result<Message, Invalid>| matches!(member, Ok(Message::Request(_)) | Err(_));
        let answers = parsed.iter().filter(|(_, member)| wants_answer(member)).count();
        let as_array = answers > 0 && self.link.takes_batches;
        let batch = as_array.then(|| self.batches.open(answers));
        for (text, member) in parsed {
            match member {
                Ok(Message::Request(request)) if request.method == "initialize" => {
                    let response = message::error_response(
                        Some(&request.id),
                        message::INVALID_REQUEST,
                        "initialize must not be part of a batch",
                        None,
                    );
                    self.respond(batch, response);
                }
                Ok(message) => self.client_message(message, text, batch),
                Err(invalid) => {
                    let response = self.refusal(&invalid);
                    self.respond(batch, response);
                }
            }
        }
    }

    fn client_message(&mut self, message: Message<'_>, text: Bytes, batch: Option<BatchId>) {
        match message {
            Message::Request(request) => self.client_request(&request, text, batch),
            // The way to the server is closed already.
            _ if matches!(self.closing, Some(Closing::Goodbye | Closing::Done)) => {}
            Message::Notification(notification) => self.client_notification(&notification, text),
            Message::Response(response) => self.client_response(&response, text),
        }
    }

    fn client_request(&mut self, request: &Request<'_>, text: Bytes, batch: Option<BatchId>) {
        let refuse = |code, why: &str| message::error_response(Some(&request.id), code, why, None);
        if self.by_id.contains_key(&request.id) {
            let response =
                refuse(message::INVALID_REQUEST, "another request with this id is still waiting for its response");
            return self.respond(batch, response);
        }
        if self.takes_no_more() {
            return self.respond(batch, refuse(message::BRIDGE_ERROR, "the bridge is shutting down"));
        }
        let mut pending = Pending::new(request.id.clone(), Origin::Client, &request.method, text);
        pending.batch = batch;
        pending.modern = era::modern_headers(&request.method, request.params);
        pending.settled = self.watch.settled;
        let mut verdict = Verdict::Allowed;
        let ours = request.method == "tools/call" && self.is_sign_in_call(request.params);
        if ours {
            pending.text = Bytes::new(); // what is pasted is kept no longer than needed
        } else if request.method == "tools/call" && !self.settings.tools.is_empty() {
            pending.tool = tool_of(&pending.text).map(Into::into);
            verdict = self.tools.verdict(&self.settings.tools, pending.tool.as_deref());
        }
        if let Verdict::Refused(why) = verdict {
            return self.respond(batch, refuse(message::INVALID_PARAMS, &why));
        }
        let modern = pending.modern.is_some();
        if modern && let Some(batch) = pending.batch.take() {
            // That era knows no batches, and some of its requests are answered only at their end.
            self.leave_batch(batch);
        }
        if modern {
            self.meet_modern_client(request.params);
        }
        let key = self.add(pending);
        if let Some(limit) = self.settings.request_timeout
            && request.method != "initialize"
        {
            self.timers.request(self.now + limit, key);
            let pending = &self.pending;
            self.timers.prune_requests(pending.len(), |key| pending.contains_key(&key));
        }
        if modern && request.method == "server/discover" && !self.is_translated() {
            self.timers.at(self.now + self.settings.initialize_timeout, Timer::Discover(key));
        }
        match verdict {
            _ if ours => self.call_sign_in(key, request.params),
            Verdict::Unknown => self.hold_for_tools(key),
            _ if modern => self.send(key),
            _ if request.method == "initialize" => self.on_initialize(key, request.params),
            _ => self.enqueue(Item::Request(key)),
        }
    }

    fn client_notification(&mut self, notification: &Notification<'_>, text: Bytes) {
        let modern = era::modern_headers(&notification.method, notification.params);
        match &*notification.method {
            "notifications/cancelled" => self.client_cancels(notification, text),
            "notifications/initialized" if modern.is_none() => {
                self.link.initialized = Some(Bytes::copy_from_slice(&text));
                self.enqueue(Item::Initialized(text));
                self.elicit();
            }
            _ => self.hand_over(text, modern, None),
        }
    }

    /// R6. The stream is freed in both eras; only a legacy server is told by a message (2026-07-28 "Cancellation": closing the
    /// stream is the signal).
    fn client_cancels(&mut self, notification: &Notification<'_>, text: Bytes) {
        let id = notification
            .params
            .and_then(|params| serde_json::from_str::<Cancelled>(params.get()).ok())
            .and_then(|params| Id::from_json(params.request_id.get()));
        let Some(key) = id.and_then(|id| self.by_id.get(&id).copied()) else { return };
        let Some(pending) = self.pending.get(&key) else { return };
        if pending.origin != Origin::Client || pending.is_handshake() {
            return; // 2025-11-25 "Cancellation": initialize must not be cancelled
        }
        // A session that is gone does not know it either.
        let tell = pending.modern.is_none() && pending.was_sent() && pending.generation == self.link.generation;
        let exchange = pending.exchange();
        if tell {
            self.hand_over(text, None, Some(self.link.generation));
        }
        if let Some(exchange) = exchange {
            self.abort(exchange);
        }
        if let Some(batch) = self.remove(key).and_then(|pending| pending.batch) {
            self.leave_batch(batch);
        }
    }

    /// A member of a batch that has no response in its array.
    pub(super) fn leave_batch(&mut self, batch: BatchId) {
        if let Some(line) = self.batches.add(batch, None) {
            self.write(line);
        }
    }

    fn client_response(&mut self, response: &Response<'_>, text: Bytes) {
        if response.id.as_ref().is_some_and(|id| self.sign_in.elicitations.take_answer(id)) {
            return; // what counts is the sign-in
        }
        let Some(known) = response.id.as_ref().and_then(|id| self.server_requests.take(id)) else {
            return self.log(Level::Debug, "dropped a response of the client to a request that no server made");
        };
        let text = match &known.original {
            Some(original) => message::with_id(&text, original).unwrap_or(text),
            None => text,
        };
        self.hand_over(text, None, Some(known.generation));
    }

    /// Sends a request, for the first time or again.
    pub(super) fn send(&mut self, key: Key) {
        let Some(pending) = self.pending.get(&key) else { return };
        let text = pending.text.clone();
        let may_sign_in = self.may_sign_in(key);
        let outgoing = match &pending.modern {
            Some(modern) => {
                let params = self.tools.mirrored.of_call(pending);
                modern_post(text, Some(ModernHeaders { params, ..modern.clone() }))
            }
            None if pending.is_handshake() => {
                // A new session has no id yet, and its version is what this message asks for.
                Outgoing { session_id: None, version: None, ..self.outgoing(Verb::Post, text) }
            }
            None => self.outgoing(Verb::Post, text),
        };
        let exchange = self.start(Purpose::Request(key), Outgoing { may_sign_in, ..outgoing });
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Sent(exchange);
            pending.generation = self.link.generation;
            pending.in_session = self.link.in_session();
            pending.sent_at = self.now;
            pending.quiet = !may_sign_in;
            pending.acknowledged = false;
            pending.held_at = None;
            pending.last_event_id = None;
            pending.stream_spoke = false;
        }
    }

    /// A request of the legacy session, to wherever its transport wants it.
    pub(super) fn outgoing(&self, verb: Verb, body: Bytes) -> Outgoing {
        let target = match (verb, self.link.endpoint()) {
            (Verb::Post, Some(endpoint)) => Target::Endpoint(endpoint.into()),
            _ => Target::Server,
        };
        Outgoing {
            verb,
            target,
            body,
            session_id: self.link.session_id.clone(),
            version: self.link.version.clone(),
            modern: None,
            last_event_id: None,
            may_sign_in: verb == Verb::Post,
        }
    }

    /// Takes a request in.
    pub(super) fn add(&mut self, mut pending: Pending) -> Key {
        self.last_key += 1;
        let key = Key(self.last_key);
        pending.arrived = self.now;
        self.pending_bytes += pending.size();
        self.by_id.insert(pending.id.clone(), key);
        self.pending.insert(key, pending);
        key
    }

    /// Lets a request go: from here on nothing can answer it.
    pub(super) fn remove(&mut self, key: Key) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.size());
        self.by_id.remove(&pending.id);
        if self.pending.is_empty() && self.pending.capacity() > ROOM_KEPT {
            // R8: memory does not stay at its peak.
            self.pending.shrink_to(ROOM_KEPT);
            self.by_id.shrink_to(ROOM_KEPT);
            self.exchanges.shrink_to(ROOM_KEPT);
            self.link.queue.shrink_to(ROOM_KEPT);
        }
        Some(pending)
    }

    /// Writes a response, or keeps it for its batch.
    pub(super) fn respond(&mut self, batch: Option<BatchId>, response: Bytes) {
        match batch {
            None => self.write(response),
            Some(batch) => {
                if let Some(line) = self.batches.add(batch, Some(response)) {
                    self.write(line);
                }
            }
        }
    }

    /// Queues a legacy message and sends what may be sent.
    pub(super) fn enqueue(&mut self, item: Item) {
        let request = if let Item::Request(key) = &item { Some(*key) } else { None };
        if let Some(key) = request {
            self.wait_in_line(key);
        }
        self.link.queue.push_back(item);
        self.pump();
        if let Some(key) = request {
            self.may_wait_for_sign_in(key);
        }
    }

    /// A message of the queue has its turn.
    pub(super) fn send_item(&mut self, item: Item) {
        match item {
            Item::Request(key) => {
                if self.pending.get(&key).is_some_and(|pending| pending.state == State::Queued) {
                    self.send(key);
                }
            }
            Item::Forward(forward) => self.forward(forward),
            Item::Initialized(text) => self.greet(text),
        }
    }
}

/// A message of the modern era: it knows no session.
pub(super) fn modern_post(body: Bytes, modern: Option<ModernHeaders>) -> Outgoing {
    Outgoing {
        verb: Verb::Post,
        target: Target::Server,
        body,
        session_id: None,
        version: None,
        modern,
        last_event_id: None,
        may_sign_in: true,
    }
}
