//! Choice of an endpoint for a request or a connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hash::HashKey;
use super::locality::LocalityBalancing;

/// A number in millionths: 1 000 000 is 1.0, or 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millionths(pub u32);

impl Millionths {
    pub const ONE: Self = Self(1_000_000);

    /// Reads a number; finer than a millionth is rounded. `None` below 0, above 4294.967295, or for no number.
    pub fn new(value: f64) -> Option<Self> {
        let scaled = (value * 1e6).round();
        // Within the range of the type, so that nothing is lost.
        (0.0..=f64::from(u32::MAX)).contains(&scaled).then_some(Self(scaled as u32))
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// Load balancing of one set of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoadBalancer {
    pub algorithm: Algorithm,
    pub locality: LocalityBalancing,
    /// Less traffic for endpoints that are new. `None`: all of it at once. Always `None` unless the algorithm is round robin
    /// or least request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
}

/// Rule by which an endpoint is chosen from those that are equally near.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Algorithm {
    /// Of two endpoints drawn at random the one with fewer active requests. Istio's default.
    #[default]
    LeastRequest,
    /// One after the other, in proportion to their weights.
    RoundRobin,
    /// By a random number, in proportion to their weights.
    Random,
    /// The address that the client has connected to. On a waypoint that is the service's: it is resolved as `LeastRequest`,
    /// and the compiler reports it.
    Passthrough,
    /// The same one for the same key.
    ConsistentHash { key: HashKey, table: HashTable },
}

/// Table of a consistent hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum HashTable {
    /// Ring of hashes of each endpoint.
    Ring {
        /// Least number of hashes on the ring; 1 to 8 388 608.
        minimum_size: u32,
    },
    /// Table of Maglev's algorithm.
    Maglev {
        /// Number of entries: a prime, 2 to 5 000 011.
        size: u32,
    },
}

impl HashTable {
    /// Least size of a ring that Istio sets.
    pub const DEFAULT_RING_SIZE: u32 = 1024;
    /// Largest ring, Envoy's bound.
    pub const MAX_RING_SIZE: u32 = 8 * 1024 * 1024;
    /// Envoy's default.
    pub const DEFAULT_MAGLEV_SIZE: u32 = 65_537;
    /// Envoy's bound.
    pub const MAX_MAGLEV_SIZE: u32 = 5_000_011;
}

impl Default for HashTable {
    fn default() -> Self {
        Self::Ring { minimum_size: Self::DEFAULT_RING_SIZE }
    }
}

/// Growth of a new endpoint's share: its weight is multiplied by max(minimum, (age / duration) ^ (1 / aggression)) until it
/// is as old as the duration (slow start of Envoy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmUp {
    /// More than 0.
    pub duration: Duration,
    /// 0 to 1.
    #[serde(default = "minimum")]
    pub minimum: Millionths,
    /// 1 or more; 1 grows in a straight line, more grows faster at first.
    #[serde(default = "aggression")]
    pub aggression: Millionths,
}

const fn minimum() -> Millionths {
    Millionths(100_000)
}

const fn aggression() -> Millionths {
    Millionths::ONE
}

impl WarmUp {
    /// Growth in a straight line from 10 %.
    pub const fn new(duration: Duration) -> Self {
        Self { duration, minimum: minimum(), aggression: aggression() }
    }
}
