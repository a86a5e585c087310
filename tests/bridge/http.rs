//! HTTP around the messages: busy servers (C4), redirects, cookies (C7), and secrets that stay where they belong (H3, H5).

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::{Call, Kind, Mcp};
use crate::support::wire::{Reply, Server};
use crate::support::{all_at_once, ms, s};

const SECRET: &str = "s3cr3t-Zx81-hunter2";

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

// ---- busy ----

#[test]
fn retry_after_is_waited_for() {
    let busy: [(u16, &str); 3] = [(429, "1"), (503, "1"), (503, "0")];
    all_at_once(
        &busy,
        3,
        |case| format!("{case:?}"),
        |(status, after)| {
            let server = Mcp::plain();
            let (status, after) = (*status, *after);
            server.on("tools/call", move |call| {
                (call.tool() == "change" && call.n == 1)
                    .then(|| Reply::response(status, &[("Retry-After", after)], "busy"))
            });
            let mut bridge = ready(&server);
            let begun = Instant::now();
            let id = bridge.call("change", &json!({}));
            bridge.result(&id);
            assert!(begun.elapsed() >= ms(if after == "1" { 950 } else { 0 }));
            assert_eq!(server.count("tools/call"), 2);
            assert_eq!(server.executed("change"), 1);
            bridge.finish();
        },
    );
}

#[test]
fn a_date_in_retry_after_is_understood() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        (call.n == 1).then(|| Reply::response(429, &[("Retry-After", past)], ""))
    });
    let mut bridge = ready(&server);
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_stays_busy_or_asks_for_too_much_is_an_error() {
    let table: [(u16, Option<&str>, &str); 4] = [
        (429, Some("86400"), "busy"),
        (503, Some("86400"), "server-error"),
        (503, None, "server-error"),
        (429, Some("0"), "busy"),
    ];
    all_at_once(
        &table,
        4,
        |case| format!("{case:?}"),
        |(status, after, kind)| {
            let server = Mcp::plain();
            let (status, after) = (*status, *after);
            server.on("tools/call", move |call| {
                let headers: Vec<(&str, &str)> = after.map(|after| ("Retry-After", after)).into_iter().collect();
                (call.tool() == "change").then(|| Reply::response(status, &headers, ""))
            });
            let mut bridge = ready(&server);
            let begun = Instant::now();
            let id = bridge.call("change", &json!({}));
            let error = bridge.error(&id);
            assert_eq!(error["data"]["kind"], *kind, "{error}");
            assert_eq!(error["data"]["status"], status, "{error}");
            assert!(begun.elapsed() < s(20), "{:?}", begun.elapsed());
            assert!(server.count("tools/call") <= 10, "{}", server.count("tools/call"));
            bridge.assert_works();
            bridge.finish();
        },
    );
}

#[test]
fn a_request_time_out_bounds_the_wait_for_a_busy_server() {
    let server = Mcp::plain();
    server
        .on("tools/call", |call| (call.tool() == "change").then(|| Reply::response(429, &[("Retry-After", "30")], "")));
    let mut bridge = Setup::new(&server.url()).args("--request-timeout 1").start();
    bridge.handshake();
    let begun = Instant::now();
    let id = bridge.call("change", &json!({}));
    bridge.error(&id);
    assert!(begun.elapsed() < s(15), "{:?}", begun.elapsed());
    bridge.finish();
}

// ---- redirects ----

/// Moves every request to `/mcp` on to `target`; other paths are served as `/mcp`.
fn redirecting(server: &Mcp, status: u16, target: &str) {
    let target = target.to_owned();
    server.on("*", move |call| {
        (call.request.target == "/old").then(|| Reply::response(status, &[("Location", &target)], ""))
    });
}

#[test]
fn a_redirect_inside_the_origin_is_followed_with_body_and_headers() {
    for status in [307, 308] {
        let server = Mcp::plain();
        redirecting(&server, status, "/mcp");
        let url = format!("{}/old", server.origin());
        let mut bridge = Setup::new(&url).arg("--header").arg(format!("X-Key: {SECRET}")).start();
        bridge.handshake();
        bridge.assert_works();
        bridge.finish();
        for request in server.requests() {
            assert_eq!(request.header("x-key"), Some(SECRET), "{} {}", request.method, request.target);
            assert_eq!(request.header("referer"), None);
        }
        assert_eq!(server.executed("echo"), 1);
    }
}

#[test]
fn a_redirect_to_another_origin_is_refused_and_nothing_is_sent_there() {
    let statuses: [u16; 5] = [301, 302, 303, 307, 308];
    for status in statuses {
        let other = Arc::new(Server::start(|_| Reply::json(200, "{}")));
        let server = Mcp::plain();
        redirecting(&server, status, &format!("{}/mcp?x=y", other.origin()));
        let url = format!("{}/old", server.origin());
        let mut bridge =
            Setup::new(&url).arg("--debug").arg("--header").arg(format!("Authorization: Bearer {SECRET}")).start();
        let id = bridge.initialize();
        let error = bridge.error(&id);
        let kind = error["data"]["kind"].as_str().unwrap_or_default();
        assert!(matches!(kind, "policy" | "redirect"), "{status}: {error}");
        assert!(error["message"].as_str().unwrap().contains(&other.port().to_string()), "it names where: {error}");
        let end = bridge.finish();
        assert!(other.log().is_empty() && other.connections() == 0, "{status}: {}", other.summary());
        assert!(!end.stderr.contains(SECRET));
    }
}

/// A redirect in the middle of a session is no different.
#[test]
fn a_later_redirect_to_another_origin_is_refused_too() {
    let other = Server::start(|_| Reply::json(200, "{}"));
    let server = Mcp::plain();
    let target = format!("{}/mcp", other.origin());
    server.on("tools/call", move |call| {
        (call.tool() == "change").then(|| Reply::response(307, &[("Location", &target)], ""))
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    bridge.error(&id);
    assert_eq!(other.connections(), 0);
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn redirects_that_lead_nowhere_are_errors() {
    let targets = [
        "/old",
        "/old?again",
        "",
        "http://[broken",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://127.0.0.1:1\\@evil/",
    ];
    all_at_once(
        &targets,
        7,
        |case| (*case).to_owned(),
        |target| {
            let server = Mcp::plain();
            let target = (*target).to_owned();
            server.on("*", move |call| {
                call.request.target.starts_with("/old").then(|| Reply::response(307, &[("Location", &target)], ""))
            });
            let mut bridge = Setup::new(&format!("{}/old", server.origin())).start();
            let id = bridge.initialize();
            bridge.error(&id);
            assert!(server.log().len() <= 12, "{}", server.summary());
            bridge.finish();
        },
    );
}

// ---- cookies ----

#[test]
fn cookies_come_back_to_their_server_and_can_be_switched_off() {
    let with_cookies = |call: &Call| {
        let headers = [("Content-Type", "application/json"), ("Set-Cookie", "lb=node-7; Path=/; HttpOnly")];
        let result =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "c", "version": "1"}});
        Some(Reply::response(200, &headers, call.result(&result)))
    };
    for (args, expected) in [("", Some("lb=node-7")), ("--disable-cookies", None)] {
        let server = Mcp::start(Kind { sessions: false, ..Kind::default() });
        server.on("initialize", with_cookies);
        let mut bridge = Setup::new(&server.url()).args(args).start();
        bridge.handshake();
        bridge.assert_works();
        bridge.finish();
        for request in server.requests().iter().skip(1) {
            assert_eq!(request.header("cookie"), expected, "{} {}", request.method, request.rpc_method());
        }
    }
}

// ---- secrets ----

/// Everything goes wrong, everything is logged, and no secret shows.
#[test]
fn secrets_are_in_no_log_and_in_no_error() {
    let server = Mcp::plain();
    // The server says back what it heard, wherever a bridge may quote it.
    server.on("tools/call", |call| {
        let echoed = format!("bad token {SECRET} in Authorization");
        match call.n {
            1 => Some(Reply::response(500, &[("Content-Type", "text/plain")], "down")),
            2 => Some(Reply::nothing()),
            3 => Some(Reply::response(302, &[("Location", "https://elsewhere.example/")], "")),
            4 => Some(Reply::json(200, "nonsense")),
            5 => Some(Reply::response(401, &[("WWW-Authenticate", &format!("Bearer error=\"{echoed}\""))], "")),
            6 => Some(Reply::stream().event(&call.result(&json!({}))).cut()),
            7 => Some(Reply::status(404)),
            _ => None,
        }
    });
    let query = format!("{}?key={SECRET}", server.url());
    server.on("*", |call| {
        (call.request.target.starts_with("/mcp?") && call.key == "initialize").then(|| {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "q", "version": "1"}});
            Reply::json(200, call.result(&result))
        })
    });
    let home = Arc::new(crate::support::TempDir::new());
    std::fs::write(home.path().join("headers"), format!("X-From-File: {SECRET}\n# nothing\n")).unwrap();
    let log = home.path().join("log");
    let mut bridge = Setup::bare(Arc::clone(&home))
        .arg(&query)
        .arg("--debug")
        .arg("--log-file")
        .arg(&log)
        .arg("--header")
        .arg("Authorization: Bearer ${TOKEN}")
        .arg("--header")
        .arg(format!("X-Key: {SECRET}"))
        .args("--header-file headers")
        .env("TOKEN", SECRET)
        .start();
    let id = bridge.initialize();
    bridge.answer(&id);
    bridge.initialized();
    for _ in 0..8 {
        let id = bridge.call("change", &json!({}));
        bridge.answer(&id);
    }
    let sent = server.requests();
    assert_eq!(sent[0].header("authorization"), Some(&*format!("Bearer {SECRET}")), "it does go out");
    assert_eq!(sent[0].header("x-from-file"), Some(SECRET));
    let end = bridge.finish();
    assert!(!end.stderr.contains(SECRET), "{}", end.stderr);
    let stdout: String = end.lines.iter().map(|line| line.text.clone()).collect();
    assert!(!stdout.contains(SECRET), "{stdout}");
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(!log.contains(SECRET), "{log}");
    // Something was logged, or this test shows nothing.
    assert!(end.stderr.contains("127.0.0.1"), "--debug says what it does: {:?}", end.stderr);
}

#[test]
fn quiet_by_default_and_silent_on_demand() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    bridge.assert_works();
    let end = bridge.finish();
    assert_eq!(end.stderr, "", "nothing to tell");

    let server = Mcp::plain();
    server.on("tools/call", |call| (call.tool() == "change").then(|| Reply::status(500)));
    let mut bridge = Setup::new(&server.url()).args("--silent").start();
    bridge.handshake();
    let id = bridge.call("change", &json!({}));
    bridge.error(&id);
    server.forget_sessions();
    bridge.assert_works();
    let end = bridge.finish();
    assert_eq!(end.stderr, "");
}

/// The environment's proxy is for the world, not for this machine.
#[test]
fn a_loopback_server_is_reached_directly_and_time_outs_are_kept() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url())
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .start();
    bridge.handshake();
    bridge.finish();

    let server = Mcp::plain();
    server.on("tools/call", |call| match call.tool() {
        "head" => Some(Reply::nothing().hold()),
        "body" => Some(Reply::stream().write(": begun\n\n").hold()),
        _ => None,
    });
    let mut bridge = Setup::new(&server.url()).args("--headers-timeout 1 --body-timeout 1").start();
    bridge.handshake();
    for tool in ["head", "body"] {
        let id = bridge.call(tool, &json!({}));
        bridge.error(&id);
    }
    bridge.assert_works();
    bridge.finish();
}
