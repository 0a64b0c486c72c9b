//! The commands of a container runtime.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cni::conflist::VERSIONS;
use cni::{AgentDown, AskError, PluginConfig, alive, ask};
use contract::cni::{AddRequest, AddResponse, Outcome, PLUGIN_TIMEOUT, SOCKET_NAME};
use serde_json::{Value, json};

use crate::add::{Verdict, decide, is_outside};
use crate::api;
use crate::call::{Call, Command, PodRef};
use crate::error::CniError;
use crate::journal;
use crate::network::Network;

/// Version in which an error is printed when the configuration has none that is known.
const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// Longest time until an agent that lives has said so.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one call. `Ok`: what is to be printed, if anything. `Err`: the error to be printed.
///
/// # Errors
/// The printed form of a [`CniError`].
pub fn run(variable: impl Fn(&str) -> Option<String>, mut input: impl io::Read) -> Result<Option<Value>, Value> {
    let mut bytes = Vec::new();
    // Its error is reported below, in the version that the input names as far as it was read.
    let read = input.read_to_end(&mut bytes);
    let version = Network::version(&bytes);
    let version = version.filter(|version| VERSIONS.contains(&version.as_str())).unwrap_or_else(|| NEWEST.to_owned());
    let outcome = read.map_err(|error| CniError::Input(error.to_string())).and_then(|_| {
        let call = Call::read(variable)?;
        command(&call, &bytes, &version)
    });
    outcome.map_err(|error| error.to_json(&version))
}

fn command(call: &Call, input: &[u8], version: &str) -> Result<Option<Value>, CniError> {
    match call.command {
        Command::Version => Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS }))),
        // The agent learns from the cluster that a pod has gone; nothing of this plugin's is left in its network. A pod can be
        // deleted whatever the configuration says.
        Command::Del | Command::Gc => Ok(None),
        Command::Add => add(call, &Network::read(input)?).map(Some),
        Command::Check => check(call, &Network::read(input)?).map(|()| None),
        Command::Status => status(&Network::read(input)?.plugin).map(|()| None),
    }
}

/// Lets a pod start, with the result of the plugins before, or refuses it.
fn add(call: &Call, network: &Network) -> Result<Value, CniError> {
    // Before the agent is asked: without a previous result nothing of the pod's network is known.
    let ips = network.addresses()?;
    // Passed on as it came: this plugin adds nothing, and the runtime takes the last plugin's result.
    let result = network.previous.clone().unwrap_or_default();
    let plugin = &network.plugin;
    let Some(pod) = call.pod.as_ref().filter(|pod| !is_outside(pod, plugin)) else { return Ok(result) };
    let begun = Instant::now();
    let answer = ask_agent(pod, call, plugin, ips);
    let verdict = decide(pod, plugin, answer, || match &plugin.kubeconfig {
        Some(kubeconfig) => api::read(kubeconfig, pod),
        None => Err("the plugin's configuration names no kubeconfig".to_owned()),
    });
    let PodRef { namespace, name, .. } = pod;
    let took = begun.elapsed().as_millis();
    let note = |what: &str, why: &str| {
        journal::write(plugin.log_file.as_deref(), &format!("{what} pod={namespace}/{name} took={took}ms {why}"));
    };
    match verdict {
        Verdict::Start => Ok(result),
        Verdict::StartUnasked { reason } => {
            note("starts unasked", &reason);
            Ok(result)
        }
        Verdict::Refuse(error) => {
            note("refused", &error.to_string());
            Err(error)
        }
    }
}

fn ask_agent(
    pod: &PodRef,
    call: &Call,
    plugin: &PluginConfig,
    ips: Vec<contract::cni::IpConfig>,
) -> Result<AddResponse, AskError> {
    let request = AddRequest {
        netns: call.netns.display().to_string(),
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        pod_uid: pod.uid.clone(),
        ips,
    };
    ask(&socket(plugin), &request, Instant::now() + PLUGIN_TIMEOUT)
}

/// Makes sure that the pod is still enrolled: the request can be repeated, and each answer is right.
fn check(call: &Call, network: &Network) -> Result<(), CniError> {
    let ips = network.addresses()?;
    let Some(pod) = call.pod.as_ref().filter(|pod| !is_outside(pod, &network.plugin)) else { return Ok(()) };
    match ask_agent(pod, call, &network.plugin, ips) {
        Ok(AddResponse { outcome: Outcome::Enrolled | Outcome::NotSelected, .. }) => Ok(()),
        Ok(AddResponse { outcome: Outcome::Failed | Outcome::Invalid, reason }) => {
            Err(CniError::TryAgain(format!("the pod is not proved to be enrolled: {reason}")))
        }
        Err(error) => Err(CniError::TryAgain(format!("the pod's enrolment cannot be checked: {error}"))),
    }
}

/// Says whether pods can start. A container runtime that hears of an error reports its node as not ready, and the node's pods
/// are evicted: without an agent that is right only where no pod may start without it.
fn status(plugin: &PluginConfig) -> Result<(), CniError> {
    let Err(error) = alive(&socket(plugin), Instant::now() + ALIVE_TIMEOUT) else { return Ok(()) };
    match plugin.agent_down {
        AgentDown::RefuseAll => {
            Err(CniError::NotAvailable(format!("{error}; no pod starts: agent_down is refuse-all")))
        }
        AgentDown::RefuseSelected | AgentDown::AllowAll => Ok(()),
    }
}

fn socket(plugin: &PluginConfig) -> PathBuf {
    plugin.cni_agent_run_dir.join(SOCKET_NAME)
}
