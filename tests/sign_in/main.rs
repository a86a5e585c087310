//! Signing in, with the real binary, an authorization server that forgives nothing, and a browser.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod flow;
mod keyring;
mod many;
mod renewal;
mod rig;
mod waiting;
