//! The application protocol of a service port, from its fields.

use kube_types::core::ServicePort;
use proto::workload::AppProtocol;

/// Ports of server-first protocols: TCP unless something else is said.
// SMTP, DNS, MySQL and MongoDB, as in Istio.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// `appProtocol` counts first, then the port's name up to the first `-`, then well-known numbers. What
/// discovery has no name for (gRPC-Web, MongoDB, ...) is unknown.
pub(crate) fn app_protocol(port: &ServicePort) -> AppProtocol {
    // The mesh carries nothing else.
    if port.protocol() != "TCP" {
        return AppProtocol::Unknown;
    }
    if let Some(declared) = port.app_protocol.as_deref() {
        return match declared.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => AppProtocol::Http2,
            "kubernetes.io/ws" => AppProtocol::Http11,
            "kubernetes.io/wss" => AppProtocol::Tls,
            name => named(name).unwrap_or(AppProtocol::Unknown),
        };
    }
    let name = port.name.to_ascii_lowercase();
    // Before the prefix is cut off: it would read as `grpc`.
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return AppProtocol::Unknown;
    }
    let prefix = name.split('-').next().unwrap_or_default();
    named(prefix).unwrap_or(if SERVER_FIRST.contains(&port.port) { AppProtocol::Tcp } else { AppProtocol::Unknown })
}

/// The protocol that a ServiceEntry names.
pub(crate) fn by_name(protocol: &str) -> AppProtocol {
    named(&protocol.to_ascii_lowercase()).unwrap_or(AppProtocol::Unknown)
}

fn named(name: &str) -> Option<AppProtocol> {
    Some(match name {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "tls" | "https" => AppProtocol::Tls,
        // Known to Istio, without a name in discovery.
        "udp" | "mongo" | "mysql" | "redis" | "hbone" => AppProtocol::Unknown,
        _ => return None,
    })
}
