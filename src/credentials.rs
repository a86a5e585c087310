//! What a request to the MCP server carries to show who asks (product rules A7, A9): nothing, a header of the user's, or a token that is got and
//! renewed by signing in.

use std::time::Duration;

use http::HeaderValue;

use crate::auth::{self, AuthError, Authorizer, Fault, Verdict};
use crate::session::{Failure, FailureKind, Wish};

/// Where the value of `Authorization` comes from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The user gave it as a header: it is among the headers of every request, and no other is asked for.
    Static,
    /// By signing in, when the server asks for it.
    SignIn(Authorizer),
}

/// One request's way through the credentials.
#[derive(Debug, Default)]
pub struct Attempt {
    sign_in: auth::Attempt,
}

/// What to do with a request that was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send it again with [`Credentials::value`].
    Repeat,
    /// The refusal is the answer.
    PassOn,
}

impl Credentials {
    /// The value of `Authorization` for the next request, if it does not have one.
    pub async fn value(&self) -> Result<Option<HeaderValue>, Failure> {
        match self {
            Self::Static => Ok(None),
            Self::SignIn(authorizer) => authorizer.credential().await.map_err(failure),
        }
    }

    /// The server answered 401 or 403. `used` is what [`Self::value`] gave; `challenges` are the values of `WWW-Authenticate`;
    /// `may_sign_in`: somebody waits for this request, so that a person may be asked.
    pub async fn refused<'a>(
        &self,
        attempt: &mut Attempt,
        used: Option<&HeaderValue>,
        status: u16,
        challenges: impl IntoIterator<Item = &'a [u8]>,
        may_sign_in: bool,
    ) -> Result<Next, Failure> {
        match self {
            Self::Static if status == 401 => Err(Failure {
                kind: FailureKind::SignIn,
                unsent: true,
                message: "the server refuses the Authorization header that you gave (HTTP 401)".into(),
                hint: Some(
                    "check its value and whether it has ended; no sign-in is tried while you give this header, so leave it out to \
                     sign in with the browser"
                        .into(),
                ),
            }),
            Self::Static => Ok(Next::PassOn),
            Self::SignIn(authorizer) => {
                let verdict = authorizer.challenged(&mut attempt.sign_in, used, status, challenges, may_sign_in).await;
                match verdict.map_err(failure)? {
                    Verdict::Repeat => Ok(Next::Repeat),
                    Verdict::PassOn => Ok(Next::PassOn),
                }
            }
        }
    }

    /// What the session wants of the sign-in.
    pub fn wish(&self, wish: Wish) {
        match self {
            Self::Static => {}
            Self::SignIn(authorizer) => authorizer.wish(wish),
        }
    }

    /// Before the process ends: waits, for `most` at most, until no token is on its way to the store.
    pub async fn settle(&self, most: Duration) {
        match self {
            Self::Static => {}
            Self::SignIn(authorizer) => authorizer.settle(most).await,
        }
    }
}

/// A fault that passes is like a server that cannot be reached: the request was not sent and may be tried again.
fn failure(error: AuthError) -> Failure {
    let kind = match error.fault() {
        Fault::Transient { .. } => FailureKind::Connect,
        _ => FailureKind::SignIn,
    };
    let message = match error.rule() {
        // Who wants what is all there is to say.
        "sign-in-wanted" => error.to_string(),
        rule => format!("sign-in, rule {rule}: {error}"),
    };
    Failure { kind, unsent: true, message, hint: error.hint() }
}
