//! `status`: which sign-ins there are. Asks no network, and the keyring only if something is stored.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Error, Report, end, is_same, notice_line, now, place, say, server_of, shown, span};
use crate::cli::Status;
use crate::secret::SafeText;
use crate::store::{Account, Contents, KeyPlace, PendingSignIn, ServerKey, Status as StoreStatus, Store, StorePlace};

/// Number of the JSON's shape. It changes when a member goes or changes its meaning, not when one is added.
const VERSION: u32 = 1;

/// Says it.
pub fn run(status: &Status) -> Result<Report, Error> {
    let stored = &status.stored;
    stored.notes.iter().for_each(|note| say(note));
    let store = Store::new(stored.state_dir.as_deref(), stored.credential_store);
    let contents = store.read()?;
    let view = View::new(&contents, status, now());
    let place = store.status();
    let text = if status.json { view.json(&place) } else { view.text(&place, status) };
    Ok(Report { text, failed: false })
}

/// One sign-in.
struct Row<'a> {
    account: &'a Account,
    server: &'a str,
    client: &'static str,
    renewable: bool,
}

struct View<'a> {
    rows: Vec<Row<'a>>,
    pending: Vec<(&'a ServerKey, &'a PendingSignIn)>,
    now: u64,
}

impl<'a> View<'a> {
    fn new(contents: &'a Contents, asked: &Status, now: u64) -> Self {
        let wanted = |server: &str, resource: &str, profile: &str| {
            asked.profile.as_ref().is_none_or(|wanted| wanted == profile)
                && asked.server.as_ref().is_none_or(|wanted| is_same(wanted, server) || is_same(wanted, resource))
        };
        let mut rows: Vec<Row<'a>> = contents
            .accounts()
            .iter()
            .map(|account| Row {
                account,
                server: server_of(account, contents).map_or(&account.key.resource, |server| &server.key.server),
                client: client(account, contents),
                renewable: account.tokens.refresh.as_ref().is_some_and(|token| !contents.is_dead(token)),
            })
            .filter(|row| wanted(row.server, &row.account.key.resource, &row.account.key.profile))
            .collect();
        rows.sort_by_key(|row| (row.server, &row.account.key.profile));
        let pending = contents
            .servers()
            .iter()
            .filter_map(|server| Some((&server.key, contents.pending(&server.key, now)?)))
            .filter(|(key, pending)| wanted(&key.server, &pending.resource, &key.profile));
        Self { rows, pending: pending.collect(), now }
    }

    fn text(&self, place_of: &StoreStatus, asked: &Status) -> String {
        let mut text = String::new();
        for Row { account, server, client, renewable } in &self.rows {
            let tokens = &account.tokens;
            heading(&mut text, server, &account.key.profile);
            let signed_in = span(self.now.saturating_sub(account.signed_in_at));
            line(&mut text, "signed in", &format!("{signed_in} ago, at {}", shown(&account.key.issuer)));
            if !is_same(server, &account.key.resource) {
                line(&mut text, "resource", &shown(&account.key.resource));
            }
            line(
                &mut text,
                "scopes",
                &scopes(account).map_or_else(|| "not told".to_owned(), |it| SafeText(it).to_string()),
            );
            line(&mut text, "token", &end(tokens.expires_at, *renewable, self.now));
            line(&mut text, "client", client);
            text.push('\n');
        }
        for (key, pending) in &self.pending {
            heading(&mut text, &key.server, &key.profile);
            let begun = span(self.now.saturating_sub(pending.started_at));
            line(&mut text, "waits", &format!("for you to sign in at {}, begun {begun} ago", shown(&pending.issuer)));
            text.push('\n');
        }
        if self.rows.is_empty() && self.pending.is_empty() {
            match &asked.server {
                Some(server) => {
                    let _ = writeln!(text, "Not signed in to {}.", shown(server));
                }
                None => text.push_str("Not signed in anywhere.\n"),
            }
        }
        let _ = writeln!(text, "Sign-ins are kept in {}.", place(place_of));
        for notice in &place_of.notices {
            let _ = writeln!(text, "{}", notice_line(notice));
        }
        text
    }

    fn json(&self, place: &StoreStatus) -> String {
        let sign_ins: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let Row { account, server, client, renewable } = row;
                json!({
                    "server": shown(server),
                    "profile": account.key.profile,
                    "issuer": shown(&account.key.issuer),
                    "resource": shown(&account.key.resource),
                    "scopes": scopes(account).map(|text| text.split(' ').map(safe).collect::<Vec<_>>()),
                    "signed_in_at": account.signed_in_at,
                    "expires_at": account.tokens.expires_at,
                    "expired": account.tokens.expires_at.is_some_and(|end| end <= self.now),
                    "refresh_token": renewable,
                    "client": client,
                })
            })
            .collect();
        let pending: Vec<Value> = self
            .pending
            .iter()
            .map(|(key, pending)| {
                json!({
                    "server": shown(&key.server),
                    "profile": key.profile,
                    "issuer": shown(&pending.issuer),
                    "resource": shown(&pending.resource),
                    "started_at": pending.started_at,
                    "browser_opened": pending.browser_opened_at.is_some(),
                })
            })
            .collect();
        let whole = json!({
            "version": VERSION,
            "sign_ins": sign_ins,
            "pending": pending,
            "store": {
                "place": place_word(&place.place),
                "file": place.file.as_ref().map(|file| file.to_string_lossy()),
                "notices": place.notices,
            },
        });
        format!("{whole:#}\n")
    }
}

fn safe(text: &str) -> String {
    SafeText(text).to_string()
}

/// What was granted; a server that does not say it granted what was asked for (RFC 6749 section 5.1).
fn scopes(account: &Account) -> Option<&str> {
    let tokens = &account.tokens;
    tokens.granted_scope.as_deref().or(tokens.requested_scope.as_deref()).filter(|text| !text.is_empty())
}

/// How the authorization server came to know us (MCP 2026-07-28 "Client Registration").
fn client(account: &Account, contents: &Contents) -> &'static str {
    match contents.registration_of(&account.key.issuer, &account.client_id) {
        Some(known) if known.pre_registered => "pre-registered",
        Some(_) => "dynamic registration",
        None if account.client_id.starts_with("https://") => "metadata document",
        // As after an import without its file, or where the authorization server has forgotten the client.
        None => "unknown",
    }
}

fn place_word(place: &StorePlace) -> &'static str {
    match place {
        StorePlace::Sealed(KeyPlace::Keyring) => "keyring",
        StorePlace::Sealed(KeyPlace::Keyutils) => "kernel keyring",
        StorePlace::Sealed(KeyPlace::File) => "file",
        StorePlace::Memory => "memory",
        StorePlace::Newer => "newer version",
        _ => "empty",
    }
}

fn heading(text: &mut String, server: &str, profile: &str) {
    text.push_str(&shown(server));
    if !profile.is_empty() {
        let _ = write!(text, " (profile {})", SafeText(profile));
    }
    text.push('\n');
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<10} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{LogOptions, Stored};
    use crate::secret::Secret;
    use crate::store::{AccountKey, CredentialStore, Discovery, Registration, Tokens};

    const NOW: u64 = 2_000_000_000;

    fn asked(server: Option<&str>, profile: Option<&str>) -> Status {
        let stored = Stored {
            state_dir: None,
            credential_store: CredentialStore::Memory,
            log: LogOptions::default(),
            notes: Vec::new(),
        };
        Status { stored, server: server.map(str::to_owned), profile: profile.map(str::to_owned), json: false }
    }

    fn account(resource: &str, profile: &str, client_id: &str, refresh: Option<&str>) -> Account {
        Account {
            key: AccountKey { issuer: "https://as.test".into(), resource: resource.into(), profile: profile.into() },
            client_id: client_id.into(),
            tokens: Tokens {
                access: Secret::new("s3cr3t"),
                refresh: refresh.map(Secret::new),
                id_token: None,
                obtained_at: NOW - 60,
                expires_at: Some(NOW + 3_540),
                granted_scope: Some("read write".into()),
                requested_scope: Some("read".into()),
                extra: crate::store::Extra::default(),
            },
            signed_in_at: NOW - 3 * 86_400,
            sign_in: None,
            extra: crate::store::Extra::default(),
        }
    }

    fn contents() -> Contents {
        let mut contents = Contents::default();
        contents.put_account(account("https://a.test", "", "c", Some("s3cr3t-r")), NOW);
        contents.put_account(account("https://a.test", "work", "https://client.test/c.json", None), NOW);
        let mut imported = account("https://b.test/mcp", "", "x", Some("s3cr3t-q"));
        imported.tokens.expires_at = Some(NOW - 120);
        imported.tokens.granted_scope = None;
        contents.put_account(imported, NOW);
        let registration: Registration = serde_json::from_value(
            json!({"issuer": "https://as.test", "client_id": "c", "client_secret": "s3cr3t", "registered_at": 1}),
        )
        .unwrap();
        contents.put_registration(registration);
        contents.put_account(account("https://d.test/mcp", "", "own", Some("s3cr3t-o")), NOW);
        let own: Registration = serde_json::from_value(
            json!({"issuer": "https://as.test", "client_id": "own", "pre_registered": true, "registered_at": 1}),
        )
        .unwrap();
        contents.put_registration(own);
        let found: Discovery =
            serde_json::from_value(json!({"resource": "https://a.test", "issuer": "https://as.test", "found_at": 1}))
                .unwrap();
        let key = |profile: &str| ServerKey { server: "https://a.test/mcp?key=s3cr3t".into(), profile: profile.into() };
        contents.put_discovery(&key(""), found.clone());
        contents.put_discovery(&key("work"), found);
        let pending: PendingSignIn = serde_json::from_value(json!({
            "state": "s3cr3t", "verifier": "s3cr3t", "issuer": "https://as2.test", "resource": "https://c.test/mcp", "client_id": "c",
            "redirect_uri": "http://localhost:4000/", "redirect_port": 4000, "started_at": NOW - 180, "browser_opened_at": NOW - 180,
            "authorization_url": "https://as2.test/a?state=s3cr3t",
        }))
        .unwrap();
        contents.put_pending(&ServerKey { server: "https://c.test/mcp".into(), profile: String::new() }, pending, NOW);
        contents
    }

    fn store() -> StoreStatus {
        StoreStatus {
            choice: CredentialStore::Auto,
            place: StorePlace::Sealed(KeyPlace::File),
            file: Some("/state/credentials".into()),
            notices: vec!["No keyring.".into()],
        }
    }

    #[test]
    fn a_person_reads_it() {
        let contents = contents();
        let asked = asked(None, None);
        let text = View::new(&contents, &asked, NOW).text(&store(), &asked);
        assert_eq!(
            text,
            "https://a.test/mcp?…
  signed in  3 days ago, at https://as.test
  resource   https://a.test
  scopes     read write
  token      ends in 59 minutes, renews itself
  client     dynamic registration

https://a.test/mcp?… (profile work)
  signed in  3 days ago, at https://as.test
  resource   https://a.test
  scopes     read write
  token      ends in 59 minutes, cannot renew itself
  client     metadata document

https://b.test/mcp
  signed in  3 days ago, at https://as.test
  scopes     read
  token      ended 2 minutes ago, renews itself
  client     unknown

https://d.test/mcp
  signed in  3 days ago, at https://as.test
  scopes     read write
  token      ends in 59 minutes, renews itself
  client     pre-registered

https://c.test/mcp
  waits      for you to sign in at https://as2.test, begun 3 minutes ago

Sign-ins are kept in /state/credentials, its key in a file beside it.
No keyring.
"
        );
    }

    #[test]
    fn one_server_or_profile_alone() {
        let contents = contents();
        let rows = |server, profile| {
            let view = View::new(&contents, &asked(server, profile), NOW);
            (view.rows.len(), view.pending.len())
        };
        assert_eq!(rows(Some("https://a.test/mcp?key=s3cr3t"), None), (2, 0));
        assert_eq!(rows(Some("https://a.test/"), None), (2, 0), "by the name of the resource too");
        assert_eq!(rows(Some("https://a.test"), Some("work")), (1, 0));
        assert_eq!(rows(None, Some("")), (3, 1));
        assert_eq!(rows(Some("https://c.test/mcp"), None), (0, 1));
        let asked = asked(Some("https://e.test/?s3cr3t"), None);
        let text = View::new(&contents, &asked, NOW).text(&store(), &asked);
        assert!(text.starts_with("Not signed in to https://e.test/?….\n"), "{text}");
    }

    #[test]
    fn a_program_reads_it() {
        let contents = contents();
        let text = View::new(&contents, &asked(None, None), NOW).json(&store());
        assert!(!text.contains("s3cr3t"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(
            value["sign_ins"][0],
            json!({
                "server": "https://a.test/mcp?…", "profile": "", "issuer": "https://as.test", "resource": "https://a.test",
                "scopes": ["read", "write"], "signed_in_at": NOW - 3 * 86_400, "expires_at": NOW + 3_540, "expired": false,
                "refresh_token": true, "client": "dynamic registration",
            })
        );
        assert_eq!(value["sign_ins"][2]["expired"], true);
        let clients: Vec<&str> =
            value["sign_ins"].as_array().unwrap().iter().filter_map(|it| it["client"].as_str()).collect();
        assert_eq!(clients, ["dynamic registration", "metadata document", "unknown", "pre-registered"]);
        assert_eq!(
            value["pending"],
            json!([{
                "server": "https://c.test/mcp", "profile": "", "issuer": "https://as2.test", "resource": "https://c.test/mcp",
                "started_at": NOW - 180, "browser_opened": true,
            }])
        );
        assert_eq!(value["store"], json!({"place": "file", "file": "/state/credentials", "notices": ["No keyring."]}));
    }

    #[test]
    fn nothing_is_said_plainly() {
        let asked = asked(None, None);
        let contents = Contents::default();
        let view = View::new(&contents, &asked, NOW);
        assert!(view.text(&store(), &asked).starts_with("Not signed in anywhere.\n"));
        let value: Value = serde_json::from_str(&view.json(&store())).unwrap();
        assert_eq!((&value["sign_ins"], &value["pending"]), (&json!([]), &json!([])));
    }
}
