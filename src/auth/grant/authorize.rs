//! The authorization request (RFC 6749 section 4.1.1, RFC 7636, RFC 8707): a URL for the browser. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use url::{Url, form_urlencoded};

use crate::{
    auth::{
        error::{AuthError, Mender},
        issuer::ServerMetadata,
        providers::Quirks,
        registration::Client,
        resource::ResourceUri,
        scope::{OFFLINE_ACCESS, Scopes},
    },
    http::guard::{MAX_URL, Policy, Purpose},
    secret::Secret,
};

/// Bytes of randomness in a code verifier and in a state: as many as the hash has (RFC 7636 section 7.1).
pub const RANDOM_BYTES: usize = 32;

/// Parameters that are ours alone. `request`, `request_uri` and `response_mode` are never sent: they would say all of it again,
/// or send the answer another way.
const OURS: [&str; 11] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "request",
    "request_uri",
    "response_mode",
];

/// RFC 8707 section 2.
const RESOURCE: &str = "resource";

/// A code verifier and its S256 challenge (RFC 7636 section 4).
#[derive(Clone, Debug)]
pub struct Pkce {
    verifier: Secret,
    challenge: String,
}

impl Pkce {
    /// From fresh randomness of the system's generator.
    pub fn new(random: &[u8; RANDOM_BYTES]) -> Self {
        Self::restored(Secret::new(URL_SAFE_NO_PAD.encode(random)))
    }

    /// From a verifier that another process kept.
    pub fn restored(verifier: Secret) -> Self {
        let hash = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
        Self { challenge: URL_SAFE_NO_PAD.encode(hash), verifier }
    }

    /// For the token request.
    pub fn verifier(&self) -> &Secret {
        &self.verifier
    }

    /// For the authorization request.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }
}

/// A `state` from fresh randomness. It also tells a callback of ours from a forged one, so it is secret until it comes back.
pub fn state(random: &[u8; RANDOM_BYTES]) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(random))
}

/// What goes into the URL.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The authorization server.
    pub metadata: &'a ServerMetadata,
    /// Our client there.
    pub client: &'a Client,
    /// Where the answer goes, exactly as registered.
    pub redirect_uri: &'a str,
    /// Scopes; `None` leaves the parameter out.
    pub scope: Option<&'a Scopes>,
    /// State.
    pub state: &'a Secret,
    /// Code challenge.
    pub pkce: &'a Pkce,
    /// Resource; left out where the provider's quirk or `--disable-resource-parameter` says so.
    pub resource: Option<&'a ResourceUri>,
    /// How the provider differs.
    pub quirks: &'a Quirks,
    /// `--authorize-param`. Wins over the provider's and the endpoint's own; see [`check_extra`].
    pub extra: &'a [(String, String)],
}

/// Refuses a parameter of the user's that is ours alone. `resource` is for whoever knows that the sign-in page wants another one than the
/// token endpoint, as in mcp-remote.
pub fn check_extra(name: &str) -> Result<(), AuthError> {
    if !is_ours(name) || name == RESOURCE {
        return Ok(());
    }
    let error = AuthError::new("authorize-param", Mender::User, format!("--authorize-param cannot set {name}"));
    Err(error.with_hint("it is set by the sign-in itself"))
}

/// Builds the URL: the endpoint's own parameters without those that are ours, then ours, then the provider's and the user's,
/// each name once. It is form-encoded (RFC 6749 appendix B) and passes the policy.
///
/// The URL holds the state: it is for the browser and the user, not for a log.
pub fn authorization_url(request: &AuthorizationRequest<'_>, policy: &Policy) -> Result<Url, AuthError> {
    request.client.check_issuer(&request.metadata.issuer)?;
    for (name, _) in request.extra {
        check_extra(name)?;
    }
    let scope = request.scope.map(ToString::to_string);
    let resource = request.resource.filter(|_| !request.quirks.omit_resource);
    let mut ours = vec![
        ("response_type", "code"),
        ("client_id", &*request.client.id),
        ("redirect_uri", request.redirect_uri),
        ("state", request.state.expose()),
        ("code_challenge", request.pkce.challenge()),
        ("code_challenge_method", "S256"),
    ];
    ours.extend(scope.as_deref().map(|text| ("scope", text)));
    let own_resource = request.extra.iter().any(|(name, _)| name == RESOURCE);
    ours.extend(resource.filter(|_| !own_resource).map(|uri| (RESOURCE, uri.as_str())));
    let mut more: Vec<(&str, &str)> = Vec::new();
    // Without it a provider that keeps to OIDC Core section 11 ignores the scope.
    if request.scope.is_some_and(|scope| scope.contains(OFFLINE_ACCESS)) {
        set(&mut more, "prompt", "consent");
    }
    for (name, value) in request.quirks.authorize_params {
        set(&mut more, name, value);
    }
    for (name, value) in request.extra {
        set(&mut more, name, value);
    }
    let mut url = request.metadata.authorization_endpoint.clone();
    let preset = url.query().unwrap_or_default().to_owned();
    let kept = form_urlencoded::parse(preset.as_bytes())
        .filter(|(name, _)| !is_ours(name) && !more.iter().any(|(own, _)| own == name));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .extend_pairs(ours)
        .extend_pairs(more)
        .finish();
    url.set_query(Some(&query));
    let refused = |refusal| AuthError::from_policy(refusal, Mender::AuthorizationServer, "the sign-in page");
    policy.check_url(&url, Purpose::Fetch).map_err(refused)?;
    if url.as_str().len() > MAX_URL {
        let message = format!("the sign-in page's URL is longer than {MAX_URL} bytes");
        return Err(AuthError::new("url-length", Mender::AuthorizationServer, message));
    }
    Ok(url)
}

/// Each name once; the last word holds.
fn set<'a>(list: &mut Vec<(&'a str, &'a str)>, name: &'a str, value: &'a str) {
    list.retain(|(known, _)| *known != name);
    list.push((name, value));
}

/// Some servers read names without regard to case, and `name[]` as `name`.
fn is_ours(name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default().trim();
    OURS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::{
        providers,
        registration::{Choice, Plan, PreRegistered, plan, test_metadata},
    };

    fn client(metadata: &ServerMetadata, id: &str) -> Client {
        let own = PreRegistered { issuer: None, client_id: id.to_owned(), client_secret: None, method: None };
        match plan(Choice { pre_registered: Some(&own), metadata_url: None }, metadata).unwrap() {
            Plan::Ready(client) => client,
            Plan::Register => unreachable!(),
        }
    }

    fn policy() -> Policy {
        Policy::new(&Url::parse("https://mcp.example/mcp").unwrap(), false, false).unwrap()
    }

    struct Parts<'a> {
        endpoint: &'a str,
        issuer: &'a str,
        id: &'a str,
        scope: Option<&'a str>,
        resource: Option<&'a str>,
        extra: &'a [(&'a str, &'a str)],
    }

    const PARTS: Parts<'_> = Parts {
        endpoint: "https://as.example/authorize",
        issuer: "https://as.example",
        id: "me",
        scope: None,
        resource: None,
        extra: &[],
    };

    fn build(parts: &Parts<'_>) -> Result<Url, AuthError> {
        let metadata = test_metadata(&json!({"issuer": parts.issuer, "authorization_endpoint": parts.endpoint}));
        let extra: Vec<_> = parts.extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (scope, resource) = (parts.scope.map(Scopes::parse), parts.resource.map(ResourceUri::restored));
        let request = AuthorizationRequest {
            metadata: &metadata,
            client: &client(&metadata, parts.id),
            redirect_uri: "http://localhost:3334/oauth/callback",
            scope: scope.as_ref(),
            state: &state(&[1; RANDOM_BYTES]),
            pkce: &Pkce::new(&[2; RANDOM_BYTES]),
            resource: resource.as_ref(),
            quirks: providers::quirks(metadata.issuer.url()),
            extra: &extra,
        };
        authorization_url(&request, &policy())
    }

    fn values(url: &Url, name: &str) -> Vec<String> {
        url.query_pairs().filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).collect()
    }

    #[test]
    fn pkce_as_in_the_rfc() {
        // RFC 7636 appendix B.
        let octets = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
            240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        let pkce = Pkce::new(&octets);
        assert_eq!(pkce.verifier().expose(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(pkce.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(!format!("{pkce:?}").contains("dBjf"));
    }

    #[test]
    fn the_whole_url() {
        let url = build(&Parts {
            endpoint: "https://as.example/authorize?tenant=a%20b",
            scope: Some("files:read x"),
            resource: Some("https://mcp.example"),
            ..PARTS
        });
        assert_eq!(
            url.unwrap().as_str(),
            "https://as.example/authorize?tenant=a+b&response_type=code&client_id=me\
             &redirect_uri=http%3A%2F%2Flocalhost%3A3334%2Foauth%2Fcallback&state=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\
             &code_challenge=bB1ju9q0N8VDaMu9iIaohqea2XcpfiZe6_H19fAVM7k&code_challenge_method=S256\
             &scope=files%3Aread+x&resource=https%3A%2F%2Fmcp.example"
        );
    }

    #[test]
    fn preset_parameters_of_our_names_are_dropped() {
        let endpoint = "https://as.example/a?redirect_uri=https://evil.example&STATE=x&code%5fchallenge=y&scope[]=z&request=j\
                        &request_uri=u&response_mode=form_post&keep=1&resource=r&client_id=c";
        let url = build(&Parts { endpoint, ..PARTS }).unwrap();
        for name in ["response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"] {
            assert_eq!(values(&url, name).len(), 1, "{name}");
        }
        for name in ["STATE", "scope[]", "scope", "request", "request_uri", "response_mode", "resource"] {
            assert_eq!(values(&url, name).len(), 0, "{name}");
        }
        assert_eq!(values(&url, "keep"), ["1"]);
        assert_eq!(values(&url, "redirect_uri"), ["http://localhost:3334/oauth/callback"]);
    }

    #[test]
    fn extra_parameters_never_win_over_ours() {
        let url = build(&Parts {
            endpoint: "https://as.example/a?audience=theirs&audience=again",
            scope: Some("a offline_access"),
            extra: &[("audience", "mine"), ("prompt", "login")],
            ..PARTS
        });
        let url = url.unwrap();
        assert_eq!(
            (values(&url, "audience"), values(&url, "prompt")),
            (vec!["mine".to_owned()], vec!["login".to_owned()])
        );
        for name in ["state", "Redirect_URI", "code_challenge", "request_uri", "Resource", "client_id", "scope"] {
            let error = build(&Parts { extra: &[(name, "x")], ..PARTS }).unwrap_err();
            assert_eq!(error.rule(), "authorize-param", "{name}");
        }
    }

    #[test]
    fn the_users_resource_for_the_page_takes_the_place_of_ours() {
        let parts = Parts { resource: Some("https://mcp.example"), extra: &[("resource", "urn:theirs")], ..PARTS };
        assert_eq!(values(&build(&parts).unwrap(), "resource"), ["urn:theirs"]);
    }

    #[test]
    fn providers_and_refresh_tokens() {
        let google = Parts {
            issuer: "https://accounts.google.com",
            scope: Some("a"),
            resource: Some("https://mcp.example"),
            ..PARTS
        };
        let url = build(&google).unwrap();
        assert_eq!(
            (values(&url, "access_type"), values(&url, "prompt")),
            (vec!["offline".to_owned()], vec!["consent".to_owned()])
        );
        let entra = Parts { issuer: "https://login.microsoftonline.com/t/v2.0", ..google };
        assert!(values(&build(&entra).unwrap(), "resource").is_empty());
        let offline = build(&Parts { scope: Some("a offline_access"), ..PARTS }).unwrap();
        assert_eq!(values(&offline, "prompt"), ["consent"]);
        assert!(values(&build(&PARTS).unwrap(), "prompt").is_empty());
    }

    #[test]
    fn hostile_values_are_encoded() {
        let id = "a&redirect_uri=https://evil.example#\"'$(x) \u{e9}";
        let url = build(&Parts { id, scope: Some("x&state=1 y#z $(id)"), ..PARTS }).unwrap();
        assert_eq!(
            (values(&url, "client_id"), values(&url, "scope")),
            (vec![id.to_owned()], vec!["x&state=1 y#z $(id)".to_owned()])
        );
        assert_eq!((values(&url, "state").len(), values(&url, "redirect_uri").len()), (1, 1));
        assert!(
            url.fragment().is_none() && url.as_str().is_ascii() && !url.as_str().contains(['$', '(', '\'', '"', ' '])
        );
        let long = build(&Parts { id: &"x".repeat(MAX_URL), ..PARTS });
        assert_eq!(long.unwrap_err().rule(), "url-length");
    }
}
