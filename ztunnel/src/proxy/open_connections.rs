//! Byte counts of a worker's open connections, so that metrics include them while they last.

use super::relay::Counts;
use std::cell::RefCell;
use std::rc::Rc;

/// Open connections of one worker.
#[derive(Debug, Default)]
pub struct OpenConnections(RefCell<Slots>);

#[derive(Debug, Default)]
struct Slots {
    counts: Vec<Option<Rc<Counts>>>,
    free: Vec<usize>,
}

impl OpenConnections {
    /// Keeps `counts` until [`remove`](Self::remove) with the returned slot.
    pub fn insert(&self, counts: Rc<Counts>) -> usize {
        let mut slots = self.0.borrow_mut();
        // Slots are used again, so that the table has the size of the most connections at once and not of all that ever
        // were.
        match slots.free.pop() {
            Some(slot) => {
                slots.counts[slot] = Some(counts);
                slot
            }
            None => {
                slots.counts.push(Some(counts));
                slots.counts.len() - 1
            }
        }
    }

    /// Removes the counts of a connection that has ended.
    pub fn remove(&self, slot: usize) {
        let mut slots = self.0.borrow_mut();
        if slots.counts.get_mut(slot).and_then(Option::take).is_some() {
            slots.free.push(slot);
        }
    }

    /// Adds to the metrics what each connection has carried since the last time.
    pub fn flush(&self) {
        for counts in self.0.borrow().counts.iter().flatten() {
            counts.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use telemetry::Direction;
    use telemetry::metrics::{TrafficHandles, TrafficLabels};

    #[test]
    fn an_open_connection_is_flushed_and_its_slot_used_again() {
        let labels = TrafficLabels::unknown(Direction::Outbound);
        let counts = Rc::new(Counts::new(u64::MAX, Arc::new(TrafficHandles::new(labels))));
        let open = OpenConnections::default();
        let slot = open.insert(counts.clone());
        counts.to_server().add(7);
        assert_eq!(counts.unflushed(), 7);

        open.flush();

        assert_eq!(counts.unflushed(), 0);
        open.remove(slot);
        open.remove(slot);
        assert_eq!((open.insert(counts.clone()), open.insert(counts)), (slot, slot + 1));
    }
}
