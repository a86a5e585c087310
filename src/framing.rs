//! Line framing of the client's side: the bytes of stdin in, one JSON-RPC text per line out.
//!
//! MCP's stdio transport separates messages by newlines. A line over the limit is not held: while it passes, a small
//! scanner picks its id out, so that the request can still be answered (product rules R1, R5).
//!
//! The cost is linear: each byte is looked at once and copied at most once, wherever the chunks are cut. No IO, no clock.

mod id_scanner;

use std::mem;

use bytes::{Buf, Bytes};
use memchr::memchr;

use self::id_scanner::IdScanner;
pub use self::id_scanner::MAX_ID;

/// One line from the client, without its LF or CRLF. Lines of nothing but JSON whitespace are not reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A line within the limit, as it came: neither its UTF-8 nor its JSON is checked. A BOM at the stream's start is cut off.
    Line(Bytes),
    /// A line over the limit, thrown away as it was read.
    TooLong {
        /// Raw JSON text of the top-level `id`, when it is a string or number of at most [`MAX_ID`] bytes; the last one
        /// if there are several. Valid JSON, whatever the rest of the line is. `None` for a batch.
        id: Option<Box<str>>,
        /// Whether there is a top-level `method`: with an id the line was a request, else a notification.
        is_request: bool,
        /// Length of the line in bytes, line end not included.
        len: u64,
    },
}

/// Splits a byte stream into [`Frame`]s.
#[derive(Debug)]
pub struct LineSplitter {
    max_line: usize,
    bom: Bom,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The current line so far: at most `max_line` bytes, and one more if it is a CR that may belong to the line end.
    Held(Vec<u8>),
    /// The current line is over the limit.
    Discarding { scanner: IdScanner, len: u64, last: u8 },
}

impl Default for State {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

impl LineSplitter {
    /// A splitter at the start of a stream; lines of up to `max_line` bytes pass.
    pub fn new(max_line: usize) -> Self {
        Self { max_line, bom: Bom::default(), state: State::default() }
    }

    /// Takes the next bytes and appends the lines that they complete to `out`.
    ///
    /// A line that lies within one chunk is a slice of it and keeps the whole chunk in memory; so read in modest chunks.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut Vec<Frame>) {
        let (held, rest) = self.bom.strip(&chunk);
        let skipped = chunk.len() - rest.len();
        self.hold(held);
        chunk.advance(skipped);
        while let Some(end) = memchr(b'\n', &chunk) {
            let part = chunk.split_to(end);
            chunk.advance(1);
            out.extend(self.end_line(part));
        }
        self.hold(&chunk);
    }

    /// Ends the stream. A last line without a line end is a frame too.
    pub fn finish(&mut self) -> Option<Frame> {
        let held = mem::take(&mut self.bom).held();
        self.hold(held);
        self.end_line(Bytes::new())
    }

    /// Takes a part of the current line that is not known to be all of it.
    fn hold(&mut self, part: &[u8]) {
        let Some(&last) = part.last() else {
            return;
        };
        match &mut self.state {
            State::Held(line) => {
                // A CR just over the limit may be half of a CRLF.
                let limit = self.max_line.saturating_add(usize::from(last == b'\r'));
                let len = line.len().saturating_add(part.len());
                if len <= limit {
                    append_within(line, part, limit);
                } else {
                    let mut scanner = IdScanner::default();
                    scanner.feed(line);
                    scanner.feed(part);
                    self.state = State::Discarding { scanner, len: len as u64, last };
                }
            }
            State::Discarding { scanner, len, last: previous } => {
                scanner.feed(part);
                *len = len.saturating_add(part.len() as u64);
                *previous = last;
            }
        }
    }

    /// Ends the current line, whose last part is `part`.
    fn end_line(&mut self, part: Bytes) -> Option<Frame> {
        let mut line = match &self.state {
            State::Held(line) if line.is_empty() => part,
            _ => {
                self.hold(&part);
                match mem::take(&mut self.state) {
                    State::Held(line) => Bytes::from(line),
                    State::Discarding { scanner, len, last } => {
                        return too_long(scanner, len.saturating_sub(u64::from(last == b'\r')));
                    }
                }
            }
        };
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > self.max_line {
            let mut scanner = IdScanner::default();
            scanner.feed(&line);
            return too_long(scanner, line.len() as u64);
        }
        let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        (!blank).then_some(Frame::Line(line))
    }
}

fn too_long(scanner: IdScanner, len: u64) -> Option<Frame> {
    let is_request = scanner.has_method();
    (!scanner.is_blank()).then(|| Frame::TooLong { id: scanner.into_id(), is_request, len })
}

/// Appends to a buffer that doubles as it grows, but never beyond `limit`, within which the result lies.
pub(crate) fn append_within(buffer: &mut Vec<u8>, part: &[u8], limit: usize) {
    if part.len() > buffer.capacity().saturating_sub(buffer.len()) {
        // Exact at first, so that what fits one piece has no slack.
        let room = limit.saturating_sub(buffer.len());
        buffer.reserve_exact(buffer.len().min(room).max(part.len()));
    }
    buffer.extend_from_slice(part);
}

/// Takes one U+FEFF off the start of a stream, also when it comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Bom {
    seen: usize,
    done: bool,
}

impl Bom {
    const MARK: &[u8] = b"\xEF\xBB\xBF";

    /// Returns what to process instead of `chunk`: bytes held back from earlier chunks that turned out to be no mark,
    /// and what is left of the chunk itself.
    pub(crate) fn strip<'a>(&mut self, chunk: &'a [u8]) -> (&'static [u8], &'a [u8]) {
        let mut rest = chunk;
        while !self.done {
            let Some((&first, tail)) = rest.split_first() else {
                return (&[], rest);
            };
            if Self::MARK.get(self.seen) != Some(&first) {
                let held = self.held();
                self.done = true;
                return (held, rest);
            }
            rest = tail;
            self.seen += 1;
            self.done = self.seen == Self::MARK.len();
        }
        (&[], rest)
    }

    /// The bytes held back: the beginning of what may become a mark.
    pub(crate) fn held(&self) -> &'static [u8] {
        if self.done { &[] } else { Self::MARK.get(..self.seen).unwrap_or_default() }
    }
}
