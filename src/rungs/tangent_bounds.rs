//! H v of one sample in double precision, with the bounds of every number on the way: the
//! derivative of [`sample_bounds`](crate::rungs::sample_bounds) along v.

use crate::network::parameters::Parameters;
use crate::rungs::rounding::{Bounded, Order, gamma, or_none};
use crate::rungs::sample_bounds::{Network, Numbers, Pass, Sums};

/// A network with a direction v.
#[derive(Debug)]
pub(crate) struct Tangents<'a> {
    pub(crate) network: &'a Network,
    pub(crate) v: Parameters<f64>,
}

impl Tangents<'_> {
    /// R z[0], …, R z[T], R ŷ.
    pub(crate) fn forward(&self, pass: &Pass) -> Vec<Numbers> {
        let depth = self.network.depth();
        let mut r_z = vec![Numbers::exact(vec![0.0; pass.z[0].value.len()])];
        for t in 0..=depth {
            let r_u = self.affine(t, &pass.z[t], &r_z[t]);
            r_z.push(if t < depth { self.network.masked(t + 1, pass, r_u) } else { r_u });
        }
        r_z
    }

    /// v z + w R z + v_c. BLAS may keep c for the end, and adds the second product to the first.
    fn affine(&self, t: usize, z: &Numbers, r_z: &Numbers) -> Numbers {
        let Network { order, u, tiny, evaluation, .. } = *self.network;
        let (w, v, v_c) = (&self.network.theta.w[t], &self.v.w[t], &self.v.c[t]);
        let terms = z.terms() + r_z.terms();
        let (gamma, lost) = (gamma(order.affine(terms), u), terms as f64 * tiny);
        let row = |i: usize| {
            let c = v_c.get(i).copied().unwrap_or(0.0);
            let (mut r_u, mut handed_on, mut size) = (c, 0.0, c.abs());
            for (j, &v) in v.row(i).iter().enumerate() {
                r_u = v.mul_add(z.value[j], r_u);
                handed_on += v.abs() * z.bound[j];
                size += v.abs() * z.most(j);
            }
            for (j, &w) in w.row(i).iter().enumerate() {
                r_u = w.mul_add(r_z.value[j], r_u);
                handed_on += w.abs() * r_z.bound[j];
                size += w.abs() * r_z.most(j);
            }
            (r_u, or_none((handed_on + gamma * size + lost) * evaluation))
        };
        let (value, bound) = (0..w.nrows()).map(row).unzip();
        Bounded { value, bound }
    }

    /// R δ[T+1] = R ∂, R δ[T], …, R δ[1], beside the δ of a gradient.
    pub(crate) fn backward(&self, pass: &Pass, deltas: &[Numbers], r_dy: Numbers, scale: f64) -> Vec<Numbers> {
        let mut r_deltas = vec![r_dy];
        for (t, delta) in (1..=self.network.depth()).rev().zip(deltas) {
            let below = self.transposed(t, delta, &r_deltas[r_deltas.len() - 1], scale);
            r_deltas.push(self.network.masked(t, pass, below));
        }
        r_deltas
    }

    /// v[t]ᵀ δ + w[t]ᵀ R δ
    fn transposed(&self, t: usize, delta: &Numbers, r_delta: &Numbers, scale: f64) -> Numbers {
        let Network { u, tiny, evaluation, .. } = *self.network;
        let (w, v) = (&self.network.theta.w[t], &self.v.w[t]);
        let terms = delta.terms() + r_delta.terms();
        let (gamma, lost) = (gamma(terms, u), terms as f64 * tiny * scale);
        let mut sums = vec![[0.0, lost]; w.ncols()];
        for (matrix, numbers) in [(v, delta), (w, r_delta)] {
            for (i, row) in matrix.outer_iter().enumerate() {
                let (value, bound, most) = (numbers.value[i], numbers.bound[i], numbers.most(i));
                for (sum, &w) in sums.iter_mut().zip(row) {
                    sum[0] += w * value;
                    sum[1] += w.abs() * (bound + gamma * most);
                }
            }
        }
        let (value, bound) = sums.into_iter().map(|[value, bound]| (value, or_none(bound * evaluation))).unzip();
        Bounded { value, bound }
    }

    /// Adds R δ zᵀ + δ R zᵀ of one sample.
    pub(crate) fn add(
        &self,
        pass: &Pass,
        r_z: &[Numbers],
        [deltas, r_deltas]: [&[Numbers]; 2],
        lost: f64,
        sums: &mut Sums,
    ) {
        for (t, (delta, r_delta)) in (0..=self.network.depth()).rev().zip(deltas.iter().zip(r_deltas)) {
            sums.add(t, r_delta, &pass.z[t], lost);
            sums.add(t, delta, &r_z[t], lost);
            sums.add_bias(t, r_delta);
        }
        sums.end_of_sample();
    }
}

/// How often a term of (H v)[t] is rounded by the sum over the samples, and one of (H v)_c[t]: BLAS
/// adds one product to the other, and one more for its factor.
pub(crate) fn roundings(order: Order, samples: usize) -> [usize; 2] {
    [order.samples(samples, 2) + 1, order.bias(samples)]
}
