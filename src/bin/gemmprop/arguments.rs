//! The command line.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use gemmprop::{Bias, LearningRate, Optimizer, TrainingSettings};

use crate::help::{ABOUT, ABOUT_EVALUATE, ABOUT_EXPORT, ABOUT_INSPECT, ABOUT_PREDICT, ABOUT_TRAIN};
use crate::values::{
    Biases, ClassWeight, LossKind, Missing, Rule, Schedule, Widths, YesNo, at_least_1, ending, part, positive,
    separator, widths,
};

const DATA: &str = "Data, one of --data, --csv and --idx";
/// Headings of the settings that a checkpoint remembers.
const NETWORK: &str = "Network";
const TRAINING: &str = "Training";
/// Headings of what is written.
const RESULTS: &str = "Results";
const OUTPUT: &str = "Output";

#[derive(Debug, Parser)]
#[command(name = "gemmprop", version, about = ABOUT, long_about = None, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Says nothing but errors and warnings.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    /// Writes the results to standard output as JSON: of `train`, a line for each epoch and one for
    /// the run; of `predict`, a line for each sample; of other commands, one line.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network on data, or resume a run.
    #[command(long_about = ABOUT_TRAIN, arg_required_else_help = true)]
    Train(Box<Train>),
    /// Predict with the network of a checkpoint.
    #[command(long_about = ABOUT_PREDICT)]
    Predict(Predict),
    /// Measure how good the predictions of a network are.
    #[command(long_about = ABOUT_EVALUATE)]
    Evaluate(Evaluate),
    /// Show what a checkpoint has.
    #[command(long_about = ABOUT_INSPECT)]
    Inspect(Inspect),
    /// Write a network for other programs.
    #[command(long_about = ABOUT_EXPORT)]
    Export(Export),
}

/// Where samples come from.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("source").required(true).args(["data", "csv", "idx"])))]
pub(crate) struct Source {
    /// Inputs as a NumPy array, one sample per row.
    #[arg(long, value_name = "X.npy", help_heading = DATA)]
    pub(crate) data: Option<PathBuf>,
    /// A table whose first line has the column names. In training, the inputs are all columns
    /// except the target and those that --drop names; later, the same columns in any order, found
    /// by name, and a column that is not known is refused.
    #[arg(long, value_name = "FILE.csv", help_heading = DATA)]
    pub(crate) csv: Option<PathBuf>,
    /// With --csv: what separates fields: a character, or `tab`. [default: comma, semicolon or tab,
    /// whichever the first lines have]
    #[arg(long, value_name = "CHARACTER", requires = "csv", value_parser = separator, help_heading = DATA)]
    pub(crate) separator: Option<char>,
    /// With --csv: a column to leave out; may be given several times. "" is a column without a
    /// name.
    #[arg(long, value_name = "COLUMN", requires = "csv", help_heading = DATA)]
    pub(crate) drop: Vec<String>,
    /// A folder with images and labels in the format of MNIST, gzipped or not. If it has t10k
    /// files, these are not trained on but used for validation, and `predict` predicts them.
    #[arg(long, value_name = "FOLDER", help_heading = DATA)]
    pub(crate) idx: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) source: Source,
    /// With --data: the targets, a NumPy array. Whole-number types and bool may stand for classes;
    /// floating-point numbers do so only with --loss softmax or logistic.
    #[arg(long, value_name = "Y.npy", requires = "data", help_heading = DATA)]
    pub(crate) targets: Option<PathBuf>,
    /// With --csv: the name of the column to learn.
    #[arg(long, value_name = "COLUMN", requires = "csv", help_heading = DATA)]
    pub(crate) target: Option<String>,
    /// With --csv: a column of texts of which an input is made for each text that it has: 1 where
    /// it stands, otherwise 0. May be given several times. The checkpoint remembers the texts;
    /// others are refused later.
    #[arg(long, value_name = "COLUMN", requires = "csv", conflicts_with = "resume", help_heading = DATA)]
    pub(crate) one_hot: Vec<String>,
    /// With --csv: what is done where a column has no value (an empty field; in a column of numbers
    /// also NA, N/A, NaN, null, none, nil, ?, - and .). The checkpoint remembers the choice and the
    /// means.
    #[arg(long, value_enum, default_value = "refuse", conflicts_with = "resume", help_heading = DATA)]
    pub(crate) missing: Missing,
    /// With --data and --idx: the most memory that samples may take, at 16 bytes for each number,
    /// such as 500MB or 8GiB. Larger files are not read at first but a part at a time, as their
    /// samples are needed; their targets are kept. Compressed files, pipes and arrays in Fortran
    /// order are always read at first. [default: half of what is available]
    #[arg(long, value_name = "SIZE", conflicts_with = "csv", help_heading = DATA)]
    pub(crate) memory: Option<ByteSize>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Number of passes over all samples. [default: about 2000 steps, but at least 20 epochs and at
    /// most 200]
    #[arg(long, value_name = "N", value_parser = at_least_1, help_heading = TRAINING)]
    pub(crate) epochs: Option<usize>,
    /// Saves the run to this folder for `predict` and --resume: after the first step, about every
    /// 10 seconds, and at the end. Only one run at a time can use a folder.
    #[arg(long, value_name = "FOLDER", help_heading = RESULTS)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Resumes the run in --checkpoint. Give the same data again; the only setting that can be
    /// changed is --epochs.
    #[arg(long, requires = "checkpoint", help_heading = RESULTS)]
    pub(crate) resume: bool,
    /// Writes the loss, learning rate and more for each epoch to this file, .csv or .json.
    #[arg(long, value_name = "FILE", value_parser = ending(&["csv", "json"]), help_heading = RESULTS)]
    pub(crate) history: Option<PathBuf>,
    /// Draws the loss over the epochs to this file, .svg or .png.
    #[arg(long, value_name = "FILE", value_parser = ending(&["svg", "png"]), help_heading = RESULTS)]
    pub(crate) plot: Option<PathBuf>,
}

/// The settings that --resume takes from the checkpoint.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Width of each hidden layer; `none` for a linear model. The numbers of inputs and outputs
    /// follow from the data.
    #[arg(long, value_name = "N,N,…", default_value = "128,64", value_parser = widths, help_heading = NETWORK)]
    pub(crate) widths: Widths,
    /// What is minimised, and whether the targets are classes (softmax, logistic) or numbers
    /// (squared). [default: softmax for classes, squared for numbers, by the rule above; the choice
    /// is reported]
    #[arg(long, value_enum, help_heading = NETWORK)]
    pub(crate) loss: Option<LossKind>,
    /// Which hidden layers have a bias; the output layer always has one.
    #[arg(long, value_enum, default_value = "every-layer", help_heading = NETWORK)]
    pub(crate) bias: Biases,
    /// Number of samples per step.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_1, help_heading = TRAINING)]
    pub(crate) batch: usize,
    /// The update rule.
    #[arg(long, value_enum, default_value = "adam", help_heading = TRAINING)]
    pub(crate) optimizer: Rule,
    /// The fraction of the last step's direction that momentum and nesterov keep.
    #[arg(long, value_name = "M", default_value_t = 0.9, help_heading = TRAINING)]
    pub(crate) momentum: f64,
    /// The learning rate. [default: 0.001 for adam, 0.01 for momentum and nesterov, 0.1 for sgd]
    #[arg(long, value_name = "ETA", value_parser = positive, help_heading = TRAINING)]
    pub(crate) rate: Option<f64>,
    /// How the rate changes: constant | cosine (down to 0) | step:N,F (times F every N epochs) |
    /// inverse:P (divided by step^P) | plateau:F,N (times F when more than N epochs in a row bring
    /// nothing better).
    #[arg(long, value_name = "SCHEDULE", default_value = "constant", help_heading = TRAINING)]
    pub(crate) schedule: Schedule,
    /// Number of steps over which the rate grows from 0.
    #[arg(long, value_name = "STEPS", default_value_t = 0, help_heading = TRAINING)]
    pub(crate) warm_up: u64,
    /// Shrinks all parameters by the fraction rate × L in each step.
    #[arg(long, value_name = "L", default_value_t = 0.0, help_heading = TRAINING)]
    pub(crate) weight_decay: f64,
    /// Scales a gradient whose norm is larger than this down to it.
    #[arg(long, value_name = "NORM", value_parser = positive, help_heading = TRAINING)]
    pub(crate) clip: Option<f64>,
    /// How much the samples of a class count: all alike, or such that each class counts alike,
    /// however many samples it has.
    #[arg(long, value_enum, default_value = "none", help_heading = TRAINING)]
    pub(crate) class_weight: ClassWeight,
    /// Seeks flat minima: takes the gradient at this distance uphill, which doubles the cost of a
    /// step.
    #[arg(long, value_name = "RHO", value_parser = positive, help_heading = TRAINING)]
    pub(crate) sam: Option<f64>,
    /// Ends the run after this number of epochs without improvement and keeps the best epoch's
    /// network; if the run is stopped earlier, `predict` uses the best network so far.
    #[arg(long, value_name = "EPOCHS", value_parser = at_least_1, help_heading = TRAINING)]
    pub(crate) early_stopping: Option<usize>,
    /// Holds this part of the samples out of training, for validation: 0.2 is a fifth.
    #[arg(long, value_name = "PART", value_parser = part, help_heading = TRAINING)]
    pub(crate) validation: Option<f64>,
    /// Scales each input column, and numeric targets, to mean 0 and standard deviation 1. The
    /// checkpoint's note `task` has these as [mean, deviation], for use of the network elsewhere.
    /// [default: yes, but no with --idx]
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        help_heading = TRAINING
    )]
    pub(crate) standardize: Option<YesNo>,
    /// Takes the samples in the order of the data in each epoch.
    #[arg(long, help_heading = TRAINING)]
    pub(crate) no_shuffle: bool,
    /// Shuffles blocks of N neighbouring samples, and then the samples of 64 blocks at a time,
    /// which reads files faster that are read a part at a time. Where neighbours are alike, as in
    /// sorted data, take few. [default: all samples are shuffled at once, but those that are read a
    /// part at a time in blocks of 1 MiB]
    #[arg(long, value_name = "N", value_parser = at_least_1, conflicts_with = "no_shuffle", help_heading = TRAINING)]
    pub(crate) shuffle_block: Option<usize>,
    /// Seed of everything random: the initial weights, the shuffles, and the choice of the
    /// validation part.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = TRAINING)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// The folder of the run, of which only the newest checkpoint is used, or a checkpoint file.
    #[arg(long, value_name = "FOLDER or FILE")]
    pub(crate) checkpoint: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    /// With --data: the answers, a NumPy array.
    #[arg(long, value_name = "Y.npy", requires = "data", help_heading = DATA)]
    pub(crate) targets: Option<PathBuf>,
    /// Draws the confusion matrix, or the predicted numbers over the true ones, to this file, .svg
    /// or .png.
    #[arg(long, value_name = "FILE", value_parser = ending(&["svg", "png"]), help_heading = RESULTS)]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The folder of the run, of which only the newest checkpoint is used, or a checkpoint file.
    #[arg(long, value_name = "FOLDER or FILE")]
    pub(crate) checkpoint: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The folder of the run, of which only the newest checkpoint is used, or a checkpoint file.
    #[arg(long, value_name = "FOLDER or FILE")]
    pub(crate) checkpoint: PathBuf,
    /// The file to write, .onnx.
    #[arg(long, value_name = "FILE.onnx", value_parser = ending(&["onnx"]))]
    pub(crate) onnx: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Predict {
    /// The folder of the run, of which only the newest checkpoint is used, or a checkpoint file.
    #[arg(long, value_name = "FOLDER or FILE")]
    pub(crate) checkpoint: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The file to write: .csv, or .npy, which has numbers only: those predicted, or the classes if
    /// all are whole numbers, or else their positions in alphabetical order, from 0. [default: CSV
    /// on standard output]
    #[arg(long, value_name = "FILE", value_parser = ending(&["csv", "npy"]))]
    pub(crate) output: Option<PathBuf>,
}

impl Cli {
    /// Parses the command line; exits with the help or the error message if that is called for.
    pub(crate) fn read() -> Self {
        let matches = Self::whole().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Ends the program as clap does where a command lacks an argument.
    pub(crate) fn lacks(command: &str, what: &str) -> ! {
        let mut whole = Self::whole();
        // The usage of a command has the program's name only then.
        whole.build();
        let command = whole.find_subcommand_mut(command).expect("one of the commands");
        command.error(ErrorKind::MissingRequiredArgument, what).exit()
    }

    fn whole() -> clap::Command {
        Self::command().mut_subcommand("train", |train| {
            train.mut_args(|argument| match argument.get_help_heading() {
                Some(NETWORK | TRAINING) if argument.get_id() != "epochs" => argument.conflicts_with("resume"),
                _ if argument.get_id() == "drop" => argument.conflicts_with("resume"),
                _ => argument,
            })
        })
    }
}

impl Source {
    /// The file or folder of the samples.
    pub(crate) fn path(&self) -> &Path {
        [&self.data, &self.csv, &self.idx].into_iter().find_map(Option::as_deref).expect("one of the three")
    }
}

impl Settings {
    pub(crate) fn training(&self, epochs: usize) -> TrainingSettings {
        let mu = self.momentum;
        let (optimizer, usual) = match self.optimizer {
            Rule::Sgd => (Optimizer::Sgd, 0.1),
            Rule::Momentum => (Optimizer::Momentum { mu }, 0.01),
            Rule::Nesterov => (Optimizer::Nesterov { mu }, 0.01),
            Rule::Adam => (Optimizer::adam(), 0.001),
        };
        let rate = self.rate.unwrap_or(usual);
        let learning_rate = match self.schedule {
            Schedule::Constant => LearningRate::constant(rate),
            Schedule::Cosine => LearningRate::cosine(rate, 0.0),
            Schedule::Step(every, factor) => LearningRate::step(rate, every, factor),
            Schedule::Inverse(power) => LearningRate::inverse_scaling(rate, power),
            Schedule::Plateau(factor, patience) => LearningRate::on_plateau(rate, factor, patience),
        };
        TrainingSettings {
            optimizer,
            learning_rate: learning_rate.warm_up(self.warm_up),
            weight_decay: self.weight_decay,
            decay_biases: true,
            epochs,
            batch: self.batch,
            shuffle: !self.no_shuffle,
            shuffle_block: self.shuffle_block,
            seed: self.seed,
            clip_norm: self.clip,
            sam: self.sam,
            validation_fraction: self.validation,
            early_stopping: self.early_stopping,
            // The program itself standardises what it reads, in double precision.
            standardize: false,
        }
    }

    pub(crate) fn bias(&self) -> Bias {
        match self.bias {
            Biases::Input => Bias::Input,
            Biases::EveryLayer => Bias::EveryLayer,
            Biases::None => Bias::None,
        }
    }
}
