//! A dialogue that shows what the bridge is for: `scripts/demo`.
//!
//! ```text
//! demo BRIDGE                run the whole demo with this binary
//! demo serve [ADDRESS]       only the MCP server, to point a client of your own at
//! demo serve-sign-in         the same with a server that wants a sign-in, and says yes to everybody
//! demo http://...            the browser: loads the page; the bridge calls it so
//! ```
//! The client is a small desktop host: it starts the bridge with pipes, speaks MCP 2025-11-25 and answers what the server
//! asks. The server is another process of this program, so that it can be killed for real. The client knows nothing
//! of HTTP, the server nothing of the bridge. The second act, sign-in, has servers and a browser of its own.

// A program of its own, built from dev-dependencies: it prints, it starts processes, it shows numbers with few digits.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, clippy::cast_precision_loss)]
// Reading `Value` by a name that is not there gives `Null`.
#![allow(clippy::indexing_slicing)]

mod browser;
mod client;
mod server;
mod sign_in;
mod support;
mod transcript;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use client::{Host, Scratch};
use server::ServerProcess;
use transcript::Transcript;

type Failure = Box<dyn Error>;

/// Steps of the call that reports progress, and the pause before each.
const STEPS: u32 = 5;
const STEP: Duration = Duration::from_millis(40);
/// Small calls, one after another.
const CALLS: usize = 200;
/// Calls in flight when the server dies.
const IN_FLIGHT: u32 = 20;
/// How long each of them takes at the server, when it dies, and how long it is gone.
const SLOW: Duration = Duration::from_millis(400);
const DIES_AFTER: Duration = Duration::from_millis(150);
const GONE_FOR: Duration = Duration::from_millis(500);
/// After the client left, the bridge must be gone within this time.
const EXIT: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: demo BRIDGE | demo serve [ADDRESS] | demo serve-sign-in";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [word] if word == "serve" => server::serve("127.0.0.1:0"),
        [word] if word == "serve-sign-in" => sign_in::serve(),
        [page] if page.to_string_lossy().starts_with("http://") => browser::browse(&page.to_string_lossy()),
        [word, address] if word == "serve" => server::serve(&address.to_string_lossy()),
        [bridge] => dialogue(Path::new(bridge)),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("demo: FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dialogue(bridge: &Path) -> Result<(), Failure> {
    let mut server = ServerProcess::start("127.0.0.1:0")?;
    let size = std::fs::metadata(bridge)?.len();
    println!("mcp-drawbridge: one file of {:.1} MB", size as f64 / 1e6);
    println!("server:         {} (process {})\n", server.url, server.pid());

    let started = Instant::now();
    let scratch = Scratch::new("bridge");
    let mut host = Host::start(bridge, std::slice::from_ref(&server.url), &scratch)?;
    let mut told = Transcript::new(started);
    let outcome = steps(&mut host, &mut server, &mut told);
    if outcome.is_err() {
        eprint!("{}", host.stderr());
    }
    outcome?;
    sign_in::act(bridge)?;
    println!("\nAll as promised.");
    Ok(())
}

fn steps(host: &mut Host, server: &mut ServerProcess, told: &mut Transcript) -> Result<(), Failure> {
    host.send_initialize()?;
    let greeting = host.initialized()?;
    let (name, revision) = (text(&greeting, "/serverInfo/name")?, text(&greeting, "/protocolVersion")?);
    told.line("initialize", format!("answered by {name}, revision {revision}; the bridge's start is included"));
    ensure(revision == server::REVISION, "the revision is what the client asked for")?;

    let tools = host.call("tools/list", json!({}))?;
    let names: Vec<&str> = list(&tools, "/tools")?.iter().filter_map(|tool| tool["name"].as_str()).collect();
    told.line("tools/list", names.join(", "));
    ensure(names.len() == server::TOOLS, "all tools are listed")?;

    progress(host, told)?;

    host.wait_until(|host| host.asked("roots/list"))?;
    told.line("roots/list", "asked by the server on its notification stream, answered by the client".into());

    let booked = host.tool("book", json!({ "day": "Friday" }))?;
    ensure(host.asked("elicitation/create"), "the server's question reached the client")?;
    ensure(booked == "A table for 4 on Friday.", "the server used the client's answer")?;
    told.line("tools/call", format!("book: the server asked \"{}\" in the middle; then: {booked}", server::QUESTION));

    small_calls(host, told)?;
    restart(host, server, told)?;

    if let Some(kib) = host.resident_kib() {
        told.note(&format!("the bridge's memory after all this: {:.1} MiB", kib as f64 / 1024.0));
    }
    ensure(host.extra_responses() == 0, "no id was answered twice, none that was not asked for")?;

    told.mark();
    let status = host.leave(EXIT)?;
    told.line("EOF", format!("the bridge ended the session and left: {status}"));
    ensure(status.success(), "the exit code is 0")?;
    ensure(server.saw_session_end(EXIT), "the server was told that the session is over")?;
    Ok(())
}

/// Events must come as they happen, not with the answer.
fn progress(host: &mut Host, told: &mut Transcript) -> Result<(), Failure> {
    let params = json!({
        "name": "count",
        "arguments": { "steps": STEPS, "pause_ms": STEP.as_millis() },
        "_meta": { "progressToken": "counting" },
    });
    let counted = host.call("tools/call", params)?;
    let answered = Instant::now();
    let progress = host.take_notifications("notifications/progress");
    let values: Vec<u64> = progress.iter().filter_map(|(_, params)| params["progress"].as_u64()).collect();
    ensure(values == (1..=u64::from(STEPS)).collect::<Vec<_>>(), "each step's progress came, in order")?;
    let first = progress.first().ok_or("no progress")?.0;
    ensure(answered - first >= STEP * (STEPS - 2), "progress came while the call ran")?;
    let times: Vec<String> = progress.iter().map(|(at, _)| told.at(*at)).collect();
    told.line("tools/call", format!("count: {}; progress at {} ms", content(&counted)?, times.join(", ")));
    Ok(())
}

fn small_calls(host: &mut Host, told: &mut Transcript) -> Result<(), Failure> {
    let mut times = Vec::with_capacity(CALLS);
    for i in 0..CALLS {
        let start = Instant::now();
        let sum = host.tool("add", json!({ "a": i, "b": 1 }))?;
        times.push(start.elapsed());
        ensure(sum == (i + 1).to_string(), "a sum is right")?;
    }
    times.sort_unstable();
    let at = |share: usize| times.get(CALLS * share / 100).map_or(0.0, Duration::as_secs_f64) * 1e3;
    let (p50, p99) = (at(50), at(99));
    told.line("tools/call", format!("{CALLS} times add: p50 {p50:.2} ms, p99 {p99:.2} ms, server and client included"));
    Ok(())
}

/// The server dies with calls in flight and comes back without memory; the client must see nothing but answers.
fn restart(host: &mut Host, server: &mut ServerProcess, told: &mut Transcript) -> Result<(), Failure> {
    let ids = (0..IN_FLIGHT)
        .map(|i| host.send_tool("slow_add", json!({ "a": i, "b": 100, "pause_ms": SLOW.as_millis() })))
        .collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(DIES_AFTER);
    let old = server.pid();
    server.kill()?;
    told.note(&format!("{IN_FLIGHT} calls are in flight; the server is killed (SIGKILL)"));
    std::thread::sleep(GONE_FOR);
    server.restart()?;
    told.note(&format!("process {old} is gone, process {} listens and knows no session", server.pid()));
    for (i, id) in ids.iter().enumerate() {
        let result = host.wait(*id)?;
        ensure(content(&result)? == (i + 100).to_string(), "a sum is right, in spite of the restart")?;
    }
    told.line("tools/call", format!("{IN_FLIGHT} times slow_add: all answered, each once, none with an error"));

    let info: Value = serde_json::from_str(&host.tool("server_info", json!({}))?)?;
    ensure(info["process"] == json!(server.pid()), "the new process answers")?;
    ensure(info["initialized"] == json!(1), "the bridge made itself known to it once, for all calls")?;
    ensure(host.sent("initialize") == 1, "the client did nothing for that")?;
    told.line("tools/call", "server_info: the new process was initialized once; the client did nothing for it".into());
    Ok(())
}

fn ensure(kept: bool, promise: &str) -> Result<(), Failure> {
    if kept { Ok(()) } else { Err(format!("not kept: {promise}").into()) }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Failure> {
    value.pointer(pointer).and_then(Value::as_str).ok_or_else(|| format!("no {pointer} in {value}").into())
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a Vec<Value>, Failure> {
    value.pointer(pointer).and_then(Value::as_array).ok_or_else(|| format!("no {pointer} in {value}").into())
}

/// The text of a tool's result.
fn content(result: &Value) -> Result<&str, Failure> {
    text(result, "/content/0/text")
}
