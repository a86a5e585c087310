//! Who asks for tokens, when, and who else waits for them: sign-in and renewal, once for all requests, processes and clients.
//!
//! What it promises (product rules A5, A6, A7):
//!
//! - **One at a time.** In a process there is at most one piece of [work](Job) under way; every request that needs its outcome waits for the
//!   same one. Over processes, a refresh token is redeemed under a lock of its server, after the store was read again: whoever comes
//!   second finds the new token. A sign-in is held by one process; the others wait, and when it dies one of them takes over its port, state and
//!   verifier from the store.
//! - **Nothing short of a definite refusal ends a login.** A 5xx or a dead network fails the request, not the login.
//! - **No tab without reason.** The first sign-in of a process opens the browser. After one that was denied or ran out, only the user's
//!   own wish ([`Wish::Begin`]) opens another; requests are told the address.
//! - **A request goes round a bounded number of times** ([`Attempt`]).
//!
//! A fresh token costs a look at the clock. The work runs in tasks of its own: a client that cancels its request does not tear a redemption apart.

mod begin;
mod discover;
mod errand;
mod login;
mod manual;
mod renew;
mod sign_in;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

use self::discover::Found;
use self::login::{Login, same};
use self::renew::Pause;
use self::sign_in::Opener;
use super::challenge::{self, Challenge};
use super::error::{AuthError, Fault, Mender};
use super::options::Options;
use super::scope::{self, Scopes, Sources};
use crate::http::HttpClient;
use crate::secret::Secret;
use crate::session::{SignIn, Wish};
use crate::store::{ServerKey, Store, StoreError, StorePlace};

pub use self::errand::{Errand, Messenger};
pub use self::manual::{LoggedIn, LoggedOut};

/// Sign-ins and step-ups that one request may cause (A3).
const MAX_AUTHORIZATIONS: u32 = 3;
/// Times that one request may be repeated with another token, whoever got it.
const MAX_REPEATS: u32 = 6;
/// Sign-ins that may open a tab by themselves within [`TABS_WITHIN`], in one process.
const MAX_TABS: usize = 5;
/// See [`MAX_TABS`].
const TABS_WITHIN: Duration = Duration::from_secs(600);
/// How long a server that has no authorization server is not looked at again.
const NOTHING_THERE: Duration = Duration::from_secs(60);
/// The rule of a server that refuses and says no way to sign in.
const NO_AUTHORIZATION_SERVER: &str = "no-authorization-server";
/// How long a keyring that asks its user is waited for when the program starts.
const KEYRING_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at such a keyring.
const KEYRING_PAUSE: Duration = Duration::from_millis(500);

/// Gets and renews the tokens for one server. Clones are one.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

/// How often one request has gone round. Each request begins with a new one.
#[derive(Debug, Default)]
pub struct Attempt {
    repeats: u32,
    authorizations: u32,
    /// The token that was asked for in this attempt: one that is refused too was not too old.
    obtained: Option<Secret>,
    /// A person has signed in for it.
    signed_in: bool,
}

/// What to do with a request that was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again with [`Authorizer::credential`].
    Repeat,
    /// The refusal is the answer: no token would change it.
    PassOn,
}

struct Inner {
    http: HttpClient,
    server: Url,
    key: ServerKey,
    options: Arc<Options>,
    store: Store,
    news: mpsc::UnboundedSender<SignIn>,
    state: Mutex<State>,
    /// Where the sign-in is.
    stage: watch::Sender<Stage>,
    /// The user wants the browser to be opened.
    wanted: Notify,
    /// What was pasted into this process has come to something.
    pasted: Notify,
    /// Asks token endpoints in a process of its own.
    messenger: Option<Messenger>,
    /// Answers of a token endpoint that are under way: the process should not end before they are stored.
    redeeming: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    loaded: bool,
    login: Option<Arc<Login>>,
    found: Option<Arc<Found>>,
    work: Option<watch::Receiver<Option<Outcome>>>,
    client: Option<Box<str>>,
    /// Where the person signs in. It holds the sign-in's `state`.
    address: Option<Secret>,
    /// The port of a sign-in that has ended, still open for reloads of its page.
    lingering: Option<JoinHandle<()>>,
    /// What was pasted ended the sign-in so.
    pasted: Option<AuthError>,
    /// What became of the last sign-in, if it came to nothing.
    failure: Option<String>,
    /// After a refresh that failed for a while.
    pause: Option<Pause>,
    /// The access token that cannot be renewed: the authorization server said so.
    refused: Option<Secret>,
    /// A server without any authorization server is not asked for one all the time.
    no_sign_in_until: Option<Instant>,
    /// When sign-ins began that open a tab by themselves.
    tabs: Vec<Instant>,
    /// A sign-in came to nothing in this process: no more tabs without the user.
    quiet: bool,
}

type Outcome = Result<(), AuthError>;

/// How far the sign-in is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Off,
    /// The address is not known yet.
    Preparing,
    /// A person is waited for.
    Waiting {
        /// No browser was opened, and nobody is expected to look: requests do not wait.
        quiet: bool,
    },
}

/// A piece of work. At most one is under way.
#[derive(Debug)]
enum Job {
    /// The token is due.
    Refresh { stale: Secret },
    /// The server refused the token, or wants one. `refresh`: it may be renewed without a person.
    Renew { refused: Option<Secret>, challenge: Option<Challenge>, opener: Option<Opener>, refresh: bool },
    /// The server wants more scope (2026-07-28 "Step-Up Authorization Flow").
    StepUp { refused: Secret, challenge: Challenge },
}

impl Authorizer {
    /// For one server. Nothing happens yet: neither the store nor the network is touched. `server_text` is the URL as the user typed it;
    /// news of sign-ins go to `news`; `messenger` asks token endpoints, this process does where there is none.
    pub fn new(
        http: HttpClient,
        server: Url,
        server_text: String,
        options: Arc<Options>,
        store: Store,
        news: mpsc::UnboundedSender<SignIn>,
        messenger: Option<Messenger>,
    ) -> Self {
        let key = ServerKey { server: server_text, profile: options.profile.clone() };
        let inner = Inner {
            http,
            server,
            key,
            options,
            store,
            news,
            state: Mutex::default(),
            stage: watch::Sender::new(Stage::Off),
            wanted: Notify::new(),
            pasted: Notify::new(),
            messenger,
            redeeming: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The value of `Authorization` for the next request; `None`: there is no token, and the server has not asked for one.
    ///
    /// A token that has ended is renewed first. One that will end soon is renewed beside the request.
    pub async fn credential(&self) -> Result<Option<HeaderValue>, AuthError> {
        self.inner.load().await;
        let Some(login) = self.inner.login() else { return Ok(None) };
        let now = now();
        if !login.is_due(now) || login.tokens.refresh.is_none() || self.inner.is_refused(&login.tokens.access) {
            return Ok(Some(login.header.clone()));
        }
        let job = Job::Refresh { stale: login.tokens.access.clone() };
        if !login.is_over(now) {
            if !self.inner.is_in_trouble() {
                drop(self.begin(job));
            }
            return Ok(Some(login.header.clone()));
        }
        self.inner.wait_out_trouble().await;
        match self.work(job).await {
            // The server is asked with what there is; its refusal leads to a sign-in.
            Err(error) if matches!(error.fault(), Fault::Transient { .. }) => return Err(error),
            Err(error) if !self.inner.is_refused(&login.tokens.access) => return Err(error),
            _ => {}
        }
        Ok(self.inner.login().map(|login| login.header.clone()))
    }

    /// The server answered `status`, 401 or 403, to a request with the credential `used`. Waits until there is another one.
    ///
    /// `may_sign_in`: somebody waits for the request, so that a person may be asked. `challenges`: the values of `WWW-Authenticate`.
    pub async fn challenged<'a>(
        &self,
        attempt: &mut Attempt,
        used: Option<&HeaderValue>,
        status: u16,
        challenges: impl IntoIterator<Item = &'a [u8]>,
        may_sign_in: bool,
    ) -> Result<Verdict, AuthError> {
        let parsed = challenge::parse(challenges);
        let challenge = challenge::select(&parsed);
        let wants_more = challenge.is_some_and(Challenge::is_insufficient_scope);
        if status == 403 && !wants_more {
            return Ok(Verdict::PassOn);
        }
        attempt.repeats += 1;
        if attempt.repeats > MAX_REPEATS {
            return Err(self.inner.refused_again(used.is_some()));
        }
        let login = self.inner.login();
        if login.as_ref().map(|login| &login.header) != used {
            // Somebody else has seen to it meanwhile.
            return Ok(Verdict::Repeat);
        }
        if login.is_none() && self.inner.state().no_sign_in_until.is_some_and(|until| Instant::now() < until) {
            return Ok(Verdict::PassOn);
        }
        let refused = login.as_ref().map(|login| login.tokens.access.clone());
        let interactive = may_sign_in || *self.inner.stage.borrow() != Stage::Off;
        let job = match (challenge, refused) {
            (Some(challenge), Some(refused)) if wants_more && may_sign_in => {
                let granted = login.as_ref().and_then(|login| login.tokens.scope.as_ref());
                let wanted = challenge.scope.as_deref().map(Scopes::parse);
                attempt.authorizations += 1;
                if attempt.authorizations > MAX_AUTHORIZATIONS {
                    self.inner.state().quiet = true;
                    return Ok(Verdict::PassOn);
                }
                if !scope::step_up_may_help(granted, wanted.as_ref()) {
                    return Ok(Verdict::PassOn);
                }
                Job::StepUp { refused, challenge: challenge.clone() }
            }
            _ if wants_more => return Ok(Verdict::PassOn),
            (challenge, refused) => {
                if let (Some(refused), Some(obtained)) = (&refused, &attempt.obtained)
                    && same(refused, obtained)
                {
                    attempt.authorizations += 1;
                    if attempt.authorizations >= MAX_AUTHORIZATIONS {
                        return Err(self.inner.refused_again(true));
                    }
                }
                if refused.is_none() && !interactive {
                    return Ok(Verdict::PassOn);
                }
                // Renewed tokens that are all refused: the person must say it anew. If they just did, another tab would not help.
                let refresh = attempt.authorizations < MAX_AUTHORIZATIONS - 1 || attempt.signed_in || !may_sign_in;
                let opener = may_sign_in.then_some(Opener::Auto);
                Job::Renew { refused, challenge: challenge.cloned(), opener, refresh }
            }
        };
        let renews =
            matches!(&job, Job::Renew { refused: Some(access), refresh: true, .. } if self.inner.can_renew(access));
        if renews {
            self.inner.wait_out_trouble().await;
        }
        let asked_for = self.inner.login().map(|login| login.tokens.access.clone());
        match self.work(job).await {
            Err(error) if error.rule() == NO_AUTHORIZATION_SERVER => return Ok(Verdict::PassOn),
            outcome => outcome?,
        }
        attempt.signed_in |= !renews || asked_for.is_some_and(|access| self.inner.is_refused(&access));
        attempt.obtained = self.inner.login().map(|login| login.tokens.access.clone());
        Ok(Verdict::Repeat)
    }

    /// Waits until a sign-in by a person is under way.
    pub async fn person_wanted(&self) {
        let mut stage = self.inner.stage.subscribe();
        if stage.wait_for(|stage| *stage != Stage::Off).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the session wants of the sign-in. Returns at once.
    pub fn wish(&self, wish: Wish) {
        match wish {
            Wish::Client(name) => self.inner.state().client = Some(name),
            Wish::Paste(text) => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move { inner.paste(Secret::new(text)).await });
            }
            Wish::Begin => {
                self.inner.store.try_again();
                if matches!(*self.inner.stage.borrow(), Stage::Waiting { .. }) {
                    self.inner.wanted.notify_one();
                    return;
                }
                let refused = self.inner.login().map(|login| login.tokens.access.clone());
                let job = Job::Renew { refused, challenge: None, opener: Some(Opener::User), refresh: false };
                drop(self.begin(job));
            }
        }
    }

    /// Waits until no answer of a token endpoint is on its way to the store, or `most` has passed: a refresh token that was redeemed and whose
    /// successor is not kept is a login that is lost.
    pub async fn settle(&self, most: Duration) {
        let mut redeeming = self.inner.redeeming.subscribe();
        let _ = tokio::time::timeout(most, redeeming.wait_for(|count| *count == 0)).await;
    }

    /// Does the work, or waits for the one that is under way. Afterwards the caller looks whether there is another token.
    async fn work(&self, job: Job) -> Outcome {
        let mut outcome = self.begin(job);
        let mut stage = self.inner.stage.subscribe();
        tokio::select! {
            biased;
            done = outcome.wait_for(Option::is_some) => {
                done.ok().and_then(|done| done.clone()).unwrap_or_else(|| Err(interrupted()))
            }
            _ = stage.wait_for(|stage| *stage == Stage::Waiting { quiet: true }) => Err(wanted(&self.inner)),
        }
    }

    fn begin(&self, job: Job) -> watch::Receiver<Option<Outcome>> {
        let mut state = self.inner.state();
        if let Some(work) = &state.work {
            return work.clone();
        }
        let (sender, receiver) = watch::channel(None);
        state.work = Some(receiver.clone());
        drop(state);
        let done = Done { inner: Arc::clone(&self.inner), sender };
        tokio::spawn(async move {
            let outcome = done.inner.carry_out(job).await;
            done.finish(outcome);
        });
        receiver
    }
}

/// Ends the work also when its task is gone.
struct Done {
    inner: Arc<Inner>,
    sender: watch::Sender<Option<Outcome>>,
}

impl Done {
    fn finish(self, outcome: Outcome) {
        if let Err(error) = &outcome {
            tracing::debug!("rule {}: {error}", error.rule());
        }
        self.inner.state().work = None;
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.inner.state().work = None;
            self.inner.stage.send_replace(Stage::Off);
            self.sender.send_replace(Some(Err(interrupted())));
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self) -> Option<Arc<Login>> {
        self.state().login.clone()
    }

    fn found(&self) -> Option<Arc<Found>> {
        self.state().found.clone()
    }

    fn tell(&self, news: SignIn) {
        // Nobody listens any more when the program ends.
        let _ = self.news.send(news);
    }

    /// Reads the stored sign-in, once in a process.
    async fn load(&self) {
        if self.state().loaded {
            return;
        }
        if self.store.status().place == StorePlace::Empty {
            // Without a thread for it: the common case of a server that wants no sign-in.
            self.state().loaded = true;
            return;
        }
        let begun = Instant::now();
        let contents = loop {
            match self.store.snapshot().await {
                Ok(contents) => break contents,
                Err(StoreError::KeyringWaiting) if begun.elapsed() < KEYRING_PATIENCE => {
                    tokio::time::sleep(KEYRING_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!("The stored sign-ins cannot be read: {error}");
                    self.state().loaded = true;
                    return;
                }
            }
        };
        let kept = contents.discovery(&self.key);
        let account = login::stored(&contents, &self.key, &self.server, kept);
        let login = account.and_then(|account| Login::restored(account, &contents, &self.options).ok()).map(Arc::new);
        let found = kept.and_then(|kept| self.restore(kept)).map(Arc::new);
        let mut state = self.state();
        if !state.loaded {
            state.loaded = true;
            state.login = login;
            state.found = found;
        }
    }

    async fn carry_out(self: &Arc<Self>, job: Job) -> Outcome {
        self.load().await;
        match job {
            Job::Refresh { stale } => self.refresh(&stale).await,
            Job::Renew { refused, challenge, opener, refresh } => {
                self.renew(refused.as_ref(), challenge.as_ref(), opener, refresh).await
            }
            Job::StepUp { refused, challenge } => {
                let found = self.rediscover(Some(&challenge)).await?;
                let requested = self.login().and_then(|login| login.requested.clone());
                let granted = self.login().and_then(|login| login.tokens.scope.clone());
                let before = match (requested, granted) {
                    (Some(requested), Some(granted)) => Some(requested.union(&granted)),
                    (requested, granted) => requested.or(granted),
                };
                let challenged = challenge.scope.as_deref().map(Scopes::parse);
                let scope = scope::step_up(before.as_ref(), &Self::sources(&found, challenged.as_ref(), None));
                self.sign_in(&found, scope, self.opener(Opener::Auto), Some(&refused)).await
            }
        }
    }

    /// The token was refused, or there is none.
    async fn renew(
        self: &Arc<Self>,
        refused: Option<&Secret>,
        challenge: Option<&Challenge>,
        opener: Option<Opener>,
        refresh: bool,
    ) -> Outcome {
        // Another process may have renewed it.
        if self.adopt(refused).await {
            self.tell(SignIn::Done);
            return Ok(());
        }
        let found = self.rediscover(challenge).await.inspect_err(|error| self.note_failure(error, opener))?;
        if let Some(login) = self.login()
            && refresh
            && login.key.issuer == found.metadata.issuer.as_str()
            && self.can_renew(&login.tokens.access)
        {
            match self.refresh(&login.tokens.access).await {
                Err(error) if self.is_refused(&login.tokens.access) => {
                    tracing::info!("The login has ended: {error}");
                }
                outcome => return outcome,
            }
        }
        let Some(opener) = opener else {
            return Err(AuthError::new("no-token", Mender::User, "there is no token that the server takes"));
        };
        let configured = self.options.scopes();
        let challenged = challenge.and_then(|challenge| challenge.scope.as_deref()).map(Scopes::parse);
        let scope = scope::select(&Self::sources(&found, challenged.as_ref(), configured.as_ref()));
        let outcome = self.sign_in(&found, scope, self.opener(opener), refused).await;
        match outcome {
            // We only guessed that there is an authorization server, and there is none.
            Err(error)
                if found.metadata.guessed
                    && challenge.is_none()
                    && error.fault() == Fault::Refused
                    && self.state().address.is_none() =>
            {
                self.state().no_sign_in_until = Some(Instant::now() + NOTHING_THERE);
                tracing::debug!("sign-in was only guessed at: {error}");
                let message = "the server answers 401 and publishes no way to sign in";
                Err(AuthError::new(NO_AUTHORIZATION_SERVER, Mender::Server, message).with_hint(
                    "if it wants a key, give the bridge --header 'Authorization: Bearer ${TOKEN}'; else its owner must mend it",
                ))
            }
            outcome => outcome,
        }
    }

    /// A sign-in that the user asked for, and that cannot begin, is an answer too.
    fn note_failure(&self, error: &AuthError, opener: Option<Opener>) {
        if opener == Some(Opener::User) {
            self.tell(SignIn::Ended { message: error.to_string().into(), hint: error.hint().map(Into::into) });
        }
    }

    /// Asks the server again who may be asked: it may have changed its mind (2026-07-28 "Authorization Server Binding").
    async fn rediscover(&self, challenge: Option<&Challenge>) -> Result<Arc<Found>, AuthError> {
        let before = self.found();
        let known: Vec<&str> = before.iter().map(|found| found.metadata.issuer.as_str()).collect();
        let found = Arc::new(self.discover(challenge, &known).await?);
        self.state().found = Some(Arc::clone(&found));
        Ok(found)
    }

    fn sources<'a>(found: &'a Found, challenge: Option<&'a Scopes>, configured: Option<&'a Scopes>) -> Sources<'a> {
        Sources {
            configured,
            challenge,
            resource: found.scopes.as_ref(),
            authorization_server: found.metadata.scopes_supported.as_ref(),
            no_offline_access: found.quirks().no_offline_access,
        }
    }

    /// Who opens the browser, after all that was. A server whose authorization server signs in without a person may ask for more scope with
    /// each request: after some tabs in a row it takes the user's wish.
    fn opener(&self, wanted: Opener) -> Opener {
        if wanted != Opener::Auto {
            return wanted;
        }
        let mut state = self.state();
        let now = Instant::now();
        state.tabs.retain(|opened| now.duration_since(*opened) < TABS_WITHIN);
        if state.quiet || state.tabs.len() >= MAX_TABS {
            return Opener::Quiet;
        }
        state.tabs.push(now);
        wanted
    }

    /// A token that has just been got is refused like the one before. Nothing is to be expected of another sign-in, so a server cannot open a
    /// tab with every request.
    fn refused_again(&self, with_token: bool) -> AuthError {
        self.state().quiet = true;
        let message = if with_token {
            "the server refuses a token that its authorization server has just given"
        } else {
            "the server wants a token and then does not take it"
        };
        let error = AuthError::new("token-refused", Mender::Server, message);
        match self.found().and_then(|found| found.quirks().refused_token_hint) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// Takes over what another process has stored, if it is not what was refused. `true`: there is another token.
    async fn adopt(&self, refused: Option<&Secret>) -> bool {
        self.take_stored(refused, false).await
    }

    /// `also_over`: it was stored a moment ago, so a lifetime of a second, or a clock that was set, does not matter.
    async fn take_stored(&self, refused: Option<&Secret>, also_over: bool) -> bool {
        let Ok(contents) = self.store.snapshot().await else { return false };
        let account = login::stored(&contents, &self.key, &self.server, contents.discovery(&self.key));
        let Some(account) = account else { return false };
        let is_news = refused.is_none_or(|refused| !same(refused, &account.tokens.access));
        let Ok(login) = Login::restored(account, &contents, &self.options) else { return false };
        if !is_news || (login.is_over(now()) && !also_over) {
            return false;
        }
        self.state().login = Some(Arc::new(login));
        true
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").field("stage", &*self.inner.stage.borrow()).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn interrupted() -> AuthError {
    AuthError::new("interrupted", Mender::Nobody, "the sign-in was interrupted")
        .with_fault(Fault::Transient { retry_after: None })
}

fn wanted(inner: &Inner) -> AuthError {
    let host = inner.server.host_str().unwrap_or_default();
    let state = inner.state();
    let before = match &state.failure {
        Some(failure) => format!(" (the last time: {failure})"),
        None => String::new(),
    };
    let message = match &state.address {
        // It is the person's own, and the person is who reads this.
        Some(address) => {
            format!("{host} wants you to sign in{before}. Open this address in a browser: {}", address.expose())
        }
        None => format!("{host} wants you to sign in{before}"),
    };
    AuthError::new("sign-in-wanted", Mender::User, message)
        .with_fault(Fault::Denied)
        .with_hint("sign in, then try again")
}

/// A lock that another process holds for longer than one should: its authorization server is slow, or it was stopped.
fn no_turn(error: &StoreError) -> AuthError {
    if !matches!(error, StoreError::Busy) {
        return not_stored(error);
    }
    AuthError::new(
        "renewal-elsewhere",
        Mender::Nobody,
        "another window asks the authorization server for the token, and has no answer yet",
    )
    .with_fault(Fault::Transient { retry_after: None })
    .with_hint("try again in a while")
}

fn not_stored(error: &StoreError) -> AuthError {
    AuthError::new("store", Mender::User, format!("the sign-in cannot be stored: {error}"))
        .with_fault(Fault::Transient { retry_after: None })
}
