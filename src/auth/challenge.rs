//! `WWW-Authenticate` (RFC 9110 section 11.6.1): what a 401 or 403 asks for. Pure.
//!
//! The field is a list of challenges, and each may hold a list of parameters, both separated by commas; several fields are
//! one list. So it is read as a grammar: a `resource_metadata` inside a quoted string, or among the parameters of another
//! scheme, is not ours. What does not fit the grammar is skipped up to the next comma; missing commas are forgiven.

/// Bytes of all fields together that are read. What lies beyond is as if it had not been sent.
pub const MAX_FIELDS: usize = 64 * 1024;
/// Most challenges that are kept.
pub const MAX_CHALLENGES: usize = 16;
/// Longest value of a parameter that is kept, in bytes after unescaping. A longer one is as if it had not been sent.
pub const MAX_VALUE: usize = 8 * 1024;

/// RFC 6750 section 3.1.
const KNOWN_ERRORS: [&str; 3] = ["invalid_request", "invalid_token", "insufficient_scope"];

/// The schemes that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 9449.
    Dpop,
}

/// A challenge of a scheme that is understood, with the parameters that mean something here. Of a parameter that is
/// given twice (which RFC 9110 forbids) the first counts. Nothing of it has been judged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Scheme.
    pub scheme: Scheme,
    /// `error` (RFC 6750 section 3.1), as `invalid_token` or `insufficient_scope`.
    pub error: Option<String>,
    /// `scope` (RFC 6750 section 3), a list separated by blanks.
    pub scope: Option<String>,
    /// `resource_metadata` (RFC 9728 section 5.1), a URL.
    pub resource_metadata: Option<String>,
    /// `error_description`, a text for developers.
    pub error_description: Option<String>,
}

impl Challenge {
    fn new(scheme: Scheme) -> Self {
        Self { scheme, error: None, scope: None, resource_metadata: None, error_description: None }
    }

    fn set(&mut self, name: &[u8], value: Option<String>) {
        let place = if name.eq_ignore_ascii_case(b"error") {
            &mut self.error
        } else if name.eq_ignore_ascii_case(b"scope") {
            &mut self.scope
        } else if name.eq_ignore_ascii_case(b"resource_metadata") {
            &mut self.resource_metadata
        } else if name.eq_ignore_ascii_case(b"error_description") {
            &mut self.error_description
        } else {
            return;
        };
        if place.is_none() {
            *place = value;
        }
    }

    /// Whether the token is good and only its scope is too small (RFC 6750 section 3.1): step-up helps, a refresh does not.
    pub fn is_insufficient_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }
}

/// The challenges in the values of a response's `WWW-Authenticate` fields, in their order.
pub fn parse<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut out = Vec::new();
    let mut left = MAX_FIELDS;
    for field in fields {
        let field = field.get(..left).unwrap_or(field);
        left -= field.len();
        Reader { rest: field }.challenges(&mut out);
    }
    out
}

/// The challenge to act on: one that asks for more scope, else one that says where the metadata is, else the first;
/// Bearer before `DPoP` among equals.
pub fn select(challenges: &[Challenge]) -> Option<&Challenge> {
    // `min_by_key` keeps the first of equals.
    challenges
        .iter()
        .min_by_key(|one| (!one.is_insufficient_scope(), one.resource_metadata.is_none(), one.scheme != Scheme::Bearer))
}

/// What was asked for, for the log: schemes, the names of parameters, and `error` where it is one that RFC 6750 section 3.1 knows. No other
/// value, because a server may put anything there.
pub fn summary(challenges: &[Challenge]) -> String {
    let one = |challenge: &Challenge| {
        let scheme = match challenge.scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        };
        let error = challenge.error.as_deref().map(|error| match KNOWN_ERRORS.iter().find(|known| **known == error) {
            Some(known) => format!("error={known}"),
            None => "error".to_owned(),
        });
        let present = |name: &str, value: &Option<String>| value.as_ref().map(|_| name.to_owned());
        let names: Vec<String> = [
            error,
            present("error_description", &challenge.error_description),
            present("scope", &challenge.scope),
            present("resource_metadata", &challenge.resource_metadata),
        ]
        .into_iter()
        .flatten()
        .collect();
        if names.is_empty() { format!("{scheme} alone") } else { format!("{scheme} with {}", names.join(", ")) }
    };
    match challenges {
        [] => "no challenge that is understood".to_owned(),
        some => some.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn challenges(&mut self, out: &mut Vec<Challenge>) {
        // The challenge that parameters belong to; `None` before the first and within schemes that are not understood.
        let mut current: Option<Challenge> = None;
        loop {
            self.skip(|b| matches!(b, b' ' | b'\t' | b','));
            if self.rest.is_empty() {
                break;
            }
            let name = self.take(is_token);
            if name.is_empty() {
                self.skip_element();
                continue;
            }
            if self.equals_sign() {
                let value = self.value();
                if let Some(challenge) = &mut current {
                    challenge.set(name, value);
                }
                continue;
            }
            out.extend(current.take());
            if out.len() >= MAX_CHALLENGES {
                return;
            }
            current = scheme(name).map(Challenge::new);
            self.skip_token68();
        }
        out.extend(current);
    }

    /// After `BWS "=" BWS`; nothing is consumed when there is none.
    fn equals_sign(&mut self) -> bool {
        let before = self.rest;
        self.skip(is_blank);
        if self.rest.first() != Some(&b'=') {
            self.rest = before;
            return false;
        }
        self.advance(1);
        self.skip(is_blank);
        true
    }

    /// A token or a quoted string; `None` when it is too long or does not end.
    fn value(&mut self) -> Option<String> {
        if self.rest.first() != Some(&b'"') {
            // Wider than a token, because servers leave the quotes out around URLs.
            let value = self.take(|b| !matches!(b, b',' | b' ' | b'\t' | b'"'));
            return (value.len() <= MAX_VALUE).then(|| String::from_utf8_lossy(value).into_owned());
        }
        self.advance(1);
        let mut value = Vec::new();
        loop {
            let plain = self.take(|b| b != b'"' && b != b'\\');
            value.extend_from_slice(plain);
            match self.rest {
                [b'\\', escaped, ..] => {
                    value.push(*escaped);
                    self.advance(2);
                }
                [b'"', ..] => {
                    self.advance(1);
                    return (value.len() <= MAX_VALUE).then(|| String::from_utf8_lossy(&value).into_owned());
                }
                // It never ends: whatever follows is inside of it.
                _ => {
                    self.rest = &[];
                    return None;
                }
            }
        }
    }

    /// The one value that some schemes have instead of parameters, as in `Negotiate YII=`.
    fn skip_token68(&mut self) {
        let before = self.rest;
        self.skip(is_blank);
        let letters = self.take(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.skip(|b| b == b'=');
        self.skip(is_blank);
        if letters.is_empty() || !matches!(self.rest.first(), None | Some(b',')) {
            self.rest = before;
        }
    }

    /// Up to the next comma outside of quotes.
    fn skip_element(&mut self) {
        loop {
            self.skip(|b| b != b',' && b != b'"');
            if self.rest.first() != Some(&b'"') {
                return;
            }
            self.value();
        }
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|&b| !wanted(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        self.take(unwanted);
    }

    fn advance(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

fn scheme(name: &[u8]) -> Option<Scheme> {
    if name.eq_ignore_ascii_case(b"bearer") {
        Some(Scheme::Bearer)
    } else if name.eq_ignore_ascii_case(b"dpop") {
        Some(Scheme::Dpop)
    } else {
        None
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Entry point for fuzzing: fields are the lines of the input.
///
/// # Panics
///
/// When a promise of this module is broken.
#[doc(hidden)]
pub fn fuzz_challenge(data: &[u8]) {
    let fields: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    let challenges = parse(fields.iter().copied());
    assert!(challenges.len() <= MAX_CHALLENGES + fields.len());
    for one in &challenges {
        let values = [&one.error, &one.scope, &one.resource_metadata, &one.error_description];
        for value in values.into_iter().flatten() {
            // A replacement character is three bytes for at least one.
            assert!(value.len() <= MAX_VALUE * 3 && value.len() <= data.len() * 3);
        }
    }
    assert_eq!(select(&challenges).is_some(), !challenges.is_empty());
    // The same challenges come out of what they say, however it is quoted.
    let again: Vec<String> = challenges.iter().map(quoted).collect();
    if data.len() * 3 <= MAX_VALUE && challenges.len() < MAX_CHALLENGES {
        let joined = again.join(", ");
        assert_eq!(parse([joined.as_bytes()]), challenges, "{joined}");
    }
}

fn quoted(challenge: &Challenge) -> String {
    let mut out = match challenge.scheme {
        Scheme::Bearer => "Bearer".to_owned(),
        Scheme::Dpop => "DPoP".to_owned(),
    };
    let parameters = [
        ("error", &challenge.error),
        ("scope", &challenge.scope),
        ("resource_metadata", &challenge.resource_metadata),
        ("error_description", &challenge.error_description),
    ];
    let mut separator = " ";
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        out.extend([separator, name, "=\"", &value, "\""]);
        separator = ", ";
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_log_gets_names_and_known_errors_alone() {
        let of = |field: &str| summary(&parse([field.as_bytes()]));
        assert_eq!(of(""), "no challenge that is understood");
        assert_eq!(of("Basic realm=x"), "no challenge that is understood");
        assert_eq!(of("Bearer"), "Bearer alone");
        assert_eq!(
            of(
                r#"Bearer error="invalid_token", error_description="s3cr3t", scope="s3cr3t", resource_metadata="https://s3cr3t""#
            ),
            "Bearer with error=invalid_token, error_description, scope, resource_metadata"
        );
        assert_eq!(of("Bearer error=s3cr3t, DPoP realm=s3cr3t"), "Bearer with error; DPoP alone");
    }

    fn one(field: &str) -> Vec<Challenge> {
        parse([field.as_bytes()])
    }

    #[test]
    fn limits_are_reached() {
        let at = format!("Bearer scope=\"{}\"", "a".repeat(MAX_VALUE));
        assert_eq!(one(&at)[0].scope.as_ref().unwrap().len(), MAX_VALUE);
        let over = format!("Bearer scope=\"{}\", error=x", "a".repeat(MAX_VALUE + 1));
        assert_eq!((&one(&over)[0].scope, one(&over)[0].error.as_deref()), (&None, Some("x")));
        let unquoted = format!("Bearer scope={}, error=x", "a".repeat(MAX_VALUE + 1));
        assert_eq!((&one(&unquoted)[0].scope, one(&unquoted)[0].error.as_deref()), (&None, Some("x")));
        assert_eq!(one(&"Bearer, ".repeat(MAX_CHALLENGES)).len(), MAX_CHALLENGES);
        assert_eq!(one(&"Bearer, ".repeat(MAX_CHALLENGES + 9)).len(), MAX_CHALLENGES);
        // The budget is one for all fields.
        let filler = "x".repeat(MAX_FIELDS - 6);
        assert_eq!(parse([filler.as_bytes(), b"Bearer", b"DPoP"]).len(), 1);
        assert_eq!(parse([filler.as_bytes(), b" Bearer"]).len(), 0);
    }

    #[test]
    fn a_megabyte_is_read_in_linear_time() {
        for piece in ["Bearer ", "a=\"", "\\", "\"", ",", "=", "\"\\\"", "Basic a,"] {
            let field = piece.repeat((1 << 20) / piece.len());
            let start = Instant::now();
            parse([field.as_bytes()]);
            assert!(start.elapsed() < Duration::from_secs(2), "{piece:?}");
        }
    }

    #[test]
    fn the_most_telling_challenge_is_taken() {
        let of = |field: &str| select(&one(field)).map(|one| (one.scheme, one.error.clone(), one.scope.clone()));
        assert_eq!(of("Basic realm=x"), None);
        assert_eq!(of("DPoP, Bearer scope=a"), Some((Scheme::Bearer, None, Some("a".to_owned()))));
        assert_eq!(of("Bearer scope=a, DPoP scope=b, resource_metadata=u").unwrap().0, Scheme::Dpop);
        let asked = of("Bearer resource_metadata=u, Bearer error=insufficient_scope, scope=w").unwrap();
        assert_eq!((asked.1.as_deref(), asked.2.as_deref()), (Some("insufficient_scope"), Some("w")));
    }

    proptest::proptest! {
        #[test]
        fn any_value_survives_quoting(value in "[ -~\u{e4}]{0,40}", other in "[a-zA-Z ,=\"\\\\]{0,30}") {
            let challenge = Challenge { scope: Some(value), ..Challenge::new(Scheme::Bearer) };
            let other = other.replace('\\', "\\\\").replace('"', "\\\"");
            let field = format!("Basic realm=\"{other}\", {}", quoted(&challenge));
            assert_eq!(one(&field), [challenge]);
        }
    }
}
