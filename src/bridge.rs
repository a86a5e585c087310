//! The one loop: inputs in, actions out.
//!
//! It owns stdin, stdout, the clock and the exchanges, and decides nothing about the protocol: that is
//! [`Eras`]' and its session's. It never waits for one side while the other could go on, and it slows a source down rather than grow
//! (R8): no more is taken from the server while the client does not read, and no more from the client while the server does not answer.

mod repeats;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::eras::Eras;
use crate::framing::Frame;
use crate::message::Id;
use crate::process::{Ends, Parent};
use crate::secret::PERSON;
use crate::session::{Action, ExchangeId, Input, Level, Memory, SignIn};
use crate::state::StateFile;
use crate::stdio::{Lines, Output};
use crate::transport::{Delivery, Transport};

use self::repeats::Repeats;

/// Inputs that may wait in the channel from the exchanges.
pub const CHANNEL: usize = 64;
/// Bytes that may wait for stdout before no more is taken from the server.
const HIGH_WATER: usize = 1 << 20;
/// Bytes that may wait for stdout, beside one message, before no more is taken from stdin either: the bridge's own answers to bad
/// lines would pile up. Higher than the mark for the server, so that a client that writes much before it reads is not locked out.
const STDIN_HIGH_WATER: usize = 8 << 20;
/// Inputs that are taken in before stdout gets its turn.
const ROUND: usize = 256;
/// A clock that runs this much ahead of the time that passed means that the machine slept.
const SLEPT: Duration = Duration::from_secs(20);
/// How long the last lines may take to be written, at least, when the client is slow to read.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A client whose process is gone and who says nothing for this long has left, even if something holds stdin open.
const PARENT_GRACE: Duration = Duration::from_secs(3);

/// Where inputs come from, beside the client.
#[derive(Debug)]
pub struct Sources {
    /// The exchanges.
    pub events: mpsc::Receiver<Delivery>,
    /// The sign-in.
    pub news: mpsc::UnboundedReceiver<SignIn>,
}

/// What the user may set of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one message of the client.
    pub max_message: usize,
    /// How long the last lines may take to be written after stdin ended.
    pub patience: Duration,
}

/// Runs until the client leaves. `state` is where to remember what the session asks to be remembered.
pub async fn run(
    mut session: Eras,
    transport: Transport,
    sources: Sources,
    mut lines: Lines,
    output: Output,
    state: Option<StateFile>,
    limits: Limits,
) -> io::Result<()> {
    let Limits { max_message, patience } = limits;
    let Sources { mut events, mut news } = sources;
    // Made once: what is waited for on every turn should cost nothing on most of them.
    let mut ends = Ends::new()?;
    let told = ends.told();
    let parent = Parent::watch();
    let parent_gone = parent.gone();
    let closed = output.closed();
    tokio::pin!(told, parent_gone, closed);
    let mut parent_watched = true;
    let mut hands = Hands {
        transport,
        output,
        running: HashMap::new(),
        state,
        saving: None,
        repeats: Repeats::default(),
        started: Instant::now(),
        exit: false,
    };
    let mut clock = Clock::start();
    let mut actions = Vec::new();
    let mut stdin_open = true;
    // An address is said again where another process's sign-in becomes ours: once is enough.
    let mut said: Option<SignIn> = None;
    let mut terminated = false;
    let mut parent_gone_at: Option<Instant> = None;
    let stdin_most = STDIN_HIGH_WATER.saturating_add(max_message);

    while !hands.exit {
        let deadline =
            [session.next_deadline().map(|due| clock.start + due), parent_gone_at.map(|at| at + PARENT_GRACE)]
                .into_iter()
                .flatten()
                .min();
        // Not `biased`: a flood from one side must not keep the other from being heard.
        tokio::select! {
            () = &mut told, if !terminated => {
                terminated = true;
                session.handle(clock.now(), Input::Terminate, &mut actions);
            }
            () = &mut closed, if !hands.output.is_deaf() => hands.output.go_deaf(),
            room = hands.output.writable(), if hands.output.waiting() > 0 => {
                if room.is_err() {
                    hands.output.go_deaf();
                }
            }
            delivery = events.recv(), if hands.output.waiting() < HIGH_WATER => {
                let mut next = delivery;
                let mut taken = 0;
                while let Some(Delivery { input, held }) = next {
                    let now = clock.now();
                    hands.forget(&input);
                    session.handle(now, input, &mut actions);
                    hands.carry_out(&mut actions);
                    drop(held);
                    taken += 1;
                    let more = taken < ROUND && hands.output.waiting() < HIGH_WATER;
                    next = if more { events.try_recv().ok() } else { None };
                }
            }
            frames = lines.next(), if stdin_open && session.accepts_lines() && hands.output.waiting() < stdin_most => {
                if clock.jumped() {
                    session.handle(clock.now(), Input::Woke, &mut actions);
                }
                if parent_gone_at.is_some() {
                    parent_gone_at = Some(Instant::now());
                }
                match frames {
                    Some(frames) => {
                        let now = clock.now();
                        for frame in frames {
                            session.handle(now, line(frame, max_message), &mut actions);
                        }
                    }
                    None => {
                        stdin_open = false;
                        session.handle(clock.now(), Input::ClientGone, &mut actions);
                    }
                }
            }
            Some(news) = news.recv() => {
                if let SignIn::Wanted { url, advice } = &news
                    && said.as_ref() != Some(&news)
                {
                    tell(url, advice);
                    said = Some(news.clone());
                }
                session.handle(clock.now(), Input::SignIn(news), &mut actions);
            }
            () = &mut parent_gone, if parent_watched => {
                parent_watched = false;
                parent_gone_at = Some(Instant::now());
            }
            () = until(deadline), if deadline.is_some() => {
                if stdin_open && parent_gone_at.is_some_and(|at| at.elapsed() >= PARENT_GRACE) {
                    parent_gone_at = None;
                    stdin_open = false;
                    session.handle(clock.now(), Input::ClientGone, &mut actions);
                } else {
                    session.handle(clock.now(), Input::Tick, &mut actions);
                }
            }
        }
        hands.carry_out(&mut actions);
        if let Err(error) = hands.output.write_now() {
            tracing::debug!("stdout: {error}");
            hands.output.go_deaf();
        }
        if hands.output.is_deaf() && !terminated {
            // Nobody reads any more: the session is ended in good order, and that is all.
            terminated = true;
            session.handle(clock.now(), Input::Terminate, &mut actions);
            hands.carry_out(&mut actions);
        }
    }
    if terminated {
        return hands.last_words(LAST_WORDS).await;
    }
    // stdin ended and all is answered: a reader that takes its time gets it all, unless somebody has less patience.
    tokio::select! {
        written = hands.last_words(patience.max(LAST_WORDS)) => written,
        () = &mut told => Ok(()),
    }
}

fn line(frame: Frame, limit: usize) -> Input {
    match frame {
        Frame::Line(line) => Input::Line(line),
        Frame::TooLong { id, is_request, len } => {
            Input::TooLong { id: id.and_then(|id| Id::from_json(&id)), is_request, length: len, limit }
        }
    }
}

/// The address is always said, also where a browser was opened: it may be the wrong one, or out of sight.
fn tell(url: &str, advice: &str) {
    if advice.is_empty() {
        tracing::info!(target: PERSON, "Sign in with the browser. If no page has opened, open this address: {url}");
    } else {
        tracing::info!(target: PERSON, "Sign in with a browser at this address: {url}");
        tracing::info!(target: PERSON, "{advice}");
    }
}

async fn until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// What carries actions out.
struct Hands {
    transport: Transport,
    output: Output,
    running: HashMap<ExchangeId, AbortHandle>,
    state: Option<StateFile>,
    /// The last write to the state directory.
    saving: Option<JoinHandle<()>>,
    repeats: Repeats,
    started: Instant,
    exit: bool,
}

impl Hands {
    fn carry_out(&mut self, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Write(line) | Action::WriteAbout(_, line) => self.output.push(line),
                Action::Start(exchange, outgoing) => {
                    tracing::debug!("exchange {exchange}: {outgoing}");
                    let handle = self.transport.start(exchange, outgoing);
                    self.running.insert(exchange, handle);
                }
                Action::Abort(exchange) => {
                    if let Some(handle) = self.running.remove(&exchange) {
                        handle.abort();
                    }
                }
                Action::Remember(memory) => {
                    if let Some(state) = self.state.clone() {
                        self.saving = Some(tokio::spawn(save(state, memory, self.saving.take())));
                    }
                }
                Action::SignIn(wish) => self.transport.wish(wish),
                Action::Log(level, text) => self.log(level, text),
                Action::Exit => self.exit = true,
            }
        }
    }

    /// A peer that makes the same mistake a million times gets a few lines for it.
    fn log(&mut self, level: Level, mut text: String) {
        let Some(unwritten) = self.repeats.admit(self.started.elapsed(), &text) else { return };
        if unwritten > 0 {
            let _ = write!(text, " (and {unwritten} times more since the last of these lines)");
        }
        match level {
            Level::Debug => tracing::debug!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Warn => tracing::warn!("{text}"),
        }
    }

    /// An exchange that ended needs no handle.
    fn forget(&mut self, input: &Input) {
        match input {
            Input::Answer { exchange, head, body } => {
                tracing::debug!("exchange {exchange}: HTTP {}, {} bytes", head.status, body.len());
            }
            Input::Opened { exchange, head } => {
                tracing::debug!("exchange {exchange}: HTTP {}, event stream", head.status);
            }
            Input::Ended { exchange, failure: None } => tracing::debug!("exchange {exchange}: the stream ended"),
            Input::Ended { exchange, failure: Some(failure) } | Input::Failed { exchange, failure } => {
                tracing::debug!("exchange {exchange}: {}", failure.logged());
            }
            _ => {}
        }
        if let Input::Answer { exchange, .. } | Input::Ended { exchange, .. } | Input::Failed { exchange, .. } = input {
            self.running.remove(exchange);
        }
    }

    /// Writes what is left: to a client that still reads, and to the state directory, for a run that was short.
    async fn last_words(mut self, limit: Duration) -> io::Result<()> {
        let write = async {
            while !self.output.write_now()? {
                self.output.writable().await?;
            }
            self.output.finish().await;
            if let Some(saving) = self.saving.take() {
                // It panics if the disk does; nothing is lost but the memory of this run.
                let _ = saving.await;
            }
            Ok(())
        };
        tokio::time::timeout(limit, write).await.unwrap_or(Ok(()))
    }
}

/// Keeps what is to be remembered, after what came before it. A slow disk must not hold up messages.
async fn save(state: StateFile, memory: Memory, before: Option<JoinHandle<()>>) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let saved = tokio::task::spawn_blocking(move || state.save(&memory)).await;
    if let Ok(Err(error)) = saved {
        tracing::debug!("the state directory cannot be written: {error}");
    }
}

/// Time since the start, and whether the wall clock jumped against it.
struct Clock {
    start: Instant,
    wall: SystemTime,
    checked: Instant,
}

impl Clock {
    fn start() -> Self {
        let start = Instant::now();
        Self { start, wall: SystemTime::now(), checked: start }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The monotonic clock stands still while the machine sleeps; the wall clock does not.
    fn jumped(&mut self) -> bool {
        let passed = self.checked.elapsed();
        if passed < Duration::from_secs(1) {
            return false;
        }
        let wall = SystemTime::now();
        let ahead = wall.duration_since(self.wall).unwrap_or_default();
        self.wall = wall;
        self.checked = Instant::now();
        ahead > passed + SLEPT
    }
}
