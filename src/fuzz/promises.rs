//! What must be true of everything that a session does.

use bytes::Bytes;
use serde_json::Value;

use super::assert_one_line;
use super::server::Running;
use super::world::{SECRET, World, parse_id};
use crate::message::{self, Id, Message, Outcome, Parsed};
use crate::session::{Action, ExchangeId, Input, Outgoing, Target, Verb};

/// Actions that one input may cause. Scripts have few messages in flight.
const MAX_ACTIONS: usize = 1000;

/// Set `TRACE=1` when building to see a script as a dialogue.
const TRACE: bool = option_env!("TRACE").is_some();

impl World {
    pub(super) fn input(&mut self, input: Input) {
        assert!(!self.exited, "nobody asks after the end");
        let mut actions = std::mem::take(&mut self.actions);
        if TRACE {
            eprintln!("{:?} {input:?}", self.now);
        }
        self.session.handle(self.now, input, &mut actions);
        if TRACE {
            for action in &actions {
                eprintln!("    {action:?}");
            }
        }
        assert!(actions.len() <= MAX_ACTIONS, "{} actions for one input", actions.len());
        for action in actions.drain(..) {
            assert!(!self.exited, "nothing is done after the end: {action:?}");
            match action {
                Action::Write(line) | Action::WriteAbout(_, line) => self.written(&line),
                Action::Start(exchange, outgoing) => self.started(exchange, &outgoing),
                Action::Abort(exchange) => {
                    assert!(self.running.remove(&exchange).is_some(), "only what runs is aborted");
                }
                Action::Exit => self.exited = true,
                Action::Log(_, text) => assert!(!text.contains(SECRET), "a secret shows in the log: {text}"),
                Action::SignIn(_) | Action::Remember(_) => {}
            }
        }
        self.actions = actions;
        if let Some(deadline) = self.session.next_deadline() {
            assert!(deadline > self.now, "no deadline is left behind");
        }
        self.assert_nothing_is_held_for_too_long();
    }

    fn written(&mut self, line: &Bytes) {
        assert_one_line(line);
        match message::parse(line) {
            Ok(Parsed::One(message)) => self.client_hears(&message),
            Ok(Parsed::Batch(members)) => {
                assert!(self.batched, "only who sends arrays is sent arrays");
                assert!(!members.is_empty(), "no empty array");
                for member in members {
                    let message = message::parse_one(member.get()).expect("a message in an array");
                    assert!(matches!(message, Message::Response(_)), "only responses stand in arrays");
                    self.client_hears(&message);
                }
            }
            Err(invalid) => panic!("the client is sent no message: {invalid:?}"),
        }
    }

    fn client_hears(&mut self, message: &Message<'_>) {
        match message {
            Message::Response(response) => {
                let count = match &response.id {
                    Some(id) => self.ids.get_mut(&id.to_json()).expect("a response only to an id that asked"),
                    None => &mut self.nulls,
                };
                count.got += 1;
                assert!(response.outcome.is_well_formed(), "a strict client drops this: {response:?}");
                let id = response.id.as_ref().map(Id::to_json);
                for running in self.running.values_mut().filter(|running| running.id == id) {
                    running.is_initialize = false; // its stream may stay open for a while
                    running.answered = true;
                }
                assert!(count.got <= count.wanted, "one response too many for {:?}", response.id);
            }
            Message::Request(request) => {
                let id = request.id.to_json();
                assert!(self.asked.iter().all(|(open, _)| *open != id), "two requests of the server with one id");
                assert!(!self.questions.contains(&id), "the bridge's question has its id alone");
                if request.method == "elicitation/create" {
                    self.questions.insert(id);
                    return;
                }
                let params: Value =
                    request.params.map_or(Value::Null, |params| serde_json::from_str(params.get()).expect("JSON"));
                let number = params.get("number").and_then(Value::as_u64).expect("the server's requests have numbers");
                self.asked.push((id, number));
                let original = params.get("original").cloned().unwrap_or_default();
                self.originals.insert(number, original);
            }
            Message::Notification(notification) if notification.method == "notifications/cancelled" => {
                let params: Value =
                    notification.params.map_or(Value::Null, |params| serde_json::from_str(params.get()).expect("JSON"));
                let id = params.get("requestId").map(ToString::to_string).unwrap_or_default();
                self.asked.retain(|(open, _)| *open != id);
                self.questions.remove(&id);
            }
            Message::Notification(_) => {}
        }
    }

    fn started(&mut self, exchange: ExchangeId, outgoing: &Outgoing) {
        assert!(exchange > self.last_exchange, "a new name for a new exchange");
        self.last_exchange = exchange;
        self.starts += 1;
        assert!(!self.goodbye, "the goodbye is the last exchange");
        self.goodbye = self.leaving && outgoing.verb == Verb::Delete;
        let is_get = outgoing.verb == Verb::Get;
        let mut running = Running { is_get, is_resume: outgoing.last_event_id.is_some(), ..Running::default() };
        match outgoing.verb {
            Verb::Post => {
                assert_one_line(&message::one_line(outgoing.body.clone()));
                let Ok(Parsed::One(message)) = message::parse(&outgoing.body) else { panic!("one message a POST") };
                let secret = memchr::memmem::find(&outgoing.body, SECRET.as_bytes());
                assert!(secret.is_none(), "a secret goes to the server");
                self.server_hears(&message, &mut running, outgoing);
            }
            Verb::Get => assert!(outgoing.body.is_empty() && outgoing.target == Target::Server),
            Verb::Delete => assert!(outgoing.session_id.is_some(), "only a session can be ended"),
        }
        if running.is_initialize {
            // The client's own may have left a stream, and its id may be in use again.
            let ours = |other: &&Running| other.id.as_ref().is_some_and(|id| id.starts_with("\"mcp-drawbridge-"));
            let others = self.running.values().filter(|other| other.is_initialize).filter(ours);
            let under_way = others.filter(|other| !self.is_over(other)).count();
            assert_eq!(under_way, 0, "one initialize at a time");
        }
        self.running.insert(exchange, running);
    }

    fn server_hears(&mut self, message: &Message<'_>, running: &mut Running, outgoing: &Outgoing) {
        match message {
            Message::Request(request) => {
                let id = request.id.to_json();
                running.is_initialize = request.method == "initialize" && outgoing.modern.is_none();
                if matches!(outgoing.target, Target::Endpoint(_)) {
                    self.by_endpoint.insert(id.clone());
                }
                running.id = Some(id);
            }
            Message::Response(response) => {
                let raw = match response.outcome {
                    Outcome::Result(raw) | Outcome::Error(raw) => raw,
                };
                let value: Value = serde_json::from_str(raw.get()).expect("JSON");
                let number = value.get("number").and_then(Value::as_u64);
                let number = number.or_else(|| value.get("message")?.as_str()?.parse().ok());
                if let (Some(number), Some(id)) = (number, &response.id) {
                    let original = self.originals.get(&number).expect("only what was asked is answered");
                    assert_eq!(id.to_json(), original.to_string(), "the server hears its own id");
                }
            }
            Message::Notification(_) => {}
        }
    }

    /// An `initialize` that was answered may still have an open stream.
    fn is_over(&self, running: &Running) -> bool {
        running.id.as_ref().is_none_or(|id| !self.session.is_known(&parse_id(id)))
    }
}
