//! Deadlines, none of which costs anything once what it watched is gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::ExchangeId;
use super::pending::Key;

/// Time-outs below this number are not worth a look.
const PRUNE_FLOOR: usize = 1024;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send a request again, or resume its stream.
    Retry(Key),
    /// A queued or unanswered request has waited long enough.
    Patience(Key),
    /// `initialize` must be answered now (S2).
    Initialize(Key),
    /// `server/discover` of a modern client must be answered now.
    Discover(Key),
    /// Open the notification stream or the session again. Only the last one that was set counts.
    Listen(u64),
    /// The notification stream of this generation has had its head start.
    HeadStart(u32),
    /// Say `notifications/initialized` to this generation again.
    Greet(u32),
    /// The barrier behind `notifications/initialized` of this generation is old enough.
    Greeting(u32),
    /// The `endpoint` event is overdue.
    Endpoint(ExchangeId),
    /// Messages without response are due to be sent again.
    Later,
    /// Requests have waited long enough for the sign-in.
    Hold,
    /// A call of the tool `sign_in` has waited long enough for news.
    SignInCall(Key),
    /// What nobody answers in time has had its time after the end of stdin. That is seen to after each input.
    Quiet,
    /// Time for a ping, if idle.
    KeepAlive,
    /// A request of our own has had its time.
    Own(Key),
    /// Requests in flight have had their time after the end of stdin.
    Drain,
    /// The server has had its time to take the DELETE.
    Goodbye,
}

/// All deadlines. Two kinds come once a call and are kept in order of their start, which is also the order of their end.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, Timer)>>,
    tails: VecDeque<(Duration, ExchangeId)>,
    requests: VecDeque<(Duration, Key)>,
}

/// What came due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Timer(Timer),
    Tail(ExchangeId),
    Request(Key),
}

impl Timers {
    pub(super) fn at(&mut self, when: Duration, timer: Timer) {
        self.heap.push(Reverse((when, timer)));
    }

    /// Tails all linger for the same time.
    pub(super) fn tail(&mut self, when: Duration, exchange: ExchangeId) {
        self.tails.push_back((when, exchange));
    }

    /// Requests all have the same time-out.
    pub(super) fn request(&mut self, when: Duration, key: Key) {
        self.requests.push_back((when, key));
    }

    /// Forgets time-outs of requests that were answered, once they are the most: one slow request must not keep all later
    /// ones in the list. Costs nothing on the average.
    pub(super) fn prune_requests(&mut self, living: usize, lives: impl Fn(Key) -> bool) {
        if self.requests.len() > 2 * living + PRUNE_FLOOR {
            self.requests.retain(|(_, key)| lives(*key));
        }
    }

    /// The earliest deadline that still matters.
    pub(super) fn next(
        &mut self,
        tail_lives: impl Fn(ExchangeId) -> bool,
        request_lives: impl Fn(Key) -> bool,
    ) -> Option<Duration> {
        while self.tails.front().is_some_and(|(_, exchange)| !tail_lives(*exchange)) {
            self.tails.pop_front();
        }
        while self.requests.front().is_some_and(|(_, key)| !request_lives(*key)) {
            self.requests.pop_front();
        }
        let heap = self.heap.peek().map(|Reverse((when, _))| *when);
        let tails = self.tails.front().map(|(when, _)| *when);
        let requests = self.requests.front().map(|(when, _)| *when);
        [heap, tails, requests].into_iter().flatten().min()
    }

    /// Takes one deadline that has passed.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Due> {
        if let Some(Reverse((when, timer))) = self.heap.peek().copied()
            && when <= now
        {
            self.heap.pop();
            return Some(Due::Timer(timer));
        }
        if self.tails.front().is_some_and(|(when, _)| *when <= now) {
            return self.tails.pop_front().map(|(_, exchange)| Due::Tail(exchange));
        }
        if self.requests.front().is_some_and(|(when, _)| *when <= now) {
            return self.requests.pop_front().map(|(_, key)| Due::Request(key));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_earliest_living_deadline_is_next() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(|_| true, |_| true), None);
        timers.at(s(5), Timer::Later);
        timers.tail(s(1), 7);
        timers.request(s(2), Key(9));
        assert_eq!(timers.next(|_| true, |_| true), Some(s(1)));
        assert_eq!(timers.next(|_| false, |_| true), Some(s(2)), "a stream that ended needs no deadline");
        assert_eq!(timers.pop_due(s(1)), None);
        assert_eq!(timers.pop_due(s(9)), Some(Due::Timer(Timer::Later)));
        assert_eq!(timers.pop_due(s(9)), Some(Due::Request(Key(9))));
        assert_eq!(timers.pop_due(s(9)), None);
    }

    #[test]
    fn one_slow_request_does_not_keep_the_time_outs_of_all_others() {
        let mut timers = Timers::default();
        for key in 0..100_000 {
            timers.request(s(60), Key(key));
            timers.prune_requests(1, |key| key == Key(0));
        }
        assert!(timers.requests.len() <= PRUNE_FLOOR + 3, "{}", timers.requests.len());
        assert_eq!(timers.requests.front(), Some(&(s(60), Key(0))));
    }
}
