//! Levels of endpoints by their place: 0 is the nearest.

use route::traffic::{LocalityBalancing, RegionFailover};

use crate::endpoint::Place;

/// Labels that stand for a property of a workload, and not for one of its own labels. Preferences of a service
/// (`trafficDistribution`) are made of them.
pub mod label {
    pub const REGION: &str = "topology.kubernetes.io/region";
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    pub const SUBZONE: &str = "topology.istio.io/subzone";
    pub const NETWORK: &str = "topology.istio.io/network";
    pub const CLUSTER: &str = "topology.istio.io/cluster";
    pub const NODE: &str = "kubernetes.io/hostname";
}

/// Rule that gives each endpoint its level.
#[derive(Debug)]
pub(crate) enum Preference<'a> {
    /// All endpoints are on one level.
    None,
    Failover {
        labels: &'a [String],
        regions: &'a [RegionFailover],
    },
}

impl<'a> Preference<'a> {
    /// Resolves a policy. `service` holds the labels that the service itself prefers.
    pub(crate) fn new(locality: &'a LocalityBalancing, service: &'a [String], has_outliers: bool) -> Self {
        match locality {
            LocalityBalancing::Failover { labels, regions } => Self::Failover { labels, regions },
            LocalityBalancing::Service if !service.is_empty() => Self::Failover { labels: service, regions: &[] },
            // Endpoints that are far take over only when near ones are ejected.
            LocalityBalancing::Service if has_outliers => Self::Failover { labels: &[], regions: &[] },
            LocalityBalancing::Service | LocalityBalancing::Disabled | LocalityBalancing::Distribute(_) => Self::None,
        }
    }

    /// Number that orders endpoints; equal numbers are one level.
    pub(crate) fn rank(&self, own: &Place, endpoint: &Place) -> usize {
        match self {
            Self::None => 0,
            Self::Failover { labels: [], regions } => by_locality(own, endpoint, regions),
            Self::Failover { labels, regions: [] } => by_labels(own, endpoint, labels),
            // Localities order the endpoints that labels leave equal; there are five levels of them.
            Self::Failover { labels, regions } => {
                by_labels(own, endpoint, labels) * 5 + by_locality(own, endpoint, regions)
            }
        }
    }
}

/// 0: same subzone, 1: same zone, 2: same region, 3: another one, or where there is a region that takes over, that one; 4:
/// all others.
fn by_locality(own: &Place, endpoint: &Place, regions: &[RegionFailover]) -> usize {
    if own.region == endpoint.region {
        return match (own.zone == endpoint.zone, own.subzone == endpoint.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    let over = regions.iter().find(|of| *of.from == *own.region);
    if over.is_none_or(|of| *of.to == *endpoint.region) { 3 } else { 4 }
}

/// Number of labels behind the first ones that match without a gap; 0 if all match.
fn by_labels(own: &Place, endpoint: &Place, labels: &[String]) -> usize {
    let matches = |label: &&String| match label.split_once('=') {
        Some((key, value)) => property(endpoint, key) == Some(value),
        None => property(own, label) == property(endpoint, label),
    };
    labels.len() - labels.iter().take_while(matches).count()
}

fn property<'a>(place: &'a Place, key: &str) -> Option<&'a str> {
    let known = |text: &'a str| (!text.is_empty()).then_some(text);
    match key {
        label::REGION => known(&place.region),
        label::ZONE => known(&place.zone),
        label::SUBZONE => known(&place.subzone),
        label::NETWORK => known(&place.network),
        label::CLUSTER => known(&place.cluster),
        label::NODE => known(&place.node),
        own => place.labels.get(own).map(String::as_str),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn place(locality: &str, labels: &[(&str, &str)]) -> Place {
        let mut parts = locality.split('/').map(Arc::from);
        let mut part = || parts.next().unwrap_or_default();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Place { region: part(), zone: part(), subzone: part(), labels: Arc::new(labels), ..Place::default() }
    }

    fn texts(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn nearer_localities_come_first() {
        let own = place("a/b/c", &[]);
        let default = Preference::Failover { labels: &[], regions: &[] };
        let ranks = ["a/b/c", "a/b/d", "a/b", "a/x/c", "a", "x/b/c", ""].map(|at| default.rank(&own, &place(at, &[])));
        assert_eq!(ranks, [0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn the_region_that_takes_over_comes_before_other_foreign_ones() {
        let own = place("a/b/c", &[]);
        let regions = [RegionFailover { from: "a".into(), to: "y".into() }];
        let rule = Preference::Failover { labels: &[], regions: &regions };
        assert_eq!(["a/b/c", "y", "x"].map(|at| rule.rank(&own, &place(at, &[]))), [0, 3, 4]);
        let other = [RegionFailover { from: "z".into(), to: "y".into() }];
        let rule = Preference::Failover { labels: &[], regions: &other };
        assert_eq!(["y", "x"].map(|at| rule.rank(&own, &place(at, &[]))), [3, 3]);
    }

    #[test]
    fn labels_count_from_the_first_one_without_gaps() {
        let own = place("a/b", &[("version", "v1"), ("app", "x")]);
        let labels = texts(&[label::REGION, "version", "app"]);
        let rule = Preference::Failover { labels: &labels, regions: &[] };
        for (locality, pairs, expected) in [
            ("a", &[("version", "v1"), ("app", "x")][..], 0),
            ("a", &[("version", "v1"), ("app", "y")], 1),
            ("a", &[("version", "v2"), ("app", "x")], 2),
            ("z", &[("version", "v1"), ("app", "x")], 3),
        ] {
            assert_eq!(rule.rank(&own, &place(locality, pairs)), expected, "{locality} {pairs:?}");
        }
        let fixed = texts(&["version=v2"]);
        let rule = Preference::Failover { labels: &fixed, regions: &[] };
        let ranks = ["v2", "v1"].map(|version| rule.rank(&own, &place("", &[("version", version)])));
        assert_eq!(ranks, [0, 1], "a value replaces the proxy's own");
    }

    #[test]
    fn a_service_prefers_without_outlier_detection_and_a_policy_goes_first() {
        let preferred = texts(&[label::ZONE]);
        let none: Vec<String> = Vec::new();
        let own = place("a/b", &[]);
        let rank = |locality: &LocalityBalancing, service: &[String], has_outliers| {
            Preference::new(locality, service, has_outliers).rank(&own, &place("a/c", &[]))
        };
        assert_eq!(rank(&LocalityBalancing::Service, &preferred, false), 1);
        assert_eq!(rank(&LocalityBalancing::Service, &none, false), 0);
        assert_eq!(rank(&LocalityBalancing::Service, &none, true), 2);
        assert_eq!(rank(&LocalityBalancing::Disabled, &preferred, true), 0);
    }
}
