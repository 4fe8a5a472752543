//! The affine map of a layer on the rows of a matrix, by BLAS or as chains.

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::kernels::operands::{End, Left, Product, Right, Start};
use crate::kernels::panels::{Panels, numbers};
#[cfg(feature = "blas")]
use crate::linalg::rows;
use crate::linalg::scalar::Scalar;

/// Who computes it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Affine {
    #[cfg(feature = "blas")]
    Blas,
    Chains,
}

impl Affine {
    /// Chains for the native engine.
    pub(crate) fn new(native: bool) -> Self {
        #[cfg(feature = "blas")]
        if !native {
            return Self::Blas;
        }
        debug_assert!(native, "without BLAS, all is native");
        Self::Chains
    }

    /// Z wᵀ + 1 cᵀ; an empty c adds nothing.
    pub(crate) fn apply<F: Scalar>(self, z: ArrayView2<F>, w: ArrayView2<F>, c: ArrayView1<F>) -> Array2<F> {
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
                let (z, w, c) = (Panels::of(z), Panels::of(w), Panels::of(c.insert_axis(ndarray::Axis(0))));
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
}
