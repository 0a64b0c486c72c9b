//! Services and their addresses by host name, as a client's DNS question means them. It knows neither messages nor search
//! domains; see the crate `dns`.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use parking_lot::RwLockReadGuard;

use crate::{IpFamilies, Service, State, Workload, state::Store};

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4, record type A.
    V4,
    /// IPv6, record type AAAA.
    V6,
}

impl Family {
    /// Returns whether `ip` is of this family.
    #[must_use]
    pub const fn contains(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

/// A client, and the rules by which one of several services of a host name is the one that it means.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The client.
    pub client: &'a Workload,
    /// Suffix of the names of Kubernetes' Services, such as `svc.cluster.local`. A service below it counts without an
    /// address; another one without an address has only the addresses that DNS servers elsewhere know.
    pub service_suffix: &'a str,
    /// Namespace to prefer after the client's own and after canonical services.
    pub preferred_namespace: Option<&'a str>,
}

/// All names of the mesh as of one instant. Updates wait as long as it is held: never keep it across a wait.
pub struct Names<'a>(RwLockReadGuard<'a, Store>);

impl<'a> Names<'a> {
    /// Of `state`.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        Self(state.read())
    }

    /// Returns the service that `asker` means by exactly this host name, which may be a wildcard such as `*.example.com`.
    /// Case does not count.
    #[must_use]
    pub fn service(&self, hostname: &str, asker: &Asker<'_>) -> Option<Arc<Service>> {
        let named = self.0.index.services_by_hostname(hostname).iter();
        let client = &asker.client.namespace;
        let candidates = named.filter(|s| s.is_visible_to(client) && has_own_addresses(s, asker.service_suffix));
        // min_by_key: of equals the oldest.
        let rank = |s: &Service| {
            let preferred = asker.preferred_namespace.is_some_and(|namespace| s.namespace == *namespace);
            (s.namespace != *client, !s.canonical, !preferred)
        };
        candidates.min_by_key(|s| rank(s)).cloned()
    }

    /// Returns the addresses of `service` for `client`, each once, in no order that means anything: those of the service in
    /// the client's network, or without any one of each endpoint there that is fit for traffic.
    #[must_use]
    pub fn addresses(&self, service: &Service, client: &Workload, family: Family) -> Vec<IpAddr> {
        if service.ip_families.is_some_and(|families| !accepts(families, family)) {
            return Vec::new();
        }
        let mut found: Vec<IpAddr> = if service.vips.is_empty() {
            let key = service.key();
            let endpoints = self.0.members(&key).filter(|w| service.admits(w.status));
            // Addresses of another network are other machines here.
            let near = endpoints.filter(|w| w.network == client.network);
            near.filter_map(|w| w.workload_ips.iter().find(|ip| family.contains(**ip)).copied()).collect()
        } else {
            let own = service.vips.iter().filter(|vip| vip.network == client.network);
            own.map(|vip| vip.address).filter(|ip| family.contains(*ip)).collect()
        };
        found.sort_unstable();
        found.dedup();
        found
    }
}

const fn accepts(families: IpFamilies, family: Family) -> bool {
    match families {
        IpFamilies::Dual => true,
        IpFamilies::IPv4 => matches!(family, Family::V4),
        IpFamilies::IPv6 => matches!(family, Family::V6),
    }
}

fn has_own_addresses(service: &Service, suffix: &str) -> bool {
    !service.vips.is_empty() || is_below(&lowercase(&service.hostname), suffix)
}

/// Returns whether `name` is a name below `domain`; both in lower case.
fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Host names in the form by which they are found: names of DNS do not depend on case (RFC 4343).
pub(crate) fn lowercase(hostname: &str) -> Cow<'_, str> {
    if hostname.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(hostname.to_ascii_lowercase())
    } else {
        Cow::Borrowed(hostname)
    }
}
