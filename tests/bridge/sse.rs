//! HTTP+SSE of 2024-11-05, and the choice between the transports (C6).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::{Kind, Mcp};
use crate::support::wire::{Reply, Server};
use crate::support::{all_at_once, eventually, s};

const SECRET: &str = "s3cr3t-Zx81-hunter2";
const VERSION: &str = "2024-11-05";

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake_as(VERSION);
    bridge
}

#[test]
fn an_older_server_is_found_out_and_remembered() {
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    bridge.assert_works();
    let order: Vec<String> = server.requests().iter().map(|request| request.method.clone()).collect();
    assert_eq!(order[..3], ["POST", "GET", "POST"], "POST first, as the specification says\n{}", server.summary());
    let home = Arc::clone(bridge.home());
    bridge.finish();

    let before = server.log().len();
    let mut bridge = Setup::new(&server.url()).home(&home).start();
    bridge.handshake_as(VERSION);
    bridge.assert_works();
    assert_eq!(server.requests()[before].method, "GET", "no second probe\n{}", server.summary());
    bridge.finish();
}

#[test]
fn strategies_do_what_they_say() {
    // Strategy, whether the server is an old one, methods of the first requests, whether it works.
    let table: [(&str, bool, &[&str], bool); 8] = [
        ("http-first", false, &["POST"], true),
        ("http-first", true, &["POST", "GET", "POST"], true),
        ("http-only", false, &["POST"], true),
        ("http-only", true, &["POST"], false),
        ("sse-first", false, &["GET", "POST"], true),
        ("sse-first", true, &["GET", "POST"], true),
        ("sse-only", true, &["GET", "POST"], true),
        ("sse-only", false, &["GET"], false),
    ];
    for (strategy, old, methods, works) in table {
        let mut server = if old { Mcp::sse() } else { Mcp::plain() };
        // A GET without a session is what sse-first begins with.
        server.strict = false;
        let mut bridge = Setup::new(&server.url()).arg("--transport").arg(strategy).start();
        let id = bridge.initialize_as(if old { VERSION } else { "2025-11-25" });
        let answer = bridge.answer(&id);
        assert_eq!(answer["result"].is_object(), works, "{strategy} {old}: {answer}\n{}", server.summary());
        let seen: Vec<String> = server.requests().iter().map(|request| request.method.clone()).collect();
        assert_eq!(seen, methods, "{strategy} {old}");
        if works {
            bridge.initialized();
            bridge.assert_works();
        }
        bridge.finish();
    }
}

#[test]
fn an_error_of_the_modern_era_is_no_sign_of_an_older_server() {
    let server = Server::start(|request| {
        let id = request.json()["id"].clone();
        Reply::json(400, json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32022, "message": "Unsupported protocol version", "data": {"supported": ["2026-07-28"]}}}).to_string())
    });
    let mut bridge = Setup::new(&format!("{}/mcp", server.origin())).start();
    let id = bridge.initialize();
    assert_eq!(bridge.error(&id)["code"], -32022);
    // It was asked in the modern way, and once more because it names a version that we know; never by GET.
    assert_eq!(server.log().len(), 3, "{}", server.summary());
    assert!(server.requests().iter().all(|request| request.method == "POST"), "{}", server.summary());
    bridge.finish();
}

/// When neither transport works, the first refusal is the one that helps.
#[test]
fn when_both_transports_fail_the_first_reason_is_told() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Reply::response(404, &[("Content-Type", "text/html")], "<html>"),
        _ => Reply::response(200, &[("Content-Type", "text/html")], "<html>"),
    });
    let mut bridge = Setup::new(&format!("{}/wrong", server.origin())).start();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    assert_eq!((&error["data"]["kind"], &error["data"]["status"]), (&json!("not-found"), &json!(404)), "{error}");
    bridge.finish();
}

/// An endpoint on another origin gets nothing, in whatever spelling (threat rows 43, 44).
#[test]
fn an_endpoint_on_another_origin_is_refused_and_nothing_is_sent_there() {
    let other = Arc::new(Server::start(|_| Reply::status(202)));
    let port = other.port();
    let spellings = [
        format!("http://127.0.0.1:{port}/messages"),
        format!("//127.0.0.1:{port}/messages"),
        format!("http://localhost:{port}/messages"),
        format!("\\\\127.0.0.1:{port}\\messages"),
        format!("http:\\\\127.0.0.1:{port}/messages"),
        format!("https://127.0.0.1:{port}/messages"),
        "file:///etc/passwd".to_owned(),
        "javascript:alert(1)".to_owned(),
    ];
    all_at_once(&spellings, 4, Clone::clone, |spelling| {
        let event = format!("event: endpoint\ndata: {spelling}\n\n");
        let server = Server::start(move |request| match request.method.as_str() {
            "GET" => Reply::stream().write(event.clone()).hold(),
            _ => Reply::status(405),
        });
        let url = format!("{}/sse", server.origin());
        let mut bridge =
            Setup::new(&url).args("--transport sse-only --debug --header").arg(format!("X-Key: {SECRET}")).start();
        let id = bridge.initialize();
        let error = bridge.error(&id);
        let kind = error["data"]["kind"].as_str().unwrap_or_default();
        assert!(matches!(kind, "policy" | "malformed"), "{error}");
        let end = bridge.finish();
        assert!(!end.stderr.contains(SECRET));
    });
    assert_eq!(other.connections(), 0, "{}", other.summary());
}

#[test]
fn a_userinfo_or_an_unusable_endpoint_is_refused() {
    let table = ["http://user:pw@HOST/messages", "", "http://[", "/with\u{7}bell"];
    all_at_once(
        &table,
        4,
        |case| (*case).to_owned(),
        |spelling| {
            let spelling = (*spelling).to_owned();
            let server = Server::start(move |request| match request.method.as_str() {
                "GET" => {
                    let host = request.header("host").unwrap_or_default();
                    Reply::stream()
                        .write(format!("event: endpoint\ndata: {}\n\n", spelling.replace("HOST", host)))
                        .hold()
                }
                _ => Reply::status(405),
            });
            let mut bridge = Setup::new(&format!("{}/sse", server.origin())).args("--transport sse-only").start();
            let id = bridge.initialize();
            let error = bridge.error(&id);
            assert!(error["message"].as_str().unwrap().contains("endpoint"), "{error}");
            assert!(!server.requests().iter().any(|request| request.method == "POST"));
            bridge.finish();
        },
    );
}

#[test]
fn a_second_endpoint_event_is_ignored() {
    let other = Server::start(|_| Reply::status(202));
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    bridge.assert_works();
    for target in [format!("{}/messages", other.origin()), "/elsewhere".to_owned()] {
        server.push_bytes(format!("event: endpoint\ndata: {target}\n\n").into_bytes());
        bridge.assert_works();
    }
    assert_eq!(other.connections(), 0);
    assert!(server.requests().iter().all(|request| request.target != "/elsewhere"));
    bridge.finish();
}

#[test]
fn notifications_and_requests_of_the_server_pass() {
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    bridge.assert_works();
    server.push(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "hi"}}));
    bridge.notification("notifications/message");
    server.push(&json!({"jsonrpc": "2.0", "id": 0, "method": "roots/list"}));
    assert_eq!(bridge.server_request("roots/list")["id"], 0);
    bridge.send(&json!({"jsonrpc": "2.0", "id": 0, "result": {"roots": []}}));
    server.await_count("response", 1);
    bridge.finish();
}

#[test]
fn answers_come_to_their_ids_although_they_share_a_stream() {
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    let ids: Vec<Value> = (0..200).map(|n| bridge.call("echo", &json!({"n": n}))).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(bridge.result(id)["structuredContent"]["n"], n);
    }
    bridge.finish();
}

#[test]
fn a_stream_that_breaks_is_opened_again_with_a_new_session() {
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    let id = bridge.request("tools/list", &json!({}));
    bridge.result(&id);
    // Taken, but never answered: one that may be repeated, and one that may not.
    server.on("tools/call", |call| (call.n <= 2).then(|| Reply::status(202)));
    let safe = bridge.call("echo", &json!({"safe": true}));
    let unsafe_one = bridge.call("change", &json!({}));
    server.await_count("tools/call", 2);
    server.drop_pipes();
    assert_eq!(bridge.result(&safe)["structuredContent"]["safe"], true);
    let error = bridge.error(&unsafe_one);
    assert_eq!(error["data"]["kind"], "connection-lost");
    bridge.notification("notifications/tools/list_changed");
    bridge.assert_works();
    assert_eq!(server.executed("change"), 0);
    bridge.finish();
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let mut server = Mcp::sse();
    let mut bridge = ready(&server);
    bridge.assert_works();
    server.kill();
    server.drop_pipes();
    let during = bridge.request("tools/list", &json!({}));
    std::thread::sleep(crate::support::ms(300));
    server.go_up();
    bridge.result(&during);
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_stream_that_never_names_its_endpoint_is_an_error() {
    let server = Server::start(|request| match request.method.as_str() {
        "GET" => Reply::stream().write(": hello\n\n").hold(),
        _ => Reply::status(405),
    });
    let url = format!("{}/sse", server.origin());
    let mut bridge = Setup::new(&url).args("--transport sse-only --initialize-timeout 2").start();
    let id = bridge.initialize();
    assert_eq!(bridge.error(&id)["data"]["kind"], "timeout");
    bridge.finish();
}

/// The POST is refused, for good: its request must not wait for the stream.
#[test]
fn a_refused_post_is_an_error_at_once() {
    for status in [400, 403, 500] {
        let server = Mcp::sse();
        server.on("tools/call", move |call| {
            (call.tool() == "change").then(|| Reply::response(status, &[("Content-Type", "text/plain")], "no"))
        });
        let mut bridge = ready(&server);
        let begun = std::time::Instant::now();
        let id = bridge.call("change", &json!({}));
        assert_eq!(bridge.error(&id)["data"]["status"], status);
        assert!(begun.elapsed() < s(15));
        bridge.assert_works();
        bridge.finish();
    }
}

#[test]
fn the_end_closes_the_stream_and_sends_no_delete() {
    let server = Mcp::sse();
    let mut bridge = ready(&server);
    bridge.assert_works();
    bridge.finish();
    server.nth_logged(1, "the stream is closed", |logged| logged.request.method == "GET" && logged.given_up.is_some());
    assert_eq!(server.count("DELETE"), 0, "there is none in that revision");
}

/// A Streamable HTTP server may take POSTs on the same address as an old client's GET.
#[test]
fn sse_first_takes_a_server_that_has_both() {
    let server = Mcp::start(Kind { http_sse: true, version: VERSION, ..Kind::default() });
    let mut bridge = Setup::new(&server.url()).args("--transport sse-first").start();
    bridge.handshake_as(VERSION);
    bridge.assert_works();
    eventually("one stream", || (server.count("GET") == 1).then_some(()));
    bridge.finish();
}
