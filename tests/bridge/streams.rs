//! Streams that break: answers are resumed where that can be, repeated where it is safe (C1); the notification stream is kept
//! open (C3).

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::{Kind, Mcp};
use crate::support::wire::Reply;
use crate::support::{all_at_once, eventually, ms, s};

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

#[test]
fn a_stream_that_is_cut_after_an_event_id_is_resumed_there() {
    let server = Mcp::plain();
    server.on("tools/call", |call| (call.tool() == "change").then(|| call.cut_but_kept(&json!({"kept": true}), None)));
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(bridge.result(&id)["kept"], true);
    let resumed: Vec<_> =
        server.gets().into_iter().filter(|logged| logged.request.header("last-event-id").is_some()).collect();
    assert_eq!(resumed.len(), 1, "{}", server.summary());
    assert_eq!(resumed[0].request.header("last-event-id"), Some("0-0"));
    assert_eq!(resumed[0].request.header("mcp-session-id"), Some("session-1"));
    assert_eq!(server.posts("tools/call").len(), 1, "the call itself is not repeated");
    bridge.finish();
}

#[test]
fn the_servers_retry_time_is_respected_within_bounds() {
    // What the server asks for, and between which times the resumption must come.
    let table = [(ms(1200), ms(1150), s(15)), (ms(0), ms(90), s(10))];
    all_at_once(
        &table,
        2,
        |case| format!("{case:?}"),
        |(retry, least, most)| {
            let retry = *retry;
            let server = Mcp::plain();
            server.on("tools/call", move |call| {
                (call.tool() == "change").then(|| call.cut_but_kept(&json!({}), Some(retry)))
            });
            let mut bridge = ready(&server);
            let id = bridge.call("change", &json!({}));
            bridge.result(&id);
            let cut = server.posts("tools/call")[0].done.expect("cut");
            let resumed = server.nth_request(1, "a resumption", |request| request.header("last-event-id").is_some());
            let pause = resumed.request.at.saturating_duration_since(cut);
            assert!(pause >= *least && pause < *most, "{pause:?}");
            bridge.finish();
        },
    );
}

/// 2025-11-25: a server may close a stream on purpose and let the client poll.
#[test]
fn a_server_that_closes_and_lets_poll_is_polled() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "change").then(|| Reply::stream().write("id: poll-0\nretry: 120\ndata:\n\n").end())
    });
    server.on("GET", |call| match call.request.header("last-event-id") {
        Some("poll-0") => Some(Reply::stream().write("id: poll-1\ndata: \n\n").end()),
        Some("poll-1") => Some(Reply::stream().write("id: poll-2\ndata: \n\n").end()),
        Some("poll-2") => {
            Some(Reply::stream().event_with_id("poll-3", r#"{"jsonrpc":"2.0","id":2,"result":{"polled":true}}"#).end())
        }
        Some(_) => Some(Reply::status(400)),
        None => None,
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(id, 2);
    assert_eq!(bridge.result(&id)["polled"], true);
    bridge.finish();
}

#[test]
fn a_resumption_that_fails_is_tried_again_and_then_an_error() {
    // The server restarts in between: refused, then there.
    let server = Mcp::plain();
    server.on("tools/call", |call| (call.tool() == "change").then(|| call.cut_but_kept(&json!({"kept": true}), None)));
    server.on("GET", |call| {
        (call.request.header("last-event-id").is_some() && call.n < 4).then(|| Reply::nothing().reset())
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(bridge.result(&id)["kept"], true);
    bridge.finish();

    // It never comes: an error within seconds, and no repetition of what may change something.
    for status in [405, 400, 500] {
        let server = Mcp::plain();
        server.on("tools/call", |call| (call.tool() == "change").then(|| call.cut_but_kept(&json!({}), None)));
        server.on("GET", move |call| call.request.header("last-event-id").map(|_| Reply::status(status)));
        let mut bridge = ready(&server);
        let begun = Instant::now();
        let id = bridge.call("change", &json!({}));
        let error = bridge.error(&id);
        assert_eq!(error["data"]["kind"], "connection-lost", "{error}");
        assert!(error["data"]["hint"].as_str().unwrap().contains("may have been carried out"), "{error}");
        assert!(begun.elapsed() < s(20), "{:?}", begun.elapsed());
        assert_eq!(server.posts("tools/call").len(), 1);
        bridge.assert_works();
        bridge.finish();
    }
}

#[test]
fn a_stream_that_resumes_to_nothing_for_ever_is_given_up() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "change").then(|| Reply::stream().write("id: e\nretry: 0\ndata:\n\n").end())
    });
    server.on("GET", |call| call.request.header("last-event-id").map(|_| Reply::stream().end()));
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(bridge.error(&id)["data"]["kind"], "connection-lost");
    let resumed = server.gets().iter().filter(|logged| logged.request.header("last-event-id").is_some()).count();
    assert!((2..=20).contains(&resumed), "{resumed}");
    bridge.finish();
}

#[test]
fn events_of_a_resumed_stream_come_once() {
    let server = Mcp::plain();
    let note = |n: u32| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": n}}).to_string();
    server.on("tools/call", move |call| {
        (call.tool() == "change")
            .then(|| Reply::stream().event_with_id("1", &note(1)).event_with_id("2", &note(2)).wait(ms(50)).reset())
    });
    server.on("GET", move |call| {
        let rest =
            |reply: Reply| reply.event_with_id("3", &note(3)).event(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#).end();
        match call.request.header("last-event-id") {
            Some("2") => Some(rest(Reply::stream())),
            Some(_) => Some(rest(Reply::stream().event_with_id("2", &note(2)))),
            None => None,
        }
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    bridge.result(&id);
    let end = bridge.finish();
    let numbers: Vec<_> = end.lines.iter().filter_map(|line| line.value["params"]["n"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_server_that_dies_and_returns_on_the_same_port_costs_only_what_cannot_be_repeated() {
    let mut server = Mcp::streaming();
    let mut bridge = ready(&server);
    let id = bridge.request("tools/list", &json!({}));
    bridge.result(&id);
    let lists: Vec<Value> = (0..16).map(|_| bridge.request("tools/list", &json!({}))).collect();
    let changes: Vec<Value> = (0..8).map(|_| bridge.call("sleep", &json!({"ms": 60_000}))).collect();
    server.await_count("tools/call", 8);
    server.kill();
    server.forget_sessions();
    let during: Vec<Value> = (0..16).map(|_| bridge.request("prompts/list", &json!({}))).collect();
    std::thread::sleep(ms(400));
    server.go_up();
    for id in lists.iter().chain(&during) {
        bridge.result(id);
    }
    for id in &changes {
        assert_eq!(bridge.error(id)["data"]["kind"], "connection-lost");
    }
    assert_eq!(server.count("initialize"), 2, "one new session for all\n{}", server.summary());
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn traffic_goes_on_through_three_restarts() {
    let mut server = Mcp::plain();
    let mut bridge = ready(&server);
    let id = bridge.request("tools/list", &json!({}));
    bridge.result(&id);
    let mut ids = Vec::new();
    for _ in 0..3 {
        for n in 0..20 {
            ids.push(bridge.call("echo", &json!({"n": n})));
        }
        server.restart();
        for n in 0..20 {
            ids.push(bridge.call("echo", &json!({"n": n})));
        }
        bridge.result(ids.last().unwrap());
    }
    // `echo` is annotated read-only, so every single call is answered properly.
    for id in &ids {
        bridge.result(id);
    }
    bridge.finish();
}

// ---- the notification stream ----

#[test]
fn the_notification_stream_is_opened_again_when_it_ends() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    server.await_listener();
    for round in 1..=2 {
        server.end_streams();
        server.await_count("GET", round + 1);
        server.await_listener();
        server.push(&json!({"jsonrpc": "2.0", "method": format!("notifications/round{round}")}));
        bridge.notification(&format!("notifications/round{round}"));
    }
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn the_notification_stream_resumes_after_its_last_event() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    server.await_listener();
    server.push_bytes(
        b"id: listen-7\nretry: 150\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/one\"}\n\n".to_vec(),
    );
    bridge.notification("notifications/one");
    server.on("GET", |call| {
        (call.request.header("last-event-id") == Some("listen-7"))
            .then(|| Reply::stream().event(r#"{"jsonrpc":"2.0","method":"notifications/two"}"#).hold())
    });
    server.end_streams();
    bridge.notification("notifications/two");
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_without_a_notification_stream_is_not_asked_again() {
    let server = Mcp::start(Kind { listen: false, ..Kind::default() });
    let mut bridge = ready(&server);
    for _ in 0..3 {
        bridge.assert_works();
    }
    std::thread::sleep(ms(1500));
    assert_eq!(server.count("GET"), 1);
    let end = bridge.finish();
    assert_eq!(end.stderr, "", "405 is accepted quietly");
}

#[test]
fn a_notification_stream_that_fails_is_opened_with_growing_pauses() {
    let server = Mcp::plain();
    server.on("GET", |_| Some(Reply::stream().end()));
    let mut bridge = ready(&server);
    server.await_count("GET", 3);
    let at: Vec<Instant> = server.gets().iter().map(|logged| logged.request.at).collect();
    let pauses: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= ms(500), "{pauses:?}");
    assert!(pauses[1] >= ms(1500), "{pauses:?}");
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_mad_retry_time_does_not_stop_or_storm_the_notification_stream() {
    let table = [("0", 3), ("1000000000000", 1)];
    all_at_once(
        &table,
        2,
        |case| format!("{case:?}"),
        |(retry, most)| {
            let server = Mcp::plain();
            let text = format!("retry: {retry}\n\n");
            server.on("GET", move |_| Some(Reply::stream().write(text.clone()).end()));
            let mut bridge = ready(&server);
            server.await_count("GET", 1);
            let begun = Instant::now();
            std::thread::sleep(s(1));
            let gets = server.count("GET");
            // A server may want to be asked again and again, but not more often than each 100 ms.
            let most = if *most == 1 { 1 } else { 2 + begun.elapsed().as_millis() / 100 };
            assert!(gets as u128 <= most, "{gets} in {:?}", begun.elapsed());
            bridge.assert_works();
            bridge.finish();
        },
    );
}

// ---- keep-alive ----

#[test]
fn keep_alive_pings_an_idle_connection_and_only_that() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--ping-interval 0.5").start();
    bridge.handshake();
    bridge.assert_works();
    server.await_count("ping", 3);
    let end = bridge.finish();
    assert_eq!(end.lines.len(), 2, "the client sees nothing of it: {:#?}", end.lines);

    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--ping-interval 1").start();
    bridge.handshake();
    for _ in 0..20 {
        bridge.assert_works();
        std::thread::sleep(ms(100));
    }
    assert_eq!(server.count("ping"), 0, "a busy connection is not pinged");
    bridge.finish();
}

#[test]
fn a_ping_that_fails_harms_nothing() {
    let server = Mcp::plain();
    server.on("ping", |call| match call.n % 3 {
        0 => Some(Reply::status(500)),
        1 => Some(Reply::nothing()),
        _ => Some(Reply::json(200, "nonsense")),
    });
    let mut bridge = Setup::new(&server.url()).args("--ping-interval 0.3").start();
    bridge.handshake();
    server.await_count("ping", 4);
    bridge.assert_works();
    bridge.finish();
}

/// A lost session is noticed by the ping, before the client needs it.
#[test]
fn a_ping_notices_that_the_session_is_gone() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--ping-interval 0.5").start();
    bridge.handshake();
    server.await_listener();
    server.forget_sessions();
    server.await_count("initialize", 2);
    bridge.notification("notifications/tools/list_changed");
    bridge.assert_works();
    bridge.finish();
    eventually("one session", || (server.sessions().len() <= 1).then_some(()));
}
