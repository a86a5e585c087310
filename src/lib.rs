#![forbid(unsafe_code)]
//! The parts of the `mcp-drawbridge` program, as a library for its own tests, fuzz targets and benchmarks.
//! It is no public interface: anything may change with any version.

pub mod era;
/// Splits the client's stdin into lines, with a bound on each.
pub mod framing;
pub mod message;
pub mod session;
/// Decodes a server's event stream (Server-Sent Events), with a bound on each event.
pub mod sse;
