//! From an ordinary cluster to pods in the mesh.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{
    Story,
    shop::{self, INTRUDER, SHOP},
};
use crate::stage::{eventually, mesh};

pub(super) fn before(story: &mut Story) -> Result<()> {
    story.report.step("Two namespaces of ordinary Deployments on both nodes, no mesh");
    shop::deploy(&story.cluster)?;
    let (answers, wire) = story.wire(|| shop::call_all(&story.cluster))?;
    story.report.proved("cart on node-1 calls db on node-2 over IPv4, IPv6 and by its Service", &answers);
    let readable = readable(&wire.audit(&shop::addresses(&story.cluster, SHOP)?))?;
    story.report.proved("the requests can be read on the wire between the nodes", &[readable]);
    Ok(())
}

/// The first request that is to be seen in a capture.
pub(super) fn readable(audit: &capture::Audit) -> Result<String> {
    let request = audit.plain.iter().find(|plain| plain.head.starts_with("GET /order"));
    let request = request.with_context(|| format!("no request was seen: {audit:?}"))?;
    Ok(format!("{} -> {}  {:?}", request.src, request.dst, request.head.lines().next().unwrap_or_default()))
}

pub(super) fn install(story: &mut Story) -> Result<()> {
    story.report.step("The mesh is installed: nothing changes for the applications");
    mesh::import(&story.cluster)?;
    let running = shop::containers(&story.cluster)?;
    let begun = Instant::now();
    let printed = story.strake(&["install", "--hub", "localhost"])?;
    ensure!(printed.contains("the mesh is installed"), "{printed}");
    story.report.proved(
        "control plane, agents and ztunnels are ready on both nodes",
        &[format!("after {:.1} s", begun.elapsed().as_secs_f64())],
    );
    let (_, wire) = story.wire(|| shop::call_all(&story.cluster))?;
    let readable = readable(&wire.audit(&shop::addresses(&story.cluster, SHOP)?))?;
    ensure!(shop::containers(&story.cluster)? == running, "a container was started again");
    story.report.proved("without a label pods run and talk as before", &[readable]);
    Ok(())
}

pub(super) fn label(story: &mut Story) -> Result<()> {
    story.report.step("The label: running pods join the mesh, none is restarted");
    let running = shop::containers(&story.cluster)?;
    story.report.command(&format!("kubectl label namespace {SHOP} istio.io/dataplane-mode=ambient"));
    let begun = Instant::now();
    shop::set_label(&story.cluster, "istio.io/dataplane-mode=ambient")?;
    let enrolled = shop::until_announced(&story.cluster, SHOP, true);
    let took = begun.elapsed().as_secs_f64();
    story.report.proved(
        "the agents have enrolled every pod and read it back from the kernel",
        &[format!("{enrolled} pods after {took:.1} s")],
    );

    let pods = shop::addresses(&story.cluster, SHOP)?;
    let (answers, wire) = story.wire(|| shop::call_all(&story.cluster))?;
    story.report.proved("the same calls are answered", &answers);
    let sealed = story.only_tls(&wire, &pods)?;
    story.report.proved("nothing but TLS 1.3 passes between the pods of the two nodes", &[sealed]);
    ensure!(shop::containers(&story.cluster)? == running, "a container was started again");
    ensure!(shop::announced(&story.cluster, INTRUDER, false)? > 0, "no pod of the other namespace runs");
    story.report.proved("no container was started again, and the other namespace is as it was", &[]);
    let identities = identities(story)?;
    story.report.proved("ztunnel's log has the identities of both sides", &[identities]);
    let status = story.strake(&["status", "--check"])?;
    ensure!(status.contains("PODS SELECTED"), "{status}");
    story
        .report
        .proved("strake status finds everything in place", &status.lines().map(str::to_owned).collect::<Vec<_>>());
    Ok(())
}

/// The part of the access log that names who called whom.
fn identities(story: &Story) -> Result<String> {
    let (cart, db) = (format!("ns/{SHOP}/sa/cart"), format!("ns/{SHOP}/sa/db"));
    let logs = ["--namespace=istio-system", "logs", "--selector=app=ztunnel", "--tail=-1", "--since=60s"];
    // A line is written when its connection has ended.
    Ok(eventually("the connection is logged", || {
        let log = story.cluster.kubectl(&logs)?;
        let line = log.lines().find(|line| line.contains(&cart) && line.contains(&db) && line.contains("src.identity"));
        let line = line.with_context(|| format!("no line names {cart} and {db}"))?;
        let fields = line.split_whitespace().filter(|field| field.contains(".identity="));
        Ok(fields.collect::<Vec<_>>().join(" "))
    }))
}

/// The commands that look into a mesh, through the API server: ztunnels answer on loopback only.
pub(super) fn questions(story: &mut Story) -> Result<()> {
    story.report.step("The command line answers questions about the mesh");
    let cart = format!("{SHOP}/{}", shop::pod(&story.cluster, SHOP, "cart", "node-1")?);
    let questions: [(&[&str], &[&str]); 7] = [
        (&["check"], &["the mesh is in order (0 errors"]),
        (&["get", "services", "db", "-n", SHOP, "-o", "wide"], &["2/2"]),
        (&["get", "certificates", "-n", SHOP], &["Available"]),
        (&["explain", &cart, "shop/db", "--check"], &["ALLOWED  shop/db-", "HBONE"]),
        (&["describe", "service", "db", "-n", SHOP], &["callers of port 80"]),
        (&["logs", "ztunnel", "--node", "node-2", "--tail", "3"], &["info"]),
        (&["analyze", "--all-namespaces"], &["0 errors"]),
    ];
    for (question, expected) in questions {
        let answer = story.strake(question)?;
        for part in expected {
            ensure!(answer.contains(part), "expected {part:?}, found {answer}");
        }
    }
    let count = questions.len();
    story.report.proved(&format!("{count} questions, each answered by the programs themselves"), &[]);
    Ok(())
}
