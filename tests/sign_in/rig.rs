//! The rig itself: the authorization server must catch what it is there to catch.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::support::authorization_server::{Endpoint, Protected, Rotation, Rules};
use crate::support::browser::{get, visit_until};
use crate::support::mcp::Kind;
use crate::support::wire::Reply;

const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters-as-rfc-7636-wants";
const CALLBACK: &str = "http://localhost:1/callback";

/// A client by hand.
struct Hand<'a>(&'a Protected);

impl Hand<'_> {
    fn post(&self, path: &str, kind: &str, body: &str) -> (u16, Value) {
        use std::io::{Read as _, Write as _};
        let origin = self.0.authority.origin();
        let address = origin.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, Value::Null) };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn register(&self) -> String {
        let body = json!({"application_type": "native", "redirect_uris": [CALLBACK]}).to_string();
        let (status, answer) = self.post("/register", "application/json", &body);
        assert_eq!(status, 201, "{answer}");
        answer["client_id"].as_str().unwrap().to_owned()
    }

    fn code(&self, client: &str) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, VERIFIER.as_bytes());
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", CALLBACK)
            .append_pair("state", "0123456789012345678901")
            .append_pair("resource", &self.0.url())
            .append_pair("code_challenge_method", "S256")
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(hash))
            .append_pair("scope", "read")
            .finish();
        let end = visit_until(&format!("{}/authorize?{query}", self.0.authority.origin()), CALLBACK);
        let end = Url::parse(&end).unwrap();
        let code = end.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
        code.unwrap_or_default()
    }

    fn token(&self, pairs: &[(&str, &str)]) -> (u16, Value) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("resource", &self.0.url()).extend_pairs(pairs);
        self.post("/token", "application/x-www-form-urlencoded", &form.finish())
    }

    fn exchange(&self, client: &str, code: &str) -> (u16, Value) {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ])
    }

    fn refresh(&self, client: &str, token: &Value) -> (u16, Value) {
        let token = token["refresh_token"].as_str().unwrap();
        self.token(&[("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)])
    }

    /// Whether the MCP server takes it.
    fn is_good(&self, token: &Value) -> bool {
        let field = format!("Authorization: Bearer {}\r\n", token["access_token"].as_str().unwrap());
        let status = get(&Url::parse(&self.0.url()).unwrap(), &field).map_or(0, |page| page.status);
        // Without a session a GET is a bad request, but one that was let in.
        assert!(status == 400 || status == 401, "{status}");
        status == 400
    }
}

fn start(rotation: Rotation) -> Protected {
    let rules = Rules { rotation, ..Rules::default() };
    let mut server = Protected::with(Kind::default(), rules);
    server.mcp.strict = false;
    server
}

#[test]
fn a_spent_refresh_token_ends_the_login() {
    let server = start(Rotation::Strict);
    let hand = Hand(&server);
    let client = hand.register();
    let (_, first) = hand.exchange(&client, &hand.code(&client));
    assert!(hand.is_good(&first), "{first}");
    let (status, second) = hand.refresh(&client, &first);
    assert_eq!(status, 200);
    assert!(hand.is_good(&second));
    assert_eq!(hand.refresh(&client, &first), (400, json!({"error": "invalid_grant"})));
    assert!(!hand.is_good(&first) && !hand.is_good(&second), "the whole family ends");
    assert_eq!(hand.refresh(&client, &second).0, 400);
    let counts = server.authority.counts();
    let seen = (counts.reused, counts.dead, counts.refreshed(), counts.tabs(), counts.codes);
    assert_eq!(seen, (1, 1, 1, 1, 1), "{counts:?}");
}

#[test]
fn a_predecessor_may_be_good_until_its_successor_is_used() {
    let server = start(Rotation::UntilUsed);
    let hand = Hand(&server);
    let client = hand.register();
    let (_, first) = hand.exchange(&client, &hand.code(&client));
    let (_, lost) = hand.refresh(&client, &first);
    let (status, second) = hand.refresh(&client, &first);
    assert_eq!(status, 200, "{lost} was never used");
    assert!(hand.is_good(&second));
    assert_eq!(hand.refresh(&client, &first).0, 400);
    assert_eq!(server.authority.counts().reused, 1);
}

#[test]
fn a_code_is_taken_once_and_only_with_its_verifier() {
    let mut server = start(Rotation::Strict);
    server.authority.strict = false;
    let hand = Hand(&server);
    let client = hand.register();
    let code = hand.code(&client);
    let (status, tokens) = hand.exchange(&client, &code);
    assert_eq!(status, 200);
    assert_eq!(hand.exchange(&client, &code).0, 400);
    assert!(!hand.is_good(&tokens));
    let code = hand.code(&client);
    let form =
        [("grant_type", "authorization_code"), ("client_id", &client), ("code", &code), ("redirect_uri", CALLBACK)];
    assert_eq!(hand.token(&form).0, 400);
    assert_eq!(server.authority.violations().len(), 2, "{:?}", server.authority.violations());
}

#[test]
fn what_is_expired_denied_cut_or_revoked() {
    let server = start(Rotation::Strict);
    let hand = Hand(&server);
    let client = hand.register();
    server.authority.deny(true);
    assert_eq!(hand.code(&client), "");
    server.authority.deny(false);
    let (_, first) = hand.exchange(&client, &hand.code(&client));
    server.authority.expire_access_tokens();
    assert!(!hand.is_good(&first));
    // Rotated, and the answer never arrives.
    server.authority.on_tokens(|_, _| Reply::nothing());
    assert_eq!(hand.refresh(&client, &first), (0, Value::Null));
    server.authority.behave();
    assert_eq!(server.authority.counts().refreshed(), 1);
    server.authority.on(Endpoint::Token, |_, n| (n == 4).then(|| Reply::status(503)));
    let (_, second) = hand.exchange(&client, &hand.code(&client));
    assert_eq!(hand.refresh(&client, &second).0, 503);
    let (_, third) = hand.refresh(&client, &second);
    assert!(hand.is_good(&third));
    server.authority.set(|rules| rules.lifetime = Duration::ZERO);
    let (_, short) = hand.refresh(&client, &third);
    assert!(!hand.is_good(&short));
    let token = short["refresh_token"].as_str().unwrap();
    let form = format!("client_id={client}&token={token}");
    assert_eq!(hand.post("/revoke", "application/x-www-form-urlencoded", &form).0, 200);
    assert_eq!(hand.refresh(&client, &short).0, 400);
    assert_eq!(server.authority.counts().revocations, 1);
}
