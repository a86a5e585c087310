//! The one HTTP client of the program.
//!
//! reqwest does connections, proxies, TLS and HTTP; what it would decide by itself is decided here:
//!
//! - every URL and every address passes one policy ([`guard`]), names are looked up under it (`resolver.rs`);
//! - redirects are walked hop by hop (`redirect.rs`); headers, cookies and bodies stay with the origin that they are for;
//! - bodies are counted after decompression, and a cut one is an error (`response.rs`);
//! - cookies are kept for the server alone ([`cookies`]); errors are told for people (`error.rs`, `classify.rs`).
//!
//! Limits of the libraries beneath, stated because they are relied on: a response head over HTTP/1.1 has at most 100 fields
//! and about 408 KiB, over HTTP/2 16 KiB; a proxy's answer to CONNECT 8 KiB and 100 fields. Interim responses (1xx) are skipped.
//!
//! A client for an `http` server reads no roots and makes no keys. For `https` the system's roots are read on a helper thread while name lookup, TCP and
//! the first half of the handshake run.

mod classify;
pub mod cookies;
mod error;
pub mod guard;
mod pin;
mod proxy;
mod redirect;
mod resolver;
mod response;
mod tls;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use classify::Scene;
use cookies::{Jar, UnixSeconds};
use guard::{Policy, Purpose, Refusal};
use proxy::{Routes, Via};
use redirect::{Step, Walk};
use resolver::GuardedResolver;
use response::BodyLimits;
use tls::LazyVerifier;

pub use error::{HttpError, HttpErrorKind};
pub use response::HttpResponse;

/// Most decoded bytes of one response body, unless it is an event stream: 64 MiB.
pub const MAX_BODY: usize = 64 << 20;
/// Most redirects that one request follows.
pub const MAX_REDIRECTS: usize = 5;
/// Limit for name lookup, TCP, proxy and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the wait for a response head. As long as undici's, which users of mcp-remote are used to.
pub const HEADERS_TIMEOUT: Duration = Duration::from_secs(300);
/// Idle connections that are kept, at about 33 KiB each. As many as calls are commonly in flight at one time: with fewer, steady load
/// closes and opens connections all the time (measured: 64 in flight cost twice the CPU with 16).
const MAX_IDLE: usize = 64;
/// An idle connection is closed after this: just before the 5 s of Node's and uvicorn's servers (and so before the 60 s of load
/// balancers). A request that meets a connection as the other side closes it may or may not have arrived, and one that changes
/// something is then not repeated: a new handshake is the smaller loss.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// HTTP/2 PING on a connection without traffic, so that a dead peer is noticed on a quiet stream.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Wait for the answer to that PING.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// TCP keep-alive: first probe, next probes, how many. A dead peer is noticed after a minute.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(15), 3);
/// Unacknowledged data for so long means a dead peer (Linux). A server that is only slow to read a large request counts as dead
/// too, so this is generous.
#[cfg(any(target_os = "android", target_os = "linux"))]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(120);
/// `Set-Cookie` fields of one response that are looked at.
const MAX_SET_COOKIE: usize = 32;

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
            connect_timeout: CONNECT_TIMEOUT,
            headers_timeout: Some(HEADERS_TIMEOUT),
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
    /// For what is posted to endpoints: a redirect is handed back as it came. Without cookies.
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

/// Without header values and body, which may hold secrets, and without the URL's query.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &guard::shown(&self.url))
            .field("body", &self.body.len())
            .field("redirects", &self.redirects)
            .field("event_stream", &self.event_stream)
            .finish_non_exhaustive()
    }
}

/// The client. Cheap to clone; one per process.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    options: HttpOptions,
    policy: Arc<Policy>,
    routes: Routes,
    /// The way to the server, looked up once.
    server_via: Option<Arc<Via>>,
    tls: rustls::ClientConfig,
    verifier: Arc<LazyVerifier>,
    tls_prepared: AtomicBool,
    /// Two clients, because a library client takes either all its proxies into account or none.
    direct: OnceLock<reqwest::Client>,
    proxied: OnceLock<reqwest::Client>,
    jar: Mutex<Jar>,
    /// Spares the lock as long as no cookie has come.
    has_cookies: AtomicBool,
}

impl HttpClient {
    /// A client for `server`, the user's own URL. Opens no connection and reads no roots.
    ///
    /// Fails with `Usage` when an option or a file that the user named is wrong, with `Policy` when the URL is (`http` beyond loopback
    /// without `allow_http`, a password in it).
    #[expect(clippy::needless_pass_by_value, reason = "the URL is the client's from then on; only its origin is kept")]
    pub fn new(options: HttpOptions, server: Url) -> Result<Self, HttpError> {
        let policy = Policy::new(&server, options.allow_http, options.allow_private_address)
            .map_err(|refusal| HttpError::from(refusal).unsent(true))?;
        let routes = Routes::new(&options.proxy, options.no_proxy.as_deref())?;
        let (tls, verifier) = tls::configure(&options)?;
        if HeaderValue::from_str(&options.user_agent).is_err() {
            return Err(HttpError::usage("the user agent is no header value"));
        }
        let server_via = routes.via(&server).map(Arc::new);
        let client = Self {
            inner: Arc::new(Inner {
                options,
                policy: Arc::new(policy),
                routes,
                server_via,
                tls,
                verifier,
                tls_prepared: AtomicBool::new(false),
                direct: OnceLock::new(),
                proxied: OnceLock::new(),
                jar: Mutex::new(Jar::default()),
                has_cookies: AtomicBool::new(false),
            }),
        };
        // Built now, so that what is wrong with the options shows now.
        client.inner.client(client.inner.server_via.is_some())?;
        Ok(client)
    }

    /// The policy of this run, for URLs that are checked before they are asked for.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// Sends one request, follows redirects as its rule says, and waits for the response head.
    ///
    /// Every status is a response, not an error. `RedirectRule::SameOrigin` is for requests that carry the user's headers: they go to
    /// the server's origin only, and so do its cookies. Dropping the future gives the request up.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let inner = &*self.inner;
        inner.check(&request)?;
        let HttpRequest { method, mut url, mut headers, mut body, redirects, event_stream } = request;
        if event_stream && !headers.contains_key(header::ACCEPT_ENCODING) {
            // A compressor between us and the server would hold events back.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        // Cookies are the user's at the server. An authorization server may name any address as its endpoint, also one of the MCP server's
        // where a cookie would make our request the user's (CWE-352).
        let with_cookies = inner.options.cookies && redirects == RedirectRule::SameOrigin;
        let mut walk = Walk::new(&inner.policy, redirects, inner.options.max_redirects);
        loop {
            let mut outgoing = headers.clone();
            if with_cookies {
                inner.add_cookies(&mut outgoing, &url);
            }
            let response = inner.exchange(method.clone(), url, outgoing, body.clone()).await;
            // The first hop has seen the request, whatever becomes of the next.
            let response = response.map_err(|error| if walk.has_moved() { error.unsent(false) } else { error })?;
            let cookie_set = with_cookies && inner.keep_cookies(&response);
            let location = response.headers.get(header::LOCATION);
            let step =
                walk.step(response.status, location.map(HeaderValue::as_bytes), &method, &response.url, cookie_set)?;
            match step {
                Step::Deliver => {
                    response.check_head()?;
                    return Ok(response);
                }
                Step::Follow { url: target, strip } => {
                    if strip {
                        headers = without_credentials(&headers);
                        body = Bytes::new();
                    }
                    url = target;
                }
            }
        }
    }

    /// Reads the system's roots now, on a helper thread, when they will be needed; the first `send` does it otherwise.
    /// Must be called within the runtime.
    pub fn prepare(&self) {
        if self.inner.policy.server().is_https() {
            self.inner.prepare_tls();
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("server", &self.inner.policy.server()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Whether the request may go out at all.
    fn check(&self, request: &HttpRequest) -> Result<(), HttpError> {
        let url = &request.url;
        let refused = |refusal: Refusal| HttpError::from(refusal).unsent(true);
        if request.redirects == RedirectRule::SameOrigin {
            if !self.policy.is_server(url) {
                let message = format!("{} is not the server's origin", guard::shown(url));
                return Err(refused(Refusal::new("request-origin", message)));
            }
            // Its scheme and host have been checked with the server's URL.
            self.policy.check_url(url, Purpose::Server).map_err(refused)?;
        } else {
            self.policy.check_url(url, Purpose::Fetch).map_err(refused)?;
        }
        if self.options.ipv4_only && matches!(url.host(), Some(url::Host::Ipv6(_))) {
            let message = format!("{} is an IPv6 address", guard::shown(url));
            return Err(HttpError::usage(message).with_hint("leave out --ipv4"));
        }
        Ok(())
    }

    /// One request, one response head.
    async fn exchange(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        if url.scheme() == "https" {
            self.prepare_tls();
        }
        let via =
            if self.policy.server().is(&url) { self.server_via.clone() } else { self.routes.via(&url).map(Arc::new) };
        let client = self.client(via.is_some())?;
        let mut request = reqwest::Request::new(method, url.clone());
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let pending = client.execute(request);
        let scene = Scene { url: &url, via: via.as_deref(), connect_timeout: self.options.connect_timeout };
        let result = match self.options.headers_timeout {
            None => pending.await,
            Some(limit) => match tokio::time::timeout(limit, pending).await {
                Ok(result) => result,
                Err(_) => return Err(classify::head_timeout(limit, &scene)),
            },
        };
        let mut body = result.map_err(|error| classify::before_head(error, &scene))?;
        // Only a proxy asks for this (RFC 9110 section 15.5.8).
        if let Some(via) = &via
            && body.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return Err(classify::proxy_login(via).unsent(true));
        }
        Ok(HttpResponse {
            status: body.status(),
            headers: std::mem::take(body.headers_mut()),
            url,
            body,
            limits: BodyLimits {
                max_body: self.options.max_body,
                silence: self.options.body_timeout,
                connect_timeout: self.options.connect_timeout,
            },
            via,
            read: 0,
        })
    }

    /// Once: the roots are read while the connection is made.
    fn prepare_tls(&self) {
        if self.tls_prepared.load(Ordering::Relaxed) || self.tls_prepared.swap(true, Ordering::Relaxed) {
            return;
        }
        let verifier = Arc::clone(&self.verifier);
        drop(tokio::task::spawn_blocking(move || verifier.prepare()));
    }

    fn client(&self, proxied: bool) -> Result<&reqwest::Client, HttpError> {
        let cell = if proxied { &self.proxied } else { &self.direct };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = self.build(proxied)?;
        Ok(cell.get_or_init(|| client))
    }

    fn build(&self, proxied: bool) -> Result<reqwest::Client, HttpError> {
        let options = &self.options;
        let trusted = if proxied { self.routes.hosts() } else { Vec::new() };
        let resolver = GuardedResolver::new(Arc::clone(&self.policy), trusted, options.ipv4_only);
        let (first, next, count) = TCP_KEEPALIVE;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(resolver)
            .user_agent(&options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(first)
            .tcp_keepalive_interval(next)
            .tcp_keepalive_retries(count)
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_keep_alive_interval(H2_PING_INTERVAL)
            .http2_keep_alive_timeout(H2_PING_TIMEOUT)
            .http2_keep_alive_while_idle(true);
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(TCP_USER_TIMEOUT);
        let builder = if proxied { self.routes.apply(builder)? } else { builder.no_proxy() };
        builder
            .build()
            .map_err(|error| HttpError::usage("the HTTP client cannot be set up").with_source(error.without_url()))
    }

    /// A `Cookie` field of the user's wins.
    fn add_cookies(&self, headers: &mut HeaderMap, url: &Url) {
        if !self.has_cookies.load(Ordering::Relaxed) || headers.contains_key(header::COOKIE) {
            return;
        }
        let jar = self.jar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(field) = jar.header(url, now()) {
            headers.insert(header::COOKIE, field);
        }
    }

    /// Whether the server set one.
    fn keep_cookies(&self, response: &HttpResponse) -> bool {
        if !response.headers.contains_key(header::SET_COOKIE) || !self.policy.is_server(&response.url) {
            return false;
        }
        let mut jar = self.jar.lock().unwrap_or_else(PoisonError::into_inner);
        for field in response.headers.get_all(header::SET_COOKIE).iter().take(MAX_SET_COOKIE) {
            jar.store(&response.url, field.as_bytes(), now());
        }
        self.has_cookies.store(!jar.is_empty(), Ordering::Relaxed);
        true
    }
}

/// What another origin may see of a request: what kind of answer is wanted.
fn without_credentials(headers: &HeaderMap) -> HeaderMap {
    [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE]
        .into_iter()
        .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        .collect()
}

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| UnixSeconds::try_from(since.as_secs()).unwrap_or(UnixSeconds::MAX))
}
