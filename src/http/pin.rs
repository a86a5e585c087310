//! A server certificate that the user trusts as it is. Pure.
//!
//! `openssl req -x509` makes a self-signed certificate that calls itself a CA. Node takes it in `NODE_EXTRA_CA_CERTS` for the server
//! that shows it; path validation as in webpki does not (a CA is not an end entity, RFC 5280 section 4.2.1.9). When the server shows
//! exactly a certificate that the user named, no path is needed: its bytes are known. Name and dates are still checked here, and
//! the handshake proves the key as for any other.

use rustls::{
    CertificateError,
    client::{danger::ServerCertVerified, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::cookies::days_from_civil;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Checks name and dates of a certificate that is known byte by byte.
pub(super) fn verify(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let (not_before, not_after) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if seconds > not_after {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&parsed, name)?;
    Ok(ServerCertVerified::assertion())
}

/// The validity of an X.509 certificate in seconds since 1970 (RFC 5280 section 4.1).
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (tbs, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, tbs)?;
    if let Some((_, rest)) = expect(VERSION, fields) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (validity, _) = expect(SEQUENCE, fields)?;
    let (tag, not_before, rest) = element(validity)?;
    let not_before = time(tag, not_before)?;
    let (tag, not_after, _) = element(rest)?;
    Some((not_before, time(tag, not_after)?))
}

/// The content of an element with this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// One DER element: tag, content, what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        0x81..=0x84 => {
            let (length, rest) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            let length = length.iter().fold(0_usize, |sum, &byte| (sum << 8) | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` (50 to 99 are 19xx) or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, content: &[u8]) -> Option<i64> {
    let digits = content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => digits.split_at_checked(2)?,
        (GENERALIZED_TIME, 14) => digits.split_at_checked(4)?,
        _ => return None,
    };
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
    let year = match (tag, number(year)?) {
        (UTC_TIME, short @ 0..=49) => short + 2000,
        (UTC_TIME, short) => short + 1900,
        (_, full) => full,
    };
    let mut fields = rest.chunks(2).map(number);
    let mut next = || fields.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn self_signed() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["pinned.example".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn verdict(name: &str, at: u64) -> String {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        match verify(&self_signed(), &name, now) {
            Ok(_) => "ok".to_owned(),
            Err(rustls::Error::InvalidCertificate(error)) => format!("{error:?}"),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn name_and_dates_still_count() {
        assert_eq!(validity(&self_signed()), Some((1_709_164_800, 2_556_144_000)));
        assert_eq!(verdict("pinned.example", 1_709_164_800), "ok");
        assert_eq!(verdict("pinned.example", 2_556_144_000), "ok");
        assert_eq!(verdict("pinned.example", 1_709_164_799), "NotValidYet");
        assert_eq!(verdict("pinned.example", 2_556_144_001), "Expired");
        let other = verdict("other.example", 1_800_000_000);
        assert!(other.starts_with("NotValidForName"), "{other}");
    }

    #[test]
    fn damaged_certificates_are_no_panic() {
        let whole = self_signed();
        for end in 0..whole.len() {
            let cut = validity(&whole[..end]);
            assert_eq!(cut, None, "{end}");
        }
        for bytes in [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &[0x30, 0x80], &[0x30, 0x85]] {
            assert_eq!(element(bytes), None);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.to_vec();
                changed[at] = value;
                let _ = validity(&changed);
            }
        }
    }
}
