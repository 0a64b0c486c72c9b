//! Waypoints that an object is bound to, or the reason why it is not: what goes out, the condition and the finding.

use std::collections::BTreeSet;

use contract::labels::{
    USE_WAYPOINT_CANARY_LABEL, USE_WAYPOINT_LABEL, WAYPOINT_FAILURE_CLOSED, WAYPOINT_FAILURE_LABEL,
    WAYPOINT_FAILURE_OPEN,
};
use kube_types::core::Condition;
use kube_types::{Kind, ObjectRef};

use crate::finding::{Finding, Reason};
use crate::waypoint::{BindingError, GatewayAddress, UNAVAILABLE_WAYPOINT, WaypointName, Waypoints};
use crate::wish::FailureMode;

/// Type of the condition about the waypoint of a service. Istio's.
pub(crate) const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";

/// Reason of [`WAYPOINT_BOUND`] when it is true. Istio's.
const ACCEPTED: &str = "WaypointAccepted";

/// Result of looking for the waypoints of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The waypoint that the object or its namespace names.
    pub(crate) name: Option<WaypointName>,
    pub(crate) bound: Bound,
    pub(crate) canary: Option<Canary>,
    /// The object's own label names it.
    pub(crate) is_own: bool,
    /// Fate of connections while the waypoint cannot take them.
    pub(crate) mode: Option<FailureMode>,
    /// The object's own label says the mode: what it means for the object is not what it means for others of the namespace.
    pub(crate) is_own_mode: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bound {
    #[default]
    Nothing,
    To(GatewayAddress),
    /// Connections go to the endpoints directly.
    Failed(BindingError),
    /// Connections fail: the address is one that nobody has.
    Closed(BindingError, GatewayAddress),
}

impl Bound {
    /// Outcome of a search that has found nothing usable.
    pub(crate) fn failed(error: BindingError, (namespace, name): &WaypointName, mode: Option<FailureMode>) -> Self {
        if mode != Some(FailureMode::Closed) {
            return Self::Failed(error);
        }
        // Not the address of the waypoint: one that refuses these connections may be running there.
        let hostname = format!("{name}.{namespace}{UNAVAILABLE_WAYPOINT}");
        Self::Closed(error, GatewayAddress::Hostname { namespace: namespace.clone(), hostname })
    }
}

/// A second waypoint, with its share of the connections in percent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canary {
    pub(crate) name: WaypointName,
    pub(crate) outcome: Result<(GatewayAddress, u32), BindingError>,
}

impl Binding {
    /// The names that the outcome depends on.
    pub(crate) fn names(&self) -> BTreeSet<WaypointName> {
        self.name.iter().chain(self.canary.iter().map(|canary| &canary.name)).cloned().collect()
    }

    /// The same without a waypoint of another namespace, for a service that only its own namespace may see.
    pub(crate) fn within(mut self, namespace: &str) -> Self {
        let is_foreign = |(owner, _): &WaypointName| owner != namespace;
        // `Nothing` stays: the namespace's waypoint does not handle this traffic, which is no mistake of the entry.
        if let Some(name) = self.name.as_ref().filter(|name| is_foreign(name))
            && self.bound != Bound::Nothing
        {
            self.bound = Bound::failed(BindingError::ForeignForPrivate, name, self.mode);
        }
        if let Some(canary) = self.canary.as_mut().filter(|canary| is_foreign(&canary.name)) {
            canary.outcome = Err(BindingError::ForeignForPrivate);
        }
        self
    }

    pub(crate) fn address(&self) -> Option<&GatewayAddress> {
        match &self.bound {
            Bound::To(address) | Bound::Closed(_, address) => Some(address),
            Bound::Nothing | Bound::Failed(_) => None,
        }
    }

    /// The waypoints of a service; `ingress` as its labels ask.
    pub(crate) fn waypoints(&self, ingress: Option<bool>) -> Waypoints {
        let gateways = self.gateways();
        let Some(primary) = self.address() else { return Waypoints { gateways, ..Waypoints::default() } };
        // A canary that failed leaves all connections to the primary waypoint, rather than to none.
        let canary = self.canary.as_ref().filter(|_| matches!(self.bound, Bound::To(_)));
        let canary = canary.and_then(|canary| canary.outcome.clone().ok());
        let weighted = canary.map(|(canary, weight)| vec![(primary.clone(), 100 - weight), (canary, weight)]);
        Waypoints {
            primary: Some(primary.clone()),
            weighted: weighted.unwrap_or_default(),
            ingress: ingress == Some(true),
            gateways,
        }
    }

    /// The Gateways that have admitted the object, ready or not.
    fn gateways(&self) -> BTreeSet<WaypointName> {
        let is_admitted = matches!(
            self.bound,
            Bound::To(_) | Bound::Failed(BindingError::NotReady) | Bound::Closed(BindingError::NotReady, _)
        );
        let primary = self.name.iter().filter(|_| is_admitted);
        let is_used = |canary: &&Canary| matches!(canary.outcome, Ok(_) | Err(BindingError::NotReady));
        let canary = self.canary.iter().filter(is_used).map(|canary| &canary.name);
        primary.chain(canary).cloned().collect()
    }

    /// Reason why the second waypoint is not in use, in words.
    fn canary_failure(&self) -> Option<String> {
        let canary = self.canary.as_ref()?;
        canary.outcome.as_ref().err().map(|error| error.message(&canary.name))
    }

    /// Fate of connections when the waypoint cannot be used, in words.
    fn consequence(&self) -> String {
        match (&self.bound, self.mode) {
            (Bound::Closed(..), _) => {
                format!("connections fail ({WAYPOINT_FAILURE_LABEL}: {WAYPOINT_FAILURE_CLOSED})")
            }
            (_, Some(FailureMode::Open)) => {
                format!("connections go to the endpoints directly ({WAYPOINT_FAILURE_LABEL}: {WAYPOINT_FAILURE_OPEN})")
            }
            (Bound::Nothing | Bound::To(_) | Bound::Failed(_), _) => {
                "connections go to the endpoints directly".to_owned()
            }
        }
    }

    /// Condition of a service, if it or its namespace names a waypoint; `generation` is the service's.
    pub(crate) fn condition(&self, ingress: Option<bool>, generation: Option<i64>) -> Option<Condition> {
        let name = self.name.as_ref()?;
        let (status, reason, message) = match &self.bound {
            Bound::Nothing => return None,
            Bound::Failed(error) | Bound::Closed(error, _) => {
                let mut message = error.message(name);
                // Without the label the text is Istio's.
                if self.mode.is_some() {
                    message = format!("{message}; {}", self.consequence());
                }
                (false, error.reason(), message)
            }
            Bound::To(_) => {
                let mut message = format!("Successfully attached to waypoint {}/{}", name.0, name.1);
                match ingress {
                    Some(true) => message.push_str(". Ingress traffic will traverse the waypoint"),
                    // Istio's text, letter for letter: users and tools compare it.
                    Some(false) => message.push_str(
                        ". Ingress traffic is not using the waypoint, set the istio.io/ingress-use-waypoint label to true if desired.",
                    ),
                    // No label: Istio adds nothing then, either.
                    None => {}
                }
                if let Some(failure) = self.canary_failure() {
                    message = format!("{message}. The canary waypoint has no share: {failure}");
                }
                (true, ACCEPTED, message)
            }
        };
        Some(Condition {
            r#type: WAYPOINT_BOUND.to_owned(),
            status: status.into(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            observed_generation: generation,
            ..Condition::default()
        })
    }

    /// Findings on the object that names a waypoint which it does not get.
    pub(crate) fn findings(&self, key: &ObjectRef) -> Vec<Finding> {
        // A namespace that names it has the finding.
        if !self.is_own && !self.is_own_mode && key.kind != Kind::Namespace {
            return Vec::new();
        }
        let mut found = Vec::new();
        if let (Some(name), Bound::Failed(error) | Bound::Closed(error, _)) = (&self.name, &self.bound) {
            let message = format!("{}; {}", error.message(name), self.consequence());
            let named_by = if self.is_own { USE_WAYPOINT_LABEL } else { WAYPOINT_FAILURE_LABEL };
            found.push(Finding::warning(key, Reason::NoWaypoint, message).at(label(named_by)));
        }
        // Without a primary waypoint the canary has nothing to share, and the finding above says why.
        let is_here = self.is_own || key.kind == Kind::Namespace;
        if let (Some(failure), Bound::To(_), true) = (self.canary_failure(), &self.bound, is_here) {
            let message = format!("{failure}; all connections go to the other waypoint");
            found.push(Finding::warning(key, Reason::NoWaypoint, message).at(label(USE_WAYPOINT_CANARY_LABEL)));
        }
        found
    }
}

fn label(name: &str) -> String {
    format!("metadata.labels[{name:?}]")
}
