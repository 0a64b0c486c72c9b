//! Manifests of the test image, whose program is `cluster/tools/app`.

/// Name of the test image, version 1. Version 2 differs in what it answers.
const APP: &str = "localhost/app:1";

/// A pod of the test image on a given node.
#[derive(Debug)]
pub(crate) struct Workload {
    name: String,
    node: String,
    arguments: String,
    extra: String,
}

impl Workload {
    /// A server on port 8080, with the label `app: server`.
    pub(crate) fn server(name: &str, node: &str) -> Self {
        Self::new(name, node, "[serve, \"8080\"]")
            .with("readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}")
    }

    /// A pod that waits for commands.
    pub(crate) fn client(name: &str, node: &str) -> Self {
        Self::new(name, node, "[serve, \"9090\"]")
    }

    fn new(name: &str, node: &str, arguments: &str) -> Self {
        Self { name: name.to_owned(), node: node.to_owned(), arguments: arguments.to_owned(), extra: String::new() }
    }

    /// Adds a line to the container.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.extra.push_str(&format!("\n    {line}"));
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        let Self { name, node, arguments, extra } = self;
        let role = name.split('-').next().unwrap_or(name);
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {role}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: {APP}
    imagePullPolicy: Never
    args: {arguments}
    env:
    - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}{extra}
"
        )
    }
}

/// A Service of both families in front of the pods with the label `app: server`.
pub(crate) fn server_service() -> &'static str {
    "---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 8080}]
"
}
