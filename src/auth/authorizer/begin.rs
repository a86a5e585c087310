//! A sign-in that begins, or is taken over from a process that died: a port that is ours, a client, an address for the person.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::discover::Found;
use super::login::{bound, client_of, registered, registration};
use super::sign_in::Opener;
use super::{Inner, Stage, not_stored, now};
use crate::auth::browser::{self, BrowserUrl};
use crate::auth::callback::CallbackPath;
use crate::auth::error::{AuthError, Mender};
use crate::auth::grant::authorize::RANDOM_BYTES;
use crate::auth::grant::{self, AuthorizationRequest, Pkce};
use crate::auth::page::Names;
use crate::auth::redirect::{Listener, PortChoice, Serving, Settings};
use crate::auth::registration::{self as register, Choice, Client, Plan, Registration};
use crate::auth::scope::Scopes;
use crate::secret::Secret;
use crate::session::SignIn;
use crate::store::{Contents, Extra, PendingSignIn};

/// What this program calls itself at an authorization server.
const NAME: &str = "mcp-drawbridge";
/// Characters of the client's name in it.
const MAX_CLIENT_NAME: usize = 60;

/// A sign-in that waits for its person.
pub(super) struct Begun {
    pub(super) serving: Serving,
    pub(super) pending: PendingSignIn,
    pub(super) client: Client,
    pub(super) url: BrowserUrl,
}

impl Inner {
    /// Goes on with a sign-in that another process began: the same port, state and address. `None` when it cannot be had.
    pub(super) async fn take_over(&self, pending: &PendingSignIn, contents: &Contents) -> Option<Begun> {
        let text = pending.authorization_url.as_ref()?;
        let url = BrowserUrl::new(text.expose(), self.http.policy()).ok()?;
        let listener = self.listen(PortChoice::Exact(pending.redirect_port)).await.ok()?;
        if listener.redirect_uri().to_string() != pending.redirect_uri {
            return None;
        }
        let client = client_of(&pending.issuer, &pending.client_id, contents, &self.options);
        let serving = listener.serve(pending.state.clone(), self.page_settings());
        Some(Begun { serving, pending: pending.clone(), client, url })
    }

    /// Begins anew: first the port, then its redirect URI is named, then all is stored; the browser is the caller's.
    pub(super) async fn begin_sign_in(
        &self,
        found: &Arc<Found>,
        scope: Option<&Scopes>,
        contents: &Contents,
        opener: Opener,
        forget: Option<&str>,
    ) -> Result<Begun, AuthError> {
        let listener = self
            .listen(self.port())
            .await
            .map_err(|error| AuthError::new("callback-port", Mender::User, error.to_string()))?;
        let redirect_uri = listener.redirect_uri().to_string();
        let client = self.client(found, &redirect_uri, scope, contents, forget).await?;
        let state = grant::state(&random()?);
        let pkce = Pkce::new(&random()?);
        let request = AuthorizationRequest {
            metadata: &found.metadata,
            client: &client,
            redirect_uri: &redirect_uri,
            scope,
            state: &state,
            pkce: &pkce,
            resource: found.resource.as_ref(),
            quirks: found.quirks(),
            extra: &self.options.authorize_params,
        };
        let policy = self.http.policy();
        let url = grant::authorization_url(&request, policy)?;
        let url = BrowserUrl::new(url.as_str(), policy).map_err(|refusal| {
            AuthError::from_policy(refusal, Mender::AuthorizationServer, "the authorization_endpoint")
        })?;
        let at = now();
        let pending = PendingSignIn {
            state: state.clone(),
            verifier: pkce.verifier().clone(),
            issuer: found.metadata.issuer.as_str().to_owned(),
            resource: found.name.as_str().to_owned(),
            client_id: client.id.clone(),
            redirect_uri,
            redirect_port: listener.redirect_uri().port(),
            requested_scope: scope.map(ToString::to_string),
            authorization_url: Some(Secret::new(url.as_str())),
            started_at: at,
            // Before it is opened: others see at once that requests may wait. Whether it was is what `Store::note_tab` says.
            browser_opened_at: (opener != Opener::Quiet).then_some(at),
            extra: Extra::default(),
        };
        self.store_pending(&pending, found, &client).await?;
        let serving = listener.serve(state, self.page_settings());
        Ok(Begun { serving, pending, client, url })
    }

    /// Says the address, and opens the browser where it may. Does not wait for the browser: one that answers at once is heard at once.
    pub(super) fn show(self: &Arc<Self>, url: &BrowserUrl, port: u16, open: bool) {
        self.state().address = Some(Secret::new(url.as_str()));
        let tell = |advice: &str| SignIn::Wanted { url: url.as_str().into(), advice: advice.into() };
        if !open {
            return self.tell(tell(&browser::advice_here(port)));
        }
        let plan = browser::plan_here(port);
        if let browser::Plan::NotPossible { why, advice } = &plan {
            tracing::debug!("no browser: {why:?}");
            return self.tell(tell(advice));
        }
        self.tell(tell(""));
        let (inner, url) = (Arc::clone(self), url.clone());
        tokio::spawn(async move {
            inner.store.note_tab(&inner.key, &Secret::new(url.as_str()));
            match browser::open(&url, &plan).await {
                browser::Outcome::Opened { program } => tracing::debug!("opened with {}", program.display()),
                browser::Outcome::NotPossible { advice, .. } => inner.no_browser(&url, advice),
                browser::Outcome::Failed { tried, advice } => {
                    tracing::warn!("No browser could be opened: {}", tried.join("; "));
                    inner.no_browser(&url, advice);
                }
            }
        });
    }

    /// Says the address again, if it is still the one.
    fn no_browser(&self, url: &BrowserUrl, advice: String) {
        if matches!(*self.stage.borrow(), Stage::Waiting { .. }) {
            self.tell(SignIn::Wanted { url: url.as_str().into(), advice: advice.into() });
        }
    }

    async fn listen(&self, port: PortChoice) -> Result<Listener, crate::auth::redirect::BindError> {
        let before = self.state().lingering.take();
        if let Some(before) = before {
            // The same port again: its redirect URI is registered.
            before.abort();
            let _ = before.await;
        }
        let path: CallbackPath = self.options.callback_path.clone();
        Listener::bind(self.options.redirect_host, path, port).await
    }

    /// A redirect URI that somebody wrote down elsewhere has one port.
    fn port(&self) -> PortChoice {
        let options = &self.options;
        match options.callback_port {
            Some(port) => PortChoice::Exact(port),
            None if options.client_info.is_some() || options.client_metadata_url.is_some() => {
                PortChoice::Exact(options.derived_port)
            }
            None => PortChoice::Derived(options.derived_port),
        }
    }

    async fn client(
        &self,
        found: &Found,
        redirect_uri: &str,
        scope: Option<&Scopes>,
        contents: &Contents,
        forget: Option<&str>,
    ) -> Result<Client, AuthError> {
        let own = self.options.client_info.as_ref().map(|own| bound(own, contents));
        let choice = Choice { pre_registered: own.as_ref(), metadata_url: self.options.client_metadata_url.as_deref() };
        if let Plan::Ready(client) = register::plan(choice, &found.metadata)? {
            return Ok(client);
        }
        let known = contents.registration(found.metadata.issuer.as_str(), Some(redirect_uri), now());
        if let Some(known) = known.filter(|known| Some(&*known.client_id) != forget) {
            return Ok(registered(known));
        }
        let name = self.name();
        let redirect_uris = [redirect_uri.to_owned()];
        let wanted = Registration {
            client_name: &name,
            redirect_uris: &redirect_uris,
            scope,
            extra: self.options.client_metadata.as_ref(),
        };
        register::register(&self.http, &found.metadata, &wanted).await
    }

    async fn store_pending(&self, pending: &PendingSignIn, found: &Found, client: &Client) -> Result<(), AuthError> {
        let scope = pending.requested_scope.as_deref().map(Scopes::parse);
        let mut kept = registration(client, &pending.redirect_uri, scope.as_ref(), pending.started_at);
        if client.origin == register::Origin::PreRegistered {
            // Its issuer is kept, not what the user gives with every start.
            kept.client_secret = None;
            kept.secret_expires_at = None;
            // Without the flag it is not to be taken for one that we registered.
            kept.redirect_uris.clear();
        }
        let keep_client = client.origin != register::Origin::MetadataDocument;
        let (key, pending, discovery) = (self.key.clone(), pending.clone(), found.record(pending.started_at));
        let stored = self.store.update(move |contents| {
            if keep_client {
                contents.put_registration(kept);
            }
            contents.put_discovery(&key, discovery);
            let at = pending.started_at;
            contents.put_pending(&key, pending, at);
        });
        match stored.await {
            // In memory then; the store has said so.
            Ok(()) | Err(crate::store::StoreError::NotSaved(_)) => Ok(()),
            Err(error) => Err(not_stored(&error)),
        }
    }

    fn page_settings(&self) -> Settings {
        let client = self.state().client.clone();
        Settings {
            names: Names::new(self.server.host_str().unwrap_or_default(), client.as_deref()),
            success_url: self.options.success_url.clone(),
            answer_within: self.options.auth_timeout,
        }
    }

    /// The client's name is worth something on a consent page: it is the program that the user knows.
    fn name(&self) -> String {
        let client = self.state().client.clone().unwrap_or_default();
        let client: String =
            client.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_CLIENT_NAME).collect();
        match client.trim() {
            "" => NAME.to_owned(),
            client => format!("{client} (by {NAME})"),
        }
    }
}

fn random() -> Result<[u8; RANDOM_BYTES], AuthError> {
    let mut bytes = [0; RANDOM_BYTES];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(AuthError::new("random", Mender::User, "the system gives no random numbers")),
    }
}
