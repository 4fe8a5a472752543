//! The statistics of the experiments, against cases worked out by hand.

use report::statistics::{self, CONFIDENCE, Drawn, Interval, Verdict, bootstrap, partial, verdict};

/// Kendall's τ of points, each of which is a cluster.
fn kendall(points: &[(f64, f64)]) -> Option<f64> {
    let drawn = points.iter().enumerate().map(|(i, &value)| Drawn { cluster: i, draw: i, value });
    statistics::kendall(&drawn.collect::<Vec<_>>())
}

fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a correlation");
    assert!((found - expected).abs() < 1e-15, "{found} for {expected}");
}

#[test]
fn kendall_of_hand_worked_cases() {
    // All 3 pairs concordant; all discordant.
    close(kendall(&[(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]), 1.0);
    close(kendall(&[(1.0, 30.0), (2.0, 20.0), (3.0, 10.0)]), -1.0);
    // Of 6 pairs 5 are concordant, (2, 3) and (3, 2) is not.
    close(kendall(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]), 4.0 / 6.0);
    // The order of the pairs and any growing transformation change nothing.
    close(kendall(&[(4f64.exp(), 64.0), (3f64.exp(), 8.0), (1f64.exp(), 1.0), (2f64.exp(), 27.0)]), 4.0 / 6.0);
}

#[test]
fn kendall_with_ties() {
    // x = 1, 2, 2, 3 and y = 1, 2, 3, 3. Pairs: 1–2 +, 1–3 +, 1–4 +, 2–3 tied in x, 2–4 +, 3–4 tied
    // in y. Score 4; 5 of 6 are untied in x, and 5 in y: 4/√(5·5).
    close(kendall(&[(1.0, 1.0), (2.0, 2.0), (2.0, 3.0), (3.0, 3.0)]), 0.8);
    // One pair tied in x alone: + + and a tie. 2/√(2·3).
    close(kendall(&[(1.0, 1.0), (2.0, 2.0), (2.0, 3.0)]), 2.0 / 6f64.sqrt());
    // A pair tied in both counts for neither: of x = y = 1, 1, 2 two pairs are left, both
    // concordant.
    close(kendall(&[(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]), 1.0);
    // −0 and 0 are the same number.
    close(kendall(&[(0.0, 1.0), (-0.0, 1.0), (1.0, 2.0)]), 1.0);
}

#[test]
fn without_variation_there_is_no_correlation() {
    assert_eq!(kendall(&[]), None);
    assert_eq!(kendall(&[(1.0, 2.0)]), None);
    assert_eq!(kendall(&[(1.0, 1.0), (1.0, 2.0)]), None);
    assert_eq!(kendall(&[(1.0, 1.0), (2.0, 1.0)]), None);
}

/// A = (0, 0), (1, 1), drawn twice, and B = (0, 10), (1, 9). Within the draws + + −; between A and
/// B a + and a − for each draw, and two ties in x. Score 1; 7 pairs untied in x, 11 in y. Between
/// the two draws of A there would be two + more.
#[test]
fn a_cluster_that_is_drawn_twice_makes_no_pairs_with_itself() {
    let (a, b) = ([(0.0, 0.0), (1.0, 1.0)], [(0.0, 10.0), (1.0, 9.0)]);
    let draws = [(0, a), (0, a), (1, b)];
    let drawn = draws
        .iter()
        .enumerate()
        .flat_map(|(draw, &(cluster, points))| points.map(|value| Drawn { cluster, draw, value }));
    close(statistics::kendall(&drawn.collect::<Vec<_>>()), 1.0 / 77f64.sqrt());
}

#[test]
fn partial_tau_of_hand_worked_cases() {
    // Kendall's formula, with τ of 0.6, 0.6 and 0.8: (0.6 − 0.48)/√(0.64 · 0.36).
    close(partial(Some(0.6), Some(0.6), Some(0.8)), 0.12 / 0.48);
    // What z has nothing to do with is left as it is, and so it is without a z that varies.
    close(partial(Some(0.3), Some(0.0), Some(0.0)), 0.3);
    close(partial(Some(0.3), None, None), 0.3);
    // x and y that agree only through z: nothing is left.
    close(partial(Some(0.25), Some(0.5), Some(0.5)), 0.0);
    // A z that orders x completely leaves nothing to compare.
    assert_eq!(partial(Some(0.5), Some(1.0), Some(0.5)), None);
    assert_eq!(partial(None, Some(0.5), Some(0.5)), None);
}

fn mean(values: &[Drawn<f64>]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().map(|drawn| drawn.value).sum::<f64>() / values.len() as f64)
}

#[test]
fn bootstrap_intervals() {
    // All clusters alike: nothing to resample.
    let same = bootstrap(&vec![vec![1.0, 3.0]; 5], 0.95, mean).expect("a mean");
    assert_eq!((same.value, same.low, same.high), (2.0, 2.0, 2.0));
    // Two clusters: resamples have the mean 0, 1/2 or 1, with the shares 1/4, 1/2, 1/4.
    let two = bootstrap(&[vec![0.0; 4], vec![1.0; 4]], 0.95, mean).expect("a mean");
    assert_eq!((two.value, two.low, two.high), (0.5, 0.0, 1.0));
    // The mean of 100 numbers of standard deviation σ: ± 1.96 σ/10 for 95 % and ± 2.807 σ/10 for
    // 99.5 %, here σ = √(1/12) to 3 %, and 10 000 resamples know the ends to 5 %.
    let many: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i) / 99.0]).collect();
    for (confidence, quantile) in [(0.95, 1.96), (CONFIDENCE, 2.807)] {
        let Interval { value, low, high } = bootstrap(&many, confidence, mean).expect("a mean");
        let half = quantile * (1.0 / 12.0_f64).sqrt() / 10.0;
        assert!((value - 0.5).abs() < 1e-12);
        let off = (low - (0.5 - half)).abs().max((high - (0.5 + half)).abs());
        assert!(off < 0.15 * half, "{confidence}: {low} … {high}");
    }
    assert!(bootstrap(&[Vec::<f64>::new()], 0.95, mean).is_none());
    // As many draws as clusters, each of one whole cluster.
    bootstrap(&[vec![0, 0], vec![1, 1], vec![2, 2]], 0.95, |drawn| {
        let known = drawn.iter().enumerate().all(|(i, drawn)| drawn.draw == i / 2 && drawn.cluster == drawn.value);
        assert!(known && drawn.len() == 6, "{drawn:?}");
        Some(0.0)
    });
}

#[test]
fn the_verdict_needs_all_three_intervals() {
    let at = |low: f64, high: f64| Some(Interval { value: 0.5 * (low + high), low, high });
    let (above, around, below) = (at(0.1, 0.5), at(-0.1, 0.5), at(-0.5, -0.1));
    assert_eq!(verdict([above; 3]), Verdict::Supports);
    assert_eq!(verdict([below; 3]), Verdict::Contradicts);
    for mixed in [[above, above, below], [above, below, around], [below, None, above]] {
        assert_eq!(verdict(mixed), Verdict::Mixed);
    }
    for open in [[above, above, around], [around, above, above], [below, around, below], [above, above, None]] {
        assert_eq!(verdict(open), Verdict::Inconclusive);
    }
    assert_eq!(verdict([None; 3]), Verdict::Inconclusive);
    // An interval that ends at 0 is not above it.
    assert_eq!(verdict([at(0.0, 0.5), above, above]), Verdict::Inconclusive);
    // Ten verdicts, by Bonferroni.
    assert!((CONFIDENCE - 0.995).abs() < 1e-15);
}
