//! The requests of signing in over real sockets: what goes out, and what is not followed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    clippy::type_complexity,
    dead_code,
    reason = "tests fail by panicking; the server is that of tests/http"
)]

#[path = "http/server.rs"]
mod server;

use mcp_drawbridge::{
    auth::{
        Fault,
        grant::{self, Context, Pkce},
        issuer::{self, ServerMetadata},
        providers::Quirks,
        registration::{self, AuthMethod, Client, Origin, Registration},
        wire::{self, Document},
    },
    http::{HttpClient, HttpOptions},
    secret::Secret,
};
use server::{Act, Seen, Server, answer};
use url::Url;

fn http(server: &Server) -> HttpClient {
    HttpClient::new(HttpOptions::default(), Url::parse(&server.url("/mcp")).unwrap()).unwrap()
}

fn metadata(server: &Server) -> ServerMetadata {
    let url = Url::parse(&server.url("/mcp")).unwrap();
    issuer::default_endpoints(&url, http(server).policy()).unwrap()
}

fn client(metadata: &ServerMetadata) -> Client {
    Client {
        issuer: metadata.issuer.as_str().to_owned(),
        id: "me".to_owned(),
        secret: Some(Secret::new("client-secret")),
        method: AuthMethod::Basic,
        secret_expires_at: None,
        origin: Origin::Dynamic,
    }
}

async fn redeem(server: &Server) -> Result<grant::TokenSet, mcp_drawbridge::auth::AuthError> {
    let metadata = metadata(server);
    let pkce = Pkce::new(&[7; 32]);
    let quirks = Quirks::default();
    let code = Secret::new("the-code");
    let post =
        grant::exchange_request(&metadata, &client(&metadata), &code, &pkce, "http://localhost:1/cb", None, &quirks)
            .unwrap();
    let context = Context {
        metadata: &metadata,
        quirks: &quirks,
        requested: None,
        previous: None,
        dpop: false,
        secrets: &[&code],
    };
    grant::redeem(&http(server), &post, &context).await
}

fn to(status: u16, location: &str) -> Vec<Act> {
    answer(status, &format!("Location: {location}\r\n"), "moved")
}

#[tokio::test]
async fn a_code_is_redeemed() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/token" => answer(200, "", r#"{"access_token":"at","token_type":"Bearer","expires_in":"60"}"#),
        _ => answer(404, "", ""),
    })
    .await;
    let set = redeem(&server).await.unwrap();
    assert_eq!((set.access.expose(), set.expires_in), ("at", Some(60)));
    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.field("accept")), ("POST", Some("application/json")));
    assert_eq!(seen.field("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.field("authorization"), Some("Basic bWU6Y2xpZW50LXNlY3JldA=="));
    assert!(String::from_utf8_lossy(&seen.body).starts_with("grant_type=authorization_code&code=the-code&"));
}

#[tokio::test]
async fn a_token_endpoint_that_redirects_gives_nothing_away() {
    let other = Server::start(|_: &Seen| answer(200, "", r#"{"access_token":"at","token_type":"Bearer"}"#)).await;
    for status in [301, 302, 303, 307, 308] {
        let target = other.url("/steal");
        let server = Server::start(move |_: &Seen| to(status, &target)).await;
        let error = redeem(&server).await.unwrap_err();
        assert_eq!((error.rule(), error.fault()), ("endpoint-redirect", Fault::Refused), "{status}");
        // Nor within its own origin: it is the code's one and only way.
        let server = Server::start(move |_: &Seen| to(status, "/elsewhere")).await;
        assert_eq!(redeem(&server).await.unwrap_err().rule(), "endpoint-redirect", "{status}");
        assert_eq!(server.seen().len(), 1);
    }
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn documents_are_fetched_bare() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/there" => answer(200, "Set-Cookie: a=b\r\n", "{}"),
        "/moved" => to(302, "/there"),
        "/busy" => answer(503, "Retry-After: 7\r\n", ""),
        "/huge" => answer(200, "", &"x".repeat(wire::MAX_ANSWER + 1)),
        "/inside" => to(302, "http://169.254.169.254/latest"),
        _ => answer(401, "", ""),
    })
    .await;
    let client = http(&server);
    let get = async |path: &str| {
        let url = Url::parse(&server.url(path)).unwrap();
        wire::get_document(&client, &url, Some("2026-07-28"), "the resource metadata").await
    };
    for path in ["/there", "/moved"] {
        let Document::Found { bytes, source } = get(path).await.unwrap() else { panic!("{path}") };
        assert_eq!((&bytes[..], source.as_str()), (&b"{}"[..], server.url("/there").as_str()));
    }
    assert!(matches!(get("/nothing").await.unwrap(), Document::Absent { status: 401 }));
    let wait = Some(std::time::Duration::from_secs(7));
    assert_eq!(get("/busy").await.unwrap_err().fault(), Fault::Transient { retry_after: wait });
    assert!(get("/huge").await.unwrap_err().to_string().contains("larger than"));
    let refused = get("/inside").await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Refused, "{refused}");
    for seen in server.seen() {
        assert_eq!(seen.field("mcp-protocol-version"), Some("2026-07-28"));
        for name in ["authorization", "cookie", "mcp-session-id"] {
            assert_eq!(seen.field(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn a_client_is_registered() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/register" => answer(201, "", r#"{"client_id":"new","redirect_uris":["https://evil.example"]}"#),
        _ => answer(404, "", ""),
    })
    .await;
    let uris = vec!["http://localhost:3334/oauth/callback".to_owned()];
    let what = Registration { client_name: "test", redirect_uris: &uris, scope: None, extra: None };
    let client = registration::register(&http(&server), &metadata(&server), &what).await.unwrap();
    assert_eq!((client.id.as_str(), client.method), ("new", AuthMethod::None));
    let seen = &server.seen()[0];
    assert_eq!((seen.field("content-type"), seen.field("authorization")), (Some("application/json"), None));
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((&body["application_type"], &body["redirect_uris"][0]), (&"native".into(), &uris[0].clone().into()));
}

#[tokio::test]
async fn a_network_that_fails_ends_nothing() {
    let server = Server::start(|_: &Seen| vec![Act::Abort]).await;
    let error = redeem(&server).await.unwrap_err();
    assert_eq!((error.rule(), error.fault()), ("no-answer", Fault::Transient { retry_after: None }), "{error}");
}
