//! A small mesh: what more than one test starts with.

/// The namespace `app`, in the mesh.
pub(crate) const NAMESPACE: &str = "apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio.io/dataplane-mode: ambient}}
";

/// `web` on node n1 and `db` on n2, which nobody has enrolled.
pub(crate) const PODS: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: app, labels: {app: web}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: app, labels: {app: db}}
spec: {nodeName: n2, serviceAccountName: db, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.1.1, conditions: [{type: Ready, status: 'True'}]}
";

/// Allows calls to `web` from its own namespace.
pub(crate) const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: app}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from:
    - source:
        namespaces: [app]
";

/// Refuses plaintext in the whole namespace.
pub(crate) const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: app}
spec: {mtls: {mode: STRICT}}
";
