//! Which program opens the browser, or why none can and what to do then. Pure: the surroundings come as values.

use std::net::IpAddr;
use std::path::PathBuf;

/// Programs of one `$BROWSER` that are looked at.
const MAX_CHOICES: usize = 8;

/// Where the last page's address can be pasted, as the advice has it.
pub const PASTE: &str = "into the tool `sign_in` or into `mcp-drawbridge login URL --paste`";

/// What makes Windows' rundll32 hand a URL to the browser.
const URL_DLL: &[&str] = &["url.dll,FileProtocolHandler"];

/// Operating systems that differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    /// Linux, also under WSL, and the BSDs.
    Linux,
    /// macOS.
    Macos,
    /// Windows.
    Windows,
}

impl Os {
    /// The one this program was built for.
    pub fn here() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::Macos
        } else {
            Self::Linux
        }
    }
}

/// What the decision needs to know.
pub struct Surroundings<'a> {
    /// System.
    pub os: Os,
    /// An environment variable.
    pub var: &'a dyn Fn(&str) -> Option<String>,
    /// An executable file by its name on `PATH` or by its absolute path; the result is absolute.
    pub find: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// Whether this is the inside of a container.
    pub container: bool,
    /// The callback's port, for the advice.
    pub port: u16,
}

/// A program, and the arguments before the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments before the URL, which is the last one.
    pub before: &'static [&'static str],
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Try these, in this order.
    Launch {
        /// At least one.
        launches: Vec<Launch>,
        /// What to do when all fail, for a person.
        advice: String,
    },
    /// Start nothing.
    NotPossible {
        /// The reason.
        why: Why,
        /// What to do instead, for a person.
        advice: String,
    },
}

/// Why no browser can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An SSH session: the user sits at another computer.
    Ssh,
    /// The inside of a container.
    Container,
    /// No graphical session.
    NoDisplay,
    /// Nothing installed that opens URLs.
    NoProgram,
}

/// Decides.
///
/// `$BROWSER` comes first, also over SSH: editors with remote sessions set it to a program that opens the browser at the user's
/// own computer. It is one program that gets one argument. Of the field's habits, a list with colons is taken apart (each
/// entry a program, the first that works is used) and a last word `%s` is dropped; an entry with further words would
/// need the rules of some shell, so it is passed over and the system's own program is used.
pub fn plan(around: &Surroundings<'_>) -> Plan {
    let mut launches = chosen(around);
    let why = match own(around) {
        Ok(own) => {
            launches.extend(own);
            Why::NoProgram
        }
        Err(why) => why,
    };
    let advice = advice(why, around);
    if launches.is_empty() { Plan::NotPossible { why, advice } } else { Plan::Launch { launches, advice } }
}

/// The programs of `$BROWSER`.
fn chosen(around: &Surroundings<'_>) -> Vec<Launch> {
    let Some(value) = set(around, "BROWSER") else { return Vec::new() };
    // A Windows path has a colon of its own.
    let entries: Vec<&str> = if around.os == Os::Windows { vec![&*value] } else { value.split(':').collect() };
    let programs = entries.into_iter().take(MAX_CHOICES).filter_map(|entry| {
        let entry = entry.trim();
        let entry = entry.strip_suffix("%s").filter(|rest| rest.ends_with(' ')).unwrap_or(entry).trim_end();
        let entry = entry.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(entry);
        let windows = around.os == Os::Windows;
        let named = !entry.contains(|c| c == '/' || (windows && (c == '\\' || c == ':')));
        if entry.is_empty() || entry.contains('%') || !(named || is_absolute(entry, around.os)) {
            return None;
        }
        (around.find)(entry).filter(|program| may_run(program, around.os))
    });
    programs.map(|program| Launch { program, before: &[] }).collect()
}

/// The system's programs, or why they are of no use.
fn own(around: &Surroundings<'_>) -> Result<Vec<Launch>, Why> {
    let ssh = ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"].iter().any(|name| set(around, name).is_some());
    let display = set(around, "DISPLAY").is_some() || set(around, "WAYLAND_DISPLAY").is_some();
    let wsl = ["WSL_DISTRO_NAME", "WSL_INTEROP"].iter().any(|name| set(around, name).is_some());
    let root = system_root(around);
    let rundll32 = format!("{root}\\System32\\rundll32.exe");
    let programs: &[(&str, &'static [&'static str])] = match around.os {
        Os::Macos | Os::Windows if ssh => return Err(Why::Ssh),
        Os::Macos => &[("/usr/bin/open", &[])],
        Os::Windows => &[(&rundll32, URL_DLL)],
        Os::Linux if wsl && !ssh => &[
            ("wslview", &[]),
            ("/mnt/c/Windows/System32/rundll32.exe", URL_DLL),
            ("xdg-open", &[]),
            ("gio", &["open"]),
        ],
        Os::Linux if display => &[("xdg-open", &[]), ("gio", &["open"])],
        Os::Linux if ssh => return Err(Why::Ssh),
        Os::Linux if around.container || set(around, "container").is_some() => return Err(Why::Container),
        Os::Linux => return Err(Why::NoDisplay),
    };
    let found = programs.iter().filter_map(|(name, before)| {
        // Without a display these two would look for a browser of the text terminal.
        let needs_display = matches!(*name, "xdg-open" | "gio");
        let program = (around.find)(name).filter(|_| display || !needs_display)?;
        Some(Launch { program, before })
    });
    Ok(found.filter(|launch| may_run(&launch.program, around.os)).collect())
}

/// A variable that is there and not empty.
fn set(around: &Surroundings<'_>, name: &str) -> Option<String> {
    (around.var)(name).filter(|value| !value.trim().is_empty())
}

fn is_absolute(path: &str, os: Os) -> bool {
    match os {
        Os::Windows => is_drive_path(path),
        Os::Linux | Os::Macos => path.starts_with('/'),
    }
}

/// `C:\...`, without characters that a path cannot have.
fn is_drive_path(path: &str) -> bool {
    let mut characters = path.chars();
    let drive = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    drive && path.get(1..3) == Some(":\\") && !path.contains(['"', '%', '<', '>', '|', '*', '?'])
}

fn system_root(around: &Surroundings<'_>) -> String {
    let root = set(around, "SystemRoot").filter(|root| is_drive_path(root));
    root.map_or_else(|| "C:\\Windows".to_owned(), |root| root.trim_end_matches('\\').to_owned())
}

/// `cmd.exe` runs batch files, and reads their arguments as commands (CVE-2024-24576); Windows runs programs alone.
pub(crate) fn may_run(program: &std::path::Path, os: Os) -> bool {
    let name = program.to_string_lossy().to_ascii_lowercase();
    let name = name.trim_end_matches(['.', ' ']);
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    !ends(&[".bat", ".cmd"]) && (os != Os::Windows || ends(&[".exe"]))
}

/// What to do without a browser here.
fn advice(why: Why, around: &Surroundings<'_>) -> String {
    let port = around.port;
    let paste = format!(
        "Open the address in any browser and sign in. At the end the browser cannot show the page: copy its address and paste \
         it {PASTE}."
    );
    let forward = |host: &str| {
        format!(
            "Or run `ssh -L {port}:127.0.0.1:{port} {host}` on your own computer first; then the page at the end is shown."
        )
    };
    match why {
        Why::Ssh => format!(
            "This is an SSH session, so the browser is at your own computer. {paste} {}",
            forward(&ssh_host(around))
        ),
        Why::Container => format!("This is a container without a browser. {paste}"),
        Why::NoDisplay => {
            format!("There is no graphical session here. {paste} {}", forward("THIS-COMPUTER"))
        }
        Why::NoProgram => {
            let install = match around.os {
                Os::Linux => "Install xdg-utils, or set BROWSER to the program of a browser, and this goes by itself.",
                Os::Macos | Os::Windows => "Set BROWSER to the program of a browser, and this goes by itself.",
            };
            format!("No browser could be opened. {paste} {install}")
        }
    }
}

/// This computer as the user's SSH reached it: the third word of `SSH_CONNECTION`.
fn ssh_host(around: &Surroundings<'_>) -> String {
    let connection = set(around, "SSH_CONNECTION").unwrap_or_default();
    let address = connection.split(' ').nth(2).and_then(|word| word.parse::<IpAddr>().ok());
    address.map_or_else(|| "THIS-COMPUTER".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The programs of the plan in short, or the reason.
    fn decide(os: Os, vars: &[(&str, &str)], installed: &[&str], container: bool) -> Result<Vec<String>, Why> {
        match whole(os, vars, installed, container) {
            Plan::Launch { launches, .. } => Ok(launches
                .iter()
                .map(|launch| {
                    let program = launch.program.to_str().unwrap().to_owned();
                    launch.before.iter().fold(program, |text, argument| text + " " + argument)
                })
                .collect()),
            Plan::NotPossible { why, .. } => Err(why),
        }
    }

    fn whole(os: Os, vars: &[(&str, &str)], installed: &[&str], container: bool) -> Plan {
        plan(&Surroundings {
            os,
            var: &|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            find: &|name| {
                let is = |path: &&&str| **path == name || path.rsplit(['/', '\\']).next() == Some(name);
                installed.iter().find(is).map(PathBuf::from)
            },
            container,
            port: 3335,
        })
    }

    const XDG: &str = "/usr/bin/xdg-open";
    const GIO: &str = "/usr/bin/gio";
    const FIREFOX: &str = "/usr/bin/firefox";
    const WSLVIEW: &str = "/usr/bin/wslview";
    const WSL_DLL: &str = "/mnt/c/Windows/System32/rundll32.exe";
    const OPEN: &str = "/usr/bin/open";
    const DLL: &str = "C:\\Windows\\System32\\rundll32.exe";

    /// System, variables, what is installed, whether in a container; the programs or the reason.
    type Row<'a> = (Os, &'a [(&'a str, &'a str)], &'a [&'a str], bool, Result<Vec<&'a str>, Why>);

    #[test]
    fn each_system() {
        use Os::{Linux, Macos, Windows};
        let gio = format!("{GIO} open");
        let dll = format!("{DLL} url.dll,FileProtocolHandler");
        let wsl_dll = format!("{WSL_DLL} url.dll,FileProtocolHandler");
        let display: &[(&str, &str)] = &[("DISPLAY", ":0")];
        let ssh: &[(&str, &str)] = &[("SSH_CONNECTION", "192.0.2.1 5 203.0.113.9 22")];
        #[rustfmt::skip]
        let table: &[Row] = &[
            (Linux, display, &[XDG, GIO], false, Ok(vec![XDG, &gio])),
            (Linux, &[("WAYLAND_DISPLAY", "wayland-0")], &[GIO], false, Ok(vec![&gio])),
            (Linux, display, &[], false, Err(Why::NoProgram)),
            (Linux, display, &[XDG], true, Ok(vec![XDG])),
            (Linux, &[], &[XDG], false, Err(Why::NoDisplay)),
            (Linux, &[("DISPLAY", "")], &[XDG], false, Err(Why::NoDisplay)),
            (Linux, &[], &[XDG], true, Err(Why::Container)),
            (Linux, &[("container", "podman")], &[XDG], false, Err(Why::Container)),
            (Linux, ssh, &[XDG], false, Err(Why::Ssh)),
            (Linux, &[("SSH_TTY", "/dev/pts/1")], &[XDG], true, Err(Why::Ssh)),
            (Linux, &[("SSH_CONNECTION", "x"), ("DISPLAY", "localhost:10.0")], &[XDG], false, Ok(vec![XDG])),
            (Linux, &[("WSL_DISTRO_NAME", "Debian")], &[WSLVIEW, WSL_DLL, XDG], false, Ok(vec![WSLVIEW, &wsl_dll])),
            (Linux, &[("WSL_INTEROP", "/run/x"), ("DISPLAY", ":0")], &[WSL_DLL, XDG], false, Ok(vec![&wsl_dll, XDG])),
            (Linux, &[("WSL_INTEROP", "/run/x")], &[XDG], false, Err(Why::NoProgram)),
            (Macos, &[], &[OPEN], false, Ok(vec![OPEN])),
            (Macos, &[], &["/opt/bin/open"], false, Err(Why::NoProgram)),
            (Macos, ssh, &[OPEN], false, Err(Why::Ssh)),
            (Windows, &[("SystemRoot", "C:\\Windows")], &[DLL], false, Ok(vec![&dll])),
            (Windows, &[], &[DLL], false, Ok(vec![&dll])),
            (Windows, &[("SystemRoot", "..\\evil")], &[DLL], false, Ok(vec![&dll])),
            (Windows, &[("SystemRoot", "\\\\evil\\share")], &[DLL], false, Ok(vec![&dll])),
            (Windows, &[("SystemRoot", "D:\\Win\\")], &["D:\\Win\\System32\\rundll32.exe"], false,
                Ok(vec!["D:\\Win\\System32\\rundll32.exe url.dll,FileProtocolHandler"])),
            (Windows, ssh, &[DLL], false, Err(Why::Ssh)),
        ];
        for (os, vars, installed, container, want) in table {
            let want = want.clone().map(|programs| programs.into_iter().map(str::to_owned).collect());
            assert_eq!(decide(*os, vars, installed, *container), want, "{os:?} {vars:?} {installed:?}");
        }
    }

    #[test]
    fn the_users_own_choice() {
        let linux = |value: &str| {
            let vars = [("BROWSER", value), ("DISPLAY", ":0")];
            decide(Os::Linux, &vars, &[XDG, FIREFOX, "/opt/my browser/run", "/opt/x.cmd", "/opt/y.BAT"], false).unwrap()
        };
        #[rustfmt::skip]
        let table: &[(&str, &[&str])] = &[
            ("firefox", &[FIREFOX, XDG]), (FIREFOX, &[FIREFOX, XDG]), ("firefox %s", &[FIREFOX, XDG]),
            ("nothere:firefox", &[FIREFOX, XDG]), ("firefox:xdg-open", &[FIREFOX, XDG, XDG]),
            ("/opt/my browser/run", &["/opt/my browser/run", XDG]), ("\"/opt/my browser/run\" %s", &["/opt/my browser/run", XDG]),
            ("", &[XDG]), ("  ", &[XDG]), (":::", &[XDG]), ("%s", &[XDG]), ("nothere", &[XDG]),
            ("firefox --new-window %s", &[XDG]), ("firefox%s", &[XDG]), ("sh -c 'evil %s'", &[XDG]), ("firefox; evil", &[XDG]),
            ("./firefox", &[XDG]), ("bin/firefox", &[XDG]), ("/opt/x.cmd", &[XDG]), ("/opt/y.BAT", &[XDG]),
        ];
        for (value, want) in table {
            assert_eq!(linux(value), *want, "{value}");
        }
        let many = "firefox:".repeat(MAX_CHOICES + 5);
        assert_eq!(linux(&many).len(), MAX_CHOICES + 1);
    }

    #[test]
    fn the_users_own_choice_on_windows() {
        let chrome = "C:\\Program Files\\Google\\chrome.exe";
        let own = format!("{DLL} url.dll,FileProtocolHandler");
        let windows = |value: &str| {
            let installed = [DLL, chrome, "C:\\x.bat", "C:\\x.cmd. ", "C:\\x.ps1"];
            decide(Os::Windows, &[("BROWSER", value)], &installed, false).unwrap()
        };
        for value in [chrome, "chrome.exe", &format!("\"{chrome}\" %s")] {
            assert_eq!(windows(value), [chrome, own.as_str()], "{value}");
        }
        for value in [
            "C:\\x.bat",
            "C:\\x.cmd. ",
            "C:\\x.ps1",
            "x.bat",
            "..\\chrome.exe",
            "\\chrome.exe",
            "C:chrome.exe",
            "Google/chrome.exe",
        ] {
            assert_eq!(windows(value), [own.as_str()], "{value}");
        }
    }

    #[test]
    fn the_choice_counts_where_the_system_has_none() {
        // Editors with remote sessions set BROWSER to a helper that opens the browser at the user's side.
        let vars = [("BROWSER", "/vscode/helper.sh"), ("SSH_CONNECTION", "a b c d")];
        assert_eq!(
            decide(Os::Linux, &vars, &["/vscode/helper.sh", XDG], false),
            Ok(vec!["/vscode/helper.sh".to_owned()])
        );
    }

    #[test]
    fn advice_says_what_to_do() {
        let advice = |vars: &[(&str, &str)], container| match whole(Os::Linux, vars, &[], container) {
            Plan::Launch { advice, .. } | Plan::NotPossible { advice, .. } => advice,
        };
        let ssh = advice(&[("SSH_CONNECTION", "192.0.2.1 50000 203.0.113.9 22")], false);
        assert!(ssh.contains("`ssh -L 3335:127.0.0.1:3335 203.0.113.9`") && ssh.contains("login URL --paste"), "{ssh}");
        let odd = advice(&[("SSH_CONNECTION", "a b $(evil) d")], false);
        assert!(odd.contains("3335:127.0.0.1:3335 THIS-COMPUTER`"), "{odd}");
        assert!(advice(&[], true).contains("container"));
        assert!(advice(&[], false).contains("no graphical session"));
        assert!(advice(&[("DISPLAY", ":0")], false).contains("Install xdg-utils"));
    }
}
