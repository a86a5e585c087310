//! A legal dialogue, before anybody has said a word of it: what the client will ask, what the server will do about it, who answers what.

use proptest::collection::vec;
use proptest::prelude::*;

/// The levels of a log, the most verbose first.
pub(crate) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// Resources. The server tells of no changes to the last.
pub(crate) const URIS: [&str; 4] = ["x:a", "x:b", "y:\u{e9} \"", "x:refused"];
pub(crate) const METHODS: [&str; 9] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "completion/complete",
    "com.example/do",
];
/// What an honest bridge leaves as it is: spellings of numbers and strings, order, members given twice.
pub(crate) const RAW: [&str; 5] = [
    "{}",
    r#"{"n":1.0e2,"m":12345678901234567890123,"tiny":1e-400}"#,
    r#"{"z":1,"a":2,"z":3}"#,
    r#"{"s":"\u0041\/\ud83d\ude00 é","_meta":{"io.modelcontextprotocol/protocolVersion":"no"},"resultType":"odd"}"#,
    r#"[ {"requestState" : "no"} , null, [ ], -0 ]"#,
];

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) client: Client,
    pub(crate) server: Server,
    /// Each message of the server about a request comes on that request's stream. Else it is not known where it belongs.
    pub(crate) streams: bool,
    pub(crate) phases: Vec<Phase>,
    /// Who goes next.
    pub(crate) order: Vec<u8>,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Client {
    pub(crate) version: &'static str,
    pub(crate) roots: bool,
    pub(crate) sampling: bool,
    pub(crate) tools: bool,
    pub(crate) form: bool,
    pub(crate) url: bool,
    pub(crate) extra: bool,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Server {
    pub(crate) lists: [bool; 3],
    pub(crate) subscribe: bool,
    pub(crate) logging: bool,
    pub(crate) extra: bool,
}

/// Requests that may be in flight at one time, and what the two settle before.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) before: Vec<Setting>,
    pub(crate) requests: Vec<Asked>,
    pub(crate) changes: Vec<Change>,
    /// In an array, where the revision knows it.
    pub(crate) batch: bool,
    /// A legacy server asks on the notification stream.
    pub(crate) aside: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Setting {
    Level(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Ping,
    RootsChanged,
    Note(usize),
    Discover,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    List(usize),
    /// A resource, or one inside of it.
    Resource(usize, bool),
    Note(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) bare: bool,
    pub(crate) token: Option<bool>,
    pub(crate) level: Option<usize>,
    pub(crate) raw: usize,
    pub(crate) meta: bool,
    pub(crate) work: Vec<Work>,
    pub(crate) end: End,
}

#[derive(Debug, Clone)]
pub(crate) enum Work {
    Progress,
    Log(usize),
    /// Questions, and how often something is reported while they are open.
    Ask(Vec<Question>, usize),
    /// A modern server that wants to be asked again.
    Pause,
    Ping,
    Note(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Members of the result.
    Result(usize, usize),
    Error(i64, bool),
    /// A URL must be visited first: error -32042.
    Visit(bool),
    /// The client does not answer these, and does not want the answer any more.
    Cancel(Vec<Question>),
}

#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) raw: usize,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Roots,
    Sampling,
    Tools,
    Form,
    Url,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    Decline,
    /// An error (legacy clients).
    Refuse,
    /// Not in the first retry (modern clients).
    Later,
    Never,
}

/// Members of results that mean something: to this era, to the other, or to nobody.
pub(crate) const RESULTS: [&str; 9] = [
    "",
    r#""content":[{"type":"text","text":"t"}],"isError":true"#,
    r#""content":[],"structuredContent":{"a":1.50}"#,
    r#""ttlMs":5,"cacheScope":"public""#,
    r#""ttlMs":-5,"cacheScope":"all""#,
    r#""tools":[{"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"object"},"execution":{"taskSupport":"optional"}}],"nextCursor":"n""#,
    r#""_meta":{"com.example/m":1e0}"#,
    r#""contents":[{"uri":"x:a","text":"\u0041"}]"#,
    r#""messages":[],"description":null"#,
];
pub(crate) const CODES: [i64; 10] = [-32601, -32602, -32603, -32000, -32001, -32002, -32020, -32050, 7, -32700];

impl Client {
    pub(crate) fn can(&self, kind: Kind) -> bool {
        match kind {
            Kind::Roots => self.roots,
            Kind::Sampling => self.sampling,
            Kind::Tools => self.sampling && self.tools,
            Kind::Form => self.form,
            Kind::Url => self.url,
        }
    }

    pub(crate) fn capabilities(&self, legacy: bool) -> String {
        let mut members = Vec::new();
        if self.roots {
            members.push(if legacy { r#""roots":{"listChanged":true}"# } else { r#""roots":{}"# });
        }
        match (self.sampling, self.tools) {
            (true, true) => members.push(r#""sampling":{"tools":{}}"#),
            (true, false) => members.push(r#""sampling":{}"#),
            _ => {}
        }
        match (self.form, self.url) {
            (true, false) => members.push(r#""elicitation":{}"#),
            (false, true) => members.push(r#""elicitation":{"url":{}}"#),
            (true, true) => members.push(r#""elicitation":{"form":{},"url":{}}"#),
            _ => {}
        }
        if self.extra {
            members.push(r#""experimental":{"com.example":{"n":1}},"extensions":{"com.example/x":{}}"#);
            if legacy {
                members.push(r#""tasks":{"list":{}}"#);
            }
        }
        format!("{{{}}}", members.join(","))
    }
}

impl Server {
    pub(crate) fn capabilities(&self, legacy: bool) -> String {
        let [tools, prompts, resources] = self.lists;
        let mut members = vec![
            format!("\"tools\":{{\"listChanged\":{tools}}}"),
            format!("\"prompts\":{{\"listChanged\":{prompts}}}"),
            format!("\"resources\":{{\"listChanged\":{resources},\"subscribe\":{}}}", self.subscribe),
            "\"completions\":{}".to_owned(),
        ];
        if self.logging {
            members.push("\"logging\":{}".into());
        }
        if self.extra {
            members.push(r#""extensions":{"com.example/x":{"a":[1]}}"#.into());
            if legacy {
                members.push(r#""tasks":{"list":{}}"#.into());
            }
        }
        format!("{{{}}}", members.join(","))
    }

    pub(crate) fn extra(&self) -> &'static str {
        if self.extra { r#","instructions":"Be \"kind\" \u0041","com.example/more":{"n":1.0}"# } else { "" }
    }

    pub(crate) const INFO: &'static str = r#"{"name":"s","version":"1","x":1e1}"#;
}

impl Asked {
    /// An `InputRequiredResult` may be its answer.
    pub(crate) fn carries(&self) -> bool {
        matches!(self.method, "tools/call" | "prompts/get" | "resources/read")
    }

    /// The client answers one of its questions with an error.
    pub(crate) fn is_refused(&self, client: &Client) -> bool {
        self.questions().any(|question| question.answer == Answer::Refuse && client.can(question.kind))
    }

    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.work.iter().flat_map(|work| if let Work::Ask(questions, _) = work { &questions[..] } else { &[] })
    }
}

impl Plan {
    pub(crate) fn asked(&self, tag: usize) -> &Asked {
        &self.phases[tag / 100].requests[tag % 100]
    }

    /// The question that is named so: its request and its place.
    pub(crate) fn question(&self, name: &str) -> &Question {
        let (tag, place) = name.split_once('.').expect("a name of a question");
        let asked = self.asked(tag.parse().expect("a number"));
        let place: usize = place.parse().expect("a number");
        let last: &[Question] = if let End::Cancel(questions) = &asked.end { questions } else { &[] };
        asked.questions().chain(last).nth(place).expect("it was planned")
    }
}

fn question(legacy: bool) -> impl Strategy<Value = Question> {
    let kind =
        prop_oneof![Just(Kind::Form), Just(Kind::Roots), Just(Kind::Sampling), Just(Kind::Tools), Just(Kind::Url)];
    let last = if legacy { Answer::Refuse } else { Answer::Later };
    let answer = prop_oneof![4 => Just(Answer::Accept), 2 => Just(Answer::Decline), 1 => Just(last)];
    (kind, 0..RAW.len(), answer).prop_map(|(kind, raw, answer)| Question { kind, raw, answer })
}

fn work(legacy: bool) -> impl Strategy<Value = Work> {
    prop_oneof![
        3 => Just(Work::Progress),
        2 => (0..LEVELS.len()).prop_map(Work::Log),
        3 => (vec(question(legacy), 1..4), 0..3_usize).prop_map(|(questions, meanwhile)| Work::Ask(questions, meanwhile)),
        1 => Just(if legacy { Work::Ping } else { Work::Pause }),
        1 => (0..RAW.len()).prop_map(Work::Note),
    ]
}

fn end(legacy: bool) -> impl Strategy<Value = End> {
    let never = vec(question(legacy), 0..3).prop_map(|mut questions| {
        for question in &mut questions {
            question.answer = Answer::Never;
        }
        End::Cancel(questions)
    });
    let result = (0..RESULTS.len(), 0..RAW.len()).prop_map(|(members, raw)| End::Result(members, raw));
    let error = (0..CODES.len(), any::<bool>()).prop_map(|(code, data)| End::Error(CODES[code], data));
    let visit = if legacy { any::<bool>().prop_map(End::Visit).boxed() } else { result.clone().boxed() };
    prop_oneof![6 => result, 2 => error, 1 => visit, 2 => never]
}

prop_compose! {
    fn asked(legacy: bool)(
        method in prop_oneof![3 => Just(0), 6 => 0..METHODS.len()],
        bare in prop::bool::weighted(0.1),
        token in prop::option::of(any::<bool>()),
        level in prop::option::of(0..LEVELS.len()),
        raw in 0..RAW.len(),
        meta in any::<bool>(),
        mut work in vec(work(legacy), 0..4),
        end in end(legacy),
    ) -> Asked {
        let method = METHODS[method];
        let bare = bare && method.ends_with("/list");
        let token = if bare { None } else { token };
        if bare {
            work.clear();
        }
        if !legacy && !matches!(method, "tools/call" | "prompts/get" | "resources/read") {
            work.retain(|work| !matches!(work, Work::Ask(..) | Work::Pause));
        }
        let end = match end {
            End::Cancel(_) | End::Visit(_) if bare => End::Result(0, 0),
            End::Cancel(_) if !matches!(method, "tools/call" | "prompts/get" | "resources/read") => End::Cancel(Vec::new()),
            End::Visit(_) if !matches!(method, "tools/call" | "prompts/get" | "resources/read") => End::Result(0, 0),
            end => end,
        };
        Asked { method, bare, token, level, raw, meta, work, end }
    }
}

fn setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        3 => (0..LEVELS.len()).prop_map(Setting::Level),
        3 => (0..URIS.len()).prop_map(Setting::Subscribe),
        2 => (0..URIS.len()).prop_map(Setting::Unsubscribe),
        1 => Just(Setting::Ping),
        1 => Just(Setting::RootsChanged),
        1 => (0..RAW.len()).prop_map(Setting::Note),
        1 => Just(Setting::Discover),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..3_usize).prop_map(Change::List),
        (0..3_usize, any::<bool>()).prop_map(|(uri, inside)| Change::Resource(uri, inside)),
        (0..RAW.len()).prop_map(Change::Note),
    ]
}

prop_compose! {
    fn phase(legacy: bool)(
        before in vec(setting(), 0..4),
        requests in vec(asked(legacy), 1..5),
        changes in vec(change(), 0..3),
        batch in prop::bool::weighted(0.3),
        aside in prop::bool::weighted(0.3),
    ) -> Phase {
        let mut requests = requests;
        let mut bare = std::collections::BTreeSet::new();
        for request in &mut requests {
            // Two alike could not be told apart.
            request.bare &= bare.insert(request.method);
            if aside {
                // Another request may carry the question, and end with it: nobody can tell a modern client that has given up from one
                // whose user takes his time.
                if matches!(request.end, End::Cancel(_)) {
                    request.end = End::Result(0, 0);
                }
                for work in &mut request.work {
                    let Work::Ask(questions, _) = work else { continue };
                    for question in questions {
                        if question.answer == Answer::Refuse {
                            question.answer = Answer::Decline;
                        }
                    }
                }
            }
        }
        Phase { before, requests, changes, batch, aside }
    }
}

prop_compose! {
    /// A dialogue of a legacy client with a legacy server, or of a modern client with a modern server.
    pub(crate) fn plan(legacy: bool)(
        version in prop_oneof![3 => Just("2025-11-25"), 1 => Just("2025-06-18"), 1 => Just("2025-03-26"), 1 => Just("2024-11-05")],
        can in any::<[bool; 6]>(),
        lists in any::<[bool; 3]>(),
        offers in any::<[bool; 3]>(),
        streams in any::<bool>(),
        phases in vec(phase(legacy), 1..4),
        order in vec(any::<u8>(), 0..60),
    ) -> Plan {
        let [roots, sampling, tools, form, url, extra] = can;
        let client = Client { version, roots, sampling, tools, form, url, extra };
        let mut phases = phases;
        if !legacy && !streams {
            // As in a phase whose questions come aside.
            for request in phases.iter_mut().flat_map(|phase| &mut phase.requests) {
                if let End::Cancel(questions) = &mut request.end {
                    questions.clear();
                }
            }
        }
        let [subscribe, logging, extra] = offers;
        Plan { client, server: Server { lists, subscribe, logging, extra }, streams, phases, order }
    }
}
