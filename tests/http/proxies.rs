//! Real proxies of both kinds in front of a server whose name only they know.

use std::process::Command;

use mcp_drawbridge::http::{HttpErrorKind, HttpOptions, RedirectRule};
use tokio::net::TcpListener;

use crate::{
    certs::Ca,
    client, fails, get, options, post, proxy, rule,
    server::{Asked, Proxy, Server, answer},
    shown, text,
};

fn asked(what: &str, login: Option<&str>) -> Vec<Asked> {
    vec![Asked { what: what.to_owned(), login: login.map(str::to_owned) }]
}

#[tokio::test]
async fn connect_for_https() {
    let ca = Ca::new();
    let server = Server::start_tls(ca.leaf(&["server.example"]).server(None, &[]), |_| answer(200, "", "inside")).await;
    let through = Proxy::http(server.address, "200 OK").await;
    let options =
        HttpOptions { ca_files: vec![ca.file.0.clone()], ..proxy(format!("http://user:pa%40ss@{}", through.address)) };
    let url = "https://server.example/mcp";
    let client = client(options, url);
    for _ in 0..3 {
        assert_eq!(text(client.send(post(url, "{}")).await.unwrap()).await, "inside");
    }
    // user:pa@ss
    assert_eq!(through.asked(), asked("CONNECT server.example:443", Some("Basic dXNlcjpwYUBzcw==")));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.field("proxy-authorization").is_none()));
}

#[tokio::test]
async fn absolute_form_for_http() {
    let server = Server::start(|_| answer(200, "", "inside")).await;
    let through = Proxy::http(server.address, "200 OK").await;
    let options = HttpOptions { allow_http: true, ..proxy(format!("http://user@{}", through.address)) };
    let url = "http://server.example/mcp";
    let client = client(options, url);
    assert_eq!(text(client.send(post(url, "{}")).await.unwrap()).await, "inside");
    assert_eq!(through.asked(), asked("POST http://server.example/mcp", Some("Basic dXNlcjo=")));
}

#[tokio::test]
async fn proxies_that_refuse() {
    let server = Server::start(|_| answer(200, "", "")).await;
    for (verdict, message, hint) in [
        ("407 Proxy Authentication Required", "wants a user name", "USER:PASSWORD@"),
        ("403 Forbidden", "gives no connection to server.example:443", "the proxy may reach"),
        ("502 Bad Gateway", "gives no connection to server.example:443", "the proxy may reach"),
    ] {
        let through = Proxy::http(server.address, verdict).await;
        let options = proxy(format!("http://user:secret@{}", through.address));
        let (kind, error) = fails(options, "https://server.example/mcp").await;
        assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
        assert!(error.surely_unsent());
        let told = shown(&error);
        assert!(told.contains(message) && told.contains(hint), "{told}");
        assert!(told.contains(&through.address.to_string()), "{told}");
        assert!(!format!("{told} {error:?}").contains("secret"));
    }
    let through = Proxy::http(server.address, "407 Proxy Authentication Required").await;
    let options = HttpOptions { allow_http: true, ..proxy(format!("http://{}", through.address)) };
    let (kind, error) = fails(options, "http://server.example/mcp").await;
    assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
    assert!(error.surely_unsent());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "socks5h"] {
        let options = proxy(format!("{scheme}://u:secret@{address}"));
        let (kind, error) = fails(options, "https://server.example/mcp").await;
        assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
        assert!(error.surely_unsent());
        let told = shown(&error);
        assert!(told.contains(&format!("the proxy {scheme}://{address}")), "{told}");
        assert!(!format!("{told} {error:?}").contains("secret"));
    }
    let (kind, error) = fails(proxy("http://nowhere.invalid:1".to_owned()), "https://server.example/").await;
    assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
}

#[tokio::test]
async fn socks5() {
    let ca = Ca::new();
    let tls =
        Server::start_tls(ca.leaf(&["server.example", "127.0.0.1"]).server(None, &[]), |_| answer(200, "", "inside"))
            .await;
    // socks5h: the proxy looks the name up. socks5: we do.
    let through = Proxy::socks5(tls.address, Some("user:pass"), 0).await;
    let trusting = |options| HttpOptions { ca_files: vec![ca.file.0.clone()], ..options };
    let remote = trusting(proxy(format!("socks5h://user:pass@{}", through.address)));
    let url = "https://server.example/mcp";
    assert_eq!(text(client(remote, url).send(get(url)).await.unwrap()).await, "inside");
    assert_eq!(through.asked(), asked("SOCKS server.example:443", Some("user:pass")));

    let plain = Server::start(|_| answer(200, "", "inside")).await;
    let through = Proxy::socks5(plain.address, None, 0).await;
    let local = HttpOptions { ipv4_only: true, ..proxy(format!("socks5://{}", through.address)) };
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:7777/");
        assert_eq!(text(client(local.clone(), &url).send(get(&url)).await.unwrap()).await, "inside");
        assert_eq!(through.asked().last().unwrap().what, "SOCKS 127.0.0.1:7777");
    }
}

#[tokio::test]
async fn socks5_that_refuses() {
    let server = Server::start(|_| answer(200, "", "")).await;
    // 2: not allowed by the ruleset; 5: connection refused.
    for reply in [2, 5] {
        let through = Proxy::socks5(server.address, None, reply).await;
        let (kind, error) = fails(proxy(format!("socks5h://{}", through.address)), "https://server.example/").await;
        assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
        assert!(error.surely_unsent());
        assert!(shown(&error).contains(&through.address.to_string()), "{error}");
    }
    for login in ["", "user:wrong@"] {
        let through = Proxy::socks5(server.address, Some("user:pass"), 0).await;
        let (kind, error) =
            fails(proxy(format!("socks5h://{login}{}", through.address)), "https://server.example/").await;
        assert_eq!(kind, HttpErrorKind::Proxy, "{error:?}");
        assert!(shown(&error).contains("user name"), "{login}: {error:?}");
        assert!(!format!("{error:?}").contains("wrong"));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn no_proxy_goes_directly() {
    let server = Server::start(|_| answer(200, "", "direct")).await;
    let through = Proxy::http(server.address, "200 OK").await;
    let url = server.url("/");
    for (no_proxy, proxied) in [(Some("127.0.0.0/8"), false), (Some("other.example"), true), (None, true)] {
        let before = through.asked().len();
        let options =
            HttpOptions { no_proxy: no_proxy.map(str::to_owned), ..proxy(format!("http://{}", through.address)) };
        assert_eq!(text(client(options, &url).send(get(&url)).await.unwrap()).await, "direct");
        assert_eq!(through.asked().len() - before, usize::from(proxied), "{no_proxy:?}");
    }
}

/// The policy holds for what the proxy would look up, as far as it can be seen.
#[tokio::test]
async fn literal_addresses_are_refused_behind_a_proxy_too() {
    let server = Server::start(|_| answer(200, "", "")).await;
    let through = Proxy::http(server.address, "200 OK").await;
    let client = client(proxy(format!("http://{}", through.address)), "https://server.example/");
    let mut request = get("https://169.254.169.254/latest");
    request.redirects = RedirectRule::CrossOriginWithoutCredentials;
    let error = client.send(request).await.unwrap_err();
    assert_eq!(rule(&error), Some("address-special"));
    assert!(through.asked().is_empty());
}

/// The environment of a process cannot be changed safely from within: these tests run again in a child of their own.
const CHILD: &str = "MCP_DRAWBRIDGE_TEST_URL";

/// Not a test of its own: what the child does.
#[tokio::test]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let options =
        HttpOptions { allow_http: true, no_proxy: std::env::var("MCP_DRAWBRIDGE_TEST_NO_PROXY").ok(), ..options() };
    let outcome = match client(options, &url).send(get(&url)).await {
        Ok(response) => text(response).await,
        Err(error) => format!("{:?}", error.kind()),
    };
    println!("outcome: {outcome}.");
}

fn in_child(url: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "proxies::child", "--nocapture"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.env(CHILD, url).envs(environment.iter().copied());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let (_, rest) = output.split_once("outcome: ").unwrap_or_else(|| panic!("{output}"));
    rest.split_once('.').unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment() {
    let server = Server::start(|_| answer(200, "", "reached")).await;
    let http = Proxy::http(server.address, "200 OK").await;
    let socks = Proxy::socks5(server.address, None, 0).await;
    let (http_url, socks_url) = (format!("http://{}", http.address), format!("socks5h://{}", socks.address));
    let named = "http://server.invalid/";
    let loopback = server.url("/");
    let (h, s) = (http_url.as_str(), socks_url.as_str());
    #[rustfmt::skip]
    let table: &[(&str, &[(&str, &str)], &str, usize, usize)] = &[
        (named, &[("HTTP_PROXY", h)], "reached", 1, 0),
        (named, &[("http_proxy", h)], "reached", 1, 0),
        (named, &[("ALL_PROXY", s)], "reached", 0, 1),
        (named, &[("all_proxy", s), ("http_proxy", h)], "reached", 1, 0),
        (named, &[("HTTPS_PROXY", h)], "Dns", 0, 0),
        (named, &[("HTTP_PROXY", h), ("NO_PROXY", "other.invalid,.server.invalid")], "Dns", 0, 0),
        (named, &[("HTTP_PROXY", h), ("no_proxy", "*")], "Dns", 0, 0),
        (named, &[("HTTP_PROXY", h), ("MCP_DRAWBRIDGE_TEST_NO_PROXY", "server.invalid")], "Dns", 0, 0),
        (named, &[], "Dns", 0, 0),
        // Loopback is never reached through the environment's proxy.
        (&loopback, &[("HTTP_PROXY", h), ("ALL_PROXY", s)], "reached", 0, 0),
    ];
    for (url, environment, outcome, by_http, by_socks) in table {
        let before = (http.asked().len(), socks.asked().len());
        assert_eq!(in_child(url, environment), *outcome, "{environment:?}");
        let after = (http.asked().len(), socks.asked().len());
        assert_eq!((after.0 - before.0, after.1 - before.1), (*by_http, *by_socks), "{environment:?}");
    }
}
