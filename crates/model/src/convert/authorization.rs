//! `istio.security.Authorization` to [`Authorization`].
//!
//! Upstream drops entries that it cannot read, which can widen a rule; here they refuse the policy, with a NACK to the sender.

use ipnet::IpNet;
use proto::security as pb;

use super::{ConvertError, cidr, port, required, unknown};
use crate::{Action, Authorization, Match, Scope, ServiceAccountMatch, StringMatch};

impl TryFrom<pb::Authorization> for Authorization {
    type Error = ConvertError;

    fn try_from(message: pb::Authorization) -> Result<Self, ConvertError> {
        let scope = match pb::Scope::try_from(message.scope) {
            Ok(pb::Scope::Global) => Scope::Global,
            Ok(pb::Scope::Namespace) => Scope::Namespace,
            Ok(pb::Scope::WorkloadSelector) => Scope::WorkloadSelector,
            Err(_) => return Err(unknown("scope", message.scope)),
        };
        let action = match pb::Action::try_from(message.action) {
            Ok(pb::Action::Allow) => Action::Allow,
            Ok(pb::Action::Deny) => Action::Deny,
            Err(_) => return Err(unknown("action", message.action)),
        };
        Ok(Self {
            name: required("name", message.name)?.into(),
            namespace: message.namespace.into(),
            scope,
            action,
            rules: message.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
            dry_run: message.dry_run,
        })
    }
}

fn rule(message: pb::Rule) -> Result<Vec<Vec<Match>>, ConvertError> {
    let clause = |c: pb::Clause| c.matches.into_iter().map(one_match).collect();
    message.clauses.into_iter().map(clause).collect()
}

fn one_match(m: pb::Match) -> Result<Match, ConvertError> {
    Ok(Match {
        namespaces: strings("namespaces", m.namespaces)?,
        not_namespaces: strings("not_namespaces", m.not_namespaces)?,
        principals: strings("principals", m.principals)?,
        not_principals: strings("not_principals", m.not_principals)?,
        source_ips: blocks("source_ips", &m.source_ips)?,
        not_source_ips: blocks("not_source_ips", &m.not_source_ips)?,
        destination_ips: blocks("destination_ips", &m.destination_ips)?,
        not_destination_ips: blocks("not_destination_ips", &m.not_destination_ips)?,
        destination_ports: ports("destination_ports", &m.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &m.not_destination_ports)?,
        service_accounts: accounts(m.service_accounts),
        not_service_accounts: accounts(m.not_service_accounts),
    })
}

fn strings(field: &'static str, list: Vec<pb::StringMatch>) -> Result<Vec<StringMatch>, ConvertError> {
    let one = |m: pb::StringMatch| match m.match_type.ok_or(ConvertError::StringMatch(field))? {
        pb::string_match::MatchType::Exact(text) => Ok(StringMatch::Exact(text.into())),
        pb::string_match::MatchType::Prefix(text) => Ok(StringMatch::Prefix(text.into())),
        pb::string_match::MatchType::Suffix(text) => Ok(StringMatch::Suffix(text.into())),
        pb::string_match::MatchType::Presence(_) => Ok(StringMatch::Presence()),
    };
    list.into_iter().map(one).collect()
}

fn blocks(field: &'static str, list: &[pb::Address]) -> Result<Vec<IpNet>, ConvertError> {
    list.iter().map(|a| cidr(field, &a.address, a.length)).collect()
}

fn ports(field: &'static str, list: &[u32]) -> Result<Vec<u16>, ConvertError> {
    list.iter().map(|p| port(field, *p)).collect()
}

fn accounts(list: Vec<pb::ServiceAccountMatch>) -> Vec<ServiceAccountMatch> {
    let one = |m: pb::ServiceAccountMatch| ServiceAccountMatch {
        namespace: m.namespace.into(),
        service_account: m.service_account.into(),
    };
    list.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(m: pb::Match) -> pb::Authorization {
        let rules = vec![pb::Rule { clauses: vec![pb::Clause { matches: vec![m] }] }];
        pb::Authorization { name: "p".into(), namespace: "ns".into(), rules, ..Default::default() }
    }

    #[test]
    fn a_policy_keeps_its_nesting() {
        let converted =
            Authorization::try_from(policy(pb::Match { destination_ports: vec![80], ..Default::default() })).unwrap();

        assert_eq!(converted.key(), "ns/p");
        assert_eq!(converted.rules, [[[Match { destination_ports: vec![80], ..Match::default() }]]]);
    }

    #[test]
    fn what_cannot_be_read_refuses_the_policy_instead_of_widening_it() {
        let no_kind = pb::Match { principals: vec![pb::StringMatch { match_type: None }], ..Default::default() };
        let short_ip =
            pb::Match { source_ips: vec![pb::Address { address: vec![1], length: 8 }], ..Default::default() };
        let big_port = pb::Match { destination_ports: vec![65_616], ..Default::default() };

        assert_eq!(Authorization::try_from(policy(no_kind)), Err(ConvertError::StringMatch("principals")));
        assert!(Authorization::try_from(policy(short_ip)).is_err());
        assert!(Authorization::try_from(policy(big_port)).is_err());
    }
}
