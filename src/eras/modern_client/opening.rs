//! The one legacy session behind all requests: `initialize`, and what its answer says about the server.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::Asked;
use super::{Link, ModernClient, Waiting, results};
use crate::era;
use crate::eras::capabilities::without_tasks;
use crate::eras::translator::{Effects, Learnt};
use crate::message::splice::{Object, With, is_object, members, string};
use crate::message::{self, Message, Outcome, Parsed, Request};

/// The newest revision with a handshake: what the bridge asks a legacy server for.
pub(super) const LATEST_LEGACY: &str = "2025-11-25";
/// Bytes of a server's name and version that are put into every result. Longer ones are only in the answer to `server/discover`.
const MAX_SHORT_INFO: usize = 1024;

/// `initialize` as a legacy client would say it: this request's identity and capabilities.
fn initialize(id: &str, asked: &Asked<'_>) -> String {
    let own = concat!("{\"name\":\"mcp-drawbridge\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");
    let info = asked.client_info.unwrap_or(own);
    let capabilities = without_tasks(asked.capabilities);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"{LATEST_LEGACY}\",\
         \"capabilities\":{capabilities},\"clientInfo\":{info}}}}}"
    )
}

impl ModernClient {
    /// Opens the session in the name of this request, which waits for it.
    pub(super) fn open(&mut self, request: &Request<'_>, asked: &Asked<'_>, line: Bytes, effects: &mut Effects) {
        let id = self.next();
        effects.to_session.push(initialize(&self.our_id(id).to_json(), asked).into());
        self.declared = asked.abilities;
        self.log_level = None;
        self.waiting.insert(request.id.clone(), Waiting::ForSession);
        self.link = Link::Opening { id, bytes: line.len(), held: vec![(request.id.clone(), line)] };
    }

    /// Whether the session should be opened again, because this request declares all that the first one did, and more. Clients may
    /// begin with a request that needs nothing. Only while nothing was done in the session that a new one would not know.
    pub(super) fn may_ask_more(&self, asked: &Asked<'_>) -> bool {
        let idle = self.calls.is_empty() && self.own.is_empty() && self.subscriptions.watches_nothing();
        !self.used && idle && asked.abilities != self.declared && asked.abilities.include(self.declared)
    }

    /// The answer to `initialize`.
    pub(super) fn opened(&mut self, now: Duration, outcome: Outcome<'_>, effects: &mut Effects) {
        let Link::Opening { held, .. } = std::mem::replace(&mut self.link, Link::Closed) else { return };
        for (id, _) in &held {
            self.waiting.remove(id);
        }
        match outcome {
            Outcome::Result(result) => {
                self.link = Link::Open(Facts::read(result.get()));
                effects.learnt = Some(Learnt::Confirmed(None));
                if !self.gone {
                    effects.to_session.push(initialized());
                }
                for (_, line) in held {
                    let text = line.clone();
                    let parsed = message::parse(&text);
                    let Ok(Parsed::One(Message::Request(request))) = parsed else { continue };
                    if !self.gone {
                        // Perhaps one of them declares more than the first.
                        self.client_request(now, &request, line, effects);
                    } else if let Ok(asked) = Asked::read(request.params) {
                        self.dispatch(now, &request, &asked, &line, effects);
                    }
                }
            }
            Outcome::Error(error) => {
                for (id, _) in held {
                    effects.to_client.push(results::error_response(&id, error.get()));
                }
            }
        }
    }

    /// A client that knows both eras and wants the older one. What it began in the newer one ends.
    pub(super) fn begin_legacy(&mut self, line: Bytes, effects: &mut Effects) {
        self.end_subscriptions(effects);
        self.forget_all(effects);
        self.end_all("the client began a session of an older protocol version", effects);
        self.link = Link::PassThrough;
        effects.to_session.push(line);
    }

    /// To a client that is on its own: all but the answers to what this translator had asked.
    pub(super) fn pass(&self, line: Bytes, effects: &mut Effects) {
        let stale = matches!(message::parse(&line), Ok(Parsed::One(Message::Response(response)))
            if response.id.as_ref().and_then(|id| self.number_of(id)).is_some());
        if !stale {
            effects.to_client.push(line);
        }
    }
}

/// What the answer to `initialize` says about the server, as far as it is needed.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // they are independent, and named as the specification names them
pub(super) struct Facts {
    /// The result of `server/discover`.
    discovery: String,
    /// Its name, version and title, if they are short.
    short_info: Option<String>,
    // Whether it has them at all. Many servers send changes and take subscriptions that they did not declare, and after a new session
    // the bridge itself says that lists may have changed.
    pub(super) logging: bool,
    pub(super) tools: bool,
    pub(super) prompts: bool,
    pub(super) resources: bool,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    version: &'a RawValue,
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
}

impl Facts {
    /// Reads the result of `initialize`.
    pub(super) fn read(result: &str) -> Self {
        let names = ["capabilities", "serverInfo", "instructions", "protocolVersion"];
        let Ok([capabilities, info, instructions, version]) = members(result, names) else {
            return Self { discovery: discovery(Object::new("{\"capabilities\":{}}"), None), ..Self::default() };
        };
        let given = capabilities.map_or("{}", |member| member.value);
        let features = members(given, ["logging", "resources", "tools", "prompts"]).unwrap_or_default();
        let [logging, resources, tools, prompts] =
            features.map(|member| member.is_some_and(|member| is_object(member.value)));
        let mut found = Object::new(result);
        match capabilities {
            Some(member) => found.replace(member, With::Text(without_tasks(given).into())),
            None => found.add("capabilities", "{}"),
        }
        found.remove(version);
        found.remove(info);
        found.remove(instructions.filter(|text| string(text.value).is_none()));
        let info = info.map(|info| info.value).filter(|info| is_object(info));
        Self {
            discovery: discovery(found, info),
            short_info: info.and_then(short_info),
            logging,
            tools,
            prompts,
            resources,
        }
    }

    /// The result of `server/discover`.
    pub(super) fn discovery(&self) -> &str {
        &self.discovery
    }

    /// The name that goes into every result's `_meta`, as JSON text.
    pub(super) fn short_info(&self) -> Option<&str> {
        self.short_info.as_deref()
    }
}

pub(super) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The result of `server/discover` (2026-07-28 "Discovery"), not to be cached unless the server says that it may be. What neither era
/// has a name for stays.
fn discovery(found: Object<'_>, info: Option<&str>) -> String {
    let found = found.into_string();
    let mut result = results::complete("server/discover", &found, info);
    if let Ok([versions]) = members(&found, ["supportedVersions"]) {
        result.remove(versions);
        result.add("supportedVersions", &format!("[\"{}\"]", era::MODERN));
    }
    result.into_string()
}

/// Icons and descriptions need not be in every result.
fn short_info(info: &str) -> Option<String> {
    let read: Info = serde_json::from_str(info).ok()?;
    string(read.name.get())?;
    string(read.version.get())?;
    let title = read.title.map(RawValue::get).filter(|title| string(title).is_some());
    let title = title.map(|title| format!(",\"title\":{title}")).unwrap_or_default();
    let short = format!("{{\"name\":{},\"version\":{}{title}}}", read.name.get(), read.version.get());
    (short.len() <= MAX_SHORT_INFO).then_some(short)
}

/// Methods that a modern server does not have: they belong to the handshake, the session or the tasks of the other era.
pub(super) fn is_of_other_era(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
        || method.starts_with("tasks/")
}

/// Why there is no such method.
pub(super) fn other_era_text(method: &str) -> String {
    if method.starts_with("tasks/") {
        return format!(
            "{method} is not available: the server is of revision {LATEST_LEGACY} or older, whose tasks are others"
        );
    }
    format!("{method} is not a method of revision {}", era::MODERN)
}

/// `notifications/initialized`.
pub(super) fn initialized() -> Bytes {
    message::notification("notifications/initialized")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_is_made_of_the_answer_to_initialize() {
        let facts = Facts::read(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"tasks":{"list":{}},"logging":{},
            "resources":{"subscribe":true},"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"a":1}}},
            "serverInfo":{"name":"s","version":"1","icons":[]},"instructions":"Be \"kind\"","a/b":{"c":1},"_meta":{"d":2}}"#,
        );
        let value: serde_json::Value = serde_json::from_str(facts.discovery()).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": {"tools": {"listChanged": true}, "logging": {}, "resources": {"subscribe": true},
                    "extensions": {"io.modelcontextprotocol/ui": {"a": 1}}},
                "instructions": "Be \"kind\"",
                "a/b": {"c": 1},
                "_meta": {"d": 2, "io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1", "icons": []}},
            })
        );
        assert!(facts.logging && facts.resources && facts.tools && !facts.prompts);
        assert_eq!(facts.short_info(), Some(r#"{"name":"s","version":"1"}"#));
    }

    #[test]
    fn an_odd_answer_to_initialize_still_makes_a_discovery() {
        for odd in ["[]", "{}", r#"{"capabilities":[],"serverInfo":1,"instructions":{}}"#, r#"{"capabilities":null}"#] {
            let facts = Facts::read(odd);
            let value: serde_json::Value = serde_json::from_str(facts.discovery()).expect("JSON");
            assert_eq!(value["capabilities"], serde_json::json!({}), "{odd}");
            assert!(facts.short_info().is_none());
        }
        let long = format!("{{\"serverInfo\":{{\"name\":\"{}\",\"version\":\"1\"}}}}", "n".repeat(MAX_SHORT_INFO));
        assert!(Facts::read(&long).short_info().is_none(), "a long name is not repeated in every result");
        assert!(Facts::read(&long).discovery().len() > MAX_SHORT_INFO);
    }
}
