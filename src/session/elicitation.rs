//! The sign-in's address as a question to a client that takes such (MCP 2025-11-25 "Elicitation", URL mode).

use super::Session;
use super::server::cancelled;
use super::sign_in::Stage;
use crate::message::{self, Id};

/// Questions to one client: a sign-in that changes its address all the time must not flood the person.
const MAX_QUESTIONS: u32 = 16;

/// What the client was asked.
#[derive(Debug, Default)]
pub(super) struct Elicitations {
    /// The client takes such questions (`capabilities.elicitation.url`).
    pub(super) able: bool,
    /// The question that waits for its answer. The answer matters to nobody: what counts is the sign-in.
    open: Option<Id>,
    /// The last address that was asked for, and the elicitation's id.
    last: Option<(Box<str>, String)>,
    asked: u32,
}

impl Elicitations {
    /// A client that starts anew has been asked nothing.
    pub(super) fn start_anew(&mut self, able: bool) {
        *self = Self { able, asked: self.asked, ..Self::default() };
    }

    /// This id is of a question of ours, so no message of the server may bear it.
    pub(super) fn is_open(&self, id: &Id) -> bool {
        self.open.as_ref() == Some(id)
    }

    /// The client's answer, of whatever kind, to a question of ours.
    pub(super) fn take_answer(&mut self, id: &Id) -> bool {
        let ours = self.is_open(id);
        if ours {
            self.open = None;
        }
        ours
    }
}

impl Session {
    /// Asks, once an address, as soon as the client may be asked: 2025-11-25 "Lifecycle" has no requests before `initialized`.
    pub(super) fn elicit(&mut self) {
        let Stage::Wanted { url, advice } = &self.sign_in.stage else { return };
        let asked = &self.sign_in.elicitations;
        let is_new = asked.last.as_ref().is_none_or(|(last, _)| last != url);
        let may =
            asked.able && asked.asked < MAX_QUESTIONS && self.link.initialized.is_some() && self.closing.is_none();
        if !is_new || !may {
            return;
        }
        let (url, advice) = (url.clone(), advice.clone());
        self.call_question_off();
        let mut id = self.own_id();
        while self.server_requests.is_open(&id) {
            id = self.own_id();
        }
        let asked = &mut self.sign_in.elicitations;
        asked.asked += 1;
        let name = format!("sign-in-{}-{}", self.settings.nonce, asked.asked);
        let message = format!("Sign in to {} to use it. {advice}", self.settings.server);
        let question = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"elicitation/create\",\"params\":{{\"mode\":\"url\",\"elicitationId\":{},\"url\":{},\"message\":{}}}}}",
            message::quote(&name),
            message::quote(&url),
            message::quote(message.trim()),
        );
        asked.open = Some(id);
        asked.last = Some((url, name));
        self.write(question.into());
    }

    /// The sign-in is over: no question about it is left.
    pub(super) fn elicitation_over(&mut self, done: bool) {
        self.call_question_off();
        if let Some((_, name)) = self.sign_in.elicitations.last.take()
            && done
        {
            let name = message::quote(&name);
            let notice = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/elicitation/complete\",\"params\":{{\"elicitationId\":{name}}}}}"
            );
            self.write(notice.into());
        }
    }

    fn call_question_off(&mut self) {
        if let Some(id) = self.sign_in.elicitations.open.take() {
            self.write(cancelled(&id, "the sign-in is over, or has another address"));
        }
    }
}
