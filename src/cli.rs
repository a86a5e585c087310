//! Command line, environment and header files → [`Config`].

mod config;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

pub use config::{Config, LogFormat, LogOptions, Proxy, ToolRules, TransportStrategy};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the bridge.
    Run(Box<Config>),
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
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\n{}", self.message, self.hint)
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments (without the program's name).
///
/// It touches neither the environment nor files but through `env` and `read_file`, so that it can be tested as a table.
pub fn parse(
    _args: impl IntoIterator<Item = OsString>,
    _env: &dyn Fn(&str) -> Option<String>,
    _read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Command, UsageError> {
    Err(UsageError::new("not written yet", "wait"))
}
