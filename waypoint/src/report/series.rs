//! Metrics of requests on one worker: handles by what the labels are made of, so that a request costs one look-up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Service, Workload};
use telemetry::metrics::{PeerLabels, RequestHandles, RequestLabels};

use super::{Flags, Record};
use crate::tunnel::Client;

/// Entries before the first sweep.
const FIRST_SWEEP: usize = 1024;

/// Handles of a worker's series.
#[derive(Debug, Default)]
pub struct Series(RefCell<Cache>);

#[derive(Debug, Default)]
struct Cache {
    by_key: HashMap<Key, Entry>,
    sweep_at: usize,
}

/// Identity of everything that labels are made of. Addresses stand for what is behind them: an [`Entry`] keeps it alive, so
/// none is used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    client_workload: usize,
    principal: Option<identity::Identity>,
    service: usize,
    endpoint: usize,
    is_grpc: bool,
    status: u16,
    grpc_status: Option<u32>,
    flags: Flags,
}

#[derive(Debug)]
struct Entry {
    handles: RequestHandles,
    _client: Option<Arc<Workload>>,
    _service: Option<Arc<Service>>,
    _endpoint: Option<Arc<Workload>>,
}

fn address<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared) as usize)
}

impl Series {
    /// Counts a request that has ended.
    pub fn observe(&self, record: &Record, duration: Duration) {
        let endpoint = record.endpoint.as_ref().map(|(workload, _)| workload);
        let key = Key {
            client_workload: address(record.client.workload.as_ref()),
            principal: record.client.identity.clone(),
            service: address(record.service.as_ref()),
            endpoint: address(endpoint),
            is_grpc: record.is_grpc,
            status: record.status,
            grpc_status: record.grpc_status,
            flags: record.flags,
        };
        let cache = &mut *self.0.borrow_mut();
        if cache.by_key.len() >= cache.sweep_at.max(FIRST_SWEEP) && !cache.by_key.contains_key(&key) {
            // When it has doubled, so that the cost for each entry stays the same however many peers come and go.
            cache.by_key.retain(|_, entry| !entry.handles.is_idle());
            cache.sweep_at = cache.by_key.len() * 2;
        }
        let entry = cache.by_key.entry(key).or_insert_with(|| Entry {
            handles: RequestHandles::new(labels(record)),
            _client: record.client.workload.clone(),
            _service: record.service.clone(),
            _endpoint: endpoint.cloned(),
        });
        entry.handles.observe(duration, record.received.get(), record.sent);
    }
}

fn labels(record: &Record) -> RequestLabels {
    let service = record.service.as_deref();
    let mut destination = record.endpoint.as_ref().map(|(workload, _)| peer(workload)).unwrap_or_default();
    if let Some(identity) = record.endpoint.as_ref().and_then(|(workload, _)| workload.identity()) {
        destination.principal = identity.as_str().into();
    }
    RequestLabels {
        source: source(&record.client),
        destination_service: service.map_or_else(Arc::default, |s| s.hostname.as_arc()),
        destination_service_name: service.map_or_else(Arc::default, |s| s.name.as_arc()),
        destination_service_namespace: service.map_or_else(Arc::default, |s| s.namespace.as_arc()),
        destination,
        request_protocol: if record.is_grpc { "grpc" } else { "http" },
        response_code: record.status,
        grpc_response_status: record.grpc_status.map(|status| status.to_string()).unwrap_or_default(),
        response_flags: record.flags.to_string(),
        mutual_tls: record.client.identity.is_some(),
    }
}

fn source(client: &Client) -> PeerLabels {
    let mut labels = client.workload.as_deref().map(peer).unwrap_or_default();
    if let Some(identity) = &client.identity {
        labels.principal = identity.as_str().into();
        // What was proved counts more than what the address suggests.
        labels.namespace = identity.namespace().into();
    }
    labels
}

fn peer(workload: &Workload) -> PeerLabels {
    PeerLabels {
        workload: workload.workload_name.as_arc(),
        canonical_service: workload.canonical_name.as_arc(),
        canonical_revision: workload.canonical_revision.as_arc(),
        namespace: workload.namespace.as_arc(),
        principal: Arc::default(),
        app: workload.canonical_name.as_arc(),
        version: workload.canonical_revision.as_arc(),
        cluster: workload.cluster_id.as_arc(),
        region: workload.locality.region.as_arc(),
        zone: workload.locality.zone.as_arc(),
    }
}
