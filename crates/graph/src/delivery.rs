//! Acknowledgements of a policy by node proxies, and the condition `Enforced` while some are missing. The
//! server of the policies counts them; nothing is counted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::outcome::Outcome;

/// Nodes that a message names; the rest is counted.
const NAMED_NODES: usize = 3;

/// Longest quotation of an answer of a proxy, in bytes.
const QUOTED_BYTES: usize = 512;

/// Acknowledgements of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Workloads in the mesh that the policy is for.
    pub workloads: usize,
    /// Number of those for which the proxy has acknowledged it.
    pub acknowledged: usize,
    /// Nodes whose proxies have not acknowledged it, and why.
    pub missing: BTreeMap<String, Missing>,
}

/// Reason why a node's proxy has not acknowledged a policy, the worst first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The proxy has rejected the policy, with this message.
    Rejected(Arc<str>),
    /// The proxy has rejected a response with the policy in it, with this message, which does not name the policy.
    RejectedInBatch(Arc<str>),
    /// No proxy of the node is connected.
    Disconnected,
    /// The proxy has not answered for this long, which is longer than a healthy one takes.
    Silent(Duration),
    /// Its answer may still come.
    Pending,
}

impl Missing {
    const fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(_) => Outcome::Refused,
            Self::RejectedInBatch(_) => Outcome::RefusedInBatch,
            Self::Disconnected => Outcome::ProxyGone,
            Self::Silent(_) => Outcome::NotAcknowledged,
            Self::Pending => Outcome::Pending,
        }
    }

    /// Returns true if one message can speak of both.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Text about these nodes.
    fn message(&self, nodes: &[&str]) -> String {
        match self {
            Self::Rejected(answer) => format!("rejected by {}: {}", named(nodes), quote(answer)),
            Self::RejectedInBatch(answer) => {
                let answer = quote(answer);
                format!("rejected by {} (NACK of a batch containing this policy): {answer}", named(nodes))
            }
            Self::Disconnected => format!("no connection to {}", proxies(nodes)),
            Self::Silent(waited) => {
                let have = if nodes.len() == 1 { "has" } else { "have" };
                format!("{} {have} not acknowledged for {} s", named(nodes), waited.as_secs())
            }
            Self::Pending => format!("on its way to {}", proxies(nodes)),
        }
    }
}

impl Delivery {
    /// Returns true if every workload that the policy is for has it.
    pub fn is_complete(&self) -> bool {
        // Without workloads an acknowledgement proves nothing: the policy is in force nowhere.
        self.missing.is_empty() && self.workloads > 0 && self.acknowledged == self.workloads
    }

    /// Outcome and message while it is not complete: the worst reason decides.
    pub(crate) fn outcome(&self) -> (Outcome, String) {
        // The variants are declared from the worst to the best.
        let outcome = self.missing.values().min().unwrap_or(&Missing::Pending).outcome();
        let mut message = format!("acknowledged for {} of {} workloads in the mesh", self.acknowledged, self.workloads);
        let mut causes: Vec<(&Missing, Vec<&str>)> = Vec::new();
        for (node, missing) in &self.missing {
            // One clause for all nodes with the same reason: a status is read by people.
            match causes.iter_mut().find(|(cause, _)| cause.is_like(missing)) {
                Some((_, nodes)) => nodes.push(node),
                None => causes.push((missing, vec![node])),
            }
        }
        causes.sort_by_key(|(cause, _)| *cause);
        for (cause, nodes) in causes {
            message = format!("{message}; {}", cause.message(&nodes));
        }
        (outcome, message)
    }
}

fn proxies(nodes: &[&str]) -> String {
    let proxies = if nodes.len() == 1 { "the proxy" } else { "the proxies" };
    format!("{proxies} of {}", named(nodes))
}

fn named(nodes: &[&str]) -> String {
    match nodes {
        [node] => format!("node {node}"),
        nodes if nodes.len() <= NAMED_NODES => format!("nodes {}", nodes.join(", ")),
        nodes => {
            let named = nodes[..NAMED_NODES].join(", ");
            format!("nodes {named} and {} more", nodes.len() - NAMED_NODES)
        }
    }
}

/// Shortens an answer to [`QUOTED_BYTES`].
fn quote(answer: &str) -> String {
    if answer.len() <= QUOTED_BYTES {
        return answer.to_owned();
    }
    // The answer is a peer's text: a cut in the middle of a character would panic.
    format!("{}...", &answer[..answer.floor_char_boundary(QUOTED_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(missing: &[(&str, Missing)]) -> (Outcome, String) {
        let missing = missing.iter().map(|(node, missing)| ((*node).to_owned(), missing.clone())).collect();
        Delivery { workloads: 5, acknowledged: 1, missing }.outcome()
    }

    #[test]
    fn the_worst_gives_the_reason_and_the_message_names_the_nodes_of_each_cause() {
        let rejected = Missing::Rejected("web: no such match".into());
        let beside = Missing::RejectedInBatch("other: bad".into());

        let (found, message) = outcome(&[("n1", Missing::Pending), ("n2", rejected), ("n3", Missing::Disconnected)]);
        assert_eq!(found, Outcome::Refused);
        assert_eq!(
            message,
            "acknowledged for 1 of 5 workloads in the mesh; rejected by node n2: web: no such match; no \
             connection to the proxy of node n3; on its way to the proxy of node n1"
        );
        let (found, message) = outcome(&[("n1", beside)]);
        assert_eq!(found, Outcome::RefusedInBatch);
        assert!(
            message.ends_with("rejected by node n1 (NACK of a batch containing this policy): other: bad"),
            "{message}"
        );
        let silent = Missing::Silent(Duration::from_secs(10));
        let (found, message) = outcome(&["a", "b", "c", "d", "e"].map(|node| (node, silent.clone())));
        assert_eq!(found, Outcome::NotAcknowledged);
        assert!(message.ends_with("nodes a, b, c and 2 more have not acknowledged for 10 s"), "{message}");
    }

    #[test]
    fn a_long_answer_of_a_proxy_is_quoted_in_part() {
        let long = format!("{}é", "x".repeat(QUOTED_BYTES - 1));

        assert_eq!(quote("short"), "short");
        assert_eq!(quote(&long), format!("{}...", "x".repeat(QUOTED_BYTES - 1)));
    }
}
