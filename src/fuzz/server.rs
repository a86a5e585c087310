//! What a server and the network may do to an exchange.

use std::time::Duration;

use bytes::Bytes;

use super::script::{Milliseconds as _, Script, VERSIONS};
use crate::session::{Content, Failure, FailureKind, Head};
use crate::sse::{Event, IdChange};

/// What is known of a running exchange.
#[derive(Debug, Clone, Default)]
pub(super) struct Running {
    /// The id of the request that it carries, as JSON text.
    pub(super) id: Option<String>,
    pub(super) is_get: bool,
    /// It takes a stream up again.
    pub(super) is_resume: bool,
    pub(super) is_initialize: bool,
    pub(super) opened: bool,
    /// What it carries was answered by another way.
    pub(super) answered: bool,
    /// It was refused, and waits for a sign-in since then.
    pub(super) held: Option<Duration>,
}

/// Numbers that make what the server asks recognisable.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) last: u64,
}

pub(super) fn head(script: &mut Script, statuses: &[u16]) -> Head {
    Head {
        status: script.pick(statuses),
        content: match script.below(4) {
            0 => Content::EventStream,
            1 => Content::Other("text/html".into()),
            2 => Content::Other(String::new()),
            _ => Content::Json,
        },
        session_id: match script.below(4) {
            0 => Some(Ok("s-1".into())),
            1 => Some(Ok("s-2".into())),
            2 if script.one_in(4) => Some(Err(())),
            _ => None,
        },
        retry_after: script.pick(&[None, None, None, Some(0), Some(3000), Some(86_400_000)]).map(u64::ms),
    }
}

pub(super) const OK: [u16; 3] = [200, 202, 204];
pub(super) const REFUSED: [u16; 14] = [404, 400, 503, 429, 405, 410, 401, 403, 500, 502, 504, 301, 409, 600];

pub(super) fn failure(script: &mut Script) -> Failure {
    Failure {
        kind: script.pick(&[
            FailureKind::Cut,
            FailureKind::Connect,
            FailureKind::Timeout,
            FailureKind::Dns,
            FailureKind::Tls,
            FailureKind::Proxy,
            FailureKind::TooLarge,
            FailureKind::Redirect,
            FailureKind::Policy,
            FailureKind::Malformed,
        ]),
        unsent: script.below(2) == 0,
        message: "it broke".into(),
        hint: None,
    }
}

/// The result that an honest server gives to `initialize`.
pub(super) fn initialize_result(id: &str, version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{version}","capabilities":{{"tools":{{}},"resources":{{}}}}}}}}"#
    )
}

/// One text: the answer to `id`, or something else. `others` are ids of other exchanges.
pub(super) fn text(script: &mut Script, running: &Running, others: &[String], asking: &mut Asking) -> Bytes {
    let own = running.id.clone().unwrap_or_else(|| "77".into());
    let result = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    let text = match script.below(20) {
        0..=3 if running.is_initialize => initialize_result(&own, script.pick(&VERSIONS)),
        0..=3 => result(&own),
        4 => format!(
            r#"{{"jsonrpc":"2.0","id":{own},"result":{{"tools":[{{"name":"look","annotations":{{"readOnlyHint":true}}}},{{"name":"change"}}]}}}}"#
        ),
        // Some errors, and some results, are such as strict clients drop.
        5 if script.one_in(3) => {
            let outcome = script.pick(&[
                r#""error":{"code":"E1","message":"x"}"#,
                r#""error":{"code":-32001}"#,
                r#""error":{}"#,
                r#""result":null"#,
                r#""result":[1]"#,
            ]);
            format!(r#"{{"jsonrpc":"2.0","id":{own},{outcome}}}"#)
        }
        5 => format!(r#"{{"jsonrpc":"2.0","id":{own},"error":{{"code":-32601,"message":"no such method"}}}}"#),
        6 => r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#.into(),
        7 => format!(r#"{{"jsonrpc":"2.0","id":{own},"error":{{"code":-32001,"message":"Session not found"}}}}"#),
        8 => others.get(script.below(others.len())).map_or_else(|| result("55"), |id| result(id)),
        9 => format!("[{},{}]", result(&own), result(&own)),
        10 => {
            asking.last += 1;
            let id = script.pick(&["1", "\"1\"", "2", "\"s\""]);
            let number = asking.last;
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list","params":{{"number":{number},"original":{id}}}}}"#)
        }
        11 => script
            .pick(&[
                r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}"#,
            ])
            .into(),
        12 => format!("{{\r\n \"jsonrpc\": \"2.0\",\n \"id\": {own},\n \"result\": {{\"t\":\"\u{2028}\"}}\r\n}}"),
        13 => format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{}},"error":null}}"#),
        14 => format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{}},"result":{{}}}}"#),
        15 => format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{"cut":"#),
        16 => "<html>session expired</html>".into(),
        17 => String::new(),
        18 => "/messages?sessionId=1".into(),
        _ => {
            let mut text = format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{"t":"X"}}}}"#).into_bytes();
            if let Some(at) = text.iter().position(|byte| *byte == b'X') {
                text.splice(at..=at, [0xFF]);
            }
            return text.into();
        }
    };
    text.into()
}

pub(super) fn event(script: &mut Script, data: Bytes) -> Event {
    let name = match script.below(8) {
        0 => Some("endpoint".to_owned()),
        1 => Some("message".to_owned()),
        2 => Some("other".to_owned()),
        _ => None,
    };
    let id = match script.below(4) {
        0 => Some(IdChange::Set("e-1".into())),
        1 if script.one_in(4) => Some(IdChange::Clear),
        _ => None,
    };
    let retry = script.pick(&[None, None, None, Some(0), Some(50), Some(3000), Some(u64::MAX)]);
    Event { name, data, id, retry }
}

/// An honest event.
pub(super) fn plain_event(name: Option<&str>, data: String) -> Event {
    Event { name: name.map(str::to_owned), data: data.into(), id: None, retry: None }
}

pub(super) fn plain_head(status: u16, content: Content) -> Head {
    Head { status, content, session_id: None, retry_after: None::<Duration> }
}
