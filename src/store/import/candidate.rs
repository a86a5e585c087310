//! What mcp-remote makes the names of its files of, and where they are. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use url::Url;

use crate::store::md5;

/// A server as mcp-remote was started for it: what its file names are made of.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// The URL, exactly as typed.
    pub server: String,
    /// `--resource`.
    pub resource: Option<String>,
    /// `--authorize-param`.
    pub authorize_params: BTreeMap<String, String>,
    /// `--header` and `--header-file`, values before `${VAR}` is replaced.
    pub headers: BTreeMap<String, String>,
    /// `--client-metadata-url`.
    pub client_metadata_url: Option<String>,
    /// `--token-endpoint`.
    pub token_endpoint: Option<String>,
    /// The profile that the sign-in is kept under here.
    pub profile: String,
}

impl Candidate {
    /// The hash of mcp-remote 0.15.1.
    pub fn hash(&self) -> String {
        let endpoint = self.token_endpoint.as_deref();
        let endpoint = endpoint.map(|text| Url::parse(text).map_or_else(|_| text.to_owned(), String::from));
        let parts = [
            Some(self.server.clone()),
            self.resource.as_deref().map(|text| text.trim().to_owned()),
            object(&self.authorize_params),
            object(&self.headers),
            self.client_metadata_url.clone(),
            endpoint,
        ];
        hash_of(parts)
    }

    /// The hashes of all versions, newest first: to 0.1.38 of fewer parts, before 0.1.30 of the URL alone.
    pub(super) fn hashes(&self) -> [String; 3] {
        let resource = self.resource.as_deref().map(|text| text.trim().to_owned());
        let middle = hash_of([Some(self.server.clone()), resource, object(&self.headers)]);
        [self.hash(), middle, hash_of([Some(self.server.clone())])]
    }
}

fn hash_of(parts: impl IntoIterator<Item = Option<String>>) -> String {
    md5::hex(&parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("|"))
}

/// Compact JSON with keys in the order of their UTF-16 code units, as JavaScript sorts; `None` if there are none.
fn object(entries: &BTreeMap<String, String>) -> Option<String> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_cached_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
    let text = |text: &String| serde_json::Value::from(text.as_str()).to_string();
    let members: Vec<_> = entries.iter().map(|(name, value)| format!("{}:{}", text(name), text(value))).collect();
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}

/// Where mcp-remote keeps its files: `MCP_REMOTE_CONFIG_DIR`, else `.mcp-auth` in the home directory.
pub fn directory(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
    set("MCP_REMOTE_CONFIG_DIR").or_else(|| home().map(|home| home.join(".mcp-auth")))
}
