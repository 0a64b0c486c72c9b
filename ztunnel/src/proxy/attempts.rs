//! Further attempts of a connection to a service: when an endpoint cannot be connected to, nothing of the application's bytes
//! has been sent, so another endpoint may be tried. Endpoints that keep failing are set aside for a while.

use super::{Failure, dial::DialError};
use http::StatusCode;
use model::Text;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};
use tokio::time;

/// Failures of an endpoint in a row, without a success, that set it aside.
const FAILURES: u32 = 3;
/// Time for which it is set aside at first. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest time for which it is set aside.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failing endpoints that are remembered. Those beyond them are not set aside.
const REMEMBERED: usize = 1024;
/// Time after its last failure in which nothing is known of an endpoint any more.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Time after the first attempt in which others begin. The application waits during it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Attempts of one connection.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Uids of the endpoints that have failed.
    tried: Vec<Text>,
    left: u8,
    begun: time::Instant,
}

impl Attempts {
    /// A connection with at most `further` attempts after its first one.
    pub(super) fn new(further: u8) -> Self {
        Self { tried: Vec::new(), left: further, begun: time::Instant::now() }
    }

    /// Notes that the endpoint has failed. Returns the endpoints to leave out of another attempt, or `None` when there may be
    /// none: the failure is not one of connecting, or there were enough.
    pub(super) fn after(&mut self, endpoint: &Text, failure: &Failure) -> Option<&[Text]> {
        self.tried.push(endpoint.clone());
        if !is_of_endpoint(failure) || self.begun.elapsed() >= PATIENCE {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(&self.tried)
    }
}

/// Is this the failure of a connect to the endpoint, before a byte of the application was sent, which another endpoint need
/// not share? A refusal by policy or by identity is an answer, and not asked for anywhere else.
fn is_of_endpoint(failure: &Failure) -> bool {
    use hbone::ConnectError as Connect;
    let Failure::Dial(error) = failure else { return false };
    match error {
        DialError::TunnelTimeout(_) | DialError::HandshakeTimeout(_) | DialError::AnswerTimeout { .. } => true,
        DialError::Connect(error) => match error {
            // The endpoint's proxy, or a waypoint, could not connect to the application.
            Connect::Status(status) => matches!(
                *status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            Connect::Reset(_) | Connect::Tunnel(_) | Connect::GoingAway | Connect::NoStreams(_) => true,
            Connect::Authority(_) => false,
        },
        // Others are of this machine: no port or descriptor is left, or there is no permission.
        DialError::Outbound(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        ),
        DialError::Inbound(_)
        | DialError::Certificate(_)
        | DialError::CertificateTimeout(_)
        | DialError::Tls(_)
        | DialError::SelfCall(_)
        | DialError::ClientGone => false,
    }
}

/// Endpoints of services that have failed of late, as one worker has seen it.
#[derive(Debug, Default)]
pub struct FailingEndpoints(RefCell<HashMap<Text, Failing>>);

#[derive(Debug)]
struct Failing {
    in_a_row: u32,
    last: Instant,
}

impl Failing {
    /// Time, from the last failure on, for which the endpoint is set aside.
    fn pause(&self) -> Duration {
        match self.in_a_row.checked_sub(FAILURES) {
            None => Duration::ZERO,
            Some(more) => FIRST_PAUSE.saturating_mul(1 << more.min(16)).min(LONGEST_PAUSE),
        }
    }
}

impl FailingEndpoints {
    /// Uids of the endpoints that are set aside now.
    pub fn set_aside(&self, now: Instant) -> Vec<Text> {
        let is_aside = |failing: &Failing| now.duration_since(failing.last) < failing.pause();
        self.0.borrow().iter().filter(|(_, failing)| is_aside(failing)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Notes a connection that reached its endpoint.
    pub fn succeeded(&self, endpoint: &Text) {
        self.0.borrow_mut().remove(endpoint);
    }

    /// Notes the failure of a connection to an endpoint. Nothing happens if it says nothing about the endpoint.
    pub fn failed(&self, endpoint: &Text, failure: &Failure, now: Instant) {
        if !is_of_endpoint(failure) {
            return;
        }
        let mut by_uid = self.0.borrow_mut();
        if !by_uid.contains_key(endpoint) && by_uid.len() >= REMEMBERED {
            by_uid.retain(|_, failing| now.duration_since(failing.last) < FORGOTTEN);
            if by_uid.len() >= REMEMBERED {
                return;
            }
        }
        let failing = by_uid.entry(endpoint.clone()).or_insert(Failing { in_a_row: 0, last: now });
        if now.duration_since(failing.last) >= FORGOTTEN {
            failing.in_a_row = 0;
        }
        let was_aside = failing.pause() > Duration::ZERO;
        failing.in_a_row = failing.in_a_row.saturating_add(1);
        failing.last = now;
        if !was_aside && failing.pause() > Duration::ZERO {
            metrics::counter!("strake_endpoints_set_aside_total").increment(1);
            tracing::warn!(
                %endpoint, error = %failure, code = failure.code(), failures = failing.in_a_row,
                "connections to an endpoint fail; other endpoints of its services are preferred for a while"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hbone::ConnectError;
    use std::sync::Arc;

    fn io(kind: io::ErrorKind) -> Failure {
        DialError::Outbound(Arc::new(kind.into())).into()
    }

    fn status(status: u16) -> Failure {
        DialError::Connect(ConnectError::Status(StatusCode::from_u16(status).unwrap())).into()
    }

    #[test]
    fn only_a_failed_connect_is_tried_elsewhere() {
        let elsewhere = [io(io::ErrorKind::ConnectionRefused), io(io::ErrorKind::TimedOut), status(503), status(504)];
        let nowhere = [
            status(401),
            status(404),
            io(io::ErrorKind::PermissionDenied),
            io(io::ErrorKind::AddrNotAvailable),
            DialError::ClientGone.into(),
            DialError::CertificateTimeout(Duration::ZERO).into(),
            Failure::Cut,
        ];
        assert!(elsewhere.iter().all(|failure| Attempts::new(1).after(&"a".into(), failure).is_some()));
        assert!(nowhere.iter().all(|failure| Attempts::new(1).after(&"a".into(), failure).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_in_number_and_time() {
        let refused = io(io::ErrorKind::ConnectionRefused);
        let mut attempts = Attempts::new(2);
        assert_eq!(attempts.after(&"a".into(), &refused), Some(&["a".into()][..]));
        assert_eq!(attempts.after(&"b".into(), &refused), Some(&["a".into(), "b".into()][..]));
        assert_eq!(attempts.after(&"c".into(), &refused), None);
        assert_eq!(Attempts::new(0).after(&"a".into(), &refused), None);

        let mut slow = Attempts::new(9);
        time::advance(PATIENCE).await;
        assert_eq!(slow.after(&"a".into(), &refused), None);
    }

    #[test]
    fn an_endpoint_is_set_aside_after_failures_in_a_row_for_a_time_that_grows() {
        let (endpoints, refused) = (FailingEndpoints::default(), io(io::ErrorKind::ConnectionRefused));
        let (start, endpoint) = (Instant::now(), Text::from("a"));
        let aside = |now| endpoints.set_aside(now) == ["a"];
        (0..FAILURES - 1).for_each(|_| endpoints.failed(&endpoint, &refused, start));
        assert!(!aside(start));
        endpoints.failed(&endpoint, &refused, start);
        assert!(aside(start + FIRST_PAUSE / 2));
        assert!(!aside(start + FIRST_PAUSE), "it is tried again");

        let again = start + FIRST_PAUSE;
        endpoints.failed(&endpoint, &refused, again);
        assert!(aside(again + FIRST_PAUSE), "one more failure, and for longer");
        (0..40).for_each(|_| endpoints.failed(&endpoint, &refused, again));
        assert!(!aside(again + LONGEST_PAUSE));

        endpoints.succeeded(&endpoint);
        endpoints.failed(&endpoint, &refused, again);
        assert!(!aside(again), "the failures are not in a row");
    }

    #[test]
    fn denials_set_nobody_aside_and_the_memory_is_bounded() {
        let (endpoints, now) = (FailingEndpoints::default(), Instant::now());
        (0..9).for_each(|_| endpoints.failed(&"a".into(), &status(401), now));
        assert!(endpoints.set_aside(now).is_empty());

        let refused = io(io::ErrorKind::ConnectionRefused);
        let name = |n: usize| Text::from(n.to_string());
        (0..REMEMBERED + 5).for_each(|n| endpoints.failed(&name(n), &refused, now));
        assert_eq!(endpoints.0.borrow().len(), REMEMBERED);
        endpoints.failed(&name(REMEMBERED + 9), &refused, now + FORGOTTEN);
        assert_eq!(endpoints.0.borrow().len(), 1);
    }
}
