//! The promise of `Session`: every request id gets exactly one response, unless it was cancelled, and no other id gets any.

use proptest::prelude::*;

/// Scripts that one run tries: about 20 seconds without optimisation.
const SCRIPTS: u32 = 6000;
fn scripts() -> u32 {
    std::env::var("CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(SCRIPTS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scripts(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script_keeps_the_promise(script in proptest::collection::vec(any::<u8>(), 0..2000)) {
        mcp_drawbridge::fuzz::session(&script);
    }
}

#[test]
#[ignore]
fn replay() {
    let s = std::env::var("SCRIPT").unwrap();
    let v: Vec<u8> = s.split(',').filter_map(|x| x.trim().parse().ok()).collect();
    mcp_drawbridge::fuzz::session(&v);
}
