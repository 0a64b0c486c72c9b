//! Labels in the user's manifests.

use std::fs;

use kube_types::{Kind, ObjectRef};
use manifests::{LabelChange, LabelError, Labelled, set_label};

use crate::support::{Dir, POD};

fn change(label: &str, value: Option<&str>) -> LabelChange {
    LabelChange { label: label.to_owned(), value: value.map(str::to_owned) }
}

fn ambient() -> [LabelChange; 1] {
    [change("istio.io/dataplane-mode", Some("ambient"))]
}

fn namespace(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Namespace, "", name)
}

#[test]
fn a_label_is_set_in_the_right_document_and_nothing_else_changes() {
    let dir = Dir::new();
    let text = "# all of it\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: other\n---\n# mine\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: app\n  labels:\n    a: b # keep\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: app}\n";
    dir.write("x.yaml", text);
    let paths = [dir.manifests()];

    let labelled = set_label(&paths, &namespace("app"), &ambient(), false).unwrap();
    let file = labelled.file().to_owned();
    assert_eq!(labelled, Labelled::Changed(file.clone()));
    let now = fs::read_to_string(&file).unwrap();
    assert_eq!(now, text.replace("a: b # keep\n", "a: b # keep\n    istio.io/dataplane-mode: ambient\n"));
    assert_eq!(set_label(&paths, &namespace("app"), &ambient(), false).unwrap(), Labelled::Unchanged(file.clone()));
    let refused = set_label(&paths, &namespace("app"), &[change("a", Some("c"))], false);
    assert!(matches!(refused, Err(LabelError::Exists { .. })), "{refused:?}");
    set_label(&paths, &namespace("app"), &[change("istio.io/dataplane-mode", None)], false).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    for (label, value) in [("a b", None), ("a", Some("b c"))] {
        let invalid = set_label(&paths, &namespace("app"), &[change(label, value)], false).unwrap_err();
        assert!(matches!(invalid, LabelError::InvalidKey(_) | LabelError::InvalidValue(_)), "{invalid}");
    }
}

#[test]
fn a_mistake_in_another_document_does_not_keep_a_label_from_being_set() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let text = format!("{POD}---\nkind: [\n");
    dir.write("p.yaml", &text);

    set_label(&[dir.manifests()], &key, &[change("a", Some("b"))], false).unwrap();

    assert!(fs::read_to_string(dir.manifests().join("p.yaml")).unwrap().contains("labels: {a: b}"));
}

#[test]
fn a_label_of_an_object_with_a_mistake_is_an_error_and_changes_nothing() {
    let dir = Dir::new();
    let text = POD.replace("spec:", "sepc:");
    dir.write("p.yaml", &text);

    let refused = set_label(&[dir.manifests()], &ObjectRef::new(Kind::Pod, "app", "web"), &ambient(), false);

    match refused {
        Err(LabelError::Refused(problem)) => {
            assert!(problem.line == 4 && problem.file.ends_with("p.yaml"), "{problem}")
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(fs::read_to_string(dir.manifests().join("p.yaml")).unwrap(), text);
}

#[test]
fn a_namespace_that_exists_without_a_manifest_gets_one() {
    let dir = Dir::new();
    dir.write("p.yaml", POD);
    let paths = [dir.manifests()];

    for name in ["app", "default"] {
        let labelled = set_label(&paths, &namespace(name), &ambient(), false).unwrap();

        let file = dir.manifests().join(format!("namespace-{name}.yaml"));
        assert_eq!(labelled, Labelled::Added(file.clone()));
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    istio.io/dataplane-mode: ambient\n"
            )
        );
        assert_eq!(set_label(&paths, &namespace(name), &ambient(), false).unwrap(), Labelled::Unchanged(file));
    }
    let removed = set_label(&paths, &namespace("app"), &[change("istio.io/dataplane-mode", None)], false).unwrap();
    assert!(matches!(removed, Labelled::Changed(_)), "{removed:?}");
    let unknown = set_label(&paths, &namespace("apps"), &ambient(), false).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "namespace \"apps\" does not exist: no manifest defines it or has an object in it; did you mean \"app\"?"
    );
}

#[test]
fn a_namespace_is_added_to_the_file_where_the_manifests_are_one_file() {
    let dir = Dir::new();
    dir.write("p.yaml", POD);
    let file = dir.manifests().join("p.yaml");

    let labelled = set_label(std::slice::from_ref(&file), &namespace("app"), &ambient(), false).unwrap();

    assert_eq!(labelled, Labelled::Added(file.clone()));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("{POD}---\napiVersion: v1\nkind: Namespace\n")), "{text}");
}

#[test]
fn a_pod_of_a_template_is_labelled_in_its_template() {
    let dir = Dir::new();
    let maker = |kind: &str, name: &str| {
        format!(
            "---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: tier}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c}}]}}\n"
        )
    };
    dir.write(
        "m.yaml",
        &[maker("StatefulSet", "store"), maker("Deployment", "web"), maker("StatefulSet", "web-db")].concat(),
    );

    for (pod, maker) in [
        ("store-0", Some("StatefulSet tier/store")),
        ("web-1a2b3-x9y8z", Some("Deployment tier/web")),
        ("web-db-3", Some("StatefulSet tier/web-db")),
        ("storefront", None),
        ("store-x", None),
    ] {
        let refused = set_label(&[dir.manifests()], &ObjectRef::new(Kind::Pod, "tier", pod), &ambient(), false);

        let message = refused.unwrap_err().to_string();
        match maker {
            Some(maker) => assert!(
                message.contains(&format!("Pod tier/{pod} is made by {maker} (")) && message.contains("m.yaml:"),
                "{message}"
            ),
            None => assert_eq!(message, format!("no manifest defines Pod tier/{pod}")),
        }
    }
}

#[test]
fn an_item_of_a_list_and_an_object_in_json_are_labelled_where_they_are() {
    let dir = Dir::new();
    dir.write(
        "l.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: one}\n",
    );
    dir.write(
        "j.json",
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"two\"}\n}\n",
    );

    set_label(&[dir.manifests()], &namespace("one"), &[change("a", Some("b"))], false).unwrap();
    set_label(&[dir.manifests()], &namespace("two"), &[change("a", Some("b"))], false).unwrap();

    let list = fs::read_to_string(dir.manifests().join("l.yaml")).unwrap();
    assert!(list.ends_with("metadata: {name: one, labels: {a: b}}\n"), "{list}");
    let json = fs::read_to_string(dir.manifests().join("j.json")).unwrap();
    assert!(json.contains("\t\"metadata\": {\"name\": \"two\", \"labels\": {\"a\": \"b\"}}\n"), "{json}");
}

#[test]
fn labels_with_an_anchor_are_refused_in_our_own_words() {
    let dir = Dir::new();
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: app\n  labels: &l {a: b}\n";
    dir.write("n.yaml", text);

    let refused = set_label(&[dir.manifests()], &namespace("app"), &ambient(), false).unwrap_err().to_string();

    assert!(refused.ends_with("n.yaml: not edited: metadata has an anchor, an alias, a merge key or a tag, which this command does not edit; edit the file by hand"), "{refused}");
    assert_eq!(fs::read_to_string(dir.manifests().join("n.yaml")).unwrap(), text);
}
