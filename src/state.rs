//! What one run remembers for the next (S2): how a server was reached and what it answered to `initialize`. No secrets.
//!
//! One small file a server in `<state directory>/servers`. It may be lost or stale at any time; then it is made anew.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::session::Memory;

/// Bytes of a file that is read.
const MAX_FILE: u64 = 1 << 20;

/// The place for one server.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    server: String,
    memory: Memory,
}

const FORMAT: u32 = 1;

impl StateFile {
    /// The file for a server. `variant` tells apart what may be answered differently: the names of the user's headers.
    pub fn new(directory: &Path, server: &Url, variant: &str) -> Self {
        let key = format!(
            "{}{} {:016x}",
            server.host_str().unwrap_or_default(),
            server.path(),
            fnv1a(&format!("{server} {variant}"))
        );
        let name = format!("{:016x}.json", fnv1a(&key));
        Self { path: directory.join("servers").join(name), key }
    }

    /// What an earlier run left; `None` if there is nothing usable.
    pub fn load(&self) -> Option<Memory> {
        let file = fs::File::open(&self.path).ok()?;
        let text = io::read_to_string(io::Read::take(file, MAX_FILE)).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        (stored.format == FORMAT && stored.server == self.key).then_some(stored.memory)
    }

    /// Keeps it, atomically: a reader sees the old file or the new one.
    pub fn save(&self, memory: &Memory) -> io::Result<()> {
        let directory = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        create_private_directory(directory)?;
        let stored = Stored { format: FORMAT, server: self.key.clone(), memory: memory.clone() };
        let text = serde_json::to_string(&stored)?;
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let written = private_file(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
        let moved = written.and_then(|()| fs::rename(&temporary, &self.path));
        if moved.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        moved
    }
}

/// Only the user may look inside (H5), whatever the umask.
fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// FNV-1a, 64 bit: names files, protects nothing.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Remembered;

    #[test]
    fn what_is_kept_comes_back_and_is_private() {
        let directory = std::env::temp_dir().join(format!("drawbridge-state-{}", std::process::id()));
        let url = Url::parse("https://example.com/mcp?key=secret").expect("URL");
        let file = StateFile::new(&directory, &url, "");
        assert_eq!(file.load(), None);
        let memory = Memory {
            transport: Remembered::HttpSse,
            requested: "2025-11-25".into(),
            result: "{\"a\":1e400}".into(),
            refuses: None,
        };
        file.save(&memory).expect("saved");
        file.save(&memory).expect("saved again");
        assert_eq!(file.load(), Some(memory));
        assert_eq!(StateFile::new(&directory, &url, "authorization").load(), None, "other headers, other answer");
        let text = fs::read_to_string(&file.path).expect("there");
        assert!(!text.contains("secret"), "a query may hold a secret");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!((mode(&file.path), mode(&directory.join("servers"))), (0o600, 0o700));
        }
        fs::write(&file.path, "{broken").expect("written");
        assert_eq!(file.load(), None, "a broken file is no file");
        fs::remove_dir_all(directory).expect("removed");
    }
}
