//! Losses of one sample, with their first and second derivatives.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayView1, ArrayView2, Axis, Data, Ix1, Ix2};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;

/// A loss ℓ(ŷ, y) of one sample, with its derivative in ŷ.
///
/// | loss | ℓ | ∂ℓ/∂ŷ | ∂²ℓ/∂ŷ² |
/// |---|---|---|---|
/// | [`SquaredError`] | ½ ‖ŷ − y‖² | ŷ − y | I |
/// | [`Logistic`] | ln(1 + e^ŷ) − yŷ, y ∈ [0, 1] | σ(ŷ) − y | σ(ŷ) σ(−ŷ) |
/// | [`SoftmaxCrossEntropy`] | ln Σₖ e^ŷₖ − ŷ_y | p − e_y | diag(p) − p pᵀ |
///
/// A loss of the caller's own implements [`Loss`], for which one method is enough; and
/// [`TwiceDifferentiable`] as well if its Hessian is asked for:
///
/// ```
/// use gemmprop::{Loss, Scalar};
///
/// /// ℓ = Σₖ ln cosh(ŷₖ − yₖ), ∂ℓ/∂ŷₖ = tanh(ŷₖ − yₖ)
/// struct LogCosh;
///
/// impl<F: Scalar> Loss<F> for LogCosh {
///     type Target = F;
///
///     fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
///         let two = F::from_f64(2.0);
///         let terms = y_hat.iter().zip(y).zip(d).map(|((&y_hat, &y), d)| {
///             let e = y_hat - y;
///             let decay = (-two * e.abs()).exp();
///             let size = (F::ONE - decay) / (F::ONE + decay);
///             *d = if e < F::ZERO { -size } else { size };
///             e.abs() + decay.ln_1p() - two.ln()
///         });
///         terms.sum()
///     }
/// }
/// ```
///
/// **Precision.** All three are good to a few roundings of each number at any margin, however small
/// or large: where a formula of the table subtracts what nearly cancels, another form of it is
/// computed. What remains is due to the number type: an exponential of ŷₖ − ŷ_max has, relative to
/// itself, the rounding of the difference; a label between 0 and 1 is actually subtracted from σ;
/// results below the smallest number become 0, and results above the largest become ∞, as the
/// square of 10³⁰ does in `f32`. A finite ŷ never gives NaN.
pub trait Loss<F: Scalar>: Send + Sync {
    /// One number of a target: `F` for real targets, `usize` for labels.
    type Target: Copy + PartialEq + Send + Sync;

    /// The name of this loss in a checkpoint, so that a run does not resume with another loss. By
    /// default it is the name of the type, without path and parameters.
    fn name(&self) -> Cow<'static, str> {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        name.rsplit("::").next().unwrap_or(name).into()
    }

    /// The number of `Target`s per sample, for a network with this number of outputs. By default,
    /// one for each output.
    ///
    /// # Errors
    /// [`Error::Outputs`] if the loss has no meaning for that number of outputs.
    fn target_len(&self, outputs: usize) -> Result<usize> {
        Ok(outputs)
    }

    /// Refuses a target outside the loss's domain. By default, all are in it but NaN.
    ///
    /// # Errors
    /// [`Error::Label`] or [`Error::Target`], naming `row`.
    fn check(&self, row: usize, y: &[Self::Target], outputs: usize) -> Result<()> {
        let _ = outputs;
        #[expect(clippy::eq_op, reason = "of all numbers, NaN alone is not itself")]
        match y.iter().any(|y| y != y) {
            true => Err(Error::Target { row: Some(row), expected: "a number", found: f64::NAN }),
            false => Ok(()),
        }
    }

    /// ℓ(ŷ, y), where `d` = ∂ℓ/∂ŷ is written beside it: the two share their exponentials. All of
    /// `d` is to be written; what it holds before is not defined.
    fn value_and_derivative(&self, y_hat: &[F], y: &[Self::Target], d: &mut [F]) -> F;

    /// ℓ(ŷ, y) alone. By default, a derivative is computed and dropped; another body has to give
    /// the same bits.
    fn value(&self, y_hat: &[F], y: &[Self::Target]) -> F {
        self.value_and_derivative(y_hat, y, &mut vec![F::ZERO; y_hat.len()])
    }

    /// What ℓ and ∂ℓ/∂ŷ of one sample cost, roughly, in floating-point operations: a batch whose
    /// layers are too little work for several threads is shared between them if its losses are
    /// enough. By default 0, which suits a few operations for each output. Bits may depend on it
    /// over BLAS alone.
    fn cost(&self) -> usize {
        0
    }
}

/// A loss with its second derivative in ŷ, which products with the Hessian need
/// ([`curvature::Hessian`](crate::curvature::Hessian)).
pub trait TwiceDifferentiable<F: Scalar>: Loss<F> {
    /// `hv` = (∂²ℓ/∂ŷ²) v, the second derivative applied to a direction v in ŷ.
    fn second_derivative(&self, y_hat: &[F], y: &[Self::Target], v: &[F], hv: &mut [F]);
}

/// ½ ‖ŷ − y‖², for any number of outputs; the half makes the derivative ŷ − y.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SquaredError;

impl<F: Scalar> Loss<F> for SquaredError {
    type Target = F;

    fn name(&self) -> Cow<'static, str> {
        "squared_error".into()
    }

    fn target_len(&self, outputs: usize) -> Result<usize> {
        Ok(outputs)
    }

    fn check(&self, row: usize, y: &[F], _outputs: usize) -> Result<()> {
        match y.iter().find(|y| !y.is_finite()) {
            Some(y) => Err(Error::Target { row: Some(row), expected: "a finite number", found: y.to_f64() }),
            None => Ok(()),
        }
    }

    fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
        let mut sum = F::ZERO;
        for ((&y_hat, &y), d) in y_hat.iter().zip(y).zip(d) {
            *d = y_hat - y;
            sum += *d * *d;
        }
        F::from_f64(0.5) * sum
    }

    fn value(&self, y_hat: &[F], y: &[F]) -> F {
        let mut sum = F::ZERO;
        for (&y_hat, &y) in y_hat.iter().zip(y) {
            let d = y_hat - y;
            sum += d * d;
        }
        F::from_f64(0.5) * sum
    }
}

impl<F: Scalar> TwiceDifferentiable<F> for SquaredError {
    fn second_derivative(&self, _y_hat: &[F], _y: &[F], v: &[F], hv: &mut [F]) {
        hv.copy_from_slice(v);
    }
}

/// The logistic loss of one output ŷ, the log-odds of class 1: ln(1 + e^ŷ) − yŷ with y ∈ {0, 1}, or
/// a probability between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logistic;

impl<F: Scalar> Loss<F> for Logistic {
    type Target = F;

    fn name(&self) -> Cow<'static, str> {
        "logistic".into()
    }

    fn target_len(&self, outputs: usize) -> Result<usize> {
        if outputs == 1 { Ok(1) } else { Err(Error::Outputs { expected: "1 output", found: outputs }) }
    }

    fn check(&self, row: usize, y: &[F], _outputs: usize) -> Result<()> {
        let inside = y[0] >= F::ZERO && y[0] <= F::ONE;
        if inside {
            Ok(())
        } else {
            Err(Error::Target { row: Some(row), expected: "a number from 0 to 1", found: y[0].to_f64() })
        }
    }

    /// ln(1 + e^ŷ) = max(ŷ, 0) + ln(1 + e^−|ŷ|)
    ///
    /// For ŷ > 0, ℓ and ∂ℓ/∂ŷ are computed from −ŷ and 1 − y, so that 1 is subtracted neither from
    /// a number near 1 nor from ŷ.
    fn value_and_derivative(&self, y_hat: &[F], y: &[F], d: &mut [F]) -> F {
        let (a, y) = (y_hat[0], y[0]);
        if a > F::ZERO {
            let (e, rest) = ((-a).exp(), F::ONE - y);
            d[0] = rest - e / (F::ONE + e);
            rest * a + e.ln_1p()
        } else {
            let e = a.exp();
            d[0] = e / (F::ONE + e) - y;
            e.ln_1p() - y * a
        }
    }

    fn value(&self, y_hat: &[F], y: &[F]) -> F {
        self.value_and_derivative(y_hat, y, &mut [F::ZERO])
    }
}

impl<F: Scalar> TwiceDifferentiable<F> for Logistic {
    /// σ(ŷ) σ(−ŷ) = e/(1 + e)² with e = e^−|ŷ|
    fn second_derivative(&self, y_hat: &[F], _y: &[F], v: &[F], hv: &mut [F]) {
        let a = y_hat[0];
        let e = if a > F::ZERO { -a } else { a }.exp();
        hv[0] = e / (F::ONE + e) / (F::ONE + e) * v[0];
    }
}

/// Softmax cross-entropy of m ≥ 2 outputs with a label below m: −ln p_y with p = softmax(ŷ).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoftmaxCrossEntropy;

/// The index of the largest ŷₖ, or of a NaN if there is one, which comparisons would pass over.
pub(crate) fn largest<F: Scalar>(y_hat: &[F]) -> usize {
    let (mut top, mut largest) = (0, y_hat[0]);
    for (k, &a) in y_hat.iter().enumerate() {
        // `!(a <= largest)` and not `a > largest`: true for NaN, and once `largest` is NaN it
        // stays.
        #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN has to come through")]
        if !(a <= largest) && !largest.to_f64().is_nan() {
            (top, largest) = (k, a);
        }
    }
    top
}

/// `e` = e^(ŷₖ − ŷ_top) for all k but the top, whose 1 is left out: 0. Returns the sum, thus what
/// Σₖ e^(ŷₖ − ŷ_top) is above 1, to all its digits. Every ŷ is taken relative to the largest, so no
/// exponential overflows.
pub(crate) fn exponentials<F: Scalar>(y_hat: &[F], top: usize, e: &mut [F]) -> F {
    let (largest, mut rest) = (y_hat[top], F::ZERO);
    for (k, (&a, e)) in y_hat.iter().zip(e).enumerate() {
        *e = if k == top { F::ZERO } else { (a - largest).exp() };
        rest += *e;
    }
    rest
}

impl<F: Scalar> Loss<F> for SoftmaxCrossEntropy {
    type Target = usize;

    fn name(&self) -> Cow<'static, str> {
        "softmax_cross_entropy".into()
    }

    fn target_len(&self, outputs: usize) -> Result<usize> {
        if outputs >= 2 { Ok(1) } else { Err(Error::Outputs { expected: "2 outputs or more", found: outputs }) }
    }

    fn check(&self, row: usize, y: &[usize], outputs: usize) -> Result<()> {
        if y[0] < outputs { Ok(()) } else { Err(Error::Label { row: Some(row), classes: outputs, found: y[0] }) }
    }

    /// With Σ = 1 + rest, both relative to the largest ŷ: ℓ = ŷ_top − ŷ_y + ln(1 + rest), and p_top
    /// − 1 = −rest/Σ.
    fn value_and_derivative(&self, y_hat: &[F], y: &[usize], d: &mut [F]) -> F {
        let (top, y) = (largest(y_hat), y[0]);
        let rest = exponentials(y_hat, top, d);
        let sum = F::ONE + rest;
        d[top] = F::ONE;
        for d in &mut *d {
            *d = *d / sum;
        }
        d[y] = if y == top { -(rest / sum) } else { d[y] - F::ONE };
        y_hat[top] - y_hat[y] + rest.ln_1p()
    }

    fn value(&self, y_hat: &[F], y: &[usize]) -> F {
        let top = largest(y_hat);
        let (largest, mut rest) = (y_hat[top], F::ZERO);
        for (_, &a) in y_hat.iter().enumerate().filter(|&(k, _)| k != top) {
            rest += (a - largest).exp();
        }
        largest - y_hat[y[0]] + rest.ln_1p()
    }
}

impl<F: Scalar> TwiceDifferentiable<F> for SoftmaxCrossEntropy {
    /// p ⊙ (v − pᵀv), which is the same for v − v_top: there the sum pᵀv leaves out the p that may
    /// be near 1.
    fn second_derivative(&self, y_hat: &[F], _y: &[usize], v: &[F], hv: &mut [F]) {
        let top = largest(y_hat);
        let sum = F::ONE + exponentials(y_hat, top, hv);
        let (v_top, mut mean) = (v[top], F::ZERO);
        for (&e, &v) in hv.iter().zip(v) {
            mean += e * (v - v_top);
        }
        hv[top] = F::ONE;
        mean = mean / sum;
        for (h, &v) in hv.iter_mut().zip(v) {
            *h = *h / sum * (v - v_top - mean);
        }
    }
}

/// A loss that is borrowed or shared is that loss.
macro_rules! same_loss {
    ($($pointer:ty),+) => {$(
        impl<F: Scalar, L: Loss<F> + ?Sized> Loss<F> for $pointer {
            type Target = L::Target;

            fn name(&self) -> Cow<'static, str> {
                (**self).name()
            }

            fn target_len(&self, outputs: usize) -> Result<usize> {
                (**self).target_len(outputs)
            }

            fn check(&self, row: usize, y: &[L::Target], outputs: usize) -> Result<()> {
                (**self).check(row, y, outputs)
            }

            fn value_and_derivative(&self, y_hat: &[F], y: &[L::Target], d: &mut [F]) -> F {
                (**self).value_and_derivative(y_hat, y, d)
            }

            fn value(&self, y_hat: &[F], y: &[L::Target]) -> F {
                (**self).value(y_hat, y)
            }

            fn cost(&self) -> usize {
                (**self).cost()
            }
        }

        impl<F: Scalar, L: TwiceDifferentiable<F> + ?Sized> TwiceDifferentiable<F> for $pointer {
            fn second_derivative(&self, y_hat: &[F], y: &[L::Target], v: &[F], hv: &mut [F]) {
                (**self).second_derivative(y_hat, y, v, hv);
            }
        }
    )+};
}

same_loss!(&L, Box<L>, Arc<L>);

/// Targets of a batch, borrowed: an array with one row per sample, or an array, a vector or a slice
/// with one number per sample.
pub trait Targets<'a, T> {
    /// The targets as a matrix with one row per sample.
    fn rows(self) -> ArrayView2<'a, T>;
}

impl<'a, T> Targets<'a, T> for ArrayView2<'a, T> {
    fn rows(self) -> Self {
        self
    }
}

impl<'a, T> Targets<'a, T> for ArrayView1<'a, T> {
    fn rows(self) -> ArrayView2<'a, T> {
        self.insert_axis(Axis(1))
    }
}

impl<'a, S: Data> Targets<'a, S::Elem> for &'a ArrayBase<S, Ix2> {
    fn rows(self) -> ArrayView2<'a, S::Elem> {
        self.view()
    }
}

impl<'a, S: Data> Targets<'a, S::Elem> for &'a ArrayBase<S, Ix1> {
    fn rows(self) -> ArrayView2<'a, S::Elem> {
        self.view().insert_axis(Axis(1))
    }
}

impl<'a, T> Targets<'a, T> for &'a [T] {
    fn rows(self) -> ArrayView2<'a, T> {
        ArrayView1::from(self).insert_axis(Axis(1))
    }
}

impl<'a, T> Targets<'a, T> for &'a Vec<T> {
    fn rows(self) -> ArrayView2<'a, T> {
        self.as_slice().rows()
    }
}

impl<'a, T, const N: usize> Targets<'a, T> for &'a [T; N] {
    fn rows(self) -> ArrayView2<'a, T> {
        self.as_slice().rows()
    }
}

/// Checks all targets of a batch of `samples`.
pub(crate) fn check_targets<F: Scalar, L: Loss<F>>(
    loss: &L,
    y: ArrayView2<L::Target>,
    samples: usize,
    outputs: usize,
) -> Result<()> {
    let len = loss.target_len(outputs)?;
    if y.nrows() != samples {
        return Err(Error::Length { what: "y", expected: samples, found: y.nrows() });
    }
    if y.ncols() != len {
        return Err(Error::Shape { what: "y", expected: vec![samples, len], found: y.shape().to_vec() });
    }
    let mut buffer = Vec::new();
    for (row, y) in y.outer_iter().enumerate() {
        match y.to_slice() {
            Some(y) => loss.check(row, y, outputs)?,
            None => {
                buffer.clear();
                buffer.extend(y.iter().copied());
                loss.check(row, &buffer, outputs)?;
            }
        }
    }
    Ok(())
}

/// Checks the target of one sample.
pub(crate) fn checked_target<F: Scalar, L: Loss<F>>(loss: &L, y: &[L::Target], outputs: usize) -> Result<()> {
    let len = loss.target_len(outputs)?;
    if y.len() != len {
        return Err(Error::Shape { what: "y", expected: vec![len], found: vec![y.len()] });
    }
    loss.check(0, y, outputs).map_err(Error::of_one_sample)
}

/// A loss whose targets are known: `(i, ŷ, ∂)` writes ∂ℓ/∂ŷ of sample i into ∂ and returns its ℓ.
pub(crate) trait SampleLoss<F>: Fn(usize, &[F], &mut [F]) -> f64 + Sync {}

impl<F, C: Fn(usize, &[F], &mut [F]) -> f64 + Sync> SampleLoss<F> for C {}

/// A loss with the targets `y` of a batch, which lie row by row.
pub(crate) fn sample_loss<'a, F: Scalar, L: Loss<F>>(
    loss: &'a L,
    y: ArrayView2<'a, L::Target>,
) -> impl SampleLoss<F> + 'a {
    let len = y.ncols();
    let y = y.to_slice().expect("row-major targets");
    move |i, y_hat, d| loss.value_and_derivative(y_hat, &y[i * len..][..len], d).to_f64()
}

/// The second derivative of a loss with the targets of a batch: writes (∂²ℓ/∂ŷ²) v of sample `i`.
pub(crate) fn curvature<'a, F: Scalar, L: TwiceDifferentiable<F>>(
    loss: &'a L,
    y: ArrayView2<'a, L::Target>,
) -> impl Fn(usize, &[F], &[F], &mut [F]) + Sync + 'a {
    let len = y.ncols();
    let y = y.to_slice().expect("row-major targets");
    move |i, y_hat, v, hv| loss.second_derivative(y_hat, &y[i * len..][..len], v, hv)
}
