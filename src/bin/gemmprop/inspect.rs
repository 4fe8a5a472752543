//! The command `inspect`.

use std::io::{self, Write};

use gemmprop::checkpoint::{Saved, Stored};
use gemmprop::{History, Logistic, Loss, Model, Scalar, SoftmaxCrossEntropy, SquaredError, Trainer, TrainingSettings};
use serde::Serialize;

use crate::arguments::Inspect;
use crate::message::{Result, counted, print, print_json, quoted, short};
use crate::network::{TASK, read};
use crate::task::Task;
use crate::train::best;

/// What a checkpoint has.
#[derive(Debug, Serialize)]
struct Contents {
    file: String,
    version: String,
    blas: String,
    number: &'static str,
    products: String,
    bias: String,
    widths: Vec<usize>,
    parameters: usize,
    layers: Vec<Layer>,
    /// Where the run stands; absent for a loss that is not one of the crate's.
    run: Option<RunState>,
    /// What the program has noted of its data; absent in checkpoints of other programs.
    task: Option<Task>,
}

/// A layer's shapes and Euclidean norms.
#[derive(Debug, Serialize)]
struct Layer {
    weight: [usize; 2],
    weight_norm: f64,
    bias: usize,
    bias_norm: f64,
}

#[derive(Debug, Serialize)]
struct RunState {
    loss: String,
    steps: u64,
    training: TrainingSettings,
    history: History,
}

pub(crate) fn inspect(arguments: &Inspect, json: bool) -> Result {
    let stored = read(&arguments.checkpoint)?;
    // The type of its numbers is found by reading them.
    let contents = match stored.value.model::<f32>() {
        Ok(model) => contents(&stored, &model, "f32")?,
        Err(error) => match stored.value.model::<f64>() {
            Ok(model) => contents(&stored, &model, "f64")?,
            Err(_) => return Err(error.into()),
        },
    };
    if json { print_json(&contents) } else { print(|stdout| contents.write(stdout)) }
}

fn contents<F: Scalar>(stored: &Saved<Stored>, model: &Model<F>, number: &'static str) -> Result<Contents> {
    let task = stored.notes.get(TASK).map(|note| serde_json::from_str(note)).transpose()?;
    let norm = |numbers: &mut dyn Iterator<Item = &F>| {
        numbers.map(|&number| number.to_f64() * number.to_f64()).sum::<f64>().sqrt()
    };
    let theta = model.mlp.parameters();
    let layers = theta.layers().map(|(w, c)| Layer {
        weight: [w.nrows(), w.ncols()],
        weight_norm: norm(&mut w.iter()),
        bias: c.len(),
        bias_norm: norm(&mut c.iter()),
    });
    let run = run_state::<F, _>(&stored.value, SoftmaxCrossEntropy)
        .or_else(|| run_state::<F, _>(&stored.value, SquaredError))
        .or_else(|| run_state::<F, _>(&stored.value, Logistic));
    Ok(Contents {
        file: stored.path.display().to_string(),
        version: stored.version.clone(),
        blas: stored.blas.clone(),
        number,
        products: model.mlp.products().to_string(),
        bias: model.mlp.bias().to_string(),
        widths: model.mlp.widths().to_vec(),
        parameters: theta.count(),
        layers: layers.collect(),
        run,
        task,
    })
}

/// Where the run stands, if this is its loss.
fn run_state<F: Scalar, L: Loss<F>>(stored: &Stored, loss: L) -> Option<RunState> {
    let name = loss.name().into_owned();
    let trainer: Trainer<F, L> = stored.trainer(loss).ok()?;
    let (steps, training, history) = (trainer.steps(), trainer.training().clone(), trainer.history().clone());
    Some(RunState { loss: name, steps, training, history })
}

impl Contents {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let widths: Vec<String> = self.widths.iter().map(usize::to_string).collect();
        writeln!(to, "{}\nwritten by gemmprop {} with {}", self.file, self.version, self.blas)?;
        writeln!(
            to,
            "\nnetwork {}, {} in {}; bias: {}; products: {}",
            widths.join("-"),
            counted(self.parameters, "parameter"),
            self.number,
            self.bias,
            self.products
        )?;
        for (i, layer) in self.layers.iter().enumerate() {
            let [rows, columns] = layer.weight;
            write!(to, "  layer {i}: weights {rows} x {columns}, norm {:.4}", layer.weight_norm)?;
            match layer.bias {
                0 => writeln!(to, "; no bias")?,
                length => writeln!(to, "; bias {length}, norm {:.4}", layer.bias_norm)?,
            }
        }
        if let Some(task) = &self.task {
            write_task(task, to)?;
        }
        self.run.as_ref().map_or(Ok(()), |run| run.write(to))
    }
}

fn write_task(task: &Task, to: &mut dyn Write) -> io::Result<()> {
    let target = task.target.as_ref().map_or("the targets".to_owned(), |target| format!("{target:?}"));
    writeln!(to, "\nlearns {target} by {} loss", format!("{:?}", task.loss).to_lowercase())?;
    if !task.classes.is_empty() {
        let weights = if task.balanced { ", each of which counts alike" } else { "" };
        writeln!(to, "  classes{weights}: {}", quoted(&task.classes))?;
    }
    for line in task.table_inputs().described() {
        writeln!(to, "  {line}")?;
    }
    let standardized = task.inputs.as_ref().is_some_and(|scales| !scales.is_empty());
    writeln!(to, "  inputs are {}standardised", if standardized { "" } else { "not " })?;
    task.validation.map_or(Ok(()), |part| writeln!(to, "  {part} of the samples validate"))
}

impl RunState {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let Self { loss, steps, training, history } = self;
        writeln!(to, "\ntraining by {loss}: {}", counted(*steps as usize, "step"))?;
        let settings = serde_json::to_value(training).map_err(io::Error::other)?;
        for (name, value) in settings.as_object().into_iter().flatten() {
            // Nothing is said of what was not asked for. The program standardises the data itself,
            // which the lines above say.
            if !(value.is_null() || name == "standardize" && value == false) {
                writeln!(to, "  {name}: {value}")?;
            }
        }
        let records = &history.records;
        writeln!(to, "\nhistory: {} of {}", counted(records.len(), "epoch"), training.epochs)?;
        let shown = [("first", records.first()), ("best", best(history)), ("last", records.last())];
        for (what, record) in shown.into_iter().filter_map(|(what, record)| Some((what, record?))) {
            let validation = record.validation_loss.map(|loss| format!(", validation loss {}", short(loss)));
            let (epoch, loss) = (record.epoch, short(record.loss));
            writeln!(to, "  {what}: epoch {epoch}, loss {loss}{}", validation.unwrap_or_default())?;
        }
        Ok(())
    }
}
