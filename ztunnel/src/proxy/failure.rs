//! Failures of a connection, for its report.

use super::authorise::Denied;
use super::capture::CaptureError;
use super::dial::DialError;
use super::relay::RelayError;
use super::resolve::ResolveError;
use hbone::TunnelError;
use http::StatusCode;
use model::view::InboundError;
use policy::Revoked;
use proxy_core::budget::Resource;
use std::net::SocketAddr;

/// Failure of a connection. Users and tools know the texts.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Inbound(#[from] InboundError),
    /// A request with another method than CONNECT, or with an invalid authority.
    #[error("{0}")]
    Request(RequestError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Revoked(#[from] Revoked),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A tunnel that we accepted.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The pod, or one of its clients, has used up its budget.
    #[error("the budget of {} is used up", .0.as_str())]
    Budget(Resource),
    /// The pod is gone, or the process had to end.
    #[error("connection closed due to connection drain")]
    Cut,
}

/// A failure before there was a report, with the destination as far as it was known by then.
#[derive(Debug)]
pub struct EarlyFailure {
    /// Address that the client connected to; none when the socket failed before it was known.
    pub original_dst: Option<SocketAddr>,
    pub failure: Failure,
}

impl EarlyFailure {
    /// A failure of a connection to `original_dst`.
    pub fn to(original_dst: SocketAddr, failure: impl Into<Failure>) -> Self {
        Self { original_dst: Some(original_dst), failure: failure.into() }
    }
}

impl From<CaptureError> for EarlyFailure {
    fn from(error: CaptureError) -> Self {
        let original_dst = match &error {
            CaptureError::SelfCall { original_dst } => Some(*original_dst),
            CaptureError::UnknownWorkload { .. } | CaptureError::Socket(_) => None,
        };
        Self { original_dst, failure: error.into() }
    }
}

/// Fault of a request on a tunnel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    #[error("expected method CONNECT, got {0}")]
    Method(http::Method),
    #[error("invalid CONNECT address {0}")]
    Authority(String),
}

impl Failure {
    /// `response_flags` of the metrics.
    pub const fn flags(&self) -> ResponseFlags {
        match self {
            Self::Denied(_) | Self::Revoked(_) => ResponseFlags::Denied,
            Self::Dial(e) => match e {
                // Istio's value for a tunnel whose SYN nobody answers: a NetworkPolicy that hides port 15008 is the
                // usual reason.
                DialError::TunnelTimeout(_) => ResponseFlags::NetworkPolicy,
                DialError::Certificate(_) | DialError::CertificateTimeout(_) => ResponseFlags::Identity,
                DialError::Tls(_) | DialError::HandshakeTimeout(_) => ResponseFlags::Tls,
                DialError::Outbound(_)
                | DialError::Inbound(_)
                | DialError::Connect(_)
                | DialError::AnswerTimeout { .. }
                | DialError::SelfCall(_)
                | DialError::ClientGone => ResponseFlags::Connect,
            },
            Self::Tunnel(TunnelError::Handshake(_)) => ResponseFlags::Http2Handshake,
            Self::Capture(_)
            | Self::Resolve(_)
            | Self::Inbound(_)
            | Self::Request(_)
            | Self::Relay(_)
            | Self::Tunnel(TunnelError::Protocol(_) | TunnelError::PingTimeout(_))
            | Self::Budget(_)
            | Self::Cut => ResponseFlags::Connect,
        }
    }

    /// Status of the answer to a client of an accepted tunnel.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Denied(_) | Self::Revoked(_) => StatusCode::UNAUTHORIZED,
            Self::Inbound(e) => StatusCode::from_u16(e.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::Capture(_)
            | Self::Resolve(_)
            | Self::Dial(_)
            | Self::Relay(_)
            | Self::Tunnel(_)
            | Self::Budget(_)
            | Self::Cut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Capture(e) => e.code(),
            Self::Resolve(e) => e.code(),
            Self::Inbound(e) => e.code(),
            Self::Request(RequestError::Method(_)) => "method",
            Self::Request(RequestError::Authority(_)) => "authority",
            Self::Denied(e) => e.reason.code(),
            Self::Revoked(_) => "policy_change",
            Self::Dial(e) => e.code(),
            Self::Relay(RelayError::Send(_)) => "send",
            Self::Relay(RelayError::Receive(_)) => "receive",
            Self::Tunnel(e) => e.code(),
            Self::Budget(_) => "budget",
            Self::Cut => "drain",
        }
    }
}

/// Failure as a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFlags {
    Denied,
    Connect,
    Tls,
    Http2Handshake,
    NetworkPolicy,
    Identity,
}

impl ResponseFlags {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "DENY",
            Self::Connect => "CONNECT",
            Self::Tls => "TLS_FAILURE",
            Self::Http2Handshake => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::Identity => "IDENTITY_ERROR",
        }
    }
}
