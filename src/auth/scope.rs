//! Scopes: which are asked for, and when more are (MCP 2026-07-28 "Scope Selection Strategy", "Step-Up Authorization Flow"). Pure.

use std::fmt;

/// Most scopes in one set. Those beyond are left out.
pub const MAX_SCOPES: usize = 512;
/// Longest scope, in bytes. A longer one is left out.
pub const MAX_SCOPE: usize = 1024;

/// Asks for a refresh token (OIDC Core section 11).
pub const OFFLINE_ACCESS: &str = "offline_access";

/// A set of scopes in the order in which they were named, each once. Case matters (RFC 6749 section 3.3).
#[derive(Clone, Debug, Default)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// The scopes of a `scope` value. What is no scope token (RFC 6749 appendix A.4) is left out.
    pub fn parse(text: &str) -> Self {
        Self::of([text])
    }

    /// The scopes of a list, whose entries may themselves be lists separated by blanks.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        let mut out = Self::default();
        for token in entries.into_iter().flat_map(str::split_ascii_whitespace) {
            out.insert(token);
        }
        out
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds this scope.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.iter().any(|one| one == scope)
    }

    /// Whether it holds all of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|one| self.contains(one))
    }

    /// These and the others.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for scope in &other.0 {
            out.insert(scope);
        }
        out
    }

    /// These without one.
    #[must_use]
    pub fn without(&self, scope: &str) -> Self {
        Self(self.0.iter().filter(|one| *one != scope).cloned().collect())
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn insert(&mut self, scope: &str) {
        let fits = !scope.is_empty() && scope.len() <= MAX_SCOPE && scope.bytes().all(is_scope);
        if fits && self.0.len() < MAX_SCOPES && !self.contains(scope) {
            self.0.push(scope.to_owned());
        }
    }
}

/// As in a `scope` parameter.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { " " };
            write!(f, "{separator}{scope}")?;
        }
        Ok(())
    }
}

/// As sets: order does not matter.
impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.covers(other)
    }
}

impl Eq for Scopes {}

/// RFC 6749 appendix A.4: printable ASCII but for the blank, the quote and the backslash.
fn is_scope(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

/// What may name the scopes of a first sign-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The user's own, by an option.
    pub configured: Option<&'a Scopes>,
    /// `scope` of the challenge.
    pub challenge: Option<&'a Scopes>,
    /// `scopes_supported` of the resource. An empty list names none.
    pub resource: Option<&'a Scopes>,
    /// `scopes_supported` of the authorization server. It says whether `offline_access` is offered, nothing else: who asks for
    /// all that a server can give asks for too much.
    pub authorization_server: Option<&'a Scopes>,
    /// `offline_access` means nothing to this provider ([`Quirks::no_offline_access`](super::providers::Quirks)).
    pub no_offline_access: bool,
}

/// The scopes to ask for; `None` leaves the parameter out, and the server's default holds.
///
/// `offline_access` joins scopes that somebody named. Alone it would replace the server's default by nothing.
pub fn select(sources: &Sources<'_>) -> Option<Scopes> {
    let named = [sources.configured, sources.challenge, sources.resource];
    let chosen = named.into_iter().flatten().find(|scopes| !scopes.is_empty())?;
    with_offline_access(chosen, sources)
}

/// The scopes of a step-up: all that were asked for before, and what the challenge asks for.
///
/// Never fewer than before, or a server with a challenge for each operation would play one permission against the other.
pub fn step_up(requested: Option<&Scopes>, sources: &Sources<'_>) -> Option<Scopes> {
    let challenged = select(&Sources { configured: None, ..*sources });
    match (requested, challenged) {
        (Some(before), Some(more)) => with_offline_access(&before.union(&more), sources),
        (Some(before), None) => Some(before.clone()),
        (None, more) => more,
    }
}

/// Whether signing in again for a challenge can change anything: it asks for a scope that was not granted.
///
/// Where nobody says what was granted or is wanted, one try is worth it; the caller counts tries.
pub fn step_up_may_help(granted: Option<&Scopes>, challenged: Option<&Scopes>) -> bool {
    match (granted, challenged) {
        (Some(granted), Some(challenged)) => !granted.covers(challenged),
        _ => true,
    }
}

fn with_offline_access(scopes: &Scopes, sources: &Sources<'_>) -> Option<Scopes> {
    let mut scopes = scopes.clone();
    if sources.no_offline_access {
        scopes = scopes.without(OFFLINE_ACCESS);
    } else if sources.authorization_server.is_some_and(|offered| offered.contains(OFFLINE_ACCESS)) {
        scopes.insert(OFFLINE_ACCESS);
    }
    (!scopes.is_empty()).then_some(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Scopes {
        Scopes::parse(text)
    }

    #[test]
    fn sets() {
        assert_eq!(set(" b  a\tb\n").to_string(), "b a");
        assert_eq!(set("a b"), set("b a"));
        assert_ne!(set("a"), set("A"));
        assert_ne!(set("a"), set("a b"));
        assert_eq!(set("a \"b\" c\\d \u{e4} e\u{1b}f g").to_string(), "a g");
        assert_eq!(Scopes::of(["a b", "", "c"]), set("a b c"));
        assert!(set("a b").covers(&set("b")) && !set("b").covers(&set("a b")) && set("").covers(&set("")));
        assert_eq!(set("a b").union(&set("b c")).to_string(), "a b c");
        assert_eq!(set(&"x".repeat(MAX_SCOPE)).iter().count(), 1);
        assert_eq!(set(&"x".repeat(MAX_SCOPE + 1)).iter().count(), 0);
        let many: Vec<String> = (0..=MAX_SCOPES).map(|n| n.to_string()).collect();
        assert_eq!(set(&many.join(" ")).iter().count(), MAX_SCOPES);
    }

    /// What each source names: configured, challenge, resource, authorization server; no offline access; what is wanted.
    type Case<'a> = ([Option<&'a str>; 4], bool, Option<&'a str>);

    #[test]
    fn selection() {
        #[rustfmt::skip]
        let table: &[Case<'_>] = &[
            ([None, Some("c"), Some("r1 r2"), Some("a")], false, Some("c")),
            ([None, None, Some("r1 r2"), Some("a")], false, Some("r1 r2")),
            ([None, Some(""), Some("r"), None], false, Some("r")),
            ([None, None, Some(""), Some("a b")], false, None),
            ([None, None, None, Some("a b offline_access")], false, None),
            ([Some("u"), Some("c"), Some("r"), None], false, Some("u")),
            ([None, Some("c"), None, Some("offline_access a")], false, Some("c offline_access")),
            ([None, Some("c offline_access"), None, Some("offline_access")], false, Some("c offline_access")),
            ([None, Some("c offline_access"), None, None], false, Some("c offline_access")),
            ([None, Some("c offline_access"), None, Some("offline_access")], true, Some("c")),
            ([None, Some("offline_access"), None, None], true, None),
        ];
        for (named, no_offline_access, want) in table {
            let owned = named.map(|text| text.map(set));
            let [configured, challenge, resource, authorization_server] = owned.each_ref().map(Option::as_ref);
            let sources = Sources {
                configured,
                challenge,
                resource,
                authorization_server,
                no_offline_access: *no_offline_access,
            };
            assert_eq!(select(&sources), want.map(set), "{sources:?}");
        }
    }

    #[test]
    fn step_up_never_loses_a_scope() {
        let (challenge, offered) = (set("write"), set("offline_access"));
        let sources = Sources { challenge: Some(&challenge), ..Sources::default() };
        assert_eq!(step_up(Some(&set("read")), &sources).unwrap().to_string(), "read write");
        assert_eq!(step_up(None, &sources), Some(set("write")));
        let silent = Sources::default();
        assert_eq!(step_up(Some(&set("read")), &silent), Some(set("read")));
        assert_eq!(step_up(None, &silent), None);
        let offline = Sources { authorization_server: Some(&offered), ..sources };
        assert_eq!(step_up(Some(&set("read")), &offline), Some(set("read write offline_access")));
    }

    #[test]
    fn a_step_up_that_changes_nothing_is_seen() {
        assert!(step_up_may_help(Some(&set("read")), Some(&set("write"))));
        assert!(!step_up_may_help(Some(&set("read write")), Some(&set("write"))));
        assert!(step_up_may_help(None, Some(&set("write"))));
        assert!(step_up_may_help(Some(&set("read")), None));
    }
}
