//! Sign-in: two windows of a client, one browser tab, and a process that is killed while it renews the token.
//!
//! The servers are the ones of the tests: an authorization server that forgives nothing and the MCP server that it protects.
//! What is promised is counted there.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Host, Scratch, configured};
use crate::support::authorization_server::{Counts, Endpoint, Protected};
use crate::transcript::Transcript;
use crate::{EXIT, Failure, ensure};

/// How long the authorization server waits for the killer. It comes at once.
const KILLER: Duration = Duration::from_secs(5);

/// The whole act.
pub(crate) fn act(bridge: &Path) -> Result<(), Failure> {
    let server = Protected::start();
    println!("\nSign-in: {} asks for a token of {}\n", server.url(), server.authority.origin());
    let scratch = Scratch::new("sign-in");
    let mut told = Transcript::new(std::time::Instant::now());
    let mut windows = Vec::new();
    for _ in 0..2 {
        windows.push(Host::start(bridge, &arguments(&server), &scratch)?);
    }
    let outcome = steps(bridge, &scratch, &server, &mut windows, &mut told);
    if outcome.is_err() {
        for window in &mut windows {
            eprint!("{}", window.stderr());
        }
    }
    outcome?;
    let violations = server.authority.violations();
    ensure(violations.is_empty(), &format!("nothing is against the rules of the authorization server: {violations:?}"))
}

/// The servers alone, until stdin is closed.
pub(crate) fn serve() -> Result<(), Failure> {
    let mut server = Protected::start();
    // Whoever tries it by hand may do what a bridge must not.
    (server.mcp.strict, server.authority.strict) = (false, false);
    println!("listening on {}", server.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Of a client's configuration. The demo must not touch the user's keyring.
fn arguments(server: &Protected) -> Vec<String> {
    vec![server.url(), "--credential-store".into(), "file".into()]
}

fn steps(
    bridge: &Path,
    scratch: &Scratch,
    server: &Protected,
    windows: &mut Vec<Host>,
    told: &mut Transcript,
) -> Result<(), Failure> {
    for window in &mut *windows {
        window.send_initialize()?;
    }
    for window in &mut *windows {
        window.initialized()?;
    }
    let counts = server.authority.counts();
    told.line("initialize", format!("2 windows at once, nobody signed in: {}; both are served", tabs(&counts)));
    ensure(counts.tabs() == 1 && counts.codes == 1, "one tab and one sign-in for both windows")?;
    ensure(counts.of(Endpoint::Register) == 1, "one client registration for both windows")?;

    server.authority.expire_access_tokens();
    call_all(windows)?;
    let counts = server.authority.counts();
    told.line("tools/call", format!("the token ended, both call at once: {} renewal, 2 answers", counts.refreshed()));
    ensure(counts.refreshed() == 1, "one renewal for both windows")?;

    killed_in_renewal(server, windows, told)?;
    second_start(bridge, scratch, server, told)?;
    for window in &mut *windows {
        ensure(window.leave(EXIT)?.success(), "the exit code is 0")?;
    }

    let counts = server.authority.counts();
    ensure(counts.tabs() == 1, "no further tab, whatever happened")?;
    ensure(counts.reused + counts.dead == 0, "no token was used twice, none that had ended")?;
    commands(bridge, scratch, server, told)
}

fn tabs(counts: &Counts) -> String {
    format!("{} tab, {} sign-in", counts.tabs(), counts.codes)
}

/// A call in each window, all sent before the first answer is awaited.
fn call_all(windows: &mut [Host]) -> Result<(), Failure> {
    let mut ids = Vec::new();
    for (n, window) in windows.iter_mut().enumerate() {
        ids.push(window.send_tool("echo", json!({ "n": n }))?);
    }
    for (n, (window, id)) in windows.iter_mut().zip(ids).enumerate() {
        ensure(window.wait(id)?["structuredContent"]["n"] == json!(n), "the call is answered")?;
    }
    Ok(())
}

/// The worst moment: the authorization server has spent the refresh token, and its answer is not out yet.
fn killed_in_renewal(server: &Protected, windows: &mut Vec<Host>, told: &mut Transcript) -> Result<(), Failure> {
    let ((spent, is_spent), (kill, killed)) = (channel(), channel::<()>());
    let killed = Mutex::new(killed);
    server.authority.on_tokens(move |issued, reply| {
        if issued.refresh && spent.send(()).is_ok() {
            let _ = killed.lock().map(|killed| killed.recv_timeout(KILLER));
        }
        reply
    });
    server.authority.expire_access_tokens();
    let mut first = windows.remove(0);
    first.send_tool("echo", json!({}))?;
    is_spent.recv_timeout(KILLER).map_err(|_| "the token is not renewed")?;
    first.kill()?;
    told.note("window 1 renews the token; it is killed (SIGKILL) while the answer is on its way");
    drop(is_spent);
    kill.send(())?;
    call_all(windows)?;
    server.authority.behave();
    let counts = server.authority.counts();
    told.line("tools/call", format!("window 2 goes on: {} renewals in all, {}", counts.refreshed(), tabs(&counts)));
    ensure(counts.refreshed() == 2, "the new token was not lost with the process")?;
    ensure(counts.tabs() == 1, "the kill costs no tab")
}

fn second_start(bridge: &Path, scratch: &Scratch, server: &Protected, told: &mut Transcript) -> Result<(), Failure> {
    let requests = || server.mcp.requests().len() + server.authority.requests().len();
    let before = requests();
    told.mark();
    let mut window = Host::start(bridge, &arguments(server), scratch)?;
    window.send_initialize()?;
    let answered = window.initialized();
    let cost = requests() - before;
    if let Err(failure) = answered {
        eprint!("{}", window.stderr());
        return Err(failure);
    }
    told.line("initialize", format!("a new window: {cost} HTTP request until it is answered, no tab"));
    ensure(cost == 1, "a start that is signed in costs one request")?;
    ensure(window.leave(EXIT)?.success(), "the exit code is 0")
}

/// What the person can ask for in a terminal.
fn commands(bridge: &Path, scratch: &Scratch, server: &Protected, told: &mut Transcript) -> Result<(), Failure> {
    told.mark();
    let shown = run(bridge, scratch, "status", &[&server.url()])?;
    let facts = shown.lines().map(str::trim).filter(|line| line.starts_with("signed in") || line.starts_with("token"));
    let facts: Vec<String> = facts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    told.line("status", facts.join("; "));
    ensure(sign_ins(bridge, scratch)? == [server.url()], "the sign-in is shown")?;
    told.mark();

    let logout = arguments(server);
    let said = run(bridge, scratch, "logout", &logout.iter().map(String::as_str).collect::<Vec<_>>())?;
    let revoked = server.authority.counts().revocations;
    told.line("logout", format!("{} The authorization server revoked the sign-in", said.trim()));
    ensure(revoked > 0, "the tokens are revoked at the authorization server")?;
    ensure(sign_ins(bridge, scratch)?.is_empty(), "and gone here")
}

/// The servers that `status --json` names.
fn sign_ins(bridge: &Path, scratch: &Scratch) -> Result<Vec<String>, Failure> {
    let status: Value = serde_json::from_str(&run(bridge, scratch, "status", &["--json"])?)?;
    let all = crate::list(&status, "/sign_ins")?;
    Ok(all.iter().filter_map(|one| one["server"].as_str().map(str::to_owned)).collect())
}

fn run(bridge: &Path, scratch: &Scratch, word: &str, arguments: &[&str]) -> Result<String, Failure> {
    let Output { status, stdout, stderr } =
        configured(Command::new(bridge).arg(word).args(arguments), scratch)?.output()?;
    if !status.success() {
        return Err(format!("{word}: {status}: {}", String::from_utf8_lossy(&stderr)).into());
    }
    Ok(String::from_utf8(stdout)?)
}
