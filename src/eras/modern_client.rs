//! A modern client towards a legacy server.

use std::time::Duration;

use bytes::Bytes;

use super::Settings;
use super::translator::{Effects, Translator};
use crate::message::Id;

/// Behaves as a legacy client towards the session. See [`Translator`].
#[derive(Debug)]
pub struct ModernClient {}

impl ModernClient {
    /// One that has heard nothing yet.
    pub fn new(_settings: &Settings) -> Self {
        Self {}
    }
}

impl Translator for ModernClient {
    fn client_line(&mut self, _now: Duration, line: &Bytes, effects: &mut Effects) {
        effects.to_session.push(line.clone());
    }

    fn server_line(&mut self, _now: Duration, line: Bytes, effects: &mut Effects) {
        effects.to_client.push(line);
    }

    fn refused(&mut self, _now: Duration, line: Bytes, effects: &mut Effects) {
        effects.wrong_era = Some(vec![line]);
    }

    fn answer_lost(&mut self, _now: Duration, _id: &Id, _effects: &mut Effects) -> bool {
        false
    }

    fn client_gone(&mut self, _now: Duration, _effects: &mut Effects) {}

    fn finish(&mut self, _now: Duration, _effects: &mut Effects) {}

    fn tick(&mut self, _now: Duration, _effects: &mut Effects) {}

    fn next_deadline(&self) -> Option<Duration> {
        None
    }

    fn owes(&self) -> bool {
        false
    }

    fn accepts_lines(&self) -> bool {
        true
    }
}
