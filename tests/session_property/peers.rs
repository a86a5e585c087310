//! C3, C4: busy servers, the older transport, notification streams, time limits.

use std::time::Duration;

use mcp_drawbridge::session::{FailureKind, Head, Input, Settings};

use crate::dialogue::*;
use crate::opening::sse_session;

fn busy(status: u16, after: Option<u64>) -> Head {
    Head { retry_after: after.map(seconds), ..head(status, "") }
}

// ---- a busy server ----

#[test]
fn a_busy_server_is_waited_for_as_long_as_it_says() {
    for status in [429, 503] {
        let mut d = Dialogue::ready(settings());
        d.says(&call("1", "change"));
        let sent = d.one("tools/call");
        d.answer_with(&sent, busy(status, Some(30)), "");
        d.passes(seconds(29));
        d.sends_nothing();
        d.passes(seconds(2));
        let sent = d.one("tools/call");
        d.answers(&sent);
        assert_eq!(d.responses(), ["1"]);
    }
}

#[test]
fn a_server_that_is_busy_for_too_long_or_too_often_is_an_error() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "change"));
    let sent = d.one("tools/call");
    d.answer_with(&sent, busy(429, Some(3600)), "");
    assert_eq!(d.responses(), ["1 busy"]);
    d.says(&call("2", "change"));
    for _ in 0..=5 {
        let sent = d.one("tools/call");
        d.answer_with(&sent, busy(503, Some(1)), "");
        d.passes(seconds(1));
    }
    assert_eq!(d.responses(), ["2 server-error"]);
}

#[test]
fn a_gateway_without_its_server_is_tried_again_only_where_that_is_safe() {
    for status in [502, 503, 504] {
        let mut d = Dialogue::ready(settings());
        d.says(&request("1", "tools/list", "{}"));
        let sent = d.one("tools/list");
        d.answer(&sent, status, "");
        d.passes(seconds(1));
        let again = d.one("tools/list");
        d.answers(&again);
        assert_eq!(d.responses(), ["1"]);
        d.says(&call("2", "change"));
        let sent = d.one("tools/call");
        d.answer(&sent, status, "");
        assert_eq!(d.responses().len(), 1);
    }
}

#[test]
fn the_clients_answers_to_the_server_survive_a_short_outage() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let running = d.one("tools/call");
    d.opens(&running);
    d.streams(&running, &request("7", "roots/list", "{}"));
    d.says(&result("7", "{}"));
    let sent = d.one("a response");
    d.fails(&sent, FailureKind::Connect, true);
    d.passes(seconds(1));
    let sent = d.one("a response");
    d.answer_with(&sent, busy(503, Some(2)), "");
    d.passes(seconds(2));
    assert_eq!(d.one("a response").id(), "7");
}

// ---- HTTP+SSE ----

#[test]
fn when_the_stream_of_the_older_transport_is_lost_a_new_session_is_opened_and_nobody_waits() {
    let (mut d, stream) = sse_session();
    d.says(&request("1", "tools/list", "{}"));
    d.says(&call("2", "change"));
    let sent = d.sends();
    for sent in &sent {
        d.answer(sent, 202, "Accepted");
    }
    d.cuts(&stream);
    assert_eq!(d.responses(), ["2 connection-lost"], "what may change something is not repeated");
    let stream = d.one("GET");
    d.opens(&stream);
    d.names_endpoint(&stream, "/messages?2");
    let sent = d.one("initialize");
    d.streams(&stream, &result(&sent.id(), INIT_RESULT));
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    d.passes(seconds(1));
    let sent = d.one("tools/list");
    d.streams(&stream, &result("1", "{}"));
    d.answer(&sent, 202, "");
    assert_eq!(d.responses(), ["1"]);
}

#[test]
fn a_post_that_the_older_transport_does_not_know_any_more_opens_a_new_session() {
    let (mut d, stream) = sse_session();
    d.says(&call("1", "change"));
    d.says(&call("2", "change"));
    let sent = d.sends();
    d.answer(&sent[0], 202, "Accepted");
    d.answer(&sent[1], 404, "Could not find session");
    assert!(d.aborted.contains(&stream.exchange));
    assert_eq!(d.responses(), ["1 connection-lost"]);
    let stream = d.one("GET");
    d.opens(&stream);
    d.names_endpoint(&stream, "/messages?2");
    let sent = d.one("initialize");
    d.streams(&stream, &result(&sent.id(), INIT_RESULT));
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    assert_eq!(d.one("tools/call").id(), "2");
}

#[test]
fn a_client_that_starts_anew_on_the_older_transport_leaves_no_request_behind() {
    let (mut d, _) = sse_session();
    d.says(&call("1", "change"));
    let sent = d.one("tools/call");
    d.answer(&sent, 202, "Accepted");
    d.says(&initialize("2"));
    assert_eq!(d.responses(), ["1 connection-lost"]);
}

#[test]
fn words_in_the_body_of_a_202_do_not_matter_to_the_older_transport() {
    let (mut d, stream) = sse_session();
    for body in ["Accepted", "{\"ok\":true}", "", "<p>ok</p>"] {
        d.says(&call("1", "change"));
        let sent = d.one("tools/call");
        d.answer(&sent, 202, body);
        assert!(d.responses().is_empty(), "{body}");
        d.streams(&stream, &result("1", "{}"));
        assert_eq!(d.responses(), ["1"], "{body}");
    }
}

// ---- the notification stream ----

#[test]
fn the_notification_stream_is_kept_alive_without_a_limit_and_without_haste() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    let mut tries = 0;
    while d.now < seconds(3600) {
        for get in d.sends() {
            tries += 1;
            d.fails(&get, FailureKind::Connect, true);
        }
        d.passes(seconds(1));
    }
    assert!((90..140).contains(&tries), "{tries} in an hour");
    let before = d.now;
    d.input(Input::Woke);
    assert_eq!(d.sends_what(), ["GET"], "after sleep at once");
    assert_eq!(d.now, before);
}

#[test]
fn a_notification_stream_that_is_cut_in_order_is_taken_up_where_it_was() {
    let mut d = Dialogue::new(settings());
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    let mut get = d.one("GET");
    for round in 0..10 {
        d.opens(&get);
        d.marks(&get, &format!("n{round}"), Some(500));
        d.ends(&get);
        d.passes(Duration::from_millis(700));
        get = d.one("GET");
        assert_eq!(get.outgoing.last_event_id.as_deref(), Some(format!("n{round}").as_str()));
    }
}

#[test]
fn a_modern_notification_stream_is_opened_again_by_itself() {
    let mut d = Dialogue::new(settings());
    d.says(&modern("1", "subscriptions/listen"));
    let sent = d.one("subscriptions/listen");
    d.opens(&sent);
    d.passes(seconds(60));
    d.cuts(&sent);
    d.passes_with_a_dead_network(seconds(600));
    d.passes(seconds(40));
    let sent = d.one("subscriptions/listen");
    d.opens(&sent);
    assert!(d.hears().is_empty());
    d.streams(&sent, &result("1", "{}"));
    assert_eq!(d.responses(), ["1"]);
    // One that never opened is a request like any other.
    d.says(&modern("2", "subscriptions/listen"));
    d.passes_with_a_dead_network(seconds(60));
    assert_eq!(d.responses(), ["2 connect"]);
}

#[test]
fn a_request_limit_ends_every_wait_and_tells_the_server() {
    let limited = Settings { request_timeout: Some(seconds(30)), ..settings() };
    let mut d = Dialogue::ready(limited);
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.passes(seconds(30));
    assert_eq!(d.responses(), ["1 timeout"]);
    let notice = d.one("notifications/cancelled");
    assert_eq!(notice.body()["params"]["requestId"], 1);
    assert_eq!(d.aborted, [sent.exchange]);
}

// ---- streams that end again and again ----

/// How often the server is asked in an hour whose streams all end after `data`, with the shortest reconnection time.
fn streams_in_an_hour(mut d: Dialogue, mut get: Sent, data: Option<&str>) -> usize {
    let mut streams = 0;
    while d.now < seconds(3600) {
        d.opens(&get);
        d.marks(&get, &format!("e{streams}"), Some(0));
        if let Some(data) = data {
            d.streams(&get, data);
        }
        d.ends(&get);
        streams += 1;
        let began = d.now;
        while d.session.next_deadline().is_some() && d.now < began + seconds(60) {
            d.passes(Duration::from_millis(50));
            if let Some(next) = d.sends().pop() {
                get = next;
                break;
            }
        }
        assert_eq!(get.what(), "GET");
    }
    streams
}

#[test]
fn streams_that_bring_nothing_but_ids_are_taken_up_with_less_haste() {
    let resumed = || {
        let mut d = Dialogue::ready(settings());
        d.says(&call("1", "a"));
        let sent = d.one("tools/call");
        d.opens(&sent);
        d.marks(&sent, "e", Some(0));
        d.ends(&sent);
        d.passes(seconds(1));
        let get = d.one("GET");
        (d, get)
    };
    let listening = || {
        let mut d = Dialogue::new(settings());
        d.says(&initialize("0"));
        let sent = d.one("initialize");
        d.answers_initialize(&sent, "s1");
        d.says(INITIALIZED);
        let sent = d.one("notifications/initialized");
        d.answer(&sent, 202, "");
        let get = d.one("GET");
        (d, get)
    };
    let news = Some(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    // Somebody waits for a call; notifications have more time.
    for (begin, allowed) in [(&resumed as &dyn Fn() -> (Dialogue, Sent), 3000..3700), (&listening, 280..450)] {
        let (d, get) = begin();
        let streams = streams_in_an_hour(d, get, None);
        assert!(allowed.contains(&streams), "{streams} in an hour");
        let (d, get) = begin();
        let streams = streams_in_an_hour(d, get, news);
        assert!(streams > 15_000, "a server that brings something decides itself: {streams}");
    }
}
