//! What an answer tells about the server's era, and what becomes of the message that was refused (E1).
//!
//! Nothing is probed: the first real message finds it out. A refusal that may mean "I am of the other era" is not given to the
//! client; the message comes back to whoever feeds the session, in an [`EraNews`], and may be fed again in the other era's form, or with
//! [`Session::handle_settled`] as it is.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::gone::{rpc_code, says_legacy_alone, says_not_initialized, says_session_gone};
use super::life::Closing;
use super::link::{self, Item, Phase};
use super::pending::{Key, Origin};
use super::{Action, Input, Level, Memory, Remembered, Session};
use crate::era::{self, Era};
use crate::message::{self, Outcome};

/// A server said that it is of the other era.
#[derive(Debug, PartialEq, Eq)]
pub struct EraNews {
    /// The era that it refused.
    pub refuses: Era,
    /// The client's messages that it refused, and those that waited behind them, in order. The session has forgotten them.
    pub lines: Vec<Bytes>,
    /// The legacy session that the client believes in, if its `initialize` was answered already.
    pub adopted: Option<Adopted>,
}

/// What a client was told and told in a legacy session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its `initialize`.
    pub initialize: Bytes,
    /// The result that it got.
    pub result: Box<str>,
    /// It said `notifications/initialized`.
    pub initialized: bool,
    /// Its `logging/setLevel`.
    pub log_level: Option<Bytes>,
    /// Its `resources/subscribe`.
    pub subscriptions: Vec<Bytes>,
}

/// The part of the session that looks for the era.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Somebody wants to know.
    pub(super) on: bool,
    /// The line that is being read is fed for the last time.
    pub(super) settled: bool,
    /// A translator feeds the session; true if it owes the client an answer.
    translator: Option<bool>,
    /// The server has given results to modern requests.
    modern: bool,
    news: Vec<EraNews>,
}

impl Watch {
    /// A translator feeds the session.
    pub(super) fn translates(&self) -> bool {
        self.translator.is_some()
    }

    /// The bridge may not leave yet: there is more to say.
    pub(super) fn keeps_open(&self) -> bool {
        !self.news.is_empty() || self.translator == Some(true)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    #[serde(default)]
    protocol_version: Option<String>,
    #[serde(default)]
    supported_versions: Option<Vec<Value>>,
}

impl Session {
    /// Whether refusals are looked at for the server's era. They are not, unless somebody takes the news.
    pub fn watch_eras(&mut self, on: bool) {
        self.watch.on = on;
    }

    /// There is something for [`Self::take_era_news`].
    pub fn has_era_news(&self) -> bool {
        !self.watch.news.is_empty()
    }

    /// What was found out since the last time.
    pub fn take_era_news(&mut self) -> Vec<EraNews> {
        std::mem::take(&mut self.watch.news)
    }

    /// A line of the client whose refusal it shall see, whatever that says about eras.
    pub fn handle_settled(&mut self, now: Duration, line: Bytes, actions: &mut Vec<Action>) {
        self.watch.settled = true;
        self.handle(now, Input::Line(line), actions);
        self.watch.settled = false;
    }

    /// Says whether a translator feeds this session, and whether it owes the client answers that the session does not know of. Its lines
    /// are taken after stdin ended, too, and the session does not leave before it.
    pub fn set_translator(&mut self, owes: Option<bool>) {
        self.watch.translator = owes;
    }

    /// A translator feeds this session, and knows itself when its clients must have an answer.
    pub(super) fn is_translated(&self) -> bool {
        self.watch.translator.is_some()
    }

    /// There is a legacy session, or one is being opened.
    pub fn has_legacy_session(&self) -> bool {
        self.link.phase != Phase::Idle
    }

    /// stdin ended, and requests in flight may still finish.
    pub fn is_draining(&self) -> bool {
        self.closing == Some(Closing::Draining)
    }

    /// What is remembered of the server.
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// Keeps for the next run which era the server refuses, and the answer to `initialize` that a translator gave: the version that the
    /// client asked for and the result, as JSON text.
    pub fn remember_era(&mut self, refuses: Option<Era>, answer: Option<(String, String)>, actions: &mut Vec<Action>) {
        let old = self.memory.clone();
        let answer = answer.or_else(|| old.as_ref().map(|memory| (memory.requested.clone(), memory.result.clone())));
        let transport = old.map_or(Remembered::StreamableHttp, |memory| memory.transport);
        let Some((requested, result)) = answer else { return };
        std::mem::swap(&mut self.out, actions);
        self.keep(Memory { transport, requested, result, refuses });
        std::mem::swap(&mut self.out, actions);
    }

    /// Opens a legacy session on behalf of a client that believes in one already, as after a loss (C2).
    pub fn adopt(&mut self, now: Duration, adopted: Adopted, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.out, actions);
        self.restart_link();
        self.link.requested = link::requested_version(&adopted.initialize);
        self.link.initialize = Some(adopted.initialize);
        self.link.known = Some(adopted.result);
        self.link.initialized = adopted.initialized.then(|| message::notification("notifications/initialized"));
        self.link.log_level = adopted.log_level;
        self.link.subscriptions =
            adopted.subscriptions.into_iter().filter_map(|text| Some((link::uri(&text)?, text))).collect();
        self.link.announce = true;
        self.link.phase = Phase::Lost;
        self.reopen();
        std::mem::swap(&mut self.out, actions);
    }

    /// After the end of stdin only a translator has more to say; after that, nobody.
    pub(super) fn takes_no_more(&self) -> bool {
        match self.closing {
            None => false,
            Some(Closing::Draining) => self.watch.translator.is_none(),
            Some(Closing::Goodbye | Closing::Done) => true,
        }
    }

    /// An error status, the code of a JSON-RPC error in its body, that body, and whether the error names legacy versions alone. True if
    /// the request was given back.
    pub(super) fn is_of_other_era(
        &mut self,
        key: Key,
        status: u16,
        code: Option<i64>,
        body: &[u8],
        legacy_alone: impl FnOnce() -> bool,
    ) -> bool {
        if !self.watch.on {
            return false;
        }
        let Some(pending) = self.pending.get(&key) else { return false };
        let handshake = pending.is_handshake();
        let refused = match pending.modern {
            Some(_) => era::may_refuse_modern(&pending.method, status, code) || legacy_alone(),
            None => !self.link.is_sse() && era::may_refuse_legacy(handshake, status, code, body),
        };
        refused && self.give_back(key)
    }

    /// `initialize` was refused without a reason, and no older transport is left to try. True if the request was given back.
    pub(super) fn may_be_modern(&mut self, key: Key) -> bool {
        self.watch.on && std::mem::take(&mut self.link.vaguely_refused) && self.give_back(key)
    }

    /// A response on a good status. True if the request was given back.
    pub(super) fn answer_is_of_other_era(&mut self, key: Key, outcome: Outcome<'_>) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        let modern = pending.modern.is_some();
        let handshake = pending.is_handshake();
        let discover = modern && &*pending.method == "server/discover";
        match outcome {
            Outcome::Error(error) => {
                // A tool of a modern server may speak of sessions of its own.
                let says_legacy =
                    modern && says_session_gone(error) && (!self.watch.modern || says_not_initialized(error));
                (says_legacy && self.give_back(key))
                    || self.is_of_other_era(key, 200, rpc_code(error), &[], || says_legacy_alone(error))
            }
            Outcome::Result(result) if handshake || discover => {
                let versions = serde_json::from_str::<Versions>(result.get()).ok();
                let answered = versions.is_some_and(|versions| match discover {
                    // Some servers answer methods that they do not know with an empty result.
                    true => versions
                        .supported_versions
                        .is_some_and(|versions| !era::is_legacy_alone(versions.iter().filter_map(Value::as_str))),
                    false => versions.protocol_version.is_some_and(|version| !era::is_modern_version(&version)),
                });
                !answered && self.give_back(key)
            }
            Outcome::Result(_) => {
                self.watch.modern |= modern;
                false
            }
        }
    }

    /// Forgets a request, and with a legacy one the session that it was for, and says so. False if the request's refusal is for the client.
    fn give_back(&mut self, key: Key) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        let ours = match pending.origin {
            Origin::Client => false,
            Origin::Reopen | Origin::Replay | Origin::Ping => true,
            Origin::ListTools => return false,
        };
        if pending.settled || matches!(self.closing, Some(Closing::Goodbye | Closing::Done)) {
            return false;
        }
        let refuses = if pending.modern.is_some() { Era::Modern } else { Era::Legacy };
        self.watch.modern &= refuses == Era::Legacy;
        let exchange = pending.exchange();
        let handshake = pending.is_handshake();
        // An older session's message says nothing about the client's state.
        let current = handshake || pending.generation == self.link.generation;
        if let Some(exchange) = exchange {
            self.let_end(exchange);
        }
        let Some(pending) = self.remove(key) else { return false };
        if let Some(batch) = pending.batch {
            self.leave_batch(batch);
        }
        let mut lines: Vec<Bytes> = (!ours).then_some(pending.text).into_iter().collect();
        let mut adopted = None;
        if refuses == Era::Legacy && current {
            if !handshake || ours {
                adopted = self.adopted();
            }
            lines.extend(self.empty_queue());
            self.drop_server_requests();
            self.restart_link();
        }
        self.log(Level::Debug, "the server seems to be of the other era");
        self.watch.news.push(EraNews { refuses, lines, adopted });
        true
    }

    fn adopted(&self) -> Option<Adopted> {
        let link = &self.link;
        Some(Adopted {
            initialize: link.initialize.clone()?,
            result: link.known.clone()?,
            initialized: link.initialized.is_some(),
            log_level: link.log_level.clone(),
            subscriptions: link.subscriptions.values().cloned().collect(),
        })
    }

    /// Takes what waits for the session out of its queue.
    fn empty_queue(&mut self) -> Vec<Bytes> {
        let mut lines = Vec::new();
        for item in std::mem::take(&mut self.link.queue) {
            match item {
                Item::Initialized(text) => lines.push(text),
                Item::Forward(forward) => {
                    if forward.is_the_clients() {
                        lines.push(forward.text().clone());
                    }
                    self.done_with(forward);
                }
                Item::Request(key) => {
                    let Some(pending) = self.remove(key) else { continue };
                    if let Some(batch) = pending.batch {
                        self.leave_batch(batch);
                    }
                    if pending.origin == Origin::Client {
                        lines.push(pending.text);
                    }
                }
            }
        }
        lines
    }
}
