//! A directory that is gone, or replaced by an empty one, takes nothing with it.

use std::fs;

use kube_api::{ClusterId, DirectoryConfig, Event, Source, SourceError};

use crate::support::{Dir, POD, next, summary, until_in_sync};

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
const OTHER: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n";

async fn told(source: &mut Source) -> Vec<String> {
    until_in_sync(source).await.iter().map(summary).collect()
}

/// The next event is the problem of the directory itself; what it says.
async fn directory_problem(source: &mut Source) -> String {
    match next(source).await {
        Event::Problem(problem) => {
            assert!(problem.file.ends_with("manifests") && problem.line == 0, "{problem}");
            problem.message
        }
        other => panic!("expected a problem, got {other:?}"),
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_keeps_its_state_until_it_is_back() {
    let dir = Dir::new();
    dir.write("pod.yaml", POD);
    dir.write("node.yaml", NODE);
    let mut source = dir.keeper();
    until_in_sync(&mut source).await;

    fs::rename(dir.manifests(), dir.aside()).unwrap();
    let message = directory_problem(&mut source).await;
    assert!(message.contains("is gone") && message.contains("stays in force"), "{message}");
    fs::remove_file(dir.aside().join("node.yaml")).unwrap();
    fs::write(dir.aside().join("other.yaml"), OTHER).unwrap();
    fs::rename(dir.aside(), dir.manifests()).unwrap();

    // Nothing was told in between, and what is told now is what really changed.
    assert_eq!(summary(&next(&mut source).await), "- Node n1");
    assert_eq!(summary(&next(&mut source).await), "+ Node n2");
    assert_eq!(summary(&next(&mut source).await), "ok manifests");
    fs::remove_file(dir.manifests().join("other.yaml")).unwrap();
    assert_eq!(summary(&next(&mut source).await), "- Node n2");
}

#[tokio::test]
async fn an_empty_directory_in_place_of_another_says_nothing() {
    let dir = Dir::new();
    dir.write("node.yaml", NODE);
    let mut source = dir.keeper();
    until_in_sync(&mut source).await;

    // In one step, as a mount is.
    fs::create_dir(dir.aside()).unwrap();
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        dir.aside(),
        rustix::fs::CWD,
        dir.manifests(),
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    let message = directory_problem(&mut source).await;
    assert!(message.contains("another directory"), "{message}");
    dir.write("other.yaml", OTHER);

    // With a manifest in it it is the directory now, and it is watched.
    assert_eq!(summary(&next(&mut source).await), "- Node n1");
    assert_eq!(summary(&next(&mut source).await), "+ Node n2");
    assert_eq!(summary(&next(&mut source).await), "ok manifests");
    dir.write("pod.yaml", POD);
    assert_eq!(summary(&next(&mut source).await), "+ Pod app/web");
    fs::write(dir.aside().join("node.yaml"), POD.replace("web", "old")).unwrap();
    fs::remove_file(dir.manifests().join("other.yaml")).unwrap();
    assert_eq!(summary(&next(&mut source).await), "- Node n2", "the one before is not read any more");
}

#[tokio::test]
async fn the_last_file_of_a_directory_that_stays_is_really_deleted() {
    let dir = Dir::new();
    dir.write("node.yaml", NODE);
    let mut source = dir.keeper();
    until_in_sync(&mut source).await;

    fs::remove_file(dir.manifests().join("node.yaml")).unwrap();

    assert_eq!(summary(&next(&mut source).await), "- Node n1");
}

#[tokio::test]
async fn a_directory_that_is_gone_or_empty_at_the_start_has_the_state_of_the_last_process() {
    let dir = Dir::new();
    dir.write("node.yaml", NODE);
    dir.write("broken.yaml", POD);
    drop(until_in_sync(&mut dir.keeper()).await);
    dir.write("broken.yaml", "kind: [\n");
    drop(until_in_sync(&mut dir.keeper()).await);

    fs::rename(dir.manifests(), dir.aside()).unwrap();
    let mut source = dir.keeper();
    assert_eq!(told(&mut source).await, ["+ Node n1", "+ Pod app/web", "! manifests:0 "]);
    fs::create_dir(dir.manifests()).unwrap();
    let mut second = dir.keeper();
    assert_eq!(told(&mut second).await, ["+ Node n1", "+ Pod app/web", "! manifests:0 "]);
    fs::remove_dir(dir.manifests()).unwrap();
    fs::rename(dir.aside(), dir.manifests()).unwrap();

    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "! broken.yaml:1 ") {
        seen.push(summary(&next(&mut second).await));
    }
    assert!(seen.contains(&"ok manifests".to_owned()) && !seen.iter().any(|event| event.starts_with('-')), "{seen:?}");
}

#[tokio::test]
async fn a_directory_that_nobody_ever_read_is_an_error_at_the_start() {
    let dir = Dir::new();
    dir.write("node.yaml", NODE);
    drop(until_in_sync(&mut dir.keeper()).await);
    let typo = DirectoryConfig { manifests: vec![dir.manifests().with_file_name("manifest")], state: dir.state() };

    let result = Source::keeper_of(typo, ClusterId::default());

    assert!(matches!(&result, Err(SourceError::Directory { path, .. }) if path.ends_with("manifest")), "{result:?}");
}

#[tokio::test]
async fn a_directory_behind_a_link_that_is_switched_is_read_anew() {
    let dir = Dir::new();
    let release = |name: &str, text: &str| {
        let path = dir.manifests().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("node.yaml"), text).unwrap();
        path
    };
    let (first, second) = (release("1", NODE), release("2", OTHER));
    let link = dir.aside();
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let config = DirectoryConfig { manifests: vec![link.clone()], state: dir.state() };
    let mut source = Source::keeper_of(config, ClusterId::default()).unwrap();
    assert_eq!(told(&mut source).await, ["+ Node n1"]);

    let next_link = link.with_extension("next");
    std::os::unix::fs::symlink(&second, &next_link).unwrap();
    fs::rename(next_link, &link).unwrap();

    assert_eq!(summary(&next(&mut source).await), "- Node n1");
    assert_eq!(summary(&next(&mut source).await), "+ Node n2");
}
