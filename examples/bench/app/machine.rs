//! The description of the machine, without which figures mean little.

use std::fs;
use std::process::{Command, Stdio};

use super::process::Program;

/// Longest version line that is shown, in bytes.
const MAX_VERSION: usize = 60;

/// One line: processor, memory, system.
pub(crate) fn describe(cpus: usize) -> String {
    let cpu = first_field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = first_field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib >> 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cpus} CPUs ({cpu}), {memory} GiB, Linux {kernel}")
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

/// What a program says of its version, when it says anything.
pub(crate) fn version(program: &Program) -> Option<String> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (!line.is_empty() && line.len() <= MAX_VERSION).then_some(line)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The value of the first line `name : value`.
fn first_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}
