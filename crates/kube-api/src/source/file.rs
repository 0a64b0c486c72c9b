//! What one file of manifests says. A file with a mistake is refused as a whole, so that a policy
//! never goes missing from between the pods it protects.

use std::path::Path;

use serde_json::Value;

use crate::decode::{self, Head};
use crate::document::{self, Data, Node, display_path};
use crate::event::{Severity, SourceProblem};
use crate::kind::ObjectRef;
use crate::mistake::Mistake;
use crate::resource::Resource;

/// An object with the value it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) key: ObjectRef,
    pub(crate) value: Value,
    pub(crate) resource: Resource,
    /// Line in the file where it begins, from 1.
    pub(crate) line: usize,
}

/// The contents of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<Object>,
    pub(crate) problems: Vec<SourceProblem>,
}

impl Contents {
    /// Of a file that says nothing because of this problem.
    pub(crate) fn refused(problem: SourceProblem) -> Self {
        Self { objects: Vec::new(), problems: vec![problem] }
    }

    /// Is the file as a whole not to be used?
    pub(crate) fn is_refused(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Refused)
    }
}

/// Reads the documents of a file.
pub(crate) fn parse(file: &Path, text: &str) -> Contents {
    let mut reader = Reader { file, contents: Contents::default() };
    for chunk in document::split(text) {
        // Lines in a document count from the line its chunk begins on.
        let before = chunk.line - 1;
        match Node::parse(chunk.text) {
            Ok(node) => reader.document(&node, before),
            Err(error) => {
                let line = if error.line == 0 { chunk.line } else { before + error.line };
                reader.problem(line, String::new(), error.message, Severity::Refused);
            }
        }
    }
    reader.contents
}

/// Reads an overlay: one document, any mapping.
pub(crate) fn parse_overlay(file: &Path, text: &str) -> Result<Value, SourceProblem> {
    let refused = |line, message| SourceProblem {
        file: file.to_owned(),
        line,
        field: String::new(),
        message,
        severity: Severity::Refused,
        in_force: None,
    };
    match Node::parse(text) {
        Ok(node) if matches!(node.data, Data::Map(_)) => Ok(node.to_value()),
        Ok(node) => Err(refused(node.line, "expected a mapping".to_owned())),
        Err(error) => Err(refused(error.line, error.message)),
    }
}

struct Reader<'a> {
    file: &'a Path,
    contents: Contents,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node, before: usize) {
        match decode::head(node) {
            Ok(Head::Object(kind)) => {
                let mut value = node.to_value();
                let key = match decode::key(kind, &mut value) {
                    Ok(key) => key,
                    Err(mistake) => return self.mistake(node, before, mistake),
                };
                match decode::object(kind, &value) {
                    Ok(resource) => self.object(key, value, resource, before + node.line),
                    Err(mistakes) => {
                        for mistake in mistakes {
                            self.mistake(node, before, mistake);
                        }
                    }
                }
            }
            Ok(Head::List) => {
                if let Some(Data::List(items)) = node.entry("items").map(|entry| &entry.value.data) {
                    for item in items {
                        self.document(item, before);
                    }
                }
            }
            Ok(Head::Unread { api_version, kind }) => {
                let effect = if protects(&api_version, &kind) { "not enforced here" } else { "not read" };
                let message = format!("{kind} of {api_version} is {effect}: it has no effect");
                self.problem(before + node.line, "kind".to_owned(), message, Severity::Ignored);
            }
            Err(mistake) => self.mistake(node, before, mistake),
        }
    }

    fn object(&mut self, key: ObjectRef, value: Value, resource: Resource, line: usize) {
        if let Some(first) = self.contents.objects.iter().find(|object| object.key == key) {
            let message = format!("{key} is already on line {}", first.line);
            return self.problem(line, "metadata.name".to_owned(), message, Severity::Refused);
        }
        self.contents.objects.push(Object { key, value, resource, line });
    }

    fn mistake(&mut self, node: &Node, before: usize, mistake: Mistake) {
        let line = before + node.line_of(&mistake.path);
        self.problem(line, display_path(&mistake.path), mistake.message, Severity::Refused);
    }

    fn problem(&mut self, line: usize, field: String, message: String, severity: Severity) {
        let file = self.file.to_owned();
        self.contents.problems.push(SourceProblem { file, line, field, message, severity, in_force: None });
    }
}

/// Is this a kind that its author relies on for protection?
fn protects(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    kind.ends_with("NetworkPolicy") || group == "security.istio.io"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String, String)> {
        parse(Path::new("f.yaml"), text)
            .problems
            .into_iter()
            .map(|problem| (problem.line, problem.field, problem.message))
            .collect()
    }

    const POLICY: &str =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: app}\n";

    #[test]
    fn an_unknown_field_of_an_istio_kind_is_named_with_its_line() {
        let found = problems(&format!(
            "# comment\n---\n{POLICY}spec:\n  rules:\n  - from:\n    - source:\n        namespace: [a]\n"
        ));

        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, 10);
        assert_eq!(found[0].1, "spec.rules[0].from[0].source.namespace");
        assert_eq!(found[0].2, "unknown field \"namespace\"");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let found = problems("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: eighty\n");

        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.as_str()), (6, "spec.ports[0].port"));
        assert!(found[0].2.contains("u16"), "{found:?}");
    }

    #[test]
    fn an_unknown_mode_lists_the_known_ones() {
        let found = problems(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n  mtls: {mode: STRIKT}\n",
        );

        assert_eq!((found[0].0, found[0].1.as_str()), (5, "spec.mtls.mode"));
        assert!(found[0].2.contains("STRICT"), "{found:?}");
    }

    #[test]
    fn a_value_that_nobody_can_match_is_named_with_its_line() {
        let rules = "spec:\n  action: DENY\n  rules:\n  - when:\n    - key: source.namspace\n      values: [a]\n    - {key: source.ip, values: [10.0.0.0/8, 10.0.0.0/33]}\n    - {key: destination.port}\n  - from:\n    - source:\n        ipBlocks: [300.1.1.1]\n        principals: ['a*b']\n        serviceAccounts: [a/b/c]\n    - source: {}\n    to:\n    - operation: {notPorts: ['80', http]}\n";
        let found = problems(&format!("{POLICY}{rules}"));

        let places: Vec<_> = found.iter().map(|(line, field, _)| (*line, field.as_str())).collect();
        assert_eq!(
            places,
            [
                (8, "spec.rules[0].when[0].key"),
                (10, "spec.rules[0].when[1].values[1]"),
                (11, "spec.rules[0].when[2]"),
                (14, "spec.rules[1].from[0].source.ipBlocks[0]"),
                (15, "spec.rules[1].from[0].source.principals[0]"),
                (16, "spec.rules[1].from[0].source.serviceAccounts[0]"),
                (17, "spec.rules[1].from[1].source"),
                (19, "spec.rules[1].to[0].operation.notPorts[1]"),
            ]
        );
        assert!(found[0].2.contains("source.namespace"), "{found:?}");
        assert!(found[3].2.contains("10.0.0.0/8"), "{found:?}");
    }

    #[test]
    fn every_value_that_istio_documents_is_understood() {
        let rules = "spec:\n  rules:\n  - when:\n    - {key: 'request.headers[x]', values: [y]}\n    - {key: 'request.auth.claims[a][b]', notValues: [y]}\n    - {key: remote.ip, values: ['::1']}\n    - {key: connection.sni, values: [a]}\n    - {key: experimental.envoy.filters.x, values: [a]}\n    - {key: source.serviceAccount, values: [ns/sa]}\n    - {key: source.trustDomain, values: ['*.example']}\n    from:\n    - source: {principals: ['*', 'a*', '*a'], serviceAccounts: [sa], ipBlocks: ['10.0.0.1', '2001:db8::/32'], trustDomains: [td]}\n    to:\n    - operation: {ports: ['1', '65535'], hosts: ['*.a']}\n  - {}\n";

        assert_eq!(problems(&format!("{POLICY}{rules}")), []);
    }

    #[test]
    fn a_misspelt_field_that_says_what_an_object_is_refuses_it() {
        let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    metadata: {lables: {app: web}}\n";
        for (text, line, field) in [
            ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  lables: {app: web}\n", 5, "metadata.lables"),
            (&POLICY.replace("namespace:", "namesapce:"), 3, "metadata.namesapce"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nsepc: {}\n", 4, "sepc"),
            (&format!("{POLICY}sepc: {{}}\n"), 4, "sepc"),
            (template, 6, "spec.template.metadata.lables"),
        ] {
            let found = problems(text);

            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!((found[0].0, found[0].1.as_str()), (line, field), "{found:?}");
            assert!(found[0].2.starts_with("unknown field"), "{found:?}");
        }
    }

    #[test]
    fn what_an_api_server_adds_is_no_mistake() {
        let found = problems(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, resourceVersion: '7', selfLink: x, finalizers: [a/b], managedFields: [{manager: m}]}\nspec: {dnsPolicy: ClusterFirst}\nstatus: {qosClass: Burstable}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nbinaryData: {a: aGk=}\nimmutable: true\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s}\nautomountServiceAccountToken: false\n",
        );

        assert_eq!(found, []);
    }

    #[test]
    fn an_empty_from_is_refused_and_not_taken_for_everybody() {
        let found = problems(&format!("{POLICY}spec:\n  rules:\n  - from:\n"));

        assert_eq!((found[0].0, found[0].1.as_str()), (6, "spec.rules[0].from"));
    }

    #[test]
    fn every_kind_that_is_not_read_is_told_with_its_line() {
        let contents = parse(
            Path::new("f.yaml"),
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\n---\napiVersion: example.com/v1\nkind: Service\nmetadata: {name: v}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n",
        );

        let told: Vec<_> = contents.problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, "VirtualService of networking.istio.io/v1 is not read: it has no effect"),
                (5, "Service of example.com/v1 is not read: it has no effect"),
                (13, "NetworkPolicy of networking.k8s.io/v1 is not enforced here: it has no effect"),
                (16, "RequestAuthentication of security.istio.io/v1 is not enforced here: it has no effect"),
            ]
        );
        assert!(contents.problems.iter().all(|problem| problem.severity == Severity::Ignored));
        assert!(!contents.is_refused());
        assert_eq!(contents.objects.len(), 1);
    }

    #[test]
    fn a_syntax_error_has_one_line_and_it_is_the_files() {
        for text in ["a: 1\na: 2\n", "a:\n  b: 1\n c: 2\n", "a: [\n", "a: 1\nb: *gone\n"] {
            let found = problems(&format!("# one\n{POLICY}---\n{text}"));

            assert!(found[0].0 > 5, "{found:?}");
            assert!(!found[0].2.contains("line"), "{found:?}");
        }
    }

    #[test]
    fn the_namespace_is_default_where_none_is_named_and_names_are_checked() {
        let contents = parse(
            Path::new("f.yaml"),
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: ../p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {}\n---\nkind: Pod\n---\napiVersion: v1\nkind: Deployment\n",
        );

        assert_eq!(contents.objects[0].key.to_string(), "Pod default/p");
        let fields: Vec<_> = contents.problems.iter().map(|p| (p.line, p.field.as_str())).collect();
        assert_eq!(fields, [(7, "metadata.name"), (11, "metadata.name"), (13, "apiVersion"), (15, "apiVersion")]);
    }

    #[test]
    fn lists_are_opened_and_nulls_are_absent() {
        let contents = parse(
            Path::new("f.yaml"),
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a, labels: }\n  spec: {containers: [{name: c, command: ~}]}\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n",
        );

        assert!(contents.problems.is_empty(), "{:?}", contents.problems);
        assert_eq!(contents.objects.len(), 2);
        assert_eq!(contents.objects[1].line, 8);
    }
}
