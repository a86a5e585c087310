//! JSON documents of peers, read leniently in form and strictly in what matters. Pure.
//!
//! A member that is read and given twice is an error: two readers would disagree on it. Nesting beyond `serde_json`'s 128
//! levels is an error where it is read, and skipped without recursion elsewhere. A member of the wrong type is as if absent.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{AuthError, Mender};

/// Most decoded bytes of a metadata document.
pub(super) const MAX_DOCUMENT: usize = 512 * 1024;
/// Most entries of a list in a document that are read.
pub(super) const MAX_LIST: usize = 512;

/// Reads an object into a struct of [`Value`]s. `what` names the document: `the resource metadata`.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8], what: &str, mender: Mender) -> Result<T, AuthError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.len() > MAX_DOCUMENT {
        return Err(AuthError::new("document-size", mender, format!("{what} is larger than {MAX_DOCUMENT} bytes")));
    }
    let text = bytes.trim_ascii_start();
    // A sequence would fill a struct by position.
    if text.first() != Some(&b'{') {
        let kind = if text.first() == Some(&b'<') { "HTML or XML" } else { "no JSON object" };
        return Err(AuthError::new("document-json", mender, format!("{what} is {kind}")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The library's own text may repeat names of members, which are ours here, but no values.
        let why = match error.classify() {
            serde_json::error::Category::Data => "a member is given twice or cannot be read",
            serde_json::error::Category::Eof => "it ends too early",
            _ => "its syntax is wrong",
        };
        let place = format!("line {}, column {}", error.line(), error.column());
        AuthError::new("document-json", mender, format!("{what} is no proper JSON: {why} ({place})"))
    })
}

/// A string that is not empty.
pub(super) fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|text| !text.is_empty())
}

/// The strings of a list, or of a single string; `None` where the member is absent or something else.
pub(super) fn list(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::Array(entries) => Some(entries.iter().take(MAX_LIST).filter_map(Value::as_str).collect()),
        Value::String(one) => Some(vec![one]),
        _ => None,
    }
}

/// `true`, also as text, as some servers write it.
pub(super) fn flag(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(true))) || value.and_then(Value::as_str) == Some("true")
}

/// A number of seconds, also as text and with a fraction; `None` for what is no such thing or negative.
pub(super) fn seconds(value: Option<&Value>) -> Option<u64> {
    let number = match value? {
        Value::Number(number) => match number.as_u64() {
            Some(whole) => return Some(whole),
            None => number.as_f64()?,
        },
        Value::String(text) => match text.trim().parse::<u64>() {
            Ok(whole) => return Some(whole),
            Err(_) => text.trim().parse::<f64>().ok()?,
        },
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not negative; saturates"
    )]
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Doc {
        a: Option<Value>,
    }

    fn read(bytes: &[u8]) -> Result<Option<Value>, AuthError> {
        object::<Doc>(bytes, "the thing", Mender::Server).map(|doc| doc.a)
    }

    #[test]
    fn objects() {
        assert_eq!(read(b"\xef\xbb\xbf {\"a\":1,\"b\":{\"a\":2}}").unwrap(), Some(json!(1)));
        assert_eq!(read(b"{\"a\":null}").unwrap(), None);
        for bad in
            [&b"[1]"[..], b"", b"<html>", b"{\"a\":1", b"{\"a\":1}}", b"{\"a\":1,\"\\u0061\":1}", b"{\"a\":\"\xff\"}"]
        {
            assert_eq!(read(bad).unwrap_err().rule(), "document-json", "{}", bad.escape_ascii());
        }
        assert!(!read(b"{\"a\":\"secret\xff\"}").unwrap_err().to_string().contains("secret"));
        let deep = |name: &str| format!("{{\"{name}\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(read(deep("a").as_bytes()).unwrap_err().rule(), "document-json");
        assert_eq!(read(deep("b").as_bytes()).unwrap(), None);
        let big = |extra: usize| [b"{}".to_vec(), vec![b' '; MAX_DOCUMENT - 2 + extra]].concat();
        assert!(read(&big(0)).is_ok());
        assert_eq!(read(&big(1)).unwrap_err().rule(), "document-size");
    }

    #[test]
    fn members() {
        assert_eq!(text(Some(&json!(""))), None);
        assert_eq!(text(Some(&json!(5))), None);
        assert_eq!(list(Some(&json!(["a", 1, "b"]))), Some(vec!["a", "b"]));
        assert_eq!(list(Some(&json!("a b"))), Some(vec!["a b"]));
        assert_eq!(list(Some(&json!({}))), None);
        assert_eq!(list(Some(&json!(vec!["x"; MAX_LIST + 1]))).unwrap().len(), MAX_LIST);
        #[rustfmt::skip]
        let table = [
            (json!(3600), Some(3600)), (json!("3600"), Some(3600)), (json!(3599.9), Some(3599)), (json!(" 60.5 "), Some(60)),
            (json!(-1), None), (json!("-1"), None), (json!("soon"), None), (json!("NaN"), None), (json!("inf"), None),
            (json!(null), None), (json!([1]), None), (json!(1e300), Some(u64::MAX)), (json!(0), Some(0)), (json!(""), None),
        ];
        for (value, want) in table {
            assert_eq!(seconds(Some(&value)), want, "{value}");
        }
        assert!(flag(Some(&json!(true))) && flag(Some(&json!("true"))));
        assert!(!flag(Some(&json!(1))) && !flag(None));
    }
}
