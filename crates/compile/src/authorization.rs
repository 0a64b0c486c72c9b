//! A policy for node proxies to its discovery resource.

use std::net::IpAddr;

use graph::Scope;
use graph::rule::{Action, Authorization, Match, Rule, ServiceAccount, StringMatch};
use ipnet::IpNet;
use proto::security as wire;
use proto::security::string_match::MatchType;

pub(crate) fn convert(policy: &Authorization) -> wire::Authorization {
    let scope = match policy.scope {
        Scope::Mesh => wire::Scope::Global,
        Scope::Namespace(_) => wire::Scope::Namespace,
        Scope::Named(_) => wire::Scope::WorkloadSelector,
    };
    let action = match policy.action {
        Action::Allow => wire::Action::Allow,
        Action::Deny => wire::Action::Deny,
    };
    wire::Authorization {
        name: policy.name.clone(),
        namespace: policy.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules: policy.rules.iter().map(rule).collect(),
        dry_run: policy.dry_run,
        extensions: Vec::new(),
    }
}

fn rule(rule: &Rule) -> wire::Rule {
    let clauses = rule.clauses.iter();
    let clauses = clauses.map(|clause| wire::Clause { matches: clause.matches.iter().map(part).collect() });
    wire::Rule { clauses: clauses.collect() }
}

fn part(part: &Match) -> wire::Match {
    let texts = |list: &[StringMatch]| list.iter().map(text).collect();
    let blocks = |list: &[IpNet]| list.iter().map(block).collect();
    let accounts = |list: &[ServiceAccount]| list.iter().map(account).collect();
    let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
    wire::Match {
        namespaces: texts(&part.namespaces),
        not_namespaces: texts(&part.not_namespaces),
        principals: texts(&part.principals),
        not_principals: texts(&part.not_principals),
        source_ips: blocks(&part.source_ips),
        not_source_ips: blocks(&part.not_source_ips),
        destination_ips: blocks(&part.destination_ips),
        not_destination_ips: blocks(&part.not_destination_ips),
        destination_ports: ports(&part.destination_ports),
        not_destination_ports: ports(&part.not_destination_ports),
        service_accounts: accounts(&part.service_accounts),
        not_service_accounts: accounts(&part.not_service_accounts),
        extensions: Vec::new(),
    }
}

fn text(pattern: &StringMatch) -> wire::StringMatch {
    let kind = match pattern {
        StringMatch::Exact(text) => MatchType::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.clone()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.clone()),
        StringMatch::Presence => MatchType::Presence(()),
    };
    wire::StringMatch { match_type: Some(kind) }
}

fn block(block: &IpNet) -> wire::Address {
    let address = match block.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    wire::Address { address, length: block.prefix_len().into() }
}

fn account(account: &ServiceAccount) -> wire::ServiceAccountMatch {
    wire::ServiceAccountMatch { namespace: account.namespace.clone(), service_account: account.name.clone() }
}
