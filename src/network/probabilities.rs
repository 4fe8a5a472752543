//! The probabilities of classes by a loss whose ŷ are log-odds.

use crate::linalg::scalar::Scalar;
use crate::network::loss::{Logistic, Loss, SoftmaxCrossEntropy, exponentials, largest};

/// A loss whose ŷ stand for probabilities of classes.
///
/// | loss | classes | p |
/// |---|---|---|
/// | [`Logistic`] | 2 | σ(−ŷ), σ(ŷ) |
/// | [`SoftmaxCrossEntropy`] | m | e^ŷₖ / Σⱼ e^ŷⱼ |
pub trait Probabilities<F: Scalar>: Loss<F> {
    /// The number of classes of a network with m = `outputs`.
    fn classes(&self, outputs: usize) -> usize;

    /// `p` = the probability of each class, from the ŷ of one sample. Each p is good to a few
    /// roundings of itself, however small; a finite ŷ gives neither NaN nor infinity.
    fn probabilities(&self, y_hat: &[F], p: &mut [F]);
}

impl<F: Scalar> Probabilities<F> for Logistic {
    fn classes(&self, _outputs: usize) -> usize {
        2
    }

    /// With e = e^−|ŷ|: e/(1 + e) and 1/(1 + e), of which neither is 1 minus the other.
    fn probabilities(&self, y_hat: &[F], p: &mut [F]) {
        let a = y_hat[0];
        let e = if a > F::ZERO { -a } else { a }.exp();
        let (less, more) = (e / (F::ONE + e), F::ONE / (F::ONE + e));
        let [of_0, of_1] = if a > F::ZERO { [less, more] } else { [more, less] };
        (p[0], p[1]) = (of_0, of_1);
    }
}

impl<F: Scalar> Probabilities<F> for SoftmaxCrossEntropy {
    fn classes(&self, outputs: usize) -> usize {
        outputs
    }

    fn probabilities(&self, y_hat: &[F], p: &mut [F]) {
        let top = largest(y_hat);
        let sum = F::ONE + exponentials(y_hat, top, p);
        p[top] = F::ONE;
        p.iter_mut().for_each(|p| *p = *p / sum);
    }
}
