//! The flags of sign-in.

use super::*;
use crate::auth::registration::AuthMethod;

const INFO: &str = "--static-oauth-client-info";
const METADATA: &str = "--static-oauth-client-metadata";

#[test]
fn what_is_not_said() {
    let auth = config(&[URL]).auth;
    assert_eq!(auth.redirect_host, if cfg!(windows) { RedirectHost::V4 } else { RedirectHost::Localhost });
    assert_eq!(auth.callback_path.as_str(), "/oauth/callback");
    assert_eq!((auth.callback_port, auth.auth_timeout), (None, Duration::from_secs(30)));
    assert!(auth.success_url.is_none() && auth.resource.is_none() && !auth.disable_resource);
    assert!(auth.authorize_params.is_empty() && auth.client_metadata.is_none() && auth.client_info.is_none());
    assert!(auth.client_metadata_url.is_none() && !auth.allow_missing_pkce && auth.profile.is_empty());
}

/// Redirect URIs that mcp-remote registered stay valid. The ports are of MD5 sums made elsewhere.
#[test]
fn the_port_is_the_one_of_mcp_remote() {
    assert_eq!(config(&[URL]).auth.derived_port, PLAIN_PORT);
    let full = [
        URL,
        "--header=X-A:  ${TOKEN} ",
        "--header=X.B: not in mcp-remote's files",
        "--header-file=headers.txt",
        "--authorize-param= b =2",
        "--authorize-param=a=0",
        "--authorize-param=a=1",
        "--resource= https://example.com/api ",
        "--client-metadata-url= https://example.com/c.json",
        "--profile=work",
        "--host=127.0.0.1",
    ];
    let auth = config(&full).auth;
    assert_eq!(auth.derived_port, FULL_PORT);
    assert_eq!(auth.authorize_params, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let disabled = config(&[URL, "--resource=https://example.com/api", "--disable-resource-parameter"]);
    assert_eq!(disabled.auth.derived_port, PLAIN_PORT);
    assert!(disabled.auth.disable_resource && disabled.auth.resource.is_none());
    assert_eq!(disabled.notes, ["--resource is not sent, because --disable-resource-parameter is given"]);
}

/// mcp-remote takes both, so configurations have them.
#[test]
fn scope_and_resource_may_be_parameters_of_the_page() {
    let config = config(&[
        URL,
        "--authorize-param=scope=a b",
        "--authorize-param",
        "resource=urn:r",
        METADATA,
        r#"{"scope":"c"}"#,
    ]);
    assert_eq!(config.auth.scopes().unwrap().to_string(), "a b", "it beats every other");
    assert_eq!(config.auth.authorize_params, [("resource".to_owned(), "urn:r".to_owned())]);
    let note = "--authorize-param resource is for the sign-in page alone; --resource tells the token endpoint too";
    assert_eq!(config.notes, [note]);
    assert!(config.auth.resource.is_none());
}

const PLAIN_PORT: u16 = 37_931;
const FULL_PORT: u16 = 22_280;

/// Who registered a redirect URI by hand registered its port.
#[test]
fn a_client_of_the_users_own_makes_the_port_strict() {
    let own = [INFO, "{\"client_id\":\"a\"}"];
    assert_eq!(config(&[URL, own[0], own[1]]).auth.callback_port, Some(PLAIN_PORT));
    assert_eq!(config(&[URL, "4000", own[0], own[1]]).auth.callback_port, Some(4000));
    let document = config(&[URL, "--client-metadata-url=https://c.test/m"]).auth;
    assert_eq!(document.callback_port, Some(document.derived_port));
    assert_eq!(config(&[URL, METADATA, "{}"]).auth.callback_port, None);
}

#[test]
fn clients_are_read() {
    let read = |text: &str| config(&[URL, INFO, text]).auth.client_info.unwrap();
    let own = read(
        r#" {"client_id":"a b","client_secret":"x-${TOKEN}","token_endpoint_auth_method":"client_secret_post","issuer":"https://as.test","redirect_uris":[]}"#,
    );
    assert_eq!((&*own.client_id, own.client_secret.unwrap().expose()), ("a b", "x-s3cr3t"));
    assert_eq!((own.method, own.issuer.as_deref()), (Some(AuthMethod::Post), Some("https://as.test")));
    let own = read(r#"{"client_id":"a","client_secret":"","issuer":null}"#);
    assert!(own.client_secret.is_none() && own.issuer.is_none() && own.method.is_none());
    assert_eq!(read("@client.json").client_secret.unwrap().expose(), SECRET);
    // A whole object in a variable; a quote in a variable does not break out of its text.
    let env = |name: &str| match name {
        "WHOLE" => Some(r#"{"client_id":"whole ${HALF}"}"#.to_owned()),
        "QUOTE" => Some(r#"a","client_id":"evil"#.to_owned()),
        _ => None,
    };
    let with = |text: &str| match parse([URL, INFO, text].map(OsString::from), &env, &file) {
        Ok(Command::Run(config)) => config.auth.client_info.unwrap().client_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(with("${WHOLE}"), "whole ${HALF}");
    assert_eq!(with(r#"{"client_id":"${QUOTE}"}"#), r#"a","client_id":"evil"#);
}

#[test]
fn what_is_registered_is_read() {
    let config = config(&[URL, METADATA, r#"{"client_name":"mine","redirect_uris":["http://x"]}"#]);
    assert_eq!(config.auth.client_metadata.unwrap()["client_name"], "mine");
    assert_eq!(config.notes.len(), 1);
    assert!(config.notes[0].contains("redirect_uris is not sent"), "{:?}", config.notes);
}

#[test]
fn wrong_values_are_errors_without_secrets() {
    let long = "x".repeat(crate::cli::sign_in::MAX_PROFILE_CHARS + 1);
    let long_id = format!("{{\"client_id\":\"{}\"}}", "x".repeat(4097));
    let table: &[(&str, &str, &str)] = &[
        ("--host", "0.0.0.0", "--host: \"0.0.0.0\" is not this machine"),
        ("--host", "example.com", "--host: \"example.com\" is not this machine"),
        ("--callback-path", "cb", "--callback-path: the callback path \"cb\" must begin with one slash"),
        ("--auth-success-url", "http://a.test/", "--auth-success-url: http://a.test/ is not encrypted"),
        (
            "--auth-success-url",
            "https://a.test/?s3cr3t",
            "--auth-success-url: the success URL has a query or a fragment",
        ),
        (
            "--auth-success-url",
            "https://u:s3cr3t@a.test/",
            "--auth-success-url: https://a.test/ has a user name or password in it",
        ),
        ("--auth-timeout", "0", "--auth-timeout cannot be 0"),
        ("--auth-timeout", "30s", "--auth-timeout: \"30s\" is not a number of seconds"),
        ("--hold", "-1", "--hold: \"-1\" is not a number of seconds"),
        ("--resource", "s3cr3t", "--resource: it is not an absolute URI"),
        ("--resource", "https://r.test/#s3cr3t", "--resource: a resource has no fragment (RFC 8707 section 2)"),
        ("--authorize-param", "s3cr3t", "--authorize-param needs a name, =, and a value"),
        ("--authorize-param", " =s3cr3t", "--authorize-param needs a name, =, and a value"),
        ("--authorize-param", "state=s3cr3t", "--authorize-param cannot set state"),
        ("--authorize-param", "Redirect_URI=s3cr3t", "--authorize-param cannot set Redirect_URI"),
        ("--authorize-param", "RESOURCE=s3cr3t", "--authorize-param cannot set RESOURCE"),
        (METADATA, "s3cr3t", "--static-oauth-client-metadata holds no JSON object"),
        (METADATA, "[\"s3cr3t\"]", "--static-oauth-client-metadata holds no JSON object"),
        (METADATA, "{\"scope\":[\"s3cr3t\"]}", "--static-oauth-client-metadata: scope is not a text"),
        (
            METADATA,
            "{\"token_endpoint_auth_method\":\"private_key_jwt\"}",
            "--static-oauth-client-metadata: that token_endpoint_auth_method is not supported",
        ),
        (METADATA, "@", "--static-oauth-client-metadata: no file follows the @"),
        (METADATA, "@none", "--static-oauth-client-metadata none cannot be read: there is no such file"),
        (INFO, "{\"client_secret\":\"s3cr3t\"}", "--static-oauth-client-info has no client_id"),
        (INFO, "{\"client_id\":\"\"}", "--static-oauth-client-info has no client_id"),
        (INFO, "{\"client_id\":5}", "--static-oauth-client-info: client_id is not a text"),
        (
            INFO,
            "{\"client_id\":\"a\\r\\ns3cr3t\"}",
            "--static-oauth-client-info: client_id is too long or holds a character that none has",
        ),
        (INFO, &long_id, "--static-oauth-client-info: client_id is too long or holds a character that none has"),
        (
            INFO,
            "{\"client_id\":\"${NONE}\"}",
            "--static-oauth-client-info needs the variable NONE, which is not set or empty",
        ),
        (INFO, "${TOKEN}", "--static-oauth-client-info holds no JSON object"),
        (
            INFO,
            "{\"client_id\":\"a\",\"token_endpoint_auth_method\":\"client_secret_basic\"}",
            "--static-oauth-client-info: client_secret_basic needs a client_secret",
        ),
        ("--client-metadata-url", "http://c.test/m", "--client-metadata-url: it is not https"),
        ("--client-metadata-url", "https://c.test", "--client-metadata-url: it has no path"),
        ("--credential-store", "cloud", "--credential-store: \"cloud\" is not known"),
        ("--profile", " ", "--profile: that is not a name"),
        ("--profile", "a\nb", "--profile: that is not a name"),
        ("--profile", &long, "--profile: that is not a name"),
    ];
    for (flag, value, message) in table {
        let error = error(&[URL, flag, value]);
        assert_eq!(error.message, *message, "{flag} {value}");
        assert!(!error.to_string().contains(SECRET), "{error}");
        assert_eq!(error.to_string().lines().count(), 2, "{error}");
    }
    let twice = error(&[URL, "--auth-success-url=https://a.test/", "--auth-success-url=https://b.test/"]);
    assert_eq!(twice.message, "--auth-success-url is given more than once");
    let longest = "x".repeat(crate::cli::sign_in::MAX_PROFILE_CHARS);
    assert_eq!(config(&[URL, "--profile", &longest]).auth.profile, longest);
}

#[test]
fn debug_shows_no_secret() {
    let shown = config(&[
        URL,
        INFO,
        "{\"client_id\":\"me\",\"client_secret\":\"s3cr3t\"}",
        METADATA,
        "{\"x\":\"s3cr3t\"}",
        "--authorize-param=key=s3cr3t",
    ]);
    let shown = format!("{shown:?} {shown:#?}");
    assert!(!shown.contains(SECRET) && shown.contains("me"), "{shown}");
}
