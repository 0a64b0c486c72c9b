//! A container's environment and command line, with the references in them resolved.

use std::net::IpAddr;

use kube_types::core::{Container, EnvFromSource, EnvVar, KeySelector, Service};

use super::{
    catalogue::{Catalogue, Keys},
    facts::Facts,
    files::hostname,
};

/// Directories of programs when a container sets no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order in which they may refer to each other.
pub(crate) type Environment = Vec<(String, String)>;

/// The whole environment of a container: Services of the namespace, then `envFrom`, then `env`; a later one wins. A
/// variable may use those before it, as `$(NAME)`.
///
/// # Errors
/// When a variable refers to something that is not there.
pub(crate) fn environment(
    container: &Container,
    facts: &Facts<'_>,
    catalogue: &Catalogue,
) -> Result<Environment, String> {
    let mut env = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("HOSTNAME".to_owned(), hostname(facts.pod)),
    ];
    // Kubernetes' default is true.
    if facts.pod.spec.enable_service_links != Some(false) {
        for service in catalogue.services(&facts.pod.metadata.namespace) {
            service_links(service).into_iter().for_each(|(name, value)| set(&mut env, name, value));
        }
    }
    // The order of these three is that of Kubernetes: what is written closer to the container wins.
    for source in &container.env_from {
        for (name, value) in all_of(source, facts, catalogue)? {
            set(&mut env, name, value);
        }
    }
    for variable in &container.env {
        if let Some(value) = value(variable, container, facts, catalogue)? {
            let value = expand(&value, &env);
            set(&mut env, variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn set(env: &mut Environment, name: String, value: String) {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
}

/// The command line of a container, with `$(NAME)` replaced by variables of its environment.
pub(crate) fn command_line(container: &Container, env: &Environment) -> Vec<String> {
    container.command.iter().chain(&container.args).map(|word| expand(word, env)).collect()
}

/// Every key of a ConfigMap or Secret that can be a variable's name; Kubernetes leaves out the others, too.
fn all_of(source: &EnvFromSource, facts: &Facts<'_>, catalogue: &Catalogue) -> Result<Environment, String> {
    let namespace = &facts.pod.metadata.namespace;
    let (kind, reference, found) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), _) => ("ConfigMap", map, catalogue.config_map_text(namespace, &map.name)),
        (None, Some(secret)) => ("Secret", secret, catalogue.secret(namespace, &secret.name)),
        (None, None) => return Err("envFrom has neither configMapRef nor secretRef".to_owned()),
    };
    let Some(keys) = found else {
        let missing = format!("envFrom: {kind} {:?} not found", reference.name);
        return if reference.optional { Ok(Vec::new()) } else { Err(missing) };
    };
    let keys = keys.map_err(|reason| format!("{kind} {:?}: {reason}", reference.name))?;
    let variable = |(key, value): (&&str, &std::borrow::Cow<'_, [u8]>)| {
        let name = format!("{}{key}", source.prefix);
        is_name(&name).then(|| Ok((name, text(kind, &reference.name, key, value)?)))
    };
    keys.iter().filter_map(variable).collect()
}

/// Names that a process can be given: printable, without `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
}

fn text(kind: &str, name: &str, key: &str, value: &[u8]) -> Result<String, String> {
    let wrong = || format!("the value of {key:?} of {kind} {name:?} cannot be a variable: it is not text");
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// The value of a variable; `None` when it refers to something optional that is not there.
fn value(
    variable: &EnvVar,
    container: &Container,
    facts: &Facts<'_>,
    catalogue: &Catalogue,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else { return Ok(Some(variable.value.clone().unwrap_or_default())) };
    let namespace = &facts.pod.metadata.namespace;
    let of_variable = |reason: String| format!("variable {}: {reason}", variable.name);
    if let Some(field) = &source.field_ref {
        return facts.field(&field.field_path).map(Some).map_err(of_variable);
    }
    if let Some(resource) = &source.resource_field_ref {
        return facts.resource(resource, Some(container)).map(Some).map_err(of_variable);
    }
    if let Some(selector) = &source.config_map_key_ref {
        return one_of("ConfigMap", selector, catalogue.config_map_text(namespace, &selector.name))
            .map_err(of_variable);
    }
    if let Some(selector) = &source.secret_key_ref {
        return one_of("Secret", selector, catalogue.secret(namespace, &selector.name)).map_err(of_variable);
    }
    let known = "fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef";
    Err(of_variable(format!("valueFrom has none of {known}")))
}

fn one_of(
    kind: &str,
    selector: &KeySelector,
    keys: Option<Result<Keys<'_>, String>>,
) -> Result<Option<String>, String> {
    let KeySelector { name, key, optional } = selector;
    let missing = |what: String| if *optional { Ok(None) } else { Err(what) };
    let Some(keys) = keys else { return missing(format!("{kind} {name:?} not found")) };
    match keys.map_err(|reason| format!("{kind} {name:?}: {reason}"))?.get(key.as_str()) {
        Some(value) => text(kind, name, key, value).map(Some),
        None => missing(format!("{kind} {name:?} has no key {key:?}")),
    }
}

/// The variables by which a container finds a Service, with those of Docker's links.
fn service_links(service: &Service) -> Environment {
    // A headless Service has no address of its own, and Kubernetes makes no variables for it.
    let Some(address) = service.spec.addresses().next().and_then(|text| text.parse::<IpAddr>().ok()) else {
        return Vec::new();
    };
    let upper = |text: &str| text.to_ascii_uppercase().replace(['-', '.'], "_");
    let name = upper(&service.metadata.name);
    let Some(first) = service.spec.ports.first() else { return Vec::new() };
    let mut env = vec![
        (format!("{name}_SERVICE_HOST"), address.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    let socket = |port: u16| std::net::SocketAddr::new(address, port);
    env.push((format!("{name}_PORT"), format!("{}://{}", first.protocol().to_ascii_lowercase(), socket(first.port))));
    for port in &service.spec.ports {
        if !port.name.is_empty() {
            env.push((format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string()));
        }
        let protocol = port.protocol();
        let link = format!("{name}_PORT_{}_{protocol}", port.port);
        env.push((link.clone(), format!("{}://{}", protocol.to_ascii_lowercase(), socket(port.port))));
        env.push((format!("{link}_PROTO"), protocol.to_ascii_lowercase()));
        env.push((format!("{link}_PORT"), port.port.to_string()));
        env.push((format!("{link}_ADDR"), address.to_string()));
    }
    env
}

/// Replaces `$(NAME)`; `$$` is a dollar, and a name that is not known stays as it is.
pub(crate) fn expand(text: &str, env: &Environment) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let known =
            reference.and_then(|(name, tail)| env.iter().find(|(key, _)| key == name).map(|(_, value)| (value, tail)));
        // What was replaced is not looked at again: a value that contains `$(NAME)` stays as it is, as in Kubernetes.
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
    use kube_types::Kind;
    use kube_types::core::Pod;
    use serde_json::json;

    use super::{super::catalogue::catalogue, *};

    fn pod(container: serde_json::Value) -> Pod {
        let meta = json!({"name": "p", "namespace": "n", "labels": {"a": "b"}});
        serde_json::from_value(json!({"metadata": meta, "spec": {"containers": [container]}})).unwrap()
    }

    fn env_of(pod: &Pod, catalogue: &Catalogue) -> Result<Environment, String> {
        let ips = ["10.244.1.2".parse().unwrap()];
        let facts = Facts { pod, uid: "u", node: "node-1", ips: &ips, host_ips: &[] };
        environment(&pod.spec.containers[0], &facts, catalogue)
    }

    fn get<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
        env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn variables_see_the_pod_and_each_other() {
        let pod = pod(json!({"name": "c", "command": ["run", "$(ADDR)", "$(NO) $$(IP)"], "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "ADDR", "value": "http://$(IP):80"},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                {"name": "PATH", "value": "/x"}]}));

        let env = env_of(&pod, &Catalogue::default()).unwrap();

        assert_eq!(get(&env, "ADDR"), Some("http://10.244.1.2:80"));
        assert_eq!(get(&env, "L"), Some("b"));
        assert_eq!(get(&env, "PATH"), Some("/x"));
        assert_eq!(get(&env, "HOSTNAME"), Some("p"));
        assert_eq!(command_line(&pod.spec.containers[0], &env), ["run", "http://10.244.1.2:80", "$(NO) $(IP)"]);
    }

    #[test]
    fn keys_of_config_maps_and_secrets_are_variables() {
        let meta = |name: &str| json!({"name": name, "namespace": "n"});
        let catalogue = catalogue(&[
            (
                Kind::ConfigMap,
                json!({"metadata": meta("m"), "data": {"one": "1", "two": "2", "a=b": "x"}, "binaryData": {"raw": "AAEC"}}),
            ),
            (Kind::Secret, json!({"metadata": meta("s"), "data": {"pass": "aGlkZGVu"}})),
        ]);
        let pod = pod(json!({"name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}},
                {"configMapRef": {"name": "none", "optional": true}}],
            "env": [{"name": "P_two", "value": "own"},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "one"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pass"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": true}}}]}));

        let env = env_of(&pod, &catalogue).unwrap();

        assert_eq!([get(&env, "P_one"), get(&env, "P_two"), get(&env, "P_a=b")], [Some("1"), Some("own"), None]);
        assert_eq!([get(&env, "pass"), get(&env, "K"), get(&env, "S")], [Some("hidden"), Some("1"), Some("hidden")]);
        assert_eq!(get(&env, "O"), None);
    }

    #[test]
    fn what_a_variable_refers_to_is_named_when_it_is_not_there() {
        let meta = json!({"name": "m", "namespace": "n"});
        let catalogue = catalogue(&[(Kind::ConfigMap, json!({"metadata": meta, "data": {}}))]);
        let said = |container| env_of(&pod(container), &catalogue).unwrap_err();
        let from = |source| json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]});

        assert!(said(from(json!({"fieldRef": {"fieldPath": "spec.colour"}}))).contains("spec.colour"));
        assert_eq!(
            said(from(json!({"configMapKeyRef": {"name": "m", "key": "k"}}))),
            "variable X: ConfigMap \"m\" has no key \"k\""
        );
        assert_eq!(
            said(from(json!({"secretKeyRef": {"name": "m", "key": "k"}}))),
            "variable X: Secret \"m\" not found"
        );
        assert_eq!(
            said(json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]})),
            "envFrom: Secret \"s\" not found"
        );
    }

    #[test]
    fn services_of_the_namespace_are_variables_unless_they_are_switched_off() {
        let service = |namespace: &str, name: &str| {
            json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": "10.96.1.1",
                "ports": [{"name": "http-web", "port": 80}]}})
        };
        let catalogue =
            catalogue(&[(Kind::Service, service("n", "redis-leader")), (Kind::Service, service("other", "hidden"))]);
        let mut pod = pod(json!({"name": "c"}));

        let env = env_of(&pod, &catalogue).unwrap();
        pod.spec.enable_service_links = Some(false);
        let without = env_of(&pod, &catalogue).unwrap();

        assert_eq!(get(&env, "REDIS_LEADER_SERVICE_HOST"), Some("10.96.1.1"));
        assert_eq!(get(&env, "REDIS_LEADER_SERVICE_PORT_HTTP_WEB"), Some("80"));
        assert_eq!(get(&env, "REDIS_LEADER_PORT"), Some("tcp://10.96.1.1:80"));
        assert_eq!(get(&env, "HIDDEN_SERVICE_HOST"), None);
        assert_eq!(without.len(), 3);
    }
}
