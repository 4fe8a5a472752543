//! The network: its shape, its parameters and their initialisation.
//!
//! ```text
//! z[0] = x                     x: (d[0])                 z[1] where one counts from 1
//! u[t+1] = w[t] z[t] + c[t]    w[t]: (d[t+1], d[t])      c[t]: (d[t+1]), meets the constant 1
//! z[t+1] = ReLU(u[t+1])        t = 0 … T−1
//! ŷ = alpha z[T] + b           alpha: (m, d[T])          b: (m)
//! ```

use ndarray::{ArrayView1, ArrayView2};

use crate::error::{Error, Result};
use crate::linalg::scalar::{Scalar, all_finite};
use crate::network::parameters::{Bias, Parameters, ParametersMut, layers};
use crate::network::products::Products;
use crate::normal::standard_normal;
use crate::random::{Generator, Stream, generator};

/// A fully connected ReLU network.
///
/// ```
/// use gemmprop::{Bias, Mlp};
///
/// // Two inputs, hidden layers of 8 and 4, one output; the constant 1 is appended to x.
/// let mlp = Mlp::<f32>::he(&[2, 8, 4, 1], Bias::Input, 7)?;
/// assert_eq!(mlp.parameters().count(), 8 * 2 + 8 + 4 * 8 + 4 + 1);
/// # Ok::<(), gemmprop::Error>(())
/// ```
// `predict`, `predict_one` and `classify` are in engine/predict.rs: they run on the engine, which
// is above this file.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp<F> {
    widths: Vec<usize>,
    bias: Bias,
    theta: Parameters<F>,
    products: Products,
}

impl<F: Scalar> Mlp<F> {
    /// He initialisation: `w[t]` ~ N(0, 2/`d[t]`), which keeps the second moment of u from layer to
    /// layer under ReLU (He et al. 2015, *Delving deep into rectifiers*, eq. 10); alpha ~ N(0,
    /// 1/`d[T]`), since no ReLU follows it; c = 0 and b = 0.
    ///
    /// `widths` are `d[0]`, …, `d[T]`, m: input and output included. Two of them make a linear
    /// model. The same seed gives the same network on every run.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::TooLarge`] for
    /// parameters that do not fit into memory.
    pub fn he(widths: &[usize], bias: Bias, seed: u64) -> Result<Self> {
        let depth = widths.len().saturating_sub(2);
        Self::from_weights(widths, bias, seed, |t, fan_in, generator| {
            let gain = if t == depth { 1.0 } else { 2.0 };
            standard_normal(generator) * (gain / fan_in as f64).sqrt()
        })
    }

    /// A network with a custom initialisation: `weight(t, d[t], generator)` is called for each
    /// entry of `w[0]`, …, `w[T−1]`, alpha (t = T), row by row. c and b are 0.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::TooLarge`] for
    /// parameters that do not fit into memory.
    pub fn from_weights(
        widths: &[usize],
        bias: Bias,
        seed: u64,
        mut weight: impl FnMut(usize, usize, &mut Generator) -> f64,
    ) -> Result<Self> {
        let mut theta = Parameters::zeros(widths, bias)?;
        let mut generator = generator(seed, Stream::Weights);
        for (t, w) in theta.w.iter_mut().enumerate() {
            w.map_inplace(|w| *w = F::from_f64(weight(t, widths[t], &mut generator)));
        }
        Ok(Self { widths: widths.to_vec(), bias, theta, products: Products::default() })
    }

    /// A network with given parameters.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::Shape`] if θ belongs
    /// to another network.
    pub fn from_parameters(widths: &[usize], bias: Bias, theta: Parameters<F>) -> Result<Self> {
        theta.check_shape_is("parameters", &layers(widths, bias)?)?;
        Ok(Self { widths: widths.to_vec(), bias, theta, products: Products::default() })
    }

    /// The same network, whose products are computed by these means from now on: in training, in
    /// predictions, and in its Hessian.
    ///
    /// # Errors
    /// [`Error::NoBlas`] for [`Products::Blas`] without the feature `blas`.
    pub fn with_products(mut self, products: Products) -> Result<Self> {
        if products == Products::Blas && !cfg!(feature = "blas") {
            return Err(Error::NoBlas);
        }
        self.products = products;
        Ok(self)
    }

    /// Who computes the products of this network.
    #[must_use]
    pub fn products(&self) -> Products {
        self.products
    }

    /// The widths `d[0]`, …, `d[T]`, m.
    #[must_use]
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// Which layers have a bias.
    #[must_use]
    pub fn bias(&self) -> Bias {
        self.bias
    }

    /// T, the number of hidden layers.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.theta.depth()
    }

    /// `d[0]`, the length of x.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// m, the length of ŷ.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// The parameters θ.
    #[must_use]
    pub fn parameters(&self) -> &Parameters<F> {
        &self.theta
    }

    /// The parameters θ, to be changed in place; the shapes stay.
    pub fn parameters_mut(&mut self) -> ParametersMut<'_, F> {
        ParametersMut { theta: &mut self.theta }
    }

    /// Replaces θ by a copy of the given parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] if they belong to another network; nothing is changed then.
    pub fn set_parameters(&mut self, theta: &Parameters<F>) -> Result<()> {
        self.theta.check_shape_of("parameters", theta)?;
        self.theta.clone_from(theta);
        Ok(())
    }

    /// The parameters θ, for callers inside the crate that keep their shapes.
    pub(crate) fn theta_mut(&mut self) -> &mut Parameters<F> {
        &mut self.theta
    }

    /// A gradient of this network's shape, all zero.
    #[must_use]
    pub fn zero_gradient(&self) -> Parameters<F> {
        self.theta.zeros_like()
    }

    /// The numbers of edges and nodes of the graph, by which the cost of the rungs is bounded.
    /// Constants count as nodes, and biases as their edges.
    #[must_use]
    pub fn graph_size(&self) -> (usize, usize) {
        let constants = self.theta.c.iter().filter(|c| !c.is_empty()).count();
        (self.theta.count(), self.widths.iter().sum::<usize>() + constants)
    }

    /// Refuses one sample that this network cannot read.
    pub(crate) fn check_sample(&self, x: ArrayView1<F>) -> Result<()> {
        if x.len() != self.inputs() {
            return Err(Error::Shape { what: "x", expected: vec![self.inputs()], found: vec![x.len()] });
        }
        self.check_batch(x.insert_axis(ndarray::Axis(0))).map_err(Error::of_one_sample)
    }

    /// Refuses a batch that this network cannot read.
    pub(crate) fn check_batch(&self, x: ArrayView2<F>) -> Result<()> {
        check_inputs(x, self.inputs())
    }
}

/// Refuses rows that a network with so many inputs cannot read.
pub(crate) fn check_inputs<F: Scalar>(x: ArrayView2<F>, inputs: usize) -> Result<()> {
    if x.ncols() != inputs {
        let expected = vec![x.nrows(), inputs];
        return Err(Error::Shape { what: "x", expected, found: x.shape().to_vec() });
    }
    if x.nrows() == 0 {
        return Err(Error::NoSamples);
    }
    match not_finite(x) {
        Some((row, column, found)) => Err(Error::NotFinite { what: "x", row: Some(row), column, found }),
        None => Ok(()),
    }
}

/// Refuses outputs that are not finite.
pub(crate) fn check_outputs<F: Scalar>(y_hat: ArrayView2<F>) -> Result<()> {
    match not_finite(y_hat) {
        Some((row, output, found)) => Err(Error::Output { row: Some(row), output, found }),
        None => Ok(()),
    }
}

/// Row, column and value of the first number that is NaN or infinite.
pub(crate) fn not_finite<F: Scalar>(a: ArrayView2<F>) -> Option<(usize, usize, f64)> {
    let fine = match a.to_slice() {
        Some(a) => all_finite(a),
        None => a.iter().all(|a| a.is_finite()),
    };
    let first = if fine { None } else { a.indexed_iter().find(|(_, a)| !a.is_finite()) };
    first.map(|((row, column), a)| (row, column, a.to_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins the stream: a seed must give the same network in every release.
    #[test]
    fn the_seeded_stream_is_pinned() {
        let mlp = Mlp::<f64>::he(&[2, 2, 1], Bias::Input, 42).unwrap();
        let found: Vec<f64> = mlp.parameters().iter().copied().collect();
        assert_eq!(found, PINNED, "{found:?}");
    }

    /// Printed by the first version.
    #[rustfmt::skip]
    const PINNED: [f64; 9] = [
        0.47798123835102174, 1.3340706102318078, -0.21086668327103028, 0.4763469238088213, 0.0, 0.0, // w[0], c[0]
        -0.36210275143795057, -0.6604224950462594, 0.0, // alpha, b
    ];
}
