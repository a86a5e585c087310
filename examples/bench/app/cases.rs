//! How each case is run with one target, once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;
use super::message::Era;
use super::metrics::Case;
use super::mock_server::MockServer;
use super::process::{OpenFiles, bind};
use super::results::quantile;
use super::session::{Flood, Kind, Session, Start};

mod calls;
mod eras;
mod events;
mod floods;
mod payloads;
mod quiet;

/// Longest wait for a big answer, a burst, or the first call.
const PATIENCE: Duration = Duration::from_secs(40);
/// Longest time for a flood; slow programs get fewer requests done.
const FLOOD_LIMIT: Duration = Duration::from_secs(8);

/// A program under test.
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) kind: Kind,
    /// A peer that is here to compare with: it gets fewer rounds and fewer starts.
    pub(crate) peer: bool,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) starts: usize,
    pub(crate) peer_starts: usize,
    pub(crate) calls: usize,
    pub(crate) call_limit: Duration,
    pub(crate) flood: u64,
    pub(crate) big_repeats: usize,
    pub(crate) paced: Duration,
    pub(crate) idle: Duration,
    /// How long the slow call of `beside` takes.
    pub(crate) slow: Duration,
}

/// A few minutes.
pub(crate) const FULL: Scale = Scale {
    starts: 10,
    peer_starts: 3,
    calls: 10_000,
    call_limit: Duration::from_secs(4),
    flood: 20_000,
    big_repeats: 3,
    paced: Duration::from_secs(3),
    idle: Duration::from_secs(5),
    slow: Duration::from_secs(2),
};

/// Under a minute without peers.
pub(crate) const QUICK: Scale = Scale {
    starts: 5,
    peer_starts: 2,
    calls: 3_000,
    call_limit: Duration::from_secs(2),
    flood: 10_000,
    big_repeats: 2,
    paced: Duration::from_secs(1),
    idle: Duration::from_secs(2),
    slow: Duration::from_secs(1),
};

/// The surroundings of a case.
pub(crate) struct Stage<'a> {
    pub(crate) mock: &'a mut MockServer,
    pub(crate) scale: Scale,
    pub(crate) cpus: &'a BTreeSet<usize>,
    pub(crate) scratch: &'a Path,
    pub(crate) pipe: &'a Kind,
    pub(crate) strace: Option<&'a Path>,
    pub(crate) show_errors: bool,
    /// Names for fresh directories.
    pub(crate) homes: u64,
}

type Put<'a> = &'a mut dyn FnMut(&'static str, f64);

impl Stage<'_> {
    /// True when the case makes sense for the target here.
    pub(crate) fn can_run(&self, case: Case, target: &Target) -> bool {
        match case {
            Case::Start | Case::Calls | Case::Pinned | Case::Flood64 => true,
            Case::Syscalls => matches!(target.kind, Kind::Bridge(_)) && self.strace.is_some(),
            Case::Eras => matches!(target.kind, Kind::Bridge(_)) && !target.peer,
            Case::Idle | Case::FewFiles => matches!(target.kind, Kind::Bridge(_)),
            Case::OneCpu => self.cpus.len() > 1 && !matches!(target.kind, Kind::Pipe(_)),
            _ => !matches!(target.kind, Kind::Pipe(_)),
        }
    }

    /// Runs a case and gives its values to `put`.
    pub(crate) fn run(&mut self, case: Case, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        match case {
            Case::Start => self.start(target, put),
            Case::Calls => self.calls(target, put),
            Case::Pinned => {
                let one = self.cpus.last().copied().into_iter().collect();
                self.bound(&one, &one, |stage| stage.pinned(target, put))
            }
            Case::Flood64 => self.flood64(target, put),
            Case::Flood512 => self.flood512(target, put),
            Case::Flood4096 => self.flood4096(target, put),
            Case::FewFiles => self.few_files(target, put),
            Case::OneCpu => self.one_cpu(target, put),
            Case::Json => self.big(target, false, put),
            Case::Sse => self.big(target, true, put),
            Case::Request => self.request(target, put),
            Case::Burst => self.burst(target, put),
            Case::Push => self.push(target, put),
            Case::Ticks => self.ticks(target, put),
            Case::Beside => self.beside(target, put),
            Case::Syscalls => self.syscalls(target, put),
            Case::Eras => {
                let one = self.cpus.last().copied().into_iter().collect();
                self.bound(&one, &one, |stage| stage.eras(target, put))
            }
            // It is run with all targets at once: see `idle`.
            Case::Idle => Ok(()),
        }
    }

    /// Runs `work` with driver and server on the CPUs `ours`, and a program that it starts on `its`.
    fn bound(
        &mut self,
        ours: &BTreeSet<usize>,
        its: &BTreeSet<usize>,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        bind(Some(self.mock.id()), ours)?;
        bind(None, its)?;
        let result = work(self);
        bind(Some(self.mock.id()), self.cpus)?;
        bind(None, self.cpus)?;
        result
    }

    fn open(&mut self, target: &Target, open_files: OpenFiles) -> Result<Session, Failure> {
        let home = self.home()?;
        self.starter(&target.kind, &home, open_files).open()
    }

    fn begin(&mut self, kind: &Kind, open_files: OpenFiles) -> Result<Session, Failure> {
        let home = self.home()?;
        self.starter(kind, &home, open_files).begin()
    }

    fn starter<'b>(&self, kind: &'b Kind, home: &'b Path, open_files: OpenFiles) -> Start<'b> {
        let (client, server) = (Era::Legacy, Era::Legacy);
        Start { kind, port: self.mock.port(), client, server, home, open_files, show_errors: self.show_errors }
    }

    /// A fresh directory, so that nothing is remembered from one run to the next.
    fn home(&mut self) -> Result<PathBuf, Failure> {
        self.homes += 1;
        let home = self.scratch.join(self.homes.to_string());
        std::fs::create_dir(&home)?;
        Ok(home)
    }
}

fn put_quantile(id: &'static str, values: &mut [f64], q: f64, put: Put<'_>) {
    if let Some(value) = quantile(values, q) {
        put(id, value);
    }
}

fn put_rate(id: &'static str, flood: &Flood, put: Put<'_>) {
    put(id, number(flood.answered) / flood.elapsed.as_secs_f64().max(1e-9));
}

fn median(values: &mut [f64]) -> Option<f64> {
    quantile(values, 0.5)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn mebibytes(kibibytes: u64) -> f64 {
    number(kibibytes) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
