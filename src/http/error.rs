//! What can go wrong, told for people.

use std::{error::Error, fmt};

use url::Url;

/// What happened, by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// An option or a file named by the user is wrong. Nothing was tried.
    Usage,
    /// The name has no address.
    Dns,
    /// No TCP connection.
    Connect,
    /// TLS failed: certificate, name, version or client certificate.
    Tls,
    /// The proxy refused or failed.
    Proxy,
    /// A time limit passed.
    Timeout,
    /// The connection was lost, or the body ended early.
    Cut,
    /// A header or body over its limit.
    TooLarge,
    /// A redirect that leads nowhere good: loop, too many, or one that would change a POST into a GET.
    Redirect,
    /// We refused. `flag` is the option that would allow it, where there is one.
    Policy {
        /// Name of the rule.
        rule: &'static str,
        /// Option that lifts it.
        flag: Option<&'static str>,
    },
    /// The server does not speak proper HTTP.
    Malformed,
}

/// A failed request. Display is one sentence for a person; `hint` says what to do.
pub struct HttpError {
    inner: Box<Inner>,
}

struct Inner {
    kind: HttpErrorKind,
    surely_unsent: bool,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl HttpError {
    /// What happened.
    pub fn kind(&self) -> HttpErrorKind {
        self.inner.kind
    }

    /// True only when the request certainly never reached the server.
    pub fn surely_unsent(&self) -> bool {
        self.inner.surely_unsent
    }

    /// What to do about it, one sentence, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        self.inner.hint.clone()
    }

    pub(crate) fn usage(message: String) -> Self {
        Self {
            inner: Box::new(Inner {
                kind: HttpErrorKind::Usage,
                surely_unsent: true,
                message,
                hint: None,
                source: None,
            }),
        }
    }

    pub(crate) fn classify(error: reqwest::Error, url: &Url) -> Self {
        let kind = if error.is_timeout() {
            HttpErrorKind::Timeout
        } else if error.is_connect() {
            HttpErrorKind::Connect
        } else {
            HttpErrorKind::Cut
        };
        Self {
            inner: Box::new(Inner {
                kind,
                surely_unsent: error.is_connect(),
                message: format!("request to {} failed", url.host_str().unwrap_or_default()),
                hint: None,
                source: Some(Box::new(error.without_url())),
            }),
        }
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
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_ref().map(|e| &**e as _)
    }
}
