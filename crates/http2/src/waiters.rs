//! Tasks that wait until they may open a stream.

use std::task::{Context, Waker};

/// Wakers of the tasks, each once.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Waker>);

impl Waiters {
    /// Registers `cx` to be woken.
    pub(crate) fn watch(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    /// Wakes all tasks. Those that still find no room register again.
    pub(crate) fn wake_all(&mut self) {
        for waker in std::mem::take(&mut self.0) {
            waker.wake();
        }
    }

    /// Room in the list, bytes.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Waker>()
    }
}
