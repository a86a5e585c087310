//! The loopback redirect (RFC 8252 sections 7.3 and 8.3): where the browser comes back to after the sign-in.
//!
//! Order matters: [`Listener::bind`] first, then the redirect URI is named, then the browser opens. So the browser is never
//! sent to a port that somebody else holds. [`Listener::serve`] then answers:
//!
//! - a request that is not the pending sign-in's answer (other path, method, `Host`, `state`) gets a small page that names
//!   nobody, and is **ignored**: the sign-in goes on;
//! - the first answer with the right `state` goes to the owner as a [`Callback`]. The browser waits, bounded, until the
//!   owner says with [`Responder::finish`] what became of the token exchange;
//! - the same answer again (the page is reloaded) shows the same outcome; a different one with the same `state` is refused.
//!
//! What a request is worth is decided by the pure functions of `auth/callback.rs`.

mod bind;
mod connection;
mod serve;

pub use bind::{BindError, CANDIDATES, Listener, PortChoice};
pub use serve::{Callback, LINGER, MAX_CONNECTIONS, Outcome, Responder, Serving, Settings};
