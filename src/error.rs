//! The errors of the crate: each says what was expected and what was found.

use std::fmt::{self, Display};

/// A number in a message, with an exponent where it would otherwise have many zeros. It has the
/// digits that distinguish it from its neighbours, and no more.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number == 0.0 || !number.is_finite() || (1e-4..1e16).contains(&number.abs()) {
            write!(f, "{number}")
        } else {
            write!(f, "{number:e}")
        }
    }
}

/// "1 sample", "5 samples".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A position in an array: "[row, column]", or "[column]" for a single sample.
fn place(row: Option<usize>, column: usize) -> String {
    row.map_or(format!("[{column}]"), |row| format!("[{row}, {column}]"))
}

/// "y[row]", or "y" for a single sample.
fn target(row: Option<usize>) -> String {
    row.map_or("y".into(), |row| format!("y[{row}]"))
}

/// Why a call has failed. Unless the variant says otherwise, nothing has been computed or written
/// then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of widths does not describe a network.
    #[error("widths: expected at least an input and an output width, all of them positive; found {found:?}")]
    Widths {
        /// The widths as given, input and output included.
        found: Vec<usize>,
    },
    /// The parameters do not fit into memory.
    #[error("widths: expected parameters that fit into memory, found {found:?}, which asks for {} of them", Number(*.parameters))]
    TooLarge {
        /// The widths as given, input and output included.
        found: Vec<usize>,
        /// The number of parameters the network would have, rounded to an `f64`.
        parameters: f64,
    },
    /// An array does not have the shape that the network gives it.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Which array.
        what: &'static str,
        /// The shape that the network asks for.
        expected: Vec<usize>,
        /// The shape of the argument.
        found: Vec<usize>,
    },
    /// An argument with an entry for each sample has another number of them than x has rows.
    #[error("{what}: expected {}, one for each row of x; found {found}", counted(*.expected, "sample"))]
    Length {
        /// Which argument.
        what: &'static str,
        /// The number of rows of x.
        expected: usize,
        /// The number of entries of the argument.
        found: usize,
    },
    /// There is no sample.
    #[error("expected at least one sample, found none")]
    NoSamples,
    /// The data differ from those that the running epoch began with.
    #[error(
        "the rest of the epoch: expected {} to train on in {}, as it began with, found {} in {}",
        counted(.expected.0, "sample"), counted(.expected.1, "row"), .found.0, .found.1
    )]
    UnfinishedEpoch {
        /// The number of samples to train on and of rows of x at the beginning of the epoch.
        expected: (usize, usize),
        /// The number of samples to train on and of rows of x in this call.
        found: (usize, usize),
    },
    /// The running epoch began with data and batches that were cut into another number of parts.
    #[error("the rest of the epoch: expected {}, as it began with, found {found}", counted(*.expected, "chunk"))]
    UnfinishedChunks {
        /// The number of parts at the beginning of the epoch.
        expected: usize,
        /// The number of parts in this call.
        found: usize,
    },
    /// Data and batches cannot be cut so for this number of ranks.
    #[error("chunks: expected a multiple of the number of ranks, {ranks}, found {found}")]
    Chunks {
        /// The number of ranks.
        ranks: usize,
        /// The number of chunks.
        found: usize,
    },
    /// Training has ended on all ranks, since it has failed on another one.
    #[error("rank {rank}: {reason}")]
    Rank {
        /// The rank that has failed, counted from 0.
        rank: usize,
        /// What it says.
        reason: String,
    },
    /// A rank is about to continue another run than the first one.
    #[error("rank {rank}: expected the run of rank 0, found one with other {what}")]
    OtherRun {
        /// The rank, counted from 0.
        rank: usize,
        /// What differs.
        what: &'static str,
    },
    /// MPI cannot be used.
    #[error("MPI: expected {expected}, found {found}")]
    Mpi {
        /// What is needed.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A split that leaves nothing to train on.
    #[error("validation_fraction: expected a part of {} that leaves some to train on, found {kept}", counted(*.samples, "sample"))]
    Split {
        /// The number of samples in all.
        samples: usize,
        /// The number of samples that would be kept for validation.
        kept: usize,
    },
    /// The batch size is 0.
    #[error("batch: expected at least 1 sample, found 0")]
    EmptyBatch,
    /// The data contain a NaN or an infinity.
    #[error("{what}{}: expected a finite number, found {}", place(*.row, *.column), Number(*.found))]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// The sample, counted from 0; none for a single sample, or if a whole column is meant.
        row: Option<usize>,
        /// The column, counted from 0.
        column: usize,
        /// The value.
        found: f64,
    },
    /// A finite number leaves the range of the network's type when it is standardised.
    #[error(
        "x[{row}, {column}]: expected a number that is finite when it is standardised, found {}, which becomes {}",
        Number(*.found), Number(*.becomes)
    )]
    Standardized {
        /// The sample, counted from 0.
        row: usize,
        /// The column, counted from 0.
        column: usize,
        /// The number in x.
        found: f64,
        /// The standardised number.
        becomes: f64,
    },
    /// An output is NaN or infinite although the inputs are finite: the parameters are not finite,
    /// or too large for the network's type.
    #[error("ŷ{}: expected a finite number, found {}", place(*.row, *.output), Number(*.found))]
    Output {
        /// The sample, counted from 0; none for a single sample.
        row: Option<usize>,
        /// The output, counted from 0.
        output: usize,
        /// The value of the output.
        found: f64,
    },
    /// A class label has no output.
    #[error("{}: expected a label below {classes}, found {found}", target(*.row))]
    Label {
        /// The sample, counted from 0; none for a single sample.
        row: Option<usize>,
        /// The number of classes, which is that of the network's outputs.
        classes: usize,
        /// The label.
        found: usize,
    },
    /// The loss is not defined for a target.
    #[error("{}: expected {expected}, found {}", target(*.row), Number(*.found))]
    Target {
        /// The sample, counted from 0; none for a single sample.
        row: Option<usize>,
        /// The targets for which the loss is defined.
        expected: &'static str,
        /// The target.
        found: f64,
    },
    /// The weight of a sample is negative or not finite.
    #[error("weights[{row}]: expected a finite number from 0, found {}", Number(*.found))]
    Weight {
        /// The sample, counted from 0.
        row: usize,
        /// The weight.
        found: f64,
    },
    /// The loss is not defined for the network's number of outputs.
    #[error("loss: expected a network with {expected}, found {}", counted(*.found, "output"))]
    Outputs {
        /// The numbers of outputs for which the loss is defined.
        expected: &'static str,
        /// The number of the network's outputs.
        found: usize,
    },
    /// A call for networks with one output was made on one that has more.
    #[error("expected a network with 1 output, found {}", counted(*.found, "output"))]
    OneOutput {
        /// The number of the network's outputs.
        found: usize,
    },
    /// A hyperparameter is out of its range.
    #[error("{name}: expected {expected}, found {}", Number(*.found))]
    Hyperparameter {
        /// Which hyperparameter.
        name: &'static str,
        /// The range that it must be in.
        expected: &'static str,
        /// The value.
        found: f64,
    },
    /// The loss of a step was NaN or infinite, or the parameters after it would be. Earlier steps
    /// have been made, and the parameters are as they were before this one.
    #[error(
        "{what}: expected a finite number, found {} in {}{}",
        Number(*.found),
        .at.map_or("a single step".into(), |(epoch, batch)| format!("batch {batch} of epoch {epoch}")),
        .last.map_or(String::new(), |last| format!("; the loss of the step before was {}", Number(last)))
    )]
    Diverged {
        /// What was not finite: the loss, the parameters after the step, the optimiser's moments,
        /// or the gradient's norm.
        what: &'static str,
        /// The epoch of the step, over the life of the trainer, and the batch in that epoch, both
        /// from 1; none for a single step.
        at: Option<(usize, usize)>,
        /// The value; for parameters, the first that is not finite.
        found: f64,
        /// The mean loss of the step before this one, if there was one.
        last: Option<f64>,
    },
    /// A quantity that a measure of sharpness starts from, or computes, is not a finite number of
    /// the network's type.
    #[error("{what} at {at}: expected a finite number, found {found}")]
    Undefined {
        /// Which quantity.
        what: &'static str,
        /// The point at which it was computed.
        at: &'static str,
        /// The value of the quantity.
        found: f64,
    },
    /// The product of an operator and a vector has a NaN, an infinity, or a number so large that
    /// sums overflow.
    #[error(
        "product {product} of the operator: expected numbers whose sums are finite, found {} in component {component}",
        Number(*.found)
    )]
    Operator {
        /// The product, counted from 0.
        product: usize,
        /// The component of the product, counted from 0.
        component: usize,
        /// The value.
        found: f64,
    },
    /// An operator is not symmetric, by more than rounding errors.
    #[error(
        "product {product} of the operator: expected a symmetric operator, found vᵀAw and wᵀAv to differ by {difference:e} where numbers \
         are of size {size:e}"
    )]
    NotSymmetric {
        /// The product that showed it, counted from 0.
        product: usize,
        /// The largest difference of vᵀAw and wᵀAv that was found, with v and w of norm 1.
        difference: f64,
        /// The largest vᵀAw that was found.
        size: f64,
    },
    /// The memory for a result cannot be allocated.
    #[error("{what}: expected memory for {numbers} numbers, found none")]
    Memory {
        /// What needs it.
        what: &'static str,
        /// The number of numbers.
        numbers: usize,
    },
    /// LAPACK did not find the eigenvalues of a small symmetric matrix.
    #[error("eigenvalues of a symmetric matrix of order {order}: expected LAPACK to find them; found: {reason}")]
    Eigenvalues {
        /// The order of the matrix.
        order: usize,
        /// What LAPACK reports of the failure.
        reason: String,
    },
    /// Products by BLAS, in a build without it.
    #[error("products: expected auto or native, since this build is without the feature `blas`; found blas")]
    NoBlas,
    /// OpenBLAS cannot be limited to one thread, so results would depend on the number of threads.
    #[error(
        "OpenBLAS ({config}): expected one thread after openblas_set_num_threads(1), found {found}; \
         this is an OpenMP build, start the program with OMP_NUM_THREADS=1"
    )]
    BlasThreads {
        /// What `openblas_get_config` says.
        config: String,
        /// The number of threads that it still has.
        found: i32,
    },
    /// OpenBLAS is a serial build that may have no locks: calls from several threads would
    /// overwrite one another's operands.
    #[error(
        "OpenBLAS ({config}): expected a build that several threads can call, found a serial one that does not say USE_LOCKING; \
         use a pthread build, or a serial one from 0.3.28 on made with USE_LOCKING=1"
    )]
    BlasLocking {
        /// What `openblas_get_config` says.
        config: String,
    },
    /// OpenBLAS takes 64-bit integers under the names of the usual interface, whose integers have
    /// 32 bits.
    #[error("OpenBLAS ({config}): expected 32-bit integers, found a build with USE64BITINT; link one without")]
    BlasIntegers {
        /// What `openblas_get_config` says.
        config: String,
    },
    /// The linked BLAS computes wrong results.
    #[error(
        "BLAS ({config}): expected the product of small whole numbers, found another result of {product}; check which BLAS is linked, and how"
    )]
    BlasWrong {
        /// What is known of the library.
        config: String,
        /// The name of the product in BLAS, with the transposes of its operands.
        product: &'static str,
    },
}

impl Error {
    /// Puts `row(i)` in place of row i, for an error in samples that were read from elsewhere.
    pub(crate) fn at_row(self, row: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::NotFinite { what, row: i, column, found } => Self::NotFinite { what, row: i.map(row), column, found },
            Self::Standardized { row: i, column, found, becomes } => {
                Self::Standardized { row: row(i), column, found, becomes }
            }
            Self::Output { row: i, output, found } => Self::Output { row: i.map(row), output, found },
            Self::Label { row: i, classes, found } => Self::Label { row: i.map(row), classes, found },
            Self::Target { row: i, expected, found } => Self::Target { row: i.map(row), expected, found },
            Self::Weight { row: i, found } => Self::Weight { row: row(i), found },
            other => other,
        }
    }

    /// Removes the row from an error of a call with a single sample.
    pub(crate) fn of_one_sample(self) -> Self {
        match self {
            Self::NotFinite { what, column, found, .. } => Self::NotFinite { what, row: None, column, found },
            Self::Output { output, found, .. } => Self::Output { row: None, output, found },
            Self::Label { classes, found, .. } => Self::Label { row: None, classes, found },
            Self::Target { expected, found, .. } => Self::Target { row: None, expected, found },
            other => other,
        }
    }
}

/// The result of a call that may fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
