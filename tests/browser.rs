//! Opening a browser, with programs that write down what they were given.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcp_drawbridge::auth::browser::{BrowserUrl, Launch, Outcome, Plan, Why, open};
use mcp_drawbridge::http::guard::{self, Policy};

/// A directory of the test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mcp-drawbridge-browser-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A program of these shell lines; `$here` is the directory.
    fn program(&self, name: &str, lines: &str) -> Launch {
        let program = self.0.join(name);
        fs::write(&program, format!("#!/bin/sh\nhere='{}'\n{lines}\n", self.0.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        Launch { program, before: &[] }
    }

    /// A program that writes down its arguments, each on a line with their number in front.
    fn recorder(&self) -> Launch {
        self.program("record", "for word; do printf '%s %s\\n' \"$#\" \"$word\" >>\"$here/argv\"; done")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn plan(launches: Vec<Launch>) -> Plan {
    Plan::Launch { launches, advice: "paste it".to_owned() }
}

fn policy(server: &str) -> Policy {
    Policy::new(&guard::parse_server(server, false).unwrap(), false, false).unwrap()
}

fn url(text: &str) -> BrowserUrl {
    BrowserUrl::new(text, &policy("https://server.example/mcp")).unwrap()
}

#[tokio::test]
async fn the_url_is_one_argument() {
    let scratch = Scratch::new("argument");
    let mut launch = scratch.recorder();
    launch.before = &["url.dll,FileProtocolHandler"];
    let program = launch.program.clone();
    let outcome = open(&url("https://as.example/a?x=$(id)&y=`id`&z='1'"), &plan(vec![launch])).await;
    assert_eq!(outcome, Outcome::Opened { program });
    assert_eq!(
        scratch.read("argv"),
        "2 url.dll,FileProtocolHandler\n2 https://as.example/a?x=%24%28id%29&y=%60id%60&z=%271%27\n"
    );
}

#[tokio::test]
async fn the_hostile_corpus() {
    let scratch = Scratch::new("corpus");
    let plan = plan(vec![scratch.recorder()]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/auth/urls.txt");
    let mut server = None;
    let (mut opened, mut refused) = (Vec::new(), 0);
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if line == "#" {
            continue;
        }
        let (verdict, text) = line.split_once('\t').unwrap_or_else(|| panic!("no tab: {line}"));
        if verdict == "server" {
            server = Some(policy(text));
            continue;
        }
        let text = unescape(text);
        match BrowserUrl::new(&text, server.as_ref().unwrap()) {
            Ok(url) => {
                let want = if verdict == "=" { &text } else { verdict };
                assert_eq!(url.as_str(), want, "{line}");
                open(&url, &plan).await;
                opened.push(format!("1 {want}\n"));
            }
            Err(refusal) => {
                assert_eq!(refusal.rule, verdict, "{line}: {refusal}");
                let shown = format!("{refusal} {:?}", refusal.hint);
                assert!(shown.len() < 1000 && shown.bytes().all(|b| (0x20..0x7f).contains(&b)), "{shown}");
                assert!(!shown.contains("password@"), "{shown}");
                refused += 1;
            }
        }
    }
    assert!(refused > 60 && opened.len() > 15, "{refused} refused, {} opened", opened.len());
    assert_eq!(scratch.read("argv"), opened.concat());
}

/// The escapes of the corpus: see its head.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (escape, tail) = after.split_at(1);
        rest = tail;
        match escape {
            "\\" => out.push('\\'),
            "n" => out.push('\n'),
            "r" => out.push('\r'),
            "t" => out.push('\t'),
            "0" => out.push('\0'),
            "u" => {
                let (digits, tail) = tail[1..].split_once('}').unwrap();
                out.push(char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap());
                rest = tail;
            }
            "{" => {
                let (what, tail) = tail.split_once('}').unwrap();
                let (character, count) = what.split_once('*').unwrap();
                out.push_str(&character.repeat(count.parse().unwrap()));
                rest = tail;
            }
            other => panic!("escape {other}"),
        }
    }
    out + rest
}

#[tokio::test]
async fn a_program_that_fails_gives_way_to_the_next() {
    let scratch = Scratch::new("next");
    let missing = Launch { program: scratch.0.join("missing"), before: &[] };
    let fails = scratch.program("fails", "exit 3");
    let record = scratch.recorder();
    let program = record.program.clone();
    let both = plan(vec![missing.clone(), fails.clone(), record]);
    assert_eq!(open(&url("https://as.example/"), &both).await, Outcome::Opened { program });
    assert_eq!(scratch.read("argv"), "1 https://as.example/\n");

    let Outcome::Failed { tried, advice } =
        open(&url("https://as.example/?state=s"), &plan(vec![missing, fails])).await
    else {
        panic!("opened by nothing");
    };
    assert_eq!((tried.len(), advice.as_str()), (2, "paste it"));
    assert!(tried[1].contains("fails") && tried[1].contains('3') && !tried.concat().contains("state"), "{tried:?}");
}

#[tokio::test]
async fn a_browser_that_stays_is_not_waited_for() {
    let scratch = Scratch::new("stays");
    let stays = scratch.program("stays", "echo $$ >\"$here/pid\"; exec sleep 30");
    let began = Instant::now();
    let outcome = open(&url("https://as.example/"), &plan(vec![stays])).await;
    assert!(matches!(outcome, Outcome::Opened { .. }), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let pid = scratch.read("pid").trim().to_owned();
    let status = std::process::Command::new("kill").arg(&pid).status().unwrap();
    assert!(status.success());
    // Reaped: no zombie stays behind. On Linux it would still be listed.
    #[cfg(target_os = "linux")]
    {
        let gone = || !Path::new(&format!("/proc/{pid}")).exists();
        for _ in 0..100 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {pid} is a zombie");
    }
}

#[tokio::test]
async fn the_child_has_no_secrets_no_streams_and_a_group_of_its_own() {
    let scratch = Scratch::new("child");
    // Cargo sets this one for its tests; it stands for any key in our environment.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    let looks = scratch.program(
        "looks",
        "env >\"$here/env\"; pwd >\"$here/pwd\"; cat >\"$here/stdin\"; \
         ps -o pid= -o pgid= -p $$ >\"$here/group\" 2>/dev/null || true; echo noise; echo noise >&2",
    );
    assert!(matches!(open(&url("https://as.example/"), &plan(vec![looks])).await, Outcome::Opened { .. }));
    let env = scratch.read("env");
    assert!(env.contains("PATH=") && !env.contains("CARGO"), "{env}");
    assert_eq!((scratch.read("pwd").as_str(), scratch.read("stdin").as_str()), ("/\n", ""));
    let group = scratch.read("group");
    let mut words = group.split_whitespace();
    assert_eq!(words.next(), words.next(), "{group}");
}

#[tokio::test]
async fn nothing_starts_where_it_is_not_possible() {
    let plan = Plan::NotPossible { why: Why::Ssh, advice: "forward the port".to_owned() };
    let outcome = open(&url("https://as.example/"), &plan).await;
    assert_eq!(outcome, Outcome::NotPossible { why: Why::Ssh, advice: "forward the port".to_owned() });
}
