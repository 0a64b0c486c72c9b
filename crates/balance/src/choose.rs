//! Choice among endpoints that are equally near: round robin, random, least request. Everything is read-only except one
//! counter, so that workers share it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::Random;

/// Draws that a warm-up may refuse before one is taken as it is.
const MAX_REFUSALS: usize = 16;

/// Endpoints with their weights.
#[derive(Debug)]
pub(crate) struct Group {
    hosts: Vec<u32>,
    weights: Weights,
    turn: Turn,
}

/// Number of the next turn of round robin, in a cache line of its own: the rest is only read.
#[derive(Debug)]
#[repr(align(64))]
struct Turn(AtomicU64);

#[derive(Debug)]
enum Weights {
    Equal,
    Different { weights: Vec<u32>, most: u32, alias: Alias },
}

impl Group {
    /// Hosts with weights of more than 0. `start` is the number of the first turn.
    pub(crate) fn new(members: &[(u32, u32)], start: u64) -> Self {
        let hosts = members.iter().map(|(host, _)| *host).collect();
        let weights: Vec<_> = members.iter().map(|(_, weight)| *weight).collect();
        let most = weights.iter().copied().max().unwrap_or(1);
        let weights = if weights.iter().all(|weight| *weight == most) {
            Weights::Equal
        } else {
            let alias = Alias::new(&weights);
            Weights::Different { weights, most, alias }
        };
        // Below 2^32: turns are multiplied with weights of 32 bits.
        Self { hosts, weights, turn: Turn(AtomicU64::new(start >> 32)) }
    }

    pub(crate) fn hosts(&self) -> &[u32] {
        &self.hosts
    }

    /// The host whose turn it is. Over as many rounds as the greatest weight, each has exactly as many turns as its weight.
    ///
    /// In round r the host with number i has a turn if floor((r + 1) x weight / most + shift) is greater than
    /// floor(r x weight / most + shift); the shift, another one for each host, spreads those of small weights over rounds.
    /// `factor` makes weights smaller while hosts are new.
    pub(crate) fn round_robin(&self, factor: Option<impl Fn(u32) -> f64>) -> Option<u32> {
        let count = self.hosts.len() as u64;
        // The host of the greatest weight has a turn in each round; only a warm-up can refuse it.
        for _ in 0..2 * count + 1 {
            let turn = self.turn.0.fetch_add(1, Ordering::Relaxed);
            let number = turn.checked_rem(count)?;
            let host = self.hosts[number as usize];
            if self.has_turn(number, turn / count, factor.as_ref().map(|factor| factor(host))) {
                return Some(host);
            }
        }
        let turn = self.turn.0.load(Ordering::Relaxed);
        Some(self.hosts[turn.checked_rem(count)? as usize])
    }

    fn has_turn(&self, number: u64, round: u64, factor: Option<f64>) -> bool {
        let (weight, most) = match &self.weights {
            Weights::Equal => (1, 1),
            Weights::Different { weights, most, .. } => (weights[number as usize], *most),
        };
        let factor = factor.unwrap_or(1.0);
        if weight == most && factor >= 1.0 {
            return true;
        }
        // Thousandths, so that a factor does not need fractions.
        let scale = if factor < 1.0 { 1000 } else { 1 };
        let weight = if factor < 1.0 { (f64::from(weight) * factor * 1000.0) as u64 } else { weight.into() };
        let most = u64::from(most) * scale;
        let shift = number.wrapping_mul(0x9E37_79B9) % most;
        // Rounds repeat after `most` of them.
        let before = u128::from(round % most) * u128::from(weight) + u128::from(shift);
        (before + u128::from(weight)) / u128::from(most) > before / u128::from(most)
    }

    /// A host in proportion to the weights.
    pub(crate) fn random(&self, factor: Option<impl Fn(u32) -> f64>, random: &mut Random) -> Option<u32> {
        self.draw(factor.as_ref(), random).map(|number| self.hosts[number])
    }

    /// Of two hosts that are drawn in proportion to the weights the one with fewer active requests for its weight, the first
    /// one if both have as many. So a host never gets more than twice its share, and without load exactly its share.
    pub(crate) fn least_request(
        &self,
        factor: Option<impl Fn(u32) -> f64>,
        active: impl Fn(u32) -> u32,
        random: &mut Random,
    ) -> Option<u32> {
        let first = self.draw(factor.as_ref(), random)?;
        let mut second = self.draw(factor.as_ref(), random)?;
        let is_even = factor.is_none() && matches!(self.weights, Weights::Equal);
        if is_even && second == first {
            // Any other host, each equally likely. With weights that would give more to those of small weight.
            second = (first + 1 + random.below((self.hosts.len() - 1).max(1))) % self.hosts.len();
        }
        let (one, other) = (self.hosts[first], self.hosts[second]);
        let (of_one, of_other) = (active(one), active(other));
        let is_better = if is_even {
            of_other < of_one
        } else {
            let factor = |host| factor.as_ref().map_or(1.0, |factor| factor(host));
            let weight = |number, host| f64::from(self.weight(number)) * factor(host);
            f64::from(of_other) * weight(first, one) < f64::from(of_one) * weight(second, other)
        };
        Some(if is_better { other } else { one })
    }

    fn weight(&self, number: usize) -> u32 {
        match &self.weights {
            Weights::Equal => 1,
            Weights::Different { weights, .. } => weights[number],
        }
    }

    /// Number of a host that is drawn in proportion to the weights.
    fn draw(&self, factor: Option<impl Fn(u32) -> f64>, random: &mut Random) -> Option<usize> {
        if self.hosts.is_empty() {
            return None;
        }
        let mut number = self.draw_cold(random);
        let Some(factor) = factor else { return Some(number) };
        for _ in 0..MAX_REFUSALS {
            if random.unit() < factor(self.hosts[number]) {
                break;
            }
            number = self.draw_cold(random);
        }
        Some(number)
    }

    /// As [`Self::draw`], for a group with hosts and without regard to a warm-up.
    fn draw_cold(&self, random: &mut Random) -> usize {
        match &self.weights {
            Weights::Equal => random.below(self.hosts.len()),
            Weights::Different { alias, .. } => alias.draw(random),
        }
    }
}

/// Table for draws in proportion to weights in constant time (Walker's alias method, in whole numbers).
#[derive(Debug)]
struct Alias {
    /// Of each column, the part that is its own, of `total`; the rest belongs to another one.
    columns: Vec<(u64, usize)>,
    total: u64,
}

impl Alias {
    fn new(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let count = weights.len() as u64;
        // Each weight times the number of columns: on average a column is exactly full. Below 2^64 for 2^32 / 2^32.
        let mut left: Vec<u128> = weights.iter().map(|weight| u128::from(*weight) * u128::from(count)).collect();
        let full = u128::from(total);
        let mut columns = vec![(total, 0); weights.len()];
        let (mut small, mut large): (Vec<_>, Vec<_>) = (0..weights.len()).partition(|number| left[*number] < full);
        while let (Some(lesser), Some(greater)) = (small.pop(), large.pop()) {
            columns[lesser] = (left[lesser] as u64, greater);
            left[greater] -= full - left[lesser];
            if left[greater] < full { small.push(greater) } else { large.push(greater) }
        }
        Self { columns, total }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len());
        let (own, other) = self.columns[column];
        let point = ((u128::from(random.next()) * u128::from(self.total)) >> 64) as u64;
        if point < own { column } else { other }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type NoFactor = fn(u32) -> f64;
    const WARM: Option<NoFactor> = None;

    fn group(weights: &[u32], start: u64) -> Group {
        let members: Vec<_> = (0..).zip(weights.iter().copied()).collect();
        Group::new(&members, start)
    }

    fn counts(weights: &[u32], picks: usize, mut pick: impl FnMut() -> Option<u32>) -> Vec<u32> {
        let mut counts = vec![0; weights.len()];
        (0..picks).for_each(|_| counts[pick().unwrap() as usize] += 1);
        counts
    }

    fn near(counts: &[u32], weights: &[u32]) {
        let (picks, total): (u32, u32) = (counts.iter().sum(), weights.iter().sum());
        for (count, weight) in counts.iter().zip(weights) {
            let share = f64::from(*weight) / f64::from(total);
            // Four standard deviations of the binomial distribution.
            let bound = 4.0 * (f64::from(picks) * share * (1.0 - share)).sqrt() + 1.0;
            let distance = (f64::from(*count) - f64::from(picks) * share).abs();
            assert!(distance <= bound, "{count} picks of weight {weight} among {counts:?}");
        }
    }

    #[test]
    fn nobody_is_chosen_from_an_empty_group() {
        let empty = group(&[], 0);
        assert_eq!(empty.round_robin(WARM), None);
        assert_eq!(empty.random(WARM, &mut Random::new(1)), None);
        assert_eq!(empty.least_request(WARM, |_| 0, &mut Random::new(1)), None);
    }

    #[test]
    fn equal_hosts_take_turns_in_order() {
        let three = group(&[7, 7, 7], 0);
        let order: Vec<_> = (0..6).map(|_| three.round_robin(WARM).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn draws_follow_weights() {
        let weights = [1, 2, 3, 94];
        let of = group(&weights, 0);
        let mut random = Random::new(11);
        near(&counts(&weights, 100_000, || of.random(WARM, &mut random)), &weights);
    }

    #[test]
    fn of_two_hosts_the_one_with_fewer_requests_is_taken() {
        let of = group(&[1, 1], 0);
        let mut random = Random::new(3);
        assert!((0..1000).all(|_| of.least_request(WARM, |host| 5 - host, &mut random) == Some(1)));
        let four = group(&[1; 4], 0);
        let busy = counts(&[1; 4], 6000, || four.least_request(WARM, |host| host, &mut random));
        // Of six pairs, host 0 wins three, host 1 two, host 2 one.
        near(&busy, &[3, 2, 1, 0]);
    }

    #[test]
    fn load_counts_in_proportion_to_weights() {
        let of = group(&[1, 9], 0);
        let mut random = Random::new(5);
        near(&counts(&[1, 9], 20_000, || of.least_request(WARM, |_| 0, &mut random)), &[1, 9]);
        let in_balance = |host| if host == 0 { 10 } else { 90 };
        near(&counts(&[1, 9], 20_000, || of.least_request(WARM, in_balance, &mut random)), &[1, 9]);
        let busy = |host| if host == 0 { 0 } else { 90 };
        // In a pair with probability 1 - 0.9^2.
        near(&counts(&[1, 9], 20_000, || of.least_request(WARM, busy, &mut random)), &[19, 81]);
        let cold = Some(|host: u32| if host == 0 { 0.25 } else { 1.0 });
        let even = group(&[1, 1], 0);
        near(&counts(&[1, 1], 20_000, || even.least_request(cold, |_| 0, &mut random)), &[1, 4]);
    }

    #[test]
    fn a_warm_up_makes_shares_smaller() {
        let of = group(&[1, 1], 0);
        let factor = Some(|host: u32| if host == 0 { 0.25 } else { 1.0 });
        let mut random = Random::new(3);
        near(&counts(&[1, 4], 50_000, || of.random(factor, &mut random)), &[1, 4]);
        assert_eq!(counts(&[1, 4], 5000, || of.round_robin(factor)), [1000, 4000]);
        let all_new = Some(|_: u32| 0.0);
        assert!(of.random(all_new, &mut random).is_some() && of.round_robin(all_new).is_some());
    }

    proptest! {
        #[test]
        fn turns_are_exactly_the_weights(weights in prop::collection::vec(1u32..40, 1..20), start: u64, times in 1usize..4) {
            let of = group(&weights, start);
            let total = weights.iter().sum::<u32>() as usize;
            // Up to the beginning of a round.
            while !of.turn.0.load(Ordering::Relaxed).is_multiple_of(weights.len() as u64) {
                of.turn.0.fetch_add(1, Ordering::Relaxed);
            }
            let expected: Vec<_> = weights.iter().map(|weight| weight * times as u32).collect();
            prop_assert_eq!(counts(&weights, total * times, || of.round_robin(WARM)), expected);
        }

        #[test]
        fn columns_hold_exactly_the_weights(weights in prop::collection::vec(1u32..1000, 2..50)) {
            let alias = Alias::new(&weights);
            let mut held = vec![0u64; weights.len()];
            for (number, (own, other)) in alias.columns.iter().enumerate() {
                held[number] += own;
                held[*other] += alias.total - own;
            }
            let expected: Vec<_> = weights.iter().map(|weight| u64::from(*weight) * weights.len() as u64).collect();
            prop_assert_eq!(held, expected);
        }
    }
}
