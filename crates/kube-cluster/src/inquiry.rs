//! Questions to an API server about itself and about the permissions of who asks.

use std::time::SystemTime;

use http::Method;
use serde_json::json;
use time::macros::format_description;

use crate::api::{Api, Change};
use crate::connect::ApiServer;
use crate::objects::RequestError;
use crate::verb::Verb;

/// An API server about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// For instance `v1.33.1`.
    pub version: String,
    /// Time in the head of its answer, in whole seconds; `None` when there is none.
    pub clock: Option<SystemTime>,
}

/// Asks an API server for its version and its clock.
///
/// # Errors
/// [`RequestError`].
pub async fn server_facts(server: &ApiServer) -> Result<ServerFacts, RequestError> {
    let failed = |error| RequestError::new(&error, Verb::Get, "the version");
    let (head, version) = Api::new(server.client()).with_head("/version").await.map_err(failed)?;
    let clock = head.get(http::header::DATE).and_then(|value| clock(value.to_str().ok()?));
    Ok(ServerFacts { version: version["gitVersion"].as_str().unwrap_or_default().to_owned(), clock })
}

/// An HTTP date (RFC 9110, section 5.6.7), in its only form that servers send.
fn clock(text: &str) -> Option<SystemTime> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    Some(time::PrimitiveDateTime::parse(text, &form).ok()?.assume_utc().into())
}

/// Asks whether the user may do something (SelfSubjectAccessReview). `resource` may name a subresource, as `pods/portforward`.
///
/// # Errors
/// [`RequestError`].
pub async fn may(
    server: &ApiServer,
    verb: &str,
    (group, resource): (&str, &str),
    namespace: Option<&str>,
) -> Result<bool, RequestError> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
        } },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let change = Change { method: Method::POST, path, content_type: "application/json", body: &body };
    let answer = Api::new(server.client()).change(change).await;
    let answer = answer.map_err(|error| RequestError::new(&error, Verb::Create, "a SelfSubjectAccessReview"))?;
    Ok(answer["status"]["allowed"].as_bool().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);

        assert_eq!(clock("Sun, 06 Nov 1994 08:49:37 GMT"), Some(expected));
        assert_eq!(clock("yesterday"), None);
    }
}
