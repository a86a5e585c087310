//! Bytes as choices.

use std::time::Duration;

use crate::session::{Memory, Remembered, Settings, Strategy, ToolRules};

/// Choices that one script may make; a longer one ends there.
const MAX_CHOICES: usize = 20_000;

/// Reads one choice after the other. At the end every choice is the first.
#[derive(Debug)]
pub(super) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data.get(..MAX_CHOICES).unwrap_or(data) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        usize::from(*first) % bound.max(1)
    }

    /// True in one of `n` cases.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len());
        *of.get(at).expect("below the length")
    }

    pub(super) fn settings(&mut self) -> Settings {
        let rules = match self.below(6) {
            4 => ToolRules { ignore: vec!["hide*".into()], ..ToolRules::default() },
            5 => ToolRules { read_only: true, ..ToolRules::default() },
            _ => ToolRules::default(),
        };
        let settings = Settings {
            server: "example.test/mcp".into(),
            strategy: self.pick(&[Strategy::HttpFirst, Strategy::HttpOnly, Strategy::SseFirst, Strategy::SseOnly]),
            initialize_timeout: self.pick(&[20_000, 1000, 0]).ms(),
            request_timeout: self.pick(&[None, Some(30_000), Some(0)]).map(u64::ms),
            drain: self.pick(&[2000, 0, 30_000]).ms(),
            keep_alive: self.pick(&[None, Some(15_000), Some(0)]).map(u64::ms),
            tools: rules,
            nonce: "n0nce".into(),
            ..Settings::default()
        };
        // The choices of older scripts keep their meaning: this one is taken twice.
        let seed = self.below(256);
        let hold = HOLDS.get(seed % HOLDS.len()).copied().unwrap_or_default().ms();
        Settings { seed: seed as u64, hold, ..settings }
    }

    pub(super) fn memory(&mut self) -> Option<Memory> {
        let transport = self.pick(&[None, Some(Remembered::StreamableHttp), Some(Remembered::HttpSse)])?;
        let version = self.pick(&VERSIONS);
        let result = format!("{{\"protocolVersion\":\"{version}\",\"capabilities\":{{\"tools\":{{}}}}}}");
        Some(Memory { transport, requested: version.into(), result, refuses: None })
    }
}

/// How long requests are held, in milliseconds.
const HOLDS: [u64; 3] = [40_000, 3000, 0];

/// Protocol versions that clients and servers name.
pub(super) const VERSIONS: [&str; 3] = ["2025-11-25", "2025-03-26", "2024-11-05"];

/// Milliseconds.
pub(super) trait Milliseconds {
    fn ms(self) -> Duration;
}

impl Milliseconds for u64 {
    fn ms(self) -> Duration {
        Duration::from_millis(self)
    }
}
