//! Lists of values of a policy's field, with a finding for each value that cannot be evaluated.

use policy::http::{Action, Values};
use route::Origin;

use crate::finding::{Findings, Reason};

/// Reader of the fields of one source, operation or condition.
pub(super) struct Reader<'a> {
    pub(super) action: &'a Action,
    /// The source, operation or condition.
    pub(super) at: Origin,
    pub(super) findings: &'a mut Findings,
}

impl Reader<'_> {
    /// Reads the positive and the negative values of a field, whose names are given. A value may stand for several.
    pub(super) fn values<T, I: IntoIterator<Item = T>>(
        &mut self,
        (name, values): (&str, &[String]),
        (not_name, not_values): (&str, &[String]),
        read: impl Fn(&str) -> Result<I, String>,
    ) -> Values<T> {
        let (any_of, unreadable) = self.list(name, values, &read);
        let (none_of, unreadable_not) = self.list(not_name, not_values, &read);
        Values { any_of, none_of, unreadable, unreadable_not }
    }

    fn list<T, I: IntoIterator<Item = T>>(
        &mut self,
        name: &str,
        values: &[String],
        read: &impl Fn(&str) -> Result<I, String>,
    ) -> (Vec<T>, Vec<String>) {
        let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
        for (index, value) in values.iter().enumerate() {
            match read(value) {
                Ok(found) => readable.extend(found),
                Err(expected) => {
                    let message = format!("invalid value {value:?}: {expected}");
                    self.unevaluable(Reason::Invalid, &format!("{name}[{index}]"), &message);
                    unreadable.push(value.clone());
                }
            }
        }
        (readable, unreadable)
    }

    /// Reports a part that cannot be evaluated, and what it does to its rule.
    pub(super) fn unevaluable(&mut self, reason: Reason, field: &str, message: &str) {
        let effect = match self.action {
            Action::Allow => "it matches no request, which allows less than requested",
            Action::Deny => "it matches every request, which denies more than requested",
            Action::Audit => "it matches every request, which marks more than requested",
            Action::Custom { .. } => "it matches every request, so the provider is asked more often than requested",
        };
        self.findings.add(reason, &self.at, field, format!("{message}; {effect}"));
    }
}
