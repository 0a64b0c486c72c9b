//! Follows one other replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Uri;
use proto::replica::acknowledgement_service_client::AcknowledgementServiceClient;
use proto::replica::{FollowRequest, FollowResponse};
use runtime::Backoff;
use tls::control_plane::{Connector, RootSource};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};

use super::wire::{WireError, from_message};
use super::{Replicas, SILENCE};
use crate::acks::{Acks, Origin};

/// Pauses between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Time for a connection and the beginning of its stream.
const CONNECT: Duration = Duration::from_secs(10);

/// Reason why nothing is known of a replica's proxies.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("invalid address: {0}")]
    Address(#[from] http::Error),
    #[error("failed to read the token of this pod: {0}")]
    Token(std::io::Error),
    #[error("the token of this pod has characters that are invalid in a header")]
    NotAHeader,
    #[error("no connection within {CONNECT:?}")]
    Timeout,
    #[error("failed to connect: {}", tls::causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(#[from] Status),
    #[error("no message within {SILENCE:?}")]
    Silent,
    #[error("the replica ended the stream")]
    Ended,
    #[error(transparent)]
    Message(#[from] WireError),
}

/// Knowledge about a replica; forgotten when this is dropped.
pub(super) struct Known {
    acks: Acks,
    origin: Origin,
}

impl Known {
    pub(super) fn new(acks: &Acks, replica: &Arc<str>) -> Self {
        metrics::gauge!("strake_control_replicas_followed").increment(1.0);
        Self { acks: acks.clone(), origin: Origin::Replica(Arc::clone(replica)) }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        metrics::gauge!("strake_control_replicas_followed").decrement(1.0);
        self.acks.forget_replica(&self.origin);
    }
}

/// Follows a replica for ever; when it is dropped, nothing is known of the replica.
pub(super) async fn run(replicas: Replicas, name: Arc<str>, address: SocketAddr, acks: Acks) {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut is_told = false;
    loop {
        let error = match connect(&replicas, address).await {
            Ok(stream) => {
                tracing::info!(replica = %name, %address, "following the acknowledgements of another replica");
                let (known, began) = (Known::new(&acks, &name), Instant::now());
                let error = receive(stream, &known).await;
                // One that breaks off at once, for instance because it is of another version, is not asked at full speed.
                if began.elapsed() >= SILENCE {
                    backoff.reset();
                    is_told = false;
                }
                error
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                replica = %name, %address, %error, code = "replica_not_followed",
                "acknowledgements of proxies that are connected to another replica are unknown; trying again",
            );
        }
        sleep(backoff.pause()).await;
    }
}

pub(super) async fn connect(
    replicas: &Replicas,
    address: SocketAddr,
) -> Result<Streaming<FollowResponse>, FollowError> {
    let uri = Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/").build()?;
    // The roots as they are now: another connection is made with others after a rotation.
    let roots = RootSource::Inline(replicas.issuer.get().roots_pem().to_owned());
    let connector = Connector::new(roots, Some(replicas.host.clone()));
    let mut request = Request::new(FollowRequest { replica: replicas.name.clone() });
    if let Some(bearer) = replicas.token.bearer().await.map_err(FollowError::Token)? {
        let value = bearer.parse().map_err(|_| FollowError::NotAHeader)?;
        request.metadata_mut().insert("authorization", value);
    }
    let begin = async {
        let channel = Endpoint::from(uri).connect_with_connector(connector).await?;
        Ok(AcknowledgementServiceClient::new(channel).follow(request).await?.into_inner())
    };
    timeout(CONNECT, begin).await.map_err(|_| FollowError::Timeout)?
}

/// Receives until the end, and returns its reason.
pub(super) async fn receive(
    mut stream: impl Stream<Item = Result<FollowResponse, Status>> + Unpin,
    known: &Known,
) -> FollowError {
    loop {
        let response = match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(status))) => return status.into(),
            Ok(None) => return FollowError::Ended,
            Err(_) => return FollowError::Silent,
        };
        // All or nothing: part of a message may say that something is held which the rest takes back.
        match response.events.into_iter().map(from_message).collect::<Result<Vec<_>, _>>() {
            Ok(events) => known.acks.on_events(&known.origin, &events),
            Err(error) => return error.into(),
        }
    }
}
