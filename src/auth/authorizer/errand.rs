//! Asking the token endpoint in a process of its own.
//!
//! A host kills its servers when it likes: two copies are started and one of them is shot within a second. Between the moment when an
//! authorization server spends a refresh token and the moment when its successor is on the disk, that would cost the login, and with reuse detection
//! (RFC 9700 section 4.14.2) every window's. So a child of this program asks, keeps the answer and ends: it outlives its parent by one request at
//! most. It holds the lock, so nobody asks a second time while it lives.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Authorizer, Inner, Outcome};
use crate::auth::error::{AuthError, Mender};
use crate::secret::Secret;
use crate::store::StorePlace;

/// The rule of a child that cannot use the store. Nothing was sent.
const NO_STORE: &str = "no-store";

/// What the child is to do. It holds secrets: it goes through a pipe.
#[derive(Serialize, Deserialize)]
pub enum Errand {
    /// Renew the login whose access token is this one.
    Refresh {
        /// The access token.
        stale: Box<str>,
    },
    /// Redeem the code of the sign-in under way.
    Exchange {
        /// The code.
        code: Box<str>,
        /// The sign-in's `state`.
        state: Box<str>,
    },
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh { .. } => "Refresh",
            Self::Exchange { .. } => "Exchange",
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Option<Result<(), AuthError>>> + Send>>;

/// Runs errands in another process; `None`: it could not be started, and nothing was sent.
#[derive(Clone)]
pub struct Messenger(Arc<dyn Fn(Errand, Option<Secret>) -> Answer + Send + Sync>);

impl Messenger {
    /// From what starts the process; it gets the key of the store along, for [`Store::learn_key`](crate::store::Store::learn_key).
    pub fn new(send: impl Fn(Errand, Option<Secret>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }
}

impl fmt::Debug for Messenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messenger")
    }
}

impl Authorizer {
    /// Carries an errand out, in the process that was started for it.
    pub async fn run(&self, errand: Errand) -> Result<(), AuthError> {
        self.inner.load().await;
        // Nothing stored can be seen from here, which is not the same as that there is nothing.
        let seen = self.inner.store.snapshot().await.is_ok();
        if !seen || self.inner.store.status().place == StorePlace::Memory {
            return Err(AuthError::new(NO_STORE, Mender::Nobody, "the credential store cannot be used"));
        }
        match errand {
            Errand::Refresh { stale } => match self.inner.login() {
                Some(login) => self.inner.refresh_here(&login.key, &Secret::new(stale)).await,
                None => Err(super::renew::ended()),
            },
            Errand::Exchange { code, state } => {
                self.inner.exchange_stored(&Secret::new(code), &Secret::new(state)).await
            }
        }
    }
}

impl Inner {
    /// `None`: it is for this process to do, as where only this process has the store.
    pub(super) async fn send_messenger(&self, errand: Errand) -> Option<Outcome> {
        let messenger = self.messenger.as_ref().filter(|_| self.store.status().place != StorePlace::Memory)?;
        let outcome = (messenger.0)(errand, self.store.known_key()).await;
        outcome.filter(|outcome| !outcome.as_ref().is_err_and(|error| error.rule() == NO_STORE))
    }
}
