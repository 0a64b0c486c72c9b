//! Waypoints of a cluster: Gateways of its API server.

use anyhow::{Context as _, Result, bail};
use contract::labels::{DATAPLANE_MODE_AMBIENT, DATAPLANE_MODE_LABEL, USE_WAYPOINT_LABEL};
use kube_cluster::{Collection, Deletion, Location};
use kube_types::gateway::Gateway;
use serde_json::json;

use super::manifest::Manifest;
use crate::mesh::ClusterMesh;

/// Field manager of the Gateways that the command makes.
const MANAGER: &str = "strake";

const GATEWAYS: (&str, &str) = ("gateway.networking.k8s.io/v1", "gateways");

/// Gateways of a cluster.
pub(super) struct ClusterGateways(ClusterMesh);

impl ClusterGateways {
    pub(super) const fn new(mesh: ClusterMesh) -> Self {
        Self(mesh)
    }

    /// Every Gateway.
    pub(super) async fn all(&self) -> Result<Vec<Gateway>> {
        let (version, plural) = GATEWAYS;
        let found = self.0.objects().list(&Collection::all(version, plural), None, None).await.context(NEEDED)?;
        found.into_iter().map(|value| serde_json::from_value(value).context("a Gateway")).collect()
    }

    pub(super) async fn apply(&self, manifest: &Manifest) -> Result<String> {
        let at = at(&manifest.namespace, &manifest.name);
        self.0.objects().apply(&at, &manifest.value(), MANAGER).await.context(NEEDED)?;
        Ok(format!("waypoint {}/{} applied", manifest.namespace, manifest.name))
    }

    /// Name of the waypoint that a namespace uses.
    pub(super) async fn used(&self, namespace: &str) -> Result<Option<String>> {
        let at = Collection::all("v1", "namespaces").named(namespace);
        let Some(found) = self.0.objects().get(&at).await? else { bail!("namespace {namespace} does not exist") };
        Ok(found["metadata"]["labels"][USE_WAYPOINT_LABEL].as_str().map(str::to_owned))
    }

    pub(super) async fn enrol(&self, namespace: &str, name: &str, overwrite: bool) -> Result<String> {
        let at = Collection::all("v1", "namespaces").named(namespace);
        let Some(found) = self.0.objects().get(&at).await? else { bail!("namespace {namespace} does not exist") };
        let labels = &found["metadata"]["labels"];
        match labels[USE_WAYPOINT_LABEL].as_str() {
            Some(used) if used == name => return Ok(format!("namespace {namespace} uses waypoint {name} already")),
            Some(used) if !overwrite => {
                bail!(
                    "namespace {namespace} uses waypoint {used} (label {USE_WAYPOINT_LABEL}): --overwrite replaces it"
                )
            }
            Some(_) | None => {}
        }
        // Its version is a condition: somebody else may be choosing a waypoint, too.
        let patch = json!({"metadata": {
            "labels": {USE_WAYPOINT_LABEL: name}, "resourceVersion": found["metadata"]["resourceVersion"],
        }});
        if self.0.objects().merge(&at, &patch).await?.is_none() {
            bail!("namespace {namespace} has been deleted");
        }
        let mut text = format!("namespace {namespace} labeled {USE_WAYPOINT_LABEL}={name}");
        if labels[DATAPLANE_MODE_LABEL] != DATAPLANE_MODE_AMBIENT {
            text.push_str(&super::outside(namespace, "kubectl"));
        }
        Ok(text)
    }

    pub(super) async fn delete(&self, namespace: &str, name: &str) -> Result<String> {
        let is_deleted = self.0.objects().delete(&at(namespace, name), Deletion::Background).await?;
        Ok(match is_deleted {
            true => format!("waypoint {namespace}/{name} deleted"),
            false => format!("waypoint {namespace}/{name} was deleted by somebody else"),
        })
    }
}

/// Hint for an API server that does not know Gateways.
const NEEDED: &str = "waypoints are Gateways: the cluster needs the custom resources of the Gateway API";

fn at(namespace: &str, name: &str) -> Location {
    let (version, plural) = GATEWAYS;
    Collection::namespaced(version, plural, namespace).named(name)
}
