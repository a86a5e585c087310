//! A way to send JSON-RPC messages and to get lines back: the stdio of a bridge, or HTTP without one.

pub(crate) mod direct;
pub(crate) mod stdio;

use std::time::Duration;

use super::Failure;

/// What a wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Something was read, though perhaps no whole message.
    Read,
    /// Nothing came in time.
    TimedOut,
}

/// One client's connection to the mock server.
pub(crate) trait Link {
    /// Takes a message to be sent at the latest by the next [`Link::receive`].
    fn send(&mut self, message: &[u8]) -> Result<(), Failure>;

    /// Sends what is waiting, then waits for input once and gives each message that is whole to `sink`.
    fn receive(&mut self, patience: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<Waited, Failure>;

    /// Opens the GET stream where it is this side's task; a bridge does it by itself.
    fn open_stream(&mut self) -> Result<(), Failure>;

    /// Ends the session: a bridge sees the end of its stdin, a server a DELETE.
    fn finish(&mut self) -> Result<(), Failure>;

    /// Makes room for an answer of so many bytes, so that growing a buffer is not measured.
    fn expect(&mut self, bytes: usize);
}
