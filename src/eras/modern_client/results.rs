//! A legacy server's response as a modern client must see it. Text goes through uncopied but once.

use std::borrow::Cow;

use bytes::Bytes;

use super::opening::SERVER_INFO;
use super::request::{MISSING_CAPABILITY, Need};
use crate::message::splice::{Object, With, is_object, members, string};
use crate::message::{self, INVALID_PARAMS, Id};

/// JSON-RPC: internal error.
const INTERNAL_ERROR: i64 = -32603;
/// 2025-11-25 and older: no such resource.
const RESOURCE_NOT_FOUND: i64 = -32002;
/// 2025-11-25: the user must visit a URL first.
pub(super) const URL_ELICITATION_REQUIRED: i64 = -32042;

/// The methods whose results say how long they may be cached (2026-07-28 "Caching").
fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "server/discover"
    )
}

/// The response with this result.
pub(super) fn result_response(id: &Id, method: &str, result: &str, info: Option<&str>) -> Bytes {
    let id = id.to_json();
    let mut out = String::with_capacity(result.len() + id.len() + info.map_or(0, str::len) + 256);
    out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
    out.push_str(&id);
    out.push_str(",\"result\":");
    if is_object(result) {
        complete(method, result, info).write(&mut out);
    } else {
        // 2026-07-28 "Result Responses": an object. What is none is kept under a name of its own.
        out.push_str("{\"resultType\":\"complete\",\"value\":");
        out.push_str(result);
        out.push('}');
    }
    out.push('}');
    Bytes::from(out)
}

/// The result with what the era requires, where the server did not say it.
pub(super) fn complete<'a>(method: &str, result: &'a str, info: Option<&str>) -> Object<'a> {
    let mut object = Object::new(result);
    let Ok([kind, ttl, scope, meta]) = members(result, ["resultType", "ttlMs", "cacheScope", "_meta"]) else {
        // A member given twice: readers take the last, so what stands in front changes nothing for it.
        object.add("resultType", "\"complete\"");
        return object;
    };
    match kind {
        None => object.add("resultType", "\"complete\""),
        // A legacy server knows no such member. Another value would be of a kind that nobody promised.
        Some(kind) if string(kind.value).as_deref() != Some("complete") => {
            object.replace(kind, With::Text("\"complete\"".into()));
        }
        Some(_) => {}
    }
    if is_cacheable(method) {
        match ttl {
            None => object.add("ttlMs", "0"),
            Some(ttl) if ttl.value.parse::<u64>().is_err() => object.replace(ttl, With::Text("0".into())),
            Some(_) => {}
        }
        match scope {
            None => object.add("cacheScope", "\"private\""),
            Some(scope) if !matches!(scope.value, "\"public\"" | "\"private\"") => {
                object.replace(scope, With::Text("\"private\"".into()));
            }
            Some(_) => {}
        }
    }
    let Some(info) = info else { return object };
    match meta {
        None => object.add("_meta", &format!("{{\"{SERVER_INFO}\":{info}}}")),
        Some(meta) if is_object(meta.value) => {
            if let Ok([None]) = members(meta.value, [SERVER_INFO]) {
                let mut inner = Object::new(meta.value);
                inner.add(SERVER_INFO, info);
                object.replace(meta, With::Object(inner));
            }
        }
        Some(_) => {}
    }
    object
}

/// The code of an error object.
pub(super) fn code_of(error: &str) -> Option<i64> {
    let [code] = members(error, ["code"]).ok()?;
    code?.value.parse().ok()
}

/// The response with this error. Codes that this era gave another meaning, or took back, are replaced (2026-07-28 "Error Codes").
pub(super) fn error_response(id: &Id, error: &str) -> Bytes {
    let new = match code_of(error) {
        Some(RESOURCE_NOT_FOUND) => Some(INVALID_PARAMS),
        // Reserved for the specification: from a legacy server they mean something of its own.
        Some(-32099..=-32020) => Some(INTERNAL_ERROR),
        Some(_) => None,
        // Not an error of JSON-RPC; a client may refuse the whole message.
        None => Some(INTERNAL_ERROR),
    };
    let mut object = Object::new(error);
    if let Some(new) = new
        && let Ok([code, text, data]) = members(error, ["code", "message", "data"])
    {
        match code {
            Some(code) => {
                if new == INTERNAL_ERROR && data.is_none() && code.value.parse::<i64>().is_ok() {
                    object.add("data", &format!("{{\"legacyCode\":{}}}", code.value));
                }
                object.replace(code, With::Text(new.to_string().into()));
            }
            None => object.add("code", &new.to_string()),
        }
        if text.is_none() {
            object.add("message", "\"the server gave no reason\"");
        }
    }
    let id = id.to_json();
    let mut out = String::with_capacity(error.len() + id.len() + 128);
    out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
    out.push_str(&id);
    out.push_str(",\"error\":");
    object.write(&mut out);
    out.push('}');
    Bytes::from(out)
}

/// The text of an error object.
pub(super) fn message_of(error: &str) -> Cow<'_, str> {
    let Ok([Some(text)]) = members(error, ["message"]) else { return Cow::Borrowed("") };
    string(text.value).unwrap_or_default()
}

/// The server needs an answer of the client that the request did not declare it can give (2026-07-28 "Overview", `_meta`). A legacy
/// server that is refused its question tells the refusal on as its own error, of whatever code.
pub(super) fn cannot_ask(id: &Id, need: Need, why: &str) -> Bytes {
    let required = match need {
        Need::Roots => r#"{"requiredCapabilities":{"roots":{}}}"#,
        Need::Sampling => r#"{"requiredCapabilities":{"sampling":{}}}"#,
        Need::SamplingTools => r#"{"requiredCapabilities":{"sampling":{"tools":{}}}}"#,
        Need::Form => r#"{"requiredCapabilities":{"elicitation":{"form":{}}}}"#,
        Need::Url => r#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#,
    };
    message::error_response(Some(id), MISSING_CAPABILITY, why, Some(required))
}

/// The server needs the user to visit a URL, and the client cannot ask for that.
pub(super) fn cannot_ask_for_url(id: &Id) -> Bytes {
    let why =
        "the server wants the user to visit a URL, and the request did not declare that the client can ask for that";
    cannot_ask(id, Need::Url, why)
}

/// The server needed the user to visit a URL, and the user did not.
pub(super) fn url_declined(id: &Id) -> Bytes {
    message::error_response(
        Some(id),
        INTERNAL_ERROR,
        "the server wants the user to visit a URL first, and the user did not agree",
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(method: &str, result: &str, info: Option<&str>) -> String {
        String::from_utf8(result_response(&Id::Integer(1), method, result, info).to_vec()).expect("UTF-8")
    }

    fn error(error: &str) -> String {
        String::from_utf8(error_response(&Id::Integer(1), error).to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_result_gets_what_the_era_requires_and_keeps_the_rest() {
        let table = [
            (
                "tools/call",
                r#"{"content":[],"n":1e400,"n":2}"#,
                None,
                r#"{"resultType":"complete","content":[],"n":1e400,"n":2}"#,
            ),
            ("x/y", "{}", None, r#"{"resultType":"complete"}"#),
            (
                "tools/list",
                r#"{"tools":[]}"#,
                None,
                r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[]}"#,
            ),
            (
                "tools/list",
                r#"{"ttlMs":5,"cacheScope":"public"}"#,
                None,
                r#"{"resultType":"complete","ttlMs":5,"cacheScope":"public"}"#,
            ),
            (
                "resources/read",
                r#"{"ttlMs":-5,"cacheScope":"all"}"#,
                None,
                r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#,
            ),
            ("tools/call", r#"{"resultType":"input_required"}"#, None, r#"{"resultType":"complete"}"#),
            ("tools/call", r#"{"resultType":"complete","a":1}"#, None, r#"{"resultType":"complete","a":1}"#),
            (
                "tools/call",
                r#"{"_meta":{"a":1}}"#,
                Some("{}"),
                r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{},"a":1}}"#,
            ),
            (
                "tools/call",
                "{}",
                Some("{}"),
                r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#,
            ),
            ("tools/call", "[1]", None, r#"{"resultType":"complete","value":[1]}"#),
        ];
        for (method, text, info, expected) in table {
            let expected = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{expected}}}");
            assert_eq!(result(method, text, info), expected, "{method} {text}");
        }
    }

    #[test]
    fn error_codes_of_the_other_era_are_replaced() {
        let table = [
            (r#"{"code":-32601,"message":"no","x":1}"#, r#"{"code":-32601,"message":"no","x":1}"#),
            (
                r#"{"code":-32002,"message":"no","data":{"uri":"u"}}"#,
                r#"{"code":-32602,"message":"no","data":{"uri":"u"}}"#,
            ),
            (r#"{"code":-32022,"message":"no"}"#, r#"{"data":{"legacyCode":-32022},"code":-32603,"message":"no"}"#),
            (r#"{"code":-32050,"message":"no","data":1}"#, r#"{"code":-32603,"message":"no","data":1}"#),
            (r#"{"code":-32001,"message":"no"}"#, r#"{"code":-32001,"message":"no"}"#),
            (r#"{"code":7,"message":"no"}"#, r#"{"code":7,"message":"no"}"#),
            (r#"{"code":"x"}"#, r#"{"message":"the server gave no reason","code":-32603}"#),
            ("{}", r#"{"code":-32603,"message":"the server gave no reason"}"#),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{expected}}}"), "{text}");
        }
    }
}
