//! What both sides saw with the translators between them is what they would have seen of each other, but for the named differences.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::Way;
use crate::plan::{Answer, Plan, Setting};
use crate::record::{AtClient, AtServer, TICK, drop_empty_meta, is_cacheable};
use crate::tree::Tree;

/// The differences, by the names that `docs/eras.md` gives them.
pub(crate) const DIFFERENCES: [&str; 20] = [
    "handshake",
    "empty parameters",
    "progress token",
    "result members",
    "error codes",
    "error of the client",
    "answered by the bridge",
    "one session, one level",
    "one set of resources",
    "lists promised",
    "reports while the client is asked",
    "messages without a stream",
    "questions of a cancelled request",
    "questions of other methods",
    "questions by another request",
    "a visit by error -32042",
    "elicitationId",
    "rounds",
    "batches",
    "metadata of notifications",
];

/// What was met. A difference that is never met is none.
pub(crate) type Met = BTreeSet<&'static str>;

pub(crate) struct Compare<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) way: Way,
    pub(crate) met: Met,
}

type Check = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, direct: &T, bridged: &T) -> Check {
    if direct == bridged { Ok(()) } else { Err(format!("{what}\n  direct:  {direct:?}\n  bridged: {bridged:?}")) }
}

impl Compare<'_> {
    fn meet(&mut self, name: &'static str) {
        assert!(DIFFERENCES.contains(&name), "{name} has no name in the documentation");
        self.met.insert(name);
    }

    /// The name of the difference, if the two differ.
    fn meet_if(&mut self, name: &'static str, differ: bool) {
        if differ {
            self.meet(name);
        }
    }

    fn legacy(&self) -> bool {
        self.way == Way::Legacy
    }

    pub(crate) fn all(&mut self, direct: (AtClient, AtServer), bridged: (AtClient, AtServer)) -> Check {
        let batches = self.legacy() && self.plan.client.version == "2025-03-26";
        self.meet_if("batches", batches && self.plan.phases.iter().any(|phase| phase.batch));
        self.servers(direct.1, bridged.1)?;
        self.clients(direct.0, bridged.0)
    }

    // ---- the servers ----

    fn servers(&mut self, direct: AtServer, bridged: AtServer) -> Check {
        self.hello_of_client(direct.hello, bridged.hello)?;
        self.requests(direct.requests, bridged.requests)?;
        self.answers(&direct.answers, &bridged.answers)?;
        let refused = |tag: &usize| self.legacy() && self.plan.asked(*tag).is_refused(&self.plan.client);
        let but_refused =
            |all: &BTreeSet<usize>| all.iter().copied().filter(|tag| !refused(tag)).collect::<BTreeSet<_>>();
        same("cancelled requests", &but_refused(&direct.cancelled), &but_refused(&bridged.cancelled))?;
        let mut notes = Vec::new();
        for mut note in bridged.notes {
            let meta = note.child("params").and_then(|params| params.take("_meta"));
            assert!(meta.is_none() || !self.legacy(), "a legacy server is not told who its client is");
            self.meet_if("metadata of notifications", meta.is_some());
            notes.push(note);
        }
        same("notifications of the client", &direct.notes, &notes)?;
        same("watched resources", &direct.watched, &bridged.watched)
    }

    fn hello_of_client(&mut self, direct: Option<Tree>, bridged: Option<Tree>) -> Check {
        let (mut direct, mut bridged) = (direct.expect("a client"), bridged.expect("a client"));
        if self.legacy() {
            same("the revision asked for", &bridged.take("protocolVersion"), &Some(Tree::Text("2025-11-25".into())))?;
            direct.take("protocolVersion");
            let capabilities = direct.child("capabilities").expect("capabilities");
            let tasks = capabilities.take("tasks").is_some();
            let changed = capabilities.child("roots").and_then(|roots| roots.take("listChanged")).is_some();
            self.meet_if("handshake", tasks || changed);
        } else {
            bridged.take(&format!("{TICK}logLevel"));
            direct.take(&format!("{TICK}logLevel"));
            for tree in [&mut direct, &mut bridged] {
                for name in ["progressToken", "com.example/x", "traceparent"] {
                    tree.take(name);
                }
            }
        }
        same("who the client is", &direct, &bridged)
    }

    fn requests(&mut self, direct: BTreeMap<usize, Vec<Tree>>, bridged: BTreeMap<usize, Vec<Tree>>) -> Check {
        let tags = |all: &BTreeMap<usize, Vec<Tree>>| all.keys().copied().collect::<Vec<_>>();
        same("requests that came", &tags(&direct), &tags(&bridged))?;
        for ((tag, direct), (_, bridged)) in direct.into_iter().zip(bridged) {
            let asked = self.plan.asked(tag);
            let rounds = !self.legacy() && direct.len() != bridged.len();
            let left = asked.questions().any(|question| question.answer == Answer::Later);
            self.meet_if("rounds", rounds && left);
            if self.legacy() && asked.is_refused(&self.plan.client) {
                self.meet("error of the client");
            } else if !(rounds && left) {
                same(&format!("times that request {tag} came"), &direct.len(), &bridged.len())?;
            }
            for (direct, bridged) in direct.iter().zip(&bridged) {
                let one = self.request(direct.clone(), true);
                let other = self.request(bridged.clone(), false);
                same(&format!("request {tag}"), &one, &other)?;
            }
        }
        Ok(())
    }

    fn request(&mut self, mut request: Tree, direct: bool) -> Tree {
        let params = request.child("params").expect("parameters");
        let mut level = false;
        let mut token = false;
        let mut empty = false;
        if let Some(meta) = params.child("_meta") {
            level = meta.take(&format!("{TICK}logLevel")).is_some();
            if let Some(value) = meta.child("progressToken") {
                token = true;
                *value = Tree::Word("any".into());
            }
            let Tree::Object(members) = meta else { panic!("no object") };
            members.sort();
            empty = members.is_empty();
        }
        drop_empty_meta(params);
        let Tree::Object(members) = params else { panic!("no object") };
        // What was put in stands before the rest.
        if let Some(at) = members.iter().position(|(name, _)| name == "_meta") {
            let meta = members.remove(at);
            members.insert(0, meta);
        }
        self.meet_if("one session, one level", level && !direct);
        self.meet_if("progress token", token);
        self.meet_if("empty parameters", empty || (members.is_empty() && direct));
        request
    }

    fn answers(&mut self, direct: &BTreeMap<String, Vec<Tree>>, bridged: &BTreeMap<String, Vec<Tree>>) -> Check {
        for (name, bridged) in bridged {
            same(&format!("answers to question {name}"), &bridged.len(), &1)?;
            if direct.contains_key(name) {
                continue;
            }
            // A legacy server that was cancelled is told that nobody answers.
            let unanswered = self.plan.question(name).answer == Answer::Never && bridged[0].get("error").is_some();
            if !(self.legacy() && unanswered) {
                return Err(format!("nobody answered question {name}, but {bridged:?}"));
            }
            self.meet("questions of a cancelled request");
        }
        for (name, direct) in direct {
            let (tag, _) = name.split_once('.').expect("a name");
            let asked = self.plan.asked(tag.parse().expect("a tag"));
            let bridged = bridged.get(name);
            if self.legacy() && !asked.carries() {
                let code = bridged.and_then(|answers| answers[0].at(&["error", "code"])).map(Tree::json);
                same(&format!("question {name} of a request that cannot carry it"), &code.as_deref(), &Some("-32001"))?;
                self.meet("questions of other methods");
                continue;
            }
            if self.legacy() && asked.is_refused(&self.plan.client) {
                continue;
            }
            same(&format!("answer to question {name}"), &Some(direct), &bridged)?;
        }
        Ok(())
    }

    // ---- the clients ----

    fn clients(&mut self, mut direct: AtClient, mut bridged: AtClient) -> Check {
        same("answers to the handshake", &direct.hello.len(), &bridged.hello.len())?;
        for (direct, bridged) in std::mem::take(&mut direct.hello).into_iter().zip(std::mem::take(&mut bridged.hello)) {
            let (direct, bridged) = (self.hello_of_server(direct), self.hello_of_server(bridged));
            same("what the server is", &direct, &bridged)?;
        }
        self.settings(&direct.settings, &bridged.settings)?;
        self.outcomes(std::mem::take(&mut direct.outcomes), std::mem::take(&mut bridged.outcomes))?;
        self.questions(&direct, &bridged)?;
        self.reports("progress", direct.progress, bridged.progress)?;
        self.reports("log messages", direct.logs, bridged.logs)?;
        let (plan, legacy) = (self.plan, self.legacy());
        let sorted = |mut notes: Vec<Tree>| {
            // A request that ended with a refused question has nothing more to say.
            let refused = |tag: usize| legacy && plan.asked(tag).is_refused(&plan.client);
            notes.retain(|note| !note.get("tag").and_then(Tree::number).is_some_and(refused));
            notes.sort();
            notes
        };
        same("notifications of the server", &sorted(direct.notes), &sorted(bridged.notes))?;
        same("changes", &direct.changes, &bridged.changes)?;
        self.acknowledged(direct.acknowledged, bridged.acknowledged)
    }

    fn hello_of_server(&mut self, mut outcome: Tree) -> Tree {
        let result = outcome.child("result").expect("a result");
        let tasks = result.child("capabilities").expect("capabilities").take("tasks").is_some();
        for name in ["resultType", "ttlMs", "cacheScope"] {
            if result.take(name).is_some() {
                self.met.insert("result members");
            }
        }
        if self.legacy() {
            let version = result.get("protocolVersion").and_then(Tree::text);
            assert_eq!(version, Some(self.plan.client.version));
        }
        self.meet_if("handshake", tasks);
        let Tree::Object(members) = result else { panic!("no object") };
        members.sort();
        outcome
    }

    fn settings(&mut self, direct: &BTreeMap<usize, Tree>, bridged: &BTreeMap<usize, Tree>) -> Check {
        let codes = |all: &BTreeMap<usize, Tree>| {
            all.iter().map(|(number, outcome)| (*number, outcome.get("error").is_none())).collect::<Vec<_>>()
        };
        self.meet_if("answered by the bridge", direct != bridged);
        self.meet_if("one set of resources", direct.values().any(|outcome| outcome.get("error").is_some()));
        let set = self.plan.phases.iter().flat_map(|phase| &phase.before);
        let pings = set.filter(|setting| matches!(setting, Setting::Ping)).count();
        self.meet_if("answered by the bridge", pings > 0);
        let unsubscribed = self
            .plan
            .phases
            .iter()
            .flat_map(|phase| &phase.before)
            .any(|setting| matches!(setting, Setting::Unsubscribe(_)));
        if unsubscribed && !self.plan.server.subscribe {
            // There is nothing to end, and the bridge says so kindly.
            self.meet("one set of resources");
            return Ok(());
        }
        same("answers to settings", &codes(direct), &codes(bridged))
    }

    fn outcomes(&mut self, direct: BTreeMap<usize, Vec<Tree>>, mut bridged: BTreeMap<usize, Vec<Tree>>) -> Check {
        for (tag, direct) in direct {
            let bridged = bridged.remove(&tag).unwrap_or_default();
            let asked = self.plan.asked(tag);
            same(&format!("responses to request {tag}"), &direct.len(), &bridged.len())?;
            let (Some(direct), Some(bridged)) = (direct.into_iter().next(), bridged.into_iter().next()) else {
                continue;
            };
            if self.legacy() && asked.is_refused(&self.plan.client) {
                let code = bridged.at(&["error", "code"]).map(Tree::json);
                if code.as_deref() == Some("-32001") {
                    continue;
                }
            }
            let direct = self.outcome(asked.method, direct, true);
            let bridged = self.outcome(asked.method, bridged, false);
            same(&format!("response to request {tag}"), &direct, &bridged)?;
        }
        let more: Vec<usize> = bridged
            .into_keys()
            // A request that the client would have cancelled ends with the question that it refuses.
            .filter(|tag| !(self.legacy() && self.plan.asked(*tag).is_refused(&self.plan.client)))
            .collect();
        same("responses to requests that got none", &Vec::new(), &more)
    }

    fn outcome(&mut self, method: &str, mut outcome: Tree, direct: bool) -> Tree {
        if let Some(result) = outcome.child("result") {
            self.result(method, result, direct);
        }
        if let Some(error) = outcome.child("error") {
            self.error(error, direct);
        }
        outcome
    }

    fn result(&mut self, method: &str, result: &mut Tree, direct: bool) {
        let had_meta = result.child("_meta").is_some();
        let info = result.child("_meta").and_then(|meta| meta.take(&format!("{TICK}serverInfo"))).is_some();
        if !direct {
            self.meet_if("result members", info);
            if !had_meta || info {
                drop_empty_meta(result);
            }
        }
        let Tree::Object(members) = result else { panic!("no object") };
        if self.legacy() {
            members.retain(|(name, _)| name != "resultType");
        }
        if self.legacy() && is_cacheable(method) {
            for (name, plain) in [("ttlMs", "0"), ("cacheScope", "\"private\"")] {
                let valid = |value: &str| value == "5" || value == "\"public\"";
                match members.iter().position(|(member, _)| member == name) {
                    Some(at) if direct && !valid(&members[at].1.json()) => drop(members.remove(at)),
                    Some(at) if !direct && members[at].1.json() == plain => drop(members.remove(at)),
                    _ => {}
                }
            }
        }
        // Members that stand twice stay in their order.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
    }

    fn error(&mut self, error: &mut Tree, direct: bool) {
        let code: i64 = error.get("code").expect("a code").json().parse().expect("a number");
        if direct {
            let new = match code {
                -32002 => Some(-32602),
                -32042 => {
                    // Nobody else says this: the bridge has words of its own.
                    self.meet("a visit by error -32042");
                    *error = Tree::parse("{\"code\":-32603}");
                    return;
                }
                -32099..=-32020 => Some(-32603),
                _ => None,
            };
            if let Some(new) = new {
                self.meet("error codes");
                if new == -32603 && error.get("data").is_none() {
                    error.put("data", Tree::parse(&format!("{{\"legacyCode\":{code}}}")));
                }
                error.put("code", Tree::Word(new.to_string()));
            }
        } else if code == -32603 && error.get("message").and_then(Tree::text).is_some_and(|text| text.contains("visit"))
        {
            *error = Tree::parse("{\"code\":-32603}");
            return;
        }
        let Tree::Object(members) = error else { panic!("no object") };
        members.sort();
    }

    fn questions(&mut self, direct: &AtClient, bridged: &AtClient) -> Check {
        for (name, direct) in &direct.questions {
            let (tag, _) = name.split_once('.').expect("a name");
            let tag: usize = tag.parse().expect("a tag");
            let asked = self.plan.asked(tag);
            let heard = bridged.questions.get(name);
            let aside = self.plan.phases[tag / 100].aside || !self.plan.streams;
            match heard {
                None if self.legacy() && (!asked.carries() || asked.is_refused(&self.plan.client)) => {}
                None => return Err(format!("the client never heard question {name}")),
                Some(heard) => {
                    self.meet_if("rounds", heard.len() > 1);
                    let later = !is_visit(name) && self.plan.question(name).answer == Answer::Later;
                    if heard.len() != direct.len() && !aside && !later && !self.legacy() {
                        let others = asked.questions().any(|question| question.answer == Answer::Later);
                        same(
                            &format!("times that question {name} was heard"),
                            &(direct.len(), others),
                            &(heard.len(), true),
                        )?;
                    }
                    self.meet_if("questions by another request", aside && asked.carries() && self.legacy());
                    for heard in heard {
                        same(&format!("question {name}"), &direct[0], heard)?;
                    }
                    self.meet_if("elicitationId", self.legacy() && direct[0].get("mode").is_some());
                    self.meet_if("a visit by error -32042", is_visit(name));
                }
            }
        }
        if let Some(name) = bridged.questions.keys().find(|name| !direct.questions.contains_key(*name)) {
            return Err(format!("nobody asked question {name}"));
        }
        let but_refused = |names: &BTreeSet<String>| {
            let of = |name: &String| name.split_once('.').and_then(|(tag, _)| tag.parse().ok()).expect("a tag");
            let names = names.iter().filter(|name| !self.plan.asked(of(name)).is_refused(&self.plan.client));
            names.cloned().collect::<BTreeSet<_>>()
        };
        same("withdrawn questions", &but_refused(&direct.withdrawn), &but_refused(&bridged.withdrawn))
    }

    /// Progress and log messages.
    fn reports(
        &mut self,
        what: &str,
        direct: BTreeMap<usize, Vec<Tree>>,
        mut bridged: BTreeMap<usize, Vec<Tree>>,
    ) -> Check {
        let is_away = |report: &Tree| {
            let away = report.get("away").or_else(|| report.at(&["data", "away"]));
            away.is_some_and(|away| away.json() == "true")
        };
        let (plan, legacy) = (self.plan, self.legacy());
        // Those that came while the request had its stream, or nobody can say which one had.
        let carried = |tag: usize| plan.phases[tag / 100].aside || !(plan.streams || legacy);
        let firm = |reports: &[Tree]| reports.iter().filter(|report| !is_away(report)).cloned().collect::<Vec<_>>();
        for (tag, direct) in direct {
            let bridged = bridged.remove(&tag).unwrap_or_default();
            let asked = self.plan.asked(tag);
            if self.legacy() && asked.is_refused(&self.plan.client) {
                continue;
            }
            self.meet_if("reports while the client is asked", bridged.len() < direct.len());
            let (one, other) = (firm(&direct), firm(&bridged));
            if carried(tag) {
                // Another request may have carried a question, or this one, and nobody waited meanwhile.
                self.meet_if("messages without a stream", one != other);
                if let Some(odd) = other.iter().find(|report| !one.contains(report)).filter(|_| self.legacy()) {
                    return Err(format!("{what} of request {tag} that nobody said: {odd:?}"));
                }
                continue;
            }
            same(&format!("{what} of request {tag}"), &one, &other)?;
        }
        if let Some((tag, more)) = bridged.into_iter().find(|(_, reports)| !reports.is_empty()) {
            if !self.legacy() && !self.plan.streams && what == "log messages" {
                self.meet("messages without a stream");
                return Ok(());
            }
            return Err(format!("{what} of request {tag} that nobody wanted: {more:?}"));
        }
        Ok(())
    }

    fn acknowledged(&mut self, direct: BTreeMap<usize, Tree>, bridged: BTreeMap<usize, Tree>) -> Check {
        for (number, direct) in direct {
            let Some(bridged) = bridged.get(&number) else {
                return Err(format!("listen {number} was not acknowledged"));
            };
            let uris = |filter: &Tree| {
                let uris = filter.get("resourceSubscriptions").map(Tree::items).unwrap_or_default();
                uris.iter().cloned().collect::<BTreeSet<_>>()
            };
            same(&format!("resources of listen {number}"), &uris(&direct), &uris(bridged))?;
            for (name, _) in direct.members() {
                if name != "resourceSubscriptions" && bridged.get(name).is_none() {
                    return Err(format!("listen {number} was not promised {name}"));
                }
            }
            self.meet_if("lists promised", bridged.members().len() > direct.members().len());
        }
        Ok(())
    }
}

/// The name of the question that an error demanded.
fn is_visit(name: &str) -> bool {
    name.strip_suffix(".visit").is_some()
}
