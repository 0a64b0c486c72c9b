//! The source of resources and the writer of statuses: a directory of manifests, or the API server of a cluster.

use std::path::PathBuf;

use kube_cluster::{
    Access, ApiServer, ClusterConfig, Credentials, Election, ElectionConfig, Rule, StatusConfig, Versions, Watched,
};
use kube_types::{ClusterId, Kind, Source, Status};
use manifests::{DirectoryConfig, LastGoodCopies};

use crate::server::StartError;

/// Name under which statuses are written in a directory.
const WRITER: &str = "control";

/// Field manager of statuses in a cluster, and name of the Lease.
const MANAGER: &str = "strake-control";

/// Kinds that the graph reads. ReplicaSets and Jobs are left out: pods tell all that they would.
const KINDS: [Kind; 11] = [
    Kind::Namespace,
    Kind::Node,
    Kind::ServiceAccount,
    Kind::PeerAuthentication,
    Kind::AuthorizationPolicy,
    Kind::Service,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Pod,
    Kind::EndpointSlice,
];

/// Kinds with conditions.
const STATUSES: [Kind; 2] = [Kind::PeerAuthentication, Kind::AuthorizationPolicy];

/// Place of the resources.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    Directory {
        manifests: Vec<PathBuf>,
        state: PathBuf,
    },
    Cluster {
        credentials: Credentials,
        /// Namespace of the Lease.
        namespace: String,
        /// Name of this replica in the election of the one that writes statuses.
        replica: String,
    },
}

/// An open source.
pub(crate) struct Opened {
    pub(crate) source: Source,
    pub(crate) status: Status,
    /// Of the replica that writes statuses; a directory has one writer.
    pub(crate) election: Option<Election>,
}

impl SourceConfig {
    pub(crate) async fn open(&self, cluster: ClusterId) -> Result<Opened, StartError> {
        match self {
            Self::Directory { manifests, state } => {
                let source = manifests::open(DirectoryConfig {
                    manifests: manifests.clone(),
                    state: state.clone(),
                    cluster,
                    last_good: LastGoodCopies::Write,
                })?;
                Ok(Opened { source, status: manifests::status(state, WRITER), election: None })
            }
            Self::Cluster { credentials, namespace, replica } => {
                let server = ApiServer::new(credentials).await?;
                let election = Election::start(ElectionConfig {
                    server: server.clone(),
                    namespace: namespace.clone(),
                    name: MANAGER.to_owned(),
                    identity: replica.clone(),
                });
                let versions = Versions::default();
                let status = kube_cluster::status(StatusConfig {
                    server: server.clone(),
                    manager: MANAGER.to_owned(),
                    kinds: STATUSES.to_vec(),
                    annotations: Vec::new(),
                    versions: versions.clone(),
                    leadership: Some(election.leadership()),
                });
                let watched = KINDS.map(Watched::all).to_vec();
                let source = kube_cluster::open(ClusterConfig { server, cluster, watched, versions })?;
                Ok(Opened { source, status, election: Some(election) })
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

    /// Name of the reader in readiness.
    pub(crate) const fn reader(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "manifest reader",
            Self::Cluster { .. } => "watches of the API server",
        }
    }
}

/// RBAC rules of the control plane in a cluster; its Lease is in `namespace`.
pub fn permissions(namespace: &str) -> Vec<Rule> {
    let watched = KINDS.map(Watched::all);
    kube_cluster::rules(Access { watched: &watched, statuses: &STATUSES, lease: Some((namespace, MANAGER)) })
}

#[cfg(test)]
mod tests {
    use kube_cluster::Verb;

    use super::*;

    #[test]
    fn the_control_plane_reads_objects_and_writes_statuses_and_its_lease() {
        let rules = permissions("istio-system");

        let writes =
            rules.iter().filter(|rule| rule.verbs.iter().any(|verb| !matches!(verb, Verb::List | Verb::Watch)));
        let writes: Vec<_> = writes.map(|rule| rule.resource.as_str()).collect();
        assert_eq!(writes, ["authorizationpolicies/status", "peerauthentications/status", "leases", "leases"]);
        assert!(!rules.iter().any(|rule| ["secrets", "configmaps"].contains(&rule.resource.as_str())));
    }
}
