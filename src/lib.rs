#![forbid(unsafe_code)]
//! The parts of the `mcp-drawbridge` program, as a library for its own tests, fuzz targets and benchmarks.
//! It is no public interface: anything may change with any version.

pub mod bridge;
pub mod cli;
pub mod era;
pub mod framing;
pub mod http;
pub mod log;
pub mod message;
pub mod process;
pub mod secret;
pub mod session;
pub mod sse;
pub mod start;
pub mod state;
pub mod stdio;
pub mod store;
pub mod transport;
