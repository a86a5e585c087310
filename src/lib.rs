#![forbid(unsafe_code)]
//! The parts of the `mcp-drawbridge` program, as a library for its own tests, fuzz targets and benchmarks.
//! It is no public interface: anything may change with any version.

pub mod bridge;
/// The command line: flags, environment and header files become a [`cli::Config`].
pub mod cli;
pub mod era;
/// Splits the client's stdin into lines, with a bound on each.
pub mod framing;
/// What the fuzz targets and the property tests run: scripts of arbitrary bytes, and the promises that must hold.
#[doc(hidden)]
pub mod fuzz;
/// The one HTTP client: policy, TLS, proxies, redirects, bounded bodies.
pub mod http;
/// The log on stderr and in a file; never blocks, never holds a secret.
pub mod log;
pub mod message;
pub mod process;
/// The only types that may be logged.
pub mod secret;
pub mod session;
/// Decodes a server's event stream (Server-Sent Events), with a bound on each event.
pub mod sse;
pub mod start;
pub mod state;
pub mod stdio;
pub mod transport;
