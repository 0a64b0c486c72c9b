//! TokenReview (authentication.k8s.io/v1): the ServiceAccount, pod and node that a bearer token belongs to.

use std::collections::HashMap;
use std::fmt;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::answer::ApiError;
use crate::api::{Api, Change};
use crate::connect::ApiServer;
use crate::verb::Verb;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Names of ServiceAccounts begin with it; namespace and name follow.
const USER: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Kubernetes 1.30 and newer.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Owner of a token that the API server has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    pub namespace: String,
    pub service_account: String,
    /// The pod that the token is bound to. It exists: the token of a deleted pod is invalid.
    pub pod: Option<BoundPod>,
}

/// Pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    pub name: String,
    pub uid: String,
    /// Node of the pod; API servers before Kubernetes 1.30 do not say.
    pub node: Option<String>,
}

/// Reason why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server says that the token is no good, or it is not a ServiceAccount's.
    #[error("{0}")]
    Invalid(String),
    /// The API server was not asked, or its answer is unusable.
    #[error("{0}")]
    Unchecked(String),
}

/// Asks the API server about tokens. Clones share connections.
#[derive(Clone)]
pub struct TokenReviewer {
    api: Api,
    audience: String,
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// Accepts tokens that were issued for `audience` alone, for instance `istio-ca`.
    pub fn new(server: &ApiServer, audience: &str) -> Self {
        Self { api: Api::new(server.client()), audience: audience.to_owned() }
    }

    /// Owner of a token. The token is sent to the API server, and kept nowhere.
    pub async fn review(&self, token: &str) -> Result<TokenOwner, ReviewError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        });
        let change = Change { method: Method::POST, path: PATH, content_type: "application/json", body: &body };
        let unchecked = |error: ApiError| ReviewError::Unchecked(error.explain(Verb::Create, "tokenreviews"));
        let answer = self.api.change(change).await.map_err(unchecked)?;
        let review = Review::deserialize(answer).map_err(|error| unchecked(error.into()))?;
        review.status.owner(&self.audience)
    }
}

#[derive(Debug, Default, Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    error: String,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: HashMap<String, Vec<String>>,
}

impl Status {
    fn owner(self, audience: &str) -> Result<TokenOwner, ReviewError> {
        if !self.authenticated {
            let said = if self.error.is_empty() { "no reason is given" } else { &self.error };
            return Err(ReviewError::Invalid(format!("the API server refuses the token: {said}")));
        }
        // A server that knows no audiences has checked the token for itself, and any pod's own token would do.
        if !self.audiences.iter().any(|known| known == audience) {
            return Err(ReviewError::Invalid(format!("the token is not for the audience {audience}")));
        }
        let user = self.user.username.as_str();
        let names = user.strip_prefix(USER).and_then(|names| names.split_once(':'));
        let Some((namespace, name)) = names.filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
        else {
            return Err(ReviewError::Invalid(format!("{user} is not a ServiceAccount")));
        };
        let one = |key: &str| self.user.extra.get(key).and_then(|values| values.first()).cloned();
        let pod = one(POD_NAME).zip(one(POD_UID)).map(|(name, uid)| BoundPod { name, uid, node: one(NODE_NAME) });
        Ok(TokenOwner { namespace: namespace.to_owned(), service_account: name.to_owned(), pod })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn owner(status: Value) -> Result<TokenOwner, ReviewError> {
        Status::deserialize(status).unwrap().owner("istio-ca")
    }

    fn good() -> Value {
        json!({
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:istio-system:ztunnel",
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["ztunnel-x"],
                    "authentication.kubernetes.io/pod-uid": ["7"],
                    "authentication.kubernetes.io/node-name": ["n1"],
                },
            },
        })
    }

    #[test]
    fn a_bound_token_names_account_pod_and_node() {
        let pod = BoundPod { name: "ztunnel-x".to_owned(), uid: "7".to_owned(), node: Some("n1".to_owned()) };
        let (namespace, service_account) = ("istio-system".to_owned(), "ztunnel".to_owned());

        assert_eq!(owner(good()), Ok(TokenOwner { namespace, service_account, pod: Some(pod) }));
    }

    #[test]
    fn nothing_but_a_service_account_with_the_right_audience_is_an_owner() {
        let mut refused = good();
        refused["authenticated"] = false.into();
        refused["error"] = "token expired".into();
        let mut other_audience = good();
        other_audience["audiences"] = json!(["https://kubernetes.default.svc"]);
        let mut no_audience = good();
        no_audience.as_object_mut().unwrap().remove("audiences");
        let mut person = good();
        person["user"]["username"] = "jane".into();
        let mut nameless = good();
        nameless["user"]["username"] = "system:serviceaccount:istio-system:".into();

        for (status, reason) in [
            (refused, "token expired"),
            (other_audience, "audience istio-ca"),
            (no_audience, "audience istio-ca"),
            (person, "jane is not a ServiceAccount"),
            (nameless, "is not a ServiceAccount"),
            (json!({}), "no reason is given"),
        ] {
            let error = owner(status).unwrap_err();
            assert!(matches!(&error, ReviewError::Invalid(text) if text.contains(reason)), "{error}");
        }
    }

    #[test]
    fn a_token_that_is_bound_to_no_pod_has_none() {
        let mut unbound = good();
        unbound["user"].as_object_mut().unwrap().remove("extra");

        assert_eq!(owner(unbound).unwrap().pod, None);
    }
}
