//! Asks the nameservers for a name that is not the mesh's: one after the other, and again when an answer is late. Once one of
//! them answers, the others are given up.

use crate::exchange::{Exchange, ExchangeError};
use crate::message::Question;
use crate::{PodNetwork, Protocol};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Time for which nameservers are asked. Resolvers of applications give up, or ask again, after 5 s (resolv.conf(5),
/// `timeout`).
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which the next nameserver is asked as well, or the only one again: the question or its answer may be lost.
const NEXT_AFTER: Duration = Duration::from_millis(1500);
/// Least number of attempts that the time is enough for.
const ATTEMPTS: usize = 3;

/// Reason for which there is no answer from elsewhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no nameserver is known")]
    NoNameserver,
    #[error("no answer within {QUESTION_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// Asks `servers` and returns the first answer that says yes or no; when none does, the last refusal.
pub(crate) async fn forward<N: PodNetwork>(
    exchange: Exchange<'_, N>,
    servers: &[SocketAddr],
    question: &Question,
    protocol: Protocol,
) -> Result<Message, ForwardError> {
    let mut order = Order::new(servers);
    let mut attempts = FuturesUnordered::new();
    let mut outcome = Err(ForwardError::NoNameserver);
    let mut deadline = pin!(sleep(QUESTION_TIMEOUT));
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() || next_at <= Instant::now() {
            if let Some(server) = order.next() {
                attempts.push(async move { (server, exchange.ask(server, question, protocol).await) });
                next_at = Instant::now() + NEXT_AFTER;
                continue;
            }
            if attempts.is_empty() {
                return outcome;
            }
        }
        // All may be dropped: attempts stay in the set, and time passes by itself.
        tokio::select! {
            Some((server, result)) = attempts.next() => match result {
                Ok(answer) if is_final(answer.metadata.response_code) => return Ok(answer),
                other => {
                    outcome = other.map_err(Into::into);
                    // It has said no, so it is not asked again, and the next one at once.
                    order.give_up(server);
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if order.has_next() => {}
            () = deadline.as_mut() => return outcome_at_deadline(outcome),
        }
    }
}

/// A refusal that somebody has given says more than silence of the others.
fn outcome_at_deadline(outcome: Result<Message, ForwardError>) -> Result<Message, ForwardError> {
    outcome.or(Err(ForwardError::Timeout))
}

/// Existence of a name is the same everywhere; another server may be able to tell it when one is not.
const fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The servers in the order in which they are asked: all of them, then again.
struct Order {
    waiting: Vec<SocketAddr>,
}

impl Order {
    fn new(servers: &[SocketAddr]) -> Self {
        let count = if servers.is_empty() { 0 } else { servers.len().max(ATTEMPTS) };
        // From the end, so that the next one is the last.
        let mut waiting: Vec<_> = servers.iter().cycle().take(count).copied().collect();
        waiting.reverse();
        Self { waiting }
    }

    fn next(&mut self) -> Option<SocketAddr> {
        self.waiting.pop()
    }

    fn has_next(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn give_up(&mut self, server: SocketAddr) {
        self.waiting.retain(|other| *other != server);
    }
}
