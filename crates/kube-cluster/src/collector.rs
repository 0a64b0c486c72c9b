//! Puts the changes of all readers into one stream: everything that exists, in the order of keys, then `InSync`, then changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use kube_types::{ClusterId, Event, ObjectRef, Resource, SourceProblem};
use tokio::sync::mpsc;

use crate::changes::Changes;
use crate::reader::Batch;

/// The consumer has dropped the source.
struct Closed;

pub(crate) struct Collector {
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    /// Readers whose first list is not complete.
    waiting: BTreeSet<usize>,
    /// Objects of the others, until all are complete. Moved out then, so nothing is there twice.
    held: BTreeMap<ObjectRef, Resource>,
    /// Places with problems that were reported.
    reported: HashSet<PathBuf>,
}

impl Collector {
    pub(crate) fn new(cluster: ClusterId, events: mpsc::Sender<Event>, readers: usize) -> Self {
        let waiting = (0..readers).collect();
        Self { cluster, events, waiting, held: BTreeMap::new(), reported: HashSet::new() }
    }

    /// Runs until the readers or the consumer have ended.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        // Without kinds there is nothing to wait for.
        let mut outcome = if self.waiting.is_empty() { self.in_sync().await } else { Ok(()) };
        while outcome.is_ok() {
            // There are no readers, or the source was dropped.
            let Some((reader, changes)) = batches.recv().await else { return };
            outcome = self.on_changes(reader, changes).await;
        }
    }

    async fn on_changes(&mut self, reader: usize, mut changes: Changes) -> Result<(), Closed> {
        let problems = changes.take_problems();
        let completes = changes.is_first_list && self.waiting.remove(&reader);
        if self.waiting.is_empty() && !completes {
            for event in changes.into_events(&self.cluster) {
                self.send(event).await?;
            }
            return self.report(problems).await;
        }
        // Held until all kinds are there: a consumer that saw pods before policies would have to know that more is
        // coming.
        changes.hold(&mut self.held);
        if self.waiting.is_empty() {
            self.deliver_held().await?;
        }
        // Not held back: they say why it takes so long.
        self.report(problems).await?;
        if self.waiting.is_empty() { self.in_sync().await } else { Ok(()) }
    }

    async fn deliver_held(&mut self) -> Result<(), Closed> {
        for resource in std::mem::take(&mut self.held).into_values() {
            let cluster = self.cluster.clone();
            self.send(Event::Applied { cluster, resource }).await?;
        }
        Ok(())
    }

    async fn in_sync(&self) -> Result<(), Closed> {
        self.send(Event::InSync { cluster: self.cluster.clone() }).await
    }

    async fn report(&mut self, problems: BTreeMap<PathBuf, Vec<SourceProblem>>) -> Result<(), Closed> {
        for (place, problems) in problems {
            // Problems of a place are replaced as a whole: "solved" first, so that none of the old ones stays.
            if self.reported.remove(&place) {
                self.send(Event::Solved { file: place.clone() }).await?;
            }
            if !problems.is_empty() {
                self.reported.insert(place);
            }
            for problem in problems {
                self.send(Event::Problem(problem)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
}
