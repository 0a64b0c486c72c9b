use super::*;

const MANIFEST: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/data-plane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: db:1, ports: [{containerPort: 8080}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  rules:
  - from:
    - source: {principals: [\"spiffe://cluster.local/ns/shop/sa/cart\"]}
    - source: {namespaces: [monitoring]}
---
apiVersion: v1
kind: Secret
metadata: {name: a, namespace: shop}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: v, namespace: shop}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: c, namespace: shop}
";

const BROKEN: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRIKT}}
";

fn report(files: &[(&str, &str)]) -> (tempfile::TempDir, Report) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let report = directory::analyze(&[directory.path().to_owned()]).unwrap();
    (directory, report)
}

fn said(directory: &tempfile::TempDir, report: &Report) -> String {
    text(report).replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn findings_have_file_and_line_and_what_may_be_elsewhere_is_no_warning() {
    let (directory, report) = report(&[("shop.yaml", MANIFEST)]);

    insta::assert_snapshot!(said(&directory, &report), @r#"
    warning: DIR/shop.yaml:28: Sidecar shop/v: networking.istio.io/v1 is not enforced here: it routes nothing
    warning: DIR/shop.yaml:3: Namespace shop: metadata.labels["istio.io/data-plane-mode"]: label istio.io/data-plane-mode has no effect; did you mean istio.io/dataplane-mode? (misspelt_label)
    warning: DIR/shop.yaml:21: AuthorizationPolicy shop/db: spec.rules[0].from[0].source.principals[0]: principal "spiffe://cluster.local/ns/shop/sa/cart" never matches: principals are written without spiffe://; did you mean "cluster.local/ns/shop/sa/cart"? (invalid_principal)
    warning: DIR/shop.yaml:19: AuthorizationPolicy shop/db: spec.rules: none of the rules matches anything that exists, so that every connection to the selected workloads is refused (allows_nothing)
    info: DIR/shop.yaml:22: AuthorizationPolicy shop/db: spec.rules[0].from[1].source.namespaces[0]: namespace "monitoring" currently matches nothing: namespace not found (in these manifests) (unknown_namespace)
    note: 1 object in 1 file of kinds that have no meaning for the mesh: 1 CronJob

    4 objects read: 0 errors, 4 warnings, 1 info
    "#);
    assert!(!report.is_bad(false) && report.is_bad(true));
}

#[test]
fn a_mistake_is_an_error_and_does_not_hide_the_rest() {
    let (directory, report) = report(&[("a.yaml", BROKEN), ("shop.yaml", MANIFEST)]);

    assert!(report.is_bad(false));
    let said = said(&directory, &report);
    assert!(said.starts_with("error: DIR/a.yaml:4: PeerAuthentication shop/default: spec.mtls.mode: "), "{said}");
    assert!(!said.contains("in force"), "{said}");
    assert!(said.contains("misspelt_label"), "{said}");
}

#[test]
fn manifests_without_a_mistake_are_counted() {
    let (_directory, report) = report(&[("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")]);

    assert_eq!(text(&report), "1 object read: 0 errors, 0 warnings, 0 infos\n");
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let error = directory::analyze(&[PathBuf::from("/nowhere")]).unwrap_err();

    assert_eq!(error.to_string(), "failed to read /nowhere");
}

#[test]
fn a_namespace_is_concerned_by_itself_and_what_is_in_it() {
    for (object, expected) in [
        ("AuthorizationPolicy shop/db", true),
        ("AuthorizationPolicy other/db", false),
        ("Namespace shop", true),
        ("Namespace other", false),
        ("GatewayClass x", true),
    ] {
        assert_eq!(concerns(object, Some("shop")), expected, "{object}");
        assert!(concerns(object, None));
    }
}
