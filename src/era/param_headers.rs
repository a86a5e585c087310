//! Tool parameters that are mirrored into `Mcp-Param-*` headers (2026-07-28 "Streamable HTTP", Custom Headers from Tool Parameters).
//!
//! A tool's `inputSchema` marks them with `x-mcp-header`. What it may say is narrow, and a definition that breaks the rules
//! makes the whole tool invalid: a client must leave it out of the list.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{MAX_MIRRORED, header_value};

const MARK: &str = "x-mcp-header";
/// Parameters of one tool that may be mirrored; a server would not take more header fields.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a header's name.
const MAX_NAME: usize = 256;
/// Integers beyond it are not exact in JavaScript, and have no header.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// One parameter that is mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// What stands behind `Mcp-Param-`.
    name: Box<str>,
    /// The `properties` keys that lead to it.
    path: Box<[Box<str>]>,
}

impl ParamHeader {
    /// Bytes of its names.
    pub fn size(&self) -> usize {
        self.name.len() + self.path.iter().map(|key| key.len() + size_of::<Box<str>>()).sum::<usize>()
    }
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, default, rename = "inputSchema")]
    input_schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// The parameters that a tool's definition wants mirrored; `Err` says what is wrong with it.
pub fn of_tool(tool: &str) -> Result<Vec<ParamHeader>, String> {
    // Most tools have none. Who writes the mark with escapes writes for nobody.
    if memchr::memmem::find(tool.as_bytes(), MARK.as_bytes()).is_none() {
        return Ok(Vec::new());
    }
    let Ok(tool) = serde_json::from_str::<Tool>(tool) else { return Ok(Vec::new()) };
    let Some(schema) = tool.input_schema else { return Ok(Vec::new()) };
    let Ok(schema) = serde_json::from_str::<Value>(schema.get()) else {
        return Err("its inputSchema is nested too deeply to be read".into());
    };
    let mut found = Vec::new();
    visit(&schema, &mut Vec::new(), true, &mut found)?;
    Ok(found)
}

/// The headers of a call: names and encoded values. A parameter that is absent, `null` or no plain value has none.
pub fn of_call(headers: &[ParamHeader], call: &[u8]) -> Vec<(Box<str>, String)> {
    let arguments = serde_json::from_slice::<Call>(call)
        .ok()
        .and_then(|call| serde_json::from_str::<Value>(call.params.arguments?.get()).ok());
    let Some(arguments) = arguments else { return Vec::new() };
    let value = |header: &ParamHeader| {
        let mut at = &arguments;
        for key in &header.path {
            at = at.as_object()?.get(&**key)?;
        }
        let text = plain(at)?;
        (text.len() <= MAX_MIRRORED).then(|| (header.name.clone(), encoded(&text)))
    };
    headers.iter().filter_map(value).collect()
}

/// "Type conversion".
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => {
            if let Some(integer) = number.as_i64() {
                return (-MAX_SAFE..=MAX_SAFE).contains(&integer).then(|| integer.to_string());
            }
            let float = number.as_f64()?;
            #[allow(clippy::cast_precision_loss)] // both are exact
            let safe = float.abs() <= MAX_SAFE as f64;
            #[allow(clippy::cast_possible_truncation)] // integral and within 2^53
            (safe && float.fract() == 0.0)
                .then(|| (float as i64).to_string())
                .or_else(|| safe.then(|| float.to_string()))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An empty field value gets lost on the way, so it is encoded, too.
fn encoded(text: &str) -> String {
    if text.is_empty() { "=?base64??=".into() } else { header_value(text) }
}

/// Looks through a schema. `reachable`: the way here went by `properties` alone.
fn visit<'a>(
    schema: &'a Value,
    path: &mut Vec<&'a str>,
    reachable: bool,
    found: &mut Vec<ParamHeader>,
) -> Result<(), String> {
    let Value::Object(members) = schema else { return Ok(()) };
    if let Some(name) = members.get(MARK) {
        let place = if path.is_empty() { "the root".into() } else { path.join(".") };
        if !reachable || path.is_empty() {
            return Err(format!(
                "x-mcp-header at {place} is not on a property that is reached by \"properties\" alone"
            ));
        }
        found.push(annotation(name, members.get("type"), path, &place, found)?);
    }
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, schema) in properties {
                    path.push(name);
                    visit(schema, path, reachable, found)?;
                    path.pop();
                }
            }
            // Schemas by name: the names are no keywords.
            ("patternProperties" | "dependentSchemas" | "$defs" | "definitions", Value::Object(schemas)) => {
                for schema in schemas.values() {
                    visit(schema, path, false, found)?;
                }
            }
            // Values, not schemas.
            ("default" | "const" | "enum" | "examples" | "example" | MARK, _) => {}
            (_, Value::Array(schemas)) => {
                for schema in schemas {
                    visit(schema, path, false, found)?;
                }
            }
            (_, schema) => visit(schema, path, false, found)?,
        }
    }
    Ok(())
}

fn annotation(
    name: &Value,
    kind: Option<&Value>,
    path: &[&str],
    place: &str,
    found: &[ParamHeader],
) -> Result<ParamHeader, String> {
    let name = name.as_str().unwrap_or_default();
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        return Err(format!("x-mcp-header at {place} is not the name of a header field"));
    }
    if !is_primitive(kind) {
        return Err(format!("x-mcp-header at {place} is on a parameter that is no string, integer or boolean"));
    }
    if found.iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
        return Err(format!("x-mcp-header {name} is given twice"));
    }
    if found.len() == MAX_HEADERS {
        return Err(format!("it has more than {MAX_HEADERS} parameters with x-mcp-header"));
    }
    Ok(ParamHeader { name: name.into(), path: path.iter().map(|key| Box::from(*key)).collect() })
}

/// `string`, `integer` or `boolean`, also where `null` is allowed beside it: a null has no header.
fn is_primitive(kind: Option<&Value>) -> bool {
    let one = |kind: &Value| matches!(kind.as_str(), Some("string" | "integer" | "boolean"));
    match kind {
        Some(Value::Array(kinds)) => kinds.iter().any(one) && kinds.iter().all(|kind| one(kind) || *kind == "null"),
        Some(kind) => one(kind),
        None => false,
    }
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(schema: &str) -> Result<Vec<ParamHeader>, String> {
        of_tool(&format!("{{\"name\":\"t\",\"inputSchema\":{schema}}}"))
    }

    fn headers(schema: &str, arguments: &str) -> Vec<(String, String)> {
        let found = tool(schema).expect("a valid definition");
        let call = format!("{{\"params\":{{\"name\":\"t\",\"arguments\":{arguments}}}}}");
        of_call(&found, call.as_bytes()).into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    #[test]
    fn values_are_read_at_their_path_and_converted() {
        let schema = r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "deep":{"type":"object","default":{"x-mcp-header":1},"properties":{"n":{"type":["integer","null"],"x-mcp-header":"N"}}},
            "flag":{"type":"boolean","x-mcp-header":"flag"}}}"#;
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
        };
        let table = [
            (
                r#"{"region":"us","deep":{"n":42},"flag":false}"#,
                pairs(&[("Region", "us"), ("N", "42"), ("flag", "false")]),
            ),
            (r#"{"region":null,"deep":{"n":-7.0}}"#, pairs(&[("N", "-7")])),
            (r#"{"region":"","deep":{"n":9007199254740993}}"#, pairs(&[("Region", "=?base64??=")])),
            (r#"{"region":" a","deep":5,"flag":[true]}"#, pairs(&[("Region", "=?base64?IGE=?=")])),
            (r#"{"n":1}"#, vec![]),
            ("[]", vec![]),
        ];
        for (arguments, mut expected) in table {
            let mut got = headers(schema, arguments);
            got.sort();
            expected.sort();
            assert_eq!(got, expected, "{arguments}");
        }
        assert!(headers(schema, &format!("{{\"region\":\"{}\"}}", "x".repeat(MAX_MIRRORED + 1))).is_empty());
    }

    #[test]
    fn an_invalid_definition_is_told_with_its_reason() {
        let one = |schema: &str| format!("{{\"type\":\"object\",\"properties\":{{\"p\":{schema}}}}}");
        let table = [
            one(r#"{"type":"string","x-mcp-header":""}"#),
            one(r#"{"type":"string","x-mcp-header":"a b"}"#),
            one(r#"{"type":"string","x-mcp-header":"a:b"}"#),
            one(r#"{"type":"string","x-mcp-header":"a\r\nb"}"#),
            one(r#"{"type":"string","x-mcp-header":"ä"}"#),
            one(r#"{"type":"string","x-mcp-header":5}"#),
            one(r#"{"type":"number","x-mcp-header":"a"}"#),
            one(r#"{"type":"object","x-mcp-header":"a"}"#),
            one(r#"{"type":["string","number"],"x-mcp-header":"a"}"#),
            one(r#"{"type":"null","x-mcp-header":"a"}"#),
            one(r#"{"x-mcp-header":"a"}"#),
            one(r#"{"type":"array","items":{"type":"string","x-mcp-header":"a"}}"#),
            one(r#"{"anyOf":[{"type":"object","properties":{"q":{"type":"string","x-mcp-header":"a"}}}]}"#),
            r#"{"x-mcp-header":"a","type":"string"}"#.into(),
            r#"{"$defs":{"d":{"properties":{"q":{"type":"string","x-mcp-header":"a"}}}}}"#.into(),
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#
                .into(),
        ];
        for schema in &table {
            assert!(tool(schema).is_err(), "{schema}");
        }
        let many: Vec<String> =
            (0..=MAX_HEADERS).map(|n| format!("\"p{n}\":{{\"type\":\"string\",\"x-mcp-header\":\"H{n}\"}}")).collect();
        assert!(tool(&format!("{{\"properties\":{{{}}}}}", many.join(","))).is_err());
        assert_eq!(tool(&format!("{{\"properties\":{{{}}}}}", many[1..].join(","))).expect("valid").len(), MAX_HEADERS);
        assert!(tool(&format!("{}1{}", "{\"x-mcp-header\":".repeat(200), "}".repeat(200))).is_err());
    }

    #[test]
    fn a_tool_without_marks_has_no_headers() {
        assert_eq!(tool(r#"{"type":"object"}"#), Ok(vec![]));
        assert_eq!(of_tool(r#"{"name":"x-mcp-header"}"#), Ok(vec![]));
        assert_eq!(of_tool("5"), Ok(vec![]));
    }
}
