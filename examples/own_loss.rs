//! A loss of the caller's own: Huber's, which bounds the pull of an outlier, and the pinball loss,
//! whose minimum is a quantile. Both are the [`Loss`] trait; Huber's has a second derivative as
//! well, for the Hessian.
//!
//! ```text
//! Huber      ℓ = ½ e² for |e| ≤ k, else k (|e| − ½ k)     ∂ℓ/∂ŷ = max(−k, min(k, e))   e = ŷ − y
//! pinball    ℓ = max(q (y − ŷ), (q − 1)(y − ŷ))           ∂ℓ/∂ŷ = −q below y, 1 − q above
//! ```
//!
//! Data: y = sin 3x + noise, where one sample in ten is far off. Squared error is drawn to these;
//! Huber's loss is not. The pinball losses for q = 0.1 and 0.9 enclose four fifths of new samples.

// Printing is the purpose of this program.
#![allow(clippy::print_stdout)]

use std::borrow::Cow;

use gemmprop::{
    Bias, Dataset, Error, LearningRate, Loss, Mlp, Optimizer, Result, SquaredError, Trainer, TrainingSettings,
    TwiceDifferentiable,
};
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Huber's loss of one output with its threshold k > 0.
#[derive(Debug, Clone, Copy)]
struct Huber(f64);

/// The pinball loss of one output, for the quantile q between 0 and 1.
#[derive(Debug, Clone, Copy)]
struct Pinball(f64);

/// One output, and one finite number for each sample.
fn one_output(outputs: usize) -> Result<usize> {
    if outputs == 1 { Ok(1) } else { Err(Error::Outputs { expected: "1 output", found: outputs }) }
}

fn finite(row: usize, y: f64) -> Result<()> {
    if y.is_finite() { Ok(()) } else { Err(Error::Target { row: Some(row), expected: "a finite number", found: y }) }
}

impl Loss<f64> for Huber {
    type Target = f64;

    // The threshold belongs to the name: a run with another one is another run.
    fn name(&self) -> Cow<'static, str> {
        format!("huber({})", self.0).into()
    }

    fn target_len(&self, outputs: usize) -> Result<usize> {
        one_output(outputs)
    }

    fn check(&self, row: usize, y: &[f64], _outputs: usize) -> Result<()> {
        finite(row, y[0])
    }

    fn value_and_derivative(&self, y_hat: &[f64], y: &[f64], d: &mut [f64]) -> f64 {
        let e = y_hat[0] - y[0];
        d[0] = e.clamp(-self.0, self.0);
        // ½ e² for small e, and k (|e| − ½ k) beyond: d e − ½ d² in both cases, but squared first,
        // a large e would overflow.
        d[0] * (e - 0.5 * d[0])
    }
}

impl TwiceDifferentiable<f64> for Huber {
    /// 1 inside; 0 where the loss is straight.
    fn second_derivative(&self, y_hat: &[f64], y: &[f64], v: &[f64], hv: &mut [f64]) {
        hv[0] = if (y_hat[0] - y[0]).abs() <= self.0 { v[0] } else { 0.0 };
    }
}

impl Loss<f64> for Pinball {
    type Target = f64;

    fn name(&self) -> Cow<'static, str> {
        format!("pinball({})", self.0).into()
    }

    fn target_len(&self, outputs: usize) -> Result<usize> {
        one_output(outputs)
    }

    fn check(&self, row: usize, y: &[f64], _outputs: usize) -> Result<()> {
        finite(row, y[0])
    }

    /// At ŷ = y, where there is a kink, the derivative is that from above.
    fn value_and_derivative(&self, y_hat: &[f64], y: &[f64], d: &mut [f64]) -> f64 {
        let e = y_hat[0] - y[0];
        d[0] = if e < 0.0 { -self.0 } else { 1.0 - self.0 };
        d[0] * e
    }
}

/// The difference quotient of ℓ is the derivative, away from kinks. All numbers are multiples of
/// 2⁻⁸, and their products are exact in 53 bits; so the quotient differs from the derivative by
/// half the step's share of a curvature of at most 1.
fn check_derivative<L: Loss<f64, Target = f64>>(loss: &L, kinks: &[f64]) {
    for e in distances(kinks) {
        let mut d = [f64::NAN];
        let below = loss.value_and_derivative(&[2.0 + e], &[2.0], &mut d);
        let quotient = (loss.value(&[2.0 + e + STEP], &[2.0]) - below) / STEP;
        assert!((quotient - d[0]).abs() <= 0.5 * STEP + 1e-12, "{}: {quotient} and {d:?} at {e}", loss.name());
    }
}

/// The difference quotient of the derivative is the second derivative, away from kinks.
fn check_second_derivative<L: TwiceDifferentiable<f64, Target = f64>>(loss: &L, kinks: &[f64]) {
    for e in distances(kinks) {
        let [mut d, mut d_above, mut hv] = [[f64::NAN]; 3];
        loss.value_and_derivative(&[2.0 + e], &[2.0], &mut d);
        loss.value_and_derivative(&[2.0 + e + STEP], &[2.0], &mut d_above);
        loss.second_derivative(&[2.0 + e], &[2.0], &[1.0], &mut hv);
        assert!(((d_above[0] - d[0]) / STEP - hv[0]).abs() <= 1e-12, "{}: curvature at {e}", loss.name());
    }
}

const STEP: f64 = 1.0 / 256.0;

/// ŷ − y from −12.5 to 12.5 without steps over a kink.
fn distances(kinks: &[f64]) -> impl Iterator<Item = f64> {
    (-800..800).map(|i| f64::from(i) / 64.0).filter(|&e| !kinks.iter().any(|kink| (e..=e + STEP).contains(kink)))
}

fn truth(x: f64) -> f64 {
    (3.0 * x).sin()
}

/// x from −1 to 1, y = sin 3x + noise from −0.2 to 0.2, and with `outliers` +6 in each tenth.
fn data(samples: usize, seed: u64, outliers: bool) -> (Array2<f64>, Array1<f64>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let x = Array2::from_shape_simple_fn((samples, 1), || random.random_range(-1.0..1.0));
    let y = (0..samples).map(|i| {
        let far_off = if outliers && i % 10 == 0 { 6.0 } else { 0.0 };
        truth(x[(i, 0)]) + random.random_range(-0.2..0.2) + far_off
    });
    let y = y.collect();
    (x, y)
}

/// ŷ for `at` of a network that has learned x → y with this loss.
fn learn<L: Loss<f64, Target = f64>>(
    loss: L,
    (x, y): &(Array2<f64>, Array1<f64>),
    at: &Array2<f64>,
) -> Result<Array1<f64>> {
    let training = TrainingSettings {
        optimizer: Optimizer::adam(),
        learning_rate: LearningRate::cosine(0.01, 0.0),
        epochs: 100,
        batch: 32,
        ..TrainingSettings::default()
    };
    let mut trainer = Trainer::new(Mlp::he(&[1, 32, 32, 1], Bias::EveryLayer, 1)?, loss, training)?;
    trainer.fit(Dataset::new(x, y), None, ())?;
    trainer.model().predict_one(at)
}

/// The mean distance of predictions from the truth.
fn error(x: &Array2<f64>, y_hat: &Array1<f64>) -> f64 {
    x.iter().zip(y_hat).map(|(&x, y_hat)| (y_hat - truth(x)).abs()).sum::<f64>() / x.len() as f64
}

fn main() -> Result<()> {
    check_derivative(&Huber(0.5), &[-0.5, 0.5]);
    check_second_derivative(&Huber(0.5), &[-0.5, 0.5]);
    check_derivative(&Pinball(0.25), &[0.0]);
    println!("derivatives and curvature are those of difference quotients");

    let (x, y) = data(500, 2, false);
    let with_outliers = data(1000, 1, true);
    let squared = error(&x, &learn(SquaredError, &with_outliers, &x)?);
    let huber = error(&x, &learn(Huber(0.2), &with_outliers, &x)?);
    println!("mean distance from the truth, one sample in ten 6 too high:");
    println!("  squared error {squared:.3}");
    println!("  Huber, k 0.2  {huber:.3}");
    assert!(huber < squared / 3.0);

    let clean = data(2000, 3, false);
    let (low, high) = (learn(Pinball(0.1), &clean, &x)?, learn(Pinball(0.9), &clean, &x)?);
    let inside = low.iter().zip(&high).zip(&y).filter(|((low, high), y)| (*low..=*high).contains(y)).count();
    let share = inside as f64 / y.len() as f64;
    println!("pinball, q 0.1 and 0.9: {:.1} % of new samples lie between, of 80 % expected", 100.0 * share);
    assert!((0.7..0.9).contains(&share));
    Ok(())
}
