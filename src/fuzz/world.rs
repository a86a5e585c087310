//! A session with a client and a server around it, and the promises that every step must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::client::{self, Said};
use super::script::{Milliseconds as _, Script};
use super::server::{self, Asking, Running};
use crate::message::{self, Id, Invalid, Message, Parsed};
use crate::session::{Action, Content, ExchangeId, Failure, FailureKind, Input, Session, Settings, SignIn};

/// How long an honest or a dead server may leave requests open, in virtual time.
const SETTLED: Duration = Duration::from_secs(600);
/// Exchanges that a dead server may see in a virtual second, beside what was in flight: no storm.
const STARTS_PER_SECOND: u64 = 60;

/// Choices from here on are about the sign-in. It is a multiple of the number of all others.
const SIGN_IN: usize = 224;
/// What shows nowhere but in the address that the client is given.
pub(super) const SECRET: &str = "s3cr3t-state";

/// Responses to one id.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) wanted: usize,
    pub(super) got: usize,
}

/// How a script ends, after its last choice.
#[derive(Debug, Clone, Copy)]
enum Finale {
    /// stdin ends.
    Gone,
    /// SIGTERM.
    Terminated,
    /// The server is honest from now on: everything is answered.
    Honest,
    /// The server is not to be reached any more: everything is answered too.
    Dead,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) session: Session,
    pub(super) settings: Settings,
    finale: Finale,
    /// An honest server gives session ids.
    gives_sessions: bool,
    pub(super) now: Duration,
    pub(super) actions: Vec<Action>,
    pub(super) ids: BTreeMap<String, Count>,
    pub(super) nulls: Count,
    methods: BTreeMap<String, &'static str>,
    pub(super) running: BTreeMap<ExchangeId, Running>,
    pub(super) last_exchange: ExchangeId,
    pub(super) starts: u64,
    /// Requests that went to the endpoint of HTTP+SSE.
    pub(super) by_endpoint: BTreeSet<String>,
    /// The server's requests that wait for the client: id as the client knows it, and number.
    pub(super) asked: Vec<(String, u64)>,
    /// Questions of the bridge that wait for the client, as JSON text of their ids.
    pub(super) questions: BTreeSet<String>,
    wanted_once: bool,
    /// When each id was last asked.
    arrived: BTreeMap<String, Duration>,
    /// The server's own id for each number.
    pub(super) originals: BTreeMap<u64, Value>,
    asking: Asking,
    pub(super) batched: bool,
    pub(super) leaving: bool,
    pub(super) goodbye: bool,
    pub(super) exited: bool,
}

impl World {
    pub(super) fn new(script: &mut Script) -> Self {
        let settings = script.settings();
        let memory = script.memory();
        let finale = script.pick(&[Finale::Gone, Finale::Honest, Finale::Dead, Finale::Terminated]);
        let session = Session::new(settings.clone(), memory);
        let mut world = Self {
            session,
            settings,
            finale,
            gives_sessions: script.below(3) != 2,
            now: Duration::ZERO,
            actions: Vec::new(),
            ids: BTreeMap::new(),
            nulls: Count::default(),
            methods: BTreeMap::new(),
            running: BTreeMap::new(),
            last_exchange: 0,
            starts: 0,
            by_endpoint: BTreeSet::new(),
            asked: Vec::new(),
            questions: BTreeSet::new(),
            wanted_once: false,
            arrived: BTreeMap::new(),
            originals: BTreeMap::new(),
            asking: Asking::default(),
            batched: false,
            leaving: false,
            goodbye: false,
            exited: false,
        };
        if script.below(4) != 3 {
            world.say(&[client::initialize(script)], false);
            world.serve_honestly();
            let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            world.say(&[Said::Silent(initialized.into())], false);
            world.serve_honestly();
        }
        world
    }

    /// One choice of the script. False at its end.
    pub(super) fn step(&mut self, script: &mut Script) -> bool {
        if script.is_over() || self.exited {
            return false;
        }
        let choice = script.below(256);
        if choice >= SIGN_IN {
            self.sign_in(script);
            return true;
        }
        match choice % 14 {
            0..=3 => {
                let said = client::message(script, &self.asked);
                self.say(&[said], false);
            }
            4 => {
                let count = script.below(5);
                let said: Vec<Said> = (0..count).map(|_| client::message(script, &self.asked)).collect();
                self.say(&said, true);
            }
            5..=9 => self.serve(script),
            10 | 11 => {
                self.now = match script.below(8) {
                    0..=3 => self.session.next_deadline().unwrap_or(self.now),
                    4 => self.now + 1.ms(),
                    5 => self.now + 200.ms(),
                    6 => self.now + 4000.ms(),
                    _ => self.now + 90_000.ms(),
                };
                self.input(Input::Tick);
            }
            12 => self.too_long(script),
            _ => match script.below(16) {
                0..=7 => self.input(Input::Woke),
                8 => self.leave(Input::ClientGone),
                9 => self.leave(Input::Terminate),
                _ => self.stale(script),
            },
        }
        true
    }

    /// After the last choice: everything is answered, and the session ends.
    pub(super) fn end(&mut self) {
        match self.finale {
            Finale::Honest => self.settle(Self::serve_honestly),
            Finale::Dead => self.settle(Self::serve_dead),
            Finale::Gone => self.leave(Input::ClientGone),
            Finale::Terminated => self.leave(Input::Terminate),
        }
        self.leave(Input::ClientGone);
        let latest = self.now + self.settings.drain + Duration::from_secs(3);
        while !self.exited {
            self.now = self.session.next_deadline().expect("a session that has not ended waits for something");
            assert!(self.now <= latest, "the end takes no longer than the drain and a goodbye");
            self.input(Input::Tick);
        }
        assert!(self.running.is_empty(), "nothing runs after the end");
        assert!(self.session.holds_nothing(), "nothing is kept after the end: {:?}", self.session);
        for (id, count) in &self.ids {
            assert_eq!(count.got, count.wanted, "responses to {id}");
        }
        assert_eq!(self.nulls.got, self.nulls.wanted, "answers to what had no id");
    }

    // ---- the client ----

    fn say(&mut self, said: &[Said], batch: bool) {
        let names = |member: &Said| match member {
            Said::Request { id, .. } | Said::Cancel { id, .. } | Said::Broken { id: Some(id), .. } => {
                Some(canonical(id))
            }
            _ => None,
        };
        let mut kept: Vec<&Said> = Vec::new();
        for member in said {
            // What a member does to an id of its own batch depends on the order: left to single lines.
            let again = !matches!(member, Said::Request { .. })
                || kept.iter().any(|other| matches!(other, Said::Cancel { .. } | Said::Broken { .. }));
            if !(again && names(member).is_some() && kept.iter().any(|other| names(other) == names(member))) {
                kept.push(member);
            }
        }
        let mut cancelled = Vec::new();
        let mut taken = BTreeSet::new();
        for member in &kept {
            match member {
                Said::Request { id, method, .. } => {
                    self.count(id).wanted += 1;
                    // The first of a batch takes the id; `initialize` is refused there.
                    let refused = batch && method.ends_with("initialize");
                    if !refused && !self.session.is_known(&parse_id(id)) && taken.insert(canonical(id)) {
                        self.methods.insert(canonical(id), method);
                        self.arrived.insert(canonical(id), self.now);
                    }
                }
                Said::Cancel { id, .. } => {
                    let id = canonical(id);
                    let fixed = self.methods.get(&id).is_some_and(|method| *method == "initialize");
                    if self.session.is_pending(&parse_id(&id)) && !fixed && !self.session_has_left() {
                        cancelled.push(id);
                    }
                }
                Said::Broken { id: Some(id), .. } if !self.session.is_pending(&parse_id(id)) => {
                    self.count(id).wanted += 1;
                }
                Said::Broken { .. } => self.nulls.wanted += 1,
                Said::Answer { .. } | Said::Silent(_) => {}
            }
        }
        for id in &cancelled {
            self.count(id).wanted -= 1;
        }
        let texts: Vec<&str> = kept.iter().map(|member| member.text()).collect();
        let line = if batch {
            self.batched = true;
            // A member that is no JSON breaks the whole line; that is a case of its own.
            let whole = format!("[{}]", texts.join(","));
            if serde_json::from_str::<serde::de::IgnoredAny>(&whole).is_err() {
                self.forget_batch(&kept, &cancelled);
                kept.clear();
                cancelled.clear();
            } else if kept.is_empty() {
                self.nulls.wanted += 1;
            }
            whole
        } else {
            texts.concat()
        };
        self.input(Input::Line(line.into()));
        for id in cancelled.iter().filter(|_| !batch) {
            assert!(!self.session.is_pending(&parse_id(id)), "a cancelled request is let go");
        }
        self.asked.retain(|(id, _)| {
            !kept
                .iter()
                .any(|member| matches!(member, Said::Answer { text } | Said::Broken { text, .. } if answers(text, id)))
        });
    }

    /// The client's answer to a question of the bridge. A broken one is refused as well.
    fn say_answer(&mut self, text: &str) {
        if message::parse(text.as_bytes()).is_err() {
            self.nulls.wanted += 1;
        }
        self.input(Input::Line(text.to_owned().into()));
    }

    /// A batch that is no JSON is one broken line.
    fn forget_batch(&mut self, kept: &[&Said], cancelled: &[String]) {
        for id in cancelled {
            self.count(id).wanted += 1;
        }
        for member in kept {
            match member {
                Said::Request { id, .. } => self.count(id).wanted -= 1,
                Said::Broken { id: Some(id), .. } if !self.session.is_pending(&parse_id(id)) => {
                    self.count(id).wanted -= 1;
                }
                Said::Broken { .. } => self.nulls.wanted -= 1,
                _ => {}
            }
        }
        self.nulls.wanted += 1;
    }

    fn too_long(&mut self, script: &mut Script) {
        let id = script.one_in(2).then(|| client::id(script));
        let is_request = script.below(3) != 2;
        let of_server = |asked: &[(String, u64)], id: &str| asked.iter().any(|(open, _)| *open == canonical(id));
        match &id {
            Some(id) if is_request && !self.session.is_pending(&parse_id(id)) => self.count(id).wanted += 1,
            Some(id) if !is_request && of_server(&self.asked, id) => {
                let id = canonical(id);
                self.asked.retain(|(open, _)| *open != id);
            }
            _ => self.nulls.wanted += 1,
        }
        let id = id.map(|id| parse_id(&id));
        self.input(Input::TooLong { id, is_request, length: 99, limit: 9 });
    }

    fn leave(&mut self, how: Input) {
        if !self.exited {
            self.leaving = true;
            self.input(how);
        }
    }

    /// After the goodbye, what the client says is not looked at.
    fn session_has_left(&self) -> bool {
        self.leaving && self.session.pending_requests() == 0
    }

    fn count(&mut self, id: &str) -> &mut Count {
        self.ids.entry(canonical(id)).or_default()
    }

    // ---- the sign-in ----

    fn sign_in(&mut self, script: &mut Script) {
        match script.below(9) {
            0 => {
                let url = format!("https://as.example/{}?state={SECRET}", script.below(3));
                let advice = script.pick(&["", "Open it on this machine"]);
                self.wanted_once = true;
                self.input(Input::SignIn(SignIn::Wanted { url: url.into(), advice: advice.into() }));
            }
            1 => {
                self.nothing_is_held();
                self.input(Input::SignIn(SignIn::Done));
            }
            2 => {
                self.nothing_is_held();
                self.input(Input::SignIn(SignIn::Ended { message: "denied".into(), hint: None }));
            }
            3 => self.input(Input::SignIn(SignIn::NotTaken { message: "no".into() })),
            4 => {
                if let Some(id) = self.questions.pop_first() {
                    let text = script.pick(&[
                        r#""result":{"action":"accept"}}"#,
                        r#""error":{"code":-32601,"message":"no"}}"#,
                        r#""result":{},"result":{}}"#,
                    ]);
                    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},{text}"#);
                    self.say_answer(&text);
                }
            }
            5 => {
                let said = client::sign_in(script, self.wanted_once);
                self.say(&[said], false);
            }
            _ => self.hold_or_fail(script),
        }
    }

    /// An exchange is refused and waits, or waited in vain.
    fn hold_or_fail(&mut self, script: &mut Script) {
        let running: Vec<ExchangeId> =
            self.running.iter().filter(|(_, running)| !running.opened).map(|(id, _)| *id).collect();
        let Some(exchange) = running.get(script.below(running.len())).copied() else { return };
        if script.below(3) == 2 {
            let kind = script.pick(&[FailureKind::SignIn, FailureKind::Declined]);
            let message = if kind == FailureKind::Declined { SECRET } else { "no token" };
            let failure = Failure { kind, unsent: script.one_in(2), message: message.into(), hint: None };
            return self.finish(exchange, Input::Failed { exchange, failure });
        }
        let now = self.now;
        if let Some(running) = self.running.get_mut(&exchange) {
            running.held.get_or_insert(now);
        }
        self.input(Input::Held { exchange });
    }

    fn nothing_is_held(&mut self) {
        for running in self.running.values_mut() {
            running.held = None;
        }
    }

    /// A refused request that has waited for as long as it may, and a little, is answered. So is `initialize`, whatever happens (S2).
    pub(super) fn assert_nothing_is_held_for_too_long(&self) {
        for (id, since) in &self.arrived {
            if self.methods.get(id).is_some_and(|method| *method == "initialize") {
                let latest = *since + self.settings.initialize_timeout;
                let waits = self.session.is_pending(&parse_id(id));
                assert!(!waits || self.now < latest, "initialize came at {since:?} and waits at {:?}", self.now);
            }
        }
        for running in self.running.values() {
            let (Some(id), Some(held)) = (&running.id, running.held) else { continue };
            let method = self.methods.get(id).copied().unwrap_or_default();
            let waits = self.session.is_pending(&parse_id(id)) && method != "subscriptions/listen";
            if running.is_get || running.answered || running.is_initialize || method == "initialize" || !waits {
                continue;
            }
            let since = self.arrived.get(id).copied().unwrap_or(held);
            let latest = since.saturating_add(self.settings.hold) + 100.ms();
            assert!(self.now < latest, "{id} was refused at {held:?} and waits at {:?}", self.now);
        }
    }

    // ---- the server ----

    /// The server or the network does something to one exchange.
    fn serve(&mut self, script: &mut Script) {
        let running: Vec<ExchangeId> = self.running.keys().copied().collect();
        let Some(exchange) = running.get(script.below(running.len())).copied() else { return };
        let known = self.running.get(&exchange).cloned().unwrap_or_default();
        let others: Vec<String> = self.running.values().filter_map(|other| other.id.clone()).collect();
        if known.opened {
            if script.below(4) == 3 {
                let failure = script.one_in(2).then(|| server::failure(script));
                return self.finish(exchange, Input::Ended { exchange, failure });
            }
            let events = (0..=script.below(3))
                .map(|_| {
                    let text = server::text(script, &known, &others, &mut self.asking);
                    server::event(script, text)
                })
                .collect();
            return self.input(Input::Events { exchange, events });
        }
        match script.below(8) {
            0 | 1 => {
                let head = server::head(script, &server::OK);
                self.open(exchange, head);
            }
            2..=4 => {
                let head = server::head(script, &server::OK);
                let body = server::text(script, &known, &others, &mut self.asking);
                self.finish(exchange, Input::Answer { exchange, head, body });
            }
            5 | 6 => {
                let head = server::head(script, &server::REFUSED);
                let body = server::text(script, &known, &others, &mut self.asking);
                self.finish(exchange, Input::Answer { exchange, head, body });
            }
            _ => {
                let failure = server::failure(script);
                self.finish(exchange, Input::Failed { exchange, failure });
            }
        }
    }

    /// Something about an exchange that is over or aborted: it was on its way already.
    fn stale(&mut self, script: &mut Script) {
        let exchange = script.below(256) as u64;
        if self.running.contains_key(&exchange) {
            return;
        }
        let head = server::head(script, &server::REFUSED);
        match script.below(3) {
            0 => self.input(Input::Answer { exchange, head, body: Bytes::new() }),
            1 => self.input(Input::Opened { exchange, head }),
            _ => self.input(Input::Ended { exchange, failure: None }),
        }
    }

    fn open(&mut self, exchange: ExchangeId, head: crate::session::Head) {
        if let Some(running) = self.running.get_mut(&exchange) {
            running.opened = true;
            running.held = None;
        }
        self.input(Input::Opened { exchange, head });
    }

    fn finish(&mut self, exchange: ExchangeId, input: Input) {
        self.running.remove(&exchange);
        self.input(input);
    }

    /// Lets time pass with one kind of server until every request is answered.
    fn settle(&mut self, serve: fn(&mut Self)) {
        let until = self.now + SETTLED;
        let (began, starts) = (self.now, self.starts);
        loop {
            serve(self);
            if self.exited || self.waiting().is_empty() {
                break;
            }
            let Some(next) = self.session.next_deadline().filter(|next| *next <= until) else {
                panic!("{:?} wait for ever with {:?}: {:#?}", self.waiting(), self.finale, self.session);
            };
            self.now = next;
            self.input(Input::Tick);
            let seconds = self.now.saturating_sub(began).as_secs() + 10;
            assert!(self.starts - starts <= STARTS_PER_SECOND * seconds, "a storm of exchanges");
        }
    }

    /// Ids that still wait, except notification streams, which are answered at their end.
    fn waiting(&self) -> Vec<&String> {
        let open = self.ids.iter().filter(|(_, count)| count.got < count.wanted).map(|(id, _)| id);
        open.filter(|id| self.methods.get(*id).is_none_or(|method| *method != "subscriptions/listen")).collect()
    }

    fn serve_dead(&mut self) {
        let failure = || Failure { kind: FailureKind::Connect, unsent: true, message: "down".into(), hint: None };
        while let Some((exchange, running)) = self.running.pop_first() {
            let cut = Failure { kind: FailureKind::Cut, unsent: false, ..failure() };
            self.input(if running.opened {
                Input::Ended { exchange, failure: Some(cut) }
            } else {
                Input::Failed { exchange, failure: failure() }
            });
        }
    }

    fn serve_honestly(&mut self) {
        let all: Vec<ExchangeId> = self.running.keys().copied().collect();
        for exchange in all {
            let Some(running) = self.running.get(&exchange).cloned() else { continue };
            self.answer_honestly(exchange, &running);
        }
        // HTTP+SSE: the answers come on the stream.
        let taken: Vec<String> = std::mem::take(&mut self.by_endpoint).into_iter().collect();
        let streams: Vec<ExchangeId> =
            self.running.iter().filter(|(_, running)| running.is_get && running.opened).map(|(id, _)| *id).collect();
        for exchange in streams {
            let events = taken.iter().map(|id| server::plain_event(None, honest_result(id))).collect();
            self.input(Input::Events { exchange, events });
        }
    }

    fn answer_honestly(&mut self, exchange: ExchangeId, running: &Running) {
        if running.is_resume {
            // It forgot what it had sent.
            let input = ended(exchange, running, 405);
            return self.finish(exchange, input);
        }
        if running.is_get {
            if !running.opened {
                self.open(exchange, server::plain_head(200, Content::EventStream));
            }
            let events = vec![server::plain_event(Some("endpoint"), "/messages".into())];
            return self.input(Input::Events { exchange, events });
        }
        let Some(id) = &running.id else {
            let input = ended(exchange, running, 202);
            return self.finish(exchange, input);
        };
        let text = if running.is_initialize { server::initialize_result(id, "2025-11-25") } else { honest_result(id) };
        if running.opened {
            self.input(Input::Events { exchange, events: vec![server::plain_event(None, text)] });
            if self.running.contains_key(&exchange) {
                self.finish(exchange, Input::Ended { exchange, failure: None });
            }
            return;
        }
        let mut head = server::plain_head(200, Content::Json);
        if running.is_initialize && self.gives_sessions {
            head.session_id = Some(Ok("s-0".into()));
        }
        self.finish(exchange, Input::Answer { exchange, head, body: text.into() });
    }
}

/// The end of an exchange that brings nothing.
fn ended(exchange: ExchangeId, running: &Running, status: u16) -> Input {
    if running.opened {
        return Input::Ended { exchange, failure: None };
    }
    Input::Answer { exchange, head: server::plain_head(status, Content::Other(String::new())), body: Bytes::new() }
}

fn honest_result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

pub(super) fn parse_id(text: &str) -> Id {
    Id::from_json(text).expect("an id")
}

fn canonical(text: &str) -> String {
    parse_id(text).to_json()
}

/// Whether this line of the client ends the server's request with this id: an answer, or a broken one.
fn answers(text: &str, id: &str) -> bool {
    let answered = match message::parse(text.as_bytes()) {
        Ok(Parsed::One(Message::Response(response))) => response.id,
        Err(Invalid::NotMessage { id, response: true, .. }) => id,
        _ => None,
    };
    answered.is_some_and(|answered| answered.to_json() == *id)
}
