//! A client of an authorization server: its id, how it came by it, how it shows who it is. Pure.

use std::fmt;

use crate::{
    auth::{
        error::{AuthError, Mender},
        issuer::Issuer,
    },
    secret::Secret,
};

/// Longest client id and client secret that are taken, in bytes.
pub const MAX_CREDENTIAL: usize = 4096;
/// Option that gives a client id.
pub const CLIENT_INFO_FLAG: &str = "--static-oauth-client-info";
/// Option that gives the URL of a client ID metadata document.
pub const METADATA_URL_FLAG: &str = "--client-metadata-url";

/// How the client shows who it is at the token endpoint (RFC 7591 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// `none`: a public client sends its id.
    None,
    /// `client_secret_basic`: by header.
    Basic,
    /// `client_secret_post`: in the body.
    Post,
}

impl AuthMethod {
    /// The method of this registered name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "client_secret_basic" => Some(Self::Basic),
            "client_secret_post" => Some(Self::Post),
            _ => None,
        }
    }

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
        }
    }
}

/// How a client came by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user registered it.
    PreRegistered,
    /// It is the URL of a document. Good for every issuer.
    MetadataDocument,
    /// We registered it.
    Dynamic,
}

/// A client of one authorization server.
#[derive(Clone)]
pub struct Client {
    /// The issuer that it belongs to, byte for byte.
    pub issuer: String,
    /// Its id, opaque.
    pub id: String,
    /// Its secret.
    pub secret: Option<Secret>,
    /// How it authenticates.
    pub method: AuthMethod,
    /// When the secret ends, in seconds since 1970; `None`: never.
    pub secret_expires_at: Option<u64>,
    /// How it came by its id.
    pub origin: Origin,
}

impl Client {
    /// Refuses to be shown to another authorization server ("Authorization Server Binding").
    pub fn check_issuer(&self, issuer: &Issuer) -> Result<(), AuthError> {
        if self.issuer == issuer.as_str() {
            return Ok(());
        }
        Err(other_issuer("the client's credentials belong to another authorization server", &self.issuer, issuer))
    }

    /// Whether its secret no longer holds at `now` (seconds since 1970): register anew.
    pub fn is_expired(&self, now: u64) -> bool {
        self.secret_expires_at.is_some_and(|end| end <= now)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("method", &self.method).finish_non_exhaustive()
    }
}

/// Credentials of one authorization server, offered to another.
pub(in crate::auth) fn other_issuer(message: &str, theirs: &str, asked: &Issuer) -> AuthError {
    AuthError::new("issuer-binding", Mender::User, message).with_differ(theirs, asked.as_str()).with_hint(
        "the MCP server now names another authorization server; if that is right, sign in anew, with a client id of that server",
    )
}

/// A client id that the user registered (`--static-oauth-client-info`).
#[derive(Clone, Debug)]
pub struct PreRegistered {
    /// The issuer that it is for: the user's word, or the first that it was used with. `None`: not used yet.
    pub issuer: Option<String>,
    /// Id.
    pub client_id: String,
    /// Secret.
    pub client_secret: Option<Secret>,
    /// The method that the user named.
    pub method: Option<AuthMethod>,
}

/// A `client_id` that is a URL (draft-ietf-oauth-client-id-metadata-document section 3): https, a path, no fragment, no user
/// name, no `.` or `..` segment. Returned as it was given, because it is compared byte for byte.
pub fn metadata_document_url(text: &str) -> Result<&str, AuthError> {
    let refuse =
        |why: &str| Err(AuthError::new("client-metadata-url", Mender::User, format!("{METADATA_URL_FLAG}: {why}")));
    let Ok(url) = crate::http::guard::parse(text, None) else {
        return refuse("it is no URL");
    };
    if url.scheme() != "https" {
        return refuse("it is not https");
    }
    if url.path() == "/" {
        return refuse("it has no path");
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return refuse("it has a fragment or a user name");
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return refuse("its path has a . or .. segment");
    }
    Ok(text)
}
