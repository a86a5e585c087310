//! Messages of the client that want no response: its notifications, and its answers to requests of the server.

use std::time::Duration;

use bytes::Bytes;

use super::client::modern_post;
use super::gone::status_says_session_gone;
use super::life::Closing;
use super::link::Item;
use super::{Failure, Head, Level, Purpose, Session, Verb};
use crate::era::ModernHeaders;

/// Times that one is sent again.
const MAX_REPEATS: u32 = 8;
/// First and longest pause before it is.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that is waited for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

/// One of them. Made by [`Session::hand_over`], ended by [`Session::done_with`], so that their number and size are known (R8).
#[derive(Debug)]
pub(super) struct Forward {
    text: Bytes,
    modern: Option<ModernHeaders>,
    /// The session whose request a response answers: in another session it means nothing.
    only_generation: Option<u32>,
    /// The session to which it was last sent, and whether that one had an id.
    generation: u32,
    in_session: bool,
    repeats: u32,
}

impl Forward {
    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }

    /// Not bound to a session, as the answer to a request of the server is.
    pub(super) fn is_the_clients(&self) -> bool {
        self.only_generation.is_none()
    }
}

/// How many there are, and how large.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Session {
    /// Takes a message that wants no response.
    pub(super) fn hand_over(&mut self, text: Bytes, modern: Option<ModernHeaders>, only_generation: Option<u32>) {
        if matches!(self.closing, Some(Closing::Goodbye | Closing::Done)) {
            return; // the way to the server is closed already
        }
        self.forwards.count += 1;
        self.forwards.bytes += text.len();
        let forward = Forward { text, modern, only_generation, generation: 0, in_session: false, repeats: 0 };
        if forward.modern.is_some() { self.forward(forward) } else { self.enqueue(Item::Forward(forward)) }
    }

    /// It is delivered, or given up.
    #[allow(clippy::needless_pass_by_value)] // taken, so that it cannot be ended twice
    pub(super) fn done_with(&mut self, forward: Forward) {
        self.forwards.count = self.forwards.count.saturating_sub(1);
        self.forwards.bytes = self.forwards.bytes.saturating_sub(forward.text.len());
    }

    /// Sends it.
    pub(super) fn forward(&mut self, mut forward: Forward) {
        if forward.only_generation.is_some_and(|generation| generation != self.link.generation) {
            self.log(Level::Debug, "dropped a message that belongs to a session that is gone");
            return self.done_with(forward);
        }
        let text = forward.text.clone();
        let outgoing = match &forward.modern {
            Some(modern) => modern_post(text, Some(modern.clone())),
            None => self.outgoing(Verb::Post, text),
        };
        forward.generation = self.link.generation;
        forward.in_session = self.link.in_session();
        self.start(Purpose::Forward(forward), outgoing);
    }

    pub(super) fn forward_answer(&mut self, forward: Forward, head: &Head, body: &Bytes) {
        if (200..300).contains(&head.status) {
            return self.done_with(forward);
        }
        let lost = forward.modern.is_none()
            && self.link.had_session()
            && status_says_session_gone(head.status, body, forward.in_session);
        if lost {
            // Whatever it said is about the session that is gone, except what holds for any session.
            self.lose_if_current(forward.generation, "the server no longer knows the session");
            if forward.only_generation.is_some() || forward.repeats > 0 || self.closing.is_some() {
                return self.done_with(forward);
            }
            return self.enqueue(Item::Forward(Forward { repeats: 1, ..forward }));
        }
        let busy = matches!(head.status, 429 | 503);
        let pause = head.retry_after.unwrap_or_default();
        if busy && pause <= RETRY_AFTER_MOST && forward.repeats < MAX_REPEATS {
            return self.forward_later(forward, pause);
        }
        self.log(
            Level::Warn,
            format!("{} refused a message of the client (HTTP {})", self.settings.server, head.status),
        );
        self.done_with(forward);
    }

    pub(super) fn forward_failed(&mut self, forward: Forward, failure: &Failure) {
        if failure.unsent && failure.kind.is_network() && forward.repeats < MAX_REPEATS {
            return self.forward_later(forward, Duration::ZERO);
        }
        self.log(Level::Warn, format!("a message of the client did not reach the server: {}", failure.logged()));
        self.done_with(forward);
    }

    fn forward_later(&mut self, forward: Forward, at_least: Duration) {
        let repeats = forward.repeats + 1;
        let pause = PAUSE_FIRST.saturating_mul(1 << forward.repeats.min(8)).min(PAUSE_MOST).max(at_least);
        let when = self.now + pause;
        self.last_key += 1;
        self.link.later.insert((when, self.last_key), Forward { repeats, ..forward });
        self.timers.at(when, super::timers::Timer::Later);
    }

    pub(super) fn send_later_forwards(&mut self) {
        while let Some(entry) = self.link.later.first_entry()
            && entry.key().0 <= self.now
        {
            let forward = entry.remove();
            if forward.modern.is_some() { self.forward(forward) } else { self.enqueue(Item::Forward(forward)) }
        }
    }
}
