//! Start: `initialize` is answered in time, truthfully, at the cost of one request (S1, S2, S4, S6).

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::{Kind, Mcp};
use crate::support::wire::{Reply, Server};
use crate::support::{TempDir, eventually, ms, s};

fn error_kind(error: &Value) -> (i64, &str) {
    (error["code"].as_i64().unwrap_or_default(), error["data"]["kind"].as_str().unwrap_or_default())
}

/// Every error of the bridge says who speaks, what happened and what to do.
fn assert_for_people(error: &Value) {
    assert_eq!(error["data"]["source"], "mcp-drawbridge", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{error}");
    assert!(error["data"]["hint"].as_str().is_some_and(|text| text.len() > 10), "no hint: {error}");
}

#[test]
fn exactly_one_request_comes_before_the_answer_to_initialize() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).start();
    let id = bridge.initialize();
    bridge.result(&id);
    assert_eq!(server.log().len(), 1, "{}", server.summary());
    let home = Arc::clone(bridge.home());
    bridge.finish();

    // A warm start knows more and asks no more.
    let before = server.log().len();
    let mut bridge = Setup::new(&server.url()).home(&home).start();
    let id = bridge.initialize();
    bridge.result(&id);
    assert_eq!(server.log().len(), before + 1, "{}", server.summary());
    bridge.initialized();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn initialize_goes_out_as_it_came_and_its_answer_comes_back_unchanged() {
    let result = r#"{ "serverInfo":{"name":"s\u0041","version":"1"},"protocolVersion":"2025-11-25","capabilities":{}, "x":1e400, "x":12345678901234567890123}"#;
    let server = Mcp::plain();
    server.on("initialize", move |call| {
        let text = format!("{{\"result\":{result},\"id\":{},\"jsonrpc\":\"2.0\"}}", call.id);
        Some(Reply::response(200, &[("Content-Type", "application/json"), ("Mcp-Session-Id", "s1")], text))
    });
    let mut bridge = Setup::new(&server.url()).start();
    let line = r#"{"id":"a","jsonrpc":"2.0","method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"t","version":"1"},"capabilities":{},"n":0.10}}"#;
    bridge.send_line(line);
    let answer = bridge.answer_line(&json!("a"));
    assert_eq!(answer.text, format!("{{\"result\":{result},\"id\":\"a\",\"jsonrpc\":\"2.0\"}}"));
    assert_eq!(server.requests()[0].body, line);
    bridge.finish();
}

#[test]
fn a_slow_server_is_waited_for() {
    let server = Mcp::plain();
    server.on("initialize", |call| {
        let text = call.result(&json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "slow", "version": "1"}}));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: session-1\r\nContent-Length: {}\r\n\r\n", text.len());
        Some(Reply::nothing().wait(ms(1200)).write(head).write(text).end())
    });
    let mut bridge = Setup::new(&server.url()).start();
    let id = bridge.initialize();
    assert_eq!(bridge.result(&id)["serverInfo"]["name"], "slow");
    assert_eq!(server.count("initialize"), 1, "nobody loses patience: {}", server.summary());
    bridge.finish();
}

#[test]
fn a_server_that_hangs_is_an_error_in_time_and_a_later_initialize_tries_again() {
    let server = Mcp::plain();
    server.on("initialize", |call| (call.n == 1).then(|| Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).args("--initialize-timeout 1").start();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    assert_eq!(error_kind(&error), (-32001, "timeout"));
    assert_for_people(&error);
    let waited = bridge.started.elapsed();
    assert!(waited >= ms(900), "{waited:?}");
    server.nth_logged(1, "the first initialize is given up", |logged| logged.given_up.is_some());
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}

/// What a wrong address answers, and what the client must hear.
#[test]
fn a_definite_failure_is_the_error_answer_to_initialize() {
    let table: [(u16, &str, &str, &str); 6] = [
        (200, "text/html", "<!doctype html><title>Welcome</title>", "not-mcp"),
        (403, "text/plain", "no entry", "forbidden"),
        (404, "text/html", "<html>nothing here</html>", "not-found"),
        (405, "text/plain", "", "not-mcp"),
        (500, "text/plain", "boom", "server-error"),
        (401, "application/json", r#"{"error":"invalid_token","error_description":"expired"}"#, "unauthorized"),
    ];
    for (status, content, body, kind) in table {
        let server = Server::start(move |_| Reply::response(status, &[("Content-Type", content)], body));
        let mut bridge = Setup::new(&format!("{}/mcp", server.origin())).start();
        let id = bridge.initialize();
        let error = bridge.error(&id);
        assert_eq!(error_kind(&error), (-32001, kind), "{error}");
        assert_eq!(error["data"]["status"], status, "{error}");
        assert_for_people(&error);
        // What was sent meanwhile is answered too, and the process goes on.
        let id = bridge.request("tools/list", &json!({}));
        bridge.error(&id);
        assert!(bridge.is_alive());
        bridge.finish();
    }
}

#[test]
fn a_servers_own_error_to_initialize_is_passed_on_unchanged() {
    let server = Mcp::plain();
    server.on("initialize", |call| {
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":-32602,\"message\":\"Unsupported protocol version\",\"data\":{{\"supported\":[\"1\"]}}}}}}",
            call.id
        );
        // Said again after the server was asked whether it is a modern one.
        (call.n <= 2).then(|| Reply::json(400, body))
    });
    let mut bridge = Setup::new(&server.url()).args("--transport http-only").start();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    assert_eq!((&error["code"], &error["data"]["supported"][0]), (&json!(-32602), &json!("1")));
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn an_unknown_host_is_an_error_at_once() {
    let mut bridge = Setup::new("https://nowhere.invalid/mcp").start();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    assert_eq!(error_kind(&error), (-32001, "dns"), "{error}");
    assert_for_people(&error);
    assert!(error["message"].as_str().unwrap().contains("nowhere.invalid"), "{error}");
    assert!(bridge.is_alive());
    bridge.finish();
}

#[test]
fn a_server_that_starts_a_moment_later_is_reached() {
    let mut server = Mcp::down(Kind::default());
    let mut bridge = Setup::new(&server.url()).start();
    let id = bridge.initialize();
    std::thread::sleep(ms(700));
    server.go_up();
    bridge.result(&id);
    bridge.initialized();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_is_down_is_an_error_and_a_later_initialize_tries_again() {
    let mut server = Mcp::down(Kind::default());
    let mut bridge = Setup::new(&server.url()).args("--initialize-timeout 2").start();
    let id = bridge.initialize();
    let early = bridge.request("tools/list", &json!({}));
    let error = bridge.error(&id);
    assert_eq!(error["code"], -32001);
    assert_for_people(&error);
    bridge.error(&early);
    server.go_up();
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
}

fn first_run(server: &Mcp) -> Arc<TempDir> {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge.assert_works();
    let home = Arc::clone(bridge.home());
    bridge.finish();
    home
}

#[test]
fn a_server_that_is_down_is_remembered_and_the_client_hears_when_it_is_back() {
    let mut server = Mcp::plain();
    let home = first_run(&server);
    server.kill();
    server.forget_sessions();
    let mut bridge = Setup::new(&server.url()).home(&home).start();
    let id = bridge.initialize();
    let answer = bridge.answer_line(&id);
    assert_eq!(answer.value["result"]["serverInfo"]["name"], "scripted", "the answer of the last run");
    bridge.initialized();
    let meanwhile = bridge.request("tools/list", &json!({}));
    server.go_up();
    // Its answer is the same as the remembered one, so nothing has changed; what waited is answered, or told soon that it was not.
    bridge.answer(&meanwhile);
    eventually("the server is reached again", || (server.count("notifications/initialized") >= 2).then_some(()));
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_server_that_comes_back_with_another_answer_makes_the_client_look_again() {
    let mut server = Mcp::plain();
    let home = first_run(&server);
    server.kill();
    server.forget_sessions();
    server.on("initialize", |call| {
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "new", "version": "2"}});
        Some(Reply::response(
            200,
            &[("Content-Type", "application/json"), ("Mcp-Session-Id", "new-1")],
            call.result(&result),
        ))
    });
    server.on("*", |call| match call.key {
        "tools/list" => Some(Reply::json(200, call.result(&json!({"tools": []})))),
        "GET" => Some(Reply::status(405)),
        "DELETE" => Some(Reply::status(204)),
        _ => Some(Reply::status(202)),
    });
    let mut bridge = Setup::new(&server.url()).home(&home).start();
    let id = bridge.initialize();
    assert_eq!(bridge.result(&id)["serverInfo"]["name"], "scripted");
    bridge.initialized();
    server.go_up();
    bridge.notification("notifications/tools/list_changed");
    let id = bridge.request("tools/list", &json!({}));
    bridge.result(&id);
    let end = bridge.finish();
    let told = |method: &str| end.lines.iter().filter(|line| line.value["method"] == method).count();
    assert_eq!(told("notifications/tools/list_changed"), 1);
    assert_eq!(told("notifications/prompts/list_changed"), 0, "the server has none");
}

#[test]
fn a_server_that_hangs_is_answered_for_from_memory() {
    let server = Mcp::plain();
    let home = first_run(&server);
    server.on("initialize", |call| (call.n == 2).then(|| Reply::nothing().wait(s(3)).cut()));
    let mut bridge = Setup::new(&server.url()).home(&home).args("--initialize-timeout 1").start();
    let id = bridge.initialize();
    assert_eq!(bridge.result(&id)["serverInfo"]["name"], "scripted");
    assert!(bridge.started.elapsed() >= ms(900), "the truth is waited for first");
    bridge.initialized();
    bridge.assert_works();
    bridge.finish();
}

#[test]
fn a_definite_refusal_is_not_covered_up_by_memory() {
    let server = Mcp::plain();
    let home = first_run(&server);
    server.on("initialize", |_| Some(Reply::status(403)));
    let mut bridge = Setup::new(&server.url()).home(&home).start();
    let id = bridge.initialize();
    assert_eq!(error_kind(&bridge.error(&id)), (-32001, "forbidden"));
    bridge.finish();
}

#[test]
fn what_is_remembered_holds_no_secret_and_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--header X-Key:hunter2").start();
    bridge.handshake();
    let home = Arc::clone(bridge.home());
    bridge.finish();
    let mut stack = vec![home.path().to_owned()];
    let mut files = 0;
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{:?} is open to others", entry.path());
            if entry.path().is_dir() {
                stack.push(entry.path());
            } else {
                files += 1;
                assert!(!String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).contains("hunter2"));
            }
        }
    }
    assert!(files > 0, "something is remembered");
}

#[test]
fn stdin_is_read_while_the_server_hangs() {
    let server = Mcp::plain();
    server.on("initialize", |_| Some(Reply::nothing().hold()));
    let mut bridge = Setup::new(&server.url()).start();
    let first = bridge.initialize();
    // A pipe holds 64 KiB: this much gets through only if somebody reads it.
    let text = "x".repeat(1 << 20);
    let second = bridge.request("ping", &json!({"text": text}));
    let begun = Instant::now();
    bridge.close_stdin();
    bridge.signal(rustix::process::Signal::TERM);
    for id in [first, second] {
        bridge.error(&id);
    }
    bridge.after_end(begun);
}

/// S4. The first request of a host gets the reason as its answer.
#[test]
fn wrong_arguments_are_told_on_stderr_and_to_the_first_request() {
    let table: [(&str, &str); 6] = [
        ("http://127.0.0.1:1/mcp --alow-tool x", "--allow-tool"),
        ("", "URL"),
        ("ftp://example.com/", "ftp"),
        ("http://127.0.0.1:1/mcp --header-file nowhere.txt", "nowhere.txt"),
        ("http://127.0.0.1:1/mcp --header X:${NOT_SET}", "NOT_SET"),
        ("http://127.0.0.1:1/mcp --transport pigeon", "pigeon"),
    ];
    for (args, word) in table {
        let (mut command, home) = Setup::bare(Arc::new(TempDir::new())).args(args).into_command();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the bridge");
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"first\",\"method\":\"initialize\",\"params\":{}}\n");
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(2), "{args}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(word), "{args}: {stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(stdout.trim_end()).unwrap_or_else(|_| panic!("{args}: {stdout:?}"));
        assert_eq!(answer["id"], "first");
        assert_eq!(answer["error"]["data"]["kind"], "usage");
        let told = answer["error"].to_string();
        assert!(told.contains(word), "{args}: {told}");
        drop((stdin, home));
    }
}

#[test]
fn wrong_arguments_without_a_client_end_soon() {
    let (mut command, _home) = Setup::bare(Arc::new(TempDir::new())).args("--nonsense").into_command();
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("the bridge");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(begun.elapsed() < s(20));
}

#[test]
fn a_client_that_connects_anew_gets_a_new_session() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge.assert_works();
    bridge.handshake();
    bridge.assert_works();
    eventually("the first session is ended", || (server.count("DELETE") == 1).then_some(()));
    assert_eq!(server.sessions(), ["session-2"]);
    let _: Bridge = bridge;
}
