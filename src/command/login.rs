//! `login`: a person signs in, at a terminal or by pasting.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::thread;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::mpsc;

use super::{Error, Report, SETTLE, end, notice_line, now, place, say, sentence, shown};
use crate::auth::{LoggedIn, browser};
use crate::cli::{Config, Login, UsageError};
use crate::process::Ends;
use crate::secret::SafeText;
use crate::session::{SignIn, Wish};
use crate::start;
use crate::store::{CredentialStore, ServerKey, Store, StorePlace};

/// Bytes of a pasted line.
const MAX_LINE: u64 = 32 * 1024;
/// A sign-in that is over may have been ended well, by another process: that is seen within this time.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// Lines that are taken: more is no person.
const MAX_LINES: usize = 100;

/// Does it.
pub async fn run(login: &Login) -> Result<Report, Error> {
    let config = &login.config;
    check(config)?;
    config.notes.iter().for_each(|note| say(note));
    let (client, options) = start::http(config)?;
    let store = Store::new(config.state_dir.as_deref(), config.credential_store);
    let (tell, mut news) = mpsc::unbounded_channel();
    let authorizer = start::authorizer(config, client, &options, store.clone(), tell);
    let headers: HeaderMap = config.headers.iter().cloned().collect();
    let mut ends = Ends::new().map_err(|error| failed(format!("the system tells no signals: {error}")))?;
    let reads = login.paste || io::stdin().is_terminal();
    let mut lines = None;
    let mut address: Option<Box<str>> = None;
    // What was pasted ended the sign-in, as a denial does.
    let mut refused: Option<String> = None;
    let outcome = {
        let signing_in = authorizer.login(&headers, login.force);
        tokio::pin!(signing_in);
        loop {
            tokio::select! {
                biased;
                () = ends.told() => break Err(failed("the sign-in was interrupted".to_owned())),
                outcome = &mut signing_in => break outcome.map_err(Error::from),
                Some(news) = news.recv() => match news {
                    SignIn::Wanted { url, advice } => {
                        if address.as_ref() != Some(&url) {
                            say(&wanted(&url, &advice, reads));
                            address = Some(url);
                        }
                        // Not before: what is typed before the address is there is no answer to it.
                        if reads && lines.is_none() {
                            lines = Some(read_lines());
                        }
                    }
                    SignIn::NotTaken { message } => {
                        if is_over(&store, config).await {
                            refused = Some(sentence(&message));
                        } else {
                            say(&sentence(&message));
                        }
                    }
                    SignIn::Done | SignIn::Ended { .. } => {}
                },
                () = tokio::time::sleep(LAST_LOOK), if refused.is_some() => {
                    break Err(failed(refused.unwrap_or_default()));
                }
                line = next(&mut lines) => match line {
                    Some(line) => authorizer.wish(Wish::Paste(line)),
                    None => lines = Some(mpsc::channel(1).1),
                },
            }
        }
    };
    authorizer.settle(SETTLE).await;
    for notice in store.notices() {
        say(&notice_line(&notice));
    }
    let login = outcome?;
    let mut text = success(&login, config, &store);
    // Nobody else can use it, and this process ends.
    let lost = login.needed && store.status().place == StorePlace::Memory;
    if lost {
        text.push_str("It could not be kept, so it ends with this command; what has to be mended is said above.\n");
    }
    Ok(Report { text, failed: lost })
}

/// Whether no answer is awaited any more.
async fn is_over(store: &Store, config: &Config) -> bool {
    let key = ServerKey { server: config.server_text.clone(), profile: config.auth.profile.clone() };
    store.snapshot().await.is_ok_and(|contents| contents.pending(&key, now()).is_none())
}

/// The next pasted line; never, when none is read.
async fn next(lines: &mut Option<mpsc::Receiver<Box<str>>>) -> Option<Box<str>> {
    match lines {
        Some(lines) if !lines.is_closed() || !lines.is_empty() => lines.recv().await,
        _ => std::future::pending().await,
    }
}

/// A thread, because a read of stdin cannot be given up; it ends with the process.
fn read_lines() -> mpsc::Receiver<Box<str>> {
    let (sender, lines) = mpsc::channel(1);
    let read = move || {
        let mut stdin = io::stdin().lock();
        for _ in 0..MAX_LINES {
            let mut line = String::new();
            match stdin.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => {
                    if sender.blocking_send(line.trim().into()).is_err() {
                        break;
                    }
                }
            }
        }
    };
    // Without the thread the browser is still waited for.
    let _ = thread::Builder::new().name("paste".to_owned()).spawn(read);
    lines
}

fn wanted(url: &str, advice: &str, reads: bool) -> String {
    let next = match (advice.is_empty(), reads) {
        (true, true) => {
            "Your browser was opened there. If it cannot show the last page, copy its address, paste it here and press Enter."
                .to_owned()
        }
        (true, false) => "Your browser was opened there.".to_owned(),
        (false, true) => advice.replace(browser::PASTE, "here, then press Enter"),
        (false, false) => advice.to_owned(),
    };
    format!("Sign in here:\n\n  {url}\n\n{next}\nWaiting for you; Ctrl-C gives up.")
}

fn success(login: &LoggedIn, config: &Config, store: &Store) -> String {
    let server = shown(&config.server_text);
    if !login.needed {
        return format!("{server} needs no sign-in: it answered without one.\n");
    }
    let profile = match &*config.auth.profile {
        "" => String::new(),
        profile => format!(" (profile {})", SafeText(profile)),
    };
    let heading = match login.already {
        true => format!("Signed in to {server}{profile} already; --force signs in anew."),
        false => format!("Signed in to {server}{profile}."),
    };
    let scopes = login.scopes.as_deref().filter(|text| !text.is_empty()).unwrap_or("not told");
    format!(
        "{heading}\n  through    {}\n  scopes     {}\n  token      {}\n  kept in    {}\n",
        shown(&login.issuer),
        SafeText(scopes),
        end(login.expires_at, login.renewable, now()),
        place(&store.status()),
    )
}

/// Refuses what would do nothing, for `login` and `logout`.
pub(super) fn check(config: &Config) -> Result<(), UsageError> {
    let other = if config.headers.iter().any(|(name, _)| *name == AUTHORIZATION) {
        "a header authorization"
    } else if config.bearer_command.is_some() {
        "--bearer-command"
    } else if config.credential_store == CredentialStore::Memory {
        return Err(UsageError::new(
            "--credential-store memory keeps nothing, so a sign-in would end with this command",
            "Leave the flag out, or let the bridge sign in when the server asks for it.",
        ));
    } else {
        return Ok(());
    };
    Err(UsageError::new(
        format!("{other} is given, so there is nothing to sign in for"),
        "The server gets that and no sign-in. Leave it out to sign in with the browser.",
    ))
}

fn failed(message: String) -> Error {
    Error::Failed { message, hint: None }
}
