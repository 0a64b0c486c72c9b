//! Makes the connection and the headers of the call. Nothing is said here yet.

use std::time::Duration;

use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tls::control_plane::Connector;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::config::Config;
use crate::retry::End;
use proto::MAX_MESSAGE_BYTES;

/// HTTP/2 PING: how often, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("failed to read: {0}")]
    Unreadable(std::io::Error),
    #[error("contains characters that are invalid in a header")]
    NotAHeader,
}

pub(crate) async fn connect(config: &Config) -> Result<AggregatedDiscoveryServiceClient<Channel>, End> {
    let connector = Connector::new(config.roots.clone(), config.alternative_host.clone());
    let endpoint = Endpoint::from(config.address.clone())
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)),
        Err(error) => {
            tracing::warn!(address = %config.address, error = tls::causes(&error), "failed to connect to discovery");
            Err(End::NotConnected)
        }
    }
}

pub(crate) async fn request<S>(config: &Config, stream: S) -> Result<Request<S>, TokenError> {
    let mut request = Request::new(stream);
    let mut headers = http::HeaderMap::new();
    for (name, value) in &config.headers {
        headers.append(name, value.clone());
    }
    if let Some(bearer) = config.token.bearer().await.map_err(TokenError::Unreadable)? {
        let value = http::HeaderValue::from_str(&bearer).map_err(|_| TokenError::NotAHeader)?;
        headers.insert(http::header::AUTHORIZATION, value);
    }
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    Ok(request)
}
