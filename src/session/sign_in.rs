//! What the session and the sign-in tell each other (S3). The sign-in itself is elsewhere: it holds exchanges that were refused with 401
//! or 403 until it has a token, so here they are requests that wait; what is decided here is how long, and what the client sees.

/// News of the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// A person is wanted. Exchanges wait for it. May come again, as when the address changes.
    Wanted {
        /// Where the person signs in: passed the policy, ASCII. It holds the sign-in's `state`: for the person alone, never for the log.
        url: Box<str>,
        /// One sentence that says what to do, as over SSH, without the address; empty when a browser was opened.
        advice: Box<str>,
    },
    /// There is a token. What waited goes on by itself.
    Done,
    /// It came to nothing. What waited fails by itself ([`FailureKind::SignIn`](super::FailureKind)).
    Ended {
        /// One sentence: what happened.
        message: Box<str>,
        /// What to do.
        hint: Option<Box<str>>,
    },
    /// What the person pasted is not the answer. The sign-in goes on.
    NotTaken {
        /// One sentence: why.
        message: Box<str>,
    },
}

/// What the session asks of the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The user asked for it (the tool `sign_in`): begin, or begin anew after a refusal, and open the browser.
    Begin,
    /// The user pasted the address that the browser ended at, or the code. A secret: never logged.
    Paste(Box<str>),
    /// What the client calls itself (`clientInfo`), for the sign-in's page.
    Client(Box<str>),
}
