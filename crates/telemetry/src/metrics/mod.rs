//! The metric recorder and Istio's traffic metrics. Other metrics are counted where they happen, with the `metrics` macros;
//! the catalogue describes all of them.
//!
//! A counter that was not touched for [`IDLE`] disappears. Whoever keeps a handle of a counter longer than that must
//! take it anew, as [`TrafficHandles`] does; the macros do by themselves.

mod catalogue;
mod metric;
mod process;
mod render;
mod requests;
mod traffic;
mod traffic_labels;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::http::{Request, Response, Router, typed};

pub use catalogue::CATALOGUE;
pub use metric::{Kind, Metric, Program};
pub use requests::{RequestHandles, RequestLabels};
pub use traffic::{SocketGuard, SocketsOpen, TrafficCache, TrafficHandles};
pub use traffic_labels::{PeerLabels, TrafficLabels};

/// After this long without change a counter or histogram is no longer shown.
pub const IDLE: Duration = Duration::from_secs(3600);

/// Prometheus' text format; without the version, a reader guesses.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
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
    // Before `describe`, whose macros use the global recorder.
    ::metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
    catalogue::describe();
    Ok(Recorder(Arc::new(handle)))
}

fn builder() -> Result<PrometheusBuilder, MetricsError> {
    // Gauges do not expire: one that does not change for an hour is still true.
    let expiring = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
    let mut builder = PrometheusBuilder::new().idle_timeout(expiring, Some(IDLE));
    for metric in CATALOGUE {
        if let Kind::Histogram(buckets) = metric.kind {
            // Without bounds the exporter shows a summary of quantiles, and no two nodes' quantiles can be added up.
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder)
}

impl Recorder {
    /// Everything that was recorded, and the process itself, as OpenMetrics text: families in order of their names, `# EOF` at
    /// the end.
    #[must_use]
    pub fn render(&self) -> String {
        render::open_metrics(&self.exported())
    }

    /// Text of the exporter, and the metrics of the process itself.
    fn exported(&self) -> String {
        let mut text = self.0.render();
        process::append(&mut text);
        text
    }

    /// Everything in Prometheus' text format 0.0.4, in the same order.
    #[must_use]
    pub fn render_text(&self) -> String {
        render::text(&self.exported())
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
        // Prometheus lists all formats that it reads; whoever does not name OpenMetrics gets the older format, which
        // every reader understands.
        // A list may be spread over several header lines (RFC 9110, section 5.3).
        let open = request.headers().get_all(::http::header::ACCEPT).iter().any(accepts);
        if open { typed(200, OPEN_METRICS, self.render()) } else { typed(200, TEXT, self.render_text()) }
    }
}

/// `istio_build{component, tag} 1`. An empty tag becomes `unknown`.
pub fn record_build(component: &str, tag: &str) {
    // Prometheus takes an empty label for an absent one.
    let tag = if tag.is_empty() { "unknown" } else { tag };
    ::metrics::gauge!("istio_build", "component" => component.to_owned(), "tag" => tag.to_owned()).set(1.0);
}

/// Metrics that `act` has recorded, without those of the process.
#[cfg(test)]
pub(crate) fn recorded(act: impl FnOnce(&Recorder)) -> String {
    let recorder = builder().unwrap().build_recorder();
    let handle = Recorder(Arc::new(recorder.handle()));
    ::metrics::with_local_recorder(&recorder, || {
        catalogue::describe();
        act(&handle);
    });
    render::open_metrics(&handle.0.render())
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
            assert_eq!(get(recorder, "text/plain"), TEXT);
            assert_eq!(get(recorder, "*/*"), TEXT);
            assert_eq!(get(recorder, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), OPEN_METRICS);
        });
    }

    #[test]
    fn the_build_is_told_with_an_unknown_tag_when_there_is_none() {
        let text = recorded(|_| record_build("ztunnel", ""));

        let sample = "istio_build{component=\"ztunnel\",tag=\"unknown\"} 1\n";
        assert!(text.starts_with("# HELP istio_build ") && text.contains("# TYPE istio_build gauge\n"), "{text}");
        assert!(text.contains(sample), "{text}");
    }

    #[test]
    fn a_duration_is_a_histogram_whose_buckets_can_be_added_up_over_nodes() {
        let text = recorded(|_| ::metrics::histogram!("strake_agent_enrolment_duration_seconds").record(0.02));

        assert!(text.contains("# TYPE strake_agent_enrolment_duration_seconds histogram\n"), "{text}");
        assert!(text.contains("strake_agent_enrolment_duration_seconds_bucket{le=\"0.025\"} 1\n"), "{text}");
    }

    #[test]
    fn the_process_is_among_the_families_in_the_order_of_their_names() {
        let recorder = builder().unwrap().build_recorder();
        let handle = Recorder(Arc::new(recorder.handle()));
        ::metrics::with_local_recorder(&recorder, || record_build("agent", "1"));

        let text = handle.render();

        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert!(
            names.is_sorted() && names.contains(&"istio_build") && names.contains(&"process_cpu_seconds"),
            "{names:?}"
        );
        assert!(text.contains("\nprocess_cpu_seconds_total ") && text.ends_with("# EOF\n"), "{text}");
    }
}
