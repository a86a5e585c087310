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
//! | `url-host` | no host |
//! | `url-userinfo` | `user:password@` (RFC 3986 section 7.5) |
//! | `url-fragment` | `#...` in a URL that a server named |
//! | `plain-http` | `http` to anything but loopback |
//! | `address-loopback`, `address-private`, `address-special` | a public server that leads us to such an address |
//! | `redirect-cross-origin`, `redirect-downgrade` | see `redirect.rs` |
//! | `request-origin` | a request with credentials to another origin than the server's |
//!
//! What it cannot see: a proxy resolves names by itself, so behind one only literal addresses are checked.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use url::{Host, Url};

/// Longest URL that is accepted from anybody, in bytes.
pub const MAX_URL: usize = 8 * 1024;
/// Longest piece of a URL or name that is repeated in a message, in characters.
const MAX_SHOWN: usize = 200;

/// Option that allows `http` beyond loopback.
pub const ALLOW_HTTP: &str = "--allow-http";
/// Option that lets URLs named by a server lead to private addresses.
pub const ALLOW_PRIVATE: &str = "--allow-private-address";

/// Scheme, host and port (RFC 6454 section 4). Only `http` and `https` URLs have one here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// The origin of a URL; `None` when it is neither `http` nor `https`.
    pub fn of(url: &Url) -> Option<Self> {
        let (https, host, port) = parts(url)?;
        Some(Self { https, host: host.into(), port })
    }

    /// Whether the URL has this origin.
    pub fn is(&self, url: &Url) -> bool {
        parts(url) == Some((self.https, &*self.host, self.port))
    }

    /// Whether `url` is this origin made secure: the same host, from `http` on port 80 to `https` on port 443.
    ///
    /// Other ports are another service, perhaps of another owner, and so another origin.
    pub fn upgrades_to(&self, url: &Url) -> bool {
        !self.https && self.port == 80 && parts(url) == Some((true, &*self.host, 443))
    }

    /// Whether it is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host as in the URL: lower case, punycode, IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, also where the URL leaves it out.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// ASCII serialisation (RFC 6454 section 6.2): the default port is left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

/// Whether two URLs have the same origin.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    matches!((parts(a), parts(b)), (Some(a), Some(b)) if a == b)
}

fn parts(url: &Url) -> Option<(bool, &str, u16)> {
    let https = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    Some((https, url.host_str()?, url.port().unwrap_or(if https { 443 } else { 80 })))
}

/// What kind of address it is (IANA special-purpose registries, RFC 6890 and successors).
///
/// IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4) counts as that IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressClass {
    /// Reachable by everybody.
    Public,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// RFC 1918, shared space of RFC 6598, unique local addresses of RFC 4193, old site-local.
    Private,
    /// 169.254.0.0/16, `fe80::/10`: most clouds' metadata services are here.
    LinkLocal,
    /// Metadata services of clouds that sit in otherwise ordinary ranges.
    CloudMetadata,
    /// 224.0.0.0/4, `ff00::/8`.
    Multicast,
    /// `0.0.0.0/8`, `::`: many systems connect to themselves.
    Unspecified,
    /// Documentation, benchmarking, discard, broadcast, tunnels and everything not yet given out.
    Reserved,
}

impl AddressClass {
    /// The class of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            // Alibaba, Azure, Oracle.
            [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Self::CloudMetadata,
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [169, 254, ..] => Self::LinkLocal,
            [224..=239, ..] => Self::Multicast,
            [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if ip == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        if ip == Ipv6Addr::UNSPECIFIED {
            return Self::Unspecified;
        }
        let v4 = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match ip.segments() {
            // Mapped (RFC 4291 2.5.5.2), compatible (2.5.5.1), translated (RFC 7915).
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
            // NAT64: well-known (RFC 6052) and local-use (RFC 8215) prefix.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
            [0x64, 0xff9b, 1, ..] => Self::Private,
            // 6to4 (RFC 3056).
            [0x2002, high, low, ..] => v4(high, low),
            // EC2.
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Self::CloudMetadata,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // Protocol assignments with Teredo and ORCHID, documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Reserved,
            // Only 2000::/3 is given out.
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::CloudMetadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        })
    }
}

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
        Host::Ipv4(ip) => Some(AddressClass::of_v4(ip)),
        Host::Ipv6(ip) => Some(AddressClass::of_v6(ip)),
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
    if url.host_str().is_none_or(str::is_empty) {
        return Err(no_host(url));
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
