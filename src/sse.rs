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

use crate::framing::{Bom, append_within};

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
    last_event_id: Option<Box<str>>,
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
        self.last_event_id.as_deref()
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
        let in_line = match self.line {
            Line::Name => !self.scratch.is_empty() || !self.bom.held().is_empty(),
            Line::Value { .. } => true,
            Line::Ignored => false,
        };
        let unfinished = self.failed.is_none() && (in_line || self.block != Block::default());
        *self = Self {
            last_event_id: self.last_event_id.take(),
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
        while let Some(&first) = rest.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                return self.read(rest);
            };
            let (line, tail) = rest.split_at(end);
            self.read(line)?;
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
        let Block { data, has_data, name, id, retry } = mem::take(&mut self.block);
        match &id {
            Some(IdChange::Set(id)) => self.last_event_id = Some(id.clone()),
            Some(IdChange::Clear) => self.last_event_id = None,
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
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
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
