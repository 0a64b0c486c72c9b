//! Findings about ServiceEntries and WorkloadEntries: what of them has no effect.

use contract::Unsupported;
use contract::address::{parse_address, parse_block};
use kube_types::ObjectRef;
use kube_types::istio::{Resolution, ServiceEntry, WorkloadEntrySpec};

use crate::finding::{Finding, Reason};
use crate::resolved::Visibility;

/// Prefix of an address that is a socket in a file system.
const UNIX: &str = "unix://";

/// Findings about an entry that counts for these hosts. `visibility` is `None` when the mesh hides the entry.
pub(crate) fn of_service_entry(
    key: &ObjectRef,
    entry: &ServiceEntry,
    hosts: &[String],
    visibility: Option<Visibility>,
) -> Vec<Finding> {
    let spec = &entry.spec;
    let mut found = Vec::new();
    let mut warn =
        |reason, field: String, message: String| found.push(Finding::warning(key, reason, message).at(field));
    if visibility.is_none() {
        let message = "hidden by serviceEntryVisibility of the mesh configuration: the entry has no effect";
        warn(Reason::Ignored, String::new(), message.to_owned());
        // Nothing of a hidden entry is served, so mistakes in its details have no effect.
        return found;
    }
    for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !hosts.contains(host)) {
        let message = format!("another service of this namespace has the host {host:?} and takes precedence");
        warn(Reason::Shadowed, format!("spec.hosts[{index}]"), message);
    }
    for (index, address) in spec.addresses.iter().enumerate().filter(|(_, text)| parse_block(text).is_none()) {
        let message = format!("invalid address {address:?}: expected an IP address or a CIDR block; it is left out");
        warn(Reason::InvalidAddress, format!("spec.addresses[{index}]"), message);
    }
    // Istio's ambient mode ignores it, too: the mesh configuration's `serviceEntryVisibility` takes its place.
    if !spec.export_to.is_empty() && spec.export_to != ["*"] {
        let unsupported = Unsupported::new("exportTo", "workloads of every namespace see the services");
        warn(Reason::Unsupported, "spec.exportTo".to_owned(), unsupported.to_string());
    }
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        let message = "endpoints and workloadSelector exclude each other: connections go to both";
        warn(Reason::Ambiguous, "spec.workloadSelector".to_owned(), message.to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}].address");
        if let Some(fault) = fault(endpoint, spec.resolution) {
            warn(Reason::InvalidAddress, field, fault);
        } else if !endpoint.address.is_empty() && !seen.insert(endpoint.address.as_str()) {
            // The address is a part of the resource's name, so that two with one address would be one resource.
            let message = format!("address {:?} occurs twice: the second endpoint is left out", endpoint.address);
            warn(Reason::Duplicate, field, message);
        }
    }
    found
}

/// Finding about a host for which no address is left.
pub(crate) fn exhausted(key: &ObjectRef, host: &str) -> Finding {
    let message = format!("no address is left for {host:?}: all of 240.240.0.0/16 are in use");
    Finding::warning(key, Reason::InvalidAddress, message).at("spec.hosts")
}

pub(crate) fn of_workload_entry(key: &ObjectRef, spec: &WorkloadEntrySpec) -> Option<Finding> {
    // A WorkloadEntry has no resolution of its own; a host name is valid under that of most entries.
    let fault = fault(spec, Resolution::Dns)?;
    Some(Finding::warning(key, Reason::InvalidAddress, fault).at("spec.address"))
}

/// Fault of the address of an endpoint, and what happens instead.
fn fault(endpoint: &WorkloadEntrySpec, resolution: Resolution) -> Option<String> {
    let address = endpoint.address.as_str();
    // Istio's API: with a network an endpoint without address is reached by the gateway of that network.
    if address.is_empty() && endpoint.network.is_empty() {
        return Some("address is missing: no connection is sent there".to_owned());
    }
    if address.starts_with(UNIX) {
        return Some(format!("address {address:?} is a Unix socket, which node proxies cannot reach: it is left out"));
    }
    let is_name = !address.is_empty() && parse_address(address).is_none();
    (is_name && resolution == Resolution::Static).then(|| {
        format!("address {address:?} is no IP address, which resolution STATIC expects: it is looked up by name")
    })
}
