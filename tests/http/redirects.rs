//! Redirects over the wire: what each hop gets to see. The rules themselves are a table in `redirect.rs`.

use http::Method;
use mcp_drawbridge::http::{HttpErrorKind, HttpOptions, RedirectRule};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    certs::Ca,
    client, get, options, post, request, rule,
    server::{Server, answer},
    shown, text,
};

fn to(status: u16, location: &str) -> Vec<crate::server::Act> {
    answer(status, &format!("Location: {location}\r\n"), "moved")
}

#[tokio::test]
async fn inside_the_origin_everything_goes_along() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/mcp" => to(307, "/mcp/"),
        "/mcp/" => to(308, "v2?x=1"),
        _ => answer(200, "", "here"),
    })
    .await;
    let client = client(options(), &server.url("/mcp"));
    let response = client.send(post(&server.url("/mcp"), "{\"a\":1}")).await.unwrap();
    assert_eq!(response.url.as_str(), server.url("/mcp/v2?x=1"));
    assert_eq!(text(response).await, "here");
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for one in seen {
        assert_eq!((one.method.as_str(), one.body.as_slice()), ("POST", &b"{\"a\":1}"[..]));
        assert_eq!(one.field("authorization"), Some("Bearer token-1"));
        assert_eq!(one.field("mcp-session-id"), Some("session-1"));
        assert_eq!(one.field("referer"), None);
    }
}

#[tokio::test]
async fn another_origin_hears_nothing() {
    let other = Server::start(|_| answer(200, "", "stolen")).await;
    for status in [301, 302, 303, 307, 308] {
        let target = other.url("/mcp?leak=1");
        let server = Server::start({
            let target = target.clone();
            move |_| to(status, &target)
        })
        .await;
        let client = client(options(), &server.url("/mcp"));
        for request in [post(&server.url("/mcp"), "{}"), get(&server.url("/mcp"))] {
            let error = client.send(request).await.unwrap_err();
            assert_eq!(rule(&error), Some("redirect-cross-origin"), "{status}");
            let told = shown(&error);
            assert!(told.contains(&other.url("/mcp")) && told.contains("configuration"), "{told}");
            assert!(!told.contains("leak"), "{told}");
            assert!(error.is_definite() && !error.surely_unsent());
        }
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_post_does_not_become_a_get() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/mcp" => to(302, "/login?next=/mcp"),
        _ => answer(200, "", "<html>"),
    })
    .await;
    let client = client(options(), &server.url("/mcp"));
    let error = client.send(post(&server.url("/mcp"), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Redirect);
    assert!(shown(&error).contains(&server.url("/login")), "{error}");
    assert_eq!(server.seen().len(), 1);
    assert_eq!(text(client.send(get(&server.url("/mcp"))).await.unwrap()).await, "<html>");
}

#[tokio::test]
async fn loops_end() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/a" => to(307, "/b"),
        "/b" => to(307, "/a"),
        path => {
            let n: u32 = path.trim_start_matches('/').parse().unwrap();
            to(307, &format!("/{}", n + 1))
        }
    })
    .await;
    let client = client(options(), &server.url("/"));
    let error = client.send(post(&server.url("/a"), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Redirect);
    assert!(error.to_string().contains("loop"), "{error}");
    assert_eq!(server.seen().len(), 2);
    let error = client.send(post(&server.url("/1"), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Redirect);
    assert!(error.to_string().contains("more than 5"), "{error}");
    assert_eq!(server.seen().len(), 2 + 6);
}

#[tokio::test]
async fn a_balancer_may_set_its_cookie_by_a_redirect_to_the_same_place() {
    let server = Server::start(|seen| match seen.field("cookie") {
        None => answer(307, "Location: /mcp\r\nSet-Cookie: lb=1\r\n", ""),
        Some(_) => answer(200, "", "ok"),
    })
    .await;
    let client = client(options(), &server.url("/mcp"));
    assert_eq!(text(client.send(post(&server.url("/mcp"), "{}")).await.unwrap()).await, "ok");
    assert_eq!(server.seen().len(), 2);
}

/// The first hop has seen the request, so nobody may call it unsent when the second one fails.
#[tokio::test]
async fn after_a_redirect_nothing_is_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let _ = stream.read(&mut [0; 4096]).await;
        let head = "HTTP/1.1 307 X\r\nLocation: /mcp/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
    });
    let client = client(options(), &url);
    let error = client.send(post(&url, "{}")).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Connect, "{error:?}");
    assert!(!error.surely_unsent());
}

#[tokio::test]
async fn never_to_plain_http() {
    let plain = Server::start(|_| answer(200, "", "stolen")).await;
    let ca = Ca::new();
    let target = plain.url("/mcp");
    let server = Server::start_tls(ca.leaf(&["127.0.0.1"]).server(None, &[]), move |_| to(307, &target)).await;
    let url = server.tls_url("127.0.0.1", "/mcp");
    let trusting = HttpOptions { ca_files: vec![ca.file.0.clone()], ..options() };
    let client = client(trusting, &url);
    for redirects in [RedirectRule::SameOrigin, RedirectRule::CrossOriginWithoutCredentials] {
        let mut request = get(&url);
        request.redirects = redirects;
        let error = client.send(request).await.unwrap_err();
        assert_eq!(rule(&error), Some("redirect-downgrade"), "{redirects:?}");
    }
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn metadata_may_move_but_without_credentials() {
    let other = Server::start(|seen| match seen.target.as_str() {
        "/m" => to(302, "/n"),
        _ => answer(200, "Set-Cookie: x=1\r\n", "metadata"),
    })
    .await;
    let target = other.url("/m");
    let server = Server::start(move |seen| match seen.target.as_str() {
        "/set" => answer(200, "Set-Cookie: lb=1\r\n", ""),
        "/special" => to(302, "https://169.254.169.254/latest"),
        _ => to(302, &target),
    })
    .await;
    let client = client(options(), &server.url("/mcp"));
    text(client.send(get(&server.url("/set"))).await.unwrap()).await;

    let fields = [
        ("authorization", "Bearer s"),
        ("x-api-key", "s"),
        ("cookie", "own=s"),
        ("mcp-protocol-version", "2025-11-25"),
        ("accept", "application/json"),
    ];
    let mut fetch = request(Method::GET, &server.url("/.well-known/x"), &fields, "");
    fetch.redirects = RedirectRule::CrossOriginWithoutCredentials;
    let response = client.send(fetch).await.unwrap();
    assert_eq!(response.url.as_str(), other.url("/n"));
    assert_eq!(text(response).await, "metadata");
    for seen in other.seen() {
        let names: Vec<&str> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["accept", "user-agent", "accept-encoding", "host"]);
    }

    let mut fetch = get(&server.url("/special"));
    fetch.redirects = RedirectRule::CrossOriginWithoutCredentials;
    let error = client.send(fetch).await.unwrap_err();
    assert_eq!(rule(&error), Some("address-special"));
}

#[tokio::test]
async fn redirects_can_be_handed_back() {
    let server = Server::start(|_| to(307, "/x")).await;
    let client = client(options(), &server.url("/token"));
    let mut request = post(&server.url("/token"), "code=s");
    request.redirects = RedirectRule::Never;
    let response = client.send(request).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.headers["location"]), (307, &"/x".parse().unwrap()));
    assert_eq!(server.seen().len(), 1);
}
