//! The small language of `fixtures/hostile`: what one side sends, byte for byte, and what must come of it.
//!
//! A case is lines. `#` begins a comment. First come settings:
//! ```text
//! row 48                      the row of the threat model
//! args --max-message 1m       further arguments of the bridge
//! server streaming            streaming, http-sse, no-sessions or old (2025-03-26); plain without it
//! open why                    a defect that is known and not mended yet: the case must fail
//! rss 160m                    the most that may ever be resident; 64m without it
//! ```
//! Then what is sent. `on KEY [N]` begins the server's reply to the messages of that method (or `GET`, `DELETE`, `response`),
//! or to the Nth of them only; a `tools/call` is concerned only if it calls the tool `target`. `client` begins what the client writes
//! instead of its usual call of `target`. In both:
//! ```text
//! >text                       the text and CRLF (from the client: LF)
//! "text"                      the bytes alone; \n \r \t \0 \" \\ \xHH \u{HHHH}
//! repeat 1000 "text"          so many times
//! fill 200m "text"            until there are so many bytes
//! chunk "text"                one chunk of a chunked body
//! last-chunk                  its end
//! gzip 500m                   a gzip stream of so many zeros
//! trickle 10ms "text"         byte by byte
//! wait 300ms    hold    cut    reset    next    eof
//! asks "big"                  (client) a request with this id is in a line over a mebibyte, which is not looked into
//! ```
//! `{id}` stands for the id of the request that is answered, `{other}` for another origin. A reply ends with its connection unless
//! `next` says that it stays open.
//!
//! Then what must come of it:
//! ```text
//! expect "target" result                  also: error, error -32600, error not-mcp, answer (either)
//! expect null error -32700 3              so many of them
//! expect notification notifications/x
//! expect exactly 1 initialize             requests of that key; also: at-most
//! expect header mcp-name x                some request carries it; also: no-header NAME
//! expect stdout lacks text                also: has
//! ```

use std::time::Duration;

use bytes::Bytes;

use super::wire::{Reply, Step, chunk};

/// One file of `fixtures/hostile`.
#[derive(Debug, Default)]
pub struct Case {
    pub name: String,
    pub row: u32,
    pub args: Vec<String>,
    pub server: String,
    pub rss: usize,
    /// Why it fails for now.
    pub open: Option<String>,
    pub replies: Vec<Block>,
    pub client: Option<Vec<Piece>>,
    pub expects: Vec<Expect>,
}

/// The reply to one kind of message.
#[derive(Debug)]
pub struct Block {
    pub key: String,
    pub nth: Option<usize>,
    pub pieces: Vec<Piece>,
}

/// One thing that is sent or done.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// Bytes, so many times.
    Repeat(Vec<u8>, usize),
    Chunk(Vec<u8>),
    Gzip(u64),
    Trickle(Vec<u8>, Duration),
    Wait(Duration),
    Hold,
    Cut,
    Reset,
    Next,
    Eof,
    Asks(String),
}

/// What must come of it.
#[derive(Debug)]
pub enum Expect {
    /// An id as JSON text, what kind of answer, and how many.
    Answer {
        id: String,
        answer: Answer,
        count: Option<usize>,
    },
    Notification(String),
    Requests {
        key: String,
        least: usize,
        most: usize,
    },
    Header {
        name: String,
        value: String,
    },
    NoHeader(String),
    Stdout {
        has: bool,
        text: String,
    },
}

/// A kind of answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Any,
    Result,
    Error,
    Code(i64),
    Kind(String),
}

impl Case {
    /// Reads a case. Panics with the line on what it does not understand.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut case = Self { name: name.to_owned(), rss: 64 << 20, ..Self::default() };
        let mut in_client = false;
        for (number, line) in text.lines().enumerate() {
            let here = || format!("{name}:{}: {line}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "row" => case.row = rest.parse().unwrap_or_else(|_| panic!("{}", here())),
                "args" => case.args = rest.split_whitespace().map(str::to_owned).collect(),
                "open" => case.open = Some(rest.to_owned()),
                "server" => rest.clone_into(&mut case.server),
                "rss" => case.rss = size(rest).unwrap_or_else(|| panic!("{}", here())),
                "on" => {
                    in_client = false;
                    let (key, nth) = rest.split_once(' ').unwrap_or((rest, ""));
                    case.replies.push(Block { key: key.to_owned(), nth: nth.parse().ok(), pieces: Vec::new() });
                }
                "client" => {
                    in_client = true;
                    case.client = Some(Vec::new());
                }
                "expect" => case.expects.push(expect(rest).unwrap_or_else(|| panic!("{}", here()))),
                _ => {
                    let piece =
                        piece(line, if in_client { "\n" } else { "\r\n" }).unwrap_or_else(|| panic!("{}", here()));
                    let pieces = if in_client {
                        case.client.as_mut()
                    } else {
                        case.replies.last_mut().map(|block| &mut block.pieces)
                    };
                    pieces.unwrap_or_else(|| panic!("{}", here())).push(piece);
                }
            }
        }
        assert!(case.row > 0 && !case.expects.is_empty(), "{name}: a case names its row and what it expects");
        case
    }
}

fn expect(text: &str) -> Option<Expect> {
    let (word, rest) = text.split_once(' ')?;
    Some(match word {
        "notification" => Expect::Notification(rest.to_owned()),
        "exactly" | "at-most" => {
            let (count, key) = rest.split_once(' ')?;
            let most = count.parse().ok()?;
            Expect::Requests { key: key.to_owned(), least: if word == "exactly" { most } else { 0 }, most }
        }
        "header" => {
            let (name, value) = rest.split_once(' ')?;
            Expect::Header { name: name.to_owned(), value: value.to_owned() }
        }
        "no-header" => Expect::NoHeader(rest.to_owned()),
        "stdout" => {
            let (has, text) = rest.split_once(' ')?;
            Expect::Stdout { has: has == "has", text: text.to_owned() }
        }
        id => {
            let mut words = rest.split(' ');
            let kind = words.next()?;
            let mut more: Vec<&str> = words.collect();
            let count = more.last().and_then(|last| last.parse::<usize>().ok());
            if count.is_some() {
                more.pop();
            }
            let answer = match (kind, more.first()) {
                ("answer", None) => Answer::Any,
                ("result", None) => Answer::Result,
                ("error", None) => Answer::Error,
                ("error", Some(what)) => what.parse().map_or_else(|_| Answer::Kind((*what).to_owned()), Answer::Code),
                _ => return None,
            };
            Expect::Answer { id: id.to_owned(), answer, count }
        }
    })
}

fn piece(line: &str, line_end: &str) -> Option<Piece> {
    if let Some(text) = line.strip_prefix('>') {
        return Some(Piece::Bytes(format!("{text}{line_end}").into_bytes()));
    }
    if line.starts_with('"') {
        return quoted(line).map(Piece::Bytes);
    }
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let arguments = || rest.split_once(' ');
    Some(match word {
        "repeat" => {
            let (count, text) = arguments()?;
            Piece::Repeat(quoted(text)?, count.parse().ok()?)
        }
        "fill" => {
            let (total, text) = arguments()?;
            let text = quoted(text)?;
            let count = size(total)? / text.len();
            Piece::Repeat(text, count)
        }
        "chunk" => Piece::Chunk(quoted(rest)?),
        "last-chunk" => Piece::Bytes(b"0\r\n\r\n".to_vec()),
        "gzip" => Piece::Gzip(size(rest)? as u64),
        "trickle" => {
            let (pause, text) = arguments()?;
            Piece::Trickle(quoted(text)?, time(pause)?)
        }
        "wait" => Piece::Wait(time(rest)?),
        "hold" => Piece::Hold,
        "cut" => Piece::Cut,
        "reset" => Piece::Reset,
        "next" => Piece::Next,
        "eof" => Piece::Eof,
        "asks" => Piece::Asks(rest.to_owned()),
        _ => return None,
    })
}

/// `512`, `4k`, `200m`.
fn size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.chars().last()? {
        'k' => (text.strip_suffix('k')?, 1 << 10),
        'm' => (text.strip_suffix('m')?, 1 << 20),
        _ => (text, 1),
    };
    Some(digits.parse::<usize>().ok()? * unit)
}

fn time(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return milliseconds.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

fn quoted(text: &str) -> Option<Vec<u8>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = Vec::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match characters.next()? {
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '"' => out.push(b'"'),
            '\\' => out.push(b'\\'),
            'x' => {
                let digits: String = characters.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).ok()?);
            }
            'u' => {
                let digits: String = characters.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let character = char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    Some(out)
}

/// Fills in what is known only when it is sent.
pub fn fill_in(bytes: &[u8], id: &str, other: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'{', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (word, value) = if rest.starts_with(b"{id}") {
            ("{id}", id)
        } else if rest.starts_with(b"{other}") {
            ("{other}", other)
        } else {
            ("{", "{")
        };
        out.extend_from_slice(value.as_bytes());
        rest = &rest[word.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// The pieces as the reply to a request with this id.
pub fn reply(pieces: &[Piece], id: &str, other: &str) -> Reply {
    let mut reply = Reply::nothing();
    for piece in pieces {
        reply = match piece {
            Piece::Bytes(bytes) => reply.write(fill_in(bytes, id, other)),
            Piece::Repeat(bytes, count) => reply.each(repeated(bytes, *count)),
            Piece::Chunk(bytes) => reply.write(chunk(&fill_in(bytes, id, other))),
            Piece::Gzip(zeros) => reply.each(gzip_of_zeros(*zeros)),
            Piece::Trickle(bytes, pause) => reply.step(Step::Trickle(fill_in(bytes, id, other).into(), *pause)),
            Piece::Wait(time) => reply.wait(*time),
            Piece::Hold => reply.hold(),
            Piece::Cut => reply.cut(),
            Piece::Reset => reply.reset(),
            Piece::Next => reply.end(),
            Piece::Eof | Piece::Asks(_) => panic!("this is for a client"),
        };
    }
    reply
}

/// Many times the same, in pieces of a good size for a socket.
pub fn repeated(bytes: &[u8], count: usize) -> impl Iterator<Item = Bytes> + Send + use<> {
    const GOOD: usize = 1 << 16;
    let at_once = (GOOD / bytes.len()).clamp(1, count.max(1));
    let block = Bytes::from(bytes.repeat(at_once));
    let rest = block.slice(..bytes.len() * (count % at_once));
    std::iter::repeat_n(block, count / at_once).chain(std::iter::once(rest))
}

/// A gzip stream (RFC 1952) of zeros: one literal, then matches of 258 bytes at distance 1, 158 bytes out for one in. Its
/// checksum is wrong, but that comes at the end.
fn gzip_of_zeros(zeros: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut head = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // RFC 1951 §3.2.6, bits from the least significant: final block, fixed codes (1, 10), the literal 0 (00110000).
    let mut bits = String::from("11000110000");
    // Length 258 is code 285 (11000101), distance 1 is code 0 (00000): 13 bits, so after the first byte every 13 bytes are alike.
    bits.push_str(&"1100010100000".repeat(9));
    let byte = |n: usize| bits[n * 8..n * 8 + 8].bytes().rev().fold(0_u8, |byte, bit| byte << 1 | (bit - b'0'));
    head.push(byte(0));
    let period: Vec<u8> = (1..14).map(byte).collect();
    let count = usize::try_from(zeros / (258 * 8)).unwrap_or(0);
    std::iter::once(Bytes::from(head)).chain(repeated(&period, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gzip_stream_begins_as_one() {
        let stream: Vec<u8> = gzip_of_zeros(1 << 20).flatten().collect();
        assert_eq!(stream[..3], [0x1f, 0x8b, 8]);
        assert_eq!(stream.len(), 11 + 13 * ((1 << 20) / 2064));
        // As zlib's inflate reads it: checked once with another program, kept as bytes.
        assert_eq!(
            stream[10..24],
            [0x63, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x8c, 0x82, 0x51, 0x30, 0x0a, 0x46, 0xc1, 0x28]
        );
    }
}
