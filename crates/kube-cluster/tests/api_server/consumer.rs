//! A consumer of a source that replays its events, and checks at each of them what a source promises.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kube_cluster::{ClusterConfig, Versions, Watched};
use kube_types::{ClusterId, Event, ObjectRef, Resource, Source, SourceProblem};
use serde_json::Value;
use tokio::time::timeout;

use crate::fake::Fake;

/// Longest time, of a paused clock, until something has to be true.
const LONG: Duration = Duration::from_secs(3600);

pub struct Consumer {
    pub source: Source,
    fake: Fake,
    pub objects: BTreeMap<ObjectRef, Resource>,
    pub problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    pub is_in_sync: bool,
    pub versions: Versions,
    /// Every event as a line.
    pub log: Vec<String>,
}

impl Consumer {
    pub fn open(fake: &Fake, watched: Vec<Watched>) -> Self {
        let versions = Versions::default();
        let cluster = ClusterId::default();
        let config = ClusterConfig { server: fake.server(), cluster, watched, versions: versions.clone() };
        Self {
            source: kube_cluster::open(config).unwrap(),
            fake: fake.clone(),
            objects: BTreeMap::new(),
            problems: BTreeMap::new(),
            is_in_sync: false,
            versions,
            log: Vec::new(),
        }
    }

    /// A consumer that has everything.
    pub async fn in_sync(fake: &Fake, watched: Vec<Watched>) -> Self {
        let mut consumer = Self::open(fake, watched);
        consumer.until("in sync", |consumer| consumer.is_in_sync).await;
        consumer
    }

    /// Takes events until something is true.
    pub async fn until(&mut self, what: &str, is_true: impl Fn(&Self) -> bool) {
        while !is_true(self) {
            let event = timeout(LONG, self.source.next()).await;
            let Ok(event) = event else {
                panic!("not {what} within {LONG:?}; problems: {:?}; events: {:#?}", self.problems, self.log);
            };
            self.on_event(event.expect("a source that runs"));
        }
    }

    /// Takes events for a time of the paused clock.
    pub async fn for_time(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(end, self.source.next()).await {
            self.on_event(event.expect("a source that runs"));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Applied { resource, .. } => self.applied(resource),
            Event::Removed { key, .. } => self.removed(&key),
            Event::InSync { .. } => {
                assert!(!std::mem::replace(&mut self.is_in_sync, true), "in sync twice: {:#?}", self.log);
                self.log.push("in sync".to_owned());
            }
            Event::Problem(problem) => {
                self.log.push(format!("problem {problem}"));
                self.problems.entry(problem.file.clone()).or_default().push(problem);
            }
            Event::Solved { file } => {
                self.log.push(format!("solved {}", file.display()));
                assert!(self.problems.remove(&file).is_some(), "solved without a problem: {:#?}", self.log);
            }
        }
    }

    fn applied(&mut self, resource: Resource) {
        let key = resource.key();
        self.log.push(format!("+{key}"));
        let before = self.objects.insert(key, resource.clone());
        if let Some(before) = before {
            assert_ne!(before, resource, "nothing has changed: {:#?}", self.log);
            assert!(number(&before) <= number(&resource), "an older form came later: {:#?}", self.log);
        }
    }

    fn removed(&mut self, key: &ObjectRef) {
        self.log.push(format!("-{key}"));
        assert!(self.is_in_sync, "removed before it was delivered: {:#?}", self.log);
        let removed = self.objects.remove(key);
        let uid = removed.unwrap_or_else(|| panic!("{key} was not there: {:#?}", self.log)).meta().uid.clone();
        let now = self.fake.object(key.kind, &key.namespace, &key.name);
        let is_there = now.is_some_and(|object| object["metadata"]["uid"] == uid.as_str());
        assert!(!is_there, "removed an object that exists: {key} {uid}: {:#?}", self.log);
    }

    /// Names of the objects that are known.
    pub fn names(&self) -> Vec<&str> {
        self.objects.keys().map(|key| key.name.as_str()).collect()
    }

    /// Messages of all problems.
    pub fn messages(&self) -> Vec<String> {
        self.problems.values().flatten().map(ToString::to_string).collect()
    }

    /// Objects of the server that are not known in their newest form, of those that can be decoded.
    pub fn missing(&self) -> Vec<ObjectRef> {
        let is_missing = |key: &ObjectRef, object: &Value| {
            let resource = Resource::from_value(key.kind, object.clone());
            resource.is_ok_and(|resource| self.objects.get(key) != Some(&resource))
        };
        let objects = self.fake.objects().into_iter();
        objects.filter(|(key, object)| is_missing(key, object)).map(|(key, _)| key).collect()
    }
}

/// Number of a form of an object, which histories count up.
fn number(resource: &Resource) -> u64 {
    resource.meta().labels.get("number").map_or(0, |number| number.parse().unwrap())
}
