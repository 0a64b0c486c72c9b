//! Tells another replica what happens to the proxies of this one.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use identity::Caller;
use proto::replica::acknowledgement_service_server::{AcknowledgementService, AcknowledgementServiceServer};
use proto::replica::{FollowRequest, FollowResponse};
use runtime::drain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status};

use super::wire::to_message;
use super::{HEARTBEAT, Replicas};
use crate::acks::{Acks, Event};
use crate::discovery::SPREAD;

/// Events of a message, at most. One may name all policies: a message of 100 stays below the 4 MiB that gRPC allows for
/// some 500 policies.
const EVENTS: usize = 100;

/// Time that events are gathered. Longer than the pipeline gathers changes (100 ms): the other replica should know a version
/// before it hears that a proxy was sent it, or the conditions would change twice.
const GATHER: Duration = Duration::from_millis(200);

/// The service, behind [`ca_server::authenticate()`].
pub(crate) fn service(
    replicas: Replicas,
    acks: Acks,
    drain: drain::Watch,
) -> AcknowledgementServiceServer<Acknowledgements> {
    AcknowledgementServiceServer::new(Acknowledgements { replicas, acks, drain })
}

/// See [`service`].
pub(crate) struct Acknowledgements {
    replicas: Replicas,
    acks: Acks,
    drain: drain::Watch,
}

#[tonic::async_trait]
impl AcknowledgementService for Acknowledgements {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        // Put there by the layer `authenticate`.
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::unauthenticated("request authenticate failure"))?;
        if !self.replicas.is_replica(caller) {
            tracing::warn!(identity = %caller.identity, "acknowledgements refused: the caller is not a replica");
            return Err(Status::permission_denied("expected the ServiceAccount of the control plane"));
        }
        let (history, events) = self.acks.follow();
        tracing::info!(replica = request.get_ref().replica, "another replica follows the acknowledgements of this one");
        let follower = Follower { waiting: history.into_iter(), events };
        let mut drain = self.drain.clone();
        // As long as streams of discovery may go on.
        let ended = Box::pin(async move {
            drain.started().await;
            sleep(SPREAD).await;
        });
        Ok(Response::new(Box::pin(stream::unfold(follower, Follower::next).take_until(ended))))
    }
}

/// A replica that follows this one.
struct Follower {
    /// Events to send before those of the queue.
    waiting: std::vec::IntoIter<Event>,
    events: mpsc::Receiver<Event>,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<FollowResponse, Status>, Self)> {
        if self.waiting.len() == 0 {
            // The queue was full: what comes next would lack something.
            self.waiting = self.gather().await?.into_iter();
        }
        let events = self.waiting.by_ref().take(EVENTS).map(to_message).collect();
        Some((Ok(FollowResponse { events }), self))
    }

    /// Events of a while, none after [`HEARTBEAT`]; `None` when some were lost. Not cancel-safe.
    async fn gather(&mut self) -> Option<Vec<Event>> {
        let silent = sleep(HEARTBEAT);
        let first = tokio::select! {
            event = self.events.recv() => event?,
            () = silent => return Some(Vec::new()),
        };
        let (mut events, until) = (vec![first], Instant::now() + GATHER);
        loop {
            tokio::select! {
                // The time first: events may come without end.
                biased;
                () = sleep_until(until) => return Some(events),
                event = self.events.recv() => events.push(event?),
            }
        }
    }
}
