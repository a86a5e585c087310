//! Where the outcome of earlier runs is remembered.

use std::path::PathBuf;

use super::UsageError;

/// The variable that names the directory.
const VARIABLE: &str = "MCP_DRAWBRIDGE_STATE_DIR";

const NAME: &str = "mcp-drawbridge";

/// Systems that differ in where such files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Windows,
    MacOs,
    /// Linux and the rest: XDG Base Directory Specification, `XDG_STATE_HOME`.
    Unix,
}

impl Platform {
    /// The system that this program was built for.
    pub(super) const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Unix
    };

    fn is_absolute(self, path: &str) -> bool {
        match (self, path.as_bytes()) {
            (Self::Windows, [b'\\', b'\\', ..]) => true,
            (Self::Windows, [drive, b':', b'\\' | b'/', ..]) => drive.is_ascii_alphabetic(),
            (Self::Windows, _) => false,
            (Self::MacOs | Self::Unix, bytes) => bytes.starts_with(b"/"),
        }
    }
}

/// `None`: the environment names no home. The bridge works without, it only forgets.
pub(super) fn find(platform: Platform, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<PathBuf>, UsageError> {
    let set = |variable: &str| env(variable).filter(|value| !value.is_empty());
    // The XDG text has relative paths ignored; a relative home is as useless, for clients choose our directory.
    let absolute = |variable: &str| set(variable).filter(|value| platform.is_absolute(value)).map(PathBuf::from);

    if let Some(chosen) = set(VARIABLE) {
        if platform.is_absolute(&chosen) {
            return Ok(Some(PathBuf::from(chosen)));
        }
        return Err(UsageError::new(
            format!("{VARIABLE} is not a full path"),
            "Write it from the root on: clients start the bridge in a directory of their own.",
        ));
    }
    Ok(match platform {
        Platform::Windows => absolute("LOCALAPPDATA")
            .or_else(|| absolute("USERPROFILE").map(|home| home.join("AppData").join("Local")))
            .map(|base| base.join(NAME)),
        Platform::MacOs => absolute("HOME").map(|home| home.join("Library").join("Application Support").join(NAME)),
        Platform::Unix => absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")))
            .map(|base| base.join(NAME)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_platform_has_its_place() {
        use Platform::{MacOs, Unix, Windows};
        // Separators are those of the system that runs the test, so the parts are compared.
        type Case = (Platform, &'static [(&'static str, &'static str)], Option<&'static [&'static str]>);
        let table: [Case; 12] = [
            (Unix, &[("HOME", "/h")], Some(&["/h", ".local", "state", NAME])),
            (Unix, &[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], Some(&["/x", NAME])),
            (Unix, &[("HOME", "/h"), ("XDG_STATE_HOME", "x")], Some(&["/h", ".local", "state", NAME])),
            (Unix, &[("HOME", "/h"), ("XDG_STATE_HOME", "")], Some(&["/h", ".local", "state", NAME])),
            (Unix, &[("HOME", "h")], None),
            (Unix, &[], None),
            (Unix, &[(VARIABLE, "/s"), ("HOME", "/h")], Some(&["/s"])),
            (Unix, &[(VARIABLE, ""), ("HOME", "/h")], Some(&["/h", ".local", "state", NAME])),
            (MacOs, &[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], Some(&["/h", "Library", "Application Support", NAME])),
            (Windows, &[("LOCALAPPDATA", r"C:\l")], Some(&[r"C:\l", NAME])),
            (Windows, &[("USERPROFILE", r"C:\u")], Some(&[r"C:\u", "AppData", "Local", NAME])),
            (Windows, &[(VARIABLE, r"\\share\s")], Some(&[r"\\share\s"])),
        ];
        for (platform, variables, expected) in table {
            let env =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
            let expected = expected.map(|parts| parts.iter().collect::<PathBuf>());
            assert_eq!(find(platform, &env).unwrap(), expected, "{platform:?} {variables:?}");
        }
    }

    #[test]
    fn a_relative_choice_is_an_error() {
        for (platform, value) in [
            (Platform::Unix, "state"),
            (Platform::Unix, r"C:\state"),
            (Platform::MacOs, "~/state"),
            (Platform::Windows, "/state"),
            (Platform::Windows, "C:state"),
        ] {
            let env = |name: &str| (name == VARIABLE).then(|| value.to_owned());
            let error = find(platform, &env).unwrap_err();
            assert_eq!(error.message, "MCP_DRAWBRIDGE_STATE_DIR is not a full path");
        }
    }
}
