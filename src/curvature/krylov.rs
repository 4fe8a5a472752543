//! A Krylov space of a symmetric operator: an orthonormal basis that grows by Lanczos steps, the
//! matrix of the operator in it, and its Ritz pairs. The equations stand in
//! [`lanczos`](crate::curvature::lanczos).

use ndarray::linalg::general_mat_vec_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use ndarray_linalg::{EighInto, UPLO};

use crate::curvature::operator::Operator;
use crate::error::Error;
use crate::normal::standard_normal;
use crate::random::Generator;

/// An orthonormal basis that grows by Lanczos steps, and h.
pub(crate) struct Krylov {
    pub(crate) n: usize,
    epsilon: f64,
    /// The v[j], one after the other: (m, n).
    basis: Vec<f64>,
    /// The columns of h down to its diagonal: h[j][i] = v[i]ᵀ A v[j] for i ≤ j.
    h: Vec<Array1<f64>>,
    /// The β that each v[j] was divided by.
    beta: Vec<f64>,
    kept: Vec<f64>,            // ‖A x − θ x‖ of the kept Ritz vectors, which are the first of the basis
    pub(crate) w: Array1<f64>, // (n), orthogonal to the basis: the direction of the next v
    scale: f64,                // the largest |h| and β met: at most ‖A‖, and soon of its size
    pub(crate) products: usize,
}

/// Numbers of h on both sides of the diagonal that differ by more than this, of the largest number
/// in h, are not due to rounding: 10⁻³, where the products of a network in `f32` are good to some
/// 10⁻⁶.
const ASYMMETRY: f64 = 1e-3;

impl Krylov {
    pub(crate) fn new<O: Operator + ?Sized>(operator: &O, steps: usize) -> Result<Self, Error> {
        let (n, epsilon) = (operator.order(), operator.epsilon());
        in_range(n > 0, "order", "at least 1", 0.0)?;
        in_range(steps > 0, "steps", "at least 1", 0.0)?;
        let mut w = Vec::new();
        w.try_reserve_exact(n).map_err(|_| Error::Memory { what: "a vector", numbers: n })?;
        w.resize(n, 0.0);
        let (basis, h, beta, kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { n, epsilon, basis, h, beta, kept, w: w.into(), scale: 0.0, products: 0 })
    }

    /// The order of h.
    pub(crate) fn m(&self) -> usize {
        self.h.len()
    }

    pub(crate) fn basis(&self) -> ArrayView2<'_, f64> {
        ArrayView2::from_shape((self.m(), self.n), &self.basis).expect("m vectors")
    }

    /// Restarts with an empty basis in the same memory.
    pub(crate) fn forget(&mut self) {
        self.basis.clear();
        self.h.clear();
        self.beta.clear();
        self.kept.clear();
        self.scale = 0.0;
    }

    /// A β up to this is taken for 0: rounding errors of a product add up to about √n ε‖A‖. Noise a
    /// little above it is a random direction like any other. Directions of subnormal numbers would
    /// not be orthogonal.
    pub(crate) fn negligible(&self) -> f64 {
        ((self.n as f64).sqrt() * f64::EPSILON * self.scale).max(f64::MIN_POSITIVE / f64::EPSILON)
    }

    /// What is left of the errors of h when all else is exact: those of the products, and of its
    /// eigenvalues.
    pub(crate) fn rounding(&self) -> f64 {
        self.m() as f64 * self.epsilon * self.scale
    }

    /// A random direction; returns its norm.
    pub(crate) fn start(&mut self, generator: &mut Generator) -> f64 {
        self.w.map_inplace(|w| *w = standard_normal(generator));
        self.orthogonalise();
        norm(&self.w)
    }

    /// w ← w − V Vᵀ w, twice, the second time to remove the rounding of the first. Returns Vᵀ w,
    /// the components that were removed.
    fn orthogonalise(&mut self) -> Array1<f64> {
        let v = ArrayView2::from_shape((self.basis.len() / self.n, self.n), &self.basis).expect("whole vectors");
        let mut taken = Array1::zeros(v.nrows());
        for _ in 0..2 {
            let h = v.dot(&self.w);
            general_mat_vec_mul(-1.0, &v.t(), &h, 1.0, &mut self.w);
            taken += &h;
        }
        taken
    }

    /// v[m] = w/β and w = A v[m] without its part in the basis; returns the next β, the norm of w.
    pub(crate) fn step<O: Operator + ?Sized>(&mut self, beta: f64, operator: &mut O) -> Result<f64, O::Error> {
        let (m, n) = (self.m(), self.n);
        // Room for some more, or at least for this one.
        let room = self.basis.try_reserve(n).or_else(|_| self.basis.try_reserve_exact(n));
        room.map_err(|_| Error::Memory { what: "the basis", numbers: n.saturating_mul(m + 1) })?;
        self.basis.extend(self.w.iter().map(|w| w / beta));
        self.w.fill(0.0);
        operator.apply(ArrayView1::from(&self.basis[m * n..]), self.w.view_mut())?;
        // With n w finite, sums of n such numbers and norms are.
        if let Some(component) = self.w.iter().position(|w| !(w * n as f64).is_finite()) {
            return Err(Error::Operator { product: self.products, component, found: self.w[component] }.into());
        }
        self.products += 1;
        let column = self.orthogonalise();
        let next = norm(&self.w);
        self.scale = column.fold(self.scale.max(next), |scale, h| scale.max(h.abs()));
        self.h.push(column);
        self.beta.push(beta);
        let other = (0..m).map(|i| self.asymmetry(m, i).abs()).fold(0.0, f64::max);
        if other > ASYMMETRY * self.scale {
            let Self { products, scale, .. } = *self;
            return Err(Error::NotSymmetric { product: products - 1, difference: other, size: scale }.into());
        }
        Ok(next)
    }

    /// v[i]ᵀ A v[j] − v[j]ᵀ A v[i] for i < j, of which the first was computed at step j and the
    /// second is known from step i: β next to the diagonal, 0 further away. Of a kept x_i its size
    /// is all that is known: it is at most ‖A x_i − θ x_i‖.
    fn asymmetry(&self, j: usize, i: usize) -> f64 {
        let (found, fixed) = (self.h[j][i], self.kept.len());
        if j < fixed {
            0.0
        } else if i < fixed {
            (found.abs() - self.kept[i]).max(0.0)
        } else if i + 1 == j {
            found - self.beta[j]
        } else {
            found
        }
    }

    /// h in full, `fixed` of its vectors left as they are.
    fn symmetric(&self, fixed: usize) -> Array2<f64> {
        let entry = |(i, j): (usize, usize)| if i == j || i.min(j) >= fixed { self.h[i.max(j)][i.min(j)] } else { 0.0 };
        Array2::from_shape_fn((self.m(), self.m()), entry)
    }

    /// Replaces the basis by these Ritz vectors, which later steps leave unchanged.
    pub(crate) fn keep(&mut self, s: &Array2<f64>, errors: Vec<f64>) {
        // Some columns at a time: a copy of the whole basis might not fit.
        const COLUMNS: usize = 4096;
        let mut v = ArrayViewMut2::from_shape((self.h.len(), self.n), &mut self.basis).expect("m vectors");
        for mut v in v.axis_chunks_iter_mut(Axis(1), COLUMNS) {
            let x = s.t().dot(&v);
            v.slice_mut(s![..errors.len(), ..]).assign(&x);
        }
        let h = s.t().dot(&self.symmetric(0)).dot(s);
        self.h = (0..errors.len()).map(|j| h.slice(s![..=j, j]).to_owned()).collect();
        self.basis.truncate(errors.len() * self.n);
        self.beta.truncate(errors.len());
        self.kept = errors;
    }

    /// θ in ascending order, and their s in columns.
    pub(crate) fn ritz(&self) -> Result<(Array1<f64>, Array2<f64>), Error> {
        // In the whole space h is all of A, and the kept vectors are no longer left as they are.
        let fixed = if self.m() == self.n { 0 } else { self.kept.len() };
        let h = self.symmetric(fixed);
        h.eigh_into(UPLO::Lower).map_err(|error| Error::Eigenvalues { order: self.m(), reason: error.to_string() })
    }

    /// A bound on ‖A x − θ x‖ for x = V s: what h lacks on the side of the diagonal that it is not
    /// made from, what it leaves out beside the kept pairs, and what lies outside of the basis.
    pub(crate) fn residual(&self, beta: f64, s: ArrayView1<f64>) -> f64 {
        let m = self.m();
        let lacks = norm(&(0..m).map(|j| (0..j).map(|i| self.asymmetry(j, i) * s[i]).sum()).collect());
        if m == self.n {
            return lacks;
        }
        let fixed = self.kept.len();
        let left_out = norm(&(0..fixed).map(|i| (fixed..m).map(|j| self.h[j][i] * s[j]).sum()).collect());
        let outside = self.kept.iter().zip(&s).fold(beta * s[m - 1].abs(), |sum, (error, s)| sum + error * s.abs());
        outside + left_out + lacks
    }
}

/// ‖v‖ without overflow or underflow on the way.
pub(crate) fn norm(v: &Array1<f64>) -> f64 {
    let largest = v.fold(f64::MIN_POSITIVE, |largest, v| largest.max(v.abs()));
    largest * (v / largest).pow2().sum().sqrt()
}

pub(crate) fn in_range(is: bool, name: &'static str, expected: &'static str, found: f64) -> Result<(), Error> {
    if is { Ok(()) } else { Err(Error::Hyperparameter { name, expected, found }) }
}
