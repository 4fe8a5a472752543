//! How good predictions are: one number for the progress of a run, and all of them for `evaluate`.

use std::fmt::{self, Display};

use gemmprop::{Generator, Model};
use ndarray::{Array2, ArrayView1};
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::inputs::parts;
use crate::message::Result;
use crate::predicted::{Predicted, predicted};
use crate::task::{Target, Task, Validation};

/// The quality of predictions in one number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Score {
    Accuracy(f64),
    Rmse(f64),
}

impl Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Accuracy(share) => write!(f, "accuracy {share:.4}"),
            Self::Rmse(error) => write!(f, "RMSE {}", five_digits(*error)),
        }
    }
}

/// A number with five digits, whatever its unit.
pub(crate) fn five_digits(number: f64) -> String {
    if number.abs() < 1e16 {
        format!("{number:.*}", (4.0 - number.abs().log10().floor()).clamp(0.0, 12.0) as usize)
    } else {
        format!("{number:.4e}")
    }
}

/// A score that is added up part by part.
#[derive(Debug, Default)]
pub(crate) struct Scorer {
    /// Predictions, or numbers of them.
    count: usize,
    right: usize,
    /// The sum of the squared errors; none for classes.
    squares: Option<f64>,
}

impl Scorer {
    /// Adds predictions with the answers y.
    pub(crate) fn add(&mut self, predicted: &Predicted, y: &Target) -> Result {
        match predicted {
            Predicted::Classes(classes) => {
                self.right += classes.iter().zip(&y.labels()).filter(|((class, _), label)| class == *label).count();
                self.count += classes.len();
            }
            Predicted::Numbers(y_hat) => {
                let y = numbers_like(y_hat, y)?;
                *self.squares.get_or_insert(0.0) += (y_hat - y).mapv(|error| error * error).sum();
                self.count += y_hat.len();
            }
        }
        Ok(())
    }

    /// The score; none if there are no predictions.
    pub(crate) fn score(&self) -> Option<Score> {
        let count = Some(self.count as f64).filter(|&count| count > 0.0)?;
        Some(match self.squares {
            Some(squares) => Score::Rmse((squares / count).sqrt()),
            None => Score::Accuracy(self.right as f64 / count),
        })
    }
}

fn numbers_like(y_hat: &Array2<f64>, y: &Target) -> Result<Array2<f64>> {
    let y = y.numbers();
    if y.dim() != y_hat.dim() {
        return Err(format!("targets: expected shape {:?}, found {:?}", y_hat.shape(), y.shape()).into());
    }
    Ok(y)
}

/// The score of a validation set; none for a network whose outputs are not finite.
pub(crate) fn validated(task: &Task, model: &Model<f32>, validation: Validation) -> Option<Score> {
    let (mut scorer, samples) = (Scorer::default(), validation.samples);
    for part in parts(validation.len(), samples.x.columns()) {
        let rows = validation.part(part);
        let predicted = predicted(task, model, samples.x.part(&rows).ok()?.view()).ok()?;
        scorer.add(&predicted, &samples.y.select(&rows)).ok()?;
    }
    scorer.score()
}

/// Number of bootstrap samples.
const RESAMPLES: usize = 1000;

/// A measure, and the interval that has 95 % of its bootstrap samples inside; each is null where it
/// is not defined.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Estimate {
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<[f64; 2]>,
}

/// The quality of predicted classes.
#[derive(Debug, Serialize)]
pub(crate) struct ClassQuality {
    pub(crate) samples: usize,
    pub(crate) accuracy: Estimate,
    pub(crate) classes: Vec<OfClass>,
    /// The number of samples of each class (rows) that were taken for each class (columns).
    pub(crate) confusion: Vec<Vec<usize>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct OfClass {
    pub(crate) class: String,
    pub(crate) samples: usize,
    pub(crate) predicted: usize,
    /// Undefined where no sample was predicted to be of the class, or none is.
    pub(crate) precision: Option<f64>,
    pub(crate) recall: Option<f64>,
}

/// The quality of one predicted number.
#[derive(Debug, Serialize)]
pub(crate) struct NumberQuality {
    pub(crate) target: String,
    pub(crate) samples: usize,
    /// Undefined where all answers are equal.
    pub(crate) r2: Estimate,
    pub(crate) mae: Estimate,
    pub(crate) rmse: Estimate,
}

/// The quality of what was predicted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quality {
    Classes(ClassQuality),
    Numbers(Vec<NumberQuality>),
}

/// All measures of predictions with the answers y.
pub(crate) fn quality(task: &Task, predicted: &Predicted, y: &Target) -> Result<Quality> {
    match predicted {
        Predicted::Classes(classes) => {
            let pairs: Vec<(usize, usize)> =
                y.labels().iter().copied().zip(classes.iter().map(|&(class, _)| class)).collect();
            Ok(Quality::Classes(of_classes(&task.classes, &pairs)))
        }
        Predicted::Numbers(y_hat) => {
            let y = numbers_like(y_hat, y)?;
            let names = task.outputs(y_hat.ncols()).into_iter();
            let columns = names.zip(y.columns()).zip(y_hat.columns());
            Ok(Quality::Numbers(columns.map(|((name, y), y_hat)| of_numbers(name, y, y_hat)).collect()))
        }
    }
}

/// Of pairs of the true and the predicted class.
fn of_classes(names: &[String], pairs: &[(usize, usize)]) -> ClassQuality {
    let mut confusion = vec![vec![0; names.len()]; names.len()];
    pairs.iter().for_each(|&(class, taken_for)| confusion[class][taken_for] += 1);
    let classes = names.iter().enumerate().map(|(i, class)| {
        let (samples, right) = (confusion[i].iter().sum(), confusion[i][i]);
        let predicted = confusion.iter().map(|row| row[i]).sum();
        let share = |of: usize| (of > 0).then(|| right as f64 / of as f64);
        OfClass { class: class.clone(), samples, predicted, precision: share(predicted), recall: share(samples) }
    });
    let right: Vec<f64> = pairs.iter().map(|(class, taken_for)| f64::from(u8::from(class == taken_for))).collect();
    let mean = |rows: &mut dyn Iterator<Item = usize>| [mean(rows.map(|row| right[row]))];
    let [accuracy] = estimates(right.len(), mean);
    ClassQuality { samples: pairs.len(), accuracy, classes: classes.collect(), confusion }
}

fn of_numbers(target: String, y: ArrayView1<f64>, y_hat: ArrayView1<f64>) -> NumberQuality {
    let errors: Vec<f64> = y_hat.iter().zip(y).map(|(y_hat, y)| y_hat - y).collect();
    // Around the mean, so that the sums below lose no digits.
    let centre = y.mean().unwrap_or(0.0);
    let centred: Vec<f64> = y.iter().map(|y| y - centre).collect();
    let [r2, mae, rmse] = estimates(y.len(), |rows| {
        let (mut n, mut squares, mut absolute, mut sum, mut total) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for row in rows {
            let (error, y) = (errors[row], centred[row]);
            n += 1.0;
            squares += error * error;
            absolute += error.abs();
            sum += y;
            total += y * y;
        }
        let spread = total - sum * (sum / n);
        // What is left of equal answers is rounding.
        let varies = spread > total * f64::EPSILON * n;
        [varies.then(|| 1.0 - squares / spread), Some(absolute / n), Some((squares / n).sqrt())]
    });
    NumberQuality { target, samples: y.len(), r2, mae, rmse }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Measures of all rows, and of bootstrap samples: as many rows, drawn with replacement. The draws
/// are the same in every call.
fn estimates<const N: usize>(
    rows: usize,
    measures: impl Fn(&mut dyn Iterator<Item = usize>) -> [Option<f64>; N],
) -> [Estimate; N] {
    let values = measures(&mut (0..rows));
    let mut generator = Generator::seed_from_u64(0);
    let drawn: Vec<[Option<f64>; N]> =
        (0..RESAMPLES).map(|_| measures(&mut (0..rows).map(|_| generator.random_range(0..rows)))).collect();
    std::array::from_fn(|i| {
        let mut defined: Vec<f64> = drawn.iter().filter_map(|measures| measures[i]).collect();
        defined.sort_by(f64::total_cmp);
        let interval = values[i].and(quantile(&defined, 0.025).zip(quantile(&defined, 0.975)));
        Estimate { value: values[i], interval: interval.map(|(low, high)| [low, high]) }
    })
}

/// The quantile of sorted values, between two of them in proportion.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}
