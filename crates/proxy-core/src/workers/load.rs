//! Number of connections of a worker, by which accepted connections are distributed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of connections that a worker carries. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LoadCounter(Arc<AtomicUsize>);

impl LoadCounter {
    /// Connections at present.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more until the result is dropped.
    pub fn add(&self) -> Load {
        self.0.fetch_add(1, Ordering::Relaxed);
        Load(self.0.clone())
    }
}

/// One connection of a worker, as long as it lives.
#[derive(Debug)]
pub struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
