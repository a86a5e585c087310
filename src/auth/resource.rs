//! Protected resource metadata (RFC 9728): where it is, what it must say, which authorization server it leads to. Pure.
//!
//! The name of the resource is what tokens are bound to. A server that may publish another's name gets tokens for that
//! other, so the name must be the server's own URL (section 3.3). At the root of an origin it may also be the origin, or a
//! path above the server: whoever writes there speaks for all of it.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    document,
    error::{AuthError, Mender},
    issuer::Issuer,
    scope::Scopes,
};
use crate::http::guard::{self, Policy, Purpose};
use crate::secret::without_keys_of;

/// RFC 9728 section 3.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// Option that names the resource.
const RESOURCE_FLAG: &str = "--resource";
const WHAT: &str = "the resource metadata";

/// The name of a resource as it was published, byte for byte: `https://a.example` stays without the slash that a URL
/// parser would add.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceUri(String);

impl ResourceUri {
    /// The user's own choice (`--resource`): an absolute URI without fragment (RFC 8707 section 2), of any scheme.
    pub fn configured(text: &str) -> Result<Self, AuthError> {
        let refuse = |why: &str| Err(AuthError::new("resource-form", Mender::User, format!("{RESOURCE_FLAG}: {why}")));
        if text.len() > guard::MAX_URL {
            return refuse("it is too long");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("it has a character that does not belong into a URI");
        }
        match Url::parse(text) {
            Err(_) => refuse("it is not an absolute URI"),
            Ok(url) if url.fragment().is_some() => refuse("a resource has no fragment (RFC 8707 section 2)"),
            Ok(_) => Ok(Self(text.to_owned())),
        }
    }

    /// The name of a server that publishes none: its URL without fragment, and without the slash after an origin
    /// (MCP 2026-07-28 "Canonical Server URI").
    pub fn of_server(server: &Url) -> Self {
        let mut url = server.clone();
        url.set_fragment(None);
        let text = String::from(url);
        match text.strip_suffix('/') {
            Some(origin) if server.path() == "/" => Self(origin.to_owned()),
            _ => Self(text),
        }
    }

    /// One that was checked before, from the store.
    pub fn restored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name as published.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a place for the document was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `resource_metadata` of the challenge.
    Challenge,
    /// The well-known path with the server's own path after it.
    Path,
    /// The well-known path alone.
    Root,
}

/// A place where the document may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where to ask.
    pub url: Url,
    /// How it was come by. The challenge may name a well-known place; then this says which.
    pub place: Place,
}

/// The places to ask, in order.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// At most three, each once.
    pub list: Vec<Candidate>,
    /// Why the challenge's own URL is not among them. To be told when the others lead nowhere.
    pub refused: Option<AuthError>,
}

/// Where to ask for the document of `server`: the challenge's URL, the well-known place of its path, that of its root.
///
/// The challenge's URL is used within the server's own origin. Elsewhere it could make us ask whomever the server likes,
/// and would tell nothing that the well-known places cannot.
pub fn candidates(server: &Url, named: Option<&str>, policy: &Policy) -> Candidates {
    let path = well_known(server, true);
    let root = well_known(server, false);
    let place_of = |url: &Url, otherwise| match url {
        url if *url == root => Place::Root,
        url if *url == path => Place::Path,
        _ => otherwise,
    };
    let (mut list, mut refused) = (Vec::new(), None);
    match named.map(|text| challenged(text, server, policy)) {
        Some(Ok(url)) => list.push(Candidate { place: place_of(&url, Place::Challenge), url }),
        Some(Err(error)) => refused = Some(error),
        None => {}
    }
    for url in [path.clone(), root.clone()] {
        if !list.iter().any(|one| one.url == url) {
            list.push(Candidate { place: place_of(&url, Place::Path), url });
        }
    }
    Candidates { list, refused }
}

fn challenged(text: &str, server: &Url, policy: &Policy) -> Result<Url, AuthError> {
    let what = "resource_metadata of the challenge";
    let policy_error = |refusal| AuthError::from_policy(refusal, Mender::Server, what);
    // Absolute by RFC 9728 section 5.1; a relative one could mean several things.
    let url = guard::parse(text, None).map_err(policy_error)?;
    policy.check_url(&url, Purpose::Fetch).map_err(policy_error)?;
    if !policy.is_server(&url) {
        let error =
            AuthError::new("resource-metadata-origin", Mender::Server, format!("{what} is not on the server's origin"));
        return Err(error.with_differ(&origin(server), &origin(&url)));
    }
    Ok(url)
}

/// RFC 9728 section 3.1: between host and path, the query kept.
fn well_known(server: &Url, with_path: bool) -> Url {
    let mut url = server.clone();
    url.set_fragment(None);
    let path = if with_path && server.path() != "/" { server.path() } else { "" };
    url.set_path(&format!("{WELL_KNOWN}{path}"));
    if !with_path {
        url.set_query(None);
    }
    url
}

/// A document that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    /// Its name, for the `resource` parameter.
    pub resource: ResourceUri,
    /// The issuers that it trusts and that may be asked, in its order. Empty when it names none: then the server's own
    /// origin is the authorization server, as in 2025-03-26.
    pub authorization_servers: Vec<Issuer>,
    /// Entries that were left out, with the reason. Worth a line in the log.
    pub refused: Vec<AuthError>,
    /// `scopes_supported`; `None` when the member is absent.
    pub scopes_supported: Option<Scopes>,
    /// `dpop_bound_access_tokens_required` (RFC 9449).
    pub dpop_required: bool,
}

/// What the document holds that means something here.
#[derive(Deserialize)]
struct Document {
    resource: Option<Value>,
    authorization_servers: Option<Value>,
    scopes_supported: Option<Value>,
    dpop_bound_access_tokens_required: Option<Value>,
}

/// A document that did not pass.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Why.
    pub error: AuthError,
    /// Whether the next place may hold a better one. When none does, this error is told, and nothing older is tried.
    pub try_next: bool,
}

/// Most issuers of one document that are looked at.
pub const MAX_ISSUERS: usize = 16;

/// Judges the document that was found at a place.
pub fn validate(bytes: &[u8], found: &Candidate, server: &Url, policy: &Policy) -> Result<ProtectedResource, Rejected> {
    let stop = |error| Rejected { error, try_next: false };
    let next = |error| Rejected { error, try_next: true };
    let document: Document = document::object(bytes, WHAT, Mender::Server).map_err(next)?;
    let Some(published) = document::text(document.resource.as_ref()) else {
        let error = AuthError::new("resource-identical", Mender::Server, format!("{WHAT} names no resource"));
        return Err(next(error.with_differ(&server_name(server), "")));
    };
    let resource = judge_name(published, found.place, server)?;
    let (mut authorization_servers, mut refused) = (Vec::new(), Vec::new());
    for entry in
        document::list(document.authorization_servers.as_ref()).unwrap_or_default().into_iter().take(MAX_ISSUERS)
    {
        match Issuer::parse(entry, policy) {
            Ok(issuer) if authorization_servers.contains(&issuer) => {}
            Ok(issuer) => authorization_servers.push(issuer),
            Err(error) => refused.push(error),
        }
    }
    // None that may be asked is not the same as none named: no older way may be taken then.
    if let (true, Some(first)) = (authorization_servers.is_empty(), refused.first()) {
        return Err(stop(first.clone()));
    }
    Ok(ProtectedResource {
        resource,
        authorization_servers,
        refused,
        scopes_supported: document::list(document.scopes_supported.as_ref()).map(Scopes::of),
        dpop_required: document::flag(document.dpop_bound_access_tokens_required.as_ref()),
    })
}

fn judge_name(published: &str, place: Place, server: &Url) -> Result<ResourceUri, Rejected> {
    let refuse = |rule, message: String, try_next| {
        let found = without_keys_of(server, published);
        let error = AuthError::new(rule, Mender::Server, message).with_differ(&server_name(server), &found);
        Rejected { error, try_next }
    };
    let form = |why: &str| refuse("resource-form", format!("{WHAT} names a resource that is {why}"), false);
    let url = guard::parse(published, None).map_err(|_| form("no URL"))?;
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(form("no proper resource (RFC 8707 section 2)"));
    }
    if !guard::same_origin(&url, server) {
        return Err(refuse("resource-identical", format!("{WHAT} is for another server"), false));
    }
    if is_same(&url, server) {
        return Ok(ResourceUri(published.to_owned()));
    }
    if !is_above(&url, server) {
        let Rejected { error, try_next } =
            refuse("resource-identical", format!("{WHAT} is for another resource of this host"), true);
        let hint = "check the server's URL, perhaps it should be the second of these; else the MCP server's owner must mend it";
        return Err(Rejected { error: error.with_hint(hint), try_next });
    }
    if place == Place::Root {
        return Ok(ResourceUri(published.to_owned()));
    }
    // The same may stand at the root, where it is right. Elsewhere a part of a host would speak for all of it.
    let message = format!("{WHAT} names more than this server, which only the document at the root may");
    Err(refuse("resource-identical", message, true))
}

/// The same resource: equal as URLs, whatever the user's own query and one slash at the end, neither of which can lead to
/// another owner.
fn is_same(published: &Url, server: &Url) -> bool {
    let trimmed = |url: &Url| url.path().strip_suffix('/').unwrap_or(url.path()).to_owned();
    let query_fits = published.query().is_none() || published.query() == server.query();
    query_fits && trimmed(published) == trimmed(server)
}

/// An origin, or a path of whole segments above the server's.
fn is_above(published: &Url, server: &Url) -> bool {
    let above = published.path().strip_suffix('/').unwrap_or(published.path());
    published.query().is_none() && server.path().strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// The server's URL for a message: its query and its path may hold a key.
fn server_name(server: &Url) -> String {
    let mut url = server.clone();
    url.set_query(None);
    without_keys_of(server, &ResourceUri::of_server(&url).0)
}

fn origin(url: &Url) -> String {
    guard::Origin::of(url).map_or_else(String::new, |origin| origin.to_string())
}

/// The authorization server to ask: one that we have dealt with before, so that its credentials stay of use (RFC 9728
/// section 7.6 leaves the choice to us), else the first. `None` when the document names none.
pub fn choose<'a>(resource: &'a ProtectedResource, known: &[&str]) -> Option<&'a Issuer> {
    let listed = &resource.authorization_servers;
    listed.iter().find(|issuer| known.contains(&issuer.as_str())).or_else(|| listed.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn places(server: &str, named: Option<&str>) -> Vec<String> {
        let server = url(server);
        let policy = Policy::new(&server, false, false).unwrap();
        let found = candidates(&server, named, &policy);
        found.list.iter().map(|one| format!("{:?} {}", one.place, one.url)).collect()
    }

    #[test]
    fn places_in_order() {
        let well = "https://a.example/.well-known/oauth-protected-resource";
        let both = vec![format!("Path {well}/x/mcp"), format!("Root {well}")];
        assert_eq!(places("https://a.example/x/mcp", None), both);
        assert_eq!(places("https://a.example", None), [format!("Root {well}")]);
        assert_eq!(
            places("https://a.example/mcp/?k=1", None),
            [format!("Path {well}/mcp/?k=1"), format!("Root {well}")]
        );
        let custom = "https://a.example/custom/m.json";
        let mut three = vec![format!("Challenge {custom}")];
        three.extend(both.clone());
        assert_eq!(places("https://a.example/x/mcp", Some(custom)), three);
        // A well-known place in the challenge is that place, and is not asked twice.
        assert_eq!(places("https://a.example/x/mcp", Some(&format!("{well}/x/mcp"))), both);
        let root_first = vec![format!("Root {well}"), format!("Path {well}/x/mcp")];
        assert_eq!(places("https://a.example/x/mcp", Some(well)), root_first);
        for bad in
            ["https://b.example/m", "http://a.example/m", "file:///etc/passwd", "/m", "", "https://a.example:8443/m"]
        {
            assert_eq!(places("https://a.example/x/mcp", Some(bad)), both, "{bad}");
        }
    }

    #[test]
    fn names_of_servers_without_metadata() {
        assert_eq!(ResourceUri::of_server(&url("https://a.example/")).as_str(), "https://a.example");
        assert_eq!(ResourceUri::of_server(&url("https://a.example/mcp/#x")).as_str(), "https://a.example/mcp/");
        assert_eq!(ResourceUri::configured("api://one/two").unwrap().as_str(), "api://one/two");
        for bad in
            ["", "mcp.example", "https://a.example/#f", "https://a b", &format!("https://a/{}", "x".repeat(9000))]
        {
            assert_eq!(ResourceUri::configured(bad).unwrap_err().rule(), "resource-form", "{bad}");
        }
    }

    #[test]
    fn a_known_issuer_is_kept() {
        let server = url("https://a.example/mcp");
        let policy = Policy::new(&server, false, false).unwrap();
        let found = Candidate { url: server.clone(), place: Place::Path };
        let text = br#"{"resource":"https://a.example/mcp","authorization_servers":["https://one.example","https://two.example/","https://one.example"]}"#;
        let resource = validate(text, &found, &server, &policy).unwrap();
        assert_eq!(resource.authorization_servers.len(), 2);
        assert_eq!(choose(&resource, &[]).unwrap().as_str(), "https://one.example");
        assert_eq!(choose(&resource, &["https://two.example/"]).unwrap().as_str(), "https://two.example/");
        assert_eq!(choose(&resource, &["https://two.example"]).unwrap().as_str(), "https://one.example");
    }
}
