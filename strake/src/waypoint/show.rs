//! Waypoints as tables.

use contract::labels::WAYPOINT_FOR_LABEL;
use kube_types::core::{Condition, ConditionStatus};
use kube_types::gateway::Gateway;

use crate::get::table::or_dash;

pub(super) const HEADER: [&str; 6] = ["NAMESPACE", "NAME", "FOR", "CLASS", "READY", "ADDRESS"];

pub(super) const CONDITIONS: [&str; 6] = ["NAMESPACE", "NAME", "CONDITION", "STATUS", "REASON", "MESSAGE"];

/// Condition that is true while a waypoint takes connections.
const PROGRAMMED: &str = "Programmed";

/// A line of the list.
pub(super) fn row(gateway: &Gateway) -> Vec<String> {
    let (meta, status) = (&gateway.metadata, &gateway.status);
    let traffic = meta.labels.get(WAYPOINT_FOR_LABEL).map_or("service", String::as_str);
    let ready = condition(gateway, PROGRAMMED).map_or("Unknown", |condition| condition.status.name());
    let addresses: Vec<_> = status.addresses.iter().map(|address| address.value.as_str()).collect();
    let class = &gateway.spec.gateway_class_name;
    let cells = [&meta.namespace, &meta.name, traffic, class, ready, &or_dash(&addresses.join(", "))];
    cells.map(str::to_owned).to_vec()
}

/// A line for each condition; one without conditions when there are none.
pub(super) fn conditions(gateway: &Gateway) -> Vec<Vec<String>> {
    let line = |cells: [&str; 4]| {
        let names = [gateway.metadata.namespace.as_str(), gateway.metadata.name.as_str()];
        names.iter().chain(&cells).map(|cell| or_dash(cell)).collect::<Vec<_>>()
    };
    let conditions = gateway.status.conditions.iter().map(|condition| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        line([&condition.r#type, condition.status.name(), &text(&condition.reason), &text(&condition.message)])
    });
    let lines: Vec<_> = conditions.collect();
    if lines.is_empty() { vec![line(["", "", "", "no control plane has written a status"])] } else { lines }
}

/// Reason why a waypoint is not ready; `None`: it is, with its newest specification.
pub(super) fn unready(gateway: &Gateway) -> Option<String> {
    let Some(found) = condition(gateway, PROGRAMMED) else {
        return Some("no control plane has written a status".to_owned());
    };
    // A condition about an older specification says nothing about this one.
    if found.observed_generation < gateway.metadata.generation {
        return Some("its newest specification has not been seen yet".to_owned());
    }
    if found.status == ConditionStatus::True {
        return None;
    }
    let refused = condition(gateway, "Accepted").filter(|accepted| accepted.status == ConditionStatus::False);
    let condition = refused.unwrap_or(found);
    let reason = condition.reason.as_deref().unwrap_or("Unknown");
    Some(format!("{reason}: {}", condition.message.as_deref().unwrap_or_default()))
}

fn condition<'a>(gateway: &'a Gateway, name: &str) -> Option<&'a Condition> {
    gateway.status.conditions.iter().find(|condition| condition.r#type == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(status: serde_json::Value) -> Gateway {
        serde_json::from_value(
            json!({"metadata": {"name": "w", "namespace": "shop", "generation": 2}, "status": status}),
        )
        .unwrap()
    }

    fn programmed(status: &str, generation: i64) -> serde_json::Value {
        json!({"conditions": [{"type": "Programmed", "status": status, "observedGeneration": generation,
            "reason": "Pending", "message": "0 of 1 pods are ready"}]})
    }

    #[test]
    fn a_waypoint_is_ready_when_its_newest_specification_is() {
        assert_eq!(unready(&gateway(programmed("True", 2))), None);
        assert!(unready(&gateway(programmed("True", 1))).unwrap().contains("has not been seen"));
        assert_eq!(unready(&gateway(programmed("False", 2))).as_deref(), Some("Pending: 0 of 1 pods are ready"));
        assert!(unready(&gateway(json!({}))).unwrap().contains("no control plane"));
    }

    #[test]
    fn a_refusal_is_the_reason_before_what_follows_from_it() {
        let mut status = programmed("False", 2);
        status["conditions"].as_array_mut().unwrap().push(
            json!({"type": "Accepted", "status": "False", "reason": "ListenersNotValid", "message": "two listeners"}),
        );

        assert_eq!(unready(&gateway(status)).as_deref(), Some("ListenersNotValid: two listeners"));
    }

    #[test]
    fn a_line_has_all_addresses() {
        let with = json!({"addresses": [{"type": "Hostname", "value": "w.shop"}, {"value": "10.0.0.1"}]});

        assert_eq!(row(&gateway(with)), ["shop", "w", "service", "", "Unknown", "w.shop, 10.0.0.1"]);
        assert_eq!(conditions(&gateway(json!({}))).len(), 1);
    }
}
