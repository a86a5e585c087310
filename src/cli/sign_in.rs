//! The flags of sign-in → [`Options`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::flags::Flags;
use super::state_dir::Platform;
use super::{Once, UsageError, headers, values};
use crate::auth::callback::{CallbackPath, RedirectHost, SuccessUrl, derive_port};
use crate::auth::grant::authorize::check_extra;
use crate::auth::options::{AUTH_TIMEOUT, Options};
use crate::auth::registration::{
    AuthMethod, CLIENT_INFO_FLAG, MAX_CREDENTIAL, METADATA_URL_FLAG, PreRegistered, metadata_document_url,
};
use crate::auth::resource::ResourceUri;
use crate::auth::scope::Scopes;
use crate::secret::{SafeText, Secret, is_unsafe};
use crate::store::CredentialStore;
use crate::store::import::Candidate;

/// Longest `--profile`, in characters.
pub(super) const MAX_PROFILE_CHARS: usize = 64;

const METADATA_FLAG: &str = "--static-oauth-client-metadata";

const METADATA_FORM: &str = "Write a JSON object as in '{\"scope\": \"read\"}', or @FILE for a file that holds one.";

const INFO_FORM: &str = "Write '{\"client_id\": \"...\", \"client_secret\": \"${SECRET}\"}' without what you have not, or @FILE for a file that holds it.";

/// What else the port of the callback depends on, if the server's name is mcp-remote's.
pub(super) struct Asked<'a> {
    /// The server's URL as typed.
    pub(super) server: &'a str,
    /// The second positional argument.
    pub(super) port: Option<u16>,
    /// See [`headers::typed`].
    pub(super) headers: BTreeMap<String, String>,
}

/// Reads all flags of sign-in but those that concern the store or the bridge.
pub(super) fn options(
    flags: &Flags,
    asked: Asked<'_>,
    once: &mut Once<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Options, UsageError> {
    let candidate = candidate(flags, asked.server, asked.headers, once)?;
    // The hash is hexadecimal.
    let derived_port = derive_port(&candidate.hash()).unwrap_or_default();
    let client_info = once.take(CLIENT_INFO_FLAG, &flags.static_oauth_client_info);
    let client_info = client_info.map(|text| client_info_of(text, env, read_file)).transpose()?;
    let metadata = once.take(METADATA_FLAG, &flags.static_oauth_client_metadata);
    let client_metadata = metadata.map(|text| client_metadata_of(text, once, read_file)).transpose()?;
    // As in mcp-remote: who registered a redirect URI by hand registered its port.
    let registered = client_info.is_some() || candidate.client_metadata_url.is_some();
    if flags.auth_success_url.len() > 1 {
        return Err(UsageError::new("--auth-success-url is given more than once", "Write it once: it names one page."));
    }
    // Of the page's parameters these two are also the sign-in's own: it must know what it asks for.
    let mut authorize_params = candidate.authorize_params;
    let scope = authorize_params.remove("scope").map(|text| Scopes::parse(&text)).filter(|scopes| !scopes.is_empty());
    if authorize_params.contains_key("resource") {
        once.notes.push(
            "--authorize-param resource is for the sign-in page alone; --resource tells the token endpoint too"
                .to_owned(),
        );
    }
    let success_url = flags.auth_success_url.first().map(|text| success_url(text, flags.allow_http)).transpose()?;
    Ok(Options {
        redirect_host: once.read("--host", &flags.host, host)?.unwrap_or_else(|| default_host(Platform::HERE)),
        callback_path: once.read("--callback-path", &flags.callback_path, path)?.unwrap_or_default(),
        callback_port: asked.port.or(registered.then_some(derived_port)),
        derived_port,
        success_url,
        auth_timeout: once.read("--auth-timeout", &flags.auth_timeout, values::period)?.unwrap_or(AUTH_TIMEOUT),
        resource: candidate.resource.as_deref().map(resource).transpose()?,
        disable_resource: is_resource_disabled(flags),
        authorize_params: authorize_params.into_iter().collect(),
        scope,
        client_metadata,
        client_info,
        client_metadata_url: candidate.client_metadata_url,
        allow_missing_pkce: flags.allow_missing_pkce_metadata,
        profile: candidate.profile,
    })
}

/// The server as mcp-remote was started for it.
pub(super) fn candidate(
    flags: &Flags,
    server: &str,
    headers: BTreeMap<String, String>,
    once: &mut Once<'_>,
) -> Result<Candidate, UsageError> {
    let resource = once.take("--resource", &flags.resource).map(str::trim).filter(|text| !text.is_empty());
    if resource.is_some() && flags.disable_resource_parameter {
        once.notes.push("--resource is not sent, because --disable-resource-parameter is given".to_owned());
    }
    let mut authorize_params = BTreeMap::new();
    for text in &flags.authorize_param {
        let (name, value) = parameter(text)?;
        authorize_params.insert(name, value);
    }
    Ok(Candidate {
        server: server.to_owned(),
        resource: resource.filter(|_| !flags.disable_resource_parameter).map(str::to_owned),
        authorize_params,
        headers,
        client_metadata_url: once.read(METADATA_URL_FLAG, &flags.client_metadata_url, metadata_url)?,
        token_endpoint: None,
        profile: once.read("--profile", &flags.profile, profile)?.unwrap_or_default(),
    })
}

/// An empty `--resource` says the same as the flag. The first counts.
fn is_resource_disabled(flags: &Flags) -> bool {
    flags.disable_resource_parameter || flags.resource.first().is_some_and(|text| text.trim().is_empty())
}

/// As mcp-remote: Windows may resolve `localhost` to `::1` first, and programs there listen on one address.
fn default_host(platform: Platform) -> RedirectHost {
    if platform == Platform::Windows { RedirectHost::V4 } else { RedirectHost::Localhost }
}

/// Reads `--credential-store`.
pub(super) fn store(flag: &str, text: &str) -> Result<CredentialStore, UsageError> {
    let words = [
        ("auto", CredentialStore::Auto),
        ("keyring", CredentialStore::Keyring),
        ("file", CredentialStore::File),
        ("memory", CredentialStore::Memory),
    ];
    values::choice(flag, text, &words)
}

fn host(flag: &str, text: &str) -> Result<RedirectHost, UsageError> {
    RedirectHost::parse(text).map_err(|_| {
        UsageError::new(
            format!("{flag}: \"{}\" is not this machine", SafeText(text)),
            "Write localhost, 127.0.0.1 or ::1: whoever else the browser came back to could sign in as you.",
        )
    })
}

fn path(flag: &str, text: &str) -> Result<CallbackPath, UsageError> {
    CallbackPath::parse(text).map_err(|error| {
        UsageError::new(
            format!("{flag}: {error}"),
            "Write a plain path such as /oauth/callback. On Windows, Git Bash rewrites paths: //oauth becomes /oauth there.",
        )
    })
}

fn success_url(text: &str, allow_http: bool) -> Result<SuccessUrl, UsageError> {
    SuccessUrl::parse(text, allow_http).map_err(|refusal| {
        UsageError::new(
            format!("--auth-success-url: {refusal}"),
            "Write an https address without user name, query and fragment, as in https://example.com/done.",
        )
    })
}

fn resource(text: &str) -> Result<ResourceUri, UsageError> {
    ResourceUri::configured(text).map_err(|error| {
        UsageError::new(
            error.to_string(),
            "Write it as in --resource https://example.com/mcp, or --resource= for none.",
        )
    })
}

fn metadata_url(_flag: &str, text: &str) -> Result<String, UsageError> {
    let url = metadata_document_url(text.trim()).map_err(|error| {
        UsageError::new(error.to_string(), "Write the document's address as in https://example.com/client.json.")
    })?;
    Ok(url.to_owned())
}

fn profile(flag: &str, text: &str) -> Result<String, UsageError> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > MAX_PROFILE_CHARS || name.chars().any(is_unsafe) {
        return Err(UsageError::new(
            format!("{flag}: that is not a name"),
            format!("Write a word such as work, at most {MAX_PROFILE_CHARS} characters."),
        ));
    }
    Ok(name.to_owned())
}

/// The value may be a secret and is not shown; the name neither, for it may be a piece of one.
fn parameter(text: &str) -> Result<(String, String), UsageError> {
    const FLAG: &str = "--authorize-param";
    let pair = text.split_once('=').map(|(name, value)| (name.trim(), value)).filter(|(name, _)| !name.is_empty());
    let Some((name, value)) = pair else {
        return Err(UsageError::new(
            format!("{FLAG} needs a name, =, and a value"),
            format!("Write it as in {FLAG} audience=https://api.example.com."),
        ));
    };
    if name != "scope" {
        check_extra(name)
            .map_err(|error| UsageError::new(error.to_string(), "Leave it out: the sign-in itself sets it."))?;
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The text of a JSON flag, or of the file that `@` names.
fn text_of(
    flag: &str,
    text: &str,
    form: &str,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<String, UsageError> {
    let text = text.trim();
    match text.strip_prefix('@') {
        Some("") => Err(UsageError::new(format!("{flag}: no file follows the @"), form)),
        Some(path) => headers::read_text(flag, path, form, read_file),
        None => Ok(text.to_owned()),
    }
}

fn not_an_object(flag: &str, form: &str) -> UsageError {
    UsageError::new(format!("{flag} holds no JSON object"), form)
}

fn client_metadata_of(
    text: &str,
    once: &mut Once<'_>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Map<String, Value>, UsageError> {
    let text = text_of(METADATA_FLAG, text, METADATA_FORM, read_file)?;
    let object: Map<String, Value> =
        serde_json::from_str(&text).map_err(|_| not_an_object(METADATA_FLAG, METADATA_FORM))?;
    if object.get("scope").is_some_and(|scope| !scope.is_string()) {
        return Err(UsageError::new(
            format!("{METADATA_FLAG}: scope is not a text"),
            "Write scopes in one text, with blanks: \"scope\": \"read write\".",
        ));
    }
    method(METADATA_FLAG, &object)?;
    if object.contains_key("redirect_uris") {
        once.notes.push(format!(
            "{METADATA_FLAG}: redirect_uris is not sent, the bridge's own is; --host, --callback-path and the callback port make it up"
        ));
    }
    Ok(object)
}

/// RFC 7591 section 2. What the bridge cannot do must be said before a browser opens.
fn method(flag: &str, object: &Map<String, Value>) -> Result<Option<AuthMethod>, UsageError> {
    let Some(value) = object.get("token_endpoint_auth_method") else { return Ok(None) };
    let method = value.as_str().and_then(AuthMethod::from_name).ok_or_else(|| {
        UsageError::new(
            format!("{flag}: that token_endpoint_auth_method is not supported"),
            "Write none, client_secret_basic or client_secret_post, or leave it out.",
        )
    })?;
    Ok(Some(method))
}

fn client_info_of(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<PreRegistered, UsageError> {
    let flag = CLIENT_INFO_FLAG;
    let text = text_of(flag, text, INFO_FORM, read_file)?;
    let expand = |text: &str| headers::variables(text, env).map_err(|wrong| wrong.at(flag));
    let (object, expanded) = match serde_json::from_str::<Map<String, Value>>(&text) {
        Ok(object) => (object, false),
        // As in mcp-remote, a variable may also hold more than one text of the object.
        Err(_) => {
            let object = serde_json::from_str(&expand(&text)?).map_err(|_| not_an_object(flag, INFO_FORM))?;
            (object, true)
        }
    };
    let member = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if expanded => Ok(Some(text.clone())),
        Some(Value::String(text)) => expand(text).map(Some),
        Some(_) => Err(UsageError::new(format!("{flag}: {name} is not a text"), INFO_FORM)),
    };
    let credential = |name: &str| {
        let text = member(name)?.filter(|text| !text.is_empty());
        // RFC 6749 appendix A.1 and A.2.
        if text
            .as_ref()
            .is_some_and(|text| text.len() > MAX_CREDENTIAL || !text.bytes().all(|b| matches!(b, b' '..=b'~')))
        {
            let problem = format!("{flag}: {name} is too long or holds a character that none has");
            return Err(UsageError::new(problem, "Copy it anew; a line end or a curly quote may have come along."));
        }
        Ok(text)
    };
    let client_id =
        credential("client_id")?.ok_or_else(|| UsageError::new(format!("{flag} has no client_id"), INFO_FORM))?;
    let client_secret = credential("client_secret")?.map(Secret::new);
    let method = method(flag, &object)?;
    if let (Some(method @ (AuthMethod::Basic | AuthMethod::Post)), None) = (method, &client_secret) {
        return Err(UsageError::new(format!("{flag}: {} needs a client_secret", method.name()), INFO_FORM));
    }
    Ok(PreRegistered { issuer: member("issuer")?, client_id, client_secret, method })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_the_redirect_uri_is_mcp_remotes() {
        assert_eq!(default_host(Platform::Windows), RedirectHost::V4);
        assert_eq!(default_host(Platform::MacOs), RedirectHost::Localhost);
        assert_eq!(default_host(Platform::Unix), RedirectHost::Localhost);
    }
}
