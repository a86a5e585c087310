//! How servers say that they do not know a session (C2).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::era;
use crate::message::{self, Message, Outcome, Parsed};

/// Bytes of an error body that are searched for the words of a lost session.
const MAX_SEARCHED: usize = 4096;

/// A status and body that mean "I do not know this session". 404 is the specification's; real servers also send 400, 410
/// and 503 and say so in the text, and after a restart "not initialized".
pub(super) fn status_says_session_gone(status: u16, body: &Bytes, has_id: bool) -> bool {
    match status {
        404 => has_id && rpc_error(body).is_none_or(|(code, _)| code != message::METHOD_NOT_FOUND),
        400 | 409 | 410 | 422 | 503 => {
            let searched = body.get(..body.len().min(MAX_SEARCHED)).unwrap_or_default();
            text_says_session_gone(&String::from_utf8_lossy(searched))
        }
        _ => false,
    }
}

/// The same as a JSON-RPC error on HTTP 200. Stricter: a tool may speak of sessions of its own.
pub(super) fn says_session_gone(error: &RawValue) -> bool {
    const MAX_MESSAGE: usize = 200;
    let Some(error) = ErrorHead::read(error) else { return false };
    let code = matches!(error.code, -32099..=-32000 | message::INVALID_REQUEST | message::INVALID_PARAMS);
    code && !era::is_modern_error(error.code)
        && error.message.len() <= MAX_MESSAGE
        && text_says_session_gone(&error.message)
}

/// Of these errors, those of a server that waits for `initialize`.
pub(super) fn says_not_initialized(error: &RawValue) -> bool {
    ErrorHead::read(error).is_some_and(|error| text_says_not_initialized(&error.message.to_ascii_lowercase()))
}

fn text_says_not_initialized(text: &str) -> bool {
    text.contains("server not initialized") || text.contains("before initialization was complete")
}

fn text_says_session_gone(text: &str) -> bool {
    const SIGNS: [&str; 13] = [
        "not found",
        "expired",
        "invalid",
        "unknown",
        "no valid",
        "not valid",
        "does not exist",
        "doesn't exist",
        "terminated",
        "closed",
        "missing",
        "required",
        "not initialized",
    ];
    let text = text.to_ascii_lowercase();
    text_says_not_initialized(&text) || (text.contains("session") && SIGNS.iter().any(|sign| text.contains(sign)))
}

/// What a JSON-RPC error body says: its code, and its text, if that can be passed on.
pub(super) fn rpc_error(body: &Bytes) -> Option<(i64, Option<Bytes>)> {
    match message::parse(body).ok()? {
        Parsed::One(Message::Response(response)) => match response.outcome {
            Outcome::Error(error) => {
                let text = response.outcome.is_well_formed().then(|| body.clone());
                Some((ErrorHead::read(error)?.code, text))
            }
            Outcome::Result(_) => None,
        },
        _ => None,
    }
}

/// Whether an error refuses the request's version and names legacy versions alone.
pub(super) fn says_legacy_alone(error: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        code: i64,
        data: Versions,
    }
    #[derive(Deserialize)]
    struct Versions {
        supported: Vec<String>,
    }
    serde_json::from_str::<Refusal>(error.get()).is_ok_and(|refusal| {
        refusal.code == era::UNSUPPORTED_VERSION
            && era::is_legacy_alone(refusal.data.supported.iter().map(String::as_str))
    })
}

/// The same of an error body.
pub(super) fn body_says_legacy_alone(body: &Bytes) -> bool {
    match message::parse(body) {
        Ok(Parsed::One(Message::Response(response))) => match response.outcome {
            Outcome::Error(error) => says_legacy_alone(error),
            Outcome::Result(_) => false,
        },
        _ => false,
    }
}

/// The code of a JSON-RPC error.
pub(super) fn rpc_code(error: &RawValue) -> Option<i64> {
    Some(ErrorHead::read(error)?.code)
}

#[derive(Deserialize)]
struct ErrorHead {
    code: i64,
    #[serde(default)]
    message: String,
}

impl ErrorHead {
    fn read(error: &RawValue) -> Option<Self> {
        serde_json::from_str(error.get()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_session_is_told_from_other_errors() {
        let yes = [
            (404, ""),
            (404, r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#),
            (
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
            ),
            (
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
            ),
            (400, "Invalid session"),
            (503, r#"{"error":"session expired"}"#),
            (410, "Session terminated"),
            (400, "Received request before initialization was complete"),
        ];
        for (status, body) in yes {
            assert!(status_says_session_gone(status, &Bytes::from(body), true), "{status} {body}");
        }
        let no = [
            (400, "Bad Request"),
            (503, "Service Unavailable"),
            (401, "session expired"),
            (500, "session not found"),
            (400, "unknown tool"),
        ];
        for (status, body) in no {
            assert!(!status_says_session_gone(status, &Bytes::from(body), true), "{status} {body}");
        }
        assert!(!status_says_session_gone(404, &Bytes::new(), false), "without a session id a 404 is a wrong address");
        let unknown_method = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#;
        assert!(!status_says_session_gone(404, &Bytes::from(unknown_method), true));
    }

    #[test]
    fn a_tool_error_about_sessions_of_its_own_is_not_ours() {
        let error = |text: &str| serde_json::from_str::<Box<RawValue>>(text).expect("JSON");
        assert!(says_session_gone(&error(r#"{"code":-32001,"message":"Session not found"}"#)));
        assert!(says_session_gone(&error(r#"{"code":-32602,"message":"Invalid session ID"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32603,"message":"session not found"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32000,"message":"no such file"}"#)));
        assert!(!says_session_gone(&error(r#"{"code":-32022,"message":"session not found"}"#)));
    }

    #[test]
    fn a_server_of_both_eras_may_be_told_to_serve_the_older_one() {
        let error = |text: &str| serde_json::from_str::<Box<RawValue>>(text).expect("JSON");
        for (expected, text) in [
            (true, r#"{"code":-32022,"message":"no","data":{"requested":"2026-07-28","supported":["2025-11-25"]}}"#),
            (false, r#"{"code":-32022,"message":"no","data":{"supported":["2025-11-25","2031-01-01"]}}"#),
            (false, r#"{"code":-32022,"message":"no","data":{"supported":[]}}"#),
            (false, r#"{"code":-32022,"message":"no","data":{"supported":"2025-11-25"}}"#),
            (false, r#"{"code":-32022,"message":"no"}"#),
            (false, r#"{"code":-32000,"message":"no","data":{"supported":["2025-11-25"]}}"#),
        ] {
            assert_eq!(says_legacy_alone(&error(text)), expected, "{text}");
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{text}}}"#);
            assert_eq!(body_says_legacy_alone(&Bytes::from(body)), expected, "{text}");
        }
        assert!(!body_says_legacy_alone(&Bytes::from_static(b"no")));
    }
}
