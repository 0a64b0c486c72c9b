//! Objects that exist, changes, and mistakes.

use std::fs;
use std::path::Path;

use kube_types::{Code, Event, InForce, Kind, ObjectRef, Resource, Severity, Source, SourceProblem};
use serde_json::json;

use crate::support::{Dir, POD, next, summary, until_in_sync};

async fn pod(source: &mut Source) -> std::sync::Arc<kube_types::core::Pod> {
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

async fn problem(source: &mut Source) -> SourceProblem {
    match next(source).await {
        Event::Problem(problem) => problem,
        other => panic!("expected a problem, got {other:?}"),
    }
}

const NODE: &str = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";

#[tokio::test]
async fn a_document_with_a_mistake_keeps_its_last_good_state_and_the_others_change() {
    let dir = Dir::new();
    dir.write("p.yaml", &format!("{POD}{NODE}"));
    let mut source = dir.source();
    until_in_sync(&mut source).await;

    // The pod has a mistake, the node is another one, a second pod is new.
    let broken = POD.replace("name: c}", "name: c, ports: [{containerPort: http}]}");
    let text = format!("{broken}{}---\n{}", NODE.replace("n1", "n2"), POD.replace("web", "new"));
    dir.write("p.yaml", &text);
    let events = [next(&mut source).await, next(&mut source).await, next(&mut source).await];
    assert_eq!(events.each_ref().map(summary), ["- Node n1", "+ Node n2", "+ Pod app/new"]);
    let told = problem(&mut source).await;
    assert_eq!((told.severity, told.code, told.line), (Severity::Error, Code::InvalidValue, 4));
    assert_eq!(told.subject.to_string(), "Pod app/web");
    assert_eq!(told.field, "spec.containers[0].ports[0].containerPort");
    assert!(matches!(told.in_force, Some(InForce::LastGood { .. })), "{told}");

    // Corrected, with a change.
    dir.write("p.yaml", &text.replace("containerPort: http", "containerPort: 80"));
    assert_eq!(pod(&mut source).await.spec.containers[0].ports[0].container_port, 80);
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");

    // The document is gone: so is its object.
    dir.write("p.yaml", &NODE.replace("n1", "n2"));
    let gone = [next(&mut source).await, next(&mut source).await];
    assert_eq!(gone.each_ref().map(summary), ["- Pod app/new", "- Pod app/web"]);
}

#[tokio::test]
async fn a_document_that_does_not_say_which_object_it_is_may_be_any_of_its_file() {
    let dir = Dir::new();
    dir.write("p.yaml", &format!("{POD}{NODE}"));
    let mut source = dir.source();
    until_in_sync(&mut source).await;

    for (text, code) in [
        (format!("kind: [{NODE}"), Code::Syntax),
        (format!("{}{NODE}", POD.replace("name: web", "name: Web_")), Code::NoObject),
        (format!("{}{NODE}", POD.replace("kind: Pod", "kind: pod")), Code::UnknownKind),
    ] {
        dir.write("p.yaml", &text);

        let told = loop {
            match next(&mut source).await {
                Event::Solved { .. } => {}
                Event::Problem(problem) => break problem,
                other => panic!("nothing changes: {other:?}"),
            }
        };
        assert_eq!(told.code, code, "{told}");
        assert!(matches!(told.in_force, Some(InForce::LastGood { .. })) || !told.subject.is_unknown(), "{told}");
    }
    dir.write("p.yaml", &NODE.replace("---\n", ""));

    assert_eq!(summary(&next(&mut source).await), "- Pod app/web");
}

#[tokio::test]
async fn a_file_that_moves_on_to_another_takes_the_good_definition() {
    let dir = Dir::new();
    dir.write("a.yaml", POD);
    let mut source = dir.source();
    until_in_sync(&mut source).await;

    dir.write("a.yaml", &POD.replace("spec:", "sepc:"));
    let told = problem(&mut source).await;
    assert_eq!((told.line, told.field.as_str()), (4, "sepc"));
    dir.write("b.yaml", &POD.replace("web,", "web, labels: {from: b},"));

    assert_eq!(pod(&mut source).await.metadata.labels["from"], "b", "a good definition is in force before a stale one");
}

#[tokio::test]
async fn a_file_that_is_rewritten_slowly_in_its_place_removes_nothing_before_it_is_whole() {
    use std::io::Write as _;
    let dir = Dir::new();
    let text = format!("{POD}{NODE}");
    dir.write("p.yaml", &text);
    let mut source = dir.source();
    until_in_sync(&mut source).await;

    let mut file = fs::File::create(dir.manifests().join("p.yaml")).unwrap();
    let new = text.replace("name: c", "name: d");
    let mut events = Vec::new();
    for part in new.as_bytes().chunks(new.len() / 6) {
        file.write_all(part).unwrap();
        file.sync_all().unwrap();
        // The source has time to read it as it is now, cut off.
        let wait = std::time::Duration::from_millis(100);
        while let Ok(Some(event)) = tokio::time::timeout(wait, source.next()).await {
            events.push(summary(&event));
        }
    }
    drop(file);

    while !events.contains(&"+ Pod app/web".to_owned()) {
        events.push(summary(&next(&mut source).await));
    }
    assert!(!events.iter().any(|event| event.starts_with('-')), "nothing was removed: {events:?}");
    // In the end it is really shorter.
    fs::write(dir.manifests().join("p.yaml"), POD.replace("name: c", "name: d")).unwrap();
    let event = loop {
        match next(&mut source).await {
            Event::Problem(_) | Event::Solved { .. } => {}
            event => break summary(&event),
        }
    };
    assert_eq!(event, "- Node n1");
}

#[tokio::test]
async fn lists_and_json_are_read_item_by_item() {
    let dir = Dir::new();
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n2, lables: {}}\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n3}\n";
    dir.write("list.yaml", list);
    dir.write("two.json", "{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {\"name\": \"n4\"}}\n{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"n5\"},\n\t\"sepc\": {}\n}\n");

    let start: Vec<_> = until_in_sync(&mut dir.source()).await.iter().map(summary).collect();

    assert_eq!(start, ["+ Node n1", "+ Node n3", "+ Node n4", "! list.yaml:9 metadata.lables", "! two.json:6 sepc"]);
}

#[tokio::test]
async fn overlays_are_laid_over_in_the_order_of_their_writers() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let agent = manifests::status(&dir.state(), "agent-n1");
    let lab = manifests::status(&dir.state(), "lab");
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
    let agent = manifests::status(&dir.state(), "agent-n1");
    let lab = manifests::status(&dir.state(), "lab");
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
    manifests::status(&dir.state(), "agent-n1").apply(&key, patch).await.unwrap();

    let start: Vec<_> = until_in_sync(&mut dir.source()).await.iter().map(summary).collect();

    assert_eq!(start, ["+ Pod app/web", "! web.yaml:0 preconditions.uid"]);
}

#[tokio::test]
async fn the_users_manifest_wins_over_a_derived_object() {
    let dir = Dir::new();
    let key = ObjectRef::new(Kind::Pod, "app", "web");
    let derived =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "app", "uid": "derived"}});
    manifests::state::write_object(&dir.state(), &key, &derived).unwrap();
    dir.write("p.yaml", POD);
    let mut source = dir.source();

    let start = until_in_sync(&mut source).await;
    assert_eq!(start.len(), 1);
    fs::remove_file(dir.manifests().join("p.yaml")).unwrap();
    assert_eq!(pod(&mut source).await.metadata.uid, "derived");
    manifests::state::remove_object(&dir.state(), &key).unwrap();

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
fn loading_once_returns_objects_and_problems() {
    let dir = Dir::new();
    dir.write("good.yaml", POD);
    dir.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: 5\n");

    let loaded = manifests::load_directory(&dir.manifests()).unwrap();

    assert_eq!(loaded.objects.len(), 1);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!((loaded.problems[0].line, loaded.problems[0].field.as_str()), (4, "spec"));
    assert!(manifests::load_directory(Path::new("/nonexistent/manifests")).is_err());
}

#[tokio::test]
async fn a_change_that_the_kernel_does_not_notify_of_is_read_all_the_same() {
    const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    let dir = Dir::new();
    dir.write("node.yaml", NODE);
    // inotify tells of a write in the directory by whose name the file was opened (inotify(7)).
    fs::create_dir(dir.aside()).unwrap();
    let other_name = dir.aside().join("node.yaml");
    fs::hard_link(dir.manifests().join("node.yaml"), &other_name).unwrap();
    let mut source = dir.keeper();
    until_in_sync(&mut source).await;

    fs::write(other_name, NODE.replace("n1", "n2")).unwrap();

    let mut events = Vec::new();
    while !["- Node n1", "+ Node n2"].iter().all(|change| events.iter().any(|event| event == change)) {
        events.push(summary(&next(&mut source).await));
    }
}
