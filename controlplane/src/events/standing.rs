//! Facts that stand, and when each is to be written.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::BTreeMap;
use std::time::Duration;

use kube_types::Subject;
use tokio::time::Instant;

use super::fact::Fact;
use super::post::Outcome;

/// Time that a fact must stand before it is written. During a roll-out much is true for a moment.
const HOLD: Duration = Duration::from_secs(10);

/// Time after which an Event is repeated while its fact stands. The API server drops Events after an hour.
pub(super) const REPEAT: Duration = Duration::from_secs(30 * 60);

/// Time after which an Event with another text is written. Texts have numbers, which change with each pod.
const REVISE: Duration = Duration::from_secs(5 * 60);

/// Pause after a failure to write one Event, for instance in a namespace that is being deleted.
const RETRY: Duration = Duration::from_secs(60);

/// Part of the program that knows a fact. Each replaces its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Source,
    Findings,
    Conditions,
}

/// An Event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) subject: Subject,
    pub(super) origin: Origin,
    pub(super) fact: Fact,
}

/// Kind, namespace and name of an object, then reason and field.
type Key = (Subject, Origin, String, String);

#[derive(Debug)]
struct Entry {
    uid: String,
    text: String,
    /// Time of the next attempt, unless the text changes.
    due: Instant,
    /// Time of the last Event, and its text.
    written: Option<(Instant, String)>,
}

/// All facts that stand.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<Key, Entry>);

/// The object without its uid: another one of its name has the same facts, which are then written anew.
fn name(subject: &Subject) -> Subject {
    Subject { uid: String::new(), ..subject.clone() }
}

impl Standing {
    /// Replaces the facts that `origin` knows about an object.
    pub(super) fn replace(&mut self, subject: &Subject, origin: Origin, facts: Vec<Fact>, now: Instant) {
        let of = name(subject);
        let first: Key = (of.clone(), origin, String::new(), String::new());
        let old = self.0.range(first..).take_while(|((subject, by, ..), _)| *subject == of && *by == origin);
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        let mut old: BTreeMap<_, _> = old.into_iter().filter_map(|key| self.0.remove_entry(&key)).collect();
        for Fact { reason, field, text } in facts {
            let key = (of.clone(), origin, reason, field);
            let new = || Entry { uid: subject.uid.clone(), text: String::new(), due: now + HOLD, written: None };
            // An Event names the uid, so another object of this name begins anew.
            let mut entry = old.remove(&key).filter(|entry| entry.uid == subject.uid).unwrap_or_else(new);
            entry.text = text;
            self.0.insert(key, entry);
        }
    }

    /// The next Event, and the time from which it may be written.
    pub(super) fn next(&self, now: Instant) -> Option<(Instant, Event)> {
        let ((subject, origin, reason, field), entry) = self.0.iter().min_by_key(|(_, entry)| entry.due(now))?;
        let fact = Fact { reason: reason.clone(), field: field.clone(), text: entry.text.clone() };
        let subject = Subject { uid: entry.uid.clone(), ..subject.clone() };
        Some((entry.due(now), Event { subject, origin: *origin, fact }))
    }

    /// Number of Events that may be written now.
    pub(super) fn waiting(&self, now: Instant) -> usize {
        self.0.values().filter(|entry| entry.due(now) <= now).count()
    }

    /// Notes what became of an Event. Its fact may be gone, or another one's by now.
    pub(super) fn on_outcome(&mut self, event: &Event, outcome: &Outcome, now: Instant) {
        let Event { subject, origin, fact } = event;
        let key = (name(subject), *origin, fact.reason.clone(), fact.field.clone());
        let Some(entry) = self.0.get_mut(&key).filter(|entry| entry.uid == subject.uid) else { return };
        let age = match outcome {
            Outcome::Created | Outcome::Repeated => Duration::ZERO,
            Outcome::Current { age } => *age,
            Outcome::Failed(_) => {
                entry.due = now + RETRY;
                entry.written = None;
                return;
            }
        };
        entry.due = now + REPEAT.saturating_sub(age);
        entry.written = Some((now.checked_sub(age).unwrap_or(now), fact.text.clone()));
    }
}

impl Entry {
    fn due(&self, now: Instant) -> Instant {
        match &self.written {
            Some((at, text)) if *text != self.text => self.due.min((*at + REVISE).max(now)),
            Some(_) | None => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn subject(uid: &str) -> Subject {
        Subject { kind: "Service".to_owned(), namespace: "app".to_owned(), name: "web".to_owned(), uid: uid.to_owned() }
    }

    fn fact(reason: &str, text: &str) -> Fact {
        Fact { reason: reason.to_owned(), field: String::new(), text: text.to_owned() }
    }

    #[test]
    fn a_fact_is_written_when_it_has_stood_for_a_while_and_again_while_it_stands() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        standing.replace(&subject("1"), Origin::Findings, vec![fact("A", "a")], start);
        standing.replace(&subject("1"), Origin::Conditions, vec![fact("A", "other")], start + SECOND);

        let (due, event) = standing.next(start).unwrap();
        assert_eq!((due, event.fact.text.as_str()), (start + HOLD, "a"));
        standing.on_outcome(&event, &Outcome::Created, due);
        let (next, other) = standing.next(due).unwrap();
        assert_eq!((next, other.origin), (start + SECOND + HOLD, Origin::Conditions));
        standing.replace(&subject("1"), Origin::Conditions, Vec::new(), next);
        assert_eq!(standing.next(next).unwrap().0, due + REPEAT);
        // Said again, by another event of the source.
        standing.replace(&subject("1"), Origin::Findings, vec![fact("A", "a")], next);
        assert_eq!(standing.next(next).unwrap().0, due + REPEAT);
        standing.replace(&subject("1"), Origin::Findings, vec![fact("A", "b")], next);
        assert_eq!(standing.next(next).unwrap().0, due + REVISE, "another text is sooner");
    }

    #[test]
    fn another_object_of_the_name_has_events_of_its_own() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        standing.replace(&subject("1"), Origin::Findings, vec![fact("A", "a")], start);
        let (due, event) = standing.next(start).unwrap();
        standing.replace(&subject("2"), Origin::Findings, vec![fact("A", "a")], due);
        standing.on_outcome(&event, &Outcome::Created, due);

        let (next, event) = standing.next(due).unwrap();
        assert_eq!((next, event.subject.uid.as_str()), (due + HOLD, "2"));
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_others() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        standing.replace(&subject("1"), Origin::Findings, vec![fact("A", "a"), fact("B", "b")], start);
        let now = start + HOLD;
        assert_eq!(standing.waiting(now), 2);
        let (_, event) = standing.next(now).unwrap();
        standing.on_outcome(&event, &Outcome::Failed("no".to_owned()), now);

        assert_eq!(standing.next(now).unwrap().1.fact.reason, "B");
        assert_eq!(standing.waiting(now + RETRY), 2);
    }
}
