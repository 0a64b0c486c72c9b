//! The plugin's element in a CNI configuration list: written by the agent, read by the plugin.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Type of the plugin in a configuration, and name of its program.
pub const PLUGIN_TYPE: &str = "strake-cni";

/// Name of the plugin's kubeconfig, beside the configuration. Container runtimes ignore it, because it has no ending.
pub const KUBECONFIG_NAME: &str = "strake-cni-kubeconfig";

/// Settings of the plugin. Names that Istio's plugin has keep Istio's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginConfig {
    /// [`PLUGIN_TYPE`].
    pub r#type: String,
    /// Directory of the agent's socket, on the node.
    pub cni_agent_run_dir: PathBuf,
    /// Treatment of pods while the agent does not answer.
    #[serde(default)]
    pub agent_down: AgentDown,
    /// Credentials for reading pods and namespaces while the agent does not answer, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces whose pods are never enrolled: they start without asking.
    // Absent in configurations that were written by hand: none is excluded.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// Namespace of agent and node proxies.
    pub pod_namespace: String,
    /// File for a line on each pod that does not start, or that starts unasked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_file: Option<PathBuf>,
}

/// Treatment of pods while the agent does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentDown {
    /// Pods that are selected for the mesh do not start, others do. What cannot be known does not start.
    #[default]
    RefuseSelected,
    /// No pod starts but those of excluded namespaces.
    RefuseAll,
    /// Every pod starts. One that is selected sends in plaintext until the agent is back.
    AllowAll,
}

/// A policy that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}, expected refuse-selected, refuse-all or allow-all")]
pub struct UnknownPolicy(String);

impl AgentDown {
    const ALL: [Self; 3] = [Self::RefuseSelected, Self::RefuseAll, Self::AllowAll];

    /// Name in configurations and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RefuseSelected => "refuse-selected",
            Self::RefuseAll => "refuse-all",
            Self::AllowAll => "allow-all",
        }
    }
}

impl fmt::Display for AgentDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AgentDown {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_the_same_name_in_flags_and_configurations() {
        for policy in AgentDown::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.name());
        }
        assert!("refuse".parse::<AgentDown>().unwrap_err().to_string().contains("refuse-selected"));
    }
}
