//! A directory that is gone, or replaced by an empty one, takes nothing with it.

use std::fs;

use kube_types::{Event, Source};
use manifests::SourceError;

use crate::support::{Dir, POD, copying, next, summary, until_in_sync};

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
const OTHER: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n";

async fn reported(source: &mut Source) -> Vec<String> {
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
    assert!(message.contains("is gone") && message.contains("stay in force"), "{message}");
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
    assert!(message.contains("replaced by a directory without manifests"), "{message}");
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
    assert_eq!(reported(&mut source).await, ["+ Node n1", "+ Pod app/web", "! manifests:0 "]);
    fs::create_dir(dir.manifests()).unwrap();
    let mut second = dir.keeper();
    assert_eq!(reported(&mut second).await, ["+ Node n1", "+ Pod app/web", "! manifests:0 "]);
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
    let typo = copying(vec![dir.manifests().with_file_name("manifest")], dir.state());

    let result = manifests::open(typo);

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
    let config = copying(vec![link.clone()], dir.state());
    let mut source = manifests::open(config).unwrap();
    assert_eq!(reported(&mut source).await, ["+ Node n1"]);

    let next_link = link.with_extension("next");
    std::os::unix::fs::symlink(&second, &next_link).unwrap();
    fs::rename(next_link, &link).unwrap();

    assert_eq!(summary(&next(&mut source).await), "- Node n1");
    assert_eq!(summary(&next(&mut source).await), "+ Node n2");
}

/// A directory with one manifest, and a link to it as git-sync makes it.
fn revision(dir: &Dir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.manifests().with_file_name(name);
    fs::create_dir_all(path.join("sub")).unwrap();
    fs::write(path.join("sub/node.yaml"), text).unwrap();
    path
}

fn switch(link: &std::path::Path, target: &std::path::Path) {
    let next = link.with_file_name(".next");
    std::os::unix::fs::symlink(target, &next).unwrap();
    fs::rename(next, link).unwrap();
}

#[tokio::test]
async fn revisions_behind_a_link_follow_each_other_and_the_old_ones_are_deleted() {
    let dir = Dir::new();
    let first = revision(&dir, "1", NODE);
    let link = dir.manifests().with_file_name("current");
    switch(&link, &first);
    let config = copying(vec![link.clone()], dir.state());
    let mut source = manifests::open(config.clone()).unwrap();
    assert_eq!(reported(&mut source).await, ["+ Node n1"]);

    let mut before = first;
    for round in 2..5 {
        let next_revision = revision(&dir, &round.to_string(), &NODE.replace("n1", &format!("n{round}")));
        switch(&link, &next_revision);
        fs::remove_dir_all(&before).unwrap();
        before = next_revision;

        let mut events = Vec::new();
        while events.last().is_none_or(|event| *event != format!("+ Node n{round}")) {
            events.push(summary(&next(&mut source).await));
        }
        assert!(events.contains(&format!("- Node n{}", round - 1)), "{events:?}");
    }
    // What is written into the directory that the link leads to now is seen, too.
    fs::write(before.join("pod.yaml"), POD).unwrap();
    let event = loop {
        match next(&mut source).await {
            Event::Solved { .. } => {}
            event => break summary(&event),
        }
    };
    assert_eq!(event, "+ Pod app/web");
    drop(source);
    let mut again = manifests::open(config).unwrap();
    assert_eq!(reported(&mut again).await, ["+ Node n4", "+ Pod app/web"]);
}

#[tokio::test]
async fn a_mistake_in_a_new_revision_keeps_the_last_good_state_of_the_one_before() {
    let dir = Dir::new();
    let first = revision(&dir, "1", NODE);
    let link = dir.manifests().with_file_name("current");
    switch(&link, &first);
    let config = copying(vec![link.clone()], dir.state());
    let mut source = manifests::open(config.clone()).unwrap();
    assert_eq!(reported(&mut source).await, ["+ Node n1"]);

    let second = revision(&dir, "2", &NODE.replace("metadata", "metdata"));
    switch(&link, &second);
    fs::remove_dir_all(first).unwrap();

    loop {
        match next(&mut source).await {
            Event::Problem(problem) if problem.file.ends_with("sub/node.yaml") => {
                assert_eq!(problem.field, "metadata.name");
                break;
            }
            Event::Problem(_) | Event::Solved { .. } => {}
            other => panic!("nothing changes: {other:?}"),
        }
    }
    drop(source);
    let mut again = manifests::open(config).unwrap();
    assert_eq!(reported(&mut again).await, ["+ Node n1", "! node.yaml:1 metadata.name"]);
}

#[tokio::test]
async fn links_inside_a_directory_are_followed_when_they_are_switched() {
    let dir = Dir::new();
    let (first, second) = (revision(&dir, "1", NODE), revision(&dir, "2", OTHER));
    // A mounted ConfigMap: a file is a link through `..data`.
    let data = dir.manifests().join("..data");
    switch(&data, &first);
    std::os::unix::fs::symlink("..data/sub/node.yaml", dir.manifests().join("node.yaml")).unwrap();
    // And a directory that is a link.
    let deep = dir.manifests().join("deep");
    switch(&deep, &revision(&dir, "3", POD));
    let mut source = dir.keeper();
    assert_eq!(reported(&mut source).await, ["+ Node n1", "+ Pod app/web"]);

    switch(&data, &second);
    assert_eq!(summary(&next(&mut source).await), "- Node n1");
    assert_eq!(summary(&next(&mut source).await), "+ Node n2");
    switch(&deep, &revision(&dir, "4", &POD.replace("web", "new")));
    assert_eq!(summary(&next(&mut source).await), "- Pod app/web");
    assert_eq!(summary(&next(&mut source).await), "+ Pod app/new");
    // A link that leads nowhere for a while takes nothing with it.
    fs::rename(dir.manifests().with_file_name("2"), dir.aside()).unwrap();
    match next(&mut source).await {
        Event::Problem(problem) => {
            assert!(problem.message.contains("a link to a file that does not exist"), "{problem}")
        }
        other => panic!("expected a problem, got {other:?}"),
    }
    fs::rename(dir.aside(), dir.manifests().with_file_name("2")).unwrap();
    assert_eq!(summary(&next(&mut source).await), "ok node.yaml");
}

#[tokio::test]
async fn pipes_devices_and_files_without_an_end_stop_nobody() {
    let dir = Dir::new();
    let pipe = |name: &str| {
        let path = dir.manifests().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    pipe("a.yaml");
    std::os::unix::fs::symlink("/dev/zero", dir.manifests().join("b.yaml")).unwrap();
    std::os::unix::fs::symlink(dir.manifests(), dir.manifests().join("loop")).unwrap();
    dir.write("node.yaml", NODE);
    fs::File::create(dir.manifests().join("big.yaml")).unwrap().set_len(1 << 40).unwrap();
    let mut source = dir.keeper();

    let mut start = reported(&mut source).await;
    start.sort();
    assert_eq!(start, ["! a.yaml:0 ", "! b.yaml:0 ", "! big.yaml:0 ", "! loop:0 ", "+ Node n1"]);
    // One that comes while the source runs, in the place of a good file.
    pipe("c.yaml");
    fs::rename(dir.manifests().join("c.yaml"), dir.manifests().join("node.yaml")).unwrap();
    loop {
        match next(&mut source).await {
            Event::Problem(problem) if problem.file.ends_with("node.yaml") => {
                assert!(problem.message.contains("a named pipe"), "{problem}");
                break;
            }
            Event::Problem(_) | Event::Solved { .. } => {}
            other => panic!("nothing changes: {other:?}"),
        }
    }
    dir.write("pod.yaml", POD);

    loop {
        match next(&mut source).await {
            Event::Applied { resource, .. } => break assert_eq!(resource.key().to_string(), "Pod app/web"),
            Event::Problem(_) | Event::Solved { .. } => {}
            other => panic!("expected the pod, got {other:?}"),
        }
    }
    assert!(source.health().is_well());
}
