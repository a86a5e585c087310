//! What the process-level tests stand on: a server that can lie on every level of HTTP ([`wire`]), a well-behaved legacy
//! MCP server on top of it whose every answer can be replaced ([`mcp`]), the same behind a sign-in with its authorization
//! server ([`authorization_server`]), a [`browser`], and a driver for the real binary ([`bridge`]).
//!
//! Tests are plain threads. A server runs on a thread of its own; nothing here waits for a fixed time where it can wait
//! for the thing itself.

// Each test crate uses a part of this. A helper that fails fails the test that called it.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Texts for people, made a few times.
#![allow(clippy::format_push_string, clippy::format_collect)]

pub mod authorization_server;
pub mod bridge;
pub mod browser;
pub mod mcp;
pub mod script;
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a test gives up. Tests that pass do not wait for it.
pub const LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at something that will happen.
const POLL: Duration = Duration::from_millis(5);

/// One mebibyte.
pub const MIB: usize = 1 << 20;

/// Seconds, short enough for tables.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

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

/// Runs cases at the same time, each on a thread of its name, and fails with all that failed. For cases that mostly wait.
pub fn all_at_once<T: Sync>(
    cases: &[T],
    at_a_time: usize,
    name: impl Fn(&T) -> String + Sync,
    run: impl Fn(&T) + Sync,
) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let thread = std::thread::Builder::new().name(name(case));
                    let outcome =
                        std::thread::scope(|one| thread.spawn_scoped(one, || run(case)).expect("a thread").join());
                    if outcome.is_err() {
                        failed.lock().unwrap().push(name(case));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), cases.len());
}

/// A directory of its own, removed at the end.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bridge-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
