//! Settings that a pod chooses by annotations. What they do is the kernel programs' business.

use contract::labels::{BYPASS_INBOUND_CAPTURE_ANNOTATION, DNS_CAPTURE_ANNOTATION};
use kube_types::core::Pod;

/// Settings of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodSettings {
    /// DNS questions go to the proxy.
    pub captures_dns: bool,
    /// Plaintext connections to the pod do not go to the proxy; tunnels do.
    pub bypasses_inbound: bool,
}

impl PodSettings {
    /// Reads a pod's annotations. `node`: settings of a pod without them. `last`: settings that hold so far, which stay where an
    /// annotation cannot be read.
    pub fn of(pod: &Pod, node: Self, last: Option<Self>) -> Self {
        let last = last.unwrap_or(node);
        let read = |name, node, last| match boolean(pod, name) {
            Ok(value) => value.unwrap_or(node),
            Err(_) => last,
        };
        Self {
            captures_dns: read(DNS_CAPTURE_ANNOTATION, node.captures_dns, last.captures_dns),
            bypasses_inbound: read(BYPASS_INBOUND_CAPTURE_ANNOTATION, node.bypasses_inbound, last.bypasses_inbound),
        }
    }

    /// Annotations of the pod that change something or cannot be read, each with its effect; `self` are the settings that hold.
    pub fn notes(self, pod: &Pod, node: Self) -> Vec<String> {
        let dns = if self.captures_dns { "DNS questions go to ztunnel" } else { "DNS questions bypass ztunnel" };
        let inbound = if self.bypasses_inbound {
            "connections to the pod that are not HBONE bypass ztunnel and its policies"
        } else {
            "all connections to the pod go to ztunnel"
        };
        let mut notes = Vec::new();
        for (name, differs, effect) in [
            (DNS_CAPTURE_ANNOTATION, self.captures_dns != node.captures_dns, dns),
            (BYPASS_INBOUND_CAPTURE_ANNOTATION, self.bypasses_inbound != node.bypasses_inbound, inbound),
        ] {
            match boolean(pod, name) {
                Err(value) => {
                    notes.push(format!("annotation {name}: invalid value {value:?}, expected true or false; {effect}"))
                }
                Ok(Some(_)) if differs => notes.push(format!("annotation {name}: {effect}")),
                Ok(_) => {}
            }
        }
        notes
    }
}

/// Value of an annotation, if there is one; `Err`: it is none of those that Istio's agent takes for a boolean.
fn boolean<'a>(pod: &'a Pod, name: &str) -> Result<Option<bool>, &'a str> {
    match pod.metadata.annotations.get(name).map(|value| value.trim()) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        Some(value) => Err(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: PodSettings = PodSettings { captures_dns: true, bypasses_inbound: false };

    fn with(name: &str, value: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.annotations = [(name.to_owned(), value.to_owned())].into();
        pod
    }

    #[test]
    fn a_pod_overrides_the_node_either_way_and_what_differs_is_noted() {
        assert_eq!(PodSettings::of(&Pod::default(), NODE, None), NODE);
        for node in [true, false] {
            let node = PodSettings { captures_dns: node, ..NODE };
            for (value, wanted) in [("true", true), ("1", true), ("False", false), (" false ", false)] {
                let pod = with(DNS_CAPTURE_ANNOTATION, value);

                let settings = PodSettings::of(&pod, node, None);

                assert_eq!(settings, PodSettings { captures_dns: wanted, ..node });
                assert_eq!(settings.notes(&pod, node).len(), usize::from(wanted != node.captures_dns), "{value}");
            }
        }
        let pod = with(BYPASS_INBOUND_CAPTURE_ANNOTATION, "true");
        let settings = PodSettings::of(&pod, NODE, None);
        assert!(settings.bypasses_inbound && settings.captures_dns);
        assert!(settings.notes(&pod, NODE)[0].ends_with("bypass ztunnel and its policies"));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_noted_and_what_held_before_holds_on() {
        for name in [DNS_CAPTURE_ANNOTATION, BYPASS_INBOUND_CAPTURE_ANNOTATION] {
            for value in ["yes", ""] {
                let (pod, last) = (with(name, value), PodSettings { captures_dns: false, bypasses_inbound: true });

                assert_eq!(PodSettings::of(&pod, NODE, None), NODE);
                let notes = NODE.notes(&pod, NODE);
                assert!(notes.len() == 1 && notes[0].contains("expected true or false"), "{notes:?}");
                let kept = PodSettings::of(&pod, NODE, Some(last));
                match name {
                    DNS_CAPTURE_ANNOTATION => assert!(!kept.captures_dns && !kept.bypasses_inbound),
                    _ => assert!(kept.captures_dns && kept.bypasses_inbound),
                }
            }
        }
    }
}
