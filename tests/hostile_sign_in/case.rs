//! The cases of `fixtures/hostile-sign-in`: what they may say is in the README there.

use std::path::Path;

use serde_json::{Map, Value};

use crate::front::Tls;

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Begins with `row N: `.
    pub name: String,
    pub row: u32,
    /// A defect that is known and not mended yet: the case must fail.
    pub open: Option<String>,
    /// On loopback without TLS, instead of public names.
    pub loopback: bool,
    pub tls: Tls,
    /// Runs of the bridge with one home, one after the other.
    pub runs: Vec<Run>,
}

/// One run of the bridge.
#[derive(Debug, Clone)]
pub struct Run(Map<String, Value>);

impl Case {
    /// All cases, by file.
    pub fn all() -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile-sign-in");
        let mut paths: Vec<_> = std::fs::read_dir(directory)
            .expect("the fixtures")
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        paths.sort();
        let mut cases = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            let list: Vec<Value> =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases.extend(list.into_iter().map(Self::read));
        }
        cases
    }

    /// One case.
    pub fn read(value: Value) -> Self {
        let Value::Object(mut members) = value else { panic!("a case is an object: {value}") };
        let text = |value: Option<Value>| value.map(|value| value.as_str().expect("a text").to_owned());
        let name = text(members.remove("name")).expect("a case has a name");
        let row =
            name.strip_prefix("row ").and_then(|rest| rest.split_once(": ")).and_then(|(row, _)| row.parse().ok());
        let row = row.unwrap_or_else(|| panic!("a case's name begins with its row: {name}"));
        let open = text(members.remove("open"));
        let loopback = match text(members.remove("world")).as_deref() {
            None => false,
            Some("loopback") => true,
            Some(other) => panic!("{name}: no such world: {other}"),
        };
        let tls = match text(members.remove("tls")).as_deref() {
            None => Tls::Good,
            Some("wrong-name") => Tls::WrongName,
            Some("unknown-ca") => Tls::UnknownCa,
            Some("expired") => Tls::Expired,
            Some(other) => panic!("{name}: no such certificate: {other}"),
        };
        let runs = match members.remove("runs") {
            None => vec![Run(members)],
            Some(Value::Array(runs)) => runs
                .into_iter()
                .map(|run| {
                    let mut whole = members.clone();
                    let Value::Object(run) = run else { panic!("{name}: a run is an object") };
                    whole.extend(run);
                    Run(whole)
                })
                .collect(),
            Some(_) => panic!("{name}: runs is a list"),
        };
        for run in &runs {
            run.check(&name);
        }
        Self { name, row, open, loopback, tls, runs }
    }
}

/// What a run may say.
#[rustfmt::skip]
const MEMBERS: [&str; 24] = [
    "about", "before", "pause", "revoked", "bridges", "dies", "old_tab",
    "args", "env", "server", "challenge", "resource", "metadata", "expires_in", "replies", "browser", "pastes", "calls",
    "want", "says", "asks", "counts", "tabs", "url",
];

impl Run {
    fn check(&self, name: &str) {
        for member in self.0.keys() {
            assert!(MEMBERS.contains(&member.as_str()), "{name}: no such member: {member}");
        }
        assert!(self.0.contains_key("want"), "{name}: a case says what it wants");
    }

    pub fn get(&self, member: &str) -> Option<&Value> {
        self.0.get(member)
    }

    pub fn text(&self, member: &str) -> Option<&str> {
        self.get(member).map(|value| value.as_str().unwrap_or_else(|| panic!("{member} is a text")))
    }

    pub fn list(&self, member: &str) -> &[Value] {
        self.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub fn texts(&self, member: &str) -> Vec<String> {
        self.list(member).iter().map(|value| value.as_str().expect("a text").to_owned()).collect()
    }
}

/// A text of a fixture: a string, an object (as JSON), or a list of pieces, in which `["x", 1000]` stands for a thousand times `x`.
pub fn text_of(value: &Value) -> String {
    let piece = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(pair) => {
            let count = usize::try_from(pair[1].as_u64().expect("a count")).unwrap();
            pair[0].as_str().expect("a text").repeat(count)
        }
        other => panic!("no piece: {other}"),
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(pieces) => pieces.iter().map(piece).collect(),
        other => other.to_string(),
    }
}
