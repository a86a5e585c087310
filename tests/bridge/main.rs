//! The behaviours of the bridge on the real process (product rules S, R, C, P1), a file a subject.

// The driver uses sockets, signals and `/proc`.
#![cfg(unix)]
// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod command;
mod end;
mod eras;
mod flow;
mod http;
mod input;
mod sessions;
mod sse;
mod start;
mod streams;
mod tools;
