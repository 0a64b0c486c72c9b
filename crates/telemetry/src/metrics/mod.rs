//! The metric recorder and Istio's traffic metrics. Other metrics are made where they happen, with the `metrics` macros.
//!
//! A counter that was not touched for [`IDLE`] disappears. Whoever keeps a handle of a counter longer than that must
//! take it anew, as [`TrafficHandles`] does; the macros do by themselves.

mod render;
mod traffic;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::http::{Request, Response, Router, typed};

pub use traffic::{PeerLabels, Reporter, SocketGuard, SocketsOpen, TrafficCache, TrafficHandles, TrafficLabels};

/// After this long without change a counter or histogram is no longer shown.
pub const IDLE: Duration = Duration::from_secs(3600);

const DNS_BUCKETS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];
const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";

/// Metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Another recorder is installed.
    #[error("metrics were already set up")]
    Twice,
    /// The exporter refused its settings.
    #[error("metrics: {0}")]
    Exporter(#[from] metrics_exporter_prometheus::BuildError),
}

/// Reads what was recorded. Clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<PrometheusHandle>);

/// Makes the recorder of this process.
///
/// # Errors
/// When there is one already.
pub fn install() -> Result<Recorder, MetricsError> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
    Ok(Recorder(Arc::new(handle)))
}

fn builder() -> Result<PrometheusBuilder, MetricsError> {
    let expiring = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
    let dns = Matcher::Full("istio_dns_upstream_request_duration_seconds".into());
    Ok(PrometheusBuilder::new().idle_timeout(expiring, Some(IDLE)).set_buckets_for_metric(dns, &DNS_BUCKETS)?)
}

impl Recorder {
    /// Everything, as OpenMetrics text: families in order of their names, `# EOF` at the end.
    #[must_use]
    pub fn render(&self) -> String {
        render::open_metrics(&self.0.render())
    }

    /// Folds recorded samples of histograms together. Call every few seconds when nobody scrapes.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// Adds `GET /metrics` and `GET /stats/prometheus` to a router.
    #[must_use]
    pub fn routes(&self, router: Router) -> Router {
        let handler = |recorder: Self| {
            move |request: Request| {
                let recorder = recorder.clone();
                async move { recorder.answer(&request) }
            }
        };
        router.get("/metrics", handler(self.clone())).get("/stats/prometheus", handler(self.clone()))
    }

    fn answer(&self, request: &Request) -> Response {
        let accepts = |value: &::http::HeaderValue| {
            value.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text"))
        };
        let open = request.headers().get_all(::http::header::ACCEPT).iter().any(accepts);
        typed(200, if open { OPEN_METRICS } else { PLAIN }, self.render())
    }
}

/// `istio_build{component, tag} 1`. An empty tag becomes `unknown`.
pub fn record_build(component: &str, tag: &str) {
    let tag = if tag.is_empty() { "unknown" } else { tag };
    ::metrics::gauge!("istio_build", "component" => component.to_owned(), "tag" => tag.to_owned()).set(1.0);
}

/// `process_open_fds` and `process_max_fds`, as of now. Call it now and then.
pub fn record_descriptors() {
    // Without /proc there is nothing to tell.
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        ::metrics::gauge!("process_open_fds").set(entries.count() as f64);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next());
    if let Some(soft) = soft.and_then(|soft| soft.parse::<f64>().ok()) {
        ::metrics::gauge!("process_max_fds").set(soft);
    }
}

#[cfg(test)]
pub(crate) fn recorded(act: impl FnOnce(&Recorder)) -> String {
    let recorder = builder().unwrap().build_recorder();
    let handle = Recorder(Arc::new(recorder.handle()));
    ::metrics::with_local_recorder(&recorder, || act(&handle));
    handle.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(recorder: &Recorder, accept: &str) -> String {
        let request = ::http::Request::get("/metrics").header("accept", accept).body(bytes::Bytes::new()).unwrap();
        let response = recorder.answer(&request);
        response.headers()["content-type"].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_content_type_follows_what_the_client_accepts() {
        recorded(|recorder| {
            assert_eq!(get(recorder, "text/plain"), PLAIN);
            assert_eq!(get(recorder, "*/*"), PLAIN);
            assert_eq!(get(recorder, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), OPEN_METRICS);
        });
    }

    #[test]
    fn the_build_is_told_with_an_unknown_tag_when_there_is_none() {
        let text = recorded(|_| record_build("ztunnel", ""));

        assert_eq!(text, "# TYPE istio_build gauge\nistio_build{component=\"ztunnel\",tag=\"unknown\"} 1\n# EOF\n");
    }

    #[test]
    fn open_descriptors_are_counted() {
        let text = recorded(|_| record_descriptors());

        assert!(text.contains("process_open_fds "), "{text}");
        assert!(text.contains("process_max_fds "), "{text}");
    }
}
