//! HTTP+SSE, the transport of MCP 2024-11-05: one stream on which the server says where messages go and answers them.

use std::time::Duration;

use bytes::Bytes;

use super::link::{Phase, Transport};
use super::pending::{Key, Pending, State};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{ExchangeId, Failure, Head, Level, Outgoing, Purpose, Session, Verb};

/// How long the `endpoint` event may take.
const ENDPOINT_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an endpoint reference.
const MAX_ENDPOINT: usize = 8 * 1024;

impl Session {
    /// Opens the stream for the `initialize` with this key.
    pub(super) fn open_sse(&mut self, key: Key) {
        self.close_sse(None);
        let may_sign_in = self.may_sign_in(key);
        let outgoing =
            Outgoing { session_id: None, version: None, may_sign_in, ..self.outgoing(Verb::Get, Bytes::new()) };
        let exchange = self.start(Purpose::SseStream, outgoing);
        self.link.transport = Transport::Sse { stream: Some(exchange), endpoint: None };
        self.timers.at(self.now + ENDPOINT_PATIENCE, Timer::Endpoint(exchange));
        let now = self.now;
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Queued;
            pending.sent_at = now;
            pending.quiet = !may_sign_in;
            pending.held_at = None;
        }
    }

    /// The `endpoint` event (2024-11-05 "HTTP with SSE"). The first one stays: a later one could move the session elsewhere.
    pub(super) fn on_endpoint(&mut self, exchange: ExchangeId, data: &Bytes) {
        let key = match self.link.phase {
            Phase::Opening(key) if self.link.endpoint().is_none() => key,
            _ => return self.log(Level::Warn, "ignored a second endpoint event of the server"),
        };
        let text = std::str::from_utf8(data).map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > MAX_ENDPOINT || text.contains(char::is_control) {
            let trouble = Trouble::new("malformed", "the server's endpoint event names no usable address");
            self.close_sse(None);
            return self.fail(key, &trouble);
        }
        self.link.transport = Transport::Sse { stream: Some(exchange), endpoint: Some(text.into()) };
        self.send(key);
    }

    pub(super) fn endpoint_overdue(&mut self, exchange: ExchangeId) {
        if self.link.transport == (Transport::Sse { stream: Some(exchange), endpoint: None }) {
            if let Phase::Opening(key) = self.link.phase
                && let Some(when) = self.look_again_at(key, ENDPOINT_PATIENCE)
            {
                return self.timers.at(when, Timer::Endpoint(exchange));
            }
            self.sse_unusable(Trouble::new("timeout", "the server's event stream did not name its endpoint in time"));
        }
    }

    /// The GET got no stream.
    pub(super) fn sse_refused(&mut self, exchange: ExchangeId, head: &Head, body: &Bytes) {
        if self.sse_stream() != Some(exchange) {
            return;
        }
        self.close_sse(None);
        if let Phase::Opening(key) = self.link.phase
            && self.wait_for_server(key, head)
        {
            return;
        }
        if let Phase::Opening(key) = self.link.phase
            && matches!(head.status, 401 | 403)
            && self.is_wanted_by_now(key)
        {
            return self.open(key);
        }
        let mut trouble = self.status_trouble(head, body, None);
        if (200..300).contains(&head.status) {
            trouble.message = format!("{} does not answer with an event stream", self.settings.server);
            trouble.kind = "not-mcp";
            trouble.hint = Some("check the URL, or try --transport http-only".into());
        }
        self.sse_unusable(trouble);
    }

    /// This transport does not work, at least not now: the other one is tried, if that is still open.
    fn sse_unusable(&mut self, trouble: Trouble) {
        self.close_sse(None);
        let Phase::Opening(key) = self.link.phase else { return self.lose_session("the event stream is gone") };
        if self.link.may_fall_back {
            self.link.may_fall_back = false;
            self.link.first_refusal = Some(trouble);
            self.link.transport = Transport::Streamable;
            return self.open(key);
        }
        if self.may_be_modern(key) {
            return;
        }
        let trouble = self.link.first_refusal.take().unwrap_or(trouble);
        self.fail(key, &trouble);
    }

    /// The stream ended.
    pub(super) fn sse_over(&mut self, exchange: ExchangeId, failure: Option<Failure>) {
        if self.sse_stream() != Some(exchange) {
            return;
        }
        let had_endpoint = self.link.endpoint().is_some();
        self.close_sse(failure.as_ref());
        let Phase::Opening(key) = self.link.phase else { return self.lose_session("the event stream ended") };
        if self.pending.get(&key).is_some_and(|pending| pending.state == State::Waiting) {
            return; // its pause ends with a new stream
        }
        if had_endpoint {
            // `initialize` was under way; saying it again does no harm.
            if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
                self.abort(exchange);
            }
            return self.cut_off(key, failure.as_ref());
        }
        match failure {
            Some(failure) if failure.unsent || failure.kind.is_network() => {
                if self.link.first_refusal.is_some() {
                    return self.sse_unusable(Trouble::of(&failure));
                }
                self.unreachable(key, &failure);
            }
            // Another transport wants the same sign-in.
            Some(failure) if failure.kind.is_sign_in() && self.is_wanted_by_now(key) => self.open(key),
            Some(failure) if failure.kind.is_sign_in() => self.fail(key, &Trouble::of(&failure)),
            Some(failure) => self.sse_unusable(Trouble::of(&failure)),
            None => self.sse_unusable(Trouble::new("connection-lost", "the server ended its event stream")),
        }
    }

    /// Closes the stream, if there is one. What was sent lost its way back, except `initialize`, which is the caller's.
    pub(super) fn close_sse(&mut self, failure: Option<&Failure>) {
        let Transport::Sse { stream, endpoint } = &mut self.link.transport else { return };
        let (stream, endpoint) = (stream.take(), endpoint.take());
        if let Some(stream) = stream {
            self.abort(stream);
        }
        if endpoint.is_none() {
            return;
        }
        let mut orphans: Vec<Key> = self
            .pending
            .iter()
            .filter(|(_, pending)| {
                let lost = matches!(pending.state, State::Sent(_) | State::Streaming(_) | State::Taken);
                pending.modern.is_none() && lost && !pending.is_handshake()
            })
            .map(|(key, _)| *key)
            .collect();
        orphans.sort_unstable();
        for key in orphans {
            if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
                self.abort(exchange);
            }
            self.cut_off(key, failure);
        }
    }

    /// The stream, if there is one.
    pub(super) fn sse_stream(&self) -> Option<ExchangeId> {
        match &self.link.transport {
            Transport::Sse { stream, .. } => *stream,
            Transport::Streamable => None,
        }
    }
}
