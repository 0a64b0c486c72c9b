//! Writes statuses: the conditions of policies and of services with waypoints, and the addresses of ServiceEntries.

use std::collections::HashMap;
use std::time::SystemTime;

use graph::ObjectStatus;
use kube_types::core::Condition;
use kube_types::{ClusterId, ObjectRef, Status};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

/// Conditions that wait to be written; who computes them waits when it is full.
const QUEUE: usize = 1024;

/// The conditions that an object should have, and those that it has.
#[derive(Debug)]
pub(crate) struct StatusUpdate {
    pub(crate) cluster: ClusterId,
    pub(crate) object: ObjectRef,
    pub(crate) status: ObjectStatus,
    /// Status as read from the object; the times of its conditions are kept where nothing changes.
    pub(crate) current: ObjectStatus,
}

/// Hands conditions to the writer.
pub(crate) type Sender = mpsc::Sender<StatusUpdate>;

/// A writer that ends when its sender is dropped.
pub(crate) fn writer(status: Status) -> (Sender, impl Future<Output = ()>) {
    let (sender, mut queue) = mpsc::channel::<StatusUpdate>(QUEUE);
    let run = async move {
        let mut written: HashMap<ObjectRef, ObjectStatus> = HashMap::new();
        while let Some(update) = queue.recv().await {
            // After the first write, what was written counts and not what was read: the source may lag behind.
            let old = written.remove(&update.object).unwrap_or(update.current);
            let ObjectStatus { conditions, addresses } = update.status;
            let conditions = with_times(conditions, &old.conditions, &now());
            let new = ObjectStatus { conditions, addresses };
            let result = if new.is_empty() {
                // The policy is gone: what was written for it would stay.
                status.clear(&update.object).await
            // Writing an equal status would start a round of events for nothing.
            } else if new == old {
                Ok(())
            } else {
                status.apply(&update.object, patch(&new)).await
            };
            match result {
                // Remembered only when it is written; after an error the next update compares with the object as it was
                // read.
                Ok(()) if !new.is_empty() => {
                    written.insert(update.object, new);
                }
                Ok(()) => {}
                Err(error) => {
                    let StatusUpdate { cluster, object, .. } = update;
                    tracing::error!(%cluster, %object, %error, code = "status_not_written", "failed to write status");
                }
            }
        }
    };
    (sender, run)
}

fn patch(status: &ObjectStatus) -> Value {
    let ObjectStatus { conditions, addresses } = status;
    // An empty list would claim the field.
    let mut fields = Map::new();
    if !conditions.is_empty() {
        fields.insert("conditions".to_owned(), json!(conditions));
    }
    if !addresses.is_empty() {
        fields.insert("addresses".to_owned(), json!(addresses));
    }
    json!({ "status": fields })
}

/// A condition keeps its time while its status stays.
pub(crate) fn with_times(mut conditions: Vec<Condition>, old: &[Condition], now: &str) -> Vec<Condition> {
    for condition in &mut conditions {
        let before = old.iter().find(|old| old.r#type == condition.r#type && old.status == condition.status);
        let time = before.and_then(|old| old.last_transition_time.clone());
        condition.last_transition_time = Some(time.unwrap_or_else(|| now.to_owned()));
    }
    conditions
}

/// The time, as conditions have it.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::from(SystemTime::now());
    // Whole seconds, as Kubernetes writes them.
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube_types::core::ConditionStatus;

    use super::*;

    fn condition(status: ConditionStatus, time: Option<&str>) -> Condition {
        Condition {
            r#type: "ZtunnelAccepted".to_owned(),
            status,
            last_transition_time: time.map(str::to_owned),
            ..Condition::default()
        }
    }

    #[test]
    fn the_time_changes_with_the_status_only() {
        let old = [condition(ConditionStatus::True, Some("before"))];

        let same = with_times(vec![condition(ConditionStatus::True, None)], &old, "now");
        let other = with_times(vec![condition(ConditionStatus::False, None)], &old, "now");

        assert_eq!(same[0].last_transition_time.as_deref(), Some("before"));
        assert_eq!(other[0].last_transition_time.as_deref(), Some("now"));
        assert!(now().ends_with('Z'), "{}", now());
    }
}
