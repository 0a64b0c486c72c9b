//! One rule of a policy to clauses: `to`, `from`, then each `when`.

use kube_types::istio::{Attribute, AuthorizationRule, CONDITION_KEYS, ConditionKey, Operation, RuleSource, When};
use kube_types::similar::hint;

use super::report::Report;
use super::value;
use crate::rule::{Action, Clause, Match, Rule};

/// A list of values as a field of a match.
struct Field<'a, T> {
    noun: &'a str,
    name: &'a str,
    values: &'a [String],
    not_name: &'a str,
    not_values: &'a [String],
    read: &'a dyn Fn(&str) -> Option<T>,
}

/// One rule of a policy, and where it stands.
pub(super) struct Place<'a> {
    pub(super) rule: &'a AuthorizationRule,
    pub(super) index: usize,
    pub(super) namespace: &'a str,
}

/// Reads fields; reports those that cannot be expressed.
struct Reader<'a> {
    report: &'a mut Report,
    rule: usize,
    /// Path of the source, operation or condition that is being read.
    path: String,
    namespace: &'a str,
}

/// Rules that one rule of a policy becomes: none when it is left out, several when its sources cannot be told apart
/// within one clause.
///
/// An ALLOW rule that cannot be expressed as a whole is left out. Of a DENY rule the conditions that cannot be expressed
/// are left out: an alternative of which nothing is left stands for everything, and so does its list. What is sent
/// never has an empty match, which node proxies treat as one that does not hold: the rule would deny nothing.
pub(super) fn rules(place: &Place<'_>, action: Action, report: &mut Report) -> Vec<Rule> {
    let Place { rule, index, namespace } = *place;
    let mut reader = Reader { report, rule: index, path: String::new(), namespace };
    let to: Vec<_> = rule.to.iter().enumerate().map(|(n, to)| reader.operation(n, &to.operation)).collect();
    let from: Vec<_> = rule.from.iter().enumerate().map(|(n, from)| reader.source(n, &from.source)).collect();
    let when: Vec<_> = rule.when.iter().enumerate().map(|(n, when)| reader.condition(n, when)).collect();
    // Less would be allowed than was asked for, and never more.
    if action == Action::Allow && report.has_lost(index) {
        return Vec::new();
    }
    // A match without fields would never hold. It stands for an alternative of which nothing is left, so the list of
    // alternatives is left out, which always holds.
    let is_empty = |part: &Match| *part == Match::default();
    let to = if to.iter().any(is_empty) { Vec::new() } else { to };
    let from = if from.iter().any(|source| source.iter().all(is_empty)) { Vec::new() } else { from };
    let one = |part: Match| Clause { matches: vec![part] };
    let common: Vec<_> = (!to.is_empty()).then_some(Clause { matches: to }).into_iter().collect();
    let tail: Vec<_> = when.into_iter().filter(|part| !is_empty(part)).map(one).collect();
    let rule = |source: Vec<Clause>| Rule { clauses: [common.clone(), source, tail.clone()].concat() };
    // A source of two matches means both, while the matches of one clause are alternatives. So each source gets a rule
    // of its own, in which each of its matches is a clause.
    let rules = if from.iter().any(|source| source.len() > 1) {
        from.into_iter().map(|source| rule(source.into_iter().map(one).collect())).collect()
    } else {
        let matches: Vec<_> = from.into_iter().flatten().collect();
        vec![rule((!matches.is_empty()).then_some(Clause { matches }).into_iter().collect())]
    };
    if rules.iter().any(|rule| rule.clauses.is_empty()) {
        // Nothing is left to compare: the rule matches every connection, which its author should know.
        report.set_open(index);
    }
    rules
}

impl Reader<'_> {
    /// Reads the positive and the negative values of a field. When a positive value cannot be expressed, the whole
    /// positive list is dropped.
    fn field<T>(&mut self, field: &Field<'_, T>) -> (Vec<T>, Vec<T>) {
        let mut values: Vec<T> = Vec::new();
        let mut dropped = false;
        for (index, text) in field.values.iter().enumerate() {
            match (field.read)(text) {
                Some(value) => values.push(value),
                None => {
                    self.invalid(field.name, index, &format!("{} {text:?} cannot be matched", field.noun));
                    dropped = true;
                }
            }
        }
        if dropped {
            // A DENY rule with a shorter list would deny less than requested; without the list it denies more.
            values.clear();
        }
        let mut not_values = Vec::new();
        for (index, text) in field.not_values.iter().enumerate() {
            match (field.read)(text) {
                Some(value) => not_values.push(value),
                // Only this value is dropped: a shorter list of exceptions denies more, and an ALLOW rule is left out
                // anyway.
                None => self.invalid(field.not_name, index, &format!("{} {text:?} cannot be matched", field.noun)),
            }
        }
        (values, not_values)
    }

    fn invalid(&mut self, field: &str, index: usize, message: &str) {
        let path = format!("{}.{field}[{index}]", self.path);
        self.report.invalid(self.rule, path, field, message);
    }

    fn http(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            let path = format!("{}.{name}", self.path);
            self.report.http(self.rule, path, name);
        }
    }

    fn nothing(&mut self, what: &str) {
        self.report.invalid(self.rule, self.path.clone(), what, &format!("{what} without any field"));
    }

    fn operation(&mut self, index: usize, operation: &Operation) -> Match {
        self.path = format!("spec.rules[{}].to[{index}].operation", self.rule);
        // An operation without fields says nothing; it is treated as a part that cannot be matched.
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
            noun: "port",
            name: "ports",
            values: &operation.ports,
            not_name: "notPorts",
            not_values: &operation.not_ports,
            read: &value::port,
        });
        Match { destination_ports, not_destination_ports, ..Match::default() }
    }

    /// Reads a source: one match, or two that must both hold when it names principals and trust domains, which both
    /// become lists of principals.
    fn source(&mut self, index: usize, source: &RuleSource) -> Vec<Match> {
        self.path = format!("spec.rules[{}].from[{index}].source", self.rule);
        if *source == RuleSource::default() {
            self.nothing("a source");
        }
        self.http("requestPrincipals", &source.request_principals);
        self.http("notRequestPrincipals", &source.not_request_principals);
        self.http("remoteIpBlocks", &source.remote_ip_blocks);
        self.http("notRemoteIpBlocks", &source.not_remote_ip_blocks);
        let (principals, not_principals) = self.field(&Field {
            noun: "principal",
            name: "principals",
            values: &source.principals,
            not_name: "notPrincipals",
            not_values: &source.not_principals,
            read: &value::text,
        });
        let (domains, not_domains) = self.field(&Field {
            noun: "trust domain",
            name: "trustDomains",
            values: &source.trust_domains,
            not_name: "notTrustDomains",
            not_values: &source.not_trust_domains,
            read: &value::trust_domain,
        });
        let (namespaces, not_namespaces) = self.field(&Field {
            noun: "namespace",
            name: "namespaces",
            values: &source.namespaces,
            not_name: "notNamespaces",
            not_values: &source.not_namespaces,
            read: &value::text,
        });
        let namespace = self.namespace;
        let (service_accounts, not_service_accounts) = self.field(&Field {
            noun: "service account",
            name: "serviceAccounts",
            values: &source.service_accounts,
            not_name: "notServiceAccounts",
            not_values: &source.not_service_accounts,
            read: &|text| value::service_account(text, namespace),
        });
        let (source_ips, not_source_ips) = self.field(&Field {
            noun: "IP block",
            name: "ipBlocks",
            values: &source.ip_blocks,
            not_name: "notIpBlocks",
            not_values: &source.not_ip_blocks,
            read: &value::block,
        });
        // One list of principals is an OR; a source that names principals and trust domains means both (AND), so the second
        // list needs a match, and with it a clause, of its own.
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

    fn condition(&mut self, index: usize, when: &When) -> Match {
        self.path = format!("spec.rules[{}].when[{index}]", self.rule);
        if when.values.is_empty() && when.not_values.is_empty() {
            self.nothing(&format!("condition {:?}", when.key));
        }
        let namespace = self.namespace;
        let mut part = Match::default();
        // The match stays empty: an ALLOW rule is left out for it, a DENY rule is enforced without it.
        let Some(key) = ConditionKey::of(&when.key) else {
            self.unknown_condition(&when.key);
            return part;
        };
        match key.attribute {
            Attribute::SourceIp => {
                (part.source_ips, part.not_source_ips) = self.values(when, &value::block);
            }
            Attribute::SourceNamespace => {
                (part.namespaces, part.not_namespaces) = self.values(when, &value::text);
            }
            Attribute::SourcePrincipal => {
                (part.principals, part.not_principals) = self.values(when, &value::text);
            }
            Attribute::SourceTrustDomain => {
                (part.principals, part.not_principals) = self.values(when, &value::trust_domain);
            }
            Attribute::SourceServiceAccount => {
                (part.service_accounts, part.not_service_accounts) =
                    self.values(when, &|text| value::service_account(text, namespace));
            }
            Attribute::DestinationIp => {
                (part.destination_ips, part.not_destination_ips) = self.values(when, &value::block);
            }
            Attribute::DestinationPort => {
                (part.destination_ports, part.not_destination_ports) = self.values(when, &value::port);
            }
            Attribute::Request => self.report.http(self.rule, format!("{}.key", self.path), &when.key),
        }
        part
    }

    fn unknown_condition(&mut self, key: &str) {
        let offered = CONDITION_KEYS.iter().filter(|known| known.attribute.is_of_connection());
        let meant = hint(key, offered.map(|known| known.text));
        let message = format!("condition {key:?} is not known{meant}");
        self.report.invalid(self.rule, format!("{}.key", self.path), key, &message);
    }

    fn values<T>(&mut self, when: &When, read: &dyn Fn(&str) -> Option<T>) -> (Vec<T>, Vec<T>) {
        let (values, not_values) = (&when.values, &when.not_values);
        self.field(&Field { noun: &when.key, name: "values", values, not_name: "notValues", not_values, read })
    }
}
