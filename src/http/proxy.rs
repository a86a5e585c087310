//! Which way a connection goes: directly, or through the user's proxy.
//!
//! The rules are those of the library that connects (`hyper_util::client::proxy::matcher`, which follows curl): `HTTP_PROXY`,
//! `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or small letters, and the system's settings on macOS and Windows. They are asked
//! here first, so that errors can name the proxy, and so that loopback targets stay on this machine: a server on `127.0.0.1` is not
//! where a company's proxy would look for it. Only `--proxy` overrides that, and then the environment is not read at all.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::{HttpError, ProxyChoice, guard};

/// Schemes of proxies that we can talk to.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The user's choice, ready to be asked.
pub(super) struct Routes {
    proxies: Option<Matcher>,
    /// Catches everything but what `--no-proxy` names.
    unless_excluded: Option<Matcher>,
    /// `--proxy`, with its credentials.
    url: Option<Url>,
}

/// A proxy on the way to a target. Holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Via {
    /// For messages: `http://proxy.example:3128`.
    pub(super) label: String,
    /// Its host, as the resolver will be asked for it.
    pub(super) host: String,
}

impl Routes {
    pub(super) fn new(choice: &ProxyChoice, no_proxy: Option<&str>) -> Result<Self, HttpError> {
        let url = match choice {
            ProxyChoice::Url(text) => Some(parse(text)?),
            ProxyChoice::Environment | ProxyChoice::Off => None,
        };
        let proxies = match (choice, &url) {
            (ProxyChoice::Environment, _) => Some(Matcher::from_system()),
            (_, Some(url)) => Some(Matcher::builder().all(url.as_str().to_owned()).build()),
            _ => None,
        };
        let unless_excluded =
            no_proxy.map(|list| Matcher::builder().all("http://proxy.invalid").no(list.to_owned()).build());
        Ok(Self { proxies, unless_excluded, url })
    }

    /// The proxy for this target; `None`: connect directly.
    pub(super) fn via(&self, target: &Url) -> Option<Via> {
        let proxies = self.proxies.as_ref()?;
        if self.url.is_none() && guard::is_loopback(target) {
            return None;
        }
        let target: Uri = guard::Origin::of(target)?.to_string().parse().ok()?;
        if let Some(unless_excluded) = &self.unless_excluded {
            unless_excluded.intercept(&target)?;
        }
        let proxy = proxies.intercept(&target)?;
        let uri = proxy.uri();
        Some(Via {
            label: guard::shown_text(&format!("{}://{}", uri.scheme_str()?, uri.authority()?)),
            host: uri.host()?.to_ascii_lowercase(),
        })
    }

    /// Hosts of the proxies for ordinary targets.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        for scheme in ["https", "http"] {
            let target = Uri::builder().scheme(scheme).authority("target.invalid").path_and_query("/").build();
            let host = target
                .ok()
                .and_then(|target| self.proxies.as_ref()?.intercept(&target))
                .and_then(|proxy| Some(proxy.uri().host()?.to_ascii_lowercase()));
            hosts.extend(host);
        }
        hosts
    }

    /// Makes a client use them. Only targets that [`via`](Self::via) sends through a proxy may be given to it.
    pub(super) fn apply(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, HttpError> {
        let Some(url) = &self.url else {
            // The library's default is the environment.
            return Ok(builder);
        };
        let proxy = reqwest::Proxy::all(url.clone())
            .map_err(|error| HttpError::usage("--proxy cannot be used").with_source(error.without_url()))?;
        Ok(builder.proxy(proxy))
    }
}

fn parse(text: &str) -> Result<Url, HttpError> {
    let text = text.trim();
    // curl's rule: no scheme means http.
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // The text may hold a password: it is not repeated.
    let url = Url::parse(&whole).map_err(|error| HttpError::usage(format!("--proxy is not a URL: {error}")))?;
    if !SCHEMES.contains(&url.scheme()) {
        let message = format!(
            "--proxy has the scheme {:?}; it must be one of {}",
            guard::shown_text(url.scheme()),
            SCHEMES.join(", ")
        );
        return Err(HttpError::usage(message));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(HttpError::usage("--proxy has no host"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(proxy: &str, no_proxy: Option<&str>) -> Routes {
        Routes::new(&ProxyChoice::Url(proxy.to_owned()), no_proxy).unwrap()
    }

    fn via(routes: &Routes, target: &str) -> Option<String> {
        routes.via(&Url::parse(target).unwrap()).map(|via| via.label)
    }

    #[test]
    fn an_explicit_proxy_is_for_everything_but_the_exclusions() {
        let all = routes("http://user:secret@Proxy.Example:3128", None);
        for target in ["https://a.example", "http://a.example", "http://127.0.0.1:1", "http://localhost"] {
            let label = via(&all, target).unwrap();
            assert_eq!(label, "http://proxy.example:3128", "{target}");
        }
        assert_eq!(all.hosts(), ["proxy.example", "proxy.example"]);

        let some = routes("socks5h://p.example", Some("b.example, 10.0.0.0/8, localhost,::1"));
        #[rustfmt::skip]
        let table = [
            ("https://a.example", true), ("https://b.example", false), ("https://x.b.example", false), ("https://notb.example", true),
            ("https://10.1.2.3", false), ("https://11.1.2.3", true), ("http://localhost:1", false), ("http://[::1]:1", false),
        ];
        for (target, proxied) in table {
            assert_eq!(via(&some, target).is_some(), proxied, "{target}");
        }
    }

    #[test]
    fn off_means_off() {
        let off = Routes::new(&ProxyChoice::Off, None).unwrap();
        assert_eq!(via(&off, "https://a.example"), None);
        assert!(off.hosts().is_empty());
    }

    #[test]
    fn a_bad_proxy_is_a_usage_error_that_keeps_the_password() {
        for text in ["ftp://u:secret@p", "http://u:secret@", "http://u:secret@p:99999", "u:secret@p q"] {
            let error = Routes::new(&ProxyChoice::Url(text.to_owned()), None)
                .err()
                .unwrap_or_else(|| panic!("{text} was taken"));
            assert_eq!(error.kind(), super::super::HttpErrorKind::Usage);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        assert_eq!(via(&routes("p.example:3128", None), "https://a").as_deref(), Some("http://p.example:3128"));
        assert!(!format!("{:?}", ProxyChoice::Url("http://u:secret@p".to_owned())).contains("secret"));
    }
}
