//! A bound on what all answers together may hold at one time (R8).
//!
//! Each message has its own limit; a server that answers a hundred calls at once with the largest that is allowed would
//! still fill the memory. Small messages are not counted: they are bounded by the channel they wait in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one message that are not counted.
const FREE: usize = 256 * 1024;

/// What is held now, and the most that may be.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    most: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most })
    }
}

/// The share of one message. Given back when it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    share: Option<(Arc<Budget>, usize)>,
}

impl Held {
    /// Says that the message now has `size` bytes. False if that is too much; the share stays as it was.
    pub(super) fn grow(&mut self, budget: &Arc<Budget>, size: usize) -> bool {
        if size <= FREE {
            return true;
        }
        let (_, counted) = self.share.get_or_insert_with(|| (Arc::clone(budget), 0));
        let more = size.saturating_sub(*counted);
        let before = budget.held.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > budget.most {
            budget.held.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        *counted += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((budget, counted)) = self.share.take() {
            budget.held.fetch_sub(counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::new(1_000_000);
        let (mut one, mut two, mut small) = (Held::default(), Held::default(), Held::default());
        assert!(one.grow(&budget, 300_000) && one.grow(&budget, 600_000));
        assert!(!two.grow(&budget, 500_000), "together too much");
        assert!(two.grow(&budget, 400_000), "what fits is given after a refusal");
        assert!(small.grow(&budget, FREE), "small ones are free");
        assert!(!one.grow(&budget, 600_001));
        drop(two);
        assert!(one.grow(&budget, 1_000_000));
        drop(one);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
