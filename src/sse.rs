//! Event-stream decoder: the bytes of a `text/event-stream` body in, events out.
//!
//! It follows WHATWG HTML §9.2.6 "Interpreting an event stream", and differs where a bridge must:
//! - A block that sets only an id or a reconnection time is handed out too. MCP servers send such blocks so that the
//!   client can resume (MCP 2025-11-25, "Streamable HTTP", "Resumability").
//! - `data` stays bytes. It is JSON for someone else, who judges its UTF-8; a replacement character would hide damage.
//! - An id that could not be sent back in a `Last-Event-ID` header is not kept.
//! - Every buffer has a limit.
//!
//! The cost is linear: each byte is looked at once and copied once, wherever the chunks are cut. No IO, no clock.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr2;

use crate::framing::{Bom, append_within, fuzz_chunks};

/// Default for [`Limits::max_event`]: what `--max-message` allows by default.
pub const MAX_EVENT: usize = 64 << 20;
/// Default for [`Limits::max_id`]. HTTP servers commonly take 8 KiB of headers in all.
pub const MAX_ID: usize = 4096;
/// Default for [`Limits::max_name`]. The names that MCP uses have at most eight letters.
pub const MAX_NAME: usize = 256;

/// What one block may make the decoder hold. Comments, unknown fields and `retry` are never held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `data` of one event, joining LFs included. One more is an error.
    pub max_event: usize,
    /// Bytes of an id. A longer one is not kept; its event is handed out.
    pub max_id: usize,
    /// Bytes of an event's name. A longer one is cut there, so it must exceed every name that means something.
    pub max_name: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_event: MAX_EVENT, max_id: MAX_ID, max_name: MAX_NAME }
    }
}

/// One block of the stream that carried data, an id or a reconnection time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The event's type; `None` is `message`, named or not. Always `None` in a block without a `data` field.
    pub name: Option<String>,
    /// The values of the block's `data` fields, joined by LF; not checked for UTF-8. Empty also when there is no such field.
    pub data: Bytes,
    /// What the block did to the last event id; `None` when it did nothing, or sent an id that cannot be kept.
    pub id: Option<IdChange>,
    /// The reconnection time that the block asked for, in milliseconds, as sent. The caller sets floor and ceiling.
    pub retry: Option<u64>,
}

/// A block's effect on the last event id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdChange {
    /// A new id: 1 to [`Limits::max_id`] bytes, no control characters, no blanks around it (a header could not carry
    /// them: RFC 9110 §5.5).
    Set(Box<str>),
    /// An empty id: a reconnection sends no `Last-Event-ID`.
    Clear,
}

/// Why a stream cannot be decoded any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// The data of one event exceeds [`Limits::max_event`].
    #[error("the server sent an event of more than {limit} bytes, which is the limit for one message")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Decoder of one event stream.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    bom: Bom,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    line: Line,
    /// Of the current line: the field name while it is read, then the value of `id` or `event`.
    scratch: Vec<u8>,
    /// Of the current line: the number after `retry:`.
    digits: Option<u64>,
    block: Block,
    /// Empty: none.
    last_event_id: String,
    retry: Option<u64>,
    comments: u64,
    refused_ids: u64,
    failed: Option<SseError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes the next bytes of the stream and appends the events that they complete to `out`.
    ///
    /// An event is complete with its blank line's first byte: nothing waits for the LF of a CRLF. `out` grows by at
    /// most one event for every four bytes of `chunk`, so pass a body on as it comes, not whole.
    ///
    /// After an error the decoder is dead: `out` has the events from before it, every later call fails the same way.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<Event>) -> Result<(), SseError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.decode(chunk, out);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.block = Block::default();
            self.scratch = Vec::new();
        }
        result
    }

    /// The id for a `Last-Event-ID` header: that of the last complete block that set one.
    pub fn last_event_id(&self) -> Option<&str> {
        (!self.last_event_id.is_empty()).then_some(self.last_event_id.as_str())
    }

    /// The reconnection time that the server asked for last; in force from its line on, not from the block's end.
    pub fn retry(&self) -> Option<Duration> {
        self.retry.map(Duration::from_millis)
    }

    /// Number of comment lines begun so far. Servers send comments to show that they live.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Number of ids so far that could not be kept: too long, with control characters (NUL included), or not UTF-8.
    pub fn refused_ids(&self) -> u64 {
        self.refused_ids
    }

    /// Ends the stream. True if it broke off inside a block, which is thrown away as the specification asks.
    ///
    /// Last event id and reconnection time stay, and the decoder stands at the start of a next stream.
    pub fn finish(&mut self) -> bool {
        let in_name = matches!(self.line, Line::Name) && !(self.scratch.is_empty() && self.bom.held().is_empty());
        let unfinished = self.block.begun || in_name;
        *self = Self {
            last_event_id: mem::take(&mut self.last_event_id),
            retry: self.retry,
            comments: self.comments,
            refused_ids: self.refused_ids,
            ..Self::new(self.limits)
        };
        unfinished
    }

    fn decode(&mut self, chunk: &[u8], out: &mut Vec<Event>) -> Result<(), SseError> {
        let (held, mut rest) = self.bom.strip(chunk);
        self.read(held)?;
        while let Some((&first, tail)) = rest.split_first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = tail;
                continue;
            }
            // Every second line is blank: no search for those.
            let end = if first == b'\n' || first == b'\r' { Some(0) } else { memchr2(b'\n', b'\r', rest) };
            let Some(end) = end else {
                return self.read(rest);
            };
            let (line, tail) = rest.split_at(end);
            if !line.is_empty() {
                self.read(line)?;
            }
            self.end_line(out)?;
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes a part of a line, without any line end in it.
    fn read(&mut self, mut part: &[u8]) -> Result<(), SseError> {
        if let Line::Name = self.line {
            let room = Field::LONGEST.saturating_sub(self.scratch.len());
            let head = part.get(..=room).unwrap_or(part);
            let Some(colon) = head.iter().position(|&byte| byte == b':') else {
                if head.len() > room {
                    self.begin_value(Field::Unknown)?;
                } else {
                    self.scratch.extend_from_slice(head);
                }
                return Ok(());
            };
            let (name, value) = part.split_at(colon);
            let field = if self.scratch.is_empty() {
                Field::named(name)
            } else {
                self.scratch.extend_from_slice(name);
                Field::named(&self.scratch)
            };
            self.begin_value(field)?;
            part = value.get(1..).unwrap_or_default();
        }
        let Line::Value { field, begun } = &mut self.line else {
            return Ok(());
        };
        let field = *field;
        if !part.is_empty() && !mem::replace(begun, true) {
            part = part.strip_prefix(b" ").unwrap_or(part);
        }
        match field {
            Field::Data => self.append_data(part)?,
            Field::Event => append_up_to(&mut self.scratch, part, self.limits.max_name),
            // One byte over the limit tells `end_id` that the id is too long.
            Field::Id => append_up_to(&mut self.scratch, part, self.limits.max_id.saturating_add(1)),
            Field::Retry => self.append_digits(part),
            Field::Comment | Field::Unknown => {}
        }
        Ok(())
    }

    fn begin_value(&mut self, field: Field) -> Result<(), SseError> {
        self.scratch.clear();
        self.line = Line::Value { field, begun: false };
        self.block.begun |= !matches!(field, Field::Comment | Field::Unknown);
        match field {
            Field::Data => {
                if mem::replace(&mut self.block.has_data, true) {
                    self.append_data(b"\n")?;
                }
            }
            Field::Retry => self.digits = None,
            Field::Comment => {
                self.comments = self.comments.wrapping_add(1);
                self.line = Line::Ignored;
            }
            Field::Unknown => self.line = Line::Ignored,
            Field::Event | Field::Id => {}
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<Event>) -> Result<(), SseError> {
        if let Line::Name = self.line {
            if self.scratch.is_empty() {
                self.end_block(out);
                return Ok(());
            }
            // A line without a colon is a field with an empty value.
            self.begin_value(Field::named(&self.scratch))?;
        }
        if let Line::Value { field, .. } = mem::take(&mut self.line) {
            match field {
                Field::Event => self.block.name = event_name(&self.scratch),
                Field::Id => self.end_id(),
                Field::Retry => {
                    // No digits at all change nothing, as in browsers.
                    self.retry = self.digits.or(self.retry);
                    self.block.retry = self.digits.or(self.block.retry);
                }
                Field::Data | Field::Comment | Field::Unknown => {}
            }
            self.scratch.clear();
        }
        Ok(())
    }

    fn end_id(&mut self) {
        if self.scratch.len() > self.limits.max_id {
            self.refused_ids = self.refused_ids.wrapping_add(1);
            return;
        }
        match str::from_utf8(&self.scratch) {
            Ok(id) if !id.contains(char::is_control) => {
                let id = id.trim_matches(' ');
                self.block.id = Some(if id.is_empty() { IdChange::Clear } else { IdChange::Set(id.into()) });
            }
            // The older id stays: a resumption from there brings an event twice, one from nowhere may lose it.
            _ => self.refused_ids = self.refused_ids.wrapping_add(1),
        }
    }

    fn end_block(&mut self, out: &mut Vec<Event>) {
        if !self.block.begun {
            return;
        }
        let Block { data, has_data, name, id, retry, .. } = mem::take(&mut self.block);
        match &id {
            Some(IdChange::Set(id)) => id.as_ref().clone_into(&mut self.last_event_id),
            Some(IdChange::Clear) => self.last_event_id.clear(),
            None => {}
        }
        if has_data || id.is_some() || retry.is_some() {
            // The vector itself is handed out: nothing is copied, and no capacity stays here.
            out.push(Event { name: name.filter(|_| has_data), data: Bytes::from(data), id, retry });
        }
    }

    fn append_data(&mut self, part: &[u8]) -> Result<(), SseError> {
        let data = &mut self.block.data;
        let limit = self.limits.max_event;
        let room = limit.saturating_sub(data.len());
        if part.len() > room {
            return Err(SseError::TooLarge { limit });
        }
        append_within(data, part, limit);
        Ok(())
    }

    fn append_digits(&mut self, part: &[u8]) {
        for byte in part {
            if !byte.is_ascii_digit() {
                self.line = Line::Ignored;
                return;
            }
            let digit = u64::from(byte - b'0');
            self.digits = Some(self.digits.unwrap_or(0).saturating_mul(10).saturating_add(digit));
        }
    }
}

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy, Default)]
enum Line {
    /// At the start, or within the field name.
    #[default]
    Name,
    /// Behind the colon; `begun` once a byte of the value was seen, so that one leading space can be dropped.
    Value { field: Field, begun: bool },
    /// In a line whose rest means nothing.
    Ignored,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Data,
    Event,
    Id,
    Retry,
    Comment,
    Unknown,
}

impl Field {
    /// Length of the longest name below.
    const LONGEST: usize = 5;

    fn named(name: &[u8]) -> Self {
        match name {
            b"data" => Self::Data,
            b"event" => Self::Event,
            b"id" => Self::Id,
            b"retry" => Self::Retry,
            b"" => Self::Comment,
            _ => Self::Unknown,
        }
    }
}

/// What the lines since the last blank line said.
#[derive(Debug, Default)]
struct Block {
    /// There was a field that means something, if not with a value that does.
    begun: bool,
    data: Vec<u8>,
    has_data: bool,
    name: Option<String>,
    id: Option<IdChange>,
    retry: Option<u64>,
}

fn event_name(value: &[u8]) -> Option<String> {
    match value {
        b"" | b"message" => None,
        _ => Some(String::from_utf8_lossy(value).into_owned()),
    }
}

fn append_up_to(buffer: &mut Vec<u8>, part: &[u8], limit: usize) {
    let room = limit.saturating_sub(buffer.len());
    buffer.extend_from_slice(part.get(..room).unwrap_or(part));
}

/// Entry point of the fuzz target `sse`: the cuts between chunks change nothing, and every limit holds.
///
/// The first two bytes choose the cuts and the limits, the rest is the stream.
///
/// # Panics
/// When one of these does not hold.
#[doc(hidden)]
pub fn fuzz_sse(data: &[u8]) {
    let Some((&[cuts, limit], stream)) = data.split_first_chunk() else {
        return;
    };
    let limit = usize::from(limit);
    let limits = Limits { max_event: limit * 4, max_id: limit, max_name: limit };
    let run = |chunks: &[&[u8]]| {
        let mut decoder = Decoder::new(limits);
        let mut events = Vec::new();
        let result = chunks.iter().try_for_each(|chunk| decoder.push(chunk, &mut events));
        let in_force = (decoder.last_event_id().map(str::to_owned), decoder.retry());
        (events, result, in_force, decoder.comments(), decoder.refused_ids(), decoder.finish())
    };
    let whole = run(&[stream]);
    assert_eq!(whole, run(&fuzz_chunks(stream, cuts)), "the cuts between chunks matter");
    assert!(whole.0.len() * 4 <= stream.len(), "events out of nothing");
    for event in whole.0 {
        assert!(event.data.len() <= limits.max_event);
        // A replacement character is three bytes for at least one.
        assert!(event.name.is_none_or(|name| name.len() <= limits.max_name * 3 && name != "message"));
        if let Some(IdChange::Set(id)) = event.id {
            assert!(!id.is_empty() && id.len() <= limits.max_id && id.trim_matches([' ', '\t']) == &*id);
            assert!(http::HeaderValue::from_bytes(id.as_bytes()).is_ok_and(|value| !value.is_empty()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn decode(decoder: &mut Decoder, chunks: &[&[u8]]) -> Result<Vec<Event>, SseError> {
        let mut out = Vec::new();
        chunks.iter().try_for_each(|chunk| decoder.push(chunk, &mut out))?;
        Ok(out)
    }

    fn message(data: &'static str) -> Event {
        Event { data: Bytes::from_static(data.as_bytes()), ..Event::default() }
    }

    #[test]
    fn an_event_comes_with_the_first_byte_of_its_blank_line() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("data: a{end}{end}data: b{end}{end}");
            let block = "data: a".len() + 2 * end.len();
            // An LF that follows the CR of the blank line brings nothing more.
            let due = [block + 1 - end.len(), 2 * block + 1 - end.len()];
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for (at, byte) in text.bytes().enumerate() {
                decoder.push(&[byte], &mut out).unwrap();
                assert_eq!(out.len(), due.iter().filter(|&&due| due <= at + 1).count(), "{end:?} at {at}");
            }
            assert_eq!(out, [message("a"), message("b")], "{end:?}");
        }
    }

    #[test]
    fn data_is_handed_out_without_a_copy_and_nothing_of_it_stays() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 16 << 10];
        decode(&mut decoder, &[b"data: "]).unwrap();
        for _ in 0..512 {
            decode(&mut decoder, &[&piece]).unwrap();
        }
        let address = decoder.block.data.as_ptr();
        let out = decode(&mut decoder, &[b"\n\n"]).unwrap();
        assert_eq!(out[0].data.len(), 8 << 20);
        assert_eq!(out[0].data.as_ptr(), address);
        assert_eq!(decoder.block.data.capacity() + decoder.scratch.capacity(), 0);
    }

    #[test]
    fn data_of_one_piece_has_no_slack_and_no_event_outgrows_the_limit() {
        let limits = Limits { max_event: 1000, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        decode(&mut decoder, &[b"data: 1234567\n"]).unwrap();
        assert_eq!(decoder.block.data.capacity(), 7);
        for _ in 0..15 {
            decode(&mut decoder, &[b"data: ", &[b'x'; 63], b"\n"]).unwrap();
            assert!(decoder.block.data.capacity() <= 1000);
        }
        assert_eq!(decoder.block.data.len(), 967);
        decode(&mut decoder, &[b"data: ", &[b'x'; 32]]).unwrap();
        assert_eq!(decode(&mut decoder, &[b"x"]), Err(SseError::TooLarge { limit: 1000 }));
    }

    #[test]
    fn an_event_over_the_limit_kills_the_decoder_and_frees_its_memory() {
        let limits = Limits { max_event: 1 << 20, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let mut out = Vec::new();
        decoder.push(b"id: 1\ndata: good\n\nid: 2\ndata: ", &mut out).unwrap();
        let piece = vec![b'x'; 64 << 10];
        let fed = (0..100).take_while(|_| decoder.push(&piece, &mut out).is_ok()).count();
        assert_eq!(fed, 16);
        assert_eq!(decoder.block.data.capacity(), 0);
        assert_eq!(decoder.push(b"\n\ndata: late\n\n", &mut out), Err(SseError::TooLarge { limit: 1 << 20 }));
        assert_eq!(out.iter().map(|event| &event.data[..]).collect::<Vec<_>>(), [b"good"]);
        assert_eq!(decoder.last_event_id(), Some("1"));
    }

    #[test]
    fn a_limit_may_be_reached_by_the_joining_line_feeds_alone() {
        let mut decoder = Decoder::new(Limits { max_event: 10_000, ..Limits::default() });
        let flood = b"data\n".repeat(20_000);
        assert_eq!(decode(&mut decoder, &[&flood]), Err(SseError::TooLarge { limit: 10_000 }));
    }

    #[test]
    fn lines_that_mean_nothing_cost_no_memory() {
        for flood in
            ["x", ": x", "x: y", "data2: y", "retry: 5", "retry: x", ":\n", "x\n", "id: 1\n", "event: e\n", "\n"]
        {
            let mut decoder = Decoder::default();
            let flood = flood.as_bytes().repeat(100_000);
            let out = decode(&mut decoder, &[&flood, &flood]).unwrap();
            assert_eq!(out, []);
            assert!(decoder.scratch.capacity() <= 64 && decoder.block.data.capacity() == 0);
        }
    }

    #[test]
    fn ids_and_names_are_held_up_to_their_limits() {
        for (field, limit) in [("id: ", MAX_ID), ("event: ", MAX_NAME)] {
            for len in [limit, limit + 1, 50 * limit] {
                let mut decoder = Decoder::default();
                let value = vec![b'v'; len];
                let mut out = decode(&mut decoder, &[field.as_bytes(), &value]).unwrap();
                assert!(decoder.scratch.capacity() <= 2 * limit + 2, "{field}{len}");
                out.extend(decode(&mut decoder, &[b"\ndata: a\n\n"]).unwrap());
                let event = &out[0];
                assert_eq!(&event.data[..], b"a");
                if field == "id: " {
                    assert_eq!(matches!(&event.id, Some(IdChange::Set(id)) if id.len() == limit), len == limit);
                    assert_eq!(decoder.refused_ids(), u64::from(len > limit));
                } else {
                    assert_eq!(event.name.as_deref().map(str::len), Some(limit));
                }
            }
        }
    }

    #[test]
    fn a_number_may_be_long() {
        let mut decoder = Decoder::default();
        let zeros = vec![b'0'; 1 << 20];
        decode(&mut decoder, &[b"retry: ", &zeros, b"250\n"]).unwrap();
        assert_eq!(decoder.retry(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn after_its_end_a_decoder_serves_the_next_stream() {
        let mut decoder = Decoder::default();
        decode(&mut decoder, &[b"id: 7\nretry: 5\ndata: a\n\ndata: b\r"]).unwrap();
        assert!(decoder.finish());
        assert!(!decoder.finish());
        assert_eq!((decoder.last_event_id(), decoder.retry()), (Some("7"), Some(Duration::from_millis(5))));
        // The LF is no half of a CRLF, and a BOM may stand here.
        assert_eq!(decode(&mut decoder, &[b"\xEF\xBB\xBF\n\ndata: c\n\n"]), Ok(vec![message("c")]));
        assert!(!decoder.finish());
    }

    #[test]
    fn cost_grows_with_the_size_alone() {
        // Quadratic work makes the large event over 100 times as dear per byte; memory touched for the first time, 20 times.
        let dearest = 50.0;
        let cost_per_byte = |size: usize| {
            let piece = vec![b'x'; 4 << 10];
            let mut best = f64::MAX;
            for _ in 0..3 {
                let (mut decoder, mut out) = (Decoder::default(), Vec::new());
                let start = Instant::now();
                decoder.push(b"data: ", &mut out).unwrap();
                for _ in 0..size / piece.len() {
                    decoder.push(&piece, &mut out).unwrap();
                }
                decoder.push(b"\n\n", &mut out).unwrap();
                best = best.min(start.elapsed().as_secs_f64());
                assert_eq!(out[0].data.len(), size);
            }
            #[allow(clippy::cast_precision_loss)] // sizes are small
            let cost = best / size as f64;
            cost
        };
        let (small, large) = (cost_per_byte(64 << 10), cost_per_byte(24 << 20));
        assert!(large < small * dearest, "{small:e} s/B for 64 KiB, {large:e} s/B for 24 MiB");
    }

    #[test]
    fn fuzz_entry_takes_any_length() {
        for data in [&b""[..], b"a", b"ab", b"\x05\x20data: a\n\n"] {
            fuzz_sse(data);
        }
    }
}
