//! The tool `sign_in`, which the bridge shows in place of the server's tools while nobody is signed in (S3).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Session;
use super::pending::{Key, Pending, State};
use super::sign_in::{Stage, Wish};
use super::timers::Timer;
use super::trouble::Trouble;
use crate::message;
use crate::secret::SafeText;

/// Its name.
pub(super) const NAME: &str = "sign_in";
/// Its one argument.
const ARGUMENT: &str = "redirect_url";
/// How long a call waits for the address.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(15);
/// How long a call waits for the word on what was pasted: a token request must fit in.
const PASTE_PATIENCE: Duration = Duration::from_secs(30);
/// Calls that may wait at one time.
const MAX_CALLS: usize = 100;
/// Bytes that may be pasted.
const MAX_PASTE: usize = 16 * 1024;

/// What a call that waits asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Address,
    Paste,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// What a call brings.
#[derive(Debug, Default)]
struct Arguments {
    redirect_url: Option<String>,
}

impl Arguments {
    /// The error is for whoever called. An argument of another name is one: what was meant to be pasted would be lost in silence.
    fn read(json: &str) -> Result<Self, String> {
        let no_text = || "redirect_url must be a text: the address that the browser ended at".to_owned();
        let members: Option<BTreeMap<String, Value>> = serde_json::from_str(json).map_err(|_| no_text())?;
        let mut read = Self::default();
        for (name, value) in members.unwrap_or_default() {
            match (&*name, value) {
                (ARGUMENT, Value::String(text)) => read.redirect_url = Some(text),
                (ARGUMENT, Value::Null) => {}
                (ARGUMENT, _) => return Err(no_text()),
                _ => {
                    return Err(format!(
                        "sign_in has no argument {}. Its one argument is {ARGUMENT}, the whole address that the browser ended at; without it, \
                         sign_in gives the address where the user signs in.",
                        SafeText(&name)
                    ));
                }
            }
        }
        Ok(read)
    }
}

impl Session {
    /// Whether a `tools/call` is for the bridge: it showed the tool, or could have, and the server has none of that name.
    pub(super) fn is_sign_in_call(&self, params: Option<&RawValue>) -> bool {
        self.sign_in.is_spoken_of()
            && !self.tools.knows(NAME)
            && params
                .and_then(|params| serde_json::from_str::<CallParams>(params.get()).ok())
                .is_some_and(|call| call.name == NAME)
    }

    /// The answer to `tools/list` without a sign-in.
    pub(super) fn sign_in_list(&mut self, pending: &Pending, trouble: &Trouble) -> Bytes {
        self.sign_in.offered = true;
        let server = &self.settings.server;
        let mut description = format!(
            "You are not signed in to {server}, so its own tools cannot be listed yet. Call this tool without arguments to get the address \
             where the user signs in, and show that address to the user. Once signed in, the tools of {server} take the place of this one."
        );
        // The address is not for a description.
        let cause = (!trouble.declined && !self.sign_in.is_wanted()).then_some(&*trouble.message);
        if let Some(last) = self.sign_in.last.as_deref().or(cause) {
            description = format!("{description} The last try: {last}.");
        }
        let argument = "Only if the browser runs on another machine and ends at a page that does not load: the whole address from its address bar.";
        let title = message::quote(&format!("Sign in to {server}"));
        let cache =
            if pending.modern.is_some() { r#""resultType":"complete","ttlMs":0,"cacheScope":"private","# } else { "" };
        let result = format!(
            "{{{cache}\"tools\":[{{\"name\":\"{NAME}\",\"title\":{title},\"description\":{},\
             \"inputSchema\":{{\"type\":\"object\",\"properties\":{{\"redirect_url\":{{\"type\":\"string\",\"description\":{}}}}},\"additionalProperties\":false}},\
             \"annotations\":{{\"title\":{title},\"readOnlyHint\":false,\"destructiveHint\":false,\"idempotentHint\":true,\"openWorldHint\":true}}}}]}}",
            message::quote(&description),
            message::quote(argument),
        );
        message::result_response(&pending.id, &result)
    }

    /// The client calls it.
    pub(super) fn call_sign_in(&mut self, key: Key, params: Option<&RawValue>) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.state = State::SignIn;
        }
        self.sign_in.offered = true;
        let arguments = params
            .and_then(|params| serde_json::from_str::<CallParams>(params.get()).ok())
            .and_then(|call| call.arguments)
            .map_or_else(|| Ok(Arguments::default()), |arguments| Arguments::read(arguments.get()));
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(why) => return self.answer_call(key, &why, true),
        };
        if matches!(self.sign_in.stage, Stage::Done) {
            return self.answer_call(key, &self.signed_in(), false);
        }
        match arguments.redirect_url.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            None => self.ask_for_address(key),
            Some(text) if text.len() > MAX_PASTE => {
                self.answer_call(key, "redirect_url is too long to be the address that the browser ended at", true);
            }
            Some(text) if self.sign_in.is_wanted() => {
                if self.wait_for_news(key, Asked::Paste, PASTE_PATIENCE) {
                    self.wish(Wish::Paste(text.into()));
                }
            }
            Some(_) => {
                let text = "No sign-in is under way that this address could belong to. Call sign_in without arguments to begin one.";
                self.answer_call(key, text, true);
            }
        }
    }

    fn ask_for_address(&mut self, key: Key) {
        if let Some(text) = self.address() {
            // A user who asks may have lost the page, or was never shown one.
            self.wish(Wish::Begin);
            return self.answer_call(key, &text, false);
        }
        let pending = &self.pending;
        let asked = self.sign_in.calls.iter().any(|(key, asked)| *asked == Asked::Address && pending.contains_key(key));
        if self.wait_for_news(key, Asked::Address, ADDRESS_PATIENCE) && !asked {
            self.wish(Wish::Begin);
        }
    }

    fn wait_for_news(&mut self, key: Key, asked: Asked, patience: Duration) -> bool {
        if self.sign_in.calls.len() >= MAX_CALLS {
            let pending = &self.pending;
            self.sign_in.calls.retain(|(key, _)| pending.contains_key(key));
        }
        if self.sign_in.calls.len() >= MAX_CALLS {
            self.answer_call(key, "Too many calls of sign_in wait already. Call it again later.", true);
            return false;
        }
        self.sign_in.calls.push_back((key, asked));
        self.timers.at(self.now + patience, Timer::SignInCall(key));
        true
    }

    // ---- news ----

    /// The address is known.
    pub(super) fn tell_address(&mut self) {
        let Some(text) = self.address() else { return };
        for (key, _) in self.take_calls(|asked| asked == Asked::Address) {
            self.answer_call(key, &text, false);
        }
    }

    /// The sign-in is over, well or not: every call is answered.
    pub(super) fn answer_sign_in_calls(&mut self) {
        let (text, is_error) = match &self.sign_in.stage {
            Stage::Ended { message, hint } => {
                let hint = hint.as_ref().map(|hint| format!(" {hint}.")).unwrap_or_default();
                (format!("The sign-in came to nothing: {message}.{hint} Call sign_in again to begin anew."), true)
            }
            _ => (self.signed_in(), false),
        };
        for (key, _) in self.take_calls(|_| true) {
            self.answer_call(key, &text, is_error);
        }
    }

    /// What was pasted first is not it.
    pub(super) fn not_taken(&mut self, why: &str) {
        let mut first = true;
        let taken = self.take_calls(|asked| asked == Asked::Paste && std::mem::take(&mut first));
        for (key, _) in taken {
            self.answer_call(key, &format!("Not accepted: {why}"), true);
        }
    }

    /// A call has waited long enough for news.
    pub(super) fn sign_in_call_overdue(&mut self, key: Key) {
        let Some(at) = self.sign_in.calls.iter().position(|(waiting, _)| *waiting == key) else { return };
        match self.sign_in.calls.remove(at) {
            Some((_, Asked::Address)) => {
                self.answer_call(key, "The sign-in is being prepared. Call sign_in again in a moment.", false);
            }
            Some((_, Asked::Paste)) => {
                let text =
                    "There is no word yet on what was pasted. Call sign_in without arguments to see how things stand.";
                self.answer_call(key, text, true);
            }
            None => {}
        }
    }

    /// Takes the calls that wait for something, in their order; those that are answered or cancelled already are forgotten.
    fn take_calls(&mut self, mut wanted: impl FnMut(Asked) -> bool) -> Vec<(Key, Asked)> {
        let pending = &self.pending;
        self.sign_in.calls.retain(|(key, _)| pending.contains_key(key));
        let calls = std::mem::take(&mut self.sign_in.calls);
        let (taken, left): (Vec<_>, Vec<_>) = calls.into_iter().partition(|(_, asked)| wanted(*asked));
        self.sign_in.calls = left.into();
        taken
    }

    // ---- words ----

    fn address(&self) -> Option<String> {
        let Stage::Wanted { url, advice } = &self.sign_in.stage else { return None };
        let server = &self.settings.server;
        // The advice may say already where to paste: once is enough.
        let paste = if advice.contains(NAME) {
            "Here, that is: call sign_in again with redirect_url."
        } else {
            "If the browser ends at a page that does not load, as when it runs on another machine: call sign_in again with the whole \
             address of that page as redirect_url."
        };
        let advice = if advice.is_empty() { String::new() } else { format!("\n\n{advice}") };
        let last = self.sign_in.last.as_ref().map(|last| format!("The last try: {last}.\n\n")).unwrap_or_default();
        Some(format!(
            "{last}To sign in to {server}, the user opens this address in a browser:\n\n{url}{advice}\n\n{paste}"
        ))
    }

    fn signed_in(&self) -> String {
        let server = &self.settings.server;
        format!(
            "Signed in to {server}. Its own tools can be used now; where they are not shown yet, list the tools again."
        )
    }

    fn answer_call(&mut self, key: Key, text: &str, is_error: bool) {
        let Some(pending) = self.remove(key) else { return };
        let kind = if pending.modern.is_some() { r#""resultType":"complete","# } else { "" };
        let text = message::quote(text);
        let result = format!("{{{kind}\"content\":[{{\"type\":\"text\",\"text\":{text}}}],\"isError\":{is_error}}}");
        self.respond(pending.batch, message::result_response(&pending.id, &result));
    }
}
