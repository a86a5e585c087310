//! Signing in: what a server's 401 asks for, and the requests that answer it.
//!
//! What the specification wants (MCP 2026-07-28 "Authorization", with the RFCs that it names), and what its users need:
//!
//! 1. A 401 or 403 carries a challenge ([`challenge`]). It may say where the protected resource's metadata is.
//! 2. That document says which authorization servers may be asked, and what the resource is called ([`resource`]).
//! 3. The authorization server's own metadata says where its endpoints are ([`issuer`]). Servers of 2025-03-26 have no
//!    resource metadata: there the server's own origin is the authorization server.
//! 4. A client id: the user's, a URL, or a registration ([`registration`]).
//! 5. The scopes ([`scope`]), the authorization URL, the judged callback, the tokens, their refresh and revocation ([`grant`]).
//! 6. What some providers do otherwise ([`providers`]).
//!
//! All that decides is pure: bytes and strings in, a value or a refusal out; time and randomness are arguments. What asks
//! is one request deep (`wire`), over the program's one HTTP client. The browser is sent away by [`browser`] and comes back to
//! a listener on loopback ([`redirect`], RFC 8252), whose requests [`callback`] judges and [`page`] answers. Not here yet: the
//! order of the steps and the store. Until they are, nothing of this runs in the bridge.
//!
//! Three rules hold everywhere:
//! - Names are opaque. Resource, issuer and client id are compared and sent byte for byte as they were published.
//! - Credentials are bound. A client, a code or a refresh token carries its issuer, and no request for another can be built.
//! - Every refusal ([`AuthError`]) names its rule, the two strings that differ, and who must mend it; none holds a secret.

mod authorizer;
pub mod browser;
pub mod callback;
pub mod challenge;
mod document;
mod error;
pub mod grant;
pub mod issuer;
pub mod options;
pub mod page;
pub mod providers;
pub mod redirect;
pub mod registration;
pub mod resource;
pub mod scope;
pub mod wire;

pub use authorizer::{Attempt, Authorizer, Errand, LoggedIn, LoggedOut, Messenger, Verdict};
pub use error::{AuthError, Fault, Mender};
