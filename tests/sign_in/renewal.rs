//! Tokens are renewed once, whoever notices first, and nothing but a definite refusal ends a login.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::flow::{bridge, signed_in};
use crate::support::authorization_server::{Endpoint, Protected};
use crate::support::bridge::{Bridge, Setup};
use crate::support::browser::{Browser, with_browser};
use crate::support::wire::Reply;
use crate::support::{ms, s};

fn calls(bridge: &mut Bridge, n: usize) {
    let ids: Vec<_> = (0..n).map(|n| bridge.call("echo", &json!({"n": n}))).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(bridge.result(id)["structuredContent"]["n"], n, "{}", bridge.report());
    }
}

#[test]
fn a_refused_token_is_renewed_once_for_all_calls() {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    for round in 1..=3 {
        server.authority.expire_access_tokens();
        calls(&mut bridge, 8);
        assert_eq!(server.authority.counts().refreshed(), round, "{}", server.summary());
    }
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.reused, counts.dead), (1, 0, 0));
}

#[test]
fn a_token_that_ends_is_renewed_in_time() {
    let server = Protected::start();
    server.authority.set(|rules| rules.lifetime = s(3));
    let home = signed_in(&server);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    let begun = std::time::Instant::now();
    while begun.elapsed() < s(8) {
        calls(&mut bridge, 2);
        std::thread::sleep(ms(100));
    }
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!(counts.unauthorized, 1, "a call met a token that had ended\n{}", server.summary());
    assert!((2..=12).contains(&counts.refreshed()), "{counts:?}");
    assert_eq!((counts.reused, counts.dead, counts.tabs()), (0, 0, 1));
}

#[test]
fn processes_redeem_a_token_once() {
    let server = Protected::start();
    let home = signed_in(&server);
    let mut bridges: Vec<Bridge> = (0..8).map(|_| bridge(&server, &home).start()).collect();
    for bridge in &mut bridges {
        bridge.handshake();
    }
    for round in 1..=3 {
        server.authority.expire_access_tokens();
        let ids: Vec<_> = bridges.iter_mut().map(|bridge| bridge.call("echo", &json!({"round": round}))).collect();
        for (bridge, id) in bridges.iter().zip(&ids) {
            bridge.result(id);
        }
        assert_eq!(server.authority.counts().refreshed(), round, "{}", server.summary());
    }
    for bridge in bridges {
        bridge.finish();
    }
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.reused, counts.dead), (1, 0, 0));
}

/// A token endpoint that is in trouble for a while.
fn in_trouble(name: &str, reply: fn() -> Reply) {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::idle(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    server.authority.expire_access_tokens();
    server.authority.on(Endpoint::Token, move |_, _| Some(reply()));
    let id = bridge.call("echo", &json!({}));
    let answer = bridge.answer(&id);
    // It may be held until the trouble is over; it must not become a wish for a sign-in.
    assert!(!answer["error"]["message"].to_string().contains("sign in"), "{name}: {answer}");
    server.authority.behave();
    let works = crate::support::within(s(30), || {
        let id = bridge.call("echo", &json!({}));
        bridge.answer(&id).get("result").is_some().then_some(())
    });
    assert!(works.is_some(), "{name}\n{}\n{}", bridge.report(), server.summary());
    bridge.finish();
    let counts = server.authority.counts();
    let seen = (browser.tabs().len(), counts.refreshed(), counts.reused, counts.dead);
    assert_eq!(seen, (1, 1, 0, 0), "{name}\n{}", server.summary());
}

#[test]
fn trouble_at_the_token_endpoint_ends_no_login() {
    type Case = (&'static str, fn() -> Reply);
    let cases: [Case; 7] = [
        ("500", || Reply::json(500, r#"{"error":"server_error"}"#)),
        ("503", || Reply::response(503, &[("Retry-After", "1")], "")),
        ("429", || Reply::response(429, &[("Retry-After", "1")], "")),
        ("reset", || Reply::nothing().reset()),
        ("no answer", Reply::nothing),
        ("not JSON", || Reply::response(200, &[("Content-Type", "text/html")], "<h1>Maintenance</h1>")),
        ("opaque", || Reply::json(400, r#"{"code":17,"message":"try later"}"#)),
    ];
    crate::support::all_at_once(&cases, 4, |case| case.0.to_owned(), |case| in_trouble(case.0, case.1));
}

#[test]
fn a_slow_token_endpoint_is_waited_for() {
    let server = Protected::start();
    let home = signed_in(&server);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    server.authority.expire_access_tokens();
    server.authority.on_tokens(|_, reply| Reply::nothing().wait(Duration::from_secs(2)).followed_by(reply));
    calls(&mut bridge, 8);
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.refreshed(), counts.tabs(), counts.reused), (1, 1, 0));
}

#[test]
fn a_client_that_leaves_does_not_tear_a_redemption_apart() {
    let server = Protected::start();
    let home = signed_in(&server);
    let mut first = bridge(&server, &home).start();
    first.handshake();
    server.authority.expire_access_tokens();
    server.authority.on_tokens(|_, reply| Reply::nothing().wait(ms(1500)).followed_by(reply));
    first.call("echo", &json!({}));
    server.authority.nth_request(2, "the refresh", |request| request.target == "/token");
    first.finish();
    server.authority.behave();
    let mut second = bridge(&server, &home).start();
    second.handshake();
    second.assert_works();
    second.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.reused, counts.dead), (1, 0, 0), "{}", server.summary());
}

#[test]
fn a_dead_refresh_token_is_sent_once() {
    let server = Protected::start();
    let home = signed_in(&server);
    server.authority.end_logins();
    for round in 0..3 {
        let browser = Browser::idle(&home);
        let mut bridge = bridge(&server, &home).start();
        bridge.initialize();
        browser.tab(2);
        assert_eq!(server.authority.counts().dead, 1, "round {round}\n{}", server.summary());
        drop(bridge);
    }
    // The tab of the first is still good.
    let browser = Browser::idle(&home);
    assert_eq!(browser.tabs().len(), 2);
    let mut bridge = bridge(&server, &home).start();
    let id = bridge.initialize();
    crate::support::eventually("the port", || crate::support::browser::visit(&browser.tab(2)));
    bridge.result(&id);
    bridge.finish();
    assert_eq!(server.authority.counts().dead, 1);
}

#[test]
fn a_login_that_ended_is_begun_anew() {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::eager(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    server.authority.end_logins();
    calls(&mut bridge, 8);
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.dead, counts.reused, counts.codes), (2, 1, 0, 2), "{}", server.summary());
}

#[test]
fn a_client_that_is_forgotten_registers_again() {
    let server = Protected::start();
    let home = signed_in(&server);
    let browser = Browser::eager(&home);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    server.authority.forget_clients();
    server.authority.expire_access_tokens();
    calls(&mut bridge, 2);
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((browser.tabs().len(), counts.of(Endpoint::Register)), (2, 2), "{}", server.summary());
}

#[test]
fn another_home_is_another_user() {
    let server = Protected::start();
    let one = signed_in(&server);
    let other = signed_in(&server);
    assert_eq!(server.authority.counts().of(Endpoint::Register), 2);
    for home in [one, other] {
        let mut bridge = bridge(&server, &Arc::clone(&home)).start();
        bridge.handshake();
        bridge.finish();
    }
    assert_eq!(server.authority.counts().tabs(), 2);
}

/// A program that is updated while bridges run. The new one may not know the errand's order, or be too old to know errands at all.
#[cfg(unix)]
#[test]
fn a_program_that_was_replaced_does_not_stop_renewals() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Protected::start();
    let home = signed_in(&server);
    let program = home.path().join("replaced");
    std::fs::copy(env!("CARGO_BIN_EXE_mcp-drawbridge"), &program).unwrap();
    let setup = Setup::program(program.to_str().unwrap(), &home).arg(server.url()).args("--credential-store file");
    let mut bridge = with_browser(setup).start();
    bridge.handshake();
    let replace = |name: &str, text: &str| {
        let new = home.path().join(name);
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::rename(new, &program).unwrap();
    };
    let other =
        format!("#!/bin/sh\ncat >/dev/null\necho '[{{}},{{}}]' | {} \"$@\"\n", env!("CARGO_BIN_EXE_mcp-drawbridge"));
    for (round, text) in ["#!/bin/sh\nexit 2\n", &other].into_iter().enumerate() {
        replace("new", text);
        server.authority.expire_access_tokens();
        calls(&mut bridge, 2);
        assert_eq!(server.authority.counts().refreshed(), round + 1, "{}", server.summary());
    }
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.reused, counts.dead), (1, 0, 0));
}

/// A keyring that is locked, or away, in the middle of a run, is like that for the process that asks the token endpoint, too.
#[test]
fn a_key_that_is_lost_meanwhile_ends_no_login() {
    let server = Protected::start();
    let home = signed_in(&server);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    for entry in std::fs::read_dir(home.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("credentials.key-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    for round in 1..=2 {
        server.authority.expire_access_tokens();
        calls(&mut bridge, 2);
        assert_eq!(server.authority.counts().refreshed(), round, "{}", server.summary());
    }
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.reused, counts.dead), (1, 0, 0));
}

/// Without files to open it can neither read the store nor take its lock. That passes, and ends no login.
#[cfg(target_os = "linux")]
#[test]
fn a_process_without_files_to_open_keeps_its_login() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let server = Protected::start();
    let home = signed_in(&server);
    let mut bridge = bridge(&server, &home).start();
    bridge.handshake();
    let pid = Pid::from_raw(i32::try_from(bridge.pid()).unwrap());
    let open = u64::try_from(std::fs::read_dir(format!("/proc/{}/fd", bridge.pid())).unwrap().count()).unwrap();
    server.authority.expire_access_tokens();
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(open + 2), maximum: most }).unwrap();
    let id = bridge.call("echo", &json!({}));
    let answer = bridge.answer(&id);
    assert!(
        answer["error"]["message"].to_string().contains("oo many open files") || answer.get("result").is_some(),
        "{answer}"
    );
    prlimit(pid, Resource::Nofile, before).unwrap();
    calls(&mut bridge, 2);
    bridge.finish();
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.refreshed(), counts.reused, counts.dead), (1, 1, 0, 0), "{}", server.summary());
}
