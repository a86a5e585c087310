//! What one run of the bridge was asked to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::auth::options::Options;
use crate::eras::Protocol;
use crate::secret::SafeUrl;
use crate::session::{Strategy, ToolRules};
use crate::store::CredentialStore;

/// Everything that the command line, the environment and the header files say, already checked.
///
/// `Debug` shows no header value, no URL query and no proxy password.
#[derive(Clone)]
pub struct Config {
    /// The MCP endpoint: `https`, or `http` where [`Config::allow_http`] or a loopback host permits it.
    /// No user name, password or fragment.
    pub server: Url,
    /// The endpoint exactly as typed. Stores of mcp-remote are keyed by it. May hold a secret in its query.
    pub server_text: String,
    /// Headers for the server, one per name, values marked sensitive. Never framing or MCP headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The words of `--bearer-command`: a program that prints a token, and its arguments. Then no header is `Authorization`.
    pub bearer_command: Option<Vec<String>>,
    /// Which transport is tried, and what follows when the server does not speak it.
    pub transport: Strategy,
    /// The server's era, or that it is found out.
    pub protocol: Protocol,
    /// `--allow-http`: plain `http` to any host was asked for.
    pub allow_http: bool,
    /// Which tools the client may see and call.
    pub tool_rules: ToolRules,
    /// Interval of pings on an idle connection; `None`: no pings.
    pub keep_alive: Option<Duration>,
    /// Limit for DNS, TCP and TLS together. Never zero.
    pub connect_timeout: Duration,
    /// Limit from the request sent to the response headers; `None`: no limit.
    pub headers_timeout: Option<Duration>,
    /// Limit for silence inside a response body; `None`: no limit.
    pub body_timeout: Option<Duration>,
    /// Limit for the answer to one request of the client; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// Limit after which `initialize` is answered in any case. Never zero.
    pub initialize_timeout: Duration,
    /// How long requests in flight may still finish after the client closed stdin. May be zero. `None`: nothing was said,
    /// so [`DRAIN`](super::DRAIN), or longer for a piped script.
    pub drain: Option<Duration>,
    /// How long a request waits for a person to sign in before it is answered (S3). May be zero.
    pub hold: Duration,
    /// Greatest message accepted from either side, in bytes.
    pub max_message: usize,
    /// Whether cookies of the server are kept in memory.
    pub cookies: bool,
    /// Which proxy is used.
    pub proxy: Proxy,
    /// Hosts that are reached without a proxy, in the form of the `NO_PROXY` variable, in addition to it.
    pub no_proxy: Vec<String>,
    /// `--ca-file`: PEM files of certificate authorities to trust as well. Unreadable is an error.
    pub ca_files: Vec<PathBuf>,
    /// `NODE_EXTRA_CA_CERTS`: as in Node, a file that cannot be read is a warning, not an error.
    pub env_ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Connect by IPv4 only.
    pub ipv4: bool,
    /// How to sign in.
    pub auth: Options,
    /// Where sign-ins are kept.
    pub credential_store: CredentialStore,
    /// `--allow-private-address`: what a public server names may lead into a private network.
    pub allow_private_address: bool,
    /// What is logged, and where.
    pub log: LogOptions,
    /// Where sign-ins and the outcome of earlier runs are kept; `None`: the environment names no home, nothing is kept.
    pub state_dir: Option<PathBuf>,
    /// Sentences about arguments that were accepted but change nothing. To be logged as warnings.
    pub notes: Vec<String>,
}

/// Which proxy is used.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Proxy {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, or the settings of macOS and Windows.
    #[default]
    Environment,
    /// None, whatever the environment says.
    Off,
    /// This one: `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5h`. May hold a user name and a password.
    Url(Url),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => out.write_str("Environment"),
            Self::Off => out.write_str("Off"),
            Self::Url(url) => write!(out, "Url({})", SafeUrl(url)),
        }
    }
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Log every step, not only events that matter to a user.
    pub debug: bool,
    /// Nothing on stderr.
    pub silent: bool,
    /// Form of a line.
    pub format: LogFormat,
    /// A file that gets every line as well, created with mode 0600, appended to.
    pub file: Option<PathBuf>,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Debug for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        out.debug_struct("Config")
            .field("server", &SafeUrl(&self.server))
            .field("headers", &names)
            .field("bearer_command", &self.bearer_command.as_ref().and_then(|words| words.first()))
            .field("transport", &self.transport)
            .field("protocol", &self.protocol)
            .field("allow_http", &self.allow_http)
            .field("tool_rules", &self.tool_rules)
            .field("keep_alive", &self.keep_alive)
            .field("connect_timeout", &self.connect_timeout)
            .field("headers_timeout", &self.headers_timeout)
            .field("body_timeout", &self.body_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("initialize_timeout", &self.initialize_timeout)
            .field("drain", &self.drain)
            .field("hold", &self.hold)
            .field("max_message", &self.max_message)
            .field("cookies", &self.cookies)
            .field("proxy", &self.proxy)
            .field("no_proxy", &self.no_proxy)
            .field("ca_files", &self.ca_files)
            .field("env_ca_file", &self.env_ca_file)
            .field("client_identity", &self.client_identity)
            .field("ipv4", &self.ipv4)
            .field("auth", &self.auth)
            .field("credential_store", &self.credential_store)
            .field("allow_private_address", &self.allow_private_address)
            .field("log", &self.log)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}
