//! Keeps a connection to the control plane: connects, waits, connects again. What is said on it: see `session`.

use std::collections::BTreeSet;

use runtime::drain;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::config::Config;
use crate::demand::{Demand, Demander, QUEUE};
use crate::dial;
use crate::handler::Handler;
use crate::metrics;
use crate::progress::Standing;
use crate::questions::Names;
use crate::retry::{End, Pause};
use crate::session::Session;
use crate::watched::Watched;

/// Requests that the transport has not taken yet.
const REQUESTS_IN_FLIGHT: usize = 16;

/// Demands that are taken out of their queue together.
const DEMANDS_TOGETHER: usize = 256;

/// Which resources of a type are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of them.
    All,
    /// Those that a [`Demander`] has asked for.
    Demanded,
}

/// State of the stream to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There has been no stream since this moment.
    Down { since: Instant },
    /// The stream of this number, from 1.
    Up { stream: u64, names: Names },
}

/// The delta client. Made once; state survives any number of connections.
pub struct Client {
    config: Config,
    types: Vec<Watched>,
    demands: mpsc::Receiver<Demand>,
    demander: Demander,
    synced: watch::Sender<bool>,
    link: watch::Sender<Link>,
    /// Streams so far.
    streams: u64,
    /// Types of which not everything has arrived yet.
    waiting_for: BTreeSet<String>,
}

impl Client {
    /// A client without types; see [`Client::with`].
    pub fn new(config: Config) -> Self {
        let (sender, demands) = mpsc::channel(QUEUE);
        let (synced, _) = watch::channel(false);
        let (link, _) = watch::channel(Link::Down { since: Instant::now() });
        let (types, waiting_for) = (Vec::new(), BTreeSet::new());
        Self { config, types, demands, demander: Demander(sender), synced, link, streams: 0, waiting_for }
    }

    /// Adds a type. They are asked for in the order of these calls: policies should come before addresses.
    #[must_use]
    pub fn with<T: prost::Message + Default + 'static>(
        mut self,
        type_url: &str,
        interest: Interest,
        handler: impl Handler<T>,
    ) -> Self {
        let watched = Watched::new::<T>(type_url, interest, handler);
        if watched.is_wildcard() {
            self.waiting_for.insert(type_url.to_owned());
        }
        self.types.push(watched);
        self
    }

    /// True once all resources of every type with [`Interest::All`] have arrived, without a refusal. A snapshot that comes in
    /// parts counts with its last part. Stays true when the connection is lost.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// State of the stream, now and from now on.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Asks for single resources.
    pub fn demander(&self) -> Demander {
        self.demander.clone()
    }

    /// Runs until the drain begins.
    pub async fn run(mut self, mut drain: drain::Watch) {
        self.config.token.warn_if_readable(&self.config.address, "discovery");
        let mut pause = Pause::new();
        loop {
            let end = tokio::select! {
                end = self.connection() => end,
                // Nothing is lost by dropping the connection: the process is about to end.
                _ = drain.started() => return,
            };
            self.link.send_if_modified(|link| {
                let was_up = matches!(link, Link::Up { .. });
                if was_up {
                    *link = Link::Down { since: Instant::now() };
                }
                was_up
            });
            metrics::terminated(end.reason());
            // A connection that was of use starts the pauses anew; see `retry`.
            let wait = pause.after(&end);
            match &end {
                End::NotConnected => tracing::warn!(?wait, "failed to connect to discovery; retrying"),
                End::Broken { status, .. } => {
                    tracing::info!(?wait, reason = end.reason(), %status, "discovery stream ended")
                }
                End::Closed { .. } => tracing::info!(?wait, "discovery stream complete"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = drain.started() => return,
            }
        }
    }

    /// One connection, from dialling to its end.
    async fn connection(&mut self) -> End {
        let mut service = match dial::connect(&self.config).await {
            Ok(service) => service,
            Err(end) => return end,
        };
        // Room for the first request of every type, which is sent before anybody reads.
        let (sender, receiver) = mpsc::channel(self.types.len() + REQUESTS_IN_FLIGHT);
        let mut session = Session::new(sender);
        session.greet(&self.config.node, &mut self.types);
        let request = match dial::request(&self.config, ReceiverStream::new(receiver)).await {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "failed to read the auth token");
                return End::NotConnected;
            }
        };
        // Some servers answer the call only with their first message, so there is no deadline here; PING finds dead ones.
        let mut inbound = match service.delta_aggregated_resources(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::warn!(%status, "discovery request refused");
                return End::NotConnected;
            }
        };
        tracing::info!(address = %self.config.address, "discovery stream established");
        self.streams += 1;
        let mut demands = Vec::new();
        loop {
            let link = Link::Up { stream: self.streams, names: session.names() };
            self.link.send_if_modified(|last| std::mem::replace(last, link) != link);
            // Every arm may be dropped: messages stay in the stream, demands in their queue, requests in the session.
            let status = tokio::select! {
                message = inbound.message(), if session.has_room() => match message {
                    Ok(Some(response)) => match session.respond(&mut self.types, response) {
                        Ok(answered) => {
                            if let Some((type_url, standing)) = answered {
                                self.answered(&type_url, standing);
                            }
                            continue;
                        }
                        Err(missing) => {
                            tracing::error!(%missing, code = "snapshot_part_missing", "incomplete snapshot; closing the discovery stream");
                            Some(Status::data_loss(missing.to_string()))
                        }
                    },
                    Ok(None) => None,
                    Err(status) => Some(status),
                },
                _ = self.demands.recv_many(&mut demands, DEMANDS_TOGETHER), if session.has_room() => {
                    session.demand(&mut self.types, demands.drain(..));
                    continue;
                }
                open = session.flush(), if session.has_requests() => {
                    if open { continue }
                    Some(Status::unknown("the request stream is closed"))
                }
            };
            let useful = session.is_useful();
            return match status {
                Some(status) => End::Broken { status, useful },
                None => End::Closed { useful },
            };
        }
    }

    /// A refusal does not count, though the rest of its response was applied: a proxy that cannot read its resources must
    /// not look fit for traffic, and a roll-out of it must stop. It says so, and what it waits for.
    fn answered(&mut self, type_url: &str, standing: Standing) {
        if !self.waiting_for.contains(type_url) {
            return;
        }
        match standing {
            Standing::Partial => tracing::debug!(type_url, "a part of the snapshot has arrived"),
            Standing::Refused => {
                tracing::warn!(
                    type_url,
                    "discovery is not in sync until a response of this type is accepted as a whole"
                );
            }
            Standing::Complete => {
                self.waiting_for.remove(type_url);
                if self.waiting_for.is_empty() {
                    self.synced.send_replace(true);
                }
            }
        }
    }
}
