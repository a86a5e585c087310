//! R7, S2, C6: how a session begins.

use mcp_drawbridge::session::{FailureKind, Input, Remembered, Settings, Strategy, Target};

use crate::dialogue::*;

fn with(strategy: Strategy) -> Settings {
    Settings { strategy, ..settings() }
}

#[test]
fn messages_are_sent_in_the_order_that_the_specification_wants() {
    let mut d = Dialogue::new(settings());
    // A client that does not wait for answers.
    for line in [&initialize("0"), INITIALIZED, &call("1", "a"), &call("2", "b")] {
        d.says(line);
    }
    let sent = d.one("initialize");
    assert_eq!((&sent.outgoing.session_id, &sent.outgoing.version), (&None, &None));
    d.answers_initialize(&sent, "s1");
    let sent = d.one("notifications/initialized");
    assert_eq!(sent.outgoing.session_id.as_deref(), Some("s1"));
    assert_eq!(sent.outgoing.version.as_deref(), Some("2025-11-25"));
    d.answer(&sent, 202, "");
    let get = d.one("GET");
    d.opens(&get);
    assert_eq!(d.sends_what(), ["tools/call", "tools/call"]);
}

#[test]
fn a_server_that_is_slow_to_open_its_notification_stream_holds_nothing_up_for_long() {
    let mut d = Dialogue::new(settings());
    for line in [&initialize("0"), INITIALIZED, &call("1", "a")] {
        d.says(line);
    }
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    let sent = d.one("notifications/initialized");
    d.passes(seconds(5));
    assert_eq!(d.sends_what(), ["GET"], "the 202 is not waited for longer than five seconds");
    d.passes(seconds(1));
    assert_eq!(d.sends_what(), ["tools/call"]);
    d.answer(&sent, 202, "");
    d.sends_nothing();
}

#[test]
fn initialized_is_said_again_when_it_did_not_get_through() {
    let mut d = Dialogue::new(settings());
    for line in [&initialize("0"), INITIALIZED, &call("1", "a")] {
        d.says(line);
    }
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    let sent = d.one("notifications/initialized");
    d.fails(&sent, FailureKind::Connect, true);
    d.sends_nothing();
    d.passes(seconds(1));
    d.greets();
    assert_eq!(d.sends_what(), ["tools/call"]);
}

#[test]
fn initialize_is_answered_in_time_by_a_server_that_says_nothing() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    d.says(&request("1", "tools/list", "{}"));
    d.passes(seconds(19));
    assert!(d.hears().is_empty());
    d.passes(seconds(1));
    assert_eq!(d.responses(), ["0 timeout", "1 timeout"]);
    d.sends();
    d.says(&initialize("2"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    assert_eq!(d.responses(), ["2"], "a later initialize tries again");
}

#[test]
fn a_definite_refusal_of_initialize_is_an_error_with_a_cause_at_once() {
    for (status, body, kind) in [
        (401, "", "unauthorized"),
        (403, "", "forbidden"),
        (200, "<html>hello</html>", "not-mcp"),
        (200, "{}", "bad-json"),
        (202, "", "no-response"),
    ] {
        let memory = Some(memory(Remembered::StreamableHttp));
        let mut d = Dialogue::remembering(with(Strategy::HttpOnly), memory);
        d.says(&initialize("0"));
        let sent = d.one("initialize");
        d.answer(&sent, status, body);
        assert_eq!(d.responses(), [format!("0 {kind}")], "{status} {body}");
    }
}

#[test]
fn a_refusal_in_the_servers_own_words_is_passed_on_as_it_is() {
    let mut d = Dialogue::new(with(Strategy::HttpOnly));
    d.says(&initialize("\"i\""));
    let sent = d.one("initialize");
    d.answer(
        &sent,
        400,
        r#"{"jsonrpc":"2.0", "id":null, "error":{"code":-32602,"message":"no","data":{"supported":[]}}}"#,
    );
    assert_eq!(
        d.hears(),
        [r#"{"jsonrpc":"2.0", "id":"i", "error":{"code":-32602,"message":"no","data":{"supported":[]}}}"#]
    );
}

#[test]
fn a_client_of_a_server_that_sleeps_is_answered_from_memory_and_then_told_what_changed() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::StreamableHttp)));
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.fails(&sent, FailureKind::Connect, true);
    assert_eq!(d.hears_one()["result"]["serverInfo"]["name"], "s", "at once, from the last run");
    d.says(INITIALIZED);
    d.says(&call("1", "a"));
    let took = d.passes_with_a_dead_network(seconds(60));
    assert_eq!(d.responses(), ["1 connect"]);
    assert!(took <= seconds(6), "a request does not wait for ever: {took:?}");
    // The network is back; a new request does not wait for a long pause to end.
    d.passes_with_a_dead_network(seconds(300));
    d.says(&call("2", "a"));
    let sent = d.one("initialize");
    d.answer(&sent, 200, &result(&sent.id(), r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}"#));
    d.greets();
    let sent = d.one("tools/call");
    d.answers(&sent);
    let heard = d.hears();
    assert!(heard[0].contains("notifications/tools/list_changed"), "{heard:?}");
    assert!(heard[1].starts_with(r#"{"jsonrpc":"2.0","id":2"#) && heard.len() == 2, "{heard:?}");
}

#[test]
fn the_same_answer_later_changes_nothing_for_the_client() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::StreamableHttp)));
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.passes(seconds(20));
    assert_eq!(d.responses(), ["0"], "from memory, when the time is over");
    d.says(INITIALIZED);
    d.answers_initialize(&sent, "s1");
    d.greets();
    assert!(d.hears().is_empty());
}

#[test]
fn a_request_sent_before_the_answer_from_memory_does_not_wait_for_ever() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::StreamableHttp)));
    d.says(&initialize("0"));
    d.says(INITIALIZED);
    d.says(&call("1", "a"));
    let sent = d.one("initialize");
    d.fails(&sent, FailureKind::Dns, true);
    assert_eq!(d.responses(), ["0"]);
    d.passes_with_a_dead_network(seconds(60));
    assert_eq!(d.responses(), ["1 connect"]);
}

#[test]
fn what_is_remembered_of_another_version_is_not_used() {
    let old = mcp_drawbridge::session::Memory { requested: "2025-03-26".into(), ..memory(Remembered::StreamableHttp) };
    let mut d = Dialogue::remembering(settings(), Some(old));
    d.says(&initialize("0"));
    d.passes_with_a_dead_network(seconds(30));
    assert_eq!(d.responses(), ["0 connect"]);
    assert!(d.now <= seconds(6));
}

#[test]
fn a_refusal_after_the_answer_from_memory_is_told_to_every_request() {
    let mut d = Dialogue::remembering(with(Strategy::HttpOnly), Some(memory(Remembered::StreamableHttp)));
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.fails(&sent, FailureKind::Connect, true);
    d.says(INITIALIZED);
    d.says(&call("1", "a"));
    d.passes(seconds(1));
    let sent = d.one("initialize");
    d.answer(&sent, 403, "");
    assert_eq!(d.responses(), ["0", "1 forbidden"]);
    d.says(&call("2", "a"));
    let sent = d.one("initialize");
    d.answer(&sent, 403, "");
    assert_eq!(d.responses(), ["2 forbidden"], "each asks again, none waits");
}

#[test]
fn a_name_that_never_resolved_is_an_error_at_once() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.fails(&sent, FailureKind::Dns, true);
    assert_eq!(d.responses(), ["0 dns"]);
}

#[test]
fn a_client_that_starts_anew_gets_a_new_session_and_the_old_one_is_ended() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let running = d.one("tools/call");
    d.says(&initialize("2"));
    let sent = d.sends();
    assert_eq!(sent[0].what(), "DELETE");
    assert_eq!(sent[0].outgoing.session_id.as_deref(), Some("s1"));
    assert_eq!(sent[1].what(), "initialize");
    d.answers(&running);
    d.answers_initialize(&sent[1], "s2");
    assert_eq!(d.responses(), ["1", "2"]);
}

#[test]
fn a_client_that_starts_anew_while_we_reconnect_takes_over() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 404, "");
    let ours = d.one("initialize");
    d.says(&initialize("2"));
    let theirs = d.one("initialize");
    assert!(d.aborted.contains(&ours.exchange));
    d.answers_initialize(&theirs, "s2");
    let again = d.one("tools/call");
    d.answers(&again);
    assert_eq!(d.responses(), ["2", "1"]);
}

#[test]
fn an_old_server_is_reached_by_the_older_transport() {
    for status in [400, 404, 405] {
        let mut d = Dialogue::new(settings());
        d.says(&initialize("0"));
        d.says(INITIALIZED);
        d.says(&call("1", "a"));
        let sent = d.one("initialize");
        d.answer(&sent, status, "");
        let stream = d.one("GET");
        d.opens(&stream);
        d.names_endpoint(&stream, "/messages?id=1");
        let sent = d.one("initialize");
        assert_eq!(sent.outgoing.target, Target::Endpoint("/messages?id=1".into()));
        d.answer(&sent, 202, "Accepted");
        d.streams(&stream, &result(&sent.id(), INIT_RESULT));
        let sent = d.one("notifications/initialized");
        d.answer(&sent, 202, "Accepted");
        let sent = d.one("tools/call");
        d.streams(&stream, &result(&sent.id(), "{}"));
        assert_eq!(d.responses(), ["0", "1"], "the answer may come before the 202");
        assert_eq!(d.remembered.as_ref().map(|memory| memory.transport), Some(Remembered::HttpSse));
    }
}

#[test]
fn a_modern_servers_refusal_is_no_reason_to_fall_back() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answer(&sent, 400, r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"unsupported version"}}"#);
    d.sends_nothing();
    assert_eq!(d.hears_one()["error"]["code"], -32022);
}

#[test]
fn when_both_transports_fail_the_first_refusal_is_told() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answer(&sent, 404, "");
    let stream = d.one("GET");
    d.answer(&stream, 405, "");
    assert_eq!(d.responses(), ["0 not-found"]);
}

#[test]
fn what_was_remembered_as_old_may_have_become_new() {
    let mut d = Dialogue::remembering(settings(), Some(memory(Remembered::HttpSse)));
    d.says(&initialize("0"));
    let stream = d.one("GET");
    d.answer(&stream, 405, "");
    let sent = d.one("initialize");
    assert_eq!(sent.outgoing.target, Target::Server);
    d.answers_initialize(&sent, "s1");
    assert_eq!(d.responses(), ["0"]);
}

#[test]
fn an_event_stream_that_names_no_endpoint_is_given_up() {
    let mut d = Dialogue::new(with(Strategy::SseOnly));
    d.says(&initialize("0"));
    let stream = d.one("GET");
    d.opens(&stream);
    d.passes(seconds(10));
    assert_eq!(d.responses(), ["0 timeout"]);
    assert_eq!(d.aborted, [stream.exchange]);
}

#[test]
fn a_second_endpoint_event_does_not_move_the_session() {
    let (mut d, stream) = sse_session();
    d.names_endpoint(&stream, "/elsewhere");
    d.says(&call("1", "a"));
    assert_eq!(d.one("tools/call").outgoing.target, Target::Endpoint("/messages".into()));
}

#[test]
fn an_unusable_endpoint_is_an_error() {
    for endpoint in ["", " ", "/a\u{1}b"] {
        let mut d = Dialogue::new(with(Strategy::SseOnly));
        d.says(&initialize("0"));
        let stream = d.one("GET");
        d.opens(&stream);
        d.names_endpoint(&stream, endpoint);
        assert_eq!(d.responses(), ["0 malformed"], "{endpoint:?}");
    }
}

#[test]
fn the_older_transport_waits_for_a_server_that_starts() {
    let mut d = Dialogue::new(with(Strategy::SseOnly));
    d.says(&initialize("0"));
    for _ in 0..4 {
        let stream = d.one("GET");
        d.fails(&stream, FailureKind::Connect, true);
        d.passes(seconds(1));
    }
    let stream = d.one("GET");
    d.answer(&stream, 503, "");
    d.passes(seconds(2));
    let stream = d.one("GET");
    d.opens(&stream);
    d.names_endpoint(&stream, "/messages");
    let sent = d.one("initialize");
    d.streams(&stream, &result(&sent.id(), INIT_RESULT));
    assert_eq!(d.responses(), ["0"]);
}

/// A session over HTTP+SSE that is ready, and its stream.
pub(crate) fn sse_session() -> (Dialogue, Sent) {
    let mut d = Dialogue::new(with(Strategy::SseOnly));
    d.says(&initialize("0"));
    let stream = d.one("GET");
    d.opens(&stream);
    d.names_endpoint(&stream, "/messages");
    let sent = d.one("initialize");
    d.answer(&sent, 202, "Accepted");
    d.streams(&stream, &result(&sent.id(), INIT_RESULT));
    assert_eq!(d.responses(), ["0"]);
    d.says(INITIALIZED);
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "Accepted");
    (d, stream)
}

#[test]
fn a_session_id_that_no_header_can_carry_is_refused() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    let head = mcp_drawbridge::session::Head { session_id: Some(Err(())), ..head(200, "{") };
    d.answer_with(&sent, head, &result("0", INIT_RESULT));
    assert_eq!(d.responses(), ["0 malformed"]);
}

#[test]
fn modern_requests_wait_for_no_session() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    d.says(&modern("1", "tools/call"));
    let sent = d.sends();
    assert_eq!(sent[1].what(), "tools/call");
    let headers = sent[1].outgoing.modern.as_ref().expect("headers of the modern era");
    assert_eq!((headers.version.as_str(), headers.name.as_deref()), ("2026-07-28", Some("t")));
    d.answers(&sent[1]);
    assert_eq!(d.responses(), ["1"]);
    d.input(Input::Tick);
}
