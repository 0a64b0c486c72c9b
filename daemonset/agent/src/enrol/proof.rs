//! Facts that make a pod enrolled, each read with one of three results. How they are read is in `node::proof`; what
//! follows from them is in `actor`.

use contract::admin::agent::Check;

/// Side that is at fault when a fact does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Traffic may bypass the proxy.
    Kernel,
    /// Packets do not get as far as the proxy; the node's program at egress drops them.
    Routing,
    /// Traffic waits or is refused until the proxy is back.
    Proxy,
}

/// One fact. A new one needs a row in the table of `enrol::tests::facts`, which does not compile without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// The program that marks new IPv4 connections, and sends DNS questions to the proxy, is attached to the node's cgroup root.
    Connect4,
    /// The same for IPv6.
    Connect6,
    /// The program that sends DNS questions over IPv4 without a connection to the proxy is attached to the node's cgroup root.
    Sendmsg4,
    /// The same for IPv6.
    Sendmsg6,
    /// The program by which answers come from the nameserver that was asked is attached to the node's cgroup root: IPv4 sockets.
    Recvmsg4,
    /// The same for IPv6 sockets.
    Recvmsg6,
    /// The program by which the peer of an IPv4 socket is the nameserver that was asked is attached to the node's cgroup root.
    Getpeername4,
    /// The same for IPv6 sockets.
    Getpeername6,
    /// The program that binds the proxy's DNS sockets to the pod's IPv4 address is attached to the node's cgroup root.
    Bind4,
    /// The same for IPv6.
    Bind6,
    /// The program that drops packets between application and proxy which would leave the pod is attached to the node's cgroup
    /// root.
    Egress,
    /// The program that notes listeners and probes is attached to the node's cgroup root.
    Sockops,
    /// The kernel programs know the pod, with these ports, addresses and flags.
    PodEntry,
    /// The kernel programs know exactly the ports that the pod declares as probes.
    Probes,
    /// The pod's network namespace has the cookie under which the pod is entered.
    NetnsCookie,
    /// The pod's `sk_lookup` program is attached to its network namespace.
    SkLookup,
    /// The three sysctls of the namespace are on.
    Settings,
    /// The pod's address is on the interface that was found with it.
    Address,
    /// Rule and routes are in place, and no rule comes before ours.
    Rules,
    /// A route lookup with the mark, from the pod's address, answers `lo` by our table, for each address family, with and
    /// without the pod's interface.
    Outbound,
    /// A route lookup for the pod's address, arriving through its interface, answers local delivery.
    Inbound,
    /// The proxy's cgroup is tagged.
    ProxyTag,
    /// The proxy's cgroup holds no process of an enrolled pod.
    ProxyCgroup,
    /// The kernel programs know the proxy's listeners in the pod, those for DNS too if the pod's questions are captured.
    Listeners,
    /// The proxy has acknowledged the pod.
    Acknowledged,
}

impl Fact {
    /// Every fact; a proof that lacks one of them does not hold.
    pub const ALL: [Self; 25] = [
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Bind4,
        Self::Bind6,
        Self::Egress,
        Self::Sockops,
        Self::PodEntry,
        Self::Probes,
        Self::NetnsCookie,
        Self::SkLookup,
        Self::Settings,
        Self::Address,
        Self::Rules,
        Self::Outbound,
        Self::Inbound,
        Self::ProxyTag,
        Self::ProxyCgroup,
        Self::Listeners,
        Self::Acknowledged,
    ];

    /// Stable: metric label, log key, and name of the check in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::Egress => "egress",
            Self::Sockops => "sockops",
            Self::PodEntry => "pod_entry",
            Self::Probes => "probes",
            Self::NetnsCookie => "netns_cookie",
            Self::SkLookup => "sk_lookup",
            Self::Settings => "settings",
            Self::Address => "address",
            Self::Rules => "rules",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::ProxyTag => "proxy_tag",
            Self::ProxyCgroup => "proxy_cgroup",
            Self::Listeners => "listeners",
            Self::Acknowledged => "acknowledged",
        }
    }

    /// Side that is at fault when it does not hold.
    pub const fn side(self) -> Side {
        match self {
            Self::Connect4
            | Self::Connect6
            // The names that the pod asks for would leave it.
            | Self::Sendmsg4
            | Self::Sendmsg6
            | Self::Egress
            | Self::Sockops
            | Self::PodEntry
            | Self::Probes
            | Self::NetnsCookie
            | Self::SkLookup
            | Self::Settings
            | Self::Address
            | Self::Inbound
            // The pod's own connections would count as the proxy's.
            | Self::ProxyCgroup => Side::Kernel,
            Self::Rules | Self::Outbound => Side::Routing,
            // Questions go to the proxy, and applications do not understand its answers, or it hears no questions.
            Self::Recvmsg4
            | Self::Recvmsg6
            | Self::Getpeername4
            | Self::Getpeername6
            | Self::Bind4
            | Self::Bind6
            | Self::ProxyTag
            | Self::Listeners
            | Self::Acknowledged => Side::Proxy,
        }
    }
}

/// Result of reading one fact, with what was found or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Holds(String),
    Fails(String),
    /// The read failed, which says nothing about the fact.
    Unreadable(String),
}

impl Reading {
    /// `Err` of the outer result: the read failed. `Err` of the inner one: something else was found.
    pub fn of<E: std::error::Error>(read: Result<Result<String, String>, E>) -> Self {
        match read {
            Ok(Ok(found)) => Self::Holds(found),
            Ok(Err(found)) => Self::Fails(found),
            Err(error) => Self::Unreadable(crate::described::described(&error)),
        }
    }

    fn check(&self, fact: Fact) -> Check {
        let (ok, unreadable, detail) = match self {
            Self::Holds(found) => (true, false, found.clone()),
            Self::Fails(found) => (false, false, found.clone()),
            Self::Unreadable(reason) => (false, true, format!("unreadable: {reason}")),
        };
        Check { name: fact.name().to_owned(), ok, unreadable, detail }
    }
}

/// Conclusion from all facts together; the worst one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All facts hold.
    Holds,
    /// No fact fails, and some could not be read.
    Unverified,
    /// The proxy does not serve the pod; its traffic is refused.
    Unserved,
    /// The pod's routing does not lead to the proxy; its traffic is dropped.
    Blocked,
    /// Traffic may bypass the proxy.
    Open,
}

/// Every fact as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof(Vec<(Fact, Reading)>);

impl Proof {
    /// Nothing could be read, for this reason.
    pub fn unreadable(reason: &str) -> Self {
        Self(Fact::ALL.map(|fact| (fact, Reading::Unreadable(reason.to_owned()))).into())
    }

    /// Adds a fact.
    pub fn push(&mut self, fact: Fact, reading: Reading) {
        self.0.push((fact, reading));
    }

    /// Adds the facts of `other`.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The worst that the facts say. A fact that nobody has read counts as unreadable.
    pub fn verdict(&self) -> Verdict {
        let fails = |side| self.failed().any(|fact| fact.side() == side);
        // Without certainty that packets which would leave are dropped, they may.
        let may_leave = || self.failed().chain(self.unread()).any(|fact| fact == Fact::Egress);
        if fails(Side::Kernel) || fails(Side::Routing) && may_leave() {
            Verdict::Open
        } else if fails(Side::Routing) {
            Verdict::Blocked
        } else if fails(Side::Proxy) {
            // In the order from open to closed: a leak must not be hidden by a fault that blocks.
            Verdict::Unserved
        } else if self.unread().next().is_some() {
            Verdict::Unverified
        } else {
            Verdict::Holds
        }
    }

    /// All facts were read and hold.
    pub fn holds(&self) -> bool {
        self.verdict() == Verdict::Holds
    }

    /// Facts that were read and do not hold.
    pub fn failed(&self) -> impl Iterator<Item = Fact> {
        self.0.iter().filter(|(_, reading)| matches!(reading, Reading::Fails(_))).map(|(fact, _)| *fact)
    }

    /// Facts that could not be read, or were not.
    pub fn unread(&self) -> impl Iterator<Item = Fact> {
        Fact::ALL.into_iter().filter(|wanted| {
            let reading = self.0.iter().find(|(fact, _)| fact == wanted);
            // A fact that a code path forgets cannot be counted as held.
            reading.is_none_or(|(_, reading)| matches!(reading, Reading::Unreadable(_)))
        })
    }

    /// The facts, for the report.
    pub fn checks(&self) -> Vec<Check> {
        self.0.iter().map(|(fact, reading)| reading.check(*fact)).collect()
    }

    /// Facts that do not hold or could not be read, in one line; empty when there are none.
    pub fn complaint(&self) -> String {
        failing(&self.checks())
    }
}

/// The checks that are not as they should be, in one line.
pub(super) fn failing(checks: &[Check]) -> String {
    let failing = checks.iter().filter(|check| !check.ok);
    failing.map(|check| format!("{}: {}", check.name, check.detail)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_but(fact: Fact, reading: Option<Reading>) -> Proof {
        let mut proof = Proof::default();
        for other in Fact::ALL.into_iter().filter(|other| *other != fact) {
            proof.push(other, Reading::Holds(String::new()));
        }
        if let Some(reading) = reading {
            proof.push(fact, reading);
        }
        proof
    }

    #[test]
    fn a_proof_that_lacks_a_fact_does_not_hold() {
        for fact in Fact::ALL {
            assert_eq!(all_but(fact, None).verdict(), Verdict::Unverified, "{fact:?}");
            assert_eq!(all_but(fact, Some(Reading::Holds(String::new()))).verdict(), Verdict::Holds);
        }
        assert_eq!(Proof::default().verdict(), Verdict::Unverified);
    }

    #[test]
    fn a_fact_that_fails_counts_for_more_than_one_that_cannot_be_read() {
        let mut proof = all_but(Fact::Rules, Some(Reading::Unreadable("EMFILE".to_owned())));
        assert_eq!(proof.verdict(), Verdict::Unverified);
        proof.push(Fact::Listeners, Reading::Fails("none".to_owned()));
        assert_eq!(proof.verdict(), Verdict::Unserved);
        proof.push(Fact::SkLookup, Reading::Fails("none".to_owned()));
        assert_eq!(proof.verdict(), Verdict::Open);
        assert!(proof.complaint().contains("rules: unreadable: EMFILE"), "{}", proof.complaint());
    }

    #[test]
    fn routing_that_does_not_lead_to_the_proxy_blocks_a_pod_as_long_as_egress_is_known_to_be_guarded() {
        for fact in [Fact::Rules, Fact::Outbound] {
            let mut proof = all_but(fact, Some(Reading::Fails("no rule".to_owned())));
            assert_eq!(proof.verdict(), Verdict::Blocked);
            proof.0.retain(|(fact, _)| *fact != Fact::Egress);
            proof.push(Fact::Egress, Reading::Unreadable("EMFILE".to_owned()));
            assert_eq!(proof.verdict(), Verdict::Open, "nobody knows whether its packets are dropped");
        }
    }

    #[test]
    fn names_of_facts_are_unique() {
        let names: std::collections::HashSet<_> = Fact::ALL.iter().map(|fact| fact.name()).collect();

        assert_eq!(names.len(), Fact::ALL.len());
    }
}
