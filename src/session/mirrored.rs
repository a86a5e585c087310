//! Tool parameters in headers (E2): what a call carries, and a call that the server refuses because they do not match.

use std::collections::HashMap;

use super::pending::{Key, Pending, State};
use super::tools::tool_of;
use super::trouble::Trouble;
use super::{Level, Session};
use crate::era;
use crate::era::param_headers::{self, ParamHeader};

/// Tools whose parameters are remembered, and bytes of such a tool's name.
const MAX_TOOLS: usize = 2000;
const MAX_NAME: usize = 1024;
/// Bytes of all that is remembered of them: the names of headers and properties are the server's. A call of a tool beyond it has no such headers.
const MAX_BYTES: usize = 8 << 20;
/// Characters of a log line about a tool: its words are the server's.
const MAX_WORDS: usize = 400;

/// The tools that have parameters to be mirrored.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    tools: HashMap<Box<str>, Box<[ParamHeader]>>,
    bytes: usize,
}

fn bytes_of(name: &str, headers: &[ParamHeader]) -> usize {
    name.len() + headers.iter().map(ParamHeader::size).sum::<usize>()
}

impl Mirrored {
    /// Reads a tool's definition. `Err` says why the definition is invalid: then the client must not see it.
    pub(super) fn learn(&mut self, name: &str, tool: &str) -> Result<(), String> {
        let headers = param_headers::of_tool(tool);
        if let Some(old) = self.tools.remove(name) {
            self.bytes = self.bytes.saturating_sub(bytes_of(name, &old));
        }
        if let Ok(headers) = &headers
            && !headers.is_empty()
            && name.len() <= MAX_NAME
            && self.tools.len() < MAX_TOOLS
        {
            let bytes = self.bytes + bytes_of(name, headers);
            if bytes <= MAX_BYTES {
                self.bytes = bytes;
                self.tools.insert(name.into(), headers.as_slice().into());
            }
        }
        headers.map(drop)
    }

    /// The headers of a call, as far as the tool is known.
    pub(super) fn of_call(&self, pending: &Pending) -> Vec<(Box<str>, String)> {
        if self.tools.is_empty() || &*pending.method != "tools/call" {
            return Vec::new();
        }
        let tool = tool_of(&pending.text);
        let headers = tool.and_then(|tool| self.tools.get(&*tool));
        headers.map(|headers| param_headers::of_call(headers, &pending.text)).unwrap_or_default()
    }
}

impl Session {
    /// The server says that a call's headers do not match its body. The tools are listed once, and the call is sent once more
    /// (2026-07-28 "Streamable HTTP", Client Behavior). True if it is.
    pub(super) fn list_and_repeat(
        &mut self,
        key: Key,
        code: Option<i64>,
        refusal: impl FnOnce(&Self) -> Trouble,
    ) -> bool {
        let Some(pending) = self.pending.get(&key) else { return false };
        let may = code == Some(era::HEADER_MISMATCH)
            && pending.modern.is_some()
            && &*pending.method == "tools/call"
            && pending.mismatch.is_none()
            && self.closing.is_none();
        if !may {
            return false;
        }
        let refusal = refusal(self);
        let exchange = pending.exchange();
        if let Some(exchange) = exchange {
            self.let_end(exchange);
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.mismatch = Some(Box::new(refusal));
            pending.state = State::Queued;
        }
        self.log(Level::Debug, "the server misses headers for a tool's parameters; listing the tools again");
        self.hold_for_tools(key);
        true
    }

    /// The tools cannot be listed: a call that was refused before gets that refusal.
    pub(super) fn unlisted(&self, key: Key, trouble: &Trouble) -> Trouble {
        let mismatch = self.pending.get(&key).and_then(|pending| pending.mismatch.as_deref());
        mismatch.unwrap_or(trouble).clone()
    }

    /// Tools with invalid definitions that were left out of a list.
    pub(super) fn say_left_out(&mut self, left_out: Vec<(String, String)>) {
        for (tool, why) in left_out {
            let text = format!("the tool {tool:?} is left out: {why}");
            self.log(Level::Warn, text.chars().take(MAX_WORDS).collect::<String>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(property: &str) -> String {
        format!(
            r#"{{"inputSchema":{{"type":"object","properties":{{"{property}":{{"type":"string","x-mcp-header":"H"}}}}}}}}"#
        )
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_bytes() {
        let mut mirrored = Mirrored::default();
        for n in 0..MAX_TOOLS {
            mirrored.learn(&format!("t{n}"), &tool("a")).expect("valid");
        }
        mirrored.learn("one more", &tool("a")).expect("valid");
        mirrored.learn("t0", &tool("b")).expect("valid");
        assert_eq!(mirrored.tools.len(), MAX_TOOLS);
        assert!(!mirrored.tools.contains_key("one more") && mirrored.tools.contains_key("t0"));
        for n in 0..MAX_TOOLS {
            mirrored.learn(&format!("t{n}"), "{}").expect("valid");
        }
        assert_eq!((mirrored.tools.len(), mirrored.bytes), (0, 0));

        let large = tool(&"p".repeat(MAX_BYTES / 2));
        for name in ["a", "b", "a", "c"] {
            mirrored.learn(name, &large).expect("valid");
        }
        assert_eq!(mirrored.tools.len(), 1, "two are more than fits");
        assert!(mirrored.bytes <= MAX_BYTES);
        mirrored.learn("small", &tool("a")).expect("valid");
        assert!(mirrored.tools.contains_key("small"));
        mirrored.learn(&"n".repeat(MAX_NAME + 1), &tool("a")).expect("valid");
        assert_eq!(mirrored.tools.len(), 2);
    }
}
