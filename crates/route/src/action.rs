//! Rules: what happens to a request whose route was found. All of it is data; the modules of the parts say what they mean.

use std::time::Duration;

use serde::Serialize;

use crate::Destination;
use crate::answer::LocalAnswer;
use crate::cors::Cors;
use crate::destination::Weighted;
use crate::fault::Fault;
use crate::headers::HeaderChanges;
use crate::percent::Percent;
use crate::redirect::Redirect;
use crate::retry::RetryPolicy;
use crate::rewrite::PathRewrite;
use crate::table::Origin;

/// Rule of a user's object, shared by the routes of its matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub origin: Origin,
    /// Name for logs and metrics; empty when the user gave none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Applied before anything is sent to a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    pub action: Action,
    /// Changes of the route, behind those of the chosen destination.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes of answers, of the destination's and of the proxy's own.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(LocalAnswer),
}

impl Default for Action {
    /// Nobody to forward to.
    fn default() -> Self {
        Self::Forward(Forward::default())
    }
}

/// Way of a request to one of several destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    /// See [`crate::choose`].
    pub destinations: Vec<Weighted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Authority that destinations see, unless the chosen one has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Time for the whole request with its retries, from its last byte to the last byte of the answer. `None`: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// `None`: a failed request is not sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
}

impl Forward {
    /// Time that a request may take. A gRPC client may ask for less than the route allows, not for more.
    pub fn timeout_for(&self, grpc_timeout: Option<Duration>) -> Option<Duration> {
        match (self.timeout, grpc_timeout) {
            (Some(route), Some(client)) => Some(route.min(client)),
            (route, client) => route.or(client),
        }
    }
}

/// Copy of a request for another destination, whose answer nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    pub destination: Destination,
    pub share: Percent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_may_shorten_the_time_of_its_request() {
        let second = Duration::from_secs;
        let of_route = |timeout| Forward { timeout, ..Forward::default() };
        for (route, client, expected) in [
            (None, None, None),
            (Some(second(3)), None, Some(second(3))),
            (Some(second(3)), Some(second(1)), Some(second(1))),
            (Some(second(3)), Some(second(9)), Some(second(3))),
            (None, Some(second(9)), Some(second(9))),
        ] {
            assert_eq!(of_route(route).timeout_for(client), expected, "{route:?} {client:?}");
        }
    }
}
