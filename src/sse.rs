//! Event-stream decoder (types first; the decoder follows).
use std::time::Duration;

use bytes::Bytes;

/// Bounds on what one event may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `data` of one event.
    pub max_event: usize,
    /// Bytes of an event id that is kept.
    pub max_id: usize,
    /// Bytes of an event name that are kept.
    pub max_name: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_event: 64 << 20, max_id: 4096, max_name: 256 }
    }
}

/// What a block did to the last event id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdChange {
    /// The id is now this one.
    Set(Box<str>),
    /// The id was set to nothing: no `Last-Event-ID` from here on.
    Clear,
}

/// One block of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Event type; `None` is `message`.
    pub name: Option<String>,
    /// The `data` lines, joined by LF.
    pub data: Bytes,
    /// What the block did to the last event id, if anything.
    pub id: Option<IdChange>,
    /// Reconnection time in milliseconds, if the block set it.
    pub retry: Option<u64>,
}

/// Why a stream cannot be decoded any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// One event's data is larger than [`Limits::max_event`].
    #[error("an event on the server's stream is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Incremental decoder of one event stream.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }
    /// Takes the next bytes; finished events are appended to `out`.
    pub fn push(&mut self, _chunk: &[u8], _out: &mut Vec<Event>) -> Result<(), SseError> {
        Err(SseError::TooLarge { limit: self.limits.max_event })
    }
    /// The id for `Last-Event-ID`.
    pub fn last_event_id(&self) -> Option<&str> {
        None
    }
    /// The reconnection time the server last asked for.
    pub fn retry(&self) -> Option<Duration> {
        None
    }
    /// Comment lines seen so far.
    pub fn comments(&self) -> u64 {
        0
    }
    /// End of the stream: true if an unfinished block was thrown away.
    pub fn finish(&mut self) -> bool {
        false
    }
}
