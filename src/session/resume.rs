//! Answer streams that end before their answer, and taking them up again (C1; MCP 2025-11-25 "Resumability and Redelivery").

use std::time::Duration;

use bytes::Bytes;

use super::gone::status_says_session_gone;
use super::pending::{Key, State};
use super::recovery::{BACKOFF_MOST, PATIENCE};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{Failure, Head, Outgoing, Purpose, Session, Verb};

/// Pause before a stream is resumed when the server names none, and after [`MANY_RESUMES`].
const RESUME_PAUSE: Duration = Duration::from_millis(200);
const RESUME_PAUSE_LATER: Duration = Duration::from_secs(1);
/// A stream that was resumed this often is one that the server ends again and again, to be asked from time to time.
const MANY_RESUMES: u32 = 20;
/// Resumed streams in a row that bring nothing, before the request is given up.
const MAX_EMPTY_RESUMES: u32 = 5;

/// The least pause after so many streams in a row that brought no message, whatever short time the server names: at most `most`.
pub(super) fn idle_pause(streams: u32, most: Duration) -> Duration {
    match streams / MANY_RESUMES {
        0 => Duration::ZERO,
        times => RESUME_PAUSE_LATER.saturating_mul(1 << (times - 1).min(8)).min(most),
    }
}

impl Session {
    /// The answer stream of a request ended without its answer.
    pub(super) fn stream_over(&mut self, key: Key, failure: Option<&Failure>) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if let Some(failure) = failure
            && !failure.kind.is_network()
        {
            return self.fail(key, &Trouble::of(failure));
        }
        if pending.is_subscription() && self.now >= pending.sent_at + PATIENCE {
            pending.repeats = 0; // it ran well for a while
        }
        // A stream of a session that was replaced cannot be resumed.
        let resumable = pending.modern.is_none()
            && pending.generation == self.link.generation
            && pending.last_event_id.is_some()
            && self.link.endpoint().is_none();
        if resumable {
            return self.resume_later(key, failure);
        }
        self.cut_off(key, failure);
    }

    fn resume_later(&mut self, key: Key, failure: Option<&Failure>) {
        let now = self.now;
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if pending.stream_spoke {
            pending.empty_resumes = 0;
            pending.trouble_since = None;
        } else {
            pending.empty_resumes += 1;
            pending.trouble_since.get_or_insert(now);
        }
        if pending.empty_resumes > MAX_EMPTY_RESUMES {
            return self.cut_off(key, failure);
        }
        pending.resumes += 1;
        let own = if pending.resumes > MANY_RESUMES {
            RESUME_PAUSE_LATER
        } else {
            RESUME_PAUSE.saturating_mul(pending.empty_resumes + 1)
        };
        let idle = idle_pause(pending.idle_streams, RESUME_PAUSE_LATER);
        pending.idle_streams = pending.idle_streams.saturating_add(1);
        let pause = pending.retry.unwrap_or(own).max(idle);
        self.resume_at(key, pause);
    }

    /// Resumes its stream after a pause.
    pub(super) fn resume_at(&mut self, key: Key, pause: Duration) {
        let when = self.now + pause;
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::ResumeWaiting;
            pending.retry_at = when;
            self.timers.at(when, Timer::Retry(key));
        }
    }

    pub(super) fn resume(&mut self, key: Key) {
        let Some(pending) = self.pending.get(&key) else { return };
        if pending.generation != self.link.generation {
            return self.cut_off(key, None);
        }
        let last_event_id = pending.last_event_id.clone();
        let may_sign_in = self.may_sign_in(key);
        let mut outgoing = Outgoing { last_event_id, may_sign_in, ..self.outgoing(Verb::Get, Bytes::new()) };
        if pending.is_handshake() {
            // The session that is being opened has its id from the head of the stream that broke.
            outgoing.session_id.clone_from(&self.link.offered_session);
            outgoing.version = None;
        }
        let exchange = self.start(Purpose::Resume(key), outgoing);
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Resuming(exchange);
            pending.held_at = None;
            pending.stream_spoke = false;
        }
    }

    /// The server would not resume: the GET got an answer that is no stream.
    pub(super) fn resume_refused(&mut self, key: Key, head: &Head, body: &Bytes) {
        let Some(pending) = self.pending.get(&key) else { return };
        let generation = pending.generation;
        if !pending.is_handshake() && status_says_session_gone(head.status, body, pending.in_session) {
            self.lose_if_current(generation, "the server no longer knows the session");
        }
        if matches!(head.status, 408 | 429 | 500..=599) && generation == self.link.generation && self.resume_again(key)
        {
            return;
        }
        self.cut_off(key, None);
    }

    pub(super) fn resume_failed(&mut self, key: Key, failure: &Failure) {
        if failure.kind.is_network() && self.resume_again(key) {
            return;
        }
        if failure.kind.is_sign_in() {
            return self.fail(key, &Trouble::of(failure));
        }
        self.cut_off(key, Some(failure));
    }

    /// The server may be restarting.
    fn resume_again(&mut self, key: Key) -> bool {
        let now = self.now;
        let Some(pending) = self.pending.get_mut(&key) else { return true };
        let since = *pending.trouble_since.get_or_insert(now);
        if now >= since + PATIENCE {
            return false;
        }
        pending.resumes += 1;
        let resumes = pending.resumes;
        let pause = self.pause(resumes, BACKOFF_MOST);
        self.resume_at(key, pause);
        true
    }
}
