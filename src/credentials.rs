//! What a request to the MCP server carries to show who asks (product rules A7, A9): nothing, a header of the user's, or a token that is got and
//! renewed by signing in.

pub mod command;

use std::time::Duration;

use http::HeaderValue;

use self::command::{BearerCommand, CommandError};
use crate::auth::{self, AuthError, Authorizer, Fault, Mender, Verdict};
use crate::secret::Secret;
use crate::session::{Failure, FailureKind, Wish};

/// Before a token (RFC 6750 section 2.1).
const SCHEME: &str = "Bearer ";

/// Where the value of `Authorization` comes from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The user gave it as a header: it is among the headers of every request, and no other is asked for.
    Static,
    /// By signing in, when the server asks for it.
    SignIn(Authorizer),
    /// From a program of the user's.
    Command(BearerCommand),
}

/// One request's way through the credentials.
#[derive(Debug, Default)]
pub struct Attempt {
    sign_in: auth::Attempt,
    repeated: bool,
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
            Self::Command(command) => {
                let token = command.token().await.map_err(|error| no_token(&error))?;
                bearer(&token).map(Some)
            }
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
            // One run more, then the server's answer stands.
            Self::Command(command) if status == 401 => {
                let token = used.and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix(SCHEME));
                let another = token.is_some_and(|token| command.refused(&Secret::new(token)));
                if another && !std::mem::replace(&mut attempt.repeated, true) {
                    return Ok(Next::Repeat);
                }
                Err(Failure {
                kind: FailureKind::SignIn,
                unsent: true,
                message: "the server refuses the token that the program of --bearer-command has just given (HTTP 401)".into(),
                hint: Some("run the program by hand and look whether its token is for this server".into()),
            })
            }
            Self::Command(_) => Ok(Next::PassOn),
            Self::SignIn(authorizer) => {
                let verdict = authorizer.challenged(&mut attempt.sign_in, used, status, challenges, may_sign_in).await;
                match verdict.map_err(failure)? {
                    Verdict::Repeat => Ok(Next::Repeat),
                    Verdict::PassOn => Ok(Next::PassOn),
                }
            }
        }
    }

    /// Waits until a person is wanted; for ever, where none ever is.
    pub async fn person_wanted(&self) {
        match self {
            Self::Static | Self::Command(_) => std::future::pending().await,
            Self::SignIn(authorizer) => authorizer.person_wanted().await,
        }
    }

    /// What the session wants of the sign-in.
    pub fn wish(&self, wish: Wish) {
        match self {
            Self::Static | Self::Command(_) => {}
            Self::SignIn(authorizer) => authorizer.wish(wish),
        }
    }

    /// Before the process ends: waits, for `most` at most, until no token is on its way to the store.
    pub async fn settle(&self, most: Duration) {
        match self {
            Self::Static | Self::Command(_) => {}
            Self::SignIn(authorizer) => authorizer.settle(most).await,
        }
    }
}

fn no_token(error: &CommandError) -> Failure {
    Failure {
        kind: FailureKind::SignIn,
        unsent: true,
        message: format!("--bearer-command gave no token: {error}"),
        hint: Some(error.hint().into()),
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::from_str(&format!("{SCHEME}{}", token.expose()));
    let mut value = value.map_err(|_| Failure {
        kind: FailureKind::SignIn,
        unsent: true,
        message: "the token of --bearer-command fits into no header".into(),
        hint: None,
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A fault that passes is like a server that cannot be reached: the request was not sent and may be tried again.
fn failure(error: AuthError) -> Failure {
    let kind = match error.fault() {
        Fault::Transient { .. } => FailureKind::Connect,
        // A person may still do it, or do it now.
        Fault::Denied if error.mender() == Mender::User => FailureKind::Declined,
        _ => FailureKind::SignIn,
    };
    let message = match error.rule() {
        // Who wants what is all there is to say.
        "sign-in-wanted" => error.to_string(),
        rule => format!("sign-in, rule {rule}: {error}"),
    };
    Failure { kind, unsent: true, message, hint: error.hint() }
}
