//! Bad input: a typed error from every public call, that names what was expected and what was found, and nothing changed.

use gemmprop::{
    Constant, Error, Logistic, Mlp, Parameters, Sgd, SoftmaxCrossEntropy, SquaredError, Trace, batched, matrix_vector,
    naive, per_neuron,
};
use ndarray::{Array1, Array2, array};

/// 3 inputs, 2 hidden neurons, `outputs` outputs.
fn mlp(outputs: usize) -> Mlp<f64> {
    Mlp::he(&[3, 2, outputs], Constant::Input, 1).unwrap()
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
        assert!(of_one_sample(&array![0.0, value, 1.0]).iter().all(found(0, 1)));
        let mut x = Array2::zeros((5, 3));
        x[(4, 2)] = value;
        let errors = of_a_batch(&x);
        assert!(errors.iter().all(found(4, 2)));
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
        assert_eq!(Mlp::<f32>::he(widths, Constant::Input, 1).unwrap_err(), expected);
        assert_eq!(Mlp::<f32>::from_weights(widths, Constant::Input, 1, |_, _, _| 0.0).unwrap_err(), expected);
        assert_eq!(Parameters::<f32>::zeros(widths, Constant::Input).unwrap_err(), expected);
        let theta = mlp(1).parameters().clone();
        assert_eq!(Mlp::from_parameters(widths, Constant::Input, theta).unwrap_err(), expected);
    }
}

#[test]
fn parameters_of_another_network() {
    let theta = mlp(1).parameters().clone();
    for (widths, constant) in
        [(&[3, 2, 2][..], Constant::Input), (&[3, 2, 1], Constant::Absent), (&[3, 1], Constant::Input)]
    {
        let error = Mlp::from_parameters(widths, constant, theta.clone()).unwrap_err();
        assert!(matches!(error, Error::Shape { ref expected, ref found, .. } if expected != found), "{error}");
    }
}

#[test]
fn a_gradient_of_another_network() {
    let (mlp, x, y) = (mlp(1), array![[1.0, 2.0, 3.0]], [0.0]);
    let other = Mlp::<f64>::he(&[3, 4, 1], Constant::Input, 1).unwrap();
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
    assert_eq!(error, Error::Label { row: 2, classes: 2, found: 2 });
    assert_eq!(error.to_string(), "y[2]: expected a label below 2, found 2");
    let (mlp, x) = (mlp(2), Array1::zeros(3));
    for loss_gradient in [naive::loss_gradient, per_neuron::loss_gradient, matrix_vector::loss_gradient] {
        let error = loss_gradient(&mlp, x.view(), &[7], &SoftmaxCrossEntropy, &mut mlp.zero_gradient()).unwrap_err();
        assert_eq!(error, Error::Label { row: 0, classes: 2, found: 7 });
    }
}

#[test]
fn a_target_outside_the_domain_of_the_loss() {
    let error = of_targets!(1, Array2::zeros((2, 3)), array![1.0, f64::INFINITY], SquaredError);
    assert_eq!(error, Error::Target { row: 1, expected: "a finite number", found: f64::INFINITY });
    for outside in [-0.5, 1.5] {
        let error = of_targets!(1, Array2::zeros((2, 3)), array![1.0, outside], Logistic);
        assert_eq!(error, Error::Target { row: 1, expected: "a number from 0 to 1", found: outside });
        assert_eq!(error.to_string(), format!("y[1]: expected a number from 0 to 1, found {outside}"));
    }
    let mut mlp = mlp(1);
    let error = sgd().step(&mut mlp, Array2::zeros((1, 3)).view(), array![f64::NAN].view(), &Logistic).unwrap_err();
    assert!(matches!(error, Error::Target { row: 0, found, .. } if found.is_nan()));
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
    let mut mlp = Mlp::<f64>::he(&[1, 1], Constant::Absent, 1).unwrap();
    let (x, y) = (array![[1e3]], array![1.0]);
    // |1 − η x²| ≫ 1: each step multiplies the residual by 10⁶, until its square leaves the range of f64.
    let error = Sgd::new(1, 1.0, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 1000).unwrap_err();
    assert!(
        matches!(error, Error::Diverged { at: Some((21..=40, 1)), found, .. } if found == f64::INFINITY),
        "{error}"
    );
    assert!(mlp.parameters().iter().all(|p| p.is_finite()));
}
