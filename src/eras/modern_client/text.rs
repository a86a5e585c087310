//! JSON objects, cut and joined as text: what is not looked for is not read, and nothing is copied twice.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::message;

/// A member that was looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Its value, as text.
    pub(super) value: &'a str,
    /// Where the value before it ends, or the object begins.
    from: usize,
    /// Where its own value begins and ends.
    start: usize,
    end: usize,
}

/// Why an object could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no object.
    NotObject,
    /// A member that is looked for is there twice: readers would differ about which one counts.
    Twice,
}

/// The members with these names, in their order; `None` for one that is missing.
pub(super) fn members<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Result<[Option<Member<'a>>; N], Unreadable> {
    let mut reader = serde_json::Deserializer::from_str(object);
    let read = Wanted { object, names }.deserialize(&mut reader).map_err(|_| Unreadable::NotObject)?;
    read.ok_or(Unreadable::Twice)
}

struct Wanted<'a, 'n, const N: usize> {
    object: &'a str,
    names: [&'n str; N],
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, const N: usize> DeserializeSeed<'de> for Wanted<'de, '_, N> {
    type Value = Option<[Option<Member<'de>>; N]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Wanted<'de, '_, N> {
    type Value = Option<[Option<Member<'de>>; N]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let mut from = self.object.find('{').map_or(0, |brace| brace + 1);
        while let Some(name) = map.next_key::<Name>()? {
            let value = map.next_value::<&'de RawValue>()?.get();
            let start = message::offset_in(self.object, value).unwrap_or(from);
            let end = start + value.len();
            for (slot, wanted) in found.iter_mut().zip(self.names) {
                if name.0 != wanted {
                    continue;
                }
                if slot.is_some() {
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                *slot = Some(Member { value, from, start, end });
            }
            from = end;
        }
        Ok(Some(found))
    }
}

/// An object with some members taken out, changed or put in front. Written once, when all changes are known.
#[derive(Debug)]
pub(super) struct Object<'a> {
    text: &'a str,
    front: String,
    changes: Vec<Change<'a>>,
}

#[derive(Debug)]
struct Change<'a> {
    from: usize,
    to: usize,
    with: With<'a>,
}

/// What stands in a value's place.
#[derive(Debug)]
pub(super) enum With<'a> {
    /// Another text.
    Text(Cow<'a, str>),
    /// An object with changes of its own.
    Object(Object<'a>),
}

impl<'a> Object<'a> {
    /// `text` must be a JSON object.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, front: String::new(), changes: Vec::new() }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, member: Option<Member<'a>>) {
        if let Some(member) = member {
            self.change(member.from, member.end, With::Text(Cow::Borrowed("")));
        }
    }

    /// Gives a member another value.
    pub(super) fn replace(&mut self, member: Member<'a>, with: With<'a>) {
        self.change(member.start, member.end, with);
    }

    /// Puts a member in front. `value` is JSON text.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !self.front.is_empty() {
            self.front.push(',');
        }
        self.front.push_str(&message::quote(name));
        self.front.push(':');
        self.front.push_str(value);
    }

    /// Nothing is changed.
    pub(super) fn is_unchanged(&self) -> bool {
        self.front.is_empty() && self.changes.is_empty()
    }

    fn change(&mut self, from: usize, to: usize, with: With<'a>) {
        self.changes.push(Change { from, to, with });
    }

    /// Appends the object with its changes.
    pub(super) fn write(&self, out: &mut String) {
        if self.is_unchanged() {
            return out.push_str(self.text);
        }
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|change| change.from);
        out.push('{');
        out.push_str(&self.front);
        let mut inside = Inside { out, front: !self.front.is_empty(), begun: false };
        let mut at = self.text.find('{').map_or(0, |brace| brace + 1);
        for change in changes {
            inside.push(self.text.get(at..change.from).unwrap_or_default());
            match &change.with {
                With::Text(text) => inside.out.push_str(text),
                With::Object(object) => object.write(inside.out),
            }
            at = change.to;
        }
        inside.push(self.text.get(at..).unwrap_or_default());
    }

    /// The object with its changes.
    pub(super) fn into_string(self) -> String {
        let mut out = String::with_capacity(self.text.len() + self.front.len() + 16);
        self.write(&mut out);
        out
    }
}

/// Keeps the commas right: the first thing written may have lost what stood before it.
struct Inside<'o> {
    out: &'o mut String,
    front: bool,
    begun: bool,
}

impl Inside<'_> {
    fn push(&mut self, piece: &str) {
        if self.begun {
            return self.out.push_str(piece);
        }
        let piece = piece.trim_start();
        let piece = piece.strip_prefix(',').unwrap_or(piece);
        if piece.is_empty() {
            return;
        }
        self.begun = true;
        if self.front && !piece.starts_with('}') {
            self.out.push(',');
        }
        self.out.push_str(piece);
    }
}

/// The text of a JSON string; `None` for any other value.
pub(super) fn string(value: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name>(value).ok().map(|name| name.0)
}

/// Whether a value is an object.
pub(super) fn is_object(value: &str) -> bool {
    value.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, gone: &[&str], front: &[(&str, &str)]) -> String {
        let mut object = Object::new(text);
        for name in gone {
            object.remove(members(text, [name]).expect("an object")[0]);
        }
        for (name, value) in front {
            object.add(name, value);
        }
        object.into_string()
    }

    #[test]
    fn members_are_taken_out_wherever_they_stand() {
        let text = r#"{ "a" : 1 , "b":{"a":2},"c" : [3] }"#;
        let table: [(&[&str], &str); 8] = [
            (&[], text),
            (&["a"], r#"{ "b":{"a":2},"c" : [3] }"#),
            (&["b"], r#"{"a" : 1,"c" : [3] }"#),
            (&["c"], r#"{"a" : 1 , "b":{"a":2} }"#),
            (&["a", "b"], r#"{"c" : [3] }"#),
            (&["b", "a"], r#"{"c" : [3] }"#),
            (&["b", "c"], r#"{"a" : 1 }"#),
            (&["a", "b", "c"], "{}"),
        ];
        for (gone, expected) in table {
            assert_eq!(edited(text, gone, &[]), expected, "{gone:?}");
        }
    }

    #[test]
    fn members_are_put_in_front() {
        assert_eq!(edited("{}", &[], &[("x", "1")]), r#"{"x":1}"#);
        assert_eq!(edited(" { } ", &[], &[("x", "1"), ("y", "2")]), r#"{"x":1,"y":2} "#);
        assert_eq!(edited(r#"{"a":1}"#, &[], &[("x", "1")]), r#"{"x":1,"a":1}"#);
        assert_eq!(edited(r#"{"a":1}"#, &["a"], &[("x", "1")]), r#"{"x":1}"#);
        assert_eq!(edited(r#"{"a":1,"b":2}"#, &["a"], &[("x", "1")]), r#"{"x":1,"b":2}"#);
    }

    #[test]
    fn a_value_is_replaced_also_deep_inside() {
        let text = r#"{"p":{"_meta":{"t":1,"u":2}},"q":10000000000000000000000001}"#;
        let [p] = members(text, ["p"]).expect("an object");
        let p = p.expect("there");
        let [meta] = members(p.value, ["_meta"]).expect("an object");
        let meta = meta.expect("there");
        let [t] = members(meta.value, ["t"]).expect("an object");
        let mut inner = Object::new(meta.value);
        inner.replace(t.expect("there"), With::Text("7".into()));
        let mut middle = Object::new(p.value);
        middle.replace(meta, With::Object(inner));
        let mut outer = Object::new(text);
        outer.replace(p, With::Object(middle));
        assert_eq!(outer.into_string(), r#"{"p":{"_meta":{"t":7,"u":2}},"q":10000000000000000000000001}"#);
    }

    #[test]
    fn names_are_compared_by_value_and_twice_is_told() {
        let [a] = members(r#"{"\u0061":1}"#, ["a"]).expect("an object");
        assert_eq!(a.expect("there").value, "1");
        assert_eq!(members(r#"{"a":1,"\u0061":2,"b":3}"#, ["a"]).expect_err("twice"), Unreadable::Twice);
        assert_eq!(members("[1]", ["a"]).expect_err("an array"), Unreadable::NotObject);
        assert!(members(r#"{"b":1,"b":2}"#, ["a"]).expect("not looked for")[0].is_none());
    }
}
