//! Whether a request is the answer to the pending sign-in (RFC 6749 sections 4.1.2 and 10.12, RFC 9700 section 4.7). Pure.
//!
//! Host, path and method first, then `state`: nothing of a request is looked at, kept or shown before its `state` matched.

use std::borrow::Cow;

use subtle::ConstantTimeEq as _;
use url::form_urlencoded;

use super::{BadRequest, RedirectUri, Request, parse_request};
use crate::secret::Secret;

/// Longest value of a parameter that is taken, in bytes. Codes of real servers have up to about 2,000.
pub const MAX_PARAMETER: usize = 8 * 1024;
/// Parameters of a callback that are looked at.
const MAX_PARAMETERS: usize = 64;

/// What the pending sign-in waits for.
#[derive(Clone, Debug)]
pub struct Expectation {
    redirect: RedirectUri,
    state: Secret,
}

impl Expectation {
    /// `state` is the value that went out with the authorization request.
    pub fn new(redirect: RedirectUri, state: Secret) -> Self {
        Self { redirect, state }
    }

    /// Where the answer has to come to.
    pub fn redirect(&self) -> &RedirectUri {
        &self.redirect
    }

    /// Compares in constant time, so that the answer's time tells nothing about the value. Nothing equals an empty one.
    fn is_state(&self, text: &str) -> bool {
        let expected = self.state.expose().as_bytes();
        !expected.is_empty() && bool::from(expected.ct_eq(text.as_bytes()))
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Shown a page, otherwise ignored: the sign-in goes on.
    Refused(Refused),
    /// The pending sign-in's answer.
    Matched(Reply),
}

/// Why a request is not the sign-in's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its bytes are no request that we take.
    Bad(BadRequest),
    /// Another `Host`: perhaps a page of another site that had its name point here (DNS rebinding).
    Host,
    /// Another path.
    Path,
    /// Not GET.
    Method,
    /// `state` is missing or another: an old tab, or somebody else's sign-in.
    State,
    /// A parameter came twice, is too long, has characters that do not belong there, or both or none of `code` and
    /// `error` are there.
    Parameters,
}

impl Refused {
    /// HTTP status for it.
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(BadRequest::TooLarge) => 431,
            Self::Bad(BadRequest::Version) => 505,
            Self::Bad(BadRequest::Malformed) | Self::State | Self::Parameters => 400,
            Self::Host => 421,
            Self::Path => 404,
            Self::Method => 405,
        }
    }
}

/// What the authorization server answered, by way of the browser or of a person. Nothing in it is checked beyond `state`.
///
/// Compare `iss` (RFC 9207 section 2.4) before anything is done with it, and before an error of it is shown.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Code or error.
    pub answer: Answer,
    /// `iss`, as it came: any text. Several are joined by blanks, and so equal no issuer.
    pub iss: Option<String>,
    /// Whether `state` came with it. Only a code that a person pasted alone may lack it; then `iss` could not be seen either.
    pub with_state: bool,
}

/// RFC 6749 section 4.1.2.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The authorization code: visible ASCII.
    Code(Secret),
    /// The authorization server refused.
    Error {
        /// `access_denied` and the like: visible ASCII, up to the limit.
        error: String,
        /// What the server says about it; hostile until shown through an escape.
        description: Option<String>,
    },
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.answer, &other.answer) {
            (Answer::Code(a), Answer::Code(b)) => bool::from(a.expose().as_bytes().ct_eq(b.expose().as_bytes())),
            (Answer::Error { error: a, .. }, Answer::Error { error: b, .. }) => a == b,
            _ => false,
        };
        same && self.iss == other.iss
    }
}

/// Judges a request by what is expected.
pub fn judge(request: &Request<'_>, expected: &Expectation) -> Verdict {
    let refused = if !expected.redirect.is_host(request.host) {
        Refused::Host
    } else if request.path != expected.redirect.path().as_str() {
        Refused::Path
    } else if request.method != "GET" {
        Refused::Method
    } else {
        return match reply_of(request.query, expected) {
            Ok(reply) => Verdict::Matched(reply),
            Err(refused) => Verdict::Refused(refused),
        };
    };
    Verdict::Refused(refused)
}

/// Judges the query of a callback, with or without `?`.
pub(super) fn reply_of(query: &str, expected: &Expectation) -> Result<Reply, Refused> {
    let (mut state, mut code, mut error, mut description) = (None, None, None, None);
    let mut iss: Option<String> = None;
    let mut twice = false;
    for (position, (name, value)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
        if position >= MAX_PARAMETERS {
            return Err(Refused::Parameters);
        }
        let slot = match &*name {
            "state" => &mut state,
            "code" => &mut code,
            "error" => &mut error,
            "error_description" => &mut description,
            // A wrong one ends the sign-in, once it is known to be the sign-in's answer: so all is kept.
            "iss" if value.len() <= MAX_PARAMETER => {
                iss = Some(iss.map_or_else(|| value.clone().into_owned(), |first| format!("{first} {value}")));
                continue;
            }
            "iss" => return Err(Refused::Parameters),
            _ => continue,
        };
        twice |= slot.replace(value).is_some();
    }
    if !state.is_some_and(|state| expected.is_state(&state)) {
        return Err(Refused::State);
    }
    let valid = |value: &Option<Cow<'_, str>>| value.as_deref().is_none_or(printable);
    // RFC 6749 section 3.1: no parameter more than once.
    if twice || !valid(&code) || !valid(&error) {
        return Err(Refused::Parameters);
    }
    let answer = match (code, error) {
        (Some(code), None) => Answer::Code(Secret::new(code)),
        (None, Some(error)) => Answer::Error {
            error: error.into_owned(),
            description: description.map(Cow::into_owned).filter(|text| text.len() <= MAX_PARAMETER),
        },
        _ => return Err(Refused::Parameters),
    };
    Ok(Reply { answer, iss, with_state: true })
}

/// VSCHAR of RFC 6749 appendix A, not empty, bounded.
pub(super) fn printable(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_PARAMETER && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

/// Fuzz entry: any bytes, as a request and as pasted text. What matches obeys every rule, however the bytes were cut.
#[doc(hidden)]
pub fn fuzz_redirect(data: &[u8]) {
    let path = super::CallbackPath::default();
    let redirect = RedirectUri::new(super::RedirectHost::Localhost, 3335, path);
    let expected = Expectation::new(redirect, Secret::new("s3cr3t"));
    let whole = parse_request(data);
    if let Ok(Some(request)) = whole {
        let mut longer = data.to_vec();
        longer.extend_from_slice(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(parse_request(&longer), Ok(Some(request)), "what follows a head changes it");
        if let Verdict::Matched(reply) = judge(&request, &expected) {
            assert_eq!((request.method, request.path), ("GET", "/oauth/callback"));
            assert!(request.host.eq_ignore_ascii_case("localhost:3335"));
            assert!(form_urlencoded::parse(request.query.as_bytes()).any(|(n, v)| n == "state" && v == "s3cr3t"));
            check(&reply);
        }
    }
    for end in (0..data.len()).step_by(1 + data.len() / 16) {
        match (parse_request(data.get(..end).unwrap_or_default()), &whole) {
            (Ok(None), _) => {}
            (part, whole) => assert_eq!(part, *whole, "a longer head is another"),
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(reply) = super::paste::judge_paste(text, &expected)
    {
        check(&reply);
    }
}

fn check(reply: &Reply) {
    match &reply.answer {
        Answer::Code(code) => {
            assert!(printable(code.expose()));
            assert_eq!(format!("{:?}", reply.answer), "Code(Secret(…))");
        }
        Answer::Error { error, .. } => assert!(printable(error)),
    }
    assert!(reply.iss.as_deref().is_none_or(|iss| iss.len() <= (MAX_PARAMETER + 1) * MAX_PARAMETERS));
}

#[cfg(test)]
mod tests {
    use super::super::{CallbackPath, RedirectHost};
    use super::*;

    fn expected() -> Expectation {
        let redirect = RedirectUri::new(RedirectHost::Localhost, 3335, CallbackPath::default());
        Expectation::new(redirect, Secret::new("st&te"))
    }

    fn verdict(method: &str, target: &str, host: &str) -> Result<Reply, Refused> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match judge(&Request { method, path, query, host }, &expected()) {
            Verdict::Matched(reply) => Ok(reply),
            Verdict::Refused(refused) => Err(refused),
        }
    }

    fn query(query: &str) -> Result<Reply, Refused> {
        verdict("GET", &format!("/oauth/callback?{query}"), "localhost:3335")
    }

    #[test]
    fn a_code() {
        let reply = query("code=4%2F0A%2Bb+c&state=st%26te&iss=https%3A%2F%2Fas.example&scope=x&scope=y").unwrap();
        let Answer::Code(code) = &reply.answer else { panic!("{reply:?}") };
        assert_eq!((code.expose(), reply.iss.as_deref()), ("4/0A+b c", Some("https://as.example")));
        assert!(reply.with_state && !format!("{reply:?}").contains("4/0A"));
    }

    #[test]
    fn an_error_needs_state_too() {
        let reply = query("error=access_denied&error_description=%3Cscript%3E&state=st%26te").unwrap();
        let Answer::Error { error, description } = reply.answer else { panic!() };
        assert_eq!((error.as_str(), description.as_deref()), ("access_denied", Some("<script>")));
        assert_eq!(query("error=access_denied").unwrap_err(), Refused::State);
        assert_eq!(query("error=access_denied&state=other").unwrap_err(), Refused::State);
    }

    #[test]
    fn where_it_came_to() {
        let good = "/oauth/callback?code=c&state=st%26te";
        assert!(verdict("GET", good, "LOCALHOST:3335").is_ok());
        #[rustfmt::skip]
        let table = [
            ("POST", good, "localhost:3335", Refused::Method), ("HEAD", good, "localhost:3335", Refused::Method),
            ("get", good, "localhost:3335", Refused::Method), ("OPTIONS", good, "localhost:3335", Refused::Method),
            ("GET", good, "evil.example:3335", Refused::Host), ("GET", good, "localhost", Refused::Host),
            ("GET", good, "127.0.0.1:3335", Refused::Host), ("POST", good, "evil.example", Refused::Host),
            ("GET", "/oauth/callback/?code=c&state=st%26te", "localhost:3335", Refused::Path),
            ("GET", "/oauth/Callback?code=c&state=st%26te", "localhost:3335", Refused::Path),
            ("GET", "//oauth/callback?code=c&state=st%26te", "localhost:3335", Refused::Path),
            ("GET", "/oauth/%63allback?code=c&state=st%26te", "localhost:3335", Refused::Path),
            ("GET", "/x/../oauth/callback?code=c&state=st%26te", "localhost:3335", Refused::Path),
            ("GET", "/favicon.ico", "localhost:3335", Refused::Path), ("GET", "/", "localhost:3335", Refused::Path),
            ("GET", "/oauth/callback", "localhost:3335", Refused::State),
        ];
        for (method, target, host, want) in table {
            assert_eq!(verdict(method, target, host).unwrap_err(), want, "{method} {target} {host}");
        }
    }

    #[test]
    fn parameters() {
        let long = "x".repeat(MAX_PARAMETER);
        assert!(query(&format!("code={long}&state=st%26te")).is_ok());
        let many = "a=b&".repeat(MAX_PARAMETERS);
        let too_long = format!("code={long}x&state=st%26te");
        let too_many = format!("{many}code=c&state=st%26te");
        #[rustfmt::skip]
        let table = [
            ("code=c", Refused::State), ("code=c&state=", Refused::State), ("code=c&state=st%26t", Refused::State),
            ("code=c&state=st%26tee", Refused::State), ("code=c&state=ST%26TE", Refused::State), ("code=c&State=st%26te", Refused::State),
            ("code=c&state=other&state=st%26te", Refused::Parameters), ("code=c&state=st%26te&state=other", Refused::State),
            ("code=c&code=d&state=st%26te", Refused::Parameters), ("code=c&code=c&state=st%26te", Refused::Parameters),
            ("code=c&error=e&state=st%26te", Refused::Parameters),
            ("state=st%26te", Refused::Parameters), ("code=&state=st%26te", Refused::Parameters),
            ("code=a%0Ab&state=st%26te", Refused::Parameters), ("code=a%00&state=st%26te", Refused::Parameters),
            ("code=%FF&state=st%26te", Refused::Parameters), ("error=%1B%5B31m&state=st%26te", Refused::Parameters),
            (&too_long, Refused::Parameters), (&too_many, Refused::Parameters),
        ];
        for (text, want) in table {
            assert_eq!(query(text).unwrap_err(), want, "{text}");
        }
        // Of `iss` all is kept for the judge.
        for (text, want) in [("iss=a&iss=b", "a b"), ("iss=", ""), ("iss=%E2%80%AE", "\u{202e}")] {
            assert_eq!(query(&format!("code=c&{text}&state=st%26te")).unwrap().iss.as_deref(), Some(want));
        }
    }

    #[test]
    fn an_empty_state_is_nobodys() {
        let nobody = Expectation::new(expected().redirect, Secret::new(""));
        assert_eq!(reply_of("code=c&state=", &nobody).unwrap_err(), Refused::State);
    }

    #[test]
    fn the_same_reply_again() {
        let same = |a: &str, b: &str| query(a).unwrap() == query(b).unwrap();
        assert!(same("code=c&state=st%26te", "state=st%26te&code=%63"));
        assert!(!same("code=c&state=st%26te", "code=d&state=st%26te"));
        assert!(!same("code=c&state=st%26te", "code=c&iss=x&state=st%26te"));
        assert!(!same("code=c&state=st%26te", "error=c&state=st%26te"));
        assert!(same("error=e&error_description=a&state=st%26te", "error=e&state=st%26te"));
    }
}
