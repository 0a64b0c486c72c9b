//! Further random numbers from one that the caller drew.

/// Generator of random numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound of more than 0, each equally likely.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product: no division. Sets of endpoints are far below 2^32, so that the bias is too.
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number from 0 to less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits, all that the type has.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
