//! Numbers as the network reads and gives them, and back: standardised in double precision, then
//! rounded.

use std::fmt::Display;

use ndarray::Array2;

use crate::message::{Result, counted};
use crate::origin::Origin;
use crate::rows::Rows;
use crate::task::{Scale, Target, Task, scale};

impl Task {
    /// The scales of inputs, none if they stay as they are.
    pub(crate) fn scales(&self) -> &[Scale] {
        self.inputs.as_deref().unwrap_or_default()
    }

    /// Adds numbers to the checksum of a run, before they are standardised.
    pub(crate) fn add_numbers<'x>(&self, crc: &mut crc32fast::Hasher, numbers: impl IntoIterator<Item = &'x f64>) {
        let mut bytes = Vec::new();
        for &number in numbers {
            // Older runs rounded the numbers before taking the checksum.
            match self.inputs {
                None => bytes.extend((number as f32).to_le_bytes()),
                Some(_) => bytes.extend(number.to_le_bytes()),
            }
        }
        crc.update(&bytes);
    }

    pub(crate) fn add_targets(&self, crc: &mut crc32fast::Hasher, y: &Target) {
        match y {
            Target::Labels(y) => y.iter().for_each(|&label| crc.update(&(label as u64).to_le_bytes())),
            Target::Numbers(y) => self.add_numbers(crc, y),
        }
    }

    /// These rows of x, standardised and rounded for the network, which has to be able to hold
    /// them.
    pub(crate) fn inputs_of(&self, origin: &Origin, rows: &[usize], x: &Array2<f64>) -> Result<Array2<f32>> {
        let scales = self.scales();
        if !scales.is_empty() {
            check_columns(origin, scales.len(), x.ncols())?;
        }
        let mut scaled = Array2::zeros(x.dim());
        scale(scales, x.view(), scaled.view_mut());
        match scaled.indexed_iter().find(|(_, x)| !x.is_finite()) {
            Some(((row, column), _)) => {
                let (at, x) = (origin.x(rows[row], column), x[(row, column)]);
                Err(format!("{at}: expected a number that the network's f32 can hold, found {x:?}").into())
            }
            None => Ok(scaled),
        }
    }

    pub(crate) fn check_scaled(&self, all: &Rows, rows: &[usize], y: &Target) -> Result {
        let Target::Numbers(numbers) = y else { return Ok(()) };
        match self.scaled(numbers.clone()).indexed_iter().find(|(_, y)| !y.is_finite()) {
            Some(((at, column), _)) => Err(all.refused(rows[at], column, "a number that the network's f32 can hold")),
            None => Ok(()),
        }
    }

    /// Standardises targets for the network.
    pub(crate) fn scaled(&self, mut y: Array2<f64>) -> Array2<f32> {
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| (y - mean) / deviation);
        }
        y.mapv(|y| y as f32)
    }

    /// Converts outputs of the network back to the scale of the targets.
    pub(crate) fn unscaled(&self, y: Array2<f32>) -> Array2<f64> {
        let mut y = y.mapv(f64::from);
        for (mut column, (mean, deviation)) in y.columns_mut().into_iter().zip(&self.scale) {
            column.mapv_inplace(|y| y * deviation + mean);
        }
        y
    }
}

/// Refuses data whose number of columns is not that of the network's inputs.
pub(crate) fn check_columns(of: &impl Display, expected: usize, found: usize) -> Result {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (counted(expected, "column"), counted(found, "column"));
    Err(format!("{of}: expected {expected}, as the run has learned from, found {found}").into())
}
