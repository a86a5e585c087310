//! Opening the user's browser (H1): one program found by an absolute path, one URL as one argument, never a shell.
//!
//! What may be opened is a [`BrowserUrl`]; which program opens it, or why none can, is a [`Plan`], made by a pure function. Only
//! [`open`] starts anything. The URL is to be shown to the user as well, always: a browser that starts may still not show it.

mod plan;
mod url;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use plan::may_run;
pub use plan::{Launch, Os, PASTE, Plan, Surroundings, Why, plan};
pub use url::{BrowserUrl, OURS};

/// How long a program may take to say that it failed. One that still runs then is taken for the browser itself.
const SETTLE: Duration = Duration::from_secs(3);

/// What became of opening the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A program took the URL. Whether it shows it, nobody can tell.
    Opened {
        /// The program.
        program: PathBuf,
    },
    /// No browser of this user can be opened from here.
    NotPossible {
        /// The reason.
        why: Why,
        /// What to do instead, for a person.
        advice: String,
    },
    /// Every program failed.
    Failed {
        /// Each with its error, for the log.
        tried: Vec<String>,
        /// What to do instead, for a person.
        advice: String,
    },
}

/// Looks around in this process's environment. `port` is the callback's, for the advice.
pub fn plan_here(port: u16) -> Plan {
    plan(&Surroundings {
        os: Os::here(),
        var: &|name| std::env::var(name).ok(),
        find: &find,
        container: ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists()),
        port,
    })
}

/// What to do where no browser can be opened from here; else nothing. For a tab that another process has opened, or tried to.
pub fn advice_here(port: u16) -> String {
    match plan_here(port) {
        Plan::NotPossible { advice, .. } => advice,
        Plan::Launch { .. } => String::new(),
    }
}

/// Starts the first program of the plan that does not fail. Reaps what it starts.
pub async fn open(url: &BrowserUrl, plan: &Plan) -> Outcome {
    let (launches, advice) = match plan {
        Plan::Launch { launches, advice } => (launches, advice),
        Plan::NotPossible { why, advice } => return Outcome::NotPossible { why: *why, advice: advice.clone() },
    };
    let mut tried = Vec::new();
    for launch in launches {
        let program = launch.program.display();
        match start(launch, url) {
            Err(error) => tried.push(format!("{program}: {error}")),
            Ok(ended) => match timeout(SETTLE, ended).await {
                Ok(Ok(Ok(status))) if !status.success() => tried.push(format!("{program}: {status}")),
                Ok(Ok(Err(error))) => tried.push(format!("{program}: {error}")),
                _ => return Outcome::Opened { program: launch.program.clone() },
            },
        }
    }
    Outcome::Failed { tried, advice: advice.clone() }
}

/// An executable file by its name or absolute path; never one of the current directory, also where `PATH` has `.` in it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    // A name with a separator would be looked for below each directory of PATH.
    if !Path::new(name).is_absolute() && name.contains(std::path::is_separator) {
        return None;
    }
    which::which_all_global(name).ok()?.find(|path| path.is_absolute())
}

#[expect(clippy::disallowed_methods, reason = "the one program that a server's word starts")]
fn start(launch: &Launch, url: &BrowserUrl) -> io::Result<oneshot::Receiver<io::Result<ExitStatus>>> {
    let mut command = Command::new(&launch.program);
    command.args(launch.before).arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    isolate(&mut command);
    let mut child: Child = command.spawn()?;
    let (sender, ended) = oneshot::channel();
    // A browser may run for days; the thread only sleeps, and does not hold up our exit.
    thread::Builder::new().name("browser".to_owned()).stack_size(64 * 1024).spawn(move || {
        let _ = sender.send(child.wait());
    })?;
    Ok(ended)
}

/// A child gets no secret of ours by its environment, and is not ended by what ends us.
pub(crate) fn isolate(command: &mut Command) {
    command.env_clear().envs(std::env::vars_os().filter(|(name, value)| passes(name, value)));
    apart(command);
}

/// The browser is the user's, not ours: what ends us, or our terminal's Ctrl-C, must not close it. It keeps no directory busy.
fn apart(command: &mut Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        command.process_group(0).current_dir("/");
    }
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt as _;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        command.creation_flags(CREATE_NO_WINDOW);
    }
}

/// What a browser needs to start in the user's session. The rest of our environment stays here: hosts put keys into it.
#[rustfmt::skip]
const PASSED: &[&str] = &[
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DESKTOP_SESSION",
    "DBUS_SESSION_BUS_ADDRESS", "GNOME_DESKTOP_SESSION_ID", "KDE_FULL_SESSION", "KDE_SESSION_VERSION", "MOZ_ENABLE_WAYLAND", "LD_LIBRARY_PATH",
    "WSL_DISTRO_NAME", "WSL_INTEROP", "WSLENV", "VSCODE_IPC_HOOK_CLI", "REMOTE_CONTAINERS_IPC",
    "SystemRoot", "SystemDrive", "windir", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles", "ProgramFiles(x86)",
    "ProgramW6432", "CommonProgramFiles", "TEMP", "TMP", "USERNAME", "USERDOMAIN", "HOMEDRIVE", "HOMEPATH", "PATHEXT", "COMSPEC",
];
/// Families of names that are passed.
const PASSED_PREFIXES: &[&str] = &["XDG_", "LC_"];
/// Passed without a password in it only.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

fn passes(name: &OsString, value: &OsString) -> bool {
    let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return false };
    let is = |known: &&str| if cfg!(windows) { known.eq_ignore_ascii_case(name) } else { *known == name };
    let proxy = PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name)) && !value.contains('@');
    proxy || PASSED.iter().any(is) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_here() {
        let passes = |name: &str, value: &str| passes(&name.into(), &value.into());
        for name in ["HOME", "PATH", "DISPLAY", "XDG_RUNTIME_DIR", "LC_ALL", "SystemRoot"] {
            assert!(passes(name, "x"), "{name}");
        }
        for name in
            ["API_KEY", "MCP_TOKEN", "BROWSER", "SSH_AUTH_SOCK", "LD_PRELOAD", "VSCODE_GIT_IPC_AUTH_TOKEN", "home"]
        {
            assert!(!passes(name, "x") || cfg!(windows), "{name}");
        }
        assert!(passes("HTTPS_PROXY", "http://proxy:3128") && passes("no_proxy", "localhost"));
        assert!(!passes("https_proxy", "http://user:password@proxy:3128"));
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_found_by_absolute_path() {
        assert_eq!(find("/bin/sh"), Some("/bin/sh".into()));
        assert!(find("sh").unwrap().is_absolute());
        for name in ["./Cargo.toml", "bin/sh", "../bin/sh", "no-such-program-anywhere", "", "/etc/passwd", "/bin"] {
            assert_eq!(find(name), None, "{name}");
        }
    }
}
