//! How far sharpness-aware minimisation goes uphill: to θ + ρ g/‖g‖.
//!
//! Foret et al. 2021, *Sharpness-aware minimization for efficiently improving generalization*.

use crate::linalg::scalar::Scalar;

/// A norm above this has all its digits: squares that underflow are off by 2⁻¹⁰⁷⁵ each, nothing
/// beside 10⁻²⁸⁰ = 2⁻⁹³⁰.
const LEAST_NORM: f64 = 1e-140;

/// Divided by the largest number of a type, this is a number that has all its digits: 2⁻¹²⁶ goes
/// with 2¹²⁸, and 2⁻¹⁰²² with 2¹⁰²⁴.
const LEAST_NORMAL: f64 = 4.0;

/// Whether ‖g‖ and ρ/‖g‖ have all their digits. Otherwise g is first scaled, of which only the
/// direction counts.
pub(crate) fn is_in_range<F: Scalar>(rho: f64, norm: f64) -> bool {
    norm > LEAST_NORM && (LEAST_NORMAL / F::MAX..F::MAX).contains(&(rho / norm))
}

/// ρ/‖g‖, the factor on g. A gradient of 0 has no direction, so θ stays.
pub(crate) fn step<F: Scalar>(rho: f64, norm: f64) -> F {
    F::from_f64(if norm > 0.0 { rho / norm } else { 0.0 })
}
