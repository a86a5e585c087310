//! `login`, `logout`, `status` and `import`: the real program, a real authorization server, a state directory of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use mcp_drawbridge::store::import::Candidate;
use serde_json::Value;

use support::authorization_server::{Endpoint, Protected, Rules};
use support::browser::{visit, visit_until};
use support::mcp::Kind;
use support::wire::{Reply, Server};
use support::{LIMIT, TempDir};

/// What a command printed.
struct Printed {
    code: Option<i32>,
    out: String,
    err: String,
}

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new())
    }

    /// A command that keeps its key in a file, and finds no browser.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-drawbridge"));
        command.args(words).env_clear().current_dir(self.0.path());
        command.envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)));
        command.env("HOME", self.0.path()).env("MCP_DRAWBRIDGE_STATE_DIR", self.0.path().join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Printed {
        let words = [words, &["--credential-store", "file"]].concat();
        let output = self.command(&words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Printed { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn status(&self) -> Value {
        let printed = self.run(&["status", "--json"]);
        assert_eq!((printed.code, &*printed.err), (Some(0), ""));
        serde_json::from_str(&printed.out).unwrap()
    }

    /// Signs in by pasting, as a person without a browser does.
    fn sign_in(&self, url: &str, flags: &[&str]) -> Printed {
        let mut login = Login::start(self, url, &[&["--paste"], flags].concat());
        let end = login.visit();
        login.paste(&end);
        login.end()
    }
}

/// A `login` that runs.
struct Login {
    child: Child,
    lines: Receiver<String>,
    err: String,
}

impl Login {
    fn start(home: &Home, url: &str, flags: &[&str]) -> Self {
        let words = [&["login", url, "--credential-store", "file"], flags].concat();
        let mut child = home.command(&words).stdin(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, err: String::new() }
    }

    /// Waits for a line on stderr.
    fn line(&mut self, what: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no {what} in:\n{}", self.err));
            self.err.push_str(&line);
            self.err.push('\n');
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Opens the address that was printed, and gives the one at the end, which nobody loads.
    fn visit(&mut self) -> String {
        let address = self.line("http://").trim().to_owned();
        visit_until(&address, "http://localhost:")
    }

    fn paste(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    fn end(mut self) -> Printed {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let code = self.child.wait().unwrap().code();
        self.err.extend(self.lines.iter().map(|line| line + "\n"));
        Printed { code, out, err: self.err }
    }
}

fn protected() -> Protected {
    Protected::with(Kind::default(), Rules { scopes: &["read", "write"], ..Rules::default() })
}

#[test]
fn in_and_out_by_pasting() {
    let (home, server) = (Home::new(), protected());
    let url = server.url();
    let mut login = Login::start(&home, &url, &["--paste"]);
    let end = login.visit();
    login.paste("http://localhost:1/somewhere/else?code=x&state=y");
    login.line("That is not the address at the end of the sign-in");
    login.paste(&end);
    let printed = login.end();
    assert_eq!(printed.code, Some(0), "{}{}", printed.out, printed.err);
    let issuer = server.authority.origin();
    for said in [
        &*format!("Signed in to {url}.\n"),
        &format!("  through    {issuer}\n"),
        "  scopes     read write\n",
        "  token      ends in 60 minutes, renews itself\n",
        "  kept in    ",
        "credentials, its key in a file beside it\n",
    ] {
        assert!(printed.out.contains(said), "{said}: {}", printed.out);
    }
    let code = url::Url::parse(&end).unwrap().query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    assert!(!format!("{}{}", printed.out, printed.err).contains(&code));

    let status = home.status();
    assert_eq!(status["sign_ins"][0]["server"], *url);
    assert_eq!(status["sign_ins"][0]["scopes"], serde_json::json!(["read", "write"]));
    assert_eq!((&status["sign_ins"][0]["refresh_token"], &status["store"]["place"]), (&true.into(), &"file".into()));
    assert_eq!(status["pending"], serde_json::json!([]));

    // Once more: nothing happens, unless it is forced.
    let asked = server.authority.requests().len();
    let again = home.run(&["login", &url]);
    assert!(again.out.starts_with(&format!("Signed in to {url} already; --force signs in anew.\n")), "{}", again.out);
    assert_eq!((again.code, server.authority.requests().len()), (Some(0), asked));
    assert_eq!(home.sign_in(&url, &["--force"]).code, Some(0));
    assert_eq!(server.authority.counts().tabs(), 2);

    let out = home.run(&["logout", &url]);
    assert_eq!((out.code, &*out.out), (Some(0), &*format!("Signed out of {url}.\n")), "{}", out.err);
    assert!(server.authority.counts().of(Endpoint::Revoke) > 0);
    assert_eq!(home.status()["sign_ins"], serde_json::json!([]));
    assert_eq!(home.run(&["logout", &url]).out, format!("Not signed in to {url}.\n"));
}

#[test]
fn profiles_are_apart_and_end_together() {
    let (home, server) = (Home::new(), protected());
    let url = server.url();
    assert_eq!(home.sign_in(&url, &["--profile", "work"]).code, Some(0));
    assert_eq!(home.sign_in(&url, &["--profile", "home"]).code, Some(0));
    let wrong = home.run(&["logout", &url]);
    assert_eq!(
        wrong.out,
        format!(
            "Not signed in to {url}.\nThere are other sign-ins to it: --profile home, --profile work; --all ends all.\n"
        )
    );
    let one = home.run(&["status", &url, "--profile", "work"]);
    assert!(
        one.out.starts_with(&format!("{url} (profile work)\n")) && !one.out.contains("profile home"),
        "{}",
        one.out
    );
    let all = home.run(&["logout", &url, "--all"]);
    assert_eq!(all.out, format!("Signed out of {url} (profile home).\nSigned out of {url} (profile work).\n"));
    assert_eq!(home.status()["sign_ins"], serde_json::json!([]));
}

/// The server is gone: what is here is deleted all the same, and the user hears what was not done.
#[test]
fn a_logout_without_the_server() {
    let (home, mut server) = (Home::new(), protected());
    let url = server.url();
    assert_eq!(home.sign_in(&url, &[]).code, Some(0));
    server.authority.on(Endpoint::Revoke, |_, _| Some(Reply::status(503)));
    let out = home.run(&["logout", &url]);
    assert_eq!(out.code, Some(0));
    assert!(out.out.starts_with(&format!(
        "Signed out of {url}: the tokens are deleted here. The server was not told to end them: "
    )));
    assert_eq!(home.status()["sign_ins"], serde_json::json!([]));
    server.authority.strict = false;
}

#[test]
fn a_sign_in_that_is_denied_fails() {
    let (home, server) = (Home::new(), protected());
    server.authority.deny(true);
    let mut login = Login::start(&home, &server.url(), &[]);
    let address = login.line("http://").trim().to_owned();
    let page = visit(&address).expect("the page at the end");
    assert!(!page.body.contains("Signed in"), "{}", page.body);
    let printed = login.end();
    assert_eq!((printed.code, &*printed.out), (Some(1), ""), "{}", printed.err);
    assert!(printed.err.lines().any(|line| line.starts_with("mcp-drawbridge: ")), "{}", printed.err);
    assert_eq!(home.status()["pending"], serde_json::json!([]));
}

#[test]
fn a_denial_that_is_pasted_ends_it_soon() {
    let (home, server) = (Home::new(), protected());
    server.authority.deny(true);
    let begun = Instant::now();
    let printed = home.sign_in(&server.url(), &[]);
    assert_eq!((printed.code, &*printed.out), (Some(1), ""), "{}", printed.err);
    assert!(printed.err.contains("mcp-drawbridge: the sign-in was denied"), "{}", printed.err);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_and_the_sign_in_stays_for_later() {
    let (home, server) = (Home::new(), protected());
    let mut login = Login::start(&home, &server.url(), &[]);
    let end = login.visit();
    let pid = rustix::process::Pid::from_child(&login.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let printed = login.end();
    assert_eq!((printed.code, &*printed.out), (Some(1), ""));
    assert!(printed.err.ends_with("mcp-drawbridge: the sign-in was interrupted\n"), "{}", printed.err);
    let status = home.status();
    assert_eq!(status["pending"][0]["server"], *server.url());
    // The next one takes the same sign-in over.
    let mut login = Login::start(&home, &server.url(), &["--paste"]);
    login.line("http://");
    login.paste(&end);
    assert_eq!(login.end().code, Some(0));
    assert_eq!(server.authority.counts().tabs(), 1);
}

#[test]
fn a_server_that_wants_nothing() {
    let home = Home::new();
    let server = Server::start(|_| Reply::json(200, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
    let url = format!("{}/mcp", server.origin());
    let printed = home.run(&["login", &url]);
    assert_eq!(printed.out, format!("{url} needs no sign-in: it answered without one.\n"), "{}", printed.err);
    assert_eq!(printed.code, Some(0));
    drop(server);
    let printed = home.run(&["login", &url]);
    assert_eq!((printed.code, &*printed.out), (Some(1), ""));
    assert!(printed.err.starts_with("mcp-drawbridge: asking the server"), "{}", printed.err);
}

#[test]
fn what_makes_no_sense_is_said() {
    let home = Home::new();
    let url = "https://example.com/mcp";
    let table: [(&[&str], &str); 4] = [
        (
            &["login", url, "--header=Authorization: Bearer s3cr3t"],
            "a header authorization is given, so there is nothing to sign in for",
        ),
        (&["login", url, "--bearer-command=x s3cr3t"], "--bearer-command is given, so there is nothing to sign in for"),
        (&["logout"], "the server URL is missing"),
        (&["status", "--force"], "--force belongs to mcp-drawbridge login"),
    ];
    for (words, message) in table {
        let printed = home.run(words);
        assert_eq!((printed.code, &*printed.out), (Some(2), ""));
        assert!(printed.err.starts_with(&format!("mcp-drawbridge: {message}\n")), "{}", printed.err);
        assert!(!printed.err.contains("s3cr3t"));
    }
    let memory = home.command(&["login", url, "--credential-store", "memory"]).output().unwrap();
    assert_eq!(memory.status.code(), Some(2));
}

#[test]
fn a_login_that_cannot_be_kept_fails() {
    let (home, server) = (Home::new(), protected());
    // A file is where the directory should be.
    std::fs::write(home.0.path().join("state"), "").unwrap();
    let printed = home.sign_in(&server.url(), &[]);
    assert_eq!(printed.code, Some(1), "{}{}", printed.out, printed.err);
    assert!(printed.out.contains("It could not be kept"), "{}", printed.out);
    assert!(printed.err.contains("Sign-ins are kept in memory and end with this process."), "{}", printed.err);
}

#[test]
fn a_logout_of_nothing_writes_nothing() {
    let (home, server) = (Home::new(), protected());
    let printed = home.run(&["logout", &server.url()]);
    assert_eq!((printed.code, &*printed.err), (Some(0), ""));
    assert_eq!(printed.out, format!("Not signed in to {}.\n", server.url()));
    assert!(!home.0.path().join("state").exists());
    assert!(server.authority.requests().is_empty());
}

#[test]
fn a_second_window_without_a_browser_says_what_to_do_too() {
    let (home, server) = (Home::new(), protected());
    let mut login = Login::start(&home, &server.url(), &["--paste"]);
    let address = login.line("http://");
    login.line("press Enter");
    let mut second =
        home.command(&[&server.url(), "--credential-store", "file"]).stdin(Stdio::piped()).spawn().unwrap();
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    writeln!(second.stdin.as_mut().unwrap(), "{initialize}").unwrap();
    let lines: Vec<String> =
        BufReader::new(second.stderr.take().unwrap()).lines().map_while(Result::ok).take(2).collect();
    assert!(lines[0].contains(address.trim()), "{lines:?}");
    assert!(lines[1].contains("`mcp-drawbridge login URL --paste`"), "{lines:?}");
    second.kill().unwrap();
    second.wait().unwrap();
    login.paste(&visit_until(address.trim(), "http://localhost:"));
    assert_eq!(login.end().code, Some(0));
}

#[test]
fn status_of_nothing_writes_nothing() {
    let home = Home::new();
    let printed = home.run(&["status"]);
    let file = home.0.path().join("state").join("credentials");
    assert_eq!(
        printed.out,
        format!("Not signed in anywhere.\nSign-ins are kept in {}, which is not there yet.\n", file.display())
    );
    assert_eq!((printed.code, &*printed.err), (Some(0), ""));
    assert!(!home.0.path().join("state").exists());
    let twice = home.run(&["status", "--profile=a", "--profile=b"]);
    assert_eq!((twice.code, &*twice.err), (Some(0), "--profile is given 2 times, the first counts\n"));
    let memory = home.command(&["status", "--credential-store", "memory"]).output().unwrap();
    assert!(String::from_utf8(memory.stdout).unwrap().ends_with("kept in memory, until this process ends.\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_a_failure() {
    let home = Home::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let printed = home.command(&["status", "--json"]).stdout(full).output().unwrap();
    assert_eq!(printed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&printed.stderr).contains("stdout cannot be written"), "{printed:?}");
    // A reader that has read enough is none.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let printed = home.command(&["status", "--json"]).stdout(writer).output().unwrap();
    assert_eq!((printed.status.code(), &*printed.stderr), (Some(0), &b""[..]));
}

// ---- import ----

const SERVER: &str = "http://127.0.0.1:18141/mcp";
const HASH: &str = "92d222637c6a62a33a3518de94f28749";
const OLDER_HASH: &str = "a2843d7613467646433fdeab0024193a";
const TOKENS: &str = r#"{"access_token":"s3cr3t-a","token_type":"Bearer","expires_in":3600,"refresh_token":"s3cr3t-r","issuer":"https://as.test",
    "requested_scope":"read"}"#;
const CLIENT: &str =
    r#"{"client_id":"c","redirect_uris":["http://localhost:40921/oauth/callback"],"issuer":"https://as.test"}"#;

fn mcp_remote(home: &Home, version: &str, hash: &str) {
    let directory = home.0.path().join(".mcp-auth").join(version);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("{hash}_tokens.json")), TOKENS).unwrap();
    std::fs::write(directory.join(format!("{hash}_client_info.json")), CLIENT).unwrap();
}

#[cfg(unix)]
#[test]
fn sign_ins_of_mcp_remote_are_taken_over() {
    let home = Home::new();
    mcp_remote(&home, "mcp-remote-v1", HASH);
    let unknown = "0123456789abcdef0123456789abcdef";
    mcp_remote(&home, "mcp-remote-0.1.38", unknown);
    let root = home.0.path().join(".mcp-auth");
    let root = root.display();

    let nothing = home.run(&["import"]);
    assert_eq!(nothing.code, Some(0));
    assert!(
        nothing.out.starts_with("Left: sign-ins of 2 servers. mcp-remote's files do not name their servers"),
        "{}",
        nothing.out
    );
    assert!(nothing.out.contains(&format!("  in {root}/mcp-remote-v1/{HASH}_*\n")), "{}", nothing.out);
    assert!(nothing.out.contains(&format!("  in {root}/mcp-remote-0.1.38/{unknown}_*\n")), "{}", nothing.out);
    assert!(!home.0.path().join("state").exists(), "nothing was taken, so nothing is written");

    let wrong = home.run(&["import", "https://other.test/mcp"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);

    let taken = home.run(&["import", SERVER, "--host", "localhost"]);
    assert_eq!((taken.code, &*taken.err), (Some(0), ""));
    for said in [
        format!("Taken: the sign-in to {SERVER} by https://as.test\n  from {root}/mcp-remote-v1/{HASH}_tokens.json\n"),
        format!("Taken: the registration with https://as.test\n  from {root}/mcp-remote-v1/{HASH}_client_info.json\n"),
        "Left: sign-ins of 1 other server.".to_owned(),
        "its key in a file beside it. mcp-remote's files are as they were.\n".to_owned(),
    ] {
        assert!(taken.out.contains(&said), "{said}\n{}", taken.out);
    }
    assert!(!taken.out.contains("s3cr3t"));
    assert_eq!(
        std::fs::read_to_string(home.0.path().join(".mcp-auth/mcp-remote-v1").join(format!("{HASH}_tokens.json")))
            .unwrap(),
        TOKENS
    );

    let status = home.status();
    assert_eq!(status["sign_ins"][0]["server"], SERVER);
    assert_eq!(
        (&status["sign_ins"][0]["client"], &status["sign_ins"][0]["refresh_token"]),
        (&"dynamic registration".into(), &true.into())
    );

    let again = home.run(&["import", SERVER]);
    assert_eq!(again.code, Some(0));
    assert!(again.out.contains("because there is a sign-in for this server already"), "{}", again.out);
    assert!(!again.out.contains("Taken"), "{}", again.out);
}

#[test]
fn files_of_no_use_are_no_success() {
    let home = Home::new();
    mcp_remote(&home, "mcp-remote-v1", HASH);
    let directory = home.0.path().join(".mcp-auth/mcp-remote-v1");
    std::fs::write(directory.join(format!("{HASH}_tokens.json")), "{}").unwrap();
    std::fs::write(directory.join(format!("{HASH}_client_info.json")), CLIENT.replace("https://as.test", "ftp://as"))
        .unwrap();
    let left = home.run(&["import", SERVER]);
    assert_eq!(left.code, Some(1), "{}", left.out);
    for why in ["it is not what mcp-remote writes", "is no https address", "Nothing was taken over. Sign in with"] {
        assert!(left.out.contains(why), "{why}\n{}", left.out);
    }
}

/// What mcp-remote would have after a sign-in.
fn signed_in_elsewhere(server: &Protected, hash: &str, home: &Home) {
    const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters-as-rfc-7636-wants";
    let callback = "http://localhost:1/oauth/callback";
    server.authority.add_client("old", None, "none", &[callback]);
    let hash_of = ring::digest::digest(&ring::digest::SHA256, VERIFIER.as_bytes());
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash_of);
    let url = server.url();
    let form =
        |pairs: &[(&str, &str)]| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let query = form(&[
        ("response_type", "code"),
        ("client_id", "old"),
        ("redirect_uri", callback),
        ("state", "0123456789012345678901"),
        ("resource", &url),
        ("code_challenge_method", "S256"),
        ("code_challenge", &challenge),
        ("scope", "read"),
    ]);
    let origin = server.authority.origin();
    let end = visit_until(&format!("{origin}/authorize?{query}"), "http://localhost:");
    let code = url::Url::parse(&end).unwrap().query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let body = form(&[
        ("grant_type", "authorization_code"),
        ("client_id", "old"),
        ("code", &code),
        ("redirect_uri", callback),
        ("code_verifier", VERIFIER),
        ("resource", &url),
    ]);
    let address = origin.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let kind = "application/x-www-form-urlencoded";
    write!(
        stream,
        "POST /token HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let mut tokens: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    tokens["issuer"] = origin.clone().into();
    // Long ago.
    tokens["expires_at"] = 1_700_000_000_000_u64.into();
    let client = serde_json::json!({"client_id": "old", "redirect_uris": [callback], "token_endpoint_auth_method": "none", "issuer": origin});
    let directory = home.0.path().join(".mcp-auth/mcp-remote-v1");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("{hash}_tokens.json")), tokens.to_string()).unwrap();
    std::fs::write(directory.join(format!("{hash}_client_info.json")), client.to_string()).unwrap();
}

/// The point of it: who switches does not sign in again.
#[test]
fn an_imported_sign_in_renews_itself() {
    let (home, server) = (Home::new(), protected());
    let url = server.url();
    let hash = Candidate { server: url.clone(), ..Candidate::default() }.hash();
    signed_in_elsewhere(&server, &hash, &home);
    let directory = home.0.path().join(".mcp-auth");
    let taken = home.run(&["import", directory.to_str().unwrap(), &url]);
    assert_eq!(taken.out.matches("Taken: ").count(), 2, "{}{}", taken.out, taken.err);
    let login = home.run(&["login", &url]);
    assert!(login.out.starts_with(&format!("Signed in to {url} already")), "{}{}", login.out, login.err);
    let counts = server.authority.counts();
    assert_eq!((counts.tabs(), counts.codes, counts.refreshed()), (1, 1, 1), "{counts:?}");
    assert_eq!(home.status()["sign_ins"][0]["expired"], false);
}

#[test]
fn older_versions_and_further_flags_are_found() {
    let home = Home::new();
    // MD5 of `https://example.com/mcp|{"X-Key":"${KEY}"}`, as 0.1.30 to 0.1.38 made it, and 0.15.1 too.
    mcp_remote(&home, "mcp-remote-0.1.36", OLDER_HASH);
    let directory = home.0.path().join(".mcp-auth");
    let directory = directory.to_str().unwrap();
    let without = home.run(&["import", directory, "https://example.com/mcp"]);
    assert_eq!(without.code, Some(1), "{}", without.out);
    let taken = home.run(&["import", directory, "https://example.com/mcp", "--header", "X-Key: ${KEY}"]);
    assert_eq!(taken.code, Some(0), "{}", taken.out);
    assert_eq!(taken.out.matches("Taken: ").count(), 2, "{}", taken.out);
    let none = home.run(&["import", "nowhere", "https://example.com/mcp"]);
    assert_eq!(none.code, Some(1));
    assert!(none.err.starts_with("mcp-drawbridge: nowhere cannot be read: "), "{}", none.err);
}
