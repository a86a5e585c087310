//! A well-behaved legacy MCP server, strict about what it is sent. A test replaces single answers by hooks.
//!
//! Tools: `echo` (read-only; gives its arguments back), `change` (may not be repeated; counted), `again` (idempotent),
//! `sleep` (`ms`), `big` (`bytes`), `progress` (`count`), `ask` (asks the client first).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::wire::{Logged, Reply, Request, Server, Step, chunk, event};
use super::{eventually, within};

/// What kind of server it is.
#[derive(Debug, Clone)]
pub struct Kind {
    /// HTTP+SSE of 2024-11-05 instead of Streamable HTTP.
    pub http_sse: bool,
    /// Whether it hands out session ids and asks for them.
    pub sessions: bool,
    /// Answers as event streams with ids that can be resumed, instead of JSON.
    pub streams: bool,
    /// Whether GET gets a stream; else 405.
    pub listen: bool,
    /// Its protocol version.
    pub version: &'static str,
}

impl Default for Kind {
    fn default() -> Self {
        Self { http_sse: false, sessions: true, streams: false, listen: true, version: "2025-11-25" }
    }
}

/// One message that came by POST, or a GET or DELETE.
pub struct Call<'a> {
    /// The JSON-RPC method; `response` for a response of the client; `GET` and `DELETE` for those.
    pub key: &'a str,
    /// The how manyth of its key, from 1.
    pub n: usize,
    pub request: &'a Request,
    pub message: Value,
    /// The id as it stood in the message.
    pub id: String,
    streams: bool,
    shared: &'a Shared,
}

impl Call<'_> {
    /// The tool's name.
    pub fn tool(&self) -> &str {
        self.message["params"]["name"].as_str().unwrap_or_default()
    }

    /// The text of a response with this result.
    pub fn result(&self, result: &Value) -> String {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", self.id)
    }

    /// The text of an error response.
    pub fn error(&self, code: i64, message: &str) -> String {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":{code},\"message\":{}}}}}",
            self.id,
            Value::from(message)
        )
    }

    /// A whole reply with this result, of the server's usual form.
    pub fn answer(&self, result: &Value) -> Reply {
        self.reply(&self.result(result))
    }

    fn reply(&self, text: &str) -> Reply {
        if !self.streams {
            return Reply::json(200, text.to_owned());
        }
        let ids = self.shared.keep(&[text]);
        Reply::stream().event_with_id(&ids[0], text).end()
    }

    /// A stream that says something with an id and breaks; the answer can be had with `Last-Event-ID`.
    pub fn cut_but_kept(&self, result: &Value, retry: Option<Duration>) -> Reply {
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"begun"}}"#;
        let ids = self.shared.keep(&[progress, &self.result(result)]);
        let retry = retry.map(|retry| format!("retry: {}\n\n", retry.as_millis())).unwrap_or_default();
        Reply::stream().write(retry).event_with_id(&ids[0], progress).cut()
    }
}

type Hook = Box<dyn Fn(&Call) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    sessions: Vec<String>,
    opened: usize,
    counts: HashMap<String, usize>,
    hooks: Vec<(String, Hook)>,
    listeners: Vec<mpsc::UnboundedSender<Bytes>>,
    /// Streams of HTTP+SSE by session.
    pipes: HashMap<String, mpsc::UnboundedSender<Bytes>>,
    /// Requests of the server that wait for the client, with the stream on which their call is answered.
    questions: usize,
    asked: HashMap<String, (mpsc::UnboundedSender<Bytes>, String)>,
    /// Events for resumption: stream, then texts in order.
    kept: Vec<Vec<String>>,
    executed: Vec<(String, Value)>,
    responses: Vec<Value>,
    violations: Vec<String>,
}

struct Shared {
    kind: Kind,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps events for a resumption; gives their ids.
    fn keep(&self, texts: &[&str]) -> Vec<String> {
        let mut state = self.state();
        state.kept.push(texts.iter().map(|text| (*text).to_owned()).collect());
        let stream = state.kept.len() - 1;
        (0..texts.len()).map(|n| format!("{stream}-{n}")).collect()
    }
}

/// The server.
pub struct Mcp {
    server: Server,
    shared: Arc<Shared>,
    /// What it was sent against the specification fails the test, unless a test provokes it.
    pub strict: bool,
}

impl Deref for Mcp {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Mcp {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Mcp {
    /// A server that is up.
    pub fn start(kind: Kind) -> Self {
        let mut server = Self::down(kind);
        server.go_up();
        server
    }

    /// With sessions and JSON answers.
    pub fn plain() -> Self {
        Self::start(Kind::default())
    }

    /// With sessions and resumable streams as answers.
    pub fn streaming() -> Self {
        Self::start(Kind { streams: true, ..Kind::default() })
    }

    /// HTTP+SSE.
    pub fn sse() -> Self {
        Self::start(Kind { http_sse: true, version: "2024-11-05", ..Kind::default() })
    }

    /// A server that does not listen yet.
    pub fn down(kind: Kind) -> Self {
        let shared = Arc::new(Shared { kind, state: Mutex::default() });
        let for_handler = Arc::clone(&shared);
        let server = Server::down(move |request| handle(&for_handler, request));
        Self { server, shared, strict: true }
    }

    pub fn url(&self) -> String {
        let path = if self.shared.kind.http_sse { "/sse" } else { "/mcp" };
        format!("{}{path}", self.origin())
    }

    /// Replaces answers: `key` is a JSON-RPC method, `response`, `GET`, `DELETE`, or `*` for all. `None` leaves the usual answer.
    pub fn on(&self, key: &str, hook: impl Fn(&Call) -> Option<Reply> + Send + 'static) -> &Self {
        self.shared.state().hooks.push((key.to_owned(), Box::new(hook)));
        self
    }

    /// Forgets all sessions, as a restarted server does.
    pub fn forget_sessions(&self) {
        let mut state = self.shared.state();
        state.sessions.clear();
        state.listeners.clear();
    }

    /// Dies and comes back without memory.
    pub fn restart(&mut self) {
        self.server.kill();
        self.forget_sessions();
        self.server.go_up();
    }

    /// Sends a message on every notification stream that is open. Gives their number.
    pub fn push(&self, message: &Value) -> usize {
        self.push_bytes(event(None, &message.to_string()).into_bytes())
    }

    /// Bytes into every notification stream.
    pub fn push_bytes(&self, bytes: Vec<u8>) -> usize {
        let piece = chunk(&bytes);
        let mut state = self.shared.state();
        let state = &mut *state;
        state.listeners.retain(|listener| listener.send(piece.clone()).is_ok());
        state.pipes.retain(|_, pipe| pipe.send(piece.clone()).is_ok());
        state.listeners.len() + state.pipes.len()
    }

    /// Ends every notification stream in good order.
    pub fn end_streams(&self) {
        self.shared.state().listeners.clear();
    }

    /// Breaks every stream of HTTP+SSE.
    pub fn drop_pipes(&self) {
        self.shared.state().pipes.clear();
    }

    /// Waits until a notification stream is open.
    pub fn await_listener(&self) {
        eventually("a notification stream", || (!self.shared.state().listeners.is_empty()).then_some(()));
    }

    /// How often this key was asked for.
    pub fn count(&self, key: &str) -> usize {
        self.shared.state().counts.get(key).copied().unwrap_or(0)
    }

    /// Waits until this key was asked for that often.
    pub fn await_count(&self, key: &str, n: usize) {
        let reached = within(super::LIMIT, || (self.count(key) >= n).then_some(()));
        assert!(reached.is_some(), "{key} came {} times, not {n}\n{}", self.count(key), self.summary());
    }

    /// Calls of a tool that were carried out.
    pub fn executed(&self, tool: &str) -> usize {
        self.shared.state().executed.iter().filter(|(name, _)| name == tool).count()
    }

    /// Responses of the client to requests of the server.
    pub fn responses(&self) -> Vec<Value> {
        self.shared.state().responses.clone()
    }

    /// Sessions that are alive.
    pub fn sessions(&self) -> Vec<String> {
        self.shared.state().sessions.clone()
    }

    /// POSTs of this JSON-RPC method in the log.
    pub fn posts(&self, method: &str) -> Vec<Logged> {
        self.log()
            .into_iter()
            .filter(|logged| logged.request.method == "POST" && logged.request.rpc_method() == method)
            .collect()
    }

    /// GETs in the log.
    pub fn gets(&self) -> Vec<Logged> {
        self.log().into_iter().filter(|logged| logged.request.method == "GET").collect()
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        let violations = std::mem::take(&mut self.shared.state().violations);
        if self.strict && !std::thread::panicking() {
            assert!(violations.is_empty(), "the bridge broke the protocol: {violations:#?}\n{}", self.summary());
        }
    }
}

#[derive(Deserialize)]
struct RawId<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

fn raw_id(body: &[u8]) -> String {
    let id = serde_json::from_slice::<RawId>(body).ok().and_then(|raw| raw.id);
    id.map_or_else(|| "null".to_owned(), |id| id.get().to_owned())
}

fn handle(shared: &Shared, request: &Arc<Request>) -> Reply {
    let message = if request.method == "POST" { request.json() } else { Value::Null };
    let key = match (request.method.as_str(), message["method"].as_str()) {
        ("POST", Some(method)) => method.to_owned(),
        ("POST", None) => "response".to_owned(),
        (method, _) => method.to_owned(),
    };
    let n = {
        let mut state = shared.state();
        let count = state.counts.entry(key.clone()).or_default();
        *count += 1;
        *count
    };
    let id = raw_id(&request.body);
    let call = Call { key: &key, n, request, message, id, streams: shared.kind.streams, shared };
    let hooks = std::mem::take(&mut shared.state().hooks);
    let replaced = hooks.iter().find_map(|(on, hook)| if *on == key || on == "*" { hook(&call) } else { None });
    {
        let mut state = shared.state();
        let added = std::mem::replace(&mut state.hooks, hooks);
        state.hooks.extend(added);
    }
    if let Some(reply) = replaced {
        return reply;
    }
    if shared.kind.http_sse { http_sse(shared, &call) } else { streamable(shared, &call) }
}

// ---- Streamable HTTP ----

fn streamable(shared: &Shared, call: &Call) -> Reply {
    let request = call.request;
    if request.target.starts_with("/.well-known/") || request.target == "/register" {
        // Who is refused looks for an authorization server; there is none.
        return Reply::response(404, &[], "");
    }
    check_headers(shared, call);
    if request.target != "/mcp" {
        return Reply::response(404, &[("Content-Type", "text/html")], "<html>not here</html>");
    }
    let session = request.header("mcp-session-id").unwrap_or_default().to_owned();
    if shared.kind.sessions && call.key != "initialize" {
        if session.is_empty() {
            return Reply::json(400, rpc_error(-32000, "Bad Request: Mcp-Session-Id header is required"));
        }
        if !shared.state().sessions.contains(&session) {
            return Reply::json(404, rpc_error(-32001, "Session not found"));
        }
    }
    match call.key {
        "GET" => listen(shared, call),
        "DELETE" => {
            shared.state().sessions.retain(|known| *known != session);
            Reply::status(204)
        }
        "response" => take_response(shared, call),
        "initialize" => {
            let mut headers = vec![("Content-Type", "application/json")];
            let id = new_session(shared);
            if shared.kind.sessions {
                headers.push(("Mcp-Session-Id", &id));
            }
            Reply::response(200, &headers, call.result(&initialize_result(shared)))
        }
        key if key.starts_with("notifications/") => Reply::status(202),
        "tools/call" if call.tool() == "progress" => progress(call),
        "tools/call" if call.tool() == "ask" => ask(shared, call),
        _ => match answer_text(shared, call) {
            (text, None) => call.reply(&text),
            (text, Some(time)) => slow(call, &text, time),
        },
    }
}

fn slow(call: &Call, text: &str, time: Duration) -> Reply {
    if call.streams {
        let ids = call.shared.keep(&[text]);
        return Reply::stream().wait(time).event_with_id(&ids[0], text).end();
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
    Reply::nothing().wait(time).write(head).write(text.to_owned()).end()
}

fn check_headers(shared: &Shared, call: &Call) {
    let request = call.request;
    let mut wrong = Vec::new();
    let accept = request.header("accept").unwrap_or_default();
    let wants_streams = accept.contains("text/event-stream");
    match request.method.as_str() {
        "POST" => {
            if !wants_streams || !accept.contains("application/json") {
                wrong.push(format!("Accept of a POST: {accept:?}"));
            }
            if request.header("content-type") != Some("application/json") {
                wrong.push(format!("Content-Type: {:?}", request.header("content-type")));
            }
            if request.body.contains(&b'\n') {
                wrong.push("a line feed in a message".into());
            }
        }
        "GET" if !wants_streams => wrong.push(format!("Accept of a GET: {accept:?}")),
        _ => {}
    }
    let version = request.header("mcp-protocol-version");
    if call.key == "initialize" {
        if let Some(id) = request.header("mcp-session-id") {
            wrong.push(format!("initialize with the session id {id:?}"));
        }
    } else if version != Some(shared.kind.version) && shared.state().opened > 0 {
        wrong.push(format!("{} with MCP-Protocol-Version {version:?}", call.key));
    }
    let mut state = shared.state();
    state.violations.extend(wrong);
}

fn listen(shared: &Shared, call: &Call) -> Reply {
    if let Some(last) = call.request.header("last-event-id")
        && let Some((stream, n)) = last.split_once('-')
        && let (Ok(stream), Ok(n)) = (stream.parse::<usize>(), n.parse::<usize>())
    {
        let mut reply = Reply::stream();
        if let Some(texts) = shared.state().kept.get(stream) {
            for (n, text) in texts.iter().enumerate().skip(n + 1) {
                reply = reply.event_with_id(&format!("{stream}-{n}"), text);
            }
        }
        return reply.end();
    }
    if !shared.kind.listen {
        return Reply::status(405);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    shared.state().listeners.push(sender);
    Reply::stream().step(Step::Pipe(receiver)).end()
}

// ---- HTTP+SSE ----

fn http_sse(shared: &Shared, call: &Call) -> Reply {
    let request = call.request;
    let path = request.target.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("GET", "/sse") => {
            let session = new_session(shared);
            let (sender, receiver) = mpsc::unbounded_channel();
            shared.state().pipes.insert(session.clone(), sender);
            Reply::stream()
                .write(format!("event: endpoint\ndata: /messages?session={session}\n\n"))
                .step(Step::Pipe(receiver))
                .end()
        }
        ("POST", "/messages") => {
            let session = request.target.split_once('=').map(|(_, session)| session.to_owned()).unwrap_or_default();
            let Some(pipe) = shared.state().pipes.get(&session).cloned() else {
                return Reply::response(404, &[("Content-Type", "text/plain")], "Session not found");
            };
            let text = match call.key {
                "initialize" => Some(call.result(&initialize_result(shared))),
                "response" => return take_response(shared, call),
                key if key.starts_with("notifications/") => None,
                _ => Some(answer_text(shared, call).0),
            };
            if let Some(text) = text {
                let _ = pipe.send(chunk(format!("event: message\n{}", event(None, &text)).as_bytes()));
            }
            Reply::response(202, &[("Content-Type", "text/plain")], "Accepted")
        }
        _ => Reply::response(405, &[("Content-Type", "text/plain")], "Method Not Allowed"),
    }
}

// ---- answers ----

fn rpc_error(code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": null}).to_string()
}

fn new_session(shared: &Shared) -> String {
    let mut state = shared.state();
    state.opened += 1;
    let id = format!("session-{}", state.opened);
    state.sessions.push(id.clone());
    id
}

fn initialize_result(shared: &Shared) -> Value {
    json!({
        "protocolVersion": shared.kind.version,
        "capabilities": {
            "tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true},
            "prompts": {"listChanged": true}, "logging": {}
        },
        "serverInfo": {"name": "scripted", "version": "1"}
    })
}

/// The server's tools.
pub fn tools() -> Value {
    let schema = json!({"type": "object"});
    json!([
        {"name": "echo", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "change", "inputSchema": schema},
        {"name": "again", "inputSchema": schema, "annotations": {"idempotentHint": true}},
        {"name": "sleep", "inputSchema": schema},
        {"name": "big", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "progress", "inputSchema": schema},
        {"name": "ask", "inputSchema": schema},
    ])
}

/// The text of the answer, and how long it takes.
fn answer_text(shared: &Shared, call: &Call) -> (String, Option<Duration>) {
    let params = &call.message["params"];
    let mut time = None;
    let result = match call.key {
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}),
        "tools/list" => json!({"tools": tools()}),
        "resources/list" => json!({"resources": []}),
        "resources/read" => json!({"contents": [{"uri": params["uri"], "text": "text"}]}),
        "prompts/list" => json!({"prompts": []}),
        "tools/call" => {
            let arguments = &params["arguments"];
            let tool = call.tool().to_owned();
            shared.state().executed.push((tool.clone(), arguments.clone()));
            match tool.as_str() {
                "echo" | "change" | "again" => json!({"content": [], "structuredContent": arguments}),
                "sleep" => {
                    time = arguments["ms"].as_u64().map(Duration::from_millis);
                    json!({"content": [], "structuredContent": arguments})
                }
                "big" => {
                    let bytes = usize::try_from(arguments["bytes"].as_u64().unwrap_or(0)).unwrap_or(0);
                    json!({"content": [{"type": "text", "text": "x".repeat(bytes)}]})
                }
                _ => return (call.error(-32602, "Unknown tool"), None),
            }
        }
        _ => return (call.error(-32601, "Method not found"), None),
    };
    (call.result(&result), time)
}

fn progress(call: &Call) -> Reply {
    let count = call.message["params"]["arguments"]["count"].as_u64().unwrap_or(0);
    let token = call.message["params"]["_meta"]["progressToken"].clone();
    let answer = event(None, &call.result(&json!({"content": []})));
    let notes = (1..=count).map(move |n| {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": n, "total": count}});
        Bytes::from(event(None, &note.to_string()))
    });
    Reply::stream().each(notes).write(answer).end()
}

/// Asks the client something on the call's stream; the call's answer holds what the client said.
fn ask(shared: &Shared, call: &Call) -> Reply {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut state = shared.state();
    state.questions += 1;
    let id = format!("ask-{}", state.questions);
    let question = json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create",
        "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}});
    state.asked.insert(id, (sender, call.id.clone()));
    Reply::stream().event(&question.to_string()).step(Step::Pipe(receiver)).end()
}

fn take_response(shared: &Shared, call: &Call) -> Reply {
    let mut state = shared.state();
    state.responses.push(call.message.clone());
    let known = call.message["id"].as_str().and_then(|id| state.asked.remove(id));
    if let Some((stream, id)) = known {
        let mut text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":");
        let _ = write!(text, "{}}}", json!({"content": [], "structuredContent": call.message["result"]}));
        let _ = stream.send(chunk(event(None, &text).as_bytes()));
    }
    Reply::status(202)
}
