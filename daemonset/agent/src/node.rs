//! The steps of enrolment on a real node: kernel programs, rules, proxies, annotation. Their order is `enrol`'s.

mod proof;

use kube_types::Status;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::labels::REDIRECTION_ANNOTATION;
use contract::ports;
use ebpf_common::{F_BYPASS_IN, F_DNS, F_IN, F_OUT, PodConfig, ProbePorts};
use ebpf_loader::{LoadError, Steering, Survey};
use runtime::sys::Netns;
use serde_json::json;
use tokio::time::Instant;
use zds::server::Registry;

use crate::described::described;
use crate::enrol::{Capture, Node, Proof, Redirection, Step, StepError, Watch};
use crate::finder::{Finder, Found};
use crate::netlink::{RoutingWatch, interface_of, tentative};
use crate::pod::{LocalPod, PodNetns};
use crate::proxies::Proxies;
use crate::rules::{self, Routing};
use crate::surveys::{Shared, Surveys};
use crate::sysctl::{self, PreviousValues};
use crate::{connections, hooks, prober};

/// Age of a survey that is good enough for what is only reported.
const HAZARD_AGE: Duration = Duration::from_secs(5);

/// Parts of a node; its steps are those of [`Node`].
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

    /// Attaches the programs of the node and tags the cgroups of the prober and of every live proxy, again if somebody took
    /// them away. A proxy whose cgroup holds a process of an enrolled pod loses its tag: the pod's connections would count as
    /// its own.
    async fn tag_all(&self) -> Result<(), StepError> {
        let prober = self.prober.cgroup();
        // Of this moment: an older survey may show a tag that was taken away since.
        let Shared { links, members } = self.surveys.shared_since(Instant::now()).await;
        let (survey, members) = (links.map_err(StepError::at(Step::Tag))?, members.map_err(StepError::at(Step::Tag))?);
        let (shared, own) = self.proxies.partition(&members);
        self.kernel(Step::Tag, move |steering| {
            for cgroup in shared {
                if steering.untag(&cgroup)? {
                    tracing::error!(
                        cgroup = %cgroup.display(),
                        "a proxy's cgroup holds processes of an enrolled pod; its sockets are no longer treated as the proxy's: move the pod's processes out of it"
                    );
                }
            }
            tag(steering, &survey, &own, prober)
        })
        .await
    }
}

fn tag(steering: &Steering, survey: &Survey, proxies: &[PathBuf], prober: Option<PathBuf>) -> Result<(), LoadError> {
    // Only what is missing is attached: this runs for every pod that enters.
    if survey.root().iter().any(|check| proof::is_of_root(check) && !check.ok) {
        steering.attach_root()?;
    }
    for cgroup in proxies {
        if !steering.verify_proxy(survey, cgroup)?.ok {
            steering.tag_proxy(cgroup)?;
        }
    }
    match prober {
        Some(cgroup) if !steering.verify_prober(survey, &cgroup)?.ok => steering.tag_prober(&cgroup).map(|_| ()),
        // Without a proxy there are no listeners to look for; the proof says that none is connected.
        Some(_) | None => Ok(()),
    }
}

/// An error with its causes in one line, because a step's error is shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Described(String);

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

/// The namespace that a CNI plugin named, while it holds the pod's address, and the interface that does.
async fn named(pod: &LocalPod) -> Result<Option<(Netns, u32)>, StepError> {
    let Some(sandbox) = &pod.sandbox else { return Ok(None) };
    let interface = interface_of(sandbox.netns(), &pod.ips).await.map_err(StepError::at(Step::Locate))?;
    let netns = sandbox.netns().try_clone().map_err(StepError::at(Step::Locate))?;
    Ok(interface.map(|interface| (netns, interface)))
}

fn routing(pod: &LocalPod, pod_netns: &PodNetns) -> Routing {
    Routing { addresses: pod.ips.clone(), interface: pod_netns.interface }
}

/// Flags of a pod that is in the mesh.
fn captured(pod: &LocalPod) -> u32 {
    let chosen = [(pod.settings.captures_dns, F_DNS), (pod.settings.bypasses_inbound, F_BYPASS_IN)];
    chosen.into_iter().filter(|(is_chosen, _)| *is_chosen).fold(F_OUT | F_IN, |flags, (_, flag)| flags | flag)
}

/// Returns the entry of a pod for the kernel's map, with these flags.
fn entry(pod: &LocalPod, pod_netns: &PodNetns, flags: u32) -> PodConfig {
    let first = |v4: bool| pod.ips.iter().find(|ip| ip.is_ipv4() == v4).map(|ip| (*ip).into()).unwrap_or_default();
    PodConfig {
        flags,
        interface: pod_netns.interface,
        out_port: ports::OUTBOUND,
        in_port: ports::INBOUND_PLAINTEXT,
        hbone_port: ports::HBONE,
        // Also of a pod whose questions are not captured: the proxy's sockets are bound once, and its user may change his mind.
        dns_port: ports::DNS,
        ipv4: first(true),
        ipv6: first(false),
    }
}

impl Watch for RoutingWatch {
    async fn changed(&mut self) {
        Self::changed(self).await;
    }
}

impl Node for LiveNode {
    type Watch = RoutingWatch;

    fn watch(&self, pod_netns: &Arc<PodNetns>) -> Result<RoutingWatch, StepError> {
        RoutingWatch::new(&pod_netns.netns).map_err(StepError::at(Step::Watch))
    }

    async fn mend(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        rules::apply(&pod_netns.netns, &routing(pod, pod_netns)).await.map_err(StepError::at(Step::Mend))
    }

    async fn locate(&self, pod: &LocalPod) -> Result<Arc<PodNetns>, StepError> {
        // Its connections would be captured, given to itself, and captured again.
        if self.proxies.runs_in(&pod.cgroup_uid) {
            return Err(StepError::at(Step::Locate)("a node proxy runs in this pod"));
        }
        // By its processes first, as they run in the namespace that counts. While there are none, the one that the CNI
        // plugin has named.
        let (netns, interface) = match self.finder.find(&pod.cgroup_uid, &pod.ips).await {
            Ok(Found { netns, interface, .. }) => (netns, interface),
            // The first error is the one to report: it says why the pod's processes were not found.
            Err(error) => named(pod).await?.ok_or_else(|| StepError::at(Step::Locate)(error))?,
        };
        Ok(Arc::new(PodNetns::new(netns, interface).map_err(StepError::at(Step::Locate))?))
    }

    async fn tag(&self) -> Result<(), StepError> {
        self.tag_all().await
    }

    async fn put_entry(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>, capture: Capture) -> Result<(), StepError> {
        // A proxy that connects meanwhile and has the pod from before must not drain it.
        self.registry.keep(&pod.uid, pod.info.clone());
        self.proxies.excludes(&pod.uid, &pod.cgroup_uid);
        let (pod, pod_netns) = (pod.clone(), pod_netns.clone());
        self.kernel(Step::Entry, move |steering| {
            let flags = match capture {
                // An earlier agent may have begun to capture: its connections must not be let go and taken again.
                Capture::Unchanged => steering.pod(pod_netns.cookie)?.map_or(0, |known| known.flags),
                Capture::On => captured(&pod),
                Capture::Off => 0,
            };
            // First: the kubelet must not find the pod captured and its probes unknown.
            steering.put_probes(pod_netns.cookie, &ProbePorts::of(pod.probe_ports.iter().copied()))?;
            steering.put_pod(pod_netns.cookie, &entry(&pod, &pod_netns, flags))
        })
        .await
    }

    async fn put_rules(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        let (previous, held) = (self.previous.clone(), pod_netns.clone());
        // Settings before rules: a packet that the rule sends to `lo` is answered with its mark only with them.
        blocking(Step::Rules, move || sysctl::apply(&held.netns, held.cookie, &previous)).await?;
        let repaired =
            rules::apply(&pod_netns.netns, &routing(pod, pod_netns)).await.map_err(StepError::at(Step::Rules))?;
        for moved in repaired.iter().filter(|what| what.contains("in front")) {
            tracing::warn!(pod = pod.key.path(), "{moved}; moved behind it");
        }
        Ok(())
    }

    async fn attach(&self, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        let pod_netns = pod_netns.clone();
        self.kernel(Step::Link, move |steering| steering.attach_pod(pod_netns.cookie, pod_netns.netns.as_fd())).await
    }

    async fn announce(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        // The proxy binds its DNS sockets to the pod's addresses, once: it takes one to which it cannot bind for one that the pod
        // does not have.
        let tentative = tentative(&pod_netns.netns, &pod.ips).await.map_err(StepError::at(Step::Announce))?;
        if let Some(address) = tentative.first() {
            let waits = format!("duplicate address detection has not ended for {address}");
            return Err(StepError::at(Step::Announce)(waits));
        }
        let pod = zds::server::Pod {
            uid: pod.uid.clone(),
            info: pod.info.clone(),
            netns: Some(pod_netns.descriptor.clone()),
        };
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

    async fn proof(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>, since: Instant) -> Proof {
        proof::read(self, pod, pod_netns, since).await
    }

    async fn hazards(&self, pod_netns: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        let now = Instant::now();
        let survey = self.surveys.since(now.checked_sub(HAZARD_AGE).unwrap_or(now)).await;
        let survey = survey.map_err(StepError::at(Step::ReadBack))?;
        hooks::find(pod_netns, &survey).await.map_err(StepError::at(Step::ReadBack))
    }

    async fn annotate(&self, pod: &LocalPod, redirection: Option<Redirection>) -> Result<(), StepError> {
        let value = redirection.map(Redirection::as_str);
        let patch = json!({ "metadata": { "annotations": { REDIRECTION_ANNOTATION: value } } });
        // Of this pod only: the next one of its name is not enrolled because this one was.
        self.status.apply_to(&pod.key, pod.uid.as_str(), patch).await.map_err(StepError::at(Step::Annotate))
    }

    async fn forget_annotation(&self, pod: &LocalPod) -> Result<(), StepError> {
        self.status.clear(&pod.key).await.map_err(StepError::at(Step::Annotate))
    }

    async fn proxied(&self, pod_netns: &Arc<PodNetns>) -> Result<usize, StepError> {
        let pod_netns = pod_netns.clone();
        blocking(Step::Drain, move || connections::proxied(&pod_netns.netns)).await
    }

    async fn dismiss(&self, pod: &LocalPod) -> Result<usize, StepError> {
        // First: whatever the proxies answer, the pod is on its way out.
        self.proxies.no_longer_excludes(&pod.uid);
        self.registry.del(&pod.uid).await.map_err(StepError::at(Step::Dismiss))
    }

    async fn detach(&self, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        let cookie = pod_netns.cookie;
        self.kernel(Step::Unlink, move |steering| steering.detach_pod(cookie)).await.map(|_| ())
    }

    async fn remove_rules(&self, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        // Rules before settings, in the reverse order of `put_rules`.
        rules::remove(&pod_netns.netns).await.map_err(StepError::at(Step::RemoveRules))?;
        let (previous, pod_netns) = (self.previous.clone(), pod_netns.clone());
        blocking(Step::RemoveRules, move || sysctl::restore(&pod_netns.netns, pod_netns.cookie, &previous)).await
    }

    async fn remove_entry(&self, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        let cookie = pod_netns.cookie;
        self.kernel(Step::RemoveEntry, move |steering| steering.remove_pod(cookie)).await
    }

    async fn leftovers(&self, pod_netns: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        let mut left = rules::leftovers(&pod_netns.netns).await.map_err(StepError::at(Step::ReadBack))?;
        if self.previous.holds(pod_netns.cookie).map_err(StepError::at(Step::ReadBack))? {
            left.push("settings from before".to_owned());
        }
        let (pod_netns, survey) = (pod_netns.clone(), self.survey(Step::ReadBack).await?);
        let remains = move |steering: &Steering| steering.remains(&survey, pod_netns.cookie, pod_netns.netns.as_fd());
        // Everything that is left is named at once, so that one log line explains a pod that does not leave.
        left.extend(self.kernel(Step::ReadBack, remains).await?);
        Ok(left)
    }

    async fn has_entry(&self, pod_netns: &Arc<PodNetns>) -> Result<bool, StepError> {
        let cookie = pod_netns.cookie;
        self.kernel(Step::ReadBack, move |steering| steering.pod(cookie)).await.map(|entry| entry.is_some())
    }
}
