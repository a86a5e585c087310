//! Its limits, and what must not be copied or changed on the way.

use super::*;
use crate::session::SignIn;
use std::fmt::Write as _;

const NOW: Duration = Duration::ZERO;

/// Through with its handshake; `offers` are the server's capabilities.
fn open(offers: &str) -> LegacyClient {
    let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
    say(
        &mut client,
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{}}}}"#,
    );
    let found = format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","result":{{"supportedVersions":["2026-07-28"],"capabilities":{offers}}}}}"#
    );
    hear(&mut client, found);
    client
}

fn say(client: &mut LegacyClient, line: &str) -> Effects {
    let mut effects = Effects::default();
    client.client_line(NOW, &Bytes::copy_from_slice(line.as_bytes()), &mut effects);
    effects
}

fn hear(client: &mut LegacyClient, line: impl Into<Bytes>) -> Effects {
    let mut effects = Effects::default();
    client.server_line(NOW, line.into(), &mut effects);
    effects
}

fn text(line: &Bytes) -> &str {
    std::str::from_utf8(line).expect("UTF-8")
}

#[test]
fn a_result_is_not_copied() {
    let mut client = open("{}");
    say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","content":[{{"type":"text","text":"{}"}}]}}}}"#,
        "x".repeat(1 << 20)
    );
    let line = Bytes::from(line);
    let heard = hear(&mut client, line.clone());
    assert_eq!(heard.to_client.len(), 1);
    assert_eq!(heard.to_client[0].as_ptr(), line.as_ptr(), "the same bytes");
}

#[test]
fn the_state_goes_back_to_the_byte() {
    let mut client = open("{}");
    say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
    let state = r#""\u0041\/ \ud83d\ude00 é""#;
    let asked = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","requestState":{state},"inputRequests":{{"\u0061":{{"method":"roots/list"}}}}}}}}"#
    );
    let question = hear(&mut client, asked).to_client.pop().expect("a question");
    assert!(text(&question).contains(r#""method":"roots/list""#));
    let again = say(&mut client, r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e2","result":{"roots":[{"n":1e400}]}}"#);
    let again = text(&again.to_session[0]);
    assert!(again.contains(&format!("\"requestState\":{state}")), "{again}");
    assert!(again.contains(r#""inputResponses":{"a":{"roots":[{"n":1e400}]}}"#), "{again}");
}

#[test]
fn lines_that_wait_are_bounded() {
    let mut client = LegacyClient::new(&Settings::default(), None);
    say(&mut client, r#"{"jsonrpc":"2.0","id":"i","method":"initialize"}"#);
    for id in 0..MAX_HELD {
        assert!(client.accepts_lines());
        say(&mut client, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#));
    }
    assert!(!client.accepts_lines());
    for id in MAX_HELD..2 * MAX_HELD {
        say(&mut client, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#));
    }
    let over = say(&mut client, r#"{"jsonrpc":"2.0","id":"over","method":"tools/list"}"#);
    assert!(text(&over.to_client[0]).contains("\"over\""));
    let mut effects = Effects::default();
    client.finish(NOW, &mut effects);
    assert_eq!(effects.to_client.len(), 2 * MAX_HELD + 1, "each gets an answer");
    assert!(client.accepts_lines());

    let mut client = LegacyClient::new(&Settings::default(), None);
    say(&mut client, r#"{"jsonrpc":"2.0","id":"i","method":"initialize"}"#);
    say(
        &mut client,
        &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":"{}"}}}}"#, "x".repeat(MAX_HELD_BYTES)),
    );
    assert!(!client.accepts_lines());
}

#[test]
fn questions_of_one_round_are_bounded() {
    for (count, fine) in [(64, true), (65, false)] {
        let mut client = open("{}");
        say(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
        let mut questions = String::new();
        for n in 0..count {
            let _ = write!(questions, "{}\"q{n}\":{{\"method\":\"roots/list\"}}", if n == 0 { "" } else { "," });
        }
        let asked = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{{questions}}}}}}}"#
        );
        let heard = hear(&mut client, asked).to_client;
        assert_eq!(heard.len(), if fine { count } else { 1 });
        assert_eq!(text(&heard[0]).contains("\"error\""), !fine);
    }
}

#[test]
fn what_servers_want_to_have_back_is_bounded() {
    let mut client = open("{}");
    let state = "s".repeat(1000);
    let ask = |client: &mut LegacyClient, id: usize, questions: &str| {
        say(client, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a"}}}}"#));
        let result = format!(r#"{{"resultType":"input_required","requestState":"{state}"{questions}}}"#);
        let heard = hear(client, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).to_client;
        heard.iter().all(|line| !text(line).contains("too-large"))
    };
    let asking = r#","inputRequests":{"a":{"method":"roots/list"}}"#;
    assert!(ask(&mut client, 1, asking) && ask(&mut client, 2, ""));
    client.calls.pretend_kept(calls::MAX_KEPT - 100);
    assert!(!ask(&mut client, 3, asking) && !ask(&mut client, 4, ""));
    // One is cancelled, one goes back to the server: each makes room.
    say(&mut client, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#);
    assert!(ask(&mut client, 5, asking) && !ask(&mut client, 6, asking));
    let answered = say(&mut client, r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e2","result":{"roots":[]}}"#);
    assert_eq!(answered.to_session.len(), 1);
    assert!(ask(&mut client, 7, asking) && !ask(&mut client, 8, asking));
}

#[test]
fn a_server_that_acknowledges_again_and_again_is_passed_on_once_a_second() {
    let mut client = open(r#"{"tools":{"listChanged":true}}"#);
    let opened = say(&mut client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert!(text(&opened.to_session[0]).contains("subscriptions/listen"));
    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"mcp-drawbridge-n-e2"},"notifications":{}}}"#;
    let told: usize = (0..100).map(|_| hear(&mut client, acknowledged).to_client.len()).sum();
    assert_eq!(told, 1, "the second one means that the stream was opened again");
    let due = client.next_deadline().expect("a deadline");
    assert_eq!(due, NOW + listen::ANNOUNCE_PAUSE);
    let mut effects = Effects::default();
    client.tick(due, &mut effects);
    assert_eq!(effects.to_client.len(), 1, "what was held back is not lost");
    assert_eq!(client.next_deadline(), None);
}

#[test]
fn subscriptions_are_bounded_in_number_and_size() {
    let mut client = open(r#"{"resources":{"subscribe":true}}"#);
    let subscribe = |client: &mut LegacyClient, id: usize, uri: &str| {
        let line =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#);
        say(client, &line).to_client.iter().any(|line| text(line).contains("-32602"))
    };
    assert!(subscribe(&mut client, 1, &"x".repeat(16 * 1024 + 1)));
    for n in 0..1000 {
        assert!(!subscribe(&mut client, 10 + n, &format!("a:{n}")));
    }
    assert!(subscribe(&mut client, 2, "a:one-more"));
    for n in 1000..listen::MAX_SUBSCRIBERS {
        assert!(client.accepts_lines());
        assert!(!subscribe(&mut client, 10 + n, "a:1"));
    }
    assert!(!client.accepts_lines(), "they wait for the stream");
    let mut effects = Effects::default();
    client.tick(client.next_deadline().expect("a deadline"), &mut effects);
    assert_eq!(effects.to_client.len(), listen::MAX_SUBSCRIBERS);
    assert!(client.accepts_lines());
}

#[test]
fn what_the_discovery_says_more_is_in_the_answer_to_initialize() {
    let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
    say(
        &mut client,
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
    );
    let found = r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}},"instructions":"\u0041","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"},"x":1e400},"a/b":{"c":1.0}}}"#;
    let heard = hear(&mut client, found);
    assert_eq!(
        text(&heard.to_client[0]),
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"},"resultType":"complete","capabilities":{"tools":{},"extensions":{"a/b":{}}},"instructions":"\u0041","_meta":{"x":1e400},"a/b":{"c":1.0}}}"#
    );
}

#[test]
fn a_client_is_answered_although_the_server_wants_a_sign_in_first() {
    let mut client = LegacyClient::new(&Settings { nonce: "n".into(), ..Settings::default() }, None);
    say(&mut client, r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
    let mut effects = Effects::default();
    client.signing_in(NOW, &SignIn::Wanted { url: "https://as.example/".into(), advice: "".into() }, &mut effects);
    assert!(effects.to_client.is_empty(), "the truth may come in time");
    let heard = hear(
        &mut client,
        r#"{"jsonrpc":"2.0","id":"mcp-drawbridge-n-e1","error":{"code":-32001,"message":"sign in","data":{"source":"mcp-drawbridge","kind":"sign-in"}}}"#,
    );
    let answer = text(&heard.to_client[0]);
    assert!(answer.contains(r#""id":0,"result":{"protocolVersion":"2025-06-18""#), "{answer}");
    let mut effects = Effects::default();
    client.tick(Duration::from_secs(1), &mut effects);
    assert!(text(&effects.to_session[0]).contains("server/discover"), "and the truth is asked for again");
}
