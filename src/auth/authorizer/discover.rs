//! From a challenge to the authorization server's checked metadata (MCP 2026-07-28 "Authorization Server Discovery", with the
//! fallback of 2025-03-26 for servers that publish no resource metadata).

use serde_json::Value;

use super::Inner;
use crate::auth::challenge::Challenge;
use crate::auth::error::{AuthError, Mender};
use crate::auth::issuer::{self, Issuer, Rules, ServerMetadata};
use crate::auth::providers::{self, Quirks};
use crate::auth::resource::{self, ProtectedResource, ResourceUri};
use crate::auth::scope::Scopes;
use crate::auth::wire::{self, Document};
use crate::store::{Discovery, Extra};

/// The revision that metadata is asked for with (2025-03-26 "Server Metadata Discovery Headers").
const VERSION: &str = "2025-11-25";
/// Greatest metadata document that is kept for the next run, in bytes. A greater one is read anew when it is needed.
const MAX_KEPT: usize = 32 * 1024;

/// What discovery found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Names the sign-in in the store: the published resource, or the server's own URL.
    pub name: ResourceUri,
    /// For the `resource` parameter; `None`: the server publishes none (2025-03-26), or the user wants none.
    pub resource: Option<ResourceUri>,
    /// The authorization server.
    pub metadata: ServerMetadata,
    /// `scopes_supported` of the resource.
    pub scopes: Option<Scopes>,
    /// Where the resource's metadata was.
    resource_metadata: Option<String>,
    /// The authorization server's document, for the store.
    document: Option<String>,
}

impl Found {
    /// How the provider differs.
    pub(super) fn quirks(&self) -> &'static Quirks {
        providers::quirks(self.metadata.issuer.url())
    }

    /// For the store.
    pub(super) fn record(&self, now: u64) -> Discovery {
        let metadata = &self.metadata;
        let text = |url: &Option<url::Url>| url.as_ref().map(ToString::to_string);
        Discovery {
            resource: self.name.as_str().to_owned(),
            resource_metadata: self.resource_metadata.clone(),
            issuer: metadata.issuer.as_str().to_owned(),
            authorization_endpoint: Some(metadata.authorization_endpoint.to_string()),
            token_endpoint: Some(metadata.token_endpoint.to_string()),
            registration_endpoint: text(&metadata.registration_endpoint),
            revocation_endpoint: text(&metadata.revocation_endpoint),
            device_authorization_endpoint: text(&metadata.device_authorization_endpoint),
            scopes_supported: self.scopes.iter().flat_map(Scopes::iter).map(str::to_owned).collect(),
            token_endpoint_auth_methods: metadata.token_auth_methods.clone().unwrap_or_default(),
            iss_parameter_supported: metadata.iss_in_response,
            resource_parameter: self.resource.as_ref().map(|uri| uri.as_str().to_owned()),
            server_metadata: self.document.clone(),
            found_at: now,
            extra: Extra::default(),
        }
    }
}

/// An authorization server with the document that says so; `None` for a server without any.
struct Server {
    metadata: ServerMetadata,
    document: Option<String>,
}

impl Inner {
    /// Asks the server and the authorization server that it names. `known`: issuers that we have dealt with for this server.
    pub(super) async fn discover(&self, challenge: Option<&Challenge>, known: &[&str]) -> Result<Found, AuthError> {
        let (protected, resource_metadata) = self.resource_metadata(challenge).await?;
        let named = protected.as_ref().and_then(|protected| resource::choose(protected, known));
        let server = match named {
            Some(issuer) => self.server_metadata(issuer).await?,
            None => self.own_origin().await?,
        };
        let published = protected.as_ref().map(|protected| protected.resource.clone());
        let resource = match (&self.options.resource, self.options.disable_resource) {
            (_, true) => None,
            (Some(own), false) => Some(own.clone()),
            (None, false) => published.clone(),
        };
        for refused in protected.iter().flat_map(|protected| &protected.refused) {
            tracing::debug!("an authorization server of the list is left out: {refused}");
        }
        for (name, refused) in &server.metadata.refused {
            tracing::debug!("{name} is left out: {refused}");
        }
        Ok(Found {
            name: published.or_else(|| resource.clone()).unwrap_or_else(|| ResourceUri::of_server(&self.server)),
            resource,
            scopes: protected.and_then(|protected| protected.scopes_supported),
            metadata: server.metadata,
            resource_metadata,
            document: server.document,
        })
    }

    /// What an earlier run found, judged anew: no request. `None` where it does not suffice.
    pub(super) fn restore(&self, kept: &Discovery) -> Option<Found> {
        let policy = self.http.policy();
        let metadata = match &kept.server_metadata {
            Some(document) => {
                let issuer = Issuer::parse(&kept.issuer, policy).ok()?;
                let rules = self.rules(kept.resource_metadata.is_none());
                issuer::validate(document.as_bytes(), issuer.url(), &issuer, policy, rules).ok()?
            }
            None if kept.resource_metadata.is_none() => {
                let guessed = issuer::default_endpoints(&self.server, policy).ok()?;
                // A document that is too large to be kept may have said otherwise.
                let same_endpoint = kept.token_endpoint.as_deref() == Some(guessed.token_endpoint.as_str());
                (guessed.issuer.as_str() == kept.issuer && same_endpoint).then_some(guessed)?
            }
            None => return None,
        };
        Some(Found {
            name: ResourceUri::restored(&kept.resource),
            resource: match (&self.options.resource, self.options.disable_resource) {
                (_, true) => None,
                (Some(own), false) => Some(own.clone()),
                (None, false) => kept.resource_parameter.as_deref().map(ResourceUri::restored),
            },
            scopes: Some(Scopes::of(kept.scopes_supported.iter().map(String::as_str))).filter(|all| !all.is_empty()),
            metadata,
            resource_metadata: kept.resource_metadata.clone(),
            document: kept.server_metadata.clone(),
        })
    }

    /// The metadata of an issuer that tokens are bound to, asked for without the MCP server.
    pub(super) async fn of_issuer(&self, name: &str, resource: &str) -> Result<Found, AuthError> {
        let issuer = Issuer::parse(name, self.http.policy())?;
        let server = self.server_metadata(&issuer).await?;
        let own = self.options.resource.clone().or_else(|| Some(ResourceUri::restored(resource)));
        Ok(Found {
            name: ResourceUri::restored(resource),
            resource: own.filter(|_| !self.options.disable_resource),
            scopes: None,
            metadata: server.metadata,
            resource_metadata: None,
            document: server.document,
        })
    }

    async fn resource_metadata(
        &self,
        challenge: Option<&Challenge>,
    ) -> Result<(Option<ProtectedResource>, Option<String>), AuthError> {
        let policy = self.http.policy();
        let named = challenge.and_then(|challenge| challenge.resource_metadata.as_deref());
        let candidates = resource::candidates(&self.server, named, policy);
        let mut refused = candidates.refused;
        for place in &candidates.list {
            match wire::get_document(&self.http, &place.url, Some(VERSION), "the resource metadata").await? {
                Document::Absent { .. } => {}
                Document::Found { bytes, source } => {
                    let found = resource::Candidate { url: source, place: place.place };
                    match resource::validate(&bytes, &found, &self.server, policy) {
                        Ok(protected) => return Ok((Some(protected), Some(place.url.to_string()))),
                        Err(rejected) if rejected.try_next => refused = refused.or(Some(rejected.error)),
                        Err(rejected) => return Err(rejected.error),
                    }
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok((None, None)),
        }
    }

    fn rules(&self, origin_fallback: bool) -> Rules {
        Rules { allow_missing_pkce: self.options.allow_missing_pkce, origin_fallback }
    }

    async fn server_metadata(&self, issuer: &Issuer) -> Result<Server, AuthError> {
        match self.documents(issuer, self.rules(false)).await? {
            Some(server) => Ok(server),
            None => {
                let message = format!("the authorization server {issuer} publishes no metadata");
                Err(AuthError::new("no-metadata", Mender::AuthorizationServer, message))
            }
        }
    }

    /// 2025-03-26: the server's own origin is the authorization server.
    async fn own_origin(&self) -> Result<Server, AuthError> {
        let policy = self.http.policy();
        let issuer = Issuer::of_origin(&self.server)
            .ok_or_else(|| AuthError::new("url-host", Mender::User, "the server's URL has no host"))?;
        match self.documents(&issuer, self.rules(true)).await? {
            Some(server) => Ok(server),
            None => Ok(Server { metadata: issuer::default_endpoints(&self.server, policy)?, document: None }),
        }
    }

    async fn documents(&self, issuer: &Issuer, rules: Rules) -> Result<Option<Server>, AuthError> {
        let policy = self.http.policy();
        let mut refused = None;
        for url in issuer.metadata_urls() {
            let what = "the authorization server's metadata";
            let Document::Found { bytes, source } = wire::get_document(&self.http, &url, Some(VERSION), what).await?
            else {
                continue;
            };
            match issuer::validate(&bytes, &source, issuer, policy, rules) {
                Ok(metadata) => {
                    let document = (bytes.len() <= MAX_KEPT).then(|| String::from_utf8_lossy(&bytes).into_owned());
                    return Ok(Some(Server { metadata, document }));
                }
                Err(error) if issuer::try_next(&error) => refused = refused.or(Some(error)),
                // Nobody published the issuer's name, we only guessed that it is the origin. A document there that names another says who it
                // is, as `authorization_servers` would; that one is asked, and must name itself.
                Err(error) if rules.origin_fallback && error.rule() == "issuer-identical" => {
                    let Some(named) = named_issuer(&bytes) else { return Err(error) };
                    let other = Issuer::parse(&named, policy)?;
                    return Box::pin(self.server_metadata(&other)).await.map(Some);
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if !rules.origin_fallback => Err(error),
            _ => Ok(None),
        }
    }
}

fn named_issuer(document: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    document.get("issuer")?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
