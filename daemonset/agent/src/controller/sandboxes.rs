//! Answers of the controller to CNI plugins that ask for pods, and the sandboxes that it has heard of.

use std::collections::HashMap;
use std::sync::Arc;

use kube_types::ObjectRef;
use kube_types::core::Pod;
use zds::PodId;

use super::Controller;
use crate::cni::{Decision, EnrolRequest, Sandbox};
use crate::enrol::{Node, Wanted};

impl<N: Node> Controller<N> {
    /// Notes the sandbox of a pod that belongs into the mesh, which sets its task to work, and says how the pod stands.
    ///
    /// Nothing is guessed of what the cluster has not told: a pod or namespace that is not known yet, or a pod of the same name
    /// that is on its way out, is [`Decision::NotYet`].
    pub fn handle_request(&mut self, enrol_request: &EnrolRequest) -> Decision {
        let decision = self.decision(&enrol_request.key, enrol_request.uid.as_ref());
        if let Decision::Wanted { uid } = &decision {
            // Before the goal, which is made from it.
            self.sandboxes.insert(uid.clone(), enrol_request.sandbox.clone());
            self.set_goal(&enrol_request.key, &HashMap::new());
        }
        decision
    }

    /// The sandbox of a pod that is wanted in the mesh. Of a pod outside it no plugin tells the next one, so that the known one
    /// could be an old one: it is forgotten.
    pub(super) fn sandbox_of(&mut self, pod: &Pod, wanted: &Wanted) -> Option<Arc<Sandbox>> {
        let uid = PodId::new(&pod.metadata.uid)?;
        match wanted {
            Wanted::In => self.sandboxes.get(&uid).cloned(),
            Wanted::Out { .. } | Wanted::Finished { .. } | Wanted::Gone => {
                self.sandboxes.remove(&uid);
                None
            }
        }
    }

    fn decision(&self, key: &ObjectRef, uid: Option<&PodId>) -> Decision {
        let not_yet = |what| Decision::NotYet { what };
        let Some(pod) = self.pods.get(key) else {
            return not_yet("the pod is not known yet on this node");
        };
        let Some(known) = PodId::new(&pod.metadata.uid) else {
            return not_yet("the pod has no uid yet");
        };
        // A StatefulSet's next pod has the same name, and the kubelet may have heard of it before this agent.
        if uid.is_some_and(|uid| *uid != known) {
            return not_yet("another pod of this name is known");
        }
        // The plugin asks for a pod that begins, so this one is its predecessor.
        if pod.metadata.deletion_timestamp.is_some() || pod.is_terminated() {
            return not_yet("the pod of this name has ended or is being deleted");
        }
        // Its label decides: without it a selected pod would be refused as not selected, and start in plaintext.
        if !self.namespaces.contains_key(&key.namespace) {
            return not_yet("the pod's namespace is not known yet");
        }
        match self.wanted(pod) {
            Wanted::In => Decision::Wanted { uid: known },
            Wanted::Out { reason } | Wanted::Finished { reason } => Decision::NotSelected { reason },
            Wanted::Gone => not_yet("the pod is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use graph::enrolment::Enablement;
    use kube_types::{Event, Kind};
    use runtime::sys::Netns;

    use super::*;
    use crate::enrol::tests::Fake;
    use crate::testing::{self, namespace, pod};

    /// Decisions about `app/web` after each of these events, in turn; `None` where no namespace can be made.
    async fn annotated(uid: Option<&str>, events: impl IntoIterator<Item = Event>) -> Option<Vec<Decision>> {
        let netns = testing::netns()?;
        let ips: Vec<IpAddr> = vec!["10.244.1.7".parse().unwrap()];
        testing::add_interface(&netns, &ips).await;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns)));
        let host = Netns::current().unwrap().id();
        let sandbox = Arc::new(Sandbox::open(&path, ips, host).await.unwrap());
        let (answer, _) = tokio::sync::oneshot::channel();
        let key = ObjectRef::new(Kind::Pod, "app", "web");
        let enrol_request = EnrolRequest { key, uid: uid.and_then(PodId::new), sandbox, answer };
        let mut controller: Controller<Fake> = Controller::new(
            "n1",
            Enablement::default(),
            crate::pod_settings::PodSettings { captures_dns: true, bypasses_inbound: false },
        );
        let standings = events.into_iter().map(|event| {
            controller.apply(event);
            controller.handle_request(&enrol_request)
        });
        Some(standings.collect())
    }

    fn is_not_yet(decision: &Decision, why: &str) -> bool {
        matches!(decision, Decision::NotYet { what } if what.contains(why))
    }

    #[tokio::test]
    async fn nothing_is_guessed_before_pod_and_namespace_are_known() {
        let Some(annotated) = annotated(Some("u1"), [namespace("app", true), pod("u1", |_| ())]).await else { return };
        assert!(is_not_yet(&annotated[0], "not known yet on this node"), "{annotated:?}");
        assert_eq!(annotated[1], Decision::Wanted { uid: PodId::new("u1").unwrap() });

        let Some(annotated) = self::annotated(Some("u1"), [pod("u1", |_| ()), namespace("app", true)]).await else {
            return;
        };
        assert!(is_not_yet(&annotated[0], "namespace"), "{annotated:?}");
        assert_eq!(annotated[1], Decision::Wanted { uid: PodId::new("u1").unwrap() });
    }

    #[tokio::test]
    async fn a_pod_on_its_way_out_is_not_taken_for_its_successor() {
        let ending = |pod: &mut Pod| pod.metadata.deletion_timestamp = Some("2026-11-21T10:00:00Z".to_owned());
        let ended = |pod: &mut Pod| pod.status.phase = Some("Succeeded".to_owned());
        let events = [namespace("app", true), pod("u1", ending), pod("u1", ended), pod("u2", |_| ())];

        let Some(annotated) = annotated(None, events).await else { return };

        assert!(
            annotated[1..3].iter().all(|decision| is_not_yet(decision, "ended or is being deleted")),
            "{annotated:?}"
        );
        assert_eq!(annotated[3], Decision::Wanted { uid: PodId::new("u2").unwrap() });
    }

    #[tokio::test]
    async fn another_uid_is_another_pod_and_a_label_that_says_no_is_final() {
        let out =
            |pod: &mut Pod| drop(pod.metadata.labels.insert("istio.io/dataplane-mode".to_owned(), "none".to_owned()));

        let Some(annotated) = annotated(Some("u2"), [namespace("app", true), pod("u1", |_| ()), pod("u2", out)]).await
        else {
            return;
        };

        assert!(is_not_yet(&annotated[1], "another pod of this name"), "{annotated:?}");
        assert!(
            matches!(&annotated[2], Decision::NotSelected { reason } if reason.contains("not ambient")),
            "{annotated:?}"
        );
    }
}
