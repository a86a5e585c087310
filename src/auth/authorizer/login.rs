//! A sign-in as this process uses it, and as the store keeps it. Pure.

use http::HeaderValue;

use crate::auth::error::{AuthError, Mender};
use crate::auth::grant::{TokenSet, TokenType};
use crate::auth::options::Options;
use crate::auth::registration::{AuthMethod, Client, Origin, PreRegistered};
use crate::auth::resource::ResourceUri;
use crate::auth::scope::Scopes;
use crate::secret::Secret;
use crate::store::{Account, AccountKey, Contents, Discovery, Registration, ServerKey, Tokens};
use url::Url;

/// A token is renewed before it ends by a tenth of its lifetime, and by this many seconds at most.
const MARGIN: u64 = 60;

/// Tokens with all that is needed to use and to renew them.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// Whose.
    pub key: AccountKey,
    /// The client that the tokens were given to.
    pub client: Client,
    /// The tokens.
    pub tokens: TokenSet,
    /// When they came, in seconds since 1970.
    pub obtained_at: u64,
    /// When the access token ends, if the server said it.
    pub expires_at: Option<u64>,
    /// The scopes that were asked for.
    pub requested: Option<Scopes>,
    /// The value of `Authorization`.
    pub header: HeaderValue,
}

impl Login {
    /// Out of what a token endpoint gave.
    pub(super) fn new(
        key: AccountKey,
        client: Client,
        tokens: TokenSet,
        requested: Option<Scopes>,
        now: u64,
    ) -> Result<Self, AuthError> {
        let expires_at = tokens.expires_in.map(|seconds| now.saturating_add(seconds));
        let header = header(&tokens)?;
        Ok(Self { key, client, tokens, obtained_at: now, expires_at, requested, header })
    }

    /// Out of the store.
    pub(super) fn restored(account: &Account, contents: &Contents, options: &Options) -> Result<Self, AuthError> {
        let stored = &account.tokens;
        let requested = stored.requested_scope.as_deref().map(Scopes::parse);
        let tokens = TokenSet {
            issuer: account.key.issuer.clone(),
            access: stored.access.clone(),
            token_type: TokenType::Bearer,
            expires_in: None,
            refresh: stored.refresh.clone().filter(|token| !contents.is_dead(token)),
            scope: stored.granted_scope.as_deref().map(Scopes::parse).or_else(|| requested.clone()),
            id_token: stored.id_token.clone(),
        };
        let client = client_of(&account.key.issuer, &account.client_id, contents, options);
        let header = header(&tokens)?;
        Ok(Self {
            key: account.key.clone(),
            client,
            tokens,
            obtained_at: stored.obtained_at,
            expires_at: stored.expires_at,
            requested,
            header,
        })
    }

    /// For the store.
    pub(super) fn tokens(&self) -> Tokens {
        Tokens {
            access: self.tokens.access.clone(),
            refresh: self.tokens.refresh.clone(),
            id_token: self.tokens.id_token.clone(),
            obtained_at: self.obtained_at,
            expires_at: self.expires_at,
            granted_scope: self.tokens.scope.as_ref().map(ToString::to_string),
            requested_scope: self.requested.as_ref().map(ToString::to_string),
            extra: crate::store::Extra::default(),
        }
    }

    /// For the store: what came of the sign-in with this `state`.
    pub(super) fn account_of(&self, state: &Secret) -> Account {
        let mut account = Account {
            key: self.key.clone(),
            client_id: self.client.id.clone(),
            tokens: self.tokens(),
            signed_in_at: self.obtained_at,
            sign_in: None,
            extra: crate::store::Extra::default(),
        };
        account.came_of(state);
        account
    }

    /// Whether the access token has ended. One whose end nobody told never has.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it is time to renew it, though it may still be used. The margin is scaled to the lifetime: with a flat one, tokens of a minute
    /// would be renewed at every request.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| {
            let lifetime = end.saturating_sub(self.obtained_at);
            end.saturating_sub((lifetime / 10).min(MARGIN)) <= now
        })
    }
}

fn header(tokens: &TokenSet) -> Result<HeaderValue, AuthError> {
    // The store may have come from another program's files.
    let text = format!("{} {}", tokens.token_type.scheme(), tokens.access.expose());
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        AuthError::new("token-form", Mender::AuthorizationServer, "the access token fits into no header")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The client that tokens were given to. Of one whose registration nobody kept only the name is known: it is a public one.
pub(super) fn client_of(issuer: &str, client_id: &str, contents: &Contents, options: &Options) -> Client {
    let known = contents.registration_of(issuer, client_id);
    // The user's secret goes with the user's client alone, not with one that an authorization server gave the same id.
    let is_own = |own: &&PreRegistered| {
        own.client_id == client_id
            && match bound(own, contents).issuer {
                Some(bound) => bound == issuer,
                None => known.is_none(),
            }
    };
    let own = options.client_info.as_ref().filter(is_own);
    if let (None, Some(known)) = (own, known) {
        return registered(known);
    }
    let origin = match own {
        Some(_) => Origin::PreRegistered,
        None if options.client_metadata_url.as_deref() == Some(client_id) => Origin::MetadataDocument,
        None => Origin::Dynamic,
    };
    let secret = own.and_then(|own| own.client_secret.clone());
    let method = own.and_then(|own| own.method).unwrap_or(match secret {
        Some(_) => AuthMethod::Basic,
        None => AuthMethod::None,
    });
    Client { issuer: issuer.to_owned(), id: client_id.to_owned(), secret, method, secret_expires_at: None, origin }
}

/// A registration out of the store.
pub(super) fn registered(known: &Registration) -> Client {
    let named = known.token_endpoint_auth_method.as_deref().and_then(AuthMethod::from_name);
    let method = named.unwrap_or(match known.client_secret {
        Some(_) => AuthMethod::Basic,
        None => AuthMethod::None,
    });
    Client {
        issuer: known.issuer.clone(),
        id: known.client_id.clone(),
        secret: known.client_secret.clone(),
        method,
        secret_expires_at: known.secret_expires_at,
        origin: Origin::Dynamic,
    }
}

/// A registration for the store.
pub(super) fn registration(client: &Client, redirect_uri: &str, scope: Option<&Scopes>, now: u64) -> Registration {
    Registration {
        issuer: client.issuer.clone(),
        client_id: client.id.clone(),
        client_secret: client.secret.clone(),
        secret_expires_at: client.secret_expires_at,
        redirect_uris: vec![redirect_uri.to_owned()],
        token_endpoint_auth_method: Some(client.method.name().to_owned()),
        scope: scope.map(ToString::to_string),
        registered_at: now,
        pre_registered: client.origin == Origin::PreRegistered,
        extra: crate::store::Extra::default(),
    }
}

/// The user's own client with the issuer that it is bound to: the user's word, or the first that it was used with.
pub(super) fn bound(own: &PreRegistered, contents: &Contents) -> PreRegistered {
    let mut own = own.clone();
    if own.issuer.is_none() {
        own.issuer = contents.issuer_of_client(&own.client_id).map(str::to_owned);
    }
    own
}

/// The stored sign-in of a server: the one that its discovery names, else the only one for the same resource (as from an import).
pub(super) fn stored<'a>(
    contents: &'a Contents,
    key: &ServerKey,
    server: &Url,
    discovery: Option<&Discovery>,
) -> Option<&'a Account> {
    if let Some(found) = discovery {
        let account =
            AccountKey { issuer: found.issuer.clone(), resource: found.resource.clone(), profile: key.profile.clone() };
        return contents.account(&account);
    }
    let own = ResourceUri::of_server(server);
    let names = [own.as_str(), server.as_str(), &key.server];
    let mut fitting = contents
        .accounts()
        .iter()
        .filter(|account| account.key.profile == key.profile && names.contains(&&*account.key.resource));
    match (fitting.next(), fitting.next()) {
        (Some(account), None) => Some(account),
        _ => None,
    }
}

/// Whether two secrets are the same.
pub(super) fn same(a: &Secret, b: &Secret) -> bool {
    a.expose() == b.expose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(obtained_at: u64, expires_in: Option<u64>) -> Login {
        let key = AccountKey { issuer: "https://as.example".into(), resource: "r".into(), profile: String::new() };
        let tokens = TokenSet {
            issuer: key.issuer.clone(),
            access: Secret::new("a"),
            token_type: TokenType::Bearer,
            expires_in,
            refresh: None,
            scope: None,
            id_token: None,
        };
        let client = client_of(&key.issuer, "c", &Contents::default(), &Options::default());
        Login::new(key, client, tokens, None, obtained_at).unwrap()
    }

    #[test]
    fn the_margin_is_scaled_to_the_lifetime() {
        // (lifetime, first second at which it is due)
        for (lifetime, due) in [(3600, 3540), (300, 270), (60, 54), (5, 5), (0, 0)] {
            let login = login(1000, Some(lifetime));
            assert!(login.is_due(1000 + due), "{lifetime}");
            assert!(due == 0 || !login.is_due(1000 + due - 1), "{lifetime}");
            assert!(login.is_over(1000 + lifetime) && (lifetime == 0 || !login.is_over(1000 + lifetime - 1)));
        }
        let eternal = login(1000, None);
        assert!(!eternal.is_due(u64::MAX) && !eternal.is_over(u64::MAX));
    }

    #[test]
    fn the_header_is_sensitive_and_debug_shows_no_token() {
        let login = login(0, None);
        assert_eq!(login.header, "Bearer a");
        assert!(login.header.is_sensitive());
        assert!(!format!("{login:?}").contains("Bearer a"));
    }
}
