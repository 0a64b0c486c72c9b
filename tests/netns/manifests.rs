//! Pods come and go with the user's manifests; see `mistakes` for those that are broken.

use testkit::{
    labs,
    manifests::{app, client_and_server},
};

#[test]
fn pods_come_and_go_with_their_manifests() {
    labs::run_alone("pods", &client_and_server(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server"]).await;

        lab.write("late.yaml", &app("mesh", "late", "node-1")).unwrap();
        lab.wait_pod("mesh/late").await;
        lab.meshed(&["mesh/late"]).await;
        let address = format!("{}:7000", lab.ip("mesh/late", false).await);
        lab.client_ok("mesh/client", &["echo", &address]).await;
        lab.client_ok("mesh/late", &["http", "server:80"]).await;

        lab.remove("late.yaml").unwrap();
        lab.wait_gone("mesh/late").await;
        lab.client_ok("mesh/client", &["http", "server:80"]).await;
    });
}
