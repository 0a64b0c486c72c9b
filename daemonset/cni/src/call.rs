//! The call of the container runtime, from its environment variables.

use std::path::PathBuf;

use crate::error::CniError;

/// Command of a container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The pod that a sandbox is made for, as the kubelet tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    /// Older container runtimes do not tell it.
    pub uid: Option<String>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub command: Command,
    /// Path of the network namespace on the node. Empty where the command has none.
    pub netns: PathBuf,
    /// `None`: the sandbox is not that of a pod of Kubernetes.
    pub pod: Option<PodRef>,
}

impl Command {
    fn parse(text: &str) -> Result<Self, CniError> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            other => {
                let expected = "ADD, DEL, CHECK, GC, STATUS or VERSION; a container runtime runs this program";
                return Err(CniError::Environment { name: "CNI_COMMAND", value: other.to_owned(), expected });
            }
        })
    }
}

impl Call {
    /// Reads the variables that `variable` looks up.
    ///
    /// # Errors
    /// When one of them is missing or invalid.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let text = |name| variable(name).unwrap_or_default();
        let command = Command::parse(&text("CNI_COMMAND"))?;
        let netns = PathBuf::from(text("CNI_NETNS"));
        // Empty for DEL when the namespace is gone already: that must not fail.
        if command == Command::Add && !netns.is_absolute() {
            let (value, expected) = (netns.display().to_string(), "the path of a network namespace");
            return Err(CniError::Environment { name: "CNI_NETNS", value, expected });
        }
        Ok(Self { command, netns, pod: PodRef::read(&text("CNI_ARGS"))? })
    }
}

impl PodRef {
    /// Reads `CNI_ARGS`: `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=...`.
    fn read(args: &str) -> Result<Option<Self>, CniError> {
        let find = |name| {
            let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
        };
        // Without them it is a sandbox of another orchestrator, which no mesh knows.
        let (Some(namespace), Some(name)) = (find("K8S_POD_NAMESPACE"), find("K8S_POD_NAME")) else { return Ok(None) };
        // They become part of a path of the API.
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if !is_name(&namespace) || !is_name(&name) {
            let expected = "names of Kubernetes as K8S_POD_NAMESPACE and K8S_POD_NAME";
            return Err(CniError::Environment { name: "CNI_ARGS", value: args.to_owned(), expected });
        }
        Ok(Some(Self { namespace, name, uid: find("K8S_POD_UID") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(variables: &[(&str, &str)]) -> Result<Call, CniError> {
        Call::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_kubelets_arguments_name_the_pod() {
        let args =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1.x;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u";

        let call = call(&[("CNI_COMMAND", "ADD"), ("CNI_NETNS", "/run/netns/x"), ("CNI_ARGS", args)]).unwrap();

        let pod = call.pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()), ("shop", "web-1.x", Some("u")));
        assert_eq!(call.netns, PathBuf::from("/run/netns/x"));
    }

    #[test]
    fn a_sandbox_of_nobodys_is_no_pods() {
        for args in ["", "IgnoreUnknown=1", "K8S_POD_NAME=web", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=", "a;b==;="] {
            assert_eq!(PodRef::read(args), Ok(None), "{args}");
        }
    }

    #[test]
    fn what_is_missing_or_is_no_name_is_an_error_of_the_environment() {
        for variables in [
            &[][..],
            &[("CNI_COMMAND", "add")],
            &[("CNI_COMMAND", "ADD")],
            &[("CNI_COMMAND", "DEL"), ("CNI_ARGS", "K8S_POD_NAMESPACE=../x;K8S_POD_NAME=web")],
        ] {
            assert_eq!(call(variables).unwrap_err().number(), 4, "{variables:?}");
        }
    }
}
