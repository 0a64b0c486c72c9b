//! Failures of tries, in the words that Envoy has for them. What is retried is for `route::retry` to say.

use std::error::Error;

use h2::Reason;
use route::retry::TryEnd;

use crate::report::Flag;
use crate::upstream::DialError;

/// A try that brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection to the endpoint.
    Connect(DialError),
    /// The connection or stream ended.
    Reset(Reset),
    /// The time for one try is over.
    TryTimeout,
}

/// End of a connection or stream before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// The endpoint closed or reset the connection, or it was lost.
    Termination,
    /// RST_STREAM.
    Remote,
    /// RST_STREAM with REFUSED_STREAM: nothing was done.
    Refused,
    /// Something that is not HTTP.
    Protocol,
    /// This side broke off: the client's request was incomplete.
    Local,
}

impl Reset {
    /// Reads an error of a connection.
    pub(super) fn of(error: &hyper::Error) -> Self {
        if let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
            return match error.reason() {
                Some(Reason::REFUSED_STREAM) if error.is_reset() => Self::Refused,
                _ if error.is_reset() && error.is_remote() => Self::Remote,
                _ if error.is_go_away() && error.is_remote() => Self::Termination,
                _ if error.is_io() => Self::Termination,
                Some(_) => Self::Protocol,
                None => Self::Termination,
            };
        }
        if error.is_parse() {
            Self::Protocol
        } else if error.is_user() {
            Self::Local
        } else {
            Self::Termination
        }
    }

    /// Envoy's text.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Termination => "connection termination",
            Self::Remote => "remote reset",
            Self::Refused => "remote refused stream reset",
            Self::Protocol => "protocol error",
            Self::Local => "local reset",
        }
    }

    const fn flag(self) -> Flag {
        match self {
            Self::Termination => Flag::UpstreamTermination,
            Self::Remote | Self::Refused => Flag::UpstreamReset,
            Self::Protocol => Flag::UpstreamProtocol,
            Self::Local => Flag::LocalReset,
        }
    }

    /// Flag behind the head of an answer.
    pub(super) const fn flag_after_head(self) -> Flag {
        match self {
            Self::Termination | Self::Protocol => Flag::UpstreamProtocol,
            Self::Remote | Self::Refused | Self::Local => self.flag(),
        }
    }

    /// Detail behind the head of an answer.
    pub(super) fn detail_after_head(self) -> String {
        match self {
            Self::Termination | Self::Protocol => "protocol_error".to_owned(),
            Self::Remote | Self::Refused | Self::Local => self.text().replace(' ', "_"),
        }
    }
}

impl Failure {
    /// The failure as the retry policy sees it.
    pub(super) const fn end(&self) -> TryEnd<'static> {
        match self {
            Self::Connect(_) => TryEnd::ConnectFailure,
            Self::Reset(Reset::Refused) => TryEnd::RefusedStream,
            Self::Reset(_) => TryEnd::Reset { sent: true },
            Self::TryTimeout => TryEnd::TryTimeout,
        }
    }

    /// Status of the answer to the client.
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::TryTimeout => 504,
            Self::Reset(Reset::Protocol) => 502,
            Self::Connect(_) | Self::Reset(_) => 503,
        }
    }

    /// Response flag.
    pub(super) const fn flag(&self) -> Flag {
        match self {
            Self::Connect(_) => Flag::UpstreamFailure,
            Self::Reset(reset) => reset.flag(),
            Self::TryTimeout => Flag::UpstreamTimeout,
        }
    }

    /// Text of the answer to the client, after how many retries.
    pub(super) fn body(&self, retries: u32) -> String {
        let reason = match self {
            Self::Connect(_) => "remote connection failure",
            Self::Reset(reset) => reset.text(),
            Self::TryTimeout => return "upstream request timeout".to_owned(),
        };
        let retried = if retries > 0 { "retried and the latest " } else { "" };
        format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}")
    }

    /// Cause of a connect failure, for the access log; empty for others.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Connect(error) => error.to_string(),
            Self::Reset(_) | Self::TryTimeout => String::new(),
        }
    }

    /// Detail for the access log. Of a connect failure it names the cause.
    pub(super) fn details(&self) -> String {
        match self {
            Self::Connect(error) => {
                let cause = error.to_string().replace(' ', "_");
                format!("upstream_reset_before_response_started{{remote_connection_failure|{cause}}}")
            }
            Self::Reset(reset) => {
                format!("upstream_reset_before_response_started{{{}}}", reset.text().replace(' ', "_"))
            }
            Self::TryTimeout => "upstream_per_try_timeout".to_owned(),
        }
    }
}
