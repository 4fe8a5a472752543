//! Second order: products with the Hessian, its spectrum, and measures of sharpness.

#[cfg(feature = "curvature")]
mod density;
mod hessian;
#[cfg(feature = "curvature")]
mod krylov;
#[cfg(feature = "curvature")]
pub mod lanczos;
#[cfg(feature = "curvature")]
mod operator;
#[cfg(feature = "curvature")]
pub mod sharpness;
mod tangents;

pub use hessian::Hessian;
