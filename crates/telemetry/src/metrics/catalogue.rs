//! Every metric of Strake's programs: name, kind, help, labels, buckets, and the programs that export it. It records
//! nothing; the code that counts names the metric with the macros of `metrics`, and `tests/catalogue.rs` fails on a name
//! or label that is not listed here.

use ::metrics::{describe_counter, describe_gauge, describe_histogram};

use super::metric::{Kind, Labels, Metric, Program, Programs, counter, gauge, histogram};
use super::requests;
use super::traffic_labels::NAMES;

const AGENT: Programs = &[Program::Agent];
const CONTROL: Programs = &[Program::Control];
const ZTUNNEL: Programs = &[Program::Ztunnel];
const WAYPOINT: Programs = &[Program::Waypoint];
const PROXIES: Programs = &[Program::Waypoint, Program::Ztunnel];
const CLUSTER: Programs = &[Program::Agent, Program::Control];
const ALL: Programs = &[Program::Agent, Program::Control, Program::Waypoint, Program::Ztunnel];

/// Seconds of work that takes milliseconds on an idle machine: enrolment, a change on its way to the proxies.
const SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds until nameservers have answered; Istio's.
const DNS_SECONDS: &[f64] = &[0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// Labels of DNS questions.
const DNS: Labels =
    &["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"];

/// Seconds of a question to the control plane, for which a connection waits; half a second at most.
const ANSWER_SECONDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];

/// Labels of Istio's TCP metrics, in Istio's order.
const TRAFFIC: Labels = &NAMES;

/// Labels of Istio's HTTP metrics, in Istio's order.
const REQUEST: Labels = &requests::NAMES;

/// Istio's buckets of HTTP metrics: milliseconds, and bytes.
const REQUEST_BUCKETS: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Metrics of all programs, sorted by name. Names of Istio's ztunnel and istio-cni stay as they are there.
pub const CATALOGUE: &[Metric] = &[
    gauge("istio_build", ALL, &["component", "tag"], "Version of this program; the value is always 1."),
    gauge(
        "istio_cni_install_ready",
        AGENT,
        &[],
        "1 while the CNI plugin is installed and in the node's configuration, else 0.",
    ),
    counter("istio_cni_installs_total", AGENT, &["result"], "Changes of the CNI plugin's installation, by result."),
    counter(
        "istio_cni_plugin_requests_total",
        AGENT,
        &["response_code"],
        "Requests of CNI plugins for pods of the mesh that the agent answered, by status of the answer.",
    ),
    counter("istio_dns_requests_total", ZTUNNEL, DNS, "DNS questions of pods."),
    counter(
        "istio_dns_upstream_failures_total",
        ZTUNNEL,
        DNS,
        "DNS questions to which no nameserver has answered yes or no.",
    ),
    histogram(
        "istio_dns_upstream_request_duration_seconds",
        ZTUNNEL,
        DNS,
        DNS_SECONDS,
        "Time until a nameserver has answered, or all have been given up.",
    ),
    counter("istio_dns_upstream_requests_total", ZTUNNEL, DNS, "DNS questions that nameservers were asked."),
    counter(
        "istio_on_demand_dns_total",
        ZTUNNEL,
        &[
            "hostname",
            "source_workload",
            "source_workload_namespace",
            "source_canonical_service",
            "source_canonical_revision",
        ],
        "Host names of workloads without an address that were resolved.",
    ),
    histogram("istio_request_bytes", WAYPOINT, REQUEST, REQUEST_BUCKETS, "Bytes of the bodies of HTTP requests."),
    histogram(
        "istio_request_duration_milliseconds",
        WAYPOINT,
        REQUEST,
        REQUEST_BUCKETS,
        "Time from the first byte of an HTTP request to the last of its answer.",
    ),
    counter("istio_requests_total", WAYPOINT, REQUEST, "HTTP requests that have ended."),
    histogram("istio_response_bytes", WAYPOINT, REQUEST, REQUEST_BUCKETS, "Bytes of the bodies of HTTP answers."),
    counter("istio_tcp_connections_closed_total", ZTUNNEL, TRAFFIC, "TCP connections that ended."),
    counter(
        "istio_tcp_connections_failed_total",
        ZTUNNEL,
        TRAFFIC,
        "TCP connections that ended with an error, by response flag.",
    ),
    counter("istio_tcp_connections_opened_total", ZTUNNEL, TRAFFIC, "TCP connections that began."),
    counter(
        "istio_tcp_received_bytes_total",
        ZTUNNEL,
        TRAFFIC,
        "Bytes sent from clients to servers over TCP connections.",
    ),
    counter("istio_tcp_sent_bytes_total", ZTUNNEL, TRAFFIC, "Bytes sent from servers to clients over TCP connections."),
    gauge("istio_tcp_sockets_open", ZTUNNEL, &["reporter"], "Accepted sockets that are open."),
    counter(
        "istio_xds_connection_terminations_total",
        PROXIES,
        &["reason"],
        "Discovery streams that ended, by reason.",
    ),
    counter("istio_xds_message_bytes_total", PROXIES, &["url"], "Bytes of discovery responses received, by type URL."),
    counter("istio_xds_message_total", PROXIES, &["url"], "Discovery responses received, by type URL."),
    counter(
        "nodeagent_reconcile_events_total",
        AGENT,
        &["type"],
        "Events of the source that this agent has handled, by type.",
    ),
    counter("process_cpu_seconds_total", ALL, &[], "Total user and system CPU time spent in seconds."),
    gauge("process_max_fds", ALL, &[], "Maximum number of open file descriptors."),
    gauge("process_open_fds", ALL, &[], "Number of open file descriptors."),
    gauge("process_resident_memory_bytes", ALL, &[], "Resident memory size in bytes."),
    gauge("process_start_time_seconds", ALL, &[], "Start time of the process since unix epoch in seconds."),
    gauge("process_threads", ALL, &[], "Number of OS threads in the process."),
    gauge("process_virtual_memory_bytes", ALL, &[], "Virtual memory size in bytes."),
    counter("strake_accept_failures_total", PROXIES, &[], "Accepts that failed for want of descriptors or memory."),
    histogram(
        "strake_address_lookup_duration_seconds",
        PROXIES,
        &[],
        ANSWER_SECONDS,
        "Time that connections to unknown addresses waited for discovery's answer; questions without one are not counted.",
    ),
    counter(
        "strake_address_lookups_total",
        PROXIES,
        &["outcome"],
        "Connections to addresses that discovery had not announced, by the outcome of asking it.",
    ),
    counter(
        "strake_agent_annotations_corrected_total",
        AGENT,
        &[],
        "Annotations of enrolled pods that another writer had changed and that were set again.",
    ),
    counter(
        "strake_agent_blocked_total",
        AGENT,
        &[],
        "Times routing of an enrolled pod was found not to lead to the proxy; its traffic was dropped.",
    ),
    counter(
        "strake_agent_broken_total",
        AGENT,
        &[],
        "Times traffic of an enrolled pod might bypass its proxy until it was repaired.",
    ),
    counter(
        "strake_agent_cni_answers_total",
        AGENT,
        &["outcome"],
        "Answers to CNI plugins: enrolled and not_selected let a pod start, failed and invalid do not.",
    ),
    counter(
        "strake_agent_cni_configurations_written_total",
        AGENT,
        &[],
        "Times that the CNI configuration with the plugin was written because it was absent or differed.",
    ),
    histogram(
        "strake_agent_cni_request_duration_seconds",
        AGENT,
        &[],
        SECONDS,
        "Time until a CNI plugin had the answer whether its pod is enrolled.",
    ),
    gauge("strake_agent_cni_requests_waiting", AGENT, &[], "Requests of CNI plugins that are not answered yet."),
    counter("strake_agent_departures_total", AGENT, &[], "Pods of this node that left the mesh."),
    counter(
        "strake_agent_drain_expired_total",
        AGENT,
        &[],
        "Pods whose proxied connections were cut when the grace period of leaving ended.",
    ),
    histogram(
        "strake_agent_enrolment_duration_seconds",
        AGENT,
        &[],
        SECONDS,
        "Time from the decision to enrol a pod until it was proved enrolled.",
    ),
    counter("strake_agent_enrolments_total", AGENT, &[], "Pods of this node that entered the mesh."),
    gauge(
        "strake_agent_further_addresses",
        AGENT,
        &[],
        "Addresses besides those that the mesh knows, learnt for pods of this node.",
    ),
    counter(
        "strake_agent_further_addresses_forgotten_total",
        AGENT,
        &[],
        "Learnt addresses that were forgotten because no connection arrived for them any more.",
    ),
    gauge(
        "strake_agent_further_addresses_full_pods",
        AGENT,
        &[],
        "Pods with as many learnt addresses as a pod may have; connections to others of theirs time out.",
    ),
    counter(
        "strake_agent_hazards_total",
        AGENT,
        &[],
        "Programs and netfilter chains found in enrolled pods that may take connections from the proxy.",
    ),
    gauge("strake_agent_pods", AGENT, &["state"], "Pods of this node, by state of their enrolment."),
    counter(
        "strake_agent_proofs_total",
        AGENT,
        &[],
        "Proofs of enrolled pods that were read from the kernel and the proxy.",
    ),
    counter(
        "strake_agent_proxies_refused_total",
        AGENT,
        &["reason"],
        "Proxies whose connection the agent refused, by reason.",
    ),
    counter(
        "strake_agent_repairs_total",
        AGENT,
        &["check"],
        "Checks of enrolled pods that did not hold and were repaired, by check.",
    ),
    gauge("strake_agent_source_problems", AGENT, &[], "Objects that the agent's source could not read."),
    counter(
        "strake_agent_startup_taints_removed_total",
        AGENT,
        &[],
        "Startup taints that were removed from this node.",
    ),
    counter("strake_agent_steering_total", AGENT, &["event"], "Events counted by the kernel programs."),
    counter("strake_agent_steering_unread_total", AGENT, &[], "Reads of the kernel programs' counters that failed."),
    counter(
        "strake_agent_step_failures_total",
        AGENT,
        &["code"],
        "Steps of enrolment or departure that failed, by code.",
    ),
    histogram(
        "strake_agent_survey_duration_seconds",
        AGENT,
        &[],
        SECONDS,
        "Time that listing the kernel's BPF links took.",
    ),
    counter("strake_agent_surveys_total", AGENT, &[], "Lists of the kernel's BPF links that were read."),
    counter("strake_agent_tasks_lost_total", AGENT, &[], "Enrolment tasks that panicked."),
    counter("strake_agent_unreadable_total", AGENT, &["check"], "Checks of pods that could not be read, by check."),
    counter(
        "strake_agent_unserved_total",
        AGENT,
        &[],
        "Times an enrolled pod was found without a serving proxy; its traffic was blocked.",
    ),
    counter(
        "strake_agent_unverified_total",
        AGENT,
        &[],
        "Times an enrolled pod could not be verified; discovery still advertises HBONE.",
    ),
    counter(
        "strake_agent_unwatched_total",
        AGENT,
        &[],
        "Times changes to a pod's routing could be noticed by polling only.",
    ),
    counter("strake_agent_withdrawals_total", AGENT, &[], "Times a pod was announced as outside of the mesh again."),
    histogram(
        "strake_api_delivery_seconds",
        CLUSTER,
        &["kind"],
        SECONDS,
        "Time that changes read from the API server waited until the program took them, by kind.",
    ),
    gauge(
        "strake_api_last_event_timestamp_seconds",
        CLUSTER,
        &["kind"],
        "Time at which the API server last sent a list, an event or a bookmark of a kind, seconds since 1970; a bookmark comes every minute.",
    ),
    counter(
        "strake_api_lists_total",
        CLUSTER,
        &["kind"],
        "Complete lists of a kind; more than one means that a watch could not go on where it ended.",
    ),
    gauge("strake_api_objects", CLUSTER, &["kind"], "Objects read from the API server that are in force, by kind."),
    gauge(
        "strake_api_server_away_since_seconds",
        CLUSTER,
        &[],
        "Time since which no watch of the API server is open, seconds since 1970; 0 while one is.",
    ),
    counter(
        "strake_api_status_writes_total",
        CLUSTER,
        &["outcome"],
        "Attempts to write a status or an annotation, by outcome: written, unchanged, gone, superseded, not_leading, conflict, failed, refused, panicked.",
    ),
    gauge(
        "strake_api_unreadable_objects",
        CLUSTER,
        &["kind"],
        "Objects of the API server that cannot be decoded as they are now, by kind; their last good form is in force.",
    ),
    counter(
        "strake_api_watch_ends_total",
        CLUSTER,
        &["kind", "reason"],
        "Watches that ended or could not be opened, by reason: ended, expired, denied, refused, silent, broken, invalid.",
    ),
    counter(
        "strake_budget_exceeded_total",
        PROXIES,
        &["budget", "owner"],
        "Times that a pod, a client or a tunnel wanted more than its budget holds.",
    ),
    gauge("strake_ca_expiry_timestamp_seconds", CONTROL, &[], "End of the certificate that signs, seconds since 1970."),
    counter("strake_ca_requests_total", CONTROL, &["outcome"], "Certificate requests, by outcome."),
    counter(
        "strake_ca_ttl_shortened_total",
        CONTROL,
        &[],
        "Certificates signed for less time than requested, because of the maximum.",
    ),
    counter(
        "strake_certificate_fetches_total",
        PROXIES,
        &["outcome"],
        "Certificates that this proxy requested, by outcome.",
    ),
    counter(
        "strake_certificate_prefetches_dropped_total",
        PROXIES,
        &[],
        "Certificates that were not requested in advance because the queue was full.",
    ),
    counter(
        "strake_connect_retries_total",
        ZTUNNEL,
        &[],
        "Connections to a service that were tried at another endpoint because one could not be connected to.",
    ),
    counter("strake_connection_panics_total", PROXIES, &[], "Connections that ended because their task panicked."),
    gauge(
        "strake_control_connections",
        CONTROL,
        &["client"],
        "Open connections of clients, by whether they have shown a good token.",
    ),
    counter(
        "strake_control_connections_refused_total",
        CONTROL,
        &["reason"],
        "Connections closed before a request with a good token, by the limit that closed them.",
    ),
    counter(
        "strake_control_events_total",
        CONTROL,
        &["outcome"],
        "Events about objects, by outcome: created, repeated, current, failed.",
    ),
    gauge("strake_control_events_waiting", CONTROL, &[], "Events about objects that wait to be written."),
    gauge(
        "strake_control_findings",
        CONTROL,
        &[],
        "Findings: parts of policies, labels and other objects that have no effect.",
    ),
    gauge("strake_control_manifest_problems", CONTROL, &["severity"], "Manifests that could not be read."),
    gauge("strake_control_proxies", CONTROL, &[], "Node proxies with an open discovery stream."),
    gauge("strake_control_replicas", CONTROL, &[], "Other replicas of the control plane, by their pods."),
    gauge(
        "strake_control_replicas_followed",
        CONTROL,
        &[],
        "Other replicas that say what their proxies acknowledge; fewer than `strake_control_replicas` leave conditions Unknown.",
    ),
    gauge("strake_control_resources", CONTROL, &["type"], "Resources that discovery serves, by type."),
    counter(
        "strake_control_responses_total",
        CONTROL,
        &["outcome"],
        "Discovery responses that a proxy answered, by outcome.",
    ),
    histogram(
        "strake_control_settle_seconds",
        CONTROL,
        &[],
        SECONDS,
        "Time from a batch of changes until its discovery resources were ready to be sent.",
    ),
    counter(
        "strake_control_streams_ended_total",
        CONTROL,
        &["reason"],
        "Discovery streams that the control plane ended, by reason.",
    ),
    counter(
        "strake_control_token_checks_failed_total",
        CONTROL,
        &[],
        "Checks of a stream's token that gave no result.",
    ),
    counter("strake_control_unauthenticated_total", CONTROL, &[], "Requests without a valid node token."),
    gauge("strake_discovery_resources", PROXIES, &["kind"], "Resources received from discovery, by kind."),
    gauge(
        "strake_discovery_retained_policies",
        PROXIES,
        &[],
        "Policies that discovery removed and that stay in force while a workload of this node names them.",
    ),
    gauge(
        "strake_discovery_unreadable_policies",
        PROXIES,
        &[],
        "Policies received from discovery that are invalid; connections they would decide are denied.",
    ),
    counter(
        "strake_dns_refused_total",
        ZTUNNEL,
        &["reason", "request_protocol"],
        "DNS messages that were answered with FORMERR, NOTIMP, BADVERS or SERVFAIL by the proxy itself, or not at all.",
    ),
    counter(
        "strake_endpoints_set_aside_total",
        ZTUNNEL,
        &[],
        "Endpoints that could not be connected to several times in a row, so that others were preferred for a while.",
    ),
    counter(
        "strake_hbone_floods_total",
        PROXIES,
        &["kind"],
        "Tunnels that were closed because their peer flooded them with cheap frames, by kind.",
    ),
    counter(
        "strake_hbone_requests_refused_total",
        PROXIES,
        &[],
        "HBONE requests refused because their tunnel had too many at work.",
    ),
    counter(
        "strake_http_connections_closed_total",
        ALL,
        &[],
        "Connections to the HTTP pages that were closed because too many were open and their client had most of them.",
    ),
    counter(
        "strake_metrics_descriptions_dropped_total",
        ZTUNNEL,
        &[],
        "Connections whose descriptions from baggage were dropped because a workload had too many.",
    ),
    counter(
        "strake_mirrored_requests_total",
        WAYPOINT,
        &["outcome"],
        "Copies of requests for mirrors, by outcome; a dropped one was not sent because too many were under way.",
    ),
    counter(
        "strake_pod_start_failures_total",
        ZTUNNEL,
        &["code"],
        "Starts of pods that failed, by reason; each is tried again.",
    ),
    counter(
        "strake_policy_invalid_total",
        PROXIES,
        &[],
        "Connections denied because a policy of their workload is invalid.",
    ),
    counter(
        "strake_policy_revoked_connections_total",
        PROXIES,
        &[],
        "Open connections that were closed because a policy no longer allows them.",
    ),
    counter(
        "strake_policy_unknown_total",
        PROXIES,
        &[],
        "Connections denied because their workload names a policy that is not known.",
    ),
    counter(
        "strake_tunnels_expired_total",
        PROXIES,
        &["outcome"],
        "Accepted tunnels drained or cut because the peer's certificate has expired.",
    ),
    gauge("workload_manager_active_proxy_count", ZTUNNEL, &[], "Pods that this proxy serves."),
    gauge(
        "workload_manager_pending_proxy_count",
        ZTUNNEL,
        &[],
        "Pods that the agent has enrolled and this proxy cannot serve yet.",
    ),
    counter("workload_manager_proxies_started_total", ZTUNNEL, &[], "Pods that this proxy began to serve."),
    counter("workload_manager_proxies_stopped_total", ZTUNNEL, &[], "Pods that this proxy no longer serves."),
    gauge("ztunnel_connected", AGENT, &[], "Proxies with an open connection to this agent."),
];

/// Gives the recorder the help of every metric.
pub(super) fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_and_names_each_metric_once() {
        assert!(CATALOGUE.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn names_and_helps_follow_the_rules_of_prometheus() {
        for metric in CATALOGUE {
            let is_name = metric.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(is_name, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.help);
        }
    }

    #[test]
    fn buckets_of_histograms_grow() {
        for metric in CATALOGUE {
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(!buckets.is_empty() && buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }
}
