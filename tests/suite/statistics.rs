//! The statistics of the experiments, against cases worked out by hand.

use report::statistics::{self, Drawn, Interval, Verdict, bootstrap, verdict};

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

fn mean(values: &[Drawn<f64>]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().map(|drawn| drawn.value).sum::<f64>() / values.len() as f64)
}

#[test]
fn bootstrap_intervals() {
    // All clusters alike: nothing to resample.
    let same = bootstrap(&vec![vec![1.0, 3.0]; 5], mean).expect("a mean");
    assert_eq!((same.value, same.low, same.high), (2.0, 2.0, 2.0));
    // Two clusters: resamples have the mean 0, 1/2 or 1, with the shares 1/4, 1/2, 1/4.
    let two = bootstrap(&[vec![0.0; 4], vec![1.0; 4]], mean).expect("a mean");
    assert_eq!((two.value, two.low, two.high), (0.5, 0.0, 1.0));
    // The mean of 100 numbers of standard deviation σ: ± 1.96 σ/10, here σ = √(1/12) to 3 %, and
    // 2000 resamples know its ends to 5 %.
    let many: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i) / 99.0]).collect();
    let Interval { value, low, high } = bootstrap(&many, mean).expect("a mean");
    let half = 1.96 * (1.0 / 12.0_f64).sqrt() / 10.0;
    assert!((value - 0.5).abs() < 1e-12);
    assert!((low - (0.5 - half)).abs() < 0.15 * half && (high - (0.5 + half)).abs() < 0.15 * half, "{low} … {high}");
    assert!(bootstrap(&[Vec::<f64>::new()], mean).is_none());
    // As many draws as clusters, each of one whole cluster.
    bootstrap(&[vec![0, 0], vec![1, 1], vec![2, 2]], |drawn| {
        let known = drawn.iter().enumerate().all(|(i, drawn)| drawn.draw == i / 2 && drawn.cluster == drawn.value);
        assert!(known && drawn.len() == 6, "{drawn:?}");
        Some(0.0)
    });
}

#[test]
fn the_verdict_needs_both_intervals() {
    let at = |low: f64, high: f64| Some(Interval { value: 0.5 * (low + high), low, high });
    let (above, around, below) = (at(0.1, 0.5), at(-0.1, 0.5), at(-0.5, -0.1));
    assert_eq!(verdict(above, above), Verdict::Supports);
    assert_eq!(verdict(below, below), Verdict::Contradicts);
    for (a, b) in [(above, around), (around, above), (above, below), (below, around), (above, None), (None, None)] {
        assert_eq!(verdict(a, b), Verdict::Inconclusive);
    }
    // An interval that ends at 0 is not above it.
    assert_eq!(verdict(at(0.0, 0.5), above), Verdict::Inconclusive);
}
