//! Counts of the connections of a worker that are open, so that the metrics hear of them while they last.

use super::relay::Counts;
use std::cell::RefCell;
use std::rc::Rc;

/// Open connections of one worker.
#[derive(Debug, Default)]
pub struct Live(RefCell<Places>);

#[derive(Debug, Default)]
struct Places {
    counts: Vec<Option<Rc<Counts>>>,
    free: Vec<usize>,
}

impl Live {
    /// Keeps `counts` until [`leave`](Self::leave) with the returned place.
    pub fn enter(&self, counts: Rc<Counts>) -> usize {
        let mut places = self.0.borrow_mut();
        match places.free.pop() {
            Some(place) => {
                places.counts[place] = Some(counts);
                place
            }
            None => {
                places.counts.push(Some(counts));
                places.counts.len() - 1
            }
        }
    }

    /// The connection at `place` has ended.
    pub fn leave(&self, place: usize) {
        let mut places = self.0.borrow_mut();
        if places.counts.get_mut(place).and_then(Option::take).is_some() {
            places.free.push(place);
        }
    }

    /// Tells the metrics what they have not heard yet.
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
    use telemetry::metrics::{PeerLabels, Reporter, TrafficHandles, TrafficLabels};

    #[test]
    fn an_open_connection_is_flushed_and_its_place_used_again() {
        let labels = TrafficLabels {
            reporter: Reporter::Source,
            source: PeerLabels::default(),
            destination_service: "".into(),
            destination_service_namespace: "".into(),
            destination_service_name: "".into(),
            destination: PeerLabels::default(),
            mutual_tls: false,
        };
        let counts = Rc::new(Counts::new(u64::MAX, Arc::new(TrafficHandles::new(labels))));
        let live = Live::default();
        let place = live.enter(counts.clone());
        counts.add(super::super::relay::Way::ToServer, 7);
        assert_eq!(counts.unflushed(), 7);

        live.flush();

        assert_eq!(counts.unflushed(), 0);
        live.leave(place);
        live.leave(place);
        assert_eq!((live.enter(counts.clone()), live.enter(counts)), (place, place + 1));
    }
}
