//! Applies one update, from whatever source, to the state, the certificates and the open connections.

use std::sync::Arc;
use std::time::Duration;

use ca_client::CertificateManager;
use metrics::gauge;
use model::{Address, Authorization, Change, RefusedPolicy, Scope, State, StateConfig, Text, convert};
use policy::{ConnectionRegistry, Reevaluation};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, security, workload};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};
use xds_client::{Client, Handler, Interest, Rejection, Resource};

use super::{Lookups, SourceError, certificate_source};
use crate::config::Config;

/// Time that an open connection may wait for a policy that its destination names and that has not arrived. Istio's control
/// plane sends a workload's new policies after the workload, usually within milliseconds.
const LATE_POLICY: Duration = Duration::from_secs(5);

/// Parts of a proxy that follow updates. Clones share everything.
#[derive(Clone)]
pub struct Updates {
    /// The mesh.
    pub state: State,
    /// Fetches ahead what local workloads will need.
    pub certificates: CertificateManager,
    /// Evaluates open connections again.
    pub policies: ConnectionRegistry,
    /// Asks about addresses that are not announced.
    pub lookups: Lookups,
    /// Whether the proxy gets certificates of the workloads of its node.
    impersonates: bool,
    /// Woken when open connections wait for a policy that has not arrived.
    undecided: Arc<Notify>,
}

impl Updates {
    /// Updates of these parts.
    #[must_use]
    pub fn new(state: State, certificates: CertificateManager, policies: ConnectionRegistry) -> Self {
        Self {
            state,
            certificates,
            policies,
            lookups: Lookups::default(),
            impersonates: true,
            undecided: Arc::default(),
        }
    }

    /// Makes the state of the mesh, the certificate manager and the registry of connections that `config` asks for.
    /// `impersonate`: see [`certificate_source`].
    ///
    /// # Errors
    /// When test certificates are wanted of a build without them, or key exchanges are to be restricted too late.
    pub fn from_config(config: &Config, impersonate: bool) -> Result<Self, SourceError> {
        // Before the first connection of the process, which is one for certificates or discovery.
        tls::restrict(config.certificates.key_exchange)?;
        let node = &config.node;
        let network = node.network.as_str().into();
        let state = State::new(StateConfig { network, node: node.name.as_deref().map(Into::into) });
        let certificates = CertificateManager::spawn(certificate_source(config, impersonate)?);
        let policies = ConnectionRegistry::new(state.clone(), config.telemetry.policy_logging());
        Ok(Self { impersonates: impersonate, ..Self::new(state, certificates, policies) })
    }

    /// Applies changes of workloads and services.
    pub fn addresses(&self, changes: Vec<Change<Address>>) {
        let count = changes.len();
        self.lookups.announced(&changes);
        let applied = self.state.apply_addresses(changes);
        debug!(count, "addresses applied");
        // A waypoint would be refused the certificates of others.
        for identity in applied.wanted.iter().filter(|_| self.impersonates) {
            if !self.certificates.prefetch(identity) {
                debug!(%identity, "too many certificates to prefetch; this one is requested with its first connection");
            }
        }
        for identity in &applied.unused {
            // Workloads of an identity are gone from this node: its key is not kept.
            self.certificates.forget(identity);
        }
        // Only then: most updates concern other nodes, and evaluating every open connection again is the costly part of
        // an update.
        if applied.policies_changed {
            self.reevaluate();
        }
        self.measure();
    }

    /// Applies changes of policies.
    pub fn authorizations(&self, changes: Vec<Change<Authorization>>) {
        let count = changes.len();
        self.state.apply_authorizations(changes);
        debug!(count, "policies applied");
        self.reevaluate();
        self.measure();
    }

    /// Notes that all policies have arrived once.
    pub fn policies_complete(&self) {
        if !self.state.policies_synced() {
            // From here on a policy that is named and not there is missing, not late: refusals for its sake are logged
            // as warnings.
            self.state.set_policies_synced();
            self.reevaluate();
        }
    }

    /// Subscribes policies, then addresses.
    pub(super) fn handlers(&self, client: Client) -> Client {
        let (policies, addresses) = (self.clone(), self.clone());
        self.lookups.ask_over(&client);
        client
            .with::<security::Authorization>(AUTHORIZATION_TYPE_URL, Interest::All, Policies(policies))
            .with::<workload::Address>(ADDRESS_TYPE_URL, Interest::All, move |resources, removed| {
            addresses.address_response(resources, removed)
        })
    }

    fn authorization_response(
        &self,
        resources: Vec<Resource<security::Authorization>>,
        removed: Vec<String>,
    ) -> Vec<Rejection> {
        // Read before the conversion consumes them: of a policy that is rejected, its scope is all that can be used.
        let scopes: Vec<_> = resources.iter().map(as_far_as_readable).collect();
        let (changes, rejected) = changes(resources, removed, Authorization::try_from);
        let is_rejected = |policy: &RefusedPolicy| rejected.iter().any(|r| policy.key == *r.name);
        let refused = scopes.into_iter().flatten().filter(|p| !rejected.is_empty() && is_rejected(p)).collect();
        // Before the others are applied: from this moment its workloads deny, as the rejected policy may have denied.
        self.state.refuse_authorizations(refused);
        self.authorizations(changes);
        rejected
    }

    pub(super) fn address_response(
        &self,
        resources: Vec<Resource<workload::Address>>,
        removed: Vec<String>,
    ) -> Vec<Rejection> {
        let (changes, rejected) = changes(resources, removed, convert::address);
        self.addresses(changes);
        rejected
    }

    fn reevaluate(&self) {
        let Reevaluation { revoked, undecided } = self.policies.reevaluate();
        if revoked > 0 {
            info!(closed = revoked, "connections closed by a change of policies");
        }
        if undecided > 0 {
            debug!(undecided, "open connections wait for policies that have not arrived");
            // One permit is kept, however often it is given: updates that come while the task below sleeps wake it once
            // more.
            self.undecided.notify_one();
        }
    }

    /// Closes connections that wait for a policy in vain. Runs until it is dropped.
    pub(super) async fn close_undecided(self) {
        loop {
            self.undecided.notified().await;
            // Several updates within this time are answered together.
            tokio::time::sleep(LATE_POLICY).await;
            // Evaluated again: a policy that came meanwhile has decided.
            let Reevaluation { revoked, .. } = self.policies.revoke_undecided();
            if revoked > 0 {
                warn!(
                    closed = revoked,
                    code = "policy_missing",
                    "connections closed: a policy that their destination names did not arrive within {LATE_POLICY:?}"
                );
            }
        }
    }

    fn measure(&self) {
        let [workloads, services, policies] = self.state.sizes();
        gauge!("strake_discovery_retained_policies").set(self.state.retained_policies() as f64);
        gauge!("strake_discovery_unreadable_policies").set(self.state.refused_policies() as f64);
        for (kind, size) in [("workload", workloads), ("service", services), ("policy", policies)] {
            gauge!("strake_discovery_resources", "kind" => kind).set(size as f64);
        }
    }
}

/// Policies, also those that cannot be decoded.
pub(super) struct Policies(pub(super) Updates);

impl Handler<security::Authorization> for Policies {
    fn apply(&mut self, resources: Vec<Resource<security::Authorization>>, removed: Vec<String>) -> Vec<Rejection> {
        self.0.authorization_response(resources, removed)
    }

    fn unreadable(&mut self, refused: &[Rejection]) {
        if !refused.is_empty() {
            let policies = refused.iter().map(|r| RefusedPolicy::unreadable(&r.name)).collect();
            self.0.state.refuse_authorizations(policies);
        }
    }

    fn complete(&mut self) {
        self.0.policies_complete();
    }
}

/// Returns the scope of a policy, should it be refused; none for one that would only be logged.
fn as_far_as_readable(resource: &Resource<security::Authorization>) -> Option<RefusedPolicy> {
    let message = &resource.message;
    if message.dry_run {
        return None;
    }
    let scope = match security::Scope::try_from(message.scope) {
        Ok(security::Scope::Global) => Some(Scope::Global),
        Ok(security::Scope::Namespace) => Some(Scope::Namespace),
        Ok(security::Scope::WorkloadSelector) => Some(Scope::WorkloadSelector),
        Err(_) => None,
    };
    // The resource's name is `namespace/name`, and is there even where the message is not.
    let unreadable = RefusedPolicy::unreadable(&resource.name);
    let namespace = if message.namespace.is_empty() { unreadable.namespace } else { message.namespace.as_str().into() };
    Some(RefusedPolicy { key: unreadable.key, namespace, scope })
}

/// Resources in order, then removals; what cannot be converted is left as it was.
fn changes<M, T>(
    resources: Vec<Resource<M>>,
    removed: Vec<String>,
    convert: impl Fn(M) -> Result<T, convert::ConvertError>,
) -> (Vec<Change<T>>, Vec<Rejection>) {
    let mut changes = Vec::with_capacity(resources.len() + removed.len());
    let mut rejected = Vec::new();
    for Resource { name, message, .. } in resources {
        match convert(message) {
            Ok(converted) => changes.push(Change::Upsert(converted)),
            Err(reason) => {
                error!(resource = name, %reason, "resource rejected; its last accepted version stays in force");
                rejected.push(Rejection { name, reason: reason.to_string() });
            }
        }
    }
    // Last: a resource that is replaced under another name is never missing in between.
    changes.extend(removed.iter().map(|name| Change::Remove(Text::unique(name))));
    (changes, rejected)
}

#[cfg(test)]
mod tests {
    use ca_client::CertificateSource;
    use futures::future::BoxFuture;
    use identity::Identity;
    use policy::{Connection, Logging, Registration};

    use super::*;

    /// Never has a certificate; tests look at what was asked for.
    struct Nothing;
    impl CertificateSource for Nothing {
        fn fetch(&self, _: &Identity) -> BoxFuture<'_, Result<tls::WorkloadCertificate, ca_client::SourceError>> {
            Box::pin(std::future::pending())
        }
    }

    fn updates() -> Updates {
        let state = State::new(StateConfig { network: "".into(), node: Some("node-1".into()) });
        let policies = ConnectionRegistry::new(state.clone(), Logging::Debug);
        Updates::new(state, CertificateManager::spawn(Arc::new(Nothing)), policies)
    }

    /// An open connection to workload `a`, which the policy `p` does not select.
    fn allowed_connection(updates: &Updates) -> Registration {
        updates.authorization_response(vec![deny_all("p")], vec![]);
        updates.address_response(vec![workload("a", "node-1", &[])], vec![]);
        let destination = updates.state.workload("Kubernetes//Pod/ns/a").unwrap();
        let open = updates.policies.register(connection(), destination);
        assert!(open.evaluate().is_allowed());
        open
    }

    fn workload(name: &str, node: &str, policies: &[&str]) -> Resource<workload::Address> {
        let message = workload::Workload {
            uid: format!("Kubernetes//Pod/ns/{name}"),
            name: name.into(),
            namespace: "ns".into(),
            service_account: name.into(),
            node: node.into(),
            addresses: vec![vec![10, 0, 0, 1]],
            tunnel_protocol: 1,
            authorization_policies: policies.iter().map(|p| (*p).to_owned()).collect(),
            ..Default::default()
        };
        let name = message.uid.clone();
        let message = workload::Address { r#type: Some(workload::address::Type::Workload(message)) };
        Resource { name, version: String::new(), message }
    }

    fn deny_all(name: &str) -> Resource<security::Authorization> {
        let message = security::Authorization {
            name: name.into(),
            namespace: "ns".into(),
            scope: security::Scope::WorkloadSelector.into(),
            action: security::Action::Deny.into(),
            rules: vec![security::Rule::default()],
            ..Default::default()
        };
        Resource { name: format!("ns/{name}"), version: String::new(), message }
    }

    fn connection() -> Connection {
        let source = "10.0.0.9".parse().unwrap();
        Connection { source, destination: "10.0.0.1:80".parse().unwrap(), identity: None }
    }

    #[tokio::test]
    async fn a_bad_resource_is_refused_and_the_others_of_its_response_are_taken() {
        let updates = updates();
        let mut bad = workload("bad", "node-1", &[]);
        if let Some(workload::address::Type::Workload(w)) = &mut bad.message.r#type {
            w.tunnel_protocol = 2;
        }

        let rejected = updates.address_response(vec![bad, workload("good", "node-1", &[])], vec![]);

        assert_eq!(rejected[0].name, "Kubernetes//Pod/ns/bad");
        assert!(rejected[0].reason.contains("LEGACY_ISTIO_MTLS"));
        assert!(updates.state.workload("Kubernetes//Pod/ns/good").is_some());
        assert!(updates.state.workload("Kubernetes//Pod/ns/bad").is_none());
    }

    #[tokio::test]
    async fn certificates_of_local_workloads_are_fetched_ahead_and_forgotten_after_them() {
        let updates = updates();

        updates.address_response(vec![workload("here", "node-1", &[]), workload("there", "node-2", &[])], vec![]);
        let held: Vec<String> = updates.certificates.snapshot().iter().map(|s| s.identity.to_string()).collect();
        assert_eq!(held, ["spiffe://cluster.local/ns/ns/sa/here"]);

        updates.address_response(vec![], vec!["Kubernetes//Pod/ns/here".into()]);
        assert!(updates.certificates.snapshot().is_empty());
    }

    #[tokio::test]
    async fn a_new_policy_revokes_open_connections() {
        let updates = updates();
        updates.address_response(vec![workload("a", "node-1", &[])], vec![]);
        updates.policies_complete();
        let destination = updates.state.workload("Kubernetes//Pod/ns/a").unwrap();
        let mut open = updates.policies.register(connection(), destination);
        assert!(open.evaluate().is_allowed());

        let mut policy = deny_all("p");
        policy.message.scope = security::Scope::Namespace.into();
        updates.authorization_response(vec![policy], vec![]);

        assert_eq!(open.revoked().await.reason.to_string(), "explicitly denied by: ns/p");
    }

    #[tokio::test]
    async fn a_policy_that_begins_to_select_a_workload_revokes_open_connections() {
        let updates = updates();
        let mut open = allowed_connection(&updates);

        updates.address_response(vec![workload("a", "node-1", &["ns/p"])], vec![]);

        assert_eq!(open.revoked().await.reason.to_string(), "explicitly denied by: ns/p");
    }

    #[tokio::test]
    async fn policies_count_as_complete_only_when_the_client_says_so() {
        let updates = updates();
        let mut policies = Policies(updates.clone());

        policies.apply(vec![deny_all("p")], vec![]);
        assert!(!updates.state.policies_synced(), "it may be the first part of many");

        policies.complete();
        assert!(updates.state.policies_synced());
    }

    #[tokio::test]
    async fn a_workload_that_comes_back_with_other_policies_is_evaluated_again() {
        let updates = updates();
        let mut open = allowed_connection(&updates);

        updates.address_response(vec![], vec!["Kubernetes//Pod/ns/a".into()]);
        updates.address_response(vec![workload("a", "node-1", &["ns/p"])], vec![]);

        assert_eq!(open.revoked().await.reason.to_string(), "explicitly denied by: ns/p");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_connection_is_closed_when_the_policy_it_waits_for_does_not_come() {
        let updates = updates();
        updates.policies_complete();
        updates.address_response(vec![workload("a", "node-1", &[])], vec![]);
        let destination = updates.state.workload("Kubernetes//Pod/ns/a").unwrap();
        let mut open = updates.policies.register(connection(), destination);
        let closing = tokio::spawn(updates.clone().close_undecided());

        updates.address_response(vec![workload("a", "node-1", &["ns/p"])], vec![]);

        assert!(!open.evaluate().is_allowed(), "a new connection is refused at once");
        let begun = tokio::time::Instant::now();
        assert_eq!(open.revoked().await.reason.to_string(), "policy ns/p is not known yet");
        assert_eq!(begun.elapsed(), LATE_POLICY);
        closing.abort();
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_read_refuses_whom_it_would_guard_until_it_can_be_or_is_gone() {
        let updates = updates();
        updates.address_response(vec![workload("a", "node-1", &["ns/p"]), workload("b", "node-1", &[])], vec![]);
        updates.policies_complete();
        let register = |name: &str| {
            let destination = updates.state.workload(&format!("Kubernetes//Pod/ns/{name}")).unwrap();
            updates.policies.register(connection(), destination)
        };
        let (mut guarded, other) = (register("a"), register("b"));
        let mut bad = deny_all("p");
        bad.message.action = 9;

        assert_eq!(updates.authorization_response(vec![bad.clone()], vec![]).len(), 1);
        assert_eq!(guarded.revoked().await.reason.to_string(), "policy ns/p is invalid; connection denied");
        assert!(other.evaluate().is_allowed());

        updates.authorization_response(vec![], vec!["ns/p".into()]);
        assert!(!register("a").evaluate().is_allowed(), "the workload still names it");
        updates.address_response(vec![workload("a", "node-1", &[])], vec![]);
        assert!(register("a").evaluate().is_allowed());

        bad.message.scope = 77;
        updates.authorization_response(vec![bad.clone()], vec![]);
        assert!(!register("b").evaluate().is_allowed(), "whom it is for cannot be read: its namespace");

        let mut good = deny_all("p");
        good.message.rules.clear();
        updates.authorization_response(vec![good], vec![]);
        assert!(register("a").evaluate().is_allowed() && register("b").evaluate().is_allowed());
        updates.authorization_response(vec![bad], vec![]);
        assert!(register("a").evaluate().is_allowed(), "the version before stays in force");
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_decoded_refuses_its_namespace() {
        let updates = updates();
        updates.address_response(vec![workload("a", "node-1", &[])], vec![]);
        updates.policies_complete();
        let destination = updates.state.workload("Kubernetes//Pod/ns/a").unwrap();
        let open = updates.policies.register(connection(), destination);

        Policies(updates).unreadable(&[Rejection { name: "ns/p".into(), reason: String::new() }]);

        assert!(!open.evaluate().is_allowed());
    }
}
