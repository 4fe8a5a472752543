//! Every way in which a caller's data can be refused, with what was expected and what was found.

use std::fmt::{self, Display};

/// A number in a message: with an exponent where it would otherwise be a long row of zeros. Every
/// digit that tells it from its neighbours is there, and no other.
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

/// Where in an array: "[row, column]", without the row where there is but one sample.
fn place(row: Option<usize>, column: usize) -> String {
    row.map_or(format!("[{column}]"), |row| format!("[{row}, {column}]"))
}

/// "y[row]", or "y" where there is but one sample.
fn target(row: Option<usize>) -> String {
    row.map_or("y".into(), |row| format!("y[{row}]"))
}

/// A refused argument. Nothing has been computed or written when one of these comes back, unless
/// its text says so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of widths does not describe a network.
    #[error("widths: expected at least an input and an output width, all of them positive; found {found:?}")]
    Widths {
        /// The list as given, input and output included.
        found: Vec<usize>,
    },
    /// Parameters that do not fit into memory.
    #[error("widths: expected parameters that fit into memory, found {found:?}, which asks for {} of them", Number(*.parameters))]
    TooLarge {
        /// The list as given, input and output included.
        found: Vec<usize>,
        /// How many parameters the network would have, to the digits of an `f64`.
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
    /// Two arguments that go sample by sample have different numbers of samples.
    #[error("{what}: expected {}, one for each row of x; found {found}", counted(*.expected, "sample"))]
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
        "the rest of the epoch: expected {} to train on in {}, as it began with, found {} in {}",
        counted(.expected.0, "sample"), counted(.expected.1, "row"), .found.0, .found.1
    )]
    Rest {
        /// Samples trained on, and rows of x, at the beginning of the epoch.
        expected: (usize, usize),
        /// The same now.
        found: (usize, usize),
    },
    /// A split that leaves nothing to train on.
    #[error("validation_fraction: expected a part of {} that leaves some to train on, found {kept}", counted(*.samples, "sample"))]
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
    #[error("{what}{}: expected a finite number, found {}", place(*.row, *.column), Number(*.found))]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Sample, counted from 0; none where there is but one, or where all of a column are meant.
        row: Option<usize>,
        /// Column, counted from 0.
        column: usize,
        /// The value.
        found: f64,
    },
    /// A finite number that the standardisation of the model takes out of the range of the
    /// network's type.
    #[error(
        "x[{row}, {column}]: expected a number that is finite when it is standardised, found {}, which becomes {}",
        Number(*.found), Number(*.becomes)
    )]
    Standardized {
        /// Sample, counted from 0.
        row: usize,
        /// Column, counted from 0.
        column: usize,
        /// The number of x.
        found: f64,
        /// What standardisation makes of it.
        becomes: f64,
    },
    /// An output that is NaN or infinite although the inputs are finite: the parameters are not
    /// finite, or too large for the network's type.
    #[error("ŷ{}: expected a finite number, found {}", place(*.row, *.output), Number(*.found))]
    Output {
        /// Sample, counted from 0; none where there is but one.
        row: Option<usize>,
        /// Which output, counted from 0.
        output: usize,
        /// Its value.
        found: f64,
    },
    /// A class label that no output stands for.
    #[error("{}: expected a label below {classes}, found {found}", target(*.row))]
    Label {
        /// Sample, counted from 0; none where there is but one.
        row: Option<usize>,
        /// Number of classes: the network's outputs.
        classes: usize,
        /// The label.
        found: usize,
    },
    /// A target that the loss is not defined for.
    #[error("{}: expected {expected}, found {}", target(*.row), Number(*.found))]
    Target {
        /// Sample, counted from 0; none where there is but one.
        row: Option<usize>,
        /// What the loss takes.
        expected: &'static str,
        /// The target.
        found: f64,
    },
    /// A sample's weight that is no weight.
    #[error("weights[{row}]: expected a finite number from 0, found {}", Number(*.found))]
    Weight {
        /// Sample, counted from 0.
        row: usize,
        /// The weight.
        found: f64,
    },
    /// A loss and a network whose numbers of outputs do not fit.
    #[error("loss: expected a network with {expected}, found {}", counted(*.found, "output"))]
    Outputs {
        /// What the loss asks of the network.
        expected: &'static str,
        /// The network's outputs.
        found: usize,
    },
    /// A call that gives one number a sample, of a network that has more.
    #[error("expected a network with 1 output, found {}", counted(*.found, "output"))]
    OneOutput {
        /// The network's outputs.
        found: usize,
    },
    /// A number that steers the training is out of its range.
    #[error("{name}: expected {expected}, found {}", Number(*.found))]
    Hyperparameter {
        /// Which number.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value.
        found: f64,
    },
    /// The loss of a step was NaN or infinite, or the parameters after it would be. The steps
    /// before it have been made, and the parameters are as they were before it.
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
        /// Its epoch, over the life of the trainer, and its batch in that epoch, both from 1; none
        /// for a step by itself.
        at: Option<(usize, usize)>,
        /// Its value; of the parameters the first that is not finite.
        found: f64,
        /// The mean loss of the last step before this one, if there was one.
        last: Option<f64>,
    },
    /// A quantity that the measures of sharpness start from, or meet, is no number of the network's
    /// type.
    #[error("{what} at {at}: expected a finite number, found {found}")]
    Undefined {
        /// Which quantity.
        what: &'static str,
        /// Where it was met.
        at: &'static str,
        /// Its value.
        found: f64,
    },
    /// The product of an operator and a vector has a NaN, an infinity, or a number so large that
    /// sums overflow.
    #[error(
        "product {product} of the operator: expected numbers whose sums are finite, found {} in component {component}",
        Number(*.found)
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
    /// A serial build of OpenBLAS that may have no locks: calls from several threads would
    /// overwrite one another's operands.
    #[error(
        "OpenBLAS ({config}): expected a build that several threads can call, found a serial one that does not say USE_LOCKING; \
         use a pthread build, or a serial one from 0.3.28 on made with USE_LOCKING=1"
    )]
    BlasLocking {
        /// What `openblas_get_config` says.
        config: String,
    },
    /// An OpenBLAS that takes 64-bit integers under the names of the usual interface, whose
    /// integers have 32 bits.
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

impl Error {
    /// The same of a call that takes one sample, which has no row.
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

/// Result of a call that may refuse its arguments.
pub type Result<T> = std::result::Result<T, Error>;
