//! An API server that has one pod and one namespace.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::spawn;

use cni::Kubeconfig;
use rcgen::CertifiedKey;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::Plugin;

const TOKEN: &str = "the-plugins-token";

/// Objects of the server.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) pod_uid: &'static str,
    pub(crate) pod_labels: Value,
    pub(crate) namespace_labels: Value,
    /// Status of every answer instead of the objects.
    pub(crate) refused: Option<u16>,
}

impl Default for Objects {
    fn default() -> Self {
        Self { pod_uid: "u1", pod_labels: Value::Null, namespace_labels: Value::Null, refused: None }
    }
}

impl Objects {
    fn answer(&self, request: &str) -> (u16, Value) {
        if !request.contains(&format!("Authorization: Bearer {TOKEN}\r\n")) {
            return (401, json!({"message": "Unauthorized"}));
        }
        if let Some(status) = self.refused {
            return (status, json!({"message": "said the API server"}));
        }
        match request.split(' ').nth(1) {
            Some("/api/v1/namespaces/shop/pods/web") => {
                let metadata = json!({
                    "name": "web", "namespace": "shop", "uid": self.pod_uid, "labels": self.pod_labels,
                    "annotations": null, "managedFields": [],
                });
                (
                    200,
                    json!({"kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
                )
            }
            Some("/api/v1/namespaces/shop") => {
                (200, json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": self.namespace_labels}}))
            }
            _ => (404, json!({"message": "not found"})),
        }
    }
}

/// Serves objects over TLS for as long as the test runs, and gives the plugin a kubeconfig for it.
pub(crate) fn with_api(plugin: Plugin, objects: Objects) -> Plugin {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    spawn(move || {
        for stream in listener.incoming() {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && tls.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            let (status, body) = objects.answer(&String::from_utf8_lossy(&request));
            let body = body.to_string();
            // A plugin that does not like the certificate has gone.
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _: std::io::Result<()> = tls.write_all(answer.as_bytes()).and_then(|()| tls.flush());
        }
    });
    let kubeconfig = Kubeconfig { authority, certificates: cert.pem().into_bytes(), token: TOKEN.to_owned() };
    with_kubeconfig(plugin, &kubeconfig)
}

pub(crate) fn with_kubeconfig(plugin: Plugin, kubeconfig: &Kubeconfig) -> Plugin {
    let path = plugin.dir.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_json()).unwrap();
    plugin.with("kubeconfig", path.display().to_string())
}
