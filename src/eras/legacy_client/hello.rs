//! `initialize`, answered from `server/discover`, and what happens when the server turns out to be a legacy one.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::LegacyClient;
use super::client::{self, Client};
use super::listen::Offers;
use crate::era;
use crate::eras::capabilities;
use crate::eras::translator::{Effects, Learnt};
use crate::message::splice::{Object, With, is_object, members, string};
use crate::message::{self, Id, Outcome, Request};
use crate::session::{Adopted, Level};

/// First and longest pause before a server that could not be reached is asked again, once the client has an answer.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// Bytes of an answer that is remembered, or kept to tell the next one from it.
const MAX_KNOWN: usize = 256 * 1024;

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Where the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has not said `initialize`.
    Fresh,
    /// It waits for the answer.
    Opening,
    /// It has it.
    Open,
}

/// `server/discover`, under way or to be asked again.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The id of the request under way.
    pub(super) id: Option<Id>,
    /// The client's `initialize` that waits for it.
    pub(super) initialize: Option<Id>,
    /// When that must be answered (S2).
    pub(super) due: Option<Duration>,
    /// When to ask again.
    pub(super) again_at: Option<Duration>,
    /// How often it was asked again because the server could not be reached.
    pub(super) failures: u32,
    /// It was asked again with a version that the server named.
    pub(super) retried: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult<'a> {
    supported_versions: Vec<String>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorHead {
    code: i64,
    #[serde(default)]
    data: Value,
}

/// What an error to a modern request says.
pub(super) enum Refusal {
    /// The server does not speak the version, but another one that we know.
    Version,
    /// It speaks only legacy versions.
    Legacy,
    /// The bridge could not reach the server; another time it may.
    Unreached,
    /// A person has to sign in first.
    SignIn,
    Other,
}

pub(super) fn read_refusal(error: &RawValue) -> Refusal {
    let Ok(head) = serde_json::from_str::<ErrorHead>(error.get()) else { return Refusal::Other };
    match head.code {
        era::UNSUPPORTED_VERSION => {
            let supported: Vec<&str> = head
                .data
                .get("supported")
                .and_then(Value::as_array)
                .map(|versions| versions.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            if supported.contains(&era::MODERN) {
                Refusal::Version
            } else if era::is_legacy_alone(supported.iter().copied()) {
                Refusal::Legacy
            } else {
                Refusal::Other
            }
        }
        message::BRIDGE_ERROR if head.data.get("source").and_then(Value::as_str) == Some("mcp-drawbridge") => {
            let kind = head.data.get("kind").and_then(Value::as_str).unwrap_or_default();
            let lasting =
                matches!(kind, "dns" | "tls" | "unauthorized" | "forbidden" | "not-found" | "not-mcp" | "policy");
            match kind {
                "sign-in" => Refusal::SignIn,
                _ if lasting => Refusal::Other,
                _ => Refusal::Unreached,
            }
        }
        _ => Refusal::Other,
    }
}

impl LegacyClient {
    pub(super) fn is_opening(&self) -> bool {
        self.phase == Phase::Opening
    }

    pub(super) fn on_initialize(&mut self, request: &Request<'_>, text: &Bytes, effects: &mut Effects) {
        if self.phase == Phase::Opening {
            let why = "another initialize is still under way";
            return effects.to_client.push(message::error_response(
                Some(&request.id),
                message::BRIDGE_ERROR,
                why,
                Some("{\"source\":\"mcp-drawbridge\",\"kind\":\"busy\"}"),
            ));
        }
        // A client that starts anew: what the old one asked for is void.
        self.reset_listen(effects);
        if let Some(Discovery { id: Some(id), .. }) = self.discovery.take() {
            effects.to_session.push(cancelled(&id));
        }
        self.client = Some(Client::read(text));
        self.phase = Phase::Opening;
        self.kept_ids.insert(request.id.clone());
        let due = self.now + self.settings.initialize_timeout;
        self.discover(Some(request.id.clone()), Some(due), effects);
    }

    /// The client believes in a legacy session; from now on it is served by a modern server.
    pub(super) fn take_over(&mut self, adopted: &Adopted, effects: &mut Effects) {
        let mut client = Client::read(&adopted.initialize);
        if let Some(version) = version_of(&adopted.result) {
            client.version = version;
        }
        client.initialized = adopted.initialized;
        client.answer = Some(adopted.result.clone());
        if let Some(level) = adopted.log_level.as_ref().and_then(|text| param(text, "level")) {
            client.set_log_level(&level);
        }
        self.client = Some(client);
        self.phase = Phase::Open;
        for uri in adopted.subscriptions.iter().filter_map(|text| param(text, "uri")) {
            self.listen.want(&uri);
        }
        self.discover(None, None, effects);
    }

    pub(super) fn on_initialized(&mut self, effects: &mut Effects) {
        if let Some(client) = &mut self.client {
            client.initialized = true;
        }
        self.refresh_listen(effects);
    }

    /// Asks what the server is and offers. At most one such request is under way.
    pub(super) fn discover(&mut self, initialize: Option<Id>, due: Option<Duration>, effects: &mut Effects) {
        let failures = self.discovery.as_ref().map_or(0, |discovery| discovery.failures);
        self.discovery = Some(Discovery { id: None, initialize, due, again_at: None, failures, retried: false });
        self.send_discover(effects);
    }

    fn send_discover(&mut self, effects: &mut Effects) {
        let id = self.own_id();
        let meta = self.client.as_ref().map_or(client::NO_CLIENT, Client::meta);
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"server/discover\",\"params\":{{\"_meta\":{{{meta}}}}}}}"
        );
        if let Some(discovery) = &mut self.discovery {
            discovery.id = Some(id);
            discovery.again_at = None;
        }
        effects.to_session.push(text.into());
    }

    pub(super) fn on_discovered(&mut self, outcome: Outcome<'_>, line: &Bytes, effects: &mut Effects) {
        if let Some(discovery) = &mut self.discovery {
            discovery.id = None;
        }
        match outcome {
            Outcome::Result(result) => match serde_json::from_str::<DiscoverResult>(result.get()) {
                Ok(found) if speaks_ours(&found.supported_versions) => self.found(result.get(), &found, effects),
                Ok(found) if !found.supported_versions.iter().any(|version| era::is_modern_version(version)) => {
                    self.is_legacy(effects);
                }
                Ok(found) => {
                    let text = format!(
                        "the server speaks protocol versions that this bridge does not know: {}",
                        message::quote(&found.supported_versions.join(", "))
                    );
                    self.hello_failed(&self.error_text(&text, "protocol-version"), effects);
                }
                Err(_) => {
                    let error = self.error_text("the server's answer to server/discover cannot be read", "bad-json");
                    self.hello_failed(&error, effects);
                }
            },
            Outcome::Error(error) => match read_refusal(error) {
                Refusal::Version
                    if self.discovery.as_mut().is_some_and(|one| !std::mem::replace(&mut one.retried, true)) =>
                {
                    self.send_discover(effects);
                }
                Refusal::Legacy => self.is_legacy(effects),
                Refusal::Unreached
                    if self.answer_from_memory(effects)
                        || self.answer_provisionally(effects)
                        || self.phase == Phase::Open =>
                {
                    self.discover_later();
                    self.settle_doubts(effects);
                }
                Refusal::SignIn if self.is_answered_while_signing_in(effects) => {
                    self.settle_doubts(effects);
                }
                _ => self.hello_failed(line, effects),
            },
        }
    }

    /// The server is modern, and this is what it offers.
    fn found(&mut self, result: &str, found: &DiscoverResult<'_>, effects: &mut Effects) {
        let Some(client) = &self.client else {
            self.discovery = None;
            return self.settle_doubts(effects);
        };
        let Some(answer) = self.initialize_result(result, &client.version) else {
            let error = self.error_text("the server's answer to server/discover names a member twice", "bad-json");
            return self.hello_failed(&error, effects);
        };
        let requested = client.requested.clone();
        let initialize = self.discovery.take().and_then(|discovery| discovery.initialize);
        self.listen.offers = Offers::read(found.capabilities);
        let news = client.answer.as_deref().is_some_and(|known| known != answer);
        if let Some(client) = &mut self.client {
            client.answer = Some(if answer.len() <= MAX_KNOWN { answer.as_str() } else { "{}" }.into());
        }
        if answer.len() <= MAX_KNOWN {
            self.remembered = Some((requested.clone(), answer.clone()));
            effects.learnt = Some(Learnt::Confirmed(Some((requested, answer.clone()))));
        } else {
            effects.learnt = Some(Learnt::Confirmed(None));
        }
        if let Some(id) = initialize {
            self.kept_ids.remove(&id);
            self.phase = Phase::Open;
            effects.to_client.push(message::result_response(&id, &answer));
            self.release(effects);
        } else if news && self.client.as_ref().is_some_and(|client| client.initialized) {
            self.announce_lists(effects);
        }
        self.settle_doubts(effects);
        self.refresh_listen(effects);
    }

    /// The result of `initialize`, in the client's revision (2025-11-25 "Lifecycle"). What neither era has a name for stays.
    fn initialize_result(&self, found: &str, version: &str) -> Option<String> {
        let [versions, capabilities, instructions, info, meta] =
            members(found, ["supportedVersions", "capabilities", "instructions", "serverInfo", "_meta"]).ok()?;
        let mut result = Object::new(found);
        result.add("protocolVersion", &message::quote(version));
        match capabilities.filter(|capabilities| is_object(capabilities.value)) {
            Some(given) => {
                result.replace(given, With::Text(capabilities::without_tasks(given.value).into()));
            }
            None => {
                result.remove(capabilities);
                result.add("capabilities", "{}");
            }
        }
        result.remove(versions);
        result.remove(info);
        result.remove(instructions.filter(|text| string(text.value).is_none()));
        let mut named = None;
        if let Some(meta) = meta
            && let Ok([name]) = members(meta.value, [SERVER_INFO])
        {
            named = name;
            let mut others = Object::new(meta.value);
            others.remove(name);
            let others = others.into_string();
            if others.trim_matches(['{', '}', ' ', '\t']).is_empty() {
                result.remove(Some(meta));
            } else {
                result.replace(meta, With::Text(others.into()));
            }
        }
        let info = named.or(info).map(|info| info.value).filter(|info| is_object(info)).map_or_else(
            || format!("{{\"name\":{},\"version\":\"unknown\"}}", message::quote(&self.settings.server)),
            str::to_owned,
        );
        result.add("serverInfo", &info);
        Some(result.into_string())
    }

    /// `initialize` cannot be answered; a later one tries again. The error is a response line.
    fn hello_failed(&mut self, error: &Bytes, effects: &mut Effects) {
        let Some(discovery) = self.discovery.take() else { return };
        let Some(id) = discovery.initialize else {
            // The client has its answer; requests find out by themselves.
            return self.settle_doubts(effects);
        };
        self.phase = Phase::Fresh;
        self.kept_ids.remove(&id);
        effects.to_client.extend(message::with_id(error, &id));
        self.refuse_held(error, effects);
    }

    /// What waited for `initialize`, or for the server's era, fails with it.
    fn refuse_held(&mut self, error: &Bytes, effects: &mut Effects) {
        let doubted = self.take_doubted();
        for line in doubted.into_iter().chain(self.take_held()) {
            for id in message::request_ids(&line) {
                effects.to_client.extend(message::with_id(error, &id));
            }
        }
    }

    fn error_text(&self, text: &str, kind: &str) -> Bytes {
        let data = format!("{{\"source\":\"mcp-drawbridge\",\"kind\":{}}}", message::quote(kind));
        message::error_response(None, message::BRIDGE_ERROR, &format!("{}: {text}", self.settings.server), Some(&data))
    }

    // ---- time and trouble ----

    /// Answers `initialize` as an earlier run did (S2). True if it did, or if the client has its answer already.
    pub(super) fn answer_from_memory(&mut self, effects: &mut Effects) -> bool {
        let Some(id) = self.discovery.as_ref().and_then(|discovery| discovery.initialize.clone()) else { return false };
        let Some(client) = &self.client else { return false };
        let Some((_, result)) = self.remembered.clone().filter(|(requested, _)| *requested == client.requested) else {
            return false;
        };
        Self::log(
            effects,
            Level::Warn,
            "the server is not reached; the client got the answer of the last run, and connecting goes on",
        );
        self.open_with(&id, &result, effects);
        true
    }

    /// The client gets this answer, although the truth is not known yet.
    pub(super) fn open_with(&mut self, id: &Id, result: &str, effects: &mut Effects) {
        if let Some(discovery) = &mut self.discovery {
            discovery.initialize = None;
            discovery.due = None;
        }
        if let Some(client) = &mut self.client {
            client.answer = Some(result.into());
        }
        self.phase = Phase::Open;
        self.kept_ids.remove(id);
        effects.to_client.push(message::result_response(id, result));
        self.release(effects);
    }

    fn discover_later(&mut self) {
        let Some(discovery) = &mut self.discovery else { return };
        let pause = PAUSE_FIRST.saturating_mul(1 << discovery.failures.min(8)).min(PAUSE_MOST);
        discovery.failures = discovery.failures.saturating_add(1);
        discovery.again_at = Some(self.now + pause);
    }

    pub(super) fn discovery_deadline(&self) -> Option<Duration> {
        let discovery = self.discovery.as_ref()?;
        [discovery.due, discovery.again_at].into_iter().flatten().min()
    }

    pub(super) fn discovery_due(&mut self, effects: &mut Effects) {
        let Some(discovery) = &self.discovery else { return };
        if discovery.again_at.is_some_and(|at| at <= self.now) && discovery.id.is_none() {
            if self.leaving {
                self.discovery = None;
                return;
            }
            self.send_discover(effects);
        }
        let Some(discovery) = &self.discovery else { return };
        if discovery.due.is_none_or(|due| due > self.now) {
            return;
        }
        let under_way = discovery.id.clone();
        if self.answer_from_memory(effects) || self.answer_provisionally(effects) {
            return;
        }
        if let Some(id) = under_way {
            effects.to_session.push(cancelled(&id));
        }
        let error =
            self.error_text("the server did not answer in time (--initialize-timeout changes the limit)", "timeout");
        self.hello_failed(&error, effects);
    }

    /// The session is over.
    pub(super) fn end_hello(&mut self, effects: &mut Effects) {
        let error = self.error_text("the bridge was told to end before the answer came", "shutdown");
        if let Some(id) = self.discovery.take().and_then(|discovery| discovery.initialize) {
            effects.to_client.extend(message::with_id(&error, &id));
        }
        self.phase = Phase::Fresh;
        self.refuse_held(&error, effects);
    }

    // ---- a server that is legacy after all ----

    /// The server refused a line as a legacy one does.
    pub(super) fn on_refused(&mut self, line: Bytes, effects: &mut Effects) {
        let id = message::request_ids(&line).pop();
        if let Some(id) = &id {
            if self.discovery.as_ref().is_some_and(|discovery| discovery.id.as_ref() == Some(id)) {
                return self.is_legacy(effects);
            }
            if self.listen.is_ours(id) {
                self.stream_refused(id);
            } else if let Some(call) = self.calls.take_back(id) {
                self.leave_batch(call.batch, effects);
                self.doubt(call.line);
            } else {
                self.doubt(line);
            }
        } else {
            self.doubt(line);
        }
        // One question decides. A modern server may have its reasons for an odd refusal.
        if self.discovery.as_ref().is_none_or(|discovery| discovery.id.is_none() && discovery.initialize.is_none()) {
            self.discover(None, None, effects);
        }
    }

    /// The server is modern: what it refused is sent again, and this time the client gets to see the refusal.
    fn settle_doubts(&mut self, effects: &mut Effects) {
        for line in self.take_doubted() {
            let before = effects.to_session.len();
            self.on_client_line(&line, effects);
            let again = effects.to_session.split_off(before);
            effects.settled.extend(again);
        }
    }

    /// Steps back: the session gets the client's lines as they came.
    fn is_legacy(&mut self, effects: &mut Effects) {
        Self::log(effects, Level::Debug, "the server is of the legacy era");
        let mut lines = Vec::new();
        let opening = self.phase == Phase::Opening;
        self.discovery = None;
        self.stop_listen(effects);
        if opening {
            lines.extend(self.client.as_ref().map(|client| client.initialize.clone()));
        } else {
            effects.adopted = self.adopted();
        }
        self.answer_subscribers(effects);
        lines.extend(self.take_doubted());
        self.give_up_calls(&mut lines, effects);
        lines.extend(self.take_held());
        self.kept_ids.clear();
        self.phase = Phase::Fresh;
        self.client = None;
        effects.wrong_era = Some(lines);
    }

    /// What the client believes in.
    fn adopted(&self) -> Option<Adopted> {
        let client = self.client.as_ref()?;
        let level = client.log_level().map(|level| {
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"logging/setLevel\",\"params\":{{\"level\":{}}}}}",
                message::quote(level)
            )
        });
        let subscribe = |uri: &str| {
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"resources/subscribe\",\"params\":{{\"uri\":{}}}}}",
                message::quote(uri)
            )
        };
        Some(Adopted {
            initialize: client.initialize.clone(),
            result: client.answer.clone()?,
            initialized: client.initialized,
            log_level: level.map(Bytes::from),
            subscriptions: self.listen.uris().map(|uri| subscribe(uri).into()).collect(),
        })
    }
}

fn speaks_ours(supported: &[String]) -> bool {
    supported.iter().any(|version| version == era::MODERN)
}

fn version_of(result: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Result {
        protocol_version: String,
    }
    serde_json::from_str::<Result>(result).ok().map(|result| result.protocol_version)
}

/// A string member of a request's parameters.
pub(super) fn param(text: &Bytes, name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        params: Value,
    }
    let request: Request = serde_json::from_slice(text).ok()?;
    Some(request.params.get(name)?.as_str()?.to_owned())
}

/// `notifications/cancelled`, which makes the session close the request's stream.
pub(super) fn cancelled(id: &Id) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id}}}}}").into()
}
