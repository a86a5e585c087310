//! The mock server's tools, and how their answers are written.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::app::clock::monotonic_nanos;
use crate::app::message::{filler, number};
use crate::app::{Failure, http1};

/// Events are written when so many bytes of them are ready.
const BATCH: usize = 64 * 1024;
/// Largest text, in bytes, and largest number of events that a call may ask for.
const MAX_BYTES: usize = 256 << 20;
const MAX_EVENTS: u64 = 10_000_000;

const JSON_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &[u8] = b"event: message\ndata: ";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What is read of a client's message.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Params<'a>,
    /// Asked at the endpoint of revision 2026-07-28: results say that they are complete.
    #[serde(skip)]
    modern: bool,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Meta<'a>,
}

#[derive(Deserialize, Default)]
struct Arguments<'a> {
    /// `echo`, `sink`: any JSON value.
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    /// `burst`, `push`, `ticks`: events.
    #[serde(default)]
    count: u64,
    /// `slow`: delay of the answer; `ticks`: time between events.
    #[serde(default)]
    micros: u64,
    /// `big`: length of the text.
    #[serde(default)]
    bytes: usize,
    /// `big`: answer as an event stream.
    #[serde(default)]
    sse: bool,
}

#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
}

/// How an answer goes out. Its start, or all of it, is in the buffer already.
pub(super) enum Reply {
    /// All is in the buffer.
    Ready,
    /// All is in the buffer, to be sent later.
    After(Duration),
    /// The text and the end follow.
    Big { text: Arc<Vec<u8>>, tail: Vec<u8> },
    /// Progress notifications, as fast as they can be written, and then the answer.
    Burst(Burst),
    /// Progress notifications at a steady pace, each with its time in it, and then the answer.
    Ticks(Burst),
    /// The answer is in the buffer; so many notifications go to the session's GET stream after it.
    Push(u64),
}

/// Notifications on the answer's own stream.
pub(super) struct Burst {
    token: String,
    count: u64,
    pause: Duration,
    answer: Vec<u8>,
}

impl<'a> Message<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Failure> {
        Ok(serde_json::from_slice(body)?)
    }

    /// As the endpoint of revision 2026-07-28 takes it.
    pub(super) fn modern(self) -> Self {
        Self { modern: true, ..self }
    }

    pub(super) fn is_initialize(&self) -> bool {
        self.method.as_deref() == Some("initialize")
    }

    /// True when the message wants an answer.
    pub(super) fn is_request(&self) -> bool {
        self.id.is_some() && self.method.is_some()
    }

    /// Writes the answer to `initialize`, with the session's id in the head.
    pub(super) fn answer_initialize(&self, session: u64, out: &mut Vec<u8>) {
        let version = self.params.version.map_or("\"2025-11-25\"", RawValue::get);
        let body = self.result(
            format!(
                r#"{{"protocolVersion":{version},"capabilities":{{"tools":{{}},"logging":{{}}}},"serverInfo":{{"name":"bench mock","version":"1.0.0"}}}}"#
            )
            .as_bytes(),
        );
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nMcp-Session-Id: bench-");
        number(out, session);
        out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        number(out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&body);
    }

    /// Writes the answer to any other request into `out`, or the start of it.
    pub(super) fn answer(&self, out: &mut Vec<u8>) -> Reply {
        match self.method.as_deref() {
            Some("tools/call") => {}
            Some("server/discover") if self.modern => {
                json(out, &self.result(br#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"logging":{}},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"bench mock","version":"1.0.0"}}}"#));
                return Reply::Ready;
            }
            Some("initialize") => {
                let id = self.id.map_or("null", RawValue::get);
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32022,"message":"Unsupported protocol version","data":{{"supported":["2026-07-28"],"requested":"2025-11-25"}}}}}}"#
                );
                out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n");
                out.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
                number(out, body.len() as u64);
                out.extend_from_slice(b"\r\n\r\n");
                out.extend_from_slice(body.as_bytes());
                return Reply::Ready;
            }
            Some("tools/list") if self.modern => {
                json(out, &self.result(br#"{"ttlMs":0,"cacheScope":"private","tools":[{"name":"echo","inputSchema":{"type":"object"}}]}"#));
                return Reply::Ready;
            }
            Some("tools/list") => {
                json(out, &self.result(br#"{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}"#));
                return Reply::Ready;
            }
            Some("ping") => {
                json(out, &self.result(b"{}"));
                return Reply::Ready;
            }
            _ => {
                json(out, &self.error(-32601, "no such method"));
                return Reply::Ready;
            }
        }
        let arguments = &self.params.arguments;
        if arguments.bytes > MAX_BYTES || arguments.count > MAX_EVENTS {
            json(out, &self.error(-32602, "too much"));
            return Reply::Ready;
        }
        match self.params.name.as_deref() {
            Some("echo") => {
                json(out, &self.text(arguments.text.map_or("\"\"", RawValue::get).as_bytes()));
                Reply::Ready
            }
            Some("sink") => {
                // The two quotes are not counted.
                let length = arguments.text.map_or(0, |text| text.get().len().saturating_sub(2));
                json(out, &self.text(format!("\"{length}\"").as_bytes()));
                Reply::Ready
            }
            Some("slow") => {
                json(out, &self.text(b"\"late\""));
                Reply::After(Duration::from_micros(arguments.micros))
            }
            Some("big") => self.big(out),
            Some(tool @ ("burst" | "ticks")) => {
                let burst = Burst {
                    token: self.params.meta.token.map_or("0", RawValue::get).to_owned(),
                    count: arguments.count,
                    pause: Duration::from_micros(arguments.micros),
                    answer: self.text(b"\"done\""),
                };
                out.extend_from_slice(STREAM_HEAD);
                if tool == "burst" { Reply::Burst(burst) } else { Reply::Ticks(burst) }
            }
            Some("push") => {
                json(out, &self.text(b"\"pushed\""));
                Reply::Push(arguments.count)
            }
            _ => {
                json(out, &self.error(-32602, "no such tool"));
                Reply::Ready
            }
        }
    }

    fn big(&self, out: &mut Vec<u8>) -> Reply {
        let text = text_of(self.params.arguments.bytes);
        let front = self.framed(br#"{"content":[{"type":"text","text":""#);
        let mut tail = br#""}]}}"#.to_vec();
        let body = front.len() + text.len() + tail.len();
        if self.params.arguments.sse {
            out.extend_from_slice(STREAM_HEAD);
            // One event in one chunk, as Node writes it.
            out.extend_from_slice(format!("{:x}\r\n", EVENT.len() + body + 2).as_bytes());
            out.extend_from_slice(EVENT);
            tail.extend_from_slice(b"\n\n\r\n");
            tail.extend_from_slice(LAST_CHUNK);
        } else {
            json_head(out, body);
        }
        out.extend_from_slice(&front);
        Reply::Big { text, tail }
    }

    /// A result with one text; `text` is JSON.
    fn text(&self, text: &[u8]) -> Vec<u8> {
        let mut body = self.framed(br#"{"content":[{"type":"text","text":"#);
        body.extend_from_slice(text);
        body.extend_from_slice(b"}]}}");
        body
    }

    fn result(&self, result: &[u8]) -> Vec<u8> {
        let mut body = self.framed(result);
        body.push(b'}');
        body
    }

    fn error(&self, code: i32, message: &str) -> Vec<u8> {
        let id = self.id.map_or("null", RawValue::get);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#).into_bytes()
    }

    /// The answer up to and with `start` of its result.
    fn framed(&self, start: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        body.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        body.extend_from_slice(self.id.map_or("null", RawValue::get).as_bytes());
        body.extend_from_slice(br#","result":"#);
        match start.strip_prefix(b"{") {
            Some(rest) if self.modern => {
                body.extend_from_slice(br#"{"resultType":"complete","#);
                body.extend_from_slice(rest);
            }
            _ => body.extend_from_slice(start),
        }
        body
    }
}

impl Burst {
    /// Writes all events at once, a chunk each, and then the answer. `out` holds the head.
    pub(super) async fn write(self, stream: &mut TcpStream, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut event = Vec::new();
        for n in 1..=self.count {
            self.progress(&mut event, n, n);
            chunk(out, &event);
            if out.len() >= BATCH {
                stream.write_all(out).await?;
                out.clear();
            }
        }
        self.finish(stream, out).await
    }

    /// Writes an event every `pause`, with the monotonic time in it, and then the answer.
    pub(super) async fn ticks(self, stream: &mut TcpStream, out: &mut Vec<u8>) -> Result<(), Failure> {
        stream.write_all(out).await?;
        let mut event = Vec::new();
        for n in 1..=self.count {
            tokio::time::sleep(self.pause).await;
            out.clear();
            self.progress(&mut event, monotonic_nanos(), n);
            chunk(out, &event);
            stream.write_all(out).await?;
        }
        out.clear();
        self.finish(stream, out).await
    }

    fn progress(&self, event: &mut Vec<u8>, progress: u64, n: u64) {
        event.clear();
        event.extend_from_slice(EVENT);
        event.extend_from_slice(br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"#);
        event.extend_from_slice(self.token.as_bytes());
        event.extend_from_slice(br#","progress":"#);
        number(event, progress);
        event.extend_from_slice(br#","message":"step "#);
        number(event, n);
        event.extend_from_slice(b"\"}}\n\n");
    }

    async fn finish(&self, stream: &mut TcpStream, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut event = EVENT.to_vec();
        event.extend_from_slice(&self.answer);
        event.extend_from_slice(b"\n\n");
        chunk(out, &event);
        out.extend_from_slice(LAST_CHUNK);
        Ok(stream.write_all(out).await?)
    }
}

/// Writes the head of an event stream.
pub(super) fn open_stream(out: &mut Vec<u8>) {
    out.extend_from_slice(STREAM_HEAD);
}

/// Writes `count` notifications to a GET stream.
pub(super) async fn push(stream: &mut TcpStream, out: &mut Vec<u8>, count: u64) -> Result<(), Failure> {
    out.clear();
    let mut event = Vec::new();
    for n in 1..=count {
        event.clear();
        event.extend_from_slice(EVENT);
        event.extend_from_slice(
            br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"bench","data":"#,
        );
        number(&mut event, n);
        event.extend_from_slice(b"}}\n\n");
        chunk(out, &event);
        if out.len() >= BATCH || n == count {
            stream.write_all(out).await?;
            out.clear();
        }
    }
    Ok(())
}

fn json(out: &mut Vec<u8>, body: &[u8]) {
    json_head(out, body.len());
    out.extend_from_slice(body);
}

fn json_head(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(JSON_HEAD);
    number(out, length as u64);
    out.extend_from_slice(b"\r\n\r\n");
}

fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    http1::chunk_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The text of `bytes` bytes. The last one is kept, so that only the first call of a size pays for making it.
fn text_of(bytes: usize) -> Arc<Vec<u8>> {
    static LAST: Mutex<Option<Arc<Vec<u8>>>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = last.as_ref().filter(|text| text.len() == bytes) {
        return Arc::clone(text);
    }
    let text = Arc::new(filler(bytes));
    *last = Some(Arc::clone(&text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::http1::parse_head;
    use crate::app::message::{Era, Line, call, carries_filler, classify};

    fn answer(tool: &str, arguments: &[u8]) -> (Vec<u8>, Reply) {
        let (mut line, mut out) = (Vec::new(), Vec::new());
        call(&mut line, Era::Legacy, 7, tool, arguments);
        let reply = Message::parse(&line).unwrap().answer(&mut out);
        (out, reply)
    }

    fn body(out: &[u8]) -> &[u8] {
        let head = parse_head(out).unwrap().unwrap();
        assert_eq!(head.length, Some(out.len() - head.size));
        &out[head.size..]
    }

    #[test]
    fn small_answers_are_json() {
        for (tool, arguments, text) in [
            ("echo", br#"{"text":"a \"b\""}"#.as_slice(), Some("a \"b\"")),
            ("sink", br#"{"text":"12345"}"#, Some("5")),
            ("slow", br#"{"micros":5}"#, Some("late")),
            ("push", br#"{"count":5}"#, Some("pushed")),
            ("none", b"{}", None),
            ("big", br#"{"bytes":999999999}"#, None),
            ("burst", br#"{"count":999999999}"#, None),
        ] {
            let (out, _) = answer(tool, arguments);
            let value: serde_json::Value = serde_json::from_slice(body(&out)).unwrap();
            assert_eq!(value["id"], 7, "{tool}");
            assert_eq!(value["result"]["content"][0]["text"].as_str(), text, "{tool}");
        }
    }

    #[test]
    fn big_answers_are_whole_in_both_forms() {
        let (mut out, reply) = answer("big", br#"{"bytes":1000}"#);
        let Reply::Big { text, tail } = reply else { panic!("not big") };
        out.extend_from_slice(&text);
        out.extend_from_slice(&tail);
        assert!(serde_json::from_slice::<serde_json::Value>(body(&out)).is_ok());
        assert!(carries_filler(body(&out), 1000));

        let (mut out, reply) = answer("big", br#"{"bytes":1000,"sse":true}"#);
        let Reply::Big { text, tail } = reply else { panic!("not big") };
        out.extend_from_slice(&text);
        out.extend_from_slice(&tail);
        let head = parse_head(&out).unwrap().unwrap();
        assert!(head.chunked && head.event_stream);
        let (mut chunks, mut event) = (http1::Chunks::default(), Vec::new());
        assert_eq!(chunks.decode(&out[head.size..], &mut event).unwrap(), out.len() - head.size);
        assert!(chunks.done());
        let line = event.strip_prefix(EVENT).unwrap().strip_suffix(b"\n\n").unwrap();
        assert_eq!(classify(line), Line::Result(7));
        assert!(carries_filler(line, 1000));
    }
}
