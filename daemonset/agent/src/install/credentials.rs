//! The plugin's token: of a ServiceAccount of its own, which may read pods and namespaces and nothing else. It is bound to no
//! pod, so that the plugin can still use it while this agent is replaced by the next one.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cni::Kubeconfig;
use contract::manifests::AGENT;
use kube_cluster::{ApiServer, Rule, daemon_set_rule, request_token, taint_rule, token_rule};
use runtime::Backoff;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Installation;
use crate::config;

/// ServiceAccount of the plugin, in the namespace of the agent.
pub const ACCOUNT: &str = "strake-cni";

/// Validity that is asked for: the plugin can tell pods apart for as long as the agent is away. The API server may give less.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Share of the validity after which a new token is asked for.
const RENEWED_AFTER: u32 = 4;

/// Pauses after failures.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Certificate of the API server's authority, in every pod.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// Source of the plugin's kubeconfig.
pub(super) struct Credentials {
    server: ApiServer,
    namespace: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as in every pod of a cluster")]
    Address,
    #[error("failed to read {AUTHORITY}: {0}")]
    Authority(io::Error),
    #[error(transparent)]
    Token(#[from] kube_cluster::RequestError),
}

impl Credentials {
    pub(super) fn new(server: ApiServer, namespace: &str) -> Self {
        Self { server, namespace: namespace.to_owned() }
    }

    /// Renews the kubeconfig for ever, and wakes the installer for each.
    pub(super) async fn keep(&self, installation: &Installation, changed: &Notify) -> Infallible {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut failing = None;
        loop {
            let pause = match self.renew().await {
                Ok((kubeconfig, validity)) => {
                    installation.set_kubeconfig(kubeconfig.to_json());
                    changed.notify_one();
                    backoff.reset();
                    failing = None;
                    (validity / RENEWED_AFTER).max(PAUSE_MIN)
                }
                Err(failure) => {
                    let text = failure.to_string();
                    if failing.as_ref() != Some(&text) {
                        tracing::warn!(
                            "failed to renew the CNI plugin's kubeconfig: {text}; while the agent is away, the plugin may know nothing of pods and refuse them; trying again"
                        );
                    }
                    failing = Some(text);
                    backoff.pause()
                }
            };
            sleep(pause).await;
        }
    }

    async fn renew(&self) -> Result<(Kubeconfig, Duration), Failure> {
        let authority = config::plugin::api_server().ok_or(Failure::Address)?;
        let certificates = std::fs::read(Path::new(AUTHORITY)).map_err(Failure::Authority)?;
        let given = request_token(&self.server, (&self.namespace, ACCOUNT), LIFETIME).await?;
        let validity = given.expires.duration_since(SystemTime::now()).unwrap_or_default();
        Ok((Kubeconfig { authority, certificates, token: given.token }, validity))
    }
}

/// Rules that the installation needs, and those of the startup taint.
pub fn permissions(namespace: &str) -> Vec<Rule> {
    vec![token_rule(namespace, ACCOUNT), daemon_set_rule(namespace, AGENT), taint_rule()]
}
