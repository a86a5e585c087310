//! The world of a case: an MCP server, its authorization server, a foreign authorization server and somebody who must not be asked. All are
//! honest, but for what the case says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::case::{Case, Run, text_of};
use crate::front::{Front, Tls};
use crate::support::script;
use crate::support::wire::{Reply, Request, Server};

/// The roles, and the names that they have in the public world.
pub const ROLES: [(&str, &str); 4] =
    [("mcp", "mcp.example"), ("as", "as.example"), ("foreign", "foreign.example"), ("other", "other.example")];

/// A header of the user's: for the MCP server alone.
pub const HEADER_SECRET: &str = "h3ader-s3cret-Zx81";
/// The secret of the user's own client: for the token endpoint of its issuer alone.
pub const CLIENT_SECRET: &str = "cl1ent-s3cret-Qq42";
/// Part of every code, token and secret that is given out here.
pub const MARK: &str = "s3cret-";

/// A sign-in as the browser saw it.
#[derive(Debug, Clone)]
struct Tab {
    challenge: String,
    redirect_uri: String,
}

#[derive(Default)]
struct State {
    /// What the present run says.
    run: Option<Run>,
    /// Requests by role, method and path.
    counts: HashMap<String, usize>,
    /// By code.
    tabs: HashMap<String, Tab>,
    spent_codes: Vec<String>,
    given: usize,
    /// Access tokens that the MCP server takes.
    valid: Vec<String>,
    refresh: Vec<String>,
    spent: Vec<String>,
    /// Refresh tokens that came twice, by a client that must not.
    reused: usize,
    clients: usize,
    /// Clients and refresh tokens, each with the role that gave it; and what came to another.
    given_by: HashMap<String, &'static str>,
    misplaced: Vec<String>,
    /// Code verifiers that were seen.
    verifiers: Vec<String>,
}

/// All of it.
pub struct World {
    pub servers: HashMap<&'static str, Server>,
    pub front: Option<Front>,
    /// A port for the callback that no other case has.
    pub free_port: u16,
    origins: HashMap<&'static str, String>,
    state: Arc<Mutex<State>>,
}

impl World {
    pub fn new(case: &Case) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let origins: Arc<Mutex<HashMap<&'static str, String>>> = Arc::default();
        let mut servers = HashMap::new();
        for (role, _) in ROLES {
            let (state, origins) = (Arc::clone(&state), Arc::clone(&origins));
            let server = Server::start(move |request| {
                let origins = origins.lock().unwrap().clone();
                answer(role, request, &origins, &state)
            });
            servers.insert(role, server);
        }
        let front = (!case.loopback).then(|| {
            let backends: Vec<_> = ROLES
                .iter()
                .map(|(role, name)| (*name, servers[role].port(), if *role == "as" { case.tls } else { Tls::Good }))
                .collect();
            Front::start(&backends)
        });
        for (role, name) in ROLES {
            let origin = if case.loopback { servers[role].origin() } else { format!("https://{name}") };
            origins.lock().unwrap().insert(role, origin);
        }
        let origins = origins.lock().unwrap().clone();
        Self { servers, front, free_port: free_port(), origins, state }
    }

    pub fn begin(&self, run: &Run) {
        let mut state = self.state.lock().unwrap();
        state.run = Some(run.clone());
        if run.get("revoked").is_some() {
            state.valid.clear();
        }
    }

    pub fn fill(&self, text: &str) -> String {
        fill(text, &self.origins)
    }

    pub fn origin(&self, role: &str) -> &str {
        &self.origins[role]
    }

    /// A person signs in at the page that the URL leads to: gives the code.
    pub fn sign_in(&self, url: &url::Url) -> String {
        let value = |name: &str| {
            url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let mut state = self.state.lock().unwrap();
        state.given += 1;
        let code = format!("c0de-{MARK}{:04}", state.given);
        let tab = Tab { challenge: value("code_challenge"), redirect_uri: value("redirect_uri") };
        state.tabs.insert(code.clone(), tab);
        code
    }

    pub fn verifiers(&self) -> Vec<String> {
        self.state.lock().unwrap().verifiers.clone()
    }

    /// Redemptions of a refresh token that had been redeemed before.
    pub fn reused(&self) -> usize {
        self.state.lock().unwrap().reused
    }

    /// Clients and refresh tokens that another authorization server than their own saw.
    pub fn misplaced(&self) -> Vec<String> {
        self.state.lock().unwrap().misplaced.clone()
    }

    /// Requests of a kind, as `as POST /token`.
    pub fn count(&self, key: &str) -> usize {
        self.state.lock().unwrap().counts.get(key).copied().unwrap_or(0)
    }
}

/// Below the range from which systems take ports for connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 24_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 4_000;
        if ["127.0.0.1", "::1"].iter().all(|host| std::net::TcpListener::bind((*host, port)).is_ok()) {
            return port;
        }
    }
}

fn fill(text: &str, origins: &HashMap<&'static str, String>) -> String {
    let mut out = text.to_owned();
    for (role, origin) in origins {
        out = out.replace(&format!("{{{role}}}"), origin);
        let port = url::Url::parse(origin).ok().and_then(|url| url.port_or_known_default()).unwrap_or_default();
        out = out.replace(&format!("{{{role}-port}}"), &port.to_string());
    }
    out
}

fn answer(
    role: &'static str,
    request: &Arc<Request>,
    origins: &HashMap<&'static str, String>,
    state: &Arc<Mutex<State>>,
) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    let key = format!("{role} {} {path}", request.method);
    let mut state = state.lock().unwrap();
    let nth = {
        let count = state.counts.entry(key.clone()).or_default();
        *count += 1;
        *count
    };
    let run = state.run.clone().expect("a run");
    if key == "as POST /token" || key == "foreign POST /token" {
        let form = form(request);
        state.verifiers.extend(form.get("code_verifier").cloned());
        let basic = basic(request).and_then(|pair| pair.split_once(':').map(|(id, _)| id.to_owned()));
        let ids = form.get("client_id").cloned().into_iter().chain(basic).chain(form.get("refresh_token").cloned());
        for id in ids {
            // The user's own client is whose it was shown to first.
            if *state.given_by.entry(id.clone()).or_insert(role) != role {
                state.misplaced.push(format!("{id} at {role}"));
            }
        }
    }
    for scripted in run.list("replies") {
        let fits = scripted["at"] == key.as_str() && scripted.get("nth").is_none_or(|wanted| *wanted == nth);
        if fits {
            return reply(scripted, origins);
        }
    }
    match (role, request.method.as_str(), path) {
        ("mcp", "POST", "/mcp") => mcp(request, &run, origins, &state),
        ("mcp", "GET" | "DELETE", "/mcp") => Reply::status(405),
        ("mcp", "GET", "/.well-known/oauth-protected-resource/mcp") => {
            let honest = json!({
                "resource": format!("{}/mcp", origins["mcp"]),
                "authorization_servers": [origins["as"]],
                "scopes_supported": ["read"],
            });
            document(&honest, run.get("resource"), origins)
        }
        ("as" | "foreign", "GET", "/.well-known/oauth-authorization-server") => {
            let own = &origins[role];
            let honest = json!({
                "issuer": own,
                "authorization_endpoint": format!("{own}/authorize"),
                "token_endpoint": format!("{own}/token"),
                "registration_endpoint": format!("{own}/register"),
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "authorization_response_iss_parameter_supported": true,
            });
            document(&honest, run.get("metadata").filter(|_| role == "as"), origins)
        }
        ("as" | "foreign", "POST", "/register") => {
            state.clients += 1;
            let id = format!("client-{}", state.clients);
            state.given_by.insert(id.clone(), role);
            Reply::json(201, json!({"client_id": id}).to_string())
        }
        ("as" | "foreign", "POST", "/token") => token(role, request, &run, &mut state),
        _ => Reply::status(404),
    }
}

/// The honest document with the case's members over it; `null` takes one out.
fn document(honest: &Value, over: Option<&Value>, origins: &HashMap<&'static str, String>) -> Reply {
    let mut members: Map<String, Value> = honest.as_object().expect("an object").clone();
    for (name, value) in over.and_then(Value::as_object).into_iter().flatten() {
        if value.is_null() {
            members.remove(name);
            continue;
        }
        // A text of pieces, to be long.
        let pieces = value.as_array().is_some_and(|list| list.iter().any(Value::is_array));
        let value = if pieces { Value::from(text_of(value)) } else { value.clone() };
        members.insert(name.clone(), value);
    }
    Reply::json(200, fill(&Value::Object(members).to_string(), origins))
}

fn reply(scripted: &Value, origins: &HashMap<&'static str, String>) -> Reply {
    if let Some(lines) = scripted.get("script") {
        let lines: Vec<&str> = lines.as_array().expect("lines").iter().map(|line| line.as_str().unwrap()).collect();
        let text = fill(&lines.join("\n"), origins);
        let whole = format!("row 1\non x\n{text}\nexpect 1 answer\n");
        let case = script::Case::parse("script", &whole);
        return script::reply(&case.replies[0].pieces, "1", "");
    }
    let status = u16::try_from(scripted["status"].as_u64().unwrap_or(200)).unwrap();
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in scripted.get("headers").and_then(Value::as_object).into_iter().flatten() {
        headers.push((name.clone(), fill(&text_of(value), origins)));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let body = scripted.get("body").map(text_of).unwrap_or_default();
    Reply::response(status, &headers, fill(&body, origins))
}

fn mcp(request: &Request, run: &Run, origins: &HashMap<&'static str, String>, state: &State) -> Reply {
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if !bearer.is_some_and(|token| state.valid.iter().any(|valid| valid == token)) {
        let honest = "Bearer resource_metadata=\"{mcp}/.well-known/oauth-protected-resource/mcp\", scope=\"read\"";
        let challenge = fill(&run.get("challenge").map_or(honest.to_owned(), text_of), origins);
        return Reply::response(401, &[("WWW-Authenticate", &challenge)], "{}");
    }
    let message = request.json();
    let id = &message["id"];
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => {
            let arguments = &message["params"]["arguments"];
            json!({"content": [{"type": "text", "text": "echo"}], "structuredContent": arguments})
        }
        _ if id.is_null() => return Reply::status(202),
        _ => json!({}),
    };
    Reply::json(200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

/// Client id and secret of a header (RFC 6749 section 2.3.1).
pub fn basic(request: &Request) -> Option<String> {
    let text = request.header("authorization")?.strip_prefix("Basic ")?;
    Some(String::from_utf8_lossy(&STANDARD.decode(text).unwrap_or_default()).into_owned())
}

fn form(request: &Request) -> HashMap<String, String> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

fn token(role: &'static str, request: &Request, run: &Run, state: &mut State) -> Reply {
    let form = form(request);
    let get = |name: &str| form.get(name).cloned().unwrap_or_default();
    let refuse = |error: &str| Reply::json(400, json!({"error": error}).to_string());
    match get("grant_type").as_str() {
        "authorization_code" => {
            let code = get("code");
            let Some(tab) = state.tabs.get(&code).filter(|_| !state.spent_codes.contains(&code)) else {
                return refuse("invalid_grant");
            };
            let hash = ring::digest::digest(&ring::digest::SHA256, get("code_verifier").as_bytes());
            if URL_SAFE_NO_PAD.encode(hash) != tab.challenge || get("redirect_uri") != tab.redirect_uri {
                return refuse("invalid_grant");
            }
            state.spent_codes.push(code);
        }
        "refresh_token" => {
            let old = get("refresh_token");
            if state.spent.contains(&old) {
                // Reuse detection: all tokens of the grant end.
                state.reused += 1;
                state.valid.clear();
                state.refresh.clear();
            }
            if !state.refresh.contains(&old) {
                return refuse("invalid_grant");
            }
            state.refresh.retain(|known| *known != old);
            state.spent.push(old);
        }
        _ => return refuse("unsupported_grant_type"),
    }
    state.given += 1;
    let (access, refresh) = (format!("acce55-{MARK}{:04}", state.given), format!("refre5h-{MARK}{:04}", state.given));
    state.valid.push(access.clone());
    state.refresh.push(refresh.clone());
    state.given_by.insert(refresh.clone(), role);
    let mut body =
        json!({"access_token": access, "token_type": "Bearer", "refresh_token": refresh, "expires_in": 3600});
    if let Some(seconds) = run.get("expires_in") {
        body["expires_in"] = seconds.clone();
    }
    Reply::json(200, body.to_string())
}
