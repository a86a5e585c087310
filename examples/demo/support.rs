//! Servers of the tests that the demo uses too.

// They are made for tests, which use all of them and fail by a panic.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::format_push_string, clippy::format_collect)]

#[path = "../../tests/support/authorization_server.rs"]
pub mod authorization_server;
#[path = "../../tests/support/mcp.rs"]
pub mod mcp;
#[path = "../../tests/support/wire.rs"]
pub mod wire;

use std::time::{Duration, Instant};

/// Nothing in the demo takes this long.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at something that will happen.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, look).unwrap_or_else(|| panic!("did not happen within {LIMIT:?}: {what}"))
}

/// Waits until `look` finds something, at most for `limit`.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
