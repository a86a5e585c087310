//! A bridge's stdin and stdout, without threads and without blocking.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};

use super::{Link, Waited};
use crate::app::Failure;
use crate::app::clock::timespec;

/// Room for one read; a pipe holds 64 KiB.
const READ: usize = 64 * 1024;

/// The driver's ends of the two pipes.
pub(crate) struct Stdio {
    /// Nothing once the session has ended.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// Bytes at the start of `input` that hold no newline.
    searched: usize,
}

impl Stdio {
    /// Takes the ends of the pipes of a child process.
    pub(crate) fn new(stdin: OwnedFd, stdout: OwnedFd) -> Result<Self, Failure> {
        // Each end of a pipe has its own flags, so the child's ends stay as they are.
        ioctl_fionbio(&stdin, true)?;
        ioctl_fionbio(&stdout, true)?;
        Ok(Self {
            stdin: Some(stdin),
            stdout,
            output: Vec::new(),
            written: 0,
            input: Vec::with_capacity(READ),
            searched: 0,
        })
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let Some(stdin) = &self.stdin else { return Err(Failure::new("its stdin is closed")) };
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match write(stdin, rest) {
                Ok(n) => self.written += n,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Failure::new(format!("cannot write to its stdin: {error}"))),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Gives the whole lines of the input to `sink`.
    fn deliver(&mut self, sink: &mut dyn FnMut(&[u8])) {
        let mut start = 0;
        while let Some(end) = memchr::memchr(b'\n', self.input.get(start + self.searched..).unwrap_or_default()) {
            let end = start + self.searched + end;
            sink(self.input.get(start..end).unwrap_or_default());
            start = end + 1;
            self.searched = 0;
        }
        if start == self.input.len() {
            self.input.clear();
        } else if start > 0 {
            self.input.drain(..start);
        }
        self.searched = self.input.len();
    }
}

impl Link for Stdio {
    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.output.extend_from_slice(message);
        self.output.push(b'\n');
        Ok(())
    }

    fn receive(&mut self, patience: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<Waited, Failure> {
        self.flush()?;
        let timeout = timespec(patience);
        loop {
            let stdin = self.stdin.as_ref().filter(|_| !self.output.is_empty());
            let stdout = PollFd::new(&self.stdout, PollFlags::IN);
            let ready = match stdin {
                None => {
                    let mut ends = [stdout];
                    poll(&mut ends, Some(&timeout)).map(|n| (n, true, false))
                }
                Some(stdin) => {
                    let mut ends = [stdout, PollFd::new(stdin, PollFlags::OUT)];
                    let ready = poll(&mut ends, Some(&timeout));
                    let [stdout, stdin] = ends;
                    ready.map(|n| (n, !stdout.revents().is_empty(), !stdin.revents().is_empty()))
                }
            };
            let (readable, writable) = match ready {
                Ok((0, ..)) => return Ok(Waited::TimedOut),
                Ok((_, readable, writable)) => (readable, writable),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if writable {
                self.flush()?;
            }
            if readable {
                break;
            }
        }
        self.input.reserve(READ);
        match read(&self.stdout, spare_capacity(&mut self.input)) {
            Ok(0) => return Err(Failure::new("it closed its stdout")),
            Ok(_) => self.deliver(sink),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Waited::Read)
    }

    fn open_stream(&mut self) -> Result<(), Failure> {
        // The bridge opens it when it has the message that is waiting here.
        self.flush()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.stdin = None;
        Ok(())
    }

    fn expect(&mut self, bytes: usize) {
        self.input.reserve(bytes + READ);
    }
}
