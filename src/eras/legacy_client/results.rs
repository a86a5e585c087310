//! Results of the modern era for clients that read them by an older schema. Unknown members stay, because every revision allows
//! them; what is taken out is what an older schema forbids, so that a strict client would refuse the whole result.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message;
use crate::message::splice::{Object, With, is_object, members, string};

/// What a result is (2026-07-28 `ResultType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Complete,
    InputRequired,
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow, default)]
    result_type: Option<&'a RawValue>,
}

/// True for results that need no look: they say once what they are, and that is complete. Text inside strings cannot look like it,
/// because its quotes are escaped.
pub(super) fn is_plainly_complete(result: &str) -> bool {
    let mut places = memchr::memmem::find_iter(result.as_bytes(), b"\"resultType\"");
    let (Some(place), None) = (places.next(), places.next()) else { return false };
    result.get(place..).is_some_and(|rest| rest.starts_with("\"resultType\":\"complete\""))
}

pub(super) fn kind(result: &RawValue) -> Kind {
    let head = serde_json::from_str::<Head>(result.get()).ok().and_then(|head| head.result_type);
    match head.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).as_deref() {
        // "For backward compatibility", one that says nothing is complete.
        None | Some("complete") => Kind::Complete,
        Some("input_required") => Kind::InputRequired,
        Some(_) => Kind::Unknown,
    }
}

/// The response as a client of this revision can read it. Most pass as they are.
pub(super) fn for_revision(method: &str, version: &str, result: &RawValue, line: Bytes) -> Bytes {
    // Older revisions know neither member, so nothing forbids what is in them.
    if version < "2025-06-18" {
        return line;
    }
    let has = |word: &[u8]| memchr::memmem::find(&line, word).is_some();
    let changed = match method {
        "tools/list" if has(b"\"outputSchema\"") => object_schemas(result, &line),
        "tools/call" if has(b"\"structuredContent\"") => object_content(result, &line),
        _ => None,
    };
    changed.unwrap_or(line)
}

/// `outputSchema` must be of type `object` until 2025-11-25.
fn object_schemas(result: &RawValue, line: &Bytes) -> Option<Bytes> {
    let [tools] = members(result.get(), ["tools"]).ok()?;
    let tools = tools?;
    let all: Vec<&RawValue> = serde_json::from_str(tools.value).ok()?;
    let mut changed = Vec::new();
    for tool in all {
        let Ok([Some(schema)]) = members(tool.get(), ["outputSchema"]) else { continue };
        let kind = members(schema.value, ["type"]).ok().and_then(|[kind]| kind);
        if kind.and_then(|kind| string(kind.value)).as_deref() != Some("object") {
            let mut tool = Object::new(tool.get());
            tool.remove(Some(schema));
            changed.push(tool);
        }
    }
    if changed.is_empty() {
        return None;
    }
    let mut new = Object::new(result.get());
    new.replace(tools, With::Array(tools.value, changed));
    with_result(line, new)
}

/// `structuredContent` must be an object until 2025-11-25. What else it is goes into a text, if there is no other content.
fn object_content(result: &RawValue, line: &Bytes) -> Option<Bytes> {
    let [structured, content] = members(result.get(), ["structuredContent", "content"]).ok()?;
    let structured = structured.filter(|structured| !is_object(structured.value))?;
    let mut new = Object::new(result.get());
    new.remove(Some(structured));
    if let Some(content) = content
        && content.value.trim_matches(['[', ']', ' ', '\t', '\r', '\n']).is_empty()
    {
        let text = format!("[{{\"type\":\"text\",\"text\":{}}}]", message::quote(structured.value));
        new.replace(content, With::Text(text.into()));
    }
    with_result(line, new)
}

/// The response with another result.
fn with_result(line: &Bytes, new: Object<'_>) -> Option<Bytes> {
    let whole = std::str::from_utf8(line).ok()?;
    let [result] = members(whole, ["result"]).ok()?;
    let mut response = Object::new(whole);
    response.replace(result?, With::Object(new));
    Some(Bytes::from(response.into_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Outcome, Parsed};

    fn rewritten(method: &str, version: &str, result: &str) -> String {
        let line = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        let text = line.clone();
        let Ok(Parsed::One(Message::Response(response))) = message::parse(&text) else { panic!("a response") };
        let Outcome::Result(raw) = response.outcome else { panic!("a result") };
        let out = for_revision(method, version, raw, line);
        let out = String::from_utf8(out.to_vec()).expect("UTF-8");
        let (_, out) = out.split_once("\"result\":").expect("a result");
        serde_json::from_str::<serde::de::IgnoredAny>(&out[..out.len() - 1]).expect("JSON");
        out[..out.len() - 1].to_owned()
    }

    #[test]
    fn the_kind_of_a_result_is_read_at_its_top() {
        let table = [
            ("{}", Kind::Complete, false),
            (r#"{"resultType":"complete"}"#, Kind::Complete, true),
            (r#"{"resultType": "complete"}"#, Kind::Complete, false),
            (r#"{"resultType":"input_required"}"#, Kind::InputRequired, false),
            (r#"{"resultType":"input\u005frequired","x":{"resultType":"complete"}}"#, Kind::InputRequired, false),
            (r#"{"x":"\"resultType\":\"complete\""}"#, Kind::Complete, false),
            (r#"{"x":{"resultType":"input_required"}}"#, Kind::Complete, false),
            (r#"{"resultType":"task"}"#, Kind::Unknown, false),
            ("[]", Kind::Complete, false),
        ];
        for (text, expected, plain) in table {
            let raw: Box<RawValue> = serde_json::from_str(text).expect("JSON");
            assert_eq!(kind(&raw), expected, "{text}");
            assert_eq!(is_plainly_complete(text), plain, "{text}");
        }
    }

    #[test]
    fn only_what_an_older_schema_forbids_is_taken_out() {
        let tools = r#"{"tools":[{"name":"a","outputSchema":{"type":"object"},"x":1e400},{"outputSchema" : {"type":"array"} , "name":"b"},{"name":"c","outputSchema":{"anyOf":[]}}],"ttlMs":0}"#;
        let cut = r#"{"tools":[{"name":"a","outputSchema":{"type":"object"},"x":1e400},{ "name":"b"},{"name":"c"}],"ttlMs":0}"#;
        assert_eq!(rewritten("tools/list", "2025-11-25", tools), cut);
        assert_eq!(rewritten("tools/list", "2025-03-26", tools), tools, "that revision knows no such member");
        let table = [
            (
                r#"{"content":[],"structuredContent":[1,"a"],"y":2}"#,
                r#"{"content":[{"type":"text","text":"[1,\"a\"]"}],"y":2}"#,
            ),
            (
                r#"{"structuredContent":null,"content":[{"type":"text","text":"x"}]}"#,
                r#"{"content":[{"type":"text","text":"x"}]}"#,
            ),
            (r#"{"structuredContent":{"a":1},"content":[]}"#, r#"{"structuredContent":{"a":1},"content":[]}"#),
            (
                r#"{"content":[{"type":"text","text":"\"structuredContent\":1"}]}"#,
                r#"{"content":[{"type":"text","text":"\"structuredContent\":1"}]}"#,
            ),
        ];
        for (result, expected) in table {
            assert_eq!(rewritten("tools/call", "2025-06-18", result), expected);
        }
    }
}
