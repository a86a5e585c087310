//! The parts of the bench, and the run from the command line to the exit code.

mod args;
mod budget;
mod cases;
mod clock;
mod http1;
mod link;
mod machine;
mod message;
mod metrics;
mod mock;
mod mock_server;
mod process;
mod report;
mod results;
mod session;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::Args;
use budget::Verdict;
use cases::{FULL, QUICK, Scale, Stage, Target};
use metrics::Case;
use mock_server::MockServer;
use process::Program;
use results::{DIRECT, Results};
use session::Kind;

/// Rounds of a full and of a quick run, for our bridges and for peers.
const ROUNDS: (usize, usize) = (5, 2);
const QUICK_ROUNDS: (usize, usize) = (2, 1);
/// Rounds of cases whose figures hardly differ from round to round.
const STEADY_ROUNDS: usize = 2;
/// A case that took longer than this is not repeated with the same target.
const TOO_SLOW: Duration = Duration::from_secs(20);

/// Where scripts/setup puts mcp-remote.
const MCP_REMOTE: &str = "tests/peers/node_modules/mcp-remote/dist/proxy.js";

/// Why something did not succeed, in one line for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Plays the part that the first argument names: mock server, floor, or driver.
pub(crate) fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.first().and_then(|word| word.to_str()) {
        Some("mock") => mock::run().map(|()| ExitCode::SUCCESS),
        Some("pipe") => copy().map(|()| ExitCode::SUCCESS),
        _ => drive(arguments.drain(..)),
    };
    result.unwrap_or_else(|failure| {
        let _ = writeln!(io::stderr(), "bench: {failure}");
        ExitCode::from(2)
    })
}

/// The floor of any stdio bridge: what comes in goes out, without a look at it.
fn copy() -> Result<(), Failure> {
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stdin.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stdout.write_all(buffer.get(..read).unwrap_or_default())?;
        stdout.flush()?;
    }
}

fn drive(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let args = Args::parse(arguments)?;
    if args.help {
        io::stdout().write_all(args::HELP.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let limits = match &args.check {
        Some(path) => Some(budget::parse(&read_file(path)?)?),
        None => None,
    };
    let targets = targets(&args)?;
    process::raise_open_files()?;
    let cpus = process::cpus()?;
    let scratch = Scratch::new()?;
    let own = std::env::current_exe()?;
    let mock = Program { path: own, arguments: vec!["mock".into()] };
    let mut mock = MockServer::start(&mock, &scratch.0)?;
    let strace = find_on_path("strace");

    let about = about(&targets, cpus.len(), strace.is_some());
    io::stdout().write_all(about.as_bytes())?;
    let started = Instant::now();
    let (scale, rounds) = if args.quick { (QUICK, QUICK_ROUNDS) } else { (FULL, ROUNDS) };
    let rounds = (args.rounds.unwrap_or(rounds.0), args.peer_rounds.unwrap_or(rounds.1));
    let mut results = measure(&mut mock, &targets, &args, scale, rounds, &cpus, &scratch.0, strace.as_deref())?;
    results.derive();

    let mut stdout = io::stdout();
    write!(stdout, "{}", report::table(&results, &targets))?;
    writeln!(stdout, "{} s, load {} at the end", started.elapsed().as_secs(), machine::load())?;
    if let Some(path) = &args.json {
        let machine = serde_json::json!({"about": about, "quick": args.quick, "rounds": rounds.0});
        let value = report::to_json(&results, &targets, &machine);
        write_file(path, &format!("{value:#}\n"))?;
    }
    if let Some(path) = &args.markdown {
        write_file(path, &format!("{about}{}", report::markdown(&results, &targets)))?;
    }
    let kept = limits.is_none_or(|limits| check(&limits, &results, &targets));
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Direct first, then the floor, our bridges, and mcp-remote.
fn targets(args: &Args) -> Result<Vec<Target>, Failure> {
    let pipe = Program { path: std::env::current_exe()?, arguments: vec!["pipe".into()] };
    let mut targets = vec![
        Target { label: "direct".to_owned(), kind: Kind::Direct, peer: false },
        Target { label: "pipe".to_owned(), kind: Kind::Pipe(pipe), peer: false },
    ];
    let default = [(None, PathBuf::from("target/release/mcp-drawbridge"))];
    let bridges = if args.bridges.is_empty() { default.as_slice() } else { &args.bridges };
    for (label, path) in bridges {
        let path = path.canonicalize().map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = unused(label.clone().unwrap_or(name), &targets);
        targets.push(Target { label, kind: Kind::Bridge(Program { path, arguments: Vec::new() }), peer: false });
    }
    match mcp_remote(args)? {
        Ok(program) => {
            targets.push(Target { label: "mcp-remote".to_owned(), kind: Kind::Bridge(program), peer: true });
        }
        Err(reason) => writeln!(io::stdout(), "mcp-remote is left out: {reason}.")?,
    }
    Ok(targets)
}

/// How to run mcp-remote, or why it has no column. One that was named and cannot be run is an error.
fn mcp_remote(args: &Args) -> Result<Result<Program, &'static str>, Failure> {
    let named = args.mcp_remote.clone().or_else(|| std::env::var_os("MCP_REMOTE").map(PathBuf::from));
    let script = match named {
        _ if args.no_mcp_remote => return Ok(Err("--no-mcp-remote")),
        Some(path) => path.canonicalize().map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        None if args.quick => return Ok(Err("this is a quick run")),
        None => match Path::new(MCP_REMOTE).canonicalize() {
            Ok(path) => path,
            Err(_) => return Ok(Err("it is not installed, scripts/setup does that")),
        },
    };
    let node = find_on_path("node").ok_or_else(|| Failure::new("mcp-remote needs node, which is not here"))?;
    Ok(Ok(Program { path: node, arguments: vec![script.into()] }))
}

/// `label`, with a number when another target has it: the same program twice shows the noise.
fn unused(label: String, targets: &[Target]) -> String {
    let taken = |label: &str| targets.iter().any(|target| target.label == label);
    if !taken(&label) {
        return label;
    }
    // One of these is free: there is one more of them than there are targets.
    (2..=targets.len() + 2).map(|n| format!("{label} #{n}")).find(|label| !taken(label)).unwrap_or(label)
}

fn about(targets: &[Target], cpus: usize, strace: bool) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{}, load {}\n", machine::describe(cpus), machine::load());
    for target in targets {
        let Kind::Bridge(program) = &target.kind else { continue };
        let version = machine::version(program).unwrap_or_else(|| "version unknown".to_owned());
        let file = if target.peer { program.arguments.first().map(Path::new) } else { Some(program.path.as_path()) };
        let size = file.and_then(|file| file.metadata().ok()).map_or(0, |file| file.len());
        let _ = write!(text, "{}: {version}", target.label);
        // The peer's script says nothing of the size of what it loads.
        if !target.peer {
            let _ = write!(text, ", {size} bytes");
        }
        text.push('\n');
    }
    if !strace {
        text.push_str("strace is not here: system calls are not counted.\n");
    }
    text.push('\n');
    text
}

#[expect(clippy::too_many_arguments, reason = "the one place where all parts meet")]
fn measure(
    mock: &mut MockServer,
    targets: &[Target],
    args: &Args,
    scale: Scale,
    rounds: (usize, usize),
    cpus: &BTreeSet<usize>,
    scratch: &Path,
    strace: Option<&Path>,
) -> Result<Results, Failure> {
    let pipe = targets.iter().find(|target| matches!(target.kind, Kind::Pipe(_)));
    let pipe = &pipe.ok_or_else(|| Failure::new("no floor"))?.kind;
    let mut stage = Stage { mock, scale, cpus, scratch, pipe, strace, show_errors: args.show_errors, homes: 0 };
    let mut results = Results::default();
    let mut slow = BTreeSet::new();
    let wanted: Vec<Case> = Case::ALL
        .into_iter()
        .map(|(case, _)| case)
        .filter(|case| args.only.is_empty() || args.only.contains(case))
        .collect();
    for round in 0..rounds.0 {
        let begun = Instant::now();
        for (nth, &case) in wanted.iter().enumerate() {
            if matches!(case, Case::Idle | Case::Syscalls) && round >= STEADY_ROUNDS {
                continue;
            }
            // Another target is first each time, so that none always follows the same neighbour.
            let order = (0..targets.len()).map(|n| (n + round + nth) % targets.len());
            let order: Vec<(usize, &Target)> = order
                .filter_map(|place| Some((place, targets.get(place)?)))
                .filter(|(_, target)| stage.can_run(case, target))
                .filter(|(place, target)| (!target.peer || round < rounds.1) && !slow.contains(&(case, *place)))
                .collect();
            if case == Case::Idle {
                idle(&mut stage, &order, round, &mut results);
                continue;
            }
            for (place, target) in order {
                let start = Instant::now();
                let run = stage.run(case, target, &mut |id, value| results.put(id, place, round, value));
                if let Err(failure) = run {
                    if place == DIRECT {
                        return Err(Failure::new(format!("the direct client failed {}: {failure}", case.name())));
                    }
                    results.fail(case, place, failure.to_string());
                    slow.insert((case, place));
                }
                if start.elapsed() > TOO_SLOW {
                    slow.insert((case, place));
                }
            }
        }
        writeln!(io::stderr(), "round {} of {}: {} s", round + 1, rounds.0, begun.elapsed().as_secs())?;
    }
    Ok(results)
}

fn idle(stage: &mut Stage<'_>, order: &[(usize, &Target)], round: usize, results: &mut Results) {
    let targets: Vec<&Target> = order.iter().map(|(_, target)| *target).collect();
    for ((place, _), result) in order.iter().zip(stage.idle(&targets)) {
        match result {
            Ok((cpu, wakeups)) => {
                results.put("idle.cpu", *place, round, cpu);
                results.put("idle.wakeups", *place, round, wakeups);
            }
            Err(failure) => results.fail(Case::Idle, *place, failure.to_string()),
        }
    }
}

/// Compares each of our bridges with the budget, and says what is wrong. True when nothing is.
fn check(limits: &[budget::Limit], results: &Results, targets: &[Target]) -> bool {
    let mut lines = Vec::new();
    let mut broken = 0;
    let peer = targets.iter().position(|target| target.peer);
    for (place, target) in targets.iter().enumerate() {
        if target.peer || !matches!(target.kind, Kind::Bridge(_)) {
            continue;
        }
        let verdicts: Vec<Verdict> = limits.iter().map(|limit| limit.judge(results, place, peer)).collect();
        let kept = verdicts.iter().filter(|verdict| **verdict == Verdict::Kept).count();
        lines.push(format!("{}: {kept} of {} limits kept", target.label, limits.len()));
        for verdict in verdicts {
            match verdict {
                Verdict::Kept => {}
                Verdict::NotMeasured(id) => lines.push(format!("  not measured: {id}")),
                Verdict::Broken(text) => {
                    broken += 1;
                    lines.push(format!("  OVER BUDGET: {text}"));
                }
            }
        }
    }
    let _ = writeln!(io::stdout(), "{}", lines.join("\n"));
    broken == 0
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn read_file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// A directory for all that the programs under test write; it goes away at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("mcp-drawbridge-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
