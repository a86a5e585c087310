//! skeleton

pub mod cli;
pub mod log;
pub mod secret;
