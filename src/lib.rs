//! skeleton
/// The one HTTP client of the program: TLS, proxies, redirects, cookies, limits and the URL policy.
pub mod http;
