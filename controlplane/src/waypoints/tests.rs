//! The controller against the API server of `kube-cluster`'s tests, with the permissions that it has in a cluster. Time is paused.

use std::time::Duration;

use kube_cluster::{ClusterConfig, Election, ElectionConfig, Objects, StatusConfig, Verb, Versions, Watched};
use kube_types::{ClusterId, Event};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use waypoint_manifests::Settings;

use super::*;

#[path = "../../../crates/kube-cluster/tests/api_server/fake/mod.rs"]
mod fake;

use fake::{Fake, Fault, Resource, When};

const SECOND: Duration = Duration::from_secs(1);

/// More than any pause of the controller or of the election, by the paused clock.
const DEADLINE: Duration = Duration::from_secs(900);

/// Kinds that the controller looks at.
const WATCHED: [Kind; 6] =
    [Kind::GatewayClass, Kind::Gateway, Kind::ServiceAccount, Kind::Service, Kind::Deployment, Kind::Pod];

/// A control plane's controller, with its own source, election and writer of statuses.
struct Replica {
    _election: Election,
    _tasks: JoinSet<()>,
}

fn settings() -> Settings {
    Settings {
        image: "hub/waypoint:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: Vec::new(),
        control_address: "https://strake-control.istio-system.svc:15012".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        env: Vec::new(),
    }
}

fn replica_with(fake: &Fake, identity: &str, settings: Option<Settings>) -> Replica {
    let server = fake.server();
    let election = Election::start(ElectionConfig {
        server: server.clone(),
        namespace: "istio-system".to_owned(),
        name: "strake-control".to_owned(),
        identity: identity.to_owned(),
    });
    let versions = Versions::default();
    let status = kube_cluster::status(StatusConfig {
        server: server.clone(),
        manager: "strake-control".to_owned(),
        kinds: STATUSES.to_vec(),
        owned: owned(),
        versions: versions.clone(),
        leadership: Some(election.leadership()),
    });
    let watched = WATCHED.map(Watched::all).to_vec();
    let config = ClusterConfig { server: server.clone(), cluster: ClusterId::default(), watched, versions };
    let mut source = kube_cluster::open(config).unwrap();
    let waypoints = Waypoints::default();
    let config = ControllerConfig {
        cluster_domain: "cluster.local".to_owned(),
        root_namespace: "istio-system".to_owned(),
        istio_class: true,
    };
    let making = Making::cluster(Objects::new(&server), election.leadership(), settings, &config);
    let controller = Controller::new(config, waypoints.clone(), status, making);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(event) = source.next().await {
            match event {
                Event::Applied { resource, .. } => waypoints.applied(&resource),
                Event::Removed { key, .. } => waypoints.removed(&key),
                Event::InSync { .. } => waypoints.in_sync(),
                Event::Problem(_) | Event::Solved { .. } => {}
            }
        }
    });
    tasks.spawn(controller.run());
    Replica { _election: election, _tasks: tasks }
}

fn replica(fake: &Fake, identity: &str) -> Replica {
    replica_with(fake, identity, Some(settings()))
}

/// An API server that allows what the chart does.
fn server() -> Fake {
    let fake = Fake::default();
    fake.allow(crate::source::permissions("istio-system"));
    fake
}

fn put_gateway(fake: &Fake, change: impl FnOnce(&mut Value)) -> String {
    let mut gateway = json!({
        "metadata": {"generation": 1},
        "spec": {
            "gatewayClassName": "strake-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    });
    change(&mut gateway);
    fake.put(Kind::Gateway, "shop", "waypoint", gateway)
}

fn put_pod(fake: &Fake, name: &str, is_ready: bool) {
    let ready = if is_ready { "True" } else { "False" };
    fake.put(
        Kind::Pod,
        "shop",
        name,
        json!({
            "metadata": {"labels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        }),
    );
}

/// Changes an object as somebody else.
fn edit(fake: &Fake, kind: Kind, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = fake.object(kind, "shop", name).expect("the object");
    change(&mut object);
    fake.put(kind, "shop", name, object);
}

/// Waits until there is something.
async fn until<T>(wanted: impl Fn() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = wanted() {
                return found;
            }
            // The clock is paused: it advances when nothing else can run.
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, looks).await.expect("in time")
}

async fn made(fake: &Fake, kind: Kind, name: &str) -> Value {
    until(|| fake.object(kind, "shop", name)).await
}

fn budgets() -> Resource {
    Resource::named("policy", "poddisruptionbudgets")
}

fn autoscalers() -> Resource {
    Resource::named("autoscaling", "horizontalpodautoscalers")
}

/// Status, reason and message of a condition of the Gateway.
fn condition(fake: &Fake, name: &str) -> Option<(String, String, String)> {
    let gateway = fake.object(Kind::Gateway, "shop", "waypoint")?;
    let conditions = gateway["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == name)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

async fn programmed(fake: &Fake, reason: &str) -> String {
    until(|| condition(fake, "Programmed").filter(|found| found.1 == reason)).await.2
}

async fn accepted(fake: &Fake, reason: &str) -> String {
    until(|| condition(fake, "Accepted").filter(|found| found.1 == reason)).await.2
}

fn addresses(fake: &Fake) -> Vec<String> {
    let gateway = fake.object(Kind::Gateway, "shop", "waypoint").expect("the Gateway");
    let addresses = gateway["status"]["addresses"].as_array().into_iter().flatten();
    addresses.map(|address| address["value"].as_str().unwrap_or_default().to_owned()).collect()
}

fn set_cluster_ip(fake: &Fake) {
    edit(fake, Kind::Service, "waypoint", |service| service["spec"]["clusterIP"] = json!("10.0.0.9"));
}

/// Makes everything of a waypoint ready, as Kubernetes does.
async fn ready(fake: &Fake) {
    made(fake, Kind::Service, "waypoint").await;
    set_cluster_ip(fake);
    put_pod(fake, "waypoint-a", true);
    programmed(fake, "Programmed").await;
}

fn writes(fake: &Fake) -> usize {
    [Verb::Create, Verb::Patch, Verb::Delete].map(|verb| fake.count(verb)).iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_gets_its_objects_and_a_status_that_claims_only_what_is_there() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");

    let deployment = made(&fake, Kind::Deployment, "waypoint").await;
    let image = deployment.pointer("/spec/template/spec/containers/0/image");
    assert_eq!(image, Some(&json!("hub/waypoint:1")));
    made(&fake, Kind::ServiceAccount, "waypoint").await;
    until(|| fake.other(&budgets(), "shop", "waypoint")).await;
    let class = until(|| fake.object(Kind::GatewayClass, "", "strake-waypoint")).await;
    assert_eq!(class["spec"]["controllerName"], "strake.io/waypoint-controller");

    programmed(&fake, "AddressNotAssigned").await;
    assert_eq!(condition(&fake, "Accepted").unwrap().0, "True");
    set_cluster_ip(&fake);
    assert_eq!(programmed(&fake, "Pending").await, "no pod of the waypoint exists");
    put_pod(&fake, "waypoint-a", false);
    until(|| condition(&fake, "Programmed").filter(|found| found.2 == "0 of 1 pods are ready")).await;
    assert_eq!(addresses(&fake), [""; 0]);
    put_pod(&fake, "waypoint-a", true);
    assert_eq!(programmed(&fake, "Programmed").await, "1 of 1 pods are ready");
    assert_eq!(addresses(&fake), ["waypoint.shop.svc.cluster.local", "10.0.0.9"]);
    let gateway = fake.object(Kind::Gateway, "shop", "waypoint").unwrap();
    assert_eq!(gateway["status"]["listeners"][0]["name"], "mesh");
    assert_eq!(gateway["status"]["conditions"][0]["observedGeneration"], 1);

    fake.delete(Kind::Pod, "shop", "waypoint-a");
    programmed(&fake, "Pending").await;
    assert_eq!(addresses(&fake).len(), 2, "what is bound to the waypoint stays bound");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_nothing_has_changed() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    ready(&fake).await;
    sleep(5 * SECOND).await;
    let before = writes(&fake);

    sleep(Duration::from_secs(1200)).await;

    assert_eq!(writes(&fake), before);
    assert!(fake.count(Verb::List) > 20, "it has looked again");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_deleted_or_changed_comes_back() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    ready(&fake).await;

    fake.delete(Kind::Service, "shop", "waypoint");
    made(&fake, Kind::Service, "waypoint").await;
    fake.delete_other(&budgets(), "shop", "waypoint");
    until(|| fake.other(&budgets(), "shop", "waypoint")).await;
    edit(&fake, Kind::Deployment, "waypoint", |deployment| {
        deployment["spec"]["replicas"] = json!(4);
        deployment["spec"]["template"]["spec"]["serviceAccountName"] = json!("other");
    });
    let corrected = until(|| {
        let found = fake.object(Kind::Deployment, "shop", "waypoint")?;
        (found["spec"]["template"]["spec"]["serviceAccountName"] == "waypoint").then_some(found)
    });
    assert_eq!(corrected.await["spec"]["replicas"], 4, "a field of somebody else stays");
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_left_alone_and_named() {
    let fake = server();
    let theirs = json!({"metadata": {"labels": {"app": "theirs"}}, "spec": {"selector": {"app": "theirs"}}});
    fake.put(Kind::Service, "shop", "waypoint", theirs);
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");

    let message = programmed(&fake, "NoResources").await;

    assert!(message.starts_with("services shop/waypoint exists and was not made for this Gateway"), "{message}");
    assert_eq!(fake.object(Kind::Service, "shop", "waypoint").unwrap()["spec"]["selector"], json!({"app": "theirs"}));
    assert_eq!(fake.object(Kind::Deployment, "shop", "waypoint"), None, "half a waypoint");
    fake.delete(Kind::Service, "shop", "waypoint");
    made(&fake, Kind::Deployment, "waypoint").await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_appears_between_look_and_write_is_given_back() {
    let fake = server();
    // The answer to the look is late: meanwhile somebody makes the account, whose fields do not conflict.
    fake.fail(When::next(Verb::Get).of("deployments"), Fault::Slow(3 * SECOND));
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    until(|| {
        fake.asked()
            .iter()
            .any(|asked| asked.resource.plural == "deployments" && asked.name == "waypoint")
            .then_some(())
    })
    .await;
    fake.put(Kind::ServiceAccount, "shop", "waypoint", json!({"metadata": {}, "theirs": true}));

    let message = programmed(&fake, "NoResources").await;

    assert!(message.starts_with("serviceaccounts shop/waypoint exists"), "{message}");
    let account = fake.object(Kind::ServiceAccount, "shop", "waypoint").unwrap();
    assert_eq!((&account["theirs"], account["metadata"].get("ownerReferences")), (&json!(true), None));
    assert_eq!(account["metadata"].get("labels"), None);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_and_answers_that_are_lost_are_tried_again() {
    for fault in [Fault::Refuse(409, None), Fault::Refuse(500, None), Fault::NoAnswer, Fault::Cut(10)] {
        let fake = server();
        put_gateway(&fake, |_| {});
        let _replica = replica(&fake, "a");
        ready(&fake).await;
        fake.fail(When::next(Verb::Patch).of("deployments"), fault.clone());
        edit(&fake, Kind::Deployment, "waypoint", |deployment| deployment["spec"]["strategy"] = Value::Null);

        let corrected = until(|| {
            let found = fake.object(Kind::Deployment, "shop", "waypoint")?;
            (found["spec"]["strategy"]["type"] == "RollingUpdate").then_some(())
        });
        corrected.await;

        // A waypoint whose pods are ready stays programmed, whatever happened on the way.
        programmed(&fake, "Programmed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_made_since_the_look_is_not_overwritten_unseen() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    ready(&fake).await;
    let patches = |fake: &Fake| {
        let of_deployments =
            |asked: &&fake::Asked| asked.verb == Some(Verb::Patch) && asked.resource.plural == "deployments";
        fake.asked().iter().filter(of_deployments).count()
    };
    let before = patches(&fake);
    // The write arrives after the Deployment has changed again.
    fake.fail(When::next(Verb::Patch).of("deployments"), Fault::Slow(3 * SECOND));
    edit(&fake, Kind::Deployment, "waypoint", |deployment| deployment["spec"]["strategy"] = Value::Null);
    until(|| (patches(&fake) > before).then_some(())).await;
    edit(&fake, Kind::Deployment, "waypoint", |deployment| deployment["spec"]["paused"] = json!(true));

    let corrected = until(|| {
        let found = fake.object(Kind::Deployment, "shop", "waypoint")?;
        (found["spec"]["strategy"]["type"] == "RollingUpdate").then_some(found)
    });

    assert_eq!(corrected.await["spec"]["paused"], true);
    assert_eq!(patches(&fake), before + 2, "the first was a conflict");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_gone_gets_nothing_any_more() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    ready(&fake).await;
    let owner = fake.object(Kind::Service, "shop", "waypoint").unwrap()["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Gateway"), &json!(true)));

    fake.delete(Kind::Gateway, "shop", "waypoint");
    sleep(5 * SECOND).await;
    // As the garbage collector does.
    fake.delete(Kind::Service, "shop", "waypoint");
    sleep(Duration::from_secs(600)).await;

    assert_eq!(fake.object(Kind::Service, "shop", "waypoint"), None);
}

#[tokio::test(start_paused = true)]
async fn objects_of_an_earlier_gateway_of_the_name_are_waited_for() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let replica = replica(&fake, "a");
    ready(&fake).await;
    fake.delete(Kind::Gateway, "shop", "waypoint");
    sleep(SECOND).await;
    let uid = put_gateway(&fake, |_| {});

    until(|| condition(&fake, "Programmed")).await;
    sleep(30 * SECOND).await;
    let owner = |fake: &Fake| {
        let service = fake.object(Kind::Service, "shop", "waypoint")?;
        service["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned)
    };
    assert_ne!(owner(&fake), Some(uid.clone()), "the garbage collector would take it away from the new one");
    for kind in [Kind::Service, Kind::ServiceAccount, Kind::Deployment] {
        fake.delete(kind, "shop", "waypoint");
    }
    fake.delete_other(&budgets(), "shop", "waypoint");

    until(|| owner(&fake).filter(|owner| *owner == uid)).await;
    drop(replica);
}

#[tokio::test(start_paused = true)]
async fn one_replica_writes_and_the_next_leader_writes_only_what_is_missing() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let first = replica(&fake, "a");
    ready(&fake).await;
    let _second = replica(&fake, "b");
    sleep(5 * SECOND).await;
    let before = writes(&fake);
    drop(first);

    let leads = |fake: &Fake| {
        let lease = fake.lease("istio-system", "strake-control")?;
        (lease["spec"]["holderIdentity"] == "b").then_some(())
    };
    until(|| leads(&fake)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(writes(&fake), before, "everything is as it should be");

    fake.delete(Kind::Service, "shop", "waypoint");
    made(&fake, Kind::Service, "waypoint").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_needs_no_more_is_removed() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica(&fake, "a");
    ready(&fake).await;

    put_gateway(&fake, |gateway| {
        gateway["metadata"]["annotations"] = json!({"gateway.istio.io/name-override": "front"});
    });
    made(&fake, Kind::Deployment, "front").await;
    until(|| fake.object(Kind::Deployment, "shop", "waypoint").is_none().then_some(())).await;
    until(|| fake.other(&budgets(), "shop", "waypoint").is_none().then_some(())).await;

    put_gateway(&fake, |gateway| {
        gateway["spec"]["addresses"] = json!([{"type": "IPAddress", "value": "192.0.2.1"}]);
    });
    until(|| fake.object(Kind::Deployment, "shop", "front").is_none().then_some(())).await;
    until(|| (addresses(&fake) == ["192.0.2.1"]).then_some(())).await;
    assert_eq!(condition(&fake, "Programmed").unwrap().0, "Unknown", "nobody has seen it");

    put_gateway(&fake, |_| {});
    made(&fake, Kind::Deployment, "waypoint").await;
    put_gateway(&fake, |gateway| gateway["spec"]["gatewayClassName"] = json!("theirs"));
    until(|| fake.object(Kind::Deployment, "shop", "waypoint").is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn overlays_are_read_from_config_maps() {
    let fake = server();
    fake.put(
        Kind::ConfigMap,
        "istio-system",
        "defaults",
        json!({
            "metadata": {"labels": {"gateway.istio.io/defaults-for-class": "strake-waypoint"}},
            "data": {"deployment": "spec: {minReadySeconds: 7}"},
        }),
    );
    put_gateway(&fake, |gateway| {
        gateway["spec"]["infrastructure"] = json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "own"}});
    });
    let _replica = replica(&fake, "a");
    let message = accepted(&fake, "InvalidParameters").await;
    assert_eq!(message, "spec.infrastructure.parametersRef: ConfigMap shop/own not found");
    assert_eq!(fake.object(Kind::Deployment, "shop", "waypoint"), None);

    let own = |data: Value| fake.put(Kind::ConfigMap, "shop", "own", json!({"metadata": {}, "data": data}));
    own(json!({"horizontalPodAutoscaler": "spec: {maxReplicas: 4}"}));
    let deployment = made(&fake, Kind::Deployment, "waypoint").await;
    assert_eq!(deployment["spec"]["minReadySeconds"], 7);
    until(|| fake.other(&autoscalers(), "shop", "waypoint")).await;
    accepted(&fake, "Accepted").await;

    own(json!({"deployment": "spec: {minReadySeconds: 9}"}));
    until(|| fake.other(&autoscalers(), "shop", "waypoint").is_none().then_some(())).await;
    let seconds = || Some(fake.object(Kind::Deployment, "shop", "waypoint")?["spec"]["minReadySeconds"].clone());
    until(|| seconds().filter(|seconds| *seconds == 9)).await;

    own(json!({"deployment": "spec: {selector: {matchLabels: {a: b}}}"}));
    accepted(&fake, "InvalidParameters").await;
    assert_eq!(seconds(), Some(json!(9)), "what runs is left as it is");
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_newer_controller_are_left_alone() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let first = replica(&fake, "a");
    ready(&fake).await;
    drop(first);
    edit(&fake, Kind::Deployment, "waypoint", |deployment| {
        deployment["metadata"]["annotations"]["strake.io/controller-version"] = json!("99");
        deployment["spec"]["strategy"] = json!({"type": "Newer"});
    });
    let _second = replica(&fake, "b");

    let newer = |found: &(String, String, String)| found.2.contains("was made by a newer control plane (version 99");
    let found = until(|| condition(&fake, "Programmed").filter(newer)).await;

    assert_eq!((found.0.as_str(), found.1.as_str()), ("True", "Programmed"), "its pods serve");
    assert_eq!(fake.object(Kind::Deployment, "shop", "waypoint").unwrap()["spec"]["strategy"]["type"], "Newer");
}

#[tokio::test(start_paused = true)]
async fn gateways_of_istios_class_are_ours_until_an_istiod_runs() {
    let fake = server();
    put_gateway(&fake, |gateway| gateway["spec"]["gatewayClassName"] = json!("istio-waypoint"));
    let _replica = replica(&fake, "a");
    made(&fake, Kind::Deployment, "waypoint").await;
    until(|| fake.object(Kind::GatewayClass, "", "istio-waypoint")).await;

    fake.put(
        Kind::Deployment,
        "istio-system",
        "istiod",
        json!({"metadata": {"labels": {"app": "istiod"}}, "spec": {}}),
    );

    until(|| fake.object(Kind::Deployment, "shop", "waypoint").is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_is_never_changed_and_a_gateway_of_another_class_of_ours_is_a_waypoint() {
    let fake = server();
    let class =
        json!({"metadata": {"labels": {"mine": "yes"}}, "spec": {"controllerName": "strake.io/waypoint-controller"}});
    fake.put(Kind::GatewayClass, "", "special", class.clone());
    fake.put(Kind::GatewayClass, "", "strake-waypoint", class);
    put_gateway(&fake, |gateway| gateway["spec"]["gatewayClassName"] = json!("special"));
    let _replica = replica(&fake, "a");

    let deployment = made(&fake, Kind::Deployment, "waypoint").await;

    let label = "gateway.networking.k8s.io/gateway-class-name";
    assert_eq!(deployment["metadata"]["labels"][label], "special");
    sleep(5 * SECOND).await;
    let class = fake.object(Kind::GatewayClass, "", "strake-waypoint").unwrap();
    assert_eq!((&class["metadata"]["labels"], &class["spec"]["description"]), (&json!({"mine": "yes"}), &Value::Null));
    assert_eq!(class["status"]["conditions"][0]["type"], "Accepted");
}

#[tokio::test(start_paused = true)]
async fn without_an_image_nothing_is_made_and_the_status_says_so() {
    let fake = server();
    put_gateway(&fake, |_| {});
    let _replica = replica_with(&fake, "a", None);

    let message = programmed(&fake, "NoResources").await;

    assert!(message.contains("--waypoint-image"), "{message}");
    assert_eq!(fake.object(Kind::Deployment, "shop", "waypoint"), None);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_listener_is_named_at_the_gateway_and_at_the_listener() {
    let fake = server();
    put_gateway(&fake, |gateway| gateway["spec"]["listeners"][0]["protocol"] = json!("HTTP"));
    let _replica = replica(&fake, "a");

    let message = accepted(&fake, "ListenersNotValid").await;

    assert_eq!(message, "spec.listeners[mesh]: found HTTP/15008, expected HBONE/15008");
    let gateway = fake.object(Kind::Gateway, "shop", "waypoint").unwrap();
    assert_eq!(gateway["status"]["listeners"][0]["conditions"][0]["reason"], "UnsupportedProtocol");
    assert_eq!(condition(&fake, "Programmed").unwrap().1, "Invalid");
}
