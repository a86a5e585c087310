//! What the credential store holds, and the rules about it. Pure: no files, no clock, no randomness.
//!
//! All times are Unix times in seconds and are passed in. Fields that a newer version added to a record are kept
//! as they are, so that an older version of the program that runs beside it does not take them away.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::secret_text;
use crate::secret::Secret;

/// Sign-ins that are kept. One more is an error: a login is never thrown away in silence.
pub(super) const MAX_ACCOUNTS: usize = 256;
/// Client registrations that are kept; of more, the oldest that no sign-in uses is forgotten.
pub(super) const MAX_REGISTRATIONS: usize = 256;
/// Servers of which something is remembered; of more, the one that was seen first is forgotten.
pub(super) const MAX_SERVERS: usize = 256;
/// Refresh tokens whose death is remembered; of more, the oldest is forgotten.
pub(super) const MAX_TOMBSTONES: usize = 512;
/// Bytes of one text: a token, a URL, a list of scopes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Seconds after which a sign-in that was begun is over.
pub const PENDING_LIFETIME: u64 = 15 * 60;

/// What must not be stored: which limit it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverLimit {
    /// More sign-ins than [`MAX_ACCOUNTS`].
    #[error("{MAX_ACCOUNTS} sign-ins are kept already; end one with `mcp-drawbridge logout`")]
    Accounts,
    /// A text longer than [`MAX_TEXT`].
    #[error("the authorization server sent a text of more than {MAX_TEXT} bytes")]
    Text,
    /// All together is more than a sealed file may hold.
    #[error("what is to be kept is too large for the credential store")]
    File,
}

/// Which sign-in: tokens never serve another issuer, resource or profile (A2, A11).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccountKey {
    /// The authorization server's issuer, byte for byte (RFC 8414 section 2).
    pub issuer: String,
    /// The protected resource, byte for byte (RFC 8707, RFC 9728).
    pub resource: String,
    /// The user's name for one of several accounts on one server; empty if there is one.
    #[serde(default)]
    pub profile: String,
}

/// Which server, as the user typed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerKey {
    /// The server's URL.
    pub server: String,
    /// The user's name for one of several accounts on one server; empty if there is one.
    #[serde(default)]
    pub profile: String,
}

/// What a token endpoint gave (RFC 6749 section 5.1).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tokens {
    /// The access token.
    #[serde(with = "secret_text")]
    pub access: Secret,
    /// The refresh token.
    #[serde(with = "secret_text::optional", default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Secret>,
    /// The ID token, for servers that want it instead.
    #[serde(with = "secret_text::optional", default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<Secret>,
    /// When these tokens came. With `expires_at` it tells the lifetime, to which margins are scaled.
    pub obtained_at: u64,
    /// When the access token ends, if the server said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Scopes that were granted, if the server said it, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_scope: Option<String>,
    /// Scopes that were asked for, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_scope: Option<String>,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

/// One sign-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    #[serde(flatten)]
    pub key: AccountKey,
    /// The client that the tokens were given to.
    pub client_id: String,
    /// The tokens.
    pub tokens: Tokens,
    /// When the person signed in.
    pub signed_in_at: u64,
    /// Which sign-in it came of: the SHA-256 of its `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<String>,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

impl Account {
    /// Notes which sign-in it came of.
    pub fn came_of(&mut self, state: &Secret) {
        self.sign_in = Some(fingerprint(state.expose()));
    }

    /// Whether it came of this sign-in.
    pub fn is_of(&self, state: &Secret) -> bool {
        self.sign_in.as_deref() == Some(&*fingerprint(state.expose()))
    }
}

/// A client registration (RFC 7591 section 3.2.1) or another way in which an issuer knows us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// The issuer that gave it; it is shown to no other (H3).
    pub issuer: String,
    /// The client's name at the issuer.
    pub client_id: String,
    /// The client's secret.
    #[serde(with = "secret_text::optional", default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// When the secret ends; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_expires_at: Option<u64>,
    /// Redirect URIs that it is good for.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// How the client shows itself at the token endpoint; `None` is what RFC 7591 section 2 says of an absent value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_method: Option<String>,
    /// Scopes that it was registered for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When it was made.
    pub registered_at: u64,
    /// The user brought the client id (`--static-oauth-client-info`). Its secret is not kept; this ties the id to its issuer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pre_registered: bool,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

/// What discovery found for a server, so that a start needs no request for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Discovery {
    /// The resource, as its metadata publishes it.
    pub resource: String,
    /// Where the metadata of the resource was found; `None`: the server publishes none (2025-03-26).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_metadata: Option<String>,
    /// The authorization server that was chosen.
    pub issuer: String,
    /// RFC 8414 `authorization_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// RFC 8414 `token_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// RFC 8414 `registration_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_endpoint: Option<String>,
    /// RFC 8414 `revocation_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// RFC 8628 `device_authorization_endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_authorization_endpoint: Option<String>,
    /// Scopes that the resource offers.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// RFC 8414 `token_endpoint_auth_methods_supported`.
    #[serde(default)]
    pub token_endpoint_auth_methods: Vec<String>,
    /// RFC 9207: the authorization response names its issuer.
    #[serde(default)]
    pub iss_parameter_supported: bool,
    /// The `resource` parameter (RFC 8707); `None`: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_parameter: Option<String>,
    /// The authorization server's metadata as it was read, to be judged anew by whoever uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_metadata: Option<String>,
    /// When it was found.
    pub found_at: u64,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

/// A sign-in that was begun. It outlives the process that began it (A5).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingSignIn {
    /// RFC 6749 `state`.
    #[serde(with = "secret_text")]
    pub state: Secret,
    /// RFC 7636 `code_verifier`.
    #[serde(with = "secret_text")]
    pub verifier: Secret,
    /// The issuer that was asked; the answer is compared with it (RFC 9207).
    pub issuer: String,
    /// The resource that was asked for.
    pub resource: String,
    /// The client that asked.
    pub client_id: String,
    /// The redirect URI that was named.
    pub redirect_uri: String,
    /// The loopback port where the answer is awaited.
    pub redirect_port: u16,
    /// Scopes that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_scope: Option<String>,
    /// The authorization request, for processes that only wait. It holds the state.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "secret_text::optional")]
    pub authorization_url: Option<Secret>,
    /// When it began.
    pub started_at: u64,
    /// When a browser was opened for it; never a second one (A5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_opened_at: Option<u64>,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

/// What is remembered of one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// Which.
    #[serde(flatten)]
    pub key: ServerKey,
    /// What discovery found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// The sign-in that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingSignIn>,
    /// When the last sign-in came to nothing: denied, or run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in_ended_at: Option<u64>,
    #[serde(flatten)]
    #[doc(hidden)]
    pub extra: Extra,
}

/// A refresh token that must not be sent again, by its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tombstone {
    sha256: String,
    at: u64,
}

/// Fields of a newer version. They may be secrets: not shown, zeroed on drop.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(hidden)]
pub struct Extra(Map<String, Value>);

impl fmt::Debug for Extra {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Extra({} fields)", self.0.len())
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, value)| wipe(value));
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Contents {
    #[serde(default)]
    accounts: Vec<Account>,
    #[serde(default)]
    registrations: Vec<Registration>,
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(default)]
    tombstones: Vec<Tombstone>,
    #[serde(flatten)]
    extra: Extra,
}

impl Contents {
    /// Every sign-in.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Every server of which something is remembered, the one touched last at the end.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// One sign-in.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.iter().find(|account| account.key == *key)
    }

    /// Keeps a new sign-in instead of the one with the same key, whose refresh token is dead from now on.
    pub fn put_account(&mut self, account: Account, now: u64) {
        self.remove_account_unless(&account.key, account.tokens.refresh.as_ref(), now);
        self.accounts.push(account);
    }

    /// Keeps what a refresh gave. An answer without a refresh token leaves the old one in force (RFC 6749 section 6);
    /// one with another buries the old one. `false` if there is no such sign-in: it was ended meanwhile.
    pub fn replace_tokens(&mut self, key: &AccountKey, mut tokens: Tokens, now: u64) -> bool {
        let Some(account) = self.accounts.iter_mut().find(|account| account.key == *key) else { return false };
        let old = account.tokens.refresh.take();
        let dead = match (&tokens.refresh, old) {
            (None, old) => {
                tokens.refresh = old;
                None
            }
            (Some(new), Some(old)) if new.expose() != old.expose() => Some(old),
            (Some(_), _) => None,
        };
        if tokens.granted_scope.is_none() {
            // RFC 6749 section 6: absent is as before.
            tokens.granted_scope = account.tokens.granted_scope.take();
        }
        if tokens.requested_scope.is_none() {
            tokens.requested_scope = account.tokens.requested_scope.take();
        }
        if tokens.extra.0.is_empty() {
            tokens.extra = std::mem::take(&mut account.tokens.extra);
        }
        account.tokens = tokens;
        if let Some(dead) = dead {
            self.bury(&dead, now);
        }
        true
    }

    /// Ends a sign-in: a log-out, or the server refused its refresh token for good. The token is never sent again.
    pub fn remove_account(&mut self, key: &AccountKey, now: u64) {
        self.remove_account_unless(key, None, now);
    }

    fn remove_account_unless(&mut self, key: &AccountKey, alive: Option<&Secret>, now: u64) {
        let dead: Vec<Secret> = self
            .accounts
            .iter_mut()
            .filter(|account| account.key == *key)
            .filter_map(|account| account.tokens.refresh.take())
            .filter(|old| alive.is_none_or(|alive| alive.expose() != old.expose()))
            .collect();
        self.accounts.retain(|account| account.key != *key);
        for token in &dead {
            self.bury(token, now);
        }
    }

    /// Takes the refresh token away from a sign-in whose access token may still be good.
    pub fn bury_refresh_token(&mut self, key: &AccountKey, now: u64) {
        let account = self.accounts.iter_mut().find(|account| account.key == *key);
        if let Some(dead) = account.and_then(|account| account.tokens.refresh.take()) {
            self.bury(&dead, now);
        }
    }

    fn bury(&mut self, token: &Secret, now: u64) {
        let sha256 = fingerprint(token.expose());
        self.tombstones.retain(|tombstone| tombstone.sha256 != sha256);
        self.tombstones.push(Tombstone { sha256, at: now });
        let over = self.tombstones.len().saturating_sub(MAX_TOMBSTONES);
        self.tombstones.drain(..over);
    }

    /// Whether a refresh token is known to be spent or revoked (A6: never send it again).
    pub fn is_dead(&self, token: &Secret) -> bool {
        let sha256 = fingerprint(token.expose());
        self.tombstones.iter().any(|tombstone| tombstone.sha256 == sha256)
    }

    /// The newest registration at an issuer that is good for a redirect URI (`None`: for any), its secret not over.
    pub fn registration(&self, issuer: &str, redirect_uri: Option<&str>, now: u64) -> Option<&Registration> {
        self.registrations
            .iter()
            .filter(|it| it.issuer == issuer && !it.pre_registered && it.secret_expires_at.is_none_or(|end| end > now))
            .filter(|it| redirect_uri.is_none_or(|wanted| it.redirect_uris.iter().any(|uri| uri == wanted)))
            .max_by_key(|it| it.registered_at)
    }

    /// The registration that a sign-in was made with.
    pub fn registration_of(&self, issuer: &str, client_id: &str) -> Option<&Registration> {
        self.registrations.iter().find(|it| it.issuer == issuer && it.client_id == client_id)
    }

    /// The issuer that a client id of the user's was first used with. It is shown to no other (H3). What an authorization server gave to us says
    /// nothing about it: a hostile one may give away the id of another's client.
    pub fn issuer_of_client(&self, client_id: &str) -> Option<&str> {
        self.registrations.iter().find(|it| it.pre_registered && it.client_id == client_id).map(|it| &*it.issuer)
    }

    /// Keeps a registration instead of the one with the same issuer and client id.
    pub fn put_registration(&mut self, registration: Registration) {
        self.remove_registration(&registration.issuer, &registration.client_id);
        self.registrations.push(registration);
        while self.registrations.len() > MAX_REGISTRATIONS {
            // What ties a client of the user's goes last: no server may push it out by registrations.
            let unused = self.registrations.iter().position(|it| {
                !it.pre_registered
                    && !self
                        .accounts
                        .iter()
                        .any(|account| account.key.issuer == it.issuer && account.client_id == it.client_id)
            });
            let oldest = || self.registrations.iter().position(|it| !it.pre_registered);
            let gone = unused.or_else(oldest).unwrap_or(0);
            self.registrations.remove(gone);
        }
    }

    /// Forgets a registration: the issuer does not know it any more.
    pub fn remove_registration(&mut self, issuer: &str, client_id: &str) {
        self.registrations.retain(|it| it.issuer != issuer || it.client_id != client_id);
    }

    /// What discovery found for a server.
    pub fn discovery(&self, key: &ServerKey) -> Option<&Discovery> {
        self.server(key)?.discovery.as_ref()
    }

    /// Keeps what discovery found.
    pub fn put_discovery(&mut self, key: &ServerKey, discovery: Discovery) {
        self.change_server(key, |server| server.discovery = Some(discovery));
    }

    /// The sign-in that is under way for a server, if it is not over.
    pub fn pending(&self, key: &ServerKey, now: u64) -> Option<&PendingSignIn> {
        self.server(key)?.pending.as_ref().filter(|pending| !is_over(pending, now))
    }

    /// Keeps a sign-in that begins, and forgets all that are over.
    pub fn put_pending(&mut self, key: &ServerKey, pending: PendingSignIn, now: u64) {
        for server in &mut self.servers {
            server.pending.take_if(|pending| is_over(pending, now));
        }
        self.change_server(key, |server| server.pending = Some(pending));
    }

    /// Takes the sign-in that has this `state` out of the store: it can be answered once. Compared by hash, so the
    /// time it takes tells nothing.
    pub fn take_pending(&mut self, key: &ServerKey, state: &str, now: u64) -> Option<PendingSignIn> {
        let state = fingerprint(state);
        let server = self.servers.iter_mut().find(|server| server.key == *key)?;
        server.pending.take_if(|pending| !is_over(pending, now) && fingerprint(pending.state.expose()) == state)
    }

    /// Ends the sign-in under way: it was denied, or the user gave it up.
    pub fn remove_pending(&mut self, key: &ServerKey) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.key == *key) {
            server.pending = None;
        }
    }

    /// Ends the sign-in under way without a token, so that the processes that wait for it know that a person had it.
    pub fn end_sign_in(&mut self, key: &ServerKey, now: u64) {
        self.change_server(key, |server| {
            server.pending = None;
            server.sign_in_ended_at = Some(now);
        });
    }

    /// When the last sign-in of a server came to nothing.
    pub fn sign_in_ended_at(&self, key: &ServerKey) -> Option<u64> {
        self.server(key)?.sign_in_ended_at
    }

    fn server(&self, key: &ServerKey) -> Option<&Server> {
        self.servers.iter().find(|server| server.key == *key)
    }

    /// The one touched last is last: the first is the one to forget.
    fn change_server(&mut self, key: &ServerKey, change: impl FnOnce(&mut Server)) {
        let known = self.servers.iter().position(|server| server.key == *key);
        let mut server = match known {
            Some(position) => self.servers.remove(position),
            None => Server {
                key: key.clone(),
                discovery: None,
                pending: None,
                sign_in_ended_at: None,
                extra: Extra::default(),
            },
        };
        change(&mut server);
        self.servers.push(server);
        let over = self.servers.len().saturating_sub(MAX_SERVERS);
        self.servers.drain(..over);
    }

    /// What must hold before this is written.
    pub fn check(&self) -> Result<(), OverLimit> {
        if self.accounts.len() > MAX_ACCOUNTS {
            return Err(OverLimit::Accounts);
        }
        let tokens = self.accounts.iter().flat_map(|account| {
            let tokens = &account.tokens;
            [Some(&tokens.access), tokens.refresh.as_ref(), tokens.id_token.as_ref()].into_iter().flatten()
        });
        let secrets = self.registrations.iter().filter_map(|it| it.client_secret.as_ref());
        let texts = self.accounts.iter().flat_map(|account| {
            let tokens = &account.tokens;
            let scopes = [tokens.granted_scope.as_ref(), tokens.requested_scope.as_ref()].into_iter().flatten();
            [&account.key.issuer, &account.key.resource, &account.key.profile, &account.client_id]
                .into_iter()
                .chain(scopes)
        });
        let registered =
            self.registrations.iter().flat_map(|it| [&it.issuer, &it.client_id].into_iter().chain(&it.redirect_uris));
        let longest = tokens
            .chain(secrets)
            .map(Secret::expose)
            .chain(texts.chain(registered).map(String::as_str))
            .map(str::len)
            .max();
        if longest.unwrap_or(0) > MAX_TEXT { Err(OverLimit::Text) } else { Ok(()) }
    }
}

/// A clock that was set back does not make a sign-in eternal.
fn is_over(pending: &PendingSignIn, now: u64) -> bool {
    now.abs_diff(pending.started_at) > PENDING_LIFETIME
}

/// SHA-256, as text.
pub(super) fn fingerprint(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests;
