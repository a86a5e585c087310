//! A stdio client's session: handshake, single calls and floods, over a bridge or directly.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::clock::own_cpu;
use super::link::direct::Direct;
use super::link::stdio::Stdio;
use super::link::{Link, Waited};
use super::message::{DISCOVER, Era, INITIALIZE, INITIALIZED, Line, call, carries_filler, classify};
use super::process::{OpenFiles, Program, Running, Usage, reset_peak, usage};

/// Longest wait for one small answer, and for the answer to `initialize`.
const PATIENCE: Duration = Duration::from_secs(20);
/// A flood without an answer for so long has stalled.
const STALLED: Duration = Duration::from_secs(8);
/// Longest wait for the process to end when its stdin is closed.
const EXIT: Duration = Duration::from_secs(20);
/// After the answer, notifications of the same stream are waited for as long as this.
const SILENCE: Duration = Duration::from_millis(500);
/// Longest part of an error answer that is shown, in bytes.
const MAX_QUOTE: usize = 200;
/// The text of a small call: with the rest of the line about 190 bytes.
pub(crate) const SMALL: &[u8] =
    br#"{"text":"a hundred bytes of text, more or less, as a small tool call has them in practice; that is all"}"#;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// The driver speaks HTTP itself.
    Direct,
    /// `bench pipe`: each line comes back as it went out, no server is asked.
    Pipe(Program),
    /// A stdio bridge; it gets the server's URL as its last argument.
    Bridge(Program),
}

/// How a session is started.
pub(crate) struct Start<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) port: u16,
    /// The era that the driver speaks, and the era of the server that the bridge is given.
    pub(crate) client: Era,
    pub(crate) server: Era,
    pub(crate) home: &'a Path,
    pub(crate) open_files: OpenFiles,
    pub(crate) show_errors: bool,
}

/// A session that has been initialized.
pub(crate) struct Session {
    era: Era,
    link: Box<dyn Link>,
    running: Option<Running>,
    next: u64,
    line: Vec<u8>,
    /// From just before the start of the program to the answer to `initialize`.
    pub(crate) started_in: Duration,
}

/// How a flood went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) sent: u64,
    /// Requests with a result.
    pub(crate) answered: u64,
    /// Requests with an error, with a second answer, or without any.
    pub(crate) errors: u64,
    pub(crate) twice: u64,
    pub(crate) lost: u64,
    /// Until the last answer.
    pub(crate) elapsed: Duration,
    /// CPU time of the bridge, or of the driver when it speaks HTTP itself.
    pub(crate) cpu: Duration,
}

/// How a burst of notifications went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Events {
    pub(crate) received: u64,
    /// Of these: so many after the answer to the call that they belong to.
    pub(crate) late: u64,
    /// Of these: so many not one higher than the one before.
    pub(crate) disordered: u64,
    /// Until the last event or the answer.
    pub(crate) elapsed: Duration,
}

impl Start<'_> {
    /// Starts the program and waits for the answer to `initialize`; `notifications/initialized` is not sent yet.
    pub(crate) fn begin(&self) -> Result<Session, Failure> {
        let (link, running, started): (Box<dyn Link>, _, _) = match self.kind {
            Kind::Direct => (Box::new(Direct::new(self.port)?), None, Instant::now()),
            Kind::Pipe(program) | Kind::Bridge(program) => {
                let mut program = program.clone();
                if matches!(self.kind, Kind::Bridge(_)) {
                    let path = if self.server == Era::Modern { "modern" } else { "mcp" };
                    program.arguments.push(format!("http://127.0.0.1:{}/{path}", self.port).into());
                }
                let mut running = program.start(self.home, self.open_files, self.show_errors)?;
                let (stdin, stdout) = running.pipes.take().ok_or_else(|| Failure::new("no pipes"))?;
                let started = running.started;
                (Box::new(Stdio::new(stdin, stdout)?), Some(running), started)
            }
        };
        let (era, started_in) = (self.client, Duration::ZERO);
        let mut session = Session { era, link, running, next: 1, line: Vec::new(), started_in };
        let first = if era == Era::Modern { DISCOVER } else { INITIALIZE };
        session.link.send(first.as_bytes())?;
        session.started_in = session.wait_for(0, PATIENCE, &mut |_| {})?.duration_since(started);
        Ok(session)
    }

    /// The whole handshake.
    pub(crate) fn open(&self) -> Result<Session, Failure> {
        let mut session = self.begin()?;
        session.initialized()?;
        Ok(session)
    }
}

impl Session {
    /// Sends `notifications/initialized`. A client of the server itself then opens its GET stream.
    pub(crate) fn initialized(&mut self) -> Result<(), Failure> {
        if self.era == Era::Modern {
            return Ok(());
        }
        self.link.send(INITIALIZED.as_bytes())?;
        self.link.open_stream()
    }

    /// One call; returns the time until its answer.
    pub(crate) fn call(&mut self, tool: &str, arguments: &[u8], patience: Duration) -> Result<Duration, Failure> {
        let id = self.next_call(tool, arguments);
        let start = Instant::now();
        self.link.send(&self.line)?;
        Ok(self.wait_for(id, patience, &mut |_| {})?.duration_since(start))
    }

    /// `count` small calls one after the other, or as many as fit into `limit`.
    pub(crate) fn calls(&mut self, count: usize, limit: Duration) -> Result<Vec<Duration>, Failure> {
        let end = Instant::now() + limit;
        let mut times = Vec::with_capacity(count.min(10_000));
        while times.len() < count && Instant::now() < end {
            times.push(self.call("echo", SMALL, PATIENCE)?);
        }
        Ok(times)
    }

    /// Asks for a text of `bytes` bytes; returns the time until it is there, and an error when it is not whole.
    pub(crate) fn fetch(&mut self, bytes: usize, sse: bool, patience: Duration) -> Result<Duration, Failure> {
        self.link.expect(bytes);
        let id = self.next_call("big", format!(r#"{{"bytes":{bytes},"sse":{sse}}}"#).as_bytes());
        let start = Instant::now();
        self.link.send(&self.line)?;
        let mut whole = false;
        let arrived = self.wait_for(id, patience, &mut |line| whole = carries_filler(line, bytes))?;
        if whole { Ok(arrived - start) } else { Err(Failure::new("the answer is not what the server sent")) }
    }

    /// Sends a call with `text` in it to the tool that answers with the text's length.
    pub(crate) fn upload(&mut self, text: &[u8], patience: Duration) -> Result<Duration, Failure> {
        let mut arguments = br#"{"text":""#.to_vec();
        arguments.extend_from_slice(text);
        arguments.extend_from_slice(b"\"}");
        let expected = format!("\"text\":\"{}\"", text.len());
        let id = self.next_call("sink", &arguments);
        let start = Instant::now();
        self.link.send(&self.line)?;
        let mut whole = false;
        let find = |line: &[u8]| memchr::memmem::find(line, expected.as_bytes()).is_some();
        let arrived = self.wait_for(id, patience, &mut |line| whole = find(line))?;
        if whole { Ok(arrived - start) } else { Err(Failure::new("the server did not get what was sent")) }
    }

    /// Keeps `in_flight` small calls in flight until `total` are answered or `limit` is over; then waits for the rest.
    pub(crate) fn flood(&mut self, in_flight: u64, total: u64, limit: Duration) -> Result<Flood, Failure> {
        let first = self.next;
        let mut seen = vec![false; usize::try_from(total)?];
        let mut flood = Flood::default();
        let cpu = self.cpu()?;
        let start = Instant::now();
        let mut last = start;
        let mut answers = 0;
        loop {
            if last.duration_since(start) < limit {
                while flood.sent < total && flood.sent - answers < in_flight {
                    self.next_call("echo", SMALL);
                    self.link.send(&self.line)?;
                    flood.sent += 1;
                }
            }
            if answers == flood.sent {
                break;
            }
            let waited = self.link.receive(STALLED, &mut |line| {
                let (id, is_error) = match classify(line) {
                    Line::Result(id) => (id, false),
                    Line::Error(id) => (id, true),
                    Line::Notification(_) => return,
                };
                match id.checked_sub(first).and_then(|n| seen.get_mut(usize::try_from(n).ok()?)) {
                    Some(seen) if !*seen => {
                        *seen = true;
                        answers += 1;
                        flood.errors += u64::from(is_error);
                    }
                    _ => flood.twice += 1,
                }
            })?;
            if waited == Waited::TimedOut {
                break;
            }
            last = Instant::now();
        }
        flood.elapsed = last.duration_since(start);
        flood.cpu = self.cpu()?.saturating_sub(cpu);
        flood.lost = flood.sent - answers;
        flood.answered = answers - flood.errors;
        Ok(flood)
    }

    /// Calls a tool that sends `count` numbered notifications, and takes them in until all are there, they stop
    /// coming, or `limit` is over. `each` gets the number that each carries, at once.
    pub(crate) fn events(
        &mut self,
        tool: &str,
        arguments: &[u8],
        count: u64,
        limit: Duration,
        each: &mut dyn FnMut(u64),
    ) -> Result<Events, Failure> {
        let call_id = self.next_call(tool, arguments);
        let own_stream = tool != "push";
        let mut events = Events::default();
        let (mut answered, mut refused, mut previous) = (false, false, 0);
        let start = Instant::now();
        let mut last = start;
        self.link.send(&self.line)?;
        while !(answered && events.received >= count) {
            // Events of the call's own stream have no reason to come after the answer, so the wait for them is short.
            let silence = if answered && own_stream { SILENCE } else { STALLED };
            let waited = self.link.receive(silence, &mut |line| match classify(line) {
                Line::Notification(Some(number)) => {
                    events.received += 1;
                    events.late += u64::from(answered && own_stream);
                    events.disordered += u64::from(number <= previous);
                    previous = number;
                    each(number);
                }
                Line::Result(id) if id == call_id => answered = true,
                Line::Error(id) if id == call_id => refused = true,
                _ => {}
            })?;
            if refused {
                return Err(Failure::new("the call was answered with an error"));
            }
            if waited == Waited::TimedOut {
                break;
            }
            last = Instant::now();
            if last.duration_since(start) > limit {
                let seconds = limit.as_secs();
                return Err(Failure::new(format!("{} of {count} events in {seconds} s", events.received)));
            }
        }
        events.elapsed = last.duration_since(start);
        if answered { Ok(events) } else { Err(Failure::new(format!("no answer, {} events", events.received))) }
    }

    /// Small calls at a steady pace of `rate` a second for `duration`, whatever the answers do. Times until answers.
    pub(crate) fn paced(&mut self, rate: u32, duration: Duration) -> Result<Vec<Duration>, Failure> {
        let pause = Duration::from_secs(1) / rate;
        let total = usize::try_from(duration.as_micros() / pause.as_micros().max(1))?;
        let first = self.next;
        let (mut sent, mut times) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let mut due = Instant::now();
        while times.len() < total {
            let now = Instant::now();
            if sent.len() < total && now >= due {
                self.next_call("echo", SMALL);
                sent.push(Instant::now());
                self.link.send(&self.line)?;
                due += pause;
            }
            let patience = if sent.len() < total { due.saturating_duration_since(Instant::now()) } else { STALLED };
            let waited = self.link.receive(patience, &mut |line| {
                let now = Instant::now();
                if let Line::Result(id) = classify(line)
                    && let Some(n) = id.checked_sub(first).and_then(|n| usize::try_from(n).ok())
                    && let Some(sent) = sent.get(n)
                {
                    times.push(now.duration_since(*sent));
                }
            })?;
            if waited == Waited::TimedOut && sent.len() == total {
                return Err(Failure::new(format!("{} of {total} answered", times.len())));
            }
        }
        Ok(times)
    }

    /// Starts `count` calls that the server answers after `delay`. Their answers are not waited for.
    pub(crate) fn begin_slow(&mut self, count: u64, delay: Duration) -> Result<(), Failure> {
        let arguments = format!(r#"{{"micros":{}}}"#, delay.as_micros());
        for _ in 0..count {
            self.next_call("slow", arguments.as_bytes());
            self.link.send(&self.line)?;
        }
        Ok(())
    }

    /// Takes in what comes for `duration`, so that the bridge can settle.
    pub(crate) fn settle(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.link.receive(left, &mut |_| {})?;
        }
        Ok(())
    }

    /// What the bridge has used; nothing when the driver speaks HTTP itself.
    pub(crate) fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.running.as_ref().map(|running| usage(running.id())).transpose()
    }

    /// Lets the bridge's peak of memory start anew.
    pub(crate) fn reset_peak(&self) -> Result<(), Failure> {
        self.running.as_ref().map_or(Ok(()), |running| reset_peak(running.id()))
    }

    /// CPU time of the bridge, or of the driver when it speaks HTTP itself.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        Ok(self.usage()?.map_or_else(own_cpu, |usage| usage.cpu))
    }

    /// Closes stdin and waits for the end of the process. Returns how long that took.
    pub(crate) fn close(mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.link.finish()?;
        if let Some(running) = &mut self.running {
            running.wait(EXIT)?;
        }
        Ok(start.elapsed())
    }

    /// Writes the next call into `self.line` and returns its id.
    fn next_call(&mut self, tool: &str, arguments: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        self.line.clear();
        call(&mut self.line, self.era, id, tool, arguments);
        id
    }

    /// Waits for the answer with this id and returns when it came; `found` gets its line.
    fn wait_for(&mut self, id: u64, patience: Duration, found: &mut dyn FnMut(&[u8])) -> Result<Instant, Failure> {
        let end = Instant::now() + patience;
        let (mut arrived, mut refused) = (None, None);
        loop {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return Err(Failure::new(format!("no answer in {} s", patience.as_secs())));
            };
            self.link.receive(left, &mut |line| match classify(line) {
                Line::Result(other) if other == id => {
                    arrived = Some(Instant::now());
                    found(line);
                }
                Line::Error(other) if other == id => {
                    let line = line.get(..line.len().min(MAX_QUOTE)).unwrap_or_default();
                    refused = Some(String::from_utf8_lossy(line).into_owned());
                }
                _ => {}
            })?;
            if let Some(answer) = refused {
                return Err(Failure::new(format!("answered with {answer}")));
            }
            if let Some(arrived) = arrived {
                return Ok(arrived);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::app::mock;

    /// A link whose other side says what the test wants, whatever it is asked.
    struct Scripted(VecDeque<String>);

    impl Link for Scripted {
        fn send(&mut self, _: &[u8]) -> Result<(), Failure> {
            Ok(())
        }

        fn receive(&mut self, _: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<Waited, Failure> {
            let Some(line) = self.0.pop_front() else { return Ok(Waited::TimedOut) };
            sink(line.as_bytes());
            Ok(Waited::Read)
        }

        fn open_stream(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn finish(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn expect(&mut self, _: usize) {}
    }

    fn session(link: impl Link + 'static) -> Session {
        let (line, started_in) = (Vec::new(), Duration::ZERO);
        Session { era: Era::Legacy, link: Box::new(link), running: None, next: 1, line, started_in }
    }

    /// `r5`: the result of request 5; `e5`: an error; `n5`: notification number 5.
    fn scripted(script: &str) -> Session {
        let line = |word: &str| {
            let number = &word[1..];
            match &word[..1] {
                "r" => format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#),
                "e" => format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32000,"message":"EMFILE"}}}}"#),
                _ => {
                    format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":{number}}}}}"#)
                }
            }
        };
        session(Scripted(script.split_ascii_whitespace().map(line).collect()))
    }

    #[test]
    fn a_flood_counts_what_went_wrong() {
        for (script, answered, errors, twice, lost) in [
            ("r1 r2 r3 r4", 4, 0, 0, 0),
            ("r4 r3 r2 r1", 4, 0, 0, 0),
            ("r1 r2 r4", 3, 0, 0, 1),
            ("r1 e2 r3 r4", 3, 1, 0, 0),
            ("r1 r1 r2 r3 r4", 4, 0, 1, 0),
            ("r1 r2 r9 r3 r4", 4, 0, 1, 0),
            ("n1 r1 r2 r3 r4", 4, 0, 0, 0),
            ("", 0, 0, 0, 2),
        ] {
            let flood = scripted(script).flood(2, 4, Duration::from_secs(60)).unwrap();
            assert_eq!(
                (flood.answered, flood.errors, flood.twice, flood.lost),
                (answered, errors, twice, lost),
                "{script}"
            );
        }
    }

    #[test]
    fn a_burst_counts_what_went_wrong() {
        for (tool, script, received, late, disordered) in [
            ("burst", "n1 n2 n3 r1", 3, 0, 0),
            ("burst", "n1 n2 r1", 2, 0, 0),
            ("burst", "n1 r1 n2 n3", 3, 2, 0),
            ("burst", "n2 n1 n3 r1", 3, 0, 1),
            ("burst", "n1 n2 n2 r1", 3, 0, 1),
            // These come on another stream than the answer.
            ("push", "n1 r1 n2 n3", 3, 0, 0),
        ] {
            let events = scripted(script).events(tool, b"{}", 3, Duration::from_secs(60), &mut |_| {}).unwrap();
            assert_eq!((events.received, events.late, events.disordered), (received, late, disordered), "{script}");
        }
        for script in ["n1 n2 n3", "n1 e1", ""] {
            assert!(
                scripted(script).events("burst", b"{}", 3, Duration::from_secs(60), &mut |_| {}).is_err(),
                "{script}"
            );
        }
    }

    #[test]
    fn an_error_answer_fails_a_call_and_says_so() {
        let failure = scripted("e1").call("echo", SMALL, Duration::from_secs(60)).unwrap_err();
        assert!(failure.to_string().contains("EMFILE"));
    }

    #[test]
    fn the_direct_client_and_the_mock_server_understand_each_other() {
        let port = mock::start_for_test();
        let home = std::env::temp_dir();
        let (client, server, open_files) = (Era::Legacy, Era::Legacy, OpenFiles::Usual);
        let start = Start { kind: &Kind::Direct, port, client, server, home: &home, open_files, show_errors: true };
        let mut session = start.open().unwrap();
        let patience = Duration::from_secs(10);
        session.call("echo", SMALL, patience).unwrap();
        for bytes in [0, 1, 3_000, 100_000, 3_000_000] {
            for sse in [false, true] {
                session.fetch(bytes, sse, patience).unwrap();
            }
            session.upload(&vec![b'x'; bytes], patience).unwrap();
        }
        for (tool, count) in [("burst", 2000), ("push", 2000), ("ticks", 20)] {
            let arguments = format!(r#"{{"count":{count}}}"#);
            let events = session.events(tool, arguments.as_bytes(), count, patience, &mut |_| {}).unwrap();
            assert_eq!((events.received, events.late, events.disordered), (count, 0, 0), "{tool}");
        }
        let flood = session.flood(64, 2000, patience).unwrap();
        assert_eq!((flood.answered, flood.errors, flood.twice, flood.lost), (2000, 0, 0, 0));
        session.begin_slow(3, Duration::from_millis(20)).unwrap();
        assert_eq!(session.calls(10, patience).unwrap().len(), 10);
        assert_eq!(session.paced(1000, Duration::from_millis(50)).unwrap().len(), 50);
        assert!(session.call("none", SMALL, patience).is_err());
        session.close().unwrap();
    }
}
