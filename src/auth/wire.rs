//! The requests of signing in, one at a time, over the program's one HTTP client.
//!
//! None of them carries the user's headers. Documents are fetched without credentials and follow redirects under the
//! policy. What carries a code, a secret or a token is posted, and a redirect is not followed: whoever it names would read
//! them (RFC 9700 section 4.12).

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::{Url, form_urlencoded};

use super::{
    document::MAX_DOCUMENT,
    error::{AuthError, Fault, Mender},
};
use crate::{
    http::{HttpClient, HttpError, HttpRequest, RedirectRule, guard},
    secret::{SafeUrl, Secret, without_keys_of},
};

/// Limit for one request with its whole answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Most decoded bytes of an answer.
pub const MAX_ANSWER: usize = MAX_DOCUMENT;
/// Longest wait that a server may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// What was found at a place for metadata.
#[derive(Debug)]
pub enum Document {
    /// Something. Whether it is a document is for the validators to say.
    Found {
        /// The body.
        bytes: Bytes,
        /// The URL of the last hop.
        source: Url,
    },
    /// Nothing: a 4xx.
    Absent {
        /// Status.
        status: u16,
    },
}

/// Fetches a metadata document. `version` is the MCP revision for `MCP-Protocol-Version` (2025-03-26 "Server Metadata
/// Discovery Headers"); `what` names the document in an error: `the resource metadata`.
///
/// A 5xx, a 429 and a failing network are [`Fault::Transient`].
pub async fn get_document(
    http: &HttpClient,
    url: &Url,
    version: Option<&str>,
    what: &str,
) -> Result<Document, AuthError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(JSON));
    if let Some(version) = version.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert("mcp-protocol-version", version);
    }
    let request = HttpRequest {
        method: Method::GET,
        url: url.clone(),
        headers,
        body: Bytes::new(),
        redirects: RedirectRule::CrossOriginWithoutCredentials,
        event_stream: false,
    };
    let (answer, source) = exchange(http, request, &format!("reading {what}")).await?;
    match answer.status.as_u16() {
        200..=299 => Ok(Document::Found { bytes: answer.body, source }),
        408 | 429 | 500.. => Err(answer.transient(&format!("reading {what} from {}", shown(&source)))),
        status => Ok(Document::Absent { status }),
    }
}

/// A request that may carry secrets. It shows none.
#[derive(Clone)]
pub struct Post {
    /// The issuer's endpoint.
    pub url: Url,
    content_type: &'static str,
    authorization: Option<Secret>,
    body: Secret,
}

impl Post {
    /// A JSON body.
    pub(super) fn json(url: Url, body: &serde_json::Value) -> Self {
        Self { url, content_type: JSON, authorization: None, body: Secret::new(body.to_string()) }
    }

    /// A form (RFC 6749 appendix B).
    pub(super) fn form(url: Url, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Self { url, content_type: FORM, authorization: None, body: Secret::new(body) }
    }

    /// Client authentication by header (RFC 6749 section 2.3.1): both parts form-encoded before they are joined.
    pub(super) fn basic(mut self, client_id: &str, secret: &Secret) -> Self {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(client_id), encode(secret.expose()));
        self.authorization = Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))));
        self
    }

    /// The body, for tests and for signing.
    pub fn body(&self) -> &Secret {
        &self.body
    }

    /// The `Authorization` field, if it has one.
    pub fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }

    fn request(&self) -> HttpRequest {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(value) = self.authorization.as_ref().and_then(|secret| HeaderValue::from_str(secret.expose()).ok())
        {
            let mut value = value;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        HttpRequest {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body: Bytes::from(self.body.expose().to_owned()),
            redirects: RedirectRule::Never,
            event_stream: false,
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("url", &guard::shown(&self.url)).finish_non_exhaustive()
    }
}

/// What an endpoint answered. It may hold tokens, so it shows nothing of the body.
#[derive(Clone)]
pub struct Answer {
    /// Status; never a redirect.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
    /// `Retry-After` in seconds (RFC 9110 section 10.2.3), bounded by [`MAX_RETRY_AFTER`]. A date is not read.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// An answer for a test or from elsewhere.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), retry_after: None }
    }

    /// A fault that passes.
    pub(super) fn transient(&self, doing: &str) -> AuthError {
        AuthError::new("server-busy", Mender::Nobody, format!("{doing}: HTTP {}", self.status.as_u16()))
            .with_fault(Fault::Transient { retry_after: self.retry_after })
            .with_hint("try again in a while")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

/// Posts to an endpoint. `doing` is for errors: `refreshing the token`. Every status but a redirect is an answer.
pub async fn post(http: &HttpClient, request: &Post, doing: &str) -> Result<Answer, AuthError> {
    let (answer, source) = exchange(http, request.request(), doing).await?;
    if answer.status.is_redirection() {
        let status = answer.status.as_u16();
        let message =
            format!("{doing}: {} redirects (HTTP {status}), and what was sent is for it alone", shown(&source));
        return Err(AuthError::new("endpoint-redirect", Mender::AuthorizationServer, message));
    }
    Ok(answer)
}

async fn exchange(http: &HttpClient, request: HttpRequest, doing: &str) -> Result<(Answer, Url), AuthError> {
    let whole = async {
        let response = http.send(request).await?;
        let (status, url) = (response.status, response.url.clone());
        tracing::debug!("{doing}: HTTP {} from {}", status.as_u16(), SafeUrl(&url));
        let retry_after = retry_after(&response.headers);
        let body = response.bytes(MAX_ANSWER).await?;
        Ok((Answer { status, body, retry_after }, url))
    };
    within(REQUEST_TIMEOUT, Box::pin(whole), doing).await
}

/// The MCP server's own path is part of its metadata's address, and may hold a key.
fn shown(url: &Url) -> String {
    without_keys_of(url, &guard::shown(url))
}

async fn within<T>(
    limit: Duration,
    whole: impl Future<Output = Result<T, HttpError>>,
    doing: &str,
) -> Result<T, AuthError> {
    if let Ok(result) = tokio::time::timeout(limit, whole).await {
        return result.map_err(|error| AuthError::from_http(&error, doing));
    }
    let message = format!("{doing}: no whole answer within {} seconds", limit.as_secs());
    Err(AuthError::new("no-answer", Mender::Nobody, message).with_fault(Fault::Transient { retry_after: None }))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let url = Url::parse("https://as.example/token?k=hidden").unwrap();
        let post = Post::form(url, &[("code", "hidden")]).basic("me", &Secret::new("hidden"));
        let answer = Answer::new(StatusCode::OK, "hidden");
        assert!(!format!("{post:?} {answer:?} {:?}", post.request()).contains("hidden"));
        assert!(post.request().headers[header::AUTHORIZATION].is_sensitive());
    }

    #[tokio::test]
    async fn an_answer_that_drips_is_given_up() {
        let error = within::<()>(Duration::from_millis(5), std::future::pending(), "asking").await.unwrap_err();
        assert_eq!((error.rule(), error.fault()), ("no-answer", Fault::Transient { retry_after: None }));
    }

    #[test]
    fn credentials_are_form_encoded_before_they_are_joined() {
        // RFC 6749 section 2.3.1 with appendix B.
        let url = Url::parse("https://as.example/token").unwrap();
        let post = Post::form(url, &[]).basic("a:b c", &Secret::new("p%\u{e9}+"));
        let field = post.authorization().unwrap().expose().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(STANDARD.decode(field).unwrap(), b"a%3Ab+c:p%25%C3%A9%2B");
    }

    #[test]
    fn retry_after_is_bounded() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(of("5"), Some(Duration::from_secs(5)));
        assert_eq!(of("99999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
