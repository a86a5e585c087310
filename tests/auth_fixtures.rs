//! Signing in, over the answers in `fixtures/auth`: what must come out of each is written beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{fs, path::Path};

use http::StatusCode;
use mcp_drawbridge::{
    auth::{
        AuthError, Mender,
        callback::{CallbackPath, Expectation, RedirectHost, RedirectUri, Verdict, judge, parse_request},
        challenge,
        grant::{Context, Expected, TokenSet, TokenType, callback, token_set},
        issuer::{self, Issuer, Rules, ServerMetadata},
        providers,
        registration::{self, AuthMethod},
        resource::{self, Candidate, Place},
        scope::Scopes,
        wire::Answer,
    },
    http::guard::Policy,
    secret::Secret,
};
use serde_json::{Value, json};
use url::Url;

fn run(file: &str, least: usize, check: impl Fn(&Value, &Value)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/auth").join(file);
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= least, "{file} lost cases: {}", cases.len());
    for case in &cases {
        check(case, &case["want"]);
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Value::Array(piece) => {
                    piece[0].as_str().unwrap().repeat(usize::try_from(piece[1].as_u64().unwrap()).unwrap())
                }
                piece => piece.as_str().unwrap().to_owned(),
            })
            .collect(),
        other => other.to_string(),
    }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn policy(server: &str) -> Policy {
    Policy::new(&url(server), false, false).unwrap()
}

/// What every refusal owes to its reader, and what this one must say.
fn check_error(name: &str, error: &AuthError, want: &Value, hidden: Option<&str>) {
    assert_eq!(error.rule(), want["rule"], "{name}: {error}");
    let shown = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(shown.chars().all(|c| !c.is_control()), "{name}: {shown:?}");
    assert!(shown.len() < 2000, "{name}: {}", shown.len());
    assert!(error.mender() == Mender::Nobody || error.hint().is_some(), "{name}: nobody is told what to do");
    if let Some(hidden) = hidden {
        assert!(!format!("{shown}{error:?}").contains(hidden), "{name}: {shown}");
    }
    if let Some(differ) = want.get("differ") {
        let (expected, found) = error.differ().unwrap();
        assert_eq!(json!([expected, found]), *differ, "{name}");
        assert!(shown.contains(expected) && shown.contains(found), "{name}: {shown}");
    }
    if let Some(flag) = want.get("flag") {
        assert_eq!(json!(error.flag()), *flag, "{name}");
    }
    if let Some(fault) = want.get("fault") {
        let found = format!("{:?}", error.fault());
        assert_eq!(found.split(' ').next().unwrap(), fault, "{name}: {error}");
    }
}

#[test]
fn challenges() {
    run("challenges.json", 30, |case, want| {
        let fields: Vec<String> = case["fields"].as_array().unwrap().iter().map(text).collect();
        let found: Vec<Value> = challenge::parse(fields.iter().map(String::as_bytes))
            .into_iter()
            .map(|one| {
                let mut out = json!({"scheme": match one.scheme {
                    challenge::Scheme::Bearer => "Bearer",
                    challenge::Scheme::Dpop => "DPoP",
                }});
                let members = [
                    ("error", one.error),
                    ("scope", one.scope),
                    ("resource_metadata", one.resource_metadata),
                    ("error_description", one.error_description),
                ];
                for (name, value) in members {
                    if let Some(value) = value {
                        out[name] = value.into();
                    }
                }
                out
            })
            .collect();
        assert_eq!(Value::from(found), *want, "{}", case["name"]);
    });
}

#[test]
fn resources() {
    run("resource.json", 50, |case, want| {
        let name = case["name"].as_str().unwrap();
        let server = case["server"].as_str().unwrap();
        let place = match case["place"].as_str().unwrap() {
            "challenge" => Place::Challenge,
            "path" => Place::Path,
            _ => Place::Root,
        };
        let found = Candidate { url: url(server), place };
        match resource::validate(text(&case["document"]).as_bytes(), &found, &url(server), &policy(server)) {
            Ok(resource) => {
                let issuers: Vec<&str> = resource.authorization_servers.iter().map(Issuer::as_str).collect();
                let scopes = resource.scopes_supported.as_ref().map(Scopes::to_string);
                let found =
                    json!({"resource": resource.resource.as_str(), "authorization_servers": issuers, "scopes": scopes});
                assert_eq!(found, *want, "{name}");
            }
            Err(rejected) => {
                check_error(name, &rejected.error, want, None);
                assert_eq!(json!(rejected.try_next), want["try_next"], "{name}: {}", rejected.error);
            }
        }
    });
}

#[test]
fn authorization_servers() {
    run("issuer.json", 45, |case, want| {
        let name = case["name"].as_str().unwrap();
        let policy = policy("https://mcp.example/x/mcp");
        let issuer = Issuer::parse(case["issuer"].as_str().unwrap(), &policy).unwrap();
        let source = case["source"].as_str().map_or_else(|| issuer.metadata_urls()[0].clone(), url);
        let rules = Rules { allow_missing_pkce: case["allow_missing_pkce"] == true, origin_fallback: false };
        match issuer::validate(text(&case["document"]).as_bytes(), &source, &issuer, &policy, rules) {
            Ok(metadata) => {
                assert_eq!(metadata.issuer.as_str(), case["issuer"], "{name}");
                let mut found = json!({
                    "authorization": metadata.authorization_endpoint.as_str(), "token": metadata.token_endpoint.as_str(),
                });
                for (member, endpoint) in
                    [("registration", &metadata.registration_endpoint), ("revocation", &metadata.revocation_endpoint)]
                {
                    if let Some(endpoint) = endpoint {
                        found[member] = endpoint.as_str().into();
                    }
                }
                for (member, flag) in
                    [("iss", metadata.iss_in_response), ("cimd", metadata.client_id_metadata_document)]
                {
                    if flag {
                        found[member] = true.into();
                    }
                }
                if let Some(scopes) = &metadata.scopes_supported {
                    found["scopes"] = scopes.to_string().into();
                }
                if !metadata.refused.is_empty() {
                    found["left_out"] = metadata.refused.len().into();
                }
                assert_eq!(found, *want, "{name}");
            }
            Err(error) => check_error(name, &error, want, None),
        }
    });
}

/// Metadata of `issuer` that has nothing special.
fn metadata(issuer: &str) -> ServerMetadata {
    let policy = policy("https://mcp.example/mcp");
    let issuer = Issuer::parse(issuer, &policy).unwrap();
    let text = json!({
        "issuer": issuer.as_str(), "authorization_endpoint": "https://as.example/a", "token_endpoint": "https://as.example/t",
        "registration_endpoint": "https://as.example/r", "code_challenge_methods_supported": ["S256"],
    });
    issuer::validate(text.to_string().as_bytes(), issuer.url(), &issuer, &policy, Rules::default()).unwrap()
}

fn answer(case: &Value) -> Answer {
    let status = StatusCode::from_u16(u16::try_from(case["status"].as_u64().unwrap()).unwrap()).unwrap();
    Answer::new(status, text(&case["body"]))
}

#[test]
fn registrations() {
    run("registrations.json", 20, |case, want| {
        let name = case["name"].as_str().unwrap();
        let asked = AuthMethod::from_name(case["asked"].as_str().unwrap()).unwrap();
        match registration::client(&answer(case), asked, &metadata("https://as.example")) {
            Ok(client) => {
                let secret = client.secret.as_ref().map(Secret::expose);
                let mut found = json!({"id": client.id, "method": client.method.name(), "secret": secret});
                if let Some(end) = client.secret_expires_at {
                    found["expires"] = end.into();
                }
                assert_eq!(found, *want, "{name}");
                assert_eq!(client.issuer, "https://as.example", "{name}");
            }
            Err(error) => check_error(name, &error, want, None),
        }
    });
}

#[test]
fn callbacks() {
    run("callbacks.json", 40, |case, want| {
        let name = case["name"].as_str().unwrap();
        let redirect = RedirectUri::new(RedirectHost::Localhost, 3335, CallbackPath::default());
        let waiting = Expectation::new(redirect, Secret::new("S"));
        let query = text(&case["query"]);
        let head = format!("GET /oauth/callback?{query} HTTP/1.1\r\nHost: localhost:3335\r\n\r\n");
        let matched = match parse_request(head.as_bytes()) {
            Ok(Some(request)) => judge(&request, &waiting),
            _ => return assert_eq!(*want, "not ours", "{name}"),
        };
        let Verdict::Matched(reply) = matched else { return assert_eq!(*want, "not ours", "{name}") };
        let expected = Expected { issuer: "https://as.example", iss_in_response: case["iss"] == true };
        match callback::judge(reply, &expected) {
            Ok(code) => assert_eq!(json!({"code": code.expose()}), *want, "{name}"),
            Err(error) => check_error(name, &error, want, case["hidden"].as_str()),
        }
    });
}

#[test]
fn tokens() {
    run("tokens.json", 45, |case, want| {
        let name = case["name"].as_str().unwrap();
        let metadata = metadata(case["issuer"].as_str().unwrap_or("https://as.example"));
        let previous = TokenSet {
            issuer: metadata.issuer.as_str().to_owned(),
            access: Secret::new("at-0"),
            token_type: TokenType::Bearer,
            expires_in: None,
            refresh: Some(Secret::new("r-1")),
            scope: Some(Scopes::parse("before")),
            id_token: None,
        };
        let asked = Scopes::parse("asked");
        let context = Context {
            quirks: providers::quirks(metadata.issuer.url()),
            metadata: &metadata,
            requested: Some(&asked),
            previous: (case["kind"] == "refresh").then_some(&previous),
            dpop: case["dpop"] == true,
            secrets: &[],
        };
        match token_set(&answer(case), &context) {
            Ok(set) => {
                let found = json!({
                    "access": set.access.expose(), "type": set.token_type.scheme(), "expires_in": set.expires_in,
                    "refresh": set.refresh.as_ref().map(Secret::expose), "scope": set.scope.map(|scope| scope.to_string()),
                });
                assert_eq!(found, *want, "{name}");
                assert_eq!(set.issuer, metadata.issuer.as_str(), "{name}");
            }
            Err(error) => check_error(name, &error, want, None),
        }
    });
}
