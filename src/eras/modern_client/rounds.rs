//! Questions of the server while it works on a request, and the client's retry with the answers
//! (2026-07-28 "Multi Round-Trip Requests").
//!
//! The server's stream stays open while the client collects the answers. `requestState` is the name of that waiting call: 256 bits
//! that only this process can make, good for one retry of the same request, for [`LIFETIME`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use ring::hmac;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Asker, Call, Stored, cancelled};
use super::questions::{self, Unasked};
use super::request::{Abilities, Asked, Need, Refusal};
use super::results;
use super::{Due, ModernClient, Waiting, refuse};
use crate::eras::translator::Effects;
use crate::message::splice::{Object, With, is_object, members, string};
use crate::message::{self, BRIDGE_ERROR, Id, METHOD_NOT_FOUND, Request};
use crate::session::Level;

/// How long further questions of the server are waited for, so that the client gets them in one go.
pub(super) const GATHER: Duration = Duration::from_millis(25);
/// How long the client may take for a retry. A person may be filling in a form.
pub(super) const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Calls that may wait for a retry at one time. Beyond it, the one that waited longest is given up.
pub(super) const MAX_WAITING: usize = 256;
/// Questions that one call may have open, and their bytes. Further ones are refused.
pub(super) const MAX_QUESTIONS: usize = 64;
pub(super) const MAX_QUESTION_BYTES: usize = 8 << 20;
/// Bytes of the questions that all calls together may have open. Further ones are refused.
pub(super) const MAX_ALL_QUESTION_BYTES: usize = 64 << 20;
/// Bytes of answers that came while the client was away. A further one is replaced by an error.
pub(super) const MAX_STORED_BYTES: usize = 64 << 20;
/// States that are remembered as expired, to say so.
pub(super) const MAX_EXPIRED: usize = 256;
/// How long the server may take to report that the user has visited a URL, after the client said that the user agreed.
pub(super) const VISIT_PATIENCE: Duration = Duration::from_secs(10);
/// Times that one request is sent again because the server wants another URL visited.
pub(super) const MAX_VISIT_ROUNDS: u32 = 10;

const ASK_FOR_URL: &str = "elicitation/create";

/// Why a question has no answer.
pub(super) const UNANSWERED: &str = "the client did not answer in time";

/// A question that the client has not answered.
#[derive(Debug)]
pub(super) struct OpenQuestion {
    key: Box<str>,
    need: Need,
    /// The server's id for it; `None` for a visit that an error demanded.
    pub(super) server_id: Option<Id>,
    /// It came on the notification stream: another request may be the one that it belongs to.
    pub(super) stray: bool,
    method: Box<str>,
    /// Its parameters as the server wrote them: a piece of the server's line, copied when the client is asked.
    params: Option<Bytes>,
}

impl OpenQuestion {
    fn bytes(&self) -> usize {
        self.params.as_ref().map_or(0, Bytes::len)
    }

    /// The request object, in the words of 2026-07-28.
    fn request(&self) -> Option<Object<'_>> {
        let params = self.params.as_ref().and_then(|params| std::str::from_utf8(params).ok());
        Some(questions::judge(&self.method, params, Abilities::ALL).ok()?.request())
    }
}

/// The calls that wait for a retry.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    by_state: HashMap<Box<str>, u64>,
    by_question: HashMap<Id, u64>,
    /// By age.
    order: BTreeMap<u64, Box<str>>,
    expired: VecDeque<Box<str>>,
    stored_bytes: usize,
    question_bytes: usize,
    last: u64,
}

impl Rounds {
    /// Questions that need no answer any more.
    pub(super) fn withdraw(&mut self, questions: &[OpenQuestion]) {
        self.question_bytes = self.question_bytes.saturating_sub(bytes_of(questions));
        for id in questions.iter().filter_map(|question| question.server_id.as_ref()) {
            self.by_question.remove(id);
        }
    }

    /// A call is over.
    pub(super) fn let_go(&mut self, call: &Call) {
        self.withdraw(&call.questions);
        if let Some(state) = &call.state {
            self.by_state.remove(state);
            self.order.retain(|_, waiting| waiting != state);
        }
        if let Some(stored) = &call.outcome {
            self.stored_bytes = self.stored_bytes.saturating_sub(stored.text.len());
        }
    }

    /// Questions that were put into a call.
    fn took(&mut self, questions: &[OpenQuestion]) {
        self.question_bytes += bytes_of(questions);
    }

    /// Whether questions of so many bytes are too many, beside those of all calls.
    fn lacks_room_for(&self, bytes: usize) -> bool {
        self.question_bytes + bytes > MAX_ALL_QUESTION_BYTES
    }

    fn is_expired(&self, state: &str) -> bool {
        self.expired.iter().any(|expired| **expired == *state)
    }

    /// As if so much were kept.
    #[cfg(test)]
    pub(super) fn pretend_stored(&mut self, bytes: usize) {
        self.stored_bytes = bytes;
    }

    #[cfg(test)]
    pub(super) fn pretend_asked(&mut self, bytes: usize) {
        self.question_bytes = bytes;
    }

    pub(super) fn holds_nothing(&self) -> bool {
        let bytes = self.stored_bytes + self.question_bytes;
        self.by_state.is_empty() && self.by_question.is_empty() && self.order.is_empty() && bytes == 0
    }
}

fn bytes_of(questions: &[OpenQuestion]) -> usize {
    questions.iter().map(OpenQuestion::bytes).sum()
}

/// Keys of questions, and the client's answers as JSON text.
type Answers<'a> = Vec<(Box<str>, &'a str)>;

#[derive(Deserialize)]
struct UrlError<'a> {
    #[serde(borrow)]
    data: UrlData<'a>,
}

#[derive(Deserialize)]
struct UrlData<'a> {
    #[serde(borrow)]
    elicitations: Vec<&'a RawValue>,
}

impl ModernClient {
    // ---- the server asks ----

    pub(super) fn server_asks(
        &mut self,
        now: Duration,
        about: Option<u64>,
        request: &Request<'_>,
        line: &Bytes,
        effects: &mut Effects,
    ) {
        if request.method == "ping" {
            return effects.answers.push(message::result_response(&request.id, "{}"));
        }
        if let Err(unasked) = self.take_question(now, about, request, line) {
            effects.log.push((Level::Info, format!("{} of the server is refused: {}", request.method, unasked.why)));
            effects.answers.push(message::error_response(Some(&request.id), unasked.code, unasked.why, None));
        }
    }

    fn take_question(
        &mut self,
        now: Duration,
        about: Option<u64>,
        request: &Request<'_>,
        line: &Bytes,
    ) -> Result<(), Unasked> {
        let refuse = |code, why| Err(Unasked { code, why, need: None });
        if !questions::is_question(&request.method) {
            return refuse(METHOD_NOT_FOUND, "the client has no such method");
        }
        let Some(number) = self.whose(about, request) else {
            return refuse(
                BRIDGE_ERROR,
                "the client can be asked only while it waits for a tool, a prompt or a resource",
            );
        };
        let serial = self.last + 1;
        let Some(call) = self.calls.get_mut(&number) else { return refuse(BRIDGE_ERROR, "the request is over") };
        let params = request.params.map(RawValue::get);
        let question = match questions::judge(&request.method, params, call.abilities) {
            Ok(question) => question,
            Err(unasked) => {
                call.note_refused(&unasked);
                return Err(unasked);
            }
        };
        let length = params.map_or(0, str::len);
        if call.questions.len() >= MAX_QUESTIONS
            || bytes_of(&call.questions) + length > MAX_QUESTION_BYTES
            || self.rounds.lacks_room_for(length)
        {
            return refuse(BRIDGE_ERROR, "too many questions wait for the client already");
        }
        call.questions.push(OpenQuestion {
            key: format!("{}-{serial}", question.kind).into(),
            need: question.need,
            server_id: Some(request.id.clone()),
            stray: about.is_none(),
            method: (&*request.method).into(),
            params: params.map(|params| line.slice_ref(params.as_bytes())),
        });
        self.rounds.took(call.questions.last().map(std::slice::from_ref).unwrap_or_default());
        let begin = call.asker.is_some() && call.due.is_none();
        self.last = serial;
        self.rounds.by_question.insert(request.id.clone(), number);
        if begin {
            self.set_due(number, Some((now + GATHER, Due::Ask(number))));
        }
        Ok(())
    }

    /// The call that a question belongs to: the one on whose stream it came; else the newest that can carry it, if possible one whose
    /// client waits.
    fn whose(&self, about: Option<u64>, request: &Request<'_>) -> Option<u64> {
        if let Some(number) = about {
            return self.calls.get(&number).filter(|call| call.carries_questions()).map(|_| number);
        }
        let mut judged: Vec<(Abilities, bool)> = Vec::new(); // few kinds of clients, perhaps many calls
        let mut able = |call: &Call| match judged.iter().find(|(abilities, _)| *abilities == call.abilities) {
            Some((_, able)) => *able,
            None => {
                let params = request.params.map(RawValue::get);
                let able = questions::judge(&request.method, params, call.abilities).is_ok();
                judged.push((call.abilities, able));
                able
            }
        };
        self.calls
            .iter()
            .filter(|(_, call)| call.carries_questions() && !call.idle)
            .max_by_key(|(number, call)| (able(call), call.asker.is_some(), **number))
            .map(|(number, _)| *number)
    }

    /// The request that carried a question is over, and may not be the one that it belongs to: another carries it. Without one, the
    /// server gets an error.
    pub(super) fn carry_on(&mut self, question: OpenQuestion, why: &str, effects: &mut Effects) {
        let Some(id) = question.server_id.clone() else { return };
        let able = |call: &Call| {
            call.carries_questions()
                && !call.idle
                && call.abilities.allow(question.need)
                && call.questions.len() < MAX_QUESTIONS
        };
        let others = self.calls.iter().filter(|(_, call)| !self.gone && able(call));
        let other = others.max_by_key(|(number, call)| (call.asker.is_some(), **number)).map(|(number, _)| *number);
        let Some((number, call)) = other.and_then(|number| Some((number, self.calls.get_mut(&number)?))) else {
            self.rounds.by_question.remove(&id);
            return effects.to_session.push(message::error_response(Some(&id), BRIDGE_ERROR, why, None));
        };
        call.questions.push(question);
        let begin = call.asker.is_some() && call.due.is_none();
        self.rounds.by_question.insert(id, number);
        if begin {
            self.set_due(number, Some((self.now + GATHER, Due::Ask(number))));
        }
    }

    /// The server needs no answer to this question any more.
    pub(super) fn question_withdrawn(&mut self, id: &Id) {
        let Some(number) = self.rounds.by_question.remove(id) else { return };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let withdrawn: Vec<_> =
            call.questions.extract_if(.., |question| question.server_id.as_ref() == Some(id)).collect();
        self.rounds.withdraw(&withdrawn);
        if call.questions.is_empty() && matches!(call.due, Some((_, Due::Ask(_)))) {
            self.set_due(number, None);
        }
    }

    // ---- the client is asked ----

    /// Answers the client's request with the open questions. The call goes on without it.
    pub(super) fn ask(&mut self, now: Duration, number: u64, effects: &mut Effects) {
        self.set_due(number, None);
        let state = self.new_state();
        let info = self.facts().and_then(super::Facts::short_info).map(str::to_owned);
        let Some(call) = self.calls.get_mut(&number).filter(|call| !call.questions.is_empty()) else { return };
        let Some(asker) = call.asker.take() else { return };
        let mut requests = Object::new("{}");
        for question in &call.questions {
            if let Some(request) = question.request() {
                requests.add_value(message::quote(&question.key), With::Object(request));
            }
        }
        let mut result = Object::new("{}");
        result.add("resultType", "\"input_required\"");
        result.add_value("\"inputRequests\"", With::Object(requests));
        result.add("requestState", &message::quote(&state));
        if let Some(info) = &info {
            result.add("_meta", &format!("{{\"{}\":{info}}}", super::opening::SERVER_INFO));
        }
        let mut response = Object::new("{}");
        response.add("jsonrpc", "\"2.0\"");
        response.add("id", &asker.id.to_json());
        response.add_value("\"result\"", With::Object(result));
        effects.to_client.push(response.into_string().into());
        call.state = Some(state.clone());
        self.waiting.remove(&asker.id);
        self.rounds.last += 1;
        self.rounds.order.insert(self.rounds.last, state.clone());
        self.rounds.by_state.insert(state, number);
        self.set_due(number, Some((now + LIFETIME, Due::Forget(number))));
        if self.rounds.by_state.len() > MAX_WAITING
            && let Some(oldest) = self.rounds.order.values().next().cloned()
            && let Some(oldest) = self.rounds.by_state.get(&oldest).copied()
        {
            effects
                .log
                .push((Level::Warn, "too many requests wait for the client's answers; the oldest is given up".into()));
            self.forget(oldest, UNANSWERED, effects);
        }
    }

    /// A name that cannot be guessed. The counter makes it new, the key makes it ours.
    fn new_state(&mut self) -> Box<str> {
        let count = self.next();
        let tag = hmac::sign(&self.seal, &count.to_be_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag.as_ref()).into()
    }

    /// The client never came back.
    pub(super) fn forget(&mut self, number: u64, why: &str, effects: &mut Effects) {
        let Some(call) = self.drop_call(number, Some(why), effects) else { return };
        if !call.idle {
            effects.to_session.push(cancelled(&self.our_id(number), &message::quote(why)));
        }
        if let Some(state) = call.state {
            if self.rounds.expired.len() >= MAX_EXPIRED {
                self.rounds.expired.pop_front();
            }
            self.rounds.expired.push_back(state);
        }
    }

    /// The client will not come back.
    pub(super) fn forget_all(&mut self, effects: &mut Effects) {
        let mut away: Vec<u64> = self.rounds.by_state.values().copied().collect();
        away.sort_unstable();
        // Nobody else will be asked either.
        let gone = std::mem::replace(&mut self.gone, true);
        for number in away {
            self.forget(number, "the client left before it answered", effects);
        }
        self.gone = gone;
    }

    /// The answer came while the client was away.
    pub(super) fn keep_outcome(&mut self, number: u64, stored: Stored) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let room = MAX_STORED_BYTES.saturating_sub(self.rounds.stored_bytes);
        let stored = if stored.text.len() <= room {
            stored
        } else {
            let text = format!(
                "{{\"code\":{BRIDGE_ERROR},\"message\":\"the answer came while the client was away, and was too large to be kept\"}}"
            );
            Stored { error: true, text: text.into() }
        };
        self.rounds.stored_bytes += stored.text.len();
        call.outcome = Some(stored);
    }

    // ---- the client answers ----

    /// A retry.
    pub(super) fn resume(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        asked: &Asked<'_>,
        line: &Bytes,
        effects: &mut Effects,
    ) {
        let (number, answers) = match self.judge_retry(request, asked) {
            Ok(judged) => judged,
            Err(refusal) => return refuse(&request.id, &refusal, effects),
        };
        self.set_due(number, None);
        let Some(call) = self.calls.get_mut(&number) else { return };
        self.rounds.let_go(call); // one state, one retry
        call.state = None;
        call.abilities = asked.abilities;
        call.asker = Some(Asker::new(&request.id, asked));
        self.waiting.insert(request.id.clone(), Waiting::Call(number));
        let mut missing = Vec::new();
        let mut agreed = true;
        let mut unable = false;
        for question in std::mem::take(&mut call.questions) {
            let Some((_, answer)) = answers.iter().find(|(key, _)| **key == *question.key) else {
                // It may have declared more the first time.
                if asked.abilities.allow(question.need) {
                    missing.push(question);
                } else if let Some(id) = &question.server_id {
                    let unasked = questions::undeclared(question.need, asked.abilities);
                    call.note_refused(&unasked);
                    effects.to_session.push(message::error_response(Some(id), unasked.code, unasked.why, None));
                } else {
                    unable = true;
                }
                continue;
            };
            match &question.server_id {
                Some(id) => effects.to_session.push(message::result_response(id, answer)),
                None => agreed &= is_accepted(answer),
            }
        }
        for id in missing.iter().filter_map(|question| question.server_id.clone()) {
            self.rounds.by_question.insert(id, number);
        }
        self.rounds.took(&missing);
        call.questions = missing;
        if let Some(stored) = call.outcome.take() {
            return self.settle(now, number, &stored, effects);
        }
        if unable {
            self.drop_call(number, None, effects);
            return effects.to_client.push(results::cannot_ask_for_url(&request.id));
        }
        if !call.questions.is_empty() {
            return self.ask(now, number, effects);
        }
        if call.idle {
            if agreed {
                self.visits_made(now, number, request, asked, line, effects);
            } else {
                self.drop_call(number, None, effects);
                effects.to_client.push(results::url_declined(&request.id));
            }
        }
    }

    /// The call that a retry resumes, and the answers in it. Changes nothing.
    fn judge_retry<'a>(&self, request: &Request<'_>, asked: &Asked<'a>) -> Result<(u64, Answers<'a>), Refusal> {
        let state = asked.state.and_then(|state| string(state.value));
        let state = state.ok_or_else(|| Refusal::invalid("\"requestState\" must be a string"))?;
        let Some(number) = self.rounds.by_state.get(&*state).copied() else {
            let why = if self.rounds.is_expired(&state) {
                "this \"requestState\" has expired: the questions were not answered in time; send the request again without it"
            } else {
                "this \"requestState\" is not known, or was used already; send the request again without it"
            };
            return Err(Refusal::invalid(why));
        };
        let same = self
            .calls
            .get(&number)
            .is_some_and(|call| *call.method == *request.method && asked.is_retry_of(call.params()));
        if !same {
            return Err(Refusal::invalid("this \"requestState\" belongs to another request"));
        }
        Ok((number, answers_of(asked)?))
    }

    // ---- visits to URLs that an error demanded (2025-11-25 "Elicitation", URL Elicitation Required Error) ----

    /// The server wants URLs visited before it looks at the request again.
    pub(super) fn visits_required(&mut self, now: Duration, number: u64, stored: &Stored, effects: &mut Effects) {
        let Some(call) = self.calls.get(&number) else { return };
        let Some(id) = call.asker.as_ref().map(|asker| asker.id.clone()) else {
            return; // nobody waits
        };
        if !call.carries_questions() || call.repeats >= MAX_VISIT_ROUNDS {
            return self.deliver(now, number, stored, effects);
        }
        if !call.abilities.elicitation_url {
            self.drop_call(number, None, effects);
            return effects.to_client.push(results::cannot_ask_for_url(&id));
        }
        let demanded: Option<UrlError> = serde_json::from_str(stored.text()).ok();
        let demanded = demanded.map(|error| error.data.elicitations).unwrap_or_default();
        if demanded.is_empty() || demanded.len() > MAX_QUESTIONS || stored.text.len() > MAX_QUESTION_BYTES {
            return self.deliver(now, number, stored, effects);
        }
        let first = self.last + 1;
        self.last += demanded.len() as u64;
        let mut questions = Vec::new();
        let mut visits = Vec::new();
        for (raw, serial) in demanded.into_iter().zip(first..) {
            let Ok([elicitation]) = members(raw.get(), ["elicitationId"]) else { continue };
            if questions::judge(ASK_FOR_URL, Some(raw.get()), Abilities::ALL).is_err() {
                continue;
            }
            visits.extend(elicitation.and_then(|id| string(id.value)).map(Box::from));
            questions.push(OpenQuestion {
                key: format!("elicitation-{serial}").into(),
                need: Need::Url,
                server_id: None,
                stray: false,
                method: ASK_FOR_URL.into(),
                params: Some(stored.text.slice_ref(raw.get().as_bytes())),
            });
        }
        let Some(call) = self.calls.get_mut(&number) else { return };
        if questions.is_empty() || self.rounds.lacks_room_for(bytes_of(&questions)) {
            return self.deliver(now, number, stored, effects);
        }
        self.rounds.took(&questions);
        call.questions = questions;
        call.visits = visits;
        self.ask(now, number, effects);
    }

    /// The client came back from the visits: the request goes out again, once the server knows of them.
    fn visits_made(
        &mut self,
        now: Duration,
        number: u64,
        request: &Request<'_>,
        asked: &Asked<'_>,
        line: &Bytes,
        effects: &mut Effects,
    ) {
        let Some(old) = self.drop_call(number, None, effects) else { return };
        let again = self.new_call(request, asked, line);
        let Some(call) = self.calls.get_mut(&again) else { return };
        call.repeats = old.repeats + 1;
        call.visits = old.visits;
        if call.visits.is_empty() {
            return self.send(again, effects);
        }
        self.set_due(again, Some((now + VISIT_PATIENCE, Due::Visit(again))));
    }

    /// `notifications/elicitation/complete`.
    pub(super) fn visit_complete(&mut self, params: Option<&str>, effects: &mut Effects) {
        let id = params.and_then(|params| {
            let [id] = members(params, ["elicitationId"]).ok()?;
            string(id?.value).map(Cow::into_owned)
        });
        let Some(id) = id else { return };
        let mut ready = Vec::new();
        for (number, call) in &mut self.calls {
            let before = call.visits.len();
            call.visits.retain(|visit| **visit != *id);
            if call.visits.len() < before && call.visits.is_empty() && matches!(call.due, Some((_, Due::Visit(_)))) {
                ready.push(*number);
            }
        }
        ready.sort_unstable();
        for number in ready {
            self.set_due(number, None);
            self.send(number, effects);
        }
    }

    /// The server did not report the visit. It may not be one that does.
    pub(super) fn visit_over(&mut self, number: u64, effects: &mut Effects) {
        self.set_due(number, None);
        self.send(number, effects);
    }
}

/// The user agreed.
fn is_accepted(answer: &str) -> bool {
    let Ok([Some(action)]) = members(answer, ["action"]) else { return false };
    action.value == "\"accept\""
}

impl ModernClient {
    /// Judges answers that come without a state. To a question that the client is asked now they are half a retry. Others are to no
    /// question of ours, perhaps to one of a server that was there before: they change nothing, and what the server wants to know it
    /// asks again (2026-07-28 "Multi Round-Trip Requests", Error Handling).
    pub(super) fn judge_stray_answers(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let answers = answers_of(asked)?;
        let open = |key: &str| self.calls.values().any(|call| call.questions.iter().any(|open| *open.key == *key));
        if answers.iter().any(|(key, _)| open(key)) {
            return Err(Refusal::invalid("\"inputResponses\" without the \"requestState\" that they answer"));
        }
        Ok(())
    }
}

/// The answers in a request. Malformed ones are refused, also those to questions that were never put.
fn answers_of<'a>(asked: &Asked<'a>) -> Result<Answers<'a>, Refusal> {
    asked.responses.map_or_else(
        || Ok(Vec::new()),
        |responses| {
            read_answers(responses.value)
                .ok_or_else(|| Refusal::invalid("\"inputResponses\" must be an object whose values are objects"))
        },
    )
}

/// Keys and values of `inputResponses`.
fn read_answers(responses: &str) -> Option<Answers<'_>> {
    if !is_object(responses) {
        return None;
    }
    let read: BTreeMap<Box<str>, &RawValue> = serde_json::from_str(responses).ok()?;
    read.into_iter().map(|(key, value)| is_object(value.get()).then_some((key, value.get()))).collect()
}
