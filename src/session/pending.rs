//! One request that has no answer yet.

use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::ExchangeId;
use super::batch::BatchId;
use super::trouble::Trouble;
use crate::era::ModernHeaders;
use crate::message::Id;

/// Names a request inside the session; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64);

/// A map by numbers that this program counts itself. Nobody outside chooses them, so a cheap hash will do.
pub(super) type Counted<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<CountHasher>>;

/// Spreads a counter over the bits that a hash table looks at (Fibonacci hashing).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CountHasher(u64);

impl Hasher for CountHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

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
    /// The bridge's own tool answers it; the server never sees it.
    SignIn,
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
    /// The tool of a `tools/call`, if there are rules about tools.
    pub(super) tool: Option<Box<str>>,
    /// The message as it goes to the server.
    pub(super) text: Bytes,
    pub(super) modern: Option<ModernHeaders>,
    pub(super) batch: Option<BatchId>,
    pub(super) state: State,
    /// The generation of the legacy session in which it was last sent.
    pub(super) generation: u32,
    /// It was last sent with a session id.
    pub(super) in_session: bool,
    /// When it came.
    pub(super) arrived: Duration,
    /// Its exchange was refused and waits for the sign-in, since then.
    pub(super) held_at: Option<Duration>,
    /// When the sign-in was over that it waited for.
    pub(super) signed_in_at: Option<Duration>,
    /// It was last sent when nobody waited for it, so it began no sign-in.
    pub(super) quiet: bool,
    /// A subscription that the server acknowledged.
    pub(super) acknowledged: bool,
    /// Its stream will carry word of changed lists once it is acknowledged: the client had others before the sign-in.
    pub(super) owes_refresh: bool,
    /// When it was last sent.
    pub(super) sent_at: Duration,
    /// When it last went into the queue.
    pub(super) queued_at: Duration,
    /// When its pause is over, while it waits or its stream does.
    pub(super) retry_at: Duration,
    /// When it first went wrong; bounds how long it is repeated.
    pub(super) trouble_since: Option<Duration>,
    /// How often it was sent again after a failure.
    pub(super) repeats: u32,
    /// How often it waited because the server asked for it.
    pub(super) busy: u32,
    /// How often it met a lost session.
    pub(super) lost_sessions: u32,
    /// Where to resume its stream.
    pub(super) last_event_id: Option<Box<str>>,
    /// The server's reconnection time for its stream.
    pub(super) retry: Option<Duration>,
    /// How often its stream was resumed.
    pub(super) resumes: u32,
    /// Resumed streams in a row that brought nothing.
    pub(super) empty_resumes: u32,
    /// Streams in a row that brought no message, ids and reconnection times apart.
    pub(super) idle_streams: u32,
    /// The current stream brought something.
    pub(super) stream_spoke: bool,
    /// It had an answer stream, if only once.
    pub(super) had_stream: bool,
    /// A refusal is the client's to see, whatever it says about the server's era.
    pub(super) settled: bool,
    /// The server's refusal, if it said that the call's headers do not match.
    pub(super) mismatch: Option<Box<Trouble>>,
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
            arrived: Duration::ZERO,
            held_at: None,
            signed_in_at: None,
            quiet: false,
            acknowledged: false,
            owes_refresh: false,
            sent_at: Duration::ZERO,
            queued_at: Duration::ZERO,
            retry_at: Duration::ZERO,
            trouble_since: None,
            repeats: 0,
            busy: 0,
            lost_sessions: 0,
            last_event_id: None,
            retry: None,
            resumes: 0,
            empty_resumes: 0,
            idle_streams: 0,
            stream_spoke: false,
            had_stream: false,
            settled: false,
            mismatch: None,
        }
    }

    /// Bytes that it holds, as far as the client chose them.
    pub(super) fn size(&self) -> usize {
        self.text.len() + self.method.len() + self.tool.as_ref().map_or(0, |tool| tool.len())
    }

    /// The exchange that it waits for, if any.
    pub(super) fn exchange(&self) -> Option<ExchangeId> {
        match self.state {
            State::Sent(exchange) | State::Streaming(exchange) | State::Resuming(exchange) => Some(exchange),
            State::Queued | State::Held | State::SignIn | State::Taken | State::Waiting | State::ResumeWaiting => None,
        }
    }

    /// Whether the server may have it: only then can it answer.
    pub(super) fn was_sent(&self) -> bool {
        !matches!(self.state, State::Queued | State::Held | State::SignIn)
    }

    /// The client waits for it behind something that must come first.
    pub(super) fn waits_in_line(&self) -> bool {
        self.origin == Origin::Client && matches!(self.state, State::Queued | State::Held)
    }

    /// The `initialize` of a legacy session, the client's or ours.
    pub(super) fn is_handshake(&self) -> bool {
        self.modern.is_none() && &*self.method == "initialize"
    }

    /// The notification stream of the modern era: a request that is answered only when it ends.
    pub(super) fn is_subscription(&self) -> bool {
        self.modern.is_some() && &*self.method == "subscriptions/listen"
    }

    /// Requests that change nothing, by the specification (C1). Tool calls are judged by their annotations elsewhere.
    pub(super) fn method_is_safe(&self) -> bool {
        matches!(
            &*self.method,
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
                | "tasks/result"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_spread_over_the_table() {
        use std::collections::HashSet;
        use std::hash::BuildHasher as _;
        let hashes: Vec<u64> =
            (0..4096_u64).map(|n| BuildHasherDefault::<CountHasher>::default().hash_one(n)).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
        let top: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(low.len() > 2400, "as random numbers would: {}", low.len());
        assert_eq!(top.len(), 128);
    }
}
