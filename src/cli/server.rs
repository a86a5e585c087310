//! The server's URL as typed → a URL that may be used.

use url::{Host, Url};

use super::UsageError;
use crate::secret::SafeUrl;

/// Longest URL. RFC 9110 §4.1 asks for 8000 octets.
pub(super) const MAX_URL_BYTES: usize = 8 * 1024;

const EXAMPLE: &str = "Write it as in: mcp-drawbridge https://example.com/mcp";

/// Checks the first positional argument. Errors never show its query, user name or password.
pub(super) fn parse(text: &str, allow_http: bool) -> Result<Url, UsageError> {
    let text = text.trim_ascii();
    if let Some(word) = npx_word(text) {
        return Err(UsageError::new(format!("\"{word}\" is not the server URL"), super::NOT_NPX));
    }
    if text.len() > MAX_URL_BYTES {
        return Err(UsageError::new(format!("the server URL is longer than {MAX_URL_BYTES} bytes"), EXAMPLE));
    }
    if text.contains(|character: char| character.is_control() || character == '\\') {
        return Err(UsageError::new("the server URL holds a control character or a backslash", EXAMPLE));
    }
    let scheme = match text.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => scheme.to_ascii_lowercase(),
        _ => return Err(no_scheme(text)),
    };
    if scheme != "https" && scheme != "http" {
        return Err(UsageError::new(
            format!("the server URL begins with {scheme}://"),
            "Only https:// is supported, and http:// to this machine or with --allow-http.",
        ));
    }
    // The URL standard skips any number of slashes here; a missing host is a mistake all the same.
    let has_host = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let Some(url) = Url::parse(text).ok().filter(|_| has_host) else {
        return Err(UsageError::new("the server URL is not valid: check its host and port", EXAMPLE));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UsageError::new(
            "the server URL holds a user name or a password",
            "Send it as a header: --header 'Authorization: Basic ${CREDENTIALS}', where that is user:password in Base64.",
        ));
    }
    if url.fragment().is_some() {
        return Err(UsageError::new(
            "the server URL holds a fragment (#), which never reaches a server",
            "Leave out what follows the #, or write %23 where it belongs to the path or the query.",
        ));
    }
    if url.port() == Some(0) {
        return Err(UsageError::new("the server URL has port 0", "Write the port on which the server listens."));
    }
    if scheme == "http" && !allow_http && !is_loopback(&url) {
        return Err(UsageError::new(
            format!("{} is not encrypted, and the host is not this machine", SafeUrl(&url)),
            "Write https://, or allow it with --allow-http; everyone on the way can then read and change it.",
        ));
    }
    Ok(url)
}

/// RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && text.len() <= 32
}

/// Words that stay behind when `npx -y mcp-remote URL` is rewritten by hand.
fn npx_word(text: &str) -> Option<&'static str> {
    const WORDS: [&str; 6] = ["npx", "bunx", "node", "mcp-remote", "mcp-remote-client", "mcp-drawbridge"];
    let name = text.split_once('@').map_or(text, |(name, _version)| name);
    WORDS.into_iter().find(|word| *word == name)
}

/// The text may be a piece of a header, so it is shown only where it looks like a host.
fn no_scheme(text: &str) -> UsageError {
    let end = text.find(['/', ':', '?', '#']).unwrap_or(text.len());
    let host = text.get(..end).unwrap_or_default();
    let is_host = host == "localhost" || (host.contains('.') && is_dns_name(host));
    let guess = Url::parse(&format!("https://{text}"));
    match guess {
        Ok(mut guess) if is_host && guess.username().is_empty() && guess.password().is_none() => {
            guess.set_query(None);
            if is_loopback(&guess) {
                // The crate lets http and https be exchanged; should it refuse, the guess stays https.
                let _ = guess.set_scheme("http");
            }
            let guess = SafeUrl(&guess);
            UsageError::new("the server URL has no scheme", format!("Write it in front, as in {guess}."))
        }
        _ => UsageError::new(
            "the first argument is not a URL",
            format!("{EXAMPLE}. A header with a space must be one argument, in quotes."),
        ),
    }
}

/// A name as people type it: lower case, and a last label of letters. Keys and tokens look different.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(is_label)
        && ((2..=24).contains(&last.len()) && last.bytes().all(|byte| byte.is_ascii_lowercase())
            || host.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_accepted() {
        let table = [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM/MCP?key=S3cret", "https://example.com/MCP?key=S3cret"),
            (" https://example.com/a b ", "https://example.com/a%20b"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("http://localhost:3000/mcp", "http://localhost:3000/mcp"),
            ("http://localhost./mcp", "http://localhost./mcp"),
            ("http://api.localhost/mcp", "http://api.localhost/mcp"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://127.9.9.9", "http://127.9.9.9/"),
            ("http://[::1]:3000/mcp", "http://[::1]:3000/mcp"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("https://10.0.0.1/", "https://10.0.0.1/"),
        ];
        for (text, url) in table {
            assert_eq!(parse(text, false).unwrap().as_str(), url, "{text}");
        }
        for text in ["http://example.com/mcp", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/"] {
            assert!(parse(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_their_secrets() {
        let no_scheme = "the server URL has no scheme";
        let no_url = "the first argument is not a URL";
        let invalid = "the server URL is not valid: check its host and port";
        let table = [
            ("example.com/mcp?key=s3cr3t", no_scheme),
            ("localhost:3000/mcp", no_scheme),
            ("127.0.0.1:3000", no_scheme),
            ("user:s3cr3t@example.com/", no_url),
            ("s3cr3t", no_url),
            ("eyJhbGciOi.eyJzdWIi.s3cr3t", no_url),
            ("Bearer", no_url),
            ("", no_url),
            ("3334", no_url),
            ("://example.com", no_url),
            ("https:example.com", no_url),
            ("s3cr3t @://example.com", no_url),
            ("https://", invalid),
            ("https:///s3cr3t", invalid),
            ("https://?s3cr3t", invalid),
            ("https://exa mple.com/s3cr3t", invalid),
            ("https://example.com:99999/s3cr3t", invalid),
            ("https://[::1/s3cr3t", invalid),
            ("https://user:s3cr3t@example.com/", "the server URL holds a user name or a password"),
            ("https://s3cr3t@example.com/", "the server URL holds a user name or a password"),
            ("https://:s3cr3t@example.com/", "the server URL holds a user name or a password"),
            ("https://example.com/#s3cr3t", "the server URL holds a fragment (#), which never reaches a server"),
            ("https://example.com/mcp#", "the server URL holds a fragment (#), which never reaches a server"),
            ("https://example.com:0/", "the server URL has port 0"),
            ("https:\\\\example.com\\s3cr3t", "the server URL holds a control character or a backslash"),
            ("https://example.com/\ns3cr3t", "the server URL holds a control character or a backslash"),
            ("ftp://s3cr3t.example.com/", "the server URL begins with ftp://"),
            ("file:///etc/passwd", "the server URL begins with file://"),
            ("mcp-remote", "\"mcp-remote\" is not the server URL"),
            ("mcp-remote@latest", "\"mcp-remote\" is not the server URL"),
            ("npx", "\"npx\" is not the server URL"),
            (
                "http://example.com/mcp?key=s3cr3t",
                "http://example.com/mcp?… is not encrypted, and the host is not this machine",
            ),
            ("http://0.0.0.0:3000/", "http://0.0.0.0:3000/ is not encrypted, and the host is not this machine"),
            (
                "http://localhost.example.com/",
                "http://localhost.example.com/ is not encrypted, and the host is not this machine",
            ),
        ];
        for (text, message) in table {
            let error = parse(text, false).unwrap_err();
            assert_eq!(error.message, message, "{text}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
            assert_eq!(error.to_string().lines().count(), 2);
        }
    }

    #[test]
    fn a_missing_scheme_is_guessed() {
        let table = [
            ("example.com/mcp?key=s3cr3t", "Write it in front, as in https://example.com/mcp."),
            ("localhost:3000/mcp", "Write it in front, as in http://localhost:3000/mcp."),
            ("127.0.0.1:3000", "Write it in front, as in http://127.0.0.1:3000/."),
        ];
        for (text, hint) in table {
            assert_eq!(parse(text, false).unwrap_err().hint, hint);
        }
    }

    #[test]
    fn length_has_a_limit() {
        let prefix = "https://example.com/";
        let longest = format!("{prefix}{}", "a".repeat(MAX_URL_BYTES - prefix.len()));
        assert!(parse(&longest, false).is_ok());
        let error = parse(&format!("{longest}a"), false).unwrap_err();
        assert_eq!(error.message, "the server URL is longer than 8192 bytes");
    }
}
