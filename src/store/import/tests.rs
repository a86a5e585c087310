use std::collections::BTreeMap;

use super::*;
use crate::store::md5;

/// The example of mcp-remote's own derivation.
const SERVER: &str = "http://127.0.0.1:18141/mcp";
const HASH: &str = "92d222637c6a62a33a3518de94f28749";
const NOW: u64 = 2_000_000_000;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drawbridge-import-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> Found {
        read(&self.0, &[candidate()], NOW).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn candidate() -> Candidate {
    Candidate { server: SERVER.into(), ..Candidate::default() }
}

const TOKENS: &str = r#"{"access_token":"at","token_type":"Bearer","expires_in":3600,"scope":"read","refresh_token":"rt",
    "expires_at":2000000600000.5,"issuer":"https://as.test","requested_scope":"read write"}"#;
const CLIENT: &str = r#"{"client_id":"cid","client_secret":"cs","client_secret_expires_at":0,"client_id_issued_at":1999999000,
    "redirect_uris":["http://localhost:40921/oauth/callback"],"token_endpoint_auth_method":"client_secret_post",
    "application_type":"native","software_id":"2e6dc280-f3c3-4e01-99a7-8181dbd1d23d","issuer":"https://as.test"}"#;

#[test]
fn names_are_derived_as_mcp_remote_does() {
    assert_eq!(candidate().hash(), HASH);
    let full = Candidate {
        resource: Some(" https://r.test ".into()),
        authorize_params: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "\"1\"".into())]),
        headers: BTreeMap::from([("X-B".into(), "${B}".into()), ("X-A".into(), "ä\n".into())]),
        client_metadata_url: Some("https://c.test/m".into()),
        token_endpoint: Some("HTTPS://t.test".into()),
        ..candidate()
    };
    let text = [
        SERVER,
        "https://r.test",
        r#"{"a":"\"1\"","b":"2"}"#,
        r#"{"X-A":"ä\n","X-B":"${B}"}"#,
        "https://c.test/m",
        "https://t.test/",
    ];
    assert_eq!(full.hash(), md5::hex(&text.join("|")));
    assert_eq!(full.hashes()[1], md5::hex(&[text[0], text[1], text[3]].join("|")));
    assert_eq!(full.hashes()[2], HASH);
}

#[test]
fn the_directory_is_found() {
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let env = |name: &str| (name == home).then(|| "h".to_owned());
    assert_eq!(directory(&env), Some(Path::new("h").join(".mcp-auth")));
    let env = |name: &str| (name == "MCP_REMOTE_CONFIG_DIR").then(|| "c".to_owned());
    assert_eq!(directory(&env), Some("c".into()));
    assert_eq!(directory(&|_| None), None);
}

#[test]
fn tokens_and_registration_are_taken_and_nothing_is_touched() {
    let directory = Directory::new("whole");
    directory.put(&format!("mcp-remote-v1/{HASH}_tokens.json"), TOKENS);
    directory.put(&format!("mcp-remote-v1/{HASH}_client_info.json"), CLIENT);
    directory.put(&format!("mcp-remote-v1/{HASH}_code_verifier_abc.txt"), "v");
    directory.put(&format!("mcp-remote-v1/{}_tokens.json", "a".repeat(32)), TOKENS);
    directory.put(&format!("mcp-remote-0.1.38/{HASH}_tokens.json"), "older, not looked at");
    let mut contents = Contents::default();
    let report = directory.read().apply(&mut contents, NOW);
    assert_eq!(report.taken.len(), 2);
    assert_eq!(report.left.len(), 1);
    assert!(report.left[0].why.contains("no server address"), "{:?}", report.left);
    let account = &contents.accounts()[0];
    assert_eq!(
        account.key,
        AccountKey { issuer: "https://as.test".into(), resource: SERVER.into(), profile: String::new() }
    );
    assert_eq!(account.client_id, "cid");
    let tokens = &account.tokens;
    assert_eq!((tokens.access.expose(), tokens.refresh.as_ref().unwrap().expose()), ("at", "rt"));
    assert_eq!((tokens.expires_at, tokens.obtained_at), (Some(NOW + 600), NOW - 3000));
    assert_eq!(
        (tokens.granted_scope.as_deref(), tokens.requested_scope.as_deref()),
        (Some("read"), Some("read write"))
    );
    let registration =
        contents.registration("https://as.test", Some("http://localhost:40921/oauth/callback"), NOW).unwrap();
    assert_eq!(registration.client_secret.as_ref().unwrap().expose(), "cs");
    assert_eq!((registration.secret_expires_at, registration.registered_at), (None, 1_999_999_000));
    assert_eq!(fs::read_dir(directory.0.join("mcp-remote-v1")).unwrap().count(), 4);
    // Once more: what is there stays.
    let again = directory.read().apply(&mut contents, NOW);
    assert_eq!((again.taken.len(), again.left.len()), (0, 3));
    // A log-out since then: the dead token does not come back.
    let key = contents.accounts()[0].key.clone();
    contents.remove_account(&key, NOW);
    let after = directory.read().apply(&mut contents, NOW);
    assert!(contents.accounts().is_empty() && after.taken.is_empty());
}

#[test]
fn the_newest_of_the_older_versions_is_taken() {
    let directory = Directory::new("older");
    for (version, token) in [("0.1.9", "nine"), ("0.1.38", "thirty-eight"), ("0.1.29", "twenty-nine")] {
        let tokens = TOKENS.replace("\"at\"", &format!("\"{token}\""));
        directory.put(&format!("mcp-remote-{version}/{HASH}_tokens.json"), &tokens);
        directory.put(&format!("mcp-remote-{version}/{HASH}_client_info.json"), CLIENT);
    }
    directory.put("mcp-remote-notes.txt", "no directory");
    let found = directory.read();
    assert_eq!((found.accounts.len(), found.left.len()), (1, 0));
    assert_eq!(found.accounts[0].1.tokens.access.expose(), "thirty-eight");
}

#[test]
fn discovery_state_says_issuer_and_resource() {
    let directory = Directory::new("discovery");
    let tokens = TOKENS.replace(",\"issuer\":\"https://as.test\"", "");
    directory.put(&format!("mcp-remote-v1/{HASH}_tokens.json"), &tokens);
    directory.put(&format!("mcp-remote-v1/{HASH}_client_info.json"), CLIENT);
    let found = directory.read();
    assert_eq!(found.accounts.len(), 0, "whose refresh token it is must be known");
    assert!(found.left[0].why.contains("which authorization server"), "{:?}", found.left);
    let state =
        r#"{"authorizationServerUrl":"https://as.test","resourceMetadata":{"resource":"http://127.0.0.1:18141"}}"#;
    directory.put(&format!("mcp-remote-v1/{HASH}_discovery_state_s.json"), state);
    let found = directory.read();
    assert_eq!(found.accounts[0].1.key.resource, "http://127.0.0.1:18141");
    assert_eq!(found.accounts[0].1.key.issuer, "https://as.test");
}

#[test]
fn what_is_wrong_is_left_with_a_reason_that_holds_no_secret() {
    let table: [(&str, String, &str); 9] = [
        ("tokens", "{\"access_token\":\"hidden".into(), "not what mcp-remote writes"),
        ("tokens", TOKENS.replace("\"at\"", "\"hid\\r\\nden\""), "characters"),
        ("tokens", TOKENS.replace("Bearer", "DPoP"), "kind"),
        ("tokens", TOKENS.replace("https://as.test", "http://as.test"), "no https address"),
        ("tokens", TOKENS.replace("https://as.test", "https://u@as.test"), "no https address"),
        ("tokens", TOKENS.replace(",\"refresh_token\":\"rt\"", "").replace("2000000600000.5", "1"), "expired"),
        ("tokens", format!("{TOKENS}{}", " ".repeat(300_000)), "too large"),
        ("client_info", CLIENT.replace("_at\":0", "_at\":5"), "expired"),
        ("client_info", CLIENT.replace("\"cs\"", "\"hid den\""), "characters"),
    ];
    for (kind, text, reason) in table {
        let directory = Directory::new("wrong");
        directory.put(&format!("mcp-remote-v1/{HASH}_tokens.json"), TOKENS);
        directory.put(&format!("mcp-remote-v1/{HASH}_client_info.json"), CLIENT);
        directory.put(&format!("mcp-remote-v1/{HASH}_{kind}.json"), &text);
        let found = directory.read();
        assert_eq!(found.left.len(), 1, "{reason}");
        assert!(found.left[0].why.contains(reason), "{reason}: {:?}", found.left);
        assert!(!found.left[0].why.contains("hid"));
    }
    let directory = Directory::new("alone");
    directory.put(&format!("mcp-remote-v1/{HASH}_tokens.json"), TOKENS);
    assert!(directory.read().left[0].why.contains("client"), "a refresh token without its client");
    assert!(read(&directory.0.join("nowhere"), &[], NOW).is_err());
}
