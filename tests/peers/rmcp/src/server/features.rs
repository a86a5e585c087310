//! What every server of this suite offers (`servers/features1.mjs`, `servers/features2.mjs`), with rmcp.
//!
//! rmcp serves both eras, but leaves two things to the handler: a question to the client is a request in the older era and an
//! `input_required` result in 2026-07-28; a change goes to the session that subscribed, or to the open `subscriptions/listen`.

// Sampling, roots and logging are deprecated by 2026-07-28, and are what is tested here.
#![allow(deprecated)]

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::*;
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::broadcast;

const COUNTER: &str = "peer://counter";
/// The error of 2025-11-25 that sends the user to a page first.
const URL_ELICITATION_REQUIRED: ErrorCode = ErrorCode(-32042);
/// When the page of `must_visit` counts as visited.
const VISIT: Duration = Duration::from_millis(300);
/// Changes that a slow subscription may fall behind.
const CHANGES_KEPT: usize = 256;

#[derive(Clone, Copy, PartialEq)]
pub enum Era {
    Dual,
    Legacy,
    Modern,
}

#[derive(Clone)]
enum Change {
    Tools,
    Counter,
}

/// What outlives a request and a session.
pub struct World {
    name: String,
    era: Era,
    counter: AtomicU64,
    grown: Mutex<BTreeSet<String>>,
    /// Calls that ended without an answer.
    pub cancelled: AtomicU64,
    changes: broadcast::Sender<Change>,
}

impl World {
    pub fn new(name: String, era: Era) -> Self {
        let changes = broadcast::channel(CHANGES_KEPT).0;
        Self { name, era, counter: AtomicU64::new(0), grown: Mutex::default(), cancelled: AtomicU64::new(0), changes }
    }
}

/// One for each session (older era) or request (2026-07-28).
pub struct Features {
    world: Arc<World>,
    level: Mutex<LoggingLevel>,
    subscribed: Mutex<BTreeSet<String>>,
    visited: Arc<AtomicBool>,
}

impl Features {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, level: Mutex::new(LoggingLevel::Debug), subscribed: Mutex::default(), visited: Arc::default() }
    }

    fn tools(&self) -> Vec<Tool> {
        let schema = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
        let string = || json!({"type": "string"});
        let number = || json!({"type": "number"});
        let slow = || schema(json!({"ms": number(), "steps": number()}), &["ms"]);
        // Safe to repeat: a bridge may send such a call again on a new connection.
        let safe = |mut tool: Value| {
            tool["annotations"] = json!({"readOnlyHint": true, "idempotentHint": true});
            tool
        };
        let tool = |name: &str, input: Value| json!({"name": name, "description": name, "inputSchema": input});
        let mut add = tool("add", schema(json!({"a": number(), "b": number()}), &["a", "b"]));
        add["outputSchema"] = schema(json!({"sum": number()}), &["sum"]);
        let mut tools = vec![
            safe(tool("echo", schema(json!({"text": string()}), &["text"]))),
            safe(add),
            safe(tool("slow", slow())),
            tool("slow_once", slow()),
            tool("ask", schema(json!({"message": string()}), &["message"])),
            tool("visit", schema(json!({}), &[])),
            tool("must_visit", schema(json!({}), &[])),
            tool("sample", schema(json!({"prompt": string()}), &["prompt"])),
            tool("roots", schema(json!({}), &[])),
            tool("log", schema(json!({"level": string(), "text": string()}), &["level", "text"])),
            safe(tool("big", schema(json!({"bytes": number()}), &["bytes"]))),
            tool("fail", schema(json!({}), &[])),
            tool("touch", schema(json!({}), &[])),
            tool("grow", schema(json!({"name": string()}), &["name"])),
        ];
        tools.extend(self.world.grown.lock().unwrap().iter().map(|name| tool(name, schema(json!({}), &[]))));
        serde_json::from_value(Value::Array(tools)).expect("tools")
    }

    /// Asks the client, in the way of its era; `Err` is what to answer until it has said something. An answer must bring back the state
    /// that went with its question.
    async fn question(
        &self,
        request: InputRequest,
        answers: Option<&InputResponses>,
        state: Option<&str>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Value, Result<CallToolResponse, ErrorData>> {
        const KEY: &str = "question";
        if modern(context) {
            let asked = json!(request).to_string();
            return match answers.and_then(|answers| answers.get(KEY)) {
                Some(answer) if state == Some(&asked) => Ok(answer.clone()),
                Some(_) => Err(Err(ErrorData::invalid_params(format!("requestState is {state:?}, not {asked}"), None))),
                None => Err(Ok(InputRequiredResult::new(Some([(KEY.to_owned(), request)].into()), Some(asked)).into())),
            };
        }
        let peer = &context.peer;
        let answer = match request {
            InputRequest::CreateMessage(request) => {
                peer.create_message(request.params).await.map(|answer| json!(answer))
            }
            InputRequest::Elicitation(request) => {
                peer.create_elicitation(request.params).await.map(|answer| json!(answer))
            }
            _ => peer.list_roots().await.map(|answer| json!(answer)),
        };
        answer.map_err(|error| Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into()))
    }

    async fn slow(
        &self,
        arguments: &Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        /// Counts a call that is dropped, too: rmcp gives up a request whose client has gone.
        struct Unanswered<'a>(&'a AtomicU64, bool);
        impl Drop for Unanswered<'_> {
            fn drop(&mut self) {
                if self.1 {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let mut unanswered = Unanswered(&self.world.cancelled, true);
        let (ms, steps) = (number(arguments, "ms"), number(arguments, "steps"));
        let pause = Duration::from_millis(ms) / u32::try_from(steps + 1).unwrap_or(1);
        for step in 1..=steps + 1 {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
            }
            if let Some(token) = context.meta.get_progress_token().filter(|_| step <= steps) {
                let progress = ProgressNotificationParam::new(token, step as f64)
                    .with_total(steps as f64)
                    .with_message(format!("step {step}"));
                // Nobody may be listening.
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        unanswered.1 = false;
        Ok(text(format!("slept {ms}")))
    }

    async fn changed(&self, change: Change, context: &RequestContext<RoleServer>) {
        let _ = self.world.changes.send(change.clone());
        if modern(context) {
            return;
        }
        let _ = match change {
            Change::Tools => context.peer.notify_tool_list_changed().await,
            Change::Counter if self.subscribed.lock().unwrap().contains(COUNTER) => {
                context.peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(COUNTER)).await
            }
            Change::Counter => Ok(()),
        };
    }
}

impl ServerHandler for Features {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({
            "logging": {}, "tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true, "listChanged": true},
        });
        ServerConfig::new(serde_json::from_value(capabilities).expect("capabilities"))
            .with_server_info(Implementation::new(self.world.name.clone(), "1.0.0"))
            .with_instructions(format!("peer {}", self.world.name))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(match self.world.era {
            Era::Dual => ProtocolVersion::KNOWN_VERSIONS,
            Era::Legacy => ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25),
            Era::Modern => &[ProtocolVersion::V_2026_07_28],
        })
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let (answers, state) = (request.input_responses.as_ref(), request.request_state.as_deref());
        let string = |name: &str| arguments[name].as_str().unwrap_or_default();
        // The client's answer to a question, or what to return instead.
        macro_rules! ask {
            ($method:literal, $params:expr) => {{
                let asked = serde_json::from_value(json!({"method": $method, "params": $params})).expect("a question");
                match self.question(asked, answers, state, &context).await {
                    Ok(answer) => answer,
                    Err(instead) => return instead,
                }
            }};
        }
        let at = |answer: &Value, pointer: &str| {
            answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let visit = |id: Option<&str>| {
            let mut params = json!({"mode": "url", "url": "https://example.com/visit", "message": "Please look"});
            if let Some(id) = id {
                params["elicitationId"] = json!(id);
            }
            params
        };
        Ok(match request.name.as_ref() {
            "echo" => text(string("text")),
            "add" => {
                let sum = arguments["a"].as_f64().unwrap_or_default() + arguments["b"].as_f64().unwrap_or_default();
                CallToolResult::structured(json!({"sum": sum as i64})).into()
            }
            "slow" | "slow_once" => return self.slow(&arguments, &context).await,
            "ask" => {
                let schema =
                    json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
                let answer = ask!(
                    "elicitation/create",
                    json!({"mode": "form", "message": string("message"), "requestedSchema": schema})
                );
                text(format!("{} {}", at(&answer, "/action"), at(&answer, "/content/name")).trim())
            }
            "visit" => text(at(&ask!("elicitation/create", visit((!modern(&context)).then_some("visit"))), "/action")),
            // 2026-07-28 has no such error: there it asks.
            "must_visit" if modern(&context) => {
                ask!("elicitation/create", visit(None));
                text("visited")
            }
            "must_visit" if self.visited.load(Ordering::Relaxed) => text("visited"),
            "must_visit" => {
                const ID: &str = "must_visit";
                let (visited, peer) = (self.visited.clone(), context.peer.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(VISIT).await;
                    visited.store(true, Ordering::Relaxed);
                    let complete = CustomNotification::new(
                        "notifications/elicitation/complete",
                        Some(json!({"elicitationId": ID})),
                    );
                    let _ = peer.send_notification(ServerNotification::CustomNotification(complete)).await;
                });
                return Err(ErrorData::new(
                    URL_ELICITATION_REQUIRED,
                    "a page must be visited",
                    Some(json!({"elicitations": [visit(Some(ID))]})),
                ));
            }
            "sample" => {
                let message = json!({"role": "user", "content": {"type": "text", "text": string("prompt")}});
                text(at(
                    &ask!("sampling/createMessage", json!({"messages": [message], "maxTokens": 10})),
                    "/content/text",
                ))
            }
            "roots" => {
                let answer = ask!("roots/list", json!({}));
                let roots = answer["roots"].as_array().cloned().unwrap_or_default();
                text(roots.iter().map(|root| at(root, "/uri")).collect::<Vec<_>>().join(" "))
            }
            "log" => {
                let level: LoggingLevel = serde_json::from_value(arguments["level"].clone())
                    .map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
                // 2026-07-28: nothing is logged to a request that does not ask for it.
                let least = if modern(&context) { context.meta.log_level() } else { Some(*self.level.lock().unwrap()) };
                if least.is_some_and(|least| level as u8 >= least as u8) {
                    let line = LoggingMessageNotificationParam::new(level, json!(string("text"))).with_logger("peer");
                    let _ = context.peer.notify_logging_message(line).await;
                }
                text("logged")
            }
            "big" => text("x".repeat(usize::try_from(number(&arguments, "bytes")).unwrap_or_default())),
            "fail" => CallToolResult::error(vec![ContentBlock::text("failed as asked")]).into(),
            "touch" => {
                let count = self.world.counter.fetch_add(1, Ordering::Relaxed) + 1;
                self.changed(Change::Counter, &context).await;
                text(count.to_string())
            }
            "grow" => {
                self.world.grown.lock().unwrap().insert(string("name").to_owned());
                self.changed(Change::Tools, &context).await;
                text("grown")
            }
            other if self.world.grown.lock().unwrap().contains(other) => text(other),
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        })
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new(COUNTER, "counter")]))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(vec![ResourceTemplate::new("peer://item/{id}", "item")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri;
        let content = match uri.strip_prefix("peer://item/") {
            _ if uri == COUNTER => self.world.counter.load(Ordering::Relaxed).to_string(),
            Some(id) => format!("item {id}"),
            None => return Err(ErrorData::resource_not_found(format!("no resource {uri}"), None)),
        };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(content, uri)]).into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let name = PromptArgument::new("name").with_required(true);
        Ok(ListPromptsResult::with_all_items(vec![Prompt::new("greet", Some("Greets"), Some(vec![name]))]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != "greet" {
            return Err(ErrorData::invalid_params(format!("no prompt {}", request.name), None));
        }
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let hello = format!("Hello, {}", arguments["name"].as_str().unwrap_or_default());
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, hello)]).into())
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        *self.level.lock().unwrap() = request.level;
        Ok(())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.subscribed.lock().unwrap().insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscribed.lock().unwrap().remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.world.changes.subscribe();
        let accepted = context.accepted().clone();
        let counter = accepted.resource_subscriptions.is_some_and(|uris| uris.iter().any(|uri| uri == COUNTER));
        loop {
            let change = tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            let sent = match change {
                Ok(Change::Tools) if accepted.tools_list_changed == Some(true) => {
                    context.sink().notify_tool_list_changed().await
                }
                Ok(Change::Counter) if counter => context.sink().notify_resource_updated(COUNTER).await,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => Ok(()),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        }
    }
}

fn modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

fn text(value: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(value)]).into()
}

fn number(arguments: &Value, name: &str) -> u64 {
    arguments[name].as_f64().unwrap_or_default() as u64
}
