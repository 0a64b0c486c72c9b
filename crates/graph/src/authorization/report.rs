//! Parts of a policy that node proxies cannot match, and what that does to the policy.

use std::collections::{BTreeMap, BTreeSet};

use kube_types::ObjectRef;
use kube_types::core::Condition;

use crate::finding::{Finding, Reason};
use crate::outcome::{Outcome, condition};
use crate::rule::Action;

/// Parts of a policy that were lost in its conversion.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Names of HTTP attributes, with the path of the first of each.
    http: BTreeMap<String, String>,
    /// Paths of other parts that cannot be matched, and why.
    invalid: Vec<(String, String)>,
    /// Names of the parts that each rule lost.
    lost: BTreeMap<usize, BTreeSet<String>>,
    /// Rules of which nothing is left.
    open: BTreeSet<usize>,
}

impl Report {
    pub(super) fn http(&mut self, rule: usize, path: String, name: &str) {
        // One message names all attributes; a path for each occurrence would fill the status.
        self.http.entry(name.to_owned()).or_insert(path);
        self.lost.entry(rule).or_default().insert(name.to_owned());
    }

    pub(super) fn invalid(&mut self, rule: usize, path: String, name: &str, message: &str) {
        self.invalid.push((path, message.to_owned()));
        self.lost.entry(rule).or_default().insert(name.to_owned());
    }

    pub(super) fn set_open(&mut self, rule: usize) {
        self.open.insert(rule);
    }

    pub(super) fn has_lost(&self, rule: usize) -> bool {
        self.lost.contains_key(&rule)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }

    /// Describes the effect on each rule that lost a part.
    pub(super) fn consequence(&self, action: Action) -> String {
        let losses = self.lost.iter().map(|(rule, names)| {
            let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            match action {
                Action::Allow => {
                    format!("rules[{rule}] is left out because of {names}, which allows less than requested")
                }
                Action::Deny if self.open.contains(rule) => {
                    format!("rules[{rule}] is enforced without {names}, which denies every connection")
                }
                Action::Deny => {
                    format!("rules[{rule}] is enforced without {names}, which denies more than requested")
                }
            }
        });
        losses.collect::<Vec<_>>().join("; ")
    }

    /// The condition that Istio's control plane writes, in its words where it has some.
    pub(super) fn acceptance(&self, action: Action) -> Condition {
        if self.is_whole() {
            return condition(Outcome::AcceptedByZtunnel, "attached to ztunnel");
        }
        let invalid = self.invalid.iter().map(|(_, message)| format!("{message}."));
        let parts: Vec<_> = self.http_message().into_iter().chain(invalid).chain([self.closing(action)]).collect();
        condition(Outcome::AcceptedInPartByZtunnel, &parts.join(" "))
    }

    fn http_message(&self) -> Option<String> {
        let found = self.http.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        (!self.http.is_empty()).then(|| {
            format!(
                "ztunnel does not support HTTP attributes (found: {found}). In ambient mode you must use a waypoint proxy to enforce HTTP rules."
            )
        })
    }

    fn closing(&self, action: Action) -> String {
        match (action, self.http.is_empty()) {
            (Action::Allow, true) => "The rule is left out, which allows less than requested.",
            (Action::Allow, false) => {
                "Within an ALLOW policy, rules matching HTTP attributes are omitted. This will be more restrictive than requested."
            }
            (Action::Deny, true) => "The rule is enforced without it, which denies more than requested.",
            (Action::Deny, false) => {
                "DENY policy with HTTP attributes is enforced without the HTTP rules. This will be more restrictive than requested."
            }
        }
        .to_owned()
    }

    pub(super) fn findings(&self, key: &ObjectRef, action: Action) -> Vec<Finding> {
        let consequence = self.consequence(action);
        // One finding for all HTTP attributes needs one path.
        let first = self.http.values().min().cloned().unwrap_or_default();
        let http = self
            .http_message()
            .map(|message| Finding::warning(key, Reason::HttpAttribute, format!("{message} {consequence}")).at(first));
        let invalid = self.invalid.iter().map(|(path, message)| {
            Finding::warning(key, Reason::InvalidValue, format!("{message}; {consequence}")).at(path)
        });
        http.into_iter().chain(invalid).collect()
    }
}
