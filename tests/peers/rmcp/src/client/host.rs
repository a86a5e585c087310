//! What the client answers when a server asks, and what it is told.

use std::sync::{Arc, Mutex};

use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};

#[derive(Clone, PartialEq)]
pub enum Seen {
    Log(Value),
    Progress(ProgressToken, f64),
    ToolsChanged,
    Updated(String),
}

#[derive(Clone, Default)]
pub struct Host(Arc<Mutex<Vec<Seen>>>);

impl Host {
    pub fn saw(&self, what: Seen) {
        self.0.lock().unwrap().push(what);
    }

    /// How much was seen until now.
    pub fn mark(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What was seen since then.
    pub fn since(&self, mark: usize) -> Vec<Seen> {
        self.0.lock().unwrap()[mark..].to_vec()
    }
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let capabilities =
            json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {"form": {}, "url": {}}});
        ClientConfig::new(
            serde_json::from_value(capabilities).expect("capabilities"),
            Implementation::new("rmcp-client", "1.0.0"),
        )
        .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = ElicitResult::new(ElicitationAction::Accept);
        Ok(match request {
            ElicitRequestParams::FormElicitationParams { message, .. } => {
                answer.with_content(json!({"name": format!("Ada ({message})")}))
            }
            _ => answer,
        })
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = json!(params.messages);
        let prompt = asked.pointer("/0/content/text").and_then(Value::as_str).unwrap_or_default();
        let message = SamplingMessage::assistant_text(format!("model says {prompt}"));
        Ok(CreateMessageResult::new(message, "peer-model".into()))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new("file:///peer/one"), Root::new("file:///peer/two")]))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.saw(Seen::Progress(params.progress_token, params.progress));
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        self.saw(Seen::Log(params.data));
    }

    async fn on_resource_updated(&self, params: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.saw(Seen::Updated(params.uri));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.saw(Seen::ToolsChanged);
    }
}
