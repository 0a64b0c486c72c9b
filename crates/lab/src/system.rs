//! What a lab adds to the user's manifests: namespaces, cluster DNS's Service, and the pods of the mesh, as data. They
//! are run like any others.

use std::{collections::BTreeMap, env, fs, io, os::unix::fs::OpenOptionsExt as _, path::Path, path::PathBuf};

use contract::admin::READY_PATH;
use contract::labels::{DATAPLANE_MODE_LABEL, DATAPLANE_MODE_NONE, NAMESPACE_NAME_LABEL, SERVICE_NAME_LABEL};
use contract::ports;
use graph::enrolment::Enablement;
use kube_types::core::Pod;
use kube_types::{Kind, Resource};
use serde_json::{Value, json};

use crate::{
    addresses::{Dual, dns},
    options::Options,
    paths::{Cgroups, RunDir},
    workloads::{Objects, Planned, digest},
};

/// Namespace of the mesh's own pods.
pub(crate) const SYSTEM_NAMESPACE: &str = "istio-system";

/// Namespace of what Kubernetes itself runs.
const KUBE_NAMESPACE: &str = "kube-system";

/// Bytes of a node token before it is written in hexadecimal.
const TOKEN_BYTES: usize = 32;

/// A node, as far as its system pods need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemNode {
    pub(crate) name: String,
    pub(crate) addresses: Dual,
    /// A path to its network namespace.
    pub(crate) netns: PathBuf,
}

/// Adds what the lab brings along where the user's manifests have nothing of that name.
pub(crate) fn add_objects(objects: &mut Objects, nodes: &[SystemNode], mesh: bool) {
    let mut namespaces = vec!["default".to_owned(), KUBE_NAMESPACE.to_owned()];
    namespaces.extend(mesh.then(|| SYSTEM_NAMESPACE.to_owned()));
    namespaces.extend(objects.keys().map(|key| key.namespace.clone()).filter(|name| !name.is_empty()));
    namespaces.sort();
    namespaces.dedup();
    for name in namespaces {
        let labels = json!({NAMESPACE_NAME_LABEL: name});
        add(objects, Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}));
    }
    add(objects, Kind::Service, dns_service());
    for family in [true, false] {
        add(objects, Kind::EndpointSlice, dns_slice(nodes, family));
    }
    if mesh {
        add(objects, Kind::Service, control_service());
    }
}

fn add(objects: &mut Objects, kind: Kind, value: Value) {
    if let Ok(resource) = Resource::from_value(kind, value) {
        objects.entry(resource.key()).or_insert(resource);
    }
}

fn dns_service() -> Value {
    let dns = dns();
    json!({
        "metadata": {"name": "kube-dns", "namespace": KUBE_NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": dns.v4, "clusterIPs": [dns.v4, dns.v6], "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
        },
    })
}

/// Every node answers for cluster DNS, at its own address too.
fn dns_slice(nodes: &[SystemNode], v4: bool) -> Value {
    let address = |node: &SystemNode| if v4 { node.addresses.both()[0] } else { node.addresses.both()[1] };
    let endpoint =
        |node: &SystemNode| json!({"addresses": [address(node)], "conditions": {"ready": true}, "nodeName": node.name});
    json!({
        "metadata": {
            "name": if v4 { "kube-dns-ipv4" } else { "kube-dns-ipv6" }, "namespace": KUBE_NAMESPACE,
            "labels": {SERVICE_NAME_LABEL: "kube-dns"},
        },
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
    })
}

fn control_service() -> Value {
    json!({
        "metadata": {"name": "strake-control", "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "selector": {"app": "strake-control"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "grpc-xds", "port": ports::CONTROL_GRPC}, {"name": "http-monitoring", "port": ports::MONITORING}],
        },
    })
}

/// The files of one lab that its system pods use.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    pub(crate) options: SystemOptions,
    pub(crate) run: RunDir,
    pub(crate) cgroups: Cgroups,
}

/// What the system pods take from the lab's options.
#[derive(Debug, Clone)]
pub(crate) struct SystemOptions {
    pub(crate) bin_dir: PathBuf,
    pub(crate) manifests: Vec<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) program_env: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) unenrol_grace_seconds: f64,
}

impl Mesh {
    pub(crate) fn new(options: &Options, run: RunDir, cgroups: Cgroups) -> Self {
        // What is set for the lab as a whole (log filters, where the kernel programs are) holds for its programs.
        let inherited = |name: &String| name.starts_with("STRAKE_") || name.starts_with("RUST_");
        let mut env: BTreeMap<_, _> = env::vars().filter(|(name, _)| inherited(name)).collect();
        env.extend(options.system_env.clone());
        let options = SystemOptions {
            bin_dir: options.bin_dir.clone(),
            manifests: options.manifests.clone(),
            env,
            program_env: options.program_env.clone(),
            unenrol_grace_seconds: options.unenrol_grace.as_secs_f64(),
        };
        Self { options, run, cgroups }
    }

    /// Makes the directories and tokens that a node's programs need. A token that is there stays.
    pub(crate) fn prepare(&self, nodes: &[SystemNode]) -> io::Result<()> {
        fs::create_dir_all(self.authority())?;
        let mut known = Vec::new();
        for node in nodes {
            for part in ["zds", "ztunnel", "agent"] {
                fs::create_dir_all(self.run.node(&node.name).join(part))?;
            }
            let path = self.token(&node.name);
            let token = match fs::read_to_string(&path) {
                Ok(token) => token,
                Err(_) => {
                    let token = hex(&rand::random::<[u8; TOKEN_BYTES]>());
                    write_secret(&path, &token)?;
                    token
                }
            };
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
            known.push(json!({
                "node": node.name, "namespace": SYSTEM_NAMESPACE, "serviceAccount": "ztunnel", "sha256": hex(digest.as_ref()),
            }));
        }
        write_secret(&self.node_tokens(), &serde_saphyr::to_string(&known).map_err(io::Error::other)?)
    }

    /// The pods of the mesh.
    pub(crate) fn pods(&self, nodes: &[SystemNode]) -> Vec<Planned> {
        let mut pods = vec![self.control()];
        for node in nodes {
            pods.push(self.agent(node));
            pods.push(self.ztunnel(node));
        }
        pods.into_iter().filter_map(planned).collect()
    }

    fn authority(&self) -> PathBuf {
        self.run.control().join("ca")
    }

    fn node_tokens(&self) -> PathBuf {
        self.run.control().join("node-tokens")
    }

    fn token(&self, node: &str) -> PathBuf {
        self.run.node(node).join("ztunnel").join("token")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.options.bin_dir.join(name)
    }

    fn manifests(&self) -> Vec<String> {
        let text = |path: &PathBuf| path.display().to_string();
        self.options.manifests.iter().flat_map(|path| ["--manifests".to_owned(), text(path)]).collect()
    }

    /// Of a program: what holds for all, what it needs here, and what the user set for it.
    fn environment(&self, program: &str, own: &[(&str, String)]) -> Value {
        let mut all = self.options.env.clone();
        all.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        all.extend(self.options.program_env.get(program).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    }

    fn control(&self) -> Value {
        let mut args = self.manifests();
        args.extend(flags(&[
            ("--state", &self.run.state()),
            ("--ca-dir", &self.authority()),
            ("--node-tokens", &self.node_tokens()),
            ("--run-dir", &self.run.control()),
            ("--listen", Path::new(&all(ports::CONTROL_GRPC))),
            ("--monitoring-address", Path::new(&all(ports::MONITORING))),
            ("--root-namespace", Path::new(SYSTEM_NAMESPACE)),
            ("--trust-domain", Path::new("cluster.local")),
            ("--cluster-id", Path::new("Kubernetes")),
            ("--cluster-domain", Path::new("cluster.local")),
        ]));
        json!({
            "metadata": metadata("strake-control", "strake-control"),
            "spec": {
                "serviceAccountName": "strake-control", "terminationGracePeriodSeconds": 5, "enableServiceLinks": false,
                "containers": [{
                    "name": "strake-control", "command": [self.program("strake-control")], "args": args,
                    "env": self.environment("strake-control", &[]),
                    "readinessProbe": {"httpGet": {"path": READY_PATH, "port": ports::MONITORING}, "periodSeconds": 1},
                }],
            },
        })
    }

    fn agent(&self, node: &SystemNode) -> Value {
        let dir = self.run.node(&node.name);
        let mut args = self.manifests();
        args.extend(flags(&[
            ("--node", Path::new(&node.name)),
            ("--state", &self.run.state()),
            ("--cgroup-root", &self.cgroups.node(&node.name)),
            ("--bpffs-dir", &dir.join("bpffs")),
            ("--host-netns", &node.netns),
            ("--ztunnel-uds-address", &dir.join("zds").join("ztunnel.sock")),
            ("--prober-cgroup", &self.cgroups.kubelet(&node.name)),
            ("--run-dir", &dir.join("agent")),
            ("--cni-agent-run-dir", &dir.join("agent")),
            ("--unenrol-grace", Path::new(&format!("{}s", self.options.unenrol_grace_seconds))),
            ("--exclude-namespaces", Path::new(KUBE_NAMESPACE)),
            ("--monitoring-address", Path::new(&all(ports::MONITORING))),
            ("--health-address", Path::new(&all(ports::AGENT_HEALTH))),
        ]));
        json!({
            "metadata": metadata(&format!("strake-agent-{}", node.name), "strake-agent"),
            "spec": {
                "serviceAccountName": "strake-agent", "nodeName": node.name, "hostNetwork": true,
                "terminationGracePeriodSeconds": 10, "enableServiceLinks": false,
                "containers": [{
                    "name": "strake-agent", "command": [self.program("strake-agent")], "args": args,
                    "env": self.environment("strake-agent", &[]),
                    "readinessProbe": {"httpGet": {"path": READY_PATH, "port": ports::AGENT_HEALTH}, "periodSeconds": 1},
                }],
            },
        })
    }

    fn ztunnel(&self, node: &SystemNode) -> Value {
        let dir = self.run.node(&node.name);
        let path = |path: PathBuf| path.display().to_string();
        let control = format!("https://strake-control.{SYSTEM_NAMESPACE}.svc:{}", ports::CONTROL_GRPC);
        let root = path(self.authority().join("root-cert.pem"));
        let mut env = self.environment(
            "ztunnel",
            &[
                ("SERVICE_ACCOUNT", "ztunnel".to_owned()),
                ("XDS_ADDRESS", control.clone()),
                ("CA_ADDRESS", control),
                ("XDS_ROOT_CA", root.clone()),
                ("CA_ROOT_CA", root),
                ("AUTH_TOKEN", path(self.token(&node.name))),
                ("INPOD_UDS", path(dir.join("zds").join("ztunnel.sock"))),
                ("STRAKE_RUN_DIR", path(dir.join("ztunnel"))),
                ("ISTIO_META_DNS_CAPTURE", "false".to_owned()),
            ],
        );
        if let Value::Array(env) = &mut env {
            env.extend(
                [
                    ("NODE_NAME", "spec.nodeName"),
                    ("POD_NAME", "metadata.name"),
                    ("POD_NAMESPACE", "metadata.namespace"),
                    ("INSTANCE_IP", "status.podIP"),
                ]
                .map(|(name, field)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})),
            );
        }
        json!({
            "metadata": metadata(&format!("ztunnel-{}", node.name), "ztunnel"),
            "spec": {
                "serviceAccountName": "ztunnel", "nodeName": node.name, "terminationGracePeriodSeconds": 10, "enableServiceLinks": false,
                "containers": [{
                    "name": "ztunnel", "command": [self.program("ztunnel")], "args": ["proxy", "ztunnel"], "env": env,
                    "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": ports::PROXY_READINESS}, "periodSeconds": 1},
                }],
            },
        })
    }
}

/// Which pods belong into the mesh, as the lab's agents see it.
pub(crate) fn enablement() -> Enablement {
    Enablement { excluded_namespaces: vec![KUBE_NAMESPACE.to_owned()], system_namespace: SYSTEM_NAMESPACE.to_owned() }
}

fn metadata(name: &str, app: &str) -> Value {
    let labels = json!({"app": app, DATAPLANE_MODE_LABEL: DATAPLANE_MODE_NONE});
    json!({"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels})
}

/// A flag's value: the port on all addresses.
fn all(port: u16) -> String {
    ports::on_all_addresses(port).to_string()
}

fn flags(flags: &[(&str, &Path)]) -> Vec<String> {
    flags.iter().flat_map(|(name, value)| [(*name).to_owned(), value.display().to_string()]).collect()
}

fn planned(value: Value) -> Option<Planned> {
    let pod: Pod = serde_json::from_value(value).ok()?;
    Some(Planned { fingerprint: digest(&pod.spec), by_user: false, rollout: None, job: None, pod })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces the file as a whole, and only when it changes: the control plane reads it again at any time, and half a list of
/// tokens would lock out node proxies.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let draft = path.with_extension("draft");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use kube_types::core::IntOrString;

    use super::*;
    use crate::addresses::NodeNumber;

    fn node() -> SystemNode {
        SystemNode {
            name: "node-1".to_owned(),
            addresses: NodeNumber(1).addresses(),
            netns: PathBuf::from("/proc/1/ns/net"),
        }
    }

    fn mesh() -> Mesh {
        let options = SystemOptions {
            bin_dir: PathBuf::from("/bin"),
            manifests: vec![PathBuf::from("/m")],
            env: BTreeMap::from([("RUST_LOG".to_owned(), "debug".to_owned())]),
            program_env: BTreeMap::from([(
                "ztunnel".to_owned(),
                BTreeMap::from([("LOG_FORMAT".to_owned(), "json".to_owned())]),
            )]),
            unenrol_grace_seconds: 2.0,
        };
        Mesh { options, run: RunDir::of("x"), cgroups: Cgroups::of("x").unwrap() }
    }

    #[test]
    fn there_is_a_control_plane_and_two_programs_on_each_node() {
        let pods = mesh().pods(&[node()]);

        let names: Vec<_> = pods.iter().map(|planned| planned.pod.metadata.name.as_str()).collect();
        assert_eq!(names, ["strake-control", "strake-agent-node-1", "ztunnel-node-1"]);
        for (pod, (path, port)) in pods.iter().zip([("/readyz", 15014), ("/readyz", 8000), ("/healthz/ready", 15021)]) {
            let probe = pod.pod.spec.containers[0].readiness_probe.as_ref().unwrap().http_get.as_ref().unwrap();
            assert_eq!(
                (probe.path.as_str(), &probe.port),
                (path, &IntOrString::Int(port)),
                "it says itself when it is"
            );
        }
        let agent = &pods[1].pod.spec;
        assert!(agent.host_network);
        let grace = agent.containers[0].args.iter().skip_while(|arg| *arg != "--unenrol-grace").nth(1);
        assert_eq!(grace.map(String::as_str), Some("2s"));
        let ztunnel = &pods[2].pod.spec.containers[0].env;
        assert!(ztunnel.iter().any(|variable| variable.name == "RUST_LOG"));
        let format = |env: &[kube_types::core::EnvVar]| env.iter().any(|variable| variable.name == "LOG_FORMAT");
        assert!(format(ztunnel) && !format(&agent.containers[0].env), "it is set for one program only");
        assert!(ztunnel.iter().any(|variable| variable.name == "INSTANCE_IP" && variable.value_from.is_some()));
    }

    #[test]
    fn a_file_of_secrets_is_replaced_as_a_whole_and_only_when_it_changes() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node-tokens");
        let inode = || fs::metadata(&path).unwrap().ino();
        write_secret(&path, "first").unwrap();
        let (first, reader) = (inode(), fs::File::open(&path).unwrap());

        write_secret(&path, "first").unwrap();
        assert_eq!(inode(), first);
        write_secret(&path, "second").unwrap();

        assert_eq!(io::read_to_string(reader).unwrap(), "first", "a reader saw a file that was being written");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_the_user_wrote_is_not_replaced() {
        let mut objects = Objects::new();
        let own = json!({"metadata": {"name": "default", "labels": {"mine": "yes"}}});
        add(&mut objects, Kind::Namespace, own);

        add_objects(&mut objects, &[node()], false);

        let namespaces: Vec<_> = objects.values().filter(|resource| resource.kind() == Kind::Namespace).collect();
        assert_eq!(namespaces.len(), 2);
        assert!(namespaces[0].meta().labels.contains_key("mine"));
        assert_eq!(objects.values().filter(|resource| resource.kind() == Kind::EndpointSlice).count(), 2);
    }
}
