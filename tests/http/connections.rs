//! Requests, answers, connections and cookies over plain HTTP.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use mcp_drawbridge::http::{HttpClient, HttpErrorKind, HttpOptions};
use tokio::net::TcpListener;
use url::Url;

use crate::{
    client, fails, get, options, post, request, rule,
    server::{Act, Server, answer, send},
    shown, text,
};

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_connections_are_kept() {
    let server = Server::start(|_| answer(200, "X-A: b\r\n", "{}")).await;
    let url = server.url("/mcp?q=1");
    let client = client(options(), &url);
    for _ in 0..5 {
        let response = client.send(post(&url, r#"{"id":1}"#)).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["x-a"], "b");
        assert_eq!(response.url.as_str(), url);
        assert_eq!(text(response).await, "{}");
    }
    let mut streaming = get(&url);
    streaming.event_stream = true;
    text(client.send(streaming).await.unwrap()).await;

    assert_eq!(server.connections(), 1);
    let seen = server.seen();
    let first = &seen[0];
    assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/mcp?q=1"));
    assert_eq!(first.body, br#"{"id":1}"#);
    assert_eq!(first.field("mcp-session-id"), Some("session-1"));
    assert_eq!(first.field("content-length"), Some("8"));
    assert_eq!(first.field("accept-encoding"), Some("gzip"));
    assert_eq!(first.field("host"), Some(server.address.to_string().as_str()));
    assert!(first.field("user-agent").unwrap().starts_with("mcp-drawbridge/"));
    for name in ["referer", "cookie", "transfer-encoding"] {
        assert_eq!(first.field(name), None, "{name}");
    }
    let last = seen.last().unwrap();
    assert_eq!(last.field("accept-encoding"), Some("identity"));
    assert_eq!(last.field("content-length"), None);
}

#[tokio::test]
async fn requests_do_not_wait_for_each_other() {
    let server = Server::start(|seen| {
        let wait = if seen.target == "/slow" { 400 } else { 0 };
        let mut acts = vec![Act::Wait(Duration::from_millis(wait))];
        acts.extend(answer(200, "", "x"));
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    let slow = tokio::spawn({
        let (client, url) = (client.clone(), server.url("/slow"));
        async move { client.send(get(&url)).await.unwrap().status }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    for _ in 0..3 {
        text(client.send(get(&server.url("/"))).await.unwrap()).await;
    }
    assert!(start.elapsed() < Duration::from_millis(300));
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let server = Server::start(|_| {
        send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    })
    .await;
    let client = client(options(), &server.url("/"));
    let response = client.send(get(&server.url("/"))).await.unwrap();
    assert_eq!((response.status.as_u16(), response.headers.get("link")), (200, None));
    assert_eq!(text(response).await, "x");
}

#[tokio::test]
async fn a_closed_connection_is_not_used_again() {
    let server = Server::start(|_| {
        let mut acts = answer(200, "", "x");
        acts.push(Act::Close);
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    for _ in 0..5 {
        text(client.send(post(&server.url("/"), "{}")).await.unwrap()).await;
        // The close arrives while the connection is idle.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn dropping_a_response_closes_its_connection() {
    let server = Server::start(|_| {
        let mut acts =
            send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99999\r\n\r\n: x\n\n");
        acts.push(Act::Hold);
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    let mut response = client.send(get(&server.url("/"))).await.unwrap();
    assert!(response.is_event_stream());
    response.chunk().await.unwrap().unwrap();
    assert_eq!(server.closed(), 0);
    drop(response);
    for _ in 0..100 {
        if server.closed() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn a_request_that_was_taken_is_not_called_unsent() {
    let server = Server::start(|_| vec![Act::Close]).await;
    let (kind, error) = fails(options(), &server.url("/")).await;
    assert_eq!(kind, HttpErrorKind::Cut, "{error:?}");
    assert!(!error.surely_unsent() && !error.is_definite());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_refused_connection_is_told_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (kind, error) = fails(options(), &format!("http://{address}/mcp?key=secret")).await;
    assert_eq!(kind, HttpErrorKind::Connect, "{error:?}");
    assert!(error.surely_unsent() && !error.is_definite());
    assert!(shown(&error).starts_with(&format!("connection refused by {address} (")), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn an_unknown_name_is_told() {
    let (kind, error) = fails(options(), "https://nowhere.invalid/mcp").await;
    assert_eq!(kind, HttpErrorKind::Dns, "{error:?}");
    assert!(error.surely_unsent());
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_the_connection_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Over https the handshake hangs: that is still connecting.
    let connect = HttpOptions { connect_timeout: Duration::from_millis(200), ..options() };
    let (kind, error) = fails(connect, &format!("https://{address}/")).await;
    assert_eq!(kind, HttpErrorKind::Timeout, "{error:?}");
    assert!(error.surely_unsent());
    assert!(shown(&error).contains("0.2 s") && shown(&error).contains("--connect-timeout"), "{error}");

    // Over http the request is out.
    let headers = HttpOptions { headers_timeout: Some(Duration::from_millis(200)), ..options() };
    let (kind, error) = fails(headers, &format!("http://{address}/")).await;
    assert_eq!(kind, HttpErrorKind::Timeout, "{error:?}");
    assert!(!error.surely_unsent());
    assert!(shown(&error).contains("0.2 s") && shown(&error).contains("--headers-timeout"), "{error}");
}

#[tokio::test]
async fn a_slow_head_within_the_limit_is_fine() {
    let server = Server::start(|_| {
        let mut acts = vec![Act::Wait(Duration::from_millis(200))];
        acts.extend(answer(200, "", "x"));
        acts
    })
    .await;
    let client = client(HttpOptions { headers_timeout: None, ..options() }, &server.url("/"));
    assert_eq!(client.send(get(&server.url("/"))).await.unwrap().status, 200);
}

#[tokio::test]
async fn bad_heads() {
    let many = "X: y\r\n".repeat(101);
    let long = format!("X: {}\r\n", "y".repeat(2 << 20));
    #[rustfmt::skip]
    let table = [
        ("garbage\r\n\r\n".to_owned(), HttpErrorKind::Malformed),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}F".to_owned(), HttpErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n".to_owned(), HttpErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_owned(), HttpErrorKind::Malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nxx".to_owned(), HttpErrorKind::Malformed),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), HttpErrorKind::TooLarge),
        (format!("HTTP/1.1 200 OK\r\n{long}\r\n"), HttpErrorKind::TooLarge),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), HttpErrorKind::Cut),
        (String::new(), HttpErrorKind::Cut),
    ];
    for (head, want) in table {
        let script = head.clone();
        let server = Server::start(move |_| vec![Act::Send(script.clone().into()), Act::Close]).await;
        let start: String = head.chars().take(60).collect();
        println!("{start:?}");
        let (kind, error) = fails(options(), &server.url("/")).await;
        assert_eq!(kind, want, "{start:?}: {error:?}");
        assert!(!error.surely_unsent());
    }
}

#[tokio::test]
async fn ipv4_only() {
    let Ok(server) = Server::start_at("[::1]:0", None, |_| answer(200, "", "six")).await else {
        eprintln!("no IPv6 on this machine");
        return;
    };
    let by_name = format!("http://localhost:{}/", server.address.port());
    let both = client(options(), &by_name);
    assert_eq!(text(both.send(get(&by_name)).await.unwrap()).await, "six");
    let four = HttpOptions { ipv4_only: true, ..options() };
    let (kind, error) = fails(four.clone(), &by_name).await;
    assert_eq!(kind, HttpErrorKind::Connect, "{error:?}");
    let (kind, error) = fails(four, &server.url("/")).await;
    assert_eq!(kind, HttpErrorKind::Usage, "{error:?}");
    assert!(shown(&error).contains("--ipv4"), "{error}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn localhost_finds_a_server_on_either_loopback() {
    let server = Server::start(|_| answer(200, "", "four")).await;
    let url = format!("http://localhost:{}/", server.address.port());
    assert_eq!(text(client(options(), &url).send(get(&url)).await.unwrap()).await, "four");
}

#[tokio::test]
async fn requests_with_credentials_go_to_the_server_alone() {
    let server = Server::start(|_| answer(200, "", "")).await;
    let other = Server::start(|_| answer(200, "", "")).await;
    let client = client(options(), &server.url("/mcp"));
    let error = client.send(post(&other.url("/mcp"), "{}")).await.unwrap_err();
    assert_eq!(rule(&error), Some("request-origin"));
    assert!(error.surely_unsent() && error.is_definite());
    assert!(other.seen().is_empty());
}

#[test]
fn wrong_servers_are_refused_without_a_connection() {
    #[rustfmt::skip]
    let table = [("http://a.example/", "plain-http"), ("https://u:secret@a.example/", "url-userinfo"), ("ftp://a.example", "url-scheme")];
    for (url, want) in table {
        let error = HttpClient::new(options(), Url::parse(url).unwrap()).unwrap_err();
        assert_eq!(rule(&error), Some(want), "{url}");
        assert!(error.surely_unsent() && !format!("{error} {error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn cookies_come_back_and_the_users_own_win() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/set" => answer(200, "Set-Cookie: lb=one; Path=/; HttpOnly\r\nSet-Cookie: gone=1; Max-Age=0\r\n", ""),
        _ => answer(200, "", ""),
    })
    .await;
    let client = client(options(), &server.url("/mcp"));
    let go = |path: &'static str, fields: &'static [(&'static str, &'static str)]| {
        let request = request(http::Method::GET, &server.url(path), fields, "");
        let client = client.clone();
        async move { text(client.send(request).await.unwrap()).await }
    };
    for path in ["/mcp", "/set", "/mcp"] {
        go(path, &[]).await;
    }
    go("/mcp", &[("cookie", "mine=1")]).await;
    let cookies: Vec<_> = server.seen().iter().map(|seen| seen.field("cookie").map(str::to_owned)).collect();
    assert_eq!(cookies, [None, None, Some("lb=one".to_owned()), Some("mine=1".to_owned())]);

    let off = crate::client(HttpOptions { cookies: false, ..options() }, &server.url("/mcp"));
    text(off.send(get(&server.url("/set"))).await.unwrap()).await;
    text(off.send(get(&server.url("/mcp"))).await.unwrap()).await;
    assert_eq!(server.seen().last().unwrap().field("cookie"), None);
}

#[tokio::test]
async fn many_requests_at_once_leave_few_connections() {
    static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|_| {
        IN_FLIGHT.fetch_add(1, Ordering::SeqCst);
        let mut acts = vec![Act::Wait(Duration::from_millis(200))];
        acts.extend(answer(200, "", "x"));
        acts
    })
    .await;
    let client = client(options(), &server.url("/"));
    let all: Vec<_> = (0..80)
        .map(|_| {
            let (client, url) = (client.clone(), server.url("/"));
            tokio::spawn(async move { text(client.send(get(&url)).await.unwrap()).await })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), "x");
    }
    assert_eq!(server.connections(), 80);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let open = server.connections() - server.closed();
    assert!(open <= 64, "{open} idle connections");
}
