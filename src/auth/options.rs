//! What the user says of signing in: the flags of mcp-remote 0.15.1 that concern it, and our own, already checked.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::callback::{CallbackPath, RedirectHost, SuccessUrl};
use super::registration::PreRegistered;
use super::resource::ResourceUri;
use super::scope::Scopes;

/// Time that the browser waits for the token exchange when `--auth-timeout` is not given.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(30);

/// The options of sign-in. `Debug` shows no secret.
#[derive(Clone)]
pub struct Options {
    /// `--host`: host of the redirect URI.
    pub redirect_host: RedirectHost,
    /// `--callback-path`.
    pub callback_path: CallbackPath,
    /// This port or none: the second positional argument, or with a client of the user's own, whose redirect URI is registered, the derived one.
    pub callback_port: Option<u16>,
    /// Without it: the first of the ports to try, as mcp-remote derives it from its hash of server, resource, parameters and headers.
    pub derived_port: u16,
    /// `--auth-success-url`.
    pub success_url: Option<SuccessUrl>,
    /// `--auth-timeout`: how long the browser waits for the token exchange.
    pub auth_timeout: Duration,
    /// `--resource`: in the place of what the server publishes.
    pub resource: Option<ResourceUri>,
    /// `--disable-resource-parameter`: sent nowhere.
    pub disable_resource: bool,
    /// `--authorize-param`, each checked by `grant::authorize::check_extra`.
    pub authorize_params: Vec<(String, String)>,
    /// The scopes of `--authorize-param scope=...`. They win over every other.
    pub scope: Option<Scopes>,
    /// `--static-oauth-client-metadata`: members of the registration that win over ours. Its `scope` wins over the server's.
    pub client_metadata: Option<Map<String, Value>>,
    /// `--static-oauth-client-info`.
    pub client_info: Option<PreRegistered>,
    /// `--client-metadata-url`, checked by `registration::metadata_document_url`.
    pub client_metadata_url: Option<String>,
    /// `--allow-missing-pkce-metadata`.
    pub allow_missing_pkce: bool,
    /// `--profile`: one of several accounts on one server. Empty: the only one.
    pub profile: String,
}

impl Options {
    /// The scopes that the user names.
    pub fn scopes(&self) -> Option<Scopes> {
        if self.scope.is_some() {
            return self.scope.clone();
        }
        let text = self.client_metadata.as_ref()?.get("scope")?.as_str()?;
        Some(Scopes::parse(text)).filter(|scopes| !scopes.is_empty())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            redirect_host: RedirectHost::Localhost,
            callback_path: CallbackPath::default(),
            callback_port: None,
            derived_port: 3335,
            success_url: None,
            auth_timeout: AUTH_TIMEOUT,
            resource: None,
            disable_resource: false,
            authorize_params: Vec::new(),
            scope: None,
            client_metadata: None,
            client_info: None,
            client_metadata_url: None,
            allow_missing_pkce: false,
            profile: String::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The members of the client's metadata and the parameters may be anything, so also secrets.
        out.debug_struct("Options")
            .field("redirect_host", &self.redirect_host)
            .field("callback_path", &self.callback_path)
            .field("callback_port", &self.callback_port)
            .field("derived_port", &self.derived_port)
            .field("resource", &self.resource)
            .field("disable_resource", &self.disable_resource)
            .field("client_info", &self.client_info)
            .field("allow_missing_pkce", &self.allow_missing_pkce)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}
