//! Forward and backward pass of one sample in double precision, with the bounds of every number on
//! the way. The equations stand in [`bounds`](crate::rungs::bounds).

use ndarray::{Array1, Array2};

use crate::kernels::sums::{BIAS_BLOCK, SAMPLE_BLOCK};
use crate::linalg::scalar::Scalar;
use crate::network::mlp::Mlp;
use crate::network::parameters::Parameters;
use crate::rungs::loss_bounds::unit_roundoff;
use crate::rungs::rounding::{Bounded, OF_MEAN, Order, gamma, most, or_none};

pub(crate) type Numbers = Bounded<Vec<f64>>;

/// Whether a computation lets a neuron's u through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    /// Every one does.
    On,
    /// None does.
    Off,
    /// Rounding decides.
    Uncertain,
}

impl Mask {
    /// By u in double precision: a computed u is at most 2 bounds away from it. A u without a bound
    /// is 0 for all, since nothing came in.
    fn of(u: f64, bound: f64) -> Self {
        if u.abs() > 2.0 * bound {
            if u > 0.0 { Self::On } else { Self::Off }
        } else if bound == 0.0 {
            Self::Off
        } else {
            Self::Uncertain
        }
    }

    /// What becomes of a number that the mask is applied to, where the loops had this u. If it is
    /// uncertain, one computation may have the number, and another 0.
    pub(crate) fn apply(self, u: f64, value: f64, bound: f64) -> (f64, f64) {
        match self {
            Self::On => (value, bound),
            Self::Off => (0.0, 0.0),
            Self::Uncertain => (if u > 0.0 { value } else { 0.0 }, most(value, bound)),
        }
    }
}

/// A forward pass.
#[derive(Debug)]
pub(crate) struct Pass {
    /// u[1], …, u[T], at 0 … T−1.
    pub(crate) u: Vec<Numbers>,
    pub(crate) masks: Vec<Vec<Mask>>,
    /// z[0], …, z[T].
    pub(crate) z: Vec<Numbers>,
    pub(crate) y_hat: Numbers,
}

/// A network in double precision, and the rounding of its own type.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) theta: Parameters<f64>,
    /// How far the θ of a computation may be from that one; 0 but for a point uphill.
    pub(crate) error: Parameters<f64>,
    /// The unit roundoff.
    pub(crate) u: f64,
    /// What a product that underflows can lose.
    pub(crate) tiny: f64,
    pub(crate) order: Order,
    /// The factor on each bound that covers its own evaluation.
    pub(crate) evaluation: f64,
}

/// θ in double precision, which is exact.
pub(crate) fn widened<F: Scalar>(theta: &Parameters<F>) -> Parameters<f64> {
    Parameters {
        w: theta.w.iter().map(|w| w.mapv(|w| w.to_f64())).collect(),
        c: theta.c.iter().map(|c| c.mapv(|c| c.to_f64())).collect(),
    }
}

impl Network {
    /// For batches of so many samples.
    pub(crate) fn new<F: Scalar>(mlp: &Mlp<F>, samples: usize) -> Self {
        let theta = widened(mlp.parameters());
        // All terms of a bound are positive, so it is off by at most as many roundings as there are
        // operations on the longest path: about 12 for each term of a sum on the way up and down.
        let longest = mlp.widths().iter().sum::<usize>() + samples;
        Self {
            error: theta.zeros_like(),
            theta,
            u: unit_roundoff::<F>(),
            tiny: 4.0 / F::MAX,
            order: Order::of(mlp.products()),
            evaluation: 1.0 + (16 * longest + 200) as f64 * f64::EPSILON,
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.theta.depth()
    }

    /// The forward pass of a sample that is known exactly.
    pub(crate) fn forward(&self, x: Vec<f64>) -> Pass {
        let mut pass =
            Pass { u: Vec::new(), masks: Vec::new(), z: vec![Numbers::exact(x)], y_hat: Numbers::exact(Vec::new()) };
        for t in 0..self.depth() {
            let u = self.affine(t, &pass.z[t]);
            let masks: Vec<Mask> = u.value.iter().zip(&u.bound).map(|(&u, &bound)| Mask::of(u, bound)).collect();
            // ReLU is exact, and moves no two numbers apart.
            let relu = |(mask, (&u, &bound)): (&Mask, (&f64, &f64))| match mask {
                Mask::On => (u, bound),
                Mask::Off => (0.0, 0.0),
                Mask::Uncertain => (u.max(0.0), bound),
            };
            let (value, bound) = masks.iter().zip(u.value.iter().zip(&u.bound)).map(relu).unzip();
            pass.z.push(Bounded { value, bound });
            pass.masks.push(masks);
            pass.u.push(u);
        }
        pass.y_hat = self.affine(self.depth(), &pass.z[self.depth()]);
        pass
    }

    /// w z + c
    fn affine(&self, t: usize, z: &Numbers) -> Numbers {
        let terms = z.terms();
        let (gamma, lost) = (gamma(self.order.affine(terms), self.u), terms as f64 * self.tiny);
        let (w, c) = (&self.theta.w[t], &self.theta.c[t]);
        let row = |i: usize| {
            let (c, e_c) = (c.get(i).copied().unwrap_or(0.0), self.error.c[t].get(i).copied().unwrap_or(0.0));
            let (mut u, mut handed_on, mut size) = (c, e_c, c.abs() + e_c);
            for (j, (&w, &e_w)) in w.row(i).iter().zip(self.error.w[t].row(i)).enumerate() {
                // A chain, whose bound it has to keep where the type is f64.
                u = w.mul_add(z.value[j], u);
                handed_on += w.abs() * z.bound[j] + e_w * z.most(j);
                size += (w.abs() + e_w) * z.most(j);
            }
            (u, or_none((handed_on + gamma * size + lost) * self.evaluation))
        };
        let (value, bound) = (0..w.nrows()).map(row).unzip();
        Bounded { value, bound }
    }

    /// δ[T+1] = ∂ℓ/∂ŷ, δ[T], …, δ[1], from the first to the last; `scale` is B where the mean is
    /// taken, by which a computation may have divided ∂.
    pub(crate) fn backward(&self, pass: &Pass, dy: Numbers, scale: f64) -> Vec<Numbers> {
        let mut deltas = vec![dy];
        for t in (1..=self.depth()).rev() {
            let above = &deltas[deltas.len() - 1];
            let below = self.transposed(t, above, scale);
            deltas.push(self.masked(t, pass, below));
        }
        deltas
    }

    /// w[t]ᵀ δ
    fn transposed(&self, t: usize, delta: &Numbers, scale: f64) -> Numbers {
        let terms = delta.terms();
        let (gamma, lost) = (gamma(terms, self.u), terms as f64 * self.tiny * scale);
        let (w, e_w) = (&self.theta.w[t], &self.error.w[t]);
        let mut sums = vec![[0.0, lost]; w.ncols()];
        for (i, (w, e_w)) in w.outer_iter().zip(e_w.outer_iter()).enumerate() {
            let (value, bound, most) = (delta.value[i], delta.bound[i], delta.most(i));
            for ((sum, &w), &e_w) in sums.iter_mut().zip(w).zip(e_w) {
                sum[0] += w * value;
                sum[1] += w.abs() * bound + e_w * most + gamma * (w.abs() + e_w) * most;
            }
        }
        let (value, bound) = sums.into_iter().map(|[value, bound]| (value, or_none(bound * self.evaluation))).unzip();
        Bounded { value, bound }
    }

    /// The numbers of layer t behind its mask.
    pub(crate) fn masked(&self, t: usize, pass: &Pass, numbers: Numbers) -> Numbers {
        let u = &pass.u[t - 1].value;
        let of = |(j, mask): (usize, &Mask)| mask.apply(u[j], numbers.value[j], numbers.bound[j]);
        let (value, bound) = pass.masks[t - 1].iter().enumerate().map(of).unzip();
        Bounded { value, bound }
    }

    /// ∂ as a computation has it once it is multiplied by 1/B.
    pub(crate) fn scaled(&self, dy: Numbers, scale: f64) -> Numbers {
        let of = |(&value, &bound): (&f64, &f64)| {
            let lost = if value == 0.0 && bound == 0.0 { 0.0 } else { self.tiny * scale };
            or_none((bound + gamma(1, self.u) * most(value, bound) + lost) * self.evaluation)
        };
        let bound = dy.value.iter().zip(&dy.bound).map(of).collect();
        Bounded { value: dy.value, bound }
    }
}

/// Sums over samples, in the shape of θ.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    value: Parameters<f64>,
    /// The part of `value` that is not yet added to it: as long chains as those of the engines.
    block: Parameters<f64>,
    in_block: usize,
    /// What the errors of δ and z make of δ zᵀ.
    pub(crate) handed_on: Parameters<f64>,
    /// |δ| |z|ᵀ at most, of which a sum over samples rounds.
    pub(crate) size: Parameters<f64>,
    /// Likewise of rung 1, with its own roundings.
    pub(crate) naive: Parameters<f64>,
}

impl Sums {
    pub(crate) fn new(network: &Network) -> Self {
        let zeros = network.theta.zeros_like();
        Self {
            value: zeros.clone(),
            block: zeros.clone(),
            in_block: 0,
            handed_on: zeros.clone(),
            size: zeros.clone(),
            naive: zeros,
        }
    }

    /// Adds δ zᵀ of one sample; or, beside it, another such term of the same sample.
    pub(crate) fn add(&mut self, t: usize, delta: &Numbers, z: &Numbers, lost: f64) {
        for i in 0..delta.value.len() {
            let (d, g, most_d) = (delta.value[i], delta.bound[i], delta.most(i));
            if d == 0.0 && g == 0.0 {
                continue;
            }
            for j in 0..z.value.len() {
                let (z_j, e, most_z) = (z.value[j], z.bound[j], z.most(j));
                if z_j == 0.0 && e == 0.0 {
                    continue;
                }
                self.block.w[t][[i, j]] += d * z_j;
                self.handed_on.w[t][[i, j]] += g * most_z + (d.abs() + g) * e + lost;
                self.size.w[t][[i, j]] += most_d * most_z;
            }
        }
    }

    /// Adds δ to the gradient of c.
    pub(crate) fn add_bias(&mut self, t: usize, delta: &Numbers) {
        for i in 0..self.block.c[t].len() {
            self.block.c[t][i] += delta.value[i];
            self.handed_on.c[t][i] += delta.bound[i];
            self.size.c[t][i] += delta.most(i);
        }
    }

    /// After each sample.
    pub(crate) fn end_of_sample(&mut self) {
        self.in_block += 1;
        if self.in_block.is_multiple_of(BIAS_BLOCK) {
            let arrays = self.value.c.iter_mut().zip(&mut self.block.c);
            arrays.for_each(|(value, block)| flush(value.iter_mut().zip(block)));
        }
        if self.in_block.is_multiple_of(SAMPLE_BLOCK) {
            flush(self.value.iter_mut().zip(self.block.iter_mut()));
        }
    }

    /// All sums divided by `scale`.
    pub(crate) fn divided(mut self, scale: f64) -> Self {
        flush(self.value.iter_mut().zip(self.block.iter_mut()));
        for numbers in [&mut self.value, &mut self.handed_on, &mut self.size, &mut self.naive] {
            numbers.iter_mut().for_each(|number| *number /= scale);
        }
        self
    }

    /// The sums with their bounds, where each term of w goes through `roundings[0]` and each of c
    /// through `roundings[1]`.
    pub(crate) fn bounded(&self, network: &Network, roundings: [usize; 2]) -> Bounded<Parameters<f64>> {
        let [of_w, of_c] = roundings.map(|k| gamma(k + OF_MEAN, network.u));
        let bound = |gamma: f64| {
            move |(handed_on, size): (&f64, &f64)| or_none((handed_on + gamma * size) * network.evaluation)
        };
        let w = self.handed_on.w.iter().zip(&self.size.w).map(|(handed_on, size)| {
            let numbers = handed_on.iter().zip(size).map(bound(of_w)).collect();
            Array2::from_shape_vec(size.dim(), numbers).expect("as many")
        });
        let c = self
            .handed_on
            .c
            .iter()
            .zip(&self.size.c)
            .map(|(handed_on, size)| handed_on.iter().zip(size).map(bound(of_c)).collect::<Array1<f64>>());
        Bounded { value: self.value.clone(), bound: Parameters { w: w.collect(), c: c.collect() } }
    }
}

/// Adds the sums of blocks, which begin anew.
fn flush<'a>(blocks: impl Iterator<Item = (&'a mut f64, &'a mut f64)>) {
    for (value, block) in blocks {
        *value += *block;
        *block = 0.0;
    }
}

/// Adds what rung 1 may be off by at a sample whose δ are `deltas`. It multiplies along paths from
/// the other end, so its numbers on the way are not δ: each path has its own roundings, the
/// products and sums above, the product with ∂, the sum over outputs and the mean; and the errors
/// of ∂ and of the masks come along the same paths.
pub(crate) fn add_naive(network: &Network, pass: &Pass, deltas: &[Numbers], samples: usize, sums: &mut Sums) {
    let outputs = deltas[0].value.len();
    // Σ |∂| |w| … |w|, and of it what ∂ and the masks leave open.
    let mut paths: Vec<[f64; 2]> = (0..outputs).map(|k| [deltas[0].most(k), deltas[0].bound[k]]).collect();
    let mut roundings = outputs + samples + 6;
    for (t, delta) in (0..=network.depth()).rev().zip(deltas) {
        let (z, gamma, w) = (&pass.z[t], gamma(roundings, network.u), &network.theta.w[t]);
        for (i, &[size, open]) in paths.iter().enumerate() {
            let (of_path, of_z) = (gamma * size + open, delta.value[i].abs() + delta.bound[i]);
            for j in 0..z.value.len() {
                sums.naive.w[t][[i, j]] += (of_path * z.most(j) + of_z * z.bound[j]) * network.evaluation;
            }
            if let Some(naive) = sums.naive.c[t].get_mut(i) {
                *naive += of_path * network.evaluation;
            }
        }
        if t > 0 {
            let mut below = vec![[0.0; 2]; w.ncols()];
            for (w, [size, open]) in w.outer_iter().zip(&paths) {
                for (below, w) in below.iter_mut().zip(w) {
                    below[0] += w.abs() * size;
                    below[1] += w.abs() * open;
                }
            }
            for (below, mask) in below.iter_mut().zip(&pass.masks[t - 1]) {
                *below = match mask {
                    Mask::On => *below,
                    Mask::Off => [0.0; 2],
                    Mask::Uncertain => [below[0], below[0] + below[1]],
                };
            }
            paths = below;
            roundings += z.value.len();
        }
    }
}
