//! The shape of the tree, held by a test: who may name whom, and what a pure module may not name.
//!
//! The picture is in `src/lib.rs`. A module may name only modules of a lower layer; a pure module may name only pure
//! modules, and nothing that reaches the network, the disk, the clock or chance. Test code (`#[cfg(test)]`) is free.

// A test file: what fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use Kind::{Checking, Doing, Pure};

/// From the bottom up. Modules in one row may not name each other, unless they are rooms of one module and of one kind. A
/// module that is not here belongs to its parent. An item that a module shows on behalf of another counts as that other's.
const LAYERS: &[&[(&str, Kind)]] = &[
    &[("secret", Pure), ("message", Pure), ("framing", Pure), ("process", Doing)],
    &[("http::guard", Pure), ("http::cookies", Pure), ("http::error", Pure)],
    &[("sse", Pure), ("era", Pure), ("stdio", Doing)],
    &[
        ("auth::error", Pure),
        ("auth::document", Pure),
        ("auth::challenge", Pure),
        ("auth::scope", Pure),
        ("auth::providers", Pure),
        ("auth::page", Pure),
        ("auth::callback", Pure),
        ("auth::browser::url", Pure),
        ("auth::browser::plan", Pure),
        ("auth::grant::callback", Pure),
        ("auth::grant::authorize", Pure),
        ("auth::registration::client", Pure),
        ("auth::resource", Pure),
        ("auth::issuer", Pure),
        ("auth::options", Pure),
    ],
    &[("credentials::command::words", Pure), ("credentials::command::output", Pure)],
    &[
        ("store::contents", Pure),
        ("store::secret_text", Pure),
        ("store::md5", Pure),
        ("store::choice", Pure),
        ("store::import::candidate", Pure),
    ],
    &[("session", Pure), ("http", Doing), ("store", Doing)],
    &[("auth", Doing), ("eras", Pure)],
    &[("credentials", Doing)],
    &[("cli", Pure), ("state", Doing), ("transport", Doing)],
    &[("log", Doing), ("bridge", Doing), ("errand", Doing)],
    &[("start", Doing)],
    &[("command", Doing)],
    &[("main", Doing), ("fuzz", Checking)],
];

/// Names that no pure module may use: a path matches when it begins with one of these. A name with `!` is a macro.
const IMPURE: &[&str] = &[
    // The network.
    "tokio",
    "reqwest",
    "hyper",
    "hyper_util",
    "rustls",
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    // The system.
    "rustix",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::std",
    "std::sync::mpsc",
    // The clock and chance.
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
    "rand",
    "getrandom",
    "ring::rand",
    // What a person sees: that is an action, or the caller's.
    "tracing",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
];

/// Nothing that runs in a user's hands may give up on purpose. Clippy says the same; this does not depend on its settings.
const GIVES_UP: &[&str] = &["unwrap", "expect", "panic!", "todo!", "unimplemented!", "unreachable!"];

/// Methods that ask the clock without naming it.
const READS_THE_CLOCK: &[&str] = &["elapsed"];

/// Lines of a file, tests included: beyond it, a second idea has come in.
const MAX_LINES: usize = 800;
/// Files that are read: more means that something else than the source is being read.
const MAX_FILES: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Takes `(now, input)`, returns actions.
    Pure,
    /// Touches the world.
    Doing,
    /// Judges the rest; here only because fuzz targets can reach no test file. It may give up, and nobody may name it.
    Checking,
}

#[test]
fn the_tree_keeps_its_layers() {
    let sources = sources();
    let shown = shown(&sources);
    let mut findings: Vec<Finding> = sources.iter().flat_map(|source| check(source, &shown)).collect();
    findings.extend(sources.iter().filter_map(too_long));
    for module in top_level(&sources) {
        if place(std::slice::from_ref(&module)).is_none() {
            findings.push(Finding {
                file: format!("src/{module}"),
                line: 1,
                what: "has no place in LAYERS: give it one".into(),
            });
        }
    }
    let report: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), report.join("\n  "));
}

#[test]
fn every_row_of_the_table_is_a_module() {
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module.join("::")).collect();
    for (name, _) in LAYERS.iter().copied().flatten() {
        assert!(modules.contains(*name), "LAYERS names {name}, which is not there");
    }
}

/// A checker that finds nothing proves nothing: each planted line must be found.
#[test]
fn planted_violations_are_found() {
    let cases: &[(&str, &str, &str)] = &[
        // (module, text, what the finding must say)
        ("sse", "use tokio::sync::mpsc;", "tokio"),
        ("sse", "fn f() { ::tokio::spawn(g()); }", "tokio"),
        ("session::link", "use std::{fs, io};", "std::fs"),
        ("session", "use std::time::Instant;\nfn f() { let _ = Instant::now(); }", "std::time::Instant::now"),
        ("session", "use std::time::Instant as Clock;\nfn f() { Clock::now(); }", "std::time::Instant::now"),
        ("session", "use std::time;\nfn f() { time::SystemTime::now(); }", "std::time::SystemTime::now"),
        ("session", "use std::time::*;", "glob"),
        ("session", "fn f(t: std::time::Instant) { t.elapsed(); }", "elapsed"),
        ("session", "use {std::fs, std::fmt};", "std::fs"),
        ("era", "fn f() { let _ = std::env::var(\"X\"); }", "std::env"),
        ("era", "fn f() { core::hint::spin_loop(); std :: /* here */ thread :: sleep(d); }", "std::thread"),
        ("message", "fn f(a: std::net::TcpStream) {}", "std::net::TcpStream"),
        ("message", "use rand::Rng as _;", "rand"),
        ("framing", "fn f() { tracing::debug!(\"x\"); }", "tracing"),
        ("framing", "fn f() { eprintln!(\"x\"); }", "eprintln!"),
        ("framing::id_scanner", "use crate::sse::Event;", "higher layer"),
        ("era", "use crate::{message, session::Session};", "higher layer"),
        ("session::timers", "fn f(x: &crate::bridge::Hands) {}", "higher layer"),
        ("session", "use crate::http::HttpClient;", "same layer"),
        ("cli", "use crate::http::HttpOptions;", "is not pure"),
        ("auth::scope", "use super::wire::Post;", "higher layer"),
        ("http::guard", "use super::HttpClient;", "higher layer"),
        ("http::guard", "use super::super::start;", "higher layer"),
        ("bridge", "use mcp_drawbridge::start;", "higher layer"),
        ("transport", "use crate::bridge::CHANNEL;", "higher layer"),
        ("session", "use crate::fuzz::envelope;", "higher layer"),
        ("stdio", "fn f(x: Option<u8>) { x.unwrap(); }", "unwrap"),
        ("start", "fn f(x: Option<u8>) { x\n    .expect(\"there\"); }", "expect"),
        ("start", "fn f() { unreachable!(\"no\") }", "unreachable!"),
        // Only the item with the attribute is test code.
        ("sse", "#[cfg(test)]\nuse std::fs;\nuse tokio::time;", "tokio"),
        ("sse", "#[cfg(test)]\nmod tests { fn f() { } }\nfn f() { std::fs::read(p); }", "std::fs"),
        ("sse", "#[cfg(not(test))]\nuse std::fs;", "std::fs"),
        // A lifetime is no character, a raw string ends where it ends.
        ("sse", "fn f<'a>(x: &'a str) -> char { '\\'' } use std::fs;", "std::fs"),
        ("sse", "const A: &str = r#\"a\"b\"#; use std::fs;", "std::fs"),
        ("sse", "/* a /* b */ c */ use std::fs;", "std::fs"),
    ];
    for (module, text, what) in cases {
        let findings = check(&source(module, text), &Shown::new());
        assert_eq!(findings.len(), 1, "{module}: {text}: {findings:?}");
        assert!(findings[0].what.contains(what), "{module}: {text}: {}", findings[0].what);
    }
    let second_line = check(&source("sse", "// first\nuse std::fs;"), &Shown::new());
    assert_eq!(second_line[0].line, 2);
    assert!(too_long(&source("sse", &"\n".repeat(MAX_LINES + 1))).is_some());
}

/// And what is allowed must pass, or the checker would be switched off one day.
#[test]
fn what_is_allowed_is_not_found() {
    let cases: &[(&str, &str)] = &[
        ("sse", "//! Unlike tokio::spawn and std::fs.\n/// `Instant::now()`\nfn f() {}"),
        ("sse", "const A: &str = \"std::fs::read\"; const B: &str = r##\"use tokio;\"##; const C: char = '\"';"),
        ("sse", "#[cfg(test)]\nmod tests {\n    use super::*;\n    fn f() { std::fs::read(p).unwrap(); }\n}"),
        ("sse", "#[cfg(test)]\n#[allow(unused)]\nuse std::thread;"),
        ("session", "fn f<'a>(x: &'a u8) -> impl Sized + use<'a> { x }"),
        ("session", "use std::time::{Duration, Instant};\nuse std::collections::HashMap;\nuse std::net::IpAddr;"),
        ("session::link", "use super::Session;\nuse crate::message::{self, Id};\nuse crate::era;"),
        ("session::link", "fn f() { let randomness = 1; let tokio_like = x.now(); }"),
        ("http::guard", "use std::net::{IpAddr, Ipv4Addr};\nuse url::Url;"),
        ("http::cookies", "use super::guard::Origin;"),
        ("store::contents", "pub(in crate::store) fn f() {}\nfn g() { for x in self::list() {} }"),
        ("http", "use self::guard::Rule;\nuse reqwest::Client;"),
        ("bridge", "use std::time::Instant;\nuse crate::session::Session;\nfn f() { Instant::now(); }"),
        ("main", "use mcp_drawbridge::{cli, start};"),
        ("fuzz::world", "use crate::session::Session;\nfn f(x: Option<u8>) { x.expect(\"kept\"); }"),
        ("stdio", "fn f(x: Option<u8>) { x.unwrap_or(1); x.unwrap_or_default(); }\nfn expect(x: u8) {}"),
    ];
    for (module, text) in cases {
        let findings = check(&source(module, text), &Shown::new());
        assert!(findings.is_empty(), "{module}: {text}: {findings:?}");
    }
}

/// What a module shows on behalf of another is the other's, wherever it is named.
#[test]
fn shown_items_count_where_they_are() {
    let http = source(
        "http",
        "mod error;\nmod client;\npub use error::{HttpError, Kind as HttpErrorKind};\npub use self::client::Client;",
    );
    let shown = shown(&[http, source("http::error", ""), source("http::client", "")]);
    let findings = |text: &str| check(&source("auth::error", text), &shown);
    assert!(findings("use crate::http::{HttpError, HttpErrorKind};").is_empty());
    assert_eq!(findings("use crate::http::Client;").len(), 1);
    assert_eq!(findings("use crate::http::Other;").len(), 1);
}

// ---- the rules ----

struct Source {
    /// As a person finds it.
    file: String,
    /// `["http", "guard"]` for `src/http/guard.rs`; empty for `src/lib.rs`.
    module: Vec<String>,
    text: String,
}

#[derive(Debug)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The layer of a module path (or of a path into it), its row of the table, and whether it is pure.
fn place(path: &[String]) -> Option<(usize, &'static str, Kind)> {
    (1..=path.len()).rev().find_map(|length| {
        let name = path[..length].join("::");
        LAYERS
            .iter()
            .enumerate()
            .find_map(|(layer, row)| row.iter().find(|(n, _)| *n == name).map(|(n, kind)| (layer, *n, *kind)))
    })
}

/// Paths of items, and where they are defined.
type Shown = BTreeMap<Vec<String>, Vec<String>>;

fn shown(sources: &[Source]) -> Shown {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let mut shown = Shown::new();
    for source in sources {
        for import in imports(&without_tests(&lex(&source.text))) {
            let room = [source.module.as_slice(), &import.path[..1]].concat();
            let path = if modules.contains(room.as_slice()) {
                Some([source.module.as_slice(), &import.path].concat())
            } else {
                resolve(&import.path, &source.module)
            };
            if let Some(path) = path.filter(|_| import.public && !import.glob) {
                shown.insert([source.module.as_slice(), &[import.alias]].concat(), path);
            }
        }
    }
    shown
}

/// Where the item at the end of a path really is.
fn real(mut path: Vec<String>, shown: &Shown) -> Vec<String> {
    // A chain is short; a circle does not compile.
    for _ in 0..4 {
        let Some((length, other)) =
            (1..=path.len()).rev().find_map(|length| shown.get(&path[..length]).map(|other| (length, other)))
        else {
            break;
        };
        path = [other.as_slice(), &path[length..]].concat();
    }
    path
}

fn check(source: &Source, shown: &Shown) -> Vec<Finding> {
    let tokens = without_tests(&lex(&source.text));
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| findings.push(Finding { file: source.file.clone(), line, what });
    let placed = place(&source.module);
    if placed.is_none_or(|(_, _, kind)| kind != Checking) {
        for (line, name) in calls(&tokens, GIVES_UP) {
            find(line, format!("{name} gives up; return an error"));
        }
    }
    let Some((layer, unit, kind)) = placed else { return findings };
    if kind == Pure {
        for (line, name) in calls(&tokens, READS_THE_CLOCK) {
            find(line, format!("{unit} is pure and calls {name}, which reads the clock"));
        }
    }
    for Named { line, path, glob } in names(&tokens) {
        let Some(path) = resolve(&path, &source.module) else {
            if kind == Pure && glob && matches!(path[0].as_str(), "std" | "tokio") {
                find(line, format!("glob import of {} hides what is used", path.join("::")));
            } else if let Some(word) = impure(&path).filter(|_| kind == Pure) {
                find(line, format!("{unit} is pure and names {} ({word})", path.join("::")));
            }
            continue;
        };
        let path = real(path, shown);
        let Some((other_layer, other, other_kind)) = place(&path) else { continue };
        let rooms_of_one = source.module.first() == path.first() && other_kind == kind;
        if other == unit || rooms_of_one {
            continue;
        }
        if other_layer > layer {
            find(line, format!("{unit} names {other}, of a higher layer"));
        } else if other_layer == layer {
            find(line, format!("{unit} names {other}, of the same layer"));
        } else if kind == Pure && other_kind != Pure {
            find(line, format!("{unit} is pure and names {other}, which is not pure"));
        }
    }
    findings
}

fn impure(path: &[String]) -> Option<&'static str> {
    let mut text = path.join("::");
    if let Some(rest) = text.strip_prefix("core::").or(text.strip_prefix("alloc::")) {
        text = format!("std::{rest}");
    }
    IMPURE.iter().copied().find(|word| {
        // `std::net::Tcp` and `std::io::std` stand for the names that begin so; a crate stands for itself.
        let whole_crate = !word.contains("::") && !word.ends_with('!');
        if whole_crate { path[0] == *word } else { text.starts_with(word) }
    })
}

/// The path inside this crate that a name leads to; `None` if it leads elsewhere.
fn resolve(path: &[String], module: &[String]) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" | "mcp_drawbridge" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let stay = module.len().checked_sub(ups)?;
            Some([&module[..stay], &path[ups..]].concat())
        }
        _ => None,
    }
}

fn calls(tokens: &[Token], names: &[&'static str]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let text = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text.as_str());
        for name in names {
            let called = match name.strip_suffix('!') {
                Some(name) => token.text == name && text(1) == "!",
                None => token.text == "." && text(1) == *name && text(2) == "(",
            };
            if called {
                found.push((token.line, *name));
            }
        }
    }
    found
}

fn too_long(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, at most {MAX_LINES}: split it where the second idea begins");
    (lines > MAX_LINES).then(|| Finding { file: source.file.clone(), line: lines, what })
}

// ---- the source ----

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 10 && paths.len() < MAX_FILES, "{} files", paths.len());
    let test_files = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    paths.iter().filter(|path| !test_files(path)).map(|path| read(&root, path)).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // `tests/` beside `mod tests;` is test code, as `tests.rs` is.
            if path.file_name().is_some_and(|name| name != "tests") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> Source {
    let relative = path.strip_prefix(root).unwrap().with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    assert!(module.last().is_some_and(|name| name != "mod"), "{}: name.rs beside name/, no mod.rs", path.display());
    if module == ["lib"] {
        module.clear();
    }
    let file = format!("src/{}.rs", relative.to_str().unwrap());
    Source { file, module, text: fs::read_to_string(path).unwrap() }
}

fn top_level(sources: &[Source]) -> BTreeSet<String> {
    sources.iter().filter_map(|source| source.module.first().cloned()).collect()
}

fn source(module: &str, text: &str) -> Source {
    let module = module.split("::").map(str::to_owned).collect();
    Source { file: "planted".into(), module, text: text.into() }
}

// ---- names in Rust text ----

/// A path as written, spelled out through the imports of its file.
struct Named {
    line: usize,
    path: Vec<String>,
    glob: bool,
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

/// Identifiers and punctuation; comments and literals leave nothing.
fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match chars[i] {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 1;
                i += 2;
                while i < chars.len() && depth > 0 {
                    let step = match (chars[i], at(i + 1)) {
                        ('/', '*') => (1, 2),
                        ('*', '/') => (-1, 2),
                        _ => (0, 1),
                    };
                    depth += step.0;
                    i += step.1;
                }
            }
            '"' => i = string_end(&chars, i + 1),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' => {
                // A lifetime.
                i += 1;
                while is_word(at(i)) {
                    i += 1;
                }
            }
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                match word.as_str() {
                    "r" | "br" | "cr" if at(i + hashes) == '"' => i = raw_end(&chars, i + hashes + 1, hashes),
                    "b" | "c" if at(i) == '"' => i = string_end(&chars, i + 1),
                    "r" if hashes == 1 && is_word(at(i + 1)) => i += 1,
                    _ => tokens.push(Token { line, text: word }),
                }
            }
            c if c.is_whitespace() => i += 1,
            ':' if at(i + 1) == ':' => {
                tokens.push(Token { line, text: "::".into() });
                i += 2;
            }
            c => {
                tokens.push(Token { line, text: c.into() });
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn string_end(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_end(chars: &[char], mut i: usize, hashes: usize) -> usize {
    while i < chars.len() {
        i += 1;
        if chars[i - 1] == '"' && chars[i..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return i + hashes;
        }
    }
    i
}

/// Leaves out each item that has `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if texts[i..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            i += 7;
            while texts.get(i) == Some(&"#") {
                i = group_end(&texts, i + 1);
            }
            while i < texts.len() && !matches!(texts[i], ";" | "{") {
                i = if matches!(texts[i], "(" | "[") { group_end(&texts, i) } else { i + 1 };
            }
            // `use a::{b, c};` has its braces before its end.
            let braces = texts.get(i) == Some(&"{");
            i = if braces { group_end(&texts, i) } else { i + 1 };
            if braces && texts.get(i) == Some(&";") {
                i += 1;
            }
        } else {
            kept.push(i);
            i += 1;
        }
    }
    kept.into_iter().map(|i| tokens[i].clone()).collect()
}

/// The place after the bracket that closes the one at `i`.
fn group_end(texts: &[&str], mut i: usize) -> usize {
    let mut depth = 0;
    while i < texts.len() {
        match texts[i] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}

/// One name that a `use` brings in.
struct Import {
    line: usize,
    alias: String,
    path: Vec<String>,
    glob: bool,
    public: bool,
}

/// The imports of a file, each path spelled out.
fn imports(tokens: &[Token]) -> Vec<Import> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let Some(end) = import_end(tokens, i) else {
            i += 1;
            continue;
        };
        // `pub use`, `pub(crate) use`.
        let public = i > 0 && matches!(tokens[i - 1].text.as_str(), "pub" | ")");
        let mut tree = Vec::new();
        use_tree(tokens, i + 1, &[], &mut tree);
        let line = tokens[i].line;
        found.extend(tree.into_iter().map(|(alias, path, glob)| Import { line, alias, path, glob, public }));
        i = end;
    }
    found
}

/// The place after the import that begins here, if one does. `use<'a>` is a bound, no import.
fn import_end(tokens: &[Token], i: usize) -> Option<usize> {
    let begins = tokens[i].text == "use" && tokens.get(i + 1).is_some_and(|next| next.text != "<");
    begins.then(|| i + tokens[i..].iter().take_while(|token| token.text != ";").count())
}

fn names(tokens: &[Token]) -> Vec<Named> {
    let imports = imports(tokens);
    let aliases: BTreeMap<&str, &Vec<String>> =
        imports.iter().filter(|import| !import.glob).map(|import| (import.alias.as_str(), &import.path)).collect();
    let mut found: Vec<Named> = imports
        .iter()
        .map(|import| Named { line: import.line, path: import.path.clone(), glob: import.glob })
        .collect();
    let mut rest: Vec<Token> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if let Some(end) = import_end(tokens, i) {
            i = end;
        } else {
            rest.push(tokens[i].clone());
            i += 1;
        }
    }
    let mut i = 0;
    while i < rest.len() {
        if !rest[i].is_name() {
            i += 1;
            continue;
        }
        let (line, before) = (rest[i].line, i.checked_sub(1).map_or("", |i| rest[i].text.as_str()));
        // `pub(in crate::store)` says who may see, and names nothing.
        let visibility = before == "in" && i > 1 && rest[i - 2].text == "(";
        let mut path = vec![rest[i].text.clone()];
        i += 1;
        while i + 1 < rest.len() && rest[i].text == "::" && rest[i + 1].is_name() {
            path.push(rest[i + 1].text.clone());
            i += 2;
        }
        let next = rest.get(i).map_or("", |token| token.text.as_str());
        if next == "!" && path.len() == 1 {
            path[0].push('!');
        }
        // A field, a method or a name that is being declared is no path.
        let is_path = path.len() > 1 || path[0].ends_with('!');
        if !is_path || before == "." || visibility {
            continue;
        }
        if let Some(&full) = aliases.get(path[0].as_str()).filter(|_| before != "::") {
            path = full.iter().chain(&path[1..]).cloned().collect();
            // The import itself was found already.
            if impure(full).is_some() || resolve(full, &[]).is_some() {
                continue;
            }
        }
        found.push(Named { line, path, glob: false });
    }
    found
}

/// Reads one tree of a `use`, and returns the place of what follows it: `;`, `,` or `}`.
fn use_tree(tokens: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<(String, Vec<String>, bool)>) -> usize {
    let text = |i: usize| tokens.get(i).map_or(";", |token| token.text.as_str());
    let mut path = prefix.to_vec();
    loop {
        match text(i) {
            "::" => i += 1,
            "{" => {
                i += 1;
                while !matches!(text(i), "}" | ";") {
                    i = use_tree(tokens, i, &path, out);
                    i += usize::from(text(i) == ",");
                }
                return i + 1;
            }
            "*" => {
                out.push(("*".into(), path, true));
                return i + 1;
            }
            "as" => {
                out.push((text(i + 1).to_owned(), path, false));
                return i + 2;
            }
            ";" | "," | "}" => {
                // `self` in braces stands for what is before them.
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                out.push((path.last().cloned().unwrap_or_default(), path, false));
                return i;
            }
            name => {
                path.push(name.to_owned());
                i += 1;
            }
        }
    }
}
