//! `--proxy`, `--no-proxy` and the client's certificate.

use std::path::PathBuf;

use url::Url;

use super::{Proxy, UsageError};

/// Entries of all `--no-proxy` together.
pub(super) const MAX_NO_PROXY: usize = 256;

const PROXY_FORM: &str =
    "Write it as in --proxy http://proxy.example.com:3128 or socks5://127.0.0.1:1080, or --proxy off.";

/// Reads `--proxy`. Its value may hold a password, so no error shows it.
pub(super) fn proxy(text: &str) -> Result<Proxy, UsageError> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Proxy::Off);
    }
    let refuse = |problem: &str| Err(UsageError::new(format!("--proxy: {problem}"), PROXY_FORM));
    // As curl does: without a scheme it is an HTTP proxy.
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let Ok(url) = Url::parse(&full) else {
        return refuse("the value is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h") {
        return refuse("the scheme is not known");
    }
    if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        return refuse("the URL has no host or port 0");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return refuse("the URL holds more than scheme, user, host and port");
    }
    Ok(Proxy::Url(url))
}

/// Reads all `--no-proxy`.
pub(super) fn no_proxy(values: &[String]) -> Result<Vec<String>, UsageError> {
    let hosts = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect();
    if hosts.len() > MAX_NO_PROXY {
        return Err(UsageError::new(
            format!("--no-proxy names more than {MAX_NO_PROXY} hosts"),
            "Name domains (.example.com) or networks (10.0.0.0/8), or use --proxy off.",
        ));
    }
    if hosts.iter().any(|host| host.contains(['/', ':']) && host.contains("://")) {
        return Err(UsageError::new(
            "--no-proxy takes hosts, not URLs",
            "Write it as in --no-proxy localhost,.example.com,10.0.0.0/8.",
        ));
    }
    Ok(hosts)
}

/// Both parts of the client's identity, or neither.
pub(super) fn identity(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, UsageError> {
    let missing = |given: &str, other: &str| {
        Err(UsageError::new(
            format!("{given} is given without {other}"),
            "A client certificate needs its chain (--client-cert FILE) and its key (--client-key FILE), both PEM.",
        ))
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(_), None) => missing("--client-cert", "--client-key"),
        (None, Some(_)) => missing("--client-key", "--client-cert"),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        assert_eq!(proxy("off"), Ok(Proxy::Off));
        let table = [
            ("http://proxy.test:3128", "http://proxy.test:3128/"),
            ("proxy.test:3128", "http://proxy.test:3128/"),
            ("user:pw@proxy.test", "http://user:pw@proxy.test/"),
            ("https://proxy.test/", "https://proxy.test/"),
            ("socks5h://[::1]:1080", "socks5h://[::1]:1080"),
            ("SOCKS4://10.0.0.1", "socks4://10.0.0.1"),
        ];
        for (text, url) in table {
            let Ok(Proxy::Url(read)) = proxy(text) else { panic!("{text}") };
            assert_eq!(read.as_str(), url);
        }
    }

    #[test]
    fn other_proxies_are_refused_without_their_password() {
        let table = [
            ("", "--proxy: the value is not a URL"),
            ("http://", "--proxy: the value is not a URL"),
            ("socks5://", "--proxy: the URL has no host or port 0"),
            ("http://u:s3cr3t@h:99999", "--proxy: the value is not a URL"),
            ("http://u:s3cr3t@h:0", "--proxy: the URL has no host or port 0"),
            ("ftp://u:s3cr3t@h", "--proxy: the scheme is not known"),
            ("http://u:s3cr3t@h/path", "--proxy: the URL holds more than scheme, user, host and port"),
            ("http://h?s3cr3t", "--proxy: the URL holds more than scheme, user, host and port"),
            ("http://h#s3cr3t", "--proxy: the URL holds more than scheme, user, host and port"),
        ];
        for (text, message) in table {
            let error = proxy(text).unwrap_err();
            assert_eq!(error.message, message, "{text}");
            assert!(!error.to_string().contains("s3cr3t"));
        }
    }

    #[test]
    fn hosts_without_a_proxy_are_a_list() {
        let values = ["localhost, .example.com,".to_owned(), "10.0.0.0/8,::1".to_owned()];
        assert_eq!(no_proxy(&values).unwrap(), ["localhost", ".example.com", "10.0.0.0/8", "::1"]);
        let error = no_proxy(&["http://example.com".to_owned()]).unwrap_err();
        assert_eq!(error.message, "--no-proxy takes hosts, not URLs");
        let most = ["h,".repeat(MAX_NO_PROXY)];
        assert_eq!(no_proxy(&most).unwrap().len(), MAX_NO_PROXY);
        let more = ["h,".repeat(MAX_NO_PROXY + 1)];
        assert_eq!(no_proxy(&more).unwrap_err().message, "--no-proxy names more than 256 hosts");
    }

    #[test]
    fn an_identity_has_two_parts() {
        assert_eq!(identity(None, None), Ok(None));
        assert_eq!(identity(Some("c".into()), Some("k".into())), Ok(Some(("c".into(), "k".into()))));
        assert_eq!(
            identity(Some("c".into()), None).unwrap_err().message,
            "--client-cert is given without --client-key"
        );
        assert_eq!(
            identity(None, Some("k".into())).unwrap_err().message,
            "--client-key is given without --client-cert"
        );
    }
}
