//! The parameters θ of a network, which a gradient and the moments of an optimiser are shaped like.
//!
//! Inside the crate the head (alpha, b) is kept as layer T, the one without a ReLU.

use std::fmt::{self, Display};
use std::ops::Deref;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2};

use crate::error::{Error, Result};
use crate::linalg::scalar::{Scalar, all_finite};

/// Which layers have a bias `c[t]`, the weights of a constant 1 appended to `z[t]`. The crate
/// appends the constant; the caller's x never contains it.
///
/// The head always has its bias b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(rename_all = "snake_case"))]
pub enum Bias {
    /// A bias on the first layer only, which is the lecture's model.
    #[default]
    Input,
    /// A bias on every hidden layer, as in other libraries.
    EveryLayer,
    /// A bias on no hidden layer.
    #[cfg_attr(feature = "files", serde(alias = "absent"))] // as older checkpoints have it
    None,
}

/// The name that checkpoints have: `input`, `every_layer` or `none`.
impl Display for Bias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::EveryLayer => "every_layer",
            Self::None => "none",
        })
    }
}

impl Bias {
    /// Whether layer t has a bias.
    pub(crate) fn at(self, t: usize) -> bool {
        match self {
            Self::Input => t == 0,
            Self::EveryLayer => true,
            Self::None => false,
        }
    }
}

/// One number for each parameter of a network, in the order
/// `θ = [w[0], c[0], w[1], …, alpha, b]`: parameters or a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<F> {
    /// `w[0]`, …, `w[T−1]`, alpha
    pub(crate) w: Vec<Array2<F>>,
    /// `c[0]`, …, `c[T−1]`, b; of length 0 where layer t has no bias.
    pub(crate) c: Vec<Array1<F>>,
}

/// The slice of an array, or the array of a slice: every array here lies row by row, in one piece.
pub(crate) fn in_one_piece<T>(found: Option<T>) -> T {
    found.expect("row by row, in one piece")
}

/// The shape of `w[t]` and the length of `c[t]`.
pub(crate) type Layer = ((usize, usize), usize);

/// The shapes of `w[t]` and lengths of `c[t]` for t = 0 … T, the head's last.
pub(crate) fn layers(widths: &[usize], bias: Bias) -> Result<Vec<Layer>> {
    if widths.len() < 2 || widths.contains(&0) {
        return Err(Error::Widths { found: widths.to_vec() });
    }
    let head = widths.len() - 2;
    let layers = widths.windows(2).enumerate();
    Ok(layers.map(|(t, d)| ((d[1], d[0]), if t == head || bias.at(t) { d[1] } else { 0 })).collect())
}

/// An empty vector with room for `count` numbers, if there is memory for them.
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
    pub fn zeros(widths: &[usize], bias: Bias) -> Result<Self> {
        let layers = layers(widths, bias)?;
        // All memory is reserved before any is filled, since filling large arrays takes time.
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

    /// The biases `c[0]`, …, `c[T−1]`; `c[t]` is `(d[t+1])`, or empty where layer t has no bias.
    #[must_use]
    pub fn c(&self) -> &[Array1<F>] {
        &self.c[..self.depth()]
    }

    /// The head's weights, `(m, d[T])`.
    #[must_use]
    pub fn alpha(&self) -> ArrayView2<'_, F> {
        self.w[self.depth()].view()
    }

    /// The head's bias, (m).
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

    /// The head's bias, to be changed in place.
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
    /// alpha, b. The slice of an absent bias is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[F]> {
        let arrays = self.w.iter().zip(&self.c);
        arrays.flat_map(|(w, c)| [w.as_slice(), c.as_slice()]).map(in_one_piece)
    }

    /// The arrays in the order of θ as slices, to be changed in place.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [F]> {
        let arrays = self.w.iter_mut().zip(&mut self.c);
        arrays.flat_map(|(w, c)| [w.as_slice_mut(), c.as_slice_mut()]).map(in_one_piece)
    }

    /// Calls `f(a, b)` for each number a of `self` and the number b at the same place of the other,
    /// at the speed of memory.
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

    /// Adds `a` times the other parameters: `self` += a · other.
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn scaled_add(&mut self, a: F, other: &Self) -> Result<()> {
        self.zip_mut_with(other, |p, &q| *p += a * q)
    }

    /// All numbers in the order of θ as one vector of [`count`](Self::count) numbers, in double
    /// precision, which is exact: as eigenvectors and operators of `curvature` have them.
    #[must_use]
    pub fn to_vector(&self) -> Array1<f64> {
        self.iter().map(|p| p.to_f64()).collect()
    }

    /// Replaces all numbers by those of a vector in the order of θ, rounded to F: what
    /// [`to_vector`](Self::to_vector) gives, and any eigenvector of the Hessian.
    ///
    /// # Errors
    /// [`Error::Shape`] for a vector of another length; nothing is changed then.
    pub fn set_vector<'v>(&mut self, vector: impl Into<ArrayView1<'v, f64>>) -> Result<()> {
        let vector = vector.into();
        if vector.len() != self.count() {
            let (expected, found) = (vec![self.count()], vec![vector.len()]);
            return Err(Error::Shape { what: "vector", expected, found });
        }
        self.iter_mut().zip(vector).for_each(|(p, &v)| *p = F::from_f64(v));
        Ok(())
    }

    /// The number of parameters.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slices().map(<[F]>::len).sum()
    }

    /// Whether all numbers are finite.
    pub(crate) fn all_finite(&self) -> bool {
        self.w
            .iter()
            .map(|w| w.as_slice())
            .chain(self.c.iter().map(|c| c.as_slice()))
            .all(|numbers| all_finite(numbers.expect("in one piece")))
    }

    /// Whether both have the same shapes. Does not allocate.
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

    /// Refuses numbers, called `what`, that belong to a network of another shape. A loop of the
    /// caller's own checks each gradient, so nothing is allocated unless there is an error.
    pub(crate) fn check_shape_of(&self, what: &'static str, p: &Self) -> Result<()> {
        if self.layer_shapes().eq(p.layer_shapes()) { Ok(()) } else { p.check_shape_is(what, &self.shape()) }
    }

    pub(crate) fn check_shape_is(&self, what: &'static str, expected: &[Layer]) -> Result<()> {
        if self.layer_shapes().eq(expected.iter().copied()) {
            return Ok(());
        }
        let flat = |layers: &[Layer]| layers.iter().flat_map(|&((rows, columns), c)| [rows, columns, c]).collect();
        Err(Error::Shape { what, expected: flat(expected), found: flat(&self.shape()) })
    }

    pub(crate) fn shape(&self) -> Vec<Layer> {
        self.layer_shapes().collect()
    }

    fn layer_shapes(&self) -> impl Iterator<Item = Layer> {
        self.w.iter().zip(&self.c).map(|(w, c)| (w.dim(), c.len()))
    }
}

/// The parameters of a network, to be changed in place: their numbers, not their shapes. What only
/// reads is that of [`Parameters`].
///
/// ```
/// use gemmprop::{Bias, Mlp};
///
/// let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Bias::Input, 7)?;
/// let g = mlp.zero_gradient(); // of a loop of one's own
/// mlp.parameters_mut().scaled_add(-0.1, &g)?;
/// mlp.parameters_mut().b_mut()[0] = 1.0;
/// # Ok::<(), gemmprop::Error>(())
/// ```
///
/// A network of other widths cannot slip in; [`Mlp::set_parameters`](crate::Mlp::set_parameters)
/// looks at their shapes:
///
/// ```compile_fail,E0594
/// # use gemmprop::{Bias, Mlp};
/// let mut mlp = Mlp::<f64>::he(&[2, 3, 1], Bias::Input, 7)?;
/// let other = Mlp::<f64>::he(&[5, 1], Bias::None, 7)?;
/// *mlp.parameters_mut() = other.parameters().clone();
/// # Ok::<(), gemmprop::Error>(())
/// ```
#[derive(Debug)]
pub struct ParametersMut<'a, F> {
    pub(crate) theta: &'a mut Parameters<F>,
}

impl<F> Deref for ParametersMut<'_, F> {
    type Target = Parameters<F>;

    fn deref(&self) -> &Parameters<F> {
        self.theta
    }
}

/// These methods do what those of the same names in [`Parameters`] do.
impl<F: Scalar> ParametersMut<'_, F> {
    /// See [`Parameters::w_mut`].
    pub fn w_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut2<'_, F>> {
        self.theta.w_mut()
    }

    /// See [`Parameters::c_mut`].
    pub fn c_mut(&mut self) -> impl ExactSizeIterator<Item = ArrayViewMut1<'_, F>> {
        self.theta.c_mut()
    }

    /// See [`Parameters::alpha_mut`].
    pub fn alpha_mut(&mut self) -> ArrayViewMut2<'_, F> {
        self.theta.alpha_mut()
    }

    /// See [`Parameters::b_mut`].
    pub fn b_mut(&mut self) -> ArrayViewMut1<'_, F> {
        self.theta.b_mut()
    }

    /// See [`Parameters::layers_mut`].
    pub fn layers_mut(&mut self) -> impl ExactSizeIterator<Item = (ArrayViewMut2<'_, F>, ArrayViewMut1<'_, F>)> {
        self.theta.layers_mut()
    }

    /// See [`Parameters::iter_mut`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.theta.iter_mut()
    }

    /// See [`Parameters::slices_mut`].
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [F]> {
        self.theta.slices_mut()
    }

    /// See [`Parameters::set_vector`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a vector of another length; nothing is changed then.
    pub fn set_vector<'v>(&mut self, vector: impl Into<ArrayView1<'v, f64>>) -> Result<()> {
        self.theta.set_vector(vector)
    }

    /// See [`Parameters::zip_mut_with`].
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn zip_mut_with(&mut self, other: &Parameters<F>, f: impl FnMut(&mut F, &F)) -> Result<()> {
        self.theta.zip_mut_with(other, f)
    }

    /// See [`Parameters::scaled_add`].
    ///
    /// # Errors
    /// [`Error::Shape`] for numbers of another network; nothing has been changed then.
    pub fn scaled_add(&mut self, a: F, other: &Parameters<F>) -> Result<()> {
        self.theta.scaled_add(a, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers and writers go through the same arrays in the same order, and none is left out.
    #[test]
    fn what_reads_and_what_writes_have_the_same_layers() {
        for (widths, bias) in [(&[3, 1][..], Bias::None), (&[3, 4, 5, 2], Bias::Input), (&[3, 4, 2], Bias::EveryLayer)]
        {
            let mut theta = Parameters::<f32>::zeros(widths, bias).unwrap();
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
    fn a_vector_has_the_numbers_in_the_order_of_theta() {
        let mut theta = Parameters::<f32>::zeros(&[3, 4, 2], Bias::EveryLayer).unwrap();
        let vector: Array1<f64> = (0..theta.count()).map(|i| i as f64 + 0.1).collect();
        theta.set_vector(&vector).unwrap();
        let rounded = vector.mapv(|v| f64::from(v as f32));
        assert_eq!(theta.to_vector(), rounded);
        assert_eq!(theta.alpha()[(0, 0)], 16.1);
        let before = theta.clone();
        let error = theta.set_vector(&vector.as_slice().unwrap()[1..]).unwrap_err();
        assert_eq!(error, Error::Shape { what: "vector", expected: vec![26], found: vec![25] });
        assert_eq!(theta, before);
    }

    #[test]
    fn numbers_in_the_same_places_meet() {
        let mut theta = Parameters::<f64>::zeros(&[2, 3, 1], Bias::Input).unwrap();
        let mut other = theta.zeros_like();
        theta.iter_mut().zip(1_u8..).for_each(|(p, i)| *p = i.into());
        other.iter_mut().zip(1_u8..).for_each(|(p, i)| *p = f64::from(i) * 100.0);
        theta.zip_mut_with(&other, |p, &q| *p += q).unwrap();
        assert!(theta.iter().zip(1_u8..).all(|(&p, i)| p == 101.0 * f64::from(i)));
        theta.scaled_add(-2.0, &other).unwrap();
        assert!(theta.iter().zip(1_u8..).all(|(&p, i)| p == -99.0 * f64::from(i)));
        let before = theta.clone();
        for widths in [&[2, 3, 2][..], &[3, 2, 1], &[2, 1]] {
            let other = Parameters::zeros(widths, Bias::Input).unwrap();
            assert!(matches!(theta.scaled_add(1.0, &other), Err(Error::Shape { what: "other", .. })));
            let called = theta.zip_mut_with(&other, |_, _| panic!("nothing may be called"));
            assert!(matches!(called, Err(Error::Shape { what: "other", .. })));
        }
        assert_eq!(theta, before);
    }
}
