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
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use compare::{Compare, DIFFERENCES, Met};
use link::Way;
use plan::Plan;
use play::play;

/// Dialogues that one run tries each way: as many that are always the same, and as many that are new.
const DIALOGUES: u32 = 400;

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
    let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for mut runner in [TestRunner::new_with_rng(config.clone(), same), TestRunner::new(config)] {
        let run = runner.run(&plan::plan(way == Way::Legacy), |plan| check(&plan, way, &mut met.borrow_mut()));
        if let Err(failure) = run {
            panic!("{failure}");
        }
    }
    met.into_inner()
}

#[test]
fn any_dialogue_through_translation_and_back_is_the_same() {
    let mut met = any_dialogue(Way::Legacy);
    met.extend(any_dialogue(Way::Modern));
    let known: BTreeSet<&str> = DIFFERENCES.into_iter().collect();
    let never: Vec<_> = known.difference(&met).collect();
    assert!(never.is_empty(), "a difference that is never met is none: {never:?}");
}

#[test]
fn the_differences_have_their_place_in_the_documentation() {
    let text = include_str!("../../docs/eras.md");
    let (_, section) = text.split_once("## Differences from a native partner").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).skip(1);
    let documented: BTreeSet<&str> = rows.collect();
    assert_eq!(documented, DIFFERENCES.into_iter().collect(), "the list of the test and the table are the same");
}
