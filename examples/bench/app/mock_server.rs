//! The driver's handle on the mock server, which runs as a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::mock::Counts;
use super::process::{OpenFiles, Program, Running};

/// Longest wait for a bridge to open its GET stream.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// The mock server. It ends with this value.
pub(crate) struct MockServer {
    running: Running,
    /// Its stdin; it ends when that is closed.
    _stdin: std::os::fd::OwnedFd,
    control: BufReader<TcpStream>,
    port: u16,
}

impl MockServer {
    /// Starts `program`: this executable, as `mock`.
    pub(crate) fn start(program: &Program, scratch: &Path) -> Result<Self, Failure> {
        let mut running = program.start(scratch, OpenFiles::All, true)?;
        let (stdin, stdout) = running.pipes.take().ok_or_else(|| Failure::new("no pipes"))?;
        let mut line = String::new();
        BufReader::new(File::from(stdout)).read_line(&mut line)?;
        let mut ports = line.split_ascii_whitespace().filter_map(|word| word.parse::<u16>().ok());
        let (Some(port), Some(control)) = (ports.next(), ports.next()) else {
            return Err(Failure::new("the mock server did not start"));
        };
        let control = TcpStream::connect((Ipv4Addr::LOCALHOST, control))?;
        Ok(Self { running, _stdin: stdin, control: BufReader::new(control), port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// What was counted since the last reset.
    pub(crate) fn counts(&mut self) -> Result<Counts, Failure> {
        self.ask("counts\n")
    }

    pub(crate) fn reset(&mut self) -> Result<(), Failure> {
        self.ask("reset\n").map(|_| ())
    }

    /// Waits until a session has its GET stream; the counts must have been reset before it was opened.
    pub(crate) fn wait_for_stream(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + STREAM_PATIENCE;
        while self.counts()?.streams == 0 {
            if Instant::now() > end {
                return Err(Failure::new("no GET stream was opened"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn ask(&mut self, word: &str) -> Result<Counts, Failure> {
        self.control.get_mut().write_all(word.as_bytes())?;
        let mut line = String::new();
        self.control.read_line(&mut line)?;
        Counts::from_line(&line).ok_or_else(|| Failure::new("the mock server is gone"))
    }
}
