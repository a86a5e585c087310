//! skeleton

/// Command line, environment and header files → [`cli::Config`].
pub mod cli;
/// The log: quiet, one line per event, never in the way of the bridge.
pub mod log;
/// The only types that may stand in a log line.
pub mod secret;
