//! JSON objects, cut and joined as text (R2): what is not looked for is not read, what is not changed stays as it is, and all of it is
//! copied once, when every change is known.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Id, offset_in, quote};

/// A member that was looked for.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its value, as text.
    pub value: &'a str,
    /// Where the value before it ends, or the object begins.
    from: usize,
    /// Where its own value begins and ends.
    start: usize,
    end: usize,
}

/// Why an object could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is no object.
    NotObject,
    /// A member that is looked for is there twice: readers would differ about which one counts.
    Twice,
}

/// The members with these names, in their order; `None` for one that is missing.
pub fn members<'a, const N: usize>(object: &'a str, names: [&str; N]) -> Result<[Option<Member<'a>>; N], Unreadable> {
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
            let start = offset_in(self.object, value).unwrap_or(from);
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
pub struct Object<'a> {
    text: &'a str,
    front: Vec<Front<'a>>,
    changes: Vec<Edit<'a>>,
}

/// What is put in front.
#[derive(Debug)]
enum Front<'a> {
    /// Members, as JSON text without braces.
    Text(Cow<'a, str>),
    /// A name, as JSON text, and its value.
    Member(Cow<'a, str>, With<'a>),
}

#[derive(Debug)]
struct Edit<'a> {
    from: usize,
    to: usize,
    with: With<'a>,
}

/// What stands in a value's place.
#[derive(Debug)]
pub enum With<'a> {
    /// Another text.
    Text(Cow<'a, str>),
    /// An object with changes of its own.
    Object(Object<'a>),
    /// An array in which some items, all of them objects, are changed.
    Array(&'a str, Vec<Object<'a>>),
}

impl<'a> Object<'a> {
    /// `text` must be a JSON object.
    pub fn new(text: &'a str) -> Self {
        Self { text, front: Vec::new(), changes: Vec::new() }
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: Option<Member<'a>>) {
        if let Some(member) = member {
            self.changes.push(Edit { from: member.from, to: member.end, with: With::Text(Cow::Borrowed("")) });
        }
    }

    /// Gives a member another value.
    pub fn replace(&mut self, member: Member<'a>, with: With<'a>) {
        self.changes.push(Edit { from: member.start, to: member.end, with });
    }

    /// Puts a member in front of what was there. `value` is JSON text.
    pub fn add(&mut self, name: &str, value: &str) {
        self.add_members(format!("{}:{value}", quote(name)));
    }

    /// The same for a value that is not copied before the object is written. `name` is JSON text.
    pub fn add_value(&mut self, name: impl Into<Cow<'a, str>>, value: With<'a>) {
        self.front.push(Front::Member(name.into(), value));
    }

    /// The same for any number of members, as JSON text without the braces.
    pub fn add_members(&mut self, members: impl Into<Cow<'a, str>>) {
        let members = members.into();
        if !members.is_empty() {
            self.front.push(Front::Text(members));
        }
    }

    /// Nothing is changed.
    pub fn is_unchanged(&self) -> bool {
        self.front.is_empty() && self.changes.is_empty()
    }

    /// Appends the object with its changes.
    pub fn write(&self, out: &mut String) {
        if self.is_unchanged() {
            return out.push_str(self.text);
        }
        let mut changes: Vec<&Edit> = self.changes.iter().collect();
        changes.sort_by_key(|change| change.from);
        out.push('{');
        for (place, front) in self.front.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            match front {
                Front::Text(members) => out.push_str(members),
                Front::Member(name, value) => {
                    out.push_str(name);
                    out.push(':');
                    value.write(out);
                }
            }
        }
        let mut inside = Inside { out, front: !self.front.is_empty(), begun: false };
        let mut at = self.text.find('{').map_or(0, |brace| brace + 1);
        for change in changes {
            inside.push(self.text.get(at..change.from).unwrap_or_default());
            change.with.write(inside.out);
            at = change.to;
        }
        inside.push(self.text.get(at..).unwrap_or_default());
    }

    /// The object with its changes.
    pub fn into_string(self) -> String {
        let mut out = String::with_capacity(self.text.len() + self.added());
        self.write(&mut out);
        out
    }

    /// Bytes that the changes add, at most.
    fn added(&self) -> usize {
        let front = self.front.iter().map(|front| match front {
            Front::Text(members) => members.len() + 1,
            Front::Member(name, value) => name.len() + 2 + value.written(),
        });
        front.sum::<usize>() + self.changes.iter().map(|change| change.with.added()).sum::<usize>()
    }
}

impl With<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Object(object) => object.write(out),
            Self::Array(array, items) => {
                let mut at = 0;
                for item in items {
                    let Some(start) = offset_in(array, item.text) else { continue };
                    out.push_str(array.get(at..start).unwrap_or_default());
                    item.write(out);
                    at = start + item.text.len();
                }
                out.push_str(array.get(at..).unwrap_or_default());
            }
        }
    }

    /// Bytes of it, at most.
    fn written(&self) -> usize {
        self.added()
            + match self {
                Self::Text(_) => 0,
                Self::Object(object) => object.text.len(),
                Self::Array(array, _) => array.len(),
            }
    }

    fn added(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Object(object) => object.added(),
            Self::Array(_, items) => items.iter().map(Object::added).sum(),
        }
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

/// What to change in a message.
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// Another id.
    pub id: Option<&'a Id>,
    /// Members for `params`: names as JSON text, and values.
    pub params: Vec<(&'a str, With<'a>)>,
    /// Members for `params._meta`, as JSON text.
    pub meta: &'a str,
}

/// The message with these changes; `None` if it is no object, or its `params` is none, or a member to be changed is given twice.
/// What is put in stands before what was there.
pub fn changed(text: &Bytes, change: Change<'_>) -> Option<Bytes> {
    let whole = std::str::from_utf8(text).ok()?;
    let [id, params] = members(whole, ["id", "params"]).ok()?;
    let mut message = Object::new(whole);
    if let (Some(new), Some(old)) = (change.id, id) {
        message.replace(old, With::Text(new.to_json().into()));
    }
    let given = params.map_or("{}", |params| params.value);
    let [meta] = members(given, ["_meta"]).ok()?;
    let mut new = Object::new(given);
    for (name, value) in change.params {
        new.add_value(name, value);
    }
    match meta {
        _ if change.meta.is_empty() => {}
        Some(old) if is_object(old.value) => {
            let mut inner = Object::new(old.value);
            inner.add_members(change.meta);
            new.replace(old, With::Object(inner));
        }
        // No object, so no metadata.
        Some(old) => new.replace(old, With::Text(format!("{{{}}}", change.meta).into())),
        None => new.add_members(format!("\"_meta\":{{{}}}", change.meta)),
    }
    match params {
        Some(params) => message.replace(params, With::Object(new)),
        None if new.is_unchanged() => {}
        None => message.add_value("\"params\"", With::Object(new)),
    }
    Some(Bytes::from(message.into_string()))
}

/// Whether two objects have the same members in the same order, as text, but for those with these names.
pub fn same_members(one: &str, other: &str, without: &[&str]) -> bool {
    let read = |text| {
        let mut all = serde_json::from_str::<Members<'_>>(text).ok()?.0;
        all.retain(|(name, _)| !without.contains(&&**name));
        Some(all)
    };
    match (read(one), read(other)) {
        (Some(one), Some(other)) => {
            one.len() == other.len()
                && one.iter().zip(&other).all(|((name, value), (other_name, other_value))| {
                    name == other_name && value.get() == other_value.get()
                })
        }
        _ => false,
    }
}

/// All members, as they stand.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = map.next_key::<Name>()? {
                    all.push((name.0, map.next_value()?));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The text of a JSON string; `None` for any other value.
pub fn string(value: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name>(value).ok().map(|name| name.0)
}

/// Whether a value is an object.
pub fn is_object(value: &str) -> bool {
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

    fn check(text: &str, id: Option<i64>, params: &str, meta: &str, expected: &str) {
        let id = id.map(Id::Integer);
        let params = params.split_once(':').map(|(name, value)| (name, With::Text(value.into())));
        let change = Change { id: id.as_ref(), params: params.into_iter().collect(), meta };
        let got = changed(&Bytes::copy_from_slice(text.as_bytes()), change).expect("an object");
        assert_eq!(std::str::from_utf8(&got), Ok(expected), "{text}");
        serde_json::from_slice::<serde::de::IgnoredAny>(&got).expect("still JSON");
    }

    #[test]
    fn members_are_put_in_and_all_else_stays() {
        let m = r#""m":1"#;
        let p = r#""p":2"#;
        check(r#"{"id":1,"method":"a"}"#, None, "", m, r#"{"params":{"_meta":{"m":1}},"id":1,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, Some(7), p, m, r#"{"params":{"p":2,"_meta":{"m":1}},"id":7,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, None, p, "", r#"{"params":{"p":2},"id":1,"method":"a"}"#);
        check(r#"{"id":1,"method":"a"}"#, None, "", "", r#"{"id":1,"method":"a"}"#);
        check(r#"{"params":{ },"id":1}"#, None, "", m, r#"{"params":{"_meta":{"m":1}},"id":1}"#);
        check(r#"{"params":{ },"id":1}"#, None, p, m, r#"{"params":{"p":2,"_meta":{"m":1}},"id":1}"#);
        check(r#"{"params":{"x":1e400},"id":1}"#, None, "", m, r#"{"params":{"_meta":{"m":1},"x":1e400},"id":1}"#);
        check(r#"{"params":{"x":1},"id":1}"#, Some(9), p, m, r#"{"params":{"p":2,"_meta":{"m":1},"x":1},"id":9}"#);
        check(
            r#"{"params":{"_meta":{"y":1}},"id":1}"#,
            None,
            p,
            m,
            r#"{"params":{"p":2,"_meta":{"m":1,"y":1}},"id":1}"#,
        );
        check(r#"{"params":{"x":1,"_meta":{}},"id":1}"#, None, "", m, r#"{"params":{"x":1,"_meta":{"m":1}},"id":1}"#);
        check(r#"{"id":1,"params":{"_meta":null}}"#, Some(2), "", m, r#"{"id":2,"params":{"_meta":{"m":1}}}"#);
        check(r#"{"params":{"_meta":{"y":1}},"id":1}"#, None, p, "", r#"{"params":{"p":2,"_meta":{"y":1}},"id":1}"#);
        for bad in [r#"{"id":1,"params":[1]}"#, "[1]", r#"{"params":{"_meta":1,"_meta":2},"id":1}"#] {
            assert!(changed(&Bytes::from(bad), Change { meta: m, ..Change::default() }).is_none(), "{bad}");
        }
    }
}
