//! The change notifications of a modern server: one `subscriptions/listen` stream for all that the client wants to hear of
//! (2026-07-28 "Subscriptions").
//!
//! A stream cannot be changed, so another set means another stream. The old one is closed only when the new one is acknowledged; after a gap
//! the client is told that everything may have changed. So no change is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::LegacyClient;
use super::hello::{cancelled, param};
use crate::eras::translator::Effects;
use crate::message::{self, Id, Notification, Outcome, Request};
use crate::session::Level;
use crate::session::batch::BatchId;

/// Resources that one client may subscribe to, and bytes of one's URI.
const MAX_SUBSCRIPTIONS: usize = 1000;
const MAX_URI: usize = 16 * 1024;
/// How long the answer to `resources/subscribe` waits for the stream.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(5);
/// Requests that may wait for the stream at one time. Beyond it, stdin is not read (R8).
pub(super) const MAX_SUBSCRIBERS: usize = 4096;
/// First and longest pause before a stream is opened again.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// Least time between two words to the client that everything may have changed. One may have a thousand lines, and the server needs few bytes
/// to cause it.
pub(super) const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// What the server offers, as far as it matters for notifications and what is answered here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a capability of its own
pub(super) struct Offers {
    pub(super) tools: bool,
    pub(super) prompts: bool,
    pub(super) resources: bool,
    pub(super) subscribe: bool,
    pub(super) logging: bool,
}

#[derive(Debug, Default)]
pub(super) struct Listen {
    pub(super) offers: Offers,
    /// What the client subscribed to.
    uris: BTreeSet<Box<str>>,
    /// Counts changes of the set.
    serial: u64,
    current: Option<Stream>,
    /// The stream that the current one replaces, until that is acknowledged.
    old: Option<Id>,
    again_at: Option<Duration>,
    failures: u32,
    /// Something may have been missed.
    gap: bool,
    /// When the client was last told so, and when it is to be told again.
    announced_at: Option<Duration>,
    announce_at: Option<Duration>,
    /// The server has no such streams.
    unsupported: bool,
    /// Requests that wait until the stream covers them.
    subscribers: Vec<Subscriber>,
}

#[derive(Debug)]
struct Stream {
    id: Id,
    /// The set that it was opened for.
    serial: u64,
    acknowledged: bool,
}

#[derive(Debug)]
struct Subscriber {
    id: Id,
    batch: Option<BatchId>,
    uri: Box<str>,
    serial: u64,
    due: Duration,
}

#[derive(Deserialize)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    logging: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Flags {
    list_changed: bool,
    subscribe: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<Meta<'a>>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    notifications: Option<Acknowledged<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acknowledged<'a> {
    #[serde(borrow, default)]
    resource_subscriptions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorHead {
    code: i64,
}

impl Offers {
    pub(super) fn read(capabilities: Option<&RawValue>) -> Self {
        let read = capabilities.and_then(|raw| serde_json::from_str::<Capabilities>(raw.get()).ok());
        let Some(read) = read else { return Self::default() };
        let flags = |raw: Option<&RawValue>| {
            raw.and_then(|raw| serde_json::from_str::<Flags>(raw.get()).ok()).unwrap_or_default()
        };
        let resources = flags(read.resources);
        Self {
            tools: flags(read.tools).list_changed,
            prompts: flags(read.prompts).list_changed,
            resources: resources.list_changed,
            subscribe: resources.subscribe,
            logging: read.logging.is_some_and(|raw| raw.get().starts_with('{')),
        }
    }

    /// The lists whose changes can be heard of: the filter's member, and the notification.
    fn lists(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            (self.tools, ("toolsListChanged", "notifications/tools/list_changed")),
            (self.prompts, ("promptsListChanged", "notifications/prompts/list_changed")),
            (self.resources, ("resourcesListChanged", "notifications/resources/list_changed")),
        ]
        .into_iter()
        .filter_map(|(there, names)| there.then_some(names))
    }
}

impl Listen {
    /// Adds a resource. False if there are too many.
    pub(super) fn want(&mut self, uri: &str) -> bool {
        if self.uris.contains(uri) {
            return true;
        }
        let room = self.uris.len() < MAX_SUBSCRIPTIONS && uri.len() <= MAX_URI;
        if room {
            self.uris.insert(uri.into());
            self.serial += 1;
        }
        room
    }

    pub(super) fn uris(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().map(|uri| &**uri)
    }

    /// Requests that wait for the stream.
    pub(super) fn waiting(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether a request of the session with this id is one of our streams.
    pub(super) fn is_ours(&self, id: &Id) -> bool {
        self.old.as_ref() == Some(id) || self.current.as_ref().is_some_and(|stream| stream.id == *id)
    }

    fn wants_nothing(&self) -> bool {
        self.uris.is_empty() && self.offers.lists().next().is_none()
    }

    fn filter(&self) -> String {
        let mut members: Vec<String> = self.offers.lists().map(|(member, _)| format!("\"{member}\":true")).collect();
        if !self.uris.is_empty() {
            let uris: Vec<String> = self.uris.iter().map(|uri| message::quote(uri)).collect();
            members.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        members.join(",")
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.subscribers.iter().map(|subscriber| subscriber.due).chain(self.again_at).chain(self.announce_at).min()
    }
}

impl LegacyClient {
    /// `resources/subscribe` and its opposite.
    pub(super) fn on_subscribe(
        &mut self,
        request: &Request<'_>,
        line: &Bytes,
        batch: Option<BatchId>,
        effects: &mut Effects,
    ) {
        let refuse = |code, why: &str| message::error_response(Some(&request.id), code, why, None);
        let Some(uri) = param(line, "uri") else {
            return self.respond(
                batch,
                refuse(message::INVALID_PARAMS, "the request names no resource (uri)"),
                effects,
            );
        };
        if request.method == "resources/unsubscribe" {
            if self.listen.uris.remove(&*uri) {
                self.listen.serial += 1;
            }
            self.respond(batch, message::result_response(&request.id, "{}"), effects);
            return self.refresh_listen(effects);
        }
        if !self.listen.offers.subscribe || self.listen.unsupported {
            let why = "the server offers no subscriptions to resources";
            return self.respond(batch, refuse(message::METHOD_NOT_FOUND, why), effects);
        }
        if !self.listen.want(&uri) {
            let why = format!("more than {MAX_SUBSCRIPTIONS} subscriptions, or a URI of more than {MAX_URI} bytes");
            return self.respond(batch, refuse(message::INVALID_PARAMS, &why), effects);
        }
        let covered = self
            .listen
            .current
            .as_ref()
            .is_some_and(|stream| stream.acknowledged && stream.serial == self.listen.serial);
        if covered || self.leaving {
            return self.respond(batch, message::result_response(&request.id, "{}"), effects);
        }
        let due = self.now + SUBSCRIBE_PATIENCE;
        let (id, serial) = (request.id.clone(), self.listen.serial);
        self.listen.subscribers.push(Subscriber { id, batch, uri: uri.into(), serial, due });
        self.refresh_listen(effects);
    }

    /// Opens, renews or closes the stream, so that it is what the client wants.
    pub(super) fn refresh_listen(&mut self, effects: &mut Effects) {
        let initialized = self.client.as_ref().is_some_and(|client| client.initialized);
        if !initialized || self.listen.unsupported || self.leaving {
            return;
        }
        if self.listen.wants_nothing() {
            return self.stop_listen(effects);
        }
        match &self.listen.current {
            Some(stream) if stream.serial == self.listen.serial => return,
            // One change at a time; the next follows the acknowledgement.
            Some(stream) if !stream.acknowledged => return,
            None if self.listen.again_at.is_some_and(|at| at > self.now) => return,
            _ => {}
        }
        let id = self.own_id();
        let Some(client) = &self.client else { return };
        let filter = self.listen.filter(); // it may be long, and most calls end above
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"subscriptions/listen\",\"params\":{{\"_meta\":{{{}}},\"notifications\":{{{filter}}}}}}}",
            client.meta()
        );
        let new = Stream { id, serial: self.listen.serial, acknowledged: false };
        if let Some(stream) = self.listen.current.replace(new) {
            self.listen.old = Some(stream.id);
        }
        self.listen.again_at = None;
        effects.to_session.push(line.into());
    }

    /// Closes what is open. What the client wants is kept.
    pub(super) fn stop_listen(&mut self, effects: &mut Effects) {
        let current = self.listen.current.take().map(|stream| stream.id);
        for id in [current, self.listen.old.take()].into_iter().flatten() {
            effects.to_session.push(cancelled(&id));
        }
        self.listen.again_at = None;
    }

    /// A client that starts anew wants nothing yet.
    pub(super) fn reset_listen(&mut self, effects: &mut Effects) {
        self.stop_listen(effects);
        self.answer_subscribers(effects);
        self.listen = Listen { offers: self.listen.offers, ..Listen::default() };
    }

    /// True if the notification is about our stream and not for the client.
    pub(super) fn is_for_listen(&mut self, notification: &Notification<'_>, effects: &mut Effects) -> bool {
        let Some(params) = notification.params else { return false };
        let change = match &*notification.method {
            "notifications/subscriptions/acknowledged" | "notifications/cancelled" => false,
            "notifications/resources/updated"
            | "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => true,
            _ => return false,
        };
        let Ok(params) = serde_json::from_str::<Params>(params.get()) else { return false };
        let subscription = params.meta.and_then(|meta| meta.subscription).or(params.request_id);
        let Some(id) = subscription.and_then(|raw| Id::from_json(raw.get())) else { return false };
        if !self.listen.is_ours(&id) {
            // Of a stream of ours that is closed, or of the client's own.
            return Self::is_own(&id);
        }
        if change {
            return false;
        }
        if notification.method == "notifications/subscriptions/acknowledged" {
            self.on_acknowledged(&id, params.notifications.as_ref(), effects);
        }
        // A stream that the server takes down ends; the session tells.
        true
    }

    fn on_acknowledged(&mut self, id: &Id, agreed: Option<&Acknowledged<'_>>, effects: &mut Effects) {
        let Some(stream) = self.listen.current.as_mut().filter(|stream| stream.id == *id) else { return };
        // A second time: the session opened the stream again after it broke.
        let again = std::mem::replace(&mut stream.acknowledged, true);
        let serial = stream.serial;
        self.listen.failures = 0;
        if let Some(old) = self.listen.old.take() {
            effects.to_session.push(cancelled(&old));
        }
        let agreed: Option<Vec<String>> =
            agreed.and_then(|agreed| serde_json::from_str(agreed.resource_subscriptions?.get()).ok());
        self.answer_covered(serial, agreed.as_deref(), effects);
        if again || std::mem::take(&mut self.listen.gap) {
            let earliest = self.listen.announced_at.map_or(self.now, |at| at + ANNOUNCE_PAUSE);
            self.listen.announce_at.get_or_insert(earliest.max(self.now));
            self.announcement_due(effects);
        }
        self.refresh_listen(effects);
    }

    fn announcement_due(&mut self, effects: &mut Effects) {
        if self.listen.announce_at.is_some_and(|at| at <= self.now) {
            self.listen.announce_at = None;
            self.listen.announced_at = Some(self.now);
            self.announce_lists(effects);
            self.announce_resources(effects);
        }
    }

    /// The client hears whether the server agreed to its subscription.
    fn answer_covered(&mut self, serial: u64, agreed: Option<&[String]>, effects: &mut Effects) {
        for subscriber in std::mem::take(&mut self.listen.subscribers) {
            if subscriber.serial > serial {
                self.listen.subscribers.push(subscriber);
                continue;
            }
            let listed = agreed.is_some_and(|agreed| agreed.iter().any(|uri| **uri == *subscriber.uri));
            let answer = if listed {
                message::result_response(&subscriber.id, "{}")
            } else {
                self.listen.uris.remove(&subscriber.uri);
                let why = "the server does not tell of changes to this resource";
                message::error_response(Some(&subscriber.id), message::INVALID_PARAMS, why, None)
            };
            self.respond(subscriber.batch, answer, effects);
        }
    }

    /// A stream ended with a response.
    pub(super) fn on_stream_over(&mut self, id: &Id, outcome: Outcome<'_>, effects: &mut Effects) {
        if self.listen.old.as_ref() == Some(id) {
            self.listen.old = None;
            return;
        }
        self.listen.current = None;
        let code = match outcome {
            Outcome::Error(error) => serde_json::from_str::<ErrorHead>(error.get()).ok().map(|error| error.code),
            Outcome::Result(_) => None,
        };
        if code == Some(message::METHOD_NOT_FOUND) {
            Self::log(effects, Level::Info, "the server tells of no changes: it has no subscriptions/listen");
            return self.listen_unsupported(effects);
        }
        self.listen_later();
    }

    /// The server refused a stream as a legacy one would.
    pub(super) fn stream_refused(&mut self, id: &Id) {
        if self.listen.old.as_ref() == Some(id) {
            self.listen.old = None;
        } else {
            self.listen.current = None;
            self.listen_later();
        }
    }

    fn listen_later(&mut self) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.listen.failures.min(8)).min(PAUSE_MOST);
        self.listen.failures = self.listen.failures.saturating_add(1);
        self.listen.gap = true;
        self.listen.again_at = Some(self.now + pause);
    }

    fn listen_unsupported(&mut self, effects: &mut Effects) {
        self.listen.unsupported = true;
        for subscriber in std::mem::take(&mut self.listen.subscribers) {
            self.listen.uris.remove(&subscriber.uri);
            let why = "the server offers no subscriptions to resources";
            let answer = message::error_response(Some(&subscriber.id), message::METHOD_NOT_FOUND, why, None);
            self.respond(subscriber.batch, answer, effects);
        }
    }

    pub(super) fn listen_due(&mut self, effects: &mut Effects) {
        if self.listen.again_at.is_some_and(|at| at <= self.now) {
            self.listen.again_at = None;
            self.refresh_listen(effects);
        }
        self.announcement_due(effects);
        // It will be opened, and after the gap the client is told: the subscription holds.
        let now = self.now;
        let (due, waiting) = std::mem::take(&mut self.listen.subscribers).into_iter().partition(|one| one.due <= now);
        self.listen.subscribers = waiting;
        self.listen.gap |= !due.is_empty();
        self.agree(due, effects);
    }

    /// Nothing more will be heard: whoever waits gets an answer.
    pub(super) fn answer_subscribers(&mut self, effects: &mut Effects) {
        let all = std::mem::take(&mut self.listen.subscribers);
        self.agree(all, effects);
    }

    fn agree(&mut self, subscribers: Vec<Subscriber>, effects: &mut Effects) {
        for subscriber in subscribers {
            self.respond(subscriber.batch, message::result_response(&subscriber.id, "{}"), effects);
        }
    }

    /// The client cancels a `resources/subscribe` that waits. True if there is one.
    pub(super) fn cancel_subscriber(&mut self, id: &Id, effects: &mut Effects) -> bool {
        let Some(at) = self.listen.subscribers.iter().position(|subscriber| subscriber.id == *id) else { return false };
        let subscriber = self.listen.subscribers.swap_remove(at);
        self.leave_batch(subscriber.batch, effects);
        true
    }

    /// Whether a `resources/subscribe` with this id waits.
    pub(super) fn is_subscriber(&self, id: &Id) -> bool {
        self.listen.subscribers.iter().any(|subscriber| subscriber.id == *id)
    }

    /// The lists may have changed without word of it.
    pub(super) fn announce_lists(&mut self, effects: &mut Effects) {
        effects.to_client.extend(self.listen.offers.lists().map(|(_, method)| message::notification(method)));
    }

    fn announce_resources(&mut self, effects: &mut Effects) {
        for uri in &self.listen.uris {
            let uri = message::quote(uri);
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{{\"uri\":{uri}}}}}"
            );
            effects.to_client.push(line.into());
        }
    }
}
