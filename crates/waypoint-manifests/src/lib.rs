//! The objects that run a waypoint (ServiceAccount, Service, Deployment, PodDisruptionBudget, HorizontalPodAutoscaler) as a pure
//! function of its Gateway, of overlays and of the installation's settings. It talks to no API server and knows no state.

mod merge;
mod overlays;
mod parts;
mod problem;
mod render;
mod settings;

pub use overlays::{OVERLAY_KINDS, Overlays, parameters};
pub use parts::{Part, PartKind, owner_labels};
pub use problem::{Problem, ProblemReason};
pub use render::{Names, names, render, validate};
pub use settings::{SECURITY_ID, Settings};

use kube_types::gateway::Gateway;
use serde_json::{Value, json};

/// Class of waypoints that this controller makes.
pub const CLASS: &str = "strake-waypoint";

/// `controllerName` of [`CLASS`].
pub const CONTROLLER_NAME: &str = "strake.io/waypoint-controller";

/// Istio's class of waypoints.
pub const ISTIO_CLASS: &str = "istio-waypoint";

/// `controllerName` of [`ISTIO_CLASS`].
pub const ISTIO_CONTROLLER_NAME: &str = "istio.io/mesh-controller";

/// Version of the rendered objects. A controller leaves parts of a higher version alone: a newer one has made them.
pub const CONTROLLER_VERSION: u32 = 1;

/// Name of the program, of its container and of its image.
pub const PROGRAM: &str = "waypoint";

/// A GatewayClass as it is made when there is none of the name; `None` for a name that is not known here.
pub fn gateway_class(name: &str) -> Option<Value> {
    let (controller, description) = match name {
        CLASS => (CONTROLLER_NAME, "Waypoints of Strake"),
        ISTIO_CLASS => (ISTIO_CONTROLLER_NAME, "Waypoints of the mesh, by the class name of Istio"),
        _ => return None,
    };
    Some(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        // Its removal with the mesh looks for the label.
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "strake"}},
        "spec": {"controllerName": controller, "description": description},
    }))
}

/// Returns true if the user, and not a controller, runs what serves the Gateway.
pub fn is_unmanaged(gateway: &Gateway) -> bool {
    !gateway.spec.addresses.is_empty()
}
