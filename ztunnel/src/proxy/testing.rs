//! Workloads for tests of this module.

use std::sync::Arc;

use model::Workload;

/// The workload `ns/<name>` with a service account of the same name.
pub(super) fn workload(name: &str) -> Arc<Workload> {
    let text = format!(
        r#"{{"uid": "c//Pod/ns/{name}", "name": "{name}", "namespace": "ns", "workloadName": "{name}", "serviceAccount": "{name}"}}"#
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}
