//! The generator of everything random in training, and its streams.
//!
//! The same seed gives the same bits on every CPU and system. ChaCha and shuffles are integer
//! arithmetic, on 32 bits for fewer than 2³² − 1 samples, and a uniform draw is an integer times a
//! power of two. Normal draws are in `normal`.

use std::convert::Infallible;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{SeedableRng, TryRng};

/// The generator of everything random in training: ChaCha8, a published standard. The same seed
/// gives the same numbers in every release, on every system.
///
/// It is also a generator of the crate `rand` (0.10), whose methods draw whatever else is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator(pub(crate) ChaCha8Rng);

impl Generator {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Goes to the beginning of another stream of the same seed; streams share no numbers.
    pub fn set_stream(&mut self, stream: u64) {
        self.0.set_stream(stream);
    }
}

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

impl SeedableRng for Generator {
    type Seed = <ChaCha8Rng as SeedableRng>::Seed;

    fn from_seed(seed: Self::Seed) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    fn seed_from_u64(seed: u64) -> Self {
        Self::new(seed)
    }
}

/// The purpose that random numbers are drawn for. Each has a stream of its own, so the weights and
/// the shuffles of one seed do not share numbers, and a split changes neither.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Weights = 0,
    Split = 1,
    Shuffles = 2,
}

/// The generator of a seed and a purpose, at the beginning of its stream.
pub(crate) fn generator(seed: u64, stream: Stream) -> Generator {
    let mut generator = Generator::new(seed);
    generator.set_stream(stream as u64);
    generator
}

/// The generator for one of several parts of the data, of which each has a stream of its own; the
/// first has the stream of the whole.
pub(crate) fn generator_of_part(seed: u64, stream: Stream, part: usize) -> Generator {
    const STREAMS: u64 = 16;
    let mut generator = Generator::new(seed);
    generator.set_stream(stream as u64 + STREAMS * part as u64);
    generator
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng;

    /// What a generator gives is the stream of ChaCha8, and weights are drawn from its beginning.
    #[test]
    fn a_generator_is_its_published_stream() {
        let (mut generator, mut expected) = (Generator::new(7), ChaCha8Rng::seed_from_u64(7));
        for _ in 0..4 {
            assert_eq!(generator.next_u64(), expected.next_u64());
            assert_eq!(generator.next_u32(), expected.next_u32());
            assert_eq!(generator.uniform(), (expected.next_u64() >> 11) as f64 / (1_u64 << 53) as f64);
        }
        assert_eq!(Generator::new(7).normal(), generator_of_weights().normal());
        assert_eq!(Generator::seed_from_u64(7), Generator::new(7));
    }

    fn generator_of_weights() -> Generator {
        generator(7, Stream::Weights)
    }

    /// A seed must give the same run in every release, so the streams of the purposes are fixed.
    #[test]
    fn each_purpose_has_the_stream_of_its_number() {
        for (number, stream) in [(0, Stream::Weights), (1, Stream::Split), (2, Stream::Shuffles)] {
            let mut expected = ChaCha8Rng::seed_from_u64(7);
            expected.set_stream(number);
            let mut found = generator(7, stream);
            for _ in 0..4 {
                assert_eq!(found.next_u64(), expected.next_u64(), "{stream:?}");
            }
        }
    }
}
