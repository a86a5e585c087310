//! `login`, `logout`, `status`, `import`.

use super::*;

#[test]
fn words_are_commands_at_the_beginning_alone() {
    let Ok(Command::Login(login)) = parse_words(&["login", URL, "3334", "--paste", "--force", "--profile=work"]) else {
        panic!()
    };
    assert!(login.paste && login.force);
    assert_eq!((login.config.auth.callback_port, &*login.config.auth.profile), (Some(3334), "work"));
    assert_eq!(login.config.server_text, URL);
    let Ok(Command::Login(login)) = parse_words(&["login", "--debug", URL]) else { panic!() };
    assert!(!login.paste && !login.force && login.config.log.debug);
    let Ok(Command::Logout(logout)) = parse_words(&["logout", "--all", URL]) else { panic!() };
    assert!(logout.all && logout.config.server.as_str() == URL);
    for words in [&["--debug", "login", URL][..], &[URL, "login"], &["Login", URL], &["login", "login", URL]] {
        assert_eq!(error(words).message, "login is a command, and a command stands first");
    }
    let missing = error(&["login"]);
    assert_eq!(missing.message, "the server URL is missing");
    assert!(missing.hint.contains("mcp-drawbridge login https://"), "{}", missing.hint);
}

#[test]
fn a_command_is_known_before_anything_else() {
    for (first, is) in [("login", true), ("import", true), ("logins", false), (URL, false), ("--login", false)] {
        assert_eq!(is_command(Some(&OsString::from(first))), is, "{first}");
    }
    assert!(!is_command(None));
}

#[test]
fn status_needs_no_server() {
    let status = |words: &[&str]| match parse_words(&[&["status"], words].concat()) {
        Ok(Command::Status(status)) => status,
        other => panic!("{words:?}: {other:?}"),
    };
    let all = status(&[]);
    assert_eq!((all.server, all.profile, all.json), (None, None, false));
    assert!(all.stored.state_dir.unwrap().ends_with("mcp-drawbridge"));
    let one =
        status(&["--json", URL, "3334", "--profile", "work", "--credential-store=file", "--header=A: ${NOT_SET}"]);
    assert_eq!((one.server.as_deref(), one.profile.as_deref(), one.json), (Some(URL), Some("work"), true));
    assert_eq!(one.stored.credential_store, CredentialStore::File);
    assert_eq!(error(&["status", URL, URL]).message, "there are 2 arguments besides the flags");
    assert_eq!(error(&["status", "example.com"]).message, "the server URL has no scheme");
    let secret = parse_words(&["status", "https://example.com/?s3cr3t"]);
    assert!(!format!("{secret:?}").contains(SECRET));
}

#[test]
fn import_takes_servers_and_a_directory() {
    let import = |words: &[&str]| match parse_words(&[&["import"], words].concat()) {
        Ok(Command::Import(import)) => import,
        other => panic!("{words:?}: {other:?}"),
    };
    let home = if cfg!(windows) { None } else { Some(Path::new("/home/.mcp-auth")) };
    let none = import(&[]);
    assert_eq!((none.directory.as_deref(), none.candidates.len()), (home, 0));
    let other = "https://other.test/sse";
    let two =
        import(&[URL, "3334", "old", other, "--header=X-A: ${NOT_SET}", "--resource=https://r.test", "--profile=work"]);
    assert_eq!(two.directory.as_deref(), Some(Path::new("old")));
    assert_eq!(two.candidates.iter().map(|it| &*it.server).collect::<Vec<_>>(), [URL, other]);
    assert_eq!(two.candidates[1].headers["X-A"], "${NOT_SET}");
    assert_eq!((two.candidates[1].resource.as_deref(), &*two.candidates[1].profile), (Some("https://r.test"), "work"));
    assert_eq!(error(&["import", "a", "b"]).message, "there is more than one directory, or a URL without https://");
    assert_eq!(
        error(&["import", "--credential-store=memory"]).message,
        "--credential-store memory keeps nothing, so there is nothing to import into"
    );
    let most = [&["import"][..], &[URL; 64]].concat();
    assert!(parse_words(&most).is_ok());
    assert_eq!(error(&[&most[..], &[URL]].concat()).message, "there are 65 servers");
    let secret = parse_words(&["import", "https://example.com/?s3cr3t"]);
    assert!(!format!("{secret:?}").contains(SECRET));
}

#[test]
fn flags_of_commands_belong_to_them() {
    for (flag, owner) in [("--paste", "login"), ("--force", "login"), ("--all", "logout"), ("--json", "status")] {
        assert!(parse_words(&[owner, URL, flag]).is_ok(), "{flag}");
        for other in ["login", "logout", "status", "import"].into_iter().filter(|other| *other != owner) {
            let message = format!("{flag} belongs to mcp-drawbridge {owner}");
            assert_eq!(error(&[other, URL, flag]).message, message);
            assert_eq!(error(&[URL, flag]).message, message);
        }
    }
}

#[test]
fn a_mistyped_command_is_recognised() {
    let error = error(&["logni", URL]);
    assert_eq!(error.message, "\"logni\" is neither the server URL nor a command");
    assert!(error.hint.starts_with("Did you mean mcp-drawbridge login?"), "{}", error.hint);
}
