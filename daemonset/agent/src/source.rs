//! The pods of this node and their namespaces, and the writer of annotations: a directory of manifests, or the API server of a
//! cluster.

use std::path::PathBuf;

use contract::labels::{REDIRECTION_ANNOTATION, UNINSTALL_ANNOTATION};
use contract::manifests::AGENT;
use kube_cluster::{
    Access, ApiServer, ClusterConfig, Collection, Credentials, Owned, RequestError, Rule, StatusConfig, Versions,
    Watched,
};
use kube_types::{ClusterId, Kind, Source, Status};
use manifests::DirectoryConfig;

use crate::agent::AgentError;
use crate::config::{Config, SourceKind};
use crate::install;

/// Field manager of annotations in a cluster.
const MANAGER: &str = "strake-agent";

/// Kinds that the agent writes about.
const STATUSES: [Kind; 1] = [Kind::Pod];

/// Place of the objects.
pub(crate) enum Objects {
    Directory { manifests: Vec<PathBuf>, state: PathBuf },
    Cluster { server: ApiServer, versions: Versions },
}

impl Objects {
    /// Reads the credentials of a cluster; nothing is asked of it yet.
    pub(crate) async fn new(config: &Config) -> Result<Self, AgentError> {
        match config.source {
            SourceKind::Directory => {
                let state = config.state.clone().unwrap_or_default();
                Ok(Self::Directory { manifests: config.manifests.clone(), state })
            }
            SourceKind::Cluster => {
                let credentials = match config.kubeconfig.clone() {
                    Some(path) => Credentials::Kubeconfig { path, context: None },
                    None => Credentials::InCluster,
                };
                Ok(Self::Cluster { server: ApiServer::new(&credentials).await?, versions: Versions::default() })
            }
        }
    }

    /// The API server, in a cluster.
    pub(crate) fn server(&self) -> Option<&ApiServer> {
        match self {
            Self::Directory { .. } => None,
            Self::Cluster { server, .. } => Some(server),
        }
    }

    /// The writer of annotations of the pods of `node`.
    pub(crate) fn status(&self, node: &str) -> Status {
        match self {
            Self::Directory { state, .. } => manifests::status(state, &format!("agent-{node}")),
            Self::Cluster { server, versions } => kube_cluster::status(StatusConfig {
                server: server.clone(),
                manager: MANAGER.to_owned(),
                kinds: STATUSES.to_vec(),
                owned: Owned { annotations: vec![REDIRECTION_ANNOTATION.to_owned()], ..Owned::default() },
                versions: versions.clone(),
                // Each pod has one agent.
                leadership: None,
            }),
        }
    }

    /// Returns true if the user uninstalls the mesh: the agent's DaemonSet is being deleted, and says so in an annotation. A
    /// DaemonSet that is only deleted, by an upgrade or by mistake, leaves the pods of the node in the mesh.
    ///
    /// # Errors
    /// When the API server does not answer: nothing is known then.
    pub(crate) async fn is_uninstalled(&self, namespace: &str) -> Result<bool, RequestError> {
        let Self::Cluster { server, .. } = self else { return Ok(false) };
        let at = Collection::namespaced("apps/v1", "daemonsets", namespace).named(AGENT);
        let daemonset = kube_cluster::Objects::new(server).get(&at).await?;
        Ok(daemonset.is_some_and(|daemonset| {
            let metadata = &daemonset["metadata"];
            metadata["deletionTimestamp"].is_string() && metadata["annotations"][UNINSTALL_ANNOTATION] == "true"
        }))
    }

    /// The pods of `node`, and all namespaces.
    pub(crate) fn source(&self, node: &str) -> Result<Source, AgentError> {
        match self {
            Self::Directory { manifests, state } => {
                Ok(manifests::open(DirectoryConfig::new(manifests.clone(), state.clone()))?)
            }
            Self::Cluster { server, versions } => Ok(kube_cluster::open(ClusterConfig {
                server: server.clone(),
                cluster: ClusterId::default(),
                watched: watched(node),
                versions: versions.clone(),
            })?),
        }
    }
}

fn watched(node: &str) -> Vec<Watched> {
    vec![Watched::all(Kind::Namespace), Watched::all(Kind::Pod).with_fields(format!("spec.nodeName={node}"))]
}

/// RBAC rules of the agent in a cluster, with those of the plugin's installation in `namespace`.
pub fn permissions(namespace: &str) -> Vec<Rule> {
    let mut rules = kube_cluster::rules(Access { watched: &watched(""), statuses: &STATUSES, lease: None });
    rules.extend(install::permissions(namespace));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_writes_nothing_but_statuses_of_pods_tokens_of_its_plugin_and_taints() {
        let text = |rule: &Rule| {
            let verbs: Vec<_> = rule.verbs.iter().map(|verb| verb.name()).collect();
            format!("{} {}", rule.resource, verbs.join(","))
        };

        let rules: Vec<_> = permissions("istio-system").iter().map(text).collect();

        let of_enrolment = ["namespaces list,watch", "pods list,watch", "pods/status patch"];
        assert_eq!(rules[..3], of_enrolment);
        assert_eq!(rules[3..], ["serviceaccounts/token create", "daemonsets get", "nodes get,patch"]);
    }
}
