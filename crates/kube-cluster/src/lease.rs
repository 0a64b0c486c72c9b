//! The Lease object (coordination.k8s.io/v1) that replicas of a program share.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::answer::{ApiError, InvalidAnswer};
use crate::api::{Api, Change};

/// Time without renewal after which another replica takes the Lease. client-go's.
pub(crate) const DURATION: Duration = Duration::from_secs(15);

/// Name and namespace of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A Lease as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// resourceVersion: another one means that its holder is alive.
    pub(crate) version: String,
    pub(crate) spec: Spec,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    /// Empty or absent: nobody.
    pub(crate) holder_identity: Option<String>,
    pub(crate) lease_duration_seconds: Option<u64>,
    pub(crate) acquire_time: Option<String>,
    pub(crate) renew_time: Option<String>,
    pub(crate) lease_transitions: Option<u64>,
}

impl Spec {
    pub(crate) fn holder(&self) -> Option<&str> {
        self.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Time without renewal after which it may be taken.
    pub(crate) fn duration(&self) -> Duration {
        self.lease_duration_seconds.map_or(DURATION, Duration::from_secs)
    }

    /// The specification with which `identity` holds the Lease after this one.
    pub(crate) fn held_by(&self, identity: &str) -> Self {
        let now = Some(now());
        let was_ours = self.holder() == Some(identity);
        let transitions = self.lease_transitions.unwrap_or_default();
        Self {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: Some(DURATION.as_secs()),
            // client-go's rules, so that `kubectl get lease` shows what people know.
            acquire_time: if was_ours { self.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if was_ours || self.acquire_time.is_none() {
                transitions
            } else {
                transitions + 1
            }),
        }
    }

    /// The specification that lets another replica take the Lease at once.
    pub(crate) fn released(&self) -> Self {
        Self {
            holder_identity: Some(String::new()),
            // As client-go releases it: a second, because Kubernetes refuses a duration of 0.
            lease_duration_seconds: Some(1),
            renew_time: Some(now()),
            ..self.clone()
        }
    }
}

/// Kubernetes' MicroTime.
fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from(SystemTime::now()).format(format).unwrap_or_default()
}

impl LeaseName {
    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    pub(crate) async fn get(&self, api: &Api) -> Result<Lease, ApiError> {
        read(api.get(&format!("{}/{}", self.collection(), self.name)).await?)
    }

    /// Fails with a conflict when there is one.
    pub(crate) async fn create(&self, api: &Api, spec: &Spec) -> Result<Lease, ApiError> {
        let body = self.body(spec, None);
        let path = self.collection();
        let change = Change { method: http::Method::POST, path: &path, content_type: "application/json", body: &body };
        read(api.change(change).await?)
    }

    /// Fails with a conflict when the Lease is no longer of this version.
    pub(crate) async fn update(&self, api: &Api, version: &str, spec: &Spec) -> Result<Lease, ApiError> {
        let body = self.body(spec, Some(version));
        let path = format!("{}/{}", self.collection(), self.name);
        let change = Change { method: http::Method::PUT, path: &path, content_type: "application/json", body: &body };
        read(api.change(change).await?)
    }

    fn body(&self, spec: &Spec, version: Option<&str>) -> Value {
        let mut metadata = json!({ "name": self.name, "namespace": self.namespace });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec })
    }
}

fn read(object: Value) -> Result<Lease, ApiError> {
    let version = object["metadata"]["resourceVersion"].as_str().ok_or(InvalidAnswer::NoVersion)?.to_owned();
    let spec = object.get("spec").map(Spec::deserialize).transpose()?.unwrap_or_default();
    Ok(Lease { version, spec })
}
