//! A control plane on a temporary directory, and a node proxy's clients of it.
#![allow(dead_code)]

mod fake;
pub(crate) mod manifests;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_client::CertificateSource as _;
use clap::Parser as _;
use proto::security::Authorization;
use proto::workload::address::Type;
use proto::workload::{Address, Workload};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use runtime::drain;
use serde_json::Value;
use strake_control::{Control, Flags};
use tls::control_plane::{RootSource, Token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use xds_client::{Client, Interest, Rejection, Resource};

pub(crate) use fake::FakeProxy;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Tokens of the node proxies of n1 and n2.
pub(crate) const TOKENS: [(&str, &str); 2] = [("n1", "token of n1"), ("n2", "token of n2")];

pub(crate) struct Running {
    root: tempfile::TempDir,
    control: Control,
    drain: drain::Trigger,
}

impl Running {
    /// Starts with these manifests, by file name.
    pub(crate) async fn start(manifests: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("manifests")).unwrap();
        for (name, text) in manifests {
            fs::write(root.path().join("manifests").join(name), text).unwrap();
        }
        write_tokens(&root.path().join("tokens"));
        Self::start_in(root).await
    }

    /// Another process on the same directories.
    pub(crate) async fn restart(self) -> Self {
        self.drain.start(Duration::from_secs(5));
        tokio::time::timeout(DEADLINE, self.control.ended()).await.unwrap();
        Self::start_in(self.root).await
    }

    async fn start_in(root: tempfile::TempDir) -> Self {
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let flags = Flags::parse_from([
            "strake-control",
            "--manifests",
            &path("manifests"),
            "--state",
            &path("state"),
            "--ca-dir",
            &path("ca"),
            "--node-tokens",
            &path("tokens"),
            "--run-dir",
            &path("run"),
            "--listen",
            "127.0.0.1:0",
            "--monitoring-address",
            "127.0.0.1:0",
        ]);
        let (drain, watch) = drain::channel();
        let control = Control::start(flags.check().unwrap(), None, watch).await.unwrap();
        Self { root, control, drain }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces a manifest as an editor does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let next = self.path("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path("manifests").join(name)).unwrap();
    }

    /// Adds a token of a service account that runs on no node in particular.
    pub(crate) fn add_token(&self, namespace: &str, account: &str, token: &str) {
        let mut text = fs::read_to_string(self.path("tokens")).unwrap();
        text.push_str(&format!(
            "- {{node: \"\", namespace: {namespace}, serviceAccount: {account}, sha256: \"{}\"}}\n",
            digest(token)
        ));
        self.replace_tokens(&text);
    }

    fn replace_tokens(&self, text: &str) {
        let next = self.path("tokens.next");
        fs::write(&next, text).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(next, self.path("tokens")).unwrap();
    }

    /// Takes a node's token away.
    pub(crate) fn revoke(&self, node: &str) {
        let text = fs::read_to_string(self.path("tokens")).unwrap();
        let kept: String = text.split_inclusive('\n').filter(|row| !row.contains(&format!("node: {node},"))).collect();
        self.replace_tokens(&kept);
    }

    /// Writes what the agent writes when it has read a pod's enrolment back.
    pub(crate) async fn enrol(&self, pod: &str) {
        let agent = ::manifests::status(&self.path("state"), "agent");
        let key = kube_types::ObjectRef::new(kube_types::Kind::Pod, "app", pod);
        let patch = serde_json::json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}});
        agent.apply(&key, patch).await.unwrap();
    }

    /// Waits until the condition `Enforced` of a policy is as wanted, and returns its message.
    pub(crate) async fn enforced(&self, policy: &str, status: &str, reason: &str) -> String {
        self.enforced_when(policy, |found| found["status"] == status && found["reason"] == reason).await
    }

    /// Waits until the condition `Enforced` of a policy is as wanted, and returns its message.
    pub(crate) async fn enforced_when(&self, policy: &str, wanted: impl Fn(&Value) -> bool) -> String {
        let condition = |page: &Value| {
            let found = page.as_array()?.iter().find(|found| found["object"] == policy)?;
            let conditions = found["conditions"].as_array()?;
            conditions.iter().find(|condition| condition["type"] == "Enforced").cloned()
        };
        let page = self.page_when("/debug/policies", |page| condition(page).as_ref().is_some_and(&wanted)).await;
        condition(&page).and_then(|condition| condition["message"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// A node proxy of which the test says every word.
    pub(crate) async fn fake(&self, token: &str) -> FakeProxy {
        FakeProxy::connect(self.uri(), self.roots(), token).await
    }

    /// Address that serves discovery and certificates.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.control.address()
    }

    fn uri(&self) -> http::Uri {
        format!("https://localhost:{}", self.control.address().port()).parse().unwrap()
    }

    fn roots(&self) -> RootSource {
        RootSource::Path(self.path("ca/root-cert.pem"))
    }

    /// A node proxy's subscription; `refuses` names a resource that it never accepts.
    pub(crate) fn subscribe(&self, token: &str, refuses: Option<&str>) -> Subscription {
        let (seen, receiver) = watch::channel(Seen::default());
        let config = xds_client::Config {
            address: self.uri(),
            roots: self.roots(),
            alternative_host: None,
            token: Token::Literal(token.to_owned()),
            headers: Vec::new(),
            node: xds_client::Node::ztunnel("10.0.0.1", "ztunnel-n1", "istio-system"),
        };
        let policies = handler(seen.clone(), None, |seen, name, policy: Option<Authorization>| match policy {
            Some(policy) => drop(seen.policies.insert(name, policy)),
            None => drop(seen.policies.remove(&name)),
        });
        let addresses = handler(seen, refuses, |seen, name, address: Option<Address>| match address {
            Some(address) => drop(seen.addresses.insert(name, address)),
            None => drop(seen.addresses.remove(&name)),
        });
        let client = Client::new(config).with(AUTHORIZATION_TYPE_URL, Interest::All, policies).with(
            ADDRESS_TYPE_URL,
            Interest::All,
            addresses,
        );
        let (drain, watch) = drain::channel();
        tokio::spawn(client.run(watch));
        Subscription { seen: receiver, _drain: drain }
    }

    /// Asks for a certificate of `identity` with the token of a node.
    pub(crate) async fn certificate(&self, token: &str, identity: &str) -> Result<tls::WorkloadCertificate, String> {
        let client = ca_client::Client::new(ca_client::ClientConfig {
            address: self.uri(),
            roots: self.roots(),
            alternative_host: None,
            token: Token::Literal(token.to_owned()),
            headers: Vec::new(),
            ttl: Duration::from_secs(3600),
            impersonate: true,
        });
        let identity = identity.parse().unwrap();
        let answer = tokio::time::timeout(DEADLINE, client.fetch(&identity)).await.unwrap();
        answer.map_err(|error| error.to_string())
    }

    /// A page of the admin socket.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let mut socket = UnixStream::connect(self.path("run/admin.sock")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Waits until a page of JSON is as wanted, and returns it.
    pub(crate) async fn page_when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| async {
            let page: Value = serde_json::from_str(&self.page(path).await.1).ok()?;
            wanted(&page).then_some(page)
        })
        .await
    }

    /// Waits until a file is as wanted.
    pub(crate) async fn file_when(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(|| async { fs::read_to_string(self.path(path)).ok().filter(|text| wanted(text)) }).await
    }

    pub(crate) async fn end(self) {
        self.drain.start(Duration::from_secs(5));
        tokio::time::timeout(DEADLINE, self.control.ended()).await.unwrap();
    }
}

/// Tries until there is something, with a deadline.
async fn eventually<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> T {
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let tries = async {
        loop {
            again.tick().await;
            if let Some(found) = attempt().await {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, tries).await.expect("in time")
}

fn digest(token: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn write_tokens(path: &Path) {
    let rows = TOKENS.map(|(node, token)| {
        let hex = digest(token);
        format!("- {{node: {node}, namespace: istio-system, serviceAccount: ztunnel, sha256: \"{hex}\"}}\n")
    });
    fs::write(path, rows.concat()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Resources that a proxy holds.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) addresses: BTreeMap<String, Address>,
    pub(crate) policies: BTreeMap<String, Authorization>,
}

impl Seen {
    pub(crate) fn workload(&self, name: &str) -> Option<&Workload> {
        match self.addresses.get(name)?.r#type.as_ref()? {
            Type::Workload(workload) => Some(workload),
            Type::Service(_) => None,
        }
    }
}

pub(crate) struct Subscription {
    seen: watch::Receiver<Seen>,
    _drain: drain::Trigger,
}

impl Subscription {
    /// Waits until what the proxy holds is as wanted.
    pub(crate) async fn holds(&mut self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let seen = tokio::time::timeout(DEADLINE, self.seen.wait_for(wanted)).await;
        seen.expect("in time").unwrap().clone()
    }
}

fn handler<T: prost::Message + Default + 'static>(
    seen: watch::Sender<Seen>,
    refuses: Option<&str>,
    put: impl Fn(&mut Seen, String, Option<T>) + Send + 'static,
) -> impl FnMut(Vec<Resource<T>>, Vec<String>) -> Vec<Rejection> + Send + 'static {
    let refuses = refuses.map(str::to_owned);
    move |resources, removed| {
        let mut rejections = Vec::new();
        seen.send_modify(|seen| {
            for resource in resources {
                if Some(&resource.name) == refuses.as_ref() {
                    let reason = "not this one".to_owned();
                    rejections.push(Rejection { name: resource.name, reason });
                } else {
                    put(seen, resource.name, Some(resource.message));
                }
            }
            for name in removed {
                put(seen, name, None);
            }
        });
        rejections
    }
}
