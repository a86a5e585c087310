//! The log: quiet, one line per event, never in the way of the bridge.
//!
//! Levels, for who writes an event:
//! * `error`: this session cannot do its work; a person must act.
//! * `warn`: something was lost, refused or ignored, and the session goes on.
//! * `info`: the few turns in a session's life (connected, session renewed, fallback). The default ends here.
//! * `debug`: each step. Only types of [`crate::secret`], names and numbers may be fields, so that `--debug` is safe to
//!   paste; headers, queries, bodies and parameters of calls never are.
//!
//! Events of other crates are left out: some of them log headers. Spans are not shown; what correlates is a field.

mod line;
mod sink;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::cli::{self, LogFormat, LogOptions, UsageError};
use crate::secret::{PERSON, SafeText};
use line::{Line, Style};
use sink::Sink;

/// How long the end of the program waits for lines that are not written yet.
pub const FLUSH_WAIT: Duration = Duration::from_millis(200);

/// Only our own events are logged.
const TARGET: &str = "mcp_drawbridge";

/// Keeps the log. Dropping it waits up to [`FLUSH_WAIT`] for the last lines, so it must outlive what is logged, and
/// nobody may call `std::process::exit` before.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    sinks: Vec<Sink>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_WAIT;
        for sink in &self.sinks {
            sink.flush(deadline);
        }
    }
}

/// Starts the log of this process. No thread runs and no line is written before the first event.
///
/// A second call leaves the first log in place.
pub fn init(options: &LogOptions) -> Result<LogGuard, UsageError> {
    let mut sinks = Vec::new();
    if !options.silent {
        // Clients that keep stderr add the time themselves.
        let style = Style { format: options.format, time: options.format == LogFormat::Json };
        sinks.push(Sink::new(style, Box::new(io::stderr())));
    }
    let screen = sinks.clone();
    if let Some(path) = &options.file {
        let style = Style { format: options.format, time: true };
        sinks.push(Sink::new(style, Box::new(open(path)?)));
    }
    if !sinks.is_empty() {
        // An error says that a log is there already: see above.
        let _ = tracing::subscriber::set_global_default(subscriber(options.debug, sinks.clone(), screen));
    }
    Ok(LogGuard { sinks })
}

fn subscriber(debug: bool, sinks: Vec<Sink>, screen: Vec<Sink>) -> impl Subscriber + Send + Sync {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = Targets::new().with_target(TARGET, level);
    tracing_subscriber::registry().with(filter).with(Lines { sinks, screen })
}

fn open(path: &Path) -> Result<File, UsageError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| {
        let shown = path.to_string_lossy();
        UsageError::new(
            format!("--log-file {} cannot be opened: {}", SafeText(&shown), cli::cause(&error)),
            "Give the full path of a file in a directory that exists and that you may write to.",
        )
    })
}

/// Hands each event to the sinks as a line.
struct Lines {
    sinks: Vec<Sink>,
    /// Those that a person reads now.
    screen: Vec<Sink>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = Line::read(event);
        let sinks = if event.metadata().target() == PERSON { &self.screen } else { &self.sinks };
        for sink in sinks {
            sink.send(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A writer whose text can be read while the sink has it.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(debug: bool, format: LogFormat, events: impl FnOnce()) -> String {
        let memory = Memory::default();
        let sink = Sink::new(Style { format, time: false }, Box::new(memory.clone()));
        tracing::subscriber::with_default(subscriber(debug, vec![sink.clone()], vec![sink.clone()]), events);
        drop(LogGuard { sinks: vec![sink] });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn events() {
        tracing::error!("four");
        tracing::warn!("three");
        tracing::info!("two");
        tracing::debug!("one");
        tracing::trace!("zero");
        tracing::error!(target: "reqwest::connect", "Authorization: s3cr3t");
        tracing::error!(target: "h2", "Authorization: s3cr3t");
    }

    fn messages(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect()
    }

    #[test]
    fn levels_and_other_crates_are_left_out() {
        assert_eq!(messages(&logged(false, LogFormat::Text, events)), ["four", "three", "two"]);
        assert_eq!(messages(&logged(true, LogFormat::Text, events)), ["four", "three", "two", "one"]);
    }

    #[test]
    fn what_is_for_the_person_is_on_the_screen_alone() {
        let (screen, file) = (Memory::default(), Memory::default());
        let style = Style { format: LogFormat::Text, time: false };
        let sink = |memory: &Memory| Sink::new(style, Box::new(memory.clone()));
        let (on_screen, in_file) = (sink(&screen), sink(&file));
        let all = vec![on_screen.clone(), in_file];
        tracing::subscriber::with_default(subscriber(false, all.clone(), vec![on_screen]), || {
            tracing::info!(target: PERSON, "address");
            tracing::info!("two");
        });
        drop(LogGuard { sinks: all });
        let text = |memory: &Memory| String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!((messages(&text(&screen)), messages(&text(&file))), (vec!["address", "two"], vec!["two"]));
    }

    #[test]
    fn a_line_has_one_form() {
        let pid = std::process::id();
        let text = logged(true, LogFormat::Text, || {
            tracing::warn!(status = 404, name = "a b", url = %"https://h/", ok = true, "session\x1b[2J gone\n!");
            tracing::debug!(only = "fields");
        });
        assert_eq!(
            text,
            format!(
                "mcp-drawbridge[{pid}] WARN session\\u{{1b}}[2J gone\\u{{a}}! status=404 name=\"a b\" url=https://h/ ok=true\n\
                 mcp-drawbridge[{pid}] DEBUG only=fields\n"
            )
        );
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged(false, LogFormat::Json, || {
            tracing::info!(count = 3_u64, ratio = f64::NAN, name = "q\"\\\x1b\u{e0001}", "done\r\n");
        });
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains(['\x1b', '\u{e0001}', '\r']));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "level": "info", "pid": std::process::id(), "message": "done\r\n",
                "count": 3, "ratio": "NaN", "name": "q\"\\\x1b\u{e0001}",
            })
        );
    }

    #[test]
    fn silence_without_a_file_has_no_sink() {
        let guard = init(&LogOptions { silent: true, ..LogOptions::default() }).unwrap();
        assert!(guard.sinks.is_empty());
    }

    #[test]
    fn a_file_is_private_and_appended_to() {
        let directory = std::env::temp_dir().join(format!("mcp-drawbridge-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        for _ in 0..2 {
            io::Write::write_all(&mut open(&path).unwrap(), b"line\n").unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"line\nline\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let missing = directory.join("none").join("log");
        let error = init(&LogOptions { silent: true, file: Some(missing), ..LogOptions::default() }).unwrap_err();
        assert!(error.message.ends_with("cannot be opened: there is no such file"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
