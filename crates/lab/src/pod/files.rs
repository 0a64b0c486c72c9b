//! Files that every pod finds in its mount namespace, `resolv.conf` and `hosts`, and its host name. Its volumes are in
//! `volumes`.

use std::{fs, io, net::IpAddr, path::Path};

use kube_types::core::{Pod, PodDnsOption};

use crate::{addresses::dns, dns::DOMAIN};

/// Longest host name that the kernel and Kubernetes know.
const MAX_HOSTNAME: usize = 63;

/// The name that a pod calls itself: `spec.hostname`, else the pod's, cut as kubelet does it.
pub(crate) fn hostname(pod: &Pod) -> String {
    let name = pod.spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&pod.metadata.name);
    let short = name.get(..MAX_HOSTNAME).unwrap_or(name).trim_end_matches(['-', '.']);
    let whole = full_name(pod, short).filter(|_| pod.spec.set_hostname_as_fqdn == Some(true));
    // The kernel itself takes 64 bytes (`__NEW_UTS_LEN`).
    whole.filter(|whole| whole.len() <= MAX_HOSTNAME + 1).unwrap_or_else(|| short.to_owned())
}

/// The name that DNS has for a pod with a subdomain.
fn full_name(pod: &Pod, host: &str) -> Option<String> {
    let subdomain = pod.spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{host}.{subdomain}.{}.svc.{DOMAIN}", pod.metadata.namespace))
}

/// Writes the files that every pod has.
pub(crate) fn write_common(dir: &Path, pod: &Pod, ips: &[IpAddr]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("resolv.conf"), resolv_conf(pod))?;
    fs::write(dir.join("hosts"), hosts(pod, ips))
}

/// Cluster DNS and the namespace's search list, with `dnsConfig` added; with `dnsPolicy: None` that alone.
fn resolv_conf(pod: &Pod) -> String {
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if pod.spec.dns_policy.as_deref() != Some("None") {
        servers.extend(dns().both().map(|ip| ip.to_string()));
        let namespace = &pod.metadata.namespace;
        searches.extend([format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()]);
        // kubelet's value for `ClusterFirst`.
        options.push("ndots:5".to_owned());
    }
    if let Some(own) = &pod.spec.dns_config {
        servers.extend(own.nameservers.iter().cloned());
        searches.extend(own.searches.iter().cloned());
        for PodDnsOption { name, value } in &own.options {
            // An option of the pod replaces the one of the same name, as kubelet merges them.
            options.retain(|option| option.split(':').next() != Some(name));
            options.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
        }
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (word, list) in [("search", searches), ("options", options)] {
        if !list.is_empty() {
            text.push_str(&format!("{word} {}\n", list.join(" ")));
        }
    }
    text
}

fn hosts(pod: &Pod, ips: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = pod.spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&pod.metadata.name);
    let name = name.get(..MAX_HOSTNAME).unwrap_or(name).trim_end_matches(['-', '.']);
    for ip in ips {
        let full = full_name(pod, name).map(|full| format!("{full}\t"));
        text.push_str(&format!("{ip}\t{}{name}\n", full.unwrap_or_default()));
    }
    for alias in &pod.spec.host_aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_searches_its_namespace_first() {
        let text = resolv_conf(&pod(json!({})));

        assert!(text.contains("search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"));
        assert!(text.starts_with("nameserver 10.96.0.10\nnameserver fd00:10:96::a\n"));
    }

    #[test]
    fn settings_of_a_pods_own_are_added_or_stand_alone() {
        let own =
            json!({"nameservers": ["192.0.2.1"], "searches": ["x.test"], "options": [{"name": "ndots", "value": "1"}]});

        let added = resolv_conf(&pod(json!({"dnsConfig": own.clone()})));
        let alone = resolv_conf(&pod(json!({"dnsPolicy": "None", "dnsConfig": own})));

        assert!(added.contains("cluster.local x.test\noptions ndots:1\n"), "{added}");
        assert_eq!(alone, "nameserver 192.0.2.1\nsearch x.test\noptions ndots:1\n");
    }

    #[test]
    fn a_pod_of_a_stateful_set_knows_its_whole_name() {
        let pod = pod(json!({"hostname": "db-0", "subdomain": "db", "containers": []}));

        let text = hosts(&pod, &["10.244.1.2".parse().unwrap()]);

        assert!(text.ends_with("10.244.1.2\tdb-0.db.shop.svc.cluster.local\tdb-0\n"));
    }

    #[test]
    fn host_aliases_are_lines_of_their_own() {
        let pod = pod(json!({"hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a.test", "b"]}]}));

        assert!(hosts(&pod, &[]).ends_with("192.0.2.7\ta.test\tb\n"));
    }

    #[test]
    fn the_longest_name_of_a_pod_makes_a_host_name_that_the_kernel_takes() {
        let mut pod = pod(json!({}));
        pod.metadata.name = format!("{}-{}", "a".repeat(62), "b".repeat(190));

        assert_eq!(hostname(&pod), "a".repeat(62));
    }
}
