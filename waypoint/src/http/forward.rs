//! Sends a request to an endpoint, again if its route says so, until there is the head of an answer or nothing left to try.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Response;
use hyper::body::Incoming;
use model::Text;
use route::retry::{RetryPolicy, TryEnd, Verdict};
use tokio::sync::oneshot;

use super::body::{RequestBody, Source};
use super::deadline::Deadline;
use super::failure::{Failure, Reset};
use super::outgoing::Template;
use super::reply::Reply;
use crate::context::WorkerContext;
use crate::report::{Flag, Record};
use crate::upstream::{DialError, EndpointSet, HttpVersion, Lease, Raw, Upstream};

/// Connections that are tried one after the other for a request of which nothing was sent.
const UNSENT_TRIES: usize = 8;

/// Endpoints that a request may go to.
pub(super) enum Candidates {
    /// Those of a service.
    Service(Rc<EndpointSet>),
    /// This one: the client has addressed it.
    Workload(Rc<Upstream>),
}

impl Candidates {
    fn choose(&self, avoid: &[Text]) -> Option<&Rc<Upstream>> {
        match self {
            Self::Service(set) => set.balancer.choose(&set.upstreams, avoid),
            Self::Workload(upstream) => Some(upstream),
        }
    }
}

/// A request that is about to be sent.
pub(super) struct Forwarding<'a> {
    pub context: &'a Rc<WorkerContext>,
    pub candidates: Candidates,
    pub version: HttpVersion,
    pub template: Template,
    pub source: Option<Source>,
    pub retry: Option<&'a RetryPolicy>,
}

/// The head of an answer, with everything that its body needs.
pub(super) struct Forwarded {
    pub response: Response<Incoming>,
    pub lease: Lease,
    /// Byte stream of the connection, should the answer leave HTTP.
    pub raw: Option<oneshot::Receiver<Raw>>,
    /// Of the request, and of its last try.
    pub deadlines: Vec<Deadline>,
}

type Tried = Result<Forwarded, Failure>;

impl Forwarding<'_> {
    /// Tries until there is an answer. `deadline` is that of the whole request, and `on_timeout` the answer when it is over.
    ///
    /// # Errors
    /// The answer of the proxy when there is none of an endpoint.
    pub(super) async fn run(
        &self,
        mut deadline: Option<Deadline>,
        on_timeout: impl FnOnce() -> Reply,
        record: &mut Record,
    ) -> Result<Forwarded, Reply> {
        let over = poll_fn(|cx| match &mut deadline {
            Some(deadline) => deadline.poll(cx),
            None => std::task::Poll::Pending,
        });
        let tried = tokio::select! {
            biased;
            tried = self.tries(record) => Some(tried),
            () = over => None,
        };
        let Some(tried) = tried else {
            record.flags.raise(Flag::UpstreamTimeout);
            return Err(on_timeout());
        };
        let mut forwarded = tried?;
        if let Some(source) = &self.source {
            source.stop_keeping();
        }
        forwarded.deadlines.extend(deadline);
        Ok(forwarded)
    }

    async fn tries(&self, record: &mut Record) -> Result<Forwarded, Reply> {
        let mut retries = 0;
        let mut tried: Vec<Text> = Vec::new();
        loop {
            let upstream = self.candidates.choose(&tried).ok_or_else(Reply::no_endpoint)?;
            let workload = &upstream.endpoint.workload;
            record.endpoint = Some((workload.clone(), upstream.endpoint.address));
            let began = Instant::now();
            let result = self.one(upstream, retries + 1).await;
            let pause = match self.verdict(&result, retries) {
                Verdict::Retry { pause } => pause,
                verdict => {
                    if verdict == Verdict::Exhausted {
                        record.flags.raise(Flag::RetryLimit);
                    }
                    record.upstream_time = result.is_ok().then(|| began.elapsed());
                    return result.map_err(|failure| {
                        record.failure = failure.cause();
                        reply(&failure, retries)
                    });
                }
            };
            // An answer that is not passed on goes with its connection.
            drop(result);
            if self.retry.is_some_and(|retry| retry.avoid_previous_hosts) {
                tried.push(workload.uid.clone());
            }
            retries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn one(&self, upstream: &Rc<Upstream>, number: u32) -> Tried {
        let Some(time) = self.retry.and_then(|retry| retry.per_try_timeout) else {
            return self.send(upstream, number).await;
        };
        let mut deadline = Deadline::new(time, self.source.clone());
        let tried = tokio::select! {
            biased;
            tried = self.send(upstream, number) => tried,
            () = poll_fn(|cx| deadline.poll(cx)) => Err(Failure::TryTimeout),
        };
        tried.map(|mut forwarded| {
            forwarded.deadlines.push(deadline);
            forwarded
        })
    }

    async fn send(&self, upstream: &Rc<Upstream>, number: u32) -> Tried {
        let mut unsent = 0;
        loop {
            let lease = Lease::acquire(self.context, upstream, self.version).await;
            let mut lease = lease.map_err(Failure::Connect)?;
            // Before the request: the connection may leave HTTP before this task runs again.
            let raw = if self.template.is_upgrade() { lease.expect_upgrade() } else { None };
            let body = self.source.as_ref().map_or(RequestBody::EMPTY, RequestBody::of);
            let mut error = match lease.send(self.template.request(number, body)).await {
                Ok(response) => return Ok(Forwarded { response, lease, raw, deadlines: Vec::new() }),
                Err(error) => error,
            };
            if error.take_message().is_none() {
                return Err(Failure::Reset(self.reset(error.error())));
            }
            // Nothing was sent: a kept connection that the endpoint has closed meanwhile is no failure.
            unsent += 1;
            if !lease.is_reused || unsent == UNSENT_TRIES {
                return Err(Failure::Connect(DialError::Http(Arc::new(error.into_error()))));
            }
        }
    }

    fn reset(&self, error: &hyper::Error) -> Reset {
        // The connection ended because the request's body did.
        if self.source.as_ref().is_some_and(Source::is_broken) { Reset::Local } else { Reset::of(error) }
    }

    fn verdict(&self, result: &Tried, retries: u32) -> Verdict {
        let end = match result {
            Ok(Forwarded { response, .. }) => {
                TryEnd::Answer { status: response.status().as_u16(), headers: response.headers() }
            }
            Err(Failure::Reset(Reset::Local)) => return Verdict::Done,
            Err(failure) => failure.end(),
        };
        // A body that is not kept from its beginning cannot be sent again.
        let can_repeat = self.source.as_ref().is_none_or(Source::can_replay);
        let policy = self.retry.filter(|_| can_repeat);
        policy.map_or(Verdict::Done, |policy| policy.verdict(retries, end, rand::random()))
    }
}

fn reply(failure: &Failure, retries: u32) -> Reply {
    Reply::new(failure.status(), failure.body(retries), failure.details()).flag(failure.flag())
}
