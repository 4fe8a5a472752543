//! Rank correlation with its uncertainty, and the verdict rule, which was written down before the
//! experiments were run.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A value in a resample, with its cluster and the draw that it came by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drawn<T> {
    pub cluster: usize,
    pub draw: usize,
    pub value: T,
}

/// Kendall's τ-b of points: (concordant − discordant) / √((pairs not tied in x)(pairs not tied in
/// y)) (Kendall 1945). `None` if all x or all y are equal.
///
/// If a cluster was drawn twice, no pairs are formed between the two draws: they would count as
/// pairs of different clusters, but runs of one seed are more alike.
pub fn kendall(points: &[Drawn<(f64, f64)>]) -> Option<f64> {
    let (mut score, mut untied_x, mut untied_y) = (0.0, 0.0, 0.0);
    for (i, a) in points.iter().enumerate() {
        for b in points[..i].iter().filter(|b| a.cluster != b.cluster || a.draw == b.draw) {
            let (x, y) = (sign(a.value.0 - b.value.0), sign(a.value.1 - b.value.1));
            score += x * y;
            untied_x += x * x;
            untied_y += y * y;
        }
    }
    let scale = f64::sqrt(untied_x * untied_y);
    (scale > 0.0).then(|| score / scale)
}

/// −1, 0 or 1; `f64::signum` has no 0.
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// A statistic with its 95 % interval by the percentile bootstrap (Efron 1979).
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Resamples the clusters with replacement: the runs of one seed share their data order and
/// initialisation and stay together.
pub fn bootstrap<T: Copy>(clusters: &[Vec<T>], statistic: impl Fn(&[Drawn<T>]) -> Option<f64>) -> Option<Interval> {
    const RESAMPLES: usize = 2000;
    let of = |chosen: &[usize]| {
        let drawn = chosen
            .iter()
            .enumerate()
            .flat_map(|(draw, &cluster)| clusters[cluster].iter().map(move |&value| Drawn { cluster, draw, value }));
        statistic(&drawn.collect::<Vec<_>>())
    };
    let mut chosen: Vec<usize> = (0..clusters.len()).collect();
    let value = of(&chosen)?;
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let mut values: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            chosen.fill_with(|| generator.random_range(0..clusters.len()));
            of(&chosen)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    Some(Interval { value, low: at(0.025), high: at(0.975) })
}

/// What a correlation of sharpness and test error says about "flat minima generalise better".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Supports,
    Contradicts,
    Inconclusive,
}

/// The rule: the claim is supported if sharper minima have the larger test error both over all runs
/// and among runs of the same learning rate, each with an interval above 0; contradicted if both
/// intervals lie below 0; in all other cases nothing is concluded. (Within one learning rate,
/// because the rate alone moves both.)
pub fn verdict(over_all: Option<Interval>, within: Option<Interval>) -> Verdict {
    match (over_all, within) {
        (Some(a), Some(b)) if a.low > 0.0 && b.low > 0.0 => Verdict::Supports,
        (Some(a), Some(b)) if a.high < 0.0 && b.high < 0.0 => Verdict::Contradicts,
        _ => Verdict::Inconclusive,
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Supports => "supports",
            Self::Contradicts => "contradicts",
            Self::Inconclusive => "inconclusive",
        })
    }
}
