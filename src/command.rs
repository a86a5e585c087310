//! What the program does beside bridging: sign in, sign out, say what is signed in, take over what mcp-remote has.
//!
//! Each command gives back the text for stdout; what a person needs while it runs goes to stderr. `docs/commands.md` says what is stable.

mod import;
mod login;
mod logout;
mod status;

use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use url::Url;

use crate::auth::AuthError;
use crate::auth::resource::ResourceUri;
use crate::cli::UsageError;
use crate::secret::{SafeText, SafeUrl, is_unsafe};
use crate::store::{Account, Contents, KeyPlace, Server, Status as StoreStatus, StoreError, StorePlace};

pub use import::run as import;
pub use login::run as login;
pub use logout::run as logout;
pub use status::run as status;

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For stdout: whole lines.
    pub text: String,
    /// Exit code 1: it did its work, and did not find what was asked for.
    pub failed: bool,
}

/// Why a command came to nothing.
#[derive(Debug)]
pub enum Error {
    /// The arguments cannot be carried out: exit code 2.
    Usage(UsageError),
    /// It failed: exit code 1.
    Failed {
        /// What happened, one line.
        message: String,
        /// What to do, one line.
        hint: Option<String>,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Failed { message: error.to_string(), hint: None }
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        let hint = error.hint().map(|hint| sentence(&hint));
        Self::Failed { message: error.to_string(), hint }
    }
}

impl From<UsageError> for Error {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

fn sentence(clause: &str) -> String {
    let mut characters = clause.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase()).into_iter();
    let mut text: String = first.chain(characters).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// Tells a person, beside what the command is for.
fn say(text: &str) {
    // Nobody reads it: what the command does is worth doing all the same.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A server or a resource by its name: a URL without what may be a secret in it.
fn shown(name: &str) -> String {
    match Url::parse(name.trim()) {
        // As the user wrote it, where the parser would only add a slash.
        Ok(url) if url.path() == "/" && url.query().is_none() => {
            SafeUrl(&url).to_string().trim_end_matches('/').to_owned()
        }
        Ok(url) => SafeUrl(&url).to_string(),
        Err(_) => SafeText(name).to_string(),
    }
}

/// Whether two names are of one server: the same text, or the same URL.
fn is_same(one: &str, other: &str) -> bool {
    let name = |text: &str| Url::parse(text.trim()).map(|url| ResourceUri::of_server(&url).as_str().to_owned());
    one == other || matches!((name(one), name(other)), (Ok(one), Ok(other)) if one == other)
}

/// The server that a sign-in is for, as the user typed it: its discovery says so. An imported sign-in has none before its first use.
fn server_of<'a>(account: &Account, contents: &'a Contents) -> Option<&'a Server> {
    contents.servers().iter().find(|server| {
        let found = server.discovery.as_ref();
        server.key.profile == account.key.profile
            && found.is_some_and(|it| it.issuer == account.key.issuer && it.resource == account.key.resource)
    })
}

/// Where sign-ins are kept, as a clause.
fn place(status: &StoreStatus) -> String {
    let file = status.file.as_ref().map(|file| SafeText(&file.to_string_lossy()).to_string()).unwrap_or_default();
    match &status.place {
        StorePlace::Sealed(KeyPlace::Keyring) => format!("{file}, its key in the keyring"),
        StorePlace::Sealed(KeyPlace::Keyutils) => {
            format!("{file}, its key in the kernel's keyring until the next reboot")
        }
        StorePlace::Sealed(KeyPlace::File) => format!("{file}, its key in a file beside it"),
        StorePlace::Newer => format!("{file}, which a newer version wrote and this one cannot read"),
        StorePlace::Memory => "memory, until this process ends".to_owned(),
        _ => format!("{file}, which is not there yet"),
    }
}

/// What the store has to tell, on one line and whole: it is long, because it says what to do.
fn notice_line(notice: &str) -> String {
    notice.chars().fold(String::new(), |mut line, character| {
        match is_unsafe(character) {
            true => line.extend(character.escape_unicode()),
            false => line.push(character),
        }
        line
    })
}

/// A span of time in words: the two largest units are more than anybody asks for.
fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => return "less than a minute".to_owned(),
        60..5_400 => ((seconds + 30) / 60, "minute"),
        5_400..129_600 => ((seconds + 1_800) / 3_600, "hour"),
        _ => ((seconds + 43_200) / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// When a token ends, in words.
fn end(expires_at: Option<u64>, renewable: bool, now: u64) -> String {
    let end = match expires_at {
        None => "no end is known".to_owned(),
        Some(end) if end <= now => format!("ended {} ago", span(now - end)),
        Some(end) => format!("ends in {}", span(end - now)),
    };
    format!("{end}, {}", if renewable { "renews itself" } else { "cannot renew itself" })
}

/// How long the end of a command waits for tokens that are on their way to the store.
const SETTLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_in_words() {
        for (seconds, text) in [
            (0, "less than a minute"),
            (59, "less than a minute"),
            (60, "1 minute"),
            (3_599, "60 minutes"),
            (5_400, "2 hours"),
            (86_400, "24 hours"),
            (129_600, "2 days"),
            (864_000, "10 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(end(Some(160), true, 100), "ends in 1 minute, renews itself");
        assert_eq!(end(Some(100), false, 100), "ended less than a minute ago, cannot renew itself");
        assert_eq!(end(None, false, 100), "no end is known, cannot renew itself");
    }

    #[test]
    fn names_show_no_secret() {
        for (name, text) in [
            ("https://a.test", "https://a.test"),
            ("https://a.test/", "https://a.test"),
            (" https://A.test/mcp?key=s3cr3t", "https://a.test/mcp?…"),
            ("https://a.test/?s3cr3t", "https://a.test/?…"),
            ("https://u:s3cr3t@a.test/mcp", "https://a.test/mcp"),
            ("urn:x\u{1b}", "urn:…"),
            ("x\u{1b}[31m", "x\\u{1b}[31m"),
        ] {
            assert_eq!(shown(name), text);
        }
    }

    #[test]
    fn one_server_has_several_spellings() {
        assert!(is_same("https://a.test", "https://A.test:443/"));
        assert!(is_same("https://a.test/mcp ", "https://a.test/mcp"));
        assert!(is_same("x", "x"));
        assert!(!is_same("https://a.test/mcp", "https://a.test/mcp/"));
        assert!(!is_same("https://a.test/mcp", "https://a.test/mcp?x"));
        assert!(!is_same("x", "y"));
    }

    #[test]
    fn clauses_become_sentences() {
        assert_eq!(sentence("try again"), "Try again.");
        assert_eq!(sentence("Try again."), "Try again.");
        assert_eq!(sentence(""), ".");
    }
}
