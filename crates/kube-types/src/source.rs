//! The stream in which resources and their changes arrive. What follows a source is the same for a directory and a cluster.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::event::Event;

/// A stream of [`Event`]s: all that exists, then `InSync`, then changes. Within one batch what was removed comes first,
/// then what applies in the order of keys, then problems.
pub struct Source {
    events: mpsc::Receiver<Event>,
    health: Health,
    /// Ends what sends the events when it is dropped.
    _reader: Box<dyn Any + Send + Sync>,
}

impl Source {
    /// The source of these events. `reader` is dropped with it, and must end then what sends them.
    pub fn new(events: mpsc::Receiver<Event>, health: Health, reader: impl Any + Send + Sync) -> Self {
        Self { events, health, _reader: Box::new(reader) }
    }

    /// The next event; `None` when the reader has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// State of the reader, for readiness.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Events are left out: they hold whole objects, Secrets among them.
        f.debug_struct("Source").field("waiting", &self.events.len()).finish_non_exhaustive()
    }
}

/// State of what reads a source. Clones share it.
#[derive(Clone)]
pub struct Health(Arc<dyn Fn() -> bool + Send + Sync>);

impl Health {
    /// The state that `is_well` returns whenever it is asked; it must not block.
    pub fn new(is_well: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_well))
    }

    /// Returns true if the reader works and everything that it reads answers.
    pub fn is_well(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.is_well()).finish()
    }
}
