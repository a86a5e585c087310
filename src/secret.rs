//! The only types that may stand in a log line or an error: what they show is safe to paste in public.
//!
//! A log is read in a terminal and pasted into issues. So text from outside is shown without control
//! characters (CWE-150) and cut to a length, URLs without what may be a password, headers without values.

use std::fmt::{self, Write as _};

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// Target of log events for the person before the screen alone: the address of a sign-in holds its `state`. They are not written to
/// `--log-file`, which may be passed on.
pub const PERSON: &str = "mcp_drawbridge::person";

/// Characters of foreign text that are shown at most.
pub const MAX_TEXT_CHARS: usize = 200;

/// Bytes from which a path segment that looks random is taken for a secret.
const SECRET_SEGMENT_BYTES: usize = 20;

/// Characters that are left of a path segment taken for a secret.
const SEGMENT_HEAD_CHARS: usize = 4;

/// Headers of responses and requests whose values tell nothing about a person. All others show their name alone.
const OPEN_HEADERS: [&str; 9] = [
    "accept",
    "allow",
    "content-encoding",
    "content-length",
    "content-type",
    "mcp-method",
    "mcp-protocol-version",
    "retry-after",
    "server",
];

/// A text that must not be seen. It has no `Display`, its `Debug` is redacted, it is zeroed on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself. Every place where a secret leaves its wrapper names this function.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// Shows a URL without user name, password, query value and fragment, as in `https://host/path?…`.
///
/// Some servers put the key into the path (`/api/s/OTk0…/mcp`), so long segments that look random are cut too.
#[derive(Clone, Copy)]
pub struct SafeUrl<'a>(pub &'a Url);

impl fmt::Display for SafeUrl<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(host) = self.0.host_str() else {
            return write!(out, "{}:…", self.0.scheme());
        };
        write!(out, "{}://{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(out, ":{port}")?;
        }
        let mut path = String::new();
        for segment in self.0.path().split('/').skip(1) {
            path.push('/');
            if looks_random(segment) {
                path.extend(segment.chars().take(SEGMENT_HEAD_CHARS));
                path.push('…');
            } else {
                path.push_str(segment);
            }
        }
        write!(out, "{}", SafeText(&path))?;
        if self.0.query().is_some() {
            out.write_str("?…")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafeUrl<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A long segment of mixed case or with digits: a key or a UUID rather than a word a person chose.
fn looks_random(segment: &str) -> bool {
    segment.len() >= SECRET_SEGMENT_BYTES
        && (segment.bytes().any(|b| b.is_ascii_digit())
            || (segment.bytes().any(|b| b.is_ascii_lowercase()) && segment.bytes().any(|b| b.is_ascii_uppercase())))
}

/// Shows a text of the peer or the user on one line: control characters escaped, at most [`MAX_TEXT_CHARS`].
///
/// For method names, tool names and error messages. It cannot know whether the text *is* a secret.
#[derive(Clone, Copy)]
pub struct SafeText<'a>(pub &'a str);

impl fmt::Display for SafeText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shown, character) in self.0.chars().enumerate() {
            if shown == MAX_TEXT_CHARS {
                return out.write_char('…');
            }
            if is_unsafe(character) {
                write!(out, "{}", character.escape_unicode())?;
            } else {
                out.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SafeText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Shows the names of headers; the value only of those that tell nothing about a person.
#[derive(Clone, Copy)]
pub struct SafeHeaders<'a>(pub &'a HeaderMap);

impl fmt::Display for SafeHeaders<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, value)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(out, "{separator}{name}: ")?;
            if OPEN_HEADERS.contains(&name.as_str()) && !value.is_sensitive() {
                let text = String::from_utf8_lossy(value.as_bytes());
                write!(out, "{}", SafeText(&text))?;
            } else {
                out.write_char('…')?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SafeHeaders<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Characters that could steer a terminal, break a line or hide text: controls (C0, DEL, C1), line and paragraph
/// separators, bidirectional marks and overrides, invisible characters.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00AD}'
                | '\u{061C}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", secret.clone()), "Secret(…) Secret(…)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn urls_show_no_secret() {
        let table = [
            ("https://example.com", "https://example.com/"),
            ("https://u:pw@example.com:8443/a/b?key=s#frag", "https://example.com:8443/a/b?…"),
            ("https://example.com/?", "https://example.com/?…"),
            ("http://[::1]:80/mcp", "http://[::1]/mcp"),
            // A key in the path, a UUID, and words that are only long.
            ("https://h.test/api/s/OTk0ZDQ1LWFiY2RlZmdoaWo/mcp", "https://h.test/api/s/OTk0…/mcp"),
            ("https://h.test/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "https://h.test/3f25…"),
            ("https://h.test/a-rather-long-name-of-a-server/mcp", "https://h.test/a-rather-long-name-of-a-server/mcp"),
            ("https://h.test/%E2%80%AEx", "https://h.test/%E2%80%AEx"),
            ("data:text/plain,secret", "data:…"),
            ("mailto:someone@example.com", "mailto:…"),
        ];
        for (typed, shown) in table {
            let url = Url::parse(typed).unwrap();
            assert_eq!(SafeUrl(&url).to_string(), shown);
            assert_eq!(format!("{:?}", SafeUrl(&url)), shown);
        }
    }

    #[test]
    fn a_long_path_is_cut() {
        let url = Url::parse(&format!("https://h.test/{}", "a/".repeat(1000))).unwrap();
        let shown = SafeUrl(&url).to_string();
        assert_eq!(shown.chars().count(), "https://h.test".len() + MAX_TEXT_CHARS + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn text_cannot_steer_a_terminal() {
        assert_eq!(SafeText("a\x1b[31mred\r\nb").to_string(), "a\\u{1b}[31mred\\u{d}\\u{a}b");
        assert_eq!(SafeText("x\u{9b}31m\u{202e}y\u{2028}").to_string(), "x\\u{9b}31m\\u{202e}y\\u{2028}");
        assert_eq!(SafeText("déjà vu ✓ 日本").to_string(), "déjà vu ✓ 日本");
        assert_eq!(format!("{:?}", SafeText("\0")), "\\u{0}");
    }

    #[test]
    fn text_is_cut_at_its_limit() {
        let exact = "é".repeat(MAX_TEXT_CHARS);
        assert_eq!(SafeText(&exact).to_string(), exact);
        assert_eq!(SafeText(&format!("{exact}é")).to_string(), format!("{exact}…"));
    }

    #[test]
    fn headers_show_names_and_open_values() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer s3cret"));
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        headers.append("set-cookie", HeaderValue::from_static("sid=s3cret"));
        headers.insert("mcp-session-id", HeaderValue::from_static("s3cret"));
        let mut sensitive = HeaderValue::from_static("s3cret");
        sensitive.set_sensitive(true);
        headers.insert("server", sensitive);
        headers.insert("allow", HeaderValue::from_bytes(b"GET\xff").unwrap());
        let shown = SafeHeaders(&headers).to_string();
        let mut parts: Vec<&str> = shown.split(", ").collect();
        parts.sort_unstable();
        assert_eq!(
            parts,
            [
                "allow: GET\u{fffd}",
                "authorization: …",
                "content-type: text/html",
                "mcp-session-id: …",
                "server: …",
                "set-cookie: …"
            ]
        );
        assert_eq!(format!("{:?}", SafeHeaders(&headers)), shown);
    }
}
