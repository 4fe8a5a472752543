//! The generator of everything random in training, and its streams.
//!
//! The same seed gives the same bits on every CPU and system. ChaCha and shuffles are integer
//! arithmetic, on 32 bits for fewer than 2³² − 1 samples, and a uniform draw is an integer times a
//! power of two. Normal draws are in `normal`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The generator of everything random in training: ChaCha8, a published standard.
pub type Generator = ChaCha8Rng;

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
    let mut generator = Generator::seed_from_u64(seed);
    generator.set_stream(stream as u64);
    generator
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng;

    /// A seed must give the same run in every release, so the streams of the purposes are fixed.
    #[test]
    fn each_purpose_has_the_stream_of_its_number() {
        for (number, stream) in [(0, Stream::Weights), (1, Stream::Split), (2, Stream::Shuffles)] {
            let mut expected = Generator::seed_from_u64(7);
            expected.set_stream(number);
            let mut found = generator(7, stream);
            for _ in 0..4 {
                assert_eq!(found.next_u64(), expected.next_u64(), "{stream:?}");
            }
        }
    }
}
