//! One destination of lines, with a bounded queue and a thread that waits in the caller's place.
//!
//! A client that does not read our stderr fills the pipe (64 KiB on Linux). A direct write would then stop the bridge.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Line, Style};

/// Bytes that wait for the thread at most. As many again can be with the thread. What is above is dropped and counted.
pub(super) const MAX_QUEUE_BYTES: usize = 256 * 1024;

/// Stack of the thread. It formats one line at most.
const STACK_BYTES: usize = 64 * 1024;

/// Pause before the next try when the destination is full and does not block (a client may have set `O_NONBLOCK`).
const RETRY_WAIT: Duration = Duration::from_millis(10);

/// A destination of lines. Clones share it.
#[derive(Clone)]
pub(super) struct Sink {
    shared: Arc<Shared>,
}

struct Shared {
    style: Style,
    state: Mutex<State>,
    /// Signals a line to the thread, and to those who flush that all is written.
    changed: Condvar,
}

struct State {
    queue: Vec<u8>,
    dropped: u64,
    thread: Thread,
}

enum Thread {
    /// No line came yet.
    NotStarted(Box<dyn Write + Send>),
    Waiting,
    Writing,
    /// The destination is gone (a closed pipe, a full disk), or no thread could be had.
    Gone,
}

impl Sink {
    /// A sink that has no thread until the first line.
    pub(super) fn new(style: Style, target: Box<dyn Write + Send>) -> Self {
        let state = State { queue: Vec::new(), dropped: 0, thread: Thread::NotStarted(target) };
        Self { shared: Arc::new(Shared { style, state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// Queues a line. Never waits for the destination.
    pub(super) fn send(&self, line: &Line) {
        let text = line.render(self.shared.style);
        let mut state = self.shared.lock();
        if matches!(state.thread, Thread::Gone) {
            return;
        }
        if state.queue.len() + text.len() > MAX_QUEUE_BYTES {
            state.dropped += 1;
            return;
        }
        state.queue.extend_from_slice(text.as_bytes());
        state.thread = match std::mem::replace(&mut state.thread, Thread::Gone) {
            Thread::NotStarted(target) => self.start(target),
            other => other,
        };
        drop(state);
        self.shared.changed.notify_all();
    }

    fn start(&self, target: Box<dyn Write + Send>) -> Thread {
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new().name("log".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn(move || shared.write_all_lines(target)) {
            Ok(_detached) => Thread::Waiting,
            Err(_) => Thread::Gone,
        }
    }

    /// Waits until all lines are written, or until the deadline.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        while state.is_busy() {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sink").field("style", &self.shared.style).finish_non_exhaustive()
    }
}

impl State {
    fn is_busy(&self) -> bool {
        match self.thread {
            Thread::NotStarted(_) | Thread::Gone => false,
            Thread::Writing => true,
            Thread::Waiting => !self.queue.is_empty() || self.dropped > 0,
        }
    }
}

impl Shared {
    /// A panic elsewhere does not end the log.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_lines(&self, mut target: Box<dyn Write + Send>) {
        let mut state = self.lock();
        loop {
            if state.queue.is_empty() && state.dropped == 0 {
                state.thread = Thread::Waiting;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.thread = Thread::Writing;
            let mut bytes = std::mem::take(&mut state.queue);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            // What was dropped came after what fitted.
            if dropped > 0 {
                bytes.extend_from_slice(Line::dropped(dropped).render(self.style).as_bytes());
            }
            let written = write_patiently(&mut *target, &bytes);
            state = self.lock();
            if written.is_err() {
                state.queue = Vec::new();
                state.thread = Thread::Gone;
                self.changed.notify_all();
                return;
            }
        }
    }
}

/// Writes everything, also to a destination that refuses instead of blocking when it is full.
fn write_patiently(target: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match target.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_WAIT),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    target.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::LogFormat;
    use std::io::Read as _;
    use std::sync::mpsc;

    const STYLE: Style = Style { format: LogFormat::Text, time: false };
    /// Long enough for a busy machine, short enough to notice a hang.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn line() -> Line {
        Line::dropped(1)
    }

    fn length() -> usize {
        line().render(STYLE).len()
    }

    /// Gives each write to the test; writes block while the test does not take them.
    struct Channel(mpsc::SyncSender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_quiet_sink_has_no_thread() {
        let sink = Sink::new(STYLE, Box::new(io::sink()));
        sink.flush(Instant::now() + PATIENCE);
        assert!(matches!(sink.shared.lock().thread, Thread::NotStarted(_)));
        sink.send(&line());
        assert!(!matches!(sink.shared.lock().thread, Thread::NotStarted(_)));
    }

    #[test]
    fn a_full_pipe_stops_nobody_and_the_loss_is_told() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = Sink::new(STYLE, Box::new(writer));
        let start = Instant::now();
        // One batch that no pipe holds: once the thread has taken it, it waits for the reader.
        let first = MAX_QUEUE_BYTES / length();
        sink.shared.lock().queue = line().render(STYLE).repeat(first - 1).into_bytes();
        sink.send(&line());
        while !sink.shared.lock().queue.is_empty() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        let sent = 4 * first;
        (first..sent).for_each(|_| sink.send(&line()));
        assert!(start.elapsed() < PATIENCE);
        let state = sink.shared.lock();
        let dropped = state.dropped;
        assert!(dropped > 0, "the queue has no limit");
        assert!(state.queue.len() <= MAX_QUEUE_BYTES && state.queue.len() + length() > MAX_QUEUE_BYTES);
        drop(state);
        let start = Instant::now();
        sink.flush(start + Duration::from_millis(50));
        assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < PATIENCE);

        let text = thread::spawn(move || {
            let mut text = Vec::new();
            let mut bytes = [0; 4096];
            let needle = format!("count={dropped}\n");
            while !text.ends_with(needle.as_bytes()) {
                let count = reader.read(&mut bytes).unwrap();
                text.extend_from_slice(&bytes[..count]);
            }
            String::from_utf8(text).unwrap()
        });
        sink.flush(Instant::now() + PATIENCE);
        assert!(!sink.shared.lock().is_busy());
        let text = text.join().unwrap();
        let kept = text.lines().filter(|line| line.ends_with(" count=1")).count();
        assert_eq!(kept as u64 + dropped, sent as u64);
    }

    #[test]
    fn lines_go_out_in_order_and_together() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let sink = Sink::new(STYLE, Box::new(Channel(sender)));
        for count in 0..100 {
            sink.send(&Line::dropped(count));
        }
        let expected: String = (0..100).map(|count| Line::dropped(count).render(STYLE)).collect();
        let mut text = Vec::new();
        while text.len() < expected.len() {
            text.extend(receiver.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        sink.flush(Instant::now() + PATIENCE);
        assert!(matches!(sink.shared.lock().thread, Thread::Waiting));
    }

    #[test]
    fn a_reader_that_left_ends_the_sink() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let sink = Sink::new(STYLE, Box::new(writer));
        sink.send(&line());
        sink.flush(Instant::now() + PATIENCE);
        let state = sink.shared.lock();
        assert!(matches!(state.thread, Thread::Gone));
        drop(state);
        sink.send(&line());
        assert!(sink.shared.lock().queue.is_empty());
    }

    /// Takes a byte at a time, and between bytes is full or interrupted.
    #[derive(Default)]
    struct Grudging {
        taken: Vec<u8>,
        turn: usize,
    }

    impl Write for Grudging {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn += 1;
            match self.turn % 3 {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                1 => Err(io::ErrorKind::Interrupted.into()),
                _ => {
                    self.taken.push(bytes[0]);
                    Ok(1)
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_destination_that_does_not_block_gets_everything() {
        let mut target = Grudging::default();
        write_patiently(&mut target, b"line\n").unwrap();
        assert_eq!(target.taken, b"line\n");
    }
}
