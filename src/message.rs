//! JSON-RPC 2.0 envelopes over raw text.
//!
//! What the bridge needs of a message is its kind, its id and its method; the rest passes as the text it came as
//! (product rule R2: numbers, key order and duplicate keys survive). So a message is never turned into a tree: the
//! top level is read into borrowed slices and everything below stays unread.
//!
//! Sources: JSON-RPC 2.0 §4 to §6; MCP 2025-11-25 "Base Protocol" (ids are strings or integers, never null);
//! MCP 2025-03-26 "Batching".

pub mod splice;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON-RPC: the text is not JSON (§5.1).
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: the JSON is not a valid message (§5.1).
pub const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: method not found (§5.1).
pub const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: invalid parameters (§5.1).
pub const INVALID_PARAMS: i64 = -32602;
/// What the bridge itself answers when it could not get an answer from the server.
pub const BRIDGE_ERROR: i64 = -32001;

/// Bytes of an id's text. Ids are kept while their request waits; a longer one is refused.
pub const MAX_ID: usize = 4096;
/// Members of one batch; a longer one is refused whole. A member costs more memory than its text.
pub const MAX_BATCH: usize = 1000;

/// A request id, compared by value and by type: `1`, `1.0` and `1e0` are one id, `"1"` is another (JSON-RPC §4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// A number with an integral value that fits 64 bits.
    Integer(i64),
    /// Any other number, by its text.
    Number(Box<str>),
    /// A string, with escapes resolved.
    String(Box<str>),
}

impl Id {
    /// Reads an id from its JSON text; `None` for null, objects, arrays and booleans, and for texts over [`MAX_ID`].
    pub fn from_json(raw: &str) -> Option<Self> {
        if raw.len() > MAX_ID {
            return None;
        }
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str::<Box<str>>(raw).ok().map(Id::String),
            b'-' | b'0'..=b'9' => Some(raw.parse::<i64>().map_or_else(|_| Self::from_odd_number(raw), Id::Integer)),
            _ => None,
        }
    }

    /// Integral floats up to 2^53 name the same id as their integer: a server in a language without integers may echo `1.0`.
    fn from_odd_number(raw: &str) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match raw.parse::<f64>() {
            #[allow(clippy::cast_possible_truncation)] // integral and within 2^53
            Ok(value) if value.fract() == 0.0 && value.abs() <= EXACT => Id::Integer(value as i64),
            _ => Id::Number(raw.into()),
        }
    }

    /// The id as JSON text.
    pub fn to_json(&self) -> String {
        match self {
            Id::Integer(value) => value.to_string(),
            Id::Number(text) => text.to_string(),
            Id::String(text) => quote(text),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// One message, borrowed from its text.
#[derive(Debug)]
pub enum Message<'a> {
    /// A request: it has an id and wants one response.
    Request(Request<'a>),
    /// A notification: no id, no response.
    Notification(Notification<'a>),
    /// A response to a request of the other side.
    Response(Response<'a>),
}

/// A request (JSON-RPC §4).
#[derive(Debug)]
pub struct Request<'a> {
    /// The id by value.
    pub id: Id,
    /// The method's name.
    pub method: Cow<'a, str>,
    /// The parameters as they came.
    pub params: Option<&'a RawValue>,
}

/// A notification (JSON-RPC §4.1).
#[derive(Debug)]
pub struct Notification<'a> {
    /// The method's name.
    pub method: Cow<'a, str>,
    /// The parameters as they came.
    pub params: Option<&'a RawValue>,
}

/// A response (JSON-RPC §5).
#[derive(Debug)]
pub struct Response<'a> {
    /// The id by value; `None` when it is null or missing, which only an error may have.
    pub id: Option<Id>,
    /// The result or the error, as it came.
    pub outcome: Outcome<'a>,
}

/// What a response carries.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// `result`.
    Result(&'a RawValue),
    /// `error`.
    Error(&'a RawValue),
}

impl Outcome<'_> {
    /// Whether a strict client takes it: a result is an object (MCP 2025-11-25 "Responses"), an error has an integer for a code and a
    /// text for a message (JSON-RPC §5.1). A client that does not take it drops the whole line, and its request waits for ever.
    ///
    /// Of a result, only the first byte is looked at; an error is scanned, its members are not.
    pub fn is_well_formed(&self) -> bool {
        match self {
            Self::Result(result) => result.get().starts_with('{'),
            Self::Error(error) => {
                // The last of two members with one name counts, as most readers have it.
                let Ok(members) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(error.get()) else {
                    return false;
                };
                members.get("code").is_some_and(|code| code.get().parse::<i64>().is_ok())
                    && members.get("message").is_some_and(|text| text.get().starts_with('"'))
            }
        }
    }
}

/// What one line or one event holds.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A single message.
    One(Message<'a>),
    /// A batch (MCP 2025-03-26): its members, each still to be parsed.
    Batch(Vec<&'a RawValue>),
}

/// Why a text is not a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not JSON, or not UTF-8. Answered with -32700.
    NotJson,
    /// JSON, but no message. Answered with -32600 and the id where it could be read.
    NotMessage {
        /// The id, if there was a usable one.
        id: Option<Id>,
        /// It was meant as a response: the id is then of the other side's request.
        response: bool,
        /// What is wrong, for people.
        why: &'static str,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps an explicit `null` apart from an absent member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the top level of one line or event.
pub fn parse(text: &[u8]) -> Result<Parsed<'_>, Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid::NotJson)?;
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.starts_with('[') {
        let members: Members = serde_json::from_str(text).map_err(|_| Invalid::NotJson)?;
        return members.0.map(Parsed::Batch).ok_or(Invalid::NotMessage {
            id: None,
            response: false,
            why: "a batch must not have more than 1000 members",
        });
    }
    parse_one(text).map(Parsed::One)
}

/// The members of a batch; `None` if there are more than [`MAX_BATCH`].
struct Members<'a>(Option<Vec<&'a RawValue>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = seq.next_element::<&RawValue>()? {
                    if members.len() == MAX_BATCH {
                        // To the end: only then it is known to be JSON.
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Members(None));
                    }
                    members.push(member);
                }
                Ok(Members(Some(members)))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// Reads the top level of one message that is known not to be a batch.
pub fn parse_one(text: &str) -> Result<Message<'_>, Invalid> {
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| classify(&error, text))?;
    let id = envelope.id.and_then(|raw| Id::from_json(raw.get()));
    let response = envelope.method.is_none() && (envelope.result.is_some() || envelope.error.is_some());
    let invalid = |why| Err(Invalid::NotMessage { id: id.clone(), response, why });
    if envelope.jsonrpc.is_none_or(|version| version.get() != "\"2.0\"") {
        return invalid("\"jsonrpc\" must be \"2.0\"");
    }
    if let Some(params) = envelope.params
        && !params.get().starts_with(['{', '['])
    {
        return invalid("\"params\" must be an object");
    }
    // Some servers write the member that does not apply as null.
    let absent = |member: Option<&RawValue>| member.is_none_or(|raw| raw.get() == "null");
    let error = envelope.error.filter(|_| envelope.result.is_none() || !absent(envelope.error));
    let result = envelope.result.filter(|_| error.is_none() || !absent(envelope.result));
    match (envelope.method, result, error) {
        (Some(method), None, None) => {
            let Ok(method) = serde_json::from_str::<BorrowedText>(method.get()) else {
                return invalid("\"method\" must be a string");
            };
            match (envelope.id, id) {
                (None, _) => Ok(Message::Notification(Notification { method: method.0, params: envelope.params })),
                (Some(_), Some(id)) => Ok(Message::Request(Request { id, method: method.0, params: envelope.params })),
                (Some(_), None) => {
                    Err(Invalid::NotMessage { id: None, response, why: "\"id\" must be a string or a number" })
                }
            }
        }
        (None, Some(result), None) if id.is_some() => {
            Ok(Message::Response(Response { id, outcome: Outcome::Result(result) }))
        }
        (None, Some(_), None) => invalid("a result needs the id of its request"),
        (None, None, Some(error)) if error.get().starts_with('{') => {
            Ok(Message::Response(Response { id, outcome: Outcome::Error(error) }))
        }
        (None, None, Some(_)) => invalid("\"error\" must be an object"),
        (None, None, None) => {
            invalid("neither a request nor a response: \"method\", \"result\" and \"error\" are missing")
        }
        _ => invalid("\"method\", \"result\" and \"error\" exclude each other"),
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Tells broken JSON from JSON of the wrong shape, and keeps a readable id for the answer.
fn classify(error: &serde_json::Error, text: &str) -> Invalid {
    if !error.is_data() {
        return Invalid::NotJson;
    }
    // A scalar, or a member given twice. The rest of the text was not looked at yet: it may still be broken.
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Invalid::NotJson;
    }
    let Ok(loose) = serde_json::from_str::<Loose>(text) else {
        return Invalid::NotMessage { id: None, response: false, why: "a message must be an object" };
    };
    let id = loose.id.filter(|_| loose.ids == 1).and_then(|raw| Id::from_json(raw.get()));
    Invalid::NotMessage { id, response: loose.outcome && !loose.method, why: "a member is given twice" }
}

/// What can be read of an object whose members may stand twice.
#[derive(Default)]
struct Loose<'a> {
    id: Option<&'a RawValue>,
    ids: usize,
    method: bool,
    outcome: bool,
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Loose<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<'de>, A::Error> {
                let mut loose = Loose::default();
                while let Some(name) = map.next_key::<BorrowedText>()? {
                    let value: &RawValue = map.next_value()?;
                    match &*name.0 {
                        "id" => {
                            loose.id = Some(value);
                            loose.ids += 1;
                        }
                        "method" => loose.method = true,
                        "result" | "error" => loose.outcome = true,
                        _ => {}
                    }
                }
                Ok(loose)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The text as one line: outer white space gone, line breaks inside replaced, and the characters that some readers take for
/// line ends (U+2028, U+2029, U+0085) escaped. Correct only for valid JSON, where a raw CR or LF can only be white space
/// and the others can only stand inside strings. The common case returns the same bytes.
#[allow(clippy::needless_pass_by_value)] // the common case gives the same bytes back
pub fn one_line(text: Bytes) -> Bytes {
    let trimmed = {
        let slice = text.trim_ascii();
        text.slice_ref(slice)
    };
    let awkward = memchr::memchr2(b'\n', b'\r', &trimmed).is_some()
        || memchr::memchr2_iter(0xE2, 0xC2, &trimmed).any(|at| {
            trimmed.get(at..).is_some_and(|rest| matches!(rest, [0xE2, 0x80, 0xA8 | 0xA9, ..] | [0xC2, 0x85, ..]))
        });
    if !awkward {
        return trimmed;
    }
    let mut line = Vec::with_capacity(trimmed.len() + 64);
    let mut rest: &[u8] = &trimmed;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match rest {
            [b'\n' | b'\r', after @ ..] => {
                line.push(b' ');
                after
            }
            [0xE2, 0x80, 0xA8, after @ ..] => {
                line.extend_from_slice(b"\\u2028");
                after
            }
            [0xE2, 0x80, 0xA9, after @ ..] => {
                line.extend_from_slice(b"\\u2029");
                after
            }
            [0xC2, 0x85, after @ ..] => {
                line.extend_from_slice(b"\\u0085");
                after
            }
            _ => {
                line.push(byte);
                after
            }
        };
    }
    Bytes::from(line)
}

/// The same message with another id: the id's text is replaced where it stands, or put in front where it is missing.
/// All other bytes stay as they are. `None` if the text is not an object.
pub fn with_id(text: &Bytes, id: &Id) -> Option<Bytes> {
    let whole = std::str::from_utf8(text).ok()?;
    let [old] = splice::members(whole, ["id"]).ok()?;
    let mut message = splice::Object::new(whole);
    match old {
        Some(old) => message.replace(old, splice::With::Text(id.to_json().into())),
        None => message.add("id", &id.to_json()),
    }
    Some(Bytes::from(message.into_string()))
}

/// The ids of the requests in a line: one, or those of a batch.
pub fn request_ids(line: &[u8]) -> Vec<Id> {
    let id = |message: Message<'_>| if let Message::Request(request) = message { Some(request.id) } else { None };
    match parse(line) {
        Ok(Parsed::One(message)) => id(message).into_iter().collect(),
        Ok(Parsed::Batch(members)) => {
            members.iter().filter_map(|raw| parse_one(raw.get()).ok()).filter_map(id).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Where `part`, a slice of `whole`, begins.
pub fn offset_in(whole: &str, part: &str) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset + part.len() <= whole.len()).then_some(offset)
}

/// A JSON string literal.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An error response made by the bridge. `data` is JSON text.
pub fn error_response(id: Option<&Id>, code: i64, message: &str, data: Option<&str>) -> Bytes {
    let id = id.map_or_else(|| "null".to_owned(), Id::to_json);
    let data = data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{}{data}}}}}", quote(message))
        .into()
}

/// A result response made by the bridge. `result` is JSON text.
pub fn result_response(id: &Id, result: &str) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}").into()
}

/// A notification made by the bridge, without parameters.
pub fn notification(method: &str) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":{}}}", quote(method)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Parsed::One(Message::Request(r))) => format!("request {} {}", r.id, r.method),
            Ok(Parsed::One(Message::Notification(n))) => format!("notification {}", n.method),
            Ok(Parsed::One(Message::Response(r))) => {
                let outcome = if matches!(r.outcome, Outcome::Result(_)) { "result" } else { "error" };
                format!("{outcome} {}", r.id.map_or("null".into(), |id| id.to_string()))
            }
            Ok(Parsed::Batch(members)) => format!("batch of {}", members.len()),
            Err(Invalid::NotJson) => "not json".into(),
            Err(Invalid::NotMessage { id, .. }) => format!("invalid {}", id.map_or("null".into(), |id| id.to_string())),
        }
    }

    #[test]
    fn every_kind_of_message_is_told_apart() {
        let table = [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request 1 ping"),
            (r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#, "request \"1\" ping"),
            (r#"{"method":"tools/call","params":{"id":7,"a":[1]},"jsonrpc":"2.0","id":-3}"#, "request -3 tools/call"),
            (r#"{"jsonrpc":"2.0","id":1.0,"method":"a"}"#, "request 1 a"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, "request 1.5 a"),
            (
                r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"a"}"#,
                "request 123456789012345678901234567890 a",
            ),
            (r#"{"jsonrpc":"2.0","method":"notifications\/initialized"}"#, "notification notifications/initialized"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "result 1"),
            (r#"{"jsonrpc":"2.0","id":"a","result":null}"#, "result \"a\""),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"x"}}"#, "error null"),
            (r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"x"}}"#, "error null"),
            (r#" [{"jsonrpc":"2.0","id":1,"method":"a"},5] "#, "batch of 2"),
            ("[]", "batch of 0"),
            ("{", "not json"),
            ("", "not json"),
            ("{}\u{0}", "not json"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"} x"#, "not json"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#, "invalid null"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"#, "not json"),
            ("5", "invalid null"),
            ("\"x\"", "invalid null"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, "invalid 1"),
            (r#"{"id":1,"method":"a"}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, "invalid null"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, "invalid null"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":"x"}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":null}"#, "result 1"),
            (r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":-1,"message":"x"}}"#, "error 1"),
            (r#"{"jsonrpc":"2.0","id":1,"result":null,"error":null}"#, "result 1"),
            (r#"{"jsonrpc":"2.0","id":1,"error":null}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "invalid 1"),
            (r#"{"jsonrpc":"2.0","result":1}"#, "invalid null"),
        ];
        for (text, expected) in table {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert!(matches!(parse(b"{\"a\":\"\xff\"}"), Err(Invalid::NotJson)));
    }

    #[test]
    fn what_a_strict_client_drops_is_not_well_formed() {
        let table = [
            (r#""result":{}"#, true),
            (r#""result":{"a":[]}"#, true),
            (r#""result":null"#, false),
            (r#""result":[{}]"#, false),
            (r#""result":"{}""#, false),
            (r#""result":1"#, false),
            (r#""error":{"code":-1,"message":""}"#, true),
            (r#""error":{"message":"x","data":{"code":"E"},"code":-32000}"#, true),
            (r#""error":{"code":"E","code":7,"message":"x"}"#, true),
            (r#""error":{"code":1}"#, false),
            (r#""error":{"message":"x"}"#, false),
            (r#""error":{}"#, false),
            (r#""error":{"code":"E1","message":"x"}"#, false),
            (r#""error":{"code":1.5,"message":"x"}"#, false),
            (r#""error":{"code":1e400,"message":"x"}"#, false),
            (r#""error":{"code":1,"message":null}"#, false),
            (r#""error":{"code":1,"message":{"text":"x"}}"#, false),
        ];
        for (member, expected) in table {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,{member}}}"#);
            let Ok(Message::Response(response)) = parse_one(&text) else { panic!("{text} is a response") };
            assert_eq!(response.outcome.is_well_formed(), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_response_is_told_from_a_broken_request() {
        let table = [
            (r#"{"id":1,"result":1}"#, Some(true)),
            (r#"{"id":1,"method":"a"}"#, Some(false)),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"result":2}"#, Some(true)),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"a","result":2}"#, Some(false)),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"result":2"#, None),
        ];
        for (text, expected) in table {
            let is_response = match parse(text.as_bytes()) {
                Err(Invalid::NotMessage { response, .. }) => Some(response),
                Err(Invalid::NotJson) => None,
                Ok(_) => panic!("{text} is broken"),
            };
            assert_eq!(is_response, expected, "{text}");
        }
    }

    #[test]
    fn a_batch_is_bounded_before_it_costs_memory() {
        let array = |members: usize| format!("[{}1]", "1,".repeat(members - 1));
        assert_eq!(kind(&array(MAX_BATCH)), "batch of 1000");
        assert_eq!(kind(&array(MAX_BATCH + 1)), "invalid null");
        assert_eq!(kind(&array(MAX_BATCH + 1).replace(']', "")), "not json");
    }

    #[test]
    fn ids_differ_by_type_and_agree_by_value() {
        assert_ne!(Id::from_json("1"), Id::from_json("\"1\""));
        assert_eq!(Id::from_json("1"), Id::from_json("1e0"));
        assert_eq!(Id::from_json("\"\\u0061\""), Id::from_json("\"a\""));
        assert_eq!(Id::from_json("null"), None);
        assert_eq!(Id::from_json("[1]"), None);
    }

    #[test]
    fn a_line_is_one_line_and_means_the_same() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"{\"a\":1}", b"{\"a\":1}"),
            (b" \r\n{\"a\":\n1}\r\n", b"{\"a\": 1}"),
            ("{\"a\":\"x\u{2028}y\u{2029}\"}".as_bytes(), b"{\"a\":\"x\\u2028y\\u2029\"}"),
            ("{\"a\":\"\u{85}\"}".as_bytes(), b"{\"a\":\"\\u0085\"}"),
            ("{\"a\":\"\u{201c}\"}".as_bytes(), "{\"a\":\"\u{201c}\"}".as_bytes()),
            (b"", b""),
        ];
        for (text, expected) in table {
            assert_eq!(one_line(Bytes::copy_from_slice(text)), expected);
        }
    }

    #[test]
    fn an_id_is_replaced_without_touching_the_rest() {
        let seven = Id::Integer(7);
        let table = [
            (r#"{"id" : "x" ,"a":{"id":1},"n":1e400}"#, r#"{"id" : 7 ,"a":{"id":1},"n":1e400}"#),
            (r#"{"error":{"id":3}}"#, r#"{"id":7,"error":{"id":3}}"#),
            ("{ }", r#"{"id":7}"#),
        ];
        for (text, expected) in table {
            assert_eq!(with_id(&Bytes::from(text), &seven).expect("an object"), expected);
        }
        assert!(with_id(&Bytes::from("[1]"), &seven).is_none());
    }

    #[test]
    fn errors_of_the_bridge_are_valid_json() {
        let line =
            error_response(Some(&Id::String("a\"b".into())), BRIDGE_ERROR, "broke\n\"it\"", Some("{\"kind\":\"x\"}"));
        let value: serde_json::Value = serde_json::from_slice(&line).expect("valid JSON");
        assert_eq!(value["id"], "a\"b");
        assert_eq!(value["error"]["message"], "broke\n\"it\"");
        assert_eq!(value["error"]["data"]["kind"], "x");
    }
}
