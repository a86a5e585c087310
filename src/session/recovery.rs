//! How an exchange ends, and what becomes of its request: answered, resumed, repeated, or failed with an error.
//!
//! The rules (C1, C2, C4; MCP 2025-11-25 "Resumability and Redelivery", "Session Management"):
//! * surely never sent: sent again, whatever it is, for [`PATIENCE`];
//! * the stream broke after an event id: resumed with GET and `Last-Event-ID` after the server's `retry:`;
//! * otherwise only what changes nothing is repeated: lists, reads, `ping`, tools annotated read-only or idempotent;
//! * the session is gone: one `initialize` for all, then sent again (the server says that it did not look at it);
//! * the rest gets an error that says so, at once.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Forward;

use super::pending::{Key, Origin, Pending, State};
use super::timers::Timer;
use super::{Content, ExchangeId, Failure, FailureKind, Head, Level, Outgoing, Purpose, Session, Verb};
use crate::era;
use crate::message::{self, Id, Message, Outcome, Parsed};

/// How long a request is tried again when the network or the server fails it, counted from the first failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause before a request is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// Longest pause while a client that was answered from memory waits for its server to come back.
const BACKOFF_FOREVER: Duration = Duration::from_secs(30);
/// Longest `Retry-After` that is waited for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);
/// Times that a request waits for a server that says it is busy (429, 503).
const MAX_BUSY: u32 = 5;
/// Pause before a stream is resumed when the server names none.
const RESUME_PAUSE: Duration = Duration::from_millis(200);
/// Resumed streams in a row that bring nothing, before the request is given up.
const MAX_EMPTY_RESUMES: u32 = 5;
/// Times that one request may meet a lost session.
const MAX_LOST_SESSIONS: u32 = 2;
/// How long the answer to a request that was taken with 202 may take to come on the notification stream.
const TAKEN_PATIENCE: Duration = Duration::from_secs(3);
/// Times that a message without response is sent again.
const MAX_FORWARD_REPEATS: u32 = 8;
/// Characters of a server's own words in an error text.
const MAX_QUOTE: usize = 200;
/// Bytes of an error body that are searched for the words of a lost session.
const MAX_SEARCHED: usize = 4096;

/// An error of the bridge, on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: &'static str,
    pub(super) status: Option<u16>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// The server's own JSON-RPC error, to be passed on as it is (R2).
    pub(super) body: Option<Bytes>,
}

impl Trouble {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: None, message: message.into(), hint: None, body: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn of(failure: &Failure) -> Self {
        Self { hint: failure.hint.clone(), ..Self::new(failure.kind.word(), failure.message.clone()) }
    }

    /// The error response for one request.
    pub(super) fn response(&self, id: &Id) -> Bytes {
        if let Some(text) = self.body.as_ref().and_then(|body| message::with_id(body, id)) {
            return text;
        }
        let data = data(self.kind, self.status, self.hint.as_deref());
        message::error_response(Some(id), message::BRIDGE_ERROR, &self.message, Some(&data))
    }
}

/// The `data` member of the bridge's errors, as JSON text.
pub(super) fn data(kind: &str, status: Option<u16>, hint: Option<&str>) -> String {
    let status = status.map(|status| format!(",\"status\":{status}")).unwrap_or_default();
    let hint = hint.map(|hint| format!(",\"hint\":{}", message::quote(hint))).unwrap_or_default();
    format!("{{\"source\":\"mcp-drawbridge\",\"kind\":{}{status}{hint}}}", message::quote(kind))
}

impl Session {
    // ---- ends of exchanges ----

    pub(super) fn on_answer(&mut self, exchange: ExchangeId, head: &Head, body: Bytes) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key)) => self.request_answer(key, exchange, head, body),
            Some(Purpose::Resume(key)) => self.resume_refused(key, head),
            Some(Purpose::Forward(forward)) => self.forward_answer(forward, head, &body),
            Some(Purpose::Greeting) => self.greeted(exchange, head, &body),
            Some(Purpose::Listen) => self.listen_refused(head),
            Some(Purpose::SseStream) => self.sse_refused(exchange, head, &body),
            Some(Purpose::Delete) => self.out.push(super::Action::Exit),
            Some(Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_opened(&mut self, exchange: ExchangeId, head: &Head) {
        match self.exchanges.get(&exchange) {
            Some(Purpose::Request(key)) => {
                let key = *key;
                if !self.note_session(key, head) {
                    return;
                }
                if let Some(pending) = self.pending.get_mut(&key) {
                    pending.state = State::Streaming(exchange);
                }
            }
            Some(Purpose::Resume(key)) => {
                if let Some(pending) = self.pending.get_mut(key) {
                    pending.stream_spoke = false;
                }
            }
            Some(Purpose::Listen) => self.listening(exchange),
            Some(Purpose::Greeting) => {
                self.let_end(exchange);
                self.greeting_done();
            }
            Some(Purpose::Forward(_)) => self.let_end(exchange),
            Some(Purpose::SseStream | Purpose::Delete | Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_ended(&mut self, exchange: ExchangeId, failure: Option<Failure>) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key) | Purpose::Resume(key)) => self.stream_over(key, failure),
            Some(Purpose::Listen) => self.listen_over(failure.as_ref()),
            Some(Purpose::SseStream) => self.sse_over(failure),
            Some(Purpose::Delete) => self.out.push(super::Action::Exit),
            Some(Purpose::Greeting | Purpose::Forward(_) | Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_failed(&mut self, exchange: ExchangeId, failure: &Failure) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key)) => self.request_failed(key, failure),
            Some(Purpose::Resume(key)) => self.resume_failed(key, failure),
            Some(Purpose::Forward(forward)) => self.forward_failed(forward, failure),
            Some(Purpose::Greeting) => {
                self.log(
                    Level::Warn,
                    format!("notifications/initialized did not reach the server: {}", failure.message),
                );
                self.greeting_done();
            }
            Some(Purpose::Listen) => self.listen_over(Some(failure)),
            Some(Purpose::SseStream) => self.sse_over(Some(failure.clone())),
            Some(Purpose::Delete) => self.out.push(super::Action::Exit),
            Some(Purpose::Tail) | None => {}
        }
    }

    // ---- requests ----

    fn request_answer(&mut self, key: Key, exchange: ExchangeId, head: &Head, body: Bytes) {
        if !self.pending.contains_key(&key) {
            return;
        }
        if !(200..300).contains(&head.status) {
            return self.refused(key, head, &body);
        }
        if !self.note_session(key, head) {
            return;
        }
        let looks_like_json = body.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'['));
        if head.content == Content::Json || looks_like_json {
            // The exchange is over, but its request is still known by it while the body is read.
            if message::parse(&body).is_err() {
                let trouble = Trouble {
                    status: Some(head.status),
                    ..Trouble::new("bad-json", "the server's answer is not a JSON-RPC message")
                };
                return self.not_mcp(key, trouble);
            }
            self.exchanges.insert(exchange, Purpose::Request(key));
            self.server_text(exchange, body);
            self.exchanges.remove(&exchange);
            return self.must_be_answered(key, exchange, "the server's answer holds no response to this request");
        }
        let empty = body.trim_ascii().is_empty();
        if self.link.endpoint().is_some() {
            // HTTP+SSE: the answer comes on the stream (2024-11-05 "HTTP with SSE").
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.state = State::Taken;
            }
            return;
        }
        if empty && self.link.listen.is_open() && head.status == 202 {
            // Against the specification, but some servers answer on the notification stream.
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.state = State::Taken;
                self.timers.at(self.now + TAKEN_PATIENCE, Timer::Patience(key));
            }
            return;
        }
        let mut trouble = if empty {
            Trouble::new("no-response", format!("the server answered HTTP {} without a response", head.status))
        } else {
            Trouble::new(
                "not-mcp",
                format!("{} answered with {} instead of an MCP message", self.settings.server, content_name(head)),
            )
            .hint("check the URL: it must be the server's MCP endpoint, often ending in /mcp or /sse")
        };
        trouble.status = Some(head.status);
        self.not_mcp(key, trouble);
    }

    /// A 2xx that is no MCP. An old server may answer anything to a POST; the next transport is tried before it is an error.
    fn not_mcp(&mut self, key: Key, trouble: Trouble) {
        self.fail(key, &trouble);
    }

    /// The server answered with an error status.
    fn refused(&mut self, key: Key, head: &Head, body: &Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let legacy = pending.modern.is_none();
        let handshake = legacy && &*pending.method == "initialize";
        if legacy
            && !handshake
            && (pending.in_session || self.link.knows_session())
            && status_says_session_gone(head.status, body, pending.in_session)
        {
            return self.session_gone(key, "the server no longer knows the session");
        }
        let error = rpc_error(body);
        if handshake && self.fall_back(key, head, error.as_ref().map(|(code, _)| *code), body) {
            return;
        }
        if self.wait_for_server(key, head) {
            return;
        }
        let trouble = self.status_trouble(head, body, error.map(|(_, text)| text));
        self.fail(key, &trouble);
    }

    /// The error for a status.
    pub(super) fn status_trouble(&self, head: &Head, body: &Bytes, error: Option<Bytes>) -> Trouble {
        let server = &self.settings.server;
        let status = head.status;
        let mut trouble = match status {
            401 => Trouble::new("unauthorized", format!("{server} wants a sign-in or another credential (HTTP 401)"))
                .hint("give the server's token with --header \"Authorization: Bearer ${TOKEN}\"; if you do already, the server refused it"),
            403 => Trouble::new("forbidden", format!("{server} refused access (HTTP 403)"))
                .hint("the account or header in use is not allowed to do this"),
            404 | 410 => Trouble::new("not-found", format!("{server} has nothing at this address (HTTP {status})"))
                .hint("check the URL: it must be the server's MCP endpoint, often ending in /mcp or /sse"),
            405 => Trouble::new("not-mcp", format!("{server} does not take MCP messages at this address (HTTP 405)"))
                .hint("check the URL, or try --transport sse-only for an older server"),
            408 | 504 => Trouble::new("timeout", format!("{server} timed out (HTTP {status})")),
            413 => Trouble::new("too-large", format!("the message is too large for {server} (HTTP 413)")),
            429 => Trouble::new("busy", format!("{server} has too many requests from you (HTTP 429)")).hint("wait a little and try again"),
            500..=599 => Trouble::new("server-error", format!("{server} failed (HTTP {status})")).hint("the fault is on the server's side; try again later"),
            _ => Trouble::new("http", format!("{server} answered HTTP {status}")),
        };
        trouble.status = Some(status);
        trouble.body = error;
        if trouble.body.is_none()
            && let Some(words) = server_words(head, body)
        {
            trouble.message = format!("{}; it says: \"{words}\"", trouble.message);
        }
        trouble
    }

    /// C4: waits for a server that is busy or restarting, if that is right for this request.
    fn wait_for_server(&mut self, key: Key, head: &Head) -> bool {
        let now = self.now;
        let safe = self.is_safe(key);
        let pause = self.backoff(key);
        let Some(pending) = self.pending.get_mut(&key) else { return false };
        let since = *pending.trouble_since.get_or_insert(now);
        match (head.status, head.retry_after) {
            (429 | 503, Some(after)) if after <= RETRY_AFTER_MOST && pending.repeats < MAX_BUSY => {
                self.repeat_at(key, after.max(BACKOFF_FIRST));
                true
            }
            // 429 without a time: not looked at, so anything may be sent again. Bad gateway and the like: only what is safe.
            (429, None) if now < since + PATIENCE => {
                self.repeat_at(key, pause);
                true
            }
            (502..=504, None) if safe && now < since + PATIENCE => {
                self.repeat_at(key, pause);
                true
            }
            _ => false,
        }
    }

    fn request_failed(&mut self, key: Key, failure: &Failure) {
        if failure.unsent {
            return self.unreachable(key, failure);
        }
        match failure.kind {
            FailureKind::Cut => self.cut_off(key, Some(failure)),
            _ => self.fail(key, &Trouble::of(failure)),
        }
    }

    /// The request surely never reached the server.
    pub(super) fn unreachable(&mut self, key: Key, failure: &Failure) {
        let now = self.now;
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let since = *pending.trouble_since.get_or_insert(now);
        let handshake = &*pending.method == "initialize" && pending.modern.is_none();
        if handshake && pending.origin == Origin::Client && failure.kind.is_network() && self.answer_from_memory(key) {
            self.log(
                Level::Warn,
                format!("{}; the client got the answer of the last run, and connecting goes on", failure.message),
            );
        }
        let forever =
            self.link.forever && self.pending.get(&key).is_some_and(|pending| pending.origin == Origin::Reopen);
        let definite = !failure.kind.is_network()
            || (handshake && !forever && failure.kind == FailureKind::Dns && self.link.known.is_none());
        if !definite && (forever || now < since + PATIENCE) {
            if forever {
                self.link.network_down = Some(Trouble::of(failure));
            }
            let pause = self.backoff(key);
            return self.repeat_at(key, pause);
        }
        self.fail(key, &Trouble::of(failure));
    }

    /// The connection broke, or the stream ended, after the request was sent and before its answer.
    pub(super) fn cut_off(&mut self, key: Key, failure: Option<&Failure>) {
        let now = self.now;
        let safe = self.is_safe(key);
        let pause = self.backoff(key);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let since = *pending.trouble_since.get_or_insert(now);
        if safe && now < since + PATIENCE {
            return self.repeat_at(key, pause);
        }
        let what = failure.map_or("the server ended the stream before its answer", |failure| &*failure.message);
        let trouble = Trouble::new("connection-lost", what.to_owned());
        let trouble = if safe {
            trouble.hint("the request was repeated without success; try again later")
        } else {
            trouble.hint("the request may have been carried out; it was not repeated because it may change something")
        };
        self.fail(key, &trouble);
    }

    // ---- streams ----

    /// The answer stream of a request ended without its answer.
    fn stream_over(&mut self, key: Key, failure: Option<Failure>) {
        let Some(pending) = self.pending.get(&key) else { return };
        if let Some(failure) = &failure
            && !failure.kind.is_network()
        {
            return self.fail(key, &Trouble::of(failure));
        }
        let legacy = pending.modern.is_none();
        if legacy && pending.generation != self.link.generation && &*pending.method != "initialize" {
            return self.orphaned(key, failure.as_ref());
        }
        if legacy && pending.last_event_id.is_some() && self.link.endpoint().is_none() {
            return self.resume_later(key, failure);
        }
        self.cut_off(key, failure.as_ref());
    }

    /// Its session was replaced while it ran: its stream cannot be resumed.
    fn orphaned(&mut self, key: Key, failure: Option<&Failure>) {
        self.cut_off(key, failure);
    }

    fn resume_later(&mut self, key: Key, failure: Option<Failure>) {
        let now = self.now;
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if pending.stream_spoke {
            pending.empty_resumes = 0;
            pending.trouble_since = None;
        } else {
            pending.empty_resumes += 1;
        }
        if pending.empty_resumes > MAX_EMPTY_RESUMES {
            return self.cut_off(key, failure.as_ref());
        }
        let pause = pending.retry.unwrap_or(RESUME_PAUSE * (pending.empty_resumes + 1));
        pending.state = State::ResumeWaiting;
        self.timers.at(now + pause, Timer::Retry(key));
    }

    fn resume(&mut self, key: Key) {
        let Some(pending) = self.pending.get(&key) else { return };
        if pending.generation != self.link.generation {
            return self.orphaned(key, None);
        }
        let last_event_id = pending.last_event_id.clone();
        let outgoing = Outgoing { last_event_id, ..self.outgoing(Verb::Get, Bytes::new()) };
        let exchange = self.start(Purpose::Resume(key), outgoing);
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Resuming(exchange);
            pending.stream_spoke = false;
        }
    }

    /// The server would not resume: the GET got an answer that is no stream.
    fn resume_refused(&mut self, key: Key, head: &Head) {
        let gone = head.status == 404 && self.link.session_id.is_some();
        if gone {
            let current = self.pending.get(&key).is_some_and(|pending| pending.generation == self.link.generation);
            if current {
                self.lose_session("the server no longer knows the session");
            }
        }
        if (500..600).contains(&head.status) && self.resume_again(key) {
            return;
        }
        self.cut_off(key, None);
    }

    fn resume_failed(&mut self, key: Key, failure: &Failure) {
        if failure.kind.is_network() && self.resume_again(key) {
            return;
        }
        self.cut_off(key, Some(failure));
    }

    /// The server may be restarting.
    fn resume_again(&mut self, key: Key) -> bool {
        let now = self.now;
        let pause = self.backoff(key);
        let Some(pending) = self.pending.get_mut(&key) else { return true };
        let since = *pending.trouble_since.get_or_insert(now);
        if now >= since + PATIENCE {
            return false;
        }
        pending.repeats += 1;
        pending.state = State::ResumeWaiting;
        self.timers.at(now + pause, Timer::Retry(key));
        true
    }

    // ---- sending again ----

    /// Whether carrying it out twice does no harm.
    fn is_safe(&self, key: Key) -> bool {
        self.pending.get(&key).is_some_and(|pending| pending.repeatable)
    }

    fn backoff(&mut self, key: Key) -> Duration {
        let most = if self.link.forever { BACKOFF_FOREVER } else { BACKOFF_MOST };
        let repeats = self.pending.get(&key).map_or(0, |pending| pending.repeats).min(16);
        let pause = BACKOFF_FIRST.saturating_mul(1 << repeats).min(most);
        pause + self.jitter(pause / 4)
    }

    fn repeat_at(&mut self, key: Key, pause: Duration) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        pending.repeats += 1;
        pending.state = State::Waiting;
        self.timers.at(self.now + pause, Timer::Retry(key));
    }

    /// The pause is over.
    pub(super) fn retry(&mut self, key: Key) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        match pending.state {
            State::Waiting => {
                let handshake = pending.modern.is_none() && &*pending.method == "initialize";
                if pending.modern.is_some() || handshake {
                    return if handshake { self.open(key) } else { self.send(key) };
                }
                pending.state = State::Queued;
                self.enqueue(super::link::Item::Request(key));
            }
            State::ResumeWaiting => self.resume(key),
            _ => {}
        }
    }

    /// Bounds how long a request may stand in the queue while the session is being opened again.
    pub(super) fn wait_in_line(&mut self, key: Key) {
        if self.link.is_reopening() {
            self.timers.at(self.now + PATIENCE, Timer::Patience(key));
        }
    }

    /// A request has waited long enough for something else to happen.
    pub(super) fn patience_over(&mut self, key: Key) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        match pending.state {
            State::Queued => {
                if let Some(trouble) = self.link.network_down.clone() {
                    return self.fail(key, &trouble);
                }
                let waited = pending.trouble_since.is_some();
                pending.trouble_since.get_or_insert(self.now);
                if waited {
                    let text = format!("{} does not open a new session", self.settings.server);
                    return self.fail(key, &Trouble::new("timeout", text).hint("try again later"));
                }
                self.timers.at(self.now + self.settings.initialize_timeout, Timer::Patience(key));
            }
            State::Taken if self.link.endpoint().is_none() => {
                self.fail(
                    key,
                    &Trouble {
                        status: Some(202),
                        ..Trouble::new("no-response", "the server took the request but did not answer it")
                    },
                );
            }
            _ => {}
        }
    }

    /// The server said that it does not know the session: one new session for all, then again.
    pub(super) fn session_gone(&mut self, key: Key, why: &str) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if let Some(exchange) = pending.exchange() {
            pending.state = State::Queued;
            self.let_end(exchange);
        }
        let Some(pending) = self.pending.get_mut(&key) else { return };
        pending.state = State::Queued;
        pending.lost_sessions += 1;
        let generation = pending.generation;
        if pending.lost_sessions > MAX_LOST_SESSIONS {
            return self.fail(key, &Trouble::new("session-lost", "the server forgets the session again and again"));
        }
        if matches!(pending.origin, Origin::Ping | Origin::Replay) {
            self.remove(key);
            return self.lose_if_current(generation, why);
        }
        self.lose_if_current(generation, why);
        self.enqueue(super::link::Item::Request(key));
    }

    fn lose_if_current(&mut self, generation: u32, why: &str) {
        if generation == self.link.generation {
            self.lose_session(why);
        }
    }

    // ---- messages without response ----

    fn forward_answer(&mut self, forward: Forward, head: &Head, body: &Bytes) {
        if (200..300).contains(&head.status) {
            return;
        }
        let legacy = forward.modern.is_none();
        let in_session = forward.sent_in.is_some();
        if legacy
            && (in_session || self.link.knows_session())
            && status_says_session_gone(head.status, body, in_session)
        {
            // Whatever it said is about the session that is gone, except what holds for any session.
            let generation = forward.sent_in.unwrap_or(self.link.generation);
            self.lose_if_current(generation, "the server no longer knows the session");
            if forward.only_generation.is_none() && forward.repeats == 0 {
                self.enqueue(super::link::Item::Forward(Forward { repeats: 1, ..forward }));
            }
            return;
        }
        self.log(
            Level::Warn,
            format!("{} refused a message of the client (HTTP {})", self.settings.server, head.status),
        );
    }

    fn forward_failed(&mut self, forward: Forward, failure: &Failure) {
        let again = failure.unsent
            && failure.kind.is_network()
            && forward.repeats < MAX_FORWARD_REPEATS
            && self.closing.is_none();
        if !again {
            return self
                .log(Level::Warn, format!("a message of the client did not reach the server: {}", failure.message));
        }
        let repeats = forward.repeats + 1;
        let pause = (BACKOFF_FIRST * (1 << repeats.min(4))).min(BACKOFF_MOST);
        self.link.later.push((self.now + pause, Forward { repeats, ..forward }));
        self.timers.at(self.now + pause, Timer::Later);
    }

    pub(super) fn send_later_forwards(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.link.later.drain(..).partition(|(when, _)| *when <= now);
        self.link.later = later;
        for (_, forward) in due {
            self.enqueue(super::link::Item::Forward(forward));
        }
    }

    /// Keeps what the head of a handshake's answer says about the session. False if it cannot be used and the request is over.
    fn note_session(&mut self, key: Key, head: &Head) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        if pending.modern.is_some() || &*pending.method != "initialize" {
            return true;
        }
        match &head.session_id {
            Some(Err(())) => {
                let text = "the server's Mcp-Session-Id holds characters that are not allowed in it";
                self.fail(key, &Trouble::new("malformed", text).hint("the fault is on the server's side"));
                false
            }
            Some(Ok(id)) => {
                self.link.offered_session = Some(id.clone());
                true
            }
            None => true,
        }
    }

    /// A stream of HTTP+SSE broke: everything that was sent there lost its way back.
    pub(super) fn sse_orphans(&mut self, failure: Option<&Failure>) {
        let mut keys: Vec<Key> = self
            .pending
            .iter()
            .filter(|(_, pending)| {
                pending.modern.is_none()
                    && pending.was_sent()
                    && !matches!(pending.state, State::Waiting | State::ResumeWaiting)
            })
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
                self.abort(exchange);
            }
            self.cut_off(key, failure);
        }
    }

    /// Fails all that stands in the queue, when no session can be had.
    pub(super) fn fail_queue(&mut self, trouble: &Trouble) {
        let queue = std::mem::take(&mut self.link.queue);
        for item in queue {
            if let super::link::Item::Request(key) = item
                && self.pending.get(&key).is_some_and(|pending| pending.state == State::Queued)
            {
                self.fail(key, trouble);
            }
        }
    }
}

/// What a JSON-RPC error body says: its code, and its text.
fn rpc_error(body: &Bytes) -> Option<(i64, Bytes)> {
    match message::parse(body).ok()? {
        Parsed::One(Message::Response(response)) => match response.outcome {
            Outcome::Error(error) => Some((ErrorHead::read(error)?.code, body.clone())),
            Outcome::Result(_) => None,
        },
        _ => None,
    }
}

#[derive(Deserialize)]
struct ErrorHead {
    code: i64,
    #[serde(default)]
    message: String,
}

impl ErrorHead {
    fn read(error: &RawValue) -> Option<Self> {
        serde_json::from_str(error.get()).ok()
    }
}

/// A status and body that mean "I do not know this session". 404 is the specification's; real servers also send 400, 410
/// and 503 and say so in the text, and after a restart "not initialized".
fn status_says_session_gone(status: u16, body: &Bytes, has_id: bool) -> bool {
    match status {
        404 => has_id && rpc_error(body).is_none_or(|(code, _)| code != message::METHOD_NOT_FOUND),
        400 | 409 | 410 | 422 | 503 => {
            let searched = body.get(..body.len().min(MAX_SEARCHED)).unwrap_or_default();
            text_says_session_gone(&String::from_utf8_lossy(searched))
        }
        _ => false,
    }
}

/// The same as a JSON-RPC error on HTTP 200. Stricter: a tool may speak of sessions of its own.
pub(super) fn says_session_gone(error: &RawValue) -> bool {
    const MAX_MESSAGE: usize = 200;
    let Some(error) = ErrorHead::read(error) else { return false };
    let code = matches!(error.code, -32099..=-32000 | message::INVALID_REQUEST | message::INVALID_PARAMS);
    code && !era::is_modern_error(error.code)
        && error.message.len() <= MAX_MESSAGE
        && text_says_session_gone(&error.message)
}

fn text_says_session_gone(text: &str) -> bool {
    const SIGNS: [&str; 13] = [
        "not found",
        "expired",
        "invalid",
        "unknown",
        "no valid",
        "not valid",
        "does not exist",
        "doesn't exist",
        "terminated",
        "closed",
        "missing",
        "required",
        "not initialized",
    ];
    let text = text.to_ascii_lowercase();
    text.contains("server not initialized")
        || (text.contains("session") && SIGNS.iter().any(|sign| text.contains(sign)))
}

fn content_name(head: &Head) -> String {
    match &head.content {
        Content::Json => "JSON".into(),
        Content::EventStream => "an event stream".into(),
        Content::Other(name) if name.starts_with("text/html") => "an HTML page".into(),
        Content::Other(name) if name.is_empty() => "a body without a content type".into(),
        Content::Other(name) => printable(name, 60),
    }
}

/// The server's own short words, if it has any that are for people.
fn server_words(head: &Head, body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Words {
        error_description: Option<String>,
        message: Option<String>,
        detail: Option<String>,
        error: Option<serde_json::Value>,
    }
    let body = body.get(..body.len().min(MAX_SEARCHED))?;
    let text = match &head.content {
        Content::Json => {
            let words: Words = serde_json::from_slice(body).ok()?;
            let error = words.error.and_then(|error| {
                error.as_str().map(str::to_owned).or_else(|| Some(error.get("message")?.as_str()?.to_owned()))
            });
            words.error_description.or(words.message).or(words.detail).or(error)?
        }
        Content::Other(name) if name.starts_with("text/plain") => String::from_utf8_lossy(body).into_owned(),
        _ => return None,
    };
    let text = printable(text.trim(), MAX_QUOTE);
    (!text.is_empty()).then_some(text)
}

/// A text of the server without control characters, and not too long.
fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_session_is_told_from_other_errors() {
        let yes = [
            (404, ""),
            (404, r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#),
            (
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
            ),
            (
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
            ),
            (400, "Invalid session"),
            (503, r#"{"error":"session expired"}"#),
            (410, "Session terminated"),
        ];
        for (status, body) in yes {
            assert!(status_says_session_gone(status, &Bytes::from(body), true), "{status} {body}");
        }
        let no = [
            (400, "Bad Request"),
            (503, "Service Unavailable"),
            (401, "session expired"),
            (500, "session not found"),
            (400, "unknown tool"),
        ];
        for (status, body) in no {
            assert!(!status_says_session_gone(status, &Bytes::from(body), true), "{status} {body}");
        }
        assert!(!status_says_session_gone(404, &Bytes::new(), false), "without a session id a 404 is a wrong address");
        let unknown_method = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#;
        assert!(!status_says_session_gone(404, &Bytes::from(unknown_method), true));
    }

    #[test]
    fn a_tool_error_about_sessions_of_its_own_is_not_ours() {
        let error = |text: &str| serde_json::from_str::<Box<RawValue>>(text).expect("JSON");
        assert!(says_session_gone(&error(r#"{"code":-32001,"message":"Session not found"}"#)));
        assert!(says_session_gone(&error(r#"{"code":-32602,"message":"Invalid session ID"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32603,"message":"session not found"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32000,"message":"no such file"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32022,"message":"session not found"}"#)));
    }

    #[test]
    fn errors_carry_kind_status_and_hint() {
        let trouble = Trouble { status: Some(404), ..Trouble::new("not-found", "nothing here").hint("check \"it\"") };
        let value: serde_json::Value = serde_json::from_slice(&trouble.response(&Id::Integer(4))).expect("JSON");
        assert_eq!(value["id"], 4);
        assert_eq!(value["error"]["code"], -32001);
        assert_eq!(value["error"]["data"]["source"], "mcp-drawbridge");
        assert_eq!(value["error"]["data"]["kind"], "not-found");
        assert_eq!(value["error"]["data"]["status"], 404);
        assert_eq!(value["error"]["data"]["hint"], "check \"it\"");
    }

    #[test]
    fn a_servers_words_are_short_and_harmless() {
        let head = |content| Head { status: 500, content, session_id: None, retry_after: None };
        let plain = || Content::Other("text/plain; charset=utf-8".into());
        assert_eq!(server_words(&head(plain()), &Bytes::from("no\u{1b}[31m way\n")).as_deref(), Some("no [31m way"));
        assert_eq!(
            server_words(&head(plain()), &Bytes::from("x".repeat(9999))).map(|words| words.len()),
            Some(MAX_QUOTE)
        );
        assert_eq!(
            server_words(&head(Content::Json), &Bytes::from(r#"{"error":{"message":"quota"}}"#)).as_deref(),
            Some("quota")
        );
        assert_eq!(server_words(&head(Content::Other("text/html".into())), &Bytes::from("<b>")), None);
    }
}
