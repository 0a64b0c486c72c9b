//! Open connections of a server: bounded, so that a client that opens many, or reads nothing, cannot take the program's
//! descriptors, and shares of it are the client's own: when all places are taken, the address with most of them loses its oldest.

use std::{collections::HashMap, future::Future, net::IpAddr};

use metrics::counter;
use tokio::task::{AbortHandle, Id, JoinSet};
use tracing::warn;

/// Open connections of one server. The kubelet, a Prometheus and a few tools have one or two each.
pub(super) const PLACES: usize = 64;

/// Connections that were closed for others.
const CLOSED: &str = "strake_http_connections_closed_total";

/// Tasks that serve connections. Dropping it closes all of them.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    places: HashMap<Id, Place>,
    /// Number of connections so far, by which the oldest is known.
    taken: u64,
}

struct Place {
    /// None: a local client, by a unix socket.
    client: Option<IpAddr>,
    number: u64,
    task: AbortHandle,
}

impl Connections {
    /// Serves a connection of `client`. If all places are taken, another one is closed for it.
    pub(super) fn serve(&mut self, client: Option<IpAddr>, serving: impl Future<Output = ()> + Send + 'static) {
        if self.places.len() >= PLACES {
            self.close_one();
        }
        self.taken += 1;
        let task = self.tasks.spawn(serving);
        self.places.insert(task.id(), Place { client, number: self.taken, task });
    }

    /// Returns when one has ended; `None` at once when there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let ended = self.tasks.join_next_with_id().await?;
        self.places.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
        Some(())
    }

    /// Closes the oldest connection of the client that has most.
    fn close_one(&mut self) {
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        self.places.values().for_each(|place| *counts.entry(place.client).or_default() += 1);
        let of = |place: &Place| counts.get(&place.client).copied().unwrap_or_default();
        // Most connections first, then age.
        let loser = self.places.iter().max_by_key(|(_, place)| (of(place), std::cmp::Reverse(place.number)));
        let Some((id, place)) = loser.map(|(id, place)| (*id, place)) else { return };
        warn!(
            client = place.client.map(tracing::field::display),
            connections = of(place),
            "closed a connection to an HTTP page: too many are open, and this client has most of them"
        );
        counter!(CLOSED).increment(1);
        place.task.abort();
        // Its descriptor is closed as soon as its task is dropped, which the runtime does next.
        self.places.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::Ipv4Addr};

    use super::*;

    fn client(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(10, 0, 0, last).into())
    }

    fn clients(connections: &Connections) -> Vec<u64> {
        let mut numbers: Vec<_> = connections.places.values().map(|place| place.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[tokio::test]
    async fn the_client_with_most_connections_makes_place_with_its_oldest() {
        let mut connections = Connections::default();
        connections.serve(client(1), pending());
        connections.serve(None, pending());
        (2..PLACES as u64).for_each(|_| connections.serve(client(9), pending()));
        assert_eq!(connections.places.len(), PLACES);

        connections.serve(client(2), pending());
        connections.serve(client(9), pending());

        assert_eq!(connections.places.len(), PLACES);
        assert_eq!(clients(&connections)[..3], [1, 2, 5], "3 and 4 were the oldest of the one with most");
        connections.ended().await.unwrap();
        connections.ended().await.unwrap();
        assert_eq!(connections.tasks.len(), PLACES, "the closed ones were dropped");
    }

    #[tokio::test]
    async fn a_connection_that_ends_gives_its_place_back() {
        let mut connections = Connections::default();
        assert_eq!(connections.ended().await, None);
        connections.serve(client(1), async {});
        connections.serve(client(1), async { panic!("told to") });
        connections.ended().await.unwrap();
        connections.ended().await.unwrap();
        assert!(connections.places.is_empty());
    }
}
