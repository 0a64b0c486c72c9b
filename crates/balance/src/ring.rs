//! Ring of hashes, as Envoy's `RING_HASH`: endpoint `KEY` has the points xxHash64(`KEY_0`), `KEY_1`, ...; a request goes to
//! the first point at or behind its hash.

use xxhash_rust::xxh64::xxh64;

/// Most points that a ring gets because weights differ. A larger minimum size of the user's is kept. 16 bytes for each.
const MAX_POINTS: f64 = 1_048_576.0;

/// An endpoint with its share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) key: &'a str,
    pub(crate) host: u32,
    /// More than 0; all together are 1.
    pub(crate) weight: f64,
}

/// Points in the order of their hashes.
#[derive(Debug)]
pub(crate) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// Places members, which must be in the same order on every replica.
    pub(crate) fn new(members: &[Member<'_>], minimum_size: u32) -> Self {
        let Some(least) = members.iter().map(|member| member.weight).reduce(f64::min) else { return Self(Vec::new()) };
        let minimum = f64::from(minimum_size);
        // The member of the least weight gets a whole number of points.
        let scale = ((least * minimum).ceil() / least).min(MAX_POINTS.max(minimum));
        let mut points = Vec::new();
        let mut key = String::new();
        // Sums over all members, so that fractions of points do not get lost.
        let (mut placed, mut wanted) = (0.0, 0.0);
        for member in members {
            wanted += scale * member.weight;
            let mut index = 0u32;
            while placed < wanted {
                key.clear();
                key.push_str(member.key);
                key.push('_');
                key.push_str(&index.to_string());
                points.push((xxh64(key.as_bytes(), 0), member.host));
                index += 1;
                placed += 1.0;
            }
        }
        points.sort_unstable();
        Self(points)
    }

    /// The host of a hash. `None` for an empty ring.
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let at = self.0.partition_point(|(point, _)| *point < hash);
        self.0.get(at).or_else(|| self.0.first()).map(|(_, host)| *host)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{keys, members};

    #[test]
    fn points_are_hashes_of_key_and_number() {
        let keys = ["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()];
        let ring = Ring::new(&members(&keys, &[1, 1]), 4);
        assert_eq!(ring.0.len(), 4);
        for (key, host) in keys.iter().zip(0u32..) {
            for index in 0..2 {
                let point = xxh64(format!("{key}_{index}").as_bytes(), 0);
                assert_eq!(ring.find(point), Some(host));
                assert!(ring.0.contains(&(point, host)));
            }
        }
        let (last, first) = (ring.0[3].0, ring.0[0].1);
        assert_eq!(ring.find(last + 1), Some(first), "the ring closes");
        assert_eq!(Ring::new(&[], 1024).find(7), None);
    }

    #[test]
    fn numbers_of_points_follow_weights_and_stay_bounded() {
        let keys = keys(3);
        let ring = Ring::new(&members(&keys, &[1, 2, 5]), 1024);
        let mut points = BTreeMap::<u32, usize>::new();
        ring.0.iter().for_each(|(_, host)| *points.entry(*host).or_default() += 1);
        assert_eq!(points.into_values().collect::<Vec<_>>(), [128, 256, 640]);
        let ring = Ring::new(&members(&keys, &[1, 1, u32::MAX]), 1024);
        assert!(ring.0.len() <= 1_048_577, "{}", ring.0.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_host_that_leaves_moves_only_its_own_requests(count in 2usize..40, leaving in 0usize..40, seed: u64) {
            let keys = keys(count);
            let leaving = u32::try_from(leaving % count).unwrap();
            // Whole points for each host, so that none gets another number of them.
            let size = u32::try_from(count * 50).unwrap();
            let smaller = u32::try_from((count - 1) * 50).unwrap();
            let all = members(&keys, &vec![1; count]);
            let left: Vec<_> = all.iter().filter(|member| member.host != leaving).copied()
                .map(|member| Member { weight: 1.0 / (count - 1) as f64, ..member }).collect();
            let (before, after) = (Ring::new(&all, size), Ring::new(&left, smaller));
            let mut random = crate::random::Random::new(seed);
            for _ in 0..200 {
                let hash = random.next();
                let (was, is) = (before.find(hash).unwrap(), after.find(hash).unwrap());
                prop_assert!(is != leaving && (was == leaving || was == is));
            }
        }
    }
}
