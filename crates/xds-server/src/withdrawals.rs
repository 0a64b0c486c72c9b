//! Policies that are gone and that one connection has not been told of yet.
//!
//! A proxy that loses a policy while one of its workloads still refers to it would let connections in that the policy
//! refused, or would have to refuse everything. So a removal waits until the addresses that were due before it have been
//! sent, and until the client has answered them: an answer says that they are applied.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Newest response of one kind that a client has answered. Nonces of one connection are consecutive numbers.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    last_sent: u64,
    last_answered: u64,
}

impl Answers {
    pub(crate) fn sent(&mut self, nonce: u64) {
        self.last_sent = nonce;
    }

    /// Notes an answer. A nonce that was never sent counts for nothing.
    pub(crate) fn answered(&mut self, nonce: u64) {
        // A client that invents a nonce must not release removals early.
        if nonce <= self.last_sent {
            // Answers may come late; the newest counts for all before it.
            self.last_answered = self.last_answered.max(nonce);
        }
    }

    pub(crate) fn are_all_answered(&self) -> bool {
        self.last_answered >= self.last_sent
    }
}

/// Removals of policies.
#[derive(Debug, Default)]
pub(crate) struct Withdrawals {
    /// Removals that wait until the addresses that are due have been sent.
    waiting: BTreeSet<Arc<str>>,
    /// Removals that wait for the answer to the response with the nonce `after`.
    released: BTreeSet<Arc<str>>,
    after: u64,
    addresses: Answers,
}

impl Withdrawals {
    pub(crate) fn add(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.waiting.extend(names);
    }

    /// The policy is there again, or is gone once more and begins to wait anew.
    pub(crate) fn forget(&mut self, name: &str) {
        self.waiting.remove(name);
        self.released.remove(name);
    }

    /// Notes a response with addresses.
    pub(crate) fn sent(&mut self, nonce: u64) {
        self.addresses.sent(nonce);
    }

    /// Notes the answer to a response with addresses.
    pub(crate) fn answered(&mut self, nonce: u64) {
        self.addresses.answered(nonce);
    }

    /// Returns true if removals can be sent now. `addresses_are_sent`: no address waits to be sent.
    pub(crate) fn is_ready(&self, addresses_are_sent: bool) -> bool {
        if self.released.is_empty() {
            addresses_are_sent && !self.waiting.is_empty() && self.addresses.are_all_answered()
        } else {
            self.addresses.last_answered >= self.after
        }
    }

    /// Notes that no address waits to be sent: removals that wait now need the answers to what was sent so far, and not to
    /// what will be. Otherwise a mesh that changes all the time would keep them back for ever.
    pub(crate) fn addresses_are_sent(&mut self) {
        // One group at a time: what is added later waits for answers of its own.
        if self.released.is_empty() {
            self.released = std::mem::take(&mut self.waiting);
            self.after = self.addresses.last_sent;
        }
    }

    /// Takes out one name to send; only when [`is_ready`](Self::is_ready).
    pub(crate) fn take_name(&mut self) -> Option<Arc<str>> {
        self.released.pop_first()
    }
}
