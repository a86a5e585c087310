//! Budgets: a file of `measure.limit = number` lines, and what is outside of them.
//!
//! The limits: `max` and `min` of the value itself, `max_of_direct` and `min_of_direct` of its ratio to the direct
//! client, `max_of_mcp_remote` and `min_of_mcp_remote` of its ratio to mcp-remote. `#` starts a comment.

use super::Failure;
use super::metrics::{Metric, metric};
use super::report::short;
use super::results::{DIRECT, Results};

/// Most lines of a budget file.
const MAX_LINES: usize = 1000;

/// One line of a budget file.
#[derive(Debug)]
pub(crate) struct Limit {
    metric: &'static Metric,
    bound: Bound,
    of: Of,
    value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Max,
    Min,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Value,
    Direct,
    McpRemote,
}

/// How a limit was met.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Kept,
    /// Not measured in this run: the case or the peer was left out.
    NotMeasured(String),
    Broken(String),
}

/// Reads a budget file.
pub(crate) fn parse(text: &str) -> Result<Vec<Limit>, Failure> {
    let mut limits = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| Failure::new(format!("budget line {}: {what}: {line}", at + 1));
        if at >= MAX_LINES {
            return Err(wrong("too many lines"));
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("no `=`"))?;
        let value: f64 = value.trim().replace('_', "").parse().map_err(|_| wrong("not a number"))?;
        let (id, limit) = key.trim().rsplit_once('.').ok_or_else(|| wrong("no limit"))?;
        let (bound, of) = match limit {
            "max" => (Bound::Max, Of::Value),
            "min" => (Bound::Min, Of::Value),
            "max_of_direct" => (Bound::Max, Of::Direct),
            "min_of_direct" => (Bound::Min, Of::Direct),
            "max_of_mcp_remote" => (Bound::Max, Of::McpRemote),
            "min_of_mcp_remote" => (Bound::Min, Of::McpRemote),
            _ => return Err(wrong("unknown limit")),
        };
        let metric = metric(id).ok_or_else(|| wrong("unknown measure"))?;
        limits.push(Limit { metric, bound, of, value });
    }
    if limits.is_empty() { Err(Failure::new("the budget file sets no limit")) } else { Ok(limits) }
}

impl Limit {
    /// Compares what the bridge at place `target` reached.
    pub(crate) fn judge(&self, results: &Results, target: usize, mcp_remote: Option<usize>) -> Verdict {
        let Self { metric, bound, of, value } = self;
        if let Some(reason) = results.failure(metric.case, target) {
            return Verdict::Broken(format!("{}: the case failed: {reason}", metric.id));
        }
        let Some(summary) = results.summary(metric, target) else {
            return Verdict::NotMeasured(metric.id.to_owned());
        };
        let (reached, of) = match of {
            // One lost request in one round is one too many.
            Of::Value if metric.exact && *bound == Bound::Max => (Some(summary.max), ""),
            Of::Value if metric.exact => (Some(summary.min), ""),
            Of::Value => (Some(summary.median), ""),
            Of::Direct => (results.ratio(metric, target, DIRECT), " of direct"),
            Of::McpRemote => (mcp_remote.and_then(|base| results.ratio(metric, target, base)), " of mcp-remote"),
        };
        let Some(reached) = reached else { return Verdict::NotMeasured(format!("{}{of}", metric.id)) };
        let (kept, word) = match bound {
            Bound::Max => (reached <= *value, "at most"),
            Bound::Min => (reached >= *value, "at least"),
        };
        if kept {
            return Verdict::Kept;
        }
        // A ratio has no unit.
        let unit = if of.is_empty() && !metric.unit.is_empty() { format!(" {}", metric.unit) } else { String::new() };
        Verdict::Broken(format!("{}: {}{unit}{of}, {word} {value} allowed", metric.id, short(reached)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::metrics::Case;

    fn judge(line: &str, results: &Results) -> Verdict {
        parse(line).unwrap().remove(0).judge(results, 1, Some(2))
    }

    fn results() -> Results {
        let mut results = Results::default();
        for (round, values) in [[10.0, 20.0, 200.0], [10.0, 30.0, 200.0], [10.0, 90.0, 200.0]].into_iter().enumerate() {
            for (target, value) in values.into_iter().enumerate() {
                results.put("calls.p50", target, round, value);
                results.put("flood64.failed", target, round, if value > 80.0 { 1.0 } else { 0.0 });
            }
        }
        results
    }

    #[test]
    fn limits_hold_or_break() {
        let results = results();
        for (line, kept) in [
            ("calls.p50.max = 30", true),
            ("calls.p50.max = 29.9", false),
            ("calls.p50.min = 30 # comment", true),
            ("calls.p50.min = 1_000", false),
            ("calls.p50.max_of_direct = 3", true),
            ("calls.p50.max_of_direct = 2.9", false),
            ("calls.p50.max_of_mcp_remote = 0.15", true),
            ("calls.p50.max_of_mcp_remote = 0.14", false),
            // The worst round counts.
            ("flood64.failed.max = 0", false),
            ("flood64.failed.max = 1", true),
        ] {
            assert_eq!(judge(line, &results) == Verdict::Kept, kept, "{line}");
        }
    }

    #[test]
    fn what_was_not_measured_is_said_and_what_failed_is_broken() {
        let mut results = results();
        assert_eq!(judge("burst.rate.min = 1", &results), Verdict::NotMeasured("burst.rate".to_owned()));
        results.fail(Case::Burst, 1, "no answer".to_owned());
        assert!(matches!(judge("burst.rate.min = 1", &results), Verdict::Broken(text) if text.contains("no answer")));
    }

    #[test]
    fn a_bad_file_is_refused() {
        let long = "calls.p50.max = 1\n".repeat(MAX_LINES + 1);
        for text in
            ["", "# nothing\n", "calls.p50.max 3", "calls.p50.max = x", "calls.p50.most = 3", "calls.p5.max = 3", &long]
        {
            assert!(parse(text).is_err(), "{text:.40}");
        }
    }
}
