//! Plays a plan over a link, in an order that the plan gives.

use std::time::Duration;

use crate::link::{Link, Way};
use crate::plan::{Change, Plan, Setting};
use crate::record::{AtClient, AtServer, Said};
use crate::{legacy, modern};

/// Turns of one phase: many times more than it has messages.
const MAX_TURNS: usize = 5000;
/// So long somebody may be slow.
const MOMENT: Duration = Duration::from_millis(100);
/// What comes later than this waits for somebody who has gone.
const SOON: Duration = Duration::from_secs(60);
/// All that waits for somebody has been given up.
const LATE: Duration = Duration::from_secs(20 * 60);

/// A client of either era.
pub(crate) trait Client {
    fn begin(&mut self) -> Vec<String>;
    fn set(&mut self, setting: &Setting) -> Vec<String>;
    fn start(&mut self, tag: usize) -> String;
    fn heard_all(&self, tag: usize) -> bool;
    fn cancel(&mut self, tag: usize) -> Option<String>;
    fn is_done(&self) -> bool;
    fn hear(&mut self, line: &str) -> Vec<String>;
    fn enter(&mut self, phase: usize);
    fn batches(&self) -> bool;
    /// Answers to questions, and retries, that it has ready.
    fn ready(&mut self) -> &mut Vec<String>;
    fn heard(self: Box<Self>) -> AtClient;
}

/// A server of either era.
pub(crate) trait Server {
    fn hear(&mut self, line: &str) -> Said;
    fn runnable(&self) -> Vec<usize>;
    fn step(&mut self, tag: usize) -> Said;
    fn waits_for_cancel(&self) -> Vec<usize>;
    fn is_done(&self) -> bool;
    fn change(&mut self, change: Change) -> Said;
    fn end_phase(&mut self);
    fn seen(self: Box<Self>) -> AtServer;
}

enum Turn {
    Start,
    Step(usize),
    Change,
    Cancel(usize),
    /// The client has made up its mind.
    Answer(usize),
    /// Time passes, although there is something to do.
    Wait(Duration),
}

pub(crate) fn play(plan: &Plan, way: Way, legacy: bool) -> (AtClient, AtServer) {
    let mut client: Box<dyn Client + '_> =
        if legacy { Box::new(legacy::Client::new(plan)) } else { Box::new(modern::Client::new(plan)) };
    let mut server: Box<dyn Server + '_> =
        if legacy { Box::new(legacy::ServerSide::new(plan)) } else { Box::new(modern::ServerSide::new(plan)) };
    let mut link = Link::new(way, plan.streams);
    let mut order = plan.order.iter().copied().cycle();
    macro_rules! pump {
        () => {
            link.pump(&mut |line| client.hear(line), &mut |line| server.hear(line))
        };
    }
    for line in client.begin() {
        link.client_says(line);
    }
    pump!();
    for (at, phase) in plan.phases.iter().enumerate() {
        client.enter(at);
        for setting in &phase.before {
            for line in client.set(setting) {
                link.client_says(line);
            }
            pump!();
        }
        let mut tags: Vec<usize> = (0..phase.requests.len()).map(|place| at * 100 + place).rev().collect();
        let mut changes = phase.changes.clone();
        if phase.batch && client.batches() {
            let lines: Vec<String> = std::mem::take(&mut tags).into_iter().rev().map(|tag| client.start(tag)).collect();
            link.client_says(format!("[{}]", lines.join(",")));
        }
        let end = link.now + LATE;
        let mut turns = 0;
        loop {
            pump!();
            turns += 1;
            assert!(turns < MAX_TURNS, "the phase does not come to an end");
            let mut next: Vec<Turn> = server.runnable().into_iter().map(Turn::Step).collect();
            next.extend((!tags.is_empty()).then_some(Turn::Start));
            next.extend((!changes.is_empty()).then_some(Turn::Change));
            let waiting = server.waits_for_cancel();
            next.extend(waiting.iter().filter(|tag| client.heard_all(**tag)).map(|tag| Turn::Cancel(*tag)));
            next.extend((0..client.ready().len()).map(Turn::Answer));
            let moment = link.next_deadline().filter(|due| *due <= link.now + MOMENT);
            if !next.is_empty() {
                next.extend(moment.map(Turn::Wait));
            }
            if next.is_empty() {
                let soon = link.next_deadline().filter(|due| *due <= link.now + SOON);
                let over = client.is_done() && server.is_done();
                let late = link.next_deadline().filter(|due| !over && *due <= end);
                match soon.or(late) {
                    Some(due) => link.tick(due),
                    None => break,
                }
                continue;
            }
            let which = usize::from(order.next().unwrap_or(0)) % next.len();
            match next.swap_remove(which) {
                Turn::Start => {
                    let line = client.start(tags.pop().expect("there is one"));
                    link.client_says(line);
                }
                Turn::Change => {
                    let said = server.change(changes.remove(0));
                    link.server_says(said);
                }
                Turn::Step(tag) => {
                    let said = server.step(tag);
                    link.server_says(said);
                }
                Turn::Answer(place) => {
                    let line = client.ready().remove(place);
                    link.client_says(line);
                }
                Turn::Wait(due) => link.tick(due),
                Turn::Cancel(tag) => {
                    if let Some(line) = client.cancel(tag) {
                        link.client_says(line);
                    }
                }
            }
        }
        assert!(client.is_done(), "{way:?}: the client waits for ever, in phase {at}");
        assert!(server.is_done(), "{way:?}: the server waits for ever, in phase {at}");
        server.end_phase();
    }
    (client.heard(), server.seen())
}
