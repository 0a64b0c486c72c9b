//! One Event in the API: its name, and how often it was said.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime};

use kube_cluster::{Collection, Location, Objects, RequestError};
use kube_types::{Kind, Subject};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::standing::{Event, REPEAT};

/// Program that reports, as `kubectl describe` names it.
const COMPONENT: &str = "strake-control";

/// Namespace of Events about objects that are in none, as the API server demands it.
const CLUSTER_SCOPED: &str = "default";

/// Longest part of an Event's name that is the object's: names have at most 253 bytes.
const MAX_NAME: usize = 230;

/// Outcome of writing an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Created,
    /// It was there; its count has grown.
    Repeated,
    /// It was said so long ago, perhaps by another replica, which is no time.
    Current {
        age: Duration,
    },
    /// The API server has not taken it, for this reason.
    Failed(String),
}

impl Outcome {
    /// Stable: metric label.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Repeated => "repeated",
            Self::Current { .. } => "current",
            Self::Failed(_) => "failed",
        }
    }
}

/// Writes an Event, or counts up the one that there is. Replicas and restarts of the program find each other's.
pub(super) async fn post(objects: &Objects, event: &Event, instance: &str) -> Outcome {
    written(objects, event, instance).await.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

async fn written(objects: &Objects, event: &Event, instance: &str) -> Result<Outcome, RequestError> {
    let at = location(event);
    let now = OffsetDateTime::from(SystemTime::now());
    let time = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    if let Some(old) = objects.get(&at).await? {
        let age = age(&old, now).filter(|age| old["message"] == event.fact.text.as_str() && *age < REPEAT);
        if let Some(age) = age {
            return Ok(Outcome::Current { age });
        }
        let count = old["count"].as_u64().unwrap_or(1) + 1;
        let patch = json!({ "count": count, "lastTimestamp": time, "message": event.fact.text });
        // Expired since: written anew.
        if objects.merge(&at, &patch).await?.is_some() {
            return Ok(Outcome::Repeated);
        }
    }
    // Not made if another one was faster: then it has just been said.
    let is_made = objects.create(&at, &body(event, &at, instance, &time)).await?;
    Ok(if is_made { Outcome::Created } else { Outcome::Current { age: Duration::ZERO } })
}

/// Age of an Event by its last time; `None` if it has none that can be read.
fn age(event: &Value, now: OffsetDateTime) -> Option<Duration> {
    let last = OffsetDateTime::parse(event["lastTimestamp"].as_str()?, &Rfc3339).ok()?;
    // A clock that is ahead: as if it were now.
    Some(Duration::try_from(now - last).unwrap_or_default())
}

/// The name follows from object, reason and field alone: what is said again is the same Event.
fn location(event: &Event) -> Location {
    let Event { subject, origin: _, fact } = event;
    let mut hasher = DefaultHasher::new();
    (&subject.kind, &subject.namespace, &subject.name, &subject.uid, &fact.reason, &fact.field).hash(&mut hasher);
    let name: String = subject.name.chars().take(MAX_NAME).collect();
    let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    Collection::namespaced("v1", "events", namespace(subject)).named(&format!("{name}.{:016x}", hasher.finish()))
}

fn namespace(subject: &Subject) -> &str {
    if subject.namespace.is_empty() { CLUSTER_SCOPED } else { &subject.namespace }
}

fn body(event: &Event, at: &Location, instance: &str, time: &str) -> Value {
    let Event { subject, origin: _, fact } = event;
    let kind = Kind::ALL.iter().find(|kind| kind.name() == subject.kind);
    let mut involved = json!({ "kind": subject.kind, "name": subject.name, "uid": subject.uid });
    if !subject.namespace.is_empty() {
        involved["namespace"] = subject.namespace.as_str().into();
    }
    if let Some(kind) = kind {
        involved["apiVersion"] = kind.api_version().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": at.name, "namespace": namespace(subject) },
        "involvedObject": involved,
        "type": "Warning",
        "reason": fact.reason,
        "message": fact.text,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": { "component": COMPONENT },
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::fact::Fact;
    use crate::events::standing::Origin;

    fn event(name: &str, text: &str) -> Event {
        let subject = Subject { kind: "Namespace".to_owned(), name: name.to_owned(), ..Subject::default() };
        let fact = Fact { reason: "R".to_owned(), field: "f".to_owned(), text: text.to_owned() };
        Event { subject, origin: Origin::Findings, fact }
    }

    #[test]
    fn an_event_has_one_name_whatever_its_text_says() {
        assert_eq!(location(&event("app", "a")), location(&event("app", "b")));
        let name = location(&event("app", "a")).name;
        assert!(name.starts_with("app.") && name.len() == "app.".len() + 16, "{name}");
        let long = location(&event(&format!("{}-x{}", "a".repeat(MAX_NAME - 1), "b".repeat(20)), "a")).name;
        assert!(long.len() <= 253 && !long.contains("-."), "{long}");
    }

    #[test]
    fn an_object_without_namespace_has_its_events_in_default() {
        let event = event("app", "a");
        let at = location(&event);

        let body = body(&event, &at, "control-1", "2026-01-01T00:00:00Z");

        assert_eq!(body["metadata"]["namespace"], "default");
        assert_eq!(body["involvedObject"], json!({"apiVersion": "v1", "kind": "Namespace", "name": "app", "uid": ""}));
    }
}
