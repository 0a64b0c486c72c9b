//! TLS that a waypoint begins with an application. Names of files and Secrets only; nothing secret is in here.

use serde::{Deserialize, Serialize};

/// TLS to the application: mode SIMPLE, or MUTUAL when there is a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientTls {
    /// Certificate that the waypoint presents. `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ClientCertificate>,
    pub trust: Trust,
    /// File of a certificate revocation list in PEM. `None`: none is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<String>,
    /// Names of which the server's certificate must have one, exactly. Empty: those of the ServiceEntry, else the server
    /// name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Server name that is sent. `None`: host of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

/// Place of a certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ClientCertificate {
    /// PEM files in the container of the waypoint.
    Files { certificate: String, key: String },
    /// Name of a Secret in the namespace of the waypoint.
    Secret(String),
}

/// Authorities that may have signed the server's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Trust {
    /// Those of the operating system.
    #[default]
    System,
    /// PEM file in the container of the waypoint.
    File(String),
    /// Name of a Secret in the namespace of the waypoint.
    Secret(String),
    /// The certificate is not checked, because the user switched the check off (`insecureSkipVerify`).
    Unverified,
}
