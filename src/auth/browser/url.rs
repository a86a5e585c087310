//! The only URLs that a browser is given. Pure.

use std::fmt::{self, Write as _};

use url::Url;

use crate::http::guard::{self, MAX_URL, Policy, Purpose, Refusal};
use crate::secret::SafeUrl;

/// Parameters of the authorization request that are ours. Where the server's endpoint brings one along, it is taken out:
/// each may be there once (RFC 6749 section 3.1), and `request` or `request_uri` would replace them all (RFC 9101).
pub const OURS: [&str; 11] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "request",
    "request_uri",
];

/// A URL that passed the policy, written anew: ASCII, without blanks, quotes and other characters that any shell heeds,
/// but for `&`, `;`, `*` and `!`, which belong to URLs. At most [`MAX_URL`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct BrowserUrl(Url);

impl BrowserUrl {
    /// A URL that a server named, as for URL elicitation.
    pub fn new(text: &str, policy: &Policy) -> Result<Self, Refusal> {
        Self::checked(&guard::parse(text, None)?, policy)
    }

    /// An authorization request: the server's endpoint with our parameters, form-encoded (RFC 6749 appendix B).
    ///
    /// Parameters that the endpoint brings along are kept (section 3.1), unless they are [`OURS`] or among `parameters`.
    pub fn authorization(endpoint: &str, parameters: &[(&str, &str)], policy: &Policy) -> Result<Self, Refusal> {
        let mut url = guard::parse(endpoint, None)?;
        policy.check_url(&url, Purpose::Fetch)?;
        let ours = |name: &str| OURS.contains(&name) || parameters.iter().any(|(own, _)| *own == name);
        let brought: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        if brought.iter().any(|(name, _)| ours(name)) {
            url.set_query(None);
            url.query_pairs_mut().extend_pairs(brought.iter().filter(|(name, _)| !ours(name)));
        }
        url.query_pairs_mut().extend_pairs(parameters);
        Self::checked(&url, policy)
    }

    fn checked(url: &Url, policy: &Policy) -> Result<Self, Refusal> {
        policy.check_url(url, Purpose::Fetch)?;
        let text = encode(url.as_str());
        let url = guard::parse(&text, None)?;
        policy.check_url(&url, Purpose::Fetch)?;
        if url.as_str() != text || text.len() > MAX_URL {
            return Err(Refusal::new("url-characters", format!("{} reads in two ways", guard::shown(&url))));
        }
        Ok(Self(url))
    }

    /// The text for the browser and for the user. It holds the sign-in's `state`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The origin, for telling the user where the sign-in takes place.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

/// Without the query, which is secret.
impl fmt::Debug for BrowserUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SafeUrl(&self.0).fmt(f)
    }
}

/// Percent-encodes what RFC 3986 does not have in a URL, the quotes, `$` and parentheses, and each `%` that is no escape.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = || bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!*+,;=&".contains(&byte) || (byte == b'%' && escape()) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(&Url::parse("https://server.example/mcp").unwrap(), false, false).unwrap()
    }

    #[test]
    fn our_parameters_win() {
        let endpoint = "https://as.example/authorize?tenant=a%20b&redirect_uri=https%3A%2F%2Fevil.example&state=x&request_uri=y&state=z";
        let parameters =
            [("client_id", "a&scope=admin#x"), ("state", "s"), ("scope", "read\r\nwrite \u{202e}"), ("tenant2", "t")];
        let url = BrowserUrl::authorization(endpoint, &parameters, &policy()).unwrap();
        assert_eq!(
            url.as_str(),
            "https://as.example/authorize?tenant=a+b&client_id=a%26scope%3Dadmin%23x&state=s&scope=read%0D%0Awrite+%E2%80%AE&tenant2=t"
        );
        let plain = BrowserUrl::authorization("https://as.example/a?x=1&y=%20", &[("state", "s")], &policy()).unwrap();
        assert_eq!(plain.as_str(), "https://as.example/a?x=1&y=%20&state=s");
        let fragment = BrowserUrl::authorization("https://as.example/a#x", &[("state", "s")], &policy());
        assert_eq!(fragment.unwrap_err().rule, "url-fragment");
    }

    #[test]
    fn the_length_is_bounded_after_encoding_too() {
        let exact = format!("https://as.example/{}", "x".repeat(MAX_URL - 19));
        assert_eq!(BrowserUrl::new(&exact, &policy()).unwrap().as_str(), exact);
        assert_eq!(BrowserUrl::new(&format!("{exact}x"), &policy()).unwrap_err().rule, "url-length");
        let grows = format!("https://as.example/{}", "$".repeat(MAX_URL / 2));
        assert_eq!(BrowserUrl::new(&grows, &policy()).unwrap_err().rule, "url-length");
        let long = "x".repeat(MAX_URL);
        let refused = BrowserUrl::authorization("https://as.example/", &[("state", &long)], &policy());
        assert_eq!(refused.unwrap_err().rule, "url-length");
    }

    #[test]
    fn what_is_logged_has_no_query() {
        let url = BrowserUrl::new("https://as.example/authorize?state=s3cret", &policy()).unwrap();
        assert_eq!(format!("{url:?}"), "https://as.example/authorize?…");
        assert_eq!(url.origin(), "https://as.example");
    }
}
