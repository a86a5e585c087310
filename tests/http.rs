//! The HTTP client against real sockets: a server that says what it is told to, TLS under a private CA, real proxies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::format_push_string,
    clippy::type_complexity,
    reason = "tests fail by panicking, and their tables are read where they are"
)]

#[path = "http/bodies.rs"]
mod bodies;
#[path = "http/certs.rs"]
mod certs;
#[path = "http/connections.rs"]
mod connections;
#[path = "http/proxies.rs"]
mod proxies;
#[path = "http/redirects.rs"]
mod redirects;
#[path = "http/server.rs"]
mod server;
#[path = "http/tls.rs"]
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mcp_drawbridge::http::{
    HttpClient, HttpError, HttpErrorKind, HttpOptions, HttpRequest, HttpResponse, ProxyChoice, RedirectRule,
};
use url::Url;

/// Options with limits short enough for tests that wait for them.
fn options() -> HttpOptions {
    HttpOptions {
        connect_timeout: Duration::from_secs(5),
        headers_timeout: Some(Duration::from_secs(5)),
        ..HttpOptions::default()
    }
}

fn client(options: HttpOptions, url: &str) -> HttpClient {
    HttpClient::new(options, Url::parse(url).unwrap()).unwrap()
}

fn request(method: Method, url: &str, fields: &[(&str, &str)], body: &str) -> HttpRequest {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    HttpRequest {
        method,
        url: Url::parse(url).unwrap(),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
        redirects: RedirectRule::SameOrigin,
        event_stream: false,
    }
}

fn get(url: &str) -> HttpRequest {
    request(Method::GET, url, &[], "")
}

fn post(url: &str, body: &str) -> HttpRequest {
    let fields =
        [("content-type", "application/json"), ("authorization", "Bearer token-1"), ("mcp-session-id", "session-1")];
    request(Method::POST, url, &fields, body)
}

async fn text(response: HttpResponse) -> String {
    let bytes = response.bytes(1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One GET with these options; the error's kind with the error.
async fn fails(options: HttpOptions, url: &str) -> (HttpErrorKind, HttpError) {
    let error = client(options, url).send(get(url)).await.unwrap_err();
    (error.kind(), error)
}

/// What a person reads.
fn shown(error: &HttpError) -> String {
    format!("{error} ({})", error.hint().unwrap_or_default())
}

/// The name of the rule that refused.
fn rule(error: &HttpError) -> Option<&'static str> {
    match error.kind() {
        HttpErrorKind::Policy { rule, .. } => Some(rule),
        _ => None,
    }
}

fn proxy(url: String) -> HttpOptions {
    HttpOptions { proxy: ProxyChoice::Url(url), ..options() }
}
