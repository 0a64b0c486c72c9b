//! One write of a status: its requests, and what the answers mean. What a status becomes is in `merge`.

use std::sync::Arc;

use http::Method;
use kube_types::{Kind, ObjectRef, Patch};
use serde_json::{Map, Value, json};

use crate::answer::ApiError;
use crate::api::{Api, Change};
use crate::election::Leadership;
use crate::merge::{Merged, merge};
use crate::path;
use crate::status::Owned;
use crate::verb::Verb;

/// Content type of patches.
const MERGE: &str = "application/merge-patch+json";

/// Outcome of a write.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The object has it, in this version.
    Written { version: String },
    /// The object had it already, in this version.
    Same { version: String },
    /// The object is gone, or another one has its name.
    Gone,
    /// Another writer has described a later generation of the object.
    Superseded,
    /// This replica does not lead any more; nothing was written.
    NotLeading,
    /// The same request may succeed later.
    Failed(Verb, ApiError),
    /// It never will.
    Refused(Verb, ApiError),
}

impl Outcome {
    /// Stable: metric label.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Written { .. } => "written",
            Self::Same { .. } => "unchanged",
            Self::Gone => "gone",
            Self::Superseded => "superseded",
            Self::NotLeading => "not_leading",
            Self::Failed(_, error) if error.is_conflict() => "conflict",
            Self::Failed(..) => "failed",
            Self::Refused(..) => "refused",
        }
    }

    fn of(verb: Verb, error: ApiError) -> Self {
        // A 404 that does not name the object is of a path that is not served now: an API server that starts does not
        // serve custom resources at once.
        let may_come_back = error.is_absent() && !error.is_not_found();
        if may_come_back || error.is_transient() { Self::Failed(verb, error) } else { Self::Refused(verb, error) }
    }
}

/// A write that is to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    kind: Kind,
    /// Of the subresource `status`: it cannot change a specification, and needs no permission to.
    path: String,
    manager: String,
    /// `None` removes what the program wrote.
    patch: Option<Patch>,
    owned: Arc<Owned>,
}

impl Request {
    pub(crate) fn new(key: &ObjectRef, patch: Option<Patch>, manager: &str, owned: &Arc<Owned>) -> Self {
        let path = format!("{}/status", path::object(key, path::preferred(key.kind)));
        Self { kind: key.kind, path, manager: manager.to_owned(), patch, owned: Arc::clone(owned) }
    }

    /// Writes; `leadership` is looked at again before each change.
    pub(crate) async fn send(self, api: &Api, leadership: Option<&Leadership>) -> Outcome {
        let body = if checks_uid(self.kind) {
            self.annotations()
        } else {
            let object: Value = match api.get(&self.path).await {
                Ok(object) => object,
                Err(error) if error.is_not_found() => return Outcome::Gone,
                Err(error) => return Outcome::of(Verb::Get, error),
            };
            match merge(&object, self.patch.as_ref().map(|patch| &patch.value), &self.owned) {
                Merged::Patch(body) => body,
                Merged::Same => return Outcome::Same { version: version(&object) },
                Merged::Superseded => return Outcome::Superseded,
            }
        };
        // Reading may have taken long.
        if leadership.is_some_and(|leadership| !leadership.is_leading()) {
            return Outcome::NotLeading;
        }
        let has_uid = self.patch.as_ref().is_some_and(|patch| patch.uid.is_some());
        let path = self.patch_path();
        match api.change(Change { method: Method::PATCH, path: &path, content_type: MERGE, body: &body }).await {
            Ok(object) => Outcome::Written { version: version(&object) },
            Err(error) if is_gone(&error, has_uid) => Outcome::Gone,
            Err(error) => Outcome::of(Verb::Patch, error),
        }
    }

    fn patch_path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("fieldManager", &self.manager);
        format!("{}?{}", self.path, query.finish())
    }

    /// The patch of a pod's annotations. Not by server-side apply: it shares an annotation with whoever wrote the same value,
    /// and cannot remove it then.
    fn annotations(&self) -> Value {
        let Some(patch) = &self.patch else {
            let nulls = self.owned.annotations.iter().map(|name| (name.clone(), Value::Null));
            return json!({ "metadata": { "annotations": nulls.collect::<Map<_, _>>() } });
        };
        let mut body = patch.value.clone();
        if let Some(uid) = &patch.uid {
            body["metadata"]["uid"] = uid.as_str().into();
        }
        body
    }
}

/// Returns true if the API server compares the uid of a patch with that of the object. Of a custom resource it ignores all
/// metadata of a patch of the status but the resourceVersion.
pub(crate) fn checks_uid(kind: Kind) -> bool {
    kind == Kind::Pod
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
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
    fn an_annotation_of_a_pod_is_set_and_removed_whoever_wrote_it() {
        let key = ObjectRef::new(Kind::Pod, "app", "web");
        let owned = Arc::new(Owned { annotations: vec!["a".to_owned()], ..Owned::default() });
        let patch = Patch { uid: Some("7".to_owned()), value: json!({"metadata": {"annotations": {"a": "b"}}}) };

        let set = Request::new(&key, Some(patch), "strake-agent", &owned);
        let removed = Request::new(&key, None, "strake-agent", &owned);

        assert_eq!(set.patch_path(), "/api/v1/namespaces/app/pods/web/status?fieldManager=strake-agent");
        assert_eq!(set.annotations(), json!({"metadata": {"annotations": {"a": "b"}, "uid": "7"}}));
        assert_eq!(removed.annotations(), json!({"metadata": {"annotations": {"a": null}}}));
    }
}
