//! One rule of a policy to clauses: `to`, `from`, then each `when`.

use kube_api::istio::{AuthorizationRule, Operation, RuleSource, When};
use proto::security::{Action, Clause, Match, Rule};

use super::Report;
use super::value;

/// A list of values as a field of a match.
struct Field<'a, T> {
    name: &'a str,
    values: &'a [String],
    not_values: &'a [String],
    read: &'a dyn Fn(&str) -> Option<T>,
}

/// Reads fields; remembers whether all could be expressed.
struct Reader<'a> {
    report: &'a mut Report,
    complete: bool,
}

impl Reader<'_> {
    /// The values that are and that must not be. When a positive value cannot be expressed the whole
    /// positive list is dropped: beside other fields a shorter list would make a DENY miss something.
    fn field<T>(&mut self, field: &Field<'_, T>) -> (Vec<T>, Vec<T>) {
        let mut values: Vec<T> = Vec::new();
        let mut dropped = false;
        for text in field.values {
            match (field.read)(text) {
                Some(value) => values.push(value),
                None => {
                    self.invalid(field.name, text);
                    dropped = true;
                }
            }
        }
        if dropped {
            values.clear();
        }
        let mut not_values = Vec::new();
        for text in field.not_values {
            match (field.read)(text) {
                Some(value) => not_values.push(value),
                None => self.invalid(field.name, text),
            }
        }
        (values, not_values)
    }

    fn invalid(&mut self, field: &str, value: &str) {
        self.complete = false;
        self.report.invalid(format!("{field} {value:?} cannot be matched"));
    }

    fn http(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            self.complete = false;
            self.report.http(name);
        }
    }

    fn nothing(&mut self, what: &str) {
        self.complete = false;
        self.report.invalid(format!("{what} without any field"));
    }
}

/// One rule of a policy, and where it stands.
pub(super) struct Place<'a> {
    pub(super) rule: &'a AuthorizationRule,
    pub(super) index: usize,
    pub(super) namespace: &'a str,
}

/// The rules that one rule of a policy becomes: none when it is left out, several when its sources
/// cannot be told apart within one clause.
///
/// What is left of an alternative of a DENY rule may be an empty match, which node proxies skip: where
/// a clause has no other alternative the rule never matches.
pub(super) fn rules(place: &Place<'_>, action: Action, report: &mut Report) -> Vec<Rule> {
    let (rule, namespace) = (place.rule, place.namespace);
    let mut reader = Reader { report, complete: true };
    let to: Vec<_> = rule.to.iter().map(|to| reader.operation(&to.operation)).collect();
    let from: Vec<_> = rule.from.iter().map(|from| reader.source(&from.source, namespace)).collect();
    let when: Vec<_> = rule.when.iter().map(|when| reader.condition(when, namespace)).collect();
    match (action, reader.complete) {
        (Action::Allow, false) => return Vec::new(),
        (Action::Deny, false) => tell_lost(place.index, &to, &from, &when, report),
        (Action::Allow | Action::Deny, true) => {}
    }
    let common: Vec<_> = (!to.is_empty()).then_some(Clause { matches: to }).into_iter().collect();
    let one = |part: Match| Clause { matches: vec![part] };
    let tail: Vec<_> = when.into_iter().map(one).collect();
    let rule = |source: Vec<Clause>| Rule { clauses: [common.clone(), source, tail.clone()].concat() };
    if from.iter().any(|source| source.len() > 1) {
        return from.into_iter().map(|source| rule(source.into_iter().map(one).collect())).collect();
    }
    let matches: Vec<_> = from.into_iter().flatten().collect();
    vec![rule((!matches.is_empty()).then_some(Clause { matches }).into_iter().collect())]
}

/// Tells what a DENY rule that lost something does now: nothing, less in some alternatives, or more.
fn tell_lost(index: usize, to: &[Match], from: &[Vec<Match>], when: &[Match], report: &mut Report) {
    let is_empty = |part: &Match| *part == Match::default();
    let to: Vec<_> = to.iter().map(is_empty).collect();
    let from: Vec<_> = from.iter().map(|source| source.iter().all(is_empty)).collect();
    let never = |alternatives: &[bool]| !alternatives.is_empty() && alternatives.iter().all(|empty| *empty);
    if never(&to) || never(&from) || when.iter().any(is_empty) {
        report.dead_rules += 1;
        return report.not_enforced(format!("rules[{index}]"));
    }
    let before = report.not_enforced.len();
    for (name, alternatives) in [("to", to), ("from", from)] {
        for (alternative, _) in alternatives.iter().enumerate().filter(|(_, empty)| **empty) {
            report.not_enforced(format!("rules[{index}].{name}[{alternative}]"));
        }
    }
    if report.not_enforced.len() == before {
        report.wider(format!("rules[{index}]"));
    }
}

impl Reader<'_> {
    fn operation(&mut self, operation: &Operation) -> Match {
        if *operation == Operation::default() {
            self.nothing("an operation");
        }
        self.http("hosts", &operation.hosts);
        self.http("notHosts", &operation.not_hosts);
        self.http("methods", &operation.methods);
        self.http("notMethods", &operation.not_methods);
        self.http("paths", &operation.paths);
        self.http("notPaths", &operation.not_paths);
        let (destination_ports, not_destination_ports) = self.field(&Field {
            name: "port",
            values: &operation.ports,
            not_values: &operation.not_ports,
            read: &value::port,
        });
        Match { destination_ports, not_destination_ports, ..Match::default() }
    }

    /// What must all hold of a source: at least one match, two when it names principals and trust
    /// domains, which both become lists of principals.
    fn source(&mut self, source: &RuleSource, namespace: &str) -> Vec<Match> {
        if *source == RuleSource::default() {
            self.nothing("a source");
        }
        self.http("requestPrincipals", &source.request_principals);
        self.http("notRequestPrincipals", &source.not_request_principals);
        self.http("remoteIpBlocks", &source.remote_ip_blocks);
        self.http("notRemoteIpBlocks", &source.not_remote_ip_blocks);
        let (principals, not_principals) = self.field(&Field {
            name: "principal",
            values: &source.principals,
            not_values: &source.not_principals,
            read: &value::text,
        });
        let (domains, not_domains) = self.field(&Field {
            name: "trust domain",
            values: &source.trust_domains,
            not_values: &source.not_trust_domains,
            read: &value::trust_domain,
        });
        let (namespaces, not_namespaces) = self.field(&Field {
            name: "namespace",
            values: &source.namespaces,
            not_values: &source.not_namespaces,
            read: &value::text,
        });
        let (service_accounts, not_service_accounts) = self.field(&Field {
            name: "service account",
            values: &source.service_accounts,
            not_values: &source.not_service_accounts,
            read: &|text| value::service_account(text, namespace),
        });
        let (source_ips, not_source_ips) = self.field(&Field {
            name: "IP block",
            values: &source.ip_blocks,
            not_values: &source.not_ip_blocks,
            read: &value::block,
        });
        let both = !principals.is_empty() && !domains.is_empty();
        let (principals, second) =
            if both { (principals, Some(domains)) } else { ([principals, domains].concat(), None) };
        let first = Match {
            namespaces,
            not_namespaces,
            principals,
            not_principals: [not_principals, not_domains].concat(),
            source_ips,
            not_source_ips,
            service_accounts,
            not_service_accounts,
            ..Match::default()
        };
        let second = second.map(|principals| Match { principals, ..Match::default() });
        std::iter::once(first).chain(second).collect()
    }

    fn condition(&mut self, when: &When, namespace: &str) -> Match {
        if when.values.is_empty() && when.not_values.is_empty() {
            self.nothing(&format!("condition {:?}", when.key));
        }
        let mut part = Match::default();
        match when.key.as_str() {
            "source.ip" => {
                (part.source_ips, part.not_source_ips) = self.values(when, &value::block);
            }
            "source.namespace" => {
                (part.namespaces, part.not_namespaces) = self.values(when, &value::text);
            }
            "source.principal" => {
                (part.principals, part.not_principals) = self.values(when, &value::text);
            }
            "source.trustDomain" => {
                (part.principals, part.not_principals) = self.values(when, &value::trust_domain);
            }
            "source.serviceAccount" => {
                (part.service_accounts, part.not_service_accounts) =
                    self.values(when, &|text| value::service_account(text, namespace));
            }
            "destination.ip" => {
                (part.destination_ips, part.not_destination_ips) = self.values(when, &value::block);
            }
            "destination.port" => {
                (part.destination_ports, part.not_destination_ports) = self.values(when, &value::port);
            }
            key if is_http(key) => {
                self.http(key, &when.values);
                self.http(key, &when.not_values);
            }
            key => {
                self.complete = false;
                self.report.invalid(format!("condition {key:?} is not known"));
            }
        }
        part
    }

    fn values<T>(&mut self, when: &When, read: &dyn Fn(&str) -> Option<T>) -> (Vec<T>, Vec<T>) {
        self.field(&Field { name: &when.key, values: &when.values, not_values: &when.not_values, read })
    }
}

/// Conditions that only a proxy of requests can check.
fn is_http(key: &str) -> bool {
    key.starts_with("request.")
        || key.starts_with("experimental.envoy.filters.")
        || matches!(key, "remote.ip" | "connection.sni")
}
