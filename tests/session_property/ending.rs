//! S5, C5: idle times, and the end.

use std::time::Duration;

use mcp_drawbridge::session::{FailureKind, Input, MAX_PENDING, MAX_PENDING_BYTES, Settings, ToolRules};

use crate::dialogue::*;
use crate::opening::sse_session;

#[test]
fn after_the_end_of_stdin_what_is_in_flight_may_finish() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.input(Input::ClientGone);
    d.passes(seconds(1));
    assert!(!d.exited);
    d.answers(&sent);
    assert_eq!(d.responses(), ["1"]);
    let goodbye = d.one("DELETE");
    assert_eq!(goodbye.outgoing.session_id.as_deref(), Some("s1"));
    d.answer(&goodbye, 200, "");
    assert!(d.exited);
}

#[test]
fn a_script_that_ends_before_its_handshake_is_still_answered() {
    let mut d = Dialogue::new(Settings { drain: seconds(30), ..settings() });
    for line in [&initialize("0"), INITIALIZED, &call("1", "a")] {
        d.says(line);
    }
    d.input(Input::ClientGone);
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    let sent = d.one("tools/call");
    d.answers(&sent);
    assert_eq!(d.responses(), ["0", "1"]);
    d.one("DELETE");
}

#[test]
fn after_the_drain_every_id_gets_an_error() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    d.says(&call("2", "a"));
    let sent = d.sends();
    d.opens(&sent[1]);
    d.input(Input::ClientGone);
    d.passes(seconds(2));
    assert_eq!(d.responses(), ["1 shutdown", "2 shutdown"]);
    assert_eq!(d.aborted.len(), 2);
    d.one("DELETE");
    d.passes(seconds(2));
    assert!(d.exited, "a server that does not answer the goodbye is not waited for");
    assert!(d.session.holds_nothing());
}

#[test]
fn a_signal_ends_it_at_once() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    d.sends();
    d.input(Input::Terminate);
    assert_eq!(d.responses(), ["1 shutdown"]);
    d.one("DELETE");
    d.says(&call("2", "a"));
    d.says(INITIALIZED);
    assert_eq!(d.responses(), ["2"]);
    d.sends_nothing();
    // Nothing else is left that a timer could wake.
    d.passes(seconds(60));
    d.sends_nothing();
    assert!(d.exited);
}

#[test]
fn a_session_without_an_id_is_left_without_a_goodbye() {
    let (mut d, stream) = sse_session();
    d.input(Input::ClientGone);
    d.sends_nothing();
    assert_eq!(d.aborted, [stream.exchange]);
    assert!(d.exited);
}

#[test]
fn a_session_that_is_lost_during_the_drain_is_not_opened_again() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.input(Input::ClientGone);
    d.answer(&sent, 404, "");
    assert_eq!(d.responses(), ["1 not-found"]);
    assert!(d.sends_what().iter().all(|what| what == "DELETE"));
}

#[test]
fn only_an_idle_connection_is_pinged_and_one_that_does_not_answer_is_opened_again() {
    let pinging = Settings { keep_alive: Some(seconds(30)), ..settings() };
    let mut d = Dialogue::new(pinging);
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    let sent = d.one("notifications/initialized");
    d.answer(&sent, 202, "");
    let get = d.one("GET");
    d.opens(&get);
    d.hears();
    for _ in 0..10 {
        d.passes(seconds(20));
        d.streams(&get, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    }
    d.sends_nothing();
    d.hears();
    d.passes(seconds(31));
    let ping = d.one("ping");
    d.answers(&ping);
    assert!(d.hears().is_empty(), "it is our ping");
    d.passes(seconds(31));
    d.one("ping");
    d.passes(seconds(31));
    assert!(d.aborted.contains(&get.exchange));
    assert!(d.sends_what().contains(&"GET".to_owned()));
}

#[test]
fn a_ping_interval_of_nothing_does_not_spin() {
    let mut d = Dialogue::ready(Settings { keep_alive: Some(Duration::ZERO), ..settings() });
    d.passes(seconds(9));
    assert_eq!(d.sends_what(), ["ping"], "one at a time");
}

#[test]
fn a_ping_that_the_older_transport_does_not_answer_opens_its_stream_again() {
    let (mut d, stream) = sse_session();
    d.input(Input::Woke);
    d.one("ping");
    d.passes(seconds(5));
    assert!(d.aborted.contains(&stream.exchange));
    d.one("GET");
}

#[test]
fn after_sleep_what_can_be_resumed_is_resumed_at_once() {
    let mut d = Dialogue::ready(settings());
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.opens(&sent);
    d.marks(&sent, "e9", Some(60_000));
    d.input(Input::Woke);
    assert_eq!(d.aborted, [sent.exchange]);
    assert_eq!(d.one("GET").outgoing.last_event_id.as_deref(), Some("e9"));
}

#[test]
fn a_client_that_asks_more_than_can_be_held_is_read_no_further() {
    let mut d = Dialogue::ready(settings());
    for id in 0..MAX_PENDING {
        assert!(d.session.accepts_lines());
        d.says(&call(&id.to_string(), "a"));
    }
    assert!(!d.session.accepts_lines());
    let sent = d.sends();
    d.answers(&sent[0]);
    assert!(d.session.accepts_lines());
    // Messages that want no answer count as well.
    let mut d = Dialogue::ready(settings());
    for _ in 0..MAX_PENDING {
        d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    }
    assert!(!d.session.accepts_lines());
    let sent = d.sends();
    d.fails(&sent[0], FailureKind::Malformed, false);
    assert!(d.session.accepts_lines());
}

#[test]
fn the_name_of_a_tool_counts_for_what_can_be_held() {
    let rules = ToolRules { read_only: true, ..ToolRules::default() };
    let mut d = Dialogue::ready(Settings { tools: rules, ..settings() });
    let name = "n".repeat(MAX_PENDING_BYTES / 16);
    for id in 0..8 {
        assert!(d.session.accepts_lines(), "{id}");
        d.says(&call(&id.to_string(), &name));
    }
    assert!(!d.session.accepts_lines(), "each name is kept twice");
    d.says(&cancel("0"));
    assert!(d.session.accepts_lines());
}

#[test]
fn a_notification_stream_of_the_modern_era_does_not_hold_up_the_end() {
    let mut d = Dialogue::new(settings());
    d.says(&modern("1", "subscriptions/listen"));
    let sent = d.one("subscriptions/listen");
    d.opens(&sent);
    d.input(Input::ClientGone);
    assert_eq!(d.responses(), ["1 shutdown"]);
    assert!(d.exited);
}

#[test]
fn messages_without_an_answer_hold_up_the_end_for_two_seconds_at_most() {
    let mut d = Dialogue::ready(Settings { drain: seconds(30), ..settings() });
    d.says(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    d.one("notifications/roots/list_changed");
    d.says(&call("1", "a"));
    let sent = d.one("tools/call");
    d.input(Input::ClientGone);
    d.passes(seconds(10));
    assert!(!d.exited && d.sends_what().is_empty(), "a request has its time");
    d.answers(&sent);
    assert_eq!(d.responses(), ["1"]);
    d.passes(seconds(1));
    d.sends_nothing();
    d.passes(seconds(1));
    d.one("DELETE");
    // The same where nothing is to be reached at all.
    let mut d = Dialogue::remembering(
        Settings { drain: seconds(30), ..settings() },
        Some(memory(mcp_drawbridge::session::Remembered::StreamableHttp)),
    );
    d.says(&initialize("0"));
    let sent = d.one("initialize");
    d.fails(&sent, FailureKind::Connect, true);
    d.says(INITIALIZED);
    d.input(Input::ClientGone);
    d.passes_with_a_dead_network(seconds(1));
    d.hears();
    assert!(!d.exited);
    let took = d.passes_with_a_dead_network(seconds(20));
    assert!(d.exited, "after {took:?}");
}
