//! The plain half: a lab without the mesh's programs. What fails here is the lab's or the test application's doing.

use std::net::SocketAddr;

use testkit::{
    Shared,
    manifests::{app, namespace, service},
};

static LAB: Shared = Shared::plain("plain", manifests);

fn manifests() -> String {
    namespace("shop", false)
        + &app("shop", "cart", "node-1")
        + &app("shop", "near", "node-1")
        + &app("shop", "db", "node-2")
        + &service("shop", "cart")
        + &service("shop", "db")
}

#[test]
fn pods_reach_pods_by_address_over_both_families() {
    LAB.run(async |lab| {
        for pod in ["shop/cart", "shop/near", "shop/db"] {
            for ip in lab.pod(pod).await.ips {
                let target = SocketAddr::new(ip, 8080).to_string();
                let report = lab.client_ok("shop/cart", &["http", &target]).await;

                let local = report["local"].as_str().unwrap();
                assert!(report["body"].as_str().unwrap().contains(&format!("peer={local} ")), "{report}");
            }
        }
    });
}

#[test]
fn services_are_reached_by_name_over_both_families_also_from_their_own_pod() {
    LAB.run(async |lab| {
        for target in ["db:8080", "db.shop:80", "db.shop.svc.cluster.local:80", "cart.shop:80"] {
            for family in ["v4", "v6"] {
                lab.client_ok("shop/cart", &["http", target, "--family", family]).await;
            }
        }
    });
}

#[test]
fn every_way_of_using_tcp_works_without_the_mesh() {
    LAB.run(async |lab| {
        for args in [
            ["upload", "db:7002", "--bytes", "1000000"],
            ["download", "db:7003", "--bytes", "1000000"],
            ["duplex", "db:7004", "--bytes", "1000000"],
            ["server-first", "db:7001", "--bytes", "0"],
            ["ask-reset", "db:7005", "--bytes", "0"],
            ["read-then-write", "db:7006", "--bytes", "1000"],
        ] {
            lab.client_ok("shop/cart", &args).await;
        }
        let report =
            lab.client_ok("shop/cart", &["connections", "db:7000", "--count", "500", "--parallel", "16"]).await;
        assert_eq!(report["failed"], 0, "{report}");
    });
}

#[test]
fn the_wire_between_the_nodes_is_recorded() {
    LAB.run(async |lab| {
        let work = lab.client_ok("shop/cart", &["http", "db:80", "--text", "/marker-plain"]);
        let (_, frames) = lab.captured("node-2", work).await;

        let audit = lab.audit(&frames, &["shop/cart", "shop/db"]).await;
        assert!(audit.plain.iter().any(|stream| stream.head.starts_with("GET /marker-plain")), "{audit:?}");
        assert!(capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-plain") >= 2);
    });
}
