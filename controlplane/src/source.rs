//! The source of resources and the writer of statuses: a directory of manifests, or the API server of a cluster.

use std::path::PathBuf;

use kube_cluster::{
    Access, ApiServer, ClusterConfig, Credentials, Election, ElectionConfig, Owned, Rule, StatusConfig, Versions,
    Watched,
};
use kube_types::{ClusterId, Kind, Source, Status};
use manifests::{DirectoryConfig, LastGoodCopies};

use crate::certificates;
use crate::events;
use crate::server::StartError;
use crate::waypoints;

/// Name under which statuses are written in a directory.
const WRITER: &str = "control";

/// Name under which the statuses of Gateways are written in a directory.
const WAYPOINTS: &str = "waypoints";

/// Field manager of statuses in a cluster, and name of the Lease.
const MANAGER: &str = "strake-control";

/// Kinds with conditions.
const STATUSES: [Kind; 4] = [Kind::PeerAuthentication, Kind::AuthorizationPolicy, Kind::Service, Kind::ServiceEntry];

/// Parts of statuses that are this program's; those of other writers stay.
fn owned() -> Owned {
    let conditions = graph::CONDITION_TYPES.map(str::to_owned).to_vec();
    Owned { conditions, fields: vec!["addresses".to_owned()], ..Owned::default() }
}

/// Everything that is read: of the ConfigMaps only the mesh configuration, in the namespace of the control plane.
fn watched(namespace: &str) -> Vec<Watched> {
    let name = format!("metadata.name={}", graph::MESH_CONFIG_MAP);
    let config = Watched::all(Kind::ConfigMap).in_namespace(namespace).with_fields(name);
    graph::KINDS.into_iter().map(Watched::all).chain([config]).collect()
}

/// Place of the resources.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    Directory {
        manifests: Vec<PathBuf>,
        state: PathBuf,
    },
    Cluster {
        credentials: Credentials,
        /// Namespace of the Lease and of the mesh configuration.
        namespace: String,
        /// Name of this replica in the election of the one that writes statuses.
        replica: String,
        /// File with the token of this replica's pod.
        token: PathBuf,
    },
}

/// An open source.
pub(crate) struct Opened {
    pub(crate) source: Source,
    pub(crate) status: Status,
    /// Writer of the statuses of Gateways and their classes.
    pub(crate) waypoints: Status,
    /// Of the replica that writes statuses; a directory has one writer.
    pub(crate) election: Option<Election>,
}

impl SourceConfig {
    /// The API server of a cluster, with credentials; nothing is asked of it yet.
    pub(crate) async fn connect(&self) -> Result<Option<ApiServer>, StartError> {
        match self {
            Self::Directory { .. } => Ok(None),
            Self::Cluster { credentials, .. } => Ok(Some(ApiServer::new(credentials).await?)),
        }
    }

    pub(crate) fn open(&self, server: Option<ApiServer>, cluster: ClusterId) -> Result<Opened, StartError> {
        match self {
            Self::Directory { manifests, state } => {
                let source = manifests::open(DirectoryConfig {
                    manifests: manifests.clone(),
                    state: state.clone(),
                    cluster,
                    last_good: LastGoodCopies::Write,
                })?;
                let (status, waypoints) = (manifests::status(state, WRITER), manifests::status(state, WAYPOINTS));
                Ok(Opened { source, status, waypoints, election: None })
            }
            Self::Cluster { namespace, replica, .. } => {
                let server = server.ok_or(StartError::NoApiServer("a watch"))?;
                let election = Election::start(ElectionConfig {
                    server: server.clone(),
                    namespace: namespace.clone(),
                    name: MANAGER.to_owned(),
                    identity: replica.clone(),
                });
                // Shared by reader and writer: a status that the source has read back need not be written again.
                let versions = Versions::default();
                let writer = |kinds: &[Kind], owned: Owned| {
                    kube_cluster::status(StatusConfig {
                        server: server.clone(),
                        manager: MANAGER.to_owned(),
                        kinds: kinds.to_vec(),
                        owned,
                        versions: versions.clone(),
                        leadership: Some(election.leadership()),
                    })
                };
                let status = writer(&STATUSES, owned());
                // A writer of its own: conditions of the same name on other kinds are other programs'.
                let waypoints = writer(&waypoints::STATUSES, waypoints::owned());
                let watched = watched(namespace);
                let source = kube_cluster::open(ClusterConfig { server, cluster, watched, versions })?;
                Ok(Opened { source, status, waypoints, election: Some(election) })
            }
        }
    }

    /// Files in which findings are located; a cluster has none.
    pub(crate) fn manifests(&self) -> &[PathBuf] {
        match self {
            Self::Directory { manifests, .. } => manifests,
            Self::Cluster { .. } => &[],
        }
    }

    pub(crate) const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// Name of this replica; a directory has one.
    pub(crate) fn replica(&self) -> &str {
        match self {
            Self::Directory { .. } => MANAGER,
            Self::Cluster { replica, .. } => replica,
        }
    }
}

/// RBAC rules of the control plane in a cluster; its own objects are in `namespace`.
pub fn permissions(namespace: &str) -> Vec<Rule> {
    let watched = watched(namespace);
    let statuses: Vec<_> = STATUSES.into_iter().chain(waypoints::STATUSES).collect();
    let mut rules =
        kube_cluster::rules(Access { watched: &watched, statuses: &statuses, lease: Some((namespace, MANAGER)) });
    rules.extend(certificates::permissions(namespace));
    rules.extend(waypoints::permissions(namespace));
    rules.push(events::permissions());
    rules.sort();
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const MANIFEST: &str = include_str!("../../daemonset/manifests/strake-control.yaml");

    /// Namespace, group, resource, name and verb of each permission; the last two may be empty.
    type Permission = [String; 5];

    fn each(namespace: Option<&str>, group: &str, resource: &str, names: &[String], verb: &str) -> Vec<Permission> {
        let any = [String::new()];
        let names = if names.is_empty() { &any } else { names };
        let one =
            |name: &String| [namespace.unwrap_or_default(), group, resource, name.as_str(), verb].map(str::to_owned);
        names.iter().map(one).collect()
    }

    fn in_manifest() -> BTreeSet<Permission> {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let mut found = BTreeSet::new();
        for document in serde_saphyr::from_multiple::<Value>(MANIFEST).unwrap() {
            let namespace = document["metadata"]["namespace"].as_str();
            for rule in document["rules"].as_array().into_iter().flatten() {
                let names = texts(&rule["resourceNames"]);
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            found.extend(each(namespace, &group, &resource, &names, &verb));
                        }
                    }
                }
            }
        }
        found
    }

    #[test]
    fn the_manifest_allows_what_the_control_plane_does_and_nothing_else() {
        let mut needed = BTreeSet::new();
        for Rule { namespace, api_group, resource, names, verbs } in permissions("istio-system") {
            for verb in verbs {
                needed.extend(each(namespace.as_deref(), &api_group, &resource, &names, verb.name()));
            }
        }

        assert_eq!(in_manifest(), needed);
    }
}
