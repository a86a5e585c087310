//! The table for people and the JSON for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::cases::Target;
use super::metrics::{Case, METRICS, Metric};
use super::results::{DIRECT, Results, Summary};
use super::session::Kind;

/// Widths of the table's columns.
const LABEL: usize = 44;
const VALUE: usize = 22;
const RATIO: usize = 14;

/// Groups of cases, with the line above each.
const GROUPS: [(&str, &[Case]); 8] = [
    ("Start and exit", &[Case::Start]),
    ("One call at a time", &[Case::Calls, Case::Pinned]),
    ("Many in flight", &[Case::Flood64, Case::Flood512, Case::Flood4096, Case::FewFiles, Case::OneCpu]),
    ("Big messages", &[Case::Json, Case::Sse, Case::Request]),
    ("Events and neighbours", &[Case::Burst, Case::Push, Case::Ticks, Case::Beside]),
    ("Both eras, both ways", &[Case::Eras]),
    ("Idle and system calls", &[Case::Idle, Case::Syscalls]),
    ("Memory", &[]),
];

/// The table. The ratios are to the direct client, to mcp-remote and, with several bridges, to the first of them.
pub(crate) fn table(results: &Results, targets: &[Target]) -> String {
    let columns = Columns::new(targets);
    let mut out = String::new();
    columns.heading(&mut out, targets);
    for (title, metrics) in groups(results, &columns) {
        let _ = writeln!(out, "\n{title}");
        for metric in metrics {
            let (label, values, ratios) = columns.cells(results, metric);
            let mut line = format!("  {label:width$}", width = LABEL - 2);
            for cell in values {
                let _ = write!(line, " {cell:>VALUE$}");
            }
            for cell in ratios {
                let _ = write!(line, " {cell:>RATIO$}");
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out.push('\n');
    out.push_str(&footnotes(results, targets));
    out
}

/// The same as a Markdown table, for docs/performance.md.
pub(crate) fn markdown(results: &Results, targets: &[Target]) -> String {
    let columns = Columns::new(targets);
    let label = |place: usize| targets.get(place).map_or("", |target| target.label.as_str());
    let mut out = String::from("| median (min to max) |");
    for &target in &columns.values {
        let _ = write!(out, " {} |", label(target));
    }
    for (target, base) in columns.ratios() {
        let _ = write!(out, " {} / {} |", label(target), label(base));
    }
    let _ = writeln!(out, "\n| --- |{}", " ---: |".repeat(columns.values.len() + columns.ratios().len()));
    for (title, metrics) in groups(results, &columns) {
        let _ = writeln!(out, "| **{title}** |{}", " |".repeat(columns.values.len() + columns.ratios().len()));
        for metric in metrics {
            let (label, values, ratios) = columns.cells(results, metric);
            let _ = writeln!(out, "| {label} | {} |", [values, ratios].concat().join(" | "));
        }
    }
    for line in footnotes(results, targets).lines() {
        let _ = writeln!(out, "\n{line}");
    }
    out
}

/// All values as JSON.
pub(crate) fn to_json(results: &Results, targets: &[Target], machine: &Value) -> Value {
    let mut metrics = Map::new();
    for metric in METRICS {
        let mut by_target = Map::new();
        for (place, target) in targets.iter().enumerate() {
            let mut about = Map::new();
            if let Some(reason) = results.failure(metric.case, place) {
                about.insert("failed".to_owned(), reason.into());
            }
            if let Some(Summary { median, min, max }) = results.summary(metric, place) {
                for (name, value) in [("median", median), ("min", min), ("max", max)] {
                    about.insert(name.to_owned(), value.into());
                }
                about.insert("rounds".to_owned(), results.rounds(metric, place).into());
            }
            if !about.is_empty() {
                by_target.insert(target.label.clone(), about.into());
            }
        }
        if !by_target.is_empty() {
            let about =
                json!({"label": metric.label, "case": metric.case.name(), "unit": metric.unit, "targets": by_target});
            metrics.insert(metric.id.to_owned(), about);
        }
    }
    json!({"machine": machine, "metrics": metrics})
}

/// A number with three or four significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 999_500.0 {
        format!("{:.2}M", value / 1e6)
    } else if size >= 9_999.5 {
        format!("{:.1}k", value / 1e3)
    } else if size >= 99.95 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.0995 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// Which targets have columns. The floor has none: its few figures are a footnote.
struct Columns {
    values: Vec<usize>,
    bridges: Vec<usize>,
    peers: Vec<usize>,
}

impl Columns {
    fn new(targets: &[Target]) -> Self {
        let places = |wanted: &dyn Fn(&Target) -> bool| {
            targets.iter().enumerate().filter(|(_, target)| wanted(target)).map(|(place, _)| place).collect()
        };
        Self {
            values: places(&|target| !matches!(target.kind, Kind::Pipe(_))),
            bridges: places(&|target| matches!(target.kind, Kind::Bridge(_)) && !target.peer),
            peers: places(&|target| target.peer),
        }
    }

    /// The pairs that have a column of ratios.
    fn ratios(&self) -> Vec<(usize, usize)> {
        let mut pairs: Vec<(usize, usize)> = self.bridges.iter().map(|&bridge| (bridge, DIRECT)).collect();
        for &peer in &self.peers {
            pairs.extend(self.bridges.iter().map(|&bridge| (bridge, peer)));
        }
        if let [first, rest @ ..] = self.bridges.as_slice() {
            pairs.extend(rest.iter().map(|other| (*other, *first)));
        }
        pairs
    }

    fn heading(&self, out: &mut String, targets: &[Target]) {
        let label = |place: usize| targets.get(place).map_or("", |target| target.label.as_str());
        let mut line = format!("{:LABEL$}", "median (min to max)");
        for &target in &self.values {
            let _ = write!(line, " {:>VALUE$}", cut(label(target), VALUE));
        }
        for (target, _) in self.ratios() {
            let _ = write!(line, " {:>RATIO$}", cut(label(target), RATIO));
        }
        let _ = writeln!(out, "{}", line.trim_end());
        let mut line = " ".repeat(LABEL + self.values.len() * (VALUE + 1));
        for (_, base) in self.ratios() {
            let _ = write!(line, " {:>RATIO$}", cut(&format!("/ {}", label(base)), RATIO));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }

    /// The label of a row, its values and its ratios.
    fn cells(&self, results: &Results, metric: &Metric) -> (String, Vec<String>, Vec<String>) {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
        let dash = || "-".to_owned();
        let value = |&target: &usize| shown(results, metric, target).unwrap_or_else(dash);
        let ratio = |(target, base): (usize, usize)| {
            // A surplus over direct divided by direct would say nothing.
            let nonsense = metric.added_to.is_some() && base == DIRECT;
            results.ratio(metric, target, base).filter(|_| !nonsense).map_or_else(dash, short)
        };
        let values = self.values.iter().map(value).collect();
        (format!("{}{unit}", metric.label), values, self.ratios().into_iter().map(ratio).collect())
    }
}

/// The groups with the measures that were taken.
fn groups(results: &Results, columns: &Columns) -> Vec<(&'static str, Vec<&'static Metric>)> {
    let mut groups = Vec::new();
    for (title, cases) in GROUPS {
        // Memory is measured in many cases and stands in a group of its own.
        let wanted = |metric: &&Metric| {
            if is_memory(metric) { cases.is_empty() } else { cases.contains(&metric.case) }
        };
        let taken = |metric: &&Metric| columns.values.iter().any(|&target| shown(results, metric, target).is_some());
        let metrics: Vec<_> = METRICS.iter().filter(wanted).filter(taken).collect();
        if !metrics.is_empty() {
            groups.push((title, metrics));
        }
    }
    groups
}

/// What stands in a value's column.
fn shown(results: &Results, metric: &Metric, target: usize) -> Option<String> {
    let failed = results.failure(metric.case, target).is_some();
    let Some(Summary { median, min, max }) = results.summary(metric, target) else {
        return failed.then(|| "failed".to_owned());
    };
    let (low, high) = (short(min), short(max));
    let range = if low == high { String::new() } else { format!(" ({low} to {high})") };
    // What was measured before the failure is shown, with a mark that says there is a note.
    Some(format!("{}{range}{}", short(median), if failed { " !" } else { "" }))
}

/// Why cases failed, and the floor's figures.
fn footnotes(results: &Results, targets: &[Target]) -> String {
    let mut out = String::new();
    for (place, target) in targets.iter().enumerate() {
        if matches!(target.kind, Kind::Pipe(_)) {
            let figures: Vec<String> = ["start.ms", "calls.p50", "pinned.p50", "flood64.rate"]
                .iter()
                .filter_map(|id| super::metrics::metric(id))
                .filter_map(|metric| Some((metric, results.summary(metric, place)?.median)))
                .map(|(metric, median)| format!("{}: {} {}", metric.id, short(median), metric.unit))
                .collect();
            if !figures.is_empty() {
                let _ = writeln!(out, "Floor of stdio, lines copied back and no server asked: {}", figures.join(", "));
            }
        }
        for (case, name) in Case::ALL {
            if let Some(reason) = results.failure(case, place) {
                let _ = writeln!(out, "{} failed {name}: {reason}", target.label);
            }
        }
    }
    out
}

fn is_memory(metric: &Metric) -> bool {
    metric.id.starts_with("memory.")
}

/// The last `width` characters: labels of several builds differ at their ends.
fn cut(text: &str, width: usize) -> String {
    let skip = text.chars().count().saturating_sub(width);
    text.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (4.0, "4"),
            (0.01234, "0.0123"),
            (1.236, "1.24"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (123.4, "123"),
            (34_567.0, "34.6k"),
            (2_345_678.0, "2.35M"),
            (-3.217, "-3.22"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn every_measure_is_in_one_group() {
        for metric in METRICS {
            let groups = GROUPS.iter().filter(|(_, cases)| cases.contains(&metric.case)).count();
            assert_eq!(groups, 1, "{}", metric.id);
        }
    }

    #[test]
    fn a_table_has_values_ratios_and_failures() {
        let target = |label: &str, peer| {
            let program = crate::app::process::Program { path: "x".into(), arguments: vec![] };
            let kind = if label == "direct" { Kind::Direct } else { Kind::Bridge(program) };
            Target { label: label.to_owned(), kind, peer }
        };
        let targets = [target("direct", false), target("bridge", false), target("peer", true)];
        let mut results = Results::default();
        for (place, value) in [10.0, 25.0, 1000.0].into_iter().enumerate() {
            results.put("calls.p50", place, 0, value);
        }
        results.put("burst.rate", 1, 0, 5e5);
        results.put("push.rate", 2, 0, 5e3);
        results.fail(Case::Burst, 2, "no answer in 40 s".to_owned());
        results.fail(Case::Push, 2, "still running".to_owned());
        let table = table(&results, &targets);
        let row = table.lines().find(|line| line.contains("small call, one at a time: p50, µs")).unwrap();
        assert_eq!(row.split_whitespace().rev().take(5).collect::<Vec<_>>(), ["0.0250", "2.50", "1000", "25", "10"]);
        assert!(
            table.contains("500.0k")
                && table.contains("5000 !")
                && table.contains("peer failed burst: no answer in 40 s")
        );
        let markdown = markdown(&results, &targets);
        assert!(
            markdown.contains("| small call, one at a time: p50, µs | 10 | 25 | 1000 | 2.50 | 0.0250 |"),
            "{markdown}"
        );
        let value = to_json(&results, &targets, &Value::Null);
        assert_eq!(value["metrics"]["calls.p50"]["targets"]["bridge"]["median"], 25.0);
        assert_eq!(value["metrics"]["burst.rate"]["targets"]["peer"]["failed"], "no answer in 40 s");
    }
}
