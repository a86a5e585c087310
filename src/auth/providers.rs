//! What some providers do otherwise, as one table. Pure. The flow reads [`Quirks`] and knows no provider by name.
//!
//! A provider is told by its issuer's host, which has been checked. Atlassian (rotation over 90 days), Notion (reuse
//! detection), Linear (rotation with a grace time) and Okta's two kinds of metadata need no row: one redemption of each refresh
//! token, remembered dead ones and the three metadata places are for everybody.

use url::Url;

/// How a provider differs. The default is: not at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Send no `resource`: it is refused.
    pub omit_resource: bool,
    /// Repeat the scopes in a refresh.
    pub repeat_scope_on_refresh: bool,
    /// Parameters of the authorization request. The user's own of the same name win.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Has no scope `offline_access`: it is left out even where a resource asks for it.
    pub no_offline_access: bool,
    /// Error codes that a refresh gets for a dead token, besides the usual ones.
    pub dead_refresh_codes: &'static [&'static str],
    /// What to do where the provider takes no registration.
    pub registration_hint: Option<&'static str>,
    /// What to do where a fresh token is refused by the MCP server.
    pub refused_token_hint: Option<&'static str>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Provider {
    /// Name, for messages.
    pub name: &'static str,
    /// Hosts; `.example` is every name under `example`, `cognito-idp.*.amazonaws.com` has one label in the place of `*`.
    pub hosts: &'static [&'static str],
    /// How it differs.
    pub quirks: Quirks,
    /// Where it is known from: the provider's documents, or threads of users.
    pub source: &'static str,
}

const NONE: Quirks = Quirks {
    omit_resource: false,
    repeat_scope_on_refresh: false,
    authorize_params: &[],
    no_offline_access: false,
    dead_refresh_codes: &[],
    registration_hint: None,
    refused_token_hint: None,
};

/// The table.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "Microsoft Entra ID",
        hosts: &[
            "login.microsoftonline.com",
            "login.microsoftonline.us",
            "login.partner.microsoftonline.cn",
            "sts.windows.net",
        ],
        quirks: Quirks {
            // AADSTS9010010, AADSTS901002: the scope alone names the resource.
            omit_resource: true,
            // AADSTS90009, or a token for another resource.
            repeat_scope_on_refresh: true,
            registration_hint: Some(
                "register an application in the Entra admin center (a public client with a loopback redirect URI) and pass its \
                 id: --static-oauth-client-info '{\"client_id\":\"…\"}'",
            ),
            ..NONE
        },
        source: "geelen/mcp-remote#217; anthropics/claude-code#73460; modelcontextprotocol/csharp-sdk#741, #648; microsoft/azure-devops-mcp#1511",
    },
    Provider {
        name: "Google",
        hosts: &["accounts.google.com"],
        quirks: Quirks {
            authorize_params: &[("access_type", "offline"), ("prompt", "consent")],
            no_offline_access: true,
            registration_hint: Some(
                "create an OAuth client of type \"Desktop app\" in the Google Cloud console and pass it: \
                 --static-oauth-client-info '{\"client_id\":\"…\",\"client_secret\":\"…\"}'",
            ),
            ..NONE
        },
        source: "Google, \"Using OAuth 2.0 for Web Server Applications\", access_type; geelen/mcp-remote README",
    },
    Provider {
        name: "Databricks",
        hosts: &[
            ".cloud.databricks.com",
            ".gcp.databricks.com",
            ".azuredatabricks.net",
            "accounts.azuredatabricks.net",
        ],
        quirks: Quirks { dead_refresh_codes: &["invalid_request"], ..NONE },
        source: "dust-tt/dust#29991: a dead refresh token is answered 400 invalid_request",
    },
    Provider {
        name: "Amazon Cognito",
        hosts: &["cognito-idp.*.amazonaws.com", ".amazoncognito.com"],
        quirks: Quirks {
            registration_hint: Some(
                "create an app client in the user pool whose callback URL is exactly ours, and pass its id: \
                 --static-oauth-client-info '{\"client_id\":\"…\"}'",
            ),
            refused_token_hint: Some("the server may want the ID token instead of the access token: --use-id-token"),
            ..NONE
        },
        source: "geelen/mcp-remote#219",
    },
    Provider {
        name: "Okta",
        hosts: &[".okta.com", ".oktapreview.com", ".okta-emea.com"],
        quirks: Quirks {
            registration_hint: Some(
                "create a native application whose sign-in redirect URI is exactly ours (Okta takes no wildcard ports), and pass its \
                 id: --static-oauth-client-info '{\"client_id\":\"…\"}'",
            ),
            refused_token_hint: Some(
                "Okta names the resource by the authorization server; ask for its audience: --authorize-param audience=…",
            ),
            ..NONE
        },
        source: "agentgateway/agentgateway#1831; opencloud-eu/desktop#479",
    },
    Provider {
        name: "Auth0",
        hosts: &[".auth0.com"],
        quirks: Quirks {
            registration_hint: Some(
                "create a native application whose allowed callback URLs hold exactly ours, and pass its id: \
                 --static-oauth-client-info '{\"client_id\":\"…\"}'",
            ),
            refused_token_hint: Some(
                "Auth0 gives an opaque token unless it is asked for an API: --authorize-param audience=…",
            ),
            ..NONE
        },
        source: "geelen/mcp-remote README; github/copilot-cli#4793",
    },
];

/// The provider behind an issuer, if it has a row.
pub fn provider(issuer: &Url) -> Option<&'static Provider> {
    let host = issuer.host_str()?;
    PROVIDERS.iter().find(|one| one.hosts.iter().any(|pattern| is_host(host, pattern)))
}

/// How the provider behind an issuer differs.
pub fn quirks(issuer: &Url) -> &'static Quirks {
    provider(issuer).map_or(&NONE, |one| &one.quirks)
}

fn is_host(host: &str, pattern: &str) -> bool {
    if pattern.starts_with('.') {
        return host.strip_suffix(pattern).is_some_and(|rest| !rest.is_empty());
    }
    match pattern.split_once('*') {
        Some((head, tail)) => host
            .strip_prefix(head)
            .and_then(|rest| rest.strip_suffix(tail))
            .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        None => host == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> Option<&'static str> {
        provider(&Url::parse(&format!("https://{host}/x")).unwrap()).map(|one| one.name)
    }

    #[test]
    fn providers_are_told_by_host() {
        #[rustfmt::skip]
        let table = [
            ("login.microsoftonline.com", Some("Microsoft Entra ID")), ("accounts.google.com", Some("Google")),
            ("dbc-1.cloud.databricks.com", Some("Databricks")), ("adb-1.2.azuredatabricks.net", Some("Databricks")),
            ("cognito-idp.eu-west-1.amazonaws.com", Some("Amazon Cognito")), ("x.auth.eu-west-1.amazoncognito.com", Some("Amazon Cognito")),
            ("dev-1.okta.com", Some("Okta")), ("t.eu.auth0.com", Some("Auth0")),
            ("login.microsoftonline.com.evil.example", None), ("evil-okta.com", None), ("xlogin.microsoftonline.com", None),
            ("cognito-idp.a.b.amazonaws.com", None), ("cognito-idp..amazonaws.com", None), ("google.com", None),
            ("mcp.notion.com", None), ("mcp.linear.app", None), ("auth.atlassian.com", None),
        ];
        for (host, want) in table {
            assert_eq!(name(host), want, "{host}");
        }
        assert_eq!(quirks(&Url::parse("https://a.example").unwrap()), &Quirks::default());
    }

    #[test]
    fn every_row_says_something_and_where_it_is_from() {
        for one in PROVIDERS {
            assert!(!one.source.is_empty() && !one.hosts.is_empty(), "{}", one.name);
            assert_ne!(one.quirks, NONE, "{}", one.name);
        }
    }
}
