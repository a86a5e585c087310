//! What a bridge does when nothing happens, and its system calls.

use std::time::Duration;

use super::{PATIENCE, Put, Stage, Target, millis, number};
use crate::app::Failure;
use crate::app::process::{OpenFiles, Program, Usage};
use crate::app::session::{Kind, SMALL, Session};

/// Calls and events that are traced; tracing makes each of them slow.
const TRACED_CALLS: u32 = 500;
const TRACED_EVENTS: u32 = 5_000;

impl Stage<'_> {
    /// Counts system calls by strace, in three runs whose differences are what a call and an event cost.
    pub(super) fn syscalls(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let (Some(strace), Kind::Bridge(program)) = (self.strace, &target.kind) else { return Ok(()) };
        let strace = strace.to_owned();
        let mut traced = |calls: u32, events: u32| -> Result<f64, Failure> {
            let home = self.home()?;
            let report = home.join("strace");
            let mut arguments = vec!["-f".into(), "-c".into(), "-qq".into(), "-o".into(), report.clone().into()];
            arguments.push(program.path.clone().into());
            arguments.extend(program.arguments.iter().cloned());
            let kind = Kind::Bridge(Program { path: strace.clone(), arguments });
            let mut session = self.begin(&kind, OpenFiles::Usual)?;
            session.initialized()?;
            session.call("echo", SMALL, PATIENCE)?;
            for _ in 0..calls {
                session.call("echo", SMALL, PATIENCE)?;
            }
            if events > 0 {
                let arguments = format!(r#"{{"count":{events}}}"#);
                session.events("burst", arguments.as_bytes(), events.into(), PATIENCE, &mut |_| {})?;
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
        let mut session = self.open(target, OpenFiles::Usual)?;
        session.call("echo", SMALL, PATIENCE)?;
        session.settle(Duration::from_secs(1))?;
        let before = session.usage()?.unwrap_or_default();
        Ok((session, before))
    }
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
