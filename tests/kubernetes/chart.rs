//! The chart, rendered by Helm: what the manifests of the repository are made from. See `story` for an installation by it and
//! `admission` for an API server that takes it.

use std::{collections::BTreeMap, path::Path};

use contract::manifests::{ADMISSION, FILES};
use serde_json::Value;
use testkit::prerequisites;

use crate::stage::{mesh, missing};

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn objects<'a>(texts: impl IntoIterator<Item = &'a str>) -> Objects {
    let documents = texts.into_iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap());
    let name = |value: &Value| value.as_str().expect("a text").to_owned();
    documents
        .filter(|document| !document.is_null())
        .map(|document| ((name(&document["kind"]), name(&document["metadata"]["name"])), document))
        .collect()
}

/// Values of the manifests.
const VALUES: &str = "--values=daemonset/chart/ci/manifests-values.yaml";

/// The chart with these values, beside those of the manifests.
fn render(values: &[&str]) -> anyhow::Result<String> {
    let template = ["template", "strake", "daemonset/chart", "--namespace=istio-system", "--no-hooks", VALUES];
    mesh::helm_alone(&[&template[..], values].concat())
}

#[test]
fn the_manifests_are_what_the_chart_renders() {
    if !prerequisites::met(missing()) {
        return;
    }
    mesh::helm_alone(&["lint", "daemonset/chart", "--namespace=istio-system", "--strict", VALUES]).unwrap();
    for (values, manifests) in [
        (&[][..], FILES.map(|(_, text)| text).to_vec()),
        (&["--set=admission.enabled=true"], FILES.iter().map(|(_, text)| *text).chain([ADMISSION]).collect()),
    ] {
        let rendered = objects([render(values).unwrap().as_str()]);

        let written = objects(manifests);
        let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&rendered), names(&written), "run `cargo xtask manifests`");
        for (name, object) in &written {
            assert_eq!(&rendered[name], object, "{name:?}: run `cargo xtask manifests`");
        }
    }
}

#[test]
fn the_chart_has_the_version_of_the_programs() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemonset/chart/Chart.yaml");
    let chart: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart).unwrap()).unwrap();

    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_mistake_in_the_values_is_named() {
    if !prerequisites::met(missing()) {
        return;
    }
    let template = ["template", "strake", "daemonset/chart", "--namespace=istio-system"];
    for (args, reason) in [
        (&[][..], "global.hub is missing: name the registry and path"),
        (&["--set=global.hub=h,ztunel.logLevel=debug"], "additional properties 'ztunel' not allowed"),
        (&["--set=global.hub=h,cni.logLevl=debug"], "additional properties 'logLevl' not allowed"),
        (
            &["--set=global.hub=h,cni.agentDown=allow"],
            "value must be one of 'refuse-selected', 'refuse-all', 'allow-all'",
        ),
        (&["--set=global.hub=h,pilot.replicaCount=0"], "minimum: got 0, want 1"),
        (
            &["--set=global.hub=h", "--namespace=mesh"],
            "the mesh is installed in the namespace istio-system, not in mesh",
        ),
        (&["--set=global.hub=h,admission.enabled=true", "--kube-version=1.30"], "needs Kubernetes 1.31 or newer"),
        (&["--set=global.hub=h", "--kube-version=1.29"], "chart requires kubeVersion: >=1.30.0-0"),
    ] {
        let error = mesh::helm_alone(&[&template[..], args].concat()).expect_err(reason);

        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn values_reach_the_programs() {
    if !prerequisites::met(missing()) {
        return;
    }
    let rendered = render(&[
        "--set=global.hub=HOST/mesh/,global.tag=dev,global.platform=k3s,global.network=n1,global.multiCluster.clusterName=c1",
        "--set=meshConfig.trustDomain=td,cni.excludeNamespaces={kube-system,other},ztunnel.resources.limits.cpu=2",
        "--set=pilot.replicaCount=2,pilot.image=elsewhere/control:1,pilot.maxWorkloadCertTTL=12h,cni.startupTaint=example.org/new",
        "--set=ztunnel.terminationGracePeriodSeconds=60,ztunnel.logLevel=debug,ztunnel.env.POOL_UNUSED_RELEASE_TIMEOUT=1m",
        "--set=waypoint.istioClass=true,waypoint.logLevel=debug,waypoint.env.A=b,waypoint.priorityClassName=low",
        "--set=waypoint.resources.limits.memory=2Gi,waypoint.nodeSelector.disk=ssd",
        "--set=meshConfig.discoverySelectors[0].matchLabels.mesh=yes,global.imagePullSecrets[0].name=regcred",
    ])
    .unwrap();

    let objects = objects([rendered.as_str()]);
    let at = |kind: &str, name: &str, path: &str| {
        let object = &objects[&(kind.to_owned(), name.to_owned())];
        object.pointer(path).unwrap_or_else(|| panic!("{kind} {name} has no {path}")).clone()
    };
    let container = "/spec/template/spec/containers/0";
    let variable = |name: &str, variable: &str| {
        let env = at("DaemonSet", name, &format!("{container}/env"));
        let entry = env.as_array().unwrap().iter().find(|entry| entry["name"] == variable).cloned();
        entry.unwrap_or_else(|| panic!("{name} has no {variable}"))
    };
    assert_eq!(at("DaemonSet", "ztunnel", &format!("{container}/image")), "HOST/mesh/ztunnel:dev");
    assert_eq!(at("Deployment", "strake-control", &format!("{container}/image")), "elsewhere/control:1");
    let arguments = at("Deployment", "strake-control", &format!("{container}/args"));
    for argument in [
        "--trust-domain=td",
        "--cluster-id=c1",
        "--exclude-namespaces=kube-system,other",
        "--max-workload-cert-ttl=12h",
        "--waypoint-image=HOST/mesh/waypoint:dev",
        "--waypoint-image-pull-policy=IfNotPresent",
        "--waypoint-image-pull-secrets=regcred",
        "--waypoint-env=NETWORK=n1",
        "--waypoint-env=RUST_LOG=debug",
        "--waypoint-env=A=b",
        "--istio-waypoint-class",
    ] {
        assert!(arguments.as_array().unwrap().contains(&argument.into()), "{argument}: {arguments}");
    }
    for (name, value) in [
        ("NETWORK", "n1"),
        ("TRUST_DOMAIN", "td"),
        ("ISTIO_META_CLUSTER_ID", "c1"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "60"),
        ("RUST_LOG", "debug"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "1m"),
    ] {
        assert_eq!(variable("ztunnel", name)["value"], value, "{name}");
    }
    assert_eq!(variable("ztunnel", "ZTUNNEL_CPU_LIMIT")["valueFrom"]["resourceFieldRef"]["resource"], "limits.cpu");
    assert_eq!(at("DaemonSet", "ztunnel", "/spec/template/spec/terminationGracePeriodSeconds"), 60);
    assert_eq!(variable("strake-agent", "CNI_NET_DIR")["value"], "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    assert_eq!(at("ConfigMap", "strake-agent", "/data/STRAKE_STARTUP_TAINT"), "example.org/new");
    assert_eq!(at("ClusterRoleBinding", "strake-agent-startup-taint", "/roleRef/name"), "strake-agent-startup-taint");
    assert_eq!(at("Namespace", "istio-system", "/metadata/labels/topology.istio.io~1network"), "n1");
    assert_eq!(at("PodDisruptionBudget", "strake-control", "/spec/maxUnavailable"), 1);
    assert_eq!(
        at("ConfigMap", "istio", "/data/mesh"),
        "discoverySelectors:\n  - matchLabels:\n      mesh: \"yes\"\n",
        "the mesh configuration"
    );
    let overlay: Value =
        serde_saphyr::from_str(at("ConfigMap", "strake-waypoint", "/data/deployment").as_str().unwrap()).unwrap();
    let pod = &overlay["spec"]["template"]["spec"];
    assert_eq!((&pod["nodeSelector"]["disk"], &pod["priorityClassName"]), (&"ssd".into(), &"low".into()));
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "2Gi");
    for (kind, name) in [("DaemonSet", "strake-agent"), ("DaemonSet", "ztunnel"), ("Deployment", "strake-control")] {
        assert_eq!(at(kind, name, "/spec/template/spec/imagePullSecrets/0/name"), "regcred");
    }
}

#[test]
fn without_waypoints_the_control_plane_may_make_nothing() {
    if !prerequisites::met(missing()) {
        return;
    }
    let rendered = objects([render(&["--set=waypoint.enabled=false"]).unwrap().as_str()]);

    let role = rendered[&("ClusterRole".to_owned(), "strake-control".to_owned())].to_string();
    assert!(!role.contains("poddisruptionbudgets") && !role.contains("\"delete\""), "{role}");
    let control = rendered[&("Deployment".to_owned(), "strake-control".to_owned())].to_string();
    assert!(!control.contains("--waypoint"), "{control}");
}
