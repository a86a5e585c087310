//! Both eras, both ways (product section E): every client reaches every server.
//!
//! [`Eras`] owns the [`Session`] and has the same face. While client and server are of one era it adds nothing: lines and
//! actions go through untouched. When the server turns out to be of the other era, a [`Translator`] sits between the client's
//! lines and the session.
//! ```text
//!           ┌──────────────────── Eras ────────────────────┐
//!  client ──┤ legacy_client: speaks modern to the session  ├── Session ── server
//!           │ modern_client: speaks legacy to the session  │
//!           └──────────────────────────────────────────────┘
//! ```

pub mod modern_client;
pub mod translator;

use std::time::Duration;

use crate::session::{Action, Input, Session};

pub use self::translator::{Effects, Learnt, Translator};

/// `--protocol`: the server's era.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Found out by the first request (E1).
    #[default]
    Auto,
    /// The server speaks revisions up to 2025-11-25.
    Legacy,
    /// The server speaks 2026-07-28 or later.
    Modern,
}

/// What the translators need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's era, if the user says so.
    pub protocol: Protocol,
    /// The server as people know it, for error texts.
    pub server: String,
    /// `initialize` is answered within this time (S2).
    pub initialize_timeout: Duration,
    /// How long requests in flight may still finish after stdin ended (S5).
    pub drain: Duration,
    /// Makes the ids of the bridge's own requests unlike any id of the client: random letters and digits.
    pub nonce: String,
    /// Seals what goes through the client and must come back unchanged (`requestState`). New for every process.
    pub key: SealKey,
    /// Rounds of questions that one request may take (E4).
    pub max_rounds: u32,
}

/// A secret of this process.
#[derive(Clone)]
pub struct SealKey(pub [u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: Protocol::Auto,
            server: "the server".into(),
            initialize_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(2),
            nonce: "0".into(),
            key: SealKey([0; 32]),
            max_rounds: 10,
        }
    }
}

/// The session, and a translator where one is needed. See the module's text.
#[derive(Debug)]
pub struct Eras {
    session: Session,
    #[expect(dead_code, reason = "the translators come next")]
    settings: Settings,
}

impl Eras {
    /// Nothing heard yet.
    pub fn new(settings: Settings, session: Session) -> Self {
        Self { session, settings }
    }

    /// As [`Session::handle`].
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        self.session.handle(now, input, actions);
    }

    /// As [`Session::next_deadline`].
    pub fn next_deadline(&mut self) -> Option<Duration> {
        self.session.next_deadline()
    }

    /// As [`Session::accepts_lines`].
    pub fn accepts_lines(&self) -> bool {
        self.session.accepts_lines()
    }
}
