//! Start, memory, time and the end.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::forward::Forwards;
use super::link::Phase;
use super::pending::{Key, Origin, Pending, State};
use super::server::cancelled;
use super::timers::{Due, Timer, Timers};
use super::trouble::Trouble;
use super::{Action, ExchangeId, Level, Outgoing, Purpose, Session, Verb};
use crate::era::{self, Era};
use crate::message::Id;

use bytes::Bytes;

/// How long the server may take for the DELETE at the end.
const GOODBYE: Duration = Duration::from_millis(1500);
/// Least time that a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// Least pause between pings.
const PING_LEAST: Duration = Duration::from_secs(1);
/// Least time between two looks at a server that does not answer `initialize`.
const CONNECT_LEAST: Duration = Duration::from_secs(1);
/// How much longer a request of our own may take when a sign-in came between.
const OWN_PATIENCE: Duration = Duration::from_secs(30);
/// How long messages that want no answer, and requests that wait for a person, may hold up the end, once no other request does. The
/// client is gone: nobody will say yes in time, except a browser that is signed in already.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a remembered answer.
const MAX_REMEMBERED: usize = 256 * 1024;

/// What one run leaves for the next: how the server was reached and what it answered to `initialize`. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The transport that worked.
    pub transport: Remembered,
    /// The protocol version that the client had asked for.
    pub requested: String,
    /// The result of `initialize`, as JSON text.
    pub result: String,
    /// The era whose messages the server refuses; the other one is translated to it (E1).
    #[serde(default)]
    pub refuses: Option<Era>,
}

impl Memory {
    /// The version in the remembered answer is the one with batches.
    pub(super) fn takes_batches(&self) -> bool {
        serde_json::from_str::<InitializeParams>(&self.result)
            .is_ok_and(|result| result.protocol_version == era::BATCHING)
    }
}

/// A transport that worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remembered {
    /// MCP 2025-03-26 and later.
    StreamableHttp,
    /// MCP 2024-11-05.
    HttpSse,
}

/// The way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Requests in flight may still finish.
    Draining,
    /// The server is told.
    Goodbye,
    /// Nothing is left to do.
    Done,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeParams {
    #[serde(default)]
    protocol_version: String,
}

impl Session {
    // ---- start ----

    /// The client says `initialize`. It goes out as it came (design decision 7).
    pub(super) fn on_initialize(&mut self, key: Key, params: Option<&RawValue>) {
        match self.link.phase {
            Phase::Opening(other) if self.pending.get(&other).is_some_and(|other| other.origin == Origin::Client) => {
                let trouble = Trouble::new("busy", "another initialize is still under way");
                if let Some(pending) = self.remove(key) {
                    self.respond(pending.batch, trouble.response(&pending.id));
                }
                return;
            }
            Phase::Opening(ours) => {
                // The client starts anew, and will have the answer that we were after.
                if let Some(exchange) = self.remove(ours).as_ref().and_then(Pending::exchange) {
                    self.abort(exchange);
                }
                self.restart_link();
            }
            // What was sent before belongs to no session.
            Phase::Idle => self.link.generation += 1,
            _ => {
                // A client that starts anew: the old session ends.
                self.say_goodbye();
                self.drop_server_requests();
                self.restart_link();
            }
        }
        let Some(pending) = self.pending.get(&key) else { return };
        // A copy, which does not hold on to all that was read from stdin with it.
        self.link.initialize = Some(Bytes::copy_from_slice(&pending.text));
        self.link.initialized = None;
        self.link.requested = params
            .and_then(|params| serde_json::from_str::<InitializeParams>(params.get()).ok())
            .map(|params| params.protocol_version);
        self.meet_client(params);
        self.timers.at(self.now + self.settings.initialize_timeout, Timer::Initialize(key));
        self.open(key);
    }

    /// S2: the client must have an answer now.
    fn initialize_due(&mut self, key: Key) {
        let Some(origin) = self.pending.get(&key).map(|pending| pending.origin) else { return };
        let text = format!("{} did not answer initialize in time", self.settings.server);
        let trouble = Trouble::new("timeout", text)
            .hint("check the network and the server; --initialize-timeout changes the limit");
        let patience = self.settings.initialize_timeout.max(CONNECT_LEAST);
        let sign_in = self.look_again_at(key, patience);
        match origin {
            Origin::Client if self.answer_from_memory(key) => {
                self.log(Level::Warn, format!("{}; the client got the answer of the last run", trouble.logged()));
            }
            Origin::Client if sign_in.is_some() && self.answer_provisionally(key) => {
                let text = format!("{} wants a sign-in; the client got a provisional answer", self.settings.server);
                self.log(Level::Info, text);
            }
            Origin::Reopen if sign_in.is_some() => {}
            Origin::Reopen if self.link.forever => self.try_initialize_again(key, trouble),
            _ => return self.fail(key, &trouble),
        }
        self.timers.at(sign_in.unwrap_or(self.now + patience), Timer::Initialize(key));
    }

    /// Where a modern client begins with a question for what the server is, it is what `initialize` is to a legacy one: a client that knows
    /// both eras waits for it before it tries the other (2026-07-28 "stdio", Backward Compatibility).
    fn discover_due(&mut self, key: Key) {
        let patience = self.settings.initialize_timeout.max(CONNECT_LEAST);
        if let Some(when) = self.look_again_at(key, patience) {
            return self.timers.at(when, Timer::Discover(key));
        }
        let text = format!("{} did not answer server/discover in time", self.settings.server);
        let hint = "check the network and the server; --initialize-timeout changes the limit";
        self.fail(key, &Trouble::new("timeout", text).hint(hint));
    }

    /// The client has an answer; a server that is silent is asked again.
    fn try_initialize_again(&mut self, key: Key, trouble: Trouble) {
        let Some(pending) = self.pending.get(&key) else { return };
        let silent = pending.state != State::Waiting
            && self.now >= pending.sent_at + self.settings.initialize_timeout.max(CONNECT_LEAST);
        if !silent {
            return;
        }
        if let Some(exchange) = pending.exchange() {
            self.abort(exchange);
        }
        self.close_sse(None);
        self.link.network_down = Some(trouble);
        let pause = self.backoff(key);
        self.repeat_at(key, pause);
    }

    /// Keeps the answer for the next run.
    pub(super) fn remember(&mut self, transport: super::Remembered, result: &RawValue) {
        let Some(requested) = self.link.requested.clone() else { return };
        if result.get().len() > MAX_REMEMBERED {
            return;
        }
        // A server that takes `initialize` does not refuse its era.
        let refuses = self.memory.as_ref().and_then(|memory| memory.refuses).filter(|era| *era == Era::Modern);
        self.keep(Memory { transport, requested, result: result.get().to_owned(), refuses });
    }

    pub(super) fn keep(&mut self, memory: Memory) {
        if self.memory.as_ref() != Some(&memory) {
            self.memory = Some(memory.clone());
            self.out.push(Action::Remember(memory));
        }
    }

    // ---- time ----

    pub(super) fn run_timers(&mut self) {
        while let Some(due) = self.timers.pop_due(self.now) {
            match due {
                Due::Tail(exchange) => self.tail_over(exchange),
                Due::Request(key) => self.request_due(key),
                Due::Timer(timer) => self.timer(timer),
            }
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Retry(key) => self.retry(key),
            Timer::Patience(key) => self.patience_over(key),
            Timer::Initialize(key) => self.initialize_due(key),
            Timer::Discover(key) => self.discover_due(key),
            Timer::Listen(serial) if serial == self.link.listen_timer => self.listen_again(),
            Timer::Listen(_) => {}
            Timer::HeadStart(generation) => self.head_start_over(generation),
            Timer::Greet(generation) => self.greet_again(generation),
            Timer::Greeting(generation) => self.greeting_over(generation),
            Timer::Endpoint(exchange) => self.endpoint_overdue(exchange),
            Timer::Later => self.send_later_forwards(),
            Timer::Hold => self.look_at_held(),
            Timer::SignInCall(key) => self.sign_in_call_overdue(key),
            Timer::Quiet => {}
            Timer::KeepAlive => self.keep_alive(),
            Timer::Own(key) => self.own_overdue(key),
            Timer::Drain => self.stop_waiting(),
            Timer::Goodbye => self.leave(),
        }
    }

    fn tail_over(&mut self, exchange: ExchangeId) {
        if matches!(self.exchanges.get(&exchange), Some(Purpose::Tail)) {
            self.abort(exchange);
        }
    }

    fn request_due(&mut self, key: Key) {
        let text = format!("{} did not answer in time", self.settings.server);
        let Some(pending) = self.pending.get(&key) else { return };
        // 2025-11-25 "Timeouts": the server is told.
        if pending.modern.is_none() && pending.was_sent() && pending.generation == self.link.generation {
            let notice = cancelled(&pending.id, "time-out");
            let generation = pending.generation;
            self.hand_over(notice, None, Some(generation));
        }
        self.fail(key, &Trouble::new("timeout", text).hint("--request-timeout changes the limit"));
    }

    /// A request of our own, which only we would miss.
    fn own_overdue(&mut self, key: Key) {
        let Some(pending) = self.pending.get(&key) else { return };
        let ping = pending.origin == Origin::Ping;
        if let Some(when) = self.look_again_at(key, OWN_PATIENCE).filter(|_| !ping) {
            return self.timers.at(when, Timer::Own(key));
        }
        self.fail(key, &Trouble::new("timeout", format!("{} did not answer in time", self.settings.server)));
        if ping {
            self.ping_overdue();
        }
    }

    pub(super) fn arm_keep_alive(&mut self) {
        if let Some(interval) = self.keep_alive_interval()
            && !std::mem::replace(&mut self.link.keep_alive_armed, true)
        {
            self.timers.at(self.now + interval, Timer::KeepAlive);
        }
    }

    fn keep_alive_interval(&self) -> Option<Duration> {
        self.settings.keep_alive.map(|interval| interval.max(PING_LEAST))
    }

    /// C5: pings only a connection that is idle.
    fn keep_alive(&mut self) {
        if self.closing.is_some() {
            return;
        }
        let Some(interval) = self.keep_alive_interval() else { return };
        let mut next = self.last_activity + interval;
        if next <= self.now {
            next = self.now + interval;
            if self.link.phase == Phase::Ready {
                self.ping(interval.max(PING_PATIENCE));
            }
        }
        self.timers.at(next, Timer::KeepAlive);
    }

    /// One ping at a time.
    fn ping(&mut self, patience: Duration) {
        if self.link.ping.is_some_and(|key| self.pending.contains_key(&key)) {
            return;
        }
        let text = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"ping\"}");
        self.link.ping = self.own_request(Origin::Ping, "ping", &text, patience);
    }

    /// A ping without answer: the connection is dead and does not know it.
    fn ping_overdue(&mut self) {
        self.log(Level::Info, "the server does not answer a ping; connecting again");
        match self.sse_stream() {
            Some(stream) => {
                self.abort(stream);
                self.sse_over(stream, None);
            }
            None => self.refresh_listen(),
        }
    }

    /// The clock jumped: connections may be dead. What can be taken up again is, at once; the rest is found out by a ping.
    pub(super) fn on_woke(&mut self) {
        self.log(Level::Info, "the machine slept; checking the connection");
        self.refresh_listen();
        let resumable: Vec<(Key, ExchangeId)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.modern.is_none() && pending.last_event_id.is_some())
            .filter_map(|(key, pending)| match pending.state {
                State::Streaming(exchange) | State::Resuming(exchange) => Some((*key, exchange)),
                _ => None,
            })
            .collect();
        for (key, exchange) in resumable {
            self.abort(exchange);
            self.resume_at(key, Duration::ZERO);
        }
        if let Phase::Opening(key) = self.link.phase
            && self.pending.get(&key).is_some_and(|pending| pending.state == State::Waiting)
        {
            self.open(key);
        }
        if self.sse_stream().is_some() && self.link.phase == Phase::Ready {
            self.ping(PING_PATIENCE / 2);
        }
    }

    // ---- the end ----

    /// stdin ended, or we were told to end: no new work; what is in flight has `drain` (S5).
    pub(super) fn on_client_gone(&mut self, drain: Duration) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Draining);
        }
        if drain.is_zero() {
            self.stop_waiting();
        } else {
            self.timers.at(self.now + drain, Timer::Drain);
        }
    }

    /// Leaves as soon as nothing is in flight.
    pub(super) fn finish_closing(&mut self) {
        if self.closing != Some(Closing::Draining) || self.watch.keeps_open() {
            return;
        }
        let mut waits = false;
        let mut waits_for_sign_in = false;
        for pending in
            self.pending.values().filter(|pending| pending.origin == Origin::Client && !pending.is_subscription())
        {
            let is_held = self.waits_for_sign_in(pending);
            waits_for_sign_in |= is_held;
            waits |= !is_held;
        }
        let unsent = self.exchanges.values().any(|purpose| matches!(purpose, Purpose::Forward(_) | Purpose::Greeting));
        if waits {
            self.quiet_since = None;
            return;
        }
        if !waits_for_sign_in && !unsent && self.link.queue.is_empty() && self.link.later.is_empty() {
            return self.stop_waiting();
        }
        match self.quiet_since {
            None => {
                self.quiet_since = Some(self.now);
                self.timers.at(self.now + END_PATIENCE, Timer::Quiet);
            }
            Some(since) if self.now >= since + END_PATIENCE => self.stop_waiting(),
            Some(_) => {}
        }
    }

    /// Every id that is still open gets its answer; then the server is told.
    fn stop_waiting(&mut self) {
        if self.closing != Some(Closing::Draining) {
            return;
        }
        self.closing = Some(Closing::Goodbye);
        let mut keys: Vec<Key> = self.pending.keys().copied().collect();
        keys.sort_unstable();
        let trouble = Trouble::new("shutdown", "the bridge was told to end before the answer came");
        let unsigned =
            trouble.clone().hint("a sign-in was wanted first: mcp-drawbridge login URL does it once and for all");
        let is_held = |key: &Key| self.pending.get(key).is_some_and(|pending| self.waits_for_sign_in(pending));
        let held: Vec<bool> = keys.iter().map(is_held).collect();
        for (key, is_held) in keys.into_iter().zip(held) {
            let trouble = if is_held { &unsigned } else { &trouble };
            if let Some(pending) = self.remove(key)
                && pending.origin == Origin::Client
            {
                self.respond(pending.batch, trouble.response(&pending.id));
            }
        }
        self.link.queue.clear();
        self.link.later.clear();
        let mut running: Vec<ExchangeId> = self.exchanges.keys().copied().collect();
        running.sort_unstable();
        for exchange in running {
            self.abort(exchange);
        }
        self.forwards = Forwards::default();
        self.timers = Timers::default(); // nothing begins any more
        if self.say_goodbye() {
            self.timers.at(self.now + GOODBYE, Timer::Goodbye);
        } else {
            self.leave();
        }
    }

    /// Ends a session at the server (2025-11-25 "Session Management"). True if there was one.
    fn say_goodbye(&mut self) -> bool {
        let has_session = self.link.session_id.is_some() && self.sse_stream().is_none();
        if has_session {
            let outgoing: Outgoing = self.outgoing(Verb::Delete, Bytes::new());
            let exchange = self.start(Purpose::Delete, outgoing);
            if self.closing.is_none() {
                self.let_end(exchange);
            }
        }
        has_session
    }

    /// Nothing is left to do.
    pub(super) fn leave(&mut self) {
        if self.closing == Some(Closing::Done) {
            return;
        }
        self.closing = Some(Closing::Done);
        let mut running: Vec<ExchangeId> = self.exchanges.keys().copied().collect();
        running.sort_unstable();
        for exchange in running {
            self.abort(exchange);
        }
        self.timers = Timers::default();
        self.out.push(Action::Exit);
    }

    /// Whether this id of the client waits for its response. One that was answered already may still be under way as ours.
    #[doc(hidden)]
    pub fn is_pending(&self, id: &Id) -> bool {
        self.by_id
            .get(id)
            .and_then(|key| self.pending.get(key))
            .is_some_and(|pending: &Pending| pending.origin == Origin::Client)
    }

    /// Whether this id is taken, by the client or by us, for tests.
    #[doc(hidden)]
    pub fn is_known(&self, id: &Id) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether nothing is kept of any message, for tests.
    #[doc(hidden)]
    pub fn holds_nothing(&self) -> bool {
        self.pending.is_empty()
            && self.by_id.is_empty()
            && self.pending_bytes == 0
            && self.exchanges.is_empty()
            && self.forwards.count == 0
            && self.forwards.bytes == 0
            && self.batches.is_empty()
            && self.link.queue.is_empty()
            && self.link.later.is_empty()
    }
}
