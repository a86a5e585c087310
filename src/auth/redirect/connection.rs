//! One connection: one request, one page.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::serve::{Claim, Outcome, Shared};
use crate::auth::callback::{BadRequest, MAX_HEAD, Refused, Reply, Verdict, judge, parse_request};
use crate::auth::page::{self, Page};

/// How long a request may take to come.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a page may take to go.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, the rest of a request is read away, so that closing does not tear the page down.
const DRAIN_TIME: Duration = Duration::from_millis(500);
const DRAIN_BYTES: usize = 256 * 1024;
/// Bytes read at once.
const CHUNK: usize = 4 * 1024;

/// Reads the request, sends the page. `expected` is set when it is the sign-in's answer.
pub(super) async fn answer(mut stream: TcpStream, shared: Arc<Shared>, expected: Arc<AtomicBool>) {
    // A peer that is silent, slow or gone gets no answer.
    let Ok(Some((verdict, head_only))) = timeout(HEAD_TIME, read(&mut stream, &shared)).await else {
        return;
    };
    let mut response = match verdict {
        Verdict::Refused(refused) => refuse(refused),
        Verdict::Matched(reply) => settle(reply, &shared, &expected).await,
    };
    if head_only && let Some(end) = memchr::memmem::find(&response, b"\r\n\r\n") {
        response.truncate(end + 4);
    }
    let _ = timeout(WRITE_TIME, send(&mut stream, &response)).await;
    let _ = timeout(DRAIN_TIME, drain(&mut stream)).await;
}

/// The verdict, and whether the method is HEAD. `None` when the peer left before.
async fn read(stream: &mut TcpStream, shared: &Shared) -> Option<(Verdict, bool)> {
    let mut bytes = Vec::with_capacity(CHUNK);
    loop {
        match parse_request(&bytes) {
            Ok(Some(request)) => return Some((judge(&request, &shared.expected), request.method == "HEAD")),
            Ok(None) => {}
            Err(bad) => return Some((Verdict::Refused(Refused::Bad(bad)), false)),
        }
        let room = MAX_HEAD.saturating_sub(bytes.len()).min(CHUNK);
        let mut part = (&mut *stream).take(room as u64);
        if part.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn refuse(refused: Refused) -> Vec<u8> {
    tracing::debug!("a request at the sign-in's port is refused and ignored: {refused:?}");
    let page = match refused {
        Refused::State => Page::OtherSignIn,
        Refused::Parameters => Page::NotHere("The address of this page is damaged, so nothing was done with it."),
        Refused::Host | Refused::Path => {
            Page::NotHere("Only the answer of a sign-in is taken here, at its own address.")
        }
        Refused::Method => Page::NotHere("This address only answers to GET, the way a browser opens a page."),
        Refused::Bad(BadRequest::TooLarge) => Page::NotHere("The request was too large, so nothing was done with it."),
        Refused::Bad(BadRequest::Malformed | BadRequest::Version) => {
            Page::NotHere("The request was not one that a browser sends, so nothing was done with it.")
        }
    };
    page::response(refused.status(), &page)
}

/// Hands the answer over and waits for what becomes of it.
async fn settle(reply: Reply, shared: &Shared, expected: &AtomicBool) -> Vec<u8> {
    let names = &shared.settings.names;
    if shared.submit(reply) == Claim::Other {
        tracing::debug!("a second answer to the sign-in is refused and ignored");
        return page::response(409, &Page::AlreadyUsed(names));
    }
    expected.store(true, Ordering::Relaxed);
    match shared.outcome().await {
        Some(Outcome::Success) => match &shared.settings.success_url {
            Some(url) => page::see_other(url.as_str()),
            None => page::response(200, &Page::Success(names)),
        },
        Some(Outcome::Denied) => page::response(403, &Page::Denied(names)),
        Some(Outcome::Failed { reason }) => page::response(502, &Page::Failed { names, reason: &reason }),
        None => page::response(504, &Page::Waiting(names)),
    }
}

async fn send(stream: &mut TcpStream, response: &[u8]) -> std::io::Result<()> {
    stream.write_all(response).await?;
    stream.shutdown().await
}

async fn drain(stream: &mut TcpStream) {
    let mut scratch = [0; CHUNK];
    let mut left = DRAIN_BYTES;
    while let Ok(read @ 1..) = stream.read(&mut scratch).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
