//! What a translator is: a pure machine between the client's lines and the [`Session`](crate::session::Session).
//!
//! Towards the session it behaves as a client of the server's era would; towards the client as a server of the client's era.
//! It sees whole lines, has no clock of its own, and everything that it wants done it puts into [`Effects`].

use std::time::Duration;

use bytes::Bytes;

use crate::message::Id;
use crate::session::{Adopted, Level, SignIn};

/// What a translator wants done. [`Eras`](super::Eras) does it: first the log, then the client's lines, then the session's,
/// each in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Lines for the session, as a client of the server's era writes them. What the session answers comes back by
    /// [`Translator::server_line`].
    pub to_session: Vec<Bytes>,
    /// Answers of our own to requests of the server, which nobody else has to think about. While too many of them are on their way
    /// already, they are left out: a server that asks faster than it takes answers must not fill the memory (R8).
    pub answers: Vec<Bytes>,
    /// As `to_session`, for requests whose refusal is the server's last word, whatever it says about eras.
    pub settled: Vec<Bytes>,
    /// Lines for the client.
    pub to_client: Vec<Bytes>,
    /// Words for the person.
    pub log: Vec<(Level, String)>,
    /// What the next run should know of the server.
    pub learnt: Option<Learnt>,
    /// The server is not of the era that this translator speaks to. The translator is dropped, and these lines of the client, which
    /// have no response yet, are taken as they came.
    pub wrong_era: Option<Vec<Bytes>>,
    /// With `wrong_era`: the legacy session that the client believes in and that the session must open before these lines.
    pub adopted: Option<Adopted>,
}

/// What a translator found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learnt {
    /// The server is of the era that this translator speaks to. With it the protocol version that the client asked for and the result of
    /// `initialize` that it got, as JSON text, where a translator made that up (S2).
    Confirmed(Option<(String, String)>),
}

/// See the module's text.
///
/// Promise: every request of the client that was given to [`Translator::client_line`] gets exactly one response in
/// [`Effects::to_client`], or comes back in [`Effects::wrong_era`], unless the client cancelled it. For every request that it puts
/// into [`Effects::to_session`] it gets exactly one response in [`Translator::server_line`], or the line itself in [`Translator::refused`].
pub trait Translator: std::fmt::Debug {
    /// The client wrote a line: any line, also broken JSON, batches, and messages of the server's own era. What is not the
    /// translator's business goes to the session as it is.
    fn client_line(&mut self, now: Duration, line: &Bytes, effects: &mut Effects);

    /// The session wrote a line for its client. What is not the translator's business goes to the client as it is.
    fn server_line(&mut self, now: Duration, line: Bytes, effects: &mut Effects);

    /// The same, for a request or notification of the server that came on the answer stream of the session's request with this id.
    fn server_line_about(&mut self, now: Duration, _about: &Id, line: Bytes, effects: &mut Effects) {
        self.server_line(now, line, effects);
    }

    /// The server refused this line of ours, or of the client, in a way that says that it is of the other era. It has no response, and
    /// the session has forgotten it.
    fn refused(&mut self, now: Duration, line: Bytes, effects: &mut Effects);

    /// The client's answer to a request with this id was too long to be read. True if the request was the translator's.
    fn answer_lost(&mut self, now: Duration, id: &Id, effects: &mut Effects) -> bool;

    /// Whether a request of the client with this id waits for its response here and not in the session.
    fn holds(&self, _id: &Id) -> bool {
        false
    }

    /// News of the sign-in.
    fn signing_in(&mut self, _now: Duration, _news: &SignIn, _effects: &mut Effects) {}

    /// stdin ended: the client says nothing any more, but still reads. What waits for the client alone is answered with an error now.
    fn client_gone(&mut self, now: Duration, effects: &mut Effects);

    /// The session is over: what has no response yet gets an error now. Nothing more goes to the session.
    fn finish(&mut self, now: Duration, effects: &mut Effects);

    /// A deadline came.
    fn tick(&mut self, now: Duration, effects: &mut Effects);

    /// When the next tick is due.
    fn next_deadline(&self) -> Option<Duration>;

    /// It owes the client a response that the session knows nothing of: after stdin ended, the session waits for it as for its own
    /// requests (S5).
    fn owes(&self) -> bool;

    /// False while so much waits that stdin should not be read (R8).
    fn accepts_lines(&self) -> bool;
}
