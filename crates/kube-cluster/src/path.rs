//! Paths of the API: of groups, of collections, of objects.

use form_urlencoded::Serializer;
use kube_types::{Kind, ObjectRef};

use crate::watched::Watched;

/// Objects of a page. client-go asks for as many.
const PAGE: &str = "500";

/// Path of a version of a kind's group, where the API server says which resources it serves.
pub(crate) fn group(kind: Kind, version: &str) -> String {
    match kind.group() {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}

/// Path of all objects of a kind, or of those in a namespace.
pub(crate) fn collection(kind: Kind, version: &str, namespace: Option<&str>) -> String {
    let (group, plural) = (group(kind, version), kind.plural());
    match namespace.filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}

/// Path of an object.
pub(crate) fn object(key: &ObjectRef, version: &str) -> String {
    let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    format!("{}/{}", collection(key.kind, version, namespace), key.name)
}

/// Version of a kind that new objects have.
pub(crate) fn preferred(kind: Kind) -> &'static str {
    kind.versions().next().unwrap_or("v1")
}

/// Request for a page of a list: all in one when `is_paged` is false; `token` continues an earlier page. Without a
/// resourceVersion the answer is the newest state: a cache that lags behind would show objects as they were, and leave out
/// those that are new.
pub(crate) fn list(watched: &Watched, version: &str, is_paged: bool, token: Option<&str>) -> String {
    let mut query = selectors(watched);
    if is_paged {
        query.append_pair("limit", PAGE);
    }
    if let Some(token) = token {
        query.append_pair("continue", token);
    }
    with_query(watched, version, &query.finish())
}

/// Request for changes after `position`, which the API server ends after `seconds`.
pub(crate) fn watch(watched: &Watched, version: &str, position: &str, seconds: u64) -> String {
    let mut query = selectors(watched);
    query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
    query.append_pair("resourceVersion", position).append_pair("timeoutSeconds", &seconds.to_string());
    with_query(watched, version, &query.finish())
}

fn selectors(watched: &Watched) -> Serializer<'static, String> {
    let mut query = Serializer::new(String::new());
    for (name, selector) in [("fieldSelector", &watched.fields), ("labelSelector", &watched.labels)] {
        if let Some(selector) = selector {
            query.append_pair(name, selector);
        }
    }
    query
}

fn with_query(watched: &Watched, version: &str, query: &str) -> String {
    let path = collection(watched.kind, version, watched.namespace.as_deref());
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(collection(Kind::Pod, "v1", None), "/api/v1/pods");
        assert_eq!(collection(Kind::Pod, "v1", Some("app")), "/api/v1/namespaces/app/pods");
        assert_eq!(collection(Kind::Node, "v1", Some("app")), "/api/v1/nodes");
        let policy = ObjectRef::new(Kind::PeerAuthentication, "app", "strict");
        let path = "/apis/security.istio.io/v1beta1/namespaces/app/peerauthentications/strict";
        assert_eq!(object(&policy, "v1beta1"), path);
        assert_eq!(object(&ObjectRef::new(Kind::Node, "", "n1"), "v1"), "/api/v1/nodes/n1");
    }

    #[test]
    fn selectors_and_tokens_are_encoded() {
        let watched = Watched::all(Kind::Pod).with_fields("spec.nodeName=n1").with_labels("a in (b,c)");
        assert_eq!(
            list(&watched, "v1", true, Some("a+b/=")),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=a+in+%28b%2Cc%29&limit=500&continue=a%2Bb%2F%3D"
        );
        assert_eq!(list(&Watched::all(Kind::Node), "v1", false, None), "/api/v1/nodes");
        assert_eq!(
            watch(&Watched::all(Kind::Node), "v1", "7", 300),
            "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=300"
        );
    }
}
