//! The loop that looks at Gateways whenever something about them has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use kube_types::gateway::{Gateway, GatewayStatus};
use kube_types::{Kind, ObjectRef, Status, StatusError};
use runtime::{Backoff, Debounce};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use waypoint_manifests::{CLASS, ISTIO_CLASS, Overlays, is_unmanaged, parameters, validate};

use super::classes;
use super::cluster::Cluster;
use super::status::{Outcome, status};
use super::view::{Name, Snapshot, Waypoints, is_our_class};
use crate::conditions::now;

/// Changes that follow each other are looked at once: a new Deployment's pod changes several times a second.
const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(20), Duration::from_millis(200));

/// Pauses after failures of one Gateway.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Time after which Gateways with overlays are looked at again: ConfigMaps are not watched.
const OVERLAYS_AGAIN: Duration = Duration::from_secs(30);

/// Time after which every Gateway is looked at again: budgets and autoscalers are not watched, and somebody may have changed
/// or deleted one.
const ALL_AGAIN: Duration = Duration::from_secs(300);

/// Settings of the controller.
#[derive(Clone, Debug)]
pub(crate) struct ControllerConfig {
    /// Suffix of the host names of Services.
    pub(crate) cluster_domain: String,
    /// Namespace of class-wide defaults.
    pub(crate) root_namespace: String,
    /// Gateways of Istio's class are waypoints, too, unless an istiod runs in the cluster.
    pub(crate) istio_class: bool,
}

/// Maker of the objects of waypoints.
pub(crate) enum Making {
    /// Somebody else, who reads the same directory.
    Others,
    /// This controller.
    Cluster(Box<Cluster>),
}

/// See [`Controller::run`].
pub(crate) struct Controller {
    pub(crate) config: ControllerConfig,
    pub(crate) waypoints: Waypoints,
    pub(crate) status: Status,
    pub(crate) making: Making,
    known: BTreeMap<Name, Known>,
    /// Time to look at classes again, after one could not be made.
    classes_again: Option<Instant>,
}

/// Memory about a Gateway of this controller.
struct Known {
    /// Status that was written last.
    written: Option<GatewayStatus>,
    backoff: Backoff,
    /// Time of the next attempt.
    again: Option<Instant>,
    /// Failure that was logged last.
    told: String,
}

impl Default for Known {
    fn default() -> Self {
        Self { written: None, backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX), again: None, told: String::new() }
    }
}

impl Making {
    /// Objects in a cluster; `settings` is absent when no image is configured.
    pub(crate) fn cluster(
        objects: kube_cluster::Objects,
        leadership: kube_cluster::Leadership,
        settings: Option<waypoint_manifests::Settings>,
        config: &ControllerConfig,
    ) -> Self {
        Self::Cluster(Box::new(Cluster::new(objects, leadership, settings, config.root_namespace.clone())))
    }
}

impl Controller {
    pub(crate) fn new(config: ControllerConfig, waypoints: Waypoints, status: Status, making: Making) -> Self {
        Self { config, waypoints, status, making, known: BTreeMap::new(), classes_again: None }
    }

    /// Looks at Gateways as they change, in a cluster while this replica leads. Dropping it is safe between two requests: each
    /// leaves objects that the next look completes.
    pub(crate) async fn run(mut self) {
        let mut overlays_again = Instant::now() + OVERLAYS_AGAIN;
        let mut all_again = Instant::now() + ALL_AGAIN;
        loop {
            if !self.leads() {
                self.wait_to_lead().await;
                self.waypoints.mark_all();
            }
            let next = self.next_attempt().map_or(overlays_again, |next| next.min(overlays_again)).min(all_again);
            // Both arms may be dropped: a wake-up that comes meanwhile is stored.
            tokio::select! {
                () = self.waypoints.changed() => {
                    let burst = DEBOUNCE.begin();
                    while burst.next(self.waypoints.changed()).await.is_some() {}
                }
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            if now >= overlays_again {
                overlays_again = now + OVERLAYS_AGAIN;
                let with_overlays = self.waypoints.names(|gateway| !matches!(parameters(gateway), Ok(None)));
                self.waypoints.mark(with_overlays);
            }
            if now >= all_again {
                all_again = now + ALL_AGAIN;
                self.waypoints.mark_all();
            }
            self.look().await;
        }
    }

    fn leads(&self) -> bool {
        match &self.making {
            Making::Others => true,
            Making::Cluster(cluster) => cluster.leadership.is_leading(),
        }
    }

    async fn wait_to_lead(&self) {
        if let Making::Cluster(cluster) = &self.making
            && !cluster.leadership.clone().acquired().await
        {
            // The election has ended, and with it the program.
            std::future::pending::<()>().await;
        }
    }

    fn next_attempt(&self) -> Option<Instant> {
        self.known.values().filter_map(|known| known.again).chain(self.classes_again).min()
    }

    /// Looks at everything that is marked or due.
    async fn look(&mut self) {
        let Some(changes) = self.waypoints.take_changes() else { return };
        let now = Instant::now();
        if changes.classes || self.classes_again.is_some_and(|again| again <= now) {
            self.look_at_classes().await;
        }
        let due = self.known.iter().filter(|(_, known)| known.again.is_some_and(|again| again <= now));
        let due = due.map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for name in changes.gateways.into_iter().chain(due) {
            if !self.leads() {
                return;
            }
            self.look_at(&name).await;
        }
    }

    async fn look_at_classes(&mut self) {
        self.classes_again = None;
        if let Making::Cluster(cluster) = &self.making {
            let istio = self.config.istio_class && !self.waypoints.has_istiod();
            for name in [Some(CLASS), istio.then_some(ISTIO_CLASS)].into_iter().flatten() {
                if self.waypoints.class(name).is_some() {
                    continue;
                }
                // The definitions of the Gateway API may be installed later.
                if let Err(error) = classes::create(&cluster.objects, name).await {
                    tracing::debug!(%error, class = name, "class of waypoints not made; trying again");
                    self.classes_again = Some(Instant::now() + PAUSE_MAX);
                }
            }
        }
        for class in self.waypoints.classes() {
            if is_our_class(&class, self.config.istio_class && !self.waypoints.has_istiod())
                && let Some((key, patch)) = classes::condition(&class, &now())
                && let Err(error) = self.status.apply(&key, patch).await
            {
                tracing::warn!(error = chain(&error), "class of waypoints: failed to write its status");
            }
        }
    }

    async fn look_at(&mut self, name: &Name) {
        let Some(snapshot) = self.waypoints.snapshot(name, self.config.istio_class) else {
            // Gone, and what it owned with it.
            return self.forget(name).await;
        };
        let gateway = snapshot.gateway.clone();
        if gateway.metadata.deletion_timestamp.is_some() {
            return;
        }
        if !snapshot.is_ours {
            // It changed its class: what was made for it would serve it beside what its new controller makes.
            let outcome = if snapshot.has_parts { self.remove(&gateway).await } else { Outcome::Made };
            if self.note(name, &outcome) {
                self.forget(name).await;
            }
            return;
        }
        let outcome = self.make(&snapshot).await;
        self.note(name, &outcome);
        self.write(name, &snapshot, &outcome).await;
    }

    async fn make(&mut self, snapshot: &Snapshot) -> Outcome {
        let gateway = &*snapshot.gateway;
        if is_unmanaged(gateway) {
            let problems = validate(gateway);
            if !problems.is_empty() {
                return Outcome::Invalid(problems);
            }
            return if snapshot.has_parts { self.remove(gateway).await } else { Outcome::Made };
        }
        match &mut self.making {
            Making::Cluster(cluster) => cluster.make(gateway).await,
            Making::Others => {
                let mut problems = validate(gateway);
                let namespace = &gateway.metadata.namespace;
                let own =
                    parameters(gateway).ok().flatten().and_then(|name| self.waypoints.config_map(namespace, name));
                let defaults = self.waypoints.defaults(&self.config.root_namespace);
                let overlays = Overlays::of(gateway, &defaults, |_| own.as_deref());
                problems.extend(overlays.err().into_iter().flatten());
                if problems.is_empty() { Outcome::Made } else { Outcome::Invalid(problems) }
            }
        }
    }

    async fn remove(&mut self, gateway: &Gateway) -> Outcome {
        match &mut self.making {
            Making::Cluster(cluster) => cluster.remove(gateway).await,
            Making::Others => Outcome::Made,
        }
    }

    /// Sets the time of the next attempt; returns true if none is needed.
    fn note(&mut self, name: &Name, outcome: &Outcome) -> bool {
        let known = self.known.entry(name.clone()).or_default();
        let (Outcome::Failed(reason) | Outcome::Blocked(reason)) = outcome else {
            known.again = None;
            known.backoff.reset();
            known.told.clear();
            return true;
        };
        // Also when it is blocked: what blocks it may be an object that is not watched.
        known.again = Some(Instant::now() + known.backoff.pause());
        if known.told != *reason {
            let (namespace, gateway) = name;
            tracing::warn!(namespace, gateway, reason, "failed to make a waypoint; trying again");
            known.told.clone_from(reason);
        }
        false
    }

    async fn write(&mut self, name: &Name, snapshot: &Snapshot, outcome: &Outcome) {
        let new = status(snapshot, outcome, &self.config.cluster_domain, &now());
        let known = self.known.entry(name.clone()).or_default();
        if same(&new, &snapshot.gateway.status) {
            known.written = Some(new);
            return;
        }
        // The source may lag behind what was written.
        if known.written.as_ref().is_some_and(|written| same(&new, written)) {
            return;
        }
        match self.status.apply(&key(name), json!({ "status": new })).await {
            Ok(()) => known.written = Some(new),
            Err(error) => {
                let (namespace, gateway) = name;
                tracing::warn!(namespace, gateway, error = chain(&error), "failed to write the status of a waypoint");
                known.again = Some(Instant::now() + known.backoff.pause());
            }
        }
    }

    async fn forget(&mut self, name: &Name) {
        if self.known.remove(name).is_some_and(|known| known.written.is_some())
            && let Err(error) = self.status.clear(&key(name)).await
        {
            let (namespace, gateway) = name;
            tracing::warn!(namespace, gateway, error = chain(&error), "failed to clear the status of a waypoint");
        }
    }
}

fn key((namespace, name): &Name) -> ObjectRef {
    ObjectRef::new(Kind::Gateway, namespace, name)
}

/// Returns true if two statuses say the same, whatever the times of their conditions.
fn same(one: &GatewayStatus, other: &GatewayStatus) -> bool {
    let untimed = |status: &GatewayStatus| {
        let mut status = status.clone();
        let lists = status.listeners.iter_mut().map(|listener| &mut listener.conditions);
        for condition in status.conditions.iter_mut().chain(lists.flatten()) {
            condition.last_transition_time = None;
        }
        // Those of other writers are none of ours to compare.
        status.conditions.retain(|condition| ["Accepted", "Programmed"].contains(&condition.r#type.as_str()));
        status.conditions.sort_by(|a, b| a.r#type.cmp(&b.r#type));
        status
    };
    untimed(one) == untimed(other)
}

fn chain(error: &StatusError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
