//! The list of measures: what the report prints, in its order, and what a budget may name.

/// One run with one program, from which one or several measures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    Start,
    Calls,
    Pinned,
    Flood64,
    Flood512,
    Flood4096,
    FewFiles,
    OneCpu,
    Json,
    Sse,
    Request,
    Burst,
    Push,
    Ticks,
    Beside,
    Eras,
    Idle,
    Syscalls,
}

impl Case {
    /// All cases with the names that `--only` takes.
    pub(crate) const ALL: [(Self, &'static str); 18] = [
        (Self::Start, "start"),
        (Self::Calls, "calls"),
        (Self::Pinned, "pinned"),
        (Self::Flood64, "flood64"),
        (Self::Flood512, "flood512"),
        (Self::Flood4096, "flood4096"),
        (Self::FewFiles, "few_files"),
        (Self::OneCpu, "one_cpu"),
        (Self::Json, "json"),
        (Self::Sse, "sse"),
        (Self::Request, "request"),
        (Self::Burst, "burst"),
        (Self::Push, "push"),
        (Self::Ticks, "ticks"),
        (Self::Beside, "beside"),
        (Self::Eras, "eras"),
        (Self::Idle, "idle"),
        (Self::Syscalls, "syscalls"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(case, _)| *case == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(case, _)| *case)
    }
}

/// One line of the report.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) id: &'static str,
    pub(crate) case: Case,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    /// A count with one right value: a budget looks at the worst round instead of the median.
    pub(crate) exact: bool,
    /// The measure that this one is the surplus of, over the direct client in the same round.
    pub(crate) added_to: Option<&'static str>,
}

/// All measures.
pub(crate) const METRICS: &[Metric] = &[
    timed("start.ms", Case::Start, "exec to `initialize` answered", "ms"),
    timed("start.cpu", Case::Start, "CPU of that and the first call", "ms"),
    exact("start.first_requests", Case::Start, "HTTP requests until it was answered"),
    exact("start.requests", Case::Start, "HTTP requests until the first call was answered"),
    exact("start.connections", Case::Start, "connections until then"),
    timed("start.exit", Case::Start, "exit after stdin is closed", "ms"),
    timed("calls.p50", Case::Calls, "small call, one at a time: p50", "µs"),
    timed("calls.p99", Case::Calls, "p99", "µs"),
    timed("calls.p999", Case::Calls, "p99.9", "µs"),
    timed("calls.wakeups", Case::Calls, "wake-ups per call", ""),
    timed("pinned.p50", Case::Pinned, "small call, all on one CPU: p50", "µs"),
    timed("pinned.p99", Case::Pinned, "p99", "µs"),
    timed("pinned.p999", Case::Pinned, "p99.9", "µs"),
    added("pinned.added", Case::Pinned, "p50 added to direct", "µs", "pinned.p50"),
    timed("pinned.cpu", Case::Pinned, "CPU per 10,000 calls", "ms"),
    timed("flood64.rate", Case::Flood64, "64 in flight", "req/s"),
    timed("flood64.cpu", Case::Flood64, "CPU per 10,000 requests", "ms"),
    exact("flood64.failed", Case::Flood64, "without a result, or answered twice"),
    timed("flood512.rate", Case::Flood512, "512 in flight", "req/s"),
    exact("flood512.failed", Case::Flood512, "without a result, or answered twice"),
    timed("flood4096.rate", Case::Flood4096, "4096 in flight", "req/s"),
    exact("flood4096.failed", Case::Flood4096, "without a result, or answered twice"),
    exact("flood4096.connections", Case::Flood4096, "most connections at once"),
    timed("few_files.rate", Case::FewFiles, "512 in flight with 256 open files", "req/s"),
    exact("few_files.failed", Case::FewFiles, "without a result, or answered twice"),
    timed("one_cpu.rate", Case::OneCpu, "bridge alone on a CPU, 64 in flight", "req/s"),
    timed("one_cpu.p50", Case::OneCpu, "350 calls a second: p50", "µs"),
    added("one_cpu.added", Case::OneCpu, "p50 added to direct", "µs", "one_cpu.p50"),
    timed("one_cpu.p99", Case::OneCpu, "p99", "µs"),
    timed("json.rate", Case::Json, "50 MB answer as JSON", "MB/s"),
    timed("json.linear", Case::Json, "its rate over that of 1 MB", ""),
    timed("sse.rate", Case::Sse, "50 MB answer as SSE", "MB/s"),
    timed("sse.linear", Case::Sse, "its rate over that of 1 MB", ""),
    timed("request.rate", Case::Request, "10 MB request", "MB/s"),
    timed("burst.rate", Case::Burst, "100,000 progress notifications", "events/s"),
    exact("burst.lost", Case::Burst, "lost"),
    exact("burst.late", Case::Burst, "after their answer"),
    exact("burst.disorder", Case::Burst, "out of order"),
    timed("push.rate", Case::Push, "100,000 on the GET stream", "events/s"),
    exact("push.lost", Case::Push, "lost"),
    exact("push.disorder", Case::Push, "out of order"),
    timed("ticks.p50", Case::Ticks, "delay of a single event: p50", "µs"),
    added("ticks.added", Case::Ticks, "p50 added to direct", "µs", "ticks.p50"),
    timed("beside.p99", Case::Beside, "fast calls beside a slow one: p99", "µs"),
    timed("beside100.p99", Case::Beside, "beside 100 slow ones: p99", "µs"),
    timed("eras.legacy", Case::Eras, "small call, one CPU, legacy to legacy: p50", "µs"),
    timed("eras.up", Case::Eras, "legacy client, modern server", "µs"),
    timed("eras.up_ratio", Case::Eras, "over legacy to legacy", ""),
    timed("eras.modern", Case::Eras, "modern to modern", "µs"),
    timed("eras.down", Case::Eras, "modern client, legacy server", "µs"),
    timed("eras.down_ratio", Case::Eras, "over modern to modern", ""),
    timed("eras.up_big", Case::Eras, "50 MB answer, legacy client, modern server", "MB/s"),
    timed("eras.down_big", Case::Eras, "50 MB answer, modern client, legacy server", "MB/s"),
    timed("eras.up_peak", Case::Eras, "peak, legacy client, modern server", "MiB"),
    timed("eras.down_peak", Case::Eras, "peak, modern client, legacy server", "MiB"),
    timed("memory.idle", Case::Calls, "resident after 1 call", "MiB"),
    timed("memory.calls", Case::Flood64, "after 10,000 calls", "MiB"),
    timed("memory.flood", Case::Flood4096, "after 4096 in flight", "MiB"),
    timed("memory.json_peak", Case::Json, "peak of a 50 MB JSON answer", "MiB"),
    timed("memory.json_after", Case::Json, "after it", "MiB"),
    timed("memory.sse_peak", Case::Sse, "peak of a 50 MB SSE answer", "MiB"),
    timed("memory.sse_after", Case::Sse, "after it", "MiB"),
    timed("memory.request_peak", Case::Request, "peak of a 10 MB request", "MiB"),
    timed("idle.cpu", Case::Idle, "idle, GET stream open: CPU", "ms"),
    timed("idle.wakeups", Case::Idle, "wake-ups", ""),
    timed("syscalls.start", Case::Syscalls, "system calls of start, 1 call, exit", ""),
    timed("syscalls.call", Case::Syscalls, "per call", ""),
    timed("syscalls.event", Case::Syscalls, "per event in a burst", ""),
];

/// The measure of this name.
pub(crate) fn metric(id: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}

const fn timed(id: &'static str, case: Case, label: &'static str, unit: &'static str) -> Metric {
    Metric { id, case, label, unit, exact: false, added_to: None }
}

const fn exact(id: &'static str, case: Case, label: &'static str) -> Metric {
    Metric { id, case, label, unit: "", exact: true, added_to: None }
}

const fn added(id: &'static str, case: Case, label: &'static str, unit: &'static str, base: &'static str) -> Metric {
    Metric { id, case, label, unit, exact: false, added_to: Some(base) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bases_exist() {
        for (at, one) in METRICS.iter().enumerate() {
            assert!(METRICS.iter().skip(at + 1).all(|other| other.id != one.id), "{}", one.id);
            assert!(
                one.added_to.is_none_or(|base| metric(base).is_some_and(|base| base.case == one.case)),
                "{}",
                one.id
            );
        }
    }

    #[test]
    fn every_case_has_a_name_and_a_measure() {
        for (case, name) in Case::ALL {
            assert_eq!(Case::from_name(name), Some(case));
            assert_eq!(case.name(), name);
            assert!(METRICS.iter().any(|metric| metric.case == case), "{name}");
        }
    }
}
