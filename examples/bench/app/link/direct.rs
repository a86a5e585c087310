//! The floor: the driver speaks Streamable HTTP to the mock server itself, a connection for each request in flight.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use super::{Link, Waited};
use crate::app::Failure;
use crate::app::clock::timespec;
use crate::app::http1::{Chunks, Head, parse_head};
use crate::app::message::number;

/// Room for one read.
const READ: usize = 64 * 1024;
/// Room for one read while a big body is coming in.
const BIG_READ: usize = 1024 * 1024;
/// Sockets that one wait reports.
const EVENTS: usize = 256;

/// A direct HTTP client.
pub(crate) struct Direct {
    server: SocketAddr,
    session: Option<String>,
    epoll: std::os::fd::OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Connections with output that did not fit into the socket.
    blocked: usize,
    request: Vec<u8>,
    expected: usize,
}

struct Connection {
    socket: TcpStream,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// The head of the answer that is coming in; its bytes are no longer in `input`.
    head: Option<Head>,
    chunks: Chunks,
    /// The part of an event stream that is not a whole event yet.
    events: Vec<u8>,
    /// Bytes at the start of `events` that hold no end of an event.
    searched: usize,
}

impl Direct {
    /// A client without connections yet.
    pub(crate) fn new(port: u16) -> Result<Self, Failure> {
        Ok(Self {
            server: (Ipv4Addr::LOCALHOST, port).into(),
            session: None,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            connections: Vec::new(),
            idle: Vec::new(),
            blocked: 0,
            request: Vec::new(),
            expected: 0,
        })
    }

    fn session_field(&mut self) {
        if let Some(session) = &self.session {
            self.request.extend_from_slice(b"Mcp-Session-Id: ");
            self.request.extend_from_slice(session.as_bytes());
            self.request.extend_from_slice(b"\r\n");
        }
    }

    /// Sends `self.request` on an idle connection, or on a new one.
    fn dispatch(&mut self) -> Result<(), Failure> {
        let index = match self.idle.pop() {
            Some(index) => index,
            None => self.connect()?,
        };
        let connection = self.connections.get_mut(index).ok_or_else(|| Failure::new("no such connection"))?;
        connection.output.clear();
        connection.written = 0;
        let written = match (&connection.socket).write(&self.request) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if written < self.request.len() {
            connection.output.extend_from_slice(self.request.get(written..).unwrap_or_default());
            self.blocked += 1;
            let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::modify(&self.epoll, &connection.socket, epoll::EventData::new_u64(index as u64), both)?;
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<usize, Failure> {
        let socket = TcpStream::connect(self.server)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let index = self.connections.len();
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        self.connections.push(Connection {
            socket,
            output: Vec::new(),
            written: 0,
            input: Vec::with_capacity(READ.min(4096)),
            head: None,
            chunks: Chunks::default(),
            events: Vec::new(),
            searched: 0,
        });
        Ok(index)
    }

    fn serve(&mut self, index: usize, sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        if connection.written < connection.output.len() {
            if !connection.flush()? {
                return Ok(());
            }
            self.blocked -= 1;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, data, epoll::EventFlags::IN)?;
        }
        if !connection.fill(self.expected)? {
            return Ok(());
        }
        if self.session.is_none() {
            self.session = connection.session()?;
        }
        if connection.take(sink)? {
            self.idle.push(index);
        }
        Ok(())
    }
}

impl Link for Direct {
    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.request.clear();
        self.request.extend_from_slice(
            b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n",
        );
        self.session_field();
        self.request.extend_from_slice(b"Content-Length: ");
        number(&mut self.request, message.len() as u64);
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(message);
        self.dispatch()
    }

    fn receive(&mut self, patience: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<Waited, Failure> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let waited = loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timespec(patience))) {
                Ok(0) => break Ok(Waited::TimedOut),
                Ok(_) => break Ok(Waited::Read),
                Err(Errno::INTR) => {}
                Err(error) => break Err(error.into()),
            }
        };
        let mut served = Ok(());
        for event in &events {
            let data = event.data;
            let index = usize::try_from(data.u64()).unwrap_or(usize::MAX);
            served = served.and_then(|()| self.serve(index, sink));
        }
        self.events = events;
        served.and(waited)
    }

    fn open_stream(&mut self) -> Result<(), Failure> {
        self.request.clear();
        self.request.extend_from_slice(
            b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n",
        );
        self.session_field();
        self.request.extend_from_slice(b"\r\n");
        self.dispatch()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let mut socket = TcpStream::connect(self.server)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            socket,
            "DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMcp-Session-Id: {session}\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut answer = [0; 64];
        let read = socket.read(&mut answer)?;
        if answer.get(..read).is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
            Ok(())
        } else {
            Err(Failure::new("DELETE refused"))
        }
    }

    fn expect(&mut self, bytes: usize) {
        self.expected = bytes + READ;
    }
}

impl Connection {
    /// Writes what is waiting; true when all is written.
    fn flush(&mut self) -> Result<bool, Failure> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match (&self.socket).write(rest) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads once; false when there was nothing.
    fn fill(&mut self, expected: usize) -> Result<bool, Failure> {
        // A body that has begun and is not whole is a big one.
        let room = if self.head.is_some() { BIG_READ } else { READ.min(4096) };
        let missing = self.head.as_ref().and_then(|head| head.length).map_or(0, |_| expected);
        self.input.reserve(room.max(missing.saturating_sub(self.input.len())));
        match rustix::io::read(&self.socket, spare_capacity(&mut self.input)) {
            Ok(0) => Err(Failure::new("the server closed the connection")),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The session id of the answer that starts the input.
    fn session(&self) -> Result<Option<String>, Failure> {
        let Some(head) = parse_head(&self.input)? else { return Ok(None) };
        Ok(head
            .session
            .and_then(|range| self.input.get(range))
            .map(|value| String::from_utf8_lossy(value).into_owned()))
    }

    /// Gives what is whole to `sink`; true when the answer is over and the connection is free.
    fn take(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        if self.head.is_none() {
            let Some(head) = parse_head(&self.input)? else { return Ok(false) };
            let status = self.input.get(head.second.clone()).unwrap_or_default();
            if status != b"200" && status != b"202" {
                return Err(Failure::new(format!("HTTP status {}", String::from_utf8_lossy(status))));
            }
            let whole = head.size + head.length.unwrap_or(0);
            if !head.chunked && self.input.len() == whole {
                // All came in one read: the usual case, without a copy.
                let body = self.input.get(head.size..).unwrap_or_default();
                if !body.is_empty() {
                    sink(body);
                }
                self.input.clear();
                return Ok(true);
            }
            self.input.drain(..head.size);
            self.head = Some(head);
            self.chunks = Chunks::default();
        }
        let Some(head) = &self.head else { return Ok(false) };
        if head.chunked {
            let used = self.chunks.decode(&self.input, &mut self.events)?;
            self.input.drain(..used);
            self.deliver(sink);
            if self.chunks.done() {
                self.head = None;
                self.events = Vec::new();
                self.searched = 0;
                return Ok(true);
            }
        } else if self.input.len() >= head.length.unwrap_or(0) {
            sink(&self.input);
            self.input = Vec::new();
            self.head = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// Gives the data of each whole event to `sink`.
    fn deliver(&mut self, sink: &mut dyn FnMut(&[u8])) {
        let mut start = 0;
        // The end's first byte may be the last that was searched.
        while let Some(end) = self
            .events
            .get(start + self.searched.saturating_sub(1)..)
            .and_then(|rest| memchr::memmem::find(rest, b"\n\n"))
            .map(|end| start + self.searched.saturating_sub(1) + end)
        {
            let event = self.events.get(start..end).unwrap_or_default();
            if let Some(data) = memchr::memmem::find(event, b"data: ").and_then(|at| event.get(at + 6..)) {
                sink(data);
            }
            start = end + 2;
            self.searched = 0;
        }
        if start == self.events.len() {
            self.events.clear();
        } else if start > 0 {
            self.events.drain(..start);
        }
        self.searched = self.events.len();
    }
}
