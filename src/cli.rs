//! Command line, environment and header files → [`Config`].
//!
//! The grammar is that of mcp-remote 0.15.1, so that its arguments work unchanged, with three differences: flags stand
//! anywhere, `--flag=value` works, and what is wrong is an error instead of a warning and a default.
//! As in mcp-remote, the first value of a flag counts that is meant once.
//!
//! Nothing here touches the environment or a file but through the functions given.
//! An error never shows what may be a secret: values of headers, queries of URLs, proxies, stray arguments.

mod command;
mod config;
mod flags;
mod headers;
mod network;
mod server;
mod sign_in;
mod state_dir;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::eras::Protocol;
pub use crate::session::{Strategy, ToolRules};
pub use command::{Import, Login, Logout, Status, Stored};
pub use config::{Config, LogFormat, LogOptions, Proxy};
use flags::Flags;

use crate::credentials::command::words;
use crate::secret::SafeText;

/// Time to connect when `--connect-timeout` is not given.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to the response headers when `--headers-timeout` is not given.
pub const HEADERS_TIMEOUT: Duration = Duration::from_secs(300);

/// Time to the answer to `initialize` when `--initialize-timeout` is not given. Clients give up after 30 s or 60 s.
pub const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for requests in flight after the client left, when `--drain` is not given.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Time that a request waits for a sign-in, when `--hold` is not given: less than the patience of clients, 60 s.
pub const HOLD: Duration = Duration::from_secs(40);

/// Interval of pings of a plain `--keep-alive`.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Greatest message when `--max-message` is not given, in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Greatest file that a caller's `read_file` needs to return. It should stop reading after one byte more.
pub const MAX_READ: usize = headers::MAX_FILE_BYTES;

/// Longest pattern of `--allow-tool` and `--ignore-tool`: tool names have at most 128 characters (MCP 2025-11-25).
const MAX_PATTERN_BYTES: usize = 256;

const NOT_NPX: &str =
    "Leave out npx, its flags and mcp-remote; what remains is: mcp-drawbridge https://example.com/mcp";

const QUOTE: &str = "A header with a space must be one argument: quote it, or write Authorization:${AUTH}.";

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the bridge.
    Run(Box<Config>),
    /// Sign in to a server now.
    Login(Box<Login>),
    /// Sign out of a server.
    Logout(Box<Logout>),
    /// Say which sign-ins there are.
    Status(Status),
    /// Take over the sign-ins of mcp-remote.
    Import(Import),
    /// Print this text on stdout and exit 0.
    Help(String),
    /// Print this line on stdout and exit 0.
    Version(String),
}

/// The command line cannot be carried out: exit code 2.
///
/// `Display` gives two lines: what is wrong, and what to do. Neither holds a header value, a URL query or a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong, one line.
    pub message: String,
    /// What to do, one line.
    pub hint: String,
}

impl UsageError {
    /// An error from its two lines.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\n{}", self.message, self.hint)
    }
}

impl std::error::Error for UsageError {}

/// Whether the first argument is the name of a command, so that no client waits for an answer.
pub fn is_command(first: Option<&OsString>) -> bool {
    let first = first.and_then(|first| first.to_str()).map(str::to_owned);
    first.is_some_and(|first| command::word(&[first]).0 != command::Word::Run)
}

/// Reads the arguments, without the program's name.
///
/// `env` returns a variable, `None` where it is unset or not Unicode. `read_file` returns a file's bytes and may stop
/// after [`MAX_READ`] + 1 of them.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Command, UsageError> {
    let mut arguments = Vec::new();
    for (index, argument) in args.into_iter().enumerate() {
        let Ok(argument) = argument.into_string() else {
            return Err(UsageError::new(
                format!("argument {} is not valid Unicode", index + 1),
                "Write it in UTF-8; the rest of a header can come from a variable.",
            ));
        };
        arguments.push(argument);
    }
    // As in mcp-remote, wherever they stand and whatever else is wrong.
    let asks = |long: &str, short: &str| {
        arguments.iter().take_while(|text| *text != "--").any(|text| text == long || text == short)
    };
    if asks("--help", "-h") {
        return Ok(Command::Help(flags::help()));
    }
    if asks("--version", "-V") {
        return Ok(Command::Version(flags::version()));
    }
    let (word, arguments) = command::word(&arguments);
    let (flags, sources) = flags::read(arguments)?;
    // `-hV` and the like.
    if flags.help {
        return Ok(Command::Help(flags::help()));
    }
    if flags.version {
        return Ok(Command::Version(flags::version()));
    }
    command::check_flags(word, &flags)?;
    match word {
        command::Word::Status => command::status(&flags, &sources, env, read_file),
        command::Word::Import => command::import(&flags, &sources, env, read_file),
        command::Word::Run | command::Word::Login | command::Word::Logout => {
            let config = config_of(&flags, &sources, env, read_file)?;
            Ok(command::with_server(word, &flags, config))
        }
    }
}

/// The configuration of whatever reaches a server.
fn config_of(
    flags: &Flags,
    sources: &[flags::HeaderSource],
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Config, UsageError> {
    let headers = headers::collect(sources, env, read_file)?;
    let mut notes = headers.notes;
    let mut once = Once { notes: &mut notes };

    let (server_text, server, callback_port) = positionals(flags)?;
    let asked = sign_in::Asked { server: &server_text, port: callback_port, headers: headers.typed };
    let auth = sign_in::options(flags, asked, &mut once, env, read_file)?;
    let (proxy, no_proxy) = proxies(flags, &mut once)?;
    let certificate = once.take("--client-cert", &flags.client_cert).map(PathBuf::from);
    let key = once.take("--client-key", &flags.client_key).map(PathBuf::from);
    let bearer_command = once.read("--bearer-command", &flags.bearer_command, bearer_command)?;
    if bearer_command.is_some() && headers.sent.iter().any(|(name, _)| *name == http::header::AUTHORIZATION) {
        return Err(UsageError::new(
            "--bearer-command and a header authorization are given, and only one can be sent",
            "Leave one of them out.",
        ));
    }
    let config = Config {
        server,
        server_text,
        headers: headers.sent,
        bearer_command,
        transport: once.read("--transport", &flags.transport, transport)?.unwrap_or_default(),
        protocol: once.read("--protocol", &flags.protocol, protocol)?.unwrap_or_default(),
        allow_http: flags.allow_http,
        tool_rules: ToolRules {
            allow: patterns("--allow-tool", &flags.allow_tool)?,
            ignore: patterns("--ignore-tool", &flags.ignore_tool)?,
            read_only: flags.read_only,
        },
        keep_alive: once
            .read("--ping-interval", &flags.ping_interval, values::period)?
            .or(flags.keep_alive.then_some(PING_INTERVAL)),
        connect_timeout: once
            .read("--connect-timeout", &flags.connect_timeout, values::period)?
            .unwrap_or(CONNECT_TIMEOUT),
        headers_timeout: once
            .read("--headers-timeout", &flags.headers_timeout, values::limit)?
            .unwrap_or(Some(HEADERS_TIMEOUT)),
        body_timeout: once.read("--body-timeout", &flags.body_timeout, values::limit)?.flatten(),
        request_timeout: once.read("--request-timeout", &flags.request_timeout, values::limit)?.flatten(),
        initialize_timeout: once
            .read("--initialize-timeout", &flags.initialize_timeout, values::period)?
            .unwrap_or(INITIALIZE_TIMEOUT),
        drain: once.read("--drain", &flags.drain, values::wait)?,
        hold: once.read("--hold", &flags.hold, values::wait)?.unwrap_or(HOLD),
        max_message: once.read("--max-message", &flags.max_message, values::size)?.unwrap_or(MAX_MESSAGE),
        cookies: !flags.disable_cookies,
        proxy,
        no_proxy,
        ca_files: flags.ca_file.iter().map(PathBuf::from).collect(),
        env_ca_file: env("NODE_EXTRA_CA_CERTS").filter(|path| !path.is_empty()).map(PathBuf::from),
        client_identity: network::identity(certificate, key)?,
        ipv4: flags.ipv4,
        auth,
        credential_store: once.read("--credential-store", &flags.credential_store, sign_in::store)?.unwrap_or_default(),
        allow_private_address: flags.allow_private_address,
        log: log_options(flags, &mut once)?,
        state_dir: state_dir::find(state_dir::Platform::HERE, env)?,
        notes: Vec::new(),
    };
    Ok(Config { notes, ..config })
}

fn log_options(flags: &Flags, once: &mut Once<'_>) -> Result<LogOptions, UsageError> {
    Ok(LogOptions {
        debug: flags.debug,
        silent: flags.silent,
        format: once.read("--log-format", &flags.log_format, log_format)?.unwrap_or_default(),
        file: once.take("--log-file", &flags.log_file).map(PathBuf::from),
    })
}

/// Flags that are meant once: the first value counts, and a note says so.
struct Once<'a> {
    notes: &'a mut Vec<String>,
}

impl Once<'_> {
    fn take<'v>(&mut self, flag: &str, values: &'v [String]) -> Option<&'v str> {
        if values.len() > 1 {
            self.notes.push(format!("{flag} is given {} times, the first counts", values.len()));
        }
        values.first().map(String::as_str)
    }

    fn read<T>(
        &mut self,
        flag: &str,
        values: &[String],
        parse: fn(&str, &str) -> Result<T, UsageError>,
    ) -> Result<Option<T>, UsageError> {
        self.take(flag, values).map(|text| parse(flag, text)).transpose()
    }
}

fn positionals(flags: &Flags) -> Result<(String, url::Url, Option<u16>), UsageError> {
    let mut positionals = flags.positionals.iter();
    let Some(server_text) = positionals.next() else {
        return Err(UsageError::new(
            "the server URL is missing",
            "Write it as in: mcp-drawbridge https://example.com/mcp. See mcp-drawbridge --help.",
        ));
    };
    let server =
        server::parse(server_text, flags.allow_http).map_err(|error| command::near(server_text).unwrap_or(error))?;
    let port = positionals.next();
    if positionals.next().is_some() {
        return Err(UsageError::new(
            format!("there are {} arguments besides the flags", flags.positionals.len()),
            format!("A server URL and a callback port can stand there. {QUOTE}"),
        ));
    }
    let port = port.map(|text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0).ok_or_else(|| {
            let no_port = UsageError::new(
                "the second argument is not a callback port",
                format!("A port is a number from 1 to 65535. {QUOTE}"),
            );
            command::near(text).unwrap_or(no_port)
        })
    });
    Ok((server_text.clone(), server, port.transpose()?))
}

fn proxies(flags: &Flags, once: &mut Once<'_>) -> Result<(Proxy, Vec<String>), UsageError> {
    let no_proxy = network::no_proxy(&flags.no_proxy)?;
    let proxy = once.read("--proxy", &flags.proxy, |_, text| network::proxy(text))?.unwrap_or_default();
    if no_proxy.iter().any(|host| host == "*") {
        return Ok((Proxy::Off, no_proxy));
    }
    Ok((proxy, no_proxy))
}

fn transport(flag: &str, text: &str) -> Result<Strategy, UsageError> {
    let words = [
        ("http-first", Strategy::HttpFirst),
        ("sse-first", Strategy::SseFirst),
        ("http-only", Strategy::HttpOnly),
        ("sse-only", Strategy::SseOnly),
    ];
    values::choice(flag, text, &words)
}

fn bearer_command(flag: &str, text: &str) -> Result<Vec<String>, UsageError> {
    words::split(text).map_err(|wrong| {
        UsageError::new(
            format!("{flag} {wrong}"),
            format!("No shell reads it. Write a program and its arguments, quotes where they hold blanks: {flag} 'vault print token'."),
        )
    })
}

fn protocol(flag: &str, text: &str) -> Result<Protocol, UsageError> {
    let words = [("auto", Protocol::Auto), ("legacy", Protocol::Legacy), ("modern", Protocol::Modern)];
    values::choice(flag, text, &words)
}

fn log_format(flag: &str, text: &str) -> Result<LogFormat, UsageError> {
    values::choice(flag, text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn patterns(flag: &str, texts: &[String]) -> Result<Vec<String>, UsageError> {
    for text in texts {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(UsageError::new(
                format!("{flag}: a pattern is longer than {MAX_PATTERN_BYTES} bytes"),
                format!("Write a tool's name, * for any text: {flag} 'delete*'."),
            ));
        }
    }
    Ok(texts.to_vec())
}

/// Why a file cannot be read, for a person.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => SafeText(&error.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests;
