//! Single requests of a program, beside reading kinds and writing statuses: each is made when it is called, once. Who calls
//! tries again.

use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::answer::{ApiError, InvalidAnswer};
use crate::api::{Api, Change};
use crate::connect::ApiServer;
use crate::objects::{Collection, Objects, RequestError};
use crate::rules::Rule;
use crate::verb::Verb;

/// Attempts to change a node that others change at the same time.
const CONFLICTS: usize = 5;

/// Content type of a patch.
const MERGE: &str = "application/merge-patch+json";

/// A token of a ServiceAccount. It has no `Debug`: it is a secret.
pub struct ServiceAccountToken {
    pub token: String,
    pub expires: SystemTime,
}

/// State of an object, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    /// Somebody has deleted it, and it is not gone yet.
    Deleting,
    Absent,
}

/// Asks for a token of a ServiceAccount that is bound to nothing: it outlives the pod that asks.
///
/// # Errors
/// [`RequestError`].
pub async fn request_token(
    server: &ApiServer,
    (namespace, name): (&str, &str),
    lifetime: Duration,
) -> Result<ServiceAccountToken, RequestError> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        // Without audiences it is for the API server itself.
        "spec": { "expirationSeconds": lifetime.as_secs() },
    });
    let change = Change { method: Method::POST, path: &path, content_type: "application/json", body: &body };
    let explained = |error| explain(&error, Verb::Create, &format!("a token of ServiceAccount {namespace}/{name}"));
    let answer = Api::new(server.client()).change(change).await.map_err(explained)?;
    token(&answer).ok_or_else(|| explained(InvalidAnswer::NoToken.into()))
}

fn token(answer: &Value) -> Option<ServiceAccountToken> {
    let token = answer["status"]["token"].as_str().filter(|token| !token.is_empty())?.to_owned();
    let expires = OffsetDateTime::parse(answer["status"]["expirationTimestamp"].as_str()?, &Rfc3339).ok()?;
    Some(ServiceAccountToken { token, expires: expires.into() })
}

/// The permission that [`request_token`] needs.
pub fn token_rule(namespace: &str, name: &str) -> Rule {
    Rule {
        namespace: Some(namespace.to_owned()),
        api_group: String::new(),
        resource: "serviceaccounts/token".to_owned(),
        names: vec![name.to_owned()],
        verbs: vec![Verb::Create],
    }
}

/// Looks for a DaemonSet.
///
/// # Errors
/// [`RequestError`]: nothing is known then.
pub async fn find_daemon_set(server: &ApiServer, namespace: &str, name: &str) -> Result<Presence, RequestError> {
    let at = Collection::namespaced("apps/v1", "daemonsets", namespace).named(name);
    Ok(match Objects::new(server).get(&at).await? {
        // A foreground deletion keeps the DaemonSet until its pods are gone.
        Some(object) if object["metadata"]["deletionTimestamp"].is_string() => Presence::Deleting,
        Some(_) => Presence::Present,
        None => Presence::Absent,
    })
}

/// The permission that [`find_daemon_set`] needs.
pub fn daemon_set_rule(namespace: &str, name: &str) -> Rule {
    Rule {
        namespace: Some(namespace.to_owned()),
        api_group: "apps".to_owned(),
        resource: "daemonsets".to_owned(),
        names: vec![name.to_owned()],
        verbs: vec![Verb::Get],
    }
}

/// Removes the taints with this key from a node, and nothing that others have changed meanwhile. Returns true if there were some.
///
/// # Errors
/// [`RequestError`].
pub async fn remove_taint(server: &ApiServer, node: &str, key: &str) -> Result<bool, RequestError> {
    let api = Api::new(server.client());
    let path = format!("/api/v1/nodes/{node}");
    let resource = format!("nodes of {node}");
    let mut conflicts = 0;
    loop {
        let found: Value = api.get(&path).await.map_err(|error| explain(&error, Verb::Get, &resource))?;
        let Some(body) = without_taint(&found, key) else { return Ok(false) };
        let change = Change { method: Method::PATCH, path: &path, content_type: MERGE, body: &body };
        match api.change(change).await {
            Ok(_) => return Ok(true),
            Err(error) if error.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
            Err(error) => return Err(explain(&error, Verb::Patch, &resource)),
        }
    }
}

/// The patch that removes the taint from this version of a node; `None` when it has no such taint. A list is replaced by a
/// merge patch as a whole, so that the version is a condition.
fn without_taint(node: &Value, key: &str) -> Option<Value> {
    let taints = node["spec"]["taints"].as_array()?;
    let kept: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
    (kept.len() < taints.len()).then(|| {
        json!({
            "metadata": { "resourceVersion": node["metadata"]["resourceVersion"] },
            // RFC 7396: `null` removes a field.
            "spec": { "taints": if kept.is_empty() { Value::Null } else { json!(kept) } },
        })
    })
}

/// The permission that [`remove_taint`] needs. RBAC cannot bind it to one node for each pod of a DaemonSet.
pub fn taint_rule() -> Rule {
    Rule {
        namespace: None,
        api_group: String::new(),
        resource: "nodes".to_owned(),
        names: Vec::new(),
        verbs: vec![Verb::Get, Verb::Patch],
    }
}

fn explain(error: &ApiError, verb: Verb, resource: &str) -> RequestError {
    RequestError::new(error, verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_taint_of_that_key_is_removed_from_that_version() {
        let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
        let node = |taints: Value| json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}});

        let patch = without_taint(&node(json!([taint("a"), taint("ours"), taint("b")])), "ours").unwrap();

        assert_eq!(patch, json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [taint("a"), taint("b")]}}));
        let last = without_taint(&node(json!([taint("ours")])), "ours").unwrap();
        assert_eq!(last["spec"], json!({"taints": null}));
        assert_eq!(without_taint(&node(json!([taint("a")])), "ours"), None);
        assert_eq!(without_taint(&node(Value::Null), "ours"), None);
    }

    #[test]
    fn a_token_comes_with_its_end() {
        let answer = json!({"status": {"token": "t", "expirationTimestamp": "2030-01-01T00:00:10Z"}});

        let found = token(&answer).unwrap();

        assert_eq!(found.token, "t");
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_010);
        assert_eq!(found.expires, end);
        assert!(token(&json!({"status": {"token": ""}})).is_none());
    }
}
