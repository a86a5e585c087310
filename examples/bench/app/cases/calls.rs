//! Start, exit, and single calls.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{FLOOD_LIMIT, PATIENCE, Put, Stage, Target, mebibytes, micros, millis, number, put_quantile, put_rate};
use crate::app::Failure;
use crate::app::process::{OpenFiles, bind};
use crate::app::session::{Kind, SMALL, Session};

impl Stage<'_> {
    pub(super) fn start(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (mut times, mut exits, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
        let starts = if target.peer { self.scale.peer_starts } else { self.scale.starts };
        for _ in 0..starts {
            self.mock.reset()?;
            let mut time = Duration::ZERO;
            if matches!(target.kind, Kind::Direct) {
                // The least that a bridge can take: a process that copies, and the server.
                time += self.begin(self.pipe, OpenFiles::Usual)?.started_in;
            }
            let mut session = self.begin(&target.kind, OpenFiles::Usual)?;
            times.push(millis(time + session.started_in));
            let first = self.mock.counts()?.requests;
            session.initialized()?;
            session.call("echo", SMALL, PATIENCE)?;
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
        put_quantile("start.ms", &mut times, 0.5, put);
        put_quantile("start.cpu", &mut cpus, 0.5, put);
        if !matches!(target.kind, Kind::Direct) {
            put_quantile("start.exit", &mut exits, 0.5, put);
        }
        Ok(())
    }

    pub(super) fn calls(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
        session.call("echo", SMALL, PATIENCE)?;
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

    pub(super) fn pinned(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
        let measured = self.measured_calls(&mut session)?;
        put_quantiles(measured.times, ["pinned.p50", "pinned.p99", "pinned.p999"], put);
        put("pinned.cpu", measured.cpu);
        session.close().map(|_| ())
    }

    /// The bridge alone on the last CPU; driver and server share the first.
    pub(super) fn one_cpu(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (Some(&first), Some(&last)) = (self.cpus.first(), self.cpus.last()) else { return Ok(()) };
        let (ours, its) = (BTreeSet::from([first]), BTreeSet::from([last]));
        self.bound(&ours, &its, |stage| {
            let mut session = stage.open(target, OpenFiles::Usual)?;
            // It was started on its own CPU and stays there.
            bind(None, &ours)?;
            session.flood(64, 1_000, FLOOD_LIMIT)?;
            let flood = session.flood(64, stage.scale.flood / 2, FLOOD_LIMIT)?;
            put_rate("one_cpu.rate", &flood, put);
            let mut times = session.paced(350, stage.scale.paced)?.into_iter().map(micros).collect::<Vec<_>>();
            for (id, q) in [("one_cpu.p50", 0.5), ("one_cpu.p99", 0.99)] {
                put_quantile(id, &mut times, q, put);
            }
            session.close().map(|_| ())
        })
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
}

struct Measured {
    times: Vec<Duration>,
    /// Milliseconds per 10,000 calls.
    cpu: f64,
    wakeups: Option<f64>,
}

fn put_quantiles(times: Vec<Duration>, ids: [&'static str; 3], put: Put<'_>) {
    let mut times: Vec<f64> = times.into_iter().map(micros).collect();
    for (id, q) in ids.into_iter().zip([0.5, 0.99, 0.999]) {
        put_quantile(id, &mut times, q, put);
    }
}
