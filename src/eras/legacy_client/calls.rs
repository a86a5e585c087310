//! The client's requests, from their first sending to their one response.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::LegacyClient;
use super::client::Client;
use super::hello::{Refusal, cancelled, param, read_refusal};
use super::questions::{Asking, STATE, text_of};
use super::results;
use crate::eras::translator::Effects;
use crate::message::splice::{self, Change, With};
use crate::message::{self, Id, Notification, Outcome, Request};
use crate::session::batch::BatchId;

/// Bytes that the servers' `requestState`s of all requests together may have, with the names of their questions. A request whose own is too
/// much fails.
pub(super) const MAX_KEPT: usize = 64 << 20;

/// Names a request of the client here.
pub(super) type Key = u64;

/// The client's requests without a response.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: HashMap<Key, Call>,
    by_client: HashMap<Id, Key>,
    by_session: HashMap<Id, Key>,
    /// Our questions to the client: whose they are, and the place of the answer.
    questions: HashMap<Id, (Key, usize)>,
    pauses: BTreeSet<(Duration, Key)>,
    last: Key,
    bytes: usize,
    /// Bytes of what the server wants to have back.
    kept: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Id,
    pub(super) batch: Option<BatchId>,
    pub(super) method: Box<str>,
    /// As the client wrote it.
    pub(super) line: Bytes,
    /// Rounds of questions so far.
    pub(super) rounds: u32,
    /// It was sent again with a version that the server named.
    retried: bool,
    /// Elicitations by URL that the client knows of, and has not heard the end of.
    pub(super) elicitations: Vec<Box<str>>,
    pub(super) state: State,
    /// Bytes in `state` that the server wants to have back.
    kept: usize,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum State {
    /// With the session, under this id.
    Sent(Id),
    /// With the client.
    Asking(Asking),
    /// The server wants it again, and nothing of the client. It goes with this state, JSON text.
    Pausing(Duration, Bytes),
}

impl State {
    fn kept(&self) -> usize {
        match self {
            Self::Sent(_) => 0,
            Self::Asking(asking) => asking.kept(),
            Self::Pausing(_, params) => params.len(),
        }
    }
}

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request of the client with this id waits for its response.
    pub(super) fn is_open(&self, id: &Id) -> bool {
        self.by_client.contains_key(id)
    }

    /// Whether what the server wants to have back is too much, beside that of all requests.
    pub(super) fn lacks_room_for(&self, state: &State) -> bool {
        self.kept + state.kept() > MAX_KEPT
    }

    /// As if so much were kept.
    #[cfg(test)]
    pub(super) fn pretend_kept(&mut self, bytes: usize) {
        self.kept = bytes;
    }

    pub(super) fn is_question(&self, id: &Id) -> bool {
        self.questions.contains_key(id)
    }

    /// The request that the session knows by this id.
    pub(super) fn of_session(&self, id: &Id) -> Option<Key> {
        self.by_session.get(id).copied()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Call> {
        self.open.get_mut(&key)
    }

    /// Whether the client is owed something that the session does not know of.
    pub(super) fn owes(&self) -> bool {
        self.by_session.len() < self.open.len()
    }

    /// Takes the request back from the session, by the session's id.
    pub(super) fn take_back(&mut self, session_id: &Id) -> Option<Call> {
        let key = self.of_session(session_id)?;
        self.remove(key)
    }

    fn add(&mut self, call: Call) -> Key {
        self.last += 1;
        self.bytes += call.line.len();
        self.by_client.insert(call.id.clone(), self.last);
        if let State::Sent(id) = &call.state {
            self.by_session.insert(id.clone(), self.last);
        }
        self.open.insert(self.last, call);
        self.last
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Call> {
        let call = self.open.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(call.line.len());
        self.kept = self.kept.saturating_sub(call.kept);
        self.by_client.remove(&call.id);
        self.leave_state(key, &call.state);
        Some(call)
    }

    /// Moves a request to another state.
    pub(super) fn set_state(&mut self, key: Key, state: State) {
        let Some(call) = self.open.get_mut(&key) else { return };
        let kept = state.kept();
        self.kept = self.kept.saturating_sub(std::mem::replace(&mut call.kept, kept)) + kept;
        let old = std::mem::replace(&mut call.state, state);
        self.leave_state(key, &old);
        match self.open.get(&key).map(|call| &call.state) {
            Some(State::Sent(id)) => {
                self.by_session.insert(id.clone(), key);
            }
            Some(State::Asking(asking)) => {
                for (place, id) in asking.ids() {
                    self.questions.insert(id.clone(), (key, place));
                }
            }
            Some(State::Pausing(until, _)) => {
                self.pauses.insert((*until, key));
            }
            None => {}
        }
    }

    fn leave_state(&mut self, key: Key, state: &State) {
        match state {
            State::Sent(id) => {
                self.by_session.remove(id);
            }
            State::Asking(asking) => {
                for (_, id) in asking.ids() {
                    self.questions.remove(id);
                }
            }
            State::Pausing(until, _) => {
                self.pauses.remove(&(*until, key));
            }
        }
    }

    /// The answer to a question came, and is not waited for any more.
    pub(super) fn take_question(&mut self, id: &Id) -> Option<(Key, usize)> {
        self.questions.remove(id)
    }

    /// The questions of a request that the client has not answered, in their order.
    pub(super) fn open_questions(&self, key: Key) -> Vec<Id> {
        match self.open.get(&key).map(|call| &call.state) {
            Some(State::Asking(asking)) => {
                asking.ids().map(|(_, id)| id).filter(|id| self.questions.contains_key(*id)).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.pauses.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Duration) -> Option<Key> {
        self.pauses.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.open.keys().copied().collect();
        keys.sort_unstable();
        keys
    }
}

impl LegacyClient {
    /// The client's message as the modern era wants it.
    pub(super) fn translated(&self, line: &Bytes) -> Option<Bytes> {
        splice::changed(line, Change { meta: self.client.as_ref()?.meta(), ..Change::default() })
    }

    pub(super) fn on_call(
        &mut self,
        request: &Request<'_>,
        line: Bytes,
        batch: Option<BatchId>,
        effects: &mut Effects,
    ) {
        let refuse = |code, why: &str| message::error_response(Some(&request.id), code, why, None);
        match &*request.method {
            "logging/setLevel" => {
                let level = param(&line, "level");
                let known =
                    self.client.as_mut().is_some_and(|client| level.is_some_and(|level| client.set_log_level(&level)));
                let answer = if !self.listen.offers.logging {
                    refuse(message::METHOD_NOT_FOUND, "the server writes no log messages")
                } else if known {
                    message::result_response(&request.id, "{}")
                } else {
                    refuse(message::INVALID_PARAMS, "there is no such log level")
                };
                self.respond(batch, answer, effects);
            }
            "resources/subscribe" | "resources/unsubscribe" => self.on_subscribe(request, &line, batch, effects),
            // 2026-07-28 changelog: tasks left the core protocol, and their extension works otherwise.
            method if method.starts_with("tasks/") => {
                let why = "the server speaks 2026-07-28, which has no tasks of 2025-11-25";
                self.respond(batch, refuse(message::METHOD_NOT_FOUND, why), effects);
            }
            method => {
                let Some(text) = self.translated(&line) else {
                    let why = "the parameters must be an object, with each member once";
                    return self.respond(batch, refuse(message::INVALID_PARAMS, why), effects);
                };
                let call = Call {
                    id: request.id.clone(),
                    batch,
                    method: method.into(),
                    line,
                    rounds: 0,
                    retried: false,
                    elicitations: Vec::new(),
                    state: State::Sent(request.id.clone()),
                    kept: 0,
                };
                self.calls.add(call);
                effects.to_session.push(text);
            }
        }
    }

    /// Sends a request again, under an id of its own (2026-07-28 "Multi Round-Trip Requests").
    /// What it waited for goes with it.
    pub(super) fn send_again(&mut self, key: Key, effects: &mut Effects) {
        let id = self.own_id();
        let Some(call) = self.calls.open.get(&key) else { return };
        let params = match &call.state {
            State::Sent(_) => Vec::new(),
            State::Asking(asking) => asking.params(),
            State::Pausing(_, state) => vec![(STATE, With::Text(text_of(state).into()))],
        };
        let meta = self.client.as_ref().map(Client::meta).unwrap_or_default();
        match splice::changed(&call.line, Change { id: Some(&id), params, meta }) {
            Some(text) => {
                self.calls.set_state(key, State::Sent(id));
                effects.to_session.push(text);
            }
            None => self.fail(key, "bad-json", "the request cannot be sent again", effects),
        }
    }

    /// The session has the response to a request.
    pub(super) fn on_outcome(&mut self, key: Key, outcome: Outcome<'_>, line: Bytes, effects: &mut Effects) {
        let Some(call) = self.calls.get_mut(key) else { return };
        match outcome {
            Outcome::Error(error) => {
                if !call.retried && matches!(read_refusal(error), Refusal::Version) {
                    call.retried = true;
                    return self.send_again(key, effects);
                }
                self.finish_call(key, line, effects);
            }
            Outcome::Result(result) => {
                self.server_answers();
                if results::is_plainly_complete(result.get()) {
                    return self.complete(key, result, line, effects);
                }
                match results::kind(result) {
                    results::Kind::Complete => self.complete(key, result, line, effects),
                    results::Kind::InputRequired => self.ask(key, result, &line, effects),
                    results::Kind::Unknown if self.client.as_ref().is_some_and(|client| client.can.extensions) => {
                        self.finish_call(key, line, effects);
                    }
                    results::Kind::Unknown => {
                        let why = "the server answered with a kind of result that the client's protocol version does not know";
                        self.fail(key, "result-type", why, effects);
                    }
                }
            }
        }
    }

    fn complete(&mut self, key: Key, result: &RawValue, line: Bytes, effects: &mut Effects) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let version = self.client.as_ref().map(|client| client.version.as_str()).unwrap_or_default();
        let line = results::for_revision(&call.method, version, result, line);
        self.finish_call(key, line, effects);
    }

    /// The client gets its response.
    pub(super) fn finish_call(&mut self, key: Key, line: Bytes, effects: &mut Effects) {
        let Some(mut call) = self.calls.remove(key) else { return };
        Self::end_elicitations(&mut call.elicitations, effects);
        let same = matches!(&call.state, State::Sent(id) if *id == call.id);
        let line = if same { line } else { message::with_id(&line, &call.id).unwrap_or(line) };
        self.respond(call.batch, line, effects);
    }

    /// The client gets an error of ours.
    pub(super) fn fail(&mut self, key: Key, kind: &str, why: &str, effects: &mut Effects) {
        let data = format!("{{\"source\":\"mcp-drawbridge\",\"kind\":{}}}", message::quote(kind));
        self.withdraw_questions(key, effects);
        let Some(mut call) = self.calls.remove(key) else { return };
        Self::end_elicitations(&mut call.elicitations, effects);
        let line = message::error_response(Some(&call.id), message::BRIDGE_ERROR, why, Some(&data));
        self.respond(call.batch, line, effects);
    }

    /// R6: the stream is closed, and questions about the request are withdrawn.
    pub(super) fn on_cancelled(&mut self, notification: &Notification<'_>, text: Bytes, effects: &mut Effects) {
        let id = notification
            .params
            .and_then(|params| serde_json::from_str::<Cancelled>(params.get()).ok())
            .and_then(|params| Id::from_json(params.request_id.get()));
        let Some(key) = id.as_ref().and_then(|id| self.calls.by_client.get(id).copied()) else {
            if id.is_some_and(|id| self.cancel_subscriber(&id, effects)) {
                return;
            }
            // Perhaps a modern request's.
            return effects.to_session.push(text);
        };
        self.withdraw_questions(key, effects);
        let Some(mut call) = self.calls.remove(key) else { return };
        Self::end_elicitations(&mut call.elicitations, effects);
        if let State::Sent(session_id) = &call.state {
            effects.to_session.push(cancelled(session_id));
        }
        self.leave_batch(call.batch, effects);
    }

    pub(super) fn pauses_due(&mut self, effects: &mut Effects) {
        while let Some(key) = self.calls.due(self.now) {
            self.send_again(key, effects);
            if self.calls.due(self.now) == Some(key) {
                return; // never: one that was sent, or failed, is not due
            }
        }
    }

    /// The server is legacy: what may be sent to it again goes to `lines`, the rest fails.
    pub(super) fn give_up_calls(&mut self, lines: &mut Vec<Bytes>, effects: &mut Effects) {
        for key in self.calls.keys() {
            let Some(call) = self.calls.get_mut(key) else { continue };
            let safe = is_safe(&call.method);
            if let State::Sent(id) = &call.state {
                effects.to_session.push(cancelled(id));
            }
            if safe {
                self.withdraw_questions(key, effects);
                let Some(call) = self.calls.remove(key) else { continue };
                self.leave_batch(call.batch, effects);
                lines.push(call.line);
            } else {
                let why =
                    "the server was replaced by one of another protocol version; the request may have been carried out";
                self.fail(key, "connection-lost", why, effects);
            }
        }
    }

    /// The session is over.
    pub(super) fn end_calls(&mut self, effects: &mut Effects) {
        for key in self.calls.keys() {
            self.fail(key, "shutdown", "the bridge was told to end before the answer came", effects);
        }
    }
}

/// Requests that change nothing, by the specification.
fn is_safe(method: &str) -> bool {
    matches!(
        method,
        "tools/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "prompts/list"
            | "prompts/get"
            | "completion/complete"
    )
}
