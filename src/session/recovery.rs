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

use super::gone::{body_says_legacy_alone, rpc_error, status_says_session_gone};
use super::link::{Item, Phase};
use super::pending::{Key, Origin, Pending, State};
use super::server::Source;
use super::timers::Timer;
use super::tools::tool_of;
use super::trouble::{Trouble, content_name};
use super::{Content, ExchangeId, Failure, FailureKind, Head, Level, Purpose, Session};

/// How long a request is tried again when the network or the server fails it, counted from the first failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause before a request is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// Longest pause while something waits for its server without a limit.
const BACKOFF_FOREVER: Duration = Duration::from_secs(30);
/// Times that one request is repeated after its connection broke. With the pauses above, [`PATIENCE`] allows about seven.
const MAX_REPEATS: u32 = 10;
/// Longest `Retry-After` that is waited for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);
/// Times that a request waits for a server that says it is busy (429, 503).
const MAX_BUSY: u32 = 5;
/// Times that one request may meet a lost session.
const MAX_LOST_SESSIONS: u32 = 2;
/// Errors that came again in a new session, before such words are no longer believed.
const MAX_FALSE_ALARMS: u32 = 3;
/// How long the answer to a request that was taken with 202 may take to come on the notification stream.
const TAKEN_PATIENCE: Duration = Duration::from_secs(3);

impl Session {
    // ---- ends of exchanges ----

    pub(super) fn on_answer(&mut self, exchange: ExchangeId, head: &Head, body: Bytes) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key)) => self.request_answer(key, exchange, head, body),
            Some(Purpose::Resume(key)) => self.resume_refused(key, head, &body),
            Some(Purpose::Forward(forward)) => self.forward_answer(forward, head, &body),
            Some(Purpose::Greeting) => self.greeted(exchange, head, &body),
            Some(Purpose::Listen) => self.listen_refused(head, &body),
            Some(Purpose::SseStream) => self.sse_refused(exchange, head, &body),
            Some(Purpose::Delete) => self.leave(),
            Some(Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_opened(&mut self, exchange: ExchangeId, head: &Head) {
        match self.exchanges.get_mut(&exchange) {
            Some(Purpose::Request(key)) => {
                let key = *key;
                if !self.note_session(key, head) {
                    return;
                }
                if let Some(pending) = self.pending.get_mut(&key) {
                    pending.state = State::Streaming(exchange);
                    pending.had_stream = true;
                    pending.held_at = None;
                }
            }
            Some(Purpose::Listen) => self.listening(exchange),
            Some(Purpose::Greeting) => {
                self.let_end(exchange);
                self.greeting_done(exchange);
            }
            Some(purpose @ Purpose::Forward(_)) => {
                if let Purpose::Forward(forward) = std::mem::replace(purpose, Purpose::Tail) {
                    self.done_with(forward);
                }
                self.let_end(exchange);
            }
            Some(Purpose::Resume(_) | Purpose::SseStream | Purpose::Delete | Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_ended(&mut self, exchange: ExchangeId, failure: Option<Failure>) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key) | Purpose::Resume(key)) => self.stream_over(key, failure.as_ref()),
            Some(Purpose::Listen) => self.listen_over(failure.as_ref()),
            Some(Purpose::SseStream) => self.sse_over(exchange, failure),
            Some(Purpose::Delete) => self.leave(),
            Some(Purpose::Greeting) => self.greeting_done(exchange),
            Some(Purpose::Forward(forward)) => self.done_with(forward),
            Some(Purpose::Tail) | None => {}
        }
    }

    pub(super) fn on_failed(&mut self, exchange: ExchangeId, failure: &Failure) {
        match self.exchanges.remove(&exchange) {
            Some(Purpose::Request(key)) => self.request_failed(key, failure),
            Some(Purpose::Resume(key)) => self.resume_failed(key, failure),
            Some(Purpose::Forward(forward)) => self.forward_failed(forward, failure),
            Some(Purpose::Greeting) => self.greeting_failed(exchange, failure),
            Some(Purpose::Listen) => self.listen_over(Some(failure)),
            Some(Purpose::SseStream) => self.sse_over(exchange, Some(failure.clone())),
            Some(Purpose::Delete) => self.leave(),
            Some(Purpose::Tail) | None => {}
        }
    }

    // ---- requests ----

    fn request_answer(&mut self, key: Key, exchange: ExchangeId, head: &Head, body: Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let legacy = pending.modern.is_none();
        if !(200..300).contains(&head.status) {
            return self.refused(key, head, &body);
        }
        if !self.note_session(key, head) {
            return;
        }
        // HTTP+SSE: the answer comes on the stream, whatever the body says (2024-11-05 "HTTP with SSE").
        let by_stream = legacy && self.link.endpoint().is_some();
        let looks_like_json = body.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'['));
        if looks_like_json || (head.content == Content::Json && !by_stream) {
            let is_message = self.server_text(Source::Answer(key), body);
            let still_waits = self.pending.get(&key).is_some_and(|pending| pending.state == State::Sent(exchange));
            if !still_waits {
                return;
            }
            if !by_stream {
                let trouble = if is_message {
                    Trouble::new("no-response", "the server's answer holds no response to this request")
                } else {
                    Trouble::new("bad-json", "the server's answer is not a JSON-RPC message")
                };
                return self.fail(key, &Trouble { status: Some(head.status), ..trouble });
            }
        } else if !by_stream {
            return self.not_answered(key, head, &body);
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Taken;
        }
    }

    /// A 2xx whose body is no JSON.
    fn not_answered(&mut self, key: Key, head: &Head, body: &Bytes) {
        let empty = body.trim_ascii().is_empty();
        let legacy = self.pending.get(&key).is_some_and(|pending| pending.modern.is_none());
        if empty && legacy && self.link.listen.is_kept() && head.status == 202 {
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
        self.fail(key, &trouble);
    }

    /// The server answered with an error status.
    fn refused(&mut self, key: Key, head: &Head, body: &Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let handshake = pending.is_handshake();
        let in_session = pending.in_session;
        let legacy = pending.modern.is_none();
        let error = rpc_error(body);
        let code = error.as_ref().map(|(code, _)| *code);
        if self.is_of_other_era(key, head.status, code, body, || body_says_legacy_alone(body)) {
            return;
        }
        let text = error.as_ref().and_then(|(_, text)| text.clone());
        if self.list_and_repeat(key, code, |session| session.status_trouble(head, body, text)) {
            return;
        }
        if legacy
            && !handshake
            && self.link.had_session()
            && status_says_session_gone(head.status, body, in_session)
            && (head.status == 404 || self.is_about_the_session(key))
            && self.session_gone(key)
        {
            return;
        }
        if handshake {
            self.link.vaguely_refused |= code.is_none() && crate::era::says_nothing_of_eras(head.status, body);
            if self.fall_back(key, head, error.as_ref(), body) || self.may_be_modern(key) {
                return;
            }
        }
        if handshake && matches!(head.status, 401 | 403) && self.is_wanted_by_now(key) {
            return self.open(key);
        }
        if self.wait_for_server(key, head) {
            return;
        }
        let trouble = self.status_trouble(head, body, error.and_then(|(_, text)| text));
        if matches!(head.status, 429 | 502..=504) && (self.is_lasting(key) || self.goes_on(key, &trouble)) {
            let pause = self.backoff(key);
            return self.repeat_at(key, pause);
        }
        self.fail(key, &trouble);
    }

    /// C4: waits for a server that is busy or restarting, if that is right for this request.
    pub(super) fn wait_for_server(&mut self, key: Key, head: &Head) -> bool {
        let now = self.now;
        let safe = self.is_safe(key);
        let pause = self.backoff(key);
        let Some(pending) = self.pending.get_mut(&key) else { return false };
        if let (429 | 503, Some(after)) = (head.status, head.retry_after) {
            let waits = after <= RETRY_AFTER_MOST && pending.busy < MAX_BUSY;
            if waits {
                // A pause that the server asks for is no trouble of the network.
                pending.busy += 1;
                pending.trouble_since = None;
                self.repeat_at(key, after.max(BACKOFF_FIRST));
            }
            return waits;
        }
        // 429 without a time: not looked at, so anything may be sent again. Bad gateway and the like: only what is safe.
        let again = head.status == 429 || (safe && matches!(head.status, 502..=504));
        let since = *pending.trouble_since.get_or_insert(now);
        if !again || now >= since + PATIENCE {
            return false;
        }
        self.repeat_at(key, pause);
        true
    }

    fn request_failed(&mut self, key: Key, failure: &Failure) {
        // To say initialize twice does no harm: at worst a session is left over.
        let handshake = self.pending.get(&key).is_some_and(Pending::is_handshake);
        if failure.kind.is_sign_in() && handshake && self.is_wanted_by_now(key) {
            return self.open(key);
        }
        if failure.unsent || (handshake && failure.kind.is_network()) {
            return self.unreachable(key, failure);
        }
        match failure.kind {
            FailureKind::Cut => self.cut_off(key, Some(failure)),
            _ => self.fail(key, &Trouble::of(failure)),
        }
    }

    /// The request surely never reached the server, or may do so twice.
    pub(super) fn unreachable(&mut self, key: Key, failure: &Failure) {
        let now = self.now;
        let trouble = Trouble::of(failure);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let since = *pending.trouble_since.get_or_insert(now);
        let handshake = pending.is_handshake();
        if failure.kind.is_network() {
            let forever = self.is_lasting(key) || self.goes_on(key, &trouble);
            // S2: a name that never resolved is a wrong name.
            let hopeless = handshake && failure.kind == FailureKind::Dns && self.link.known.is_none();
            if forever || (!hopeless && now < since + PATIENCE) {
                let pause = self.backoff(key);
                return self.repeat_at(key, pause);
            }
        }
        self.fail(key, &trouble);
    }

    /// S2: `initialize` met trouble that may pass. True if connecting goes on for ever, because the client was answered from memory.
    fn goes_on(&mut self, key: Key, trouble: &Trouble) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        if !pending.is_handshake() {
            return false;
        }
        if pending.origin == Origin::Client && self.answer_from_memory(key) {
            self.log(
                Level::Warn,
                format!("{}; the client got the answer of the last run, and connecting goes on", trouble.logged()),
            );
        }
        let ours = self.pending.get(&key).is_some_and(|pending| pending.origin == Origin::Reopen);
        let forever = self.link.forever && ours;
        if forever {
            self.link.network_down = Some(trouble.clone());
        }
        forever
    }

    /// The connection broke, or the stream ended, after the request was sent and before its answer.
    pub(super) fn cut_off(&mut self, key: Key, failure: Option<&Failure>) {
        let now = self.now;
        let safe = self.is_safe(key);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if pending.had_stream && now >= pending.sent_at + PATIENCE {
            pending.trouble_since = None; // it ran well for a while
        }
        let since = *pending.trouble_since.get_or_insert(now);
        let again = safe && pending.repeats < MAX_REPEATS && (pending.repeats == 0 || now < since + PATIENCE);
        if again || self.is_lasting(key) {
            let pause = self.backoff(key);
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

    // ---- sending again ----

    /// Whether carrying it out twice does no harm.
    fn is_safe(&self, key: Key) -> bool {
        self.pending.get(&key).is_some_and(|pending| {
            pending.method_is_safe()
                || (&*pending.method == "tools/call"
                    && tool_of(&pending.text).is_some_and(|tool| self.tools.is_repeatable(&tool)))
        })
    }

    /// A notification stream of the modern era that was open once is opened again without a limit (C3).
    fn is_lasting(&self, key: Key) -> bool {
        self.pending.get(&key).is_some_and(|pending| pending.is_subscription() && pending.had_stream)
    }

    /// The pause before a request is tried again.
    pub(super) fn backoff(&mut self, key: Key) -> Duration {
        let pending = self.pending.get(&key);
        let lasting = pending.is_some_and(Pending::is_subscription)
            || (self.link.forever && pending.is_some_and(Pending::is_handshake));
        let repeats = pending.map_or(0, |pending| pending.repeats);
        self.pause(repeats, if lasting { BACKOFF_FOREVER } else { BACKOFF_MOST })
    }

    pub(super) fn pause(&mut self, times: u32, most: Duration) -> Duration {
        let pause = BACKOFF_FIRST.saturating_mul(1 << times.min(16)).min(most);
        pause + self.jitter(pause / 4)
    }

    /// Sends a request again after a pause.
    pub(super) fn repeat_at(&mut self, key: Key, pause: Duration) {
        let when = self.now + pause;
        let Some(pending) = self.pending.get_mut(&key) else { return };
        pending.repeats = pending.repeats.saturating_add(1);
        pending.state = State::Waiting;
        pending.retry_at = when;
        self.timers.at(when, Timer::Retry(key));
    }

    /// The pause is over.
    pub(super) fn retry(&mut self, key: Key) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if self.now < pending.retry_at {
            return; // it has another pause by now
        }
        match pending.state {
            State::Waiting if pending.is_handshake() => self.open(key),
            State::Waiting if pending.modern.is_some() => self.send(key),
            State::Waiting => {
                pending.state = State::Queued;
                self.enqueue(Item::Request(key));
            }
            State::ResumeWaiting => self.resume(key),
            _ => {}
        }
    }

    /// Bounds how long a request may stand in the queue while the session is being opened again.
    pub(super) fn wait_in_line(&mut self, key: Key) {
        let now = self.now;
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.queued_at = now;
        }
        if self.link.is_reopening() {
            self.timers.at(now + PATIENCE, Timer::Patience(key));
            self.try_now();
        }
    }

    /// Somebody wants the server: while connecting goes on for ever, a long pause is cut short.
    fn try_now(&mut self) {
        let Phase::Opening(key) = self.link.phase else { return };
        let idle = self.pending.get(&key).is_some_and(|pending| {
            pending.state == State::Waiting && self.link.forever && self.now >= pending.sent_at + BACKOFF_MOST
        });
        if idle {
            self.open(key);
        }
    }

    /// A request has waited long enough for something else to happen.
    pub(super) fn patience_over(&mut self, key: Key) {
        let Some(pending) = self.pending.get(&key) else { return };
        match pending.state {
            State::Queued if self.queue_is_held() => {
                self.timers.at(self.now + PATIENCE, Timer::Patience(key));
            }
            State::Queued => {
                let down = self.link.network_down.clone();
                // A server that opens no session in its time will not; one that cannot be reached need not be waited for so long.
                let limit = if down.is_some() { PATIENCE } else { PATIENCE + self.settings.initialize_timeout };
                let until = pending.queued_at + limit;
                if self.now < until {
                    return self.timers.at(until, Timer::Patience(key));
                }
                let text = format!("{} does not open a new session", self.settings.server);
                let trouble = down.unwrap_or_else(|| Trouble::new("timeout", text).hint("try again later"));
                self.fail(key, &trouble);
            }
            State::Taken if self.link.endpoint().is_none() => {
                let text = "the server took the request but did not answer it";
                self.fail(key, &Trouble { status: Some(202), ..Trouble::new("no-response", text) });
            }
            _ => {}
        }
    }

    /// The server said that it does not know the session: one new session for all, then again. False if the request has
    /// seen too much of that; then the server's words are its answer.
    pub(super) fn session_gone(&mut self, key: Key) -> bool {
        let Some(pending) = self.pending.get_mut(&key) else { return false };
        if pending.lost_sessions >= MAX_LOST_SESSIONS || self.closing.is_some() {
            return false;
        }
        pending.lost_sessions += 1;
        let exchange = pending.exchange();
        pending.state = State::Queued;
        let generation = pending.generation;
        let void = matches!(pending.origin, Origin::Ping | Origin::Replay);
        if let Some(exchange) = exchange {
            self.let_end(exchange);
        }
        if void {
            self.remove(key);
        }
        self.lose_if_current(generation, "the server no longer knows the session");
        if !void {
            self.enqueue(Item::Request(key));
        }
        true
    }

    /// Words that seem to speak of a lost session: the same in a new session speak of something else, such as a tool's own.
    pub(super) fn is_about_the_session(&mut self, key: Key) -> bool {
        let again = self.pending.get(&key).is_some_and(|pending| pending.lost_sessions > 0);
        self.link.false_alarms += u32::from(again);
        !again && self.link.false_alarms < MAX_FALSE_ALARMS
    }

    /// A session is lost once, however many requests notice it.
    pub(super) fn lose_if_current(&mut self, generation: u32, why: &str) {
        if generation == self.link.generation {
            self.lose_session(why);
        }
    }

    /// Keeps what the head of a handshake's answer says about the session. False if it cannot be used and the request is over.
    fn note_session(&mut self, key: Key, head: &Head) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        if !pending.is_handshake() {
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

    /// Fails all that stands in the queue, when no session can be had.
    pub(super) fn fail_queue(&mut self, trouble: &Trouble) {
        for item in std::mem::take(&mut self.link.queue) {
            match item {
                Item::Request(key) => {
                    if self.pending.get(&key).is_some_and(|pending| pending.state == State::Queued) {
                        self.fail(key, trouble);
                    }
                }
                Item::Forward(forward) => self.done_with(forward),
                Item::Initialized(_) => {}
            }
        }
    }

    /// Ends a request with an error of the bridge.
    pub(super) fn fail(&mut self, key: Key, trouble: &Trouble) {
        let signs_in = trouble.is_sign_in() && self.settings.can_sign_in;
        let first =
            self.pending.get(&key).is_some_and(|pending| pending.origin == Origin::Client && pending.is_handshake());
        let possible = trouble.declined || self.sign_in.is_open();
        if signs_in && first && possible {
            // Who said no may think better of it: a client that is refused here would have to be started again.
            self.answer_provisionally(key);
        }
        let Some(pending) = self.remove(key) else { return };
        if let Some(exchange) = pending.exchange() {
            self.abort(exchange);
        }
        match pending.origin {
            Origin::Client => {
                let response = if signs_in {
                    self.signed_out();
                    self.without_sign_in(&pending, trouble, possible)
                } else {
                    trouble.response(&pending.id)
                };
                let handshake = pending.is_handshake();
                self.respond(pending.batch, response);
                if handshake {
                    self.initialize_failed(trouble);
                }
            }
            Origin::Reopen => self.reopen_failed(trouble),
            Origin::ListTools => self.tools_unknown(trouble),
            Origin::Replay | Origin::Ping => {
                self.log(Level::Debug, format!("{} got no answer: {}", pending.method, trouble.logged()));
            }
        }
    }
}
