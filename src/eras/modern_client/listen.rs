//! `subscriptions/listen` on top of a legacy session: its notification stream, and `resources/subscribe` for the union of what all
//! listens want (2026-07-28 "Subscriptions").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{OWN_PATIENCE, OwnKind};
use super::request::Refusal;
use super::{Due, ModernClient, Waiting, refuse};
use crate::eras::translator::Effects;
use crate::message::splice::{Object, With, is_object, members, string};
use crate::message::{self, Id, Request};

/// Subscriptions that may be open at one time. A further one is refused.
pub(super) const MAX_LISTENS: usize = 256;
/// Resources that all subscriptions together may name, and bytes of one name. Others are left out of the acknowledgement.
pub(super) const MAX_RESOURCES: usize = 1000;
pub(super) const MAX_URI: usize = 8 * 1024;
/// How long the acknowledgement waits for the server to take the resources. What it has not taken by then is left out.
pub(super) const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(5);

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// All that is open, by the number of its request.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    open: BTreeMap<u64, Listen>,
    resources: BTreeMap<Box<str>, Resource>,
}

impl Subscriptions {
    /// The server watches no resource for us.
    pub(super) fn watches_nothing(&self) -> bool {
        self.resources.is_empty()
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.open.is_empty() && self.resources.is_empty()
    }
}

/// One `subscriptions/listen`.
#[derive(Debug)]
struct Listen {
    id: Id,
    wants: Wants,
    uris: BTreeSet<Box<str>>,
    /// Resources that the server has not answered for.
    missing: BTreeSet<Box<str>>,
    acknowledged: bool,
    due: Option<Duration>,
}

/// The changes of lists that one wants, in the filter's own names.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names)]
struct Wants {
    #[serde(default)]
    tools_list_changed: Option<bool>,
    #[serde(default)]
    prompts_list_changed: Option<bool>,
    #[serde(default)]
    resources_list_changed: Option<bool>,
}

/// A resource that the server was asked to watch.
#[derive(Debug)]
struct Resource {
    users: BTreeSet<u64>,
    state: ResourceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceState {
    /// This request of ours is under way.
    Asked(u64),
    Watched,
}

#[derive(Deserialize)]
struct Filter<'a> {
    #[serde(flatten)]
    wants: Wants,
    #[serde(borrow, default, rename = "resourceSubscriptions")]
    resources: Option<Vec<std::borrow::Cow<'a, str>>>,
}

impl ModernClient {
    pub(super) fn listen(&mut self, now: Duration, request: &Request<'_>, effects: &mut Effects) {
        let filter = match read_filter(request.params) {
            Ok(filter) => filter,
            Err(refusal) => return refuse(&request.id, &refusal, effects),
        };
        if self.subscriptions.open.len() >= MAX_LISTENS {
            let why = "too many subscriptions are open: end one before opening another";
            return refuse(&request.id, &Refusal::invalid(why), effects);
        }
        let number = self.next();
        let Some(facts) = self.facts() else { return };
        let both = |wanted: Option<bool>, offered: bool| Some(wanted == Some(true) && offered);
        let wants = Wants {
            tools_list_changed: both(filter.wants.tools_list_changed, facts.tools),
            prompts_list_changed: both(filter.wants.prompts_list_changed, facts.prompts),
            resources_list_changed: both(filter.wants.resources_list_changed, facts.resources),
        };
        let watches = facts.resources;
        let mut listen = Listen {
            id: request.id.clone(),
            wants,
            uris: BTreeSet::new(),
            missing: BTreeSet::new(),
            acknowledged: false,
            due: None,
        };
        for uri in filter.resources.unwrap_or_default() {
            if watches && uri.len() <= MAX_URI {
                self.watch(now, number, &uri, &mut listen, effects);
            }
        }
        let waits = !listen.missing.is_empty();
        if waits {
            let due = now + ACKNOWLEDGE_PATIENCE;
            listen.due = Some(due);
            self.timers.insert((due, Due::Acknowledge(number)));
        }
        self.subscriptions.open.insert(number, listen);
        self.waiting.insert(request.id.clone(), Waiting::Listen(number));
        if !waits {
            self.acknowledge(number, effects);
        }
        if self.gone {
            self.end_subscriptions(effects);
        }
    }

    /// One more wants this resource.
    fn watch(&mut self, now: Duration, number: u64, uri: &str, listen: &mut Listen, effects: &mut Effects) {
        if let Some(resource) = self.subscriptions.resources.get_mut(uri) {
            resource.users.insert(number);
            listen.uris.insert(uri.into());
            if resource.state != ResourceState::Watched {
                listen.missing.insert(uri.into());
            }
            return;
        }
        if self.subscriptions.resources.len() >= MAX_RESOURCES {
            return;
        }
        let params = format!("{{\"uri\":{}}}", message::quote(uri));
        let kind = OwnKind::Subscribe(uri.into());
        let Some(asked) = self.own_request(now, OWN_PATIENCE, kind, "resources/subscribe", &params, effects) else {
            return;
        };
        let resource = Resource { users: BTreeSet::from([number]), state: ResourceState::Asked(asked) };
        self.subscriptions.resources.insert(uri.into(), resource);
        listen.uris.insert(uri.into());
        listen.missing.insert(uri.into());
    }

    /// The server answered `resources/subscribe`.
    pub(super) fn subscribed(&mut self, now: Duration, uri: &str, number: u64, well: bool, effects: &mut Effects) {
        let Some(resource) = self.subscriptions.resources.get_mut(uri) else { return };
        if resource.state != ResourceState::Asked(number) {
            return;
        }
        let users = resource.users.clone();
        if well && !users.is_empty() {
            resource.state = ResourceState::Watched;
        } else {
            self.subscriptions.resources.remove(uri);
        }
        if well && users.is_empty() {
            self.unwatch(now, uri, effects); // too late: nobody was promised it
        }
        for user in users {
            let Some(listen) = self.subscriptions.open.get_mut(&user) else { continue };
            listen.missing.remove(uri);
            if !well {
                listen.uris.remove(uri);
            }
            if listen.missing.is_empty() && !listen.acknowledged {
                self.acknowledge(user, effects);
            }
        }
    }

    /// Says what the client will hear of. What the server has not taken so far is left out.
    pub(super) fn acknowledge(&mut self, number: u64, effects: &mut Effects) {
        let Some(listen) = self.subscriptions.open.get_mut(&number) else { return };
        if let Some(due) = listen.due.take() {
            self.timers.remove(&(due, Due::Acknowledge(number)));
        }
        listen.acknowledged = true;
        for uri in std::mem::take(&mut listen.missing) {
            listen.uris.remove(&uri);
            if let Some(resource) = self.subscriptions.resources.get_mut(&uri) {
                resource.users.remove(&number);
            }
        }
        let mut filter = Vec::new();
        let wants = listen.wants;
        for (name, wanted) in [
            ("toolsListChanged", wants.tools_list_changed),
            ("promptsListChanged", wants.prompts_list_changed),
            ("resourcesListChanged", wants.resources_list_changed),
        ] {
            if wanted == Some(true) {
                filter.push(format!("\"{name}\":true"));
            }
        }
        if !listen.uris.is_empty() {
            let uris: Vec<String> = listen.uris.iter().map(|uri| message::quote(uri)).collect();
            filter.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        let params =
            format!("{{\"_meta\":{{\"{SUBSCRIPTION_ID}\":{}}},\"notifications\":{{{}}}}}", listen.id, filter.join(","));
        effects.to_client.push(notification("notifications/subscriptions/acknowledged", &params));
    }

    /// A change, to all who want it.
    pub(super) fn publish(&mut self, method: &str, params: Option<&str>, effects: &mut Effects) {
        let params = params.filter(|params| is_object(params)).unwrap_or("{}");
        let Ok([meta, uri]) = members(params, ["_meta", "uri"]) else { return };
        let uri = uri.and_then(|uri| string(uri.value));
        for listen in self.subscriptions.open.values().filter(|listen| listen.acknowledged) {
            let wanted = match method {
                "notifications/tools/list_changed" => listen.wants.tools_list_changed == Some(true),
                "notifications/prompts/list_changed" => listen.wants.prompts_list_changed == Some(true),
                "notifications/resources/list_changed" => listen.wants.resources_list_changed == Some(true),
                _ => uri.as_deref().is_some_and(|uri| listen.uris.iter().any(|watched| covers(watched, uri))),
            };
            if !wanted {
                continue;
            }
            let id = listen.id.to_json();
            let mut object = Object::new(params);
            match meta {
                Some(meta) if is_object(meta.value) => {
                    let mut inner = Object::new(meta.value);
                    if let Ok([old]) = members(meta.value, [SUBSCRIPTION_ID]) {
                        inner.remove(old);
                    }
                    inner.add(SUBSCRIPTION_ID, &id);
                    object.replace(meta, With::Object(inner));
                }
                other => {
                    object.remove(other);
                    object.add("_meta", &format!("{{\"{SUBSCRIPTION_ID}\":{id}}}"));
                }
            }
            effects.to_client.push(notification(method, &object.into_string()));
        }
    }

    /// The client ends one. It gets no response (2026-07-28 "Subscriptions", Cancellation).
    pub(super) fn unlisten(&mut self, now: Duration, number: u64, effects: &mut Effects) {
        let Some(listen) = self.subscriptions.open.remove(&number) else { return };
        if let Some(due) = listen.due {
            self.timers.remove(&(due, Due::Acknowledge(number)));
        }
        self.waiting.remove(&listen.id);
        let mut unused = Vec::new();
        self.subscriptions.resources.retain(|uri, resource| {
            resource.users.remove(&number);
            if resource.users.is_empty() {
                unused.push(uri.clone());
            }
            !resource.users.is_empty()
        });
        for uri in unused {
            self.unwatch(now, &uri, effects);
        }
    }

    fn unwatch(&mut self, now: Duration, uri: &str, effects: &mut Effects) {
        let params = format!("{{\"uri\":{}}}", message::quote(uri));
        self.own_request(now, OWN_PATIENCE, OwnKind::Unsubscribe, "resources/unsubscribe", &params, effects);
    }

    /// All end in good order (2026-07-28 "Subscriptions", Graceful Closure).
    pub(super) fn end_subscriptions(&mut self, effects: &mut Effects) {
        let all = std::mem::take(&mut self.subscriptions);
        for (number, listen) in all.open {
            if let Some(due) = listen.due {
                self.timers.remove(&(due, Due::Acknowledge(number)));
            }
            self.waiting.remove(&listen.id);
            let result = format!("{{\"resultType\":\"complete\",\"_meta\":{{\"{SUBSCRIPTION_ID}\":{}}}}}", listen.id);
            effects.to_client.push(message::result_response(&listen.id, &result));
        }
    }
}

fn notification(method: &str, params: &str) -> bytes::Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":{},\"params\":{params}}}", message::quote(method)).into()
}

/// An update of `uri` is wanted by who watches `watched`: the same, or one that it contains (2025-11-25
/// `ResourceUpdatedNotificationParams`: "this might be a sub-resource of the one that the client actually subscribed to").
fn covers(watched: &str, uri: &str) -> bool {
    uri.strip_prefix(watched)
        .is_some_and(|rest| rest.is_empty() || watched.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

fn read_filter(params: Option<&RawValue>) -> Result<Filter<'_>, Refusal> {
    let refusal = || {
        Refusal::invalid(
            "\"notifications\" must be an object: booleans, and \"resourceSubscriptions\" a list of strings",
        )
    };
    let params = params.map(RawValue::get).ok_or_else(refusal)?;
    let [filter] = members(params, ["notifications"]).map_err(|_| refusal())?;
    let filter = filter.filter(|filter| is_object(filter.value)).ok_or_else(refusal)?;
    serde_json::from_str(filter.value).map_err(|_| refusal())
}
