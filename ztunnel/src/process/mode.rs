//! Starts the proxy for all pods that the agent enrols, or for the one workload of its own namespace.

use super::{StartError, capabilities};
use crate::config::{Config, Mode, PreserveSource, WorkloadInfo};
use crate::enrolment::{self, Pods};
use crate::inpod::{DnsOptions, Keepalive, ListenerKind, Pod, PodInfo, SocketOptions, Sockets, Status};
use crate::workers::PodWorkers;
use proxy_core::process::Process;
use std::sync::Arc;
use telemetry::readiness::{Readiness, Task};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Name of the pods as a task of readiness.
const PODS_TASK: &str = "workload proxy manager";

/// Starts listeners, and in shared mode the connection to the agent. The task ends only when agent and proxy
/// do not speak the same protocol, or with the drain.
pub(super) async fn start(
    config: &Config,
    workers: &Arc<PodWorkers>,
    process: &Process,
    status: &watch::Sender<Status>,
) -> Result<Option<JoinHandle<Result<(), zds::ZdsError>>>, StartError> {
    match &config.traffic.mode {
        Mode::Dedicated(info) => dedicated(config, info, workers, status).await.map(|()| None),
        Mode::Shared => shared(config, workers, process, status).await.map(Some),
    }
}

async fn dedicated(
    config: &Config,
    info: &WorkloadInfo,
    workers: &Arc<PodWorkers>,
    status: &watch::Sender<Status>,
) -> Result<(), StartError> {
    let info = PodInfo {
        name: info.name.clone(),
        namespace: info.namespace.clone(),
        service_account: info.service_account.clone(),
    };
    // `/etc/resolv.conf` of the process is that of its one pod: its search domains are the pod's.
    let options = SocketOptions { dns: dns_options(config, true), ..options(config, config.traffic.preserve_source) };
    let sockets = Sockets::in_own_netns(Arc::new(options));
    let pod = Arc::new(Pod::new("dedicated", info.clone(), sockets, None));
    enrolment::launch(workers, &pod, &ListenerKind::ALL).await?;
    let entry = crate::inpod::PodStatus { uid: pod.uid.clone(), info, running: Some(pod) };
    status.send_replace(Status { ready: true, pods: vec![entry], started: 1, stopped: 0 });
    Ok(())
}

async fn shared(
    config: &Config,
    workers: &Arc<PodWorkers>,
    process: &Process,
    status: &watch::Sender<Status>,
) -> Result<JoinHandle<Result<(), zds::ZdsError>>, StartError> {
    // Now, with a clear error, instead of at the first pod.
    let home = capabilities::test(config.traffic.packet_mark)?;
    // Before the agent: the proxy's own pod is not enrolled by anybody.
    start_self(config, workers).await?;
    follow(process.readiness().clone(), status.subscribe());
    let options = SocketOptions { dns: dns_options(config, false), ..options(config, config.traffic.preserve_source) };
    let pods = Pods::new(workers.clone(), home, Arc::new(options), status.clone());
    let (socket, drain) = (config.traffic.zds_socket.clone(), process.drain());
    Ok(tokio::spawn(async move { enrolment::run(pods, &socket, drain).await }))
}

/// A tunnel listener of the proxy's own pod, so that its metrics can be scraped in mutual TLS.
async fn start_self(config: &Config, workers: &Arc<PodWorkers>) -> Result<(), StartError> {
    let node = &config.common.node;
    let (Some(name), Some(namespace), Some(account)) = (&node.pod_name, &node.pod_namespace, &node.service_account)
    else {
        return Ok(());
    };
    let info = PodInfo { name: name.clone(), namespace: namespace.clone(), service_account: account.clone() };
    // Nothing redirects the connections of the proxy's own pod, so there is no mark to be known by; and no rule leads
    // the answers to a client's address back to the proxy, so the application sees the proxy's.
    let options = SocketOptions { mark: None, ..options(config, PreserveSource::Never) };
    let pod = Arc::new(Pod::new("self", info, Sockets::in_own_netns(Arc::new(options)), None));
    enrolment::launch(workers, &pod, &[ListenerKind::Hbone]).await?;
    Ok(())
}

/// Not ready while the agent has not named all pods. Also keeps the gauges.
fn follow(readiness: Readiness, mut status: watch::Receiver<Status>) {
    let mut pending: Option<Task> = Some(readiness.task(PODS_TASK));
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            // Not ready again after the agent has gone: the pods of its next connection are not known yet.
            match now.ready {
                true => pending = None,
                false if pending.is_none() => pending = Some(readiness.task(PODS_TASK)),
                false => {}
            }
            metrics::gauge!("workload_manager_active_proxy_count").set(now.active() as f64);
            metrics::gauge!("workload_manager_pending_proxy_count").set(now.pending() as f64);
            metrics::counter!("workload_manager_proxies_started_total").absolute(now.started);
            metrics::counter!("workload_manager_proxies_stopped_total").absolute(now.stopped);
        }
    });
}

/// DNS of the pods; `None` when it is switched off. `own_search`: search domains are those of the process, too.
fn dns_options(config: &Config, own_search: bool) -> Option<DnsOptions> {
    let dns = &config.dns;
    if !dns.enabled {
        return None;
    }
    // The proxy is worth its start without them: names of the mesh are answered.
    let conf = dns::ResolvConf::of_process().unwrap_or_else(|error| {
        tracing::warn!(%error, code = "no_nameserver", "names outside of the mesh are answered with SERVFAIL");
        dns::ResolvConf::default()
    });
    let settings = dns::Settings {
        cluster_domain: dns.cluster_domain.clone(),
        preferred_namespace: dns.preferred_namespace.clone(),
        ipv6: config.common.listeners.ipv6,
        search: own_search.then_some(conf.search),
        nameservers: conf.nameservers,
    };
    Some(DnsOptions { listen: dns.listen.clone(), settings: Arc::new(settings) })
}

/// Without DNS.
fn options(config: &Config, preserve: PreserveSource) -> SocketOptions {
    let sockets = &config.common.sockets;
    SocketOptions {
        mark: config.traffic.packet_mark,
        reuse_port: config.traffic.port_reuse,
        ipv6: config.common.listeners.ipv6,
        preserve_source: match preserve {
            PreserveSource::Required => Some(true),
            PreserveSource::Never => Some(false),
            PreserveSource::Auto => None,
        },
        keepalive: sockets.keepalive.then_some(Keepalive {
            idle: sockets.keepalive_time,
            interval: sockets.keepalive_interval,
            retries: sockets.keepalive_retries,
        }),
        user_timeout: sockets.user_timeout,
        dns: None,
    }
}
