//! The certificate authority: where its key comes from, who may ask it for which certificate, and who learns its roots.

mod authority;
mod bundle;
mod reviewed;
mod secrets;

use std::path::PathBuf;
use std::sync::Arc;

use ca_server::{Authenticator, CurrentIssuer, Issuer, NodeTokens};
use contract::manifests::ROOTS_CONFIG_MAP;
use futures::future::BoxFuture;
use graph::PublishedPods;
use kube_cluster::{ApiServer, Leadership, Objects, Rule, TokenReviewer, Verb};

pub(crate) use authority::{Authority, Rules, is_node_proxy};
pub(crate) use secrets::SecretsError;

use crate::config::Config;
use crate::server::StartError;
use bundle::Bundle;
use reviewed::ReviewedTokens;
use secrets::Secrets;

/// Audience of the tokens that node proxies show. Istio's.
const AUDIENCE: &str = "istio-ca";

/// Place of the authority's certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityConfig {
    /// Files, which are made when they are not there.
    Directory(PathBuf),
    /// Secrets in this namespace: `cacerts` of the user, else `istio-ca-secret`, which is made when it is not there.
    Secrets(String),
}

/// Judge of the tokens that callers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokensConfig {
    /// A file with the hash of each node's token.
    File(PathBuf),
    /// The API server (TokenReview).
    Reviewed,
}

/// The authority, ready to serve.
pub(crate) struct Certificates {
    pub(crate) issuer: CurrentIssuer,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// Follows the place of the key; ends never.
    pub(crate) upkeep: Option<BoxFuture<'static, ()>>,
}

/// Opens the authority. Waits for the API server when the key is in Secrets.
///
/// # Errors
/// When key and certificate cannot be used.
pub(crate) async fn open(
    config: &Config,
    server: Option<&ApiServer>,
    pods: PublishedPods,
) -> Result<Certificates, StartError> {
    let trust_domain = config.trust_domain.clone();
    let ttl = config.max_workload_cert_ttl;
    let (issuer, upkeep) = match (&config.authority, server) {
        (AuthorityConfig::Secrets(namespace), Some(server)) => {
            let secrets = Secrets::new(Objects::new(server), namespace.clone(), trust_domain.clone(), ttl);
            let (slot, material) = secrets.wait().await?;
            (slot.reader(), Some(secrets.follow(slot, material)))
        }
        (AuthorityConfig::Directory(directory), _) => {
            let issuer = Issuer::open_or_create(directory, trust_domain.clone())?;
            (CurrentIssuer::from(issuer.with_max_ttl(ttl)), None)
        }
        (AuthorityConfig::Secrets(_), None) => return Err(StartError::NoApiServer("a Secret")),
    };
    let authenticator: Arc<dyn Authenticator> = match (&config.tokens, server) {
        (TokensConfig::Reviewed, Some(server)) => {
            let (reviewer, system) = (TokenReviewer::new(server, AUDIENCE), config.mesh.root_namespace.clone());
            Arc::new(ReviewedTokens::new(reviewer, trust_domain, pods, system))
        }
        (TokensConfig::File(path), _) => Arc::new(NodeTokens::open(path, trust_domain)?),
        (TokensConfig::Reviewed, None) => return Err(StartError::NoApiServer("TokenReview")),
    };
    Ok(Certificates { issuer, authenticator, upkeep })
}

/// Keeps the roots in a ConfigMap of every namespace while this replica leads; ends never.
pub(crate) fn distribute(
    server: &ApiServer,
    issuer: CurrentIssuer,
    leadership: Leadership,
    pods: PublishedPods,
) -> impl Future<Output = ()> + use<> {
    Bundle::new(Objects::new(server), issuer, leadership, pods).run()
}

/// RBAC rules of all this; the Secrets are in `namespace`. The name of a new object is not in its request, so that no rule can
/// bind it.
pub(crate) fn permissions(namespace: &str) -> Vec<Rule> {
    let rule = |namespace: Option<&str>, resource: &str, names: &[&str], verbs: &[Verb]| Rule {
        namespace: namespace.map(str::to_owned),
        api_group: String::new(),
        resource: resource.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        verbs: verbs.to_vec(),
    };
    let review =
        Rule { api_group: "authentication.k8s.io".to_owned(), ..rule(None, "tokenreviews", &[], &[Verb::Create]) };
    vec![
        review,
        rule(None, "configmaps", &[], &[Verb::Create]),
        rule(None, "configmaps", &[ROOTS_CONFIG_MAP], &[Verb::List, Verb::Patch]),
        rule(Some(namespace), "secrets", &[], &[Verb::Create]),
        rule(Some(namespace), "secrets", &secrets::NAMES, &[Verb::Get]),
    ]
}
