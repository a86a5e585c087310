//! Signing in (OAuth 2.1 as MCP uses it).
//!
//! The browser is sent to the authorization server and comes back to a listener on loopback (RFC 8252). What comes back is
//! judged by pure functions; the listener and the start of the browser are the only parts here that touch the system.

pub mod browser;
pub mod callback;
pub mod page;
pub mod redirect;
