//! Capabilities of either side, without what does not cross eras. The rest stays as it was written.

use crate::message::splice::{Object, With, is_object, members};

/// Tasks of 2026 are another protocol than those of 2025-11-25; neither is promised across eras.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// Without tasks of either form. What is no object declares nothing.
pub(super) fn without_tasks(capabilities: &str) -> String {
    without(capabilities, false)
}

/// A legacy client's, without tasks and without `roots.listChanged`: the modern era has no word for either.
pub(super) fn of_legacy_client(capabilities: &str) -> String {
    without(capabilities, true)
}

fn without(capabilities: &str, and_changed_roots: bool) -> String {
    let Ok([tasks, extensions, roots]) = members(capabilities, ["tasks", "extensions", "roots"]) else {
        return "{}".into();
    };
    let mut object = Object::new(capabilities);
    object.remove(tasks);
    let inner = [(extensions, TASKS_EXTENSION, true), (roots, "listChanged", and_changed_roots)];
    for (member, name, wanted) in inner {
        if let Some(member) = member.filter(|member| wanted && is_object(member.value))
            && let Ok([gone]) = members(member.value, [name])
        {
            let mut others = Object::new(member.value);
            others.remove(gone);
            object.replace(member, With::Object(others));
        }
    }
    object.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_cross_is_taken_out() {
        let text = r#"{"z":{"n":1e400},"roots":{"listChanged":true},"tasks":{"a":1},"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}}"#;
        let gone = r#"{"z":{"n":1e400},"roots":{},"extensions":{"a/b":{}}}"#;
        assert_eq!(of_legacy_client(text), gone, "order and numbers stay");
        assert_eq!(
            without_tasks(text),
            gone.replace("{}", r#"{"listChanged":true}"#).replacen(r#""a/b":{"listChanged":true}"#, r#""a/b":{}"#, 1)
        );
        for text in ["{}", r#"{"roots":[],"extensions":1}"#] {
            assert_eq!(of_legacy_client(text), text);
        }
        for odd in ["[]", "1", r#"{"tasks":{},"tasks":{}}"#] {
            assert_eq!(without_tasks(odd), "{}", "{odd}");
        }
    }
}
