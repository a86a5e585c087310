//! Notifications, and fast calls beside slow ones.

use std::time::{Duration, Instant};

use super::{PATIENCE, Put, Stage, Target, median, micros, number, put_quantile};
use crate::app::Failure;
use crate::app::clock::monotonic_nanos;
use crate::app::process::OpenFiles;

/// Events of a burst.
const BURST: u64 = 100_000;
/// Events sent at a steady pace, and the time between them in microseconds.
const TICKS: u64 = 300;
const TICK: u64 = 2_000;

impl Stage<'_> {
    pub(super) fn burst(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
        let arguments = format!(r#"{{"count":{BURST}}}"#);
        let events = session.events("burst", arguments.as_bytes(), BURST, PATIENCE, &mut |_| {})?;
        put("burst.rate", number(events.received) / events.elapsed.as_secs_f64());
        put("burst.lost", number(BURST.saturating_sub(events.received)));
        put("burst.late", number(events.late));
        put("burst.disorder", number(events.disordered));
        session.close().map(|_| ())
    }

    pub(super) fn push(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        self.mock.reset()?;
        let mut session = self.open(target, OpenFiles::Usual)?;
        self.mock.wait_for_stream()?;
        let arguments = format!(r#"{{"count":{BURST}}}"#);
        let events = session.events("push", arguments.as_bytes(), BURST, PATIENCE, &mut |_| {})?;
        put("push.rate", number(events.received) / events.elapsed.as_secs_f64());
        put("push.lost", number(BURST.saturating_sub(events.received)));
        put("push.disorder", number(events.disordered));
        session.close().map(|_| ())
    }

    pub(super) fn ticks(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
        let mut delays = Vec::new();
        let arguments = format!(r#"{{"count":{TICKS},"micros":{TICK}}}"#);
        session.events("ticks", arguments.as_bytes(), TICKS, PATIENCE, &mut |sent| {
            delays.push(number(monotonic_nanos().saturating_sub(sent)) / 1e3);
        })?;
        let delay = median(&mut delays).ok_or_else(|| Failure::new("no event arrived"))?;
        put("ticks.p50", delay);
        session.close().map(|_| ())
    }

    pub(super) fn beside(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        // The fast calls end before the slow ones are answered.
        let slow = self.scale.slow;
        let fast = slow * 3 / 4;
        let mut session = self.open(target, OpenFiles::Usual)?;
        session.calls(200, Duration::from_secs(1))?;
        for (id, neighbours) in [("beside.p99", 1), ("beside100.p99", 100)] {
            session.begin_slow(neighbours, slow)?;
            let begun = Instant::now();
            session.settle(Duration::from_millis(100))?;
            let mut times: Vec<f64> = session.calls(usize::MAX, fast)?.into_iter().map(micros).collect();
            let late = begun.elapsed() > slow;
            put_quantile(id, &mut times, 0.99, put);
            if late && times.len() < 10 {
                return Err(Failure::new("fast calls waited for the slow ones"));
            }
            session.settle((slow + Duration::from_millis(200)).saturating_sub(begun.elapsed()))?;
        }
        session.close().map(|_| ())
    }
}
