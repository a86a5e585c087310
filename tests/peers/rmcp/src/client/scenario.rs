//! The checks, with the names and in the order of `clients/scenario.mjs`.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rmcp::ServiceError;
use rmcp::model::*;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::host::Seen;
use crate::{Fallible, Peer, Report, Settings, WAIT_LIMIT, text, why};

const MIB: usize = 1024 * 1024;
const COUNTER: &str = "peer://counter";
/// rmcp waits 3 s for the bridge to end by itself, then it sends a signal.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_900);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn ensure(condition: bool, error: impl Into<String>) -> Fallible {
    if condition { Ok(()) } else { Err(error.into()) }
}

fn equal<T: PartialEq + std::fmt::Debug>(actual: T, expected: T, what: &str) -> Fallible {
    let show = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
    ensure(actual == expected, format!("{what}: expected {}, got {}", show(&expected), show(&actual)))
}

async fn until<F: Future<Output = Fallible<bool>>>(
    mut probe: impl FnMut() -> F,
    what: &str,
    limit: Duration,
) -> Fallible {
    let end = Instant::now() + limit;
    while !probe().await? {
        ensure(Instant::now() < end, format!("{what}: not within {limit:?}"))?;
        sleep(ms(20)).await;
    }
    Ok(())
}

/// The text of each, once all have ended.
async fn texts<'a>(peer: &'a Peer, calls: impl IntoIterator<Item = (&'a str, Value)>) -> Fallible<Vec<String>> {
    join_all(calls.into_iter().map(|(name, arguments)| peer.text(name, arguments))).await.into_iter().collect()
}

/// Returns how many checks failed.
pub async fn run(settings: &Settings) -> usize {
    let mut report = Report::default();
    let mut connected = None;
    report
        .check_within("initialize", Duration::from_secs(20), async {
            let peer = Peer::connect(settings).await?;
            let info = peer.service.peer_info().ok_or("nothing is known of the server")?;
            let name = info.server_info.as_ref().map(|server| server.name.clone()).unwrap_or_default();
            equal(name, settings.name.clone(), "server name")?;
            let version = if settings.modern { "2026-07-28" } else { "2025-11-25" };
            equal(info.protocol_version.as_str(), version, "protocol version")?;
            connected = Some(peer);
            Ok(())
        })
        .await;
    let Some(peer) = connected else { return report.failed };
    calls(&mut report, &peer, settings).await;
    questions(&mut report, &peer, settings).await;
    news(&mut report, &peer, settings).await;
    load(&mut report, &peer, settings).await;
    if settings.bridged {
        cuts(&mut report, &peer, settings).await;
        if settings.has("sessions") {
            sessions(&mut report, &peer, settings).await;
        }
    }
    close(&mut report, peer, settings).await;
    println!("done");
    report.failed
}

async fn calls(report: &mut Report, peer: &Peer, settings: &Settings) {
    report
        .check("list tools", async {
            let names = peer.tool_names().await?;
            for name in ["echo", "add", "slow", "slow_once", "ask", "big", "fail"] {
                ensure(names.iter().any(|known| known == name), format!("no tool {name}"))?;
            }
            Ok(())
        })
        .await;
    report
        .check("call: text comes back as it went", async {
            let value =
                "A \"quoted\" \\ line\nand another\r\ttab \u{0} nul \u{2028} separator, \u{1F600}, \u{FEFF} bom, <&>";
            equal(peer.text("echo", json!({"text": value})).await?, value.to_owned(), "text")
        })
        .await;
    report
        .check("call: structured content", async {
            let result = peer.call("add", json!({"a": 2, "b": 40})).await.map_err(why)?;
            // The Python SDK writes 42.0, which is the same number.
            let sum = result.structured_content.and_then(|content| content["sum"].as_f64());
            equal(sum, Some(42.0), "sum")
        })
        .await;
    report
        .check("call: a tool that fails", async {
            let result = peer.call("fail", json!({})).await.map_err(why)?;
            equal(result.is_error, Some(true), "isError")?;
            let said = text(&result)?;
            ensure(said.contains("failed as asked"), said)
        })
        .await;
    report
        .check("an unknown method brings the server's own error", async {
            let request = ClientRequest::CustomRequest(CustomRequest::new("peer/unknown", Some(json!({}))));
            match peer.service.send_request(request).await {
                Err(ServiceError::McpError(error)) => {
                    // -32601; the Python SDK 1.x says -32602.
                    ensure(
                        matches!(error.code.0, -32601 | -32602),
                        format!("code is {:?} ({})", error.code, error.message),
                    )?;
                    let own = error.data.is_some_and(|data| data.get("source").is_some());
                    ensure(!own, "the bridge made this error itself")
                }
                other => Err(format!("no error of the server: {other:?}")),
            }
        })
        .await;
    report
        .check("resources: list, read, template", async {
            let listed = peer.service.list_resources(None).await.map_err(why)?.resources;
            ensure(listed.iter().any(|resource| resource.uri == COUNTER), "counter not listed")?;
            let read =
                peer.service.read_resource(ReadResourceRequestParams::new("peer://item/7")).await.map_err(why)?;
            equal(json!(read.contents[0])["text"].clone(), json!("item 7"), "text")
        })
        .await;
    report
        .check("prompts: list, get", async {
            let listed = peer.service.list_prompts(None).await.map_err(why)?.prompts;
            ensure(listed.iter().any(|prompt| prompt.name == "greet"), "greet not listed")?;
            let mut params = GetPromptRequestParams::new("greet");
            params.arguments = json!({"name": "Ada"}).as_object().cloned();
            let prompt = peer.service.get_prompt(params).await.map_err(why)?;
            equal(json!(prompt.messages[0])["content"]["text"].clone(), json!("Hello, Ada"), "text")
        })
        .await;
    if !settings.modern {
        report
            .check("ping", async {
                let ping = ClientRequest::PingRequest(PingRequest::default());
                peer.service.send_request(ping).await.map(|_| ()).map_err(why)
            })
            .await;
    }
    report
        .check("progress: in order, before the answer", async {
            let mark = peer.host.mark();
            let handle = peer.begin("slow", json!({"ms": 200, "steps": 3})).await?;
            let token = handle.progress_token.clone();
            let ServerResult::CallToolResult(result) = handle.await_response().await.map_err(why)? else {
                return Err("another result".into());
            };
            equal(text(&result)?, "slept 200".to_owned(), "text")?;
            let mut steps = Vec::new();
            for seen in peer.host.since(mark) {
                match seen {
                    Seen::Progress(of, step) if of == token => steps.push(step),
                    Seen::Progress(of, _) => return Err(format!("progress for {of:?}")),
                    _ => {}
                }
            }
            equal(steps, vec![1.0, 2.0, 3.0], "steps")
        })
        .await;
}

async fn questions(report: &mut Report, peer: &Peer, settings: &Settings) {
    if settings.has("ask") {
        report
            .check("elicitation", async {
                equal(peer.text("ask", json!({"message": "who?"})).await?, "accept Ada (who?)".into(), "text")
            })
            .await;
        report
            .check("sampling", async {
                equal(peer.text("sample", json!({"prompt": "hi"})).await?, "model says hi".into(), "text")
            })
            .await;
        report
            .check("roots", async {
                equal(peer.text("roots", json!({})).await?, "file:///peer/one file:///peer/two".into(), "text")
            })
            .await;
        report
            .check("16 questions at once", async {
                let asked = texts(peer, (0..16).map(|i| ("ask", json!({"message": format!("q{i}")})))).await?;
                equal(asked, (0..16).map(|i| format!("accept Ada (q{i})")).collect(), "texts")
            })
            .await;
    }
    if settings.has("url") {
        report
            .check("elicitation by URL", async { equal(peer.text("visit", json!({})).await?, "accept".into(), "text") })
            .await;
        // An older client shows the URL by itself when it gets this error.
        if settings.modern {
            report
                .check("a URL that the server demands by an error", async {
                    equal(peer.text("must_visit", json!({})).await?, "visited".into(), "text")
                })
                .await;
        }
    }
}

async fn log(peer: &Peer, level: &str, line: &str) -> Fallible {
    peer.text("log", json!({"level": level, "text": line})).await.map(|_| ())
}

fn logged(peer: &Peer, mark: usize, line: &str) -> bool {
    peer.host.since(mark).contains(&Seen::Log(json!(line)))
}

/// Notifications that nobody asked for by a request of its own.
async fn news(report: &mut Report, peer: &Peer, settings: &Settings) {
    if settings.has("log") {
        report
            .check("logging honours the level", async {
                let mark = peer.host.mark();
                peer.set_level(LoggingLevel::Warning).await?;
                log(peer, "error", "loud").await?;
                log(peer, "info", "quiet").await?;
                until(|| async { Ok(logged(peer, mark, "loud")) }, "the log line", WAIT_LIMIT).await?;
                sleep(ms(100)).await;
                ensure(!logged(peer, mark, "quiet"), "a line below the level came")
            })
            .await;
    }
    let update = Seen::Updated(COUNTER.into());
    if settings.has("subscribe") {
        report
            .check("subscription: updates while it lasts", async {
                peer.subscribe(COUNTER).await?;
                let mark = peer.host.mark();
                peer.text("touch", json!({})).await?;
                until(|| async { Ok(peer.host.since(mark).contains(&update)) }, "the update", WAIT_LIMIT).await?;
                peer.unsubscribe(COUNTER).await?;
                sleep(ms(150)).await;
                let mark = peer.host.mark();
                peer.text("touch", json!({})).await?;
                sleep(ms(150)).await;
                ensure(!peer.host.since(mark).contains(&update), "an update after unsubscribing")?;
                peer.subscribe(COUNTER).await
            })
            .await;
    }
    if settings.has("list-changed") {
        report
            .check("list_changed", async {
                let name = format!("later_{}", std::process::id());
                let mark = peer.host.mark();
                peer.text("grow", json!({"name": name})).await?;
                until(|| async { Ok(peer.host.since(mark).contains(&Seen::ToolsChanged)) }, "list_changed", WAIT_LIMIT)
                    .await?;
                ensure(peer.tool_names().await?.contains(&name), "the new tool is not listed")
            })
            .await;
    }
}

async fn load(report: &mut Report, peer: &Peer, settings: &Settings) {
    report
        .check("cancellation reaches the server, the rest goes on", async {
            let before = peer.counted("cancelled").await?;
            let handle = peer.begin("slow_once", json!({"ms": 60_000})).await?;
            sleep(ms(150)).await;
            handle.cancel(Some("enough".into())).await.map_err(why)?;
            if settings.has("cancel") {
                let arrived = || async { Ok(peer.counted("cancelled").await? > before) };
                until(arrived, "the server's cancellation", Duration::from_secs(3)).await?;
            }
            equal(peer.text("echo", json!({"text": "alive"})).await?, "alive".into(), "text")
        })
        .await;
    report
        .check("64 calls at once, each its own answer", async {
            let values: Vec<String> = (0..64).map(|i| format!("call {i} {}", ".".repeat(i))).collect();
            equal(
                texts(peer, values.iter().map(|value| ("echo", json!({"text": value})))).await?,
                values.clone(),
                "texts",
            )
        })
        .await;
    report
        .check("a fast call does not wait for slow ones", async {
            let mut slow = pin!(texts(peer, (0..8).map(|_| ("slow", json!({"ms": 800})))));
            let fast = async {
                sleep(ms(50)).await;
                let start = Instant::now();
                peer.text("echo", json!({"text": "fast"})).await?;
                Ok::<_, String>(start.elapsed())
            };
            let took = tokio::select! {
                outcome = &mut slow => return Err(format!("the slow ones came first: {outcome:?}")),
                took = fast => took?,
            };
            slow.await?;
            ensure(took < ms(500), format!("took {took:?}"))
        })
        .await;
    let long = Duration::from_secs(20);
    report
        .check_within("5 MB there and back", long, async {
            let value = "é✓x\\\"".repeat(MIB / 2); // 5 MiB as JSON
            ensure(peer.text("echo", json!({"text": value})).await? == value, "another text came back")
        })
        .await;
    report
        .check_within("8 MB answer", long, async {
            equal(peer.text("big", json!({"bytes": 8 * MIB})).await?.len(), 8 * MIB, "length")
        })
        .await;
}

/// A call that is under way while something happens to the server 250 ms later.
async fn while_cut<T>(peer: &Peer, call: impl Future<Output = T>) -> Fallible<T> {
    let cut = async {
        sleep(ms(250)).await;
        let cut = peer.control("cut").await?;
        ensure(cut["cut"].as_u64() > Some(0), "nothing was cut")
    };
    let (outcome, cut) = tokio::join!(call, cut);
    cut.map(|()| outcome)
}

async fn cuts(report: &mut Report, peer: &Peer, settings: &Settings) {
    let arguments = || json!({"ms": 600, "steps": 2});
    report
        .check("answer stream cut: a call that may be repeated is answered", async {
            equal(while_cut(peer, peer.text("slow", arguments())).await??, "slept 600".into(), "text")
        })
        .await;
    report
        .check("answer stream cut: no call is left without an answer", async {
            let answer = tokio::time::timeout(ms(6_250), while_cut(peer, peer.text("slow_once", arguments())));
            let answer = answer.await.map_err(|_| "answer or error: not within 6 s")??;
            if settings.has("resume") {
                equal(answer?, "slept 600".into(), "a resumable stream gives the result")?;
            }
            let alive =
                || async { Ok(peer.text("echo", json!({"text": "alive"})).await.is_ok_and(|text| text == "alive")) };
            until(alive, "the next call", WAIT_LIMIT).await
        })
        .await;
}

async fn sessions(report: &mut Report, peer: &Peer, settings: &Settings) {
    report
        .check("session forgotten: 16 calls at once heal it once", async {
            let before = peer.counted("initialized").await?;
            let mark = peer.host.mark();
            let forgotten = peer.control("forget-sessions").await?;
            ensure(forgotten["forgotten"].as_u64() > Some(0), "there was no session")?;
            let values: Vec<String> = (0..16).map(|i| format!("after {i}")).collect();
            equal(
                texts(peer, values.iter().map(|value| ("echo", json!({"text": value})))).await?,
                values.clone(),
                "texts",
            )?;
            equal(peer.counted("initialized").await? - before, 1, "new sessions")?;
            if settings.has("list-changed") {
                let changed = || async { Ok(peer.host.since(mark).contains(&Seen::ToolsChanged)) };
                until(changed, "list_changed after the new session", WAIT_LIMIT).await?;
            }
            Ok(())
        })
        .await;
    report
        .check("restart in the middle: 16 calls in flight are answered", async {
            let restart = async {
                sleep(ms(200)).await;
                peer.control("forget-sessions").await?;
                peer.control("cut").await
            };
            let (answers, restarted) =
                tokio::join!(texts(peer, (0..16).map(|_| ("slow", json!({"ms": 700})))), restart);
            restarted?;
            equal(answers?, vec!["slept 700".to_owned(); 16], "texts")
        })
        .await;
    if settings.has("subscribe") {
        report
            .check("the subscription is kept over a new session", async {
                let mark = peer.host.mark();
                let update = Seen::Updated(COUNTER.into());
                let touched = || async {
                    peer.text("touch", json!({})).await?;
                    sleep(ms(50)).await;
                    Ok(peer.host.since(mark).contains(&update))
                };
                until(touched, "the update", WAIT_LIMIT).await
            })
            .await;
    }
    if settings.has("log") {
        report
            .check("the log level is kept over a new session", async {
                let mark = peer.host.mark();
                log(peer, "info", "still quiet").await?;
                log(peer, "error", "still loud").await?;
                until(|| async { Ok(logged(peer, mark, "still loud")) }, "the log line", WAIT_LIMIT).await?;
                sleep(ms(100)).await;
                ensure(!logged(peer, mark, "still quiet"), "a line below the level came")
            })
            .await;
    }
}

async fn close(report: &mut Report, peer: Peer, settings: &Settings) {
    let deleted = peer.counted("deleted").await.unwrap_or_default();
    let Peer { mut service, control, http, .. } = peer;
    report
        .check("close: the bridge ends", async {
            let start = Instant::now();
            service.close().await.map_err(why)?;
            ensure(start.elapsed() < CLOSE_LIMIT, format!("took {:?}", start.elapsed()))
        })
        .await;
    if settings.bridged && settings.has("delete") {
        report
            .check("close: the session is ended at the server", async {
                let url = control.join("/control/state").map_err(why)?;
                let ended = || async {
                    let state: Value = http.get(url.clone()).send().await.map_err(why)?.json().await.map_err(why)?;
                    Ok(state["deleted"].as_u64() > Some(deleted))
                };
                until(ended, "the end of the session", Duration::from_secs(3)).await
            })
            .await;
    }
}
