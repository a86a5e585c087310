//! The user's browser. The bridge starts `tests/support/browser`, which only notes the tab's address; what happens in the tab
//! happens here, in the test: so a tab outlives the process that opened it, as real ones do.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use url::Url;

use super::bridge::Setup;
use super::{LIMIT, POLL, TempDir, eventually};

/// Redirects that it follows.
const MAX_HOPS: usize = 10;

/// What the tab shows in the end.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: String,
    pub status: u16,
    pub body: String,
    location: Option<String>,
}

/// A browser whose tabs are opened by every bridge in one home.
pub struct Browser {
    tabs: PathBuf,
    stop: Arc<AtomicBool>,
    visited: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// The program.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/browser")
}

/// Names the browser to a bridge.
pub fn with_browser(setup: Setup) -> Setup {
    setup.env("BROWSER", program().to_str().expect("a path that is text"))
}

impl Browser {
    /// A browser that goes wherever a new tab leads, at once.
    pub fn eager(home: &Arc<TempDir>) -> Self {
        let mut browser = Self::idle(home);
        browser.visited.store(browser.tabs().len(), Ordering::Relaxed);
        let (tabs, stop, visited) = (browser.tabs.clone(), Arc::clone(&browser.stop), Arc::clone(&browser.visited));
        browser.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let all = read(&tabs);
                let done = visited.load(Ordering::Relaxed);
                let Some(url) = all.get(done) else {
                    std::thread::sleep(POLL);
                    continue;
                };
                // Nobody answers: the person sees an error page, and loads it again.
                let _ = patiently(|| !stop.load(Ordering::Relaxed), url);
                visited.store(done + 1, Ordering::Relaxed);
            }
        }));
        browser
    }

    /// A browser whose tabs wait for [`visit`].
    pub fn idle(home: &Arc<TempDir>) -> Self {
        Self { tabs: home.path().join("tabs"), stop: Arc::default(), visited: Arc::default(), thread: None }
    }

    /// The addresses of all tabs that were opened so far.
    pub fn tabs(&self) -> Vec<String> {
        read(&self.tabs)
    }

    /// Waits for the `n`th tab, from 1.
    pub fn tab(&self, n: usize) -> String {
        eventually("a tab", || self.tabs().get(n - 1).cloned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whole lines only: the last may be in the making.
fn read(tabs: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(tabs).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(str::to_owned).collect()
}

/// Loads a page and follows its redirects. `None` when nobody answers.
pub fn visit(url: &str) -> Option<Page> {
    patiently(|| false, url)
}

/// The same; where nobody answers, as long as `goes_on`, the same page is loaded again.
fn patiently(goes_on: impl Fn() -> bool, url: &str) -> Option<Page> {
    let mut url = Url::parse(url).expect("the address of a tab");
    for _ in 0..MAX_HOPS {
        let page = loop {
            match get(&url, "") {
                Some(page) => break page,
                None if goes_on() => std::thread::sleep(POLL),
                None => return None,
            }
        };
        match &page.location {
            Some(location) if (300..400).contains(&page.status) => url = url.join(location).expect("a redirect"),
            _ => return Some(page),
        }
    }
    panic!("too many redirects: {url}");
}

/// Follows redirects as far as the one that leads to `end`, and gives that address without loading it.
pub fn visit_until(url: &str, end: &str) -> String {
    let mut url = Url::parse(url).expect("the address of a tab");
    for _ in 0..MAX_HOPS {
        let page = get(&url, "").expect("an answer");
        let location = page.location.unwrap_or_else(|| panic!("{url} leads nowhere: {} {}", page.status, page.body));
        url = url.join(&location).expect("a redirect");
        if url.as_str().starts_with(end) {
            return url.into();
        }
    }
    panic!("too many redirects: {url}");
}

/// One request, with further header lines.
pub fn get(url: &Url, headers: &str) -> Option<Page> {
    request("GET", url, headers)
}

/// One request of any method.
pub fn request(method: &str, url: &Url, headers: &str) -> Option<Page> {
    assert_eq!(url.scheme(), "http", "{url}");
    let host = url.host_str().expect("a host").trim_matches(['[', ']']);
    let port = url.port_or_known_default().expect("a port");
    let mut stream = TcpStream::connect((host, port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("a time-out");
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {authority}\r\n") };
    let head = format!("{method} {target} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let (head, length) = loop {
        if Read::by_ref(&mut stream).take(1).read_to_end(&mut answer).ok()? == 0 {
            return None;
        }
        if let Some(head) = answer.strip_suffix(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(head).into_owned();
            let length = field(&head, "content-length").and_then(|length| length.parse::<u64>().ok());
            break (head, length);
        }
    };
    let mut body = Vec::new();
    stream.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let location = field(&head, "location");
    Some(Page { url: url.to_string(), status, body: String::from_utf8_lossy(&body).into_owned(), location })
}

fn field(head: &str, wanted: &str) -> Option<String> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
}
