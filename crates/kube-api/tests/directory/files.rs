//! What exists, what changes, what is refused.

use std::fs;
use std::path::Path;

use kube_api::manifest::{self, LabelChange, LabelError};
use kube_api::{Event, Kind, ObjectRef, Resource, Severity, Source, Status};
use serde_json::json;

use crate::support::{Dir, POD, next, summary, until_in_sync};

async fn pod(source: &mut Source) -> std::sync::Arc<kube_api::core::Pod> {
    match next(source).await {
        Event::Applied { resource: Resource::Pod(pod), .. } => pod,
        other => panic!("expected a pod, got {other:?}"),
    }
}

#[tokio::test]
async fn what_exists_is_told_in_order_then_in_sync_then_changes() {
    let dir = Dir::new();
    dir.write("b.yaml", POD);
    dir.write("a/deep/ns.yml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n");
    dir.write("a/notes.txt", "kind: Pod");
    let mut source = dir.source();

    let start: Vec<_> = until_in_sync(&mut source).await.iter().map(summary).collect();
    assert_eq!(start, ["+ Namespace app", "+ Pod app/web"]);

    dir.write("new/later.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n");
    assert_eq!(summary(&next(&mut source).await), "+ Node n1");
    fs::remove_file(dir.manifests().join("b.yaml")).unwrap();
    assert_eq!(summary(&next(&mut source).await), "- Pod app/web");
    fs::remove_dir_all(dir.manifests().join("a")).unwrap();
    assert_eq!(summary(&next(&mut source).await), "- Namespace app");
}

#[tokio::test]
async fn a_file_with_a_mistake_keeps_its_last_good_state() {
    let dir = Dir::new();
    dir.write("p.yaml", POD);
    let mut source = dir.source();
    until_in_sync(&mut source).await;

    dir.write("p.yaml", &format!("{POD}---\nkind: [\n"));
    match next(&mut source).await {
        Event::Problem(problem) => {
            assert_eq!(problem.severity, Severity::Refused);
            assert!(problem.line >= 6, "{problem}");
        }
        other => panic!("expected a problem, got {other:?}"),
    }
    dir.write("p.yaml", &POD.replace("name: c}", "name: c, ports: [{containerPort: http}]}"));
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");
    assert_eq!(summary(&next(&mut source).await), "! p.yaml:4 spec.containers[0].ports[0].containerPort");
    dir.write("p.yaml", &POD.replace("web,", "web, labels: {a: b},"));

    assert_eq!(pod(&mut source).await.metadata.labels["a"], "b");
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");
}

#[tokio::test]
async fn overlays_are_laid_over_in_the_order_of_their_writers() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let agent = Status::directory(&dir.state(), "agent-n1");
    let lab = Status::directory(&dir.state(), "lab");
    lab.apply(
        &key,
        json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}, "metadata": {"annotations": {"by": "lab"}}}),
    )
    .await
    .unwrap();
    let mut source = dir.source();
    assert!(until_in_sync(&mut source).await.is_empty(), "an overlay alone is nothing");

    dir.write("p.yaml", POD);
    let first = pod(&mut source).await;
    assert_eq!(first.status.pod_ip.as_deref(), Some("10.0.0.1"));
    agent.apply(&key, json!({"metadata": {"annotations": {"by": "agent", "x": "true"}}})).await.unwrap();
    let second = pod(&mut source).await;
    assert_eq!(second.metadata.annotations["by"], "lab", "lab comes after agent-n1");
    assert_eq!(second.metadata.annotations["x"], "true");
    agent.clear(&key).await.unwrap();
    let third = pod(&mut source).await;

    assert_eq!(first, third);
}

#[tokio::test]
async fn an_overlay_about_one_pod_is_not_inherited_by_the_next_of_its_name() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let agent = Status::directory(&dir.state(), "agent-n1");
    let lab = Status::directory(&dir.state(), "lab");
    dir.write("p.yaml", POD);
    let claim = json!({"metadata": {"annotations": {"claim": "enabled"}, "uid": "forged"}});
    agent.apply_to(&key, "u1", claim.clone()).await.unwrap();
    let mut source = dir.source();
    match &until_in_sync(&mut source).await[..] {
        [Event::Applied { resource: Resource::Pod(pod), .. }] => {
            assert_eq!(pod.metadata.uid, "", "naming a uid does not give it");
            assert!(pod.metadata.annotations.is_empty(), "an object without a uid is not that one");
        }
        other => panic!("expected a pod, got {other:?}"),
    }

    lab.apply(&key, json!({"metadata": {"uid": "u1"}})).await.unwrap();
    let first = pod(&mut source).await;
    assert_eq!((first.metadata.uid.as_str(), first.metadata.annotations["claim"].as_str()), ("u1", "enabled"));
    lab.apply(&key, json!({"metadata": {"uid": "u2"}})).await.unwrap();
    let next_of_name = pod(&mut source).await;
    assert_eq!(next_of_name.metadata.uid, "u2");
    assert!(next_of_name.metadata.annotations.is_empty(), "{:?}", next_of_name.metadata.annotations);
    agent.apply_to(&key, "u2", claim).await.unwrap();

    assert_eq!(pod(&mut source).await.metadata.annotations["claim"], "enabled");
}

#[tokio::test]
async fn a_precondition_without_a_uid_is_refused() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    dir.write("p.yaml", POD);
    let patch = json!({"preconditions": {}, "metadata": {"annotations": {"claim": "enabled"}}});
    Status::directory(&dir.state(), "agent-n1").apply(&key, patch).await.unwrap();

    let start: Vec<_> = until_in_sync(&mut dir.source()).await.iter().map(summary).collect();

    assert_eq!(start, ["+ Pod app/web", "! web.yaml:0 preconditions.uid"]);
}

#[tokio::test]
async fn the_users_manifest_wins_over_a_derived_object() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let derived =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "app", "uid": "derived"}});
    kube_api::state::write_object(&dir.state(), &key, &derived).unwrap();
    dir.write("p.yaml", POD);
    let mut source = dir.source();

    let start = until_in_sync(&mut source).await;
    assert_eq!(start.len(), 1);
    fs::remove_file(dir.manifests().join("p.yaml")).unwrap();
    assert_eq!(pod(&mut source).await.metadata.uid, "derived");
    kube_api::state::remove_object(&dir.state(), &key).unwrap();

    assert_eq!(summary(&next(&mut source).await), "- Pod app/web");
}

#[tokio::test]
async fn a_second_definition_is_told_and_takes_over_when_the_first_goes() {
    let dir = Dir::new();
    dir.write("a.yaml", POD);
    dir.write("b.yaml", &POD.replace("web,", "web, labels: {from: b},"));
    let mut source = dir.source();

    let start: Vec<_> = until_in_sync(&mut source).await.iter().map(summary).collect();
    assert_eq!(start, ["+ Pod app/web", "! b.yaml:1 metadata.name"]);
    fs::remove_file(dir.manifests().join("a.yaml")).unwrap();

    assert_eq!(pod(&mut source).await.metadata.labels["from"], "b");
    assert_eq!(summary(&next(&mut source).await), "ok b.yaml");
}

#[test]
fn a_label_is_set_in_the_right_document_and_nothing_else_changes() {
    let dir = Dir::new();
    let text = "# all of it\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: other\n---\n# mine\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: app\n  labels:\n    a: b # keep\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: app}\n";
    dir.write("x.yaml", text);
    let key = ObjectRef::new(Kind::Namespace, "", "app");
    let change =
        |label: &str, value: Option<&str>| LabelChange { label: label.to_owned(), value: value.map(str::to_owned) };
    let ambient = [change("istio.io/dataplane-mode", Some("ambient"))];

    let file = manifest::set_label(&dir.manifests(), &key, &ambient, false).unwrap();
    let labelled = fs::read_to_string(&file).unwrap();
    assert_eq!(labelled, text.replace("a: b # keep\n", "a: b # keep\n    istio.io/dataplane-mode: ambient\n"));
    let other = [change("a", Some("c"))];
    let refused = manifest::set_label(&dir.manifests(), &key, &other, false);
    assert!(matches!(refused, Err(LabelError::Exists { .. })), "{refused:?}");
    let back = [change("istio.io/dataplane-mode", None)];
    manifest::set_label(&dir.manifests(), &key, &back, false).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let missing = ObjectRef::new(Kind::Namespace, "", "nobody");
    let nothing = manifest::set_label(&dir.manifests(), &missing, &ambient, false);
    assert!(matches!(nothing, Err(LabelError::NoManifest(_))));
    let invalid = manifest::set_label(&dir.manifests(), &key, &[change("a b", None)], false);
    assert!(matches!(invalid, Err(LabelError::Invalid(_))));
}

#[test]
fn a_label_in_a_file_that_is_refused_as_a_whole_is_an_error_and_changes_nothing() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let change = [LabelChange { label: "a".to_owned(), value: Some("b".to_owned()) }];
    for (text, line) in
        [(format!("{POD}---\nkind: [\n"), 6), (format!("{POD}---\napiVersion: v1\nkind: Pod\nmetadata: {{}}\n"), 8)]
    {
        dir.write("p.yaml", &text);

        match manifest::set_label(&dir.manifests(), &key, &change, false) {
            Err(LabelError::Refused(problem)) => {
                assert!(problem.line >= line && problem.file.ends_with("p.yaml"), "{problem}")
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert_eq!(fs::read_to_string(dir.manifests().join("p.yaml")).unwrap(), text);
    }
}

#[test]
fn loading_once_tells_objects_and_problems() {
    let dir = Dir::new();
    dir.write("good.yaml", POD);
    dir.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: 5\n");

    let loaded = manifest::load_directory(&dir.manifests()).unwrap();

    assert_eq!(loaded.objects.len(), 1);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!((loaded.problems[0].line, loaded.problems[0].field.as_str()), (4, "spec"));
    assert!(manifest::load_directory(Path::new("/nonexistent/manifests")).is_err());
}
