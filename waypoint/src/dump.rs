//! `GET /config_dump` of the waypoint: the mesh, its certificates, its settings. Keys are never in it.

use std::sync::Arc;

use ca_client::CertificateManager;
use model::{Dump, State};
use proxy_core::admin::{CertificateDump, Version, certificates};
use serde::Serialize;

use crate::config::Config;

/// Parts of the waypoint that the dump shows.
pub struct DumpSource {
    pub config: Arc<Config>,
    pub state: State,
    pub certificates: CertificateManager,
}

/// The dump.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigDump<'a> {
    #[serde(flatten)]
    mesh: Dump,
    certificates: Vec<CertificateDump>,
    version: Version,
    config: &'a Config,
}

impl DumpSource {
    /// As of now.
    pub fn dump(&self) -> ConfigDump<'_> {
        ConfigDump {
            mesh: self.state.dump(),
            certificates: certificates(&self.certificates),
            version: Version::new(env!("CARGO_PKG_VERSION"), self.config.common.node.istio_version()),
            config: &self.config,
        }
    }
}
