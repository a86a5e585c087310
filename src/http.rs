//! The one HTTP client of the program.

mod error;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

pub use error::{HttpError, HttpErrorKind};

/// Most decoded bytes of one response body, unless it is an event stream. 64 MiB.
pub const MAX_BODY: usize = 64 << 20;
/// Most redirects that one request follows.
pub const MAX_REDIRECTS: usize = 5;

/// Where connections go through.
#[derive(Clone, Default)]
pub enum ProxyChoice {
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (and the system's settings on macOS and Windows).
    /// A loopback server is never reached through one.
    #[default]
    Environment,
    /// No proxy, whatever the environment says.
    Off,
    /// `--proxy URL`: `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5h`; for loopback servers as well.
    Url(String),
}

impl fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Off => "Off",
            Self::Url(_) => "Url(..)",
        })
    }
}

/// What the user decided about HTTP.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Proxy to use.
    pub proxy: ProxyChoice,
    /// `--no-proxy`: comma-separated names, addresses and networks that are reached directly.
    pub no_proxy: Option<String>,
    /// PEM files whose certificates are trusted beside the system's (`--ca-file`, `NODE_EXTRA_CA_CERTS`).
    pub ca_files: Vec<PathBuf>,
    /// Certificate chain and private key, both PEM, for a server that asks for a client certificate.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Connect to IPv4 addresses only.
    pub ipv4_only: bool,
    /// Limit for name lookup, TCP, proxy and TLS together.
    pub connect_timeout: Duration,
    /// Limit for the wait from sending to the response head, connecting included. `None`: wait for ever.
    pub headers_timeout: Option<Duration>,
    /// Longest silence between two reads of a body. `None`: wait for ever.
    pub body_timeout: Option<Duration>,
    /// Keep cookies of the server in memory.
    pub cookies: bool,
    /// `--allow-http`: http also to servers that are not loopback.
    pub allow_http: bool,
    /// `--allow-private-address`: URLs that a server names may lead to private addresses.
    pub allow_private_address: bool,
    /// Most decoded bytes of one body that is not an event stream.
    pub max_body: usize,
    /// Most redirects that one request follows.
    pub max_redirects: usize,
    /// `User-Agent`, also towards a proxy.
    pub user_agent: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            proxy: ProxyChoice::default(),
            no_proxy: None,
            ca_files: Vec::new(),
            client_identity: None,
            ipv4_only: false,
            connect_timeout: Duration::from_secs(10),
            headers_timeout: Some(Duration::from_secs(300)),
            body_timeout: None,
            cookies: true,
            allow_http: false,
            allow_private_address: false,
            max_body: MAX_BODY,
            max_redirects: MAX_REDIRECTS,
            user_agent: concat!("mcp-drawbridge/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What to do with a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectRule {
    /// For the MCP endpoint: only inside the server's origin (or from http to https on the same host), nothing is dropped.
    SameOrigin,
    /// For metadata: anywhere that the policy allows, and without credentials, cookies and custom headers on another origin.
    CrossOriginWithoutCredentials,
    /// A redirect is handed back as it came.
    Never,
}

/// One request.
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Target.
    pub url: Url,
    /// Header fields as they go out. `User-Agent`, `Host`, `Content-Length`, `Accept-Encoding` and `Cookie` are added where absent.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// What to do with a redirect.
    pub redirects: RedirectRule,
    /// The answer may be an event stream: it is asked for without compression.
    pub event_stream: bool,
}

/// A response whose body is still to be read.
#[derive(Debug)]
pub struct HttpResponse {
    /// Status of the last hop.
    pub status: StatusCode,
    /// Header fields of the last hop.
    pub headers: HeaderMap,
    /// URL of the last hop. After a same-origin redirect later requests may go there directly.
    pub url: Url,
    body: reqwest::Response,
}

impl HttpResponse {
    /// The next piece of the decoded body, `None` at its proper end. A body that was cut is an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.body.chunk().await.map_err(|e| HttpError::classify(e, &self.url))
    }

    /// The whole body, at most `limit` decoded bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let mut all = BytesMut::from(first);
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                break;
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

/// The client. Cheap to clone; one per process.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<reqwest::Client>,
}

impl HttpClient {
    /// A client for `server`. Opens no connection. A file that cannot be read is a usage error.
    pub fn new(options: HttpOptions, server: Url) -> Result<Self, HttpError> {
        let _ = server;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| HttpError::usage(e.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(options.user_agent)
            .connect_timeout(options.connect_timeout)
            .build()
            .map_err(|e| HttpError::usage(e.to_string()))?;
        Ok(Self { inner: Arc::new(client) })
    }

    /// Sends one request and waits for the response head.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = request.url.clone();
        let mut out = reqwest::Request::new(request.method, request.url);
        *out.headers_mut() = request.headers;
        if !request.body.is_empty() {
            *out.body_mut() = Some(request.body.into());
        }
        let mut body = self.inner.execute(out).await.map_err(|e| HttpError::classify(e, &url))?;
        Ok(HttpResponse { status: body.status(), headers: std::mem::take(body.headers_mut()), url, body })
    }
}
