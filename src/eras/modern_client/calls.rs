//! Requests in flight: on their way to the server, their progress and log messages, their answers, their cancellation.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::questions::Unasked;
use super::request::{Abilities, Asked, LogLevel, Need};
use super::results;
use super::rounds::OpenQuestion;
use super::{Due, ModernClient, Waiting};
use crate::eras::translator::Effects;
use crate::message::splice::{Object, With, is_object, members};
use crate::message::{self, Id, Notification, Request};
use crate::session::Level;

/// How long requests wait for the server to take a new log level.
pub(super) const LEVEL_PATIENCE: Duration = Duration::from_secs(2);
/// How long the server may take for a request of our own.
pub(super) const OWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long after an answer log messages on the notification stream may belong to it: that is another connection, and a message may be
/// overtaken by the answer.
pub(super) const LOG_GRACE: Duration = Duration::from_millis(500);
/// Requests of our own that may wait at one time; beyond it, none is made.
pub(super) const MAX_OWN: usize = 4096;

/// Why the session need not wait for a request, as JSON text.
const REPLACED: &str = "\"the server was replaced\"";

/// A request of the client at the server.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Box<str>,
    /// The client's line, for a server that turns out to be modern.
    pub(super) original: Bytes,
    /// Bytes of it.
    bytes: usize,
    /// The line for the server, where it must be kept: to be sent later, or to know a retry by it.
    pub(super) line: Bytes,
    /// Where its parameters begin; they end before the last brace.
    params_at: usize,
    /// It did not go out yet.
    pub(super) unsent: bool,
    /// It has its answer, or never went out: the server does not work on it.
    pub(super) idle: bool,
    /// Who waits for it. Nobody does while the client collects answers.
    pub(super) asker: Option<Asker>,
    pub(super) abilities: Abilities,
    /// What the server asked meanwhile.
    pub(super) questions: Vec<OpenQuestion>,
    /// What it would have had to declare for questions of the server, and the words in which the server was told that it did not.
    refused: Vec<(Need, &'static str)>,
    /// By what the client resumes it.
    pub(super) state: Option<Box<str>>,
    /// What came while the client was away.
    pub(super) outcome: Option<Stored>,
    /// Visits to URLs that the server will report.
    pub(super) visits: Vec<Box<str>>,
    /// Times that it was sent again after such visits.
    pub(super) repeats: u32,
    pub(super) due: Option<(Duration, Due)>,
}

/// The client's side of a call.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) id: Id,
    /// Its token for progress, as JSON text.
    token: Option<Box<str>>,
    level: Option<LogLevel>,
}

impl Asker {
    pub(super) fn new(id: &Id, asked: &Asked<'_>) -> Self {
        Self { id: id.clone(), token: asked.token.map(|token| token.value.into()), level: asked.level }
    }
}

/// An outcome that the server gave.
#[derive(Debug)]
pub(super) struct Stored {
    /// It is an error.
    pub(super) error: bool,
    /// The result or the error, as JSON text.
    pub(super) text: Bytes,
}

impl Stored {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("null")
    }
}

impl Call {
    pub(super) fn params(&self) -> &str {
        let end = self.line.len().saturating_sub(1);
        self.line.get(self.params_at..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// The server is told that it cannot have an answer. Each kind is noted once.
    pub(super) fn note_refused(&mut self, unasked: &Unasked) {
        if let Some(need) = unasked.need
            && !self.refused.contains(&(need, unasked.why))
        {
            self.refused.push((need, unasked.why));
        }
    }

    /// An `InputRequiredResult` may be its answer (2026-07-28 "Multi Round-Trip Requests", Supported Requests).
    pub(super) fn carries_questions(&self) -> bool {
        carries_questions(&self.method)
    }
}

pub(super) fn carries_questions(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// Leaves nothing behind in a session.
fn only_looks(method: &str) -> bool {
    matches!(
        method,
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "completion/complete"
    )
}

/// A request of our own.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) kind: OwnKind,
    due: Duration,
}

/// What it is for.
#[derive(Debug)]
pub(super) enum OwnKind {
    /// `logging/setLevel`.
    Level,
    /// `resources/subscribe`.
    Subscribe(Box<str>),
    /// `resources/unsubscribe`.
    Unsubscribe,
}

impl ModernClient {
    /// Sends a request on its way.
    pub(super) fn call(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        asked: &Asked<'_>,
        original: &Bytes,
        effects: &mut Effects,
    ) {
        let number = self.new_call(request, asked, original);
        let waits = asked.level.is_some_and(|level| self.wants_level(now, level, effects));
        if waits {
            self.for_level.push(number);
        } else {
            self.send(number, effects);
        }
    }

    /// Takes a request in, without sending it.
    pub(super) fn new_call(&mut self, request: &Request<'_>, asked: &Asked<'_>, original: &Bytes) -> u64 {
        let number = self.next();
        let mut line = String::with_capacity(asked.len() + request.method.len() + self.prefix.len() + 80);
        line.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
        line.push_str(&self.our_id(number).to_json());
        line.push_str(",\"method\":");
        line.push_str(&message::quote(&request.method));
        line.push_str(",\"params\":");
        let params_at = line.len();
        asked.write_legacy_params(number, &mut line);
        line.push('}');
        let call = Call {
            method: (&*request.method).into(),
            original: original.clone(),
            bytes: original.len(),
            line: line.into(),
            params_at,
            unsent: true,
            idle: true,
            asker: Some(Asker::new(&request.id, asked)),
            abilities: asked.abilities,
            questions: Vec::new(),
            refused: Vec::new(),
            state: None,
            outcome: None,
            visits: Vec::new(),
            repeats: 0,
            due: None,
        };
        self.call_bytes += original.len();
        self.waiting.insert(request.id.clone(), Waiting::Call(number));
        self.calls.insert(number, call);
        number
    }

    /// Sends a call that was taken in.
    pub(super) fn send(&mut self, number: u64, effects: &mut Effects) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.unsent) else { return };
        call.unsent = false;
        call.idle = false;
        self.used |= !only_looks(&call.method);
        let line = if call.carries_questions() { call.line.clone() } else { std::mem::take(&mut call.line) };
        effects.to_session.push(line);
    }

    /// Gives a call another deadline, or none.
    pub(super) fn set_due(&mut self, number: u64, due: Option<(Duration, Due)>) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(old) = std::mem::replace(&mut call.due, due) {
            self.timers.remove(&old);
        }
        if let Some(due) = due {
            self.timers.insert(due);
        }
    }

    /// Lets a call go: nothing can answer it any more. What the server asked for it gets `unasked` as its answer.
    pub(super) fn drop_call(&mut self, number: u64, unasked: Option<&str>, effects: &mut Effects) -> Option<Call> {
        self.set_due(number, None);
        let mut call = self.calls.remove(&number)?;
        self.call_bytes = self.call_bytes.saturating_sub(call.bytes);
        if let Some(asker) = &call.asker {
            self.waiting.remove(&asker.id);
        }
        self.rounds.let_go(&call);
        for question in std::mem::take(&mut call.questions) {
            if question.stray {
                self.carry_on(question, unasked.unwrap_or("the client was not asked in time"), effects);
            } else if let (Some(id), Some(why)) = (&question.server_id, unasked) {
                effects.to_session.push(message::error_response(Some(id), message::BRIDGE_ERROR, why, None));
            }
        }
        if self.calls.is_empty() {
            // R8: memory does not stay at its peak.
            self.calls.shrink_to(64);
            self.waiting.shrink_to(64);
        }
        Some(call)
    }

    // ---- answers ----

    /// The server's answer to one of the client's requests.
    pub(super) fn call_answered(&mut self, now: Duration, number: u64, stored: Stored, effects: &mut Effects) {
        let Some(call) = self.calls.get_mut(&number) else {
            return effects.log.push((Level::Debug, "dropped an answer of the server that nobody waits for".into()));
        };
        call.idle = true;
        let (stray, asked): (Vec<_>, Vec<_>) =
            std::mem::take(&mut call.questions).into_iter().partition(|question| question.stray);
        self.rounds.withdraw(&asked);
        if call.asker.is_none() {
            // The client will answer those; the server may still wait for it.
            call.questions = stray;
            return self.keep_outcome(number, stored);
        }
        for question in stray {
            self.carry_on(question, "the client was not asked in time", effects);
        }
        self.settle(now, number, &stored, effects);
    }

    /// There is an answer, and somebody who waits for it.
    pub(super) fn settle(&mut self, now: Duration, number: u64, stored: &Stored, effects: &mut Effects) {
        if stored.error && results::code_of(stored.text()) == Some(results::URL_ELICITATION_REQUIRED) {
            return self.visits_required(now, number, stored, effects);
        }
        self.deliver(now, number, stored, effects);
    }

    /// Gives the client its response; the call is over.
    pub(super) fn deliver(&mut self, now: Duration, number: u64, stored: &Stored, effects: &mut Effects) {
        let Some(call) = self.drop_call(number, None, effects) else { return };
        let Some(asker) = call.asker else { return };
        if let Some(level) = asker.level
            && let Some(until) = self.log_until.get_mut(level.rank())
        {
            *until = now + LOG_GRACE;
        }
        let line = if stored.error {
            let text = results::message_of(stored.text());
            match call.refused.iter().find(|(_, why)| text.contains(why)) {
                Some((need, why)) => results::cannot_ask(&asker.id, *need, why),
                None => results::error_response(&asker.id, stored.text()),
            }
        } else {
            let info = self.facts().and_then(super::Facts::short_info);
            results::result_response(&asker.id, &call.method, stored.text(), info)
        };
        effects.to_client.push(line);
    }

    // ---- notifications ----

    pub(super) fn server_notification(
        &mut self,
        now: Duration,
        about: Option<u64>,
        notification: &Notification<'_>,
        line: Bytes,
        effects: &mut Effects,
    ) {
        let params = notification.params.map(RawValue::get);
        match &*notification.method {
            "notifications/progress" => self.progress(params, effects),
            "notifications/message" => {
                if self.wants_log(now, about, params) {
                    effects.to_client.push(line);
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => self.publish(&notification.method, params, effects),
            "notifications/cancelled" => {
                if let Some((id, _)) = params.and_then(super::cancelled_id) {
                    self.question_withdrawn(&id);
                }
            }
            "notifications/elicitation/complete" => self.visit_complete(params, effects),
            // Tasks of 2025-11-25: nobody here has one.
            "notifications/tasks/status" => {}
            // Of an extension, perhaps.
            _ => effects.to_client.push(line),
        }
    }

    /// The client knows its own token, the server ours.
    fn progress(&self, params: Option<&str>, effects: &mut Effects) {
        let Some(params) = params.filter(|params| is_object(params)) else { return };
        let Ok([Some(token)]) = members(params, ["progressToken"]) else { return };
        let call = token.value.parse::<u64>().ok().and_then(|number| self.calls.get(&number));
        let theirs = call.and_then(|call| call.asker.as_ref()).and_then(|asker| asker.token.as_deref());
        let Some(theirs) = theirs else { return };
        let mut object = Object::new(params);
        object.replace(token, With::Text(theirs.into()));
        let params = object.into_string();
        let line = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{params}}}");
        effects.to_client.push(line.into());
    }

    /// 2026-07-28 "Logging": only for a request that asked for this level. A message on a stream of its own may belong to any of them.
    fn wants_log(&self, now: Duration, about: Option<u64>, params: Option<&str>) -> bool {
        let level = params.and_then(|params| {
            let [level] = members(params, ["level"]).ok()?;
            LogLevel::read(level?.value)
        });
        let Some(level) = level else { return false };
        let wants = |call: &Call| call.asker.as_ref().and_then(|asker| asker.level).is_some_and(|least| level >= least);
        match about {
            Some(number) => self.calls.get(&number).is_some_and(wants),
            None => {
                let mut late = self.log_until.iter().take(level.rank() + 1);
                self.calls.values().any(wants) || late.any(|until| *until > now)
            }
        }
    }

    // ---- the log level ----

    /// The session has one level: the most verbose that a request asked for. True if the request must wait for it.
    fn wants_level(&mut self, now: Duration, level: LogLevel, effects: &mut Effects) -> bool {
        let logs = self.facts().is_some_and(|facts| facts.logging);
        if !logs {
            return false;
        }
        if self.log_level.is_some_and(|set| set <= level) {
            return self.levelling.is_some();
        }
        let params = format!("{{\"level\":\"{}\"}}", level.word());
        let Some(number) = self.own_request(now, LEVEL_PATIENCE, OwnKind::Level, "logging/setLevel", &params, effects)
        else {
            return false;
        };
        self.log_level = Some(level);
        self.levelling = Some(number);
        true
    }

    /// The server has taken the level, or will not.
    pub(super) fn level_settled(&mut self, effects: &mut Effects) {
        self.levelling = None;
        for number in std::mem::take(&mut self.for_level) {
            self.send(number, effects);
        }
    }

    // ---- requests of our own ----

    /// Sends a request of our own. `None` if too many wait already.
    pub(super) fn own_request(
        &mut self,
        now: Duration,
        patience: Duration,
        kind: OwnKind,
        method: &str,
        params: &str,
        effects: &mut Effects,
    ) -> Option<u64> {
        if self.own.len() >= MAX_OWN {
            effects
                .log
                .push((Level::Warn, format!("{method} is left out: the server does not answer the ones before")));
            return None;
        }
        let number = self.next();
        let id = self.our_id(number);
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}");
        effects.to_session.push(line.into());
        let due = now + patience;
        self.timers.insert((due, Due::Own(number)));
        self.own.insert(number, Own { kind, due });
        Some(number)
    }

    pub(super) fn own_answered(&mut self, now: Duration, number: u64, well: bool, effects: &mut Effects) {
        let Some(own) = self.own.remove(&number) else { return };
        self.timers.remove(&(own.due, Due::Own(number)));
        match own.kind {
            OwnKind::Level => {
                if self.levelling == Some(number) {
                    if !well {
                        self.log_level = None;
                    }
                    self.level_settled(effects);
                }
            }
            OwnKind::Subscribe(uri) => self.subscribed(now, &uri, number, well, effects),
            OwnKind::Unsubscribe => {}
        }
    }

    /// The server does not answer one of our own requests.
    pub(super) fn own_overdue(&mut self, now: Duration, number: u64, effects: &mut Effects) {
        if self.own.contains_key(&number) {
            effects.to_session.push(cancelled(&self.our_id(number), "\"time-out\""));
            self.own_answered(now, number, false, effects);
        }
    }

    // ---- a server that is modern by now ----

    /// What the older server may still be at work on is not waited for: its answers would find nobody. What can be sent again is.
    pub(super) fn give_up_calls(&mut self, effects: &mut Effects) {
        let mut numbers: Vec<u64> = self.calls.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(mut call) = self.drop_call(number, None, effects) else { continue };
            if !call.idle {
                effects.to_session.push(cancelled(&self.our_id(number), REPLACED));
            }
            let Some(asker) = call.asker.take() else { continue };
            if call.unsent || only_looks(&call.method) || matches!(&*call.method, "resources/read" | "prompts/get") {
                effects.wrong_era.get_or_insert_default().push(call.original);
            } else {
                let why =
                    "the server was replaced by one of another protocol version; the request may have been carried out";
                let data = "{\"source\":\"mcp-drawbridge\",\"kind\":\"connection-lost\"}";
                effects.to_client.push(message::error_response(
                    Some(&asker.id),
                    message::BRIDGE_ERROR,
                    why,
                    Some(data),
                ));
            }
        }
        let mut own: Vec<u64> = self.own.keys().copied().collect();
        own.sort_unstable();
        effects.to_session.extend(own.into_iter().map(|number| cancelled(&self.our_id(number), REPLACED)));
    }

    // ---- cancellation ----

    /// 2026-07-28 "Cancellation", stdio. Gives no response.
    pub(super) fn client_cancels(&mut self, now: Duration, id: &Id, reason: Option<&str>, effects: &mut Effects) {
        match self.waiting.get(id).copied() {
            None => {}
            Some(Waiting::ForSession) => {
                self.waiting.remove(id);
                if let super::Link::Opening { held, bytes, .. } = &mut self.link
                    && let Some(at) = held.iter().position(|(held, _)| held == id)
                {
                    let (_, line) = held.remove(at);
                    *bytes = bytes.saturating_sub(line.len());
                }
            }
            Some(Waiting::Call(number)) => {
                let why = "the client cancelled the request that this question belongs to";
                let Some(call) = self.drop_call(number, Some(why), effects) else { return };
                if !call.idle {
                    let reason = reason.unwrap_or("\"cancelled by the client\"");
                    effects.to_session.push(cancelled(&self.our_id(number), reason));
                }
            }
            Some(Waiting::Listen(number)) => self.unlisten(now, number, effects),
        }
    }
}

/// `notifications/cancelled` for the server. `reason` is JSON text.
pub(super) fn cancelled(id: &Id, reason: &str) -> Bytes {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\"reason\":{reason}}}}}"
    )
    .into()
}
