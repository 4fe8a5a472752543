//! Every way in which a caller's data can be refused, with what was expected and what was found.

/// A refused argument. Nothing has been computed or written when one of these comes back, unless its text says so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of widths does not describe a network.
    #[error("widths: expected at least an input and an output width, all of them positive; found {found:?}")]
    Widths {
        /// The list as given, input and output included.
        found: Vec<usize>,
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
    /// Two arguments that go sample by sample have different numbers of samples.
    #[error("{what}: expected {expected} samples, one for each row of x; found {found}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Rows of x.
        expected: usize,
        /// Rows of the argument.
        found: usize,
    },
    /// There is no sample to compute with.
    #[error("expected at least one sample, found none")]
    NoSamples,
    /// Other data than those that an epoch began with, before it was through.
    #[error(
        "the rest of the epoch: expected {} samples to train on in {} rows, as it began with, found {} in {}",
        .expected.0, .expected.1, .found.0, .found.1
    )]
    Rest {
        /// Samples trained on, and rows of x, at the beginning of the epoch.
        expected: (usize, usize),
        /// The same now.
        found: (usize, usize),
    },
    /// A split that leaves nothing to train on.
    #[error("validation_fraction: expected a part of {samples} samples that leaves some to train on, found {kept}")]
    Split {
        /// Samples in all.
        samples: usize,
        /// Those that would be kept for validation.
        kept: usize,
    },
    /// A mini-batch of no samples.
    #[error("batch: expected at least 1 sample, found 0")]
    EmptyBatch,
    /// A NaN or an infinity in the data.
    #[error("{what}[{row}, {column}]: expected a finite number, found {found}")]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Sample, counted from 0.
        row: usize,
        /// Column, counted from 0.
        column: usize,
        /// The value.
        found: f64,
    },
    /// A class label that no output stands for.
    #[error("y[{row}]: expected a label below {classes}, found {found}")]
    Label {
        /// Sample, counted from 0.
        row: usize,
        /// Number of classes: the network's outputs.
        classes: usize,
        /// The label.
        found: usize,
    },
    /// A target that the loss is not defined for.
    #[error("y[{row}]: expected {expected}, found {found}")]
    Target {
        /// Sample, counted from 0.
        row: usize,
        /// What the loss takes.
        expected: &'static str,
        /// The target.
        found: f64,
    },
    /// A sample's weight that is no weight.
    #[error("weights[{row}]: expected a finite number from 0, found {found}")]
    Weight {
        /// Sample, counted from 0.
        row: usize,
        /// The weight.
        found: f64,
    },
    /// A loss and a network whose numbers of outputs do not fit.
    #[error("loss: expected a network with {expected}, found {found} outputs")]
    Outputs {
        /// What the loss asks of the network.
        expected: &'static str,
        /// The network's outputs.
        found: usize,
    },
    /// A number that steers the training is out of its range.
    #[error("{name}: expected {expected}, found {found}")]
    Hyperparameter {
        /// Which number.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value.
        found: f64,
    },
    /// The loss of a step was NaN or infinite, or the parameters after it would be. The steps before it have been made, and the
    /// parameters are as they were before it.
    #[error(
        "{what}: expected a finite number, found {found} in {}{}",
        .at.map_or("a single step".into(), |(epoch, batch)| format!("batch {batch} of epoch {epoch}")),
        .last.map_or(String::new(), |last| format!("; the loss of the step before was {last}"))
    )]
    Diverged {
        /// What was not finite: the loss, the parameters after the step, the optimiser's moments, or the gradient's norm.
        what: &'static str,
        /// Its epoch, over the life of the trainer, and its batch in that epoch, both from 1; none for a step by itself.
        at: Option<(usize, usize)>,
        /// Its value; of the parameters the first that is not finite.
        found: f64,
        /// The mean loss of the last step before this one, if there was one.
        last: Option<f64>,
    },
    /// A quantity that the measures of sharpness start from, or meet, is no number of the network's type.
    #[error("{what} at {at}: expected a finite number, found {found}")]
    Undefined {
        /// Which quantity.
        what: &'static str,
        /// Where it was met.
        at: &'static str,
        /// Its value.
        found: f64,
    },
    /// The product of an operator and a vector has a NaN, an infinity, or a number so large that sums overflow.
    #[error(
        "product {product} of the operator: expected numbers whose sums are finite, found {found} in component {component}"
    )]
    Operator {
        /// Which product, counted from 0.
        product: usize,
        /// Which component of it, counted from 0.
        component: usize,
        /// The value.
        found: f64,
    },
    /// An operator that is not symmetric, beyond all rounding.
    #[error(
        "product {product} of the operator: expected a symmetric operator, found vᵀAw and wᵀAv to differ by {difference:e} where numbers \
         are of size {size:e}"
    )]
    NotSymmetric {
        /// Which product showed it, counted from 0.
        product: usize,
        /// The largest difference found, with v and w of norm 1.
        difference: f64,
        /// The largest vᵀAw met.
        size: f64,
    },
    /// There is no memory for what was asked for.
    #[error("{what}: expected memory for {numbers} numbers, found none")]
    Memory {
        /// What needs it.
        what: &'static str,
        /// How many numbers.
        numbers: usize,
    },
    /// LAPACK has not found the eigenvalues of a small symmetric matrix.
    #[error("eigenvalues of a symmetric matrix of order {order}: expected LAPACK to find them; found: {reason}")]
    Eigenvalues {
        /// Its order.
        order: usize,
        /// What is known of the failure.
        reason: String,
    },
    /// OpenBLAS cannot be held to one thread, so results would depend on the number of threads.
    #[error(
        "OpenBLAS ({config}): expected one thread after openblas_set_num_threads(1), found {found}; \
         this is an OpenMP build, start the program with OMP_NUM_THREADS=1"
    )]
    BlasThreads {
        /// What `openblas_get_config` says.
        config: String,
        /// The number of threads that it keeps.
        found: i32,
    },
    /// A serial build of OpenBLAS that may have no locks: calls from several threads would overwrite one another's operands.
    #[error(
        "OpenBLAS ({config}): expected a build that several threads can call, found a serial one that does not say USE_LOCKING; \
         use a pthread build, or a serial one from 0.3.28 on made with USE_LOCKING=1"
    )]
    BlasLocking {
        /// What `openblas_get_config` says.
        config: String,
    },
    /// An OpenBLAS that takes 64-bit integers under the names of the usual interface, whose integers have 32 bits.
    #[error("OpenBLAS ({config}): expected 32-bit integers, found a build with USE64BITINT; link one without")]
    BlasIntegers {
        /// What `openblas_get_config` says.
        config: String,
    },
    /// The BLAS that is linked computes wrongly.
    #[error(
        "BLAS ({config}): expected the product of small whole numbers, found another result of {product}; is it linked well?"
    )]
    BlasWrong {
        /// What is known of the library.
        config: String,
        /// The product, as BLAS names it, with the transposes of its operands.
        product: &'static str,
    },
}

/// Result of a call that may refuse its arguments.
pub type Result<T> = std::result::Result<T, Error>;
