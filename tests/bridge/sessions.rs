//! A session that the server has lost is opened again, once for any number of requests (C2).

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::{Call, Mcp};
use crate::support::wire::Reply;
use crate::support::{all_at_once, ms, s};

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

type Refuse = fn(&Call) -> Reply;

/// The forms in which real servers say that they do not know a session.
const FORMS: [(&str, Refuse); 8] = [
    ("404, empty", |_| Reply::status(404)),
    ("404, JSON-RPC error", |_| {
        Reply::json(404, r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#)
    }),
    ("404 for a session that was terminated", |call| {
        Reply::json(404, call.error(-32600, "Session has been terminated"))
    }),
    ("400, no valid session", |_| {
        Reply::json(
            400,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
        )
    }),
    ("400, not initialized", |_| {
        Reply::json(
            400,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
        )
    }),
    ("503, session expired", |_| Reply::json(503, r#"{"error":"session expired"}"#)),
    ("200, JSON-RPC error", |call| Reply::json(200, call.error(-32602, "Invalid session ID"))),
    ("200, JSON-RPC error in a stream", |call| Reply::stream().event(&call.error(-32001, "Session not found")).end()),
];

#[test]
fn a_lost_session_heals_once_for_all_that_is_in_flight() {
    all_at_once(
        &FORMS,
        4,
        |(name, _)| (*name).to_owned(),
        |(name, refuse)| {
            let server = Mcp::plain();
            let refuse = *refuse;
            server.on("*", move |call| {
                let old = call.request.header("mcp-session-id") == Some("session-1");
                (old && call.key == "tools/call" && call.tool() == "change").then(|| refuse(call))
            });
            let mut bridge = ready(&server);
            server.await_listener();
            let ids: Vec<Value> = (0..32).map(|n| bridge.call("change", &json!({"n": n}))).collect();
            for (n, id) in ids.iter().enumerate() {
                assert_eq!(bridge.result(id)["structuredContent"]["n"], n, "{name}");
            }
            bridge.notification("notifications/tools/list_changed");
            assert_eq!(server.count("initialize"), 2, "{name}: once for all\n{}", server.summary());
            assert_eq!(server.count("notifications/initialized"), 2, "{name}");
            assert_eq!(server.executed("change"), 32, "{name}: each once");
            bridge.assert_works();
            let end = bridge.finish();
            let told =
                end.lines.iter().filter(|line| line.value["method"] == "notifications/tools/list_changed").count();
            assert_eq!(told, 1, "{name}");
        },
    );
}

/// The same when nothing but the session is gone, and the server is the strict one.
#[test]
fn a_forgotten_session_heals_with_slow_calls_and_their_streams_still_open() {
    let server = Mcp::streaming();
    let mut bridge = ready(&server);
    server.await_listener();
    let slow = bridge.call("sleep", &json!({"ms": 1000}));
    server.await_count("tools/call", 1);
    server.forget_sessions();
    let ids: Vec<Value> = (0..32).map(|n| bridge.call("change", &json!({"n": n}))).collect();
    for id in &ids {
        bridge.result(id);
    }
    // It was under way in the old session and its stream lives: it may end there.
    bridge.result(&slow);
    assert_eq!(server.count("initialize"), 2, "{}", server.summary());
    assert_eq!(server.executed("change"), 32);
    bridge.finish();
}

#[test]
fn what_the_old_session_knew_is_said_to_the_new_one() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    for (method, params) in [
        ("logging/setLevel", json!({"level": "debug"})),
        ("logging/setLevel", json!({"level": "error"})),
        ("resources/subscribe", json!({"uri": "file:///a"})),
        ("resources/subscribe", json!({"uri": "file:///b"})),
        ("resources/unsubscribe", json!({"uri": "file:///a"})),
    ] {
        let id = bridge.request(method, &params);
        bridge.result(&id);
    }
    server.forget_sessions();
    bridge.assert_works();
    let posts = |method: &str| -> Vec<Value> {
        let all = server.posts(method);
        let new = all.iter().filter(|logged| logged.request.header("mcp-session-id") == Some("session-2"));
        new.map(|logged| logged.request.json()["params"].clone()).collect()
    };
    server.await_count("logging/setLevel", 3);
    server.await_count("resources/subscribe", 3);
    assert_eq!(posts("logging/setLevel"), [json!({"level": "error"})]);
    assert_eq!(posts("resources/subscribe"), [json!({"uri": "file:///b"})]);
    let end = bridge.finish();
    assert_eq!(
        end.lines.iter().filter(|line| line.value.get("result").is_some()).count(),
        7,
        "the client hears nothing of it"
    );
}

#[test]
fn a_session_lost_while_idle_is_found_out_by_the_notification_stream() {
    let mut server = Mcp::plain();
    let mut bridge = ready(&server);
    server.await_listener();
    server.restart();
    server.await_count("initialize", 2);
    bridge.notification("notifications/tools/list_changed");
    server.await_listener();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_forgets_again_and_again_is_an_error_not_a_loop() {
    let server = Mcp::plain();
    server.on("tools/call", |call| (call.tool() == "change").then(|| Reply::status(404)));
    let mut bridge = ready(&server);
    let ids: Vec<Value> = (0..8).map(|_| bridge.call("change", &json!({}))).collect();
    for id in &ids {
        bridge.error(id);
    }
    assert!(server.count("initialize") <= 5, "{}", server.count("initialize"));
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_opens_no_new_session_is_an_error_and_later_works_again() {
    let server = Mcp::plain();
    server.on("initialize", |call| (call.n == 2).then(|| Reply::status(500)));
    let mut bridge = ready(&server);
    server.forget_sessions();
    let id = bridge.call("echo", &json!({}));
    let answer = bridge.answer(&id);
    // Either the next try came in time or the error did; never silence.
    assert!(answer["result"].is_object() || answer["error"]["data"]["source"] == "mcp-drawbridge", "{answer}");
    std::thread::sleep(ms(200));
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_new_session_whose_initialize_hangs_does_not_hold_requests_for_ever() {
    let server = Mcp::plain();
    server.on("initialize", |call| (call.n == 2).then(|| Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).args("--initialize-timeout 1").start();
    bridge.handshake();
    server.forget_sessions();
    let begun = std::time::Instant::now();
    let id = bridge.call("change", &json!({}));
    bridge.error(&id);
    assert!(begun.elapsed() < s(20), "{:?}", begun.elapsed());
    bridge.assert_works();
    bridge.finish();
}

/// A server without session ids that restarts, and says so by 400.
#[test]
fn a_server_without_session_ids_can_forget_as_well() {
    let server = Mcp::start(crate::support::mcp::Kind { sessions: false, ..Default::default() });
    server.on("tools/call", |call| {
        (call.n == 1).then(|| Reply::json(400, call.error(-32000, "Bad Request: Server not initialized")))
    });
    let mut bridge = ready(&server);
    bridge.assert_works();
    assert_eq!(server.count("initialize"), 2);
    bridge.finish();
}

#[test]
fn requests_of_the_server_that_the_old_session_made_are_called_off() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    server.await_listener();
    server.push(&json!({"jsonrpc": "2.0", "id": "q1", "method": "roots/list"}));
    bridge.server_request("roots/list");
    server.forget_sessions();
    bridge.assert_works();
    let cancelled = bridge.notification("notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], "q1");
    // The client answers all the same: the new session never asked.
    bridge.send(&json!({"jsonrpc": "2.0", "id": "q1", "result": {"roots": []}}));
    bridge.assert_works();
    assert_eq!(server.responses().len(), 0);
    bridge.finish();
}

/// A tool's own error about a session of its own is the tool's.
#[test]
fn errors_that_only_sound_like_it_are_passed_on() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "change").then(|| Reply::json(200, call.error(-32603, "browser session not found")))
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(bridge.error(&id)["code"], -32603);
    assert_eq!(server.count("initialize"), 1);
    bridge.finish();
}
