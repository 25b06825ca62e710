//! The one source of chance: a seed gives the same plan every time.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A generator of 64-bit numbers (SplitMix64): small, quick, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator, for the part of the work with this number: what one part draws does not shift another's.
    #[must_use]
    pub fn branch(&self, part: u64) -> Self {
        let mut seed = Self(self.0 ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(seed.number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end() - range.start() + 1;
        range.start() + self.number() % span
    }

    /// A number of the range, as an index or a count.
    pub fn count(&mut self, range: RangeInclusive<usize>) -> usize {
        // The ranges of a plan are small.
        self.within(*range.start() as u64..=*range.end() as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(1..=100) <= percent
    }

    /// A time of so many milliseconds, to the microsecond.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.within(range.start() * 1_000..=range.end() * 1_000))
    }

    /// One of the choices, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.count(0..=choices.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_branches_differ() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        assert!((0..10).all(|_| one.number() == two.number()));
        assert_ne!(Random::new(7).branch(1).number(), Random::new(7).branch(2).number());
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..200).map(|_| random.within(3..=5)).collect();
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!([3, 4, 5].iter().all(|number| drawn.contains(number)));
    }
}
