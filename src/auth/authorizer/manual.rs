//! Signing in and out by command, without a client.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};

use super::login::{Login, stored};
use super::sign_in::Opener;
use super::{Authorizer, Inner, Job, not_stored, now};
use crate::auth::challenge::{self, Challenge};
use crate::auth::error::{AuthError, Fault};
use crate::auth::grant;
use crate::http::{HttpRequest, RedirectRule};

/// A request that every MCP server answers or refuses, and that changes nothing: it opens no session.
const PROBE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// What became of a log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The authorization server; empty when none was needed.
    pub issuer: String,
    /// The scopes that were granted.
    pub scopes: Option<String>,
    /// When the access token ends, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// Whether the token renews itself.
    pub renewable: bool,
    /// The user was signed in already.
    pub already: bool,
    /// Whether the server wants a sign-in at all.
    pub needed: bool,
}

/// What became of a log-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOut {
    /// Whether there was a login.
    pub was_signed_in: bool,
    /// Whether the authorization server revoked the tokens (RFC 7009); else why not.
    pub revoked: Result<(), String>,
}

impl Authorizer {
    /// Signs in, unless a login is there (`force`: also then). `headers`: the user's own, for the server.
    ///
    /// A person is told by the news; an answer can be pasted by [`Authorizer::wish`].
    pub async fn login(&self, headers: &HeaderMap, force: bool) -> Result<LoggedIn, AuthError> {
        self.inner.load().await;
        if let Some(login) = self.inner.login()
            && !force
        {
            match self.credential().await {
                Ok(Some(_)) if self.inner.login().is_some_and(|login| !login.is_over(now())) => {
                    return Ok(self.inner.summary(true));
                }
                // A network that fails is no reason to sign in again.
                Err(error) if matches!(error.fault(), Fault::Transient { .. }) => return Err(error),
                _ => drop(login),
            }
        }
        let challenge = match self.inner.probe(headers).await? {
            Probe::Open if !force => return Ok(none_needed()),
            Probe::Open => None,
            Probe::Challenged(challenge) => challenge,
        };
        let refused = self.inner.login().map(|login| login.tokens.access.clone());
        let job = Job::Renew { refused, challenge, opener: Some(Opener::User), refresh: false };
        self.work(job).await?;
        Ok(self.inner.summary(false))
    }

    /// Signs out: the authorization server is asked to revoke the tokens, and whatever it says, they are forgotten here.
    pub async fn logout(&self) -> Result<LoggedOut, AuthError> {
        let inner = &self.inner;
        let contents = inner.store.snapshot().await.map_err(|error| not_stored(&error))?;
        let account = stored(&contents, &inner.key, &inner.server, contents.discovery(&inner.key));
        let login = account.and_then(|account| Login::restored(account, &contents, &inner.options).ok());
        let key = account.map(|account| account.key.clone());
        let found = contents.discovery(&inner.key).and_then(|kept| inner.restore(kept));
        let waits = contents.pending(&inner.key, now()).is_some();
        drop(contents);
        if key.is_none() && !waits {
            // Nothing to write: no key is made, and no keyring asked.
            return Ok(LoggedOut { was_signed_in: false, revoked: Ok(()) });
        }
        let revoked = match &login {
            Some(login) => inner.revoke(login, found).await,
            None => Ok(()),
        };
        let (server, at, was_signed_in) = (inner.key.clone(), now(), key.is_some());
        let forgotten = inner.store.update(move |contents| {
            contents.remove_pending(&server);
            if let Some(key) = key {
                contents.remove_account(&key, at);
            }
        });
        forgotten.await.map_err(|error| not_stored(&error))?;
        inner.state().login = None;
        Ok(LoggedOut { was_signed_in, revoked })
    }
}

enum Probe {
    Open,
    Challenged(Option<Challenge>),
}

impl Inner {
    /// Asks the server for its challenge.
    async fn probe(&self, headers: &HeaderMap) -> Result<Probe, AuthError> {
        let mut headers = headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = HttpRequest {
            method: Method::POST,
            url: self.server.clone(),
            headers,
            body: Bytes::from_static(PROBE.as_bytes()),
            redirects: RedirectRule::SameOrigin,
            event_stream: true,
        };
        let response =
            self.http.send(request).await.map_err(|error| AuthError::from_http(&error, "asking the server"))?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(Probe::Open);
        }
        let fields = response.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
        Ok(Probe::Challenged(challenge::select(&challenge::parse(fields)).cloned()))
    }

    fn summary(&self, already: bool) -> LoggedIn {
        let Some(login) = self.login() else { return none_needed() };
        LoggedIn {
            issuer: login.key.issuer.clone(),
            scopes: login.tokens.scope.as_ref().map(ToString::to_string),
            expires_at: login.expires_at,
            renewable: login.tokens.refresh.is_some(),
            already,
            needed: true,
        }
    }

    async fn revoke(&self, login: &Login, found: Option<super::Found>) -> Result<(), String> {
        let found = match found.filter(|found| found.metadata.issuer.as_str() == login.key.issuer) {
            Some(found) => found,
            None => self.of_issuer(&login.key.issuer, &login.key.resource).await.map_err(|error| error.to_string())?,
        };
        match grant::revocation_request(&found.metadata, &login.client, &login.tokens) {
            Ok(Some(request)) => grant::revoke(&self.http, &request).await.map_err(|error| error.to_string()),
            Ok(None) => Err("the authorization server offers no revocation".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn none_needed() -> LoggedIn {
    LoggedIn { issuer: String::new(), scopes: None, expires_at: None, renewable: false, already: false, needed: false }
}
