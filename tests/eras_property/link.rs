//! What lies between a client and a server: nothing, or the two translators back to back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use mcp_drawbridge::eras::legacy_client::LegacyClient;
use mcp_drawbridge::eras::modern_client::ModernClient;
use mcp_drawbridge::eras::{Effects, Settings, Translator};
use mcp_drawbridge::message::Id;

use crate::record::{Said, TICK};
use crate::tree::Tree;

/// Lines that may cross for one word of either side.
const MAX_CROSSING: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Client and server are of one era, and talk to each other.
    Direct,
    /// Legacy client, modern wire, legacy server.
    Legacy,
    /// Modern client, legacy wire, modern server.
    Modern,
}

enum To {
    Server(String),
    Client(String),
    /// The translator next to the client, or next to the server.
    Near(String, bool, Option<usize>),
    Far(String, bool, Option<usize>),
}

pub(crate) struct Link {
    way: Way,
    pub(crate) now: Duration,
    near: Box<dyn Translator>,
    far: Box<dyn Translator>,
    queue: VecDeque<To>,
    /// Whether the translator of a modern client learns on which stream a message came.
    streams: bool,
    /// What that translator calls the requests.
    ids: BTreeMap<usize, Id>,
}

impl Link {
    pub(crate) fn new(way: Way, streams: bool) -> Self {
        let settings = |nonce: &str| Settings { nonce: nonce.into(), max_rounds: 100, ..Settings::default() };
        let legacy = Box::new(LegacyClient::new(&settings("l"), None));
        let modern = Box::new(ModernClient::new(&settings("m")));
        let (near, far): (Box<dyn Translator>, Box<dyn Translator>) =
            if way == Way::Modern { (modern, legacy) } else { (legacy, modern) };
        Self { way, now: Duration::ZERO, near, far, queue: VecDeque::new(), streams, ids: BTreeMap::new() }
    }

    pub(crate) fn client_says(&mut self, line: String) {
        self.queue.push_back(if self.way == Way::Direct { To::Server(line) } else { To::Near(line, true, None) });
    }

    pub(crate) fn server_says(&mut self, said: Said) {
        for (about, line) in said {
            self.queue.push_back(if self.way == Way::Direct { To::Client(line) } else { To::Far(line, false, about) });
        }
    }

    /// Lets all that is under way arrive. The two give what they say at once.
    pub(crate) fn pump(&mut self, client: &mut dyn FnMut(&str) -> Vec<String>, server: &mut dyn FnMut(&str) -> Said) {
        for _ in 0..MAX_CROSSING {
            let Some(next) = self.queue.pop_front() else { return };
            match next {
                To::Server(line) => {
                    let said = server(&line);
                    self.server_says(said);
                }
                To::Client(line) => {
                    for line in client(&line) {
                        self.client_says(line);
                    }
                }
                To::Near(line, from_client, about) => self.through(true, line, from_client, about),
                To::Far(line, from_client, about) => self.through(false, line, from_client, about),
            }
        }
        panic!("they never come to an end");
    }

    fn through(&mut self, near: bool, line: String, from_client: bool, about: Option<usize>) {
        let mut effects = Effects::default();
        let of_modern_client = near == (self.way == Way::Modern);
        let stream = about.filter(|_| self.streams || self.way == Way::Legacy).and_then(|tag| self.ids.get(&tag));
        let machine = if near { &mut self.near } else { &mut self.far };
        let line = Bytes::from(line);
        match (from_client, stream) {
            (true, _) => machine.client_line(self.now, &line, &mut effects),
            (false, Some(stream)) if of_modern_client => {
                machine.server_line_about(self.now, stream, line, &mut effects);
            }
            (false, _) => machine.server_line(self.now, line, &mut effects),
        }
        self.carry_out(near, effects, about);
    }

    fn carry_out(&mut self, near: bool, effects: Effects, about: Option<usize>) {
        let of_modern_client = near == (self.way == Way::Modern);
        assert!(effects.wrong_era.is_none(), "nobody changed its era");
        for line in effects.to_client {
            let line = text(&line);
            check_wire(&line, !of_modern_client, false);
            self.queue.push_back(if near { To::Client(line) } else { To::Near(line, false, about) });
        }
        for line in effects.to_session.into_iter().chain(effects.settled) {
            let line = text(&line);
            check_wire(&line, of_modern_client, true);
            if of_modern_client
                && let message = Tree::parse(&line)
                && let Some(tag) = message.at(&["params", "tag"]).and_then(Tree::number)
                && let Some(id) = message.get("id")
            {
                self.ids.insert(tag, Id::from_json(&id.json()).expect("an id"));
            }
            self.queue.push_back(if near { To::Far(line, true, None) } else { To::Server(line) });
        }
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.way == Way::Direct {
            return None;
        }
        self.near.next_deadline().into_iter().chain(self.far.next_deadline()).min()
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now.max(self.now);
        if self.way == Way::Direct {
            return;
        }
        for near in [true, false] {
            let machine = if near { &mut self.near } else { &mut self.far };
            let mut effects = Effects::default();
            machine.tick(self.now, &mut effects);
            self.carry_out(near, effects, None);
        }
    }
}

fn text(line: &Bytes) -> String {
    String::from_utf8(line.to_vec()).expect("UTF-8")
}

/// Each translator speaks one era to each side, and nothing of the other.
fn check_wire(line: &str, legacy: bool, from_client: bool) {
    assert!(!line.contains('\n'), "a line is one line");
    let message = Tree::parse(line);
    let Some(method) = message.get("method").and_then(Tree::text) else {
        let Some(result) = message.get("result") else { return };
        assert!((!from_client || legacy), "a modern client gives no results: {line}");
        let kind = result.get("resultType").and_then(Tree::text);
        assert!(from_client || legacy || kind.is_some(), "a modern result says what it is: {line}");
        assert!(!legacy || kind != Some("input_required"), "{line}");
        return;
    };
    let is_request = message.get("id").is_some();
    let other_era = if legacy {
        matches!(method, "server/discover" | "subscriptions/listen" | "notifications/subscriptions/acknowledged")
    } else {
        matches!(
            method,
            "initialize"
                | "ping"
                | "logging/setLevel"
                | "resources/subscribe"
                | "resources/unsubscribe"
                | "notifications/initialized"
                | "notifications/elicitation/complete"
                | "notifications/roots/list_changed"
        )
    };
    assert!(!other_era, "of the other era: {line}");
    let version = message.at(&["params", "_meta", &format!("{TICK}protocolVersion")]);
    assert!(!legacy || version.is_none(), "{line}");
    assert!(legacy || !from_client || !is_request || version.is_some(), "{line}");
    assert!(legacy || from_client || !is_request, "a modern server asks nothing: {line}");
}
