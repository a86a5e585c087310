//! The promise of both translators: any legal dialogue, through translation and back, yields what each side would have seen of a
//! native partner, but for the differences that `docs/eras.md` names.
//!
//! A plan says what a client will ask and what a server will do about it. It is played twice: directly, and with the two translators
//! back to back between them. Nothing here is a socket or a clock.

// A test: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::format_push_string)]

mod compare;
mod legacy;
mod link;
mod modern;
mod plan;
mod play;
mod record;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use compare::{Compare, DIFFERENCES, Met};
use link::Way;
use plan::Plan;
use play::play;

/// Dialogues that one run tries each way.
const DIALOGUES: u32 = 1500;

fn check(plan: &Plan, way: Way, met: &mut Met) -> Result<(), TestCaseError> {
    let legacy = way == Way::Legacy;
    let direct = play(plan, Way::Direct, legacy);
    let bridged = play(plan, way, legacy);
    let mut compare = Compare { plan, way, met: Met::new() };
    compare.all(direct, bridged).map_err(TestCaseError::fail)?;
    met.append(&mut compare.met);
    Ok(())
}

fn any_dialogue(way: Way) -> Met {
    let met = RefCell::new(BTreeSet::new());
    let config = ProptestConfig { cases: DIALOGUES, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config)
        .run(&plan::plan(way == Way::Legacy), |plan| check(&plan, way, &mut met.borrow_mut()));
    if let Err(failure) = run {
        panic!("{failure}");
    }
    met.into_inner()
}

#[test]
fn a_legacy_dialogue_through_translation_and_back_is_the_same() {
    let met = any_dialogue(Way::Legacy);
    println!("{met:?}");
}

#[test]
fn a_modern_dialogue_through_translation_and_back_is_the_same() {
    let met = any_dialogue(Way::Modern);
    println!("{met:?}");
}

#[test]
fn the_differences_have_their_place_in_the_documentation() {
    let text = include_str!("../../docs/eras.md");
    for name in DIFFERENCES {
        assert!(text.contains(&format!("| {name} |")), "{name}");
    }
}
