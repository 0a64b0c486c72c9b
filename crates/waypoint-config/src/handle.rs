//! The configuration in force, shared by all workers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::Config;

/// Configuration that one [`Applier`](crate::Applier) replaces and many requests read. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<ArcSwap<Config>>);

impl Handle {
    /// Makes a handle of a configuration.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The configuration in force. Whoever needs it more than once keeps it, so as not to mix two versions.
    pub fn load(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts another configuration in force.
    pub fn store(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}
