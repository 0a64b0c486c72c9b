//! What the program says about itself: health, metrics, and dumps of what it serves to whom.
//!
//! Three pages of the admin socket are read by other programs; their fields stay, others may be added. Each
//! is a list, empty when there is nothing to say:
//!
//! - `/debug/findings`, in the order of objects: what the author of an object should know.
//!   `{"object": "AuthorizationPolicy app/web", "severity": "warning", "reason": "service_port", "field":
//!   "spec.rules[0].to[0].operation.ports[0]", "file": "/manifests/web.yaml", "line": 12, "message": "..."}`. `object` is
//!   kind, namespace and name; `severity` is `warning` or `info`; `reason` is a code of `graph::Reason`; `field` is empty
//!   when it is about the object as a whole; `file` and `line` are `null` when no manifest defines the object.
//! - `/debug/problems`, in the order of files: mistakes in manifests and what of them has no effect.
//!   `{"file": "/manifests/web.yaml", "line": 7, "kind": "AuthorizationPolicy", "namespace": "app", "name": "web", "field":
//!   "spec.rule", "message": "...", "severity": "error", "code": "unknown_field", "inForce": "last_good", "lastGood":
//!   "2026-01-02T03:04:05Z"}`. `line` is 0 and `field` empty where it is about the whole file, or about a directory;
//!   `kind`, `namespace` and `name` are empty as far as they are not known. `severity` is `error` (the document is not in
//!   force), `warning` (a kind that protects or routes traffic has no effect here) or `note` (something has no effect
//!   here); `code` is a name of `kube_types::Code`. `inForce` is `last_good` (then `lastGood` is when that state was first
//!   read), `nothing`, or `null` where nothing is kept out of force.
//! - `/debug/policies`, in the order of objects: what holds of each policy. `{"object": "AuthorizationPolicy app/web",
//!   "conditions": [{"type": "Enforced", "status": "True", "reason": "Enforced", "message": "..."}]}`. `status` is `True`,
//!   `False` or `Unknown`. The same conditions, with times, are in the object's status.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use serde_json::{Value, json};
use telemetry::http::{self, Request, Router};
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;
use xds_server::Cache;

use crate::proxies::Proxies;
use crate::reports::Reports;

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) cache: Cache,
    pub(crate) proxies: Proxies,
    pub(crate) reports: Reports,
    pub(crate) readiness: Readiness,
    pub(crate) recorder: Option<Recorder>,
    /// Paths of the manifests, to find the lines of what is reported.
    pub(crate) manifests: Arc<[PathBuf]>,
}

impl Pages {
    /// Health and metrics, for the monitoring address.
    pub(crate) fn monitoring(&self) -> Router {
        let ready = self.readiness.clone();
        let router = Router::new().get("/healthz", |_: Request| async { http::text(200, "ok\n") }).get(
            "/readyz",
            move |_: Request| {
                let ready = ready.clone();
                async move {
                    match ready.pending().await.as_slice() {
                        [] => http::text(200, "ready\n"),
                        pending => http::text(503, format!("not ready, pending: {}\n", pending.join(", "))),
                    }
                }
            },
        );
        let router = self.readiness.routes(router);
        match &self.recorder {
            Some(recorder) => recorder.routes(router),
            None => router,
        }
    }

    /// All of it, for the admin socket.
    pub(crate) fn admin(&self) -> Router {
        let page = |make: fn(&Self) -> Value| {
            let pages = self.clone();
            move |_: Request| {
                let body = make(&pages);
                async move { http::json(200, &body) }
            }
        };
        self.monitoring()
            .get("/debug/dump", page(Self::dump))
            .get("/debug/served", page(Self::served))
            .get("/debug/proxies", page(Self::connected))
            .get("/debug/problems", page(|pages| pages.reports.problems_json()))
            .get("/debug/findings", {
                let pages = self.clone();
                move |_: Request| pages.clone().findings()
            })
            .get("/debug/policies", page(|pages| pages.reports.policies_json()))
    }

    /// Reads manifests to find the lines, so it runs on a thread that may block.
    async fn findings(self) -> http::Response {
        let found = tokio::task::spawn_blocking(move || self.reports.located_findings_json(&self.manifests)).await;
        match found {
            Ok(body) => http::json(200, &body),
            Err(error) => http::text(500, format!("failed to locate the findings: {error}\n")),
        }
    }

    fn dump(&self) -> Value {
        json!({
            "inSync": self.cache.is_synced(),
            "served": self.served(),
            "proxies": self.connected(),
            "problems": self.reports.problems_json(),
            "findings": self.reports.findings_json(),
            "policies": self.reports.policies_json(),
        })
    }

    /// Versions by name, by type URL.
    fn served(&self) -> Value {
        let types = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL].map(|type_url| {
            let versions: BTreeMap<_, _> = self.cache.versions(type_url).into_iter().collect();
            let versions: BTreeMap<&str, &str> = versions.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
            (type_url, json!(versions))
        });
        json!(BTreeMap::from(types))
    }

    fn connected(&self) -> Value {
        json!(self.proxies.snapshot())
    }
}
