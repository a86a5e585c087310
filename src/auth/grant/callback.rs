//! The authorization response (RFC 6749 section 4.1.2, RFC 9207), once its `state` is known to be ours. Pure.
//!
//! The order matters: [`crate::auth::callback`] looks at `state` first, because whoever does not know it is nobody we asked, and gets nothing
//! done, not even an end of the sign-in. Here `iss` comes next, before a code is sent or an error is believed; then the rest.

use crate::{
    auth::callback::{Answer, Reply},
    auth::error::{AuthError, Fault, Mender, foreign},
    secret::Secret,
};

/// What was recorded before the browser was sent away.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Issuer of the validated metadata, byte for byte.
    pub issuer: &'a str,
    /// Whether that metadata says that `iss` comes.
    pub iss_in_response: bool,
}

/// The code of an answer, which may be redeemed once; or why there is none, which may be shown.
///
/// A code that a person pasted alone has no state. PKCE binds it to our request all the same, so it is taken, but not from a server that
/// says it sends `iss`: then only the whole address can be judged.
pub fn judge(reply: Reply, expected: &Expected<'_>) -> Result<Secret, AuthError> {
    judge_issuer(reply.iss.as_deref(), expected).map_err(|error| {
        if reply.with_state {
            error
        } else {
            AuthError::new(
                "callback-issuer",
                Mender::User,
                "that is no address, and this authorization server's code alone cannot be checked (RFC 9207 section 2.4)",
            )
            .with_hint("paste the whole address of the page at the end of the sign-in")
        }
    })?;
    match reply.answer {
        Answer::Code(code) => Ok(code),
        Answer::Error { error, description } => Err(denied(&error, description.as_deref().unwrap_or_default())),
    }
}

/// RFC 9207 section 2.4 with the table of MCP 2026-07-28 "Authorization Response Validation": simple string comparison,
/// nothing normalised. On a mismatch nothing of the answer is shown but `iss` itself.
fn judge_issuer(found: Option<&str>, expected: &Expected<'_>) -> Result<(), AuthError> {
    let refuse = |message: &str, found: &str| {
        let error = AuthError::new("callback-issuer", Mender::AuthorizationServer, message);
        Err(error.with_differ(expected.issuer, found).with_hint(
            "nothing was sent anywhere; either another authorization server answered in this one's place, or the authorization \
             server's owner must make iss and the issuer in its metadata the same",
        ))
    };
    match found {
        Some(iss) if iss == expected.issuer => Ok(()),
        Some(iss) => refuse("the answer comes from another issuer (RFC 9207 section 2.4)", iss),
        None if !expected.iss_in_response => Ok(()),
        None => {
            refuse("the answer has no iss, which the authorization server says it sends (RFC 9207 section 2.4)", "")
        }
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

/// Entry point for fuzzing: the query of a callback, as a request to the redirect URI and as pasted text.
///
/// # Panics
///
/// When a promise of this module is broken.
#[doc(hidden)]
pub fn fuzz_callback(data: &[u8]) {
    use crate::auth::callback::{CallbackPath, Expectation, RedirectHost, RedirectUri, paste::judge_paste};
    use url::form_urlencoded;

    let text = String::from_utf8_lossy(data);
    let redirect = RedirectUri::new(RedirectHost::Localhost, 3335, CallbackPath::default());
    let state = Expectation::new(redirect, Secret::new("S"));
    let Ok(reply) = judge_paste(&format!("http://localhost:3335/oauth/callback?{text}"), &state) else { return };
    let query = text.split('#').next().unwrap_or_default();
    let values = |name: &str| {
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };
    assert!(!reply.with_state || values("state") == ["S"]);
    for iss_in_response in [false, true] {
        let expected = Expected { issuer: "https://as.example", iss_in_response };
        let fits = match reply.iss.as_deref() {
            Some(iss) => iss == "https://as.example",
            None => !iss_in_response,
        };
        match judge(reply.clone(), &expected) {
            Ok(code) => assert!(fits && !code.expose().is_empty()),
            Err(error) => {
                assert_eq!(error.rule() == "callback-issuer", !fits);
                let shown = format!("{error} {}", error.hint().unwrap_or_default());
                assert!(shown.chars().all(|c| !c.is_control()) && shown.len() < 4096);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(iss: Option<&str>, with_state: bool) -> Reply {
        Reply { answer: Answer::Code(Secret::new("c")), iss: iss.map(str::to_owned), with_state }
    }

    fn error(code: &str) -> Reply {
        let answer = Answer::Error { error: code.to_owned(), description: Some("said \u{1b}[31m so".to_owned()) };
        Reply { answer, iss: None, with_state: true }
    }

    #[test]
    fn iss_comes_before_code_and_error() {
        const OURS: &str = "https://as.example";
        // (iss, whether it is announced, taken)
        let table = [
            (Some(OURS), true, true),
            (Some(OURS), false, true),
            (None, false, true),
            (None, true, false),
            (Some("https://as.example/"), true, false),
            (Some("https://evil.example"), false, false),
            (Some(""), false, false),
        ];
        for (iss, iss_in_response, taken) in table {
            let expected = Expected { issuer: OURS, iss_in_response };
            let judged = judge(code(iss, true), &expected);
            assert_eq!(judged.is_ok(), taken, "{iss:?} {iss_in_response}");
            if let Err(error) = judged {
                assert_eq!((error.rule(), error.fault()), ("callback-issuer", Fault::Refused));
                let answer = Answer::Error { error: "access_denied".into(), description: Some("hidden".into()) };
                let reply = Reply { answer, iss: iss.map(str::to_owned), with_state: true };
                let error = judge(reply, &expected).unwrap_err();
                assert!(error.rule() == "callback-issuer" && !error.to_string().contains("hidden"));
            }
        }
    }

    #[test]
    fn a_code_alone_is_not_taken_from_a_server_that_sends_iss() {
        let expected = |iss_in_response| Expected { issuer: "i", iss_in_response };
        assert_eq!(judge(code(None, false), &expected(false)).unwrap().expose(), "c");
        let error = judge(code(None, false), &expected(true)).unwrap_err();
        assert!(error.hint().unwrap().contains("whole address"));
    }

    #[test]
    fn errors_say_what_follows() {
        let expected = Expected { issuer: "i", iss_in_response: false };
        let table = [
            ("access_denied", "access-denied", Fault::Denied),
            ("invalid_scope", "invalid-scope", Fault::Denied),
            ("invalid_target", "invalid-target", Fault::Denied),
            ("unauthorized_client", "client-rejected", Fault::ClientRejected),
            ("server_error", "server-busy", Fault::Transient { retry_after: None }),
            ("x", "sign-in-refused", Fault::Denied),
        ];
        for (word, rule, fault) in table {
            let error = judge(error(word), &expected).unwrap_err();
            assert_eq!((error.rule(), error.fault()), (rule, fault));
            assert!(!error.to_string().contains('\u{1b}') && error.hint().is_some());
        }
    }
}
