//! A client and a server of the legacy era.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Answer, Change, End, LEVELS, Plan, Server, Setting, URIS, Work};
use crate::play::{self, Client as _};
use crate::record::{
    self, AtClient, AtServer, Job, Said, answer, change, error, error_data, id, log, method_of, notification, progress,
    question_params, quote, request, result, the_result,
};
use crate::tree::Tree;

/// What a request of the client was for.
#[derive(Debug, Clone, Copy)]
enum For {
    Hello,
    Setting(usize),
    Tag(usize),
}

pub(crate) struct Client<'a> {
    plan: &'a Plan,
    heard: AtClient,
    last: usize,
    settings: usize,
    open: BTreeMap<String, (For, &'static str)>,
    phase: usize,
    ready: Vec<String>,
    /// Questions that it keeps open, by name.
    unanswered: BTreeMap<String, String>,
    /// Visits under way.
    visiting: BTreeSet<usize>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            heard: AtClient::default(),
            last: 0,
            settings: 0,
            open: BTreeMap::new(),
            phase: 0,
            ready: Vec::new(),
            unanswered: BTreeMap::new(),
            visiting: BTreeSet::new(),
        }
    }

    fn next(&mut self, what: For, method: &'static str) -> String {
        self.last += 1;
        let id = id(self.last);
        self.open.insert(id.clone(), (what, method));
        id
    }

    fn message(&mut self, message: &Tree) -> Vec<String> {
        let id = message.get("id").map(Tree::json);
        match (message.get("method").and_then(Tree::text), id) {
            (Some("ping"), Some(id)) => vec![result(&id, "{}")],
            (Some(_), Some(id)) => self.question(&id, message),
            (Some(method), None) => self.notification(method, message),
            (None, id) => self.response(&id.expect("an id"), message),
        }
    }

    fn response(&mut self, id: &str, message: &Tree) -> Vec<String> {
        let (what, _) = self.open.remove(id).unwrap_or_else(|| panic!("nobody asked this: {}", message.json()));
        let mut outcome = message.clone();
        outcome.take("id");
        outcome.take("jsonrpc");
        match what {
            For::Hello => {
                self.heard.hello.push(outcome);
                return vec![r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into()];
            }
            For::Setting(number) => {
                self.heard.settings.insert(number, outcome);
            }
            For::Tag(tag) => {
                let code = outcome.at(&["error", "code"]).map(Tree::json);
                if let (Some("-32042"), End::Visit(agrees)) = (code.as_deref(), &self.plan.asked(tag).end) {
                    let elicitations = outcome.at(&["error", "data", "elicitations"]).expect("visits");
                    let mut params = elicitations.items()[0].clone();
                    params.take("elicitationId");
                    self.heard.questions.entry(format!("{tag}.visit")).or_default().push(params);
                    if *agrees {
                        self.visiting.insert(tag);
                        return Vec::new();
                    }
                }
                self.heard.outcomes.entry(tag).or_default().push(outcome);
            }
        }
        Vec::new()
    }

    fn question(&mut self, id: &str, message: &Tree) -> Vec<String> {
        let mut params = message.get("params").expect("parameters").clone();
        let name = params.get("q").and_then(Tree::text).expect("a name").to_owned();
        params.take("elicitationId");
        let method = message.get("method").and_then(Tree::text).expect("a method");
        self.heard.questions.entry(name.clone()).or_default().push(params);
        if let Some(tag) = name.strip_suffix(".visit") {
            let End::Visit(agrees) = self.plan.asked(tag.parse().expect("a tag")).end else { panic!("no visit") };
            self.ready.push(result(id, if agrees { r#"{"action":"accept"}"# } else { r#"{"action":"decline"}"# }));
            return Vec::new();
        }
        let question = self.plan.question(&name);
        assert_eq!(method, method_of(question.kind));
        assert!(self.plan.client.can(question.kind), "never declared: {}", message.json());
        match question.answer {
            Answer::Never => {
                self.unanswered.insert(name, id.to_owned());
            }
            Answer::Refuse => self.ready.push(error(id, -1, "")),
            _ => self.ready.push(result(id, &answer(question))),
        }
        Vec::new()
    }

    fn notification(&mut self, method: &str, message: &Tree) -> Vec<String> {
        if self.heard.take_notification(self.phase, message) {
            return Vec::new();
        }
        let params = message.get("params").expect("parameters");
        match method {
            "notifications/cancelled" => {
                let id = params.get("requestId").expect("an id").json();
                let name = self.unanswered.iter().find(|(_, open)| **open == id).map(|(name, _)| name.clone());
                self.heard.withdrawn.extend(name);
                Vec::new()
            }
            "notifications/elicitation/complete" => {
                let name = params.get("elicitationId").and_then(Tree::text).expect("a name");
                let tag = name.strip_suffix(".visit").and_then(|tag| tag.parse().ok());
                match tag.filter(|tag| self.visiting.remove(tag)) {
                    Some(tag) => vec![self.start(tag)],
                    None => Vec::new(),
                }
            }
            other => panic!("no legacy client knows {other}"),
        }
    }
}

impl play::Client for Client<'_> {
    fn begin(&mut self) -> Vec<String> {
        let id = self.next(For::Hello, "initialize");
        let capabilities = self.plan.client.capabilities(true);
        let params = format!(
            "{{\"protocolVersion\":\"{}\",\"capabilities\":{capabilities},\"clientInfo\":{{\"name\":\"c\",\"version\":\"1.0\",\"n\":1e1}}}}",
            self.plan.client.version
        );
        vec![request(&id, "initialize", &params)]
    }

    fn set(&mut self, setting: &Setting) -> Vec<String> {
        self.settings += 1;
        let what = For::Setting(self.settings);
        let (method, params) = match setting {
            Setting::Level(level) => ("logging/setLevel", format!("{{\"level\":\"{}\"}}", LEVELS[*level])),
            Setting::Subscribe(uri) => ("resources/subscribe", format!("{{\"uri\":{}}}", quote(URIS[*uri]))),
            Setting::Unsubscribe(uri) => ("resources/unsubscribe", format!("{{\"uri\":{}}}", quote(URIS[*uri]))),
            Setting::Ping => ("ping", "{}".into()),
            Setting::RootsChanged if self.plan.client.roots => {
                return vec![r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#.into()];
            }
            Setting::Note(raw) => return vec![record::note(*raw)],
            Setting::RootsChanged | Setting::Discover => return Vec::new(),
        };
        let id = self.next(what, method);
        vec![request(&id, method, &params)]
    }

    fn start(&mut self, tag: usize) -> String {
        let asked = self.plan.asked(tag);
        let id = self.next(For::Tag(tag), asked.method);
        if asked.bare {
            return format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\"}}", asked.method);
        }
        let token = match asked.token {
            Some(true) => format!("\"progressToken\":\"t{tag}\""),
            Some(false) => format!("\"progressToken\":{tag}"),
            None => String::new(),
        };
        let meta = if asked.meta { r#""com.example/x":1.0,"traceparent":"00-\u0041""# } else { "" };
        let comma = if token.is_empty() || meta.is_empty() { "" } else { "," };
        let meta = if asked.meta || !token.is_empty() {
            format!("\"_meta\":{{{token}{comma}{meta}}},")
        } else {
            String::new()
        };
        request(&id, asked.method, &format!("{{{meta}{}}}", record::params(asked, tag)))
    }

    /// It is time to cancel: all that will stay without an answer was asked.
    fn heard_all(&self, tag: usize) -> bool {
        let open = self.open.values().any(|(what, _)| matches!(what, For::Tag(one) if *one == tag));
        open && record::never_asked(self.plan, tag).all(|name| self.unanswered.contains_key(&name))
    }

    fn cancel(&mut self, tag: usize) -> Option<String> {
        let of_tag = |(what, _): &(For, &str)| matches!(what, For::Tag(one) if *one == tag);
        let id = self.open.iter().find(|(_, one)| of_tag(one))?.0.clone();
        self.open.remove(&id);
        Some(notification("notifications/cancelled", &format!("{{\"requestId\":{id},\"reason\":\"é\"}}")))
    }

    /// Nothing of the tag, or of its settings, is open.
    fn is_done(&self) -> bool {
        self.open.is_empty() && self.visiting.is_empty()
    }

    fn hear(&mut self, line: &str) -> Vec<String> {
        let message = Tree::parse(line);
        if let Tree::Array(members) = &message {
            assert_eq!(self.plan.client.version, "2025-03-26", "an array for a client that knows none: {line}");
            return members.iter().flat_map(|member| self.message(member)).collect();
        }
        self.message(&message)
    }

    fn enter(&mut self, phase: usize) {
        self.phase = phase;
    }

    fn batches(&self) -> bool {
        self.plan.client.version == "2025-03-26"
    }

    fn ready(&mut self) -> &mut Vec<String> {
        &mut self.ready
    }

    fn heard(self: Box<Self>) -> AtClient {
        self.heard
    }
}

pub(crate) struct ServerSide<'a> {
    plan: &'a Plan,
    seen: AtServer,
    jobs: BTreeMap<usize, Job>,
    /// Names of questions, by their ids.
    questions: BTreeMap<String, (usize, String)>,
    last: usize,
    level: Option<usize>,
    watched: BTreeSet<String>,
    pings: BTreeSet<String>,
    /// Requests whose URL was asked for, and those that were told of.
    visits: BTreeMap<usize, bool>,
    ready: bool,
}

impl<'a> ServerSide<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            seen: AtServer::default(),
            jobs: BTreeMap::new(),
            questions: BTreeMap::new(),
            last: 0,
            level: None,
            watched: BTreeSet::new(),
            pings: BTreeSet::new(),
            visits: BTreeMap::new(),
            ready: false,
        }
    }

    fn message(&mut self, message: &Tree) -> Said {
        let id = message.get("id").map(Tree::json);
        match (message.get("method").and_then(Tree::text), id) {
            (Some(method), Some(id)) => self.request(method, &id, message),
            (Some(method), None) => self.notification(method, message),
            (None, id) => {
                self.answered(&id.expect("an id"), message);
                Vec::new()
            }
        }
    }

    fn request(&mut self, method: &str, id: &str, message: &Tree) -> Said {
        let uri = || message.at(&["params", "uri"]).and_then(Tree::text).expect("a URI").to_owned();
        let line = match method {
            "initialize" => {
                self.seen.hello = message.get("params").cloned();
                let asked = message.at(&["params", "protocolVersion"]).and_then(Tree::text).expect("a version");
                result(
                    id,
                    &format!(
                        "{{\"protocolVersion\":\"{asked}\",\"capabilities\":{},\"serverInfo\":{}{}}}",
                        self.plan.server.capabilities(true),
                        Server::INFO,
                        self.plan.server.extra()
                    ),
                )
            }
            _ if !self.ready && method != "ping" => panic!("{method} before the session is open"),
            "ping" => result(id, "{}"),
            "logging/setLevel" if self.plan.server.logging => {
                let level = message.at(&["params", "level"]).and_then(Tree::text);
                self.level = LEVELS.iter().position(|word| Some(*word) == level);
                result(id, "{}")
            }
            "resources/subscribe" if self.plan.server.subscribe && uri() != URIS[3] => {
                self.watched.insert(uri());
                result(id, "{}")
            }
            "resources/unsubscribe" if self.plan.server.subscribe => {
                self.watched.remove(&uri());
                result(id, "{}")
            }
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => error(id, -32601, ""),
            _ => {
                let tag = self.seen.take_request(self.plan, message);
                let mut job = Job::new(message);
                if self.visits.contains_key(&tag) {
                    job.at = self.plan.asked(tag).work.len();
                }
                self.jobs.insert(tag, job);
                return Vec::new();
            }
        };
        vec![(None, line)]
    }

    fn notification(&mut self, method: &str, message: &Tree) -> Said {
        match method {
            "notifications/initialized" => self.ready = true,
            "notifications/cancelled" => {
                let id = message.at(&["params", "requestId"]).expect("an id").json();
                let tag = self.jobs.iter().find(|(_, job)| job.id == id).map(|(tag, _)| *tag);
                let Some(tag) = tag else { return Vec::new() };
                let job = self.jobs.remove(&tag).expect("it is there");
                self.seen.cancelled.insert(tag);
                return job
                    .open
                    .keys()
                    .map(|id| (Some(tag), notification("notifications/cancelled", &format!("{{\"requestId\":{id}}}"))))
                    .collect();
            }
            "notifications/roots/list_changed" => {}
            _ => self.seen.notes.push(message.clone()),
        }
        Vec::new()
    }

    fn answered(&mut self, id: &str, message: &Tree) {
        if self.pings.remove(id) {
            return;
        }
        let (tag, name) = self.questions.get(id).unwrap_or_else(|| panic!("no such question: {}", message.json()));
        let mut outcome = message.clone();
        outcome.take("id");
        outcome.take("jsonrpc");
        self.seen.answers.entry(name.clone()).or_default().push(outcome);
        if let Some(job) = self.jobs.get_mut(tag) {
            job.open.remove(id);
        }
    }

    fn ask(&mut self, tag: usize, name: &str, question: &crate::plan::Question) -> (Option<usize>, String) {
        self.last += 1;
        let id = id(self.last + 1000);
        self.questions.insert(id.clone(), (tag, name.to_owned()));
        if let Some(job) = self.jobs.get_mut(&tag) {
            job.open.insert(id.clone(), name.to_owned());
        }
        let aside = self.plan.phases[tag / 100].aside && self.plan.asked(tag).carries();
        (Some(tag).filter(|_| !aside), request(&id, method_of(question.kind), &question_params(question, name, true)))
    }

    fn report(&mut self, tag: usize, level: Option<usize>, away: bool) -> Said {
        let logs = self.plan.server.logging;
        let least = self.level;
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        job.reports += 1;
        let line = match level {
            Some(level) => {
                (logs && least.is_some_and(|least| level >= least)).then(|| log(level, tag, job.reports, away))
            }
            None => job.token.as_ref().map(|token| progress(token, tag, job.reports, away)),
        };
        line.map(|line| (Some(tag), line)).into_iter().collect()
    }

    fn end(&mut self, tag: usize) -> Said {
        let asked = self.plan.asked(tag);
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        let id = job.id.clone();
        let line = match &asked.end {
            End::Result(members, raw) => result(&id, &the_result(tag, *members, *raw, "")),
            End::Error(code, data) => error(&id, *code, &error_data(tag, *data)),
            End::Visit(agrees) if self.plan.client.url && !self.visits.contains_key(&tag) => {
                self.visits.insert(tag, !*agrees);
                let name = quote(&format!("{tag}.visit"));
                let data = format!(
                    ",\"data\":{{\"elicitations\":[{{\"q\":{name},\"mode\":\"url\",\"message\":\"é\",\"url\":\"https://x.test/\",\"elicitationId\":{name}}}]}}"
                );
                error(&id, -32042, &data)
            }
            End::Visit(_) => result(&id, &the_result(tag, 0, 0, "")),
            End::Cancel(questions) => {
                job.waits = true;
                let questions = job.next_questions(self.plan, tag, questions);
                return questions.iter().map(|(name, question)| self.ask(tag, name, question)).collect();
            }
        };
        self.jobs.remove(&tag);
        vec![(Some(tag), line)]
    }
}

impl play::Server for ServerSide<'_> {
    fn hear(&mut self, line: &str) -> Said {
        let message = Tree::parse(line);
        let text = message.json();
        for word in ["clientCapabilities\":", "inputResponses\":", "subscriptionId\":", "clientInfo\":{\"io."] {
            let meta = message.at(&["params", "_meta"]).map(Tree::json).unwrap_or_default();
            assert!(!meta.contains(word), "a legacy server is not told {word}: {text}");
        }
        if let Tree::Array(members) = &message {
            return members.iter().flat_map(|member| self.message(member)).collect();
        }
        self.message(&message)
    }

    fn runnable(&self) -> Vec<usize> {
        let jobs = self
            .jobs
            .iter()
            .filter(|(_, job)| (job.open.is_empty() || job.meanwhile > 0) && !job.waits)
            .map(|(tag, _)| *tag);
        let visits = self.visits.iter().filter(|(_, told)| !**told).map(|(tag, _)| *tag);
        jobs.chain(visits).collect()
    }

    fn step(&mut self, tag: usize) -> Said {
        let asked = self.plan.asked(tag);
        if let Some(told) = self.visits.get_mut(&tag)
            && !*told
        {
            *told = true;
            let id = quote(&format!("{tag}.visit"));
            let line = notification("notifications/elicitation/complete", &format!("{{\"elicitationId\":{id}}}"));
            return vec![(None, line)];
        }
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        if job.meanwhile > 0 {
            job.meanwhile -= 1;
            let level = job.meanwhile.is_multiple_of(2).then_some(7);
            return self.report(tag, level, true);
        }
        let Some(work) = asked.work.get(job.at) else { return self.end(tag) };
        job.at += 1;
        match work {
            Work::Progress => self.report(tag, None, false),
            Work::Log(level) => self.report(tag, Some(*level), false),
            Work::Ask(questions, meanwhile) => {
                let questions = job.next_questions(self.plan, tag, questions);
                job.meanwhile = *meanwhile;
                questions.iter().map(|(name, question)| self.ask(tag, name, question)).collect()
            }
            Work::Ping | Work::Pause => {
                self.last += 1;
                let id = id(self.last + 1000);
                self.pings.insert(id.clone());
                vec![(None, format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}"))]
            }
            Work::Note(raw) => vec![(Some(tag), record::note_about(tag, *raw))],
        }
    }

    fn waits_for_cancel(&self) -> Vec<usize> {
        self.jobs.iter().filter(|(_, job)| job.waits).map(|(tag, _)| *tag).collect()
    }

    fn is_done(&self) -> bool {
        self.jobs.is_empty() && self.visits.values().all(|told| *told)
    }

    fn change(&mut self, one: Change) -> Said {
        change(one, "", self.plan.server.lists, &self.watched).map(|line| (None, line)).into_iter().collect()
    }

    fn end_phase(&mut self) {
        self.seen.watched.push(self.watched.clone());
    }

    fn seen(self: Box<Self>) -> AtServer {
        self.seen
    }
}
