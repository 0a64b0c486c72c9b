//! GatewayClasses: made when they are missing, and never changed afterwards, so that what a user sets on them stays.

use kube_cluster::{Collection, Objects, RequestError};
use kube_types::core::{Condition, ConditionStatus};
use kube_types::gateway::GatewayClass;
use kube_types::{Kind, ObjectRef};
use serde_json::json;
use waypoint_manifests::gateway_class;

use crate::conditions::with_times;

/// Makes a class unless there is one of the name.
pub(super) async fn create(objects: &Objects, name: &str) -> Result<(), RequestError> {
    let Some(class) = gateway_class(name) else { return Ok(()) };
    let at = Collection::all("gateway.networking.k8s.io/v1", "gatewayclasses").named(name);
    if objects.create(&at, &class).await? {
        tracing::info!(%at, "class of waypoints created");
    }
    Ok(())
}

/// The condition that a class of this controller should have; `None` when it has it.
pub(super) fn condition(class: &GatewayClass, now: &str) -> Option<(ObjectRef, serde_json::Value)> {
    let generation = class.metadata.generation;
    let accepted = Condition {
        r#type: "Accepted".to_owned(),
        status: ConditionStatus::True,
        reason: Some("Accepted".to_owned()),
        message: Some("Gateways of this class are waypoints of the mesh".to_owned()),
        observed_generation: generation,
        ..Condition::default()
    };
    let conditions = with_times(vec![accepted], &class.status.conditions, now);
    if class.status.conditions.iter().any(|old| *old == conditions[0]) {
        return None;
    }
    let key = ObjectRef::new(Kind::GatewayClass, "", &class.metadata.name);
    Some((key, json!({"status": {"conditions": conditions}})))
}
