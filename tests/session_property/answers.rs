//! R1 to R6, P1: one response to each id, whatever the two sides say.

use mcp_drawbridge::message::Id;
use mcp_drawbridge::session::{Input, Settings, ToolRules};

use crate::dialogue::*;

fn read_only() -> Settings {
    Settings { tools: ToolRules { read_only: true, ..ToolRules::default() }, ..settings() }
}

// ---- what the server answers ----

#[test]
fn what_is_no_answer_is_an_error_to_the_request() {
    for (status, body, kind) in [
        (202, "", "no-response"),
        (204, "", "no-response"),
        (200, "", "no-response"),
        (200, "<html>hi</html>", "not-mcp"),
        (200, "hello", "not-mcp"),
        (200, "{}", "bad-json"),
        (200, "{\"jsonrpc\":\"2.0\",\"id\":1,", "bad-json"),
        (200, r#"{"jsonrpc":"2.0","id":2,"result":{}}"#, "no-response"),
        (200, "[]", "no-response"),
        (200, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, "no-response"),
        (301, "", "http"),
        (401, "", "unauthorized"),
        (500, "", "server-error"),
    ] {
        let mut d = Dialogue::ready(settings());
        d.says(&call("1", "a"));
        let sent = d.one("tools/call");
        d.answer(&sent, status, body);
        assert_eq!(d.responses(), [format!("1 {kind}")], "{status} {body}");
    }
}

#[test]
fn a_request_taken_with_202_may_be_answered_on_the_notification_stream_for_a_while() {
    for answered in [true, false] {
        let mut d = Dialogue::new(settings());
        d.says(&initialize("0"));
        let sent = d.one("initialize");
        d.answers_initialize(&sent, "s1");
        d.says(INITIALIZED);
        let sent = d.one("notifications/initialized");
        d.answer(&sent, 202, "");
        let get = d.one("GET");
        d.opens(&get);
        d.hears();
        d.says(&call("1", "a"));
        let sent = d.one("tools/call");
        d.answer(&sent, 202, "");
        d.passes(seconds(2));
        if answered {
            d.streams(&get, &result("1", "{}"));
        }
        d.passes(seconds(1));
        assert_eq!(d.responses(), [if answered { "1" } else { "1 no-response" }]);
    }
}

#[test]
fn an_answer_that_is_broken_ends_its_request_and_no_other() {
    let broken = [
        r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"a":"#,
        r#"{"id":1,"result":{}}"#,
        "[{\"id\":1,\"result\":{}}]",
    ];
    for text in broken {
        let mut d = Dialogue::ready(settings());
        d.says(&call("1", "a"));
        d.says(&call("2", "a"));
        let calls = d.sends();
        d.opens(&calls[0]);
        d.streams(&calls[0], text);
        assert_eq!(d.responses(), ["1 bad-json"], "{text}");
        d.answers(&calls[1]);
        assert_eq!(d.responses(), ["2"]);
    }
    // A broken notification is not an answer.
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.streams(&sent, r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"result"#);
    d.streams(&sent, &result("1", "{}"));
    assert_eq!(d.responses(), ["1"]);
}

#[test]
fn a_null_beside_the_answer_is_no_second_answer() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"n":1.0},"error":null}"#;
    d.answer(&sent, 200, text);
    assert_eq!(d.hears(), [text]);
}

#[test]
fn an_answer_goes_only_to_an_id_that_asked_and_only_once() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    d.says(&call("\"1\"", "a"));
    let calls = d.sends();
    d.opens(&calls[0]);
    for stranger in ["99", "\"mcp-drawbridge-x\"", "1.5"] {
        d.streams(&calls[0], &result(stranger, "{}"));
    }
    assert!(d.hears().is_empty());
    d.streams(&calls[0], &result("1.0", "{}"));
    assert_eq!(d.hears(), [result("1.0", "{}")], "the same number, as the server writes it");
    d.streams(&calls[0], &result("1", "{}"));
    assert!(d.hears().is_empty(), "a second answer is dropped");
    // The stream had its answer: it cannot answer a later request that uses the id again.
    d.says(&call("1", "a"));
    d.streams(&calls[0], &result("1", "{}"));
    assert!(d.hears().is_empty());
    d.answers(&calls[1]);
    assert_eq!(d.responses(), ["\"1\""], "a string is another id than a number");
}

#[test]
fn an_error_without_an_id_answers_the_request_on_whose_stream_it_comes() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 200, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x"}}"#);
    assert_eq!(d.hears(), [r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"x"}}"#]);
}

#[test]
fn the_servers_words_pass_as_they_are_on_one_line() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.answer(
        &sent,
        200,
        "{\r\n  \"jsonrpc\":\"2.0\",\n\"id\":1,\"result\":{\"n\":1e400,\"a\":1,\"a\":2,\"t\":\"\u{2028}\"}}\n",
    );
    assert_eq!(d.hears(), [r#"{    "jsonrpc":"2.0", "id":1,"result":{"n":1e400,"a":1,"a":2,"t":"\u2028"}}"#]);
}

// ---- what the client says ----

#[test]
fn an_id_that_still_waits_is_not_given_to_another_request() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.says(&request("1e0", "ping", "{}"));
    d.sends_nothing();
    assert_eq!(d.hears_one()["error"]["code"], -32600);
    d.answers(&sent);
    assert_eq!(d.responses(), ["1"]);
}

#[test]
fn broken_lines_are_answered_and_the_next_one_is_read() {
    for (line, code, id) in [
        ("{", -32700, "null"),
        ("{}\0", -32700, "null"),
        ("5", -32600, "null"),
        (r#"{"jsonrpc":"1.0","id":7,"method":"a"}"#, -32600, "7"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"a","method":"b"}"#, -32600, "7"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, -32600, "null"),
        (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, -32600, "null"),
        ("[]", -32600, "null"),
    ] {
        let mut d = Dialogue::ready(settings());
        d.says(line);
        let heard = d.hears_one();
        assert_eq!((heard["error"]["code"].as_i64(), heard["id"].to_string().as_str()), (Some(code), id), "{line}");
        d.says(&call("1", "a"));
        d.one("tools/call");
    }
}

#[test]
fn a_line_that_is_too_long_is_answered_with_its_id() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    let too_long = |id, is_request| Input::TooLong { id, is_request, length: 1 << 40, limit: 64 << 20 };
    d.input(too_long(Some(Id::Integer(2)), true));
    d.input(too_long(Some(Id::Integer(1)), true));
    d.input(too_long(None, false));
    assert_eq!(d.responses(), ["2 too-large", "null too-large", "null too-large"]);
    // The client's answer to the server: it is the server who must not wait.
    d.opens(&sent);
    d.streams(&sent, &request("7", "sampling/createMessage", "{}"));
    d.hears();
    d.input(too_long(Some(Id::Integer(7)), false));
    assert!(d.hears().is_empty());
    let told = d.one("a response");
    assert_eq!((told.id().as_str(), told.body()["error"]["code"].as_i64()), ("7", Some(-32001)));
}

#[test]
fn a_cancelled_request_gets_no_answer_in_any_state() {
    // Before it was sent.
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    d.says(&call("1", "a"));
    let sent = d.one("initialize");
    d.says(&cancel("1"));
    d.answers_initialize(&sent, "s1");
    d.sends_nothing();
    d.says(INITIALIZED);
    d.greets();
    d.hears();
    // Sent, streaming, waiting for a second try, being resumed: the server is told, the stream is closed.
    for state in 0..4 {
        d.says(&request("1", "tools/list", "{}"));
        let sent = d.one("tools/list");
        if state > 0 {
            d.opens(&sent);
        }
        if state == 2 {
            d.ends(&sent);
        }
        let mut running = sent.exchange;
        if state == 3 {
            d.marks(&sent, "e1", None);
            d.cuts(&sent);
            d.passes(seconds(1));
            running = d.one("GET").exchange;
        }
        d.says(&cancel("1"));
        assert_eq!(d.one("notifications/cancelled").body()["params"]["requestId"], 1);
        assert_eq!(state == 2, !d.aborted.contains(&running), "state {state}");
        d.answers(&sent);
        d.passes(seconds(60));
        assert!(d.responses().is_empty(), "state {state}");
        d.sends_nothing();
    }
    // Unknown ids and initialize.
    d.says(&cancel("1"));
    d.says(&cancel("\"1\""));
    d.sends_nothing();
}

#[test]
fn initialize_cannot_be_cancelled() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.says(&cancel("0"));
    d.answers_initialize(&sent, "s1");
    assert_eq!(d.responses(), ["0"]);
}

#[test]
fn a_cancelled_modern_request_is_told_to_the_server_by_the_end_of_its_stream() {
    let mut d = Dialogue::new(settings());
    d.says(&modern("1", "tools/call"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.says(&cancel("1"));
    d.sends_nothing();
    assert_eq!(d.aborted, [sent.exchange]);
    d.passes(seconds(60));
    assert!(d.hears().is_empty());
}

#[test]
fn a_batch_is_split_for_the_server_and_answered_as_the_client_knows_it() {
    let batch = format!("[{},{},5,{INITIALIZED}]", call("1", "a"), call("2", "a"));
    // 2025-11-25: one line each.
    let mut d = Dialogue::ready(settings());
    d.says(&batch);
    let sent = d.sends();
    assert_eq!(
        sent.iter().map(Sent::what).collect::<Vec<_>>(),
        ["tools/call", "tools/call", "notifications/initialized"]
    );
    d.answers(&sent[1]);
    d.answers(&sent[0]);
    assert_eq!(d.responses(), ["null", "2", "1"]);
    // 2025-03-26: one array.
    let mut d = Dialogue::new(settings());
    d.says(&request("0", "initialize", r#"{"protocolVersion":"2025-03-26"}"#));
    let sent = d.one("initialize");
    d.answer(&sent, 200, &result("0", r#"{"protocolVersion":"2025-03-26"}"#));
    d.says(INITIALIZED);
    d.greets();
    d.hears();
    d.says(&batch);
    let sent = d.sends();
    d.answers(&sent[1]);
    assert!(d.hears().is_empty());
    d.answers(&sent[0]);
    let array = d.hears_one();
    let ids: Vec<String> = array.as_array().expect("an array").iter().map(|member| member["id"].to_string()).collect();
    assert_eq!(ids, ["null", "2", "1"]);
    // A member that is cancelled is left out; modern members do not hold it up.
    d.says(&format!("[{},{},{}]", call("1", "a"), call("2", "a"), modern("3", "subscriptions/listen")));
    let sent = d.sends();
    d.answers(&sent[0]);
    d.says(&cancel("2"));
    assert_eq!(d.hears_one().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_batch_with_too_many_members_is_refused_whole() {
    let mut d = Dialogue::ready(settings());
    d.says(&format!("[{}1]", "1,".repeat(1000)));
    assert_eq!(d.hears_one()["error"]["code"], -32600);
}

// ---- requests of the server ----

#[test]
fn two_requests_of_the_server_with_one_id_reach_the_client_as_two() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.streams(&sent, &request("7", "roots/list", "{}"));
    d.streams(&sent, &request("7", "sampling/createMessage", "{}"));
    let heard = d.hears();
    assert_eq!(heard[0], request("7", "roots/list", "{}"), "the first passes as it is");
    let renamed: serde_json::Value = serde_json::from_str(&heard[1]).expect("JSON");
    assert_ne!(renamed["id"], 7);
    d.says(&result(&renamed["id"].to_string(), "{\"second\":1}"));
    let answer = d.one("a response");
    assert_eq!((answer.id().as_str(), &answer.body()["result"]["second"]), ("7", &1.into()));
    d.says(&result("7", "{\"first\":1}"));
    assert_eq!(d.one("a response").body()["result"]["first"], 1);
    d.says(&result("7", "{}"));
    d.sends_nothing();
}

#[test]
fn the_server_may_take_a_renamed_request_back() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.streams(&sent, &request("7", "roots/list", "{}"));
    d.streams(&sent, &request("7", "roots/list", "{}"));
    let renamed: serde_json::Value = serde_json::from_str(&d.hears()[1]).expect("JSON");
    d.streams(&sent, &cancel("7"));
    assert_eq!(d.hears_one()["params"]["requestId"], renamed["id"]);
    d.streams(&sent, &cancel("7"));
    assert_eq!(d.hears_one()["params"]["requestId"], 7);
}

#[test]
fn requests_that_the_client_never_answers_do_not_pile_up() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    for number in 0..10_000 {
        d.streams(&sent, &request(&format!("\"q{number}\""), "ping", "{}"));
    }
    assert_eq!(d.hears().len(), 10_000, "each is passed on");
    d.says(&result("\"q0\"", "{}"));
    d.sends_nothing();
    d.says(&result("\"q9999\"", "{}"));
    d.one("a response");
}

// ---- tool rules ----

#[test]
fn under_read_only_a_call_of_an_unlisted_tool_waits_for_our_own_look_at_the_list() {
    let mut d = Dialogue::ready(read_only());
    for (id, tool) in [("1", "look"), ("2", "change"), ("3", "unheard-of"), ("4", "look")] {
        d.says(&call(id, tool));
    }
    d.says(&cancel("4"));
    let list = d.one("tools/list");
    let page = r#"{"tools":[{"name":"change"}],"nextCursor":"2"}"#;
    d.answer(&list, 200, &result(&list.id(), page));
    let list = d.one("tools/list");
    assert_eq!(list.body()["params"]["cursor"], "2");
    let page = r#"{"tools":[{"name":"look","annotations":{"readOnlyHint":true}}]}"#;
    d.answer(&list, 200, &result(&list.id(), page));
    let sent = d.one("tools/call");
    assert_eq!(sent.id(), "1");
    d.answers(&sent);
    assert_eq!(d.responses(), ["2", "3", "1"]);
    d.says(&call("5", "look"));
    d.one("tools/call");
}

#[test]
fn a_list_that_changes_while_we_read_it_is_read_again() {
    let mut d = Dialogue::ready(read_only());
    d.says(&call("1", "look"));
    let list = d.one("tools/list");
    d.opens(&list);
    d.streams(&list, r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    let page = r#"{"tools":[{"name":"look","annotations":{"readOnlyHint":true}}]}"#;
    d.streams(&list, &result(&list.id(), page));
    let list = d.one("tools/list");
    d.answer(&list, 200, &result(&list.id(), page));
    assert_eq!(d.one("tools/call").id(), "1");
}

#[test]
fn calls_that_wait_for_a_list_that_never_comes_are_answered() {
    let mut d = Dialogue::ready(read_only());
    d.says(&call("1", "look"));
    let list = d.one("tools/list");
    d.answer(&list, 401, "");
    assert_eq!(d.responses(), ["1 unauthorized"]);
    d.says(&call("2", "look"));
    d.one("tools/list");
    d.passes(seconds(30));
    assert_eq!(d.responses(), ["2 timeout"]);
}

#[test]
fn a_list_that_the_rules_cannot_be_applied_to_is_not_shown() {
    for page in [r#"{"tools":5}"#, r#"{"tools":[],"tools":[{"name":"hidden"}]}"#, "{}"] {
        let rules = ToolRules { ignore: vec!["hidden".into()], ..ToolRules::default() };
        let mut d = Dialogue::ready(Settings { tools: rules, ..settings() });
        d.says(&request("1", "tools/list", "{}"));
        let sent = d.one("tools/list");
        d.answer(&sent, 200, &result("1", page));
        assert_eq!(d.responses(), ["1 policy"], "{page}");
    }
    let rules = ToolRules { ignore: vec!["hidden".into()], ..ToolRules::default() };
    let mut d = Dialogue::ready(Settings { tools: rules, ..settings() });
    d.says(&request("1", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.answer(&sent, 200, &result("1", r#"{"tools":[{"name":"hidden"}],"nextCursor":5}"#));
    assert_eq!(d.hears(), [result("1", r#"{"tools":[],"nextCursor":5}"#)]);
}

#[test]
fn an_answer_that_strict_clients_drop_becomes_one_that_they_can_read() {
    for outcome in [
        r#""error":{"code":"E1","message":"no\u0007 way"}"#,
        r#""error":{"code":1.5,"message":"x"}"#,
        r#""error":{"code":1}"#,
        r#""error":{}"#,
        r#""result":null"#,
        r#""result":[{}]"#,
        r#""result":"done""#,
    ] {
        let mut d = Dialogue::ready(settings());
        for (id, method) in [("1", "tools/call"), ("2", "tools/list"), ("3", "initialize")] {
            d.says(&request(id, method, "{}"));
            let sent = d.sends().pop().expect("it is sent");
            d.answer(&sent, 200, &format!(r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}"#));
            let error = &d.hears_one()["error"];
            assert!(error["code"].is_i64() && error["message"].is_string(), "{method} {outcome}: {error}");
            assert_eq!(error["data"]["kind"], "bad-json", "{method} {outcome}");
            assert!(!outcome.contains("way") || error["message"].as_str().is_some_and(|text| text.contains("no  way")));
        }
        // The same as the body of a status.
        d.says(&call("4", "a"));
        let sent = d.one("tools/call");
        d.answer(&sent, 400, &format!(r#"{{"jsonrpc":"2.0","id":4,{outcome}}}"#));
        let error = &d.hears_one()["error"];
        assert!(error["code"].is_i64() && error["message"].is_string(), "{outcome}: {error}");
    }
}
