//! The fuzz targets on a stable compiler: over the committed inputs of `fixtures/fuzz`, and over inputs made from them
//! in the same way every time. `scripts/fuzz` goes further.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// Inputs made for each target.
const MADE: usize = 10_000;
/// Bytes of an input that is made.
const MAX_LEN: usize = 2048;

/// A line a target: its name, as in `tests/fuzz/fuzz_targets` and `fixtures/fuzz`, and its entry point.
macro_rules! targets {
    ($($name:ident => $entry:path,)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $entry);
        })*

        const TARGETS: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    envelope => mcp_drawbridge::fuzz::envelope,
    session => mcp_drawbridge::fuzz::session,
    eras => mcp_drawbridge::fuzz::eras,
    modern_client => mcp_drawbridge::fuzz::modern_client,
    sse => mcp_drawbridge::sse::fuzz_sse,
    framing => mcp_drawbridge::framing::fuzz_framing,
    challenge => mcp_drawbridge::auth::challenge::fuzz_challenge,
    metadata => mcp_drawbridge::auth::issuer::fuzz_metadata,
    callback => mcp_drawbridge::auth::grant::callback::fuzz_callback,
    redirect => mcp_drawbridge::auth::callback::fuzz_redirect,
}

#[test]
fn every_corpus_has_its_target() {
    for entry in fs::read_dir(corpora()).unwrap() {
        let entry = entry.unwrap();
        if !entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        assert!(TARGETS.contains(&&*name), "fixtures/fuzz/{name} has inputs that no test runs: add the target above");
    }
    for name in TARGETS {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fuzz/fuzz_targets/{name}.rs"));
        assert!(target.is_file(), "{} is missing", target.display());
    }
}

fn run(name: &str, entry: fn(&[u8])) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpora().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "fixtures/fuzz/{name} has no inputs");
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for (file, input) in files.iter().zip(&corpus) {
        check(name, entry, input, &file.display().to_string());
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..MADE {
        check(name, entry, &make(&corpus, &mut random), &format!("made input {round}"));
    }
}

fn check(name: &str, entry: fn(&[u8]), input: &[u8], origin: &str) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| entry(input)));
    let shown = input.escape_ascii();
    assert!(outcome.is_ok(), "target {name} fails on {origin}; keep it in fixtures/fuzz/{name}: b\"{shown}\"");
}

/// An input of the corpus after a few changes, or nothing but noise.
fn make(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = if random.below(16) == 0 { Vec::new() } else { random.pick(corpus).clone() };
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(16) + 1);
        match random.below(6) {
            0 => drop(input.drain(at..end)),
            1 => input.truncate(at),
            2 => {
                let piece = input[at..end].to_vec();
                for _ in 0..random.below(8) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            3 => {
                let other = random.pick(corpus);
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
            4 => {
                let noise: Vec<u8> = (0..random.below(8)).map(|_| random.byte()).collect();
                input.splice(at..at, noise);
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.byte();
                }
            }
        }
    }
    input.truncate(MAX_LEN);
    input
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz")
}

/// Steele, Lea and Flood's `SplitMix64`: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to `limit`, exclusive. The remainder's bias does not matter here.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
