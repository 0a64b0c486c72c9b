//! Step 2: the label. Pods join while they run, and the same calls work.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use capture::Frame;
use kube_types::{Kind, ObjectRef};
use serde_json::Value;

use super::{
    report::Evidence,
    story::{CART, DB, Family, NODES, Story, TAKES_EFFECT, eventually, host},
};
use crate::{admin, get::pods, label};

/// From the label in the file to the agents' proof of every running pod.
const PROMISE: Duration = Duration::from_secs(2);

/// Labels the namespace and makes the calls of the story; what was on the wire meanwhile.
pub(crate) async fn tell(story: &mut Story) -> Result<Vec<Frame>> {
    story.report.step("The label: running pods join the mesh, nothing is restarted");
    story.command(&format!("label namespace shop istio.io/dataplane-mode=ambient --lab {}", story.lab.name()));

    let pids = pids(story).await?;
    let begun = Instant::now();
    set_label(story, "istio.io/dataplane-mode=ambient")?;
    let enrolled = eventually(TAKES_EFFECT, async || story.all_in_state("enrolled").await).await;
    let took = begun.elapsed();
    let proved = enrolled.and_then(|rows| {
        ensure!(took <= PROMISE, "it took {took:.1?}");
        Ok(vec![format!(
            "{} pods, every check read back from the kernel, after {:.2} s",
            rows.len(),
            took.as_secs_f64()
        )])
    });
    story.report.prove("within 2 s the agents have enrolled every running pod", proved);

    let announced = eventually(TAKES_EFFECT, async || announced(story).await).await;
    let took = begun.elapsed().as_secs_f64();
    story.report.prove(
        "both ztunnels have learned that these pods speak HBONE",
        announced.map(|()| vec![format!("after {took:.2} s")]),
    );

    // The process ids were read before the label: a container that was started again has another one.
    let same = self::pids(story).await.and_then(|now| unchanged(&pids, &now));
    story.report.prove("no process of theirs was restarted", same);
    let frames = calls(story).await?;
    let rows = story.shop().await?;
    story.command(&format!("get pods -n shop --lab {}", story.lab.name()));
    pods::table(&rows).lines().for_each(|line| story.report.say(&format!("  {line}")));
    Ok(frames)
}

/// Changes the namespace's label as `strake label` does.
pub(crate) fn set_label(story: &Story, change: &str) -> Result<()> {
    let change = label::parse_change(change).map_err(anyhow::Error::msg)?;
    let key = ObjectRef::new(Kind::Namespace, "", "shop");
    label::edit(std::slice::from_ref(&story.manifests), &key, &[change], false)?;
    Ok(())
}

/// Process ids of the applications' containers.
pub(crate) async fn pids(story: &Story) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for pod in story.lab.pods().await?.into_iter().filter(|pod| pod.namespace == "shop") {
        for container in pod.containers {
            let name = format!("{}/{}", pod.name, container.name);
            match container.pid {
                Some(pid) => found.insert(name, pid),
                None => bail!("{name} does not run"),
            };
        }
    }
    Ok(found)
}

pub(crate) fn unchanged(before: &BTreeMap<String, u32>, now: &BTreeMap<String, u32>) -> Result<Evidence> {
    ensure!(before == now, "before {before:?}, now {now:?}");
    Ok(vec![now.iter().map(|(name, pid)| format!("{name} {pid}")).collect::<Vec<_>>().join(", ")])
}

/// Both ztunnels' configuration has every pod of `shop` with protocol HBONE.
async fn announced(story: &Story) -> Result<()> {
    for node in NODES {
        let body = admin::get(&admin::ztunnel(&story.lab, node), admin::CONFIG_DUMP_PATH).await?;
        let dump: Value = serde_json::from_slice(&body)?;
        let Some(workloads) = dump["workloads"].as_array() else { bail!("{node}: config_dump has no workloads") };
        let shop: Vec<&Value> = workloads.iter().filter(|workload| workload["namespace"] == "shop").collect();
        ensure!(!shop.is_empty(), "{node}: no workload of shop is known");
        for workload in shop {
            ensure!(workload["protocol"] == "HBONE", "{node}: {} is {}", workload["uid"], workload["protocol"]);
        }
    }
    Ok(())
}

/// The same call by pod address, Service address and name, both families each, while the wire is recorded.
async fn calls(story: &mut Story) -> Result<Vec<Frame>> {
    let pod = story.lab.pod(DB).await?.ips;
    let services = story.lab.status().await?.services;
    let service =
        services.into_iter().find(|service| service.name == "db").map(|service| service.ips).unwrap_or_default();
    let capture = story.lab.capture("node-1").await?;
    let by_pod = call_each(story, &pod, ":8080").await;
    let by_service = call_each(story, &service, "").await;
    let by_name = story.call_by_name(CART, "db").await;
    let captured = capture.stop().await?;
    story.report.prove("the same call works by pod address", by_pod);
    story.report.prove("by Service address", by_service);
    story.report.prove("and by name", by_name);
    Ok(capture::read_pcap(&std::fs::read(&captured.file)?)?)
}

async fn call_each(story: &Story, ips: &[std::net::IpAddr], port: &str) -> Result<Evidence> {
    let mut evidence = Vec::new();
    for family in Family::BOTH {
        let target = format!("{}{port}", host(family.of(ips.iter())?));
        evidence.push(format!("{target}: {}", story.call(CART, family, &target, 10).await?));
    }
    Ok(evidence)
}
