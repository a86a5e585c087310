//! The sign-in's pages in a real Chromium, light and dark: what it shows, and that its console stays empty.
//!
//! Ignored unless asked for, because it needs the program: `apt-get install chromium`, then
//! `cargo test --test chromium -- --ignored`. `CHROMIUM` names another program, `PAGES` a directory for screenshots.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "chromium/png.rs"]
mod png;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use mcp_drawbridge::auth::callback::{CallbackPath, RedirectHost, SuccessUrl};
use mcp_drawbridge::auth::page::{self, Names, Page};
use mcp_drawbridge::auth::redirect::{Listener, Outcome, PortChoice, Serving, Settings};
use mcp_drawbridge::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How long one page may take in a browser that has just been started, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs Chromium without a window on one URL. Its output has the document, and the console's lines on stderr.
async fn chromium(arguments: Vec<String>) -> Output {
    let run = tokio::task::spawn_blocking(move || {
        let profile = scratch("profile");
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let output = std::process::Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"])
            .args(["--disable-background-networking", "--hide-scrollbars", "--window-size=760,520"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(arguments)
            .output()
            .expect("Chromium is needed: apt-get install chromium");
        let _ = std::fs::remove_dir_all(profile);
        output
    });
    tokio::time::timeout(PATIENCE, run).await.expect("Chromium does not end").unwrap()
}

fn scratch(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("mcp-drawbridge-chromium-{}-{number}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The document, and what the console said.
async fn dump(url: &str, dark: bool) -> (String, Vec<String>) {
    let output = chromium(vec![scheme(dark), "--dump-dom".to_owned(), url.to_owned()]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = errors.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), console)
}

fn scheme(dark: bool) -> String {
    format!("--blink-settings=preferredColorScheme={}", u8::from(!dark))
}

/// A picture of the page; the share of its pixels that are dark.
async fn darkness(url: &str, dark: bool, name: &str) -> f64 {
    let kept = std::env::var_os("PAGES").map(PathBuf::from);
    let directory = kept.clone().unwrap_or_else(|| scratch("shot"));
    let file = directory.join(format!("{name}-{}.png", if dark { "dark" } else { "light" }));
    let output = chromium(vec![scheme(dark), format!("--screenshot={}", file.display()), url.to_owned()]).await;
    assert!(output.status.success(), "{output:?}");
    let share = png::dark_share(&std::fs::read(&file).unwrap());
    if kept.is_none() {
        let _ = std::fs::remove_dir_all(directory);
    }
    share
}

/// Serves one response for ever.
async fn serve(response: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let response = response.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&response).await;
            });
        }
    });
    url
}

fn names() -> Names {
    Names::new("mcp.example.com", Some("Claude Desktop"))
}

fn pages(names: &Names) -> Vec<(&'static str, u16, Page<'_>, &'static str)> {
    let reason = "The authorization server says that the code has expired (invalid_grant).";
    vec![
        ("success", 200, Page::Success(names), "You are signed in"),
        ("denied", 403, Page::Denied(names), "Access was denied"),
        ("failed", 502, Page::Failed { names, reason }, "The sign-in did not work"),
        ("waiting", 504, Page::Waiting(names), "Still signing in"),
        ("used", 409, Page::AlreadyUsed(names), "This sign-in is over"),
        ("other", 400, Page::OtherSignIn, "This is not the current sign-in"),
        ("nothing", 404, Page::NotHere("Only the answer of a sign-in is taken here."), "There is nothing here"),
    ]
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn every_page_in_light_and_dark() {
    let names = names();
    for (name, status, page, title) in pages(&names) {
        let url = serve(page::response(status, &page)).await;
        let (document, console) = dump(&url, false).await;
        assert!(document.contains(&format!("<title>{title} - mcp-drawbridge</title>")), "{document}");
        assert!(document.contains(&format!("<h1>{title}</h1>")), "{document}");
        // The browser itself notes a status of 400 and above; a breach of the policy reads otherwise.
        let breaches: Vec<&String> =
            console.iter().filter(|line| !line.contains("the server responded with")).collect();
        assert!(breaches.is_empty(), "{name}: {breaches:?}");
        let (light, dark) = (darkness(&url, false, name).await, darkness(&url, true, name).await);
        assert!(light < 0.2 && dark > 0.8, "{name}: dark share {light} in light, {dark} in dark");
    }
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_breach_of_the_policy_would_be_seen() {
    let names = names();
    let broken = String::from_utf8(page::response(200, &Page::Success(&names))).unwrap();
    // Another style sheet of the same length, and a script in place of the icon's paragraph.
    let broken = broken
        .replace("min-height: 100vh", "min-height: 101vh")
        .replace("<h1>You are", "<script>1</script>")
        .into_bytes();
    let (_, console) = dump(&serve(broken).await, false).await;
    assert!(console.iter().any(|line| line.contains("style-src") || line.contains("inline style")), "{console:?}");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn hostile_names_are_only_text() {
    let hostile = "<img src=x onerror=alert(1)><script>document.title='owned'</script>\u{202e}";
    let names = Names::new(hostile, Some("</bdi></p><h1>owned</h1>"));
    let url = serve(page::response(200, &Page::Success(&names))).await;
    let (document, console) = dump(&url, true).await;
    assert!(document.contains("<title>You are signed in - mcp-drawbridge</title>"), "{document}");
    assert!(
        !document.contains("<img") && !document.contains("<script") && document.matches("<h1").count() == 1,
        "{document}"
    );
    assert!(console.is_empty(), "{console:?}");
}

async fn listening(success_url: Option<&str>) -> Serving {
    for start in (21_000..29_000).step_by(8) {
        let bound = Listener::bind(RedirectHost::Localhost, CallbackPath::default(), PortChoice::Derived(start)).await;
        if let Ok(listener) = bound {
            let success_url = success_url.map(|url| SuccessUrl::parse(url, false).unwrap());
            let settings = Settings { names: names(), success_url, answer_within: Duration::from_secs(20) };
            return listener.serve(Secret::new("state-1"), settings);
        }
    }
    panic!("no free port");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_listener_serves_it() {
    let mut serving = listening(None).await;
    let url = format!("{}?code=abc&state=state-1", serving.redirect_uri());
    let stray = format!("{}?code=abc&state=other", serving.redirect_uri());
    let (document, _) = dump(&stray, false).await;
    assert!(document.contains("This is not the current sign-in"), "{document}");

    let browser = tokio::spawn({
        let url = url.clone();
        async move { dump(&url, false).await }
    });
    let callback = serving.callback().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!browser.is_finished(), "the page came before the token exchange");
    callback.responder.finish(Outcome::Success);
    let (document, console) = browser.await.unwrap();
    assert!(document.contains("<h1>You are signed in</h1>") && console.is_empty(), "{document} {console:?}");
    // Reloaded.
    let (document, _) = dump(&url, true).await;
    assert!(document.contains("<h1>You are signed in</h1>"), "{document}");
    serving.close().await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_success_url_is_followed() {
    let target =
        serve(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<h1>mine</h1>".to_vec()).await;
    let mut serving = listening(Some(&target)).await;
    let url = format!("{}?code=abc&state=state-1", serving.redirect_uri());
    let browser = tokio::spawn(async move { dump(&url, false).await });
    serving.callback().await.responder.finish(Outcome::Success);
    let (document, console) = browser.await.unwrap();
    assert!(document.contains("<h1>mine</h1>"), "{document} {console:?}");
}
