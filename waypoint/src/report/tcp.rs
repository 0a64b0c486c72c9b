//! Access log of connections that are not HTTP.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use model::Workload;
use time::OffsetDateTime;

use super::access_log::{TcpLine, start_time};
use super::{Flag, Flags};
use crate::context::WorkerContext;
use crate::tcp::Carried;
use crate::tunnel::Opened;

/// Reports its connection when dropped.
pub struct Tcp {
    pub opened: Opened,
    pub endpoint: Option<(Arc<Workload>, SocketAddr)>,
    /// `None` until there was a connection to the endpoint.
    pub carried: Option<Carried>,
    pub failure: String,
    /// Details of a denial by policies.
    pub denied: Option<String>,
    pub start_time: OffsetDateTime,
    began: Instant,
    context: Rc<WorkerContext>,
}

impl Tcp {
    /// Begins the report of a connection.
    pub fn open(context: Rc<WorkerContext>, opened: Opened) -> Self {
        let (start_time, began) = (OffsetDateTime::now_utc(), Instant::now());
        Self { opened, endpoint: None, carried: None, failure: String::new(), denied: None, start_time, began, context }
    }

    fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        if self.denied.is_some() {
            return flags;
        }
        match (&self.endpoint, &self.carried) {
            (None, _) => flags.raise(Flag::NoHealthyUpstream),
            (Some(_), None) => flags.raise(Flag::UpstreamFailure),
            (Some(_), Some(carried)) if !carried.is_complete => flags.raise(Flag::UpstreamTermination),
            (Some(_), Some(_)) => {}
        }
        flags
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if let Some(log) = &self.context.shared.access_log {
            let line = TcpLine {
                start: start_time(self.start_time),
                flags: self.flags(),
                failure: &self.failure,
                details: self.denied.as_deref().unwrap_or_default(),
                carried: self.carried.unwrap_or_default(),
                duration: self.began.elapsed(),
                endpoint: self.endpoint.as_ref().map(|(_, address)| *address),
                opened: &self.opened,
            };
            log.write(line.to_string());
        }
    }
}
