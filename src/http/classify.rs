//! From a library's error to ours: by type, down the chain of causes. Texts are compared only where a type is private.

use std::{error::Error, io, time::Duration};

use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::{
    HttpError, HttpErrorKind,
    guard::{self, Origin},
    proxy::Via,
    resolver::ResolveError,
};

/// Most names of a certificate that are repeated in a message.
const MAX_NAMES: usize = 5;

/// What was going on when it failed.
pub(super) struct Scene<'a> {
    pub(super) url: &'a Url,
    pub(super) via: Option<&'a Via>,
    pub(super) connect_timeout: Duration,
}

impl Scene<'_> {
    /// `host:port` of the server.
    fn server(&self) -> String {
        Origin::of(self.url).map_or_else(
            || "the server".to_owned(),
            |origin| guard::shown_text(&format!("{}:{}", origin.host(), origin.port())),
        )
    }

    /// The server or the proxy: what we connect to.
    fn peer(&self) -> String {
        match self.via {
            Some(via) => format!("the proxy {}", via.label),
            None => self.server(),
        }
    }
}

/// An error before the response head was there.
pub(super) fn before_head(error: reqwest::Error, scene: &Scene<'_>) -> HttpError {
    let error = error.without_url();
    let connecting = error.is_connect();
    classify(&error, connecting, scene).with_source(error)
}

/// An error while the body was read.
pub(super) fn in_body(error: reqwest::Error, scene: &Scene<'_>) -> HttpError {
    let error = error.without_url();
    body_error(&error, scene).with_source(error)
}

/// No head within the limit.
pub(super) fn head_timeout(limit: Duration, scene: &Scene<'_>) -> HttpError {
    let message = format!("no answer from {} within {}", scene.server(), shown_duration(limit));
    HttpError::new(HttpErrorKind::Timeout, message).with_hint("--headers-timeout sets the limit")
}

/// Nothing of the body within the limit.
pub(super) fn body_timeout(limit: Duration, scene: &Scene<'_>) -> HttpError {
    let message =
        format!("nothing arrived from {} for {} in the middle of an answer", scene.server(), shown_duration(limit));
    HttpError::new(HttpErrorKind::Timeout, message).with_hint("--body-timeout sets the limit")
}

/// The proxy does not know us.
pub(super) fn proxy_login(via: &Via) -> HttpError {
    let message = format!("the proxy {} wants a user name and a password", via.label);
    HttpError::new(HttpErrorKind::Proxy, message)
        .definite(true)
        .with_hint("put them into the proxy's URL: http://USER:PASSWORD@HOST:PORT")
}

fn classify(error: &(dyn Error + 'static), connecting: bool, scene: &Scene<'_>) -> HttpError {
    if let Some(error) = find::<ResolveError>(error) {
        return resolve_error(error, scene);
    }
    if let Some(error) = find::<rustls::Error>(error)
        && (connecting || matches!(error, rustls::Error::AlertReceived(_)))
    {
        return tls_error(error, scene).unsent(connecting);
    }
    if connecting {
        return connect_error(error, scene).unsent(true);
    }
    if let Some(error) = find::<hyper::Error>(error) {
        // Given back unsent: the connection closed before it was its turn.
        if error.is_canceled() {
            let message = format!("the connection to {} was lost", scene.peer());
            return HttpError::new(HttpErrorKind::Cut, message).unsent(true);
        }
        if error.is_parse() {
            return parse_error(error, scene);
        }
    }
    let message = format!("the connection to {} was lost before the answer came", scene.peer());
    HttpError::new(HttpErrorKind::Cut, message)
}

fn resolve_error(error: &ResolveError, scene: &Scene<'_>) -> HttpError {
    let of_proxy = |host: &str| scene.via.is_some_and(|via| via.host == host);
    let kind = |host: &str| {
        if of_proxy(host) { HttpErrorKind::Proxy } else { HttpErrorKind::Dns }
    };
    let (kind, definite, hint) = match error {
        ResolveError::Refused(refusal) => return HttpError::from(refusal.clone()).unsent(true),
        ResolveError::Lookup { host, temporary, .. } => (
            kind(host),
            !temporary,
            if of_proxy(host) {
                "check the proxy settings"
            } else if *temporary {
                "check the network"
            } else {
                "check the spelling of the server's URL, and the network"
            },
        ),
        ResolveError::NoAddress { host, ipv4_only } => {
            (kind(host), true, if *ipv4_only { "leave out --ipv4" } else { "check the spelling of the server's URL" })
        }
    };
    HttpError::new(kind, error.to_string()).unsent(true).definite(definite).with_hint(hint)
}

fn connect_error(error: &(dyn Error + 'static), scene: &Scene<'_>) -> HttpError {
    let peer = scene.peer();
    let kind = if scene.via.is_some() { HttpErrorKind::Proxy } else { HttpErrorKind::Connect };
    // The library's own timer has a private type; the system's time-out is an io::Error.
    let timer = chain(error).any(|cause| cause.to_string() == "operation timed out");
    let io = deepest::<io::Error>(error);
    if timer {
        let limit = shown_duration(scene.connect_timeout);
        let message = format!("no connection to {peer} within {limit}");
        return HttpError::new(HttpErrorKind::Timeout, message)
            .with_hint("check the network; --connect-timeout sets the limit");
    }
    if let Some(via) = scene.via
        && let Some(error) = tunnel_error(error, via, scene)
    {
        return error;
    }
    let Some(io) = io else {
        let root = chain(error).last().map(ToString::to_string);
        let root = guard::shown_text(root.as_deref().unwrap_or("unknown cause"));
        return HttpError::new(kind, format!("no connection to {peer}: {root}"));
    };
    let error = |message: String, hint: &str| HttpError::new(kind, message).with_hint(hint);
    if is_out_of_files(io) {
        return error(
            format!("no connection to {peer}: this process may not open more files"),
            "raise the limit of open files (ulimit -n)",
        );
    }
    match io.kind() {
        io::ErrorKind::ConnectionRefused => {
            error(format!("connection refused by {peer}"), "check that it is running, and host and port")
        }
        io::ErrorKind::TimedOut => {
            let message = format!("no connection to {peer}: it does not answer");
            HttpError::new(HttpErrorKind::Timeout, message).with_hint("check the network")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            error(format!("{peer} is unreachable"), "check the network or the VPN")
        }
        io::ErrorKind::PermissionDenied => {
            error(format!("this machine does not allow the connection to {peer}"), "check its firewall")
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => error(
            format!("{peer} closed the connection while it was being set up"),
            if scene.url.scheme() == "https" {
                "check scheme and port of the URL; is it an http server?"
            } else {
                "check that the port is the right one"
            },
        ),
        _ => HttpError::new(kind, format!("no connection to {peer}: {}", guard::shown_text(&io.to_string()))),
    }
}

/// EMFILE and ENFILE have no `ErrorKind`; Windows has no such limit worth naming.
fn is_out_of_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// What the proxy itself said. The types are private to the library, the texts are its `Display`.
fn tunnel_error(error: &(dyn Error + 'static), via: &Via, scene: &Scene<'_>) -> Option<HttpError> {
    let text = chain(error)
        .map(ToString::to_string)
        .find(|text| text.starts_with("tunnel error: ") || text.starts_with("SOCKS error: "))?;
    if ["authorization required", "credentials", "authentication"].iter().any(|word| text.contains(word)) {
        return Some(proxy_login(via));
    }
    if text.contains("underlying connection") || text.contains("io error") {
        // Its own connection failed. The cause beneath says more, but SOCKS has none.
        return text.starts_with("SOCKS").then(|| {
            let message = format!("no connection to the proxy {}", via.label);
            HttpError::new(HttpErrorKind::Proxy, message).with_hint("check that it is running, and host and port")
        });
    }
    let (_, reason) = text.split_once(": ")?;
    let message =
        format!("the proxy {} gives no connection to {}: {}", via.label, scene.server(), guard::shown_text(reason));
    Some(HttpError::new(HttpErrorKind::Proxy, message).with_hint("check that the proxy may reach the server"))
}

fn tls_error(error: &rustls::Error, scene: &Scene<'_>) -> HttpError {
    let server = scene.server();
    let (message, hint) = match error {
        rustls::Error::InvalidCertificate(error) => certificate_error(error, &server),
        rustls::Error::AlertReceived(alert) => alert_error(*alert, &server),
        rustls::Error::InvalidMessage(_) => {
            (format!("{server} does not speak TLS"), "check scheme and port of the URL; is it an http server?")
        }
        rustls::Error::PeerIncompatible(_) => {
            (format!("{server} and we have no TLS version or cipher in common"), "the server must offer TLS 1.2 or 1.3")
        }
        // Our verifier, without roots.
        rustls::Error::General(text) => (
            format!("{server} cannot be trusted: {}", guard::shown_text(text)),
            "check --ca-file and SSL_CERT_FILE, or install the system's CA certificates (package ca-certificates)",
        ),
        error => (format!("TLS with {server} failed: {}", guard::shown_text(&error.to_string())), ""),
    };
    let error = HttpError::new(HttpErrorKind::Tls, message).definite(true);
    if hint.is_empty() {
        return error;
    }
    error.with_hint(hint)
}

fn certificate_error(error: &CertificateError, server: &str) -> (String, &'static str) {
    match error {
        CertificateError::UnknownIssuer => (
            format!("the TLS certificate of {server} is not trusted: unknown issuer"),
            "if your company inspects TLS, or the server has a CA of its own, pass that CA with --ca-file",
        ),
        CertificateError::BadSignature => (
            format!("the TLS certificate of {server} is not trusted: its CA has a trusted name but another key"),
            "pass the right CA with --ca-file",
        ),
        // Private to the verifier: a self-signed certificate that calls itself a CA (see `pin.rs`).
        CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => (
            format!("the TLS certificate of {server} is not trusted: it is self-signed"),
            "if it is your own, pass it with --ca-file",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the TLS certificate of {server} has expired"),
            "check this machine's clock; else the server's owner must renew it",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (format!("the TLS certificate of {server} is not valid yet"), "check this machine's clock")
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let mut names =
                presented.iter().take(MAX_NAMES).map(|name| guard::shown_text(name)).collect::<Vec<_>>().join(", ");
            if presented.len() > MAX_NAMES {
                names.push_str(", ...");
            }
            (
                format!("the TLS certificate of {server} is for another name: {names}"),
                "use the name that the certificate is for",
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (format!("the TLS certificate of {server} is for another name"), "use the name that the certificate is for")
        }
        CertificateError::Revoked => {
            (format!("the TLS certificate of {server} has been revoked"), "the server's owner must renew it")
        }
        error => (
            format!("the TLS certificate of {server} is refused: {}", guard::shown_text(&error.to_string())),
            "the server's owner must mend it",
        ),
    }
}

fn alert_error(alert: AlertDescription, server: &str) -> (String, &'static str) {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => {
            (format!("{server} wants a TLS client certificate"), "pass one with --client-cert and --client-key")
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::DecryptError
        | A::AccessDenied => {
            (format!("{server} refuses our TLS client certificate: {alert:?}"), "check --client-cert and --client-key")
        }
        A::UnrecognisedName => (format!("{server} has no TLS certificate for that name"), "check the host in the URL"),
        A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity => (
            format!("{server} refuses the TLS handshake: {alert:?}"),
            "the server must offer TLS 1.2 or 1.3; perhaps it wants a client certificate (--client-cert)",
        ),
        alert => (format!("{server} ended the TLS handshake: {alert:?}"), ""),
    }
}

fn parse_error(error: &hyper::Error, scene: &Scene<'_>) -> HttpError {
    let server = scene.server();
    // `is_parse_too_large` exists for servers only.
    if error.to_string().contains("too large") {
        let message = format!("the head of the answer from {server} is too large");
        return HttpError::new(HttpErrorKind::TooLarge, message);
    }
    let message = format!("{server} does not answer with HTTP");
    let hint = if scene.url.scheme() == "http" {
        "check host and port; is it an https server?"
    } else {
        "check host and port"
    };
    HttpError::new(HttpErrorKind::Malformed, message).with_hint(hint)
}

fn body_error(error: &(dyn Error + 'static), scene: &Scene<'_>) -> HttpError {
    let server = scene.server();
    let malformed = |what: &str| HttpError::new(HttpErrorKind::Malformed, format!("the answer from {server} {what}"));
    if let Some(io) = deepest::<io::Error>(error) {
        match io.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                return malformed("has a broken body");
            }
            io::ErrorKind::TimedOut => {
                let message = format!("{server} stopped answering in the middle of an answer");
                return HttpError::new(HttpErrorKind::Timeout, message);
            }
            _ => {}
        }
    }
    let message = format!("the connection to {server} was lost in the middle of an answer");
    HttpError::new(HttpErrorKind::Cut, message)
}

/// The error and its causes, outermost first. Unlike `source`, it does not skip what an `io::Error` wraps.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

fn deepest<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).filter_map(|cause| cause.downcast_ref()).last()
}

fn shown_duration(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}
