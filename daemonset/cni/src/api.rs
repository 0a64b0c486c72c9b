//! A pod and its namespace from the API server: for the time without an agent, which otherwise knows them.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::http::{Response, request};
use cni::{Bounded, Kubeconfig, exchange};
use contract::labels::CONFIG_HASH_ANNOTATION;
use kube_types::core::{Namespace, Pod};
use kube_types::resource::strip_nulls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::call::PodRef;

/// Longest time of both reads together.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(2500);

/// Largest object. etcd takes none of more than 1.5 MiB.
const MAX_BYTES: usize = 4 << 20;

/// Port of `https` without one.
const DEFAULT_PORT: u16 = 443;

/// Reads the pod of a sandbox, and its namespace.
///
/// # Errors
/// In words, when one of the two cannot be read: nothing is known then.
pub(crate) fn read(kubeconfig: &Path, wanted: &PodRef) -> Result<(Pod, Namespace), String> {
    // One deadline for both reads, beside the agent's: a runtime gives a plugin limited time.
    let deadline = Instant::now() + TIMEOUT;
    let failed = |reason: String| format!("failed to read kubeconfig {}: {reason}", kubeconfig.display());
    let text = fs::read(kubeconfig).map_err(|error| failed(error.to_string()))?;
    let kubeconfig = Kubeconfig::parse(&text).map_err(|error| failed(error.to_string()))?;
    let tls = tls(&kubeconfig.certificates)?;
    let PodRef { namespace, name, uid } = wanted;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    // The pod first: a namespace without it decides nothing.
    let pod: Pod = get(&kubeconfig, &tls, &path, deadline)?;
    if uid.as_ref().is_some_and(|uid| !is_pod(&pod, uid)) {
        return Err(format!("the API server has another pod called {namespace}/{name}"));
    }
    let namespace = get(&kubeconfig, &tls, &format!("/api/v1/namespaces/{namespace}"), deadline)?;
    Ok((pod, namespace))
}

/// A static pod has another uid for the kubelet than in the API.
fn is_pod(pod: &Pod, uid: &str) -> bool {
    pod.metadata.uid == uid || pod.metadata.annotations.get(CONFIG_HASH_ANNOTATION).is_some_and(|hash| hash == uid)
}

fn tls(certificates: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificates) {
        let certificate = certificate.map_err(|error| format!("certificate of the API server's authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("certificate of the API server's authority: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The provider is named, since none is installed for the process.
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn get<T: DeserializeOwned>(
    kubeconfig: &Kubeconfig,
    tls: &Arc<ClientConfig>,
    path: &str,
    deadline: Instant,
) -> Result<T, String> {
    let Kubeconfig { authority, token, .. } = kubeconfig;
    let failed = |reason: String| format!("failed to get {path} from {authority}: {reason}");
    let headers = format!("Accept: application/json\r\nAuthorization: Bearer {token}\r\n");
    let request = request("GET", path, authority, &headers, b"");
    let Response { status, body } = send(authority, tls, &request, deadline).map_err(&failed)?;
    // A proxy in between may answer in HTML; the status is reported then.
    let mut value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != 200 {
        let message = value["message"].as_str().unwrap_or("no reason given");
        return Err(failed(format!("{status}: {message}")));
    }
    // Go writes `null` for empty lists of some fields.
    strip_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| failed(format!("unexpected answer: {error}")))
}

fn send(authority: &str, tls: &Arc<ClientConfig>, request: &[u8], deadline: Instant) -> Result<Response, String> {
    let (host, port) = split(authority).ok_or("expected HOST:PORT")?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let address = (host, port).to_socket_addrs().map_err(|error| error.to_string())?.next().ok_or("no address")?;
    // `connect_timeout` refuses zero.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let tcp = TcpStream::connect_timeout(&address, left).map_err(|error| error.to_string())?;
    let mut tcp = Bounded::new(tcp, deadline);
    let mut connection = ClientConnection::new(tls.clone(), name).map_err(|error| error.to_string())?;
    exchange(&mut Stream::new(&mut connection, &mut tcp), request, MAX_BYTES).map_err(|error| error.to_string())
}

/// Host without brackets, and port.
fn split(authority: &str) -> Option<(&str, u16)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    match rest.strip_prefix(':') {
        Some(port) => Some((host, port.parse().ok()?)),
        None => rest.is_empty().then_some((host, DEFAULT_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_address_has_a_host_and_a_port() {
        assert_eq!(split("10.96.0.1:6443"), Some(("10.96.0.1", 6443)));
        assert_eq!(split("[fd00::1]:443"), Some(("fd00::1", 443)));
        assert_eq!(split("[fd00::1]"), Some(("fd00::1", 443)));
        assert_eq!(split("api.example"), Some(("api.example", 443)));
        assert_eq!(split("[fd00::1"), None);
        assert_eq!(split("host:port"), None);
    }
}
