//! Waypoints: which Gateway is one, and who may use it. Which of them an object asks for: see `wish`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use contract::address::parse_address;
use contract::labels::{WAYPOINT_FOR_LABEL, WAYPOINT_INBOUND_BINDING_ANNOTATION};
use kube_types::core::ConditionStatus;
use kube_types::gateway::{AllowedRoutes, Gateway, GatewayClass, Listener};
use kube_types::{LabelSelector, ObjectMeta, StringMap};

/// Port of a waypoint for HBONE.
pub const WAYPOINT_PORT: u16 = 15008;

/// End of the host name that discovery has in place of a waypoint which cannot take connections, `NAME.NAMESPACE` before it.
// RFC 6761: no name below `invalid` exists, so that a node proxy fails such connections.
pub const UNAVAILABLE_WAYPOINT: &str = ".waypoint.invalid";

/// Condition of a Gateway that is true while what serves it can take connections. Of the Gateway API.
const PROGRAMMED: &str = "Programmed";

/// Protocol of the listener for HBONE.
const HBONE: &str = "HBONE";

/// Address of a waypoint; its port is [`WAYPOINT_PORT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    /// Host name of a service, and the namespace of that.
    Hostname {
        namespace: String,
        hostname: String,
    },
    Address(IpAddr),
}

/// Waypoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waypoints {
    pub primary: Option<GatewayAddress>,
    /// Waypoints that share the connections, with their weights; empty when the primary one has all.
    pub weighted: Vec<(GatewayAddress, u32)>,
    /// Ingress gateways send to the waypoint, too.
    pub ingress: bool,
    /// Namespaces and names of the Gateways whose waypoints need the routes of the service, also while one is not ready: it
    /// has to know them before the first connection.
    pub gateways: BTreeSet<(String, String)>,
}

/// Namespace and name of a Gateway.
pub(crate) type WaypointName = (String, String);

/// Kind of traffic that an object needs a waypoint for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Connections to the addresses of a service.
    Service,
    /// Connections to the address of a workload.
    Workload,
}

/// A Gateway that can be a waypoint: it has been ready at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waypoint {
    namespace: String,
    address: GatewayAddress,
    /// Value of [`WAYPOINT_FOR_LABEL`].
    traffic: String,
    admits: Admission,
    /// Its condition `Programmed` is not false: what runs it says nothing else.
    is_ready: bool,
}

/// Namespaces whose objects may use a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admission {
    Same,
    All,
    Nobody,
    Selector(LabelSelector),
}

/// Reason why an object has no waypoint although it asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindingError {
    NotReady,
    Denied,
    UnsupportedTraffic(Traffic),
    ForeignForPrivate,
    CanaryWeight,
    CanaryIsPrimary,
}

impl Traffic {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
        }
    }
}

impl Waypoint {
    /// Reads a Gateway of any class. `None` before it is ready: it has no address that a connection could go to.
    pub(crate) fn of(gateway: &Gateway, class: Option<&GatewayClass>) -> Option<Self> {
        let class = class.map(|class| &class.metadata);
        let label = |meta: &ObjectMeta| meta.labels.get(WAYPOINT_FOR_LABEL).cloned();
        Some(Self {
            namespace: gateway.metadata.namespace.clone(),
            // A Gateway that lost its address is no waypoint either: there is nowhere to connect to.
            address: address(gateway)?,
            traffic: label(&gateway.metadata)
                .or_else(|| class.and_then(label))
                .unwrap_or_else(|| Traffic::Service.name().to_owned()),
            admits: admission(gateway, class),
            is_ready: !gateway
                .status
                .conditions
                .iter()
                .any(|condition| condition.r#type == PROGRAMMED && condition.status == ConditionStatus::False),
        })
    }

    pub(crate) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(crate) const fn address(&self) -> &GatewayAddress {
        &self.address
    }

    pub(crate) fn handles(&self, traffic: Traffic) -> bool {
        // `none` and unknown values are neither, so that the waypoint handles nothing.
        self.traffic == "all" || self.traffic == traffic.name()
    }

    /// Returns true if objects of a namespace with these labels may use it.
    pub(crate) fn admits(&self, namespace: &str, labels: &StringMap) -> bool {
        match &self.admits {
            Admission::Same => self.namespace == namespace,
            Admission::All => true,
            Admission::Nobody => false,
            Admission::Selector(selector) => selector.matches(labels),
        }
    }
}

/// Address from the status: a host name before an IP address, because it does not change hands.
fn address(gateway: &Gateway) -> Option<GatewayAddress> {
    let of_type = |wanted: &'static str| {
        let addresses = gateway.status.addresses.iter();
        // Gateway API: `type` defaults to `IPAddress`.
        addresses.filter(move |address| address.r#type.as_deref().unwrap_or("IPAddress") == wanted)
    };
    let hostname = of_type("Hostname").next().map(|address| GatewayAddress::Hostname {
        namespace: gateway.metadata.namespace.clone(),
        hostname: address.value.clone(),
    });
    let ip = || of_type("IPAddress").find_map(|address| parse_address(&address.value)).map(GatewayAddress::Address);
    hostname.or_else(ip)
}

fn admission(gateway: &Gateway, class: Option<&ObjectMeta>) -> Admission {
    // The Gateway's own annotation before that of its class.
    let binding = [Some(&gateway.metadata), class]
        .into_iter()
        .flatten()
        .find_map(|meta| meta.annotations.get(WAYPOINT_INBOUND_BINDING_ANNOTATION));
    let listeners = || gateway.spec.listeners.iter();
    let bound = binding.and_then(|binding| listeners().find(|listener| is_bound(listener, binding)));
    let hbone = || listeners().find(|listener| listener.protocol == HBONE && listener.port == WAYPOINT_PORT);
    // An annotation that names no listener of the Gateway falls back to the one for HBONE.
    let routes = bound.or_else(hbone).and_then(|listener| listener.allowed_routes.as_ref());
    let namespaces = routes.and_then(|AllowedRoutes { namespaces }| namespaces.as_ref());
    // Gateway API: without `allowedRoutes.namespaces` a listener is for its own namespace.
    let Some(namespaces) = namespaces else { return Admission::Same };
    match namespaces.from.as_deref() {
        Some("All") => Admission::All,
        Some("None") => Admission::Nobody,
        // Without a selector nothing is selected.
        Some("Selector") => namespaces.selector.clone().map_or(Admission::Nobody, Admission::Selector),
        Some(_) | None => Admission::Same,
    }
}

/// Returns true if a listener is the one that an annotation `PROTOCOL/PORT` or `PROTOCOL` names.
fn is_bound(listener: &Listener, binding: &str) -> bool {
    match binding.split_once('/') {
        Some((_, port)) => port.parse() == Ok(listener.port),
        None => binding == "PROXY" && listener.protocol == "istio.io/PROXY",
    }
}

impl BindingError {
    /// Stable: reason of the condition, Istio's.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::NotReady => "WaypointIsNotReady",
            Self::Denied => "AttachmentDenied",
            Self::UnsupportedTraffic(_) => "UnsupportedTrafficType",
            Self::ForeignForPrivate => "CrossNamespaceWaypointForbidden",
            Self::CanaryWeight => "CanaryInvalidWeight",
            Self::CanaryIsPrimary => "CanarySameAsPrimary",
        }
    }

    /// Message of the condition, as Istio's where it has one.
    pub(crate) fn message(self, (namespace, name): &WaypointName) -> String {
        let waypoint = format!("{namespace}/{name}");
        match self {
            Self::NotReady => format!("waypoint {waypoint:?} is not ready"),
            Self::Denied => {
                format!("we are not permitted to attach to waypoint {waypoint:?} (missing allowedRoutes?)")
            }
            Self::UnsupportedTraffic(traffic) => format!(
                "attempting to bind to traffic type {:?} which the waypoint {waypoint:?} does not support",
                traffic.name()
            ),
            Self::ForeignForPrivate => format!(
                "cannot bind to waypoint {waypoint:?} in another namespace: cross-namespace waypoint binding is not permitted for a ServiceEntry with NAMESPACE visibility"
            ),
            Self::CanaryWeight => {
                format!("canary waypoint {waypoint:?} has an invalid weight; must be an integer in [0,100]")
            }
            Self::CanaryIsPrimary => {
                format!("canary waypoint {waypoint:?} must differ from the primary waypoint")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(json: serde_json::Value) -> Gateway {
        serde_json::from_value(json).unwrap()
    }

    fn with_listener(listener: serde_json::Value) -> Option<Waypoint> {
        let gateway = gateway(serde_json::json!({
            "metadata": {"name": "w", "namespace": "a"},
            "spec": {"listeners": [listener]},
            "status": {"addresses": [{"type": "IPAddress", "value": "10.0.0.1"}]},
        }));
        Waypoint::of(&gateway, None)
    }

    #[test]
    fn a_gateway_without_an_address_is_no_waypoint() {
        let none = gateway(serde_json::json!({"metadata": {"name": "w"}}));
        assert_eq!(Waypoint::of(&none, None), None);
        let invalid =
            gateway(serde_json::json!({"status": {"addresses": [{"value": "x"}, {"type": "Named", "value": "y"}]}}));
        assert_eq!(Waypoint::of(&invalid, None), None);
    }

    #[test]
    fn a_host_name_is_preferred_to_an_address() {
        let both = gateway(serde_json::json!({
            "metadata": {"name": "w", "namespace": "a"},
            "status": {"addresses": [{"value": "10.0.0.1"}, {"type": "Hostname", "value": "w.a.svc"}]},
        }));

        let waypoint = Waypoint::of(&both, None).unwrap();

        let expected = GatewayAddress::Hostname { namespace: "a".to_owned(), hostname: "w.a.svc".to_owned() };
        assert_eq!(waypoint.address(), &expected);
    }

    #[test]
    fn the_listener_for_hbone_says_which_namespaces_may_use_it() {
        let from = |from: &str| {
            serde_json::json!({"protocol": "HBONE", "port": 15008, "allowedRoutes": {"namespaces": {
                "from": from, "selector": {"matchLabels": {"team": "x"}},
            }}})
        };
        let team = StringMap::from([("team".to_owned(), "x".to_owned())]);
        let none = StringMap::new();
        for (listener, own, other, labelled) in [
            (from("All"), true, true, true),
            (from("Same"), true, false, false),
            (from("None"), false, false, false),
            (from("Selector"), false, false, true),
            (serde_json::json!({"protocol": "HBONE", "port": 15008}), true, false, false),
            (
                serde_json::json!({"protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}),
                true,
                false,
                false,
            ),
        ] {
            let waypoint = with_listener(listener.clone()).unwrap();
            let found = (waypoint.admits("a", &none), waypoint.admits("b", &none), waypoint.admits("b", &team));
            assert_eq!(found, (own, other, labelled), "{listener}");
        }
    }

    #[test]
    fn the_label_of_the_gateway_wins_over_that_of_its_class() {
        let class = |traffic: &str| -> GatewayClass {
            serde_json::from_value(serde_json::json!({"metadata": {"labels": {"istio.io/waypoint-for": traffic}}}))
                .unwrap()
        };
        let address = serde_json::json!({"addresses": [{"value": "10.0.0.1"}]});
        let plain = gateway(serde_json::json!({"metadata": {}, "status": address}));
        let own = gateway(
            serde_json::json!({"metadata": {"labels": {"istio.io/waypoint-for": "workload"}}, "status": address}),
        );
        for (gateway, class, service, workload) in [
            (&plain, None, true, false),
            (&plain, Some(class("all")), true, true),
            (&plain, Some(class("none")), false, false),
            (&own, Some(class("all")), false, true),
        ] {
            let waypoint = Waypoint::of(gateway, class.as_ref()).unwrap();
            assert_eq!((waypoint.handles(Traffic::Service), waypoint.handles(Traffic::Workload)), (service, workload));
        }
    }
}
