//! The pretend browser: a person who says yes at once. The bridge starts it by `$BROWSER`, as it would start a real one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use url::{Position, Url};

use crate::Failure;

/// Redirects that it follows: the authorization server sends it to the bridge, which sends it to a last page.
const MAX_HOPS: usize = 10;
/// Bytes of a page that are read.
const MAX_PAGE: u64 = 64 * 1024;
/// No page of the demo takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loads a page and follows its redirects, on this machine only.
pub(crate) fn browse(url: &str) -> Result<(), Failure> {
    let mut url = Url::parse(url)?;
    for _ in 0..MAX_HOPS {
        match get(&url)? {
            Some(next) => url = url.join(&next)?,
            None => return Ok(()),
        }
    }
    Err("too many redirects".into())
}

/// One request; gives where it redirects to.
fn get(url: &Url) -> Result<Option<String>, Failure> {
    let host = url.host_str().filter(|host| ["127.0.0.1", "localhost"].contains(host)).ok_or("not on this machine")?;
    let port = url.port_or_known_default().ok_or("no port")?;
    let mut stream = TcpStream::connect((host, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let target = &url[Position::BeforePath..Position::AfterQuery];
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")?;
    let mut page = BufReader::new(stream.take(MAX_PAGE));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && page.read_line(&mut head)? > 0 {}
    let mut head = head.lines();
    let status = head.next().and_then(|line| line.split(' ').nth(1)).ok_or("no answer")?;
    let fields: Vec<_> = head.filter_map(|line| line.split_once(':')).collect();
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim().to_owned())
    };
    // The page is read, as who shows it would.
    let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    page.take(length).read_to_end(&mut Vec::new())?;
    Ok(field("location").filter(|_| status.starts_with('3')))
}
