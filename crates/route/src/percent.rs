//! Shares of requests.

use serde::{Serialize, Serializer};

const MILLION: u32 = 1_000_000;

/// Share of requests in parts per million, at most all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    pub const ALL: Self = Self(MILLION);
    pub const NONE: Self = Self(0);

    /// Reads a percentage; finer than 0.0001 % is cut off. `None` below 0, above 100 or for no number.
    pub fn new(percent: f64) -> Option<Self> {
        // Within the range, so that nothing is lost but the fraction.
        (0.0..=100.0).contains(&percent).then_some(Self((percent * 10_000.0 + 1e-6) as u32))
    }

    /// Share of `numerator` in `denominator`. `None` for a denominator of 0 and for more than all.
    pub fn of(numerator: u32, denominator: u32) -> Option<Self> {
        let parts = (u64::from(numerator) * u64::from(MILLION)).checked_div(denominator.into())?;
        u32::try_from(parts).ok().filter(|parts| *parts <= MILLION).map(Self)
    }

    /// The share in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Returns true if a request that drew this random number is in the share.
    pub const fn includes(self, random: u64) -> bool {
        random % (MILLION as u64) < self.0 as u64
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 10_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_to_a_millionth() {
        for (percent, expected) in [
            (0.0, Some(0)),
            (100.0, Some(1_000_000)),
            (0.1, Some(1_000)),
            (0.0001, Some(1)),
            (0.000_01, Some(0)),
            (33.3, Some(333_000)),
            (57.13, Some(571_300)),
            (100.1, None),
            (-1.0, None),
            (f64::NAN, None),
        ] {
            assert_eq!(Percent::new(percent).map(|share| share.0), expected, "{percent}");
        }
        assert_eq!(Percent::of(1, 3).map(|share| share.0), Some(333_333));
        assert_eq!((Percent::of(1, 0), Percent::of(2, 1)), (None, None));
        assert_eq!(Percent::of(u32::MAX, u32::MAX), Some(Percent::ALL));
    }

    #[test]
    fn all_and_none_are_certain() {
        for random in [0, 1, 999_999, 1_000_000, u64::MAX] {
            assert!(Percent::ALL.includes(random) && !Percent::NONE.includes(random), "{random}");
        }
        let hits = (0..2_000_000).filter(|random| Percent::new(10.0).unwrap().includes(*random)).count();
        assert_eq!(hits, 200_000);
    }
}
