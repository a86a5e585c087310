use super::*;
use crate::auth::callback::RedirectHost;
use crate::store::CredentialStore;
use proptest::prelude::Strategy as _;
use std::collections::{BTreeMap, BTreeSet};

mod commands;
mod sign_in;

const URL: &str = "https://example.com/mcp";
const SECRET: &str = "s3cr3t";

fn variables(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some(SECRET.to_owned()),
        "HOME" | "LOCALAPPDATA" => Some(if cfg!(windows) { r"C:\home" } else { "/home" }.to_owned()),
        _ => None,
    }
}

fn file(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("client.json") => Ok(br#"{"client_id": "from a file", "client_secret": "${TOKEN}"}"#.to_vec()),
        Some("headers.txt") => Ok(b"X-File: 1\nX-Both: file\n".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn parse_words(words: &[&str]) -> Result<Command, UsageError> {
    parse(words.iter().map(OsString::from), &variables, &file)
}

fn config(words: &[&str]) -> Config {
    match parse_words(words) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn error(words: &[&str]) -> UsageError {
    match parse_words(words) {
        Err(error) => error,
        Ok(command) => panic!("{words:?}: {command:?}"),
    }
}

fn header_values(config: &Config) -> BTreeMap<String, String> {
    let pair =
        |(name, value): &(http::HeaderName, http::HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    config.headers.iter().map(pair).collect()
}

fn client_id(config: &Config) -> &str {
    config.auth.client_info.as_ref().map_or("", |own| &own.client_id)
}

#[test]
fn defaults() {
    let config = config(&[URL]);
    assert_eq!(config.server.as_str(), URL);
    assert_eq!(config.server_text, URL);
    assert!(config.headers.is_empty());
    assert_eq!(config.transport, Strategy::HttpFirst);
    assert!(!config.allow_http && !config.ipv4 && config.cookies);
    assert_eq!(config.tool_rules, ToolRules::default());
    assert_eq!(config.keep_alive, None);
    assert_eq!(config.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.headers_timeout, Some(Duration::from_secs(300)));
    assert_eq!(config.body_timeout, None);
    assert_eq!(config.request_timeout, None);
    assert_eq!(config.initialize_timeout, Duration::from_secs(20));
    assert_eq!((config.drain, config.hold), (None, Duration::from_secs(40)));
    assert_eq!(config.max_message, 64 * 1024 * 1024);
    assert_eq!(config.proxy, Proxy::Environment);
    assert!(config.no_proxy.is_empty() && config.ca_files.is_empty());
    assert_eq!((config.env_ca_file, config.client_identity), (None, None));
    assert_eq!(config.log, LogOptions::default());
    assert_eq!(config.credential_store, CredentialStore::Auto);
    assert!(!config.allow_private_address);
    assert!(config.state_dir.unwrap().ends_with("mcp-drawbridge"));
    assert!(config.notes.is_empty());
}

/// A flag, its value, and whether the value arrived.
type Flag = (&'static str, Option<&'static str>, fn(&Config) -> bool);

const FLAGS: [Flag; 58] = [
    ("--transport", Some("http-first"), |c| c.transport == Strategy::HttpFirst),
    ("--transport", Some("sse-first"), |c| c.transport == Strategy::SseFirst),
    ("--transport", Some("http-only"), |c| c.transport == Strategy::HttpOnly),
    ("--transport", Some("sse-only"), |c| c.transport == Strategy::SseOnly),
    ("--protocol", Some("auto"), |c| c.protocol == Protocol::Auto),
    ("--protocol", Some("legacy"), |c| c.protocol == Protocol::Legacy),
    ("--protocol", Some("modern"), |c| c.protocol == Protocol::Modern),
    ("--allow-http", None, |c| c.allow_http),
    ("--ipv4", None, |c| c.ipv4),
    ("--disable-cookies", None, |c| !c.cookies),
    ("--keep-alive", None, |c| c.keep_alive == Some(Duration::from_secs(30))),
    ("--ping-interval", Some("2.5"), |c| c.keep_alive == Some(Duration::from_millis(2500))),
    ("--max-message", Some("1MiB"), |c| c.max_message == 1 << 20),
    ("--header", Some("X-A: b c=d"), |c| header_values(c)["x-a"] == "b c=d"),
    ("--header", Some("-X: y"), |c| header_values(c)["-x"] == "y"),
    ("--header", Some("X-A:${TOKEN}"), |c| header_values(c)["x-a"] == SECRET),
    ("--header-file", Some("headers.txt"), |c| header_values(c)["x-file"] == "1"),
    ("--bearer-command", Some("vault 'print it' -x"), |c| {
        c.bearer_command.as_deref().unwrap() == ["vault", "print it", "-x"]
    }),
    ("--allow-tool", Some("get*"), |c| c.tool_rules.allow == ["get*"]),
    ("--ignore-tool", Some("*"), |c| c.tool_rules.ignore == ["*"]),
    ("--read-only", None, |c| c.tool_rules.read_only),
    ("--connect-timeout", Some("0.5"), |c| c.connect_timeout == Duration::from_millis(500)),
    ("--headers-timeout", Some("0"), |c| c.headers_timeout.is_none()),
    ("--body-timeout", Some("300"), |c| c.body_timeout == Some(Duration::from_secs(300))),
    ("--request-timeout", Some("60"), |c| c.request_timeout == Some(Duration::from_secs(60))),
    ("--initialize-timeout", Some("5"), |c| c.initialize_timeout == Duration::from_secs(5)),
    ("--drain", Some("0"), |c| c.drain == Some(Duration::ZERO)),
    ("--drain", Some("2"), |c| c.drain == Some(DRAIN)),
    ("--hold", Some("0.5"), |c| c.hold == Duration::from_millis(500)),
    ("--auth-timeout", Some("5"), |c| c.auth.auth_timeout == Duration::from_secs(5)),
    ("--credential-store", Some("file"), |c| c.credential_store == CredentialStore::File),
    ("--credential-store", Some("memory"), |c| c.credential_store == CredentialStore::Memory),
    ("--profile", Some("work"), |c| c.auth.profile == "work"),
    ("--static-oauth-client-info", Some(r#"{"client_id":"${TOKEN}"}"#), |c| client_id(c) == SECRET),
    ("--static-oauth-client-info", Some("@client.json"), |c| client_id(c) == "from a file"),
    ("--static-oauth-client-metadata", Some(r#"{"scope":"a b"}"#), |c| c.auth.scopes().unwrap().to_string() == "a b"),
    ("--client-metadata-url", Some("https://c.test/m"), |c| {
        c.auth.client_metadata_url.as_deref() == Some("https://c.test/m")
    }),
    ("--resource", Some("https://r.test"), |c| c.auth.resource.as_ref().unwrap().as_str() == "https://r.test"),
    ("--resource", Some(""), |c| c.auth.disable_resource && c.auth.resource.is_none()),
    ("--disable-resource-parameter", None, |c| c.auth.disable_resource),
    ("--authorize-param", Some("a=b=c"), |c| c.auth.authorize_params == [("a".to_owned(), "b=c".to_owned())]),
    ("--host", Some("127.0.0.1"), |c| c.auth.redirect_host == RedirectHost::V4),
    ("--host", Some("[::1]"), |c| c.auth.redirect_host == RedirectHost::V6),
    ("--callback-path", Some("/cb"), |c| c.auth.callback_path.as_str() == "/cb"),
    ("--callback-path", Some("/wait-for-auth"), |c| c.auth.callback_path.as_str() == "/wait-for-auth"),
    ("--auth-success-url", Some("https://done.test/"), |c| {
        c.auth.success_url.as_ref().unwrap().as_str() == "https://done.test/"
    }),
    ("--allow-missing-pkce-metadata", None, |c| c.auth.allow_missing_pkce),
    ("--allow-private-address", None, |c| c.allow_private_address),
    ("--proxy", Some("off"), |c| c.proxy == Proxy::Off),
    ("--proxy", Some("socks5://h:1"), |c| matches!(&c.proxy, Proxy::Url(url) if url.as_str() == "socks5://h:1")),
    ("--no-proxy", Some("a,b"), |c| c.no_proxy == ["a", "b"] && c.proxy == Proxy::Environment),
    ("--no-proxy", Some("*"), |c| c.proxy == Proxy::Off),
    ("--enable-proxy", None, |c| c.proxy == Proxy::Environment),
    ("--ca-file", Some("ca.pem"), |c| c.ca_files == [Path::new("ca.pem")]),
    ("--debug", None, |c| c.log.debug),
    ("--silent", None, |c| c.log.silent),
    ("--log-format", Some("json"), |c| c.log.format == LogFormat::Json),
    ("--log-file", Some("log"), |c| c.log.file.as_deref() == Some(Path::new("log"))),
];

#[test]
fn each_flag_works_in_each_position_and_form() {
    for (flag, value, arrived) in FLAGS {
        let joined = value.map_or(flag.to_owned(), |value| format!("{flag}={value}"));
        let apart: Vec<&str> = std::iter::once(flag).chain(value).collect();
        for words in [vec![joined.as_str()], apart] {
            let orders: [Vec<&str>; 3] = [
                [&words[..], &[URL, "3334"]].concat(),
                [&[URL], &words[..], &["3334"]].concat(),
                [&[URL, "3334"], &words[..]].concat(),
            ];
            for order in orders {
                let config = config(&order);
                assert!(arrived(&config), "{order:?}: {config:?}");
                assert_eq!(config.server.as_str(), URL);
                assert_eq!(config.auth.callback_port, Some(3334));
                assert!(config.notes.is_empty(), "{order:?}: {:?}", config.notes);
            }
        }
    }
}

#[test]
fn each_flag_has_a_case() {
    let help = flags::help();
    let listed: Vec<&str> = help.split_whitespace().filter(|word| word.starts_with("--")).collect();
    let names: BTreeSet<&str> = FLAGS.iter().map(|(name, _, _)| *name).collect();
    assert!(listed.len() >= names.len());
    for flag in listed {
        let flag = flag.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
        let tested = FLAGS.iter().any(|(name, _, _)| *name == flag)
            || matches!(flag, "--paste" | "--force" | "--all" | "--json")
            || matches!(flag, "--client-cert" | "--client-key" | "--help" | "--version" | "--flag" | "--flag=VALUE");
        assert!(tested, "{flag}");
    }
}

#[test]
fn sources_of_headers_are_read_in_the_order_typed() {
    let both = |words: &[&str]| header_values(&config(words))["x-both"].clone();
    assert_eq!(both(&["--header", "X-Both: flag", URL, "--header-file", "headers.txt"]), "file");
    assert_eq!(both(&["--header-file", "headers.txt", URL, "--header", "X-Both: flag"]), "flag");
    assert_eq!(both(&["--header=X-Both: a", "--header-file=headers.txt", URL, "--header=x-both: b"]), "b");
}

#[test]
fn the_first_value_counts_and_the_user_is_told() {
    let config = config(&[
        "--transport=sse-only",
        URL,
        "--transport",
        "nonsense",
        "--drain=1",
        "--drain=2",
        "--debug",
        "--debug",
    ]);
    assert_eq!(config.transport, Strategy::SseOnly);
    assert_eq!(config.drain, Some(Duration::from_secs(1)));
    assert!(config.log.debug);
    assert_eq!(
        config.notes,
        ["--transport is given 2 times, the first counts", "--drain is given 2 times, the first counts"]
    );
}

#[test]
fn related_flags() {
    let with_interval = config(&[URL, "--keep-alive", "--ping-interval", "7"]);
    assert_eq!(with_interval.keep_alive, Some(Duration::from_secs(7)));
    let identity = config(&[URL, "--client-key", "k", "--client-cert", "c"]).client_identity;
    assert_eq!(identity, Some(("c".into(), "k".into())));
    let noted = config(&[URL, "--header", "Accept: */*"]);
    assert_eq!(noted.notes, ["--header: the header accept is ignored, the bridge sets it for each message"]);
    assert_eq!(config(&["http://h/", "--allow-http"]).server.as_str(), "http://h/");
}

#[test]
fn the_environment_names_a_certificate_file() {
    let with = |value: &'static str| {
        let env = move |name: &str| (name == "NODE_EXTRA_CA_CERTS").then(|| value.to_owned());
        match parse([OsString::from(URL)], &env, &file) {
            Ok(Command::Run(config)) => (config.env_ca_file, config.state_dir),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with("/ca.pem"), (Some(PathBuf::from("/ca.pem")), None));
    assert_eq!(with(""), (None, None));
}

#[test]
fn wrong_arguments_are_errors() {
    let table: [(&[&str], &str); 39] = [
        (&[], "the server URL is missing"),
        (&["--debug"], "the server URL is missing"),
        (&["--", "--debug"], "the first argument is not a URL"),
        (&[URL, "3334", SECRET], "there are 3 arguments besides the flags"),
        (&[URL, SECRET], "the second argument is not a callback port"),
        (&[URL, "0"], "the second argument is not a callback port"),
        (&[URL, "65536"], "the second argument is not a callback port"),
        (&[URL, "+80"], "the second argument is not a callback port"),
        (&[URL, "http://example.com/s3cr3t"], "the second argument is not a callback port"),
        (&["npx", "-y", "mcp-remote", URL], "-y is a flag of npx"),
        (&["mcp-remote", URL], "\"mcp-remote\" is not the server URL"),
        (&["npx", "mcp-remote@0.15.1", URL], "\"npx\" is not the server URL"),
        (&[URL, "--header"], "--header needs a value"),
        (&[URL, "--header", "--debug"], "--header needs a value, but the flag --debug follows"),
        (
            &[URL, "--header", "Authorization:", "Bearer", SECRET],
            "--header: the value of the header authorization is empty",
        ),
        (&[URL, "--header", "X: 1", "--header", SECRET], "--header number 2 has no colon"),
        (&[URL, "--header-file", "none"], "--header-file none cannot be read: there is no such file"),
        (&[URL, "--transport", "http"], "--transport: \"http\" is not known"),
        (&[URL, "--transport"], "--transport needs a value"),
        (&[URL, "--transport="], "--transport needs a value"),
        (&[URL, "--log-format", "xml"], "--log-format: \"xml\" is not known"),
        (&[URL, "--log-file", "--debug"], "--log-file needs a value"),
        (&[URL, "--ca-file="], "--ca-file needs a value"),
        (&[URL, "--connect-timeout", "0"], "--connect-timeout cannot be 0"),
        (&[URL, "--connect-timeout", "-1"], "--connect-timeout: \"-1\" is not a number of seconds"),
        (&[URL, "--ping-interval", "0"], "--ping-interval cannot be 0"),
        (&[URL, "--initialize-timeout", "0"], "--initialize-timeout cannot be 0"),
        (&[URL, "--max-message", "64MB"], "--max-message: \"64MB\" is not a size"),
        (&[URL, "--client-cert", "c"], "--client-cert is given without --client-key"),
        (&[URL, "--bearer-command", "vault 's3cr3t"], "--bearer-command has a quote without its end"),
        (
            &[URL, "--bearer-command", "a s3cr3t | b"],
            "--bearer-command has a word that only a shell would carry out, such as | or >",
        ),
        (
            &[URL, "--bearer-command", "vault s3cr3t", "--header=AUTHORIZATION: Basic s3cr3t"],
            "--bearer-command and a header authorization are given, and only one can be sent",
        ),
        (&[URL, "--debug=s3cr3t"], "--debug takes no value"),
        (&[URL, "--haeder=X: s3cr3t"], "--haeder is not a flag"),
        (&[URL, "--Authorization: s3cr3t"], "--Authorization is not a flag"),
        (&[URL, "-d"], "-d is not a flag"),
        (&[URL, "--b\x1bad"], "--b\\u{1b}ad is not a flag"),
        (&[URL, "--protocol", "2026"], "--protocol: \"2026\" is not known"),
        (&[URL, "--device-code=s3cr3t"], "--device-code: signing in by device code is not part of this version yet"),
    ];
    for (words, message) in table {
        let error = error(words);
        assert_eq!(error.message, message, "{words:?}");
        assert!(!error.to_string().contains(SECRET), "{error}");
        assert_eq!(error.to_string().lines().count(), 2, "{error}");
    }
}

#[test]
fn near_names_are_suggested() {
    for (typed, meant) in [
        ("--haeder", "--header"),
        ("--allow_http", "--allow-http"),
        ("--ignore-tools", "--ignore-tool"),
        ("--Transport", "--transport"),
        ("--keepalive", "--keep-alive"),
        ("--ping-intervall=3", "--ping-interval"),
    ] {
        let hint = error(&[URL, typed]).hint;
        assert!(hint.starts_with(&format!("Did you mean {meant}?")), "{typed}: {hint}");
    }
    assert!(!error(&[URL, "--qqqqqqqq"]).hint.contains("Did you mean"));
}

/// mcp-remote 0.15.1, all flags: each works or says that its part is missing. None is unknown.
#[test]
fn flags_of_mcp_remote_are_known() {
    let works = [
        "--allow-http",
        "--auth-success-url=https://done.test/",
        "--auth-timeout=1",
        "--authorize-param=a=b",
        "--callback-path=/cb",
        "--client-metadata-url=https://c.test/m",
        "--disable-resource-parameter",
        "--host=localhost",
        "--resource=https://r.test",
        "--static-oauth-client-info={\"client_id\":\"a\"}",
        "--static-oauth-client-metadata={}",
        "--body-timeout=1",
        "--connect-timeout=1",
        "--debug",
        "--disable-cookies",
        "--enable-proxy",
        "--header=X: 1",
        "--header-file=headers.txt",
        "--headers-timeout=1",
        "--ignore-tool=x",
        "--ipv4",
        "--keep-alive",
        "--ping-interval=1",
        "--silent",
        "--transport=http-first",
    ];
    for flag in works {
        assert!(parse_words(&[URL, flag]).is_ok(), "{flag}");
    }
    let later = ["--client-credentials", "--device-code", "--token-endpoint", "--use-id-token"];
    for flag in later {
        let error = error(&[URL, flag, "value"]);
        assert!(error.message.ends_with("is not part of this version yet"), "{error}");
        assert!(!flags::help().contains(flag), "{flag}");
    }
}

#[test]
fn help_and_version_win_anywhere() {
    for words in [&["--help"][..], &["-h"], &[URL, "--bogus", "--help"], &["--header", "-h"], &["-Vh"]] {
        assert!(matches!(parse_words(words), Ok(Command::Help(_))), "{words:?}");
    }
    for words in [&["--version"][..], &[URL, "-V"], &["mcp-remote", "--version"]] {
        let Ok(Command::Version(text)) = parse_words(words) else { panic!("{words:?}") };
        assert_eq!(text, format!("mcp-drawbridge {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_fits_a_screen() {
    let help = flags::help();
    for line in help.lines() {
        assert!(line.chars().count() <= 100 && line.is_ascii(), "{line}");
    }
    assert!(help.lines().count() <= 100);
}

#[test]
fn repeats_have_a_limit() {
    for flag in [
        "--header=X: 1",
        "--header-file=headers.txt",
        "--allow-tool=a",
        "--ignore-tool=a",
        "--no-proxy=a",
        "--ca-file=a",
        "--authorize-param=a=b",
    ] {
        let most: Vec<&str> = std::iter::once(URL).chain([flag; flags::MAX_REPEATS]).collect();
        assert!(parse_words(&most).is_ok(), "{flag}");
        let more: Vec<&str> = most.into_iter().chain([flag]).collect();
        let name = flag.split('=').next().unwrap();
        assert_eq!(error(&more).message, format!("{name} is given 257 times"));
    }
}

#[test]
fn patterns_have_a_limit() {
    let longest = "x".repeat(MAX_PATTERN_BYTES);
    assert!(parse_words(&[URL, "--allow-tool", &longest]).is_ok());
    let message = "--ignore-tool: a pattern is longer than 256 bytes";
    assert_eq!(error(&[URL, "--ignore-tool", &format!("{longest}x")]).message, message);
}

#[cfg(unix)]
#[test]
fn arguments_are_unicode() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = OsString::from_vec(b"--header=X: \xFFs3cr3t".to_vec());
    let error = parse([OsString::from(URL), bad], &variables, &file).unwrap_err();
    assert_eq!(error.message, "argument 2 is not valid Unicode");
}

#[test]
fn debug_of_a_configuration_shows_no_secret() {
    let words = [
        "https://example.com/mcp?key=s3cr3t",
        "--header=Authorization: Bearer s3cr3t",
        "--header=X-Key: ${TOKEN}",
        "--proxy=http://user:s3cr3t@proxy.test:3128",
    ];
    let with_command = parse_words(&[URL, "--bearer-command=vault --key s3cr3t"]);
    let shown = format!("{with_command:?}");
    assert!(!shown.contains(SECRET) && shown.contains("vault"), "{shown}");
    let Ok(command) = parse_words(&words) else { panic!() };
    let shown = format!("{command:?} {command:#?}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(shown.contains("authorization") && shown.contains("https://example.com/mcp?…"), "{shown}");
}

proptest::proptest! {
    /// Whatever is typed: no panic, and an error is two plain lines.
    #[test]
    fn any_arguments_end_in_a_command_or_in_two_lines(
        words in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(&["--", "-", "=", "--=", "-hx", "--header", "--header=", "X: ${", URL, "${TOKEN}"][..])
                    .prop_map(str::to_owned),
                proptest::sample::select(&FLAGS[..]).prop_map(|(flag, value, _)| format!("{flag}={}", value.unwrap_or(""))),
                proptest::sample::select(&FLAGS[..]).prop_map(|(flag, _, _)| flag.to_owned()),
                "https?://.{0,12}",
                "-{0,3}.{0,12}",
                ".{0,6}:.{0,6}",
            ],
            0..6,
        )
    ) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Err(error) = parse_words(&words) {
            let text = error.to_string();
            proptest::prop_assert_eq!(text.lines().count(), 2, "{}", text);
            proptest::prop_assert!(text.lines().all(|line| !line.contains(char::is_control)), "{}", text);
            proptest::prop_assert!(!error.message.is_empty() && !error.hint.is_empty());
            proptest::prop_assert!(!text.contains(SECRET), "{}", text);
        }
    }
}
