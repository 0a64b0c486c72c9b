//! Metrics and the log of questions. It decides nothing.

use hickory_proto::op::Query;
use hickory_proto::rr::RecordType;
use model::Workload;
use std::time::Duration;
use tracing::{Level, event};

const REQUESTS: &str = "istio_dns_requests_total";
const UPSTREAM_REQUESTS: &str = "istio_dns_upstream_requests_total";
const UPSTREAM_FAILURES: &str = "istio_dns_upstream_failures_total";
const UPSTREAM_SECONDS: &str = "istio_dns_upstream_request_duration_seconds";
const REFUSED: &str = "strake_dns_refused_total";

/// Protocol in which a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Labels of a question.
#[derive(Debug)]
pub(crate) struct Labels {
    kind: String,
    protocol: &'static str,
    service: String,
    revision: String,
}

impl Labels {
    pub(crate) fn new(kind: RecordType, protocol: Protocol, client: &Workload) -> Self {
        // Types without a name are all "unknown": a client must not be able to make 65 536 series.
        Self {
            kind: kind.to_string().to_ascii_lowercase(),
            protocol: protocol.as_str(),
            service: or_unknown(&client.canonical_name),
            revision: or_unknown(&client.canonical_revision),
        }
    }

    /// Counts a question.
    pub(crate) fn request(&self) {
        metrics::counter!(
            REQUESTS,
            "request_query_type" => self.kind.clone(),
            "request_protocol" => self.protocol,
            "source_canonical_service" => self.service.clone(),
            "source_canonical_revision" => self.revision.clone(),
        )
        .increment(1);
    }

    /// Counts a question that nameservers are asked.
    pub(crate) fn upstream_request(&self) {
        metrics::counter!(
            UPSTREAM_REQUESTS,
            "request_query_type" => self.kind.clone(),
            "request_protocol" => self.protocol,
            "source_canonical_service" => self.service.clone(),
            "source_canonical_revision" => self.revision.clone(),
        )
        .increment(1);
    }

    /// Counts a question that no nameserver has answered.
    pub(crate) fn upstream_failure(&self) {
        metrics::counter!(
            UPSTREAM_FAILURES,
            "request_query_type" => self.kind.clone(),
            "request_protocol" => self.protocol,
            "source_canonical_service" => self.service.clone(),
            "source_canonical_revision" => self.revision.clone(),
        )
        .increment(1);
    }

    /// Counts the time until nameservers have answered, or have been given up.
    pub(crate) fn upstream_duration(&self, duration: Duration) {
        metrics::histogram!(
            UPSTREAM_SECONDS,
            "request_query_type" => self.kind.clone(),
            "request_protocol" => self.protocol,
            "source_canonical_service" => self.service.clone(),
            "source_canonical_revision" => self.revision.clone(),
        )
        .record(duration.as_secs_f64());
    }
}

fn or_unknown(value: &str) -> String {
    if value.is_empty() { "unknown".to_owned() } else { value.to_owned() }
}

/// Reason for which a message is not answered as its sender would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// FORMERR, or nothing when not even a header can be read.
    Malformed,
    /// NOTIMP or BADVERS.
    Unsupported,
    /// SERVFAIL: too many questions under way.
    Busy,
    /// SERVFAIL: discovery does not know the client.
    UnknownClient,
    /// SERVFAIL: the question is the proxy's own.
    Loop,
    /// The kernel does not take the answer.
    Unsent,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::UnknownClient => "unknown_client",
            Self::Loop => "loop",
            Self::Unsent => "unsent",
        }
    }
}

/// Counts a message that is not answered as its sender would like.
pub(crate) fn refused(reason: Reason, protocol: Protocol) {
    metrics::counter!(REFUSED, "reason" => reason.as_str(), "request_protocol" => protocol.as_str()).increment(1);
}

/// Logs the outcome of a question, with the number of addresses or records in its answer.
pub(crate) fn log(client: &Workload, query: &Query, result: &str, endpoints: usize) {
    event!(
        target: "dns",
        Level::DEBUG,
        src.workload = %client.name,
        src.namespace = %client.namespace,
        query = %query.query_type,
        domain = %query.name,
        result,
        endpoints,
        "dns request"
    );
}
