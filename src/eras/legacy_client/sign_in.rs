//! Opening while a person has to sign in first (S2, A5): `initialize` is answered in time, and `server/discover` asks when they have.

use super::LegacyClient;
use super::hello::Phase;
use crate::eras::translator::Effects;
use crate::message;
use crate::session::SignIn;

impl LegacyClient {
    pub(super) fn on_signing_in(&mut self, news: &SignIn, effects: &mut Effects) {
        match news {
            SignIn::Wanted { .. } => {
                self.signing_in = true;
                self.person_asked = true;
                self.answer_from_memory(effects);
            }
            SignIn::Done => {
                self.signing_in = false;
                self.server_answers();
            }
            SignIn::Ended { .. } => self.signing_in = false,
            SignIn::NotTaken { .. } => {}
        }
    }

    /// A discovery that failed for want of a sign-in is due: our own requests begin none (A5), so it waited for this.
    pub(super) fn server_answers(&mut self) {
        if let Some(discovery) = &mut self.discovery
            && discovery.id.is_none()
            && !self.signing_in
        {
            discovery.again_at = Some(self.now);
            discovery.failures = 0;
        }
    }

    /// S2: a person has to sign in first. The lists change afterwards.
    pub(super) fn answer_provisionally(&mut self, effects: &mut Effects) -> bool {
        let id = self.discovery.as_ref().and_then(|discovery| discovery.initialize.clone());
        let (true, Some(id), Some(client)) = (self.person_asked, id, &self.client) else { return false };
        let name = message::quote(&self.settings.server);
        let result = format!(
            "{{\"protocolVersion\":{},\"capabilities\":{{\"tools\":{{\"listChanged\":true}},\"resources\":{{\"listChanged\":true}},\"prompts\":{{\"listChanged\":true}}}},\"serverInfo\":{{\"name\":{name},\"version\":\"unknown\"}},\"instructions\":\"The user has to sign in to this server first; what it offers is known afterwards.\"}}",
            message::quote(&client.version)
        );
        self.open_with(&id, &result, effects);
        true
    }

    /// S2: a wait for a person fails no `initialize`. The client has its answer, gets one now, or has time left until it does. False if
    /// no person was ever asked.
    pub(super) fn is_answered_while_signing_in(&mut self, effects: &mut Effects) -> bool {
        let due = self.discovery.as_ref().and_then(|discovery| discovery.due);
        let waits = self.signing_in && due.is_some_and(|due| due > self.now);
        self.phase == Phase::Open || self.answer_from_memory(effects) || waits || self.answer_provisionally(effects)
    }
}
