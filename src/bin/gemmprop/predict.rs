//! The command `predict`.

use std::fs::File;

use crate::arguments::Predict;
use crate::message::{Result, counted, say, stdout};
use crate::network::network;
use crate::output::{Partial, check_output};
use crate::predicted::of_file;
use crate::scale::check_columns;
use crate::score::Scorer;
use crate::task::{Asked, Task};
use crate::writing::{CsvWriter, JsonWriter, NpyWriter, PredictionWriter};

pub(crate) fn predict(arguments: &Predict, json: bool) -> Result {
    let Predict { checkpoint, source, output } = arguments;
    if let Some(path) = output {
        check_output(path, &[&source.data, &source.csv, &Some(checkpoint.clone())])?;
    }
    let (task, model) = network(checkpoint)?;
    let Asked { rows, known } = task.asked(source)?;
    check_columns(&rows.origin, model.mlp.widths()[0], rows.x.columns())?;
    let count = rows.x.rows();

    let partial = output.as_deref().map(Partial::new).transpose()?;
    let mut to_file = partial.as_ref().map(|partial| file_writer(&task, partial, count));
    let mut to_stdout: Option<Box<dyn PredictionWriter>> = match (json, output) {
        (true, _) => Some(Box::new(JsonWriter::new(&task, stdout()))),
        (false, None) => Some(Box::new(CsvWriter::new(&task, stdout()))),
        (false, Some(_)) => None,
    };
    let mut scorer = Scorer::default();
    of_file(&task, &model, &rows, |part, predicted| {
        if let (Some(to), Some(partial)) = (&mut to_file, &partial) {
            to.write(&predicted).map_err(|error| partial.error(error))?;
        }
        to_stdout.as_mut().map_or(Ok(()), |to| to.write(&predicted))?;
        if let Some((known, y)) = &known {
            let of_part = known.partition_point(|&row| row < part.start)..known.partition_point(|&row| row < part.end);
            let rows: Vec<usize> = known[of_part.clone()].iter().map(|row| row - part.start).collect();
            scorer.add(&predicted.select(&rows), &y.select(&of_part.collect::<Vec<_>>()))?;
        }
        Ok(())
    })?;
    to_stdout.as_mut().map_or(Ok(()), |to| to.end())?;
    if let (Some(mut to), Some(partial)) = (to_file, &partial) {
        to.end().map_err(|error| partial.error(error))?;
    }
    partial.map_or(Ok(()), Partial::finish)?;
    if let Some((known, _)) = known {
        report(&scorer, known.len(), count);
    }
    Ok(())
}

/// A writer of the format that the name of the file asks for.
fn file_writer<'a>(task: &'a Task, partial: &'a Partial, rows: usize) -> Box<dyn PredictionWriter + 'a> {
    let file: &File = partial.file();
    match partial.ends_in("csv") {
        true => Box::new(CsvWriter::new(task, file)),
        false => Box::new(NpyWriter::new(task, file, rows)),
    }
}

/// Says how good the predictions of rows with a known answer are.
fn report(scorer: &Scorer, known: usize, rows: usize) {
    let samples = counted(rows, "sample");
    say(match scorer.score() {
        Some(score) if known == rows => format!("{score} of {samples}"),
        Some(score) => {
            format!("{score} of {}; of {rows}, the others have no known answer", counted(known, "sample"))
        }
        None => format!("0 of {samples} scored, as none has a known answer"),
    });
}
