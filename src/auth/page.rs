//! The page that the browser shows after the sign-in, and the HTTP response around it. Pure.
//!
//! Static HTML without any script, under a policy that allows nothing but its own style sheet. Names come from servers and
//! clients: they are cut, cleaned and escaped. A page for a request that is not the sign-in's answer names nobody: any site
//! can make a browser ask for it, and by DNS rebinding even read it.

use std::fmt::Write as _;

use crate::secret;

/// Characters of a name that are shown.
pub const MAX_NAME: usize = 60;
/// Characters of a host name that are looked at (RFC 1035 section 2.3.4 has 253, with a port behind).
const MAX_HOST: usize = 260;
/// Characters of a reason that are shown.
pub const MAX_REASON: usize = 300;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// What the page may do: be styled by the one sheet with this hash (CSP level 3). A test compares the hash with the sheet.
const POLICY: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    "NxNXiPdf5N5jsqYb95pjhMuQFQ3UXHGnbztFkIfpiN8=",
    "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// Who signs in where, as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    server: String,
    client: Option<String>,
}

impl Names {
    /// `server`: host of the MCP server. `client`: what the client calls itself, where it said so. Both may be hostile.
    pub fn new(server: &str, client: Option<&str>) -> Self {
        let client = client.map(|name| clean(name, MAX_NAME)).filter(|name| !name.is_empty());
        Self { server: clean_host(server), client }
    }

    fn server(&self) -> String {
        format!("<bdi>{}</bdi>", escape(&self.server))
    }

    fn client(&self) -> String {
        self.client
            .as_deref()
            .map_or_else(|| "your MCP client".to_owned(), |name| format!("<bdi>{}</bdi>", escape(name)))
    }
}

/// What a page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// The tokens are here.
    Success(&'a Names),
    /// The authorization server, or the person there, said no.
    Denied(&'a Names),
    /// The answer came, but no token: one sentence that says why.
    Failed {
        /// Who.
        names: &'a Names,
        /// For a person; cleaned, cut and escaped here.
        reason: &'a str,
    },
    /// The token exchange takes longer than the browser should wait.
    Waiting(&'a Names),
    /// This sign-in has had another answer already.
    AlreadyUsed(&'a Names),
    /// The pending sign-in's `state` did not come with it.
    OtherSignIn,
    /// It is no sign-in's answer at all: one sentence, ours.
    NotHere(&'static str),
}

impl Page<'_> {
    /// The whole document.
    pub fn html(&self) -> String {
        let (tone, icon) = match self {
            Self::Success(_) => ("good", "M15 25l6.5 6.5L34 18"),
            Self::Denied(_) | Self::Failed { .. } => ("warn", "M24 14v13M24 33.5v.5"),
            Self::Waiting(_) => ("calm", "M24 13v11.5l7 4.5"),
            Self::AlreadyUsed(_) | Self::OtherSignIn | Self::NotHere(_) => ("calm", "M24 34V22M24 14.5v-.5"),
        };
        let (title, text) = self.words();
        fill(&[("title", title), ("style", STYLE), ("tone", tone), ("icon", icon), ("text", &text)])
    }

    /// Title and paragraphs.
    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Success(names) => {
                let what = format!("{} can now use {} for you.", names.client(), names.server());
                let next = format!("You can close this tab and go back to {}.", names.client());
                ("You are signed in", paragraphs(&capital(&what), &next))
            }
            Self::Denied(names) => {
                let what = format!("Access to {} was not granted, so nothing has changed.", names.server());
                ("Access was denied", paragraphs(&what, &retry(names)))
            }
            Self::Failed { names, reason } => {
                let reason = clean(reason, MAX_REASON);
                let what = format!(
                    "You are not signed in to {}.</p>\n<p class=\"reason\"><bdi>{}</bdi>",
                    names.server(),
                    escape(&reason)
                );
                ("The sign-in did not work", paragraphs(&what, &retry(names)))
            }
            Self::Waiting(names) => {
                let what =
                    format!("The sign-in to {} is not finished yet: its server is slow to answer.", names.server());
                let next = "Wait a moment, then reload this page to see what became of it.";
                ("Still signing in", paragraphs(&what, next))
            }
            Self::AlreadyUsed(names) => {
                let what = format!(
                    "The sign-in to {} has already had its answer. This second one was ignored.",
                    names.server()
                );
                let next = format!("You can close this tab and go back to {}.", names.client());
                ("This sign-in is over", paragraphs(&what, &next))
            }
            Self::OtherSignIn => {
                let what = "This address does not belong to the sign-in that is open now. Nothing was done with it.";
                let next = "Look for a newer sign-in tab and finish there, or go back to your MCP client and begin again. \
                            You can close this tab.";
                ("This is not the current sign-in", paragraphs(what, next))
            }
            Self::NotHere(reason) => {
                let what = format!("{} A sign-in that is open in another tab goes on.", escape(reason));
                ("There is nothing here", paragraphs(&what, "You can close this tab."))
            }
        }
    }
}

/// A whole HTTP response with a page.
pub fn response(status: u16, page: &Page<'_>) -> Vec<u8> {
    let html = page.html();
    let allow = if status == 405 { "Allow: GET\r\n" } else { "" };
    let mut out = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n{allow}{SAFETY}",
        reason_phrase(status),
        html.len()
    );
    let _ = write!(out, "Content-Security-Policy: {POLICY}\r\n\r\n{html}");
    out.into_bytes()
}

/// A redirect to an address that the user chose. `location` is ASCII without blanks.
pub fn see_other(location: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 303 {}\r\nLocation: {location}\r\nContent-Length: 0\r\n{SAFETY}Content-Security-Policy: {POLICY}\r\n\r\n",
        reason_phrase(303)
    )
    .into_bytes()
}

/// On each response: the code is in the URL, so nothing keeps, frames or passes it on (RFC 9700 sections 4.2.4 and 4.16).
const SAFETY: &str = "Cache-Control: no-store\r\n\
Referrer-Policy: no-referrer\r\n\
X-Content-Type-Options: nosniff\r\n\
X-Frame-Options: DENY\r\n\
Cross-Origin-Opener-Policy: same-origin\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n\
Connection: close\r\n";

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        303 => "See Other",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Answer",
    }
}

fn paragraphs(what: &str, next: &str) -> String {
    format!("<p>{what}</p>\n<p class=\"next\">{next}</p>")
}

fn retry(names: &Names) -> String {
    format!(
        "To try again, go back to {} and use its tool <code>sign_in</code>, or run <code>mcp-drawbridge login</code>. \
         You can close this tab.",
        names.client()
    )
}

/// Our own words at the start of a sentence; a name begins with its tag.
fn capital(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// One line, no control, bidirectional or invisible characters, at most `limit` characters.
fn clean(text: &str, limit: usize) -> String {
    let visible = text.chars().filter(|&c| c.is_whitespace() || !secret::is_unsafe(c));
    let line: String = visible.map(|c| if c.is_whitespace() { ' ' } else { c }).take(limit + 1).collect();
    let line = line.trim();
    match line.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// As [`clean`], but of a long name the end stays: there a host name says whose it is.
fn clean_host(text: &str) -> String {
    let whole = clean(text, MAX_HOST);
    let start = whole.char_indices().rev().nth(MAX_NAME - 1).map_or(0, |(start, _)| start);
    match whole.get(start..) {
        Some(end) if start > 0 => format!("…{end}"),
        _ => whole,
    }
}

/// Text in HTML, between tags or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '{' => out.push_str("&#123;"),
            c => out.push(c),
        }
    }
    out
}

/// Puts the values into the template, in one pass: a value is never looked through for further places.
fn fill(values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(TEMPLATE.len() + STYLE.len() + 1024);
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (key, after) = after.split_once("}}").unwrap_or(("", after));
        out.push_str(before);
        out.push_str(values.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn all(names: &Names) -> Vec<Page<'_>> {
        vec![
            Page::Success(names),
            Page::Denied(names),
            Page::Failed { names, reason: "The code had expired." },
            Page::Waiting(names),
            Page::AlreadyUsed(names),
            Page::OtherSignIn,
            Page::NotHere("This address takes the answers of sign-ins, and this is none."),
        ]
    }

    #[test]
    fn the_style_is_the_one_allowed() {
        let hash = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .unwrap()
            .common
            .hash_provider
            .hash(STYLE.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash.as_ref());
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "the style sheet changed: its hash is now {hash}");
    }

    /// WCAG 2.2 section 1.4.3: 4.5 for text; 1.4.11: 3 for graphics.
    #[test]
    fn contrast_in_light_and_dark() {
        let (light, dark) = STYLE.split_once("prefers-color-scheme: dark").unwrap();
        for sheet in [light, dark] {
            let luminance = |name: &str| {
                let (_, rest) = sheet.split_once(&format!("--{name}: #")).unwrap();
                let channel = |at: usize| {
                    let value = f64::from(u8::from_str_radix(&rest[at..at + 2], 16).unwrap()) / 255.0;
                    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
                };
                0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (luminance(a), luminance(b));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for (ink, paper, least) in [
                ("text", "card", 7.0),
                ("text", "ground", 7.0),
                ("soft", "ground", 4.5),
                ("good", "card", 4.5),
                ("calm", "card", 4.5),
                ("warn", "card", 4.5),
            ] {
                assert!(contrast(ink, paper) >= least, "{ink} on {paper}: {}", contrast(ink, paper));
            }
        }
    }

    #[test]
    fn the_template_is_filled_whole() {
        let names = Names::new("mcp.example.com", Some("Claude"));
        for page in all(&names) {
            let html = page.html();
            assert!(!html.contains("{{") && !html.contains("}}"), "{html}");
            assert_eq!(html.matches("<h1>").count(), 1);
            assert!(!html.contains("<script") && !html.contains(" style=") && !html.contains("<form"), "{html}");
            assert!(html.contains("You can close this tab") || matches!(page, Page::Waiting(_)));
        }
    }

    #[test]
    fn it_names_server_and_client() {
        let names = Names::new("mcp.example.com", Some("Claude"));
        let html = Page::Success(&names).html();
        assert!(html.contains("<bdi>Claude</bdi> can now use <bdi>mcp.example.com</bdi> for you."), "{html}");
        assert!(html.contains("go back to <bdi>Claude</bdi>."));
        let nameless = Names::new("mcp.example.com", Some(" \u{200b}"));
        assert!(Page::Success(&nameless).html().contains("Your MCP client can now use"));
    }

    #[test]
    fn pages_for_strangers_name_nobody() {
        let names = Names::new("mcp.example.com", Some("Claude"));
        for page in all(&names).iter().skip(5) {
            let html = page.html();
            assert!(!html.contains("mcp.example.com") && !html.contains("Claude"), "{html}");
        }
    }

    #[test]
    fn hostile_names() {
        let tags = |html: &str| html.matches('<').count();
        let plain = Names::new("a", Some("b"));
        for hostile in [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "{{style}}{{text}}",
            "&lt;b&gt;",
            "</bdi></main><h1>x</h1>",
            "a\u{202e}moc.live\u{2066}b\u{200f}",
            "a\r\nSet-Cookie: x=y\r\n\r\n<h1>",
            "\u{1b}[31m\0",
        ] {
            let names = Names::new(hostile, Some(hostile));
            for (page, plain) in all(&names).iter().zip(all(&plain)) {
                let html = page.html();
                assert_eq!(tags(&html), tags(&plain.html()), "{html}");
                let odd = html.chars().find(|&c| c != '\n' && secret::is_unsafe(c));
                assert_eq!(odd, None, "{html}");
            }
            let failed = Page::Failed { names: &plain, reason: hostile };
            assert_eq!(tags(&failed.html()), tags(&Page::Failed { names: &plain, reason: "x" }.html()));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let names = Names::new(&"x".repeat(10_000), Some(&"\u{65e5}".repeat(10_000)));
        assert_eq!(names.server.chars().count(), MAX_NAME + 1);
        assert_eq!(names.client.as_deref().unwrap().chars().count(), MAX_NAME + 1);
        let host = Names::new(&format!("accounts.good.example.{}.evil.example:8443", "x".repeat(MAX_NAME)), None);
        assert!(host.server.starts_with('…') && host.server.ends_with("x.evil.example:8443"), "{}", host.server);
        assert_eq!(host.server.chars().count(), MAX_NAME + 1);
        let exact = Names::new(&"x".repeat(MAX_NAME), None);
        assert_eq!(exact.server, "x".repeat(MAX_NAME));
        let reason = "r".repeat(10_000);
        let html = Page::Failed { names: &names, reason: &reason }.html();
        assert!(html.contains(&format!("{}…", "r".repeat(MAX_REASON))) && !html.contains(&"r".repeat(MAX_REASON + 1)));
        assert!(html.len() < 8 * 1024, "{}", html.len());
    }

    #[test]
    fn responses() {
        let text = String::from_utf8(response(405, &Page::NotHere("No."))).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && head.contains("\r\nAllow: GET\r\n"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        for field in [
            "Cache-Control: no-store",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",
            "Cross-Origin-Opener-Policy: same-origin",
            "Connection: close",
            "Content-Security-Policy: default-src 'none'; style-src 'sha256-",
        ] {
            assert!(head.contains(&format!("\r\n{field}")), "{field}: {head}");
        }
        let moved = String::from_utf8(see_other("https://a.example/done")).unwrap();
        assert!(
            moved.starts_with("HTTP/1.1 303 See Other\r\nLocation: https://a.example/done\r\n")
                && moved.ends_with("\r\n\r\n")
        );
    }
}
