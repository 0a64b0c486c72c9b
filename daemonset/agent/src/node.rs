//! The steps of enrolment on a real node: kernel programs, rules, proxies, annotation. Their order is `enrol`'s.

mod proof;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use ebpf_common::{F_IN, F_OUT, PodConfig};
use ebpf_loader::{LoadError, Steering, Survey};
use graph::enrolment::REDIRECTION_ANNOTATION;
use kube_api::Status;
use serde_json::json;
use tokio::time::Instant;
use zds::server::Registry;

use crate::enrol::{Capture, Node, Place, PodSpec, Proof, Redirection, Step, StepError};
use crate::finder::{Finder, Found};
use crate::proxies::Proxies;
use crate::rules::{self, Routing};
use crate::surveys::Surveys;
use crate::sysctl::{self, PreviousValues};
use crate::{connections, prober};

/// Ports of the proxy inside a pod; Istio's.
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
const HBONE_PORT: u16 = 15008;

/// What a node is made of; see [`Node`] for what it does.
#[derive(Clone)]
pub struct LiveNode {
    pub steering: Arc<Steering>,
    pub surveys: Surveys,
    pub finder: Finder,
    pub registry: Registry,
    pub proxies: Proxies,
    pub previous: PreviousValues,
    pub status: Status,
    pub prober: prober::Handle,
}

impl LiveNode {
    /// Calls of the loader block, for milliseconds where a program is loaded.
    async fn kernel<T: Send + 'static>(
        &self,
        step: Step,
        work: impl FnOnce(&Steering) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, StepError> {
        let steering = self.steering.clone();
        blocking(step, move || work(&steering).map_err(|error| Described(described(&error)))).await
    }

    /// The kernel's links as they are now.
    async fn survey(&self, step: Step) -> Result<Arc<Survey>, StepError> {
        self.surveys.since(Instant::now()).await.map_err(StepError::at(step))
    }

    /// Has the kernel know the prober and every live proxy, again if somebody took their tags away.
    async fn tag_all(&self) -> Result<(), StepError> {
        let (proxies, prober) = (self.proxies.cgroups(), self.prober.cgroup());
        let survey = self.survey(Step::Tag).await?;
        self.kernel(Step::Tag, move |steering| tag(steering, &survey, &proxies, prober)).await
    }
}

fn tag(steering: &Steering, survey: &Survey, proxies: &[PathBuf], prober: Option<PathBuf>) -> Result<(), LoadError> {
    for cgroup in proxies {
        if !steering.verify_proxy(survey, cgroup)?.ok {
            steering.tag_proxy(cgroup)?;
        }
    }
    match prober {
        Some(cgroup) if !steering.verify_prober(survey, &cgroup)?.ok => steering.tag_prober(&cgroup).map(|_| ()),
        Some(_) | None => Ok(()),
    }
}

/// An error with its causes in one line, because a step's error is shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Described(String);

/// `error` and what caused it, outermost first.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn blocking<T, E>(step: Step, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, StepError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(StepError::at(step)),
        Err(error) => Err(StepError::at(step)(error)),
    }
}

fn routing(pod: &PodSpec, place: &Place) -> Routing {
    Routing { addresses: pod.ips.clone(), interface: place.interface }
}

/// What the kernel is to know of the pod, with these flags.
fn entry(pod: &PodSpec, place: &Place, flags: u32) -> PodConfig {
    let first = |v4: bool| pod.ips.iter().find(|ip| ip.is_ipv4() == v4).map(|ip| (*ip).into()).unwrap_or_default();
    PodConfig {
        flags,
        interface: place.interface,
        out_port: OUTBOUND_PORT,
        in_port: INBOUND_PORT,
        hbone_port: HBONE_PORT,
        dns_port: 0,
        ipv4: first(true),
        ipv6: first(false),
    }
}

impl Node for LiveNode {
    async fn locate(&self, pod: &PodSpec) -> Result<Arc<Place>, StepError> {
        if self.proxies.runs_in(pod.uid.as_str()) {
            return Err(StepError::at(Step::Locate)("a node proxy runs in this pod"));
        }
        let found = self.finder.find(pod.uid.as_str(), &pod.ips).await;
        let Found { netns, interface, .. } = found.map_err(StepError::at(Step::Locate))?;
        Ok(Arc::new(Place::new(netns, interface).map_err(StepError::at(Step::Locate))?))
    }

    async fn tag(&self) -> Result<(), StepError> {
        self.tag_all().await
    }

    async fn put_entry(&self, pod: &PodSpec, place: &Arc<Place>, capture: Capture) -> Result<(), StepError> {
        // A proxy that connects meanwhile and has the pod from before must not drain it.
        self.registry.keep(&pod.uid, pod.info.clone());
        let (pod, place) = (pod.clone(), place.clone());
        self.kernel(Step::Entry, move |steering| {
            let flags = match capture {
                Capture::Unchanged => steering.pod(place.cookie)?.map_or(0, |known| known.flags),
                Capture::On => F_OUT | F_IN,
                Capture::Off => 0,
            };
            steering.put_pod(place.cookie, &entry(&pod, &place, flags))
        })
        .await
    }

    async fn put_rules(&self, pod: &PodSpec, place: &Arc<Place>) -> Result<(), StepError> {
        let (previous, held) = (self.previous.clone(), place.clone());
        blocking(Step::Rules, move || sysctl::apply(&held.netns, held.cookie, &previous)).await?;
        rules::apply(&place.netns, &routing(pod, place)).await.map_err(StepError::at(Step::Rules))
    }

    async fn attach(&self, place: &Arc<Place>) -> Result<(), StepError> {
        let place = place.clone();
        self.kernel(Step::Link, move |steering| steering.attach_pod(place.cookie, place.netns.as_fd())).await
    }

    async fn announce(&self, pod: &PodSpec, place: &Arc<Place>) -> Result<(), StepError> {
        let pod =
            zds::server::Pod { uid: pod.uid.clone(), info: pod.info.clone(), netns: Some(place.descriptor.clone()) };
        self.registry.add(pod).await.map(|_| ()).map_err(StepError::at(Step::Announce))
    }

    async fn catch_up(&self) -> Result<(), StepError> {
        match self.proxies.newest() {
            Some((_, proxy)) => {
                self.kernel(Step::CatchUp, move |steering| steering.catch_up(proxy.pid)).await.map(|_| ())
            }
            None => Ok(()),
        }
    }

    async fn proof(&self, pod: &PodSpec, place: &Arc<Place>, since: Instant) -> Proof {
        proof::read(self, pod, place, since).await
    }

    async fn annotate(&self, pod: &PodSpec, redirection: Option<Redirection>) -> Result<(), StepError> {
        let value = redirection.map(Redirection::as_str);
        let patch = json!({ "metadata": { "annotations": { REDIRECTION_ANNOTATION: value } } });
        // Of this pod only: the next one of its name is not enrolled because this one was.
        self.status.apply_to(&pod.key, pod.uid.as_str(), patch).await.map_err(StepError::at(Step::Annotate))
    }

    async fn forget_annotation(&self, pod: &PodSpec) -> Result<(), StepError> {
        self.status.clear(&pod.key).await.map_err(StepError::at(Step::Annotate))
    }

    async fn proxied(&self, place: &Arc<Place>) -> Result<usize, StepError> {
        let place = place.clone();
        blocking(Step::Drain, move || connections::proxied(&place.netns)).await
    }

    async fn dismiss(&self, pod: &PodSpec) -> Result<(), StepError> {
        self.registry.del(&pod.uid).await.map(|_| ()).map_err(StepError::at(Step::Dismiss))
    }

    async fn detach(&self, place: &Arc<Place>) -> Result<(), StepError> {
        let cookie = place.cookie;
        self.kernel(Step::Unlink, move |steering| steering.detach_pod(cookie)).await.map(|_| ())
    }

    async fn remove_rules(&self, place: &Arc<Place>) -> Result<(), StepError> {
        rules::remove(&place.netns).await.map_err(StepError::at(Step::RemoveRules))?;
        let (previous, place) = (self.previous.clone(), place.clone());
        blocking(Step::RemoveRules, move || sysctl::restore(&place.netns, place.cookie, &previous)).await
    }

    async fn remove_entry(&self, place: &Arc<Place>) -> Result<(), StepError> {
        let cookie = place.cookie;
        self.kernel(Step::RemoveEntry, move |steering| steering.remove_pod(cookie)).await
    }

    async fn leftovers(&self, place: &Arc<Place>) -> Result<Vec<String>, StepError> {
        let mut left = rules::leftovers(&place.netns).await.map_err(StepError::at(Step::ReadBack))?;
        if self.previous.holds(place.cookie).map_err(StepError::at(Step::ReadBack))? {
            left.push("settings from before".to_owned());
        }
        let (place, survey) = (place.clone(), self.survey(Step::ReadBack).await?);
        let remains = move |steering: &Steering| steering.remains(&survey, place.cookie, place.netns.as_fd());
        left.extend(self.kernel(Step::ReadBack, remains).await?);
        Ok(left)
    }

    async fn has_entry(&self, place: &Arc<Place>) -> Result<bool, StepError> {
        let cookie = place.cookie;
        self.kernel(Step::ReadBack, move |steering| steering.pod(cookie)).await.map(|entry| entry.is_some())
    }
}
