//! What a Hessian is around its products: the loss and gradient that come with it, bits, cost,
//! refusals.

use crate::common;

use common::{flat, network, uniform};
use gemmprop::rungs::count::{Counted, multiplications};
use gemmprop::{
    Bias, Dataset, Error, Mlp, Parameters, Products, Scalar, SoftmaxCrossEntropy, SquaredError, TwiceDifferentiable,
    curvature::Hessian, rungs::batched,
};
use ndarray::{Array2, array};

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn direction<F: Scalar>(mlp: &Mlp<F>) -> Parameters<F> {
    let mut v = mlp.zero_gradient();
    v.iter_mut().enumerate().for_each(|(i, v)| *v = F::from_f64((i * 31 % 97) as f64 / 48.5 - 1.0));
    v
}

/// Loss, gradient and two products, the second of which must not show the first.
fn bits<F: common::Real>(widths: &[usize], n: usize) -> Vec<u64> {
    fn of<F: common::Real, L: TwiceDifferentiable<F>>(widths: &[usize], y: &Array2<L::Target>, loss: &L) -> Vec<u64> {
        let products = |&products| of_products::<F, L>(widths, products, y, loss);
        common::products().iter().flat_map(products).collect()
    }
    fn of_products<F: common::Real, L: TwiceDifferentiable<F>>(
        widths: &[usize],
        products: Products,
        y: &Array2<L::Target>,
        loss: &L,
    ) -> Vec<u64> {
        let mlp = network::<F>(widths, Bias::EveryLayer, 1).with_products(products).unwrap();
        let x = uniform::<F>(y.nrows(), widths[0], 2);
        let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), y.view()), loss).unwrap();
        let (v, mut hv, mut hhv, mut again) =
            (direction(&mlp), mlp.zero_gradient(), mlp.zero_gradient(), mlp.zero_gradient());
        hessian.apply(&v, &mut hv).unwrap();
        hessian.apply(&hv, &mut hhv).unwrap();
        hessian.apply(&v, &mut again).unwrap();
        assert!(hv == again, "{widths:?} {products:?}: the same product twice");
        if y.nrows() <= 2048 {
            let mut g = mlp.zero_gradient();
            let value = batched::loss_gradient(&mlp, x.view(), y.view(), loss, &mut g).unwrap();
            assert!(
                hessian.loss() == value && *hessian.gradient() == g,
                "{widths:?} {products:?}: the gradient of rung 4"
            );
        }
        let numbers = [hessian.gradient(), &hv, &hhv].map(flat).concat();
        [hessian.loss()].into_iter().chain(numbers).map(f64::to_bits).collect()
    }
    match widths[widths.len() - 1] {
        1 => of::<F, SquaredError>(widths, &uniform::<F>(n, 1, 3), &SquaredError),
        m => of::<F, SoftmaxCrossEntropy>(widths, &Array2::from_shape_fn((n, 1), |(i, _)| i % m), &SoftmaxCrossEntropy),
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for (widths, n) in [
        (&[64, 64, 64, 10][..], 1437),
        (&[784, 300, 100, 10], 500),
        (&[129, 200, 90, 1], 333),
        (&[40, 256, 256, 1], 2048 + 100),
        (&[46, 45, 7, 8, 3], 1000),
        (&[300, 300, 1], 1),
        (&[900, 40], 700),
    ] {
        let alone = (in_pool(1, || bits::<f32>(widths, n)), in_pool(1, || bits::<f64>(widths, n)));
        for threads in [2, 3, 8] {
            let shared = in_pool(threads, || (bits::<f32>(widths, n), bits::<f64>(widths, n)));
            assert!(shared == alone, "{widths:?} n {n}: {threads} threads");
        }
    }
}

/// For n samples, 6E − 4 d₀d₁ each, E with the head's, and what the loss makes (softmax 2m, squared
/// error nothing); then the mean. BLAS takes it as a factor of each product: one for each number of
/// w[t] for each product, and one for each of the constants'. In chains it is a factor of each
/// number of R ∂ℓ/∂Ŷ.
#[test]
fn multiplications_equal_the_closed_formula() {
    fn check<L: TwiceDifferentiable<Counted>>(
        widths: &[usize],
        y: &Array2<L::Target>,
        loss: &L,
        of_loss: usize,
        constant: Bias,
    ) {
        for &products in common::products() {
            let mlp = Mlp::<Counted>::he(widths, constant, 1).unwrap().with_products(products).unwrap();
            check_network(&mlp, y, loss, of_loss);
        }
    }
    fn check_network<L: TwiceDifferentiable<Counted>>(
        mlp: &Mlp<Counted>,
        y: &Array2<L::Target>,
        loss: &L,
        of_loss: usize,
    ) {
        let (n, widths) = (y.nrows(), mlp.widths());
        let x = Array2::from_shape_fn((n, widths[0]), |(i, j)| Counted(((i * 5 + j * 3) % 7) as f64 - 3.0));
        let mut hessian = Hessian::new(mlp, Dataset::new(x.view(), y.view()), loss).unwrap();
        let (v, mut hv) = (direction(mlp), mlp.zero_gradient());
        let found = multiplications(|| hessian.apply(&v, &mut hv).unwrap()).1 as usize;
        let edges: Vec<usize> = widths.windows(2).map(|d| d[0] * d[1]).collect();
        let all: usize = edges.iter().sum();
        let constants = mlp.parameters().count() - all;
        let mean = match mlp.products() {
            _ if n == 1 => 0,
            Products::Native => n * mlp.outputs(),
            _ => 2 * all - edges[0] + constants,
        };
        let products = mlp.products();
        assert_eq!(found, n * (6 * all - 4 * edges[0] + of_loss) + mean, "{widths:?} {constants} {products:?} n {n}");
    }
    for widths in [&[3, 1][..], &[1, 4], &[5, 7, 1], &[4, 6, 3], &[2, 1, 5, 2], &[3, 8, 7, 4, 1], &[1, 1, 1, 1, 3]] {
        for constant in [Bias::Input, Bias::EveryLayer, Bias::None] {
            for n in [1, 2, 7, 9] {
                let m = widths[widths.len() - 1];
                check(widths, &Array2::from_elem((n, m), Counted(1.0)), &SquaredError, 0, constant);
                if m > 1 {
                    let labels = Array2::from_shape_fn((n, 1), |(i, _)| i % m);
                    check(widths, &labels, &SoftmaxCrossEntropy, 2 * m, constant);
                }
            }
        }
    }
}

/// Columns of something larger, or transposed: copied where the products need it.
#[test]
fn data_may_lie_in_any_order() {
    for &products in common::products() {
        data_may_lie_in_any_order_for(&network::<f64>(&[5, 7, 3], Bias::Input, 1).with_products(products).unwrap());
    }
}

fn data_may_lie_in_any_order_for(mlp: &Mlp<f64>) {
    let (x, y) = (uniform::<f64>(9, 5, 2), uniform::<f64>(9, 3, 3));
    let (x_t, y_t) = (x.t().as_standard_layout().into_owned(), y.t().as_standard_layout().into_owned());
    let (mut straight, mut transposed) = (mlp.zero_gradient(), mlp.zero_gradient());
    let v = direction(mlp);
    Hessian::new(mlp, Dataset::new(x.view(), y.view()), &SquaredError).unwrap().apply(&v, &mut straight).unwrap();
    Hessian::new(mlp, Dataset::new(x_t.t(), y_t.t()), &SquaredError).unwrap().apply(&v, &mut transposed).unwrap();
    assert_eq!(straight, transposed);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mlp = network::<f32>(&[2, 3, 2], Bias::Input, 1);
    let (x, labels) = (array![[1.0, 2.0], [3.0, 4.0_f32]], array![0, 1]);
    let softmax = |x: &Array2<f32>, labels: &ndarray::Array1<usize>| {
        Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).map(drop).unwrap_err()
    };
    let narrow = softmax(&array![[1.0], [2.0]], &labels);
    assert_eq!(narrow, Error::Shape { what: "x", expected: vec![2, 2], found: vec![2, 1] });
    assert_eq!(softmax(&Array2::zeros((0, 2)), &array![]), Error::NoSamples);
    assert!(matches!(softmax(&array![[1.0, f32::NAN]], &array![0]), Error::NotFinite { row: Some(0), column: 1, .. }));
    assert_eq!(softmax(&x, &array![0]), Error::Length { what: "y", expected: 2, found: 1 });
    assert_eq!(softmax(&x, &array![0, 2]), Error::Label { row: Some(1), classes: 2, found: 2 });
    let narrow =
        Hessian::new(&mlp, Dataset::new(x.view(), array![1.0, 2.0].view()), &SquaredError).map(drop).unwrap_err();
    assert_eq!(narrow, Error::Shape { what: "y", expected: vec![2, 2], found: vec![2, 1] });

    let mut hessian = Hessian::new(&mlp, Dataset::new(x.view(), labels.view()), &SoftmaxCrossEntropy).unwrap();
    let other = Parameters::<f32>::zeros(&[2, 4, 2], Bias::Input).unwrap();
    let (expected, found) = (vec![3, 2, 3, 2, 3, 2], vec![4, 2, 4, 2, 4, 2]);
    let refused = hessian.apply(&other, &mut mlp.zero_gradient()).unwrap_err();
    assert_eq!(refused, Error::Shape { what: "v", expected: expected.clone(), found: found.clone() });
    let refused = hessian.apply(&mlp.zero_gradient(), &mut other.clone()).unwrap_err();
    assert_eq!(refused, Error::Shape { what: "hv", expected, found });
}
