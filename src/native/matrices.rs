//! The matrices of an engine, in one set: the layers of a batch, θ, and whatever is shaped like θ.

use std::ops::Range;

use crate::kernels::number::Number;
use crate::kernels::panels::{Panels, numbers, numbers_mut, panels_of};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::parallel::panel_set::PanelSet;

/// Samples for each neuron of a layer from which Z is not transposed for its forward product.
pub(crate) const MANY: usize = 2;

/// Where the layers of a batch lie in the set: Z[0], …, Z[T], Ŷ; the same transposed; Δ[1], …,
/// Δ[T], ∂ℓ/∂Ŷ; and Ŷ and ∂ℓ/∂Ŷ sample by sample, for outputs that fill several panels: a loss
/// reads and writes those of a sample as one slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers {
    pub(crate) base: usize,
    pub(crate) depth: usize,
}

impl Layers {
    /// Z[t] (samples × neurons) for t = 0 … T, and Ŷ for t = T+1.
    pub(crate) fn z(self, t: usize) -> usize {
        self.base + t
    }

    /// Z[t]ᵀ (neurons × samples).
    pub(crate) fn zt(self, t: usize) -> usize {
        self.base + self.depth + 2 + t
    }

    /// Δ[t] (samples × neurons) for t = 1 … T, and ∂ℓ/∂Ŷ for t = T+1.
    pub(crate) fn delta(self, t: usize) -> usize {
        self.base + 2 * (self.depth + 2) + t - 1
    }

    pub(crate) fn y_hat(self) -> usize {
        self.z(self.depth + 1)
    }

    pub(crate) fn d_y_hat(self) -> usize {
        self.delta(self.depth + 1)
    }

    /// Ŷ, sample by sample in one panel.
    pub(crate) fn y_hat_rows(self) -> usize {
        self.d_y_hat() + 1
    }

    /// ∂ℓ/∂Ŷ, sample by sample in one panel.
    pub(crate) fn d_y_hat_rows(self) -> usize {
        self.d_y_hat() + 2
    }

    /// Appends the layers for batches of up to `samples` samples. Z[t]ᵀ has room for the largest of
    /// them that is transposed.
    pub(crate) fn push<F: Number>(set: &mut PanelSet<F>, widths: &[usize], samples: usize) -> Self {
        Self::push_some(set, widths, samples, &|_| [true; 2])
    }

    /// Appends layers of which some Z[t] and some Z[t]ᵀ are left without numbers: `has(t)` tells
    /// which are there.
    pub(crate) fn push_some<F: Number>(
        set: &mut PanelSet<F>,
        widths: &[usize],
        samples: usize,
        has: &dyn Fn(usize) -> [bool; 2],
    ) -> Self {
        let layers = Self { base: set.len(), depth: widths.len() - 2 };
        let mut push = |is_there, rows, columns| {
            set.push(Panels::zeros(if is_there { rows } else { 0 }, columns));
        };
        widths.iter().enumerate().for_each(|(t, &d)| push(has(t)[0], samples, d));
        let transposed = samples.min(MANY * widths.iter().max().copied().unwrap_or(0));
        widths.iter().enumerate().for_each(|(t, &d)| push(has(t)[1], d, transposed));
        widths[1..].iter().for_each(|&d| push(true, samples, d));
        let panels = panels_of::<F>(widths[widths.len() - 1]);
        let lines = if panels > 1 { samples.next_multiple_of(16) * panels } else { 0 };
        push(true, lines, F::LINE);
        push(true, lines, F::LINE);
        layers
    }
}

/// Where matrices shaped like θ lie in the set: w[0], …, w[T−1], alpha; then c[0], …, c[T−1], b, as
/// lines of one panel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theta {
    base: usize,
    depth: usize,
}

impl Theta {
    /// w[t] (d[t+1] × d[t])
    pub(crate) fn w(self, t: usize) -> usize {
        self.base + t
    }

    /// c[t], or a matrix without rows where the layer has no bias.
    pub(crate) fn c(self, t: usize) -> usize {
        self.base + self.depth + 1 + t
    }

    /// All of its matrices.
    pub(crate) fn matrices(self) -> Range<usize> {
        self.base..self.base + 2 * (self.depth + 1)
    }

    /// Appends matrices of zeros in the shape of θ.
    pub(crate) fn push<F: Scalar>(set: &mut PanelSet<F>, like: &Parameters<F>) -> Self {
        let theta = Self { base: set.len(), depth: like.depth() };
        like.w.iter().for_each(|w| set.push(Panels::zeros(w.nrows(), w.ncols())));
        like.c.iter().for_each(|c| set.push(Panels::zeros(panels_of::<F>(c.len()), F::LINE)));
        theta
    }

    /// Copies numbers into the set. The padding becomes 0 again: a step that diverged may have left
    /// 0 · ∞ there.
    pub(crate) fn load<F: Scalar>(self, set: &mut PanelSet<F>, from: &Parameters<F>) {
        for (t, (w, c)) in from.w.iter().zip(&from.c).enumerate() {
            let columns = w.ncols();
            let numbers_of_w = w.as_slice().expect("in one piece");
            let mut panels = set.get_mut(self.w(t));
            for panel in 0..panels.panels() {
                let first = panel * F::LINE;
                let width = F::LINE.min(columns - first);
                let lines = numbers_mut::<F>(panels.panel(panel));
                for (line, row) in lines.chunks_exact_mut(F::LINE).zip(numbers_of_w.chunks_exact(columns)) {
                    line[..width].copy_from_slice(&row[first..first + width]);
                    line[width..].fill(F::ZERO);
                }
            }
            let c = c.as_slice().expect("in one piece");
            if !c.is_empty() {
                numbers_mut::<F>(set.get_mut(self.c(t)).panel(0))[..c.len()].copy_from_slice(c);
            }
        }
    }

    /// Copies numbers out of the set.
    pub(crate) fn store<F: Scalar>(self, set: &PanelSet<F>, to: &mut Parameters<F>) {
        for t in 0..to.w.len() {
            let rows = 0..to.w[t].nrows();
            self.store_rows(set, t, rows, to);
            self.store_biases(set, t, to);
        }
    }

    /// Copies some rows of w[t] out of the set, and returns them.
    pub(crate) fn store_rows<'p, F: Scalar>(
        self,
        set: &PanelSet<F>,
        t: usize,
        rows: Range<usize>,
        to: &'p mut Parameters<F>,
    ) -> &'p [F] {
        let columns = to.w[t].ncols();
        let numbers_of_w = to.w[t].as_slice_mut().expect("in one piece");
        let numbers_of_w = &mut numbers_of_w[rows.start * columns..rows.end * columns];
        let panels = set.get(self.w(t));
        for panel in 0..panels.panels() {
            let first = panel * F::LINE;
            let width = F::LINE.min(columns - first);
            let lines = numbers::<F>(&panels.panel(panel)[rows.clone()]);
            for (line, row) in lines.chunks_exact(F::LINE).zip(numbers_of_w.chunks_exact_mut(columns)) {
                row[first..first + width].copy_from_slice(&line[..width]);
            }
        }
        numbers_of_w
    }

    /// Copies c[t] out of the set, and returns it.
    pub(crate) fn store_biases<'p, F: Scalar>(self, set: &PanelSet<F>, t: usize, to: &'p mut Parameters<F>) -> &'p [F] {
        let c = to.c[t].as_slice_mut().expect("in one piece");
        if !c.is_empty() {
            c.copy_from_slice(&numbers::<F>(set.get(self.c(t)).panel(0))[..c.len()]);
        }
        c
    }

    /// A number that is not finite, if there is one.
    pub(crate) fn find_not_finite<F: Scalar>(self, set: &PanelSet<F>) -> Option<f64> {
        self.matrices().find_map(|matrix| {
            let matrix = set.get(matrix);
            let not_finite = |panel| numbers::<F>(matrix.panel(panel)).iter().find(|p: &&F| !p.is_finite());
            (0..matrix.panels()).find_map(not_finite).map(|p| p.to_f64())
        })
    }

    /// Copies of all matrices.
    pub(crate) fn copied<F: Scalar>(self, set: &PanelSet<F>) -> Vec<Panels<F>> {
        self.matrices().map(|matrix| set.copied(matrix)).collect()
    }

    /// Puts copies back.
    pub(crate) fn put_back<F: Scalar>(self, set: &mut PanelSet<F>, copies: Vec<Panels<F>>) {
        self.matrices().zip(copies).for_each(|(matrix, copy)| set.replace(matrix, copy));
    }

    /// max |p|, in double precision.
    pub(crate) fn largest<F: Scalar>(self, set: &PanelSet<F>) -> f64 {
        self.fold(set, 0.0, |most, p| f64::max(most, p.to_f64().abs()))
    }

    /// g ← g / max |g|. Returns ‖g‖ after that, from 1 to √n; 0 if g is.
    pub(crate) fn scale_to_1<F: Scalar>(self, set: &mut PanelSet<F>) -> f64 {
        let most = F::from_f64(self.largest(set));
        if most > F::ZERO {
            for matrix in self.matrices() {
                let mut matrix = set.get_mut(matrix);
                for panel in 0..matrix.panels() {
                    numbers_mut::<F>(matrix.panel(panel)).iter_mut().for_each(|g| *g = *g / most);
                }
            }
        }
        self.fold(set, 0.0, |sum, g| sum + g.to_f64() * g.to_f64()).sqrt()
    }

    /// Goes through all numbers in their order in the set, padding included.
    fn fold<F: Scalar>(self, set: &PanelSet<F>, start: f64, mut with: impl FnMut(f64, F) -> f64) -> f64 {
        let mut result = start;
        for matrix in self.matrices() {
            let matrix = set.get(matrix);
            for panel in 0..matrix.panels() {
                result = numbers::<F>(matrix.panel(panel)).iter().fold(result, |result, &p| with(result, p));
            }
        }
        result
    }
}
