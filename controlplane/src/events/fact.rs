//! Facts that a user has to do something about.

use graph::outcome::Outcome;
use graph::{ENFORCED, Finding};
use kube_types::core::{Condition, ConditionStatus};
use kube_types::{InForce, Severity, SourceProblem};

/// Longest text of an Event, in bytes: that of events.k8s.io/v1.
const MAX_TEXT: usize = 1024;

/// Reason of the Event of an object that cannot be read.
const UNREADABLE: &str = "Unreadable";

/// A fact about an object. Two of one object, reason and field are the same fact, whatever their texts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// In upper camel case, as the reasons of Kubernetes' own Events.
    pub(super) reason: String,
    /// Path of the field; empty when it is about the object as a whole.
    pub(super) field: String,
    pub(super) text: String,
}

impl Fact {
    fn new(reason: String, field: &str, message: &str) -> Self {
        let text = if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") };
        Self { reason, field: field.to_owned(), text: shortened(text) }
    }

    /// `None` for a finding that is only worth a look.
    pub(super) fn of_finding(finding: &Finding) -> Option<Self> {
        match finding.severity {
            graph::Severity::Info => None,
            graph::Severity::Warning => {
                Some(Self::new(camel_case(finding.reason.code()), &finding.field, &finding.message))
            }
        }
    }

    /// `None` for a condition that is as its author wants it, or on its way there.
    pub(super) fn of_condition(condition: &Condition) -> Option<Self> {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let is = |outcome: Outcome| reason == outcome.reason() && condition.status == outcome.status();
        let is_fine = [Outcome::Enforced, Outcome::Pending, Outcome::DryRun].into_iter().any(is);
        if condition.r#type != ENFORCED || is_fine {
            return None;
        }
        let prefix = match condition.status {
            ConditionStatus::True => "enforced in part",
            ConditionStatus::False => "not enforced",
            ConditionStatus::Unknown => "not known to be enforced",
        };
        let message = condition.message.as_deref().unwrap_or_default();
        Some(Self::new(reason.to_owned(), "", &format!("{prefix}: {message}")))
    }

    /// `None` for what is no object's fault, or keeps nothing out of force.
    pub(super) fn of_problem(problem: &SourceProblem) -> Option<Self> {
        if problem.severity != Severity::Error || problem.subject.name.is_empty() {
            return None;
        }
        let state = match problem.in_force.as_ref().map(InForce::last_good) {
            Some(Some(since)) => format!("the state of {since} stays in force"),
            Some(None) | None => "it is not in force".to_owned(),
        };
        Some(Self::new(UNREADABLE.to_owned(), &problem.field, &format!("{}; {state}", problem.message)))
    }
}

/// `no_waypoint` as `NoWaypoint`.
fn camel_case(code: &str) -> String {
    let words = code.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

fn shortened(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    format!("{}...", &text[..text.floor_char_boundary(MAX_TEXT - 3)])
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use kube_types::{Code, Subject};

    use super::*;

    fn condition(outcome: Outcome) -> Condition {
        let entry = outcome.entry();
        Condition {
            r#type: entry.kind.to_owned(),
            status: entry.status,
            reason: Some(entry.reason.to_owned()),
            message: Some("message".to_owned()),
            ..Condition::default()
        }
    }

    #[test]
    fn a_condition_is_a_fact_unless_it_is_as_it_should_be() {
        let about_enforcement = Outcome::ALL.into_iter().filter(|outcome| outcome.entry().kind == ENFORCED);
        let without = about_enforcement.filter(|outcome| Fact::of_condition(&condition(*outcome)).is_none());
        let without: Vec<_> = without.collect();

        assert_eq!(without, [Outcome::Enforced, Outcome::DryRun, Outcome::Pending]);
        let partly = Fact::of_condition(&condition(Outcome::PartiallyEnforced)).unwrap();
        assert_eq!((partly.reason.as_str(), partly.text.as_str()), ("PartiallyEnforced", "enforced in part: message"));
        let refused = Fact::of_condition(&condition(Outcome::Refused)).unwrap();
        assert_eq!(refused.text, "not enforced: message");
    }

    #[test]
    fn an_object_that_cannot_be_read_is_a_fact_and_a_failure_to_read_is_none() {
        let problem = |name: &str, in_force| SourceProblem {
            subject: Subject { kind: "Pod".to_owned(), name: name.to_owned(), ..Subject::default() },
            field: "spec.mode".to_owned(),
            in_force,
            ..SourceProblem::of_file(Path::new("p"), Code::InvalidValue, "expected text")
        };

        assert_eq!(Fact::of_problem(&problem("", None)), None);
        let text = |problem| Fact::of_problem(&problem).unwrap().text;
        assert_eq!(text(problem("p", Some(InForce::Nothing))), "spec.mode: expected text; it is not in force");
        assert_eq!(
            text(problem("p", Some(InForce::LastGood { since: UNIX_EPOCH }))),
            "spec.mode: expected text; the state of 1970-01-01T00:00:00Z stays in force"
        );
        let note = problem("p", None).with_severity(Severity::Note);
        assert_eq!(Fact::of_problem(&note), None);
    }

    #[test]
    fn reasons_are_in_camel_case_and_texts_are_bounded() {
        assert_eq!(camel_case("no_waypoint"), "NoWaypoint");
        let long = Fact::new("R".to_owned(), "", &"é".repeat(600));
        assert!(long.text.len() <= MAX_TEXT && long.text.ends_with("é..."), "{}", long.text.len());
    }
}
