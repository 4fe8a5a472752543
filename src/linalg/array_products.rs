//! The products of rungs 3 and 4 on whole arrays, for one sample and for the samples in the rows of
//! a matrix: by BLAS, or as chains ([`kernels`](crate::kernels) defines them).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};

use crate::kernels::number::Number;
use crate::kernels::operands::{End, Left, Product, Right, Start};
use crate::kernels::panels::{Panels, numbers};
use crate::linalg::fused::fused;
#[cfg(feature = "blas")]
use crate::linalg::rows;
use crate::linalg::scalar::Scalar;

/// Who computes them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ArrayProducts {
    #[cfg(feature = "blas")]
    Blas,
    Chains,
}

impl ArrayProducts {
    /// Chains for the native engine.
    pub(crate) fn new(native: bool) -> Self {
        #[cfg(feature = "blas")]
        if !native {
            return Self::Blas;
        }
        debug_assert!(native, "without BLAS, all is native");
        Self::Chains
    }

    /// w z + c; an empty c adds nothing.
    pub(crate) fn affine<F: Scalar>(self, w: ArrayView2<F>, z: ArrayView1<F>, c: ArrayView1<F>) -> Array1<F> {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas => {
                let mut u = Array1::from_elem(w.nrows(), F::ZERO);
                F::gemv(F::ONE, w, z, F::ZERO, u.view_mut());
                if !c.is_empty() {
                    u.zip_mut_with(&c, |u, &c| *u += c);
                }
                u
            }
            Self::Chains => {
                let mut u = if c.is_empty() { vec![F::ZERO; w.nrows()] } else { c.to_vec() };
                fused(rows_times_vector, (w.to_slice().expect("row-major"), in_one_piece(z), &mut u));
                u.into()
            }
        }
    }

    /// Z wᵀ + 1 cᵀ; an empty c adds nothing.
    pub(crate) fn affine_rows<F: Scalar>(self, z: ArrayView2<F>, w: ArrayView2<F>, c: ArrayView1<F>) -> Array2<F> {
        let (samples, neurons, depth) = (z.nrows(), w.nrows(), w.ncols());
        match self {
            #[cfg(feature = "blas")]
            Self::Blas => {
                let mut u = Array2::from_elem((samples, neurons), F::ZERO);
                rows::weighted_inputs(z, w, u.view_mut());
                rows::add_bias(c, u.view_mut());
                u
            }
            Self::Chains => {
                let (z, w, c) = (Panels::of(z), Panels::of(w), Panels::of(c.insert_axis(Axis(0))));
                let lines: Vec<_> = (0..c.shape().0).map(|panel| c.view().panel(panel)[0]).collect();
                let mut u = Panels::zeros(samples, neurons);
                let panels = u.shape().0;
                F::kernels().product(Product {
                    a: Left::Rows(z.view()),
                    b: Right::Transposed(w.view()),
                    c: u.view_mut().part(0..panels, 0..samples),
                    columns: neurons,
                    depth,
                    start: if lines.is_empty() { Start::Zero } else { Start::Columns(&lines) },
                    end: End::Store,
                });
                let number =
                    |(r, j): (usize, usize)| numbers::<F>(u.view().panel(j / F::LINE))[r * F::LINE + j % F::LINE];
                Array2::from_shape_fn((samples, neurons), number)
            }
        }
    }

    /// wᵀ δ
    pub(crate) fn transposed<F: Scalar>(self, w: ArrayView2<F>, delta: ArrayView1<F>) -> Array1<F> {
        let mut below = Array1::from_elem(w.ncols(), F::ZERO);
        match self {
            #[cfg(feature = "blas")]
            Self::Blas => F::gemv(F::ONE, w.reversed_axes(), delta, F::ZERO, below.view_mut()),
            Self::Chains => {
                let below = below.as_slice_mut().expect("in one piece");
                fused(vector_times_rows, (in_one_piece(delta), w.to_slice().expect("row-major"), below));
            }
        }
        below
    }

    /// `g` = δ zᵀ
    pub(crate) fn outer<F: Scalar>(self, delta: ArrayView1<F>, z: ArrayView1<F>, mut g: ArrayViewMut2<F>) {
        match self {
            #[cfg(feature = "blas")]
            Self::Blas => {
                g.fill(F::ZERO);
                F::ger(F::ONE, delta, z, g);
            }
            Self::Chains => {
                let g = g.as_slice_mut().expect("row-major");
                fused(outer_product, (in_one_piece(delta), in_one_piece(z), g));
            }
        }
    }
}

fn in_one_piece<F>(a: ArrayView1<'_, F>) -> &[F] {
    a.to_slice().expect("in one piece")
}

/// Rows whose chains run side by side, so that none waits for the one before it.
const ROWS: usize = 8;

/// u_i ← chain(start u_i; w_ij, z_j) over ascending j.
#[inline(always)]
fn rows_times_vector<F: Number>((w, z, u): (&[F], &[F], &mut [F])) {
    let n = z.len();
    let blocks = w.chunks_exact(ROWS * n);
    let rest = blocks.remainder();
    let (full, last) = u.split_at_mut(u.len() / ROWS * ROWS);
    for (rows, u) in blocks.zip(full.chunks_exact_mut(ROWS)) {
        let mut acc = [F::NOUGHT; ROWS];
        acc.copy_from_slice(u);
        for (j, &z_j) in z.iter().enumerate() {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = rows[i * n + j].fused(z_j, *acc);
            }
        }
        u.copy_from_slice(&acc);
    }
    for (w_i, u_i) in rest.chunks_exact(n).zip(last) {
        *u_i = w_i.iter().zip(z).fold(*u_i, |acc, (&w, &z)| w.fused(z, acc));
    }
}

/// below_j ← chain(start below_j; δ_i, w_ij) over ascending i.
#[inline(always)]
fn vector_times_rows<F: Number>((delta, w, below): (&[F], &[F], &mut [F])) {
    for (&delta, w_i) in delta.iter().zip(w.chunks_exact(below.len())) {
        below.iter_mut().zip(w_i).for_each(|(below, &w)| *below = delta.fused(w, *below));
    }
}

/// g_ij = fma(δ_i, z_j, 0)
#[inline(always)]
fn outer_product<F: Number>((delta, z, g): (&[F], &[F], &mut [F])) {
    for (&delta, g_i) in delta.iter().zip(g.chunks_exact_mut(z.len())) {
        g_i.iter_mut().zip(z).for_each(|(g, &z)| *g = delta.fused(z, F::NOUGHT));
    }
}
