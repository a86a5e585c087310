//! What was measured, by measure, target and round, and what follows from it.

use std::collections::BTreeMap;

use super::metrics::{Case, METRICS, Metric, metric};

/// The middle of a measure's rounds, and its ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// All values. Targets are known by their place in the list of targets; place 0 is the direct client.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(&'static str, usize), BTreeMap<usize, f64>>,
    failures: BTreeMap<(Case, usize), String>,
}

/// Place of the direct client in the list of targets.
pub(crate) const DIRECT: usize = 0;

impl Results {
    /// Keeps the value of a round; of a count with one right value, the worst that the round gave.
    pub(crate) fn put(&mut self, id: &'static str, target: usize, round: usize, value: f64) {
        let rounds = self.values.entry((id, target)).or_default();
        let worst = rounds.get(&round).filter(|_| metric(id).is_some_and(|metric| metric.exact)).copied();
        rounds.insert(round, worst.map_or(value, |worst| worst.max(value)));
    }

    /// Keeps why a case failed; the first reason is the one shown.
    pub(crate) fn fail(&mut self, case: Case, target: usize, reason: String) {
        self.failures.entry((case, target)).or_insert(reason);
    }

    pub(crate) fn failure(&self, case: Case, target: usize) -> Option<&str> {
        self.failures.get(&(case, target)).map(String::as_str)
    }

    /// Computes the measures that are a surplus over the direct client. Called once, at the end.
    pub(crate) fn derive(&mut self) {
        for metric in METRICS {
            let Some(base) = metric.added_to else { continue };
            let Some(direct) = self.values.get(&(base, DIRECT)).cloned() else { continue };
            let targets: Vec<_> =
                self.values.keys().filter(|(id, target)| *id == base && *target != DIRECT).copied().collect();
            for key in targets {
                let Some(rounds) = self.values.get(&key) else { continue };
                let added =
                    rounds.iter().filter_map(|(round, value)| Some((*round, value - direct.get(round)?))).collect();
                self.values.insert((metric.id, key.1), added);
            }
        }
    }

    /// The rounds' values, in order.
    pub(crate) fn rounds(&self, metric: &Metric, target: usize) -> Vec<f64> {
        self.values.get(&(metric.id, target)).map(|rounds| rounds.values().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn summary(&self, metric: &Metric, target: usize) -> Option<Summary> {
        summarize(&self.rounds(metric, target))
    }

    /// `target` divided by `base`, round by round, since the rounds differ more than the targets in one of them.
    pub(crate) fn ratio(&self, metric: &Metric, target: usize, base: usize) -> Option<f64> {
        let (rounds, bases) = (self.values.get(&(metric.id, target))?, self.values.get(&(metric.id, base))?);
        let mut ratios: Vec<f64> = rounds
            .iter()
            .filter_map(|(round, value)| Some(value / bases.get(round)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        quantile(&mut ratios, 0.5)
    }
}

/// Median and ends of some values.
pub(crate) fn summarize(values: &[f64]) -> Option<Summary> {
    let mut values = values.to_vec();
    Some(Summary {
        median: quantile(&mut values, 0.5)?,
        min: quantile(&mut values, 0.0)?,
        max: quantile(&mut values, 1.0)?,
    })
}

/// The value below which the part `q` of the values lies. The median of an even number is the middle of two.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
    let place = last as f64 * q;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of samples")]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (values.get(low)?, values.get(high)?);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [3.0], 0.99), Some(3.0));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&mut [4.0, 1.0], 0.5), Some(2.5));
        assert_eq!(quantile(&mut (0..=1000).map(f64::from).collect::<Vec<_>>(), 0.999), Some(999.0));
    }

    #[test]
    fn a_round_keeps_the_worst_count_and_the_last_time() {
        let mut results = Results::default();
        for value in [4.0, 5.0, 4.0] {
            results.put("start.requests", 1, 0, value);
            results.put("start.ms", 1, 0, value);
        }
        assert_eq!(results.rounds(metric("start.requests").unwrap(), 1), [5.0]);
        assert_eq!(results.rounds(metric("start.ms").unwrap(), 1), [4.0]);
    }

    #[test]
    fn a_surplus_and_a_ratio_compare_the_same_round() {
        let mut results = Results::default();
        for (round, direct, bridge) in [(0, 10.0, 30.0), (1, 20.0, 80.0), (2, 30.0, 60.0)] {
            results.put("pinned.p50", DIRECT, round, direct);
            results.put("pinned.p50", 1, round, bridge);
        }
        results.put("pinned.p50", 1, 3, 1e9);
        results.derive();
        assert_eq!(results.rounds(metric("pinned.added").unwrap(), 1), [20.0, 60.0, 30.0]);
        assert_eq!(results.ratio(metric("pinned.p50").unwrap(), 1, DIRECT), Some(3.0));
        assert_eq!(results.ratio(metric("pinned.p50").unwrap(), 2, DIRECT), None);
    }
}
