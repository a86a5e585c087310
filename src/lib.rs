#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
//! The parts of the `mcp-drawbridge` program, as a library for its own tests, fuzz targets and benchmarks.
//! It is no public interface: anything may change with any version.
//!
//! ```text
//!  client                                                                       server
//!    │ stdin, stdout                                                              │ HTTP
//!    ▼                                                                            ▼
//!  stdio ──► framing ──► eras ──► session (message, era) ──► transport (sse) ──► http (guard, cookies)
//!  lines     bounded     pure: (now, Input) → Actions        exchanges         policy, limits, TLS
//!                             ▲                             │
//!                             └──────── bridge: the one loop┘
//! ```
//! Nothing below `bridge` calls upward, and the protocol's logic knows no sockets, files, clock or chance: `tests/layers.rs` holds
//! both. The tour is `docs/design.md`.

pub mod auth;
pub mod bridge;
pub mod cli;
pub mod command;
pub mod credentials;
pub mod era;
pub mod eras;
pub mod errand;
pub mod framing;
#[doc(hidden)]
pub mod fuzz;
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
