#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
//! Parses the command line, runs the bridge or a command, and turns what became of it into an exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use mcp_drawbridge::cli::{self, Command, LogOptions, UsageError};
use mcp_drawbridge::command::{self, Report};
use mcp_drawbridge::{errand, log, process, start, stdio};

const USAGE: u8 = 2;
const FAILED: u8 = 1;

fn main() -> ExitCode {
    process::forbid_core_dumps();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if matches!(arguments.as_slice(), [one] if one == errand::ARGUMENT) {
        return match errand::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(errand::Failed::NotUnderstood) => ExitCode::from(USAGE),
            Err(errand::Failed::Io(_)) => ExitCode::from(FAILED),
        };
    }
    let is_command = cli::is_command(arguments.first());
    match cli::parse(arguments, &|name| std::env::var(name).ok(), &read_file) {
        Ok(Command::Help(text) | Command::Version(text)) => print(&mut io::stdout(), &text, ExitCode::SUCCESS),
        Ok(Command::Run(config)) => match log::init(&config.log) {
            Ok(_guard) => run(&config),
            Err(error) => refuse(&error),
        },
        Ok(Command::Login(login)) => with_log(&login.config.log, || on_loop(|| command::login(&login))),
        Ok(Command::Logout(logout)) => with_log(&logout.config.log, || on_loop(|| command::logout(&logout))),
        Ok(Command::Status(status)) => with_log(&status.stored.log, || command::status(&status)),
        Ok(Command::Import(import)) => with_log(&import.stored.log, || command::import(&import)),
        Err(error) if is_command => refuse_command(&error),
        Err(error) => refuse(&error),
    }
}

fn run(config: &cli::Config) -> ExitCode {
    process::raise_open_files();
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
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

fn event_loop() -> Result<tokio::runtime::Runtime, UsageError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        UsageError::new(format!("the system refuses an event loop: {error}"), "Raise the limit on open files.")
    })
}

fn on_loop<F: Future<Output = Result<Report, command::Error>>>(
    work: impl FnOnce() -> F,
) -> Result<Report, command::Error> {
    let runtime = event_loop()?;
    let outcome = runtime.block_on(work());
    runtime.shutdown_background();
    outcome
}

/// A command tells its user what matters itself; the log is for `--debug` and `--log-file`.
fn with_log(options: &LogOptions, work: impl FnOnce() -> Result<Report, command::Error>) -> ExitCode {
    let mut stdout = stdio::own_stdout();
    let quiet = LogOptions { silent: options.silent || !options.debug, ..options.clone() };
    let _guard = match log::init(&quiet) {
        Ok(guard) => guard,
        Err(error) => return refuse_command(&error),
    };
    match work() {
        Ok(report) => {
            let code = if report.failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
            print(&mut *stdout, &report.text, code)
        }
        Err(command::Error::Usage(error)) => refuse_command(&error),
        Err(command::Error::Failed { message, hint }) => {
            let _ = writeln!(io::stderr(), "mcp-drawbridge: {message}");
            if let Some(hint) = hint {
                let _ = writeln!(io::stderr(), "{hint}");
            }
            ExitCode::from(FAILED)
        }
    }
}

fn print(stdout: &mut dyn io::Write, text: &str, code: ExitCode) -> ExitCode {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that is gone wants no text.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "mcp-drawbridge: stdout cannot be written: {error}");
            ExitCode::from(FAILED)
        }
        _ => code,
    }
}

/// Nobody but a person or a script waits for it.
fn refuse_command(error: &UsageError) -> ExitCode {
    let _ = writeln!(io::stderr(), "mcp-drawbridge: {error}");
    ExitCode::from(USAGE)
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
