//! Many requests in flight.

use std::time::Duration;

use super::{FLOOD_LIMIT, Put, Stage, Target, mebibytes, millis, number, put_rate};
use crate::app::Failure;
use crate::app::process::OpenFiles;
use crate::app::session::Flood;

impl Stage<'_> {
    pub(super) fn flood64(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
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

    pub(super) fn flood512(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Usual)?;
        let mut failed = unanswered(&session.flood(512, 1_024, FLOOD_LIMIT)?);
        let flood = session.flood(512, self.scale.flood / 2, FLOOD_LIMIT)?;
        failed += unanswered(&flood);
        put_rate("flood512.rate", &flood, put);
        put("flood512.failed", failed);
        session.close().map(|_| ())
    }

    pub(super) fn flood4096(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        self.mock.reset()?;
        let mut session = self.open(target, OpenFiles::Usual)?;
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

    pub(super) fn few_files(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut session = self.open(target, OpenFiles::Only(256))?;
        let flood = session.flood(512, 4_096, FLOOD_LIMIT)?;
        put_rate("few_files.rate", &flood, put);
        put("few_files.failed", unanswered(&flood));
        session.close().map(|_| ())
    }
}

fn unanswered(flood: &Flood) -> f64 {
    number(flood.errors + flood.twice + flood.lost)
}
