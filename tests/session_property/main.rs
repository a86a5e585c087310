//! The promise of `Session`: every request id gets exactly one response, unless it was cancelled, and no other id gets any.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // a broken promise must stop the test

mod answers;
mod dialogue;
mod ending;
mod healing;
mod opening;
mod peers;
mod signing_in;
mod signing_in_tool;

use proptest::prelude::*;

/// Scripts that one run tries: about 20 seconds without optimisation.
const SCRIPTS: u32 = 4000;

proptest! {
    #![proptest_config(ProptestConfig { cases: SCRIPTS, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script_keeps_the_promise(script in proptest::collection::vec(any::<u8>(), 0..2000)) {
        mcp_drawbridge::fuzz::session(&script);
    }
}
