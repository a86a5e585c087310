//! What is known of the server's tools: which may be called twice (C1), which the client may see at all (P1), and which parameters are
//! mirrored into headers (E2).

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::link::Item;
use super::mirrored::Mirrored;
use super::pending::{Key, Origin, Pending, State};
use super::timers::Timer;
use super::trouble::Trouble;
use super::{Level, Session};
use crate::message::{self, Id, Outcome};

/// Tools that are remembered.
const MAX_TOOLS: usize = 10_000;
/// Bytes of a tool's name that is remembered.
const MAX_NAME: usize = 1024;
/// Pages of a tool list that we read for ourselves.
const MAX_PAGES: u32 = 100;
/// How long one of them may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);

/// Which tools the client may see and call: `--allow-tool`, `--ignore-tool`, `--read-only`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolRules {
    /// Globs; if there are any, a tool must match one.
    pub allow: Vec<String>,
    /// Globs; a tool that matches one is hidden.
    pub ignore: Vec<String>,
    /// Only tools that are annotated `readOnlyHint: true`.
    pub read_only: bool,
}

impl ToolRules {
    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.ignore.is_empty() && !self.read_only
    }

    fn admits_name(&self, name: &str) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(|glob| glob_matches(glob, name)))
            && !self.ignore.iter().any(|glob| glob_matches(glob, name))
    }
}

/// Whether a name matches a glob: `*` is any text, the rest is itself, case does not count (as in mcp-remote).
/// Linear in practice: one position to go back to.
pub(super) fn glob_matches(glob: &str, name: &str) -> bool {
    let glob: Vec<char> = glob.chars().flat_map(char::to_lowercase).collect();
    let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(c) if name.get(n) == Some(c) => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// May this call go out?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Refused(String),
    /// The list of tools must be read first.
    Unknown,
}

#[derive(Debug, Clone, Copy, Default)]
struct Hints {
    read_only: bool,
    idempotent: bool,
    /// The list from which they are. The rules believe only the newest.
    list: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tools {
    known: HashMap<Box<str>, Hints>,
    pub(super) mirrored: Mirrored,
    /// Calls that wait for the list.
    held: Vec<Key>,
    pages: u32,
    asking: bool,
    /// Counts what made lists out of date.
    list: u64,
    /// The list that we began to read.
    asked_list: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: &'a RawValue,
    #[serde(borrow, default)]
    next_cursor: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

/// The two hints that matter here (MCP `ToolAnnotations`). A hint of another type is no hint.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: serde_json::Value,
    idempotent_hint: serde_json::Value,
}

#[derive(Deserialize)]
struct MetaParams<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    params: Option<MetaParams<'a>>,
}

#[derive(Deserialize)]
struct NamedCall<'a> {
    #[serde(borrow)]
    params: NamedParams<'a>,
}

#[derive(Deserialize)]
struct NamedParams<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// The tool that a `tools/call` names.
pub(super) fn tool_of(text: &[u8]) -> Option<Cow<'_, str>> {
    serde_json::from_slice::<NamedCall>(text).ok().map(|call| call.params.name)
}

impl Tools {
    /// The list may have changed. What may be called is judged anew; what may be repeated is still believed, because a call
    /// that is under way was made by the old list.
    pub(super) fn forget(&mut self) {
        self.list += 1;
        if self.known.len() >= MAX_TOOLS {
            self.known.clear();
        }
    }

    /// The server listed it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Calling it twice does no harm, by its own annotation.
    pub(super) fn is_repeatable(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|hints| hints.read_only || hints.idempotent)
    }

    pub(super) fn verdict(&self, rules: &ToolRules, name: Option<&str>) -> Verdict {
        if rules.is_empty() {
            return Verdict::Allowed;
        }
        let Some(name) = name else { return Verdict::Refused("the call names no tool".into()) };
        if !rules.admits_name(name) {
            return Verdict::Refused(format!("Tool {name:?} is not available: the bridge's tool rules hide it"));
        }
        if !rules.read_only {
            return Verdict::Allowed;
        }
        match self.known.get(name).filter(|hints| hints.list == self.list) {
            Some(hints) if hints.read_only => Verdict::Allowed,
            Some(_) => {
                Verdict::Refused(format!("Tool {name:?} is not available: it is not annotated read-only (--read-only)"))
            }
            None => Verdict::Unknown,
        }
    }

    /// Reads the definitions in a page of tools, and leaves out what the rules hide and, with `left_out`, what the modern era calls invalid.
    /// The rest of the text stays as it is. `None` if there are rules and they cannot be applied.
    pub(super) fn learn(
        &mut self,
        rules: &ToolRules,
        mut left_out: Option<&mut Vec<(String, String)>>,
        result: &RawValue,
        text: Bytes,
    ) -> Option<Bytes> {
        let page: Option<Page> = serde_json::from_str(result.get()).ok();
        let tools = page.as_ref().and_then(|page| serde_json::from_str::<Vec<&RawValue>>(page.tools.get()).ok());
        let (Some(page), Some(tools)) = (page, tools) else { return rules.is_empty().then_some(text) };
        let mut kept = Vec::with_capacity(tools.len());
        for raw in &tools {
            let Ok(tool) = serde_json::from_str::<Tool>(raw.get()) else {
                if rules.is_empty() {
                    kept.push(raw.get());
                }
                continue;
            };
            let annotations = tool.annotations.unwrap_or_default();
            let hints = Hints {
                read_only: annotations.read_only_hint == true,
                idempotent: annotations.idempotent_hint == true,
                list: self.list,
            };
            if let Some(known) = self.known.get_mut(&*tool.name) {
                *known = hints;
            } else if self.known.len() < MAX_TOOLS && tool.name.len() <= MAX_NAME {
                self.known.insert(tool.name.as_ref().into(), hints);
            }
            if let Some(left_out) = &mut left_out
                && let Err(why) = self.mirrored.learn(&tool.name, raw.get())
            {
                left_out.push((tool.name.into_owned(), why));
                continue;
            }
            if rules.admits_name(&tool.name) && (!rules.read_only || hints.read_only) {
                kept.push(raw.get());
            }
        }
        if kept.len() == tools.len() {
            return Some(text);
        }
        let whole = std::str::from_utf8(&text).ok()?;
        let start = message::offset_in(whole, page.tools.get())?;
        let (before, after) = (whole.get(..start)?, whole.get(start + page.tools.get().len()..)?);
        Some(format!("{before}[{}]{after}", kept.join(",")).into())
    }
}

impl Session {
    /// A page of tools on its way to the client.
    pub(super) fn list_for_client(&mut self, id: &Id, modern: bool, result: &RawValue, text: Bytes) -> Bytes {
        let mut left_out = Vec::new();
        let learnt = self.tools.learn(&self.settings.tools, modern.then_some(&mut left_out), result, text);
        self.say_left_out(left_out);
        learnt.unwrap_or_else(|| {
            let trouble = Trouble::new("policy", "the server's list of tools cannot be read, so the tool rules cannot be applied")
                .hint("the fault is on the server's side; without --allow-tool, --ignore-tool and --read-only the list passes as it is");
            trouble.response(id)
        })
    }

    /// A call of a tool that nobody has listed yet, under `--read-only`: we list the tools ourselves.
    pub(super) fn hold_for_tools(&mut self, key: Key) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::Held;
        }
        self.tools.held.push(key);
        self.may_wait_for_sign_in(key);
        if !self.tools.asking {
            self.tools.asking = true;
            self.tools.pages = 0;
            self.tools.asked_list = self.tools.list;
            self.ask_for_tools(key, None);
        }
    }

    /// Asks for one page, in the era of the call that wants to know.
    fn ask_for_tools(&mut self, like: Key, cursor: Option<&str>) {
        let Some(model) = self.pending.get(&like) else { return };
        let mut modern = model.modern.clone();
        if let Some(headers) = &mut modern {
            headers.method = "tools/list".into();
            headers.name = None;
        }
        let meta = serde_json::from_slice::<Call>(&model.text)
            .ok()
            .and_then(|call| call.params?.meta.map(|meta| meta.get().to_owned()));
        let meta = meta.map(|meta| format!("\"_meta\":{meta}"));
        let cursor = cursor.map(|cursor| format!("\"cursor\":{}", message::quote(cursor)));
        let params = meta.into_iter().chain(cursor).collect::<Vec<_>>().join(",");
        let id = self.own_id();
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/list\",\"params\":{{{params}}}}}");
        let is_modern = modern.is_some();
        let mut pending = Pending::new(id, Origin::ListTools, "tools/list", text.into());
        pending.modern = modern;
        let key = self.add(pending);
        self.timers.at(self.now + PAGE_PATIENCE, Timer::Own(key));
        if is_modern { self.send(key) } else { self.enqueue(Item::Request(key)) }
    }

    /// One page of our own list.
    pub(super) fn tools_page(&mut self, pending: &Pending, outcome: Outcome<'_>) {
        let Outcome::Result(result) = outcome else {
            return self.tools_unknown(&Trouble::new(
                "server-error",
                "the server does not list its tools, so the bridge cannot tell which are read-only",
            ));
        };
        let mut left_out = Vec::new();
        let modern = pending.modern.is_some();
        self.tools.learn(&ToolRules::default(), modern.then_some(&mut left_out), result, Bytes::new());
        self.tools.pages += 1;
        let next = serde_json::from_str::<Page>(result.get())
            .ok()
            .and_then(|page| serde_json::from_str::<String>(page.next_cursor?.get()).ok());
        let held = self.tools.held.iter().copied().find(|key| self.pending.contains_key(key));
        // A list that changed while we read it is read again.
        let changed = self.tools.asked_list != self.tools.list;
        self.tools.asked_list = self.tools.list;
        if let Some(like) = held
            && (changed || next.is_some())
            && self.tools.pages < MAX_PAGES
        {
            return self.ask_for_tools(like, next.as_deref().filter(|_| !changed));
        }
        self.tools.asking = false;
        for key in std::mem::take(&mut self.tools.held) {
            self.decide(key);
        }
    }

    fn decide(&mut self, key: Key) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if pending.state != State::Held {
            return;
        }
        pending.state = State::Queued;
        let verdict = self.tools.verdict(&self.settings.tools, pending.tool.as_deref());
        let modern = pending.modern.is_some();
        match verdict {
            Verdict::Allowed if modern => self.send(key),
            Verdict::Allowed => self.enqueue(Item::Request(key)),
            Verdict::Refused(why) => self.refuse_call(key, &why),
            Verdict::Unknown => self.refuse_call(key, "the server does not list this tool"),
        }
    }

    fn refuse_call(&mut self, key: Key, why: &str) {
        if let Some(pending) = self.remove(key) {
            let response = message::error_response(Some(&pending.id), message::INVALID_PARAMS, why, None);
            self.respond(pending.batch, response);
        }
    }

    /// Our own list could not be had.
    pub(super) fn tools_unknown(&mut self, trouble: &Trouble) {
        self.log(Level::Warn, format!("the list of tools is not to be had: {}", trouble.logged()));
        self.tools.asking = false;
        for key in std::mem::take(&mut self.tools.held) {
            if self.pending.get(&key).is_some_and(|pending| pending.state == State::Held) {
                let trouble = self.unlisted(key, trouble);
                self.fail(key, &trouble);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"readFile","annotations":{"readOnlyHint":true},"x":1e400},{"name":"deleteFile"} , {"name":"put","annotations":{"idempotentHint":true,"readOnlyHint":"yes"}}],"nextCursor":"2"}}"#;

    fn learn(rules: &ToolRules) -> (Tools, String) {
        let mut tools = Tools::default();
        let text = Bytes::from(LIST);
        let message = message::parse(&text);
        let Ok(message::Parsed::One(message::Message::Response(response))) = message else { panic!("a response") };
        let Outcome::Result(result) = response.outcome else { panic!("a result") };
        let out = tools.learn(rules, None, result, text.clone()).expect("a readable list");
        (tools, String::from_utf8(out.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn globs_match_as_in_mcp_remote() {
        for (glob, name, expected) in [
            ("DELETE*", "deleteThing", true),
            ("*", "", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("get", "getter", false),
            ("*file*", "readFileNow", true),
            ("a.c", "abc", false),
            ("***x", "x", true),
        ] {
            assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
        }
        assert!(!glob_matches(&"*a".repeat(500), &"a".repeat(499)), "and do not explode");
    }

    #[test]
    fn without_rules_a_list_passes_byte_for_byte_and_is_learnt() {
        let (tools, text) = learn(&ToolRules::default());
        assert_eq!(text, LIST);
        assert!(tools.is_repeatable("readFile") && tools.is_repeatable("put") && !tools.is_repeatable("deleteFile"));
        assert_eq!(tools.verdict(&ToolRules::default(), Some("anything")), Verdict::Allowed);
    }

    #[test]
    fn hidden_tools_are_left_out_of_lists_and_refused_in_calls() {
        let rules = ToolRules { ignore: vec!["DELETE*".into()], ..ToolRules::default() };
        let (tools, text) = learn(&rules);
        assert!(!text.contains("deleteFile") && text.contains("\"x\":1e400") && text.contains("\"nextCursor\":\"2\""));
        assert!(matches!(tools.verdict(&rules, Some("deleteFile")), Verdict::Refused(_)));
        assert_eq!(tools.verdict(&rules, Some("readFile")), Verdict::Allowed);

        let rules = ToolRules { allow: vec!["put".into()], ..ToolRules::default() };
        let (tools, text) = learn(&rules);
        assert!(text.contains("\"put\"") && !text.contains("readFile"));
        assert!(matches!(tools.verdict(&rules, Some("readFile")), Verdict::Refused(_)));

        let rules = ToolRules { read_only: true, ..ToolRules::default() };
        let (tools, text) = learn(&rules);
        assert!(text.contains("readFile") && !text.contains("\"put\""), "a hint of the wrong type is no hint");
        assert!(matches!(tools.verdict(&rules, Some("put")), Verdict::Refused(_)));
        assert_eq!(tools.verdict(&rules, Some("never-listed")), Verdict::Unknown);
    }
}
