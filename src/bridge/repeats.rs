//! Keeps a peer from filling the log: a text that comes again and again is written a few times, then counted.

use std::collections::HashMap;
use std::time::Duration;

/// Times that one text is written within [`WINDOW`].
const TIMES: u64 = 10;
/// After this time a text is written again, with the number of those that were not.
const WINDOW: Duration = Duration::from_secs(60);
/// Different texts within one window. More are not written: whoever makes so many makes them from what a peer said.
const TEXTS: usize = 64;

/// What was written lately.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    texts: HashMap<Box<str>, Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Duration,
    count: u64,
}

impl Repeats {
    /// Whether to write this text now; `Some(n)` says that `n` more like it were not written before. `now` never goes back.
    pub(super) fn admit(&mut self, now: Duration, text: &str) -> Option<u64> {
        if let Some(seen) = self.texts.get_mut(text) {
            if now.saturating_sub(seen.since) < WINDOW {
                seen.count += 1;
                return (seen.count <= TIMES).then_some(0);
            }
            let unwritten = seen.count.saturating_sub(TIMES);
            *seen = Seen { since: now, count: 1 };
            return Some(unwritten);
        }
        if self.texts.len() >= TEXTS {
            self.texts.retain(|_, seen| now.saturating_sub(seen.since) < WINDOW);
        }
        if self.texts.len() >= TEXTS {
            return None;
        }
        self.texts.insert(text.into(), Seen { since: now, count: 1 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_text_is_written_a_few_times_and_then_counted() {
        let mut repeats = Repeats::default();
        let written = (0..1000).filter(|_| repeats.admit(s(1), "dropped").is_some()).count();
        assert_eq!(written as u64, TIMES);
        assert_eq!(repeats.admit(s(1), "another"), Some(0));
        assert_eq!(repeats.admit(s(60), "dropped"), None);
        assert_eq!(repeats.admit(s(61), "dropped"), Some(1001 - TIMES));
        assert_eq!(repeats.admit(s(61), "dropped"), Some(0));
        assert_eq!(repeats.admit(s(200), "dropped"), Some(0), "nothing was left out in between");
    }

    #[test]
    fn different_texts_have_a_bound_too() {
        let mut repeats = Repeats::default();
        let written = (0..1000).filter(|n| repeats.admit(s(1), &format!("text {n}")).is_some()).count();
        assert_eq!(written, TEXTS);
        assert_eq!(repeats.admit(s(2), "text 3"), Some(0), "a known text still has its own count");
        assert_eq!(repeats.admit(s(61), "text 500"), Some(0), "a later window has room again");
    }
}
