//! Reads back from the kernel and the proxy what makes a pod enrolled. It repairs nothing.

use std::os::fd::AsFd;
use std::sync::Arc;

use ebpf_common::{Family, Kind};
use ebpf_loader::{Check, Listener, LoadError, Steering, Survey};
use tokio::time::Instant;

use super::{LiveNode, captured, entry, routing};
use crate::cgroups::Member;
use crate::described::described;
use crate::enrol::{Fact, Proof, Reading};
use crate::pod::{LocalPod, PodNetns};
use crate::proxies::Proxy;
use crate::surveys::Shared;
use crate::{rules, sysctl};

/// Facts of the programs at the node's cgroup root; the loader's checks have the same names.
const ROOT_PROGRAMS: [Fact; 12] = [
    Fact::Connect4,
    Fact::Connect6,
    Fact::Sendmsg4,
    Fact::Sendmsg6,
    Fact::Recvmsg4,
    Fact::Recvmsg6,
    Fact::Getpeername4,
    Fact::Getpeername6,
    Fact::Bind4,
    Fact::Bind6,
    Fact::Egress,
    Fact::Sockops,
];

/// Returns whether a check of the loader is about a program at the node's cgroup root.
pub(super) fn is_of_root(check: &Check) -> bool {
    ROOT_PROGRAMS.iter().any(|fact| fact.name() == check.name)
}

/// `since`: the kernel's links and the node's processes as they were then or later; everything else as it is now.
pub(super) async fn read(node: &LiveNode, pod: &LocalPod, pod_netns: &Arc<PodNetns>, since: Instant) -> Proof {
    let mut proof = Proof::default();
    // Before the survey, whose age depends on it; see `links_since`.
    let routing = rules::read(&pod_netns.netns, &routing(pod, pod_netns)).await;
    let Shared { links, members } = node.surveys.shared_since(links_since(&routing, since, Instant::now())).await;
    // The newest only: new pods go to it, and an older one is on its way out.
    let newest = node.proxies.newest().map(|(_, proxy)| proxy);
    kernel(&mut proof, node, links, newest, (pod, pod_netns)).await;
    let rules::Facts { address, rules, outbound, inbound } = routing;
    proof.push(Fact::Address, address);
    proof.push(Fact::Rules, rules);
    proof.push(Fact::Outbound, outbound);
    proof.push(Fact::Inbound, inbound);
    proof.push(
        Fact::ProxyCgroup,
        members.map_or_else(Reading::Unreadable, |members| shared_cgroup(node, pod, &members)),
    );
    let acknowledged = node.registry.acknowledged(&pod.uid).map(|connection| format!("by connection {connection}"));
    proof.push(Fact::Acknowledged, reading(acknowledged));
    proof
}

/// Earliest moment of the survey for a pod with this routing.
///
/// A pod whose routing does not lead to the proxy is blocked as long as `egress` is attached, and open without it. An older
/// survey may have met a program that has been detached since, and would call an open pod blocked.
fn links_since(routing: &rules::Facts, since: Instant, now: Instant) -> Instant {
    let fails = |reading: &Reading| matches!(reading, Reading::Fails(_));
    if fails(&routing.rules) || fails(&routing.outbound) { now } else { since }
}

/// Everything that is a blocking call, in one go.
async fn kernel(
    proof: &mut Proof,
    node: &LiveNode,
    links: Result<Arc<Survey>, String>,
    proxy: Option<Proxy>,
    (pod, pod_netns): (&LocalPod, &Arc<PodNetns>),
) {
    let (steering, pod, pod_netns) = (node.steering.clone(), pod.clone(), pod_netns.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut proof = Proof::default();
        match links {
            Ok(survey) => attached(&mut proof, &steering, &survey, proxy.as_ref(), &pod_netns),
            Err(reason) => {
                // Pushed although they count as unreadable anyway, so that the report has the reason.
                for fact in ROOT_PROGRAMS.into_iter().chain([Fact::SkLookup, Fact::NetnsCookie, Fact::ProxyTag]) {
                    proof.push(fact, Reading::Unreadable(reason.clone()));
                }
            }
        }
        proof.push(Fact::PodEntry, Reading::of(entered(&steering, &pod, &pod_netns)));
        proof.push(Fact::Probes, Reading::of(probed(&steering, &pod, &pod_netns)));
        proof.push(Fact::Settings, Reading::of(sysctl::missing(&pod_netns.netns).map(none_missing)));
        let listeners = steering.listeners(pod_netns.cookie).map(|listeners| covered(&pod, &listeners));
        proof.push(Fact::Listeners, Reading::of(listeners));
        proof
    });
    // Facts that are not pushed count as unreadable.
    match read.await {
        Ok(read) => proof.append(read),
        Err(error) => tracing::warn!(%error, "failed to read a pod's facts: the task panicked; reading them again"),
    }
}

/// Facts of links, each proved by its pin.
fn attached(proof: &mut Proof, steering: &Steering, survey: &Survey, proxy: Option<&Proxy>, pod_netns: &PodNetns) {
    for fact in ROOT_PROGRAMS {
        let check = survey.root().iter().find(|check| check.name == fact.name()).cloned();
        proof.push(fact, reading(check.map_or_else(|| Err("not attached".to_owned()), found)));
    }
    match steering.verify_pod(survey, pod_netns.cookie, pod_netns.netns.as_fd()) {
        Ok(checks) => {
            for (fact, name) in [(Fact::NetnsCookie, "netns_cookie"), (Fact::SkLookup, "sk_lookup")] {
                if let Some(check) = checks.iter().find(|check| check.name == name).cloned() {
                    proof.push(fact, reading(found(check)));
                }
            }
        }
        Err(error) => {
            for fact in [Fact::NetnsCookie, Fact::SkLookup] {
                proof.push(fact, Reading::Unreadable(described(&error)));
            }
        }
    }
    let tagged = match proxy {
        Some(proxy) => Reading::of(steering.verify_proxy(survey, &proxy.cgroup).map(found)),
        None => Reading::Fails("no proxy is connected".to_owned()),
    };
    proof.push(Fact::ProxyTag, tagged);
}

fn entered(steering: &Steering, pod: &LocalPod, pod_netns: &PodNetns) -> Result<Result<String, String>, LoadError> {
    // Compared as a whole: an old address or port in the entry is as wrong as a missing flag.
    let wanted = entry(pod, pod_netns, captured(pod));
    Ok(match steering.pod(pod_netns.cookie)? {
        Some(known) if known == wanted => Ok(format!("netns cookie {}", pod_netns.cookie)),
        Some(known) => Err(format!("{known:?}, expected {wanted:?}")),
        None => Err(format!("no entry for netns cookie {}", pod_netns.cookie)),
    })
}

/// A port too many would let a probe bypass the proxy; one that is missing keeps a probe from being answered.
fn probed(steering: &Steering, pod: &LocalPod, pod_netns: &PodNetns) -> Result<Result<String, String>, LoadError> {
    let known = steering.probes(pod_netns.cookie)?;
    let known: Vec<u16> = known.iter().flat_map(|probes| probes.iter().collect::<Vec<_>>()).collect();
    let found = format!("ports {known:?}, declared {:?}", pod.probe_ports);
    Ok(if known == pod.probe_ports { Ok(found) } else { Err(found) })
}

/// Reads whether a process of the pod is in the cgroup of a proxy, so that the pod's connections count as the proxy's.
fn shared_cgroup(node: &LiveNode, pod: &LocalPod, members: &[Member]) -> Reading {
    match node.proxies.shared_with(&pod.cgroup_uid, members) {
        Some(cgroup) => Reading::Fails(format!("the proxy's cgroup {} holds processes of the pod", cgroup.display())),
        None => Reading::Holds("no process of the pod is in a proxy's cgroup".to_owned()),
    }
}

/// A listener of each kind for each family the pod has addresses of; one of IPv6 takes IPv4 too, but for DNS, where each is at an
/// address of the pod. UDP has no listeners: the proxy opens its sockets for DNS together with the listener, or does not serve the
/// pod.
fn covered(pod: &LocalPod, listeners: &[Listener]) -> Result<String, String> {
    let has = |kind, family| listeners.iter().any(|listener| listener.kind == kind && listener.family == family);
    let mut missing = Vec::new();
    for kind in Kind::ALL {
        if kind == Kind::Dns && !pod.settings.captures_dns {
            continue;
        }
        let v6 = has(kind, Family::V6);
        let v4 = has(kind, Family::V4) || v6 && kind != Kind::Dns;
        if pod.ips.iter().any(|ip| ip.is_ipv4()) && !v4 {
            missing.push(format!("{} for IPv4", kind.name()));
        }
        if pod.ips.iter().any(|ip| ip.is_ipv6()) && !v6 {
            missing.push(format!("{} for IPv6", kind.name()));
        }
    }
    if missing.is_empty() {
        Ok(format!("{} known", listeners.len()))
    } else {
        let dns_only = missing.iter().all(|kind| kind.starts_with(Kind::Dns.name()));
        let remedy = if dns_only {
            "; ztunnel needs ISTIO_META_DNS_CAPTURE=true, or the agent AMBIENT_DNS_CAPTURE=false"
        } else {
            ""
        };
        Err(format!("no listener: {}{remedy}", missing.join(", ")))
    }
}

fn reading(found: Result<String, String>) -> Reading {
    found.map_or_else(Reading::Fails, Reading::Holds)
}

fn found(check: Check) -> Result<String, String> {
    if check.ok { Ok(check.detail) } else { Err(check.detail) }
}

fn none_missing(missing: Vec<String>) -> Result<String, String> {
    if missing.is_empty() { Ok("all in place".to_owned()) } else { Err(missing.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::tests::pod;

    fn listener(kind: Kind, family: Family) -> Listener {
        Listener { kind, family, socket_cookie: 1 }
    }

    #[test]
    fn a_pod_whose_routing_fails_is_judged_by_links_that_were_read_after_it() {
        let holds = || Reading::Holds(String::new());
        let fails = || Reading::Fails("no IPv4 rule".to_owned());
        let unread = || Reading::Unreadable("EMFILE".to_owned());
        let facts = |rules, outbound| rules::Facts { address: holds(), rules, outbound, inbound: holds() };
        let since = Instant::now();
        let now = since + std::time::Duration::from_millis(1500);

        assert_eq!(links_since(&facts(holds(), holds()), since, now), since);
        assert_eq!(links_since(&facts(unread(), unread()), since, now), since);
        assert_eq!(links_since(&facts(fails(), holds()), since, now), now);
        assert_eq!(links_since(&facts(holds(), fails()), since, now), now);
    }

    #[test]
    fn a_dual_stack_listener_serves_both_families_and_one_of_ipv4_does_not() {
        let mut spec = pod();
        spec.ips = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        spec.settings.captures_dns = false;
        let of = |family| Kind::ALL.map(|kind| listener(kind, family));

        assert!(covered(&spec, &of(Family::V6)).is_ok());
        assert!(covered(&spec, &of(Family::V4)).unwrap_err().contains("IPv6"));
        spec.ips.truncate(1);
        assert!(covered(&spec, &of(Family::V4)).is_ok());
        assert!(covered(&spec, &[]).is_err());
    }

    #[test]
    fn a_pod_whose_dns_is_captured_needs_a_listener_for_it_at_each_of_its_addresses() {
        let mut spec = pod();
        let without_dns = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Dns);
        let with = |families: &[Family]| {
            let dns = families.iter().map(|family| listener(Kind::Dns, *family));
            without_dns().map(|kind| listener(kind, Family::V6)).chain(dns).collect::<Vec<_>>()
        };

        assert!(covered(&spec, &with(&[Family::V4])).is_ok());
        let missing = covered(&spec, &with(&[Family::V6])).unwrap_err();
        assert!(missing.contains("dns for IPv4") && missing.contains("ISTIO_META_DNS_CAPTURE"), "{missing}");
        spec.ips.push("fd00::1".parse().unwrap());
        assert!(covered(&spec, &with(&[Family::V4])).unwrap_err().contains("dns for IPv6"));
        assert!(covered(&spec, &with(&[Family::V4, Family::V6])).is_ok());
        spec.settings.captures_dns = false;
        assert!(covered(&spec, &with(&[])).is_ok());
    }
}
