//! Permits that many share fairly, on one thread. It does not know what they are for.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    hash::Hash,
    rc::Rc,
    task::{Poll, Waker},
};

/// A number of permits, of which each account may hold a share.
///
/// Who asks waits in the queue of its own account, and accounts take turns: an account that has asked a thousand times
/// delays another one by one permit. A clone shares the permits.
pub struct Budget<K>(Rc<Inner<K>>);

struct Inner<K> {
    limit: usize,
    share: usize,
    state: RefCell<State<K>>,
}

struct State<K> {
    used: usize,
    accounts: HashMap<K, Account>,
    /// Accounts that wait and hold less than their share, in the order of their turns.
    turns: VecDeque<K>,
}

#[derive(Default)]
struct Account {
    held: usize,
    waiting: VecDeque<Rc<Waiter>>,
    /// True while it is in `turns`.
    has_turn: bool,
}

#[derive(Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// One permit of `K`'s, given back when dropped.
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit<K: Hash + Eq + Clone> {
    budget: Budget<K>,
    key: K,
}

impl<K> Clone for Budget<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Hash + Eq + Clone> Budget<K> {
    /// `limit` permits together, at most `share` for one account.
    #[must_use]
    pub fn new(limit: usize, share: usize) -> Self {
        let state = State { used: 0, accounts: HashMap::new(), turns: VecDeque::new() };
        Self(Rc::new(Inner { limit, share, state: RefCell::new(state) }))
    }

    /// A permit if there is one for `key` now and nobody waits for it.
    pub fn try_acquire(&self, key: &K) -> Option<Permit<K>> {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        // Nobody overtakes those who have a turn.
        let free = state.used < self.0.limit && state.turns.is_empty();
        let account = state.accounts.get(key);
        let fits = account.is_none_or(|a| a.held < self.0.share && a.waiting.is_empty());
        (free && fits).then(|| {
            state.accounts.entry(key.clone()).or_default().held += 1;
            state.used += 1;
            Permit { budget: self.clone(), key: key.clone() }
        })
    }

    /// A permit for `key`, once it is its turn. Dropping the future gives up the place in the queue.
    pub async fn acquire(&self, key: K) -> Permit<K> {
        if let Some(permit) = self.try_acquire(&key) {
            return permit;
        }
        let waiter = Rc::new(Waiter::default());
        // Made before the wait begins, so that dropping the future at any point gives the place up.
        let place = Place { budget: self, key: &key, waiter: &waiter };
        self.0.state.borrow_mut().wait(&key, waiter.clone(), &self.0);
        poll_fn(|cx| {
            if waiter.granted.get() {
                return Poll::Ready(());
            }
            waiter.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        // The permit has the place from here on.
        std::mem::forget(place);
        Permit { budget: self.clone(), key }
    }

    /// Permits that are held, by all accounts and by `key`.
    #[must_use]
    pub fn held(&self, key: &K) -> (usize, usize) {
        let state = self.0.state.borrow();
        (state.used, state.accounts.get(key).map_or(0, |a| a.held))
    }

    /// Gives back one of `key`'s permits.
    fn release(&self, key: &K) {
        let mut state = self.0.state.borrow_mut();
        state.used -= 1;
        if let Some(account) = state.accounts.get_mut(key) {
            account.held -= 1;
        }
        state.list(key, self.0.share);
        state.grant(self.0.limit, self.0.share);
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn wait(&mut self, key: &K, waiter: Rc<Waiter>, budget: &Inner<K>) {
        self.accounts.entry(key.clone()).or_default().waiting.push_back(waiter);
        self.list(key, budget.share);
        self.grant(budget.limit, budget.share);
    }

    /// Gives `key` a turn if it waits and may hold more; forgets an account that holds and wants nothing.
    fn list(&mut self, key: &K, share: usize) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        if account.held == 0 && account.waiting.is_empty() {
            self.accounts.remove(key);
        } else if !account.has_turn && !account.waiting.is_empty() && account.held < share {
            account.has_turn = true;
            self.turns.push_back(key.clone());
        }
    }

    /// Hands out what is free, one permit per turn.
    fn grant(&mut self, limit: usize, share: usize) {
        while self.used < limit {
            // One permit, then to the end of the line: an account with a thousand waiters delays another by one permit.
            let Some(key) = self.turns.pop_front() else { return };
            // Its last waiter has given up.
            let Some(account) = self.accounts.get_mut(&key) else { continue };
            account.has_turn = false;
            if account.held < share
                && let Some(next) = account.waiting.pop_front()
            {
                account.held += 1;
                self.used += 1;
                next.granted.set(true);
                if let Some(waker) = next.waker.take() {
                    waker.wake();
                }
            }
            self.list(&key, share);
        }
    }
}

/// A place in a queue, given up when dropped.
struct Place<'a, K: Hash + Eq + Clone> {
    budget: &'a Budget<K>,
    key: &'a K,
    waiter: &'a Rc<Waiter>,
}

impl<K: Hash + Eq + Clone> Drop for Place<'_, K> {
    fn drop(&mut self) {
        // Granted and dropped before it was polled: the permit goes back.
        if self.waiter.granted.get() {
            return self.budget.release(self.key);
        }
        let mut state = self.budget.0.state.borrow_mut();
        if let Some(account) = state.accounts.get_mut(self.key) {
            account.waiting.retain(|waiter| !Rc::ptr_eq(waiter, self.waiter));
        }
        state.list(self.key, self.budget.0.share);
        state.grant(self.budget.0.limit, self.budget.0.share);
    }
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        self.budget.release(&self.key);
    }
}

impl<K> fmt::Debug for Budget<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.state.borrow().used;
        f.debug_struct("Budget").field("used", &used).field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + fmt::Debug> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.key).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::Pin, task::Context};

    type Waiting = Pin<Box<dyn Future<Output = Permit<&'static str>>>>;

    fn ask(budget: &Budget<&'static str>, key: &'static str) -> Waiting {
        let budget = budget.clone();
        let mut asked: Waiting = Box::pin(async move { budget.acquire(key).await });
        assert!(poll(&mut asked).is_none(), "{key} does not wait");
        asked
    }

    fn poll(waiting: &mut Waiting) -> Option<Permit<&'static str>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_account_gets_no_more_than_its_share_and_others_get_the_rest() {
        let budget = Budget::new(4, 2);

        let held: Vec<_> = (0..5).map_while(|_| budget.try_acquire(&"flood")).collect();

        assert_eq!(held.len(), 2);
        assert!(budget.try_acquire(&"calm").is_some());
    }

    #[test]
    fn accounts_take_turns_however_many_wait_in_one() {
        let budget = Budget::new(1, 1);
        let first = budget.try_acquire(&"flood").unwrap();
        let mut flood: Vec<_> = (0..100).map(|_| ask(&budget, "flood")).collect();
        let mut calm = ask(&budget, "calm");

        drop(first);
        let mut given = Vec::new();
        while given.len() < 3 {
            let next = poll(&mut calm).or_else(|| poll(flood.first_mut()?)).expect("a permit is free");
            given.push(next.key);
            match next.key {
                "calm" => calm = ask(&budget, "calm"),
                _ => drop(flood.remove(0)),
            }
            drop(next);
        }

        assert_eq!(given, ["calm", "flood", "calm"], "one of each, not a hundred of one");
    }

    #[test]
    fn an_account_at_its_share_keeps_nobody_else_waiting() {
        let budget = Budget::new(3, 2);
        let held = [budget.try_acquire(&"flood").unwrap(), budget.try_acquire(&"flood").unwrap()];
        let mut flood = ask(&budget, "flood");

        let calm = budget.try_acquire(&"calm").unwrap();
        drop(held);

        assert!(poll(&mut flood).is_some());
        assert_eq!(budget.held(&"calm"), (1, 1));
        drop(calm);
        assert_eq!(budget.held(&"calm"), (0, 0));
    }

    #[test]
    fn a_queue_of_those_who_gave_up_keeps_nobody_waiting() {
        let budget = Budget::new(1, 1);
        let first = budget.try_acquire(&"a").unwrap();
        drop((ask(&budget, "a"), ask(&budget, "b")));

        drop(first);

        assert!(budget.try_acquire(&"c").is_some());
    }

    #[test]
    fn who_gives_up_waiting_leaves_its_place_and_what_it_was_granted() {
        let budget = Budget::new(1, 1);
        let first = budget.try_acquire(&"a").unwrap();
        let (gone, granted, mut last) = (ask(&budget, "a"), ask(&budget, "b"), ask(&budget, "c"));
        drop(gone);

        drop(first);
        // Was granted, and never looked.
        drop(granted);

        assert!(poll(&mut last).is_some());
        drop(last);
        assert_eq!(budget.held(&"c"), (0, 0));
        assert!(budget.0.state.borrow().accounts.is_empty(), "accounts without use are forgotten");
    }
}
