//! Step 9: the label is removed under traffic, and the kernel forgets the pods.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use lab::Target;
use runtime::sys::Netns;

use super::{
    before::in_clear,
    enrol::{pids, set_label, unchanged},
    load::{Load, no_failure},
    report::Evidence,
    story::{CART, DB, Family, MALLORY, NODES, Story, TAKES_EFFECT, eventually},
};

/// Requests before and after the label is removed, besides those of the load.
const SOME: u32 = 10;

/// Settings of a pod's network namespace that the agent changes while the pod is enrolled.
const SETTINGS: [&str; 3] = ["net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"];

/// Routing table and mark that the agent uses inside of pods.
const TABLE: &str = "1500111";
const MARK: &str = "0x111";

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Leaving: the label is removed under traffic");
    story.report.say("- PeerAuthentication shop/default: traffic will be plaintext again");
    story.delete("strict.yaml")?;
    eventually(TAKES_EFFECT, async || story.call_by_name(MALLORY, "db.shop").await).await?;
    let before = pids(story).await?;
    let load = Load::requests(story, "db").await?;
    let v6 = format!("[{}]:8080", Family::V6.of(story.lab.pod(DB).await?.ips.iter())?);
    let load6 = Load::requests(story, &v6).await?;
    story.calls(SOME).await?;
    story.command(&format!("label namespace shop istio.io/dataplane-mode- --lab {}", story.lab.name()));
    set_label(story, "istio.io/dataplane-mode-")?;

    let left = eventually(TAKES_EFFECT, async || story.all_in_state("not-selected").await).await;
    story.report.prove("every pod has left", left.map(|rows| vec![format!("{} pods", rows.len())]));
    story.calls(SOME).await?;
    let report = load.stop().await?;
    story.report.prove("no request by name failed", no_failure(&report));
    let report = load6.stop().await?;
    story.report.prove("no request to the pod's IPv6 address failed", no_failure(&report));
    let (_, frames) = story.captured("node-1", story.call_by_name(CART, "db")).await?;
    let (audit, markers) = story.audit(&frames).await?;
    story.report.prove("traffic is plain again", in_clear(&audit, markers));
    let same = pids(story).await.and_then(|now| unchanged(&before, &now));
    story.report.prove("no process was restarted", same);
    story.report.prove("no rule and no route of Strake is left in the pods", rules(story).await);
    story.report.prove("the settings of their namespaces are those of a pod that never joined", settings(story).await);
    story.report.prove("no kernel program is attached to the pods", programs(story).await);
    story.report.prove("no pod, no listener and no address is left in the kernel's maps", entries(story));
    Ok(())
}

async fn rules(story: &Story) -> Result<Evidence> {
    let mut looked = 0;
    for row in story.shop().await? {
        let pod = format!("{}/{}", row.namespace, row.name);
        for family in ["-4", "-6"] {
            let rules = story.lab.exec(&pod, &["ip", family, "rule", "show"]).await?;
            ensure!(rules.code == 0, "{pod}: {}", rules.error_text());
            ensure!(!rules.text().contains(MARK), "{pod}: {}", rules.text());
            let routes = story.lab.exec(&pod, &["ip", family, "route", "show", "table", TABLE]).await?;
            // a table that does not exist is an error of `ip`, and what is wanted
            ensure!(routes.text().is_empty(), "{pod}: {}", routes.text());
            looked += 1;
        }
    }
    Ok(vec![format!("ip rule, ip route show table {TABLE}: {looked} looks, nothing found")])
}

/// Reads what was switched on for the mesh, in the pods that have left and in one that was never labelled.
async fn settings(story: &Story) -> Result<Evidence> {
    let never = values(story, MALLORY).await?;
    let rows = story.shop().await?;
    for row in &rows {
        let pod = format!("{}/{}", row.namespace, row.name);
        let now = values(story, &pod).await?;
        ensure!(now == never, "{pod}: {now:?}, in {MALLORY} {never:?}");
    }
    let never = SETTINGS.iter().zip(never).map(|(name, value)| format!("{} = {value}", name.replace('/', ".")));
    Ok(vec![format!("{} pods: {}", rows.len(), never.collect::<Vec<_>>().join(", "))])
}

async fn values(story: &Story, pod: &str) -> Result<Vec<String>> {
    let netns = Netns::from_fd(story.lab.netns(Target::Pod { pod: pod.to_owned(), container: None }).await?)?;
    let read = |name: &&str| Ok(fs::read_to_string(Path::new("/proc/sys").join(name))?.trim().to_owned());
    Ok(netns.run(|| SETTINGS.iter().map(read).collect::<io::Result<_>>())?)
}

/// Asks the kernel for every link on the pods' namespaces.
async fn programs(story: &Story) -> Result<Evidence> {
    let rows = story.shop().await?;
    for row in &rows {
        let pod = format!("{}/{}", row.namespace, row.name);
        let netns = story.lab.netns(Target::Pod { pod: pod.clone(), container: None }).await?;
        let links = ebpf_loader::observe::links_at(&netns)?;
        ensure!(links.is_empty(), "{pod}: {}", links.join(", "));
    }
    Ok(vec![format!("links on {} network namespaces: 0", rows.len())])
}

/// Reads the maps that are pinned on each node's bpffs, which is mounted inside the lab only.
fn entries(story: &Story) -> Result<Evidence> {
    let run = story.lab.run_dir();
    let pid = fs::read_to_string(run.pid_file()).context("the supervisor's process id")?;
    let mut evidence = Vec::new();
    for node in NODES {
        let inside = run.node(node).join("bpffs");
        let outside: PathBuf = format!("/proc/{}/root{}", pid.trim(), inside.display()).into();
        let known = ebpf_loader::observe::cookies(&outside)?;
        let held = known.iter().find(|(_, cookies)| !cookies.is_empty());
        ensure!(held.is_none(), "{node}: netns cookies {held:?}");
        evidence.push(format!("{node}: {}: 0 entries", known.into_keys().collect::<Vec<_>>().join(", ")));
    }
    Ok(evidence)
}
