use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plugin_config::AgentDown;

fn plugin() -> PluginConfig {
    PluginConfig {
        r#type: PLUGIN_TYPE.to_owned(),
        cni_agent_run_dir: "/var/run/istio-cni".into(),
        agent_down: AgentDown::RefuseSelected,
        kubeconfig: Some("/etc/cni/net.d/strake-cni-kubeconfig".into()),
        exclude_namespaces: vec!["kube-system".to_owned()],
        pod_namespace: "istio-system".to_owned(),
        log_file: None,
    }
}

fn file(name: &str, value: &Value) -> File {
    File { name: name.to_owned(), bytes: value.to_string().into_bytes() }
}

fn calico() -> Value {
    json!({
        "name": "k8s-pod-network", "cniVersion": "0.3.1", "somebody's": {"deep": [1, null, "x"]},
        "plugins": [{"type": "calico", "mtu": 0, "ipam": {"type": "calico-ipam"}}, {"type": "portmap", "snat": true}],
    })
}

fn read(chained: &Chained) -> Value {
    serde_json::from_slice(&chained.bytes).unwrap()
}

/// The list without the plugin.
fn without(mut list: Value) -> Value {
    list["plugins"].as_array_mut().unwrap().pop();
    list
}

#[test]
fn the_plugin_comes_last_and_everything_else_stays() {
    let chained = chain(vec![file("10-calico.conflist", &calico())], None, &plugin()).unwrap();

    assert_eq!((chained.name, chained.primary.as_str()), ("00-strake.conflist", "10-calico.conflist"));
    let list = read(&chained);
    assert_eq!(list["plugins"][2], serde_json::to_value(plugin()).unwrap());
    assert_eq!(without(list), calico());
}

#[test]
fn a_configuration_of_one_plugin_becomes_a_list() {
    let bridge = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "isGateway": true});

    let list = read(&chain(vec![file("10-bridge.conf", &bridge)], None, &plugin()).unwrap());

    assert_eq!((&list["name"], &list["cniVersion"]), (&json!("net"), &json!("1.0.0")));
    assert_eq!(list["plugins"][0], bridge);
    assert_eq!(list["plugins"][1]["type"], PLUGIN_TYPE);
}

#[test]
fn the_first_valid_file_by_name_is_the_clusters() {
    let second = json!({"name": "b", "cniVersion": "1.0.0", "plugins": [{"type": "second"}]});
    let files = vec![
        file("20-second.conflist", &second),
        file("10-list-as-one.conf", &calico()),
        File { name: "05-cut.conflist".to_owned(), bytes: b"{\"name\":".to_vec() },
        file("00-strake.conflist", &calico()),
        file("01-ignored.conflist.bak", &calico()),
        file("strake-cni-kubeconfig", &json!({})),
    ];

    let chained = chain(files, None, &plugin()).unwrap();

    assert_eq!(chained.primary, "20-second.conflist");
    let skipped: Vec<_> = chained.skipped.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(skipped, ["05-cut.conflist", "10-list-as-one.conf"]);
}

#[test]
fn a_file_is_named_with_either_ending() {
    let flannel = json!({"name": "cbr0", "cniVersion": "0.3.1", "type": "flannel"});
    let files = || vec![file("05-other.conflist", &calico()), file("10-flannel.conf", &flannel)];

    let chained = chain(files(), Some("10-flannel.conflist"), &plugin()).unwrap();

    assert_eq!(chained.primary, "10-flannel.conf");
    let missing = chain(files(), Some("10-calico.conflist"), &plugin()).unwrap_err();
    assert!(matches!(missing, NoConfiguration::Unnamed(_)), "{missing}");
}

#[test]
fn the_plugins_file_sorts_before_all_others() {
    for (other, own) in [
        ("10-calico.conflist", Some("00-strake.conflist")),
        ("00-aaa.conflist", Some("0-strake.conflist")),
        ("0-a.conflist", Some("0-0-strake.conflist")),
        ("0-0-a.conflist", None),
    ] {
        let chained = chain(vec![file(other, &calico())], None, &plugin());

        assert_eq!(chained.as_ref().map(|chained| chained.name).ok(), own, "{chained:?}");
    }
}

#[test]
fn what_cannot_be_chained_is_named() {
    let reason = |value: Value| chain(vec![file("10-x.conflist", &value)], None, &plugin()).unwrap_err().to_string();
    let with = |field: &str, value: Value| {
        let mut list = calico();
        list[field] = value;
        list
    };

    for (list, expected) in [
        (json!([]), "10-x.conflist: expected an object"),
        (json!({"name": "x"}), "expected a list of at least one plugin"),
        (with("plugins", json!([])), "expected a list of at least one plugin"),
        (with("plugins", json!([{"mtu": 1}])), "expected a text as type"),
        (with("name", json!("")), "expected a text as name"),
        (with("cniVersion", json!("0.2.0")), "cniVersion 0.2.0, expected one of 0.3.0 to 1.1.0"),
        (with("cniVersion", Value::Null), "cniVersion is absent"),
        (with("plugins", json!([{"type": "multus"}])), "CNI_CONF_NAME"),
    ] {
        let text = reason(list);
        assert!(text.contains(expected), "{text}");
    }
    assert!(chain(Vec::new(), None, &plugin()).unwrap_err().to_string().starts_with("no CNI configuration"));
}

#[test]
fn a_list_of_several_versions_is_usable_when_one_is_known() {
    let mut list = calico();
    list["cniVersions"] = json!(["0.2.0", "1.1.0"]);
    list.as_object_mut().unwrap().remove("cniVersion");

    assert!(chain(vec![file("10-x.conflist", &list)], None, &plugin()).is_ok());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z \"\\\\é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_field_of_a_list_is_kept(
        extra in prop::collection::btree_map("x[a-z]{1,6}", json_value(), 0..5),
        options in prop::collection::vec(json_value(), 1..4),
    ) {
        let mut list = json!({"name": "n", "cniVersion": "1.0.0"});
        list.as_object_mut().unwrap().extend(extra);
        list["plugins"] = options.into_iter().map(|option| json!({"type": "t", "option": option})).collect();

        let chained = chain(vec![file("10-x.conflist", &list)], None, &plugin()).unwrap();

        prop_assert_eq!(without(read(&chained)), list);
    }

    #[test]
    fn a_chain_of_a_chain_has_the_plugin_once(name in "[1-9][a-z-]{0,8}") {
        let once = chain(vec![file(&format!("{name}.conflist"), &calico())], None, &plugin()).unwrap();
        let copied = File { name: format!("{name}.conflist"), bytes: once.bytes.clone() };

        prop_assert_eq!(chain(vec![copied], None, &plugin()).unwrap().bytes, once.bytes);
    }

    #[test]
    fn whatever_the_files_are_called_the_plugins_sorts_first(
        names in prop::collection::btree_set("[0-9a-z][0-9a-z-]{0,6}", 1..5),
    ) {
        let files = names.iter().map(|name| file(&format!("{name}.conflist"), &calico())).collect();

        match chain(files, None, &plugin()) {
            Ok(chained) => {
                let is_first = names.iter().all(|name| chained.name < format!("{name}.conflist").as_str());
                prop_assert!(is_first, "{}", chained.name);
            }
            Err(error) => prop_assert!(matches!(error, NoConfiguration::Order(_)), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_configuration_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _: Result<Chained, NoConfiguration> =
            chain(vec![File { name: "10-x.conf".to_owned(), bytes }], None, &plugin());
    }
}
