use super::*;

fn key(name: &str) -> AccountKey {
    AccountKey {
        issuer: "https://as.test".into(),
        resource: format!("https://{name}.test/mcp"),
        profile: String::new(),
    }
}

fn tokens(access: &str, refresh: Option<&str>) -> Tokens {
    Tokens {
        access: Secret::new(access),
        refresh: refresh.map(Secret::new),
        id_token: None,
        obtained_at: 10,
        expires_at: Some(3610),
        granted_scope: None,
        requested_scope: None,
        extra: Extra::default(),
    }
}

fn account(name: &str, refresh: Option<&str>) -> Account {
    Account {
        key: key(name),
        client_id: "c".into(),
        tokens: tokens("a", refresh),
        signed_in_at: 1,
        sign_in: None,
        extra: Extra::default(),
    }
}

fn pending(state: &str, started_at: u64) -> PendingSignIn {
    PendingSignIn {
        state: Secret::new(state),
        verifier: Secret::new("v"),
        issuer: "https://as.test".into(),
        resource: "https://r.test".into(),
        client_id: "c".into(),
        redirect_uri: "http://127.0.0.1:4000/oauth/callback".into(),
        redirect_port: 4000,
        requested_scope: None,
        authorization_url: None,
        started_at,
        browser_opened_at: None,
        extra: Extra::default(),
    }
}

fn registration(issuer: &str, client_id: &str, uri: &str, registered_at: u64) -> Registration {
    Registration {
        issuer: issuer.into(),
        client_id: client_id.into(),
        client_secret: None,
        secret_expires_at: None,
        redirect_uris: vec![uri.into()],
        token_endpoint_auth_method: None,
        scope: None,
        registered_at,
        pre_registered: false,
        extra: Extra::default(),
    }
}

fn server(name: &str) -> ServerKey {
    ServerKey { server: format!("https://{name}.test/mcp"), profile: String::new() }
}

fn refresh_of<'a>(contents: &'a Contents, name: &str) -> Option<&'a str> {
    contents.account(&key(name)).and_then(|account| account.tokens.refresh.as_ref()).map(Secret::expose)
}

#[test]
fn a_rotated_token_is_dead_and_a_kept_one_is_not() {
    let mut contents = Contents::default();
    contents.put_account(account("a", Some("r1")), 1);
    assert!(contents.replace_tokens(&key("a"), tokens("a2", None), 2), "an answer without a refresh token");
    assert_eq!(refresh_of(&contents, "a"), Some("r1"));
    assert!(!contents.is_dead(&Secret::new("r1")));
    assert!(contents.replace_tokens(&key("a"), tokens("a3", Some("r1")), 3), "the same again");
    assert!(!contents.is_dead(&Secret::new("r1")));
    assert!(contents.replace_tokens(&key("a"), tokens("hidden-a4", Some("r2")), 4), "another");
    assert!(contents.is_dead(&Secret::new("r1")) && !contents.is_dead(&Secret::new("r2")));
    assert_eq!(contents.account(&key("a")).unwrap().tokens.access.expose(), "hidden-a4");
    contents.bury_refresh_token(&key("a"), 5);
    assert_eq!(refresh_of(&contents, "a"), None);
    assert!(contents.is_dead(&Secret::new("r2")));
    assert!(!contents.replace_tokens(&key("b"), tokens("x", None), 6), "ended meanwhile");
    let debug = format!("{contents:?}");
    assert!(!debug.contains("hidden"), "{debug}");
}

#[test]
fn scopes_stay_when_a_refresh_does_not_name_them() {
    let mut contents = Contents::default();
    let mut first = account("a", Some("r1"));
    first.tokens.granted_scope = Some("read write".into());
    first.tokens.requested_scope = Some("read write admin".into());
    contents.put_account(first, 1);
    contents.replace_tokens(&key("a"), tokens("a2", None), 2);
    let kept = &contents.account(&key("a")).unwrap().tokens;
    assert_eq!(
        (kept.granted_scope.as_deref(), kept.requested_scope.as_deref()),
        (Some("read write"), Some("read write admin"))
    );
}

#[test]
fn a_new_sign_in_and_a_log_out_bury_the_old_token() {
    let mut contents = Contents::default();
    contents.put_account(account("a", Some("r1")), 1);
    contents.put_account(account("a", Some("r2")), 2);
    assert_eq!(contents.accounts().len(), 1);
    assert!(contents.is_dead(&Secret::new("r1")) && !contents.is_dead(&Secret::new("r2")));
    contents.put_account(account("a", Some("r2")), 3);
    assert!(!contents.is_dead(&Secret::new("r2")), "the same token again is alive");
    contents.remove_account(&key("a"), 4);
    assert!(contents.accounts().is_empty() && contents.is_dead(&Secret::new("r2")));
}

#[test]
fn profiles_and_issuers_are_apart() {
    let mut contents = Contents::default();
    contents.put_account(account("a", Some("r1")), 1);
    let mut work = account("a", Some("r2"));
    work.key.profile = "work".into();
    contents.put_account(work.clone(), 1);
    let mut other = account("a", Some("r3"));
    other.key.issuer = "https://as.test/".into();
    contents.put_account(other, 1);
    assert_eq!(contents.accounts().len(), 3);
    contents.remove_account(&work.key, 2);
    assert_eq!(refresh_of(&contents, "a"), Some("r1"));
}

#[test]
fn tombstones_are_bounded() {
    let mut contents = Contents::default();
    for turn in 0..=MAX_TOMBSTONES as u64 {
        contents.bury(&Secret::new(format!("t{turn}")), turn);
    }
    assert_eq!(contents.tombstones.len(), MAX_TOMBSTONES);
    assert!(!contents.is_dead(&Secret::new("t0")), "the oldest is forgotten");
    assert!(contents.is_dead(&Secret::new("t1")));
    contents.bury(&Secret::new("t1"), 9999);
    assert_eq!(contents.tombstones.len(), MAX_TOMBSTONES, "once each");
}

#[test]
fn registrations_belong_to_one_issuer_and_their_redirect() {
    let mut contents = Contents::default();
    contents.put_registration(registration("https://a.test", "c1", "http://l:1/", 1));
    contents.put_registration(registration("https://a.test", "c2", "http://l:2/", 2));
    contents.put_registration(registration("https://b.test", "c3", "http://l:1/", 3));
    let id =
        |contents: &Contents, issuer, uri, now| contents.registration(issuer, uri, now).map(|it| it.client_id.clone());
    assert_eq!(id(&contents, "https://a.test", Some("http://l:1/"), 5).as_deref(), Some("c1"));
    assert_eq!(id(&contents, "https://a.test", None, 5).as_deref(), Some("c2"), "the newest");
    assert_eq!(id(&contents, "https://a.test", Some("http://l:3/"), 5), None);
    assert_eq!(id(&contents, "https://c.test", None, 5), None);
    let mut short = registration("https://a.test", "c1", "http://l:1/", 4);
    short.secret_expires_at = Some(10);
    contents.put_registration(short);
    assert_eq!(id(&contents, "https://a.test", Some("http://l:1/"), 9).as_deref(), Some("c1"));
    assert_eq!(id(&contents, "https://a.test", Some("http://l:1/"), 10), None, "its secret is over");
    contents.remove_registration("https://a.test", "c1");
    assert!(contents.registration_of("https://a.test", "c1").is_none());
}

#[test]
fn registrations_in_use_outlive_the_others() {
    let mut contents = Contents::default();
    contents.put_registration(registration("https://as.test", "c", "u", 0));
    contents.put_account(account("a", None), 0);
    for turn in 0..=MAX_REGISTRATIONS {
        contents.put_registration(registration("https://x.test", &format!("x{turn}"), "u", 1));
    }
    assert_eq!(contents.registrations.len(), MAX_REGISTRATIONS);
    assert!(contents.registration_of("https://as.test", "c").is_some());
    assert!(contents.registration_of("https://x.test", "x0").is_none());
}

#[test]
fn a_client_of_the_users_is_bound_whatever_servers_register() {
    let mut contents = Contents::default();
    // A hostile authorization server gives away the id first.
    contents.put_registration(registration("https://evil.test", "mine", "u", 0));
    assert_eq!(contents.issuer_of_client("mine"), None);
    let mut own = registration("https://as.test", "mine", "u", 1);
    own.pre_registered = true;
    contents.put_registration(own);
    for turn in 0..=MAX_REGISTRATIONS {
        contents.put_registration(registration("https://evil.test", &format!("x{turn}"), "u", 2));
    }
    assert_eq!(contents.issuer_of_client("mine"), Some("https://as.test"));
    // Without the user's word it is nobody's to use.
    assert!(contents.registration("https://as.test", None, 3).is_none());
    let kept = serde_json::to_string(&contents).unwrap();
    let again: Contents = serde_json::from_str(&kept).unwrap();
    assert_eq!(again.issuer_of_client("mine"), Some("https://as.test"));
}

#[test]
fn a_pending_sign_in_is_answered_once_and_ends() {
    let mut contents = Contents::default();
    contents.put_pending(&server("a"), pending("s1", 100), 100);
    assert!(contents.pending(&server("a"), 100 + PENDING_LIFETIME).is_some());
    assert!(contents.pending(&server("a"), 101 + PENDING_LIFETIME).is_none());
    assert!(contents.pending(&server("b"), 100).is_none());
    assert!(contents.take_pending(&server("a"), "s2", 101).is_none(), "a wrong state is ignored");
    assert!(contents.take_pending(&server("a"), "s1", 102 + PENDING_LIFETIME).is_none(), "too late");
    assert_eq!(contents.take_pending(&server("a"), "s1", 101).unwrap().redirect_port, 4000);
    assert!(contents.take_pending(&server("a"), "s1", 101).is_none(), "once");
    contents.put_pending(&server("a"), pending("s1", 100), 100);
    contents.put_pending(&server("b"), pending("s3", 5000), 5000);
    assert!(contents.server(&server("a")).unwrap().pending.is_none(), "what is over does not stay in the file");
    contents.remove_pending(&server("b"));
    assert!(contents.pending(&server("b"), 5000).is_none());
}

#[test]
fn servers_are_bounded_and_the_one_in_use_stays() {
    let mut contents = Contents::default();
    for turn in 0..MAX_SERVERS {
        contents.put_pending(&server(&turn.to_string()), pending("s", 1), 1);
    }
    contents.put_pending(&server("0"), pending("again", 2), 2);
    contents.put_pending(&server("new"), pending("s", 2), 2);
    assert_eq!(contents.servers.len(), MAX_SERVERS);
    assert!(contents.pending(&server("0"), 2).is_some());
    assert!(contents.pending(&server("1"), 2).is_none());
}

#[test]
fn limits_are_checked() {
    let mut contents = Contents::default();
    for turn in 0..MAX_ACCOUNTS {
        contents.put_account(account(&turn.to_string(), None), 1);
    }
    assert_eq!(contents.check(), Ok(()));
    contents.put_account(account("one-more", None), 1);
    assert_eq!(contents.check(), Err(OverLimit::Accounts));
    for length in [MAX_TEXT, MAX_TEXT + 1] {
        let mut contents = Contents::default();
        let mut account = account("a", None);
        account.tokens.access = Secret::new("x".repeat(length));
        contents.put_account(account, 1);
        assert_eq!(contents.check().is_ok(), length == MAX_TEXT);
    }
    let mut contents = Contents::default();
    contents.put_registration(registration("https://a.test", "c", &"u".repeat(MAX_TEXT + 1), 1));
    assert_eq!(contents.check(), Err(OverLimit::Text));
}

#[test]
fn fields_of_a_newer_version_survive() {
    let text = r#"{"accounts":[{"issuer":"https://as.test","resource":"https://a.test/mcp","profile":"","client_id":"c",
        "signed_in_at":1,"team":"blue","tokens":{"access":"a","refresh":"r1","obtained_at":1,"dpop_key":{"d":"hidden"}}}],
        "servers":[{"server":"https://a.test/mcp","profile":"","era":"x"}],"vault":["kept",1]}"#;
    let mut contents: Contents = serde_json::from_str(text).unwrap();
    contents.replace_tokens(&key("a"), tokens("a2", None), 2);
    contents.remove_pending(&server("a"));
    let again: Value = serde_json::to_value(&contents).unwrap();
    assert_eq!(again["vault"], serde_json::json!(["kept", 1]));
    assert_eq!(again["accounts"][0]["tokens"]["dpop_key"]["d"], "hidden");
    assert_eq!((&again["accounts"][0]["team"], &again["servers"][0]["era"]), (&"blue".into(), &"x".into()));
    assert_eq!(again["accounts"][0]["issuer"], "https://as.test");
    assert!(!format!("{contents:?}").contains("hidden"));
}
