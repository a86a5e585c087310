//! What comes back from the browser: the redirect URI, and whether a request or a pasted text is the pending sign-in's answer.
//! Pure; `auth/redirect.rs` listens.

mod judge;
pub mod paste;
mod request;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Url;

use crate::http::guard::{self, Refusal};

pub use judge::{Answer, Expectation, MAX_PARAMETER, Refused, Reply, Verdict, fuzz_redirect, judge};
use judge::{printable, reply_of};
pub use request::{BadRequest, MAX_HEAD, MAX_HEADERS, Request, parse_request};

/// First port of the range that mcp-remote derives ports from.
const FIRST_PORT: u16 = 3335;
/// Ports of that range.
const PORT_RANGE: u16 = 45_816;
/// Longest callback path, in bytes.
const MAX_PATH: usize = 1024;

/// Where a callback arrives when nothing else was said.
pub const DEFAULT_PATH: &str = "/oauth/callback";

/// The first port to try for a server, from the hexadecimal hash of its URL: as mcp-remote derives it, so that redirect
/// URIs registered by it stay valid. `None` when the text does not begin with four hexadecimal digits.
pub fn derive_port(hash: &str) -> Option<u16> {
    let digits = hash.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let number = u16::from_str_radix(digits, 16).ok()?;
    Some(FIRST_PORT + number % PORT_RANGE)
}

/// The host of the redirect URI (`--host`). Loopback alone: a listener on any other address is open to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectHost {
    /// `localhost`: a browser may take it for 127.0.0.1 or for `::1`, so both are listened on.
    Localhost,
    /// `127.0.0.1`.
    V4,
    /// `::1`, written `[::1]` in a URL.
    V6,
}

impl RedirectHost {
    /// Reads `--host`. The error is for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "localhost" => Ok(Self::Localhost),
            "127.0.0.1" => Ok(Self::V4),
            "::1" | "[::1]" => Ok(Self::V6),
            _ => Err(format!(
                "the redirect host {:?} is not loopback; use localhost, 127.0.0.1 or ::1",
                guard::shown_text(text)
            )),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Localhost => "localhost",
            Self::V4 => "127.0.0.1",
            Self::V6 => "[::1]",
        }
    }

    /// The addresses that a browser may reach it at.
    pub(crate) fn addresses(self) -> &'static [IpAddr] {
        const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
        match self {
            Self::Localhost => &[V4, V6],
            Self::V4 => &[V4],
            Self::V6 => &[V6],
        }
    }
}

/// The path of the redirect URI (`--callback-path`): only what every browser sends as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackPath(Box<str>);

impl CallbackPath {
    /// Reads `--callback-path`. The error is for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = |why: &str| Err(format!("the callback path {:?} {why}", guard::shown_text(text)));
        if !text.starts_with('/') || text.starts_with("//") {
            return error("must begin with one slash");
        }
        if text.len() > MAX_PATH {
            return error("is too long");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/!$&()*+,;=:@".contains(&b)) {
            return error("has a character that browsers do not send as it is");
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return error("has a segment `.` or `..`, which browsers take out");
        }
        Ok(Self(text.into()))
    }

    /// The path as it stands in the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CallbackPath {
    fn default() -> Self {
        Self(DEFAULT_PATH.into())
    }
}

/// A redirect URI on loopback. Its text is what is registered, sent to the authorization server and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    host: RedirectHost,
    port: u16,
    path: CallbackPath,
}

impl RedirectUri {
    /// For a sign-in that another process began; this one's own comes from `Listener::redirect_uri`.
    pub fn new(host: RedirectHost, port: u16, path: CallbackPath) -> Self {
        Self { host, port, path }
    }

    /// Reads the text of one of ours, as [`Display`](fmt::Display) writes it.
    pub fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (host, port) = authority.rsplit_once(':')?;
        let uri = Self {
            host: RedirectHost::parse(host).ok()?,
            port: port.parse().ok()?,
            path: CallbackPath::parse(path).ok()?,
        };
        (uri.to_string() == text).then_some(uri)
    }

    /// Port that the browser comes back to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path.
    pub fn path(&self) -> &CallbackPath {
        &self.path
    }

    /// Whether a `Host` field names this host and port (RFC 9110 section 7.2). Any other name leads here by DNS rebinding.
    pub(crate) fn is_host(&self, field: &str) -> bool {
        let rest = field.get(..self.host.as_str().len()).filter(|head| head.eq_ignore_ascii_case(self.host.as_str()));
        match rest.and_then(|head| field.get(head.len()..)) {
            Some("") => self.port == 80,
            Some(rest) => rest.strip_prefix(':').is_some_and(|port| port == self.port.to_string()),
            None => false,
        }
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host.as_str(), self.port, self.path.as_str())
    }
}

/// Where the browser goes after a sign-in that succeeded (`--auth-success-url`), instead of our page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessUrl(Box<str>);

impl SuccessUrl {
    /// The user's own choice: `https`, or `http` to loopback (anywhere with `--allow-http`); no user name, query, fragment.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, Refusal> {
        let url = guard::parse(text, None)?;
        guard::Policy::new(&url, allow_http, false)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Refusal::new("url-query", "the success URL has a query or a fragment".to_owned())
                .hint("give a plain address, as in https://example.com/done"));
        }
        Ok(Self(Url::as_str(&url).into()))
    }

    /// The URL, ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_mcp_remotes() {
        assert_eq!(derive_port("92d222637c6a62a33a3518de94f28749"), Some(40_921));
        let table = [
            ("0000", Some(3335)),
            ("b2f7", Some(49_150)),
            ("b2f8", Some(3335)),
            ("ffff", Some(23_054)),
            ("FFFF", Some(23_054)),
            ("", None),
            ("123", None),
            ("12g4", None),
            ("+123", None),
            ("\u{e9}12", None),
        ];
        for (hash, port) in table {
            assert_eq!(derive_port(hash), port, "{hash}");
        }
    }

    #[test]
    fn hosts_are_loopback() {
        use RedirectHost::{Localhost, V4, V6};
        for (text, host) in
            [("localhost", Localhost), ("LocalHost", Localhost), ("127.0.0.1", V4), ("::1", V6), ("[::1]", V6)]
        {
            assert_eq!(RedirectHost::parse(text), Ok(host));
        }
        for text in ["", "0.0.0.0", "::", "example.com", "localhost.", "127.0.0.1.nip.io", "10.0.0.1", "localhost:80"] {
            assert!(RedirectHost::parse(text).unwrap_err().contains("not loopback"), "{text}");
        }
    }

    #[test]
    fn paths_are_what_browsers_send() {
        for text in ["/", "/oauth/callback", "/a;b=c/@x:y", "/a//b", "/..."] {
            assert_eq!(CallbackPath::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "oauth",
            "//evil.example/",
            "/a?b",
            "/a#b",
            "/a b",
            "/%41",
            "/\u{e9}",
            "/a\\b",
            "/a/../b",
            "/.",
            "/\"",
            "/'",
        ] {
            CallbackPath::parse(text).unwrap_err();
        }
        assert!(CallbackPath::parse(&format!("/{}", "x".repeat(MAX_PATH - 1))).is_ok());
        CallbackPath::parse(&format!("/{}", "x".repeat(MAX_PATH))).unwrap_err();
        assert_eq!(CallbackPath::default(), CallbackPath::parse(DEFAULT_PATH).unwrap());
    }

    #[test]
    fn the_uri_and_its_host_field() {
        let uri = RedirectUri::new(RedirectHost::Localhost, 3335, CallbackPath::default());
        assert_eq!(uri.to_string(), "http://localhost:3335/oauth/callback");
        let table = [
            ("localhost:3335", true),
            ("LOCALHOST:3335", true),
            ("localhost", false),
            ("localhost:80", false),
            ("localhost:03335", false),
            ("localhost:33350", false),
            ("localhost.:3335", false),
            ("localhost.evil.example:3335", false),
            ("evil.example:3335", false),
            ("127.0.0.1:3335", false),
            ("[::1]:3335", false),
            ("", false),
            ("localhos\u{e9}:3335", false),
        ];
        for (field, accepted) in table {
            assert_eq!(uri.is_host(field), accepted, "{field}");
        }
        let v6 = RedirectUri::new(RedirectHost::V6, 3335, CallbackPath::default());
        assert_eq!(v6.to_string(), "http://[::1]:3335/oauth/callback");
        assert!(v6.is_host("[::1]:3335") && !v6.is_host("[::2]:3335") && !v6.is_host("localhost:3335"));
        let plain = RedirectUri::new(RedirectHost::V4, 80, CallbackPath::default());
        for uri in [&uri, &v6, &plain] {
            assert_eq!(RedirectUri::read(&uri.to_string()).as_ref(), Some(uri));
        }
        for text in [
            "",
            "http://localhost",
            "http://localhost/x",
            "https://localhost:1/x",
            "http://a.example:1/x",
            "http://[::1]:x/",
        ] {
            assert_eq!(RedirectUri::read(text), None, "{text}");
        }
        assert!(plain.is_host("127.0.0.1") && plain.is_host("127.0.0.1:80") && !plain.is_host("127.0.0.1:"));
    }

    #[test]
    fn success_urls() {
        for (text, allow_http) in
            [("https://a.example/done", false), ("http://localhost:3000/x", false), ("http://a.example/", true)]
        {
            assert_eq!(SuccessUrl::parse(text, allow_http).unwrap().as_str(), text);
        }
        #[rustfmt::skip]
        let table = [
            ("http://a.example/", "plain-http"), ("https://u@a.example/", "url-userinfo"), ("https://a.example/?x", "url-query"),
            ("https://a.example/#x", "url-query"), ("javascript:alert(1)", "url-scheme"), ("https://a.example/\r\nX: y", "url-characters"),
        ];
        for (text, rule) in table {
            assert_eq!(SuccessUrl::parse(text, false).unwrap_err().rule, rule, "{text}");
        }
    }
}
