//! Annotations of a pod that ask for what this mesh does not do yet, so that they are not ignored in silence.
//! It enrols nothing: the pod is treated as if it had none of them.

use contract::labels::{
    BYPASS_INBOUND_CAPTURE_ANNOTATION, DNS_CAPTURE_ANNOTATION, REROUTE_VIRTUAL_INTERFACES_ANNOTATION,
};
use kube_types::core::Pod;

/// Istio's annotation, and what is done instead.
const ANNOTATIONS: [(&str, &str); 3] = [
    (BYPASS_INBOUND_CAPTURE_ANNOTATION, "inbound connections are captured"),
    (DNS_CAPTURE_ANNOTATION, "DNS is not captured"),
    (REROUTE_VIRTUAL_INTERFACES_ANNOTATION, "connections from virtual interfaces are not captured"),
];

/// Settings that the pod requests and that are not supported. `"false"` and nothing ask for what is done anyway.
pub fn notes(pod: &Pod) -> Vec<String> {
    let asked = ANNOTATIONS.iter().filter_map(|(name, instead)| {
        let value = pod.metadata.annotations.get(*name)?.trim();
        let asks = !value.is_empty() && !value.eq_ignore_ascii_case("false");
        asks.then(|| format!("annotation {name} is not supported and has no effect: {instead}"))
    });
    asked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_that_has_no_effect_is_told_unless_it_asks_for_what_is_done_anyway() {
        let mut pod = Pod::default();
        let mut with = |name: &str, value: &str| {
            pod.metadata.annotations = [(name.to_owned(), value.to_owned())].into();
            notes(&pod)
        };

        for (name, _) in ANNOTATIONS {
            let annotated = with(name, "true");
            assert!(
                annotated.len() == 1 && annotated[0].contains(name) && annotated[0].contains("not supported"),
                "{annotated:?}"
            );
        }
        assert!(with("ambient.istio.io/dns-capture", "false").is_empty());
        assert!(with("istio.io/reroute-virtual-interfaces", "").is_empty());
        assert!(with("ambient.istio.io/redirection", "enabled").is_empty());
    }
}
