//! Line framing of stdin (types first; the splitter follows).
use bytes::Bytes;

/// One line from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A line within the limit, without its line ending. Never blank.
    Line(Bytes),
    /// A line over the limit, thrown away while it was read.
    TooLong {
        /// Raw JSON text of the top-level `id`, a string or a number, if it could be read.
        id: Option<Box<str>>,
        /// Whether there is a top-level `method`.
        is_request: bool,
        /// Length of the line in bytes.
        len: u64,
    },
}

/// Splits a byte stream into lines.
#[derive(Debug)]
pub struct LineSplitter {
    max_line: usize,
}

impl LineSplitter {
    /// A splitter at the start of a stream.
    pub fn new(max_line: usize) -> Self {
        Self { max_line }
    }
    /// Takes the next bytes; finished lines are appended to `out`.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Frame>) {
        if chunk.len() <= self.max_line {
            out.push(Frame::Line(chunk));
        }
    }
    /// End of the stream: an unfinished last line is a frame too.
    pub fn finish(&mut self) -> Option<Frame> {
        None
    }
}
