//! Destinations of a route, and the choice among them.

use std::fmt;

use serde::Serialize;

use crate::headers::HeaderChanges;

/// Endpoints that a request may go to: a service's, or those of it that a subset's labels select.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Destination {
    /// Host name of the service.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)?;
        match &self.subset {
            Some(subset) => write!(f, " subset {subset}"),
            None => Ok(()),
        }
    }
}

/// Meaning of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    Service(Destination),
    /// A VirtualService names a service, port or subset that does not exist: 503, flag `NC`.
    Missing(Destination),
    /// A route of the Gateway API names a backend that does not exist or may not be used: 500.
    Invalid,
}

/// Destination with its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weighted {
    pub target: Target,
    /// Share of the sum of all weights; 0: none.
    pub weight: u32,
    /// Changes that are applied before those of the route.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes that are applied before those of the route.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// Authority that the destination sees instead of that of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

impl Weighted {
    pub fn new(target: Target, weight: u32) -> Self {
        let (request_headers, response_headers) = <(HeaderChanges, HeaderChanges)>::default();
        Self { target, weight, request_headers, response_headers, authority: None }
    }
}

/// Chooses a destination in proportion to the weights by a random number. `None` if nobody has a share: the answer is 500.
pub fn choose(destinations: &[Weighted], random: u64) -> Option<&Weighted> {
    let total: u64 = destinations.iter().map(|destination| u64::from(destination.weight)).sum();
    let mut left = random.checked_rem(total)?;
    destinations.iter().find(|destination| {
        let weight = u64::from(destination.weight);
        let is_chosen = left < weight;
        left = left.saturating_sub(weight);
        is_chosen
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weighted(weights: &[u32]) -> Vec<Weighted> {
        let to = |port| Target::Service(Destination { host: "reviews".into(), port, subset: None });
        weights.iter().zip(0..).map(|(weight, port)| Weighted::new(to(port), *weight)).collect()
    }

    #[test]
    fn nobody_with_weight_0_is_chosen() {
        let both = weighted(&[0, 100]);
        assert!((0..1000).all(|random| choose(&both, random) == both.get(1)));
        assert_eq!(choose(&weighted(&[0, 0]), 7), None);
        assert_eq!(choose(&[], 7), None);
        let most = weighted(&[u32::MAX, u32::MAX]);
        assert!(choose(&most, u64::MAX).is_some(), "the sum does not overflow");
    }

    #[test]
    fn a_destination_is_named_as_users_write_it() {
        let mut destination = Destination { host: "reviews.shop.svc.cluster.local".into(), port: 80, subset: None };
        assert_eq!(destination.to_string(), "reviews.shop.svc.cluster.local:80");
        destination.subset = Some("v2".into());
        assert_eq!(destination.to_string(), "reviews.shop.svc.cluster.local:80 subset v2");
    }

    proptest! {
        #[test]
        fn shares_are_exactly_the_weights(weights in prop::collection::vec(0u32..50, 1..6), rounds in 1u64..4) {
            let destinations = weighted(&weights);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0u64; weights.len()];
            for random in 0..total * rounds {
                let chosen = choose(&destinations, random).unwrap();
                counts[destinations.iter().position(|one| std::ptr::eq(one, chosen)).unwrap()] += 1;
            }
            let expected: Vec<_> = weights.iter().map(|weight| u64::from(*weight) * rounds).collect();
            prop_assert_eq!(counts, expected);
        }
    }
}
