//! Backpropagation as batched GEMM: fully connected ReLU networks at the speed of BLAS, with the naive method kept as oracle.
//!
//! # The model
//!
//! ```text
//! z[0] = x                              x: (d[0])
//! u[t+1] = w[t] z[t] + c[t]             w[t]: (d[t+1], d[t])    c[t]: (d[t+1])      t = 0 … T−1
//! z[t+1] = ReLU(u[t+1])                 ReLU′(0) = 0
//! ŷ = alpha z[T] + b                    alpha: (m, d[T])        b: (m)
//! θ = [w[0], c[0], …, w[T−1], c[T−1], alpha, b]
//! ```
//!
//! `c[t]` is the column of `w[t]` that meets a constant 1 appended to `z[t]`: on the input alone (the lecture's model and the
//! default), on every layer, or on none ([`Constant`]). Layers count from 0 as Rust does; a text that counts from 1 calls
//! these z\[1\], W\[1\]. A batch has B samples, in rows: X is (B, d\[0\]).
//!
//! ```
//! use gemmprop::{Constant, Mlp, Sgd, SoftmaxCrossEntropy};
//! use ndarray::array;
//!
//! let x = array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0_f32]];
//! let labels = array![0, 1, 1, 0];
//! let mut mlp = Mlp::he(&[2, 16, 2], Constant::Input, 1)?;
//! let history = Sgd::new(4, 0.5, 1)?.train(&mut mlp, x.view(), labels.view(), &SoftmaxCrossEntropy, 500)?;
//! assert!(history[499] < 0.05 && history[499] < history[0]);
//! assert_eq!(mlp.classify(x.view())?, labels);
//! # Ok::<(), gemmprop::Error>(())
//! ```
//!
//! # The four rungs
//!
//! One gradient, computed four ways; each module is to be read beside its equations. All give ∂ŷ/∂θ and ∇θ ℓ.
//!
//! | module | method | multiplications | products |
//! |---|---|---|---|
//! | [`naive`] | edge by edge, the chain rule forward | O((edges + nodes)²) | loops |
//! | [`per_neuron`] | backpropagation, neuron by neuron | O(edges + nodes) | loops |
//! | [`matrix_vector`] | δ\[t\] = (w\[t\]ᵀ δ\[t+1\]) ⊙ mask | O(edges + nodes) | gemv, ger |
//! | [`batched`] | Δ\[t\] = (Δ\[t+1\] w\[t\]) ⊙ mask, G = ΔᵀZ | O(edges + nodes) a sample | gemm |
//!
//! # Where to go
//!
//! | to | see | feature |
//! |---|---|---|
//! | train as the lecture does | [`Sgd`] | |
//! | train with optimisers, schedules, validation, early stopping | [`Trainer`], [`Training`], [`optimizer`], [`learning_rate`], [`observer`] | |
//! | predict; the mean loss over data | [`Model`] | |
//! | read data; stop and go on with the same bits | `data`, `Checkpoints` | `files` (default) |
//! | show a progress bar | `ProgressBar` | `progress` |
//! | multiply with the Hessian | [`Hessian`] | |
//! | find eigenvalues, trace, density, sharpness | `lanczos`, `sharpness` | `curvature` |
//!
//! A training step is [`Trainer::step`] → `engine` (its phases) → `rows` (its products) and `update` (its rule).
//!
//! # The house
//!
//! Files follow the mathematics, and a file imports only from floors below its own (`ci/floors` proves it).
//!
//! ```text
//! top       batched (rung 4, predict)   model   dataset   hessian (its products with directions)   sgd (the lecture's training)
//!           sharpness (λ_max, the loss near by; feature `curvature`)   training (settings)   position   observer
//!           trainer   progress (a bar on the terminal)   checkpoint (a run as a file)
//! floor 2   naive   per_neuron   matrix_vector   update (the rules of a step)   engine (its buffers and phases: the hot path)
//! floor 1   network (Mlp, θ)   loss   trace (u and z of all neurons)   optimizer   learning_rate   history   standardizer
//!           rows (rung 4's products on some rows)   schedule (tiles)   data (samples from files)
//! ground    error   layout   blas (products, tiles)   fork_join (a phase, run by several threads)   sync   scalar   count
//!           random   cores   pace   crew (helpers: whose threads, how many, how long)   threads (the BLAS's threads)
//!           archive (a directory of numbered files, of which the newest whole one can be read)
//!           lanczos (spectra of symmetric operators, knows no network; feature `curvature`)
//! ```
//!
//! # Threads and bits
//!
//! Products run on one OpenBLAS thread each, and rayon spreads fixed tiles over the cores. The tiles depend on shapes alone:
//! the same call gives the same bits for any number of threads. (A sample alone and in a batch may differ in the last ones.)
//! OpenBLAS's own number of threads, a global of the process, is 1 while a call of this crate computes, for other callers of
//! OpenBLAS too, and is put back after it.
//!
//! A call computes on the calling thread and on helpers, workers of a rayon pool of the crate's own that is made when it is
//! first needed. How many threads that are in all is said by [`set_threads`]; else by the size of the rayon pool that the call is
//! made in, or of the global one (`RAYON_NUM_THREADS`). It is never more than the calling thread may run on by its affinity. The
//! program's own threads and rayon jobs are never used, and losses and observers may use rayon, block, call this crate, or
//! panic.

// docs.rs says which feature brings what.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]
// A library prints nothing.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "files")]
mod archive;
pub mod batched;
mod blas;
#[cfg(feature = "files")]
pub mod checkpoint;
mod cores;
pub mod count;
mod crew;
#[cfg(feature = "files")]
pub mod data;
mod dataset;
mod engine;
mod error;
mod fork_join;
#[cfg(test)]
mod fork_join_tests;
mod hessian;
pub mod history;
#[cfg(feature = "curvature")]
pub mod lanczos;
mod layout;
pub mod learning_rate;
pub mod loss;
pub mod matrix_vector;
mod model;
pub mod naive;
mod network;
pub mod observer;
pub mod optimizer;
mod pace;
pub mod per_neuron;
mod position;
#[cfg(feature = "progress")]
mod progress;
mod random;
mod rows;
mod scalar;
mod schedule;
mod sgd;
#[cfg(feature = "curvature")]
pub mod sharpness;
mod standardizer;
mod sync;
mod threads;
mod trace;
mod trainer;
mod training;
mod update;

#[cfg(feature = "files")]
pub use archive::{CheckpointError, Checkpoints, Damaged, Fault};
#[cfg(feature = "files")]
pub use checkpoint::{Notes, Saved, Stored};
pub use crew::set_threads;
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use hessian::Hessian;
pub use history::{History, Record};
pub use learning_rate::LearningRate;
pub use loss::{Logistic, Loss, SoftmaxCrossEntropy, SquaredError, Targets};
pub use model::{Model, ModelRef};
pub use network::{Constant, Mlp, Parameters, ParametersMut};
pub use observer::Observer;
pub use optimizer::Optimizer;
#[cfg(feature = "progress")]
pub use progress::ProgressBar;
pub use random::Generator;
pub use scalar::Scalar;
pub use sgd::Sgd;
pub use standardizer::Standardizer;
pub use threads::blas_description;
pub use trace::Trace;
pub use trainer::{Ended, Trainer};
pub use training::Training;

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
