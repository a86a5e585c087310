//! What ends a step of signing in, told for people.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::http::{
    HttpError, HttpErrorKind,
    guard::{Refusal, shown_text},
};

/// Longest string that a message repeats as one of two that differ, in characters.
const MAX_DIFFER: usize = 300;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// A rule was broken, by the peer or by an option. The same step fails again until the mender acts.
    Refused,
    /// The authorization server said no in a way that it may not say next time: another scope, another user, another try.
    Denied,
    /// The refresh token, or the code, is dead. Only a new sign-in helps.
    GrantDead,
    /// The authorization server does not know the client, or not its secret. Register anew.
    ClientRejected,
    /// A fault that passes: the network, a 5xx, a 429. Ends no login.
    Transient {
        /// How long the server asks us to wait, where it says so.
        retry_after: Option<Duration>,
    },
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mender {
    /// The user, by an option or a try.
    User,
    /// Whoever runs the MCP server.
    Server,
    /// Whoever runs the authorization server.
    AuthorizationServer,
    /// Nobody: it passes.
    Nobody,
}

impl fmt::Display for Mender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "you",
            Self::Server => "the MCP server's owner",
            Self::AuthorizationServer => "the authorization server's owner",
            Self::Nobody => "nobody",
        })
    }
}

/// A step of signing in that came to nothing.
///
/// `Display` is one sentence, with the two strings that differ where there are two. [`hint`](Self::hint) says what to do.
/// Texts of peers in it are printable ASCII and bounded; no token, code, verifier, state, secret or URL query is in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthError {
    // Boxed, because the good case pays for the size of a `Result`.
    inner: Box<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    rule: Cow<'static, str>,
    fault: Fault,
    mender: Mender,
    message: String,
    differ: Option<(String, String)>,
    flag: Option<Cow<'static, str>>,
    hint: Option<String>,
}

impl AuthError {
    /// Name of the rule, stable: for tests, logs and audit.
    pub fn rule(&self) -> &str {
        &self.inner.rule
    }

    /// What the caller does next.
    pub fn fault(&self) -> Fault {
        self.inner.fault
    }

    /// Who must mend it.
    pub fn mender(&self) -> Mender {
        self.inner.mender
    }

    /// The two strings that should have been the same: what was expected, what came. Bounded, printable ASCII.
    pub fn differ(&self) -> Option<(&str, &str)> {
        self.inner.differ.as_ref().map(|(expected, found)| (&**expected, &**found))
    }

    /// The option that lifts the rule, where there is one.
    pub fn flag(&self) -> Option<&str> {
        self.inner.flag.as_deref()
    }

    /// What to do about it, as a clause without a full stop.
    pub fn hint(&self) -> Option<String> {
        match (&self.inner.hint, self.flag(), self.inner.mender) {
            (Some(hint), ..) => Some(hint.clone()),
            (None, Some(flag), mender @ (Mender::Server | Mender::AuthorizationServer)) => {
                Some(format!("{mender} must mend it; until then {flag} allows it"))
            }
            (None, Some(flag), _) => Some(format!("{flag} allows it")),
            (None, None, mender @ (Mender::Server | Mender::AuthorizationServer)) => {
                Some(format!("{mender} must mend it"))
            }
            (None, None, Mender::User | Mender::Nobody) => None,
        }
    }

    pub(super) fn new(rule: &'static str, mender: Mender, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            inner: Box::new(Inner {
                rule: rule.into(),
                fault: Fault::Refused,
                mender,
                message,
                differ: None,
                flag: None,
                hint: None,
            }),
        }
    }

    /// A fault of ours that passes.
    pub fn failed(message: &str) -> Self {
        Self::new("failed", Mender::Nobody, message).with_fault(Fault::Transient { retry_after: None })
    }

    pub(super) fn with_fault(mut self, fault: Fault) -> Self {
        self.inner.fault = fault;
        self
    }

    /// A fault that passes for the server has come to an end for this sign-in.
    pub(super) fn lasting(self) -> Self {
        match self.fault() {
            Fault::Transient { .. } => self.with_fault(Fault::Denied).with_hint("sign in again"),
            _ => self,
        }
    }

    pub(super) fn with_differ(mut self, expected: &str, found: &str) -> Self {
        self.inner.differ = Some((plain(expected), plain(found)));
        self
    }

    pub(super) fn with_flag(mut self, flag: &'static str) -> Self {
        self.inner.flag = Some(flag.into());
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// A URL of `mender`'s that the policy refused. `what` names it: `the token endpoint`.
    pub(super) fn from_policy(refusal: Refusal, mender: Mender, what: &str) -> Self {
        let error = Self::new(refusal.rule, mender, format!("{what} is not usable: {}", refusal.message));
        let error = match refusal.flag {
            Some(flag) => error.with_flag(flag),
            None => error,
        };
        match refusal.hint {
            Some(hint) if refusal.flag.is_none() => error.with_hint(hint),
            _ => error,
        }
    }

    /// A request that got no answer. `doing` says what for: `reading the resource metadata`.
    pub(super) fn from_http(error: &HttpError, doing: &str) -> Self {
        let definite = error.is_definite();
        let (rule, mender, flag) = match error.kind() {
            // Its own URL has passed; so it is a redirect, or what the name resolves to.
            HttpErrorKind::Policy { rule, flag } => (rule, Mender::Server, flag),
            _ if definite => ("no-answer", Mender::User, None),
            _ => ("no-answer", Mender::Nobody, None),
        };
        let fault = if definite { Fault::Refused } else { Fault::Transient { retry_after: None } };
        let out = Self::new(rule, mender, format!("{doing}: {error}")).with_fault(fault);
        let out = match flag {
            Some(flag) => out.with_flag(flag),
            None => out,
        };
        match error.hint() {
            Some(hint) => out.with_hint(hint),
            None => out,
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match &self.inner.differ {
            Some((expected, found)) => write!(f, ": expected \"{expected}\", got \"{found}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl std::error::Error for AuthError {}

/// A string that is compared byte for byte: whatever is not printable ASCII is escaped, so that a difference shows.
fn plain(text: &str) -> String {
    let escaped: String = text.chars().take(MAX_DIFFER).flat_map(char::escape_default).collect();
    // The escapes of quotes would be read as part of the string.
    let mut out = escaped.replace("\\'", "'").replace("\\\"", "\"");
    if text.chars().nth(MAX_DIFFER).is_some() {
        out.push_str("...");
    }
    out
}

/// A text of a peer as part of a sentence.
pub(super) fn foreign(text: &str) -> String {
    shown_text(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_rule_strings_and_mender() {
        let error = AuthError::new("issuer-identical", Mender::AuthorizationServer, "the issuer differs")
            .with_differ("https://a.example", "https://\u{430}.example/\"\n");
        assert_eq!(
            error.to_string(),
            "the issuer differs: expected \"https://a.example\", got \"https://\\u{430}.example/\"\\n\""
        );
        assert_eq!(error.hint().unwrap(), "the authorization server's owner must mend it");
        assert_eq!((error.rule(), error.fault()), ("issuer-identical", Fault::Refused));
        let flagged = error.clone().with_flag("--x");
        assert_eq!(flagged.hint().unwrap(), "the authorization server's owner must mend it; until then --x allows it");
        assert_eq!(flagged.with_hint("do this").hint().unwrap(), "do this");
    }

    #[test]
    fn it_passes_through_a_pipe_whole() {
        let fault = Fault::Transient { retry_after: Some(Duration::from_millis(1500)) };
        let error = AuthError::new("r", Mender::Nobody, "m").with_fault(fault).with_differ("a", "b");
        for error in [error.clone(), error.clone().with_flag("--x"), error.with_hint("h")] {
            let text = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<AuthError>(&text).unwrap(), error);
        }
    }

    #[test]
    fn long_strings_are_cut() {
        let error = AuthError::new("r", Mender::User, "m").with_differ(&"a".repeat(MAX_DIFFER), &"b".repeat(100_000));
        let (expected, found) = error.differ().unwrap();
        assert_eq!((expected.len(), found.len()), (MAX_DIFFER, MAX_DIFFER + 3));
        assert!(AuthError::new("r", Mender::User, "m").hint().is_none());
    }
}
