//! Annotations of a pod that request what this mesh does not support, so that they are not ignored in silence.
//! It enrols nothing: the pod is treated as if it had none of them.

use contract::Unsupported;
use contract::labels::REROUTE_VIRTUAL_INTERFACES_ANNOTATION;
use kube_types::core::Pod;

/// Istio's annotation, and what is done instead. Those of sidecars have no effect in ambient mode of Istio either.
const ANNOTATIONS: [(&str, &str); 7] = [
    (REROUTE_VIRTUAL_INTERFACES_ANNOTATION, "connections from virtual interfaces are not captured"),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "connections to all ports are captured"),
    ("traffic.sidecar.istio.io/includeInboundPorts", "connections to all ports are captured"),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "connections to all ports are captured"),
    ("traffic.sidecar.istio.io/includeOutboundPorts", "connections to all ports are captured"),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "connections to all addresses are captured"),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "connections to all addresses are captured"),
];

/// Annotations of the pod that are not supported. `"false"` and nothing request what is done anyway.
pub fn annotations(pod: &Pod) -> Vec<Unsupported> {
    let asked = ANNOTATIONS.iter().filter_map(|(name, instead)| {
        let value = pod.metadata.annotations.get(*name)?.trim();
        let asks = !value.is_empty() && !value.eq_ignore_ascii_case("false");
        asks.then(|| Unsupported::new(format!("annotation {name}"), *instead))
    });
    asked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_annotation_is_reported_unless_it_requests_what_is_done_anyway() {
        let mut pod = Pod::default();
        let mut with = |name: &str, value: &str| {
            pod.metadata.annotations = [(name.to_owned(), value.to_owned())].into();
            annotations(&pod)
        };

        for (name, _) in ANNOTATIONS {
            let told = with(name, "true");
            assert!(told.len() == 1 && told[0].what.contains(name), "{told:?}");
        }
        assert!(with("ambient.istio.io/bypass-inbound-capture", "true").is_empty(), "it is supported");
        assert!(with("ambient.istio.io/dns-capture", "true").is_empty(), "it is supported");
        assert!(with("istio.io/reroute-virtual-interfaces", "").is_empty());
        assert!(with("ambient.istio.io/redirection", "enabled").is_empty());
    }
}
