//! Big messages.

use std::time::{Duration, Instant};

use super::{PATIENCE, Put, Stage, Target, mebibytes, median, number, put_quantile};
use crate::app::Failure;
use crate::app::message::filler;
use crate::app::process::OpenFiles;
use crate::app::session::{SMALL, Session};

/// Sizes of answers, in bytes.
const BIG: usize = 50_000_000;
const MEDIUM: usize = 1_000_000;
/// Size of a request, in bytes.
const REQUEST: usize = 10_000_000;

impl Stage<'_> {
    pub(super) fn big(&mut self, target: &Target, sse: bool, put: Put<'_>) -> Result<(), Failure> {
        let [rate, linear, peak, after] = if sse {
            ["sse.rate", "sse.linear", "memory.sse_peak", "memory.sse_after"]
        } else {
            ["json.rate", "json.linear", "memory.json_peak", "memory.json_after"]
        };
        let mut session = self.open(target, OpenFiles::Usual)?;
        let fetch = |session: &mut Session, bytes: usize, repeats: usize| -> Result<f64, Failure> {
            let mut rates = Vec::with_capacity(repeats);
            let start = Instant::now();
            // One that takes seconds is not repeated.
            while rates.len() < repeats && start.elapsed() < Duration::from_secs(5) {
                rates.push(megabytes(bytes) / session.fetch(bytes, sse, PATIENCE)?.as_secs_f64());
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

    pub(super) fn request(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let text = filler(REQUEST);
        let mut session = self.open(target, OpenFiles::Usual)?;
        session.call("echo", SMALL, PATIENCE)?;
        session.reset_peak()?;
        let mut rates = Vec::new();
        for _ in 0..self.scale.big_repeats {
            rates.push(megabytes(REQUEST) / session.upload(&text, PATIENCE)?.as_secs_f64());
        }
        put_quantile("request.rate", &mut rates, 0.5, put);
        if let Some(usage) = session.usage()? {
            put("memory.request_peak", mebibytes(usage.peak_kib));
        }
        session.close().map(|_| ())
    }
}

fn megabytes(bytes: usize) -> f64 {
    number(bytes as u64) / 1e6
}
