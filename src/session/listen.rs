//! The notification stream of a legacy server: a GET that is kept open (C3; MCP 2025-11-25 "Listening for Messages from the
//! Server").

use std::time::Duration;

use bytes::Bytes;

use super::gone::status_says_session_gone;
use super::link::Phase;
use super::resume::idle_pause;
use super::timers::Timer;
use super::{ExchangeId, Failure, Head, Level, Outgoing, Purpose, Session, Verb};
use crate::sse::IdChange;

/// Pause before it is opened again, doubled with each failure, and its ceiling.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
pub(super) const PAUSE_MOST: Duration = Duration::from_secs(30);
/// Longest pause for a stream that the server ends again and again without a message.
const IDLE_PAUSE_MOST: Duration = Duration::from_secs(10);
/// A stream that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is honoured.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

/// The notification stream.
#[derive(Debug, Default)]
pub(super) struct Listen {
    pub(super) state: ListenState,
    last_event_id: Option<Box<str>>,
    retry: Option<Duration>,
    failures: u32,
    opened_at: Duration,
    was_open: bool,
    /// The current stream brought something.
    spoke: bool,
    /// Streams in a row that brought no message, ids and reconnection times apart.
    idle_streams: u32,
    /// The server has no such stream at all (405).
    unknown: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenState {
    #[default]
    Off,
    Opening(ExchangeId),
    Open(ExchangeId),
    Waiting,
    /// The server has none (405), or does not give it to us.
    Refused,
}

impl Listen {
    fn is_open(&self) -> bool {
        matches!(self.state, ListenState::Open(_))
    }

    /// It is open, or will be again in a moment.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self.state, ListenState::Off | ListenState::Refused)
    }

    fn exchange(&self) -> Option<ExchangeId> {
        match self.state {
            ListenState::Opening(exchange) | ListenState::Open(exchange) => Some(exchange),
            _ => None,
        }
    }

    pub(super) fn heard(&mut self, id: Option<IdChange>, retry: Option<Duration>, is_message: bool) {
        self.spoke = true;
        if is_message {
            self.idle_streams = 0;
        }
        self.retry = retry.or(self.retry);
        match id {
            Some(IdChange::Set(id)) => self.last_event_id = Some(id),
            Some(IdChange::Clear) => self.last_event_id = None,
            None => {}
        }
    }
}

impl Session {
    pub(super) fn start_listen(&mut self) {
        let last_event_id = self.link.listen.last_event_id.clone();
        let outgoing = Outgoing { last_event_id, ..self.outgoing(Verb::Get, Bytes::new()) };
        let exchange = self.start(Purpose::Listen, outgoing);
        self.link.listen.state = ListenState::Opening(exchange);
    }

    /// Ends it for good, with its session. A server that has none will have none for the next session.
    pub(super) fn stop_listen(&mut self) {
        if let Some(exchange) = self.link.listen.exchange() {
            self.abort(exchange);
        }
        let unknown = self.link.listen.unknown;
        let state = if unknown { ListenState::Refused } else { ListenState::Off };
        self.link.listen = Listen { state, unknown, ..Listen::default() };
    }

    pub(super) fn listening(&mut self, exchange: ExchangeId) {
        let listen = &mut self.link.listen;
        listen.state = ListenState::Open(exchange);
        listen.opened_at = self.now;
        listen.was_open = true;
        listen.spoke = false;
        self.head_start_over(self.link.generation);
    }

    pub(super) fn listen_refused(&mut self, head: &Head, body: &Bytes) {
        let generation = self.link.generation;
        if self.link.listen.was_open && status_says_session_gone(head.status, body, self.link.in_session()) {
            return self.lose_session("the server no longer knows the session");
        }
        if matches!(head.status, 408 | 429 | 500..=599) && head.status != 501 {
            return self.listen_later(head.retry_after);
        }
        self.link.listen.unknown = head.status == 405;
        if !self.link.listen.unknown {
            self.log(Level::Debug, format!("no notification stream (HTTP {})", head.status));
        }
        self.link.listen.state = ListenState::Refused;
        self.head_start_over(generation);
    }

    pub(super) fn listen_over(&mut self, failure: Option<&Failure>) {
        if failure.is_some_and(|failure| failure.kind.is_sign_in()) {
            // Nobody waits for it. After a sign-in it is opened again.
            self.link.listen.state = ListenState::Refused;
            return self.head_start_over(self.link.generation);
        }
        if let Some(failure) = failure {
            self.log(Level::Debug, format!("the notification stream broke: {}", failure.logged()));
        } else if self.link.listen.is_open() && self.link.listen.spoke {
            // A server that ends its streams in good order wants to be asked from time to time (2025-11-25 "Sending Messages").
            let listen = &mut self.link.listen;
            listen.failures = 0;
            let idle = idle_pause(listen.idle_streams, IDLE_PAUSE_MOST);
            listen.idle_streams = listen.idle_streams.saturating_add(1);
            let pause = listen.retry.unwrap_or(PAUSE).max(idle);
            return self.listen_at(pause);
        }
        self.listen_later(None);
    }

    /// C3: without a limit in number, with growing pauses.
    fn listen_later(&mut self, at_least: Option<Duration>) {
        let listen = &mut self.link.listen;
        let healthy = listen.is_open() && self.now >= listen.opened_at + HEALTHY;
        listen.failures = if healthy { 1 } else { listen.failures.saturating_add(1) };
        let first = listen.retry.unwrap_or(PAUSE);
        let doubled = first.saturating_mul(1 << listen.failures.saturating_sub(1).min(6));
        let pause = doubled.min(PAUSE_MOST.max(first)).max(at_least.unwrap_or_default().min(RETRY_AFTER_MOST));
        self.listen_at(pause);
    }

    fn listen_at(&mut self, pause: Duration) {
        self.link.listen.state = ListenState::Waiting;
        self.set_listen_timer(pause);
        self.head_start_over(self.link.generation);
    }

    /// One timer for what must be opened again, the stream or the session.
    pub(super) fn set_listen_timer(&mut self, pause: Duration) {
        let pause = pause + self.jitter(pause / 4);
        self.last_key += 1;
        self.link.listen_timer = self.last_key;
        self.timers.at(self.now + pause, Timer::Listen(self.last_key));
    }

    /// The pause is over.
    pub(super) fn listen_again(&mut self) {
        if self.closing.is_some() {
            return;
        }
        match self.link.phase {
            Phase::Lost if self.link.initialize.is_some() => self.reopen(),
            Phase::Ready | Phase::HeadStart if self.link.listen.state == ListenState::Waiting => self.start_listen(),
            _ => {}
        }
    }

    /// A server that did not give it to us may do so by now; one that has none has none.
    pub(super) fn listen_after_sign_in(&mut self) {
        let listen = &self.link.listen;
        if self.link.phase == Phase::Ready && listen.state == ListenState::Refused && !listen.unknown {
            self.start_listen();
        }
    }

    /// The stream is probably dead and does not know it, or waits for a server that may be back by now.
    pub(super) fn refresh_listen(&mut self) {
        if let Some(exchange) = self.link.listen.exchange() {
            self.abort(exchange);
            self.link.listen.state = ListenState::Waiting;
        }
        self.link.listen.failures = 0;
        self.listen_again();
    }
}
