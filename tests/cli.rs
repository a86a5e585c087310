//! Runs the real program once for each file in `tests/cli` and compares what it prints.
//!
//! A case is a text: first why it is there, then sections. `== args` (one a line), `== env` (NAME=value a line; nothing
//! else is set), `== file NAME` (put into the working directory), `== stdin`, `== status`, `== stdout`, `== stderr`,
//! `== never` (texts that neither output may hold, one a line). `[VERSION]` stands for the version, `[ESC]` for the
//! control character.
//! `UPDATE=1 cargo test --test cli` writes what was printed into the cases: read the difference before committing it.

// Helpers of a test may panic like the test itself.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here waits for a network.
const PATIENCE: Duration = Duration::from_secs(20);

struct Case {
    path: PathBuf,
    reason: String,
    sections: Vec<(String, String)>,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
        let text = text.replace("[ESC]", "\x1b");
        let mut parts = text.split("\n== ");
        let reason = parts.next().unwrap().to_owned();
        let sections: Vec<(String, String)> = parts
            .map(|part| {
                let (name, body) = part.split_once('\n').unwrap_or((part, ""));
                // The split took the last line end of all sections but the last.
                let body = if body.is_empty() || body.ends_with('\n') { body.to_owned() } else { format!("{body}\n") };
                (name.to_owned(), body)
            })
            .collect();
        for (name, _) in &sections {
            let known = ["args", "env", "stdin", "status", "stdout", "stderr", "never"].contains(&name.as_str());
            assert!(known || name.starts_with("file "), "{}: section {name}", path.display());
        }
        assert!(!reason.trim().is_empty(), "{}: say why the case is there", path.display());
        Self { path, reason, sections }
    }

    fn get(&self, name: &str) -> &str {
        self.sections.iter().find(|(other, _)| other == name).map_or("", |(_, body)| body)
    }

    /// Runs the program and returns status, stdout and stderr.
    fn run(&self) -> [String; 3] {
        let directory = std::env::temp_dir().join(format!(
            "mcp-drawbridge-cli-{}-{}",
            std::process::id(),
            self.path.file_stem().unwrap().display()
        ));
        fs::create_dir_all(&directory).unwrap();
        for (name, body) in &self.sections {
            if let Some(name) = name.strip_prefix("file ") {
                fs::write(directory.join(name), body).unwrap();
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-drawbridge"));
        command.args(self.get("args").lines()).current_dir(&directory).env_clear();
        // Windows programs do not start without it.
        command.envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)));
        command.envs(self.get("env").lines().map(|line| line.split_once('=').unwrap()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that does not read its stdin may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(self.get("stdin").as_bytes());
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let status = output.status.code().map_or("killed\n".to_owned(), |code| format!("{code}\n"));
        [status.into_bytes(), output.stdout, output.stderr]
            .map(|text| String::from_utf8(text).unwrap().replace(env!("CARGO_PKG_VERSION"), "[VERSION]"))
    }

    fn update(&mut self, name: &str, printed: &str) {
        match self.sections.iter_mut().find(|(other, _)| other == name) {
            Some((_, body)) => printed.clone_into(body),
            None => self.sections.push((name.to_owned(), printed.to_owned())),
        }
        let mut text = self.reason.clone();
        for (name, body) in &self.sections {
            let body = body.strip_suffix('\n').unwrap_or(body);
            text.extend(["\n== ", name, "\n", body]);
        }
        fs::write(&self.path, text.replace('\x1b', "[ESC]") + "\n").unwrap();
    }
}

#[test]
fn cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("cli");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 10, "the cases are missing");
    let update = std::env::var_os("UPDATE").is_some();
    let mut failures = Vec::new();
    for path in paths {
        let mut case = Case::read(path);
        let printed = case.run();
        for text in case.get("never").lines() {
            assert!(!printed.concat().contains(text), "{}: printed {text}", case.path.display());
        }
        for (name, printed) in ["status", "stdout", "stderr"].into_iter().zip(printed) {
            let expected = case.get(name).to_owned();
            if printed != expected && update {
                case.update(name, &printed);
            } else if printed != expected {
                let path = case.path.display();
                failures.push(format!("{path}: {name}\n--- expected\n{expected}--- printed\n{printed}\n"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
