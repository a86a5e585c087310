//! The process that asks a token endpoint in the bridge's place (see [`crate::auth::Messenger`]): how it is started, and what it does.
//!
//! It is this program, started by its own path with one argument. What it needs to know comes through its stdin, so that nothing of it is in
//! an argument or in the environment; what became of it goes through its stdout. It leaves its parent's process group, and ends by itself.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use crate::auth::browser;
use crate::auth::options::Options;
use crate::auth::registration::{AuthMethod, PreRegistered};
use crate::auth::resource::ResourceUri;
use crate::auth::{AuthError, Authorizer, Errand, Messenger};
use crate::http::{HttpClient, HttpOptions, ProxyChoice};
use crate::secret::Secret;
use crate::stdio;
use crate::store::{CredentialStore, Store};

/// The one argument of the process.
pub const ARGUMENT: &str = "--token-errand";
/// Bytes of an order.
const MAX_ORDER: u64 = 1 << 20;
/// Bytes of a report.
const MAX_REPORT: u64 = 64 * 1024;
/// Exit code of a process that does not understand its order, or its argument.
const NOT_UNDERSTOOD: i32 = 2;
/// Variables that say whom to trust, beside those that every child gets.
const TRUST: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The process ends after this time, whatever it waits for.
const PATIENCE: Duration = Duration::from_secs(90);

/// All that the process needs to know. It holds secrets, and has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
struct Order {
    server: String,
    server_text: String,
    state_dir: PathBuf,
    store: CredentialStore,
    profile: String,
    resource: Option<String>,
    disable_resource: bool,
    allow_missing_pkce: bool,
    client_metadata_url: Option<String>,
    client: Option<OwnClient>,
    proxy: Proxy,
    no_proxy: Option<String>,
    ca_files: Vec<PathBuf>,
    client_identity: Option<(PathBuf, PathBuf)>,
    ipv4_only: bool,
    connect_timeout: Duration,
    allow_http: bool,
    allow_private_address: bool,
}

#[derive(Clone, Serialize, Deserialize)]
enum Proxy {
    Environment,
    Off,
    Url(String),
}

#[derive(Clone, Serialize, Deserialize)]
struct OwnClient {
    issuer: Option<String>,
    client_id: String,
    client_secret: Option<String>,
    method: Option<String>,
}

/// What the bridge knows that the process needs.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The MCP server.
    pub server: &'a Url,
    /// As the user typed it.
    pub server_text: &'a str,
    /// Where the store is.
    pub state_dir: &'a Path,
    /// `--credential-store`.
    pub store: CredentialStore,
    /// Sign-in.
    pub options: &'a Options,
    /// HTTP.
    pub http: &'a HttpOptions,
}

/// What starts the processes; `None` where it cannot be done as it should: where sign-ins are in this process's memory alone, and where the
/// environment has a proxy's password, which no child gets.
pub fn messenger(setting: Setting<'_>) -> Option<Messenger> {
    if setting.store == CredentialStore::Memory
        || (matches!(setting.http.proxy, ProxyChoice::Environment) && has_password())
    {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    let order = Arc::new(order(setting));
    Some(Messenger::new(move |errand, key| {
        let (program, order) = (program.clone(), Arc::clone(&order));
        Box::pin(async move {
            let text = serde_json::to_vec(&(&*order, &errand, key.as_ref().map(Secret::expose))).ok()?;
            drop(errand);
            send(&program, Secret::new(String::from_utf8(text).ok()?)).await
        })
    }))
}

/// Why the process has no report.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Another version gave the order: the program was replaced while a bridge ran. Nothing was sent. Exit code 2, as a version gives that
    /// does not know [`ARGUMENT`].
    #[error("the order is of another version")]
    NotUnderstood,
    /// Something else failed, perhaps after tokens were asked for. Exit code 1.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Does what stdin says. For `main`, when [`ARGUMENT`] is the only argument.
pub fn run() -> Result<(), Failed> {
    let mut stdout = stdio::own_stdout();
    let mut text = String::new();
    io::stdin().lock().take(MAX_ORDER).read_to_string(&mut text)?;
    let order = serde_json::from_str(&text);
    drop(Secret::new(text));
    let Ok((order, errand, key)) = order else { return Err(Failed::NotUnderstood) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async { tokio::time::timeout(PATIENCE, carry_out(order, errand, key)).await });
    runtime.shutdown_background();
    let Ok(report) = report else { return Err(io::Error::from(io::ErrorKind::TimedOut).into()) };
    // Whoever waits for it may be gone.
    stdout.write_all(&serde_json::to_vec(&report).map_err(io::Error::from)?)?;
    stdout.flush()?;
    Ok(())
}

async fn carry_out(order: Order, errand: Errand, key: Option<String>) -> Result<(), AuthError> {
    let proxy = match order.proxy {
        Proxy::Environment => ProxyChoice::Environment,
        Proxy::Off => ProxyChoice::Off,
        Proxy::Url(url) => ProxyChoice::Url(url),
    };
    let http = HttpOptions {
        proxy,
        no_proxy: order.no_proxy,
        ca_files: order.ca_files,
        client_identity: order.client_identity,
        ipv4_only: order.ipv4_only,
        connect_timeout: order.connect_timeout,
        allow_http: order.allow_http,
        allow_private_address: order.allow_private_address,
        ..HttpOptions::default()
    };
    let server = Url::parse(&order.server).map_err(|error| AuthError::failed(&error.to_string()))?;
    let client = HttpClient::new(http, server.clone()).map_err(|error| AuthError::failed(&error.to_string()))?;
    let options = Options {
        profile: order.profile,
        resource: order.resource.map(ResourceUri::restored),
        disable_resource: order.disable_resource,
        allow_missing_pkce: order.allow_missing_pkce,
        client_metadata_url: order.client_metadata_url,
        client_info: order.client.map(|own| PreRegistered {
            issuer: own.issuer,
            client_id: own.client_id,
            client_secret: own.client_secret.map(Secret::new),
            method: own.method.as_deref().and_then(AuthMethod::from_name),
        }),
        ..Options::default()
    };
    let store = Store::new(Some(&order.state_dir), order.store);
    if let Some(key) = key {
        store.learn_key(&Secret::new(key));
    }
    let (news, _) = mpsc::unbounded_channel();
    Authorizer::new(client, server, order.server_text, Arc::new(options), store, news, None).run(errand).await
}

fn order(setting: Setting<'_>) -> Order {
    let (options, http) = (setting.options, setting.http);
    Order {
        server: setting.server.to_string(),
        server_text: setting.server_text.to_owned(),
        state_dir: setting.state_dir.to_owned(),
        store: setting.store,
        profile: options.profile.clone(),
        resource: options.resource.as_ref().map(|uri| uri.as_str().to_owned()),
        disable_resource: options.disable_resource,
        allow_missing_pkce: options.allow_missing_pkce,
        client_metadata_url: options.client_metadata_url.clone(),
        client: options.client_info.as_ref().map(|own| OwnClient {
            issuer: own.issuer.clone(),
            client_id: own.client_id.clone(),
            client_secret: own.client_secret.as_ref().map(|secret| secret.expose().to_owned()),
            method: own.method.map(|method| method.name().to_owned()),
        }),
        proxy: match &http.proxy {
            ProxyChoice::Environment => Proxy::Environment,
            ProxyChoice::Off => Proxy::Off,
            ProxyChoice::Url(url) => Proxy::Url(url.clone()),
        },
        no_proxy: http.no_proxy.clone(),
        ca_files: http.ca_files.clone(),
        client_identity: http.client_identity.clone(),
        ipv4_only: http.ipv4_only,
        connect_timeout: http.connect_timeout,
        allow_http: http.allow_http,
        allow_private_address: http.allow_private_address,
    }
}

fn has_password() -> bool {
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| value.contains('@')))
}

async fn send(program: &Path, order: Secret) -> Option<Result<(), AuthError>> {
    let child = start(program).map_err(|error| tracing::debug!("no process of its own: {error}")).ok()?;
    let (sender, report) = oneshot::channel();
    thread::Builder::new()
        .name("errand".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            let _ = sender.send(wait(child, &order));
        })
        .ok()?;
    match report.await {
        Ok(Ok(Some(report))) => Some(report),
        // This process knows its own order.
        Ok(Ok(None)) => None,
        // It may have asked: what the store says now is all that is known.
        Ok(Err(error)) => Some(Err(AuthError::failed(&format!("the process that asks for tokens failed: {error}")))),
        Err(_) => Some(Err(AuthError::failed("the process that asks for tokens was not waited for"))),
    }
}

/// `None`: the order was not understood, and nothing was sent.
fn wait(mut child: Child, order: &Secret) -> io::Result<Option<Result<(), AuthError>>> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its order says why by its exit code.
        let _ = stdin.write_all(order.expose().as_bytes());
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_REPORT).read_to_end(&mut text)?;
    }
    let status = child.wait()?;
    if status.code() == Some(NOT_UNDERSTOOD) {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

#[expect(clippy::disallowed_methods, reason = "this program itself, by its own path, without arguments of anybody")]
fn start(program: &Path) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    browser::isolate(&mut command);
    command.envs(TRUST.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.spawn()
}
