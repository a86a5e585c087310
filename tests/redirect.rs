//! The loopback redirect over real sockets: what is refused is ignored, one answer counts, and junk does not block it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mcp_drawbridge::auth::callback::paste::PasteError;
use mcp_drawbridge::auth::callback::{Answer, CallbackPath, MAX_HEAD, RedirectHost, SuccessUrl};
use mcp_drawbridge::auth::page::Names;
use mcp_drawbridge::auth::redirect::{
    CANDIDATES, Callback, LINGER, Listener, MAX_CONNECTIONS, Outcome, PortChoice, Serving, Settings,
};
use mcp_drawbridge::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const STATE: &str = "st-4f1c";
/// More than anything here takes on a busy machine; less than what would be a hang.
const PATIENCE: Duration = Duration::from_secs(8);

/// A port that was free a moment ago at both loopback addresses, and whose next seven were too.
async fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    // Tests of one process run side by side: each looks in its own range.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 30_000 + u16::try_from(std::process::id() % 1000).unwrap() * 2;
    loop {
        let first = base + NEXT.fetch_add(CANDIDATES, Ordering::Relaxed) % 20_000;
        let mut held = Vec::new();
        for port in first..first + CANDIDATES {
            held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await);
            held.push(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await);
        }
        let absent = |error: &std::io::Error| error.kind() != std::io::ErrorKind::AddrInUse;
        if held.iter().all(|taken| taken.as_ref().map_or_else(absent, |_| true)) {
            return first;
        }
    }
}

/// A system without IPv6 has no `::1` to test.
async fn has_v6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok()
}

fn settings() -> Settings {
    Settings { names: Names::new("mcp.example.com", Some("Claude")), success_url: None, answer_within: PATIENCE }
}

async fn serving_with(settings: Settings) -> Serving {
    let choice = PortChoice::Derived(free_port().await);
    let listener = Listener::bind(RedirectHost::Localhost, CallbackPath::default(), choice).await.unwrap();
    listener.serve(Secret::new(STATE), settings)
}

async fn serving() -> Serving {
    serving_with(settings()).await
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
}

/// Sends bytes and reads to the end.
async fn exchange(mut stream: TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
    String::from_utf8(answer).unwrap()
}

fn request(port: u16, target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/html\r\n\r\n").into_bytes()
}

async fn get(port: u16, target: &str) -> String {
    exchange(connect(port).await, &request(port, target)).await
}

fn good(code: &str) -> String {
    format!("/oauth/callback?code={code}&state={STATE}")
}

/// Asks in the background, as a browser does while the page is pending.
fn browse(port: u16, target: String) -> tokio::task::JoinHandle<String> {
    tokio::spawn(async move { get(port, &target).await })
}

async fn callback(serving: &mut Serving) -> Callback {
    timeout(PATIENCE, serving.callback()).await.expect("no callback")
}

async fn no_callback(serving: &mut Serving) {
    timeout(Duration::from_millis(150), serving.callback()).await.expect_err("a callback that must be ignored");
}

fn code_of(callback: &Callback) -> String {
    match &callback.reply.answer {
        Answer::Code(code) => code.expose().to_owned(),
        Answer::Error { error, .. } => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_page_comes_after_the_exchange() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let browser = browse(port, format!("{}&iss=https%3A%2F%2Fas.example", good("abc")));
    let callback = callback(&mut serving).await;
    assert_eq!((code_of(&callback).as_str(), callback.reply.iss.as_deref()), ("abc", Some("https://as.example")));
    sleep(Duration::from_millis(200)).await;
    assert!(!browser.is_finished(), "the page came before the token exchange");
    callback.responder.finish(Outcome::Success);
    let page = browser.await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("You are signed in"), "{page}");
    assert!(page.contains("mcp.example.com") && page.contains("Claude") && !page.contains("abc"));
    serving.close().await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn each_outcome_has_its_page_and_a_reload_shows_it_again() {
    let reason = "The server said <b>no</b>.".to_owned();
    for (outcome, status, text) in [
        (Outcome::Success, "200", "You are signed in"),
        (Outcome::Denied, "403", "Access was denied"),
        (Outcome::Failed { reason }, "502", "The server said &lt;b&gt;no&lt;/b&gt;."),
    ] {
        let mut serving = serving().await;
        let port = serving.redirect_uri().port();
        let browser = browse(port, good("abc"));
        callback(&mut serving).await.responder.finish(outcome);
        for page in [browser.await.unwrap(), get(port, &good("abc")).await, get(port, &good("%61bc")).await] {
            assert!(page.starts_with(&format!("HTTP/1.1 {status} ")) && page.contains(text), "{page}");
        }
        no_callback(&mut serving).await;
    }
}

#[tokio::test]
async fn a_denial_counts_with_its_state_alone() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let forged = get(port, "/oauth/callback?error=access_denied").await;
    assert!(forged.starts_with("HTTP/1.1 400 ") && !forged.contains("Access was denied"), "{forged}");
    no_callback(&mut serving).await;
    let browser = browse(port, format!("/oauth/callback?error=access_denied&state={STATE}"));
    let callback = callback(&mut serving).await;
    assert!(matches!(&callback.reply.answer, Answer::Error { error, .. } if error == "access_denied"));
    callback.responder.finish(Outcome::Denied);
    assert!(browser.await.unwrap().contains("Access was denied"));
}

#[tokio::test]
async fn what_is_not_the_answer_is_ignored() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let good = good("stolen");
    let with = |method: &str, target: &str, host: &str| format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let own = format!("localhost:{port}");
    #[rustfmt::skip]
    let table = [
        (with("GET", "/oauth/callback?code=stolen&state=wrong", &own), "400"), (with("GET", "/oauth/callback?code=stolen", &own), "400"),
        (with("GET", &good, "evil.example"), "421"), (with("GET", &good, &format!("evil.example:{port}")), "421"),
        (with("GET", &good, &format!("127.0.0.1:{port}")), "421"), (with("POST", &good, &own), "405"), (with("HEAD", &good, &own), "405"),
        (with("OPTIONS", &good, &own), "405"), (with("GET", "/", &own), "404"), (with("GET", "/favicon.ico", &own), "404"),
        (with("GET", &good.replace("callback", "callback/"), &own), "404"), (with("GET", &format!("{good}&code=other"), &own), "400"),
        (with("GET", &format!("http://{own}{good}"), &own), "400"), (format!("GET {good} HTTP/1.1\r\n\r\n"), "400"),
        (format!("GET {good} HTTP/1.0\r\nHost: {own}\r\n\r\n"), "505"), ("\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned(), "400"),
        (format!("GET {good} HTTP/1.1\r\nHost: {own}\r\nContent-Length: 3\r\n\r\nabc"), "400"),
        (format!("GET /{} HTTP/1.1\r\nHost: {own}\r\n\r\n", "x".repeat(MAX_HEAD)), "431"),
        (format!("GET {good} HTTP/1.1\r\nHost: {own}\r\nCookie: {}\r\n\r\n", "x".repeat(100 * 1024)), "431"),
    ];
    for (bytes, status) in &table {
        let page = exchange(connect(port).await, bytes.as_bytes()).await;
        let shown = &bytes[..bytes.len().min(120)];
        assert!(page.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {page:?}");
        assert!(!page.contains("mcp.example.com") && !page.contains("Claude"), "a stranger learns names: {page}");
        assert_eq!(page.contains("<h1>"), !bytes.starts_with("HEAD"), "{shown:?}: {page}");
    }
    no_callback(&mut serving).await;
    // The sign-in goes on.
    let browser = browse(port, good.clone());
    callback(&mut serving).await.responder.finish(Outcome::Success);
    assert!(browser.await.unwrap().contains("You are signed in"));
}

#[tokio::test]
async fn many_cookies_of_other_programs_on_localhost_fit() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let head = format!("GET {} HTTP/1.1\r\nHost: localhost:{port}\r\n", good(&"c".repeat(4000)));
    let bytes = format!("{head}Cookie: {}\r\n\r\n", "x".repeat(MAX_HEAD - head.len() - 12));
    assert_eq!(bytes.len(), MAX_HEAD);
    let browser = tokio::spawn(async move { exchange(connect(port).await, bytes.as_bytes()).await });
    callback(&mut serving).await.responder.finish(Outcome::Success);
    assert!(browser.await.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn of_racing_answers_one_counts() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let racers: Vec<_> = (0..8).map(|n| browse(port, good(&format!("code{n}")))).collect();
    let callback = callback(&mut serving).await;
    let first = code_of(&callback);
    sleep(Duration::from_millis(300)).await;
    no_callback(&mut serving).await;
    callback.responder.finish(Outcome::Success);
    for (n, racer) in racers.into_iter().enumerate() {
        let page = racer.await.unwrap();
        let status = if format!("code{n}") == first { "HTTP/1.1 200 " } else { "HTTP/1.1 409 " };
        assert!(page.starts_with(status), "{page}");
    }
}

#[tokio::test]
async fn the_same_answer_twice_at_once_is_one_exchange() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let both = [browse(port, good("abc")), browse(port, good("abc"))];
    let callback = callback(&mut serving).await;
    no_callback(&mut serving).await;
    callback.responder.finish(Outcome::Success);
    for page in both {
        assert!(page.await.unwrap().starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn silent_and_slow_peers_do_not_block_it() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let mut junk = Vec::new();
    for number in 0..100 {
        let mut stream = connect(port).await;
        // Half of them say nothing, half begin a request.
        if number % 2 == 0 {
            stream.write_all(b"GET /oauth/call").await.unwrap();
        }
        junk.push(stream);
    }
    let slow = tokio::spawn(async move {
        let mut stream = connect(port).await;
        for byte in request(port, "/slow").iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let began = Instant::now();
    let browser = browse(port, good("abc"));
    callback(&mut serving).await.responder.finish(Outcome::Success);
    assert!(browser.await.unwrap().contains("You are signed in"));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    slow.abort();
}

#[tokio::test]
async fn a_flood_of_wrong_requests_does_not_block_it() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let flood: Vec<_> = (0..100).map(|n| browse(port, format!("/oauth/callback?code=x&state=wrong{n}"))).collect();
    let browser = browse(port, good("abc"));
    callback(&mut serving).await.responder.finish(Outcome::Success);
    assert!(browser.await.unwrap().contains("You are signed in"));
    for page in flood {
        assert!(page.await.unwrap().starts_with("HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn connections_are_bounded() {
    let serving = serving().await;
    let port = serving.redirect_uri().port();
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS * 3 {
        open.push(connect(port).await);
        sleep(Duration::from_millis(30)).await;
    }
    sleep(Duration::from_millis(800)).await;
    // The oldest were closed to make room; those that were are at their end.
    let mut left = 0;
    for stream in &mut open {
        let mut byte = [0];
        left += usize::from(timeout(Duration::from_millis(5), stream.read(&mut byte)).await.is_err());
    }
    assert!(left <= MAX_CONNECTIONS, "{left} connections are open");
}

#[tokio::test]
async fn a_silent_peer_is_let_go() {
    let serving = serving().await;
    let mut stream = connect(serving.redirect_uri().port()).await;
    stream.write_all(b"GET /oauth/callback HTTP/1.1\r\n").await.unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("it is held for ever");
    assert!(end.is_err() || rest.is_empty());
    assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_exchange_is_said_and_can_be_reloaded() {
    let mut serving = serving_with(Settings { answer_within: Duration::from_millis(200), ..settings() }).await;
    let port = serving.redirect_uri().port();
    let page = get(port, &good("abc")).await;
    assert!(page.starts_with("HTTP/1.1 504 ") && page.contains("reload this page"), "{page}");
    callback(&mut serving).await.responder.finish(Outcome::Success);
    assert!(get(port, &good("abc")).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_owner_that_gives_up_is_a_failure() {
    let mut serving = serving().await;
    let browser = browse(serving.redirect_uri().port(), good("abc"));
    drop(callback(&mut serving).await);
    let page = browser.await.unwrap();
    assert!(page.starts_with("HTTP/1.1 502 ") && page.contains("stopped before"), "{page}");
}

#[tokio::test]
async fn closing_lets_the_page_out_and_strangers_not_in() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let _silent = connect(port).await;
    let browser = browse(port, good("abc"));
    callback(&mut serving).await.responder.finish(Outcome::Success);
    let began = Instant::now();
    serving.close().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(browser.await.unwrap().contains("You are signed in"));
}

#[tokio::test]
async fn dropped_it_gives_the_port_back() {
    let serving = serving().await;
    let port = serving.redirect_uri().port();
    // A connection that we closed lies in TIME_WAIT; the next process takes the port over all the same.
    get(port, "/").await;
    drop(serving);
    sleep(Duration::from_millis(50)).await;
    Listener::bind(RedirectHost::Localhost, CallbackPath::default(), PortChoice::Exact(port)).await.unwrap();
}

#[tokio::test]
async fn it_lingers_for_reloads_and_no_longer() {
    let mut serving = serving().await;
    let port = serving.redirect_uri().port();
    let browser = browse(port, good("abc"));
    callback(&mut serving).await.responder.finish(Outcome::Success);
    browser.await.unwrap();
    drop(serving.linger());
    sleep(Duration::from_millis(500)).await;
    assert!(get(port, &good("abc")).await.contains("You are signed in"));
    sleep(LINGER + Duration::from_secs(1)).await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn the_success_url_is_for_success_alone() {
    let url = SuccessUrl::parse("https://app.example/done", false).unwrap();
    for (outcome, status) in [(Outcome::Success, "303"), (Outcome::Denied, "403")] {
        let mut serving = serving_with(Settings { success_url: Some(url.clone()), ..settings() }).await;
        let browser = browse(serving.redirect_uri().port(), good("abc"));
        callback(&mut serving).await.responder.finish(outcome);
        let page = browser.await.unwrap();
        assert!(page.starts_with(&format!("HTTP/1.1 {status} ")), "{page}");
        assert_eq!(page.contains("\r\nLocation: https://app.example/done\r\n"), status == "303");
        assert!(!page.contains("abc"), "the code is passed on: {page}");
    }
}

#[tokio::test]
async fn pasted_text_counts_once_too() {
    let mut serving = serving().await;
    let uri = serving.redirect_uri().to_string();
    assert_eq!(serving.paste("").unwrap_err(), PasteError::Empty);
    assert_eq!(serving.paste(&format!("{uri}?code=abc&state=old")).unwrap_err(), PasteError::OtherSignIn);
    let callback = serving.paste(&format!("{uri}?code=abc&state={STATE}")).unwrap();
    assert_eq!(code_of(&callback), "abc");
    assert_eq!(serving.paste("def").unwrap_err(), PasteError::AlreadyUsed);
    callback.responder.finish(Outcome::Success);
    let port = serving.redirect_uri().port();
    assert!(get(port, &good("abc")).await.starts_with("HTTP/1.1 200 "));
    assert!(get(port, &good("other")).await.starts_with("HTTP/1.1 409 "));
    no_callback(&mut serving).await;
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses_and_nothing_else() {
    let serving = serving().await;
    let port = serving.redirect_uri().port();
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        if address.is_ipv6() && !has_v6().await {
            continue;
        }
        let page = exchange(TcpStream::connect(address).await.unwrap(), &request(port, "/")).await;
        assert!(page.starts_with("HTTP/1.1 404 "), "{address}: {page}");
    }
    // All of 127.0.0.0/8 is this machine: a listener on every interface would answer here.
    #[cfg(target_os = "linux")]
    TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).await.unwrap_err();
}

#[tokio::test]
async fn a_literal_host_is_one_address() {
    for (host, other) in [
        (RedirectHost::V4, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
        (RedirectHost::V6, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
    ] {
        if !has_v6().await {
            return;
        }
        let choice = PortChoice::Derived(free_port().await);
        let listener = Listener::bind(host, CallbackPath::default(), choice).await.unwrap();
        let port = listener.redirect_uri().port();
        TcpStream::connect(SocketAddr::new(other.ip(), port)).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_port_that_somebody_holds_is_left_alone() {
    let path = CallbackPath::default;
    for holder in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
        if holder.is_ipv6() && !has_v6().await {
            continue;
        }
        let first = free_port().await;
        let _held = TcpListener::bind(SocketAddr::new(holder.ip(), first)).await.unwrap();
        let error = Listener::bind(RedirectHost::Localhost, path(), PortChoice::Exact(first)).await.unwrap_err();
        assert!(error.to_string().contains(&format!("port {first}")), "{error}");
        let listener = Listener::bind(RedirectHost::Localhost, path(), PortChoice::Derived(first)).await.unwrap();
        assert_eq!(listener.redirect_uri().port(), first + 1);
    }
}

#[tokio::test]
async fn eight_ports_are_tried() {
    let first = free_port().await;
    let mut held = Vec::new();
    for port in first..first + CANDIDATES - 1 {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap());
    }
    let choice = PortChoice::Derived(first);
    let last = Listener::bind(RedirectHost::Localhost, CallbackPath::default(), choice).await.unwrap();
    assert_eq!(last.redirect_uri().port(), first + CANDIDATES - 1);
    let error = Listener::bind(RedirectHost::Localhost, CallbackPath::default(), choice).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{first} to {}", first + CANDIDATES - 1)), "{error}");
    // The last port there is.
    let end = Listener::bind(RedirectHost::V4, CallbackPath::default(), PortChoice::Derived(u16::MAX)).await;
    assert!(end.is_ok_and(|listener| listener.redirect_uri().port() == u16::MAX));
}
