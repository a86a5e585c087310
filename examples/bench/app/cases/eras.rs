//! Both eras, both ways: what a translation costs over handing messages on.

use std::time::Duration;

use super::{PATIENCE, Put, Stage, Target, mebibytes, micros, number, put_quantile};
use crate::app::Failure;
use crate::app::message::Era;
use crate::app::process::OpenFiles;
use crate::app::results::quantile;
use crate::app::session::Session;

/// The cells, and the measures of their small calls. Each translated cell stands behind the one that it is compared with: the same
/// client, and a server of its era.
const CELLS: [(Era, Era, &str); 4] = [
    (Era::Legacy, Era::Legacy, "eras.legacy"),
    (Era::Legacy, Era::Modern, "eras.up"),
    (Era::Modern, Era::Modern, "eras.modern"),
    (Era::Modern, Era::Legacy, "eras.down"),
];
/// Calls of one cell before it is the next one's turn, so that a busy moment of the machine meets all of them.
const TURN: usize = 100;
/// Length of the big answer's text, in bytes.
const BIG: usize = 50_000_000;

impl Stage<'_> {
    pub(super) fn eras(&mut self, target: &Target, put: Put<'_>) -> Result<(), Failure> {
        let mut cells = Vec::with_capacity(CELLS.len());
        for (client, server, id) in CELLS {
            let home = self.home()?;
            let mut start = self.starter(&target.kind, &home, OpenFiles::Usual);
            (start.client, start.server) = (client, server);
            let mut session = start.open()?;
            session.calls(300, Duration::from_secs(1))?;
            cells.push((id, session, Vec::<f64>::new()));
        }
        for _ in 0..self.scale.calls / TURN {
            for (_, session, times) in &mut cells {
                times.extend(session.calls(TURN, self.scale.call_limit)?.into_iter().map(micros));
            }
        }
        let mut medians = Vec::new();
        for (id, _, times) in &mut cells {
            medians.extend(quantile(times, 0.5));
            put_quantile(id, times, 0.5, put);
        }
        if let [legacy, up, modern, down] = medians[..] {
            put("eras.up_ratio", up / legacy);
            put("eras.down_ratio", down / modern);
        }
        for (id, mut session, _) in cells {
            match id {
                "eras.up" => big(&mut session, ["eras.up_big", "eras.up_peak"], put)?,
                "eras.down" => big(&mut session, ["eras.down_big", "eras.down_peak"], put)?,
                _ => {}
            }
            session.close()?;
        }
        Ok(())
    }
}

fn big(session: &mut Session, [rate, peak]: [&'static str; 2], put: Put<'_>) -> Result<(), Failure> {
    session.reset_peak()?;
    let time = session.fetch(BIG, false, PATIENCE)?;
    put(rate, number(BIG as u64) / 1e6 / time.as_secs_f64());
    if let Some(usage) = session.usage()? {
        put(peak, mebibytes(usage.peak_kib));
    }
    Ok(())
}
