//! Istio's ProxyConfig: from the mesh configuration's `defaultConfig` and from `PROXY_CONFIG`, which wins field by field.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::source::Reader;

/// Fields of ProxyConfig that count; all others are Envoy's. `PROXY_CONFIG` is its YAML; default empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    pub(super) proxy_admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    /// 0: all processors.
    pub(super) concurrency: Option<u16>,
    pub(super) proxy_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: Option<ProxyConfig>,
}

impl ProxyConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        let mesh = reader.environment.mesh_config.as_deref().unwrap_or_default();
        let file = match yaml::<MeshConfig>(mesh) {
            Ok(mesh) => mesh.default_config.unwrap_or_default(),
            Err(error) => {
                reader.problems.push("the mesh configuration", error, "YAML with a valid defaultConfig");
                Self::default()
            }
        };
        match yaml::<Self>(reader.raw("PROXY_CONFIG").unwrap_or_default()) {
            Ok(own) => file.overlaid(own),
            Err(error) => {
                reader.problems.push("PROXY_CONFIG", error, "YAML of a ProxyConfig, such as {concurrency: 2}");
                file
            }
        }
    }

    fn overlaid(mut self, own: Self) -> Self {
        // The one field that is merged entry by entry; of all others the nearer value wins.
        self.proxy_metadata.extend(own.proxy_metadata);
        Self {
            discovery_address: own.discovery_address.or(self.discovery_address),
            proxy_admin_port: own.proxy_admin_port.or(self.proxy_admin_port),
            stats_port: own.stats_port.or(self.stats_port),
            concurrency: own.concurrency.or(self.concurrency),
            proxy_metadata: self.proxy_metadata,
        }
    }
}

fn yaml<T: Default + for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    // An empty text is null to YAML, and not a mapping without entries.
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}
