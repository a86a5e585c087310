//! A conversation with a session, written down as it goes: who says what, and what the session does.

use std::time::Duration;

use bytes::Bytes;
use mcp_drawbridge::session::{
    Action, Content, ExchangeId, Failure, FailureKind, Head, Input, Memory, Outgoing, Remembered, Session, Settings,
    SignIn, Verb, Wish,
};
use mcp_drawbridge::sse::{Event, IdChange};
use serde_json::Value;

/// What no log line and no server may see of a sign-in.
pub(crate) const SECRET: &str = "s3cr3t-state";
pub(crate) const SIGN_IN_URL: &str = "https://as.example/authorize?client_id=c&state=s3cr3t-state";
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(crate) const INIT_RESULT: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":{}},"serverInfo":{"name":"s","version":"1"}}"#;
/// Bodies that say "no such session", each with its status, as real servers send them.
pub(crate) const GONE: [(u16, &str); 5] = [
    (404, r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#),
    (404, ""),
    (
        400,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
    ),
    (503, r#"{"error":"session expired"}"#),
    (410, "Session terminated"),
];

/// One exchange that the session began.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) exchange: ExchangeId,
    pub(crate) outgoing: Outgoing,
}

impl Sent {
    pub(crate) fn body(&self) -> Value {
        serde_json::from_slice(&self.outgoing.body).unwrap_or_default()
    }

    /// The method of a POST, else the HTTP method.
    pub(crate) fn what(&self) -> String {
        match self.outgoing.verb {
            Verb::Get => "GET".into(),
            Verb::Delete => "DELETE".into(),
            Verb::Post => self.body()["method"].as_str().unwrap_or("a response").into(),
        }
    }

    /// The id of the request that a POST carries, as JSON text.
    pub(crate) fn id(&self) -> String {
        self.body()["id"].to_string()
    }
}

pub(crate) struct Dialogue {
    pub(crate) session: Session,
    pub(crate) now: Duration,
    actions: Vec<Action>,
    sent: Vec<Sent>,
    heard: Vec<String>,
    pub(crate) aborted: Vec<ExchangeId>,
    pub(crate) remembered: Option<Memory>,
    wishes: Vec<Wish>,
    pub(crate) log: Vec<String>,
    pub(crate) exited: bool,
}

pub(crate) fn settings() -> Settings {
    Settings { server: "example.test/mcp".into(), ..Settings::default() }
}

/// What an earlier run remembered of the same server.
pub(crate) fn memory(transport: Remembered) -> Memory {
    Memory { transport, requested: "2025-11-25".into(), result: INIT_RESULT.into(), refuses: None }
}

pub(crate) fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

pub(crate) fn call(id: &str, tool: &str) -> String {
    request(id, "tools/call", &format!(r#"{{"name":"{tool}"}}"#))
}

pub(crate) fn modern(id: &str, method: &str) -> String {
    request(id, method, r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#)
}

pub(crate) fn initialize(id: &str) -> String {
    request(id, "initialize", r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#)
}

pub(crate) fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

pub(crate) fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

pub(crate) fn failure(kind: FailureKind, unsent: bool) -> Failure {
    // The one message that may hold the address.
    let message = if kind == FailureKind::Declined { SIGN_IN_URL } else { "the network is down" };
    Failure { kind, unsent, message: message.into(), hint: None }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Dialogue {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::remembering(settings, None)
    }

    pub(crate) fn remembering(settings: Settings, memory: Option<Memory>) -> Self {
        Self {
            session: Session::new(settings, memory),
            now: Duration::ZERO,
            actions: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            aborted: Vec::new(),
            remembered: None,
            wishes: Vec::new(),
            log: Vec::new(),
            exited: false,
        }
    }

    /// A session with the id `s1` that is ready, on a server without a notification stream.
    pub(crate) fn ready(settings: Settings) -> Self {
        let mut d = Self::new(settings);
        d.shake_hands("s1");
        d
    }

    /// The client's handshake, honestly answered.
    pub(crate) fn shake_hands(&mut self, session: &str) {
        self.says(&initialize("0"));
        let sent = self.one("initialize");
        self.answers_initialize(&sent, session);
        assert_eq!(self.hears().len(), 1, "initialize is answered");
        self.says(INITIALIZED);
        self.greets();
    }

    /// The server takes `notifications/initialized` and has no notification stream.
    pub(crate) fn greets(&mut self) {
        let sent = self.one("notifications/initialized");
        self.answer(&sent, 202, "");
        let get = self.one("GET");
        self.answer(&get, 405, "");
    }

    /// The same for a further session: there is no notification stream, as is known by now.
    pub(crate) fn greets_again(&mut self) {
        let sent = self.one("notifications/initialized");
        self.answer(&sent, 202, "");
    }

    // ---- the client ----

    pub(crate) fn says(&mut self, line: &str) {
        self.input(Input::Line(Bytes::copy_from_slice(line.as_bytes())));
    }

    /// What the client heard since it was last asked.
    pub(crate) fn hears(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }

    /// The only line since it was last asked, as JSON.
    pub(crate) fn hears_one(&mut self) -> Value {
        let mut heard = self.hears();
        assert_eq!(heard.len(), 1, "one line: {heard:?}");
        serde_json::from_str(&heard.remove(0)).expect("JSON")
    }

    /// The ids of all responses that the client heard since it was last asked, in order; each with `data.kind` if it is an error of ours.
    pub(crate) fn responses(&mut self) -> Vec<String> {
        let name = |line: String| {
            let value: Value = serde_json::from_str(&line).expect("JSON");
            value.get("method").is_none().then(|| match value["error"]["data"]["kind"].as_str() {
                Some(kind) => format!("{} {kind}", value["id"]),
                None => value["id"].to_string(),
            })
        };
        self.hears().into_iter().filter_map(name).collect()
    }

    // ---- the server ----

    /// What the session sent since it was last asked.
    pub(crate) fn sends(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The same, by method.
    pub(crate) fn sends_what(&mut self) -> Vec<String> {
        self.sends().iter().map(Sent::what).collect()
    }

    /// The only exchange since it was last asked, which is for `what`.
    pub(crate) fn one(&mut self, what: &str) -> Sent {
        let mut sent = self.sends();
        let names: Vec<String> = sent.iter().map(Sent::what).collect();
        assert_eq!(names, [what]);
        sent.remove(0)
    }

    pub(crate) fn sends_nothing(&mut self) {
        let names = self.sends_what();
        assert!(names.is_empty(), "nothing is sent: {names:?}");
    }

    pub(crate) fn answer(&mut self, sent: &Sent, status: u16, body: &str) {
        self.answer_with(sent, head(status, body), body);
    }

    pub(crate) fn answer_with(&mut self, sent: &Sent, head: Head, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.input(Input::Answer { exchange: sent.exchange, head, body });
    }

    /// The right answer, as JSON.
    pub(crate) fn answers(&mut self, sent: &Sent) {
        self.answer(sent, 200, &result(&sent.id(), "{}"));
    }

    pub(crate) fn answers_initialize(&mut self, sent: &Sent, session: &str) {
        let head = Head { session_id: Some(Ok(session.into())), ..head(200, "{") };
        self.answer_with(sent, head, &result(&sent.id(), INIT_RESULT));
    }

    pub(crate) fn opens(&mut self, sent: &Sent) {
        let head = Head { content: Content::EventStream, ..head(200, "") };
        self.input(Input::Opened { exchange: sent.exchange, head });
    }

    pub(crate) fn streams(&mut self, sent: &Sent, data: &str) {
        self.event(sent, Event { data: Bytes::copy_from_slice(data.as_bytes()), ..Event::default() });
    }

    /// An event that only carries an id and a reconnection time.
    pub(crate) fn marks(&mut self, sent: &Sent, id: &str, retry: Option<u64>) {
        self.event(sent, Event { id: Some(IdChange::Set(id.into())), retry, ..Event::default() });
    }

    /// The event that names the endpoint of HTTP+SSE.
    pub(crate) fn names_endpoint(&mut self, sent: &Sent, endpoint: &str) {
        let data = Bytes::copy_from_slice(endpoint.as_bytes());
        self.event(sent, Event { name: Some("endpoint".into()), data, ..Event::default() });
    }

    fn event(&mut self, sent: &Sent, event: Event) {
        self.input(Input::Events { exchange: sent.exchange, events: vec![event] });
    }

    pub(crate) fn ends(&mut self, sent: &Sent) {
        self.input(Input::Ended { exchange: sent.exchange, failure: None });
    }

    pub(crate) fn cuts(&mut self, sent: &Sent) {
        let failure = Some(failure(FailureKind::Cut, false));
        self.input(Input::Ended { exchange: sent.exchange, failure });
    }

    pub(crate) fn fails(&mut self, sent: &Sent, kind: FailureKind, unsent: bool) {
        self.input(Input::Failed { exchange: sent.exchange, failure: failure(kind, unsent) });
    }

    // ---- the sign-in ----

    /// What the session asked of the sign-in since it was last asked.
    pub(crate) fn wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// The server refuses it, and it waits for the sign-in.
    pub(crate) fn is_held(&mut self, sent: &Sent) {
        self.input(Input::Held { exchange: sent.exchange });
    }

    pub(crate) fn sign_in_is_wanted(&mut self) {
        self.sign_in_is_wanted_at(SIGN_IN_URL);
    }

    pub(crate) fn sign_in_is_wanted_at(&mut self, url: &str) {
        self.input(Input::SignIn(SignIn::Wanted { url: url.into(), advice: "Open it on this machine".into() }));
    }

    pub(crate) fn sign_in_is_done(&mut self) {
        self.input(Input::SignIn(SignIn::Done));
    }

    pub(crate) fn sign_in_has_ended(&mut self) {
        let hint = Some("ask the administrator".into());
        self.input(Input::SignIn(SignIn::Ended { message: "access was denied".into(), hint }));
    }

    // ---- time ----

    /// Lets time pass, timer by timer.
    pub(crate) fn passes(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.session.next_deadline().filter(|next| *next <= until) {
            self.now = next;
            self.input(Input::Tick);
        }
        self.now = until;
        self.input(Input::Tick);
    }

    /// Lets time pass, with a network that is down, for `time` at most or until the client hears something. Gives the time that it took.
    pub(crate) fn passes_with_a_dead_network(&mut self, time: Duration) -> Duration {
        let began = self.now;
        loop {
            for sent in self.sends() {
                self.fails(&sent, FailureKind::Connect, true);
            }
            let next = self.session.next_deadline().filter(|next| *next <= began + time);
            match next {
                Some(next) if self.heard.is_empty() => {
                    self.now = next;
                    self.input(Input::Tick);
                }
                _ => return self.now.saturating_sub(began),
            }
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.session.handle(self.now, input, &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Write(line) | Action::WriteAbout(_, line) => {
                    self.heard.push(String::from_utf8(line.to_vec()).expect("UTF-8"));
                }
                Action::Start(exchange, outgoing) => {
                    let body = String::from_utf8_lossy(&outgoing.body).into_owned();
                    assert!(!body.contains(SECRET), "a secret of the sign-in goes to the server: {body}");
                    self.sent.push(Sent { exchange, outgoing });
                }
                Action::Abort(exchange) => {
                    self.sent.retain(|sent| sent.exchange != exchange);
                    self.aborted.push(exchange);
                }
                Action::Remember(memory) => self.remembered = Some(memory),
                Action::Log(_, text) => {
                    assert!(!text.contains(SECRET), "a secret of the sign-in shows in the log: {text}");
                    self.log.push(text);
                }
                Action::Exit => self.exited = true,
                Action::SignIn(wish) => self.wishes.push(wish),
            }
        }
    }
}

/// A head that fits the body.
pub(crate) fn head(status: u16, body: &str) -> Head {
    let content = match body.bytes().next() {
        Some(b'{' | b'[') => Content::Json,
        Some(b'<') => Content::Other("text/html; charset=utf-8".into()),
        Some(_) => Content::Other("text/plain".into()),
        None => Content::Other(String::new()),
    };
    Head { status, content, session_id: None, retry_after: None }
}
