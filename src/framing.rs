//! Line framing of the client's side: the bytes of stdin in, one JSON-RPC text per line out.
//!
//! MCP's stdio transport separates messages by newlines. A line over the limit is not held: while it passes, a small
//! scanner picks its id out, so that the request can still be answered (product rules R1, R5).
//!
//! The cost is linear: each byte is looked at once and copied at most once, wherever the chunks are cut. No IO, no clock.

mod id_scanner;

use std::collections::BTreeMap;
use std::mem;

use bytes::{Buf, Bytes};
use memchr::memchr;
use serde_json::value::RawValue;

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
    Discarding { scanner: IdScanner, len: u64, ends_in_cr: bool },
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
                if line.len().saturating_add(part.len()) <= limit {
                    append_within(line, part, limit);
                } else {
                    let mut scanner = IdScanner::default();
                    scanner.feed(line);
                    self.state = State::Discarding { scanner, len: line.len() as u64, ends_in_cr: false };
                    self.hold(part);
                }
            }
            State::Discarding { scanner, len, ends_in_cr } => {
                // A CR at the end of a part may be half of a CRLF, so the scanner gets it with the next part.
                if mem::replace(ends_in_cr, last == b'\r') {
                    scanner.feed(b"\r");
                }
                scanner.feed(part.strip_suffix(b"\r").unwrap_or(part));
                *len = len.saturating_add(part.len() as u64);
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
                    State::Discarding { scanner, len, ends_in_cr } => {
                        return too_long(scanner, len.saturating_sub(u64::from(ends_in_cr)));
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

/// Cuts fuzz input into chunks of 1 to 8 bytes, in a sequence that `seed` chooses.
pub(crate) fn fuzz_chunks(mut data: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed) + 1;
    let mut chunks = Vec::new();
    while !data.is_empty() {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let (chunk, rest) = data.split_at((state as usize % 8 + 1).min(data.len()));
        chunks.push(chunk);
        data = rest;
    }
    chunks
}

/// Entry point of the fuzz target `framing`: the cuts between chunks change nothing, the frames are the lines of the
/// text, and the id of a line too long is the one that a full parser finds.
///
/// The first two bytes choose the cuts and the limit, the rest is the stream.
///
/// # Panics
/// When one of these does not hold.
#[doc(hidden)]
pub fn fuzz_framing(data: &[u8]) {
    let Some((&[cuts, limit], stream)) = data.split_first_chunk() else {
        return;
    };
    let max_line = usize::from(limit);
    let run = |chunks: &[&[u8]]| {
        let mut splitter = LineSplitter::new(max_line);
        let mut frames = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk), &mut frames);
        }
        frames.extend(splitter.finish());
        frames
    };
    let frames = run(&[stream]);
    assert_eq!(frames, run(&fuzz_chunks(stream, cuts)), "the cuts between chunks matter");

    let text = stream.strip_prefix(Bom::MARK).unwrap_or(stream);
    let lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut lines = lines.filter(|line| !line.iter().all(|byte| b" \t\r".contains(byte)));
    for frame in frames {
        let line = lines.next().unwrap_or_default();
        match frame {
            Frame::Line(text) => assert!(text.len() <= max_line && text == line),
            Frame::TooLong { id, is_request, len } => {
                assert!(line.len() > max_line && len == line.len() as u64);
                let is_id =
                    |raw: &RawValue| raw.get().len() <= MAX_ID && !raw.get().starts_with(['{', '[', 't', 'f', 'n']);
                if let Ok(members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(line) {
                    assert_eq!(is_request, members.contains_key("method"));
                    let expected = members.get("id").filter(|raw| is_id(raw));
                    assert_eq!(id.as_deref(), expected.map(|raw| raw.get()));
                }
                assert!(id.is_none_or(|id| serde_json::from_str(&id).is_ok_and(is_id)), "an id that is none");
            }
        }
    }
    assert_eq!(lines.next(), None, "a line was lost");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]], max_line: usize) -> Vec<Frame> {
        let mut splitter = LineSplitter::new(max_line);
        let mut frames = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk), &mut frames);
        }
        frames.extend(splitter.finish());
        frames
    }

    fn line(text: &'static str) -> Frame {
        Frame::Line(Bytes::from_static(text.as_bytes()))
    }

    fn too_long(id: Option<&str>, is_request: bool, len: u64) -> Frame {
        Frame::TooLong { id: id.map(Into::into), is_request, len }
    }

    #[test]
    fn lines_are_split_wherever_the_chunks_are_cut() {
        let cases: &[(&str, &[u8], &[Frame])] = &[
            ("nothing", b"", &[]),
            ("LF", b"a\nb\n", &[line("a"), line("b")]),
            ("CRLF", b"a\r\nb\r\n", &[line("a"), line("b")]),
            ("a CR alone is whitespace within a line", b"a\rb\n", &[line("a\rb")]),
            ("one CR belongs to the line end", b"a\r\r\n", &[line("a\r")]),
            ("blank lines", b"\n\r\n \t\r\n\n  a \n\r\r\n\n", &[line("  a ")]),
            ("no line end at the end", b"a\nb", &[line("a"), line("b")]),
            ("half a line end at the end", b"a\nb\r", &[line("a"), line("b")]),
            ("blanks at the end", b"a\n \t", &[line("a")]),
            ("BOM at the start", b"\xEF\xBB\xBFa\nb\n", &[line("a"), line("b")]),
            ("BOM on a blank line", b"\xEF\xBB\xBF\r\na\n", &[line("a")]),
            ("BOM alone", b"\xEF\xBB\xBF", &[]),
            ("a second BOM", b"\xEF\xBB\xBF\xEF\xBB\xBFa\n", &[line("\u{feff}a")]),
            ("BOM later", b"a\n\xEF\xBB\xBFb\n", &[line("a"), line("\u{feff}b")]),
            ("half a BOM", b"\xEF\xBBa\n", &[Frame::Line(Bytes::from_static(b"\xEF\xBBa"))]),
            ("half a BOM alone", b"\xEF\xBB", &[Frame::Line(Bytes::from_static(b"\xEF\xBB"))]),
            ("NUL and invalid UTF-8 pass", b"a\0\xFF\n", &[Frame::Line(Bytes::from_static(b"a\0\xFF"))]),
            ("at the limit", b"12345678\n12345678\r\n12345678", &[(); 3].map(|()| line("12345678"))),
            ("over the limit", b"123456789\n123456789\r\n123456789", &[(); 3].map(|()| too_long(None, false, 9))),
            (
                "a CR over the limit that ends no line",
                b"12345678\rx\n12345678\r\r\n12345678\r",
                &[too_long(None, false, 10), too_long(None, false, 9), line("12345678")],
            ),
            (
                "the BOM does not count",
                b"\xEF\xBB\xBF12345678\n\xEF\xBB\xBF12345678\n",
                &[line("12345678"), too_long(None, false, 11)],
            ),
            (
                "too many blanks are still a blank line",
                b"              \na\n            \r\n              ",
                &[line("a")],
            ),
            (
                "the id of a long line",
                b"{\"id\":1,\"method\":\"m\"}\n{\"id\":2}\n{\"id\":\"3\"}\r\n",
                &[too_long(Some("1"), true, 21), line("{\"id\":2}"), too_long(Some("\"3\""), false, 10)],
            ),
        ];
        for (name, stream, expected) in cases {
            assert_eq!(split(&[stream], 8), *expected, "{name}");
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(split(&bytes, 8), *expected, "{name}, byte by byte");
            for at in 0..=stream.len() {
                let (left, right) = stream.split_at(at);
                assert_eq!(split(&[left, &[], right], 8), *expected, "{name}, cut at {at}");
            }
        }
    }

    #[test]
    fn a_line_within_one_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from(b"first\nsecond\r\nthi".to_vec());
        let addresses = [chunk.as_ptr(), chunk[6..].as_ptr()];
        let (mut splitter, mut frames) = (LineSplitter::new(100), Vec::new());
        splitter.push(chunk, &mut frames);
        assert_eq!(frames, [line("first"), line("second")]);
        for (frame, address) in frames.iter().zip(addresses) {
            assert!(matches!(frame, Frame::Line(text) if text.as_ptr() == address));
        }
    }

    #[test]
    fn a_large_line_is_handed_out_without_a_copy_and_nothing_of_it_stays() {
        let (mut splitter, mut frames) = (LineSplitter::new(64 << 20), Vec::new());
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        for _ in 0..500 {
            splitter.push(chunk.clone(), &mut frames);
        }
        let State::Held(held) = &splitter.state else { panic!("the line is within the limit") };
        let (address, capacity) = (held.as_ptr(), held.capacity());
        assert!(capacity <= 64 << 20);
        splitter.push(Bytes::from_static(b"\r\n"), &mut frames);
        assert!(matches!(&frames[..], [Frame::Line(text)] if text.len() == 500 << 16 && text.as_ptr() == address));
        assert!(matches!(&splitter.state, State::Held(held) if held.capacity() == 0));
    }

    #[test]
    fn a_hundred_megabytes_leave_an_id_and_nothing_else() {
        let start = Bytes::from_static(br#"{"method":"tools/call","params":{"id":7,"text":""#);
        let piece = Bytes::from([&[b'x'; 200][..], br#"{\"id\":8}\n"#].concat().repeat(512));
        let end = Bytes::from_static(b"\"},\"jsonrpc\":\"2.0\",\"id\":\"last\"}\n{\"id\":2}\n");
        let (mut splitter, mut frames) = (LineSplitter::new(1 << 20), Vec::new());
        splitter.push(start.clone(), &mut frames);
        let count = (100 << 20) / piece.len() + 1;
        for _ in 0..count {
            splitter.push(piece.clone(), &mut frames);
            assert!(
                matches!(&splitter.state, State::Held(held) if held.capacity() <= 1 << 20)
                    || matches!(&splitter.state, State::Discarding { scanner, .. } if scanner.held() <= 1024)
            );
        }
        assert!(matches!(splitter.state, State::Discarding { .. }));
        splitter.push(end.clone(), &mut frames);
        let len = start.len() + count * piece.len() + end.len() - "\n{\"id\":2}\n".len();
        assert!(len > 100 << 20);
        assert_eq!(frames, [too_long(Some("\"last\""), true, len as u64), line("{\"id\":2}")]);
    }

    #[test]
    fn a_stream_may_follow_another() {
        let (mut splitter, mut frames) = (LineSplitter::new(8), Vec::new());
        for _ in 0..2 {
            splitter.push(Bytes::from_static(b"\xEF\xBB\xBFa\nb"), &mut frames);
            frames.extend(splitter.finish());
        }
        assert_eq!(frames, [line("a"), line("b"), line("a"), line("b")]);
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn cost_grows_with_the_size_alone() {
        let cost_per_byte = |size: usize, max_line: usize| {
            let piece = Bytes::from(vec![b'x'; 4 << 10]);
            let mut best = f64::MAX;
            for _ in 0..3 {
                let (mut splitter, mut frames) = (LineSplitter::new(max_line), Vec::new());
                let start = Instant::now();
                splitter.push(Bytes::from_static(b"{\"a\":\""), &mut frames);
                for _ in 0..size / piece.len() {
                    splitter.push(piece.clone(), &mut frames);
                }
                splitter.push(Bytes::from_static(b"\",\"id\":1}\n"), &mut frames);
                best = best.min(start.elapsed().as_secs_f64());
                assert_eq!(frames.len(), 1);
            }
            #[allow(clippy::cast_precision_loss)] // sizes are small
            let cost = best / size as f64;
            cost
        };
        // Quadratic work makes the large line over 100 times as dear per byte; memory touched for the first time, 20 times.
        let dearest = 50.0;
        for max_line in [1 << 10, 64 << 20] {
            let (small, large) = (cost_per_byte(64 << 10, max_line), cost_per_byte(24 << 20, max_line));
            assert!(large < small * dearest, "{small:e} s/B for 64 KiB, {large:e} s/B for 24 MiB");
        }
    }

    /// Streams of whole messages, broken ones and the bytes that matter to the splitter.
    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec![&b"\n"[..], b"\r\n", b"\r", b" ", b"\xEF\xBB\xBF", b"\0", b"\xFF"]).prop_map(<[u8]>::to_vec),
            4 => prop::sample::select(vec![
                &br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#[..],
                br#"{"method":"m","params":{"id":"no","a":["}",{"id":2}]},"id":"\"q\\"}"#,
                br#"{"result":{},"i\u0064":-1.5e3}"#,
                br#"[{"id":1},{"id":2}]"#,
                br#"{"id":null}"#,
            ]).prop_map(<[u8]>::to_vec),
            3 => prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ",", ":", "\"id\":", "\"method\":", "1", "true"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The fuzz entry's assertions are the property.
        #[test]
        fn any_stream_is_split_into_its_lines(stream in any_stream(), cuts: u8, limit in 0_u8..80) {
            fuzz_framing(&[&[cuts, limit], &stream[..]].concat());
        }
    }
}
