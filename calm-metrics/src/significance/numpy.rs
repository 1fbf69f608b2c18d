//! numpy's default generator: PCG64 (O'Neill 2014, XSL-RR output), seeded by its `SeedSequence`.

/// A generator that gives the same numbers as `numpy.random.default_rng(seed)`.
pub(super) struct Generator {
    state: u128,
    increment: u128,
    /// The upper half of a 64-bit output of which the lower half was used.
    kept: Option<u32>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let wide = |first: usize| u128::from(words[first]) << 64 | u128::from(words[first + 1]);
        let mut generator = Self { state: 0, increment: wide(2) << 1 | 1, kept: None };
        generator.step();
        generator.state = generator.state.wrapping_add(wide(0));
        generator.step();
        generator
    }

    /// Draws a number from 0 to `bound - 1` as `choice` and `integers` do (Lemire 2019).
    ///
    /// `bound` is at least 1.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // numpy draws nothing where there is nothing to choose.
        if bound == 1 {
            return 0;
        }
        let too_low = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if product as u32 >= too_low {
                return (product >> 32) as u32;
            }
        }
    }

    /// Draws as `integers(2, dtype=bool)` does: the bits of the outputs, the lowest first.
    pub(super) fn flags(mut self) -> impl Iterator<Item = bool> {
        std::iter::repeat_with(move || self.next_u32())
            .flat_map(|word| (0..32).map(move |bit| word >> bit & 1 == 1))
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let output = folded.rotate_right((self.state >> 122) as u32);
        self.kept = Some((output >> 32) as u32);
        output as u32
    }

    fn step(&mut self) {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }
}

/// Computes numpy's `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let mut hash = Hash { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(|word| hash.of(word));
    for source in 0..pool.len() {
        for target in (0..pool.len()).filter(|&target| target != source) {
            let mixed = pool[target]
                .wrapping_mul(0xca01_f9dd)
                .wrapping_sub(hash.of(pool[source]).wrapping_mul(0x4973_f715));
            pool[target] = mixed ^ mixed >> 16;
        }
    }
    let mut hash = Hash { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
    let mut words = pool.into_iter().cycle().map(|word| u64::from(hash.of(word)));
    std::array::from_fn(|_| words.next().unwrap_or(0) | words.next().unwrap_or(0) << 32)
}

struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.constant);
        word ^ word >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::Generator;

    #[test]
    fn draws_what_numpy_draws() {
        #[derive(serde::Deserialize)]
        struct Golden {
            numpy: Vec<Case>,
        }
        #[derive(serde::Deserialize)]
        struct Case {
            seed: u64,
            bound: u32,
            indices: Vec<u32>,
            flags: Vec<u8>,
        }
        let Golden { numpy } = serde_json::from_str(include_str!("../../tests/golden/golden.json")).unwrap();
        for Case { seed, bound, indices, flags } in numpy {
            let mut generator = Generator::new(seed);
            assert!(
                indices.iter().all(|&index| generator.below(bound) == index),
                "seed {seed}, bound {bound}"
            );
            assert!(Generator::new(seed).flags().zip(&flags).all(|(a, &b)| a == (b == 1)), "seed {seed}");
        }
    }
}
