//! Chooses the node of a pod: the one it names, one that its selector and affinity admit and whose taints it tolerates, in
//! turn. A pod that runs stays where it is.

use std::collections::BTreeMap;

use contract::labels::UNSCHEDULABLE_TAINT;
use kube_types::LabelSelectorRequirement;
use kube_types::core::{NodeSelectorTerm, PodSpec, Taint};

/// A node that pods may run on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) schedulable: bool,
    pub(crate) taints: Vec<Taint>,
}

/// Reason why a pod has no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unschedulable {
    #[error("node {0:?} not found")]
    NoSuchNode(String),
    /// In the words of Kubernetes' scheduler.
    #[error("0/{nodes} nodes are available: {}", reasons.join(", "))]
    NoneFits { nodes: usize, reasons: Vec<String> },
}

/// Reason why a node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Selector,
    Taint { key: String, value: String },
    Unschedulable,
}

impl Refusal {
    fn text(&self) -> String {
        match self {
            Self::Selector => "didn't match Pod's node affinity/selector".to_owned(),
            Self::Taint { key, value } => format!("had untolerated taint {{{key}: {value}}}"),
            Self::Unschedulable => "were unschedulable".to_owned(),
        }
    }
}

/// Hands out nodes in turn.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    turn: usize,
}

impl Scheduler {
    /// The node for a pod.
    pub(crate) fn place(&mut self, spec: &PodSpec, nodes: &[Candidate]) -> Result<String, Unschedulable> {
        // A pod that names its node does not pass the scheduler in Kubernetes either: neither taints nor selectors are
        // asked.
        if let Some(name) = &spec.node_name {
            let found = nodes.iter().find(|node| node.name == *name);
            return found.map(|node| node.name.clone()).ok_or_else(|| Unschedulable::NoSuchNode(name.clone()));
        }
        let mut refusals: BTreeMap<Refusal, usize> = BTreeMap::new();
        let mut admitted = Vec::new();
        for node in nodes {
            match refusal(node, spec) {
                None => admitted.push(node),
                Some(refusal) => *refusals.entry(refusal).or_default() += 1,
            }
        }
        if admitted.is_empty() {
            let reason = |(refusal, count): (Refusal, usize)| format!("{count} node(s) {}", refusal.text());
            let reasons = refusals.into_iter().map(reason).collect();
            return Err(Unschedulable::NoneFits { nodes: nodes.len(), reasons });
        }
        // In turn and not by load: which pod runs where is the same each time the lab is started.
        let node = admitted[self.turn % admitted.len()];
        self.turn += 1;
        Ok(node.name.clone())
    }
}

/// Reason why the node does not take a pod that names no node; `None` when it does.
pub(crate) fn refusal(node: &Candidate, spec: &PodSpec) -> Option<Refusal> {
    let tolerated = |taint: &Taint| spec.tolerations.iter().any(|toleration| toleration.covers(taint));
    // Kubernetes gives this taint to a cordoned node, and a DaemonSet's pods tolerate it.
    let cordoned = Taint { key: UNSCHEDULABLE_TAINT.to_owned(), value: String::new(), effect: "NoSchedule".to_owned() };
    if !node.schedulable && !tolerated(&cordoned) {
        return Some(Refusal::Unschedulable);
    }
    // `PreferNoSchedule` is a preference; a scheduler that takes nodes in turn ignores it.
    let keeps_away = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(taint);
    if let Some(taint) = node.taints.iter().find(keeps_away) {
        return Some(Refusal::Taint { key: taint.key.clone(), value: taint.value.clone() });
    }
    (!admits(node, spec)).then_some(Refusal::Selector)
}

/// Does the node have the labels that the pod asks for, by `nodeSelector` and by node affinity?
fn admits(node: &Candidate, spec: &PodSpec) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    kube_types::is_subset(&spec.node_selector, &node.labels)
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| meets(node, term)))
}

fn meets(node: &Candidate, term: &NodeSelectorTerm) -> bool {
    let fields = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    // An empty term matches no node (`NodeSelectorTerm` of the Kubernetes API), whereas `all` of nothing is true.
    let says_something = !term.match_expressions.is_empty() || !term.match_fields.is_empty();
    says_something
        && term.match_expressions.iter().all(|want| holds(want, &node.labels))
        && term.match_fields.iter().all(|want| holds(want, &fields))
}

/// Evaluates one requirement. An operator that is not known admits nothing.
fn holds(want: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let have = labels.get(&want.key);
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    let compare = |order| match (number(have), number(want.values.first())) {
        (Some(have), Some(bound)) => have.cmp(&bound) == order,
        _ => false,
    };
    match want.operator.as_str() {
        "In" => have.is_some_and(|value| want.values.contains(value)),
        // As in Kubernetes: a label that is absent is in no list.
        "NotIn" => have.is_none_or(|value| !want.values.contains(value)),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> Vec<Candidate> {
        ["a", "b", "c"]
            .map(|name| Candidate {
                name: name.to_owned(),
                labels: BTreeMap::from([("zone".to_owned(), name.to_owned())]),
                schedulable: name != "c",
                taints: Vec::new(),
            })
            .to_vec()
    }

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn place(value: serde_json::Value, nodes: &[Candidate]) -> Result<String, String> {
        Scheduler::default().place(&spec(value), nodes).map_err(|err| err.to_string())
    }

    #[test]
    fn pods_without_wishes_go_round() {
        let mut scheduler = Scheduler::default();

        let placed: Vec<_> = (0..3).map(|_| scheduler.place(&spec(json!({})), &nodes()).unwrap()).collect();

        assert_eq!(placed, ["a", "b", "a"]);
    }

    #[test]
    fn wishes_are_honoured_or_said_to_be_impossible() {
        assert_eq!(place(json!({"nodeName": "c"}), &nodes()).unwrap(), "c");
        assert_eq!(place(json!({"nodeSelector": {"zone": "b"}}), &nodes()).unwrap(), "b");
        assert_eq!(
            place(json!({"nodeSelector": {"zone": "z"}}), &nodes()).unwrap_err(),
            "0/3 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable"
        );
        assert_eq!(place(json!({"nodeName": "z"}), &nodes()).unwrap_err(), "node \"z\" not found");
    }

    #[test]
    fn node_affinity_admits_a_node_that_meets_one_term() {
        let affinity = |terms: serde_json::Value| {
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let zone = |operator: &str, values: &[&str]| json!({"key": "zone", "operator": operator, "values": values});

        let either = json!([{"matchExpressions": [zone("In", &["z"])]}, {"matchExpressions": [zone("NotIn", &["a"])]}]);
        assert_eq!(place(affinity(either), &nodes()).unwrap(), "b");
        let name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]);
        assert_eq!(place(affinity(name), &nodes()).unwrap(), "b");
        assert!(place(affinity(json!([{}])), &nodes()).is_err(), "an empty term admits no node");
        assert!(place(affinity(json!([{"matchExpressions": [zone("Gt", &["1"])]}])), &nodes()).is_err());
    }

    #[test]
    fn a_taint_keeps_away_who_does_not_tolerate_it() {
        let mut nodes = nodes();
        for node in &mut nodes {
            node.schedulable = true;
            node.taints =
                serde_json::from_value(json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])).unwrap();
        }

        assert_eq!(
            place(json!({}), &nodes).unwrap_err(),
            "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: yes}"
        );
        for toleration in [
            json!({"key": "gpu", "operator": "Exists"}),
            json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"}),
            json!({"operator": "Exists"}),
        ] {
            assert!(place(json!({"tolerations": [toleration]}), &nodes).is_ok());
        }
        assert!(place(json!({"tolerations": [{"key": "gpu", "value": "no"}]}), &nodes).is_err());
        nodes[0].taints[0].effect = "PreferNoSchedule".to_owned();
        assert_eq!(place(json!({}), &nodes).unwrap(), "a");
    }
}
