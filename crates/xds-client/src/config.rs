//! Address of the control plane, and the description that the proxy gives of itself.

use std::collections::BTreeMap;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tls::control_plane::{RootSource, Token};

use proto::snapshot;

/// Settings of the connection to the control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port`; `http` is plain TCP.
    pub address: Uri,
    /// Roots for the server's certificate, read again for every connection.
    pub roots: RootSource,
    /// A further host name that the server's certificate may have (`ALT_XDS_HOSTNAME`).
    pub alternative_host: Option<String>,
    /// Bearer token, read again for every stream.
    pub token: Token,
    /// Further request headers: `clusterid`, `XDS_HEADER_*`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Description that the proxy gives of itself.
    pub node: Node,
}

/// The proxy as the control plane sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    id: String,
    metadata: BTreeMap<String, serde_json::Value>,
}

impl Node {
    /// A node proxy.
    pub fn ztunnel(ip: &str, pod: &str, namespace: &str) -> Self {
        Self::new("ztunnel", ip, pod, namespace)
    }

    /// A proxy of `kind`, with which the id begins: by it a control plane chooses what to send.
    pub fn new(kind: &str, ip: &str, pod: &str, namespace: &str) -> Self {
        let id = format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local");
        let mut node = Self { id, metadata: BTreeMap::new() };
        node.set("NAME", pod);
        node.set("NAMESPACE", namespace);
        node.set("INSTANCE_IPS", ip);
        node
    }

    /// Adds or replaces metadata, for example `NODE_NAME` or what `ISTIO_META_*` says.
    pub fn set(&mut self, key: &str, value: impl Into<serde_json::Value>) {
        self.metadata.insert(key.to_owned(), value.into());
    }

    /// `<kind>~<ip>~<pod>.<namespace>~<domain>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn message(&self) -> proto::discovery::Node {
        let fields = self.metadata.iter().map(|(key, value)| (key.clone(), to_value(value)));
        proto::discovery::Node {
            id: self.id.clone(),
            metadata: Some(Struct { fields: fields.collect() }),
            client_features: vec![snapshot::FEATURE.to_owned()],
            ..proto::discovery::Node::default()
        }
    }
}

fn to_value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // A `Struct` has doubles only; numbers beyond their range become text.
        Json::Number(number) => {
            number.as_f64().map_or_else(|| Kind::StringValue(number.to_string()), Kind::NumberValue)
        }
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_value).collect() }),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), to_value(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_proxy_calls_itself_as_istio_expects() {
        let mut node = Node::ztunnel("10.0.0.7", "ztunnel-x", "istio-system");
        node.set("EXTRA", serde_json::json!({"a": [1, true, null]}));

        let message = node.message();

        assert_eq!(message.id, "ztunnel~10.0.0.7~ztunnel-x.istio-system~istio-system.svc.cluster.local");
        let fields = message.metadata.unwrap().fields;
        assert_eq!(fields["NAME"].kind, Some(Kind::StringValue("ztunnel-x".to_owned())));
        assert!(matches!(fields["EXTRA"].kind, Some(Kind::StructValue(_))));
    }
}
