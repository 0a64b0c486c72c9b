//! Addresses of objects in one form: see [`contract::address`].

use contract::address::{parse_address, parse_block};
use serde_json::Value;

use crate::istio::{ConditionKey, ValueForm};
use crate::kinds::Kind;

/// Fields with addresses, by kind.
// `::ffff:10.0.0.1` and `10.0.0.1` are one address (RFC 4291, section 2.5.5.2), but two texts: without one form the
// proxies and the policies would compare them as two.
const ADDRESSES: [(Kind, &[&str]); 13] = [
    (Kind::Pod, &["status", "podIP"]),
    (Kind::Pod, &["status", "hostIP"]),
    (Kind::Pod, &["status", "podIPs", "ip"]),
    (Kind::Pod, &["status", "hostIPs", "ip"]),
    (Kind::Service, &["spec", "clusterIP"]),
    (Kind::Service, &["spec", "clusterIPs"]),
    (Kind::Service, &["spec", "externalIPs"]),
    (Kind::EndpointSlice, &["endpoints", "addresses"]),
    (Kind::Node, &["status", "addresses", "address"]),
    (Kind::ServiceEntry, &["spec", "endpoints", "address"]),
    (Kind::ServiceEntry, &["status", "addresses", "value"]),
    (Kind::WorkloadEntry, &["spec", "address"]),
    (Kind::Gateway, &["status", "addresses", "value"]),
];

/// Rewrites the addresses of an object that are mapped into IPv6. Others stay as they are written, also invalid ones, which
/// a check names.
pub(crate) fn canonicalise(kind: Kind, value: &mut Value) {
    for (_, path) in ADDRESSES.iter().filter(|(owner, _)| *owner == kind) {
        each(value, path, &mut address);
    }
    if kind == Kind::ServiceEntry {
        // Apart from the table: addresses here may be blocks.
        each(value, &["spec", "addresses"], &mut address_or_block);
    }
    if kind == Kind::AuthorizationPolicy {
        for field in ["ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"] {
            each(value, &["spec", "rules", "from", "source", field], &mut block);
        }
        each(value, &["spec", "rules", "when"], &mut condition);
    }
}

/// Applies a change to every value at a path, through lists on the way.
fn each(value: &mut Value, path: &[&str], change: &mut impl FnMut(&mut Value)) {
    match (value, path) {
        // A list is no step of the path: `endpoints.addresses` means those of every endpoint.
        (Value::Array(items), path) => items.iter_mut().for_each(|item| each(item, path, change)),
        (value, []) => change(value),
        (value, [name, rest @ ..]) => {
            if let Some(value) = value.get_mut(name) {
                each(value, rest, change);
            }
        }
    }
}

fn address(value: &mut Value) {
    rewrite(value, |text| parse_address(text).map(|address| address.to_string()));
}

/// An address stays one without length.
fn address_or_block(value: &mut Value) {
    match value.as_str().is_some_and(|text| text.contains('/')) {
        true => block(value),
        false => address(value),
    }
}

fn block(value: &mut Value) {
    rewrite(value, |text| parse_block(text).map(|block| block.to_string()));
}

fn condition(value: &mut Value) {
    let key = value.get("key").and_then(Value::as_str).and_then(ConditionKey::of);
    if key.is_some_and(|key| key.values == ValueForm::Block) {
        each(value, &["values"], &mut block);
        each(value, &["notValues"], &mut block);
    }
}

/// Rewrites mapped addresses only: other text stays as its author wrote it.
fn rewrite(value: &mut Value, canonical: impl Fn(&str) -> Option<String>) {
    if let Value::String(text) = value
        // A cheap look first: nearly no address is written like this.
        && text.to_ascii_lowercase().contains("ffff:")
        // What is left without a colon was a mapped IPv4 address; other IPv6 addresses keep the form of their author.
        && let Some(canonical) = canonical(text).filter(|canonical| !canonical.contains(':'))
    {
        *text = canonical;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_address_of_an_object_becomes_canonical() {
        let mapped = "::ffff:10.0.0.5";
        let (six, none) = ("2001:db8::ffff:1", "None");
        for (kind, written, read) in [
            (
                Kind::Pod,
                json!({"status": {"podIP": mapped, "podIPs": [{"ip": mapped}, {"ip": six}], "hostIPs": [{"ip": mapped}]}}),
                json!({"status": {"podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": six}], "hostIPs": [{"ip": "10.0.0.5"}]}}),
            ),
            (
                Kind::Service,
                json!({"spec": {"clusterIP": none, "clusterIPs": [mapped], "externalIPs": [mapped]}}),
                json!({"spec": {"clusterIP": none, "clusterIPs": ["10.0.0.5"], "externalIPs": ["10.0.0.5"]}}),
            ),
            (
                Kind::EndpointSlice,
                json!({"endpoints": [{"addresses": [mapped, six]}]}),
                json!({"endpoints": [{"addresses": ["10.0.0.5", six]}]}),
            ),
            (
                Kind::ServiceEntry,
                json!({"spec": {"addresses": [mapped, "::ffff:10.0.0.0/104", six], "endpoints": [{"address": mapped}]}}),
                json!({"spec": {"addresses": ["10.0.0.5", "10.0.0.0/8", six], "endpoints": [{"address": "10.0.0.5"}]}}),
            ),
            (Kind::WorkloadEntry, json!({"spec": {"address": mapped}}), json!({"spec": {"address": "10.0.0.5"}})),
            (
                Kind::AuthorizationPolicy,
                json!({"spec": {"rules": [{
                    "from": [{"source": {"ipBlocks": ["::ffff:10.0.0.0/104", "fe80::/10"]}}],
                    "when": [{"key": "destination.ip", "values": [mapped]}, {"key": "connection.sni", "values": [mapped]}],
                }]}}),
                json!({"spec": {"rules": [{
                    "from": [{"source": {"ipBlocks": ["10.0.0.0/8", "fe80::/10"]}}],
                    "when": [{"key": "destination.ip", "values": ["10.0.0.5/32"]}, {"key": "connection.sni", "values": [mapped]}],
                }]}}),
            ),
        ] {
            let mut value = written;
            canonicalise(kind, &mut value);
            assert_eq!(value, read, "{kind}");
        }
    }
}
