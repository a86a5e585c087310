//! Both eras, both ways (product section E): every client reaches every server.
//!
//! [`Eras`] owns the [`Session`] and has the same face. While client and server are of one era it adds nothing: lines and
//! actions go through untouched. When the server turns out to be of the other era, a [`Translator`] sits between the client's
//! lines and the session.
//! ```text
//!           ┌──────────────────── Eras ────────────────────┐
//!  client ──┤ legacy_client: speaks modern to the session  ├── Session ── server
//!           │ modern_client: speaks legacy to the session  │
//!           └──────────────────────────────────────────────┘
//! ```

mod capabilities;
pub mod legacy_client;
pub mod modern_client;
pub mod translator;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::era::{self, Era};
use crate::message::{self, Id, Message, Parsed};
use crate::session::{Action, Adopted, EraNews, Input, Level, Session};

use self::legacy_client::LegacyClient;
use self::modern_client::ModernClient;

pub use self::translator::{Effects, Learnt, Translator};

/// How often a server may be found to be of the other era within [`SWITCH_WINDOW`]. Beyond it, its refusals go to the client.
const MAX_SWITCHES: u32 = 4;
const SWITCH_WINDOW: Duration = Duration::from_secs(60);
/// Messages that may be on their way to the server before a translator's own answers to it are left out (R8).
pub const MAX_ANSWERS: usize = 128;

/// Log levels (RFC 5424 §6.2.1, as MCP names them), the most verbose first.
const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// `--protocol`: the server's era.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Found out by the first request (E1).
    #[default]
    Auto,
    /// The server speaks revisions up to 2025-11-25.
    Legacy,
    /// The server speaks 2026-07-28 or later.
    Modern,
}

/// What the translators need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's era, if the user says so.
    pub protocol: Protocol,
    /// The server as people know it, for error texts.
    pub server: String,
    /// `initialize` is answered within this time (S2).
    pub initialize_timeout: Duration,
    /// How long requests in flight may still finish after stdin ended (S5).
    pub drain: Duration,
    /// Makes the ids of the bridge's own requests unlike any id of the client: random letters and digits.
    pub nonce: String,
    /// Seals what goes through the client and must come back unchanged (`requestState`). New for every process.
    pub key: SealKey,
    /// Rounds of questions that one request may take (E4).
    pub max_rounds: u32,
}

/// A secret of this process.
#[derive(Clone)]
pub struct SealKey(pub [u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: Protocol::Auto,
            server: "the server".into(),
            initialize_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(2),
            nonce: "0".into(),
            key: SealKey([0; 32]),
            max_rounds: 10,
        }
    }
}

/// The session, and a translator where one is needed. See the module's text.
#[derive(Debug)]
pub struct Eras {
    session: Session,
    settings: Settings,
    translator: Option<Active>,
    /// The era that the server refuses, as the user says or an earlier run found out. The first line of the client decides whether that
    /// matters.
    refuses: Option<Era>,
    /// Counts translators: the ids of one are not those of another.
    started: u32,
    switches: u32,
    switched_at: Duration,
    /// The session has left, and so must we.
    leaving: bool,
    /// What the session wants done, on its way through the translator.
    inner: Vec<Action>,
}

/// The translator at work.
#[derive(Debug)]
struct Active {
    machine: Box<dyn Translator>,
    /// The era of the messages that it gives to the session.
    speaks: Era,
}

/// What goes to the session.
enum ToSession {
    Line(Bytes),
    Settled(Bytes),
    /// Left out if too much is on its way.
    Answer(Bytes),
}

impl Eras {
    /// Nothing heard yet.
    pub fn new(settings: Settings, mut session: Session) -> Self {
        session.watch_eras(settings.protocol == Protocol::Auto);
        let refuses = match settings.protocol {
            Protocol::Auto => session.memory().and_then(|memory| memory.refuses),
            Protocol::Legacy => Some(Era::Modern),
            Protocol::Modern => Some(Era::Legacy),
        };
        Self {
            session,
            settings,
            translator: None,
            refuses,
            started: 0,
            switches: 0,
            switched_at: Duration::ZERO,
            leaving: false,
            inner: Vec::new(),
        }
    }

    /// As [`Session::handle`].
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        if self.translator.is_none()
            && let Some(refused) = self.refuses
            && let Input::Line(line) = &input
        {
            self.decide(refused, line);
        }
        if self.translator.is_some() {
            self.translate(now, input, actions);
        } else {
            self.session.handle(now, input, actions);
            if self.session.has_era_news() {
                self.follow_news(now, actions);
            }
        }
        if self.leaving {
            self.leave(now, actions);
        }
    }

    /// As [`Session::next_deadline`].
    pub fn next_deadline(&mut self) -> Option<Duration> {
        let translator = self.translator.as_ref().and_then(|active| active.machine.next_deadline());
        self.session.next_deadline().into_iter().chain(translator).min()
    }

    /// As [`Session::accepts_lines`].
    pub fn accepts_lines(&self) -> bool {
        self.session.accepts_lines() && self.translator.as_ref().is_none_or(|active| active.machine.accepts_lines())
    }

    /// The session, for tests.
    #[doc(hidden)]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether messages are translated now, for tests.
    #[doc(hidden)]
    pub fn translates(&self) -> bool {
        self.translator.is_some()
    }

    // ---- which era ----

    /// A client of the era that the server refuses is translated from its first line on.
    fn decide(&mut self, refused: Era, line: &[u8]) {
        let Some(era) = era_of(line) else { return };
        if era == refused {
            self.start(refused);
        }
        if self.settings.protocol == Protocol::Auto {
            // From here on, the server's answers tell.
            self.refuses = None;
        }
    }

    fn start(&mut self, refused: Era) {
        let settings = self.settings_of_next();
        let active = match refused {
            Era::Legacy => {
                let remembered = self.session.memory().map(|memory| (memory.requested.clone(), memory.result.clone()));
                Active { machine: Box::new(LegacyClient::new(&settings, remembered)), speaks: Era::Modern }
            }
            Era::Modern => Active { machine: Box::new(ModernClient::new(&settings)), speaks: Era::Legacy },
        };
        self.translator = Some(active);
    }

    fn settings_of_next(&mut self) -> Settings {
        self.started += 1;
        let mut settings = self.settings.clone();
        if self.started > 1 {
            settings.nonce = format!("{}-{}", settings.nonce, self.started);
        }
        settings
    }

    /// The server turned out to be of the other era.
    fn follow_news(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for EraNews { refuses, lines, adopted } in self.session.take_era_news() {
            // A client that has a legacy session keeps it: one stray request of the other era must not cost it that.
            let stray = refuses == Era::Modern && self.session.has_legacy_session();
            if self.translator.is_none() && (stray || !self.may_switch(now)) {
                // The client said them before stdin ended, if it has: the session takes them all before it leaves.
                self.session.set_translator(Some(true));
                for line in lines {
                    self.session.handle_settled(now, line, actions);
                }
                self.session.set_translator(None);
                if self.session.is_draining() {
                    self.session.handle(now, Input::Tick, actions);
                }
                continue;
            }
            let mut effects = Effects::default();
            if self.translator.is_none() {
                self.begin(now, refuses, adopted.as_ref(), &mut effects);
                if self.session.is_draining()
                    && let Some(active) = &mut self.translator
                {
                    active.machine.client_gone(now, &mut effects);
                }
            }
            for line in lines {
                let Some(active) = &mut self.translator else { break };
                active.given_back(now, refuses, line, &mut effects);
            }
            self.carry_out(now, effects, actions);
        }
    }

    fn begin(&mut self, now: Duration, refuses: Era, adopted: Option<&Adopted>, effects: &mut Effects) {
        self.refuses = None;
        match (refuses, adopted) {
            (Era::Legacy, Some(adopted)) => {
                let mut machine = LegacyClient::new(&self.settings_of_next(), None);
                machine.adopt(now, adopted, effects);
                self.translator = Some(Active { machine: Box::new(machine), speaks: Era::Modern });
            }
            _ => self.start(refuses),
        }
    }

    /// A server that is now this and now that would keep us busy for ever.
    fn may_switch(&mut self, now: Duration) -> bool {
        // From the first switch on: a client that goes on asking must not keep the bridge from ever following the server again.
        if self.switches == 0 || now > self.switched_at + SWITCH_WINDOW {
            self.switches = 0;
            self.switched_at = now;
        }
        self.switches = self.switches.saturating_add(1);
        self.switches <= MAX_SWITCHES
    }

    // ---- translating ----

    fn translate(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        let mut effects = Effects::default();
        let Some(active) = &mut self.translator else { return self.session.handle(now, input, actions) };
        let machine = &mut active.machine;
        let rest = match input {
            Input::Line(line) => {
                machine.client_line(now, &line, &mut effects);
                None
            }
            Input::TooLong { id: Some(id), is_request: false, .. } if machine.answer_lost(now, &id, &mut effects) => {
                None
            }
            // The id belongs to a request that still waits.
            Input::TooLong { id: Some(id), is_request: true, length, limit } if machine.holds(&id) => {
                Some(Input::TooLong { id: None, is_request: true, length, limit })
            }
            Input::ClientGone | Input::Terminate => {
                machine.client_gone(now, &mut effects);
                Some(input)
            }
            Input::SignIn(news) => {
                machine.signing_in(now, &news, &mut effects);
                Some(Input::SignIn(news))
            }
            other => Some(other),
        };
        self.carry_out(now, effects, actions);
        if let Some(input) = rest {
            let effects = self.feed(now, actions, |session, inner| session.handle(now, input, inner));
            self.carry_out(now, effects, actions);
        }
        if let Some(active) = &mut self.translator
            && active.machine.next_deadline().is_some_and(|due| due <= now)
        {
            let mut effects = Effects::default();
            active.machine.tick(now, &mut effects);
            self.carry_out(now, effects, actions);
        }
        self.let_leave(now, actions);
    }

    /// Does what a translator wants done, and what follows from it.
    fn carry_out(&mut self, now: Duration, effects: Effects, actions: &mut Vec<Action>) {
        let mut waiting = VecDeque::new();
        let mut next = Some(effects);
        while let Some(effects) = next.take() {
            let Effects { to_session, answers, settled, to_client, log, learnt, wrong_era, adopted } = effects;
            actions.extend(log.into_iter().map(|(level, text)| Action::Log(level, text)));
            actions.extend(to_client.into_iter().map(Action::Write));
            if let Some(Learnt::Confirmed(answer)) = learnt
                && let Some(active) = &self.translator
            {
                let refuses = if active.speaks == Era::Modern { Era::Legacy } else { Era::Modern };
                self.session.remember_era(Some(refuses), answer, actions);
            }
            waiting.extend(to_session.into_iter().map(ToSession::Line));
            waiting.extend(settled.into_iter().map(ToSession::Settled));
            waiting.extend(answers.into_iter().map(ToSession::Answer));
            if let Some(lines) = wrong_era {
                return self.step_back(now, waiting, lines, adopted, actions);
            }
            if let Some(item) = waiting.pop_front() {
                next = Some(self.feed(now, actions, |session, inner| item.give(now, session, inner)));
            }
        }
    }

    /// Gives the session something, and what it writes for the client to the translator.
    fn feed(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        give: impl FnOnce(&mut Session, &mut Vec<Action>),
    ) -> Effects {
        let mut effects = Effects::default();
        let owes = self.translator.as_ref().map(|active| active.machine.owes());
        self.session.set_translator(owes);
        let mut inner = std::mem::take(&mut self.inner);
        give(&mut self.session, &mut inner);
        for action in inner.drain(..) {
            match (&mut self.translator, action) {
                (Some(active), Action::Write(line)) => active.machine.server_line(now, line, &mut effects),
                (Some(active), Action::WriteAbout(about, line)) => {
                    active.machine.server_line_about(now, &about, line, &mut effects);
                }
                // The translator has the last word.
                (_, Action::Exit) => self.leaving = true,
                (_, action) => actions.push(action),
            }
        }
        self.inner = inner;
        for EraNews { refuses, lines, .. } in self.session.take_era_news() {
            let Some(active) = &mut self.translator else { break };
            for line in lines {
                active.given_back(now, refuses, line, &mut effects);
            }
        }
        effects
    }

    /// The server is of the client's own era after all: the client's lines go out as they came.
    fn step_back(
        &mut self,
        now: Duration,
        waiting: VecDeque<ToSession>,
        lines: Vec<Bytes>,
        adopted: Option<Adopted>,
        actions: &mut Vec<Action>,
    ) {
        for item in waiting {
            // Cancellations, which nobody answers.
            let effects = self.feed(now, actions, |session, inner| item.give(now, session, inner));
            actions.extend(effects.to_client.into_iter().map(Action::Write));
        }
        if let Some(mut active) = self.translator.take() {
            // What it did not give back has no one to wait for.
            let mut last = Effects::default();
            active.machine.finish(now, &mut last);
            actions.extend(last.to_client.into_iter().map(Action::Write));
        }
        self.refuses = None;
        self.session.remember_era(None, None, actions);
        // Also after the end of stdin: the client said them before.
        self.session.set_translator(Some(false));
        if let Some(adopted) = adopted {
            self.session.adopt(now, adopted, actions);
        }
        for line in lines {
            // What is refused once more is refused: it may be a call that has an effect each time.
            self.session.handle_settled(now, line, actions);
        }
        self.session.set_translator(None);
        if self.session.has_era_news() {
            self.follow_news(now, actions);
        }
    }

    /// After the end of stdin, the session may have waited for the translator alone.
    fn let_leave(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.session.is_draining() {
            let effects = self.feed(now, actions, |session, inner| session.handle(now, Input::Tick, inner));
            self.carry_out(now, effects, actions);
        }
    }

    fn leave(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut effects = Effects::default();
        if let Some(mut active) = self.translator.take() {
            active.machine.finish(now, &mut effects);
        }
        self.leaving = false;
        actions.extend(effects.to_client.into_iter().map(Action::Write));
        actions.push(Action::Exit);
    }
}

impl Active {
    /// A line that the session gave back, because the server refused its era.
    fn given_back(&mut self, now: Duration, refuses: Era, line: Bytes, effects: &mut Effects) {
        if self.speaks == refuses {
            let clients_own = refuses == Era::Legacy && !is_ours(&line);
            return match (&mut effects.wrong_era, clients_own) {
                (_, false) => self.machine.refused(now, line, effects),
                // Said by the client itself, before the translator was there.
                (Some(lines), true) => lines.push(line),
                (None, true) => effects.settled.push(line),
            };
        }
        let before = effects.to_session.len();
        self.machine.client_line(now, &line, effects);
        // What the translator passes on as it is would only come back again.
        let (same, other): (Vec<_>, Vec<_>) = effects.to_session.drain(before..).partition(|passed| *passed == line);
        effects.to_session.extend(other);
        effects.settled.extend(same);
    }
}

impl ToSession {
    fn give(self, now: Duration, session: &mut Session, actions: &mut Vec<Action>) {
        match self {
            Self::Line(line) => session.handle(now, Input::Line(line), actions),
            Self::Settled(line) => session.handle_settled(now, line, actions),
            Self::Answer(line) if session.forwards_on_their_way() < MAX_ANSWERS => {
                session.handle(now, Input::Line(line), actions);
            }
            Self::Answer(_) => {
                let text = "an answer to the server is left out: it asks faster than it takes answers";
                actions.push(Action::Log(Level::Warn, text.into()));
            }
        }
    }
}

/// Whether a translator made this request: towards a legacy server, all of its requests have ids of the bridge.
fn is_ours(line: &[u8]) -> bool {
    let ours = |id: &Id| matches!(id, Id::String(id) if id.starts_with("mcp-drawbridge-"));
    match message::parse(line) {
        Ok(Parsed::One(Message::Request(request))) => ours(&request.id),
        _ => true,
    }
}

/// The era of a client's line, if it tells: only requests and notifications do.
fn era_of(line: &[u8]) -> Option<Era> {
    let (method, params) = match message::parse(line).ok()? {
        Parsed::One(Message::Request(request)) => (request.method, request.params),
        Parsed::One(Message::Notification(notification)) => (notification.method, notification.params),
        Parsed::One(Message::Response(_)) => return None,
        Parsed::Batch(_) => return Some(Era::Legacy),
    };
    Some(if era::modern_headers(&method, params).is_some() { Era::Modern } else { Era::Legacy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_followed_so_often_in_a_window_and_again_in_the_next() {
        let session = Session::new(crate::session::Settings::default(), None);
        let mut eras = Eras::new(Settings::default(), session);
        let begin = Duration::from_secs(1000);
        let mut followed = |after: Duration| eras.may_switch(begin + after);
        for second in 0..u64::from(MAX_SWITCHES) {
            assert!(followed(Duration::from_secs(second)));
        }
        for second in 10..=60 {
            assert!(!followed(Duration::from_secs(second)), "second {second}");
        }
        assert!(followed(SWITCH_WINDOW + Duration::from_secs(1)), "asking all the time changes nothing");
    }
}
