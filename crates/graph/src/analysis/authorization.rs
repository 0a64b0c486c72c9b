//! The rules of one AuthorizationPolicy: values, lists and rules that match nothing, or are there twice.

use kube_types::ObjectRef;
use kube_types::istio::{Action, AuthorizationPolicy, AuthorizationRule, Operation, RuleSource, When};

use super::rules::{Potential, Rules};
use super::values::{Kind, Match};
use super::world::World;
use super::{Tallies, service_port};
use crate::enforcement::Effect;
use crate::finding::{Finding, Reason, Severity};
use crate::outcome::Outcome;

/// Facts that the analysis of a policy depends on.
pub(crate) struct Context<'a> {
    pub(crate) world: &'a World,
    pub(crate) tallies: &'a Tallies,
    pub(crate) rules: &'a Rules,
    /// Indices of the rules that were left out, which the conversion reports.
    pub(crate) left_out: &'a [usize],
    /// The policy is only logged: it refuses nothing.
    pub(crate) is_dry_run: bool,
}

/// Result of the analysis.
#[derive(Debug, Default)]
pub(crate) struct Review {
    pub(crate) findings: Vec<Finding>,
    /// Extent to which each rule can match, and the reason that it is no more.
    rules: Vec<(Potential, String)>,
    is_deny: bool,
}

/// Looks at every value and every rule.
pub(crate) fn review(key: &ObjectRef, policy: &AuthorizationPolicy, context: &Context<'_>) -> Review {
    let mut found = Found { key, context, findings: Vec::new(), doubt: None };
    let potentials = context.rules.potentials(context.world);
    let mut rules = Vec::new();
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        // The first doubtful value explains the rule; another rule's value would not.
        found.doubt = None;
        // The values before the verdict, which quotes the first that is in doubt.
        found.rule(index, rule);
        found.copies(index, &policy.spec.rules);
        let potential = match potentials.get(index) {
            // The conversion has left the rule out and reported it.
            _ if context.left_out.contains(&index) => Potential::Never,
            // The rule itself could match, but only on ports that no selected workload can have.
            Some(Potential::Possible) if context.rules.is_closed(index, |port| found.is_service_only(port)) => {
                Potential::Never
            }
            Some(potential) => *potential,
            None => Potential::Never,
        };
        let why = found.verdict(index, potential);
        rules.push((potential, why));
    }
    let is_deny = policy.spec.action == Action::Deny;
    let mut review = Review { findings: found.findings, rules, is_deny };
    // A policy that is only logged refuses nothing, so what it would allow or deny harms nobody.
    if !context.is_dry_run {
        review.whole(key, context);
    }
    review
}

impl Review {
    /// Findings about the policy as a whole.
    fn whole(&mut self, key: &ObjectRef, context: &Context<'_>) {
        let best = self.rules.iter().map(|(potential, _)| *potential).max();
        let finding = match best {
            Some(Potential::Never) if !self.is_deny => Finding::warning(
                key,
                Reason::AllowsNothing,
                "no rule can match: every connection to the selected workloads is denied",
            ),
            Some(Potential::Absent) if !self.is_deny => Finding::warning(
                key,
                Reason::AllowsNothing,
                "none of the rules matches anything that exists, so that every connection to the selected workloads is refused",
            ),
            _ if self.is_deny && context.rules.matches_all => Finding::new(
                key,
                Severity::Info,
                Reason::DeniesEverything,
                "denies every connection to the selected workloads, regardless of ALLOW policies",
            ),
            _ => return,
        };
        self.findings.push(finding.at("spec.rules"));
    }

    /// The effect of the policy, given what its rules can match.
    pub(crate) fn refine(&self, effect: Effect) -> Effect {
        let best = self.rules.iter().map(|(potential, _)| *potential).max();
        // Reasons are taken from all rules, also where another one can match: each is a part without effect.
        let note = self.unmatched();
        let (what, before, is_partial) = match effect {
            Effect::Whole { what, note } => (what, note, false),
            Effect::Partial { what, how } => (what, how, true),
            Effect::Logged | Effect::Nothing { .. } => return effect,
        };
        let rest = [before, note.unwrap_or_default()].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let rest = rest.join("; ");
        // Rules that the conversion left out have no reason here: they are in the effect already.
        let has_dead = self.rules.iter().any(|(potential, why)| *potential == Potential::Never && !why.is_empty());
        match best {
            Some(Potential::Never) if self.is_deny => {
                Effect::nothing(Outcome::NeverMatches, format!("no connection can match: {rest}"))
            }
            // Enforced all the same: an ALLOW policy that matches nothing denies everything.
            Some(Potential::Never) => Effect::partial("allows nothing;", rest),
            Some(Potential::Absent) if !self.is_deny => Effect::partial("currently allows nothing;", rest),
            Some(_) | None if is_partial || has_dead => Effect::Partial { what, how: rest },
            Some(_) | None => Effect::Whole { what, note: rest },
        }
    }

    /// Reasons that rules match nothing: the first two.
    pub(crate) fn unmatched(&self) -> Option<String> {
        let reasons: Vec<_> = self.rules.iter().map(|(_, why)| why.as_str()).filter(|why| !why.is_empty()).collect();
        match reasons.as_slice() {
            [] => None,
            [one] => Some((*one).to_owned()),
            [one, two] => Some(format!("{one}; {two}")),
            // A condition's message is read in a terminal; the findings name every rule.
            [one, two, rest @ ..] => Some(format!("{one}; {two}; and {} more", rest.len())),
        }
    }
}

/// Two lists of one field.
struct Lists<'a> {
    kind: Kind,
    names: [&'static str; 2],
    values: &'a [String],
    not_values: &'a [String],
}

struct Found<'a> {
    key: &'a ObjectRef,
    context: &'a Context<'a>,
    findings: Vec<Finding>,
    /// The first value of the rule that matches nothing, and why.
    doubt: Option<String>,
}

impl Found<'_> {
    fn rule(&mut self, index: usize, rule: &AuthorizationRule) {
        for (number, from) in rule.from.iter().enumerate() {
            self.source(&format!("spec.rules[{index}].from[{number}].source"), &from.source);
        }
        for (number, to) in rule.to.iter().enumerate() {
            self.operation(&format!("spec.rules[{index}].to[{number}].operation"), &to.operation);
        }
        for (number, when) in rule.when.iter().enumerate() {
            self.condition(&format!("spec.rules[{index}].when[{number}]"), when);
        }
    }

    fn source(&mut self, path: &str, source: &RuleSource) {
        for lists in [
            Lists {
                kind: Kind::Principal,
                names: ["principals", "notPrincipals"],
                values: &source.principals,
                not_values: &source.not_principals,
            },
            Lists {
                kind: Kind::TrustDomain,
                names: ["trustDomains", "notTrustDomains"],
                values: &source.trust_domains,
                not_values: &source.not_trust_domains,
            },
            Lists {
                kind: Kind::Namespace,
                names: ["namespaces", "notNamespaces"],
                values: &source.namespaces,
                not_values: &source.not_namespaces,
            },
            Lists {
                kind: Kind::ServiceAccount,
                names: ["serviceAccounts", "notServiceAccounts"],
                values: &source.service_accounts,
                not_values: &source.not_service_accounts,
            },
            Lists {
                kind: Kind::Block,
                names: ["ipBlocks", "notIpBlocks"],
                values: &source.ip_blocks,
                not_values: &source.not_ip_blocks,
            },
        ] {
            self.lists(path, &lists);
        }
    }

    fn operation(&mut self, path: &str, operation: &Operation) {
        let (values, not_values) = (&operation.ports, &operation.not_ports);
        self.lists(path, &Lists { kind: Kind::Port, names: ["ports", "notPorts"], values, not_values });
    }

    fn condition(&mut self, path: &str, when: &When) {
        // HTTP attributes and unknown keys: the conversion has reported them.
        let Some(kind) = Kind::of_condition(when) else { return };
        let (values, not_values) = (&when.values, &when.not_values);
        self.lists(path, &Lists { kind, names: ["values", "notValues"], values, not_values });
    }

    fn lists(&mut self, path: &str, lists: &Lists<'_>) {
        let [name, not_name] = lists.names;
        for (index, text) in lists.values.iter().enumerate() {
            let path = format!("{path}.{name}[{index}]");
            // Negative values win, so a value that is in both lists never matches.
            if lists.not_values.contains(text) {
                let why = format!("{} {text:?} never matches: it is also in {not_name}", lists.kind.noun());
                self.doubt(&why);
                self.report(Severity::Warning, Reason::MatchesNothing, &path, why);
            } else if lists.values[..index].contains(text) {
                self.report(Severity::Info, Reason::Duplicate, &path, format!("duplicate value {text:?}"));
            } else {
                self.value(&path, lists.kind, text);
            }
        }
        for (index, text) in lists.not_values.iter().enumerate() {
            let path = format!("{path}.{not_name}[{index}]");
            if lists.not_values[..index].contains(text) {
                self.report(Severity::Info, Reason::Duplicate, &path, format!("duplicate value {text:?}"));
            } else {
                self.not_value(&path, lists.kind, text);
            }
        }
    }

    fn value(&mut self, path: &str, kind: Kind, text: &str) {
        let noun = kind.noun();
        if kind == Kind::Port {
            return self.port(path, text, "never matches", true);
        }
        let Some(doubt) = kind.doubt(text, self.context.world, &self.key.namespace) else { return };
        let message = match doubt.effect {
            Match::Never => format!("{noun} {text:?} never matches: {}", doubt.why),
            Match::NothingNow => format!("{noun} {text:?} currently matches nothing: {}", doubt.why),
            Match::Other => format!("{noun} {text:?}: {}", doubt.why),
        };
        // A value that matches something else than it looks like is no reason that the rule matches nothing.
        if doubt.effect != Match::Other {
            self.doubt(&message);
        }
        self.report(doubt.severity, doubt.reason, path, message);
    }

    fn not_value(&mut self, path: &str, kind: Kind, text: &str) {
        let noun = kind.noun();
        if kind == Kind::Port {
            return self.port(path, text, "excludes nothing", false);
        }
        // A negative value in doubt never explains a rule that matches nothing: it only excludes less.
        let Some(doubt) = kind.doubt(text, self.context.world, &self.key.namespace) else { return };
        let message = match doubt.effect {
            Match::Never => format!("{noun} {text:?} excludes nothing: {}", doubt.why),
            Match::NothingNow => format!("{noun} {text:?} currently excludes nothing: {}", doubt.why),
            Match::Other => format!("{noun} {text:?}: {}", doubt.why),
        };
        self.report(doubt.severity, doubt.reason, path, message);
    }

    fn port(&mut self, path: &str, text: &str, effect: &str, is_positive: bool) {
        // No tally: the policy selects no workload, so that there is nothing to compare with.
        let Some((port, tally)) =
            text.parse().ok().and_then(|port: u16| Some((port, self.context.tallies.get(&port)?)))
        else {
            return;
        };
        if let Some((service, target)) = tally.service_only() {
            let message = format!("port {text:?} {effect}: {}", service_port(port, service, target));
            if is_positive {
                self.doubt(&message);
            }
            self.report(Severity::Warning, Reason::ServicePort, path, message);
        } else if tally.is_undeclared() {
            // Info only: declaring ports is voluntary, so that the workload may well listen there.
            let whom = match tally.workloads() {
                1 => "the selected workload does not declare it".to_owned(),
                count => format!("none of the {count} selected workloads declares it"),
            };
            let message = format!("port {text:?} may match nothing: {whom}");
            self.report(Severity::Info, Reason::UndeclaredPort, path, message);
        }
    }

    fn is_service_only(&self, port: u16) -> bool {
        self.context.tallies.get(&port).is_some_and(|tally| tally.service_only().is_some())
    }

    fn copies(&mut self, index: usize, rules: &[AuthorizationRule]) {
        if let Some(first) = rules[..index].iter().position(|rule| *rule == rules[index]) {
            let message = format!("duplicate of rules[{first}]");
            self.report(Severity::Info, Reason::Duplicate, &format!("spec.rules[{index}]"), message);
        }
    }

    /// Returns the reason why the rule matches nothing, in words for the condition. Adds a finding when none of its
    /// values has one.
    fn verdict(&mut self, index: usize, potential: Potential) -> String {
        if self.context.left_out.contains(&index) || potential == Potential::Possible {
            return String::new();
        }
        let path = format!("spec.rules[{index}]");
        if let Some(doubt) = &self.doubt {
            return format!("rules[{index}]: {doubt}");
        }
        let (effect, why) = match potential {
            Potential::Never => ("never matches", "its conditions exclude each other"),
            // `Possible` has returned above.
            Potential::Absent | Potential::Possible => {
                ("currently matches nothing", "no service account satisfies all its conditions")
            }
        };
        let message = format!("{effect}: {why}");
        self.report(Severity::Warning, Reason::MatchesNothing, &path, message.clone());
        format!("rules[{index}] {message}")
    }

    fn doubt(&mut self, message: &str) {
        self.doubt.get_or_insert_with(|| message.to_owned());
    }

    fn report(&mut self, severity: Severity, reason: Reason, path: &str, message: String) {
        self.findings.push(Finding::new(self.key, severity, reason, message).at(path));
    }
}
