//! stdin and stdout, without a thread in between where the system allows it.
//!
//! A thread between a pipe and the socket costs more than all else on the message path, so on Linux pipes are opened
//! again through `/proc/self/fd` (a description of our own, so that our non-blocking mode is not forced on other holders) and
//! sockets are read and written with `MSG_DONTWAIT`. Anything else (files, terminals, other systems) gets one plain thread each way.

use std::collections::VecDeque;
use std::io;
#[cfg(unix)]
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
#[cfg(target_os = "linux")]
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::framing::{Frame, LineSplitter};
#[cfg(unix)]
use crate::process::watch_fd;

/// Bytes asked of stdin at a time.
const READ_SIZE: usize = 64 * 1024;
/// Room for a read; with less a new block is begun.
#[cfg(target_os = "linux")]
const READ_LEAST: usize = 4 * 1024;
/// Lines shorter than this are gathered into one write.
const GATHER: usize = 16 * 1024;
/// Bytes gathered before a new buffer is begun.
const GATHER_MOST: usize = 256 * 1024;
/// Chunks that a thread may have read or may have left to write.
const THREAD_CHUNKS: usize = 4;

/// The client's lines.
pub struct Lines {
    source: Source,
    buffer: BytesMut,
    splitter: LineSplitter,
    frames: Vec<Frame>,
    ended: bool,
}

enum Source {
    #[cfg(target_os = "linux")]
    Pipe(tokio::net::unix::pipe::Receiver),
    #[cfg(unix)]
    Socket(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>, Box<[u8]>),
    Thread(mpsc::Receiver<Bytes>),
}

impl Lines {
    /// The lines of stdin, each at most `max_line` bytes.
    pub fn open(max_line: usize) -> io::Result<Self> {
        let source = Source::open()?;
        let splitter = LineSplitter::new(max_line);
        Ok(Self { source, buffer: BytesMut::new(), splitter, frames: Vec::new(), ended: false })
    }

    /// What came next; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<std::vec::Drain<'_, Frame>> {
        while self.frames.is_empty() {
            if self.ended {
                return None;
            }
            match self.source.read(&mut self.buffer).await {
                Some(chunk) => self.splitter.push(chunk, &mut self.frames),
                None => {
                    self.ended = true;
                    self.frames.extend(self.splitter.finish());
                }
            }
        }
        Some(self.frames.drain(..))
    }
}

impl Source {
    fn open() -> io::Result<Self> {
        #[cfg(unix)]
        if let Some(source) = Self::direct() {
            return Ok(source);
        }
        let (sender, receiver) = mpsc::channel(THREAD_CHUNKS);
        std::thread::Builder::new().name("stdin".into()).spawn(move || read_stdin(&sender))?;
        Ok(Self::Thread(receiver))
    }

    #[cfg(unix)]
    fn direct() -> Option<Self> {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::FileTypeExt as _;
        let stdin = io::stdin();
        let owned = stdin.as_fd().try_clone_to_owned().ok()?;
        let file = std::fs::File::from(owned);
        let kind = file.metadata().ok()?.file_type();
        #[cfg(target_os = "linux")]
        if kind.is_fifo() {
            return tokio::net::unix::pipe::OpenOptions::new().open_receiver("/proc/self/fd/0").ok().map(Self::Pipe);
        }
        if kind.is_socket() {
            let socket = watch_fd(file.into(), tokio::io::Interest::READABLE).ok()?;
            return Some(Self::Socket(socket, vec![0; READ_SIZE].into()));
        }
        None
    }

    /// The next bytes; `None` at the end or when stdin cannot be read any more. Cancel safe.
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "only a pipe is read into the buffer"))]
    async fn read(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pipe(pipe) => {
                // By `AsyncRead`, which knows that a short read has emptied the pipe and spares the read that would say so.
                if buffer.capacity() - buffer.len() < READ_LEAST {
                    // A new block, shared by the lines that are read into it; small lines do not cost one each.
                    buffer.reserve(READ_SIZE);
                }
                match pipe.read_buf(buffer).await {
                    Ok(0) | Err(_) => None,
                    Ok(_) => Some(buffer.split().freeze()),
                }
            }
            #[cfg(unix)]
            Self::Socket(socket, scratch) => loop {
                let mut guard = socket.readable().await.ok()?;
                let flags = rustix::net::RecvFlags::DONTWAIT;
                match guard.try_io(|socket| Ok(rustix::net::recv(socket.get_ref(), &mut **scratch, flags)?.0)) {
                    Ok(Ok(0)) => return None,
                    Ok(Ok(n)) => {
                        if n < scratch.len() {
                            // A short read has emptied the socket: the next one would only say so.
                            guard.clear_ready();
                        }
                        return scratch.get(..n).map(Bytes::copy_from_slice);
                    }
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(_)) => return None,
                    Err(_would_block) => {}
                }
            },
            Self::Thread(receiver) => receiver.recv().await,
        }
    }
}

fn read_stdin(sender: &mpsc::Sender<Bytes>) {
    use io::Read as _;
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let chunk = buffer.get(..n).map(Bytes::copy_from_slice).unwrap_or_default();
                if sender.blocking_send(chunk).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// stdout for what a command or an errand says itself. What a library prints from now on (`dbus-secret-service` does, where a keyring answers
/// a prompt with nonsense) goes to stderr: a program that reads stdout gets what was meant for it. `io::stdout` is stderr from then on, too.
pub fn own_stdout() -> Box<dyn io::Write> {
    #[cfg(unix)]
    if let Ok(own) = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned() {
        lead_prints_away();
        return Box::new(std::fs::File::from(own));
    }
    Box::new(io::stdout())
}

/// On Windows, where no crate of ours prints, nothing is done. Best effort.
fn lead_prints_away() {
    #[cfg(unix)]
    let _ = rustix::stdio::dup2_stdout(io::stderr());
}

/// The one writer of stdout: whole lines, in order.
pub struct Output {
    sink: Sink,
    queue: VecDeque<Bytes>,
    gathered: BytesMut,
    bytes: usize,
    deaf: bool,
}

#[derive(Clone)]
enum Sink {
    #[cfg(target_os = "linux")]
    Pipe(Rc<tokio::net::unix::pipe::Sender>),
    #[cfg(unix)]
    Socket(Rc<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>),
    Thread(mpsc::Sender<Bytes>),
}

impl Output {
    /// Takes stdout.
    pub fn open() -> io::Result<Self> {
        Ok(Self { sink: Sink::open()?, queue: VecDeque::new(), gathered: BytesMut::new(), bytes: 0, deaf: false })
    }

    /// From now on the client gets what is pushed and nothing else: what a library prints goes to stderr ([`own_stdout`]).
    pub fn keep_to_ourselves(&self) {
        lead_prints_away();
    }

    /// Queues a line; the line feed is added.
    pub fn push(&mut self, line: Bytes) {
        if self.deaf {
            return;
        }
        self.bytes += line.len() + 1;
        if line.len() < GATHER {
            self.gathered.reserve(line.len() + 1);
            self.gathered.put_slice(&line);
            self.gathered.put_u8(b'\n');
            if self.gathered.len() >= GATHER_MOST {
                self.close_gathered();
            }
            return;
        }
        self.close_gathered();
        self.queue.push_back(line);
        self.queue.push_back(Bytes::from_static(b"\n"));
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.queue.push_back(self.gathered.split().freeze());
        }
    }

    /// The reader is gone: what is written from here on goes nowhere.
    pub fn go_deaf(&mut self) {
        self.deaf = true;
        self.queue.clear();
        self.gathered.clear();
        self.bytes = 0;
    }

    /// The reader is gone.
    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// Writes what can be written now. True if nothing is left.
    pub fn write_now(&mut self) -> io::Result<bool> {
        self.close_gathered();
        while let Some(front) = self.queue.front_mut() {
            match self.sink.try_write(front) {
                Ok(n) => {
                    self.bytes = self.bytes.saturating_sub(n);
                    let _written = front.split_to(n.min(front.len()));
                    if front.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.gathered.capacity() > GATHER_MOST {
            self.gathered = BytesMut::new();
        }
        Ok(true)
    }

    /// Waits until something can be written. Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.sink.writable().await
    }

    /// Waits until a writing thread, if there is one, has written all.
    pub async fn finish(&mut self) {
        #[cfg_attr(not(unix), expect(irrefutable_let_patterns, reason = "elsewhere there are other sinks"))]
        if let Sink::Thread(sender) = &self.sink {
            // All places free again: the thread has taken all chunks; one more, empty, is taken after the last was written.
            let _ = sender.send(Bytes::new()).await;
            let _ = sender.reserve_many(THREAD_CHUNKS).await.map(|_| ());
        }
    }

    /// Waits until the reader is gone, where the system tells without a write; else for ever.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        let sink = self.sink.clone();
        async move {
            match &sink {
                #[cfg(target_os = "linux")]
                Sink::Pipe(pipe) => {
                    let _ = pipe.ready(tokio::io::Interest::ERROR).await;
                }
                #[cfg(unix)]
                Sink::Socket(_) => std::future::pending().await,
                Sink::Thread(sender) => sender.closed().await,
            }
        }
    }
}

impl Sink {
    fn open() -> io::Result<Self> {
        #[cfg(unix)]
        if let Some(sink) = Self::direct() {
            return Ok(sink);
        }
        // A descriptor of our own: see `keep_to_ourselves`.
        #[cfg(unix)]
        let stdout = std::fs::File::from(std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?);
        #[cfg(not(unix))]
        let stdout = io::stdout();
        let (sender, receiver) = mpsc::channel(THREAD_CHUNKS);
        std::thread::Builder::new().name("stdout".into()).spawn(move || write_all(stdout, receiver))?;
        Ok(Self::Thread(sender))
    }

    #[cfg(unix)]
    fn direct() -> Option<Self> {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::FileTypeExt as _;
        let stdout = io::stdout();
        let owned = stdout.as_fd().try_clone_to_owned().ok()?;
        let file = std::fs::File::from(owned);
        let kind = file.metadata().ok()?.file_type();
        #[cfg(target_os = "linux")]
        if kind.is_fifo() {
            return tokio::net::unix::pipe::OpenOptions::new()
                .open_sender("/proc/self/fd/1")
                .ok()
                .map(|pipe| Self::Pipe(Rc::new(pipe)));
        }
        if kind.is_socket() {
            return watch_fd(file.into(), tokio::io::Interest::WRITABLE)
                .ok()
                .map(|socket| Self::Socket(Rc::new(socket)));
        }
        None
    }

    fn try_write(&self, bytes: &Bytes) -> io::Result<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pipe(pipe) => pipe.try_write(bytes),
            #[cfg(unix)]
            Self::Socket(socket) => {
                // No MSG_NOSIGNAL, which macOS lacks: Rust's start-up has SIGPIPE ignored.
                let flags = rustix::net::SendFlags::DONTWAIT;
                // Readiness is asked for only after the kernel said that there is no room: the first try costs no wait.
                Ok(rustix::net::send(socket.get_ref(), bytes, flags)?)
            }
            Self::Thread(sender) => match sender.try_send(bytes.clone()) {
                Ok(()) => Ok(bytes.len()),
                Err(mpsc::error::TrySendError::Full(_)) => Err(io::ErrorKind::WouldBlock.into()),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pipe(pipe) => pipe.writable().await,
            #[cfg(unix)]
            Self::Socket(socket) => {
                let mut guard = socket.writable().await?;
                // The send that follows tells whether there is room; what epoll said is used up.
                guard.clear_ready();
                Ok(())
            }
            Self::Thread(sender) => match sender.reserve().await {
                Ok(_) => Ok(()),
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }
}

fn write_all(mut stdout: impl io::Write, mut receiver: mpsc::Receiver<Bytes>) {
    while let Some(chunk) = receiver.blocking_recv() {
        if stdout.write_all(&chunk).is_err() || stdout.flush().is_err() {
            return;
        }
    }
}
