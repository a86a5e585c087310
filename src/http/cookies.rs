//! Cookies of the server, in memory (RFC 6265 section 5). Pure: the time is passed in.
//!
//! They are there for load balancers that keep a session on one machine by a cookie. So: exact origin only (`Domain` is read
//! over, a cookie never reaches another host), `Path`, `Secure`, `Expires` and `Max-Age` as in the RFC, nothing on disk.

use std::{cmp::Reverse, fmt};

use http::HeaderValue;
use url::Url;

use super::guard::{self, Origin};

/// Most cookies kept; the least recently set goes first (RFC 6265 section 6.1 asks for 50 a host).
pub const MAX_COOKIES: usize = 50;
/// Longest cookie, name and value together, in bytes (RFC 6265 section 6.1).
pub const MAX_COOKIE: usize = 4096;
/// Longest `Set-Cookie` field that is looked at, in bytes.
pub const MAX_FIELD: usize = 8 * 1024;
/// Longest `Cookie` field that is sent, in bytes: many servers take 8 to 16 KiB for all fields together.
pub const MAX_SENT: usize = 8 * 1024;

/// Seconds since 1970-01-01, UTC.
pub type UnixSeconds = i64;

/// The cookies of one run.
#[derive(Default)]
pub struct Jar {
    cookies: Vec<Cookie>,
    clock: u64,
}

struct Cookie {
    origin: Origin,
    name: Vec<u8>,
    value: Vec<u8>,
    path: String,
    secure: bool,
    /// `None`: as long as the process lives.
    expires: Option<UnixSeconds>,
    /// Order of creation, kept when the value is replaced (RFC 6265 section 5.3 step 11).
    created: u64,
    updated: u64,
}

impl Jar {
    /// Whether there is nothing to send to anybody.
    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// Takes one `Set-Cookie` field of a response from `url` (RFC 6265 sections 5.2 and 5.3).
    pub fn store(&mut self, url: &Url, field: &[u8], now: UnixSeconds) {
        let Some(origin) = Origin::of(url) else {
            return;
        };
        let Some(set) = SetCookie::parse(field, now) else {
            return;
        };
        // RFC 6265bis section 5.7 step 8; loopback counts as secure, as in browsers.
        if set.secure && !is_secure(url) {
            return;
        }
        self.clock += 1;
        let mut cookie = Cookie {
            origin,
            name: set.name.to_vec(),
            value: set.value.to_vec(),
            path: set.path.map_or_else(|| default_path(url), str::to_owned),
            secure: set.secure,
            expires: set.expires,
            created: self.clock,
            updated: self.clock,
        };
        let old = self
            .cookies
            .iter()
            .position(|old| old.name == cookie.name && old.path == cookie.path && old.origin == cookie.origin);
        if let Some(old) = old {
            cookie.created = self.cookies.swap_remove(old).created;
        }
        if is_expired(&cookie, now) {
            return;
        }
        if self.cookies.len() >= MAX_COOKIES {
            self.cookies.retain(|cookie| !is_expired(cookie, now));
        }
        if self.cookies.len() >= MAX_COOKIES {
            let oldest =
                (0..self.cookies.len()).min_by_key(|&i| self.cookies.get(i).map_or(0, |cookie| cookie.updated));
            if let Some(oldest) = oldest {
                self.cookies.swap_remove(oldest);
            }
        }
        self.cookies.push(cookie);
    }

    /// The `Cookie` field for a request to `url`, if any (RFC 6265 section 5.4). Marked sensitive.
    pub fn header(&self, url: &Url, now: UnixSeconds) -> Option<HeaderValue> {
        let secure = is_secure(url);
        let mut matching: Vec<&Cookie> = self
            .cookies
            .iter()
            .filter(|cookie| {
                cookie.origin.is(url)
                    && (secure || !cookie.secure)
                    && path_matches(url.path(), &cookie.path)
                    && !is_expired(cookie, now)
            })
            .collect();
        // Longer paths first, then older first.
        matching.sort_by_key(|cookie| (Reverse(cookie.path.len()), cookie.created));

        let mut field = Vec::new();
        for cookie in matching {
            let length = cookie.name.len() + cookie.value.len() + 3;
            if field.len() + length > MAX_SENT {
                continue;
            }
            if !field.is_empty() {
                field.extend_from_slice(b"; ");
            }
            field.extend_from_slice(&cookie.name);
            field.push(b'=');
            field.extend_from_slice(&cookie.value);
        }
        if field.is_empty() {
            return None;
        }
        let mut field = HeaderValue::from_bytes(&field).ok()?;
        field.set_sensitive(true);
        Some(field)
    }
}

/// Names and values are the server's secrets.
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jar").field("cookies", &self.cookies.len()).finish_non_exhaustive()
    }
}

fn is_secure(url: &Url) -> bool {
    url.scheme() == "https" || guard::is_loopback(url)
}

fn is_expired(cookie: &Cookie, now: UnixSeconds) -> bool {
    cookie.expires.is_some_and(|expires| expires <= now)
}

/// RFC 6265 section 5.1.4: the directory of the request's path.
fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
    }
}

/// RFC 6265 section 5.1.4: equal, or a prefix that ends at a `/`.
fn path_matches(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie).is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

/// A `Set-Cookie` field taken apart (RFC 6265 section 5.2).
struct SetCookie<'a> {
    name: &'a [u8],
    value: &'a [u8],
    path: Option<&'a str>,
    secure: bool,
    expires: Option<UnixSeconds>,
}

impl<'a> SetCookie<'a> {
    fn parse(field: &'a [u8], now: UnixSeconds) -> Option<Self> {
        // RFC 6265bis section 5.6 step 1: control characters other than tab make the field void.
        if field.len() > MAX_FIELD || field.iter().any(|&b| b.is_ascii_control() && b != b'\t') {
            return None;
        }
        let mut pieces = field.split(|&b| b == b';');
        let (name, value) = split_once(pieces.next()?, b'=')?;
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        if name.is_empty() || name.len() + value.len() > MAX_COOKIE {
            return None;
        }

        let mut cookie = Self { name, value, path: None, secure: false, expires: None };
        let mut max_age = None;
        // The last of each attribute wins.
        for piece in pieces {
            let (attribute, value) = split_once(piece, b'=').unwrap_or((piece, b""));
            let (attribute, value) = (attribute.trim_ascii(), value.trim_ascii());
            if attribute.eq_ignore_ascii_case(b"path") {
                cookie.path = std::str::from_utf8(value).ok().filter(|path| path.starts_with('/'));
            } else if attribute.eq_ignore_ascii_case(b"secure") {
                cookie.secure = true;
            } else if attribute.eq_ignore_ascii_case(b"max-age") {
                max_age = parse_max_age(value).or(max_age);
            } else if attribute.eq_ignore_ascii_case(b"expires") {
                cookie.expires = parse_date(value).or(cookie.expires);
            }
        }
        // Max-Age goes before Expires (section 5.3 step 3).
        if let Some(seconds) = max_age {
            cookie.expires = Some(if seconds <= 0 { UnixSeconds::MIN } else { now.saturating_add(seconds) });
        }
        Some(cookie)
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = memchr::memchr(at, bytes)?;
    Some((bytes.get(..i)?, bytes.get(i + 1..)?))
}

/// Section 5.2.2: an optional minus and digits; a number too large means for ever, too small means now.
fn parse_max_age(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if digits.len() < value.len() {
        return Some(0);
    }
    let number = std::str::from_utf8(digits).ok()?;
    Some(number.parse().unwrap_or(i64::MAX))
}

/// Section 5.1.1: the lenient date of cookies; tokens in any order, no time zone.
fn parse_date(value: &[u8]) -> Option<UnixSeconds> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let is_delimiter = |b: u8| matches!(b, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e);
    for token in value.split(|&b| is_delimiter(b)).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = parse_time(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = leading_number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = parse_month(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = leading_number(token, 2, 4)
        {
            year = Some(found);
        }
    }
    let (hour, minute, second) = time?;
    let (day, month) = (day?, month?);
    let year = match year? {
        short @ 70..=99 => short + 1900,
        short @ 0..=69 => short + 2000,
        full => full,
    };
    if !(1..=31).contains(&day) || year < 1601 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `hh:mm:ss`, each one or two digits, anything after it.
fn parse_time(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut fields = token.splitn(3, |&b| b == b':');
    let (hour, minute, second) = (fields.next()?, fields.next()?, fields.next()?);
    let whole = |field: &[u8]| field.iter().all(u8::is_ascii_digit).then(|| leading_number(field, 1, 2)).flatten();
    Some((whole(hour)?, whole(minute)?, leading_number(second, 1, 2)?))
}

/// A number of `least` to `most` digits at the start of the token, followed by no further digit.
fn leading_number(token: &[u8], least: usize, most: usize) -> Option<i64> {
    let count = token.iter().take_while(|b| b.is_ascii_digit()).count();
    if count < least || count > most {
        return None;
    }
    std::str::from_utf8(token.get(..count)?).ok()?.parse().ok()
}

fn parse_month(token: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let start = token.get(..3)?;
    let index = MONTHS.iter().position(|month| start.eq_ignore_ascii_case(*month))?;
    i64::try_from(index + 1).ok()
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years are counted from March, so that the leap day comes last.
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_700_000_000;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// What goes to `to` after `from` has set these.
    fn sent(from: &str, fields: &[&str], to: &str) -> Option<String> {
        let mut jar = Jar::default();
        for field in fields {
            jar.store(&url(from), field.as_bytes(), NOW);
        }
        jar.header(&url(to), NOW).map(|v| String::from_utf8(v.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn fields_and_where_they_go() {
        let s = "https://a.example/mcp";
        #[rustfmt::skip]
        let table: &[(&str, &[&str], &str, Option<&str>)] = &[
            (s, &["a=1"], s, Some("a=1")),
            (s, &["a=1", "b=2"], s, Some("a=1; b=2")),
            (s, &["a=1", "b=2", "a=3"], s, Some("a=3; b=2")),
            (s, &["  a =  1  ;x"], s, Some("a=1")),
            (s, &["a=\"q q\""], s, Some("a=\"q q\"")),
            (s, &["a=b=c"], s, Some("a=b=c")),
            (s, &["a="], s, Some("a=")),
            (s, &["=1"], s, None),
            (s, &["a"], s, None),
            (s, &[""], s, None),
            (s, &["a=1\u{1}"], s, None),
            (s, &["a=1\r\nx: y"], s, None),
            // Exact origin; Domain is read over.
            (s, &["a=1; Domain=example"], "https://b.example/mcp", None),
            (s, &["a=1; Domain=a.example"], "https://sub.a.example/mcp", None),
            (s, &["a=1; Domain=a.example"], s, Some("a=1")),
            (s, &["a=1"], "https://a.example:8443/mcp", None),
            (s, &["a=1"], "http://a.example/mcp", None),
            // Path.
            ("https://a.example/x/y", &["a=1"], "https://a.example/x/z", Some("a=1")),
            ("https://a.example/x/y", &["a=1"], "https://a.example/x", Some("a=1")),
            ("https://a.example/x/y", &["a=1"], "https://a.example/xy", None),
            ("https://a.example/x/y", &["a=1"], "https://a.example/", None),
            (s, &["a=1; Path=/x"], "https://a.example/x/y", Some("a=1")),
            (s, &["a=1; path=/x/"], "https://a.example/x", None),
            (s, &["a=1; Path=/x; Path=/"], s, Some("a=1")),
            (s, &["a=1; Path=x"], s, Some("a=1")),
            (s, &["a=1; Path=/", "b=2; Path=/mcp"], s, Some("b=2; a=1")),
            (s, &["a=1; Path=/", "a=2; Path=/mcp"], s, Some("a=2; a=1")),
            // Secure.
            ("http://a.example/", &["a=1; Secure"], "http://a.example/", None),
            ("http://127.0.0.1:1/", &["a=1; Secure"], "http://127.0.0.1:1/", Some("a=1")),
            (s, &["a=1; Secure; HttpOnly; SameSite=Strict"], s, Some("a=1")),
            // Age.
            (s, &["a=1; Max-Age=0"], s, None),
            (s, &["a=1; Max-Age=-1"], s, None),
            (s, &["a=1; Max-Age=1"], s, Some("a=1")),
            (s, &["a=1; Max-Age=99999999999999999999999"], s, Some("a=1")),
            (s, &["a=1; Max-Age=soon"], s, Some("a=1")),
            (s, &["a=1", "a=; Max-Age=0"], s, None),
            (s, &["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], s, None),
            (s, &["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5"], s, Some("a=1")),
            (s, &["a=1; Expires=Wed, 31 Dec 2098 23:59:59 GMT; Max-Age=0"], s, None),
            (s, &["a=1; Expires=nonsense"], s, Some("a=1")),
        ];
        for (from, fields, to, want) in table {
            assert_eq!(sent(from, fields, to).as_deref(), *want, "{from} {fields:?} {to}");
        }
    }

    #[test]
    fn ages_in_time() {
        let mut jar = Jar::default();
        let s = url("https://a.example/");
        jar.store(&s, b"a=1; Max-Age=10", NOW);
        assert!(jar.header(&s, NOW + 9).is_some());
        assert!(jar.header(&s, NOW + 10).is_none());
    }

    #[test]
    fn dates() {
        #[rustfmt::skip]
        let table: &[(&str, Option<i64>)] = &[
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Tue, 29 Feb 2028 12:00:00 GMT", Some(1_835_438_400)),
            ("Mon, 1-Mar-2100 0:0:0", Some(4_107_542_400)),
            ("31 Dec 69 23:59:59", Some(3_155_759_999)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("01 Jan 1600 00:00:00", None),
            ("32 Jan 2020 00:00:00", None),
            ("01 Jan 2020 24:00:00", None),
            ("01 Foo 2020 00:00:00", None),
            ("01 Jan 2020", None),
            ("01 Jan 20200 00:00:00", None),
            ("", None),
        ];
        for (text, want) in table {
            assert_eq!(parse_date(text.as_bytes()), *want, "{text}");
        }
    }

    #[test]
    fn limits_hold() {
        let s = url("https://a.example/");
        let mut jar = Jar::default();
        for i in 0..MAX_COOKIES + 10 {
            jar.store(&s, format!("c{i}=1").as_bytes(), NOW);
        }
        assert_eq!(jar.cookies.len(), MAX_COOKIES);
        let all = jar.header(&s, NOW).unwrap();
        let all = all.to_str().unwrap();
        assert!(!all.contains("c9=") && all.contains("c10=") && all.contains("c59="));

        let mut jar = Jar::default();
        jar.store(&s, format!("a={}", "x".repeat(MAX_COOKIE)).as_bytes(), NOW);
        jar.store(&s, format!("b=1; Path=/{}", "x".repeat(MAX_FIELD)).as_bytes(), NOW);
        assert!(jar.is_empty());
        for i in 0..5 {
            jar.store(&s, format!("c{i}={}", "x".repeat(MAX_COOKIE - 2)).as_bytes(), NOW);
        }
        let sent = jar.header(&s, NOW).unwrap();
        assert!(sent.len() <= MAX_SENT && sent.len() > MAX_COOKIE - 2, "{}", sent.len());
    }

    proptest::proptest! {
        /// Any bytes: no panic, no broken field, nothing for another origin.
        #[test]
        fn any_field(fields in proptest::collection::vec("[a-c]=[ -~]{0,8}(; ?(path|expires|max-age|secure|domain)(=[ -~]{0,12})?){0,3}|\\PC{0,30}", 0..60), now in proptest::num::i64::ANY) {
            let mut jar = Jar::default();
            for field in &fields {
                jar.store(&url("https://a.example/x/y"), field.as_bytes(), now);
            }
            assert!(jar.cookies.len() <= MAX_COOKIES);
            if let Some(field) = jar.header(&url("https://a.example/x/y"), now) {
                assert!(field.len() <= MAX_SENT);
            }
            assert!(jar.header(&url("https://b.example/x/y"), now).is_none());
        }

        #[test]
        fn any_date(date in "[0-9a-zA-Z:, -]{0,40}") {
            let _ = parse_date(date.as_bytes());
        }
    }

    #[test]
    fn debug_and_field_hide_values() {
        let s = url("https://a.example/");
        let mut jar = Jar::default();
        jar.store(&s, b"sid=secret", NOW);
        assert!(!format!("{jar:?} {:?}", jar.header(&s, NOW)).contains("secret"));
    }
}
