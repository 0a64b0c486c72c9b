//! The configuration that a container runtime writes to standard input, with the result of the plugins before this one.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cni::PluginConfig;
use cni::conflist::VERSIONS;
use contract::cni::{IpConfig, IpNet};
use serde::Deserialize;
use serde_json::Value;

use crate::error::CniError;

/// Configuration of a call.
#[derive(Debug)]
pub struct Network {
    pub version: String,
    pub plugin: PluginConfig,
    /// Result of the plugins before, in that version.
    pub previous: Option<Value>,
}

/// The fields of a result that the agent needs, since 0.3.0.
#[derive(Deserialize)]
struct Previous {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    /// Empty: it is the node's.
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    /// Address and length of its prefix.
    address: String,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    interface: Option<i64>,
}

impl Network {
    /// Reads the version and nothing else, for errors.
    pub fn version(input: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            cni_version: String,
        }
        serde_json::from_slice::<Version>(input).ok().map(|version| version.cni_version)
    }

    /// Reads standard input.
    ///
    /// # Errors
    /// When it is not JSON, of a version that is not known, or lacks something.
    pub fn read(input: &[u8]) -> Result<Self, CniError> {
        let mut value: Value = serde_json::from_slice(input).map_err(|error| CniError::Input(error.to_string()))?;
        let version = value["cniVersion"].as_str().unwrap_or_default().to_owned();
        if !VERSIONS.contains(&version.as_str()) {
            return Err(CniError::Version(version));
        }
        // Taken out, since it is no field of the plugin's own configuration.
        let previous = value.get_mut("prevResult").map(Value::take).filter(|previous| !previous.is_null());
        let plugin = serde_json::from_value(value).map_err(|error| CniError::Configuration(error.to_string()))?;
        Ok(Self { version, plugin, previous })
    }

    /// Addresses of the pod: those of interfaces of the node are left out.
    ///
    /// # Errors
    /// When there is no result of a plugin before this one, or it cannot be read.
    pub fn addresses(&self) -> Result<Vec<IpConfig>, CniError> {
        let invalid = |text: String| CniError::Configuration(text);
        let previous = self.previous.as_ref().ok_or_else(|| {
            invalid("no prevResult: this plugin comes after the one that makes the pod's network".to_owned())
        })?;
        let previous = Previous::deserialize(previous).map_err(|error| invalid(format!("prevResult: {error}")))?;
        let is_pods = |ip: &&Ip| {
            let interface = ip.interface.and_then(|index| previous.interfaces.get(usize::try_from(index).ok()?));
            // An address without an interface is the pod's.
            interface.is_none_or(|interface| !interface.sandbox.is_empty())
        };
        previous
            .ips
            .iter()
            .filter(is_pods)
            .map(|ip| {
                address(ip).ok_or_else(|| invalid(format!("prevResult: {:?} is no address with prefix", ip.address)))
            })
            .collect()
    }
}

fn address(ip: &Ip) -> Option<IpConfig> {
    let (address, prefix) = ip.address.split_once('/')?;
    let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let mask = match address {
        IpAddr::V4(_) if prefix <= 32 => {
            // A prefix of 0 would shift by all 32 bits, which `checked_shl` refuses: the mask is 0 then.
            BASE64_STANDARD.encode(u32::MAX.checked_shl(32 - prefix).unwrap_or(0).to_be_bytes())
        }
        IpAddr::V6(_) if prefix <= 128 => {
            BASE64_STANDARD.encode(u128::MAX.checked_shl(128 - prefix).unwrap_or(0).to_be_bytes())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    let interface = ip.interface.and_then(|index| u32::try_from(index).ok());
    Some(IpConfig { interface, address: IpNet { ip: address, mask: Some(mask) }, gateway: ip.gateway })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(version: &str, previous: &Value) -> Vec<u8> {
        json!({
            "cniVersion": version, "name": "net", "type": "strake-cni", "cni_agent_run_dir": "/run/x",
            "pod_namespace": "istio-system", "prevResult": previous,
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn addresses_of_the_pod_are_those_that_are_not_the_nodes() {
        let previous = json!({
            "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [
                {"version": "4", "interface": 2, "address": "10.244.1.7/24", "gateway": "10.244.1.1"},
                {"interface": 2, "address": "fd00::7/64"},
                {"interface": 0, "address": "10.244.1.1/24"},
                {"address": "10.9.9.9/0"},
            ],
        });

        let ips = Network::read(&input("0.4.0", &previous)).unwrap().addresses().unwrap();

        let text: Vec<_> = ips.iter().map(|ip| (ip.address.ip.to_string(), ip.address.mask.clone().unwrap())).collect();
        let expected = [("10.244.1.7", "////AA=="), ("fd00::7", "//////////8AAAAAAAAAAA=="), ("10.9.9.9", "AAAAAA==")];
        assert_eq!(text, expected.map(|(ip, mask)| (ip.to_owned(), mask.to_owned())));
        assert_eq!((ips[0].interface, ips[0].gateway), (Some(2), Some("10.244.1.1".parse().unwrap())));
    }

    #[test]
    fn a_call_without_a_plugin_before_is_an_error() {
        let network = Network::read(&input("1.0.0", &Value::Null)).unwrap();

        assert_eq!(network.addresses().unwrap_err().number(), 7);
    }

    #[test]
    fn defects_of_the_input_have_the_codes_of_the_specification() {
        let number = |input: &[u8]| Network::read(input).unwrap_err().number();

        assert_eq!(number(b"{"), 6);
        assert_eq!(number(&input("0.2.0", &Value::Null)), 1);
        assert_eq!(number(b"{\"cniVersion\": \"1.0.0\", \"type\": \"strake-cni\"}"), 7);
        for address in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "x/8"] {
            let network = Network::read(&input("1.0.0", &json!({"ips": [{"address": address}]}))).unwrap();
            assert_eq!(network.addresses().unwrap_err().number(), 7, "{address}");
        }
    }
}
