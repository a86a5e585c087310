//! `logout`: forgets tokens here, and asks the authorization server to revoke them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tokio::sync::mpsc;

use super::{Error, Report, is_same, login, notice_line, say, server_of, shown};
use crate::cli::Logout;
use crate::secret::SafeText;
use crate::start;
use crate::store::{Contents, Store};

/// Does it.
pub async fn run(logout: &Logout) -> Result<Report, Error> {
    let config = &logout.config;
    login::check(config)?;
    config.notes.iter().for_each(|note| say(note));
    let store = Store::new(config.state_dir.as_deref(), config.credential_store);
    let (client, http) = start::http(config)?;
    let contents = store.snapshot().await?;
    let known = profiles(&contents, &config.server_text);
    let wanted: BTreeSet<String> =
        if logout.all { known.clone() } else { BTreeSet::from([config.auth.profile.clone()]) };
    let server = shown(&config.server_text);
    let mut text = String::new();
    for profile in &wanted {
        let mut config = config.clone();
        config.auth.profile.clone_from(profile);
        let (tell, _nobody) = mpsc::unbounded_channel();
        let authorizer = start::authorizer(&config, client.clone(), &http, store.clone(), tell);
        let done = authorizer.logout().await?;
        let _ = match (done.was_signed_in, done.revoked) {
            (false, _) => writeln!(text, "Not signed in to {server}{}.", named(profile)),
            (true, Ok(())) => writeln!(text, "Signed out of {server}{}.", named(profile)),
            (true, Err(why)) => writeln!(
                text,
                "Signed out of {server}{}: the tokens are deleted here. The server was not told to end them: {}.",
                named(profile),
                SafeText(&why),
            ),
        };
    }
    if wanted.is_empty() {
        let _ = writeln!(text, "Not signed in to {server}.");
    }
    let others: Vec<String> = known.difference(&wanted).map(|profile| flag(profile)).collect();
    if !others.is_empty() {
        let _ = writeln!(text, "There are other sign-ins to it: {}; --all ends all.", others.join(", "));
    }
    for notice in store.notices() {
        let _ = writeln!(text, "{}", notice_line(&notice));
    }
    Ok(Report { text, failed: false })
}

/// The profiles that are signed in to a server.
fn profiles(contents: &Contents, server: &str) -> BTreeSet<String> {
    let of_server = |name: &str, resource: &str| is_same(name, server) || is_same(resource, server);
    let accounts = contents.accounts().iter().filter(|account| {
        let name = server_of(account, contents).map_or(&account.key.resource, |server| &server.key.server);
        of_server(name, &account.key.resource)
    });
    accounts.map(|account| account.key.profile.clone()).collect()
}

fn named(profile: &str) -> String {
    if profile.is_empty() { String::new() } else { format!(" (profile {})", SafeText(profile)) }
}

fn flag(profile: &str) -> String {
    if profile.is_empty() { "without --profile".to_owned() } else { format!("--profile {}", SafeText(profile)) }
}
