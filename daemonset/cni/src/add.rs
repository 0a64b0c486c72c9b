//! Decides whether a pod starts: by the agent's answer, and without one by the policy for that time.

use cni::{AgentDown, AskError, PluginConfig};
use contract::cni::{AddResponse, Outcome};
use graph::enrolment::{Enablement, Enrolment};
use kube_types::core::{Namespace, Pod};

use crate::call::PodRef;
use crate::error::CniError;

/// Decision about a pod that is to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The agent has proved it enrolled, or says that it does not belong into the mesh.
    Start,
    /// It starts, and no agent was heard.
    StartUnasked {
        reason: String,
    },
    Refuse(CniError),
}

/// A pod and its namespace, as the API server has them; or why they cannot be read.
type Read = Result<(Pod, Namespace), String>;

/// Returns true for pods that never belong into the mesh, by their namespace alone. Nobody is asked about them, so that a node
/// can always start what it needs itself.
pub fn is_outside(pod: &PodRef, plugin: &PluginConfig) -> bool {
    plugin.exclude_namespaces.contains(&pod.namespace)
}

/// Decides about a pod. `read` is called when the agent gave no answer and the policy wants to know more.
pub fn decide(
    pod: &PodRef,
    plugin: &PluginConfig,
    answer: Result<AddResponse, AskError>,
    read: impl FnOnce() -> Read,
) -> Verdict {
    match answer {
        // `NotSelected` is the agent's word, which knows pod and namespace: a pod that it cannot find is `Failed`.
        Ok(AddResponse { outcome: Outcome::Enrolled | Outcome::NotSelected, .. }) => Verdict::Start,
        Ok(AddResponse { outcome: Outcome::Failed | Outcome::Invalid, reason }) => {
            let PodRef { namespace, name, .. } = pod;
            let text = format!("pod {namespace}/{name} is not enrolled in the mesh yet: {reason}; trying again");
            Verdict::Refuse(CniError::TryAgain(text))
        }
        Err(error) => without_agent(pod, plugin, &error, read),
    }
}

fn without_agent(pod: &PodRef, plugin: &PluginConfig, error: &AskError, read: impl FnOnce() -> Read) -> Verdict {
    let refuse = |reason: &str| {
        let PodRef { namespace, name, .. } = pod;
        let remedy = remedy(plugin);
        Verdict::Refuse(CniError::TryAgain(format!("{error}; pod {namespace}/{name} {reason}; {remedy}; trying again")))
    };
    match plugin.agent_down {
        AgentDown::AllowAll => Verdict::StartUnasked {
            reason: format!(
                "{error}; it starts because agent_down is allow-all: if it is selected for the mesh, it sends in plaintext until the agent is back"
            ),
        },
        AgentDown::RefuseAll => refuse("does not start because agent_down is refuse-all"),
        // Only here is the API server asked: the other two policies need no knowledge of the pod.
        AgentDown::RefuseSelected => match read() {
            // What cannot be read may be selected: it must not start in plaintext.
            Err(unread) => {
                refuse(&format!("does not start because nothing tells whether it is selected for the mesh ({unread})"))
            }
            Ok((found, namespace)) => match enablement(plugin).selected(&found, Some(&namespace)) {
                Enrolment::Selected => refuse("is selected for the mesh and does not start before it is enrolled"),
                Enrolment::NotSelected { reason } => Verdict::StartUnasked { reason: format!("{error}; {reason}") },
            },
        },
    }
}

fn enablement(plugin: &PluginConfig) -> Enablement {
    Enablement {
        excluded_namespaces: plugin.exclude_namespaces.clone(),
        system_namespace: plugin.pod_namespace.clone(),
    }
}

fn remedy(plugin: &PluginConfig) -> String {
    let namespace = &plugin.pod_namespace;
    format!(
        "see why strake-agent does not run on this node: kubectl --namespace {namespace} get pods --selector app=strake-agent --output wide"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_ref(namespace: &str) -> PodRef {
        PodRef { namespace: namespace.to_owned(), name: "web".to_owned(), uid: None }
    }

    fn plugin(agent_down: AgentDown) -> PluginConfig {
        PluginConfig {
            r#type: cni::PLUGIN_TYPE.to_owned(),
            cni_agent_run_dir: "/run/x".into(),
            agent_down,
            kubeconfig: None,
            exclude_namespaces: vec!["kube-system".to_owned()],
            pod_namespace: "istio-system".to_owned(),
            log_file: None,
        }
    }

    fn objects(labels: &[(&str, &str)], ambient: bool) -> (Pod, Namespace) {
        let (mut pod, mut namespace) = (Pod::default(), Namespace::default());
        pod.metadata.namespace = "shop".to_owned();
        pod.metadata.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        if ambient {
            namespace.metadata.labels.insert("istio.io/dataplane-mode".to_owned(), "ambient".to_owned());
        }
        (pod, namespace)
    }

    fn answered(outcome: Outcome, reason: &str) -> Verdict {
        let answer = AddResponse { outcome, reason: reason.to_owned() };
        decide(&pod_ref("shop"), &plugin(AgentDown::AllowAll), Ok(answer), || panic!("the agent has answered"))
    }

    fn unanswered(policy: AgentDown, read: Read) -> Verdict {
        decide(&pod_ref("shop"), &plugin(policy), Err(AskError::Timeout), || read)
    }

    fn text(verdict: Verdict) -> String {
        match verdict {
            Verdict::Refuse(error) => {
                assert_eq!(error.number(), 11, "the kubelet tries again");
                error.to_string()
            }
            Verdict::Start | Verdict::StartUnasked { .. } => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn the_agents_word_decides_whatever_the_policy() {
        assert_eq!(answered(Outcome::Enrolled, ""), Verdict::Start);
        assert_eq!(answered(Outcome::NotSelected, "no label"), Verdict::Start);
        for outcome in [Outcome::Failed, Outcome::Invalid] {
            assert!(
                text(answered(outcome, "no ztunnel connection"))
                    .contains("shop/web is not enrolled in the mesh yet: no ztunnel connection")
            );
        }
    }

    #[test]
    fn without_an_agent_selected_pods_are_refused_and_others_start() {
        let policy = AgentDown::RefuseSelected;
        let refusal = text(unanswered(policy, Ok(objects(&[], true))));
        assert!(refusal.contains("did not answer within 5s; pod shop/web is selected"), "{refusal}");
        assert!(refusal.contains("kubectl --namespace istio-system get pods"), "{refusal}");

        for outside in [objects(&[], false), objects(&[("istio.io/dataplane-mode", "none")], true)] {
            assert!(matches!(unanswered(policy, Ok(outside)), Verdict::StartUnasked { .. }));
        }
    }

    #[test]
    fn what_cannot_be_known_does_not_start() {
        let refusal = text(unanswered(AgentDown::RefuseSelected, Err("503: down".to_owned())));

        assert!(refusal.contains("nothing tells whether it is selected for the mesh (503: down)"), "{refusal}");
    }

    #[test]
    fn other_policies_read_nothing() {
        let read = || -> Read { panic!("read") };
        let error = || Err(AskError::Timeout);
        let refused = decide(&pod_ref("shop"), &plugin(AgentDown::RefuseAll), error(), read);
        assert!(text(refused).contains("agent_down is refuse-all"));

        let allowed = decide(&pod_ref("shop"), &plugin(AgentDown::AllowAll), error(), read);
        let Verdict::StartUnasked { reason } = allowed else { panic!("{allowed:?}") };
        assert!(reason.contains("plaintext"), "{reason}");
    }

    #[test]
    fn excluded_namespaces_are_outside() {
        assert!(is_outside(&pod_ref("kube-system"), &plugin(AgentDown::RefuseAll)));
        assert!(!is_outside(&pod_ref("istio-system"), &plugin(AgentDown::RefuseAll)));
    }
}
