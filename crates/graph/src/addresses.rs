//! Findings about addresses that are not valid, or that discovery cannot carry.

use contract::Unsupported;
use contract::address::parse_address;
use kube_types::ObjectRef;
use kube_types::core::{Pod, Service};

use crate::finding::{Finding, Reason};
use crate::resolved::Endpoints;

/// Findings about the addresses of a pod. The workload has the others.
pub(crate) fn of_pod(key: &ObjectRef, pod: &Pod) -> Vec<Finding> {
    // A pod with an invalid address stays a workload: leaving it out would send plaintext to its other addresses.
    let invalid = pod.addresses().filter(|text| parse_address(text).is_none());
    let message = |text: &str| format!("invalid pod IP {text:?}");
    invalid.map(|text| Finding::warning(key, Reason::InvalidAddress, message(text)).at("status.podIPs")).collect()
}

/// Findings about the addresses of a Service, which keeps the others.
pub(crate) fn of_service(key: &ObjectRef, service: &Service) -> Vec<Finding> {
    let invalid = service.spec.addresses().filter(|text| parse_address(text).is_none());
    let message = |text: &str| format!("invalid clusterIP {text:?}");
    invalid.map(|text| Finding::warning(key, Reason::InvalidAddress, message(text))).collect()
}

/// Findings about the addresses of a slice. An endpoint with an invalid one is left out as a whole.
pub(crate) fn of_endpoints(key: &ObjectRef, endpoints: &Endpoints) -> Vec<Finding> {
    if endpoints.slice.address_type == "FQDN" {
        let unsupported = Unsupported::new("addressType FQDN", "no connection is sent to these endpoints");
        return vec![Finding::warning(key, Reason::Unsupported, unsupported.to_string()).at("addressType")];
    }
    // One finding for each endpoint: it is left out whole, so that its other addresses do not matter.
    let invalid = endpoints
        .external()
        .filter_map(|endpoint| endpoint.addresses.iter().find(|text| parse_address(text).is_none()));
    let message = |text: &str| format!("invalid endpoint address {text:?}: the endpoint is left out");
    invalid.map(|text| Finding::warning(key, Reason::InvalidAddress, message(text))).collect()
}
