//! What `--help` says at the head of each command.

/// Shown by both `-h` and `--help`.
pub(crate) const ABOUT: &str = "\
Trains fully connected ReLU networks on your data, and predicts with them.

Learn the species of flowers from a table, name flowers with the network, and see how good it is:

  gemmprop train --csv flowers.csv --target species --checkpoint run
  gemmprop predict --checkpoint run --csv flowers.csv
  gemmprop evaluate --checkpoint run --csv flowers.csv

`gemmprop help train` lists what can be set, and every setting has a default that learns well on most data.

Exit codes: 0 success, 1 an error, 2 wrong flags, 128 plus the signal's number if a signal stopped the run (130: Ctrl-C, \
143: SIGTERM, 129: SIGHUP).";

pub(crate) const ABOUT_TRAIN: &str = "\
Learns from data, and saves the network:

  gemmprop train --csv flowers.csv --target species --checkpoint run

Every setting has a default that learns well on most data. Ctrl-C, SIGTERM and SIGHUP stop the run after the current \
batch and keep a checkpoint; a second signal ends it at once. --resume continues from the checkpoint and ends with exactly \
the numbers of a run that was never stopped. Each file is opened once, so it may be a pipe, or /dev/stdin, except those \
that are too large for --memory: their samples are read from disk as they are needed, and by default shuffled in blocks, \
which a line says. All else is the same, to the last bit. Tables are always read into memory.

Texts are learned as classes, and so are whole numbers with at most 20 different values, if each value occurs at least \
twice on average. Other numbers are learned as numbers. --loss overrides this.";

pub(crate) const ABOUT_PREDICT: &str = "\
Predicts with a network that was trained before:

  gemmprop predict --checkpoint run --csv flowers.csv

Writes a line for each sample: the class and its probability, or the number. If the data also have the answers (the \
target's column, or labels), it reports how good the predictions are on the rows with a valid answer. Arrays and images \
are read and predictions written a part at a time, so files may be larger than memory; an error in a later part leaves no \
--output file, but standard output has the lines before it. Tables, pipes and compressed files are read into memory. For a run with \
--early-stopping it uses the network of the best epoch, even while the run continues or after it was stopped.";

pub(crate) const ABOUT_EVALUATE: &str = "\
Measures the predictions of a network on data that have the answers:

  gemmprop evaluate --checkpoint run --csv flowers.csv --plot confusion.svg

For classes: the accuracy, and how often each class was taken for each other. Of the samples that were predicted to be \
of a class, its precision is the part that is; of those that are, its recall is the part that was found. For numbers, \
with e the errors: MAE is the mean of |e|, RMSE the root of the mean of e^2, and R^2 = 1 - (sum of e^2) / (sum of squared \
distances from the mean), which is 1 for perfect predictions and 0 for the mean. The intervals have 95 % of 1000 \
bootstrap samples (drawn from the rows with replacement) inside. Inputs in arrays and images are read a part at a time; \
answers and predictions stay in memory.";

pub(crate) const ABOUT_INSPECT: &str = "\
Shows what a checkpoint has: its layers with their shapes and norms, what it has learned from and how, and the epochs.

  gemmprop inspect --checkpoint run";

pub(crate) const ABOUT_EXPORT: &str = "\
Writes the network of a checkpoint for other programs:

  gemmprop export --checkpoint run --onnx flowers.onnx

The ONNX file standardises its inputs itself, and gives probabilities of classes, or numbers on the scale of the target. \
Its inputs are numbers: where the run made several of one column of texts (--one-hot) or put means in the place of missing \
values, the caller does that. The command lists the inputs in their order.";
