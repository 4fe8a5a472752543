//! Backpropagation as batched GEMM: fully connected ReLU networks at the speed of BLAS or of
//! kernels below it, with the naive method kept as oracle.
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
//! `c[t]` is the column of `w[t]` that meets a constant 1 appended to `z[t]`: on the input alone
//! (the lecture's model and the default), on every layer, or on none ([`Bias`]). Layers count
//! from 0 as Rust does; a text that counts from 1 calls these z\[1\], W\[1\]. A batch has B
//! samples, in rows: X is (B, d\[0\]).
//!
//! ```
//! use gemmprop::{Bias, Mlp, Sgd, SoftmaxCrossEntropy};
//! use ndarray::array;
//!
//! let x = array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0_f32]];
//! let labels = array![0, 1, 1, 0];
//! let mut mlp = Mlp::he(&[2, 16, 2], Bias::Input, 1)?;
//! let mut sgd = Sgd::new(4, 0.5, 1)?; // batch, learning rate, seed
//! let history = sgd.train(&mut mlp, &x, &labels, &SoftmaxCrossEntropy, 500)?;
//! assert!(history[499] < 0.05 && history[499] < history[0]);
//! assert_eq!(mlp.classify(&x)?, labels);
//! # Ok::<(), gemmprop::Error>(())
//! ```
//!
//! # Where to go
//!
//! | to | see | feature |
//! |---|---|---|
//! | train by plain mini-batch SGD | [`Sgd`] | |
//! | choose who multiplies: BLAS, or the crate's own kernels | [`Products`] | |
//! | train with optimisers, schedules, validation, early stopping | [`Trainer`] with its settings [`TrainingSettings`], [`Optimizer`], [`LearningRate`] | |
//! | watch a run, or stop it | [`on_epoch`], [`on_batch`], [`Observer`] | |
//! | train on batches that an iterator gives | [`Trainer::fit_batches`] | |
//! | train on samples that do not fit into memory | [`Trainer::fit_source`], [`Source`]; `data::FileSource` | |
//! | train on several machines, with the bits of one | [`ranks::DataParallel`]; `ranks::World` | `mpi` |
//! | write a training loop | [`Gradients`], [`Parameters::scaled_add`] | |
//! | write a loss | [`Loss`]; with a Hessian, [`TwiceDifferentiable`] | |
//! | predict; the mean loss over data | [`Model`] | |
//! | keep a model in a file, for predictions | `Model::save`, `Model::load` | `files` |
//! | let rare classes count as much as others | [`balanced_class_weights`], [`class_weights`] | |
//! | predict again and again into the caller's memory, for serving | [`Predictor`] | |
//! | compare four ways to the same gradient | [`rungs`] | |
//! | know how far rounding may have moved a gradient, or whether one is wrong | [`rungs::bounds`] | |
//! | read data; stop and resume with the same bits | `data`, `checkpoint` | `files` (default) |
//! | take a network to another program, or from one | `exchange` | `files`; `onnx` for ONNX |
//! | show a progress bar | `ProgressBar` | `progress` |
//! | multiply with the Hessian | [`curvature::Hessian`] | |
//! | find eigenvalues, trace, density, sharpness | `curvature::Hessian::extremes`, `curvature::lanczos`, `curvature::sharpness` | `curvature` |
//!
//! To follow a training step: [`Sgd::step`] in `train/sgd.rs` → `engine/door.rs`, which has both
//! engines behind it. Each has its step, its phases and their operations in `step.rs`, `plan.rs`
//! and `pass.rs`, and its update in `update.rs`:
//!
//! ```text
//! over BLAS   engine/step.rs → plan.rs, pass.rs → linalg/rows.rs, the products of an operation
//!             → linalg/cblas.rs, the call of BLAS
//! native      native/step.rs → plan.rs, pass.rs → kernels/product.rs, the loops around a tile
//!             → kernels/tile.rs, the tile → kernels/avx2.rs, its instructions
//! ```
//!
//! # The house
//!
//! A file imports only from folders below its own, or from files that stand earlier in its own
//! folder. `ci/floors` holds the order of the files and proves it.
//!
//! ```text
//! curvature    products with the Hessian, its spectrum, sharpness
//! exchange     networks for other programs, and from them
//! checkpoint   a training run as files
//! data         samples from files
//! ranks        training on several ranks, each with a part of the data
//! train        data in memory, Sgd, Trainer, and what a run leaves behind
//! rungs        one gradient four ways, and the bounds of its rounding
//! engine       the engine over BLAS: a training step as phases of batched products over fixed
//!              tiles; and the choice between the engines, for steps and predictions
//! native       the engine without BLAS: the same on matrices in panels
//! steps        what the engines have in common: the samples that a step reads, what a run decides
//! optim        what a step does with a gradient
//! network      the function that is learned, and the losses
//! parallel     whose threads compute the tiles of a call, how many, and when sharing pays
//! linalg       number types, and the products of matrices and vectors, by BLAS or as plain loops
//! kernels      matrix products without BLAS, and the definition of their bits
//! ```
//!
//! # Threads and bits
//!
//! Each product runs on one thread, and rayon workers spread fixed tiles over the cores. The tiles
//! depend on shapes alone, so the same call gives the same bits for any number of threads.
//!
//! With [`Products::Native`], it gives them on every CPU as well, and ŷ of a sample has the same
//! bits alone and in any batch. Over BLAS, another CPU or another batch may change the last bits,
//! and so may the change of engines with the size of a batch by [`Products::Auto`].
//!
//! OpenBLAS's own number of threads is global to the process. Where OpenBLAS is linked, it is 1
//! while a call of this crate computes, for other callers of OpenBLAS too, and is restored
//! afterwards.
//!
//! Losses, optimisers, schedules and normal draws take exp, ln, cos and pow from the crate libm,
//! whose bits depend neither on the CPU nor on the C library of the system.
//!
//! A call computes on the calling thread and on helpers. These are workers of a rayon pool that
//! belongs to the crate and is made when it is first needed. [`set_threads`] sets the total number
//! of threads; without it, the number is the size of the rayon pool that the call is made in, or of
//! the global pool (`RAYON_NUM_THREADS`). It is never more than the number of cores that the
//! affinity of the calling thread allows. The program's own threads and rayon jobs are never used,
//! and losses and observers may use rayon, block, call this crate, or panic.

// docs.rs says which feature brings what.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]
#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::disallowed_methods))]
// A library prints nothing.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "files")]
pub mod checkpoint;
pub mod curvature;
#[cfg(feature = "files")]
pub mod data;
mod engine;
mod error;
#[cfg(feature = "files")]
pub mod exchange;
mod kernels;
mod linalg;
mod native;
mod network;
mod normal;
mod optim;
mod parallel;
mod random;
pub mod ranks;
pub mod rungs;
mod steps;
mod train;

/// The arrays that data come as.
pub use ndarray;

pub use engine::predictor::Predictor;
pub use error::{Error, Result};
pub use kernels::table::native_kernels;
pub use linalg::blas::blas_description;
pub use linalg::scalar::Scalar;
pub use network::loss::{Logistic, Loss, SoftmaxCrossEntropy, SquaredError, Targets, TwiceDifferentiable};
pub use network::mlp::Mlp;
pub use network::parameters::{Bias, Parameters, ParametersMut};
pub use network::probabilities::Probabilities;
pub use network::products::Products;
pub use network::standardizer::Standardizer;
pub use optim::learning_rate::LearningRate;
pub use optim::optimizer::Optimizer;
pub use parallel::team::set_threads;
pub use random::Generator;
pub use train::class_weights::{balanced_class_weights, class_weights};
pub use train::dataset::Dataset;
pub use train::gradients::Gradients;
pub use train::history::{History, Record};
pub use train::model::{Model, ModelRef};
pub use train::observer::{BatchEnd, Flow, Observer, on_batch, on_epoch};
#[cfg(feature = "progress")]
pub use train::progress::ProgressBar;
pub use train::settings::TrainingSettings;
pub use train::sgd::Sgd;
pub use train::source::{FitError, Source, SourcePart};
pub use train::stream::Batch;
pub use train::trainer::{StopReason, Trainer};

// What only the benches use. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use native::tile_times::PhaseTimes;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use train::tile_times::tile_times;

/// The README's examples, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
