//! From the source's events to what proxies get: source, graph, cache.

use std::collections::HashMap;
use std::time::Duration;

use graph::{Graph, Update};
use kube_types::core::Condition;
use kube_types::{Event, ObjectRef, Resource, Source};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, Change};
use telemetry::readiness::Task;
use tokio::time::Instant;
use xds_server::Cache;

use crate::acks::Acks;
use crate::authority::Authority;
use crate::reports::Reports;

/// Events that follow each other within this time are one change.
const QUIET: Duration = Duration::from_millis(10);

/// A change goes out after this time at the latest.
const LATEST: Duration = Duration::from_millis(100);

/// Everything that an event may touch.
pub(crate) struct Pipeline {
    pub(crate) source: Source,
    pub(crate) graph: Graph,
    pub(crate) cache: Cache,
    pub(crate) authority: Authority,
    pub(crate) reports: Reports,
    pub(crate) acks: Acks,
    /// Dropped when the first state is served.
    pub(crate) first_state: Option<Task>,
    /// Conditions that policies have, as read.
    pub(crate) current: HashMap<ObjectRef, Vec<Condition>>,
}

impl Pipeline {
    /// Runs until the source ends. Dropping it is safe: what was applied stays served.
    pub(crate) async fn run(mut self) {
        let mut in_sync = false;
        while let Some(event) = self.source.next().await {
            in_sync |= self.take(event);
            if !in_sync {
                continue;
            }
            let latest = Instant::now() + LATEST;
            while let Ok(Some(event)) =
                tokio::time::timeout_at((Instant::now() + QUIET).min(latest), self.source.next()).await
            {
                self.take(event);
            }
            self.settle();
        }
        tracing::error!(code = "source_ended", "manifests are no longer read; what is served stays as it is");
    }

    /// Takes an event; true when it says that the first state is complete.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Applied { cluster, resource } => {
                self.authority.apply(&cluster, &resource);
                if let Resource::AuthorizationPolicy(policy) = &resource {
                    self.current.insert(resource.key(), policy.status.conditions.clone());
                } else if let Resource::PeerAuthentication(policy) = &resource {
                    self.current.insert(resource.key(), policy.status.conditions.clone());
                }
                self.graph.apply(resource);
            }
            Event::Removed { cluster, key } => {
                self.authority.remove(&cluster, &key);
                self.current.remove(&key);
                self.graph.remove(&key);
            }
            Event::InSync { cluster } => {
                tracing::info!(%cluster, "all manifests read");
                return true;
            }
            Event::Problem(problem) => self.reports.problem(problem),
            Event::Solved { file } => self.reports.solved(&file),
        }
        false
    }

    fn settle(&mut self) {
        let started = std::time::Instant::now();
        let update = self.graph.settle();
        self.acks.on_update(&update, &self.current);
        self.publish(&update);
        for (object, findings) in update.findings {
            self.reports.findings(object, findings);
        }
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

    /// A policy is there before who refers to it, and goes after.
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
        self.cache.apply(AUTHORIZATION_TYPE_URL, removals);
        for (kind, type_url) in [("address", ADDRESS_TYPE_URL), ("authorization", AUTHORIZATION_TYPE_URL)] {
            metrics::gauge!("strake_control_resources", "type" => kind).set(self.cache.len(type_url) as f64);
        }
    }
}
