//! The sign-in by a person: one process holds it, the others wait (A5).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::begin::Begun;
use super::discover::Found;
use super::login::{self, Login, client_of, same};
use super::{Errand, Inner, Outcome, Stage, no_turn, not_stored, now};
use crate::auth::browser::{self, BrowserUrl};
use crate::auth::callback::{Expectation, RedirectUri, Reply, paste};
use crate::auth::error::{AuthError, Fault, Mender};
use crate::auth::grant::{self, Context, Expected, Pkce, TokenSet};
use crate::auth::redirect::{self, Callback};
use crate::auth::registration::{Client, Origin};
use crate::auth::scope::Scopes;
use crate::auth::wire::Post;
use crate::secret::Secret;
use crate::session::SignIn;
use crate::store::{AccountKey, Contents, Critical, CriticalLock, PENDING_LIFETIME, PendingSignIn, StoreError};

/// How often a process that waits for another one's sign-in looks, and one that holds a sign-in for what a `login` elsewhere did.
const LOOK: Duration = Duration::from_secs(1);
/// How long the process that took a pasted answer may need to redeem it.
const ELSEWHERE: Duration = Duration::from_secs(45);
/// The user's wish opens a browser that was opened already only after this time: a double click is one wish.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// A registration that was not good enough is not used again when the user asks a second time, after this time in seconds.
const FORGET_AFTER: u64 = 20;

/// Pauses before a busy token endpoint is asked again for the tokens of a sign-in.
const BUSY_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// The longest of them that the server may ask for. The browser waits.
const BUSY_MOST: Duration = Duration::from_secs(8);

/// The rule of a messenger that does not find the sign-in: the code is not spent.
const NO_SIGN_IN: &str = "no-sign-in";

/// Who opens the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// The bridge.
    Auto,
    /// Nobody: the address is told.
    Quiet,
    /// The user wants it.
    User,
}

enum Turn {
    /// Tokens came while we waited.
    SignedIn,
    /// It is for us.
    Ours(CriticalLock, Box<Contents>),
}

impl Inner {
    /// Signs in. `refused`: an access token that does not count.
    pub(super) async fn sign_in(
        self: &Arc<Self>,
        found: &Arc<Found>,
        scope: Option<Scopes>,
        opener: Opener,
        refused: Option<&Secret>,
    ) -> Outcome {
        self.stage.send_replace(Stage::Preparing);
        let outcome = self.in_turn(found, scope, opener, refused).await;
        let shown = matches!(*self.stage.borrow(), Stage::Waiting { .. });
        // A person did their part: a request that is repeated by itself would only ask for another, and hide the reason.
        let passes = |error: &AuthError| matches!(error.fault(), Fault::Transient { .. });
        let outcome =
            outcome.map_err(|error| if shown && passes(&error) { error.with_fault(Fault::Denied) } else { error });
        self.stage.send_replace(Stage::Off);
        match &outcome {
            Ok(()) => {
                let mut state = self.state();
                state.quiet = false;
                state.failure = None;
                drop(state);
                self.tell(SignIn::Done);
            }
            Err(error) => {
                // A person saw it and did not want it, or is not there.
                let mut state = self.state();
                state.quiet |= shown;
                state.failure = Some(error.to_string());
                drop(state);
                if shown || opener == Opener::User {
                    self.tell(SignIn::Ended { message: error.to_string().into(), hint: error.hint().map(Into::into) });
                }
            }
        }
        outcome
    }

    async fn in_turn(
        self: &Arc<Self>,
        found: &Arc<Found>,
        scope: Option<Scopes>,
        opener: Opener,
        refused: Option<&Secret>,
    ) -> Outcome {
        let Turn::Ours(lock, contents) = self.wait_for_turn(refused).await? else { return Ok(()) };
        let mut forget = None;
        let mut begun = None;
        if let Some(pending) = contents.pending(&self.key, now()) {
            let wanted = scope.clone().unwrap_or_default();
            let asked = pending.requested_scope.as_deref().map(Scopes::parse).unwrap_or_default();
            let fits = pending.issuer == found.metadata.issuer.as_str()
                && pending.resource == found.name.as_str()
                && asked.covers(&wanted);
            if fits {
                begun = self.take_over(pending, &contents).await;
            }
            if opener == Opener::User && now().abs_diff(pending.started_at) > FORGET_AFTER {
                // The person asks again; perhaps the authorization server did not know the client.
                forget = Some(pending.client_id.clone());
                begun = None;
            }
        }
        let begun = match begun {
            Some(mut begun) => {
                // Whoever began it may have died before the browser was started.
                let opened = begun.pending.browser_opened_at.is_some()
                    && self.store.is_tab_noted(&self.key, &Secret::new(begun.url.as_str()));
                let open = opener == Opener::User || (opener == Opener::Auto && !opened);
                if open {
                    self.mark_opened(&mut begun.pending).await;
                }
                self.wait_begins(&begun, open);
                begun
            }
            None => {
                let begun = self.begin_sign_in(found, scope.as_ref(), &contents, opener, forget.as_deref()).await?;
                self.wait_begins(&begun, opener != Opener::Quiet);
                begun
            }
        };
        drop(contents);
        let outcome = self.wait_for_person(begun, found, scope, refused).await;
        drop(lock);
        outcome
    }

    /// Until this process may sign in, or another one has.
    async fn wait_for_turn(self: &Arc<Self>, refused: Option<&Secret>) -> Result<Turn, AuthError> {
        let mut told: Option<Secret> = None;
        let mut wished = false;
        let mut waited = false;
        let before = self.store.snapshot().await.map_err(|error| not_stored(&error))?.sign_in_ended_at(&self.key);
        loop {
            let turn = tokio::select! {
                turn = self.store.critical(&self.key, Critical::SignIn, LOOK) => turn,
                () = self.wanted.notified() => {
                    wished = true;
                    Err(StoreError::Busy)
                }
            };
            let contents = self.store.snapshot().await.map_err(|error| not_stored(&error))?;
            let ended = contents.sign_in_ended_at(&self.key);
            if waited && ended.is_some() && ended != before && !self.adopt(refused).await {
                // A person had it and said no, or is not there: each window in turn would ask again.
                self.stage.send_replace(Stage::Waiting { quiet: false });
                return Err(AuthError::new("sign-in-ended", Mender::User, "the sign-in was ended in another window")
                    .with_fault(Fault::Denied)
                    .with_hint("sign in again"));
            }
            match turn {
                Ok(lock) => {
                    if self.adopt(refused).await {
                        return Ok(Turn::SignedIn);
                    }
                    return Ok(Turn::Ours(lock, Box::new(contents)));
                }
                Err(StoreError::Busy) => waited = true,
                Err(error) => return Err(not_stored(&error)),
            }
            if self.adopt(refused).await {
                return Ok(Turn::SignedIn);
            }
            // The other one's address is good for our client too.
            let Some(pending) = contents.pending(&self.key, now()) else { continue };
            let Some(url) = pending.authorization_url.clone() else { continue };
            if told.as_ref().is_none_or(|told| !same(told, &url)) {
                self.state().address = Some(url.clone());
                self.tell(SignIn::Wanted {
                    url: url.expose().into(),
                    advice: browser::advice_here(pending.redirect_port).into(),
                });
                self.stage.send_replace(Stage::Waiting { quiet: pending.browser_opened_at.is_none() });
                told = Some(url.clone());
            }
            // Whether the other one's browser came up, only the user knows.
            let just_now = pending.browser_opened_at.is_some_and(|at| now().abs_diff(at) < OPEN_AGAIN.as_secs());
            if std::mem::take(&mut wished)
                && !just_now
                && let Ok(url) = BrowserUrl::new(url.expose(), self.http.policy())
            {
                let mut pending = pending.clone();
                self.mark_opened(&mut pending).await;
                self.show(&url, pending.redirect_port, true);
            }
        }
    }

    fn wait_begins(self: &Arc<Self>, begun: &Begun, open: bool) {
        if !open {
            let opened = begun.pending.browser_opened_at.is_some();
            self.show(&begun.url, begun.pending.redirect_port, false);
            self.stage.send_replace(Stage::Waiting { quiet: !opened });
            return;
        }
        self.stage.send_replace(Stage::Waiting { quiet: false });
        self.show(&begun.url, begun.pending.redirect_port, true);
    }

    async fn mark_opened(&self, pending: &mut PendingSignIn) {
        pending.browser_opened_at = Some(now());
        let (key, kept, at) = (self.key.clone(), pending.clone(), now());
        // Not if it has just had its answer.
        let mark = self.store.update(move |contents| {
            if contents.pending(&key, at).is_some_and(|pending| same(&pending.state, &kept.state)) {
                contents.put_pending(&key, kept, at);
            }
        });
        if let Err(error) = mark.await {
            tracing::debug!("the sign-in's mark: {error}");
        }
    }

    async fn wait_for_person(
        self: &Arc<Self>,
        mut begun: Begun,
        found: &Arc<Found>,
        scope: Option<Scopes>,
        refused: Option<&Secret>,
    ) -> Outcome {
        let ends = begun.pending.started_at.saturating_add(PENDING_LIFETIME);
        let mut opened = Instant::now();
        let mut gone_since: Option<Instant> = None;
        loop {
            tokio::select! {
                Callback { reply, responder } = begun.serving.callback() => {
                    let outcome = self.complete(reply, &begun.pending, &begun.client, found, scope.as_ref()).await;
                    responder.finish(page_of(&outcome));
                    self.state().lingering = Some(begun.serving.linger());
                    return outcome;
                }
                () = self.wanted.notified() => {
                    if opened.elapsed() >= OPEN_AGAIN || *self.stage.borrow() == (Stage::Waiting { quiet: true }) {
                        opened = Instant::now();
                        self.mark_opened(&mut begun.pending).await;
                        self.wait_begins(&begun, true);
                    }
                }
                () = self.pasted.notified() => {
                    let failed = self.state().pasted.take();
                    if failed.is_some() || self.adopt(refused).await {
                        begun.serving.close().await;
                        return failed.map_or(Ok(()), Err);
                    }
                }
                () = sleep(LOOK) => {
                    if self.adopt(refused).await {
                        begun.serving.close().await;
                        return Ok(());
                    }
                    if now() >= ends {
                        self.forget_pending().await;
                        begun.serving.close().await;
                        return Err(run_out());
                    }
                    let still = match self.store.snapshot().await {
                        Ok(contents) => contents
                            .pending(&self.key, now())
                            .is_some_and(|pending| same(&pending.state, &begun.pending.state)),
                        Err(_) => true,
                    };
                    // Taken by a process where the answer was pasted: it redeems it now, or was told that it was denied.
                    gone_since = if still { None } else { gone_since.or_else(|| Some(Instant::now())) };
                    if gone_since.is_some_and(|since| since.elapsed() >= ELSEWHERE) {
                        begun.serving.close().await;
                        return Err(AuthError::new("sign-in-ended", Mender::User, "the sign-in was ended elsewhere")
                            .with_fault(Fault::Denied)
                            .with_hint("sign in again"));
                    }
                }
            }
        }
    }

    /// The answer came: judge it, redeem the code, keep the tokens.
    async fn complete(
        &self,
        reply: Reply,
        pending: &PendingSignIn,
        client: &Client,
        found: &Found,
        scope: Option<&Scopes>,
    ) -> Outcome {
        let expected = Expected { issuer: &pending.issuer, iss_in_response: found.metadata.iss_in_response };
        let outcome = match grant::callback::judge(reply, &expected) {
            // A fault that passes, but the code is spent or lost: to repeat the request would help nobody, and would hide the reason.
            Ok(code) => self.redeem_code(&code, pending, client, found, scope).await.map_err(AuthError::lasting),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.forget_pending().await;
        }
        outcome
    }

    /// By the messenger if there is one. A sign-in that was pasted is no longer in the store, where the messenger would look.
    async fn redeem_code(
        &self,
        code: &Secret,
        pending: &PendingSignIn,
        client: &Client,
        found: &Found,
        scope: Option<&Scopes>,
    ) -> Outcome {
        let errand = Errand::Exchange { code: code.expose().into(), state: pending.state.expose().into() };
        match self.send_messenger(errand).await {
            Some(Ok(())) => match self.take_stored(None, true).await {
                true => Ok(()),
                false => Err(super::interrupted()),
            },
            Some(Err(error)) if error.rule() != NO_SIGN_IN => Err(error),
            _ => self.exchange(code, pending, client, found, scope).await,
        }
    }

    /// The messenger's part. A browser that was left without an answer brings the same code again, to whoever has the port then; a code
    /// that comes twice ends the login that it began (RFC 6749 section 4.1.2). So one messenger redeems it, and the next finds the tokens.
    pub(super) async fn exchange_stored(self: &Arc<Self>, code: &Secret, state: &Secret) -> Outcome {
        let held = self.store.critical(&self.key, Critical::Redeem, ELSEWHERE).await;
        let _held = held.map_err(|error| no_turn(&error))?;
        let contents = self.store.snapshot().await.map_err(|error| not_stored(&error))?;
        let pending = contents.pending(&self.key, now()).filter(|pending| same(&pending.state, state)).cloned();
        let found = contents.discovery(&self.key).and_then(|kept| self.restore(kept));
        let (Some(pending), Some(found)) = (pending, found) else {
            let account = login::stored(&contents, &self.key, &self.server, contents.discovery(&self.key));
            if account.is_some_and(|account| account.is_of(state)) {
                return Ok(());
            }
            return Err(AuthError::new(NO_SIGN_IN, Mender::Nobody, "the sign-in is not in the store"));
        };
        if found.metadata.issuer.as_str() != pending.issuer {
            return Err(AuthError::new(NO_SIGN_IN, Mender::Nobody, "the sign-in is of another authorization server"));
        }
        let client = client_of(&pending.issuer, &pending.client_id, &contents, &self.options);
        drop(contents);
        self.exchange(code, &pending, &client, &found, None).await
    }

    async fn exchange(
        &self,
        code: &Secret,
        pending: &PendingSignIn,
        client: &Client,
        found: &Found,
        scope: Option<&Scopes>,
    ) -> Outcome {
        let quirks = found.quirks();
        let pkce = Pkce::restored(pending.verifier.clone());
        let resource = found.resource.as_ref();
        let request =
            grant::exchange_request(&found.metadata, client, code, &pkce, &pending.redirect_uri, resource, quirks)?;
        let requested = pending.requested_scope.as_deref().map(Scopes::parse).or_else(|| scope.cloned());
        let secrets: Vec<&Secret> = [code, pkce.verifier()].into_iter().chain(&client.secret).collect();
        let context = Context {
            metadata: &found.metadata,
            quirks,
            requested: requested.as_ref(),
            previous: None,
            dpop: false,
            secrets: &secrets,
        };
        let _busy = self.busy();
        let tokens = match self.redeem_patiently(&request, &context).await {
            Ok(tokens) => tokens,
            Err(error) => {
                // The user's own stays bound to its issuer.
                if error.fault() == Fault::ClientRejected && client.origin == Origin::Dynamic {
                    let (issuer, id) = (client.issuer.clone(), client.id.clone());
                    let _ = self.store.update(move |contents| contents.remove_registration(&issuer, &id)).await;
                }
                return Err(error);
            }
        };
        let key = AccountKey {
            issuer: found.metadata.issuer.as_str().to_owned(),
            resource: found.name.as_str().to_owned(),
            profile: self.key.profile.clone(),
        };
        let login = Login::new(key, client.clone(), tokens, requested, now())?;
        let (server, account, discovery, at) =
            (self.key.clone(), login.account_of(&pending.state), found.record(now()), login.obtained_at);
        let stored = self.store.update(move |contents| {
            contents.put_account(account, at);
            contents.put_discovery(&server, discovery);
            contents.remove_pending(&server);
        });
        match stored.await {
            Ok(()) | Err(StoreError::NotSaved(_)) => {}
            Err(error) => tracing::warn!("The sign-in is kept by this process alone: {error}"),
        }
        let mut state = self.state();
        state.login = Some(Arc::new(login));
        Ok(())
    }

    /// A person did their part, so a server that is busy for a moment is asked again. If it spent the code all the same, nothing is lost by
    /// that: there are no tokens of it.
    async fn redeem_patiently(&self, request: &Post, context: &Context<'_>) -> Result<TokenSet, AuthError> {
        for pause in BUSY_PAUSES {
            match grant::redeem(&self.http, request, context).await {
                Err(error) if error.rule() == "server-busy" => {
                    let asked = match error.fault() {
                        Fault::Transient { retry_after } => retry_after,
                        _ => None,
                    };
                    sleep(asked.unwrap_or(pause).min(BUSY_MOST)).await;
                }
                outcome => return outcome,
            }
        }
        grant::redeem(&self.http, request, context).await
    }

    async fn forget_pending(&self) {
        let (key, at) = (self.key.clone(), now());
        if let Err(error) = self.store.update(move |contents| contents.end_sign_in(&key, at)).await {
            tracing::debug!("the sign-in's end: {error}");
        }
    }

    /// Takes the answer that a person pasted, for a sign-in of this process or of any other.
    pub(super) async fn paste(self: &Arc<Self>, text: Secret) {
        if let Err(error) = self.pasted(&text).await {
            let mut message = error.to_string();
            if let Some(hint) = error.hint() {
                message = format!("{message}; {hint}");
            }
            self.tell(SignIn::NotTaken { message: message.into() });
        }
    }

    async fn pasted(self: &Arc<Self>, text: &Secret) -> Outcome {
        let contents = self.store.snapshot().await.map_err(|error| not_stored(&error))?;
        let not_taken = |message: String| AuthError::new("paste", Mender::User, message);
        let Some(pending) = contents.pending(&self.key, now()).cloned() else {
            return Err(not_taken("no sign-in is under way".into()).with_hint("begin one, then paste its answer"));
        };
        let redirect = RedirectUri::read(&pending.redirect_uri)
            .ok_or_else(|| not_taken("the sign-in under way is not one of this version".into()))?;
        let expected = Expectation::new(redirect, pending.state.clone());
        let reply = paste::judge_paste(text.expose(), &expected).map_err(|error| not_taken(error.to_string()))?;
        let client = client_of(&pending.issuer, &pending.client_id, &contents, &self.options);
        let known = self.found().filter(|found| found.metadata.issuer.as_str() == pending.issuer);
        let found =
            match known.or_else(|| contents.discovery(&self.key).and_then(|kept| self.restore(kept)).map(Arc::new)) {
                Some(found) if found.metadata.issuer.as_str() == pending.issuer => found,
                _ => Arc::new(self.of_issuer(&pending.issuer, &pending.resource).await?),
            };
        drop(contents);
        // An `iss` that does not fit leaves the sign-in to whoever has the right answer.
        let expected = Expected { issuer: &pending.issuer, iss_in_response: found.metadata.iss_in_response };
        if let Err(error) = grant::callback::judge(reply.clone(), &expected)
            && error.rule() == "callback-issuer"
        {
            return Err(error);
        }
        // Whoever takes it out of the store redeems it: a code is used once.
        let (key, state, at) = (self.key.clone(), pending.state.clone(), now());
        let taken = self.store.update(move |contents| contents.take_pending(&key, state.expose(), at).is_some());
        if !taken.await.map_err(|error| not_stored(&error))? {
            return Err(not_taken("this sign-in has had its answer".into()));
        }
        let outcome = self.complete(reply, &pending, &client, &found, None).await;
        if outcome.is_ok() {
            self.state().found = Some(found);
        }
        if *self.stage.borrow() == Stage::Off {
            if outcome.is_ok() {
                self.tell(SignIn::Done);
            }
        } else {
            // The work that waits for a person says what became of it.
            self.state().pasted = outcome.as_ref().err().cloned();
            self.pasted.notify_one();
        }
        outcome
    }
}

fn page_of(outcome: &Outcome) -> redirect::Outcome {
    match outcome {
        Ok(()) => redirect::Outcome::Success,
        Err(error) if error.rule() == "access-denied" => redirect::Outcome::Denied,
        Err(error) => redirect::Outcome::Failed { reason: error.to_string() },
    }
}

fn run_out() -> AuthError {
    AuthError::new("sign-in-expired", Mender::User, "nobody signed in within 15 minutes")
        .with_fault(Fault::Denied)
        .with_hint("sign in again")
}
