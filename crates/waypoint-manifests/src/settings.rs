//! Settings of an installation that every waypoint has.

/// User and group of the container. Istio's, so that rules of clusters about it hold here, too.
pub const SECURITY_ID: u32 = 1337;

/// Settings that come from the control plane's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the program.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Names of Secrets in the Gateway's namespace.
    pub image_pull_secrets: Vec<String>,
    /// Address of discovery and of the certificate authority, `https://HOST:PORT`.
    pub control_address: String,
    pub cluster_id: String,
    pub trust_domain: String,
    /// Environment variables of the container that replace those of the same name.
    pub env: Vec<(String, String)>,
}
