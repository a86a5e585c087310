//! C1, C2, C4: what breaks is mended, or said within seconds.

use std::time::Duration;

use mcp_drawbridge::session::FailureKind;

use crate::dialogue::*;

/// The server lists one tool that changes nothing and one that does not say.
fn lists_tools(d: &mut Dialogue) {
    d.says(&request("\"l\"", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.answer(
        &sent,
        200,
        &result("\"l\"", r#"{"tools":[{"name":"look","annotations":{"readOnlyHint":true}},{"name":"change"}]}"#),
    );
    d.hears();
}

// ---- the session is gone ----

#[test]
fn fifty_calls_that_meet_a_lost_session_are_healed_by_one_initialize() {
    for (status, body) in GONE {
        let mut d = Dialogue::ready(settings());
        for id in 1..=50 {
            d.says(&call(&id.to_string(), "change"));
        }
        let calls = d.sends();
        assert_eq!(calls.len(), 50);
        for sent in &calls {
            d.answer(sent, status, body);
        }
        let sent = d.one("initialize");
        assert!(sent.id().starts_with("\"mcp-drawbridge-"), "ours, with an id of ours");
        d.answers_initialize(&sent, "s2");
        d.greets_again();
        let again = d.sends();
        assert_eq!(again.len(), 50, "{status} {body}");
        for sent in &again {
            assert_eq!(sent.outgoing.session_id.as_deref(), Some("s2"));
            d.answers(sent);
        }
        let responses: Vec<String> = (1..=50).map(|id: u32| id.to_string()).collect();
        assert_eq!(d.responses(), responses, "{status} {body}");
    }
}

#[test]
fn late_words_about_the_old_session_do_not_end_the_new_one() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    d.says(&call("2", "a"));
    d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    let old = d.sends();
    d.answer(&old[0], 404, "");
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s2");
    d.greets_again();
    assert_eq!(d.sends_what(), ["tools/call"]);
    d.answer(&old[1], 404, "");
    d.answer(&old[2], 404, "");
    assert_eq!(d.sends_what(), ["tools/call", "notifications/roots/list_changed"]);
}

#[test]
fn a_lost_session_in_the_form_of_a_json_rpc_error_is_healed_too() {
    let gone = r#"{"code":-32001,"message":"Session not found"}"#;
    let mut d = Dialogue::ready(settings());
    for id in ["1", "2"] {
        d.says(&call(id, "a"));
    }
    for sent in d.sends() {
        d.answer(&sent, 200, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{gone}}}"#, sent.id()));
    }
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s2");
    d.greets_again();
    for sent in d.sends() {
        d.answers(&sent);
    }
    assert_eq!(d.responses(), ["1", "2"]);
}

#[test]
fn an_error_about_some_other_session_is_the_clients_answer_in_the_end() {
    let error = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"browser session not found"}}}}"#)
    };
    let mut d = Dialogue::ready(settings());
    for id in ["1", "2", "3"] {
        d.says(&call(id, "a"));
        let sent = d.one("tools/call");
        d.answer(&sent, 200, &error(id));
        let sent = d.one("initialize");
        d.answers_initialize(&sent, "s2");
        d.greets_again();
        let sent = d.one("tools/call");
        d.answer(&sent, 200, &error(id));
        assert_eq!(d.responses(), [id]);
        d.sends_nothing();
    }
    // By now it is known what these words mean here.
    d.says(&call("4", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 200, &error("4"));
    assert_eq!(d.responses(), ["4"]);
    d.sends_nothing();
}

#[test]
fn a_new_session_is_told_what_the_old_one_knew_and_the_client_that_lists_may_differ() {
    let mut d = Dialogue::ready(settings());
    for (id, method, params) in [
        ("1", "logging/setLevel", r#"{"level":"debug"}"#),
        ("2", "resources/subscribe", r#"{"uri":"file:///a"}"#),
        ("3", "resources/subscribe", r#"{"uri":"file:///b"}"#),
        ("4", "resources/unsubscribe", r#"{"uri":"file:///a"}"#),
    ] {
        d.says(&request(id, method, params));
        let sent = d.one(method);
        d.answers(&sent);
    }
    d.says(&call("5", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 404, "");
    let sent = d.one("initialize");
    d.hears();
    d.answers_initialize(&sent, "s2");
    let greeting = d.one("notifications/initialized");
    d.answer(&greeting, 202, "");
    let sent = d.sends();
    let names: Vec<String> = sent.iter().map(Sent::what).collect();
    assert_eq!(names, ["logging/setLevel", "resources/subscribe", "tools/call"]);
    assert_eq!(sent[1].body()["params"]["uri"], "file:///b");
    let heard = d.hears();
    assert!(heard[0].contains("tools/list_changed") && heard[1].contains("prompts/list_changed"), "{heard:?}");
    assert_eq!(heard.len(), 2, "for what the server has");
    for sent in &sent {
        d.answers(sent);
    }
    assert_eq!(d.responses(), ["5"], "the answers to our own requests are ours");
}

#[test]
fn a_session_that_is_lost_again_and_again_is_an_error_and_no_storm() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let mut initialized = 0;
    for _ in 0..100 {
        for sent in d.sends() {
            match sent.what().as_str() {
                "initialize" => {
                    initialized += 1;
                    d.answers_initialize(&sent, "s");
                }
                "notifications/initialized" => d.answer(&sent, 202, ""),
                _ => d.answer(&sent, 404, ""),
            }
        }
    }
    assert_eq!(d.responses(), ["1 not-found"]);
    assert_eq!(initialized, 2);
}

#[test]
fn a_server_that_forgets_every_session_while_nobody_asks_is_left_in_peace() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    let mut initialized = 0;
    let until = seconds(600);
    while d.now < until {
        for sent in d.sends() {
            match (sent.what().as_str(), d.session.pending_requests()) {
                ("initialize", _) => {
                    initialized += 1;
                    d.answers_initialize(&sent, "s");
                }
                ("GET", _) => {
                    // Open for a moment; the next one finds no session.
                    if sent.outgoing.last_event_id.is_some() {
                        d.answer(&sent, 404, "");
                    } else {
                        d.opens(&sent);
                        d.marks(&sent, "e1", Some(0));
                        d.ends(&sent);
                    }
                }
                _ => d.answer(&sent, 202, ""),
            }
        }
        d.passes(Duration::from_millis(100));
    }
    assert!(initialized < 40, "{initialized} sessions in ten minutes");
}

#[test]
fn a_reconnection_that_the_server_does_not_answer_fails_what_waits_for_it() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.answer(&sent, 404, "");
    d.one("initialize");
    d.passes(seconds(20));
    assert_eq!(d.responses(), ["1 timeout"]);
    d.says(&call("2", "a"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s2");
    d.greets_again();
    assert_eq!(d.sends_what(), ["tools/call"], "the next request asks again");
}

#[test]
fn a_notification_that_meets_a_lost_session_is_said_to_the_new_one() {
    let mut d = Dialogue::ready(settings());
    d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    let sent = d.one("notifications/roots/list_changed");
    d.answer(&sent, 404, "");
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s2");
    d.greets_again();
    d.one("notifications/roots/list_changed");
}

#[test]
fn the_servers_questions_end_with_their_session() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    d.says(&call("2", "a"));
    let calls = d.sends();
    d.opens(&calls[0]);
    d.streams(&calls[0], &request("7", "roots/list", "{}"));
    d.hears();
    d.answer(&calls[1], 404, "");
    let cancelled = d.hears_one();
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&"notifications/cancelled".into(), &7.into())
    );
    d.sends();
    d.says(&result("7", "{}"));
    d.sends_nothing();
}

// ---- a stream breaks ----

#[test]
fn a_broken_answer_stream_is_resumed_where_it_broke_when_the_server_says() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.marks(&sent, "e7", Some(3000));
    d.cuts(&sent);
    d.passes(Duration::from_millis(2900));
    d.sends_nothing();
    d.passes(Duration::from_millis(200));
    let get = d.one("GET");
    assert_eq!(get.outgoing.last_event_id.as_deref(), Some("e7"));
    assert_eq!(get.outgoing.session_id.as_deref(), Some("s1"));
    d.opens(&get);
    d.streams(&get, &result("1", "{}"));
    assert_eq!(d.responses(), ["1"]);
}

#[test]
fn a_server_that_ends_its_stream_on_purpose_is_polled_for_as_long_as_it_speaks() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.marks(&sent, "e0", None);
    d.ends(&sent);
    let mut polls = 0;
    while d.now < seconds(600) {
        for get in d.sends() {
            polls += 1;
            d.opens(&get);
            d.marks(&get, "e1", None);
            d.ends(&get);
        }
        d.passes(Duration::from_millis(100));
    }
    assert!((500..700).contains(&polls), "about once a second: {polls}");
    assert!(d.hears().is_empty());
}

#[test]
fn a_resumed_stream_that_brings_nothing_is_given_up() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.marks(&sent, "e0", None);
    d.ends(&sent);
    while d.now < seconds(10) && d.session.pending_requests() > 0 {
        for get in d.sends() {
            d.opens(&get);
            d.ends(&get);
        }
        d.passes(Duration::from_millis(100));
    }
    assert_eq!(d.responses(), ["1 connection-lost"]);
    assert!(d.now <= seconds(5), "{:?}", d.now);
}

#[test]
fn a_stream_that_cannot_be_resumed_is_an_error_unless_repeating_is_safe() {
    let mut d = Dialogue::ready(settings());
    lists_tools(&mut d);
    for (tool, safe) in [("look", true), ("change", false)] {
        d.says(&call("1", tool));
        let sent = d.one("tools/call");
        d.opens(&sent);
        d.marks(&sent, "e7", None);
        d.cuts(&sent);
        d.passes(seconds(1));
        let get = d.one("GET");
        d.answer(&get, 405, "");
        if safe {
            d.passes(seconds(1));
            let again = d.one("tools/call");
            d.answers(&again);
            assert_eq!(d.responses(), ["1"]);
        } else {
            assert_eq!(d.responses(), ["1 connection-lost"]);
            d.passes(seconds(10));
            d.sends_nothing();
        }
    }
}

#[test]
fn what_changes_nothing_is_repeated_and_what_may_is_an_error_at_once() {
    let mut d = Dialogue::ready(settings());
    lists_tools(&mut d);
    let safe = ["tools/list", "resources/list", "resources/read", "prompts/get", "ping", "completion/complete"];
    for line in safe.iter().map(|method| request("1", method, "{}")).chain([call("1", "look")]) {
        d.says(&line);
        let sent = d.sends().remove(0);
        d.opens(&sent);
        d.ends(&sent);
        assert!(d.responses().is_empty(), "{line}");
        d.passes(seconds(1));
        let again = d.one(&sent.what());
        d.answers(&again);
        assert_eq!(d.responses(), ["1"], "{line}");
    }
    for line in [call("1", "change"), call("1", "unheard-of"), request("1", "x/y", "{}")] {
        d.says(&line);
        let sent = d.sends().remove(0);
        d.opens(&sent);
        d.ends(&sent);
        assert_eq!(d.responses(), ["1 connection-lost"], "{line}");
        d.passes(seconds(10));
        d.sends_nothing();
    }
}

#[test]
fn annotations_are_believed_for_calls_that_are_under_way_when_the_session_is_lost() {
    let mut d = Dialogue::ready(settings());
    lists_tools(&mut d);
    d.says(&call("1", "look"));
    d.says(&call("2", "look"));
    let calls = d.sends();
    d.opens(&calls[0]);
    d.answer(&calls[1], 404, "");
    d.cuts(&calls[0]);
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s2");
    d.greets_again();
    d.passes(seconds(1));
    for sent in d.sends() {
        d.answers(&sent);
    }
    let mut responses = d.responses();
    responses.sort();
    assert_eq!(responses, ["1", "2"]);
}

#[test]
fn a_safe_request_whose_stream_ends_again_and_again_is_an_error_within_seconds() {
    let mut d = Dialogue::ready(settings());
    d.says(&request("1", "tools/list", "{}"));
    let mut sent = 0;
    while d.session.pending_requests() > 0 && d.now < seconds(60) {
        for request in d.sends() {
            sent += 1;
            d.opens(&request);
            d.ends(&request);
        }
        d.passes(Duration::from_millis(50));
    }
    assert_eq!(d.responses(), ["1 connection-lost"]);
    assert!(d.now <= seconds(7) && (3..=11).contains(&sent), "{sent} times in {:?}", d.now);
}

#[test]
fn a_safe_request_that_is_cut_after_a_long_run_every_time_is_given_up_too() {
    let mut d = Dialogue::ready(settings());
    d.says(&request("1", "tools/list", "{}"));
    for _ in 0..20 {
        for request in d.sends() {
            d.opens(&request);
            d.passes(seconds(60));
            d.cuts(&request);
            d.passes(seconds(2));
        }
    }
    assert_eq!(d.responses(), ["1 connection-lost"]);
}

#[test]
fn what_surely_never_left_is_sent_again_whatever_it_is() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    for _ in 0..3 {
        let sent = d.one("tools/call");
        d.fails(&sent, FailureKind::Connect, true);
        d.passes(seconds(1));
    }
    let sent = d.one("tools/call");
    d.answers(&sent);
    assert_eq!(d.responses(), ["1"]);
}

#[test]
fn a_dead_network_is_an_error_within_seconds() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    let took = d.passes_with_a_dead_network(seconds(60));
    assert_eq!(d.responses(), ["1 connect"]);
    assert!(took >= seconds(4) && took <= seconds(6), "{took:?}");
}

#[test]
fn failures_that_time_does_not_mend_are_errors_at_once() {
    for (kind, word) in [
        (FailureKind::Tls, "tls"),
        (FailureKind::Policy, "policy"),
        (FailureKind::Redirect, "redirect"),
        (FailureKind::TooLarge, "too-large"),
        (FailureKind::Malformed, "malformed"),
    ] {
        for unsent in [false, true] {
            let mut d = Dialogue::ready(settings());
            d.says(&request("1", "tools/list", "{}"));
            let sent = d.one("tools/list");
            d.fails(&sent, kind, unsent);
            assert_eq!(d.responses(), [format!("1 {word}")]);
        }
    }
}

#[test]
fn a_refusal_about_some_other_session_is_the_clients_answer_in_the_end() {
    let body =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid params: session_name is required"}}"#;
    let mut d = Dialogue::ready(settings());
    for round in 0..5 {
        d.says(&call("1", "a"));
        let sent = d.one("tools/call");
        d.answer(&sent, 400, body);
        if round < 3 {
            let sent = d.one("initialize");
            d.answers_initialize(&sent, "s2");
            d.greets_again();
            let sent = d.one("tools/call");
            d.answer(&sent, 400, body);
        }
        let heard = d.hears();
        let answer = heard.last().expect("an answer");
        assert!(answer.contains("session_name is required") && answer.contains("\"id\":1"), "{answer}");
        d.sends_nothing();
    }
}
