//! Measures that rescaled layers leave alone, to the bit, and those that they change; closed forms
//! of quadratic losses.

#![cfg(feature = "curvature")]

use crate::common::{self, second_order};

use common::{Real, flat, gamma, integer_network, integers, network, uniform};
use gemmprop::curvature::lanczos::{Extremes, Operator, Options, density, extremes, trace};
use gemmprop::curvature::sharpness::{Landscape, adaptive_operator, filter_normalised, operator};
use gemmprop::{
    Bias, Dataset, Error, Loss, Mlp, Parameters, Products, Scalar, SoftmaxCrossEntropy, SquaredError, Trainer,
    TrainingSettings, TwiceDifferentiable, curvature::Hessian, rungs::batched,
};
use ndarray::{Array1, Array2, Axis, array, concatenate};
use ndarray_linalg::{EigValsh, UPLO};

fn with_numbers<F: Scalar>(mlp: &Mlp<F>, mut number: impl FnMut(usize) -> f64) -> Parameters<F> {
    let mut v = mlp.zero_gradient();
    v.iter_mut().enumerate().for_each(|(i, v)| *v = F::from_f64(number(i)));
    v
}

fn direction<F: Scalar>(mlp: &Mlp<F>) -> Parameters<F> {
    with_numbers(mlp, |i| (i * 31 % 97) as f64 / 48.5 - 1.0)
}

/// k w[t], k c[t] and w[t+1]/k: the same function. k is a power of two.
fn rescaled<F: Scalar>(mlp: &Mlp<F>, t: usize, k: f64) -> Mlp<F> {
    let mut mlp = mlp.clone();
    let mut scale = |layer: usize, constant: bool, k: F| {
        let mut theta = mlp.parameters_mut();
        let (mut w, mut c) = theta.layers_mut().nth(layer).unwrap();
        w.map_inplace(|w| *w = *w * k);
        if constant {
            c.map_inplace(|c| *c = *c * k);
        }
    };
    scale(t, true, F::from_f64(k));
    scale(t + 1, false, F::from_f64(1.0 / k));
    mlp
}

fn spectrum(mlp: &Mlp<f64>, x: &Array2<f64>, labels: &Array1<usize>, adaptive: bool) -> Extremes {
    let n = mlp.parameters().count();
    let mut hessian = Hessian::new(mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
    let options = Options { steps: n, ..Options::default() };
    let found = match adaptive {
        true => extremes(&mut adaptive_operator(&mut hessian), &options),
        false => extremes(&mut operator(&mut hessian), &options),
    };
    found.unwrap()
}

/// Powers of two go through all arithmetic as they are, so whatever is invariant is so to the last
/// bit.
#[test]
fn rescaled_layers_change_raw_sharpness_alone() {
    for &products in common::products() {
        rescaled_layers_change_raw_sharpness(
            &network::<f64>(&[5, 7, 6, 3], Bias::EveryLayer, 1).with_products(products).unwrap(),
        );
    }
}

fn rescaled_layers_change_raw_sharpness(mlp: &Mlp<f64>) {
    let x = uniform::<f64>(50, 5, 2);
    let labels = Array1::from_shape_fn(50, |i| i % 3);
    let asam = |mlp: &Mlp<f64>, steps| {
        Landscape::new(mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy)
            .unwrap()
            .adaptive_sharpness(0.1, steps)
            .unwrap()
    };
    let (raw, adaptive) = (spectrum(mlp, &x, &labels, false), spectrum(mlp, &x, &labels, true));
    assert!(raw.converged && adaptive.converged && asam(mlp, 1) > 0.0);
    for (t, k) in [(0, 64.0), (0, 1.0 / 64.0), (1, 64.0), (1, 1.0 / 64.0)] {
        let other = rescaled(mlp, t, k);
        assert_eq!(other.predict(x.view()).unwrap(), mlp.predict(x.view()).unwrap());
        // The operator is the same, bit for bit, and so all that follows from it is.
        assert_eq!(spectrum(&other, &x, &labels, true), adaptive, "t {t} k {k}");
        for steps in [1, 3] {
            assert_eq!(asam(&other, steps), asam(mlp, steps), "t {t} k {k}");
        }
        // The block of the layer that became smaller by s grows by s², and λ_max is no smaller than
        // any vᵀHv/vᵀv in it.
        let (shrunk, s) = if k > 1.0 { (t + 1, k) } else { (t, 1.0 / k) };
        let mut hessian = Hessian::new(mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
        let mut v = mlp.zero_gradient();
        let g = hessian.gradient().w().get(shrunk).map_or(hessian.gradient().alpha(), |g| g.view()).to_owned();
        v.layers_mut().nth(shrunk).unwrap().0.assign(&g);
        let mut hv = mlp.zero_gradient();
        hessian.apply(&v, &mut hv).unwrap();
        let dot = |a: &Parameters<f64>, b: &Parameters<f64>| a.iter().zip(b.iter()).map(|(a, b)| a * b).sum::<f64>();
        let predicted = s * s * dot(&v, &hv) / dot(&v, &v);
        let found = &spectrum(&other, &x, &labels, false).largest[0];
        assert!(predicted > raw.largest[0].value, "t {t} k {k}: nothing is predicted, {predicted}");
        assert!(found.value + found.error >= predicted * (1.0 - gamma(1000, f64::U)), "t {t} k {k}: {found:?}");
    }
}

/// H = X̃ᵀX̃/n of squared error, its eigenvalues by LAPACK. Rounding: nε‖A‖ four times, as lanczos
/// says.
#[test]
fn the_spectrum_of_a_linear_model_is_that_of_xx_over_n() {
    let (n, inputs) = (40, 6);
    let mlp = network::<f64>(&[inputs, 1], Bias::Input, 1);
    let (x, y) = (uniform::<f64>(n, inputs, 2), uniform::<f64>(n, 1, 3));
    let extended = concatenate![Axis(1), x, Array2::ones((n, 1))];
    let eigenvalues = (extended.t().dot(&extended) / n as f64).eigvalsh(UPLO::Lower).unwrap();
    let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let found = extremes(&mut operator(&mut hessian), &Options::default()).unwrap();
    let rounding = 4.0 * (n * (inputs + 1)) as f64 * f64::EPSILON * eigenvalues[inputs];
    for (pair, expected) in [(&found.largest[0], eigenvalues[inputs]), (&found.smallest[0], eigenvalues[0])] {
        assert!((pair.value - expected).abs() <= pair.error + rounding, "{} is not {expected}", pair.value);
    }
    // Over all of the space, one probe is exact: its quadrature has the whole spectrum.
    let mean = density(&mut operator(&mut hessian), 30, inputs + 1, 4).unwrap().mean(|theta| theta);
    let estimate = trace(&mut operator(&mut hessian), 30, 4).unwrap();
    assert!((estimate.value - eigenvalues.sum()).abs() <= 5.0 * estimate.standard_error);
    assert!((mean.value * (inputs + 1) as f64 - estimate.value).abs() <= 30.0 * rounding);
}

/// The whole H of a deep network, column by column (tests/hessian.rs has these against differences
/// of gradients), by LAPACK: both ends of the spectrum, which has negative eigenvalues, and the
/// trace. Rounding: that of a product is below nε‖A‖, and lanczos's four times that.
#[test]
fn the_spectrum_of_a_deep_network_is_that_of_its_whole_hessian() {
    let mlp = network::<f64>(&[3, 6, 5, 3], Bias::EveryLayer, 1);
    let n = mlp.parameters().count();
    let (x, labels) = (uniform::<f64>(40, 3, 2), Array1::from_shape_fn(40, |i| i * i % 3));
    let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
    let mut whole = Array2::<f64>::zeros((n, n));
    let mut product = mlp.zero_gradient();
    for (j, mut column) in whole.columns_mut().into_iter().enumerate() {
        hessian.apply(&with_numbers(&mlp, |i| f64::from(u8::from(i == j))), &mut product).unwrap();
        column.assign(&Array1::from(flat(&product)));
    }
    let norm = whole.iter().map(|a| a * a).sum::<f64>().sqrt();
    let rounding = 8.0 * n as f64 * f64::EPSILON * norm;
    assert!(whole.iter().zip(whole.t()).all(|(a, b)| (a - b).abs() <= rounding), "symmetric");
    let eigenvalues = whole.eigvalsh(UPLO::Lower).unwrap();
    assert!(eigenvalues[0] < -1e-3 * norm && eigenvalues[n - 1] > 0.1 * norm, "{eigenvalues}");
    let options = Options { largest: 3, smallest: 3, steps: n, tolerance: 1e-9, ..Options::default() };
    let found = extremes(&mut operator(&mut hessian), &options).unwrap();
    for i in 0..3 {
        for (pair, expected) in [(&found.largest[i], eigenvalues[n - 1 - i]), (&found.smallest[i], eigenvalues[i])] {
            assert!((pair.value - expected).abs() <= pair.error + rounding, "{} is not {expected}", pair.value);
        }
    }
    let estimate = trace(&mut operator(&mut hessian), 200, 4).unwrap();
    assert!((estimate.value - eigenvalues.sum()).abs() <= 5.0 * estimate.standard_error);
    let square = density(&mut operator(&mut hessian), 200, 20, 4).unwrap().mean(|theta| theta * theta);
    let expected = eigenvalues.iter().map(|theta| theta * theta).sum::<f64>() / n as f64;
    assert!((square.value - expected).abs() <= 5.0 * square.standard_error);
}

/// |D| H |D| has the entries |θ_i| H_ij |θ_j|.
#[test]
fn the_adaptive_operator_is_h_between_sizes_of_parameters() {
    let mlp = network::<f64>(&[3, 4, 2], Bias::Input, 1);
    let (x, y) = (uniform::<f64>(20, 3, 2), uniform::<f64>(20, 2, 3));
    let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let (theta, n) = (flat(mlp.parameters()), mlp.parameters().count());
    for j in 0..n {
        let unit = Array1::from_shape_fn(n, |i| f64::from(i == j));
        let (mut raw, mut adaptive) = (Array1::zeros(n), Array1::zeros(n));
        operator(&mut hessian).apply(unit.view(), raw.view_mut()).unwrap();
        adaptive_operator(&mut hessian).apply(unit.view(), adaptive.view_mut()).unwrap();
        let column = with_numbers(&mlp, |i| unit[i]);
        let (_, bound) = second_order::product(&mlp, x.view(), (second_order::Kind::Squared, &y), &column, false);
        for i in 0..n {
            let sizes = theta[i].abs() * theta[j].abs();
            let expected = sizes * raw[i];
            // Each product is off by the bound, here with |θ_j| along its paths; then the factors.
            let bound = 2.0 * sizes * bound[i] + gamma(8, f64::U) * expected.abs();
            assert!((adaptive[i] - expected).abs() <= bound, "[{i}, {j}]: {} and {expected}", adaptive[i]);
        }
    }
}

/// A convex loss takes its maximum over a box in a corner: all of them are tried. The first step
/// goes to the corner of the linearised loss, which lies above the tangent.
#[test]
fn box_sharpness_of_a_quadratic_is_below_its_best_corner_and_above_the_tangent() {
    let (x, y) = (integers::<f64>(16, 4, 2), integers::<f64>(16, 1, 3));
    for (seed, epsilon) in [(1, 1e-3), (2, 5e-4), (3, 0.5)] {
        let mlp = integer_network::<f64>(&[4, 1], Bias::Input, seed);
        let at = |theta: &[f64]| {
            let theta = with_numbers(&mlp, |i| theta[i]);
            let (mlp, mut g) = (Mlp::from_parameters(&[4, 1], Bias::Input, theta).unwrap(), mlp.zero_gradient());
            let value = batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, &mut g).unwrap();
            (value, flat(&g))
        };
        let theta = flat(mlp.parameters());
        let (start, g) = at(&theta);
        let sizes: Vec<f64> = theta.iter().map(|theta| epsilon * (theta.abs() + 1.0)).collect();
        let corner = |bits: usize| {
            let side = |i: usize| if bits >> i & 1 == 1 { sizes[i] } else { -sizes[i] };
            at(&theta.iter().enumerate().map(|(i, theta)| theta + side(i)).collect::<Vec<_>>()).0
        };
        let best = (0..1 << theta.len()).map(corner).fold(start, f64::max);
        let tangent: f64 = g.iter().zip(&sizes).map(|(g, size)| g.abs() * size).sum();
        let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
        let mut before = 0.0;
        for iterations in [1, 5, 20] {
            let found = landscape.box_sharpness(epsilon, iterations).unwrap() / 100.0 * (1.0 + start);
            // L is a sum of positive terms, each good to a few roundings of a ŷ whose terms are not
            // much larger.
            let rounding = gamma(200, f64::U) * best;
            assert!(found <= best - start + rounding, "{found} is above {}", best - start);
            assert!(found >= tangent - rounding && found >= before, "{found} after {iterations}, tangent {tangent}");
            before = found;
        }
    }
}

/// 1 − ½(ŷ − y)²: concave, so the maximum may lie inside the box.
struct Hill;

impl Loss<f64> for Hill {
    type Target = f64;

    fn target_len(&self, outputs: usize) -> gemmprop::Result<usize> {
        Ok(outputs)
    }

    fn check(&self, _row: usize, _y: &[f64], _outputs: usize) -> gemmprop::Result<()> {
        Ok(())
    }

    fn value_and_derivative(&self, y_hat: &[f64], y: &[f64], d: &mut [f64]) -> f64 {
        d[0] = y[0] - y_hat[0];
        1.0 - 0.5 * d[0] * d[0]
    }
}

impl TwiceDifferentiable<f64> for Hill {
    fn second_derivative(&self, _y_hat: &[f64], _y: &[f64], v: &[f64], hv: &mut [f64]) {
        hv[0] = -v[0];
    }
}

/// With x = ±1, L = 1 − ½((α − 0.3)² + (b + 0.7)²) around θ = 0. A step s that leads no further up
/// means that |α − 0.3| + |b + 0.7| ≤ s, and there are never more than three that do at one s: of
/// 80 iterations 20 halve it, to 2⁻¹⁹.
#[test]
fn box_sharpness_finds_a_maximum_inside() {
    let zeros = Parameters::zeros(&[1, 1], Bias::None).unwrap();
    let mlp = Mlp::from_parameters(&[1, 1], Bias::None, zeros).unwrap();
    let (x, y) = (array![[1.0], [-1.0]], array![0.3 - 0.7, -0.3 - 0.7]);
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &Hill).unwrap();
    let start = 1.0 - 0.5 * (0.3 * 0.3 + 0.7 * 0.7);
    let found = landscape.box_sharpness(1.0, 80).unwrap() / 100.0 * (1.0 + start);
    assert!((found - (1.0 - start)).abs() <= 2.0_f64.powi(-38), "{found} and {}", 1.0 - start);
}

/// Where the gradient is 0 there is still a way up.
#[test]
fn box_sharpness_leaves_an_exact_minimum() {
    let mlp = Mlp::from_parameters(&[2, 1], Bias::Input, Parameters::zeros(&[2, 1], Bias::Input).unwrap()).unwrap();
    let (x, y) = (uniform::<f64>(8, 2, 1), Array2::zeros((8, 1)));
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    assert!(landscape.box_sharpness(1e-3, 5).unwrap() > 0.0);
    // θ = 0 has no neighbours at a finite distance in units of its size.
    assert_eq!(landscape.adaptive_sharpness(0.5, 2).unwrap(), 0.0);
}

/// The steps written out, each from the gradient that the one before has found.
#[test]
fn adaptive_sharpness_is_the_loss_some_ascent_steps_away() {
    fn check<F: Real, L: TwiceDifferentiable<F>>(widths: &[usize], y: &Array2<L::Target>, loss: &L) {
        common::products().iter().for_each(|&products| check_products::<F, L>(widths, products, y, loss));
    }
    fn check_products<F: Real, L: TwiceDifferentiable<F>>(
        widths: &[usize],
        products: Products,
        y: &Array2<L::Target>,
        loss: &L,
    ) {
        let rho = 0.05;
        let mlp = network::<F>(widths, Bias::EveryLayer, 1).with_products(products).unwrap();
        let x = uniform::<F>(y.nrows(), widths[0], 2);
        let theta = flat(mlp.parameters());
        let (mut point, mut g, mut best) = (mlp.clone(), mlp.zero_gradient(), 0.0_f64);
        let start = batched::loss_gradient(&mlp, x.view(), y.view(), loss, &mut g).unwrap();
        for steps in 1..=4 {
            let g_of_step = flat(&g);
            let norm = theta.iter().zip(&g_of_step).map(|(theta, g)| (theta * g).powi(2)).sum::<f64>().sqrt();
            let delta: Vec<f64> = theta.iter().zip(g_of_step).map(|(p, g)| rho * p * p * g / norm).collect();
            let in_units: f64 = delta.iter().zip(&theta).map(|(delta, theta)| (delta / theta).powi(2)).sum();
            assert!((in_units.sqrt() - rho).abs() <= gamma(2 * theta.len() + 20, f64::U) * rho);
            let moved = with_numbers(&mlp, |i| theta[i] + delta[i]);
            point.set_parameters(&moved).unwrap();
            let end = batched::loss_gradient(&point, x.view(), y.view(), loss, &mut g).unwrap();
            best = best.max(end - start);
            let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), loss).unwrap();
            let found = landscape.adaptive_sharpness(rho, steps).unwrap();
            // θ + δ may round to a neighbour, in blocks of samples g may: a few u of what ℓ is made
            // of, of order 1 to 10.
            let rounding = 10.0 * gamma(2000, F::U) * (start + end + 1.0);
            assert!(found > 0.0 && (found - best).abs() <= rounding, "{products:?} {steps} steps: {found} and {best}");
        }
    }
    let labels = Array2::from_shape_fn((2100, 1), |(i, _)| i % 3);
    check::<f32, _>(&[4, 9, 3], &labels, &SoftmaxCrossEntropy);
    check::<f64, _>(&[4, 9, 3], &labels, &SoftmaxCrossEntropy);
    check::<f64, _>(&[4, 9, 5, 2], &uniform::<f64>(30, 2, 3), &SquaredError);
}

/// For a linear model, L(θ + αd + βe) is a quadratic form, with H's products: exactly so on whole
/// numbers.
#[test]
fn lines_and_planes_of_a_quadratic_are_its_parabolas() {
    for &products in common::products() {
        planes_are_parabolas(&integer_network::<f64>(&[5, 2], Bias::Input, 1).with_products(products).unwrap());
    }
}

fn planes_are_parabolas(mlp: &Mlp<f64>) {
    let (x, y) = (integers::<f64>(32, 5, 2), integers::<f64>(32, 2, 3));
    let [d, e] = [3, 5].map(|k| with_numbers(mlp, |i| (i % k) as f64 - 1.0));
    let mut hessian = Hessian::new(mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let (mut hd, mut he) = (mlp.zero_gradient(), mlp.zero_gradient());
    hessian.apply(&d, &mut hd).unwrap();
    hessian.apply(&e, &mut he).unwrap();
    let dot = |a: &Parameters<f64>, b: &Parameters<f64>| a.iter().zip(b.iter()).map(|(a, b)| a * b).sum::<f64>();
    let g = hessian.gradient();
    let expected = |a: f64, b: f64| {
        let bend = 0.5 * a * a * dot(&d, &hd) + a * b * dot(&d, &he) + 0.5 * b * b * dot(&e, &he);
        hessian.loss() + a * dot(g, &d) + b * dot(g, &e) + bend
    };
    let (alphas, betas) = ([-2.0, -0.5, 0.0, 0.25, 3.0], [-1.0, 0.0, 0.125]);
    let mut landscape = Landscape::new(mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let plane = landscape.plane([&d, &e], &alphas, &betas).unwrap();
    assert_eq!(plane, Array2::from_shape_fn((5, 3), |(i, j)| expected(alphas[i], betas[j])));
    assert_eq!(landscape.line(&d, &alphas).unwrap(), plane.column(1).to_vec());
    assert_eq!(plane[[2, 1]], hessian.loss());
}

/// Blocks of samples and ragged rests: at 0 it is the mean loss, up to the order of its sum, and
/// nothing of a former point remains.
#[test]
fn a_line_passes_through_the_loss() {
    let of_products = |n| common::products().iter().map(move |&products| (n, products));
    for (n, products) in [1, 100, 5000].into_iter().flat_map(of_products) {
        let mlp = network::<f32>(&[6, 20, 10, 4], Bias::Input, 1).with_products(products).unwrap();
        let (x, labels) = (uniform::<f32>(n, 6, 2), Array1::from_shape_fn(n, |i| i % 4));
        let hessian = Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
        let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
        let losses = landscape.line(&direction(&mlp), &[0.0, 1.0, 0.0]).unwrap();
        assert!(losses[0] == losses[2] && losses[0] != losses[1]);
        assert!((losses[0] - hessian.loss()).abs() <= gamma(2 * n, f64::U) * losses[0], "{products:?} n {n}");
    }
}

#[test]
fn filters_take_the_norms_of_the_networks_rows() {
    let mlp = network::<f64>(&[4, 7, 5, 3], Bias::EveryLayer, 1);
    let mut direction = direction(&mlp);
    // A neuron without a direction.
    direction.w_mut().nth(1).unwrap().row_mut(2).fill(0.0);
    direction.c_mut().nth(1).unwrap()[2] = 0.0;
    let normalised = filter_normalised(&direction, &mlp).unwrap();
    let rows = |p: &Parameters<f64>| -> Vec<Vec<f64>> {
        let w = p.w().iter().map(|w| w.view()).chain([p.alpha()]);
        let c = p.c().iter().map(|c| c.view()).chain([p.b()]);
        w.zip(c)
            .flat_map(|(w, c)| {
                w.outer_iter().zip(c).map(|(w, &c)| w.iter().copied().chain([c]).collect()).collect::<Vec<_>>()
            })
            .collect()
    };
    let norm = |row: &[f64]| row.iter().map(|a| a * a).sum::<f64>().sqrt();
    let of_all = rows(mlp.parameters()).into_iter().zip(rows(&direction)).zip(rows(&normalised));
    for (i, ((own, direction), found)) in of_all.enumerate() {
        if i == 7 + 2 {
            assert!(found.iter().all(|&d| d == 0.0));
            continue;
        }
        let (own, scale) = (norm(&own), norm(&own) / norm(&direction));
        assert!((norm(&found) - own).abs() <= gamma(40, f64::U) * own, "row {i}");
        for (found, d) in found.iter().zip(direction) {
            assert!((found - scale * d).abs() <= gamma(40, f64::U) * found.abs(), "row {i}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mlp = network::<f64>(&[2, 3, 1], Bias::Input, 1);
    let (x, y) = (uniform::<f64>(4, 2, 1), uniform::<f64>(4, 1, 2));
    let short = Landscape::new(&mlp, Dataset::new(x.view(), uniform::<f64>(3, 1, 2).view()), &SquaredError)
        .map(drop)
        .unwrap_err();
    assert_eq!(short, Error::Length { what: "y", expected: 4, found: 3 });
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let refused = |name, found| Error::Hyperparameter { name, expected: "a finite, positive number", found };
    assert_eq!(landscape.box_sharpness(0.0, 3).unwrap_err(), refused("epsilon", 0.0));
    assert_eq!(landscape.adaptive_sharpness(-1.0, 3).unwrap_err(), refused("rho", -1.0));
    assert_eq!(landscape.adaptive_sharpness(f64::INFINITY, 3).unwrap_err(), refused("rho", f64::INFINITY));
    assert_eq!(landscape.adaptive_sharpness(0.1, 0).unwrap_err(), refused("steps", 0.0));
    assert_eq!(landscape.box_sharpness(0.1, 0).unwrap_err(), refused("iterations", 0.0));
    let other = Parameters::<f64>::zeros(&[2, 4, 1], Bias::Input).unwrap();
    let shape = |error| matches!(error, Error::Shape { what: "direction", .. });
    assert!(shape(landscape.line(&other, &[0.0]).unwrap_err()));
    assert!(shape(landscape.plane([&mlp.zero_gradient(), &other], &[0.0], &[1.0]).unwrap_err()));
    assert!(shape(filter_normalised(&other, &mlp).unwrap_err()));
}

/// A model that standardises, and weights of samples: curvature and the loss near by are those of
/// the transformed data, and a weight of two is a sample twice.
#[test]
fn curvature_is_that_of_what_was_trained() {
    let x = 1000.0 + 500.0 * uniform::<f64>(40, 4, 2);
    let labels = Array1::from_shape_fn(40, |i| i % 3);
    let weights = Array1::from_shape_fn(40, |i| [1.0, 2.0, 0.0, 1.0][i % 4]);
    let training = TrainingSettings { epochs: 3, standardize: true, ..TrainingSettings::default() };
    let mlp = network::<f64>(&[4, 6, 3], Bias::Input, 1);
    let mut trainer = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
    let data = Dataset::new(x.view(), labels.view()).weights(weights.view());
    trainer.fit(data, None, &mut ()).unwrap();
    let model = trainer.into_model();
    let z = model.standardizer.as_ref().unwrap().transform(x.view()).unwrap();
    let transformed = Dataset::new(z.view(), labels.view()).weights(weights.view());
    let loss = SoftmaxCrossEntropy;
    let top = |hessian: &mut Hessian<f64, SoftmaxCrossEntropy>| {
        extremes(&mut operator(hessian), &Options::default()).unwrap().largest.remove(0)
    };
    let (mut raw, mut of_z) =
        (Hessian::new(&model, data, &loss).unwrap(), Hessian::new(&model.mlp, transformed, &loss).unwrap());
    assert_eq!(top(&mut raw), top(&mut of_z));
    let [mut raw, mut of_z] =
        [Landscape::new(&model, data, &loss).unwrap(), Landscape::new(&model.mlp, transformed, &loss).unwrap()];
    let measures = |landscape: &mut Landscape<f64, SoftmaxCrossEntropy>| {
        let along = landscape.line(&direction(&model.mlp), &[0.0, 0.5]).unwrap();
        (along, landscape.box_sharpness(1e-3, 3).unwrap(), landscape.adaptive_sharpness(0.1, 3).unwrap())
    };
    assert_eq!(measures(&mut raw), measures(&mut of_z));
    // The same 40 samples in other words: those of weight 2 twice, those of weight 0 not at all.
    // The order of sums is another.
    let often: Vec<usize> = weights.iter().enumerate().flat_map(|(i, &w)| vec![i; w as usize]).collect();
    let (x, labels) = (x.select(Axis(0), &often), labels.select(Axis(0), &often));
    let mut hessian = Hessian::new(&model, Dataset::new(x.view(), labels.view()), &loss).unwrap();
    let weighted = top(&mut Hessian::new(&model, data, &loss).unwrap());
    let copied = top(&mut hessian);
    let rounding = gamma(4000, f64::U) * copied.value;
    assert!(
        (weighted.value - copied.value).abs() <= weighted.error + copied.error + rounding,
        "{weighted:?} {copied:?}"
    );
    let along = Landscape::new(&model, data, &loss).unwrap().line(&direction(&model.mlp), &[0.0]).unwrap();
    assert!((along[0] - hessian.loss()).abs() <= gamma(200, f64::U) * hessian.loss());
}

#[test]
fn an_operator_knows_its_order_and_its_precision() {
    let (x, y) = (uniform::<f32>(9, 3, 1), uniform::<f32>(9, 2, 2));
    let mlp = network::<f32>(&[3, 4, 2], Bias::Input, 1);
    let n = mlp.parameters().count();
    let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    let found = extremes(&mut operator(&mut hessian), &Options::default()).unwrap();
    assert_eq!(found.largest[0].vector.len(), n);
    assert!(found.converged && found.largest[0].error >= f64::from(f32::EPSILON) * found.largest[0].value);
    for adaptive in [false, true] {
        let mut apply = |v: usize, av: usize| {
            let (v, mut av) = (Array1::ones(v), Array1::zeros(av));
            match adaptive {
                true => adaptive_operator(&mut hessian).apply(v.view(), av.view_mut()),
                false => operator(&mut hessian).apply(v.view(), av.view_mut()),
            }
        };
        assert_eq!(apply(n, n), Ok(()));
        for wrong in [n - 1, n + 1, 0] {
            let shape = |what| Err(Error::Shape { what, expected: vec![n], found: vec![wrong] });
            assert_eq!(apply(wrong, n), shape("v"));
            assert_eq!(apply(n, wrong), shape("av"));
        }
    }
}

/// Far enough away a loss overflows: the maximum is infinite, or there is none. It is never what
/// was before.
#[test]
fn what_overflows_is_no_maximum_of_0() {
    fn check<F: Real, L: TwiceDifferentiable<F>>(widths: &[usize], y: &Array2<L::Target>, loss: &L, far: f64) {
        let mlp = network::<F>(widths, Bias::EveryLayer, 1);
        let x = uniform::<F>(y.nrows(), widths[0], 2);
        let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), loss).unwrap();
        for found in [landscape.box_sharpness(far, 5), landscape.adaptive_sharpness(far, 5)] {
            let no_number = matches!(found, Err(Error::Undefined { what: "loss", .. }));
            assert!(no_number || found == Ok(f64::INFINITY), "{widths:?} {found:?}");
        }
    }
    let labels = Array2::from_shape_fn((30, 1), |(i, _)| i % 3);
    check::<f32, _>(&[4, 9, 3], &labels, &SoftmaxCrossEntropy, 1e20);
    check::<f64, _>(&[4, 9, 3], &labels, &SoftmaxCrossEntropy, 1e160);
    check::<f32, _>(&[4, 9, 5, 2], &uniform::<f32>(30, 2, 3), &SquaredError, 1e20);
    check::<f64, _>(&[4, 2], &uniform::<f64>(30, 2, 3), &SquaredError, 1e200);
    // One number that overflows in its square alone.
    let mlp = integer_network::<f32>(&[1, 1], Bias::None, 1);
    let (x, y) = (array![[1.0]], array![[3.0]]);
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
    assert_eq!(landscape.box_sharpness(1e20, 3), Ok(f64::INFINITY));
}

#[test]
fn a_nan_in_the_parameters_is_an_error() {
    let mut mlp = network::<f64>(&[3, 4, 2], Bias::Input, 1);
    mlp.parameters_mut().iter_mut().next().map(|p| *p = f64::NAN).unwrap();
    let (x, labels) = (uniform::<f64>(9, 3, 1), Array1::from_shape_fn(9, |i| i % 2));
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
    for found in [landscape.box_sharpness(1e-3, 3), landscape.adaptive_sharpness(0.1, 3)] {
        assert!(matches!(found, Err(Error::Undefined { what: "loss", at: "the parameters", .. })), "{found:?}");
    }
}

/// A distance within which the number type has no other point.
#[test]
fn a_distance_that_vanishes_is_refused() {
    let mlp = network::<f32>(&[3, 4, 2], Bias::EveryLayer, 1);
    let (x, labels) = (uniform::<f32>(9, 3, 1), Array1::from_shape_fn(9, |i| i % 2));
    let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
    for found in [1e-30, 1e-50, 1e-12] {
        let refused = |name| {
            Err(Error::Hyperparameter { name, expected: "a distance that the network's type can tell from 0", found })
        };
        assert_eq!(landscape.box_sharpness(found, 3), refused("epsilon"));
        assert_eq!(landscape.adaptive_sharpness(found, 3), refused("rho"));
    }
    assert!(landscape.box_sharpness(1e-3, 3).unwrap() > 0.0 && landscape.adaptive_sharpness(1e-3, 3).unwrap() > 0.0);
}

/// Without biases and with x and y times s, the squared error is s² times what it was: for a
/// power of two, to the last bit. The squares of its gradient are beyond the range of the numbers
/// for both of these. (b is 0 and stays so.)
#[test]
fn squares_of_gradients_neither_overflow_nor_vanish() {
    let widths = [4, 5, 2];
    let mut mlp = network::<f64>(&widths, Bias::None, 1);
    mlp.parameters_mut().b_mut().fill(0.0);
    let (x, y) = (uniform::<f64>(30, 4, 2), uniform::<f64>(30, 2, 3));
    let of = |s: f64| {
        let (x, y) = (s * &x, s * &y);
        let mut landscape = Landscape::new(&mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap();
        landscape.adaptive_sharpness(0.1, 3).unwrap()
    };
    let expected = of(1.0);
    assert!(expected > 0.0);
    for power in [266, -400, -480] {
        let s = 2.0_f64.powi(power);
        assert_eq!(of(s) / s / s, expected, "2^{power}");
    }
}

/// A direction of any size has the networks's norms after it.
#[test]
fn directions_of_any_size_are_normalised() {
    let mlp = network::<f64>(&[4, 7, 3], Bias::EveryLayer, 1);
    let expected = filter_normalised(&direction(&mlp), &mlp).unwrap();
    for power in [-1000, -600, 600, 1000] {
        let far = with_numbers(&mlp, |i| ((i * 31 % 97) as f64 / 48.5 - 1.0) * 2.0_f64.powi(power));
        assert_eq!(filter_normalised(&far, &mlp).unwrap(), expected, "2^{power}");
    }
}
