//! One pod that this proxy serves, as all threads see it.

use super::{Connections, Sockets};
use proxy_core::budget::Usage;
use runtime::sys::netns::NetnsId;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names by which discovery knows the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    pub name: String,
    pub namespace: String,
    pub service_account: String,
}

/// One pod, in one network namespace. A pod whose namespace changes is another `Pod` of the same uid.
#[derive(Debug)]
pub struct Pod {
    /// Never used twice by this process.
    pub serial: u64,
    pub uid: String,
    pub info: PodInfo,
    pub sockets: Sockets,
    /// `None`: the process's own namespace.
    pub netns: Option<NetnsId>,
    pub connections: Connections,
    /// Use of the process's budgets.
    pub usage: Arc<Usage>,
    stopped: AtomicBool,
}

impl Pod {
    pub fn new(uid: impl Into<String>, info: PodInfo, sockets: Sockets, netns: Option<NetnsId>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let usage = Arc::new(Usage::new(&info.namespace, &info.name));
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            uid: uid.into(),
            info,
            sockets,
            netns,
            connections: Connections::default(),
            usage,
            stopped: AtomicBool::new(false),
        }
    }

    /// `<namespace>/<name>`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }

    /// No connection of it may begin any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.sockets.close_spare();
    }

    /// See [`stop`](Self::stop).
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
