//! H v against plain loops, against differenced gradients and closed forms; its bits, its symmetry
//! and its cost.

use crate::common::{self, second_order};

use common::{Real, assert_within, flat, integer_network, integers, network, uniform};
use gemmprop::{
    Bias, Dataset, Logistic, Mlp, Parameters, Products, Scalar, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable,
    curvature::Hessian,
    rungs::{batched, per_neuron},
};
use ndarray::{Array2, ArrayView2, Axis};
use second_order::{Kind, Weighted};

const CONSTANTS: [Bias; 3] = [Bias::Input, Bias::EveryLayer, Bias::None];

fn with_numbers<F: Scalar>(mlp: &Mlp<F>, mut number: impl FnMut(usize) -> f64) -> Parameters<F> {
    let mut v = mlp.zero_gradient();
    v.iter_mut().enumerate().for_each(|(i, v)| *v = F::from_f64(number(i)));
    v
}

/// Small whole numbers.
fn whole_direction<F: Scalar>(mlp: &Mlp<F>) -> Parameters<F> {
    with_numbers(mlp, |i| ((i * 7 + i / 5) % 3) as f64 - 1.0)
}

fn product<F: Real, L: TwiceDifferentiable<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: &Array2<L::Target>,
    loss: &L,
    v: &Parameters<F>,
) -> Vec<f64> {
    // The previous contents of `hv` do not matter.
    let mut hv = with_numbers(mlp, |_| f64::NAN);
    Hessian::new(mlp, Dataset::new(x, y.view()), loss).unwrap().apply(v, &mut hv).unwrap();
    flat(&hv)
}

/// The losses that this number of outputs allows, each with its targets, as it takes them and in
/// double precision.
fn for_each_loss<F: Real>(outputs: usize, n: usize, mut check: impl FnMut(Kind, &Array2<f64>)) {
    check(Kind::Squared, &integers::<f64>(n, outputs, 5));
    check(Kind::Weighted, &integers::<f64>(n, outputs, 6));
    if outputs == 1 {
        check(Kind::Logistic, &Array2::from_shape_fn((n, 1), |(i, _)| f64::from(i % 3 == 0)));
    } else {
        check(Kind::Softmax, &Array2::from_shape_fn((n, 1), |(i, _)| (i * 5 % outputs) as f64));
    }
}

fn product_of<F: Real>(kind: Kind, mlp: &Mlp<F>, x: ArrayView2<F>, y: &Array2<f64>, v: &Parameters<F>) -> Vec<f64> {
    let real = y.mapv(F::from_f64);
    match kind {
        Kind::Squared => product(mlp, x, &real, &SquaredError, v),
        Kind::Weighted => product(mlp, x, &real, &Weighted, v),
        Kind::Logistic => product(mlp, x, &real, &Logistic, v),
        Kind::Softmax => product(mlp, x, &y.mapv(|y| y as usize), &SoftmaxCrossEntropy, v),
    }
}

/// On whole numbers, where polynomial losses are exact; and with the other losses on random ones,
/// within the bounds.
fn agrees_with_loops<F: Real>(widths: &[usize], constant: Bias, n: usize) {
    let x = uniform::<F>(4 * n + 16, widths[0], 4);
    let mut certain = common::certain_rows(&network::<F>(widths, constant, 3), x.view());
    certain.truncate(n);
    assert_eq!(certain.len(), n, "{widths:?}");
    let x = x.select(Axis(0), &certain);
    for &products in common::products() {
        let [whole, any] = [integer_network::<F>(widths, constant, 3), network(widths, constant, 3)]
            .map(|mlp| mlp.with_products(products).unwrap());
        let v = [whole_direction(&whole), with_numbers(&any, |i| ((i * 37 + 5) % 97) as f64 / 48.5 - 1.0)];
        for_each_loss::<F>(widths[widths.len() - 1], n, |kind, y| {
            let (mlp, x, v) = match kind.is_polynomial() {
                true => (&whole, &integers::<F>(n, widths[0], 4), &v[0]),
                false => (&any, &x, &v[1]),
            };
            let (expected, bound) = second_order::product(mlp, x.view(), (kind, y), v, true);
            let found = product_of(kind, mlp, x.view(), y, v);
            let what = format!("{widths:?} {constant:?} {products:?} {kind:?} n {n}");
            assert_within(&what, &found, &bound, &expected, &bound);
        });
    }
}

#[test]
fn products_agree_with_plain_loops() {
    for constant in CONSTANTS {
        for widths in [
            &[3, 1][..],
            &[1, 1],
            &[45, 7],
            &[1, 1, 1],
            &[7, 8, 1],
            &[5, 7, 8, 3],
            &[4, 1, 6, 2],
            &[8, 45, 46, 7, 4],
            &[2, 7, 129, 1],
            &[129, 45, 2],
            &[46, 129, 10],
        ] {
            for n in [1, 3, 8, 64] {
                agrees_with_loops::<f32>(widths, constant, n);
                agrees_with_loops::<f64>(widths, constant, n);
            }
        }
    }
}

/// More samples than go through a product at once, so that it is summed over blocks: two whole
/// ones, and a smaller last one.
#[test]
fn blocks_add_up() {
    for widths in [&[3, 1][..], &[3, 5, 2], &[2, 7, 8, 1]] {
        for n in [2048, 2049, 4096, 4096 + 37] {
            agrees_with_loops::<f32>(widths, Bias::EveryLayer, n);
            agrees_with_loops::<f64>(widths, Bias::Input, n);
        }
    }
}

/// uᵀ(H v) and vᵀ(H u) are each off by at most the bound on the product, and their own sums by
/// γ(N).
#[test]
fn the_operator_is_symmetric() {
    fn check<F: Real>(widths: &[usize], constant: Bias) {
        for &products in common::products() {
            check_products::<F>(widths, constant, products);
        }
    }
    fn check_products<F: Real>(widths: &[usize], constant: Bias, products: Products) {
        let n = 40;
        // Halved, so that |ŷ| stays below what the bounds on the losses allow.
        let mut mlp = network::<F>(widths, constant, 7).with_products(products).unwrap();
        mlp.parameters_mut().iter_mut().for_each(|p| *p = F::from_f64(0.5) * *p);
        let x = uniform::<F>(n, widths[0], 8);
        let [u, v] = [3, 11].map(|k| with_numbers(&mlp, |i| ((i * k * k + k) % 97) as f64 / 48.5 - 1.0));
        for_each_loss::<F>(widths[widths.len() - 1], n, |kind, y| {
            let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>();
            let side = |u: &Parameters<F>, v: &Parameters<F>| {
                let (_, bound) = second_order::product(&mlp, x.view(), (kind, y), v, false);
                let (u, hv) = (flat(u), product_of(kind, &mlp, x.view(), y, v));
                let [u_size, hv_size] = [&u, &hv].map(|a| a.iter().map(|a| a.abs()).collect::<Vec<_>>());
                (dot(&u, &hv), dot(&u_size, &bound) + common::gamma(u.len(), f64::U) * dot(&u_size, &hv_size))
            };
            let ((a, of_a), (b, of_b)) = (side(&u, &v), side(&v, &u));
            assert_within(&format!("{widths:?} {constant:?} {products:?} {kind:?}"), &[a], &[of_a], &[b], &[of_b]);
            assert!(of_a + of_b < 1e9 * F::U, "a bound that says little even in f64: {of_a} + {of_b} for {a}");
        });
    }
    for widths in [&[7, 1][..], &[8, 3], &[7, 45, 46, 1], &[129, 46, 8, 10], &[1, 1, 1, 2]] {
        for constant in CONSTANTS {
            check::<f32>(widths, constant);
            check::<f64>(widths, constant);
        }
    }
}

/// Squared error of a network of T hidden layers is, while no mask changes, a polynomial in θ, and
/// its gradient one of degree 2T + 1. The central difference over seven points is exact up to
/// degree 6. Steps of 2⁻⁷ of whole numbers keep all arithmetic exact, so every column of H must
/// equal the differences of the oracle's gradients, bit for bit.
#[test]
fn columns_are_differences_of_gradients() {
    const STEP: f64 = 1.0 / 128.0;
    let loss = SquaredError;
    for ((widths, constant), &products) in [
        (&[3, 2][..], Bias::Input),
        (&[3, 5, 1], Bias::Input),
        (&[2, 4, 3], Bias::EveryLayer),
        (&[3, 4, 3, 2], Bias::EveryLayer),
        (&[4, 3, 5, 1], Bias::None),
    ]
    .into_iter()
    .flat_map(|network| common::products().iter().map(move |products| (network, products)))
    {
        let mlp = integer_network::<f64>(widths, constant, 29).with_products(products).unwrap();
        let all = integers::<f64>(400, widths[0], 22);
        // Samples on no edge of a mask: there u is a whole number but 0.
        let trace = batched::forward(&mlp, all.view()).unwrap();
        let inside = |&r: &usize| (1..=mlp.depth()).all(|t| trace.u(t).row(r).iter().all(|&u| u != 0.0));
        let rows: Vec<usize> = (0..all.nrows()).filter(inside).take(8).collect();
        assert_eq!(rows.len(), 8, "{widths:?}: too few samples inside an activation region");
        let x = all.select(Axis(0), &rows);
        let y = integers::<f64>(8, widths[widths.len() - 1], 23);
        let gradient = |theta: &Parameters<f64>| {
            let mlp = Mlp::from_parameters(widths, constant, theta.clone()).unwrap();
            let mut sum = vec![0.0; theta.count()];
            for (x, y) in x.outer_iter().zip(y.outer_iter()) {
                let mut g = mlp.zero_gradient();
                per_neuron::loss_gradient(&mlp, x, y.as_slice().unwrap(), &loss, &mut g).unwrap();
                sum.iter_mut().zip(g.iter()).for_each(|(sum, g)| *sum += g);
            }
            sum
        };
        let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), y.view()), &loss).unwrap();
        let mut largest = 0.0_f64;
        for j in 0..mlp.parameters().count() {
            let v = with_numbers(&mlp, |i| f64::from(i == j));
            let mut hv = mlp.zero_gradient();
            hessian.apply(&v, &mut hv).unwrap();
            let at = |steps: f64| {
                let mut theta = mlp.parameters().clone();
                theta.iter_mut().zip(v.iter()).for_each(|(p, v)| *p += steps * STEP * v);
                gradient(&theta)
            };
            let [a, b, c] = [1.0, 2.0, 3.0].map(|k| {
                let (up, down) = (at(k), at(-k));
                up.iter().zip(down).map(|(up, down)| up - down).collect::<Vec<f64>>()
            });
            for (i, h) in hv.iter().enumerate() {
                let difference = 45.0 * a[i] - 9.0 * b[i] + c[i];
                assert_eq!(60.0 * STEP * 8.0 * h, difference, "{widths:?} {constant:?} {products:?} H[{i}, {j}]");
                largest = largest.max(h.abs());
            }
        }
        assert!(largest > 0.0);
    }
}

#[test]
fn squared_error_of_a_linear_model_is_xx_over_n() {
    common::products().iter().for_each(|&products| squared_error_is_xx_over_n(products));
}

fn squared_error_is_xx_over_n(products: Products) {
    let (n, inputs, outputs) = (8, 5, 2);
    let mlp = integer_network::<f32>(&[inputs, outputs], Bias::Input, 1).with_products(products).unwrap();
    let (x, y) = (integers::<f32>(n, inputs, 2), integers::<f32>(n, outputs, 3));
    // With the constant 1 as a last column; θ has its numbers behind those of alpha.
    let extended = |r: usize, j: usize| if j < inputs { x[[r, j]] } else { 1.0 };
    let place = |k: usize, j: usize| if j < inputs { k * inputs + j } else { outputs * inputs + k };
    for k in 0..outputs {
        for j in 0..=inputs {
            let v = with_numbers(&mlp, |i| f64::from(i == place(k, j)));
            let column = product(&mlp, x.view(), &y, &SquaredError, &v);
            for l in 0..outputs {
                for i in 0..=inputs {
                    let sum: f32 = (0..n).map(|r| extended(r, i) * extended(r, j)).sum();
                    let expected = if k == l { f64::from(sum) / n as f64 } else { 0.0 };
                    assert_eq!(column[place(l, i)], expected, "H[({l}, {i}), ({k}, {j})]");
                }
            }
        }
    }
}

/// H = (1/n) Σ (diag(p) − p pᵀ) ⊗ x̃ x̃ᵀ; each term is good to the roundings of ŷ, of p and of the
/// sum.
#[test]
fn softmax_of_a_linear_model_has_its_closed_form() {
    common::products().iter().for_each(|&products| softmax_has_its_closed_form(products));
}

fn softmax_has_its_closed_form(products: Products) {
    let (n, inputs, outputs) = (6, 3, 4);
    let mlp = network::<f64>(&[inputs, outputs], Bias::Input, 1).with_products(products).unwrap();
    let (x, y) = (uniform::<f64>(n, inputs, 2), Array2::from_shape_fn((n, 1), |(i, _)| i % outputs));
    let extended = |r: usize, j: usize| if j < inputs { x[[r, j]] } else { 1.0 };
    let place = |k: usize, j: usize| if j < inputs { k * inputs + j } else { outputs * inputs + k };
    let p = mlp.predict(x.view()).unwrap().mapv(f64::exp);
    let p = &p / &p.sum_axis(Axis(1)).insert_axis(Axis(1));
    // ŷ is of order 1 and off by 8u, p by 2 · 8 and some 20 more of its own; then products and a
    // sum.
    let gamma = common::gamma(80 + n, f64::U);
    for (k, j) in (0..outputs).flat_map(|k| (0..=inputs).map(move |j| (k, j))) {
        let v = with_numbers(&mlp, |i| f64::from(i == place(k, j)));
        let column = product(&mlp, x.view(), &y, &SoftmaxCrossEntropy, &v);
        for (l, i) in (0..outputs).flat_map(|l| (0..=inputs).map(move |i| (l, i))) {
            let (mut expected, mut size) = (0.0, 0.0);
            for r in 0..n {
                let (diagonal, xx) = (if k == l { p[[r, k]] } else { 0.0 }, extended(r, i) * extended(r, j) / n as f64);
                expected += (diagonal - p[[r, k]] * p[[r, l]]) * xx;
                size += (diagonal + p[[r, k]] * p[[r, l]]) * xx.abs();
            }
            let error = (column[place(l, i)] - expected).abs();
            assert!(error <= gamma * size, "H[({l}, {i}), ({k}, {j})] is off by {error}, bound {}", gamma * size);
        }
    }
}
