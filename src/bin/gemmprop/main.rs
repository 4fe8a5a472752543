//! The program `gemmprop`: trains networks on files, predicts with them, and measures and shows
//! them; see `--help`. It uses the library as any other program does.

#![warn(clippy::too_many_lines)]

mod arguments;
mod evaluate;
mod export;
mod figures;
mod guess;
mod help;
mod inputs;
mod inspect;
mod keeper;
mod memory;
mod message;
mod network;
mod new_folder;
mod origin;
mod output;
#[allow(dead_code, unreachable_pub, reason = "the benches draw with it too, and use all of it")]
mod plot;
mod predict;
mod predicted;
mod progress;
mod reading;
mod rows;
mod samples;
mod scale;
mod score;
mod signals;
mod table;
mod task;
mod train;
mod training_source;
mod values;
mod writing;

use std::process::ExitCode;

use crate::arguments::{Cli, Command};
use crate::message::{be_quiet, chain, warn};

fn main() -> ExitCode {
    let Cli { command, quiet, json } = Cli::read();
    if quiet {
        be_quiet();
    }
    let done = |()| ExitCode::SUCCESS;
    let ended = match &command {
        Command::Train(arguments) => train::train(arguments, json),
        Command::Predict(arguments) => predict::predict(arguments, json).map(done),
        Command::Evaluate(arguments) => evaluate::evaluate(arguments, json).map(done),
        Command::Inspect(arguments) => inspect::inspect(arguments, json).map(done),
        Command::Export(arguments) => export::export(arguments, json).map(done),
    };
    ended.unwrap_or_else(|error| {
        warn(format!("error: {}", chain(&*error)));
        ExitCode::FAILURE
    })
}
