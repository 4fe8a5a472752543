//! The tests that can share a process, as one program: each file is a module, and
//! `cargo test --test suite NAME` runs one of them. Those that need a process of their own, because
//! they set what is global to it or bring their own BLAS or allocator, lie one folder up.

mod common;

mod bad_input;
mod bits;
mod bounds;
mod bounds_digests;
mod central_differences;
mod chains;
mod checkpoint;
mod classes;
mod counts;
mod counts_of_losses;
mod data;
mod digits;
mod downstream;
mod errors;
mod exchange;
mod exchange_python;
mod hessian;
mod hessian_chains;
mod hessian_runs;
mod hessian_trained;
mod history;
mod lanczos;
mod learning_rates;
mod losses;
mod losses_precision;
mod model;
mod model_file;
mod onnx;
mod optimizers;
mod own_loops;
// The package on a registry is without `report`.
#[cfg(repository)]
mod plot;
mod program;
mod rungs_agree;
mod sam;
mod same_bits;
mod sgd;
mod sharpness;
mod source;
#[cfg(repository)]
mod statistics;

mod trainer;
mod trust;
mod unbiased;
mod walk;
mod wide_and_tall;
mod xor;
