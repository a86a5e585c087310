//! The legacy session: transport, `initialize`, session id, and opening it again.
//!
//! Order towards the server (R7; MCP 2025-11-25 "Lifecycle" and "Streamable HTTP"): `initialize`, its answer,
//! `notifications/initialized` and its 202, the GET stream (with a short head start, so that a server that speaks first is
//! heard), then the rest. What came too early waits in the queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::forward::Forward;
use super::gone::status_says_session_gone;
use super::life::{Memory, Remembered};
use super::listen::{Listen, ListenState};
use super::pending::{Key, Origin, Pending};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{ExchangeId, Failure, Head, Level, Purpose, Session, Strategy, Verb};
use crate::era;
use crate::message::Outcome;

/// How long requests wait for the answer to the first GET.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long later messages wait for the answer to `notifications/initialized`.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before `notifications/initialized` is said again to a server that was not reached.
const GREETING_PAUSE: Duration = Duration::from_millis(300);
/// A session that lived this long and answered was not lost too early.
const HEALTHY: Duration = Duration::from_secs(10);
/// Resource subscriptions that are said again to a new session, and bytes of one; the same for the log level.
const MAX_SUBSCRIPTIONS: usize = 1000;
const MAX_REPLAYED: usize = 16 * 1024;
/// Bytes of an answer to `initialize` that is kept, to tell the next one from it.
const MAX_KNOWN: usize = 256 * 1024;

/// What waits for the session.
#[derive(Debug)]
pub(super) enum Item {
    Request(Key),
    Forward(Forward),
    /// `notifications/initialized`.
    Initialized(Bytes),
}

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody said `initialize`. Messages go out as they come.
    Idle,
    /// `initialize` is under way.
    Opening(Key),
    /// It was answered; the client has not said `notifications/initialized` yet.
    Opened,
    /// `notifications/initialized` is under way.
    Greeting,
    /// The GET stream is being opened.
    HeadStart,
    /// All may go.
    Ready,
    /// It is gone, and the last try to open it again failed.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    Streamable,
    Sse { stream: Option<ExchangeId>, endpoint: Option<Box<str>> },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) may_fall_back: bool,
    /// Why the first transport was given up, in case the second fails as well.
    pub(super) first_refusal: Option<Trouble>,
    /// A refusal of `initialize` did not say why: the server may be of the modern era.
    pub(super) vaguely_refused: bool,
    pub(super) phase: Phase,
    pub(super) queue: VecDeque<Item>,
    /// Messages that are sent again after a pause, by when that is over.
    pub(super) later: BTreeMap<(Duration, u64), Forward>,
    pub(super) initialize: Option<Bytes>,
    pub(super) requested: Option<String>,
    pub(super) initialized: Option<Bytes>,
    /// The id in the head of an answer to `initialize` that is not read yet.
    pub(super) offered_session: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) version: Option<String>,
    /// Counts sessions; what belongs to an older one is void.
    pub(super) generation: u32,
    pub(super) listen: Listen,
    /// The timer that counts, of those that open something again.
    pub(super) listen_timer: u64,
    greeting: Option<ExchangeId>,
    /// The client of this session takes arrays as answers to its batches.
    pub(super) takes_batches: bool,
    /// The result of `initialize` that the client knows.
    pub(super) known: Option<Box<str>>,
    /// The client was answered from memory: connecting goes on until it succeeds or is refused for good.
    pub(super) forever: bool,
    /// Why the server cannot be reached, while it cannot.
    pub(super) network_down: Option<Trouble>,
    pub(super) keep_alive_armed: bool,
    pub(super) ping: Option<Key>,
    pub(super) reopening: bool,
    pub(super) reopen_failures: u32,
    pub(super) losses: u32,
    opened_at: Duration,
    /// How often an error that spoke of a lost session came again in a new one: then it speaks of something else.
    pub(super) false_alarms: u32,
    /// After the next opening, the client is told that lists may have changed.
    pub(super) announce: bool,
    pub(super) log_level: Option<Bytes>,
    pub(super) subscriptions: BTreeMap<Box<str>, Bytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InitializeResult<'a> {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(borrow, default)]
    pub(super) capabilities: Capabilities<'a>,
}

#[derive(Deserialize, Default)]
pub(super) struct Capabilities<'a> {
    #[serde(borrow, default)]
    pub(super) tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) prompts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UriParams {
    uri: Box<str>,
}

#[derive(Deserialize)]
struct RequestParams<'a> {
    #[serde(borrow)]
    params: &'a RawValue,
}

impl Link {
    pub(super) fn new(strategy: Strategy, memory: Option<&Memory>) -> Self {
        let remembered = memory.map(|memory| memory.transport);
        let sse = match strategy {
            Strategy::HttpOnly => false,
            Strategy::SseOnly => true,
            Strategy::HttpFirst => remembered == Some(Remembered::HttpSse),
            Strategy::SseFirst => remembered != Some(Remembered::StreamableHttp),
        };
        Self {
            transport: if sse { Transport::Sse { stream: None, endpoint: None } } else { Transport::Streamable },
            may_fall_back: matches!(strategy, Strategy::HttpFirst | Strategy::SseFirst),
            first_refusal: None,
            vaguely_refused: false,
            phase: Phase::Idle,
            queue: VecDeque::new(),
            later: BTreeMap::new(),
            initialize: None,
            requested: None,
            initialized: None,
            offered_session: None,
            session_id: None,
            version: None,
            generation: 0,
            listen: Listen::default(),
            listen_timer: 0,
            greeting: None,
            takes_batches: false,
            known: None,
            forever: false,
            network_down: None,
            keep_alive_armed: false,
            ping: None,
            reopening: false,
            reopen_failures: 0,
            losses: 0,
            opened_at: Duration::ZERO,
            false_alarms: 0,
            announce: false,
            log_level: None,
            subscriptions: BTreeMap::new(),
        }
    }

    /// Where HTTP+SSE wants messages, once it said so.
    pub(super) fn endpoint(&self) -> Option<&str> {
        match &self.transport {
            Transport::Sse { endpoint, .. } => endpoint.as_deref(),
            Transport::Streamable => None,
        }
    }

    pub(super) fn is_sse(&self) -> bool {
        matches!(self.transport, Transport::Sse { .. })
    }

    /// There was a session; what the server says of it may concern one that is gone already.
    pub(super) fn had_session(&self) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Opening(_) => self.reopening,
            _ => self.initialize.is_some(),
        }
    }

    /// The server can tell this session from others.
    pub(super) fn in_session(&self) -> bool {
        self.session_id.is_some() || self.endpoint().is_some()
    }

    /// The client knows an answer already; the rest is ours.
    pub(super) fn set_reopening(&mut self) {
        self.reopening = true;
    }

    pub(super) fn is_reopening(&self) -> bool {
        self.phase == Phase::Lost || (self.reopening && matches!(self.phase, Phase::Opening(_)))
    }

    /// The session answered a request. Keeps what a new one must be told again (C2).
    pub(super) fn note(&mut self, now: Duration, method: &str, text: &Bytes) {
        if self.losses > 0 && now >= self.opened_at + HEALTHY {
            self.losses = 0;
        }
        match method {
            "logging/setLevel" => self.log_level = own_copy(text),
            "resources/subscribe" if self.subscriptions.len() < MAX_SUBSCRIPTIONS => {
                if let (Some(uri), Some(text)) = (uri(text), own_copy(text)) {
                    self.subscriptions.insert(uri, text);
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = uri(text) {
                    self.subscriptions.remove(&uri);
                }
            }
            _ => {}
        }
    }
}

impl Session {
    /// Sends what may be sent, in order.
    pub(super) fn pump(&mut self) {
        loop {
            match self.link.phase {
                Phase::Idle | Phase::Opened | Phase::Ready => {}
                Phase::Lost if !self.link.queue.is_empty() && self.closing.is_none() => return self.reopen(),
                _ => return,
            }
            let Some(item) = self.link.queue.pop_front() else { return };
            self.send_item(item);
        }
    }

    // ---- opening ----

    /// Sends `initialize` by the transport of the moment.
    pub(super) fn open(&mut self, key: Key) {
        self.link.phase = Phase::Opening(key);
        self.link.offered_session = None;
        if self.link.is_sse() && self.link.endpoint().is_none() {
            return self.open_sse(key);
        }
        self.send(key);
    }

    /// The older transport is tried when the specification says so (C6). True if it is.
    pub(super) fn fall_back(
        &mut self,
        key: Key,
        head: &Head,
        error: Option<&(i64, Option<Bytes>)>,
        body: &Bytes,
    ) -> bool {
        let older =
            matches!(head.status, 400 | 404 | 405) && !error.is_some_and(|(code, _)| era::is_modern_error(*code));
        if !older || !self.link.may_fall_back || self.link.is_sse() {
            return false;
        }
        let text = error.and_then(|(_, text)| text.clone());
        self.link.first_refusal = Some(self.status_trouble(head, body, text));
        self.link.may_fall_back = false;
        self.link.transport = Transport::Sse { stream: None, endpoint: None };
        self.log(Level::Debug, format!("HTTP {} to initialize; trying HTTP+SSE", head.status));
        self.open(key);
        true
    }

    /// The answer to `initialize`, the client's or ours.
    pub(super) fn initialize_answered(&mut self, key: Key, outcome: Outcome<'_>, text: Bytes) {
        if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
            self.let_end(exchange);
        }
        let Some(origin) = self.pending.get(&key).map(|pending| pending.origin) else { return };
        let result = match outcome {
            Outcome::Result(result) => result,
            Outcome::Error(_) => {
                let trouble =
                    Trouble { body: Some(text), ..Trouble::new("server-error", "the server refused initialize") };
                return self.fail(key, &trouble);
            }
        };
        let read: Option<InitializeResult> = serde_json::from_str(result.get()).ok();
        self.link.session_id = self.link.offered_session.take();
        self.link.version =
            read.as_ref().and_then(|read| read.protocol_version.clone()).filter(|version| is_version(version));
        self.link.may_fall_back = false;
        self.link.first_refusal = None;
        self.link.vaguely_refused = false;
        self.link.forever = false;
        self.link.network_down = None;
        self.link.reopen_failures = 0;
        let transport = if self.link.is_sse() { Remembered::HttpSse } else { Remembered::StreamableHttp };
        if let Some(version) = read.as_ref().and_then(|read| read.protocol_version.as_deref()) {
            self.remember(transport, result);
            if origin == Origin::Client {
                self.link.takes_batches = version == era::BATCHING;
            }
        }
        self.link.opened_at = self.now;
        let Some(pending) = self.remove(key) else { return };
        let news = self.link.known.as_deref() != Some(result.get());
        // One that is too large to keep tells nothing later.
        self.link.known = Some(if result.get().len() <= MAX_KNOWN { result.get() } else { "{}" }.into());
        self.link.phase = Phase::Opened;
        if origin == Origin::Client {
            self.respond(pending.batch, text);
        } else {
            self.link.announce |= news;
            if let Some(initialized) = self.link.initialized.clone() {
                self.link.queue.retain(|item| !matches!(item, Item::Initialized(_)));
                return self.greet(initialized);
            }
        }
        self.pump();
    }

    /// The client's `initialize` failed for good: what waited for it fails with it, and a later one tries again.
    pub(super) fn initialize_failed(&mut self, trouble: &Trouble) {
        let trouble = Trouble { body: None, ..trouble.clone() };
        self.fail_queue(&trouble);
        self.restart_link();
    }

    /// Forgets the session, not the configuration.
    pub(super) fn restart_link(&mut self) {
        self.stop_listen();
        self.stop_greeting();
        self.close_sse(None);
        let generation = self.link.generation + 1;
        let mut link = Link::new(self.settings.strategy, self.memory.as_ref());
        link.generation = generation;
        link.keep_alive_armed = self.link.keep_alive_armed;
        std::mem::swap(&mut link.queue, &mut self.link.queue);
        std::mem::swap(&mut link.later, &mut self.link.later);
        self.link = link;
        self.tools.forget();
    }

    // ---- after initialize ----

    /// Sends `notifications/initialized`; all else waits for its 202.
    pub(super) fn greet(&mut self, text: Bytes) {
        if self.link.phase != Phase::Opened {
            return self.hand_over(text, None, None); // said again, or too early: nothing waits for it
        }
        self.link.phase = Phase::Greeting;
        self.timers.at(self.now + GREETING_PATIENCE, Timer::Greeting(self.link.generation));
        self.send_greeting(text);
    }

    fn send_greeting(&mut self, text: Bytes) {
        let outgoing = self.outgoing(Verb::Post, text);
        self.link.greeting = Some(self.start(Purpose::Greeting, outgoing));
    }

    /// The pause after a failure is over.
    pub(super) fn greet_again(&mut self, generation: u32) {
        if self.link.phase == Phase::Greeting
            && self.link.generation == generation
            && self.link.greeting.is_none()
            && let Some(text) = self.link.initialized.clone()
        {
            self.send_greeting(text);
        }
    }

    pub(super) fn stop_greeting(&mut self) {
        if let Some(exchange) = self.link.greeting.take() {
            self.abort(exchange);
        }
    }

    pub(super) fn greeted(&mut self, exchange: ExchangeId, head: &Head, body: &Bytes) {
        if self.link.greeting != Some(exchange) || (200..300).contains(&head.status) {
            return self.greeting_done(exchange);
        }
        if status_says_session_gone(head.status, body, self.link.in_session()) {
            return self.lose_session("the server no longer knows the session");
        }
        if matches!(head.status, 429 | 503) && self.link.phase == Phase::Greeting {
            return self.greeting_later(head.retry_after.unwrap_or(GREETING_PAUSE));
        }
        let trouble = self.status_trouble(head, body, None);
        self.log(Level::Warn, format!("notifications/initialized: {}", trouble.logged()));
        self.greeting_done(exchange);
    }

    pub(super) fn greeting_failed(&mut self, exchange: ExchangeId, failure: &Failure) {
        let current = self.link.greeting == Some(exchange) && self.link.phase == Phase::Greeting;
        if current && failure.unsent && failure.kind.is_network() {
            return self.greeting_later(GREETING_PAUSE);
        }
        self.log(Level::Warn, format!("notifications/initialized did not reach the server: {}", failure.logged()));
        self.greeting_done(exchange);
    }

    /// A server that never heard it may refuse all that follows; so it is said again, as long as the barrier stands.
    fn greeting_later(&mut self, pause: Duration) {
        self.link.greeting = None;
        self.timers.at(self.now + pause.clamp(GREETING_PAUSE, GREETING_PATIENCE), Timer::Greet(self.link.generation));
    }

    /// It was taken, or refused for good.
    pub(super) fn greeting_done(&mut self, exchange: ExchangeId) {
        if self.link.greeting == Some(exchange) {
            self.link.greeting = None;
            self.greeting_over(self.link.generation);
        }
    }

    /// The barrier falls.
    pub(super) fn greeting_over(&mut self, generation: u32) {
        if self.link.phase != Phase::Greeting || generation != self.link.generation {
            return;
        }
        if self.link.is_sse() || self.link.listen.state == ListenState::Refused || self.closing.is_some() {
            return self.become_ready();
        }
        self.link.phase = Phase::HeadStart;
        self.timers.at(self.now + HEAD_START, Timer::HeadStart(self.link.generation));
        self.start_listen();
    }

    pub(super) fn head_start_over(&mut self, generation: u32) {
        if self.link.phase == Phase::HeadStart && generation == self.link.generation {
            self.become_ready();
        }
    }

    fn become_ready(&mut self) {
        self.link.phase = Phase::Ready;
        self.arm_keep_alive();
        let reopened = std::mem::take(&mut self.link.reopening);
        let announce = std::mem::take(&mut self.link.announce);
        if reopened && self.closing.is_none() {
            self.replay();
        }
        if announce && self.closing.is_none() {
            self.announce();
        }
        self.pump();
    }
}

/// A copy that does not hold on to all that was read from stdin with it; `None` if it is too large to be kept.
fn own_copy(text: &Bytes) -> Option<Bytes> {
    (text.len() <= MAX_REPLAYED).then(|| Bytes::copy_from_slice(text))
}

/// The version that an `initialize` asks for.
pub(super) fn requested_version(initialize: &Bytes) -> Option<String> {
    let request: RequestParams = serde_json::from_slice(initialize).ok()?;
    serde_json::from_str::<InitializeResult>(request.params.get()).ok()?.protocol_version
}

/// The resource that a request names.
pub(super) fn uri(text: &Bytes) -> Option<Box<str>> {
    let request: RequestParams = serde_json::from_slice(text).ok()?;
    serde_json::from_str::<UriParams>(request.params.get()).ok().map(|params| params.uri)
}

/// What may stand in a `MCP-Protocol-Version` header. Any version the server names is used, as long as it is a plain word.
fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
