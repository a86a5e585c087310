//! Redirects (RFC 9110 section 15.4), decided one hop at a time. Pure.
//!
//! A library that follows redirects by itself sends body, custom headers and session id wherever it is told. Here:
//!
//! - 307 and 308 repeat method and body. 301, 302 and 303 are followed for GET and HEAD; for anything else they are an error,
//!   because the repeated request would be another one.
//! - The MCP endpoint moves within its origin only (or from http to https on the same host, both on their default port): headers,
//!   cookies, session id and body are for that origin alone. Elsewhere: `redirect-cross-origin`, and the user decides.
//! - From https to http: never (`redirect-downgrade`).
//! - At most `max_redirects` hops; a URL that comes up twice is a loop, unless a cookie was set in between.

use http::{Method, StatusCode};
use url::Url;

use super::{
    HttpError, HttpErrorKind, RedirectRule,
    guard::{self, Policy, Purpose, Refusal},
};

/// What to do with a response.
#[derive(Debug)]
pub(super) enum Step {
    /// It is the answer.
    Deliver,
    /// Ask there instead.
    Follow {
        url: Url,
        /// Leave out credentials, cookies and everything else that was meant for the first origin.
        strip: bool,
    },
}

/// The hops of one request.
pub(super) struct Walk<'a> {
    policy: &'a Policy,
    rule: RedirectRule,
    limit: usize,
    hops: usize,
    visited: Vec<Url>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(policy: &'a Policy, rule: RedirectRule, limit: usize) -> Self {
        Self { policy, rule, limit, hops: 0, visited: Vec::new() }
    }

    /// Decides on a response of `current`. `cookie_set`: it changed a cookie, so the same URL may now answer otherwise.
    pub(super) fn step(
        &mut self,
        status: StatusCode,
        location: Option<&[u8]>,
        method: &Method,
        current: &Url,
        cookie_set: bool,
    ) -> Result<Step, HttpError> {
        if self.rule == RedirectRule::Never || !is_redirect(status) {
            return Ok(Step::Deliver);
        }
        // Without Location it is an answer like any other.
        let Some(location) = location else {
            return Ok(Step::Deliver);
        };
        let url = target(location, current).map_err(|refusal| {
            let message = format!("the server redirects ({status}) badly: {refusal}");
            HttpError::new(HttpErrorKind::Redirect, message).definite(true)
        })?;
        let strip = self.check_origin(&url, current)?;
        let repeats = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !repeats && method != Method::GET && method != Method::HEAD {
            let shown = guard::shown(&url);
            let message = format!("the server answers {method} with a redirect ({}) to {shown}", status.as_u16());
            return Err(HttpError::new(HttpErrorKind::Redirect, message)
                .definite(true)
                .with_hint(format!("if the MCP server moved there, put {shown} into the configuration")));
        }
        self.hops += 1;
        if self.hops > self.limit {
            let message = format!("more than {} redirects, the last to {}", self.limit, guard::shown(&url));
            return Err(HttpError::new(HttpErrorKind::Redirect, message));
        }
        if cookie_set {
            self.visited.clear();
        }
        self.visited.push(current.clone());
        if self.visited.contains(&url) {
            let message = format!("the server redirects in a loop: {} comes up twice", guard::shown(&url));
            return Err(HttpError::new(HttpErrorKind::Redirect, message));
        }
        Ok(Step::Follow { url, strip })
    }

    /// Whether the hop may be made, and whether it leaves the origin.
    fn check_origin(&self, url: &Url, current: &Url) -> Result<bool, HttpError> {
        let shown = guard::shown(url);
        if current.scheme() == "https" && url.scheme() == "http" {
            let mut secure = url.clone();
            let hint = match secure.set_scheme("https") {
                // Servers behind a TLS proxy that do not know of it answer so, mostly for a slash at the end.
                Ok(()) if url.host() == current.host() => {
                    format!("put {} into the configuration", guard::shown(&secure))
                }
                _ => "the server's owner must mend it".to_owned(),
            };
            let message = format!("the server redirects from https to {shown}, unencrypted");
            return Err(Refusal::new("redirect-downgrade", message).hint(hint).into());
        }
        if guard::same_origin(url, current) {
            return Ok(false);
        }
        match self.rule {
            RedirectRule::SameOrigin | RedirectRule::Never => {
                let upgrade = self.policy.server().is(current) && self.policy.is_server(url);
                if upgrade {
                    return Ok(false);
                }
                let message = format!("the server redirects to another origin: {shown}");
                let hint = format!("if you trust it, put {shown} into the configuration");
                Err(Refusal::new("redirect-cross-origin", message).hint(hint).into())
            }
            RedirectRule::CrossOriginWithoutCredentials => {
                self.policy.check_url(url, Purpose::Fetch)?;
                Ok(true)
            }
        }
    }
}

/// 300, 304, 305 and 306 are not followed by anybody.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// RFC 9110 section 10.2.2, without the fragment, which stays with the client.
fn target(location: &[u8], current: &Url) -> Result<Url, Refusal> {
    let text =
        std::str::from_utf8(location).map_err(|_| Refusal::new("url-characters", "the URL is not ASCII".to_owned()))?;
    let mut url = guard::parse(text, Some(current))?;
    url.set_fragment(None);
    // Form and scheme; where it may lead depends on the rule.
    guard::check_form(&url)?;
    Ok(url)
}
