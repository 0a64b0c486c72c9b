//! Probes of the kubelet.

use crate::stage::{CLUSTER, Workload, eventually, expect_equal, server_service};

#[test]
fn a_pod_that_fails_its_readiness_probe_leaves_the_endpoints_and_comes_back() {
    CLUSTER.run(|cluster| {
        let server = Workload::client("server-1", "node-1")
            .with("readinessProbe: {exec: {command: [app, probe]}, periodSeconds: 1}");
        cluster.apply("readiness", &format!("{}{}", server.yaml(), server_service())).unwrap();
        cluster.wait_ready("readiness").unwrap();
        let set_ready = |value| {
            cluster.kubectl(&["--namespace=readiness", "exec", "server-1", "--", "app", "ready", value]).unwrap();
        };
        let endpoints_are = |expected: &str| {
            eventually(&format!("endpoints are ready: {expected}"), || {
                expect_equal(
                    cluster.field("readiness", "endpointslices", ".items[*].endpoints[*].conditions.ready")?,
                    expected.to_owned(),
                )
            });
        };
        endpoints_are("true true");

        set_ready("off");
        endpoints_are("false false");

        set_ready("on");
        endpoints_are("true true");
    });
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_started_again() {
    CLUSTER.run(|cluster| {
        let alive = |name: &str, probe: &str| Workload::client(name, "node-2").with(&format!("livenessProbe: {probe}"));
        // A container that has just started may not have its file yet: one failure is not enough.
        let fails = alive("fails", "{exec: {command: [app, probe]}, periodSeconds: 1, failureThreshold: 3}");
        let http = alive("http", "{httpGet: {path: /, port: 9090}, periodSeconds: 1, failureThreshold: 3}");
        let tcp = alive("tcp", "{tcpSocket: {port: 9090}, periodSeconds: 1, failureThreshold: 3}");
        let pods: String = [fails, http, tcp].iter().map(Workload::yaml).collect();
        cluster.apply("liveness", &pods).unwrap();
        cluster.wait_ready("liveness").unwrap();

        cluster.kubectl(&["--namespace=liveness", "exec", "fails", "--", "app", "ready", "off"]).unwrap();

        let restarts =
            |pod: &str| cluster.field("liveness", &format!("pod/{pod}"), ".status.containerStatuses[0].restartCount");
        eventually("the failing container is started again", || expect_equal(restarts("fails")?, "1".to_owned()));
        assert_eq!([restarts("http").unwrap(), restarts("tcp").unwrap()], ["0", "0"]);
    });
}
