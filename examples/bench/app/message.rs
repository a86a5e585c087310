//! The JSON-RPC lines that the driver writes, and the little that it reads of the answers.
//!
//! Reading must cost next to nothing, so it looks for keys in the first and last bytes of a line instead of parsing it.
//! That is safe here because the mock server's texts never hold those keys.

use memchr::memmem;

/// Bytes looked at from the start of a line.
const FRONT: usize = 512;
/// Bytes looked at from the end of a line, for programs that write the id last.
const BACK: usize = 128;
/// The text of big answers, as it stands in the JSON: with an escape, as documents have.
const PATTERN: &[u8] = br"The quick brown fox jumps over the lazy dog, and then it rests.\n";

/// What every request of revision 2026-07-28 says of its client.
macro_rules! modern_meta {
    () => {
        concat!(
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
            r#""io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1.0.0"},"#,
            r#""io.modelcontextprotocol/clientCapabilities":{}"#
        )
    };
}

/// First message of a session of revision 2025-11-25.
pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"sampling":{},"elicitation":{}},"clientInfo":{"name":"bench","version":"1.0.0"}}}"#;
/// Second message of such a session.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// First message of a session of revision 2026-07-28.
pub(crate) const DISCOVER: &str =
    concat!(r#"{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{"_meta":{"#, modern_meta!(), "}}}");

/// The era of the client that the driver plays, and of the endpoint that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// Revision 2025-11-25: `initialize` and a session.
    Legacy,
    /// Revision 2026-07-28: every request says who asks, in `_meta`.
    Modern,
}

/// What a line from the bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The answer to a request.
    Result(u64),
    /// An error as the answer to a request.
    Error(u64),
    /// A notification, with the number that the mock server put into it.
    Notification(Option<u64>),
}

/// Classifies a line.
pub(crate) fn classify(line: &[u8]) -> Line {
    let front = line.get(..FRONT.min(line.len())).unwrap_or_default();
    let back = line.get(line.len().saturating_sub(BACK)..).unwrap_or_default();
    if let Some(id) = number_after(front, b"\"id\":").or_else(|| number_after(back, b"\"id\":")) {
        return match memmem::find(front, b"\"error\":{") {
            Some(_) => Line::Error(id),
            None => Line::Result(id),
        };
    }
    Line::Notification(number_after(front, b"\"progress\":").or_else(|| number_after(front, b"\"data\":")))
}

/// Appends a call of the mock server's tool `tool`; `arguments` is a JSON object.
pub(crate) fn call(line: &mut Vec<u8>, era: Era, id: u64, tool: &str, arguments: &[u8]) {
    line.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    number(line, id);
    line.extend_from_slice(br#","method":"tools/call","params":{"name":""#);
    line.extend_from_slice(tool.as_bytes());
    line.extend_from_slice(br#"","arguments":"#);
    line.extend_from_slice(arguments);
    line.extend_from_slice(br#","_meta":{"progressToken":"#);
    number(line, id);
    if era == Era::Modern {
        line.extend_from_slice(concat!(",", modern_meta!()).as_bytes());
    }
    line.extend_from_slice(b"}}}");
}

/// Appends `value` in decimal; `write!` would cost more than the rest of a small message.
pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// The text of a big message: exactly `bytes` bytes of JSON string, without its quotes.
pub(crate) fn filler(bytes: usize) -> Vec<u8> {
    let whole = bytes / PATTERN.len();
    let mut text = PATTERN.repeat(whole);
    text.resize(bytes, b'.');
    text
}

/// True when `line` carries the filler of `bytes` bytes, whole and unchanged, as its `text`.
pub(crate) fn carries_filler(line: &[u8], bytes: usize) -> bool {
    let Some(start) = memmem::find(line, b"\"text\":\"").map(|at| at + 8) else { return false };
    let (Some(text), Some(end)) = (line.get(start..start + bytes), line.get(start + bytes)) else { return false };
    let whole = bytes / PATTERN.len() * PATTERN.len();
    let (repeated, tail) = text.split_at(whole);
    *end == b'"' && repeated.chunks_exact(PATTERN.len()).all(|part| part == PATTERN) && tail.iter().all(|&b| b == b'.')
}

/// The decimal number after `key`, blanks allowed before it.
pub(crate) fn number_after(text: &[u8], key: &[u8]) -> Option<u64> {
    let at = memmem::find(text, key)? + key.len();
    let digits = text.get(at..)?.trim_ascii_start();
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let cases: [(&[u8], Line); 6] = [
            (br#"{"jsonrpc":"2.0","id":17,"result":{}}"#, Line::Result(17)),
            (br#"{"result":{"content":[]}, "id": 3, "jsonrpc":"2.0"}"#, Line::Result(3)),
            (br#"{"jsonrpc":"2.0","id":4,"error":{"code":-32001,"message":"x"}}"#, Line::Error(4)),
            (
                br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":9,"progress":55}}"#,
                Line::Notification(Some(55)),
            ),
            (
                br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":8}}"#,
                Line::Notification(Some(8)),
            ),
            (br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#, Line::Notification(None)),
        ];
        for (line, expected) in cases {
            assert_eq!(classify(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn an_id_behind_a_big_result_is_found() {
        let mut line = br#"{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":""#.to_vec();
        line.extend_from_slice(&filler(5000));
        line.extend_from_slice(br#""}]},"id":12}"#);
        assert_eq!(classify(&line), Line::Result(12));
        assert!(carries_filler(&line, 5000));
        assert!(!carries_filler(&line, 4999));
        assert!(!carries_filler(&line, 5001));
        line[700] = b'#';
        assert!(!carries_filler(&line, 5000));
    }

    #[test]
    fn calls_are_json() {
        for id in [0, 9, 10, 12_345, u64::MAX] {
            let mut line = Vec::new();
            for (era, version) in [(Era::Legacy, None), (Era::Modern, Some("2026-07-28"))] {
                line.clear();
                call(&mut line, era, id, "echo", br#"{"text":"x"}"#);
                let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(value["id"], id);
                assert_eq!(value["params"]["arguments"]["text"], "x");
                let meta = &value["params"]["_meta"];
                assert_eq!(meta["progressToken"], id);
                assert_eq!(meta.get("io.modelcontextprotocol/protocolVersion").and_then(|v| v.as_str()), version);
                assert_eq!(classify(&line), Line::Result(id));
            }
        }
    }
}
