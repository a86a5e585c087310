//! Credentials that are not signed in for (A9): they go to the server's origin alone.

pub mod command;
