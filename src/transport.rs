//! Carries out one HTTP exchange and reports it as inputs for the session.
//!
//! What to send is the session's decision; here are only headers, the body's reading, and the bound on connections.

mod budget;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Method;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use url::Url;

use self::budget::Budget;
use crate::auth::challenge;
use crate::credentials::{Attempt, Credentials, Next};
use crate::http::guard;
use crate::http::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, RedirectRule};
use crate::message::{self, Message, Parsed};
use crate::secret::SafeUrl;
use crate::session::{Content, ExchangeId, Failure, FailureKind, Head, Input, Outgoing, Target, Verb, Wish};
use crate::sse;

/// Bytes of an error body that are read.
const MAX_ERROR_BODY: usize = 1 << 20;
/// How long an error body may take. The status has said already that there is no other answer.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(4);
/// Up to so many exchanges start at once. Beyond, so many more may be at their start at one time: more would only be more
/// connections (HTTP/1.1), not more speed.
const MAX_STARTING: usize = 64;
/// An exchange that has no answer after this time gives its place to the next, so that slow calls do not hold up fast ones.
const STARTING_TIME: Duration = Duration::from_millis(100);
/// How many messages of the greatest size all answers together may hold.
const MAX_HELD: usize = 4;
/// Files that the process needs beside its connections.
const OTHER_FILES: usize = 32;
/// Of these, how many are kept for messages that nobody waits for: a call may wait for the client's word, which must get through
/// when calls take all other places.
const RESERVED: usize = 8;
/// Exchanges in flight at one time, however many files may be open.
const MAX_IN_FLIGHT: usize = 4096;

static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
static METHOD: HeaderName = HeaderName::from_static("mcp-method");
static NAME: HeaderName = HeaderName::from_static("mcp-name");
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub use self::budget::Held;

/// An input on its way to the session, with its share of what may be held. Keep it until the input is carried out.
#[derive(Debug)]
pub struct Delivery {
    /// What happened.
    pub input: Input,
    /// Its share.
    pub held: Held,
}

impl From<Input> for Delivery {
    fn from(input: Input) -> Self {
        Self { input, held: Held::default() }
    }
}

/// Starts exchanges.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    client: HttpClient,
    credentials: Credentials,
    server: Url,
    /// Where a redirect inside the server's origin led: later requests go there without the detour.
    moved: Mutex<Option<Url>>,
    has_moved: AtomicBool,
    /// Headers of the user and of every request.
    post_headers: HeaderMap,
    get_headers: HeaderMap,
    max_message: usize,
    budget: Arc<Budget>,
    starting: Semaphore,
    in_flight: Semaphore,
    in_flight_most: usize,
    reserved: Semaphore,
    events: mpsc::Sender<Delivery>,
}

impl Transport {
    /// A transport to one server. `headers` are the user's; they go to this server's origin alone.
    pub fn new(
        client: HttpClient,
        credentials: Credentials,
        server: Url,
        headers: &HeaderMap,
        max_message: usize,
        events: mpsc::Sender<Delivery>,
    ) -> Self {
        let mut post_headers = HeaderMap::new();
        post_headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        post_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut get_headers = HeaderMap::new();
        get_headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        for (name, value) in headers {
            post_headers.insert(name, value.clone());
            get_headers.insert(name, value.clone());
        }
        let in_flight_most = open_files().saturating_sub(OTHER_FILES).clamp(8, MAX_IN_FLIGHT);
        let in_flight = Semaphore::new(in_flight_most);
        let starting = Semaphore::new(MAX_STARTING);
        Self {
            inner: Arc::new(Inner {
                client,
                credentials,
                server,
                moved: Mutex::new(None),
                has_moved: AtomicBool::new(false),
                post_headers,
                get_headers,
                max_message,
                budget: Budget::new(max_message.saturating_mul(MAX_HELD)),
                starting,
                in_flight,
                in_flight_most,
                reserved: Semaphore::new(RESERVED),
                events,
            }),
        }
    }

    /// Passes on what the session wants of the sign-in.
    pub fn wish(&self, wish: Wish) {
        self.inner.credentials.wish(wish);
    }

    /// Begins an exchange on the current runtime. What comes of it is sent as inputs; the last of them ends it.
    pub fn start(&self, exchange: ExchangeId, outgoing: Outgoing) -> AbortHandle {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.run(exchange, outgoing).await }).abort_handle()
    }
}

impl Inner {
    async fn run(&self, exchange: ExchangeId, outgoing: Outgoing) {
        let last = match self.exchange(exchange, outgoing).await {
            Ok(last) => last,
            Err(failure) => Input::Failed { exchange, failure }.into(),
        };
        // The bridge is gone if this fails.
        let _ = self.events.send(last).await;
    }

    async fn exchange(&self, exchange: ExchangeId, outgoing: Outgoing) -> Result<Delivery, Failure> {
        let mut attempt = Attempt::default();
        loop {
            let credential = self.credentials.value().await?;
            // Held to the end of the body: each exchange over HTTP/1.1 is a connection, and so an open file.
            let place = self.place(&outgoing).await;
            let request = self.request(&outgoing, credential.clone())?;
            let asked = (outgoing.target == Target::Server && !self.has_moved.load(Ordering::Relaxed))
                .then(|| request.url.clone());
            let response = self.send(request).await.map_err(failure)?;
            let head = head(&response);
            let status = head.status;
            if !matches!(status, 401 | 403) {
                return self.answer(exchange, head, response, asked).await;
            }
            let challenges: Vec<HeaderValue> = response.headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
            tracing::debug!(
                "the server answers HTTP {status} to a request {} credential; WWW-Authenticate: {}",
                if credential.is_some() { "with a" } else { "without a" },
                challenge::summary(&challenge::parse(challenges.iter().map(HeaderValue::as_bytes)))
            );
            let answer = self.answer(exchange, head, response, asked).await;
            // A person may take long.
            drop(place);
            let fields = challenges.iter().map(HeaderValue::as_bytes);
            let may_sign_in = outgoing.may_sign_in;
            let next = self.credentials.refused(&mut attempt, credential.as_ref(), status, fields, may_sign_in);
            let mut next = std::pin::pin!(next);
            let next = tokio::select! {
                biased;
                next = &mut next => next,
                () = self.credentials.person_wanted() => {
                    // The bridge is gone if this fails.
                    let _ = self.events.send(Input::Held { exchange }.into()).await;
                    next.await
                }
            };
            match next? {
                Next::Repeat => {}
                Next::PassOn => return answer,
            }
        }
    }

    /// Reads what came.
    async fn answer(
        &self,
        exchange: ExchangeId,
        head: Head,
        response: HttpResponse,
        asked: Option<Url>,
    ) -> Result<Delivery, Failure> {
        if (200..300).contains(&head.status)
            && asked.is_some_and(|asked| asked != response.url && guard::same_origin(&asked, &response.url))
        {
            self.remember_move(response.url.clone());
        }
        if (200..300).contains(&head.status) && head.content == Content::EventStream {
            return Ok(self.stream(exchange, head, response).await.into());
        }
        if (200..300).contains(&head.status) {
            let (body, held) = self.body(response).await?;
            return Ok(Delivery { input: Input::Answer { exchange, head, body: without_bom(body) }, held });
        }
        // An error body is for people; one that cannot be read, or does not end, does not hide the status.
        let body = tokio::time::timeout(ERROR_BODY_PATIENCE, response.bytes(MAX_ERROR_BODY)).await;
        let body = without_bom(body.ok().and_then(Result::ok).unwrap_or_default());
        Ok(Input::Answer { exchange, head, body }.into())
    }

    /// Reads a whole body. One that comes in one piece is not copied.
    async fn body(&self, mut response: HttpResponse) -> Result<(Bytes, Held), Failure> {
        let mut held = Held::default();
        let Some(first) = response.chunk().await.map_err(failure)? else { return Ok((Bytes::new(), held)) };
        let Some(mut next) = response.chunk().await.map_err(failure)? else { return Ok((first, held)) };
        let mut whole = BytesMut::from(first);
        loop {
            let size = whole.len() + next.len();
            if size > self.max_message {
                return Err(too_large(format!("the answer is larger than the limit of {} bytes", self.max_message)));
            }
            if !held.grow(&self.budget, size) {
                return Err(too_much_at_once());
            }
            whole.extend_from_slice(&next);
            match response.chunk().await.map_err(failure)? {
                Some(chunk) => next = chunk,
                None => return Ok((whole.freeze(), held)),
            }
        }
    }

    fn address(&self) -> Url {
        if self.has_moved.load(Ordering::Relaxed)
            && let Some(moved) = &*self.moved.lock().unwrap_or_else(PoisonError::into_inner)
        {
            return moved.clone();
        }
        self.server.clone()
    }

    fn remember_move(&self, url: Url) {
        tracing::debug!("the server redirects to {}; asking there from now on", SafeUrl(&url));
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
        self.has_moved.store(true, Ordering::Relaxed);
    }

    /// A place among the exchanges in flight. The semaphores are never closed.
    async fn place(&self, outgoing: &Outgoing) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.in_flight.try_acquire() {
            return Some(place);
        }
        let places = if is_request(outgoing) { &self.in_flight } else { &self.reserved };
        places.acquire().await.ok()
    }

    /// Sends, with a bound on how many connections are opened at once.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.in_flight_most - self.in_flight.available_permits() <= MAX_STARTING {
            return self.client.send(request).await;
        }
        let starting = self.starting.acquire().await.ok();
        let mut sending = std::pin::pin!(self.client.send(request));
        tokio::select! {
            biased;
            response = &mut sending => return response,
            () = tokio::time::sleep(STARTING_TIME) => drop(starting),
        }
        sending.await
    }

    /// Reads an event stream to its end.
    async fn stream(&self, exchange: ExchangeId, head: Head, mut response: HttpResponse) -> Input {
        let gone = Input::Ended { exchange, failure: None };
        if self.events.send(Input::Opened { exchange, head }.into()).await.is_err() {
            return gone;
        }
        let mut decoder = sse::Decoder::new(sse::Limits { max_event: self.max_message, ..sse::Limits::default() });
        // What the decoder holds is an event's beginning, so at most what came since the last event ended.
        let mut unfinished = 0;
        let mut held = Held::default();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return gone,
                Err(error) => return Input::Ended { exchange, failure: Some(failure(error)) },
            };
            let mut events = Vec::new();
            let decoded = decoder.push(&chunk, &mut events);
            merge_empty(&mut events);
            unfinished += chunk.len();
            if !held.grow(&self.budget, unfinished) {
                return Input::Ended { exchange, failure: Some(too_much_at_once()) };
            }
            if !events.is_empty() {
                unfinished = 0;
                let held = std::mem::take(&mut held);
                if self.events.send(Delivery { input: Input::Events { exchange, events }, held }).await.is_err() {
                    return gone;
                }
            }
            if let Err(error) = decoded {
                return Input::Ended { exchange, failure: Some(too_large(error.to_string())) };
            }
        }
    }

    fn request(&self, outgoing: &Outgoing, credential: Option<HeaderValue>) -> Result<HttpRequest, Failure> {
        let url = match &outgoing.target {
            Target::Server => self.address(),
            Target::Endpoint(reference) => self.endpoint(reference)?,
        };
        let (method, base) = match outgoing.verb {
            Verb::Post => (Method::POST, &self.post_headers),
            Verb::Get => (Method::GET, &self.get_headers),
            Verb::Delete => (Method::DELETE, &self.get_headers),
        };
        let mut headers = base.clone();
        if let Some(credential) = credential {
            headers.insert(AUTHORIZATION, credential);
        }
        set(&mut headers, &SESSION_ID, outgoing.session_id.as_deref());
        set(&mut headers, &PROTOCOL_VERSION, outgoing.version.as_deref());
        set(&mut headers, &LAST_EVENT_ID, outgoing.last_event_id.as_deref());
        if let Some(modern) = &outgoing.modern {
            set(&mut headers, &PROTOCOL_VERSION, Some(&modern.version));
            set(&mut headers, &METHOD, Some(&modern.method));
            set(&mut headers, &NAME, modern.name.as_deref());
            for (name, value) in &modern.params {
                if let Ok(name) = HeaderName::try_from(format!("mcp-param-{name}")) {
                    set(&mut headers, &name, Some(value));
                }
            }
        }
        let event_stream = outgoing.verb != Verb::Delete;
        Ok(HttpRequest {
            method,
            url,
            headers,
            body: outgoing.body.clone(),
            redirects: RedirectRule::SameOrigin,
            event_stream,
        })
    }

    /// The address that an `endpoint` event names: relative to the server's URL, and of the same origin
    /// (2024-11-05 "HTTP with SSE"; threat rows 43 and 44).
    fn endpoint(&self, reference: &str) -> Result<Url, Failure> {
        let refused = |message: String| Failure {
            kind: FailureKind::Policy,
            unsent: true,
            message,
            hint: Some("the server's configuration is at fault; the bridge sends nothing there".into()),
        };
        let url = self
            .server
            .join(reference)
            .map_err(|_| refused("the server's endpoint event names no usable address".into()))?;
        if !guard::same_origin(&url, &self.server) || !url.username().is_empty() || url.password().is_some() {
            let named = url.origin().ascii_serialization();
            return Err(refused(format!(
                "rule endpoint-same-origin: the server's endpoint event names another origin, {named}"
            )));
        }
        Ok(url)
    }
}

/// Of several events in a row that only move the id or the reconnection time, the last one says it all. A server could send many of them
/// in few bytes.
fn merge_empty(events: &mut Vec<sse::Event>) {
    events.dedup_by(|next, kept| {
        let both_empty = next.data.is_empty() && kept.data.is_empty() && next.name.is_none() && kept.name.is_none();
        if both_empty {
            kept.id = next.id.take().or(kept.id.take());
            kept.retry = next.retry.or(kept.retry);
        }
        both_empty
    });
}

/// Whether somebody waits for an answer to it: everything but notifications, responses and the end of a session.
fn is_request(outgoing: &Outgoing) -> bool {
    match outgoing.verb {
        Verb::Post => matches!(message::parse(&outgoing.body), Ok(Parsed::One(Message::Request(_)))),
        Verb::Get => true,
        Verb::Delete => false,
    }
}

/// Sets a header whose value is known to be plain; one that is not is left out.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

/// A byte order mark in front of JSON may be ignored (RFC 8259 §8.1), and no client takes one.
fn without_bom(mut body: Bytes) -> Bytes {
    if body.starts_with(b"\xEF\xBB\xBF") {
        body.advance(3);
    }
    body
}

fn head(response: &HttpResponse) -> Head {
    let text = |name: &HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
    let content = text(&CONTENT_TYPE).unwrap_or_default();
    let essence = content.split(';').next().unwrap_or_default().trim();
    let content = if essence.eq_ignore_ascii_case("application/json") {
        Content::Json
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Content::EventStream
    } else {
        Content::Other(content.to_ascii_lowercase())
    };
    let session_id = response.headers.get(&SESSION_ID).map(|value| {
        // 2025-11-25 "Session Management": visible ASCII only.
        let visible = !value.is_empty() && value.as_bytes().iter().all(|byte| (0x21..=0x7E).contains(byte));
        if visible { value.to_str().map(str::to_owned).map_err(|_| ()) } else { Err(()) }
    });
    Head {
        status: response.status.as_u16(),
        content,
        session_id,
        retry_after: text(&RETRY_AFTER).and_then(|text| retry_after(text, SystemTime::now())),
    }
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110 §10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let when = httpdate::parse_http_date(text).ok()?;
    Some(when.duration_since(now).unwrap_or_default())
}

fn failure(error: HttpError) -> Failure {
    let kind = match error.kind() {
        HttpErrorKind::Dns => FailureKind::Dns,
        HttpErrorKind::Connect => FailureKind::Connect,
        HttpErrorKind::Tls => FailureKind::Tls,
        HttpErrorKind::Proxy => FailureKind::Proxy,
        HttpErrorKind::Timeout => FailureKind::Timeout,
        HttpErrorKind::Cut => FailureKind::Cut,
        HttpErrorKind::TooLarge => FailureKind::TooLarge,
        HttpErrorKind::Redirect => FailureKind::Redirect,
        HttpErrorKind::Policy { .. } => FailureKind::Policy,
        _ => FailureKind::Malformed,
    };
    Failure { kind, unsent: error.surely_unsent(), message: error.to_string(), hint: error.hint() }
}

fn too_large(message: String) -> Failure {
    Failure { kind: FailureKind::TooLarge, unsent: false, message, hint: Some("--max-message raises the limit".into()) }
}

fn too_much_at_once() -> Failure {
    too_large("the answers that come in at this moment are together larger than the bridge may hold".into())
}

/// How many files may be open: each connection is one.
fn open_files() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }
    #[cfg(not(unix))]
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_empty_events_is_one() {
        let event = |id: &str, data: &'static str, retry| sse::Event {
            name: None,
            data: bytes::Bytes::from(data),
            id: (!id.is_empty()).then(|| sse::IdChange::Set(id.into())),
            retry,
        };
        let mut events = vec![
            event("1", "", Some(5)),
            event("2", "", None),
            event("", "x", None),
            event("3", "", None),
            event("", "", Some(7)),
        ];
        merge_empty(&mut events);
        assert_eq!(events, vec![event("2", "", Some(5)), event("", "x", None), event("3", "", Some(7))]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:27 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}
