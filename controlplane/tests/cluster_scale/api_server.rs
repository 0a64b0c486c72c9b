//! etcd and kube-apiserver on free ports of this machine, without controllers.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube_cluster::{ApiServer, Collection, Credentials, Objects};

/// Programs that `make cluster-build` makes.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kubernetes/bin");

const CRDS: &str = include_str!("../../../daemonset/manifests/crds.yaml");

/// Token of the administrator.
const TOKEN: &str = "of-this-test";

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The API server and its store.
pub(crate) struct ApiServerProcess {
    directory: PathBuf,
    port: u16,
    etcd_port: u16,
    api_server: Option<Process>,
    _etcd: Process,
    objects: Objects,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(directory: &Path, program: &str, args: &[String]) -> Process {
    let log = std::fs::File::create(directory.join(format!("{program}.log"))).unwrap();
    let path = Path::new(PROGRAMS).join(program);
    let mut command = Command::new(&path);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap_or_else(|error| panic!("{}: {error}; run `make cluster-build`", path.display())))
}

impl ApiServerProcess {
    pub(crate) async fn start(directory: &Path) -> Self {
        let (port, etcd_port, peers) = (free_port(), free_port(), free_port());
        let key = directory.join("accounts.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        std::fs::write(directory.join("users.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        std::fs::write(directory.join("kubeconfig"), kubeconfig(port)).unwrap();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = [
            format!("--data-dir={}", directory.join("etcd").display()),
            format!("--listen-client-urls={}", url(etcd_port)),
            format!("--advertise-client-urls={}", url(etcd_port)),
            format!("--listen-peer-urls={}", url(peers)),
            format!("--initial-advertise-peer-urls={}", url(peers)),
            format!("--initial-cluster=default={}", url(peers)),
            "--unsafe-no-fsync".to_owned(),
        ];
        let etcd = spawn(directory, "etcd", &etcd);
        let path = directory.join("kubeconfig");
        let server = ApiServer::new(&Credentials::Kubeconfig { path, context: None }).await.unwrap();
        let (directory, objects) = (directory.to_owned(), Objects::new(&server));
        let mut started = Self { directory, port, etcd_port, api_server: None, _etcd: etcd, objects };
        started.run().await;
        started.install_kinds().await;
        started
    }

    async fn run(&mut self) {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--cert-dir={}", file("certs")),
            format!("--token-auth-file={}", file("users.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.key")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-cluster-ip-range=10.200.0.0/16".to_owned(),
        ];
        self.api_server = Some(spawn(&self.directory, "kube-apiserver", &args));
        let namespaces = Collection::all("v1", "namespaces").named("default");
        self.until("the API server answers", async || {
            self.objects.get(&namespaces).await.is_ok_and(|found| found.is_some())
        })
        .await;
    }

    /// Ends the API server and starts it again; etcd keeps everything.
    pub(crate) async fn restart(&mut self) {
        self.api_server = None;
        self.run().await;
    }

    async fn install_kinds(&self) {
        let crds = Collection::all("apiextensions.k8s.io/v1", "customresourcedefinitions");
        for crd in serde_saphyr::from_multiple::<serde_json::Value>(CRDS).unwrap() {
            let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
            self.objects.create(&crds.clone().named(&name), &crd).await.unwrap();
        }
        for plural in ["authorizationpolicies", "peerauthentications"] {
            let kind = Collection::all("security.istio.io/v1", plural);
            self.until(plural, async || self.objects.list(&kind, None, None).await.is_ok()).await;
        }
    }

    async fn until(&self, what: &str, is_true: impl AsyncFn() -> bool) {
        let mut again = tokio::time::interval(Duration::from_millis(100));
        let wait = async {
            while !is_true().await {
                again.tick().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), wait).await;
        assert!(waited.is_ok(), "not in time: {what}; logs are in {}", self.directory.display());
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    pub(crate) fn objects(&self) -> Objects {
        self.objects.clone()
    }
}

/// The certificate of the API server is of its own making, on the loopback of this machine.
fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: {TOKEN}}}}}]
"
    )
}
