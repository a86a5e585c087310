//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Failure;
use super::metrics::Case;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Usage: scripts/bench [options]

Measures the bridge beside a direct HTTP client and beside mcp-remote, all in turn in every round.

  --bridge [LABEL=]PATH  program under test; several are compared with each other
                         (default target/release/mcp-drawbridge, built first)
  --mcp-remote PATH      mcp-remote's dist/proxy.js (default: $MCP_REMOTE, then the one in tests/peers)
  --no-mcp-remote        leave mcp-remote out
  --quick                under a minute; leaves mcp-remote out unless --mcp-remote or $MCP_REMOTE names it
  --rounds N             rounds (default 5, quick 2)
  --peer-rounds N        rounds for mcp-remote (default 2, quick 1)
  --only CASE[,CASE]     only these cases: start calls pinned flood64 flood512 flood4096 few_files one_cpu
                         json sse request burst push ticks beside eras idle syscalls
  --check FILE           exit 1 when a measure is outside the budget in FILE
  --json FILE            write all values to FILE
  --markdown FILE        write the table to FILE, as docs/performance.md has it
  --stderr               show what the programs under test write to stderr
  --help                 this text
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Args {
    /// Label and path.
    pub(crate) bridges: Vec<(Option<String>, PathBuf)>,
    pub(crate) mcp_remote: Option<PathBuf>,
    pub(crate) no_mcp_remote: bool,
    pub(crate) quick: bool,
    pub(crate) rounds: Option<usize>,
    pub(crate) peer_rounds: Option<usize>,
    /// Empty: all.
    pub(crate) only: Vec<Case>,
    pub(crate) check: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
    pub(crate) show_errors: bool,
    pub(crate) help: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut args = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let name = argument.to_string_lossy().into_owned();
            let mut value = || arguments.next().ok_or_else(|| Failure::new(format!("{name} needs a value")));
            match name.as_str() {
                "--bridge" => args.bridges.push(labelled(&value()?)),
                "--mcp-remote" => args.mcp_remote = Some(value()?.into()),
                "--no-mcp-remote" => args.no_mcp_remote = true,
                "--quick" => args.quick = true,
                "--rounds" => args.rounds = Some(count(&name, &value()?)?),
                "--peer-rounds" => args.peer_rounds = Some(count(&name, &value()?)?),
                "--only" => args.only = cases(&value()?.to_string_lossy())?,
                "--check" => args.check = Some(value()?.into()),
                "--json" => args.json = Some(value()?.into()),
                "--markdown" => args.markdown = Some(value()?.into()),
                "--stderr" => args.show_errors = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(Failure::new(format!("unknown argument {name}; --help lists all"))),
            }
        }
        Ok(args)
    }
}

/// `LABEL=PATH` or `PATH`. A label has no slash, so a path with `=` in a directory's name stays one.
fn labelled(value: &OsString) -> (Option<String>, PathBuf) {
    match value.to_str().and_then(|text| text.split_once('=')) {
        Some((label, path)) if !label.contains('/') => (Some(label.to_owned()), path.into()),
        _ => (None, value.into()),
    }
}

fn count(name: &str, value: &OsString) -> Result<usize, Failure> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|&count| count > 0)
        .ok_or_else(|| Failure::new(format!("{name} needs a number above 0")))
}

fn cases(names: &str) -> Result<Vec<Case>, Failure> {
    let known = |name: &str| Case::from_name(name.trim()).ok_or_else(|| Failure::new(format!("no case {name}")));
    names.split(',').map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Failure> {
        Args::parse(line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn all_arguments() {
        let args =
            parse("--bridge old=/a/b --bridge /c=d/e --mcp-remote /m --quick --rounds 3 --only calls,burst").unwrap();
        assert_eq!(args.bridges, [(Some("old".to_owned()), "/a/b".into()), (None, "/c=d/e".into())]);
        assert_eq!(args.only, [Case::Calls, Case::Burst]);
        assert!(args.quick && args.rounds == Some(3) && args.peer_rounds.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("--bridges x", "--bridges"),
            ("--rounds 0", "--rounds"),
            ("--rounds x", "--rounds"),
            ("--only nothing", "nothing"),
            ("--check", "--check"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(word), "{line}");
        }
    }

    #[test]
    fn help_names_every_case() {
        for (_, name) in Case::ALL {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
