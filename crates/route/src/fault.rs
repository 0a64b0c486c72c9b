//! Faults on purpose: a delay, an answer instead of the destination's, or both. Each draws a random number of its own.

use std::time::Duration;

use serde::Serialize;

use crate::answer::LocalAnswer;
use crate::percent::Percent;

/// Body of an answer that a fault gives, as Envoy's.
const BODY: &str = "fault filter abort";

/// Faults of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// Delay of a share of the requests, before anything else happens to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delay {
    pub duration: Duration,
    pub share: Percent,
}

/// Answer to a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Abort {
    pub status: AbortStatus,
    pub share: Percent,
}

/// Status of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortStatus {
    Http(u16),
    /// A client that does not speak gRPC gets 200.
    Grpc(u8),
}

/// Faults of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub delay: Option<Duration>,
    /// Given after the delay.
    pub abort: Option<LocalAnswer>,
}

impl Fault {
    /// Decides by two random numbers, of the delay and of the abort.
    pub fn decide(&self, for_delay: u64, for_abort: u64) -> Faults {
        let delay = self.delay.as_ref().filter(|delay| delay.share.includes(for_delay));
        let abort = self.abort.as_ref().filter(|abort| abort.share.includes(for_abort));
        Faults { delay: delay.map(|delay| delay.duration), abort: abort.map(|abort| abort.status.answer()) }
    }
}

impl AbortStatus {
    fn answer(self) -> LocalAnswer {
        let (status, grpc_status) = match self {
            Self::Http(status) => (status, None),
            Self::Grpc(status) => (200, Some(status)),
        };
        LocalAnswer { status, body: BODY.to_owned(), grpc_status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_has_the_status_of_its_kind() {
        for (status, is_grpc, expected) in [
            (AbortStatus::Http(555), false, (555, None)),
            (AbortStatus::Http(555), true, (200, Some(2))),
            (AbortStatus::Grpc(8), false, (200, None)),
            (AbortStatus::Grpc(8), true, (200, Some(8))),
        ] {
            let fault = Fault { abort: Some(Abort { status, share: Percent::ALL }), delay: None };
            let answer = fault.decide(0, 0).abort.unwrap();
            let rendered = answer.render(is_grpc);
            assert_eq!((rendered.status, rendered.grpc_status), expected, "{status:?} {is_grpc}");
            let message = if is_grpc { rendered.grpc_message.as_deref() } else { Some(rendered.body) };
            assert_eq!(message, Some("fault filter abort"));
        }
    }

    #[test]
    fn delay_and_abort_are_drawn_each_for_itself() {
        let half = Percent::new(50.0).unwrap();
        let delay = Some(Delay { duration: Duration::from_secs(7), share: half });
        let fault = Fault { delay, abort: Some(Abort { status: AbortStatus::Http(500), share: half }) };
        let hits = |for_delay, for_abort| {
            let faults = fault.decide(for_delay, for_abort);
            (faults.delay.is_some(), faults.abort.is_some())
        };
        let (hit, miss) = (0, 999_999);

        assert_eq!(hits(hit, hit), (true, true));
        assert_eq!(hits(hit, miss), (true, false));
        assert_eq!(hits(miss, hit), (false, true));
        assert_eq!(hits(miss, miss), (false, false));
        assert_eq!(Fault::default().decide(hit, hit), Faults::default());
    }
}
