//! Everything of the catalogue comes out of a real Prometheus as it was recorded, in each format that programs serve.
//!
//! All three programs serve what one recorder renders, by one router, so this is about each of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use telemetry::http::{Request, Router, Server};
use telemetry::metrics::{CATALOGUE, Kind, Metric, Recorder};

/// Longest wait for a program and for the first scrapes.
const DEADLINE: Duration = Duration::from_secs(15);

/// A format: its job in Prometheus, and what a reader that wants it accepts.
const FORMATS: [(&str, &str); 2] =
    [("openmetrics", "application/openmetrics-text;version=1.0.0"), ("text", "text/plain;version=0.0.4")];

/// Values of labels that formats have to escape, or may misread.
const AWKWARD: [&str; 5] = ["spiffe://cluster.local/ns/a/sa/b", "a \"b\"\\c\nd", "{x=\"y\"} 1", "ä→\u{1f980}", "# EOF"];

/// The largest count that a float holds exactly.
const LARGE: u64 = (1 << 53) - 1;

/// A program of Debian's package `prometheus`: installed, or unpacked by `scripts/setup.sh`.
fn program(name: &str) -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/prometheus/usr/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain([unpacked]).map(|dir| dir.join(name)).find(|path| path.exists());
    if found.is_none() {
        let reason = format!("no {name}: scripts/setup.sh unpacks it");
        assert!(std::env::var_os("CI").is_none(), "skipped: {reason}");
        println!("skipped: {reason}");
    }
    found
}

/// Name, and labels in the order of their names.
type Series = (String, BTreeMap<String, String>);

/// What is recorded: the samples that Prometheus must have, whatever the format.
type Samples = BTreeMap<Series, f64>;

/// True for a metric that the recorder itself reads when it is scraped.
fn is_of_the_process(metric: &Metric) -> bool {
    metric.name.starts_with("process_")
}

/// Records something in each metric of the catalogue, each with another value.
fn record() -> Samples {
    let mut samples = Samples::new();
    for (number, metric) in CATALOGUE.iter().filter(|metric| !is_of_the_process(metric)).enumerate() {
        let labels: Vec<(String, String)> = metric
            .labels
            .iter()
            .enumerate()
            .map(|(index, label)| ((*label).to_owned(), AWKWARD[(number + index) % AWKWARD.len()].to_owned()))
            .collect();
        let series = |suffix: &str, le: Option<&str>| {
            let le = le.map(|le| ("le".to_owned(), le.to_owned()));
            (format!("{}{suffix}", metric.name), labels.iter().cloned().chain(le).collect())
        };
        match metric.kind {
            Kind::Counter => {
                let value = LARGE - number as u64;
                metrics::counter!(metric.name, &labels).increment(value);
                samples.insert(series("", None), value as f64);
            }
            Kind::Gauge => {
                let value = -0.1 - number as f64 * 1e-9;
                metrics::gauge!(metric.name, &labels).set(value);
                samples.insert(series("", None), value);
            }
            Kind::Histogram(bounds) => {
                // One in each bucket, at its bound, and one above the last.
                let values: Vec<f64> = bounds.iter().copied().chain([bounds[bounds.len() - 1] * 2.0]).collect();
                values.iter().for_each(|value| metrics::histogram!(metric.name, &labels).record(*value));
                for (index, bound) in bounds.iter().enumerate() {
                    samples.insert(series("_bucket", Some(&bound.to_string())), index as f64 + 1.0);
                }
                samples.insert(series("_bucket", Some("+Inf")), values.len() as f64);
                samples.insert(series("_count", None), values.len() as f64);
                samples.insert(series("_sum", None), values.iter().sum());
            }
        }
    }
    samples
}

/// Serves the recorder's `/metrics` at a path for each format: Debian's Prometheus cannot be told which it is to ask for.
async fn serve(recorder: &Recorder) -> SocketAddr {
    let inner = Arc::new(recorder.routes(Router::new()));
    let mut router = Router::new();
    for (path, accept) in [("/openmetrics", FORMATS[0].1), ("/text", FORMATS[1].1)] {
        let inner = inner.clone();
        router = router.get(path, move |_| {
            let inner = inner.clone();
            async move {
                let request = http::Request::get("/metrics").header("accept", accept);
                let request: Request = request.body(bytes::Bytes::new()).unwrap();
                inner.answer(request).await
            }
        });
    }
    // As Prometheus asks by itself.
    router = recorder.routes(router);
    let server = Server::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.local_addr().unwrap();
    let (trigger, drain) = runtime::drain::channel();
    tokio::spawn(async move {
        let _trigger = trigger;
        server.serve(Arc::new(router), drain).await;
    });
    address
}

/// Prometheus, ended with this value.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, target: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let job = |name: &str, path: &str| {
            format!("- {{ job_name: {name}, metrics_path: {path}, static_configs: [{{ targets: [\"{target}\"] }}] }}\n")
        };
        let jobs: String = FORMATS.iter().map(|(name, _)| job(name, &format!("/{name}"))).collect();
        let jobs = jobs + &job("by_itself", "/metrics");
        let text = format!("global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n{jobs}");
        std::fs::write(dir.path().join("prometheus.yml"), text).unwrap();
        let mut process = Command::new(program)
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
            address.trim().parse().ok()
        });
        // It ends when it can no longer write its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: address.expect("Prometheus says where it listens"), _dir: dir }
    }

    /// The field `data` of an answer; `None` while it does not succeed.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let answer: Value = serde_json::from_str(body).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// Waits until each target was scraped, and returns the errors of the scrapes.
    fn scraped(&self) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let targets = self.ask("/api/v1/targets").map(|data| data["activeTargets"].clone()).unwrap_or_default();
            let targets = targets.as_array().cloned().unwrap_or_default();
            if targets.len() == FORMATS.len() + 1 && targets.iter().all(|target| target["health"] != "unknown") {
                return targets
                    .iter()
                    .filter_map(|target| Some(target["lastError"].as_str()?.to_owned()))
                    .filter(|error| !error.is_empty())
                    .collect();
            }
            assert!(Instant::now() < deadline, "not scraped within {DEADLINE:?}: {targets:?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Every series of a job, without the labels that Prometheus adds and the series about the scrape.
    fn samples(&self, job: &str) -> Samples {
        let data = self.ask(&format!("/api/v1/query?query=%7Bjob%3D%22{job}%22%7D")).unwrap();
        let series = data["result"].as_array().unwrap().iter().map(|sample| {
            let mut labels: BTreeMap<String, String> = serde_json::from_value(sample["metric"].clone()).unwrap();
            let name = labels.remove("__name__").unwrap();
            labels.retain(|label, _| !["job", "instance"].contains(&label.as_str()));
            ((name, labels), sample["value"][1].as_str().unwrap().parse().unwrap())
        });
        series.filter(|((name, _), _): &(Series, f64)| name != "up" && !name.starts_with("scrape_")).collect()
    }

    /// Type, help and unit of each family of a job.
    fn metadata(&self, job: &str) -> BTreeMap<String, [String; 3]> {
        let data = self.ask(&format!("/api/v1/targets/metadata?match_target=%7Bjob%3D%22{job}%22%7D")).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entries = data.as_array().unwrap().iter();
        entries.map(|entry| (text(&entry["metric"]), ["type", "help", "unit"].map(|key| text(&entry[key])))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _: (std::io::Result<()>, _) = (self.process.kill(), self.process.wait());
    }
}

/// Name of the family in a format: OpenMetrics names a counter's without `_total`.
fn family(metric: &Metric, job: &str) -> String {
    let name = if job == "text" { metric.name } else { metric.name.strip_suffix("_total").unwrap_or(metric.name) };
    name.to_owned()
}

/// Metrics about which `promtool check metrics` complains: Istio's ztunnel has these names, and dashboards read them.
const ISTIOS_NAMES: [&str; 3] = [
    "istio_request_duration_milliseconds",
    "workload_manager_active_proxy_count",
    "workload_manager_pending_proxy_count",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_format_comes_out_of_a_prometheus_as_it_was_recorded() {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else { return };
    let recorder = telemetry::metrics::install().unwrap();
    let recorded = record();

    let prometheus = Prometheus::start(&prometheus, serve(&recorder).await);
    let errors = prometheus.scraped();

    assert_eq!(errors, [""; 0]);
    for job in ["openmetrics", "text", "by_itself"] {
        let (of_process, samples): (Samples, Samples) =
            prometheus.samples(job).into_iter().partition(|((name, _), _)| name.starts_with("process_"));
        let lost: Vec<_> = recorded.iter().filter(|(series, value)| samples.get(series) != Some(value)).collect();
        let added: Vec<_> = samples.keys().filter(|series| !recorded.contains_key(series)).collect();
        assert!(lost.is_empty() && added.is_empty(), "{job}: lost or changed: {lost:#?}; not recorded: {added:#?}");
        let names: Vec<&str> = of_process.keys().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<&str> = CATALOGUE.iter().filter(|m| is_of_the_process(m)).map(|m| m.name).collect();
        assert_eq!(names, expected, "{job}");
        assert!(of_process.values().all(|value| *value > 0.0), "{job}: {of_process:?}");

        let expected: BTreeMap<String, [String; 3]> = CATALOGUE
            .iter()
            .map(|metric| (family(metric, job), [metric.kind.name(), metric.help, ""].map(str::to_owned)))
            .collect();
        assert_eq!(prometheus.metadata(job), expected, "{job}");
    }

    let complaints = lint(&promtool, &recorder.render_text());
    let about: Vec<&str> = complaints.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(about, ISTIOS_NAMES, "{complaints}");
}

/// Complaints of `promtool check metrics`.
fn lint(promtool: &Path, text: &str) -> String {
    let mut process = Command::new(promtool);
    let process = process.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = process.stdout(Stdio::piped()).spawn().unwrap();
    // It reads all before it writes.
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
