//! Hostile servers, authorization servers, web pages and local processes against the sign-in of the real process: the rows of the threat
//! model that concern it, as data in `fixtures/hostile-sign-in`. What a case may say: the README there.
//!
//! Whatever a case expects for itself, this holds in each:
//!
//! - every request of the client has exactly one response, and the process ends when its client leaves;
//! - only the MCP server and its authorization server were asked, but for what the case allows by name, and nobody else was even connected to;
//! - the user's header went to the MCP server alone; access tokens too; codes, verifiers, refresh tokens and client secrets went to a token
//!   endpoint alone;
//! - no program was started but the browser, with one argument: a URL that no shell and no parser reads in two ways;
//! - no secret is on stderr at the level debug, in the log file, in the environment of the browser or in any file;
//! - with a umask of 0, nobody else can read or write what the bridge writes;
//! - each page at the callback's port has its security headers, no script and no secret.
//!
//! `HOSTILE=word cargo test --test hostile_sign_in` runs the cases whose name holds the word, and shows what they said.

#![cfg(unix)]
// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
// Its modules are its own.
#![allow(unreachable_pub)]

mod browser;
mod case;
#[path = "../http/certs.rs"]
#[allow(dead_code)]
mod certs;
mod front;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use browser::{PATIENCE, Person, Programs, tabs};
use case::{Case, Run, text_of};
use support::bridge::{Bridge, Setup, Transcript};
use support::{TempDir, all_at_once, within};
use world::{CLIENT_SECRET, HEADER_SECRET, MARK, ROLES, World, basic};

/// Cases at a time: most of them wait.
const AT_A_TIME: usize = 6;

#[test]
fn every_row_has_cases() {
    let cases = Case::all();
    for row in (1..=42).chain([60, 62, 63]) {
        assert!(cases.iter().any(|case| case.row == row), "row {row} has no case");
    }
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
}

#[test]
fn no_case_gets_through() {
    Programs::get();
    let wanted = std::env::var("HOSTILE").unwrap_or_default();
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    assert!(!cases.is_empty(), "no case is called {wanted:?}");
    all_at_once(
        &cases,
        AT_A_TIME,
        |case| case.name.replace('\0', " "),
        |case| match &case.open {
            None => run_case(case, !wanted.is_empty()),
            Some(why) => {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_case(case, !wanted.is_empty())));
                assert!(outcome.is_err(), "mended: strike `open`: {why}");
            }
        },
    );
}

/// Row 15: a public server leads to a name that the system's own resolver takes for this machine or its network. The proxy of the other cases
/// resolves by itself, so here the bridge is told to reach the name directly.
#[test]
fn names_that_resolve_to_this_machine_are_not_connected_to() {
    Programs::get();
    let names = names_of_this_machine();
    if names.is_empty() {
        eprintln!("no name of this machine in /etc/hosts: only the unit tests of the resolver speak of this");
    }
    for (name, address) in names {
        let listener = std::net::TcpListener::bind((address, 0)).expect("a port");
        listener.set_nonblocking(true).expect("not blocking");
        let there = format!("https://{name}:{}", listener.local_addr().unwrap().port());
        let rule = if address.is_loopback() { "address-loopback" } else { "address-private" };
        for member in ["resource", "metadata"] {
            let over = match member {
                "resource" => json!({"authorization_servers": [there]}),
                _ => json!({"registration_endpoint": format!("{there}/register")}),
            };
            let title = format!("row 15: {member} by name {name}");
            let case = json!({"name": title, "args": ["--no-proxy", name], member: over, "want": rule});
            run_case(&Case::read(case), false);
        }
        assert!(listener.accept().is_err(), "{name} was connected to");
    }
}

/// Names that /etc/hosts gives to loopback or private addresses that can be listened on, but for those that are known by their form.
fn names_of_this_machine() -> Vec<(String, std::net::IpAddr)> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut found: Vec<(String, std::net::IpAddr)> = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<std::net::IpAddr>) else { continue };
        let inside = match address {
            std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
            std::net::IpAddr::V6(v6) => v6.is_loopback(),
        };
        for name in words.filter(|name| inside && *name != "localhost" && !name.ends_with(".localhost")) {
            let known = found.iter().any(|(known, _)| known == name);
            if !known && std::net::TcpListener::bind((address, 0)).is_ok() {
                found.push((name.to_owned(), address));
            }
        }
    }
    found.truncate(3);
    found
}

fn run_case(case: &Case, aloud: bool) {
    let world = Arc::new(World::new(case));
    let home = Arc::new(TempDir::new());
    for (number, run) in case.runs.iter().enumerate() {
        if aloud {
            eprintln!("==== {}, run {number}", case.name);
        }
        run_once(case, run, &world, &home, aloud);
    }
}

fn run_once(case: &Case, run: &Run, world: &Arc<World>, home: &Arc<TempDir>, aloud: bool) {
    prepare(run, home.path());
    world.begin(run);
    let before = tabs(home.path()).len();
    let mut person = Person::sit_down(home.path(), run, world, case.loopback);
    let mut bridge = start(run, world, home);
    if run.text("dies") == Some("in the sign-in") {
        bridge.initialize();
        within(PATIENCE, || (tabs(home.path()).len() > before).then_some(())).expect("a tab");
        // Dropped, it is killed.
        drop(bridge);
        return;
    }
    // Others at the same time, with the same home.
    let others: Vec<_> =
        (1..run.get("bridges").and_then(Value::as_u64).unwrap_or(1)).map(|_| start(run, world, home)).collect();
    let answers = std::thread::scope(|scope| {
        let person = &person;
        let tasks: Vec<_> = others
            .into_iter()
            .map(|mut other| {
                scope.spawn(move || {
                    let answers = talk(&mut other, run, person);
                    judge(run, world, &answers, &other.finish());
                })
            })
            .collect();
        let answers = talk(&mut bridge, run, person);
        for task in tasks {
            assert!(task.join().is_ok(), "another bridge fared worse");
        }
        answers
    });
    let transcript = bridge.finish();
    person.stand_up();
    let seen = person.seen.lock().unwrap();
    if aloud {
        show(&transcript, world, home.path());
    }
    assert!(seen.wrong.is_empty(), "in the browser: {:#?}\n{}", seen.wrong, transcript.stderr);
    judge(run, world, &answers, &transcript);
    let count = tabs(home.path()).len() - before;
    let wanted = match (run.get("tabs").and_then(Value::as_u64), run.text("want")) {
        (Some(wanted), _) => usize::try_from(wanted).unwrap(),
        (None, Some("result")) => 1,
        (None, _) => 0,
    };
    assert_eq!(count, wanted, "tabs\n{}", transcript.stderr);
    check_origins(case, run, world);
    check_secrets(world, &seen.codes, &seen.states, &transcript, home.path());
    check_files(home.path());
    let tripped = std::fs::read_to_string(home.path().join("tripped")).unwrap_or_default();
    assert!(tripped.is_empty(), "programs were started: {tripped}");
}

/// What was there before the run.
fn prepare(run: &Run, home: &Path) {
    if let Some(time) = run.get("pause").and_then(Value::as_u64) {
        std::thread::sleep(support::ms(time));
    }
    let state = home.join("state");
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    let credentials = state.join("credentials");
    match run.text("before") {
        None => {}
        Some("an open state directory") => {
            std::fs::create_dir_all(&state).expect("a directory");
            set(&state, 0o777);
        }
        Some("open files") => {
            for path in files(&state) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                // A lock is opened only by who writes.
                if name == "credentials" || name.starts_with("credentials.key-") {
                    set(&path, 0o666);
                }
            }
        }
        Some("half of the credentials") => {
            let whole = std::fs::read(&credentials).expect("the credentials");
            std::fs::write(&credentials, &whole[..whole.len() / 2]).expect("half of them");
        }
        Some("junk for credentials") => {
            std::fs::create_dir_all(&state).expect("a directory");
            std::fs::write(&credentials, [0xff; 4096]).expect("junk");
        }
        Some("a link for credentials") => {
            std::fs::create_dir_all(&state).expect("a directory");
            set(&state, 0o700);
            std::fs::write(home.join("elsewhere"), "somebody's file").expect("a file");
            set(&home.join("elsewhere"), 0o600);
            std::os::unix::fs::symlink(home.join("elsewhere"), &credentials).expect("a link");
        }
        Some("a file for the state directory") => {
            std::fs::write(&state, "").expect("a file");
            set(&state, 0o600);
        }
        Some(other) => panic!("no such beginning: {other}"),
    }
}

fn start(run: &Run, world: &Arc<World>, home: &Arc<TempDir>) -> Bridge {
    let programs = Programs::get();
    // A umask is inherited; only a shell can set one for us.
    let server = run.text("server").map_or_else(|| format!("{}/mcp", world.origin("mcp")), |text| world.fill(text));
    let mut setup = Setup::program("/bin/sh", home)
        .arg("-c")
        .arg("umask 000; exec \"$@\"")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_mcp-drawbridge"))
        .arg(server)
        .args("--debug --credential-store file --log-file log --header X-Secret:${SECRET_OF_THE_HEADER}");
    if let Some(front) = &world.front {
        setup = setup.arg("--proxy").arg(front.url()).arg("--ca-file").arg(&front.ca_file().0);
    }
    for arg in run.texts("args") {
        // A port of 127.0.0.1 that somebody else has.
        let held = world.servers["other"].port().to_string();
        let arg = arg.replace("{held}", &held).replace("{free}", &world.free_port.to_string());
        setup = setup.arg(world.fill(&arg));
    }
    setup = setup
        .env("SECRET_OF_THE_HEADER", HEADER_SECRET)
        .env("SECRET_OF_THE_CLIENT", CLIENT_SECRET)
        .env("PATH", programs.path().to_str().unwrap())
        .env("BROWSER", programs.browser().to_str().unwrap())
        .env("DISPLAY", ":0");
    for (name, value) in run.get("env").and_then(Value::as_object).into_iter().flatten() {
        setup = setup.env(name, value.as_str().expect("a text"));
    }
    setup.start()
}

/// `initialize`, then calls; gives what was answered. A case may want further calls after the first failed.
fn talk(bridge: &mut Bridge, run: &Run, person: &Person) -> Vec<Value> {
    let calls = run.get("calls").and_then(Value::as_u64).unwrap_or(1);
    let mut answers = Vec::new();
    let mut wait = |bridge: &Bridge, id: Value| {
        let came = within(PATIENCE, || {
            if person.complains() || bridge.stdout_is_broken() {
                return Some(None);
            }
            let line = bridge.lines().into_iter().find(|line| line.value["id"] == id && line.value["method"].is_null());
            line.map(|line| Some(line.value))
        });
        let Some(answer) = came.flatten() else {
            panic!("no answer to {id}: {:?}\n{}", person.seen.lock().unwrap().wrong, bridge.report());
        };
        let is_good = answer["result"].is_object();
        answers.push(answer);
        is_good
    };
    let first = bridge.initialize();
    if wait(bridge, first) {
        bridge.initialized();
    }
    for paste in run.list("pastes") {
        let text = person.fill(&text_of(&paste["text"]));
        let id = bridge.call("sign_in", &json!({"redirect_url": text}));
        wait(bridge, id.clone());
        let (answer, says) = (bridge.answer(&id).to_string(), paste["says"].as_str().expect("a text"));
        assert!(answer.contains(says), "{says:?} is not in the answer to {paste}: {answer}\n{}", bridge.report());
    }
    for call in 0..calls {
        let id = bridge.call("echo", &json!({"call": call}));
        wait(bridge, id);
    }
    answers
}

/// The answers are what the case wants.
fn judge(run: &Run, world: &World, answers: &[Value], transcript: &Transcript) {
    let texts: Vec<String> = answers.iter().map(Value::to_string).collect();
    let told = texts.join("\n");
    let echoed = |answer: &Value| answer["result"]["structuredContent"].is_object();
    match run.text("want").expect("checked") {
        "result" => {
            let last = answers.last().expect("an answer");
            assert!(echoed(last), "{told}\n{}", transcript.stderr);
        }
        "no result" => assert!(!answers.iter().any(echoed), "{told}\n{}", transcript.stderr),
        rule => {
            assert!(!answers.iter().any(echoed), "{told}\n{}", transcript.stderr);
            // The client is told; where it asks again, the reason is told without the rule's name, which is in the log.
            let named = [&told, &transcript.stderr].iter().any(|text| text.contains(&format!("rule {rule}:")));
            assert!(named, "rule {rule} is not in {told}\n{}", transcript.stderr);
        }
    }
    for text in run.texts("says") {
        let text = world.fill(&text);
        match text.strip_prefix('!') {
            Some(text) => {
                let nowhere = !told.contains(text) && !transcript.stderr.contains(text);
                assert!(nowhere, "{text:?} is in {told}\n{}", transcript.stderr);
            }
            None => assert!(told.contains(&text), "{text:?} is not in {told}"),
        }
    }
    for (key, wanted) in run.get("counts").and_then(Value::as_object).into_iter().flatten() {
        let count = world.count(key) as u64;
        let (least, most) = match wanted.as_array() {
            Some(range) => (range[0].as_u64().unwrap(), range[1].as_u64().unwrap()),
            None => (wanted.as_u64().expect("a count"), wanted.as_u64().unwrap()),
        };
        assert!((least..=most).contains(&count), "{count} times {key}, not {wanted}\n{}", transcript.stderr);
    }
    assert_eq!(world.reused(), 0, "a refresh token was redeemed twice");
    assert_eq!(world.misplaced(), Vec::<String>::new(), "what belongs to one issuer went to another");
}

/// Who was asked.
fn check_origins(case: &Case, run: &Run, world: &World) {
    // What the case allows besides: a role, or a target as a proxy sees it.
    let asks: Vec<String> = run.texts("asks");
    let may = |role: &str| matches!(role, "mcp" | "as") || asks.iter().any(|one| one == role);
    for (role, _) in ROLES {
        let server = &world.servers[role];
        assert!(may(role) || server.connections() == 0, "{role} was asked: {}", server.summary());
    }
    if let Some(front) = &world.front {
        assert!(!case.loopback);
        for target in front.asked() {
            let role = ROLES.iter().find(|(_, name)| target == format!("{name}:443")).map(|(role, _)| *role);
            assert!(role.is_some_and(may) || asks.contains(&target), "{target} was asked");
        }
    }
    for (role, _) in ROLES {
        for request in world.servers[role].requests() {
            let path = request.target.split('?').next().unwrap_or_default().to_owned();
            let mut bytes = String::from_utf8_lossy(&request.all_bytes()).into_owned();
            bytes.push_str(&basic(&request).unwrap_or_default());
            let lacks = |secret: &str, why: &str| {
                assert!(!bytes.contains(secret), "{why} went to {role}: {} {}", request.method, request.target);
            };
            if role != "mcp" {
                lacks(HEADER_SECRET, "the user's header");
                lacks("acce55-", "an access token");
                assert!(request.header("cookie").is_none(), "a cookie went to {role}");
                assert!(request.header("referer").is_none(), "a referer went to {role}");
            }
            if role == "mcp" && path.starts_with("/register") {
                // An authorization server may name any address, also one where cookies and headers would make it the user's.
                lacks(HEADER_SECRET, "the user's header");
                assert!(request.header("cookie").is_none(), "a cookie went to {path}");
            }
            let is_token_endpoint = matches!(role, "as" | "foreign") && path == "/token" && request.method == "POST";
            if role != "as" {
                lacks(CLIENT_SECRET, "the client secret of another issuer");
            }
            if !is_token_endpoint {
                for (secret, why) in
                    [("c0de-", "a code"), ("refre5h-", "a refresh token"), (CLIENT_SECRET, "a client secret")]
                {
                    lacks(secret, why);
                }
                assert!(basic(&request).is_none(), "client authentication went to {role}{path}");
                for verifier in world.verifiers() {
                    lacks(&verifier, "a code verifier");
                }
            }
            assert!(!request.target.contains(MARK), "a secret in a URL: {}", request.target);
        }
    }
}

/// Where nothing secret may be.
fn check_secrets(world: &World, codes: &[String], states: &[String], transcript: &Transcript, home: &Path) {
    let log = std::fs::read_to_string(home.join("log")).expect("the log file");
    let environment = std::fs::read_to_string(home.join("browser-env")).unwrap_or_default();
    let opened = tabs(home);
    let mut secrets: Vec<String> = vec![HEADER_SECRET.into(), CLIENT_SECRET.into(), MARK.into()];
    secrets.extend(world.verifiers());
    secrets.extend(codes.iter().cloned());
    for secret in &secrets {
        for (place, text) in
            [("stderr", &transcript.stderr), ("the log file", &log), ("the browser's environment", &environment)]
        {
            assert!(!text.contains(secret.as_str()), "{secret} is in {place}:\n{text}");
        }
        assert!(
            !opened.iter().flatten().any(|argument| argument.contains(secret.as_str())),
            "{secret} is in an argument"
        );
        for path in files(home) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret} is in the file {name}");
        }
    }
    // The state goes to the person, by way of the browser and of stderr. It is for nobody else.
    for state in states {
        assert!(!environment.contains(state.as_str()), "the state is in the browser's environment");
        assert!(!log.contains(state.as_str()), "the state is in the log file:\n{log}");
        for line in transcript.stderr.lines().filter(|line| line.contains(state.as_str())) {
            assert!(
                line.contains("open this address") || line.contains("at this address"),
                "the state is on stderr: {line}"
            );
        }
        for path in files(&home.join("state")) {
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(memchr::memmem::find(&bytes, state.as_bytes()).is_none(), "the state is in {}", path.display());
        }
    }
}

/// H5: whatever the umask.
fn check_files(home: &Path) {
    // What the test itself and its programs wrote.
    let own = ["tabs", "browser-env", "tripped"];
    let state = home.join("state");
    let mut all = files(home);
    all.retain(|path| !own.iter().any(|name| path == &home.join(name)));
    all.extend(directories(&state));
    for path in all {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    walk(directory).into_iter().filter(|path| path.is_file()).collect()
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = walk(directory).into_iter().filter(|path| path.is_dir()).collect();
    if directory.is_dir() {
        all.push(directory.to_owned());
    }
    all
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

fn show(transcript: &Transcript, world: &World, home: &Path) {
    eprintln!("{}", transcript.stderr);
    for line in &transcript.lines {
        eprintln!("stdout: {}", line.text.chars().take(600).collect::<String>());
    }
    for (role, _) in ROLES {
        eprintln!("{role}: {}", world.servers[role].summary());
    }
    eprintln!("tabs: {:#?}", tabs(home));
    if let Some(front) = &world.front {
        eprintln!("proxy: {:?}", front.asked());
    }
}
