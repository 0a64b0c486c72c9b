//! Policies by `kubectl apply`, which hold from the moment at which their condition says so.

use anyhow::{Context as _, Result, ensure};

use super::{
    Story,
    shop::{self, INTRUDER, SHOP, Urls},
};
use crate::stage::{eventually, expect_equal};

const STRICT: &str = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict}\n\
                      spec: {mtls: {mode: STRICT}}\n";

const ONLY_CART: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: db}\nspec:\n  \
                         selector: {matchLabels: {app: db}}\n  action: ALLOW\n  rules:\n  - from:\n    - source: \
                         {principals: [cluster.local/ns/shop/sa/cart]}\n";

pub(super) fn strict(story: &mut Story) -> Result<()> {
    story.report.step("STRICT: only the mesh gets in, and the kubelet's probes");
    let urls = Urls::of(&story.cluster)?;
    shop::get(&story.cluster, INTRUDER, "deploy/mallory", &urls.v4)?;
    story.report.proved("mallory, outside the mesh, calls db before the policy", &[]);

    let running = shop::containers(&story.cluster)?;
    story.report.command("kubectl apply -n shop -f strict.yaml");
    story.cluster.apply(SHOP, STRICT)?;
    let enforced = story.enforced("peerauthentication/strict")?;
    // What the condition says is so from the first request on.
    let refused = shop::get(&story.cluster, INTRUDER, "deploy/mallory", &urls.v4);
    ensure!(refused.is_err(), "STRICT lets plaintext in: {refused:?}");
    let mallory = format!("{INTRUDER}/{}", shop::pod(&story.cluster, INTRUDER, "mallory", "node-1")?);
    let why = story.strake(&["explain", &mallory, "shop/db"])?;
    let refused = why.lines().find(|line| line.contains("REFUSED  shop/db-"));
    let refused = refused.with_context(|| format!("not refused: {why}"))?.trim().to_owned();
    ensure!(why.contains("(of a PeerAuthentication): matches"), "{why}");
    story.report.proved("mallory is refused from the moment at which the condition says it", &[enforced, refused]);
    shop::call_all(&story.cluster)?;
    story.report.proved("cart is answered", &[]);

    let probed = probed(story);
    let ready = story.cluster.field(SHOP, "pods", ".items[*].status.containerStatuses[*].ready")?;
    ensure!(ready.split(' ').all(|ready| ready == "true"), "{ready}");
    ensure!(shop::containers(&story.cluster)? == running, "a container was started again");
    story.report.proved("http, tcp, exec and grpc probes go on: all pods are ready, none was started again", &probed);
    story.cluster.kubectl(&["delete", "--namespace", SHOP, "peerauthentication/strict"])?;
    eventually("those outside are let in again", || {
        shop::get(&story.cluster, INTRUDER, "deploy/mallory", &urls.v4).map(drop)
    });
    Ok(())
}

/// Probes of the last seconds in the logs of the servers that answered them.
fn probed(story: &Story) -> Vec<String> {
    let of = |deployment: &str, path: &str| {
        eventually(&format!("{deployment} is probed"), || {
            let log = ["--namespace", SHOP, "logs", &format!("deploy/{deployment}"), "--since=2s"];
            let log = story.cluster.kubectl(&log)?;
            let line = log.lines().find(|line| line.contains(path)).map(|line| format!("{deployment}: {line}"));
            line.ok_or_else(|| anyhow::anyhow!("no request for {path} within two seconds"))
        })
    };
    vec![of("db", " /ready "), of("cart", " /grpc.health.v1.Health/Check ")]
}

pub(super) fn allow(story: &mut Story) -> Result<()> {
    story.report.step("AuthorizationPolicy: only cart may call db");
    let urls = Urls::of(&story.cluster)?;
    story.report.command("kubectl apply -n shop -f only-cart.yaml");
    story.cluster.apply(SHOP, ONLY_CART)?;
    let enforced = story.enforced("authorizationpolicy/db")?;
    shop::call_all(&story.cluster)?;
    // `db` itself is in the mesh, and has another identity. Of the other node: a pod that calls itself meets no proxy.
    let db = format!("pod/{}", shop::pod(&story.cluster, SHOP, "db", "node-1")?);
    for (namespace, from) in [(SHOP, db.as_str()), (INTRUDER, "deploy/mallory")] {
        let refused = shop::get(&story.cluster, namespace, from, &urls.v4);
        ensure!(refused.is_err(), "{namespace} {from} is let in: {refused:?}");
    }
    story.report.proved("cart is answered; db's own identity and mallory are refused", &[enforced]);
    story.cluster.kubectl(&["delete", "--namespace", SHOP, "authorizationpolicy/db"])?;
    eventually("others are let in again", || {
        expect_equal(shop::get(&story.cluster, INTRUDER, "deploy/mallory", &urls.v4).is_ok(), true)
    });
    Ok(())
}
