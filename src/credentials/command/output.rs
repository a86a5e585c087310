//! What a program prints → a token and its end. Pure.
//!
//! The program is the user's, but what it prints goes into a header: a token is what RFC 6750 section 2.1 allows, or nothing.
//!
//! | printed | by |
//! |---|---|
//! | the token on one line | `gcloud auth print-access-token`, `vault print token`, `op read` |
//! | a JSON text | `az account get-access-token --query accessToken` |
//! | a JSON object with `token`, `access_token` or `accessToken`, at the top or in `status` or `credential` | `az account get-access-token`, `gcloud config config-helper`, the `ExecCredential` of kubectl's plugins |
//!
//! The end is `expires_at`, `expires_on`, `expiry`, `token_expiry` or `expirationTimestamp` (RFC 3339, or seconds or milliseconds since
//! 1970) or `expires_in` (seconds), and `exp` of a token that is a JWT (RFC 7519 section 4.1.4, unverified). The earliest counts. It only says when
//! the program is asked again.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use crate::secret::Secret;

/// Longest token, in bytes: servers take no longer headers.
pub const MAX_TOKEN: usize = 16 * 1024;
/// From this number on it counts milliseconds: as seconds it is the year 5138.
const MILLISECONDS: f64 = 1e11;
/// The last second that is taken for a date: the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// A token.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The token itself, good for a header.
    pub token: Secret,
    /// When it ends, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// Why there is no token in it. `Display` is a clause for a person and holds nothing of what was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// Nothing was printed.
    Nothing,
    /// More than one line.
    Lines,
    /// More than one word: a name or a scheme stands before the token.
    Words,
    /// Longer than [`MAX_TOKEN`].
    TooLong,
    /// A character that no token has.
    Character,
    /// JSON, but not one of the forms.
    Json,
}

impl fmt::Display for NoToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("printed nothing"),
            Self::Lines => out.write_str("printed more than one line"),
            Self::Words => out.write_str("printed more than the token alone"),
            Self::TooLong => write!(out, "printed a token of more than {MAX_TOKEN} bytes"),
            Self::Character => out.write_str("printed a character that no token has"),
            Self::Json => out.write_str("printed JSON without a token in it"),
        }
    }
}

impl std::error::Error for NoToken {}

/// Reads it. `now` is in seconds since 1970.
pub fn parse(printed: &[u8], now: u64) -> Result<Bearer, NoToken> {
    let printed = printed.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(printed).trim_ascii();
    let text = std::str::from_utf8(printed).map_err(|_| NoToken::Character)?;
    match text.as_bytes() {
        [] => Err(NoToken::Nothing),
        [b'{', ..] => {
            let mut object: Map<String, Value> = serde_json::from_str(text).map_err(|_| NoToken::Json)?;
            let bearer = object_of(&object, now);
            object.iter_mut().for_each(|(_, value)| wipe(value));
            bearer
        }
        [b'"', ..] => {
            let token: String = serde_json::from_str(text).map_err(|_| NoToken::Json)?;
            bearer(token, None)
        }
        _ => bearer(text.to_owned(), None),
    }
}

fn object_of(object: &Map<String, Value>, now: u64) -> Result<Bearer, NoToken> {
    let inner = ["status", "credential"].into_iter().filter_map(|name| object.get(name)?.as_object());
    let mut places = std::iter::once(object).chain(inner);
    let (place, token) = places
        .find_map(|place| {
            let token = ["token", "access_token", "accessToken"].iter().find_map(|name| place.get(*name)?.as_str());
            token.map(|token| (place, token))
        })
        .ok_or(NoToken::Json)?;
    let dates = ["expires_at", "expires_on", "expiry", "token_expiry", "expirationTimestamp"];
    let dates = dates.iter().filter_map(|name| date(place.get(*name)?));
    let lifetime = place.get("expires_in").and_then(number).and_then(seconds);
    let end = dates.chain(lifetime.map(|lifetime| now.saturating_add(lifetime))).min();
    bearer(token.to_owned(), end)
}

fn bearer(token: String, end: Option<u64>) -> Result<Bearer, NoToken> {
    // Wrapped first: it is zeroed whatever comes.
    let token = Secret::new(token);
    check(token.expose())?;
    let expires_at = end.into_iter().chain(jwt_end(token.expose())).min();
    Ok(Bearer { token, expires_at })
}

/// RFC 6750 section 2.1: `b64token`.
fn check(token: &str) -> Result<(), NoToken> {
    if token.is_empty() {
        return Err(NoToken::Nothing);
    }
    if token.len() > MAX_TOKEN {
        return Err(NoToken::TooLong);
    }
    if token.contains(['\n', '\r']) {
        return Err(NoToken::Lines);
    }
    if token.contains([' ', '\t']) {
        return Err(NoToken::Words);
    }
    let body = token.trim_end_matches('=');
    let good = !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
    if good { Ok(()) } else { Err(NoToken::Character) }
}

fn jwt_end(token: &str) -> Option<u64> {
    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&claims).ok()?;
    seconds(claims.get("exp")?.as_f64()?)
}

/// A number, also as text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Seconds since 1970, from a number or RFC 3339.
fn date(value: &Value) -> Option<u64> {
    match number(value) {
        Some(number) if number >= MILLISECONDS => seconds(number / 1000.0),
        Some(number) => seconds(number),
        None => rfc3339(value.as_str()?.trim()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
fn seconds(number: f64) -> Option<u64> {
    (0.0..=LAST_SECOND).contains(&number).then_some(number as u64)
}

/// RFC 3339 section 5.6. A date without an offset says no time, so it is none.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok()
    };
    let is = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let fraction = rest.strip_prefix('.').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let offset = match fraction.unwrap_or(rest) {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            let part = |text: &str, below: i64| {
                let good = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<i64>().ok().filter(|number| good && *number < below)
            };
            sign * (part(hours, 24)? * 3600 + part(minutes, 60)? * 60)
        }
    };
    // Days since 1970 in the Gregorian calendar, by years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(members) => members.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 2_000_000_000;

    fn read(text: &str) -> Result<(String, Option<u64>), NoToken> {
        parse(text.as_bytes(), NOW).map(|it| (it.token.expose().to_owned(), it.expires_at))
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn tokens_are_read() {
        let table: &[(&str, &str, Option<u64>)] = &[
            ("ya29.a0_b-c~d+e/f==\n", "ya29.a0_b-c~d+e/f==", None),
            ("\u{feff} tok \r\n\r\n", "tok", None),
            ("\"tok\"\n", "tok", None),
            (r#"{"token":"t"}"#, "t", None),
            (r#"{"access_token":"t","expires_in":3600,"token_type":"Bearer"}"#, "t", Some(NOW + 3600)),
            (r#"{"access_token":"t","expires_in":"3599"}"#, "t", Some(NOW + 3599)),
            (r#"{"access_token":"t","expires_at":2000000100}"#, "t", Some(2_000_000_100)),
            (r#"{"access_token":"t","expires_at":2000000100999}"#, "t", Some(2_000_000_100)),
            (r#"{"token":"t","expires_at":"2033-05-18T03:35:00Z"}"#, "t", Some(2_000_000_100)),
            (r#"{"token":"t","expiry":"2033-05-18T05:35:00.123456789+02:00"}"#, "t", Some(2_000_000_100)),
            // az: the local time says nothing, the number does.
            (
                r#"{"accessToken":"t","expiresOn":"2033-05-18 03:35:00.000000","expires_on":2000000100,"tenant":"x"}"#,
                "t",
                Some(2_000_000_100),
            ),
            (
                r#"{"credential":{"access_token":"t","token_expiry":"2033-05-18T03:35:00Z"},"sentinels":{}}"#,
                "t",
                Some(2_000_000_100),
            ),
            (
                r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{},"status":{"expirationTimestamp":"2033-05-18T03:35:00Z","token":"t"}}"#,
                "t",
                Some(2_000_000_100),
            ),
            (r#"{"token":"t","expires_in":60,"expires_at":2000000100}"#, "t", Some(NOW + 60)),
            (r#"{"token":"t","expires_in":-5,"expiry":"soon","expires_at":null}"#, "t", None),
            (r#"{"token":"t","expires_in":1e300}"#, "t", None),
        ];
        for (text, token, end) in table {
            assert_eq!(read(text), Ok(((*token).to_owned(), *end)), "{text}");
        }
        assert_eq!(read(&"t".repeat(MAX_TOKEN)).unwrap().0.len(), MAX_TOKEN);
    }

    #[test]
    fn a_jwt_says_its_end() {
        for (claims, end) in [
            (r#"{"exp":2000000100,"sub":"x"}"#, Some(2_000_000_100)),
            (r#"{"exp":2000000100.5}"#, Some(2_000_000_100)),
            (r#"{"exp":"2000000100"}"#, None),
            (r#"{"exp":-1}"#, None),
            ("{}", None),
            ("no json", None),
        ] {
            assert_eq!(read(&jwt(claims)).unwrap().1, end, "{claims}");
        }
        let both = format!(r#"{{"token":"{}","expires_in":3600}}"#, jwt(r#"{"exp":2000000100}"#));
        assert_eq!(read(&both).unwrap().1, Some(2_000_000_100), "the earlier one");
        assert_eq!(read("a.b").unwrap().1, None);
        assert_eq!(read(&format!("{}.x", jwt(r#"{"exp":1}"#))).unwrap().1, None);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        use NoToken::{Character, Json, Lines, Nothing, TooLong, Words};
        let long = "t".repeat(MAX_TOKEN + 1);
        let table: &[(&str, NoToken)] = &[
            ("", Nothing),
            (" \r\n", Nothing),
            ("\"\"", Nothing),
            ("{\"token\":\"\"}", Nothing),
            ("s3cr3t\nsecond", Lines),
            ("{\"token\":\"s3cr3t\\r\\nX-Evil: 1\"}", Lines),
            ("Bearer s3cr3t", Words),
            ("Your token is s3cr3t", Words),
            ("s3cr3t\u{0}x", Character),
            ("s3cr3t\u{1b}[31m", Character),
            ("s3=cr3t", Character),
            ("===", Character),
            ("tök", Character),
            ("s3cr3t,x", Character),
            ("{\"token\":5}", Json),
            ("{\"id_token\":\"s3cr3t\"}", Json),
            ("{\"error\":\"s3cr3t\"}", Json),
            ("{\"token\":\"s3cr3t\"", Json),
            ("{\"token\":\"a\"}{}", Json),
            ("\"s3cr3t", Json),
            (&long, TooLong),
        ];
        for (text, wrong) in table {
            let error = read(text).unwrap_err();
            assert_eq!(error, *wrong, "{text}");
            assert!(!error.to_string().contains("s3cr3t"));
        }
        assert_eq!(parse(b"\xFF\xFEt\0", NOW).unwrap_err(), Character);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, second) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2033-05-18t03:33:20z", Some(NOW)),
            ("2033-05-17 20:33:20.5-07:00", Some(NOW)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("1970-01-01T00:00:00+01:00", None),
            ("2033-05-18T03:33:20", None),
            ("2033-05-18", None),
            ("2033-13-18T03:33:20Z", None),
            ("2033-05-18T24:33:20Z", None),
            ("2033-05-18T03:33:20+2:00", None),
            ("2033-05-18T03:33:20+24:00", None),
            ("+033-05-18T03:33:20Z", None),
            ("2033-05-18T03:33:20é", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), second, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_token_fits_a_header(text in "\\PC{0,40}|[{\"].{0,40}|[a-z.=]{0,20}") {
            if let Ok(bearer) = parse(text.as_bytes(), NOW) {
                proptest::prop_assert!(http::HeaderValue::from_str(bearer.token.expose()).is_ok());
                proptest::prop_assert!(!bearer.token.expose().contains(' '));
            }
        }
    }
}
