//! Text of the condition `Enforced`, given what node proxies have acknowledged.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube_types::core::Condition;
use tokio::time::Instant;

/// How long a proxy may take to answer before it is called silent. A healthy one answers within milliseconds, and within
/// a second or two when it has just connected to a large mesh.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Nodes that a message names; the rest is counted.
const NAMED_NODES: usize = 3;

/// Longest quotation of what a proxy said, in bytes.
const QUOTED_BYTES: usize = 512;

/// Why a node does not enforce something yet, the worst last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// Told, or about to be told, since then; who waits longer is worse.
    Waiting(Reverse<Instant>),
    /// No proxy is connected.
    Gone,
    /// The proxy refused the response that it was in, with this message, which does not speak of it.
    RefusedBeside(Arc<str>),
    /// The proxy refused it, with this message.
    Refused(Arc<str>),
}

impl Obstacle {
    pub(super) fn waiting(since: Instant) -> Self {
        Self::Waiting(Reverse(since))
    }

    /// Since when an answer is waited for.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Self::Waiting(Reverse(since)) => Some(*since),
            Self::Gone | Self::RefusedBeside(_) | Self::Refused(_) => None,
        }
    }
}

/// What node proxies have acknowledged of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Workloads in the mesh that it is for.
    pub(super) workloads: usize,
    /// Of those, for which the proxy has acknowledged it.
    pub(super) acknowledged: usize,
    /// By node.
    pub(super) obstacles: BTreeMap<String, Obstacle>,
    /// Since when answers are waited for, those included that are no obstacle yet.
    pub(super) waits: Vec<Instant>,
}

/// What kind of an obstacle it is by now, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Refused,
    RefusedBeside,
    Gone,
    Silent,
    Pending,
}

impl Cause {
    fn of(obstacle: &Obstacle, now: Instant) -> Self {
        match obstacle {
            Obstacle::Refused(_) => Self::Refused,
            Obstacle::RefusedBeside(_) => Self::RefusedBeside,
            Obstacle::Gone => Self::Gone,
            Obstacle::Waiting(Reverse(since)) if now >= *since + ANSWERS_WITHIN => Self::Silent,
            Obstacle::Waiting(_) => Self::Pending,
        }
    }

    /// Status and reason of the condition.
    const fn verdict(self) -> (&'static str, &'static str) {
        match self {
            Self::Refused => ("False", "Refused"),
            Self::RefusedBeside => ("Unknown", "Refused"),
            Self::Gone => ("Unknown", "ProxyGone"),
            Self::Silent => ("Unknown", "NotAcknowledged"),
            Self::Pending => ("Unknown", "Pending"),
        }
    }

    /// Text about these nodes; `said` is the answer of the first node's proxy.
    fn message(self, nodes: &[&str], said: Option<&str>) -> String {
        let said = said.map(quote).unwrap_or_default();
        match self {
            Self::Refused => format!("rejected by {}: {said}", named(nodes)),
            Self::RefusedBeside => {
                format!("rejected by {} (NACK of a batch containing this policy): {said}", named(nodes))
            }
            Self::Gone => format!("no connection to {}", proxies(nodes)),
            Self::Silent => {
                let have = if nodes.len() == 1 { "has" } else { "have" };
                format!("{} {have} not acknowledged for {} s", named(nodes), ANSWERS_WITHIN.as_secs())
            }
            Self::Pending => format!("on its way to {}", proxies(nodes)),
        }
    }
}

/// The condition `told` of what proxies are told, as far as they have acknowledged it.
pub(super) fn acknowledged(told: &Condition, standing: &Standing, now: Instant) -> Condition {
    let mut causes: BTreeMap<Cause, Vec<(&str, &Obstacle)>> = BTreeMap::new();
    for (node, obstacle) in &standing.obstacles {
        causes.entry(Cause::of(obstacle, now)).or_default().push((node, obstacle));
    }
    if causes.is_empty() && standing.workloads > 0 && standing.acknowledged == standing.workloads {
        return told.clone();
    }
    let (status, reason) = causes.keys().next().unwrap_or(&Cause::Pending).verdict();
    let mut message =
        format!("acknowledged for {} of {} workloads in the mesh", standing.acknowledged, standing.workloads);
    for (cause, nodes) in &causes {
        let said = nodes.iter().find_map(|(_, obstacle)| match obstacle {
            Obstacle::Refused(said) | Obstacle::RefusedBeside(said) => Some(&**said),
            Obstacle::Waiting(_) | Obstacle::Gone => None,
        });
        let nodes: Vec<_> = nodes.iter().map(|(node, _)| *node).collect();
        message = format!("{message}; {}", cause.message(&nodes, said));
    }
    Condition { status: status.to_owned(), reason: Some(reason.to_owned()), message: Some(message), ..told.clone() }
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

/// As much as fits.
fn quote(said: &str) -> String {
    if said.len() <= QUOTED_BYTES {
        return said.to_owned();
    }
    format!("{}...", &said[..said.floor_char_boundary(QUOTED_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(obstacles: &[(&str, Obstacle)], now: Instant) -> (String, String, String) {
        let told = Condition { r#type: "Enforced".to_owned(), status: "True".to_owned(), ..Condition::default() };
        let obstacles = obstacles.iter().map(|(node, obstacle)| ((*node).to_owned(), obstacle.clone())).collect();
        let standing = Standing { workloads: 5, acknowledged: 1, obstacles, ..Standing::default() };
        let condition = acknowledged(&told, &standing, now);
        (condition.status, condition.reason.unwrap_or_default(), condition.message.unwrap_or_default())
    }

    #[test]
    fn the_worst_gives_the_reason_and_the_message_names_the_nodes_of_each_cause() {
        let now = Instant::now();
        let waits = Obstacle::waiting(now);
        let refused = Obstacle::Refused("web: no such match".into());
        let beside = Obstacle::RefusedBeside("other: bad".into());

        let (status, reason, message) = said(&[("n1", waits.clone()), ("n2", refused), ("n3", Obstacle::Gone)], now);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Refused"));
        assert_eq!(
            message,
            "acknowledged for 1 of 5 workloads in the mesh; rejected by node n2: web: no such match; no \
             connection to the proxy of node n3; on its way to the proxy of node n1"
        );
        let (status, reason, message) = said(&[("n1", beside)], now);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Refused"));
        assert!(
            message.ends_with("rejected by node n1 (NACK of a batch containing this policy): other: bad"),
            "{message}"
        );
        let later = now + ANSWERS_WITHIN;
        let all = ["a", "b", "c", "d", "e"].map(|node| (node, waits.clone()));
        let (status, reason, message) = said(&all, later);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NotAcknowledged"));
        assert!(message.ends_with("nodes a, b, c and 2 more have not acknowledged for 10 s"), "{message}");
    }

    #[test]
    fn what_a_proxy_says_is_quoted_in_part_when_it_is_long() {
        let long = format!("{}é", "x".repeat(QUOTED_BYTES - 1));

        assert_eq!(quote("short"), "short");
        assert_eq!(quote(&long), format!("{}...", "x".repeat(QUOTED_BYTES - 1)));
    }
}
