//! Requests to the token and revocation endpoints, and what comes back (RFC 6749 sections 4.1.3, 5 and 6; RFC 7009). Pure.
//!
//! What was asked for is bound before it goes out: a client, a code or a refresh token of one issuer makes no request to another.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::Pkce;
use crate::{
    auth::{
        document,
        error::{AuthError, Fault, Mender, foreign},
        issuer::ServerMetadata,
        providers::Quirks,
        registration::{AuthMethod, Client, other_issuer},
        resource::ResourceUri,
        scope::Scopes,
        wire::{Answer, Post},
    },
    secret::Secret,
};

/// Longest token that is taken, in bytes. A request head rarely holds more.
pub const MAX_TOKEN: usize = 32 * 1024;
/// Longest token type that a message repeats, in bytes: of the registered names, `DPoP` and `Bearer` are the ones in use.
const MAX_TYPE_SHOWN: usize = 12;
/// Longest lifetime that is believed, in seconds: ten years.
pub const MAX_LIFETIME: u64 = 10 * 365 * 24 * 3600;

/// Errors of a refresh that say, like `invalid_grant` (RFC 6749 section 5.2), that the refresh token is dead or that only the user can go on:
/// GitHub, Slack, Spring's older servers, and OIDC Core section 3.1.2.6 as Entra and others use it.
const DEAD: [&str; 6] = [
    "bad_refresh_token",
    "invalid_refresh_token",
    "invalid_token",
    "interaction_required",
    "login_required",
    "consent_required",
];

/// How a token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// RFC 6750.
    Bearer,
    /// RFC 9449.
    Dpop,
}

impl TokenType {
    /// The scheme of the `Authorization` field.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Dpop => "DPoP",
        }
    }
}

/// What an authorization server gave.
#[derive(Clone)]
pub struct TokenSet {
    /// The issuer that gave it and that alone may see the refresh token.
    pub issuer: String,
    /// For the MCP server. A b64token (RFC 6750 section 2.1), so it fits into a header.
    pub access: Secret,
    /// How to present it.
    pub token_type: TokenType,
    /// Seconds from the answer on; `None` when not said.
    pub expires_in: Option<u64>,
    /// For the issuer; after a refresh that returned none, the one before.
    pub refresh: Option<Secret>,
    /// What was granted; where the server does not say, what was asked for (RFC 6749 section 5.1).
    pub scope: Option<Scopes>,
    /// ID token (OIDC), not verified.
    pub id_token: Option<Secret>,
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("token_type", &self.token_type)
            .field("expires_in", &self.expires_in)
            .field("refresh", &self.refresh.is_some())
            .finish_non_exhaustive()
    }
}

/// The exchange of a code (RFC 6749 section 4.1.3 with RFC 7636 section 4.5 and RFC 8707 section 2).
pub fn exchange_request(
    metadata: &ServerMetadata,
    client: &Client,
    code: &Secret,
    pkce: &Pkce,
    redirect_uri: &str,
    resource: Option<&ResourceUri>,
    quirks: &Quirks,
) -> Result<Post, AuthError> {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("redirect_uri", redirect_uri),
        ("code_verifier", pkce.verifier().expose()),
    ];
    fields.extend(named(resource, quirks));
    authenticated(&metadata.token_endpoint, metadata, client, fields)
}

/// A refresh (RFC 6749 section 6). `scope` is what the tokens were asked for; it is sent only where the provider needs it.
pub fn refresh_request(
    metadata: &ServerMetadata,
    client: &Client,
    tokens: &TokenSet,
    resource: Option<&ResourceUri>,
    scope: Option<&Scopes>,
    quirks: &Quirks,
) -> Result<Post, AuthError> {
    check_issuer(tokens, metadata)?;
    let Some(refresh) = &tokens.refresh else {
        let message = "the authorization server gave no refresh token";
        return Err(AuthError::new("no-refresh-token", Mender::User, message)
            .with_fault(Fault::GrantDead)
            .with_hint("sign in again"));
    };
    let scope = scope.filter(|_| quirks.repeat_scope_on_refresh).map(ToString::to_string);
    let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
    fields.extend(named(resource, quirks));
    fields.extend(scope.as_deref().map(|text| ("scope", text)));
    authenticated(&metadata.token_endpoint, metadata, client, fields)
}

/// The revocation of a login (RFC 7009): of its refresh token, which ends the grant, else of its access token. `None` when the
/// server has no such endpoint.
pub fn revocation_request(
    metadata: &ServerMetadata,
    client: &Client,
    tokens: &TokenSet,
) -> Result<Option<Post>, AuthError> {
    check_issuer(tokens, metadata)?;
    let Some(endpoint) = &metadata.revocation_endpoint else {
        return Ok(None);
    };
    let (token, hint) = match &tokens.refresh {
        Some(refresh) => (refresh, "refresh_token"),
        None => (&tokens.access, "access_token"),
    };
    let fields = vec![("token", token.expose()), ("token_type_hint", hint)];
    authenticated(endpoint, metadata, client, fields).map(Some)
}

fn named<'a>(resource: Option<&'a ResourceUri>, quirks: &Quirks) -> Option<(&'static str, &'a str)> {
    resource.filter(|_| !quirks.omit_resource).map(|uri| ("resource", uri.as_str()))
}

fn check_issuer(tokens: &TokenSet, metadata: &ServerMetadata) -> Result<(), AuthError> {
    if tokens.issuer == metadata.issuer.as_str() {
        return Ok(());
    }
    Err(other_issuer("the tokens belong to another authorization server", &tokens.issuer, &metadata.issuer))
}

/// RFC 6749 section 2.3.1; a public client names itself (section 3.2.1). Never both ways at once.
fn authenticated<'a>(
    endpoint: &Url,
    metadata: &ServerMetadata,
    client: &'a Client,
    mut fields: Vec<(&'a str, &'a str)>,
) -> Result<Post, AuthError> {
    client.check_issuer(&metadata.issuer)?;
    match (client.method, &client.secret) {
        (AuthMethod::Basic, Some(secret)) => Ok(Post::form(endpoint.clone(), &fields).basic(&client.id, secret)),
        (AuthMethod::Post, Some(secret)) => {
            fields.extend([("client_id", &*client.id), ("client_secret", secret.expose())]);
            Ok(Post::form(endpoint.clone(), &fields))
        }
        _ => {
            fields.push(("client_id", &client.id));
            Ok(Post::form(endpoint.clone(), &fields))
        }
    }
}

/// What an answer of the token endpoint is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who answers.
    pub metadata: &'a ServerMetadata,
    /// How the provider differs.
    pub quirks: &'a Quirks,
    /// The scopes that were asked for.
    pub requested: Option<&'a Scopes>,
    /// The tokens that were refreshed; `None` for the exchange of a code.
    pub previous: Option<&'a TokenSet>,
    /// Whether the request had a `DPoP` proof, so that a token bound to it is of use.
    pub dpop: bool,
    /// What the request held: taken out of a server's words before they are shown.
    pub secrets: &'a [&'a Secret],
}

impl Context<'_> {
    /// What is going on, for errors.
    pub fn doing(&self) -> &'static str {
        if self.previous.is_some() { "refreshing the token" } else { "redeeming the authorization code" }
    }
}

#[derive(Deserialize)]
struct Body {
    access_token: Option<Value>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
    refresh_token: Option<Value>,
    scope: Option<Value>,
    id_token: Option<Value>,
    error: Option<Value>,
    error_description: Option<Value>,
}

/// The tokens in an answer, or what its error means:
///
/// - [`Fault::GrantDead`]: only a definite `invalid_grant` or a known equivalent in a 2xx or 4xx. The token or code is not sent again.
/// - [`Fault::ClientRejected`]: register anew, then sign in.
/// - [`Fault::Denied`]: another definite refusal. A new sign-in may help; the old token is not known to be dead.
/// - [`Fault::Transient`]: a 5xx, a 429, a body that is no OAuth answer. Nothing has ended.
/// - [`Fault::Refused`]: the answer breaks a rule, and its tokens are not used.
pub fn token_set(answer: &Answer, context: &Context<'_>) -> Result<TokenSet, AuthError> {
    let status = answer.status;
    if !(status.is_success() || status.is_client_error()) || matches!(status.as_u16(), 408 | 429) {
        return Err(answer.transient(context.doing()));
    }
    let what = "the token endpoint's answer";
    let body: Body = document::object(&answer.body, what, Mender::AuthorizationServer).map_err(|error| {
        // A portal or a firewall in between answers so; it says nothing about the grant.
        let message = format!("{} (HTTP {})", error, status.as_u16());
        AuthError::new("token-answer", Mender::AuthorizationServer, message)
            .with_fault(Fault::Transient { retry_after: answer.retry_after })
    })?;
    // Some servers answer errors with 200.
    if !status.is_success() || (body.error.is_some() && body.access_token.is_none()) {
        return Err(failure(&body, answer, context));
    }
    let refuse = |rule, message: String| AuthError::new(rule, Mender::AuthorizationServer, message);
    let Some(access) = document::text(body.access_token.as_ref()) else {
        let error = refuse("token-missing", format!("{what} has no access_token"));
        // As above: a JSON text of somebody in between says nothing about the login.
        let passes = context.previous.is_some() && body.refresh_token.is_none();
        return Err(if passes {
            error.with_fault(Fault::Transient { retry_after: answer.retry_after })
        } else {
            error
        });
    };
    if !is_b64token(access) {
        let message = format!("{what} has an access_token that cannot go into a header (RFC 6750 section 2.1)");
        return Err(refuse("token-syntax", message));
    }
    let token_type = document::text(body.token_type.as_ref()).unwrap_or_default();
    let token_type = judge_type(token_type, context.dpop)?;
    let refresh = document::text(body.refresh_token.as_ref());
    // RFC 6749 appendix A.17.
    if refresh.is_some_and(|text| text.len() > MAX_TOKEN || !text.bytes().all(|b| matches!(b, b' '..=b'~'))) {
        return Err(refuse(
            "token-syntax",
            format!("{what} has a refresh_token that is too long or holds a character that it may not"),
        ));
    }
    let granted = document::list(body.scope.as_ref()).map(Scopes::of).filter(|scopes| !scopes.is_empty());
    let before = context.previous.and_then(|previous| previous.scope.as_ref());
    Ok(TokenSet {
        issuer: context.metadata.issuer.as_str().to_owned(),
        access: Secret::new(access),
        token_type,
        expires_in: document::seconds(body.expires_in.as_ref())
            .filter(|&left| left > 0)
            .map(|left| left.min(MAX_LIFETIME)),
        refresh: refresh.map(Secret::new).or_else(|| context.previous?.refresh.clone()),
        scope: granted.or_else(|| before.or(context.requested).cloned()),
        id_token: document::text(body.id_token.as_ref()).filter(|text| is_b64token(text)).map(Secret::new),
    })
}

/// Whether a refused answer had a token in it all the same: what was sent for it is spent.
pub fn is_unusable(error: &AuthError) -> bool {
    error.fault() == Fault::Refused && matches!(error.rule(), "token-type" | "token-syntax")
}

/// RFC 6749 section 7.1: a token of a type that is not understood is not used.
fn judge_type(name: &str, dpop: bool) -> Result<TokenType, AuthError> {
    if name.eq_ignore_ascii_case("bearer") {
        return Ok(TokenType::Bearer);
    }
    if dpop && name.eq_ignore_ascii_case("dpop") {
        return Ok(TokenType::Dpop);
    }
    let message = "the token is of a type that is not understood, so it is not used (RFC 6749 section 7.1)";
    let want = if dpop { "Bearer or DPoP" } else { "Bearer" };
    // Who mixes up the members gives a token here.
    let shown = if name.len() <= MAX_TYPE_SHOWN { name } else { "a longer text" };
    Err(AuthError::new("token-type", Mender::AuthorizationServer, message).with_differ(want, shown))
}

/// RFC 6750 section 2.1: letters, digits and `-._~+/`, then any number of `=`.
fn is_b64token(text: &str) -> bool {
    let letters = text.trim_end_matches('=');
    text.len() <= MAX_TOKEN
        && !letters.is_empty()
        && letters.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

fn failure(body: &Body, answer: &Answer, context: &Context<'_>) -> AuthError {
    let status = answer.status.as_u16();
    let doing = context.doing();
    let Some(code) = document::text(body.error.as_ref()) else {
        let message = format!("{doing}: HTTP {status}, without an OAuth error");
        return AuthError::new("token-answer", Mender::AuthorizationServer, message)
            .with_fault(Fault::Transient { retry_after: answer.retry_after });
    };
    let refresh = context.previous.is_some();
    let dead = code == "invalid_grant"
        || refresh && (DEAD.contains(&code) || context.quirks.dead_refresh_codes.contains(&code));
    let (rule, fault, mender, hint) = match code {
        _ if dead && refresh => ("grant-dead", Fault::GrantDead, Mender::User, "sign in again"),
        _ if dead => {
            ("grant-dead", Fault::GrantDead, Mender::User, "the code was too old, or used before: sign in again")
        }
        "invalid_client" | "unauthorized_client" => (
            "client-rejected",
            Fault::ClientRejected,
            Mender::User,
            "sign in again; with a client id of your own, look at its settings at the authorization server",
        ),
        "temporarily_unavailable" | "server_error" | "slow_down" => (
            "server-busy",
            Fault::Transient { retry_after: answer.retry_after },
            Mender::Nobody,
            "try again in a while",
        ),
        "invalid_target" => (
            "invalid-target",
            Fault::Denied,
            Mender::AuthorizationServer,
            "name the resource as the authorization server does with --resource, or leave it out with --disable-resource-parameter",
        ),
        _ => (
            "token-refused",
            Fault::Denied,
            Mender::AuthorizationServer,
            "sign in again; if it goes on, tell the authorization server's owner",
        ),
    };
    let said = masked(document::text(body.error_description.as_ref()).unwrap_or_default(), context.secrets);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let code = masked(code, context.secrets);
    AuthError::new(rule, mender, format!("{doing}: {code} (HTTP {status}){said}")).with_fault(fault).with_hint(hint)
}

/// A server's words without what we sent it.
fn masked(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(|secret| secret.expose()).filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[hidden]");
    }
    foreign(&text)
}

/// The answer to a revocation.
pub(super) fn revoked(answer: &Answer, doing: &str) -> Result<(), AuthError> {
    if answer.status.is_success() {
        return Ok(());
    }
    if answer.status.is_server_error() || answer.status.as_u16() == 429 {
        return Err(answer.transient(doing));
    }
    let message = format!("{doing}: HTTP {}", answer.status.as_u16());
    Err(AuthError::new("revocation-refused", Mender::AuthorizationServer, message).with_fault(Fault::Denied))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::auth::{
        providers,
        registration::{Origin, test_metadata},
    };

    fn client(method: AuthMethod) -> Client {
        Client {
            issuer: "https://as.example".to_owned(),
            id: "me&x".to_owned(),
            secret: (method != AuthMethod::None).then(|| Secret::new("s cret")),
            method,
            secret_expires_at: None,
            origin: Origin::Dynamic,
        }
    }

    fn tokens(refresh: Option<&str>) -> TokenSet {
        TokenSet {
            issuer: "https://as.example".to_owned(),
            access: Secret::new("old-access"),
            token_type: TokenType::Bearer,
            expires_in: None,
            refresh: refresh.map(Secret::new),
            scope: Some(Scopes::parse("a")),
            id_token: None,
        }
    }

    fn body(post: &Post) -> &str {
        post.body().expose()
    }

    #[test]
    fn requests() {
        let metadata = test_metadata(&json!({"revocation_endpoint": "https://as.example/revoke"}));
        let resource = ResourceUri::restored("https://mcp.example");
        let none = Quirks::default();
        let pkce = Pkce::restored(Secret::new("ver"));
        let exchange = |method, quirks| {
            exchange_request(
                &metadata,
                &client(method),
                &Secret::new("c d"),
                &pkce,
                "http://localhost:1/cb",
                Some(&resource),
                quirks,
            )
            .unwrap()
        };
        let start =
            "grant_type=authorization_code&code=c+d&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcb&code_verifier=ver";
        let post = exchange(AuthMethod::None, &none);
        assert_eq!(body(&post), format!("{start}&resource=https%3A%2F%2Fmcp.example&client_id=me%26x"));
        assert_eq!((post.url.as_str(), post.authorization().is_none()), ("https://as.example/token", true));
        let post = exchange(AuthMethod::Post, &none);
        assert!(body(&post).ends_with("&client_id=me%26x&client_secret=s+cret") && post.authorization().is_none());
        let post = exchange(AuthMethod::Basic, &none);
        assert!(!body(&post).contains("client_id") && post.authorization().unwrap().expose().starts_with("Basic "));
        let entra = providers::quirks(&Url::parse("https://login.microsoftonline.com/x").unwrap());
        assert_eq!(body(&exchange(AuthMethod::None, entra)), format!("{start}&client_id=me%26x"));
        let scope = Scopes::parse("a b");
        let refresh = |quirks| {
            refresh_request(
                &metadata,
                &client(AuthMethod::None),
                &tokens(Some("r")),
                Some(&resource),
                Some(&scope),
                quirks,
            )
            .unwrap()
        };
        assert_eq!(
            body(&refresh(&none)),
            "grant_type=refresh_token&refresh_token=r&resource=https%3A%2F%2Fmcp.example&client_id=me%26x"
        );
        assert_eq!(body(&refresh(entra)), "grant_type=refresh_token&refresh_token=r&scope=a+b&client_id=me%26x");
        let revoke = |set: &TokenSet| revocation_request(&metadata, &client(AuthMethod::None), set).unwrap().unwrap();
        assert_eq!(body(&revoke(&tokens(Some("r")))), "token=r&token_type_hint=refresh_token&client_id=me%26x");
        assert_eq!(body(&revoke(&tokens(None))), "token=old-access&token_type_hint=access_token&client_id=me%26x");
        assert!(
            revocation_request(&test_metadata(&json!({})), &client(AuthMethod::None), &tokens(None)).unwrap().is_none()
        );
    }

    #[test]
    fn nothing_goes_to_another_issuer() {
        let other = test_metadata(&json!({"issuer": "https://other.example"}));
        let pkce = Pkce::restored(Secret::new("v"));
        let none = Quirks::default();
        let moved = Client { issuer: "https://other.example".to_owned(), ..client(AuthMethod::Post) };
        let mut refused = Vec::new();
        refused.extend(
            exchange_request(&other, &client(AuthMethod::Post), &Secret::new("c"), &pkce, "u", None, &none).err(),
        );
        refused.extend(refresh_request(&other, &client(AuthMethod::Post), &tokens(Some("r")), None, None, &none).err());
        refused.extend(refresh_request(&other, &moved, &tokens(Some("r")), None, None, &none).err());
        refused.extend(revocation_request(&other, &moved, &tokens(Some("r"))).err());
        assert_eq!(refused.len(), 4);
        for error in refused {
            assert_eq!(error.rule(), "issuer-binding");
            assert_eq!(error.differ(), Some(("https://as.example", "https://other.example")));
        }
        let metadata = test_metadata(&json!({}));
        let error =
            refresh_request(&metadata, &client(AuthMethod::None), &tokens(None), None, None, &none).unwrap_err();
        assert_eq!((error.rule(), error.fault()), ("no-refresh-token", Fault::GrantDead));
    }

    #[test]
    fn words_of_a_server_hold_nothing_that_we_sent() {
        let metadata = test_metadata(&json!({}));
        let (code, previous) = (Secret::new("the-code"), tokens(Some("r")));
        let context = Context {
            metadata: &metadata,
            quirks: &Quirks::default(),
            requested: None,
            previous: None,
            dpop: false,
            secrets: &[&code],
        };
        let answer = |text: &str| Answer::new(StatusCode::BAD_REQUEST, text.to_owned());
        let error = token_set(
            &answer(r#"{"error":"invalid_grant","error_description":"code the-code\u001b[31m is old"}"#),
            &context,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "redeeming the authorization code: invalid_grant (HTTP 400): code [hidden]?[31m is old"
        );
        let context = Context { previous: Some(&previous), ..context };
        let ok = Answer::new(StatusCode::OK, r#"{"access_token":"hidden","token_type":"Bearer"}"#);
        let set = token_set(&ok, &context).unwrap();
        assert_eq!((set.refresh.unwrap().expose(), set.scope), ("r", Some(Scopes::parse("a"))));
        assert!(!format!("{:?}", token_set(&ok, &context)).contains("hidden"));
    }

    #[test]
    fn limits_are_reached() {
        assert!(is_b64token(&"a".repeat(MAX_TOKEN)) && !is_b64token(&"a".repeat(MAX_TOKEN + 1)));
        for bad in ["", "=", "a=b", "a b", "a\r\nX: y", "a\0", "\u{e4}", "a|b"] {
            assert!(!is_b64token(bad), "{bad:?}");
        }
        assert!(is_b64token("eyJ.a-_~+/=="));
    }
}
