//! Connections that a rule can match, computed from the rules that node proxies get, so that the result is about their
//! decisions.
//!
//! A rule that may match is never called impossible. One that cannot may go unnoticed: where values are patterns, or a
//! rule has very many alternatives, it is treated as possible.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ports::PodPorts;
use super::principal;
use super::world::World;
use crate::rule::{Match, Rule, ServiceAccount, StringMatch};

/// Combinations of one match per clause that are looked at; a rule with more counts as possible.
const COMBINATIONS: usize = 256;

/// Extent to which something can match, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Potential {
    /// Matches nothing, whatever exists.
    Never,
    /// Matches only names that do not exist now.
    Absent,
    /// Matches something that exists.
    Possible,
}

/// The rules of a policy, as far as they can match at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Alternatives by index of the rule as it was written.
    rules: Vec<Vec<Alternative>>,
    /// Port numbers that the rules name.
    pub(crate) ports: BTreeSet<u16>,
    /// It depends on the workload whether a rule can match.
    pub(crate) varies: bool,
    /// Every connection matches one of the rules.
    pub(crate) matches_all: bool,
}

/// One match of each clause of a rule: all of them have to hold.
#[derive(Clone, Debug)]
struct Alternative {
    parts: Vec<Match>,
    ports: Ports,
}

/// Destination ports that an alternative admits.
#[derive(Clone, Debug)]
enum Ports {
    Any,
    Only(BTreeSet<u16>),
}

impl Rules {
    /// Reads the rules that each rule of a policy became.
    pub(crate) fn new(rules: &[Vec<Rule>], trust_domain: &str) -> Self {
        // A clause without matches always holds; a rule of such clauses only matches every connection.
        let is_open = |rule: &Rule| rule.clauses.iter().all(|clause| clause.matches.is_empty());
        let matches_all = rules.iter().flatten().any(is_open);
        let rules: Vec<Vec<_>> = rules
            .iter()
            .map(|rules| {
                let all = rules.iter().flat_map(combinations);
                all.filter(|alternative| alternative.is_possible(trust_domain)).collect()
            })
            .collect();
        let parts = || rules.iter().flatten().flat_map(|alternative| &alternative.parts);
        let named = parts().flat_map(|part| part.destination_ports.iter().chain(&part.not_destination_ports));
        let ports: BTreeSet<_> = named.copied().collect();
        // Ports and addresses differ between workloads, identities of peers do not: only with these is it worth a look
        // at each workload.
        let by_address = parts().any(|part| !part.destination_ips.is_empty() || !part.not_destination_ips.is_empty());
        Self { varies: by_address || !ports.is_empty(), matches_all, ports, rules }
    }

    /// Returns true if any rule can match a connection to this workload.
    pub(crate) fn can_match(&self, ports: &PodPorts, addresses: &[IpAddr]) -> bool {
        self.rules.iter().flatten().any(|alternative| alternative.can_match(ports, addresses))
    }

    /// Returns true if every alternative of a rule requires ports of this kind.
    pub(crate) fn is_closed(&self, rule: usize, is_such: impl Fn(u16) -> bool) -> bool {
        // A rule without alternatives is closed by this, but it is `Never` already.
        let mut alternatives = self.rules.get(rule).into_iter().flatten();
        alternatives.all(|alternative| match &alternative.ports {
            Ports::Any => false,
            Ports::Only(ports) => ports.iter().all(|port| is_such(*port)),
        })
    }

    /// Extent to which each rule can match, wherever the connection goes.
    pub(crate) fn potentials(&self, world: &World) -> Vec<Potential> {
        let potential = |rule: &Vec<Alternative>| {
            rule.iter().map(|alternative| alternative.potential(world)).max().unwrap_or(Potential::Never)
        };
        self.rules.iter().map(potential).collect()
    }
}

/// Every way to pick one match of each clause. A match without fields is none, a clause without matches always holds.
fn combinations(rule: &Rule) -> Vec<Alternative> {
    let mut picked: Vec<Vec<Match>> = vec![Vec::new()];
    for clause in rule.clauses.iter().filter(|clause| !clause.matches.is_empty()) {
        let matches: Vec<_> = clause.matches.iter().filter(|part| **part != Match::default()).collect();
        // The number of combinations is the product over all clauses; beyond the bound the rule counts as possible.
        if picked.len() * matches.len() > COMBINATIONS {
            return vec![Alternative { parts: Vec::new(), ports: Ports::Any }];
        }
        picked = picked
            .iter()
            .flat_map(|before| matches.iter().map(|part| [before.as_slice(), &[(*part).clone()]].concat()))
            .collect();
    }
    picked.into_iter().map(Alternative::new).collect()
}

impl Alternative {
    fn new(parts: Vec<Match>) -> Self {
        let lists = parts.iter().map(|part| &part.destination_ports).filter(|list| !list.is_empty());
        let mut only: Option<BTreeSet<u16>> = None;
        for list in lists {
            let list: BTreeSet<_> = list.iter().copied().collect();
            // All parts have to hold, so a port has to be in every list.
            only = Some(only.map_or_else(|| list.clone(), |before| &before & &list));
        }
        let ports = match only {
            None => Ports::Any,
            Some(mut only) => {
                let excluded = |port: &u16| parts.iter().any(|part| part.not_destination_ports.contains(port));
                only.retain(|port| !excluded(port));
                Ports::Only(only)
            }
        };
        Self { parts, ports }
    }

    /// Returns true if the conditions do not exclude each other, whatever exists.
    fn is_possible(&self, trust_domain: &str) -> bool {
        let has_port = match &self.ports {
            Ports::Any => true,
            Ports::Only(ports) => !ports.is_empty(),
        };
        has_port
            && leaves_a_block(&self.parts, |part| (&part.source_ips, &part.not_source_ips))
            && leaves_a_block(&self.parts, |part| (&part.destination_ips, &part.not_destination_ips))
            && leaves_an_identity(&self.parts, trust_domain)
    }

    fn can_match(&self, ports: &PodPorts, addresses: &[IpAddr]) -> bool {
        let has_port = match &self.ports {
            Ports::Any => true,
            Ports::Only(only) => only.iter().any(|port| ports.can_be(*port)),
        };
        // A rule without blocks matches whatever the addresses are, also when none of the pod's parses.
        let restricted =
            self.parts.iter().any(|part| !(part.destination_ips.is_empty() && part.not_destination_ips.is_empty()));
        let admits = |address: &IpAddr| {
            self.parts.iter().all(|part| {
                let within = |blocks: &[IpNet]| blocks.iter().any(|block| block.contains(address));
                (part.destination_ips.is_empty() || within(&part.destination_ips)) && !within(&part.not_destination_ips)
            })
        };
        has_port && (!restricted || addresses.iter().any(admits))
    }

    fn potential(&self, world: &World) -> Potential {
        let asks = self.parts.iter().any(|part| {
            !(part.principals.is_empty() && part.namespaces.is_empty() && part.service_accounts.is_empty())
        });
        // What only excludes admits peers without identity.
        if !asks || world.accounts().any(|(namespace, name)| admits(&self.parts, &world.trust_domain, namespace, name))
        {
            Potential::Possible
        } else {
            Potential::Absent
        }
    }
}

/// Returns true if all parts admit this identity.
fn admits(parts: &[Match], trust_domain: &str, namespace: &str, account: &str) -> bool {
    let whole = principal::principal(trust_domain, namespace, account);
    let among = |list: &[StringMatch], value: &str| list.iter().any(|wanted| wanted.matches(value));
    let is_account =
        |list: &[ServiceAccount]| list.iter().any(|wanted| wanted.namespace == namespace && wanted.name == account);
    parts.iter().all(|part| {
        (part.principals.is_empty() || among(&part.principals, &whole))
            && !among(&part.not_principals, &whole)
            && (part.namespaces.is_empty() || among(&part.namespaces, namespace))
            && !among(&part.not_namespaces, namespace)
            && (part.service_accounts.is_empty() || is_account(&part.service_accounts))
            && !is_account(&part.not_service_accounts)
    })
}

/// Returns true if an identity of the trust domain can be admitted, whatever accounts exist. Exact where some list
/// names its values; patterns are assumed to leave an identity.
fn leaves_an_identity(parts: &[Match], trust_domain: &str) -> bool {
    let exact = |wanted: &StringMatch| match wanted {
        StringMatch::Exact(text) => Some(text.clone()),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
    };
    // One pattern among the values makes the list unusable here: its names cannot be listed.
    let all_exact = |list: &[StringMatch]| -> Option<Vec<String>> {
        let values: Option<Vec<_>> = list.iter().map(exact).collect();
        values.filter(|values| !values.is_empty())
    };
    // Lists that name their values come first, the narrowest before the others: what they name can be tried one by one.
    let accounts = parts.iter().map(|part| &part.service_accounts).find(|list| !list.is_empty());
    if let Some(accounts) = accounts {
        let mut named = accounts.iter();
        return named.any(|one| admits(parts, trust_domain, &one.namespace, &one.name));
    }
    if let Some(principals) = parts.iter().find_map(|part| all_exact(&part.principals)) {
        // A principal of another trust domain is no identity that a peer of this mesh can prove.
        let mut identities = principals.iter().filter_map(|text| principal::parse(text, trust_domain));
        return identities.any(|(namespace, name)| admits(parts, trust_domain, namespace, name));
    }
    let fits = |list: &[StringMatch], namespace: Option<&str>| {
        list.is_empty() || list.iter().any(|wanted| principal::fits(wanted, trust_domain, namespace))
    };
    if let Some(namespaces) = parts.iter().find_map(|part| all_exact(&part.namespaces)) {
        let among = |list: &[StringMatch], value: &str| list.iter().any(|wanted| wanted.matches(value));
        return namespaces.iter().any(|namespace| {
            parts.iter().all(|part| {
                (part.namespaces.is_empty() || among(&part.namespaces, namespace))
                    && !among(&part.not_namespaces, namespace)
                    && fits(&part.principals, Some(namespace))
            })
        });
    }
    parts.iter().all(|part| fits(&part.principals, None))
}

/// Returns true if the lists of blocks leave an address. They do unless every block of some list lies outside of
/// another list, or within one block that is excluded.
fn leaves_a_block<'a>(parts: &'a [Match], lists: impl Fn(&'a Match) -> (&'a Vec<IpNet>, &'a Vec<IpNet>)) -> bool {
    // `None` stands for every address: no list has restricted it yet.
    let mut left: Option<Vec<IpNet>> = None;
    for (wanted, _) in parts.iter().map(&lists).filter(|(wanted, _)| !wanted.is_empty()) {
        left = Some(match left {
            None => wanted.clone(),
            Some(before) => {
                before.iter().flat_map(|one| wanted.iter().filter_map(|other| common(*one, *other))).collect()
            }
        });
    }
    let excluded: Vec<_> = parts.iter().flat_map(|part| lists(part).1).collect();
    // Blocks that are excluded together but not by one of them are missed, which counts the rule as possible.
    left.is_none_or(|left| left.iter().any(|one| !excluded.iter().any(|block| block.contains(one))))
}

/// Blocks either lie within each other or have nothing in common.
fn common(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) { Some(other) } else { other.contains(&one).then_some(one) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Clause;

    fn rules(parts: Vec<Vec<Match>>) -> Rules {
        let clauses = parts.into_iter().map(|matches| Clause { matches }).collect();
        Rules::new(&[vec![Rule { clauses }]], "td")
    }

    fn potential(parts: Vec<Vec<Match>>, world: &World) -> Potential {
        rules(parts).potentials(world)[0]
    }

    fn exact(texts: &[&str]) -> Vec<StringMatch> {
        texts.iter().map(|text| StringMatch::Exact((*text).to_owned())).collect()
    }

    fn from(principals: &[&str], namespaces: &[&str]) -> Match {
        Match { principals: exact(principals), namespaces: exact(namespaces), ..Match::default() }
    }

    fn ports(wanted: &[u16], not: &[u16]) -> Match {
        Match { destination_ports: wanted.to_vec(), not_destination_ports: not.to_vec(), ..Match::default() }
    }

    fn blocks(wanted: &[&str], not: &[&str]) -> Match {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Match { source_ips: read(wanted), not_source_ips: read(not), ..Match::default() }
    }

    #[test]
    fn conditions_that_exclude_each_other_never_match() {
        let world = World::new("root", "td");
        let never = |parts| assert_eq!(potential(parts, &world), Potential::Never);

        never(vec![vec![ports(&[80], &[80])]]);
        never(vec![vec![ports(&[80], &[])], vec![ports(&[81], &[])]]);
        never(vec![vec![from(&["td/ns/a/sa/x"], &["b"])]]);
        never(vec![vec![from(&["spiffe://td/ns/a/sa/x"], &[])]]);
        never(vec![vec![from(&[], &["a"])], vec![from(&[], &["b"])]]);
        never(vec![vec![blocks(&["10.0.0.0/8"], &[])], vec![blocks(&["192.168.0.0/16"], &[])]]);
        never(vec![vec![blocks(&["10.1.0.0/16"], &["10.0.0.0/8"])]]);
        never(vec![vec![Match::default()]]);
    }

    #[test]
    fn what_may_match_is_possible_or_absent() {
        let mut world = World::new("root", "td");
        let absent = vec![vec![from(&["td/ns/a/sa/x"], &["a", "b"])]];
        assert_eq!(potential(absent.clone(), &world), Potential::Absent);

        world.exchange(None, Some(super::super::world::Names { namespace: "a", account: Some("x"), labels: None }));

        assert_eq!(potential(absent, &world), Potential::Possible);
        assert_eq!(potential(vec![], &world), Potential::Possible);
        assert_eq!(potential(vec![vec![ports(&[80, 81], &[80])]], &world), Potential::Possible);
        assert_eq!(potential(vec![vec![blocks(&["10.0.0.0/8"], &["10.1.0.0/16"])]], &world), Potential::Possible);
        let not = Match { not_principals: exact(&["td/ns/a/sa/x"]), ..Match::default() };
        assert_eq!(potential(vec![vec![not]], &world), Potential::Possible, "peers without identity");
        assert_eq!(potential(vec![vec![Match::default(), ports(&[80], &[])]], &world), Potential::Possible);
    }

    #[test]
    fn many_alternatives_count_as_possible() {
        let many: Vec<_> = (0..20).map(|port| ports(&[port], &[port])).collect();

        assert_eq!(potential(vec![many.clone(), many], &World::new("root", "td")), Potential::Possible);
    }

    #[test]
    fn a_workload_is_touched_by_its_own_ports_and_addresses_only() {
        let destination = Match { destination_ips: blocks(&["10.0.0.0/24"], &[]).source_ips, ..Match::default() };
        let rules = rules(vec![vec![destination]]);
        let can = |address: &str| rules.can_match(&PodPorts::default(), &[address.parse().unwrap()]);

        assert!(rules.varies && can("10.0.0.7") && !can("10.0.1.7"));
    }
}
