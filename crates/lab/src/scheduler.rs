//! Which node a pod runs on: the one it names, one that its selector admits, in turn. A pod that runs stays where it is.

use std::collections::BTreeMap;

use kube_api::core::PodSpec;

/// A node that pods may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) schedulable: bool,
}

/// Why a pod has no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unschedulable {
    #[error("there is no node {0:?}")]
    NoSuchNode(String),
    #[error("no node has the labels of its nodeSelector")]
    NotSelected,
}

/// Hands out nodes in turn.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    turn: usize,
}

impl Scheduler {
    /// The node for a pod.
    pub(crate) fn place(&mut self, spec: &PodSpec, nodes: &[Candidate]) -> Result<String, Unschedulable> {
        if let Some(name) = &spec.node_name {
            let found = nodes.iter().find(|node| node.name == *name);
            return found.map(|node| node.name.clone()).ok_or_else(|| Unschedulable::NoSuchNode(name.clone()));
        }
        let admitted: Vec<_> = nodes.iter().filter(|node| node.schedulable && admits(node, spec)).collect();
        if admitted.is_empty() {
            return Err(Unschedulable::NotSelected);
        }
        let node = admitted[self.turn % admitted.len()];
        self.turn += 1;
        Ok(node.name.clone())
    }
}

/// Does the node have the labels that the pod asks for?
pub(crate) fn admits(node: &Candidate, spec: &PodSpec) -> bool {
    kube_api::is_subset(&spec.node_selector, &node.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Candidate> {
        ["a", "b", "c"]
            .map(|name| Candidate {
                name: name.to_owned(),
                labels: BTreeMap::from([("zone".to_owned(), name.to_owned())]),
                schedulable: name != "c",
            })
            .to_vec()
    }

    fn spec(node: Option<&str>, zone: Option<&str>) -> PodSpec {
        PodSpec {
            node_name: node.map(str::to_owned),
            node_selector: zone.map(|zone| ("zone".to_owned(), zone.to_owned())).into_iter().collect(),
            ..PodSpec::default()
        }
    }

    #[test]
    fn pods_without_wishes_go_round() {
        let mut scheduler = Scheduler::default();

        let placed: Vec<_> = (0..3).map(|_| scheduler.place(&spec(None, None), &nodes()).unwrap()).collect();

        assert_eq!(placed, ["a", "b", "a"]);
    }

    #[test]
    fn wishes_are_honoured_or_said_to_be_impossible() {
        let mut scheduler = Scheduler::default();

        assert_eq!(scheduler.place(&spec(Some("c"), None), &nodes()).unwrap(), "c");
        assert_eq!(scheduler.place(&spec(None, Some("b")), &nodes()).unwrap(), "b");
        assert_eq!(scheduler.place(&spec(None, Some("z")), &nodes()), Err(Unschedulable::NotSelected));
        assert_eq!(scheduler.place(&spec(Some("z"), None), &nodes()), Err(Unschedulable::NoSuchNode("z".to_owned())));
    }
}
