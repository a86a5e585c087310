//! How each case is run with one target, once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Failure;
use super::clock::monotonic_nanos;
use super::message::filler;
use super::metrics::Case;
use super::mock_server::MockServer;
use super::process::{Program, USUAL_FILES, Usage, bind};
use super::results::quantile;
use super::session::{Flood, Kind, SMALL, Session, Start};

/// Sizes of big messages, in bytes.
const BIG: usize = 50_000_000;
const MEDIUM: usize = 1_000_000;
const REQUEST: usize = 10_000_000;
/// Longest wait for a big answer or a burst.
const BIG_PATIENCE: Duration = Duration::from_secs(40);
/// Longest time for a flood; slow programs get fewer requests done.
const FLOOD_LIMIT: Duration = Duration::from_secs(8);
/// Events of a burst.
const BURST: u64 = 100_000;
/// Calls and events that are traced; tracing makes each of them slow.
const TRACED_CALLS: u32 = 500;
const TRACED_EVENTS: u32 = 5_000;

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
            // It is run with all targets at once: see `idle`.
            Case::Idle => Ok(()),
        }
    }

    fn start(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (mut times, mut exits, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
        let starts = if target.peer { self.scale.peer_starts } else { self.scale.starts };
        for _ in 0..starts {
            self.mock.reset()?;
            let mut time = Duration::ZERO;
            if matches!(target.kind, Kind::Direct) {
                // The least that a bridge can take: a process that copies, and the server.
                time += self.begin(self.pipe, USUAL_FILES)?.started_in;
            }
            let mut session = self.begin(&target.kind, USUAL_FILES)?;
            times.push(millis(time + session.started_in));
            let first = self.mock.counts()?.requests;
            session.initialized()?;
            session.call("echo", SMALL, BIG_PATIENCE)?;
            session.settle(Duration::from_millis(if target.peer { 200 } else { 50 }))?;
            let counts = self.mock.counts()?;
            if !matches!(target.kind, Kind::Pipe(_)) {
                put("start.first_requests", number(first));
                put("start.requests", number(counts.requests));
                put("start.connections", number(counts.connections));
            }
            if let Some(usage) = session.usage()? {
                cpus.push(millis(usage.cpu));
            }
            exits.push(millis(session.close()?));
        }
        median(&mut times).into_iter().for_each(|value| put("start.ms", value));
        median(&mut cpus).into_iter().for_each(|value| put("start.cpu", value));
        if !matches!(target.kind, Kind::Direct) {
            median(&mut exits).into_iter().for_each(|value| put("start.exit", value));
        }
        Ok(())
    }

    fn calls(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        session.call("echo", SMALL, BIG_PATIENCE)?;
        session.settle(Duration::from_millis(200))?;
        if let Some(usage) = session.usage()? {
            put("memory.idle", mebibytes(usage.rss_kib));
        }
        let measured = self.measured_calls(&mut session)?;
        put_quantiles(measured.times, ["calls.p50", "calls.p99", "calls.p999"], put);
        if let Some(wakeups) = measured.wakeups {
            put("calls.wakeups", wakeups);
        }
        session.close().map(|_| ())
    }

    fn pinned(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        let measured = self.measured_calls(&mut session)?;
        put_quantiles(measured.times, ["pinned.p50", "pinned.p99", "pinned.p999"], put);
        put("pinned.cpu", measured.cpu);
        if let Some(wakeups) = measured.wakeups {
            put("pinned.wakeups", wakeups);
        }
        session.close().map(|_| ())
    }

    fn flood64(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        let mut failed = unanswered(&session.flood(64, 1_000, FLOOD_LIMIT)?);
        let mut flood = session.flood(64, 10_000, 2 * FLOOD_LIMIT)?;
        failed += unanswered(&flood);
        if let Some(usage) = session.usage()? {
            put("memory.calls", mebibytes(usage.rss_kib));
        }
        if flood.elapsed < Duration::from_secs(2) {
            // A fast program gets more requests, for a steadier figure.
            flood = session.flood(64, self.scale.flood, FLOOD_LIMIT)?;
            failed += unanswered(&flood);
        }
        put_rate("flood64.rate", &flood, put);
        put("flood64.cpu", millis(flood.cpu) / number(flood.sent.max(1)) * 1e4);
        put("flood64.failed", failed);
        session.close().map(|_| ())
    }

    fn flood512(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        let mut failed = unanswered(&session.flood(512, 1_024, FLOOD_LIMIT)?);
        let flood = session.flood(512, self.scale.flood / 2, FLOOD_LIMIT)?;
        failed += unanswered(&flood);
        put_rate("flood512.rate", &flood, put);
        put("flood512.failed", failed);
        session.close().map(|_| ())
    }

    fn flood4096(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        self.mock.reset()?;
        let mut session = self.open(target, USUAL_FILES)?;
        // Each request of this first wave has to wait for a connection.
        let mut failed = unanswered(&session.flood(4096, 4096, FLOOD_LIMIT)?);
        let flood = session.flood(4096, self.scale.flood, FLOOD_LIMIT)?;
        failed += unanswered(&flood);
        put_rate("flood4096.rate", &flood, put);
        put("flood4096.failed", failed);
        put("flood4096.connections", number(self.mock.counts()?.peak));
        session.settle(Duration::from_millis(300))?;
        if let Some(usage) = session.usage()? {
            put("memory.flood", mebibytes(usage.rss_kib));
        }
        session.close().map(|_| ())
    }

    fn few_files(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, 256)?;
        let flood = session.flood(512, 4_096, FLOOD_LIMIT)?;
        put_rate("few_files.rate", &flood, put);
        put("few_files.failed", unanswered(&flood));
        session.close().map(|_| ())
    }

    /// The bridge alone on the last CPU; driver and server share the first.
    fn one_cpu(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (Some(&first), Some(&last)) = (self.cpus.first(), self.cpus.last()) else { return Ok(()) };
        let (ours, its) = (BTreeSet::from([first]), BTreeSet::from([last]));
        self.bound(&ours, &its, |stage| {
            let mut session = stage.open(target, USUAL_FILES)?;
            // It was started on its own CPU and stays there.
            bind(None, &ours)?;
            session.flood(64, 1_000, FLOOD_LIMIT)?;
            let flood = session.flood(64, stage.scale.flood / 2, FLOOD_LIMIT)?;
            put_rate("one_cpu.rate", &flood, put);
            let mut times = session.paced(350, stage.scale.paced)?.into_iter().map(micros).collect::<Vec<_>>();
            for (id, q) in [("one_cpu.p50", 0.5), ("one_cpu.p99", 0.99)] {
                quantile(&mut times, q).into_iter().for_each(|value| put(id, value));
            }
            session.close().map(|_| ())
        })
    }

    fn big(&mut self, target: &Target, sse: bool, put: Put<'_>) -> Result<(), Failure> {
        let [rate, linear, peak, after] = if sse {
            ["sse.rate", "sse.linear", "memory.sse_peak", "memory.sse_after"]
        } else {
            ["json.rate", "json.linear", "memory.json_peak", "memory.json_after"]
        };
        let mut session = self.open(target, USUAL_FILES)?;
        let mut fetch = |session: &mut Session, bytes: usize, repeats: usize| -> Result<f64, Failure> {
            let mut rates = Vec::with_capacity(repeats);
            let start = Instant::now();
            // One that takes seconds is not repeated.
            while rates.len() < repeats && start.elapsed() < Duration::from_secs(5) {
                rates.push(megabytes(bytes) / session.fetch(bytes, sse, BIG_PATIENCE)?.as_secs_f64());
            }
            median(&mut rates).ok_or_else(|| Failure::new("nothing measured"))
        };
        let medium = fetch(&mut session, MEDIUM, 10)?;
        session.reset_peak()?;
        let big = fetch(&mut session, BIG, self.scale.big_repeats)?;
        put(rate, big);
        put(linear, big / medium);
        if let Some(usage) = session.usage()? {
            put(peak, mebibytes(usage.peak_kib));
        }
        session.settle(Duration::from_millis(500))?;
        if let Some(usage) = session.usage()? {
            put(after, mebibytes(usage.rss_kib));
        }
        session.close().map(|_| ())
    }

    fn request(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let text = filler(REQUEST);
        let mut session = self.open(target, USUAL_FILES)?;
        session.call("echo", SMALL, BIG_PATIENCE)?;
        session.reset_peak()?;
        let mut rates = Vec::new();
        for _ in 0..self.scale.big_repeats {
            rates.push(megabytes(REQUEST) / session.upload(&text, BIG_PATIENCE)?.as_secs_f64());
        }
        median(&mut rates).into_iter().for_each(|value| put("request.rate", value));
        if let Some(usage) = session.usage()? {
            put("memory.request_peak", mebibytes(usage.peak_kib));
        }
        session.close().map(|_| ())
    }

    fn burst(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        let arguments = format!(r#"{{"count":{BURST}}}"#);
        let events = session.events("burst", arguments.as_bytes(), BURST, BIG_PATIENCE, &mut |_| {})?;
        put("burst.rate", number(events.received) / events.elapsed.as_secs_f64());
        put("burst.lost", number(BURST.saturating_sub(events.received)));
        put("burst.late", number(events.late));
        put("burst.disorder", number(events.disordered));
        session.close().map(|_| ())
    }

    fn push(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        self.mock.reset()?;
        let mut session = self.open(target, USUAL_FILES)?;
        self.mock.wait_for_stream()?;
        let arguments = format!(r#"{{"count":{BURST}}}"#);
        let events = session.events("push", arguments.as_bytes(), BURST, BIG_PATIENCE, &mut |_| {})?;
        put("push.rate", number(events.received) / events.elapsed.as_secs_f64());
        put("push.lost", number(BURST.saturating_sub(events.received)));
        put("push.disorder", number(events.disordered));
        session.close().map(|_| ())
    }

    fn ticks(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        let mut delays = Vec::new();
        let arguments = br#"{"count":300,"micros":2000}"#;
        session.events("ticks", arguments, 300, BIG_PATIENCE, &mut |sent| {
            delays.push(number(monotonic_nanos().saturating_sub(sent)) / 1e3);
        })?;
        let delay = median(&mut delays).ok_or_else(|| Failure::new("no event arrived"))?;
        put("ticks.p50", delay);
        session.close().map(|_| ())
    }

    fn beside(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let slow = Duration::from_secs(2);
        let mut session = self.open(target, USUAL_FILES)?;
        session.calls(200, Duration::from_secs(1))?;
        for (id, neighbours) in [("beside.p99", 1), ("beside100.p99", 100)] {
            session.begin_slow(neighbours, slow)?;
            let begun = Instant::now();
            session.settle(Duration::from_millis(100))?;
            let mut times: Vec<f64> =
                session.calls(usize::MAX, slow - Duration::from_millis(400))?.into_iter().map(micros).collect();
            let late = begun.elapsed() > slow;
            quantile(&mut times, 0.99).into_iter().for_each(|value| put(id, value));
            if late && times.len() < 10 {
                return Err(Failure::new("fast calls waited for the slow ones"));
            }
            session.settle((slow + Duration::from_millis(200)).saturating_sub(begun.elapsed()))?;
        }
        session.close().map(|_| ())
    }

    /// Counts system calls by strace, in three runs whose differences are what a call and an event cost.
    fn syscalls(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (Some(strace), Kind::Bridge(program)) = (self.strace, &target.kind) else { return Ok(()) };
        let strace = strace.to_owned();
        let mut traced = |calls: u32, events: u32| -> Result<f64, Failure> {
            let home = self.home()?;
            let report = home.join("strace");
            let mut arguments = vec!["-f".into(), "-c".into(), "-qq".into(), "-o".into(), report.clone().into()];
            arguments.push(program.path.clone().into());
            arguments.extend(program.arguments.iter().cloned());
            let kind = Kind::Bridge(Program { path: strace.clone(), arguments });
            let mut session = self.begin(&kind, USUAL_FILES)?;
            session.initialized()?;
            session.call("echo", SMALL, BIG_PATIENCE)?;
            for _ in 0..calls {
                session.call("echo", SMALL, BIG_PATIENCE)?;
            }
            if events > 0 {
                let arguments = format!(r#"{{"count":{events}}}"#);
                session.events("burst", arguments.as_bytes(), events.into(), BIG_PATIENCE, &mut |_| {})?;
            }
            session.settle(Duration::from_millis(100))?;
            session.close()?;
            strace_total(&std::fs::read_to_string(&report)?)
        };
        let start = traced(0, 0)?;
        let calls = traced(TRACED_CALLS, 0)?;
        let events = traced(0, TRACED_EVENTS)?;
        put("syscalls.start", start);
        put("syscalls.call", (calls - start) / f64::from(TRACED_CALLS));
        put("syscalls.event", (events - start) / f64::from(TRACED_EVENTS));
        Ok(())
    }

    /// All of `targets` idle at the same time, since each must not wake anyway. Returns CPU and wake-ups of each.
    pub(crate) fn idle(&mut self, targets: &[&Target]) -> Vec<Result<(f64, f64), Failure>> {
        let mut sessions: Vec<_> = targets.iter().map(|target| self.idle_session(target)).collect();
        std::thread::sleep(self.scale.idle);
        let after = |(session, before): (Session, Usage)| -> Result<(f64, f64), Failure> {
            let after = session.usage()?.unwrap_or_default();
            session.close()?;
            Ok((millis(after.cpu.saturating_sub(before.cpu)), number(after.sleeps.saturating_sub(before.sleeps))))
        };
        sessions.drain(..).map(|session| session.and_then(after)).collect()
    }

    fn idle_session(&mut self, target: &Target) -> Result<(Session, Usage), Failure> {
        let mut session = self.open(target, USUAL_FILES)?;
        session.call("echo", SMALL, BIG_PATIENCE)?;
        session.settle(Duration::from_secs(1))?;
        let before = session.usage()?.unwrap_or_default();
        Ok((session, before))
    }

    fn measured_calls(&self, session: &mut Session) -> Result<Measured, Failure> {
        session.calls(500, Duration::from_secs(1))?;
        let (before, cpu) = (session.usage()?, session.cpu()?);
        let times = session.calls(self.scale.calls, self.scale.call_limit)?;
        let (after, cpu) = (session.usage()?, session.cpu()?.saturating_sub(cpu));
        let count = number(times.len() as u64).max(1.0);
        let wakeups = after.zip(before).map(|(after, before)| number(after.sleeps - before.sleeps) / count);
        Ok(Measured { times, cpu: millis(cpu) / count * 1e4, wakeups })
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

    fn open(&mut self, target: &Target, open_files: u64) -> Result<Session, Failure> {
        let home = self.home()?;
        self.starter(&target.kind, &home, open_files).open()
    }

    fn begin(&mut self, kind: &Kind, open_files: u64) -> Result<Session, Failure> {
        let home = self.home()?;
        self.starter(kind, &home, open_files).begin()
    }

    fn starter<'b>(&self, kind: &'b Kind, home: &'b Path, open_files: u64) -> Start<'b> {
        Start { kind, port: self.mock.port(), home, open_files, show_errors: self.show_errors }
    }

    /// A fresh directory, so that nothing is remembered from one run to the next.
    fn home(&mut self) -> Result<PathBuf, Failure> {
        self.homes += 1;
        let home = self.scratch.join(self.homes.to_string());
        std::fs::create_dir(&home)?;
        Ok(home)
    }
}

struct Measured {
    times: Vec<Duration>,
    /// Milliseconds per 10,000 calls.
    cpu: f64,
    wakeups: Option<f64>,
}

/// The number of calls in the last line of `strace -c`: per cent, seconds, µs a call, calls, (errors,) "total".
fn strace_total(report: &str) -> Result<f64, Failure> {
    report
        .lines()
        .rev()
        .find(|line| line.ends_with(" total"))
        .and_then(|line| line.split_ascii_whitespace().nth(3)?.parse().ok())
        .ok_or_else(|| Failure::new("strace gave no total"))
}

fn put_quantiles(times: Vec<Duration>, ids: [&'static str; 3], put: Put<'_>) {
    let mut times: Vec<f64> = times.into_iter().map(micros).collect();
    for (id, q) in ids.into_iter().zip([0.5, 0.99, 0.999]) {
        quantile(&mut times, q).into_iter().for_each(|value| put(id, value));
    }
}

fn put_rate(id: &'static str, flood: &Flood, put: Put<'_>) {
    put(id, number(flood.answered) / flood.elapsed.as_secs_f64().max(1e-9));
}

fn unanswered(flood: &Flood) -> f64 {
    number(flood.errors + flood.twice + flood.lost)
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

fn megabytes(bytes: usize) -> f64 {
    number(bytes as u64) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_found() {
        let report = "% time     seconds  usecs/call     calls    errors syscall\n100.00    0.000000           0        29         1 total\n";
        assert!((strace_total(report).unwrap() - 29.0).abs() < f64::EPSILON);
        let report = "100.00    0.000000           0        31           total";
        assert!((strace_total(report).unwrap() - 31.0).abs() < f64::EPSILON);
        assert!(strace_total("").is_err());
    }
}
