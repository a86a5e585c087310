//! What a client may write: good, odd and broken.

use super::script::{Script, VERSIONS};
use super::world::SECRET;

/// Ids from a small pool, so that they meet again; `1` and `1e0` are one id, `"1"` is another.
const IDS: [&str; 10] = ["1", "\"1\"", "2", "3", "\"a\"", "\"\\u0061\"", "1e0", "-7", "123456789012345678901", "\"é\""];

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

/// One member of a line.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// A request with this id (as JSON text) and method.
    Request { text: String, id: String, method: &'static str },
    /// `notifications/cancelled` for this id.
    Cancel { text: String, id: String },
    /// The answer to the server's request with this id and number.
    Answer { text: String },
    /// Any other notification or response.
    Silent(String),
    /// No message; the id is the one that its refusal should name, unless it is in use.
    Broken { text: String, id: Option<String> },
}

impl Said {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Request { text, .. }
            | Self::Cancel { text, .. }
            | Self::Answer { text }
            | Self::Silent(text)
            | Self::Broken { text, .. } => text,
        }
    }
}

pub(super) fn id(script: &mut Script) -> String {
    script.pick(&IDS).to_owned()
}

/// One message. `asked` are the server's open requests: id as the client knows it, and number.
pub(super) fn message(script: &mut Script, asked: &[(String, u64)]) -> Said {
    match script.below(16) {
        0..=6 => request(script),
        7 => initialize(script),
        8 => Said::Silent(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into()),
        9 | 10 => {
            let id = id(script);
            let text = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#
            );
            Said::Cancel { text, id }
        }
        11 => modern(script),
        12 => Said::Silent(
            script
                .pick(&[
                    r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
                    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}}"#,
                    r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
                    r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
                    r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
                    r#"{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}"#,
                ])
                .into(),
        ),
        13 | 14 if !asked.is_empty() => {
            let at = script.below(asked.len());
            let (id, number) = asked.get(at).expect("below the length");
            let text = match script.below(3) {
                0 => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"{number}"}}}}"#),
                _ => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"number":{number}}}}}"#),
            };
            Said::Answer { text }
        }
        _ => broken(script),
    }
}

fn request(script: &mut Script) -> Said {
    let id = id(script);
    let (method, params) = script.pick(&[
        ("tools/call", r#"{"name":"change"}"#),
        ("tools/call", r#"{"name":"look"}"#),
        ("tools/list", "{}"),
        ("ping", "{}"),
        ("tools/call", r#"{"name":"hideMe","arguments":{"id":5}}"#),
        ("resources/subscribe", r#"{"uri":"file:///a"}"#),
        ("resources/unsubscribe", r#"{"uri":"file:///a"}"#),
        ("logging/setLevel", r#"{"level":"debug"}"#),
        ("tools/call", "[]"),
        ("x/unknown", "{}"),
    ]);
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
    Said::Request { text, id, method }
}

pub(super) fn initialize(script: &mut Script) -> Said {
    let id = id(script);
    let version = script.pick(&VERSIONS);
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}}}}}}"#
    );
    Said::Request { text, id, method: "initialize" }
}

/// A request that matters while nobody is signed in. Nobody pastes anything before a sign-in was wanted.
pub(super) fn sign_in(script: &mut Script, may_paste: bool) -> Said {
    let id = id(script);
    let (method, params) = match script.below(6) {
        0 => ("tools/list", "{}".to_owned()),
        1 => {
            let params = r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"url":{}}},"clientInfo":{"name":"c"}}"#;
            ("initialize", params.to_owned())
        }
        2 => ("tools/call", format!(r#"{{"name":"sign_in",{META}}}"#)),
        3 if may_paste => ("tools/call", format!(r#"{{"name":"sign_in","arguments":{{"redirect_url":"{SECRET}"}}}}"#)),
        4 => ("tools/list", format!("{{{META}}}")),
        _ => ("tools/call", r#"{"name":"sign_in"}"#.to_owned()),
    };
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
    Said::Request { text, id, method }
}

fn modern(script: &mut Script) -> Said {
    let id = id(script);
    let method =
        script.pick(&["tools/call", "subscriptions/listen", "server/discover", "tools/list", "modern initialize"]);
    let name = method.strip_prefix("modern ").unwrap_or(method);
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{name}","params":{{"name":"look",{META}}}}}"#);
    Said::Request { text, id, method }
}

fn broken(script: &mut Script) -> Said {
    let id = id(script);
    let (text, with_id) = match script.below(9) {
        0 => (format!(r#"{{"jsonrpc":"1.0","id":{id},"method":"ping"}}"#), true),
        1 => (format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","method":"ping"}}"#), true),
        2 => (format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#), true),
        3 => (format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"error":{{}}}}"#), false),
        4 => (format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping""#), false),
        5 => ("5".to_owned(), false),
        6 => (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(), false),
        7 => ("{}\0".to_owned(), false),
        _ => (format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":7}}"#), true),
    };
    Said::Broken { text, id: with_id.then_some(id) }
}
