//! What the client writes: bad input is answered and loses nothing (R5), batches (R4), cancellation (R6), order (R7), and
//! every kind of stdin and stdout.

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup, Stdio3};
use crate::support::mcp::{Kind, Mcp};
use crate::support::wire::Reply;
use crate::support::{LIMIT, MIB, eventually, ms, s};

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

/// The `n`th error without an id.
fn nameless_error(bridge: &Bridge, n: usize) -> Value {
    let find = || {
        bridge
            .lines()
            .into_iter()
            .filter(|line| line.value["id"].is_null() && line.value["error"].is_object())
            .nth(n - 1)
    };
    eventually("an error without an id", find).value
}

#[test]
fn bad_lines_are_answered_and_the_stream_goes_on() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let not_json: [&[u8]; 12] = [
        b"hello\n",
        b"{\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"ping\"\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"ping\"} x\n",
        b"{'jsonrpc':'2.0'}\n",
        b"\0\0\0\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"\0\"}\n",
        b"\xff\xfe\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"\xc3\x28\"}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"ping\",\"params\":{\"x\":\"\xed\xa0\x80\"}}\n",
        b"[{\"jsonrpc\":\"2.0\",\"id\":500,\"method\":\"ping\"},\n",
        b"NaN\n",
    ];
    for (n, line) in not_json.iter().enumerate() {
        assert!(bridge.send_bytes(line));
        let error = nameless_error(&bridge, n + 1);
        assert_eq!(error["error"]["code"], -32700, "{:?}: {error}", String::from_utf8_lossy(line));
    }
    bridge.assert_works();
    bridge.finish();
    assert!(!server.requests().iter().any(|request| request.json()["id"] == 500));
}

#[test]
fn wrong_messages_are_answered_with_their_id() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let with_id = [
        r#"{"id":"w","method":"ping"}"#,
        r#"{"jsonrpc":"1.0","id":"w","method":"ping"}"#,
        r#"{"jsonrpc":2.0,"id":"w","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":"w"}"#,
        r#"{"jsonrpc":"2.0","id":"w","method":7}"#,
        r#"{"jsonrpc":"2.0","id":"w","method":"ping","params":7}"#,
        r#"{"jsonrpc":"2.0","id":"w","method":"ping","result":{}}"#,
    ];
    for (n, line) in with_id.iter().enumerate() {
        let line = line.replace("\"w\"", &format!("\"w{n}\""));
        // The driver holds each response against a request; these are answered although they are none.
        bridge.note(&json!({"method": "x", "id": format!("w{n}")}));
        bridge.send_bytes(format!("{line}\n").as_bytes());
        let error = bridge.error(&json!(format!("w{n}")));
        assert_eq!(error["code"], -32600, "{line}: {error}");
    }
    let without_id = [
        "7",
        "\"text\"",
        "null",
        "true",
        "{}",
        "[]",
        "[1]",
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        // A broken response: its id would be the server's, not one that the client waits for.
        r#"{"jsonrpc":"2.0","id":"w","result":{},"error":{"code":1,"message":"x"}}"#,
    ];
    for (n, line) in without_id.iter().enumerate() {
        bridge.send_bytes(format!("{line}\n").as_bytes());
        let error = nameless_error(&bridge, n + 1);
        assert_eq!(error["error"]["code"], -32600, "{line}: {error}");
    }
    bridge.assert_works();
    bridge.finish();
    assert_eq!(server.count("ping"), 0);
}

#[test]
fn line_ends_blank_lines_and_a_byte_order_mark_are_no_trouble() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).start();
    bridge.note(&json!({"method": "x", "id": 1}));
    let first = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    bridge.send_bytes(format!("\u{feff}{first}\r\n\r\n\n  \t \n").as_bytes());
    bridge.result(&json!(1));
    bridge.note(&json!({"method": "x", "id": 2}));
    bridge.send_bytes(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\r\n  {\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}\t\r\n");
    bridge.result(&json!(2));
    let end = bridge.finish();
    assert_eq!(end.lines.len(), 2, "blank lines are no messages: {:#?}", end.lines);
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    bridge.note(&json!({"method": "x", "id": "slow"}));
    for byte in "{\"jsonrpc\":\"2.0\",\"id\":\"slow\",\"method\":\"ping\",\"params\":{\"x\":\"ä😀\"}}\n".bytes() {
        bridge.send_bytes(&[byte]);
        std::thread::sleep(ms(1));
    }
    bridge.result(&json!("slow"));
    bridge.finish();
}

#[test]
fn an_end_inside_a_message_is_an_error_not_silence() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    bridge.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":3,\"meth");
    let end = bridge.finish();
    let errors: Vec<_> = end.lines.iter().filter(|line| line.value["error"]["code"] == -32700).collect();
    assert_eq!(errors.len(), 1, "{:#?}", end.lines);
}

/// Deep nesting is the server's business; the bridge must only live.
#[test]
fn a_message_of_100000_levels_passes() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        // The scripted server cannot read it either.
        let deep = call.request.body.windows(4).filter(|window| window == b"[[[[").count() > 90_000;
        deep.then(|| Reply::json(200, "{\"jsonrpc\":\"2.0\",\"id\":\"deep\",\"result\":{}}"))
    });
    server.on("response", |call| {
        let deep = call.request.body.len() > 200_000;
        deep.then(|| Reply::json(200, "{\"jsonrpc\":\"2.0\",\"id\":\"deep\",\"result\":{}}"))
    });
    let mut bridge = ready(&server);
    bridge.note(&json!({"method": "x", "id": "deep"}));
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"deep\",\"method\":\"tools/call\",\"params\":{{\"name\":\"x\",\"arguments\":{{\"a\":{}{}}}}}}}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(bridge.send_bytes(line.as_bytes()));
    bridge.result(&json!("deep"));
    assert!(bridge.send_bytes(&[b"[".repeat(100_000), b"\n".to_vec()].concat()));
    assert_eq!(nameless_error(&bridge, 1)["error"]["code"], -32700);
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn big_honest_messages_pass_both_ways() {
    let text = "0123456789abcdef".repeat(MIB / 2);
    let line =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":\"big\",\"method\":\"tools/call\",\"params\":{{\"name\":\"{text}\"}}}}");
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"big\",\"result\":{{\"text\":\"{text}\"}}}}");
    for (stdio, as_stream) in [(Stdio3::Pipes, false), (Stdio3::Sockets, true)] {
        let server = Mcp::plain();
        let (sent, answer_text) = (line.clone(), answer.clone());
        server.on("tools/call", move |call| {
            (call.request.body.len() > MIB).then(|| match (call.request.body == sent, as_stream) {
                (false, _) => Reply::status(400),
                (true, false) => Reply::json(200, answer_text.clone()),
                (true, true) => Reply::stream().event(&answer_text).end(),
            })
        });
        let mut bridge = Setup::new(&server.url()).stdio(stdio).start();
        bridge.handshake();
        bridge.note(&json!({"method": "x", "id": "big"}));
        bridge.send_bytes(format!("{line}\n").as_bytes());
        assert!(bridge.answer_line(&json!("big")).text == answer, "{stdio:?}: changed on the way");
        bridge.finish();
    }
}

#[test]
fn a_line_over_the_limit_is_refused_by_its_id_and_not_kept() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    bridge.assert_works();
    bridge.note(&json!({"method": "x", "id": "too long"}));
    bridge.send_bytes(b"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"id\":1,\"x\":\"");
    let megabyte = vec![b'x'; MIB];
    for _ in 0..100 {
        assert!(bridge.send_bytes(&megabyte), "the bridge reads on");
    }
    bridge.send_bytes(b"\"}},\"id\":\"too long\"}\n");
    let error = bridge.error(&json!("too long"));
    assert_eq!(error["code"], -32600);
    assert_eq!(error["data"]["kind"], "too-large");
    assert!(error["message"].as_str().unwrap().contains("--max-message"), "{error}");
    bridge.assert_works();
    if let Some(peak) = bridge.peak_rss() {
        // Up to the limit of 64 MiB a line is held; it must not be held twice over.
        assert!(peak < 160 * MIB, "{} MiB", peak / MIB);
    }
    if let Some(now) = eventually_small(&bridge, 40 * MIB) {
        panic!("{} MiB stay resident", now / MIB);
    }
    bridge.finish();
}

/// The resident size if it does not fall below `limit`.
fn eventually_small(bridge: &Bridge, limit: usize) -> Option<usize> {
    let small = crate::support::within(s(10), || bridge.rss().is_none_or(|rss| rss < limit).then_some(()));
    if small.is_some() { None } else { bridge.rss() }
}

#[test]
fn the_limit_can_be_set() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--max-message 2k").start();
    bridge.handshake();
    let id = bridge.call("echo", &json!({"text": "x".repeat(3000)}));
    assert_eq!(bridge.error(&id)["data"]["kind"], "too-large");
    let id = bridge.call("big", &json!({"bytes": 3000}));
    assert_eq!(bridge.error(&id)["data"]["kind"], "too-large");
    bridge.assert_works();
    bridge.finish();
}

// ---- batches ----

fn batch(bridge: &mut Bridge, ids: &[&str]) {
    let members: Vec<Value> = ids
        .iter()
        .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"id": id}}}))
        .chain([json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})])
        .collect();
    bridge.send(&Value::from(members));
}

#[test]
fn a_batch_is_split_towards_the_server_and_answered_one_by_one() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    batch(&mut bridge, &["b1", "b2", "b3"]);
    for id in ["b1", "b2", "b3"] {
        assert_eq!(bridge.result(&json!(id))["structuredContent"]["id"], id);
    }
    server.await_count("notifications/roots/list_changed", 1);
    assert!(server.requests().iter().all(|request| !request.body.starts_with(b"[")));
    bridge.finish();
}

#[test]
fn a_client_of_2025_03_26_gets_its_batch_answered_as_a_batch() {
    let server = Mcp::start(Kind { version: "2025-03-26", ..Kind::default() });
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake_as("2025-03-26");
    batch(&mut bridge, &["b1", "b2"]);
    let line = bridge.line_where(LIMIT, |line| line.value.is_array()).unwrap_or_else(|| panic!("{}", bridge.report()));
    let mut ids: Vec<_> = line.value.as_array().unwrap().iter().map(|member| member["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!("b1"), json!("b2")]);
    // Members that are no messages are answered in it too.
    bridge.send_line(r#"[{"jsonrpc":"2.0","id":"b3","method":"ping"},1,{"jsonrpc":"2.0","id":"b4","method":"initialize","params":{}}]"#);
    let line = bridge.line_where(LIMIT, |line| line.value.as_array().is_some_and(|members| members.len() == 3));
    let line = line.unwrap_or_else(|| panic!("{}", bridge.report()));
    assert_eq!(line.value.to_string().matches("-32600").count(), 2, "{}", line.text);
    bridge.finish();
}

/// Servers of 2025-03-26 may answer with an array.
#[test]
fn a_batch_of_the_server_is_taken_apart() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "change").then(|| {
            let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":1}}"#;
            Reply::json(200, format!("[{note}, {},{{\"no\":\"message\"}}, 1]", call.result(&json!({"ok": true}))))
        })
    });
    let mut bridge = ready(&server);
    let id = bridge.call("change", &json!({}));
    assert_eq!(bridge.result(&id)["ok"], true);
    bridge.notification("notifications/message");
    let end = bridge.finish();
    assert!(end.lines.iter().all(|line| line.value.is_object()));
}

// ---- cancellation ----

#[test]
fn a_cancelled_request_is_told_to_the_server_frees_its_stream_and_gets_no_answer() {
    for server in [Mcp::plain(), Mcp::streaming()] {
        let mut bridge = ready(&server);
        let id = bridge.call("sleep", &json!({"ms": 1500}));
        server.await_count("tools/call", 1);
        bridge.notify("notifications/cancelled", &json!({"requestId": id, "reason": "enough"}));
        server.await_count("notifications/cancelled", 1);
        server.nth_logged(1, "the call's stream is freed", |logged| {
            logged.request.rpc_method() == "tools/call" && logged.given_up.is_some()
        });
        std::thread::sleep(ms(1600));
        bridge.assert_works();
        let end = bridge.finish();
        assert!(!end.lines.iter().any(|line| line.value["id"] == id), "no late answer: {:#?}", end.lines);
        let told = &server.posts("notifications/cancelled")[0].request.json();
        assert_eq!(told["params"], json!({"requestId": id, "reason": "enough"}));
    }
}

#[test]
fn cancelling_what_is_over_or_unknown_does_nothing() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    let id = bridge.call("echo", &json!({}));
    bridge.result(&id);
    for request in [id, json!("unknown"), json!(1), json!(null), json!({})] {
        bridge.notify("notifications/cancelled", &json!({"requestId": request}));
    }
    bridge.notify("notifications/cancelled", &json!({}));
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn an_id_is_free_again_after_its_cancellation() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    bridge.send(&json!({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {"name": "sleep", "arguments": {"ms": 60_000}}}));
    server.await_count("tools/call", 1);
    bridge.notify("notifications/cancelled", &json!({"requestId": "x"}));
    bridge.send(&json!({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {"name": "echo", "arguments": {"n": 2}}}));
    assert_eq!(bridge.result(&json!("x"))["structuredContent"]["n"], 2);
    bridge.finish();
}

/// Modern era: closing the stream is the signal; there is no message for it over HTTP.
#[test]
fn a_modern_request_is_cancelled_by_closing_its_stream() {
    let server = crate::support::wire::Server::start(|_| Reply::stream().write(": working\n\n").hold());
    let mut bridge = Setup::new(&format!("{}/mcp", server.origin())).start();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let id = bridge.request("tools/call", &json!({"name": "x", "_meta": meta}));
    server.nth_request(1, "the call", |_| true);
    bridge.notify("notifications/cancelled", &json!({"requestId": id, "_meta": meta}));
    server.nth_logged(1, "the stream is closed", |logged| logged.given_up.is_some());
    bridge.finish();
    assert_eq!(server.log().len(), 1, "{}", server.summary());
}

// ---- order ----

#[test]
fn the_handshake_comes_in_order_and_the_notification_stream_before_the_next_request() {
    let server = Mcp::plain();
    server.on("notifications/initialized", |_| {
        Some(Reply::nothing().wait(ms(300)).write("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").end())
    });
    let mut bridge = Setup::new(&server.url()).start();
    // A client in a hurry says everything at once.
    let first = bridge.initialize();
    bridge.initialized();
    let calls: Vec<Value> = (0..5).map(|_| bridge.call("echo", &json!({}))).collect();
    bridge.notify("notifications/roots/list_changed", &json!({}));
    bridge.result(&first);
    for id in &calls {
        bridge.result(id);
    }
    server.await_count("notifications/roots/list_changed", 1);
    let order: Vec<String> = server
        .requests()
        .iter()
        .map(|request| if request.method == "GET" { "GET".to_owned() } else { request.rpc_method() })
        .collect();
    assert_eq!(order[..4], ["initialize", "notifications/initialized", "GET", "tools/call"], "{}", server.summary());
    // The greeting was answered before anything else went out.
    let log = server.log();
    assert!(log[1].done.unwrap() <= log[2].request.at, "{}", server.summary());
    bridge.finish();
}

#[test]
fn a_server_that_never_answers_the_get_or_the_greeting_holds_nothing_up_for_long() {
    let server = Mcp::plain();
    server.on("GET", |_| Some(Reply::nothing().hold()));
    let mut bridge = ready(&server);
    let begun = std::time::Instant::now();
    bridge.assert_works();
    assert!(begun.elapsed() < s(5), "{:?}", begun.elapsed());
    bridge.finish();

    let server = Mcp::plain();
    server.on("notifications/initialized", |_| Some(Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).args("--drain 1").start();
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_notification_without_its_202_is_nothing_to_wait_for_at_the_end() {
    let server = Mcp::plain();
    server.on("notifications/roots/list_changed", |_| Some(Reply::nothing().hold()));
    let mut bridge = ready(&server);
    bridge.notify("notifications/roots/list_changed", &json!({}));
    bridge.assert_works();
    let end = bridge.finish();
    assert!(end.took < s(10), "{:?}", end.took);
}

#[test]
fn notifications_all_arrive() {
    let server = Mcp::plain();
    let mut bridge = ready(&server);
    for n in 0..30 {
        bridge.notify("notifications/progress", &json!({"progressToken": "t", "progress": n}));
    }
    bridge.assert_works();
    server.await_count("notifications/progress", 30);
    bridge.finish();
}

#[test]
fn three_hundred_requests_at_once_are_all_answered() {
    for stdio in [Stdio3::Pipes, Stdio3::Sockets] {
        let server = Mcp::plain();
        let mut bridge = Setup::new(&server.url()).stdio(stdio).start();
        bridge.handshake();
        let ids: Vec<Value> = (0..300).map(|n| bridge.call("echo", &json!({"n": n}))).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(bridge.result(id)["structuredContent"]["n"], n);
        }
        bridge.finish();
    }
}

/// A library that prints must not reach the client: descriptor 1 is not the client's any more.
#[test]
fn what_a_library_prints_does_not_reach_the_client() {
    let server = Mcp::plain();
    for stdio in [Stdio3::Pipes, Stdio3::Sockets] {
        let mut bridge = Setup::new(&server.url()).stdio(stdio).start();
        bridge.handshake();
        let link = |n: u8| std::fs::read_link(format!("/proc/{}/fd/{n}", bridge.pid())).unwrap();
        assert_eq!(link(1), link(2), "{stdio:?}");
        assert_ne!(link(1), link(0), "{stdio:?}");
        let own = |n: u8| std::fs::OpenOptions::new().append(true).open(format!("/proc/{}/fd/{n}", bridge.pid()));
        if stdio == Stdio3::Pipes {
            std::io::Write::write_all(&mut own(1).unwrap(), b"printed\n").unwrap();
        }
        bridge.assert_works();
        let end = bridge.finish();
        assert_eq!(end.stderr.contains("printed"), stdio == Stdio3::Pipes, "{}", end.stderr);
    }
}
