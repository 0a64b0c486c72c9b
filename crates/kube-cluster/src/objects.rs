//! Single objects of any kind: those that a program keeps itself, and those of an installation. Nothing is cached or watched.

use std::fmt;

use form_urlencoded::Serializer;
use http::Method;
use serde_json::{Value, json};

use crate::answer::ApiError;
use crate::api::{Api, Change};
use crate::connect::ApiServer;
use crate::page;
use crate::verb::Verb;

/// Content type of server-side apply.
// The body is JSON, which is YAML as well.
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// Objects of a page of a list.
const PAGE: &str = "500";

/// Kind of objects, as paths of the API name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// For instance `v1` or `apps/v1`.
    pub api_version: String,
    /// For instance `daemonsets`.
    pub plural: String,
    /// `None`: all namespaces in a list, none for a kind without namespaces.
    pub namespace: Option<String>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub collection: Collection,
    pub name: String,
}

/// Moment at which a deleted object is gone from the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// At once; what it owns follows.
    Background,
    /// After everything that it owns: a DaemonSet stays readable until the last of its pods has ended.
    Foreground,
}

/// A request that has no usable answer. It says nothing about the object.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct RequestError {
    text: String,
    is_transient: bool,
    is_denied: bool,
    is_conflict: bool,
}

impl RequestError {
    pub(crate) fn new(error: &ApiError, verb: Verb, what: &str) -> Self {
        let (is_transient, is_denied) = (error.is_transient(), error.is_denied());
        Self { text: error.explain(verb, what), is_transient, is_denied, is_conflict: error.is_conflict() }
    }

    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// The object is not what the request took it for: it has changed, or another manager has given a field another value.
    pub fn is_conflict(&self) -> bool {
        self.is_conflict
    }

    /// The credentials do not allow it.
    pub fn is_denied(&self) -> bool {
        self.is_denied
    }
}

impl Collection {
    /// Objects in a namespace.
    pub fn namespaced(api_version: &str, plural: &str, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::all(api_version, plural) }
    }

    /// Objects of all namespaces, or of a kind without namespaces.
    pub fn all(api_version: &str, plural: &str) -> Self {
        Self { api_version: api_version.to_owned(), plural: plural.to_owned(), namespace: None }
    }

    /// The object of this name.
    pub fn named(self, name: &str) -> Location {
        Location { collection: self, name: name.to_owned() }
    }

    fn page(&self, parameters: [(&str, Option<&str>); 3], token: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in parameters.into_iter().chain([("continue", token)]) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("{}?{}", self.path(), query.finish())
    }

    fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let Self { api_version, plural, namespace } = self;
        match namespace {
            Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}"),
            None => format!("/{root}/{api_version}/{plural}"),
        }
    }
}

impl Location {
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.collection.path(), self.name)
    }
}

impl fmt::Display for Location {
    /// As kubectl names it, with the namespace before the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { collection, name } = self;
        match &collection.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{name}", collection.plural),
            None => write!(f, "{} {name}", collection.plural),
        }
    }
}

/// Reads and writes single objects. Each request has a deadline of 30 s, a list 65 s a page.
#[derive(Clone)]
pub struct Objects {
    api: Api,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// Objects of an API server, with its credentials.
    pub fn new(server: &ApiServer) -> Self {
        Self { api: Api::new(server.client()) }
    }

    /// The object; `None` when the API server says that there is none.
    pub async fn get(&self, at: &Location) -> Result<Option<Value>, RequestError> {
        match self.api.get(&at.path()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(RequestError::new(&error, Verb::Get, &at.to_string())),
        }
    }

    /// Every object, of those that a field selector and a label selector choose. All pages are of the same moment: when a token
    /// has expired because pages came too slowly, everything is asked for anew, in one piece, as client-go does.
    pub async fn list(
        &self,
        of: &Collection,
        fields: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Value>, RequestError> {
        let listed = match self.pages(of, fields, labels, Some(PAGE)).await {
            Err(error) if error.is_expired() => {
                tracing::info!(of.plural, "a list took too long; listing in one piece");
                self.pages(of, fields, labels, None).await
            }
            listed => listed,
        };
        listed.map_err(|error| RequestError::new(&error, Verb::List, &of.plural))
    }

    async fn pages(
        &self,
        of: &Collection,
        fields: Option<&str>,
        labels: Option<&str>,
        limit: Option<&str>,
    ) -> Result<Vec<Value>, ApiError> {
        let (mut objects, mut token) = (Vec::new(), None::<String>);
        loop {
            let query = [("limit", limit), ("fieldSelector", fields), ("labelSelector", labels)];
            let page = self.api.page(&of.page(query, token.as_deref())).await?;
            let add = |object| {
                objects.push(object);
                Ok(())
            };
            let metadata = page::read(&page, add)?;
            token = metadata.r#continue.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Makes the object unless there is one; returns true if it was made.
    pub async fn create(&self, at: &Location, object: &Value) -> Result<bool, RequestError> {
        let path = at.collection.path();
        match self.api.change(Change { method: Method::POST, path: &path, content_type: JSON, body: object }).await {
            Ok(_) => Ok(true),
            // 409 `AlreadyExists`.
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(RequestError::new(&error, Verb::Create, &at.to_string())),
        }
    }

    /// Makes the object, or changes it to have these fields (server-side apply). Fields of this manager that are no longer
    /// given are removed; those of other managers are taken over where they differ.
    /// A `resourceVersion` in its metadata is a precondition.
    pub async fn apply(&self, at: &Location, object: &Value, manager: &str) -> Result<Value, RequestError> {
        self.send_apply(at, object, manager, true).await
    }

    /// Applies as [`Objects::apply`], but takes no field over from another manager.
    ///
    /// # Errors
    /// [`RequestError::is_conflict`] also when another manager has given a field another value.
    pub async fn apply_gently(&self, at: &Location, object: &Value, manager: &str) -> Result<Value, RequestError> {
        self.send_apply(at, object, manager, false).await
    }

    async fn send_apply(
        &self,
        at: &Location,
        object: &Value,
        manager: &str,
        is_forced: bool,
    ) -> Result<Value, RequestError> {
        // Without `force` a field to which another manager gave another value is a conflict.
        let force = if is_forced { "true" } else { "false" };
        let query =
            Serializer::new(String::new()).append_pair("fieldManager", manager).append_pair("force", force).finish();
        let path = format!("{}?{query}", at.path());
        let change = Change { method: Method::PATCH, path: &path, content_type: APPLY, body: object };
        self.api.change(change).await.map_err(|error| RequestError::new(&error, Verb::Patch, &at.to_string()))
    }

    /// Changes fields of an existing object (RFC 7396); `None` when there is none.
    pub async fn merge(&self, at: &Location, patch: &Value) -> Result<Option<Value>, RequestError> {
        let change = Change { method: Method::PATCH, path: &at.path(), content_type: MERGE, body: patch };
        match self.api.change(change).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(RequestError::new(&error, Verb::Patch, &at.to_string())),
        }
    }

    /// Deletes the object; returns false if there is none.
    pub async fn delete(&self, at: &Location, deletion: Deletion) -> Result<bool, RequestError> {
        self.send_delete(at, deletion, Value::Null).await
    }

    /// Deletes the object if it still is as it was read; what it owns follows.
    ///
    /// # Errors
    /// [`RequestError::is_conflict`] when it has changed since.
    pub async fn delete_unchanged(&self, at: &Location, read: &Value) -> Result<bool, RequestError> {
        let (uid, version) = (&read["metadata"]["uid"], &read["metadata"]["resourceVersion"]);
        self.send_delete(at, Deletion::Background, json!({"uid": uid, "resourceVersion": version})).await
    }

    async fn send_delete(&self, at: &Location, deletion: Deletion, preconditions: Value) -> Result<bool, RequestError> {
        let policy = match deletion {
            Deletion::Background => "Background",
            Deletion::Foreground => "Foreground",
        };
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if !preconditions.is_null() {
            body["preconditions"] = preconditions;
        }
        let change = Change { method: Method::DELETE, path: &at.path(), content_type: JSON, body: &body };
        match self.api.change(change).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(RequestError::new(&error, Verb::Delete, &at.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let secret = Collection::namespaced("v1", "secrets", "mesh").named("ca");
        let role = Collection::all("rbac.authorization.k8s.io/v1", "clusterroles").named("mesh");

        assert_eq!(secret.path(), "/api/v1/namespaces/mesh/secrets/ca");
        assert_eq!(role.path(), "/apis/rbac.authorization.k8s.io/v1/clusterroles/mesh");
        assert_eq!(
            (secret.to_string(), role.to_string()),
            ("secrets mesh/ca".to_owned(), "clusterroles mesh".to_owned())
        );
    }
}
