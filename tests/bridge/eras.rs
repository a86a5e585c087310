//! Hostile servers of the other era: what the bridge itself says to them and keeps for them is bounded (R8), and nothing is lost.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::MIB;
use crate::support::bridge::{Bridge, Setup};
use crate::support::mcp::Mcp;
use crate::support::wire::Reply;

/// A call of a client of 2026-07-28 that can be asked nothing.
fn call(bridge: &mut Bridge, tool: &str) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}
    });
    bridge.request("tools/call", &json!({"name": tool, "arguments": {"still": "here"}, "_meta": meta}))
}

fn assert_works(bridge: &mut Bridge) {
    let id = call(bridge, "echo");
    assert_eq!(bridge.result(&id)["structuredContent"]["still"], "here", "{}", bridge.report());
}

/// The translator answers these by itself, so no slow client slows them down. A server that takes no answer gets no more of them.
#[test]
fn requests_of_a_legacy_server_without_end_are_not_all_answered() {
    const PINGS: usize = 100_000;
    for (method, takes_answers) in [("ping", false), ("roots/list", false), ("ping", true)] {
        let server = Mcp::plain();
        let flood = move |id: &str| {
            let pings = (0..PINGS / 1000).map(move |thousand| {
                let ping =
                    |n| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":\"p{thousand}-{n}\",\"method\":\"{method}\"}}\n\n");
                Bytes::from((0..1000).map(ping).collect::<String>())
            });
            let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}");
            Reply::stream().each(pings).event(&answer).end()
        };
        server.on("tools/call", move |call| {
            let translated = call.request.header("mcp-session-id").is_some();
            (call.tool() == "flood" && translated).then(|| flood(&call.id))
        });
        server.on("response", move |_| Some(if takes_answers { Reply::status(202) } else { Reply::nothing().hold() }));
        let mut bridge = Setup::new(&server.url()).start();
        assert_works(&mut bridge);
        let id = call(&mut bridge, "flood");
        assert!(bridge.result(&id)["content"].is_array());
        assert_works(&mut bridge);
        assert!(server.count("response") > 0, "some are answered");
        if let Some(peak) = bridge.peak_rss() {
            assert!(peak < 96 * MIB, "{method}: {} MiB resident at most", peak / MIB);
        }
        let end = bridge.finish();
        assert!(end.took.as_secs() < 6, "{method}: the end took {:?}", end.took);
    }
}
