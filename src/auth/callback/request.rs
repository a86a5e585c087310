//! The head of an HTTP/1.1 request (RFC 9112), as strict as a browser's is. Pure.
//!
//! One request a connection, no body: what would need more is refused, so nothing can be smuggled behind the head.

/// Bytes of a request's head. Browsers send the cookies of every program on `localhost` along, so there is some room.
pub const MAX_HEAD: usize = 32 * 1024;
/// Header fields of a request.
pub const MAX_HEADERS: usize = 128;

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Method, case-sensitive.
    pub method: &'a str,
    /// Path of the target, as it came.
    pub path: &'a str,
    /// Query of the target, without `?`, as it came.
    pub query: &'a str,
    /// The one `Host` field.
    pub host: &'a str,
}

/// Bytes that are no request that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// Over [`MAX_HEAD`] or [`MAX_HEADERS`].
    TooLarge,
    /// Not HTTP/1.1.
    Version,
    /// It breaks a rule of RFC 9110 or 9112, or brings a body.
    Malformed,
}

/// Reads the head at the start of `bytes`; `None` while it is incomplete.
pub fn parse_request(bytes: &[u8]) -> Result<Option<Request<'_>>, BadRequest> {
    let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
        return if bytes.len() >= MAX_HEAD { Err(BadRequest::TooLarge) } else { Ok(None) };
    };
    let head = window.get(..end).unwrap_or_default();
    let mut lines = Lines(Some(head));
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    let mut host = None;
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > MAX_HEADERS {
            return Err(BadRequest::TooLarge);
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case("host") {
            let value = value.to_str().filter(|_| host.is_none()).ok_or(BadRequest::Malformed)?;
            host = Some(value);
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            || (name.eq_ignore_ascii_case("content-length") && value.0 != b"0")
        {
            return Err(BadRequest::Malformed);
        }
    }
    let host = host.ok_or(BadRequest::Malformed)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request { method, path, query, host }))
}

/// Lines between CRLFs.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
            self.0 = None;
            return Some(rest);
        };
        self.0 = rest.get(end + 2..);
        rest.get(..end)
    }
}

/// Method and target in origin form (RFC 9112 section 3.2.1).
fn request_line(line: &[u8]) -> Result<(&str, &str), BadRequest> {
    let line = std::str::from_utf8(line).map_err(|_| BadRequest::Malformed)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadRequest::Malformed);
    };
    if version != "HTTP/1.1" {
        return Err(if version.starts_with("HTTP/") { BadRequest::Version } else { BadRequest::Malformed });
    }
    let target_ok = target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !is_token(method.as_bytes()) || !target_ok {
        return Err(BadRequest::Malformed);
    }
    Ok((method, target))
}

/// A field's value: no control characters but the tab.
struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    fn to_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

/// One field line (RFC 9112 section 5). A line that goes on from the one before has no name, and so is refused.
fn field(line: &[u8]) -> Result<(&str, Value<'_>), BadRequest> {
    let colon = memchr::memchr(b':', line).ok_or(BadRequest::Malformed)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let name = std::str::from_utf8(name).ok().filter(|name| is_token(name.as_bytes())).ok_or(BadRequest::Malformed)?;
    if value.iter().any(|&b| b != b'\t' && b.is_ascii_control()) {
        return Err(BadRequest::Malformed);
    }
    Ok((name, Value(value)))
}

/// RFC 9110 section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /cb?code=1&state=2 HTTP/1.1\r\nHost: localhost:3335\r\nAccept: */*\r\n\r\n";

    #[test]
    fn a_browsers_request() {
        let want = Request { method: "GET", path: "/cb", query: "code=1&state=2", host: "localhost:3335" };
        assert_eq!(parse_request(GOOD.as_bytes()), Ok(Some(want)));
        for end in 0..GOOD.len() {
            assert_eq!(parse_request(&GOOD.as_bytes()[..end]), Ok(None), "{end}");
        }
        let more = format!("{GOOD}GET /smuggled HTTP/1.1\r\n");
        assert_eq!(parse_request(more.as_bytes()), Ok(Some(want)));
    }

    #[test]
    fn what_is_refused() {
        use BadRequest::{Malformed, Version};
        #[rustfmt::skip]
        let table: &[(&str, BadRequest)] = &[
            ("GET /cb HTTP/1.0\r\nHost: a\r\n\r\n", Version), ("GET /cb HTTP/2.0\r\nHost: a\r\n\r\n", Version),
            ("GET /cb\r\n\r\n", Malformed), ("GET /cb HTTP/1.1\r\n\r\n", Malformed),
            ("GET  /cb HTTP/1.1\r\nHost: a\r\n\r\n", Malformed), ("GET /c b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1 \r\nHost: a\r\n\r\n", Malformed), ("\r\nGET /cb HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET http://localhost:3335/cb HTTP/1.1\r\nHost: a\r\n\r\n", Malformed), ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("G@T /cb HTTP/1.1\r\nHost: a\r\n\r\n", Malformed), ("GET /c\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /cb#x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed), ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed), ("GET /cb HTTP/1.1\r\nHost : a\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", Malformed), ("GET /cb HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1\nHost: a\r\n\r\n", Malformed), ("GET /cb HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Malformed),
            ("GET /cb HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed),
            ("GET /cb HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Malformed), ("\u{16}\u{3}\u{1}\r\n\r\n", Malformed),
        ];
        for (text, want) in table {
            assert_eq!(parse_request(text.as_bytes()), Err(*want), "{text:?}");
        }
        let odd = b"GET /cb HTTP/1.1\r\nHost: \xff\r\n\r\n";
        assert_eq!(parse_request(odd), Err(Malformed));
        let kept = b"POST /cb HTTP/1.1\r\nHOST:\t a \r\nContent-Length: 0\r\nX: \xff\r\nEmpty:\r\n\r\n";
        assert_eq!(parse_request(kept), Ok(Some(Request { method: "POST", path: "/cb", query: "", host: "a" })));
    }

    #[test]
    fn limits() {
        let head = |filler: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(filler));
        let room = MAX_HEAD - head(0).len();
        assert!(parse_request(head(room).as_bytes()).unwrap().is_some());
        assert_eq!(parse_request(head(room + 1).as_bytes()), Err(BadRequest::TooLarge));
        assert_eq!(parse_request("x".repeat(MAX_HEAD - 1).as_bytes()), Ok(None));
        assert_eq!(parse_request("x".repeat(MAX_HEAD).as_bytes()), Err(BadRequest::TooLarge));
        let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
        assert!(parse_request(fields(MAX_HEADERS).as_bytes()).unwrap().is_some());
        assert_eq!(parse_request(fields(MAX_HEADERS + 1).as_bytes()), Err(BadRequest::TooLarge));
    }
}
