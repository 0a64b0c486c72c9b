//! Istio's metrics of requests: their labels, and handles that are looked up in the recorder once per series.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::{Counter, Histogram, Key, Label, Level, Metadata, SharedString, with_recorder};

use super::IDLE;
use super::traffic_labels::{PeerLabels, or_unknown};

const REQUESTS: &str = "istio_requests_total";
const DURATION: &str = "istio_request_duration_milliseconds";
const REQUEST_BYTES: &str = "istio_request_bytes";
const RESPONSE_BYTES: &str = "istio_response_bytes";

/// Handles that rested this long are taken anew before use: well before they may have expired.
const RENEW: Duration = Duration::from_secs(IDLE.as_secs() / 2);

/// Labels that the requests of one series have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestLabels {
    /// Client.
    pub source: PeerLabels,
    /// Hostname of the service that the client asked for.
    pub destination_service: Arc<str>,
    /// Its short name.
    pub destination_service_name: Arc<str>,
    /// Its namespace.
    pub destination_service_namespace: Arc<str>,
    /// Endpoint that answered, or was tried last.
    pub destination: PeerLabels,
    /// `http` or `grpc`.
    pub request_protocol: &'static str,
    /// HTTP status; 0 if the client went away before one was sent.
    pub response_code: u16,
    /// Empty for requests that are not gRPC, and for answers without one.
    pub grpc_response_status: String,
    /// Envoy's flags.
    pub response_flags: String,
    /// Client and waypoint have proved who they are.
    pub mutual_tls: bool,
}

struct RequestLabel {
    name: &'static str,
    value: fn(&RequestLabels) -> SharedString,
}

/// Labels in Istio's order.
const LABELS: [RequestLabel; 25] = [
    RequestLabel { name: "reporter", value: |_| SharedString::const_str("waypoint") },
    RequestLabel { name: "source_workload", value: |l| or_unknown(&l.source.workload) },
    RequestLabel { name: "source_canonical_service", value: |l| or_unknown(&l.source.canonical_service) },
    RequestLabel { name: "source_canonical_revision", value: |l| or_unknown(&l.source.canonical_revision) },
    RequestLabel { name: "source_workload_namespace", value: |l| or_unknown(&l.source.namespace) },
    RequestLabel { name: "source_principal", value: |l| or_unknown(&l.source.principal) },
    RequestLabel { name: "source_app", value: |l| or_unknown(&l.source.app) },
    RequestLabel { name: "source_version", value: |l| or_unknown(&l.source.version) },
    RequestLabel { name: "source_cluster", value: |l| or_unknown(&l.source.cluster) },
    RequestLabel { name: "destination_workload", value: |l| or_unknown(&l.destination.workload) },
    RequestLabel { name: "destination_workload_namespace", value: |l| or_unknown(&l.destination.namespace) },
    RequestLabel { name: "destination_principal", value: |l| or_unknown(&l.destination.principal) },
    RequestLabel { name: "destination_app", value: |l| or_unknown(&l.destination.app) },
    RequestLabel { name: "destination_version", value: |l| or_unknown(&l.destination.version) },
    RequestLabel { name: "destination_service", value: |l| or_unknown(&l.destination_service) },
    RequestLabel { name: "destination_canonical_service", value: |l| or_unknown(&l.destination.canonical_service) },
    RequestLabel { name: "destination_canonical_revision", value: |l| or_unknown(&l.destination.canonical_revision) },
    RequestLabel { name: "destination_service_name", value: |l| or_unknown(&l.destination_service_name) },
    RequestLabel { name: "destination_service_namespace", value: |l| or_unknown(&l.destination_service_namespace) },
    RequestLabel { name: "destination_cluster", value: |l| or_unknown(&l.destination.cluster) },
    RequestLabel { name: "request_protocol", value: |l| SharedString::const_str(l.request_protocol) },
    RequestLabel { name: "response_code", value: |l| l.response_code.to_string().into() },
    RequestLabel { name: "grpc_response_status", value: |l| l.grpc_response_status.clone().into() },
    RequestLabel { name: "response_flags", value: |l| l.response_flags.clone().into() },
    RequestLabel {
        name: "connection_security_policy",
        value: |l| SharedString::const_str(if l.mutual_tls { "mutual_tls" } else { "none" }),
    },
];

/// Names of the labels, for the catalogue.
pub(super) const NAMES: [&str; LABELS.len()] = {
    let mut names = [""; LABELS.len()];
    // A `const` block cannot use iterators yet.
    let mut at = 0;
    while at < LABELS.len() {
        names[at] = LABELS[at].name;
        at += 1;
    }
    names
};

/// Counter and histograms of one series, for one thread.
#[derive(Debug)]
pub struct RequestHandles {
    labels: RequestLabels,
    last_use: Instant,
    handles: Handles,
}

#[derive(Debug)]
struct Handles {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Handles {
    fn take(labels: &RequestLabels) -> Self {
        static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let labels: Vec<Label> = LABELS.iter().map(|label| Label::new(label.name, (label.value)(labels))).collect();
        // Not by the macros: they would copy all labels at every call, also when the handle is known.
        let histogram = |name: &'static str| {
            let key = Key::from_parts(name, labels.clone());
            with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
        };
        let key = Key::from_parts(REQUESTS, labels.clone());
        Self {
            requests: with_recorder(|recorder| recorder.register_counter(&key, &METADATA)),
            duration: histogram(DURATION),
            request_bytes: histogram(REQUEST_BYTES),
            response_bytes: histogram(RESPONSE_BYTES),
        }
    }
}

impl RequestHandles {
    /// Takes the handles of `labels`.
    #[must_use]
    pub fn new(labels: RequestLabels) -> Self {
        let handles = Handles::take(&labels);
        Self { labels, last_use: Instant::now(), handles }
    }

    /// Counts a request that has ended: its duration, and the bytes of both bodies.
    pub fn observe(&mut self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        let now = Instant::now();
        // A series that was idle for an hour is no longer exported; the handles would count into nothing.
        if now.duration_since(self.last_use) > RENEW {
            self.handles = Handles::take(&self.labels);
        }
        self.last_use = now;
        self.handles.requests.increment(1);
        self.handles.duration.record(duration.as_secs_f64() * 1e3);
        self.handles.request_bytes.record(request_bytes as f64);
        self.handles.response_bytes.record(response_bytes as f64);
    }

    /// Returns true if nothing was counted for so long that the handles would be taken anew.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.last_use.elapsed() > RENEW
    }
}

#[cfg(test)]
mod tests {
    use super::super::{builder, render};
    use super::*;

    #[test]
    fn a_request_is_counted_with_the_labels_of_istio() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        let labels = RequestLabels {
            destination_service: "web.shop.svc.cluster.local".into(),
            request_protocol: "http",
            response_code: 503,
            response_flags: "URX,UF".into(),
            mutual_tls: true,
            ..RequestLabels::default()
        };

        ::metrics::with_local_recorder(&recorder, || {
            RequestHandles::new(labels).observe(Duration::from_micros(1500), 10, 2000);
        });

        let text = render::text(&handle.render());
        let counted = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
        for part in [
            "reporter=\"waypoint\"",
            "response_code=\"503\"",
            "response_flags=\"URX,UF\"",
            "request_protocol=\"http\"",
            "destination_service=\"web.shop.svc.cluster.local\"",
            "source_workload=\"unknown\"",
            "connection_security_policy=\"mutual_tls\"",
        ] {
            assert!(counted.contains(part), "{part} in {counted}");
        }
        assert!(text.contains("istio_request_duration_milliseconds_sum"), "{text}");
        let of_one_ms =
            text.lines().find(|line| line.contains("duration_milliseconds_bucket") && line.contains("le=\"1\""));
        assert!(of_one_ms.is_some_and(|line| line.ends_with(" 0")), "{text}");
    }
}
