//! The log of a whole process. Each test starts this test program again as a child that logs.

// Helpers of a test may panic like the test itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_drawbridge::cli::{LogFormat, LogOptions};
use mcp_drawbridge::log;

/// Names what the child does; unset in the parent.
const ROLE: &str = "LOG_TEST_ROLE";
const FILE: &str = "LOG_TEST_FILE";

/// Long enough for a busy machine; a log that blocks would take for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of the flood: some megabytes, far beyond pipe and queue.
const FLOOD: usize = 50_000;

/// The child's side. Without its variable it has nothing to do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let options = LogOptions {
        silent: role == "file",
        debug: role == "debug",
        format: if role == "json" { LogFormat::Json } else { LogFormat::Text },
        file: std::env::var_os(FILE).map(PathBuf::from),
    };
    let before = threads();
    let guard = log::init(&options).unwrap();
    match role.as_str() {
        "flood" => {
            for number in 0..FLOOD {
                tracing::warn!(target: "mcp_drawbridge::test", number, "a line of a flood that nobody reads");
            }
        }
        "quiet" => {
            tracing::debug!(target: "mcp_drawbridge::test", "not at this level");
            tracing::error!(target: "h2::codec", "not ours");
            assert_eq!(threads(), before);
            tracing::info!(target: "mcp_drawbridge::test", "one line");
            assert_eq!(threads(), before.map(|count| count + 1));
        }
        _ => tracing::info!(target: "mcp_drawbridge::test", role, "one line"),
    }
    let start = Instant::now();
    drop(guard);
    // The wait at the end has a limit. Ten times that is for a busy machine.
    assert!(start.elapsed() < 10 * log::FLUSH_WAIT, "{:?}", start.elapsed());
}

/// Threads of this process, where the system tells.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

fn start(role: &str, file: Option<&PathBuf>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command.envs(file.map(|file| (FILE, file)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn assert_ends_well(child: &mut Child) {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stderr(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_client_that_reads_no_stderr_stops_nothing() {
    let mut child = start("flood", None);
    assert_ends_well(&mut child);
    let text = stderr(&mut child);
    let first = text.lines().next().unwrap();
    let pid = child.id();
    let expected = format!("mcp-drawbridge[{pid}] WARN a line of a flood that nobody reads number=0");
    assert_eq!(first, expected);
    assert!(text.lines().count() < FLOOD);
}

#[test]
fn a_client_that_closed_stderr_stops_nothing() {
    let mut child = start("flood", None);
    drop(child.stderr.take());
    assert_ends_well(&mut child);
}

#[test]
fn the_thread_waits_for_the_first_line() {
    let mut child = start("quiet", None);
    assert_ends_well(&mut child);
    let pid = child.id();
    assert_eq!(stderr(&mut child), format!("mcp-drawbridge[{pid}] INFO one line\n"));
}

#[test]
fn the_last_line_is_written_before_the_end() {
    let mut child = start("json", None);
    assert_ends_well(&mut child);
    let text = stderr(&mut child);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["message"], "one line");
    assert_eq!(value["role"], "json");
    assert_eq!(value["pid"], child.id());
    assert_eq!(value["time"].as_str().unwrap().len(), "2026-11-23T04:59:29.123Z".len());
}

#[test]
fn a_file_gets_the_lines_and_silence_is_kept() {
    let name = format!("mcp-drawbridge-log-file-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    for _ in 0..2 {
        let mut child = start("file", Some(&file));
        assert_ends_well(&mut child);
        assert_eq!(stderr(&mut child), "");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.lines().all(|line| line.ends_with(" INFO one line role=file")), "{text}");
}
