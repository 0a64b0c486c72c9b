//! Names of a type that is subscribed as a whole, about which somebody cannot wait for the control plane's next response:
//! who waits, and what was asked on this stream. Sends nothing itself.

use std::collections::{BTreeSet, HashMap};

use crate::demand::{DemandError, Waiter};

/// Names that may wait for an answer, and that one stream may be subscribed to besides the whole type.
pub(crate) const MAX_NAMES: usize = 8192;

/// Does the control plane of a stream answer for single names of a type that is subscribed as a whole?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Its first response will tell.
    #[default]
    Undecided,
    /// It marks the parts of its snapshots, as Strake's control planes do, which answer.
    Supported,
    /// It does not. Istio's control planes answer such a request with all resources of the type, or with the removal of all
    /// others, by their version: they are never asked.
    Unsupported,
}

#[derive(Debug, Default)]
pub(crate) struct Questions {
    names: Names,
    pending: HashMap<String, Question>,
    /// Names for the next request, some of which may not be pending any more.
    unsent: Vec<String>,
    /// Names that this stream is subscribed to and that nobody waits for.
    finished: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Question {
    waiters: Vec<Waiter>,
    is_sent: bool,
}

/// Change of the subscriptions of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NameChanges {
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
}

impl Questions {
    /// A new stream knows nothing of what was asked before it.
    pub(crate) fn begin_stream(&mut self) {
        self.names = Names::Undecided;
        self.sweep();
        self.finished.clear();
        self.unsent = self.pending.keys().cloned().collect();
        for question in self.pending.values_mut() {
            question.is_sent = false;
        }
    }

    /// Notes whether the control plane of this stream answers; when it does not, nobody waits any longer.
    pub(crate) fn decide(&mut self, names: Names) {
        self.names = names;
        if names == Names::Unsupported {
            self.unsent.clear();
            for (_, question) in self.pending.drain() {
                question.end(Err(DemandError::Unsupported));
            }
        }
    }

    pub(crate) fn ask(&mut self, name: String, waiter: Waiter) {
        if self.names == Names::Unsupported {
            let _ = waiter.send(Err(DemandError::Unsupported));
            return;
        }
        // Who waited in the queue for a stream may have given up.
        if waiter.is_closed() {
            return;
        }
        if let Some(question) = self.pending.get_mut(&name) {
            question.waiters.push(waiter);
            return;
        }
        if self.pending.len() >= MAX_NAMES {
            self.sweep();
        }
        if self.pending.len() >= MAX_NAMES {
            let _ = waiter.send(Err(DemandError::TooMany));
            return;
        }
        // Subscribed again, it is answered again.
        self.finished.remove(&name);
        self.unsent.push(name.clone());
        self.pending.insert(name, Question { waiters: vec![waiter], is_sent: false });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Wakes those who wait for this name. A name that nobody asked about is ignored.
    pub(crate) fn answer(&mut self, name: &str, answer: Result<(), DemandError>) {
        let Some((name, question)) = self.pending.remove_entry(name) else { return };
        if question.is_sent {
            self.finished.insert(name);
        }
        question.end(answer);
    }

    /// Names for the next request that asks something; none when nothing is to be asked now.
    pub(crate) fn next_changes(&mut self) -> Option<NameChanges> {
        if self.names != Names::Supported || self.unsent.is_empty() {
            return None;
        }
        self.sweep();
        let mut subscribe = std::mem::take(&mut self.unsent);
        subscribe.retain(|name| match self.pending.get_mut(name) {
            Some(question) => !std::mem::replace(&mut question.is_sent, true),
            None => false,
        });
        (!subscribe.is_empty()).then(|| NameChanges { subscribe, unsubscribe: self.take_finished() })
    }

    /// Names that this stream need not be subscribed to any longer.
    pub(crate) fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished).into_iter().collect()
    }

    /// Lets go of names for which nobody waits any more.
    fn sweep(&mut self) {
        let finished = &mut self.finished;
        self.pending.retain(|name, question| {
            question.waiters.retain(|waiter| !waiter.is_closed());
            let is_wanted = !question.waiters.is_empty();
            if !is_wanted && question.is_sent {
                finished.insert(name.clone());
            }
            is_wanted
        });
        runtime::collections::shrink_sparse(&mut self.pending);
    }
}

impl Question {
    fn end(self, answer: Result<(), DemandError>) {
        for waiter in self.waiters {
            let _ = waiter.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

    use super::*;

    type Answer = Receiver<Result<(), DemandError>>;

    fn asked(questions: &mut Questions, name: &str) -> Answer {
        let (waiter, answer) = oneshot::channel();
        questions.ask(name.to_owned(), waiter);
        answer
    }

    fn supported() -> Questions {
        let mut questions = Questions::default();
        questions.decide(Names::Supported);
        questions
    }

    fn subscribed(questions: &mut Questions) -> Vec<String> {
        questions.next_changes().unwrap_or_default().subscribe
    }

    #[test]
    fn two_who_ask_for_a_name_are_one_question_and_hear_the_same() {
        let mut questions = supported();
        let mut answers = [asked(&mut questions, "a"), asked(&mut questions, "a")];

        assert_eq!(subscribed(&mut questions), ["a"]);
        assert_eq!(questions.next_changes(), None);
        questions.answer("a", Ok(()));

        assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(Ok(()))));
        assert_eq!(questions.take_finished(), ["a"]);
        assert!(questions.is_empty() && questions.take_finished().is_empty());
    }

    #[test]
    fn an_answer_that_comes_twice_or_too_late_changes_nothing() {
        let mut questions = supported();
        drop(asked(&mut questions, "late"));
        let mut other = asked(&mut questions, "other");
        assert_eq!(subscribed(&mut questions), ["other"], "nobody waits for the first any more");

        questions.answer("late", Ok(()));
        questions.answer("unasked", Ok(()));

        assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
        assert!(questions.take_finished().is_empty());
    }

    #[test]
    fn a_name_that_was_given_up_is_let_go_with_the_next_question() {
        let mut questions = supported();
        let first = asked(&mut questions, "a");
        assert_eq!(subscribed(&mut questions), ["a"]);
        drop(first);

        let _second = asked(&mut questions, "b");

        let changes = NameChanges { subscribe: vec!["b".to_owned()], unsubscribe: vec!["a".to_owned()] };
        assert_eq!(questions.next_changes(), Some(changes));
    }

    #[test]
    fn a_name_that_is_asked_again_before_it_was_let_go_stays_subscribed_and_is_asked() {
        let mut questions = supported();
        let _first = asked(&mut questions, "a");
        questions.next_changes();
        questions.answer("a", Ok(()));

        let _second = asked(&mut questions, "a");

        let changes = NameChanges { subscribe: vec!["a".to_owned()], unsubscribe: vec![] };
        assert_eq!(questions.next_changes(), Some(changes));
    }

    #[test]
    fn nothing_is_asked_before_the_control_plane_has_shown_that_it_answers() {
        let mut questions = Questions::default();
        let mut answer = asked(&mut questions, "a");
        assert_eq!(questions.next_changes(), None);

        questions.decide(Names::Unsupported);

        assert_eq!(answer.try_recv(), Ok(Err(DemandError::Unsupported)));
        assert_eq!(asked(&mut questions, "b").try_recv(), Ok(Err(DemandError::Unsupported)));
        assert_eq!(questions.next_changes(), None);
    }

    #[test]
    fn what_is_pending_is_asked_again_on_a_new_stream() {
        let mut questions = supported();
        let _wanted = asked(&mut questions, "a");
        drop(asked(&mut questions, "b"));
        subscribed(&mut questions);

        questions.begin_stream();

        assert_eq!(questions.next_changes(), None, "a new stream may lead to another control plane");
        questions.decide(Names::Supported);
        let changes = NameChanges { subscribe: vec!["a".to_owned()], unsubscribe: vec![] };
        assert_eq!(questions.next_changes(), Some(changes), "the new stream is subscribed to nothing yet");
    }

    #[test]
    fn there_are_never_more_names_than_the_limit_and_those_that_were_given_up_make_room() {
        let mut questions = supported();
        let mut waiting: Vec<Answer> = (0..MAX_NAMES).map(|n| asked(&mut questions, &n.to_string())).collect();
        assert_eq!(subscribed(&mut questions).len(), MAX_NAMES);

        assert_eq!(asked(&mut questions, "more").try_recv(), Ok(Err(DemandError::TooMany)));
        waiting.pop();
        let _more = asked(&mut questions, "more");

        let changes = questions.next_changes().unwrap();
        assert_eq!((changes.subscribe.as_slice(), changes.unsubscribe.len()), (["more".to_owned()].as_slice(), 1));
    }
}
