//! `docs/eras.md` has a row for every name of the published schemas, and says rightly which revisions know it.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

type Names = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// The tables, by the kinds of `names.json`.
const SECTIONS: &[(&str, &str)] = &[
    ("requests", "Requests"),
    ("notifications", "Notifications"),
    ("params", "Parameters"),
    ("results", "Result fields"),
    ("capabilities", "Capabilities"),
    ("errors", "Error codes"),
    ("meta", "Keys of `_meta`"),
];

#[test]
fn every_name_of_the_schemas_has_its_row() {
    let findings = check(&names(), &read("docs/eras.md"));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// A check that finds nothing proves nothing.
#[test]
fn planted_faults_are_found() {
    let names = names();
    let document = read("docs/eras.md");
    let plants = [
        ("`subscriptions/listen` |", "`subscriptions/open` |", "subscriptions/listen"),
        ("`subscriptions/listen` |", "`subscriptions/open` |", "subscriptions/open"),
        ("| `ping` | to 2025-11-25 |", "| `ping` | all |", "ping"),
        ("`-32042`", "`-32043`", "-32042"),
        ("`CallToolResult.structuredContent`", "`CallToolResult.content`", "CallToolResult.structuredContent"),
        ("## Capabilities", "## Abilities", "client: roots"),
    ];
    for (from, to, expected) in plants {
        assert!(document.contains(from), "{from}");
        let findings = check(&names, &document.replace(from, to));
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{to}: {findings:?}");
    }
    let cell = "passes with `_meta`";
    assert!(document.contains(cell));
    let findings = check(&names, &document.replace(&format!("| {cell} |"), "|  |"));
    assert!(findings.iter().any(|finding| finding.contains("not four cells")), "{findings:?}");
}

#[test]
fn the_names_are_those_of_all_revisions() {
    let names = names();
    let revisions: Vec<&str> = names.keys().map(String::as_str).collect();
    assert_eq!(revisions, ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]);
    for (revision, kinds) in &names {
        for method in ["tools/call", "resources/read", "sampling/createMessage"] {
            assert!(kinds["requests"].iter().any(|name| name == method), "{revision}: {method}");
        }
        assert!(kinds["results"].len() > 20 && kinds["capabilities"].len() >= 12, "{revision}");
    }
}

fn check(names: &Names, document: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (kind, title) in SECTIONS {
        let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (revision, kinds) in names {
            for name in &kinds[*kind] {
                known.entry(name).or_default().push(revision);
            }
        }
        let all: Vec<&str> = names.keys().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        for row in rows(document, title) {
            let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
            if cells.len() != 4 || cells.iter().any(|cell| cell.is_empty()) {
                findings.push(format!("{title}: not four cells: {row}"));
                continue;
            }
            for name in cells[0].split(", ").map(|name| name.trim_matches('`')) {
                match known.get(name) {
                    None if cells[1] == "text only" => {}
                    None => findings.push(format!("{title}: no schema knows {name}")),
                    Some(revisions) if span(revisions, &all) != cells[1] => {
                        findings.push(format!("{title}: {name} is of {}, not {}", span(revisions, &all), cells[1]));
                    }
                    Some(_) => {
                        if !seen.insert(name) {
                            findings.push(format!("{title}: {name} has two rows"));
                        }
                    }
                }
            }
        }
        let missing = known.keys().filter(|name| !seen.contains(**name));
        findings.extend(missing.map(|name| format!("{title}: {name} has no row")));
    }
    findings
}

/// The rows of the table under this heading.
fn rows<'a>(document: &'a str, title: &str) -> Vec<&'a str> {
    let heading = format!("\n## {title}\n");
    let Some((_, rest)) = document.split_once(&heading) else { return Vec::new() };
    let section = rest.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| `")).collect()
}

/// Revisions in words.
fn span(revisions: &[&str], all: &[&str]) -> String {
    let (first, last) = (revisions[0], revisions[revisions.len() - 1]);
    match (first == all[0], last == all[all.len() - 1]) {
        (true, true) if revisions.len() == all.len() => "all".into(),
        _ if first == last => first.into(),
        (true, _) => format!("to {last}"),
        (_, true) => format!("from {first}"),
        _ => format!("{first} to {last}"),
    }
}

fn names() -> Names {
    serde_json::from_str(&read("fixtures/eras/names.json")).expect("names.json")
}

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}
