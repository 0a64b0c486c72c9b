//! Parts that the CNI plugin shares with the programs around it: the question to the node agent ([`ask()`], which the lab's
//! kubelet asks as well), the plugin's configuration ([`PluginConfig`], which the agent writes and the plugin reads), and the
//! place of the plugin in a node's CNI configuration ([`conflist`]). It has no runtime, and touches no file.

mod ask;
pub mod conflist;
mod deadline;
pub mod http;
mod kubeconfig;
mod plugin_config;

pub use ask::{AskError, MAX_ANSWER_BYTES, alive, ask, read_answer, request};
pub use deadline::{Bounded, Timeouts, exchange};
pub use kubeconfig::{InvalidKubeconfig, Kubeconfig};
pub use plugin_config::{AgentDown, KUBECONFIG_NAME, PLUGIN_TYPE, PluginConfig, UnknownPolicy};
