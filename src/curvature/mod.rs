//! Second order: products with the Hessian, its spectrum, and measures of sharpness.

#[cfg(feature = "curvature")]
mod density;
mod hessian;
mod inputs;
#[cfg(feature = "curvature")]
mod krylov;
#[cfg(feature = "curvature")]
pub mod lanczos;
mod native_tangents;
#[cfg(feature = "curvature")]
mod operator;
#[cfg(feature = "curvature")]
pub mod sharpness;
#[cfg(feature = "curvature")]
mod spectrum;
#[cfg(feature = "blas")]
mod tangents;

pub use hessian::Hessian;
#[cfg(feature = "curvature")]
pub use lanczos::{Density, Eigenpair, Estimate, Extremes, Options};
