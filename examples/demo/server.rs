//! The server: a small MCP server over Streamable HTTP (2025-11-25), and the process that runs it.
//!
//! It is strict where the specification is: a session that it does not know is 404, a message without the
//! protocol version of its session is 400.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::Failure;

/// What the server speaks.
pub(crate) const REVISION: &str = "2025-11-25";
/// What it asks in the middle of a call.
pub(crate) const QUESTION: &str = "For how many?";
/// How many tools it has.
pub(crate) const TOOLS: usize = 5;

/// Bytes of a request.
const MAX_BODY: usize = 1 << 20;
/// Longest pause that a call may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long a client may think about a question.
const THINKING: Duration = Duration::from_secs(30);
/// Events that may wait for a slow reader.
const EVENTS: usize = 16;

const LISTENING: &str = "listening on ";
const SESSION_ENDED: &str = "session ended";

// ---- the process ----

/// A server that runs until it is killed or its stdin is closed.
pub(crate) struct ServerProcess {
    child: Child,
    lines: Receiver<String>,
    pub(crate) url: String,
}

impl ServerProcess {
    pub(crate) fn start(address: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let first = lines.recv_timeout(Duration::from_secs(10)).map_err(|_| "the server does not start")?;
        let url = first.strip_prefix(LISTENING).ok_or_else(|| format!("the server says: {first}"))?.to_owned();
        Ok(Self { child, lines, url })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// No goodbye: connections break, sessions are forgotten.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Another process at the same address.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        let address = self.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
        *self = Self::start(&address)?;
        Ok(())
    }

    /// Whether a client ended its session with DELETE.
    pub(crate) fn saw_session_end(&self, patience: Duration) -> bool {
        self.lines.recv_timeout(patience).is_ok_and(|line| line == SESSION_ENDED)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

// ---- the server ----

type Body = BoxBody<Bytes, Infallible>;

#[derive(Default)]
struct Server {
    sessions: Mutex<HashMap<String, Session>>,
    /// Questions to clients that wait for their answers, by id.
    questions: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    next: AtomicU64,
    initialized: AtomicU64,
}

#[derive(Default)]
struct Session {
    /// The stream of GET.
    stream: Option<mpsc::Sender<Value>>,
}

/// Serves until stdin is closed.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    // Whoever started this may die; a server that stays behind would be in the way of the next one.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        #[allow(clippy::exit)] // The only other way out of a server is to be killed.
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
        say(&format!("{LISTENING}http://{}/mcp", listener.local_addr()?));
        let server = Arc::new(Server::default());
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let server = Arc::clone(&server);
            let service = service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.respond(request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    })
}

fn say(line: &str) {
    // Nobody may read: then nobody waits for it either.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        // A page in a browser must not talk to a server on this machine (DNS rebinding).
        if request.headers().contains_key(header::ORIGIN) {
            return status(StatusCode::FORBIDDEN);
        }
        if request.uri().path() != "/mcp" {
            return status(StatusCode::NOT_FOUND);
        }
        let (head, body) = request.into_parts();
        match head.method {
            Method::POST => match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => self.post(&head.headers, &body.to_bytes()).await,
                Err(_) => status(StatusCode::PAYLOAD_TOO_LARGE),
            },
            Method::GET => self.get(&head.headers),
            Method::DELETE => match self.session(&head.headers) {
                Ok(id) => {
                    lock(&self.sessions).remove(&id);
                    say(SESSION_ENDED);
                    status(StatusCode::OK)
                }
                Err(refusal) => status(refusal),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    /// The session that a message belongs to.
    fn session(&self, headers: &HeaderMap) -> Result<String, StatusCode> {
        let named = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let id = named("mcp-session-id").ok_or(StatusCode::BAD_REQUEST)?;
        if !lock(&self.sessions).contains_key(id) {
            return Err(StatusCode::NOT_FOUND);
        }
        if named("mcp-protocol-version") != Some(REVISION) {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(id.to_owned())
    }

    async fn post(self: Arc<Self>, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let Ok(message) = serde_json::from_slice::<Value>(body) else { return status(StatusCode::BAD_REQUEST) };
        let method = message["method"].as_str().unwrap_or_default();
        if method == "initialize" {
            return self.initialize(&message);
        }
        if let Err(refusal) = self.session(headers) {
            return status(refusal);
        }
        match (method, &message["id"]) {
            ("", id) => {
                let waiting = id.as_u64().and_then(|id| lock(&self.questions).remove(&id));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(message["result"].clone());
                }
                status(StatusCode::ACCEPTED)
            }
            (_, Value::Null) => status(StatusCode::ACCEPTED),
            ("ping", id) => answer(id, &json!({})),
            ("tools/list", id) => answer(id, &json!({ "tools": tools() })),
            ("tools/call", id) => self.call(id.clone(), &message["params"]).await,
            (_, id) => {
                let error = json!({ "code": -32601, "message": format!("{method} is not known") });
                json_body(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
            }
        }
    }

    fn initialize(&self, message: &Value) -> Response<Body> {
        let count = self.initialized.fetch_add(1, Ordering::Relaxed);
        let id = format!("demo-{}-{count}", std::process::id());
        lock(&self.sessions).insert(id.clone(), Session::default());
        let result = json!({
            "protocolVersion": REVISION,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "demo-server", "version": "1" },
        });
        let mut response = answer(&message["id"], &result);
        if let Ok(id) = id.parse() {
            response.headers_mut().insert("mcp-session-id", id);
        }
        response
    }

    /// The notification stream. The server uses it at once: it wants to know the client's roots.
    fn get(self: Arc<Self>, headers: &HeaderMap) -> Response<Body> {
        let id = match self.session(headers) {
            Ok(id) => id,
            Err(refusal) => return status(refusal),
        };
        let (sender, events) = mpsc::channel(EVENTS);
        if let Some(session) = lock(&self.sessions).get_mut(&id) {
            session.stream = Some(sender.clone());
        }
        tokio::spawn(async move { self.ask(&sender, "roots/list", json!({})).await });
        event_stream(events)
    }

    async fn call(self: Arc<Self>, id: Value, params: &Value) -> Response<Body> {
        let arguments = params["arguments"].clone();
        let number = |name: &str| arguments[name].as_u64().unwrap_or_default();
        let pause = Duration::from_millis(number("pause_ms")).min(MAX_PAUSE);
        let sum = number("a").saturating_add(number("b"));
        match params["name"].as_str().unwrap_or_default() {
            "add" => answer(&id, &text(&sum.to_string())),
            "slow_add" => {
                tokio::time::sleep(pause).await;
                answer(&id, &text(&sum.to_string()))
            }
            "server_info" => {
                let initialized = self.initialized.load(Ordering::Relaxed);
                let info = json!({ "process": std::process::id(), "initialized": initialized });
                answer(&id, &text(&info.to_string()))
            }
            "count" => {
                let (sender, events) = mpsc::channel(EVENTS);
                let token = params["_meta"]["progressToken"].clone();
                let steps = number("steps").min(100);
                tokio::spawn(async move {
                    for step in 1..=steps {
                        tokio::time::sleep(pause).await;
                        let params = json!({ "progressToken": token, "progress": step, "total": steps });
                        let progress =
                            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
                        if sender.send(progress).await.is_err() {
                            return;
                        }
                    }
                    let _ = sender.send(response(&id, &text(&format!("counted to {steps}")))).await;
                });
                event_stream(events)
            }
            "book" => {
                let (sender, events) = mpsc::channel(EVENTS);
                let day = arguments["day"].as_str().unwrap_or("Monday").to_owned();
                tokio::spawn(async move {
                    let guests = json!({ "type": "object", "properties": { "guests": { "type": "integer" } } });
                    let question = json!({ "message": QUESTION, "requestedSchema": guests });
                    let said = self.ask(&sender, "elicitation/create", question).await;
                    let booked = match said.as_ref().and_then(|said| said["content"]["guests"].as_u64()) {
                        Some(guests) => format!("A table for {guests} on {day}."),
                        None => "No table.".to_owned(),
                    };
                    let _ = sender.send(response(&id, &text(&booked))).await;
                });
                event_stream(events)
            }
            name => {
                let error = json!({ "code": -32602, "message": format!("no tool {name}") });
                json_body(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
            }
        }
    }

    /// Asks the client on a stream and waits for the answer, which comes as a POST of its own.
    async fn ask(&self, stream: &mpsc::Sender<Value>, method: &str, params: Value) -> Option<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.questions).insert(id, sender);
        let question = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        stream.send(question).await.ok()?;
        let said = tokio::time::timeout(THINKING, receiver).await;
        lock(&self.questions).remove(&id);
        said.ok()?.ok()
    }
}

fn tools() -> Value {
    let object = json!({ "type": "object" });
    let safe = json!({ "readOnlyHint": true });
    json!([
        { "name": "add", "description": "a + b", "inputSchema": object, "annotations": safe },
        { "name": "count", "description": "counts slowly, with progress", "inputSchema": object, "annotations": safe },
        { "name": "book", "description": "books a table, asks for how many", "inputSchema": object },
        { "name": "slow_add", "description": "a + b, after a pause", "inputSchema": object, "annotations": safe },
        { "name": "server_info", "description": "which process", "inputSchema": object, "annotations": safe },
    ])
}

fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

fn response(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn answer(id: &Value, result: &Value) -> Response<Body> {
    json_body(&response(id, result))
}

fn json_body(message: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(message.to_string()).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}

fn event_stream(events: mpsc::Receiver<Value>) -> Response<Body> {
    let frames = stream::unfold(events, |mut events| async move {
        let message = events.recv().await?;
        let frame = Frame::data(Bytes::from(format!("event: message\ndata: {message}\n\n")));
        Some((Ok(frame), events))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    response
}
