//! Opens an API server as a [`Source`].

use kube_types::{ClusterId, Health, Source};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::collector::Collector;
use crate::connect::ApiServer;
use crate::known::Versions;
use crate::liveness::Watches;
use crate::reader::Reader;
use crate::watched::Watched;

/// Events that wait for their consumer.
const EVENTS: usize = 1024;

/// Batches of changes that wait for the collector. Readers stop reading while it is full, and the API server ends a watch
/// that is not read; the next one continues where it ended.
const BATCHES: usize = 16;

/// A cluster and what is read of it.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub server: ApiServer,
    /// The cluster that its events name.
    pub cluster: ClusterId,
    /// Objects to read. No object may be in two of them.
    pub watched: Vec<Watched>,
    /// Filled by the source, for the writer of statuses.
    pub versions: Versions,
}

/// A mistake in a [`ClusterConfig`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{} is to be read twice, as {first:?} and {second:?}: expected every object in one of them", .first.kind)]
    Overlap { first: Box<Watched>, second: Box<Watched> },
}

/// Reads a cluster and follows it, in tasks that end when the source is dropped.
///
/// A failure to read says nothing about objects: they stay as they are, and a problem says so. Only a complete list or an
/// event of a watch removes an object. A kind that the API server does not serve is read once it does. An object that cannot be
/// decoded keeps its last good state. Order is kept for each kind; between kinds the API has none.
///
/// # Errors
/// When an object could be read twice.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn open(config: ClusterConfig) -> Result<Source, ConfigError> {
    let ClusterConfig { server, cluster, watched, versions } = config;
    check(&watched)?;
    let (events, receiver) = mpsc::channel(EVENTS);
    let (batches, collected) = mpsc::channel(BATCHES);
    let watches = Watches::new(watched.len());
    let mut tasks = JoinSet::new();
    tasks.spawn(watches.clone().tell());
    tasks.spawn(Collector::new(cluster, events, watched.len()).run(collected));
    for (index, watched) in watched.into_iter().enumerate() {
        let api = Api::new(server.client());
        let reader = Reader::new(index, watched, api, batches.clone(), watches.of(index), versions.add());
        tasks.spawn(reader.run());
    }
    Ok(Source::new(receiver, Health::new(move || watches.are_alive()), tasks))
}

fn check(watched: &[Watched]) -> Result<(), ConfigError> {
    for (index, second) in watched.iter().enumerate() {
        // Selectors are not compared: an object may match both, and may change from one to the other.
        let is_apart = |first: &Watched| {
            let namespaces = (&first.namespace, &second.namespace);
            first.kind != second.kind || matches!(namespaces, (Some(first), Some(second)) if first != second)
        };
        if let Some(first) = watched[..index].iter().find(|first| !is_apart(first)) {
            return Err(ConfigError::Overlap { first: Box::new(first.clone()), second: Box::new(second.clone()) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;

    use super::*;

    #[test]
    fn a_kind_is_read_twice_in_different_namespaces_only() {
        let config_maps = |namespace: &str| Watched::all(Kind::ConfigMap).in_namespace(namespace);

        assert_eq!(check(&[config_maps("a"), config_maps("b"), Watched::all(Kind::Pod)]), Ok(()));
        let error = check(&[config_maps("a"), Watched::all(Kind::ConfigMap)]).unwrap_err();
        assert!(error.to_string().starts_with("ConfigMap is to be read twice"), "{error}");
        assert!(check(&[Watched::all(Kind::Pod), Watched::all(Kind::Pod).with_labels("a")]).is_err());
    }
}
