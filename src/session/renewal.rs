//! A session that is gone, and the one that takes its place (C2).

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::link::{InitializeResult, Phase};
use super::listen;
use super::pending::{Key, Origin, Pending};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{Level, Session};
use crate::message::{self, Id};

/// Sessions lost in a row that lived shorter than ten seconds, before we stop opening new ones without being asked.
const MAX_LOSSES: u32 = 3;
/// How long the answer to one of the requests by which a new session is told what the old one knew may take.
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Subscribe {
    params: SubscribeParams,
}

#[derive(Deserialize)]
struct SubscribeParams {
    notifications: Wanted,
}

/// The filter of a subscription. A member of another type asks for nothing.
#[derive(Deserialize)]
struct Wanted {
    #[serde(default, rename = "toolsListChanged")]
    tools: serde_json::Value,
    #[serde(default, rename = "resourcesListChanged")]
    resources: serde_json::Value,
    #[serde(default, rename = "promptsListChanged")]
    prompts: serde_json::Value,
}

impl Session {
    /// The session is gone: opens a new one, once for all that met its end.
    pub(super) fn lose_session(&mut self, why: &str) {
        if self.link.initialize.is_none() || matches!(self.link.phase, Phase::Opening(_) | Phase::Lost | Phase::Idle) {
            return;
        }
        self.log(Level::Info, format!("{why}; opening a new session"));
        self.link.generation += 1;
        self.link.session_id = None;
        self.link.version = None;
        self.link.announce = true;
        self.link.losses += 1;
        self.link.phase = Phase::Lost;
        self.tools.forget();
        self.stop_greeting();
        self.stop_listen();
        self.close_sse(None);
        self.drop_server_requests();
        if self.closing.is_some() {
            let trouble = Trouble::new("session-lost", "the session ended while the bridge was shutting down");
            return self.fail_queue(&trouble);
        }
        if self.link.losses > MAX_LOSSES {
            // Whoever needs a session from now on asks for one; nobody else does, for a while.
            let trouble = Trouble::new("session-lost", "the server forgets the session again and again");
            return self.reopen_failed(&trouble);
        }
        self.reopen();
    }

    pub(super) fn reopen(&mut self) {
        let Some(text) = self.link.initialize.clone() else { return };
        let id: Id = self.own_id();
        let Some(text) = message::with_id(&text, &id) else { return };
        let key = self.add(Pending::new(id, Origin::Reopen, "initialize", text));
        self.link.reopening = true;
        // A server that says nothing must not hold the queue for ever.
        self.timers.at(self.now + self.settings.initialize_timeout, Timer::Initialize(key));
        self.open(key);
    }

    pub(super) fn reopen_failed(&mut self, trouble: &Trouble) {
        self.log(Level::Warn, format!("no new session: {}", trouble.logged()));
        self.close_sse(None);
        self.link.phase = Phase::Lost;
        self.link.reopening = true;
        self.link.forever = false;
        self.link.network_down = None;
        let trouble = Trouble { body: None, ..trouble.clone() };
        self.fail_queue(&trouble);
        self.link.reopen_failures = self.link.reopen_failures.saturating_add(1);
        if trouble.is_sign_in() {
            return; // the next request tries again, and nothing else: somebody must be there to sign in
        }
        let times = self.link.reopen_failures.max(self.link.losses).min(6);
        self.set_listen_timer(listen::PAUSE.saturating_mul(1 << times).min(listen::PAUSE_MOST));
    }

    /// Tells a new session what the old one knew (C2).
    pub(super) fn replay(&mut self) {
        let texts: Vec<(&str, Bytes)> = self
            .link
            .log_level
            .iter()
            .map(|text| ("logging/setLevel", text.clone()))
            .chain(self.link.subscriptions.values().map(|text| ("resources/subscribe", text.clone())))
            .collect();
        for (method, text) in texts {
            self.own_request(Origin::Replay, method, &text, REPLAY_PATIENCE);
        }
    }

    /// Sends a request of our own, made of `text` with a new id, to a session that is ready. It is let go after `patience`.
    pub(super) fn own_request(
        &mut self,
        origin: Origin,
        method: &str,
        text: &Bytes,
        patience: Duration,
    ) -> Option<Key> {
        let id = self.own_id();
        let text = message::with_id(text, &id)?;
        let key = self.add(Pending::new(id, origin, method, text));
        self.timers.at(self.now + patience, Timer::Own(key));
        self.send(key);
        Some(key)
    }

    /// Tells the client that lists may have changed, for what the server has. Whoever saw the tool `sign_in` is told that it is gone.
    pub(super) fn announce(&mut self) {
        let shown = std::mem::take(&mut self.sign_in.shown);
        let known = self.link.known.clone().unwrap_or_default();
        let has = serde_json::from_str::<InitializeResult>(&known).map(|result| result.capabilities);
        let unknown = has.is_err() && shown;
        let has = has.unwrap_or_default();
        for (there, method) in [
            (has.tools.is_some() || shown, "notifications/tools/list_changed"),
            (has.resources.is_some() || unknown, "notifications/resources/list_changed"),
            (has.prompts.is_some() || unknown, "notifications/prompts/list_changed"),
        ] {
            if there {
                self.write(message::notification(method));
            }
        }
    }

    /// The same to clients of the modern era: only who subscribed is told, by its subscription (2026-07-28 "Subscriptions").
    pub(super) fn refresh_subscribers(&mut self) {
        let mut keys: Vec<Key> =
            self.pending.iter().filter(|(_, pending)| pending.is_subscription()).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            let Some(pending) = self.pending.get_mut(&key) else { continue };
            pending.owes_refresh = true;
            if pending.acknowledged {
                self.subscriber_is_ready(key);
            }
        }
    }

    /// A subscription was acknowledged: only now may it carry anything.
    pub(super) fn subscriber_is_ready(&mut self, key: Key) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        pending.acknowledged = true;
        if !std::mem::take(&mut pending.owes_refresh) {
            return;
        }
        let Ok(listen) = serde_json::from_slice::<Subscribe>(&pending.text) else { return };
        let id = pending.id.to_json();
        let wants = listen.params.notifications;
        for (wanted, what) in [(wants.tools, "tools"), (wants.resources, "resources"), (wants.prompts, "prompts")] {
            if wanted == true {
                let text = format!(
                    "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{what}/list_changed\",\"params\":{{\"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}}}}}}"
                );
                self.write(text.into());
            }
        }
    }
}
