//! Permissions: with the rules that the crate names everything works, and each of them is used.

use std::collections::BTreeSet;
use std::time::Duration;

use kube_cluster::{Access, Election, ElectionConfig, Owned, StatusConfig, Verb, Watched, rules, status};
use kube_types::{Kind, ObjectRef};
use serde_json::json;

use crate::consumer::Consumer;
use crate::fake::{Fake, pod};

#[tokio::test(start_paused = true)]
async fn a_program_needs_its_rules_and_nothing_else() {
    let fake = Fake::default();
    let uid = fake.put(Kind::Pod, "app", "web", pod("n1"));
    fake.put(Kind::PeerAuthentication, "app", "strict", json!({"metadata": {}, "spec": {}}));
    let watched = vec![
        Watched::all(Kind::Pod).with_fields("spec.nodeName=n1"),
        Watched::all(Kind::PeerAuthentication),
        Watched::all(Kind::ConfigMap).in_namespace("mesh"),
    ];
    let election = ElectionConfig {
        server: fake.server(),
        namespace: "mesh".to_owned(),
        name: "control".to_owned(),
        identity: "first".to_owned(),
    };
    let statuses = [Kind::Pod, Kind::PeerAuthentication];
    let rules = rules(Access { watched: &watched, statuses: &statuses, lease: Some(("mesh", "control")) });
    fake.allow(rules.clone());

    let mut consumer = Consumer::in_sync(&fake, watched).await;
    let election = Election::start(election);
    assert!(election.leadership().acquired().await);
    let status = status(StatusConfig {
        server: fake.server(),
        manager: "strake-test".to_owned(),
        kinds: statuses.to_vec(),
        owned: Owned { annotations: vec!["a".to_owned()], ..Owned::default() },
        versions: consumer.versions.clone(),
        leadership: Some(election.leadership()),
    });
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}});
    status.apply_to(&ObjectRef::new(Kind::Pod, "app", "web"), &uid, annotated).await.unwrap();
    let strict = ObjectRef::new(Kind::PeerAuthentication, "app", "strict");
    status.apply(&strict, json!({"status": {"conditions": [{"type": "Enforced"}]}})).await.unwrap();
    status.clear(&strict).await.unwrap();
    fake.cut_watches();
    consumer.for_time(Duration::from_secs(60)).await;
    election.release().await;

    assert_eq!(consumer.messages(), [""; 0]);
    let used = fake.asked().into_iter().filter_map(|asked| {
        let resource = asked.rule_resource();
        Some((asked.resource.group, resource, asked.verb?))
    });
    let granted = rules.into_iter().flat_map(|rule| {
        let (group, resource) = (rule.api_group, rule.resource);
        rule.verbs.into_iter().map(move |verb| (group.clone(), resource.clone(), verb))
    });
    let (used, granted): (BTreeSet<(String, String, Verb)>, BTreeSet<_>) = (used.collect(), granted.collect());
    assert_eq!(used, granted);
}
