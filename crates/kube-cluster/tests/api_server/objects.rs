//! Lists of single objects, in pages.

use kube_cluster::{Collection, Objects, Verb};
use kube_types::Kind;

use crate::fake::{Fake, Fault, When, pod};

#[tokio::test]
async fn a_list_whose_token_has_expired_is_asked_for_anew_and_is_complete() {
    let fake = Fake::default();
    let names: Vec<_> = (0..8).map(|index| format!("web-{index}")).collect();
    for name in &names {
        fake.put(Kind::Pod, "app", name, pod("n1"));
    }
    let (objects, pods) = (Objects::new(&fake.server()), Collection::all("v1", "pods"));
    let listed = async || {
        let listed = objects.list(&pods, None, None).await.map_err(|error| error.to_string())?;
        let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        Ok::<Vec<String>, String>(listed.iter().map(name).collect())
    };

    fake.fail(When::next(Verb::List).after(1), Fault::Refuse(410, None));
    assert_eq!(listed().await.as_ref(), Ok(&names));

    // A list that fails is an error and never a part, or nothing.
    fake.fail(When::always(Verb::List).after(1), Fault::Refuse(410, None));
    assert!(listed().await.is_err_and(|text| text.contains("410")));
}
