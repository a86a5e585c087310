//! S3: the tool `sign_in`.

use mcp_drawbridge::session::{FailureKind, Input, SignIn, Wish};
use serde_json::Value;

use crate::dialogue::*;
use crate::signing_in::{opening, ready, tools};

fn paste(id: &str, text: &str) -> String {
    request(id, "tools/call", &format!(r#"{{"name":"sign_in","arguments":{{"redirect_url":"{text}"}}}}"#))
}

/// What a call said, and whether it is an error.
fn said(answer: &Value) -> (String, bool) {
    let text = answer["result"]["content"][0]["text"].as_str().expect("a text").to_owned();
    (text, answer["result"]["isError"].as_bool().expect("said"))
}

/// A client that was shown the tool, after a sign-in that came to nothing.
fn offered() -> Dialogue {
    let mut d = ready();
    d.says(&request("1", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.fails(&sent, FailureKind::SignIn, false);
    assert_eq!(tools(&d.hears_one()), ["sign_in"]);
    d
}

#[test]
fn it_gives_the_address_at_once_where_it_is_known() {
    let (mut d, _) = opening();
    d.passes(seconds(20));
    d.hears();
    d.says(&call("1", "sign_in"));
    let (text, is_error) = said(&d.hears_one());
    assert!(text.contains(SIGN_IN_URL) && text.contains("Open it on this machine") && !is_error, "{text}");
    assert_eq!(d.wishes(), [Wish::Begin], "the browser, where none was opened");
}

#[test]
fn why_the_last_try_came_to_nothing_is_told_while_the_next_waits() {
    let mut d = offered();
    d.input(Input::SignIn(SignIn::Ended { message: "the sign-in was denied".into(), hint: None }));
    d.sign_in_is_wanted();
    d.hears();
    d.says(&request("2", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.fails(&sent, FailureKind::SignIn, false);
    assert!(d.hears_one().to_string().contains("The last try: the sign-in was denied"));
    d.sign_in_is_done();
    d.hears();
}

#[test]
fn it_begins_a_sign_in_and_gives_its_address_as_soon_as_there_is_one() {
    let mut d = offered();
    d.says(&call("2", "sign_in"));
    d.says(&call("3", "sign_in"));
    assert_eq!(d.wishes(), [Wish::Begin], "once for both");
    d.passes(seconds(14));
    assert!(d.hears().is_empty());
    d.sign_in_is_wanted();
    let heard = d.hears();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|line| line.contains(SIGN_IN_URL)));
    d.sign_in_is_done();
    d.hears();
    d.says(&call("4", "sign_in"));
    let (text, is_error) = said(&d.hears_one());
    assert!(text.starts_with("Signed in") && !is_error, "{text}");
    assert!(d.wishes().is_empty());
    d.sends_nothing();
}

#[test]
fn it_does_not_wait_for_an_address_for_ever() {
    let mut d = offered();
    d.says(&call("2", "sign_in"));
    d.passes(seconds(15));
    let (text, is_error) = said(&d.hears_one());
    assert!(text.contains("again") && !is_error, "{text}");
    d.says(&call("3", "sign_in"));
    assert_eq!(d.wishes(), [Wish::Begin, Wish::Begin]);
    d.sign_in_has_ended();
    let (text, is_error) = said(&d.hears_one());
    assert!(text.contains("access was denied") && text.contains("ask the administrator") && is_error, "{text}");
}

#[test]
fn an_argument_of_another_name_is_not_lost_in_silence() {
    let (mut d, _) = opening();
    d.passes(seconds(20));
    d.hears();
    let arguments =
        |id: &str, json: &str| request(id, "tools/call", &format!(r#"{{"name":"sign_in","arguments":{json}}}"#));
    for (id, json, says) in [
        ("1", r#"{"url":"http://localhost:1/?code=s3cr3t"}"#, "has no argument url"),
        ("2", r#"{"redirect_url":"x","more":1}"#, "has no argument more"),
        ("3", r#"{"redirect_url":5}"#, "must be a text"),
        ("4", r#"["x"]"#, "must be a text"),
    ] {
        d.says(&arguments(id, json));
        let (text, is_error) = said(&d.hears_one());
        assert!(text.contains(says) && text.contains("redirect_url") && is_error, "{json}: {text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    assert!(d.wishes().is_empty(), "no browser for a mistake, and nothing is pasted");
    for (id, json) in [("5", "{}"), ("6", "null"), ("7", r#"{"redirect_url":null}"#)] {
        d.says(&arguments(id, json));
        let (text, is_error) = said(&d.hears_one());
        assert!(text.contains(SIGN_IN_URL) && !is_error, "{json}: {text}");
    }
}

#[test]
fn where_to_paste_is_said_once() {
    let (mut d, _) = opening();
    d.input(Input::SignIn(SignIn::Wanted {
        url: SIGN_IN_URL.into(),
        advice: "No browser here. Copy the address of the page that does not load into the tool `sign_in`.".into(),
    }));
    d.passes(seconds(20));
    d.hears();
    d.says(&call("1", "sign_in"));
    let (text, _) = said(&d.hears_one());
    assert_eq!(text.matches("does not load").count(), 1, "{text}");
    assert!(text.contains("redirect_url"), "{text}");
}

#[test]
fn what_is_pasted_goes_to_the_sign_in_alone() {
    let (mut d, sent) = opening();
    let pasted = "http://127.0.0.1:3334/oauth/callback?code=c&state=s3cr3t-state";
    d.says(&paste("1", pasted));
    assert_eq!(d.wishes(), [Wish::Paste(pasted.into())]);
    d.input(Input::SignIn(SignIn::NotTaken { message: "the state differs".into() }));
    let (text, is_error) = said(&d.hears_one());
    assert!(text.contains("the state differs") && is_error);
    d.says(&paste("2", &format!("  {pasted} ")));
    assert_eq!(d.wishes(), [Wish::Paste(pasted.into())]);
    d.sign_in_is_done();
    let (text, is_error) = said(&d.hears_one());
    assert!(text.starts_with("Signed in") && !is_error);
    // Pasted once more, too late: still not the server's to see, as the dialogue itself asserts.
    d.answers_initialize(&sent, "s1");
    d.says(INITIALIZED);
    d.greets();
    d.hears();
    d.says(&request("3", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.answers(&sent);
    d.hears();
    d.says(&paste("4", pasted));
    assert!(!said(&d.hears_one()).1);
    assert!(d.wishes().is_empty());
    d.sends_nothing();
}

#[test]
fn pasting_has_limits() {
    let mut d = offered();
    d.says(&paste("2", "http://127.0.0.1/?code=x"));
    assert!(said(&d.hears_one()).1, "no sign-in is under way");
    d.sign_in_is_wanted();
    d.says(&request("3", "tools/call", r#"{"name":"sign_in","arguments":{"redirect_url":7}}"#));
    assert!(said(&d.hears_one()).1);
    d.says(&paste("4", &"x".repeat(20_000)));
    assert!(said(&d.hears_one()).1);
    assert!(d.wishes().is_empty());
    d.says(&paste("5", " "));
    assert!(said(&d.hears_one()).0.contains(SIGN_IN_URL), "nothing was pasted");
    assert_eq!(d.wishes(), [Wish::Begin]);
    d.says(&paste("6", "code"));
    d.passes(seconds(30));
    assert!(said(&d.hears_one()).1, "no word came");
    for id in 100..250 {
        d.says(&paste(&id.to_string(), "code"));
    }
    assert_eq!(d.hears().len(), 50, "a hundred may wait");
    assert_eq!(d.wishes().len(), 101);
    // One refusal is the answer to one of them.
    d.input(Input::SignIn(SignIn::NotTaken { message: "no".into() }));
    assert_eq!(d.responses(), ["100"]);
    // Those that nobody waits for any more give their places back.
    for id in 101..200 {
        d.says(&cancel(&id.to_string()));
    }
    d.says(&paste("300", "code"));
    d.sign_in_has_ended();
    assert_eq!(d.responses(), ["300"]);
}

#[test]
fn a_tool_of_the_server_with_this_name_is_the_servers() {
    let mut d = ready();
    d.says(&call("1", "sign_in"));
    let sent = d.one("tools/call");
    d.answers(&sent);
    d.hears();
    d.says(&request("2", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.answer(&sent, 200, &result("2", r#"{"tools":[{"name":"sign_in"}]}"#));
    d.hears();
    d.sign_in_is_wanted();
    d.says(&call("3", "sign_in"));
    d.one("tools/call");
    // Nobody shall take the bridge's tool for it, and paste a secret into the server's.
    d.says(&request("4", "tools/list", "{}"));
    let sent = d.one("tools/list");
    d.is_held(&sent);
    d.passes(seconds(40));
    assert_eq!(d.responses(), ["4 sign-in"]);
}
