//! A lab as its pods see it: Services by name and address, probes, volumes, exec.

mod common;

use common::{Fixture, WEB, waiting};
use lab::{Phase, Target};

#[tokio::test]
async fn services_answer_by_name_and_address_over_both_families() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("web.yaml", WEB), ("client.yaml", &waiting("client", "node-1"))]).await;

    let status = fixture.lab.status().await.unwrap();
    let web = status.services.iter().find(|service| service.name == "web").unwrap();
    assert_eq!(web.ips.len(), 2);
    assert_eq!(web.endpoints.len(), 6);
    for address in ["web".to_owned(), web.ips[0].to_string(), format!("[{}]", web.ips[1])] {
        for flag in ["-4", "-6"] {
            if address.starts_with('[') == (flag == "-6") || address == "web" {
                let line = format!("curl -sS -m 5 {flag} http://{address}/");
                let (code, text) = fixture.shell("client", &line).await;
                assert_eq!(code, 0, "{line}: {text}");
                assert!(text.starts_with("web-"), "{line}: {text}");
            }
        }
    }
    let client = fixture.lab.pod("client").await.unwrap();
    let (_, text) =
        fixture.shell("client", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -s http://web/; echo; done").await;
    let mut answered: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    answered.sort_unstable();
    answered.dedup();
    assert!(answered.len() > 1, "one endpoint took all: {text}");
    assert!(text.contains(&client.ips[1].to_string()) || text.contains(&client.ips[0].to_string()), "{text}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_pod_reaches_itself_through_its_service() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("web.yaml", &WEB.replace("replicas: 3", "replicas: 1"))]).await;
    let pod = fixture.lab.pods().await.unwrap().remove(0);
    let node = fixture.lab.nodes().await.unwrap().into_iter().find(|node| node.name == pod.node).unwrap();

    for (flag, address) in [("-4", node.addresses[0]), ("-6", node.addresses[1])] {
        let line = format!("curl -sS -m 5 {flag} http://web/");
        let (code, text) = fixture.shell(&format!("default/{}", pod.name), &line).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.ends_with(&format!("{address}")), "{text}");
    }
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn what_does_not_exist_is_refused_at_once() {
    if !common::possible() {
        return;
    }
    let lonely = "apiVersion: v1\nkind: Service\nmetadata: {name: lonely}\nspec:\n  selector: {app: none}\n  \
                  ports: [{port: 80}]\n";
    let fixture = Fixture::up(&[("a.yaml", lonely), ("client.yaml", &waiting("client", "node-2"))]).await;

    let (code, text) = fixture.shell("client", "curl -sS -m 5 http://lonely/").await;
    assert_eq!(code, 7, "not refused: {text}");
    let (code, text) = fixture.shell("client", "curl -sS -m 5 http://nobody/").await;
    assert_eq!(code, 6, "resolved: {text}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn exec_has_exit_codes_input_and_output() {
    if !common::possible() {
        return;
    }
    let fixture = Fixture::up(&[("client.yaml", &waiting("client", "node-1"))]).await;
    let lab = &fixture.lab;

    assert_eq!(lab.exec("client", &["sh", "-c", "echo out; echo err >&2; exit 7"]).await.unwrap().code, 7);
    assert_eq!(lab.exec("client", &["no-such-program"]).await.unwrap().code, 127);
    assert_eq!(lab.exec("client", &["sh", "-c", "kill -9 $$"]).await.unwrap().code, 137);
    assert!(lab.exec("nobody", &["true"]).await.is_err());
    let mut cat = lab.spawn("client", &["cat"]).await.unwrap();
    cat.write(b"hello").await.unwrap();
    assert_eq!(cat.output().await.unwrap().stdout, b"hello");
    let mut sleep = lab.spawn("client", &["sleep", "1000"]).await.unwrap();
    sleep.signal(15).await.unwrap();
    assert_eq!(sleep.wait().await.unwrap(), 143);
    let node = lab.exec_on_node("node-1", &["ip", "-o", "link", "show", "eth0"]).await.unwrap();
    assert!(node.text().contains("state UP"), "{node:?}");
    let (_, text) = fixture.shell("client", "hostname; tail -1 /etc/hosts; cat /proc/self/cgroup").await;
    let pod = lab.pod("client").await.unwrap();
    assert!(text.starts_with("client\n"), "{text}");
    assert!(text.contains(&format!("kubepods/pod{}/c", pod.uid)), "{text}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn processes_run_as_whom_the_security_context_names() {
    if !common::possible() {
        return;
    }
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1337, runAsGroup: 1338}
  containers:
  - {name: a, command: [sh, -c, "id -u >/data/a; sleep infinity"], volumeMounts: [{name: v, mountPath: /data}]}
  - name: b
    command: [sleep, infinity]
    securityContext: {runAsUser: 1339}
    volumeMounts: [{name: v, mountPath: /data}]
  volumes: [{name: v, emptyDir: {}}]
"#;
    let fixture = Fixture::up(&[("p.yaml", pod)]).await;
    let lab = &fixture.lab;
    let container = |name: &str| Target::Pod { pod: "p".to_owned(), container: Some(name.to_owned()) };

    let wait = "until test -s /data/a; do :; done; cat /data/a; id -u; id -g; id -G";
    let first = lab.spawn_at(container("a"), &["sh", "-c", wait]).await.unwrap().output().await.unwrap();
    let second = lab.spawn_at(container("b"), &["sh", "-c", "id -u; id -g"]).await.unwrap().output().await.unwrap();

    assert_eq!(first.text(), "1337\n1337\n1338\n1338", "{first:?}");
    assert_eq!(second.text(), "1339\n1338", "{second:?}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn pods_of_a_stateful_set_have_names() {
    if !common::possible() {
        return;
    }
    let set = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: db, command: [sleep, infinity]}]
"#;
    let fixture = Fixture::up(&[("db.yaml", set)]).await;
    let other = fixture.lab.pod("db-1").await.unwrap();

    let (code, text) = fixture.shell("db-0", "getent ahostsv4 db-1.db; getent ahostsv6 db-1.db").await;
    let (_, all) = fixture.shell("db-0", "getent ahostsv4 db").await;

    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&other.ips[0].to_string()) && text.contains(&other.ips[1].to_string()), "{text}");
    assert!(all.contains(&other.ips[0].to_string()), "{all}");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_job_ends_and_init_containers_come_first() {
    if !common::possible() {
        return;
    }
    let job = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      initContainers:
      - {name: first, command: [sh, -c, "echo one > /data/file"], volumeMounts: [{name: v, mountPath: /data}]}
      containers:
      - {name: then, command: [sh, -c, "cat /data/file; echo $POD"], volumeMounts: [{name: v, mountPath: /data}],
         env: [{name: POD, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}
      volumes: [{name: v, emptyDir: {}}]
"#;
    let fixture = Fixture::up(&[("job.yaml", job)]).await;

    let pod = fixture.lab.pods().await.unwrap().remove(0);
    let log = fixture.lab.run_dir().log(&pod.namespace, &pod.name, "then");

    assert_eq!(pod.phase, Phase::Succeeded);
    assert_eq!(std::fs::read_to_string(log).unwrap(), format!("one\n{}\n", pod.ips[0]));
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_pod_cannot_send_from_an_address_of_another() {
    if !common::possible() {
        return;
    }
    let both = [("a.yaml", waiting("a", "node-1")), ("b.yaml", waiting("b", "node-1"))];
    let fixture = Fixture::up(&both.each_ref().map(|(name, text)| (*name, text.as_str()))).await;
    let own = fixture.lab.pod("b").await.unwrap();

    let forged = "import socket,sys\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
                  s.setsockopt(41,75,1)\ns.bind((sys.argv[1],0,0,0))\ns.sendto(b'x',(sys.argv[2],9))";
    let count = || async {
        let rules = fixture.lab.exec_on_node("node-1", &["nft", "list", "chain", "inet", "kube-proxy", "source"]).await;
        rules.unwrap().text().lines().any(|line| line.contains("@local_v6") && !line.contains("packets 0 "))
    };
    assert!(!count().await);
    let sent = fixture.lab.exec("a", &["python3", "-c", forged, "fd00:10:244:1::99", &own.ips[1].to_string()]).await;
    let sent = sent.unwrap();

    assert_eq!(sent.code, 0, "{}", sent.error_text());
    assert!(count().await, "nothing was dropped");
    fixture.lab.down().await.unwrap();
}

#[tokio::test]
async fn a_capture_holds_what_passed_the_wire() {
    if !common::possible() {
        return;
    }
    let both = [("a.yaml", waiting("a", "node-1")), ("b.yaml", waiting("b", "node-2"))];
    let fixture = Fixture::up(&both.each_ref().map(|(name, text)| (*name, text.as_str()))).await;
    let other = fixture.lab.pod("b").await.unwrap();

    let capture = fixture.lab.capture("node-1").await.unwrap();
    let line = format!("echo -n marked > /dev/udp/{}/9", other.ips[0]);
    let sent = fixture.lab.exec("a", &["bash", "-c", &line]).await.unwrap();
    let captured = capture.stop().await.unwrap();

    assert_eq!(sent.code, 0, "{}", sent.error_text());
    let bytes = std::fs::read(&captured.file).unwrap();
    assert!(captured.packets >= 1);
    assert!(bytes.windows(6).any(|window| window == b"marked"));
    fixture.lab.down().await.unwrap();
}
