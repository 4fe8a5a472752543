//! Rank correlation with its uncertainty, and the rule for a verdict. The rule was committed before
//! the runs that it judges.

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

/// Kendall's partial τ of x and y given z, from the τ of the three pairs (Kendall 1942): (τ_xy −
/// τ_xz τ_yz) / √((1 − τ_xz²)(1 − τ_yz²)). A z that does not vary explains nothing. `None` without
/// τ_xy, or if z orders x or y completely.
pub fn partial(xy: Option<f64>, xz: Option<f64>, yz: Option<f64>) -> Option<f64> {
    let (Some(xz), Some(yz)) = (xz, yz) else { return xy };
    let scale = f64::sqrt((1.0 - xz * xz) * (1.0 - yz * yz));
    (scale > 0.0).then_some((xy? - xz * yz) / scale)
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

/// A statistic with its interval by the percentile bootstrap (Efron 1979).
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Resamples: of an interval of [`CONFIDENCE`], 25 lie beyond each end.
pub const RESAMPLES: usize = 10_000;

/// Resamples the clusters with replacement: the runs of one seed share their data order and
/// initialisation and stay together. `confidence` is the share of the resamples inside.
pub fn bootstrap<T: Copy>(
    clusters: &[Vec<T>],
    confidence: f64,
    statistic: impl Fn(&[Drawn<T>]) -> Option<f64>,
) -> Option<Interval> {
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
    Some(Interval { value, low: at(0.5 - 0.5 * confidence), high: at(0.5 + 0.5 * confidence) })
}

/// The verdicts of one experiment: five measures, each with the test error and the test loss.
pub const VERDICTS: usize = 10;

/// Bonferroni's correction: each interval of a verdict has the confidence 1 − 0.05/10, so that,
/// however the verdicts depend on each other, the chance that any of the ten says "supports" or
/// "contradicts" without reason is at most 0.05, as far as the intervals keep what they promise.
/// The three intervals of one verdict need no further correction, since all of them must agree.
pub const CONFIDENCE: f64 = 1.0 - 0.05 / VERDICTS as f64;

/// What the correlations of sharpness with the test error, or with the test loss, say about "flat
/// minima generalise better".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Supports,
    Contradicts,
    Mixed,
    Inconclusive,
}

/// The rule. τ is taken over all runs, among runs of the same η, and among runs of the same η and
/// B, all at the same training loss, each with an interval of [`CONFIDENCE`]. The claim is
/// supported if sharper minima do worse in all three senses, so if all intervals lie above 0;
/// contradicted if all lie below 0. If one lies above and one below, the verdict is "mixed":
/// what holds between settings is reversed within them. In all other cases nothing is concluded.
///
/// The second and the third τ are asked for because η and B move sharpness and error both: over all
/// runs they alone could make the correlation, and a claim about minima must hold between minima
/// that were found in the same way.
pub fn verdict(intervals: [Option<Interval>; 3]) -> Verdict {
    let above = intervals.iter().flatten().filter(|interval| interval.low > 0.0).count();
    let below = intervals.iter().flatten().filter(|interval| interval.high < 0.0).count();
    match (above, below) {
        (3, _) => Verdict::Supports,
        (_, 3) => Verdict::Contradicts,
        (1.., 1..) => Verdict::Mixed,
        _ => Verdict::Inconclusive,
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Supports => "supports",
            Self::Contradicts => "contradicts",
            Self::Mixed => "mixed",
            Self::Inconclusive => "inconclusive",
        })
    }
}
