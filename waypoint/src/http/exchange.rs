//! One request of a client, step by step: head, policies, route, fault, CORS, action. Each step may answer; the order is that
//! of Istio's filters.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::view::{Endpoint, WaypointTarget};
use model::{Text, Workload};
use route::{
    Action, CorsDecision, Fault, Forward, HeaderChanges, Redirect, Request, Route, Rule, Source as ClientSource,
    Target, Weighted, choose, grpc,
};
use waypoint_config::AppProtocol;

use super::authorise::authorise;
use super::body::{BoxError, Source};
use super::connection::HttpConnection;
use super::deadline::Deadline;
use super::forward::{Candidates, Forwarded, Forwarding};
use super::head::Head;
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::{headers, mirror};
use crate::report::{Flag, Report};
use crate::upstream::{HttpVersion, Upstream};

/// Bytes of requests that a worker keeps for further tries and for mirrors, of all its requests together.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// Changes of the answer, whoever gives it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    destination: HeaderChanges,
    rule: Option<Arc<Rule>>,
    cors: HeaderMap,
}

impl Changes {
    /// Applies them in Envoy's order.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        self.destination.apply(headers);
        if let Some(rule) = &self.rule {
            rule.response_headers.apply(headers);
        }
        for (name, value) in &self.cors {
            headers.insert(name, value.clone());
        }
    }
}

/// A request on its way.
pub(super) struct Exchange<'a> {
    pub connection: &'a Rc<HttpConnection>,
    pub report: &'a mut Report,
    pub changes: &'a mut Changes,
    pub received: Rc<Cell<u64>>,
}

impl Exchange<'_> {
    /// Brings the request to its end.
    ///
    /// # Errors
    /// The answer of the proxy.
    pub(super) async fn run(mut self, mut parts: Parts, body: Incoming) -> Result<Forwarded, Reply> {
        let mut head = Head::read(&parts)?;
        headers::prepare_request(&mut parts.headers, &head.scheme);
        self.note(&parts.headers, &head);
        let all = self.connection.context.shared.config.load();
        let (context, opened) = (&self.connection.context, &self.connection.opened);
        let target = opened.target.clone();
        let (service, port) = match &target {
            WaypointTarget::Service { service, port } => (service, *port),
            WaypointTarget::Workload { workload, port } => {
                authorise(context, opened, (&all, None), &mut head, &mut parts).await?;
                let address = SocketAddr::new(workload_ip(workload)?, *port);
                let upstream = Upstream::new(Endpoint { workload: workload.clone(), address }, None);
                return self.send_to_workload(Rc::new(upstream), head, parts, body).await;
            }
        };
        // Also after a change of the configuration, on a connection that was opened before.
        let of_service = all.services.get(&service.key()).ok_or_else(Reply::no_cluster)?;
        let config = of_service.ports.get(&port).ok_or_else(Reply::no_cluster)?;
        let token = authorise(context, opened, (&all, Some(of_service)), &mut head, &mut parts).await?;
        let client = &self.connection.opened.client;
        let request = Request {
            method: parts.method.as_str(),
            scheme: &head.scheme,
            authority: &head.authority,
            target: &head.target,
            headers: &parts.headers,
            source: ClientSource { namespace: client.namespace(), labels: None },
            claims: token.as_ref().map(|token| &token.claims),
        };
        let route = config.routes.find(&request).ok_or_else(Reply::no_route)?;
        self.report.record.route_name.clone_from(&route.name);
        if let Some(fault) = &route.rule.fault {
            self.fault(fault).await?;
        }
        if let Some(cors) = &route.rule.cors {
            match cors.decide(&request) {
                CorsDecision::Answer(headers) => {
                    let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                    return Err(Reply { headers, ..Reply::new(200, "", "cors_response") });
                }
                CorsDecision::Forward(headers) => self.changes.cors = headers,
            }
        }
        self.changes.rule = Some(route.rule.clone());
        match &route.rule.action {
            Action::Redirect(redirect) => Err(redirected(redirect, route, &request)),
            Action::Respond(answer) => Err(Reply { answer: answer.clone(), ..Reply::new(200, "", "direct_response") }),
            Action::Forward(forward) => {
                let namespace = &service.namespace;
                self.forward(Destined { route, forward, namespace, protocol: config.protocol }, head, parts, body).await
            }
        }
    }

    /// Completes what the report knows about the request.
    fn note(&mut self, headers: &HeaderMap, head: &Head) {
        let text = |name| headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let record = &mut self.report.record;
        record.authority.clone_from(&head.authority);
        record.request_id = text(headers::REQUEST_ID).unwrap_or_default();
        record.forwarded_for = text(headers::FORWARDED_FOR).unwrap_or_default();
    }

    async fn fault(&mut self, fault: &Fault) -> Result<(), Reply> {
        let faults = fault.decide(rand::random(), rand::random());
        if let Some(delay) = faults.delay {
            self.report.record.flags.raise(Flag::DelayInjected);
            tokio::time::sleep(delay).await;
        }
        match faults.abort {
            Some(answer) => {
                let reply = Reply::new(200, "", "fault_filter_abort").flag(Flag::FaultInjected);
                Err(Reply { answer, ..reply })
            }
            None => Ok(()),
        }
    }

    /// Sends a request to the workload that its client has addressed: without routes, and to no other.
    async fn send_to_workload(
        self,
        upstream: Rc<Upstream>,
        head: Head,
        parts: Parts,
        body: Incoming,
    ) -> Result<Forwarded, Reply> {
        let version = self.connection.version;
        let source = self.source(body, false);
        let outgoing = Outgoing {
            method: parts.method,
            authority: head.authority,
            target: head.target,
            headers: parts.headers,
            is_upgrade: head.is_upgrade,
        };
        let forwarding = Forwarding {
            context: &self.connection.context,
            candidates: Candidates::Workload(upstream),
            version,
            template: outgoing.template(version)?,
            source,
            retry: None,
        };
        forwarding.run(None, timeout_reply(None), &mut self.report.record).await
    }

    async fn forward(
        self,
        destined: Destined<'_>,
        head: Head,
        mut parts: Parts,
        body: Incoming,
    ) -> Result<Forwarded, Reply> {
        let Destined { route, forward, namespace, protocol } = destined;
        let weighted = choose(&forward.destinations, rand::random())
            .ok_or_else(|| Reply::new(500, "", "no_destination_with_weight"))?;
        self.changes.destination = weighted.response_headers.clone();
        let destination = match &weighted.target {
            Target::Service(destination) => destination,
            Target::Missing(_) => return Err(Reply::no_cluster()),
            Target::Invalid => return Err(Reply::new(500, "", "direct_response")),
        };
        self.report.record.cluster = self.cluster(destination);
        if destination.subset.is_some() {
            // Labels of endpoints are not known here. The whole service would be more than the route allows.
            return Err(Reply::no_cluster());
        }
        weighted.request_headers.apply(&mut parts.headers);
        route.rule.request_headers.apply(&mut parts.headers);
        let mut outgoing = Outgoing {
            method: parts.method,
            authority: head.authority,
            target: head.target,
            headers: parts.headers,
            is_upgrade: head.is_upgrade,
        };
        rewrite(route, forward, weighted, &mut outgoing)?;
        let grpc_timeout = self.report.record.is_grpc.then(|| grpc::timeout(&outgoing.headers)).flatten();
        let timeout = forward.timeout_for(grpc_timeout).filter(|timeout| !timeout.is_zero());
        if let Some(timeout) = timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            outgoing.headers.insert(headers::EXPECTED_TIMEOUT, HeaderValue::from(milliseconds));
        }
        let context = &self.connection.context;
        let set = context.endpoints.get(&destination.host, namespace, destination.port);
        let version = self.version(protocol);
        let source = self.source(body, forward.retry.is_some());
        let mirrors = forward.mirrors.iter().filter(|mirror| mirror.share.includes(rand::random()));
        mirror::start(context, mirrors, namespace, version, &outgoing, source.as_ref());
        let deadline = timeout.map(|timeout| Deadline::new(timeout, source.clone()));
        let by_client = grpc_timeout.filter(|asked| timeout == Some(*asked));
        let forwarding = Forwarding {
            context,
            candidates: Candidates::Service(set),
            version,
            template: outgoing.template(version)?,
            source,
            retry: forward.retry.as_ref(),
        };
        forwarding.run(deadline, timeout_reply(by_client), &mut self.report.record).await
    }

    /// Version towards endpoints of a port: the declared one, else that of the client.
    fn version(&self, protocol: AppProtocol) -> HttpVersion {
        match protocol {
            AppProtocol::Http1 => HttpVersion::Http1,
            AppProtocol::Http2 => HttpVersion::Http2,
            AppProtocol::Undeclared | AppProtocol::Tcp => self.connection.version,
        }
    }

    /// The body of the request; `None` without one.
    fn source(&self, body: Incoming, is_kept: bool) -> Option<Source> {
        if body.is_end_stream() {
            return None;
        }
        let (received, kept) = (self.received.clone(), self.connection.context.kept_bytes.clone());
        Some(Source::new(body.map_err(BoxError::from), is_kept, received, kept, MAX_KEPT_BYTES))
    }

    /// Name of a destination as Istio's waypoints write it.
    fn cluster(&self, destination: &route::Destination) -> String {
        let route::Destination { host, port, subset } = destination;
        let subset = subset.as_deref().unwrap_or_default();
        let is_own = match &self.connection.opened.target {
            WaypointTarget::Service { service, .. } => service.hostname == *host.as_str(),
            WaypointTarget::Workload { .. } => false,
        };
        match (is_own, subset.is_empty()) {
            (true, true) => format!("inbound-vip|{port}|http|{host};"),
            (true, false) => format!("inbound-vip|{port}|http/{subset}|{host};"),
            (false, _) => format!("outbound|{port}|{subset}|{host};"),
        }
    }
}

/// A route that forwards.
struct Destined<'a> {
    route: &'a Route,
    forward: &'a Forward,
    /// In which host names are looked up.
    namespace: &'a Text,
    protocol: AppProtocol,
}

fn workload_ip(workload: &Workload) -> Result<IpAddr, Reply> {
    workload.workload_ips.first().copied().ok_or_else(Reply::no_endpoint)
}

fn redirected(redirect: &Redirect, route: &Route, request: &Request<'_>) -> Reply {
    let location = redirect.location(&route.conditions.path, request).ok().map(HeaderValue::try_from);
    match location {
        Some(Ok(location)) => Reply::new(redirect.status, "", "direct_response").header(LOCATION, location),
        Some(Err(_)) | None => Reply::new(400, "", "invalid_rewrite"),
    }
}

/// Rewrites path and authority, and keeps what they were.
fn rewrite(route: &Route, forward: &Forward, weighted: &Weighted, outgoing: &mut Outgoing) -> Result<(), Reply> {
    if let Some(authority) = weighted.authority.as_ref().or(forward.authority.as_ref()) {
        let before = std::mem::replace(&mut outgoing.authority, authority.clone());
        keep(&mut outgoing.headers, headers::ORIGINAL_HOST, before);
    }
    if let Some(path) = &forward.path {
        let after = path.rewrite(&route.conditions.path, &outgoing.target);
        let after = after.map_err(|_| Reply::new(400, "", "invalid_rewrite"))?;
        let before = std::mem::replace(&mut outgoing.target, after);
        keep(&mut outgoing.headers, headers::ORIGINAL_PATH, before);
    }
    Ok(())
}

fn keep(headers: &mut HeaderMap, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Answer when the time is over. The client of a gRPC call that set it itself gets `DEADLINE_EXCEEDED`.
fn timeout_reply(by_client: Option<std::time::Duration>) -> impl FnOnce() -> Reply {
    move || {
        let mut reply = Reply::new(504, "upstream request timeout", "response_timeout");
        reply.answer.grpc_status = by_client.map(|_| 4);
        reply
    }
}

/// Head of an answer that is passed on.
pub(super) fn pass_on(response: &mut Response<Incoming>, report: &mut Report) {
    let record = &mut report.record;
    record.status = response.status().as_u16();
    record.grpc_status = if record.is_grpc { grpc::status_in(response.headers()) } else { None };
    if record.details.is_empty() {
        record.details = "via_upstream".into();
    }
    headers::prepare_response(response.headers_mut());
    if let Some(time) = record.upstream_time {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert(headers::SERVICE_TIME, HeaderValue::from(milliseconds));
    }
}
