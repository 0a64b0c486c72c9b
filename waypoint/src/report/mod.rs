//! Report of a request, exactly once and however it ends: access log and metrics.

mod access_log;
mod flags;
mod series;
mod tcp;

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Version};
use model::{Service, Workload};
use time::OffsetDateTime;

use crate::context::WorkerContext;
use crate::tunnel::Client;

pub use access_log::AccessLog;
pub use flags::{Flag, Flags};
pub use series::Series;
pub use tcp::Tcp;

/// Facts about one request, completed on its way.
#[derive(Debug)]
pub struct Record {
    pub client: Arc<Client>,
    /// Address that the client's application connected to.
    pub original_dst: Arc<str>,
    pub began: Instant,
    pub start_time: OffsetDateTime,
    pub method: Method,
    pub version: Version,
    /// As the client sent it.
    pub target: String,
    pub authority: String,
    pub user_agent: String,
    pub forwarded_for: String,
    pub request_id: String,
    pub is_grpc: bool,
    pub route_name: String,
    /// Name of the destination as Istio writes it; empty without one.
    pub cluster: String,
    pub service: Option<Arc<Service>>,
    pub endpoint: Option<(Arc<Workload>, SocketAddr)>,
    /// 0 until a head was sent.
    pub status: u16,
    pub grpc_status: Option<u32>,
    pub flags: Flags,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    pub failure: String,
    /// Bytes of bodies.
    pub received: Rc<Cell<u64>>,
    pub sent: u64,
    /// Time until the endpoint's answer began.
    pub upstream_time: Option<Duration>,
}

impl Record {
    /// Returns true if nothing says why an answer did not reach its end.
    fn details_of_end_are_missing(&self) -> bool {
        !self.flags.has(Flag::UpstreamTimeout) && !self.details.starts_with("upstream_reset_after_response_started")
    }
}

/// Reports its request when dropped.
pub struct Report {
    pub record: Box<Record>,
    context: Rc<WorkerContext>,
    is_complete: bool,
}

impl Report {
    /// Begins the report of a request.
    pub fn begin(context: Rc<WorkerContext>, record: Record) -> Self {
        Self { record: Box::new(record), context, is_complete: false }
    }

    /// The answer was sent to its end.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let record = &mut self.record;
        if !self.is_complete && record.details_of_end_are_missing() {
            // Nobody has named another reason: the client took no more of it, unless this process has cut it.
            let is_cut = self.context.is_cut.get();
            record.flags.raise(if is_cut { Flag::LocalReset } else { Flag::DownstreamGone });
            record.details = if is_cut { "drained" } else { "downstream_remote_disconnect" }.into();
        }
        let duration = record.began.elapsed();
        self.context.series.observe(record, duration);
        if let Some(log) = &self.context.shared.access_log {
            log.write(access_log::Line { record, duration }.to_string());
        }
    }
}
