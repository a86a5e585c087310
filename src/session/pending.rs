//! One request that has no answer yet.

use std::time::Duration;

use bytes::Bytes;

use super::ExchangeId;
use super::batch::BatchId;
use crate::era::ModernHeaders;
use crate::message::Id;

/// Names a request inside the session; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64);

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The client's: it gets exactly one response.
    Client,
    /// Ours: a new `initialize` for a session that is gone, or for a client that was answered from memory.
    Reopen,
    /// Ours: log level and resource subscriptions, said again to a new session.
    Replay,
    /// Ours: keep-alive.
    Ping,
    /// Ours: the tools' annotations, to decide about a call.
    ListTools,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Behind something that must come first; its key stands in the link's queue.
    Queued,
    /// Waits for the list of tools.
    Held,
    /// The POST is under way.
    Sent(ExchangeId),
    /// The POST's answer is an event stream.
    Streaming(ExchangeId),
    /// The POST was taken; the answer comes on another stream (HTTP+SSE).
    Taken,
    /// Will be sent again when its timer comes.
    Waiting,
    /// Its stream will be resumed when its timer comes.
    ResumeWaiting,
    /// Its stream is being resumed.
    Resuming(ExchangeId),
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: Id,
    pub(super) origin: Origin,
    pub(super) method: Box<str>,
    /// The tool of a `tools/call`.
    pub(super) tool: Option<Box<str>>,
    /// The message as it goes to the server.
    pub(super) text: Bytes,
    pub(super) modern: Option<ModernHeaders>,
    pub(super) batch: Option<BatchId>,
    pub(super) state: State,
    /// The generation of the legacy session in which it was last sent.
    pub(super) generation: u32,
    /// It was sent with a session id.
    pub(super) in_session: bool,
    /// Carrying it out twice does no harm, as far as was known when it came.
    pub(super) repeatable: bool,
    /// When it first went wrong; bounds how long it is repeated.
    pub(super) trouble_since: Option<Duration>,
    /// How often it was sent again.
    pub(super) repeats: u32,
    /// How often it met a lost session.
    pub(super) lost_sessions: u32,
    /// Where to resume its stream.
    pub(super) last_event_id: Option<Box<str>>,
    /// The server's reconnection time for its stream.
    pub(super) retry: Option<Duration>,
    /// Resumed streams in a row that brought nothing.
    pub(super) empty_resumes: u32,
    /// The current stream brought something.
    pub(super) stream_spoke: bool,
}

impl Pending {
    pub(super) fn new(id: Id, origin: Origin, method: &str, text: Bytes) -> Self {
        Self {
            id,
            origin,
            method: method.into(),
            tool: None,
            text,
            modern: None,
            batch: None,
            state: State::Queued,
            generation: 0,
            in_session: false,
            repeatable: method_is_safe(method),
            trouble_since: None,
            repeats: 0,
            lost_sessions: 0,
            last_event_id: None,
            retry: None,
            empty_resumes: 0,
            stream_spoke: false,
        }
    }

    /// The exchange that it waits for, if any.
    pub(super) fn exchange(&self) -> Option<ExchangeId> {
        match self.state {
            State::Sent(exchange) | State::Streaming(exchange) | State::Resuming(exchange) => Some(exchange),
            State::Queued | State::Held | State::Taken | State::Waiting | State::ResumeWaiting => None,
        }
    }

    /// Whether the server may have it: only then can it answer.
    pub(super) fn was_sent(&self) -> bool {
        !matches!(self.state, State::Queued | State::Held)
    }
}

/// Requests that change nothing, by the specification (C1). Tool calls are judged by their annotations elsewhere.
fn method_is_safe(method: &str) -> bool {
    matches!(
        method,
        "ping"
            | "initialize"
            | "server/discover"
            | "tools/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "prompts/list"
            | "prompts/get"
            | "completion/complete"
            | "logging/setLevel"
            | "tasks/get"
            | "tasks/list"
    )
}
