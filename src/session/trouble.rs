//! The bridge's own errors: what a person reads when the server gave no answer.

use bytes::Bytes;
use serde::Deserialize;

use super::{Content, Failure, FailureKind, Head, SIGN_IN_WANTED, Session};
use crate::message::{self, Id};

/// Characters of a server's own words in an error text.
pub(super) const MAX_QUOTE: usize = 200;
/// Bytes of an error body that are searched for the server's words.
const MAX_SEARCHED: usize = 4096;

/// An error of the bridge, on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: &'static str,
    pub(super) status: Option<u16>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// A person may still sign in. The message may hold the address.
    pub(super) declined: bool,
    /// The server's own JSON-RPC error, to be passed on as it is (R2).
    pub(super) body: Option<Bytes>,
}

impl Trouble {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: None, message: message.into(), hint: None, declined: false, body: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn of(failure: &Failure) -> Self {
        let declined = failure.kind == FailureKind::Declined;
        Self { hint: failure.hint.clone(), declined, ..Self::new(failure.kind.word(), failure.message.clone()) }
    }

    /// A token is missing.
    pub(super) fn is_sign_in(&self) -> bool {
        self.kind == FailureKind::SignIn.word()
    }

    /// The message as a log may have it.
    pub(super) fn logged(&self) -> &str {
        if self.declined { SIGN_IN_WANTED } else { &self.message }
    }

    /// The error response for one request.
    pub(super) fn response(&self, id: &Id) -> Bytes {
        if let Some(text) = self.body.as_ref().and_then(|body| message::with_id(body, id)) {
            return text;
        }
        let data = data(self.kind, self.status, self.hint.as_deref());
        message::error_response(Some(id), message::BRIDGE_ERROR, &self.message, Some(&data))
    }
}

/// The `data` member of the bridge's errors, as JSON text.
pub(super) fn data(kind: &str, status: Option<u16>, hint: Option<&str>) -> String {
    let status = status.map(|status| format!(",\"status\":{status}")).unwrap_or_default();
    let hint = hint.map(|hint| format!(",\"hint\":{}", message::quote(hint))).unwrap_or_default();
    format!("{{\"source\":\"mcp-drawbridge\",\"kind\":{}{status}{hint}}}", message::quote(kind))
}

impl Session {
    /// The error for a status.
    pub(super) fn status_trouble(&self, head: &Head, body: &Bytes, error: Option<Bytes>) -> Trouble {
        let server = &self.settings.server;
        let status = head.status;
        let mut trouble = match status {
            401 => Trouble::new("unauthorized", format!("{server} wants a sign-in or another credential (HTTP 401)"))
                .hint("give the server's token with --header \"Authorization: Bearer ${TOKEN}\"; if you do already, the server refused it"),
            403 => Trouble::new("forbidden", format!("{server} refused access (HTTP 403)"))
                .hint("the account or header in use is not allowed to do this"),
            404 | 410 => Trouble::new("not-found", format!("{server} has nothing at this address (HTTP {status})"))
                .hint("check the URL: it must be the server's MCP endpoint, often ending in /mcp or /sse"),
            405 => Trouble::new("not-mcp", format!("{server} does not take MCP messages at this address (HTTP 405)"))
                .hint("check the URL, or try --transport sse-only for an older server"),
            408 | 504 => Trouble::new("timeout", format!("{server} timed out (HTTP {status})")),
            413 => Trouble::new("too-large", format!("the message is too large for {server} (HTTP 413)")),
            429 => Trouble::new("busy", format!("{server} has too many requests from you (HTTP 429)")).hint("wait a little and try again"),
            500..=599 => Trouble::new("server-error", format!("{server} failed (HTTP {status})")).hint("the fault is on the server's side; try again later"),
            _ => Trouble::new("http", format!("{server} answered HTTP {status}")),
        };
        trouble.status = Some(status);
        trouble.body = error;
        if trouble.body.is_none()
            && let Some(words) = server_words(head, body)
        {
            trouble.message = format!("{}; it says: \"{words}\"", trouble.message);
        }
        trouble
    }
}

pub(super) fn content_name(head: &Head) -> String {
    match &head.content {
        Content::Json => "JSON".into(),
        Content::EventStream => "an event stream".into(),
        Content::Other(name) if name.starts_with("text/html") => "an HTML page".into(),
        Content::Other(name) if name.is_empty() => "a body without a content type".into(),
        Content::Other(name) => printable(name, 60),
    }
}

/// The server's own short words, if it has any that are for people.
fn server_words(head: &Head, body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Words {
        error_description: Option<String>,
        message: Option<String>,
        detail: Option<String>,
        error: Option<serde_json::Value>,
    }
    let body = body.get(..body.len().min(MAX_SEARCHED))?;
    let text = match &head.content {
        Content::Json => {
            let words: Words = serde_json::from_slice(body).ok()?;
            let error = words.error.and_then(|error| {
                error.as_str().map(str::to_owned).or_else(|| Some(error.get("message")?.as_str()?.to_owned()))
            });
            words.error_description.or(words.message).or(words.detail).or(error)?
        }
        Content::Other(name) if name.starts_with("text/plain") => String::from_utf8_lossy(body).into_owned(),
        _ => return None,
    };
    let text = printable(text.trim(), MAX_QUOTE);
    (!text.is_empty()).then_some(text)
}

/// A text of the server without control characters, and not too long.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_kind_status_and_hint() {
        let trouble = Trouble { status: Some(404), ..Trouble::new("not-found", "nothing here").hint("check \"it\"") };
        let value: serde_json::Value = serde_json::from_slice(&trouble.response(&Id::Integer(4))).expect("JSON");
        assert_eq!(value["id"], 4);
        assert_eq!(value["error"]["code"], -32001);
        assert_eq!(value["error"]["data"]["source"], "mcp-drawbridge");
        assert_eq!(value["error"]["data"]["kind"], "not-found");
        assert_eq!(value["error"]["data"]["status"], 404);
        assert_eq!(value["error"]["data"]["hint"], "check \"it\"");
    }

    #[test]
    fn a_servers_words_are_short_and_harmless() {
        let head = |content| Head { status: 500, content, session_id: None, retry_after: None };
        let plain = || Content::Other("text/plain; charset=utf-8".into());
        assert_eq!(server_words(&head(plain()), &Bytes::from("no\u{1b}[31m way\n")).as_deref(), Some("no [31m way"));
        assert_eq!(
            server_words(&head(plain()), &Bytes::from("x".repeat(9999))).map(|words| words.len()),
            Some(MAX_QUOTE)
        );
        assert_eq!(
            server_words(&head(Content::Json), &Bytes::from(r#"{"error":{"message":"quota"}}"#)).as_deref(),
            Some("quota")
        );
        assert_eq!(server_words(&head(Content::Other("text/html".into())), &Bytes::from("<b>")), None);
    }
}
