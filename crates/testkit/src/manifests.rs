//! Manifests of the pods that tests use, as text. Nothing is applied here.

use std::fmt::Write as _;

use crate::prerequisites::bin_dir;

/// A namespace, in or out of the mesh.
#[must_use]
pub fn namespace(name: &str, ambient: bool) -> String {
    let label = if ambient { "\n  labels:\n    istio.io/dataplane-mode: ambient" } else { "" };
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{label}\n")
}

/// A pod that plays all servers of the test application, with the service account of its name.
#[must_use]
pub fn app(namespace: &str, name: &str, node: &str) -> String {
    let program = bin_dir().join("strake-testapp");
    command(namespace, name, node, &[&program.display().to_string(), "serve"], true)
}

/// A pod that only waits to be told what to do.
#[must_use]
pub fn idle(namespace: &str, name: &str, node: &str) -> String {
    command(namespace, name, node, &["sleep", "infinity"], false)
}

/// A pod with a command, label `app` and service account of its name; with a readiness probe of the test
/// application's HTTP port where wanted.
#[must_use]
pub fn command(namespace: &str, name: &str, node: &str, argv: &[&str], probed: bool) -> String {
    let mut text =
        format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {namespace}\n");
    // JSON is YAML: arguments need no quoting of their own.
    let argv = serde_json::json!(argv);
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels:\n    app: {name}\n\
         spec:\n  serviceAccountName: {name}\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: app\n    image: none\n    \
         command: {argv}\n"
    );
    if probed {
        text.push_str(
            "    readinessProbe:\n      periodSeconds: 1\n      httpGet:\n        path: /ready\n        port: 8080\n",
        );
    }
    text
}

/// A Service in front of the pods labelled `app: <name>`, both families, with all ports of the test application.
#[must_use]
pub fn service(namespace: &str, name: &str) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  \
         ipFamilyPolicy: RequireDualStack\n  selector:\n    app: {name}\n  ports:\n"
    );
    for port in [7000, 7001, 7002, 7003, 7004, 7005, 7006, 8080] {
        let _ = writeln!(text, "  - name: tcp-{port}\n    port: {port}");
    }
    // a port of the Service that is another one in the pod
    text.push_str("  - name: http\n    port: 80\n    targetPort: 8080\n");
    text
}

/// The smallest mesh on two nodes: `mesh/client` on node-1, who waits to be told what to do, and `mesh/server` on node-2
/// behind its Service.
#[must_use]
pub fn client_and_server() -> String {
    namespace("mesh", true)
        + &idle("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
}

/// PeerAuthentication of a namespace.
#[must_use]
pub fn peer_authentication(namespace: &str, mode: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: {namespace}\n\
         spec:\n  mtls:\n    mode: {mode}\n"
    )
}

/// AuthorizationPolicy that denies one principal.
#[must_use]
pub fn deny(namespace: &str, name: &str, principal: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  action: DENY\n  rules:\n  - from:\n    - source:\n        principals: [\"{principal}\"]\n"
    )
}
