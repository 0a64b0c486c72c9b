//! Services of both families, and their names.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::stage::{CLUSTER, Cluster, Workload, eventually, expect_equal, server_service};

/// A server on each node, a Service in front of them and a client on the first node.
pub(crate) fn deploy(cluster: &Cluster, namespace: &str) {
    let pods = [
        Workload::server("server-1", "node-1"),
        Workload::server("server-2", "node-2"),
        Workload::client("client-1", "node-1"),
    ];
    let pods: String = pods.iter().map(Workload::yaml).collect();
    cluster.apply(namespace, &format!("{pods}{}", server_service())).unwrap();
    cluster.wait_ready(namespace).unwrap();
}

/// Answer to a GET from the client.
pub(crate) fn get(cluster: &Cluster, namespace: &str, url: &str) -> anyhow::Result<String> {
    cluster.kubectl(&["--namespace", namespace, "exec", "client-1", "--", "app", "get", url])
}

/// Waits until requests to a URL have been answered by both servers.
pub(crate) fn reaches_both(cluster: &Cluster, namespace: &str, url: &str) {
    let seen = std::cell::RefCell::new(BTreeSet::new());
    eventually(&format!("{url} reaches both servers"), || {
        let answer = get(cluster, namespace, url)?;
        seen.borrow_mut().insert(answer.split(' ').next().context("an empty answer")?.to_owned());
        expect_equal(
            seen.borrow().iter().cloned().collect::<Vec<_>>(),
            vec!["pod=server-1".into(), "pod=server-2".into()],
        )
    });
}

#[test]
fn a_service_has_addresses_of_both_families_and_each_reaches_pods_on_both_nodes() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "services");

        let addresses = cluster.field("services", "service/server", ".spec.clusterIPs[*]").unwrap();
        let addresses: Vec<_> = addresses.split(' ').collect();

        assert!(
            matches!(addresses[..], [v4, v6] if v4.starts_with("10.92.") && v6.starts_with("fd92:")),
            "{addresses:?}"
        );
        reaches_both(cluster, "services", &format!("http://{}", addresses[0]));
        reaches_both(cluster, "services", &format!("http://[{}]", addresses[1]));
    });
}

#[test]
fn names_of_services_resolve_to_both_families_also_as_headless_ones_to_the_pods() {
    CLUSTER.run(|cluster| {
        deploy(cluster, "names");
        let headless = "---\napiVersion: v1\nkind: Service\nmetadata: {name: headless}\nspec: {clusterIP: None, \
                        ipFamilyPolicy: RequireDualStack, selector: {app: server}, ports: [{port: 8080}]}\n";
        cluster.apply("names", headless).unwrap();
        let resolve = |name: &str| {
            let exec = ["--namespace", "names", "exec", "client-1", "--", "app", "resolve", name];
            anyhow::Ok(cluster.kubectl(&exec)?.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>())
        };
        let field = |object: &str, path: &str| {
            let words = cluster.field("names", object, path).unwrap();
            words.split(' ').map(ToOwned::to_owned).collect::<BTreeSet<_>>()
        };

        let service = field("service/server", ".spec.clusterIPs[*]");
        let pods = field("pods", r#".items[?(@.metadata.labels.app=="server")].status.podIPs[*].ip"#);

        assert_eq!((service.len(), pods.len()), (2, 4));
        for name in ["server", "server.names", "server.names.svc.cluster.local"] {
            eventually(&format!("{name} resolves"), || expect_equal(resolve(name)?, service.clone()));
        }
        eventually("the headless name resolves", || expect_equal(resolve("headless")?, pods.clone()));
    });
}
