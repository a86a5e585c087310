//! The client: what a desktop host does with a stdio server. Plain threads and pipes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;
use crate::server::REVISION;

/// Nothing in the demo takes this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the bridge's stderr that are kept.
const MAX_STDERR: u64 = 64 * 1024;

/// The bridges' directory for what they keep. It is removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(act: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mcp-drawbridge-demo-{}-{act}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The bridge's environment: the demo touches nothing of the user's, and no proxy of this machine stands in its way.
/// The browser is this program.
pub(crate) fn configured<'a>(command: &'a mut Command, scratch: &Scratch) -> Result<&'a mut Command, Failure> {
    let home = [("MCP_DRAWBRIDGE_STATE_DIR", &scratch.0), ("XDG_STATE_HOME", &scratch.0)];
    Ok(command.envs(home).env("NO_PROXY", "127.0.0.1").env("BROWSER", std::env::current_exe()?))
}

/// A host with one bridge.
pub(crate) struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    incoming: Receiver<(Instant, String)>,
    stderr: Arc<Mutex<String>>,
    next_id: u64,
    /// Methods of all requests, by id.
    requests: Vec<String>,
    responses: HashMap<u64, Value>,
    notifications: Vec<(Instant, Value)>,
    asked: Vec<String>,
    extra: usize,
}

impl Host {
    /// Starts the bridge as `"command"` and `"args"` of a configuration file would.
    pub(crate) fn start(bridge: &Path, arguments: &[String], scratch: &Scratch) -> Result<Self, Failure> {
        let mut child = configured(Command::new(bridge).args(arguments), scratch)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", bridge.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut errors = child.stderr.take().ok_or("no stderr")?.take(MAX_STDERR);
        let (sender, incoming) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&stderr);
        thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            if let Ok(mut kept) = kept.lock() {
                *kept = text;
            }
        });
        Ok(Self {
            child,
            stdin,
            incoming,
            stderr,
            next_id: 0,
            requests: Vec::new(),
            responses: HashMap::new(),
            notifications: Vec::new(),
            asked: Vec::new(),
            extra: 0,
        })
    }

    /// The first request.
    pub(crate) fn send_initialize(&mut self) -> Result<u64, Failure> {
        let offer = json!({
            "protocolVersion": REVISION,
            "capabilities": { "roots": {}, "elicitation": {} },
            "clientInfo": { "name": "demo-client", "version": "1" },
        });
        self.send("initialize", offer)
    }

    /// The answer to the first request, which is acknowledged.
    pub(crate) fn initialized(&mut self) -> Result<Value, Failure> {
        let greeting = self.wait(0)?;
        self.notify("notifications/initialized")?;
        Ok(greeting)
    }

    /// A request and its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.send(method, params)?;
        self.wait(id)
    }

    /// A tool's result as text.
    pub(crate) fn tool(&mut self, name: &str, arguments: Value) -> Result<String, Failure> {
        let id = self.send_tool(name, arguments)?;
        let result = self.wait(id)?;
        Ok(crate::content(&result)?.to_owned())
    }

    pub(crate) fn send_tool(&mut self, name: &str, arguments: Value) -> Result<u64, Failure> {
        self.send("tools/call", json!({ "name": name, "arguments": arguments }))
    }

    fn send(&mut self, method: &str, params: Value) -> Result<u64, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        self.requests.push(method.to_owned());
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))?;
        Ok(id)
    }

    fn notify(&mut self, method: &str) -> Result<(), Failure> {
        self.write(&json!({ "jsonrpc": "2.0", "method": method }))
    }

    fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let stdin = self.stdin.as_mut().ok_or("the client has left")?;
        stdin.write_all(format!("{message}\n").as_bytes())?;
        Ok(())
    }

    /// Waits for the answer to a request. An error of the server or of the bridge is a failure of the demo.
    pub(crate) fn wait(&mut self, id: u64) -> Result<Value, Failure> {
        self.wait_until(|host| host.responses.contains_key(&id))?;
        let mut response = self.responses.remove(&id).unwrap_or_default();
        match response.get("error") {
            Some(error) => Err(format!("request {id} got an error: {error}").into()),
            None => Ok(response["result"].take()),
        }
    }

    /// Takes messages until a condition holds.
    pub(crate) fn wait_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => self.take(at, &line)?,
                Err(RecvTimeoutError::Timeout) => return Err("the bridge is silent".into()),
                Err(RecvTimeoutError::Disconnected) => return Err("the bridge is gone".into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, at: Instant, line: &str) -> Result<(), Failure> {
        let message: Value = serde_json::from_str(line).map_err(|error| format!("{error} in the line {line}"))?;
        let method = message["method"].as_str();
        match (method, message.get("id")) {
            (Some(method), Some(id)) => self.answer(method, id),
            (Some(_), None) => {
                self.notifications.push((at, message));
                Ok(())
            }
            (None, id) => {
                let id = id.and_then(Value::as_u64);
                let asked = id.filter(|id| *id < self.next_id);
                match asked {
                    Some(id) if self.responses.insert(id, message).is_none() => {}
                    _ => self.extra += 1,
                }
                Ok(())
            }
        }
    }

    /// Requests of the server, answered as a person would.
    fn answer(&mut self, method: &str, id: &Value) -> Result<(), Failure> {
        self.asked.push(method.to_owned());
        let result = match method {
            "roots/list" => json!({ "roots": [{ "uri": "file:///home/demo", "name": "home" }] }),
            "elicitation/create" => json!({ "action": "accept", "content": { "guests": 4 } }),
            "ping" => json!({}),
            _ => return Err(format!("the server asked for {method}, which this client did not offer").into()),
        };
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
    }

    /// Whether the server asked for this.
    pub(crate) fn asked(&self, method: &str) -> bool {
        self.asked.iter().any(|asked| asked == method)
    }

    /// How often the client sent this.
    pub(crate) fn sent(&self, method: &str) -> usize {
        self.requests.iter().filter(|sent| *sent == method).count()
    }

    /// Responses to ids that nobody waits for.
    pub(crate) fn extra_responses(&self) -> usize {
        self.extra
    }

    /// Removes and returns the notifications of one kind, with their time.
    pub(crate) fn take_notifications(&mut self, method: &str) -> Vec<(Instant, Value)> {
        let (taken, left) =
            self.notifications.drain(..).partition(|(_, message)| message["method"].as_str() == Some(method));
        self.notifications = left;
        let taken: Vec<(Instant, Value)> = taken;
        taken.into_iter().map(|(at, mut message)| (at, message["params"].take())).collect()
    }

    /// The bridge's resident memory, where the system tells it simply.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let pid = self.child.id().to_string();
        let shown = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().ok().map(|output| output.stdout);
        let shown = shown.and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
        shown.or_else(|| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        })
    }

    /// Closes the bridge's stdin, as a host does that quits, and waits for its end.
    pub(crate) fn leave(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        self.stdin = None;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err("the bridge does not leave".into());
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// SIGKILL: no goodbye.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What the bridge said, for a failed demo.
    pub(crate) fn stderr(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader of stderr needs a moment to come to its end.
        thread::sleep(Duration::from_millis(100));
        let text = self.stderr.lock().map(|text| text.clone()).unwrap_or_default();
        text.lines().fold(String::new(), |mut out, line| {
            let _ = writeln!(out, "  bridge: {line}");
            out
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
