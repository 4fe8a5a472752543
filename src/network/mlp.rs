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

use std::ops::Deref;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};
use rand_distr::{Distribution, StandardNormal};

use crate::error::{Error, Result};
use crate::linalg::scalar::Scalar;
use crate::random::{Generator, Stream, generator};

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

/// SingleStep number for each parameter of a network, in the order
/// `θ = [w[0], c[0], w[1], …, alpha, b]`: parameters or a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<F> {
    /// `w[0]`, …, `w[T−1]`, alpha
    pub(crate) w: Vec<Array2<F>>,
    /// `c[0]`, …, `c[T−1]`, b; of length 0 where `z[t]` has no constant.
    pub(crate) c: Vec<Array1<F>>,
}

/// The slice of an array, or the array of a slice: every array here lies row by row, in one piece.
fn in_one_piece<T>(found: Option<T>) -> T {
    found.expect("row by row, in one piece")
}

/// The shape of `w[t]` and the length of `c[t]`.
type Layer = ((usize, usize), usize);

/// Those of t = 0 … T, the head's last.
fn layers(widths: &[usize], constant: Constant) -> Result<Vec<Layer>> {
    if widths.len() < 2 || widths.contains(&0) {
        return Err(Error::Widths { found: widths.to_vec() });
    }
    let head = widths.len() - 2;
    let layers = widths.windows(2).enumerate();
    Ok(layers.map(|(t, d)| ((d[1], d[0]), if t == head || constant.at(t) { d[1] } else { 0 })).collect())
}

/// Room for so many numbers, if there is memory for them.
fn room<F>(count: Option<usize>) -> Option<Vec<F>> {
    let mut room = Vec::new();
    room.try_reserve_exact(count?).ok()?;
    Some(room)
}

impl<F: Scalar> Parameters<F> {
    /// All zero, in the shape of a network with these widths (input and output included).
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::TooLarge`] for
    /// parameters that do not fit into memory.
    pub fn zeros(widths: &[usize], constant: Constant) -> Result<Self> {
        let layers = layers(widths, constant)?;
        // For all of them before the first is filled, which takes its time where they are large.
        let rooms: Option<Vec<_>> =
            layers.iter().map(|&((m, n), c)| Some((room(m.checked_mul(n))?, room(Some(c))?))).collect();
        let Some(rooms) = rooms else {
            let parameters = layers.iter().map(|&((m, n), c)| m as f64 * n as f64 + c as f64).sum();
            return Err(Error::TooLarge { found: widths.to_vec(), parameters });
        };
        let filled = |mut room: Vec<F>, count| {
            room.resize(count, F::ZERO);
            room
        };
        let mut zeros = Self { w: Vec::new(), c: Vec::new() };
        for ((dim, c), (room_w, room_c)) in layers.into_iter().zip(rooms) {
            zeros.w.push(in_one_piece(Array2::from_shape_vec(dim, filled(room_w, dim.0 * dim.1)).ok()));
            zeros.c.push(filled(room_c, c).into());
        }
        Ok(zeros)
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

    /// The columns `c[0]`, …, `c[T−1]` that meet the constant 1; `c[t]` is `(d[t+1])`, or empty
    /// where `z[t]` has no constant.
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

    /// The T + 1 layers, the head the last of them: (`w[0]`, `c[0]`), …, (`w[T−1]`, `c[T−1]`),
    /// (alpha, b).
    pub fn layers(&self) -> impl ExactSizeIterator<Item = (ArrayView2<'_, F>, ArrayView1<'_, F>)> {
        self.w.iter().zip(&self.c).map(|(w, c)| (w.view(), c.view()))
    }

    /// What [`w`](Self::w) gives, to be changed in place; the shapes stay.
    pub fn w_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut2<'_, F>> {
        let depth = self.depth();
        self.w[..depth].iter_mut().map(|w| w.view_mut())
    }

    /// What [`c`](Self::c) gives, to be changed in place; the shapes stay.
    pub fn c_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut1<'_, F>> {
        let depth = self.depth();
        self.c[..depth].iter_mut().map(|c| c.view_mut())
    }

    /// The head's weights, to be changed in place.
    pub fn alpha_mut(&mut self) -> ArrayViewMut2<'_, F> {
        let depth = self.depth();
        self.w[depth].view_mut()
    }

    /// The head's constant, to be changed in place.
    pub fn b_mut(&mut self) -> ArrayViewMut1<'_, F> {
        let depth = self.depth();
        self.c[depth].view_mut()
    }

    /// What [`layers`](Self::layers) gives, to be changed in place; the shapes stay.
    pub fn layers_mut(&mut self) -> impl ExactSizeIterator<Item = (ArrayViewMut2<'_, F>, ArrayViewMut1<'_, F>)> {
        self.w.iter_mut().zip(&mut self.c).map(|(w, c)| (w.view_mut(), c.view_mut()))
    }

    /// All numbers, in the order of θ, each matrix row by row.
    ///
    /// A loop over `a.iter_mut().zip(b.iter())` is many times slower than one by
    /// [`zip_mut_with`](Self::zip_mut_with) or over [`slices`](Self::slices), which a compiler can
    /// vectorise.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        self.slices().flatten()
    }

    /// All numbers, in the order of θ, to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.slices_mut().flatten()
    }

    /// All numbers, in the order of θ, as a slice for each array: `w[0]` row by row, `c[0]`, …,
    /// alpha, b. A c where there is no constant is an empty one.
    pub fn slices(&self) -> impl Iterator<Item = &[F]> {
        let arrays = self.w.iter().zip(&self.c);
        arrays.flat_map(|(w, c)| [w.as_slice(), c.as_slice()]).map(in_one_piece)
    }

    /// The same, to be changed in place.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [F]> {
        let arrays = self.w.iter_mut().zip(&mut self.c);
        arrays.flat_map(|(w, c)| [w.as_slice_mut(), c.as_slice_mut()]).map(in_one_piece)
    }

    /// `f(a, b)` for each number a of this one and the number b in the same place of the other, at
    /// the speed of memory.
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn zip_mut_with(&mut self, other: &Self, mut f: impl FnMut(&mut F, &F)) -> Result<()> {
        self.check_shape_of("other", other)?;
        for (a, b) in self.slices_mut().zip(other.slices()) {
            a.iter_mut().zip(b).for_each(|(a, b)| f(a, b));
        }
        Ok(())
    }

    /// Adds `a` times the other one.
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn scaled_add(&mut self, a: F, other: &Self) -> Result<()> {
        self.zip_mut_with(other, |p, &q| *p += a * q)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slices().map(<[F]>::len).sum()
    }

    /// Is there neither a NaN nor an infinity?
    pub(crate) fn all_finite(&self) -> bool {
        self.w
            .iter()
            .map(|w| w.as_slice())
            .chain(self.c.iter().map(|c| c.as_slice()))
            .all(|numbers| all_finite(numbers.expect("in one piece")))
    }

    /// Are these numbers of the same network? Without a word, and without an allocation.
    pub(crate) fn has_shape_of(&self, other: &Self) -> bool {
        let same = |(a, b): (&Array2<F>, &Array2<F>)| a.dim() == b.dim();
        let as_long = |(a, b): (&Array1<F>, &Array1<F>)| a.len() == b.len();
        self.w.len() == other.w.len()
            && self.w.iter().zip(&other.w).all(same)
            && self.c.iter().zip(&other.c).all(as_long)
    }

    /// The numbers of parameters of the same shape.
    pub(crate) fn assign(&mut self, other: &Self) {
        self.w.iter_mut().zip(&other.w).for_each(|(to, from)| to.assign(from));
        self.c.iter_mut().zip(&other.c).for_each(|(to, from)| to.assign(from));
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
    pub(crate) fn check_shape_of(&self, what: &'static str, p: &Self) -> Result<()> {
        p.check_shape_is(what, &self.shape())
    }

    fn check_shape_is(&self, what: &'static str, expected: &[Layer]) -> Result<()> {
        let found = self.shape();
        if expected == found {
            return Ok(());
        }
        let flat = |layers: &[Layer]| layers.iter().flat_map(|&((rows, columns), c)| [rows, columns, c]).collect();
        Err(Error::Shape { what, expected: flat(expected), found: flat(&found) })
    }

    fn shape(&self) -> Vec<Layer> {
        self.w.iter().zip(&self.c).map(|(w, c)| (w.dim(), c.len())).collect()
    }
}

/// The parameters of a network, to be changed in place: their numbers, not their shapes. What only
/// reads is that of [`Parameters`].
///
/// ```
/// use gemmprop::{Constant, Mlp};
///
/// let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Constant::Input, 7)?;
/// let g = mlp.zero_gradient(); // of a loop of one's own
/// mlp.parameters_mut().scaled_add(-0.1, &g)?;
/// mlp.parameters_mut().b_mut()[0] = 1.0;
/// # Ok::<(), gemmprop::Error>(())
/// ```
///
/// A network of other widths cannot slip in; [`Mlp::set_parameters`] looks at their shapes:
///
/// ```compile_fail,E0594
/// # use gemmprop::{Constant, Mlp};
/// let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Constant::Input, 7)?;
/// let other = Mlp::<f64>::he(&[5, 1], Constant::Absent, 7)?;
/// *mlp.parameters_mut() = other.parameters().clone();
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct ParametersMut<'a, F> {
    theta: &'a mut Parameters<F>,
}

impl<F> Deref for ParametersMut<'_, F> {
    type Target = Parameters<F>;

    fn deref(&self) -> &Parameters<F> {
        self.theta
    }
}

/// As the methods of [`Parameters`] of the same names.
impl<F: Scalar> ParametersMut<'_, F> {
    /// [`Parameters::w_mut`]
    pub fn w_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut2<'_, F>> {
        self.theta.w_mut()
    }

    /// [`Parameters::c_mut`]
    pub fn c_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut1<'_, F>> {
        self.theta.c_mut()
    }

    /// [`Parameters::alpha_mut`]
    pub fn alpha_mut(&mut self) -> ArrayViewMut2<'_, F> {
        self.theta.alpha_mut()
    }

    /// [`Parameters::b_mut`]
    pub fn b_mut(&mut self) -> ArrayViewMut1<'_, F> {
        self.theta.b_mut()
    }

    /// [`Parameters::layers_mut`]
    pub fn layers_mut(&mut self) -> impl ExactSizeIterator<Item = (ArrayViewMut2<'_, F>, ArrayViewMut1<'_, F>)> {
        self.theta.layers_mut()
    }

    /// [`Parameters::iter_mut`]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.theta.iter_mut()
    }

    /// [`Parameters::slices_mut`]
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [F]> {
        self.theta.slices_mut()
    }

    /// [`Parameters::zip_mut_with`]
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn zip_mut_with(&mut self, other: &Parameters<F>, f: impl FnMut(&mut F, &F)) -> Result<()> {
        self.theta.zip_mut_with(other, f)
    }

    /// [`Parameters::scaled_add`]
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn scaled_add(&mut self, a: F, other: &Parameters<F>) -> Result<()> {
        self.theta.scaled_add(a, other)
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
    pub fn he(widths: &[usize], constant: Constant, seed: u64) -> Result<Self> {
        let depth = widths.len().saturating_sub(2);
        Self::from_weights(widths, constant, seed, |t, fan_in, generator| {
            let gain = if t == depth { 1.0 } else { 2.0 };
            let normal: f64 = StandardNormal.sample(generator);
            normal * (gain / fan_in as f64).sqrt()
        })
    }

    /// An initialisation of the caller's: `weight(t, d[t], generator)` is called for each entry of
    /// `w[0]`, …, `w[T−1]`, alpha (t = T), row by row. c and b are 0.
    ///
    /// # Errors
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::TooLarge`] for
    /// parameters that do not fit into memory.
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
    /// [`Error::Widths`] for fewer than two widths, or a width of 0; [`Error::Shape`] if θ belongs
    /// to another network.
    pub fn from_parameters(widths: &[usize], constant: Constant, theta: Parameters<F>) -> Result<Self> {
        theta.check_shape_is("parameters", &layers(widths, constant)?)?;
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
    pub fn parameters_mut(&mut self) -> ParametersMut<'_, F> {
        ParametersMut { theta: &mut self.theta }
    }

    /// Replaces θ by a copy of another.
    ///
    /// # Errors
    /// [`Error::Shape`] if it belongs to another network; nothing has been changed then.
    pub fn set_parameters(&mut self, theta: &Parameters<F>) -> Result<()> {
        self.theta.check_shape_of("parameters", theta)?;
        self.theta.clone_from(theta);
        Ok(())
    }

    /// θ for what keeps its shape as it is.
    pub(crate) fn theta_mut(&mut self) -> &mut Parameters<F> {
        &mut self.theta
    }

    /// A gradient of this network's shape, all zero.
    #[must_use]
    pub fn zero_gradient(&self) -> Parameters<F> {
        self.theta.zeros_like()
    }

    /// Edges and nodes of the graph: the size that the lecture's bounds speak of. Constants are
    /// nodes, and have edges.
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
        self.check_finite(x.insert_axis(ndarray::Axis(0))).map_err(Error::of_one_sample)
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
        match not_finite(x) {
            Some((row, column, found)) => Err(Error::NotFinite { what: "x", row: Some(row), column, found }),
            None => Ok(()),
        }
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

/// False if there is a NaN or an infinity. All data go through here before each call, so it has to
/// run at the speed of memory: x − x is 0 for finite numbers and NaN for all others, and sums of
/// that, side by side, vectorise.
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

    /// Zipped, what reads and what writes meet layer by layer, and none is left out.
    #[test]
    fn what_reads_and_what_writes_have_the_same_layers() {
        for (widths, constant) in
            [(&[3, 1][..], Constant::Absent), (&[3, 4, 5, 2], Constant::Input), (&[3, 4, 2], Constant::EveryLayer)]
        {
            let mut theta = Mlp::<f32>::he(widths, constant, 1).unwrap().parameters().clone();
            theta.iter_mut().zip(1_u8..).for_each(|(p, i)| *p = i.into());
            let (mut copy, depth) = (theta.zeros_like(), widths.len() - 2);
            assert_eq!((theta.w().len(), theta.c().len()), (depth, depth));
            assert_eq!(copy.w_mut().len(), depth);
            assert_eq!(copy.c_mut().len(), depth);
            copy.w_mut().zip(theta.w()).for_each(|(mut to, from)| to.assign(from));
            copy.c_mut().zip(theta.c()).for_each(|(mut to, from)| to.assign(from));
            assert_eq!((copy.w(), copy.c()), (theta.w(), theta.c()));
            copy.alpha_mut().assign(&theta.alpha());
            copy.b_mut().assign(&theta.b());
            assert_eq!(copy, theta);
            let mut copy = theta.zeros_like();
            assert_eq!((theta.layers().len(), copy.layers_mut().len()), (depth + 1, depth + 1));
            for ((mut w, mut c), (from_w, from_c)) in copy.layers_mut().zip(theta.layers()) {
                w.assign(&from_w);
                c.assign(&from_c);
            }
            assert_eq!(copy, theta);
            let numbers: Vec<f32> = (1_u8..).take(theta.count()).map(f32::from).collect();
            assert_eq!(theta.iter().copied().collect::<Vec<_>>(), numbers);
            assert_eq!(theta.slices().collect::<Vec<_>>().concat(), numbers);
            assert_eq!((theta.slices().count(), copy.slices_mut().count()), (2 * depth + 2, 2 * depth + 2));
        }
    }

    #[test]
    fn numbers_in_the_same_places_meet() {
        let mut theta = Parameters::<f64>::zeros(&[2, 3, 1], Constant::Input).unwrap();
        let mut other = theta.zeros_like();
        theta.iter_mut().zip(1_u8..).for_each(|(p, i)| *p = i.into());
        other.iter_mut().zip(1_u8..).for_each(|(p, i)| *p = f64::from(i) * 100.0);
        theta.zip_mut_with(&other, |p, &q| *p += q).unwrap();
        assert!(theta.iter().zip(1_u8..).all(|(&p, i)| p == 101.0 * f64::from(i)));
        theta.scaled_add(-2.0, &other).unwrap();
        assert!(theta.iter().zip(1_u8..).all(|(&p, i)| p == -99.0 * f64::from(i)));
        let before = theta.clone();
        for widths in [&[2, 3, 2][..], &[3, 2, 1], &[2, 1]] {
            let other = Parameters::zeros(widths, Constant::Input).unwrap();
            assert!(matches!(theta.scaled_add(1.0, &other), Err(Error::Shape { what: "other", .. })));
            let called = theta.zip_mut_with(&other, |_, _| panic!("nothing may be called"));
            assert!(matches!(called, Err(Error::Shape { what: "other", .. })));
        }
        assert_eq!(theta, before);
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
