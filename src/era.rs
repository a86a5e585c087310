//! Protocol eras and the headers that the modern era mirrors from the body.
//!
//! *Legacy*: revisions up to 2025-11-25, which open with `initialize`. *Modern*: 2026-07-28 and later, where every
//! request names its version in `_meta` (MCP 2026-07-28 "Versioning and Compatibility").
//!
//! This file answers two questions about one message: which era is it of, and which headers go with it. The
//! translation between eras is not here.

pub mod param_headers;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message;

/// Which of the two ways of speaking (2026-07-28 "Versioning and Compatibility", Terminology).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Era {
    /// Revisions up to 2025-11-25.
    Legacy,
    /// 2026-07-28 and later.
    Modern,
}

/// The first revision without a handshake.
pub const MODERN: &str = "2026-07-28";
/// The only revision whose clients and servers exchange batches (MCP 2025-03-26 "Batching").
pub const BATCHING: &str = "2025-03-26";
/// Errors that only a server of the modern era makes (2026-07-28 "Error Codes"): header mismatch, missing capability,
/// unsupported version.
pub const MODERN_ERRORS: [i64; 3] = [HEADER_MISMATCH, -32021, UNSUPPORTED_VERSION];
/// The headers do not match the body, or one is missing.
pub const HEADER_MISMATCH: i64 = -32020;
/// The server does not speak the version that the request names.
pub const UNSUPPORTED_VERSION: i64 = -32022;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Bytes of a name or URI that are mirrored into `Mcp-Name`; beyond it a server would refuse the header anyway.
const MAX_MIRRORED: usize = 8 * 1024;

/// The headers of one modern request (2026-07-28 "Request Metadata").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernHeaders {
    /// `MCP-Protocol-Version`, from `_meta`.
    pub version: String,
    /// `Mcp-Method`.
    pub method: String,
    /// `Mcp-Name` for `tools/call`, `prompts/get` and `resources/read`, and for the methods about one task (SEP-2663 "Routing Headers"),
    /// encoded.
    pub name: Option<String>,
    /// `Mcp-Param-*`: what stands behind the second hyphen, and the encoded values.
    pub params: Vec<(Box<str>, String)>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// The headers of a request that names a protocol version in its `_meta`, or whose method only the modern era has; `None` for a legacy
/// message. The version is not judged: one that the server does not know, or that is missing, is the server's to refuse.
pub fn modern_headers(method: &str, params: Option<&RawValue>) -> Option<ModernHeaders> {
    let modern_method = matches!(method, "server/discover" | "subscriptions/listen");
    headers_of(method, params).or_else(|| {
        modern_method.then(|| ModernHeaders {
            version: MODERN.into(),
            method: method.into(),
            name: None,
            params: Vec::new(),
        })
    })
}

fn headers_of(method: &str, params: Option<&RawValue>) -> Option<ModernHeaders> {
    let params = params?.get();
    // Cheap test first: most messages are legacy, and some are large. The key's slash may be escaped, so look for what is before it.
    memchr::memmem::find(params.as_bytes(), b"io.modelcontextprotocol")?;
    let params: Params = serde_json::from_str(params).ok()?;
    let version = serde_json::from_str::<String>(params.meta?.get(META_VERSION)?.get()).ok()?;
    let mirrored = match method {
        "tools/call" | "prompts/get" => params.name,
        "resources/read" => params.uri,
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task,
        _ => None,
    };
    let name = mirrored.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    Some(ModernHeaders {
        version: header_value(&version),
        method: header_value(method),
        name: name.filter(|name| name.len() <= MAX_MIRRORED).map(|name| header_value(&name)),
        params: Vec::new(),
    })
}

/// A text as a header value: as it is where it is plain visible ASCII, else in the Base64 sentinel form
/// (2026-07-28 "Value Encoding").
pub fn header_value(text: &str) -> String {
    let visible = text.bytes().all(|byte| matches!(byte, 0x20..=0x7E | b'\t'));
    let trimmed = text.trim_matches([' ', '\t']).len() == text.len();
    let sentinel = text.starts_with("=?base64?") && text.ends_with("?=");
    if visible && trimmed && !sentinel {
        return text.to_owned();
    }
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Whether a JSON-RPC error body can only come from a modern server: then a failed `initialize` is no reason to try the older
/// transport (2026-07-28 "Streamable HTTP", Backward Compatibility).
pub fn is_modern_error(code: i64) -> bool {
    MODERN_ERRORS.contains(&code)
}

/// Whether a refusal of a legacy message may mean that the server is of the modern era. For `initialize` a hint is enough, because
/// `server/discover` decides then: a modern server does not know the method, or misses `_meta` (2026-07-28 "Compatibility Matrix").
/// Other messages want proof, because the session is lost by it and the message goes out again: the status that goes with these errors,
/// and an error that only a modern server makes, or the one for missing `_meta` fields (2026-07-28 "Overview", `_meta`) that says so.
pub fn may_refuse_legacy(handshake: bool, status: u16, code: Option<i64>, body: &[u8]) -> bool {
    let Some(code) = code else { return false };
    if handshake {
        return is_modern_error(code) || matches!(code, message::METHOD_NOT_FOUND | message::INVALID_PARAMS);
    }
    status == 400 && (is_modern_error(code) || (code == message::INVALID_PARAMS && speaks_of_meta(body)))
}

/// Bytes of an error body that are searched for the words of a server that misses `_meta`.
const MAX_SEARCHED: usize = 4096;

fn speaks_of_meta(body: &[u8]) -> bool {
    let searched = body.get(..body.len().min(MAX_SEARCHED)).unwrap_or_default();
    [&b"_meta"[..], b"io.modelcontextprotocol"].iter().any(|word| memchr::memmem::find(searched, word).is_some())
}

/// Whether a refusal of `initialize` tells nothing, so that a modern server may have made it: one without a reason that a program reads.
/// A modern server owes an error (2026-07-28 "Streamable HTTP", Server Validation), but what stands before it need not pass that on. A web
/// page is the wrong address.
pub fn says_nothing_of_eras(status: u16, body: &[u8]) -> bool {
    matches!(status, 400 | 404) && !body.trim_ascii_start().starts_with(b"<")
}

/// Whether a refusal of a modern message may mean that the server is of the legacy era (2026-07-28 "Streamable HTTP", Backward
/// Compatibility): an error status without an error that modern servers make, or an error to `server/discover`, which they must know.
/// `initialize` decides then.
pub fn may_refuse_modern(method: &str, status: u16, code: Option<i64>) -> bool {
    let discover = method == "server/discover";
    match (status, code) {
        (_, Some(code)) if is_modern_error(code) => false,
        // What a modern server answers to a method that it does not know, and to a request without `_meta`.
        (404, Some(message::METHOD_NOT_FOUND)) | (400, Some(message::INVALID_PARAMS)) => discover,
        (400 | 404 | 405 | 406 | 410 | 415 | 422, _) => true,
        (200..=299, Some(_)) => discover,
        _ => false,
    }
}

/// Whether a server that lists these versions can only be reached with a handshake. It may know the modern era's errors all the same: an
/// SDK of both eras that is told to serve the older one says so with [`UNSUPPORTED_VERSION`].
pub fn is_legacy_alone<'a>(mut versions: impl Iterator<Item = &'a str>) -> bool {
    versions.next().is_some_and(|first| !is_modern_version(first) && !versions.any(is_modern_version))
}

/// Whether this version is of the modern era. Versions are dates (2026-07-28 "Versioning").
pub fn is_modern_version(version: &str) -> bool {
    version.len() == MODERN.len()
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        && version >= MODERN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_the_era() {
        let no_meta = r#"{"error":{"code":-32602,"message":"the request's _meta lacks a field"}}"#;
        let far = format!("{}_meta", " ".repeat(MAX_SEARCHED));
        for (handshake, status, code, body, expected) in [
            (true, 400, Some(-32022), "", true),
            (true, 200, Some(-32022), "", true),
            (false, 400, Some(-32022), "", true),
            (false, 200, Some(-32022), "", false),
            (true, 404, Some(-32601), "", true),
            (false, 404, Some(-32601), "", false),
            (true, 400, Some(-32602), "", true),
            (false, 400, Some(-32602), "", false),
            (false, 400, Some(-32602), no_meta, true),
            (false, 400, Some(-32602), r#"{"key":"io.modelcontextprotocol/clientCapabilities"}"#, true),
            (false, 400, Some(-32602), &far, false),
            (false, 200, Some(-32602), no_meta, false),
            (true, 400, Some(-32000), "", false),
            (true, 400, None, "", false),
            (false, 400, None, no_meta, false),
        ] {
            let found = may_refuse_legacy(handshake, status, code, body.as_bytes());
            assert_eq!(found, expected, "{handshake} {status} {code:?} {body}");
        }
        for (status, body, expected) in [
            (400, "", true),
            (404, "Bad Request", true),
            (400, "{\"error\":\"no\"}", true),
            (404, " <!doctype html>", false),
            (405, "", false),
            (500, "", false),
        ] {
            assert_eq!(says_nothing_of_eras(status, body.as_bytes()), expected, "{status} {body}");
        }
        for (method, status, code, expected) in [
            ("tools/list", 400, None, true),
            ("tools/list", 400, Some(-32000), true),
            ("tools/list", 400, Some(-32020), false),
            ("tools/list", 400, Some(-32602), false),
            ("tools/list", 404, Some(-32601), false),
            ("tools/list", 404, Some(-32001), true),
            ("tools/list", 405, None, true),
            ("tools/list", 401, None, false),
            ("tools/list", 503, None, false),
            ("tools/list", 200, Some(-32601), false),
            ("server/discover", 200, Some(-32601), true),
            ("server/discover", 404, Some(-32601), true),
            ("server/discover", 400, Some(-32022), false),
        ] {
            assert_eq!(may_refuse_modern(method, status, code), expected, "{method} {status} {code:?}");
        }
        for (versions, expected) in [
            (vec!["2025-11-25"], true),
            (vec!["2025-06-18", "2025-11-25"], true),
            (vec!["2025-11-25", "2026-07-28"], false),
            (vec!["2026-07-28", "2025-11-25"], false),
            (vec!["2031-01-01"], false),
            (vec![], false),
        ] {
            assert_eq!(is_legacy_alone(versions.iter().copied()), expected, "{versions:?}");
        }
        assert!(is_modern_version("2026-07-28") && is_modern_version("2027-01-01"));
        assert!(!is_modern_version("2025-11-25") && !is_modern_version("DRAFT-2026") && !is_modern_version(""));
    }

    fn headers(method: &str, params: &str) -> Option<ModernHeaders> {
        let raw: &RawValue = serde_json::from_str(params).expect("JSON");
        modern_headers(method, Some(raw))
    }

    #[test]
    fn only_a_version_in_meta_makes_a_request_modern() {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let made = headers("tools/call", &format!("{{\"name\":\"add\",{meta}}}")).expect("modern");
        assert_eq!(
            (made.version.as_str(), made.method.as_str(), made.name.as_deref()),
            (MODERN, "tools/call", Some("add"))
        );
        let made = headers("resources/read", &format!("{{\"uri\":\"file:///a b\",{meta}}}")).expect("modern");
        assert_eq!(made.name.as_deref(), Some("file:///a b"));
        assert_eq!(headers("tools/list", &format!("{{\"name\":\"x\",{meta}}}")).expect("modern").name, None);
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let made = headers(method, &format!("{{\"taskId\":\"t 1\",\"name\":\"x\",{meta}}}")).expect("modern");
            assert_eq!(made.name.as_deref(), Some("t 1"), "{method}: requests about a task go where its state is");
        }
        let escaped = r#"{"_meta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}}"#;
        assert!(headers("ping", escaped).is_some(), "an escaped slash is the same key");
        assert!(headers("tools/call", r#"{"name":"io.modelcontextprotocol/protocolVersion"}"#).is_none());
        assert!(headers("initialize", r#"{"protocolVersion":"2025-11-25"}"#).is_none());
        assert!(modern_headers("ping", None).is_none());
        assert_eq!(modern_headers("server/discover", None).expect("modern by its method").version, MODERN);
    }

    #[test]
    fn values_are_encoded_as_the_specification_shows() {
        let table = [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ];
        for (text, expected) in table {
            assert_eq!(header_value(text), expected);
        }
    }
}
