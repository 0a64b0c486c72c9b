//! HTTP of one client connection: its engine, its requests, and what comes behind HTTP when it is left for WebSocket.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::view::WaypointTarget;
use route::grpc;
use runtime::drain::Watch;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::body::ResponseBody;
use super::exchange::{Changes, Exchange, pass_on};
use super::forward::Forwarded;
use super::headers;
use crate::context::WorkerContext;
use crate::inner::Prefixed;
use crate::report::{Flag, Flags, Record, Report};
use crate::tcp::{self, Breakable};
use crate::tunnel::Opened;
use crate::upstream::{HttpVersion, LocalExec, Raw};

/// Time before the deadline of a drain at which idle connections are closed.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Longest head of a request, bytes; Envoy's limit. Beyond it the answer is 431.
const MAX_HEAD_BYTES: usize = 60 << 10;
/// Requests at a time on one HTTP/2 connection of a client; Envoy's limit.
const MAX_STREAMS: u32 = 1024;
/// Room for bytes of one request that nobody has taken yet.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Room for those of all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// A client's connection inside of a tunnel.
pub struct HttpConnection {
    pub context: Rc<WorkerContext>,
    pub opened: Opened,
    pub version: HttpVersion,
    switched: RefCell<Option<Switched>>,
}

/// A request whose connection leaves HTTP.
struct Switched {
    raw: oneshot::Receiver<Raw>,
    report: Report,
    forwarded: Forwarded,
}

impl HttpConnection {
    /// Serves HTTP until the connection ends.
    pub async fn serve<T>(context: Rc<WorkerContext>, opened: Opened, version: HttpVersion, io: Prefixed<T>)
    where
        T: AsyncRead + AsyncWrite + Breakable + Unpin + 'static,
    {
        let connection = Rc::new(Self { context, opened, version, switched: RefCell::default() });
        match version {
            HttpVersion::Http1 => connection.http1(io).await,
            HttpVersion::Http2 => connection.http2(io).await,
        }
    }

    async fn http1<T: AsyncRead + AsyncWrite + Breakable + Unpin + 'static>(self: Rc<Self>, io: Prefixed<T>) {
        let this = self.clone();
        let service = service_fn(move |request| Box::pin(this.clone().request(request)));
        let mut builder = http1::Builder::new();
        builder.max_header_size(MAX_HEAD_BYTES);
        let mut connection = builder.serve_connection(TokioIo::new(io), service);
        let mut closing = pin!(before_deadline(self.context.shared.drain.clone()));
        let mut is_closing = false;
        let ended = poll_fn(|cx| {
            if !is_closing && closing.as_mut().poll(cx).is_ready() {
                is_closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        });
        let result = ended.await;
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        match (result, self.switched.take()) {
            (Ok(()), Some(switched)) => switched.run(io, parts.read_buf).await,
            // A peer that has gone already is fine.
            (Ok(()), None) => drop(io.shutdown().await),
            (Err(error), _) => {
                self.broken(&error);
                if error.is_parse() {
                    // The engine has written its answer.
                    let _ = io.shutdown().await;
                }
                // Dropped without an end, the stream is reset.
            }
        }
    }

    async fn http2<T: AsyncRead + AsyncWrite + Breakable + Unpin + 'static>(self: Rc<Self>, io: Prefixed<T>) {
        let this = self.clone();
        let service = service_fn(move |request| this.clone().request(request));
        let mut builder = http2::Builder::new(LocalExec);
        builder
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
        let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut drain = self.context.shared.drain.clone();
        let result = tokio::select! {
            result = served.as_mut() => result,
            _ = drain.started() => {
                // GOAWAY: requests that are under way, or that the client has sent meanwhile, are answered.
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            self.broken(&error);
        }
    }

    /// Notes the end of a connection that broke. Requests that were read have their own reports.
    fn broken(&self, error: &hyper::Error) {
        let client = self.opened.client.address;
        tracing::debug!(%client, %error, "the client's HTTP connection has ended with an error");
    }

    async fn request(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let (parts, body) = request.into_parts();
        let received = Rc::new(Cell::new(0));
        let mut report = Report::begin(self.context.clone(), self.record(&parts, received.clone()));
        let mut changes = Changes::default();
        let exchange = Exchange { connection: &self, report: &mut report, changes: &mut changes, received };
        let mut response = match exchange.run(parts, body).await {
            Ok(forwarded) => self.answer(forwarded, report),
            Err(reply) => reply.into_response(report),
        };
        changes.apply(response.headers_mut());
        headers::finish_response(response.headers_mut());
        if self.version == HttpVersion::Http1
            && self.context.shared.drain.is_draining()
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            // The client opens its next connection, which finds another waypoint. An idle connection stays: a request may
            // be on its way.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    fn answer(&self, mut forwarded: Forwarded, mut report: Report) -> Response<ResponseBody> {
        pass_on(&mut forwarded.response, &mut report);
        if forwarded.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(forwarded, report);
        }
        let Forwarded { response, lease, deadlines, .. } = forwarded;
        response.map(|body| ResponseBody::upstream(body, lease, deadlines, report))
    }

    /// Leaves HTTP once the answer is sent.
    fn switch(&self, mut forwarded: Forwarded, report: Report) -> Response<ResponseBody> {
        let Some(raw) = forwarded.raw.take() else {
            // The client has not asked for it.
            let reply = super::reply::Reply::new(502, "", "unexpected_upgrade").flag(Flag::UpstreamProtocol);
            return reply.into_response(report);
        };
        let mut response = Response::new(ResponseBody::none());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().clone_from(forwarded.response.headers());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        self.switched.replace(Some(Switched { raw, report, forwarded }));
        response
    }

    fn record(&self, parts: &Parts, received: Rc<Cell<u64>>) -> Record {
        let text = |name| parts.headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()));
        let service = match &self.opened.target {
            WaypointTarget::Service { service, .. } => Some(service.clone()),
            WaypointTarget::Workload { .. } => None,
        };
        Record {
            client: self.opened.client.clone(),
            original_dst: self.opened.original_dst.clone(),
            began: Instant::now(),
            start_time: OffsetDateTime::now_utc(),
            method: parts.method.clone(),
            version: match self.version {
                HttpVersion::Http1 if parts.version == Version::HTTP_10 => Version::HTTP_10,
                HttpVersion::Http1 => Version::HTTP_11,
                HttpVersion::Http2 => Version::HTTP_2,
            },
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            authority: String::new(),
            user_agent: text(USER_AGENT).map(Into::into).unwrap_or_default(),
            forwarded_for: String::new(),
            request_id: String::new(),
            is_grpc: grpc::is_grpc(&parts.headers),
            route_name: String::new(),
            cluster: String::new(),
            service,
            endpoint: None,
            status: 0,
            grpc_status: None,
            flags: Flags::default(),
            details: "".into(),
            failure: String::new(),
            received,
            sent: 0,
            upstream_time: None,
        }
    }
}

/// Returns a moment before the deadline of the drain: idle connections are closed then, in order.
async fn before_deadline(mut drain: Watch) {
    let deadline = drain.started().await;
    tokio::time::sleep_until(deadline.checked_sub(LAST_MOMENT).unwrap_or(deadline)).await;
}

impl Switched {
    /// Carries bytes both ways until both ends have closed.
    async fn run<T: AsyncRead + AsyncWrite + Breakable + Unpin>(self, client: T, read: Bytes) {
        let Self { raw, mut report, forwarded } = self;
        let Ok(Raw { transport, read: answered }) = raw.await else {
            report.record.flags.raise(Flag::UpstreamTermination);
            return;
        };
        drop(forwarded);
        let (client, server) = (Prefixed::new(read, client), Prefixed::new(answered, transport));
        let carried = tcp::carry(client, server).await;
        report.record.received.set(report.record.received.get() + carried.to_server);
        report.record.sent += carried.to_client;
        if carried.is_complete {
            report.complete();
        }
    }
}
