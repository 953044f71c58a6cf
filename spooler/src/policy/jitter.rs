//! Spreading things out by chance that can be replayed: SplitMix64 from a seed.

/// A source of chance that gives the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number drawn.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A duration between three quarters and five quarters of `ms`.
    pub fn around_ms(&mut self, ms: i64) -> i64 {
        let quarter = ms / 4;
        let span = u64::try_from(quarter * 2 + 1).unwrap_or(1).max(1);
        let offset = i64::try_from(self.draw() % span).unwrap_or(0);
        ms - quarter + offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_a_quarter_and_replays() {
        let mut first = Jitter::new(1);
        let mut second = Jitter::new(1);
        for _ in 0..1000 {
            let ms = first.around_ms(1000);
            assert!((750..=1250).contains(&ms), "{ms}");
            assert_eq!(ms, second.around_ms(1000));
        }
        assert_eq!(first.around_ms(0), 0);
    }
}
