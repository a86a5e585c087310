//! `login`, `logout`, `status`, `import`: words that are commands as the first argument alone. A URL never looks so.

use std::io;
use std::path::{Path, PathBuf};

use super::flags::{self, Flags, HeaderSource};
use super::state_dir::{self, Platform};
use super::{Command, Config, LogOptions, Once, UsageError, headers, log_options, server, sign_in};
use crate::secret::SafeText;
use crate::store::CredentialStore;
use crate::store::import::{Candidate, directory};

/// Servers of one `import`.
pub(super) const MAX_SERVERS: usize = 64;

/// How many letters may be wrong in the name of a command.
const MAX_TYPOS: usize = 2;

/// `mcp-drawbridge login`.
#[derive(Clone, Debug)]
pub struct Login {
    /// The server, and how to reach it.
    pub config: Config,
    /// Read pasted addresses from stdin also when it is no terminal.
    pub paste: bool,
    /// Sign in anew, also when signed in already.
    pub force: bool,
}

/// `mcp-drawbridge logout`.
#[derive(Clone, Debug)]
pub struct Logout {
    /// The server, and how to reach it.
    pub config: Config,
    /// Every profile of the server.
    pub all: bool,
}

/// Where sign-ins are kept, for commands that ask no server.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The state directory; `None`: the environment names no home.
    pub state_dir: Option<PathBuf>,
    /// What keeps them.
    pub credential_store: CredentialStore,
    /// What is logged, and where.
    pub log: LogOptions,
    /// Sentences about arguments that were accepted but change nothing.
    pub notes: Vec<String>,
}

/// `mcp-drawbridge status`.
#[derive(Clone)]
pub struct Status {
    /// Where sign-ins are kept.
    pub stored: Stored,
    /// Only this server, as typed. May hold a secret in its query.
    pub server: Option<String>,
    /// Only this profile.
    pub profile: Option<String>,
    /// As JSON.
    pub json: bool,
}

/// `mcp-drawbridge import`.
#[derive(Clone)]
pub struct Import {
    /// Where sign-ins are kept.
    pub stored: Stored,
    /// mcp-remote's directory; `None`: none was named, and the environment names no home.
    pub directory: Option<PathBuf>,
    /// The servers that mcp-remote was used with.
    pub candidates: Vec<Candidate>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Status").field("stored", &self.stored).field("json", &self.json).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.candidates.len();
        out.debug_struct("Import")
            .field("stored", &self.stored)
            .field("directory", &self.directory)
            .field("candidates", &count)
            .finish()
    }
}

/// The word that a command line begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Run,
    Login,
    Logout,
    Status,
    Import,
}

const WORDS: [(&str, Word); 4] =
    [("login", Word::Login), ("logout", Word::Logout), ("status", Word::Status), ("import", Word::Import)];

/// Takes the word off the arguments.
pub(super) fn word(arguments: &[String]) -> (Word, &[String]) {
    if let [first, rest @ ..] = arguments
        && let Some((_, word)) = WORDS.iter().find(|(name, _)| name == first)
    {
        return (*word, rest);
    }
    (Word::Run, arguments)
}

/// The flags of a command with another one, or with none; a command without its server.
pub(super) fn check_flags(word: Word, flags: &Flags) -> Result<(), UsageError> {
    let table = [
        ("--paste", flags.paste, Word::Login),
        ("--force", flags.force, Word::Login),
        ("--all", flags.all, Word::Logout),
        ("--json", flags.json, Word::Status),
    ];
    for (flag, given, owner) in table {
        if given && owner != word {
            let name = WORDS.iter().find(|(_, word)| *word == owner).map_or("", |(name, _)| *name);
            return Err(UsageError::new(
                format!("{flag} belongs to mcp-drawbridge {name}"),
                format!("Leave it out, or write: mcp-drawbridge {name} https://example.com/mcp {flag}"),
            ));
        }
    }
    if let (Word::Login | Word::Logout, true) = (word, flags.positionals.is_empty()) {
        let name = WORDS.iter().find(|(_, known)| *known == word).map_or("", |(name, _)| *name);
        return Err(UsageError::new(
            "the server URL is missing",
            format!("Write it as in: mcp-drawbridge {name} https://example.com/mcp"),
        ));
    }
    Ok(())
}

/// `login` and `logout`, once the rest is read.
pub(super) fn with_server(word: Word, flags: &Flags, config: Config) -> Command {
    match word {
        Word::Login => Command::Login(Box::new(Login { config, paste: flags.paste, force: flags.force })),
        Word::Logout => Command::Logout(Box::new(Logout { config, all: flags.all })),
        Word::Run | Word::Status | Word::Import => Command::Run(Box::new(config)),
    }
}

/// `status`. Flags of the connection may stand there and change nothing.
pub(super) fn status(
    flags: &Flags,
    sources: &[HeaderSource],
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Command, UsageError> {
    let mut notes = Vec::new();
    let mut once = Once { notes: &mut notes };
    // What is wrong is told here too.
    let checked = sign_in::candidate(flags, "", headers::typed(sources, read_file)?, &mut once)?;
    let profile = (!flags.profile.is_empty()).then_some(checked.profile);
    let server = match &*flags.positionals {
        [] => None,
        [server] => Some(server),
        [server, port] if is_port(port) => Some(server),
        all => {
            return Err(UsageError::new(
                format!("there are {} arguments besides the flags", all.len()),
                "Write mcp-drawbridge status for all servers, or with the URL of one.",
            ));
        }
    };
    if let Some(text) = server {
        server::parse(text, true)?;
    }
    let stored = stored(flags, &mut once, env)?;
    let server = server.cloned();
    Ok(Command::Status(Status { stored: Stored { notes, ..stored }, server, profile, json: flags.json }))
}

/// `import`: URLs, and one directory in any place among them.
pub(super) fn import(
    flags: &Flags,
    sources: &[HeaderSource],
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Command, UsageError> {
    let mut notes = Vec::new();
    let mut once = Once { notes: &mut notes };
    let (servers, others): (Vec<&String>, Vec<&String>) =
        flags.positionals.iter().partition(|text| text.contains("://"));
    if servers.len() > MAX_SERVERS {
        return Err(UsageError::new(
            format!("there are {} servers", servers.len()),
            format!("Import at most {MAX_SERVERS} at a time."),
        ));
    }
    // A port stays behind when the arguments of mcp-remote are copied.
    let mut directories = others.iter().filter(|text| servers.is_empty() || !is_port(text));
    let named = directories.next();
    if directories.next().is_some() {
        return Err(UsageError::new(
            "there is more than one directory, or a URL without https://",
            "Write it as in: mcp-drawbridge import https://example.com/mcp. The directory of mcp-remote is found by itself.",
        ));
    }
    let first = sign_in::candidate(flags, "", headers::typed(sources, read_file)?, &mut once)?;
    let mut candidates = Vec::new();
    for text in servers {
        server::parse(text, true)?;
        candidates.push(Candidate { server: text.clone(), ..first.clone() });
    }
    let stored = stored(flags, &mut once, env)?;
    if stored.credential_store == CredentialStore::Memory {
        return Err(UsageError::new(
            "--credential-store memory keeps nothing, so there is nothing to import into",
            "Leave the flag out.",
        ));
    }
    let directory = named.map(PathBuf::from).or_else(|| directory(env));
    Ok(Command::Import(Import { stored: Stored { notes, ..stored }, directory, candidates }))
}

fn stored(flags: &Flags, once: &mut Once<'_>, env: &dyn Fn(&str) -> Option<String>) -> Result<Stored, UsageError> {
    Ok(Stored {
        state_dir: state_dir::find(Platform::HERE, env)?,
        credential_store: once.read("--credential-store", &flags.credential_store, sign_in::store)?.unwrap_or_default(),
        log: log_options(flags, once)?,
        notes: Vec::new(),
    })
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A first argument that is no URL may be a command with a typo. Only short words of letters are shown.
pub(super) fn near(text: &str) -> Option<UsageError> {
    let text = text.to_ascii_lowercase();
    if text.len() < 3 || text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    if let Some((name, _)) = WORDS.iter().find(|(name, _)| *name == text) {
        return Some(UsageError::new(
            format!("{name} is a command, and a command stands first"),
            format!("Write it as in: mcp-drawbridge {name} https://example.com/mcp"),
        ));
    }
    let others = [
        ("signin", "login"),
        ("auth", "login"),
        ("signout", "logout"),
        ("list", "status"),
        ("help", "--help"),
        ("version", "--version"),
    ];
    let other = others.iter().find(|(name, _)| *name == text).map(|(_, meant)| *meant);
    let near = WORDS.iter().map(|(name, _)| (typos(&text, name), *name)).min().filter(|(count, _)| *count <= MAX_TYPOS);
    let meant = other.or(near.map(|(_, name)| name))?;
    Some(UsageError::new(
        format!("\"{}\" is neither the server URL nor a command", SafeText(&text)),
        format!("Did you mean mcp-drawbridge {meant}? {}", flags::SEE_HELP),
    ))
}

/// Levenshtein's distance.
fn typos(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.bytes().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (b, above) in other.bytes().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(a != b)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_counted() {
        for (one, other, count) in [
            ("login", "login", 0),
            ("logn", "login", 1),
            ("lgoin", "login", 2),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(typos(one, other), count, "{one} {other}");
        }
    }

    #[test]
    fn commands_with_typos_are_recognised_and_secrets_are_not_shown() {
        for (text, meant) in
            [("logn", "login"), ("logut", "logout"), ("stauts", "status"), ("improt", "import"), ("auth", "login")]
        {
            assert!(near(text).unwrap().hint.contains(&format!("mcp-drawbridge {meant}?")), "{text}");
        }
        for text in ["", "Bearer", "s3cr3t", "log", "localhost", "importantwords", "status7", "lögin"] {
            assert!(near(text).is_none() || text == "log", "{text}");
        }
    }
}
