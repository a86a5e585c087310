//! Name lookup with the address policy in it: what passes here is what is connected to, so an answer that changes between a
//! check and the use cannot slip through.
//!
//! The connector does not ask for literal addresses; [`Policy::check_url`] has seen those. A proxy (but `socks5` and `socks4`)
//! looks the target up by itself.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{self, Policy, Purpose, Refusal};

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 32;

/// The system's resolver (`getaddrinfo` on a helper thread, so hosts files, mDNS and VPN settings count), then the policy.
pub(super) struct GuardedResolver {
    policy: Arc<Policy>,
    /// Hosts of the user's proxies: any address is fine.
    trusted: Vec<String>,
    ipv4_only: bool,
}

impl GuardedResolver {
    pub(super) fn new(policy: Arc<Policy>, trusted: Vec<String>, ipv4_only: bool) -> Self {
        Self { policy, trusted, ipv4_only }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, ipv4_only) = (Arc::clone(&self.policy), self.ipv4_only);
        let host = name.as_str().to_ascii_lowercase();
        let trusted = self.trusted.contains(&host);
        Box::pin(async move {
            let found = lookup(&host).await?;
            let addresses = select(&found, &host, ipv4_only, |ip| {
                if trusted { Ok(()) } else { policy.check_address(ip, &host, Purpose::Fetch) }
            })?;
            // Port 0: the connector puts in the URL's.
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

async fn lookup(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if guard::is_localhost(host) {
        // RFC 6761 section 6.3. Saves the lookup, and no resolver can send `http://localhost` elsewhere.
        return Ok(vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    // `socks5` asks for literal addresses as well.
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = literal.parse() {
        return Ok(vec![ip]);
    }
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => Ok(found.map(|address| address.ip()).take(MAX_ADDRESSES).collect()),
        Err(source) => {
            Err(ResolveError::Lookup { host: guard::shown_text(host), temporary: is_temporary(&source), source })
        }
    }
}

/// `getaddrinfo` has a code for "try again later", but std keeps only its text (unix) or its OS error (Windows: `WSATRY_AGAIN`).
fn is_temporary(error: &io::Error) -> bool {
    error.raw_os_error() == Some(11002)
        || error.kind() == io::ErrorKind::TimedOut
        || error.to_string().contains("emporary failure")
}

/// The addresses that may be connected to, in the resolver's order. An error only when none is left.
fn select(
    found: &[IpAddr],
    host: &str,
    ipv4_only: bool,
    check: impl Fn(IpAddr) -> Result<(), Refusal>,
) -> Result<Vec<IpAddr>, ResolveError> {
    let mut refusal = None;
    let mut addresses = Vec::with_capacity(found.len());
    for &ip in found {
        if ipv4_only && ip.is_ipv6() {
            continue;
        }
        match check(ip) {
            Ok(()) => addresses.push(ip),
            Err(refused) => refusal = Some(refused),
        }
    }
    match (addresses.is_empty(), refusal) {
        (false, _) => Ok(addresses),
        (true, Some(refusal)) => Err(ResolveError::Refused(refusal)),
        (true, None) => {
            Err(ResolveError::NoAddress { host: guard::shown_text(host), ipv4_only: ipv4_only && !found.is_empty() })
        }
    }
}

/// Why a name gave no address.
#[derive(Debug)]
pub(super) enum ResolveError {
    Lookup {
        host: String,
        temporary: bool,
        source: io::Error,
    },
    NoAddress {
        host: String,
        /// There were addresses, but none of IPv4.
        ipv4_only: bool,
    },
    Refused(Refusal),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { host, temporary: true, .. } => write!(f, "no answer to the DNS lookup of {host}"),
            Self::Lookup { host, .. } => write!(f, "DNS name not found: {host}"),
            Self::NoAddress { host, ipv4_only: true } => write!(f, "{host} has no IPv4 address"),
            Self::NoAddress { host, .. } => write!(f, "{host} has no address"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lookup { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn resolver(ipv4_only: bool) -> GuardedResolver {
        let server = Url::parse("https://server.example/mcp").unwrap();
        let policy = Arc::new(Policy::new(&server, false, false).unwrap());
        GuardedResolver::new(policy, vec!["proxy.example".to_owned()], ipv4_only)
    }

    async fn resolve(resolver: &GuardedResolver, name: &str) -> Result<Vec<IpAddr>, String> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(found) => Ok(found.map(|a| a.ip()).collect()),
            Err(e) => Err(e.downcast_ref::<ResolveError>().unwrap().to_string()),
        }
    }

    #[test]
    fn keeps_what_the_policy_allows_and_says_why_nothing_is_left() {
        let policy = Policy::new(&Url::parse("https://s.example").unwrap(), false, false).unwrap();
        let check = |ip| policy.check_address(ip, "other.example", Purpose::Fetch);
        let mixed = ips(&["10.0.0.1", "192.0.3.1", "::1", "2600::1"]);
        assert_eq!(select(&mixed, "other.example", false, check).unwrap(), ips(&["192.0.3.1", "2600::1"]));
        assert_eq!(select(&mixed, "other.example", true, check).unwrap(), ips(&["192.0.3.1"]));
        let refused = select(&ips(&["169.254.169.254"]), "other.example", false, check);
        assert!(matches!(&refused, Err(ResolveError::Refused(r)) if r.rule == "address-special"), "{refused:?}");
        let six = select(&ips(&["2600::1"]), "other.example", true, check).unwrap_err();
        assert_eq!(six.to_string(), "other.example has no IPv4 address");
        let none = select(&[], "other.example", true, check).unwrap_err();
        assert_eq!(none.to_string(), "other.example has no address");
    }

    #[tokio::test]
    async fn localhost_needs_no_lookup_and_is_refused_to_a_public_server() {
        let message = resolve(&resolver(false), "localhost").await.unwrap_err();
        assert!(message.contains("loopback"), "{message}");

        let server = Url::parse("http://localhost:1/mcp").unwrap();
        let policy = Arc::new(Policy::new(&server, false, false).unwrap());
        let local = GuardedResolver::new(Arc::clone(&policy), Vec::new(), false);
        assert_eq!(resolve(&local, "a.localhost").await, Ok(ips(&["::1", "127.0.0.1"])));
        let local = GuardedResolver::new(policy, Vec::new(), true);
        assert_eq!(resolve(&local, "LOCALHOST").await, Ok(ips(&["127.0.0.1"])));
    }

    #[tokio::test]
    async fn literals_are_checked_too() {
        assert!(resolve(&resolver(false), "10.1.2.3").await.is_err());
        assert_eq!(resolve(&resolver(false), "192.0.3.7").await, Ok(ips(&["192.0.3.7"])));
    }

    #[tokio::test]
    async fn unknown_names_say_so() {
        // RFC 6761 section 6.4: never exists, with or without a network.
        let message = resolve(&resolver(false), "nowhere.invalid").await.unwrap_err();
        assert!(message.contains("nowhere.invalid"), "{message}");
    }
}
