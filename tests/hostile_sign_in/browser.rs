//! The user's browser, and the person before it. The program that `$BROWSER` names only notes how it was started; a thread of the test then
//! does with the callback's port what the case says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::case::{Run, text_of};
use crate::support::{LIMIT, TempDir, ms, within};
use crate::world::World;

/// Programs that a bridge on any system might be talked into starting. All of them only note that they were.
const TRIPWIRES: [&str; 24] = [
    "sh",
    "bash",
    "dash",
    "zsh",
    "cmd",
    "cmd.exe",
    "powershell",
    "powershell.exe",
    "pwsh",
    "xdg-open",
    "gio",
    "wslview",
    "open",
    "rundll32",
    "rundll32.exe",
    "explorer.exe",
    "start",
    "curl",
    "wget",
    "nc",
    "ssh",
    "firefox",
    "python3",
    "node",
];

/// Programs. They are written once, before anything is started: a file that is just being written cannot be run.
pub struct Programs(TempDir);

impl Programs {
    pub fn get() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| {
            let directory = TempDir::new();
            let write = |path: PathBuf, text: &str| {
                std::fs::write(&path, text).expect("a program");
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a program");
            };
            std::fs::create_dir(directory.path().join("path")).expect("a directory");
            for name in TRIPWIRES {
                let text = "#!/bin/sh\nprintf '%s\\n' \"$0 $*\" >> \"$HOME/tripped\"\n";
                write(directory.path().join("path").join(name), text);
            }
            // One write, so that two do not mix.
            let text = "#!/bin/sh\n/usr/bin/env >> \"$HOME/browser-env\"\nwhole=\"argc $#\n\"\nfor one; do whole=\"$whole$one\n\"; done\n\
                        printf '%send\\n' \"$whole\" >> \"$HOME/tabs\"\n";
            write(directory.path().join("page"), text);
            Self(directory)
        })
    }

    /// For `PATH`.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("path")
    }

    /// For `BROWSER`.
    pub fn browser(&self) -> PathBuf {
        self.0.path().join("page")
    }
}

/// Starts of the browser so far: the arguments of each.
pub fn tabs(home: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(home.join("tabs")).unwrap_or_default();
    let mut tabs = Vec::new();
    for record in text.split_inclusive("end\n").filter_map(|record| record.strip_suffix("end\n")) {
        let mut lines = record.lines();
        let count = lines.next().and_then(|line| line.strip_prefix("argc ")).and_then(|count| count.parse().ok());
        let arguments: Vec<String> = lines.map(str::to_owned).collect();
        assert_eq!(count, Some(arguments.len()), "an argument with a line end in it: {record:?}");
        tabs.push(arguments);
    }
    tabs
}

/// What all tabs were asked and said, as text; and what went wrong.
#[derive(Debug, Default)]
pub struct Seen {
    pub codes: Vec<String>,
    pub states: Vec<String>,
    pub urls: Vec<Url>,
    pub wrong: Vec<String>,
}

/// Plays the person until it is dropped.
pub struct Person {
    pub seen: Arc<Mutex<Seen>>,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Person {
    pub fn sit_down(home: &Path, run: &Run, world: &Arc<World>, loopback: bool) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let done = Arc::new(AtomicBool::new(false));
        let (home, run, world) = (home.to_owned(), run.clone(), Arc::clone(world));
        let (to, stop) = (Arc::clone(&seen), Arc::clone(&done));
        // In a tab that an earlier run opened, the person goes on.
        let mut known = tabs(&home).len() - usize::from(run.get("old_tab").is_some());
        let first = known;
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for arguments in tabs(&home).into_iter().skip(known) {
                    let steps = steps(&run, known - first);
                    known += 1;
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        look(&arguments, &run, &world, loopback, &steps, &to);
                    }));
                    if let Err(panic) = outcome {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        to.lock().unwrap().wrong.push(text.unwrap_or_default());
                    }
                }
                std::thread::sleep(ms(5));
            }
        });
        Self { seen, done, thread: Some(thread) }
    }

    /// A text with what the last tab knows: `{code}`, `{state}`, `{redirect}`.
    pub fn fill(&self, text: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let redirect = seen.urls.last().and_then(|url| url.query_pairs().find(|(name, _)| name == "redirect_uri"));
        let redirect = redirect.map(|(_, value)| value.into_owned()).unwrap_or_default();
        text.replace("{code}", seen.codes.last().map_or("", |code| code))
            .replace("{state}", seen.states.last().map_or("", |state| state))
            .replace("{redirect}", &redirect)
    }

    /// Whether something went wrong already.
    pub fn complains(&self) -> bool {
        !self.seen.lock().unwrap().wrong.is_empty()
    }

    pub fn stand_up(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.stand_up();
    }
}

/// What is done in the tab of this number. A list of lists has one for each, and the last goes on.
fn steps(run: &Run, number: usize) -> Vec<Value> {
    let list = run.list("browser");
    match list.first() {
        None => vec![Value::from("allow")],
        Some(Value::Array(_)) => list[number.min(list.len() - 1)].as_array().expect("a list").clone(),
        Some(_) => list.to_vec(),
    }
}

fn look(arguments: &[String], run: &Run, world: &Arc<World>, loopback: bool, steps: &[Value], seen: &Mutex<Seen>) {
    let [text] = arguments else { panic!("the browser got {arguments:?}") };
    let url = check_url(text, run, world, loopback);
    let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    let redirect = Url::parse(&value("redirect_uri")).unwrap();
    let code = world.sign_in(&url);
    let state = value("state");
    {
        let mut seen = seen.lock().unwrap();
        seen.codes.push(code.clone());
        seen.states.push(state.clone());
        seen.urls.push(url.clone());
    }
    let tab = Tab { redirect, code, state, iss: world.origin("as").to_owned(), world: Arc::clone(world) };
    let mut idle = Vec::new();
    for step in steps {
        tab.step(step, &mut idle);
    }
}

/// Whatever the case says, a URL that reaches the browser is like this.
fn check_url(text: &str, run: &Run, world: &World, loopback: bool) -> Url {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!*+,;=&%".contains(&byte);
    assert!(text.bytes().all(safe), "the browser got a URL with other characters: {text}");
    assert!(text.len() <= 8 * 1024, "{} bytes", text.len());
    let url = Url::parse(text).expect("a URL");
    assert_eq!(url.as_str(), text, "it reads in two ways");
    let scheme = if loopback { "http" } else { "https" };
    assert!(
        url.scheme() == scheme && url.username().is_empty() && url.password().is_none() && url.fragment().is_none(),
        "{url}"
    );
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let all = |name: &str| {
        pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    for (name, wanted) in [("response_type", "code"), ("code_challenge_method", "S256")] {
        assert_eq!(all(name), [wanted], "{name} in {url}");
    }
    for name in ["state", "code_challenge"] {
        // 32 bytes in base64url (RFC 7636 section 4.1; RFC 6749 section 10.10).
        assert!(matches!(&*all(name), [one] if one.len() == 43), "{name} in {url}");
    }
    let redirect = all("redirect_uri");
    let loops = |uri: &String| ["http://localhost:", "http://127.0.0.1:"].iter().any(|head| uri.starts_with(head));
    assert!(matches!(&*redirect, [one] if loops(one)), "redirect_uri in {url}");
    for name in ["request", "request_uri", "response_mode"] {
        assert!(all(name).is_empty(), "{name} in {url}");
    }
    for name in ["client_id", "scope", "resource"] {
        assert!(all(name).len() <= 1, "{name} in {url}");
    }
    for (name, wanted) in run.get("url").and_then(Value::as_object).into_iter().flatten() {
        let wanted: Vec<String> = wanted.as_str().map(|text| world.fill(text)).into_iter().collect();
        if name == "begins" {
            assert!(wanted.iter().all(|begin| text.starts_with(begin)), "{text}");
        } else {
            assert_eq!(all(name), wanted, "{name} in {url}");
        }
    }
    url
}

struct Tab {
    redirect: Url,
    code: String,
    state: String,
    iss: String,
    world: Arc<World>,
}

impl Tab {
    fn step(&self, step: &Value, idle: &mut Vec<TcpStream>) {
        match step {
            Value::String(word) => match word.as_str() {
                "allow" => self.ask(&self.get("code={code}&state={state}&iss={iss}"), step, Some(200)),
                "deny" => self.ask(&self.get("error=access_denied&state={state}&iss={iss}"), step, Some(403)),
                "nothing" => {}
                "only loopback" => self.assert_only_loopback(),
                "closed" => {
                    let closed = within(LIMIT, || self.connect().is_err().then_some(()));
                    assert!(closed.is_some(), "the port stays open");
                }
                other => panic!("a browser cannot do this: {other}"),
            },
            Value::Object(members) => {
                let status = members.get("status").and_then(Value::as_u64);
                let status = status.map(|status| u16::try_from(status).unwrap());
                if let Some(query) = members.get("get") {
                    self.ask(&self.get(&text_of(query)), step, status);
                } else if let Some(raw) = members.get("send") {
                    self.ask(&self.fill(&text_of(raw)), step, status);
                } else if let Some(count) = members.get("idle").and_then(Value::as_u64) {
                    idle.extend((0..count).filter_map(|_| self.connect().ok()));
                } else if let Some(count) = members.get("race").and_then(Value::as_u64) {
                    let request = self.get("code={code}&state={state}&iss={iss}");
                    std::thread::scope(|scope| {
                        for _ in 0..count {
                            scope.spawn(|| self.ask(&request, step, status));
                        }
                    });
                } else if let Some(time) = members.get("wait").and_then(Value::as_u64) {
                    std::thread::sleep(ms(time));
                } else {
                    panic!("a browser cannot do this: {step}");
                }
            }
            other => panic!("a browser cannot do this: {other}"),
        }
    }

    /// Nobody listens on the port at another address than loopback's.
    fn assert_only_loopback(&self) {
        let port = format!("{:04X}", self.redirect.port().unwrap());
        let mut listeners = 0;
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            // Elsewhere there is no such table.
            let Ok(text) = std::fs::read_to_string(table) else { continue };
            for line in text.lines().skip(1) {
                let mut words = line.split_whitespace().skip(1);
                let (local, _, state) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                if state == "0A" && local.ends_with(&format!(":{port}")) {
                    let loops =
                        ["0100007F:", "00000000000000000000000001000000:"].iter().any(|it| local.starts_with(it));
                    assert!(loops, "it listens on {local}");
                    listeners += 1;
                }
            }
        }
        assert!(listeners > 0 || !Path::new("/proc/net/tcp").exists(), "nobody listens");
    }

    fn host(&self) -> String {
        format!("{}:{}", self.redirect.host_str().unwrap(), self.redirect.port().unwrap())
    }

    fn get(&self, query: &str) -> String {
        self.fill(&format!("GET {{path}}?{query} HTTP/1.1\r\nHost: {{host}}\r\n\r\n"))
    }

    fn fill(&self, text: &str) -> String {
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let text = text
            .replace("{code}", &self.code)
            .replace("{state}", &self.state)
            .replace("{host}", &self.host())
            .replace("{port}", &self.redirect.port().unwrap().to_string())
            .replace("{path}", self.redirect.path())
            .replace("{iss}", &encoded(&self.iss));
        self.world.fill(&text)
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.redirect.port().unwrap()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    fn ask(&self, request: &str, step: &Value, status: Option<u16>) {
        // In an old tab, the next process may not have come yet.
        let stream = within(LIMIT, || self.connect().ok());
        let mut stream = stream.expect("the callback's port is open");
        // Who refuses early may close before all is written.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let shown: String = request.chars().take(200).collect();
        assert!(!answer.is_empty() || status == Some(0), "no answer to {shown:?}");
        if status == Some(0) {
            assert!(answer.is_empty(), "{shown:?} was answered: {answer}");
            return;
        }
        let got: u16 = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        if let Some(status) = status {
            assert_eq!(got, status, "to {shown:?}: {answer}");
        }
        self.check_page(&answer);
        if let Some(has) = step.get("has").and_then(Value::as_str) {
            assert!(answer.contains(&self.world.fill(has)), "{has:?} is not in {answer}");
        }
        if let Some(lacks) = step.get("lacks").and_then(Value::as_str) {
            assert!(!answer.contains(&self.world.fill(lacks)), "{lacks:?} is in {answer}");
        }
    }

    /// RFC 9700 sections 4.2.4 and 4.16: the code is in the URL, so nothing keeps, frames or passes it on.
    fn check_page(&self, answer: &str) {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
        let lower = head.to_ascii_lowercase();
        for field in [
            "cache-control: no-store",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(lower.contains(field), "{field} is not in {head}");
        }
        for field in ["access-control-", "set-cookie", "refresh:", "server:"] {
            assert!(!lower.contains(field), "{field} is in {head}");
        }
        assert!(!body.to_ascii_lowercase().contains("<script") && !body.contains("<img"), "{body}");
        assert!(!answer.contains(&self.code) && !answer.contains(&self.state), "the page repeats a secret: {answer}");
    }
}

/// How long a case may take to begin a sign-in.
pub const PATIENCE: Duration = Duration::from_secs(60);
