//! Changes in a lab while it runs, and its end, after which nothing is left.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{DEADLINE, Fixture, WEB, waiting};
use lab::{Lab, LabError, Status};

fn restarts(status: &Status, pod: &str) -> u32 {
    let found = status.pods.iter().find(|found| found.name == pod);
    found.map_or(0, |pod| pod.containers.iter().map(|container| container.restarts).sum())
}

/// Processes whose command line holds `text`.
fn processes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) && entry.file_name() != "self" {
            found.push(line);
        }
    }
    found
}

/// Waits for a condition that no lab can be asked about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        tick.tick().await;
    }
}

#[tokio::test]
async fn a_killed_container_is_started_again_unless_that_is_paused() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("a.yaml", &waiting("a", "node-1"))]).await;
    let lab = &fixture.lab;
    let before = lab.pod("a").await.unwrap();

    lab.kill("a", 9).await.unwrap();
    lab.wait_for("a restart", DEADLINE, |status| restarts(status, "a") == 1 && status.pods[0].ready).await.unwrap();
    let after = lab.pod("a").await.unwrap();
    assert_eq!((before.uid, before.ips), (after.uid, after.ips));
    assert_eq!(after.containers[0].last_exit, Some(137));

    lab.pause_restarts("a", true).await.unwrap();
    lab.kill("a", 9).await.unwrap();
    lab.wait_for("the end", DEADLINE, |status| !status.pods[0].ready).await.unwrap();
    let still = lab.wait_for("a restart", Duration::from_millis(500), |status| restarts(status, "a") > 1).await;
    assert!(matches!(still, Err(LabError::NotReady { .. })));
    lab.pause_restarts("a", false).await.unwrap();
    lab.wait_for("a restart", DEADLINE, |status| status.pods[0].ready).await.unwrap();
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn readiness_follows_its_probe_and_liveness_restarts() {
    if !common::possible() {
        return;
    }
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    command: [sh, -c, "rm -f /scratch/dead; sleep infinity"]
    readinessProbe: {exec: {command: [test, -e, /scratch/ready]}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [test, "!", -e, /scratch/dead]}, periodSeconds: 1, failureThreshold: 1}
    volumeMounts: [{name: v, mountPath: /scratch}]
  volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: p}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: p}, ports: [{port: 80}]}
"#;
    let fixture = Fixture::start(&[("p.yaml", pod)]).await;
    let lab = &fixture.lab;
    let endpoints = |status: &Status, count: usize| {
        status.services.iter().any(|service| service.name == "p" && service.endpoints.len() == count)
    };
    let running = |status: &Status| status.pods.iter().any(|pod| pod.containers.iter().all(|c| c.running));
    lab.wait_for("the container", DEADLINE, |status| running(status) && endpoints(status, 0)).await.unwrap();

    fixture.shell("p", "touch /scratch/ready").await;
    lab.wait_for("readiness", DEADLINE, |status| status.pods[0].ready && endpoints(status, 2)).await.unwrap();
    fixture.shell("p", "rm /scratch/ready").await;
    lab.wait_for("no readiness", DEADLINE, |status| !status.pods[0].ready && endpoints(status, 0)).await.unwrap();
    fixture.shell("p", "touch /scratch/dead").await;
    lab.wait_for("a restart", DEADLINE, |status| restarts(status, "p") == 1).await.unwrap();
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn edited_manifests_take_effect() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("a.yaml", &waiting("a", "node-1")), ("web.yaml", WEB)]).await;
    let lab = &fixture.lab;
    let uid = lab.pod("a").await.unwrap().uid;

    fixture.write("b.yaml", &waiting("b", "node-2"));
    lab.wait_for("a new pod", DEADLINE, |status| status.pods.iter().any(|pod| pod.name == "b" && pod.ready))
        .await
        .unwrap();
    fixture.write("a.yaml", &waiting("a", "node-1").replace("app: a", "app: web"));
    lab.wait_for("a label", DEADLINE, |status| {
        status.services.iter().any(|service| service.name == "web" && service.endpoints.len() == 8)
    })
    .await
    .unwrap();
    assert_eq!(lab.pod("a").await.unwrap().uid, uid, "a label made the pod anew");
    fixture.write("a.yaml", &waiting("a", "node-1").replace("infinity", "1d"));
    lab.wait_for("the pod anew", DEADLINE, |status| {
        status.pods.iter().any(|pod| pod.name == "a" && pod.ready && pod.uid != uid)
    })
    .await
    .unwrap();
    fixture.write("web.yaml", &WEB.replace("replicas: 3", "replicas: 1"));
    lab.wait_for("fewer replicas", DEADLINE, |status| {
        status.pods.iter().filter(|pod| pod.name.starts_with("web-")).count() == 1
    })
    .await
    .unwrap();
    fs::remove_file(fixture.manifests.path().join("b.yaml")).unwrap();
    lab.wait_for("a pod less", DEADLINE, |status| !status.pods.iter().any(|pod| pod.name == "b")).await.unwrap();
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_container_without_command_is_named_with_its_file_and_the_rest_runs() {
    if !common::possible() {
        return;
    }
    let pod = "# one\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n";
    let fixture = Fixture::up(&[("p.yaml", pod), ("a.yaml", &waiting("a", "node-1"))]).await;

    let status = fixture.lab.status().await.unwrap();

    let said = "Pod default/p: container \"c\" needs a container image: give it a `command`";
    assert!(status.notes.iter().any(|note| note.contains("p.yaml:") && note.ends_with(said)), "{:?}", status.notes);
    assert_eq!((status.without_image, status.pods.len()), (1, 1));
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_broken_manifest_comes_first_and_the_rest_becomes_ready() {
    if !common::possible() {
        return;
    }
    let files = [("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [\n"), ("a.yaml", &waiting("a", "node-1"))];
    let fixture = Fixture::start(&files).await;

    let err = fixture.lab.wait_ready(DEADLINE).await.unwrap_err();

    let LabError::NotReady { reasons, .. } = &err else { panic!("{err}") };
    assert!(reasons.len() == 1 && reasons[0].contains("bad.yaml:"), "{reasons:?}");
    assert!(fixture.lab.pod("a").await.unwrap().ready, "it was not waited for");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn down_leaves_nothing() {
    if !common::possible() {
        return;
    }
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let fixture = Fixture::up(&[("a.yaml", &waiting("a", "node-1")), ("web.yaml", WEB)]).await;
    let (name, run) = (fixture.lab.name().to_owned(), fixture.lab.run_dir().root().to_path_buf());
    let cgroups = fixture.lab.cgroups().root().to_path_buf();
    assert!(!mounts().contains(&name), "a mount of the lab is seen outside of it");

    fixture.lab.down().await.unwrap();

    assert!(!run.exists() && !run.with_extension("lock").exists() && !cgroups.exists());
    assert_eq!(processes(&name), Vec::<String>::new());
    assert!(matches!(Lab::attach(&name).await, Err(LabError::NotRunning { .. })));
}

#[tokio::test]
async fn a_killed_supervisor_takes_everything_along_and_the_next_start_sweeps() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("a.yaml", &waiting("a", "node-1"))]).await;
    let name = fixture.lab.name().to_owned();
    let pid = fs::read_to_string(fixture.lab.run_dir().pid_file()).unwrap();
    let cgroups = fixture.lab.cgroups().root().to_path_buf();
    let (netns, _held) = netns_of(&fixture.lab).await;

    let killed = std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
    assert!(killed.success());

    eventually("every process is gone", || processes(&name).is_empty() && populated(&cgroups) == Some(false)).await;
    assert!(!in_use(&netns), "a network namespace is left");
    assert!(cgroups.exists());
    let mut again = common::options(fixture.manifests.path());
    again.name.clone_from(&name);
    let lab = Lab::up(again, DEADLINE).await.unwrap();
    lab.down().await.unwrap();
    assert!(!cgroups.exists());
}

#[tokio::test]
async fn a_lab_goes_down_with_its_handle_unless_it_is_detached() {
    if !common::possible() {
        return;
    }
    let mut fixture = Fixture::up(&[("a.yaml", &waiting("a", "node-1"))]).await;
    let name = fixture.lab.name().to_owned();
    fixture.lab.detach().await.unwrap();
    let manifests = fixture.manifests;
    drop(fixture.lab);
    let lab = Lab::attach(&name).await.unwrap();
    let second = Lab::start({
        let mut options = common::options(manifests.path());
        options.name.clone_from(&name);
        options
    })
    .await;
    assert!(matches!(second, Err(LabError::Running { .. })));
    lab.down().await.unwrap();

    let leashed = Lab::up(common::options(manifests.path()), DEADLINE).await.unwrap();
    let name = leashed.name().to_owned();
    drop(leashed);
    let run = lab::paths::RunDir::of(&name);
    let cgroups = lab::paths::Cgroups::of(&name).unwrap();
    let gone = || !run.root().exists() && !run.lock().exists() && !cgroups.root().exists();
    eventually("the lab ends and leaves nothing", || gone() && processes(&name).is_empty()).await;
}

#[tokio::test]
async fn a_lab_that_ends_never_brings_a_cgroup_back() {
    if !common::possible() {
        return;
    }
    let manifests = tempfile::tempdir().unwrap();
    fs::write(manifests.path().join("a.yaml"), waiting("a", "node-1")).unwrap();
    for round in 0..3 {
        // With many nodes the end takes long enough for whatever is started again.
        let options = lab::Options { nodes: 20, ..common::options(manifests.path()) };
        let lab = Lab::up(options, DEADLINE).await.unwrap();
        let (name, lock, cgroups) = (lab.name().to_owned(), lab.run_dir().lock(), lab.cgroups().root().to_owned());

        drop(lab);

        eventually("every process is gone", || !lock.exists() && processes(&name).is_empty()).await;
        assert!(!cgroups.exists(), "round {round}: {} is left", cgroups.display());
    }
}

/// The namespace as `/proc` shows it. As long as it is held no other one is given that number.
async fn netns_of(lab: &Lab) -> (PathBuf, fs::File) {
    let pid = lab.pod("a").await.unwrap().containers[0].pid.unwrap();
    let path = format!("/proc/{pid}/ns/net");
    (fs::read_link(&path).unwrap(), fs::File::open(path).unwrap())
}

/// Returns true if any process is in the namespace.
fn in_use(netns: &Path) -> bool {
    let links = fs::read_dir("/proc").unwrap().flatten();
    links.into_iter().any(|entry| fs::read_link(entry.path().join("ns/net")).is_ok_and(|link| link == netns))
}

/// `populated` of `cgroup.events`.
fn populated(cgroup: &Path) -> Option<bool> {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("populated ")).map(|value| value == "1")
}
