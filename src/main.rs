//! Parses the command line and prints what it cannot run.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use mcp_drawbridge::cli::{self, Command};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let command = cli::parse(arguments, &|name| std::env::var(name).ok(), &read_file);
    let (text, code) = match command {
        Ok(Command::Run(_)) => (Ok(String::new()), ExitCode::SUCCESS),
        Ok(Command::Help(text) | Command::Version(text)) => (Ok(text), ExitCode::SUCCESS),
        Err(error) => (Err(format!("mcp-drawbridge: {error}\n")), ExitCode::from(2)),
    };
    // A reader that is gone wants no text.
    let _ = match text {
        Ok(text) => io::stdout().write_all(text.as_bytes()),
        Err(text) => io::stderr().write_all(text.as_bytes()),
    };
    code
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(cli::MAX_READ as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
