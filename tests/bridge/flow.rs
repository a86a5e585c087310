//! Memory is bounded: floods and slow readers slow the source down (R8), and nothing is lost meanwhile.

use std::io::{BufRead as _, BufReader};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, Setup, Stdio3, kill_own, peak_rss_of};
use crate::support::mcp::Mcp;
use crate::support::wire::{Reply, event};
use crate::support::{LIMIT, MIB, all_at_once, eventually, ms, s, within};

fn ready(server: &Mcp) -> Bridge {
    let mut bridge = Setup::new(&server.url()).start();
    bridge.handshake();
    bridge
}

#[track_caller]
fn assert_peak(bridge: &Bridge, limit: usize) {
    if let Some(peak) = bridge.peak_rss() {
        assert!(peak < limit, "{} MiB resident at most, the limit is {} MiB", peak / MIB, limit / MIB);
    }
}

#[track_caller]
fn assert_shrinks(bridge: &Bridge, limit: usize) {
    let shrunk = within(s(15), || bridge.rss().is_none_or(|rss| rss < limit).then_some(()));
    assert!(shrunk.is_some(), "{} MiB stay resident", bridge.rss().unwrap_or(0) / MIB);
}

/// 100 MB of numbered notifications, one large event in each thousand.
fn flood(id: &str) -> Reply {
    const COUNT: u64 = 100_000;
    let padding = "p".repeat(950);
    let notes = (0..COUNT / 100).map(move |block| {
        let mut piece = String::with_capacity(110_000);
        for n in block * 100..(block + 1) * 100 {
            let note = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"n\":{n},\"p\":\"{padding}\"}}}}");
            piece.push_str(&event(None, &note));
        }
        Bytes::from(piece)
    });
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"count\":{COUNT}}}}}");
    Reply::stream().each(notes).event(&answer).end()
}

#[test]
fn a_client_that_does_not_read_slows_the_server_down_and_loses_nothing() {
    all_at_once(
        &[Stdio3::Pipes, Stdio3::Sockets],
        2,
        |stdio| format!("{stdio:?}"),
        |stdio| {
            let server = Mcp::plain();
            server.on("tools/call", |call| (call.tool() == "flood").then(|| flood(&call.id)));
            let mut bridge = Setup::new(&server.url()).stdio(*stdio).unread().start();
            let mut stdout = BufReader::with_capacity(1 << 20, bridge.take_stdout());
            let mut line = String::new();
            bridge.initialize();
            stdout.read_line(&mut line).expect("the answer to initialize");
            bridge.initialized();
            bridge.call("flood", &json!({}));
            server.await_count("tools/call", 1);
            // Nothing is read; the flood must stand still soon, in the kernel's buffers.
            std::thread::sleep(s(3));
            let log = server.log();
            let call = log.iter().find(|logged| logged.request.rpc_method() == "tools/call").unwrap();
            assert!(call.done.is_none(), "100 MB cannot have gone anywhere");
            assert_peak(&bridge, 48 * MIB);
            let mut next = 0_u64;
            loop {
                line.clear();
                assert!(stdout.read_line(&mut line).expect("a line") > 0, "stdout ends early\n{}", bridge.report());
                if line.contains("\"result\"") {
                    break;
                }
                let n = line
                    .split_once("\"n\":")
                    .and_then(|(_, rest)| rest.split_once(','))
                    .and_then(|(n, _)| n.parse().ok());
                assert_eq!(n, Some(next), "{stdio:?}: lost or out of order");
                next += 1;
            }
            assert_eq!(next, 100_000);
            assert_peak(&bridge, 48 * MIB);
            bridge.finish();
        },
    );
}

/// Other calls go on to be answered once the client reads again, and stdin is read all the time.
#[test]
fn two_thousand_requests_before_the_first_read_do_not_lock() {
    for stdio in [Stdio3::Pipes, Stdio3::Sockets] {
        let server = Mcp::plain();
        // Answers large enough to fill every buffer on the way.
        server.on("tools/call", |call| {
            Some(Reply::json(
                200,
                call.result(&json!({"n": call.message["params"]["arguments"]["n"], "x": "y".repeat(2000)})),
            ))
        });
        let mut bridge = Setup::new(&server.url()).stdio(stdio).unread().start();
        bridge.initialize();
        bridge.initialized();
        // Written on the test's own thread: if the bridge stopped reading for good, this would never end.
        let writer = std::thread::spawn(move || {
            for n in 0..2000 {
                bridge.call("x", &json!({"n": n}));
            }
            bridge
        });
        assert!(within(LIMIT, || writer.is_finished().then_some(())).is_some(), "{stdio:?}: the bridge does not read");
        let mut bridge = writer.join().unwrap();
        bridge.read();
        for id in 2..=2001 {
            assert_eq!(bridge.result(&json!(id))["n"], id - 2, "{stdio:?}");
        }
        bridge.finish();
    }
}

/// A client that writes much and a server that answers nothing: the bridge stops reading before it grows.
#[test]
fn a_flood_from_the_client_is_slowed_down() {
    let server = Mcp::plain();
    server.on("tools/call", |_| Some(Reply::nothing().hold()));
    let mut bridge = ready(&server);
    let pid = bridge.pid();
    let writer = std::thread::spawn(move || {
        // 384 MB: more than may wait.
        let big = "x".repeat(3 * MIB);
        for id in 0..128 {
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":\"f{id}\",\"method\":\"tools/call\",\"params\":{{\"name\":\"x\",\"arguments\":\"{big}\"}}}}\n"
            );
            if !bridge.send_bytes(line.as_bytes()) {
                break;
            }
        }
        bridge
    });
    // Until nothing more is taken in for a while.
    let mut held = 0;
    while let Some(more) = within(s(3), || Some(held_by(&server)).filter(|now| *now > held)) {
        held = more;
    }
    assert!((10..128).contains(&held), "{held} requests of 3 MiB went out");
    assert!(!writer.is_finished(), "all of it was taken in");
    if let Some(peak) = peak_rss_of(pid) {
        assert!(peak < 420 * MIB, "{} MiB", peak / MIB);
    }
    kill_own(pid);
    drop(writer.join().unwrap());
}

fn held_by(server: &Mcp) -> usize {
    server.log().iter().filter(|logged| logged.request.body.len() > MIB).count()
}

/// Two bytes of nonsense are answered with eighty of explanation, so stdin must be slowed down by stdout too.
#[test]
fn nonsense_from_a_client_that_does_not_read_is_slowed_down() {
    const LINES: usize = 400_000;
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).args("--max-message 4k").unread().start();
    let mut stdout = BufReader::with_capacity(1 << 20, bridge.take_stdout());
    let pid = bridge.pid();
    let writer = std::thread::spawn(move || {
        assert!(bridge.send_bytes(&b"x\n".repeat(LINES)));
        bridge
    });
    // Until the peak stands still.
    let mut peak = peak_rss_of(pid);
    while let Some(more) = within(s(2), || peak_rss_of(pid).filter(|now| Some(*now) > peak)) {
        peak = Some(more);
    }
    assert!(!writer.is_finished(), "all of it was taken in");
    if let Some(peak) = peak {
        assert!(peak < 48 * MIB, "{} MiB", peak / MIB);
    }
    let mut line = String::new();
    for n in 0..LINES {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0 && line.contains("-32700"), "answer {n}: {line}");
    }
    writer.join().unwrap().finish();
}

/// An event of 200 MB on one line is no message.
#[test]
fn an_event_over_the_limit_is_an_error_and_is_not_kept() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "huge").then(|| {
            let piece = Bytes::from(vec![b'x'; MIB]);
            Reply::stream().write("data: {\"x\":\"").each((0..200).map(move |_| piece.clone())).write("\"}\n\n").end()
        })
    });
    let mut bridge = ready(&server);
    let id = bridge.call("huge", &json!({}));
    let error = bridge.error(&id);
    assert_eq!(error["data"]["kind"], "too-large", "{error}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("--max-message"), "{error}");
    bridge.assert_works();
    assert_peak(&bridge, 160 * MIB);
    assert_shrinks(&bridge, 40 * MIB);
    bridge.finish();
}

#[test]
fn a_body_over_the_limit_is_an_error_and_is_not_kept() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "huge").then(|| {
            let piece = Bytes::from(vec![b'x'; MIB]);
            // Chunked, so that no length warns of it.
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                .each((0..200).map(move |_| crate::support::wire::chunk(&piece)))
                .write("0\r\n\r\n")
        })
    });
    let mut bridge = ready(&server);
    let id = bridge.call("huge", &json!({}));
    let error = bridge.error(&id);
    assert_eq!(error["data"]["kind"], "too-large", "{error}");
    bridge.assert_works();
    assert_peak(&bridge, 160 * MIB);
    assert_shrinks(&bridge, 40 * MIB);
    bridge.finish();
}

#[test]
fn memory_does_not_stay_at_its_peak() {
    let server = Mcp::plain();
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"big\",\"result\":{{\"text\":\"{}\"}}}}", "z".repeat(50 * MIB));
    let answer_length = answer.len();
    let text = Bytes::from(answer);
    server.on("tools/call", move |call| (call.tool() == "bulk").then(|| Reply::json(200, text.clone())));
    let mut bridge = Setup::new(&server.url()).unread().start();
    let mut stdout = BufReader::with_capacity(1 << 20, bridge.take_stdout());
    let mut line = Vec::new();
    bridge.initialize();
    stdout.read_until(b'\n', &mut line).unwrap();
    bridge.initialized();
    for _ in 0..3 {
        bridge.send_line(r#"{"jsonrpc":"2.0","id":"big","method":"tools/call","params":{"name":"bulk"}}"#);
        line.clear();
        while !line.ends_with(b"\n") {
            stdout.read_until(b'\n', &mut line).unwrap();
        }
        assert_eq!(line.len(), answer_length + 1);
    }
    assert_peak(&bridge, 200 * MIB);
    assert_shrinks(&bridge, 40 * MIB);
    bridge.finish();
}

/// A thousand open streams cost memory in proportion, and are all answered.
#[test]
fn many_slow_calls_at_once_are_all_answered() {
    let server = Mcp::streaming();
    let mut bridge = ready(&server);
    let ids: Vec<Value> = (0..1000).map(|_| bridge.call("sleep", &json!({"ms": 3000}))).collect();
    server.await_count("tools/call", 1000);
    bridge.assert_works();
    for id in &ids {
        bridge.result(id);
    }
    assert_peak(&bridge, 200 * MIB);
    bridge.finish();
}

/// A full stderr pipe stops nothing.
#[test]
fn a_stderr_that_nobody_reads_stops_nothing() {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;
    let server = Mcp::plain();
    let (mut command, _home) = Setup::new(&server.url()).arg("--debug").into_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let _unread = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        stdout.read_to_string(&mut all).map(|_| all)
    });
    writeln!(stdin, r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"t","version":"1"}}}}}}"#).unwrap();
    writeln!(stdin, r#"{{"jsonrpc":"2.0","method":"notifications/initialized"}}"#).unwrap();
    for id in 2..3000 {
        writeln!(stdin, r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#).unwrap();
    }
    drop(stdin);
    let ended = within(LIMIT, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert_eq!(reader.join().unwrap().unwrap().lines().count(), 2999);
}

/// The server pushes faster than the client reads, on the notification stream.
#[test]
fn the_notification_stream_is_slowed_down_too() {
    let server = Mcp::plain();
    let mut bridge = Setup::new(&server.url()).unread().start();
    let mut stdout = BufReader::with_capacity(1 << 20, bridge.take_stdout());
    let mut line = String::new();
    bridge.initialize();
    stdout.read_line(&mut line).unwrap();
    bridge.initialized();
    server.await_listener();
    let padding = "q".repeat(10_000);
    for n in 0..4000 {
        server.push(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": n, "p": padding}}));
    }
    std::thread::sleep(s(1));
    assert_peak(&bridge, 48 * MIB);
    for n in 0..4000 {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"n\":{n},")), "lost or out of order at {n}");
    }
    assert_peak(&bridge, 48 * MIB);
    bridge.finish();
}

/// What a slow disk or a dead terminal must not do either: stall the answer to a fast call. Kept here because it shares the set-up.
#[test]
fn answers_come_while_another_is_huge() {
    let server = Mcp::plain();
    server.on("tools/call", |call| {
        (call.tool() == "trickle").then(|| {
            Reply::stream()
                .each((0..40).map(|_| Bytes::from_static(b": comment\n\n")))
                .wait(ms(1500))
                .event(&call.result(&json!({})))
                .end()
        })
    });
    let mut bridge = ready(&server);
    let slow = bridge.call("trickle", &json!({}));
    bridge.assert_works();
    bridge.result(&slow);
    eventually("the stream has ended", || {
        server.log().iter().all(|logged| logged.done.is_some() || logged.request.method == "GET").then_some(())
    });
    bridge.finish();
}
