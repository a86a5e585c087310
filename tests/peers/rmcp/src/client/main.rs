//! rmcp as the client: launches the bridge as a child process and does what `clients/scenario.mjs` does, with the same environment and
//! output. ERA (legacy, modern, auto) chooses how it speaks. PEER_DIRECT=1: rmcp's own HTTP client, without a bridge.

// Sampling, roots and logging are deprecated by 2026-07-28, and are what is tested here.
#![allow(deprecated)]

mod host;
mod scenario;

use std::io::Write as _;
use std::time::{Duration, Instant};

use host::{Host, Seen};
use reqwest::{Client, Url};
use rmcp::model::*;
use rmcp::service::{PeerRequestOptions, RunningService};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient, ServiceError};
use serde_json::{Value, json};
use tokio::process::Command;

const CHECK_LIMIT: Duration = Duration::from_secs(10);
const WAIT_LIMIT: Duration = Duration::from_secs(5);
type Fallible<T = ()> = Result<T, String>;

/// What the runner says.
struct Settings {
    url: String,
    era: String,
    modern: bool,
    bridged: bool,
    name: String,
    features: Vec<String>,
    control: Url,
}

impl Settings {
    fn read() -> Fallible<Self> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let url = std::env::args().nth(1).ok_or("usage: rmcp-client URL")?;
        let era = variable("ERA");
        Ok(Self {
            // A client that knows both eras finds out which one it meets.
            modern: era == "modern" || (era == "auto" && variable("PEER_ERA") == "modern"),
            bridged: variable("PEER_DIRECT") != "1",
            name: variable("PEER_NAME"),
            features: serde_json::from_str(&variable("PEER_FEATURES")).unwrap_or_default(),
            control: Url::parse(&std::env::var("PEER_CONTROL").unwrap_or_else(|_| url.clone())).map_err(why)?,
            url,
            era,
        })
    }

    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }
}

/// The client, connected.
struct Peer {
    service: RunningService<RoleClient, Host>,
    host: Host,
    modern: bool,
    control: Url,
    http: Client,
    /// What a session is told once, a modern client says on each request.
    level: std::sync::Mutex<Option<LoggingLevel>>,
    /// The task that reads the open `subscriptions/listen`.
    listening: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Peer {
    async fn connect(settings: &Settings) -> Fallible<Self> {
        let host = Host::default();
        let modern = || vec![ProtocolVersion::V_2026_07_28];
        let lifecycle = match settings.era.as_str() {
            "modern" => ClientLifecycleMode::Discover { preferred_versions: modern() },
            "auto" => ClientLifecycleMode::Auto {
                preferred_versions: modern(),
                legacy_version: Some(ProtocolVersion::V_2025_11_25),
            },
            _ => ClientLifecycleMode::Initialize,
        };
        let service = if settings.bridged {
            let variable = |name: &str| std::env::var(name).unwrap_or_default();
            let (program, arguments) = (variable("DRAWBRIDGE"), variable("DRAWBRIDGE_ARGS"));
            let mut words = program.split(' ').filter(|word| !word.is_empty());
            let mut command = Command::new(words.next().ok_or("DRAWBRIDGE names no command")?);
            command.args(words).arg(&settings.url).args(arguments.split(' ').filter(|word| !word.is_empty()));
            let child = TokioChildProcess::new(command).map_err(why)?;
            host.clone().serve_with_lifecycle(child, lifecycle).await.map_err(why)?
        } else {
            let transport = StreamableHttpClientTransport::from_uri(settings.url.clone());
            host.clone().serve_with_lifecycle(transport, lifecycle).await.map_err(why)?
        };
        let peer = Self {
            service,
            host,
            modern: settings.modern,
            control: settings.control.clone(),
            http: Client::builder().no_proxy().build().map_err(why)?,
            level: Default::default(),
            listening: Default::default(),
        };
        if peer.modern {
            peer.listen(None).await?;
        }
        Ok(peer)
    }

    fn request(&self, name: &str, arguments: &Value) -> CallToolRequestParams {
        let mut params = CallToolRequestParams::new(name.to_owned());
        params.arguments = arguments.as_object().cloned();
        if let Some(level) = *self.level.lock().unwrap() {
            let mut meta = RequestMetaObject::new();
            meta.set_log_level(level);
            params.meta = Some(meta);
        }
        params
    }

    async fn call(&self, name: &str, arguments: Value) -> Result<CallToolResult, ServiceError> {
        self.service.call_tool(self.request(name, &arguments)).await
    }

    async fn text(&self, name: &str, arguments: Value) -> Fallible<String> {
        text(&self.call(name, arguments).await.map_err(why)?)
    }

    /// A call that is under way, to be cancelled or followed by its progress token.
    async fn begin(&self, name: &str, arguments: Value) -> Fallible<rmcp::service::RequestHandle<RoleClient>> {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(self.request(name, &arguments)));
        self.service.send_cancellable_request(request, PeerRequestOptions::no_options()).await.map_err(why)
    }

    async fn tool_names(&self) -> Fallible<Vec<String>> {
        let tools = self.service.list_tools(None).await.map_err(why)?.tools;
        Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    async fn set_level(&self, level: LoggingLevel) -> Fallible {
        if self.modern {
            *self.level.lock().unwrap() = Some(level);
            return Ok(());
        }
        self.service.set_level(SetLevelRequestParams::new(level)).await.map_err(why)
    }

    async fn subscribe(&self, uri: &str) -> Fallible {
        match self.modern {
            true => self.listen(Some(uri)).await,
            false => self.service.subscribe(SubscribeRequestParams::new(uri)).await.map_err(why),
        }
    }

    async fn unsubscribe(&self, uri: &str) -> Fallible {
        match self.modern {
            true => self.listen(None).await,
            false => self.service.unsubscribe(UnsubscribeRequestParams::new(uri)).await.map_err(why),
        }
    }

    /// Ends the subscription that is open, and opens another one.
    async fn listen(&self, uri: Option<&str>) -> Fallible {
        let before = self.listening.lock().unwrap().take();
        if let Some(before) = before {
            // Dropping it says so to the server.
            before.abort();
            let _ = before.await;
        }
        let mut filter = SubscriptionFilter::builder().tools_list_changed();
        if let Some(uri) = uri {
            filter = filter.resource_subscription(uri);
        }
        let mut subscription = self.service.listen(filter.build()).await.map_err(why)?;
        let host = self.host.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(notification)) = subscription.next().await {
                match notification {
                    ServerNotification::ToolListChangedNotification(_) => host.saw(Seen::ToolsChanged),
                    ServerNotification::ResourceUpdatedNotification(update) => {
                        host.saw(Seen::Updated(update.params.uri))
                    }
                    _ => {}
                }
            }
        });
        *self.listening.lock().unwrap() = Some(task);
        Ok(())
    }

    /// POST to a control path of the server; `state` is read with GET.
    async fn control(&self, path: &str) -> Fallible<Value> {
        let url = self.control.join(&format!("/control/{path}")).map_err(why)?;
        let request = if path == "state" { self.http.get(url) } else { self.http.post(url) };
        request.send().await.map_err(why)?.json().await.map_err(why)
    }

    async fn counted(&self, name: &str) -> Fallible<u64> {
        Ok(self.control("state").await?[name].as_u64().unwrap_or_default())
    }
}

/// The lines that the runner reads.
#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    async fn check(&mut self, name: &str, body: impl Future<Output = Fallible>) -> bool {
        self.check_within(name, CHECK_LIMIT, body).await
    }

    async fn check_within(&mut self, name: &str, limit: Duration, body: impl Future<Output = Fallible>) -> bool {
        let start = Instant::now();
        let outcome =
            tokio::time::timeout(limit, body).await.unwrap_or_else(|_| Err(format!("no outcome within {limit:?}")));
        match &outcome {
            Ok(()) => println!("ok {name} ({} ms)", start.elapsed().as_millis()),
            Err(error) => {
                self.failed += 1;
                let error: String = error.replace('\n', " ").chars().take(500).collect();
                println!("not ok {name}: {error}");
            }
        }
        let _ = std::io::stdout().flush();
        outcome.is_ok()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let failed = match Settings::read() {
        Ok(settings) => scenario::run(&settings).await,
        Err(error) => {
            println!("not ok {error}");
            1
        }
    };
    std::process::exit(i32::from(failed > 0));
}

fn why(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn text(result: &CallToolResult) -> Fallible<String> {
    let content = result.content.first().and_then(|content| content.as_text());
    content.map(|content| content.text.clone()).ok_or_else(|| format!("no text: {}", json!(result)))
}
