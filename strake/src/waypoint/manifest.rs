//! The Gateway of a waypoint, as users write it.

use anyhow::{Result, bail};
use contract::{labels::WAYPOINT_FOR_LABEL, ports};
use kube_types::gateway::Gateway;
use serde_json::{Value, json};

use super::Traffic;

/// Protocol of a waypoint's listener.
const HBONE: &str = "HBONE";

/// A Gateway to be made.
pub(super) struct Manifest {
    pub(super) namespace: String,
    pub(super) name: String,
    class: String,
    traffic: Option<Traffic>,
}

impl Traffic {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

impl Manifest {
    /// # Errors
    /// When a name is none of Kubernetes'.
    pub(super) fn new(namespace: &str, name: &str, class: &str, traffic: Option<Traffic>) -> Result<Self> {
        for (flag, value) in [("--namespace", namespace), ("--name", name), ("--class", class)] {
            let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            if value.is_empty() || !value.bytes().all(is_inner) {
                bail!("{flag} {value:?}: expected a name of a-z, 0-9, - and .");
            }
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), class: class.to_owned(), traffic })
    }

    /// The object.
    pub(super) fn value(&self) -> Value {
        let mut metadata = json!({"name": self.name, "namespace": self.namespace});
        if let Some(traffic) = self.traffic {
            metadata["labels"] = json!({WAYPOINT_FOR_LABEL: traffic.name()});
        }
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": metadata,
            "spec": {
                "gatewayClassName": self.class,
                "listeners": [{"name": "mesh", "port": ports::HBONE, "protocol": HBONE}],
            },
        })
    }

    /// The object in YAML, in the order in which people write it.
    pub(super) fn text(&self) -> String {
        let labels = self.traffic.map(|traffic| format!("  labels:\n    {WAYPOINT_FOR_LABEL}: {}\n", traffic.name()));
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {}
  namespace: {}
{}spec:
  gatewayClassName: {}
  listeners:
  - name: mesh
    port: {}
    protocol: {HBONE}
",
            self.name,
            self.namespace,
            labels.unwrap_or_default(),
            self.class,
            ports::HBONE
        )
    }
}

/// Returns true for a Gateway with the listener of a waypoint.
pub(super) fn is_waypoint(gateway: &Gateway) -> bool {
    gateway.spec.listeners.iter().any(|listener| listener.protocol == HBONE && listener.port == ports::HBONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_object() {
        for traffic in [None, Some(Traffic::All)] {
            let manifest = Manifest::new("shop", "people", "strake-waypoint", traffic).unwrap();

            let read: Value = serde_saphyr::from_str(&manifest.text()).unwrap();

            assert_eq!(read, manifest.value());
            let gateway: Gateway = serde_json::from_value(read).unwrap();
            assert!(is_waypoint(&gateway));
        }
    }

    #[test]
    fn a_name_that_would_be_other_yaml_is_refused() {
        for bad in ["", "a: b", "A", "a\nb", "a/b"] {
            assert!(Manifest::new("shop", bad, "c", None).is_err(), "{bad:?}");
        }
    }
}
