//! Programs of the mesh that are replaced, away or lost, under traffic.

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::{
    Story,
    shop::{self, SHOP, Urls},
};
use crate::stage::{Held, eventually, expect_equal};

/// Restarts a program of the mesh and waits until its rollout has ended.
pub(super) fn restart(story: &Story, program: &str) -> Result<()> {
    story.cluster.kubectl(&["--namespace=istio-system", "rollout", "restart", program])?;
    shop::rolled_out(&story.cluster, "istio-system", program)
}

/// Names of ztunnel's pods.
fn ztunnels(story: &Story) -> Result<Vec<String>> {
    let names = story.cluster.kubectl(&[
        "--namespace=istio-system",
        "get",
        "pods",
        "--selector=app=ztunnel",
        "--output=jsonpath={.items[*].metadata.name}",
    ])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

pub(super) fn rollouts(story: &mut Story) -> Result<()> {
    story.report.step("Every program is replaced under traffic: no request fails");
    for program in ["daemonset/ztunnel", "daemonset/strake-agent", "deployment/strake-control"] {
        let pods = shop::addresses(&story.cluster, SHOP)?;
        let url = Urls::of(&story.cluster)?.v4;
        let replaced = ztunnels(story)?;
        story.report.command(&format!("kubectl rollout restart -n istio-system {program}"));
        let (held, requests, wire) = story.under_load(|| {
            let held = Held::start(&story.cluster, SHOP, "deploy/cart", &url)?;
            restart(story, program)?;
            if story.pace.wait_for_drain && program == "daemonset/ztunnel" {
                let ended = [&["--namespace=istio-system", "wait", "--for=delete", "--timeout=120s"][..]];
                let pods: Vec<_> = replaced.iter().map(|name| format!("pod/{name}")).collect();
                let pods: Vec<_> = pods.iter().map(String::as_str).collect();
                story.cluster.kubectl(&[ended.concat(), pods].concat())?;
            }
            held.stop()
        })?;
        ensure!(requests.failed.is_empty(), "{program}: {requests:?}");
        ensure!(wire.audit(&pods).plain.is_empty(), "{program}: plaintext on the wire");
        // A connection lives in its ztunnel, and longer than that one may drain.
        ensure!(held.is_ok() || program == "daemonset/ztunnel", "{program}: a connection was cut: {held:?}");
        let held = match held {
            Ok(requests) => format!("a long connection went on: {requests} requests"),
            Err(cut) => format!("a long connection did not outlive the drain: {cut:#}"),
        };
        let new = format!("{} requests over new connections, 0 failed, none in plaintext", requests.answered);
        story.report.proved(&format!("{program} is another one"), &[new, held]);
    }
    Ok(())
}

pub(super) fn control_plane(story: &mut Story) -> Result<()> {
    let outage = story.pace.outage;
    story.report.step("The control plane is away: running traffic does not notice, users do");
    let pods = shop::addresses(&story.cluster, SHOP)?;
    let scale = |replicas: &str| {
        let control = ["--namespace=istio-system", "scale", "deployment/strake-control", "--replicas", replicas];
        story.kubectl(&control).map(drop)
    };
    let (told, requests, wire) = story.under_load(|| {
        scale("0")?;
        let gone = ["--namespace=istio-system", "wait", "--for=delete", "pod", "--selector=app=strake-control"];
        story.cluster.kubectl(&[&gone[..], &["--timeout=60s"]].concat())?;
        thread::sleep(outage);
        let told = story.strake(&["status", "--check"]).err().context("strake status finds everything in place")?;
        scale("1")?;
        shop::rolled_out(&story.cluster, "istio-system", "deployment/strake-control")?;
        Ok(told)
    })?;
    ensure!(requests.failed.is_empty() && wire.audit(&pods).plain.is_empty(), "{requests:?}");
    let told = format!("{told:#}");
    let told = told.lines().find(|line| line.contains("strake-control")).unwrap_or(&told).trim().to_owned();
    story.report.proved(
        &format!("away for {} s: no request over a new connection fails", outage.as_secs()),
        &[format!("{} requests", requests.answered), format!("strake status: {told}")],
    );
    Ok(())
}

/// The node loses programs, rules and processes under traffic; its pods come back before or after its agent.
pub(super) fn reboot(story: &mut Story) -> Result<()> {
    story.report.step("A node reboots: its pods come back in the mesh");
    let (mut pods, before) = (shop::addresses(&story.cluster, SHOP)?, shop::containers(&story.cluster)?);
    let (seen, requests, wire) = story.under_load(|| {
        story.report.command("reboot (node-2)");
        story.cluster.command(&["reboot", "node-2"])?;
        eventually("the pods of the node run again", || {
            expect_equal(shop::containers(&story.cluster)? == before, false)?;
            shop::rolled_out(&story.cluster, SHOP, "deployment/db")
        });
        // By the Service: its endpoints are known to proxies together with their addresses.
        let seen = eventually("both nodes answer", || {
            let answers =
                (0..8).map(|_| shop::get(&story.cluster, SHOP, "deploy/cart", &format!("http://db.{SHOP}/order")));
            let answers = answers.collect::<Result<Vec<_>>>()?;
            for node in ["node=node-1", "node=node-2"] {
                ensure!(answers.iter().any(|answer| answer.contains(node)), "no answer of {node}: {answers:?}");
            }
            Ok(answers)
        });
        Ok(seen)
    })?;
    pods.extend(shop::addresses(&story.cluster, SHOP)?);
    let sealed = story.only_tls(&wire, &pods)?;
    let failed = requests.failed.lines().count();
    let requests = format!("{} requests answered, {failed} to the node that was away failed", requests.answered);
    story.report.proved("not one packet of a labelled pod is in plaintext", &[sealed, requests]);
    shop::until_announced(&story.cluster, SHOP, true);
    eventually("they answer by address", || shop::call_all(&story.cluster));
    let seen = seen.into_iter().find(|answer| answer.contains("node=node-2")).unwrap_or_default();
    story.report.proved("the pods of the node are enrolled again", &[seen]);
    Ok(())
}
