//! The authorization code grant (RFC 6749 section 4.1 with RFC 7636): the URL for the browser, the judged callback, the tokens.
//!
//! All but [`redeem`] and [`revoke`] is pure; randomness is an argument. Revocation (RFC 7009) never fails a logout.

pub mod authorize;
pub mod callback;
pub mod token;

use super::{
    error::AuthError,
    wire::{self, Post},
};
use crate::http::HttpClient;

pub use authorize::{AuthorizationRequest, Pkce, authorization_url, state};
pub use callback::Expected;
pub use token::{
    Context, TokenSet, TokenType, exchange_request, is_unusable, refresh_request, revocation_request, token_set,
};

/// Sends an exchange or a refresh and judges the answer: one request.
pub async fn redeem(http: &HttpClient, request: &Post, context: &Context<'_>) -> Result<TokenSet, AuthError> {
    let answer = wire::post(http, request, context.doing()).await?;
    token_set(&answer, context)
}

/// Sends a revocation: one request. An answer of 2xx is success, also for a token that was not known (RFC 7009 section 2.2).
pub async fn revoke(http: &HttpClient, request: &Post) -> Result<(), AuthError> {
    let doing = "revoking the token";
    let answer = wire::post(http, request, doing).await?;
    token::revoked(&answer, doing)
}
