//! Multi round-trip requests for a client that knows requests of the server instead (2026-07-28 "Multi Round-Trip Requests").

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::LegacyClient;
use super::calls::{Key, State};
use super::client::Can;
use super::hello::cancelled;
use crate::eras::translator::Effects;
use crate::message::splice::{Object, With};
use crate::message::{self, Id, Outcome, Response};
use crate::session::Level;

/// Questions of one round.
const MAX_QUESTIONS: usize = 64;
/// First and longest pause before a request is sent again to a server that asked for it without a question.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);

/// The member that a server wants back as it was.
pub(super) const STATE: &str = "\"requestState\"";

/// Questions to the client that belong to one request.
#[derive(Debug)]
pub(super) struct Asking {
    questions: Vec<Question>,
    /// How many have no answer.
    missing: usize,
    /// The server's `requestState`, as JSON text.
    state: Option<Bytes>,
}

#[derive(Debug)]
struct Question {
    /// The id that the client knows.
    id: Id,
    /// The server's name for it, as JSON text.
    name: String,
    method: Box<str>,
    /// The client's result, as JSON text.
    answer: Option<Bytes>,
}

/// JSON text that was cut out of a line.
pub(super) fn text_of(text: &Bytes) -> &str {
    std::str::from_utf8(text).unwrap_or("null")
}

impl Asking {
    /// The questions without an answer, with their places.
    pub(super) fn ids(&self) -> impl Iterator<Item = (usize, &Id)> {
        let open = self.questions.iter().enumerate().filter(|(_, question)| question.answer.is_none());
        open.map(|(place, question)| (place, &question.id))
    }

    /// Bytes of it that the server wants to have back.
    pub(super) fn kept(&self) -> usize {
        let names: usize = self.questions.iter().map(|question| question.name.len()).sum();
        names + self.state.as_ref().map_or(0, Bytes::len)
    }

    /// The members that answer the server.
    pub(super) fn params(&self) -> Vec<(&str, With<'_>)> {
        let mut answers = Object::new("{}");
        for question in &self.questions {
            let answer = question.answer.as_ref().map_or("null", text_of);
            answers.add_value(&question.name, With::Text(answer.into()));
        }
        let state = self.state.as_ref().map(|state| (STATE, With::Text(text_of(state).into())));
        [("\"inputResponses\"", With::Object(answers))].into_iter().chain(state).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputRequired<'a> {
    #[serde(borrow, default)]
    input_requests: Option<InputRequests<'a>>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

/// In the server's order.
struct InputRequests<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for InputRequests<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = InputRequests<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InputRequests<'de>, A::Error> {
                let mut requests: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(name) = map.next_key::<Name>()? {
                    if requests.len() == MAX_QUESTIONS || requests.iter().any(|(other, _)| *other == name.0) {
                        return Err(serde::de::Error::custom("too many, or one twice"));
                    }
                    requests.push((name.0, map.next_value()?));
                }
                Ok(InputRequests(requests))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct InputRequest<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct QuestionParams<'a> {
    #[serde(borrow, default)]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "toolChoice")]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "elicitationId")]
    elicitation_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorHead {
    #[serde(default)]
    message: String,
}

impl LegacyClient {
    /// The server wants something of the client before it answers this request.
    pub(super) fn ask(&mut self, key: Key, result: &RawValue, whole: &Bytes, effects: &mut Effects) {
        let Ok(required) = serde_json::from_str::<InputRequired>(result.get()) else {
            return self.fail(key, "bad-json", "the server's questions to the client cannot be read", effects);
        };
        let most = self.settings.max_rounds;
        let Some(call) = self.calls.get_mut(key) else { return };
        call.rounds += 1;
        if call.rounds > most {
            let why = format!("the server asked the client for more input {most} times and did not come to an end");
            return self.fail(key, "too-many-rounds", &why, effects);
        }
        let mut old = std::mem::take(&mut call.elicitations);
        Self::end_elicitations(&mut old, effects);
        let requests = required.input_requests.map(|requests| requests.0).unwrap_or_default();
        if requests.is_empty() {
            return self.pause(key, required.request_state.map(|raw| whole.slice_ref(raw.get().as_bytes())), effects);
        }
        if self.leaving {
            return self.fail(
                key,
                "shutdown",
                "the server asked the client something, and the client has left",
                effects,
            );
        }
        let can = self.client.as_ref().map(|client| client.can).unwrap_or_default();
        let mut questions = Vec::with_capacity(requests.len());
        let mut lines = Vec::with_capacity(requests.len());
        for (name, raw) in requests {
            let Ok(request) = serde_json::from_str::<InputRequest>(raw.get()) else {
                return self.fail(key, "bad-json", "a question of the server to the client cannot be read", effects);
            };
            let params = request.params.and_then(|params| serde_json::from_str::<QuestionParams>(params.get()).ok());
            let params = params.unwrap_or_default();
            if let Err(what) = may_ask(&request.method, &params, can) {
                let why = format!("the server asked the client for something that it did not declare: {what}");
                return self.fail(key, "question-not-supported", &why, effects);
            }
            let id = self.own_id();
            let Some(line) = self.question_line(&id, &request, &params, key) else {
                return self.fail(key, "bad-json", "a question of the server to the client cannot be read", effects);
            };
            lines.push(line);
            questions.push(Question { id, name: message::quote(&name), method: request.method.into(), answer: None });
        }
        let state = required.request_state.map(|raw| whole.slice_ref(raw.get().as_bytes()));
        let asking = Asking { missing: questions.len(), questions, state };
        if self.keep(key, State::Asking(asking), effects) {
            effects.to_client.extend(lines);
        }
    }

    fn question_line(
        &mut self,
        id: &Id,
        request: &InputRequest<'_>,
        params: &QuestionParams<'_>,
        key: Key,
    ) -> Option<Bytes> {
        let mut line = Object::new("{}");
        line.add("jsonrpc", "\"2.0\"");
        line.add("id", &id.to_json());
        line.add("method", &message::quote(&request.method));
        if params.mode.as_deref() == Some("url") && params.elicitation_id.is_none() {
            // 2025-11-25 wants a name for it, and hears by that name that it is over.
            let Id::String(name) = self.own_id() else { return None };
            let mut given = Object::new(request.params.map_or("{}", RawValue::get));
            given.add("elicitationId", &message::quote(&name));
            if let Some(call) = self.calls.get_mut(key) {
                call.elicitations.push(name);
            }
            line.add_value("\"params\"", With::Object(given));
        } else if let Some(given) = request.params {
            line.add_value("\"params\"", With::Text(given.get().into()));
        }
        Some(line.into_string().into())
    }

    /// Nothing is asked: the request is to be sent again.
    fn pause(&mut self, key: Key, state: Option<Bytes>, effects: &mut Effects) {
        let Some(state) = state else {
            return self.fail(key, "bad-json", "the server wants more input, and does not say which", effects);
        };
        let Some(call) = self.calls.get_mut(key) else { return };
        let pause = PAUSE_FIRST.saturating_mul(1 << call.rounds.min(16)).min(PAUSE_MOST);
        self.keep(key, State::Pausing(self.now + pause, state), effects);
    }

    /// Lets a request wait in this state. False if there is no room: then it failed.
    fn keep(&mut self, key: Key, state: State, effects: &mut Effects) -> bool {
        if self.calls.lacks_room_for(&state) {
            let why = "the server wants more kept for it than the bridge may hold (requestState)";
            self.fail(key, "too-large", why, effects);
            return false;
        }
        self.calls.set_state(key, state);
        true
    }

    /// The client's response to a request of ours.
    pub(super) fn on_answer(&mut self, response: &Response<'_>, whole: &Bytes, effects: &mut Effects) {
        let Some((key, place)) = response.id.as_ref().and_then(|id| self.calls.take_question(id)) else {
            return Self::log(
                effects,
                Level::Debug,
                "dropped a response of the client to a request that no server made",
            );
        };
        let Some(call) = self.calls.get_mut(key) else { return };
        let State::Asking(asking) = &mut call.state else { return };
        let Some(question) = asking.questions.get_mut(place) else { return };
        match response.outcome {
            Outcome::Result(result) => {
                question.answer = Some(whole.slice_ref(result.get().as_bytes()));
                asking.missing = asking.missing.saturating_sub(1);
                if asking.missing == 0 {
                    self.send_again(key, effects);
                }
            }
            // The modern era has no form in which a client refuses a question.
            Outcome::Error(error) => {
                let words =
                    serde_json::from_str::<ErrorHead>(error.get()).map(|error| error.message).unwrap_or_default();
                let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
                let why = format!("the client refused the server's question ({}): {words}", question.method);
                self.fail(key, "question-refused", &why, effects);
            }
        }
    }

    /// The client answered with something that cannot be passed on.
    pub(super) fn answer_unusable(&mut self, id: &Id, why: &str, effects: &mut Effects) {
        if let Some((key, _)) = self.calls.take_question(id) {
            self.fail(key, "question-refused", why, effects);
        }
    }

    /// Nobody answers any more.
    pub(super) fn fail_questions(&mut self, why: &str, effects: &mut Effects) {
        for key in self.calls.keys() {
            if self.calls.get_mut(key).is_some_and(|call| matches!(call.state, State::Asking(_))) {
                self.fail(key, "shutdown", why, effects);
            }
        }
    }

    /// Takes back what the client was asked for this request.
    pub(super) fn withdraw_questions(&mut self, key: Key, effects: &mut Effects) {
        if self.leaving {
            return;
        }
        effects.to_client.extend(self.calls.open_questions(key).iter().map(cancelled));
    }

    /// 2025-11-25 "URL Mode Elicitation": the client hears that it is over.
    pub(super) fn end_elicitations(names: &mut Vec<Box<str>>, effects: &mut Effects) {
        for name in names.drain(..) {
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/elicitation/complete\",\"params\":{{\"elicitationId\":{}}}}}",
                message::quote(&name)
            );
            effects.to_client.push(line.into());
        }
    }
}

/// A server must ask only for what the client declared. `Err` says what it did not.
fn may_ask(method: &str, params: &QuestionParams<'_>, can: Can) -> Result<(), String> {
    let (may, what) = match method {
        "elicitation/create" => match params.mode.as_deref() {
            None | Some("form") => (can.fill_in, "elicitation"),
            Some("url") => (can.open_url, "elicitation by URL"),
            Some(_) => (false, "an unknown mode of elicitation"),
        },
        "sampling/createMessage" if params.tools.is_some() || params.tool_choice.is_some() => {
            (can.sample_with_tools, "sampling with tools")
        }
        "sampling/createMessage" => (can.sample, "sampling"),
        "roots/list" => (can.roots, "roots"),
        _ => (false, "an unknown request"),
    };
    if may {
        Ok(())
    } else {
        Err(format!("{what} ({})", method.chars().filter(|c| !c.is_control()).take(100).collect::<String>()))
    }
}
