//! A container's environment and command line, with the references in them resolved.

use std::net::IpAddr;

use kube_api::core::{Container, EnvVar, Pod};

use super::files::hostname;

/// Where programs are looked for when a container does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a pod may ask about itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
}

/// The whole environment of a container. A variable may use those before it, as `$(NAME)`.
///
/// # Errors
/// When a variable refers to a field that is not known.
pub(crate) fn environment(container: &Container, facts: &Facts<'_>) -> Result<Vec<(String, String)>, String> {
    let mut env = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("HOSTNAME".to_owned(), hostname(facts.pod).to_owned()),
    ];
    for variable in &container.env {
        let value = value(variable, facts)?;
        let value = expand(&value, &env);
        env.retain(|(name, _)| *name != variable.name);
        env.push((variable.name.clone(), value));
    }
    Ok(env)
}

/// The command line of a container, with `$(NAME)` replaced by variables of its environment.
pub(crate) fn command_line(container: &Container, env: &[(String, String)]) -> Vec<String> {
    container.command.iter().chain(&container.args).map(|word| expand(word, env)).collect()
}

fn value(variable: &EnvVar, facts: &Facts<'_>) -> Result<String, String> {
    let Some(source) = &variable.value_from else { return Ok(variable.value.clone().unwrap_or_default()) };
    let path = source.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
    let meta = &facts.pod.metadata;
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => facts.uid.to_owned(),
        "spec.nodeName" => facts.node.to_owned(),
        "spec.serviceAccountName" => facts.pod.service_account().to_owned(),
        "status.podIP" => first(facts.ips),
        "status.podIPs" => join(facts.ips),
        "status.hostIP" => first(facts.host_ips),
        "status.hostIPs" => join(facts.host_ips),
        _ => {
            let label = quoted("metadata.labels['").and_then(|key| meta.labels.get(key));
            let annotation = quoted("metadata.annotations['").and_then(|key| meta.annotations.get(key));
            let found = label.or(annotation).cloned();
            found.ok_or_else(|| format!("variable {} refers to {path:?}, which is not known here", variable.name))?
        }
    })
}

/// Replaces `$(NAME)`; `$$` is a dollar, and a name that is not known stays as it is.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let known =
            reference.and_then(|(name, tail)| env.iter().find(|(key, _)| key == name).map(|(_, value)| (value, tail)));
        rest = match (known, after.strip_prefix('$')) {
            (Some((value, tail)), _) => {
                out.push_str(value);
                tail
            }
            (None, Some(tail)) => {
                out.push('$');
                tail
            }
            (None, None) => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_see_the_pod_and_each_other() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "command": ["run", "$(ADDR)", "$(NO) $$(IP)"], "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "ADDR", "value": "http://$(IP):80"},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                {"name": "PATH", "value": "/x"}]}]}}))
            .unwrap();
        let ips = ["10.244.1.2".parse().unwrap()];
        let facts = Facts { pod: &pod, uid: "u", node: "node-1", ips: &ips, host_ips: &[] };
        let container = &pod.spec.containers[0];

        let env = environment(container, &facts).unwrap();
        let get = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());

        assert_eq!(get("ADDR"), Some("http://10.244.1.2:80"));
        assert_eq!(get("L"), Some("b"));
        assert_eq!(get("PATH"), Some("/x"));
        assert_eq!(get("HOSTNAME"), Some("p"));
        assert_eq!(command_line(container, &env), ["run", "http://10.244.1.2:80", "$(NO) $(IP)"]);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "env": [
            {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.colour"}}}]}]}}))
        .unwrap();
        let facts = Facts { pod: &pod, uid: "", node: "", ips: &[], host_ips: &[] };

        assert!(environment(&pod.spec.containers[0], &facts).unwrap_err().contains("spec.colour"));
    }
}
