//! γ(k), how often a term of each sum is rounded, and numbers with bounds.

use crate::error::Result;
use crate::kernels::sums::{BIAS_BLOCK, SAMPLE_BLOCK};
use crate::linalg::scalar::Scalar;
use crate::network::parameters::Parameters;
use crate::network::products::Products;

/// γ(k) = ku/(1 − ku), where u is the unit roundoff: a number that is rounded k times is off by at
/// most γ(k) times itself. ∞ where ku reaches 1.
///
/// Higham 2002, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., Lemma 3.1.
#[must_use]
pub fn gamma(k: usize, u: f64) -> f64 {
    gamma_of(k as f64, u)
}

/// γ of a count that need not be whole.
pub(crate) fn gamma_of(k: f64, u: f64) -> f64 {
    let ku = k * u;
    if ku < 1.0 { ku / (1.0 - ku) } else { f64::INFINITY }
}

/// A bound that no arithmetic gives is none.
pub(crate) fn or_none(bound: f64) -> f64 {
    if bound.is_nan() { f64::INFINITY } else { bound }
}

/// Numbers in double precision, and how far they and those of the crate may be from the exact ones:
/// `|value − exact| ≤ bound` and `|computed − exact| ≤ bound`, number by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounded<T> {
    /// Computed in double precision, by plain loops.
    pub value: T,
    /// In the same shape, not negative.
    pub bound: T,
}

impl Bounded<Vec<f64>> {
    pub(crate) fn exact(value: Vec<f64>) -> Self {
        Self { bound: vec![0.0; value.len()], value }
    }

    /// The most that |computed| and |value| can be.
    pub(crate) fn most(&self, i: usize) -> f64 {
        most(self.value[i], self.bound[i])
    }

    /// The number of entries that are not 0 for certain. A product with 0 is exact, and so is the
    /// addition of 0.
    pub(crate) fn terms(&self) -> usize {
        self.value.iter().zip(&self.bound).filter(|&(&value, &bound)| value != 0.0 || bound != 0.0).count()
    }
}

/// |computed| ≤ |exact| + bound ≤ |value| + 2 bound
pub(crate) fn most(value: f64, bound: f64) -> f64 {
    value.abs() + 2.0 * bound
}

/// A number that rounding does not explain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outside {
    /// Its place in the order of θ, as [`Parameters::iter`] has it.
    pub place: usize,
    /// The number.
    pub found: f64,
    /// What it is in double precision.
    pub value: f64,
    /// How far each of them may be from the exact number.
    pub bound: f64,
}

impl Bounded<Parameters<f64>> {
    /// The first of some numbers that is further from `value` than two bounds, one for each of
    /// them. A NaN is.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for numbers of another network.
    pub fn first_outside<F: Scalar>(&self, found: &Parameters<F>) -> Result<Option<Outside>> {
        let mut numbers = self.value.zeros_like();
        found.check_shape_is("numbers", &numbers.shape())?;
        numbers.iter_mut().zip(found.iter()).for_each(|(to, from)| *to = from.to_f64());
        let all = numbers.iter().zip(self.value.iter().zip(self.bound.iter())).enumerate();
        let mut all = all.map(|(place, (&found, (&value, &bound)))| Outside { place, found, value, bound });
        // The difference rounds once, and so does the sum of the bounds.
        let is_inside = |o: &Outside| (o.found - o.value).abs() <= 2.0 * o.bound * (1.0 + 4.0 * f64::EPSILON);
        Ok(all.find(|outside| !is_inside(outside)))
    }

    /// ‖·‖ = √Σ a². By the triangle inequality it is off by at most the norm of the bounds; the sum
    /// of n squares is made in double precision, n + 3 roundings.
    #[must_use]
    pub fn norm(&self) -> Bounded<f64> {
        let norm = |of: &Parameters<f64>| of.iter().map(|a| a * a).sum::<f64>().sqrt();
        let (value, bound) = (norm(&self.value), norm(&self.bound));
        let rounding = gamma(self.value.count() + 3, f64::EPSILON / 2.0) * (value + 2.0 * bound);
        Bounded { value, bound: or_none((bound + rounding) * (1.0 + rounding_of_sum(self.value.count()))) }
    }
}

/// Of a sum of so many positive numbers, and a few operations, relative to it.
fn rounding_of_sum(terms: usize) -> f64 {
    (terms + 10) as f64 * f64::EPSILON
}

/// The order of sums: how often a term of each is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any order, with or without fused multiply–adds: BLAS, and all that follows.
    Any,
    /// The chains of native products, by the definition in src/kernels/mod.rs.
    Chains,
}

impl Order {
    /// `Auto` may take either engine.
    pub(crate) fn of(products: Products) -> Self {
        if products == Products::Native { Self::Chains } else { Self::Any }
    }

    /// c + Σ of n products. A chain starts from c and rounds n times; otherwise the products round,
    /// then n − 1 additions and that of c.
    pub(crate) fn affine(self, terms: usize) -> usize {
        match self {
            Self::Any => terms + 1,
            Self::Chains => terms,
        }
    }

    /// Σ over the samples of δ z: as many products, `products` of them a sample. A chain through a
    /// block of samples, and then the addition of blocks.
    pub(crate) fn samples(self, samples: usize, products: usize) -> usize {
        match self {
            Self::Any => samples * products,
            Self::Chains => samples.min(SAMPLE_BLOCK) * products + samples.div_ceil(SAMPLE_BLOCK) - 1,
        }
    }

    /// Σ over the samples of δ, the gradient of a bias. Blocks are added in double precision, where
    /// an addition rounds by no more than u; products with the Hessian add up blocks of those.
    pub(crate) fn bias(self, samples: usize) -> usize {
        match self {
            Self::Any => samples,
            Self::Chains => samples.min(BIAS_BLOCK) + samples.div_ceil(BIAS_BLOCK) + samples.div_ceil(SAMPLE_BLOCK),
        }
    }
}

/// The number of roundings of the factor 1/B and of its product, in a gradient: its own quotient,
/// rounded in double precision and in the type, and the product.
pub(crate) const OF_MEAN: usize = 3;
