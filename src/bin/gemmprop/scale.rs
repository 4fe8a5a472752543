//! Numbers as the network reads and gives them, and back: standardised in double precision, then
//! rounded.

use std::fmt::Display;

use ndarray::Array2;

use crate::message::{Result, counted};
use crate::rows::Rows;
use crate::task::{Target, Task};

impl Task {
    /// Adds all numbers, before they are standardised.
    pub(crate) fn add_to_checksum(&self, crc: &mut crc32fast::Hasher, all: &Rows, rows: &[usize], y: &Target) {
        // Older runs rounded the numbers before taking the checksum.
        let single = self.inputs.is_none();
        let mut add = |number: f64| match single {
            true => crc.update(&(number as f32).to_le_bytes()),
            false => crc.update(&number.to_le_bytes()),
        };
        rows.iter().for_each(|&row| all.x.row(row).iter().for_each(|&x| add(x)));
        match y {
            Target::Labels(y) => y.iter().for_each(|&label| crc.update(&(label as u64).to_le_bytes())),
            Target::Numbers(y) => y.iter().for_each(|&y| add(y)),
        }
    }

    /// The given rows of x, standardised and rounded for the network.
    pub(crate) fn inputs(&self, all: &Rows, rows: &[usize]) -> Result<Array2<f32>> {
        let scales = self.inputs.as_deref().unwrap_or_default();
        if !scales.is_empty() {
            check_columns(&all.origin, scales.len(), all.x.ncols())?;
        }
        let mut x = Array2::zeros((rows.len(), all.x.ncols()));
        for (mut to, &row) in x.outer_iter_mut().zip(rows) {
            for (column, (to, &x)) in to.iter_mut().zip(all.x.row(row)).enumerate() {
                *to = match scales.get(column) {
                    Some((mean, deviation)) => ((x - mean) / deviation) as f32,
                    None => x as f32,
                };
                if !to.is_finite() {
                    let at = all.origin.x(row, column);
                    return Err(format!("{at}: expected a number that the network's f32 can hold, found {x:?}").into());
                }
            }
        }
        Ok(x)
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
