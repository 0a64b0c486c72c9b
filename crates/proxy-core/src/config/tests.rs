//! The rules of every section, read from made-up environments.

use runtime::Problems;

use super::*;

const THREADS: ThreadKeys = ThreadKeys {
    threads: "WORKER_THREADS",
    cpu_limit: "CPU_LIMIT",
    resource_cpu_limit: "RESOURCE_CPU_LIMIT",
    resource_cpu_request: "RESOURCE_CPU_REQUEST",
};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Environment { variables, mesh_config: None, processors: 8 }
}

fn parse(environment: &Environment) -> Result<Config, Problems> {
    let mut reader = Reader::new(environment);
    let config = Config::parse(&mut reader, &THREADS);
    reader.finish().0.into_result().map(|()| config)
}

fn config(variables: &[(&str, &str)]) -> Config {
    parse(&environment(variables)).unwrap()
}

fn problems(variables: &[(&str, &str)]) -> String {
    parse(&environment(variables)).unwrap_err().to_string()
}

fn remote(address: &str) -> Authority {
    Authority::Remote(address.parse().unwrap())
}

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let config = config(&[]);

    assert_eq!(config.node.cluster_id, "Kubernetes");
    assert_eq!(config.node.instance_ip, "1.1.1.1");
    assert_eq!(config.sockets.keepalive_time, Duration::from_secs(180));
    assert_eq!(config.sockets.keepalive_retries, 9);
    assert_eq!(config.sockets.user_timeout(), None);
    assert_eq!(config.tunnels.max_streams_per_tunnel, 100);
    assert_eq!(config.tunnels.unused_release_timeout, Duration::from_secs(300));
    assert_eq!(config.tunnels.stream_window_bytes, 4 * 1024 * 1024);
    assert_eq!(config.tunnels.connection_window_bytes, 16 * 1024 * 1024);
    assert_eq!(config.tunnels.frame_bytes, 1024 * 1024);
    assert_eq!(config.certificates.ttl, Duration::from_secs(24 * 3600));
    assert_eq!(config.discovery.address.unwrap().to_string(), "https://localhost:15012/");
    assert_eq!(config.listeners.metrics.to_string(), "[::]:15020");
    assert_eq!(config.listeners.readiness.to_string(), "[::]:15021");
    assert_eq!(config.listeners.admin.to_string(), "127.0.0.1:15000");
    assert_eq!(config.drain_deadline, Duration::from_secs(5));
    assert_eq!(config.worker_threads, 2);
}

#[test]
fn every_mistake_is_named_with_variable_value_and_what_is_expected() {
    let text = problems(&[
        ("KEEPALIVE_TIME", "soon"),
        ("IPV6_ENABLED", "yes"),
        ("HTTP2_FRAME_SIZE", "1"),
        ("XDS_ADDRESS", "ftp://x"),
        ("CA_HEADER_bad name", "x"),
    ]);

    for line in [
        "KEEPALIVE_TIME=\"soon\" is not valid, expected a duration of at least 1s, such as 180s",
        "IPV6_ENABLED=\"yes\" is not valid, expected true or false",
        "HTTP2_FRAME_SIZE=\"1\" is not valid, expected a number of bytes from 16384 to 16777215",
        "XDS_ADDRESS=\"ftp://x\" is not valid",
        "CA_HEADER_bad name=\"x\" is not valid",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn the_control_plane_is_istiod_inside_kubernetes() {
    let config = config(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);

    assert_eq!(config.discovery.address.unwrap().to_string(), "https://istiod.istio-system.svc:15012/");
    assert_eq!(config.certificates.authority, remote("https://istiod.istio-system.svc:15012/"));
}

#[test]
fn the_environment_wins_over_proxy_config_and_proxy_config_over_the_default() {
    let proxy = ("PROXY_CONFIG", "discoveryAddress: istiod.a:15012\nproxyAdminPort: 1\nstatsPort: 2\n");

    assert_eq!(config(&[proxy]).discovery.address.unwrap().to_string(), "https://istiod.a:15012/");
    assert_eq!(config(&[proxy]).certificates.authority, remote("https://localhost:15012/"));
    assert_eq!(config(&[proxy]).listeners.admin.port(), 1);
    assert_eq!(config(&[proxy]).listeners.metrics.port(), 2);
    let explicit = config(&[proxy, ("XDS_ADDRESS", "https://b:1")]);
    assert_eq!(explicit.discovery.address.unwrap().to_string(), "https://b:1/");
    assert!(config(&[proxy, ("XDS_ADDRESS", "")]).discovery.address.is_none());
}

#[test]
fn proxy_config_is_laid_over_the_mesh_configuration_field_by_field() {
    let mut environment = environment(&[
        ("PROXY_CONFIG", "concurrency: 3\nproxyMetadata:\n  ISTIO_META_B: own\n  C: own\n"),
        ("ISTIO_META_C", "env"),
    ]);
    environment.mesh_config = Some(
        "trustDomain: ignored\ndefaultConfig:\n  concurrency: 5\n  discoveryAddress: mesh:1\n  proxyMetadata:\n    ISTIO_META_A: mesh\n    ISTIO_META_B: mesh\n"
            .into(),
    );

    let config = parse(&environment).unwrap();

    assert_eq!(config.worker_threads, 3);
    assert_eq!(config.discovery.address.unwrap().to_string(), "https://mesh:1/");
    assert_eq!(config.node.metadata["A"], "mesh");
    assert_eq!(config.node.metadata["B"], "own");
    assert_eq!(config.node.metadata["C"], "env");
}

#[test]
fn a_broken_mesh_configuration_is_an_error() {
    let mut environment = environment(&[]);
    environment.mesh_config = Some("defaultConfig: [".into());

    assert!(parse(&environment).unwrap_err().to_string().contains("mesh configuration"));
}

#[test]
fn worker_threads_follow_what_is_said_first() {
    let threads = |variables: &[(&str, &str)]| config(variables).worker_threads;

    assert_eq!(threads(&[("WORKER_THREADS", "5")]), 5);
    assert_eq!(threads(&[("WORKER_THREADS", "0")]), 8);
    assert_eq!(threads(&[("WORKER_THREADS", "50%")]), 4);
    assert_eq!(threads(&[("WORKER_THREADS", "1%")]), 1);
    assert_eq!(threads(&[("WORKER_THREADS", "30%")]), 3);
    assert_eq!(threads(&[("WORKER_THREADS", "100%"), ("CPU_LIMIT", "3")]), 3);
    assert_eq!(threads(&[("PROXY_CONFIG", "concurrency: 6")]), 6);
    assert_eq!(threads(&[("PROXY_CONFIG", "concurrency: 0")]), 8);
    assert_eq!(threads(&[("RESOURCE_CPU_LIMIT", "2500m")]), 3);
    assert_eq!(threads(&[("RESOURCE_CPU_LIMIT", "1"), ("RESOURCE_CPU_REQUEST", "4")]), 4);
    assert_eq!(threads(&[("RESOURCE_CPU_REQUEST", "200m")]), 2);
    assert_eq!(threads(&[("RESOURCE_CPU_REQUEST", "6")]), 6);
    for wrong in ["0%", "101%", "-1", "many", "%"] {
        assert!(problems(&[("WORKER_THREADS", wrong)]).contains("WORKER_THREADS"), "{wrong}");
    }
}

#[test]
fn the_drain_ends_before_kubernetes_kills_the_pod() {
    let deadline = |variables: &[(&str, &str)]| config(variables).drain_deadline.as_secs();

    assert_eq!(deadline(&[("TERMINATION_GRACE_PERIOD_SECONDS", "30")]), 25);
    assert_eq!(deadline(&[("TERMINATION_GRACE_PERIOD_SECONDS", "10")]), 9);
    assert_eq!(deadline(&[("TERMINATION_GRACE_PERIOD_SECONDS", "0")]), 1);
    let both = [("TERMINATION_GRACE_PERIOD_SECONDS", "30"), ("CONNECTION_TERMINATION_DEADLINE", "1m")];
    assert_eq!(deadline(&both), 60);
}

#[test]
fn without_an_authority_there_is_nothing_to_run() {
    assert!(problems(&[("CA_ADDRESS", "")]).contains("CA_ADDRESS"));
}

#[test]
fn only_one_local_file_may_be_given() {
    assert!(problems(&[("LOCAL_XDS", "{}"), ("LOCAL_XDS_PATH", "x")]).contains("only one of"));
}

#[test]
fn a_wish_for_security_that_cannot_be_granted_is_no_start() {
    for (key, value) in [("CRL_PATH", "/crl.pem"), ("COMPLIANCE_POLICY", "fips-140-2")] {
        assert!(problems(&[(key, value)]).contains(key));
        assert!(parse(&environment(&[(key, "")])).is_ok());
    }
    let config = parse(&environment(&[("COMPLIANCE_POLICY", "pqc")])).unwrap();
    assert_eq!(config.certificates.key_exchange, tls::KeyExchange::PostQuantum);
}
