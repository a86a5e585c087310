//! A scripted HTTP/1.1 server on a bare TCP socket. It reads requests properly and answers with whatever steps it is given,
//! so it can cut, stall, lie about lengths, smuggle and drip.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::{LIMIT, eventually, within};

/// Most bytes of one request's body that the server takes.
const MAX_BODY: usize = 512 << 20;
/// Requests that a summary shows at the begin and at the end.
const SHOWN: usize = 15;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// One request as it came.
#[derive(Debug)]
pub struct Request {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// The other end.
    pub peer: SocketAddr,
    /// When its head and body were read.
    pub at: Instant,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method of the body, if there is one.
    pub fn rpc_method(&self) -> String {
        self.json()["method"].as_str().unwrap_or_default().to_owned()
    }

    /// Everything that was sent, for a search for what must not be there.
    pub fn all_bytes(&self) -> Vec<u8> {
        let mut all = format!("{} {}\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            all.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        all.extend_from_slice(&self.body);
        all
    }
}

/// A request in the log, and what became of it.
#[derive(Debug, Clone)]
pub struct Logged {
    pub request: Arc<Request>,
    /// When the other side closed the connection before the reply was complete.
    pub given_up: Option<Instant>,
    /// When the reply was complete.
    pub done: Option<Instant>,
}

/// One step of a reply.
pub enum Step {
    /// These bytes, as they are.
    Write(Bytes),
    /// All of these, one write each.
    Each(Box<dyn Iterator<Item = Bytes> + Send>),
    /// One byte, then a pause, and so on.
    Trickle(Bytes, Duration),
    /// Nothing for that long.
    Wait(Duration),
    /// Nothing, until the other side closes.
    Hold,
    /// Whatever comes through the channel, until its senders are gone.
    Pipe(mpsc::UnboundedReceiver<Bytes>),
    /// Something of the test, when the reply has come to this point.
    Do(Box<dyn FnOnce() + Send>),
}

/// What comes after the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next request on the same connection.
    Next,
    /// The connection ends (FIN).
    Close,
    /// The connection is torn down (RST).
    Reset,
}

/// A scripted answer.
pub struct Reply {
    steps: Vec<Step>,
    then: Then,
    chunked: bool,
}

impl Reply {
    /// Nothing at all; the connection closes.
    pub fn nothing() -> Self {
        Self { steps: Vec::new(), then: Then::Close, chunked: false }
    }

    /// These bytes and no more; the connection closes.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::nothing().write(bytes)
    }

    /// A proper response.
    pub fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let reply = Self::raw(head).write(body);
        Self { then: Then::Next, ..reply }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self::response(status, &[], "")
    }

    /// A JSON body.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::response(status, &[("Content-Type", "application/json")], body)
    }

    /// The head of an event stream in chunks; what follows is written into it.
    pub fn stream() -> Self {
        Self::stream_with(&[])
    }

    /// The same with further headers.
    pub fn stream_with(headers: &[(&str, &str)]) -> Self {
        let mut head = String::from("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        Self { chunked: true, ..Self::raw(head) }
    }

    /// Bytes of the body, or of a raw reply.
    pub fn write(mut self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return self;
        }
        let bytes = if self.chunked { chunk(&bytes) } else { bytes };
        self.steps.push(Step::Write(bytes));
        self
    }

    /// One event with this data.
    pub fn event(self, data: &str) -> Self {
        self.write(event(None, data))
    }

    /// One event with an id.
    pub fn event_with_id(self, id: &str, data: &str) -> Self {
        self.write(event(Some(id), data))
    }

    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Many pieces of the body, made as they are sent.
    pub fn each(self, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        if self.chunked {
            return self.step(Step::Each(Box::new(pieces.map(|piece| chunk(&piece)))));
        }
        self.step(Step::Each(Box::new(pieces)))
    }

    pub fn wait(self, time: Duration) -> Self {
        self.step(Step::Wait(time))
    }

    /// Runs something when all before it is written. The whole server waits for it.
    pub fn then(self, what: impl FnOnce() + Send + 'static) -> Self {
        self.step(Step::Do(Box::new(what)))
    }

    /// The steps and the end of another reply after these.
    pub fn followed_by(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        Self { steps: self.steps, ..other }
    }

    /// Never goes on; ends when the other side closes.
    pub fn hold(self) -> Self {
        self.step(Step::Hold)
    }

    /// The stream ends properly; the connection can be used again.
    pub fn end(mut self) -> Self {
        if self.chunked {
            self.steps.push(Step::Write(Bytes::from_static(b"0\r\n\r\n")));
            self.chunked = false;
        }
        self.then = Then::Next;
        self
    }

    /// The connection ends, whatever was promised.
    pub fn cut(mut self) -> Self {
        self.then = Then::Close;
        self
    }

    /// The connection is reset.
    pub fn reset(mut self) -> Self {
        self.then = Then::Reset;
        self
    }
}

/// Bytes as one chunk of a chunked body.
pub fn chunk(bytes: &[u8]) -> Bytes {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// One event as text.
pub fn event(id: Option<&str>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data: String = data.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("{id}{data}\n")
}

type Handler = Arc<dyn Fn(&Arc<Request>) -> Reply + Send + Sync>;

#[derive(Default)]
struct Log {
    entries: Mutex<Vec<Logged>>,
    connections: AtomicUsize,
}

/// A server on a loopback port. It can be killed and started again on the same port.
pub struct Server {
    address: SocketAddr,
    handler: Handler,
    log: Arc<Log>,
    /// Keeps the port while nobody listens on it: connections are refused, and no other test gets it.
    reserved: Option<TcpSocket>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    /// A server that is up.
    pub fn start(handler: impl Fn(&Arc<Request>) -> Reply + Send + Sync + 'static) -> Self {
        let mut server = Self::down(handler);
        server.go_up();
        server
    }

    /// A server that has a port and does not listen yet.
    pub fn down(handler: impl Fn(&Arc<Request>) -> Reply + Send + Sync + 'static) -> Self {
        let reserved = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = reserved.local_addr().expect("an address");
        Self {
            address,
            handler: Arc::new(handler),
            log: Arc::new(Log::default()),
            reserved: Some(reserved),
            running: None,
        }
    }

    pub fn go_up(&mut self) {
        assert!(self.running.is_none(), "it is up");
        let (stop, stopped) = oneshot::channel();
        let (up, is_up) = std::sync::mpsc::channel();
        let (address, handler, log) = (self.address, Arc::clone(&self.handler), Arc::clone(&self.log));
        drop(self.reserved.take());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = socket(address).listen(BACKLOG).expect("a listener");
                let _ = up.send(());
                tokio::select! {
                    () = accept(listener, handler, log) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime drops every connection, as the death of a process does.
        });
        is_up.recv_timeout(LIMIT).expect("the server is up");
        self.running = Some((stop, thread));
    }

    /// Dies at once, with all its connections.
    pub fn kill(&mut self) {
        self.stop();
        self.reserved = Some(socket(self.address));
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            assert!(thread.join().is_ok() || std::thread::panicking(), "the server met a request that it cannot read");
        }
    }

    /// The origin, such as `http://127.0.0.1:40000`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Logged> {
        self.log.entries.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.log().into_iter().map(|logged| logged.request).collect()
    }

    /// Connections that were opened so far.
    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::Relaxed)
    }

    /// Waits for the `n`th request (from 1) that matches.
    pub fn nth_request(&self, n: usize, what: &str, matches: impl Fn(&Request) -> bool) -> Logged {
        self.nth_logged(n, what, |logged| matches(&logged.request))
    }

    /// Waits for the `n`th entry of the log (from 1) that matches.
    pub fn nth_logged(&self, n: usize, what: &str, matches: impl Fn(&Logged) -> bool) -> Logged {
        let find = || self.log().into_iter().filter(|logged| matches(logged)).nth(n - 1);
        within(LIMIT, find).unwrap_or_else(|| panic!("request {n} did not come: {what}\n{}", self.summary()))
    }

    /// The log, for a person.
    pub fn summary(&self) -> String {
        let log = self.log();
        let Some(first) = log.first().map(|logged| logged.request.at) else {
            return "the server got no request".into();
        };
        let hidden = log.len().saturating_sub(2 * SHOWN);
        log.iter()
            .enumerate()
            .filter(|(n, _)| *n < SHOWN || *n >= SHOWN + hidden)
            .map(|(n, logged)| {
                if hidden > 0 && n == SHOWN + hidden {
                    return format!("server: ... {hidden} more\n");
                }
                let Logged { request, given_up, done } = logged;
                let end = match (given_up, done) {
                    (Some(_), _) => "given up",
                    (_, Some(_)) => "done",
                    _ => "open",
                };
                let body = String::from_utf8_lossy(request.body.get(..request.body.len().min(160)).unwrap_or_default());
                let at = request.at.saturating_duration_since(first);
                format!(
                    "server: {at:>9.1?} #{} {} {} {body} [{end}]\n",
                    request.connection, request.method, request.target
                )
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A bound socket. A process that another test is just starting may hold a copy of an old listener for a moment.
fn socket(address: SocketAddr) -> TcpSocket {
    eventually("a free port", || {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("reuse");
        socket.bind(address).is_ok().then_some(socket)
    })
}

async fn accept(listener: tokio::net::TcpListener, handler: Handler, log: Arc<Log>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let number = log.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, (number, peer), Arc::clone(&handler), Arc::clone(&log)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, from: (usize, SocketAddr), handler: Handler, log: Arc<Log>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, from).await {
        let request = Arc::new(request);
        let place = {
            let mut entries = log.entries.lock().unwrap();
            entries.push(Logged { request: Arc::clone(&request), given_up: None, done: None });
            entries.len() - 1
        };
        let reply = handler(&request);
        let then = reply.then;
        let complete = play(&mut stream, &mut buffer, reply).await;
        if let Some(entry) = log.entries.lock().unwrap().get_mut(place) {
            let end = if complete { &mut entry.done } else { &mut entry.given_up };
            *end = Some(Instant::now());
        }
        if !complete {
            return;
        }
        match then {
            Then::Next => {}
            Then::Close => {
                // Unread bytes would turn the end into a reset.
                let _ = stream.shutdown().await;
                return;
            }
            Then::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
        }
    }
}

/// Writes the reply. False if the other side left before its end.
async fn play(stream: &mut TcpStream, buffer: &mut Vec<u8>, reply: Reply) -> bool {
    for step in reply.steps {
        let went_on = match step {
            Step::Write(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Each(pieces) => {
                let mut well = true;
                for piece in pieces {
                    well = stream.write_all(&piece).await.is_ok();
                    if !well {
                        break;
                    }
                }
                well
            }
            Step::Trickle(bytes, pause) => {
                let mut well = true;
                for byte in bytes {
                    well = stream.write_all(&[byte]).await.is_ok() && stays(stream, buffer, pause).await;
                    if !well {
                        break;
                    }
                }
                well
            }
            Step::Wait(time) => stays(stream, buffer, time).await,
            Step::Do(what) => {
                what();
                true
            }
            Step::Hold => {
                gone(stream, buffer).await;
                false
            }
            Step::Pipe(mut pieces) => loop {
                tokio::select! {
                    biased;
                    piece = pieces.recv() => match piece {
                        Some(piece) if stream.write_all(&piece).await.is_err() => break false,
                        Some(_) => {}
                        None => break true,
                    },
                    () = gone(stream, buffer) => break false,
                }
            },
        };
        if !went_on {
            return false;
        }
    }
    true
}

async fn stays(stream: &mut TcpStream, buffer: &mut Vec<u8>, time: Duration) -> bool {
    tokio::time::timeout(time, gone(stream, buffer)).await.is_err()
}

/// Waits until the other side closes. What it sends meanwhile is kept.
async fn gone(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    while !matches!(stream.read_buf(buffer).await, Ok(0) | Err(_)) {}
}

/// The next request; `None` when there is none, or no proper one.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, from: (usize, SocketAddr)) -> Option<Request> {
    let end = loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let (connection, peer) = from;
    let mut request = Request { connection, peer, at: Instant::now(), method, target, headers, body: Bytes::new() };
    let length = request.header("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    assert!(
        length <= MAX_BODY && request.header("transfer-encoding").is_none(),
        "a request of a form that we never send"
    );
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(length);
    request.body = std::mem::replace(buffer, rest).into();
    request.at = Instant::now();
    Some(request)
}
