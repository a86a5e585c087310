//! `import`: takes over the sign-ins of mcp-remote. Nothing is changed there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Error, Report, notice_line, now, place, say, shown};
use crate::cli::{Import, UsageError};
use crate::secret::SafeText;
use crate::store::Store;
use crate::store::import::{self, Found, Left, UNKNOWN_SERVER};

/// Unknown files that are listed.
const MAX_UNKNOWN: usize = 20;

/// Does it.
pub fn run(wanted: &Import) -> Result<Report, Error> {
    wanted.stored.notes.iter().for_each(|note| say(note));
    let Some(directory) = &wanted.directory else {
        return Err(Error::Usage(UsageError::new(
            "no home directory is known, so mcp-remote's directory is not found",
            "Name it: mcp-drawbridge import DIRECTORY https://example.com/mcp.",
        )));
    };
    let now = now();
    let found = import::read(directory, &wanted.candidates, now).map_err(|error| Error::Failed {
        message: format!("{} cannot be read: {error}", SafeText(&directory.to_string_lossy())),
        hint: Some(
            "Without mcp-remote's directory there is nothing to take over; sign in with mcp-drawbridge login."
                .to_owned(),
        ),
    })?;
    let names = names(&found);
    let stored = &wanted.stored;
    let store = Store::new(stored.state_dir.as_deref(), stored.credential_store);
    // Nothing to write: no key is made, and no keyring asked.
    let report = if names.is_empty() {
        found.apply(&mut crate::store::Contents::default(), now)
    } else {
        let mut locked = store.lock()?;
        let report = found.apply(&mut locked, now);
        locked.commit()?;
        report
    };
    let (unknown, left): (Vec<Left>, Vec<Left>) = report.left.into_iter().partition(|left| left.why == UNKNOWN_SERVER);
    let nothing_known = report.taken.is_empty() && left.is_empty();
    // A second import finds all in its place, which is what was wanted.
    let useless = report.taken.is_empty() && !left.iter().any(Left::is_here);
    let mut text = String::new();
    for file in &report.taken {
        let name = names.get(file).map_or("a file", String::as_str);
        let _ = writeln!(text, "Taken: {name}\n  from {}", path(file));
    }
    for Left { file, why } in &left {
        let name = names.get(file).map_or("a file that is not used", String::as_str);
        let _ = writeln!(text, "Left: {name}, because {}\n  in {}", SafeText(why), path(file));
    }
    tell_unknown(&mut text, &unknown, !wanted.candidates.is_empty());
    if unknown.is_empty() && nothing_known {
        let _ = writeln!(text, "There are no sign-ins of mcp-remote in {}.", path(directory));
    }
    if useless && !nothing_known {
        text.push_str("Nothing was taken over. Sign in with mcp-drawbridge login.\n");
    }
    if !report.taken.is_empty() {
        let _ = writeln!(text, "Sign-ins are kept in {}. mcp-remote's files are as they were.", place(&store.status()));
    }
    for notice in store.notices() {
        let _ = writeln!(text, "{}", notice_line(&notice));
    }
    Ok(Report { text, failed: useless && !wanted.candidates.is_empty() })
}

/// What each file holds, for people.
fn names(found: &Found) -> BTreeMap<PathBuf, String> {
    let accounts = found.accounts.iter().map(|(file, account)| {
        (file.clone(), format!("the sign-in to {} by {}", shown(&account.key.resource), shown(&account.key.issuer)))
    });
    let registrations = found
        .registrations
        .iter()
        .map(|(file, registration)| (file.clone(), format!("the registration with {}", shown(&registration.issuer))));
    accounts.chain(registrations).collect()
}

/// The files do not say which server they are for.
fn tell_unknown(text: &mut String, unknown: &[Left], named: bool) {
    let mut hashes: Vec<(&Path, &str)> = unknown
        .iter()
        .filter_map(|left| {
            let name = left.file.file_name()?.to_str()?;
            Some((left.file.parent()?, name.split_once('_').map_or(name, |(hash, _)| hash)))
        })
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    if hashes.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "Left: sign-ins of {} {}server{}. mcp-remote's files do not name their servers; name them here, with the \
         --header, --resource, --authorize-param and --client-metadata-url that mcp-remote was started with:\n  \
         mcp-drawbridge import https://example.com/mcp https://other.example/sse",
        hashes.len(),
        if named { "other " } else { "" },
        if hashes.len() == 1 { "" } else { "s" },
    );
    for (directory, hash) in hashes.iter().take(MAX_UNKNOWN) {
        let _ = writeln!(text, "  in {}", path(&directory.join(format!("{hash}_*"))));
    }
    if let Some(more) = hashes.len().checked_sub(MAX_UNKNOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn path(path: &Path) -> String {
    SafeText(&path.to_string_lossy()).to_string()
}
