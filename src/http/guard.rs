//! The one policy for URLs and addresses. Pure: no lookups, no connections.
//!
//! Every URL that did not come from the user (redirects, `endpoint` events, later metadata and sign-in pages) passes
//! [`parse`] and [`Policy::check_url`]; every address that a name resolves to passes [`Policy::check_address`] before it is
//! connected to. A [`Refusal`] names its rule and, where there is one, the option that lifts it.
//!
//! | rule | what it refuses |
//! |---|---|
//! | `url-length` | over 8 KiB |
//! | `url-characters` | control characters, blanks, backslashes, anything outside ASCII; a text that is no URL |
//! | `url-scheme` | anything but `https` and `http` |
//! | `url-host` | no host, or one that is no name of a computer, such as `$(id).example` |
//! | `url-userinfo` | `user:password@` (RFC 3986 section 7.5) |
//! | `url-fragment` | `#...` in a URL that a server named |
//! | `plain-http` | `http` to anything but loopback |
//! | `address-loopback`, `address-private`, `address-special` | a public server that leads us to such an address |
//! | `redirect-cross-origin`, `redirect-downgrade` | see `redirect.rs` |
//! | `request-origin` | a request with credentials to another origin than the server's |
//!
//! What it cannot see: a proxy resolves names by itself, so behind one only literal addresses are checked.

mod address;
mod origin;

use std::{fmt, net::IpAddr};

use url::{Host, Url};

pub use address::AddressClass;
pub use origin::{Origin, same_origin};

/// Longest URL that is accepted from anybody, in bytes.
pub const MAX_URL: usize = 8 * 1024;
/// Longest piece of a URL or name that is repeated in a message, in characters.
const MAX_SHOWN: usize = 200;

/// Option that allows `http` beyond loopback.
pub const ALLOW_HTTP: &str = "--allow-http";
/// Option that lets URLs named by a server lead to private addresses.
pub const ALLOW_PRIVATE: &str = "--allow-private-address";

/// Who named a URL, and so what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The MCP server's URL: the user's own choice, any address is fine.
    Server,
    /// A URL that a server named and that we fetch.
    Fetch,
}

/// A refusal: the rule that made it, the option that lifts it, one sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the rule, stable.
    pub rule: &'static str,
    /// Option that would allow it.
    pub flag: Option<&'static str>,
    /// What was refused and why. Holds no query, no user name, no password.
    pub message: String,
    /// What to do about it, where the option is not the answer.
    pub hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(rule: &'static str, message: String) -> Self {
        Self { rule, flag: None, message, hint: None }
    }

    fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The server's own URL from the command line: `https`, `http` to loopback, or any `http` with `--allow-http`.
///
/// An international host name becomes punycode; a fragment is dropped, because it never goes out (RFC 9110 section 4.2.1).
pub fn parse_server(text: &str, allow_http: bool) -> Result<Url, Refusal> {
    let text = text.trim();
    check_text(text, true)?;
    let mut url = match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") && looks_like_host(text) => {
            return Err(no_scheme(text));
        }
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => return Err(no_scheme(text)),
        Err(error) => return Err(not_a_url(error)),
    };
    url.set_fragment(None);
    Policy::new(&url, allow_http, false)?;
    Ok(url)
}

/// A URL from outside, absolute or relative to `base`. Check it with [`Policy::check_url`] before use.
pub fn parse(text: &str, base: Option<&Url>) -> Result<Url, Refusal> {
    check_text(text, false)?;
    Url::options().base_url(base).parse(text).map_err(not_a_url)
}

/// A URL parser repairs what it is given (it drops tabs, turns `\` into `/`); whoever reads the same text next may not.
fn check_text(text: &str, international: bool) -> Result<(), Refusal> {
    if text.len() > MAX_URL {
        return Err(Refusal::new("url-length", format!("the URL is longer than {MAX_URL} bytes")));
    }
    let bad = |c: char| c == '\\' || c.is_control() || c.is_whitespace() || (!international && !c.is_ascii());
    match text.chars().find(|&c| bad(c)) {
        Some(c) => Err(Refusal::new(
            "url-characters",
            format!("the URL has a character that does not belong there: {}", c.escape_default()),
        )),
        None => Ok(()),
    }
}

/// `example.com:8080/mcp` parses as a URL with the scheme `example.com`.
fn looks_like_host(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, rest)| {
        (host.contains('.') || host == "localhost") && rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

fn no_scheme(text: &str) -> Refusal {
    Refusal::new("url-scheme", "the server's URL has no scheme".to_owned())
        .hint(format!("write https://{}", shown_text(text)))
}

fn not_a_url(error: url::ParseError) -> Refusal {
    match error {
        url::ParseError::EmptyHost => Refusal::new("url-host", "the URL has no host".to_owned()),
        error => Refusal::new("url-characters", format!("not a URL: {error}")),
    }
}

/// The policy of one run: what the user allowed, and what kind of server it is for.
#[derive(Clone, Debug)]
pub struct Policy {
    server: Origin,
    /// Class of the server's literal address, or loopback for `localhost`; `None` for a name.
    server_class: Option<AddressClass>,
    allow_http: bool,
    allow_private: bool,
}

impl Policy {
    /// The policy for `server`, which is checked itself.
    pub fn new(server: &Url, allow_http: bool, allow_private: bool) -> Result<Self, Refusal> {
        check_form(server)?;
        let origin = Origin::of(server).ok_or_else(|| no_host(server))?;
        let policy = Self { server: origin, server_class: literal_class(server), allow_http, allow_private };
        policy.check_url(server, Purpose::Server)?;
        Ok(policy)
    }

    /// The server's origin.
    pub fn server(&self) -> &Origin {
        &self.server
    }

    /// Whether this is the server's origin, or that made secure.
    pub fn is_server(&self, url: &Url) -> bool {
        self.server.is(url) || self.server.upgrades_to(url)
    }

    /// Whether this host was named by the user as the server's.
    pub fn is_server_host(&self, host: &str) -> bool {
        self.server.host() == host
    }

    /// Refuses a URL by form, scheme and literal address.
    pub fn check_url(&self, url: &Url, purpose: Purpose) -> Result<(), Refusal> {
        check_form(url)?;
        if purpose == Purpose::Fetch && url.fragment().is_some() {
            return Err(Refusal::new("url-fragment", format!("{} has a fragment", shown(url))));
        }
        let class = literal_class(url);
        if url.scheme() == "http" && class != Some(AddressClass::Loopback) && !self.allow_http {
            return Err(plain_http(url));
        }
        match class {
            Some(class) if !url.host_str().is_some_and(|host| self.is_server_host(host)) => {
                self.check_class(class, purpose, &shown(url))
            }
            _ => Ok(()),
        }
    }

    /// Refuses an address that a name of a URL with this purpose resolved to.
    pub fn check_address(&self, ip: IpAddr, host: &str, purpose: Purpose) -> Result<(), Refusal> {
        if self.is_server_host(host) {
            return Ok(());
        }
        self.check_class(AddressClass::of(ip), purpose, &shown_text(host))
    }

    fn check_class(&self, class: AddressClass, purpose: Purpose, what: &str) -> Result<(), Refusal> {
        use AddressClass::{Loopback, Private, Public};
        // A server on this machine, or in the private network, tells us nothing that it could not reach itself.
        let local = self.server_class == Some(Loopback);
        let inside = local || self.server_class == Some(Private) || self.allow_private;
        let allowed = match class {
            _ if purpose == Purpose::Server => true,
            Public => true,
            Loopback => local,
            Private => inside,
            _ => false,
        };
        if allowed {
            return Ok(());
        }
        let rule = match class {
            Loopback => "address-loopback",
            Private => "address-private",
            _ => "address-special",
        };
        let refusal = Refusal::new(rule, format!("the server leads to {what}, which is a {class} address"));
        Err(if class == Private { refusal.flag(ALLOW_PRIVATE) } else { refusal })
    }
}

/// Whether the URL's host is loopback by its form: `localhost`, a name under it (RFC 6761 section 6.3), or a literal.
///
/// The resolver gives such names loopback addresses without asking anybody.
pub fn is_loopback(url: &Url) -> bool {
    literal_class(url) == Some(AddressClass::Loopback)
}

/// Whether it is `localhost` or a name under it.
pub fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn literal_class(url: &Url) -> Option<AddressClass> {
    match url.host()? {
        Host::Ipv4(ip) => Some(AddressClass::of(ip.into())),
        Host::Ipv6(ip) => Some(AddressClass::of(ip.into())),
        Host::Domain(name) => is_localhost(name).then_some(AddressClass::Loopback),
    }
}

pub(super) fn check_form(url: &Url) -> Result<(), Refusal> {
    if url.as_str().len() > MAX_URL {
        return check_text(url.as_str(), false);
    }
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("the scheme {:?} is neither https nor http", shown_text(url.scheme()));
        return Err(Refusal::new("url-scheme", message));
    }
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err(no_host(url));
    }
    // What a host name is made of (RFC 1123, and `_`), or an IPv6 address. URL parsers let more through, which a shell would heed.
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b)) {
        return Err(Refusal::new("url-host", format!("{} has a host that is no name of a computer", shown(url))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::new("url-userinfo", format!("{} has a user name or password in it", shown(url)))
            .hint("take it out; credentials go into a header"));
    }
    Ok(())
}

fn no_host(url: &Url) -> Refusal {
    Refusal::new("url-host", format!("{} has no host", shown(url)))
}

fn plain_http(url: &Url) -> Refusal {
    let refusal = Refusal::new("plain-http", format!("{} is not encrypted", shown(url))).flag(ALLOW_HTTP);
    match url.host() {
        Some(Host::Ipv4(ip)) if ip.is_unspecified() => {
            refusal.hint("0.0.0.0 is where a server listens; connect to 127.0.0.1 instead")
        }
        _ => refusal.hint(format!("use https, or {ALLOW_HTTP} in a network that you trust")),
    }
}

/// A URL for messages: origin and path, no query (it may hold secrets), no user name, bounded.
pub fn shown(url: &Url) -> String {
    let Some(origin) = Origin::of(url) else {
        return shown_text(url.scheme());
    };
    let query = if url.query().is_some() { "?..." } else { "" };
    shown_text(&format!("{origin}{}{query}", url.path()))
}

/// A text of a server for messages: printable ASCII only, bounded.
pub fn shown_text(text: &str) -> String {
    let mut out: String =
        text.chars().take(MAX_SHOWN).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn policy(server: &str) -> Policy {
        Policy::new(&url(server), true, false).unwrap()
    }

    #[test]
    fn the_servers_url() {
        #[rustfmt::skip]
        let table: &[(&str, bool, Result<&str, &str>)] = &[
            ("https://a.example/mcp", false, Ok("https://a.example/mcp")),
            ("  https://a.example/mcp\n", false, Ok("https://a.example/mcp")),
            ("https://a.example/mcp?key=1#frag", false, Ok("https://a.example/mcp?key=1")),
            ("HTTPS://A.Example:443", false, Ok("https://a.example/")),
            ("https://bücher.example/ü", false, Ok("https://xn--bcher-kva.example/%C3%BC")),
            ("https://10.0.0.1/mcp", false, Ok("https://10.0.0.1/mcp")),
            ("http://localhost:3000/mcp", false, Ok("http://localhost:3000/mcp")),
            ("http://app.localhost/mcp", false, Ok("http://app.localhost/mcp")),
            ("http://127.0.0.1:1", false, Ok("http://127.0.0.1:1/")),
            ("http://127.9.9.9", false, Ok("http://127.9.9.9/")),
            ("http://[::1]:8080/x", false, Ok("http://[::1]:8080/x")),
            ("http://2130706433/", false, Ok("http://127.0.0.1/")),
            ("http://0177.0.0.1/", false, Ok("http://127.0.0.1/")),
            ("http://a.example", true, Ok("http://a.example/")),
            ("http://169.254.169.254/", true, Ok("http://169.254.169.254/")),
            ("http://a.example", false, Err("plain-http")),
            ("http://localhost.evil.example", false, Err("plain-http")),
            ("http://notlocalhost", false, Err("plain-http")),
            ("http://0.0.0.0:8000", false, Err("plain-http")),
            ("http://10.0.0.1", false, Err("plain-http")),
            ("http://localhost@evil.example", false, Err("url-userinfo")),
            ("https://u:p@a.example", false, Err("url-userinfo")),
            ("https://u@a.example", false, Err("url-userinfo")),
            ("http://evil.example\\@127.0.0.1/", false, Err("url-characters")),
            ("https://a.example/\tx", false, Err("url-characters")),
            ("https://a.example/a b", false, Err("url-characters")),
            ("https://a.example/\u{202e}x", false, Ok("https://a.example/%E2%80%AEx")),
            ("https://a.example/\u{7f}", false, Err("url-characters")),
            ("https://a b.example/", false, Err("url-characters")),
            ("https://a%00.example/", false, Err("url-characters")),
            ("a.example/mcp", false, Err("url-scheme")),
            ("a.example:8080/mcp", false, Err("url-scheme")),
            ("localhost:3000", false, Err("url-scheme")),
            ("ftp://a.example", true, Err("url-scheme")),
            ("file:///etc/passwd", true, Err("url-scheme")),
            ("javascript:alert(1)", true, Err("url-scheme")),
            ("--debug", false, Err("url-scheme")),
            ("https://", false, Err("url-host")),
            ("https://$(id).example/", false, Err("url-host")),
            ("https://a_b.example/", false, Ok("https://a_b.example/")),
            ("", false, Err("url-scheme")),
        ];
        for (text, allow_http, want) in table {
            let got = parse_server(text, *allow_http);
            let got = got.as_ref().map(Url::as_str).map_err(|r| r.rule);
            assert_eq!(got, *want, "{text}");
        }
        assert_eq!(parse_server("http://a.example", false).unwrap_err().flag, Some(ALLOW_HTTP));
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        assert_eq!(parse_server(&long, false).unwrap_err().rule, "url-length");
        let hint = parse_server("a.example:8080/mcp", false).unwrap_err().hint.unwrap();
        assert_eq!(hint, "write https://a.example:8080/mcp");
    }

    /// What kinds of servers may lead us where.
    #[test]
    fn named_urls() {
        const PUBLIC: &str = "https://server.example/mcp";
        const LOCAL: &str = "http://localhost:3000/mcp";
        const PRIVATE: &str = "https://10.1.1.1/mcp";
        #[rustfmt::skip]
        let table: &[(&str, &str, Result<(), &str>)] = &[
            (PUBLIC, "https://auth.example/x?y=z", Ok(())),
            (PUBLIC, "https://server.example:8443/", Ok(())),
            (PUBLIC, "https://8.8.8.8/", Ok(())),
            (PUBLIC, "https://127.0.0.1/", Err("address-loopback")),
            (PUBLIC, "http://localhost/", Err("address-loopback")),
            (PUBLIC, "https://x.localhost/", Err("address-loopback")),
            (PUBLIC, "https://[::1]/", Err("address-loopback")),
            (PUBLIC, "https://[::ffff:127.0.0.1]/", Err("address-loopback")),
            (PUBLIC, "https://0x7f.1/", Err("address-loopback")),
            (PUBLIC, "https://10.0.0.1/", Err("address-private")),
            (PUBLIC, "https://[fd00::1]/", Err("address-private")),
            (PUBLIC, "https://169.254.169.254/", Err("address-special")),
            (PUBLIC, "https://[64:ff9b::a9fe:a9fe]/", Err("address-special")),
            (PUBLIC, "https://0.0.0.0/", Err("address-special")),
            (PUBLIC, "https://u@auth.example/", Err("url-userinfo")),
            (PUBLIC, "https://auth.example/#x", Err("url-fragment")),
            (PUBLIC, "https://$(id).example/", Err("url-host")),
            (PUBLIC, "https://`id`.example/", Err("url-host")),
            (PUBLIC, "https://a&calc.example/", Err("url-host")),
            (PUBLIC, "https://a;id.example/", Err("url-host")),
            (PUBLIC, "https://a'b.example/", Err("url-host")),
            (PUBLIC, "https://_a-b.example/", Ok(())),
            (PUBLIC, "https://[2606:4700::1]/", Ok(())),
            (PUBLIC, "ftp://auth.example/", Err("url-scheme")),
            (PUBLIC, "smb://auth.example/", Err("url-scheme")),
            (LOCAL, "http://127.0.0.1:4000/", Ok(())),
            (LOCAL, "https://10.0.0.1/", Ok(())),
            (LOCAL, "https://auth.example/", Ok(())),
            (LOCAL, "https://169.254.169.254/", Err("address-special")),
            (PRIVATE, "https://10.2.2.2/", Ok(())),
            (PRIVATE, "https://127.0.0.1/", Err("address-loopback")),
        ];
        for (server, text, want) in table {
            let policy = Policy::new(&url(server), false, false).unwrap();
            let got = policy.check_url(&url(text), Purpose::Fetch);
            assert_eq!(got.map_err(|r| r.rule), *want, "{server} names {text}");
        }
        // http to a public host needs its own option, private addresses theirs, special ones have none.
        let strict = Policy::new(&url(PUBLIC), false, false).unwrap();
        let plain = strict.check_url(&url("http://auth.example/"), Purpose::Fetch).unwrap_err();
        assert_eq!((plain.rule, plain.flag), ("plain-http", Some(ALLOW_HTTP)));
        let private = strict.check_url(&url("https://10.0.0.1/"), Purpose::Fetch).unwrap_err();
        assert_eq!(private.flag, Some(ALLOW_PRIVATE));
        let lax = Policy::new(&url(PUBLIC), true, true).unwrap();
        assert!(lax.check_url(&url("http://10.0.0.1/"), Purpose::Fetch).is_ok());
        let special = lax.check_url(&url("http://169.254.169.254/"), Purpose::Fetch).unwrap_err();
        assert_eq!((special.rule, special.flag), ("address-special", None));
        assert!(lax.check_url(&url("https://127.0.0.1/"), Purpose::Fetch).is_err());
    }

    #[test]
    fn resolved_addresses() {
        let policy = policy("https://server.example/mcp");
        let inside = "10.0.0.1".parse().unwrap();
        assert!(policy.check_address(inside, "server.example", Purpose::Fetch).is_ok());
        assert!(policy.check_address(inside, "other.example", Purpose::Fetch).is_err());
        assert!(policy.check_address(inside, "server.example.", Purpose::Fetch).is_err());
        assert!(policy.check_address("8.8.8.8".parse().unwrap(), "other.example", Purpose::Fetch).is_ok());
    }

    #[test]
    fn urls_from_outside_are_ascii_and_plain() {
        let base = url("https://a.example/x/y");
        #[rustfmt::skip]
        let table: &[(&str, Result<&str, &str>)] = &[
            ("z?q", Ok("https://a.example/x/z?q")), ("/z", Ok("https://a.example/z")), ("//b.example/", Ok("https://b.example/")),
            ("https://b.example", Ok("https://b.example/")), ("", Ok("https://a.example/x/y")),
            ("/\u{fc}", Err("url-characters")), ("/a b", Err("url-characters")), ("\\\\b.example", Err("url-characters")),
            ("/a\r\nb", Err("url-characters")), ("http://[::1", Err("url-characters")), ("http://", Err("url-host")),
        ];
        for (text, want) in table {
            let got = parse(text, Some(&base));
            assert_eq!(got.as_ref().map(Url::as_str).map_err(|r| r.rule), *want, "{text:?}");
        }
        assert_eq!(parse(&"x".repeat(MAX_URL + 1), Some(&base)).unwrap_err().rule, "url-length");
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        assert_eq!(shown(&url("https://u:pw@a.example:443/x?token=s#f")), "https://a.example/x?...");
        assert_eq!(shown_text("a\u{1b}[31m\u{202e}b"), "a?[31m?b");
        let long = shown(&url(&format!("https://a.example/{}", "x".repeat(500))));
        assert_eq!(long.len(), MAX_SHOWN + 3);
    }
}
