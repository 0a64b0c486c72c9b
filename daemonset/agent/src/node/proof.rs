//! Reads back from the kernel and the proxy what makes a pod enrolled. It repairs nothing.

use std::os::fd::AsFd;
use std::sync::Arc;

use ebpf_common::{F_IN, F_OUT, Family, Kind};
use ebpf_loader::{Check, Listener, LoadError, Steering, Survey};
use tokio::time::Instant;

use super::{LiveNode, described, entry, routing};
use crate::enrol::{Place, PodSpec, Proof, Side};
use crate::netlink::interface_of;
use crate::{rules, sysctl};

/// Programs at the node's cgroup root, as the loader names them.
const ROOT_PROGRAMS: [&str; 3] = ["connect4", "connect6", "sockops"];

/// `since`: the kernel's links as they were then or later; everything else as it is now.
pub(super) async fn read(node: &LiveNode, pod: &PodSpec, place: &Arc<Place>, since: Instant) -> Proof {
    let mut proof = Proof::default();
    match node.surveys.since(since).await {
        Ok(survey) => kernel(&mut proof, node, survey, (pod, place)).await,
        Err(reason) => proof.push(Side::Kernel, "programs", Err(reason)),
    }
    proof.push(Side::Kernel, "rules", nothing_missing(rules::missing(&place.netns, &routing(pod, place)).await));
    let held = match interface_of(&place.netns, &pod.ips).await {
        Ok(Some(index)) if index == place.interface => Ok(format!("interface {index}")),
        Ok(Some(index)) => Err(format!("on interface {index}, was on {}", place.interface)),
        Ok(None) => Err("the namespace no longer holds an address of the pod".to_owned()),
        Err(error) => Err(described(&error)),
    };
    proof.push(Side::Kernel, "address", held);
    let acknowledged = node.registry.acknowledged(&pod.uid).map(|connection| format!("by connection {connection}"));
    proof.push(Side::Proxy, "acknowledged", acknowledged);
    proof
}

/// Everything that is a blocking call, in one go.
async fn kernel(proof: &mut Proof, node: &LiveNode, survey: Arc<Survey>, (pod, place): (&PodSpec, &Arc<Place>)) {
    let (steering, proxy) = (node.steering.clone(), node.proxies.newest());
    let (pod, place) = (pod.clone(), place.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut proof = Proof::default();
        root(&mut proof, &survey);
        entered(&mut proof, &steering, &pod, &place);
        lookup(&mut proof, &steering, &survey, &place);
        proof.push(Side::Kernel, "settings", nothing_missing(sysctl::missing(&place.netns)));
        let tagged = match &proxy {
            Some((_, proxy)) => steering.verify_proxy(&survey, &proxy.cgroup).map(found),
            None => Ok(Err("no proxy is connected".to_owned())),
        };
        proof.push(Side::Proxy, "proxy_tag", tagged.unwrap_or_else(unreadable));
        let listeners = steering.listeners(place.cookie).map(|listeners| covered(&pod, &listeners));
        proof.push(Side::Proxy, "listeners", listeners.unwrap_or_else(unreadable));
        proof
    });
    match read.await {
        Ok(read) => proof.0.extend(read.0),
        Err(error) => proof.push(Side::Kernel, "programs", Err(error.to_string())),
    }
}

fn root(proof: &mut Proof, survey: &Survey) {
    for name in ROOT_PROGRAMS {
        let check = survey.root().iter().find(|check| check.name == name).cloned().map(found);
        proof.push(Side::Kernel, name, check.unwrap_or_else(|| Err("not attached".to_owned())));
    }
}

fn entered(proof: &mut Proof, steering: &Steering, pod: &PodSpec, place: &Place) {
    let wanted = entry(pod, place, F_OUT | F_IN);
    let entered = match steering.pod(place.cookie) {
        Ok(Some(known)) if known == wanted => Ok(format!("netns cookie {}", place.cookie)),
        Ok(Some(known)) => Err(format!("{known:?}, expected {wanted:?}")),
        Ok(None) => Err(format!("no entry for netns cookie {}", place.cookie)),
        Err(error) => unreadable(error),
    };
    proof.push(Side::Kernel, "pod_entry", entered);
}

fn lookup(proof: &mut Proof, steering: &Steering, survey: &Survey, place: &Place) {
    match steering.verify_pod(survey, place.cookie, place.netns.as_fd()) {
        Ok(checks) => {
            for check in checks.into_iter().filter(|check| check.name != "pod_entry") {
                let name = check.name.clone();
                proof.push(Side::Kernel, &name, found(check));
            }
        }
        Err(error) => proof.push(Side::Kernel, "sk_lookup", unreadable(error)),
    }
}

/// A listener of each kind for each family the pod has addresses of; one of IPv6 takes IPv4 too.
fn covered(pod: &PodSpec, listeners: &[Listener]) -> Result<String, String> {
    let has = |kind, family| listeners.iter().any(|listener| listener.kind == kind && listener.family == family);
    let mut missing = Vec::new();
    for kind in Kind::ALL {
        let v6 = has(kind, Family::V6);
        if pod.ips.iter().any(|ip| ip.is_ipv4()) && !v6 && !has(kind, Family::V4) {
            missing.push(format!("{} for IPv4", kind.name()));
        }
        if pod.ips.iter().any(|ip| ip.is_ipv6()) && !v6 {
            missing.push(format!("{} for IPv6", kind.name()));
        }
    }
    if missing.is_empty() {
        Ok(format!("{} known", listeners.len()))
    } else {
        Err(format!("no listener: {}", missing.join(", ")))
    }
}

fn found(check: Check) -> Result<String, String> {
    if check.ok { Ok(check.detail) } else { Err(check.detail) }
}

fn unreadable(error: LoadError) -> Result<String, String> {
    Err(described(&error))
}

fn nothing_missing<E: std::error::Error>(missing: Result<Vec<String>, E>) -> Result<String, String> {
    match missing {
        Ok(missing) if missing.is_empty() => Ok("all in place".to_owned()),
        Ok(missing) => Err(missing.join(", ")),
        Err(error) => Err(described(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::tests::pod;

    fn listener(kind: Kind, family: Family) -> Listener {
        Listener { kind, family, socket_cookie: 1 }
    }

    #[test]
    fn a_dual_stack_listener_serves_both_families_and_one_of_ipv4_does_not() {
        let mut spec = pod();
        spec.ips = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let of = |family| Kind::ALL.map(|kind| listener(kind, family));

        assert!(covered(&spec, &of(Family::V6)).is_ok());
        assert!(covered(&spec, &of(Family::V4)).unwrap_err().contains("IPv6"));
        spec.ips.truncate(1);
        assert!(covered(&spec, &of(Family::V4)).is_ok());
        assert!(covered(&spec, &[]).is_err());
    }
}
