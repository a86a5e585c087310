//! skeleton

/// Splits the client's stdin into lines, with a bound on each.
pub mod framing;
/// Decodes a server's event stream (Server-Sent Events), with a bound on each event.
pub mod sse;
