//! The rules of the node proxy's sections, read from made-up environments.

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Environment { variables, mesh_config: None, processors: 8 }
}

fn config(variables: &[(&str, &str)]) -> Config {
    Config::from_env(&environment(variables)).unwrap()
}

fn problems(variables: &[(&str, &str)]) -> String {
    Config::from_env(&environment(variables)).unwrap_err().to_string()
}

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let config = config(&[]);

    assert_eq!(config.traffic.mode, Mode::Shared);
    assert_eq!(config.traffic.packet_mark, Some(1337));
    assert_eq!(config.traffic.preserve_source, PreserveSource::Auto);
    assert_eq!(config.traffic.zds_socket.to_str(), Some("/var/run/ztunnel/ztunnel.sock"));
    assert_eq!(config.common.worker_threads, 2);
}

#[test]
fn mistakes_of_all_sections_are_named_together() {
    let text = problems(&[("KEEPALIVE_TIME", "soon"), ("PACKET_MARK", "-1"), ("ZTUNNEL_WORKER_THREADS", "many")]);

    for line in ["KEEPALIVE_TIME=\"soon\" is not valid", "PACKET_MARK=\"-1\" is not valid", "ZTUNNEL_WORKER_THREADS"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn the_number_of_workers_follows_the_variables_of_ztunnel() {
    let threads = |variables: &[(&str, &str)]| config(variables).common.worker_threads;

    assert_eq!(threads(&[("ZTUNNEL_WORKER_THREADS", "100%"), ("ZTUNNEL_CPU_LIMIT", "3")]), 3);
    assert_eq!(threads(&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "1"), ("ZTUNNEL_RESOURCE_CPU_REQUEST", "4")]), 4);
}

#[test]
fn dedicated_mode_needs_its_workload() {
    let dedicated = ("PROXY_MODE", "dedicated");
    let info = WorkloadInfo { namespace: "a".into(), name: "b".into(), service_account: "c".into() };

    assert_eq!(config(&[dedicated, ("PROXY_WORKLOAD_INFO", "a/b/c")]).traffic.mode, Mode::Dedicated(info));
    assert_eq!(config(&[dedicated, ("PROXY_WORKLOAD_INFO", "a/b/c")]).traffic.packet_mark, None);
    assert!(problems(&[dedicated]).contains("PROXY_WORKLOAD_INFO is missing"));
    assert_eq!(problems(&[dedicated, ("PROXY_WORKLOAD_INFO", "a/b")]).lines().count(), 1);
}

#[test]
fn unsupported_keys_are_reported() {
    let config = config(&[
        ("XDS_ON_DEMAND", "true"),
        ("TLS12_ENABLED", "true"),
        ("CLUSTER_DOMAIN", "cluster.local"),
        ("PREFERED_SERVICE_NAMESPACE", "shop"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
    ]);

    let told: Vec<&str> = config.unsupported.iter().map(|setting| setting.what.as_str()).collect();
    assert_eq!(told, ["XDS_ON_DEMAND", "TLS12_ENABLED"]);
}

#[test]
fn dns_is_proxied_unless_metadata_says_otherwise() {
    let enabled = |variables: &[(&str, &str)]| config(variables).dns.enabled;

    assert!(enabled(&[]));
    assert!(enabled(&[("ISTIO_META_DNS_CAPTURE", "TRUE")]));
    for no in ["false", "", "1"] {
        assert!(!enabled(&[("ISTIO_META_DNS_CAPTURE", no)]), "{no:?}");
    }
    let proxy = ("PROXY_CONFIG", "proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"false\"\n");
    assert!(!enabled(&[proxy]));
    assert!(enabled(&[proxy, ("ISTIO_META_DNS_CAPTURE", "true")]));
    assert!(!enabled(&[("ISTIO_METAJSON_DNS_CAPTURE", "false")]));
    assert!(enabled(&[("ISTIO_METAJSON_DNS_CAPTURE", "true")]));
}

#[test]
fn dns_listens_on_loopback_unless_it_is_given_an_address() {
    let listen =
        |variables: &[(&str, &str)]| config(variables).dns.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    let at = |address| ("ISTIO_META_DNS_PROXY_ADDR", address);

    assert_eq!(listen(&[]), ["127.0.0.1:15053", "[::1]:15053"]);
    assert_eq!(listen(&[("IPV6_ENABLED", "false")]), ["127.0.0.1:15053"]);
    assert_eq!(listen(&[at("localhost:5300")]), ["127.0.0.1:5300", "[::1]:5300"]);
    assert_eq!(listen(&[at("[::]:5300")]), ["[::]:5300"]);
    for wrong in ["localhost", "localhost:65536", "127.0.0.1", ""] {
        let problems = problems(&[at(wrong)]);
        assert!(problems.contains("ISTIO_META_DNS_PROXY_ADDR"), "{wrong}: {problems}");
        assert!(problems.contains("localhost:PORT"), "{wrong}: {problems}");
    }
}

#[test]
fn the_cluster_s_domain_is_read_as_dns_compares_it() {
    let domain = |value| config(&[("CLUSTER_DOMAIN", value)]).dns.cluster_domain;

    assert_eq!(config(&[]).dns.cluster_domain, "cluster.local");
    assert_eq!(domain("Corp.Example."), "corp.example");
    assert_eq!(config(&[("PREFERED_SERVICE_NAMESPACE", "shop")]).dns.preferred_namespace.as_deref(), Some("shop"));
    for wrong in ["", ".", "a..b", "a b", &"a.".repeat(100)] {
        assert!(problems(&[("CLUSTER_DOMAIN", wrong)]).contains("CLUSTER_DOMAIN"), "{wrong:?}");
    }
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let yaml = config(&[("AUTH_TOKEN", "top-secret"), ("XDS_HEADER_x-key", "top-secret")]).to_yaml();

    assert!(!yaml.contains("top-secret"), "{yaml}");
    assert!(yaml.contains("x-key"));
    assert!(yaml.contains("drainDeadline: 5s"), "{yaml}");
}
