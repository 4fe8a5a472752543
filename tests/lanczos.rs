//! Spectra of operators whose spectra are known. A tolerance is a bound that the crate itself gives, or [`rounding`].

#![cfg(feature = "curvature")]

use gemmprop::lanczos::{Eigenpair, Extremes, Options, density, extremes, trace};
use gemmprop::{Error, Generator};
use ndarray::linalg::general_mat_vec_mul;
use ndarray::{Array, Array1, Array2, ArrayView1, ArrayViewMut1, Dimension, Zip, array};
use ndarray_linalg::QR;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// nε‖A‖ four times: for the products, for forming A = QΛQᵀ, for the eigenvalues of h and for adding up.
fn rounding(n: usize, norm: f64) -> f64 {
    4.0 * n as f64 * f64::EPSILON * norm
}

fn normal<D: Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>, seed: u64) -> Array<f64, D> {
    let mut generator = Generator::seed_from_u64(seed);
    Array::from_shape_simple_fn(shape, || StandardNormal.sample(&mut generator))
}

/// QΛQᵀ with a random orthogonal Q, symmetric to the last bit.
fn dense(lambda: &Array1<f64>, seed: u64) -> Array2<f64> {
    let (q, _) = normal((lambda.len(), lambda.len()), seed).qr().unwrap();
    let a = (&q * lambda).dot(&q.t());
    0.5 * (&a + &a.t())
}

fn product(a: &Array2<f64>) -> impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), Error> {
    move |v, mut av| {
        general_mat_vec_mul(1.0, a, &v, 0.0, &mut av);
        Ok(())
    }
}

fn scaling(lambda: &Array1<f64>) -> impl FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), Error> {
    move |v, mut av| {
        Zip::from(&mut av).and(&v).and(lambda).for_each(|av, v, lambda| *av = lambda * v);
        Ok(())
    }
}

fn asking(largest: usize, smallest: usize, tolerance: f64) -> Options {
    Options { largest, smallest, tolerance, steps: 1000, ..Options::default() }
}

fn values(pairs: &[Eigenpair]) -> Vec<f64> {
    pairs.iter().map(|pair| pair.value).collect()
}

/// Each value belongs to the eigenvalue in its place, each bound holds for it and for the vector, and the tolerance is kept.
fn assert_right(lambda: &Array1<f64>, a: &Array2<f64>, options: &Options, spectrum: &Extremes) {
    let n = lambda.len();
    let mut lambda = lambda.to_vec();
    lambda.sort_by(f64::total_cmp);
    let norm = lambda[0].abs().max(lambda[n - 1].abs());
    assert!(spectrum.converged, "{} products", spectrum.products);
    assert_eq!(spectrum.largest.len(), options.largest.min(n));
    assert_eq!(spectrum.smallest.len(), options.smallest.min(n));
    let largest = spectrum.largest.iter().zip(lambda.iter().rev());
    for (pair, lambda) in largest.chain(spectrum.smallest.iter().zip(&lambda)) {
        let bound = pair.error + rounding(n, norm);
        assert!((pair.value - lambda).abs() <= bound, "{} for {lambda}, bound {bound:e}", pair.value);
        assert!(pair.error <= options.tolerance * norm + rounding(n, norm), "{:e}", pair.error);
        // Squares of small numbers would underflow.
        let residual =
            (a.dot(&pair.vector) - pair.value * &pair.vector).mapv(|r| if norm > 0.0 { r / norm } else { r });
        let residual = residual.dot(&residual).sqrt() * norm;
        assert!(residual <= bound, "residual {residual:e}, bound {bound:e}");
        assert!((pair.vector.dot(&pair.vector) - 1.0).abs() <= rounding(n, 1.0));
    }
}

/// As a diagonal matrix and as a dense one.
fn assert_found(lambda: &Array1<f64>, options: &Options) -> Extremes {
    let n = lambda.len();
    let spectrum = extremes(n, scaling(lambda), options).unwrap();
    assert_right(lambda, &Array2::from_diag(lambda), options, &spectrum);
    let a = dense(lambda, 7);
    let spectrum = extremes(n, product(&a), options).unwrap();
    assert_right(lambda, &a, options, &spectrum);
    spectrum
}

#[test]
fn separated_eigenvalues_are_found_within_their_bounds() {
    for n in [1, 2, 3, 10, 60, 150] {
        let lambda = Array1::from_shape_fn(n, |i| 1.5 * (i as f64) - 20.0);
        for tolerance in [1e-3, 1e-7, 1e-12] {
            assert_found(&lambda, &asking(3, 2, tolerance));
            assert_found(&lambda, &asking(1, 1, tolerance));
            assert_found(&lambda, &asking(0, 1, tolerance));
        }
    }
}

#[test]
fn few_outliers_over_a_bulk_need_few_products() {
    let mut lambda = normal(500, 3) * 0.05;
    lambda.slice_mut(ndarray::s![..4]).assign(&array![5.0, 3.0, 2.0, -1.0]);
    let options = asking(3, 1, 1e-6);
    let all = assert_found(&lambda, &options).products;
    let simple = assert_found(&lambda, &Options { repeated: false, ..options }).products;
    assert!(simple < 25 && all <= 2 * simple, "{simple} and {all} products");
}

#[test]
fn clusters_are_separated_where_the_tolerance_asks_for_it() {
    let mut lambda = Array1::linspace(-0.5, 0.5, 40);
    lambda[20] = 1.0 + 1e-9;
    lambda[30] = 1.0 - 1e-9;
    for tolerance in [1e-6, 1e-13] {
        let spectrum = assert_found(&lambda, &asking(2, 0, tolerance));
        if tolerance < 1e-9 {
            let gap = spectrum.largest[0].value - spectrum.largest[1].value;
            assert!((gap - 2e-9).abs() <= rounding(40, 2.0), "{gap:e}");
        }
    }
}

#[test]
fn repeated_eigenvalues_are_found_as_often_as_they_occur() {
    let mut lambda = Array1::linspace(-1.0, 1.0, 400);
    for (places, value) in [(0..3, 5.0), (30..32, 4.0), (50..54, -3.0)] {
        lambda.slice_mut(ndarray::s![places]).fill(value);
    }
    for seed in 0..5 {
        for tolerance in [1e-4, 1e-7, 1e-9, 1e-12] {
            let options = Options { seed, ..asking(5, 4, tolerance) };
            let spectrum = assert_found(&lambda, &options);
            assert!(spectrum.products < 250, "{} products: not by spanning everything", spectrum.products);
            let two = assert_found(&lambda, &Options { seed, ..asking(2, 0, tolerance) });
            assert!(two.products < 100, "{} products", two.products);
        }
        // With the bulk's edges as well, which are dense.
        assert_found(&lambda, &Options { seed, ..asking(6, 5, 1e-9) });
    }
    let once = extremes(400, scaling(&lambda), &Options { repeated: false, ..asking(2, 1, 1e-4) }).unwrap();
    for (pair, expected) in once.largest.iter().chain(&once.smallest).zip([5.0, 4.0, -3.0]) {
        assert!((pair.value - expected).abs() <= pair.error + rounding(400, 5.0), "{} {:e}", pair.value, pair.error);
    }
}

#[test]
fn an_invariant_subspace_ends_a_block_and_another_begins() {
    let identity = Array1::ones(50);
    assert_eq!(assert_found(&identity, &asking(1, 1, 1e-9)).products, 1);
    // One step a block; the last finds nothing new once three are known.
    let options = asking(3, 0, 1e-9);
    assert_eq!(extremes(50, scaling(&identity), &options).unwrap().products, 4);
    // The dense one is the identity but for rounding, and whether a step's β is negligible depends on the kernel that multiplies.
    // Where it is not, the block goes on: three steps until three are known and three that add nothing, at most.
    let products = assert_found(&identity, &options).products;
    assert!((4..=6).contains(&products), "{products} products");
    // One random vector spans with its images as many dimensions as there are different eigenvalues.
    let three = Array1::from_shape_fn(50, |i| [2.0, -7.0, 4.0][i % 3]);
    assert_eq!(assert_found(&three, &asking(1, 1, 1e-9)).products, 3);
    let spectrum = assert_found(&three, &asking(2, 2, 1e-9));
    assert_eq!(spectrum.products, 9, "a block for the values, one for the copies, one that adds nothing");
    // Blocks that the operator does not mix: the permutation of neighbours has eigenvalues 1 and −1, of the first 10 alone.
    let swap = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
        (0..10).for_each(|i| av[i] = v[i ^ 1]);
        Ok::<(), Error>(())
    };
    let spectrum = extremes(40, swap, &asking(6, 6, 1e-9)).unwrap();
    let expected = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0];
    for (pairs, sign) in [(&spectrum.largest, 1.0), (&spectrum.smallest, -1.0)] {
        for (pair, expected) in pairs.iter().zip(expected) {
            assert!((sign * pair.value - expected).abs() <= pair.error + rounding(40, 1.0), "{pair:?}");
        }
    }
}

#[test]
fn the_whole_spectrum_of_a_small_operator_is_found() {
    let lambda = array![4.0, 4.0, -1.0, 0.0, 0.0, 9.0];
    let spectrum = assert_found(&lambda, &asking(6, 100, 1e-9));
    assert_eq!(spectrum.products, 6);
    assert_found(&array![-3.0], &asking(2, 2, 1e-9));
    assert_found(&array![2.0, 2.0], &asking(2, 2, 1e-9));
}

#[test]
fn zero_and_rank_deficient_operators() {
    let spectrum = assert_found(&Array1::zeros(20), &asking(2, 2, 1e-9));
    assert!(values(&spectrum.largest).iter().chain(&values(&spectrum.smallest)).all(|&value| value == 0.0));
    let mut lambda = Array1::zeros(70);
    lambda.slice_mut(ndarray::s![10..13]).assign(&array![3.0, 1.0, 1.0]);
    assert_found(&lambda, &asking(5, 3, 1e-9));
}

#[test]
fn huge_and_tiny_operators() {
    for scale in [1e150, 1e-150, 1e300, 1e-270] {
        let lambda = scale * array![3.0, 1.0, -2.0, 0.5, 0.25, 3.0, 0.0, 0.1, -0.3, 0.7, 0.0, 0.0];
        assert_found(&lambda, &asking(3, 2, 1e-9));
    }
}

#[test]
fn a_dominant_negative_eigenvalue_is_the_smallest_not_the_largest() {
    let mut lambda = Array1::linspace(-1.0, 1.0, 90);
    lambda[45] = -100.0;
    let spectrum = assert_found(&lambda, &asking(1, 1, 1e-8));
    assert!((spectrum.smallest[0].value + 100.0).abs() < 1e-5 && (spectrum.largest[0].value - 1.0).abs() < 1e-5);
}

#[test]
fn too_few_steps_give_honest_bounds() {
    let lambda = Array1::linspace(0.0, 1.0, 300);
    let spectrum = extremes(300, scaling(&lambda), &Options { steps: 5, ..asking(7, 1, 1e-9) }).unwrap();
    assert!(!spectrum.converged);
    assert_eq!((spectrum.products, spectrum.largest.len(), spectrum.smallest.len()), (5, 5, 1));
    for Eigenpair { value, error, .. } in &spectrum.largest {
        let nearest = lambda.iter().map(|lambda| (lambda - value).abs()).fold(f64::INFINITY, f64::min);
        assert!(nearest <= error + rounding(300, 1.0) && *error > 1e-9);
    }
}

#[test]
fn a_seed_settles_every_bit() {
    // Long enough for OpenBLAS to spread a sum over its threads, if it were let.
    let lambda = normal(20_000, 5);
    let options = Options { steps: 12, ..asking(2, 1, 1e-6) };
    let run = |seed| extremes(20_000, scaling(&lambda), &Options { seed, ..options }).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(
        density(20_000, scaling(&lambda), 2, 5, 1).unwrap(),
        density(20_000, scaling(&lambda), 2, 5, 1).unwrap()
    );
}

#[test]
fn what_cannot_be_computed_is_refused() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        Own,
        Theirs(Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self::Theirs(error)
        }
    }
    let mut calls = 0;
    let fails = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
        calls += 1;
        av.assign(&v);
        av[0] *= 2.0;
        if calls == 2 { Err(Mine::Own) } else { Ok(()) }
    };
    assert_eq!(extremes(5, fails, &Options::default()).unwrap_err(), Mine::Own);
    let own = |_: ArrayView1<f64>, _: ArrayViewMut1<f64>| Err(Mine::Own);
    assert_eq!(trace(5, own, 3, 1).unwrap_err(), Mine::Own);
    assert_eq!(density(5, own, 3, 3, 1).unwrap_err(), Mine::Own);

    for found in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        let bad = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
            av.assign(&v);
            av[3] = found;
            Ok::<(), Error>(())
        };
        let refusals = [
            extremes(5, bad, &Options::default()).unwrap_err(),
            trace(5, bad, 3, 1).unwrap_err(),
            density(5, bad, 3, 3, 1).unwrap_err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Error::Operator { product: 0, component: 3, .. }), "{refusal}");
        }
    }

    let any = Array1::ones(5);
    let hyperparameter = |error| match error {
        Error::Hyperparameter { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(hyperparameter(extremes(0, scaling(&any), &Options::default()).unwrap_err()), "n");
    assert_eq!(
        hyperparameter(extremes(5, scaling(&any), &Options { steps: 0, ..asking(1, 1, 0.1) }).unwrap_err()),
        "steps"
    );
    for tolerance in [-1.0, f64::NAN] {
        assert_eq!(hyperparameter(extremes(5, scaling(&any), &asking(1, 1, tolerance)).unwrap_err()), "tolerance");
    }
    assert_eq!(hyperparameter(trace(5, scaling(&any), 0, 1).unwrap_err()), "probes");
    assert_eq!(hyperparameter(density(5, scaling(&any), 0, 2, 1).unwrap_err()), "probes");
    let known = density(5, scaling(&any), 1, 2, 1).unwrap();
    assert_eq!(hyperparameter(known.smoothed(any.view(), 0.0).unwrap_err()), "sigma");
}

#[test]
fn the_trace_of_a_diagonal_operator_is_exact() {
    let lambda = Array1::from_shape_fn(100, |i| i as f64 - 30.0);
    let estimate = trace(100, scaling(&lambda), 7, 1).unwrap();
    let absolute = lambda.mapv(f64::abs).sum();
    assert!((estimate.value - lambda.sum()).abs() <= rounding(100, absolute), "{estimate:?}");
    assert_eq!(estimate.standard_error, 0.0);
    assert_eq!(trace(100, scaling(&lambda), 1, 1).unwrap().standard_error, f64::INFINITY);
}

/// For Rademacher vectors the variance of zᵀAz is 2 Σ_{i≠j} a_ij².
#[test]
fn the_trace_of_a_dense_operator_is_within_its_standard_error() {
    let lambda = normal(60, 8) + 0.3;
    let a = dense(&lambda, 9);
    let off_diagonal: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, a)| a * a).sum();
    for probes in [10, 100, 10_000] {
        let estimate = trace(60, product(&a), probes, 2).unwrap();
        assert!((estimate.value - lambda.sum()).abs() <= 5.0 * estimate.standard_error, "{estimate:?}");
        // A sample variance of p samples is itself known to about √(2/p), five of which are allowed.
        let ratio = estimate.standard_error.powi(2) * probes as f64 / (2.0 * off_diagonal);
        assert!((ratio - 1.0).abs() <= 5.0 * (2.0 / probes as f64).sqrt(), "{ratio}");
    }
}

#[test]
fn quadratures_are_exact_for_polynomials_up_to_degree_2k_minus_1() {
    let n = 30;
    let a = dense(&normal(n, 4).mapv(f64::tanh), 5);
    for steps in [1, 2, 4, 7, n] {
        // Each probe's first vector is z/√n.
        let mut starts = Vec::new();
        let mut calls = 0;
        let watched = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
            if calls % steps == 0 {
                starts.push(v.to_owned());
            }
            calls += 1;
            av.assign(&a.dot(&v));
            Ok::<(), Error>(())
        };
        let density = density(n, watched, 3, steps, 6).unwrap();
        assert_eq!((calls, density.probes.len()), (3 * steps, 3));
        for (nodes, start) in density.probes.iter().zip(&starts) {
            assert_eq!(nodes.len(), steps);
            let mut power = start.clone();
            for degree in 0..2 * steps {
                let quadrature: f64 = nodes.iter().map(|(theta, weight)| weight * theta.powi(degree as i32)).sum();
                let exact = start.dot(&power);
                // ‖A‖ ≤ 1, and each of the products adds its own rounding.
                assert!(
                    (quadrature - exact).abs() <= (degree + 1) as f64 * rounding(n, 1.0),
                    "{degree}: {quadrature} {exact}"
                );
                power = a.dot(&power);
            }
        }
    }
}

#[test]
fn moments_of_the_density_are_those_of_the_spectrum() {
    let lambda = normal(200, 11);
    let a = dense(&lambda, 12);
    let density = density(200, product(&a), 40, 30, 13).unwrap();
    for nodes in &density.probes {
        assert!((nodes.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() <= rounding(30, 1.0));
    }
    for p in 1..=10 {
        let (exact, found) = (lambda.mapv(|l| l.powi(p)).mean().unwrap(), density.mean(|theta| theta.powi(p)));
        assert!((found.value - exact).abs() <= 5.0 * found.standard_error, "{p}: {found:?} {exact}");
    }
}

#[test]
fn the_smoothed_density_integrates_to_1_and_follows_the_spectrum() {
    // Three quarters of the spectrum at −1, a quarter at 2; a diagonal operator, so each probe knows the weights exactly.
    let lambda = Array1::from_shape_fn(64, |i| if i % 4 == 0 { 2.0 } else { -1.0 });
    let density = density(64, scaling(&lambda), 2, 10, 1).unwrap();
    assert!(density.probes.iter().all(|nodes| nodes.len() == 2), "an invariant subspace of two dimensions");
    let (sigma, grid) = (0.1, Array1::linspace(-3.0, 4.0, 1401));
    let smoothed = density.smoothed(grid.view(), sigma).unwrap();
    let peak = 1.0 / (sigma * std::f64::consts::TAU.sqrt());
    for (x, weight) in [(400, 0.75), (1000, 0.25)] {
        assert!((smoothed[x] - weight * peak).abs() < 1e-9, "{} at {}", smoothed[x], grid[x]);
    }
    // The trapezoidal rule on a grid of σ/20 is exact for Gaussians up to rounding.
    assert!((smoothed.sum() * 0.005 - 1.0).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_multiplicities(lambda in prop::collection::vec(-3_i8..=3, 1..25), largest in 0_usize..6, smallest in 0_usize..6, seed: u64) {
        let lambda: Array1<f64> = lambda.into_iter().map(f64::from).collect();
        assert_found(&lambda, &Options { seed, ..asking(largest, smallest, 1e-9) });
    }
}
