//! The command `predict`.

use std::io::{self, Write};

use ndarray::Array1;
use ndarray_npy::WriteNpyExt;
use serde_json::{Map, Value};

use crate::arguments::Predict;
use crate::message::{Result, counted, print, say};
use crate::network::network;
use crate::output::{check_output, replace};
use crate::predicted::{Predicted, of_file};
use crate::scale::check_columns;
use crate::score::score;
use crate::task::{Asked, Task};

pub(crate) fn predict(arguments: &Predict, json: bool) -> Result {
    let Predict { checkpoint, source, output } = arguments;
    if let Some(path) = output {
        check_output(path, &[&source.data, &source.csv, &Some(checkpoint.clone())])?;
    }
    let (task, model) = network(checkpoint)?;
    let Asked { x, known, origin } = task.asked(source)?;
    check_columns(&origin, model.mlp.widths()[0], x.ncols())?;
    let predicted = of_file(&task, &model, x.view(), &origin)?;
    if let Some(path) = output {
        let csv = path.extension().is_some_and(|ending| ending == "csv");
        replace(path, &if csv { csv_bytes(&task, &predicted)? } else { npy_bytes(&task, &predicted)? })?;
    }
    if json {
        print(|stdout| write_json(&task, &predicted, stdout))?;
    } else if output.is_none() {
        print(|stdout| write_csv(&task, &predicted, stdout))?;
    }
    let Some((known, y)) = known else { return Ok(()) };
    let rows = counted(x.nrows(), "sample");
    match score(&predicted.select(&known), &y)? {
        Some(score) if known.len() == x.nrows() => say(format!("{score} of {rows}")),
        Some(score) => {
            let known = counted(known.len(), "sample");
            say(format!("{score} of {known}; of {}, the others have no known answer", x.nrows()));
        }
        None => say(format!("0 of {rows} scored, as none has a known answer")),
    }
    Ok(())
}

fn csv_bytes(task: &Task, predicted: &Predicted) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_csv(task, predicted, &mut bytes)?;
    Ok(bytes)
}

fn npy_bytes(task: &Task, predicted: &Predicted) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match predicted {
        Predicted::Classes(classes) => {
            let own: Vec<Option<i64>> = task.classes.iter().map(|name| name.parse().ok()).collect();
            let own = own.into_iter().collect::<Option<Vec<i64>>>();
            let label = |&(class, _): &(usize, f32)| own.as_ref().map_or(class as i64, |own| own[class]);
            classes.iter().map(label).collect::<Array1<i64>>().write_npy(&mut bytes)?;
        }
        Predicted::Numbers(y_hat) => y_hat.write_npy(&mut bytes)?,
    }
    Ok(bytes)
}

/// The shortest text of the number: as an f32 if it is one, as the network's outputs are.
fn text(number: f64) -> String {
    let single = number as f32;
    if f64::from(single) == number { single.to_string() } else { number.to_string() }
}

fn write_csv(task: &Task, predicted: &Predicted, to: impl Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    let written = match predicted {
        Predicted::Classes(classes) => {
            let mut rows = classes.iter().map(|&(class, probability)| [task.class(class), probability.to_string()]);
            let header = [task.target.as_deref().unwrap_or("class"), "probability"];
            writer.write_record(header).and_then(|()| rows.try_for_each(|row| writer.write_record(row)))
        }
        Predicted::Numbers(y_hat) => {
            let mut rows = y_hat.outer_iter();
            writer
                .write_record(task.outputs(y_hat.ncols()))
                .and_then(|()| rows.try_for_each(|row| writer.write_record(row.iter().copied().map(text))))
        }
    };
    match written.map_err(csv::Error::into_kind) {
        Ok(()) => writer.flush(),
        Err(csv::ErrorKind::Io(error)) => Err(error),
        Err(other) => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// An object for each sample, with the names of the CSV's columns.
fn write_json(task: &Task, predicted: &Predicted, to: &mut dyn Write) -> io::Result<()> {
    let mut write = |object: Map<String, Value>| writeln!(to, "{}", Value::Object(object));
    match predicted {
        Predicted::Classes(classes) => classes.iter().try_for_each(|&(class, probability)| {
            let name = task.target.clone().unwrap_or_else(|| "class".to_owned());
            // By way of its text, which has the digits of an f32 and not those of its f64.
            let probability = probability.to_string().parse::<f64>().map_err(io::Error::other)?;
            write(
                [("probability".to_owned(), probability.into()), (name, task.class(class).into())]
                    .into_iter()
                    .collect(),
            )
        }),
        Predicted::Numbers(y_hat) => y_hat.outer_iter().try_for_each(|row| {
            let values = task.outputs(row.len()).into_iter().zip(row.iter().map(|&y| y.into()));
            write(values.collect())
        }),
    }
}
