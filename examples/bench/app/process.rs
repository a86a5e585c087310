//! Child processes: how they are started, what `/proc` says of them, how they end.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, prlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Failure;
use super::clock::timespec;

/// The usual soft limit of open files on a Linux desktop.
const USUAL_FILES: u64 = 1024;
/// Variables that would change what is measured.
const UNWANTED: [&str; 10] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "NODE_OPTIONS",
    "RUST_LOG",
];

/// Held while the limit of open files is a child's.
static LIMIT: Mutex<()> = Mutex::new(());

/// How many files a program may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenFiles {
    /// As on a desktop. A program may raise the limit itself; Node does.
    Usual,
    /// So many and never more, as after `ulimit -n`.
    Only(u64),
    /// As many as this process may.
    All,
}

/// A program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A running program with its pipes taken out.
pub(crate) struct Running {
    child: Child,
    pidfd: OwnedFd,
    /// Kept until the program should see the end of its input.
    pub(crate) pipes: Option<(OwnedFd, OwnedFd)>,
    /// Just before the program was started.
    pub(crate) started: Instant,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time of all its threads.
    pub(crate) cpu: Duration,
    /// Times that its threads went to sleep, which is how often they were woken.
    pub(crate) sleeps: u64,
    /// Resident memory now, and the most since it was last reset.
    pub(crate) rss_kib: u64,
    pub(crate) peak_kib: u64,
}

impl Program {
    /// Starts the program with `home` as everything that it may write to, and with a limit of open files.
    pub(crate) fn start(&self, home: &Path, open_files: OpenFiles, show_errors: bool) -> Result<Running, Failure> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).current_dir(home).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if show_errors { Stdio::inherit() } else { Stdio::null() });
        for name in UNWANTED {
            command.env_remove(name);
        }
        command.env("HOME", home).env("MCP_REMOTE_CONFIG_DIR", home);
        for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, home);
        }
        // A child takes over the limit of the moment; no code has to run between fork and exec.
        // Two threads must not take each other's limit for their own.
        let guard = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        let own = getrlimit(Resource::Nofile);
        let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum: own.maximum });
        let soft = match open_files {
            OpenFiles::Usual => Some(USUAL_FILES),
            OpenFiles::Only(most) => Some(most),
            OpenFiles::All => own.maximum,
        };
        limit(soft)?;
        let started = Instant::now();
        let child = command.spawn();
        limit(own.current)?;
        drop(guard);
        let mut child = child.map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))?;
        if let OpenFiles::Only(_) = open_files {
            // The hard limit could not be raised again in this process, so it is set in the other one.
            prlimit(Some(Pid::from_child(&child)), Resource::Nofile, Rlimit { current: soft, maximum: soft })?;
        }
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let pipes = child.stdin.take().zip(child.stdout.take()).map(|(stdin, stdout)| (stdin.into(), stdout.into()));
        Ok(Running { child, pidfd, pipes, started })
    }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; an error when it does not come in time or is not a success.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<(), Failure> {
        let mut ends = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if poll(&mut ends, Some(&timespec(patience)))? == 0 {
            return Err(Failure::new(format!("still running {} s after its stdin was closed", patience.as_secs())));
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("ended with {status}"))) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the process `pid` has used.
pub(crate) fn usage(pid: u32) -> Result<Usage, Failure> {
    let mut usage = Usage::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end while its neighbours are read.
        let (Ok(schedule), Ok(status)) =
            (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("status")))
        else {
            continue;
        };
        let nanos = schedule.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        usage.cpu += Duration::from_nanos(nanos.unwrap_or_default());
        usage.sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or_default();
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    usage.rss_kib = field(&status, "VmRSS:").unwrap_or_default();
    usage.peak_kib = field(&status, "VmHWM:").unwrap_or_default();
    Ok(usage)
}

/// Lets the peak of the process `pid` start anew from what it uses now.
pub(crate) fn reset_peak(pid: u32) -> Result<(), Failure> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Gives this process as many open files as it may have.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The CPUs that this process may use.
pub(crate) fn cpus() -> Result<BTreeSet<usize>, Failure> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Binds the process `pid`, or this one, to `cpus`. Programs that it starts later inherit that.
pub(crate) fn bind(pid: Option<u32>, cpus: &BTreeSet<usize>) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok(sched_setaffinity(pid, &set)?)
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_can_be_read() {
        let thread = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_nsec;
        while thread() < 30_000_000 {}
        std::thread::sleep(Duration::from_millis(2));
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.cpu > Duration::from_millis(10), "{usage:?}");
        assert!(usage.sleeps > 0 && usage.rss_kib > 100 && usage.peak_kib >= usage.rss_kib, "{usage:?}");
    }

    #[test]
    fn a_program_starts_with_its_limit_and_ends_with_its_input() {
        let home = std::env::temp_dir();
        let program = |script: &str| Program { path: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] };
        let limit = program("cat >/dev/null && test $(ulimit -Sn) = 200 && test $(ulimit -Hn) = 200");
        let mut running = limit.start(&home, OpenFiles::Only(200), true).unwrap();
        assert!(running.wait(Duration::from_millis(50)).is_err(), "its input is still open");
        running.pipes = None;
        running.wait(Duration::from_secs(10)).unwrap();

        let mut failing = program("exit 3").start(&home, OpenFiles::Usual, true).unwrap();
        assert!(failing.wait(Duration::from_secs(10)).is_err());
    }

    #[test]
    fn a_missing_program_is_named() {
        let program = Program { path: "/nowhere/bridge".into(), arguments: vec![] };
        let Err(error) = program.start(&std::env::temp_dir(), OpenFiles::Usual, false) else { panic!("it started") };
        assert!(error.to_string().contains("/nowhere/bridge"));
    }
}
