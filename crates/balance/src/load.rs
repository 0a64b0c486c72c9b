//! Shares of levels: how much goes to farther endpoints because nearer ones are not enough (priority levels, the
//! overprovisioning factor and the panic threshold of Envoy, in its integer arithmetic).

/// Part of a level's endpoints that may be lost before traffic goes to the next level: all of it stays as long as
/// 1.4 x available / total is at least 1.
pub(crate) const OVERPROVISIONING_PERCENT: usize = 140;

/// Number of endpoints of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) available: usize,
    /// More than 0.
    pub(crate) total: usize,
}

/// Traffic of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// In percent; those of all levels add up to 100 unless no endpoint may be used.
    pub(crate) percent: u32,
    /// Too few endpoints are healthy, so that health is ignored.
    pub(crate) in_panic: bool,
}

/// Divides traffic among levels. `panic_percent` is the least share of healthy endpoints; 0: health is never ignored.
pub(crate) fn shares(levels: &[Count], panic_percent: u8) -> Vec<Share> {
    let health: Vec<_> = levels.iter().map(|level| availability(*level)).collect();
    let sum = health.iter().sum::<usize>().min(100);
    let is_poor = |level: &Count| level.available * 100 < level.total * usize::from(panic_percent);
    // With enough endpoints on all levels together, none is in panic.
    let panics: Vec<_> = levels.iter().map(|level| sum < 100 && is_poor(level)).collect();
    let percents = if !panics.is_empty() && panics.iter().all(|panics| *panics) {
        let total: usize = levels.iter().map(|level| level.total).sum();
        divide(levels.iter().map(|level| level.total * 100 / total))
    } else if sum == 0 {
        vec![0; levels.len()]
    } else {
        divide(health.iter().map(|health| health * 100 / sum))
    };
    let share = |(percent, in_panic): (usize, bool)| Share { percent: u32::try_from(percent).unwrap_or(100), in_panic };
    percents.into_iter().zip(panics).map(share).collect()
}

/// Availability of a level in percent, 100 at most.
pub(crate) fn availability(level: Count) -> usize {
    (level.available * OVERPROVISIONING_PERCENT / level.total.max(1)).min(100)
}

/// Gives out 100 % in order. What rounding leaves goes to the first that gets anything.
fn divide(wanted: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut left = 100;
    let mut given: Vec<_> = wanted
        .map(|wanted| {
            let part = wanted.min(left);
            left -= part;
            part
        })
        .collect();
    if let Some(first) = given.iter_mut().find(|part| **part > 0) {
        *first += left;
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percents(levels: &[(usize, usize)], panic: u8) -> Vec<u32> {
        let levels: Vec<_> =
            levels.iter().map(|(available, total)| Count { available: *available, total: *total }).collect();
        shares(&levels, panic).iter().map(|share| share.percent).collect()
    }

    #[test]
    fn a_level_keeps_all_traffic_down_to_five_sevenths_of_its_endpoints() {
        // The table of Envoy's documentation of priority levels.
        assert_eq!(percents(&[(100, 100), (100, 100)], 0), [100, 0]);
        assert_eq!(percents(&[(72, 100), (100, 100)], 0), [100, 0]);
        assert_eq!(percents(&[(71, 100), (100, 100)], 0), [99, 1]);
        assert_eq!(percents(&[(50, 100), (60, 100)], 0), [70, 30]);
        assert_eq!(percents(&[(25, 100), (100, 100)], 0), [35, 65]);
        assert_eq!(percents(&[(25, 100), (25, 100)], 0), [50, 50]);
        assert_eq!(percents(&[(5, 100), (0, 100), (10, 100)], 0), [34, 0, 66]);
        assert_eq!(percents(&[(0, 100), (0, 100)], 0), [0, 0]);
        assert_eq!(percents(&[(20, 100), (20, 100), (10, 100)], 0), [40, 40, 20]);
        assert_eq!(percents(&[], 0), [0; 0]);
    }

    #[test]
    fn below_the_least_share_of_healthy_endpoints_health_is_ignored() {
        let levels = |pairs: &[(usize, usize)]| -> Vec<_> {
            pairs.iter().map(|(available, total)| Count { available: *available, total: *total }).collect()
        };
        let both = shares(&levels(&[(1, 10), (2, 30)]), 50);
        assert!(both.iter().all(|share| share.in_panic));
        assert_eq!(both.iter().map(|share| share.percent).collect::<Vec<_>>(), [25, 75], "by their number");
        let first = shares(&levels(&[(1, 10), (10, 10)]), 50);
        assert!(first.iter().all(|share| !share.in_panic), "the second level has enough for all");
        let one = shares(&levels(&[(0, 10), (5, 10)]), 50);
        assert_eq!(one, [Share { percent: 0, in_panic: true }, Share { percent: 100, in_panic: false }]);
        assert!(shares(&levels(&[(0, 1)]), 0).iter().all(|share| !share.in_panic && share.percent == 0));
        assert_eq!(shares(&levels(&[(0, 1)]), 1), [Share { percent: 100, in_panic: true }]);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_all_and_an_empty_level_gets_nothing(
            levels in prop::collection::vec((0usize..200, 1usize..200), 1..6), panic in 0u8..=100,
        ) {
            let levels: Vec<_> =
                levels.into_iter().map(|(available, total)| Count { available: available.min(total), total }).collect();
            let shares = shares(&levels, panic);
            let sum: u32 = shares.iter().map(|share| share.percent).sum();
            let usable = shares.iter().zip(&levels).any(|(share, level)| share.in_panic || availability(*level) > 0);
            prop_assert_eq!(sum, if usable && sum > 0 { 100 } else { 0 });
            for (share, level) in shares.iter().zip(&levels) {
                prop_assert!(share.percent == 0 || share.in_panic || level.available > 0);
            }
            if levels.iter().any(|level| availability(*level) > 0) {
                prop_assert_eq!(sum, 100);
            }
        }
    }
}
