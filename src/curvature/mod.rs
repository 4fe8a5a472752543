//! Second order: products with the Hessian, its spectrum, and measures of sharpness.

mod hessian;
#[cfg(feature = "curvature")]
pub mod lanczos;
#[cfg(feature = "curvature")]
pub mod sharpness;
mod tangents;

pub use hessian::Hessian;
