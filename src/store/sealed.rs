//! The format of the sealed file: one line of text that says how to read the rest, a nonce, and AES-256-GCM. No IO.
//!
//! ```text
//! mcp-drawbridge credentials 1 keyring 0f1e2d3c4b5a69788796a5b4c3d2e1f0\n
//! <nonce: 12 bytes> <sealed JSON> <tag: 16 bytes>
//! ```
//! The line is format, where the key is, and which key; it is the AEAD's associated data, so it cannot be changed
//! without the key. A file whose format or place this version does not know belongs to a newer version: it is never
//! overwritten (see `docs/store.md`).

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The format that this version writes.
pub(super) const FORMAT: u32 = 1;
/// Bytes of the line at most.
const MAX_LINE: usize = 256;
/// What the line begins with.
const MAGIC: &str = "mcp-drawbridge credentials";
/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;

/// The key. Zeroed on drop, never shown.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// A new one.
    pub(super) fn random() -> Result<Self, NoRandom> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| NoRandom)?;
        Ok(Self(bytes))
    }

    /// The one that was written down.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    fn aead(&self) -> Result<LessSafeKey, Unreadable> {
        UnboundKey::new(&AES_256_GCM, self.expose()).map(LessSafeKey::new).map_err(|_| Unreadable::Damaged)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(…)")
    }
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(super) struct NoRandom;

/// Names a key. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    pub(super) fn random() -> Result<Self, NoRandom> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let number = (hex && text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Where the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyPlace {
    /// The keyring of the desktop: Keychain, Credential Manager, Secret Service.
    Keyring,
    /// The Linux kernel; it forgets at a reboot.
    Keyutils,
    /// A file of mode 0600 beside the sealed one.
    File,
}

impl KeyPlace {
    const ALL: [Self; 3] = [Self::Keyring, Self::Keyutils, Self::File];

    /// Its name in the file and in `status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::Keyutils => "keyutils",
            Self::File => "file",
        }
    }
}

/// How to read a sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub place: KeyPlace,
    pub id: KeyId,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Cut off, changed, or no file of ours.
    Damaged,
    /// A newer version wrote it.
    Newer,
}

impl Header {
    /// With its key, for another process of this program.
    pub(super) fn with_key(self, key: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("{}{key}", self.line()))
    }

    fn line(self) -> String {
        format!("{MAGIC} {FORMAT} {} {}\n", self.place.name(), self.id)
    }

    /// Reads the line; gives it with what follows.
    pub(super) fn parse(file: &[u8]) -> Result<(Self, &[u8]), Unreadable> {
        let end = memchr::memchr(b'\n', file.get(..MAX_LINE).unwrap_or(file)).ok_or(Unreadable::Damaged)?;
        let (line, body) = file.split_at_checked(end + 1).ok_or(Unreadable::Damaged)?;
        let line = std::str::from_utf8(line).map_err(|_| Unreadable::Damaged)?;
        let rest = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' ')).ok_or(Unreadable::Damaged)?;
        let mut words = rest.split_ascii_whitespace();
        let format: u32 = words.next().and_then(|word| word.parse().ok()).ok_or(Unreadable::Damaged)?;
        if format > FORMAT {
            return Err(Unreadable::Newer);
        }
        let place = words.next().ok_or(Unreadable::Damaged)?;
        let place = KeyPlace::ALL.into_iter().find(|it| it.name() == place).ok_or(Unreadable::Newer)?;
        let id = words.next().and_then(KeyId::parse).ok_or(Unreadable::Damaged)?;
        let header = Self { place, id };
        // What is written is the only way to write it: the associated data are these very bytes.
        if header.line() == line { Ok((header, body)) } else { Err(Unreadable::Damaged) }
    }
}

/// Seals. A random nonce of 96 bits is good for 2^32 files with one key (NIST SP 800-38D section 8.3).
pub(super) fn seal(header: Header, key: &Key, mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, NoRandom> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandom)?;
    let line = header.line();
    let aead = key.aead().map_err(|_| NoRandom)?;
    let tag = aead
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(line.as_bytes()), &mut plain)
        .map_err(|_| NoRandom)?;
    Ok([line.as_bytes(), &nonce, plain.as_slice(), tag.as_ref()].concat())
}

/// Opens what [`Header::parse`] left.
pub(super) fn open(header: Header, key: &Key, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let (nonce, sealed) = body.split_at_checked(NONCE_LEN).ok_or(Unreadable::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unreadable::Damaged)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let line = header.line();
    let opened = key.aead()?.open_in_place(nonce, Aad::from(line.as_bytes()), &mut buffer);
    let length = opened.map_err(|_| Unreadable::Damaged)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Header, Key, Vec<u8>) {
        let header = Header { place: KeyPlace::File, id: KeyId([0x0a; 16]) };
        let key = Key::from_bytes(&[7; 32]).unwrap();
        let file = seal(header, &key, Zeroizing::new(b"{\"a\":\"secret\"}".to_vec())).unwrap();
        (header, key, file)
    }

    #[test]
    fn what_is_sealed_opens_again() {
        let (header, key, file) = sample();
        assert!(file.starts_with(b"mcp-drawbridge credentials 1 file 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\n"));
        assert!(!file.windows(6).any(|part| part == b"secret"));
        let (parsed, body) = Header::parse(&file).unwrap();
        assert_eq!(parsed, header);
        assert_eq!(open(parsed, &key, body).unwrap().as_slice(), b"{\"a\":\"secret\"}");
        let again = seal(header, &key, Zeroizing::new(b"{\"a\":\"secret\"}".to_vec())).unwrap();
        assert_ne!(again, file, "a fresh nonce each time");
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn every_cut_and_every_changed_bit_is_seen() {
        let (header, key, file) = sample();
        for length in 0..file.len() {
            let read = Header::parse(&file[..length]).and_then(|(header, body)| open(header, &key, body));
            assert_eq!(read.map(|_| ()), Err(Unreadable::Damaged), "cut at {length}");
        }
        for position in 0..file.len() {
            let mut changed = file.clone();
            changed[position] ^= 1;
            let read = Header::parse(&changed).and_then(|(header, body)| open(header, &key, body));
            assert!(read.is_err(), "changed at {position}");
        }
        let mut longer = file.clone();
        longer.push(0);
        let (_, body) = Header::parse(&longer).unwrap();
        assert_eq!(open(header, &key, body), Err(Unreadable::Damaged));
    }

    #[test]
    fn the_line_is_bound() {
        let (header, key, file) = sample();
        let (_, body) = Header::parse(&file).unwrap();
        let other_place = Header { place: KeyPlace::Keyring, ..header };
        let other_id = Header { id: KeyId([0x0b; 16]), ..header };
        assert_eq!(open(other_place, &key, body), Err(Unreadable::Damaged));
        assert_eq!(open(other_id, &key, body), Err(Unreadable::Damaged));
        assert_eq!(open(header, &Key::from_bytes(&[8; 32]).unwrap(), body), Err(Unreadable::Damaged));
    }

    #[test]
    fn newer_files_are_told_from_damaged_ones() {
        let id = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
        let table = [
            (format!("{MAGIC} 2 file {id}\n"), Unreadable::Newer),
            (format!("{MAGIC} 2 whatever comes then\n"), Unreadable::Newer),
            (format!("{MAGIC} 1 tpm {id}\n"), Unreadable::Newer),
            (format!("{MAGIC} 1 file {}\n", id.to_uppercase()), Unreadable::Damaged),
            (format!("{MAGIC} 1 file {id} more\n"), Unreadable::Damaged),
            (format!("{MAGIC} 01 file {id}\n"), Unreadable::Damaged),
            (format!("{MAGIC} 1  file {id}\n"), Unreadable::Damaged),
            (format!("{MAGIC} 1 file +a{}\n", &id[2..]), Unreadable::Damaged),
            (format!("{MAGIC} 99999999999 file {id}\n"), Unreadable::Damaged),
            (format!("{MAGIC} 2 {}\n", "x".repeat(MAX_LINE)), Unreadable::Damaged),
            (String::new(), Unreadable::Damaged),
            ("{}\n".into(), Unreadable::Damaged),
        ];
        for (text, expected) in table {
            assert_eq!(Header::parse(text.as_bytes()).map(|_| ()), Err(expected), "{text}");
        }
    }
}
