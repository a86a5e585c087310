//! Signing in, as the client sees it (S3).
//!
//! The sign-in itself is elsewhere: it holds exchanges that were refused with 401 or 403 until it has a token, and then repeats them. Here
//! they are requests that wait; what is decided here is how long, and what the client sees meanwhile:
//! - `initialize` is answered within its own time (S2): as in the last run, else provisionally (`provisional.rs`). It goes on as ours.
//! - Any other request that waits for the sign-in is answered once it is older than `--hold`: `tools/list` with the one tool `sign_in`
//!   (`sign_in_tool.rs`), the rest with an error that names the address. Its exchange is dropped; the server refused it, so nothing is lost.
//! - A sign-in that a person was asked for and that came to nothing is no end: `initialize` is answered all the same, the reason is told, and
//!   the tool begins another. One that could not even begin is an error that says what must be mended.
//! - A client that takes questions with an address is asked to open it (`elicitation.rs`).
//! - Afterwards the client is told to ask for its lists again, if it was given others than the server's.
//!
//! Which requests wait is known exactly: an exchange says so ([`Input::Held`](super::Input::Held)), and while one is wanted, so is what stands
//! in the queue behind it. A slow call that the server carries out is not cut off because another request wants a sign-in.
//!
//! A request of the bridge's own begins no sign-in, unless the client waits for it (A5); and after the end of stdin no person is waited for.
//!
//! The address holds the sign-in's `state`, and what a person pastes may be redeemed for a token. Neither is ever in a log line, and
//! what is pasted is in no message to the server.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::elicitation::Elicitations;
use super::life::Closing;
use super::link::{Item, Phase};
use super::pending::{Key, Origin, Pending, State};
use super::sign_in_tool::{self, Asked};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{Action, ExchangeId, FailureKind, Purpose, Session};

/// Least time between two looks at what waits: so much later than `--hold` an answer may come.
const STEP: Duration = Duration::from_millis(100);

/// News of the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// A person is wanted. Exchanges wait for it. May come again, as when the address changes.
    Wanted {
        /// Where the person signs in: passed the policy, ASCII. It holds the sign-in's `state`: for the person alone, never for the log.
        url: Box<str>,
        /// One sentence that says what to do, as over SSH, without the address; empty when a browser was opened.
        advice: Box<str>,
    },
    /// There is a token. What waited goes on by itself.
    Done,
    /// It came to nothing. What waited fails by itself ([`FailureKind::SignIn`](super::FailureKind)).
    Ended {
        /// One sentence: what happened.
        message: Box<str>,
        /// What to do.
        hint: Option<Box<str>>,
    },
    /// What the person pasted is not the answer. The sign-in goes on.
    NotTaken {
        /// One sentence: why.
        message: Box<str>,
    },
}

/// What the session asks of the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The user asked for it (the tool `sign_in`): begin, or begin anew after a refusal, and open the browser. Said of one that is under way,
    /// too: its page may be lost, or was never opened.
    Begin,
    /// The user pasted the address that the browser ended at, or the code. A secret: never logged.
    Paste(Box<str>),
    /// What the client calls itself (`clientInfo`), for the sign-in's page.
    Client(Box<str>),
}

/// Where the sign-in is, by its last news.
#[derive(Debug, Default)]
pub(super) enum Stage {
    /// There was none.
    #[default]
    Silent,
    Wanted {
        url: Box<str>,
        advice: Box<str>,
    },
    Done,
    Ended {
        message: Box<str>,
        hint: Option<Box<str>>,
    },
}

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct SigningIn {
    pub(super) stage: Stage,
    /// Why the last one came to nothing. Another may have begun by itself since then, quietly.
    pub(super) last: Option<Box<str>>,
    /// A person was wanted once, so one can be again.
    wanted_once: bool,
    /// The client was shown the tool: its calls are ours.
    pub(super) offered: bool,
    /// The client was given something else than the server's lists: a legacy client, or one of the modern era.
    pub(super) shown: bool,
    pub(super) shown_modern: bool,
    /// When the next look at what waits is due.
    look_at: Option<Duration>,
    /// Calls of the tool that wait for news.
    pub(super) calls: VecDeque<(Key, Asked)>,
    pub(super) elicitations: Elicitations,
    /// The sign-in knows what the client calls itself.
    pub(super) client_named: bool,
}

impl SigningIn {
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.stage, Stage::Wanted { .. })
    }

    /// A person was asked, and nobody is signed in: from then on only their own wish begins another.
    pub(super) fn is_open(&self) -> bool {
        self.wanted_once && !matches!(self.stage, Stage::Done)
    }

    /// The tool was shown, or there was reason to: what is pasted into it is ours, however late.
    pub(super) fn is_spoken_of(&self) -> bool {
        self.offered || self.wanted_once || matches!(self.stage, Stage::Ended { .. })
    }
}

impl Session {
    pub(super) fn on_sign_in(&mut self, news: SignIn) {
        if matches!(self.closing, Some(Closing::Goodbye | Closing::Done)) {
            return; // all is answered
        }
        match news {
            SignIn::Wanted { url, advice } => {
                self.sign_in.stage = Stage::Wanted { url, advice };
                self.sign_in.wanted_once = true;
                self.tell_address();
                self.elicit();
                self.look_at(self.now);
            }
            SignIn::Done => {
                self.sign_in.stage = Stage::Done;
                self.sign_in.last = None;
                self.nothing_waits();
                self.answer_sign_in_calls();
                self.elicitation_over(true);
                self.after_sign_in();
            }
            SignIn::Ended { message, hint } => {
                self.sign_in.last = Some(message.clone());
                self.sign_in.stage = Stage::Ended { message, hint };
                self.nothing_waits();
                self.answer_sign_in_calls();
                self.elicitation_over(false);
            }
            SignIn::NotTaken { message } => self.not_taken(&message),
        }
    }

    /// An exchange was refused and waits for the sign-in.
    pub(super) fn on_held(&mut self, exchange: ExchangeId) {
        let key = match (self.exchanges.get(&exchange), self.link.phase) {
            (Some(Purpose::Request(key) | Purpose::Resume(key)), _) => *key,
            (Some(Purpose::SseStream), Phase::Opening(key)) => key,
            _ => return,
        };
        let now = self.now;
        let Some(pending) = self.pending.get_mut(&key) else { return };
        pending.held_at.get_or_insert(now);
        // What stands in the queue behind a handshake waits with it.
        let due = if pending.is_handshake() { now } else { self.hold_over_at(key).unwrap_or(now) };
        self.look_at(due);
    }

    // ---- how long ----

    /// A request began to wait for something; perhaps for the sign-in.
    pub(super) fn may_wait_for_sign_in(&mut self, key: Key) {
        if let Some(due) = self.hold_over_at(key) {
            self.look_at(due);
        }
    }

    /// When a request that waits for the sign-in has waited long enough; `None` if it does not wait for it.
    fn hold_over_at(&self, key: Key) -> Option<Duration> {
        let pending = self.pending.get(&key)?;
        if pending.origin != Origin::Client || pending.is_handshake() || pending.is_subscription() {
            return None; // nobody waits for the answer to a subscription
        }
        let since = match pending.state {
            State::Sent(_) => pending.held_at.map(|_| pending.arrived),
            // It was carried out up to here; only its stream is refused.
            State::Resuming(_) => pending.held_at,
            State::Queued | State::Held => self.queue_is_held().then_some(pending.arrived),
            _ => None,
        };
        // The modern era opens with `server/discover`: a client that gets no answer to it is not there yet.
        let hold = if is_discovery(pending) {
            self.settings.hold.min(self.settings.initialize_timeout)
        } else {
            self.settings.hold
        };
        since.map(|since| since + hold)
    }

    /// What stands in the queue waits for the sign-in.
    pub(super) fn queue_is_held(&self) -> bool {
        let opening = match self.link.phase {
            Phase::Opening(key) => self.pending.get(&key).is_some_and(|pending| pending.held_at.is_some()),
            _ => false,
        };
        opening || self.sign_in.is_wanted()
    }

    fn look_at(&mut self, when: Duration) {
        if self.sign_in.look_at.is_none_or(|set| when < set) {
            self.sign_in.look_at = Some(when);
            self.timers.at(when, Timer::Hold);
        }
    }

    /// Answers what has waited long enough.
    pub(super) fn look_at_held(&mut self) {
        if self.sign_in.look_at.is_none_or(|when| self.now < when) {
            return; // an earlier look took its place
        }
        self.sign_in.look_at = None;
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for key in self.pending.keys() {
            match self.hold_over_at(*key) {
                Some(when) if when <= self.now => due.push(*key),
                Some(when) => next = Some(next.map_or(when, |next| next.min(when))),
                None => {}
            }
        }
        if !due.is_empty() {
            due.sort_unstable();
            for key in due {
                self.answer_held(key);
            }
            let pending = &self.pending;
            self.link.queue.retain(|item| !matches!(item, Item::Request(key) if !pending.contains_key(key)));
        }
        if let Some(next) = next {
            self.look_at(next.max(self.now + STEP));
        }
    }

    fn answer_held(&mut self, key: Key) {
        let Some(pending) = self.remove(key) else { return };
        if let Some(exchange) = pending.exchange() {
            self.abort(exchange);
        }
        let trouble = self.sign_in_trouble();
        let response = self.without_sign_in(&pending, &trouble, true);
        self.respond(pending.batch, response);
    }

    /// The answer to a request that cannot be carried out without a sign-in. `possible`: there may yet be one, so a client that opens may
    /// be told so.
    pub(super) fn without_sign_in(&mut self, pending: &Pending, trouble: &Trouble, possible: bool) -> Bytes {
        if possible && self.discovers(pending) {
            return self.discover_provisionally(&pending.id);
        }
        if pending.method.ends_with("/list") {
            match pending.modern {
                Some(_) => self.sign_in.shown_modern = true,
                None => self.sign_in.shown = true,
            }
        }
        // A server that has a tool of that name keeps it: what a person pastes must not go there.
        if &*pending.method == "tools/list" && !self.tools.knows(sign_in_tool::NAME) {
            self.sign_in_list(pending, trouble)
        } else {
            trouble.response(&pending.id)
        }
    }

    /// A client of the modern era opens with this. What a translator asks is not for the client.
    fn discovers(&self, pending: &Pending) -> bool {
        is_discovery(pending) && !self.watch.translates()
    }

    /// For the client alone: it holds the address.
    fn sign_in_trouble(&self) -> Trouble {
        let server = &self.settings.server;
        let message = match &self.sign_in.stage {
            Stage::Wanted { url, advice } if advice.is_empty() => {
                format!("To use {server}, sign in first and then try again: {url}")
            }
            Stage::Wanted { url, advice } => {
                format!("To use {server}, sign in first and then try again: {url} ({advice})")
            }
            _ => format!("To use {server}, sign in first and then try again; the sign-in is being prepared"),
        };
        let message = match &self.sign_in.last {
            Some(last) => format!("{message} (the last try: {last})"),
            None => message,
        };
        Trouble::new(FailureKind::SignIn.word(), message).hint("the tool sign_in gives the address, too")
    }

    /// A request waits for the sign-in and for nothing else.
    pub(super) fn waits_for_sign_in(&self, pending: &Pending) -> bool {
        pending.held_at.is_some()
            || match pending.state {
                State::SignIn => true,
                State::Queued | State::Held => self.queue_is_held(),
                State::Sent(_) => pending.is_handshake() && self.sign_in.is_wanted(),
                _ => false,
            }
    }

    /// When to look again at a wait that is longer because of the sign-in: it is under way, or was until a moment ago.
    pub(super) fn look_again_at(&self, key: Key, patience: Duration) -> Option<Duration> {
        let pending = self.pending.get(&key)?;
        if pending.held_at.is_some() || self.sign_in.is_wanted() {
            return Some(self.now + patience.max(STEP));
        }
        pending.signed_in_at.map(|when| when + patience).filter(|when| *when > self.now)
    }

    /// The sign-in is over. What waited for it goes on, or fails, by itself; from here on each has its own time again.
    fn nothing_waits(&mut self) {
        let now = self.now;
        for pending in self.pending.values_mut() {
            if pending.held_at.take().is_some() || pending.is_handshake() {
                pending.signed_in_at = Some(now);
                pending.sent_at = now;
            }
            if pending.state == State::Queued {
                pending.queued_at = now;
            }
        }
    }

    // ---- afterwards ----

    /// What was missing without a token is had now.
    fn after_sign_in(&mut self) {
        if self.closing.is_some() {
            return;
        }
        if std::mem::take(&mut self.sign_in.shown_modern) {
            self.refresh_subscribers();
        }
        match self.link.phase {
            Phase::Lost => {
                self.link.announce |= self.sign_in.shown;
                if self.link.initialize.is_some() {
                    self.reopen();
                }
            }
            Phase::Opening(_) | Phase::Opened | Phase::Greeting | Phase::HeadStart => {
                self.link.announce |= self.sign_in.shown;
            }
            Phase::Idle | Phase::Ready => {
                if self.sign_in.shown {
                    self.announce();
                }
                self.listen_after_sign_in();
            }
        }
    }

    /// A request of the client failed for want of a token: who was signed in is so no more.
    pub(super) fn signed_out(&mut self) {
        self.sign_in.offered = true; // the error may name the tool
        if matches!(self.sign_in.stage, Stage::Done) {
            self.sign_in.stage = Stage::Silent;
        }
    }

    // ---- who may begin one ----

    /// Whether a request may begin a sign-in: somebody must wait for it (A5: no browser window without a user behind it).
    pub(super) fn may_sign_in(&self, key: Key) -> bool {
        self.pending.get(&key).is_some_and(|pending| match pending.origin {
            Origin::Client | Origin::ListTools => true,
            Origin::Reopen => self.link.forever || self.pending.values().any(Pending::waits_in_line),
            Origin::Ping | Origin::Replay => false,
        })
    }

    /// A refused request of our own that was sent when nobody waited, while somebody does now.
    pub(super) fn is_wanted_by_now(&self, key: Key) -> bool {
        self.pending.get(&key).is_some_and(|pending| pending.quiet) && self.may_sign_in(key)
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        self.out.push(Action::SignIn(wish));
    }
}

fn is_discovery(pending: &Pending) -> bool {
    pending.modern.is_some() && &*pending.method == "server/discover"
}
