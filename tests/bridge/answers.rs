//! Every request gets exactly one response, whatever the server makes of it (R1), and what the server says passes through
//! unchanged, to the one that asked (R2, R3).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup, VERSION};
use crate::support::mcp::{Call, Mcp};
use crate::support::wire::Reply;
use crate::support::{all_at_once, ms, s};

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

type Make = fn(&Call) -> Reply;

/// Answers that are no answers: name, what the server does, and the kind of error that the client gets.
const NO_ANSWERS: [(&str, Make, &str); 20] = [
    ("200 with an empty JSON body", |_| Reply::json(200, ""), "bad-json"),
    ("200 without body or type", |_| Reply::response(200, &[], ""), "no-response"),
    ("204", |_| Reply::status(204), "no-response"),
    ("202, and no answer on the stream either", |_| Reply::status(202), "no-response"),
    ("an HTML page", |_| Reply::response(200, &[("Content-Type", "text/html")], "<html>"), "not-mcp"),
    ("plain text", |_| Reply::response(200, &[("Content-Type", "text/plain")], "hello"), "not-mcp"),
    ("broken JSON", |_| Reply::json(200, "{\"jsonrpc\":\"2.0\",\"id\":"), "bad-json"),
    ("JSON that is no message", |_| Reply::json(200, "{\"ok\":true}"), "bad-json"),
    ("a bare number", |_| Reply::json(200, "42"), "bad-json"),
    ("null", |_| Reply::json(200, "null"), "bad-json"),
    ("an empty array", |_| Reply::json(200, "[]"), "no-response"),
    ("a notification", |_| Reply::json(200, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}"), "no-response"),
    (
        "the answer to something else",
        |_| Reply::json(200, "{\"jsonrpc\":\"2.0\",\"id\":\"other\",\"result\":{}}"),
        "no-response",
    ),
    ("an empty stream", |_| Reply::stream().end(), "connection-lost"),
    ("a stream that is cut", |_| Reply::stream().write(": hello\n\n").cut(), "connection-lost"),
    ("a stream that is reset", |_| Reply::stream().write(": hello\n\n").wait(ms(50)).reset(), "connection-lost"),
    ("no HTTP at all", |_| Reply::nothing(), "connection-lost"),
    ("a reset", |_| Reply::nothing().reset(), "connection-lost"),
    ("500 with a page", |_| Reply::response(500, &[("Content-Type", "text/html")], "<html>"), "server-error"),
    ("418", |_| Reply::response(418, &[], ""), "http"),
];

#[test]
fn whatever_the_server_makes_of_it_a_request_gets_its_response() {
    all_at_once(
        &NO_ANSWERS,
        8,
        |(name, _, _)| (*name).to_owned(),
        |(name, make, kind)| {
            let server = Mcp::plain();
            let make = *make;
            server.on("tools/call", move |call| (call.tool() == "change").then(|| make(call)));
            let mut bridge = ready(&server);
            // A tool that may not be called twice.
            let id = bridge.call("change", &json!({}));
            let error = bridge.error(&id);
            assert_eq!(error["code"], -32001, "{name}: {error}");
            assert_eq!(error["data"]["kind"], *kind, "{name}: {error}");
            assert_eq!(server.posts("tools/call").len(), 1, "{name}: it is not repeated\n{}", server.summary());
            bridge.assert_works();
            bridge.finish();
        },
    );
}

/// The same for requests that may be repeated: a server that answers properly the second time is enough.
#[test]
fn what_is_safe_to_repeat_is_repeated_when_the_connection_breaks() {
    let breaks: [(&str, Make); 5] = [
        ("an empty stream", |_| Reply::stream().end()),
        ("a stream that is cut", |_| Reply::stream().write(": hello\n\n").cut()),
        ("no HTTP at all", |_| Reply::nothing()),
        ("a reset", |_| Reply::nothing().reset()),
        ("a body that is cut", |_| {
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"json")
        }),
    ];
    for (name, make) in breaks {
        let server = Mcp::plain();
        server.on("*", move |call| {
            let concerned = matches!(call.key, "tools/list" | "resources/read" | "tools/call" | "logging/setLevel");
            (concerned && call.n == 1).then(|| make(call))
        });
        let mut bridge = ready(&server);
        for (method, params) in [
            ("tools/list", json!({})),
            ("resources/read", json!({"uri": "a:b"})),
            ("logging/setLevel", json!({"level": "info"})),
            // After the list is known: a tool annotated idempotent.
            ("tools/call", json!({"name": "again", "arguments": {}})),
        ] {
            let id = bridge.request(method, &params);
            bridge.result(&id);
            assert_eq!(server.count(method), 2, "{name}: {method}\n{}", server.summary());
        }
        bridge.finish();
    }
}

/// A server that never answers properly: the error comes within seconds.
#[test]
fn what_is_repeated_in_vain_fails_within_seconds() {
    let server = Mcp::plain();
    server.on("tools/list", |_| Some(Reply::stream().end()));
    let mut bridge = ready(&server);
    let begun = std::time::Instant::now();
    let id = bridge.request("tools/list", &json!({}));
    let error = bridge.error(&id);
    assert_eq!(error["data"]["kind"], "connection-lost");
    assert!(begun.elapsed() < s(20), "{:?}", begun.elapsed());
    assert!((3..60).contains(&server.count("tools/list")), "with pauses: {}", server.count("tools/list"));
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_request_time_out_is_kept_and_frees_the_stream() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--request-timeout 1").start();
    bridge.handshake();
    let id = bridge.call("sleep", &json!({"ms": 600_000}));
    let error = bridge.error(&id);
    assert_eq!(error["data"]["kind"], "timeout");
    server.nth_logged(1, "the call is given up", |logged| {
        logged.request.rpc_method() == "tools/call" && logged.given_up.is_some()
    });
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_answers_202_and_then_on_the_notification_stream_is_understood() {
    let server = Mcp::plain();
    server.on("tools/call", |call| (call.tool() == "change").then(|| Reply::status(202)));
    let mut bridge = ready(&server);
    server.await_listener();
    let id = bridge.call("change", &json!({}));
    server.await_count("tools/call", 1);
    server.push(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": [], "late": true}}));
    assert_eq!(bridge.result(&id)["late"], true);
    bridge.finish();
}

#[test]
fn errors_of_the_server_pass_through_on_any_status() {
    for status in [200, 400, 401, 403, 404, 422, 429, 500, 501] {
        let server = Mcp::plain();
        let body = |id: &str| {
            format!(
                "{{\"jsonrpc\":\"2.0\", \"error\":{{\"code\":-31999,\"message\":\"no: \\u00e4\",\"data\":{{\"x\":1e400}}}},\"id\":{id}}}"
            )
        };
        server.on("tools/call", move |call| (call.tool() == "change").then(|| Reply::json(status, body(&call.id))));
        let mut bridge = ready(&server);
        let id = bridge.call("change", &json!({}));
        let answer = bridge.answer_line(&id);
        assert_eq!(answer.text, body(&id.to_string()), "{status}");
        // With a session, a 404 may mean that the session is gone; that a new one hears the same shows that it did not.
        assert_eq!(server.count("initialize") > 1, status == 404, "{status}\n{}", server.summary());
        bridge.assert_works();
        bridge.finish();
    }
}

#[test]
fn an_error_without_an_id_is_given_the_id_that_asked() {
    for id_text in ["\"id\":null,", ""] {
        let server = Mcp::plain();
        let body = format!("{{{id_text}\"jsonrpc\":\"2.0\",\"error\":{{\"code\":-32000,\"message\":\"broken\"}}}}");
        server.on("tools/call", move |call| (call.tool() == "change").then(|| Reply::json(400, body.clone())));
        let mut bridge = ready(&server);
        let id = bridge.call("change", &json!({}));
        assert_eq!(bridge.error(&id)["message"], "broken");
        bridge.finish();
    }
}

#[test]
fn what_the_server_says_is_not_rewritten() {
    let server = Mcp::plain();
    let oddities = r#"{"big":123456789012345678901234567890,"tiny":-0.0e-0,"huge":1e400,"twice":1,"twice":2,"b":"\ud83d\ude00\/","z":{},"a":[ ]}"#;
    server.on("tools/call", move |call| {
        (call.tool() == "change").then(|| {
            Reply::stream()
                .event(&format!("{{\"jsonrpc\":\"2.0\",\"method\":\"future/thing\",\"extra\":{oddities}}}"))
                .event(&format!(
                    "{{\"id\":{}, \"future\":{oddities},\"result\":{oddities},\"jsonrpc\":\"2.0\"}}",
                    call.id
                ))
                .end()
        })
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    let answer = bridge.answer_line(&id);
    assert_eq!(
        answer.text,
        format!("{{\"id\":{id}, \"future\":{oddities},\"result\":{oddities},\"jsonrpc\":\"2.0\"}}")
    );
    let end = bridge.finish();
    let note = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"future/thing\",\"extra\":{oddities}}}");
    assert!(end.lines.iter().any(|line| line.text == note), "unknown methods and members pass");
}

#[test]
fn what_the_client_says_is_not_rewritten() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let line = r#"{"params":{"name":"echo","arguments":{"n":123456789012345678901234567890,"e":1.50e+2,"d":1,"d":2,"s":"\u2028\/ä"}} , "future":[1 , 2],"method":"tools/call","id":1e1,"jsonrpc":"2.0"}"#;
    bridge.send_line(line);
    let sent = server.nth_request(1, "the call", |request| request.rpc_method() == "tools/call");
    assert_eq!(sent.request.body, line);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/future","params":{"z":1,"a":2}}"#;
    bridge.send_line(note);
    let sent = server.nth_request(1, "the note", |request| request.rpc_method() == "notifications/future");
    assert_eq!(sent.request.body, note);
    bridge.assert_works();
    // Its id is the number ten, however it is written; the server here writes it as it came.
    bridge.finish();
}

#[test]
fn whatever_a_server_writes_is_one_line() {
    let pretty = |id: &str| {
        format!(
            "\r\n{{\r\n  \"jsonrpc\": \"2.0\",\n\n  \"id\": {id},\r  \"result\": {{\n    \"text\": \"a\u{2028}b\u{2029}c\u{85}d\"\n  }}\n}}\r\n\n"
        )
    };
    let server = Mcp::plain();
    server.on("tools/call", move |call| match call.tool() {
        "change" => Some(Reply::json(200, format!("\u{feff}{}", pretty(&call.id)))),
        "again" => {
            let data = pretty(&call.id).replace(['\n', '\r'], "\r\ndata: ");
            Some(Reply::stream().write(format!("\u{feff}data: {data}\r\n\r\n")).end())
        }
        _ => None,
    });
    let mut bridge = ready(&server);
    for tool in ["change", "again"] {
        let id = bridge.call(tool, &json!({}));
        let line = bridge.answer_line(&id);
        assert_eq!(line.value["result"]["text"], "a\u{2028}b\u{2029}c\u{85}d", "{tool}");
    }
    bridge.finish();
}

#[test]
fn ids_of_every_kind_come_back_as_they_are() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let ids = [
        "1000",
        "\"1000\"",
        "0",
        "-7",
        "\"\"",
        "\"a b\"",
        "\"\\u00e4\\n\\u0000\"",
        "9007199254740993",
        "-9223372036854775808",
        "1.5",
        "123456789012345678901234567890",
        "\"123456789012345678901234567890\"",
        "\"\u{1F600}\"",
        "\"null\"",
    ];
    for id in ids {
        bridge.send_line(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/list\"}}"));
    }
    for id in ids {
        let wanted = format!("\"id\":{id},");
        let found = bridge.line_where(crate::support::LIMIT, |line| {
            line.text.contains(&wanted) && line.value.get("result").is_some()
        });
        assert!(found.is_some(), "{id}\n{}", bridge.report());
    }
    let end = bridge.finish();
    // The handshake and these, one each.
    assert_eq!(end.lines.iter().filter(|line| line.value.get("result").is_some()).count(), ids.len() + 1);
}

#[test]
fn a_response_goes_to_the_id_that_asked_and_only_once() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "change").then(|| {
            let other = |id: &str, from: &str| {
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"from\":\"{from}\"}}}}")
            };
            Reply::stream()
                .event(&other("\"5000\"", "a string"))
                .event(&other("4999", "another id"))
                .event(&other("\"never asked\"", "nobody"))
                .event(&other("5000", "the right one"))
                .event(&other("5000", "a duplicate"))
                .event(&call.error(-1, "a duplicate"))
                .end()
        })
    });
    let mut bridge = ready(&server);
    bridge.send_line(r#"{"jsonrpc":"2.0","id":5000,"method":"tools/call","params":{"name":"change"}}"#);
    assert_eq!(bridge.result(&json!(5000))["from"], "the right one");
    bridge.assert_works();
    server.await_listener();
    server.push(&json!({"jsonrpc": "2.0", "id": 5000, "result": {"from": "too late"}}));
    server.push(&json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "evil"}}));
    bridge.assert_works();
    // finish() counts the responses.
    bridge.finish();
}

#[test]
fn an_id_that_is_in_use_is_refused_and_the_first_request_keeps_its_answer() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let call =
        r#"{"jsonrpc":"2.0","id":"twice","method":"tools/call","params":{"name":"sleep","arguments":{"ms":400}}}"#;
    bridge.send_line(call);
    bridge.send_line(call);
    let refusal = bridge.answer(&json!("twice"));
    assert_eq!(refusal["error"]["code"], -32600);
    let end = bridge.finish();
    let results = end.lines.iter().filter(|line| line.value["id"] == "twice" && line.value.get("result").is_some());
    assert_eq!(results.count(), 1);
    assert_eq!(server.executed("sleep"), 1);
}

#[test]
fn the_server_may_ask_the_client_on_either_stream() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let id = bridge.call("ask", &json!({}));
    let question = bridge.server_request("elicitation/create");
    assert_eq!(question["id"], "ask-1");
    bridge.send(&json!({"jsonrpc": "2.0", "id": "ask-1", "result": {"action": "accept", "content": {"x": 1}}}));
    assert_eq!(bridge.result(&id)["structuredContent"]["content"]["x"], 1);

    server.await_listener();
    server.push(&json!({"jsonrpc": "2.0", "id": 77, "method": "roots/list"}));
    let question = bridge.server_request("roots/list");
    assert_eq!(question["id"], 77);
    bridge.send(&json!({"jsonrpc": "2.0", "id": 77, "error": {"code": -32601, "message": "none"}}));
    server.await_count("response", 2);
    assert_eq!(server.responses()[1]["error"]["message"], "none");
    // An answer that nobody asked for goes nowhere.
    bridge.send(&json!({"jsonrpc": "2.0", "id": 77, "result": {}}));
    bridge.assert_works();
    assert_eq!(server.responses().len(), 2);
    bridge.finish();
}

#[test]
fn progress_and_its_answer_come_in_order_and_complete() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let id = bridge.request(
        "tools/call",
        &json!({"name": "progress", "arguments": {"count": 5000}, "_meta": {"progressToken": "p"}}),
    );
    bridge.result(&id);
    let end = bridge.finish();
    let steps: Vec<u64> = end
        .lines
        .iter()
        .filter(|line| line.value["method"] == "notifications/progress")
        .filter_map(|line| line.value["params"]["progress"].as_u64())
        .collect();
    assert_eq!(steps, (1..=5000).collect::<Vec<_>>());
    let last = end.lines.iter().rposition(|line| line.value["method"] == "notifications/progress");
    let answer = end.lines.iter().position(|line| line.value["id"] == id);
    assert!(last < answer, "progress before the answer");
}

/// A message of the modern era passes as it is, with the headers that its body calls for; no session is made up.
#[test]
fn modern_requests_pass_with_their_headers() {
    let server = crate::support::wire::Server::start(|request| {
        let id = request.json()["id"].clone();
        Reply::json(200, json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete"}}).to_string())
    });
    let mut bridge = Setup::new(&format!("{}/mcp", server.origin())).start();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    for name in ["plain", "ä\r\nX-Evil: 1", " padded ", "=?base64?eA==?="] {
        let id = bridge.request("tools/call", &json!({"name": name, "arguments": {}, "_meta": meta}));
        bridge.result(&id);
    }
    let sent = server.requests();
    assert_eq!(sent.len(), 4, "nothing but the four requests\n{}", server.summary());
    let names: Vec<_> = sent.iter().map(|request| request.header("mcp-name").unwrap_or_default().to_owned()).collect();
    assert_eq!(
        names,
        ["plain", "=?base64?w6QNClgtRXZpbDogMQ==?=", "=?base64?IHBhZGRlZCA=?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="]
    );
    for request in &sent {
        assert_eq!(request.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(request.header("mcp-method"), Some("tools/call"));
        assert_eq!(request.header("mcp-session-id"), None);
        assert_eq!(request.header("x-evil"), None);
    }
    bridge.finish();
}

/// What a legacy session sends with every message (2025-11-25 "Session Management", "Protocol Version Header").
#[test]
fn every_message_of_a_session_carries_its_id_and_version() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--header X-Mine:yes").start();
    bridge.handshake();
    bridge.assert_works();
    server.await_listener();
    bridge.finish();
    for request in server.requests().iter().skip(1) {
        assert_eq!(request.header("mcp-session-id"), Some("session-1"), "{} {}", request.method, request.rpc_method());
        assert_eq!(request.header("mcp-protocol-version"), Some(VERSION));
        assert_eq!(request.header("x-mine"), Some("yes"));
    }
}

/// A slow call holds nothing up.
#[test]
fn fast_calls_overtake_slow_ones() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let slow: Vec<Value> = (0..50).map(|_| bridge.call("sleep", &json!({"ms": 4000}))).collect();
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        bridge.assert_works();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(3500), "{took:?}");
    for id in slow {
        bridge.result(&id);
    }
    bridge.finish();
}
