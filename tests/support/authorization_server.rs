//! An authorization server that forgives nothing, and the MCP server that it protects.
//!
//! The authorization server registers clients (RFC 7591), asks for PKCE with S256 and for the resource (RFC 8707), takes a code
//! once, rotates refresh tokens and revokes the whole family when a spent one comes again (RFC 9700 section 4.14.2). It counts
//! what it is asked for, and what is against the rules fails the test. A test replaces or delays single answers by hooks.
//!
//! The MCP server is [`Mcp`], which answers only who has a token: else 401, or 403 where a tool wants a further scope.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::mcp::{Call, Kind, Mcp};
use super::wire::{Reply, Request, Server};

/// The tool that wants the scope of the same name.
pub const STEP_UP_TOOL: &str = "admin";

/// What becomes of a refresh token when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It is spent. Used again, it ends the whole login.
    Strict,
    /// It stays good until its successor, or that one's access token, is used.
    UntilUsed,
    /// It stays.
    None,
}

/// What kind of server it is.
#[derive(Debug, Clone)]
pub struct Rules {
    pub rotation: Rotation,
    /// `expires_in` of access tokens, and how long they are taken.
    pub lifetime: Duration,
    /// Whether it names itself in the callback (RFC 9207).
    pub iss: bool,
    /// How registered clients authenticate.
    pub client_authentication: &'static str,
    /// Whether it registers clients; else the test names one.
    pub registration: bool,
    /// Scopes of the resource; none are published if empty.
    pub scopes: &'static [&'static str],
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            lifetime: Duration::from_secs(3600),
            iss: true,
            client_authentication: "none",
            registration: true,
            scopes: &["read"],
        }
    }
}

/// Its endpoints, for hooks and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At the MCP server (RFC 9728).
    ResourceMetadata,
    /// RFC 8414 and `OpenID` Connect Discovery, whatever was found.
    Metadata,
    Register,
    /// One GET is one tab.
    Authorize,
    Token,
    /// RFC 7009.
    Revoke,
    /// Anything else.
    Other,
}

/// What it saw. All that is bad is in `reused`, `dead` and [`Authority::violations`].
#[derive(Debug, Clone, Default)]
pub struct Counts {
    asked: HashMap<Endpoint, usize>,
    /// Codes that were exchanged.
    pub codes: usize,
    /// Redemptions of each refresh token, by the token.
    pub redemptions: HashMap<String, usize>,
    /// Spent refresh tokens that came again and ended a login.
    pub reused: usize,
    /// The same, where the successor went to a process that the test had killed: nobody could have known it.
    pub lost: usize,
    /// Refresh tokens of ended logins, or unknown ones.
    pub dead: usize,
    /// Tokens that were revoked by their owner.
    pub revocations: usize,
    /// Requests that the MCP server answered with 401.
    pub unauthorized: usize,
}

impl Counts {
    /// Requests to an endpoint.
    pub fn of(&self, endpoint: Endpoint) -> usize {
        self.asked.get(&endpoint).copied().unwrap_or(0)
    }

    /// GETs of the authorization endpoint.
    pub fn tabs(&self) -> usize {
        self.of(Endpoint::Authorize)
    }

    /// Refresh tokens that were redeemed.
    pub fn refreshed(&self) -> usize {
        self.redemptions.values().sum()
    }
}

/// Tokens that are about to go out.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Whether a refresh token was redeemed, else a code.
    pub refresh: bool,
    /// The how manyth answer with tokens, from 1.
    pub n: usize,
    /// The request.
    pub request: Arc<Request>,
}

type Before = Box<dyn Fn(&Request, usize) -> Option<Reply> + Send>;
type After = Box<dyn Fn(&Issued, Reply) -> Reply + Send>;
type Owner = Box<dyn Fn(&Request) -> Option<u32> + Send>;

struct Client {
    redirect_uris: Vec<String>,
    secret: Option<String>,
    method: String,
}

struct Code {
    client: String,
    redirect_uri: String,
    challenge: String,
    scope: String,
    family: usize,
    used: bool,
}

struct RefreshToken {
    family: usize,
    spent: bool,
    /// The one that it was redeemed for.
    successor: Option<String>,
    /// The process that it went to, where the test tells.
    owner: Option<u32>,
    /// It, or the access token beside it, was used.
    used: bool,
}

struct AccessToken {
    family: usize,
    /// The refresh token beside it.
    refresh: String,
    scope: String,
    until: Instant,
}

#[derive(Default)]
struct Family {
    client: String,
    ended: bool,
}

#[derive(Default)]
struct State {
    resource: String,
    deny: bool,
    clients: HashMap<String, Client>,
    codes: HashMap<String, Code>,
    families: Vec<Family>,
    refresh: HashMap<String, RefreshToken>,
    access: HashMap<String, AccessToken>,
    counts: Counts,
    issued: usize,
    /// Scopes of the grants by code, newest last.
    granted: Vec<String>,
    violations: Vec<String>,
    before: Vec<(Endpoint, Before)>,
    after: Vec<After>,
    owner: Option<Owner>,
    killed: HashSet<u32>,
}

struct Shared {
    rules: Mutex<Rules>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> Rules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The authorization server.
pub struct Authority {
    server: Server,
    shared: Arc<Shared>,
    /// What is against the rules fails the test, unless a test provokes it.
    pub strict: bool,
}

impl Deref for Authority {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Authority {
    fn start(rules: Rules) -> Self {
        let shared = Arc::new(Shared { rules: Mutex::new(rules), state: Mutex::default() });
        let for_handler = Arc::clone(&shared);
        let server = Server::start(move |request| handle(&for_handler, request));
        Self { server, shared, strict: true }
    }

    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// What it was sent against the rules.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().violations.clone()
    }

    /// Changes the rules from now on.
    pub fn set(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// From now on the person says no, or yes again.
    pub fn deny(&self, deny: bool) {
        self.shared.state().deny = deny;
    }

    /// Replaces answers of an endpoint; the hook gets the how manyth request it is, from 1.
    pub fn on(&self, endpoint: Endpoint, hook: impl Fn(&Request, usize) -> Option<Reply> + Send + 'static) {
        self.shared.state().before.push((endpoint, Box::new(hook)));
    }

    /// Takes all hooks away.
    pub fn behave(&self) {
        let mut state = self.shared.state();
        state.before.clear();
        state.after.clear();
    }

    /// Changes the answer that brings tokens. They are issued, and a redeemed token is spent, whatever becomes of the answer.
    pub fn on_tokens(&self, hook: impl Fn(&Issued, Reply) -> Reply + Send + 'static) {
        self.shared.state().after.push(Box::new(hook));
    }

    /// Tells which process a request came from.
    pub fn set_owner(&self, owner: impl Fn(&Request) -> Option<u32> + Send + 'static) {
        self.shared.state().owner = Some(Box::new(owner));
    }

    /// To be told of each process that the test kills.
    pub fn killed(&self) -> impl Fn(u32) + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |pid| {
            shared.state().killed.insert(pid);
        }
    }

    /// A client that the user has from elsewhere.
    pub fn add_client(&self, id: &str, secret: Option<&str>, method: &str, redirect_uris: &[&str]) {
        let client = Client {
            redirect_uris: redirect_uris.iter().map(|&uri| uri.to_owned()).collect(),
            secret: secret.map(str::to_owned),
            method: method.to_owned(),
        };
        self.shared.state().clients.insert(id.to_owned(), client);
    }

    /// No access token is taken any more.
    pub fn expire_access_tokens(&self) {
        let now = Instant::now();
        for token in self.shared.state().access.values_mut() {
            token.until = token.until.min(now);
        }
    }

    /// Every login is ended, as an administrator does.
    pub fn end_logins(&self) {
        let mut state = self.shared.state();
        for family in &mut state.families {
            family.ended = true;
        }
    }

    /// Forgets its clients.
    pub fn forget_clients(&self) {
        self.shared.state().clients.clear();
    }

    /// The scopes of the last grant by code.
    pub fn last_scope(&self) -> String {
        self.shared.state().granted.last().cloned().unwrap_or_default()
    }

    /// Requests by endpoint, in order.
    pub fn asked(&self) -> Vec<Endpoint> {
        self.requests().iter().map(|request| endpoint(path(request))).collect()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let violations = self.violations();
        if self.strict && !std::thread::panicking() {
            assert!(violations.is_empty(), "against the rules: {violations:#?}\n{}", self.summary());
        }
    }
}

/// An MCP server behind a sign-in, with its authorization server.
pub struct Protected {
    pub mcp: Mcp,
    pub authority: Authority,
}

impl Protected {
    pub fn start() -> Self {
        Self::with(Kind::default(), Rules::default())
    }

    pub fn with(kind: Kind, rules: Rules) -> Self {
        let authority = Authority::start(rules);
        let mut mcp = Mcp::down(kind);
        let (shared, issuer, origin) = (Arc::clone(&authority.shared), authority.origin(), mcp.origin());
        authority.shared.state().resource = mcp.url();
        mcp.on("*", move |call| guard(&shared, call, &issuer, &origin));
        mcp.go_up();
        Self { mcp, authority }
    }

    pub fn url(&self) -> String {
        self.mcp.url()
    }

    /// Requests to the MCP server with this token.
    pub fn used(&self, access_token: &str) -> usize {
        let field = format!("Bearer {access_token}");
        self.mcp.requests().iter().filter(|request| request.header("authorization") == Some(&field)).count()
    }

    /// Both logs, for a person.
    pub fn summary(&self) -> String {
        format!("MCP\n{}\nAS\n{}", self.mcp.summary(), self.authority.summary())
    }
}

// ---- the protected resource ----

fn guard(shared: &Shared, call: &Call, issuer: &str, origin: &str) -> Option<Reply> {
    let request = call.request;
    let metadata = format!("{origin}/.well-known/oauth-protected-resource/mcp");
    if let Some(place) = path(request).strip_prefix("/.well-known/") {
        if let Some(reply) = count(shared, Endpoint::ResourceMetadata, request) {
            return Some(reply);
        }
        if place != "oauth-protected-resource/mcp" {
            return Some(Reply::status(404));
        }
        let mut document = json!({"resource": shared.state().resource, "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"], "resource_name": "scripted"});
        let scopes = shared.rules().scopes;
        if !scopes.is_empty() {
            document["scopes_supported"] = json!(scopes);
        }
        return Some(Reply::json(200, document.to_string()));
    }
    let challenge = |status, what: &str| {
        shared.state().counts.unauthorized += usize::from(status == 401);
        let field = format!("Bearer {what}resource_metadata=\"{metadata}\"");
        Reply::response(status, &[("WWW-Authenticate", &field), ("Content-Type", "application/json")], "{}")
    };
    let Some(field) = request.header("authorization") else { return Some(challenge(401, "")) };
    let token = field.strip_prefix("Bearer ").unwrap_or_default();
    let Some(scope) = scope_of(shared, token) else {
        return Some(challenge(401, "error=\"invalid_token\", "));
    };
    if call.key == "tools/call" && call.tool() == STEP_UP_TOOL {
        if !scope.split(' ').any(|one| one == STEP_UP_TOOL) {
            return Some(challenge(403, &format!("error=\"insufficient_scope\", scope=\"{STEP_UP_TOOL}\", ")));
        }
        return Some(call.answer(&json!({"content": [], "structuredContent": {"scope": scope}})));
    }
    None
}

/// The scopes of an access token that is good now. Notes that it was used.
fn scope_of(shared: &Shared, access_token: &str) -> Option<String> {
    let mut state = shared.state();
    let token = state.access.get(access_token)?;
    if token.until <= Instant::now() || state.families[token.family].ended {
        return None;
    }
    let (refresh, scope) = (token.refresh.clone(), token.scope.clone());
    if let Some(refresh) = state.refresh.get_mut(&refresh) {
        refresh.used = true;
    }
    Some(scope)
}

// ---- the authorization server ----

fn path(request: &Request) -> &str {
    request.target.split('?').next().unwrap_or_default()
}

fn endpoint(path: &str) -> Endpoint {
    match path {
        "/register" => Endpoint::Register,
        "/authorize" => Endpoint::Authorize,
        "/token" => Endpoint::Token,
        "/revoke" => Endpoint::Revoke,
        path if path.starts_with("/.well-known/") => Endpoint::Metadata,
        _ => Endpoint::Other,
    }
}

/// Counts a request and asks the hooks.
fn count(shared: &Shared, endpoint: Endpoint, request: &Request) -> Option<Reply> {
    let (n, hooks) = {
        let mut state = shared.state();
        let count = state.counts.asked.entry(endpoint).or_default();
        *count += 1;
        (*count, std::mem::take(&mut state.before))
    };
    let reply = hooks.iter().filter(|(on, _)| *on == endpoint).find_map(|(_, hook)| hook(request, n));
    let mut state = shared.state();
    let added = std::mem::replace(&mut state.before, hooks);
    state.before.extend(added);
    reply
}

fn handle(shared: &Shared, request: &Arc<Request>) -> Reply {
    let endpoint = endpoint(path(request));
    if let Some(reply) = count(shared, endpoint, request) {
        return reply;
    }
    let issuer = format!("http://{}", request.header("host").unwrap_or_default());
    match (request.method.as_str(), endpoint) {
        ("GET", Endpoint::Metadata) => metadata(shared, request, &issuer),
        ("POST", Endpoint::Register) => register(shared, request),
        ("GET", Endpoint::Authorize) => authorize(shared, request, &issuer),
        ("POST", Endpoint::Token) => token(shared, request),
        ("POST", Endpoint::Revoke) => revoke(shared, request),
        _ => Reply::status(404),
    }
}

fn metadata(shared: &Shared, request: &Request, issuer: &str) -> Reply {
    if path(request) != "/.well-known/oauth-authorization-server" {
        return Reply::status(404);
    }
    let rules = shared.rules();
    let mut document = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"), "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"], "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": [rules.client_authentication],
        "authorization_response_iss_parameter_supported": rules.iss
    });
    if rules.registration {
        document["registration_endpoint"] = format!("{issuer}/register").into();
    }
    Reply::json(200, document.to_string())
}

fn register(shared: &Shared, request: &Request) -> Reply {
    let wanted = request.json();
    let method = shared.rules().client_authentication;
    let mut state = shared.state();
    let mut wrong = Vec::new();
    if wanted["application_type"] != "native" {
        wrong.push(format!("registration of a client that is not native: {wanted}"));
    }
    if request.header("content-type") != Some("application/json") || request.header("authorization").is_some() {
        wrong.push("registration with wrong headers".to_owned());
    }
    let uris: Vec<String> = wanted["redirect_uris"]
        .as_array()
        .map(|uris| uris.iter().filter_map(|uri| uri.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    if uris.is_empty() {
        wrong.push("registration without redirect URIs".to_owned());
    }
    state.violations.extend(wrong);
    let id = format!("client-{}", state.clients.len() + 1);
    let secret = (method != "none").then(|| format!("secret-of-{id}"));
    let mut answer = wanted;
    answer["client_id"] = id.clone().into();
    answer["token_endpoint_auth_method"] = method.into();
    if let Some(secret) = &secret {
        answer["client_secret"] = secret.clone().into();
        answer["client_secret_expires_at"] = 0.into();
    }
    state.clients.insert(id, Client { redirect_uris: uris, secret, method: method.to_owned() });
    Reply::json(201, answer.to_string())
}

/// Query or form as a map. What comes twice is against RFC 6749 section 3.1.
fn parameters(state: &mut State, text: &[u8]) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for (name, value) in form_urlencoded::parse(text) {
        if all.insert(name.to_string(), value.to_string()).is_some() {
            state.violations.push(format!("the parameter {name} came twice"));
        }
    }
    all
}

fn page(status: u16, text: &str) -> Reply {
    Reply::response(status, &[("Content-Type", "text/html")], format!("<h1>{text}</h1>"))
}

fn authorize(shared: &Shared, request: &Request, issuer: &str) -> Reply {
    let rules = shared.rules();
    let mut state = shared.state();
    let query = request.target.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
    let asked = parameters(&mut state, query.as_bytes());
    let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let (client, redirect_uri) = (of("client_id"), of("redirect_uri"));
    let Some(known) = state.clients.get(&client) else { return page(400, "unknown client") };
    if !known.redirect_uris.contains(&redirect_uri) {
        state.violations.push(format!("the redirect URI {redirect_uri} is not registered"));
        return page(400, "this redirect URI is not registered");
    }
    let mut wrong = Vec::new();
    if of("response_type") != "code" || of("code_challenge_method") != "S256" || of("code_challenge").len() != 43 {
        wrong.push("authorization request without code or PKCE".to_owned());
    }
    // RFC 6749 section 10.10: 128 bits or more.
    if of("state").len() < 22 {
        wrong.push("authorization request with a short state".to_owned());
    }
    if of("resource") != state.resource {
        wrong.push(format!("authorization request for the resource {:?}", of("resource")));
    }
    state.violations.extend(wrong);
    let mut answer = form_urlencoded::Serializer::new(String::new());
    if state.deny {
        answer.append_pair("error", "access_denied");
    } else {
        state.families.push(Family { client: client.clone(), ended: false });
        let family = state.families.len() - 1;
        let code = format!("code-{}", state.codes.len() + 1);
        let (challenge, scope) = (of("code_challenge"), of("scope"));
        let issued = Code { client, redirect_uri: redirect_uri.clone(), challenge, scope, family, used: false };
        state.codes.insert(code.clone(), issued);
        answer.append_pair("code", &code);
    }
    answer.append_pair("state", &of("state"));
    if rules.iss {
        answer.append_pair("iss", issuer);
    }
    let target = format!("{redirect_uri}?{}", answer.finish());
    Reply::response(302, &[("Location", &target)], "")
}

fn oauth_error(status: u16, error: &str) -> Reply {
    Reply::json(status, json!({"error": error}).to_string())
}

/// The client of a request, if it proved to be that one by the method that it is registered with (RFC 6749 section 2.3.1).
fn client_of(state: &mut State, request: &Request, form: &HashMap<String, String>) -> Option<String> {
    let decode = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(text, _)| text.to_string());
    let basic = request.header("authorization").and_then(|field| {
        let pair = STANDARD.decode(field.strip_prefix("Basic ")?).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (id, secret) = pair.split_once(':')?;
        Some((decode(id)?, decode(secret)?))
    });
    let by_form = form.get("client_id").cloned();
    let (method, id, secret) = match (basic, form.get("client_secret").cloned()) {
        (Some((id, secret)), None) => ("client_secret_basic", id, Some(secret)),
        (None, Some(secret)) => ("client_secret_post", by_form?, Some(secret)),
        (None, None) => ("none", by_form?, None),
        (Some(_), Some(_)) => {
            state.violations.push("a secret in two places".to_owned());
            return None;
        }
    };
    let client = state.clients.get(&id)?;
    if client.method == method && client.secret == secret {
        return Some(id);
    }
    let wrong = format!("{id} authenticates by {method} and not by {}", client.method);
    state.violations.push(wrong);
    None
}

fn token(shared: &Shared, request: &Arc<Request>) -> Reply {
    let rules = shared.rules();
    let mut state = shared.state();
    let form = parameters(&mut state, &request.body);
    let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if request.header("content-type") != Some("application/x-www-form-urlencoded") {
        state.violations.push("a token request that is no form".to_owned());
    }
    let Some(client) = client_of(&mut state, request, &form) else { return oauth_error(401, "invalid_client") };
    if of("resource") != state.resource {
        let wrong = format!("token request for the resource {:?}", of("resource"));
        state.violations.push(wrong);
    }
    let owner = state.owner.as_ref().and_then(|owner| owner(request));
    let granted = match of("grant_type") {
        "authorization_code" => by_code(&mut state, &client, &form),
        "refresh_token" => by_refresh(&mut state, rules.rotation, &client, of("refresh_token")),
        _ => return oauth_error(400, "unsupported_grant_type"),
    };
    let (family, scope, redeemed) = match granted {
        Ok(granted) => granted,
        Err(error) => return oauth_error(400, error),
    };
    let (n, refresh, answer) = issue(&mut state, &rules, family, &scope, redeemed, owner);
    let issued = Issued { refresh, n, request: Arc::clone(request) };
    let hooks = std::mem::take(&mut state.after);
    // A hook may ask for the counts.
    drop(state);
    let fields = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
    let reply = hooks.iter().fold(Reply::response(200, &fields, answer), |reply, hook| hook(&issued, reply));
    let mut state = shared.state();
    let added = std::mem::replace(&mut state.after, hooks);
    state.after.extend(added);
    reply
}

/// Family, scope, and the refresh token that was redeemed.
type Granted = Result<(usize, String, Option<String>), &'static str>;

fn by_code(state: &mut State, client: &str, form: &HashMap<String, String>) -> Granted {
    let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let Some(code) = state.codes.get_mut(of("code")) else { return Err("invalid_grant") };
    let family = code.family;
    if std::mem::replace(&mut code.used, true) {
        // RFC 6749 section 4.1.2.
        state.violations.push("a code came twice".to_owned());
        state.families[family].ended = true;
        return Err("invalid_grant");
    }
    let hash = digest::digest(&digest::SHA256, of("code_verifier").as_bytes());
    let proven = URL_SAFE_NO_PAD.encode(hash) == code.challenge;
    if !proven || code.client != client || code.redirect_uri != of("redirect_uri") {
        state.violations.push("a code with a wrong verifier, client or redirect URI".to_owned());
        return Err("invalid_grant");
    }
    let scope = code.scope.clone();
    state.counts.codes += 1;
    state.granted.push(scope.clone());
    Ok((family, scope, None))
}

fn by_refresh(state: &mut State, rotation: Rotation, client: &str, text: &str) -> Granted {
    let Some(token) = state.refresh.get(text) else {
        state.counts.dead += 1;
        return Err("invalid_grant");
    };
    let family = token.family;
    if state.families[family].client != client {
        state.violations.push(format!("{client} brings the refresh token of {}", state.families[family].client));
        return Err("invalid_grant");
    }
    if state.families[family].ended {
        state.counts.dead += 1;
        return Err("invalid_grant");
    }
    if token.spent {
        let successor = token.successor.as_ref().and_then(|text| state.refresh.get(text));
        let unused = successor.is_some_and(|successor| !successor.used);
        if rotation != Rotation::UntilUsed || !unused {
            let died = successor.and_then(|next| next.owner).is_some_and(|owner| state.killed.contains(&owner));
            if unused && died {
                state.counts.lost += 1;
            } else {
                state.counts.reused += 1;
            }
            state.families[family].ended = true;
            return Err("invalid_grant");
        }
    }
    let scope = state.granted.last().cloned().unwrap_or_default();
    if let Some(token) = state.refresh.get_mut(text) {
        token.spent = rotation != Rotation::None;
        token.used = true;
    }
    *state.counts.redemptions.entry(text.to_owned()).or_default() += 1;
    Ok((family, scope, Some(text.to_owned())))
}

fn issue(
    state: &mut State,
    rules: &Rules,
    family: usize,
    scope: &str,
    redeemed: Option<String>,
    owner: Option<u32>,
) -> (usize, bool, String) {
    state.issued += 1;
    let n = state.issued;
    let keep = redeemed.clone().filter(|_| rules.rotation == Rotation::None);
    let (access, refresh) = (format!("access-{n}"), keep.unwrap_or_else(|| format!("refresh-{n}")));
    let until = Instant::now() + rules.lifetime;
    state
        .access
        .insert(access.clone(), AccessToken { family, refresh: refresh.clone(), scope: scope.to_owned(), until });
    state.refresh.entry(refresh.clone()).or_insert(RefreshToken {
        family,
        spent: false,
        successor: None,
        owner,
        used: false,
    });
    if let Some(old) = redeemed.as_ref().and_then(|old| state.refresh.get_mut(old)) {
        old.successor = Some(refresh.clone());
    }
    let mut answer: Value = json!({"access_token": access, "token_type": "Bearer",
        "expires_in": rules.lifetime.as_secs(), "refresh_token": refresh});
    if !scope.is_empty() {
        answer["scope"] = scope.into();
    }
    (n, redeemed.is_some(), answer.to_string())
}

fn revoke(shared: &Shared, request: &Request) -> Reply {
    let mut state = shared.state();
    let form = parameters(&mut state, &request.body);
    if client_of(&mut state, request, &form).is_none() {
        return oauth_error(401, "invalid_client");
    }
    let token = form.get("token").cloned().unwrap_or_default();
    let family = state.refresh.get(&token).map(|token| token.family);
    let family = family.or_else(|| state.access.get(&token).map(|token| token.family));
    if let Some(family) = family {
        state.families[family].ended = true;
        state.counts.revocations += 1;
    }
    Reply::status(200)
}
