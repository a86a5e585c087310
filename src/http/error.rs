//! What can go wrong with a request, told for people.

use std::{error::Error, fmt};

use super::guard::Refusal;

/// What happened, by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// An option, or a file named by the user, is wrong. Nothing was tried.
    Usage,
    /// The name has no address.
    Dns,
    /// No connection.
    Connect,
    /// TLS failed: certificate, name, version or client certificate.
    Tls,
    /// The proxy refused or failed.
    Proxy,
    /// A time limit passed.
    Timeout,
    /// The connection was lost before the answer was whole.
    Cut,
    /// A head or body over its limit.
    TooLarge,
    /// A redirect that leads nowhere good: a loop, too many, or one that would change a POST into a GET.
    Redirect,
    /// We refused.
    Policy {
        /// Name of the rule (`guard.rs`).
        rule: &'static str,
        /// Option that lifts it, where there is one.
        flag: Option<&'static str>,
    },
    /// What came is not proper HTTP.
    Malformed,
}

/// A failed request.
///
/// `Display` is one sentence that says what happened; [`hint`](Self::hint) says what to do about it; `source` leads to the
/// causes. None of them holds a URL's query, a header value or a password.
pub struct HttpError {
    // Boxed, because the good case pays for the size of a `Result`.
    inner: Box<Inner>,
}

struct Inner {
    kind: HttpErrorKind,
    surely_unsent: bool,
    definite: bool,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl HttpError {
    /// What happened.
    pub fn kind(&self) -> HttpErrorKind {
        self.inner.kind
    }

    /// True only when the request certainly never reached the server, so that sending it again cannot do anything twice.
    pub fn surely_unsent(&self) -> bool {
        self.inner.surely_unsent
    }

    /// True when the same request will fail in the same way until somebody changes something: a wrong option, a refusal, a
    /// certificate that is not trusted, a name that does not exist. False for faults that pass by themselves.
    pub fn is_definite(&self) -> bool {
        self.inner.definite
    }

    /// What to do about it, as a clause without a full stop, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        self.inner.hint.clone()
    }

    pub(super) fn new(kind: HttpErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                surely_unsent: false,
                definite: false,
                message: message.into(),
                hint: None,
                source: None,
            }),
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(HttpErrorKind::Usage, message).unsent(true).definite(true)
    }

    pub(super) fn unsent(mut self, unsent: bool) -> Self {
        self.inner.surely_unsent = unsent;
        self
    }

    pub(super) fn definite(mut self, definite: bool) -> Self {
        self.inner.definite = definite;
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }
}

/// A refusal before the first byte went out. Of a redirect's target it is not: the first hop has seen the request.
impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        let kind = HttpErrorKind::Policy { rule: refusal.rule, flag: refusal.flag };
        let error = Self::new(kind, refusal.message.clone()).definite(true);
        let hint = match (&refusal.hint, refusal.flag) {
            (Some(hint), _) => Some(hint.clone()),
            (None, Some(flag)) => Some(format!("{flag} allows it")),
            (None, None) => None,
        };
        let error = match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        error.with_source(refusal)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("kind", &self.inner.kind)
            .field("surely_unsent", &self.inner.surely_unsent)
            .field("definite", &self.inner.definite)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish_non_exhaustive()
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as _)
    }
}
