//! A modern client towards a legacy server (product section E, fourth row).
//!
//! Towards the client this is a server of 2026-07-28 on stdio; towards the session it is a legacy client that says `initialize`
//! once and then sends every request without its modern `_meta`. All requests share one legacy session, opened with the identity
//! and the capabilities of the first request. What a later request did not declare, the client is not asked: the server gets an error.
//!
//! Where the eras differ most, a request lives on after its response:
//! ```text
//!  client   tools/call 1 ─┐                 ┌► input_required (1)   retry 2 (answers) ─┐             ┌► result (2)
//!                         ▼                 │                                          ▼             │
//!  server        tools/call m1 ──► elicitation/create q ─ ─ ─ the stream stays open ─ ─ answer q ──► result m1
//! ```
//! The rooms: reading a modern request in `request.rs`, the session in `opening.rs`, requests in flight in `calls.rs`, questions and
//! retries in `rounds.rs` and `questions.rs`, `subscriptions/listen` in `listen.rs`, responses in `results.rs`.
//! The table of all names is `docs/eras.md`.

mod calls;
mod listen;
mod opening;
mod questions;
mod request;
mod results;
mod rounds;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use ring::hmac;

use super::Settings;
use super::translator::{Effects, Translator};
use crate::message::splice::{self, members};
use crate::message::{self, Id, Invalid, Message, Notification, Outcome, Parsed, Request, Response};
use crate::session::{Level, MAX_PENDING_BYTES};

use self::calls::{Call, Own, Stored};
use self::listen::Subscriptions;
use self::opening::Facts;
use self::request::{Abilities, Asked, LEVELS, LogLevel, Refusal};
use self::rounds::Rounds;

/// Requests of the client that may wait at one time. Beyond it, stdin is not read (R8).
pub const MAX_CALLS: usize = 16_384;
/// Bytes of requests that wait for the session to be opened. Beyond it, stdin is not read (R8).
pub const MAX_HELD_BYTES: usize = 64 << 20;

/// See the module's text.
#[derive(Debug)]
pub struct ModernClient {
    /// Begins the ids of our requests: unlike any id of the client, and of the session.
    prefix: String,
    seal: hmac::Key,
    link: Link,
    /// What the session was told that the client can be asked.
    declared: Abilities,
    /// Something was done in the session that another one would not know.
    used: bool,
    calls: HashMap<u64, Call>,
    /// Bytes of the client's lines that are kept in them.
    call_bytes: usize,
    /// What the client waits for, by its id.
    waiting: HashMap<Id, Waiting>,
    /// Requests of our own.
    own: HashMap<u64, Own>,
    /// The level that the server was told, and what waits for its word on it.
    log_level: Option<LogLevel>,
    levelling: Option<u64>,
    /// Until when messages of each level on the notification stream may still belong to a request that has its answer.
    log_until: [Duration; LEVELS],
    for_level: Vec<u64>,
    rounds: Rounds,
    subscriptions: Subscriptions,
    timers: BTreeSet<(Duration, Due)>,
    last: u64,
    now: Duration,
    gone: bool,
}

/// The legacy session.
#[derive(Debug)]
enum Link {
    /// Nobody asked for it yet, or it could not be had.
    Closed,
    /// `initialize` is under way.
    Opening {
        id: u64,
        /// What the client asked meanwhile, as it came.
        held: Vec<(Id, Bytes)>,
        bytes: usize,
    },
    Open(Facts),
    /// The client began a legacy session after all: it is on its own.
    PassThrough,
}

/// Where a request of the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// For the session to be opened.
    ForSession,
    /// For this request of ours.
    Call(u64),
    /// An open subscription.
    Listen(u64),
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Questions are put to the client.
    Ask(u64),
    /// A client that never came back.
    Forget(u64),
    /// A visit to a URL that the server did not report.
    Visit(u64),
    /// Subscriptions that the server did not answer.
    Acknowledge(u64),
    /// A request of our own that the server did not answer.
    Own(u64),
}

impl ModernClient {
    /// One that has heard nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            prefix: format!("mcp-drawbridge-{}-m", settings.nonce),
            seal: hmac::Key::new(hmac::HMAC_SHA256, &settings.key.0),
            link: Link::Closed,
            declared: Abilities::default(),
            used: false,
            calls: HashMap::new(),
            call_bytes: 0,
            waiting: HashMap::new(),
            own: HashMap::new(),
            log_level: None,
            levelling: None,
            log_until: [Duration::ZERO; LEVELS],
            for_level: Vec::new(),
            rounds: Rounds::default(),
            subscriptions: Subscriptions::default(),
            timers: BTreeSet::new(),
            last: 0,
            now: Duration::ZERO,
            gone: false,
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The id under which the session knows a request of ours.
    fn our_id(&self, number: u64) -> Id {
        Id::String(format!("{}{number}", self.prefix).into())
    }

    fn number_of(&self, id: &Id) -> Option<u64> {
        match id {
            Id::String(text) => text.strip_prefix(&*self.prefix)?.parse().ok(),
            _ => None,
        }
    }

    fn facts(&self) -> Option<&Facts> {
        if let Link::Open(facts) = &self.link { Some(facts) } else { None }
    }

    // ---- what the client says ----

    fn client_message(&mut self, now: Duration, message: Message<'_>, line: Bytes, effects: &mut Effects) {
        match message {
            Message::Request(request) => self.client_request(now, &request, line, effects),
            Message::Notification(notification) => self.client_notification(now, &notification, line, effects),
            Message::Response(_) => {
                // 2026-07-28 "stdio": clients write no responses.
                effects
                    .log
                    .push((Level::Debug, "dropped a response of the client: its protocol version has none".into()));
            }
        }
    }

    fn client_request(&mut self, now: Duration, request: &Request<'_>, line: Bytes, effects: &mut Effects) {
        if self.waiting.contains_key(&request.id) {
            let why = "another request with this id is still waiting for its response";
            return effects.to_client.push(message::error_response(
                Some(&request.id),
                message::INVALID_REQUEST,
                why,
                None,
            ));
        }
        let asked = match Asked::read(request.params) {
            Ok(asked) => asked,
            Err(_) if request.method == "initialize" => return self.begin_legacy(line, effects),
            Err(refusal) => return refuse(&request.id, &refusal, effects),
        };
        if self.gone {
            let why = "the bridge is shutting down";
            return effects.to_client.push(message::error_response(
                Some(&request.id),
                message::BRIDGE_ERROR,
                why,
                None,
            ));
        }
        if matches!(self.link, Link::Open(_)) && self.may_ask_more(&asked) {
            return self.open(request, &asked, line, effects);
        }
        match &mut self.link {
            Link::Open(_) | Link::PassThrough => self.dispatch(now, request, &asked, &line, effects),
            Link::Opening { held, bytes, .. } => {
                *bytes += line.len();
                held.push((request.id.clone(), line));
                self.waiting.insert(request.id.clone(), Waiting::ForSession);
            }
            Link::Closed => self.open(request, &asked, line, effects),
        }
    }

    /// A request whose `_meta` is in order, and for which there is a session.
    fn dispatch(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        asked: &Asked<'_>,
        line: &Bytes,
        effects: &mut Effects,
    ) {
        let method = &*request.method;
        if method == "server/discover" {
            let result = self.facts().map_or("{}", Facts::discovery);
            return effects.to_client.push(message::result_response(&request.id, result));
        }
        if opening::is_of_other_era(method) {
            let refusal = Refusal { code: message::METHOD_NOT_FOUND, why: opening::other_era_text(method), data: None };
            return refuse(&request.id, &refusal, effects);
        }
        if asked.task {
            let why = "\"task\" belongs to revision 2025-11-25; a server of that era cannot run a task for this client";
            return refuse(&request.id, &Refusal::invalid(why), effects);
        }
        if method == "subscriptions/listen" {
            return self.listen(now, request, effects);
        }
        if asked.state.is_some() {
            return self.resume(now, request, asked, line, effects);
        }
        if let Err(refusal) = self.judge_stray_answers(asked) {
            return refuse(&request.id, &refusal, effects);
        }
        self.call(now, request, asked, line, effects);
    }

    fn client_notification(
        &mut self,
        now: Duration,
        notification: &Notification<'_>,
        line: Bytes,
        effects: &mut Effects,
    ) {
        match &*notification.method {
            "notifications/cancelled" => {
                let Some((id, reason)) = notification.params.and_then(|params| cancelled_id(params.get())) else {
                    return;
                };
                self.client_cancels(now, &id, reason.as_deref(), effects);
            }
            // The session's own business, or of the other era.
            "notifications/initialized" | "notifications/roots/list_changed" | "notifications/progress" => {}
            // Of an extension. Before there is a session nobody can hear it.
            _ if self.facts().is_some() => effects.to_session.push(request::legacy_notification(line)),
            _ => effects.log.push((Level::Debug, "dropped a notification of the client: no session is open".into())),
        }
    }

    // ---- what the session says ----

    fn server_message(&mut self, now: Duration, about: Option<&Id>, line: Bytes, effects: &mut Effects) {
        let text = line.clone();
        match message::parse(&text) {
            Ok(Parsed::One(Message::Response(response))) => self.server_response(now, &response, line, effects),
            Ok(Parsed::One(Message::Request(request))) => {
                let about = about.and_then(|id| self.number_of(id));
                self.server_asks(now, about, &request, &line, effects);
            }
            Ok(Parsed::One(Message::Notification(notification))) => {
                let about = about.and_then(|id| self.number_of(id));
                self.server_notification(now, about, &notification, line, effects);
            }
            Ok(Parsed::Batch(_)) | Err(_) => {
                effects.log.push((Level::Warn, "dropped something that is no message for this client".into()));
            }
        }
    }

    fn server_response(&mut self, now: Duration, response: &Response<'_>, line: Bytes, effects: &mut Effects) {
        let Some(number) = response.id.as_ref().and_then(|id| self.number_of(id)) else {
            // The session's own words to the client, about a line that was never ours.
            if response.id.as_ref().is_none_or(|id| !self.waiting.contains_key(id)) {
                effects.to_client.push(line);
            }
            return;
        };
        if matches!(&self.link, Link::Opening { id, .. } if *id == number) {
            return self.opened(now, response.outcome, effects);
        }
        if self.own.contains_key(&number) {
            return self.own_answered(now, number, matches!(response.outcome, Outcome::Result(_)), effects);
        }
        let stored = match response.outcome {
            Outcome::Result(result) => Stored { error: false, text: line.slice_ref(result.get().as_bytes()) },
            Outcome::Error(error) => Stored { error: true, text: line.slice_ref(error.get().as_bytes()) },
        };
        self.call_answered(now, number, stored, effects);
    }

    // ---- the end ----

    /// Every id that is still open gets an error.
    fn end_all(&mut self, why: &str, effects: &mut Effects) {
        let mut ids: Vec<Id> = std::mem::take(&mut self.waiting).into_keys().collect();
        ids.sort_unstable();
        for id in ids {
            effects.to_client.push(message::error_response(Some(&id), message::BRIDGE_ERROR, why, None));
        }
        self.calls.clear();
        self.call_bytes = 0;
        self.own.clear();
        self.for_level.clear();
        self.levelling = None;
        self.timers.clear();
        self.rounds = Rounds::default();
        self.subscriptions = Subscriptions::default();
        if matches!(self.link, Link::Opening { .. }) {
            self.link = Link::Closed;
        }
    }
}

impl ModernClient {
    /// Whether nothing is kept of any message, for tests.
    #[doc(hidden)]
    pub fn holds_nothing(&self) -> bool {
        self.calls.is_empty()
            && self.call_bytes == 0
            && self.waiting.is_empty()
            && self.own.is_empty()
            && self.for_level.is_empty()
            && self.timers.is_empty()
            && self.rounds.holds_nothing()
            && self.subscriptions.holds_nothing()
            && !matches!(self.link, Link::Opening { .. })
    }
}

impl Translator for ModernClient {
    fn client_line(&mut self, now: Duration, line: &Bytes, effects: &mut Effects) {
        self.now = now;
        if matches!(self.link, Link::PassThrough) {
            return effects.to_session.push(line.clone());
        }
        match message::parse(line) {
            Ok(Parsed::One(message)) => self.client_message(now, message, line.clone(), effects),
            Ok(Parsed::Batch(members)) if !members.is_empty() => {
                // That era knows no batches; a client that sends one gets a line a response.
                for raw in members {
                    let text = line.slice_ref(raw.get().as_bytes());
                    match message::parse_one(raw.get()) {
                        Ok(message) => self.client_message(now, message, text, effects),
                        Err(invalid) => self.refuse_line(&invalid, effects),
                    }
                }
            }
            Ok(Parsed::Batch(_)) => {
                let why = "a batch must not be empty";
                self.refuse_line(&Invalid::NotMessage { id: None, response: false, why }, effects);
            }
            Err(invalid) => self.refuse_line(&invalid, effects),
        }
    }

    fn server_line(&mut self, now: Duration, line: Bytes, effects: &mut Effects) {
        self.now = now;
        if matches!(self.link, Link::PassThrough) {
            return self.pass(line, effects);
        }
        self.server_message(now, None, line, effects);
    }

    fn server_line_about(&mut self, now: Duration, about: &Id, line: Bytes, effects: &mut Effects) {
        self.now = now;
        if matches!(self.link, Link::PassThrough) {
            return self.pass(line, effects);
        }
        self.server_message(now, Some(about), line, effects);
    }

    /// The server is modern, or has become so: the client needs no translation, and its own words go out. What else is open ends: the
    /// server that worked on it is gone.
    fn refused(&mut self, _now: Duration, line: Bytes, effects: &mut Effects) {
        let Some(number) = line_id(&line).and_then(|id| self.number_of(&id)) else { return };
        let lines = effects.wrong_era.get_or_insert_default();
        if matches!(&self.link, Link::Opening { id, .. } if *id == number) {
            if let Link::Opening { held, .. } = std::mem::replace(&mut self.link, Link::Closed) {
                for (id, line) in held {
                    self.waiting.remove(&id);
                    lines.push(line);
                }
            }
            return;
        }
        if let Some(call) = self.calls.get_mut(&number) {
            lines.push(std::mem::take(&mut call.original));
            self.drop_call(number, None, effects);
        }
        self.give_up_calls(effects);
    }

    fn answer_lost(&mut self, _now: Duration, _id: &Id, _effects: &mut Effects) -> bool {
        false // a modern client writes no answers
    }

    fn holds(&self, id: &Id) -> bool {
        self.waiting.contains_key(id)
    }

    fn client_gone(&mut self, now: Duration, effects: &mut Effects) {
        self.gone = true;
        self.end_subscriptions(effects);
        self.forget_all(effects);
        self.level_settled(effects);
        // From now on the session takes no requests: it must have them all, and sends them when it is open.
        let Link::Opening { held, .. } = &mut self.link else { return };
        let all = std::mem::take(held);
        effects.to_session.push(opening::initialized());
        for (id, line) in all {
            let parsed = message::parse(&line);
            let Ok(Parsed::One(Message::Request(request))) = parsed else { continue };
            let Ok(asked) = Asked::read(request.params) else { continue };
            let needs_facts = matches!(&*request.method, "server/discover" | "subscriptions/listen")
                || opening::is_of_other_era(&request.method);
            if needs_facts && let Link::Opening { held, .. } = &mut self.link {
                held.push((id, line));
                continue;
            }
            self.waiting.remove(&id);
            self.dispatch(now, &request, &asked, &line, effects);
        }
    }

    fn finish(&mut self, _now: Duration, effects: &mut Effects) {
        self.gone = true;
        self.end_subscriptions(effects);
        self.end_all("the session with the server ended before the answer came", effects);
    }

    fn tick(&mut self, now: Duration, effects: &mut Effects) {
        self.now = now;
        while let Some((when, due)) = self.timers.first().copied()
            && when <= now
        {
            self.timers.pop_first();
            match due {
                Due::Ask(call) => self.ask(now, call, effects),
                Due::Forget(call) => self.forget(call, rounds::UNANSWERED, effects),
                Due::Visit(call) => self.visit_over(call, effects),
                Due::Acknowledge(listen) => self.acknowledge(listen, effects),
                Due::Own(number) => self.own_overdue(now, number, effects),
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(when, _)| *when)
    }

    fn owes(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn accepts_lines(&self) -> bool {
        let held = if let Link::Opening { bytes, .. } = &self.link { *bytes } else { 0 };
        self.calls.len() < MAX_CALLS
            && self.waiting.len() < MAX_CALLS
            && held < MAX_HELD_BYTES
            && self.call_bytes < MAX_PENDING_BYTES
    }
}

impl ModernClient {
    fn refuse_line(&self, invalid: &Invalid, effects: &mut Effects) {
        let response = match invalid {
            Invalid::NotJson => message::error_response(None, message::PARSE_ERROR, "the line is not valid JSON", None),
            Invalid::NotMessage { id, response, why } => {
                let id = id.as_ref().filter(|id| !*response && !self.waiting.contains_key(*id));
                let text = format!("not a JSON-RPC 2.0 message: {why}");
                message::error_response(id, message::INVALID_REQUEST, &text, None)
            }
        };
        effects.to_client.push(response);
    }
}

fn refuse(id: &Id, refusal: &Refusal, effects: &mut Effects) {
    effects.to_client.push(message::error_response(Some(id), refusal.code, &refusal.why, refusal.data.as_deref()));
}

/// The id in the parameters of `notifications/cancelled`, and the reason as JSON text.
fn cancelled_id(params: &str) -> Option<(Id, Option<String>)> {
    let [id, reason] = members(params, ["requestId", "reason"]).ok()?;
    let reason = reason.map(|reason| reason.value).filter(|reason| splice::string(reason).is_some());
    Some((Id::from_json(id?.value)?, reason.map(str::to_owned)))
}

/// The id of a request.
fn line_id(line: &Bytes) -> Option<Id> {
    match message::parse(line) {
        Ok(Parsed::One(Message::Request(request))) => Some(request.id),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
