//! Every policy and rule of a decision, for people. Nothing here is on the way of a request.

use super::evaluate::{condition_holds, operation_fields, rule_holds, source_fields};
use super::{Action, HttpPolicy, Request, Rule, Truth};

/// A policy, compared with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTrace<'p> {
    pub policy: &'p HttpPolicy,
    /// Its rules, in order.
    pub rules: Vec<RuleTrace>,
}

/// A rule, compared with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    pub holds: Truth,
    /// Parts that do not hold, or of which it is not known. Empty for a rule that holds.
    pub unmet: Vec<Unmet>,
}

/// A part of a rule that keeps it from holding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Path within the rule, as `to[0].operation.methods` or `when[1] request.headers[x-user]`.
    pub part: String,
    /// Values that it asks for, separated by commas; behind `not` those that it excludes.
    pub wanted: String,
    /// `No` or `Unknown`.
    pub holds: Truth,
}

/// Compares every rule of the policies with a request.
#[must_use]
pub fn trace<'p>(policies: impl Iterator<Item = &'p HttpPolicy>, request: &Request<'_>) -> Vec<PolicyTrace<'p>> {
    let rules = |policy: &HttpPolicy| {
        let is_allow = policy.action == Action::Allow;
        policy.rules.iter().map(|rule| rule_trace(rule, is_allow, request)).collect()
    };
    policies.map(|policy| PolicyTrace { rules: rules(policy), policy }).collect()
}

fn rule_trace(rule: &Rule, is_allow: bool, request: &Request<'_>) -> RuleTrace {
    let holds = rule_holds(rule, is_allow, request);
    if holds == Truth::Yes {
        return RuleTrace { holds, unmet: Vec::new() };
    }
    let from = rule.from.iter().enumerate().map(|(at, source)| {
        (format!("from[{at}].source"), source_fields(source, request).into_iter().collect::<Vec<_>>())
    });
    let to = rule.to.iter().enumerate().map(|(at, operation)| {
        (format!("to[{at}].operation"), operation_fields(operation, request).into_iter().collect::<Vec<_>>())
    });
    let mut unmet = alternatives(from);
    unmet.extend(alternatives(to));
    unmet.extend(rule.when.iter().enumerate().filter_map(|(at, condition)| {
        let holds = condition_holds(condition, request);
        let part = format!("when[{at}] {}", condition.key());
        (holds != Truth::Yes).then(|| Unmet { part, wanted: condition.wanted(), holds })
    }));
    RuleTrace { holds, unmet }
}

/// Fields that keep each alternative from holding; none if one of them holds.
fn alternatives<'a>(list: impl Iterator<Item = (String, Vec<super::evaluate::Field<'a>>)>) -> Vec<Unmet> {
    let mut all = Vec::new();
    for (path, fields) in list {
        // Without fields it says nothing, and so cannot be evaluated.
        if fields.iter().all(|field| field.wanted.to_string().is_empty()) {
            all.push(Unmet { part: path, wanted: String::new(), holds: Truth::Unknown });
            continue;
        }
        let mut unmet = fields.iter().filter(|field| field.truth != Truth::Yes).peekable();
        if unmet.peek().is_none() {
            return Vec::new();
        }
        all.extend(unmet.map(|field| Unmet {
            part: format!("{path}.{}", field.name),
            wanted: field.wanted.to_string(),
            holds: field.truth,
        }));
    }
    all
}
