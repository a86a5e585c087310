//! The flags as typed: one table for parsing, for help and for suggestions.

use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use super::UsageError;
use crate::secret::SafeText;

/// How often one repeatable flag may be given.
pub(super) const MAX_REPEATS: usize = 256;

/// Flags of mcp-remote whose subject this version does not have. A user who brings them must hear which part is missing.
const LATER_FLAGS: [(&str, &str); 4] = [
    ("--client-credentials", ALONE),
    ("--device-code", "signing in by device code"),
    ("--token-endpoint", ALONE),
    ("--use-id-token", "sending the ID token"),
];
const ALONE: &str = "signing in without a person";

/// Column at which the descriptions of the help text begin.
const HELP_COLUMN: usize = 32;

const INTRO: &str = "\
mcp-drawbridge connects a stdio MCP client to a remote MCP server.

Usage: mcp-drawbridge <SERVER_URL> [CALLBACK_PORT] [FLAGS]
       mcp-drawbridge login <SERVER_URL>          Sign in now, before a client needs it
       mcp-drawbridge logout <SERVER_URL>         Sign out here and, where it can be, at the server
       mcp-drawbridge status [SERVER_URL]         Say where you are signed in; asks no network
       mcp-drawbridge import [DIR] <SERVER_URL>.. Take over the sign-ins of mcp-remote
A command takes the flags that the client's configuration has for the same server.
";

const OUTRO: &str = r#"
Flags stand anywhere, as --flag VALUE or --flag=VALUE. Unless repeatable, the first counts.
Time-outs are seconds, fractions allowed. CALLBACK_PORT is where the browser comes back to.

Examples:
  mcp-drawbridge https://example.com/mcp
  mcp-drawbridge https://example.com/mcp --header 'Authorization: Bearer ${TOKEN}' --read-only

In the configuration of a client, such as Claude Desktop:
  { "mcpServers": { "example": {
      "command": "mcp-drawbridge",
      "args": ["https://example.com/mcp", "--header", "Authorization: Bearer ${TOKEN}"],
      "env": { "TOKEN": "..." } } } }

Environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY; SSL_CERT_FILE, NODE_EXTRA_CA_CERTS;
  MCP_DRAWBRIDGE_STATE_DIR, where sign-ins and the outcome of earlier runs are kept; BROWSER.
Exit codes: 0 done, or the client ended the session; 1 failed; 2 wrong arguments.
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

    /// Send what this program prints as Authorization: Bearer
    #[arg(long, value_name = "'PROGRAM ...'", action = ArgAction::Append, help_heading = "Headers")]
    pub(super) bearer_command: Vec<String>,

    /// Keep sign-ins by auto, keyring, file or memory [auto]
    #[arg(long, value_name = "PLACE", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) credential_store: Vec<String>,
    /// Keep several accounts on one server apart
    #[arg(long, value_name = "NAME", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) profile: Vec<String>,
    /// The client that you registered, or @FILE; ${VAR} as above
    #[arg(long, value_name = "JSON", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) static_oauth_client_info: Vec<String>,
    /// What to register, such as '{"scope": "read"}', or @FILE
    #[arg(long, value_name = "JSON", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) static_oauth_client_metadata: Vec<String>,
    /// A client ID metadata document of yours
    #[arg(long, value_name = "URL", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) client_metadata_url: Vec<String>,
    /// The resource to ask for, instead of the published one
    #[arg(long, value_name = "URI", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) resource: Vec<String>,
    /// Name no resource
    #[arg(long, help_heading = SIGN_IN)]
    pub(super) disable_resource_parameter: bool,
    /// Add this to the sign-in page's address; repeatable
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) authorize_param: Vec<String>,
    /// This machine, where the browser comes back to [localhost]
    #[arg(long, value_name = "HOST", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) host: Vec<String>,
    /// The path there [/oauth/callback]
    #[arg(long, value_name = "PATH", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) callback_path: Vec<String>,
    /// Where the browser goes when all is done
    #[arg(long, value_name = "URL", action = ArgAction::Append, help_heading = SIGN_IN)]
    pub(super) auth_success_url: Vec<String>,
    /// Sign in although the server does not say that it has PKCE
    #[arg(long, help_heading = SIGN_IN)]
    pub(super) allow_missing_pkce_metadata: bool,
    /// Sign in at an address of a private network
    #[arg(long, help_heading = SIGN_IN)]
    pub(super) allow_private_address: bool,

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
    /// Until a request that waits for a sign-in is answered [40]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) hold: Vec<String>,
    /// That the browser waits for the end of a sign-in [30]
    #[arg(long, value_name = "SECONDS", action = ArgAction::Append, allow_negative_numbers = true, help_heading = TIME_OUTS)]
    pub(super) auth_timeout: Vec<String>,

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

    /// login: read the address that the browser ends at from stdin
    #[arg(long, help_heading = COMMANDS)]
    pub(super) paste: bool,
    /// login: sign in anew, also when signed in
    #[arg(long, help_heading = COMMANDS)]
    pub(super) force: bool,
    /// logout: every profile of the server
    #[arg(long, help_heading = COMMANDS)]
    pub(super) all: bool,
    /// status: as JSON
    #[arg(long, help_heading = COMMANDS)]
    pub(super) json: bool,

    /// Print this text
    #[arg(long, short, help_heading = "Other")]
    pub(super) help: bool,
    /// Print the version
    #[arg(long, short = 'V', help_heading = "Other")]
    pub(super) version: bool,
}

const COMMANDS: &str = "Commands";
const SIGN_IN: &str = "Sign-in";
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
        if flag.len() < HELP_COLUMN {
            let _ = writeln!(text, "{flag:<HELP_COLUMN$}{about}");
        } else {
            let _ = writeln!(text, "{flag}\n{:HELP_COLUMN$}{about}", "");
        }
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
        // As in mcp-remote, an empty resource is none.
        if values.any(String::is_empty) && long != "resource" {
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
        ("--authorize-param", flags.authorize_param.len()),
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

pub(super) const SEE_HELP: &str = "mcp-drawbridge --help lists the flags.";

/// The name alone of `--flag=value` or `--flag <VALUE>`, fit to be shown.
fn flag_name(text: &str) -> String {
    let end = text.find(['=', ' ', ':']).unwrap_or(text.len());
    SafeText(text.get(..end).unwrap_or_default()).to_string()
}

fn unknown(flag: &str, suggestion: Option<&str>) -> UsageError {
    if let Some((_, subject)) = LATER_FLAGS.iter().find(|(name, _)| *name == flag) {
        let hint = "Leave the flag out to sign in by browser. A server that takes a key works: --header 'Authorization: Bearer ${TOKEN}'.";
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
