//! Authorization servers: their name, where their metadata is, and what it must say (RFC 8414, OIDC Discovery 1.0). Pure.
//!
//! The name is trusted only because the document was read from the name's own well-known place and says the same name
//! (section 3.3). What such a document says of endpoints is the issuer's own word; they may be on other hosts, as with
//! Google and Microsoft. So two things are held to: the document came from the issuer's origin, whatever redirects there
//! were, and each endpoint passes the one URL policy: https, no user name, no fragment, no private address.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    document,
    error::{AuthError, Mender},
    scope::Scopes,
};
use crate::http::guard::{self, Origin, Policy, Purpose};

/// RFC 8414 section 3.1.
const OAUTH: &str = "/.well-known/oauth-authorization-server";
/// OIDC Discovery 1.0 section 4.
const OPENID: &str = "/.well-known/openid-configuration";
/// Option that allows metadata without `code_challenge_methods_supported`.
pub const ALLOW_MISSING_PKCE: &str = "--allow-missing-pkce-metadata";
const WHAT: &str = "the authorization server's metadata";

/// The name of an authorization server, byte for byte as it was published, and a URL that passed the policy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Issuer {
    text: String,
    url: Url,
}

impl Issuer {
    /// A name from outside: a URL without query and fragment (RFC 8414 section 2) that passes the policy.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, AuthError> {
        let refused = |refusal| {
            let what = format!("the authorization server {}", guard::shown_text(text));
            AuthError::from_policy(refusal, Mender::Server, &what)
        };
        let url = guard::parse(text, None).map_err(refused)?;
        policy.check_url(&url, Purpose::Fetch).map_err(refused)?;
        if url.query().is_some() {
            let message = format!("the issuer {} has a query (RFC 8414 section 2)", guard::shown(&url));
            return Err(AuthError::new("issuer-form", Mender::Server, message));
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// The MCP server's own origin, for servers of 2025-03-26 ("Authorization Base URL").
    pub fn of_origin(server: &Url) -> Option<Self> {
        let text = Origin::of(server)?.to_string();
        let url = Url::parse(&text).ok()?;
        Some(Self { text, url })
    }

    /// The name as published. The only form to compare, store and send.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name as a URL: for building others and for looking up quirks.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where its metadata may be, in the specification's order.
    pub fn metadata_urls(&self) -> Vec<Url> {
        let path = self.url.path().strip_suffix('/').unwrap_or(self.url.path());
        let at = |path: &str| {
            let mut url = self.url.clone();
            url.set_path(path);
            url
        };
        if path.is_empty() {
            return vec![at(OAUTH), at(OPENID)];
        }
        vec![at(&format!("{OAUTH}{path}")), at(&format!("{OPENID}{path}")), at(&format!("{path}{OPENID}"))]
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&guard::shown_text(&self.text))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({self})")
    }
}

/// What we ask of the metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// `--allow-missing-pkce-metadata`: go on with S256 where the metadata does not say what it supports.
    pub allow_missing_pkce: bool,
    /// Nobody published the issuer's name: it is the MCP server's origin ([`Issuer::of_origin`]). Then the name may end in
    /// a slash or not, because both lead to the same document.
    pub origin_fallback: bool,
}

/// Metadata that passed. Only this module makes it, so whoever holds one holds a checked one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerMetadata {
    /// Its issuer, as the document names it.
    pub issuer: Issuer,
    /// Where the browser goes. May have parameters of its own.
    pub authorization_endpoint: Url,
    /// Where codes and refresh tokens go.
    pub token_endpoint: Url,
    /// RFC 7591.
    pub registration_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// Optional endpoints that were left out: the member's name and the reason. Worth a line in the log.
    pub refused: Vec<(&'static str, AuthError)>,
    /// `scopes_supported`.
    pub scopes_supported: Option<Scopes>,
    /// `token_endpoint_auth_methods_supported`; `None` when absent, which means `client_secret_basic` (RFC 8414 section 2).
    pub token_auth_methods: Option<Vec<String>>,
    /// `grant_types_supported`; `None` when absent.
    pub grant_types: Option<Vec<String>>,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 section 3).
    pub iss_in_response: bool,
    /// `client_id_metadata_document_supported`.
    pub client_id_metadata_document: bool,
    /// `dpop_signing_alg_values_supported` (RFC 9449 section 5.1); empty when absent.
    pub dpop_algorithms: Vec<String>,
    /// No document was there; the endpoints are the defaults of 2025-03-26.
    pub guessed: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: Option<Value>,
    authorization_endpoint: Option<Value>,
    token_endpoint: Option<Value>,
    registration_endpoint: Option<Value>,
    revocation_endpoint: Option<Value>,
    device_authorization_endpoint: Option<Value>,
    scopes_supported: Option<Value>,
    token_endpoint_auth_methods_supported: Option<Value>,
    grant_types_supported: Option<Value>,
    code_challenge_methods_supported: Option<Value>,
    authorization_response_iss_parameter_supported: Option<Value>,
    client_id_metadata_document_supported: Option<Value>,
    dpop_signing_alg_values_supported: Option<Value>,
}

/// Judges the document that was read from `source` (the last hop's URL) for `issuer`.
pub fn validate(
    bytes: &[u8],
    source: &Url,
    issuer: &Issuer,
    policy: &Policy,
    rules: Rules,
) -> Result<ServerMetadata, AuthError> {
    if !guard::same_origin(source, &issuer.url) {
        // The one who controls an open redirect on the issuer's host would otherwise name its endpoints.
        let error = AuthError::new(
            "metadata-origin",
            Mender::AuthorizationServer,
            format!("{WHAT} was redirected to another origin, which cannot speak for the issuer"),
        );
        let text = |url| Origin::of(url).map_or_else(String::new, |origin| origin.to_string());
        return Err(error.with_differ(&text(&issuer.url), &text(source)));
    }
    let document: Document = document::object(bytes, WHAT, Mender::AuthorizationServer)?;
    let issuer = judge_issuer(document::text(document.issuer.as_ref()).unwrap_or_default(), issuer, rules)?;
    judge_pkce(document.code_challenge_methods_supported.as_ref(), rules)?;
    let mut refused = Vec::new();
    let authorization_endpoint = required(document.authorization_endpoint.as_ref(), "authorization_endpoint", policy)?;
    let token_endpoint = required(document.token_endpoint.as_ref(), "token_endpoint", policy)?;
    let mut optional = |value: Option<&Value>, name: &'static str| match document::text(value)
        .map(|text| endpoint(text, name, policy))
    {
        Some(Ok(url)) => Some(url),
        Some(Err(error)) => {
            refused.push((name, error));
            None
        }
        None => None,
    };
    let registration_endpoint = optional(document.registration_endpoint.as_ref(), "registration_endpoint");
    let revocation_endpoint = optional(document.revocation_endpoint.as_ref(), "revocation_endpoint");
    let device_authorization_endpoint =
        optional(document.device_authorization_endpoint.as_ref(), "device_authorization_endpoint");
    let names = |value: &Option<Value>| -> Option<Vec<String>> {
        document::list(value.as_ref()).map(|list| list.into_iter().map(str::to_owned).collect())
    };
    Ok(ServerMetadata {
        issuer,
        authorization_endpoint,
        token_endpoint,
        registration_endpoint,
        revocation_endpoint,
        device_authorization_endpoint,
        refused,
        scopes_supported: document::list(document.scopes_supported.as_ref()).map(Scopes::of),
        token_auth_methods: names(&document.token_endpoint_auth_methods_supported),
        grant_types: names(&document.grant_types_supported),
        iss_in_response: document::flag(document.authorization_response_iss_parameter_supported.as_ref()),
        client_id_metadata_document: document::flag(document.client_id_metadata_document_supported.as_ref()),
        dpop_algorithms: names(&document.dpop_signing_alg_values_supported).unwrap_or_default(),
        guessed: false,
    })
}

/// Whether the next place may hold a document, where this one was refused: what is there is none at all, as where a web
/// application answers every path with its page. A document that says something wrong ends the search.
pub fn try_next(error: &AuthError) -> bool {
    matches!(error.rule(), "document-json" | "document-size")
}

/// The endpoints of a 2025-03-26 server without any metadata: `/authorize`, `/token` and `/register` at its origin
/// ("Fallbacks for Servers without Metadata Discovery"). Only where no place had a document: never after a refusal.
pub fn default_endpoints(server: &Url, policy: &Policy) -> Result<ServerMetadata, AuthError> {
    let issuer = Issuer::of_origin(server)
        .ok_or_else(|| AuthError::new("url-host", Mender::User, "the server's URL has no host"))?;
    let at = |path: &str| {
        let mut url = issuer.url.clone();
        url.set_path(path);
        endpoint(url.as_str(), path, policy)
    };
    Ok(ServerMetadata {
        authorization_endpoint: at("/authorize")?,
        token_endpoint: at("/token")?,
        registration_endpoint: Some(at("/register")?),
        issuer,
        revocation_endpoint: None,
        device_authorization_endpoint: None,
        refused: Vec::new(),
        scopes_supported: None,
        token_auth_methods: None,
        grant_types: None,
        iss_in_response: false,
        client_id_metadata_document: false,
        dpop_algorithms: Vec::new(),
        guessed: true,
    })
}

fn judge_issuer(named: &str, expected: &Issuer, rules: Rules) -> Result<Issuer, AuthError> {
    let origin_with_slash = rules.origin_fallback && named.strip_suffix('/') == Some(expected.as_str());
    if named == expected.text || origin_with_slash {
        return Ok(Issuer { text: named.to_owned(), url: expected.url.clone() });
    }
    let message = if named.is_empty() {
        format!("{WHAT} names no issuer")
    } else {
        format!("{WHAT} is for another issuer (RFC 8414 section 3.3)")
    };
    let error = AuthError::new("issuer-identical", Mender::AuthorizationServer, message);
    let error = error.with_differ(&expected.text, named);
    // The usual slip is a slash, and it may as well be the resource's owner who copied the name wrongly.
    if named.trim_end_matches('/') == expected.text.trim_end_matches('/') {
        return Err(error.with_hint(
            "they differ by a slash; the owner of the MCP server or of the authorization server must make them the same",
        ));
    }
    Err(error)
}

/// MCP 2026-07-28 "Authorization Code Protection".
fn judge_pkce(methods: Option<&Value>, rules: Rules) -> Result<(), AuthError> {
    match document::list(methods) {
        Some(methods) if methods.contains(&"S256") => Ok(()),
        Some(methods) => {
            let message = format!("{WHAT} offers no PKCE with S256");
            let error = AuthError::new("pkce-s256", Mender::AuthorizationServer, message);
            Err(error.with_differ("S256", &methods.join(" ")))
        }
        None if rules.allow_missing_pkce => Ok(()),
        None => {
            let message = format!("{WHAT} does not say that it supports PKCE (no code_challenge_methods_supported)");
            let error = AuthError::new("pkce-missing", Mender::AuthorizationServer, message);
            Err(error.with_differ("S256", "").with_flag(ALLOW_MISSING_PKCE))
        }
    }
}

fn required(value: Option<&Value>, name: &str, policy: &Policy) -> Result<Url, AuthError> {
    let Some(text) = document::text(value) else {
        let message = format!("{WHAT} has no {name}");
        return Err(AuthError::new("endpoint-missing", Mender::AuthorizationServer, message));
    };
    endpoint(text, name, policy)
}

/// RFC 6749 sections 3.1 and 3.2: absolute, no fragment; and the policy.
fn endpoint(text: &str, name: &str, policy: &Policy) -> Result<Url, AuthError> {
    let refused = |refusal| AuthError::from_policy(refusal, Mender::AuthorizationServer, &format!("the {name}"));
    let url = guard::parse(text, None).map_err(refused)?;
    policy.check_url(&url, Purpose::Fetch).map_err(refused)?;
    Ok(url)
}

/// Entry point for fuzzing both metadata validators.
///
/// # Panics
///
/// When a document that passed breaks a promise.
#[doc(hidden)]
pub fn fuzz_metadata(data: &[u8]) {
    use super::resource;
    let Ok(server) = Url::parse("https://a.example/x/mcp") else { return };
    let Ok(policy) = Policy::new(&server, false, false) else { return };
    let fits = |url: &Url| {
        url.scheme() == "https" && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
            || (url.scheme() == "http" && guard::is_loopback(url))
    };
    for found in resource::candidates(&server, std::str::from_utf8(data).ok(), &policy).list {
        assert!(policy.is_server(&found.url) && fits(&found.url));
        if let Ok(resource) = resource::validate(data, &found, &server, &policy) {
            let url = Url::parse(resource.resource.as_str());
            assert!(url.is_ok_and(|url| guard::same_origin(&url, &server)));
            assert!(resource.authorization_servers.len() <= resource::MAX_ISSUERS);
            for issuer in &resource.authorization_servers {
                assert!(policy.check_url(issuer.url(), Purpose::Fetch).is_ok() && fits(issuer.url()));
                assert!(issuer.metadata_urls().iter().all(|url| guard::same_origin(url, issuer.url())));
            }
        }
    }
    let Ok(issuer) = Issuer::parse("https://as.example/t", &policy) else { return };
    for allow_missing_pkce in [false, true] {
        let rules = Rules { allow_missing_pkce, origin_fallback: false };
        let Ok(metadata) = validate(data, issuer.url(), &issuer, &policy, rules) else { continue };
        assert_eq!(metadata.issuer.as_str(), "https://as.example/t");
        let endpoints = [
            Some(&metadata.authorization_endpoint),
            Some(&metadata.token_endpoint),
            metadata.registration_endpoint.as_ref(),
            metadata.revocation_endpoint.as_ref(),
            metadata.device_authorization_endpoint.as_ref(),
        ];
        for url in endpoints.into_iter().flatten() {
            assert!(policy.check_url(url, Purpose::Fetch).is_ok() && fits(url));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn policy() -> Policy {
        Policy::new(&url("https://mcp.example/mcp"), false, false).unwrap()
    }

    #[test]
    fn places_in_the_specifications_order() {
        let of = |text: &str| -> Vec<String> {
            Issuer::parse(text, &policy()).unwrap().metadata_urls().iter().map(Url::to_string).collect()
        };
        let oauth = "https://auth.example.com/.well-known/oauth-authorization-server";
        let openid = "https://auth.example.com/.well-known/openid-configuration";
        for text in ["https://auth.example.com", "https://auth.example.com/", "HTTPS://Auth.Example.com:443"] {
            assert_eq!(of(text), [oauth, openid], "{text}");
        }
        for text in ["https://auth.example.com/tenant1", "https://auth.example.com/tenant1/"] {
            let appended = "https://auth.example.com/tenant1/.well-known/openid-configuration";
            assert_eq!(of(text), [&format!("{oauth}/tenant1"), &format!("{openid}/tenant1"), appended], "{text}");
        }
    }

    #[test]
    fn names_are_kept_and_judged() {
        for text in ["https://Auth.Example", "https://a.example:443/%7Ex/"] {
            let issuer = Issuer::parse(text, &policy()).unwrap();
            assert_eq!(issuer.as_str(), text);
            assert_ne!(issuer, Issuer::parse(issuer.url().as_str(), &policy()).unwrap());
        }
        #[rustfmt::skip]
        let table = [
            ("file:///etc/passwd", "url-scheme"), ("http://a.example", "plain-http"), ("https://u:p@a.example", "url-userinfo"),
            ("https://a.example#x", "url-fragment"), ("https://a.example?x=1", "issuer-form"), ("a.example", "url-characters"),
            ("https://169.254.169.254", "address-special"), ("https://127.0.0.1", "address-loopback"),
            ("https://10.0.0.1", "address-private"), ("https://[::ffff:10.0.0.1]/", "address-private"), ("", "url-characters"),
            ("https://\u{430}.example", "url-characters"), ("https://a.example\\@b.example", "url-characters"),
        ];
        for (text, rule) in table {
            assert_eq!(Issuer::parse(text, &policy()).unwrap_err().rule(), rule, "{text}");
        }
        let origin = Issuer::of_origin(&url("https://a.example:8443/x/mcp?y")).unwrap();
        assert_eq!(origin.as_str(), "https://a.example:8443");
    }

    #[test]
    fn old_servers_have_their_endpoints_at_the_origin() {
        let metadata = default_endpoints(&url("https://api.example.com/v1/mcp?k=1"), &policy()).unwrap();
        assert_eq!(metadata.authorization_endpoint.as_str(), "https://api.example.com/authorize");
        assert_eq!(metadata.token_endpoint.as_str(), "https://api.example.com/token");
        assert_eq!(metadata.registration_endpoint.unwrap().as_str(), "https://api.example.com/register");
        assert!(metadata.guessed && !metadata.iss_in_response && metadata.issuer.as_str() == "https://api.example.com");
    }

    #[test]
    fn a_slash_is_forgiven_only_where_nobody_published_a_name() {
        let issuer = Issuer::of_origin(&url("https://mcp.example/mcp")).unwrap();
        let text = br#"{"issuer":"https://mcp.example/","authorization_endpoint":"https://mcp.example/a","token_endpoint":"https://mcp.example/t","code_challenge_methods_supported":["S256"]}"#;
        let go = |origin_fallback| {
            let rules = Rules { origin_fallback, ..Rules::default() };
            validate(text, issuer.url(), &issuer, &policy(), rules)
        };
        assert_eq!(go(true).unwrap().issuer.as_str(), "https://mcp.example/");
        let error = go(false).unwrap_err();
        assert_eq!((error.rule(), try_next(&error)), ("issuer-identical", false));
        let page = validate(b"<html>", issuer.url(), &issuer, &policy(), Rules::default()).unwrap_err();
        assert!(try_next(&page), "{page}");
        assert_eq!(error.differ(), Some(("https://mcp.example", "https://mcp.example/")));
        assert!(error.hint().unwrap().contains("slash"));
    }
}
