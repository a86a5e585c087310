//! The part of HTTP/1.1 (RFC 9112) that the mock server and the direct client share: heads and chunked bodies.

use std::ops::Range;

use super::Failure;

/// Longest head that is read, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Longest line with a chunk's size, in bytes.
const MAX_CHUNK_LINE: usize = 256;

/// A request's or a response's head. Ranges point into the buffer that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// First word of the first line: the method of a request, `HTTP/1.1` of a response.
    pub(crate) first: Range<usize>,
    /// Second word of the first line: the request's target, or the response's status.
    pub(crate) second: Range<usize>,
    /// `Content-Length`.
    pub(crate) length: Option<usize>,
    /// `Transfer-Encoding: chunked`.
    pub(crate) chunked: bool,
    /// `Content-Type: text/event-stream`.
    pub(crate) event_stream: bool,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<Range<usize>>,
    /// Bytes of the head, the empty line included.
    pub(crate) size: usize,
}

/// Reads the head at the start of `buffer`; `None` when it is not whole yet.
pub(crate) fn parse_head(buffer: &[u8]) -> Result<Option<Head>, Failure> {
    let Some(blank) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        if buffer.len() > MAX_HEAD {
            return Err(Failure::new("HTTP head too long"));
        }
        return Ok(None);
    };
    let text = buffer.get(..blank + 2).unwrap_or_default();
    let mut head = Head {
        first: 0..0,
        second: 0..0,
        length: None,
        chunked: false,
        event_stream: false,
        session: None,
        size: blank + 4,
    };
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', text.get(at..).unwrap_or_default()).map(|n| at + n) {
        let line = at..end.saturating_sub(1);
        if at == 0 {
            (head.first, head.second) =
                first_line(buffer, &line).ok_or_else(|| Failure::new("HTTP first line not understood"))?;
        } else {
            field(buffer, &line, &mut head)?;
        }
        at = end + 1;
    }
    Ok(Some(head))
}

/// Takes a chunked body apart (RFC 9112 section 7.1), however it is cut into reads.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: ChunkState,
}

#[derive(Debug, Default, Clone, Copy)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

impl Chunks {
    /// Appends what `input` holds of the body to `body`. Returns the bytes used up; the rest must be given again.
    pub(crate) fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Failure> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self.state {
                ChunkState::Size => {
                    let Some(line) = line(rest)? else { return Ok(at) };
                    at += line.len() + 2;
                    let digits = line.split(|&b| b == b';').next().unwrap_or_default();
                    let size = std::str::from_utf8(digits)
                        .ok()
                        .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
                        .ok_or_else(|| Failure::new("chunk size not understood"))?;
                    self.state = if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    let part = rest.get(..left.min(rest.len())).unwrap_or_default();
                    if part.is_empty() {
                        return Ok(at);
                    }
                    body.extend_from_slice(part);
                    at += part.len();
                    let left = left - part.len();
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                }
                ChunkState::DataEnd => {
                    if rest.len() < 2 {
                        return Ok(at);
                    }
                    if !rest.starts_with(b"\r\n") {
                        return Err(Failure::new("chunk without its end"));
                    }
                    at += 2;
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailer => {
                    let Some(line) = line(rest)? else { return Ok(at) };
                    at += line.len() + 2;
                    if line.is_empty() {
                        self.state = ChunkState::Done;
                    }
                }
                ChunkState::Done => return Ok(at),
            }
        }
    }

    /// True when the last chunk and the trailers have been read.
    pub(crate) fn done(&self) -> bool {
        matches!(self.state, ChunkState::Done)
    }
}

/// Appends the line that opens a chunk of `size` bytes.
pub(crate) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = u8::try_from((size >> (4 * place)) & 15).unwrap_or_default();
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
    out.extend_from_slice(b"\r\n");
}

/// The line at the start of `input` without its CRLF; `None` when it is not whole yet.
fn line(input: &[u8]) -> Result<Option<&[u8]>, Failure> {
    match memchr::memmem::find(input, b"\r\n") {
        Some(end) => Ok(input.get(..end)),
        None if input.len() > MAX_CHUNK_LINE => Err(Failure::new("chunk line too long")),
        None => Ok(None),
    }
}

/// The first two words of a head's first line.
fn first_line(buffer: &[u8], line: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let text = buffer.get(line.clone())?;
    let first = memchr::memchr(b' ', text)?;
    let rest = text.get(first + 1..)?;
    let second = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    Some((line.start..line.start + first, line.start + first + 1..line.start + first + 1 + second))
}

/// Takes a header field into `head` when it is one that matters here.
fn field(buffer: &[u8], line: &Range<usize>, head: &mut Head) -> Result<(), Failure> {
    let text = buffer.get(line.clone()).unwrap_or_default();
    let Some(colon) = memchr::memchr(b':', text) else { return Err(Failure::new("header field without a colon")) };
    let (name, value) = text.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    // The lengths are compared first: most fields are none of these.
    match name.len() {
        12 if name.eq_ignore_ascii_case(b"content-type") => {
            head.event_stream = value.starts_with(b"text/event-stream");
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            head.length = Some(length.ok_or_else(|| Failure::new("Content-Length not understood"))?);
        }
        14 if name.eq_ignore_ascii_case(b"mcp-session-id") => {
            let end = line.start + text.trim_ascii_end().len();
            head.session = Some(end - value.len()..end);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => head.chunked = value.eq_ignore_ascii_case(b"chunked"),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"POST /mcp HTTP/1.1\r\nhost: x\r\nContent-Length: 12\r\nmcp-session-id:  abc \r\n\r\n{";
        assert_eq!(parse_head(&text[..text.len() - 2]).unwrap(), None);
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!(&text[head.first.clone()], b"POST");
        assert_eq!(&text[head.second.clone()], b"/mcp");
        assert_eq!(&text[head.session.clone().unwrap()], b"abc");
        assert_eq!((head.length, head.chunked, head.event_stream), (Some(12), false, false));
        assert_eq!(head.size, text.len() - 1);
    }

    #[test]
    fn an_endless_head_is_refused() {
        assert!(parse_head(&vec![b'a'; MAX_HEAD + 1]).is_err());
    }

    #[test]
    fn a_bad_length_is_refused() {
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_the_same_however_they_are_cut() {
        let text = b"5\r\nhello\r\n1;x=y\r\n,\r\n6\r\n world\r\n0\r\nTrailer: 1\r\n\r\n";
        for cut in 1..text.len() {
            let (mut chunks, mut body, mut held) = (Chunks::default(), Vec::new(), Vec::new());
            for piece in text.chunks(cut) {
                held.extend_from_slice(piece);
                let used = chunks.decode(&held, &mut body).unwrap();
                held.drain(..used);
            }
            assert!(chunks.done(), "cut {cut}");
            assert_eq!(body, b"hello, world", "cut {cut}");
        }
    }

    #[test]
    fn a_chunk_size_is_hexadecimal() {
        for size in [0, 1, 9, 10, 15, 16, 255, 256, 65_536, 50_000_000] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn an_endless_chunk_line_is_refused() {
        assert!(Chunks::default().decode(&[b'1'; MAX_CHUNK_LINE + 1], &mut Vec::new()).is_err());
    }
}
