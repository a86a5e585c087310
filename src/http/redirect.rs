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
use crate::secret::without_keys_of;

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

    /// Whether a redirect was followed.
    pub(super) fn has_moved(&self) -> bool {
        self.hops > 0
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
            let shown = for_people(&url, current);
            let message = format!("the server answers {method} with a redirect ({}) to {shown}", status.as_u16());
            return Err(HttpError::new(HttpErrorKind::Redirect, message)
                .definite(true)
                .with_hint(format!("if the MCP server moved there, put {shown} into the configuration")));
        }
        self.hops += 1;
        if self.hops > self.limit {
            let message = format!("more than {} redirects, the last to {}", self.limit, for_people(&url, current));
            return Err(HttpError::new(HttpErrorKind::Redirect, message));
        }
        if cookie_set {
            self.visited.clear();
        } else {
            self.visited.push(current.clone());
        }
        if self.visited.contains(&url) {
            let message = format!("the server redirects in a loop: {} comes up twice", for_people(&url, current));
            return Err(HttpError::new(HttpErrorKind::Redirect, message));
        }
        Ok(Step::Follow { url, strip })
    }

    /// Whether the hop may be made, and whether it leaves the origin.
    fn check_origin(&self, url: &Url, current: &Url) -> Result<bool, HttpError> {
        let shown = for_people(url, current);
        if current.scheme() == "https" && url.scheme() == "http" {
            let mut secure = url.clone();
            let hint = match secure.set_scheme("https") {
                // Servers behind a TLS proxy that do not know of it answer so, mostly for a slash at the end.
                Ok(()) if url.host() == current.host() => {
                    format!("put {} into the configuration", for_people(&secure, current))
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

/// A target for messages, without what may be the user's key in the URL that was asked for.
fn for_people(url: &Url, current: &Url) -> String {
    without_keys_of(current, &guard::shown(url))
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

#[cfg(test)]
mod tests {
    use super::*;
    use RedirectRule::{CrossOriginWithoutCredentials, Never, SameOrigin};

    const SERVER: &str = "https://a.example/mcp";

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// `""`: deliver; else the target, with `-` in front where credentials are left out, or `!` and the kind or rule of the error.
    fn one(server: &str, rule: RedirectRule, method: &str, status: u16, location: Option<&str>) -> String {
        let policy = Policy::new(&url(server), true, false).unwrap();
        let mut walk = Walk::new(&policy, rule, 5);
        let step = walk.step(
            StatusCode::from_u16(status).unwrap(),
            location.map(str::as_bytes),
            &method.parse().unwrap(),
            &url(server),
            false,
        );
        match step {
            Ok(Step::Deliver) => String::new(),
            Ok(Step::Follow { url, strip: false }) => url.to_string(),
            Ok(Step::Follow { url, strip: true }) => format!("-{url}"),
            Err(error) => match error.kind() {
                HttpErrorKind::Policy { rule, .. } => format!("!{rule}"),
                kind => format!("!{kind:?}"),
            },
        }
    }

    #[test]
    fn one_hop() {
        #[rustfmt::skip]
        let table: &[(RedirectRule, &str, u16, Option<&str>, &str)] = &[
            // The usual slash.
            (SameOrigin, "POST", 307, Some("/mcp/"), "https://a.example/mcp/"),
            (SameOrigin, "POST", 308, Some("https://a.example:443/v2#x"), "https://a.example/v2"),
            (SameOrigin, "DELETE", 307, Some("/mcp/"), "https://a.example/mcp/"),
            (SameOrigin, "GET", 301, Some("/mcp/"), "https://a.example/mcp/"),
            (SameOrigin, "GET", 302, Some("x"), "https://a.example/x"),
            (SameOrigin, "HEAD", 303, Some("?q=1"), "https://a.example/mcp?q=1"),
            // A POST does not become a GET.
            (SameOrigin, "POST", 301, Some("/mcp/"), "!Redirect"),
            (SameOrigin, "POST", 302, Some("/login"), "!Redirect"),
            (SameOrigin, "POST", 303, Some("/x"), "!Redirect"),
            (SameOrigin, "DELETE", 301, Some("/x"), "!Redirect"),
            // Elsewhere.
            (SameOrigin, "POST", 307, Some("https://b.example/mcp"), "!redirect-cross-origin"),
            (SameOrigin, "POST", 302, Some("https://login.example/"), "!redirect-cross-origin"),
            (SameOrigin, "GET", 302, Some("//b.example/mcp"), "!redirect-cross-origin"),
            (SameOrigin, "GET", 307, Some("https://a.example:8443/mcp"), "!redirect-cross-origin"),
            (SameOrigin, "GET", 307, Some("https://a.example./mcp"), "!redirect-cross-origin"),
            (SameOrigin, "POST", 307, Some("http://a.example/mcp/"), "!redirect-downgrade"),
            (SameOrigin, "POST", 307, Some("http://127.0.0.1/"), "!redirect-downgrade"),
            // Not to be followed.
            (SameOrigin, "GET", 307, Some("ftp://a.example/"), "!Redirect"),
            (SameOrigin, "GET", 307, Some("javascript:alert(1)"), "!Redirect"),
            (SameOrigin, "GET", 307, Some("https://u:p@a.example/"), "!Redirect"),
            (SameOrigin, "GET", 307, Some("https://a.example\\@b.example/"), "!Redirect"),
            (SameOrigin, "GET", 307, Some("/\u{fc}"), "!Redirect"),
            (SameOrigin, "GET", 307, Some("https://"), "!Redirect"),
            (SameOrigin, "GET", 307, None, ""),
            (SameOrigin, "GET", 300, Some("/x"), ""),
            (SameOrigin, "GET", 304, Some("/x"), ""),
            (SameOrigin, "GET", 305, Some("/x"), ""),
            (SameOrigin, "POST", 200, Some("/x"), ""),
            (SameOrigin, "POST", 201, Some("/x"), ""),
            (Never, "POST", 307, Some("https://b.example/"), ""),
            // Metadata.
            (CrossOriginWithoutCredentials, "GET", 302, Some("https://b.example/m"), "-https://b.example/m"),
            (CrossOriginWithoutCredentials, "GET", 302, Some("/m"), "https://a.example/m"),
            (CrossOriginWithoutCredentials, "GET", 302, Some("https://127.0.0.1/m"), "!address-loopback"),
            (CrossOriginWithoutCredentials, "GET", 302, Some("https://169.254.169.254/m"), "!address-special"),
            (CrossOriginWithoutCredentials, "GET", 302, Some("http://b.example/m"), "!redirect-downgrade"),
        ];
        for (rule, method, status, location, want) in table {
            let got = one(SERVER, *rule, method, *status, *location);
            assert_eq!(got, *want, "{rule:?} {method} {status} {location:?}");
        }
    }

    #[test]
    fn http_may_become_https_on_the_same_host() {
        let go = |to| one("http://a.example/mcp", SameOrigin, "POST", 308, Some(to));
        assert_eq!(go("https://a.example/mcp"), "https://a.example/mcp");
        assert_eq!(go("https://b.example/mcp"), "!redirect-cross-origin");
        assert_eq!(go("https://a.example:8443/mcp"), "!redirect-cross-origin");
        let local = one("http://127.0.0.1:3000/", SameOrigin, "POST", 307, Some("https://127.0.0.1:3001/"));
        assert_eq!(local, "!redirect-cross-origin");
    }

    #[test]
    fn errors_say_where_to_without_the_query() {
        let policy = Policy::new(&url(SERVER), false, false).unwrap();
        for (location, target) in [
            ("https://b.example/new?token=secret", "https://b.example/new"),
            ("http://a.example/mcp/?token=secret", "https://a.example/mcp/"),
        ] {
            let mut walk = Walk::new(&policy, SameOrigin, 5);
            let error = walk
                .step(StatusCode::TEMPORARY_REDIRECT, Some(location.as_bytes()), &Method::POST, &url(SERVER), false)
                .unwrap_err();
            let hint = error.hint().unwrap();
            assert!(hint.contains(target) && hint.contains("configuration"), "{hint}");
            assert!(!format!("{error} {hint} {error:?}").contains("secret"));
            assert!(error.is_definite() && !error.surely_unsent());
        }
    }

    /// Steps through `hops`, from the server on.
    fn walk(limit: usize, hops: &[(&str, bool)]) -> Result<(), String> {
        let policy = Policy::new(&url(SERVER), false, false).unwrap();
        let mut walk = Walk::new(&policy, SameOrigin, limit);
        let mut current = url(SERVER);
        for (location, cookie_set) in hops {
            let status = StatusCode::TEMPORARY_REDIRECT;
            match walk.step(status, Some(location.as_bytes()), &Method::POST, &current, *cookie_set) {
                Ok(Step::Follow { url, .. }) => current = url,
                Ok(Step::Deliver) => return Err("delivered".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    proptest::proptest! {
        /// Whatever a server writes into `Location`, headers and bodies stay with it.
        #[test]
        fn nothing_leaves_the_origin(location in ".{0,40}|(https?:)?//(a\\.example|b\\.example)?[:@/\\\\?#a-z0-9.]{0,20}", status in 300_u16..310) {
            let policy = Policy::new(&url(SERVER), true, true).unwrap();
            let mut walk = Walk::new(&policy, SameOrigin, 5);
            let status = StatusCode::from_u16(status).unwrap();
            let step = walk.step(status, Some(location.as_bytes()), &Method::GET, &url(SERVER), false);
            if let Ok(Step::Follow { url: target, strip }) = step {
                assert!(guard::same_origin(&target, &url(SERVER)), "{target}");
                assert!(!strip && target.username().is_empty() && target.fragment().is_none());
            }
        }
    }

    #[test]
    fn loops_and_long_ways_end() {
        let five = [("/1", false), ("/2", false), ("/3", false), ("/4", false), ("/5", false)];
        assert_eq!(walk(5, &five), Ok(()));
        assert!(walk(4, &five).unwrap_err().contains("more than 4 redirects"));
        assert!(walk(0, &five).unwrap_err().contains("more than 0 redirects"));
        assert!(walk(5, &[("/mcp", false)]).unwrap_err().contains("loop"));
        assert!(walk(5, &[("/x", false), ("/mcp", false)]).unwrap_err().contains("loop"));
        assert!(walk(5, &[("/x", false), ("/y", false), ("/x", false)]).unwrap_err().contains("loop"));
        // A balancer that sets its cookie and sends the client back; one that does nothing else.
        assert_eq!(walk(5, &[("/mcp", true)]), Ok(()));
        assert_eq!(walk(5, &[("/x", true), ("/mcp", false)]), Ok(()));
        assert!(walk(5, &[("/mcp", true); 6]).unwrap_err().contains("more than 5"));
    }
}
