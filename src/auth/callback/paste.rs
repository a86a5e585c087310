//! Paste-back: the sign-in's answer by way of a person, where the browser cannot reach the listener (SSH, WSL, containers).
//! Pure.
//!
//! Taken are the whole address that the browser shows at the end, its query, or the code alone. What has a `state` is judged
//! as the callback is. A code alone has none; PKCE still binds it to the sign-in that asked for it (RFC 7636 section 1).

use std::borrow::Cow;

use url::{Url, form_urlencoded};

use super::{Answer, Expectation, Refused, Reply, printable, reply_of};
use crate::secret::Secret;

/// Bytes of pasted text.
pub const MAX_PASTE: usize = 16 * 1024;
/// Parameters by which a query is told from a code.
const KNOWN: [&str; 4] = ["code", "state", "error", "iss"];

/// Why a pasted text is not taken. The sign-in goes on: the person can paste again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasteError {
    /// Nothing there.
    #[error("nothing was pasted; copy the whole address that the browser shows after the sign-in")]
    Empty,
    /// Over [`MAX_PASTE`].
    #[error("the pasted text is longer than an address of a sign-in; copy only what the address bar shows")]
    TooLong,
    /// A URL, but not under the redirect URI.
    #[error(
        "that is not the address at the end of the sign-in; sign in first, then copy the address of the page that the \
         browser cannot show: it begins with http://localhost or http://127.0.0.1"
    )]
    OtherAddress,
    /// `state` is missing or another.
    #[error("that address belongs to another sign-in; open the newest sign-in link and paste what comes at its end")]
    OtherSignIn,
    /// Parts are missing, twice there, or have characters that do not belong there.
    #[error(
        "the pasted text is incomplete or damaged; copy the whole address that the browser shows after the sign-in"
    )]
    Damaged,
    /// The sign-in has had its answer.
    #[error("this sign-in has already had its answer")]
    AlreadyUsed,
}

/// Judges what a person pasted.
pub fn judge_paste(text: &str, expected: &Expectation) -> Result<Reply, PasteError> {
    if text.len() > MAX_PASTE {
        return Err(PasteError::TooLong);
    }
    // Mail programs and terminals break long lines.
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n' | '\t')).collect();
    let text = joined.trim_matches(|c: char| c.is_whitespace() || "\"'`<>\u{201c}\u{201d}\u{2018}\u{2019}".contains(c));
    if text.is_empty() {
        return Err(PasteError::Empty);
    }
    let query = match address(text, expected) {
        Some(url) => Cow::Owned(query_of(&url?, expected)?),
        None => match parameters(text) {
            Some(query) => query,
            None => return bare_code(text),
        },
    };
    reply_of(&query, expected).map_err(|refused| match refused {
        Refused::State => PasteError::OtherSignIn,
        _ => PasteError::Damaged,
    })
}

/// The text as a URL, when it looks like one; some browsers leave the scheme out.
fn address(text: &str, expected: &Expectation) -> Option<Result<Url, PasteError>> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let url = if lower.starts_with("http://") || lower.starts_with("https://") {
        Url::parse(text)
    } else if text.split_once(['/', '?']).is_some_and(|(host, _)| expected.redirect().is_host(host)) {
        Url::parse(&format!("http://{text}"))
    } else {
        return None;
    };
    Some(url.map_err(|_| PasteError::Damaged))
}

/// The query of the redirect URI. What follows `#` is for the browser; some servers add `#_=_`.
fn query_of(url: &Url, expected: &Expectation) -> Result<String, PasteError> {
    let own = Url::parse(&expected.redirect().to_string()).map_err(|_| PasteError::Damaged)?;
    let same = url.origin() == own.origin() && url.path() == own.path() && url.username().is_empty();
    if !same || url.password().is_some() {
        return Err(PasteError::OtherAddress);
    }
    url.query().map(str::to_owned).ok_or(PasteError::Damaged)
}

/// The text as a query; also one whose beginning, `code=`, was not copied.
fn parameters(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_start_matches('?');
    let text = text.split_once('#').map_or(text, |(query, _)| query);
    let known = form_urlencoded::parse(text.as_bytes()).any(|(name, _)| KNOWN.contains(&&*name) && text.contains('='));
    if !known {
        return None;
    }
    let first = text.split('&').next().unwrap_or_default();
    Some(if first.contains('=') { Cow::Borrowed(text) } else { Cow::Owned(format!("code={text}")) })
}

/// A code alone, as shown by a page or cut out of an address, where it stands percent-encoded.
fn bare_code(text: &str) -> Result<Reply, PasteError> {
    let code = decode(text).unwrap_or(Cow::Borrowed(text));
    if !printable(&code) || code.contains(' ') || code.contains("://") {
        return Err(PasteError::Damaged);
    }
    Ok(Reply { answer: Answer::Code(Secret::new(code)), iss: None, with_state: false })
}

/// Percent-decoding, where every `%` begins an escape.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    let encoded = text
        .split('%')
        .skip(1)
        .all(|part| part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    if !encoded {
        return None;
    }
    // A plus is a plus here: codes are base64 now and then, and never have blanks.
    let text = text.replace('+', "%2B");
    let (name, _) = form_urlencoded::parse(text.as_bytes()).next()?;
    (!text.contains('&') && !text.contains('=')).then(|| Cow::Owned(name.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::{CallbackPath, RedirectHost, RedirectUri};
    use super::*;

    fn paste(text: &str) -> Result<Reply, PasteError> {
        let redirect = RedirectUri::new(RedirectHost::Localhost, 3335, CallbackPath::default());
        judge_paste(text, &Expectation::new(redirect, Secret::new("st8")))
    }

    fn code(text: &str) -> (String, bool) {
        let reply = paste(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let Answer::Code(code) = reply.answer else { panic!("{text}") };
        (code.expose().to_owned(), reply.with_state)
    }

    #[test]
    fn what_is_taken() {
        #[rustfmt::skip]
        let table = [
            ("http://localhost:3335/oauth/callback?code=4%2F0A&state=st8", "4/0A", true),
            (" \"http://localhost:3335/oauth/callback?code=4%2F0A&state=st8\"\n", "4/0A", true),
            ("<http://localhost:3335/oauth/callback?code=c&state=st8#_=_>", "c", true),
            ("HTTP://LOCALHOST:3335/oauth/callback?code=c&state=st8", "c", true),
            ("localhost:3335/oauth/callback?code=c&state=st8", "c", true),
            ("http://localhost:3335/oauth/call\r\nback?code=c&sta\nte=st8", "c", true),
            ("?code=c&state=st8", "c", true), ("code=c&state=st8", "c", true), ("state=st8&code=c", "c", true),
            ("'code=c&state=st8&iss=https%3A%2F%2Fa.example#x'", "c", true), ("c%2Fd&state=st8", "c/d", true),
            ("4/0AX4XfWh_x-y", "4/0AX4XfWh_x-y", false), ("4%2F0AX4XfWh%3D", "4/0AX4XfWh=", false),
            ("abc==", "abc==", false), ("a+b/c=", "a+b/c=", false), ("a%2Bb+c", "a+b+c", false), ("100%", "100%", false),
            ("M.C507_BAY.2.U.0f-!*$", "M.C507_BAY.2.U.0f-!*$", false),
        ];
        for (text, want, with_state) in table {
            assert_eq!(code(text), (want.to_owned(), with_state), "{text}");
        }
        let error = paste("?error=access_denied&state=st8").unwrap();
        assert!(matches!(error.answer, Answer::Error { error, .. } if error == "access_denied"));
    }

    #[test]
    fn what_is_not() {
        use PasteError::{Damaged, Empty, OtherAddress, OtherSignIn, TooLong};
        let long = "x".repeat(MAX_PASTE + 1);
        #[rustfmt::skip]
        let table = [
            ("", Empty), (" \n\"\" ", Empty), (&*long, TooLong),
            ("https://as.example/authorize?client_id=x&state=st8&code_challenge=y", OtherAddress),
            ("http://localhost:3336/oauth/callback?code=c&state=st8", OtherAddress),
            ("https://localhost:3335/oauth/callback?code=c&state=st8", OtherAddress),
            ("http://localhost:3335/other?code=c&state=st8", OtherAddress),
            ("http://u@localhost:3335/oauth/callback?code=c&state=st8", OtherAddress),
            ("http://localhost.evil.example:3335/oauth/callback?code=c&state=st8", OtherAddress),
            ("http://localhost:3335/oauth/callback?code=c", OtherSignIn), ("code=c", OtherSignIn),
            ("http://localhost:3335/oauth/callback?code=c&state=old", OtherSignIn), ("error=access_denied", OtherSignIn),
            ("http://localhost:3335/oauth/callback", Damaged), ("http://[", Damaged), ("state=st8", Damaged),
            ("code=c&code=d&state=st8", Damaged), ("two words", Damaged), ("c\u{202e}d", Damaged), ("caf\u{e9}", Damaged),
            ("ftp://localhost/x", Damaged), ("a%0Ab", Damaged),
        ];
        for (text, want) in table {
            assert_eq!(paste(text).err(), Some(want), "{text}");
        }
    }

    #[test]
    fn the_longest() {
        let longest = "x".repeat(super::super::MAX_PARAMETER);
        assert_eq!(code(&longest).0, longest);
        assert_eq!(paste(&format!("{longest}x")).err(), Some(PasteError::Damaged));
    }
}
