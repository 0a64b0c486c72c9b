//! The plugin's credentials: a kubeconfig that the agent writes and the plugin reads. It is JSON, which every reader of YAML
//! understands as well.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;

/// Name of cluster, user and context in the file.
const NAME: &str = "strake-cni";

/// Address of the API server and credentials for it. It has no `Debug`: the token is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `host:port`; an IPv6 address is in brackets.
    pub authority: String,
    /// Certificates of the API server's authority, PEM.
    pub certificates: Vec<u8>,
    pub token: String,
}

/// Reason why a text is not a kubeconfig that the plugin can use. It quotes nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKubeconfig {
    #[error("expected the JSON that strake-agent writes; line {0} differs")]
    Json(usize),
    #[error("expected a cluster and a user")]
    Empty,
    #[error("expected https://HOST:PORT as server")]
    Server,
    #[error("expected base64 as certificate-authority-data")]
    Certificates,
}

#[derive(Deserialize)]
struct File {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
struct User {
    token: String,
}

impl Kubeconfig {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`InvalidKubeconfig`].
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKubeconfig> {
        // Only the line: the message of the error would quote the text, and so the token.
        let file: File = serde_json::from_slice(text).map_err(|error| InvalidKubeconfig::Json(error.line()))?;
        let (cluster, user) = (file.clusters.into_iter().next(), file.users.into_iter().next());
        let (Some(NamedCluster { cluster }), Some(NamedUser { user })) = (cluster, user) else {
            return Err(InvalidKubeconfig::Empty);
        };
        let authority = cluster.server.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
        // A path in the server's URL would be left out of the requests.
        let authority = authority.filter(|rest| !rest.is_empty() && !rest.contains('/'));
        let certificates = BASE64_STANDARD.decode(cluster.certificate_authority_data);
        Ok(Self {
            authority: authority.ok_or(InvalidKubeconfig::Server)?.to_owned(),
            certificates: certificates.map_err(|_| InvalidKubeconfig::Certificates)?,
            token: user.token.trim().to_owned(),
        })
    }

    /// Text of the file.
    pub fn to_json(&self) -> Vec<u8> {
        let server = format!("https://{}", self.authority);
        let authority = BASE64_STANDARD.encode(&self.certificates);
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": NAME, "user": {"token": self.token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
            "current-context": NAME,
        });
        format!("{file:#}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig() -> Kubeconfig {
        Kubeconfig {
            authority: "[fd00::1]:443".to_owned(),
            certificates: b"-----BEGIN".to_vec(),
            token: "secret".to_owned(),
        }
    }

    #[test]
    fn the_plugin_reads_what_the_agent_writes() {
        assert!(Kubeconfig::parse(&kubeconfig().to_json()).is_ok_and(|read| read == kubeconfig()));
    }

    #[test]
    fn what_is_wrong_is_named_and_not_quoted() {
        let whole = String::from_utf8(kubeconfig().to_json()).unwrap();
        let error = |text: String| Kubeconfig::parse(text.as_bytes()).err().unwrap();

        assert!(matches!(error(whole.replace("\"token\"", "\"password\"")), InvalidKubeconfig::Json(_)));
        assert_eq!(error(whole.replace("https://", "http://")), InvalidKubeconfig::Server);
        assert_eq!(error(whole.replace("LS0tLS1CRUdJTg==", "?")), InvalidKubeconfig::Certificates);
        assert_eq!(error(r#"{"clusters": [], "users": []}"#.to_owned()), InvalidKubeconfig::Empty);
        assert!(!error(whole.replace("\"secret\"", "[\"secret\"]")).to_string().contains("secret"));
    }
}
