//! Results of the modern era for clients that read them by an older schema. Unknown members stay, because every revision allows
//! them; what is taken out is what an older schema forbids, so that a strict client would refuse the whole result.

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::message::{self, offset_in};

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

#[derive(Deserialize)]
struct Tools<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    output_schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallResult<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    structured_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// Keeps an explicit `null` apart from an absent member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
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
    let tools: Tools = serde_json::from_str(result.get()).ok()?;
    let mut cuts = Vec::new();
    for tool in tools.tools {
        let Some(schema) = serde_json::from_str::<Tool>(tool.get()).ok().and_then(|tool| tool.output_schema) else {
            continue;
        };
        let kind = serde_json::from_str::<Schema>(schema.get()).ok().and_then(|schema| schema.kind);
        if kind.is_none_or(|kind| kind.get() != "\"object\"") {
            cuts.push(Cut { value: schema.get(), name: "\"outputSchema\"", put: "" });
        }
    }
    cut(line, &cuts)
}

/// `structuredContent` must be an object until 2025-11-25. What else it is goes into a text, if there is no other content.
fn object_content(result: &RawValue, line: &Bytes) -> Option<Bytes> {
    let call: CallResult = serde_json::from_str(result.get()).ok()?;
    let structured = call.structured_content.filter(|value| !value.get().starts_with('{'))?;
    let text = format!("[{{\"type\":\"text\",\"text\":{}}}]", message::quote(structured.get()));
    let mut cuts = vec![Cut { value: structured.get(), name: "\"structuredContent\"", put: "" }];
    if let Some(content) = call.content
        && content.get().trim_matches(['[', ']', ' ', '\t']).is_empty()
    {
        cuts.push(Cut { value: content.get(), name: "", put: &text });
    }
    cut(line, &cuts)
}

/// A member to be taken out, or with an empty name a value to be replaced.
struct Cut<'a> {
    value: &'a str,
    name: &'a str,
    put: &'a str,
}

/// `None` if there is nothing to cut, or a member cannot be found.
fn cut(line: &Bytes, cuts: &[Cut<'_>]) -> Option<Bytes> {
    let whole = std::str::from_utf8(line).ok()?;
    let mut places = Vec::with_capacity(cuts.len());
    for cut in cuts {
        let start = offset_in(whole, cut.value)?;
        let end = start + cut.value.len();
        if cut.name.is_empty() {
            places.push((start, end, cut.put));
            continue;
        }
        // Back over the colon and the name; one that is written with escapes is left alone.
        let before = whole.get(..start)?.trim_end().strip_suffix(':')?.trim_end().strip_suffix(cut.name)?.trim_end();
        let after = whole.get(end..)?;
        let rest = after.trim_start();
        match (before.strip_suffix(','), rest.strip_prefix(',')) {
            (Some(before), _) => places.push((before.len(), end, "")),
            (None, Some(rest)) => places.push((before.len(), whole.len() - rest.len(), "")),
            (None, None) => places.push((before.len(), end, "")),
        }
    }
    if places.is_empty() {
        return None;
    }
    places.sort_unstable();
    let mut out = Vec::with_capacity(whole.len() + places.iter().map(|(_, _, put)| put.len()).sum::<usize>());
    let mut done = 0;
    for (start, end, put) in places {
        out.extend_from_slice(line.get(done..start)?);
        out.extend_from_slice(put.as_bytes());
        done = end;
    }
    out.extend_from_slice(line.get(done..)?);
    Some(Bytes::from(out))
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
