//! Spectra of operators whose spectra are known. A tolerance is a bound that the crate itself
//! gives, or [`rounding`].

#![cfg(feature = "curvature")]

use gemmprop::curvature::lanczos::{Eigenpair, Extremes, Operator, Options, density, extremes, from_fn, trace};
use gemmprop::{Error, Generator};
use ndarray::linalg::general_mat_vec_mul;
use ndarray::{Array, Array1, Array2, ArrayView1, ArrayViewMut1, Dimension, Zip, array, s};
use ndarray_linalg::QR;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// nε‖A‖ four times: for the products, for forming A = QΛQᵀ, for the eigenvalues of h and for
/// adding up.
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

fn product(a: &Array2<f64>) -> impl Operator<Error = Error> {
    from_fn(a.nrows(), move |v, mut av| {
        general_mat_vec_mul(1.0, a, &v, 0.0, &mut av);
        Ok(())
    })
}

fn scaling(lambda: &Array1<f64>) -> impl Operator<Error = Error> {
    from_fn(lambda.len(), move |v, mut av| {
        Zip::from(&mut av).and(&v).and(lambda).for_each(|av, v, lambda| *av = lambda * v);
        Ok(())
    })
}

fn asking(largest: usize, smallest: usize, tolerance: f64) -> Options {
    Options { largest, smallest, tolerance, steps: 1000, ..Options::default() }
}

fn values(pairs: &[Eigenpair]) -> Vec<f64> {
    pairs.iter().map(|pair| pair.value).collect()
}

/// Each value belongs to the eigenvalue in its place, each bound holds for it and for the vector,
/// and the tolerance is kept.
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

/// Asserts that the spectrum λ is found, for a diagonal matrix and for a dense one.
fn assert_found(lambda: &Array1<f64>, options: &Options) -> Extremes {
    let spectrum = extremes(&mut scaling(lambda), options).unwrap();
    assert_right(lambda, &Array2::from_diag(lambda), options, &spectrum);
    let a = dense(lambda, 7);
    let spectrum = extremes(&mut product(&a), options).unwrap();
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
    lambda.slice_mut(s![..4]).assign(&array![5.0, 3.0, 2.0, -1.0]);
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
        lambda.slice_mut(s![places]).fill(value);
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
    let once = extremes(&mut scaling(&lambda), &Options { repeated: false, ..asking(2, 1, 1e-4) }).unwrap();
    for (pair, expected) in once.largest.iter().chain(&once.smallest).zip([5.0, 4.0, -3.0]) {
        assert!((pair.value - expected).abs() <= pair.error + rounding(400, 5.0), "{} {:e}", pair.value, pair.error);
    }
}

/// What is called converged is what was asked for, wherever the steps end. A block that is cut
/// short may know nothing of a copy yet.
#[test]
fn a_block_that_is_cut_short_settles_nothing() {
    let mut lambda = Array1::linspace(-1.0, 1.0, 400);
    lambda.slice_mut(s![100..103]).fill(5.0);
    lambda.slice_mut(s![200..202]).fill(4.0);
    let a = Array2::from_diag(&lambda);
    let mut converged = 0;
    for seed in 0..8 {
        for steps in 1..50 {
            for tolerance in [1e-3, 1e-6, 1e-9] {
                let options = Options { seed, steps, ..asking(2, 0, tolerance) };
                let spectrum = extremes(&mut scaling(&lambda), &options).unwrap();
                if spectrum.converged {
                    assert_right(&lambda, &a, &options, &spectrum);
                    converged += 1;
                }
            }
        }
    }
    assert!(converged > 200, "{converged} runs converged");
    // With the default number of steps.
    for n in (5000..8000).step_by(250) {
        let mut lambda = Array1::linspace(-1.0, 1.0, n);
        lambda.slice_mut(s![100..103]).fill(5.0);
        let options = Options { largest: 4, smallest: 0, ..Options::default() };
        let spectrum = extremes(&mut scaling(&lambda), &options).unwrap();
        let expected = [5.0, 5.0, 5.0, 1.0];
        let right = |(pair, expected): (&Eigenpair, f64)| (pair.value - expected).abs() <= pair.error + 1e-6 * 5.0;
        assert!(
            !spectrum.converged || spectrum.largest.iter().zip(expected).all(right),
            "{:?}",
            values(&spectrum.largest)
        );
    }
}

/// Products of a random matrix, of a triangular one, of a rotation.
#[test]
fn an_operator_that_is_not_symmetric_is_refused() {
    let random = normal((50, 50), 3);
    let triangle = Array2::from_shape_fn((50, 50), |(i, j)| if i <= j { random[(i, j)] } else { 0.0 });
    let nearly = dense(&Array1::linspace(-1.0, 1.0, 50), 4) + 0.05 * &random;
    let rotation = array![[0.0, 1.0], [-1.0, 0.0]];
    for a in [random, triangle, nearly, rotation] {
        for (seed, steps) in [(0, 200), (1, 200), (2, 20), (3, 2)] {
            let options = Options { seed, steps, ..asking(2, 2, 1e-6) };
            let refusal = extremes(&mut product(&a), &options).unwrap_err();
            assert!(matches!(refusal, Error::NotSymmetric { .. }), "{refusal}");
            let refusal = density(&mut product(&a), 2, steps, seed).unwrap_err();
            assert!(matches!(refusal, Error::NotSymmetric { .. }), "{refusal}");
        }
    }
}

/// A little asymmetry, as products in a shorter number type have it, is in the errors: they bound
/// the residuals, and what is not within the tolerance has not converged.
#[test]
fn the_errors_cover_what_is_not_symmetric() {
    let n = 60;
    let mut lambda = Array1::linspace(-1.0, 1.0, n);
    lambda.slice_mut(s![..5]).assign(&array![4.0, 4.0, 3.0, -2.0, -2.0]);
    for (size, seed) in [(1e-9, 1), (1e-7, 2), (1e-6, 3), (1e-5, 4)] {
        let a = dense(&lambda, seed) + size * normal((n, n), seed);
        for steps in [3, 8, 20, 40, n] {
            let options = Options { steps, seed, ..asking(3, 2, 1e-8) };
            let spectrum = extremes(&mut product(&a), &options).unwrap();
            for pair in spectrum.largest.iter().chain(&spectrum.smallest) {
                let residual = a.dot(&pair.vector) - pair.value * &pair.vector;
                let residual = residual.dot(&residual).sqrt();
                assert!(residual <= pair.error + rounding(n, 4.0), "{residual:e}, bound {:e}", pair.error);
                assert!(!spectrum.converged || pair.error <= 1e-8 * 4.0 * (1.0 + 1e-6), "{:e}", pair.error);
            }
            // √n of a column's numbers are on the other side of the diagonal, and all of them are
            // 1e-6 and more.
            assert!(size < 1e-6 || !spectrum.converged, "{size:e} {steps}");
        }
    }
}

/// mε‖A‖, which products and the eigenvalues of h have in any case: at least ε|θ|.
#[test]
fn no_error_is_below_rounding() {
    #[derive(Debug)]
    struct Single;
    impl Operator for Single {
        type Error = Error;
        fn order(&self) -> usize {
            30
        }
        fn epsilon(&self) -> f64 {
            f32::EPSILON.into()
        }
        fn apply(&mut self, v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>) -> Result<(), Error> {
            av.indexed_iter_mut().for_each(|(i, av)| *av = f64::from((1.18 * v[i] / (1 + i * i) as f64) as f32));
            Ok(())
        }
    }
    let lambda = Array1::from_shape_fn(30, |i| 1.18 / (1 + i * i) as f64);
    let options = asking(2, 2, 1e-12);
    let double = extremes(&mut scaling(&lambda), &options).unwrap();
    let single = extremes(&mut Single, &options).unwrap();
    for (spectrum, epsilon) in [(&double, f64::EPSILON), (&single, f32::EPSILON.into())] {
        assert!(spectrum.converged);
        for pair in spectrum.largest.iter().chain(&spectrum.smallest) {
            assert!(pair.error >= epsilon * 1.18 * (1.0 - 1e-6), "{:e}", pair.error);
        }
    }
    for (pair, expected) in single.largest.iter().zip(&lambda) {
        assert!((pair.value - expected).abs() <= pair.error, "{pair:?}");
    }
}

/// A basis of all the steps asked for would not fit; one of those that are made does.
#[test]
fn memory_is_taken_as_steps_are_made() {
    let n = 1_000_000;
    for steps in [5000, usize::MAX] {
        let mut identity = from_fn(n, |v, mut av| {
            av.assign(&v);
            Ok::<(), Error>(())
        });
        let spectrum = extremes(&mut identity, &Options { steps, ..Options::default() }).unwrap();
        assert_eq!((spectrum.products, spectrum.largest[0].value), (1, spectrum.smallest[0].value));
        assert!((spectrum.largest[0].value - 1.0).abs() <= rounding(n, 1.0));
        assert_eq!(density(&mut identity, 1, steps, 1).unwrap().probes[0].len(), 1);
    }
    for order in [usize::MAX, usize::MAX / 8, 1 << 50] {
        let mut endless = from_fn(order, |_, _| Ok::<(), Error>(()));
        let refusal = extremes(&mut endless, &Options::default()).unwrap_err();
        assert_eq!(refusal, Error::Memory { what: "a vector", numbers: order });
        assert_eq!(trace(&mut endless, 1, 1).unwrap_err(), refusal);
    }
}

#[test]
fn an_invariant_subspace_ends_a_block_and_another_begins() {
    let identity = Array1::ones(50);
    assert_eq!(assert_found(&identity, &asking(1, 1, 1e-9)).products, 1);
    // One step a block; the last finds nothing new once three are known.
    let options = asking(3, 0, 1e-9);
    assert_eq!(extremes(&mut scaling(&identity), &options).unwrap().products, 4);
    // The dense one is the identity but for rounding, and whether a step's β is negligible depends
    // on the kernel that multiplies. Where it is not, the block continues: three steps until three
    // are known and three that add nothing, at most.
    let products = assert_found(&identity, &options).products;
    assert!((4..=6).contains(&products), "{products} products");
    // One random vector spans with its images as many dimensions as there are different
    // eigenvalues.
    let three = Array1::from_shape_fn(50, |i| [2.0, -7.0, 4.0][i % 3]);
    assert_eq!(assert_found(&three, &asking(1, 1, 1e-9)).products, 3);
    let spectrum = assert_found(&three, &asking(2, 2, 1e-9));
    assert_eq!(spectrum.products, 9, "a block for the values, one for the copies, one that adds nothing");
    // Blocks that the operator does not mix: the permutation of neighbours has eigenvalues 1 and
    // −1, of the first 10 alone.
    let swap = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
        (0..10).for_each(|i| av[i] = v[i ^ 1]);
        Ok::<(), Error>(())
    };
    let spectrum = extremes(&mut from_fn(40, swap), &asking(6, 6, 1e-9)).unwrap();
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
    lambda.slice_mut(s![10..13]).assign(&array![3.0, 1.0, 1.0]);
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
    let spectrum = extremes(&mut scaling(&lambda), &Options { steps: 5, ..asking(7, 1, 1e-9) }).unwrap();
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
    let run = |seed| extremes(&mut scaling(&lambda), &Options { seed, ..options }).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(density(&mut scaling(&lambda), 2, 5, 1).unwrap(), density(&mut scaling(&lambda), 2, 5, 1).unwrap());
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
    assert_eq!(extremes(&mut from_fn(5, fails), &Options::default()).unwrap_err(), Mine::Own);
    let own = |_: ArrayView1<f64>, _: ArrayViewMut1<f64>| Err(Mine::Own);
    assert_eq!(trace(&mut from_fn(5, own), 3, 1).unwrap_err(), Mine::Own);
    assert_eq!(density(&mut from_fn(5, own), 3, 3, 1).unwrap_err(), Mine::Own);

    for found in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        let bad = |v: ArrayView1<f64>, mut av: ArrayViewMut1<f64>| {
            av.assign(&v);
            av[3] = found;
            Ok::<(), Error>(())
        };
        let refusals = [
            extremes(&mut from_fn(5, bad), &Options::default()).unwrap_err(),
            trace(&mut from_fn(5, bad), 3, 1).unwrap_err(),
            density(&mut from_fn(5, bad), 3, 3, 1).unwrap_err(),
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
    assert_eq!(hyperparameter(extremes(&mut scaling(&Array1::zeros(0)), &Options::default()).unwrap_err()), "order");
    assert_eq!(
        hyperparameter(extremes(&mut scaling(&any), &Options { steps: 0, ..asking(1, 1, 0.1) }).unwrap_err()),
        "steps"
    );
    for tolerance in [-1.0, f64::NAN] {
        assert_eq!(hyperparameter(extremes(&mut scaling(&any), &asking(1, 1, tolerance)).unwrap_err()), "tolerance");
    }
    assert_eq!(hyperparameter(trace(&mut scaling(&any), 0, 1).unwrap_err()), "probes");
    assert_eq!(hyperparameter(density(&mut scaling(&any), 0, 2, 1).unwrap_err()), "probes");
    let known = density(&mut scaling(&any), 1, 2, 1).unwrap();
    assert_eq!(hyperparameter(known.smoothed(any.view(), 0.0).unwrap_err()), "sigma");
}

#[test]
fn the_trace_of_a_diagonal_operator_is_exact() {
    let lambda = Array1::from_shape_fn(100, |i| i as f64 - 30.0);
    let estimate = trace(&mut scaling(&lambda), 7, 1).unwrap();
    let absolute = lambda.mapv(f64::abs).sum();
    assert!((estimate.value - lambda.sum()).abs() <= rounding(100, absolute), "{estimate:?}");
    assert_eq!(estimate.standard_error, 0.0);
    assert_eq!(trace(&mut scaling(&lambda), 1, 1).unwrap().standard_error, f64::INFINITY);
}

/// For Rademacher vectors the variance of zᵀAz is 2 Σ_{i≠j} a_ij².
#[test]
fn the_trace_of_a_dense_operator_is_within_its_standard_error() {
    let lambda = normal(60, 8) + 0.3;
    let a = dense(&lambda, 9);
    let off_diagonal: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, a)| a * a).sum();
    for probes in [10, 100, 10_000] {
        let estimate = trace(&mut product(&a), probes, 2).unwrap();
        assert!((estimate.value - lambda.sum()).abs() <= 5.0 * estimate.standard_error, "{estimate:?}");
        // A sample variance of p samples is itself known to about √(2/p), five of which are
        // allowed.
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
        let density = density(&mut from_fn(n, watched), 3, steps, 6).unwrap();
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
    let density = density(&mut product(&a), 40, 30, 13).unwrap();
    for nodes in &density.probes {
        assert!((nodes.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() <= rounding(30, 1.0));
    }
    for p in 1..=10 {
        let (exact, found) = (lambda.mapv(|l| l.powi(p)).mean().unwrap(), density.mean(|theta| theta.powi(p)));
        assert!((found.value - exact).abs() <= 5.0 * found.standard_error, "{p}: {found:?} {exact}");
    }
}

/// ln over eight decades: its mean is −4 ln 10. The probes of a diagonal operator agree to the last
/// digits, on a value that the few nodes near 0 cannot know.
#[test]
fn the_error_of_a_quadrature_is_reported_beside_that_of_the_probes() {
    let lambda = Array1::from_shape_fn(1000, |i| 10.0_f64.powf(-8.0 * i as f64 / 999.0));
    let exact = -4.0 * 10.0_f64.ln();
    for steps in [5, 20, 80] {
        let mean = density(&mut scaling(&lambda), 20, steps, 1).unwrap().mean(f64::ln);
        let error = (mean.value - exact).abs();
        assert!(mean.standard_error <= rounding(1000, 20.0) && error > 1.0, "{steps} steps: {mean:?}");
        // Of its order, and no bound.
        assert!(mean.quadrature_error >= 0.1 * error, "{steps} steps: {mean:?}");
    }
}

/// 1/(2 − λ) is smooth over the spectrum: the coarse rule's error is much larger than the fine
/// one's.
#[test]
fn the_error_of_a_quadrature_bounds_that_of_a_smooth_function() {
    let lambda = normal(300, 3).mapv(f64::tanh);
    let exact = lambda.mapv(|lambda| 1.0 / (2.0 - lambda)).mean().unwrap();
    let mut before = f64::INFINITY;
    for steps in [1, 2, 4, 8, 16, 32] {
        let mean = density(&mut scaling(&lambda), 3, steps, 1).unwrap().mean(|lambda| 1.0 / (2.0 - lambda));
        let error = (mean.value - exact).abs();
        assert!(error <= mean.quadrature_error + rounding(300, 1.0), "{steps} steps: {error:e}, {mean:?}");
        assert!(mean.quadrature_error <= before, "{steps} steps: {mean:?}");
        assert_eq!(mean.quadrature_error == f64::INFINITY, steps == 1);
        before = mean.quadrature_error;
    }
    assert!(before <= rounding(300, 1.0), "{before:e}");
    // Exact: in an invariant subspace, in the whole space, and of a trace.
    let three = Array1::from_shape_fn(50, |i| [2.0, -7.0, 4.0][i % 3]);
    for (lambda, steps) in [(&three, 10), (&three, 3), (&array![1.0, 3.0], 2), (&array![5.0], 1)] {
        let mean = density(&mut scaling(lambda), 4, steps, 1).unwrap().mean(f64::exp);
        assert_eq!(mean.quadrature_error, 0.0);
    }
    assert_eq!(trace(&mut scaling(&lambda), 2, 1).unwrap().quadrature_error, 0.0);
}

#[test]
fn the_smoothed_density_integrates_to_1_and_follows_the_spectrum() {
    // Three quarters of the spectrum at −1, a quarter at 2; a diagonal operator, so each probe
    // knows the weights exactly.
    let lambda = Array1::from_shape_fn(64, |i| if i % 4 == 0 { 2.0 } else { -1.0 });
    let density = density(&mut scaling(&lambda), 2, 10, 1).unwrap();
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
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_multiplicities(lambda in prop::collection::vec(-3_i8..=3, 1..25), largest in 0_usize..6, smallest in 0_usize..6, seed: u64) {
        let lambda: Array1<f64> = lambda.into_iter().map(f64::from).collect();
        assert_found(&lambda, &Options { seed, ..asking(largest, smallest, 1e-9) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// A bulk, values that occur several times and values that nearly do, cut short anywhere. k
    /// pairs with residuals up to r belong to k eigenvalues, each within √k r (Kahan; Parlett, ch.
    /// 11): a theorem. That they are the outermost is likely: one that is c r further out hides
    /// behind its neighbour from a start that has less than 1/c² of it, which happens once in c
    /// times; where a second block looks, once in c². So the seed of these cases is fixed.
    #[test]
    fn what_is_called_converged_is_right(
        outliers in prop::collection::vec((-5_i8..=5, 1_usize..4, -12_i32..=-2), 0..6),
        bulk in 1_usize..150,
        (largest, smallest) in (0_usize..5, 0_usize..5),
        steps in 1_usize..120,
        tolerance in -12_i32..=-2,
        seed: u64,
    ) {
        let mut lambda = normal(bulk, seed).mapv(f64::tanh).to_vec();
        for (value, copies, apart) in outliers {
            let value = f64::from(value);
            lambda.extend((0..copies).map(|_| value));
            lambda.push(value + 10.0_f64.powi(apart));
        }
        let lambda = Array1::from(lambda);
        let n = lambda.len();
        let options = Options { steps, seed, ..asking(largest, smallest, 10.0_f64.powi(tolerance)) };
        let norm = lambda.fold(0.0, |norm: f64, lambda| norm.max(lambda.abs()));
        let a = dense(&lambda, seed);
        for spectrum in [extremes(&mut scaling(&lambda), &options).unwrap(), extremes(&mut product(&a), &options).unwrap()] {
            if !spectrum.converged {
                continue;
            }
            let mut sorted = lambda.to_vec();
            sorted.sort_by(f64::total_cmp);
            let expected = spectrum.largest.iter().zip(sorted.iter().rev());
            for (pair, expected) in expected.chain(spectrum.smallest.iter().zip(&sorted)) {
                let pairs = if largest.max(smallest) == 1 { 100.0 } else { (largest + smallest) as f64 };
                let bound = pairs.sqrt() * options.tolerance * norm + rounding(n, norm);
                prop_assert!((pair.value - expected).abs() <= bound, "{} for {expected}, bound {bound:e}", pair.value);
            }
        }
    }
}
