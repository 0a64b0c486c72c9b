//! The analysis of a cluster: the kinds that the control plane reads, once, given to its graph.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use contract::admin::control::Route;
use contract::manifests::SYSTEM_NAMESPACE;
use kube_cluster::{ApiServer, ClusterConfig, Versions, Watched};
use kube_types::{ClusterId, Event, Kind, ObjectRef, Resource, SourceProblem};
use tokio::time::{Instant, timeout_at};

use super::{Report, concerns, directory::findings, finding};

/// Time to read all objects of a cluster.
const DEADLINE: Duration = Duration::from_secs(60);

/// Analyzes the objects of a cluster; shows what concerns `namespace`, or everything.
///
/// # Errors
/// When they cannot be read in time, with the reason: a part of them would give findings about what is only not seen.
pub(crate) async fn of_cluster(server: &ApiServer, namespace: Option<&str>) -> Result<Report> {
    let (objects, problems) = read(server).await?;
    let count = objects.len();
    let mut found: Vec<_> = findings(objects.into_values()).iter().map(|found| finding(found, None)).collect();
    found.retain(|finding| concerns(&finding.object, namespace));
    Ok(Report { objects: count, problems, findings: found })
}

type Objects = BTreeMap<ObjectRef, Resource>;

/// Routes that follow from the objects of a cluster.
///
/// # Errors
/// When they cannot be read in time, with the reason.
pub(crate) async fn routes_of_cluster(server: &ApiServer) -> Result<Vec<Route>> {
    let (objects, _) = read(server).await?;
    Ok(compile::routes(objects.into_values()))
}

async fn read(server: &ApiServer) -> Result<(Objects, Vec<SourceProblem>)> {
    let name = format!("metadata.name={}", graph::MESH_CONFIG_MAP);
    let config = Watched::all(Kind::ConfigMap).in_namespace(SYSTEM_NAMESPACE).with_fields(name);
    let watched = graph::KINDS.into_iter().map(Watched::all).chain([config]).collect();
    let versions = Versions::default();
    let config = ClusterConfig { server: server.clone(), cluster: ClusterId::default(), watched, versions };
    let mut source = kube_cluster::open(config)?;
    let deadline = Instant::now() + DEADLINE;
    let (mut objects, mut problems) = (Objects::new(), Vec::new());
    loop {
        let Ok(event) = timeout_at(deadline, source.next()).await else {
            bail!("the objects of the cluster were not read within {DEADLINE:?}{}", reasons(&problems));
        };
        match event {
            Some(Event::Applied { resource, .. }) => drop(objects.insert(resource.key(), resource)),
            Some(Event::Removed { key, .. }) => drop(objects.remove(&key)),
            Some(Event::Problem(problem)) => problems.push(problem),
            Some(Event::Solved { file }) => problems.retain(|problem| problem.file != file),
            Some(Event::InSync { .. }) => return Ok((objects, problems)),
            None => bail!("the reader of the cluster stopped{}", reasons(&problems)),
        }
    }
}

fn reasons(problems: &[SourceProblem]) -> String {
    problems.iter().map(|problem| format!("; {}", problem.message)).collect()
}
