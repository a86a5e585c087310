//! A token from a program of the user's (`--bearer-command`): a vault, a cloud's command line.
//!
//! The program is found by an absolute path and run by its arguments; no shell is between ([`words`]). It runs as the user would
//! run it, with the whole environment, but with nothing on stdin. What it prints is a token and perhaps its end ([`output`]); what it prints
//! on stderr is thrown away, for it may hold secrets. A token is kept until shortly before its end, or until the server
//! refuses it, and one run serves all requests that wait.

pub mod output;
pub mod words;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use zeroize::Zeroizing;

use crate::auth::browser;
use crate::secret::{SafeText, Secret};
use output::{Bearer, NoToken};

/// How long the program may take. A vault may ask the user for a finger.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Bytes that it may print.
const MAX_OUTPUT: usize = 64 * 1024;
/// Bytes that are read at a time.
const CHUNK: usize = 8 * 1024;
/// How long what it printed is waited for after its end: a child of its own may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often it is looked whether it has ended, at first and at last.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// A token is not used for the last tenth of its life, or this long.
const MARGIN: Duration = Duration::from_secs(60);
/// Which part of its life that is.
const MARGIN_PART: u32 = 10;
/// A token serves at least this long, even one that has ended by our clock: clocks differ, and each request would start the program.
const LEAST_USE: Duration = Duration::from_secs(5);
/// How soon after a run that followed a refusal another one may follow. Within it, a refusal is the server's answer.
const RERUN_PAUSE: Duration = Duration::from_secs(10);

/// Why there is no token. `Display` is a clause about the program; nothing of what it printed or was told is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such program. A name is looked for in `PATH`, but not in the current directory; a path must be absolute.
    NotFound {
        /// As the user typed it.
        program: String,
    },
    /// A batch file: `cmd.exe` would read its arguments as commands (CVE-2024-24576).
    BatchFile {
        /// Where it is.
        program: PathBuf,
    },
    /// The system does not start it.
    NotStarted {
        /// Where it is.
        program: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It took longer than allowed, and was ended.
    TimedOut {
        /// Where it is.
        program: PathBuf,
        /// How long it was allowed.
        limit: Duration,
    },
    /// It printed more than 64 KiB, and was ended.
    TooMuch {
        /// Where it is.
        program: PathBuf,
    },
    /// It says that it failed.
    Failed {
        /// Where it is.
        program: PathBuf,
        /// `exit status: 1`.
        status: String,
    },
    /// It printed no token.
    NoToken {
        /// Where it is.
        program: PathBuf,
        /// What is wrong.
        why: NoToken,
    },
    /// The bridge is ending.
    Interrupted,
}

impl CommandError {
    /// What to do, one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => {
                "Give the program's full path; ~ and variables are not replaced, and clients have another PATH than a terminal."
            }
            Self::BatchFile { .. } => "Give the program that the batch file starts, with its arguments.",
            Self::NotStarted { .. } => "Check that the file is a program and that you may run it.",
            Self::TimedOut { .. } | Self::Failed { .. } => {
                "Run the command by hand in a terminal to see what it says; it gets no input, and must not ask."
            }
            Self::TooMuch { .. } | Self::NoToken { .. } => {
                "It must print the token alone, or JSON with a token member: {\"token\": \"...\", \"expires_in\": 3600}."
            }
            Self::Interrupted => "",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |program: &Path| SafeText(&program.to_string_lossy()).to_string();
        match self {
            Self::NotFound { program } => write!(out, "there is no program {}", SafeText(program)),
            Self::BatchFile { program } => write!(out, "{} is a batch file, which is not run", at(program)),
            Self::NotStarted { program, why } => write!(out, "{} does not start: {}", at(program), SafeText(why)),
            Self::TimedOut { program, limit } => {
                write!(out, "{} took longer than {} seconds and was ended", at(program), limit.as_secs())
            }
            Self::TooMuch { program } => {
                write!(out, "{} printed more than {MAX_OUTPUT} bytes and was ended", at(program))
            }
            Self::Failed { program, status } => write!(out, "{} failed ({status})", at(program)),
            Self::NoToken { program, why } => write!(out, "{} {why}", at(program)),
            Self::Interrupted => out.write_str("the bridge is ending"),
        }
    }
}

impl std::error::Error for CommandError {}

/// The program, and the token that it gave last. Cheap to clone; clones are one. When the last is dropped, the program is ended.
#[derive(Clone)]
pub struct BearerCommand {
    inner: Arc<Inner>,
}

impl fmt::Debug for BearerCommand {
    /// Its arguments may be secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BearerCommand").finish_non_exhaustive()
    }
}

struct Inner {
    words: Vec<String>,
    limit: Duration,
    work: Arc<Work>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.work.end();
    }
}

/// Outlives the [`BearerCommand`] for as long as a run takes.
#[derive(Default)]
struct Work {
    state: Mutex<State>,
    /// Held for a run.
    turn: Arc<tokio::sync::Mutex<()>>,
    child: Mutex<Running>,
}

#[derive(Default)]
struct State {
    cached: Option<Cached>,
    /// The last run came to this, and how many there were: who waited for one does not begin another.
    error: Option<CommandError>,
    runs: u64,
    /// A token was refused since the last run.
    was_refused: bool,
}

struct Cached {
    token: Secret,
    got_at: Instant,
    /// By the clock on the wall: the machine may sleep. In seconds since 1970.
    fresh_until: Option<u64>,
    after_refusal: bool,
}

impl Cached {
    fn new(bearer: Bearer, now: u64, after_refusal: bool) -> Self {
        let fresh_until = bearer.expires_at.map(|end| {
            let left = end.saturating_sub(now);
            end.saturating_sub((left / u64::from(MARGIN_PART)).min(MARGIN.as_secs()))
        });
        Self { token: bearer.token, got_at: Instant::now(), fresh_until, after_refusal }
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.fresh_until.is_none_or(|end| now < end) || self.got_at.elapsed() < LEAST_USE
    }
}

/// The program that runs now.
#[derive(Default)]
enum Running {
    #[default]
    Nothing,
    Child(Child),
    /// The bridge is ending: nothing may start any more.
    Over,
}

impl BearerCommand {
    /// From the words of [`words::split`]. Looks whether the program is there, so that a wrong name is told at the start.
    pub fn new(words: Vec<String>) -> Result<Self, CommandError> {
        Self::with_limit(words, TIME_LIMIT)
    }

    fn with_limit(words: Vec<String>, limit: Duration) -> Result<Self, CommandError> {
        find(&words)?;
        Ok(Self { inner: Arc::new(Inner { words, limit, work: Arc::default() }) })
    }

    /// The token, from the last run or from a new one. One run serves all who wait for it, with its token or with its error.
    ///
    /// Cancel safe: a run that nobody waits for goes on, and serves the next.
    pub async fn token(&self) -> Result<Secret, CommandError> {
        let seen = match self.inner.work.kept() {
            Ok(token) => return Ok(token),
            Err((runs, _)) => runs,
        };
        let turn = self.inner.work.turn.clone().lock_owned().await;
        match self.inner.work.kept() {
            Ok(token) => return Ok(token),
            Err((runs, Some(error))) if runs != seen => return Err(error),
            Err(_) => {}
        }
        let (words, limit, work) = (self.inner.words.clone(), self.inner.limit, self.inner.work.clone());
        let run = move || {
            let _turn = turn;
            let result = find(&words).and_then(|program| work.run(&program, &words, limit));
            work.keep(result)
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| CommandError::Interrupted)?
    }

    /// The server refused this token (401). Whether [`token`](Self::token) may now give another one, so that the request is worth
    /// another try; if not, the refusal is the server's answer.
    pub fn refused(&self, token: &Secret) -> bool {
        let mut state = self.inner.work.state();
        match &state.cached {
            Some(cached) if cached.token.expose() == token.expose() => {
                if cached.after_refusal && cached.got_at.elapsed() < RERUN_PAUSE {
                    return false;
                }
                state.cached = None;
                state.was_refused = true;
                true
            }
            _ => true,
        }
    }
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token if it is still good, else how many runs there were and what the last one's error was.
    fn kept(&self) -> Result<Secret, (u64, Option<CommandError>)> {
        let state = self.state();
        match &state.cached {
            Some(cached) if cached.is_fresh(now()) => Ok(cached.token.clone()),
            _ => Err((state.runs, state.error.clone())),
        }
    }

    fn keep(&self, result: Result<Bearer, CommandError>) -> Result<Secret, CommandError> {
        let mut state = self.state();
        state.runs += 1;
        match result {
            Ok(bearer) => {
                let cached = Cached::new(bearer, now(), state.was_refused);
                let token = cached.token.clone();
                state.was_refused = false;
                state.error = None;
                state.cached = Some(cached);
                Ok(token)
            }
            Err(error) => {
                tracing::warn!("--bearer-command: {error}");
                state.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Runs the program to its end. Blocks.
    fn run(&self, program: &Path, words: &[String], limit: Duration) -> Result<Bearer, CommandError> {
        let deadline = Instant::now() + limit;
        let not_started =
            |error: io::Error| CommandError::NotStarted { program: program.into(), why: error.to_string() };
        let printed = {
            let mut running = self.running();
            if matches!(*running, Running::Over) {
                return Err(CommandError::Interrupted);
            }
            let mut child = start(program, words.get(1..).unwrap_or_default()).map_err(not_started)?;
            let printed = child.stdout.take();
            *running = Running::Child(child);
            printed
        };
        tracing::debug!("--bearer-command: {} runs", SafeText(&program.to_string_lossy()));
        let output = match read(printed) {
            Ok(output) => output,
            Err(error) => {
                self.stop();
                return Err(not_started(error));
            }
        };
        let status = self.wait(program, &output, deadline, limit)?;
        if !status.success() {
            return Err(CommandError::Failed { program: program.into(), status: status.to_string() });
        }
        let bytes = output.bytes();
        output::parse(&bytes, now()).map_err(|why| CommandError::NoToken { program: program.into(), why })
    }

    /// Until the program has ended and what it printed is there.
    fn wait(
        &self,
        program: &Path,
        output: &Output,
        deadline: Instant,
        limit: Duration,
    ) -> Result<ExitStatus, CommandError> {
        let mut look = LOOK.0;
        loop {
            if output.wait(look) {
                thread::sleep(look);
            }
            if output.bytes().len() > MAX_OUTPUT {
                self.stop();
                return Err(CommandError::TooMuch { program: program.into() });
            }
            if let Some(status) = self.status()? {
                output.wait(LAST_WORDS);
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.stop();
                return Err(CommandError::TimedOut { program: program.into(), limit });
            }
            look = (look * 2).min(LOOK.1);
        }
    }

    /// Whether it has ended.
    fn status(&self) -> Result<Option<ExitStatus>, CommandError> {
        let mut running = self.running();
        let Running::Child(child) = &mut *running else { return Err(CommandError::Interrupted) };
        let status = child.try_wait().map_err(|_| CommandError::Interrupted)?;
        if status.is_some() {
            *running = Running::Nothing;
        }
        Ok(status)
    }

    /// Ends it, with what it started.
    fn stop(&self) {
        if let Running::Child(child) = std::mem::take(&mut *self.running()) {
            kill(child);
        }
    }

    /// Ends it, and lets no other begin.
    fn end(&self) {
        if let Running::Child(child) = std::mem::replace(&mut *self.running(), Running::Over) {
            kill(child);
        }
    }
}

/// What the program has printed so far. A thread reads it; it ends with the pipe.
#[derive(Default)]
struct Output {
    bytes: Mutex<(Zeroizing<Vec<u8>>, bool)>,
    ended: Condvar,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, (Zeroizing<Vec<u8>>, bool)> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        self.lock().0.clone()
    }

    /// Until all is there, or this time is over. Whether all is there.
    fn wait(&self, most: Duration) -> bool {
        let waited = self.ended.wait_timeout_while(self.lock(), most, |(_, ended)| !*ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.1
    }

    /// Reads until the end, or one byte more than allowed.
    fn fill(&self, stdout: Option<ChildStdout>) {
        // Never grown, so no copy of a token is left behind.
        self.lock().0.reserve_exact(MAX_OUTPUT + CHUNK);
        let mut chunk = Zeroizing::new([0; CHUNK]);
        if let Some(mut stdout) = stdout {
            loop {
                let read = match stdout.read(chunk.as_mut_slice()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => break,
                    Ok(read) => read,
                };
                let mut guard = self.lock();
                guard.0.extend_from_slice(chunk.get(..read).unwrap_or_default());
                if guard.0.len() > MAX_OUTPUT {
                    break;
                }
            }
        }
        self.lock().1 = true;
        self.ended.notify_all();
    }
}

fn read(stdout: Option<ChildStdout>) -> io::Result<Arc<Output>> {
    let output = Arc::new(Output::default());
    let filled = output.clone();
    thread::Builder::new()
        .name("bearer-command".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || filled.fill(stdout))?;
    Ok(output)
}

/// The program of the first word.
fn find(words: &[String]) -> Result<PathBuf, CommandError> {
    let name = words.first().map(String::as_str).unwrap_or_default();
    let program = browser::find(name).ok_or_else(|| CommandError::NotFound { program: name.to_owned() })?;
    if !browser::may_run(&program, browser::Os::here()) {
        return Err(CommandError::BatchFile { program });
    }
    Ok(program)
}

#[expect(clippy::disallowed_methods, reason = "the user's own program, by the user's own arguments")]
fn start(program: &Path, arguments: &[String]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(unix)]
    {
        // A group of its own: what it starts ends with it.
        use std::os::unix::process::CommandExt as _;
        command.process_group(0);
    }
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt as _;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        command.creation_flags(CREATE_NO_WINDOW);
    }
    command.spawn()
}

fn kill(mut child: Child) {
    #[cfg(unix)]
    {
        // It was not waited for yet, so the number is still its own.
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
