use super::*;
use crate::intent::Selection;
use lab::PodInfo;

fn pod(name: &str, uid: &str, node: &str) -> PodInfo {
    PodInfo {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        node: node.into(),
        ips: vec!["10.244.1.2".parse().unwrap(), "fd00:10:244:1::2".parse().unwrap()],
        phase: Phase::Running,
        ready: true,
        terminating: false,
        blocked: false,
        reason: String::new(),
        containers: Vec::new(),
        cgroup: "/".into(),
        pid: None,
    }
}

fn reports() -> Reports {
    let check = |name: &str, ok| Check { name: name.into(), ok, ..Check::default() };
    let cart = PodReport {
        uid: "1".into(),
        selected: true,
        state: PodState::Enrolled,
        checks: vec![check("sk_lookup", true), check("rules", true)],
        netns: "4026532000".into(),
        cookie: Some(7),
        since: "2026-01-01T00:00:00Z".into(),
        ..PodReport::default()
    };
    let db = PodReport {
        uid: "2".into(),
        selected: true,
        state: PodState::Failed,
        reason: "rule 32764 is missing".into(),
        notes: vec!["annotation ambient.istio.io/dns-capture is not supported".into(), "another".into()],
        checks: vec![check("sk_lookup", true), check("rules", false)],
        ..PodReport::default()
    };
    Reports {
        pods: [("1".into(), cart), ("2".into(), db)].into(),
        silent: [("node-2".into(), "agent of node-2: cannot reach admin.sock".into())].into(),
    }
}

fn rows() -> Vec<Row> {
    [pod("cart", "1", "node-1"), pod("db", "2", "node-1"), pod("web", "3", "node-1"), pod("log", "4", "node-2")]
        .into_iter()
        .map(|pod| join(PodFacts::of_lab(pod, &Selection::default()), &reports()))
        .collect()
}

fn render(rows: Vec<Row>, format: Format) -> Result<String> {
    listing::render(&Listing::of(rows), format)
}

#[test]
fn the_table_tells_state_proof_and_reason() {
    insta::assert_snapshot!(render(rows(), Format::Table).unwrap(), @r"
    NAMESPACE   NAME   NODE     IPS                           STATE      CHECKS   REASON
    shop        cart   node-1   10.244.1.2,fd00:10:244:1::2   enrolled   2/2      -
    shop        db     node-1   10.244.1.2,fd00:10:244:1::2   failed     1/2      rule 32764 is missing
    shop        web    node-1   10.244.1.2,fd00:10:244:1::2   unknown    -        unknown to the agent
    shop        log    node-2   10.244.1.2,fd00:10:244:1::2   unknown    -        agent of node-2: cannot reach admin.sock

    note: shop/db: annotation ambient.istio.io/dns-capture is not supported
    note: shop/db: another
    ");
}

#[test]
fn without_notes_the_table_is_all_there_is() {
    let rows = rows().into_iter().filter(|row| row.name != "db").collect();

    assert!(render(rows, Format::Table).unwrap().ends_with("cannot reach admin.sock\n"));
}

#[test]
fn the_wide_table_names_each_check() {
    let text = render(rows(), Format::Wide).unwrap();

    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert!(header.ends_with(&["PHASE", "NETNS", "COOKIE", "DETAILS", "NOTES"]), "{text}");
    assert!(text.contains("dns-capture is not supported; another\n"), "{text}");
    assert!(text.contains("sk_lookup=ok,rules=FAILED"), "{text}");
}

#[test]
fn json_and_yaml_hold_the_same() {
    let json: serde_json::Value = serde_json::from_str(&render(rows(), Format::Json).unwrap()).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&render(rows(), Format::Yaml).unwrap()).unwrap();

    assert_eq!(json, yaml);
    assert_eq!(json["pods"][1]["checks"][1]["name"], "rules");
    assert_eq!(json["pods"][1]["notes"][1], "another");
    assert_eq!(json["pods"][0]["notes"], serde_json::json!([]));
    assert_eq!(json["pods"][3]["state"], "unknown");
}

/// A pod whose manifests select it or not, and of which an agent reports the state.
fn row(phase: Phase, selects: bool, state: PodState, seen: bool) -> Row {
    let report = PodReport { uid: "1".into(), selected: seen, state, ..PodReport::default() };
    let reports = Reports { pods: [("1".into(), report)].into(), silent: HashMap::new() };
    let facts =
        PodFacts::of_lab(PodInfo { phase, ..pod("db", "1", "node-1") }, &Selection::selecting("shop", "db", selects));
    join(facts, &reports)
}

#[test]
fn a_report_older_than_the_labels_is_pending_and_not_settled() {
    for (selects, state) in [(true, PodState::NotSelected), (false, PodState::Enrolled)] {
        let row = row(Phase::Running, selects, state, !selects);

        assert_eq!((row.state.as_str(), row.selected), ("pending", selects));
        assert!(!row.is_settled());
    }
}

#[test]
fn a_pod_is_settled_where_its_labels_want_it_and_only_there() {
    assert!(row(Phase::Running, true, PodState::Enrolled, true).is_settled());
    assert!(row(Phase::Running, false, PodState::NotSelected, false).is_settled());
    for state in [PodState::Unknown, PodState::Enrolling, PodState::Failed, PodState::Leaving] {
        assert!(!row(Phase::Running, true, state, true).is_settled(), "{state:?}");
    }
    assert!(!row(Phase::Running, false, PodState::Leaving, false).is_settled());
}

#[test]
fn a_pod_that_has_ended_is_settled_and_has_no_peers() {
    for phase in [Phase::Succeeded, Phase::Failed] {
        let row = row(phase, true, PodState::NotSelected, true);

        assert!(row.is_settled());
        assert_eq!(row.wants_hbone(), None);
    }
}
