//! The mock MCP server on one thread: `/mcp`, a Streamable HTTP endpoint of revision 2025-11-25 with sessions, and `/modern`, one of
//! 2026-07-28.
//!
//! HTTP is written by hand so that the server is never what limits a measure. A second listener gives the counts.

mod tools;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::Failure;
use super::http1::{Chunks, Head, parse_head};
use tools::{Message, Reply};

/// Connections that may wait to be accepted; a full queue would cost the driver a second each.
const BACKLOG: u32 = 4096;
/// First size of a connection's read buffer, and the size above which it is given back after a request.
const BUFFER: usize = 16 * 1024;
/// Bursts that may wait for a session's GET stream.
const MAX_BURSTS: usize = 4;

/// What the server has counted since the last `reset`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// HTTP requests of any method.
    pub(crate) requests: u64,
    /// Of these: GET requests that opened an event stream.
    pub(crate) streams: u64,
    /// Of these: DELETE requests.
    pub(crate) deletes: u64,
    /// Connections accepted.
    pub(crate) connections: u64,
    /// Connections open now.
    pub(crate) open: u64,
    /// Most connections open at once.
    pub(crate) peak: u64,
}

impl Counts {
    /// The line that goes over the control connection.
    fn to_line(self) -> String {
        let Self { requests, streams, deletes, connections, open, peak } = self;
        format!("{requests} {streams} {deletes} {connections} {open} {peak}\n")
    }

    /// Reads what [`Counts::to_line`] wrote.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().ok());
        let mut next = || words.next().flatten();
        Some(Self {
            requests: next()?,
            streams: next()?,
            deletes: next()?,
            connections: next()?,
            open: next()?,
            peak: next()?,
        })
    }
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    last_session: u64,
    /// Sessions, with the way to their GET stream while there is one.
    sessions: HashMap<u64, Option<mpsc::Sender<u64>>>,
}

type Shared = Arc<Mutex<State>>;

/// Serves until stdin ends. Prints the port of the endpoint and the port of the counts first.
pub(crate) fn run() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (endpoint, control) = (listen()?, listen()?);
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{} {}", endpoint.local_addr()?.port(), control.local_addr()?.port())?;
        stdout.flush()?;
        let shared = Shared::default();
        tokio::spawn(accept_control(control, Arc::clone(&shared)));
        let mut stdin = tokio::io::stdin();
        tokio::select! {
            result = accept(endpoint, shared) => result,
            _ = stdin.read_u8() => Ok(()),
        }
    })
}

fn listen() -> Result<TcpListener, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket.listen(BACKLOG)?)
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Shared) -> Result<(), Failure> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shared = Arc::clone(&shared);
        {
            let counts = &mut lock(&shared).counts;
            counts.connections += 1;
            counts.open += 1;
            counts.peak = counts.peak.max(counts.open);
        }
        tokio::spawn(async move {
            let mut connection = Connection {
                stream,
                input: Vec::with_capacity(BUFFER),
                output: Vec::new(),
                shared: Arc::clone(&shared),
            };
            // A connection that the peer cut or that made no sense is over; the driver sees the missing answer.
            let _ = connection.serve().await;
            lock(&shared).counts.open -= 1;
        });
    }
}

/// Answers `counts` and `reset`, one a line.
async fn accept_control(listener: TcpListener, shared: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
            let counts = {
                let counts = &mut lock(&shared).counts;
                if line.trim() == "reset" {
                    *counts = Counts { open: counts.open, peak: counts.open, ..Counts::default() };
                }
                *counts
            };
            if stream.write_all(counts.to_line().as_bytes()).await.is_err() {
                break;
            }
            line.clear();
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    shared: Shared,
}

impl Connection {
    /// Answers requests until the peer closes.
    async fn serve(&mut self) -> Result<(), Failure> {
        while let Some(head) = self.read_head().await? {
            let body = self.read_body(&head).await?;
            let session = self.session(&head);
            let word = |range: &std::ops::Range<usize>| self.input.get(range.clone()).unwrap_or_default();
            let (method, target) = (word(&head.first), word(&head.second));
            lock(&self.shared).counts.requests += 1;
            match (target, method) {
                (b"/mcp", b"POST") => self.post(&head, body.as_deref(), session).await?,
                (b"/modern", b"POST") => self.post_modern(&head, body.as_deref()).await?,
                (b"/mcp", b"GET") => return self.stream(session).await,
                (b"/mcp", b"DELETE") => {
                    {
                        let mut state = lock(&self.shared);
                        state.counts.deletes += 1;
                        session.map(|id| state.sessions.remove(&id));
                    }
                    self.status("200 OK").await?;
                }
                (b"/mcp" | b"/modern", _) => self.status("405 Method Not Allowed").await?,
                _ => self.status("404 Not Found").await?,
            }
            self.forget(head.size + if body.is_some() { 0 } else { head.length.unwrap_or(0) });
        }
        Ok(())
    }

    /// The head of the next request, which then starts the input; `None` at the end of the connection.
    async fn read_head(&mut self) -> Result<Option<Head>, Failure> {
        loop {
            if let Some(head) = parse_head(&self.input)? {
                return Ok(Some(head));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads the body. One with a length stays in the input after the head, a chunked one is returned.
    async fn read_body(&mut self, head: &Head) -> Result<Option<Vec<u8>>, Failure> {
        if !head.chunked {
            let whole = head.size + head.length.unwrap_or(0);
            self.input.reserve(whole.saturating_sub(self.input.len()));
            while self.input.len() < whole {
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Err(Failure::new("request cut off"));
                }
            }
            return Ok(None);
        }
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        loop {
            let rest = self.input.get(head.size..).unwrap_or_default();
            let used = chunks.decode(rest, &mut body)?;
            self.input.drain(head.size..head.size + used);
            if chunks.done() {
                return Ok(Some(body));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Failure::new("request cut off"));
            }
        }
    }

    /// The session that the request names, when the server knows it.
    fn session(&self, head: &Head) -> Option<u64> {
        let name = self.input.get(head.session.clone()?)?;
        let id = std::str::from_utf8(name).ok()?.strip_prefix("bench-")?.parse().ok()?;
        lock(&self.shared).sessions.contains_key(&id).then_some(id)
    }

    async fn post(&mut self, head: &Head, body: Option<&[u8]>, session: Option<u64>) -> Result<(), Failure> {
        let sized = || self.input.get(head.size..head.size + head.length.unwrap_or(0)).unwrap_or_default();
        let Ok(message) = Message::parse(body.unwrap_or_else(sized)) else {
            return self.status("400 Bad Request").await;
        };
        if message.is_initialize() {
            let id = {
                let mut state = lock(&self.shared);
                state.last_session += 1;
                let id = state.last_session;
                state.sessions.insert(id, None);
                id
            };
            self.output.clear();
            message.answer_initialize(id, &mut self.output);
            return Ok(self.stream.write_all(&self.output).await?);
        }
        let Some(session) = session else {
            let known = head.session.is_none();
            return self.status(if known { "400 Bad Request" } else { "404 Not Found" }).await;
        };
        if !message.is_request() {
            return self.status("202 Accepted").await;
        }
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        let reply = message.answer(&mut output);
        self.output = output;
        self.reply(reply, Some(session)).await
    }

    /// Revision 2026-07-28: no session, every request for itself.
    async fn post_modern(&mut self, head: &Head, body: Option<&[u8]>) -> Result<(), Failure> {
        let sized = || self.input.get(head.size..head.size + head.length.unwrap_or(0)).unwrap_or_default();
        let Ok(message) = Message::parse(body.unwrap_or_else(sized)) else {
            return self.status("400 Bad Request").await;
        };
        if !message.is_request() {
            return self.status("202 Accepted").await;
        }
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        let reply = message.modern().answer(&mut output);
        self.output = output;
        self.reply(reply, None).await
    }

    async fn reply(&mut self, reply: Reply, session: Option<u64>) -> Result<(), Failure> {
        match reply {
            Reply::Ready => self.stream.write_all(&self.output).await?,
            Reply::After(delay) => {
                tokio::time::sleep(delay).await;
                self.stream.write_all(&self.output).await?;
            }
            Reply::Big { text, tail } => {
                self.stream.write_all(&self.output).await?;
                self.stream.write_all(&text).await?;
                self.stream.write_all(&tail).await?;
            }
            Reply::Burst(burst) => burst.write(&mut self.stream, &mut self.output).await?,
            Reply::Ticks(ticks) => ticks.ticks(&mut self.stream, &mut self.output).await?,
            Reply::Push(count) => {
                let Some(session) = session else { return self.status("409 Conflict").await };
                let stream =
                    lock(&self.shared).sessions.get(&session).cloned().flatten().filter(|stream| !stream.is_closed());
                // Without a stream the events would be lost: the call fails instead, and the measure with it.
                let Some(stream) = stream else { return self.status("409 Conflict").await };
                self.stream.write_all(&self.output).await?;
                stream.send(count).await.map_err(|_| Failure::new("GET stream closed"))?;
            }
        }
        Ok(())
    }

    /// Answers a GET with an event stream that stays open and carries the pushes of its session.
    async fn stream(&mut self, session: Option<u64>) -> Result<(), Failure> {
        let Some(session) = session else { return self.status("400 Bad Request").await };
        let (sender, mut pushes) = mpsc::channel(MAX_BURSTS);
        {
            let mut state = lock(&self.shared);
            state.counts.streams += 1;
            state.sessions.insert(session, Some(sender));
        }
        self.output.clear();
        tools::open_stream(&mut self.output);
        self.stream.write_all(&self.output).await?;
        self.input.clear();
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(count) => tools::push(&mut self.stream, &mut self.output, count).await?,
                    // Another GET stream took over, or the session ended.
                    None => return Ok(self.stream.write_all(b"0\r\n\r\n").await?),
                },
                read = self.stream.read_buf(&mut self.input) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Answers with a status and no body.
    async fn status(&mut self, status: &str) -> Result<(), Failure> {
        self.output.clear();
        self.output.extend_from_slice(b"HTTP/1.1 ");
        self.output.extend_from_slice(status.as_bytes());
        self.output.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        Ok(self.stream.write_all(&self.output).await?)
    }

    /// Drops the request that was answered from the input.
    fn forget(&mut self, size: usize) {
        if size >= self.input.len() {
            self.input.clear();
            if self.input.capacity() > 4 * BUFFER {
                self.input = Vec::with_capacity(BUFFER);
            }
        } else {
            self.input.drain(..size);
        }
    }
}

/// Serves on a thread for as long as the test runs; returns the port.
#[cfg(test)]
pub(crate) fn start_for_test() -> u16 {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = listen().unwrap();
            sender.send(endpoint.local_addr().unwrap().port()).unwrap();
            accept(endpoint, Shared::default()).await
        })
    });
    receiver.recv().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_their_line() {
        let counts = Counts { requests: 1, streams: 2, deletes: 3, connections: 4, open: 5, peak: 6 };
        assert_eq!(Counts::from_line(&counts.to_line()), Some(counts));
        assert_eq!(Counts::from_line("1 2 3"), None);
    }
}
