//! The refresh of tokens (A6): redeemed once, over tasks and processes, and on the disk before it is used.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::discover::Found;
use super::login::{Login, same};
use super::{Errand, Inner, Outcome, interrupted, no_turn, not_stored, now};
use crate::auth::error::{AuthError, Fault, Mender};
use crate::auth::grant::{self, Context};
use crate::auth::registration::Origin;
use crate::secret::Secret;
use crate::store::{AccountKey, Critical, StoreError};

/// How long the refresh of another process is waited for.
const OTHER_PROCESS: Duration = Duration::from_secs(45);

/// The first pause after a token endpoint failed, and the longest; each is twice the one before. `Retry-After` takes its place.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(8);
/// Longest `Retry-After` that a request waits for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

/// A token endpoint in trouble is left alone for a while.
#[derive(Debug)]
pub(super) struct Pause {
    until: Instant,
    length: Duration,
}

impl Inner {
    /// Renews the access token `stale`. Not to be given up half-way: it runs in a task of its own.
    pub(super) async fn refresh(self: &Arc<Self>, stale: &Secret) -> Outcome {
        let outcome = self.refresh_in_turn(stale).await;
        let mut state = self.state();
        match outcome.as_ref().map_err(AuthError::fault) {
            Ok(()) => state.pause = None,
            // It was not asked.
            Err(Fault::Transient { .. }) if outcome.as_ref().is_err_and(is_ours) => {}
            Err(Fault::Transient { retry_after }) => {
                let before = state.pause.as_ref().map_or(PAUSE_FIRST / 2, |pause| pause.length);
                let length = retry_after.unwrap_or_else(|| (before * 2).min(PAUSE_MOST));
                state.pause = Some(Pause { until: Instant::now() + length, length: (before * 2).min(PAUSE_MOST) });
            }
            Err(Fault::Refused) => {}
            Err(_) => state.refused = Some(stale.clone()),
        }
        if outcome.as_ref().is_err_and(grant::is_unusable) {
            state.refused = Some(stale.clone());
        }
        drop(state);
        outcome
    }

    /// Waits until a token endpoint that is in trouble may be asked again, as it says itself or by a growing pause: not each request asks it anew.
    /// Not for ever: then it is asked all the same.
    pub(super) async fn wait_out_trouble(&self) {
        let until = self.state().pause.as_ref().map(|pause| pause.until);
        if let Some(until) = until {
            sleep_until(until.min(Instant::now() + RETRY_AFTER_MOST)).await;
        }
    }

    /// The token endpoint is in trouble, so a token that is still good is not renewed now.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.state().pause.as_ref().is_some_and(|pause| Instant::now() < pause.until)
    }

    /// Whether the authorization server has refused to renew this access token. Asked again, it would say so again.
    pub(super) fn is_refused(&self, access: &Secret) -> bool {
        self.state().refused.as_ref().is_some_and(|refused| same(refused, access))
    }

    /// Whether there is a refresh token beside this access token that may be sent.
    pub(super) fn can_renew(&self, access: &Secret) -> bool {
        let login = self.login().filter(|login| same(&login.tokens.access, access));
        login.is_some_and(|login| login.tokens.refresh.is_some()) && !self.is_refused(access)
    }

    async fn refresh_in_turn(self: &Arc<Self>, stale: &Secret) -> Outcome {
        let Some(login) = self.login() else { return Err(ended()) };
        if !same(&login.tokens.access, stale) {
            return Ok(());
        }
        // One process at a time asks; the others find what it got.
        let held = self.store.critical(&self.key, Critical::Refresh, OTHER_PROCESS).await;
        let held = held.map_err(|error| no_turn(&error))?;
        if let Reread::Renewed = self.reread(&login.key, stale).await? {
            return Ok(());
        }
        let errand = Errand::Refresh { stale: stale.expose().into() };
        let outcome = match self.send_messenger(errand).await {
            Some(outcome) => match self.reread(&login.key, stale).await {
                Ok(Reread::Renewed) => Ok(()),
                // Just renewed, though it has ended already by this process's clock: its lifetime is a second, or the clock was set.
                Ok(Reread::Stale(login)) if !same(&login.tokens.access, stale) => Ok(()),
                Ok(Reread::Stale(_)) => outcome.and(Err(interrupted())),
                Err(error) => outcome.and(Err(error)),
            },
            None => self.refresh_here(&login.key, stale).await,
        };
        drop(held);
        outcome
    }

    /// The same, in this process: the token endpoint is asked under a lock that ends only with the process that asks.
    pub(super) async fn refresh_here(self: &Arc<Self>, key: &AccountKey, stale: &Secret) -> Outcome {
        let held = self.store.critical(&self.key, Critical::Redeem, OTHER_PROCESS).await;
        let held = held.map_err(|error| no_turn(&error))?;
        // Only now is it sure what the store says.
        let login = match self.reread(key, stale).await? {
            Reread::Renewed => return Ok(()),
            Reread::Stale(login) => login,
        };
        let found = self.metadata_for(&login).await?;
        let outcome = match self.redeem(&login, &found).await {
            Ok(renewed) => self.keep(renewed).await,
            Err(error) => self.judge_failure(&login, error).await,
        };
        drop(held);
        outcome
    }

    async fn reread(&self, key: &AccountKey, stale: &Secret) -> Result<Reread, AuthError> {
        let contents = self.store.snapshot().await.map_err(|error| not_stored(&error))?;
        let Some(account) = contents.account(key) else {
            // Logged out, by another process.
            self.state().login = None;
            return Err(ended());
        };
        let login = Arc::new(Login::restored(account, &contents, &self.options)?);
        self.state().login = Some(Arc::clone(&login));
        if !same(&login.tokens.access, stale) && !login.is_over(now()) {
            return Ok(Reread::Renewed);
        }
        Ok(Reread::Stale(login))
    }

    /// What is known of the authorization server that gave the tokens.
    async fn metadata_for(&self, login: &Login) -> Result<Arc<Found>, AuthError> {
        if let Some(found) = self.found().filter(|found| found.metadata.issuer.as_str() == login.key.issuer) {
            return Ok(found);
        }
        Ok(Arc::new(self.of_issuer(&login.key.issuer, &login.key.resource).await?))
    }

    async fn redeem(&self, login: &Login, found: &Found) -> Result<Login, AuthError> {
        let quirks = found.quirks();
        let request = grant::refresh_request(
            &found.metadata,
            &login.client,
            &login.tokens,
            found.resource.as_ref(),
            login.requested.as_ref().or(login.tokens.scope.as_ref()),
            quirks,
        )?;
        self.reserve().await?;
        let secrets: Vec<&Secret> = login.tokens.refresh.iter().chain(&login.client.secret).collect();
        let context = Context {
            metadata: &found.metadata,
            quirks,
            requested: login.requested.as_ref(),
            previous: Some(&login.tokens),
            dpop: false,
            secrets: &secrets,
        };
        let _busy = self.busy();
        let tokens = grant::redeem(&self.http, &request, &context).await?;
        Login::new(login.key.clone(), login.client.clone(), tokens, login.requested.clone(), now())
    }

    /// There must be room for the successor of the token that is redeemed.
    async fn reserve(&self) -> Result<(), AuthError> {
        let store = self.store.clone();
        let reserved = tokio::task::spawn_blocking(move || store.lock()?.reserve()).await;
        match reserved {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(not_stored(&error)),
            Err(_) => Err(not_stored(&StoreError::Interrupted)),
        }
    }

    /// On the disk first, then in use.
    async fn keep(&self, renewed: Login) -> Outcome {
        let _busy = self.busy();
        let (key, tokens, at) = (renewed.key.clone(), renewed.tokens(), renewed.obtained_at);
        match self.store.update(move |contents| contents.replace_tokens(&key, tokens, at)).await {
            Ok(true) => {}
            Ok(false) => {
                self.state().login = None;
                return Err(ended());
            }
            // The store keeps it in memory and has said so.
            Err(StoreError::NotSaved(_)) => {}
            Err(error) => tracing::warn!("The renewed token is kept by this process alone: {error}"),
        }
        self.state().login = Some(Arc::new(renewed));
        Ok(())
    }

    /// Only a definite refusal ends the login, and only if nobody else has renewed it meanwhile.
    async fn judge_failure(&self, login: &Login, error: AuthError) -> Outcome {
        let at = now();
        let key = login.key.clone();
        match error.fault() {
            Fault::GrantDead | Fault::ClientRejected | Fault::Refused if is_lost(login, &error) => {
                let rejected = (error.fault() == Fault::ClientRejected).then(|| login.client.id.clone());
                let spent = login.tokens.refresh.clone();
                let buried = self.store.update(move |contents| {
                    let current = contents.account(&key).and_then(|account| account.tokens.refresh.clone());
                    let is_it = matches!((&spent, &current), (Some(spent), Some(current)) if same(spent, current));
                    if is_it {
                        contents.bury_refresh_token(&key, at);
                    }
                    if let Some(client) = rejected {
                        contents.remove_registration(&key.issuer, &client);
                    }
                    is_it
                });
                match buried.await {
                    Ok(false) if self.adopt(Some(&login.tokens.access)).await => return Ok(()),
                    Ok(_) => {}
                    Err(error) => tracing::warn!("The end of the login cannot be stored: {error}"),
                }
                let mut without = login.clone();
                without.tokens.refresh = None;
                self.state().login = Some(Arc::new(without));
            }
            Fault::GrantDead | Fault::ClientRejected | Fault::Refused | Fault::Denied | Fault::Transient { .. } => {}
        }
        Err(error)
    }

    /// Until it is dropped, the process should not end.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.redeeming.send_modify(|count| *count += 1);
        Busy(self)
    }
}

pub(super) struct Busy<'a>(&'a Inner);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.redeeming.send_modify(|count| *count = count.saturating_sub(1));
    }
}

enum Reread {
    /// Somebody else did it.
    Renewed,
    /// It is for us to do.
    Stale(Arc<Login>),
}

/// A fault that passes, on this side of the token endpoint.
fn is_ours(error: &AuthError) -> bool {
    matches!(error.rule(), "store" | "renewal-elsewhere" | "interrupted")
}

/// Whether the refresh token is of no use from now on, and so must not be sent again.
fn is_lost(login: &Login, error: &AuthError) -> bool {
    match error.fault() {
        Fault::GrantDead => true,
        // RFC 6749 section 6: it is good for its client alone. With a registration that the authorization server does not know any more, it is
        // gone. A client of the user's own may be mended, and its token stays.
        Fault::ClientRejected => login.client.origin == Origin::Dynamic,
        // It was redeemed; what came for it cannot be used.
        _ => grant::is_unusable(error),
    }
}

pub(super) fn ended() -> AuthError {
    AuthError::new("signed-out", Mender::User, "you are signed out").with_fault(Fault::GrantDead)
}
