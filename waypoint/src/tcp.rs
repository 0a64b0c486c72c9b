//! Connections that are not HTTP: bytes between a client and an endpoint of its service, or the workload that it has addressed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use model::view::{Endpoint, WaypointTarget};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::context::WorkerContext;
use crate::http::authorise_connection;
use crate::inner::{ClientIo, Prefixed};
use crate::report;
use crate::tunnel::Opened;
use crate::upstream::{Connection, DialError, Transport, Upstream, connect};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 16 << 10;
/// Endpoints that are tried for one connection.
const TRIES: usize = 3;

/// End of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub to_server: u64,
    pub to_client: u64,
    /// Both directions have ended in order.
    pub is_complete: bool,
}

/// Failure to connect to any endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    #[error("no healthy upstream")]
    NoEndpoint,
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Serves a connection.
pub async fn serve(context: &Rc<WorkerContext>, opened: &Opened, client: Prefixed<ClientIo>) {
    let mut report = report::Tcp::open(context.clone(), opened.clone());
    if let Err(denied) = authorise(context, opened) {
        report.denied = Some(denied);
        // Dropped without an end, the client's stream is reset.
        return;
    }
    match reach(context, opened, &mut report).await {
        Ok(server) => report.carried = Some(carry(client, Prefixed::new(bytes::Bytes::new(), server)).await),
        Err(error) => {
            report.failure = error.to_string();
            let client = opened.client.address;
            tracing::debug!(%client, to = %opened.original_dst, %error, "no connection to an endpoint");
        }
    }
}

/// Applies the policies on a connection.
///
/// # Errors
/// The reason of a denial, as details of the access log.
fn authorise(context: &WorkerContext, opened: &Opened) -> Result<(), String> {
    let config = context.shared.config.load();
    let of_service = match &opened.target {
        WaypointTarget::Service { service, .. } => config.services.get(&service.key()),
        WaypointTarget::Workload { .. } => None,
    };
    authorise_connection(&config, of_service, opened)
}

/// Connects to an endpoint; a few are tried.
async fn reach(context: &Rc<WorkerContext>, opened: &Opened, report: &mut report::Tcp) -> Result<Transport, TcpError> {
    let mut tried = Vec::new();
    let mut failure = TcpError::NoEndpoint;
    for _ in 0..TRIES {
        let Some(upstream) = choose(context, opened, &tried) else { break };
        let workload = upstream.endpoint.workload.clone();
        report.endpoint = Some((workload.clone(), upstream.endpoint.address));
        match connect(context, &upstream).await {
            Ok(Connection { transport, .. }) => return Ok(transport),
            Err(error) => failure = error.into(),
        }
        if matches!(opened.target, WaypointTarget::Workload { .. }) {
            break;
        }
        tried.push(workload.uid.clone());
    }
    Err(failure)
}

fn choose(context: &WorkerContext, opened: &Opened, tried: &[model::Text]) -> Option<Rc<Upstream>> {
    match &opened.target {
        WaypointTarget::Service { service, port } => {
            let set = context.endpoints.get(&service.hostname, &service.namespace, *port);
            set.balancer.choose(&set.upstreams, tried).cloned()
        }
        WaypointTarget::Workload { workload, port } => {
            let address = SocketAddr::new(*workload.workload_ips.first()?, *port);
            Some(Rc::new(Upstream::new(Endpoint { workload: workload.clone(), address }, None)))
        }
    }
}

/// Carries bytes both ways until both directions have ended, or the connection is lost: then the other side is reset, too.
pub async fn carry<A, B>(mut client: A, mut server: B) -> Carried
where
    A: AsyncRead + AsyncWrite + Breakable + Unpin,
    B: AsyncRead + AsyncWrite + Breakable + Unpin,
{
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let ended = poll_fn(|cx| {
        let one = forth.poll(cx, &mut client, &mut server)?;
        let other = back.poll(cx, &mut server, &mut client)?;
        if one.is_ready() && other.is_ready() { Poll::Ready(Ok::<_, io::Error>(())) } else { Poll::Pending }
    });
    let is_complete = ended.await.is_ok();
    if !is_complete {
        client.break_off();
        server.break_off();
    }
    Carried { to_server: forth.bytes, to_client: back.bytes, is_complete }
}

/// A byte stream that can be reset.
pub trait Breakable {
    /// Resets the connection when it is dropped.
    fn break_off(&self);
}

impl Breakable for ClientIo {
    /// Nothing to do: without an end, a stream is reset.
    fn break_off(&self) {}
}

impl Breakable for Transport {
    fn break_off(&self) {
        if let Self::Tcp(socket) = self {
            // Fails only on a socket that is gone.
            let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl<T: Breakable> Breakable for Prefixed<T> {
    fn break_off(&self) {
        self.get_ref().break_off();
    }
}

/// One direction.
#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    /// Part of the buffer that is not written.
    rest: std::ops::Range<usize>,
    has_ended: bool,
    is_shut: bool,
    bytes: u64,
}

impl Direction {
    /// Ready once the end was passed on.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.rest.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.rest.clone()]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.rest.start += n;
                self.bytes += n as u64;
            }
            if self.has_ended {
                if !self.is_shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.is_shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            self.buffer.resize(BUFFER_BYTES, 0);
            let mut into = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut into) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    // An idle connection owns no buffer.
                    self.buffer = Vec::new();
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
            self.rest = 0..into.filled().len();
            self.has_ended = self.rest.is_empty();
        }
    }
}
