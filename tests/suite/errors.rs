//! Bad input: a typed error from every public call, that names what was expected and what was
//! found, and nothing changed.

use gemmprop::{
    Bias, Dataset, Error, Logistic, Mlp, Model, Parameters, Sgd, SoftmaxCrossEntropy, SquaredError, Standardizer,
    Trainer, TrainingSettings,
    rungs::{Trace, batched, matrix_vector, naive, per_neuron},
};
use ndarray::{Array1, Array2, array};

/// 3 inputs, 2 hidden neurons, `outputs` outputs.
fn mlp(outputs: usize) -> Mlp<f64> {
    Mlp::he(&[3, 2, outputs], Bias::Input, 1).unwrap()
}

fn sgd() -> Sgd<f64> {
    Sgd::new(2, 0.1, 1).unwrap()
}

/// What every call that takes one sample makes of this x.
fn of_one_sample(x: &Array1<f64>) -> Vec<Error> {
    let (mlp, y) = (mlp(1), [0.0]);
    let g = &mut mlp.zero_gradient();
    let errors = vec![
        Trace::new(&mlp, x.view()).unwrap_err(),
        naive::output_gradient(&mlp, x.view(), 0, g).unwrap_err(),
        naive::loss_gradient(&mlp, x.view(), &y, &SquaredError, g).unwrap_err(),
        per_neuron::output_gradient(&mlp, x.view(), 0, g).unwrap_err(),
        per_neuron::loss_gradient(&mlp, x.view(), &y, &SquaredError, g).unwrap_err(),
        matrix_vector::forward(&mlp, x.view()).unwrap_err(),
        matrix_vector::output_gradient(&mlp, x.view(), 0, g).unwrap_err(),
        matrix_vector::loss_gradient(&mlp, x.view(), &y, &SquaredError, g).unwrap_err(),
    ];
    assert_eq!(*g, mlp.zero_gradient(), "nothing is written");
    errors
}

/// What every call that takes a batch makes of this x.
fn of_a_batch(x: &Array2<f64>) -> Vec<Error> {
    let mut trained = mlp(1);
    let g = &mut trained.zero_gradient();
    let y = Array1::zeros(x.nrows());
    let errors = vec![
        batched::forward(&trained, x.view()).unwrap_err(),
        batched::output_gradient(&trained, x.view(), 0, g).unwrap_err(),
        batched::loss_gradient(&trained, x.view(), y.view(), &SquaredError, g).unwrap_err(),
        trained.predict(x.view()).unwrap_err(),
        sgd().step(&mut trained, x.view(), y.view(), &SquaredError).unwrap_err(),
        sgd().train(&mut trained, x.view(), y.view(), &SquaredError, 1).unwrap_err(),
    ];
    assert_eq!((&*g, &trained), (&trained.zero_gradient(), &mlp(1)), "nothing is written");
    errors
}

#[test]
fn an_x_of_the_wrong_width() {
    let expected = Error::Shape { what: "x", expected: vec![3], found: vec![4] };
    assert!(of_one_sample(&Array1::zeros(4)).iter().all(|error| *error == expected));
    let expected = Error::Shape { what: "x", expected: vec![5, 3], found: vec![5, 2] };
    assert!(of_a_batch(&Array2::zeros((5, 2))).iter().all(|error| *error == expected));
    assert_eq!(expected.to_string(), "x: expected shape [5, 3], found [5, 2]");
}

#[test]
fn no_samples() {
    assert!(of_a_batch(&Array2::zeros((0, 3))).iter().all(|error| *error == Error::NoSamples));
    assert_eq!(Error::NoSamples.to_string(), "expected at least one sample, found none");
}

#[test]
fn an_x_that_is_not_finite() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let found = |row, column| {
            move |error: &Error| {
                matches!(*error, Error::NotFinite { what: "x", row: r, column: c, found }
                if (r, c) == (row, column) && found.to_bits() == value.to_bits())
            }
        };
        let errors = of_one_sample(&array![0.0, value, 1.0]);
        assert!(errors.iter().all(found(None, 1)));
        assert_eq!(errors[0].to_string(), format!("x[1]: expected a finite number, found {value}"));
        let mut x = Array2::zeros((5, 3));
        x[(4, 2)] = value;
        let errors = of_a_batch(&x);
        assert!(errors.iter().all(found(Some(4), 2)));
        assert_eq!(errors[0].to_string(), format!("x[4, 2]: expected a finite number, found {value}"));
    }
}

#[test]
fn a_batch_of_no_samples() {
    assert_eq!(Sgd::<f64>::new(0, 0.1, 1).unwrap_err(), Error::EmptyBatch);
    assert_eq!(Error::EmptyBatch.to_string(), "batch: expected at least 1 sample, found 0");
}

#[test]
fn a_learning_rate_that_is_none() {
    for eta in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        let error = Sgd::<f64>::new(1, eta, 1).unwrap_err();
        assert!(matches!(error, Error::Hyperparameter { name: "eta", found, .. } if found.to_bits() == eta.to_bits()));
        assert_eq!(error.to_string(), format!("eta: expected a finite, positive number, found {eta}"));
    }
}

#[test]
fn a_weight_decay_that_is_none() {
    for lambda in [-0.1, 10.0, f64::NAN, f64::INFINITY] {
        let error = sgd().weight_decay(lambda).unwrap_err();
        assert!(
            matches!(error, Error::Hyperparameter { name: "lambda", found, .. } if found.to_bits() == lambda.to_bits())
        );
    }
    let error = sgd().weight_decay(10.0).unwrap_err();
    assert_eq!(error.to_string(), "lambda: expected a number from 0 to below 1/eta, found 10");
}

#[test]
fn widths_that_are_no_network() {
    for widths in [&[][..], &[3], &[3, 0, 1], &[0, 1], &[3, 0]] {
        let expected = Error::Widths { found: widths.to_vec() };
        assert_eq!(Mlp::<f32>::he(widths, Bias::Input, 1).unwrap_err(), expected);
        assert_eq!(Mlp::<f32>::from_weights(widths, Bias::Input, 1, |_, _, _| 0.0).unwrap_err(), expected);
        assert_eq!(Parameters::<f32>::zeros(widths, Bias::Input).unwrap_err(), expected);
        let theta = mlp(1).parameters().clone();
        assert_eq!(Mlp::from_parameters(widths, Bias::Input, theta).unwrap_err(), expected);
    }
}

#[test]
fn parameters_of_another_network() {
    let theta = mlp(1).parameters().clone();
    for (widths, constant) in [(&[3, 2, 2][..], Bias::Input), (&[3, 2, 1], Bias::None), (&[3, 1], Bias::Input)] {
        let error = Mlp::from_parameters(widths, constant, theta.clone()).unwrap_err();
        assert!(
            matches!(error, Error::Shape { what: "parameters", ref expected, ref found } if expected != found),
            "{error}"
        );
        let mut other = Mlp::<f64>::he(widths, constant, 2).unwrap();
        let before = other.clone();
        assert_eq!(other.set_parameters(&theta).unwrap_err(), error);
        assert_eq!(other, before);
        assert_eq!(
            mlp(1).set_parameters(other.parameters()).unwrap_err().to_string().split(':').next(),
            Some("parameters")
        );
    }
    let mut other = Mlp::<f64>::he(&[3, 2, 1], Bias::Input, 2).unwrap();
    other.set_parameters(&theta).unwrap();
    assert_eq!(other, mlp(1));
}

/// Networks with too many parameters for any address space, or even for a `usize`.
#[test]
fn parameters_that_do_not_fit_into_memory() {
    let billion = 1_000_000_000;
    for (widths, parameters, text) in [
        (&[billion, billion][..], 1e18 + 1e9, "found [1000000000, 1000000000], which asks for 1.000000001e18 of them"),
        (&[1, billion, billion, 1], 1e18 + 3e9 + 1.0, "which asks for 1.000000003e18 of them"),
        (&[3, usize::MAX, 2], 6.0 * usize::MAX as f64 + 2.0, "which asks for 1.1068046444225731e20 of them"),
        (&[2, usize::MAX], 3.0 * usize::MAX as f64, "which asks for 5.5340232221128655e19 of them"),
    ] {
        let expected = Error::TooLarge { found: widths.to_vec(), parameters };
        assert!(expected.to_string().contains(text), "{expected}");
        assert_eq!(Mlp::<f32>::he(widths, Bias::Input, 1).unwrap_err(), expected);
        assert_eq!(Mlp::<f64>::from_weights(widths, Bias::Input, 1, |_, _, _| 0.0).unwrap_err(), expected);
        assert_eq!(Parameters::<f32>::zeros(widths, Bias::Input).unwrap_err(), expected);
        // Nothing is allocated to find that these are others.
        let error = Mlp::from_parameters(widths, Bias::Input, mlp(1).parameters().clone()).unwrap_err();
        assert!(matches!(error, Error::Shape { what: "parameters", .. }), "{error}");
    }
}

/// Every call that computes ŷ reports one that is not finite, and where; the gradient is then not
/// written.
#[test]
fn an_output_that_is_not_finite() {
    let mut mlp = Mlp::<f32>::from_weights(&[2, 3, 2], Bias::Input, 1, |_, _, _| 1.0).unwrap();
    mlp.parameters_mut().alpha_mut().row_mut(0).fill(0.0);
    // ŷ of x = (10³⁸, 10³⁸) is (0, 3 · 2 · 10³⁸), of which the second is too much; every z is
    // finite.
    let mut x = Array2::from_elem((300, 2), 0.5_f32);
    // First in a late block of rows, then in an early one: it is the first that is named.
    for row in [200, 3] {
        x.row_mut(row).fill(1e38);
        let y = Array2::zeros(x.dim());
        let g = &mut mlp.zero_gradient();
        let of_batch = [
            mlp.predict(x.view()).unwrap_err(),
            mlp.predict(x.slice(ndarray::s![..=row, ..])).unwrap_err(),
            mlp.classify(x.view()).unwrap_err(),
            Model::from(mlp.clone()).predict(x.view()).unwrap_err(),
            Model::from(mlp.clone()).evaluate(Dataset::new(x.view(), y.view()), &SquaredError).unwrap_err(),
            batched::forward(&mlp, x.view()).unwrap_err(),
            batched::output_gradient(&mlp, x.view(), 0, g).unwrap_err(),
            batched::loss_gradient(&mlp, x.view(), y.view(), &SquaredError, g).unwrap_err(),
        ];
        for error in of_batch {
            assert_eq!(error, Error::Output { row: Some(row), output: 1, found: f64::INFINITY });
            assert_eq!(error.to_string(), format!("ŷ[{row}, 1]: expected a finite number, found inf"));
        }
        let (x, y) = (x.row(row), [0.0, 0.0]);
        let of_sample = [
            Trace::new(&mlp, x).unwrap_err(),
            naive::output_gradient(&mlp, x, 0, g).unwrap_err(),
            naive::loss_gradient(&mlp, x, &y, &SquaredError, g).unwrap_err(),
            per_neuron::output_gradient(&mlp, x, 0, g).unwrap_err(),
            per_neuron::loss_gradient(&mlp, x, &y, &SquaredError, g).unwrap_err(),
            matrix_vector::forward(&mlp, x).unwrap_err(),
            matrix_vector::output_gradient(&mlp, x, 0, g).unwrap_err(),
            matrix_vector::loss_gradient(&mlp, x, &y, &SquaredError, g).unwrap_err(),
        ];
        for error in of_sample {
            assert_eq!(error, Error::Output { row: None, output: 1, found: f64::INFINITY });
            assert_eq!(error.to_string(), "ŷ[1]: expected a finite number, found inf");
        }
        assert_eq!(*g, mlp.zero_gradient(), "nothing is written");
    }
}

/// It is x that is refused, and not what the standardisation makes of it.
#[test]
fn an_x_that_overflows_when_it_is_standardised() {
    let standardizer = Some(Standardizer::fit(array![[0.0, 1e-3], [1.0, -1e-3]].view()).unwrap());
    let model = Model { mlp: Mlp::<f32>::he(&[2, 1], Bias::Input, 1).unwrap(), standardizer };
    let mut x = Array2::zeros((300, 2));
    for row in [299, 1] {
        x[(row, 1)] = -1e38;
        let found = f64::from(-1e38_f32);
        let expected = Error::Standardized { row, column: 1, found, becomes: f64::NEG_INFINITY };
        assert_eq!(model.predict(x.view()).unwrap_err(), expected);
        assert_eq!(model.predict_one(x.view()).unwrap_err(), expected);
        assert_eq!(model.classify(x.view()).unwrap_err(), expected);
        let text = "x[1, 1]: expected a number that is finite when it is standardised, found -9.999999680285692e37, which becomes -inf";
        assert!(row != 1 || expected.to_string() == text, "{expected}");
    }
    x[(7, 0)] = f32::NAN;
    x[(1, 1)] = 0.0;
    let error = model.predict(x.view()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { what: "x", row: Some(7), column: 0, .. }), "{error}");
}

/// `&ŷ − &y` with a ŷ of (n, 1) and a y of (n) is silently (n, n).
#[test]
fn one_number_a_sample_is_of_a_network_with_one_output() {
    let x = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    assert_eq!(mlp(1).predict_one(x.view()).unwrap(), mlp(1).predict(x.view()).unwrap().column(0));
    assert_eq!(mlp(2).predict_one(x.view()).unwrap_err(), Error::OneOutput { found: 2 });
    assert_eq!(Model::from(mlp(2)).predict_one(x.view()).unwrap_err(), Error::OneOutput { found: 2 });
    assert_eq!(Error::OneOutput { found: 2 }.to_string(), "expected a network with 1 output, found 2 outputs");
}

#[test]
fn a_standardisation_of_other_inputs() {
    let standardizer = Some(Standardizer::fit(array![[0.0, 1.0], [1.0, -1.0]].view()).unwrap());
    let model = Model { mlp: mlp(1), standardizer };
    let (x, y) = (Array2::zeros((4, 3)), Array1::zeros(4));
    let expected = Error::Shape { what: "standardizer", expected: vec![3], found: vec![2] };
    assert_eq!(model.predict(x.view()).unwrap_err(), expected);
    assert_eq!(model.evaluate(Dataset::new(x.view(), y.view()), &SquaredError).unwrap_err(), expected);
    assert_eq!(Trainer::new(model, SquaredError, TrainingSettings::default()).unwrap_err(), expected);
}

/// Large numbers are written with an exponent and not with 36 digits, and one output is not called
/// "outputs".
#[test]
fn numbers_and_plurals_are_written_to_be_read() {
    let with = |found| Error::Target { row: Some(0), expected: "", found }.to_string();
    for (number, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (2.0, "2"),
        (-0.5, "-0.5"),
        (1e-4, "0.0001"),
        (9.9e-5, "9.9e-5"),
        (123_456_789.25, "123456789.25"),
        (9_007_199_254_740_993.0, "9007199254740992"),
        (1e16, "1e16"),
        (161_039_642_718_337_980_000_000_000_000_000_000.0, "1.6103964271833798e35"),
        (-5e-324, "-5e-324"),
        (f64::MAX, "1.7976931348623157e308"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(with(number), format!("y[0]: expected , found {text}"));
        assert!(number.is_nan() || text.parse::<f64>() == Ok(number), "every digit that matters");
    }
    let number = 2e300;
    for error in [
        Error::NotFinite { what: "x", row: None, column: 0, found: number },
        Error::Standardized { row: 0, column: 0, found: number, becomes: number },
        Error::Output { row: None, output: 0, found: number },
        Error::Weight { row: 0, found: number },
        Error::Hyperparameter { name: "eta", expected: "", found: number },
        Error::Diverged { what: "loss", at: None, found: number, last: Some(number) },
        Error::Operator { product: 0, component: 0, found: number },
        Error::TooLarge { found: vec![], parameters: number },
    ] {
        assert!(error.to_string().contains("2e300") && !error.to_string().contains("000"), "{error}");
    }
    assert_eq!(
        Error::Outputs { expected: "2 outputs or more", found: 1 }.to_string(),
        "loss: expected a network with 2 outputs or more, found 1 output"
    );
    assert_eq!(
        Error::Length { what: "y", expected: 1, found: 0 }.to_string(),
        "y: expected 1 sample, one for each row of x; found 0"
    );
    assert_eq!(
        Error::UnfinishedEpoch { expected: (1, 2), found: (2, 1) }.to_string(),
        "the rest of the epoch: expected 1 sample to train on in 2 rows, as it began with, found 2 in 1"
    );
    assert_eq!(
        Error::Split { samples: 1, kept: 1 }.to_string(),
        "validation_fraction: expected a part of 1 sample that leaves some to train on, found 1"
    );
}

#[test]
fn a_gradient_of_another_network() {
    let (mlp, x, y) = (mlp(1), array![[1.0, 2.0, 3.0]], [0.0]);
    let other = Mlp::<f64>::he(&[3, 4, 1], Bias::Input, 1).unwrap();
    let g = &mut other.zero_gradient();
    let errors = [
        naive::output_gradient(&mlp, x.row(0), 0, g).unwrap_err(),
        naive::loss_gradient(&mlp, x.row(0), &y, &SquaredError, g).unwrap_err(),
        per_neuron::output_gradient(&mlp, x.row(0), 0, g).unwrap_err(),
        per_neuron::loss_gradient(&mlp, x.row(0), &y, &SquaredError, g).unwrap_err(),
        matrix_vector::output_gradient(&mlp, x.row(0), 0, g).unwrap_err(),
        matrix_vector::loss_gradient(&mlp, x.row(0), &y, &SquaredError, g).unwrap_err(),
        batched::output_gradient(&mlp, x.view(), 0, g).unwrap_err(),
        batched::loss_gradient(&mlp, x.view(), array![0.0].view(), &SquaredError, g).unwrap_err(),
    ];
    for error in errors {
        // Rows and columns of w[0], length of c[0], and the same of alpha and b.
        let (expected, found) = (vec![2, 3, 2, 1, 2, 1], vec![4, 3, 4, 1, 4, 1]);
        assert_eq!(error, Error::Shape { what: "gradient", expected, found });
    }
}

/// Calls that take targets of a batch, with any loss.
macro_rules! of_targets {
    ($outputs:expr, $x:expr, $y:expr, $loss:expr) => {{
        let (mut trained, x, y) = (mlp($outputs), $x, $y);
        let g = &mut trained.zero_gradient();
        let errors = [
            batched::loss_gradient(&trained, x.view(), y.view(), &$loss, g).unwrap_err(),
            sgd().step(&mut trained, x.view(), y.view(), &$loss).unwrap_err(),
            sgd().train(&mut trained, x.view(), y.view(), &$loss, 1).unwrap_err(),
        ];
        assert_eq!((&*g, &trained), (&trained.zero_gradient(), &mlp($outputs)), "nothing is written");
        assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
        errors[0].clone()
    }};
}

#[test]
fn unequal_numbers_of_samples() {
    let error = of_targets!(1, Array2::zeros((5, 3)), Array1::<f64>::zeros(4), SquaredError);
    assert_eq!(error, Error::Length { what: "y", expected: 5, found: 4 });
    assert_eq!(error.to_string(), "y: expected 5 samples, one for each row of x; found 4");
    let error = of_targets!(2, Array2::zeros((5, 3)), Array1::<usize>::zeros(6), SoftmaxCrossEntropy);
    assert_eq!(error, Error::Length { what: "y", expected: 5, found: 6 });
}

#[test]
fn targets_of_the_wrong_width() {
    let error = of_targets!(1, Array2::zeros((5, 3)), Array2::<f64>::zeros((5, 2)), SquaredError);
    assert_eq!(error, Error::Shape { what: "y", expected: vec![5, 1], found: vec![5, 2] });
    let (mlp, x) = (mlp(2), Array1::zeros(3));
    for loss_gradient in [naive::loss_gradient, per_neuron::loss_gradient, matrix_vector::loss_gradient] {
        let error = loss_gradient(&mlp, x.view(), &[0.0], &SquaredError, &mut mlp.zero_gradient()).unwrap_err();
        assert_eq!(error, Error::Shape { what: "y", expected: vec![2], found: vec![1] });
    }
}

#[test]
fn a_label_out_of_range() {
    let error = of_targets!(2, Array2::zeros((3, 3)), array![0_usize, 1, 2], SoftmaxCrossEntropy);
    assert_eq!(error, Error::Label { row: Some(2), classes: 2, found: 2 });
    assert_eq!(error.to_string(), "y[2]: expected a label below 2, found 2");
    let (mlp, x) = (mlp(2), Array1::zeros(3));
    for loss_gradient in [naive::loss_gradient, per_neuron::loss_gradient, matrix_vector::loss_gradient] {
        let error = loss_gradient(&mlp, x.view(), &[7], &SoftmaxCrossEntropy, &mut mlp.zero_gradient()).unwrap_err();
        assert_eq!(error, Error::Label { row: None, classes: 2, found: 7 });
        assert_eq!(error.to_string(), "y: expected a label below 2, found 7");
    }
}

#[test]
fn a_target_outside_the_domain_of_the_loss() {
    let error = of_targets!(1, Array2::zeros((2, 3)), array![1.0, f64::INFINITY], SquaredError);
    assert_eq!(error, Error::Target { row: Some(1), expected: "a finite number", found: f64::INFINITY });
    for outside in [-0.5, 1.5] {
        let error = of_targets!(1, Array2::zeros((2, 3)), array![1.0, outside], Logistic);
        assert_eq!(error, Error::Target { row: Some(1), expected: "a number from 0 to 1", found: outside });
        assert_eq!(error.to_string(), format!("y[1]: expected a number from 0 to 1, found {outside}"));
    }
    let mut mlp = mlp(1);
    let error = sgd().step(&mut mlp, Array2::zeros((1, 3)).view(), array![f64::NAN].view(), &Logistic).unwrap_err();
    assert!(matches!(error, Error::Target { row: Some(0), found, .. } if found.is_nan()));
}

#[test]
fn a_loss_for_another_number_of_outputs() {
    let error = of_targets!(2, Array2::zeros((2, 3)), Array2::<f64>::zeros((2, 2)), Logistic);
    assert_eq!(error, Error::Outputs { expected: "1 output", found: 2 });
    assert_eq!(error.to_string(), "loss: expected a network with 1 output, found 2 outputs");
    let error = of_targets!(1, Array2::zeros((2, 3)), Array1::<usize>::zeros(2), SoftmaxCrossEntropy);
    assert_eq!(error, Error::Outputs { expected: "2 outputs or more", found: 1 });
}

#[test]
#[should_panic(expected = "output 1 of a network with 1")]
fn an_output_that_does_not_exist_is_a_bug_of_the_caller() {
    let mlp = mlp(1);
    _ = naive::output_gradient(&mlp, Array1::zeros(3).view(), 1, &mut mlp.zero_gradient());
}

/// The loss of the batch is looked at before the update with it.
#[test]
fn divergence_is_found_at_its_step_and_leaves_the_parameters_before_it() {
    let mut mlp = Mlp::<f64>::he(&[1, 1], Bias::None, 1).unwrap();
    let (x, y) = (array![[1e3]], array![1.0]);
    // |1 − η x²| ≫ 1: each step multiplies the residual by 10⁶, until its square leaves the range
    // of f64.
    let error = Sgd::new(1, 1.0, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 1000).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { at: Some((21..=40, 1)), found, .. } if found == f64::INFINITY),
        "{error}"
    );
    assert!(mlp.parameters().iter().all(|p| p.is_finite()));
}
