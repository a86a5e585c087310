//! What each side has seen when the dialogue is over, and the words that the sides of both eras share.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Answer, Asked, Change, End, Kind, LEVELS, Plan, Question, RAW, RESULTS, URIS};
use crate::tree::Tree;

pub(crate) const TICK: &str = "io.modelcontextprotocol/";
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct AtServer {
    /// Who its client is.
    pub(crate) hello: Option<Tree>,
    /// Each request, as often as it came, by its tag.
    pub(crate) requests: BTreeMap<usize, Vec<Tree>>,
    /// What became of its questions.
    pub(crate) answers: BTreeMap<String, Vec<Tree>>,
    pub(crate) cancelled: BTreeSet<usize>,
    pub(crate) notes: Vec<Tree>,
    /// What it watches at the end of each phase.
    pub(crate) watched: Vec<BTreeSet<String>>,
}

/// What a client has heard.
#[derive(Debug, Default)]
pub(crate) struct AtClient {
    pub(crate) hello: Vec<Tree>,
    pub(crate) outcomes: BTreeMap<usize, Vec<Tree>>,
    pub(crate) progress: BTreeMap<usize, Vec<Tree>>,
    pub(crate) logs: BTreeMap<usize, Vec<Tree>>,
    pub(crate) questions: BTreeMap<String, Vec<Tree>>,
    pub(crate) withdrawn: BTreeSet<String>,
    /// By phase, and by subscription where there is more than one.
    pub(crate) changes: BTreeMap<(usize, usize), Vec<Tree>>,
    pub(crate) acknowledged: BTreeMap<usize, Tree>,
    pub(crate) settings: BTreeMap<usize, Tree>,
    pub(crate) notes: Vec<Tree>,
}

/// A line of the server, and the request that it is about.
pub(crate) type Said = Vec<(Option<usize>, String)>;

pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(crate) fn request(id: &str, method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":{},\"params\":{params}}}", quote(method))
}

pub(crate) fn notification(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":{},\"params\":{params}}}", quote(method))
}

pub(crate) fn result(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

pub(crate) fn error(id: &str, code: i64, data: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":\"é \\u0041\"{data}}}}}")
}

/// Ids that differ in kind.
pub(crate) fn id(number: usize) -> String {
    if number.is_multiple_of(3) { format!("\"s{number}\"") } else { number.to_string() }
}

/// The members of a request's parameters, without `_meta`.
pub(crate) fn params(asked: &Asked, tag: usize) -> String {
    let own = match asked.method {
        "tools/call" => r#""name":"t\u0041","arguments":{"a":[1.0]},"#,
        "prompts/get" => r#""name":"p","arguments":{"a":"b"},"#,
        "resources/read" => r#""uri":"x:a","#,
        "completion/complete" => r#""ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""},"#,
        "com.example/do" => "",
        _ => r#""cursor":"c","#,
    };
    format!("{own}\"tag\":{tag},\"raw\":{}", RAW[asked.raw])
}

pub(crate) fn method_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Roots => "roots/list",
        Kind::Sampling | Kind::Tools => "sampling/createMessage",
        Kind::Form | Kind::Url => "elicitation/create",
    }
}

pub(crate) fn question_params(question: &Question, name: &str, legacy: bool) -> String {
    let name = quote(name);
    let raw = RAW[question.raw];
    let own = match question.kind {
        Kind::Roots => String::new(),
        Kind::Sampling => r#","messages":[],"maxTokens":1.0e1"#.into(),
        Kind::Tools => r#","messages":[],"maxTokens":1,"tools":[{"name":"x"}],"toolChoice":{"mode":"auto"}"#.into(),
        Kind::Form => r#","message":"m\u0041","requestedSchema":{"type":"object","properties":{}}"#.into(),
        Kind::Url if legacy => {
            format!(r#","mode":"url","message":"m","url":"https://x.test/é","elicitationId":{name}"#)
        }
        Kind::Url => r#","mode":"url","message":"m","url":"https://x.test/é""#.into(),
    };
    format!("{{\"q\":{name},\"raw\":{raw}{own}}}")
}

/// The client's result.
pub(crate) fn answer(question: &Question) -> String {
    let raw = RAW[question.raw];
    match (question.kind, question.answer) {
        (Kind::Roots, _) => format!(r#"{{"roots":[{{"uri":"file:///a","name":"\u0041"}}],"raw":{raw}}}"#),
        (Kind::Sampling | Kind::Tools, _) => {
            format!(r#"{{"role":"assistant","content":{{"type":"text","text":"\/"}},"model":"m","raw":{raw}}}"#)
        }
        (_, Answer::Decline) => r#"{"action":"decline"}"#.into(),
        (Kind::Form, _) => format!(r#"{{"action":"accept","content":{{"n":1.0,"raw":{raw}}}}}"#),
        (Kind::Url, _) => r#"{"action":"accept"}"#.into(),
    }
}

pub(crate) fn the_result(tag: usize, members: usize, raw: usize, more: &str) -> String {
    let members = RESULTS[members];
    let comma = if members.is_empty() { "" } else { "," };
    format!("{{{more}\"tag\":{tag},\"raw\":{}{comma}{members}}}", RAW[raw])
}

pub(crate) fn error_data(tag: usize, data: bool) -> String {
    if data { format!(",\"data\":{{\"tag\":{tag},\"n\":1.0}},\"x\":0") } else { String::new() }
}

/// A report on a request: progress, or a log message.
pub(crate) fn progress(token: &Tree, tag: usize, n: usize, away: bool) -> String {
    let params = format!(
        "{{\"progressToken\":{},\"progress\":{n}.0,\"message\":\"é\",\"tag\":{tag},\"away\":{away}}}",
        token.json()
    );
    notification("notifications/progress", &params)
}

pub(crate) fn log(level: usize, tag: usize, n: usize, away: bool) -> String {
    let level = LEVELS[level];
    let data = format!(
        "{{\"level\":\"{level}\",\"logger\":\"\\u0041\",\"data\":{{\"tag\":{tag},\"n\":{n}.0,\"away\":{away}}}}}"
    );
    notification("notifications/message", &data)
}

pub(crate) fn note(raw: usize) -> String {
    notification("notifications/com.example", &format!("{{\"raw\":{}}}", RAW[raw]))
}

/// One about a request.
pub(crate) fn note_about(tag: usize, raw: usize) -> String {
    notification("notifications/com.example", &format!("{{\"tag\":{tag},\"raw\":{}}}", RAW[raw]))
}

/// What a server says of a change, with members for its `_meta`, if it says so at all to one who wants `lists` and `uris`.
pub(crate) fn change(change: Change, meta: &str, lists: [bool; 3], uris: &BTreeSet<String>) -> Option<String> {
    match change {
        Change::List(which) if lists[which] => {
            Some(notification(&format!("notifications/{}/list_changed", LISTS[which]), &format!("{{{meta}}}")))
        }
        Change::Resource(which, inside) if uris.contains(URIS[which]) => {
            let uri = quote(&if inside { format!("{}/part", URIS[which]) } else { URIS[which].to_owned() });
            let comma = if meta.is_empty() { "" } else { "," };
            Some(notification("notifications/resources/updated", &format!("{{{meta}{comma}\"uri\":{uri},\"n\":1.0}}")))
        }
        Change::List(_) | Change::Resource(..) => None,
        Change::Note(raw) => Some(note(raw)),
    }
}

pub(crate) fn is_cacheable(method: &str) -> bool {
    matches!(method, "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read")
}

impl AtServer {
    /// Takes a request down and says which of the plan it is.
    pub(crate) fn take_request(&mut self, plan: &Plan, message: &Tree) -> usize {
        let method = message.get("method").and_then(Tree::text).expect("a method");
        let mut params = message.get("params").cloned().unwrap_or_else(Tree::empty);
        for name in ["inputResponses", "requestState"] {
            params.take(name);
        }
        let tag = params.get("tag").and_then(Tree::number).unwrap_or_else(|| {
            // The first without parameters that has not come yet.
            let all = plan.phases.iter().enumerate().flat_map(|(at, phase)| {
                phase.requests.iter().enumerate().map(move |(place, asked)| (at * 100 + place, asked))
            });
            let mut alike =
                all.filter(|(tag, asked)| asked.bare && asked.method == method && !self.requests.contains_key(tag));
            alike.next().unwrap_or_else(|| panic!("nobody asked {method}")).0
        });
        let mut seen = Tree::empty();
        seen.put("method", Tree::Text(method.to_owned()));
        seen.put("params", params);
        self.requests.entry(tag).or_default().push(seen);
        tag
    }
}

impl AtClient {
    /// A notification, unless it is none that both eras know.
    pub(crate) fn take_notification(&mut self, phase: usize, message: &Tree) -> bool {
        let method = message.get("method").and_then(Tree::text).expect("a method");
        let params = message.get("params").cloned().unwrap_or_else(Tree::empty);
        match method {
            "notifications/progress" => {
                let tag = params.get("tag").and_then(Tree::number).expect("a tag");
                self.progress.entry(tag).or_default().push(params);
            }
            "notifications/message" => {
                let tag = params.at(&["data", "tag"]).and_then(Tree::number).expect("a tag");
                self.logs.entry(tag).or_default().push(params);
            }
            "notifications/com.example" => self.notes.push(params),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => {
                let mut seen = message.clone();
                let id = seen
                    .child("params")
                    .and_then(|params| params.child("_meta"))
                    .and_then(|meta| meta.take("io.modelcontextprotocol/subscriptionId"));
                if let Some(params) = seen.child("params") {
                    drop_empty_meta(params);
                }
                if seen.get("params").is_some_and(Tree::is_empty) {
                    seen.take("params");
                }
                let listen = id.and_then(|id| id.text()?.strip_prefix("listen-")?.parse().ok()).unwrap_or(0);
                self.changes.entry((phase, listen)).or_default().push(seen);
            }
            _ => return false,
        }
        true
    }
}

pub(crate) fn drop_empty_meta(params: &mut Tree) {
    if params.get("_meta").is_some_and(Tree::is_empty) {
        params.take("_meta");
    }
}

/// Where a request of the plan is, at its server.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) token: Option<Tree>,
    pub(crate) level: Option<usize>,
    /// How much of its work is done.
    pub(crate) at: usize,
    /// How many questions were looked at, asked or not.
    pub(crate) place: usize,
    /// Names of open questions, by what names them on the wire.
    pub(crate) open: BTreeMap<String, String>,
    pub(crate) reports: usize,
    /// Reports to come before it waits for answers.
    pub(crate) meanwhile: usize,
    /// It is for the client to go on.
    pub(crate) waits: bool,
    /// A modern server's word that comes back with the retry.
    pub(crate) state: Option<String>,
}

impl Job {
    pub(crate) fn new(message: &Tree) -> Self {
        let meta = message.at(&["params", "_meta"]);
        let level = meta.and_then(|meta| meta.get(&format!("{TICK}logLevel"))).and_then(Tree::text);
        Self {
            id: message.get("id").expect("an id").json(),
            token: meta.and_then(|meta| meta.get("progressToken")).cloned(),
            level: level.and_then(|level| LEVELS.iter().position(|word| *word == level)),
            at: 0,
            place: 0,
            open: BTreeMap::new(),
            reports: 0,
            meanwhile: 0,
            waits: false,
            state: None,
        }
    }

    /// The questions of these that the client can be asked, with their names.
    pub(crate) fn next_questions(
        &mut self,
        plan: &Plan,
        tag: usize,
        questions: &[Question],
    ) -> Vec<(String, Question)> {
        let mut asked = Vec::new();
        for question in questions {
            if plan.client.can(question.kind) {
                asked.push((format!("{tag}.{}", self.place), question.clone()));
            }
            self.place += 1;
        }
        asked
    }
}

pub(crate) fn never_asked(plan: &Plan, tag: usize) -> impl Iterator<Item = String> + '_ {
    let asked = plan.asked(tag);
    let before = asked.questions().count();
    let last: &[Question] = if let End::Cancel(questions) = &asked.end { questions } else { &[] };
    last.iter()
        .enumerate()
        .filter(|(_, question)| plan.client.can(question.kind))
        .map(move |(place, _)| format!("{tag}.{}", before + place))
}
