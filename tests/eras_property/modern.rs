//! A client and a server of the modern era.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Answer, Change, End, LEVELS, Plan, Question, Server, Setting, URIS, Work};
use crate::play;
use crate::record::{
    self, AtClient, AtServer, Job, Said, TICK, answer, change, error, error_data, id, log, method_of, notification,
    progress, question_params, quote, request, result, the_result,
};
use crate::tree::Tree;

const CACHED: &str = "\"ttlMs\":7,\"cacheScope\":\"public\",";

#[derive(Debug, Clone, Copy)]
enum For {
    Setting,
    Tag(usize),
}

/// Which subscription is open.
#[derive(Debug, Default)]
struct Wants {
    lists: bool,
    uris: BTreeSet<usize>,
}

pub(crate) struct Client<'a> {
    plan: &'a Plan,
    heard: AtClient,
    last: usize,
    listens: usize,
    open: BTreeMap<String, For>,
    phase: usize,
    ready: Vec<String>,
    wants: Wants,
    /// Questions that it left for a later retry.
    left: BTreeSet<String>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            heard: AtClient::default(),
            last: 0,
            listens: 0,
            open: BTreeMap::new(),
            phase: 0,
            ready: Vec::new(),
            wants: Wants::default(),
            left: BTreeSet::new(),
        }
    }

    fn next(&mut self, what: For) -> String {
        self.last += 1;
        let id = id(self.last);
        self.open.insert(id.clone(), what);
        id
    }

    fn meta(&self) -> String {
        format!(
            "\"{TICK}protocolVersion\":\"2026-07-28\",\"{TICK}clientInfo\":{{\"name\":\"c\",\"version\":\"1.0\",\"n\":1e1}},\"{TICK}clientCapabilities\":{}",
            self.plan.client.capabilities(false)
        )
    }

    fn discover(&mut self) -> Vec<String> {
        let id = self.next(For::Setting);
        vec![request(&id, "server/discover", &format!("{{\"_meta\":{{{}}}}}", self.meta()))]
    }

    /// A new subscription in place of the old one.
    fn listen(&mut self) -> Vec<String> {
        let old = self.listens;
        self.listens += 1;
        let new = self.listens;
        let uris: Vec<String> = self.wants.uris.iter().map(|uri| quote(URIS[*uri])).collect();
        let lists = self.wants.lists;
        let filter = format!(
            "{{\"toolsListChanged\":{lists},\"promptsListChanged\":true,\"resourceSubscriptions\":[{}]}}",
            uris.join(",")
        );
        let params = format!("{{\"notifications\":{filter},\"_meta\":{{{}}}}}", self.meta());
        let mut lines = vec![request(&format!("\"listen-{new}\""), "subscriptions/listen", &params)];
        if old > 0 {
            lines.push(notification("notifications/cancelled", &format!("{{\"requestId\":\"listen-{old}\"}}")));
        }
        lines
    }

    fn line(&mut self, tag: usize, more: &str) -> String {
        let asked = self.plan.asked(tag);
        let id = self.next(For::Tag(tag));
        let mut meta = self.meta();
        match asked.token {
            Some(true) => meta.push_str(&format!(",\"progressToken\":\"t{tag}\"")),
            Some(false) => meta.push_str(&format!(",\"progressToken\":{tag}")),
            None => {}
        }
        if let Some(level) = asked.level {
            meta.push_str(&format!(",\"{TICK}logLevel\":\"{}\"", LEVELS[level]));
        }
        if asked.meta {
            meta.push_str(r#","com.example/x":1.0,"traceparent":"00-\u0041""#);
        }
        if asked.bare {
            return request(&id, asked.method, &format!("{{\"_meta\":{{{meta}}}}}"));
        }
        request(&id, asked.method, &format!("{{{},\"_meta\":{{{meta}}}{more}}}", record::params(asked, tag)))
    }

    /// The questions of an `InputRequiredResult`, and the retry.
    fn required(&mut self, tag: usize, outcome: &Tree) -> Vec<String> {
        let outcome = outcome.get("result").expect("a result");
        let mut answers = Vec::new();
        let mut gives_up = false;
        for (key, asked) in outcome.get("inputRequests").map(Tree::members).unwrap_or_default() {
            let params = asked.get("params").expect("parameters").clone();
            let name = params.get("q").and_then(Tree::text).expect("a name").to_owned();
            let question = self.plan.question(&name);
            assert_eq!(asked.get("method").and_then(Tree::text), Some(method_of(question.kind)));
            self.heard.questions.entry(name.clone()).or_default().push(params);
            match question.answer {
                Answer::Never => gives_up = true,
                Answer::Later if self.left.insert(name) => {}
                _ => answers.push(format!("{}:{}", quote(key), answer(question))),
            }
        }
        if gives_up {
            return Vec::new();
        }
        let mut more = String::new();
        if outcome.get("inputRequests").is_some() {
            more.push_str(&format!(",\"inputResponses\":{{{}}}", answers.join(",")));
        }
        if let Some(state) = outcome.get("requestState") {
            more.push_str(&format!(",\"requestState\":{}", state.json()));
        }
        vec![self.line(tag, &more)]
    }
}

impl play::Client for Client<'_> {
    fn begin(&mut self) -> Vec<String> {
        self.wants.lists = true;
        let mut lines = self.discover();
        lines.extend(self.listen());
        lines
    }

    fn set(&mut self, setting: &Setting) -> Vec<String> {
        match setting {
            Setting::Subscribe(uri) => {
                self.wants.uris.insert(*uri);
                self.listen()
            }
            Setting::Unsubscribe(uri) => {
                self.wants.uris.remove(uri);
                self.listen()
            }
            Setting::Level(level) => {
                self.wants.lists = level.is_multiple_of(2);
                self.listen()
            }
            Setting::Discover => self.discover(),
            Setting::Note(raw) => vec![record::note(*raw)],
            Setting::Ping | Setting::RootsChanged => Vec::new(),
        }
    }

    fn start(&mut self, tag: usize) -> String {
        self.line(tag, "")
    }

    fn heard_all(&self, tag: usize) -> bool {
        let said = |id: &str| !self.ready.iter().any(|line| line.contains(&format!("\"id\":{id},\"method\"")));
        self.open.iter().any(|(id, what)| matches!(what, For::Tag(one) if *one == tag) && said(id))
    }

    fn cancel(&mut self, tag: usize) -> Option<String> {
        let id = self.open.iter().find(|(_, what)| matches!(what, For::Tag(one) if *one == tag))?.0.clone();
        self.open.remove(&id);
        Some(notification("notifications/cancelled", &format!("{{\"requestId\":{id},\"reason\":\"é\"}}")))
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    fn hear(&mut self, line: &str) -> Vec<String> {
        let message = Tree::parse(line);
        let id = message.get("id").map(Tree::json);
        match (message.get("method").and_then(Tree::text), id) {
            (Some(_), Some(_)) => panic!("a modern server asks nothing: {line}"),
            (Some(_), None) => {
                if self.heard.take_notification(self.phase, &message) {
                    return Vec::new();
                }
                assert_eq!(
                    message.get("method").and_then(Tree::text),
                    Some("notifications/subscriptions/acknowledged")
                );
                let params = message.get("params").expect("parameters");
                let id = params.at(&["_meta", &format!("{TICK}subscriptionId")]).and_then(Tree::text);
                let number = id.and_then(|id| id.strip_prefix("listen-")?.parse().ok()).expect("a subscription");
                let filter = params.get("notifications").expect("a filter").clone();
                assert!(self.heard.acknowledged.insert(number, filter).is_none(), "once");
                Vec::new()
            }
            (None, id) => {
                let what = self.open.remove(&id.expect("an id")).unwrap_or_else(|| panic!("nobody asked this: {line}"));
                let mut outcome = message.clone();
                outcome.take("id");
                outcome.take("jsonrpc");
                let kind = outcome.at(&["result", "resultType"]).and_then(Tree::text).map(str::to_owned);
                match (what, kind.as_deref()) {
                    (For::Tag(tag), Some("input_required")) => {
                        let retry = self.required(tag, &outcome);
                        self.ready.extend(retry);
                    }
                    (For::Tag(tag), _) => self.heard.outcomes.entry(tag).or_default().push(outcome),
                    (For::Setting, _) => self.heard.hello.push(outcome),
                }
                Vec::new()
            }
        }
    }

    fn enter(&mut self, phase: usize) {
        self.phase = phase;
    }

    fn batches(&self) -> bool {
        false
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
    listens: BTreeMap<String, (Vec<bool>, BTreeSet<String>)>,
    last: usize,
}

impl<'a> ServerSide<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { plan, seen: AtServer::default(), jobs: BTreeMap::new(), listens: BTreeMap::new(), last: 0 }
    }

    fn listen(&mut self, id: &str, message: &Tree) -> Said {
        let filter = message.at(&["params", "notifications"]).expect("a filter");
        let on = |name: &str| filter.get(name).is_some_and(|wanted| wanted.json() == "true");
        let offers = &self.plan.server;
        let names = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
        let lists: Vec<bool> = names.iter().zip(offers.lists).map(|(name, offered)| on(name) && offered).collect();
        let wanted = filter.get("resourceSubscriptions").map(Tree::items).unwrap_or_default();
        let uris: BTreeSet<String> = wanted
            .iter()
            .filter_map(Tree::text)
            .filter(|uri| offers.subscribe && *uri != URIS[3])
            .map(str::to_owned)
            .collect();
        let mut agreed: Vec<String> =
            names.iter().zip(&lists).filter(|(_, on)| **on).map(|(name, _)| format!("\"{name}\":true")).collect();
        if !uris.is_empty() {
            let uris: Vec<String> = uris.iter().map(|uri| quote(uri)).collect();
            agreed.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        self.listens.insert(id.to_owned(), (lists, uris));
        let params =
            format!("{{\"_meta\":{{\"{TICK}subscriptionId\":{id}}},\"notifications\":{{{}}}}}", agreed.join(","));
        vec![(None, notification("notifications/subscriptions/acknowledged", &params))]
    }

    fn answered(&mut self, tag: usize, message: &Tree) {
        let Some(job) = self.jobs.get_mut(&tag) else { return };
        let state = message.at(&["params", "requestState"]).and_then(Tree::text).map(str::to_owned);
        assert_eq!(state, job.state.take(), "the state comes back as it was: {}", message.json());
        job.id = message.get("id").expect("an id").json();
        job.token = message.at(&["params", "_meta", "progressToken"]).cloned();
        job.waits = false;
        for (key, answer) in message.at(&["params", "inputResponses"]).map(Tree::members).unwrap_or_default() {
            let name = job.open.remove(key).unwrap_or_else(|| panic!("no such question: {key}"));
            let mut outcome = Tree::empty();
            outcome.put("result", answer.clone());
            self.seen.answers.entry(name).or_default().push(outcome);
        }
    }

    /// Asks what is open, in a result.
    fn required(&mut self, tag: usize) -> Said {
        let plan = self.plan;
        self.last += 1;
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        let questions: Vec<String> = job
            .open
            .iter()
            .map(|(key, name)| {
                let question = plan.question(name);
                let params = question_params(question, name, false);
                format!("{}:{{\"method\":\"{}\",\"params\":{params}}}", quote(key), method_of(question.kind))
            })
            .collect();
        job.waits = true;
        // One that asks something need not give a state.
        let state = (questions.is_empty() || self.last.is_multiple_of(2)).then(|| format!("é \" {tag} {}", self.last));
        let mut members = vec!["\"resultType\":\"input_required\"".to_owned()];
        if !questions.is_empty() {
            members.push(format!("\"inputRequests\":{{{}}}", questions.join(",")));
        }
        if let Some(state) = &state {
            members.push(format!("\"requestState\":{}", quote(state)));
        }
        job.state = state;
        let line = result(&job.id, &format!("{{{}}}", members.join(",")));
        vec![(Some(tag), line)]
    }

    fn open(&mut self, tag: usize, questions: &[Question]) {
        let Some(job) = self.jobs.get_mut(&tag) else { return };
        for (name, _) in job.next_questions(self.plan, tag, questions) {
            job.open.insert(format!("key \" {name}"), name);
        }
    }

    fn report(&mut self, tag: usize, level: Option<usize>) -> Said {
        let logs = self.plan.server.logging;
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        job.reports += 1;
        let line = match level {
            Some(level) => {
                (logs && job.level.is_some_and(|least| level >= least)).then(|| log(level, tag, level, false))
            }
            None => job.token.as_ref().map(|token| progress(token, tag, job.at, false)),
        };
        line.map(|line| (Some(tag), line)).into_iter().collect()
    }
}

impl play::Server for ServerSide<'_> {
    fn hear(&mut self, line: &str) -> Said {
        let message = Tree::parse(line);
        let method = message.get("method").and_then(Tree::text).unwrap_or_else(|| panic!("no request: {line}"));
        let Some(id) = message.get("id").map(Tree::json) else {
            if method == "notifications/cancelled" {
                let id = message.at(&["params", "requestId"]).expect("an id").json();
                self.listens.remove(&id);
                if let Some(tag) = self.jobs.iter().find(|(_, job)| job.id == id).map(|(tag, _)| *tag) {
                    self.jobs.remove(&tag);
                    self.seen.cancelled.insert(tag);
                }
            } else {
                self.seen.notes.push(message.clone());
            }
            return Vec::new();
        };
        if self.seen.hello.is_none() {
            self.seen.hello = message.at(&["params", "_meta"]).cloned();
        }
        match method {
            "server/discover" => {
                let text = format!(
                    "{{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{},\"ttlMs\":9,\"cacheScope\":\"public\",\"_meta\":{{\"{TICK}serverInfo\":{}}}{}}}",
                    self.plan.server.capabilities(false),
                    Server::INFO,
                    self.plan.server.extra()
                );
                vec![(None, result(&id, &text))]
            }
            "subscriptions/listen" => self.listen(&id, &message),
            _ => {
                let again = message.at(&["params", "tag"]).and_then(Tree::number);
                let tag = self.seen.take_request(self.plan, &message);
                if again.is_some_and(|tag| self.jobs.contains_key(&tag)) {
                    self.answered(tag, &message);
                } else {
                    self.jobs.insert(tag, Job::new(&message));
                }
                Vec::new()
            }
        }
    }

    fn runnable(&self) -> Vec<usize> {
        self.jobs.iter().filter(|(_, job)| !job.waits).map(|(tag, _)| *tag).collect()
    }

    fn waits_for_cancel(&self) -> Vec<usize> {
        let over = |tag: &usize, job: &Job| {
            job.waits && job.state.is_none() && job.open.is_empty() && job.at >= self.plan.asked(*tag).work.len()
        };
        self.jobs.iter().filter(|(tag, job)| over(tag, job)).map(|(tag, _)| *tag).collect()
    }

    fn is_done(&self) -> bool {
        // One whose client went away leaves nothing open at the server.
        self.jobs
            .iter()
            .all(|(tag, job)| job.waits && matches!(&self.plan.asked(*tag).end, End::Cancel(_)) && !job.open.is_empty())
    }

    fn change(&mut self, one: Change) -> Said {
        if let Change::Note(_) = one {
            return Vec::new();
        }
        let mut said = Vec::new();
        for (id, (lists, uris)) in &self.listens {
            let meta = format!("\"_meta\":{{\"{TICK}subscriptionId\":{id}}}");
            let lists = [lists[0], lists[1], lists[2]];
            said.extend(change(one, &meta, lists, uris).map(|line| (None, line)));
        }
        said
    }

    fn step(&mut self, tag: usize) -> Said {
        let asked = self.plan.asked(tag);
        let Some(job) = self.jobs.get_mut(&tag) else { return Vec::new() };
        if !job.open.is_empty() {
            // The client left some of them out.
            return self.required(tag);
        }
        let Some(work) = asked.work.get(job.at) else { return self.end(tag) };
        job.at += 1;
        match work {
            Work::Progress => self.report(tag, None),
            Work::Log(level) => self.report(tag, Some(*level)),
            Work::Ask(questions, _) => {
                self.open(tag, questions);
                if self.jobs[&tag].open.is_empty() { Vec::new() } else { self.required(tag) }
            }
            Work::Pause => self.required(tag),
            Work::Ping => Vec::new(),
            Work::Note(raw) => vec![(Some(tag), record::note_about(tag, *raw))],
        }
    }

    fn end_phase(&mut self) {
        let watched = self.listens.values().flat_map(|(_, uris)| uris.iter().cloned()).collect();
        self.seen.watched.push(watched);
        self.jobs.clear();
    }

    fn seen(self: Box<Self>) -> AtServer {
        self.seen
    }
}

impl ServerSide<'_> {
    fn end(&mut self, tag: usize) -> Said {
        let asked = self.plan.asked(tag);
        let id = self.jobs[&tag].id.clone();
        let kind = "\"resultType\":\"complete\",";
        let line = match &asked.end {
            End::Result(members, raw) => {
                // What the era requires, unless it is among the members.
                let cached = if record::is_cacheable(asked.method) && !matches!(members, 3 | 4) { CACHED } else { "" };
                let members = if *members == 4 { 3 } else { *members };
                result(&id, &the_result(tag, members, *raw, &format!("{kind}{cached}")))
            }
            End::Error(code, data) => error(&id, *code, &error_data(tag, *data)),
            End::Visit(_) => result(&id, &the_result(tag, 0, 0, kind)),
            End::Cancel(questions) => {
                self.open(tag, questions);
                if self.jobs[&tag].open.is_empty() {
                    self.jobs.get_mut(&tag).expect("it is there").waits = true;
                    return Vec::new();
                }
                return self.required(tag);
            }
        };
        self.jobs.remove(&tag);
        vec![(Some(tag), line)]
    }
}
