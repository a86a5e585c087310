//! A response whose body is read piece by piece, counted, under a time limit.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use url::Url;

use super::{
    HttpError, HttpErrorKind,
    classify::{self, Scene},
    guard,
    proxy::Via,
};

/// A response. Its body is still to be read; dropping it closes the stream (HTTP/2) or the connection (HTTP/1.1).
pub struct HttpResponse {
    /// Status of the last hop.
    pub status: StatusCode,
    /// Header fields of the last hop. A decompressed body's `Content-Encoding` and `Content-Length` are gone.
    pub headers: HeaderMap,
    /// URL of the last hop. After redirects by `RedirectRule::SameOrigin`, later requests may go there directly.
    pub url: Url,
    pub(super) body: reqwest::Response,
    pub(super) limits: BodyLimits,
    pub(super) via: Option<Arc<Via>>,
    /// Decoded bytes so far.
    pub(super) read: u64,
}

/// Limits for one body.
#[derive(Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) max_body: usize,
    pub(super) silence: Option<Duration>,
    pub(super) connect_timeout: Duration,
}

impl HttpResponse {
    /// Whether the answer is an event stream, which has no limit in size: it ends when it ends. Its reader bounds each event.
    pub fn is_event_stream(&self) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.as_bytes().split(|&b| b == b';').next())
            .is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
    }

    /// The next piece of the decoded body, `None` at its proper end.
    ///
    /// An end that comes too early (less than `Content-Length`, no last chunk, a gzip stream that stops) is `Cut`; more than
    /// `max_body` bytes, unless it is an event stream, are `TooLarge`; silence over `body_timeout` is `Timeout`.
    /// Cancel safe: a piece is either returned or still to come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let next = self.body.chunk();
        let next = match self.limits.silence {
            None => next.await,
            Some(limit) => match tokio::time::timeout(limit, next).await {
                Ok(next) => next,
                Err(_) => return Err(classify::body_timeout(limit, &self.scene())),
            },
        };
        let chunk = next.map_err(|error| classify::in_body(error, &self.scene()))?;
        if let Some(chunk) = &chunk {
            self.read += chunk.len() as u64;
            if self.read > self.limits.max_body as u64 && !self.is_event_stream() {
                return Err(self.too_large(self.limits.max_body));
            }
        }
        Ok(chunk)
    }

    /// The whole body; over `limit` decoded bytes (or `max_body`) it is `TooLarge`.
    ///
    /// A body of one piece is not copied. The server's `Content-Length` is not believed: memory grows with what has arrived.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, HttpError> {
        if self.content_length().is_some_and(|length| length > limit as u64) {
            return Err(self.too_large(limit));
        }
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let mut second = self.chunk().await?;
        if second.is_none() && first.len() <= limit {
            return Ok(first);
        }
        let mut whole = BytesMut::from(first);
        while let Some(chunk) = second {
            if whole.len() + chunk.len() > limit {
                break;
            }
            whole.extend_from_slice(&chunk);
            second = self.chunk().await?;
            if second.is_none() {
                return Ok(whole.freeze());
            }
        }
        Err(self.too_large(limit))
    }

    /// What the server announced, for a body that is not compressed.
    fn content_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Refuses at once what is announced as too large, or encoded in a way that was not offered.
    pub(super) fn check_head(&self) -> Result<(), HttpError> {
        if let Some(encoding) = self.headers.get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
            && self.content_length() != Some(0)
        {
            let message = format!(
                "the answer is encoded as {}, which was not asked for",
                guard::shown_text(&String::from_utf8_lossy(encoding.as_bytes()))
            );
            return Err(HttpError::new(HttpErrorKind::Malformed, message));
        }
        match self.content_length() {
            Some(length) if length > self.limits.max_body as u64 && !self.is_event_stream() => {
                Err(self.too_large(self.limits.max_body))
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self, limit: usize) -> HttpError {
        let host = guard::shown_text(self.url.host_str().unwrap_or_default());
        let message = format!("the answer from {host} is larger than {limit} bytes");
        HttpError::new(HttpErrorKind::TooLarge, message)
    }

    fn scene(&self) -> Scene<'_> {
        Scene { url: &self.url, via: self.via.as_deref(), connect_timeout: self.limits.connect_timeout }
    }
}

/// Without header values, which may be secrets, and without the URL's query.
impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("url", &guard::shown(&self.url))
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}
