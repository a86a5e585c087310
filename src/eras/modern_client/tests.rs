//! The limits, each reached. The dialogues are in `fixtures/eras`.

use serde_json::{Value, json};

use super::calls::MAX_OWN;
use super::listen::{MAX_LISTENS, MAX_RESOURCES, MAX_URI};
use super::rounds::{
    LIFETIME, MAX_ALL_QUESTION_BYTES, MAX_EXPIRED, MAX_QUESTION_BYTES, MAX_QUESTIONS, MAX_STORED_BYTES,
    MAX_VISIT_ROUNDS, MAX_WAITING,
};
use super::*;

struct Test {
    machine: ModernClient,
    now: Duration,
}

#[derive(Default)]
struct Said {
    client: Vec<Value>,
    server: Vec<Value>,
}

impl Said {
    fn one(mut self) -> Value {
        assert_eq!((self.client.len(), self.server.len()), (1, 0), "{:?} {:?}", self.client, self.server);
        self.client.remove(0)
    }

    fn for_server(mut self) -> Value {
        assert_eq!((self.client.len(), self.server.len()), (0, 1), "{:?} {:?}", self.client, self.server);
        self.server.remove(0)
    }
}

impl Test {
    /// An open session with a server that can all.
    fn new() -> Self {
        let mut test = Self::closed();
        test.client("open", "server/discover", json!({}));
        let capabilities = json!({"resources": {"subscribe": true}, "logging": {}});
        test.server(json!({"id": "mcp-drawbridge-0-m1", "result": {"capabilities": capabilities}}), None);
        test
    }

    fn closed() -> Self {
        Self { machine: ModernClient::new(&Settings::default()), now: Duration::ZERO }
    }

    fn said(effects: Effects) -> Said {
        let read = |lines: Vec<Bytes>| lines.iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect();
        Said { client: read(effects.to_client), server: read([effects.to_session, effects.answers].concat()) }
    }

    fn client(&mut self, id: impl Into<Value>, method: &str, mut params: Value) -> Said {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}, "url": {}}},
        });
        let line = json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}).to_string();
        let mut effects = Effects::default();
        self.machine.client_line(self.now, &line.into(), &mut effects);
        Self::said(effects)
    }

    fn cancel(&mut self, id: impl Into<Value>) -> Said {
        let params = json!({"requestId": id.into()});
        let line = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string();
        let mut effects = Effects::default();
        self.machine.client_line(self.now, &line.into(), &mut effects);
        Self::said(effects)
    }

    fn server(&mut self, mut message: Value, about: Option<&str>) -> Said {
        message["jsonrpc"] = json!("2.0");
        let line = Bytes::from(message.to_string());
        let mut effects = Effects::default();
        match about {
            Some(about) => self.machine.server_line_about(self.now, &Id::String(about.into()), line, &mut effects),
            None => self.machine.server_line(self.now, line, &mut effects),
        }
        Self::said(effects)
    }

    fn wait(&mut self, time: Duration) -> Said {
        self.now += time;
        let mut effects = Effects::default();
        self.machine.tick(self.now, &mut effects);
        Self::said(effects)
    }

    /// A call; gives its id at the server.
    fn call(&mut self, id: u64) -> String {
        let said = self.client(id, "tools/call", json!({"name": "t"})).for_server();
        said["id"].as_str().expect("an id").to_owned()
    }

    /// A call whose client collects an answer; gives the server's id and the state.
    fn away(&mut self, id: u64) -> (String, String) {
        let number = self.call(id);
        self.ask(id, &number, &json!({"message": "?"}));
        let asked = self.wait(Duration::from_millis(30)).one();
        let state = asked["result"]["requestState"].as_str().expect("a state").to_owned();
        (number, state)
    }

    fn ask(&mut self, id: u64, about: &str, params: &Value) -> Said {
        self.server(json!({"id": format!("q{id}"), "method": "elicitation/create", "params": params}), Some(about))
    }
}

#[test]
fn requests_that_wait_are_bounded_in_number_and_bytes() {
    let mut test = Test::new();
    assert!(test.machine.accepts_lines());
    for id in 0..MAX_CALLS {
        test.client(id, "x", json!({}));
    }
    assert!(!test.machine.accepts_lines());
    test.cancel(7);
    assert!(test.machine.accepts_lines());

    let mut test = Test::closed();
    test.client(1, "x", json!({}));
    if let Link::Opening { bytes, .. } = &mut test.machine.link {
        *bytes = MAX_HELD_BYTES - 1;
    }
    assert!(test.machine.accepts_lines());
    test.client(2, "x", json!({}));
    assert!(!test.machine.accepts_lines());
    test.cancel(2);
    assert!(test.machine.accepts_lines());

    let mut test = Test::new();
    test.machine.call_bytes = MAX_PENDING_BYTES - 1;
    assert!(test.machine.accepts_lines());
    test.client(1, "x", json!({}));
    assert!(!test.machine.accepts_lines());
}

#[test]
fn the_call_that_waited_longest_for_its_client_is_given_up() {
    let mut test = Test::new();
    let (first, state) = test.away(0);
    for id in 1..MAX_WAITING as u64 {
        test.away(id);
    }
    let number = test.call(9999);
    test.ask(9999, &number, &json!({"message": "?"}));
    let said = test.wait(Duration::from_millis(30));
    assert_eq!(said.client.len(), 1, "the newest is asked");
    assert_eq!(said.server[0]["id"], "q0");
    assert!(said.server[0]["error"].is_object());
    assert_eq!(said.server[1]["params"]["requestId"], *first);
    let late = test.client("r", "tools/call", json!({"name": "t", "requestState": state})).one();
    assert!(late["error"]["message"].as_str().expect("text").contains("expired"), "{late}");
}

#[test]
fn all_is_given_up_in_time_and_only_so_many_are_remembered() {
    let mut test = Test::new();
    let (_, first) = test.away(0);
    assert_eq!(test.wait(LIFETIME).server.len(), 2);
    for id in 1..=MAX_EXPIRED as u64 {
        test.away(id);
    }
    assert_eq!(test.wait(LIFETIME).server.len(), 2 * MAX_EXPIRED, "an error and a cancellation each");
    assert!(test.machine.calls.is_empty() && test.machine.rounds.holds_nothing() && test.machine.timers.is_empty());
    let refused = test.client("r", "tools/call", json!({"name": "t", "requestState": first})).one();
    assert!(refused["error"]["message"].as_str().expect("text").contains("not known"), "{refused}");
}

#[test]
fn questions_of_one_call_are_bounded_in_number_and_bytes() {
    let mut test = Test::new();
    let number = test.call(1);
    for id in 0..MAX_QUESTIONS as u64 {
        assert!(test.ask(id, &number, &json!({"message": "?"})).server.is_empty());
    }
    assert!(test.ask(9999, &number, &json!({"message": "?"})).for_server()["error"].is_object());

    let number = test.call(2);
    let big = json!({"message": "x".repeat(MAX_QUESTION_BYTES / 2)});
    assert!(test.ask(5001, &number, &big).server.is_empty());
    assert!(test.ask(5002, &number, &big).for_server()["error"].is_object());
}

#[test]
fn answers_that_nobody_fetches_are_bounded() {
    let mut test = Test::new();
    let (one, first) = test.away(1);
    let (two, state) = test.away(2);
    test.machine.rounds.pretend_stored(MAX_STORED_BYTES - 20);
    test.server(json!({"id": one, "result": {"a": "fits"}}), None);
    test.server(json!({"id": two, "result": {"a": "fits not"}}), None);
    let late = test.client("r", "tools/call", json!({"name": "t", "requestState": state})).one();
    assert!(late["error"]["message"].as_str().expect("text").contains("too large"), "{late}");
    let first = test.client("s", "tools/call", json!({"name": "t", "requestState": first})).one();
    assert_eq!(first["result"]["a"], "fits");
    test.machine.rounds.pretend_stored(0);
    assert!(test.machine.rounds.holds_nothing(), "{:?}", test.machine.rounds);
}

#[test]
fn a_server_may_demand_only_so_many_visits() {
    let mut test = Test::new();
    let mut number = test.call(0);
    let demand = json!({"code": -32042, "message": "go", "data": {"elicitations": [{"mode": "url", "url": "u"}]}});
    for round in 1..=u64::from(MAX_VISIT_ROUNDS) {
        let asked = test.server(json!({"id": number, "error": demand}), None).one();
        let (key, _) = asked["result"]["inputRequests"].as_object().expect("questions").iter().next().expect("one");
        let mut params = json!({"name": "t", "requestState": asked["result"]["requestState"]});
        params["inputResponses"][key] = json!({"action": "accept"});
        let again = test.client(round, "tools/call", params).for_server();
        number = again["id"].as_str().expect("an id").to_owned();
    }
    let last = test.server(json!({"id": number, "error": demand}), None).one();
    assert_eq!(last["error"]["code"], -32603, "{last}");
}

#[test]
fn subscriptions_and_resources_are_bounded() {
    let mut test = Test::new();
    for id in 0..MAX_LISTENS as u64 {
        test.client(id, "subscriptions/listen", json!({"notifications": {}}));
    }
    let refused = test.client("more", "subscriptions/listen", json!({"notifications": {}})).one();
    assert_eq!(refused["error"]["code"], -32602);
    test.cancel(3);
    test.client("more", "subscriptions/listen", json!({"notifications": {}}));
    test.cancel(4);

    let uris: Vec<String> = (0..=MAX_RESOURCES).map(|number| format!("x:{number}")).collect();
    let said = test.client("all", "subscriptions/listen", json!({"notifications": {"resourceSubscriptions": uris}}));
    assert_eq!(said.server.len(), MAX_RESOURCES);
    test.cancel("all");
    let long = ["x".repeat(MAX_URI + 1), "x:1".into()];
    let said = test.client("long", "subscriptions/listen", json!({"notifications": {"resourceSubscriptions": long}}));
    assert_eq!(said.server.len(), 1);
}

#[test]
fn requests_of_our_own_are_bounded() {
    let mut test = Test::new();
    let mut sent = 0;
    for _ in 0..MAX_OWN {
        let said = test.client("l", "subscriptions/listen", json!({"notifications": {"resourceSubscriptions": ["x"]}}));
        sent += said.server.len() + test.cancel("l").server.len();
    }
    assert_eq!((sent, test.machine.own.len()), (MAX_OWN, MAX_OWN));
    test.wait(Duration::from_secs(10));
    assert!(test.machine.own.is_empty() && test.machine.timers.is_empty());
}

#[test]
fn questions_of_all_calls_together_are_bounded() {
    let mut test = Test::new();
    let numbers: Vec<String> = (0..5).map(|id| test.call(id)).collect();
    let question = json!({"message": "x".repeat(1000)});
    let ask = |test: &mut Test, id: u64, call: usize| test.ask(id, &numbers[call], &question).server.is_empty();
    assert!(ask(&mut test, 0, 0) && ask(&mut test, 1, 1) && ask(&mut test, 2, 2));
    test.machine.rounds.pretend_asked(MAX_ALL_QUESTION_BYTES - 100);
    assert!(!ask(&mut test, 9000, 4), "too much, beside those of other calls");
    // One is taken back, one call is cancelled, one has its answer: each makes room.
    test.server(json!({"method": "notifications/cancelled", "params": {"requestId": "q0"}}), None);
    assert!(ask(&mut test, 3, 3) && !ask(&mut test, 9001, 4));
    test.cancel(1);
    assert!(ask(&mut test, 4, 3) && !ask(&mut test, 9002, 4));
    test.server(json!({"id": numbers[2], "result": {}}), None);
    assert!(ask(&mut test, 5, 3) && !ask(&mut test, 9003, 4));
}

/// A question on the notification stream.
fn aside(test: &mut Test, id: &str) -> Said {
    test.server(json!({"id": id, "method": "elicitation/create", "params": {"message": id}}), None)
}

fn key_of(asked: &Value) -> String {
    asked["result"]["inputRequests"].as_object().expect("questions").keys().next().expect("one").clone()
}

#[test]
fn a_question_beside_the_streams_outlives_the_answer_of_the_request_that_carried_it() {
    let mut test = Test::new();
    test.call(1);
    let newest = test.call(2);
    // Answered before the client was asked: the other request carries the question.
    assert!(aside(&mut test, "q1").server.is_empty());
    assert_eq!(test.server(json!({"id": newest, "result": {}}), None).one()["id"], 2);
    let asked = test.wait(Duration::from_millis(30)).one();
    assert_eq!(asked["id"], 1);
    let params = json!({"name": "t", "requestState": asked["result"]["requestState"], "inputResponses": {key_of(&asked): {"action": "decline"}}});
    assert_eq!(test.client(3, "tools/call", params).for_server()["id"], "q1");

    // Answered while the client answers the question: that answer still goes to the server.
    let newest = test.call(4);
    aside(&mut test, "q2");
    let asked = test.wait(Duration::from_millis(30)).one();
    assert_eq!(asked["id"], 4);
    test.server(json!({"id": newest, "result": {"a": 1}}), None);
    let params = json!({"name": "t", "requestState": asked["result"]["requestState"], "inputResponses": {key_of(&asked): {"action": "decline"}}});
    let said = test.client(5, "tools/call", params);
    assert_eq!((&said.server[0]["id"], &said.client[0]["result"]["a"]), (&json!("q2"), &json!(1)));
}

#[test]
fn a_question_beside_the_streams_outlives_a_cancelled_request() {
    let mut test = Test::new();
    test.call(1);
    test.call(2);
    aside(&mut test, "q1");
    assert_eq!(test.cancel(2).for_server()["method"], "notifications/cancelled");
    assert_eq!(test.wait(Duration::from_millis(30)).one()["id"], 1, "the other request carries it");
    // Nobody is left who could.
    let mut test = Test::new();
    test.call(3);
    aside(&mut test, "q3");
    let said = test.cancel(3);
    assert_eq!((&said.server[0]["id"], said.server.len()), (&json!("q3"), 2), "{:?}", said.server);
    assert!(said.server[0]["error"].is_object());
}

#[test]
fn a_notification_of_an_extension_loses_what_only_the_modern_era_has() {
    let mut test = Test::new();
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"a":1e0}"#;
    let table = [
        (format!(r#"{{"_meta":{meta},"n":1e400}}"#), r#"{"_meta":{"a":1e0},"n":1e400}"#),
        (format!(r#"{{"n":2,"_meta":{}}}"#, meta.replace(",\"a\":1e0", "")), r#"{"n":2}"#),
        (r#"{"s":"io.modelcontextprotocol/"}"#.into(), r#"{"s":"io.modelcontextprotocol/"}"#),
    ];
    for (params, expected) in table {
        let line =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/com.example","params":{params}}}"#);
        let mut effects = Effects::default();
        test.machine.client_line(test.now, &line(&params).into(), &mut effects);
        assert_eq!(effects.to_session, [Bytes::from(line(expected))]);
    }
}
