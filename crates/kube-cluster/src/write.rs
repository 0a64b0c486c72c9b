//! One write of a status: its request, and what the answer means.

use http::Method;
use kube_types::{Kind, ObjectRef, Patch};
use serde_json::{Map, Value, json};

use crate::answer::ApiError;
use crate::api::{Api, Change};
use crate::path;

/// Content types of patches.
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// Outcome of a write.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The object has it, in this version.
    Written { version: String },
    /// The object is gone, or another one has its name.
    Gone,
    /// The same request may succeed later.
    Failed(ApiError),
    /// It never will.
    Refused(ApiError),
}

/// A write that is to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    path: String,
    content_type: &'static str,
    body: Value,
    has_uid: bool,
}

impl Request {
    /// `None` removes what `manager` wrote; of a pod, `annotations`.
    pub(crate) fn new(key: &ObjectRef, patch: Option<&Patch>, manager: &str, annotations: &[String]) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("fieldManager", manager);
        let uid = patch.and_then(|patch| patch.uid.as_deref());
        let (content_type, body) = if checks_uid(key.kind) {
            // Not by apply: it shares an annotation with whoever wrote the same value, and cannot remove it then.
            let nulls = || json!({ "metadata": { "annotations": nulls(annotations) } });
            let mut body = patch.map_or_else(nulls, |patch| patch.value.clone());
            if let Some(uid) = uid {
                body["metadata"]["uid"] = uid.into();
            }
            (MERGE, body)
        } else {
            // A status has one owner; what another one left of it is replaced.
            query.append_pair("force", "true");
            (APPLY, applied(key, patch))
        };
        // The subresource: it cannot change a specification, and needs no permission to.
        let path = format!("{}/status?{}", path::object(key, path::preferred(key.kind)), query.finish());
        Self { path, content_type, body, has_uid: uid.is_some() }
    }

    pub(crate) async fn send(self, api: &Api) -> Outcome {
        let Self { path, content_type, body, has_uid } = self;
        match api.change(Change { method: Method::PATCH, path: &path, content_type, body: &body }).await {
            Ok(object) => {
                // An empty version is none that was seen, so that at worst the patch is written once more.
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                Outcome::Written { version: version.to_owned() }
            }
            Err(error) if is_gone(&error, has_uid) => Outcome::Gone,
            Err(error) if error.is_transient() => Outcome::Failed(error),
            Err(error) => Outcome::Refused(error),
        }
    }
}

/// Returns true if the API server compares the uid of a patch with that of the object. Of a custom resource it ignores all
/// metadata of a patch of the status.
pub(crate) fn checks_uid(kind: Kind) -> bool {
    kind == Kind::Pod
}

fn nulls(annotations: &[String]) -> Map<String, Value> {
    annotations.iter().map(|name| (name.clone(), Value::Null)).collect()
}

/// The partial object that a manager owns.
fn applied(key: &ObjectRef, patch: Option<&Patch>) -> Value {
    let mut body = match patch.map(|patch| patch.value.clone()) {
        Some(Value::Object(fields)) => Value::Object(fields),
        // An apply without fields removes those that this manager has written.
        Some(_) | None => json!({}),
    };
    body["apiVersion"] = key.kind.api_version().into();
    body["kind"] = key.kind.name().into();
    body["metadata"]["name"] = key.name.as_str().into();
    if key.kind.is_namespaced() {
        body["metadata"]["namespace"] = key.namespace.as_str().into();
    }
    body
}

/// An API server says that there is no such object, or that its uid is another. A 404 without reason is of a path that it
/// does not serve.
fn is_gone(error: &ApiError, has_uid: bool) -> bool {
    let ApiError::Refused(refusal) = error else { return false };
    // A patch cannot change a uid: that of the object is another.
    error.is_not_found() || refusal.code == 422 && has_uid && refusal.message.contains("metadata.uid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_applied_to_the_status_alone() {
        let key = ObjectRef::new(Kind::PeerAuthentication, "app", "strict");
        let patch = Patch { uid: None, value: json!({"status": {"conditions": []}}) };

        let request = Request::new(&key, Some(&patch), "strake-control", &[]);

        assert_eq!(
            request.path,
            "/apis/security.istio.io/v1/namespaces/app/peerauthentications/strict/status?fieldManager=strake-control&force=true"
        );
        assert_eq!(request.content_type, APPLY);
        assert_eq!(
            request.body,
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": "strict", "namespace": "app"}, "status": {"conditions": []},
            })
        );
        assert_eq!(Request::new(&key, None, "m", &[]).body.get("status"), None, "an owner of nothing");
    }

    #[test]
    fn an_annotation_of_a_pod_is_set_and_removed_whoever_wrote_it() {
        let key = ObjectRef::new(Kind::Pod, "app", "web");
        let patch = Patch { uid: Some("7".to_owned()), value: json!({"metadata": {"annotations": {"a": "b"}}}) };

        let set = Request::new(&key, Some(&patch), "strake-agent", &["a".to_owned()]);
        let removed = Request::new(&key, None, "strake-agent", &["a".to_owned()]);

        assert_eq!(set.path, "/api/v1/namespaces/app/pods/web/status?fieldManager=strake-agent");
        assert_eq!(set.body, json!({"metadata": {"annotations": {"a": "b"}, "uid": "7"}}));
        assert_eq!(removed.body, json!({"metadata": {"annotations": {"a": null}}}));
        assert_eq!((set.content_type, removed.content_type), (MERGE, MERGE));
    }
}
