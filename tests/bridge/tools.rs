//! Tool rules (P1): what the client may see, it may call, and nothing else.

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::Mcp;
use crate::support::wire::Reply;

fn ready(server: &Mcp, args: &str) -> Bridge {
    let mut bridge = Setup::new(&server.url()).args(args).start();
    bridge.handshake();
    bridge
}

fn listed(bridge: &mut Bridge) -> Vec<String> {
    let id = bridge.request("tools/list", &json!({}));
    let result = bridge.result(&id);
    result["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lists_and_calls_follow_the_same_rules() {
    let table: [(&str, &[&str]); 6] = [
        ("--allow-tool echo", &["echo"]),
        ("--allow-tool E* --allow-tool *IG", &["echo", "big"]),
        ("--ignore-tool *", &[]),
        ("--ignore-tool c* --ignore-tool a*", &["echo", "sleep", "big", "progress"]),
        ("--allow-tool *e* --ignore-tool *ee*", &["echo", "change", "progress"]),
        ("--read-only", &["echo", "big"]),
    ];
    let all = ["echo", "change", "again", "sleep", "big", "progress", "ask"];
    for (args, visible) in table {
        let server = Mcp::plain();
        let mut bridge = ready(&server, args);
        assert_eq!(listed(&mut bridge), visible, "{args}");
        for tool in all {
            if visible.contains(&tool) && matches!(tool, "echo" | "change" | "big") {
                let id = bridge.call(tool, &json!({}));
                bridge.result(&id);
            } else if !visible.contains(&tool) {
                let id = bridge.call(tool, &json!({}));
                let error = bridge.error(&id);
                assert_eq!(error["code"], -32602, "{args}: {tool}: {error}");
                assert!(error["message"].as_str().unwrap().contains("not available"), "{error}");
                assert_eq!(server.executed(tool), 0, "{args}: {tool} reached the server");
            }
        }
        bridge.finish();
    }
}

/// The client need not have listed anything: the bridge finds out for itself, over all pages.
#[test]
fn read_only_holds_for_a_client_that_never_lists() {
    let server = Mcp::plain();
    server.on("tools/list", |call| {
        let page = call.message["params"]["cursor"].as_str().unwrap_or("0").parse::<usize>().unwrap();
        let tools: Vec<Value> = crate::support::mcp::tools().as_array().unwrap()[page..=page].to_vec();
        let mut result = json!({"tools": tools});
        if page < 6 {
            result["nextCursor"] = (page + 1).to_string().into();
        }
        Some(Reply::json(200, call.result(&result)))
    });
    let mut bridge = ready(&server, "--read-only");
    let (change, big, unknown) =
        (bridge.call("change", &json!({})), bridge.call("big", &json!({"bytes": 3})), bridge.call("none", &json!({})));
    bridge.error(&change);
    bridge.result(&big);
    bridge.error(&unknown);
    assert_eq!(server.executed("change"), 0);
    bridge.finish();
}

#[test]
fn read_only_refuses_what_cannot_be_found_out() {
    let server = Mcp::plain();
    server.on("tools/list", |_| Some(Reply::status(500)));
    let mut bridge = ready(&server, "--read-only");
    let id = bridge.call("echo", &json!({}));
    bridge.error(&id);
    assert_eq!(server.executed("echo"), 0);
    bridge.finish();
}

/// What is hidden is hidden however the server writes it.
#[test]
fn names_in_escapes_and_odd_lists_do_not_get_past_the_rules() {
    let server = Mcp::plain();
    server.on("tools/list", |call| {
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"x\":1e400,\"tools\":[ {{\"name\":\"\\u0063hange\",\"inputSchema\":{{}}}},{{\"noname\":1}},\"text\",{{\"name\":\"echo\",\"inputSchema\":{{\"n\":1.0}}}} ],\"y\":2}}}}",
            call.id
        );
        Some(Reply::json(200, text))
    });
    let mut bridge = ready(&server, "--ignore-tool change");
    let id = bridge.request("tools/list", &json!({}));
    let line = bridge.answer_line(&id);
    assert!(
        line.text.contains("{\"x\":1e400,\"tools\":[{\"name\":\"echo\",\"inputSchema\":{\"n\":1.0}}],\"y\":2}"),
        "{}",
        line.text
    );
    let id_text = r#"{"jsonrpc":"2.0","id":"e","method":"tools/call","params":{"name":"ch\u0061nge"}}"#;
    bridge.send_line(id_text);
    bridge.error(&json!("e"));
    for odd in [json!({}), json!({"name": 7}), json!({"name": null})] {
        let id = bridge.request("tools/call", &odd);
        bridge.error(&id);
    }
    bridge.send_line(r#"{"jsonrpc":"2.0","id":"dup","method":"tools/call","params":{"name":"echo","name":"change"}}"#);
    bridge.answer(&json!("dup"));
    assert_eq!(server.executed("change"), 0);
    bridge.finish();
}

#[test]
fn the_rules_hold_in_a_batch_and_for_the_modern_era() {
    let server = Mcp::plain();
    let mut bridge = ready(&server, "--allow-tool echo");
    bridge.send(&json!([
        {"jsonrpc": "2.0", "id": "b1", "method": "tools/call", "params": {"name": "change", "arguments": {}}},
        {"jsonrpc": "2.0", "id": "b2", "method": "tools/call", "params": {"name": "echo", "arguments": {}}},
    ]));
    bridge.error(&json!("b1"));
    bridge.result(&json!("b2"));
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let id = bridge.request("tools/call", &json!({"name": "change", "_meta": meta}));
    bridge.error(&id);
    assert_eq!(server.executed("change"), 0);
    bridge.finish();
}
