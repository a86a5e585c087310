//! Changes to a request's text that leave the rest of it as it is (R2).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Envelope, Id, offset_in, present};

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
}

/// What to change.
#[derive(Debug, Default, Clone, Copy)]
pub struct Change<'a> {
    /// Another id.
    pub id: Option<&'a Id>,
    /// Members for `params`, as JSON text: `"a":1,"b":2`.
    pub params: &'a str,
    /// Members for `params._meta`, as JSON text.
    pub meta: &'a str,
}

/// The message with these changes; `None` if it is no object, or its `params` is none, or a member to be changed is given twice.
/// What is put in stands before what was there.
pub fn changed(text: &Bytes, change: Change<'_>) -> Option<Bytes> {
    let whole = std::str::from_utf8(text).ok()?;
    let envelope: Envelope = serde_json::from_str(whole).ok()?;
    let mut edits = Vec::with_capacity(3);
    let new_id;
    if let (Some(id), Some(old)) = (change.id, envelope.id) {
        new_id = id.to_json();
        edits.push(Edit { at: offset_in(whole, old.get())?, remove: old.get().len(), parts: [&new_id, "", "", ""] });
    }
    let comma = if change.params.is_empty() || change.meta.is_empty() { "" } else { "," };
    match envelope.params {
        None => {
            let at = whole.find('{')? + 1;
            match (change.params, change.meta) {
                ("", "") => {}
                (params, "") => edits.push(Edit { at, remove: 0, parts: ["\"params\":{", params, "},", ""] }),
                (params, meta) => {
                    edits.push(Edit { at, remove: 0, parts: ["\"params\":{", params, comma, "\"_meta\":{"] });
                    edits.push(Edit { at, remove: 0, parts: [meta, "}},", "", ""] });
                }
            }
        }
        Some(raw) => {
            let params: Params = serde_json::from_str(raw.get()).ok()?;
            let start = offset_in(whole, raw.get())?;
            let at = start + raw.get().find('{')? + 1;
            let more = if is_empty(raw.get()) { "" } else { "," };
            match params.meta {
                None if change.meta.is_empty() => {}
                None => {
                    edits.push(Edit { at, remove: 0, parts: ["\"_meta\":{", change.meta, "}", comma] });
                    if change.params.is_empty() {
                        edits.push(Edit { at, remove: 0, parts: [more, "", "", ""] });
                    }
                }
                Some(old) => edits.push(into_meta(whole, old, change.meta)?),
            }
            if !change.params.is_empty() {
                edits.push(Edit { at, remove: 0, parts: [change.params, more, "", ""] });
            }
        }
    }
    edits.sort_by_key(|edit| edit.at);
    let added: usize = edits.iter().flat_map(|edit| edit.parts).map(str::len).sum();
    let mut out = Vec::with_capacity(text.len() + added);
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(text.get(done..edit.at)?);
        for part in edit.parts {
            out.extend_from_slice(part.as_bytes());
        }
        done = edit.at + edit.remove;
    }
    out.extend_from_slice(text.get(done..)?);
    Some(Bytes::from(out))
}

struct Edit<'a> {
    at: usize,
    remove: usize,
    parts: [&'a str; 4],
}

fn into_meta<'a>(whole: &str, old: &RawValue, meta: &'a str) -> Option<Edit<'a>> {
    let start = offset_in(whole, old.get())?;
    if !old.get().starts_with('{') {
        // No object, so no metadata.
        return Some(Edit { at: start, remove: old.get().len(), parts: ["{", meta, "}", ""] });
    }
    let more = if meta.is_empty() || is_empty(old.get()) { "" } else { "," };
    Some(Edit { at: start + 1, remove: 0, parts: [meta, more, "", ""] })
}

/// Whether an object has no members.
fn is_empty(object: &str) -> bool {
    object.get(1..).is_some_and(|rest| rest.trim_ascii_start().starts_with('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, id: Option<i64>, params: &str, meta: &str, expected: &str) {
        let id = id.map(Id::Integer);
        let change = Change { id: id.as_ref(), params, meta };
        let got = changed(&Bytes::copy_from_slice(text.as_bytes()), change).expect("an object");
        assert_eq!(std::str::from_utf8(&got), Ok(expected), "{text}");
        serde_json::from_slice::<serde::de::IgnoredAny>(&got).expect("still JSON");
    }

    #[test]
    fn members_are_put_in_and_all_else_stays() {
        let m = r#""m":1"#;
        let p = r#""p":2"#;
        check(r#"{"id":1,"method":"a"}"#, None, "", m, r#"{"params":{"_meta":{"m":1}},"id":1,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, Some(7), p, m, r#"{"params":{"p":2,"_meta":{"m":1}},"id":7,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, None, p, "", r#"{"params":{"p":2},"id":1,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, None, "", "", r#"{"id":1,"method":"a"}"#);
        check(r#"{"params":{ },"id":1}"#, None, "", m, r#"{"params":{"_meta":{"m":1} },"id":1}"#);
        check(r#"{"params":{ },"id":1}"#, None, p, m, r#"{"params":{"_meta":{"m":1},"p":2 },"id":1}"#);
        check(r#"{"params":{"x":1e400},"id":1}"#, None, "", m, r#"{"params":{"_meta":{"m":1},"x":1e400},"id":1}"#);
        check(r#"{"params":{"x":1},"id":1}"#, Some(9), p, m, r#"{"params":{"_meta":{"m":1},"p":2,"x":1},"id":9}"#);
        check(
            r#"{"params":{"_meta":{"y":1}},"id":1}"#,
            None,
            p,
            m,
            r#"{"params":{"p":2,"_meta":{"m":1,"y":1}},"id":1}"#,
        );
        check(r#"{"params":{"x":1,"_meta":{}},"id":1}"#, None, "", m, r#"{"params":{"x":1,"_meta":{"m":1}},"id":1}"#);
        check(r#"{"id":1,"params":{"_meta":null}}"#, Some(2), "", m, r#"{"id":2,"params":{"_meta":{"m":1}}}"#);
        check(r#"{"params":{"_meta":{"y":1}},"id":1}"#, None, p, "", r#"{"params":{"p":2,"_meta":{"y":1}},"id":1}"#);
        for bad in [r#"{"id":1,"params":[1]}"#, "[1]", r#"{"params":{"_meta":1,"_meta":2},"id":1}"#] {
            assert!(changed(&Bytes::from(bad), Change { meta: m, ..Change::default() }).is_none(), "{bad}");
        }
    }
}
