//! rmcp as the server: Streamable HTTP. ERA=dual (default) serves both eras on one URL, legacy and modern one alone.
//!
//! The control paths, the variables PORT and PEER_TRACE and the first line of output are those of `lib/host.mjs`.

mod features;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use features::{Era, Features, World};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionHandle, LocalSessionManager, SessionConfig};
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const MAX_BODY: usize = 32 * 1024 * 1024;
const RETRY: Duration = Duration::from_millis(100);
const SESSION: &str = "mcp-session-id";

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct Counters {
    initialized: AtomicU64,
    deleted: AtomicU64,
    posts: AtomicU64,
    gets: AtomicU64,
    resumed: AtomicU64,
    requests: AtomicU64,
}

struct Host {
    service: StreamableHttpService<Features, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    /// Forgotten sessions keep their open streams: only new requests find out, as with an expired session.
    forgotten: Mutex<Vec<LocalSessionHandle>>,
    world: Arc<World>,
    counters: Counters,
    connections: Mutex<Vec<Weak<Connection>>>,
    begin: Instant,
    trace: bool,
}

#[derive(Default)]
struct Connection {
    unfinished: AtomicUsize,
    cut: CancellationToken,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let era = std::env::var("ERA").unwrap_or_else(|_| "dual".into());
    let world = Arc::new(World::new(
        format!("rmcp-{era}"),
        match era.as_str() {
            "modern" => Era::Modern,
            "legacy" => Era::Legacy,
            _ => Era::Dual,
        },
    ));
    let mut sessions = LocalSessionManager::default();
    sessions.session_config = SessionConfig::default();
    sessions.session_config.sse_retry = Some(RETRY);
    let sessions = Arc::new(sessions);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(era != "modern")
        .with_sse_retry(Some(RETRY))
        .with_max_request_body_bytes(MAX_BODY);
    let factory = {
        let world = world.clone();
        move || Ok(Features::new(world.clone()))
    };
    let host = Arc::new(Host {
        service: StreamableHttpService::new(factory, sessions.clone(), config),
        sessions,
        forgotten: Mutex::default(),
        world,
        counters: Counters::default(),
        connections: Mutex::default(),
        begin: Instant::now(),
        trace: std::env::var_os("PEER_TRACE").is_some(),
    });

    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening http://{}/mcp", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(host.clone().serve(stream));
    }
}

impl Host {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let connection = Arc::new(Connection::default());
        {
            let mut connections = self.connections.lock().unwrap();
            connections.retain(|known| known.strong_count() > 0);
            connections.push(Arc::downgrade(&connection));
        }
        let cut = connection.cut.clone();
        let service = hyper::service::service_fn(move |request| {
            let (host, connection) = (self.clone(), connection.clone());
            async move { Ok::<_, Infallible>(host.answer(request, &connection).await) }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            _ = serving => {}
            () = cut.cancelled() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Answer {
        match request.uri().path() {
            "/control/state" => self.state().await,
            "/control/forget-sessions" => {
                let handles: Vec<_> = self.sessions.sessions.write().await.drain().map(|(_, handle)| handle).collect();
                let count = handles.len();
                self.forgotten.lock().unwrap().extend(handles);
                reply(StatusCode::OK, &json!({"forgotten": count}))
            }
            "/control/cut" => reply(StatusCode::OK, &json!({"cut": self.cut()})),
            "/mcp" => self.mcp(request, connection).await,
            _ => reply(StatusCode::NOT_FOUND, &json!({"error": "not here"})),
        }
    }

    async fn mcp(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Answer {
        let unfinished = Unfinished::new(connection.clone());
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed) + 1;
        let number = count(&self.counters.requests);
        let method = request.method().clone();
        let in_session = request.headers().contains_key(SESSION);
        if method == Method::POST {
            count(&self.counters.posts);
        }
        if method == Method::GET {
            count(&self.counters.gets);
        }
        if request.headers().contains_key("last-event-id") {
            count(&self.counters.resumed);
        }
        let answer = if self.trace { self.traced(request, number).await } else { self.service.handle(request).await };
        if method == Method::POST && !in_session && answer.headers().contains_key(SESSION) {
            count(&self.counters.initialized);
        }
        if method == Method::DELETE && answer.status().is_success() {
            count(&self.counters.deleted);
        }
        answer.map(|body| Until { body, _unfinished: unfinished }.boxed())
    }

    async fn traced(&self, request: Request<Incoming>, number: u64) -> Answer {
        let say = |what: String| eprintln!("{:>6} ms  #{number} {what}", self.begin.elapsed().as_millis());
        let (head, body) = request.into_parts();
        let about: Vec<_> = head
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("mcp-") || *name == "last-event-id")
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?")))
            .collect();
        say(format!("{} {} {}", head.method, head.uri, about.join(" ")));
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        say(format!("body {}", String::from_utf8_lossy(&body).chars().take(300).collect::<String>()));
        let answer = self.service.handle(Request::from_parts(head, Full::new(body))).await;
        let kind =
            answer.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        say(format!("{} {kind}", answer.status()));
        answer
    }

    async fn state(&self) -> Answer {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { initialized, deleted, posts, gets, resumed, .. } = &self.counters;
        let state = json!({
            "initialized": of(initialized), "sessions": self.sessions.sessions.read().await.len(), "deleted": of(deleted),
            "cancelled": of(&self.world.cancelled), "posts": of(posts), "gets": of(gets), "resumed": of(resumed),
        });
        reply(StatusCode::OK, &state)
    }

    /// Breaks every connection with an unfinished answer; returns how many answers those were.
    fn cut(&self) -> usize {
        let mut count = 0;
        for connection in self.connections.lock().unwrap().iter().filter_map(Weak::upgrade) {
            let unfinished = connection.unfinished.load(Ordering::Relaxed);
            if unfinished > 0 {
                connection.cut.cancel();
            }
            count += unfinished;
        }
        count
    }
}

/// Counts an answer of its connection as unfinished until it is dropped.
struct Unfinished(Arc<Connection>);

impl Unfinished {
    fn new(connection: Arc<Connection>) -> Self {
        connection.unfinished.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Until {
    body: BoxBody<Bytes, Infallible>,
    _unfinished: Unfinished,
}

impl Body for Until {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn reply(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::from(value.to_string()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
