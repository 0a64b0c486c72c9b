//! Health, metrics, and dumps of the resources that are served to each proxy.
//!
//! Pages of the admin socket that other programs read are types of `contract::admin::control`, and, for problems of manifests,
//! `kube_types::SourceProblem`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use contract::admin::READY_PATH;
use contract::admin::control::{FINDINGS_PATH, POLICIES_PATH, PROBLEMS_PATH, PROXIES_PATH, ROUTES_PATH};
use prost::Message as _;
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, waypoint as wire};
use serde_json::{Value, json};
use telemetry::http::{self, Request, Router};
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;
use xds_server::Cache;

use crate::debug;
use crate::proxies::Proxies;
use crate::reports::Reports;

/// Sources of the pages.
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
            READY_PATH,
            move |_: Request| {
                let ready = ready.clone();
                async move {
                    match ready.pending().await.as_slice() {
                        // Beside the readiness page that all programs have: this one says what is missing, for people.
                        [] => http::text(200, "ready\n"),
                        pending => http::text(503, format!("not ready, pending: {}\n", pending.join(", "))),
                    }
                }
            },
        );
        // As istioctl asks every control plane.
        let version = json!({ "clientVersion": { "version": env!("CARGO_PKG_VERSION") } });
        let router = router.get("/version", move |_: Request| {
            let answer = http::json(200, &version);
            async move { answer }
        });
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
        let absent = debug::ABSENT.iter().fold(self.monitoring(), |router, (_, path, reason)| {
            router.get(path, move |_: Request| async move { http::text(404, format!("{reason}\n")) })
        });
        absent
            .get("/debug/dump", page(Self::dump))
            .get("/debug/served", page(Self::served))
            .get("/debug/syncz", page(|pages| debug::syncz_page(&pages.proxies.all())))
            .get("/debug/connections", page(|pages| debug::connections_page(&pages.proxies.all())))
            .get(PROXIES_PATH, page(Self::connected))
            .get(PROBLEMS_PATH, page(|pages| json!(pages.reports.problems())))
            .get(FINDINGS_PATH, {
                let pages = self.clone();
                move |_: Request| pages.clone().findings()
            })
            .get(POLICIES_PATH, page(|pages| json!(pages.reports.policies())))
            .get(ROUTES_PATH, page(Self::routes))
    }

    /// Names of the pages over discovery.
    pub(crate) const NAMES: [&str; 9] =
        ["connections", "dump", "findings", "policies", "problems", "proxies", "routes", "served", "syncz"];

    /// A page by its name, without lines of manifests: they would have to be read.
    pub(crate) fn page(&self, name: &str) -> Option<Value> {
        Some(match name {
            "connections" => debug::connections_page(&self.proxies.all()),
            "dump" => self.dump(),
            "findings" => json!(self.reports.findings_list()),
            "policies" => json!(self.reports.policies()),
            "problems" => json!(self.reports.problems()),
            "proxies" => self.connected(),
            "routes" => self.routes(),
            "served" => self.served(),
            "syncz" => debug::syncz_page(&self.proxies.all()),
            _ => return None,
        })
    }

    /// Reads manifests to find the lines, so it runs on a thread that may block.
    async fn findings(self) -> http::Response {
        let found = tokio::task::spawn_blocking(move || self.reports.located_findings(&self.manifests)).await;
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
            "problems": self.reports.problems(),
            "findings": self.reports.findings_list(),
            "policies": self.reports.policies(),
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

    /// Routes as they are served, in the order in which waypoints try them.
    fn routes(&self) -> Value {
        let mut routes = Vec::new();
        for (gateway, name, bytes) in self.cache.of_waypoints() {
            let resource = wire::Resource::decode(bytes).map_err(|error| error.to_string());
            match resource.and_then(|resource| compile::describe(&gateway, &name, &resource)) {
                Ok(found) => routes.extend(found),
                // Made by this process, so it is a mistake of it.
                Err(error) => tracing::error!(gateway, %name, error, code = "route_unreadable", "routes not readable"),
            }
        }
        json!(routes)
    }

    fn connected(&self) -> Value {
        json!(self.proxies.snapshot())
    }
}
