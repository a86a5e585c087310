//! Client ids (MCP 2026-07-28 "Client Registration"): the user's own first, then a metadata document's URL, then a dynamic
//! registration (RFC 7591), then a clear message.
//!
//! A [`Client`] belongs to one issuer. What builds requests asks [`Client::check_issuer`] first, so an id or a secret is
//! never shown to another.

mod client;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(super) use client::other_issuer;
pub use client::{
    AuthMethod, CLIENT_INFO_FLAG, Client, MAX_CREDENTIAL, METADATA_URL_FLAG, Origin, PreRegistered,
    metadata_document_url,
};

use super::{
    document,
    error::{AuthError, Fault, Mender, foreign},
    issuer::ServerMetadata,
    providers,
    scope::Scopes,
    wire::{self, Answer, Post},
};
use crate::{http::HttpClient, secret::Secret};

const DOING: &str = "registering with the authorization server";

/// What the user said of clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// `--static-oauth-client-info`.
    pub pre_registered: Option<&'a PreRegistered>,
    /// `--client-metadata-url`, or one of the program's own; see [`metadata_document_url`].
    pub metadata_url: Option<&'a str>,
}

/// How to come by a client.
#[derive(Clone, Debug)]
pub enum Plan {
    /// It is there.
    Ready(Client),
    /// Register at [`ServerMetadata::registration_endpoint`], or take the client that was registered before.
    Register,
}

/// Decides, by the specification's priority.
pub fn plan(choice: Choice<'_>, metadata: &ServerMetadata) -> Result<Plan, AuthError> {
    let issuer = metadata.issuer.as_str().to_owned();
    if let Some(own) = choice.pre_registered {
        if let Some(bound) = own.issuer.as_ref().filter(|bound| **bound != issuer) {
            let message = format!("the client id of {CLIENT_INFO_FLAG} belongs to another authorization server");
            return Err(other_issuer(&message, bound, &metadata.issuer));
        }
        let method = match (own.method, &own.client_secret) {
            (Some(AuthMethod::None), _) | (None, None) => AuthMethod::None,
            (Some(method), Some(_)) => method,
            (None, Some(_)) => secret_method(metadata)?,
            (Some(method), None) => {
                let message = format!("{CLIENT_INFO_FLAG}: {} needs a client_secret", method.name());
                return Err(AuthError::new("client-secret", Mender::User, message));
            }
        };
        return Ok(Plan::Ready(Client {
            issuer,
            id: own.client_id.clone(),
            secret: own.client_secret.clone().filter(|_| method != AuthMethod::None),
            method,
            secret_expires_at: None,
            origin: Origin::PreRegistered,
        }));
    }
    if let (Some(url), true) = (choice.metadata_url, metadata.client_id_metadata_document) {
        return Ok(Plan::Ready(Client {
            issuer,
            id: url.to_owned(),
            secret: None,
            method: AuthMethod::None,
            secret_expires_at: None,
            origin: Origin::MetadataDocument,
        }));
    }
    if metadata.registration_endpoint.is_some() {
        return Ok(Plan::Register);
    }
    if let Some((_, refused)) = metadata.refused.iter().find(|(name, _)| *name == "registration_endpoint") {
        return Err(refused.clone());
    }
    let message = format!("the authorization server {} registers no clients by itself", metadata.issuer);
    Err(AuthError::new("no-client", Mender::User, message).with_hint(by_hand(metadata)))
}

/// What is registered.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// Name for the consent page.
    pub client_name: &'a str,
    /// Where the answers go. Loopback, so the application is native.
    pub redirect_uris: &'a [String],
    /// The scopes that will be asked for.
    pub scope: Option<&'a Scopes>,
    /// The user's own members (`--static-oauth-client-metadata`). They win, but for `redirect_uris`: ours are where we listen.
    pub extra: Option<&'a Map<String, Value>>,
}

/// The registration request (RFC 7591 section 3.1) and the authentication method in it.
pub fn request(metadata: &ServerMetadata, registration: &Registration<'_>) -> Result<(Post, AuthMethod), AuthError> {
    let Some(endpoint) = &metadata.registration_endpoint else {
        let message = format!("the authorization server {} registers no clients by itself", metadata.issuer);
        return Err(AuthError::new("no-client", Mender::User, message).with_hint(by_hand(metadata)));
    };
    let refreshes = metadata.grant_types.as_ref().is_none_or(|list| list.iter().any(|one| one == "refresh_token"));
    let grants: &[&str] = if refreshes { &["authorization_code", "refresh_token"] } else { &["authorization_code"] };
    let named = registration.extra.and_then(|extra| extra.get("token_endpoint_auth_method")).and_then(Value::as_str);
    let method = match named {
        Some(name) => AuthMethod::from_name(name).ok_or_else(|| {
            AuthError::new("auth-method", Mender::User, "the token_endpoint_auth_method that you gave is not supported")
                .with_differ("none client_secret_basic client_secret_post", name)
        })?,
        None => public_method(metadata)?,
    };
    let mut body = json!({
        "application_type": "native",
        "client_name": registration.client_name,
        "grant_types": grants,
        "response_types": ["code"],
        "token_endpoint_auth_method": method.name(),
    });
    if let Value::Object(members) = &mut body {
        if let Some(scope) = registration.scope {
            members.insert("scope".to_owned(), scope.to_string().into());
        }
        for (name, value) in registration.extra.into_iter().flatten() {
            members.insert(name.clone(), value.clone());
        }
        members.insert("redirect_uris".to_owned(), registration.redirect_uris.into());
    }
    Ok((Post::json(endpoint.clone(), &body), method))
}

/// `none` wherever it may be: a program on a user's disk keeps no secret.
fn public_method(metadata: &ServerMetadata) -> Result<AuthMethod, AuthError> {
    match &metadata.token_auth_methods {
        Some(list) if !list.is_empty() && !list.iter().any(|one| one == "none") => secret_method(metadata),
        _ => Ok(AuthMethod::None),
    }
}

/// The server lists `none` and no way that takes a secret.
fn only_public(metadata: &ServerMetadata) -> bool {
    let takes = |name: &str| metadata.token_auth_methods.iter().flatten().any(|one| one == name);
    takes("none") && ![AuthMethod::Basic, AuthMethod::Post].iter().any(|method| takes(method.name()))
}

fn secret_method(metadata: &ServerMetadata) -> Result<AuthMethod, AuthError> {
    let Some(list) = metadata.token_auth_methods.as_ref().filter(|list| !list.is_empty()) else {
        // RFC 8414 section 2: the default.
        return Ok(AuthMethod::Basic);
    };
    // The server's order: the MCP Python SDK lists the form first, and wants `client_id` in it also beside the header, where
    // RFC 6749 section 3.2.1 does not ask for it and other servers refuse it.
    let secret = |name: &String| [AuthMethod::Basic, AuthMethod::Post].into_iter().find(|method| method.name() == name);
    list.iter().find_map(secret).ok_or_else(|| {
        let message = "the authorization server takes no way of client authentication that is supported";
        AuthError::new("auth-method", Mender::AuthorizationServer, message)
            .with_differ("client_secret_basic or client_secret_post", &list.join(" "))
    })
}

#[derive(Deserialize)]
struct Registered {
    client_id: Option<Value>,
    client_secret: Option<Value>,
    client_secret_expires_at: Option<Value>,
    token_endpoint_auth_method: Option<Value>,
}

#[derive(Deserialize)]
struct Failed {
    error: Option<Value>,
    error_description: Option<Value>,
}

/// The client out of the answer (RFC 7591 section 3.2). `asked` is the method that was asked for; the server's word on it
/// holds. The redirect URIs that it returns are not read: where we listen is for us to say.
pub fn client(answer: &Answer, asked: AuthMethod, metadata: &ServerMetadata) -> Result<Client, AuthError> {
    if !answer.status.is_success() {
        return Err(failure(answer, metadata));
    }
    let what = "the registration's answer";
    let registered: Registered = document::object(&answer.body, what, Mender::AuthorizationServer)?;
    let malformed =
        |why: &str| Err(AuthError::new("registration-answer", Mender::AuthorizationServer, format!("{what} {why}")));
    let Some(id) = document::text(registered.client_id.as_ref()) else {
        return malformed("has no client_id");
    };
    let secret = document::text(registered.client_secret.as_ref());
    for (name, value) in [("client_id", Some(id)), ("client_secret", secret)] {
        // RFC 6749 appendix A.1, A.2.
        if value.is_some_and(|text| text.len() > MAX_CREDENTIAL || !text.bytes().all(|b| matches!(b, b' '..=b'~'))) {
            return malformed(&format!("has a {name} that is too long or holds a character that it may not"));
        }
    }
    let method = match (document::text(registered.token_endpoint_auth_method.as_ref()), secret) {
        // Some servers repeat the default and issue no secret.
        (None, None) => AuthMethod::None,
        (Some(name), None) if AuthMethod::from_name(name).is_some() => AuthMethod::None,
        (Some(name), _) => AuthMethod::from_name(name).ok_or_else(|| {
            let message = format!("{what} wants a way of client authentication that is not supported");
            AuthError::new("auth-method", Mender::AuthorizationServer, message).with_differ(asked.name(), name)
        })?,
        (None, Some(_)) if asked != AuthMethod::None => asked,
        // Asked for none, and given a secret without a word on how to use it.
        (None, Some(_)) if only_public(metadata) => AuthMethod::None,
        (None, Some(_)) => secret_method(metadata)?,
    };
    Ok(Client {
        issuer: metadata.issuer.as_str().to_owned(),
        id: id.to_owned(),
        secret: secret.filter(|_| method != AuthMethod::None).map(Secret::new),
        method,
        // 0: never.
        secret_expires_at: document::seconds(registered.client_secret_expires_at.as_ref()).filter(|&end| end > 0),
        origin: Origin::Dynamic,
    })
}

/// RFC 7591 section 3.2.2, and what servers do besides.
fn failure(answer: &Answer, metadata: &ServerMetadata) -> AuthError {
    let status = answer.status;
    if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        return answer.transient(DOING);
    }
    let body: Option<Failed> = document::object(&answer.body, "the answer", Mender::AuthorizationServer).ok();
    let member = |value: Option<&Value>| document::text(value).map(foreign);
    let code = body.as_ref().and_then(|body| member(body.error.as_ref()));
    let said = body.as_ref().and_then(|body| member(body.error_description.as_ref())).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let (rule, message) = match (code.as_deref(), status.as_u16()) {
        (Some("invalid_redirect_uri"), _) => {
            ("registration-redirect-uri", "it does not take a redirect URI on this machine")
        }
        (Some("invalid_client_metadata"), _) => {
            ("registration-metadata", "it does not take a member of the registration")
        }
        (Some("unapproved_software_statement" | "invalid_software_statement"), _) | (_, 401 | 403) => {
            ("registration-closed", "it registers only clients that it knows")
        }
        (_, 404 | 405) => ("registration-closed", "nothing is there"),
        _ => ("registration-refused", "it refused"),
    };
    let code =
        code.map_or_else(|| format!("HTTP {}", status.as_u16()), |code| format!("{code}, HTTP {}", status.as_u16()));
    AuthError::new(rule, Mender::User, format!("{DOING} {}: {message} ({code}){said}", metadata.issuer))
        .with_fault(Fault::Refused)
        .with_hint(by_hand(metadata))
}

fn by_hand(metadata: &ServerMetadata) -> String {
    match providers::quirks(metadata.issuer.url()).registration_hint {
        Some(hint) => hint.to_owned(),
        None => format!(
            "register a client there by hand (redirect URI: ours; public, or with a secret) and pass it with {CLIENT_INFO_FLAG}{}",
            if metadata.client_id_metadata_document {
                format!(", or give the URL of a client ID metadata document with {METADATA_URL_FLAG}")
            } else {
                String::new()
            }
        ),
    }
}

/// Registers: one request.
pub async fn register(
    http: &HttpClient,
    metadata: &ServerMetadata,
    registration: &Registration<'_>,
) -> Result<Client, AuthError> {
    let (post, method) = request(metadata, registration)?;
    let answer = wire::post(http, &post, DOING).await?;
    client(&answer, method, metadata)
}

/// A server's metadata for the tests of this directory.
#[cfg(test)]
pub(super) fn test_metadata(more: &Value) -> ServerMetadata {
    let mut text = json!({
        "issuer": "https://as.example", "authorization_endpoint": "https://as.example/authorize?tenant=1",
        "token_endpoint": "https://as.example/token", "code_challenge_methods_supported": ["S256"],
    });
    for (name, value) in more.as_object().unwrap() {
        text[name] = value.clone();
    }
    let server = url::Url::parse("https://mcp.example/mcp").unwrap();
    let policy = crate::http::guard::Policy::new(&server, false, false).unwrap();
    let issuer = super::issuer::Issuer::parse(text["issuer"].as_str().unwrap(), &policy).unwrap();
    super::issuer::validate(
        text.to_string().as_bytes(),
        issuer.url(),
        &issuer,
        &policy,
        super::issuer::Rules::default(),
    )
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(issuer: Option<&str>, secret: Option<&str>) -> PreRegistered {
        PreRegistered {
            issuer: issuer.map(str::to_owned),
            client_id: "me".to_owned(),
            client_secret: secret.map(Secret::new),
            method: None,
        }
    }

    #[test]
    fn priority() {
        let all = test_metadata(
            &json!({"registration_endpoint": "https://as.example/r", "client_id_metadata_document_supported": true}),
        );
        let none = test_metadata(&json!({}));
        let mine = own(None, None);
        let url = Some("https://c.example/c.json");
        let of = |choice, metadata: &ServerMetadata| match plan(choice, metadata) {
            Ok(Plan::Ready(client)) => format!("{:?} {}", client.origin, client.id),
            Ok(Plan::Register) => "register".to_owned(),
            Err(error) => error.rule().to_owned(),
        };
        let choice = Choice { pre_registered: Some(&mine), metadata_url: url };
        assert_eq!(of(choice, &all), "PreRegistered me");
        assert_eq!(
            of(Choice { metadata_url: url, ..Choice::default() }, &all),
            "MetadataDocument https://c.example/c.json"
        );
        assert_eq!(of(Choice::default(), &all), "register");
        assert_eq!(of(Choice { metadata_url: url, ..Choice::default() }, &none), "no-client");
        let error = plan(Choice::default(), &none).unwrap_err();
        assert!(error.hint().unwrap().contains(CLIENT_INFO_FLAG));
        let refused = test_metadata(&json!({"registration_endpoint": "http://as.example/r"}));
        assert_eq!(of(Choice::default(), &refused), "plain-http");
    }

    #[test]
    fn credentials_stay_with_their_issuer() {
        let metadata = test_metadata(&json!({}));
        let go = |own: &PreRegistered| plan(Choice { pre_registered: Some(own), ..Choice::default() }, &metadata);
        let Ok(Plan::Ready(client)) = go(&own(Some("https://as.example"), Some("s"))) else { panic!() };
        assert_eq!((client.issuer.as_str(), client.method), ("https://as.example", AuthMethod::Basic));
        client.check_issuer(&metadata.issuer).unwrap();
        for other in ["https://as.example/", "https://AS.example", "https://other.example"] {
            let error = go(&own(Some(other), Some("hidden"))).unwrap_err();
            assert_eq!(error.rule(), "issuer-binding");
            assert_eq!(error.differ(), Some((other, "https://as.example")));
            assert!(!format!("{error} {error:?}").contains("hidden"));
            let moved = Client { issuer: other.to_owned(), ..client.clone() };
            assert_eq!(moved.check_issuer(&metadata.issuer).unwrap_err().rule(), "issuer-binding");
        }
        assert!(!format!("{client:?} {:?}", own(None, Some("hidden"))).contains("hidden"));
    }

    #[test]
    fn the_request() {
        let uris = vec!["http://localhost:3334/oauth/callback".to_owned()];
        let extra = json!({"client_name": "Mine", "redirect_uris": ["https://evil.example"], "logo_uri": "l"});
        let scope = Scopes::parse("a b");
        let metadata = test_metadata(&json!({"registration_endpoint": "https://as.example/r"}));
        let registration =
            Registration { client_name: "mcp-drawbridge", redirect_uris: &uris, scope: Some(&scope), extra: None };
        let (post, method) = request(&metadata, &registration).unwrap();
        let body: Value = serde_json::from_str(post.body().expose()).unwrap();
        let want = json!({
            "application_type": "native", "client_name": "mcp-drawbridge", "redirect_uris": ["http://localhost:3334/oauth/callback"],
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "token_endpoint_auth_method": "none", "scope": "a b",
        });
        assert_eq!((body, method, post.url.as_str()), (want, AuthMethod::None, "https://as.example/r"));
        let registration = Registration { extra: extra.as_object(), scope: None, ..registration };
        let (post, _) = request(&metadata, &registration).unwrap();
        let body: Value = serde_json::from_str(post.body().expose()).unwrap();
        assert_eq!(
            (&body["client_name"], &body["logo_uri"], &body["scope"]),
            (&json!("Mine"), &json!("l"), &Value::Null)
        );
        assert_eq!(body["redirect_uris"], json!(uris));
    }

    #[test]
    fn the_method_that_the_server_takes() {
        let uris = [];
        let registration = Registration { client_name: "x", redirect_uris: &uris, scope: None, extra: None };
        #[rustfmt::skip]
        let table = [
            (json!(["none", "client_secret_basic"]), Ok(AuthMethod::None)), (json!(["client_secret_post"]), Ok(AuthMethod::Post)),
            (json!(["client_secret_post", "client_secret_basic"]), Ok(AuthMethod::Post)), (json!(["x", "client_secret_basic", "client_secret_post"]), Ok(AuthMethod::Basic)), (json!([]), Ok(AuthMethod::None)),
            (json!(null), Ok(AuthMethod::None)), (json!(["private_key_jwt"]), Err("auth-method")),
        ];
        for (methods, want) in table {
            let metadata = test_metadata(
                &json!({"registration_endpoint": "https://as.example/r", "token_endpoint_auth_methods_supported": methods}),
            );
            let got =
                request(&metadata, &registration).map(|(_, method)| method).map_err(|error| error.rule().to_owned());
            assert_eq!(got, want.map_err(str::to_owned), "{methods}");
        }
    }

    #[test]
    fn a_secret_without_a_word_on_its_use() {
        let of = |methods: Value| {
            let metadata = test_metadata(&json!({"token_endpoint_auth_methods_supported": methods}));
            let answer = Answer::new(StatusCode::CREATED, json!({"client_id": "i", "client_secret": "s"}).to_string());
            let client = client(&answer, AuthMethod::None, &metadata);
            client.map_or_else(
                |error| error.rule().to_owned(),
                |client| format!("{} {}", client.method.name(), client.secret.is_some()),
            )
        };
        assert_eq!(of(json!(["none"])), "none false");
        assert_eq!(of(json!(["none", "private_key_jwt"])), "none false");
        assert_eq!(of(json!(["none", "client_secret_post"])), "client_secret_post true");
        assert_eq!(of(json!(null)), "client_secret_basic true");
        assert_eq!(of(json!(["private_key_jwt"])), "auth-method");
    }

    #[test]
    fn secrets_end() {
        let metadata = test_metadata(&json!({}));
        let of = |end: Value| {
            let body = json!({"client_id": "i", "client_secret": "s", "client_secret_expires_at": end}).to_string();
            client(&Answer::new(StatusCode::CREATED, body), AuthMethod::Basic, &metadata).unwrap()
        };
        assert!(!of(json!(0)).is_expired(u64::MAX) && !of(json!(null)).is_expired(u64::MAX));
        assert!(of(json!(100)).is_expired(100) && !of(json!("100")).is_expired(99));
    }

    #[test]
    fn urls_of_metadata_documents() {
        assert!(metadata_document_url("https://c.example/c.json?x=1").is_ok());
        for bad in [
            "http://c.example/c",
            "https://c.example",
            "https://c.example/#f",
            "https://u@c.example/c",
            "c",
            "https://c.example/a/../c",
        ] {
            assert_eq!(metadata_document_url(bad).unwrap_err().rule(), "client-metadata-url", "{bad}");
        }
    }
}
