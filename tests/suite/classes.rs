//! Probabilities and weights of classes, and losses behind pointers.

use std::sync::Arc;

use dashu_float::FBig;
use dashu_float::round::mode::HalfEven;
use gemmprop::{
    Bias, Dataset, Error, Logistic, Loss, Mlp, Model, Probabilities, Sgd, SoftmaxCrossEntropy, SquaredError, Trainer,
    TrainingSettings, TwiceDifferentiable, balanced_class_weights, class_weights,
};
use ndarray::{Array1, Array2, array};
use proptest::prelude::*;

type Big = FBig<HalfEven>;

/// p of the classes with ŷ, with 320 bits.
fn softmax(y_hat: &[f64]) -> Vec<f64> {
    let exp = |&a: &f64| Big::try_from(a).unwrap().with_precision(320).value().exp();
    let e: Vec<Big> = y_hat.iter().map(exp).collect();
    let sum = e.iter().fold(Big::ZERO, |sum, e| sum + e);
    e.into_iter().map(|e| (e / &sum).to_f64().value()).collect()
}

/// The rounding of the difference in an exponent, |d| u relative to e^d; that of the exponential
/// itself, of the sum of m numbers and of the division: one rounding is at most 1 ulp of libm's.
fn bound(p: f64, spread: f64, m: usize) -> f64 {
    p * (2.0 * spread + m as f64 + 8.0) * f64::EPSILON / 2.0
}

proptest! {
    #[test]
    fn probabilities_are_those_of_the_formulas(y_hat in proptest::collection::vec(-300.0..300.0_f64, 2..6)) {
        let mut p = vec![f64::NAN; y_hat.len()];
        SoftmaxCrossEntropy.probabilities(&y_hat, &mut p);
        for (&found, expected) in p.iter().zip(softmax(&y_hat)) {
            prop_assert!((found - expected).abs() <= bound(expected, 600.0, y_hat.len()), "{found} {expected}");
        }
        let mut p = [f64::NAN; 2];
        Logistic.probabilities(&y_hat[..1], &mut p);
        for (found, expected) in p.into_iter().zip(softmax(&[0.0, y_hat[0]])) {
            prop_assert!((found - expected).abs() <= bound(expected, 300.0, 2), "{found} {expected}");
        }
    }

    #[test]
    fn balanced_weights_let_classes_count_alike(labels in proptest::collection::vec(0..5_usize, 1..200)) {
        let labels = Array1::from(labels);
        let weights = balanced_class_weights::<f64>(labels.view());
        let of_class = |class| -> f64 {
            labels.iter().zip(&weights).filter(|(label, _)| **label == class).map(|(_, weight)| weight).sum()
        };
        let sums: Vec<f64> = (0..5).map(of_class).filter(|&sum| sum > 0.0).collect();
        // Each is n/k, summed with at most n roundings.
        let (n, k) = (labels.len() as f64, sums.len() as f64);
        for sum in sums {
            prop_assert!((sum - n / k).abs() <= n / k * (n + 3.0) * f64::EPSILON, "{sum} of {n} / {k}");
        }
    }
}

#[test]
fn probabilities_at_the_ends_are_finite() {
    for a in [-1e30_f32, -200.0, 0.0, 200.0, 1e30] {
        let mut p = [f32::NAN; 2];
        Logistic.probabilities(&[a], &mut p);
        let mut q = [f32::NAN; 2];
        SoftmaxCrossEntropy.probabilities(&[0.0, a], &mut q);
        for p in [p, q] {
            assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{a}: {p:?}");
            assert_eq!(p[0] > p[1], a < 0.0, "{a}: {p:?}");
        }
    }
}

#[test]
fn a_model_gives_the_probabilities_of_its_classes() {
    let x = array![[0.5, -1.0], [2.0, 3.0], [-4.0, 0.0]];
    let of = |outputs| Model::from(Mlp::<f64>::he(&[2, 9, outputs], Bias::EveryLayer, 1).unwrap());
    let p = of(3).predict_proba(x.view(), &SoftmaxCrossEntropy).unwrap();
    for (row, y_hat) in of(3).predict(x.view()).unwrap().outer_iter().enumerate() {
        let mut expected = vec![0.0; 3];
        SoftmaxCrossEntropy.probabilities(&y_hat.to_vec(), &mut expected);
        assert_eq!(p.row(row).to_vec(), expected);
        let best = (0..3).max_by(|&i, &j| expected[i].total_cmp(&expected[j])).unwrap();
        assert_eq!(of(3).classify(x.view()).unwrap()[row], best);
    }
    assert_eq!(of(1).predict_proba(x.view(), &Logistic).unwrap().dim(), (3, 2));
    assert!(matches!(of(3).predict_proba(x.view(), &Logistic), Err(Error::Outputs { found: 3, .. })));
    assert!(matches!(of(1).predict_proba(x.view(), &SoftmaxCrossEntropy), Err(Error::Outputs { found: 1, .. })));
}

#[test]
fn weights_are_those_of_the_classes() {
    let labels = array![2, 0, 0, 1];
    assert_eq!(class_weights(labels.view(), &[1.0_f32, 5.0, 9.0]).unwrap(), array![9.0, 1.0, 1.0, 5.0]);
    let refused = class_weights(labels.view(), &[1.0_f32, 5.0]).unwrap_err();
    assert!(matches!(refused, Error::Label { row: Some(0), classes: 2, found: 2 }), "{refused}");
    // Labels of any size need no table.
    assert_eq!(balanced_class_weights::<f64>(array![usize::MAX, 7].view()), array![1.0, 1.0]);
    assert_eq!(balanced_class_weights::<f64>(Array1::from(vec![]).view()).len(), 0);
}

/// What no training shows: what is refused, ℓ alone, and the second derivative.
#[test]
fn a_loss_behind_a_pointer_refuses_and_measures_as_the_loss() {
    fn of<L: TwiceDifferentiable<f64, Target = usize>>(loss: &L) -> (Vec<Error>, f64, [f64; 3]) {
        let mut hv = [f64::NAN; 3];
        loss.second_derivative(&[0.5, -1.0, 2.0], &[1], &[1.0, 3.0, -2.0], &mut hv);
        let refused = [loss.check(4, &[3], 3).unwrap_err(), loss.target_len(1).unwrap_err()];
        (refused.to_vec(), loss.value(&[0.5, -1.0, 2.0], &[1]), hv)
    }
    let expected = of(&SoftmaxCrossEntropy);
    assert_eq!(expected.0[0], Error::Label { row: Some(4), classes: 3, found: 3 });
    assert!(expected.1 > 3.0 && expected.2.iter().all(|hv| hv.is_finite()));
    assert_eq!(of(&&SoftmaxCrossEntropy), expected);
    assert_eq!(of(&Box::new(SoftmaxCrossEntropy)), expected);
    assert_eq!(of(&Arc::new(SoftmaxCrossEntropy)), expected);
}

/// A loss by reference, in a box or shared, also as an object, trains to the bits of the loss; and
/// targets may be borrowed arrays or slices.
#[test]
fn a_loss_behind_a_pointer_is_that_loss() {
    let x = Array2::from_shape_fn((20, 2), |(i, j)| ((i * 7 + j * 3) % 11) as f64 / 11.0);
    let y: Array1<f64> = x.rows().into_iter().map(|x| x[0] - x[1]).collect();
    fn trained<L: Loss<f64, Target = f64>>(loss: L, x: &Array2<f64>, y: &Array1<f64>) -> Mlp<f64> {
        assert_eq!(loss.name(), "squared_error");
        let mlp = Mlp::he(&[2, 5, 1], Bias::EveryLayer, 1).unwrap();
        let mut trainer =
            Trainer::new(mlp, loss, TrainingSettings { epochs: 2, ..TrainingSettings::default() }).unwrap();
        trainer.fit(Dataset::new(x.view(), y), None, &mut ()).unwrap();
        trainer.model().mlp.clone()
    }
    let expected = trained(SquaredError, &x, &y);
    let borrowed = &SquaredError;
    assert_eq!(trained(borrowed, &x, &y), expected);
    assert_eq!(trained(Box::new(SquaredError), &x, &y), expected);
    assert_eq!(trained(Arc::new(SquaredError), &x, &y), expected);
    assert_eq!(trained(Box::new(SquaredError) as Box<dyn Loss<f64, Target = f64>>, &x, &y), expected);
    let epoch = |train: &dyn Fn(&mut Sgd<f64>, &mut Mlp<f64>)| {
        let mut mlp = expected.clone();
        train(&mut Sgd::new(4, 0.1, 1).unwrap(), &mut mlp);
        mlp
    };
    let by_view = epoch(&|sgd, mlp| drop(sgd.train(mlp, x.view(), y.view(), &SquaredError, 1).unwrap()));
    let column = y.clone().insert_axis(ndarray::Axis(1));
    let slice = y.as_slice().unwrap();
    assert_eq!(epoch(&|sgd, mlp| drop(sgd.train(mlp, x.view(), &y, &SquaredError, 1).unwrap())), by_view);
    assert_eq!(epoch(&|sgd, mlp| drop(sgd.train(mlp, x.view(), &column, &SquaredError, 1).unwrap())), by_view);
    assert_eq!(epoch(&|sgd, mlp| drop(sgd.train(mlp, x.view(), slice, &SquaredError, 1).unwrap())), by_view);
}
