//! What the documents say about the program is still so: kinds of errors, flags, crates, files.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mcp_drawbridge::session::FailureKind;

const DOCUMENTS: &[&str] = &[
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/design.md",
    "docs/security.md",
    "docs/dependencies.md",
    "docs/eras.md",
];

/// Flags in the README that are not the program's.
const OTHER_FLAGS: &[&str] = &["--path", "--locked", "--quick"];

#[test]
fn every_kind_of_error_has_its_row_in_the_readme() {
    let readme = read("README.md");
    let table = readme.split("\n## When something fails").nth(1).expect("the section");
    let explained: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next())
        .flat_map(|cell| cell.split(',').map(|kind| kind.trim_matches([' ', '`'])))
        .collect();
    let used = kinds();
    assert!(used.len() > 15, "{used:?}");
    let missing: Vec<_> = used.iter().filter(|kind| !explained.contains(kind.as_str())).collect();
    assert!(missing.is_empty(), "kinds without a row in the README: {missing:?}");
    let gone: Vec<_> = explained.iter().filter(|kind| !used.contains(**kind)).collect();
    assert!(gone.is_empty(), "rows in the README for kinds that do not exist: {gone:?}");
}

/// All that `data.kind` can hold, read off the source: literals at the places where an error is made.
fn kinds() -> BTreeSet<String> {
    use FailureKind::{Connect, Cut, Dns, Malformed, Policy, Proxy, Redirect, Timeout, Tls, TooLarge};
    let of_failures = [Dns, Connect, Tls, Proxy, Timeout, Cut, TooLarge, Redirect, Policy, Malformed];
    let mut kinds: BTreeSet<String> = of_failures.iter().map(|kind| kind.word().to_owned()).collect();
    for (_, text) in sources() {
        for before in ["Trouble::new(", ".kind = ", "data(", "kind\\\":"] {
            for rest in text.split(before).skip(1) {
                let rest = rest.trim_start();
                let literal = rest.strip_prefix("\\\"").or(rest.strip_prefix('"')).unwrap_or_default();
                let word: String = literal.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                if !word.is_empty() {
                    kinds.insert(word);
                }
            }
        }
    }
    kinds
}

#[test]
fn the_readme_names_only_flags_that_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_mcp-drawbridge")).arg("--help").output().expect("it runs");
    let known = flags(&String::from_utf8_lossy(&help.stdout));
    assert!(known.contains("--header"), "{known:?}");
    let named = flags(&read("README.md"));
    let unknown: Vec<_> = named.difference(&known).filter(|flag| !OTHER_FLAGS.contains(&flag.as_str())).collect();
    assert!(unknown.is_empty(), "the README names flags that --help does not: {unknown:?}");
}

fn flags(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 3 && !word[2..].starts_with('-'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_direct_dependency_has_its_line() {
    let text = read("docs/dependencies.md");
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut count = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['=', ' ']).next().unwrap_or_default();
        let names_a_crate = section.contains("dependencies") && line.contains('=') && !line.starts_with(['#', '[']);
        if names_a_crate {
            count += 1;
            assert!(text.contains(&format!("`{name}`")), "docs/dependencies.md has no word on {name}");
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn links_and_files_are_there() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(link.contains("://") || folder.join(path).exists(), "{document} links to {link}");
        }
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_file(name)) {
            let places = [root().join(name), root().join("src").join(name)];
            assert!(places.iter().any(|place| place.exists()), "{document} names {name}, which is not there");
        }
    }
}

/// `http/guard.rs`, `tests/peers/`, `scripts/test`; not `Cargo.lock` in a home directory, nor a command with arguments.
fn is_file(name: &str) -> bool {
    let plain = !name.contains([' ', ':', '{', '~', '*', '\\', '<']);
    let ours = ["src/", "tests/", "scripts/", "docs/", "fixtures/", "examples/"];
    plain
        && (Path::new(name).extension().is_some_and(|end| end == "rs")
            || ours.iter().any(|folder| name.starts_with(folder)))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The program's source without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
                found.push((path, program));
            }
        }
    }
    found
}
