//! `scripts/bench`: measures the bridge beside a direct HTTP client and beside mcp-remote.
//!
//! One program plays three parts, so that nothing but this repository is needed: the driver (a stdio MCP client and
//! a direct HTTP client), the mock server (`bench mock`) and the floor (`bench pipe`, which copies stdin to stdout).
//! What each measure means is written in `docs/performance.md`.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod app;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    app::main()
}

/// The figures come from `/proc`, so the program runs on Linux only.
#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "bench: runs on Linux only, it reads /proc");
    std::process::ExitCode::from(2)
}
