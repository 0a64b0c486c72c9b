//! HTTP connections to endpoints that are kept to be used again, on one worker. A tunnel is shared by all of them; see `dial`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use identity::Identity;
use model::Text;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::http1::{Http1, Raw};
use super::http2::{Http2, Slot};
use super::{DialError, Upstream, connect};
use crate::context::WorkerContext;
use crate::http::body::RequestBody;

/// Time after which a connection without requests is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Idle HTTP/1.1 connections that are kept for one endpoint.
const MAX_IDLE: usize = 1024;

/// Version of HTTP towards an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http1,
    Http2,
}

/// Properties by which two connections differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Text,
    address: SocketAddr,
    expected: Option<Arc<[Identity]>>,
}

/// Connections of one worker.
#[derive(Default)]
pub struct Connections {
    http1: RefCell<HashMap<Key, Vec<Idle>>>,
    http2: RefCell<HashMap<Key, Http2Slot>>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

#[derive(Default)]
struct Http2Slot {
    connections: Vec<Rc<Http2>>,
    /// The dial under way: all requests without a connection wait for it.
    dial: Option<Dial>,
}

type Dial = Shared<LocalBoxFuture<'static, Result<Rc<Http2>, DialError>>>;

/// A connection that is reserved for one request.
pub struct Lease {
    kind: Kind,
    /// It has carried requests before: its endpoint may have closed it meanwhile.
    pub is_reused: bool,
}

enum Kind {
    Http1 { connection: Box<Http1>, key: Key, context: Rc<WorkerContext> },
    Http2(Slot),
}

impl Lease {
    /// Returns a connection to the endpoint, a kept one or a new one.
    pub async fn acquire(
        context: &Rc<WorkerContext>,
        upstream: &Rc<Upstream>,
        version: HttpVersion,
    ) -> Result<Self, DialError> {
        let workload = &upstream.endpoint.workload;
        let key =
            Key { uid: workload.uid.clone(), address: upstream.endpoint.address, expected: upstream.expected.clone() };
        match version {
            HttpVersion::Http1 => Self::http1(context, upstream, key).await,
            HttpVersion::Http2 => Self::http2(context, upstream, key).await,
        }
    }

    async fn http1(context: &Rc<WorkerContext>, upstream: &Upstream, key: Key) -> Result<Self, DialError> {
        let (connection, is_reused) = match context.connections.take_idle(&key) {
            Some(connection) => (connection, true),
            None => {
                let opened = Box::pin(connect(context, upstream)).await?;
                (Http1::start(opened).await.map_err(|e| DialError::Http(Arc::new(e)))?, false)
            }
        };
        Ok(Self { kind: Kind::Http1 { connection: Box::new(connection), key, context: context.clone() }, is_reused })
    }

    async fn http2(context: &Rc<WorkerContext>, upstream: &Rc<Upstream>, key: Key) -> Result<Self, DialError> {
        loop {
            if let Some(slot) = context.connections.reserve_http2(&key) {
                return Ok(Self { kind: Kind::Http2(slot), is_reused: true });
            }
            let (dial, is_own) = context.connections.dial_http2(context, upstream, &key);
            let connection = dial.await?;
            // Who has begun the dial gets a place in any case; others look again, and perhaps begin the next one.
            if is_own && let Some(slot) = connection.reserve() {
                return Ok(Self { kind: Kind::Http2(slot), is_reused: false });
            }
        }
    }

    /// Sends a request. An error with the request in it means that nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.kind {
            Kind::Http1 { connection, .. } => connection.sender.try_send_request(request).await,
            Kind::Http2(slot) => slot.connection().sender.clone().try_send_request(request).await,
        }
    }

    /// Asks for the byte stream, should the next answer leave HTTP; HTTP/2 has none.
    pub fn expect_upgrade(&self) -> Option<oneshot::Receiver<Raw>> {
        match &self.kind {
            Kind::Http1 { connection, .. } => {
                let (sender, receiver) = oneshot::channel();
                connection.upgrade.replace(Some(sender));
                Some(receiver)
            }
            Kind::Http2(_) => None,
        }
    }

    /// Keeps the connection: the answer was received to its end. Dropped without it, an HTTP/1.1 connection is closed.
    pub fn finish(self) {
        match self.kind {
            Kind::Http1 { connection, key, context } => {
                connection.upgrade.take();
                context.connections.keep(key, *connection);
            }
            Kind::Http2(_) => {}
        }
    }
}

impl Connections {
    /// The connection that was used last, so that the others can become idle.
    fn take_idle(&self, key: &Key) -> Option<Http1> {
        let mut all = self.http1.borrow_mut();
        let idle = all.get_mut(key)?;
        idle.retain(|kept| kept.connection.is_alive());
        // One whose request has just ended may not be ready yet.
        let at = idle.iter().rposition(|kept| kept.connection.is_ready())?;
        Some(idle.remove(at).connection)
    }

    fn keep(&self, key: Key, connection: Http1) {
        if !connection.is_alive() {
            return;
        }
        let mut all = self.http1.borrow_mut();
        let idle = all.entry(key).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    fn reserve_http2(&self, key: &Key) -> Option<Slot> {
        let mut all = self.http2.borrow_mut();
        let slot = all.get_mut(key)?;
        slot.connections.retain(|connection| connection.is_alive());
        // Fullest first: the order is that of their age, and the younger ones become idle.
        slot.connections.iter().find_map(Http2::reserve)
    }

    /// The dial under way, or a new one; true for a new one.
    fn dial_http2(&self, context: &Rc<WorkerContext>, upstream: &Rc<Upstream>, key: &Key) -> (Dial, bool) {
        let mut all = self.http2.borrow_mut();
        let slot = all.entry(key.clone()).or_default();
        if let Some(dial) = &slot.dial {
            return (dial.clone(), false);
        }
        let (context, upstream, key) = (context.clone(), upstream.clone(), key.clone());
        let dial = async move {
            let started = async {
                let opened = connect(&context, &upstream).await?;
                Http2::start(opened).await.map(Rc::new).map_err(|e| DialError::Http(Arc::new(e)))
            };
            let started = started.await;
            let mut all = context.connections.http2.borrow_mut();
            let slot = all.entry(key).or_default();
            slot.dial = None;
            if let Ok(connection) = &started {
                slot.connections.push(connection.clone());
            }
            started
        };
        let dial = dial.boxed_local().shared();
        slot.dial = Some(dial.clone());
        (dial, true)
    }

    /// Closes what was not used for [`IDLE`].
    pub fn reap(&self) {
        let now = Instant::now();
        self.http1.borrow_mut().retain(|_, idle| {
            idle.retain(|kept| kept.connection.is_alive() && now.duration_since(kept.since) < IDLE);
            !idle.is_empty()
        });
        self.http2.borrow_mut().retain(|_, slot| {
            let is_used = |c: &Rc<Http2>| c.is_busy() || now.duration_since(c.last_use.get()) < IDLE;
            slot.connections.retain(|connection| connection.is_alive() && is_used(connection));
            // A dial that nobody polls any more has no one to wait for it.
            slot.dial.take_if(|dial| dial.strong_count() == Some(1));
            slot.dial.is_some() || !slot.connections.is_empty()
        });
    }
}
