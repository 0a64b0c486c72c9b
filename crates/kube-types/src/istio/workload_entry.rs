//! WorkloadEntry: a workload that is no pod, for instance on a virtual machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::{ObjectMeta, StringMap};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    pub metadata: ObjectMeta,
    pub spec: WorkloadEntrySpec,
}

impl WorkloadEntry {
    /// Labels by which the workload is selected: those of the metadata win over those of the specification.
    pub fn labels(&self) -> StringMap {
        let mut labels = self.spec.labels.clone();
        // Last, so that these win.
        labels.extend(self.metadata.labels.clone());
        labels
    }
}

/// One workload. It is also an endpoint in a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntrySpec {
    /// IP address, or host name. May be empty when `network` says behind which gateway the workload is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Ports of the workload by name; they replace those that a service would send to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// `region/zone/subzone`; the last parts may be missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Share of the connections beside other endpoints; 0 stands for 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: u32,
    // Empty: `default`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_metadata_win_over_those_of_the_specification() {
        let entry: WorkloadEntry = serde_json::from_value(serde_json::json!({
            "metadata": {"labels": {"app": "meta"}},
            "spec": {"labels": {"app": "spec", "version": "v1"}},
        }))
        .unwrap();

        let labels: Vec<_> = entry.labels().into_iter().collect();

        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(labels, [pair("app", "meta"), pair("version", "v1")]);
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        let entry = serde_json::json!({"spec": {"ports": {"http": 70000}}});
        assert!(serde_json::from_value::<WorkloadEntry>(entry).is_err());
    }
}
