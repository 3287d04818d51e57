//! Random numbers from a seed: the same seed draws the same numbers on every machine.

/// The generator SplitMix64.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Returns the generator of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to `end`, without `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.bits() % end).unwrap_or(0)
    }

    /// Returns true once in that many cases on average.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    /// Returns one of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }

    /// Returns that many of the numbers from 1 to `last`, each once.
    pub fn some(&mut self, count: usize, last: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (1..=last).collect();
        (0..count.min(last))
            .map(|_| left.remove(self.below(left.len())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn a_seed_draws_the_numbers_of_splitmix64() {
        let mut chance = Chance::of(1_234_567);
        let drawn = [chance.bits(), chance.bits(), chance.bits()];
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(drawn, published);
    }

    #[test]
    fn some_numbers_are_each_drawn_once() {
        let mut drawn = Chance::of(7).some(5, 5);
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 2, 3, 4, 5]);
        assert_eq!(Chance::of(7).some(9, 2).len(), 2);
    }
}
