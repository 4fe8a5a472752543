//! What the crate computes, with 160 bits: forward pass, gradients, products with the Hessian and
//! steps, in plain loops over the formulas. The figure `bounds` measures with it, too.

use dashu_float::FBig;
use dashu_float::round::mode::HalfEven;
use gemmprop::{Mlp, Optimizer, Parameters, Scalar};
use ndarray::ArrayView2;

pub(crate) type Big = FBig<HalfEven>;

/// Beside the 53 of a double: a sum of thousands of terms that nearly cancels, to 2⁻⁹⁰ of them.
const BITS: usize = 160;

pub(crate) fn big(a: f64) -> Big {
    Big::try_from(a).expect("finite").with_precision(BITS).value()
}

/// |found − exact|; NaN and infinities are infinitely far away.
pub(crate) fn distance(found: f64, exact: &Big) -> f64 {
    if found.is_finite() { (big(found) - exact).to_f64().value().abs() } else { f64::INFINITY }
}

fn is_zero(a: &Big) -> bool {
    a.repr().significand().is_zero()
}

/// `sum` += a b, without the products with 0.
fn add(sum: &mut Big, a: &Big, b: &Big) {
    if !is_zero(a) && !is_zero(b) {
        *sum += a * b;
    }
}

/// The losses, whose targets are numbers or, as one, a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExactLoss {
    Squared,
    Logistic,
    Softmax,
}

impl ExactLoss {
    /// ℓ and ∂ℓ/∂ŷ
    fn value_and_derivative(self, y_hat: &[Big], y: &[f64]) -> (Big, Vec<Big>) {
        match self {
            Self::Squared => {
                let d: Vec<Big> = y_hat.iter().zip(y).map(|(y_hat, &y)| y_hat - big(y)).collect();
                (d.iter().map(|d| d * d * big(0.5)).sum(), d)
            }
            Self::Logistic => {
                let (a, y) = (&y_hat[0], big(y[0]));
                ((a.exp() + big(1.0)).ln() - &y * a, vec![sigmoid(a) - y])
            }
            Self::Softmax => {
                let (mut d, sum) = softmax(y_hat);
                let label = y[0] as usize;
                d[label] -= big(1.0);
                (sum.ln() - &y_hat[label], d)
            }
        }
    }

    /// (∂²ℓ/∂ŷ²) v
    fn second_derivative(self, y_hat: &[Big], v: &[Big]) -> Vec<Big> {
        match self {
            Self::Squared => v.to_vec(),
            Self::Logistic => vec![sigmoid(&y_hat[0]) * sigmoid(&-&y_hat[0]) * &v[0]],
            Self::Softmax => {
                let (p, _) = softmax(y_hat);
                let mean: Big = p.iter().zip(v).map(|(p, v)| p * v).sum();
                p.iter().zip(v).map(|(p, v)| p * (v - &mean)).collect()
            }
        }
    }
}

fn sigmoid(a: &Big) -> Big {
    big(1.0) / (big(1.0) + (-a).exp())
}

/// p, and Σ e^ŷ
fn softmax(y_hat: &[Big]) -> (Vec<Big>, Big) {
    let e: Vec<Big> = y_hat.iter().map(|a| a.exp()).collect();
    let sum: Big = e.iter().cloned().sum();
    (e.iter().map(|e| e / &sum).collect(), sum)
}

/// The matrix of a layer, row by row, and its bias, which may be empty.
type Layer = (Vec<Vec<Big>>, Vec<Big>);

fn layers<F: Scalar>(p: &Parameters<F>) -> Vec<Layer> {
    let wide = |a: &F| big(a.to_f64());
    let rows = |w: ArrayView2<F>| w.outer_iter().map(|row| row.iter().map(wide).collect()).collect();
    p.layers().map(|(w, c)| (rows(w), c.iter().map(wide).collect())).collect()
}

/// Zeros in the same shape.
fn zeros(of: &[Layer]) -> Vec<Layer> {
    let zero = |numbers: &[Big]| vec![big(0.0); numbers.len()];
    of.iter().map(|(w, c)| (w.iter().map(|row| zero(row)).collect(), zero(c))).collect()
}

/// In the order of θ, divided by `scale`.
fn flat(layers: Vec<Layer>, scale: usize) -> Vec<Big> {
    let scale = big(scale as f64);
    layers.into_iter().flat_map(|(w, c)| w.into_iter().flatten().chain(c)).map(|a| a / &scale).collect()
}

/// A forward pass: u[1] … u[T], z[0] … z[T], and ŷ.
#[derive(Debug)]
pub(crate) struct ExactTrace {
    pub(crate) u: Vec<Vec<Big>>,
    pub(crate) z: Vec<Vec<Big>>,
    pub(crate) y_hat: Vec<Big>,
}

/// A network.
#[derive(Debug)]
pub(crate) struct Exact {
    layers: Vec<Layer>,
}

impl Exact {
    pub(crate) fn new<F: Scalar>(mlp: &Mlp<F>) -> Self {
        Self { layers: layers(mlp.parameters()) }
    }

    fn depth(&self) -> usize {
        self.layers.len() - 1
    }

    pub(crate) fn forward<F: Scalar>(&self, x: &[F]) -> ExactTrace {
        let mut trace =
            ExactTrace { u: Vec::new(), z: vec![x.iter().map(|x| big(x.to_f64())).collect()], y_hat: Vec::new() };
        for (t, layer) in self.layers.iter().enumerate() {
            let u = affine(layer, &trace.z[t]);
            if t == self.depth() {
                trace.y_hat = u;
                break;
            }
            trace.z.push(u.iter().map(|u| if *u > big(0.0) { u.clone() } else { big(0.0) }).collect());
            trace.u.push(u);
        }
        trace
    }

    /// δ[T+1], …, δ[1] for a ∂.
    fn backward(&self, trace: &ExactTrace, dy: Vec<Big>) -> Vec<Vec<Big>> {
        let mut deltas = vec![dy];
        for t in (1..self.layers.len()).rev() {
            let mut below = vec![big(0.0); trace.z[t].len()];
            transposed(&self.layers[t], &deltas[deltas.len() - 1], &mut below);
            mask(&mut below, &trace.z[t]);
            deltas.push(below);
        }
        deltas
    }

    /// Σ over the rows of x of what ∂ becomes, divided by `scale`.
    fn sum<F: Scalar>(
        &self,
        x: ArrayView2<F>,
        scale: usize,
        mut dy: impl FnMut(usize, &[Big]) -> Vec<Big>,
    ) -> Vec<Big> {
        let mut g = zeros(&self.layers);
        for (row, x) in x.outer_iter().enumerate() {
            let trace = self.forward(&x.to_vec());
            let deltas = self.backward(&trace, dy(row, &trace.y_hat));
            for (t, delta) in (0..self.layers.len()).rev().zip(&deltas) {
                outer(&mut g[t], delta, &trace.z[t], true);
            }
        }
        flat(g, scale)
    }

    /// Σ ∂ŷ_k/∂θ
    pub(crate) fn output_gradient<F: Scalar>(&self, x: ArrayView2<F>, k: usize) -> Vec<Big> {
        self.sum(x, 1, |_, y_hat| (0..y_hat.len()).map(|i| big(f64::from(i == k))).collect())
    }

    /// The mean loss and its gradient.
    pub(crate) fn loss_gradient<F: Scalar>(
        &self,
        x: ArrayView2<F>,
        y: ArrayView2<f64>,
        loss: ExactLoss,
    ) -> (Big, Vec<Big>) {
        let mut sum = big(0.0);
        let g = self.sum(x, x.nrows(), |row, y_hat| {
            let (value, d) = loss.value_and_derivative(y_hat, &y.row(row).to_vec());
            sum += value;
            d
        });
        (sum / big(x.nrows() as f64), g)
    }

    /// H v of the mean loss.
    pub(crate) fn hessian_product<F: Scalar>(
        &self,
        x: ArrayView2<F>,
        y: ArrayView2<f64>,
        loss: ExactLoss,
        v: &Parameters<F>,
    ) -> Vec<Big> {
        let (v, mut hv) = (layers(v), zeros(&self.layers));
        for (x, y) in x.outer_iter().zip(y.outer_iter()) {
            let trace = self.forward(&x.to_vec());
            let mut r_z = vec![vec![big(0.0); x.len()]];
            for t in 0..self.layers.len() {
                let mut r_u = affine(&v[t], &trace.z[t]);
                r_u.iter_mut().zip(&self.layers[t].0).for_each(|(r_u, w)| *r_u += dot(w, &r_z[t]));
                if t < self.depth() {
                    mask(&mut r_u, &trace.z[t + 1]);
                }
                r_z.push(r_u);
            }
            let (_, dy) = loss.value_and_derivative(&trace.y_hat, &y.to_vec());
            let deltas = self.backward(&trace, dy);
            let mut r_delta = loss.second_derivative(&trace.y_hat, &r_z[self.layers.len()]);
            for (t, delta) in (0..self.layers.len()).rev().zip(&deltas) {
                outer(&mut hv[t], &r_delta, &trace.z[t], true);
                outer(&mut hv[t], delta, &r_z[t], false);
                if t > 0 {
                    let mut below = vec![big(0.0); trace.z[t].len()];
                    transposed(&v[t], delta, &mut below);
                    transposed(&self.layers[t], &r_delta, &mut below);
                    mask(&mut below, &trace.z[t]);
                    r_delta = below;
                }
            }
        }
        flat(hv, x.nrows())
    }
}

fn dot(a: &[Big], b: &[Big]) -> Big {
    let mut sum = big(0.0);
    a.iter().zip(b).for_each(|(a, b)| add(&mut sum, a, b));
    sum
}

/// w z + c
fn affine((w, c): &Layer, z: &[Big]) -> Vec<Big> {
    let row = |(i, w): (usize, &Vec<Big>)| c.get(i).map_or(big(0.0), Big::clone) + dot(w, z);
    w.iter().enumerate().map(row).collect()
}

/// `below` += wᵀ δ
fn transposed((w, _): &Layer, delta: &[Big], below: &mut [Big]) {
    for (w, delta) in w.iter().zip(delta) {
        below.iter_mut().zip(w).for_each(|(below, w)| add(below, w, delta));
    }
}

fn mask(numbers: &mut [Big], z: &[Big]) {
    for (number, _) in numbers.iter_mut().zip(z).filter(|(_, z)| is_zero(z)) {
        *number = big(0.0);
    }
}

/// += δ zᵀ, and δ for the bias.
fn outer((w, c): &mut Layer, delta: &[Big], z: &[Big], with_bias: bool) {
    for (w, delta) in w.iter_mut().zip(delta) {
        w.iter_mut().zip(z).for_each(|(g, z)| add(g, delta, z));
    }
    if with_bias {
        c.iter_mut().zip(delta).for_each(|(c, delta)| *c += delta);
    }
}

/// g min(1, c/‖g‖)
pub(crate) fn clipped(g: &[Big], c: f64) -> Vec<Big> {
    let norm = g.iter().map(|g| g * g).sum::<Big>().sqrt();
    let factor = if norm > big(c) { big(c) / norm } else { big(1.0) };
    g.iter().map(|g| g * &factor).collect()
}

/// θ after the first step of an optimiser.
pub(crate) fn first_step<F: Scalar>(mlp: &Mlp<F>, g: &[Big], optimizer: Optimizer, eta: f64, lambda: f64) -> Vec<Big> {
    let keep = big(1.0) - big(eta) * big(lambda);
    let step = |(theta, g): (&F, &Big)| {
        let direction = match optimizer {
            Optimizer::Sgd | Optimizer::Momentum { .. } => g.clone(),
            Optimizer::Nesterov { mu } => g * (big(1.0) + big(mu)),
            // m̂ = g and v̂ = g² whatever β₁ and β₂ are.
            Optimizer::Adam { epsilon, .. } => {
                let size = if *g < big(0.0) { -g } else { g.clone() };
                g / (size + big(epsilon))
            }
            _ => unreachable!("no such optimiser"),
        };
        &keep * big(theta.to_f64()) - big(eta) * direction
    };
    mlp.parameters().iter().zip(g).map(step).collect()
}
