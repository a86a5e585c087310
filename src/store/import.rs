//! Takes over the sign-ins of mcp-remote, so that switching costs none. Only reads: nothing there is changed or deleted.
//!
//! mcp-remote 0.15.1 keeps `<hash>_tokens.json` and `<hash>_client_info.json` in `mcp-remote-v1`, older versions in
//! `mcp-remote-<version>`. The files do not say which server they are for: the hash is made of the server's URL and some
//! options, so they are found by the ones that the user still uses ([`Candidate`]).

mod candidate;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::contents::{Account, AccountKey, Contents, Extra, Registration, Tokens};
use crate::secret::{SafeText, Secret};

pub use candidate::{Candidate, directory};

/// Bytes of one file.
const MAX_FILE: u64 = 256 * 1024;
/// Names that are looked at in one directory.
const MAX_NAMES: usize = 8192;
/// Versions whose directories are looked into.
const MAX_VERSIONS: usize = 64;
/// The directory of the present format.
const CURRENT: &str = "mcp-remote-v1";

/// Why a file was not taken whose server is not known.
pub const UNKNOWN_SERVER: &str = "no server address that was given is the one this file was made for";

/// Why a sign-in was not taken that is here already.
const HAS_SIGN_IN: &str = "there is a sign-in for this server already";
/// Why a registration was not taken that is here already.
const HAS_REGISTRATION: &str = "this registration is known already";

/// A file that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

impl Left {
    /// It is not needed: what it holds is here, or something newer.
    pub fn is_here(&self) -> bool {
        self.why == HAS_SIGN_IN || self.why == HAS_REGISTRATION
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Sign-ins, with the file that each is from.
    pub accounts: Vec<(PathBuf, Account)>,
    /// Client registrations, with the file that each is from.
    pub registrations: Vec<(PathBuf, Registration)>,
    /// What cannot be taken.
    pub left: Vec<Left>,
}

/// What [`Found::apply`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were taken.
    pub taken: Vec<PathBuf>,
    /// Files that were not.
    pub left: Vec<Left>,
}

#[derive(Deserialize)]
struct TokensFile {
    access_token: String,
    token_type: Option<String>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    scope: Option<String>,
    requested_scope: Option<String>,
    expires_at: Option<f64>,
    expires_in: Option<f64>,
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct ClientFile {
    client_id: String,
    client_secret: Option<String>,
    client_secret_expires_at: Option<f64>,
    client_id_issued_at: Option<f64>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    scope: Option<String>,
    issuer: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveryFile {
    authorization_server_url: Option<String>,
    resource_metadata: Option<ResourceMetadata>,
}

#[derive(Deserialize)]
struct ResourceMetadata {
    resource: Option<String>,
}

/// Reads the directory. `now` is the Unix time in seconds.
///
/// An error is about the directory itself; what is wrong with a file is in [`Found::left`].
pub fn read(directory: &Path, candidates: &[Candidate], now: u64) -> io::Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for version in versions(directory)? {
        let names = names(&version)?;
        for name in &names {
            let Some((hash, kind)) = name.split_once('_').filter(|(hash, _)| is_hash(hash)) else { continue };
            if !matches!(kind, "tokens.json" | "client_info.json") || !seen.insert((hash.to_owned(), kind.to_owned())) {
                continue;
            }
            let file = version.join(name);
            let candidate = candidates.iter().find(|candidate| candidate.hashes().iter().any(|its| its == hash));
            let taken = match (candidate, kind) {
                (None, _) => Err(UNKNOWN_SERVER.into()),
                (Some(candidate), "tokens.json") => account(&version, &names, hash, candidate, now)
                    .map(|account| found.accounts.push((file.clone(), account))),
                (Some(_), _) => registration(&version, &names, hash, now)
                    .map(|registration| found.registrations.push((file.clone(), registration))),
            };
            if let Err(why) = taken {
                found.left.push(Left { file, why });
            }
        }
    }
    Ok(found)
}

impl Found {
    /// Puts what was found into the store. What is there already stays: it is newer.
    pub fn apply(self, contents: &mut Contents, now: u64) -> Report {
        let mut report = Report { taken: Vec::new(), left: self.left };
        for (file, account) in self.accounts {
            let dead = account.tokens.refresh.as_ref().is_some_and(|token| contents.is_dead(token));
            let why = if contents.account(&account.key).is_some() {
                HAS_SIGN_IN
            } else if dead {
                "its refresh token was used up or taken back"
            } else {
                contents.put_account(account, now);
                report.taken.push(file);
                continue;
            };
            report.left.push(Left { file, why: why.into() });
        }
        for (file, registration) in self.registrations {
            if contents.registration_of(&registration.issuer, &registration.client_id).is_some() {
                report.left.push(Left { file, why: HAS_REGISTRATION.into() });
            } else {
                contents.put_registration(registration);
                report.taken.push(file);
            }
        }
        report
    }
}

fn account(version: &Path, names: &[String], hash: &str, candidate: &Candidate, now: u64) -> Result<Account, String> {
    let file: TokensFile = json(&version.join(format!("{hash}_tokens.json")))?;
    let discovery = discovery(version, names, hash);
    if file.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("its token is of a kind that mcp-drawbridge does not know".into());
    }
    let secret = |text: String| token(&text).map(|()| Secret::new(text));
    let access = secret(file.access_token)?;
    let refresh = file.refresh_token.map(secret).transpose()?;
    let id_token = file.id_token.map(secret).transpose()?;
    // mcp-remote counts in milliseconds.
    let expires_at = file.expires_at.map(|end| seconds(end / 1000.0));
    if refresh.is_none() && expires_at.is_some_and(|end| end <= now) {
        return Err("its token has expired and cannot be refreshed".into());
    }
    let issuer = file.issuer.or_else(|| discovery.as_ref().and_then(|it| it.authorization_server_url.clone()));
    let issuer = checked_issuer(issuer)?;
    let client = json::<ClientFile>(&version.join(format!("{hash}_client_info.json"))).ok();
    // A refresh token works for its client alone (RFC 6749 section 6).
    let client_id = client
        .filter(|client| client.issuer.as_ref().is_none_or(|its| same_issuer(its, &issuer)))
        .map(|client| client.client_id);
    if client_id.is_none() && refresh.is_some() && candidate.client_metadata_url.is_none() {
        return Err("the client that it was given to is not known (no client_info.json of the same issuer)".into());
    }
    let published = discovery.and_then(|it| it.resource_metadata).and_then(|it| it.resource);
    let resource = candidate.resource.clone().or(published).unwrap_or_else(|| candidate.server.clone());
    let lifetime = file.expires_in.map(seconds);
    let obtained_at = expires_at.zip(lifetime).map_or(now, |(end, lifetime)| end.saturating_sub(lifetime)).min(now);
    Ok(Account {
        key: AccountKey { issuer, resource: resource.trim().to_owned(), profile: candidate.profile.clone() },
        client_id: client_id.or_else(|| candidate.client_metadata_url.clone()).unwrap_or_default(),
        tokens: Tokens {
            access,
            refresh,
            id_token,
            obtained_at,
            expires_at,
            granted_scope: file.scope,
            requested_scope: file.requested_scope,
            extra: Extra::default(),
        },
        signed_in_at: obtained_at,
        sign_in: None,
        extra: Extra::default(),
    })
}

fn registration(version: &Path, names: &[String], hash: &str, now: u64) -> Result<Registration, String> {
    let file: ClientFile = json(&version.join(format!("{hash}_client_info.json")))?;
    token(&file.client_id).map_err(|_| "its client id has characters that no client id has")?;
    if let Some(secret) = &file.client_secret {
        token(secret).map_err(|_| "its secret has characters that no secret has")?;
    }
    // RFC 7591 section 3.2.1: 0 is never.
    let ends = file.client_secret_expires_at.map(seconds).filter(|end| *end > 0);
    if file.client_secret.is_some() && ends.is_some_and(|end| end <= now) {
        return Err("its client secret has expired".into());
    }
    let known = || discovery(version, names, hash).and_then(|it| it.authorization_server_url);
    let tokens = || json::<TokensFile>(&version.join(format!("{hash}_tokens.json"))).ok().and_then(|it| it.issuer);
    Ok(Registration {
        issuer: checked_issuer(file.issuer.or_else(tokens).or_else(known))?,
        client_id: file.client_id,
        client_secret: file.client_secret.map(Secret::new),
        secret_expires_at: ends,
        redirect_uris: file.redirect_uris,
        token_endpoint_auth_method: file.token_endpoint_auth_method,
        scope: file.scope,
        registered_at: file.client_id_issued_at.map_or(now, seconds).min(now),
        pre_registered: false,
        extra: Extra::default(),
    })
}

fn discovery(version: &Path, names: &[String], hash: &str) -> Option<DiscoveryFile> {
    let prefix = format!("{hash}_discovery_state_");
    let mut files = names.iter().filter(|name| name.starts_with(&prefix));
    files.find_map(|name| json(&version.join(name)).ok())
}

/// A refresh token and a client secret go to the issuer they belong to and to no other (H3): who that is must be known.
fn checked_issuer(issuer: Option<String>) -> Result<String, String> {
    let text = issuer.ok_or("it does not say which authorization server it is from; sign in once")?;
    let bad = || format!("its authorization server {} is no https address", SafeText(&text));
    let url = Url::parse(&text).map_err(|_| bad())?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(|it: char| it.is_control() || it.is_whitespace() || it == '\\');
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if plain && scheme { Ok(text) } else { Err(bad()) }
}

/// mcp-remote compares so.
fn same_issuer(one: &str, other: &str) -> bool {
    one.strip_suffix('/').unwrap_or(one) == other.strip_suffix('/').unwrap_or(other)
}

/// What may stand in a header (RFC 6750 section 2.1, RFC 6749 appendix A: visible ASCII).
fn token(text: &str) -> Result<(), String> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(()) } else { Err("its token has characters that no token has".into()) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
fn seconds(number: f64) -> u64 {
    number as u64
}

fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The directories, the newest version first.
fn versions(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut versions: Vec<(bool, Vec<u64>, String)> = names(directory)?
        .into_iter()
        .filter_map(|name| {
            let version = name.strip_prefix("mcp-remote-")?;
            let numbers = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
            Some((name == CURRENT, numbers, name.clone()))
        })
        .collect();
    versions.sort();
    let newest = versions.into_iter().rev().map(|(_, _, name)| directory.join(name));
    Ok(newest.filter(|path| path.is_dir()).take(MAX_VERSIONS).collect())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.take(MAX_NAMES).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// A reason never quotes the file: it is full of secrets.
fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(&metadata) != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".into());
    }
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err("it is too large, or no file".into());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    serde_json::from_slice(&bytes).map_err(|_| "it is not what mcp-remote writes".into())
}

#[cfg(test)]
mod tests;
