//! What a client sees while nobody has signed in yet (product rules S2, S3), with the real binary.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::flow::{bridge, signed_in};
use crate::support::TempDir;
use crate::support::authorization_server::{Endpoint, Protected, STEP_UP_TOOL};
use crate::support::bridge::Bridge;
use crate::support::browser::{self, Browser};
use crate::support::s;

/// Limits that a test can wait for.
const SHORT: &str = "--initialize-timeout 1 --hold 1";

/// The names of the tools that the client is shown.
fn tools(bridge: &mut Bridge) -> Vec<String> {
    let id = bridge.request("tools/list", &json!({}));
    let list = bridge.result(&id);
    let tools = list["tools"].as_array().expect("a list");
    tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
}

/// What a call of the tool `sign_in` says.
fn sign_in(bridge: &mut Bridge, arguments: &Value) -> (String, bool) {
    let id = bridge.call("sign_in", arguments);
    let result = bridge.result(&id);
    let text = result["content"][0]["text"].as_str().expect("a text").to_owned();
    (text, result["isError"].as_bool().expect("said"))
}

#[test]
fn a_client_is_answered_and_told_when_the_person_takes_their_time() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).args(SHORT).start();
    let begun = Instant::now();
    let answer = bridge.handshake();
    assert!(begun.elapsed() >= s(1), "the truth is worth a wait");
    assert_eq!(answer["result"]["serverInfo"]["name"], "127.0.0.1", "{answer}");
    assert_eq!(tools(&mut bridge), ["sign_in"]);
    let tab = browser.tab(1);
    let id = bridge.call("echo", &json!({}));
    let error = bridge.error(&id);
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32001), &json!("sign-in")), "{error}");
    assert!(error["message"].as_str().unwrap().contains(&tab), "{error}");
    let (text, is_error) = sign_in(&mut bridge, &json!({}));
    assert!(text.contains(&tab) && !is_error, "{text}");
    // The person comes at last.
    assert_eq!(browser::visit(&tab).expect("a page").status, 200);
    bridge.notification("notifications/tools/list_changed");
    assert!(tools(&mut bridge).contains(&"echo".to_owned()));
    bridge.assert_works();
    let (text, is_error) = sign_in(&mut bridge, &json!({}));
    assert!(text.starts_with("Signed in") && !is_error, "{text}");
    bridge.finish();
    assert_eq!(browser.tabs().len(), 1);
    // What was given up is not carried out behind the client's back.
    assert!(server.mcp.posts("tools/call").iter().all(|logged| logged.request.json()["id"] != id));
}

#[test]
fn a_browser_on_another_machine_ends_at_an_address_that_can_be_pasted() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).args(SHORT).arg("--debug").start();
    bridge.handshake();
    let tab = browser.tab(1);
    let end = browser::visit_until(&tab, "http://localhost");
    let (text, is_error) = sign_in(&mut bridge, &json!({"redirect_url": format!("{end}x")}));
    assert!(is_error, "{text}");
    let (text, is_error) = sign_in(&mut bridge, &json!({"redirect_url": end}));
    assert!(text.starts_with("Signed in") && !is_error, "{text}");
    bridge.assert_works();
    let end_of_it = bridge.finish();
    assert_eq!(server.authority.counts().of(Endpoint::Token), 1, "{}", server.summary());
    assert!(!end_of_it.stderr.contains("code-1"), "{}", end_of_it.stderr);
    let refusal = "the server answers HTTP 401 to a request without a credential; WWW-Authenticate: Bearer with resource_metadata";
    assert!(end_of_it.stderr.contains(refusal), "{}", end_of_it.stderr);
    assert!(server.mcp.requests().iter().all(|request| !String::from_utf8_lossy(&request.body).contains("code-1")));
}

#[test]
fn a_client_that_takes_addresses_is_asked_to_open_one() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).args(SHORT).start();
    let id = bridge.request(
        "initialize",
        &json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}}, "clientInfo": {"name": "Asker", "version": "1"}}),
    );
    bridge.result(&id);
    bridge.initialized();
    let tab = browser.tab(1);
    let question = bridge.server_request("elicitation/create");
    assert_eq!(question["params"]["url"], tab, "{question}");
    bridge.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}));
    browser::visit(&tab).expect("a page");
    let done = bridge.notification("notifications/elicitation/complete");
    assert_eq!(done["params"]["elicitationId"], question["params"]["elicitationId"]);
    bridge.assert_works();
    bridge.finish();
    assert!(server.mcp.requests().iter().all(|request| !String::from_utf8_lossy(&request.body).contains("accept\"")));
}

#[test]
fn a_call_that_wants_more_scope_holds_up_no_other() {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::idle(&home);
    let before = browser.tabs().len();
    let mut bridge = bridge(&server, &home).args(SHORT).start();
    bridge.handshake();
    let slow = bridge.call("sleep", &json!({"ms": 3000}));
    let wants = bridge.call(STEP_UP_TOOL, &json!({}));
    let error = bridge.error(&wants);
    assert_eq!(error["data"]["kind"], "sign-in", "{error}");
    let tab = browser.tab(before + 1);
    assert!(error["message"].as_str().unwrap().contains(&tab), "{error}");
    bridge.assert_works();
    bridge.result(&slow);
    browser::visit(&tab).expect("a page");
    let again = bridge.call(STEP_UP_TOOL, &json!({}));
    bridge.result(&again);
    bridge.finish();
}
