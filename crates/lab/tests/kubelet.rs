//! A lab's kubelet: init containers, environment, volumes, probes, hooks, Jobs, names.

mod common;

use std::{fs, path::Path, time::Duration};

use common::{DEADLINE, Fixture};
use lab::{Lab, LabError, Options, Phase, Status, logs::History};

/// A Pod with this `spec`, in YAML's flow style.
fn pod(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{note: kept}}}}\nspec: \
         {{terminationGracePeriodSeconds: 1, {spec}}}\n"
    )
}

fn info<'a>(status: &'a Status, name: &str) -> &'a lab::PodInfo {
    status.pods.iter().find(|pod| pod.name == name).unwrap_or_else(|| panic!("{name} is not there: {status:?}"))
}

async fn reason(fixture: &Fixture, name: &str, part: &str) -> Status {
    let what = format!("{name} to say {part:?}");
    let said = |status: &Status| status.pods.iter().any(|pod| pod.name == name && pod.reason.contains(part));
    fixture.lab.wait_for(&what, DEADLINE, said).await.unwrap()
}

#[tokio::test]
async fn init_containers_end_before_and_sidecars_run_beside() {
    if !common::possible() {
        return;
    }
    let side =
        "{name: s, restartPolicy: Always, command: [sleep, infinity], startupProbe: {exec: {command: ['true']}}}";
    let first = "{name: i, command: [sh, -c, 'echo one > /v/file'], volumeMounts: [{name: v, mountPath: /v}]}";
    let main = "{name: c, command: [sleep, infinity], readinessProbe: {exec: {command: [test, -s, /v/file]}}, volumeMounts: \
                [{name: v, mountPath: /v}]}";
    let spec = format!("initContainers: [{side}, {first}], containers: [{main}], volumes: [{{name: v}}]");
    let service =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: p}\nspec: {selector: {app: p}, ports: [{port: 80}]}\n";
    let job = "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {restartPolicy: Never, \
               initContainers: [{name: s, restartPolicy: Always, command: [sleep, infinity]}], containers: [{name: c, command: \
               ['true']}]}}}\n";

    let fixture = Fixture::up(&[("p.yaml", &(pod("p", &spec) + service + job))]).await;

    let status = fixture.lab.status().await.unwrap();
    assert!(info(&status, "p").ready, "{status:?}");
    assert_eq!(status.services.iter().find(|service| service.name == "p").unwrap().endpoint_count, 1);
    let job = status.pods.iter().find(|pod| pod.name.starts_with("j-")).unwrap();
    assert_eq!(job.phase, Phase::Succeeded, "a sidecar does not keep a Job from its end: {job:?}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn environment_and_volumes_are_those_of_the_manifest() {
    if !common::possible() {
        return;
    }
    let objects = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {key: value, other: text}\nbinaryData: {raw: AAEC}\n\
                   ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {pass: aGlkZGVu}\n\
                   ---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c}\n\
                   ---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}\n";
    let env = "envFrom: [{prefix: M_, configMapRef: {name: m}}, {secretRef: {name: s}}], env: [{name: LIMIT, valueFrom: \
               {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}, {name: SELF, value: $(LIMIT)-$(M_key)}]";
    let mounts = "volumeMounts: [{name: m, mountPath: /etc/app}, {name: s, mountPath: /run/keys}, {name: d, mountPath: \
                  /srv/info}, {name: e, mountPath: /etc/app/scratch}, {name: c, mountPath: /claim, subPath: part}, {name: m, mountPath: \
                  /opt/one/other, subPath: other}]";
    let volumes = "volumes: [{name: m, projected: {sources: [{configMap: {name: m}}]}}, {name: s, secret: {secretName: s, defaultMode: \
                   256}}, {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}, {name: e, emptyDir: \
                   {}}, {name: c, persistentVolumeClaim: {claimName: c}}]";
    let container = |mounts: &str| {
        format!(
            "containers: [{{name: c, command: [sleep, infinity], resources: {{limits: {{memory: 64Mi}}}}, {env}, {mounts}}}]"
        )
    };
    let nested = mounts.replace("{name: e, mountPath: /etc/app/scratch}", "{name: e, mountPath: /data/scratch}");
    let fixture = Fixture::up(&[
        ("o.yaml", objects),
        ("p.yaml", &pod("p", &format!("{}, {volumes}", container(&nested)))),
        ("q.yaml", &pod("q", &format!("{}, {volumes}", container(&nested)))),
    ])
    .await;

    let said = |line: &'static str| fixture.shell("p", line);
    assert_eq!(
        said("echo $M_key,$M_other,$pass,$SELF,$WEB_SERVICE_HOST").await.1,
        "value,text,hidden,64-value,10.96.7.7"
    );
    assert_eq!(said("cat /etc/app/key /run/keys/pass /opt/one/other").await.1, "valuehiddentext");
    assert_eq!(said("od -An -tx1 /etc/app/raw").await.1.trim(), "00 01 02");
    assert_eq!(said("cat /srv/info/labels").await.1, "app=\"p\"");
    assert_eq!(said("stat -c %a /run/keys/pass").await.1, "400");
    assert_ne!(said("echo x > /etc/app/key").await.0, 0, "a ConfigMap can be written");
    assert!(
        said("cat /etc/resolv.conf").await.1.contains("10.96.0.10"),
        "a volume below /etc hides the pod's own files"
    );
    assert!(said("tail -1 /etc/hosts").await.1.ends_with("p"), "a volume below /etc hides the pod's own files");
    assert_eq!(said("echo shared > /claim/file; echo own > /data/scratch/file").await.0, 0);
    assert_eq!(fixture.shell("q", "cat /claim/file; ls /data/scratch").await.1, "shared");

    fixture.write("o.yaml", &objects.replace("key: value", "key: new"));
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let end = std::time::Instant::now() + DEADLINE;
    while fixture.shell("p", "cat /etc/app/key").await.1 != "new" {
        assert!(std::time::Instant::now() < end, "the change does not arrive");
        tick.tick().await;
    }
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_container_waits_for_what_it_refers_to() {
    if !common::possible() {
        return;
    }
    let spec = "containers: [{name: c, command: [sleep, infinity], env: [{name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]";
    let fixture = Fixture::start(&[("p.yaml", &pod("p", spec))]).await;
    reason(&fixture, "p", "variable X: Secret \"s\" not found").await;

    fixture.write("s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n");

    fixture.lab.wait_for("the Secret", DEADLINE, |status| info(status, "p").ready).await.unwrap();
    let log = fs::read_to_string(fixture.lab.run_dir().supervisor_log()).unwrap();
    assert!(!log.contains("stringData"), "{log}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn each_probe_that_fails_is_named_by_its_own_type() {
    if !common::possible() {
        return;
    }
    let container = |probe: &str| format!("containers: [{{name: c, command: [sleep, infinity], {probe}}}]");
    let failing = "{exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1}";
    let text = pod("startup", &container(&format!("startupProbe: {failing}")))
        + &pod("liveness", &container(&format!("livenessProbe: {failing}")))
        + &pod("readiness", &container(&format!("readinessProbe: {failing}")))
        + &pod("port", &container("livenessProbe: {tcpSocket: {port: nowhere}}, readinessProbe: {grpc: {port: 9}}"));
    let fixture = Fixture::start(&[("p.yaml", &text)]).await;

    reason(&fixture, "startup", "(its startup probe failed: the command exited with 1)").await;
    reason(&fixture, "liveness", "(its liveness probe failed: the command exited with 1)").await;
    reason(&fixture, "readiness", "its readiness probe fails: the command exited with 1").await;
    let status = reason(&fixture, "port", "its readiness probe fails: ").await;

    assert_eq!(info(&status, "port").containers[0].restarts, 0, "a probe that cannot be tried kills nothing");
    assert_eq!(info(&status, "readiness").containers[0].restarts, 0);
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn an_object_that_an_api_server_would_refuse_is_named_and_not_run() {
    if !common::possible() {
        return;
    }
    let text = pod("handler", "containers: [{name: c, command: [sleep, infinity], livenessProbe: {periodSeconds: 1}}]")
        + &pod("account", "serviceAccountName: robot, containers: [{name: c, command: [sleep, infinity]}]")
        + &pod("good", "containers: [{name: c, command: [sleep, infinity]}]")
        + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: \
           {labels: {a: c}}, spec: {containers: [{name: c, command: [sleep, infinity]}]}}}\n";
    let fixture = Fixture::start(&[("p.yaml", &text)]).await;

    let err = fixture.lab.wait_ready(DEADLINE).await.unwrap_err();

    let LabError::NotReady { reasons, .. } = &err else { panic!("{err}") };
    let said =
        |part: &str| reasons.iter().filter(|reason| reason.contains("p.yaml:") && reason.contains(part)).count() == 1;
    assert_eq!(reasons.len(), 3, "{reasons:#?}");
    assert!(said("spec.containers[0].livenessProbe: must specify a handler type"), "{reasons:#?}");
    assert!(said("serviceaccount \"robot\" not found"), "{reasons:#?}");
    assert!(said("Deployment default/d: spec.selector: does not select the labels of the template"), "{reasons:#?}");
    assert!(err.to_string().contains(" s:\n"), "{err}");
    let names: Vec<_> = fixture.lab.pods().await.unwrap().into_iter().map(|pod| pod.name).collect();
    assert_eq!(names, ["good"]);
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_end() {
    if !common::possible() {
        return;
    }
    let hooks = "lifecycle: {postStart: {exec: {command: [sh, -c, 'test -e /proc/1 && touch /v/started']}}, preStop: {exec: {command: \
                 [sh, -c, 'echo stopped > /claim/stopped']}}}";
    let mounts = "volumeMounts: [{name: v, mountPath: /v}, {name: c, mountPath: /claim}]";
    let volumes = "volumes: [{name: v}, {name: c, persistentVolumeClaim: {claimName: c}}]";
    let container = format!("{{name: c, command: [sleep, infinity], {hooks}, {mounts}}}");
    let failing = "{name: c, command: [sleep, infinity], lifecycle: {postStart: {exec: {command: ['false']}}}}";
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c}\n";
    let good = pod("p", &format!("containers: [{container}], {volumes}"));
    let fixture = Fixture::start(&[
        ("c.yaml", claim),
        ("p.yaml", &good),
        ("f.yaml", &pod("f", &format!("containers: [{failing}]"))),
    ])
    .await;
    reason(&fixture, "f", "(its postStart hook failed: the command exited with 1)").await;
    fixture.lab.wait_for("the pod", DEADLINE, |status| info(status, "p").ready).await.unwrap();
    assert_eq!(fixture.shell("p", "ls /v").await.1, "started");

    fs::remove_file(fixture.manifests.path().join("p.yaml")).unwrap();
    let gone = |status: &Status| status.pods.iter().all(|pod| pod.name != "p");
    fixture.lab.wait_for("the end", DEADLINE, gone).await.unwrap();

    let stopped = fixture.lab.run_dir().claims("default").join("c/stopped");
    assert_eq!(fs::read_to_string(stopped).unwrap(), "stopped\n");
    fixture.lab.down().await.unwrap();
}

fn job(name: &str, spec: &str, command: &str) -> String {
    format!(
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{{spec}, template: {{spec: {{restartPolicy: Never, \
         containers: [{{name: c, command: [sh, -c, '{command}']}}]}}}}}}\n"
    )
}

#[tokio::test]
async fn a_job_is_tried_again_and_a_failed_one_says_why() {
    if !common::possible() {
        return;
    }
    let text = job("good", "completions: 3, parallelism: 2", "true") + &job("bad", "backoffLimit: 1", "exit 3");
    let bare = pod("bare", "restartPolicy: Never, containers: [{name: c, command: [sh, -c, 'exit 4']}]");
    let fixture = Fixture::start(&[("j.yaml", &(text + &bare))]).await;

    let err = fixture.lab.wait_ready(DEADLINE).await.unwrap_err();

    let LabError::NotReady { reasons, .. } = &err else { panic!("{err}") };
    let mut reasons = reasons.clone();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "Job default/bad failed: container c exited with 3 (2 failures, backoffLimit is 1)",
            "pod default/bare failed: container c exited with 4"
        ]
    );
    let status = fixture.lab.status().await.unwrap();
    let ended =
        |prefix: &str, phase| status.pods.iter().filter(|p| p.name.starts_with(prefix) && p.phase == phase).count();
    assert_eq!((ended("good-", Phase::Succeeded), ended("bad-", Phase::Failed)), (3, 2), "{:?}", status.pods);
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_pod_that_no_node_takes_is_pending_with_the_reason() {
    if !common::possible() {
        return;
    }
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {taints: [{key: gpu, value: 'yes', effect: NoSchedule}]}\n";
    let container = "containers: [{name: c, command: [sleep, infinity]}]";
    let text = pod(
        "refused",
        &format!("nodeSelector: {{disk: ssd}}, tolerations: [{{operator: Exists}}], {container}"),
    ) + &pod("tainted", container)
        + &pod(
            "taken",
            &format!(
                "nodeSelector: {{kubernetes.io/hostname: n1}}, tolerations: [{{key: gpu, operator: Exists}}], {container}"
            ),
        );
    let fixture = Fixture::start(&[("n.yaml", node), ("p.yaml", &text)]).await;

    let err = fixture.lab.wait_ready(DEADLINE).await.unwrap_err().to_string();
    let status = fixture.lab.status().await.unwrap();

    let affinity = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector";
    assert!(err.contains(&format!("pod default/refused is pending: {affinity}")), "{err}");
    assert!(err.contains("1 node(s) had untolerated taint {gpu: yes}"), "{err}");
    assert_eq!((info(&status, "refused").phase, info(&status, "refused").reason.as_str()), (Phase::Pending, affinity));
    assert!(info(&status, "taken").ready);
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn the_longest_names_work() {
    if !common::possible() {
        return;
    }
    // 253 bytes with dots, 63 without.
    let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let label = "n".repeat(63);
    let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {long}}}\n");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {long}, namespace: {label}, labels: {{app: {label}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: {label}\n    command: [sleep, infinity]\n    \
         volumeMounts: [{{name: {label}, mountPath: /data}}]\n  volumes: [{{name: {label}}}]\n"
    );
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {long}, namespace: {label}}}\nspec:\n  selector: {{matchLabels: {{app: x}}}}\n  \
         template: {{metadata: {{labels: {{app: x}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: pause, command: [sleep, \
         infinity]}}]}}}}\n"
    );
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {label}, namespace: {label}}}\nspec: {{selector: {{app: {label}}}, ports: [{{port: 80}}]}}\n"
    );
    let files = [("n.yaml", node), ("p.yaml", pod), ("d.yaml", deployment), ("s.yaml", service)];
    let fixture = Fixture::up(&files.each_ref().map(|(name, text)| (*name, text.as_str()))).await;

    let name = format!("{label}/{long}");
    let (code, text) =
        fixture.shell(&name, &format!("hostname; getent ahostsv4 {label}.{label} | head -1; touch /data/x")).await;
    assert_eq!(code, 0, "{text}");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("a".repeat(63).as_str()));
    assert!(lines.next().is_some_and(|line| line.starts_with("10.96.")), "{text}");
    let state = fixture.lab.run_dir().state();
    assert!(holds(&state, &long), "the state directory has nothing of the pod");
    let log = fs::read_to_string(fixture.lab.run_dir().supervisor_log()).unwrap();
    assert!(!log.contains("failed to write an object to the state directory"), "{log}");
    fixture.lab.down().await.unwrap();
}

/// Returns true if any file below has the text in it.
fn holds(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            holds(&path, text)
        } else {
            fs::read_to_string(path).is_ok_and(|found| found.contains(text))
        }
    })
}

#[tokio::test]
async fn a_log_knows_its_runs() {
    if !common::possible() {
        return;
    }
    let spec = "containers: [{name: c, command: [sh, -c, 'echo run; sleep infinity']}]";
    let fixture = Fixture::up(&[("p.yaml", &pod("p", spec))]).await;
    fixture.lab.kill("p", 9).await.unwrap();
    let again = |status: &Status| info(status, "p").containers[0].restarts == 1 && info(status, "p").ready;
    fixture.lab.wait_for("a restart", DEADLINE, again).await.unwrap();

    let log = fixture.lab.log("p", "c");

    assert_eq!(History::of(&log).unwrap().previous_run(), Some((0, 4)));
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn manifests_that_the_lab_brings_along_may_lie_in_directories() {
    if !common::possible() {
        return;
    }
    let manifests = [("1/a.yaml".to_owned(), common::waiting("a", "node-1"))].into();
    let base = common::options(Path::new("/"));
    let options = Options { own_manifests: manifests, manifests: Vec::new(), ..base };

    let lab = Lab::up(options, DEADLINE).await.unwrap();

    assert!(lab.pod("a").await.unwrap().ready);
    assert!(lab.run_dir().manifests().join("1/a.yaml").is_file());
    lab.down().await.unwrap();
}
