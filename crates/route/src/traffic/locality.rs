//! Preference of endpoints by region, zone, subzone and labels.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rule for endpoints that are near and far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum LocalityBalancing {
    /// The preferences of the service (`trafficDistribution`) if it has any. Otherwise by region, zone and subzone if there is
    /// outlier detection, and else all endpoints alike.
    #[default]
    Service,
    /// All endpoints alike, whatever the service prefers.
    Disabled,
    /// Nearer endpoints first, farther ones as far as the nearer are not enough. Needs outlier detection: the compiler
    /// leaves this out without it.
    Failover {
        /// Labels by which an endpoint is nearer, the most important first: `key`, equal to the waypoint's own, or
        /// `key=value`. Empty: by region, zone and subzone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Regions that come before other foreign ones. With `labels` they order the endpoints that the labels leave equal.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        regions: Vec<RegionFailover>,
    },
    /// Shares of localities. The first entry whose `from` is the waypoint's locality counts; without such an entry all
    /// endpoints are alike.
    Distribute(Vec<Distribution>),
}

/// Region that takes over from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionFailover {
    /// Region of the waypoint.
    pub from: String,
    /// Region of endpoints.
    pub to: String,
}

/// Shares of localities for traffic from one locality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Distribution {
    pub from: LocalityPattern,
    /// Weights of more than 0. An endpoint belongs to the first pattern that matches; more special ones come first. One that
    /// matches none gets nothing.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// `region/zone/subzone`, where `*` stands for anything from there on, and so does a part that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalityPattern(String);

impl LocalityPattern {
    /// A pattern as users write it. `None` if it is empty, has more than three parts, or anything after a `*`.
    pub fn new(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let wildcard = parts.iter().position(|part| part.contains('*'));
        let is_valid = (1..=3).contains(&parts.len())
            && !parts.iter().any(|part| part.is_empty())
            && wildcard.is_none_or(|at| at + 1 == parts.len() && parts[at] == "*");
        is_valid.then(|| Self(text.to_owned()))
    }

    /// Returns true if a locality matches.
    pub fn matches(&self, region: &str, zone: &str, subzone: &str) -> bool {
        let fixed = self.0.split('/').take_while(|part| *part != "*");
        fixed.zip([region, zone, subzone]).all(|(pattern, part)| pattern == part)
    }

    /// Number of parts that are not `*`.
    pub fn specificity(&self) -> usize {
        self.0.split('/').filter(|part| *part != "*").count()
    }
}

impl fmt::Display for LocalityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
