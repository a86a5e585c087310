#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
//! Parses the command line, runs the bridge, and turns what became of it into an exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use mcp_drawbridge::cli::{self, Command, UsageError};
use mcp_drawbridge::{errand, log, process, start};

const USAGE: u8 = 2;
const FAILED: u8 = 1;

fn main() -> ExitCode {
    process::forbid_core_dumps();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if matches!(arguments.as_slice(), [one] if one == errand::ARGUMENT) {
        return if errand::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    }
    match cli::parse(arguments, &|name| std::env::var(name).ok(), &read_file) {
        Ok(Command::Help(text) | Command::Version(text)) => {
            // A reader that is gone wants no text.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Command::Run(config)) => match log::init(&config.log) {
            Ok(_guard) => run(&config),
            Err(error) => refuse(&error),
        },
        Err(error) => refuse(&error),
    }
}

fn run(config: &cli::Config) -> ExitCode {
    process::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return refuse(&UsageError::new(
                format!("the system refuses an event loop: {error}"),
                "raise the limit on open files",
            ));
        }
    };
    let outcome = runtime.block_on(start::run(config));
    // Name look-ups and threads may still hang; they must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(start::Error::Usage(error)) => refuse(&error),
        Err(start::Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(start::Error::Io(error)) => {
            tracing::error!("stdin or stdout failed: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// S4: a person at a terminal reads stderr; a host shows the answer to its first request.
fn refuse(error: &UsageError) -> ExitCode {
    let _ = writeln!(io::stderr(), "mcp-drawbridge: {error}");
    if !io::stdin().is_terminal() {
        start::answer_first_request(&error.message, &error.hint);
    }
    ExitCode::from(USAGE)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(cli::MAX_READ as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
