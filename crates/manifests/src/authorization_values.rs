//! Values of an AuthorizationPolicy that cannot match anything: a typing error in a DENY policy would open what it
//! should close. Attributes that a node proxy leaves to a waypoint are no mistake and are not checked.

use crate::document::Step;
use crate::mistake::Mistake;
use contract::address::parse_block;
use kube_types::istio::{
    AuthorizationPolicy, AuthorizationRule, CONDITION_KEYS, ConditionKey, KeySyntax, Operation, RuleSource as Source,
    ValueForm, When as Condition,
};
use kube_types::similar::hint;

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
        let Some(key) = ConditionKey::of(&when.key) else {
            let message = unknown_condition(&when.key);
            return self.within(&[field("key")], |found| found.report(message));
        };
        if when.values.is_empty() && when.not_values.is_empty() {
            return self.report("has neither values nor notValues: set one of them".to_owned());
        }
        let form = match key.values {
            ValueForm::Block => BLOCK,
            ValueForm::Port => PORT,
            ValueForm::ServiceAccount => ACCOUNT,
            ValueForm::Name => NAME,
            ValueForm::Any => return,
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

/// Message about a key that is not in the table. Keys of experimental filters are not offered.
fn unknown_condition(key: &str) -> String {
    let offered = CONDITION_KEYS.iter().filter_map(|known| match known.syntax {
        KeySyntax::Whole => Some(known.text.to_owned()),
        KeySyntax::Named => Some(format!("{}[...]", known.text)),
        KeySyntax::Prefix => None,
    });
    let whole = CONDITION_KEYS.iter().filter(|known| known.syntax == KeySyntax::Whole).map(|known| known.text);
    let meant = hint(key, whole);
    format!("unknown condition {key:?}: expected one of {}{meant}", offered.collect::<Vec<_>>().join(", "))
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
