//! The state machine between a client on stdio and a server over HTTP.
//!
//! Pure: [`Session::handle`] takes the time and one [`Input`] and appends [`Action`]s. It opens no socket, reads no clock
//! and draws no random number, so any order of client lines, server messages, cut streams, HTTP statuses, timers and
//! cancellations can be tried in microseconds.
//!
//! **What it promises** (product rules R1, R3): every request id of the client gets exactly one response, unless the client
//! cancelled it; a response goes only to an id that asked. `tests/session_property.rs` and the fuzz target `session` try to break that.
//!
//! How a request lives (see [`pending::State`]):
//! ```text
//!  line ──► Queued ──► Sent ──────────────────────────────► answered, removed
//!             ▲          │ stream ends without the answer       ▲
//!             │          ├──► Resuming (GET, Last-Event-ID) ────┤
//!             │          ├──► Waiting (back-off) ──► Sent again │  only what is safe to repeat
//!             └──────────┤ session gone: after one re-initialize│
//!                        └──► error ────────────────────────────┘
//! ```
//! The rooms: the client's lines in `client.rs`, what wants no answer in `forward.rs`, server messages in `server.rs`; how
//! exchanges end and what is repeated in `recovery.rs` and `resume.rs`, with the error texts in `trouble.rs`; the legacy session in
//! `link.rs`, its loss in `gone.rs` and `renewal.rs`, its notification stream in `listen.rs`, the older transport in `http_sse.rs`;
//! start, stop and time in `life.rs`; tool annotations and rules in `tools.rs`, their parameters in headers in `mirrored.rs`; what tells the
//! server's era in `era_news.rs`. What the client sees while a sign-in is pending (S3) is in `sign_in.rs`, with `provisional.rs`,
//! `sign_in_tool.rs` and `elicitation.rs`.

pub(crate) mod batch;
mod client;
mod elicitation;
mod era_news;
mod forward;
mod gone;
mod http_sse;
mod life;
mod link;
mod listen;
mod mirrored;
mod pending;
mod provisional;
mod recovery;
mod renewal;
mod resume;
mod server;
mod sign_in;
mod sign_in_tool;
mod timers;
mod tools;
mod trouble;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use crate::era::ModernHeaders;
use crate::message::{self, Id};
use crate::sse;

pub use self::era_news::{Adopted, EraNews};
pub use self::life::{Memory, Remembered};
pub use self::sign_in::{SignIn, Wish};
pub use self::tools::ToolRules;

use self::batch::Batches;
use self::era_news::Watch;
use self::forward::Forwards;
use self::link::Link;
use self::pending::{Counted, Key, Origin, Pending};
use self::server::{ServerRequests, Source};
use self::sign_in::SigningIn;
use self::timers::Timers;
use self::tools::Tools;

/// Requests of the client that may wait for their answers at one time, and as many other messages of its that may be on
/// their way. Beyond it, stdin is not read (R8).
pub const MAX_PENDING: usize = 16_384;
/// Bytes of both together. Beyond it, stdin is not read (R8).
pub const MAX_PENDING_BYTES: usize = 256 << 20;

/// Names one HTTP exchange that the session asked for.
pub type ExchangeId = u64;

/// What the session needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server as people know it, for error texts: host and path, no query.
    pub server: String,
    /// Which transport to try first, and whether to fall back.
    pub strategy: Strategy,
    /// `initialize` is answered within this time (S2).
    pub initialize_timeout: Duration,
    /// Every other request is answered within this time, if set.
    pub request_timeout: Option<Duration>,
    /// How long requests in flight may still finish after stdin ended (S5).
    pub drain: Duration,
    /// Interval of pings on an idle legacy connection, if wanted (C5).
    pub keep_alive: Option<Duration>,
    /// There is a sign-in that can be asked: the user gave no credential of their own.
    pub can_sign_in: bool,
    /// How old a request that waits for a sign-in may get before it is answered without (S3).
    pub hold: Duration,
    /// Which tools the client may see and call (P1).
    pub tools: ToolRules,
    /// Makes the ids of the bridge's own requests unlike any id of the client: random letters and digits.
    pub nonce: String,
    /// Seed of the jitter of back-off times.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: "the server".into(),
            strategy: Strategy::HttpFirst,
            initialize_timeout: Duration::from_secs(20),
            request_timeout: None,
            drain: Duration::from_secs(2),
            keep_alive: None,
            can_sign_in: true,
            hold: Duration::from_secs(40),
            tools: ToolRules::default(),
            nonce: "0".into(),
            seed: 1,
        }
    }
}

/// `--transport` (C6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Streamable HTTP, then HTTP+SSE if the server answers as the specification says an older one does.
    #[default]
    HttpFirst,
    /// HTTP+SSE, then Streamable HTTP.
    SseFirst,
    /// Streamable HTTP alone.
    HttpOnly,
    /// HTTP+SSE alone.
    SseOnly,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The client wrote a line.
    Line(Bytes),
    /// The client wrote a line over the limit; it was thrown away while its id was looked for.
    TooLong {
        /// The id, if it could be read.
        id: Option<Id>,
        /// It names a method: with an id it is a request, else a notification. Without, an id is of the server's request.
        is_request: bool,
        /// The line's length in bytes.
        length: u64,
        /// The limit it broke, in bytes.
        limit: usize,
    },
    /// stdin ended.
    ClientGone,
    /// The process was told to end (SIGTERM, SIGINT).
    Terminate,
    /// A whole answer without an event stream. Ends the exchange.
    Answer {
        /// Which exchange.
        exchange: ExchangeId,
        /// Status and headers.
        head: Head,
        /// The decoded body.
        body: Bytes,
    },
    /// An event stream began (2xx, `text/event-stream`).
    Opened {
        /// Which exchange.
        exchange: ExchangeId,
        /// Status and headers.
        head: Head,
    },
    /// Events on an open stream, in order.
    Events {
        /// Which exchange.
        exchange: ExchangeId,
        /// One chunk's worth of events.
        events: Vec<sse::Event>,
    },
    /// An event stream ended. Ends the exchange.
    Ended {
        /// Which exchange.
        exchange: ExchangeId,
        /// What broke it; `None` if the server ended it in good order.
        failure: Option<Failure>,
    },
    /// There is no answer, or it could not be read. Ends the exchange.
    Failed {
        /// Which exchange.
        exchange: ExchangeId,
        /// What happened.
        failure: Failure,
    },
    /// An exchange was refused with 401 or 403 and waits for the sign-in, to be sent again then. May be said more than once.
    Held {
        /// Which exchange.
        exchange: ExchangeId,
    },
    /// News of the sign-in.
    SignIn(SignIn),
    /// The clock jumped: the machine slept.
    Woke,
    /// A deadline came.
    Tick,
}

/// The parts of a response head that matter here.
#[derive(Debug, Clone)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// What the body claims to be.
    pub content: Content,
    /// `Mcp-Session-Id`: the value, or `Err` when it holds characters that the specification forbids.
    pub session_id: Option<Result<String, ()>>,
    /// `Retry-After`, as a time from now.
    pub retry_after: Option<Duration>,
}

/// A media type, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    EventStream,
    /// Anything else, for the error text.
    Other(String),
}

/// Why an exchange has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of thing happened.
    pub kind: FailureKind,
    /// The request surely never reached the server.
    pub unsent: bool,
    /// What happened, for people; no secrets.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// The message as a log may have it.
    pub fn logged(&self) -> &str {
        if self.kind == FailureKind::Declined { SIGN_IN_WANTED } else { &self.message }
    }
}

/// What a log has in place of a message that may hold a sign-in's address.
const SIGN_IN_WANTED: &str = "a sign-in is wanted";

/// Kinds of failure, by what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The name does not resolve.
    Dns,
    /// No connection.
    Connect,
    /// The certificate or the handshake was refused.
    Tls,
    /// The proxy refused.
    Proxy,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Cut,
    /// More than the limit.
    TooLarge,
    /// A redirect that is not followed.
    Redirect,
    /// A rule of ours refused.
    Policy,
    /// There is no token, and none will come by asking a person: something must be mended first.
    SignIn,
    /// There is no token: a person was asked and did not sign in, or is asked again only on their own wish. Another try may end
    /// otherwise. The message may hold the address, which is for the person alone.
    Declined,
    /// HTTP or the event stream is broken.
    Malformed,
}

impl FailureKind {
    /// The word in `data.kind` of an error response.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Timeout => "timeout",
            Self::Cut => "connection-lost",
            Self::TooLarge => "too-large",
            Self::Redirect => "redirect",
            Self::Policy => "policy",
            Self::SignIn | Self::Declined => "sign-in",
            Self::Malformed => "malformed",
        }
    }

    /// A token is missing.
    pub fn is_sign_in(self) -> bool {
        matches!(self, Self::SignIn | Self::Declined)
    }

    /// The network is at fault, not the server's set-up: it may be better in a moment.
    pub fn is_network(self) -> bool {
        matches!(self, Self::Dns | Self::Connect | Self::Proxy | Self::Timeout | Self::Cut)
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this line to the client (without its line feed).
    Write(Bytes),
    /// The same, for a request or a notification of the server that came on the answer stream of this request of the client.
    WriteAbout(Id, Bytes),
    /// Begin an HTTP exchange.
    Start(ExchangeId, Outgoing),
    /// Drop an exchange: close its stream; nothing more is heard of it.
    Abort(ExchangeId),
    /// Keep this for the next run.
    Remember(Memory),
    /// Ask something of the sign-in.
    SignIn(Wish),
    /// Tell the person, on stderr.
    Log(Level, String),
    /// All is done: leave.
    Exit,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Only with `--debug`.
    Debug,
    /// Worth a line.
    Info,
    /// Something is wrong and the person may want to act.
    Warn,
}

/// One HTTP request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What kind of request.
    pub verb: Verb,
    /// Where to.
    pub target: Target,
    /// The JSON text of a POST.
    pub body: Bytes,
    /// `Mcp-Session-Id`.
    pub session_id: Option<String>,
    /// `MCP-Protocol-Version` of a legacy message.
    pub version: Option<String>,
    /// Headers of a modern message.
    pub modern: Option<ModernHeaders>,
    /// `Last-Event-ID` of a GET.
    pub last_event_id: Option<Box<str>>,
    /// Whether it may begin a sign-in when it is refused. The notification stream and the goodbye may not: nobody waits for them.
    pub may_sign_in: bool,
}

/// For the log: verb, target and kind of session; no body, no ids.
impl std::fmt::Display for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.verb {
            Verb::Post => "POST",
            Verb::Get => "GET",
            Verb::Delete => "DELETE",
        };
        f.write_str(verb)?;
        if self.verb == Verb::Post {
            write!(f, " {} bytes", self.body.len())?;
        }
        if matches!(self.target, Target::Endpoint(_)) {
            f.write_str(" to the endpoint of the event stream")?;
        }
        if self.session_id.is_some() {
            f.write_str(" in a session")?;
        }
        if self.last_event_id.is_some() {
            f.write_str(" resuming a stream")?;
        }
        Ok(())
    }
}

/// The HTTP methods that MCP uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// One message.
    Post,
    /// An event stream.
    Get,
    /// The end of a session.
    Delete,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The URL that the user gave.
    Server,
    /// What the `endpoint` event of HTTP+SSE named: a reference to be resolved against the server's URL; it must be of the
    /// same origin.
    Endpoint(Box<str>),
}

/// What an exchange is for.
#[derive(Debug)]
enum Purpose {
    /// A request, and its answer.
    Request(Key),
    /// A broken answer stream, taken up again.
    Resume(Key),
    /// A notification or a response of the client.
    Forward(forward::Forward),
    /// `notifications/initialized`: later messages wait for it (R7).
    Greeting,
    /// The notification stream of a legacy server.
    Listen,
    /// The stream of HTTP+SSE.
    SseStream,
    /// The end of the session.
    Delete,
    /// The answer is there; the stream may still end in peace, so that the connection can be used again.
    Tail,
}

/// The machine. See the module's text.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    pending: Counted<Key, Pending>,
    by_id: HashMap<Id, Key>,
    pending_bytes: usize,
    exchanges: Counted<ExchangeId, Purpose>,
    forwards: Forwards,
    timers: Timers,
    link: Link,
    tools: Tools,
    batches: Batches,
    server_requests: ServerRequests,
    memory: Option<Memory>,
    closing: Option<life::Closing>,
    /// Since when the end waits only for messages and for a person.
    quiet_since: Option<Duration>,
    sign_in: SigningIn,
    watch: Watch,
    last_activity: Duration,
    last_exchange: ExchangeId,
    last_key: u64,
    random: u64,
    now: Duration,
    out: Vec<Action>,
}

impl Session {
    /// A session that has not heard anything yet. `memory` is what an earlier run asked to be remembered.
    pub fn new(settings: Settings, memory: Option<Memory>) -> Self {
        let random = settings.seed | 1;
        let link = Link::new(settings.strategy, memory.as_ref());
        Self {
            settings,
            pending: Counted::default(),
            by_id: HashMap::new(),
            pending_bytes: 0,
            exchanges: Counted::default(),
            forwards: Forwards::default(),
            timers: Timers::default(),
            link,
            tools: Tools::default(),
            batches: Batches::default(),
            server_requests: ServerRequests::default(),
            memory,
            closing: None,
            quiet_since: None,
            sign_in: SigningIn::default(),
            watch: Watch::default(),
            last_activity: Duration::ZERO,
            last_exchange: 0,
            last_key: 0,
            random,
            now: Duration::ZERO,
            out: Vec::new(),
        }
    }

    /// Takes one input. `now` is the time since the start and never goes back. The actions are to be carried out in order.
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.out, actions);
        match input {
            Input::Line(line) => self.on_line(&line),
            Input::TooLong { id, is_request, length, limit } => {
                self.on_too_long(id.as_ref(), is_request, length, limit);
            }
            Input::ClientGone => self.on_client_gone(self.settings.drain),
            Input::Terminate => self.on_client_gone(Duration::ZERO),
            Input::Answer { exchange, head, body } => self.on_answer(exchange, &head, body),
            Input::Opened { exchange, head } => self.on_opened(exchange, &head),
            Input::Events { exchange, events } => self.on_events(exchange, events),
            Input::Ended { exchange, failure } => self.on_ended(exchange, failure),
            Input::Failed { exchange, failure } => self.on_failed(exchange, &failure),
            Input::Held { exchange } => self.on_held(exchange),
            Input::SignIn(news) => self.on_sign_in(news),
            Input::Woke => self.on_woke(),
            Input::Tick => {}
        }
        self.run_timers();
        self.finish_closing();
        std::mem::swap(&mut self.out, actions);
    }

    /// When the next [`Input::Tick`] is due; `None` while nothing waits for the clock.
    pub fn next_deadline(&mut self) -> Option<Duration> {
        let exchanges = &self.exchanges;
        self.timers
            .next(|tail| matches!(exchanges.get(&tail), Some(Purpose::Tail)), |key| self.pending.contains_key(&key))
    }

    /// False while so much waits for the server that stdin should not be read.
    pub fn accepts_lines(&self) -> bool {
        self.pending.len() < MAX_PENDING
            && self.forwards.count < MAX_PENDING
            && self.link.queue.len() < MAX_PENDING
            && self.pending_bytes + self.forwards.bytes < MAX_PENDING_BYTES
    }

    /// Requests of the client (and our own) that have no answer yet.
    pub fn pending_requests(&self) -> usize {
        self.pending.len()
    }

    /// Messages of the client that want no answer and are on their way to the server, or wait to be sent again.
    pub fn forwards_on_their_way(&self) -> usize {
        self.forwards.count
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.out.push(Action::Log(level, text.into()));
    }

    fn write(&mut self, line: Bytes) {
        self.last_activity = self.now;
        self.out.push(Action::Write(message::one_line(line)));
    }

    /// The same, for something that the server said of its own accord.
    fn write_about(&mut self, from: Source, line: Bytes) {
        let owner = match from {
            Source::Answer(key) => self.pending.get(&key).filter(|owner| owner.origin == Origin::Client),
            Source::Stream | Source::Spent => None,
        };
        let Some(about) = owner.map(|owner| owner.id.clone()) else { return self.write(line) };
        self.last_activity = self.now;
        self.out.push(Action::WriteAbout(about, message::one_line(line)));
    }

    /// Begins an exchange and notes what it is for.
    fn start(&mut self, purpose: Purpose, outgoing: Outgoing) -> ExchangeId {
        self.last_exchange += 1;
        let exchange = self.last_exchange;
        self.last_activity = self.now;
        self.exchanges.insert(exchange, purpose);
        self.out.push(Action::Start(exchange, outgoing));
        exchange
    }

    /// Drops an exchange, if it still runs.
    fn abort(&mut self, exchange: ExchangeId) {
        if self.exchanges.remove(&exchange).is_some() {
            self.out.push(Action::Abort(exchange));
        }
    }

    /// A new id for a request of the bridge's own.
    fn own_id(&mut self) -> Id {
        self.last_key += 1;
        Id::String(format!("mcp-drawbridge-{}-{}", self.settings.nonce, self.last_key).into())
    }

    /// A number below `bound`, for jitter (xorshift64*; not for secrets).
    fn jitter(&mut self, bound: Duration) -> Duration {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound)
    }
}
