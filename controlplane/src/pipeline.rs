//! Pipeline from the source's events to the resources of discovery: source, compiler, cache.

use std::collections::HashMap;
use std::time::Duration;

use compile::{Compiler, Update};
use graph::{CONDITION_TYPES, ObjectStatus};
use kube_types::core::Condition;
use kube_types::{Event, ObjectRef, Resource, Source};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, Change};
use runtime::Debounce;
use telemetry::readiness::Task;
use xds_server::{Cache, waypoint_type};

use crate::acks::Acks;
use crate::events::Events;
use crate::reports::Reports;
use crate::waypoints::Waypoints;

/// Events that follow each other are one change, which goes out 100 ms after the first of them at the latest.
const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(10), Duration::from_millis(100));

/// Parts that an event may change.
pub(crate) struct Pipeline {
    pub(crate) source: Source,
    pub(crate) compiler: Compiler,
    pub(crate) cache: Cache,
    pub(crate) reports: Reports,
    pub(crate) events: Events,
    pub(crate) acks: Acks,
    pub(crate) waypoints: Waypoints,
    /// Dropped when the first state is served.
    pub(crate) first_state: Option<Task>,
    /// Statuses that objects have, as read.
    pub(crate) current: HashMap<ObjectRef, ObjectStatus>,
    /// All objects that existed at the start have been read.
    pub(crate) is_in_sync: bool,
}

impl Pipeline {
    /// Runs until the source ends. Dropping it is safe: what was applied stays served.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.source.next().await {
            self.on_event(event);
            // Before everything is read, what is missing looks like what is gone: proxies would drop it.
            if !self.is_in_sync {
                continue;
            }
            let burst = DEBOUNCE.begin();
            // A deployment of a thousand pods is one update, not a thousand: each update wakes every stream.
            while let Some(Some(event)) = burst.next(self.source.next()).await {
                self.on_event(event);
            }
            self.publish_update();
        }
        tracing::error!(code = "source_ended", "the reader of objects stopped; discovery keeps serving the last state");
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Applied { cluster, resource } if cluster == *self.compiler.cluster() => {
                let current = status_of(&resource);
                if current.is_empty() {
                    self.current.remove(&resource.key());
                } else {
                    self.current.insert(resource.key(), current);
                }
                self.waypoints.applied(&resource);
                self.compiler.apply(resource);
            }
            Event::Removed { cluster, key } if cluster == *self.compiler.cluster() => {
                self.current.remove(&key);
                self.waypoints.removed(&key);
                self.compiler.remove(&key);
            }
            Event::InSync { cluster } if cluster == *self.compiler.cluster() => {
                tracing::info!(%cluster, "all objects read");
                self.waypoints.in_sync();
                self.is_in_sync = true;
            }
            Event::Applied { cluster, .. } | Event::Removed { cluster, .. } | Event::InSync { cluster } => {
                tracing::debug!(%cluster, "event of another cluster ignored");
            }
            Event::Problem(problem) => {
                self.events.problem(&problem);
                self.reports.problem(problem);
            }
            Event::Solved { file } => {
                self.events.solved(&file);
                self.reports.solved(&file);
            }
        }
        // At once: the proxy of a node may ask for the certificate of a new pod before the quiet time is over.
        if self.is_in_sync {
            self.compiler.publish_pods();
        }
    }

    fn publish_update(&mut self) {
        let started = std::time::Instant::now();
        let update = self.compiler.settle();
        for (object, state) in &update.policies {
            self.events.policy(object, self.compiler.uid(object), state.as_ref());
        }
        // Before the cache: an acknowledgement of the new version must find it known.
        self.acks.on_update(&update, &self.current);
        self.publish(&update);
        for (object, findings) in update.findings {
            self.events.findings(&object, self.compiler.uid(&object), &findings);
            self.reports.findings(object, findings);
        }
        // After the first publication, so that streams that begin now get everything in one snapshot.
        if self.first_state.take().is_some() {
            self.cache.mark_synced();
            tracing::info!(
                addresses = self.cache.len(ADDRESS_TYPE_URL),
                policies = self.cache.len(AUTHORIZATION_TYPE_URL),
                "discovery is in sync",
            );
        }
        metrics::histogram!("strake_control_settle_seconds").record(started.elapsed().as_secs_f64());
    }

    /// A policy is there before who refers to it, and goes after; routes follow the services that they name.
    fn publish(&self, update: &Update) {
        let policies = update.authorizations.iter().cloned();
        let (upserts, removals) = policies.partition(|change| matches!(change, Change::Upsert { .. }));
        if !update.addresses.is_empty() || !update.authorizations.is_empty() {
            tracing::debug!(
                addresses = update.addresses.len(),
                policies = update.authorizations.len(),
                "discovery changes",
            );
        }
        self.cache.apply(AUTHORIZATION_TYPE_URL, upserts);
        self.cache.apply(ADDRESS_TYPE_URL, update.addresses.clone());
        for ((namespace, gateway), changes) in &update.waypoints {
            let resources = changes.len();
            tracing::debug!(namespace, gateway, resources, compiled = update.compiled_services, "routes change");
            self.cache.apply(&waypoint_type(namespace, gateway), changes.clone());
        }
        self.cache.apply(AUTHORIZATION_TYPE_URL, removals);
        for (kind, type_url) in [("address", ADDRESS_TYPE_URL), ("authorization", AUTHORIZATION_TYPE_URL)] {
            metrics::gauge!("strake_control_resources", "type" => kind).set(self.cache.len(type_url) as f64);
        }
    }
}

/// The part of an object's status that the control plane may have written.
fn status_of(resource: &Resource) -> ObjectStatus {
    let is_ours = |condition: &Condition| CONDITION_TYPES.contains(&condition.r#type.as_str());
    let ours = |conditions: &[Condition]| conditions.iter().filter(|one| is_ours(one)).cloned().collect();
    let (conditions, addresses) = match resource {
        Resource::AuthorizationPolicy(policy) => (ours(&policy.status.conditions), Vec::new()),
        Resource::PeerAuthentication(policy) => (ours(&policy.status.conditions), Vec::new()),
        Resource::Service(service) => (ours(&service.status.conditions), Vec::new()),
        Resource::ServiceEntry(entry) => (ours(&entry.status.conditions), entry.status.addresses.clone()),
        Resource::Namespace(_)
        | Resource::Node(_)
        | Resource::ServiceAccount(_)
        | Resource::ConfigMap(_)
        | Resource::Secret(_)
        | Resource::PersistentVolumeClaim(_)
        | Resource::GatewayClass(_)
        | Resource::Gateway(_)
        | Resource::Deployment(_)
        | Resource::ReplicaSet(_)
        | Resource::StatefulSet(_)
        | Resource::DaemonSet(_)
        | Resource::Job(_)
        | Resource::Pod(_)
        | Resource::WorkloadEntry(_)
        | Resource::VirtualService(_)
        | Resource::DestinationRule(_)
        | Resource::HTTPRoute(_)
        | Resource::GRPCRoute(_)
        | Resource::EndpointSlice(_) => (Vec::new(), Vec::new()),
    };
    ObjectStatus { conditions, addresses }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use graph::Mesh;
    use kube_types::core::Pod;
    use kube_types::{ClusterId, Health, Kind};

    use super::*;

    #[tokio::test]
    async fn pods_of_another_cluster_are_not_those_of_a_node_of_the_same_name() {
        let (events, source) = tokio::sync::mpsc::channel(8);
        let pipeline = Pipeline {
            source: Source::new(source, Health::new(|| true), ()),
            compiler: Compiler::new(Mesh::default()),
            cache: Cache::new(),
            reports: Reports::default(),
            events: Events::default(),
            acks: Acks::new(&[]),
            waypoints: Waypoints::default(),
            first_state: None,
            current: HashMap::new(),
            is_in_sync: false,
        };
        let (here, there) = (pipeline.compiler.cluster().clone(), ClusterId::new("elsewhere"));
        let pods = pipeline.compiler.pods();
        let pod = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = name.to_owned();
            pod.spec.node_name = Some("n1".to_owned());
            Resource::Pod(Arc::new(pod))
        };
        for event in [
            Event::Applied { cluster: here.clone(), resource: pod("a") },
            Event::Applied { cluster: there.clone(), resource: pod("b") },
            Event::Removed { cluster: there.clone(), key: ObjectRef::new(Kind::Pod, "", "a") },
            Event::InSync { cluster: there },
            Event::InSync { cluster: here },
        ] {
            events.send(event).await.unwrap();
        }
        drop(events);

        pipeline.run().await;

        let pods = pods.load();
        assert_eq!(pods.on_node("n1").map(|pod| pod.metadata.name.as_str()).collect::<Vec<_>>(), ["a"]);
    }
}
