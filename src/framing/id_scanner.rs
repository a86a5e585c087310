//! Finds the top-level `id` of a JSON object while its text passes by.
//!
//! A tokenizer, not a validator: it follows strings, escapes and nesting, and holds one key and one id, both bounded.
//! On text that is not JSON it stops where it notices, and reports what it had read until then.

use std::mem;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// Bytes of an id's JSON text, quotes included. A longer id counts as unknown.
pub const MAX_ID: usize = 256;
/// Bytes of a key that are held: one more than the longest key of interest, so that a longer key differs from it.
const MAX_KEY: usize = "method".len() + 1;

/// Scanner of one line's JSON text.
#[derive(Debug, Default)]
pub(super) struct IdScanner {
    state: State,
    /// The next byte of a string is escaped.
    escaped: bool,
    /// The current key with its escapes resolved, as far as it is of interest.
    key: Vec<u8>,
    /// Text of the `id` that is being read, one byte more than allowed at most.
    capture: Option<Vec<u8>>,
    id: Option<Box<str>>,
    has_method: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte that is not whitespace.
    #[default]
    Start,
    /// Before a key.
    BeforeKey,
    Key,
    /// In a key, behind `\u`, with the value of the hex digits so far and the number still to come.
    KeyHex {
        value: u32,
        left: u8,
    },
    BeforeColon,
    BeforeValue,
    /// In a top-level value: a string, a number or a literal.
    String,
    Scalar,
    /// In a top-level value that is an array or object, with the number of open brackets.
    Nested {
        depth: u64,
    },
    NestedString {
        depth: u64,
    },
    AfterValue,
    /// Behind the object, in an array or in something that is not JSON: nothing more to learn.
    Done,
}

impl IdScanner {
    /// Takes the next part of the line.
    pub(super) fn feed(&mut self, mut text: &[u8]) {
        while let Some((&byte, tail)) = text.split_first() {
            text = match self.state {
                State::Done => return,
                State::String => self.read_string(text, State::AfterValue),
                State::NestedString { depth } => self.read_string(text, State::Nested { depth }),
                State::Nested { depth } => self.read_nested(text, depth),
                State::Key | State::KeyHex { .. } => {
                    self.read_key(byte);
                    tail
                }
                State::Scalar if !is_space(byte) && byte != b',' && byte != b'}' => {
                    self.keep(&[byte]);
                    tail
                }
                State::Scalar => {
                    self.end_value();
                    text
                }
                _ => {
                    if !is_space(byte) {
                        self.read_structure(byte);
                    }
                    tail
                }
            };
        }
    }

    /// Whether there was nothing but whitespace.
    pub(super) fn is_blank(&self) -> bool {
        self.state == State::Start
    }

    /// Whether a top-level `method` was seen.
    pub(super) fn has_method(&self) -> bool {
        self.has_method
    }

    /// The JSON text of the last top-level `id` that is a string or a number.
    pub(super) fn into_id(self) -> Option<Box<str>> {
        self.id
    }

    /// Bytes of memory beyond the scanner itself.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.key.capacity() + self.capture.as_ref().map_or(0, Vec::capacity) + self.id.as_ref().map_or(0, |id| id.len())
    }

    /// Takes a byte outside of all values that is not whitespace.
    fn read_structure(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Start, b'{') | (State::AfterValue, b',') => State::BeforeKey,
            (State::BeforeKey, b'"') => {
                self.key.clear();
                State::Key
            }
            (State::BeforeColon, b':') => {
                self.has_method |= self.key == b"method";
                if self.key == b"id" {
                    self.id = None;
                    self.capture = Some(Vec::new());
                }
                State::BeforeValue
            }
            (State::BeforeValue, b'{' | b'[') => {
                self.capture = None;
                State::Nested { depth: 1 }
            }
            (State::BeforeValue, b'"') => {
                self.keep(&[byte]);
                State::String
            }
            (State::BeforeValue, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.keep(&[byte]);
                State::Scalar
            }
            _ => State::Done,
        };
    }

    fn read_key(&mut self, byte: u8) {
        let letter = match self.state {
            State::KeyHex { value, left } => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.state = State::Done;
                    return;
                };
                let value = value << 4 | digit;
                if left > 1 {
                    self.state = State::KeyHex { value, left: left - 1 };
                    return;
                }
                self.state = State::Key;
                u8::try_from(value).unwrap_or(u8::MAX)
            }
            _ if mem::take(&mut self.escaped) => {
                if byte == b'u' {
                    self.state = State::KeyHex { value: 0, left: 4 };
                    return;
                }
                // No key of interest has a character with a short escape.
                u8::MAX
            }
            _ if byte == b'\\' => {
                self.escaped = true;
                return;
            }
            _ if byte == b'"' => {
                self.state = State::BeforeColon;
                return;
            }
            _ => byte,
        };
        if self.key.len() < MAX_KEY {
            self.key.push(letter);
        }
    }

    /// Takes a part of a string; its state is left with the closing quote. Returns what follows.
    fn read_string<'a>(&mut self, text: &'a [u8], next: State) -> &'a [u8] {
        let len = if mem::take(&mut self.escaped) {
            1
        } else if let Some(end) = memchr2(b'"', b'\\', text) {
            self.escaped = text.get(end) == Some(&b'\\');
            if !self.escaped {
                self.state = next;
            }
            end + 1
        } else {
            text.len()
        };
        let (part, rest) = text.split_at(len);
        self.keep(part);
        if self.state == State::AfterValue {
            self.end_value();
        }
        rest
    }

    /// Takes a part of an array or object up to a string in it or to its end. Returns what follows.
    fn read_nested<'a>(&mut self, text: &'a [u8], mut depth: u64) -> &'a [u8] {
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' => {
                    self.state = State::NestedString { depth };
                    return text.get(at + 1..).unwrap_or_default();
                }
                _ => continue,
            }
            if depth == 0 {
                self.state = State::AfterValue;
                return text.get(at + 1..).unwrap_or_default();
            }
        }
        self.state = State::Nested { depth };
        &[]
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(capture) = &mut self.capture {
            let room = (MAX_ID + 1).saturating_sub(capture.len());
            capture.extend_from_slice(part.get(..room).unwrap_or(part));
        }
    }

    fn end_value(&mut self) {
        self.state = State::AfterValue;
        self.id = self.capture.take().and_then(id_text).or(self.id.take());
    }
}

/// The text, if it may stand as an id in a message of ours.
fn id_text(raw: Vec<u8>) -> Option<Box<str>> {
    let text = String::from_utf8(raw).ok()?;
    let kind = matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
    let valid = kind && text.len() <= MAX_ID && serde_json::from_str::<IgnoredAny>(&text).is_ok();
    valid.then(|| text.into())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id and whether there is a method, the same however the text is cut.
    fn scan(text: &[u8]) -> (Option<String>, bool) {
        let run = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let mut scanner = IdScanner::default();
            for chunk in chunks {
                scanner.feed(chunk);
                assert!(scanner.held() <= 2 * (MAX_ID + 1) + 2 * MAX_KEY, "held {}", scanner.held());
            }
            let has_method = scanner.has_method();
            (scanner.into_id().map(String::from), has_method)
        };
        let whole = run(&mut [text].into_iter());
        assert_eq!(whole, run(&mut text.chunks(1)));
        // In long texts a few cuts stand for all.
        for at in (0..text.len()).step_by(if text.len() < 1000 { 1 } else { text.len() / 7 }) {
            let (left, right) = text.split_at(at);
            assert_eq!(whole, run(&mut [left, right].into_iter()), "cut at {at}");
        }
        whole
    }

    #[test]
    fn the_top_level_id_is_found() {
        let cases: &[(&str, Option<&str>, bool)] = &[
            // Where it stands.
            (r#"{"id":1,"method":"m","params":{}}"#, Some("1"), true),
            (r#"{"jsonrpc":"2.0","method":"m","params":{"a":"b"},"id":"last"}"#, Some(r#""last""#), true),
            (r#"{"id":1}"#, Some("1"), false),
            (" \t{ \"id\" \r: 1 , \"method\" : \"m\" } ", Some("1"), true),
            // What it may be.
            (r#"{"id":-12.5e+3}"#, Some("-12.5e+3"), false),
            (r#"{"id":""}"#, Some(r#""""#), false),
            (r#"{"id":"a\"b\\"}"#, Some(r#""a\"b\\""#), false),
            (r#"{"id":"}],{[:","method":1}"#, Some(r#""}],{[:""#), true),
            ("{\"id\":\"é\u{2028}\"}", Some("\"é\u{2028}\""), false),
            (r#"{"id":null,"method":"m"}"#, None, true),
            (r#"{"id":true}"#, None, false),
            (r#"{"id":{"id":1}}"#, None, false),
            (r#"{"id":[1]}"#, None, false),
            (r#"{"method":"m"}"#, None, true),
            ("{}", None, false),
            // What only looks like it.
            (r#"{"params":{"id":1,"method":"m"}}"#, None, false),
            (r#"{"params":[[{"id":1}],"]",{"x":{"id":2}}],"method":"m"}"#, None, true),
            (r#"{"text":"\"id\":1,","t":"{\"id\":2}"}"#, None, false),
            (r#"{"a":"id","b":"method","c":["id",1]}"#, None, false),
            (r#"{"ID":1,"Id":2,"id ":3,"idx":4,"i":5,"":6,"methods":7,"metho":8}"#, None, false),
            (r#"{"a\"id":1,"\"id":2,"id\"":3,"i\nd":4}"#, None, false),
            (r#"{"a":"\\","id":1}"#, Some("1"), false),
            (r#"{"a":"\\\"","id":1}"#, Some("1"), false),
            (r#"{"a":{"b":"}\"}"},"id":1}"#, Some("1"), false),
            (r#"{"a":{"b":"\\"},"id":1}"#, Some("1"), false),
            // Keys may be written with escapes.
            (r#"{"\u0069d":1,"m\u0065\u0074hod":"m"}"#, Some("1"), true),
            (r#"{"\u0069\u0064":1}"#, Some("1"), false),
            (r#"{"\u0169d":1,"i\u00e4":2,"id\u0000":3}"#, None, false),
            // The last of several counts, as in JSON.parse.
            (r#"{"id":1,"id":2}"#, Some("2"), false),
            (r#"{"id":1,"id":null}"#, None, false),
            (r#"{"id":1,"id":{}}"#, None, false),
            // Batches and other texts have no id of their own.
            (r#"[{"id":1,"method":"m"}]"#, None, false),
            (r#""id""#, None, false),
            ("1", None, false),
            ("", None, false),
        ];
        for (text, id, has_method) in cases {
            assert_eq!(scan(text.as_bytes()), (id.map(String::from), *has_method), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_json_gives_what_was_read_until_then() {
        let cases: &[(&[u8], Option<&str>, bool)] = &[
            (b"hello {\"id\":1}", None, false),
            (b"\0{\"id\":1}", None, false),
            (b"{\"id\":1,\"method\":\"m\",\"params\":{", Some("1"), true),
            (b"{\"id\":1 \"method\":\"m\"}", Some("1"), false),
            (b"{\"id\":1},\"method\":\"m\"", Some("1"), false),
            (b"{\"id\":1}{\"id\":2}", Some("1"), false),
            (b"{,\"id\":1}", None, false),
            (b"{\"a\",\"id\":1}", None, false),
            (b"{\"a\":,\"id\":1}", None, false),
            (b"{id:1}", None, false),
            (b"{'id':1}", None, false),
            // Cut off, or no JSON themselves: no ids to answer with.
            (b"{\"id\":12", None, false),
            (b"{\"id\":\"12", None, false),
            (b"{\"id\":01}", None, false),
            (b"{\"id\":1x}", None, false),
            (b"{\"id\":-}", None, false),
            (b"{\"id\":1\"2\"}", None, false),
            (b"{\"id\":\"a\tb\"}", None, false),
            (b"{\"id\":\"a\rb\"}", None, false),
            (b"{\"id\":\"\\x\"}", None, false),
            (b"{\"id\":\"\xFF\"}", None, false),
            (b"{\"i\\u00zzd\":1,\"id\":2}", None, false),
            // A wrong one takes the place of the right one before it.
            (b"{\"id\":1,\"id\":2x}", None, false),
        ];
        for (text, id, has_method) in cases {
            assert_eq!(scan(text), (id.map(String::from), *has_method), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn ids_and_keys_are_held_up_to_their_limits() {
        for (len, known) in [(MAX_ID - 2, true), (MAX_ID - 1, false), (1 << 20, false)] {
            let id = format!("\"{}\"", "x".repeat(len));
            let text = format!("{{\"id\":{id},\"method\":\"m\"}}");
            assert_eq!(scan(text.as_bytes()), (known.then_some(id), true), "{len}");
        }
        let digits = "1".repeat(MAX_ID);
        assert_eq!(scan(format!("{{\"id\":{digits}}}").as_bytes()).0.as_deref(), Some(&*digits));
        assert_eq!(scan(format!("{{\"id\":{digits}1}}").as_bytes()).0, None);
        let key = "k".repeat(1 << 20);
        assert_eq!(scan(format!("{{\"{key}\":0,\"id\":1}}").as_bytes()).0.as_deref(), Some("1"));
    }

    #[test]
    fn nesting_costs_no_memory() {
        let depth = 200_000;
        let text = format!("{{\"a\":{}{},\"id\":1}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(text.as_bytes()).0.as_deref(), Some("1"));
    }
}
