//! Members and endpoints for tests of this crate.

use std::sync::Arc;

use crate::endpoint::{Endpoint, Place};
use crate::ring::Member;

/// Addresses of hosts.
pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("10.0.{}.{}:8080", number / 256, number % 256)).collect()
}

/// Members with shares in proportion to weights.
pub(crate) fn members<'a>(keys: &'a [String], weights: &[u32]) -> Vec<Member<'a>> {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let numbered = keys.iter().zip(weights).zip(0u32..);
    numbered.map(|((key, weight), host)| Member { key, host, weight: f64::from(*weight) / total }).collect()
}

/// Endpoints of a locality (`region/zone/subzone`) with numbers from `first` on; the target is the number.
pub(crate) fn endpoints(locality: &str, first: usize, count: usize) -> Vec<Endpoint<usize>> {
    let mut parts = locality.split('/').map(Arc::<str>::from);
    let mut part = || parts.next().unwrap_or_default();
    let place = Place { region: part(), zone: part(), subzone: part(), ..Place::default() };
    let keys = keys(first + count).into_iter().enumerate().skip(first);
    let endpoint = |(number, key): (usize, String)| Endpoint {
        id: key.as_str().into(),
        hash_key: key.into(),
        weight: 1,
        is_healthy: true,
        place: place.clone(),
        target: number,
    };
    keys.map(endpoint).collect()
}
