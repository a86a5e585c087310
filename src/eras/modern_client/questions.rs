//! Whether a question of a legacy server may be put to a modern client, and in what words.

use super::request::{Abilities, Need};
use crate::message::splice::{Object, Unreadable, With, is_object, members, string};
use crate::message::{self, INVALID_PARAMS, METHOD_NOT_FOUND};

/// A question in the words of 2026-07-28 `InputRequest`.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// What begins its key: the kind.
    pub(super) kind: &'static str,
    pub(super) need: Need,
    method: &'a str,
    /// Its parameters, if it has any.
    params: Option<Object<'a>>,
}

impl<'a> Question<'a> {
    /// The request object.
    pub(super) fn request(self) -> Object<'a> {
        let mut request = Object::new("{}");
        request.add("method", &message::quote(self.method));
        if let Some(params) = self.params {
            request.add_value("\"params\"", With::Object(params));
        }
        request
    }
}

/// Why the client is not asked; the answer that the server gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unasked {
    pub(super) code: i64,
    pub(super) why: &'static str,
    /// What the request would have had to declare, where that is the reason.
    pub(super) need: Option<Need>,
}

/// Whether this is one of the three questions that an `InputRequiredResult` can carry.
pub(super) fn is_question(method: &str) -> bool {
    matches!(method, "elicitation/create" | "sampling/createMessage" | "roots/list")
}

/// Judges a question by what the request that it belongs to declared. The codes are those that a legacy client without the
/// capability gives (2025-11-25 "Elicitation" and "Roots", Error Handling).
pub(super) fn judge<'a>(method: &'a str, params: Option<&'a str>, able: Abilities) -> Result<Question<'a>, Unasked> {
    let refuse = |code, why| Err(Unasked { code, why, need: None });
    let text = params.unwrap_or("{}");
    let read = members(text, ["_meta", "task", "mode", "elicitationId", "tools", "toolChoice"]);
    let [meta, task, mode, elicitation_id, tools, choice] = match read {
        Ok(read) => read,
        Err(Unreadable::NotObject) => return refuse(INVALID_PARAMS, "\"params\" must be an object"),
        Err(Unreadable::Twice) => return refuse(INVALID_PARAMS, "a member of \"params\" is given twice"),
    };
    let mut object = Object::new(text);
    // The session declared no tasks, so this is an ordinary request (2025-11-25 "Tasks", Task Support and Handling).
    object.remove(task);
    if let Some(meta) = meta
        && is_object(meta.value)
        && let Ok([token]) = members(meta.value, ["progressToken"])
    {
        // The client has no way to report progress on its answer.
        let mut inner = Object::new(meta.value);
        inner.remove(token);
        object.replace(meta, With::Object(inner));
    }
    let (kind, need) = match method {
        "roots/list" => ("roots", Need::Roots),
        "sampling/createMessage" if !able.sampling => ("sampling", Need::Sampling),
        "sampling/createMessage" if tools.is_some() || choice.is_some() => ("sampling", Need::SamplingTools),
        "sampling/createMessage" => ("sampling", Need::Sampling),
        "elicitation/create" => match mode.map(|mode| string(mode.value)) {
            None => ("elicitation", Need::Form),
            Some(Some(mode)) if mode == "form" => ("elicitation", Need::Form),
            Some(Some(mode)) if mode == "url" => {
                object.remove(elicitation_id);
                ("elicitation", Need::Url)
            }
            Some(_) => return refuse(INVALID_PARAMS, "there is no such mode of elicitation"),
        },
        _ => return refuse(METHOD_NOT_FOUND, "the client has no such method"),
    };
    if !able.allow(need) {
        return Err(undeclared(need, able));
    }
    let params = (params.is_some() || method != "roots/list").then_some(object);
    Ok(Question { kind, need, method, params })
}

/// The request in flight did not declare what a question needs.
pub(super) fn undeclared(need: Need, able: Abilities) -> Unasked {
    let (code, why) = match need {
        Need::Roots => (METHOD_NOT_FOUND, "the client did not declare roots for this request"),
        Need::Sampling => (METHOD_NOT_FOUND, "the client did not declare sampling for this request"),
        Need::SamplingTools => (INVALID_PARAMS, "the client did not declare sampling with tools for this request"),
        Need::Form | Need::Url if !able.elicitation_form && !able.elicitation_url => {
            (METHOD_NOT_FOUND, "the client did not declare elicitation for this request")
        }
        Need::Form | Need::Url => {
            (INVALID_PARAMS, "the client did not declare this mode of elicitation for this request")
        }
    };
    Unasked { code, why, need: Some(need) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (&'a str, Option<&'a str>, Abilities, Result<&'a str, i64>);

    fn ask(method: &str, params: Option<&str>, able: Abilities) -> Result<String, i64> {
        judge(method, params, able).map(|question| question.request().into_string()).map_err(|unasked| unasked.code)
    }

    #[test]
    fn only_what_was_declared_is_asked() {
        let none = Abilities::default();
        let all = Abilities {
            roots: true,
            sampling: true,
            sampling_tools: true,
            elicitation_form: true,
            elicitation_url: true,
        };
        let form = Abilities { elicitation_form: true, ..none };
        let url = Abilities { elicitation_url: true, ..none };
        let sampling = Abilities { sampling: true, ..none };
        let table: &[Case<'_>] = &[
            ("roots/list", None, all, Ok(r#"{"method":"roots/list"}"#)),
            ("roots/list", Some("{}"), all, Ok(r#"{"method":"roots/list","params":{}}"#)),
            ("roots/list", None, none, Err(METHOD_NOT_FOUND)),
            (
                "sampling/createMessage",
                Some(r#"{"maxTokens":1}"#),
                sampling,
                Ok(r#"{"method":"sampling/createMessage","params":{"maxTokens":1}}"#),
            ),
            ("sampling/createMessage", Some(r#"{"tools":[]}"#), sampling, Err(INVALID_PARAMS)),
            ("sampling/createMessage", Some("{}"), form, Err(METHOD_NOT_FOUND)),
            (
                "elicitation/create",
                Some(r#"{"message":"m"}"#),
                form,
                Ok(r#"{"method":"elicitation/create","params":{"message":"m"}}"#),
            ),
            ("elicitation/create", Some(r#"{"mode":"form"}"#), url, Err(INVALID_PARAMS)),
            (
                "elicitation/create",
                Some(r#"{"mode":"url","elicitationId":"e","url":"u"}"#),
                url,
                Ok(r#"{"method":"elicitation/create","params":{"mode":"url","url":"u"}}"#),
            ),
            ("elicitation/create", Some(r#"{"mode":"url"}"#), form, Err(INVALID_PARAMS)),
            ("elicitation/create", Some(r#"{"mode":"dance"}"#), all, Err(INVALID_PARAMS)),
            ("elicitation/create", Some(r#"{"mode":1}"#), all, Err(INVALID_PARAMS)),
            ("elicitation/create", Some("{}"), sampling, Err(METHOD_NOT_FOUND)),
            ("elicitation/create", Some("[]"), all, Err(INVALID_PARAMS)),
            ("tasks/get", Some("{}"), all, Err(METHOD_NOT_FOUND)),
            (
                "elicitation/create",
                Some(r#"{"_meta":{"progressToken":1,"x":2},"task":{"ttl":1},"message":"m"}"#),
                form,
                Ok(r#"{"method":"elicitation/create","params":{"_meta":{"x":2},"message":"m"}}"#),
            ),
        ];
        for (method, params, able, expected) in table {
            let expected = expected.map(str::to_owned);
            assert_eq!(ask(method, *params, *able), expected, "{method} {params:?}");
        }
    }
}
