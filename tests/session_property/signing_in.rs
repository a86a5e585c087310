//! S2, S3: what the client sees while a sign-in is pending.

use mcp_drawbridge::session::{FailureKind, Input, Remembered, Settings, SignIn, Strategy, ToolRules, Wish};
use serde_json::{Value, json};

use crate::dialogue::*;

/// A session that is ready when its token dies.
pub(crate) fn ready() -> Dialogue {
    Dialogue::ready(settings())
}

/// A session whose `initialize` waits for a sign-in.
pub(crate) fn opening() -> (Dialogue, Sent) {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    (d, sent)
}

pub(crate) fn tools(list: &Value) -> Vec<&str> {
    list["result"]["tools"].as_array().expect("a list").iter().filter_map(|tool| tool["name"].as_str()).collect()
}

fn methods(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| line["method"].as_str().unwrap_or("a response").to_owned())
        .collect()
}

// ---- hold ----

#[test]
fn a_request_that_waits_for_a_sign_in_is_answered_after_the_hold_and_no_sooner() {
    let mut d = ready();
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.passes(seconds(3));
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(36));
    assert!(d.hears().is_empty());
    d.passes(seconds(1));
    let answer = d.hears_one();
    assert_eq!(answer["id"], 1);
    assert_eq!(answer["error"]["code"], -32001);
    assert_eq!(answer["error"]["data"]["kind"], "sign-in");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains(SIGN_IN_URL) && message.contains("Open it on this machine"), "{message}");
    assert_eq!(d.aborted, [sent.exchange]);
}

#[test]
fn the_list_of_tools_is_the_tool_sign_in_until_then_and_the_servers_afterwards() {
    let mut d = ready();
    d.says(&request("1", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(40));
    let list = d.hears_one();
    assert_eq!(tools(&list), ["sign_in"]);
    let tool = &list["result"]["tools"][0];
    assert_eq!(tool["inputSchema"]["type"], "object");
    assert_eq!(tool["inputSchema"]["properties"]["redirect_url"]["type"], "string");
    assert!(tool["inputSchema"].get("required").is_none());
    assert!(tool["title"].is_string() && tool["description"].is_string() && tool["annotations"].is_object());
    assert!(list["result"].get("resultType").is_none(), "that is of another era");
    d.sign_in_is_done();
    let heard = methods(&d.hears());
    assert_eq!(heard, ["notifications/tools/list_changed", "notifications/prompts/list_changed"]);
    d.says(&request("2", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.answer(&sent, 200, &result("2", r#"{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}"#));
    assert_eq!(tools(&d.hears_one()), ["echo"]);
}

#[test]
fn a_sign_in_in_time_changes_nothing_that_the_client_sees() {
    let mut d = ready();
    d.says(&request("1", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(30));
    d.sign_in_is_done();
    d.passes(seconds(100));
    assert!(d.aborted.is_empty());
    d.answers(&sent);
    assert_eq!(d.hears(), [result("1", "{}")], "and no word of changed lists");
}

#[test]
fn only_what_waits_for_the_sign_in_is_answered_early() {
    let mut d = ready();
    for (id, method) in [("1", "slow"), ("2", "streams"), ("3", "resumed")] {
        d.says(&call(id, method));
    }
    let sent = d.sends();
    d.opens(&sent[1]);
    d.opens(&sent[2]);
    d.marks(&sent[2], "e1", None);
    d.passes(seconds(100));
    d.cuts(&sent[2]);
    d.passes(seconds(1));
    let resumed = d.one("GET");
    // Another request wants a sign-in, and the broken stream is refused as well.
    d.says(&call("4", "refused"));
    let refused = d.one("tools/call");
    d.is_held(&refused);
    d.is_held(&resumed);
    d.sign_in_is_wanted();
    d.passes(seconds(39));
    assert!(d.hears().is_empty(), "a call that ran for long is not older than its refusal");
    d.passes(seconds(2));
    assert_eq!(d.responses(), ["3 sign-in", "4 sign-in"]);
    d.passes(seconds(600));
    assert!(d.hears().is_empty(), "a slow call is not cut off");
    d.answers(&sent[0]);
    d.streams(&sent[1], &result("2", "{}"));
    assert_eq!(d.responses(), ["1", "2"]);
}

#[test]
fn a_refused_request_is_not_held_longer_while_the_sign_in_is_still_prepared() {
    let mut d = ready();
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.is_held(&sent);
    d.passes(seconds(40));
    assert_eq!(d.responses(), ["1 sign-in"]);
    // The marks of one sign-in are not those of the next.
    d.says(&call("2", "a"));
    let sent = d.one("tools/call");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.sign_in_is_done();
    d.sign_in_is_wanted();
    d.passes(seconds(100));
    assert!(d.hears().is_empty());
    d.answers(&sent);
    assert_eq!(d.responses(), ["2"]);
}

#[test]
fn a_limit_of_its_own_bounds_a_held_request() {
    let mut d = Dialogue::ready(Settings { request_timeout: Some(seconds(10)), ..settings() });
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(10));
    assert_eq!(d.responses(), ["1 timeout"]);
    assert_eq!(d.aborted, [sent.exchange]);
}

#[test]
fn a_held_request_can_be_cancelled() {
    let mut d = ready();
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.says(&cancel("1"));
    assert_eq!(d.aborted, [sent.exchange]);
    d.passes(seconds(100));
    assert!(d.hears().is_empty());
}

#[test]
fn held_requests_in_a_batch_are_answered_in_their_array() {
    let mut d = Dialogue::new(settings());
    d.says(&request("0", "initialize", r#"{"protocolVersion":"2025-03-26","capabilities":{}}"#));
    let sent = d.one("initialize");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(20));
    assert_eq!(d.hears_one()["result"]["protocolVersion"], "2025-03-26");
    d.says(&format!("[{},{}]", request("1", "tools/list", "{}"), call("2", "a")));
    d.passes(seconds(41));
    let array = d.hears_one();
    assert_eq!(array.as_array().map(Vec::len), Some(2));
    assert_eq!(tools(&array[0]), ["sign_in"]);
    assert_eq!(array[1]["error"]["data"]["kind"], "sign-in");
}

// ---- initialize ----

#[test]
fn initialize_is_answered_provisionally_in_its_time_and_then_by_the_truth() {
    let (mut d, sent) = opening();
    d.says(&request("1", "resources/list", "{}"));
    d.passes(seconds(19));
    assert!(d.hears().is_empty(), "the truth is worth a wait");
    d.passes(seconds(1));
    let answer = d.hears_one();
    let result = &answer["result"];
    assert_eq!(answer["id"], 0);
    assert_eq!(result["protocolVersion"], "2025-11-25");
    for list in ["tools", "resources", "prompts"] {
        assert_eq!(result["capabilities"][list], json!({"listChanged": true}));
    }
    assert_eq!(result["serverInfo"]["name"], "example.test");
    assert!(result["instructions"].as_str().is_some_and(|text| text.contains("sign_in")));
    assert!(d.remembered.is_none() && d.aborted.is_empty());
    d.says(INITIALIZED);
    d.passes(seconds(20));
    assert_eq!(d.responses(), ["1 sign-in"], "forty seconds after it came, however long the session takes");
    d.passes(seconds(600));
    d.sends_nothing();
    // The person signs in at last. The exchange has its time again from here on.
    d.sign_in_is_done();
    d.passes(seconds(19));
    assert!(d.aborted.is_empty());
    d.answers_initialize(&sent, "s1");
    d.greets();
    let heard = methods(&d.hears());
    assert_eq!(heard, ["notifications/tools/list_changed", "notifications/prompts/list_changed"]);
    assert!(d.remembered.is_some());
    d.says(&call("2", "a"));
    let sent = d.one("tools/call");
    assert_eq!(sent.outgoing.session_id.as_deref(), Some("s1"));
    d.answers(&sent);
    assert_eq!(d.responses(), ["2"]);
}

#[test]
fn a_client_of_a_version_that_nobody_knows_is_answered_in_the_last_with_a_handshake() {
    for (version, expected) in
        [("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25"), ("2026-07-28", "2025-11-25")]
    {
        let mut d = Dialogue::new(settings());
        d.says(&request("0", "initialize", &format!(r#"{{"protocolVersion":"{version}"}}"#)));
        d.sign_in_is_wanted();
        d.passes(seconds(20));
        assert_eq!(d.hears_one()["result"]["protocolVersion"], expected);
    }
}

#[test]
fn a_sign_in_just_before_the_time_is_over_is_no_reason_for_an_error() {
    let (mut d, sent) = opening();
    d.passes(seconds(19));
    d.sign_in_is_done();
    d.passes(seconds(1));
    assert!(d.hears_one()["result"].is_object(), "provisionally");
    d.says(INITIALIZED);
    d.answers_initialize(&sent, "s1");
    d.greets();
    assert_eq!(methods(&d.hears()).len(), 2);
}

#[test]
fn a_sign_in_is_no_excuse_for_a_server_that_says_nothing() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    d.passes(seconds(20));
    assert_eq!(d.responses(), ["0 timeout"]);
    let (mut d, _) = opening();
    d.passes(seconds(20));
    d.says(INITIALIZED);
    d.sign_in_is_done();
    d.hears();
    d.passes(seconds(21));
    assert!(d.sends_what().contains(&"initialize".to_owned()), "after the sign-in it is asked again");
}

#[test]
fn what_the_last_run_remembers_is_better_than_a_provisional_answer() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::StreamableHttp)));
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(20));
    assert_eq!(d.hears_one()["result"]["serverInfo"]["name"], "s");
    d.says(INITIALIZED);
    d.sign_in_is_done();
    d.answers_initialize(&sent, "s1");
    d.greets();
    assert!(d.hears().is_empty(), "nothing was shown that is not so");
}

#[test]
fn the_older_transport_waits_for_a_sign_in_as_well() {
    let mut d = Dialogue::new(Settings { strategy: Strategy::SseOnly, ..settings() });
    d.says(&initialize("0"));
    let stream = d.one("GET");
    assert!(stream.outgoing.may_sign_in);
    d.is_held(&stream);
    d.sign_in_is_wanted();
    d.passes(seconds(25));
    assert!(d.hears_one()["result"].is_object());
    d.says(INITIALIZED);
    d.passes(seconds(300));
    d.sends_nothing();
    d.sign_in_is_done();
    d.passes(seconds(9));
    d.opens(&stream);
    d.names_endpoint(&stream, "/messages");
    let sent = d.one("initialize");
    d.streams(&stream, &result(&sent.id(), INIT_RESULT));
    d.one("notifications/initialized");
}

// ---- a sign-in that came to nothing ----

#[test]
fn after_a_refusal_the_client_is_still_there_and_can_try_again() {
    let (mut d, sent) = opening();
    d.says(&request("1", "tools/list", "{}"));
    d.says(&call("2", "a"));
    d.sign_in_has_ended();
    d.fails(&sent, FailureKind::Declined, false);
    let heard = d.hears();
    assert_eq!(heard.len(), 3, "{heard:?}");
    let answer: Value = serde_json::from_str(&heard[0]).expect("JSON");
    assert!(answer["result"]["capabilities"].is_object(), "a client that is refused here would have to be restarted");
    let list: Value = serde_json::from_str(&heard[1]).expect("JSON");
    assert_eq!(tools(&list), ["sign_in"]);
    assert!(list["result"]["tools"][0]["description"].as_str().is_some_and(|text| text.contains("access was denied")));
    let error: Value = serde_json::from_str(&heard[2]).expect("JSON");
    assert_eq!(error["error"]["data"]["kind"], "sign-in");
    d.says(INITIALIZED);
    for sent in d.sends() {
        assert!(!sent.outgoing.may_sign_in, "nobody asked for anything yet");
        d.fails(&sent, FailureKind::Declined, false);
    }
    d.passes(seconds(600));
    d.sends_nothing();
    // The next request asks again, with a person behind it.
    d.says(&request("3", "tools/list", "{}"));
    let sent = d.one("initialize");
    assert!(sent.outgoing.may_sign_in);
    d.fails(&sent, FailureKind::Declined, false);
    assert_eq!(tools(&d.hears_one()), ["sign_in"]);
    d.says(&call("4", "sign_in"));
    assert_eq!(d.wishes(), [Wish::Begin]);
    d.sign_in_is_wanted();
    d.sign_in_is_done();
    d.hears();
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.greets();
    assert_eq!(methods(&d.hears())[0], "notifications/tools/list_changed");
}

#[test]
fn a_sign_in_that_cannot_begin_is_an_error_to_initialize() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.is_held(&sent);
    d.sign_in_has_ended();
    d.fails(&sent, FailureKind::SignIn, true);
    assert_eq!(d.responses(), ["0 sign-in"], "it says what must be mended first");
    d.says(&initialize("1"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    assert_eq!(d.responses(), ["1"], "a later one tries again");
    // Once a person was asked, another begins only on their own wish: so they must be able to say it.
    let (mut d, sent) = opening();
    d.sign_in_has_ended();
    d.fails(&sent, FailureKind::SignIn, true);
    let answer = d.hears_one();
    let told = answer["result"]["instructions"].as_str().expect("an answer");
    assert!(told.contains("access was denied") && told.contains("sign_in"), "{told}");
}

#[test]
fn a_credential_of_the_users_own_is_not_mended_by_signing_in() {
    let mut d = Dialogue::ready(Settings { can_sign_in: false, ..settings() });
    for (id, method) in [("1", "tools/list"), ("2", "resources/list")] {
        d.says(&request(id, method, "{}"));
        let sent = d.one(method);
        d.fails(&sent, FailureKind::SignIn, true);
        assert_eq!(d.responses(), [format!("{id} sign-in")]);
    }
    d.says(&call("3", "sign_in"));
    d.one("tools/call");
}

#[test]
fn a_failed_sign_in_is_definite_for_every_kind_of_request() {
    let mut d = ready();
    for (id, method) in [("1", "ping"), ("2", "resources/read"), ("3", "tools/list")] {
        for unsent in [true, false] {
            d.says(&request(id, method, "{}"));
            let sent = d.one(method);
            d.fails(&sent, FailureKind::SignIn, unsent);
            let answer = d.hears_one();
            assert_eq!(answer["result"].is_object(), method == "tools/list", "{method}");
            d.passes(seconds(10));
            d.sends_nothing();
        }
    }
    d.says(&request("4", "resources/read", "{}"));
    let sent = d.one("resources/read");
    d.opens(&sent);
    d.marks(&sent, "e1", None);
    d.cuts(&sent);
    d.passes(seconds(1));
    let sent = d.one("GET");
    d.fails(&sent, FailureKind::SignIn, false);
    assert_eq!(d.responses(), ["4 sign-in"]);
    d.passes(seconds(10));
    d.sends_nothing();
}

// ---- nobody there ----

#[test]
fn a_session_that_is_opened_again_by_itself_begins_no_sign_in() {
    let mut d = ready();
    d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    let sent = d.one("notifications/roots/list_changed");
    d.answer(&sent, 404, "");
    let sent = d.one("initialize");
    // The notification waits, but no request does.
    assert!(!sent.outgoing.may_sign_in);
    d.says(&call("1", "a"));
    d.answer(&sent, 401, "");
    let again = d.one("initialize");
    assert!(again.outgoing.may_sign_in, "now somebody waits");
    d.answers_initialize(&again, "s2");
    d.greets_again();
    assert!(d.sends_what().contains(&"tools/call".to_owned()));
}

#[test]
fn a_notification_stream_that_was_refused_is_opened_after_the_sign_in() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    let get = d.one("GET");
    assert!(!get.outgoing.may_sign_in);
    d.fails(&get, FailureKind::SignIn, false);
    d.passes(seconds(600));
    d.sends_nothing();
    d.sign_in_is_done();
    d.one("GET");
}

#[test]
fn who_was_signed_in_and_is_so_no_more_can_sign_in_again() {
    let mut d = ready();
    d.sign_in_is_wanted();
    d.sign_in_is_done();
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.fails(&sent, FailureKind::SignIn, false);
    assert_eq!(d.responses(), ["1 sign-in"]);
    d.says(&call("2", "sign_in"));
    assert_eq!(d.wishes(), [Wish::Begin]);
    d.sign_in_is_done();
    assert_eq!(d.responses(), ["2"]);
}

#[test]
fn a_session_that_is_lost_under_a_request_may_begin_a_sign_in() {
    let mut d = ready();
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 404, "");
    let sent = d.one("initialize");
    assert!(sent.outgoing.may_sign_in, "the call waits");
    d.is_held(&sent);
    d.passes(seconds(39));
    assert!(d.hears().is_empty() && d.aborted.is_empty(), "the time of a new session does not run while it is held");
    d.passes(seconds(1));
    assert_eq!(d.responses(), ["1 sign-in"]);
    assert!(d.aborted.is_empty());
    d.sign_in_is_done();
    d.answers_initialize(&sent, "s2");
    d.greets_again();
}

#[test]
fn a_session_opened_quietly_is_opened_aloud_when_somebody_waits_by_then() {
    let mut d = ready();
    d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    let sent = d.one("notifications/roots/list_changed");
    d.answer(&sent, 404, "");
    let sent = d.one("initialize");
    d.says(&call("1", "a"));
    d.fails(&sent, FailureKind::SignIn, false);
    let sent = d.one("initialize");
    assert!(sent.outgoing.may_sign_in);
    d.fails(&sent, FailureKind::SignIn, false);
    assert_eq!(d.responses(), ["1 sign-in"]);
}

// ---- elicitation ----

fn asking_client() -> Dialogue {
    let mut d = Dialogue::new(settings());
    d.says(&request(
        "0",
        "initialize",
        r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"url":{}}},"clientInfo":{"name":"c","title":"Client\u0007 C","version":"1"}}"#,
    ));
    d
}

#[test]
fn a_client_that_takes_addresses_is_asked_once_an_address_when_it_may_be_asked() {
    let mut d = asking_client();
    assert_eq!(d.wishes(), [Wish::Client("Client C".into())]);
    let sent = d.one("initialize");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(20));
    assert!(d.hears_one()["result"].is_object(), "no question before the client is ready for it");
    d.says(INITIALIZED);
    let question = d.hears_one();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["mode"], "url");
    assert_eq!(question["params"]["url"], SIGN_IN_URL);
    assert!(question["params"]["message"].as_str().is_some_and(|text| text.contains("example.test")));
    let name = question["params"]["elicitationId"].clone();
    assert!(name.is_string());
    d.sign_in_is_wanted();
    assert!(d.hears().is_empty(), "once");
    // The client's answer is nobody's business.
    d.says(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"action":"accept"}}}}"#, question["id"]));
    d.sends_nothing();
    d.sign_in_is_wanted_at("https://as.example/other?state=s3cr3t-state");
    let second = d.hears_one();
    assert_ne!(second["params"]["elicitationId"], name);
    d.sign_in_is_done();
    let heard: Vec<Value> = d.hears().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(heard[0]["method"], "notifications/cancelled", "nobody needs to answer any more");
    assert_eq!(heard[0]["params"]["requestId"], second["id"]);
    assert_eq!(heard[1]["method"], "notifications/elicitation/complete");
    assert_eq!(heard[1]["params"]["elicitationId"], second["params"]["elicitationId"]);
    assert_eq!(heard.len(), 2);
}

#[test]
fn nobody_else_is_asked() {
    for capabilities in
        ["{}", r#"{"elicitation":{}}"#, r#"{"elicitation":{"form":{}}}"#, r#"{"elicitation":{"url":true}}"#]
    {
        let mut d = Dialogue::new(settings());
        let params = format!(r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities}}}"#);
        d.says(&request("0", "initialize", &params));
        d.sign_in_is_wanted();
        d.passes(seconds(20));
        d.says(INITIALIZED);
        assert_eq!(d.responses(), ["0"], "{capabilities}");
    }
}

#[test]
fn a_server_cannot_meddle_with_the_bridges_question() {
    let mut d = asking_client();
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.hears();
    d.says(INITIALIZED);
    d.greets();
    d.says(&call("1", "a"));
    let running = d.one("tools/call");
    d.opens(&running);
    d.sign_in_is_wanted();
    let question = d.hears_one();
    let id = question["id"].to_string();
    let notice = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    d.streams(&running, &notice);
    assert!(d.hears().is_empty(), "it is not the server's to call off");
    d.streams(&running, &request(&id, "roots/list", "{}"));
    let theirs = d.hears_one();
    assert_ne!(theirs["id"], question["id"]);
    d.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no"}}}}"#));
    d.sends_nothing();
    d.says(&result(&theirs["id"].to_string(), r#"{"roots":[]}"#));
    assert_eq!(d.one("a response").id(), id, "the server hears its own id");
}

#[test]
fn a_sign_in_that_changes_its_address_all_the_time_does_not_flood_the_person() {
    let mut d = asking_client();
    d.passes(seconds(1));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    d.hears();
    for n in 0..100 {
        d.sign_in_is_wanted_at(&format!("https://as.example/{n}?state=s3cr3t-state"));
    }
    let asked = methods(&d.hears()).iter().filter(|method| *method == "elicitation/create").count();
    assert_eq!(asked, 16);
}

// ---- the modern era ----

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"modern-client","version":"1"}}"#;

#[test]
fn clients_of_the_modern_era_are_held_and_answered_in_their_own_way() {
    let mut d = Dialogue::new(settings());
    d.says(&request("1", "tools/list", &format!("{{{META}}}")));
    d.says(&request("2", "prompts/get", &format!("{{{META}}}")));
    let filter = r#""notifications":{"toolsListChanged":true,"promptsListChanged":false}"#;
    d.says(&request("\"s\"", "subscriptions/listen", &format!("{{{filter},{META}}}")));
    assert_eq!(d.wishes(), [Wish::Client("modern-client".into())], "once");
    let sent = d.sends();
    for sent in &sent {
        d.is_held(sent);
    }
    d.sign_in_is_wanted();
    d.passes(seconds(40));
    let heard: Vec<Value> = d.hears().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(heard.len(), 2, "a subscription is not answered before its end");
    let list = &heard[0]["result"];
    assert_eq!(
        (&list["resultType"], &list["ttlMs"], &list["cacheScope"]),
        (&json!("complete"), &json!(0), &json!("private"))
    );
    assert_eq!(tools(&heard[0]), ["sign_in"]);
    assert_eq!(heard[1]["error"]["data"]["kind"], "sign-in");
    d.says(&request("3", "tools/call", &format!(r#"{{"name":"sign_in","arguments":{{}},{META}}}"#)));
    let answer = d.hears_one();
    assert_eq!(answer["result"]["resultType"], "complete");
    assert!(answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains(SIGN_IN_URL)));
    d.says(&request("4", "server/discover", &format!("{{{META}}}")));
    let discover = d.one("server/discover");
    d.is_held(&discover);
    d.passes(seconds(20));
    let found = d.hears_one();
    assert_eq!(found["id"], 4, "as soon as initialize would be");
    let found = &found["result"];
    assert_eq!(found["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(found["capabilities"]["tools"], json!({"listChanged": true}));
    assert_eq!((&found["resultType"], &found["ttlMs"]), (&json!("complete"), &json!(0)), "not to be cached");
    assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "example.test");
    assert!(found["instructions"].as_str().is_some_and(|text| text.contains("sign_in")));
    // Only who subscribed is told, and only once the subscription is acknowledged.
    d.sign_in_is_done();
    assert!(d.hears().is_empty());
    d.opens(&sent[2]);
    d.streams(&sent[2], r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"s"}}}"#);
    let heard: Vec<Value> = d.hears().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[1]["method"], "notifications/tools/list_changed");
    assert_eq!(heard[1]["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "s");
}

#[test]
fn a_discovery_is_answered_from_memory_or_provisionally_and_fails_when_no_sign_in_is_possible() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::StreamableHttp)));
    d.says(&request("1", "server/discover", &format!("{{{META}}}")));
    let sent = d.one("server/discover");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(20));
    let found = d.hears_one();
    assert_eq!(found["result"]["capabilities"], json!({"tools": {}, "prompts": {}}), "as in the last run");
    assert_eq!(found["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "s");
    assert!(found["result"].get("instructions").is_none());

    // The person says no, and may think better of it.
    let mut d = Dialogue::new(settings());
    d.says(&request("1", "server/discover", &format!("{{{META}}}")));
    let sent = d.one("server/discover");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.fails(&sent, FailureKind::SignIn, false);
    assert!(d.hears_one()["result"]["supportedVersions"].is_array());

    // One that could not even begin is an error.
    let mut d = Dialogue::new(settings());
    d.says(&request("1", "server/discover", &format!("{{{META}}}")));
    let sent = d.one("server/discover");
    d.fails(&sent, FailureKind::SignIn, false);
    assert_eq!(d.responses(), ["1 sign-in"]);
}

// ---- the end ----

#[test]
fn at_the_end_what_waits_for_a_sign_in_is_answered_like_the_rest() {
    for (how, wait) in [(Input::Terminate, 0), (Input::ClientGone, 2)] {
        let mut d = ready();
        d.says(&call("1", "a"));
        let sent = d.one("tools/call");
        d.is_held(&sent);
        d.says(&request("2", "tools/list", "{}"));
        let sent = d.one("tools/list");
        d.fails(&sent, FailureKind::SignIn, false);
        assert_eq!(tools(&d.hears_one()), ["sign_in"]);
        d.says(&call("3", "sign_in"));
        d.input(how);
        d.passes(seconds(wait));
        assert_eq!(d.responses(), ["1 shutdown", "3 shutdown"]);
        d.sign_in_is_wanted();
        d.sign_in_is_done();
        assert!(d.hears().is_empty());
        d.passes(seconds(2));
        assert!(d.exited && d.session.holds_nothing());
    }
}

#[test]
fn after_the_end_of_stdin_a_person_is_not_waited_for() {
    for held in [true, false] {
        let mut d = Dialogue::new(Settings { drain: seconds(30), ..settings() });
        d.says(&initialize("0"));
        let sent = d.one("initialize");
        if held {
            d.is_held(&sent);
        } else {
            d.sign_in_is_wanted();
        }
        d.says(&call("1", "a"));
        d.input(Input::ClientGone);
        d.passes(seconds(1));
        assert!(!d.exited, "a browser that is signed in already answers by itself");
        d.passes(seconds(1));
        let heard = d.hears();
        assert_eq!(heard.len(), 2);
        let told = |line: &String| line.contains("shutdown") && line.contains("mcp-drawbridge login");
        assert!(heard.iter().all(told), "{heard:?}");
        assert!(d.exited);
    }
}

#[test]
fn tool_rules_hide_the_servers_tools_and_not_the_bridges() {
    let rules = ToolRules { ignore: vec!["*".into()], read_only: true, ..ToolRules::default() };
    let mut d = Dialogue::ready(Settings { tools: rules, ..settings() });
    d.says(&request("1", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(40));
    assert_eq!(tools(&d.hears_one()), ["sign_in"]);
    d.says(&call("2", "sign_in"));
    assert_eq!(d.hears_one()["result"]["isError"], false);
}

#[test]
fn a_call_that_waits_for_the_tools_annotations_is_held_with_them() {
    let rules = ToolRules { read_only: true, ..ToolRules::default() };
    let mut d = Dialogue::ready(Settings { tools: rules, ..settings() });
    d.says(&call("1", "a"));
    let sent = d.one("tools/list");
    d.is_held(&sent);
    d.sign_in_is_wanted();
    d.passes(seconds(39));
    assert!(d.hears().is_empty());
    d.passes(seconds(1));
    assert_eq!(d.responses(), ["1 sign-in"]);
    d.says(&call("2", "a"));
    d.input(Input::SignIn(SignIn::Done));
    d.answer(&sent, 200, &result(&sent.id(), r#"{"tools":[{"name":"a","annotations":{"readOnlyHint":true}}]}"#));
    let sent = d.one("tools/call");
    d.answers(&sent);
    assert_eq!(d.responses(), ["2"]);
}
