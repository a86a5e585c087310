//! Origins: what credentials, cookies and sessions belong to.

use std::fmt;

use url::Url;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn origins() {
        #[rustfmt::skip]
        let table = [
            ("https://A.example/x?y#z", "https://a.example:443", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:444", false),
            ("https://a.example", "https://a.example.", false),
            ("https://a.example", "https://b.example", false),
            ("http://127.0.0.1", "http://localhost", false),
            ("http://127.0.0.1:80", "http://2130706433/", true),
            ("http://[::1]:1", "http://[0:0::1]:1/x", true),
            ("data:x", "data:x", false),
        ];
        for (a, b, same) in table {
            assert_eq!(same_origin(&url(a), &url(b)), same, "{a} {b}");
            if let Some(origin) = Origin::of(&url(a)) {
                assert_eq!(origin.is(&url(b)), same, "{a} {b}");
            }
        }
        #[rustfmt::skip]
        let texts = [
            ("https://a.example:443/x", "https://a.example"), ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:80/", "http://[::1]"), ("https://bücher.example", "https://xn--bcher-kva.example"),
        ];
        for (text, origin) in texts {
            assert_eq!(Origin::of(&url(text)).unwrap().to_string(), origin);
        }
    }

    #[test]
    fn only_the_default_ports_are_an_upgrade() {
        #[rustfmt::skip]
        let table = [
            ("http://a.example/x", "https://a.example/y", true), ("http://a.example", "https://b.example", false),
            ("http://a.example:8080", "https://a.example", false), ("http://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example", false), ("https://a.example", "http://a.example", false),
        ];
        for (from, to, upgrade) in table {
            let origin = Origin::of(&url(from)).unwrap();
            assert_eq!(origin.upgrades_to(&url(to)), upgrade, "{from} {to}");
        }
    }
}
