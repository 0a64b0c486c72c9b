//! Names of a workload in telemetry, from its labels.

use contract::labels::{APP_NAME_LABEL, APP_VERSION_LABEL, CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL};
use kube_types::StringMap;

/// Canonical name and revision; the name is that of the workload when no label says more.
pub(crate) fn names(labels: &StringMap, workload_name: &str) -> (String, String) {
    let label = |names: [&str; 3]| {
        names.into_iter().filter_map(|name| labels.get(name)).find(|value| !value.is_empty()).map(String::as_str)
    };
    let name = label([CANONICAL_NAME_LABEL, APP_NAME_LABEL, "app"]).unwrap_or(workload_name);
    // `latest` is Istio's word for a workload that names no revision.
    let revision = label([CANONICAL_REVISION_LABEL, APP_VERSION_LABEL, "version"]).unwrap_or("latest");
    (name.to_owned(), revision.to_owned())
}
