//! Values of an AuthorizationPolicy that cannot match anything: a typing error in a DENY policy would open what it
//! should close. Attributes that a node proxy leaves to a waypoint are no mistake and are not checked.

use crate::document::Step;
use crate::mistake::Mistake;
use crate::schema::nearest;
use contract::address::parse_block;
use kube_types::istio::{AuthorizationPolicy, AuthorizationRule, Operation, RuleSource as Source, When as Condition};

/// Conditions whose whole name is the key.
const KEYS: [&str; 12] = [
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "remote.ip",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
];

/// Conditions whose key continues in brackets.
const KEYS_WITH_NAME: [&str; 2] = ["request.headers", "request.auth.claims"];

/// Form of a value.
struct Form {
    expected: &'static str,
    is: fn(&str) -> bool,
}

const NAME: Form = Form { expected: "a name, with '*' at one end at most", is: is_name };
const ACCOUNT: Form = Form { expected: "a service account as namespace/name or name, without '*'", is: is_account };
const BLOCK: Form = Form { expected: "an address or a block, for example 10.0.0.0/8", is: is_block };
const PORT: Form = Form { expected: "a port number from 1 to 65535", is: is_port };

/// Mistakes in the rules of a policy.
pub(crate) fn mistakes(policy: &AuthorizationPolicy) -> Vec<Mistake> {
    let mut found = Found { path: vec![field("spec"), field("rules")], mistakes: Vec::new() };
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        found.within(&[Step::Index(index)], |found| found.rule(rule));
    }
    found.mistakes
}

fn field(name: &str) -> Step {
    Step::Field(name.to_owned())
}

struct Found {
    path: Vec<Step>,
    mistakes: Vec<Mistake>,
}

impl Found {
    fn within(&mut self, steps: &[Step], look: impl FnOnce(&mut Self)) {
        let depth = self.path.len();
        self.path.extend_from_slice(steps);
        look(self);
        self.path.truncate(depth);
    }

    fn report(&mut self, message: String) {
        self.mistakes.push(Mistake::value(self.path.clone(), message));
    }

    fn rule(&mut self, rule: &AuthorizationRule) {
        for (index, when) in rule.when.iter().enumerate() {
            self.within(&[field("when"), Step::Index(index)], |found| found.condition(when));
        }
        for (index, from) in rule.from.iter().enumerate() {
            self.within(&[field("from"), Step::Index(index), field("source")], |found| found.source(&from.source));
        }
        for (index, to) in rule.to.iter().enumerate() {
            let steps = [field("to"), Step::Index(index), field("operation")];
            self.within(&steps, |found| found.operation(&to.operation));
        }
    }

    fn source(&mut self, source: &Source) {
        if *source == Source::default() {
            return self.report("is empty: set a field or remove it".to_owned());
        }
        self.list("ipBlocks", &source.ip_blocks, &BLOCK);
        self.list("notIpBlocks", &source.not_ip_blocks, &BLOCK);
        self.list("remoteIpBlocks", &source.remote_ip_blocks, &BLOCK);
        self.list("notRemoteIpBlocks", &source.not_remote_ip_blocks, &BLOCK);
        self.list("principals", &source.principals, &NAME);
        self.list("notPrincipals", &source.not_principals, &NAME);
        self.list("namespaces", &source.namespaces, &NAME);
        self.list("notNamespaces", &source.not_namespaces, &NAME);
        self.list("trustDomains", &source.trust_domains, &NAME);
        self.list("notTrustDomains", &source.not_trust_domains, &NAME);
        self.list("serviceAccounts", &source.service_accounts, &ACCOUNT);
        self.list("notServiceAccounts", &source.not_service_accounts, &ACCOUNT);
    }

    fn operation(&mut self, operation: &Operation) {
        if *operation == Operation::default() {
            return self.report("is empty: set a field or remove it".to_owned());
        }
        self.list("ports", &operation.ports, &PORT);
        self.list("notPorts", &operation.not_ports, &PORT);
    }

    fn condition(&mut self, when: &Condition) {
        if !is_known(&when.key) {
            let expected = KEYS.map(str::to_owned).into_iter().chain(KEYS_WITH_NAME.map(|key| format!("{key}[...]")));
            let expected = expected.collect::<Vec<_>>().join(", ");
            let meant = nearest(&when.key, KEYS).map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
            let message = format!("unknown condition {:?}: expected one of {expected}{meant}", when.key);
            return self.within(&[field("key")], |found| found.report(message));
        }
        if when.values.is_empty() && when.not_values.is_empty() {
            return self.report("has neither values nor notValues: set one of them".to_owned());
        }
        let form = match when.key.as_str() {
            "source.ip" | "destination.ip" | "remote.ip" => BLOCK,
            "destination.port" => PORT,
            "source.serviceAccount" => ACCOUNT,
            "source.namespace" | "source.principal" | "source.trustDomain" => NAME,
            _ => return,
        };
        self.list("values", &when.values, &form);
        self.list("notValues", &when.not_values, &form);
    }

    fn list(&mut self, name: &str, values: &[String], form: &Form) {
        for (index, value) in values.iter().enumerate().filter(|(_, value)| !(form.is)(value)) {
            let steps = [field(name), Step::Index(index)];
            self.within(&steps, |found| found.report(format!("invalid value {value:?}: expected {}", form.expected)));
        }
    }
}

fn is_known(key: &str) -> bool {
    let named = |known: &str| {
        key.strip_prefix(known).is_some_and(|rest| rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']'))
    };
    KEYS.contains(&key)
        || KEYS_WITH_NAME.iter().any(|known| named(known))
        || key.starts_with("experimental.envoy.filters.")
}

/// `*`, `abc*`, `*abc`, `abc`. A star elsewhere would be compared with names, which have none.
fn is_name(value: &str) -> bool {
    let inner = value.strip_suffix('*').or_else(|| value.strip_prefix('*')).unwrap_or(value);
    !value.is_empty() && !inner.contains('*')
}

fn is_account(value: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
    match value.split_once('/') {
        Some((namespace, name)) => plain(namespace) && plain(name),
        None => plain(value),
    }
}

fn is_block(value: &str) -> bool {
    parse_block(value).is_some()
}

fn is_port(value: &str) -> bool {
    value.parse::<u16>().is_ok_and(|port| port > 0)
}
