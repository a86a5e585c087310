//! The authorization response (RFC 6749 section 4.1.2, RFC 9207): what came to the redirect URI. Pure.
//!
//! The order matters: first `state`, because whoever does not know it is nobody we asked, and gets nothing done, not even an end
//! of the sign-in; then `iss`, before a code is sent or an error is believed; then the rest.

use std::borrow::Cow;

use url::form_urlencoded;

use crate::{
    auth::error::{AuthError, Fault, Mender, foreign},
    secret::Secret,
};

/// Longest query that is read, in bytes.
pub const MAX_QUERY: usize = 16 * 1024;
/// Longest code that is taken, in bytes.
pub const MAX_CODE: usize = 8 * 1024;

/// What was recorded before the browser was sent away.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// State of the request.
    pub state: &'a Secret,
    /// Issuer of the validated metadata, byte for byte.
    pub issuer: &'a str,
    /// Whether that metadata says that `iss` comes.
    pub iss_in_response: bool,
}

/// What a request to the redirect URI was.
#[derive(Debug)]
pub enum Callback {
    /// The answer. The code may be redeemed, once.
    Code(Secret),
    /// Nothing of ours: refuse it with a page and go on waiting.
    NotOurs,
    /// The answer, and no code: the sign-in has ended. The error may be shown.
    Ended(AuthError),
}

/// Judges the query of a request to the redirect URI: the text after `?`.
pub fn judge(query: &str, expected: &Expected<'_>) -> Callback {
    if query.len() > MAX_QUERY {
        return Callback::NotOurs;
    }
    let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(query.as_bytes()).collect();
    let all =
        |name: &str| pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect::<Vec<_>>();
    match all("state").as_slice() {
        [state] if same(state, expected.state.expose()) => {}
        _ => return Callback::NotOurs,
    }
    let ended = |rule, message: &str| Callback::Ended(AuthError::new(rule, Mender::AuthorizationServer, message));
    if let Err(error) = judge_issuer(&all("iss"), expected) {
        return Callback::Ended(error);
    }
    match (all("code").as_slice(), all("error").as_slice()) {
        ([code], []) if is_code(code) => Callback::Code(Secret::new(*code)),
        ([_], []) => ended("callback-code", "the authorization server's answer has a code that is no code"),
        ([], [error]) => Callback::Ended(denied(error, all("error_description").first().copied().unwrap_or_default())),
        ([], []) => ended("callback-form", "the authorization server's answer has neither a code nor an error"),
        _ => ended("callback-form", "the authorization server's answer says more than one thing"),
    }
}

/// Judges what a person pasted: the address that the browser ended at, or the code alone.
///
/// The code alone has no state. PKCE binds it to our request all the same, so it is taken, but not from a server that says it
/// sends `iss`: then only the whole address can be judged.
pub fn judge_pasted(text: &str, expected: &Expected<'_>) -> Callback {
    let text = text.trim().trim_matches(['"', '\'', '<', '>']);
    if let Some((_, query)) = text.split_once('?') {
        return judge(query.split('#').next().unwrap_or_default(), expected);
    }
    if text.contains("://") || text.contains(' ') || !is_code(text) {
        return Callback::NotOurs;
    }
    match judge_issuer(&[], expected) {
        Ok(()) => Callback::Code(Secret::new(text)),
        Err(error) => Callback::Ended(error.with_hint("paste the whole address from the browser, not the code alone")),
    }
}

/// RFC 6749 appendix A.11.
fn is_code(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CODE && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// RFC 9207 section 2.4 with the table of MCP 2026-07-28 "Authorization Response Validation": simple string comparison,
/// nothing normalised. On a mismatch nothing of the answer is shown but `iss` itself.
fn judge_issuer(found: &[&str], expected: &Expected<'_>) -> Result<(), AuthError> {
    let refuse = |message: &str, found: &str| {
        let error = AuthError::new("callback-issuer", Mender::AuthorizationServer, message);
        Err(error.with_differ(expected.issuer, found).with_hint(
            "nothing was sent anywhere; either another authorization server answered in this one's place, or the authorization \
             server's owner must make iss and the issuer in its metadata the same",
        ))
    };
    match found {
        [iss] if *iss == expected.issuer => Ok(()),
        [iss] => refuse("the answer comes from another issuer (RFC 9207 section 2.4)", iss),
        [] if !expected.iss_in_response => Ok(()),
        [] => refuse("the answer has no iss, which the authorization server says it sends (RFC 9207 section 2.4)", ""),
        _ => refuse("the answer has more than one iss (RFC 9207 section 2.4)", &found.join(" ")),
    }
}

/// RFC 6749 section 4.1.2.1.
fn denied(code: &str, description: &str) -> AuthError {
    let said = foreign(description);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let (rule, fault, mender, message, hint) = match code {
        "access_denied" => (
            "access-denied",
            Fault::Denied,
            Mender::User,
            "the sign-in was denied".to_owned(),
            "sign in again and allow the access",
        ),
        "invalid_scope" => (
            "invalid-scope",
            Fault::Denied,
            Mender::Server,
            "the authorization server does not know a scope that the MCP server asks for".to_owned(),
            "the MCP server's owner must mend it; until then, name the scopes with --static-oauth-client-metadata '{\"scope\":\"…\"}'",
        ),
        "invalid_target" => (
            "invalid-target",
            Fault::Denied,
            Mender::AuthorizationServer,
            "the authorization server does not know the MCP server as a resource".to_owned(),
            "name it as the authorization server does with --resource, or leave it out with --disable-resource-parameter",
        ),
        "unauthorized_client" | "invalid_client" => (
            "client-rejected",
            Fault::ClientRejected,
            Mender::User,
            "the authorization server does not take this client".to_owned(),
            "sign in again; with a client id of your own, look at its settings there",
        ),
        "server_error" | "temporarily_unavailable" => (
            "server-busy",
            Fault::Transient { retry_after: None },
            Mender::Nobody,
            format!("the authorization server is in trouble ({code})"),
            "try again in a while",
        ),
        other => (
            "sign-in-refused",
            Fault::Denied,
            Mender::AuthorizationServer,
            format!("the authorization server refused the sign-in ({})", foreign(other)),
            "sign in again; if it goes on, tell the authorization server's owner",
        ),
    };
    AuthError::new(rule, mender, format!("{message}{said}")).with_fault(fault).with_hint(hint)
}

/// In a time that depends on the lengths alone.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && !b.is_empty() && a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Entry point for fuzzing: the query of a callback.
///
/// # Panics
///
/// When a promise of this module is broken.
#[doc(hidden)]
pub fn fuzz_callback(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let state = Secret::new("S");
    for iss_in_response in [false, true] {
        let expected = Expected { state: &state, issuer: "https://as.example", iss_in_response };
        let count = |name: &str| form_urlencoded::parse(text.as_bytes()).filter(|(known, _)| known == name).count();
        let has = |name: &str, value: &str| {
            form_urlencoded::parse(text.as_bytes()).any(|pair| pair == (name.into(), value.into()))
        };
        let ours = has("state", "S") && count("state") == 1;
        let issuer_fits =
            has("iss", "https://as.example") && count("iss") == 1 || count("iss") == 0 && !iss_in_response;
        match judge(&text, &expected) {
            Callback::Code(code) => {
                assert!(ours && issuer_fits && count("code") == 1 && count("error") == 0);
                assert!(!code.expose().is_empty() && code.expose().len() <= MAX_CODE);
            }
            Callback::NotOurs => assert!(!ours || text.len() > MAX_QUERY),
            Callback::Ended(error) => {
                assert!(ours);
                assert_eq!(error.rule() == "callback-issuer", !issuer_fits);
                let shown = format!("{error} {}", error.hint().unwrap_or_default());
                assert!(shown.chars().all(|c| !c.is_control()) && shown.len() < 4096);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(query: &str) -> Callback {
        let state = Secret::new("S");
        judge(query, &Expected { state: &state, issuer: "https://as.example", iss_in_response: false })
    }

    #[test]
    fn limits_are_reached() {
        let code = |length| go(&format!("state=S&code={}", "c".repeat(length)));
        assert!(matches!(code(MAX_CODE), Callback::Code(_)));
        assert!(matches!(code(MAX_CODE + 1), Callback::Ended(_)));
        let padded = |length| go(&format!("state=S&code=c&x={}", "c".repeat(length - "state=S&code=c&x=".len())));
        assert!(matches!(padded(MAX_QUERY), Callback::Code(_)));
        assert!(matches!(padded(MAX_QUERY + 1), Callback::NotOurs));
    }

    #[test]
    fn pasted_answers() {
        let state = Secret::new("S");
        let go = |text: &str, iss_in_response| match judge_pasted(
            text,
            &Expected { state: &state, issuer: "https://as.example", iss_in_response },
        ) {
            Callback::Code(code) => code.expose().to_owned(),
            Callback::NotOurs => "not ours".to_owned(),
            Callback::Ended(error) => error.rule().to_owned(),
        };
        #[rustfmt::skip]
        let table = [
            (" http://localhost:3334/oauth/callback?code=c%2F1&state=S \n", false, "c/1"), ("\"http://x/?code=c&state=S#frag\"", false, "c"),
            ("http://x/?code=c&state=T", false, "not ours"), ("http://x/callback", false, "not ours"), ("", false, "not ours"),
            ("c-1/x", false, "c-1/x"), ("two words", false, "not ours"), ("c-1", true, "callback-issuer"),
            ("?code=c&state=S", false, "c"), ("http://x/?code=c&state=S&iss=https://as.example", true, "c"),
            ("http://x/?code=c&state=S", true, "callback-issuer"), ("http://x/?error=access_denied&state=S", false, "access-denied"),
        ];
        for (text, iss_in_response, want) in table {
            assert_eq!(go(text, iss_in_response), want, "{text}");
        }
    }

    #[test]
    fn an_empty_state_matches_nothing() {
        let state = Secret::new("");
        let expected = Expected { state: &state, issuer: "i", iss_in_response: false };
        assert!(matches!(judge("state=&code=c", &expected), Callback::NotOurs));
        assert!(!format!("{:?}", go("state=S&code=hidden")).contains("hidden"));
    }
}
