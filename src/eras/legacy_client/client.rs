//! What is known of the client: what it said in `initialize`, as the modern era wants to hear it.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::era;
use crate::eras::{LOG_LEVELS, capabilities};
use crate::message;
use crate::message::splice::{is_object, members};

/// The revisions that a legacy client may speak, oldest first.
const LEGACY_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const LATEST_LEGACY: &str = "2025-11-25";

/// The metadata of a request on behalf of nobody.
pub(super) const NO_CLIENT: &str =
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;

/// A legacy client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its `initialize`.
    pub(super) initialize: Bytes,
    /// The version that it asked for.
    pub(super) requested: String,
    /// The version that it speaks.
    pub(super) version: String,
    /// What it can be asked.
    pub(super) can: Can,
    /// It said `notifications/initialized`.
    pub(super) initialized: bool,
    /// The result of `initialize` that it got.
    pub(super) answer: Option<Box<str>>,
    log_level: Option<String>,
    info: Option<Box<str>>,
    capabilities: String,
    meta: String,
}

/// The client's capabilities, as far as they decide what a server may ask.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a capability of its own
pub(super) struct Can {
    pub(super) roots: bool,
    pub(super) sample: bool,
    pub(super) sample_with_tools: bool,
    pub(super) fill_in: bool,
    pub(super) open_url: bool,
    /// It names extensions, so it may know results that the core protocol does not.
    pub(super) extensions: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct InitializeParams<'a> {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default)]
    client_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RequestParams<'a> {
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Client {
    /// Reads an `initialize` request; what cannot be read counts as not said.
    pub(super) fn read(initialize: &Bytes) -> Self {
        let params = serde_json::from_slice::<RequestParams>(initialize).ok().and_then(|request| request.params);
        let read: InitializeParams =
            params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
        let requested = read.protocol_version.unwrap_or_default();
        let known = LEGACY_VERSIONS.contains(&requested.as_str());
        let version = if known { requested.clone() } else { LATEST_LEGACY.to_owned() };
        let raw = read.capabilities.map_or("{}", RawValue::get);
        let can = Can::read(raw);
        let mut client = Self {
            // A copy, which does not hold on to all that was read from stdin with it.
            initialize: Bytes::copy_from_slice(initialize),
            requested,
            version,
            can,
            initialized: false,
            answer: None,
            log_level: None,
            info: read.client_info.map(|info| info.get().into()),
            capabilities: capabilities::of_legacy_client(raw),
            meta: String::new(),
        };
        client.write_meta();
        client
    }

    /// The members of every request's `_meta` (2026-07-28 "Per-request protocol fields").
    pub(super) fn meta(&self) -> &str {
        &self.meta
    }

    /// `logging/setLevel`. False if there is no such level.
    pub(super) fn set_log_level(&mut self, level: &str) -> bool {
        let known = LOG_LEVELS.contains(&level);
        if known {
            self.log_level = Some(level.to_owned());
            self.write_meta();
        }
        known
    }

    /// The level that it set.
    pub(super) fn log_level(&self) -> Option<&str> {
        self.log_level.as_deref()
    }

    fn write_meta(&mut self) {
        let version = message::quote(era::MODERN);
        let mut meta = format!("\"io.modelcontextprotocol/protocolVersion\":{version}");
        if let Some(info) = &self.info {
            meta.push_str(",\"io.modelcontextprotocol/clientInfo\":");
            meta.push_str(info);
        }
        meta.push_str(",\"io.modelcontextprotocol/clientCapabilities\":");
        meta.push_str(&self.capabilities);
        if let Some(level) = &self.log_level {
            meta.push_str(",\"io.modelcontextprotocol/logLevel\":");
            meta.push_str(&message::quote(level));
        }
        self.meta = meta;
    }
}

impl Can {
    /// Reads no further than the names that matter, so odd values elsewhere hide nothing.
    fn read(capabilities: &str) -> Self {
        let has = |path: &str| {
            let found = path.split('/').skip(1).try_fold(capabilities, |text, name| {
                let [found] = members(text, [name]).ok()?;
                Some(found?.value)
            });
            found.is_some_and(is_object)
        };
        let elicitation = has("/elicitation");
        Self {
            roots: has("/roots"),
            sample: has("/sampling"),
            sample_with_tools: has("/sampling/tools"),
            // 2025-11-25 "Elicitation", Capabilities: an empty object means forms.
            fill_in: elicitation && (has("/elicitation/form") || !has("/elicitation/url")),
            open_url: has("/elicitation/url"),
            extensions: has("/extensions"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(params: &str) -> Client {
        Client::read(&Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{params}}}"#)))
    }

    #[test]
    fn a_known_version_is_kept_and_another_becomes_the_latest() {
        for version in LEGACY_VERSIONS {
            assert_eq!(client(&format!(r#"{{"protocolVersion":"{version}"}}"#)).version, version);
        }
        for params in [r#"{"protocolVersion":"2026-07-28"}"#, r#"{"protocolVersion":5}"#, "{}", "[]"] {
            assert_eq!(client(params).version, LATEST_LEGACY, "{params}");
        }
    }

    #[test]
    fn what_a_client_can_be_asked_is_read_from_its_capabilities() {
        let can = |capabilities: &str| client(&format!(r#"{{"capabilities":{capabilities}}}"#)).can;
        assert_eq!(can("{}"), Can::default());
        assert_eq!(can(r#"{"elicitation":{}}"#), Can { fill_in: true, ..Can::default() });
        assert_eq!(can(r#"{"elicitation":{"url":{}}}"#), Can { open_url: true, ..Can::default() });
        let all = r#"{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"extensions":{"a/b":{}}}"#;
        assert_eq!(
            can(all),
            Can { roots: true, sample: true, sample_with_tools: true, fill_in: true, open_url: true, extensions: true }
        );
    }

    #[test]
    fn the_metadata_says_what_the_modern_era_wants_to_hear() {
        let mut one = client(
            r#"{"protocolVersion":"2025-11-25","clientInfo":{"name":"n","x":1e400},"capabilities":{"tasks":{},"roots":{"listChanged":true},"sampling":{}}}"#,
        );
        assert_eq!(
            one.meta(),
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"n","x":1e400},"io.modelcontextprotocol/clientCapabilities":{"roots":{},"sampling":{}}"#
        );
        assert!(one.set_log_level("warning") && !one.set_log_level("loud"));
        assert!(one.meta().ends_with(r#","io.modelcontextprotocol/logLevel":"warning""#));
        let tasks = client(r#"{"capabilities":{"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}}}"#);
        assert!(tasks.meta().ends_with(r#":{"extensions":{"a/b":{}}}"#), "{}", tasks.meta());
        let odd = client(r#"{"capabilities":{"z":{"n":1e400},"roots":{"listChanged":true},"a":1}}"#);
        assert!(
            odd.meta().ends_with(r#":{"z":{"n":1e400},"roots":{},"a":1}"#),
            "order and numbers stay: {}",
            odd.meta()
        );
        assert!(odd.can.roots);
        let raw = r#"{"experimental":{"a":{"n":12345678901234567890123}}}"#;
        assert!(client(&format!(r#"{{"capabilities":{raw}}}"#)).meta().ends_with(raw), "else untouched");
    }
}
