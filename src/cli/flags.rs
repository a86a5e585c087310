//! The flags as typed: one table for parsing, for help and for suggestions.

use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use super::UsageError;
use crate::secret::SafeText;

/// How often one repeatable flag may be given.
pub(super) const MAX_REPEATS: usize = 256;

/// Flags of mcp-remote whose subject this version does not have. A user who brings them must hear which part is missing.
const LATER_FLAGS: [(&str, &str); 14] = [
    ("--auth-success-url", SIGN_IN),
    ("--auth-timeout", SIGN_IN),
    ("--authorize-param", SIGN_IN),
    ("--callback-path", SIGN_IN),
    ("--client-credentials", SIGN_IN),
    ("--client-metadata-url", SIGN_IN),
    ("--device-code", SIGN_IN),
    ("--disable-resource-parameter", SIGN_IN),
    ("--host", SIGN_IN),
    ("--resource", SIGN_IN),
    ("--static-oauth-client-info", SIGN_IN),
    ("--static-oauth-client-metadata", SIGN_IN),
    ("--token-endpoint", SIGN_IN),
    ("--use-id-token", SIGN_IN),
];
const SIGN_IN: &str = "sign-in";

/// Column at which the descriptions of the help text begin.
const HELP_COLUMN: usize = 32;

const INTRO: &str = "\
mcp-drawbridge connects a stdio MCP client to a remote MCP server.

Usage: mcp-drawbridge <SERVER_URL> [CALLBACK_PORT] [FLAGS]
";

const OUTRO: &str = r#"
Flags stand anywhere, as --flag VALUE or --flag=VALUE. Unless repeatable, the first counts.
Time-outs are seconds, fractions allowed. CALLBACK_PORT is for sign-in, which is not there yet.

Examples:
  mcp-drawbridge https://example.com/mcp
  mcp-drawbridge https://example.com/mcp --header 'Authorization: Bearer ${TOKEN}' --read-only

In the configuration of a client, such as Claude Desktop:
  { "mcpServers": { "example": {
      "command": "mcp-drawbridge",
      "args": ["https://example.com/mcp", "--header", "Authorization: Bearer ${TOKEN}"],
      "env": { "TOKEN": "..." } } } }

Environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY; SSL_CERT_FILE, NODE_EXTRA_CA_CERTS;
  MCP_DRAWBRIDGE_STATE_DIR, where the outcome of earlier runs is remembered.
Exit codes: 0 the client ended the session, 1 failed, 2 wrong arguments.
"#;

/// The arguments as typed. A flag that is meant once is a list too: as in mcp-remote, its first value counts.
#[derive(Parser, Debug)]
#[allow(rustdoc::broken_intra_doc_links)] // defaults stand in brackets: the text is the help
#[command(
    name = "mcp-drawbridge",
    version,
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    no_binary_name = true,
    next_help_heading = "Connection"
)]
pub(super) struct Flags {
    #[arg(hide = true)]
    pub(super) positionals: Vec<String>,

    /// http-first, sse-first, http-only or sse-only [http-first]
    #[arg(long, value_name = "STRATEGY", action = ArgAction::Append)]
    pub(super) transport: Vec<String>,
    /// The server's era: auto, legacy or modern (from 2026-07-28) [auto]
    #[arg(long, value_name = "ERA", action = ArgAction::Append)]
    pub(super) protocol: Vec<String>,
    /// Allow http:// to hosts other than this machine
    #[arg(long)]
    pub(super) allow_http: bool,
    /// Connect by IPv4 only
    #[arg(long)]
    pub(super) ipv4: bool,
    /// Keep no cookies of the server
    #[arg(long)]
    pub(super) disable_cookies: bool,
    /// Ping the server every 30 s while the connection is idle
    #[arg(long)]
    pub(super) keep_alive: bool,
    /// The same with another interval
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true)]
    pub(super) ping_interval: Vec<String>,
    /// Largest message either way, such as 512k or 1g [64m]
    #[arg(long, value_name = "SIZE", action = ArgAction::Append, allow_negative_numbers = true)]
    pub(super) max_message: Vec<String>,

    /// Send this header; ${VAR} stands for a variable; repeatable
    // A header's name may begin with a hyphen, so `--header "-X: y"` is a value.
    #[arg(long, value_name = "'NAME: VALUE'", action = ArgAction::Append, allow_hyphen_values = true, help_heading = "Headers")]
    pub(super) header: Vec<String>,
    /// Headers from a file, one a line, # for comments; repeatable
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = "Headers")]
    pub(super) header_file: Vec<String>,

    /// Only tools that match; * is any text; repeatable
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append, help_heading = "Tools")]
    pub(super) allow_tool: Vec<String>,
    /// No tools that match; repeatable
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append, help_heading = "Tools")]
    pub(super) ignore_tool: Vec<String>,
    /// Only tools that the server marks as read-only
    #[arg(long, help_heading = "Tools")]
    pub(super) read_only: bool,

    /// Until connected [10]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) connect_timeout: Vec<String>,
    /// Until a response begins, 0 for no limit [300]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) headers_timeout: Vec<String>,
    /// Silence inside a response, 0 for no limit [0]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) body_timeout: Vec<String>,
    /// Until a request is answered, 0 for no limit [0]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) request_timeout: Vec<String>,
    /// Until initialize is answered in any case [20]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) initialize_timeout: Vec<String>,
    /// Left to requests in flight when the client leaves [2]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) drain: Vec<String>,

    /// http, https, socks4, socks5, or off [from the environment]
    #[arg(long, value_name = "URL", action = ArgAction::Append, help_heading = PROXY)]
    pub(super) proxy: Vec<String>,
    /// Hosts to reach without a proxy, with commas; repeatable
    #[arg(long, value_name = "HOSTS", action = ArgAction::Append, help_heading = PROXY)]
    pub(super) no_proxy: Vec<String>,
    /// No effect: the environment's proxies are used anyway
    #[arg(long, help_heading = PROXY)]
    pub(super) enable_proxy: bool,
    /// Trust these certificate authorities too (PEM); repeatable
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = PROXY)]
    pub(super) ca_file: Vec<String>,
    /// Present this certificate chain to the server (PEM)
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = PROXY)]
    pub(super) client_cert: Vec<String>,
    /// The key of --client-cert (PEM)
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = PROXY)]
    pub(super) client_key: Vec<String>,

    /// Log every step; no secrets, safe to paste
    #[arg(long, help_heading = LOGGING)]
    pub(super) debug: bool,
    /// Write nothing on stderr
    #[arg(long, help_heading = LOGGING)]
    pub(super) silent: bool,
    /// text or json [text]
    #[arg(long, value_name = "FORMAT", action = ArgAction::Append, help_heading = LOGGING)]
    pub(super) log_format: Vec<String>,
    /// Append the log to this file as well
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = LOGGING)]
    pub(super) log_file: Vec<String>,

    /// Print this text
    #[arg(long, short, help_heading = "Other")]
    pub(super) help: bool,
    /// Print the version
    #[arg(long, short = 'V', help_heading = "Other")]
    pub(super) version: bool,
}

const TIME_OUTS: &str = "Time-outs";
const PROXY: &str = "Proxy and TLS";
const LOGGING: &str = "Logging";

/// One `--header` or `--header-file`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderSource {
    /// A header, and the how manyth `--header` it is, from 1.
    Flag(usize, String),
    /// A file of headers.
    File(String),
}

/// The help text, one screen: made from the flags' own definitions, so that it cannot lag behind them.
pub(super) fn help() -> String {
    let mut text = String::from(INTRO);
    let mut heading = None;
    for argument in Flags::command().get_arguments().filter(|argument| !argument.is_hide_set()) {
        if argument.get_help_heading() != heading {
            heading = argument.get_help_heading();
            let _ = writeln!(text, "\n{}:", heading.unwrap_or_default());
        }
        let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        let takes_value = argument.get_action().takes_values();
        let value = argument.get_value_names().and_then(|names| names.first()).filter(|_| takes_value);
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        let flag = format!("  {short}--{}{value}", argument.get_long().unwrap_or_default());
        let about = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{flag:<HELP_COLUMN$}{about}");
    }
    text.push_str(OUTRO);
    text
}

/// The version, one line.
pub(super) fn version() -> String {
    concat!("mcp-drawbridge ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// Sorts arguments into flags. The second value keeps `--header` and `--header-file` in the order typed.
pub(super) fn read(arguments: &[String]) -> Result<(Flags, Vec<HeaderSource>), UsageError> {
    let command = Flags::command();
    let matches = command.try_get_matches_from(arguments).map_err(|error| explain(&error))?;
    let flags = Flags::from_arg_matches(&matches).map_err(|error| explain(&error))?;
    check_values(&matches)?;
    check_repeats(&flags)?;

    let headers = flags.header.iter().enumerate();
    let headers = headers.map(|(index, text)| HeaderSource::Flag(index + 1, text.clone()));
    let files = flags.header_file.iter().map(|path| HeaderSource::File(path.clone()));
    let mut sources: Vec<(usize, HeaderSource)> = Vec::new();
    sources.extend(matches.indices_of("header").into_iter().flatten().zip(headers));
    sources.extend(matches.indices_of("header_file").into_iter().flatten().zip(files));
    sources.sort_by_key(|(position, _)| *position);
    Ok((flags, sources.into_iter().map(|(_, source)| source).collect()))
}

fn check_values(matches: &ArgMatches) -> Result<(), UsageError> {
    for argument in Flags::command().get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(long) = argument.get_long().filter(|_| argument.get_action().takes_values()) else {
            continue;
        };
        let mut values = matches.get_many::<String>(argument.get_id().as_str()).into_iter().flatten();
        if values.any(String::is_empty) {
            return Err(no_value(&format!("--{long}")));
        }
    }
    Ok(())
}

fn check_repeats(flags: &Flags) -> Result<(), UsageError> {
    let repeatable = [
        ("--header", flags.header.len()),
        ("--header-file", flags.header_file.len()),
        ("--allow-tool", flags.allow_tool.len()),
        ("--ignore-tool", flags.ignore_tool.len()),
        ("--no-proxy", flags.no_proxy.len()),
        ("--ca-file", flags.ca_file.len()),
    ];
    for (flag, count) in repeatable {
        if count > MAX_REPEATS {
            return Err(UsageError::new(
                format!("{flag} is given {count} times"),
                format!("At most {MAX_REPEATS} are accepted."),
            ));
        }
    }
    Ok(())
}

/// Whether a text is a flag of ours, which it is not meant to be where a value stands.
pub(super) fn is_flag(text: &str) -> bool {
    let Some(text) = text.strip_prefix("--") else {
        return false;
    };
    let name = text.split('=').next().unwrap_or(text);
    Flags::command().get_arguments().any(|argument| argument.get_long() == Some(name))
}

/// Turns the parser's error into ours. It never shows a value: what stands in the wrong place may be a secret.
fn explain(error: &clap::Error) -> UsageError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let flag = flag_name(context(ContextKind::InvalidArg).unwrap_or("an argument"));
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(&flag, context(ContextKind::SuggestedArg)),
        ErrorKind::TooManyValues => UsageError::new(format!("{flag} takes no value"), format!("Write {flag} alone.")),
        ErrorKind::InvalidValue => no_value(&flag),
        _ => UsageError::new(format!("{flag} is not understood"), SEE_HELP),
    }
}

fn no_value(flag: &str) -> UsageError {
    UsageError::new(
        format!("{flag} needs a value"),
        format!("Write {flag} VALUE or {flag}=VALUE; a value that begins with - needs the second form."),
    )
}

const SEE_HELP: &str = "mcp-drawbridge --help lists the flags.";

/// The name alone of `--flag=value` or `--flag <VALUE>`, fit to be shown.
fn flag_name(text: &str) -> String {
    let end = text.find(['=', ' ', ':']).unwrap_or(text.len());
    SafeText(text.get(..end).unwrap_or_default()).to_string()
}

fn unknown(flag: &str, suggestion: Option<&str>) -> UsageError {
    if let Some((_, subject)) = LATER_FLAGS.iter().find(|(name, _)| *name == flag) {
        let hint = if *subject == SIGN_IN {
            "Leave the flag out. A server that takes a key works: --header 'Authorization: Bearer ${TOKEN}'."
        } else {
            "Leave the flag out: messages pass through in the revision that client and server agree on."
        };
        return UsageError::new(format!("{flag}: {subject} is not part of this version yet"), hint);
    }
    if matches!(flag, "-y" | "--yes" | "-p" | "--package") {
        return UsageError::new(format!("{flag} is a flag of npx"), super::NOT_NPX);
    }
    let hint = match suggestion {
        Some(name) => format!("Did you mean {}? {SEE_HELP}", flag_name(name)),
        None => format!("{SEE_HELP} A value that begins with - is written --flag=VALUE."),
    };
    UsageError::new(format!("{flag} is not a flag"), hint)
}
