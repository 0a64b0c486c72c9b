//! Facts about a pod that it may refer to: the downward API's fields and the resources of its containers.

use std::{fs, net::IpAddr};

use kube_types::StringMap;
use kube_types::core::{Container, Pod, ResourceFieldRef};

/// A pod as its containers see it.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
}

impl Facts<'_> {
    /// A field by its path.
    ///
    /// # Errors
    /// When there is no such field.
    pub(crate) fn field(&self, path: &str) -> Result<String, String> {
        let meta = &self.pod.metadata;
        let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
        let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
        Ok(match path {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone(),
            "metadata.uid" => self.uid.to_owned(),
            "metadata.labels" => lines(&meta.labels),
            "metadata.annotations" => lines(&meta.annotations),
            "spec.nodeName" => self.node.to_owned(),
            "spec.serviceAccountName" => self.pod.service_account().to_owned(),
            "status.podIP" => first(self.ips),
            "status.podIPs" => join(self.ips),
            "status.hostIP" => first(self.host_ips),
            "status.hostIPs" => join(self.host_ips),
            _ => {
                let of = |prefix, map: &StringMap| Some(map.get(quoted(prefix)?).cloned().unwrap_or_default());
                let found =
                    of("metadata.labels['", &meta.labels).or_else(|| of("metadata.annotations['", &meta.annotations));
                found.ok_or_else(|| format!("unsupported field {path:?} of the downward API"))?
            }
        })
    }

    /// A request or limit of a container, in units of its divisor, rounded up. `own` is the container that asks.
    ///
    /// # Errors
    /// When the container, the resource or the divisor is not known.
    pub(crate) fn resource(&self, selector: &ResourceFieldRef, own: Option<&Container>) -> Result<String, String> {
        let spec = &self.pod.spec;
        let container = match (selector.container_name.as_str(), own) {
            ("", Some(own)) => own,
            (name, _) => {
                let found = spec.init_containers.iter().chain(&spec.containers).find(|other| other.name == name);
                found.ok_or_else(|| {
                    format!("resourceFieldRef names the container {name:?}, which the pod does not have")
                })?
            }
        };
        let (list, name) = selector.resource.split_once('.').unwrap_or(("", ""));
        let resources = container.resources.clone().unwrap_or_default();
        let limit = resources.limits.get(name);
        // Kubernetes' rules for what is not set: a limit is the whole machine's, a request is the limit, and neither is
        // an error.
        let value = match list {
            "limits" => limit.map(|quantity| parse_quantity(&quantity.0)).unwrap_or_else(|| machine(name)),
            "requests" => resources.requests.get(name).or(limit).map_or(Ok(0), |quantity| parse_quantity(&quantity.0)),
            _ => Err(format!("resourceFieldRef names {:?}: expected limits.NAME or requests.NAME", selector.resource)),
        }?;
        // A divisor of 0 is what "not set" looks like in exported manifests.
        let divisor = selector.divisor.as_ref().map_or(Ok(0), |divisor| parse_quantity(&divisor.0))?;
        let divisor = if divisor == 0 { NANO } else { divisor };
        // Rounded up, as Kubernetes does: half a core must not become 0 threads.
        Ok(((value + divisor - 1) / divisor).to_string())
    }
}

/// Labels or annotations as a file of the downward API.
fn lines(map: &StringMap) -> String {
    // With quotes, as Kubernetes writes them (`%q` of Go).
    map.iter().map(|(key, value)| format!("{key}={value:?}\n")).collect()
}

/// One unit; a quantity is counted in billionths.
const NANO: i128 = 1_000_000_000;

/// Limit of a container without a limit: all that the machine has.
fn machine(resource: &str) -> Result<i128, String> {
    match resource {
        "cpu" => {
            let count = std::thread::available_parallelism().map_err(|err| err.to_string())?;
            Ok(i128::try_from(count.get()).unwrap_or(1) * NANO)
        }
        "memory" => {
            let text = fs::read_to_string("/proc/meminfo").map_err(|err| format!("/proc/meminfo: {err}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let kib: Option<i128> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            Ok(kib.ok_or("/proc/meminfo has no MemTotal")? * 1024 * NANO)
        }
        "ephemeral-storage" => {
            let found = rustix::fs::statvfs("/").map_err(|err| format!("/: {err}"))?;
            Ok(i128::from(found.f_blocks) * i128::from(found.f_frsize) * NANO)
        }
        _ => Ok(0),
    }
}

/// Reads a quantity (`k8s.io/apimachinery/pkg/api/resource`) in billionths.
///
/// # Errors
/// When it is none.
pub(crate) fn parse_quantity(text: &str) -> Result<i128, String> {
    let wrong = || format!("{text:?} is not a quantity such as 2, 100m or 1Gi");
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E']).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
            10_i128.checked_pow(power).and_then(|power| power.checked_mul(NANO)).ok_or_else(wrong)?
        }
    };
    // The number is read as an integer without its point and divided at the end: with floating point 0.1 would not be
    // exact.
    let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let places = u32::try_from(fraction.len()).map_err(|_| wrong())?;
    let unit = 10_i128.checked_pow(places).ok_or_else(wrong)?;
    digits.checked_mul(scale).map(|value| value / unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, expected) in [
            ("100m", NANO / 10),
            ("2", 2 * NANO),
            ("0.5", NANO / 2),
            ("1Gi", (1 << 30) * NANO),
            ("1.5Ki", 1536 * NANO),
            ("5M", 5_000_000 * NANO),
            ("1e3", 1000 * NANO),
        ] {
            assert_eq!(parse_quantity(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "1 Gi", "1Gb", "m"] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resources_are_counted_in_their_divisor_and_rounded_up() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}},
            {"name": "d"}]}}))
        .unwrap();
        let facts = Facts { pod: &pod, uid: "", node: "", ips: &[], host_ips: &[] };
        let of = |container: usize, resource: &str, divisor: serde_json::Value| {
            let selector = json!({"resource": resource, "divisor": divisor});
            facts.resource(&serde_json::from_value(selector).unwrap(), Some(&pod.spec.containers[container]))
        };

        assert_eq!(of(0, "limits.cpu", json!("1")).unwrap(), "2");
        assert_eq!(of(0, "limits.cpu", json!("1m")).unwrap(), "1500");
        assert_eq!(of(0, "requests.cpu", json!("1m")).unwrap(), "250");
        assert_eq!(of(0, "limits.memory", json!("1Mi")).unwrap(), "100");
        assert_eq!(of(0, "requests.memory", json!(0)).unwrap(), (100 << 20).to_string(), "a limit is a request, too");
        assert_eq!(of(1, "requests.cpu", json!("1")).unwrap(), "0");
        assert_ne!(of(1, "limits.memory", json!("1Mi")).unwrap(), "0", "without a limit it is the machine's");
        assert!(of(0, "cpu", json!("1")).is_err());
    }

    #[test]
    fn labels_are_a_line_each_and_a_missing_one_is_empty() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "x", "b": "say \"y\""}}, "spec": {}})).unwrap();
        let facts = Facts { pod: &pod, uid: "", node: "", ips: &[], host_ips: &[] };

        assert_eq!(facts.field("metadata.labels").unwrap(), "a=\"x\"\nb=\"say \\\"y\\\"\"\n");
        assert_eq!(facts.field("metadata.labels['a']").unwrap(), "x");
        assert_eq!(facts.field("metadata.labels['none']").unwrap(), "");
        assert!(facts.field("spec.colour").unwrap_err().contains("spec.colour"));
    }
}
