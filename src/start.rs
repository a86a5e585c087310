//! From a configuration to a running bridge.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::mpsc;

use crate::auth::Authorizer;
use crate::bridge;
use crate::cli::{self, Config, UsageError};
use crate::credentials::Credentials;
use crate::credentials::command::BearerCommand;
use crate::eras::{self, Eras, SealKey};
use crate::errand;
use crate::http::{HttpClient, HttpOptions, ProxyChoice};
use crate::message::{self, Message, Parsed};
use crate::secret::SafeUrl;
use crate::session::{Session, Settings, SignIn};
use crate::state::StateFile;
use crate::stdio::{Lines, Output};
use crate::store::Store;
use crate::transport::Transport;

/// How long piped scripts that closed stdin may wait for their answers (S5), unless `--drain` says otherwise.
const PIPED_DRAIN: Duration = Duration::from_secs(30);
/// How long the end of the process waits for tokens that are on their way to the store.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a program that was started with wrong arguments waits for a first request to answer.
const FIRST_REQUEST: Duration = Duration::from_secs(3);
/// Bytes of that request.
const FIRST_REQUEST_MOST: u64 = 1 << 20;

/// Why the bridge did not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("{0}")]
    Usage(UsageError),
    /// stdin or stdout failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the bridge until the client leaves.
pub async fn run(config: &Config) -> Result<(), Error> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let lines = Lines::open(config.max_message)?;
    let output = Output::open()?;
    let (client, options) = http(config).map_err(Error::Usage)?;
    let headers: HeaderMap = config.headers.iter().cloned().collect();
    let mut names: Vec<&str> = config.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let state =
        config.state_dir.as_deref().map(|directory| StateFile::new(directory, &config.server, &names.join(",")));
    let memory = state.as_ref().and_then(StateFile::load);
    let (sender, events) = mpsc::channel(bridge::CHANNEL);
    let (tell, news) = mpsc::unbounded_channel();
    let credentials = if headers.contains_key(AUTHORIZATION) {
        Credentials::Static
    } else if let Some(words) = &config.bearer_command {
        let command = BearerCommand::new(words.clone())
            .map_err(|error| Error::Usage(UsageError::new(format!("--bearer-command: {error}"), error.hint())))?;
        Credentials::Command(command)
    } else {
        let store = Store::new(config.state_dir.as_deref(), config.credential_store);
        Credentials::SignIn(authorizer(config, client.clone(), &options, store, tell))
    };
    let server = config.server.clone();
    let transport = Transport::new(client, credentials.clone(), server, &headers, config.max_message, sender);
    let can_sign_in = matches!(credentials, Credentials::SignIn(_));
    let settings = Settings { can_sign_in, ..settings(config) };
    let limits = bridge::Limits { max_message: config.max_message, patience: settings.drain };
    let session = Eras::new(eras_settings(config, &settings)?, Session::new(settings, memory));
    output.keep_to_ourselves();
    tracing::debug!("bridging to {}", SafeUrl(&config.server));
    let outcome = bridge::run(session, transport, bridge::Sources { events, news }, lines, output, state, limits).await;
    credentials.settle(SETTLE).await;
    Ok(outcome?)
}

/// The one client of a configuration, and what it was made of.
pub(crate) fn http(config: &Config) -> Result<(HttpClient, HttpOptions), UsageError> {
    // As in Node: a file that the environment names and that cannot be read is no reason not to start.
    let env_ca_file = config.env_ca_file.clone().filter(|path| {
        let readable = std::fs::File::open(path);
        if let Err(error) = &readable {
            tracing::warn!("NODE_EXTRA_CA_CERTS is ignored, {} cannot be read: {error}", path.display());
        }
        readable.is_ok()
    });
    let options = http_options(config, env_ca_file);
    let client = HttpClient::new(options.clone(), config.server.clone())
        .map_err(|error| UsageError::new(error.to_string(), error.hint().unwrap_or_default()))?;
    Ok((client, options))
}

/// What signs in for a configuration.
pub(crate) fn authorizer(
    config: &Config,
    client: HttpClient,
    http: &HttpOptions,
    store: Store,
    news: mpsc::UnboundedSender<SignIn>,
) -> Authorizer {
    let messenger = config.state_dir.as_deref().and_then(|state_dir| {
        errand::messenger(errand::Setting {
            server: &config.server,
            server_text: &config.server_text,
            state_dir,
            store: config.credential_store,
            options: &config.auth,
            http,
        })
    });
    let options = Arc::new(config.auth.clone());
    Authorizer::new(client, config.server.clone(), config.server_text.clone(), options, store, news, messenger)
}

fn settings(config: &Config) -> Settings {
    let random = random();
    let piped = !io::stdin().is_terminal() && !io::stdout().is_terminal();
    Settings {
        server: config.server.host_str().map_or_else(|| "the server".into(), str::to_owned),
        strategy: config.transport,
        initialize_timeout: config.initialize_timeout,
        request_timeout: config.request_timeout,
        hold: config.hold,
        drain: config.drain.unwrap_or(if piped { PIPED_DRAIN } else { cli::DRAIN }),
        keep_alive: config.keep_alive,
        tools: config.tool_rules.clone(),
        nonce: format!("{random:016x}"),
        seed: random,
        ..Settings::default()
    }
}

fn eras_settings(config: &Config, settings: &Settings) -> Result<eras::Settings, Error> {
    let mut key = [0; 32];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut key)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(eras::Settings {
        protocol: config.protocol,
        server: settings.server.clone(),
        initialize_timeout: settings.initialize_timeout,
        drain: settings.drain,
        nonce: settings.nonce.clone(),
        key: SealKey(key),
        ..eras::Settings::default()
    })
}

/// Unlike the last time, but no secret: the standard library's own seed.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn http_options(config: &Config, env_ca_file: Option<std::path::PathBuf>) -> HttpOptions {
    HttpOptions {
        proxy: match &config.proxy {
            cli::Proxy::Environment => ProxyChoice::Environment,
            cli::Proxy::Off => ProxyChoice::Off,
            cli::Proxy::Url(url) => ProxyChoice::Url(url.to_string()),
        },
        no_proxy: (!config.no_proxy.is_empty()).then(|| config.no_proxy.join(",")),
        ca_files: config.ca_files.iter().cloned().chain(env_ca_file).collect(),
        client_identity: config.client_identity.clone(),
        ipv4_only: config.ipv4,
        connect_timeout: config.connect_timeout,
        headers_timeout: config.headers_timeout,
        body_timeout: config.body_timeout,
        cookies: config.cookies,
        allow_http: config.allow_http,
        allow_private_address: config.allow_private_address,
        max_body: config.max_message,
        ..HttpOptions::default()
    }
}

/// S4: gives a usage error as the answer to the first request, so that the host can show it.
pub fn answer_first_request(problem: &str, hint: &str) {
    let (sender, receiver) = std_mpsc::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut stdin = io::Read::take(io::stdin().lock(), FIRST_REQUEST_MOST);
        let _ = stdin.read_until(b'\n', &mut line);
        let _ = sender.send(line);
    });
    let Ok(line) = receiver.recv_timeout(FIRST_REQUEST) else { return };
    if let Ok(Parsed::One(Message::Request(request))) = message::parse(&line) {
        let data = format!("{{\"source\":\"mcp-drawbridge\",\"kind\":\"usage\",\"hint\":{}}}", message::quote(hint));
        let response = message::error_response(Some(&request.id), message::BRIDGE_ERROR, problem, Some(&data));
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&response).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    }
}
