//! A lab of one test: its manifests in a temporary directory, its name unique.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lab::{Lab, LabError, Options};
use tempfile::TempDir;

/// Longest time that anything here may take; the machine may be busy.
#[allow(dead_code, reason = "not every test file waits itself")]
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A lab without mesh and the directory of its manifests.
pub(crate) struct Fixture {
    pub(crate) lab: Lab,
    pub(crate) manifests: TempDir,
}

/// Returns true if labs can be made here. With `CI` set a machine that cannot is a failure.
pub(crate) fn possible() -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t0\t"));
    if !root {
        assert!(std::env::var_os("CI").is_none(), "skipped: a lab needs root");
        eprintln!("skipped: a lab needs root");
    }
    root
}

/// Options of a lab that no other test has.
pub(crate) fn options(manifests: &Path) -> Options {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut options = Options::new(format!("test-{}-{number}", process::id()), manifests);
    options.program = PathBuf::from(env!("CARGO_BIN_EXE_strake-labd"));
    options.mesh = false;
    options
}

impl Fixture {
    /// Starts a lab with these manifests and waits for its pods.
    pub(crate) async fn up(manifests: &[(&str, &str)]) -> Self {
        let fixture = Self::start(manifests).await;
        if let Err(err) = fixture.lab.wait_ready(DEADLINE).await {
            let log = fs::read_to_string(fixture.lab.run_dir().supervisor_log()).unwrap_or_default();
            panic!("{err}\n{log}");
        }
        fixture
    }

    /// Starts a lab with these manifests.
    pub(crate) async fn start(manifests: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in manifests {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let lab = start(options(dir.path())).await.unwrap();
        Self { lab, manifests: dir }
    }

    /// Writes a manifest as an editor does: a new file over the old one.
    #[allow(dead_code, reason = "not every test file edits")]
    pub(crate) fn write(&self, name: &str, text: &str) {
        let temporary = self.manifests.path().join(format!(".{name}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.manifests.path().join(name)).unwrap();
    }

    /// Runs a command line of a shell in a pod; its output without the last newline.
    pub(crate) async fn shell(&self, pod: &str, line: &str) -> (i32, String) {
        let output = self.lab.exec(pod, &["sh", "-c", line]).await.unwrap();
        (output.code, output.text() + &output.error_text())
    }
}

async fn start(options: Options) -> Result<Lab, LabError> {
    Lab::start(options).await
}

/// A pod that only waits.
pub(crate) fn waiting(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, command: [sleep, infinity]}}\n"
    )
}

/// A web server of three replicas with a Service, each answering with its host name.
#[allow(dead_code, reason = "not every test file has a server")]
pub(crate) const WEB: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: server}
data:
  server.py: |
    import http.server, socket
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = (socket.gethostname() + " " + self.client_address[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *args): pass
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
    Server(("::", 8080), Handler).serve_forever()
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        command: [python3, /opt/web/server.py]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        volumeMounts: [{name: code, mountPath: /opt/web}]
      volumes:
      - {name: code, configMap: {name: server}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"#;
