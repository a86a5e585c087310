//! What a person reads: a line a step, with the time.

use std::time::Instant;

/// Prints as it goes.
pub(crate) struct Transcript {
    start: Instant,
    last: Instant,
}

impl Transcript {
    pub(crate) fn new(start: Instant) -> Self {
        println!("  at ms   took ms");
        Self { start, last: start }
    }

    /// A step that ends now; it began when the last one ended.
    pub(crate) fn line(&mut self, step: &str, text: String) {
        let now = Instant::now();
        let took = (now - self.last).as_secs_f64() * 1e3;
        self.last = now;
        println!("{:>7} {took:>9.1}   {step:<11} {text}", self.at(now));
    }

    /// Something that happens to the client and is no step of its own.
    pub(crate) fn note(&self, text: &str) {
        println!("{:>7} {:>9}   {:<11} {text}", self.at(Instant::now()), "", "");
    }

    /// The next step begins now.
    pub(crate) fn mark(&mut self) {
        self.last = Instant::now();
    }

    /// A moment, in milliseconds from the start.
    pub(crate) fn at(&self, moment: Instant) -> String {
        format!("{:.1}", moment.saturating_duration_since(self.start).as_secs_f64() * 1e3)
    }
}
