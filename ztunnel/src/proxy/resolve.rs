//! Second step: the route of a connection, down to the address of its next hop. It opens nothing; see `dial`.

use super::context::PodContext;
use super::shared::Shared;
use hickory_resolver::TokioResolver;
use model::view::{self, Dial, Route, RouteError};
use model::{Text, Workload};
use proxy_core::discovery::{LookupError, UnreadableAddress, is_unsettled};
use rand::seq::IndexedRandom;
use std::net::{IpAddr, SocketAddr};

/// Reason for which there is no next hop.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Unreadable(#[from] UnreadableAddress),
    /// The workload has a name and no address, and the name has none either.
    #[error("no ip addresses were resolved for workload {0}")]
    NoAddress(Text),
}

impl ResolveError {
    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Route(e) => e.code(),
            Self::Unreadable(_) => "destination_unreadable",
            Self::NoAddress(_) => "no_address",
        }
    }
}

impl From<LookupError> for ResolveError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Route(error) => error.into(),
            LookupError::Unreadable(error) => error.into(),
        }
    }
}

/// A route and the address of its next hop.
#[derive(Debug)]
pub struct Resolved {
    pub route: Route,
    /// Address to connect to.
    pub next_hop: SocketAddr,
}

/// Names of workloads without addresses, as the proxy's own resolver knows them.
pub struct Names(Option<TokioResolver>);

impl Names {
    /// Reads `/etc/resolv.conf`. Without a usable one, such workloads cannot be reached.
    pub fn system() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|b| b.build());
        if let Err(e) = &resolver {
            tracing::warn!(error = %e, "no resolver: workloads that have only a hostname cannot be reached");
        }
        Self(resolver.ok())
    }

    /// Resolves nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    /// One of the addresses of `hostname`, of the family of `original` when there is one.
    async fn lookup(&self, hostname: &str, original: SocketAddr) -> Option<IpAddr> {
        let answers: Vec<IpAddr> = self.0.as_ref()?.lookup_ip(hostname).await.ok()?.iter().collect();
        // An application that connects by one family has an address of it in its pod; of the other one nothing is known.
        let same: Vec<_> = answers.iter().filter(|ip| ip.is_ipv4() == original.is_ipv4()).copied().collect();
        let choices = if same.is_empty() { &answers } else { &same };
        choices.choose(&mut rand::rng()).copied()
    }
}

/// Returns the route of a connection that `source` opens to `original_dst`; through none of the endpoints in `aside`, as long as
/// the service has another one. Waits for discovery when that has not announced the address, for at most half a second.
pub async fn outbound(
    context: &PodContext,
    source: &Workload,
    original_dst: SocketAddr,
    aside: &[Text],
) -> Result<Resolved, ResolveError> {
    let Shared { state, lookups, .. } = &**context.shared();
    let preferred = if aside.is_empty() { None } else { view::outbound_except(state, source, original_dst, aside) };
    let first = preferred.map_or_else(|| view::outbound(state, source, original_dst), Ok);
    let route = if is_unsettled(&first) {
        // Boxed, as most connections are to addresses of the mesh.
        Box::pin(lookups.route(state, source, original_dst, first)).await?
    } else {
        first?
    };
    next_hop(&context.shared().names, source, route).await
}

/// Returns the route of the same connection through another endpoint than those in `tried`, if there is one.
pub async fn another(
    context: &PodContext,
    source: &Workload,
    original_dst: SocketAddr,
    tried: &[Text],
) -> Option<Resolved> {
    let route = view::outbound_except(&context.shared().state, source, original_dst, tried)?;
    next_hop(&context.shared().names, source, route).await.ok()
}

async fn next_hop(names: &Names, source: &Workload, route: Route) -> Result<Resolved, ResolveError> {
    let next_hop = match &route.dial {
        Dial::Address(address) => *address,
        Dial::Hostname { hostname, port, original } => {
            // Boxed, as it is rare.
            let ip = Box::pin(names.lookup(hostname, *original)).await;
            metrics::counter!(
                "istio_on_demand_dns_total",
                "hostname" => hostname.to_string(),
                "source_workload" => source.workload_name.to_string(),
                "source_workload_namespace" => source.namespace.to_string(),
                "source_canonical_service" => source.canonical_name.to_string(),
                "source_canonical_revision" => source.canonical_revision.to_string(),
            )
            .increment(1);
            SocketAddr::new(ip.ok_or_else(|| ResolveError::NoAddress(hostname.clone()))?, *port)
        }
    };
    Ok(Resolved { route, next_hop })
}
