//! The legacy session: transport, `initialize`, session id, notification stream, and opening it again.
//!
//! Order towards the server (R7; MCP 2025-11-25 "Lifecycle" and "Streamable HTTP"): `initialize`, its answer,
//! `notifications/initialized` and its 202, the GET stream (with a short head start, so that a server that speaks first is
//! heard), then the rest. What came too early waits in the queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Forward;
use super::life::{Memory, Remembered};
use super::pending::{Key, Origin, Pending};
use super::recovery::Trouble;
use super::timers::Timer;
use super::{ExchangeId, Failure, Head, Level, Outgoing, Purpose, Session, Strategy, Verb};
use crate::era;
use crate::message::{self, Id, Outcome};
use crate::sse::IdChange;

/// How long requests wait for the answer to the first GET.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long later messages wait for the answer to `notifications/initialized`.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// How long the `endpoint` event of HTTP+SSE may take.
const ENDPOINT_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an endpoint reference.
const MAX_ENDPOINT: usize = 8 * 1024;
/// Pause before the notification stream is opened again, doubled with each failure, and its ceiling.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
const LISTEN_PAUSE_MOST: Duration = Duration::from_secs(30);
/// A notification stream that lived this long was no failure.
const LISTEN_HEALTHY: Duration = Duration::from_secs(10);
/// Sessions lost in a row, without one answer in between, before we stop opening new ones at once.
const MAX_LOSSES: u32 = 3;
/// Resource subscriptions that are said again to a new session.
const MAX_SUBSCRIPTIONS: usize = 1000;

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
enum Transport {
    Streamable,
    Sse { stream: Option<ExchangeId>, endpoint: Option<Box<str>> },
}

#[derive(Debug)]
pub(super) struct Link {
    transport: Transport,
    may_fall_back: bool,
    /// Why the first transport was given up, in case the second fails as well.
    first_refusal: Option<Trouble>,
    pub(super) phase: Phase,
    pub(super) queue: VecDeque<Item>,
    /// Messages that are sent again after a pause.
    pub(super) later: Vec<(Duration, Forward)>,
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
    /// The result of `initialize` that the client knows.
    pub(super) known: Option<Box<str>>,
    /// The client was answered from memory: connecting goes on until it succeeds or is refused for good.
    pub(super) forever: bool,
    /// Why the server cannot be reached, while it cannot.
    pub(super) network_down: Option<Trouble>,
    pub(super) keep_alive_armed: bool,
    reopening: bool,
    reopen_failures: u32,
    losses: u32,
    /// After the next opening, the client is told that lists may have changed.
    announce: bool,
    log_level: Option<Bytes>,
    subscriptions: BTreeMap<Box<str>, Bytes>,
}

/// The notification stream.
#[derive(Debug, Default)]
pub(super) struct Listen {
    state: ListenState,
    last_event_id: Option<Box<str>>,
    retry: Option<Duration>,
    failures: u32,
    opened_at: Duration,
    was_open: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ListenState {
    #[default]
    Off,
    Opening(ExchangeId),
    Open(ExchangeId),
    Waiting,
    /// The server has none (405), or does not give it to us.
    Refused,
}

impl Listen {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, ListenState::Open(_))
    }

    fn exchange(&self) -> Option<ExchangeId> {
        match self.state {
            ListenState::Opening(exchange) | ListenState::Open(exchange) => Some(exchange),
            _ => None,
        }
    }

    pub(super) fn heard(&mut self, id: Option<IdChange>, retry: Option<Duration>) {
        self.retry = retry.or(self.retry);
        match id {
            Some(IdChange::Set(id)) => self.last_event_id = Some(id),
            Some(IdChange::Clear) => self.last_event_id = None,
            None => {}
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult<'a> {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(borrow, default)]
    capabilities: Capabilities<'a>,
}

#[derive(Deserialize, Default)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Option<&'a RawValue>,
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
            phase: Phase::Idle,
            queue: VecDeque::new(),
            later: Vec::new(),
            initialize: None,
            requested: None,
            initialized: None,
            offered_session: None,
            session_id: None,
            version: None,
            generation: 0,
            listen: Listen::default(),
            known: None,
            forever: false,
            network_down: None,
            keep_alive_armed: false,
            reopening: false,
            reopen_failures: 0,
            losses: 0,
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

    fn is_sse(&self) -> bool {
        matches!(self.transport, Transport::Sse { .. })
    }

    /// A session was opened and not lost since.
    pub(super) fn knows_session(&self) -> bool {
        self.initialize.is_some()
            && matches!(self.phase, Phase::Opened | Phase::Greeting | Phase::HeadStart | Phase::Ready)
    }

    /// The client knows an answer already; the rest is ours.
    pub(super) fn set_reopening(&mut self) {
        self.reopening = true;
    }

    pub(super) fn is_reopening(&self) -> bool {
        self.phase == Phase::Lost || (self.reopening && matches!(self.phase, Phase::Opening(_)))
    }

    /// Keeps what a new session must be told again (C2).
    pub(super) fn note(&mut self, method: &str, text: &Bytes) {
        let uri = |text: &Bytes| {
            let request: RequestParams = serde_json::from_slice(text).ok()?;
            serde_json::from_str::<UriParams>(request.params.get()).ok().map(|params| params.uri)
        };
        match method {
            "logging/setLevel" => self.log_level = Some(text.clone()),
            "resources/subscribe" if self.subscriptions.len() < MAX_SUBSCRIPTIONS => {
                if let Some(uri) = uri(text) {
                    self.subscriptions.insert(uri, text.clone());
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = uri(text) {
                    self.subscriptions.remove(&uri);
                }
            }
            _ => {}
        }
        self.losses = 0;
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
        if let Transport::Sse { endpoint: None, .. } = self.link.transport {
            let outgoing = Outgoing { session_id: None, version: None, ..self.outgoing(Verb::Get, Bytes::new()) };
            let exchange = self.start(Purpose::SseStream, outgoing);
            self.link.transport = Transport::Sse { stream: Some(exchange), endpoint: None };
            self.timers.at(self.now + ENDPOINT_PATIENCE, Timer::Endpoint(exchange));
            return;
        }
        self.send(key);
    }

    /// The `endpoint` event (2024-11-05 "HTTP with SSE"). The first one stays: a later one could move the session elsewhere.
    pub(super) fn on_endpoint(&mut self, exchange: ExchangeId, data: &Bytes) {
        let Phase::Opening(key) = self.link.phase else {
            return self.log(Level::Warn, "ignored a second endpoint event of the server");
        };
        if self.link.endpoint().is_some() {
            return self.log(Level::Warn, "ignored a second endpoint event of the server");
        }
        let text = std::str::from_utf8(data).map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > MAX_ENDPOINT || text.contains(char::is_control) {
            let trouble = Trouble::new("malformed", "the server's endpoint event names no usable address");
            self.close_sse();
            return self.fail(key, &trouble);
        }
        self.link.transport = Transport::Sse { stream: Some(exchange), endpoint: Some(text.into()) };
        self.send(key);
    }

    pub(super) fn endpoint_overdue(&mut self, exchange: ExchangeId) {
        if self.link.transport == (Transport::Sse { stream: Some(exchange), endpoint: None }) {
            self.abort(exchange);
            let trouble = Trouble::new("timeout", "the server's event stream did not name its endpoint in time");
            self.sse_unusable(trouble);
        }
    }

    /// The older transport is tried when the specification says so (C6). True if it is.
    pub(super) fn fall_back(&mut self, key: Key, head: &Head, code: Option<i64>, body: &Bytes) -> bool {
        let older = matches!(head.status, 400 | 404 | 405) && !code.is_some_and(era::is_modern_error);
        if !older || !self.link.may_fall_back || self.link.is_sse() {
            return false;
        }
        let error = code.map(|_| body.clone());
        self.link.first_refusal = Some(self.status_trouble(head, body, error));
        self.link.may_fall_back = false;
        self.link.transport = Transport::Sse { stream: None, endpoint: None };
        self.log(Level::Debug, format!("HTTP {} to initialize; trying HTTP+SSE", head.status));
        self.open(key);
        true
    }

    /// The GET of HTTP+SSE got no stream.
    pub(super) fn sse_refused(&mut self, exchange: ExchangeId, head: &Head, body: &Bytes) {
        let current =
            matches!(&self.link.transport, Transport::Sse { stream: Some(stream), .. } if *stream == exchange);
        if !current {
            return;
        }
        let mut trouble = self.status_trouble(head, body, None);
        if (200..300).contains(&head.status) {
            trouble.message = format!("{} does not answer with an event stream", self.settings.server);
            trouble.kind = "not-mcp";
            trouble.hint = Some("check the URL, or try --transport http-only".into());
        }
        self.sse_unusable(trouble);
    }

    fn sse_unusable(&mut self, trouble: Trouble) {
        self.close_sse();
        let Phase::Opening(key) = self.link.phase else { return self.lose_session("the event stream is gone") };
        if self.link.may_fall_back {
            self.link.may_fall_back = false;
            self.link.first_refusal = Some(trouble);
            self.link.transport = Transport::Streamable;
            return self.open(key);
        }
        let trouble = self.link.first_refusal.take().unwrap_or(trouble);
        self.fail(key, &trouble);
    }

    /// The stream of HTTP+SSE ended.
    pub(super) fn sse_over(&mut self, failure: Option<Failure>) {
        self.close_sse();
        match self.link.phase {
            Phase::Opening(key) => {
                let posted = self.pending.get(&key).is_some_and(Pending::was_sent);
                match failure {
                    Some(failure) if failure.unsent && !posted && self.link.first_refusal.is_none() => {
                        // As with a POST that never got there.
                        self.unreachable(key, &failure);
                    }
                    failure if self.link.may_fall_back || self.link.first_refusal.is_some() => {
                        let text = failure
                            .map_or_else(|| "the server ended its event stream".to_owned(), |failure| failure.message);
                        self.sse_unusable(Trouble::new("connection-lost", text));
                    }
                    // The transport is known to work: this is trouble on the way, such as a connection that died unnoticed.
                    failure => {
                        if let Some(exchange) = self.pending.get(&key).and_then(Pending::exchange) {
                            self.abort(exchange);
                        }
                        self.cut_off(key, failure.as_ref());
                    }
                }
            }
            Phase::Idle | Phase::Lost => {}
            _ => {
                self.lose_session("the event stream ended");
                self.sse_orphans(failure.as_ref());
            }
        }
    }

    fn close_sse(&mut self) {
        if let Transport::Sse { stream, .. } = &mut self.link.transport {
            let stream = stream.take();
            self.link.transport = Transport::Sse { stream: None, endpoint: None };
            if let Some(stream) = stream {
                self.abort(stream);
            }
        }
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
        self.link.forever = false;
        self.link.network_down = None;
        self.link.reopen_failures = 0;
        let transport = if self.link.is_sse() { Remembered::HttpSse } else { Remembered::StreamableHttp };
        self.remember(transport, result);
        let Some(pending) = self.remove(key) else { return };
        let news = self.link.known.as_deref() != Some(result.get());
        self.link.known = Some(result.get().into());
        self.link.phase = Phase::Opened;
        match origin {
            Origin::Client => self.respond(pending.batch, text),
            _ => {
                self.link.announce |= news;
                if let Some(initialized) = self.link.initialized.clone() {
                    self.link.queue.retain(|item| !matches!(item, Item::Initialized(_)));
                    return self.greet(initialized);
                }
            }
        }
        self.pump();
    }

    /// The client's `initialize` failed for good: what waited for it fails with it, and a later one tries again.
    pub(super) fn initialize_failed(&mut self, trouble: &Trouble) {
        self.close_sse();
        let trouble = Trouble { body: None, ..trouble.clone() };
        self.link.phase = Phase::Lost;
        self.fail_queue(&trouble);
        self.restart_link();
    }

    /// Forgets the session, not the configuration.
    pub(super) fn restart_link(&mut self) {
        if let Some(exchange) = self.link.listen.exchange() {
            self.abort(exchange);
        }
        self.close_sse();
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
        let outgoing = self.outgoing(Verb::Post, text);
        let waits = self.link.phase == Phase::Opened;
        let exchange = self.start(Purpose::Greeting, outgoing);
        if waits {
            self.link.phase = Phase::Greeting;
            self.timers.at(self.now + GREETING_PATIENCE, Timer::Greeting(exchange));
        }
    }

    pub(super) fn greeted(&mut self, _exchange: ExchangeId, head: &Head, body: &Bytes) {
        if !(200..300).contains(&head.status) {
            if head.status == 404 && self.link.session_id.is_some() && self.link.phase == Phase::Greeting {
                return self.lose_session("the server no longer knows the session");
            }
            let trouble = self.status_trouble(head, body, None);
            self.log(Level::Warn, format!("notifications/initialized: {}", trouble.message));
        }
        self.greeting_done();
    }

    pub(super) fn greeting_done(&mut self) {
        if self.link.phase != Phase::Greeting {
            return;
        }
        if self.link.is_sse() || self.link.listen.state == ListenState::Refused || self.closing.is_some() {
            return self.become_ready();
        }
        self.link.phase = Phase::HeadStart;
        self.timers.at(self.now + HEAD_START, Timer::HeadStart(u64::from(self.link.generation)));
        self.start_listen();
    }

    pub(super) fn head_start_over(&mut self, generation: u64) {
        if self.link.phase == Phase::HeadStart && generation == u64::from(self.link.generation) {
            self.become_ready();
        }
    }

    fn become_ready(&mut self) {
        self.link.phase = Phase::Ready;
        self.arm_keep_alive();
        if self.link.reopening {
            self.link.reopening = false;
            self.replay();
        }
        if std::mem::take(&mut self.link.announce) {
            self.announce();
        }
        self.pump();
    }

    /// Tells a new session what the old one knew (C2).
    fn replay(&mut self) {
        let texts: Vec<(&str, Bytes)> = self
            .link
            .log_level
            .iter()
            .map(|text| ("logging/setLevel", text.clone()))
            .chain(self.link.subscriptions.values().map(|text| ("resources/subscribe", text.clone())))
            .collect();
        for (method, text) in texts {
            self.own_request(Origin::Replay, method, &text);
        }
    }

    /// Sends a request of our own, made of `text` with a new id.
    pub(super) fn own_request(&mut self, origin: Origin, method: &str, text: &Bytes) -> Option<Key> {
        let id = self.own_id();
        let text = message::with_id(text, &id)?;
        let key = self.add(Pending::new(id, origin, method, text));
        self.enqueue(Item::Request(key));
        Some(key)
    }

    /// Tells the client that lists may have changed, for what the server has.
    fn announce(&mut self) {
        let known = self.link.known.clone().unwrap_or_default();
        let Ok(result) = serde_json::from_str::<InitializeResult>(&known) else { return };
        let has = result.capabilities;
        for (there, method) in [
            (has.tools.is_some(), "notifications/tools/list_changed"),
            (has.resources.is_some(), "notifications/resources/list_changed"),
            (has.prompts.is_some(), "notifications/prompts/list_changed"),
        ] {
            if there {
                self.write(message::notification(method));
            }
        }
    }

    // ---- losing it ----

    /// The session is gone: opens a new one, once for all that met its end.
    pub(super) fn lose_session(&mut self, why: &str) {
        if self.link.initialize.is_none() || matches!(self.link.phase, Phase::Opening(_) | Phase::Lost | Phase::Idle) {
            return;
        }
        self.log(Level::Info, format!("{why}; opening a new session"));
        self.link.generation += 1;
        self.link.session_id = None;
        self.link.version = None;
        self.link.announce = true;
        self.link.losses += 1;
        self.tools.forget();
        if let Some(exchange) = self.link.listen.exchange() {
            self.abort(exchange);
        }
        let refused = self.link.listen.state == ListenState::Refused;
        self.link.listen = Listen::default();
        if refused {
            self.link.listen.state = ListenState::Refused;
        }
        self.close_sse();
        self.drop_server_requests();
        self.link.phase = Phase::Lost;
        if self.closing.is_some() {
            return self
                .fail_queue(&Trouble::new("session-lost", "the session ended while the bridge was shutting down"));
        }
        if self.link.losses > MAX_LOSSES {
            let trouble = Trouble::new("session-lost", "the server forgets the session again and again");
            return self.reopen_failed(&trouble);
        }
        self.reopen();
    }

    pub(super) fn reopen(&mut self) {
        let Some(text) = self.link.initialize.clone() else { return };
        let id: Id = self.own_id();
        let Some(text) = message::with_id(&text, &id) else { return };
        let key = self.add(Pending::new(id, Origin::Reopen, "initialize", text));
        self.link.reopening = true;
        // A server that says nothing must not hold the queue for ever.
        self.timers.at(self.now + self.settings.initialize_timeout, Timer::Initialize(key));
        self.open(key);
    }

    pub(super) fn reopen_failed(&mut self, trouble: &Trouble) {
        self.log(Level::Warn, format!("no new session: {}", trouble.message));
        self.close_sse();
        self.link.phase = Phase::Lost;
        self.link.reopening = true;
        self.link.forever = false;
        self.link.losses = 0;
        let trouble = Trouble { body: None, ..trouble.clone() };
        self.fail_queue(&trouble);
        self.link.reopen_failures += 1;
        let pause = LISTEN_PAUSE.saturating_mul(1 << self.link.reopen_failures.min(6)).min(LISTEN_PAUSE_MOST);
        let pause = pause + self.jitter(pause / 4);
        self.timers.at(self.now + pause, Timer::Listen);
    }

    // ---- the notification stream ----

    fn start_listen(&mut self) {
        let last_event_id = self.link.listen.last_event_id.clone();
        let outgoing = Outgoing { last_event_id, ..self.outgoing(Verb::Get, Bytes::new()) };
        let exchange = self.start(Purpose::Listen, outgoing);
        self.link.listen.state = ListenState::Opening(exchange);
    }

    pub(super) fn listening(&mut self, exchange: ExchangeId) {
        self.link.listen.state = ListenState::Open(exchange);
        self.link.listen.opened_at = self.now;
        self.link.listen.was_open = true;
        if self.link.phase == Phase::HeadStart {
            self.become_ready();
        }
    }

    pub(super) fn listen_refused(&mut self, head: &Head) {
        if head.status == 404 && self.link.listen.was_open && self.link.session_id.is_some() {
            return self.lose_session("the server no longer knows the session");
        }
        if matches!(head.status, 408 | 429 | 500..=599) && head.status != 501 {
            return self.listen_later(head.retry_after);
        }
        if head.status != 405 {
            self.log(Level::Debug, format!("no notification stream (HTTP {})", head.status));
        }
        self.link.listen.state = ListenState::Refused;
        if self.link.phase == Phase::HeadStart {
            self.become_ready();
        }
    }

    pub(super) fn listen_over(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.log(Level::Debug, format!("the notification stream broke: {}", failure.message));
        }
        self.listen_later(None);
    }

    /// C3: without a limit in number, with growing pauses.
    fn listen_later(&mut self, at_least: Option<Duration>) {
        let listen = &mut self.link.listen;
        let healthy = listen.is_open() && self.now >= listen.opened_at + LISTEN_HEALTHY;
        listen.failures = if healthy { 0 } else { listen.failures + 1 };
        listen.state = ListenState::Waiting;
        let first = listen.retry.unwrap_or(LISTEN_PAUSE);
        let doubled = first.saturating_mul(1 << listen.failures.saturating_sub(1).min(6));
        let pause =
            doubled.min(LISTEN_PAUSE_MOST.max(first)).max(at_least.unwrap_or_default().min(Duration::from_secs(60)));
        let pause = pause + self.jitter(pause / 4);
        self.timers.at(self.now + pause, Timer::Listen);
        if self.link.phase == Phase::HeadStart {
            self.become_ready();
        }
    }

    /// The pause is over.
    pub(super) fn listen_again(&mut self) {
        if self.closing.is_some() {
            return;
        }
        match self.link.phase {
            Phase::Lost if self.link.initialize.is_some() => self.reopen(),
            Phase::Ready | Phase::HeadStart if self.link.listen.state == ListenState::Waiting => self.start_listen(),
            _ => {}
        }
    }

    /// The machine slept: the stream is probably dead and does not know it.
    pub(super) fn refresh_listen(&mut self) {
        if let Some(exchange) = self.link.listen.exchange() {
            self.abort(exchange);
            self.link.listen.failures = 0;
            self.start_listen();
        }
    }

    /// The stream of HTTP+SSE, if there is one.
    pub(super) fn sse_stream(&self) -> Option<ExchangeId> {
        match &self.link.transport {
            Transport::Sse { stream, .. } => *stream,
            Transport::Streamable => None,
        }
    }
}

/// What may stand in a `MCP-Protocol-Version` header. Any version the server names is used, as long as it is a plain word.
fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
