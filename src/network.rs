//! The network: its shape, its parameters θ, how they start.
//!
//! ```text
//! z[0] = x                 (d[0])                        the lecture counts from 1: its z[1], W[1] are z[0], w[0] here
//! u[t+1] = w[t] z[t] + c[t]    w[t]: (d[t+1], d[t])      c[t]: (d[t+1]), the column of w[t] that meets the constant 1
//! z[t+1] = ReLU(u[t+1])        t = 0 … T−1
//! ŷ = alpha z[T] + b           alpha: (m, d[T])  b: (m)
//! ```
//!
//! Inside the crate the head (alpha, b) is kept as layer T, the one without a ReLU.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rand_distr::{Distribution, StandardNormal};

use crate::error::{Error, Result};
use crate::random::{Generator, Stream, generator};
use crate::scalar::Scalar;

/// Which `z[t]` have a constant 1 appended. The crate appends it; the caller's x never contains it.
///
/// The head's constant is b, which is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
pub enum Constant {
    /// The input alone: the lecture's model.
    #[default]
    Input,
    /// Every `z[t]`: a bias on each hidden layer, as other libraries have it.
    EveryLayer,
    /// None.
    Absent,
}

impl Constant {
    /// Is a 1 appended to `z[t]`?
    pub(crate) fn at(self, t: usize) -> bool {
        match self {
            Self::Input => t == 0,
            Self::EveryLayer => true,
            Self::Absent => false,
        }
    }
}

/// One number for each parameter of a network, in the order `θ = [w[0], c[0], w[1], …, alpha, b]`: parameters or a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<F> {
    /// `w[0]`, …, `w[T−1]`, alpha
    pub(crate) w: Vec<Array2<F>>,
    /// `c[0]`, …, `c[T−1]`, b; of length 0 where `z[t]` has no constant.
    pub(crate) c: Vec<Array1<F>>,
}

impl<F: Scalar> Parameters<F> {
    /// All zero, in the shape of a network with these widths (input and output included).
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0.
    pub fn zeros(widths: &[usize], constant: Constant) -> Result<Self> {
        if widths.len() < 2 || widths.contains(&0) {
            return Err(Error::Widths { found: widths.to_vec() });
        }
        let head = widths.len() - 2;
        Ok(Self {
            w: widths.windows(2).map(|d| Array2::from_elem((d[1], d[0]), F::ZERO)).collect(),
            c: (0..=head)
                .map(|t| Array1::from_elem(if t == head || constant.at(t) { widths[t + 1] } else { 0 }, F::ZERO))
                .collect(),
        })
    }

    /// T, the number of hidden layers.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.w.len() - 1
    }

    /// The matrices `w[0]`, …, `w[T−1]` of the hidden layers; `w[t]` is `(d[t+1], d[t])`.
    #[must_use]
    pub fn w(&self) -> &[Array2<F>] {
        &self.w[..self.depth()]
    }

    /// The columns `c[0]`, …, `c[T−1]` that meet the constant 1; `c[t]` is `(d[t+1])`, or empty where `z[t]` has no constant.
    #[must_use]
    pub fn c(&self) -> &[Array1<F>] {
        &self.c[..self.depth()]
    }

    /// The head's weights, `(m, d[T])`.
    #[must_use]
    pub fn alpha(&self) -> ArrayView2<'_, F> {
        self.w[self.depth()].view()
    }

    /// The head's constant, (m).
    #[must_use]
    pub fn b(&self) -> ArrayView1<'_, F> {
        self.c[self.depth()].view()
    }

    /// `w[0]`, …, `w[T−1]`, alpha, to be changed in place; the shapes stay.
    pub fn w_mut(&mut self) -> impl Iterator<Item = ndarray::ArrayViewMut2<'_, F>> {
        self.w.iter_mut().map(|w| w.view_mut())
    }

    /// `c[0]`, …, `c[T−1]`, b, to be changed in place; the shapes stay.
    pub fn c_mut(&mut self) -> impl Iterator<Item = ndarray::ArrayViewMut1<'_, F>> {
        self.c.iter_mut().map(|c| c.view_mut())
    }

    /// All numbers, in the order of θ, each matrix row by row.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        self.w.iter().zip(&self.c).flat_map(|(w, c)| w.iter().chain(c))
    }

    /// All numbers, in the order of θ, to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.w.iter_mut().zip(&mut self.c).flat_map(|(w, c)| w.iter_mut().chain(c))
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.w.iter().map(Array2::len).sum::<usize>() + self.c.iter().map(Array1::len).sum::<usize>()
    }

    /// Zeros in the same shape.
    pub(crate) fn zeros_like(&self) -> Self {
        Self {
            w: self.w.iter().map(|w| Array2::from_elem(w.dim(), F::ZERO)).collect(),
            c: self.c.iter().map(|c| Array1::from_elem(c.len(), F::ZERO)).collect(),
        }
    }

    /// Refuses a gradient that belongs to a network of another shape.
    pub(crate) fn check_same_shape(&self, g: &Self) -> Result<()> {
        self.check_shape_of("gradient", g)
    }

    /// Refuses numbers, called `what`, that belong to a network of another shape.
    pub(crate) fn check_shape_of(&self, what: &'static str, g: &Self) -> Result<()> {
        let shapes = |p: &Self| -> Vec<usize> {
            p.w.iter().zip(&p.c).flat_map(|(w, c)| [w.nrows(), w.ncols(), c.len()]).collect()
        };
        let (expected, found) = (shapes(self), shapes(g));
        if expected == found { Ok(()) } else { Err(Error::Shape { what, expected, found }) }
    }
}

/// A fully connected ReLU network.
///
/// ```
/// use gemmprop::{Constant, Mlp};
///
/// // Two inputs, hidden layers of 8 and 4, one output; the constant 1 is appended to x.
/// let mlp = Mlp::<f32>::he(&[2, 8, 4, 1], Constant::Input, 7)?;
/// assert_eq!(mlp.parameters().count(), 8 * 2 + 8 + 4 * 8 + 4 + 1);
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp<F> {
    widths: Vec<usize>,
    constant: Constant,
    theta: Parameters<F>,
}

impl<F: Scalar> Mlp<F> {
    /// He initialisation: `w[t]` ~ N(0, 2/`d[t]`), which keeps the second moment of u from layer to layer under ReLU (He et al.
    /// 2015, *Delving deep into rectifiers*, eq. 10); alpha ~ N(0, 1/`d[T]`), since no ReLU follows it; c = 0 and b = 0.
    ///
    /// `widths` are `d[0]`, …, `d[T]`, m: input and output included. Two of them make a linear model. The same seed gives the
    /// same network on every run.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0.
    pub fn he(widths: &[usize], constant: Constant, seed: u64) -> Result<Self> {
        let depth = widths.len().saturating_sub(2);
        Self::from_weights(widths, constant, seed, |t, fan_in, generator| {
            let gain = if t == depth { 1.0 } else { 2.0 };
            let normal: f64 = StandardNormal.sample(generator);
            normal * (gain / fan_in as f64).sqrt()
        })
    }

    /// An initialisation of the caller's: `weight(t, d[t], generator)` is called for each entry of `w[0]`, …, `w[T−1]`, alpha
    /// (t = T), row by row. c and b are 0.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0.
    pub fn from_weights(
        widths: &[usize],
        constant: Constant,
        seed: u64,
        mut weight: impl FnMut(usize, usize, &mut Generator) -> f64,
    ) -> Result<Self> {
        let mut theta = Parameters::zeros(widths, constant)?;
        let mut generator = generator(seed, Stream::Weights);
        for (t, w) in theta.w.iter_mut().enumerate() {
            w.map_inplace(|w| *w = F::from_f64(weight(t, widths[t], &mut generator)));
        }
        Ok(Self { widths: widths.to_vec(), constant, theta })
    }

    /// A network with given parameters.
    ///
    /// # Errors
    /// [`Error::Widths`] as above; [`Error::Shape`] if θ belongs to another network.
    pub fn from_parameters(widths: &[usize], constant: Constant, theta: Parameters<F>) -> Result<Self> {
        Parameters::zeros(widths, constant)?.check_same_shape(&theta)?;
        Ok(Self { widths: widths.to_vec(), constant, theta })
    }

    /// `d[0]`, …, `d[T]`, m.
    #[must_use]
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// Where a constant 1 is appended.
    #[must_use]
    pub fn constant(&self) -> Constant {
        self.constant
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

    /// θ.
    #[must_use]
    pub fn parameters(&self) -> &Parameters<F> {
        &self.theta
    }

    /// θ, to be changed in place; the shapes stay.
    pub fn parameters_mut(&mut self) -> &mut Parameters<F> {
        &mut self.theta
    }

    /// A gradient of this network's shape, all zero.
    #[must_use]
    pub fn zero_gradient(&self) -> Parameters<F> {
        self.theta.zeros_like()
    }

    /// Edges and nodes of the graph: the size that the lecture's bounds speak of. Constants are nodes, and have edges.
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
        self.check_finite(x.insert_axis(ndarray::Axis(0)))
    }

    /// Refuses a batch that this network cannot read.
    pub(crate) fn check_batch(&self, x: ArrayView2<F>) -> Result<()> {
        if x.ncols() != self.inputs() {
            return Err(Error::Shape {
                what: "x",
                expected: vec![x.nrows(), self.inputs()],
                found: x.shape().to_vec(),
            });
        }
        if x.nrows() == 0 {
            return Err(Error::NoSamples);
        }
        self.check_finite(x)
    }

    fn check_finite(&self, x: ArrayView2<F>) -> Result<()> {
        let fine = match x.to_slice() {
            Some(x) => all_finite(x),
            None => x.iter().all(|x| x.is_finite()),
        };
        let position = if fine { None } else { x.indexed_iter().find(|(_, x)| !x.is_finite()) };
        match position {
            Some(((row, column), x)) => Err(Error::NotFinite { what: "x", row, column, found: x.to_f64() }),
            None => Ok(()),
        }
    }
}

/// False if there is a NaN or an infinity. All data go through here before each call, so it has to run at the speed of memory:
/// x − x is 0 for finite numbers and NaN for all others, and sums of that, side by side, vectorise.
#[expect(clippy::eq_op, reason = "x − x is not 0 for NaN and the infinities")]
fn all_finite<F: Scalar>(x: &[F]) -> bool {
    const LANES: usize = 16;
    let mut sums = [F::ZERO; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x - x);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += x - x);
    sums.iter().all(|&sum| sum == F::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_found_wherever_it_stands() {
        for len in [1, 15, 16, 17, 40] {
            let mut x = vec![f32::MAX; len];
            assert!(all_finite(&x));
            for i in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[i] = bad;
                    assert!(!all_finite(&x), "{bad} at {i} of {len}");
                    x[i] = f32::MIN;
                }
            }
        }
    }

    /// Pins the stream: a seed must give the same network in every release.
    #[test]
    fn the_seeded_stream_is_pinned() {
        let mlp = Mlp::<f64>::he(&[2, 2, 1], Constant::Input, 42).unwrap();
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
