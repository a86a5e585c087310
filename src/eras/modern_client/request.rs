//! A request as a modern client writes it: what its `_meta` says, and the same request for a legacy server.
//!
//! Source: MCP 2026-07-28 "Overview", `_meta`; "Logging"; "Multi Round-Trip Requests".

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::era;
use crate::eras::LOG_LEVELS;
use crate::message::splice::{Member, Object, Unreadable, With, is_object, members, same_members, string};
use crate::message::{self, INVALID_PARAMS};

pub(super) const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(super) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(super) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// 2026-07-28 "Error Codes".
pub(super) const UNSUPPORTED_VERSION: i64 = -32022;
pub(super) const MISSING_CAPABILITY: i64 = -32021;

/// How many levels there are.
pub(super) const LEVELS: usize = LOG_LEVELS.len();

/// A log level; a smaller one lets more through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogLevel(usize);

impl LogLevel {
    /// Reads the JSON text of a level.
    pub(super) fn read(value: &str) -> Option<Self> {
        let word = string(value)?;
        LOG_LEVELS.iter().position(|level| **level == *word).map(Self)
    }

    /// Its place in the order of levels.
    pub(super) fn rank(self) -> usize {
        self.0
    }

    /// Its word.
    pub(super) fn word(self) -> &'static str {
        LOG_LEVELS.get(self.0).copied().unwrap_or("debug")
    }
}

/// What the client can be asked while this request is worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // they are independent, and named as the specification names them
pub(super) struct Abilities {
    pub(super) roots: bool,
    pub(super) sampling: bool,
    pub(super) sampling_tools: bool,
    pub(super) elicitation_form: bool,
    pub(super) elicitation_url: bool,
}

/// What a question needs of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Roots,
    Sampling,
    SamplingTools,
    Form,
    Url,
}

#[derive(Deserialize)]
struct Capabilities<'a> {
    #[serde(default)]
    roots: Option<IgnoredAny>,
    #[serde(borrow, default)]
    sampling: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(borrow, default)]
    elicitation: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

impl Abilities {
    /// All that there is.
    pub(super) const ALL: Self =
        Self { roots: true, sampling: true, sampling_tools: true, elicitation_form: true, elicitation_url: true };

    /// All of `other`, and perhaps more.
    pub(super) fn include(self, other: Self) -> bool {
        [Need::Roots, Need::Sampling, Need::SamplingTools, Need::Form, Need::Url]
            .into_iter()
            .all(|need| self.allow(need) || !other.allow(need))
    }

    pub(super) fn allow(self, need: Need) -> bool {
        match need {
            Need::Roots => self.roots,
            Need::Sampling => self.sampling,
            Need::SamplingTools => self.sampling_tools,
            Need::Form => self.elicitation_form,
            Need::Url => self.elicitation_url,
        }
    }

    /// `None` when it is no object, or a capability in it is none.
    fn read(capabilities: &str) -> Option<Self> {
        let read: Capabilities = serde_json::from_str(capabilities).ok().filter(|_| is_object(capabilities))?;
        let elicitation = read.elicitation.as_ref();
        Some(Self {
            roots: read.roots.is_some(),
            sampling: read.sampling.is_some(),
            sampling_tools: read.sampling.is_some_and(|sampling| sampling.contains_key("tools")),
            // 2026-07-28 "Elicitation", Capabilities: an empty object means form mode.
            elicitation_form: elicitation.is_some_and(|modes| modes.contains_key("form") || !modes.contains_key("url")),
            elicitation_url: elicitation.is_some_and(|modes| modes.contains_key("url")),
        })
    }
}

/// Why a request is refused before anything is done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) why: String,
    /// JSON text of the error's `data`.
    pub(super) data: Option<String>,
}

impl Refusal {
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self { code: INVALID_PARAMS, why: why.into(), data: None }
    }
}

/// The parts of a modern request that its translation needs.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    params: &'a str,
    meta: Member<'a>,
    meta_cuts: [Option<Member<'a>>; 4],
    /// The client's token for progress, as JSON text.
    pub(super) token: Option<Member<'a>>,
    /// `clientInfo`, as JSON text.
    pub(super) client_info: Option<&'a str>,
    /// `clientCapabilities`, as JSON text.
    pub(super) capabilities: &'a str,
    pub(super) abilities: Abilities,
    pub(super) level: Option<LogLevel>,
    /// `inputResponses` of a retry.
    pub(super) responses: Option<Member<'a>>,
    /// `requestState` of a retry.
    pub(super) state: Option<Member<'a>>,
    /// The 2025-11-25 form of asking for a task.
    pub(super) task: bool,
}

impl<'a> Asked<'a> {
    /// Reads the parameters of a request and judges its `_meta`.
    pub(super) fn read(params: Option<&'a RawValue>) -> Result<Self, Refusal> {
        let twice = |fault| match fault {
            Unreadable::NotObject => Refusal::invalid("\"params\" and its \"_meta\" must be objects"),
            Unreadable::Twice => Refusal::invalid("a member of \"params\" or of its \"_meta\" is given twice"),
        };
        let missing = |name: &str| Refusal::invalid(format!("the request's _meta lacks \"{name}\""));
        let params = params.map(RawValue::get).ok_or_else(|| missing(VERSION))?;
        let [meta, responses, state, task] =
            members(params, ["_meta", "inputResponses", "requestState", "task"]).map_err(twice)?;
        let meta = meta.ok_or_else(|| missing(VERSION))?;
        let [version, client_info, capabilities, level, token] =
            members(meta.value, [VERSION, CLIENT_INFO, CAPABILITIES, LOG_LEVEL, "progressToken"]).map_err(twice)?;
        let requested = version.ok_or_else(|| missing(VERSION))?;
        let requested =
            string(requested.value).ok_or_else(|| Refusal::invalid(format!("{VERSION} must be a string")))?;
        if requested != era::MODERN {
            let requested = message::quote(&requested);
            return Err(Refusal {
                code: UNSUPPORTED_VERSION,
                why: "Unsupported protocol version".into(),
                data: Some(format!("{{\"supported\":[\"{}\"],\"requested\":{requested}}}", era::MODERN)),
            });
        }
        let declared = capabilities.ok_or_else(|| missing(CAPABILITIES))?.value;
        let abilities = Abilities::read(declared)
            .ok_or_else(|| Refusal::invalid(format!("{CAPABILITIES} must be an object of objects")))?;
        if client_info.is_some_and(|info| !is_object(info.value)) {
            return Err(Refusal::invalid(format!("{CLIENT_INFO} must be an object")));
        }
        if token
            .is_some_and(|token| !token.value.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']))
        {
            return Err(Refusal::invalid("progressToken must be a string or a number"));
        }
        let read_level = level.map(|level| LogLevel::read(level.value));
        if read_level == Some(None) {
            return Err(Refusal::invalid(format!("{LOG_LEVEL} must be one of {}", LOG_LEVELS.join(", "))));
        }
        Ok(Self {
            params,
            meta,
            meta_cuts: [version, client_info, capabilities, level],
            token,
            client_info: client_info.map(|info| info.value),
            capabilities: declared,
            abilities,
            level: read_level.flatten(),
            responses,
            state,
            task: task.is_some(),
        })
    }

    /// Appends the parameters for a legacy server: without what only this era knows, with the bridge's own progress token.
    pub(super) fn write_legacy_params(&self, token: u64, out: &mut String) {
        let mut params = Object::new(self.params);
        params.remove(self.responses);
        params.remove(self.state);
        let token = self.token.map(|theirs| (theirs, token));
        without_modern_meta(&mut params, self.meta, self.meta_cuts, token);
        params.write(out);
    }

    /// Bytes of the parameters as they came.
    pub(super) fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether these are the parameters of a request that went out before, but for what may differ in a retry
    /// (2026-07-28 "Multi Round-Trip Requests": the same request, with the answers).
    pub(super) fn is_retry_of(&self, params: &str) -> bool {
        let may_differ = ["_meta", "inputResponses", "requestState"];
        same_members(self.params, params, &may_differ) || is_same_json(self.params, params, &may_differ)
    }
}

/// A notification without what only this era has in `_meta`. Most have none and pass as they are.
pub(super) fn legacy_notification(line: Bytes) -> Bytes {
    let stripped = || {
        let whole = std::str::from_utf8(&line).ok()?;
        let [params] = members(whole, ["params"]).ok()?;
        let params = params?;
        let [meta] = members(params.value, ["_meta"]).ok()?;
        let meta = meta?;
        let modern = members(meta.value, [VERSION, CLIENT_INFO, CAPABILITIES, LOG_LEVEL]).ok()?;
        let mut message = Object::new(whole);
        let mut inner = Object::new(params.value);
        without_modern_meta(&mut inner, meta, modern, None);
        message.replace(params, With::Object(inner));
        Some(Bytes::from(message.into_string()))
    };
    if memchr::memmem::find(&line, b"io.modelcontextprotocol/").is_none() {
        return line;
    }
    stripped().unwrap_or(line)
}

/// Cuts members out of `_meta`, gives it another token for progress, and takes it out when nothing is left.
fn without_modern_meta<'a>(
    params: &mut Object<'a>,
    meta: Member<'a>,
    cuts: [Option<Member<'a>>; 4],
    token: Option<(Member<'a>, u64)>,
) {
    let mut inner = Object::new(meta.value);
    for cut in cuts {
        inner.remove(cut);
    }
    if let Some((theirs, ours)) = token {
        inner.replace(theirs, With::Text(ours.to_string().into()));
    }
    let inner = inner.into_string();
    if inner.trim_matches(['{', '}', ' ', '\t', '\r', '\n']).is_empty() {
        params.remove(Some(meta));
    } else {
        params.replace(meta, With::Text(inner.into()));
    }
}

/// Bytes of parameters that are compared by value. Larger ones must be the same text.
const MAX_COMPARED: usize = 1 << 20;

/// The same JSON but for these members, however it is spelled: a client may order the members of a retry differently.
fn is_same_json(one: &str, other: &str, without: &[&str]) -> bool {
    if one.len() > MAX_COMPARED || other.len() > MAX_COMPARED {
        return false;
    }
    let read = |text: &str| {
        let mut object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok()?;
        object.retain(|name, _| !without.contains(&&**name));
        Some(object)
    };
    matches!((read(one), read(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str =
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).expect("JSON")
    }

    fn legacy(params: &str) -> String {
        let mut out = String::new();
        Asked::read(Some(&raw(params))).expect("a modern request").write_legacy_params(7, &mut out);
        out
    }

    #[test]
    fn what_only_this_era_knows_is_taken_out() {
        assert_eq!(legacy(&format!("{{\"_meta\":{{{META}}}}}")), "{}");
        assert_eq!(legacy(&format!("{{\"name\":\"x\",\"_meta\":{{{META}}},\"a\":1}}")), r#"{"name":"x","a":1}"#);
        let kept = format!("{{\"_meta\":{{\"traceparent\":\"00\",{META},\"progressToken\":\"t\"}},\"uri\":\"u\"}}");
        assert_eq!(legacy(&kept), r#"{"_meta":{"traceparent":"00","progressToken":7},"uri":"u"}"#);
        let retry = format!("{{\"_meta\":{{{META}}},\"inputResponses\":{{}},\"name\":\"x\",\"requestState\":\"s\"}}");
        assert_eq!(legacy(&retry), r#"{"name":"x"}"#);
    }

    #[test]
    fn a_malformed_meta_is_refused() {
        let refused = |params: Option<&str>| {
            let params = params.map(raw);
            Asked::read(params.as_deref()).map(|_| ()).expect_err("refused")
        };
        let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let capabilities = r#""io.modelcontextprotocol/clientCapabilities""#;
        for params in [
            None,
            Some("{}".to_owned()),
            Some("[1]".to_owned()),
            Some(r#"{"_meta":[]}"#.to_owned()),
            Some(format!("{{\"_meta\":{{{version}}}}}")),
            Some(format!("{{\"_meta\":{{{version},{capabilities}:[]}}}}")),
            Some(format!("{{\"_meta\":{{{version},{capabilities}:{{\"sampling\":true}}}}}}")),
            Some(format!("{{\"_meta\":{{{capabilities}:{{}}}}}}")),
            Some(format!("{{\"_meta\":{{{META}}},\"_meta\":{{}}}}")),
            Some(format!("{{\"_meta\":{{{META},\"io.modelcontextprotocol/logLevel\":\"loud\"}}}}")),
            Some(format!("{{\"_meta\":{{{META},\"io.modelcontextprotocol/clientInfo\":\"me\"}}}}")),
            Some(format!("{{\"_meta\":{{{META},\"progressToken\":{{}}}}}}")),
        ] {
            assert_eq!(refused(params.as_deref()).code, INVALID_PARAMS, "{params:?}");
        }
        let other = refused(Some(r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2099-01-01"}}"#));
        assert_eq!(other.code, UNSUPPORTED_VERSION);
        assert_eq!(other.data.as_deref(), Some(r#"{"supported":["2026-07-28"],"requested":"2099-01-01"}"#));
    }

    #[test]
    fn abilities_are_read_as_the_specification_says() {
        let read = |text: &str| Abilities::read(text).expect("capabilities");
        assert_eq!(read("{}"), Abilities::default());
        assert!(read(r#"{"elicitation":{}}"#).elicitation_form);
        assert!(!read(r#"{"elicitation":{}}"#).elicitation_url);
        assert!(!read(r#"{"elicitation":{"url":{}}}"#).elicitation_form);
        assert!(read(r#"{"elicitation":{"url":{},"form":{}}}"#).elicitation_form);
        assert!(read(r#"{"sampling":{"tools":{}},"roots":{}}"#).sampling_tools);
        assert!(!read(r#"{"sampling":{}}"#).sampling_tools);
    }

    #[test]
    fn a_retry_is_the_same_request() {
        let params = format!(
            "{{\"name\":\"x\",\"arguments\":{{\"a\":1,\"b\":[2]}},\"_meta\":{{{META}}},\"requestState\":\"s\"}}"
        );
        let params = raw(&params);
        let asked = Asked::read(Some(&params)).expect("a modern request");
        assert!(asked.is_retry_of(r#"{"name":"x","arguments":{"a":1,"b":[2]},"_meta":{"progressToken":1}}"#));
        assert!(asked.is_retry_of(r#"{"arguments":{"b":[2], "a":1},"name":"x"}"#));
        assert!(!asked.is_retry_of(r#"{"name":"x","arguments":{"a":1,"b":[3]}}"#));
        assert!(!asked.is_retry_of(r#"{"name":"y","arguments":{"a":1,"b":[2]}}"#));
    }
}
