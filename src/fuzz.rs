//! Entry points of the fuzz targets and of the property tests: arbitrary bytes in, a panic when a promise is broken.
//!
//! [`envelope`] feeds the bytes to the message parser. [`session`] reads them as a script: what the client writes, what the
//! server answers, what the network does and how time passes; so does [`eras`](eras()),
//! with a server of another era. The same bytes always do the same.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::missing_panics_doc)] // a broken promise must stop the run
#![allow(clippy::print_stderr, clippy::unchecked_time_subtraction)] // and tell how it came to it; time only grows here

mod client;
mod eras;
mod modern_client;
mod promises;
mod script;
mod server;
mod world;

use bytes::Bytes;

use crate::message::{self, Id, Invalid, Message, Outcome, Parsed};
use script::Script;
use world::World;

/// One text as a message of either side.
pub fn envelope(data: &[u8]) {
    let value = serde_json::from_slice::<serde_json::Value>(data);
    let line = message::one_line(Bytes::copy_from_slice(data));
    match message::parse(data) {
        Err(Invalid::NotJson) => assert!(value.is_err(), "valid JSON was called invalid"),
        Err(Invalid::NotMessage { id, .. }) => {
            assert_one_line(&line);
            let refusal = message::error_response(id.as_ref(), message::INVALID_REQUEST, "no", None);
            assert_eq!(response_id(&refusal), id, "a refusal names the id that was read");
        }
        Ok(Parsed::Batch(members)) => {
            assert_one_line(&line);
            assert!(members.len() <= message::MAX_BATCH);
            if let Ok(value) = &value {
                assert_eq!(value.as_array().map(Vec::len), Some(members.len()));
            }
            for member in members {
                let _ = message::parse_one(member.get());
            }
        }
        Ok(Parsed::One(message)) => {
            assert_one_line(&line);
            let same = message::parse(&line);
            let Ok(Parsed::One(same)) = same else { panic!("a message is still one when it stands on one line") };
            assert_eq!(summary(&message), summary(&same));
            let renamed = message::with_id(&line, &Id::Integer(7)).expect("a message is an object");
            let Ok(Parsed::One(renamed)) = message::parse(&renamed) else {
                panic!("another id makes no other message")
            };
            match renamed {
                Message::Request(request) => assert_eq!(request.id, Id::Integer(7)),
                Message::Response(response) => assert_eq!(response.id, Some(Id::Integer(7))),
                Message::Notification(_) => panic!("a message with an id is no notification"),
            }
            if let (Ok(value), Message::Request(request)) = (&value, &message) {
                assert_eq!(value.get("method").and_then(|method| method.as_str()), Some(&*request.method));
            }
        }
    }
}

/// One life of a session, from the first line to the end.
pub fn session(data: &[u8]) {
    let mut script = Script::new(data);
    let mut world = World::new(&mut script);
    while world.step(&mut script) {}
    world.end();
}

/// One life of a client whose server may be of the other era.
pub fn eras(data: &[u8]) {
    let mut script = Script::new(data);
    let mut world = eras::World::new(&mut script);
    while world.step(&mut script) {}
    world.end();
}

/// One life of the translator between a modern client and a legacy server.
pub fn modern_client(data: &[u8]) {
    modern_client::World::new().run(&mut Script::new(data));
}

fn assert_one_line(line: &[u8]) {
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a line is one line");
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok(), "a line is JSON");
}

fn response_id(text: &[u8]) -> Option<Id> {
    match message::parse(text) {
        Ok(Parsed::One(Message::Response(response))) => response.id,
        _ => panic!("an error of the bridge is a response"),
    }
}

fn summary<'a>(message: &'a Message<'_>) -> (u8, Option<&'a Id>, &'a str) {
    match message {
        Message::Request(request) => (0, Some(&request.id), &request.method),
        Message::Notification(notification) => (1, None, &notification.method),
        Message::Response(response) => match response.outcome {
            Outcome::Result(_) => (2, response.id.as_ref(), ""),
            Outcome::Error(_) => (3, response.id.as_ref(), ""),
        },
    }
}
