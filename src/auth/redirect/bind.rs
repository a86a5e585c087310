//! Taking the port, before anybody is told of it.

use std::io;

use tokio::net::TcpListener;

use crate::auth::callback::{CallbackPath, RedirectHost, RedirectUri};

/// Ports that are tried from the derived one on, as mcp-remote does.
pub const CANDIDATES: u16 = 8;

/// Which ports may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// The first free one of [`CANDIDATES`] from this one on.
    Derived(u16),
    /// This one or none: the user named it, or it is part of a registered redirect URI.
    Exact(u16),
}

/// No port could be taken. The message is for a person.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}; {hint}")]
pub struct BindError {
    what: String,
    hint: &'static str,
    source: io::Error,
}

/// A port that is ours: sockets that listen, and whose backlog already takes connections.
#[derive(Debug)]
pub struct Listener {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) redirect: RedirectUri,
}

impl Listener {
    /// Takes a port on loopback, at every address that the host's name may stand for.
    ///
    /// When somebody else holds the port at one of them, the port is left alone: the browser might go there.
    pub async fn bind(host: RedirectHost, path: CallbackPath, choice: PortChoice) -> Result<Self, BindError> {
        let (first, count) = match choice {
            PortChoice::Derived(first) => (first, CANDIDATES),
            PortChoice::Exact(port) => (port, 1),
        };
        let last = first.saturating_add(count - 1);
        let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
        for port in first..=last {
            match take(host, port).await {
                Ok(sockets) => return Ok(Self { sockets, redirect: RedirectUri::new(host, port, path) }),
                Err(error) => failed = error,
            }
        }
        Err(match choice {
            PortChoice::Derived(_) => BindError {
                what: format!("none of the ports {first} to {last} on this computer can take the sign-in's answer"),
                hint: "close the program that holds them, or name a free port after the server's URL",
                source: failed,
            },
            PortChoice::Exact(port) => BindError {
                what: format!("port {port} on this computer cannot take the sign-in's answer"),
                hint: "close the program that holds it, or name another port that is registered for this client",
                source: failed,
            },
        })
    }

    /// What to register and to send to the authorization server.
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.redirect
    }
}

async fn take(host: RedirectHost, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    let mut absent = None;
    for address in host.addresses() {
        match TcpListener::bind((*address, port)).await {
            Ok(socket) => sockets.push(socket),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// The system has no such loopback address, as without IPv6. Then no browser can go there either.
fn is_absent(error: &io::Error) -> bool {
    #[cfg(unix)]
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    #[cfg(not(unix))]
    let no_family = 10_047; // WSAEAFNOSUPPORT
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(no_family)
}
