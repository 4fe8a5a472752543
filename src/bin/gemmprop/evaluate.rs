//! The command `evaluate`.

use std::io::{self, Write};

use crate::arguments::{Cli, Evaluate};
use crate::figures::{draw_confusion, draw_numbers};
use crate::message::{Result, counted, print, print_json};
use crate::network::network;
use crate::output::check_output;
use crate::predicted::{Predicted, of_file};
use crate::scale::check_columns;
use crate::score::{ClassQuality, Estimate, NumberQuality, Quality, five_digits, quality};

pub(crate) fn evaluate(arguments: &Evaluate, json: bool) -> Result {
    let Evaluate { checkpoint, source, targets, plot } = arguments;
    if source.data.is_some() && targets.is_none() {
        Cli::lacks("evaluate", "--data needs --targets Y.npy, the answers to compare with");
    }
    if let Some(path) = plot {
        check_output(path, &[&source.data, &source.csv, targets, &Some(checkpoint.clone())])?;
    }
    let (task, model) = network(checkpoint)?;
    let (rows, y) = task.answered(source, targets.as_deref())?;
    check_columns(&rows.origin, model.mlp.widths()[0], rows.x.columns())?;
    let mut predicted: Option<Predicted> = None;
    of_file(&task, &model, &rows, |_, more| {
        match &mut predicted {
            Some(predicted) => predicted.append(more),
            None => predicted = Some(more),
        }
        Ok(())
    })?;
    let predicted = predicted.expect("there is a part, if an empty one");
    let quality = quality(&task, &predicted, &y)?;
    if let Some(path) = plot {
        match (&quality, &predicted) {
            (Quality::Classes(quality), _) => draw_confusion(path, &task, quality)?,
            (_, Predicted::Numbers(y_hat)) => draw_numbers(path, &task, &y.numbers(), y_hat.view())?,
            (Quality::Numbers(_), Predicted::Classes(_)) => unreachable!("numbers are measured as numbers"),
        }
    }
    if json {
        return print_json(&quality);
    }
    print(|stdout| match &quality {
        Quality::Classes(quality) => write_classes(quality, stdout),
        Quality::Numbers(all) => all.iter().try_for_each(|quality| write_numbers(quality, stdout)),
    })
}

/// A measure with its interval.
fn estimate(estimate: &Estimate, digits: impl Fn(f64) -> String) -> String {
    let value = estimate.value.map_or("undefined".to_owned(), &digits);
    let interval = estimate.interval.map(|[low, high]| format!(" (95 %: {} to {})", digits(low), digits(high)));
    value + &interval.unwrap_or_default()
}

fn four_decimals(number: f64) -> String {
    format!("{number:.4}")
}

fn write_classes(quality: &ClassQuality, to: &mut dyn Write) -> io::Result<()> {
    let samples = counted(quality.samples, "sample");
    writeln!(to, "accuracy {} of {samples}\n", estimate(&quality.accuracy, four_decimals))?;
    let share = |share: Option<f64>| share.map_or("undefined".to_owned(), four_decimals);
    let header = ["class", "samples", "predicted", "precision", "recall"].map(str::to_owned);
    let rows = quality.classes.iter().map(|class| {
        let (samples, predicted) = (class.samples.to_string(), class.predicted.to_string());
        vec![class.class.clone(), samples, predicted, share(class.precision), share(class.recall)]
    });
    write_table(to, [header.to_vec()].into_iter().chain(rows).collect())?;
    writeln!(to, "\nconfusion: rows are true classes, columns predicted ones")?;
    let names = || quality.classes.iter().map(|class| class.class.clone());
    let header: Vec<String> = [String::new()].into_iter().chain(names()).collect();
    let rows = names()
        .zip(&quality.confusion)
        .map(|(name, counts)| [name].into_iter().chain(counts.iter().map(usize::to_string)).collect());
    write_table(to, [header].into_iter().chain(rows).collect())
}

fn write_numbers(quality: &NumberQuality, to: &mut dyn Write) -> io::Result<()> {
    let NumberQuality { target, samples, r2, mae, rmse } = quality;
    writeln!(to, "{target}, {}", counted(*samples, "sample"))?;
    writeln!(to, "  R^2  {}", estimate(r2, four_decimals))?;
    writeln!(to, "  MAE  {}", estimate(mae, five_digits))?;
    writeln!(to, "  RMSE {}", estimate(rmse, five_digits))
}

/// Rows in columns: the first of texts, to the left; the others of numbers, to the right.
fn write_table(to: &mut dyn Write, rows: Vec<Vec<String>>) -> io::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns).map(|i| rows.iter().map(|row| length(&row[i])).max().unwrap_or(0)).collect();
    for row in &rows {
        let fields = row.iter().zip(&widths).enumerate().map(|(i, (field, &width))| match i {
            0 => format!("{field:<width$}"),
            _ => format!("{field:>width$}"),
        });
        writeln!(to, "{}", fields.collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}
