//! An object whose manifest has a mistake when the source starts is as it was when it was good.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use kube_types::{Code, Event, InForce, Resource, Severity, Source, SourceProblem};

use crate::support::{Dir, POD, next, summary, until_in_sync};

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: app}\nspec:\n  mtls: {mode: STRICT}\n";

/// Path of the copy of a manifest.
fn copy(dir: &Dir, name: &str) -> PathBuf {
    let manifests = dir.manifests().canonicalize().unwrap();
    dir.state().join("last-good/files").join(manifests.strip_prefix("/").unwrap()).join(name)
}

async fn reported(source: &mut Source) -> Vec<String> {
    until_in_sync(source).await.iter().map(summary).collect()
}

async fn problem(source: &mut Source) -> SourceProblem {
    match next(source).await {
        Event::Problem(problem) => problem,
        other => panic!("expected a problem, got {other:?}"),
    }
}

#[tokio::test]
async fn an_object_with_a_mistake_at_the_start_is_as_it_was_and_the_others_are_as_they_are() {
    let dir = Dir::new();
    let other = POLICY.replace("name: strict", "name: gone");
    dir.write("p.yaml", &format!("{POLICY}---\n{POD}---\n{other}"));
    drop(until_in_sync(&mut dir.keeper()).await);
    let kept = fs::read_to_string(copy(&dir, "p.yaml")).unwrap();
    // One has a mistake, one is changed, one is gone.
    dir.write("p.yaml", &format!("{}---\n{}", POLICY.replace("mode:", "mod:"), POD.replace("name: c", "name: d")));

    // A reader that keeps copies, and one that only uses them.
    for mut source in [dir.source(), dir.keeper()] {
        let events = until_in_sync(&mut source).await;

        let summaries: Vec<_> = events.iter().map(summary).collect();
        assert_eq!(summaries, ["+ PeerAuthentication app/strict", "+ Pod app/web", "! p.yaml:5 spec.mtls.mod"]);
        match &events[..] {
            [
                Event::Applied { resource: Resource::PeerAuthentication(strict), .. },
                Event::Applied { resource: Resource::Pod(pod), .. },
                Event::Problem(problem),
            ] => {
                assert_eq!(strict.spec.mtls.map(|mtls| mtls.mode), Some(kube_types::istio::TlsMode::Strict));
                assert_eq!(pod.spec.containers[0].name, "d");
                assert_eq!(problem.severity, Severity::Error);
                assert!(matches!(problem.in_force, Some(InForce::LastGood { .. })), "{problem}");
            }
            other => panic!("expected two objects and a problem, got {other:?}"),
        }
    }
    let now = fs::read_to_string(copy(&dir, "p.yaml")).unwrap();
    assert!(now.contains("strict") && !now.contains("gone") && now != kept, "{now}");
}

#[tokio::test]
async fn the_time_of_a_last_good_state_is_that_of_its_first_reading_also_after_restarts() {
    let dir = Dir::new();
    dir.write("p.yaml", POLICY);
    let before = SystemTime::now();
    drop(until_in_sync(&mut dir.keeper()).await);
    let after = SystemTime::now();
    drop(until_in_sync(&mut dir.keeper()).await);
    dir.write("p.yaml", &format!("{POLICY}---\n{POD}"));
    drop(until_in_sync(&mut dir.keeper()).await);
    dir.write("p.yaml", &POLICY.replace("mode:", "mod:"));

    match &until_in_sync(&mut dir.keeper()).await[..] {
        [Event::Applied { .. }, Event::Problem(problem)] => match problem.in_force {
            Some(InForce::LastGood { since }) => assert!(before <= since && since <= after, "{problem}"),
            ref other => panic!("expected a last good state, got {other:?}"),
        },
        other => panic!("expected an object and a problem, got {other:?}"),
    }
}

#[tokio::test]
async fn an_object_that_never_was_good_is_not_in_force() {
    let dir = Dir::new();
    dir.write("p.yaml", &POLICY.replace("STRICT", "STRIKT"));
    let mut source = dir.keeper();

    let events = until_in_sync(&mut source).await;
    match &events[..] {
        [Event::Problem(problem)] => {
            assert_eq!((problem.line, problem.field.as_str()), (5, "spec.mtls.mode"));
            assert_eq!(problem.in_force, Some(InForce::Nothing));
        }
        other => panic!("expected a problem, got {other:?}"),
    }

    let before = SystemTime::now();
    dir.write("p.yaml", POLICY);
    assert_eq!(summary(&next(&mut source).await), "+ PeerAuthentication app/strict");
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");
    dir.write("p.yaml", &POLICY.replace("STRICT", "STRIKT"));
    match problem(&mut source).await.in_force {
        Some(InForce::LastGood { since }) => assert!(since >= before - std::time::Duration::from_secs(1)),
        other => panic!("expected a last good state, got {other:?}"),
    }
}

#[tokio::test]
async fn what_was_deleted_while_nobody_looked_does_not_come_back() {
    let dir = Dir::new();
    dir.write("p.yaml", POLICY);
    dir.write("q.yaml", POD);
    assert_eq!(reported(&mut dir.keeper()).await.len(), 2);
    fs::remove_file(dir.manifests().join("p.yaml")).unwrap();

    assert_eq!(reported(&mut dir.keeper()).await, ["+ Pod app/web"]);
    assert!(!copy(&dir, "p.yaml").exists());
    dir.write("p.yaml", "kind: [\n");

    assert_eq!(reported(&mut dir.keeper()).await, ["+ Pod app/web", "! p.yaml:1 "], "it is another file of that name");
}

#[tokio::test]
async fn a_broken_file_that_is_deleted_takes_its_last_good_state_with_it() {
    let dir = Dir::new();
    dir.write("p.yaml", POLICY);
    drop(until_in_sync(&mut dir.keeper()).await);
    dir.write("p.yaml", "kind: [\n");
    let mut source = dir.keeper();
    assert_eq!(reported(&mut source).await, ["+ PeerAuthentication app/strict", "! p.yaml:1 "]);

    fs::remove_file(dir.manifests().join("p.yaml")).unwrap();

    assert_eq!(summary(&next(&mut source).await), "- PeerAuthentication app/strict");
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");
    assert!(!copy(&dir, "p.yaml").exists());
}

#[tokio::test]
async fn a_file_that_is_not_text_keeps_its_last_good_state() {
    let dir = Dir::new();
    dir.write("p.yaml", POLICY);
    drop(until_in_sync(&mut dir.keeper()).await);
    fs::write(dir.manifests().join("p.yaml"), [0xff, 0xfe]).unwrap();

    assert_eq!(reported(&mut dir.keeper()).await, ["+ PeerAuthentication app/strict", "! p.yaml:0 "]);
}

#[tokio::test]
async fn a_copy_that_cannot_be_used_is_named() {
    for (replaced, with, codes) in
        [("STRICT", "SOON", [Code::LastGoodInvalid, Code::Syntax]), ("[{", "{", [Code::LastGoodInvalid, Code::Syntax])]
    {
        let dir = Dir::new();
        dir.write("p.yaml", POLICY);
        drop(until_in_sync(&mut dir.keeper()).await);
        let text = fs::read_to_string(copy(&dir, "p.yaml")).unwrap();
        fs::write(copy(&dir, "p.yaml"), text.replacen(replaced, with, 1)).unwrap();
        dir.write("p.yaml", "kind: [\n");

        let events = until_in_sync(&mut dir.keeper()).await;

        let mut problems: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Problem(problem) => (problem.severity, problem.code, problem.in_force),
                other => panic!("expected a problem, got {other:?}"),
            })
            .collect();
        problems.sort();
        assert_eq!(
            problems,
            [(Severity::Error, codes[1], Some(InForce::Nothing)), (Severity::Note, codes[0], None)],
            "{with}"
        );
    }
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_is_named_and_the_file_is_in_force() {
    let dir = Dir::new();
    fs::create_dir(dir.state()).unwrap();
    fs::write(dir.state().join("last-good"), "in the way").unwrap();
    dir.write("p.yaml", POLICY);
    let mut source = dir.keeper();

    let events = until_in_sync(&mut source).await;
    match &events[..] {
        [Event::Applied { .. }, Event::Problem(problem)] => {
            assert_eq!((problem.severity, problem.code), (Severity::Note, Code::LastGoodNotSaved));
            assert!(problem.file.ends_with(copy(&dir, "p.yaml").strip_prefix(dir.state()).unwrap()), "{problem}");
        }
        other => panic!("expected an object and a problem, got {other:?}"),
    }

    fs::remove_file(dir.state().join("last-good")).unwrap();
    dir.write("p.yaml", &POLICY.replace("STRICT", "PERMISSIVE"));
    assert_eq!(summary(&next(&mut source).await), "+ PeerAuthentication app/strict");
    assert_eq!(summary(&next(&mut source).await), "ok p.yaml");
    assert!(copy(&dir, "p.yaml").exists());
}
