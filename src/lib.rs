#![forbid(unsafe_code)]
pub mod message;
