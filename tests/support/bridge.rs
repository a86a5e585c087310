//! Drives the real binary as a stdio client would, and holds it to what every run must keep: each line on stdout is
//! one JSON-RPC message, each request gets at most one response, nothing is answered that was not asked.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{LIMIT, TempDir, within};

/// The protocol version that the client asks for.
pub const VERSION: &str = "2025-11-25";

/// What the bridge's stdin and stdout are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio3 {
    /// Two pipes, as most hosts make them.
    Pipes,
    /// Two socket pairs, as Node makes them.
    Sockets,
}

/// How to start the bridge.
pub struct Setup {
    command: Command,
    home: Arc<TempDir>,
    stdio: Stdio3,
    unread: bool,
}

impl Setup {
    /// The bridge to this server, with an empty environment and a home of its own.
    pub fn new(url: &str) -> Self {
        Self::bare(Arc::new(TempDir::new())).arg(url)
    }

    /// Without arguments.
    pub fn bare(home: Arc<TempDir>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-drawbridge"));
        command.env_clear();
        // Where coverage is measured, the run must be able to leave its figures.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", profile);
        }
        Self { command, home: Arc::clone(&home), stdio: Stdio3::Pipes, unread: false }.home(&home)
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Arguments separated by blanks.
    pub fn args(mut self, args: &str) -> Self {
        self.command.args(args.split_whitespace());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// A home that an earlier run has used.
    pub fn home(mut self, home: &Arc<TempDir>) -> Self {
        self.home = Arc::clone(home);
        self.command.env("HOME", home.path()).env("MCP_DRAWBRIDGE_STATE_DIR", home.path().join("state"));
        self.command.current_dir(home.path());
        self
    }

    pub fn stdio(mut self, stdio: Stdio3) -> Self {
        self.stdio = stdio;
        self
    }

    /// Nobody reads stdout until [`Bridge::read`] or [`Bridge::take_stdout`].
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// The command alone, for unusual beginnings.
    pub fn into_command(self) -> (Command, Arc<TempDir>) {
        (self.command, self.home)
    }

    pub fn start(mut self) -> Bridge {
        let started = Instant::now();
        self.command.stderr(Stdio::piped());
        let (mut child, stdin, stdout): (Child, Box<dyn Write + Send>, Box<dyn Read + Send>) = match self.stdio {
            Stdio3::Pipes => {
                let mut child = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the bridge");
                let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                (child, Box::new(stdin), Box::new(stdout))
            }
            Stdio3::Sockets => {
                let (stdin, its_stdin) = UnixStream::pair().expect("a socket pair");
                let (stdout, its_stdout) = UnixStream::pair().expect("a socket pair");
                self.command.stdin(OwnedFd::from(its_stdin)).stdout(OwnedFd::from(its_stdout));
                let child = self.command.spawn().expect("the bridge");
                (child, Box::new(stdin), Box::new(stdout))
            }
        };
        // The command holds its own ends of the sockets.
        drop(self.command);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut from = child.stderr.take().unwrap();
        let to = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                to.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        let mut bridge = Bridge {
            child,
            started,
            stdin: Some(stdin),
            stdout: Some(stdout),
            heard: Arc::default(),
            stderr,
            stderr_reader: Some(stderr_reader),
            home: self.home,
            sent: HashMap::new(),
            cancelled: HashSet::new(),
            last_id: 0,
            ended: None,
            reads: false,
        };
        if !self.unread {
            bridge.read();
        }
        bridge
    }
}

/// One line of stdout.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: Instant,
    pub text: String,
    pub value: Value,
}

#[derive(Default)]
struct Heard {
    lines: Mutex<(Vec<Line>, Ended)>,
    more: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    Yes,
    /// A line that is not one JSON text.
    Broken(String),
}

/// A running bridge.
pub struct Bridge {
    child: Child,
    pub started: Instant,
    stdin: Option<Box<dyn Write + Send>>,
    stdout: Option<Box<dyn Read + Send>>,
    heard: Arc<Heard>,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_reader: Option<std::thread::JoinHandle<()>>,
    home: Arc<TempDir>,
    /// Requests by the text of their id, with how often each was sent.
    sent: HashMap<String, usize>,
    cancelled: HashSet<String>,
    last_id: i64,
    ended: Option<ExitStatus>,
    /// The driver reads stdout, and so can judge it.
    reads: bool,
}

/// What a whole run left.
#[derive(Debug)]
pub struct Transcript {
    pub status: ExitStatus,
    pub lines: Vec<Line>,
    pub stderr: String,
    /// From the end of stdin (or the signal) to the end of the process.
    pub took: Duration,
}

impl Bridge {
    /// Begins to read stdout.
    pub fn read(&mut self) {
        let stdout = self.stdout.take().expect("not read yet");
        self.reads = true;
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(1 << 16, stdout);
            loop {
                let mut text = Vec::new();
                let ended = match reader.read_until(b'\n', &mut text) {
                    Ok(0) | Err(_) => Some(Ended::Yes),
                    Ok(_) => parse_line(&text).map_err(Ended::Broken).map_or_else(Some, |line| {
                        heard.lines.lock().unwrap().0.push(line);
                        None
                    }),
                };
                heard.more.notify_all();
                if let Some(ended) = ended {
                    heard.lines.lock().unwrap().1 = ended;
                    heard.more.notify_all();
                    return;
                }
            }
        });
    }

    /// stdout itself, of a bridge that was started [`Setup::unread`].
    pub fn take_stdout(&mut self) -> Box<dyn Read + Send> {
        self.stdout.take().expect("not read yet")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn home(&self) -> &Arc<TempDir> {
        &self.home
    }

    // ---- talking ----

    /// Writes bytes as they are. False if the bridge does not read any more.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).is_ok()
    }

    /// Writes one line and notes the requests in it.
    pub fn send_line(&mut self, text: &str) {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(members)) => members.iter().for_each(|member| self.note(member)),
            Ok(message) => self.note(&message),
            Err(_) => {}
        }
        assert!(self.send_bytes(format!("{text}\n").as_bytes()), "the bridge does not read\n{}", self.report());
    }

    /// Notes what a line that is sent in another way asks for, also where it is no proper request: it will be told so.
    pub fn note_line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_start_matches('\u{feff}');
        let Ok(value) = serde_json::from_str::<Value>(text).or_else(|_| readable(text, 1)) else { return };
        for message in messages(&value) {
            let id = &message["id"];
            // One that is given twice is none.
            let usable =
                (id.is_string() || id.is_number()) && (value.is_array() || text.matches("\"id\":").count() == 1);
            if usable && !is_response(message) {
                self.note(&json!({"method": "", "id": id}));
            }
            if message["method"] == "notifications/cancelled" {
                self.note(&json!({"method": message["method"], "params": message["params"]}));
            }
        }
    }

    /// Notes a request that is sent in another way.
    pub fn note(&mut self, message: &Value) {
        if message["method"].is_string() && !message["id"].is_null() {
            *self.sent.entry(message["id"].to_string()).or_default() += 1;
        }
        if message["method"] == "notifications/cancelled" {
            self.cancelled.insert(message["params"]["requestId"].to_string());
        }
    }

    pub fn send(&mut self, message: &Value) {
        self.send_line(&message.to_string());
    }

    pub fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a request with a new id and gives the id.
    pub fn request(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let id = Value::from(self.last_id);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Sends a tool call and gives its id.
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.request("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    pub fn initialize(&mut self) -> Value {
        self.initialize_as(VERSION)
    }

    pub fn initialize_as(&mut self, version: &str) -> Value {
        self.request(
            "initialize",
            &json!({"protocolVersion": version, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "t", "version": "1"}}),
        )
    }

    pub fn initialized(&mut self) {
        self.notify("notifications/initialized", &json!({}));
    }

    /// The whole handshake; gives the answer to `initialize`.
    pub fn handshake(&mut self) -> Value {
        self.handshake_as(VERSION)
    }

    pub fn handshake_as(&mut self, version: &str) -> Value {
        let id = self.initialize_as(version);
        let answer = self.answer(&id);
        assert!(answer["result"].is_object(), "initialize: {answer}\n{}", self.report());
        self.initialized();
        answer
    }

    // ---- listening ----

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.heard.lines.lock().unwrap().0.clone()
    }

    /// Waits for a line; each is seen again by a later look.
    pub fn line_where(&self, limit: Duration, matches: impl Fn(&Line) -> bool) -> Option<Line> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        let mut lines = self.heard.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0[seen..].iter().find(|line| matches(line)) {
                return Some(line.clone());
            }
            seen = lines.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.1 != Ended::No {
                return None;
            }
            lines = self.heard.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The response with this id.
    pub fn answer(&self, id: &Value) -> Value {
        self.answer_line(id).value
    }

    /// The line that is the response with this id.
    pub fn answer_line(&self, id: &Value) -> Line {
        let found = self.line_where(LIMIT, |line| is_response(&line.value) && line.value["id"] == *id);
        found.unwrap_or_else(|| panic!("no answer to {id} within {LIMIT:?}\n{}", self.report()))
    }

    /// The result of the request with this id, which must not be an error.
    pub fn result(&self, id: &Value) -> Value {
        let answer = self.answer(id);
        assert!(answer.get("result").is_some(), "{answer}\n{}", self.report());
        answer["result"].clone()
    }

    /// The error of the request with this id, which must be one.
    pub fn error(&self, id: &Value) -> Value {
        let answer = self.answer(id);
        assert!(answer["error"].is_object(), "{answer}\n{}", self.report());
        answer["error"].clone()
    }

    /// The `n`th notification (from 1) of this method.
    pub fn notification(&self, method: &str) -> Value {
        let found = self.line_where(LIMIT, |line| line.value["method"] == method && line.value["id"].is_null());
        found.unwrap_or_else(|| panic!("no {method} came\n{}", self.report())).value
    }

    /// A request of the server.
    pub fn server_request(&self, method: &str) -> Value {
        let found = self.line_where(LIMIT, |line| line.value["method"] == method && !line.value["id"].is_null());
        found.unwrap_or_else(|| panic!("no {method} came\n{}", self.report())).value
    }

    /// A request that any honest run must answer: shows that the bridge still works.
    pub fn assert_works(&mut self) {
        let id = self.call("echo", &json!({"still": "here"}));
        let result = self.result(&id);
        assert_eq!(result["structuredContent"]["still"], "here", "{}", self.report());
    }

    /// Something on stdout was no message.
    pub fn stdout_is_broken(&self) -> bool {
        matches!(self.heard.lines.lock().unwrap().1, Ended::Broken(_))
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// For a person who must find out what happened.
    pub fn report(&self) -> String {
        let heard = self.heard.lines.lock().unwrap();
        let mut text = format!("after {:?}, stdout {:?}\n", self.started.elapsed(), heard.1);
        let from = heard.0.len().saturating_sub(20);
        for line in &heard.0[from..] {
            let short: String = line.text.chars().take(240).collect();
            let at = line.at.saturating_duration_since(self.started);
            text.push_str(&format!("stdout: {at:>9.1?} {short}\n"));
        }
        text.push_str(&format!("stderr: {}", self.stderr()));
        text
    }

    // ---- the process ----

    /// Resident bytes now; `None` where the system does not tell.
    pub fn rss(&self) -> Option<usize> {
        status_bytes(self.pid(), "VmRSS:")
    }

    /// The most bytes that were ever resident.
    pub fn peak_rss(&self) -> Option<usize> {
        peak_rss_of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).expect("a signal");
    }

    pub fn stdin_is_open(&self) -> bool {
        self.stdin.is_some()
    }

    /// stdin ends.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn is_alive(&mut self) -> bool {
        self.ended.is_none() && self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for the end of the process.
    pub fn exit_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = within(limit, || self.child.try_wait().expect("a child"));
        }
        self.ended
    }

    /// stdin ends; the process must follow with status 0.
    pub fn finish(mut self) -> Transcript {
        assert!(self.is_alive(), "the bridge is gone already\n{}", self.report());
        let begun = Instant::now();
        self.close_stdin();
        self.after_end(begun)
    }

    /// The process was told to end at `begun`: waits for it, and checks all that it said.
    pub fn after_end(mut self, begun: Instant) -> Transcript {
        let status = self.exit_within(LIMIT).unwrap_or_else(|| panic!("the bridge does not end\n{}", self.report()));
        let took = begun.elapsed();
        assert!(status.success(), "{status}\n{}", self.report());
        // All that is in the pipe.
        let ended = within(LIMIT, || match self.heard.lines.lock().unwrap().1.clone() {
            Ended::No if self.reads => None,
            ended => Some(ended),
        });
        if let Some(Ended::Broken(why)) = ended {
            panic!("stdout holds what is no message: {why}\n{}", self.report());
        }
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        let (lines, stderr) = (self.lines(), self.stderr());
        if self.reads {
            self.check_responses();
        }
        assert!(!stderr.chars().any(|c| c.is_control() && c != '\n'), "control characters on stderr: {stderr:?}");
        Transcript { status, lines, stderr, took }
    }

    /// R1, R3: exactly one response for each request, and none for anything else. A request that was cancelled may have had its
    /// response before that.
    fn check_responses(&self) {
        let mut answered: HashMap<String, usize> = HashMap::new();
        for line in self.lines() {
            for message in messages(&line.value) {
                if is_response(message) && !message["id"].is_null() {
                    *answered.entry(message["id"].to_string()).or_default() += 1;
                }
            }
        }
        for (id, count) in &answered {
            let asked = self.sent.get(id).copied().unwrap_or(0);
            assert!(*count <= asked, "{count} responses to {id}, which was asked {asked} times\n{}", self.report());
        }
        for (id, asked) in &self.sent {
            let count = answered.get(id).copied().unwrap_or(0);
            let well = count == *asked || (count < *asked && self.cancelled.contains(id));
            assert!(well, "{count} responses to {id}, which was asked {asked} times\n{}", self.report());
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn parse_line(bytes: &[u8]) -> Result<Line, String> {
    let shown = || String::from_utf8_lossy(bytes.get(..bytes.len().min(200)).unwrap_or_default()).into_owned();
    let text = bytes.strip_suffix(b"\n").ok_or_else(|| format!("a line without an end: {:?}", shown()))?;
    let text = std::str::from_utf8(text).map_err(|_| format!("not UTF-8: {:?}", shown()))?;
    if text.contains(['\r', '\u{2028}', '\u{2029}', '\u{85}']) {
        return Err(format!("a line with another line end in it: {:?}", shown()));
    }
    // What a tree cannot hold (too deep, a number without bounds) is still JSON.
    let value = serde_json::from_str::<Value>(text).or_else(|_| readable(text, 4));
    let value = value.map_err(|error| format!("not JSON ({error}): {:?}", shown()))?;
    for message in messages(&value) {
        check_message(message).map_err(|why| format!("{why}: {:?}", shown()))?;
    }
    Ok(Line { at: Instant::now(), text: text.to_owned(), value })
}

/// An object without the parts that a tree cannot hold.
fn readable(text: &str, depth: u32) -> Result<Value, serde_json::Error> {
    use serde_json::value::RawValue;
    let members: HashMap<String, &RawValue> = serde_json::from_str(text)?;
    let value = |raw: &RawValue| match serde_json::from_str(raw.get()) {
        Ok(value) => value,
        Err(_) if depth > 0 => readable(raw.get(), depth - 1).unwrap_or_else(|_| Value::from("(unreadable)")),
        Err(_) => Value::from("(unreadable)"),
    };
    Ok(members.into_iter().map(|(name, raw)| (name, value(raw))).collect::<serde_json::Map<_, _>>().into())
}

/// The messages of a line: itself, or the members of a batch.
pub fn messages(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().collect(),
        message => vec![message],
    }
}

fn is_response(message: &Value) -> bool {
    message.get("result").is_some() || message.get("error").is_some()
}

/// JSON-RPC 2.0 §4, §5.
fn check_message(message: &Value) -> Result<(), &'static str> {
    if message["jsonrpc"] != "2.0" {
        return Err("no JSON-RPC 2.0");
    }
    let id = message.get("id");
    let (method, result, error) = (message.get("method"), message.get("result"), message.get("error"));
    match (method, result, error) {
        (Some(method), None, None) if method.is_string() => match id {
            None => Ok(()),
            Some(id) if id.is_string() || id.is_number() => Ok(()),
            Some(_) => Err("a request with an odd id"),
        },
        (None, Some(_), None) if id.is_some_and(|id| id.is_string() || id.is_number()) => Ok(()),
        (None, None, Some(error)) => {
            let well_formed = error["code"].is_i64() && error["message"].is_string() && id.is_some();
            if well_formed { Ok(()) } else { Err("a malformed error") }
        }
        _ => Err("neither a request nor a response"),
    }
}

/// The most bytes that were ever resident in a process; `None` where the system does not tell.
pub fn peak_rss_of(pid: u32) -> Option<usize> {
    status_bytes(pid, "VmHWM:")
}

/// Kills a bridge that another thread is busy with.
pub fn kill_own(pid: u32) {
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
}

fn status_bytes(pid: u32, field: &str) -> Option<usize> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}
