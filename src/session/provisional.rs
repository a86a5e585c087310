//! `initialize` answered before the server answers: as in the last run, or, while a sign-in is wanted, provisionally (S2). The same for
//! `server/discover`, with which clients of the modern era open.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Session;
use super::link::Item;
use super::pending::{Key, Origin};
use super::recovery::PATIENCE;
use super::sign_in::Wish;
use super::timers::Timer;
use crate::era;
use crate::message::{self, Id};

/// Revisions with a handshake. A client of one of them is answered in its own, any other in the last.
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", LAST];
const LAST: &str = "2025-11-25";
/// What a server may have that is not known yet.
const CAPABILITIES: &str =
    r#"{"tools":{"listChanged":true},"resources":{"listChanged":true},"prompts":{"listChanged":true}}"#;
/// Characters of a client's name that the sign-in's page shows.
const MAX_NAME: usize = 100;
/// The key of a modern client's name (2026-07-28 "`_meta`").
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Introduction {
    #[serde(default)]
    client_info: Value,
    #[serde(default)]
    capabilities: Value,
}

/// The answer to `initialize` that is remembered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known<'a> {
    #[serde(borrow)]
    capabilities: &'a RawValue,
    #[serde(borrow, default)]
    server_info: Option<&'a RawValue>,
    #[serde(default)]
    instructions: Option<String>,
}

#[derive(Deserialize)]
struct MetaParams {
    #[serde(rename = "_meta")]
    meta: Value,
}

impl Session {
    /// Answers `initialize` as the server did in an earlier run. From here on the request is ours, and goes on until the server
    /// is reached. False if there is nothing to answer from.
    pub(super) fn answer_from_memory(&mut self, key: Key) -> bool {
        let Some(memory) = &self.memory else { return false };
        if self.link.requested.as_deref() != Some(&memory.requested) {
            return false;
        }
        let (result, takes_batches) = (memory.result.clone(), memory.takes_batches());
        self.answer_early(key, &result, takes_batches)
    }

    /// Answers `initialize` from memory, or so that the client sees the tool `sign_in`. The same holds of the request from here on.
    pub(super) fn answer_provisionally(&mut self, key: Key) -> bool {
        if self.answer_from_memory(key) {
            return true;
        }
        let version = self.link.requested.as_deref().unwrap_or_default();
        let version = LEGACY.iter().copied().find(|known| *known == version).unwrap_or(LAST);
        let (info, instructions) = self.provisional_words();
        let result = format!(
            "{{\"protocolVersion\":\"{version}\",\"capabilities\":{CAPABILITIES},\"serverInfo\":{info},\"instructions\":{instructions}}}"
        );
        let answered = self.answer_early(key, &result, version == era::BATCHING);
        self.sign_in.shown |= answered;
        self.sign_in.offered |= answered; // by its name
        answered
    }

    /// The result of `server/discover` while a sign-in is wanted: as the server was in the last run, else so that the client sees the tool
    /// `sign_in`. Not to be cached; a subscriber is told when the truth is known (2026-07-28 "Discovery").
    pub(super) fn discover_provisionally(&mut self, id: &Id) -> Bytes {
        let (mut info, mut instructions) = self.provisional_words();
        let mut capabilities = CAPABILITIES.to_owned();
        let known = self.memory.as_ref().and_then(|memory| serde_json::from_str::<Known>(&memory.result).ok());
        match known {
            Some(known) => {
                known.capabilities.get().clone_into(&mut capabilities);
                info = known.server_info.map_or(info, |known| known.get().to_owned());
                instructions = known.instructions.map_or_else(String::new, |text| message::quote(&text));
            }
            // By its name.
            None => self.sign_in.offered = true,
        }
        self.sign_in.shown_modern = true;
        let instructions =
            if instructions.is_empty() { instructions } else { format!(",\"instructions\":{instructions}") };
        let result = format!(
            "{{\"resultType\":\"complete\",\"supportedVersions\":[\"{}\"],\"capabilities\":{capabilities}{instructions},\
             \"ttlMs\":0,\"cacheScope\":\"private\",\"_meta\":{{\"io.modelcontextprotocol/serverInfo\":{info}}}}}",
            era::MODERN
        );
        message::result_response(id, &result)
    }

    /// A name for a server that is not known yet, and what a model should know, as JSON text.
    fn provisional_words(&self) -> (String, String) {
        let server = &self.settings.server;
        let host = server.split('/').next().unwrap_or(server);
        let last = self.sign_in.last.as_ref().map(|last| format!(" (the last try: {last})")).unwrap_or_default();
        let info = format!("{{\"name\":{},\"version\":\"{}\"}}", message::quote(host), env!("CARGO_PKG_VERSION"));
        let instructions = message::quote(&format!(
            "The user is not signed in to {server} yet{last}: until then there is only the tool sign_in, which tells how."
        ));
        (info, instructions)
    }

    fn answer_early(&mut self, key: Key, result: &str, takes_batches: bool) -> bool {
        let Some(pending) = self.pending.get_mut(&key) else { return false };
        pending.origin = Origin::Reopen;
        let response = message::result_response(&pending.id, result);
        self.link.known = Some(result.into());
        self.link.forever = true;
        self.link.takes_batches = takes_batches;
        self.link.set_reopening();
        self.write(response);
        // From now on nothing else bounds how long the rest waits.
        let waiting: Vec<Key> = self
            .link
            .queue
            .iter()
            .filter_map(|item| if let Item::Request(key) = item { Some(*key) } else { None })
            .collect();
        for key in waiting {
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.queued_at = self.now;
            }
            self.timers.at(self.now + PATIENCE, Timer::Patience(key));
        }
        true
    }

    // ---- who the client is ----

    /// What `initialize` says of the client.
    pub(super) fn meet_client(&mut self, params: Option<&RawValue>) {
        let introduction = params.and_then(|params| serde_json::from_str::<Introduction>(params.get()).ok());
        let able = introduction.as_ref().and_then(|said| said.capabilities.get("elicitation")?.get("url"));
        self.sign_in.shown = false; // a client that starts anew asks anew
        self.sign_in.elicitations.start_anew(able.is_some_and(Value::is_object));
        if let Some(said) = introduction {
            self.name_client(&said.client_info);
        }
    }

    /// What the first request of the modern era says of the client.
    pub(super) fn meet_modern_client(&mut self, params: Option<&RawValue>) {
        if self.sign_in.client_named {
            return;
        }
        if let Some(params) = params.and_then(|params| serde_json::from_str::<MetaParams>(params.get()).ok())
            && let Some(info) = params.meta.get(META_CLIENT)
        {
            self.name_client(info);
        }
        self.sign_in.client_named = true;
    }

    /// Once is enough: the sign-in's page names it.
    fn name_client(&mut self, info: &Value) {
        if self.sign_in.client_named {
            return;
        }
        let text = |member: &str| {
            let text = info.get(member)?.as_str()?;
            let name: String = text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            let name = name.trim();
            (!name.is_empty()).then(|| name.to_owned())
        };
        if let Some(name) = text("title").or_else(|| text("name")) {
            self.sign_in.client_named = true;
            self.wish(Wish::Client(name.into()));
        }
    }
}
