//! `--header` and `--header-file`: parsing, `${VAR}`, and what the bridge keeps for itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use http::{HeaderName, HeaderValue};

use super::UsageError;
use super::flags::{self, HeaderSource};
use crate::secret::SafeText;

/// Greatest header file.
pub(super) const MAX_FILE_BYTES: usize = 64 * 1024;

/// Greatest value of one header after `${VAR}` is replaced. Servers refuse more.
pub(super) const MAX_VALUE_BYTES: usize = 16 * 1024;

/// How many headers all sources may give together.
pub(super) const MAX_HEADERS: usize = 100;

/// RFC 9110 §7.6.1, RFC 9112 §6: they belong to a connection or frame a message. `Host` and `Proxy-Authorization`
/// would send the other headers' secrets to a place that the URL does not name.
const CONNECTION: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// MCP transports: they change with each message, a fixed value breaks the session. `Mcp-Param-*` belongs to them.
const PER_MESSAGE: [&str; 4] = ["last-event-id", "mcp-method", "mcp-name", "mcp-session-id"];

/// Headers that guides tell people to give, and that the bridge must choose itself. mcp-remote overwrites them too.
const OVERWRITTEN: [&str; 4] = ["accept", "accept-encoding", "content-type", "mcp-protocol-version"];

/// The headers of all sources, one per name; the later source wins.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) sent: Vec<(HeaderName, HeaderValue)>,
    /// What mcp-remote takes for headers, before `${VAR}` is replaced: part of the names of its files.
    pub(super) typed: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
}

/// Where a header stands, for errors. Shown instead of the header, whose text may be a secret.
#[derive(Clone, Copy)]
enum Place<'a> {
    Flag(usize),
    Line(&'a str, usize),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(1) => out.write_str("--header"),
            Self::Flag(count) => write!(out, "--header number {count}"),
            Self::Line(path, line) => write!(out, "{}, line {line}", SafeText(path)),
        }
    }
}

const FORM: &str = "Write 'Name: value' as one argument, in quotes where it holds a space, \
                    or without a space as in Authorization:${AUTH}.";
const FILE_FORM: &str = "Write one Name: value per line; # begins a comment line.";

impl Place<'_> {
    fn form(self) -> &'static str {
        match self {
            Self::Flag(_) => FORM,
            Self::Line(..) => FILE_FORM,
        }
    }
}

/// Reads all sources in the order typed.
pub(super) fn collect(
    sources: &[HeaderSource],
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Headers, UsageError> {
    let mut all = Headers { typed: typed(sources, read_file)?, ..Headers::default() };
    each(sources, read_file, |place, text| add(&mut all, place, text, env))?;
    Ok(all)
}

/// The headers by which mcp-remote names its files, values as typed (see `store::import::Candidate`). Needs no variable.
pub(super) fn typed(
    sources: &[HeaderSource],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<BTreeMap<String, String>, UsageError> {
    let mut all = BTreeMap::new();
    each(sources, read_file, |_, text| {
        // mcp-remote drops what does not begin so.
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if let Some((name, value)) = text.split_once(':').filter(|(name, _)| is_name(name)) {
            all.insert(name.to_owned(), value.trim_start().to_owned());
        }
        Ok(())
    })?;
    Ok(all)
}

fn each(
    sources: &[HeaderSource],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    mut take: impl FnMut(Place<'_>, &str) -> Result<(), UsageError>,
) -> Result<(), UsageError> {
    for source in sources {
        match source {
            HeaderSource::Flag(count, text) => take(Place::Flag(*count), text)?,
            HeaderSource::File(path) => {
                let text = read_text("--header-file", path, FILE_FORM, read_file)?;
                for (index, line) in text.lines().enumerate() {
                    let line = line.trim_matches(is_blank);
                    if !line.is_empty() && !line.starts_with('#') {
                        take(Place::Line(path, index + 1), line)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Reads the file that a flag names. `form` says what it should hold.
pub(super) fn read_text(
    flag: &str,
    path: &str,
    form: &str,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<String, UsageError> {
    let shown = SafeText(path);
    let bytes = read_file(Path::new(path)).map_err(|error| {
        UsageError::new(
            format!("{flag} {shown} cannot be read: {}", super::cause(&error)),
            "Check the path and the permissions; clients start the bridge in a directory of their own, so give a full path.",
        )
    })?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(UsageError::new(format!("{flag} {shown} is larger than {MAX_FILE_BYTES} bytes"), form));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
        UsageError::new(format!("{flag} {shown} is not UTF-8 text"), "Save it as UTF-8; PowerShell's > writes UTF-16.")
    })
}

fn add(
    all: &mut Headers,
    place: Place<'_>,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), UsageError> {
    if flags::is_flag(text) {
        let flag = SafeText(text.split('=').next().unwrap_or_default()).to_string();
        return Err(UsageError::new(format!("{place} needs a value, but the flag {flag} follows"), place.form()));
    }
    let Some((name, value)) = text.split_once(':') else {
        return Err(UsageError::new(format!("{place} has no colon"), place.form()));
    };
    // RFC 9110 §5.1: no white space between name and colon. An invalid name may be a piece of a value: it is not shown.
    let Ok(name) = HeaderName::from_bytes(name.trim_matches(is_blank).as_bytes()) else {
        return Err(UsageError::new(
            format!("{place} does not begin with the name of a header"),
            "A name holds letters, digits and !#$%&'*+-.^_`|~, and a colon follows it.",
        ));
    };
    if let Some(reason) = refusal(name.as_str()) {
        return Err(UsageError::new(
            format!("{place}: the header {name} cannot be set"),
            format!("Leave it out: {reason}."),
        ));
    }
    let value = check(place, &name, &expand(place, &name, value, env)?)?;
    if OVERWRITTEN.contains(&name.as_str()) {
        all.notes.push(format!("{place}: the header {name} is ignored, the bridge sets it for each message"));
        return Ok(());
    }
    all.sent.retain(|(other, _)| *other != name);
    if all.sent.len() == MAX_HEADERS {
        return Err(UsageError::new(
            format!("{place}: there are more than {MAX_HEADERS} headers"),
            "Leave out those that the server does not need.",
        ));
    }
    all.sent.push((name, value));
    Ok(())
}

fn refusal(name: &str) -> Option<&'static str> {
    match name {
        "host" => Some("it follows from the server URL"),
        "proxy-authorization" => Some("it is for the proxy: --proxy http://user:password@host"),
        _ if CONNECTION.contains(&name) => Some("it belongs to the connection, and the bridge sets it"),
        _ if PER_MESSAGE.contains(&name) || name.starts_with("mcp-param-") => {
            Some("it changes with each message, and the bridge sets it")
        }
        _ => None,
    }
}

fn expand(
    place: Place<'_>,
    name: &HeaderName,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, UsageError> {
    variables(text, env).map_err(|wrong| wrong.at(&format!("{place}: the header {name}")))
}

/// A `${` that cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unexpanded {
    /// No name and `}` follow it.
    Form,
    /// The variable is not set, or empty.
    Missing(String),
}

impl Unexpanded {
    /// The error; `what` is where it happened.
    pub(super) fn at(&self, what: &str) -> UsageError {
        match self {
            Self::Form => UsageError::new(
                format!("{what} has \"${{\" without a variable's name and \"}}\""),
                "Write ${NAME}. A value that holds ${ itself can come from a variable.",
            ),
            Self::Missing(variable) => UsageError::new(
                format!("{what} needs the variable {variable}, which is not set or empty"),
                "Set it in the \"env\" part of the client's configuration for this server, or in the shell.",
            ),
        }
    }
}

/// Replaces each `${VAR}`. What a variable holds is not expanded again, so a literal `${` can stand in a variable.
pub(super) fn variables(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let mut value = String::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        let Some((variable, after)) = reference.split_once('}').filter(|(variable, _)| is_variable(variable)) else {
            return Err(Unexpanded::Form);
        };
        let found = env(variable).filter(|found| !found.is_empty());
        let found = found.ok_or_else(|| Unexpanded::Missing(variable.to_owned()))?;
        value.push_str(before);
        value.push_str(&found);
        rest = after;
    }
    value.push_str(rest);
    Ok(value)
}

/// Names that shells and Windows know, `ProgramFiles(x86)` included. Anything else may be a piece of a secret.
fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-()".contains(&byte))
}

/// RFC 9110 §5.5: visible US-ASCII, blanks between. Line breaks at the ends come from files and are dropped.
fn check(place: Place<'_>, name: &HeaderName, value: &str) -> Result<HeaderValue, UsageError> {
    let value = value.trim_matches(|character| is_blank(character) || matches!(character, '\r' | '\n'));
    let refuse = |problem: &str, hint: &str| {
        Err(UsageError::new(format!("{place}: the value of the header {name} {problem}"), hint))
    };
    if value.is_empty() {
        return refuse("is empty", place.form());
    }
    if value.len() > MAX_VALUE_BYTES {
        return refuse(&format!("is longer than {MAX_VALUE_BYTES} bytes"), "Check what the variable holds.");
    }
    if !value.is_ascii() {
        return refuse(
            "holds characters beyond ASCII",
            "Look for curly quotes and special spaces that came with copying; type them anew.",
        );
    }
    match HeaderValue::from_str(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(value)
        }
        Err(_) => refuse("holds a line break or another control character", "Check what the variable holds."),
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No message may hold this.
    const SECRET: &str = "s3cr3t";

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "TOKEN" => "s3cr3t",
            "PADDED" => " s3cr3t\r\n",
            "NESTED" => "${TOKEN}",
            "BROKEN" => "s3cr3t\r\nX-Evil: 1",
            "LONG" => return Some("x".repeat(MAX_VALUE_BYTES + 1)),
            "EMPTY" => "",
            "ProgramFiles(x86)" => "C:",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn file(path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("good") => {
                Ok(b"\xEF\xBB\xBF# comment\r\n\r\n  X-One: 1 \r\nx-two:${TOKEN}\r\nX-Three: a:b # no comment".to_vec())
            }
            Some("no-colon") => Ok(b"# fine\nX-One: 1\ns3cr3t\n".to_vec()),
            Some("utf16") => Ok(b"\xFF\xFEX\0:\0".to_vec()),
            Some("large") => Ok(vec![b'#'; MAX_FILE_BYTES + 1]),
            Some("largest") => Ok(vec![b'#'; MAX_FILE_BYTES]),
            Some("cr") => Ok(b"X-One: 1\rX-Two: 2".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn flag(text: &str) -> HeaderSource {
        HeaderSource::Flag(1, text.to_owned())
    }

    fn read(sources: &[HeaderSource]) -> Result<Vec<(String, String)>, UsageError> {
        let all = collect(sources, &variables, &file)?;
        assert!(all.sent.iter().all(|(_, value)| value.is_sensitive()));
        let pair = |(name, value): &(HeaderName, HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
        Ok(all.sent.iter().map(pair).collect())
    }

    #[test]
    fn headers_are_read() {
        let table = [
            ("X-Key: abc", "x-key", "abc"),
            ("X-Key:abc", "x-key", "abc"),
            ("X-Key : \t abc \t", "x-key", "abc"),
            ("-X: y", "-x", "y"),
            ("x.key!: a b\tc", "x.key!", "a b\tc"),
            ("X-Url: https://example.com:8443/", "x-url", "https://example.com:8443/"),
            ("Authorization:Bearer ${TOKEN}", "authorization", "Bearer s3cr3t"),
            ("X-Two: ${TOKEN}-${TOKEN}", "x-two", "s3cr3t-s3cr3t"),
            ("X-Padded: ${PADDED}", "x-padded", "s3cr3t"),
            ("X-Nested: ${NESTED}", "x-nested", "${TOKEN}"),
            ("X-Windows: ${ProgramFiles(x86)}", "x-windows", "C:"),
            ("X-Dollar: $TOKEN $5 }", "x-dollar", "$TOKEN $5 }"),
            ("Cookie: a=b", "cookie", "a=b"),
            ("User-Agent: mine", "user-agent", "mine"),
        ];
        for (text, name, value) in table {
            assert_eq!(read(&[flag(text)]).unwrap(), [(name.to_owned(), value.to_owned())], "{text}");
        }
    }

    #[test]
    fn the_later_source_wins() {
        let file = HeaderSource::File("good".to_owned());
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read(&[flag("X-TWO: mine"), file]).unwrap(),
            [owned("x-one", "1"), owned("x-two", "s3cr3t"), owned("x-three", "a:b # no comment")]
        );
        let file = HeaderSource::File("good".to_owned());
        assert_eq!(read(&[file, flag("X-TWO: mine")]).unwrap().last(), Some(&owned("x-two", "mine")));
    }

    #[test]
    fn errors_name_the_place_and_never_the_value() {
        let table = [
            ("s3cr3t", "--header has no colon"),
            ("", "--header has no colon"),
            (": s3cr3t", "--header does not begin with the name of a header"),
            ("Bearer s3cr3t: x", "--header does not begin with the name of a header"),
            ("Schlüssel: s3cr3t", "--header does not begin with the name of a header"),
            ("X-Key:", "--header: the value of the header x-key is empty"),
            ("X-Key: \t", "--header: the value of the header x-key is empty"),
            ("X-Key: “s3cr3t”", "--header: the value of the header x-key holds characters beyond ASCII"),
            (
                "X-Key: s3cr3t\0",
                "--header: the value of the header x-key holds a line break or another control character",
            ),
            (
                "X-Key: s3cr3t\n a",
                "--header: the value of the header x-key holds a line break or another control character",
            ),
            (
                "X-Key: ${BROKEN}",
                "--header: the value of the header x-key holds a line break or another control character",
            ),
            ("X-Key: ${LONG}", "--header: the value of the header x-key is longer than 16384 bytes"),
            ("X-Key: ${MISSING}", "--header: the header x-key needs the variable MISSING, which is not set or empty"),
            ("X-Key: ${EMPTY}", "--header: the header x-key needs the variable EMPTY, which is not set or empty"),
            ("X-Key: ${s3cr3t", "--header: the header x-key has \"${\" without a variable's name and \"}\""),
            ("X-Key: ${}", "--header: the header x-key has \"${\" without a variable's name and \"}\""),
            ("X-Key: ${s3cr3t!}", "--header: the header x-key has \"${\" without a variable's name and \"}\""),
            ("--debug", "--header needs a value, but the flag --debug follows"),
            ("--header-file=s3cr3t", "--header needs a value, but the flag --header-file follows"),
        ];
        for (text, message) in table {
            let error = read(&[flag(text)]).unwrap_err();
            assert_eq!(error.message, message);
            assert!(!error.to_string().contains(SECRET), "{error}");
            assert_eq!(error.to_string().lines().count(), 2);
        }
    }

    #[test]
    fn errors_count_headers_and_lines() {
        let third = HeaderSource::Flag(3, "s3cr3t".to_owned());
        assert_eq!(read(&[third]).unwrap_err().message, "--header number 3 has no colon");
        let table = [
            ("no-colon", "no-colon, line 3 has no colon"),
            ("utf16", "--header-file utf16 is not UTF-8 text"),
            ("large", "--header-file large is larger than 65536 bytes"),
            ("cr", "cr, line 1: the value of the header x-one holds a line break or another control character"),
            ("mis\x1bsing", "--header-file mis\\u{1b}sing cannot be read: there is no such file"),
        ];
        for (path, message) in table {
            assert_eq!(read(&[HeaderSource::File(path.to_owned())]).unwrap_err().message, message);
        }
        assert_eq!(read(&[HeaderSource::File("largest".to_owned())]).unwrap(), []);
    }

    #[test]
    fn headers_of_the_bridge_are_refused() {
        for name in CONNECTION.iter().chain(&PER_MESSAGE).chain(&["mcp-param-region", "Content-Length"]) {
            let error = read(&[flag(&format!("{name}: s3cr3t"))]).unwrap_err();
            let name = name.to_ascii_lowercase();
            assert_eq!(error.message, format!("--header: the header {name} cannot be set"));
        }
    }

    #[test]
    fn headers_that_guides_suggest_are_ignored_with_a_note() {
        let sources = [flag("Accept: text/event-stream"), flag("Content-Type: application/json"), flag("X-A: 1")];
        let all = collect(&sources, &variables, &file).unwrap();
        assert_eq!(all.sent.len(), 1);
        assert_eq!(
            all.notes.first().map(String::as_str),
            Some("--header: the header accept is ignored, the bridge sets it for each message")
        );
        assert_eq!(all.notes.len(), 2);
    }

    #[test]
    fn the_number_of_headers_has_a_limit() {
        let sources: Vec<HeaderSource> = (0..MAX_HEADERS).map(|n| flag(&format!("X-{n}: 1"))).collect();
        assert_eq!(read(&sources).unwrap().len(), MAX_HEADERS);
        let again = [sources, vec![flag("X-0: 2")]].concat_sources();
        assert_eq!(read(&again).unwrap().len(), MAX_HEADERS);
        let more = [again, vec![flag("X-More: 1")]].concat_sources();
        assert_eq!(read(&more).unwrap_err().message, "--header: there are more than 100 headers");
    }

    trait ConcatSources {
        fn concat_sources(self) -> Vec<HeaderSource>;
    }

    impl ConcatSources for [Vec<HeaderSource>; 2] {
        fn concat_sources(self) -> Vec<HeaderSource> {
            self.into_iter().flatten().collect()
        }
    }
}
