//! The sign-in itself: how many requests and tabs it takes, what may go wrong in the middle, and what must not.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use url::Url;

use crate::support::authorization_server::{Endpoint, Protected, Rules, STEP_UP_TOOL};
use crate::support::bridge::{Bridge, Setup};
use crate::support::browser::{self, Browser, with_browser};
use crate::support::mcp::Kind;
use crate::support::wire::Reply;
use crate::support::{TempDir, eventually, s};

/// A bridge with the browser of this home. Its store is a file: keyrings have tests of their own.
pub(crate) fn bridge(server: &Protected, home: &Arc<TempDir>) -> Setup {
    with_browser(Setup::new(&server.url())).home(home).args("--credential-store file")
}

/// A home with a login in it.
pub(crate) fn signed_in(server: &Protected) -> Arc<TempDir> {
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let mut bridge = bridge(server, &home).start();
    bridge.handshake();
    bridge.assert_works();
    bridge.finish();
    assert_eq!(browser.tabs().len(), 1);
    home
}

/// Where the tab of a sign-in comes back to.
fn redirect_uri(tab: &str) -> Url {
    let tab = Url::parse(tab).unwrap();
    let uri = tab.query_pairs().find(|(name, _)| name == "redirect_uri").expect("a redirect URI").1.into_owned();
    Url::parse(&uri).unwrap()
}

/// Nobody listens where the browser comes back to.
fn is_free(tab: &str) -> bool {
    TcpStream::connect(("127.0.0.1", redirect_uri(tab).port().unwrap())).is_err()
}

/// What the MCP server was asked for.
fn targets(server: &Protected) -> Vec<String> {
    server.mcp.requests().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
}

#[test]
fn the_first_time() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let mut bridge = bridge(&server, &home).arg("--debug").start();
    let answer = bridge.handshake();
    assert_eq!(answer["result"]["serverInfo"]["name"], "scripted", "{answer}");
    // No more requests than the specification needs, in its order.
    let mcp = targets(&server);
    let metadata = "GET /.well-known/oauth-protected-resource/mcp";
    assert_eq!(mcp[..3], ["POST /mcp", metadata, "POST /mcp"], "{}", server.summary());
    let authority = server.authority.asked();
    let all = [Endpoint::Metadata, Endpoint::Register, Endpoint::Authorize, Endpoint::Token];
    assert_eq!(authority, all, "{}", server.summary());
    assert_eq!(browser.tabs().len(), 1);
    assert_eq!(server.authority.last_scope(), "read");
    bridge.assert_works();
    let tab = browser.tab(1);
    let end = bridge.finish();
    assert!(is_free(&tab));
    // The tab's address is for the person, and so the `state` in it.
    assert!(end.stderr.contains(&tab), "{}", end.stderr);
    for secret in ["access-1", "refresh-1", "code-1"] {
        assert!(!end.stderr.contains(secret), "{secret} is in the log:\n{}", end.stderr);
    }
}

#[test]
fn the_second_time_costs_nothing() {
    let server = Protected::start();
    let home = signed_in(&server);
    let (mcp, authority) = (server.mcp.log().len(), server.authority.log().len());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    // One request, and its answer, before all else.
    let first = server.mcp.log().into_iter().skip(mcp).collect::<Vec<_>>();
    assert_eq!(first[0].request.rpc_method(), "initialize", "{}", server.summary());
    assert_eq!(first.iter().filter(|logged| logged.request.rpc_method() == "initialize").count(), 1);
    bridge.assert_works();
    bridge.finish();
    assert_eq!(server.authority.log().len(), authority, "the authorization server was asked\n{}", server.summary());
    assert_eq!((browser.tabs().len(), server.authority.counts().unauthorized), (1, 1));
}

#[test]
fn many_clients_at_once_begin_one_sign_in() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    let mut bridges: Vec<Bridge> = (0..8).map(|_| bridge(&server, &home).start()).collect();
    let ids: Vec<_> = bridges.iter_mut().map(Bridge::initialize).collect();
    for (bridge, id) in bridges.iter().zip(&ids) {
        bridge.result(id);
    }
    for mut bridge in bridges {
        bridge.initialized();
        bridge.assert_works();
        bridge.finish();
    }
    let counts = server.authority.counts();
    let seen = (browser.tabs().len(), counts.tabs(), counts.of(Endpoint::Register), counts.codes, counts.refreshed());
    assert_eq!(seen, (1, 1, 1, 1, 0), "{}", server.summary());
}

#[test]
fn a_process_that_dies_in_the_middle_leaves_the_tab_to_the_next() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut first = bridge(&server, &home).start();
    first.initialize();
    let tab = browser.tab(1);
    eventually("the port", || (!is_free(&tab)).then_some(()));
    drop(first); // Killed.
    let mut second = bridge(&server, &home).start();
    let id = second.initialize();
    let page = eventually("the port of the second", || browser::visit(&tab));
    assert!(page.status == 200 && page.body.contains("You are signed in"), "{page:?}");
    second.result(&id);
    second.initialized();
    second.assert_works();
    second.finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.of(Endpoint::Register), counts.codes), (1, 1, 1), "{}", server.summary());
}

#[test]
fn a_tab_that_its_process_did_not_come_to_open_is_opened_by_the_next() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut first = bridge(&server, &home).start();
    first.initialize();
    let tab = browser.tab(1);
    drop(first); // Killed.
    // As if it had been killed between the store and the browser.
    let locks = home.path().join("state/locks");
    let notes: Vec<_> = std::fs::read_dir(&locks)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "tab"))
        .collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    std::fs::write(&notes[0], "").unwrap();
    let mut second = bridge(&server, &home).start();
    second.initialize();
    assert_eq!(browser.tab(2), tab, "the same sign-in");
    drop(second);
    // It was opened now.
    let mut third = bridge(&server, &home).start();
    let id = third.initialize();
    let page = eventually("the port of the third", || browser::visit(&tab));
    assert_eq!(page.status, 200, "{page:?}");
    third.result(&id);
    third.finish();
    assert_eq!((browser.tabs().len(), server.authority.counts().codes), (2, 1), "{}", server.summary());
}

#[test]
fn one_that_waits_takes_over_from_one_that_dies() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut first = bridge(&server, &home).start();
    first.initialize();
    let tab = browser.tab(1);
    let mut others: Vec<Bridge> = (0..3).map(|_| bridge(&server, &home).start()).collect();
    let ids: Vec<_> = others.iter_mut().map(Bridge::initialize).collect();
    // All of them have been refused, so they wait.
    server.mcp.await_count("initialize", 4);
    drop(first);
    let page = eventually("the port of another", || browser::visit(&tab));
    assert!(page.body.contains("You are signed in"), "{page:?}");
    for (bridge, id) in others.iter().zip(&ids) {
        bridge.result(id);
    }
    for bridge in others {
        bridge.finish();
    }
    assert_eq!((browser.tabs().len(), server.authority.counts().codes), (1, 1), "{}", server.summary());
}

#[test]
fn the_end_of_the_client_ends_a_sign_in() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).start();
    let id = bridge.initialize();
    let tab = browser.tab(1);
    eventually("the port", || (!is_free(&tab)).then_some(()));
    let begun = Instant::now();
    bridge.close_stdin();
    let end = bridge.after_end(begun);
    assert!(end.took < s(10), "{:?}", end.took);
    assert!(end.lines.iter().any(|line| line.value["id"] == id && line.value["error"].is_object()));
    assert!(is_free(&tab));
}

#[test]
fn what_is_not_the_answer_is_ignored() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).start();
    let id = bridge.initialize();
    let tab = browser.tab(1);
    let end = browser::visit_until(&tab, redirect_uri(&tab).as_str());
    let right = Url::parse(&end).unwrap();
    let with = |query: &str| {
        let mut url = right.clone();
        url.set_query(Some(query));
        url
    };
    let state = right.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let mut elsewhere = right.clone();
    elsewhere.set_path("/other");
    let forged = [
        ("GET", with("code=evil&state=0123456789012345678901"), ""),
        ("GET", with("code=evil"), ""),
        ("GET", with("error=access_denied&state=x"), ""),
        ("GET", elsewhere, ""),
        ("GET", right.clone(), "Host: evil.example\r\n"),
        ("POST", right.clone(), "Content-Length: 0\r\n"),
        ("GET", with(&format!("code=a&code=b&state={state}")), ""),
    ];
    for (method, url, headers) in forged {
        let page = browser::request(method, &url, headers).expect("a page");
        assert!((400..500).contains(&page.status), "{method} {url}: {page:?}");
        assert!(!page.body.contains("evil") && !page.body.contains(&state), "{page:?}");
    }
    assert_eq!(server.authority.counts().of(Endpoint::Token), 0, "{}", server.summary());
    let page = browser::visit(&end).expect("the page");
    assert_eq!(page.status, 200, "{page:?}");
    bridge.result(&id);
    bridge.finish();
    assert_eq!(server.authority.counts().codes, 1);
}

#[test]
fn a_denied_sign_in_is_answered_and_can_be_tried_again() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::eager(&home);
    server.authority.deny(true);
    let mut bridge = bridge(&server, &home).start();
    let begun = Instant::now();
    // In place of the server's own answer, so that the client does not give the server up.
    bridge.handshake();
    let id = bridge.call("echo", &json!({}));
    let error = bridge.error(&id);
    assert!(begun.elapsed() < s(10), "{:?}", begun.elapsed());
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("denied") && text.contains("/authorize?"), "{error}");
    assert_eq!(error["data"]["kind"], "sign-in", "{error}");
    let id = bridge.request("tools/list", &json!({}));
    let tools = bridge.result(&id)["tools"].clone();
    assert_eq!((tools[0]["name"].as_str(), tools.as_array().map(Vec::len)), (Some("sign_in"), Some(1)), "{tools}");
    assert!(tools[0]["description"].as_str().unwrap().contains("denied"), "the reason is told: {tools}");
    assert_eq!(browser.tabs().len(), 1, "no tab without a wish of the user");
    // The user changes their mind.
    server.authority.deny(false);
    sign_in_by_tool(&mut bridge);
    assert_eq!(browser.tabs().len(), 2);
    bridge.finish();
}

/// Calls the tool that is listed, and waits until the server's own tools can be had.
fn sign_in_by_tool(bridge: &mut Bridge) {
    let id = bridge.request("tools/list", &json!({}));
    assert!(bridge.result(&id).to_string().contains("sign_in"), "{}", bridge.report());
    let id = bridge.call("sign_in", &json!({}));
    bridge.result(&id);
    bridge.notification("notifications/tools/list_changed");
    let id = bridge.request("tools/list", &json!({}));
    assert!(bridge.result(&id).to_string().contains("echo"), "{}", bridge.report());
    bridge.assert_works();
}

#[test]
fn a_sign_in_that_is_denied_is_denied_in_all_windows() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    server.authority.deny(true);
    let mut windows: Vec<Bridge> = (0..4).map(|_| bridge(&server, &home).start()).collect();
    let ids: Vec<_> = windows.iter_mut().map(Bridge::initialize).collect();
    let tab = browser.tab(1);
    // All of them know of it.
    for window in &windows {
        eventually("the address on stderr", || window.stderr().contains("/authorize?").then_some(()));
    }
    browser::visit(&tab).expect("the page");
    for (window, id) in windows.iter_mut().zip(&ids) {
        window.result(id);
        let id = window.request("resources/list", &json!({}));
        assert_eq!(window.error(&id)["data"]["kind"], "sign-in");
    }
    assert_eq!(browser.tabs().len(), 1, "one no is enough");
    for window in windows {
        window.finish();
    }
}

#[test]
fn more_scope_is_asked_for_when_a_tool_wants_it() {
    let server = Protected::start();
    let home = signed_in(&server);
    let _browser = Browser::eager(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    let id = bridge.call(STEP_UP_TOOL, &json!({}));
    let result = bridge.result(&id);
    assert_eq!(result["structuredContent"]["scope"], "read admin", "{result}");
    bridge.assert_works();
    let id = bridge.call(STEP_UP_TOOL, &json!({}));
    bridge.result(&id);
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.of(Endpoint::Register)), (2, 1), "{}", server.summary());
}

/// Its authorization server signs in without a person, so nobody sees how often.
#[test]
fn a_server_that_wants_more_with_each_request_opens_few_tabs() {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::eager(&home);
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", server.mcp.origin());
    let wanted = AtomicUsize::new(0);
    server.mcp.on("tools/call", move |_| {
        let n = wanted.fetch_add(1, Ordering::Relaxed);
        if n % 2 == 1 {
            return None; // content, until the next call
        }
        let field = format!("Bearer error=\"insufficient_scope\", scope=\"more{n}\", resource_metadata=\"{metadata}\"");
        Some(Reply::response(403, &[("WWW-Authenticate", &field)], "{}"))
    });
    let mut bridge = bridge(&server, &home).args("--hold 1").start();
    bridge.handshake();
    for _ in 0..5 {
        let id = bridge.call("echo", &json!({}));
        bridge.result(&id);
    }
    let id = bridge.call("echo", &json!({}));
    assert_eq!(bridge.error(&id)["data"]["kind"], "sign-in");
    bridge.finish();
    assert_eq!(browser.tabs().len(), 1 + 5, "{}", server.summary());
}

#[test]
fn a_static_authorization_means_no_sign_in() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let browser = Browser::idle(&home);
    let setup = bridge(&server, &home).arg("--header").arg("Authorization: Bearer of-the-user");
    let mut bridge = setup.start();
    let id = bridge.initialize();
    let error = bridge.error(&id);
    let says = error.to_string();
    assert!(says.contains("401") && says.contains("header that you gave"), "it says whose token was refused: {error}");
    bridge.finish();
    assert!(browser.tabs().is_empty());
    assert!(server.authority.log().is_empty(), "{}", server.summary());
}

#[test]
fn headers_of_the_user_stay_with_the_mcp_server() {
    let server = Protected::start();
    let home = Arc::new(TempDir::new());
    let _browser = Browser::eager(&home);
    let mut bridge = bridge(&server, &home).arg("--header").arg("X-Api-Key: of-the-user").start();
    bridge.handshake();
    bridge.assert_works();
    let end = bridge.finish();
    let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("of-the-user");
    assert!(server.authority.requests().iter().all(|request| !has(&request.all_bytes())));
    assert!(server.mcp.requests().iter().any(|request| has(&request.all_bytes())));
    assert!(!end.stderr.contains("of-the-user"));
}

#[test]
fn clients_with_a_secret() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let rules = Rules { client_authentication: method, ..Rules::default() };
        let server = Protected::with(Kind::default(), rules);
        let home = signed_in(&server);
        server.authority.expire_access_tokens();
        let mut bridge = bridge(&server, &home).start();
        bridge.handshake();
        bridge.finish();
        assert_eq!(server.authority.counts().refreshed(), 1, "{method}\n{}", server.summary());
    }
}

#[test]
fn what_hinders_a_sign_in_is_told() {
    // Endpoint, reply, and what the error says.
    type Hindrance = (Endpoint, fn() -> Reply, &'static str);
    let hindrances: [Hindrance; 6] = [
        (Endpoint::Metadata, || Reply::status(404), "authorization server"),
        (Endpoint::Register, || Reply::json(400, r#"{"error":"invalid_redirect_uri"}"#), "redirect URI"),
        (Endpoint::Register, || Reply::json(403, "{}"), "regist"),
        (Endpoint::Token, || Reply::json(400, r#"{"error":"invalid_grant"}"#), "invalid_grant"),
        (Endpoint::Token, || Reply::json(503, "{}"), "503"),
        (Endpoint::Token, || Reply::response(200, &[("Content-Type", "text/html")], "<h1>what?</h1>"), "token"),
    ];
    for (endpoint, reply, says) in hindrances {
        let server = Protected::start();
        server.authority.on(endpoint, move |_, _| Some(reply()));
        let home = Arc::new(TempDir::new());
        let _browser = Browser::eager(&home);
        let mut bridge = bridge(&server, &home).arg("--debug").start();
        let id = bridge.initialize();
        let answer = bridge.answer(&id);
        // Once a person was asked, the client gets a provisional answer, and the reason later.
        let told = if answer["error"].is_object() {
            answer.to_string()
        } else {
            bridge.initialized();
            let id = bridge.request("tools/list", &json!({}));
            bridge.result(&id).to_string()
        };
        assert!(told.contains(says), "{endpoint:?}: {told}\n{}\n{}", bridge.report(), server.summary());
        // It is no end: what was wrong may be mended.
        server.authority.behave();
        if answer["error"].is_object() {
            bridge.handshake();
        }
        // No second tab by itself, if there was a first.
        let id = bridge.call("echo", &json!({}));
        if bridge.answer(&id)["error"].is_object() {
            sign_in_by_tool(&mut bridge);
        }
        bridge.assert_works();
        bridge.finish();
    }
}
